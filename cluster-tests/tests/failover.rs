//! `kill -9` of the leader under a load of increments.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Call, Outcome};
use cluster_tests::launch::Launch;
use cluster_tests::load::{Account, Load, Request};
use cluster_tests::scenario::Scenario;
use cluster_tests::wait;

const SCRIPT: &str = r#"
local err = kvdb.incr("count", 1)
if err then
  kvdb.abort(400, err)
end
local value = kvdb.get("count")
kvdb.print(value)
"#;

const CLIENTS: usize = 64;
/// From the moment that a leader falls silent to the first answer of a new one.
const OUTAGE_MAX: Duration = Duration::from_secs(3);
/// The same from its kill, which is no silence: less than the shortest wait for a silent one. It takes a tenth of it.
const KILLED_OUTAGE_MAX: Duration = Duration::from_millis(1200);

fn increment(_: u64) -> Request {
    Request { method: "POST", path: "/failover/scripts/add".to_owned(), body: String::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leader_loses_nothing_and_doubles_nothing() {
    let scenario = Scenario::begin("failover");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let old = cluster.leader().await;
    cluster.create_bucket(old, "failover", "").await;
    cluster.put_script(old, "failover", "add", SCRIPT).await;
    cluster.put_script(old, "failover", "probe", "kvdb.set('probe', 1) kvdb.print('ok')").await;

    scenario.phase("64 clients on all nodes");
    let load = Load::start(cluster.urls(&cluster.ids()), CLIENTS, i64::MAX, increment);
    load.more_acked(2_000, Duration::from_secs(30)).await;

    scenario.phase("kill -9 of the leader");
    let killed = Instant::now();
    cluster.kill(old);
    let survivors = cluster.running();
    until_served(&cluster, &survivors).await;
    let outage = killed.elapsed();
    scenario.figure("until a new leader served", format!("{outage:.2?}"));
    let limit = KILLED_OUTAGE_MAX;
    assert!(outage < limit, "no new leader served within {limit:?}, but after {outage:?}");
    let new = cluster.leader().await;
    assert_ne!(new, old);
    load.more_acked(1_000, Duration::from_secs(30)).await;

    scenario.phase("the old leader comes back, still under load");
    cluster.restart(old);
    cluster.ready().await;
    load.more_acked(1_000, Duration::from_secs(30)).await;
    let account = load.stop().await;

    scenario.phase("the account");
    scenario.figure("acknowledged", account.acked.len());
    scenario.figure("unknown", account.unknown.len());
    scenario.figure("refused", account.refused);
    check_account(&cluster, &account).await;
    cluster.agree().await;
}

/// A leader that stands still keeps its connections. Calls that a follower had handed to it, and reads that
/// waited for its word, hung until they timed out, seconds after another node led.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_leader_that_another_has_followed() {
    let scenario = Scenario::begin("superseded");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let old = cluster.leader().await;
    let follower = *cluster.others(old).first().unwrap();
    cluster.create_bucket(old, "superseded", "").await;
    cluster.http.put(cluster.at(follower, "/superseded/k"), "1").expect(200).await;

    scenario.phase("the leader stands still under a read and a write by way of a follower");
    cluster.pause(old);
    let paused = Instant::now();
    let write = cluster.http.put(cluster.at(follower, "/superseded/k"), "2");
    let read = cluster.http.get(cluster.at(follower, "/superseded/k"));
    let timed = async |call: Call| {
        let outcome = call.timeout(Duration::from_secs(20)).outcome().await;
        (outcome, paused.elapsed())
    };
    let ((write, write_took), (read, read_took)) = tokio::join!(timed(write), timed(read));
    scenario.figure("the write was answered after", format!("{write_took:.2?}: {write:?}"));
    scenario.figure("the read was answered after", format!("{read_took:.2?}"));
    cluster.resume(old);

    scenario.phase("both were answered once another led");
    assert!(matches!(write, Outcome::Unknown(_)), "it was handed to the old leader: {write:?}");
    assert!(matches!(read, Outcome::Done(_)), "the new leader can tell: {read:?}");
    assert!(write_took < OUTAGE_MAX + Duration::from_millis(500), "{write_took:?}");
    assert!(read_took < OUTAGE_MAX, "{read_took:?}");
    cluster.ready().await;
    cluster.agree().await;
}

/// Waits until a call that writes, begun after the kill, is acknowledged.
async fn until_served(cluster: &Cluster, survivors: &[u64]) {
    let mut turn = survivors.iter().cycle();
    wait::until("a new leader that serves", Duration::from_secs(30), async || {
        let id = *turn.next().unwrap();
        let call = cluster.http.post(cluster.at(id, "/failover/scripts/probe"), "").follow();
        match call.timeout(Duration::from_millis(500)).outcome().await {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused(reason) | Outcome::Unknown(reason) => Err(reason),
        }
    })
    .await;
}

/// No acknowledged increment is lost, none answered as "not applied" was applied.
async fn check_account(cluster: &Cluster, account: &Account) {
    let values = account.values();
    let distinct: BTreeSet<u64> = values.iter().copied().collect();
    assert_eq!(distinct.len(), values.len(), "two increments answered the same value");
    let (acked, unknown) = (values.len() as u64, account.unknown.len() as u64);
    for id in cluster.ids() {
        let text = cluster.http.get(cluster.at(id, "/failover/count")).expect(200).await.text();
        let last: u64 = text.parse().unwrap();
        assert!(acked <= last, "node {id}: {acked} were acknowledged, but the counter is {last}");
        assert!(
            last <= acked + unknown,
            "node {id}: the counter is {last}, but at most {acked} + {unknown} can have been applied; \
             some reasons: {:?}",
            account.reasons
        );
        assert!(values.last().is_none_or(|max| *max <= last), "node {id}: an answer beyond {last}");
    }
}
