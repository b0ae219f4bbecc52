//! Trials of the faults themselves: each kind is done to a real cluster under load. Is it there, does it go
//! away, does the cluster heal, and was nothing lost?
//!
//! This tries the faults, one at a time or a few together; what the store makes of them over hours is a
//! campaign's business. The load is a counter, which shows by itself whether an increment was lost or
//! done twice.
//!
//! Invariants:
//! - One cluster lives through all rounds; each begins with it healthy, whatever the one before did.
//! - Every fault is undone twice, and the second time must be as good as the first.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::say;
use crate::cluster::Cluster;
use crate::lab::{Isolation, Lab, Place};
use crate::launch::Launch;
use crate::load::{Account, Load, Request};
use crate::nemesis::{self, Arena, Fault, Kind};
use crate::wait::{self, holds};

/// The bucket of the load.
const BUCKET: &str = "faults";
/// Clients of the load: enough to have every node write, few enough to leave it the cores.
const CLIENTS: usize = 6;
/// How long a cluster may take to start, and to heal.
const HEALS: Duration = Duration::from_secs(60);
/// How long nodes may take to stand at one applied index once nobody writes.
const AGREE: Duration = Duration::from_secs(30);
/// Calls that must be acknowledged after it did.
const CALLS_AFTER: u64 = 20;
/// How long they may take.
const SERVES: Duration = Duration::from_secs(20);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The kinds.
    pub kinds: Vec<&'static Kind>,
    /// Nodes of the cluster.
    pub nodes: u64,
    /// How often each kind is tried; rounds, where there are several faults in each.
    pub times: usize,
    /// Faults at once, drawn from the kinds. One that another is in the way of fails nothing.
    pub together: usize,
    /// How long a fault stays.
    pub hold: Duration,
    /// What choices are drawn from.
    pub seed: u64,
    /// Where the cluster lives while it does; it stays where something failed.
    pub scratch: PathBuf,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Tried {
    /// Rounds that went well.
    pub passed: u64,
    /// What went wrong.
    pub failed: Vec<String>,
    /// Kinds that the machine cannot do.
    pub skipped: u64,
}

impl Tried {
    /// Whether all went well, and there was something to go well.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed.is_empty() && self.passed > 0
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failed.iter().try_for_each(|why| writeln!(f, "FAILED: {why}"))?;
        let Tried { passed, failed, skipped } = self;
        write!(f, "faults passed {passed}, failed {}, skipped {skipped}", failed.len())
    }
}

/// Tries the kinds.
pub async fn try_faults(trial: &Trial, isolation: &Isolation) -> Tried {
    let dir = trial.scratch.join("faults");
    // Of a trial before this one.
    let _ = std::fs::remove_dir_all(&dir);
    let mut tried = Tried::default();
    match set_up(trial, isolation, &dir).await {
        Ok(mut arena) => {
            play(trial, &mut arena, &mut tried).await;
            tried.failed.extend(finish(arena).await);
        }
        Err(why) => tried.failed.push(format!("the cluster did not start: {why}")),
    }
    if tried.failed.is_empty() {
        // All is well; nobody wants to see it.
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        say(&format!("the nodes' logs are in {}", dir.display()));
    }
    tried
}

async fn set_up(trial: &Trial, isolation: &Isolation, dir: &Path) -> Result<Arena, String> {
    let mut lab = Lab::new(isolation.clone(), dir)?;
    let places: Result<Vec<Place>, String> = (1..=trial.nodes).map(|id| lab.place(id)).collect();
    let launch = Launch::of(trial.nodes).snapshot_entries(2000).keep_entries(500);
    let mut cluster = Cluster::launch_at(&launch, dir.to_owned(), places?);
    cluster.try_ready(HEALS).await?;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, BUCKET, "").await;
    let rng = fastrand::Rng::with_seed(trial.seed);
    Ok(Arena { cluster, lab, rng, last_id: trial.nodes, troubles: Vec::new() })
}

/// All rounds, or those until the cluster does not heal.
async fn play(trial: &Trial, arena: &mut Arena, tried: &mut Tried) {
    for (number, kinds) in rounds(trial, arena, tried).into_iter().enumerate() {
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
        let names = names.join(", ");
        say(&format!("== {names}"));
        let Err(why) = round(&kinds, number, trial.hold, arena).await else {
            tried.passed += 1;
            continue;
        };
        say(&format!("   FAILED: {why}"));
        tried.failed.push(format!("{names}: {why}"));
        // The next one must not fail because of this one.
        if let Err(why) = arena.cluster.try_ready(HEALS).await {
            tried.failed.push(format!("the cluster does not heal: {why}"));
            return;
        }
    }
}

/// The kinds of each round; those that the machine cannot do are left out.
fn rounds(trial: &Trial, arena: &Arena, tried: &mut Tried) -> Vec<Vec<&'static Kind>> {
    let mut able = Vec::new();
    for kind in trial.kinds.iter().copied() {
        match arena.lab.has(kind.needs) {
            Ok(()) => able.push(kind),
            Err(lacks) => {
                say(&format!("{} is skipped: {lacks}", kind.name));
                tried.skipped += 1;
            }
        }
    }
    if trial.together <= 1 {
        return able
            .iter()
            .flat_map(|kind| std::iter::repeat_n(vec![*kind], trial.times))
            .collect();
    }
    // Drawn apart from the faults: the same seed has the same rounds, whatever is drawn in them.
    let mut rng = fastrand::Rng::with_seed(trial.seed);
    let beside: Vec<_> = able.into_iter().filter(|kind| !kind.alone).collect();
    (0..trial.times).map(|_| rng.choose_multiple(beside.iter().copied(), trial.together)).collect()
}

/// One round: faults come one after the other, stay together for a while, and go in any order; those
/// whose undoing needs a quorum go last.
async fn round(
    kinds: &[&Kind],
    number: usize,
    hold: Duration,
    arena: &mut Arena,
) -> Result<(), String> {
    let key = format!("round-{number}");
    let load = increments(&arena.cluster, &key);
    let (mut faults, mut problems) = (Vec::new(), Vec::new());
    for kind in kinds {
        match (kind.draw)(arena) {
            None if kinds.len() == 1 => problems.push("nothing to do it to".to_owned()),
            None => figure(kind.name, "nothing to do it to now"),
            Some(mut fault) => {
                let installed = install(fault.as_mut(), arena).await;
                // Of several, one may be in the way of another.
                problems.extend(installed.err().filter(|_| kinds.len() == 1));
                faults.push((nemesis::needs_quorum(kind), fault));
            }
        }
    }
    tokio::time::sleep(hold).await;
    arena.rng.shuffle(&mut faults);
    faults.sort_by_key(|(needs_quorum, _)| *needs_quorum);
    for (_, mut fault) in faults {
        problems.extend(undo(fault.as_mut(), arena).await.err());
    }
    let healing = Instant::now();
    arena.cluster.try_ready(HEALS).await.map_err(|why| format!("does not heal: {why}"))?;
    figure("healthy after", format!("{:.1} s", healing.elapsed().as_secs_f64()));
    problems.extend(judge(load, &key, arena).await.err());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn figure(what: &str, value: impl fmt::Display) {
    say(&format!("   {what}: {value}"));
}

async fn install(fault: &mut dyn Fault, arena: &mut Arena) -> Result<(), String> {
    let started = Instant::now();
    figure("drawn", &*fault);
    let installed = fault.install(arena).await;
    let took = started.elapsed().as_secs_f64();
    match &installed {
        Ok(evidence) => figure("there", format!("{fault}: {evidence} ({took:.1} s)")),
        Err(why) => figure("NOT there", format!("{fault}: {why} ({took:.1} s)")),
    }
    installed.map(drop)
}

/// Undoes a fault, twice.
async fn undo(fault: &mut dyn Fault, arena: &mut Arena) -> Result<(), String> {
    let started = Instant::now();
    let undone = fault.undo(arena).await;
    let took = started.elapsed().as_secs_f64();
    figure("undone", format!("{fault} ({took:.1} s)"));
    let again = fault.undo(arena).await;
    undone.map_err(|why| format!("undoing {fault}: {why}"))?;
    again.map_err(|why| format!("undoing {fault} again: {why}"))
}

/// The load goes on, and its counter is exact.
async fn judge(load: Load, key: &str, arena: &Arena) -> Result<(), String> {
    let goal = load.acked() + CALLS_AFTER;
    wait::try_until(SERVES, async || {
        let acked = load.acked();
        holds(acked >= goal, || format!("{acked} of {goal} calls acknowledged in {SERVES:?}"))
    })
    .await?;
    let account = load.stop().await;
    let node = *arena.cluster.ids().first().ok_or("no node is left")?;
    let value = arena.cluster.http.get(arena.cluster.at(node, &format!("/{BUCKET}/{key}")));
    let value = value.send().await.map_err(|failure| failure.reason)?.text();
    let value = value.parse().map_err(|_| format!("the counter is {value:?}"))?;
    figure("increments", summary(&account, value));
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

/// Waits until all nodes hold the same at the same applied index.
async fn agree(cluster: &Cluster) -> Result<(), String> {
    wait::try_until(AGREE, async || {
        let mut digests = Vec::new();
        for id in cluster.ids() {
            digests.push(cluster.try_digest(id).await?);
        }
        let same = digests.iter().all(|digest| Some(digest) == digests.first());
        holds(same, || format!("{digests:?}"))
    })
    .await
}

/// What nobody planned, up to the end of the lab; and whether all nodes hold the same.
async fn finish(arena: Arena) -> Vec<String> {
    let Arena { mut cluster, mut lab, mut troubles, .. } = arena;
    // Of a cluster that does not heal, it has been said before.
    if cluster.try_ready(Duration::ZERO).await.is_ok() {
        match agree(&cluster).await {
            Ok(()) => say("all nodes agree"),
            Err(why) => troubles.push(format!("the nodes do not agree: {why}")),
        }
    }
    drop(cluster);
    troubles.extend(lab.down().err().map(|why| format!("the lab was not taken down: {why}")));
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(acked: &[u64], unknown: u64) -> Account {
        let acked = (0..).zip(acked).map(|(serial, value)| (serial, value.to_string()));
        Account { acked: acked.collect(), unknown: (0..unknown).collect(), ..Account::default() }
    }

    #[test]
    fn a_lost_increment_and_a_double_one_are_seen() {
        assert_eq!(exact(&account(&[1, 2, 3], 0), 3), Ok(()));
        assert_eq!(exact(&account(&[1, 3], 2), 4), Ok(()));
        assert!(exact(&account(&[1, 2, 3], 2), 2).is_err(), "an acknowledged one is lost");
        assert!(exact(&account(&[1, 2, 3], 1), 5).is_err(), "one was done twice");
        assert!(exact(&account(&[1, 2, 2], 0), 3).is_err(), "two had the same answer");
    }

    #[test]
    fn nothing_tried_is_not_passed() {
        assert!(!Tried::default().passed());
        assert!(Tried { passed: 1, ..Tried::default() }.passed());
        let failed = Tried { passed: 1, failed: vec!["x: y".to_owned()], skipped: 2 };
        assert!(!failed.passed());
        assert_eq!(failed.to_string(), "FAILED: x: y\nfaults passed 1, failed 1, skipped 2");
    }
}
