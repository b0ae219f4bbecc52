//! Linearizability, key by key: is there an order of a key's operations that respects real time and in
//! which each answer is right?
//!
//! The search of Wing and Gong with Lowe's cache: a node is the set of operations that have their place, and
//! the value after them; a node that was seen is not searched again. Keys are independent of each other,
//! so each is searched by itself. Versions and revisions are not looked at. A list is a read of each key that
//! it would show. A key that was set for a while is deleted, from the earliest moment on at which it may die,
//! by nobody knows whom.
//!
//! Three things keep it small, and lose nothing:
//! - A read that fits is placed at once: it changes nothing, so no later place is better.
//! - An unknown write is only placed right before an operation that needs it. Whatever does not need it can
//!   go before it (it has no end), and what overwrites it makes it as good as never applied.
//! - Of unknown additions of the same amount, the one that began first is taken first.
//!
//! A failure is cut to the shortest time that shows it; then operations are left out one by one while it
//! remains. Only those are left out whose absence cannot make a right history wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::expiry::earliest_death;
use super::{Effect, Judged, Part, answer, effect, end, unknown, violated};
use crate::history::{Action, Answer, Operation};

/// Nodes that are searched for a key.
const NODES_MAX: usize = 300_000;
/// Nodes that are searched for each attempt to show a failure with less.
const SHRINK_NODES_MAX: usize = 20_000;
/// Rounds of leaving operations out.
const SHRINK_ROUNDS: usize = 4;

pub(super) fn check(part: &Part) -> Judged {
    let (mut judged, mut open, mut broken) = (0, Vec::new(), Vec::new());
    for (key, operations) in by_key(part) {
        let calls = calls(part, key, &operations);
        match search(&calls, NODES_MAX) {
            Found::Order => judged += calls.len(),
            Found::None => broken.push((key, calls)),
            Found::TooMuch => open.push(key),
        }
    }
    broken.sort_by_key(|(_, calls)| calls.len());
    if let Some((key, calls)) = broken.first() {
        let shown = shrink(calls);
        let count = broken.len();
        let what = format!(
            "no order of the operations on `{key}` explains their answers ({count} such keys)"
        );
        return Err(violated(what, shown.iter().map(|call| call.id)));
    }
    if !open.is_empty() {
        let keys = open.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        return Err(unknown(format!(
            "the search met its limit of {NODES_MAX} nodes on {} keys: {keys}",
            open.len()
        )));
    }
    Ok(judged)
}

fn by_key<'a>(part: &Part<'a>) -> BTreeMap<&'a str, Vec<&'a Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &part.operations {
        if let Action::Get { key }
        | Action::GetAt { key, stale: false, .. }
        | Action::Set { key, .. }
        | Action::SetFor { key, .. }
        | Action::Cas { key, .. }
        | Action::Create { key, .. }
        | Action::Remove { key, .. }
        | Action::Revisit { key, .. }
        | Action::Delete { key }
        | Action::Add { key, .. } = &operation.action
        {
            keys.entry(key).or_default().push(operation);
        }
    }
    let lists = part.operations.iter().filter(|op| matches!(op.action, Action::List { .. }));
    for list in lists {
        let Action::List { prefix } = &list.action else { continue };
        for (key, operations) in &mut keys {
            if key.starts_with(prefix) {
                operations.push(list);
            }
        }
    }
    keys
}

/// What a key holds: a number, or the number that stands for a text.
type Value = Option<i64>;

/// What an operation asks of the value and makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Read(Value),
    /// A swap that was denied.
    IsNot(Value),
    Write(Value),
    Swap {
        from: Value,
        to: Value,
    },
    Add {
        by: i64,
        /// What it answered, where it did.
        sum: Option<i64>,
    },
    /// Its answer is none that this action can have.
    Absurd,
}

impl Step {
    /// The value afterwards, if the operation can stand here.
    fn after(self, value: Value) -> Option<Value> {
        match self {
            Step::Read(read) => (read == value).then_some(value),
            Step::IsNot(from) => (value != from).then_some(value),
            Step::Write(written) => Some(written),
            Step::Swap { from, to } => (value == from).then_some(to),
            Step::Add { by, sum } => {
                let after = value.unwrap_or(0).checked_add(by)?;
                sum.is_none_or(|sum| sum == after).then_some(Some(after))
            }
            Step::Absurd => None,
        }
    }

    fn changes_nothing(self) -> bool {
        matches!(self, Step::Read(_) | Step::IsNot(_))
    }

    /// The number that must be there before, if only one can.
    fn needs_number(self) -> Option<i64> {
        match self {
            Step::Add { by, sum } => sum?.checked_sub(by),
            Step::Read(value) => value,
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Call {
    id: u64,
    began: u64,
    /// `None`: unknown, may be left out.
    ended: Option<u64>,
    step: Step,
}

/// The operations of a key as calls, without those that had no effect and tell nothing, in the order in
/// which they began.
fn calls(part: &Part, key: &str, operations: &[&Operation]) -> Vec<Call> {
    let numeric = operations.iter().any(|op| matches!(op.action, Action::Add { .. }));
    let mut names: HashMap<String, i64> = HashMap::new();
    let mut value_of = |text: &str| {
        if numeric {
            return text.parse().ok();
        }
        let next = i64::try_from(names.len()).unwrap_or(i64::MAX);
        Some(*names.entry(text.to_owned()).or_insert(next))
    };
    let mut calls = Vec::new();
    for operation in operations {
        let Some(step) = step(key, operation, &mut value_of) else { continue };
        let (id, began) = (operation.id, operation.began);
        // One that is resolved has no known end either.
        calls.push(Call { id, began, ended: end(operation), step });
        if let (Some(began), Step::Write(from)) = (earliest_death(part, operation), step) {
            calls.push(Call { id, began, ended: None, step: Step::Swap { from, to: None } });
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// What an operation did to a key; `None` if it had no effect and no answer.
fn step(
    key: &str,
    operation: &Operation,
    mut value_of: impl FnMut(&str) -> Option<i64>,
) -> Option<Step> {
    let told = answer(operation);
    if told.is_none() && effect(operation) == Effect::Never {
        return None;
    }
    let mut known = |text: &str| value_of(text).map(Some);
    let done = matches!(told, None | Some(Answer::Written));
    let step = match (&operation.action, told) {
        (
            Action::Get { .. } | Action::GetAt { .. } | Action::Revisit { .. },
            Some(Answer::Value { value, .. } | Answer::Dated { value, .. }),
        ) => value.as_deref().map_or(Some(None), known).map(Step::Read),
        (Action::Revisit { from, .. }, Some(Answer::Unchanged)) => known(from).map(Step::Read),
        (Action::List { .. }, Some(Answer::Rows(rows))) => {
            let row = rows.iter().find(|(shown, _)| shown == key);
            row.map_or(Some(None), |(_, value)| known(value)).map(Step::Read)
        }
        (Action::Set { value, .. } | Action::SetFor { value, .. }, _) if done => {
            known(value).map(Step::Write)
        }
        (Action::Delete { .. }, _) if done => Some(Step::Write(None)),
        (action, Some(Answer::Denied)) => swap(action, known).map(|(from, _)| Step::IsNot(from)),
        (Action::Add { by, .. }, None) => Some(Step::Add { by: *by, sum: None }),
        (Action::Add { by, .. }, Some(Answer::Number(sum))) => {
            Some(Step::Add { by: *by, sum: Some(*sum) })
        }
        (action, _) if done => swap(action, known).map(|(from, to)| Step::Swap { from, to }),
        _ => None,
    };
    Some(step.unwrap_or(Step::Absurd))
}

/// What a call on condition replaces, and what it leaves.
fn swap(action: &Action, mut known: impl FnMut(&str) -> Option<Value>) -> Option<(Value, Value)> {
    match action {
        Action::Cas { from, to, .. } => known(from).zip(known(to)),
        Action::Create { value, .. } => known(value).map(|value| (None, value)),
        Action::Remove { from, .. } => known(from).map(|from| (from, None)),
        _ => None,
    }
}

enum Found {
    Order,
    None,
    TooMuch,
}

/// A point of the search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    /// All known calls before this one have their place.
    base: usize,
    /// Those after it that have theirs too.
    ahead: Vec<usize>,
    /// All unknown calls before this one are taken, and so are these after it.
    taken_base: usize,
    taken: Vec<usize>,
    /// What the key holds then.
    value: Value,
    /// If the last one was unknown: what the key held before it.
    unneeded: Option<Value>,
}

/// Calls with a known end, and those without, each in the order in which they began.
struct Search {
    known: Vec<(u64, Call)>,
    unknown: Vec<Call>,
}

fn search(calls: &[Call], nodes_max: usize) -> Found {
    let known = calls.iter().filter_map(|call| Some((call.ended?, *call))).collect();
    let unknown = calls.iter().filter(|call| call.ended.is_none()).copied().collect();
    let search = Search { known, unknown };
    let mut seen = HashSet::new();
    let mut stack = vec![Node::default()];
    while let Some(node) = stack.pop() {
        if node.base == search.known.len() {
            return Found::Order;
        }
        if seen.contains(&node) {
            continue;
        }
        if seen.len() == nodes_max {
            return Found::TooMuch;
        }
        search.expand(&node, &mut stack);
        seen.insert(node);
    }
    Found::None
}

impl Search {
    /// Pushes the nodes that follow; the most promising last.
    fn expand(&self, node: &Node, stack: &mut Vec<Node>) {
        let (next, first_end) = self.next(node);
        let mut fitting: Vec<(u64, usize, Value)> = Vec::new();
        for (at, ended, call) in &next {
            let Some(after) = call.step.after(node.value) else { continue };
            if node.unneeded.is_some_and(|before| call.step.after(before).is_some()) {
                continue;
            }
            if call.step.changes_nothing() {
                stack.push(self.with_known(node, *at, after));
                return;
            }
            fitting.push((*ended, *at, after));
        }
        self.expand_unknown(node, &next, first_end, stack);
        fitting.sort_unstable_by(|a, b| b.cmp(a));
        stack.extend(fitting.iter().map(|(_, at, after)| self.with_known(node, *at, *after)));
    }

    /// The known calls that may come next: no other call that has no place yet ended before they began.
    /// Also the first end among those without a place.
    fn next(&self, node: &Node) -> (Vec<(usize, u64, Call)>, u64) {
        let mut first_end = u64::MAX;
        let mut next = Vec::new();
        for (at, (ended, call)) in self.known.iter().enumerate().skip(node.base) {
            if call.began > first_end {
                break;
            }
            if node.ahead.binary_search(&at).is_err() {
                first_end = first_end.min(*ended);
                next.push((at, *ended, *call));
            }
        }
        (next, first_end)
    }

    fn expand_unknown(
        &self,
        node: &Node,
        next: &[(usize, u64, Call)],
        first_end: u64,
        stack: &mut Vec<Node>,
    ) {
        let mut amounts = HashSet::new();
        for (at, call) in self.unknown.iter().enumerate().skip(node.taken_base) {
            if call.began > first_end {
                break;
            }
            if node.taken.binary_search(&at).is_ok() {
                continue;
            }
            let useful = match call.step {
                // Two in a row: the first would be overwritten, unless the second swaps it.
                Step::Write(_) => node.unneeded.is_none(),
                Step::Add { by, .. } => amounts.insert(by) && wanted(next, node.value, by),
                _ => true,
            };
            let after = call.step.after(node.value).filter(|after| *after != node.value);
            if let Some(after) = after.filter(|_| useful) {
                let mut node = Node { unneeded: Some(node.value), value: after, ..node.clone() };
                insert(&mut node.taken, &mut node.taken_base, at);
                stack.push(node);
            }
        }
    }

    fn with_known(&self, node: &Node, at: usize, value: Value) -> Node {
        let mut node = Node { value, unneeded: None, ..node.clone() };
        insert(&mut node.ahead, &mut node.base, at);
        node
    }
}

/// Inserts into the sorted numbers beyond a base; those that follow the base without a gap go into it.
fn insert(sorted: &mut Vec<usize>, base: &mut usize, item: usize) {
    if let Err(at) = sorted.binary_search(&item) {
        sorted.insert(at, item);
    }
    let first = *base;
    let passed = sorted.iter().enumerate().take_while(|(i, at)| **at == first + i).count();
    sorted.drain(..passed);
    *base += passed;
}

/// Whether a call that may come next needs a number on that side of the value.
fn wanted(next: &[(usize, u64, Call)], value: Value, by: i64) -> bool {
    let value = value.unwrap_or(0);
    next.iter()
        .filter_map(|(_, _, call)| call.step.needs_number())
        .any(|number| if by > 0 { number > value } else { number < value })
}

/// Fewer calls that fail as well.
fn shrink(calls: &[Call]) -> Vec<Call> {
    let fails = |calls: &[Call]| matches!(search(calls, SHRINK_NODES_MAX), Found::None);
    let mut kept = shortest_prefix(calls, fails);
    for _ in 0..SHRINK_ROUNDS {
        let before = kept.len();
        let mut at = kept.len();
        while at > 0 {
            at -= 1;
            let mut fewer = kept.clone();
            let call = fewer.remove(at);
            if can_miss(&call, &fewer) && fails(&fewer) {
                kept = fewer;
            }
        }
        if kept.len() == before {
            break;
        }
    }
    kept
}

/// The calls up to the first moment at which they fail. If a history can be explained, so can all of its
/// beginnings; so the moment is found by halving.
fn shortest_prefix(calls: &[Call], fails: impl Fn(&[Call]) -> bool) -> Vec<Call> {
    let mut ends: Vec<u64> = calls.iter().filter_map(|call| call.ended).collect();
    ends.sort_unstable();
    let shortest = ends.partition_point(|end| !fails(&until(calls, *end)));
    match ends.get(shortest) {
        Some(end) => until(calls, *end),
        // Only the full search can tell.
        None => calls.to_vec(),
    }
}

/// What was known at a moment: what had not ended was unknown.
fn until(calls: &[Call], moment: u64) -> Vec<Call> {
    let known = calls.iter().filter(|call| call.began <= moment);
    known
        .filter_map(|call| {
            if call.ended.is_some_and(|ended| ended <= moment) {
                return Some(*call);
            }
            let step = match call.step {
                Step::Read(_) | Step::IsNot(_) | Step::Absurd => return None,
                Step::Add { by, .. } => Step::Add { by, sum: None },
                write => write,
            };
            Some(Call { ended: None, step, ..*call })
        })
        .collect()
}

/// Whether a history without this call can be explained if the one with it can: nobody saw its effect.
fn can_miss(call: &Call, others: &[Call]) -> bool {
    let sees = |value: Value| {
        others.iter().any(|other| match other.step {
            Step::Read(read) => read == value,
            Step::Swap { from, .. } => value == from,
            Step::IsNot(_) => true,
            _ => false,
        })
    };
    match call.step {
        Step::Read(_) | Step::IsNot(_) => true,
        Step::Write(value) => !sees(value),
        Step::Swap { to, .. } => !sees(to),
        Step::Add { .. } | Step::Absurd => false,
    }
}
