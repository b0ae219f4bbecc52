//! Campaigns: histories one after the other, each of a fresh cluster, some workloads and some faults.
//!
//! A history goes so: a lab and a cluster; the workloads' buckets; clients at work while the schedule's
//! rounds go by; all faults undone; the cluster heals; every node is read; the checkers judge; a page
//! is written. Whatever happens on the way, the history is judged and shown: a cluster that does not
//! heal is a trouble in its report, not an end of the campaign.

mod history;
mod members;
mod mutants;
mod schedule;
mod swarm;
mod trial;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use history::{Plan, run};
pub use mutants::{Hunt, hunt, is_known};
pub use trial::{Trial, Tried, try_faults};

use crate::lab::Isolation;
use crate::nemesis::Kind;
use crate::report::{self, Summary, Totals};

/// Histories of one campaign: a bound for one that is told to last for ever.
const HISTORIES_MAX: u64 = 100_000;

/// What the nodes of a campaign are started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Knobs {
    /// Tiny limits, so that what is rare in production happens all the time.
    #[default]
    Tiny,
    /// What the benchmark starts its nodes with: defaults, in one of its rows with a short log.
    Bench,
}

/// What a campaign is to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// How long it may take; the history that is under way then is finished.
    pub time: Duration,
    /// How many histories it may have; as many as the time allows where nobody says.
    pub histories: Option<u64>,
    /// How long a history is under load.
    pub history: Duration,
    /// What everything is drawn from.
    pub seed: u64,
    /// Kinds of faults to draw from.
    pub kinds: Vec<&'static Kind>,
    /// Workloads to draw from.
    pub workloads: Vec<String>,
    /// Nodes of a cluster; drawn from 1, 3 and 5 where nobody says.
    pub nodes: Option<u64>,
    /// What nodes are started with.
    pub knobs: Knobs,
    /// Calls per second, over all clients.
    pub rate: f64,
    /// Where reports go.
    pub reports: PathBuf,
    /// Where clusters live while they do.
    pub scratch: PathBuf,
}

/// Runs histories until the time is over, and says after each what it found.
pub async fn campaign(orders: &Orders, isolation: &Isolation) -> std::io::Result<Totals> {
    let began = Instant::now();
    let lacking = |kind: &&&Kind| isolation.has(kind.needs).is_err();
    let skipped: Vec<&str> = orders.kinds.iter().filter(lacking).map(|kind| kind.name).collect();
    if !skipped.is_empty() {
        say(&format!("skipped, this machine cannot do them: {}", skipped.join(", ")));
    }
    let mut summaries: Vec<Summary> = Vec::new();
    for number in 0..HISTORIES_MAX {
        let plan = swarm::plan(orders, number);
        say(&format!("[{:4} s] {plan}", began.elapsed().as_secs()));
        let run = history::run(&plan, isolation, &orders.scratch).await;
        let page = report::write_run(&orders.reports, &run)?;
        let summary = Summary::of(&run);
        let (headline, faults) = (summary.headline(), summary.faults.values());
        let faults: u64 = faults.map(|count| count.confirmed).sum();
        let operations = summary.operations;
        say(&format!(
            "         {headline}: {operations} operations, {faults} faults; {}",
            page.display()
        ));
        if let Some(first) = summary.unknown.first() {
            let first: String =
                first.lines().next().unwrap_or_default().chars().take(160).collect();
            say(&format!("         first: {first}"));
        }
        summaries.push(summary);
        report::write_index(&orders.reports, &summaries)?;
        if began.elapsed() >= orders.time || orders.histories == Some(number + 1) {
            break;
        }
    }
    // Empty where every history was clean.
    let _ = std::fs::remove_dir(&orders.scratch);
    say(&damages(&summaries));
    Ok(Totals::of(&summaries))
}

/// What became of the files that were damaged. What was taken for good shows in the checkers' words.
fn damages(summaries: &[Summary]) -> String {
    let count = |outcome: &str| -> u64 {
        summaries.iter().filter_map(|summary| summary.damages.get(outcome)).sum()
    };
    let [refused, repaired, harmless] = ["refused", "repaired", "harmless"].map(count);
    format!("damages: refused {refused}, repaired {repaired}, harmless {harmless}")
}

/// Judges a recorded run again.
pub fn judge_again(dir: &Path) -> std::io::Result<Summary> {
    let mut run = report::read_run(dir)?;
    run.verdicts = crate::check::judge(&run.operations, &run.dumps, &run.faults);
    report::write_run(dir.parent().unwrap_or(dir), &run)?;
    Ok(Summary::of(&run))
}

/// Prints a line that was asked for.
pub fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line of progress.
pub fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
