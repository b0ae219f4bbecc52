//! Tries every kind of fault on a real cluster under load: is it there, does it go away, does the cluster
//! heal, and was nothing lost.
//!
//! This tests the faults, one at a time; what the store makes of them in every combination is the
//! campaign's business.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use cluster_tests::cluster::Cluster;
use cluster_tests::lab::{self, Isolation, Lab};
use cluster_tests::launch::Launch;
use cluster_tests::load::{Account, Load, Request};
use cluster_tests::nemesis::{Arena, Fault, Kind, kinds};
use cluster_tests::scenario::Scenario;

/// The bucket of the load.
const BUCKET: &str = "nemeses";
/// Clients of the load: enough to have every node write, few enough to leave it the cores.
const CLIENTS: usize = 6;
/// How long a cluster may take to heal.
const HEALS: Duration = Duration::from_secs(60);
/// Calls that must be acknowledged after it did.
const CALLS_AFTER: u64 = 20;
/// How long they may take.
const SERVES: Duration = Duration::from_secs(20);

/// Does each kind of fault to a cluster under load, one at a time: draws it, installs it, shows what
/// confirms it, undoes it, and waits until the cluster is healthy. Exits with 0 where all of it went well.
/// Needs root for most kinds. Names the directory with the nodes' logs when something failed.
#[derive(Parser)]
struct Args {
    /// Kinds to try; all where none is named
    kinds: Vec<String>,
    /// Only list the kinds
    #[arg(long)]
    list: bool,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// How often each kind is tried
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Milliseconds that a fault stays
    #[arg(long, default_value_t = 2000)]
    hold: u64,
    /// What choices are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen = match choose(&args.kinds) {
        Ok(chosen) => chosen,
        Err(why) => {
            say(&why);
            return ExitCode::from(2);
        }
    };
    if args.list {
        chosen.iter().for_each(|kind| say(&format!("{:24} {}", kind.name, kind.about)));
        return ExitCode::SUCCESS;
    }
    let isolation = match lab::enter() {
        Ok(isolation) => isolation,
        // It ran inside, and this is how it ended.
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    runtime.block_on(try_all(&args, &chosen, isolation));
    ExitCode::SUCCESS
}

fn say(line: &str) {
    // Whoever reads it has gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn choose(names: &[String]) -> Result<Vec<&'static Kind>, String> {
    let all = kinds();
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.iter().find(|kind| kind.name == name);
        found.copied().ok_or_else(|| format!("no kind of fault is called `{name}`: see --list"))
    };
    names.iter().map(find).collect()
}

/// # Panics
/// When a kind failed.
async fn try_all(args: &Args, chosen: &[&'static Kind], isolation: Isolation) {
    let scenario = Scenario::begin("nemeses");
    scenario.say(&format!("{} nodes, {isolation}, seed {}", args.nodes, args.seed));
    let mut arena = arena(args, isolation, &scenario).await;
    let (mut passed, mut failed) = (0, Vec::new());
    let rounds = chosen.iter().flat_map(|kind| std::iter::repeat_n(*kind, args.times));
    for (round, kind) in rounds.enumerate() {
        if let Err(lacks) = arena.lab.has(kind.needs) {
            scenario.say(&format!("{}: skipped, {lacks}", kind.name));
            continue;
        }
        let done = try_one(kind, round, Duration::from_millis(args.hold), &mut arena, &scenario);
        match done.await {
            Ok(()) => passed += 1,
            Err(why) => {
                scenario.say(&format!("   FAILED: {why}"));
                failed.push(format!("{}: {why}", kind.name));
                // The next one must not fail because of this one.
                if let Err(why) = arena.cluster.try_ready(HEALS).await {
                    failed.push(format!("the cluster does not heal: {why}"));
                    break;
                }
            }
        }
    }
    failed.append(&mut arena.troubles);
    assert!(failed.is_empty(), "{passed} passed, {} failed:\n{}", failed.len(), failed.join("\n"));
    arena.cluster.agree().await;
    scenario.say(&format!("{passed} passed; all nodes agree"));
    let Arena { cluster, mut lab, .. } = arena;
    drop(cluster);
    lab.down().unwrap_or_else(|why| panic!("taking the lab down: {why}"));
}

async fn arena(args: &Args, isolation: Isolation, scenario: &Scenario) -> Arena {
    let mut lab = Lab::new(isolation, &scenario.dir().join("lab"))
        .unwrap_or_else(|why| panic!("the lab: {why}"));
    let places = (1..=args.nodes).map(|id| lab.place(id)).collect::<Result<Vec<_>, String>>();
    let places = places.unwrap_or_else(|why| panic!("a place for a node: {why}"));
    let launch = Launch::of(args.nodes).snapshot_entries(2000).keep_entries(500);
    let mut cluster = Cluster::launch_at(&launch, scenario.dir().join("cluster"), places);
    cluster.ready().await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, BUCKET, "").await;
    let rng = fastrand::Rng::with_seed(args.seed);
    Arena { cluster, lab, rng, last_id: args.nodes, troubles: Vec::new() }
}

async fn try_one(
    kind: &Kind,
    round: usize,
    hold: Duration,
    arena: &mut Arena,
    scenario: &Scenario,
) -> Result<(), String> {
    scenario.phase(kind.name);
    let key = format!("round-{round}");
    let load = increments(&arena.cluster, &key);
    let mut fault = (kind.draw)(arena).ok_or("nothing to do it to")?;
    let installed = there_and_back(fault.as_mut(), hold, arena, scenario).await;
    let healing = Instant::now();
    arena.cluster.try_ready(HEALS).await.map_err(|why| format!("does not heal: {why}"))?;
    scenario.figure("healthy after, s", format!("{:.1}", healing.elapsed().as_secs_f64()));
    load.more_acked(CALLS_AFTER, SERVES).await;
    let account = load.stop().await;
    let value = arena.cluster.http.get(arena.cluster.at(1, &format!("/{BUCKET}/{key}")));
    let value = value.send().await.map_err(|failure| failure.reason)?.text();
    let value = value.parse().map_err(|_| format!("the counter is {value:?}"))?;
    scenario.figure("increments", summary(&account, value));
    exact(&account, value)?;
    installed
}

/// Installs a fault, leaves it for a while, and undoes it, twice.
async fn there_and_back(
    fault: &mut dyn Fault,
    hold: Duration,
    arena: &mut Arena,
    scenario: &Scenario,
) -> Result<(), String> {
    let started = Instant::now();
    scenario.figure("drawn", &*fault);
    let installed = fault.install(arena).await;
    let took = started.elapsed().as_secs_f64();
    match &installed {
        Ok(evidence) => scenario.figure("there", format!("{fault}: {evidence} ({took:.1} s)")),
        Err(why) => scenario.figure("NOT there", format!("{fault}: {why} ({took:.1} s)")),
    }
    if installed.is_ok() {
        tokio::time::sleep(hold).await;
    }
    let started = Instant::now();
    let undone = fault.undo(arena).await;
    scenario.figure("undone in, s", format!("{:.1}", started.elapsed().as_secs_f64()));
    let again = fault.undo(arena).await;
    installed?;
    undone.map_err(|why| format!("undoing it: {why}"))?;
    again.map_err(|why| format!("undoing it again: {why}"))
}

fn increments(cluster: &Cluster, key: &str) -> Load {
    let path = format!("/{BUCKET}/{key}");
    Load::start(cluster.urls(&cluster.ids()), CLIENTS, i64::MAX, move |_| Request {
        method: "PATCH",
        path: path.clone(),
        body: "+1".to_owned(),
    })
}

fn summary(account: &Account, value: u64) -> String {
    let (acked, unknown) = (account.acked.len(), account.unknown.len());
    format!("{acked} acknowledged, {unknown} unknown, {} refused; {value}", account.refused)
}

/// No acknowledged increment is lost, none is done twice, none answered twice.
fn exact(account: &Account, value: u64) -> Result<(), String> {
    let acked = account.acked.len() as u64;
    let most = acked + account.unknown.len() as u64;
    let mut values = account.values();
    values.dedup();
    if (acked..=most).contains(&value) && values.len() as u64 == acked {
        return Ok(());
    }
    Err(format!("LOST or twice: {}; {} answers differ", summary(account, value), values.len()))
}
