//! A proof by revisions: the server says in which order it did things, and that order is checked.
//!
//! All calls with a known revision are put in the order of their revisions, writes before what read at the
//! same one, and replayed on the model. If every answer is the model's, and the order agrees with real
//! time, then the history is strictly serializable: the order itself is the proof. This needs no search and
//! scales to any history.
//!
//! What is checked:
//! - No two writes have the same revision. (A deletion of nothing writes nothing, and has none of its own.)
//! - Nothing that began after another had ended has a smaller revision, and a write has a greater one. (But
//!   for answers that say that they are of the past: stale reads, and those that are given again.)
//! - Every revision from the first to the last that was seen belongs to a call: a revision of nobody is a
//!   call that was applied twice, or one that was refused and applied. With writes of unknown outcome
//!   there may be as many such gaps ([`super::excuse`] says what they excuse).
//! - Every answer is the model's; a `Get`'s version is the revision of the write that it shows.
//! - At the end every node holds what the model holds, if no write is left without a place.
//!
//! Unknown writes have a place where the final reads found them, or where a `Get` shows their value with
//! its version. If a script call has none, then nothing can be said from the first gap on, where it may have
//! been applied: that part is unknown, unless the rules on revisions are broken there.

use std::collections::{HashMap, HashSet};

use super::excuse::{Excuses, Loose};
use super::order::{Span, floors};
use super::{Effect, Judged, Objection, Part, answer, effect, end, unknown, violated, written};
use crate::history::{Action, Answer, Operation, Outcome, Resolution};

mod replay;
use replay::Replay;

/// What a call does at its revision. The order of the variants is that at the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Write,
    /// It writes only if the key is there.
    Delete,
    Read,
}

/// A call with a known revision.
#[derive(Clone, Copy, Debug)]
struct Entry<'a> {
    revision: u64,
    class: Class,
    operation: &'a Operation,
}

pub(super) fn check(part: &Part) -> Judged {
    let (mut entries, homeless) = sort_out(part);
    let homeless = place_shown(part, &mut entries, homeless);
    entries.sort_by_key(|entry| (entry.revision, entry.class, entry.operation.began));
    revisions_are_unique(&entries)?;
    let loose = respect_real_time(&entries, &homeless)?;
    let gaps = Gaps::of(&entries, &loose)?;
    let blind_from = gaps.blind_from(&loose);

    let mut replay =
        Replay::new(part.workload, Excuses::new(gaps.possible.clone(), gaps.start, &loose));
    let seen = entries.iter().take_while(|entry| blind_from.is_none_or(|at| entry.revision < at));
    let mut judged = 0;
    for entry in seen {
        replay.step(entry)?;
        judged += 1;
    }
    if let Some(at) = blind_from {
        let blind = entries.len() - judged;
        return Err(unknown(format!(
            "{judged} calls were replayed; the {blind} from revision {at} on were not, where one of {} \
             calls of unknown outcome may have been applied",
            loose.len()
        )));
    }
    gaps.settle(&entries, &replay, loose.len())?;
    if loose.is_empty() {
        replay.compare(part)?;
    }
    Ok(judged)
}

/// Calls with a revision, and writes without one that were or may have been applied.
fn sort_out<'a>(part: &Part<'a>) -> (Vec<Entry<'a>>, Vec<&'a Operation>) {
    let (mut entries, mut homeless) = (Vec::new(), Vec::new());
    for operation in &part.operations {
        let class = match effect(operation) {
            Effect::Never => Class::Read,
            _ if matches!(operation.action, Action::Delete { .. }) => Class::Delete,
            _ => Class::Write,
        };
        let revision = match &operation.outcome {
            Outcome::Done { revision, .. } => *revision,
            Outcome::Unknown { resolution: Resolution::Applied(revision), .. } => Some(*revision),
            _ => None,
        };
        match revision {
            Some(revision) => entries.push(Entry { revision, class, operation }),
            None if effect(operation) != Effect::Never => homeless.push(*operation),
            None => {}
        }
    }
    (entries, homeless)
}

/// Gives those a place whose value a `Get` shows with its version; returns the others.
fn place_shown<'a>(
    part: &Part<'a>,
    entries: &mut Vec<Entry<'a>>,
    mut homeless: Vec<&'a Operation>,
) -> Vec<&'a Operation> {
    let mut shown: HashMap<(&str, &str), u64> = HashMap::new();
    for operation in &part.operations {
        if let Action::Get { key } | Action::Revisit { key, .. } | Action::GetAt { key, .. } =
            &operation.action
            && let Some((Some(value), Some(version))) = answer(operation).and_then(Answer::shown)
        {
            shown.entry((key, value)).or_insert(version);
        }
    }
    homeless.retain(|operation| {
        let revision = written(&operation.action).and_then(|written| shown.get(&written));
        if let Some(revision) = revision {
            let class = Class::Write;
            entries.push(Entry { revision: *revision, class, operation });
        }
        revision.is_none()
    });
    homeless
}

fn revisions_are_unique(entries: &[Entry]) -> Result<(), Objection> {
    let writes: Vec<&Entry> = entries.iter().filter(|entry| entry.class == Class::Write).collect();
    for pair in writes.windows(2) {
        if let [one, other] = pair
            && one.revision == other.revision
        {
            let what = format!("two writes have the revision {}", one.revision);
            return Err(violated(what, [one.operation.id, other.operation.id]));
        }
    }
    Ok(())
}

/// Checks the order of revisions against real time. Returns the writes without a place, each with the
/// revision that it must come after.
fn respect_real_time<'a>(
    entries: &[Entry<'a>],
    homeless: &[&'a Operation],
) -> Result<Vec<Loose<'a>>, Objection> {
    let known = entries.iter().map(|entry| (entry.operation, Some(entry.revision)));
    let all = known.chain(homeless.iter().map(|operation| (*operation, None)));
    let spans: Vec<Span<Option<u64>>> = all
        .map(|(operation, measure)| Span {
            id: operation.id,
            began: operation.began,
            // One without a revision orders nothing.
            ended: measure.filter(|_| !operation.action.is_of_the_past()).and(end(operation)),
            measure,
        })
        .collect();
    let floors = floors(&spans);
    for (entry, floor) in entries.iter().zip(&floors) {
        let Some(Span { id, measure: Some(before), .. }) = floor else { continue };
        let later =
            entry.revision > *before || (entry.revision == *before && entry.class != Class::Write);
        if !later && !entry.operation.action.is_of_the_past() {
            let what = format!(
                "a call with revision {} began after one with revision {before} had ended",
                entry.revision
            );
            return Err(violated(what, [*id, entry.operation.id]));
        }
    }
    let floors = floors.iter().skip(entries.len());
    let floor = |floor: &Option<Span<Option<u64>>>| floor.and_then(|span| span.measure);
    Ok(homeless
        .iter()
        .zip(floors)
        .map(|(operation, at)| Loose { operation, floor: floor(at) })
        .collect())
}

/// Revisions of nobody.
#[derive(Default)]
struct Gaps {
    /// No call has them.
    certain: Vec<u64>,
    /// Only deletions have them, which may have found nothing to delete.
    unsure: Vec<u64>,
    /// The last revision before the range, if a loose write may be there or before it.
    start: Option<u64>,
    /// All of them, in order.
    possible: Vec<u64>,
}

impl Gaps {
    /// Finds them, and objects if they are more than the writes without a place.
    fn of(entries: &[Entry], loose: &[Loose]) -> Result<Self, Objection> {
        let mut gaps = Gaps::default();
        let lowest = |entry: &Entry| entry.revision + u64::from(entry.class != Class::Write);
        let (Some(low), Some(last)) = (entries.iter().map(lowest).min(), entries.last()) else {
            return Ok(gaps);
        };
        let mut next = low;
        let mut before = None;
        for entry in entries.iter().filter(|entry| entry.class != Class::Read) {
            gaps.leave_out(next, entry.revision, loose.len())
                .map_err(|gap| nobody(gap, before.into_iter().chain([entry.operation.id])))?;
            if entry.class == Class::Delete && entry.revision >= next {
                gaps.unsure.push(entry.revision);
            }
            next = next.max(entry.revision + 1);
            before = Some(entry.operation.id);
        }
        gaps.leave_out(next, last.revision + 1, loose.len())
            .map_err(|gap| nobody(gap, before.into_iter().chain([last.operation.id])))?;

        let at_start = |loose: &&Loose| loose.floor.is_none_or(|floor| floor + 1 < low);
        gaps.start = loose.iter().find(at_start).and(low.checked_sub(1));
        let seen = gaps.certain.iter().chain(&gaps.unsure).copied();
        gaps.possible = seen.chain(gaps.start).collect();
        gaps.possible.sort_unstable();
        Ok(gaps)
    }

    /// Notes the revisions from one to before another; fails with the first if they are too many.
    fn leave_out(&mut self, from: u64, to: u64, max: usize) -> Result<(), u64> {
        for gap in from..to {
            self.certain.push(gap);
            if self.certain.len() > max {
                return Err(gap);
            }
        }
        Ok(())
    }

    /// The first revision from which on nothing can be said: a script call may have been applied there.
    fn blind_from(&self, loose: &[Loose]) -> Option<u64> {
        let scripts = loose.iter().filter(|loose| {
            let action = &loose.operation.action;
            !matches!(action, Action::Add { .. } | Action::Delete { .. } | Action::Remove { .. })
                && written(action).is_none()
        });
        let floor = scripts.map(|loose| loose.floor).min()?;
        self.possible.iter().copied().find(|gap| floor.is_none_or(|floor| *gap > floor))
    }

    /// Counts the gaps again, now that the replay knows which deletions found something.
    fn settle(&self, entries: &[Entry], replay: &Replay, max: usize) -> Result<(), Objection> {
        let deletes = entries.iter().filter(|entry| entry.class == Class::Delete);
        let wrote: HashSet<u64> = deletes
            .filter(|entry| replay.may_have_deleted(entry))
            .map(|entry| entry.revision)
            .collect();
        let mut more = self.unsure.iter().filter(|revision| !wrote.contains(revision));
        let left = max.saturating_sub(self.certain.len());
        match more.nth(left) {
            Some(gap) => {
                let at = entries.iter().filter(|entry| entry.revision == *gap);
                Err(nobody(*gap, at.map(|entry| entry.operation.id)))
            }
            None => Ok(()),
        }
    }
}

fn nobody(gap: u64, operations: impl IntoIterator<Item = u64>) -> Objection {
    violated(format!("revision {gap} belongs to no call that could have had it"), operations)
}
