//! A hot counter: one key, many clients on all nodes, and a script that adds one.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::time::Instant;

use cluster_tests::cluster::Cluster;
use cluster_tests::launch::Launch;
use cluster_tests::load::{Load, Request};
use cluster_tests::scenario::Scenario;

const SCRIPT: &str = r#"
local err = kvdb.incr(kvdb.var.counter, 1)
if err then
  kvdb.abort(400, err)
end
local value = kvdb.get(kvdb.var.counter)
kvdb.print(value)
"#;

const CLIENTS: usize = 64;
const INCREMENTS: i64 = 20_000;
const SEQUENTIAL: i64 = 300;
/// Increments that one commit must hold: without running ahead it would be one, whatever the machine.
const PER_COMMIT: f64 = 20.0;
/// How many times faster than a lone client it must be, however busy the machine is. Two cores, which three
/// nodes and the clients share, give about 15 where a commit takes 1 ms, and more where it takes longer.
const SPEEDUP: f64 = 6.0;

fn increment(key: &'static str) -> impl Fn(u64) -> Request + Send + Sync + 'static {
    move |_| Request {
        method: "POST",
        path: format!("/counter/scripts/add?counter={key}"),
        body: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_counter_is_exact_and_faster_than_one_commit_each() {
    let scenario = Scenario::begin("counter");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "counter", "").await;
    cluster.put_script(leader, "counter", "add", SCRIPT).await;
    let term = cluster.status(leader).await.term;

    scenario.phase("a lone client on the leader: one increment per commit");
    let sequential = sequential_rate(&cluster, leader).await;
    scenario.figure("increments per second of a lone client", format!("{sequential:.0}"));

    scenario.phase("64 clients on all nodes, 20,000 increments of one key");
    let before = commits(&cluster, leader).await;
    let load = Load::start(cluster.urls(&cluster.ids()), CLIENTS, INCREMENTS, increment("hot"));
    let account = load.finish().await;
    let commits = commits(&cluster, leader).await - before;
    let per_commit = INCREMENTS as f64 / commits as f64;
    scenario.figure("increments per second", format!("{:.0}", account.throughput()));
    let speedup = account.throughput() / sequential;
    scenario.figure("increments per commit", format!("{per_commit:.1}"));
    scenario.figure("times a lone client", format!("{speedup:.1}"));
    scenario.figure("refused and sent again", account.refused);

    scenario.phase("exact, and every answer distinct");
    assert!(account.unknown.is_empty(), "unknown outcomes: {:?}", account.reasons);
    let expected: Vec<u64> = (1..=u64::try_from(INCREMENTS).unwrap()).collect();
    assert!(account.values() == expected, "the answers are not 1 to {INCREMENTS}, each once");
    for id in cluster.ids() {
        let value = cluster.http.get(cluster.at(id, "/counter/hot")).expect(200).await.text();
        assert_eq!(value, INCREMENTS.to_string(), "read on node {id}");
    }
    cluster.agree().await;
    let now = cluster.status(leader).await;
    assert_eq!((now.term, now.leader), (term, Some(leader)), "the load cost an election");

    scenario.phase("faster than one increment per commit");
    assert!(per_commit >= PER_COMMIT, "{INCREMENTS} increments took {commits} commits");
    assert!(
        speedup >= SPEEDUP,
        "{:.0}/s is {speedup:.1} times {sequential:.0}/s, not {SPEEDUP} times",
        account.throughput()
    );
}

/// Commits of a node so far: the syncs of its log.
async fn commits(cluster: &Cluster, id: u64) -> u64 {
    let metrics = cluster.http.get(cluster.at(id, "/metrics")).expect(200).await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("kvdb_raft_log_syncs "));
    line.unwrap().trim().parse().unwrap()
}

/// What one increment per commit gives: each begun when the one before is answered, none sharing a commit.
async fn sequential_rate(cluster: &Cluster, leader: u64) -> f64 {
    let urls = cluster.urls(&[leader]);
    let warm = Load::start(urls.clone(), 1, 50, increment("warm")).finish().await;
    assert_eq!(warm.acked.len(), 50, "{:?}", warm.reasons);
    let started = Instant::now();
    let account = Load::start(urls, 1, SEQUENTIAL, increment("alone")).finish().await;
    assert_eq!(account.acked.len(), usize::try_from(SEQUENTIAL).unwrap(), "{:?}", account.reasons);
    SEQUENTIAL as f64 / started.elapsed().as_secs_f64()
}
