//! Writes of which nobody knows whether and when they were applied, and what they excuse.
//!
//! A bucket gives every applied call a revision of its own. A revision that no known call has (a *gap*) may
//! therefore hold one of the *loose* writes: those whose outcome stayed unknown, and those that were
//! acknowledged without a revision. A key that differs from the model is excused if a loose write of that
//! key would explain what is seen, and if a gap lies where it must have been applied: after the last
//! revision at which the key was known, after everything that had ended before the write began, and not
//! after the revision that shows it.
//!
//! What is lost: one gap may excuse two keys, as long as the gaps are not more than the loose writes; loose
//! additions of different amounts to one counter, or beside other writes, excuse every number; a denied swap that is excused
//! teaches nothing about the key. Where no gap is, nothing is excused and nothing is lost.

use std::collections::HashMap;

use crate::history::{Action, Operation};

/// A write without a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loose<'a> {
    pub(super) operation: &'a Operation,
    /// The greatest revision that had been answered when it began: it is applied after that one.
    pub(super) floor: Option<u64>,
}

/// Revisions after the first and up to the second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between(pub(super) Option<u64>, pub(super) u64);

#[derive(Debug, Default)]
pub(super) struct Excuses<'a> {
    /// In order.
    gaps: Vec<u64>,
    /// The gap that stands for all revisions before the first that was seen, if loose writes may be there.
    start: Option<u64>,
    by_key: HashMap<&'a str, Vec<Loose<'a>>>,
}

impl<'a> Excuses<'a> {
    pub(super) fn new(gaps: Vec<u64>, start: Option<u64>, loose: &[Loose<'a>]) -> Self {
        let mut by_key: HashMap<&str, Vec<Loose>> = HashMap::new();
        for loose in loose {
            if let Some(key) = key(&loose.operation.action) {
                by_key.entry(key).or_default().push(*loose);
            }
        }
        for of_key in by_key.values_mut() {
            of_key.sort_by_key(|loose| loose.floor);
        }
        Excuses { gaps, start, by_key }
    }

    /// Whether a key may show a value by then because of a loose write.
    pub(super) fn shows(&self, key: &str, value: Option<&str>, between: Between) -> bool {
        self.loose(key).iter().any(|loose| {
            let leaves = match &loose.operation.action {
                Action::Set { value, .. }
                | Action::Create { value, .. }
                | Action::Cas { to: value, .. } => Some(value.as_str()),
                Action::Delete { .. } | Action::Remove { .. } => None,
                _ => return false,
            };
            leaves == value && self.may_lie(loose, between)
        })
    }

    /// Whether a key may have been changed by then by a loose write.
    pub(super) fn changes(&self, key: &str, between: Between) -> bool {
        self.loose(key).iter().any(|loose| self.may_lie(loose, between))
    }

    /// Whether loose additions may have added so much more by then. They are used up, where it is known
    /// how many they were.
    pub(super) fn adds(&mut self, key: &str, more: i64, between: Between) -> bool {
        let all = self.loose(key).to_vec();
        let mut usable = Vec::new();
        let mut amounts = Vec::new();
        for (at, loose) in all.iter().enumerate().filter(|(_, loose)| self.may_lie(loose, between))
        {
            let Action::Add { by, .. } = loose.operation.action else {
                return true;
            };
            usable.push(at);
            amounts.push(by);
        }
        amounts.sort_unstable();
        amounts.dedup();
        let [by] = amounts.as_slice() else {
            return amounts.len() > 1;
        };
        if more.checked_rem(*by) != Some(0) || more / by <= 0 {
            return false;
        }
        let needed = usize::try_from(more / by).unwrap_or(usize::MAX);
        let room = if self.reaches_start(between) { usize::MAX } else { self.gaps_in(between) };
        if needed > usable.len() || needed > room {
            return false;
        }
        usable.truncate(needed);
        let rest = all.iter().enumerate().filter(|(at, _)| !usable.contains(at));
        let rest = rest.map(|(_, loose)| *loose).collect();
        if let Some(loose) = self.by_key.get_mut(key) {
            *loose = rest;
        }
        true
    }

    /// Whether a loose write may have created the key.
    pub(super) fn may_create(&self, key: &str) -> bool {
        let creates =
            |action: &Action| !matches!(action, Action::Delete { .. } | Action::Remove { .. });
        self.loose(key).iter().any(|loose| creates(&loose.operation.action))
    }

    /// Whether that revision is a gap there.
    pub(super) fn is_gap(&self, revision: u64, between: Between) -> bool {
        let inside = between.0.is_none_or(|after| revision > after) && revision <= between.1;
        let before_all = self.start.is_some_and(|start| revision <= start);
        inside && (before_all || self.gaps.binary_search(&revision).is_ok())
    }

    fn reaches_start(&self, Between(after, until): Between) -> bool {
        self.start.is_some_and(|start| after.is_none_or(|after| after < start) && start <= until)
    }

    fn loose(&self, key: &str) -> &[Loose<'a>] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    fn may_lie(&self, loose: &Loose, Between(after, until): Between) -> bool {
        self.gaps_in(Between(after.max(loose.floor), until)) > 0
    }

    fn gaps_in(&self, Between(after, until): Between) -> usize {
        let first = after.map_or(0, |after| self.gaps.partition_point(|gap| *gap <= after));
        self.gaps.partition_point(|gap| *gap <= until).saturating_sub(first)
    }
}

fn key(action: &Action) -> Option<&str> {
    match action {
        Action::Set { key, .. }
        | Action::Cas { key, .. }
        | Action::Create { key, .. }
        | Action::Remove { key, .. }
        | Action::Delete { key }
        | Action::Add { key, .. } => Some(key),
        _ => None,
    }
}
