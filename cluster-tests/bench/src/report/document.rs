//! The document: a template with what people wrote, and what was measured put into it.

use super::costs;
use super::plots::Plot;
use crate::results::{Results, RowResult};
use crate::stats::{Round, Summary, short};

/// What people wrote. Edit it, and `bench docs` makes the document anew.
const TEMPLATE: &str = include_str!("performance.md");

/// The whole document.
#[must_use]
pub fn document(results: &Results, plots: &[Plot]) -> String {
    let parts = [
        ("table", table(&results.rows)),
        ("verdict", verdict(&results.rows)),
        ("notes", notes(&results.rows)),
        ("costs", costs::table(&results.costs)),
        ("machine", machine(results)),
        ("versions", versions(results)),
        ("how", how(results)),
        ("plots", images(plots)),
    ];
    let mut text = TEMPLATE.to_owned();
    for (name, part) in parts {
        text = text.replace(&format!("{{{{{name}}}}}"), part.trim_end());
    }
    text
}

fn table(rows: &[RowResult]) -> String {
    let mut text =
        "| row | ours | against | target | ratio | of rounds | |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let ratio = short(Summary::of(&row.rounds).ratio);
        let cells = [
            format!("`{}`", row.name),
            row.what.clone(),
            row.peer.clone(),
            row.target_text(),
            format!("**{ratio}**"),
            spread(&row.rounds),
            row.verdict().to_owned(),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// Such as `3.9–4.4, 5 rounds`.
fn spread(rounds: &[Round]) -> String {
    let ratios = || rounds.iter().map(Round::ratio);
    let (least, most) = (ratios().fold(f64::NAN, f64::min), ratios().fold(f64::NAN, f64::max));
    match rounds.len() {
        0 => "-".to_owned(),
        1 => "1 round".to_owned(),
        count => format!("{}–{}, {count} rounds", short(least), short(most)),
    }
}

fn verdict(rows: &[RowResult]) -> String {
    let targets = || rows.iter().filter(|row| row.has_target());
    let met = targets().filter(|row| row.met()).count();
    let short: Vec<_> =
        targets().filter(|row| !row.met()).map(|row| format!("`{}`", row.name)).collect();
    let others =
        if short.is_empty() { String::new() } else { format!(" Short: {}.", short.join(", ")) };
    format!("{met} of {} targets are met.{others}", targets().count())
}

fn notes(rows: &[RowResult]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| !row.note.is_empty()) {
        text += &format!("- `{}`: {}\n", row.name, row.note);
    }
    let noisy: Vec<_> = rows.iter().filter(|row| row.noisy_rounds() > 0).collect();
    if !noisy.is_empty() {
        let each = noisy.iter().map(|row| format!("`{}` {}", row.name, row.noisy_rounds()));
        let each = each.collect::<Vec<_>>().join(", ");
        text += &format!(
            "- Rounds in which something else used more than a quarter of a processor: {each}\n"
        );
    }
    text
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "{} × {}, {:.0} GiB of memory, {}; data on {}",
        machine.cores, machine.cpu, machine.memory_gib, machine.system, machine.disk
    )
}

fn versions(results: &Results) -> String {
    let named = results.versions.iter().map(|(name, version)| format!("{name}: {version}"));
    let mut all: Vec<_> = named.collect();
    all.push(format!("ours was built as: {}", results.build));
    all.join("; ")
}

fn how(results: &Results) -> String {
    let how = &results.how;
    let scaled = if how.quick { ", with data scaled down: a look, not a measurement" } else { "" };
    format!(
        "{} rounds of {} s after {} s of warm-up{scaled}",
        how.rounds, how.seconds, how.warmup_seconds
    )
}

fn images(plots: &[Plot]) -> String {
    let images = plots.iter().map(|plot| format!("![{}](plots/{})\n", plot.title, plot.file));
    images.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    fn rendered() -> String {
        let mut results = Results {
            rows: vec![
                row("put-grpc", &[(8000.0, 2000.0), (9000.0, 3000.0), (9000.0, 2000.0)]),
                row("get-leader", &[(3.0, 1.0)]),
            ],
            versions: vec![("etcd".into(), "3.4.23".into())],
            build: "release".into(),
            ..Results::default()
        };
        results.rows[1].note = "100 keys".into();
        results.rows[1].rounds[0].noise.other_cores = 0.9;
        document(&results, &[])
    }

    #[test]
    fn table_has_ratios_and_no_absolute_figures() {
        let text = rendered();
        let line = text.lines().find(|line| line.starts_with("| `put-grpc`")).unwrap();
        assert!(line.ends_with("| ≥ 4 | **4.00** | 3.00–4.50, 3 rounds | ok |"), "{line}");
        assert!(!line.contains("9,000"), "{line}");
        let line = text.lines().find(|line| line.starts_with("| `get-leader`")).unwrap();
        assert!(line.ends_with("| **3.00** | 1 round | short |"), "{line}");
    }

    #[test]
    fn everything_of_the_template_is_filled_in() {
        let text = rendered();
        assert!(!text.contains("{{"), "{text}");
        assert!(text.contains("1 of 2 targets are met. Short: `get-leader`."));
        assert!(text.contains("- `get-leader`: 100 keys"));
        assert!(text.contains("a quarter of a processor: `get-leader` 1"));
        assert!(text.contains("etcd: 3.4.23; ours was built as: release"));
    }
}
