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
/// How many times faster than one increment per commit it must be, whatever else the machine does. The
/// aim is 20, where two cores are not what holds it back: three nodes and the clients share them.
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

    scenario.phase("one client on the leader, one increment per commit");
    let sequential = sequential_rate(&cluster, leader).await;
    scenario.figure("one increment per commit, per second", format!("{sequential:.0}"));

    scenario.phase("64 clients on all nodes, 20,000 increments of one key");
    let load = Load::start(cluster.urls(&cluster.ids()), CLIENTS, INCREMENTS, increment("hot"));
    let account = load.finish().await;
    scenario.figure("increments per second", format!("{:.0}", account.throughput()));
    let speedup = account.throughput() / sequential;
    scenario.figure("times one per commit", format!("{speedup:.1}"));
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
    assert!(
        speedup >= SPEEDUP,
        "{:.0}/s is {speedup:.1} times {sequential:.0}/s, not {SPEEDUP} times",
        account.throughput()
    );
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
