//! A follower that was away for longer than the log reaches back.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::launch::Launch;
use cluster_tests::load::{Load, Request};
use cluster_tests::scenario::Scenario;
use cluster_tests::status::Status;
use cluster_tests::wait::{self, holds};

const KEYS: u64 = 200_000;
const KEYS_PER_CALL: u64 = 500;
/// Keys written before the follower leaves, deleted while it is away.
const DOOMED: u64 = 1_000;

const WRITE: &str = r#"
local first = tonumber(kvdb.var.first)
for i = first, first + tonumber(kvdb.var.count) - 1 do
  local err = kvdb.set(string.format("%s:%07d", kvdb.var.prefix, i), "value of " .. i)
  if err then
    kvdb.abort(500, err)
  end
end
kvdb.print("ok")
"#;

const DELETE: &str = r#"
local keys, err = kvdb.list(kvdb.var.prefix)
if err then
  kvdb.abort(500, err)
end
for _, key in ipairs(keys) do
  kvdb.delete(key)
end
kvdb.print(#keys)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_follower_catches_up_by_snapshot() {
    let scenario = Scenario::begin("snapshot");
    scenario.phase("start three nodes with short logs");
    let mut cluster = Launch::of(3).snapshot_entries(100).keep_entries(20).start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "bulk", "").await;
    cluster.put_script(leader, "bulk", "write", WRITE).await;
    cluster.put_script(leader, "bulk", "delete", DELETE).await;

    scenario.phase("write what will be deleted, then kill a follower");
    write(&cluster, &[leader], "doomed", DOOMED).await;
    write(&cluster, &[leader], "changed", KEYS_PER_CALL).await;
    cluster.agree().await;
    let away = cluster.followers().await.into_iter().next().unwrap();
    let before = cluster.status(away).await;
    cluster.kill(away);

    scenario.phase("200,000 keys, and the doomed deleted");
    let present = cluster.running();
    write(&cluster, &present, "key", KEYS).await;
    let run = cluster.at(leader, "/bulk/scripts/delete?prefix=doomed:");
    assert_eq!(cluster.http.post(run, "").follow().expect(200).await.text(), DOOMED.to_string());
    cluster.http.put(cluster.at(leader, "/bulk/changed:0000000"), "new").expect(200).await;

    scenario.phase("snapshot and purge the log");
    for id in &present {
        cluster.admin("POST", *id, "/-/cluster/snapshot", "").await;
    }
    let gone = before.last_log_index.unwrap();
    for id in &present {
        until_purged(&cluster, *id, gone).await;
    }

    scenario.phase("the follower comes back");
    cluster.restart(away);
    cluster.ready().await;
    let caught_up = check_follower(&cluster, away, gone).await;
    scenario.figure("its snapshot stands at", caught_up.snapshot_index.unwrap_or(0));
    let digest = cluster.agree().await;
    assert_eq!(digest.bucket("bulk").keys, KEYS + KEYS_PER_CALL);
}

async fn write(cluster: &Cluster, nodes: &[u64], prefix: &'static str, keys: u64) {
    let calls = i64::try_from(keys / KEYS_PER_CALL).unwrap();
    let load = Load::start(cluster.urls(nodes), 4, calls, move |serial| Request {
        method: "POST",
        path: format!(
            "/bulk/scripts/write?prefix={prefix}&first={}&count={KEYS_PER_CALL}",
            serial * KEYS_PER_CALL
        ),
        body: String::new(),
    });
    let account = load.finish().await;
    // A refused call leaves a hole in the numbers: the test needs all of them.
    let complete = account.unknown.is_empty() && account.refused == 0;
    assert!(complete, "not every key was written: {:?}", account.reasons);
}

async fn until_purged(cluster: &Cluster, id: u64, gone: u64) {
    let what = format!("node {id} to purge its log beyond {gone}");
    wait::until(&what, Duration::from_secs(20), async || {
        let purged = cluster.try_status(id).await?.purged_index;
        holds(purged.is_some_and(|purged| purged > gone), || format!("purged to {purged:?}"))
    })
    .await;
}

/// It has the new and the changed, not the deleted, and has them from a snapshot.
async fn check_follower(cluster: &Cluster, away: u64, gone: u64) -> Status {
    for (key, value) in [
        ("key:0000000", "value of 0"),
        ("key:0199999", "value of 199999"),
        ("changed:0000000", "new"),
        ("changed:0000001", "value of 1"),
    ] {
        let reply = cluster.http.get(cluster.at(away, &format!("/bulk/{key}"))).expect(200).await;
        assert_eq!(reply.text(), value, "`{key}`");
    }
    for doomed in [0, DOOMED / 2, DOOMED - 1] {
        cluster.http.get(cluster.at(away, &format!("/bulk/doomed:{doomed:07}"))).expect(404).await;
    }
    let status = cluster.status(away).await;
    let by_snapshot = status.snapshot_index.is_some_and(|index| index > gone);
    assert!(by_snapshot, "it caught up without a snapshot beyond {gone}: {status:?}");
    status
}
