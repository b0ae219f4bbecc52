//! Replicas: at the end all nodes, be it one, hold the same rows, and at the same applied index they say the same digest.
//!
//! The rows are compared as well as the digests: a digest that lies is a bug like any other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Judged, Objection, unknown, violated};
use crate::history::{Dump, Operation};

pub(super) fn check(operations: &[Operation], dumps: &[Dump]) -> Judged {
    if dumps.is_empty() {
        return Err(unknown("no node was read at the end: nothing to compare"));
    }
    let mut digests: HashMap<u64, &Dump> = HashMap::new();
    let mut first = None;
    for dump in dumps {
        let at_same = *digests.entry(dump.applied_index).or_insert(dump);
        if at_same.digest != dump.digest {
            let what = format!(
                "nodes {} and {} have other digests at applied index {}: {} and {}",
                at_same.node, dump.node, dump.applied_index, at_same.digest, dump.digest
            );
            return Err(violated(what, []));
        }
        let first = *first.get_or_insert(dump);
        same_rows(first, dump, operations)?;
    }
    Ok(dumps
        .iter()
        .flat_map(|dump| &dump.buckets)
        .map(|(_, rows)| rows.len())
        .sum::<usize>()
        .max(1))
}

fn same_rows(one: &Dump, other: &Dump, operations: &[Operation]) -> Result<(), Objection> {
    let (a, b) = (rows(one), rows(other));
    if a == b {
        return Ok(());
    }
    let places: BTreeSet<_> = a.keys().chain(b.keys()).copied().collect();
    let differs = |place: &(&str, &str)| a.get(place) != b.get(place);
    let differing: Vec<_> = places.into_iter().filter(differs).collect();
    let count = differing.len();
    let Some((bucket, key)) = differing.first().copied() else { return Ok(()) };
    let values = [a.get(&(bucket, key)), b.get(&(bucket, key))];
    let what = format!(
        "nodes {} and {} differ in {count} rows; `{bucket}/{key}` is {:?} and {:?}",
        one.node, other.node, values[0], values[1]
    );
    let wrote = operations.iter().filter(|operation| {
        super::written(&operation.action).is_some_and(|(written, value)| {
            operation.workload == bucket
                && written == key
                && values.iter().flatten().any(|held| **held == value)
        })
    });
    Err(violated(what, wrote.map(|operation| operation.id)))
}

/// All rows, by bucket and key.
fn rows(dump: &Dump) -> BTreeMap<(&str, &str), &str> {
    let buckets = dump.buckets.iter();
    buckets
        .flat_map(|(bucket, rows)| {
            rows.iter().map(|(key, value)| ((bucket.as_str(), key.as_str()), value.as_str()))
        })
        .collect()
}
