//! The command line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::costs;
use bench::estimate::{Outlook, PLOTS};
use bench::lab::{Lab, Settings};
use bench::machine::{self, Machine};
use bench::peers::program;
use bench::report;
use bench::results::{How, Results, RowResult};
use bench::rows::{self, COSTS, Chosen, Measured, Row};
use bench::say::say;
use bench::supervise;
use clap::{Args, Parser, Subcommand};
use cluster_tests::process::binary;
use cluster_tests::scenario::Scenario;

/// Measures KVdb beside etcd and Redis: same load, same machine, in turn.
///
/// A line for each row as it is done: `name ours peer ratio target ok|short`. Progress goes to stderr. The exit
/// status is 0 where all rows could be measured, 1 where one could not, 2 for a wrong call, 130 after Ctrl-C. The
/// binary measured is the one that KVDB_BIN names, or `kvdb` beside this one.
///
/// Examples:
///   bench run                           everything; writes docs/performance.md and docs/plots
///   bench run --quick                   everything within minutes, with less data
///   bench run --rows put-grpc,restart --rounds 9
///   bench docs .kvdb/bench/results.json makes the document anew, after its text was edited and `bench` built
///   bench rows                          what there is to measure
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Measures.
    Run(RunArgs),
    /// Lists the rows: their names, what they measure, their targets.
    Rows,
    /// Writes the document and the plots from what a run kept.
    Docs {
        /// The results of a run.
        results: PathBuf,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Less data, shorter and fewer rounds: done within minutes.
    #[arg(long)]
    quick: bool,
    /// Only these rows, separated by commas; `costs` is none, and chosen like one.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds of a row. Default: 5; quick: 1.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,
    /// Seconds that load is counted. Default: 5; quick: 1.5.
    #[arg(long)]
    seconds: Option<f64>,
    /// Writes docs/performance.md and docs/plots also when this was not all of it.
    #[arg(long)]
    write_docs: bool,
    /// Where databases and results lie. Default: .kvdb/bench in the checkout.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl RunArgs {
    fn settings(&self) -> Result<Settings, String> {
        let base = if self.quick { Settings::QUICK } else { Settings::FULL };
        let seconds = self.seconds.unwrap_or(base.duration.as_secs_f64());
        if !(0.1..=3600.0).contains(&seconds) {
            return Err(format!("{seconds} seconds: choose 0.1 to 3600"));
        }
        Ok(Settings {
            rounds: self.rounds.map_or(base.rounds, usize::from),
            duration: Duration::from_secs_f64(seconds),
            ..base
        })
    }

    /// Whether this is what the document is made of.
    fn documents(&self) -> bool {
        self.write_docs || (!self.quick && self.rows.is_empty())
    }
}

/// Does what is asked; fails where not all of it could be done.
pub(crate) fn main() -> Result<ExitCode, String> {
    match Cli::parse().command {
        Action::Run(args) => run(&args),
        Action::Rows => {
            for row in rows::ROWS {
                let target = RowResult::of(row, Ok(Measured::default())).target_text();
                println!("{:<18} {target:>6}  {}; against {}", row.name, row.what, row.peer);
            }
            println!(
                "{COSTS:<18} {:>6}  commits, messages, bytes and time of a command, on ours",
                "-"
            );
            Ok(ExitCode::SUCCESS)
        }
        Action::Docs { results } => {
            report::write(&Results::read(&results)?, &docs())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn docs() -> PathBuf {
    Scenario::checkout().join("docs")
}

fn run(args: &RunArgs) -> Result<ExitCode, String> {
    let settings = args.settings()?;
    let chosen = rows::chosen(&args.rows)?;
    let dir = args.dir.clone().unwrap_or_else(|| Scenario::checkout().join(".kvdb/bench"));
    match supervise::as_worker()? {
        None => supervise::supervise(&dir).map(|code| u8::try_from(code).unwrap_or(1).into()),
        Some(data) => {
            let lab = Lab::new(settings, &data)?;
            let all = measure_all(args, &chosen, lab, &dir)?;
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Measures what was chosen; whether all of it could be.
fn measure_all(args: &RunArgs, chosen: &Chosen, mut lab: Lab, dir: &Path) -> Result<bool, String> {
    if machine::in_memory(dir) {
        return Err(format!("{} is in memory, where a sync costs nothing", dir.display()));
    }
    let versions = versions();
    for (name, version) in &versions {
        say(&format!("{name}: {version}"));
    }
    say("row                     ours      peer    ratio  target");
    let settings = lab.settings;
    let costs = chosen.costs.then_some(COSTS);
    let plots = args.documents().then_some(PLOTS);
    let names = chosen.rows.iter().map(|row| row.name).chain(costs).chain(plots);
    let mut outlook = Outlook::new(names, &settings);
    let rows = chosen.rows.iter().map(|row| {
        say(&format!("== {} ({})", row.name, outlook.begin_next()));
        measure(row, &mut lab)
    });
    let rows = rows.collect::<Vec<_>>();
    let costs = match costs {
        None => Ok(Vec::new()),
        Some(_) => {
            say(&format!("== what a command costs ours ({})", outlook.begin_next()));
            costs::costs(&mut lab)
        }
    };
    if plots.is_some() {
        say(&format!("== what plots need besides ({})", outlook.begin_next()));
        rows::by_clients(&mut lab)?;
    }
    let results = Results {
        at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        build: build(),
        how: How::from(&settings),
        machine: Machine::here(lab.scratch.path()),
        versions,
        rows,
        costs: costs.clone().unwrap_or_default(),
        series: std::mem::take(&mut lab.series),
    };
    // What the page is made of is not lost to a look at some rows.
    let path = dir.join(if args.documents() { "results.json" } else { "partial.json" });
    results.write(&path)?;
    if args.documents() {
        report::write(&results, &docs())?;
    }
    let targets = || results.rows.iter().filter(|row| row.has_target());
    let (met, all) = (targets().filter(|row| row.met()).count(), targets().count());
    say(&format!("{met} of {all} targets met; {}", path.display()));
    if let Err(reason) = &costs {
        say(&format!("{COSTS} failed: {reason}"));
    }
    Ok(costs.is_ok() && results.rows.iter().all(|row| row.verdict() != "failed"))
}

/// Measures a row; one that fails, also by a panic, does not end the others.
fn measure(row: &Row, lab: &mut Lab) -> RowResult {
    say(&format!("   {}; against {}", row.what, row.peer));
    let measured = catch_unwind(AssertUnwindSafe(|| (row.measure)(lab)));
    let measured = measured.unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
    let result = RowResult::of(row, measured);
    if !result.note.is_empty() {
        say(&format!("   {}", result.note));
    }
    if result.rounds.is_empty() {
        lab.clear();
    }
    println!("{}", result.line());
    result
}

fn versions() -> Vec<(String, String)> {
    let ours = machine::version(&binary()).unwrap_or_default();
    let mut all = vec![("ours".to_owned(), ours)];
    for name in ["etcd", "redis-server", "tarantool"] {
        let version = program(name).and_then(|path| machine::version(&path));
        all.push((name.to_owned(), version.unwrap_or_else(|| "not installed".to_owned())));
    }
    all
}

/// The profile, by the directory that cargo put the binary in, and the commit of the checkout.
fn build() -> String {
    let binary = binary();
    let profile = binary.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(Scenario::checkout())
        .output();
    let commit = git.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("profile {profile}, commit {}", commit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> RunArgs {
        let cli = Cli::parse_from(["bench", "run"].iter().chain(words));
        match cli.command {
            Action::Run(args) => args,
            _ => panic!("it is a run"),
        }
    }

    #[test]
    fn document_is_made_of_all_rows_in_full() {
        assert!(args(&[]).documents());
        assert!(!args(&["--quick"]).documents());
        assert!(!args(&["--rows", "put-grpc,restart"]).documents());
        assert!(args(&["--quick", "--write-docs"]).documents());
    }

    #[test]
    fn settings_have_defaults_and_limits() {
        let full = args(&[]).settings().unwrap();
        assert_eq!((full.rounds, full.duration, full.quick), (5, Duration::from_secs(5), false));
        let quick = args(&["--quick", "--rounds", "3", "--seconds", "0.5"]).settings().unwrap();
        assert_eq!((quick.rounds, quick.duration), (3, Duration::from_millis(500)));
        assert!(args(&["--seconds", "0"]).settings().is_err());
        assert_eq!(args(&["--rows", "a,b"]).rows, ["a", "b"]);
    }
}
