//! The index of a campaign: the totals, all violations, the runs, and how often each kind of fault was
//! confirmed, in all and in each run.

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
    let parts = [
        head(runs, &totals),
        violations(runs),
        unknown(runs),
        list(runs),
        kinds(runs),
        matrix(runs),
    ];
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
        table.row([name(run), line]);
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
        "#confirmed faults",
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
        name(run),
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

/// The name of a run on one line, with a link to its page.
fn name(run: &Summary) -> Html {
    Html::tag("span", "kind", Html::link(&files::address(&run.name), &run.name))
}

fn confirmed(run: &Summary) -> Html {
    let totals = Totals::of([run]);
    let kinds = counted(totals.kinds.len() as u64, "kind");
    Html::text(format!("{} of {kinds}", count(totals.faults)))
}

/// How often each kind was confirmed, and in how many runs.
fn kinds(runs: &[Summary]) -> Html {
    let kinds = by_kind(runs);
    let most = kinds.values().map(|(faults, _)| faults.confirmed).max().unwrap_or(0).max(1);
    let heads = ["kind", "strikes", "#confirmed", "", "#not confirmed", "#runs with it"];
    let mut table = Table::new(&heads);
    for ((group, kind), (faults, runs)) in &kinds {
        table.row([
            sections::kind(kind),
            Html::text(group.name()),
            Html::text(count(faults.confirmed)),
            bar(*group, faults.confirmed as f64 / most as f64),
            Html::text(count(faults.unconfirmed)),
            Html::text(count(*runs)),
        ]);
    }
    let legend = lanes::legend(kinds.keys().map(|(_, kind)| *kind));
    let parts = [legend, table.html("No fault was tried.")];
    section("kinds", "Faults by kind", parts.into_iter().collect::<Html>())
}

fn by_kind(runs: &[Summary]) -> BTreeMap<(Group, &str), (FaultCount, u64)> {
    let mut kinds: BTreeMap<(Group, &str), (FaultCount, u64)> = BTreeMap::new();
    for run in runs {
        for (kind, faults) in &run.faults {
            let (sum, runs) = kinds.entry((Group::of(kind), kind)).or_default();
            sum.confirmed += faults.confirmed;
            sum.unconfirmed += faults.unconfirmed;
            *runs += u64::from(faults.confirmed > 0);
        }
    }
    kinds
}

fn bar(group: Group, part: f64) -> Html {
    if part == 0.0 {
        return Html::default();
    }
    let (group, width) = (group.name(), part * 100.0);
    Html::raw(format!("<i class=\"gauge {group}\" style=\"width: {width:.0}%\"></i>"))
}

/// How often each kind was confirmed in each run: a column for each kind.
fn matrix(runs: &[Summary]) -> Html {
    let kinds: Vec<(Group, &str)> = by_kind(runs).into_keys().collect();
    let head = |(_, kind): &(Group, &str)| Html::tag("th", "", Html::text_in("span", "", kind));
    let heads: Html = kinds.iter().map(head).collect();
    let row = |run: &Summary| {
        let cells: Html =
            kinds.iter().map(|(group, kind)| cell(*group, run.faults.get(*kind))).collect();
        Html::raw(format!("<tr><td>{}</td>{cells}</tr>\n", name(run)))
    };
    let rows: Html = runs.iter().map(row).collect();
    if kinds.is_empty() {
        return Html::default();
    }
    let table = Html::raw(format!(
        "<div class=\"scroll\"><table class=\"matrix\"><thead><tr><th>run</th>{heads}</tr></thead>\
         <tbody>\n{rows}</tbody></table></div>\n"
    ));
    section("matrix", "Confirmed faults by run", table)
}

/// A number on the colour of its group; nothing where the kind was not tried.
fn cell(group: Group, faults: Option<&FaultCount>) -> Html {
    match faults {
        None => Html::text_in("td", "", ""),
        Some(FaultCount { confirmed: 0, .. }) => Html::text_in("td", "nil", "0"),
        Some(faults) => Html::text_in("td", &format!("cell {}", group.name()), faults.confirmed),
    }
}
