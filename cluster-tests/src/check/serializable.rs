//! Elle's rules for list-append, by the crate `adya`: strict serializability.
//!
//! A second opinion on what [`super::append`] concludes from the same transactions, written by others.
//! The rows of each node at the end are read by a last transaction.

use std::collections::BTreeSet;

use adya::history::{History, Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{Opts, Report, Valid, Workload};

use super::append::{Fate, Seen, Txn, transactions};
use super::{Judged, Part, unknown, violated};

/// Characters of an explanation that an objection shows.
const SHOWN_MAX: usize = 1000;

pub(super) fn check(part: &Part) -> Judged {
    let all = transactions(part)?;
    let told = all.iter().filter(|txn| txn.id.is_some() && txn.fate != Fate::Void).count();
    if told == 0 {
        return Ok(0);
    }
    let opts = Opts { models: vec!["strict-serializable".to_owned()], ..Opts::default() };
    let report = adya::check(&history(&all), Workload::ListAppend, &opts);
    match report.valid {
        Valid::True => Ok(told),
        Valid::False => {
            let (what, operations) = smallest(&report, &all);
            Err(violated(what, operations))
        }
        Valid::Unknown => Err(unknown(report.anomaly_types.join(", "))),
    }
}

/// The anomaly that names the fewest transactions.
fn smallest(report: &Report, all: &[Txn]) -> (String, Vec<u64>) {
    let ids: BTreeSet<u64> = all.iter().filter_map(|txn| txn.id).collect();
    let anomalies = report.anomalies.values().flatten();
    let named = anomalies.clone().filter(|anomaly| !anomaly.ops.is_empty());
    let Some(anomaly) =
        named.min_by_key(|anomaly| anomaly.ops.len()).or_else(|| anomalies.clone().next())
    else {
        return (report.anomaly_types.join(", "), Vec::new());
    };
    let types = report.anomaly_types.join(", ");
    let explained: String = anomaly.explanation.chars().take(SHOWN_MAX).collect();
    let operations = anomaly.ops.iter().copied().filter(|id| ids.contains(id)).collect();
    (format!("{types}; {}: {explained}", anomaly.kind), operations)
}

/// The transactions as events in the order of time. At the same moment, what begins comes before what
/// ends: they overlap. Each has a process of its own; a client's order is in the times.
fn history(all: &[Txn]) -> History {
    let mut interner = Interner::default();
    let mut events = Vec::new();
    let last = all.iter().map(|txn| txn.ended.unwrap_or(0).max(txn.began)).max().unwrap_or(0);
    let first_free = all.iter().filter_map(|txn| txn.id).max().unwrap_or(0) + 1;
    for (at, txn) in all.iter().enumerate() {
        let (kind, ended) = match (txn.fate, txn.ended) {
            (Fate::Told, Some(ended)) => (OpType::Ok, ended),
            (Fate::Void, ended) => (OpType::Fail, ended.unwrap_or(last)),
            _ => (OpType::Info, last),
        };
        let index = txn.id.unwrap_or(first_free + at as u64);
        let process = i64::try_from(at).ok();
        let asked = value(&mut interner, txn, false);
        let told = value(&mut interner, txn, kind == OpType::Ok);
        let op = |kind, value, time| Op { index, kind, process, value, time };
        let time = |micros: u64| i64::try_from(micros.saturating_mul(1000)).ok();
        events.push((txn.began, 0, at, op(OpType::Invoke, asked, time(txn.began))));
        events.push((ended, 1, at, op(kind, told, time(ended))));
    }
    events.sort_by_key(|(moment, ends, at, _)| (*moment, *ends, *at));
    History::from_ops(events.into_iter().map(|(_, _, _, op)| op).collect(), interner)
}

fn value(interner: &mut Interner, txn: &Txn, told: bool) -> Vec<Mop> {
    let mut id =
        |number: u64| interner.intern(Scalar::Int(i64::try_from(number).unwrap_or(i64::MAX)));
    let steps = txn.steps.iter().map(|step| match step {
        Seen::Append(key, element) => Mop::Append { key: id(*key), value: id(*element) },
        Seen::Read(key, list) if told => {
            let key = id(*key);
            Mop::Read { key, value: ReadValue::List(list.iter().map(|e| id(*e)).collect()) }
        }
        Seen::Read(key, _) => Mop::Read { key: id(*key), value: ReadValue::Nil },
    });
    steps.collect()
}
