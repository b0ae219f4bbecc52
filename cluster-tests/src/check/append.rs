//! Lists that are only appended to, by transactions that read whole lists.
//!
//! Every read of a list shows the order of all appends before it, so nearly all of what happened can be
//! concluded from the answers alone; revisions are not looked at. What must hold:
//! - No element is twice in a list, and none that nobody appended, or only a call without an effect.
//! - All reads of a list are beginnings of the longest one.
//! - A transaction sees its own appends, and between them nobody else's.
//! - Nobody sees a list between two appends of one transaction.
//! - What was acknowledged is in every node's list at the end. A node's rows at the end are read as if by a
//!   transaction that began after all others had ended.
//! - There is an order of all transactions: no cycle of `ww` (appended after), `wr` (saw), `rw` (did not
//!   see) and `rt` (began after it had ended). So it is strictly serializable, as far as reads tell.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::graph::Graph;
use super::{Effect, Judged, Objection, Part, answer, effect, end, violated};
use crate::history::{Action, Answer, Micro};

/// Edges to unread appends that are drawn one by one.
const TAIL_EDGES_MAX: usize = 50;

/// A transaction, or a node's rows at the end.
#[derive(Debug)]
pub(super) struct Txn {
    /// The operation; `None` for the rows at the end.
    pub(super) id: Option<u64>,
    pub(super) began: u64,
    pub(super) ended: Option<u64>,
    pub(super) effect: Effect,
    pub(super) fate: Fate,
    pub(super) steps: Vec<Seen>,
}

/// What is known of a transaction's reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It answered.
    Told,
    /// It may have been applied, and its answer was lost.
    Untold,
    /// It did nothing, or only read, and tells nothing.
    Void,
}

/// A step with what it saw.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Append(u64, u64),
    Read(u64, Vec<u64>),
}

/// All transactions that can be told of, and what each node holds at the end.
pub(super) fn transactions(part: &Part) -> Result<Vec<Txn>, Objection> {
    let mut all = Vec::new();
    for operation in &part.operations {
        let Action::Append { steps } = &operation.action else { continue };
        let lists = match answer(operation) {
            Some(Answer::Lists(lists)) => Some(lists.as_slice()),
            Some(Answer::Denied | Answer::Failed) | None => None,
            Some(_) => return Err(violated("an append answers with lists", [operation.id])),
        };
        let reads = steps.iter().filter(|step| matches!(step, Micro::Read(_))).count();
        if lists.is_some_and(|lists| lists.len() != reads) {
            return Err(violated("an answer has a list for each read", [operation.id]));
        }
        let effect = effect(operation);
        let fate = match (lists, effect) {
            (Some(_), _) => Fate::Told,
            (None, Effect::Never) => Fate::Void,
            (None, _) => Fate::Untold,
        };
        let mut lists = lists.map(|lists| lists.iter());
        let seen = steps.iter().filter_map(|step| match step {
            Micro::Append(key, element) => Some(Seen::Append(*key, *element)),
            Micro::Read(key) => Some(Seen::Read(*key, lists.as_mut()?.next()?.clone())),
        });
        all.push(Txn {
            id: Some(operation.id),
            began: operation.began,
            ended: end(operation),
            steps: seen.collect(),
            effect,
            fate,
        });
    }
    all.extend(final_reads(part, &all)?);
    Ok(all)
}

fn final_reads(part: &Part, all: &[Txn]) -> Result<Vec<Txn>, Objection> {
    let last = part.operations.iter().map(|op| op.began.max(op.ended)).max().unwrap_or(0);
    let keys: HashSet<u64> = all.iter().flat_map(|txn| &txn.steps).map(Seen::key).collect();
    let mut keys: Vec<u64> = keys.into_iter().collect();
    keys.sort_unstable();
    let mut reads = Vec::new();
    for (node, rows) in part.rows() {
        let mut steps = Vec::new();
        for key in &keys {
            let text = rows.get(crate::model::list_key(*key).as_str()).copied().unwrap_or("");
            let list: Result<Vec<u64>, _> =
                text.split(',').filter(|text| !text.is_empty()).map(str::parse).collect();
            let broken = |_| violated(format!("node {node} holds a list that is none: {text}"), []);
            steps.push(Seen::Read(*key, list.map_err(broken)?));
        }
        let (began, ended) = (last + 1, Some(last + 2));
        let (effect, fate) = (Effect::Never, Fate::Told);
        reads.push(Txn { id: None, began, ended, effect, fate, steps });
    }
    Ok(reads)
}

impl Seen {
    fn key(&self) -> u64 {
        match self {
            Seen::Append(key, _) | Seen::Read(key, _) => *key,
        }
    }
}

impl Txn {
    fn reads(&self) -> impl Iterator<Item = (u64, &[u64])> {
        self.steps.iter().filter_map(|step| match step {
            Seen::Read(key, list) => Some((*key, list.as_slice())),
            Seen::Append(..) => None,
        })
    }

    fn appends(&self) -> impl Iterator<Item = (u64, u64)> {
        self.steps.iter().filter_map(|step| match step {
            Seen::Append(key, element) => Some((*key, *element)),
            Seen::Read(..) => None,
        })
    }
}

pub(super) fn check(part: &Part) -> Judged {
    let all = transactions(part)?;
    let lists = Lists::of(&all)?;
    for (at, txn) in all.iter().enumerate() {
        lists.elements_are_right(at, txn)?;
        sees_its_own(txn)?;
    }
    lists.all_are_at_the_end()?;
    lists.nothing_in_between()?;
    lists.there_is_an_order()?;
    Ok(all.iter().filter(|txn| txn.id.is_some() && txn.fate != Fate::Void).count())
}

/// What the reads tell, taken together.
struct Lists<'a> {
    all: &'a [Txn],
    /// By element: its list and the transaction that appended it.
    writers: HashMap<u64, (u64, usize)>,
    /// By list: its longest read and who made it.
    longest: BTreeMap<u64, (&'a [u64], usize)>,
    /// All elements of those.
    read: HashSet<u64>,
}

impl<'a> Lists<'a> {
    fn of(all: &'a [Txn]) -> Result<Self, Objection> {
        let mut writers = HashMap::new();
        let mut longest: BTreeMap<u64, (&[u64], usize)> = BTreeMap::new();
        for (at, txn) in all.iter().enumerate() {
            for (key, element) in txn.appends() {
                if writers.insert(element, (key, at)).is_some() {
                    let why =
                        format!("{element} was appended by two calls, so nothing can be told");
                    return Err(super::unknown(why));
                }
            }
            for (key, list) in txn.reads() {
                let known = longest.entry(key).or_insert((list, at));
                if list.len() > known.0.len() {
                    *known = (list, at);
                }
            }
        }
        let read = longest.values().flat_map(|(list, _)| *list).copied().collect();
        Ok(Lists { all, writers, longest, read })
    }

    fn ids(&self, txns: &[usize]) -> Vec<u64> {
        txns.iter().filter_map(|at| self.all.get(*at)?.id).collect()
    }

    fn writer(&self, element: u64) -> Option<(usize, &'a Txn)> {
        let (_, at) = self.writers.get(&element)?;
        Some((*at, self.all.get(*at)?))
    }

    /// Each read is a beginning of the longest, and the longest has what was appended, once.
    fn elements_are_right(&self, at: usize, txn: &Txn) -> Result<(), Objection> {
        for (key, list) in txn.reads() {
            let Some((longest, by)) = self.longest.get(&key) else { continue };
            if !longest.starts_with(list) {
                let what =
                    format!("list {key} was read as {list:?} and as {longest:?}, in no one order");
                return Err(violated(what, self.ids(&[at, *by])));
            }
            if *by != at {
                continue;
            }
            let mut once = HashSet::new();
            for element in list {
                if !once.insert(element) {
                    let what = format!("{element} is twice in list {key}: {list:?}");
                    let writer = self.writer(*element).map_or(at, |(writer, _)| writer);
                    return Err(violated(what, self.ids(&[at, writer])));
                }
                self.element_may_be_there(key, *element, at)?;
            }
        }
        Ok(())
    }

    fn element_may_be_there(&self, key: u64, element: u64, at: usize) -> Result<(), Objection> {
        let (what, writer) = match self.writers.get(&element) {
            None => (format!("nobody appended {element}, which is in list {key}"), at),
            Some((other, writer)) if *other != key => {
                (format!("{element} was appended to list {other} and is in list {key}"), *writer)
            }
            Some((_, writer)) => match self.all.get(*writer) {
                Some(txn) if txn.effect == Effect::Never => (
                    format!(
                        "{element} is in list {key}, and was appended by a call without an effect"
                    ),
                    *writer,
                ),
                _ => return Ok(()),
            },
        };
        Err(violated(what, self.ids(&[at, writer])))
    }

    /// What was acknowledged is in what each node holds at the end.
    fn all_are_at_the_end(&self) -> Result<(), Objection> {
        let mut held: HashMap<u64, usize> = HashMap::new();
        let ends = self.all.iter().filter(|txn| txn.id.is_none());
        let nodes = ends.clone().count();
        for (_, list) in ends.flat_map(Txn::reads) {
            for element in list {
                *held.entry(*element).or_default() += 1;
            }
        }
        for txn in self.all.iter().filter(|txn| txn.effect == Effect::Certain) {
            for (key, element) in txn.appends() {
                let on = held.get(&element).copied().unwrap_or(0);
                if on < nodes {
                    let what = format!(
                        "{element} was appended to list {key}, and at the end {on} of {nodes} nodes hold it"
                    );
                    return Err(violated(what, txn.id));
                }
            }
        }
        Ok(())
    }

    /// No read ends between two appends of one transaction to one list, unless it is that one's own.
    fn nothing_in_between(&self) -> Result<(), Objection> {
        let mut last: HashMap<(usize, u64), u64> = HashMap::new();
        for (at, txn) in self.all.iter().enumerate() {
            for (key, element) in txn.appends() {
                last.insert((at, key), element);
            }
        }
        for (at, txn) in self.all.iter().enumerate() {
            for (key, list) in txn.reads() {
                let Some(element) = list.last() else { continue };
                let Some((writer, _)) = self.writer(*element) else { continue };
                if writer != at && last.get(&(writer, key)).is_some_and(|last| last != element) {
                    let what =
                        format!("list {key} was read in the middle of a transaction: {list:?}");
                    return Err(violated(what, self.ids(&[at, writer])));
                }
            }
        }
        Ok(())
    }

    /// Transactions that certainly happened: what an unknown one appended was seen.
    fn happened(&self) -> Vec<bool> {
        let mut happened: Vec<bool> = self
            .all
            .iter()
            .map(|txn| txn.effect == Effect::Certain || txn.fate == Fate::Told)
            .collect();
        for element in &self.read {
            if let Some((writer, _)) = self.writer(*element)
                && let Some(happened) = happened.get_mut(writer)
            {
                *happened = true;
            }
        }
        happened
    }

    fn there_is_an_order(&self) -> Result<(), Objection> {
        let happened = self.happened();
        let happened = |at: usize| happened.get(at).copied().unwrap_or(false);
        let mut graph = Graph::default();
        for _ in self.all {
            graph.node();
        }
        self.link_lists(&mut graph, &happened);
        self.link_times(&mut graph, &happened);
        let Some(steps) = graph.shortest_cycle() else { return Ok(()) };
        let name = |at: usize| match self.all.get(at).and_then(|txn| txn.id) {
            Some(id) => id.to_string(),
            None => "the end".to_owned(),
        };
        let told: Vec<String> =
            steps.iter().map(|step| format!("{} {}", name(step.from), step.why)).collect();
        let first = steps.first().map(|step| name(step.from)).unwrap_or_default();
        let what = format!("no order of transactions: {} {first}", told.join(" "));
        Err(violated(what, self.ids(&steps.iter().map(|step| step.from).collect::<Vec<_>>())))
    }

    fn link_lists(&self, graph: &mut Graph, happened: &impl Fn(usize) -> bool) {
        let tails = self.tails(graph, happened);
        for (key, (longest, _)) in &self.longest {
            let mut before = None;
            for element in *longest {
                let writer = self.writer(*element).map(|(at, _)| at);
                if let (Some(before), Some(writer)) = (before, writer)
                    && before != writer
                {
                    graph.link(before, writer, "ww");
                }
                before = writer;
            }
            if let (Some(before), Some(tail)) = (before, tails.get(key)) {
                tail.link(graph, before, "ww");
            }
        }
        for (at, txn) in self.all.iter().enumerate().filter(|(at, _)| happened(*at)) {
            for (key, list) in txn.reads() {
                let writer = list.last().and_then(|element| self.writer(*element));
                if let Some((writer, _)) = writer
                    && writer != at
                {
                    graph.link(writer, at, "wr");
                }
                let longest = self.longest.get(&key).map_or(&[][..], |(longest, _)| longest);
                match longest.get(list.len()).map(|element| self.writer(*element)) {
                    Some(Some((writer, _))) if writer != at => graph.link(at, writer, "rw"),
                    Some(_) => {}
                    None => tails.get(&key).into_iter().for_each(|tail| tail.link(graph, at, "rw")),
                }
            }
        }
    }

    /// By list: what certainly was appended and never read comes after everything that was read.
    fn tails(&self, graph: &mut Graph, happened: &impl Fn(usize) -> bool) -> HashMap<u64, Tail> {
        let mut tails: HashMap<u64, Tail> = HashMap::new();
        for (at, txn) in self.all.iter().enumerate().filter(|(at, _)| happened(*at)) {
            if txn.effect == Effect::Never {
                continue;
            }
            for (key, _) in txn.appends().filter(|(_, element)| !self.read.contains(element)) {
                let tail = tails
                    .entry(key)
                    .or_insert_with(|| Tail { node: graph.node(), writers: Vec::new() });
                if tail.writers.last() != Some(&at) {
                    graph.pass(tail.node, at);
                    tail.writers.push(at);
                }
            }
        }
        tails
    }

    /// Real time in a linear number of edges: each end is a moment, moments follow each other, and what
    /// begins is after the last moment before it.
    fn link_times(&self, graph: &mut Graph, happened: &impl Fn(usize) -> bool) {
        let there = || self.all.iter().enumerate().filter(|(at, _)| happened(*at));
        let mut ends: Vec<(u64, usize)> =
            there().filter_map(|(at, txn)| Some((txn.ended?, at))).collect();
        ends.sort_unstable();
        let mut moments: Vec<(u64, usize)> = Vec::new();
        for (ended, at) in ends {
            let moment = match moments.last() {
                Some((last, moment)) if *last == ended => *moment,
                last => {
                    let last = last.map(|(_, moment)| *moment);
                    let moment = graph.node();
                    if let Some(last) = last {
                        graph.pass(last, moment);
                    }
                    moments.push((ended, moment));
                    moment
                }
            };
            graph.link(at, moment, "rt");
        }
        for (at, txn) in there() {
            let before = moments.partition_point(|(ended, _)| *ended < txn.began);
            if let Some((_, moment)) = before.checked_sub(1).and_then(|last| moments.get(last)) {
                graph.pass(*moment, at);
            }
        }
    }
}

/// What nobody read of a list: who wrote it, behind one auxiliary node.
struct Tail {
    node: usize,
    /// In order.
    writers: Vec<usize>,
}

impl Tail {
    /// All of them come after a transaction. If it is one of them, it must not come after itself: then
    /// the edges are drawn one by one, a few of them.
    fn link(&self, graph: &mut Graph, from: usize, why: &'static str) {
        if self.writers.binary_search(&from).is_err() {
            graph.link(from, self.node, why);
            return;
        }
        for writer in self.writers.iter().filter(|writer| **writer != from).take(TAIL_EDGES_MAX) {
            graph.link(from, *writer, why);
        }
    }
}

/// Own appends are seen at the end of the list, in order; without them the list does not change between
/// two reads of one transaction.
fn sees_its_own(txn: &Txn) -> Result<(), Objection> {
    let mut known: HashMap<u64, (Option<&[u64]>, Vec<u64>)> = HashMap::new();
    for step in &txn.steps {
        match step {
            Seen::Append(key, element) => known.entry(*key).or_default().1.push(*element),
            Seen::Read(key, list) => {
                let (before, own) = known.entry(*key).or_default();
                let right = match before {
                    Some(before) => {
                        list.strip_prefix(*before).is_some_and(|rest| rest == own.as_slice())
                    }
                    None => list.ends_with(own),
                };
                if !right {
                    let what =
                        format!("a transaction does not see list {key} as it left it: {list:?}");
                    return Err(violated(what, txn.id));
                }
                (*before, *own) = (Some(list.as_slice()), Vec::new());
            }
        }
    }
    Ok(())
}
