//! `jepsen`: fault campaigns against clusters of the built binary.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cluster_tests::campaign::{self, Knobs, Orders, Trial};
use cluster_tests::lab::{self, Isolation};
use cluster_tests::{nemesis, workload};

/// Breaks clusters of kvdb in every way it knows, and judges what their clients saw.
///
/// The last line tells: `operations N, faults N of N kinds, violations N, unknown N`. The exit status is 0
/// where nothing was violated and nothing unknown, 1 where something was, 2 for a wrong call. `faults` ends
/// with `faults passed N, failed N, skipped N`, and with 0 where none failed.
///
/// Examples:
///   jepsen run                                       ten minutes, everything
///   jepsen run --minutes 60 --seed 7                 an hour, from a seed
///   jepsen run --faults kill-leader,power-all --workloads bank,append
///   jepsen run --faults power-all --knobs bench      nodes as the benchmark starts them
///   jepsen mutants                                   are planted bugs found?
///   jepsen faults --only disk-full,grow              does each fault come, go and lose nothing?
///   jepsen check REPORTS/003-seed-9                  judge a recorded history again
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a campaign.
    Run(RunArgs),
    /// Hunts the planted bugs; `KVDB_BIN` names a binary built with the feature `mutants`.
    Mutants {
        /// Which ones; all where none is named.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Minutes that one may take.
        #[arg(long, default_value_t = 3)]
        minutes: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Tries every kind of fault by itself on one cluster: is it there, does it go, does the cluster heal.
    Faults(FaultsArgs),
    /// Judges a recorded history again.
    Check {
        /// The directory of the history's report.
        dir: PathBuf,
    },
    /// Lists workloads and kinds of faults.
    List,
}

#[derive(Args)]
struct RunArgs {
    /// Minutes that it takes; the history under way then is finished.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// End after this many histories.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    histories: Option<u64>,
    /// Kinds of faults, separated by commas; all where none is named (`jepsen list`).
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Workloads, separated by commas; all where none is named.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Nodes of every cluster; where it is not said, mostly 3, sometimes 5 or 1.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// What nodes are started with.
    #[arg(long, value_enum, default_value_t)]
    knobs: Knobs,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct FaultsArgs {
    /// Which kinds, separated by commas; all where none is named (`jepsen list`).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// How often each kind is tried; with --together, how many rounds.
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Faults at once, drawn from the kinds; one that another is in the way of fails nothing.
    #[arg(long, default_value_t = 1)]
    together: usize,
    /// Milliseconds that a fault stays.
    #[arg(long, default_value_t = 2000)]
    hold: u64,
    /// What choices are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the cluster lives while it does; it stays where something failed.
    #[arg(long, default_value_os_t = scratch())]
    scratch: PathBuf,
}

#[derive(Args)]
struct Common {
    /// Seconds that a history is under load.
    #[arg(long, default_value_t = 45)]
    seconds: u64,
    /// What all is drawn from; drawn itself where it is not said.
    #[arg(long)]
    seed: Option<u64>,
    /// Calls per second, over all clients.
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Where reports go.
    #[arg(long, default_value = ".kvdb/jepsen")]
    reports: PathBuf,
    /// Where clusters live while they do; those of failed histories stay.
    #[arg(long, default_value_os_t = scratch())]
    scratch: PathBuf,
}

/// A directory that no other harness has at the same time.
fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("kvdb-jepsen-{}", lab::own_name()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::List => list(),
        Command::Check { dir } => check(&dir),
        Command::Run(args) => match args.orders() {
            Ok(orders) => in_the_lab(async |isolation: &Isolation| run(&orders, isolation).await),
            Err(mistake) => wrong(&mistake),
        },
        Command::Faults(args) => match args.trial() {
            Ok(trial) => in_the_lab(async |isolation: &Isolation| faults(&trial, isolation).await),
            Err(mistake) => wrong(&mistake),
        },
        Command::Mutants { only, .. } if !only.iter().all(|name| campaign::is_known(name)) => {
            wrong("no such mutant: docs/testing.md lists them")
        }
        Command::Mutants { only, minutes, common } => {
            let orders = common.orders(Duration::ZERO);
            let limit = Duration::from_secs(minutes * 60);
            in_the_lab(async |isolation: &Isolation| {
                mutants(&orders, isolation, &only, limit).await
            })
        }
    }
}

fn wrong(mistake: &str) -> ExitCode {
    campaign::say(&format!("jepsen: {mistake}"));
    ExitCode::from(2)
}

fn list() -> ExitCode {
    campaign::tell("workloads:");
    workload::NAMES.iter().for_each(|name| campaign::tell(&format!("  {name}")));
    campaign::tell("faults:");
    for kind in nemesis::kinds() {
        campaign::tell(&format!("  {:24} {}", kind.name, kind.about));
    }
    ExitCode::SUCCESS
}

fn check(dir: &std::path::Path) -> ExitCode {
    match campaign::judge_again(dir) {
        Ok(summary) => {
            campaign::tell(&summary.headline());
            passed(summary.passed())
        }
        Err(error) => wrong(&format!("{}: {error}", dir.display())),
    }
}

fn passed(clean: bool) -> ExitCode {
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs something inside the lab's world, and ends at Ctrl-C: the world goes with us. (Inside, this is
/// the first process, which no signal ends by itself.)
fn in_the_lab(work: impl AsyncFnOnce(&Isolation) -> ExitCode) -> ExitCode {
    let isolation = match lab::enter() {
        Ok(isolation) => isolation,
        Err(code) => return code,
    };
    campaign::say(&format!("nodes are {isolation}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads can be started");
    // Faults block this thread while they are done; clients have the others.
    runtime.block_on(async {
        tokio::select! {
            code = work(&isolation) => code,
            _ = tokio::signal::ctrl_c() => {
                lab::let_go();
                campaign::say("interrupted; what was judged so far is in the report");
                ExitCode::from(130)
            }
        }
    })
}

async fn run(orders: &Orders, isolation: &Isolation) -> ExitCode {
    if orders.kinds.iter().all(|kind| isolation.has(kind.needs).is_err()) {
        return wrong("this machine can do none of these faults");
    }
    match campaign::campaign(orders, isolation).await {
        Ok(totals) => {
            campaign::tell(&totals.to_string());
            passed(totals.passed())
        }
        Err(error) => wrong(&format!("the report cannot be written: {error}")),
    }
}

async fn faults(trial: &Trial, isolation: &Isolation) -> ExitCode {
    let tried = campaign::try_faults(trial, isolation).await;
    campaign::tell(&tried.to_string());
    passed(tried.passed())
}

async fn mutants(
    orders: &Orders,
    isolation: &Isolation,
    only: &[String],
    limit: Duration,
) -> ExitCode {
    let hunts = campaign::hunt(orders, isolation, only, limit).await;
    let caught = hunts.iter().filter(|hunt| hunt.caught_by.is_some()).count();
    campaign::tell(&format!("mutants {}, caught {caught}", hunts.len()));
    passed(caught == hunts.len() && caught > 0)
}

impl RunArgs {
    fn orders(&self) -> Result<Orders, String> {
        let all: Vec<String> = workload::NAMES.iter().map(|name| (*name).to_owned()).collect();
        let unknown = self.workloads.iter().find(|name| !all.contains(name));
        if let Some(name) = unknown {
            return Err(format!("no workload `{name}`; there are {}", all.join(", ")));
        }
        let workloads = if self.workloads.is_empty() { all } else { self.workloads.clone() };
        let kinds = nemesis::named(&self.faults)?;
        let time = Duration::from_secs(self.minutes * 60);
        let (nodes, histories, knobs) = (self.nodes, self.histories, self.knobs);
        Ok(Orders { workloads, kinds, nodes, histories, knobs, ..self.common.orders(time) })
    }
}

impl FaultsArgs {
    fn trial(self) -> Result<Trial, String> {
        let FaultsArgs { only, nodes, times, together, hold, seed, scratch } = self;
        let (kinds, hold) = (nemesis::named(&only)?, Duration::from_millis(hold));
        Ok(Trial { kinds, nodes, times, together, hold, seed, scratch })
    }
}

impl Common {
    fn orders(&self, time: Duration) -> Orders {
        Orders {
            time,
            histories: None,
            history: Duration::from_secs(self.seconds),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000)),
            kinds: Vec::new(),
            workloads: Vec::new(),
            nodes: None,
            knobs: Knobs::Tiny,
            rate: self.rate,
            reports: self.reports.clone(),
            scratch: self.scratch.clone(),
        }
    }
}
