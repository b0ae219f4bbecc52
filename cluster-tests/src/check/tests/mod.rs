//! What the checkers are tried on: generated histories of a database that is right, which must hold;
//! the same with a bug, which must be found; and small ones by hand, whose evidence is exact.

mod generated;
mod planted;
mod simulator;
mod story;
mod timed;

use super::*;

/// The checkers that found a violation, with the operations they name.
fn violations(verdicts: &[Verdict]) -> BTreeMap<&str, Vec<u64>> {
    let found = verdicts.iter().filter_map(|verdict| match &verdict.finding {
        Finding::Violated { operations, .. } => {
            Some((verdict.checker.as_str(), operations.clone()))
        }
        _ => None,
    });
    found.collect()
}
