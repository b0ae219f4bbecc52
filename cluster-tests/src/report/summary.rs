//! What a campaign remembers of a run once its history is on disk, and the totals over all runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Finding, Micros, Run};

use super::html::counted;
use super::stats::{self, Tally};

/// A run without its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The run's name, and its directory's beside the index.
    pub name: String,
    /// What it was drawn from.
    pub seed: u64,
    /// The binary under test.
    pub build: String,
    /// Nodes at the start.
    pub nodes: u64,
    /// How they were kept apart.
    pub isolation: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// How long it took.
    pub took: Micros,
    /// Calls of each workload.
    pub workloads: BTreeMap<String, u64>,
    /// Calls.
    pub operations: u64,
    /// Calls whose outcome was unknown to their client.
    pub lost: u64,
    /// Faults of each kind.
    pub faults: BTreeMap<String, FaultCount>,
    /// Damaged files, by what came of them: `refused`, `repaired`, `harmless`.
    pub damages: BTreeMap<String, u64>,
    /// Verdicts, whatever they found.
    pub verdicts: u64,
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// Why the run is no pass although nothing is violated, a line each: a verdict that could not tell,
    /// a fault that could not be undone, a trouble of the harness, or that nobody judged the run.
    pub unknown: Vec<String>,
}

/// Faults of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultCount {
    /// Those that were shown to have been there.
    pub confirmed: u64,
    /// Those that count for nothing.
    pub unconfirmed: u64,
}

/// A verdict that something does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Who says so.
    pub checker: String,
    /// Of which workload.
    pub workload: String,
    /// What is wrong, in full.
    pub what: String,
}

impl Summary {
    /// Sums a run up.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        let of_workload = stats::by_workload(run).into_iter();
        Summary {
            name: run.name.clone(),
            seed: run.seed,
            build: run.build.clone(),
            nodes: run.nodes,
            isolation: run.isolation.clone(),
            started: run.started,
            took: run.took,
            workloads: of_workload.map(|(name, all)| (name.to_owned(), all.len() as u64)).collect(),
            operations: run.operations.len() as u64,
            lost: Tally::of(&run.operations).unknown(),
            faults: faults(run),
            damages: damages(run),
            verdicts: run.verdicts.len() as u64,
            violations: violations(run),
            unknown: unknown(run),
        }
    }

    /// Whether everything held, and nothing is unknown.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.unknown.is_empty()
    }

    /// The result in words.
    #[must_use]
    pub fn headline(&self) -> String {
        if self.verdicts == 0 && self.violations.is_empty() {
            return "Nothing was judged".to_owned();
        }
        headline(self.violations.len() as u64, self.unknown.len() as u64)
    }
}

/// A result in words.
pub(super) fn headline(violations: u64, unknown: u64) -> String {
    match (violations, unknown) {
        (0, 0) => "Everything held".to_owned(),
        (0, unknown) => format!("No violation, but {} unknown", super::html::count(unknown)),
        (violations, 0) => counted(violations, "violation"),
        (violations, unknown) => {
            format!("{}, {} unknown", counted(violations, "violation"), super::html::count(unknown))
        }
    }
}

/// What became of damaged files: how often a node refused, repaired, or did not need them.
fn damages(run: &Run) -> BTreeMap<String, u64> {
    let mut damages = BTreeMap::new();
    let outcomes = run.faults.iter().filter_map(|fault| {
        crate::nemesis::damage_outcome(fault.confirmed.as_deref().unwrap_or_default())
    });
    outcomes.for_each(|outcome| *damages.entry(outcome.to_owned()).or_default() += 1);
    damages
}

fn faults(run: &Run) -> BTreeMap<String, FaultCount> {
    let mut faults: BTreeMap<String, FaultCount> = BTreeMap::new();
    for fault in &run.faults {
        let count = faults.entry(fault.kind.clone()).or_default();
        match fault.confirmed {
            Ok(_) => count.confirmed += 1,
            Err(_) => count.unconfirmed += 1,
        }
    }
    faults
}

fn violations(run: &Run) -> Vec<Violation> {
    let violated = run.verdicts.iter().filter_map(|verdict| match &verdict.finding {
        Finding::Violated { what, .. } => Some(Violation {
            checker: verdict.checker.clone(),
            workload: verdict.workload.clone(),
            what: what.clone(),
        }),
        Finding::Holds | Finding::Unknown { .. } => None,
    });
    violated.collect()
}

fn unknown(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in &run.verdicts {
        if let Finding::Unknown { why } = &verdict.finding {
            lines.push(format!("{} of {}: {why}", verdict.checker, verdict.workload));
        }
    }
    for fault in &run.faults {
        if let Some(why) = &fault.undo_failed {
            lines.push(format!("{} ({}) was not undone: {why}", fault.kind, fault.what));
        }
    }
    lines.extend(run.troubles.iter().cloned());
    if run.verdicts.is_empty() {
        lines.push("nobody judged the run".to_owned());
    }
    lines
}

/// The sums of a campaign. Shown as one line:
/// `operations N, faults N of N kinds, violations N, unknown N`.
///
/// Faults are the confirmed ones, and kinds those with a confirmed fault. Violations are verdicts.
/// Unknown are verdicts that could not tell, faults that could not be undone, troubles of the harness,
/// and runs that nobody judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// How long they took together.
    pub took: Micros,
    /// Calls.
    pub operations: u64,
    /// Confirmed faults.
    pub faults: u64,
    /// Kinds with a confirmed fault.
    pub kinds: BTreeSet<String>,
    /// Verdicts that something does not hold.
    pub violations: u64,
    /// What is not known to hold.
    pub unknown: u64,
}

impl Totals {
    /// Sums up.
    #[must_use]
    pub fn of<'a>(runs: impl IntoIterator<Item = &'a Summary>) -> Self {
        let mut totals = Totals::default();
        runs.into_iter().for_each(|run| totals.add(run));
        totals
    }

    /// Whether everything held in every run, and nothing is unknown.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.runs > 0 && self.violations == 0 && self.unknown == 0
    }

    /// Adds a run.
    pub fn add(&mut self, run: &Summary) {
        self.runs += 1;
        self.took += run.took;
        self.operations += run.operations;
        for (kind, count) in run.faults.iter().filter(|(_, count)| count.confirmed > 0) {
            self.faults += count.confirmed;
            self.kinds.insert(kind.clone());
        }
        self.violations += run.violations.len() as u64;
        self.unknown += run.unknown.len() as u64;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "operations {}, faults {} of {} kinds, violations {}, unknown {}",
            self.operations,
            self.faults,
            self.kinds.len(),
            self.violations,
            self.unknown
        )
    }
}
