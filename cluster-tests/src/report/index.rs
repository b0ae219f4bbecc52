//! The index of a campaign: the totals, all violations, the runs, and how often each kind of fault was
//! confirmed.

use std::collections::BTreeMap;

use super::groups::Group;
use super::html::{self, Html, Table, count, counted, duration, section, utc};
use super::lanes;
use super::page;
use super::sections;
use super::summary::headline;
use super::{FaultCount, Summary, Totals, files};

/// Lines of what is unknown that are shown; the runs' own pages have them all.
const UNKNOWN_MAX: usize = 500;
/// Characters of such a line.
const UNKNOWN: usize = 400;

/// The page, whole.
pub(super) fn html(runs: &[Summary]) -> String {
    let totals = Totals::of(runs);
    let parts = [head(runs, &totals), violations(runs), unknown(runs), list(runs), kinds(runs)];
    html::document(&format!("kvdb campaign: {totals}"), &parts.into_iter().collect())
}

fn head(runs: &[Summary], totals: &Totals) -> Html {
    let words = match runs {
        [] => "No run yet".to_owned(),
        _ => headline(totals.violations, totals.unknown),
    };
    let class =
        if runs.is_empty() { "open" } else { page::class(totals.violations, totals.unknown) };
    let first = runs.iter().map(|run| run.started).min();
    let since = first.map_or_else(String::new, |first| format!(", the first at {}", utc(first)));
    let lead =
        format!("{}, {} together{since}.", counted(totals.runs, "run"), duration(totals.took));
    let parts = [
        Html::text_in("p", "kicker", "kvdb cluster campaign"),
        Html::text_in("h1", class, words),
        Html::tag("p", "totals", Html::text_in("code", "", totals)),
        Html::text_in("p", "lead", lead),
        builds(runs),
    ];
    Html::tag("header", "", parts.into_iter().collect::<Html>())
}

fn builds(runs: &[Summary]) -> Html {
    let mut builds: Vec<&str> = runs.iter().map(|run| run.build.as_str()).collect();
    builds.sort_unstable();
    builds.dedup();
    let line = |build: &str| {
        [Html::text_in("dt", "", "Build"), Html::tag("dd", "", Html::text_in("code", "", build))]
            .into_iter()
            .collect::<Html>()
    };
    Html::tag("dl", "facts", builds.into_iter().map(line).collect::<Html>())
}

/// Every violation of every run, in full.
fn violations(runs: &[Summary]) -> Html {
    let mut table = Table::new(&["run", "checker", "workload", "what"]);
    for run in runs {
        for (index, violation) in run.violations.iter().enumerate() {
            let address = format!("{}#violation-{}", files::address(&run.name), index + 1);
            table.row([
                Html::link(&address, &run.name),
                Html::text(&violation.checker),
                Html::text(&violation.workload),
                Html::text_in("span", "long", &violation.what),
            ]);
        }
    }
    section("violations", "Violations", table.html("None."))
}

/// What keeps runs from passing although nothing is violated.
fn unknown(runs: &[Summary]) -> Html {
    let all = || runs.iter().flat_map(|run| run.unknown.iter().map(move |line| (run, line)));
    let more = all().count().saturating_sub(UNKNOWN_MAX);
    let mut table = Table::new(&["run", "why"]);
    for (run, line) in all().take(UNKNOWN_MAX) {
        let line = Html::text_in("span", "long", html::clip(line, UNKNOWN));
        table.row([Html::link(&files::address(&run.name), &run.name), line]);
    }
    let note = match more {
        0 => Html::default(),
        more => Html::text_in("p", "quiet", format!("{more} more are on the pages of their runs.")),
    };
    section("unknown", "Unknown", [table.html("Nothing."), note].into_iter().collect::<Html>())
}

/// The runs in the order of the campaign.
fn list(runs: &[Summary]) -> Html {
    let heads = [
        "run",
        "result",
        "#seed",
        "#nodes",
        "#took",
        "workloads",
        "#operations",
        "#outcome unknown",
        "confirmed faults",
        "#violations",
        "#unknown",
    ];
    let mut table = Table::new(&heads);
    for run in runs {
        table.row(run_row(run));
    }
    section("runs", "Runs", table.html("No run yet."))
}

fn run_row(run: &Summary) -> [Html; 11] {
    let figure = |number: usize, class: &str| {
        Html::text_in("span", if number == 0 { "nil" } else { class }, count(number as u64))
    };
    let mark = match page::class(run.violations.len() as u64, run.unknown.len() as u64) {
        "good" => Html::text_in("span", "good", "✓ held"),
        "open" => Html::text_in("span", "open", "? unknown"),
        class => Html::text_in("span", class, "✗ violated"),
    };
    [
        Html::link(&files::address(&run.name), &run.name),
        mark,
        Html::text(run.seed),
        Html::text(run.nodes),
        Html::text(duration(run.took)),
        Html::text(run.workloads.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
        Html::text(count(run.operations)),
        Html::text(count(run.lost)),
        confirmed(run),
        figure(run.violations.len(), "bad"),
        figure(run.unknown.len(), "open"),
    ]
}

fn confirmed(run: &Summary) -> Html {
    let faults = run.faults.iter().filter(|(_, faults)| faults.confirmed > 0);
    let fault = |(kind, faults): (&String, &FaultCount)| {
        let text = format!("{kind} {}", count(faults.confirmed));
        Html::raw(format!("{} ", Html::text_in("span", "chip", text)))
    };
    faults.map(fault).collect()
}

/// How often each kind was confirmed, and in how many runs.
fn kinds(runs: &[Summary]) -> Html {
    let kinds = by_kind(runs);
    let most = kinds.values().map(|(faults, _)| faults.confirmed).max().unwrap_or(0).max(1);
    let heads = ["kind", "strikes", "#confirmed", "", "#not confirmed", "#runs with it"];
    let mut table = Table::new(&heads);
    for (kind, (faults, runs)) in &kinds {
        table.row([
            sections::kind(kind),
            Html::text(Group::of(kind).name()),
            Html::text(count(faults.confirmed)),
            bar(kind, faults.confirmed as f64 / most as f64),
            Html::text(count(faults.unconfirmed)),
            Html::text(count(*runs)),
        ]);
    }
    let legend = lanes::legend(kinds.keys().copied());
    let parts = [legend, table.html("No fault was tried.")];
    section("kinds", "Faults by kind", parts.into_iter().collect::<Html>())
}

fn by_kind(runs: &[Summary]) -> BTreeMap<&str, (FaultCount, u64)> {
    let mut kinds: BTreeMap<&str, (FaultCount, u64)> = BTreeMap::new();
    for run in runs {
        for (kind, faults) in &run.faults {
            let (sum, runs) = kinds.entry(kind).or_default();
            sum.confirmed += faults.confirmed;
            sum.unconfirmed += faults.unconfirmed;
            *runs += u64::from(faults.confirmed > 0);
        }
    }
    kinds
}

fn bar(kind: &str, part: f64) -> Html {
    let (group, width) = (Group::of(kind).name(), part * 100.0);
    Html::raw(format!("<i class=\"gauge {group}\" style=\"width: {width:.0}%\"></i>"))
}
