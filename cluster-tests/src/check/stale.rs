//! Reads that may be old, and say how old. That each shows what was there at the revision that it names, the
//! certificate tells. Here:
//! - A read that asked for a revision is of that one or a newer one: a session that names what it has
//!   seen never goes back, whatever node it asks.
//! - A stale read that says an age is not older than that: what had been acknowledged before its age, it has.
//!
//! An age counts from a word of the leader, and a word that was held up on its way is older than its
//! arrival. So an age is judged only where nothing holds words up: not while or shortly after there is a fault,
//! unless it is one that drops them, such as a cut or a death.

use super::{Effect, Judged, Objection, Part, answer, effect, end, violated};
use crate::history::{Action, Answer, FaultRecord, Micros, Operation, Outcome};

/// How long a word of the leader may take on a busy machine.
const LATENCY: Micros = 2_000_000;
/// How long words may still arrive that a fault held up.
const SETTLE: Micros = 3_000_000;
/// Faults under which words arrive in time or never.
const DROPPING: &[&str] = &["partition-", "kill-", "power-"];

pub(super) fn check(part: &Part) -> Judged {
    let written = Written::of(part);
    let mut judged = 0;
    for operation in &part.operations {
        let Action::GetAt { stale, min_revision, .. } = &operation.action else { continue };
        let Outcome::Done { answer: told, revision } = &operation.outcome else { continue };
        let Some(revision) = *revision else {
            return Err(violated("a read says no revision", [operation.id]));
        };
        if let Some(least) = min_revision.filter(|least| *least > revision) {
            let what = format!("at least {least} was asked for, and {revision} is answered");
            return Err(violated(what, [operation.id]));
        }
        judged += 1;
        if *stale {
            let Answer::Dated { age_ms: Some(age), .. } = told else {
                return Err(violated("a stale read says no age", [operation.id]));
            };
            is_of_its_age(part, &written, operation, revision, *age)?;
        }
    }
    Ok(judged)
}

fn is_of_its_age(
    part: &Part,
    written: &Written,
    read: &Operation,
    revision: u64,
    age_ms: u64,
) -> Result<(), Objection> {
    let age = age_ms.saturating_mul(1000).saturating_add(LATENCY);
    let Some(then) = read.began.checked_sub(age) else { return Ok(()) };
    if part.faults.iter().any(|fault| holds_up(fault, then, read.ended)) {
        return Ok(());
    }
    match written.before(then) {
        Some((newer, id)) if newer > revision => {
            let what = format!(
                "a stale read says that it is {age_ms} ms old, and is of revision {revision}; \
                 {newer} had been answered before"
            );
            Err(violated(what, [id, read.id]))
        }
        _ => Ok(()),
    }
}

/// Whether a fault may have held up words of the leader in that time.
fn holds_up(fault: &FaultRecord, from: Micros, until: Micros) -> bool {
    let drops = DROPPING.iter().any(|kind| fault.kind.starts_with(kind));
    let began = if drops { fault.ended } else { fault.began };
    began <= until && fault.ended.saturating_add(SETTLE) >= from
}

/// Acknowledged writes: when each had ended, and the greatest revision by then, with its operation.
struct Written(Vec<(Micros, u64, u64)>);

impl Written {
    fn of(part: &Part) -> Self {
        let certain = part.operations.iter().filter(|op| effect(op) == Effect::Certain);
        let mut all: Vec<(Micros, u64, u64)> = certain
            .filter(|operation| answer(operation).is_some())
            .filter_map(|operation| match &operation.outcome {
                Outcome::Done { revision, .. } => {
                    Some((end(operation)?, (*revision)?, operation.id))
                }
                _ => None,
            })
            .collect();
        all.sort_unstable();
        let mut greatest = (0, 0);
        for (_, revision, id) in &mut all {
            greatest = greatest.max((*revision, *id));
            (*revision, *id) = greatest;
        }
        Written(all)
    }

    /// The greatest revision that was answered before a moment, and by which operation.
    fn before(&self, moment: Micros) -> Option<(u64, u64)> {
        let count = self.0.partition_point(|(ended, _, _)| *ended < moment);
        let (_, revision, id) = self.0.get(count.checked_sub(1)?)?;
        Some((*revision, *id))
    }
}
