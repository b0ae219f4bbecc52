//! Without faults, every answer of every workload is the model's: the scripts do what the model says.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::time::{Duration, Instant};

use cluster_tests::check;
use cluster_tests::cluster::Cluster;
use cluster_tests::history::{Answer, Dump, Finding, Operation, Outcome, Resolution};
use cluster_tests::launch::Launch;
use cluster_tests::model::Bucket;
use cluster_tests::scenario::Scenario;
use cluster_tests::workload::{self, Crowd, NAMES, Plan, leaves_row};

/// Operations of a run: some seconds at the rate.
const OPERATIONS: usize = 4000;
const RATE: f64 = 800.0;
/// How long it may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn plan() -> Plan {
    let workloads = NAMES.iter().map(|name| (*name).to_owned()).collect();
    Plan { workloads, clients: 3, rate: RATE, seed: 11, ops_max: OPERATIONS }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_the_models() {
    let scenario = Scenario::begin("workloads");
    scenario.phase("start one node");
    let cluster = Launch::of(1).flag("--script-time-ms", 200).start(&scenario).await;
    let operations = run(&scenario, cluster, &plan()).await;
    assert_eq!(operations.len(), OPERATIONS, "as many as were asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_the_models_on_every_node() {
    let scenario = Scenario::begin("workloads-of-three");
    scenario.phase("start three nodes");
    let cluster = Launch::of(3).flag("--script-time-ms", 200).start(&scenario).await;
    let operations = run(&scenario, cluster, &plan()).await;
    for node in 1..=3 {
        assert!(operations.iter().any(|operation| operation.node == node), "nobody asked {node}");
    }
}

/// Lets the clients work without faults, and holds each answer against the model.
async fn run(scenario: &Scenario, cluster: Cluster, plan: &Plan) -> Vec<Operation> {
    for name in NAMES {
        workload::setup(&cluster, name, 1).await.unwrap();
    }
    // A stale read goes to a node that may not have heard of its bucket yet.
    cluster.agree().await;
    scenario.phase("all workloads at once");
    let nodes = cluster.ids().into_iter().map(|id| (id, cluster.url(id).to_owned())).collect();
    let crowd = Crowd::start(plan, nodes, Instant::now());
    let operations = tokio::time::timeout(LIMIT, crowd.finish()).await.unwrap();
    let troubles = workload::unexpected(&operations);
    assert!(troubles.is_empty(), "{troubles:#?}");
    let undone = operations.iter().find(|o| !matches!(o.outcome, Outcome::Done { .. }));
    assert!(undone.is_none(), "without a fault: {undone:#?}");

    scenario.phase("every answer is the model's");
    // Until nothing is written any more, and what was to die has died.
    workload::resolve(&mut [], &cluster).await.unwrap();
    let mut dumps = Vec::new();
    for id in cluster.ids() {
        dumps.push(workload::dump(&cluster, id).await.unwrap());
    }
    let verdicts = check::judge(&operations, &dumps, &[]);
    let other: Vec<_> = verdicts.iter().filter(|v| v.finding != Finding::Holds).collect();
    assert!(other.is_empty(), "{other:#?}");
    // The model knows no time: of keys that die only the checkers can tell.
    for name in NAMES.iter().filter(|name| **name != "expiry") {
        let checked = replay(name, &operations, &dumps);
        scenario.figure(&format!("answers of `{name}`"), checked);
        assert!(checked > OPERATIONS / NAMES.len() / 2, "`{name}`: only {checked}");
    }

    scenario.phase("rows tell what became of a call");
    let mut forgotten = operations.clone();
    for operation in &mut forgotten {
        let (reason, resolution) = ("forgotten".to_owned(), Resolution::None);
        operation.outcome = Outcome::Unknown { reason, resolution };
    }
    let resolved = workload::resolve(&mut forgotten, &cluster).await.unwrap();
    scenario.figure("calls whose row was looked for", resolved);
    for (operation, forgotten) in operations.iter().zip(&forgotten) {
        check_resolution(operation, &forgotten.outcome);
    }
    operations
}

/// Replays a workload in the order of revisions, and compares answers and what every node holds in the
/// end. Returns how many answers it compared.
fn replay(name: &str, operations: &[Operation], dumps: &[Dump]) -> usize {
    let own = operations.iter().filter(|operation| operation.workload == name);
    let mut steps: Vec<(u64, bool, &Operation, &Answer)> = own
        .filter_map(|operation| match &operation.outcome {
            // Where the state denies, an answer of the server's own does not say at which revision.
            Outcome::Done { answer, revision: Some(revision) } => {
                Some((*revision, !wrote(operation, answer), operation, answer))
            }
            _ => None,
        })
        .collect();
    steps.sort_by_key(|(revision, reads, operation, _)| (*revision, *reads, operation.id));
    let mut bucket = Bucket::of(name);
    for (revision, _, operation, answer) in &steps {
        let expected = bucket.step(&operation.action, *revision);
        let same = match expected.shown() {
            // The model does not know how old a state is that a node has.
            Some(shown) => answer.shown() == Some(shown),
            None => **answer == expected,
        };
        assert!(
            same,
            "{answer:?} is not {expected:?}, at revision {revision} of `{name}`: {operation:#?}"
        );
    }
    for dump in dumps {
        let (_, rows) = dump.buckets.iter().find(|(bucket, _)| bucket == name).unwrap();
        let rows: Vec<_> = rows.iter().filter(|(key, _)| !key.starts_with("op/")).collect();
        let expected = bucket.rows("");
        assert_eq!(rows, expected.iter().collect::<Vec<_>>(), "`{name}` on node {}", dump.node);
    }
    steps.len()
}

/// Whether an operation made its revision, and did not just read at it.
fn wrote(operation: &Operation, answer: &Answer) -> bool {
    operation.writes() && !matches!(answer, Answer::Denied | Answer::Failed)
}

/// What the rows told of an operation whose outcome was forgotten, against what it was.
fn check_resolution(operation: &Operation, outcome: &Outcome) {
    let Outcome::Done { answer, revision } = &operation.outcome else { panic!("{operation:?}") };
    let Outcome::Unknown { resolution, .. } = outcome else { panic!("{outcome:?}") };
    let expected = match (leaves_row(&operation.action, operation.id), wrote(operation, answer)) {
        (false, _) => Resolution::None,
        (true, false) => Resolution::NotApplied,
        (true, true) => Resolution::Applied(revision.unwrap()),
    };
    assert_eq!(*resolution, expected, "{operation:#?}");
}
