//! Checkers: what a history must satisfy, and the fewest operations that show that it does not.
//!
//! [`judge`] looks at each workload with every checker that fits it. They overlap on purpose: a search
//! that knows nothing of revisions (`linearizable`, `append`, `serializable`), a proof by revisions that
//! is linear in the history (`certificate`), and simple sums that anybody can follow (`bank`,
//! `counter`, `set`, …). A bug in one of them is seen by the difference to another.
//!
//! What is taken for true of an operation:
//! - `Refused`: it never has an effect. Whoever reads what it would have written has found a bug.
//! - `Unknown`: it may be applied once at any time from its beginning on, also long after the client gave
//!   up, or never. If the final reads resolved it, it was applied at that revision, or never.
//! - Two operations overlap unless one ended *before* the other began; equal times overlap.
//!
//! Invariants:
//! - No false alarm: a checker reports a violation only where no correct database answers so. What cannot
//!   be told is [`Finding::Unknown`], and so is a checker that had nothing to judge.
//! - Every search has a limit, and says when it met it.
//! - The same history gives the same verdicts.

mod append;
mod bank;
mod certificate;
mod counter;
mod durability;
mod excuse;
mod expiry;
mod graph;
mod half;
mod idempotent;
mod linearizable;
mod lock;
mod order;
mod replicas;
mod serializable;
mod set;
mod stale;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Action, Answer, Dump, Ending, FaultRecord, Finding, Operation, Outcome};
use crate::history::{Resolution, Verdict};

/// Where a script of a workload leaves the row that tells that it was applied; no model has it.
const RESOLUTION_ROWS: &str = "op/";
/// Operations that a verdict names at most.
const EVIDENCE_MAX: usize = 40;

/// A checker of one workload.
type Checker = fn(&Part) -> Judged;

/// How many operations were judged and found right, or why not.
type Judged = Result<usize, Objection>;

/// What a checker objects to.
#[derive(Debug)]
enum Objection {
    Violated { what: String, operations: Vec<u64> },
    Unknown { why: String },
}

/// Every checker by its name, with the workloads that it fits.
const CHECKERS: &[(&str, Checker, &[&str])] = &[
    (
        "linearizable",
        linearizable::check,
        &["register", "counter", "idempotent", "expiry", "conditional", "stale"],
    ),
    (
        "certificate",
        certificate::check,
        &[
            "register",
            "counter",
            "append",
            "bank",
            "lock",
            "list",
            "half",
            "idempotent",
            "transactions",
            "conditional",
            "stale",
        ],
    ),
    ("serializable", serializable::check, &["append"]),
    ("append", append::check, &["append"]),
    ("set", set::check, &["set"]),
    ("counter", counter::check, &["counter", "idempotent"]),
    ("idempotent", idempotent::check, &["idempotent"]),
    ("bank", bank::check, &["bank", "transactions"]),
    ("versions", versions::check, &["transactions"]),
    ("lock", lock::check, &["lock"]),
    ("half", half::check, &["half"]),
    ("expiry", expiry::check, &["expiry"]),
    ("stale", stale::check, &["stale"]),
    (
        "durability",
        durability::check,
        &["register", "list", "append", "half", "lock", "conditional", "stale"],
    ),
];

/// Judges a run: each workload that is present by each checker that fits it, and the replicas. Of the faults
/// only those tell anything that take a promise away: clocks that were moved, words that were held up.
#[must_use]
pub fn judge(operations: &[Operation], dumps: &[Dump], faults: &[FaultRecord]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let workloads: BTreeSet<&str> = operations.iter().map(|op| op.workload.as_str()).collect();
    for workload in workloads {
        let part = Part::of(workload, operations, dumps, faults);
        let fitting = CHECKERS.iter().filter(|(_, _, fits)| fits.contains(&workload));
        let before = verdicts.len();
        verdicts
            .extend(fitting.map(|(name, check, _)| verdict(name, workload, &part, check(&part))));
        if verdicts.len() == before {
            let why = format!("no checker knows the workload `{workload}`");
            verdicts.push(verdict("none", workload, &part, Err(Objection::Unknown { why })));
        }
    }
    let all = Part { workload: "all", operations: Vec::new(), dumps, faults };
    verdicts.push(verdict("replicas", "all", &all, replicas::check(operations, dumps)));
    verdicts
}

fn verdict(checker: &str, workload: &str, part: &Part, judged: Judged) -> Verdict {
    let checked = *judged.as_ref().unwrap_or(&part.operations.len());
    let finding = match judged {
        Ok(0) => Finding::Unknown { why: "there was nothing to judge".to_owned() },
        Ok(_) => Finding::Holds,
        Err(Objection::Violated { what, operations }) => Finding::Violated { what, operations },
        Err(Objection::Unknown { why }) => Finding::Unknown { why },
    };
    Verdict { checker: checker.to_owned(), workload: workload.to_owned(), checked, finding }
}

/// An objection that shows operations; each is named once.
fn violated(what: impl Into<String>, operations: impl IntoIterator<Item = u64>) -> Objection {
    let operations: BTreeSet<u64> = operations.into_iter().collect();
    let operations = operations.into_iter().take(EVIDENCE_MAX).collect();
    Objection::Violated { what: what.into(), operations }
}

fn unknown(why: impl Into<String>) -> Objection {
    Objection::Unknown { why: why.into() }
}

/// One workload's part of a run.
struct Part<'a> {
    workload: &'a str,
    /// Its operations, in the order in which they began.
    operations: Vec<&'a Operation>,
    dumps: &'a [Dump],
    faults: &'a [FaultRecord],
}

/// The rows of a bucket, by key.
type Rows<'a> = BTreeMap<&'a str, &'a str>;

impl<'a> Part<'a> {
    fn of(
        workload: &'a str,
        operations: &'a [Operation],
        dumps: &'a [Dump],
        faults: &'a [FaultRecord],
    ) -> Self {
        let mut own: Vec<&Operation> =
            operations.iter().filter(|op| op.workload == workload).collect();
        own.sort_by_key(|op| (op.began, op.id));
        Part { workload, operations: own, dumps, faults }
    }

    /// What each node holds of this workload's bucket at the end. A node that has no such bucket holds
    /// nothing of it.
    fn rows(&self) -> Vec<(u64, Rows<'a>)> {
        let of = |dump: &'a Dump| -> Rows<'a> {
            let mine = dump.buckets.iter().filter(|(name, _)| name == self.workload);
            mine.flat_map(|(_, rows)| rows)
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect()
        };
        self.dumps.iter().map(|dump| (dump.node, of(dump))).collect()
    }
}

/// What an operation did to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It was applied.
    Certain,
    /// It may have been, or may yet be.
    Possible,
    /// It was not and never will be: what it would have written must not be seen.
    Never,
}

/// What an operation did to the state, by its own outcome.
fn effect(operation: &Operation) -> Effect {
    let meant_to_fail =
        matches!(&operation.action, Action::Pair { ending, .. } if *ending != Ending::Well);
    if meant_to_fail || !operation.writes() {
        return Effect::Never;
    }
    match &operation.outcome {
        Outcome::Done { answer: Answer::Denied | Answer::Failed, .. } => Effect::Never,
        Outcome::Done { .. } => Effect::Certain,
        Outcome::Refused { .. } => Effect::Never,
        Outcome::Unknown { resolution: Resolution::Applied(_), .. } => Effect::Certain,
        Outcome::Unknown { resolution: Resolution::NotApplied, .. } => Effect::Never,
        Outcome::Unknown { resolution: Resolution::None, .. } => Effect::Possible,
    }
}

/// The answer of an operation that has one.
fn answer(operation: &Operation) -> Option<&Answer> {
    match &operation.outcome {
        Outcome::Done { answer, .. } => Some(answer),
        _ => None,
    }
}

/// When an operation ended; `None` where it may be applied for ever.
fn end(operation: &Operation) -> Option<u64> {
    match &operation.outcome {
        Outcome::Unknown { .. } => None,
        _ => Some(operation.ended),
    }
}

/// The value that an operation gives a key, where it is one of the whole run's.
fn written(action: &Action) -> Option<(&str, &str)> {
    match action {
        Action::Set { key, value }
        | Action::SetFor { key, value, .. }
        | Action::Create { key, value } => Some((key, value)),
        Action::Cas { key, to, .. } => Some((key, to)),
        _ => None,
    }
}
