//! One history: a cluster's whole life.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::schedule::{Round, Schedule};
use super::{Knobs, members, mutants};
use crate::check;
use crate::cluster::Cluster;
use crate::history::{Dump, FaultRecord, Finding, Run, Verdict};
use crate::lab::{Isolation, Lab, Place};
use crate::launch::Launch;
use crate::nemesis::{self, Arena, Fault, Kind};
use crate::process;
use crate::wait;
use crate::workload::{self, Crowd};

/// How long a cluster may take to start.
const START: Duration = Duration::from_secs(40);
/// How long nothing happens at first.
const FIRST: Duration = Duration::from_secs(2);
/// How long installing one fault may take: others may be in its way.
const INSTALL: Duration = Duration::from_secs(30);
/// How long undoing one may take.
const UNDO: Duration = Duration::from_secs(40);
/// How long a cluster may take to heal once every fault is undone. It counts as a trouble beyond.
const HEAL: Duration = Duration::from_secs(60);
/// Between two looks at whether a node has ended meanwhile.
const STEP: Duration = Duration::from_secs(5);
/// Operations of one history: what checkers hold in memory.
const OPERATIONS_MAX: usize = 500_000;
/// How long reading the nodes at the end may take.
const READ: Duration = Duration::from_secs(60);

/// What a history is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What schedule and clients are drawn from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: u64,
    /// How long it is under load.
    pub time: Duration,
    /// Its workloads.
    pub workloads: Vec<String>,
    /// Clients of each.
    pub clients: usize,
    /// Calls per second, over all clients.
    pub rate: f64,
    /// Kinds of faults to draw from.
    pub kinds: Vec<&'static Kind>,
    /// What its flags were drawn from.
    pub knobs: Knobs,
    /// Flags of every node.
    pub flags: Vec<String>,
    /// A planted bug, by its name.
    pub mutant: Option<String>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { name, nodes, workloads, .. } = self;
        write!(f, "{name}: {nodes} nodes, {}", workloads.join(" "))
    }
}

/// A history while it runs.
struct Stage {
    arena: Arena,
    crowd: Crowd,
    began: Instant,
    faults: Vec<FaultRecord>,
}

/// Runs a history and judges it.
pub async fn run(plan: &Plan, isolation: &Isolation, scratch: &Path) -> Run {
    let dir = scratch.join(&plan.name);
    let _ = std::fs::remove_dir_all(&dir);
    let mut run = blank(plan, isolation);
    let began = Instant::now();
    match Stage::set_up(plan, isolation, &dir).await {
        Ok(mut stage) => {
            stage.play(plan).await;
            finish(stage, &mut run).await;
        }
        Err(trouble) => run.troubles.push(format!("the cluster did not start: {trouble}")),
    }
    run.took = micros(began.elapsed());
    run.verdicts = check::judge(&run.operations, &run.dumps, &run.faults);
    run.verdicts.extend(coverage(plan, &run));
    run.verdicts.extend(lost_buckets(plan, &run));
    if is_clean(&run) {
        let _ = std::fs::remove_dir_all(&dir);
    }
    run
}

fn blank(plan: &Plan, isolation: &Isolation) -> Run {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Run {
        name: plan.name.clone(),
        seed: plan.seed,
        build: build().to_owned(),
        knobs: plan.flags.chunks(2).map(|flag| flag.join(" ")).collect(),
        nodes: plan.nodes,
        isolation: isolation.to_string(),
        started,
        took: 0,
        operations: Vec::new(),
        faults: Vec::new(),
        dumps: Vec::new(),
        verdicts: Vec::new(),
        troubles: Vec::new(),
        replay: replay(plan),
    }
}

/// The command that does it again, as far as a schedule can.
fn replay(plan: &Plan) -> String {
    let names: Vec<&str> = plan.kinds.iter().map(|kind| kind.name).collect();
    let all = names.len() == nemesis::kinds().len();
    let faults = if all { String::new() } else { format!(" FAULTS={}", names.join(",")) };
    let knobs = if plan.knobs == Knobs::Bench { " KNOBS=bench" } else { "" };
    format!(
        "make jepsen SEED={} HISTORIES=1 NODES={} SECONDS={} WORKLOADS={}{faults}{knobs}",
        plan.seed,
        plan.nodes,
        plan.time.as_secs(),
        plan.workloads.join(","),
    )
}

/// The binary under test: what it says of itself, and a digest of the file.
fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let version = process::command().arg("--version").output();
        let version = version.map(|output| output.stdout).unwrap_or_default();
        let sum = std::process::Command::new("sha256sum").arg(process::binary()).output();
        let sum = sum.map(|output| output.stdout).unwrap_or_default();
        let sum: String = String::from_utf8_lossy(&sum).chars().take(16).collect();
        format!("{}, sha256 {sum}…", String::from_utf8_lossy(&version).trim())
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A workload of which nothing was judged was not tested.
fn coverage(plan: &Plan, run: &Run) -> Vec<Verdict> {
    let judged = |name: &String| {
        run.verdicts.iter().any(|verdict| verdict.workload == *name && verdict.checked > 0)
    };
    let missing = plan.workloads.iter().filter(|name| !judged(name));
    missing
        .map(|name| Verdict {
            checker: "coverage".to_owned(),
            workload: name.clone(),
            checked: 0,
            finding: Finding::Unknown { why: "no operation was judged".to_owned() },
        })
        .collect()
}

/// Workloads whose bucket, which was acknowledged before the first operation, a node does not have.
fn lost_buckets(plan: &Plan, run: &Run) -> Vec<Verdict> {
    let lost = run.dumps.iter().flat_map(|dump| {
        let has = |name: &String| dump.buckets.iter().any(|(bucket, _)| bucket == name);
        plan.workloads.iter().filter(move |name| !has(name)).map(|name| (dump.node, name))
    });
    lost.map(|(node, name)| Verdict {
        checker: "durability".to_owned(),
        workload: name.clone(),
        checked: 1,
        finding: Finding::Violated {
            what: format!("node {node} has lost the bucket `{name}`"),
            operations: Vec::new(),
        },
    })
    .collect()
}

fn is_clean(run: &Run) -> bool {
    let holds = |verdict: &Verdict| verdict.finding == Finding::Holds;
    run.troubles.is_empty() && run.verdicts.iter().all(holds)
}

impl Stage {
    async fn set_up(plan: &Plan, isolation: &Isolation, dir: &Path) -> Result<Self, String> {
        let mut lab = Lab::new(isolation.clone(), dir)?;
        let places: Result<Vec<Place>, String> = (1..=plan.nodes)
            .map(|id| {
                let mut place = lab.place(id)?;
                plan.mutant.iter().for_each(|name| mutants::infect(&mut place, name));
                Ok(place)
            })
            .collect();
        let launch = Launch { nodes: plan.nodes, flags: plan.flags.clone() };
        let mut cluster = Cluster::launch_at(&launch, PathBuf::from(dir), places?);
        cluster.try_ready(START).await?;
        let first = cluster.leader().await;
        for name in &plan.workloads {
            workload::setup(&cluster, name, first).await?;
        }
        let began = Instant::now();
        let clients = workload::Plan {
            workloads: plan.workloads.clone(),
            clients: plan.clients,
            rate: plan.rate,
            seed: plan.seed,
            ops_max: OPERATIONS_MAX,
        };
        let crowd = Crowd::start(&clients, nodes(&cluster), began);
        let rng = fastrand::Rng::with_seed(plan.seed ^ 0xfa17);
        let arena = Arena { cluster, lab, rng, last_id: plan.nodes, troubles: Vec::new() };
        Ok(Stage { arena, crowd, began, faults: Vec::new() })
    }

    /// Goes through the schedule until the time is over.
    async fn play(&mut self, plan: &Plan) {
        let able = |kind: &&'static Kind| self.arena.lab.has(kind.needs).is_ok();
        let kinds: Vec<&'static Kind> = plan.kinds.iter().copied().filter(able).collect();
        let mut schedule = Schedule::new(plan.seed, &kinds);
        // Faults shall meet clients at work.
        tokio::time::sleep(FIRST).await;
        while self.began.elapsed() < plan.time {
            match schedule.next() {
                Round::Quiet(time) => tokio::time::sleep(time).await,
                Round::Faults(kinds, time) => self.round(&kinds, time).await,
            }
        }
    }

    /// One round: all there, then all gone, then no node may be missing.
    async fn round(&mut self, kinds: &[&'static Kind], hold: Duration) {
        let mut there: Vec<(usize, Box<dyn Fault>)> = Vec::new();
        let mut kinds = kinds.to_vec();
        // The last is undone first.
        kinds.sort_by_key(|kind| !nemesis::needs_quorum(kind));
        for kind in &kinds {
            if let Some(fault) = (kind.draw)(&mut self.arena) {
                there.push(self.install(kind, fault).await);
            }
        }
        tokio::time::sleep(hold).await;
        for (record, fault) in there.iter_mut().rev() {
            self.undo(*record, fault.as_mut()).await;
        }
        restart_missing(&mut self.arena);
        if kinds.iter().any(|kind| nemesis::needs_quorum(kind)) {
            members::reconcile(&mut self.arena).await;
        }
        self.crowd.set_nodes(nodes(&self.arena.cluster));
        if kinds.iter().any(|kind| kind.alone) {
            // The next may damage another node: this one must be whole again first.
            if let Err(why) = try_heal(&mut self.arena.cluster).await {
                self.arena.troubles.push(format!("not healed after a fault alone: {why}"));
            }
        }
    }

    async fn install(&mut self, kind: &Kind, mut fault: Box<dyn Fault>) -> (usize, Box<dyn Fault>) {
        let began = micros(self.began.elapsed());
        let installed = tokio::time::timeout(INSTALL, fault.install(&mut self.arena)).await;
        let confirmed = installed.unwrap_or_else(|_| Err(format!("not there after {INSTALL:?}")));
        self.faults.push(FaultRecord {
            kind: kind.name.to_owned(),
            what: fault.to_string(),
            began,
            ended: began,
            confirmed,
            undo_failed: None,
        });
        self.crowd.set_nodes(nodes(&self.arena.cluster));
        (self.faults.len() - 1, fault)
    }

    async fn undo(&mut self, record: usize, fault: &mut dyn Fault) {
        let undone = tokio::time::timeout(UNDO, fault.undo(&mut self.arena)).await;
        let undone = undone.unwrap_or_else(|_| Err(format!("not gone after {UNDO:?}")));
        if let Some(record) = self.faults.get_mut(record) {
            record.ended = micros(self.began.elapsed());
            record.undo_failed = undone.err();
        }
    }
}

/// Every fault restarts what it stopped: a node that does not run now has ended by itself.
fn restart_missing(Arena { cluster, troubles, .. }: &mut Arena) {
    let running = cluster.running();
    for id in cluster.ids() {
        if !running.contains(&id) {
            troubles.push(format!("node {id} had ended by itself:\n{}", cluster.log_tail(id)));
            cluster.restart(id);
        }
    }
}

/// Heals, stops the clients, reads every node, and fills the record.
async fn finish(stage: Stage, run: &mut Run) {
    let Stage { mut arena, crowd, faults, .. } = stage;
    restart_missing(&mut arena);
    members::reconcile(&mut arena).await;
    if let Err(why) = try_heal(&mut arena.cluster).await {
        arena.troubles.push(format!("the cluster did not heal: {why}"));
        bury(&mut arena);
    }
    run.operations = crowd.stop().await;
    run.faults = faults;
    run.troubles = workload::unexpected(&run.operations);
    // It waits until nothing is applied any more, too: dumps rely on that.
    if let Err(why) = workload::resolve(&mut run.operations, &arena.cluster).await {
        arena.troubles.push(format!("unknown outcomes were not looked up: {why}"));
    }
    match dumps(&arena.cluster).await {
        Ok(dumps) => run.dumps = dumps,
        Err(why) => arena.troubles.push(format!("the nodes were not read: {why}")),
    }
    arena.troubles.extend(panics(&arena.cluster));
    let Arena { cluster, mut lab, mut troubles, .. } = arena;
    run.troubles.append(&mut troubles);
    drop(cluster);
    if let Err(why) = lab.down() {
        run.troubles.push(format!("the lab was not taken down: {why}"));
    }
}

/// Waits until all nodes are ready; not for a node that has ended, which will not be.
async fn try_heal(cluster: &mut Cluster) -> Result<(), String> {
    let deadline = Instant::now() + HEAL;
    loop {
        match cluster.try_ready(STEP).await {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= deadline => return Err(why),
            Err(why) if cluster.running().len() < cluster.ids().len() => return Err(why),
            Err(_) => {}
        }
    }
}

/// Goes on without nodes that do not run, although they were started: the others can still be read.
fn bury(Arena { cluster, troubles, .. }: &mut Arena) {
    let running = cluster.running();
    for id in cluster.ids().into_iter().filter(|id| !running.contains(id)) {
        troubles.push(format!("node {id} does not start:\n{}", cluster.log_tail(id)));
        troubles.extend(panics_of(cluster, id));
        cluster.destroy(id);
    }
}

/// What every node holds, read from itself, all at one applied index.
async fn dumps(cluster: &Cluster) -> Result<Vec<Dump>, String> {
    wait::try_until(READ, async || {
        let mut dumps: Vec<Dump> = Vec::new();
        for id in cluster.ids() {
            dumps.push(workload::dump(cluster, id).await?);
        }
        let first = dumps.first().map(|dump| dump.applied_index);
        let met = dumps.iter().all(|dump| Some(dump.applied_index) == first);
        wait::holds(met, || "the nodes do not stand at one applied index".to_owned())?;
        Ok(dumps)
    })
    .await
}

/// Panics that the nodes' logs tell of.
fn panics(cluster: &Cluster) -> Vec<String> {
    cluster.ids().into_iter().flat_map(|id| panics_of(cluster, id)).collect()
}

fn panics_of(cluster: &Cluster, id: u64) -> Vec<String> {
    let log = std::fs::read(cluster.log(id)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines = log.lines().filter(|line| line.contains("panicked at"));
    lines.take(3).map(|line| format!("node {id} panicked: {line}")).collect()
}

fn nodes(cluster: &Cluster) -> Vec<(u64, String)> {
    cluster.ids().into_iter().map(|id| (id, cluster.url(id).to_owned())).collect()
}
