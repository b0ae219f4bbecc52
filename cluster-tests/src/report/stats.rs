//! Calls, counted: by class, by second, by how long they took.
//!
//! Latency is that of the calls that were done: one that was denied or failed as meant ended early, or
//! ran into a limit on purpose, and says nothing of the rest.

use std::collections::BTreeMap;

use crate::history::{Answer, Micros, Operation, Outcome, Resolution, Run};

/// Bins of a plot: fewer than its pixels.
const BINS_MAX: u64 = 360;
/// Widths of a bin in seconds, of which the smallest that fits is taken.
const WIDTHS: &[u64] = &[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const SECOND: Micros = 1_000_000;

/// What came of a call, as far as a count cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It was done.
    Done,
    /// It was answered that the state does not allow it, or it failed as it was meant to.
    Denied,
    /// It had no effect.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Class {
    pub(super) fn of(operation: &Operation) -> Self {
        match &operation.outcome {
            Outcome::Done { answer: Answer::Denied | Answer::Failed, .. } => Class::Denied,
            Outcome::Done { .. } => Class::Done,
            Outcome::Refused { .. } => Class::Refused,
            Outcome::Unknown { .. } => Class::Unknown,
        }
    }
}

/// How long a call took.
pub(super) fn latency(operation: &Operation) -> Micros {
    operation.ended.saturating_sub(operation.began)
}

/// Calls by what came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) denied: u64,
    pub(super) refused: u64,
    /// Unknown, and found applied.
    pub(super) applied: u64,
    /// Unknown, and found not applied.
    pub(super) not_applied: u64,
    /// Unknown, and nothing told.
    pub(super) untold: u64,
    /// Of the done ones, in order.
    latencies: Vec<Micros>,
}

impl Tally {
    pub(super) fn of<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Self {
        let mut tally = Tally::default();
        for operation in operations {
            match Class::of(operation) {
                Class::Done => {
                    tally.done += 1;
                    tally.latencies.push(latency(operation));
                }
                Class::Denied => tally.denied += 1,
                Class::Refused => tally.refused += 1,
                Class::Unknown => tally.unknown_one(operation),
            }
        }
        tally.latencies.sort_unstable();
        tally
    }

    fn unknown_one(&mut self, operation: &Operation) {
        match operation.outcome {
            Outcome::Unknown { resolution: Resolution::Applied(_), .. } => self.applied += 1,
            Outcome::Unknown { resolution: Resolution::NotApplied, .. } => self.not_applied += 1,
            _ => self.untold += 1,
        }
    }

    pub(super) fn unknown(&self) -> u64 {
        self.applied + self.not_applied + self.untold
    }

    pub(super) fn all(&self) -> u64 {
        self.done + self.denied + self.refused + self.unknown()
    }

    /// The latency that so many of a thousand do not exceed.
    pub(super) fn latency(&self, per_mille: usize) -> Option<Micros> {
        percentile(&self.latencies, per_mille)
    }
}

/// The operations of each workload.
pub(super) fn by_workload(run: &Run) -> BTreeMap<&str, Vec<&Operation>> {
    let mut workloads: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &run.operations {
        workloads.entry(&operation.workload).or_default().push(operation);
    }
    workloads
}

/// Of numbers in order, the one that so many of a thousand do not exceed (nearest rank).
pub(super) fn percentile(sorted: &[Micros], per_mille: usize) -> Option<Micros> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Stretches of a run, all of one width, and what ended in each.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bins {
    /// How long each is: a whole number of seconds.
    pub(super) width: Micros,
    /// In order, without a gap, from the start to the end of the run.
    pub(super) bins: Vec<Bin>,
}

/// The calls that ended in a stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bin {
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// Of the done ones.
    pub(super) p50: Option<Micros>,
    /// Of the done ones.
    pub(super) p99: Option<Micros>,
}

impl Bins {
    pub(super) fn of(run: &Run) -> Self {
        let end = end(run);
        let width = width(end);
        let mut bins = vec![Bin::default(); end.div_ceil(width).max(1) as usize];
        let mut latencies = vec![Vec::new(); bins.len()];
        for operation in &run.operations {
            let index = ((operation.ended / width) as usize).min(bins.len() - 1);
            let (Some(bin), Some(times)) = (bins.get_mut(index), latencies.get_mut(index)) else {
                continue;
            };
            match Class::of(operation) {
                Class::Done => {
                    bin.done += 1;
                    times.push(latency(operation));
                }
                Class::Denied => {}
                Class::Refused => bin.refused += 1,
                Class::Unknown => bin.unknown += 1,
            }
        }
        for (bin, times) in bins.iter_mut().zip(&mut latencies) {
            times.sort_unstable();
            bin.p50 = percentile(times, 500);
            bin.p99 = percentile(times, 990);
        }
        Bins { width, bins }
    }

    /// A count of a bin as calls per second.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / (self.width / SECOND) as f64
    }
}

/// When the last thing of a run ended.
pub(super) fn end(run: &Run) -> Micros {
    let operations = run.operations.iter().map(|operation| operation.ended);
    let faults = run.faults.iter().map(|fault| fault.ended.max(fault.began));
    operations.chain(faults).fold(run.took, Micros::max)
}

fn width(end: Micros) -> Micros {
    let fits = |seconds: &&u64| end.div_ceil(**seconds * SECOND) <= BINS_MAX;
    let whole = || end.div_ceil(BINS_MAX).div_ceil(SECOND);
    WIDTHS.iter().find(fits).copied().unwrap_or_else(whole) * SECOND
}
