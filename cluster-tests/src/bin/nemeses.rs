//! Tries every kind of fault on a real cluster under load: is it there, does it go away, does the cluster
//! heal, and was nothing lost.
//!
//! This tests the faults, one at a time or a few together; what the store makes of them over hours is the
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

/// Does each kind of fault to a cluster under load: draws it, installs it, shows what confirms it, undoes
/// it, and waits until the cluster is healthy. Exits with 0 where all of it went well. Needs root for most
/// kinds. Names the directory with the nodes' logs when something failed.
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
    /// How often each kind is tried; with --together, how many rounds
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Faults at once, drawn from the kinds; one that another is in the way of does not fail the round
    #[arg(long, default_value_t = 1)]
    together: usize,
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
    for (number, kinds) in rounds(args, chosen, &arena).into_iter().enumerate() {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        scenario.phase(&names.join(", "));
        let hold = Duration::from_millis(args.hold);
        match try_round(&kinds, number, hold, &mut arena, &scenario).await {
            Ok(()) => passed += 1,
            Err(why) => {
                scenario.say(&format!("   FAILED: {why}"));
                failed.push(format!("{}: {why}", names.join(", ")));
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

/// The kinds of each round; those that the machine cannot do are left out.
fn rounds(args: &Args, chosen: &[&'static Kind], arena: &Arena) -> Vec<Vec<&'static Kind>> {
    let able = |kind: &&Kind| match arena.lab.has(kind.needs) {
        Ok(()) => true,
        Err(lacks) => {
            say(&format!("{} is skipped: {lacks}", kind.name));
            false
        }
    };
    let able: Vec<&'static Kind> = chosen.iter().copied().filter(able).collect();
    if args.together == 1 {
        return able.iter().flat_map(|kind| std::iter::repeat_n(vec![*kind], args.times)).collect();
    }
    // Drawn apart from the faults: the same seed has the same rounds, whatever is drawn in them.
    let mut rng = fastrand::Rng::with_seed(args.seed);
    let beside: Vec<_> = able.into_iter().filter(|kind| !kind.alone).collect();
    (0..args.times).map(|_| rng.choose_multiple(beside.iter().copied(), args.together)).collect()
}

/// One round: faults come one after the other, stay together for a while, and go in any order.
async fn try_round(
    kinds: &[&Kind],
    number: usize,
    hold: Duration,
    arena: &mut Arena,
    scenario: &Scenario,
) -> Result<(), String> {
    let key = format!("round-{number}");
    let load = increments(&arena.cluster, &key);
    let (mut faults, mut problems) = (Vec::new(), Vec::new());
    for kind in kinds {
        match (kind.draw)(arena) {
            None if kinds.len() == 1 => problems.push("nothing to do it to".to_owned()),
            None => scenario.figure(kind.name, "nothing to do it to now"),
            Some(mut fault) => {
                let installed = install(fault.as_mut(), arena, scenario).await;
                // Of several, one may be in the way of another.
                problems.extend(installed.err().filter(|_| kinds.len() == 1));
                faults.push(fault);
            }
        }
    }
    tokio::time::sleep(hold).await;
    arena.rng.shuffle(&mut faults);
    for mut fault in faults {
        problems.extend(undo(fault.as_mut(), arena, scenario).await.err());
    }
    let healing = Instant::now();
    arena.cluster.try_ready(HEALS).await.map_err(|why| format!("does not heal: {why}"))?;
    scenario.figure("healthy after, s", format!("{:.1}", healing.elapsed().as_secs_f64()));
    problems.extend(judge(load, &key, arena, scenario).await.err());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

async fn install(
    fault: &mut dyn Fault,
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
    installed.map(drop)
}

/// Undoes a fault, twice.
async fn undo(fault: &mut dyn Fault, arena: &mut Arena, scenario: &Scenario) -> Result<(), String> {
    let started = Instant::now();
    let undone = fault.undo(arena).await;
    let took = started.elapsed().as_secs_f64();
    scenario.figure("undone", format!("{fault} ({took:.1} s)"));
    let again = fault.undo(arena).await;
    undone.map_err(|why| format!("undoing {fault}: {why}"))?;
    again.map_err(|why| format!("undoing {fault} again: {why}"))
}

/// The load goes on, and its counter is exact.
async fn judge(load: Load, key: &str, arena: &Arena, scenario: &Scenario) -> Result<(), String> {
    load.more_acked(CALLS_AFTER, SERVES).await;
    let account = load.stop().await;
    let node = *arena.cluster.ids().first().ok_or("no node is left")?;
    let value = arena.cluster.http.get(arena.cluster.at(node, &format!("/{BUCKET}/{key}")));
    let value = value.send().await.map_err(|failure| failure.reason)?.text();
    let value = value.parse().map_err(|_| format!("the counter is {value:?}"))?;
    scenario.figure("increments", summary(&account, value));
    exact(&account, value)
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
