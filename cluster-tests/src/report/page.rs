//! The page of a run: first what it found, then what it did.

use crate::history::{Finding, Run, Verdict};

use super::fragment;
use super::html::{self, Html, Table, count, counted, duration, section, utc};
use super::lanes;
use super::plot;
use super::sections;
use super::{Summary, Totals};

/// The page of a run, whole.
pub(super) fn html(run: &Run) -> String {
    let summary = Summary::of(run);
    let parts = [
        head(run, &summary),
        verdicts(run),
        violations(run),
        sections::troubles(run),
        timeline(run),
        sections::operations(run),
        sections::reasons(run),
        sections::faults(run),
        sections::dumps(run),
        sections::replay(run),
    ];
    html::document(&format!("{}: {}", run.name, summary.headline()), &parts.into_iter().collect())
}

/// The class of a result.
pub(super) fn class(violations: u64, unknown: u64) -> &'static str {
    match (violations, unknown) {
        (0, 0) => "good",
        (0, _) => "open",
        _ => "bad",
    }
}

fn head(run: &Run, summary: &Summary) -> Html {
    let totals = Totals::of([summary]);
    let kicker = Html::text_in("p", "kicker", format!("kvdb cluster run · {}", run.name));
    let class = class(totals.violations, totals.unknown);
    let headline = Html::text_in("h1", class, summary.headline());
    let lead = format!(
        "{}, {} of {}, in {}.",
        counted(totals.operations, "operation"),
        counted(totals.faults, "confirmed fault"),
        counted(totals.kinds.len() as u64, "kind"),
        duration(run.took)
    );
    let facts = [
        ("Seed", Html::text_in("code", "", run.seed)),
        ("Build", Html::text_in("code", "", &run.build)),
        ("Started", Html::text(utc(run.started))),
        ("Nodes", Html::text(run.nodes)),
        ("Isolation", Html::text(&run.isolation)),
        ("Knobs", knobs(run)),
    ];
    let fact = |(name, value)| {
        [Html::text_in("dt", "", name), Html::tag("dd", "", value)].into_iter().collect::<Html>()
    };
    let facts = Html::tag("dl", "facts", facts.into_iter().map(fact).collect::<Html>());
    let lead = Html::text_in("p", "lead", lead);
    Html::tag("header", "", [kicker, headline, lead, facts].into_iter().collect::<Html>())
}

fn knobs(run: &Run) -> Html {
    if run.knobs.is_empty() {
        return Html::text("the defaults");
    }
    let knob = |knob: &String| Html::raw(format!("{} ", Html::text_in("code", "knob", knob)));
    run.knobs.iter().map(knob).collect()
}

/// All verdicts, the worst first.
fn verdicts(run: &Run) -> Html {
    let mut verdicts: Vec<(u8, &Verdict)> =
        run.verdicts.iter().map(|verdict| (rank(verdict), verdict)).collect();
    verdicts.sort_by_key(|(rank, _)| *rank);
    let mut violation = 0;
    let mut table = Table::new(&["checker", "workload", "#judged", "finding"]);
    for (_, verdict) in verdicts {
        let finding = finding(verdict, &mut violation);
        table.row([
            Html::text(&verdict.checker),
            Html::text(&verdict.workload),
            Html::text(count(verdict.checked as u64)),
            finding,
        ]);
    }
    section("verdicts", "Verdicts", table.html("No checker judged this run."))
}

fn rank(verdict: &Verdict) -> u8 {
    match verdict.finding {
        Finding::Violated { .. } => 0,
        Finding::Unknown { .. } => 1,
        Finding::Holds => 2,
    }
}

/// A finding in a cell. A violation is a link to where it is shown; they are numbered in the order of
/// the run.
fn finding(verdict: &Verdict, violation: &mut u64) -> Html {
    match &verdict.finding {
        Finding::Holds if verdict.checked == 0 => {
            Html::text_in("span", "open", "held, but there was nothing to judge")
        }
        Finding::Holds => Html::text_in("span", "good", "✓ held"),
        Finding::Unknown { why } => {
            let mark = Html::text_in("span", "open", "? unknown");
            Html::raw(format!("{mark} {}", Html::text_in("span", "long", why)))
        }
        Finding::Violated { what, .. } => {
            *violation += 1;
            let link = Html::link(&format!("#violation-{violation}"), "✗ violated");
            let link = Html::tag("span", "bad", link);
            Html::raw(format!("{link} {}", Html::text_in("span", "long", what)))
        }
    }
}

/// Each violation in full, with the operations that show it.
fn violations(run: &Run) -> Html {
    let violated = run.verdicts.iter().filter_map(|verdict| match &verdict.finding {
        Finding::Violated { what, operations } => Some((verdict, what, operations)),
        Finding::Holds | Finding::Unknown { .. } => None,
    });
    let article =
        |(index, (verdict, what, operations)): (usize, (&Verdict, &String, &Vec<u64>))| {
            let heading = format!("{}. {} · {}", index + 1, verdict.checker, verdict.workload);
            let heading = Html::text_in("h3", "bad", heading);
            let (what, number) = (Html::text_in("p", "what", what), index + 1);
            let fragment = fragment::html(run, operations);
            Html::raw(format!(
                "<article id=\"violation-{number}\">{heading}\n{what}\n{fragment}</article>\n"
            ))
        };
    let articles: Html = violated.enumerate().map(article).collect();
    if articles.is_empty() {
        return articles;
    }
    let note = "The fewest operations that show it. Left to right is the order of events, not to \
                scale. A bar goes from the first byte sent to the last received; a dashed one has no \
                end: its outcome is unknown, and it may take effect later.";
    let key = fragment_key();
    let note = Html::text_in("p", "quiet", note);
    section("violations", "Violations", [note, key, articles].into_iter().collect::<Html>())
}

fn fragment_key() -> Html {
    let classes = ["write", "read", "denied", "refused", "unknown"];
    let entry = |class: &str| {
        Html::raw(format!(
            "<span class=\"entry\"><i class=\"swatch call {class}\"></i>{class}</span>"
        ))
    };
    Html::tag("p", "legend", classes.into_iter().map(entry).collect::<Html>())
}

fn timeline(run: &Run) -> Html {
    let note = "Each step is the calls that ended in it; a gap in latency is time in which nothing was \
                done. Point at it for its figures, and at a fault for what it was. Hollow bars were not \
                confirmed, and count for nothing.";
    let kinds = run.faults.iter().map(|fault| fault.kind.as_str());
    let legend = if run.faults.is_empty() { Html::default() } else { lanes::legend(kinds) };
    let parts = [Html::text_in("p", "quiet", note), legend, plot::timeline(run)];
    section("timeline", "Timeline", parts.into_iter().collect::<Html>())
}
