//! Damage that shows only when it is read.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::launch::Launch;
use cluster_tests::load::{Load, Request};
use cluster_tests::scenario::Scenario;

const CLIENTS: usize = 16;
const KEYS: i64 = 3_000;
const LIST: &str = "/damage/?values&format=json&limit=50000";

fn put(serial: u64) -> Request {
    let body = format!("{serial:064}").repeat(8);
    Request { method: "PUT", path: format!("/damage/{serial}"), body }
}

/// A node that met a corrupt block answered 500, and went on: as a leader it failed the same calls for ever,
/// although its followers had the rows. Found by campaigns that flip bits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_reads_a_damaged_block_ends_and_the_others_serve() {
    let scenario = Scenario::begin("damage");
    scenario.phase("three nodes, all rows in files");
    let mut cluster = Launch::of(3).snapshot_entries(1_000).start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "damage", "").await;
    let account = Load::start(cluster.urls(&cluster.ids()), CLIENTS, KEYS, put).finish().await;
    assert_eq!(account.acked.len(), usize::try_from(KEYS).unwrap(), "{:?}", account.reasons);
    let victim = *cluster.followers().await.first().unwrap();
    // A stop in order writes out what is in memory.
    assert!(cluster.stop(victim).await.success());

    scenario.phase("the middle of its largest file is damaged");
    let file = largest_table(&cluster.data(victim).join("state"));
    let mut bytes = std::fs::read(&file).unwrap();
    let (start, end) = (bytes.len() / 3, bytes.len() * 2 / 3);
    bytes.get_mut(start..end).unwrap().iter_mut().step_by(512).for_each(|byte| *byte ^= 0x10);
    std::fs::write(&file, bytes).unwrap();
    cluster.restart(victim);
    cluster.ready().await;

    scenario.phase("a list meets it: refused, never served, and the node ends");
    let call = cluster.http.get(cluster.at(victim, LIST)).timeout(Duration::from_secs(20));
    if let Ok(reply) = call.send().await {
        assert_eq!(reply.status, 500, "{reply}");
        assert!(reply.text().contains("corrupt"), "{reply}");
    }
    let status = cluster.process(victim).exited(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    assert!(cluster.log_tail(victim).contains("corrupt"), "{}", cluster.log_tail(victim));

    scenario.phase("the others have every row");
    for id in cluster.running() {
        let reply = cluster.http.get(cluster.at(id, LIST)).expect(200).await;
        let rows: Vec<(String, String)> = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(rows.len(), usize::try_from(KEYS).unwrap(), "node {id}");
    }
}

/// The largest table of RocksDB below a directory.
fn largest_table(dir: &Path) -> PathBuf {
    let mut tables = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|end| end == "sst") {
                tables.push((path.metadata().unwrap().len(), path));
            }
        }
    }
    tables.into_iter().max().unwrap().1
}
