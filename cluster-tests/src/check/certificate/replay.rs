//! The replay of calls on the model, in the order of their revisions.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Class, Entry};
use crate::check::excuse::{Between, Excuses};
use crate::check::{Objection, Part, RESOLUTION_ROWS, answer, violated};
use crate::history::{Action, Answer, Micro};
use crate::model::{ACCOUNTS, Bucket, account_key, half, list_key};

/// Characters of an answer that an objection shows.
const SHOWN_MAX: usize = 400;

/// The model on its way through the history.
pub(super) struct Replay<'a> {
    bucket: Bucket,
    excuses: Excuses<'a>,
    /// The last revision at which a key was known for sure.
    settled: HashMap<String, u64>,
    /// Keys whose row came from an excuse that told no version.
    unversioned: HashSet<String>,
    /// Which operation wrote at a revision.
    writers: HashMap<u64, u64>,
    /// Revisions of deletions that may have found nothing: perhaps they are another's.
    doubtful: HashSet<u64>,
    /// Keys that any operation named.
    named: BTreeSet<String>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(workload: &str, excuses: Excuses<'a>) -> Self {
        Replay {
            bucket: Bucket::of(workload),
            excuses,
            settled: HashMap::new(),
            unversioned: HashSet::new(),
            writers: HashMap::new(),
            doubtful: HashSet::new(),
            named: BTreeSet::new(),
        }
    }

    /// Replays one call, and objects if the model says otherwise.
    pub(super) fn step(&mut self, entry: &Entry) -> Result<(), Objection> {
        let (action, revision) = (&entry.operation.action, entry.revision);
        let keys = keys(action);
        self.named.extend(keys.iter().cloned());
        let evidence = self.writers_of(&keys);
        let right = match action {
            Action::Revisit { key, from }
                if answer(entry.operation) == Some(&Answer::Unchanged) =>
            {
                self.unchanged(key, from, entry)
            }
            Action::Get { key } | Action::Revisit { key, .. } | Action::GetAt { key, .. } => {
                self.get(key, entry)
            }
            Action::List { prefix } => self.list(prefix, entry),
            Action::Cas { key, from, to } => self.swap(key, Some(from), Some(to), entry),
            Action::Create { key, value } => self.swap(key, None, Some(value), entry),
            Action::Remove { key, from } => self.swap(key, Some(from), None, entry),
            Action::Add { key, by } => self.add(key, *by, entry),
            Action::Delete { key } => self.delete(key, entry)?,
            _ => match answer(entry.operation) {
                Some(answer) => same(self.bucket.step(action, revision), answer),
                None => match self.bucket.step(action, revision) {
                    Answer::Denied | Answer::Failed => {
                        Err("that it could not be applied then".to_owned())
                    }
                    _ => Ok(()),
                },
            },
        };
        right.map_err(|model| self.wrong(entry, &model, evidence))?;
        if entry.class == Class::Write {
            self.writers.insert(revision, entry.operation.id);
            // An addition without an answer leaves a number of which nobody knows how great it is.
            let known = answer(entry.operation).is_some() || !matches!(action, Action::Add { .. });
            for key in keys {
                self.unversioned.remove(&key);
                if known {
                    self.settled.insert(key, revision);
                }
            }
        }
        Ok(())
    }

    fn wrong(&self, entry: &Entry, model: &str, mut evidence: Vec<u64>) -> Objection {
        let operation = entry.operation;
        if let Some((_, Some(version))) = answer(operation).and_then(Answer::shown) {
            evidence.extend(self.writers.get(&version));
        }
        evidence.push(operation.id);
        let told = match answer(operation) {
            Some(answer) => short(&format!("{answer:?}")),
            None => "it was applied".to_owned(),
        };
        let action = short(&format!("{:?}", operation.action));
        let what = format!(
            "{action} at revision {}: {told}; the model says {}",
            entry.revision,
            short(model)
        );
        violated(what, evidence)
    }

    /// Who wrote last what an action looks at.
    fn writers_of(&mut self, keys: &[String]) -> Vec<u64> {
        if self.writers.is_empty() {
            return Vec::new();
        }
        let versions: Vec<u64> =
            keys.iter().filter_map(|key| self.row(key).and_then(|(_, version)| version)).collect();
        versions.iter().filter_map(|version| self.writers.get(version)).copied().collect()
    }

    /// A row with its version.
    fn row(&mut self, key: &str) -> Option<(String, Option<u64>)> {
        match self.bucket.step(&Action::Get { key: key.to_owned() }, 0) {
            Answer::Value { value, version } => Some((value?, version)),
            _ => None,
        }
    }

    fn put(&mut self, key: &str, value: &str, revision: u64) {
        let set = Action::Set { key: key.to_owned(), value: value.to_owned() };
        self.bucket.step(&set, revision);
    }

    /// What the row of a key is from now on.
    fn leave(&mut self, key: &str, value: Option<&str>, revision: u64) {
        match value {
            Some(value) => self.put(key, value, revision),
            None => drop(self.bucket.step(&Action::Delete { key: key.to_owned() }, revision)),
        }
    }

    fn between(&self, key: &str, until: u64) -> Between {
        Between(self.settled.get(key).copied(), until)
    }

    fn get(&mut self, key: &str, entry: &Entry) -> Result<(), String> {
        let revision = entry.revision;
        let Some((value, version)) = answer(entry.operation).and_then(Answer::shown) else {
            return Err("that a read has a value".to_owned());
        };
        let row = self.row(key);
        let between = self.between(key, revision);
        let model = row.as_ref().map(|(value, _)| value.as_str());
        let known = row.as_ref().and_then(|(_, version)| *version);
        if value != model {
            if !self.excused(key, model, value, between) {
                return Err(format!("{row:?}"));
            }
            self.leave(key, value, version.unwrap_or(revision));
            // Additions may lie before one that is known, whose version it is then.
            let possible =
                |version| Some(version) == known || self.excuses.is_gap(version, between);
            if version.is_some_and(|version| !possible(version)) {
                return Err(format!("{row:?}"));
            }
        } else if value.is_some() && version.is_some() && version != known {
            let loose = self.unversioned.contains(key) || self.excuses.changes(key, between);
            if !loose || version.is_some_and(|version| self.writers.contains_key(&version)) {
                return Err(format!("{row:?}"));
            }
        }
        self.settled.insert(key.to_owned(), revision);
        Ok(())
    }

    /// Whether a loose write explains that a key shows another value than the model.
    fn excused(
        &mut self,
        key: &str,
        model: Option<&str>,
        shown: Option<&str>,
        between: Between,
    ) -> bool {
        if self.excuses.shows(key, shown, between) {
            return true;
        }
        let number = |text: Option<&str>| text.map_or(Some(0), |text| text.parse::<i64>().ok());
        match (number(model), number(shown)) {
            (Some(model), Some(shown)) => {
                self.excuses.adds(key, shown.saturating_sub(model), between)
            }
            _ => false,
        }
    }

    fn list(&mut self, prefix: &str, entry: &Entry) -> Result<(), String> {
        let Some(Answer::Rows(shown)) = answer(entry.operation) else {
            return Err("that a list has rows".to_owned());
        };
        let model = self.bucket.rows(prefix);
        if *shown == model {
            return Ok(());
        }
        let in_order = shown.is_sorted_by(|(one, _), (other, _)| one < other);
        if !in_order || shown.iter().any(|(key, _)| !key.starts_with(prefix)) {
            return Err(format!("{model:?}"));
        }
        let mut differing: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
        for (key, value) in &model {
            differing.entry(key).or_default().0 = Some(value);
        }
        for (key, value) in shown {
            differing.entry(key).or_default().1 = Some(value);
        }
        differing.retain(|_, (model, shown)| model != shown);
        for (key, (model, shown)) in differing {
            let between = self.between(key, entry.revision);
            if !self.excused(key, model, shown, between) {
                return Err(format!("{model:?} for `{key}`"));
            }
            self.adopt(key, shown, entry.revision);
        }
        Ok(())
    }

    /// Takes over what a list showed by an excuse.
    fn adopt(&mut self, key: &str, shown: Option<&str>, revision: u64) {
        self.leave(key, shown, revision);
        self.unversioned.insert(key.to_owned());
        self.settled.insert(key.to_owned(), revision);
    }

    /// A swap on condition of a value, or that there is none; it may leave none.
    fn swap(
        &mut self,
        key: &str,
        from: Option<&str>,
        to: Option<&str>,
        entry: &Entry,
    ) -> Result<(), String> {
        let row = self.row(key).map(|(value, _)| value);
        let between = self.between(key, entry.revision);
        let matches = row.as_deref() == from;
        match answer(entry.operation) {
            Some(Answer::Denied) if !matches || self.excuses.changes(key, between) => Ok(()),
            None | Some(Answer::Written) if matches || self.excuses.shows(key, from, between) => {
                self.leave(key, to, entry.revision);
                Ok(())
            }
            _ => Err(format!("that the value is {row:?}")),
        }
    }

    fn unchanged(&mut self, key: &str, from: &str, entry: &Entry) -> Result<(), String> {
        let row = self.row(key).map(|(value, _)| value);
        let between = self.between(key, entry.revision);
        if row.as_deref() == Some(from) || self.excuses.shows(key, Some(from), between) {
            return Ok(());
        }
        Err(format!("that the value is {row:?}"))
    }

    fn add(&mut self, key: &str, by: i64, entry: &Entry) -> Result<(), String> {
        let row = self.row(key).map(|(value, _)| value);
        let number = row.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let between = self.between(key, entry.revision);
        let sum = match answer(entry.operation) {
            None => number.saturating_add(by),
            Some(Answer::Number(sum)) => *sum,
            Some(_) => return Err("that an addition has a number".to_owned()),
        };
        let expected = number.saturating_add(by);
        let more = sum.saturating_sub(expected);
        if more != 0 && !self.excuses.adds(key, more, between) {
            return Err(expected.to_string());
        }
        self.put(key, &sum.to_string(), entry.revision);
        Ok(())
    }

    /// Deletes, at a revision of its own if there was something.
    fn delete(&mut self, key: &str, entry: &Entry) -> Result<Result<(), String>, Objection> {
        if !matches!(answer(entry.operation), None | Some(Answer::Written)) {
            return Ok(Err("that a deletion is done".to_owned()));
        }
        if self.row(key).is_some() {
            let revision = entry.revision;
            let earlier = self.writers.get(&revision).copied();
            let gone = self.excuses.shows(key, None, self.between(key, revision));
            match earlier {
                // Another deletion, of which nobody knows, left nothing to this one.
                Some(_) if gone => {}
                // Or to the other one of this revision.
                Some(_) if self.doubtful.remove(&revision) => {
                    self.writers.insert(revision, entry.operation.id);
                }
                Some(earlier) => {
                    let what = format!("two writes have the revision {revision}");
                    return Err(violated(what, [earlier, entry.operation.id]));
                }
                None => {
                    if gone {
                        self.doubtful.insert(revision);
                    }
                    self.writers.insert(revision, entry.operation.id);
                }
            }
            self.bucket.step(&entry.operation.action, entry.revision);
        }
        self.unversioned.remove(key);
        self.settled.insert(key.to_owned(), entry.revision);
        Ok(Ok(()))
    }

    /// Whether a deletion found something, or may have.
    pub(super) fn may_have_deleted(&self, entry: &Entry) -> bool {
        let Action::Delete { key } = &entry.operation.action else { return false };
        self.writers.get(&entry.revision) == Some(&entry.operation.id)
            || self.excuses.may_create(key)
    }

    /// Compares what the nodes hold at the end.
    pub(super) fn compare(&mut self, part: &Part) -> Result<(), Objection> {
        let model: BTreeMap<String, String> = self.bucket.rows("").into_iter().collect();
        let named = std::mem::take(&mut self.named);
        let keys: BTreeSet<&str> = model.keys().chain(&named).map(String::as_str).collect();
        for (node, rows) in part.rows() {
            for key in keys.iter().copied().filter(|key| !key.starts_with(RESOLUTION_ROWS)) {
                let (held, should) = (rows.get(key).copied(), model.get(key).map(String::as_str));
                if held != should {
                    let writers = self.writers_of(&[key.to_owned()]);
                    let what = format!(
                        "at the end node {node} holds {} for `{key}`; the model says {}",
                        short(&format!("{held:?}")),
                        short(&format!("{should:?}"))
                    );
                    return Err(violated(what, writers));
                }
            }
        }
        Ok(())
    }
}

fn same(model: Answer, answer: &Answer) -> Result<(), String> {
    if model == *answer { Ok(()) } else { Err(format!("{model:?}")) }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The rows that an action looks at or writes.
fn keys(action: &Action) -> Vec<String> {
    match action {
        Action::Get { key }
        | Action::GetAt { key, .. }
        | Action::Set { key, .. }
        | Action::SetFor { key, .. }
        | Action::Cas { key, .. }
        | Action::Create { key, .. }
        | Action::Remove { key, .. }
        | Action::Revisit { key, .. }
        | Action::Delete { key }
        | Action::Repeat { key, .. }
        | Action::Add { key, .. } => vec![key.clone()],
        Action::Txn { steps } => steps.iter().map(|step| step.key().to_owned()).collect(),
        Action::List { .. } => Vec::new(),
        Action::Append { steps } => {
            let key = |step: &Micro| match step {
                Micro::Append(key, _) | Micro::Read(key) => list_key(*key),
            };
            steps.iter().map(key).collect()
        }
        Action::Transfer { from, to, .. } => vec![account_key(*from), account_key(*to)],
        Action::Balances => (0..ACCOUNTS).map(account_key).collect(),
        Action::Acquire { .. } | Action::Release { .. } => vec!["lock".into(), "fence".into()],
        Action::Use { .. } => vec!["seen".into(), "resource".into()],
        Action::Pair { pair, .. } | Action::ReadPair { pair } => {
            vec![half(*pair, 'a'), half(*pair, 'b')]
        }
    }
}
