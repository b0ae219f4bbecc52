//! `kill -9` of every node at once, under a load of unique keys, several times over; and a voter whose log
//! lost its end, which must not vote again.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::launch::Launch;
use cluster_tests::load::{Load, Request};
use cluster_tests::scenario::Scenario;

const CLIENTS: usize = 32;
const ROUNDS: usize = 3;
const KEYS_PER_ROUND: u64 = 1_500;

fn key(round: usize, serial: u64) -> String {
    format!("{round}-{serial:08}")
}

fn value(round: usize, serial: u64) -> String {
    format!("value {serial} of round {round}")
}

fn put(round: usize) -> impl Fn(u64) -> Request + Send + Sync + 'static {
    move |serial| Request {
        method: "PUT",
        path: format!("/unique/{}", key(round, serial)),
        body: value(round, serial),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_keep_what_was_acknowledged() {
    let scenario = Scenario::begin("durability");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.create_bucket(1, "unique", "").await;
    let all = cluster.ids();
    let (mut acked, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    for round in 1..=ROUNDS {
        scenario.phase(&format!("round {round}: unique keys, then kill -9 of all three"));
        let load = Load::start(cluster.urls(&all), CLIENTS, i64::MAX, put(round));
        load.more_acked(KEYS_PER_ROUND, Duration::from_secs(60)).await;
        cluster.kill_all(&all);
        let account = load.stop().await;
        scenario.figure("acknowledged", account.acked.len());
        scenario.figure("unknown", account.unknown.len());
        let pair = |serial: u64| (key(round, serial), value(round, serial));
        acked.extend(account.acked.iter().map(|(serial, _)| pair(*serial)));
        unknown.extend(account.unknown.iter().map(|serial| pair(*serial)));

        scenario.phase("restart, and read on every node");
        all.iter().for_each(|id| cluster.restart(*id));
        cluster.ready().await;
        for id in &all {
            check_keys(&cluster, *id, &acked, &unknown).await;
        }
        cluster.agree().await;
    }
}

/// A cut between two records looks like a log that was never written further. With such a voter, a node
/// that lags and a leader that dies, a majority would stand without what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_whose_log_lost_its_end_is_refused() {
    let scenario = Scenario::begin("forgetful");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.create_bucket(1, "unique", "").await;
    let leader = cluster.leader().await;
    let [voter, lagging] = cluster.others(leader).try_into().unwrap();
    cluster.agree().await;
    let log = cluster.data(voter).join("log/segments/00000000000000000000.log");
    let note = std::fs::read(cluster.data(voter).join("log/SYNCED")).unwrap();
    // A format byte, then how far the log is on disk.
    let length = u64::from_be_bytes(note[1..9].try_into().unwrap());

    scenario.phase("write while one stands still, then cut the other's log");
    cluster.pause(lagging);
    let mut acked = BTreeMap::new();
    for serial in 0..100 {
        let put = cluster
            .http
            .put(cluster.at(leader, &format!("/unique/{}", key(0, serial))), value(0, serial));
        put.must(Duration::from_secs(10)).await;
        acked.insert(key(0, serial), value(0, serial));
    }
    cluster.kill(voter);
    std::fs::File::options().write(true).open(&log).unwrap().set_len(length).unwrap();

    scenario.phase("it is refused");
    cluster.restart(voter);
    let exit = cluster.process(voter).exited(Duration::from_secs(20)).await;
    let said = cluster.log_tail(voter);
    assert!(!exit.success() && said.contains("was synced up to"), "{exit}: {said}");

    scenario.phase("kill the leader; with it the other two have everything");
    cluster.kill(leader);
    cluster.resume(lagging);
    cluster.restart(leader);
    cluster.leader().await;
    for id in [leader, lagging] {
        check_keys(&cluster, id, &acked, &BTreeMap::new()).await;
    }
}

/// A linearizable list on a node: everything acknowledged, and nothing that nobody wrote.
async fn check_keys(
    cluster: &Cluster,
    id: u64,
    acked: &BTreeMap<String, String>,
    unknown: &BTreeMap<String, String>,
) {
    let found = all_pairs(cluster, id).await;
    for (key, value) in acked {
        assert_eq!(found.get(key), Some(value), "node {id}: `{key}` was acknowledged");
    }
    for (key, value) in &found {
        let written = acked.get(key).or_else(|| unknown.get(key));
        assert_eq!(written, Some(value), "node {id}: nobody can have written `{key}`");
    }
}

/// Everything that a node lists, page by page.
async fn all_pairs(cluster: &Cluster, id: u64) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    loop {
        // The smallest key after the last one found.
        let start = found.last_key_value().map_or(String::new(), |(key, _)| format!("{key}%00"));
        let path = format!("/unique/?values=true&format=json&limit=50000&start={start}");
        let call = cluster.http.get(cluster.at(id, &path)).timeout(Duration::from_secs(60));
        let reply = call.expect(200).await;
        let pairs: Vec<(String, String)> = serde_json::from_slice(&reply.body).unwrap();
        if pairs.is_empty() {
            return found;
        }
        found.extend(pairs);
    }
}
