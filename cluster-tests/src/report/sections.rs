//! The parts of a run's page that are tables: calls, faults, troubles, dumps.

use std::collections::BTreeMap;

use crate::history::{Dump, FaultRecord, Micros, Operation, Outcome, Run};

use super::groups::Group;
use super::html::{Html, Table, clip, count, duration, moment, section};
use super::stats::{self, Tally};

/// Faults in the table; the others are in `run.json`.
const FAULTS_MAX: usize = 1000;
/// Reasons that are told apart; the most frequent ones.
const REASONS_MAX: usize = 15;
/// Different reasons that are counted.
const REASONS_COUNTED: usize = 10_000;
/// Characters of a reason.
const REASON: usize = 240;

/// Calls by workload and by what came of them.
pub(super) fn operations(run: &Run) -> Html {
    let heads = [
        "workload",
        "#calls",
        "#done",
        "#denied or failed as meant",
        "#refused",
        "#unknown",
        "#of these applied",
        "#not applied",
        "#not told",
        "#p50",
        "#p99",
        "#max",
    ];
    let mut table = Table::new(&heads);
    let workloads = stats::by_workload(run);
    for (workload, operations) in &workloads {
        table.row(tally(workload, &Tally::of(operations.iter().copied())));
    }
    if workloads.len() > 1 {
        table.row_of("sum", tally("all", &Tally::of(&run.operations)));
    }
    let note = "Times are those of the calls that were done. What became of an unknown call was told by \
                the final reads, where it leaves a row.";
    let parts = [table.html("No call was made."), Html::text_in("p", "quiet", note)];
    section("operations", "Operations", parts.into_iter().collect::<Html>())
}

fn tally(workload: &str, tally: &Tally) -> Vec<Html> {
    let counts = [
        tally.all(),
        tally.done,
        tally.denied,
        tally.refused,
        tally.unknown(),
        tally.applied,
        tally.not_applied,
        tally.untold,
    ];
    let figure = |number: u64| match number {
        0 => Html::text_in("span", "nil", 0),
        number => Html::text(count(number)),
    };
    let time = |time: Option<Micros>| Html::text(time.map_or_else(|| "–".to_owned(), duration));
    let times = [500, 990, 1000].map(|per_mille| time(tally.latency(per_mille)));
    let name = Html::text(workload);
    [name].into_iter().chain(counts.map(figure)).chain(times).collect()
}

/// Why calls were refused or are unknown: the most frequent reasons.
pub(super) fn reasons(run: &Run) -> Html {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for operation in &run.operations {
        let Some(reason) = reason(operation) else { continue };
        if counts.len() < REASONS_COUNTED || counts.contains_key(&reason) {
            *counts.entry(reason).or_default() += 1;
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    let more = counts.len().saturating_sub(REASONS_MAX);
    let mut table = Table::new(&["outcome", "#times", "reason"]);
    for ((outcome, reason), times) in counts.into_iter().take(REASONS_MAX) {
        let reason = Html::text_in("code", "", clip(reason, REASON));
        table.row([Html::text(outcome), Html::text(count(times)), reason]);
    }
    let note = match more {
        0 => Html::default(),
        more => Html::text_in("p", "quiet", format!("{more} rarer reasons are in history.jsonl.")),
    };
    let parts = [table.html("Every call was done, or denied or failed as meant."), note];
    section("reasons", "Why calls were not done", parts.into_iter().collect::<Html>())
}

fn reason(operation: &Operation) -> Option<(&'static str, &str)> {
    match &operation.outcome {
        Outcome::Done { .. } => None,
        Outcome::Refused { reason } => Some(("refused", reason)),
        Outcome::Unknown { reason, .. } => Some(("unknown", reason)),
    }
}

/// All faults in the order in which they began.
pub(super) fn faults(run: &Run) -> Html {
    let mut faults: Vec<&FaultRecord> = run.faults.iter().collect();
    faults.sort_by_key(|fault| fault.began);
    let mut table = Table::new(&["kind", "what", "#began", "#lasted", "shown by", "undone"]);
    for fault in faults.iter().take(FAULTS_MAX) {
        table.row([
            kind(&fault.kind),
            Html::text_in("code", "", &fault.what),
            Html::text(moment(fault.began)),
            Html::text(duration(fault.ended.saturating_sub(fault.began))),
            shown(fault),
            undone(fault),
        ]);
    }
    let more = faults.len().saturating_sub(FAULTS_MAX);
    let note = match more {
        0 => Html::default(),
        more => Html::text_in("p", "quiet", format!("{more} more are in run.json.")),
    };
    section("faults", "Faults", [table.html("No fault."), note].into_iter().collect::<Html>())
}

/// A kind with the colour of its group.
pub(super) fn kind(kind: &str) -> Html {
    let (group, kind) = (Group::of(kind).name(), Html::text(kind));
    Html::raw(format!("<span class=\"kind\"><i class=\"swatch {group}\"></i>{kind}</span>"))
}

fn shown(fault: &FaultRecord) -> Html {
    match &fault.confirmed {
        Ok(evidence) => Html::text_in("span", "long", evidence),
        Err(why) => {
            let mark = Html::text_in("span", "open", "not confirmed:");
            Html::raw(format!("{mark} {}", Html::text_in("span", "long", why)))
        }
    }
}

fn undone(fault: &FaultRecord) -> Html {
    match &fault.undo_failed {
        None => Html::text_in("span", "nil", "yes"),
        Some(why) => Html::text_in("span", "bad long", format!("failed: {why}")),
    }
}

/// What the harness noticed; nothing where it noticed nothing.
pub(super) fn troubles(run: &Run) -> Html {
    if run.troubles.is_empty() {
        return Html::default();
    }
    let line = |trouble: &String| Html::text_in("li", "long", trouble);
    let lines: Html = run.troubles.iter().map(line).collect();
    section("troubles", "Troubles of the harness", Html::tag("ul", "open", lines))
}

/// What every node held at the end.
pub(super) fn dumps(run: &Run) -> Html {
    let mut table = Table::new(&["#node", "#applied index", "digest", "rows"]);
    for dump in &run.dumps {
        table.row([
            Html::text(dump.node),
            Html::text(count(dump.applied_index)),
            Html::text_in("code", "", &dump.digest),
            Html::text_in("span", "long", rows(dump)),
        ]);
    }
    let parts = [agreement(&run.dumps), table.html("No node was read at the end.")];
    section("digests", "What every node held", parts.into_iter().collect::<Html>())
}

fn rows(dump: &Dump) -> String {
    let bucket = |(name, rows): &(String, Vec<_>)| format!("{name} {}", count(rows.len() as u64));
    dump.buckets.iter().map(bucket).collect::<Vec<_>>().join(", ")
}

/// Whether digests of one applied index are the same.
fn agreement(dumps: &[Dump]) -> Html {
    let mut at: BTreeMap<u64, &str> = BTreeMap::new();
    let mut same = true;
    for dump in dumps {
        same &= *at.entry(dump.applied_index).or_insert(&dump.digest) == dump.digest;
    }
    let (class, text) = match (same, at.len()) {
        (_, 0) => return Html::default(),
        (false, _) => ("bad", "Nodes at the same applied index have different digests."),
        (true, 1) => ("good", "All nodes are at the same applied index, with the same digest."),
        (true, _) => ("open", "Nodes are at different indexes: not all can be compared."),
    };
    Html::text_in("p", class, text)
}

/// How to do it again.
pub(super) fn replay(run: &Run) -> Html {
    let command = Html::text_in("pre", "", &run.replay);
    let note = "The schedule and the clients' choices are drawn from the seed; timing is the machine's. \
                The history is in history.jsonl, everything else in run.json: both can be judged again \
                without the cluster.";
    let parts = [command, Html::text_in("p", "quiet", note)];
    section("replay", "Do it again", parts.into_iter().collect::<Html>())
}
