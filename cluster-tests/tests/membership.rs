//! Nodes come, lead, go and are not let in.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Http, Outcome};
use cluster_tests::launch::{CLUSTER_SECRET, Launch};
use cluster_tests::scenario::Scenario;
use cluster_tests::wait::{self, holds};

/// How long a change of the members may take to be seen.
const CHANGE: Duration = Duration::from_secs(20);
/// How long a node that must not get in is watched.
const WATCH: Duration = Duration::from_secs(4);
/// Longest time without an acknowledged write while a leader stops gracefully.
const HANDOVER_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_is_a_cluster_within_seconds() {
    let scenario = Scenario::begin("one-node");
    scenario.phase("start one node");
    let started = Instant::now();
    let mut cluster = Launch::of(1).start(&scenario).await;
    let ready = started.elapsed();
    scenario.figure("ready after", format!("{ready:.2?}"));
    assert!(ready < Duration::from_secs(4), "a single node took {ready:?}");
    cluster.create_bucket(1, "solo", "").await;
    cli(&cluster, 1, &["set", "solo", "k", "v"]);
    assert_eq!(cli(&cluster, 1, &["get", "solo", "k"]).trim_end(), "v");
    cli(&cluster, 1, &["status"]);

    scenario.phase("kill it and start it again");
    cluster.kill(1);
    cluster.restart(1);
    cluster.ready().await;
    assert_eq!(cluster.http.get(cluster.at(1, "/solo/k")).expect(200).await.text(), "v");

    scenario.phase("stop it gracefully");
    let exit = cluster.stop(1).await;
    assert!(exit.success(), "{exit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_lead_and_leave() {
    let scenario = Scenario::begin("members");
    scenario.phase("start three nodes, write to them all the while");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.create_bucket(1, "members", "").await;
    let writer = Writer::start(cluster.urls(&[1, 2, 3]));

    scenario.phase("a fourth joins as a learner");
    cluster.add_node(4, CLUSTER_SECRET);
    until_ids(&cluster, 1, "learner", &[4]).await;
    refuse_strangers(&cluster).await;

    scenario.phase("it is promoted");
    cli(&cluster, 1, &["cluster", "promote", "4"]);
    until_ids(&cluster, 1, "voter", &[1, 2, 3, 4]).await;
    cluster.ready().await;

    scenario.phase("it is made the leader");
    cli(&cluster, 1, &["cluster", "transfer", "4"]);
    until_leader(&mut cluster, 4).await;
    cluster.admin("POST", 4, "/-/cluster/leader", r#"{"to":2}"#).await;
    until_leader(&mut cluster, 2).await;

    scenario.phase("the third leaves");
    cli(&cluster, 1, &["cluster", "remove", "3"]);
    until_ids(&cluster, 1, "voter", &[1, 2, 4]).await;
    let listed = cli(&cluster, 1, &["cluster", "list"]);
    assert!(listed.contains('4'), "{listed}");

    scenario.phase("its id does not come back");
    cluster.wipe(3);
    cluster.restart(3);
    must_stay_out(&mut cluster, 3).await;

    scenario.phase("writes went on, and all agree");
    let account = writer.stop().await;
    scenario.figure("writes", account.acked);
    scenario.figure("longest time without one", format!("{:.1?}", account.longest_gap));
    assert!(account.longest_gap < Duration::from_secs(3), "{account:?}");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_voters_and_strangers_are_refused() {
    let scenario = Scenario::begin("refused");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.create_bucket(1, "refused", "").await;
    cluster.http.put(cluster.at(1, "/refused/k"), "v").expect(200).await;
    let wiped = cluster.followers().await.into_iter().next().unwrap();

    scenario.phase("a voter comes back with an empty directory");
    cluster.wipe(wiped);
    cluster.restart(wiped);
    must_stay_out(&mut cluster, wiped).await;

    scenario.phase("a node comes with a wrong cluster secret");
    cluster.add_node(9, "not-the-secret");
    must_stay_out(&mut cluster, 9).await;

    scenario.phase("the two that are left serve");
    let first = cluster.ids().into_iter().next().unwrap();
    let status = cluster.status(first).await;
    assert_eq!((status.ids("voter"), status.ids("learner")), (vec![1, 2, 3], vec![]));
    let put = cluster.http.put(cluster.at(first, "/refused/k"), "w");
    put.must(Duration::from_secs(5)).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graceful_stop_hands_leadership_over() {
    let scenario = Scenario::begin("handover");
    scenario.phase("start three nodes, write to the followers all the while");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.create_bucket(1, "handover", "").await;
    let leader = cluster.leader().await;
    let writer = Writer::start_in("handover", cluster.urls(&cluster.others(leader)));
    writer.until_writes(200).await;

    scenario.phase("SIGTERM to the leader");
    let exit = cluster.stop(leader).await;
    assert!(exit.success(), "the leader's exit: {exit}");
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    writer.until_writes(200).await;
    let account = writer.stop().await;
    scenario.figure("longest time without a write", format!("{:.1?}", account.longest_gap));
    assert!(account.longest_gap < HANDOVER_MAX, "{account:?}");

    scenario.phase("it comes back as a follower");
    cluster.restart(leader);
    cluster.ready().await;
    cluster.agree().await;
}

/// Changing the cluster needs the admin key.
async fn refuse_strangers(cluster: &Cluster) {
    for (method, path) in [
        ("POST", "/-/cluster/members/4/promote"),
        ("DELETE", "/-/cluster/members/4"),
        ("POST", "/-/cluster/snapshot"),
    ] {
        for id in [1, 2, 3] {
            let call = cluster.http.call(method, cluster.at(id, path));
            let stranger = call.clone().send().await.unwrap();
            assert!(matches!(stranger.status, 401 | 403), "{method} {path}: {stranger}");
            call.bearer("not-the-admin-key").expect(401).await;
        }
    }
}

fn cli(cluster: &Cluster, id: u64, args: &[&str]) -> String {
    let output = cluster.cli(id, args);
    assert!(output.success, "kvdb {args:?}: {}{}", output.stdout, output.stderr);
    output.stdout
}

async fn until_ids(cluster: &Cluster, id: u64, role: &str, ids: &[u64]) {
    wait::until(&format!("the {role}s {ids:?}"), CHANGE, async || {
        let found = cluster.try_status(id).await?.ids(role);
        holds(found == ids, || format!("the {role}s are {found:?}"))
    })
    .await;
}

async fn until_leader(cluster: &mut Cluster, id: u64) {
    wait::until(&format!("node {id} to lead"), CHANGE, async || {
        let leader = cluster.try_leader().await?;
        holds(leader == id, || format!("node {leader} leads"))
    })
    .await;
}

/// Watches a node that must not get in: it exits with an error, or never becomes ready. Then it is
/// taken away.
async fn must_stay_out(cluster: &mut Cluster, id: u64) {
    let got_in = wait::try_until(WATCH, async || {
        if let Some(exit) = cluster.process(id).exit_status() {
            assert!(!exit.success(), "node {id} was refused, but exited with 0");
            return Ok(false);
        }
        cluster.try_node_ready(id).await.map(|()| true)
    })
    .await;
    assert_ne!(got_in, Ok(true), "node {id} got in");
    let tail = cluster.process(id).log_tail().to_lowercase();
    let said = ["refuse", "secret", "already", "used", "reuse"].iter().any(|w| tail.contains(w));
    assert!(said, "node {id} does not say why it stays out:\n{tail}");
    cluster.destroy(id);
}

/// One client that writes all the while.
struct Writer {
    stop: Arc<AtomicBool>,
    writes: Arc<std::sync::atomic::AtomicU64>,
    task: tokio::task::JoinHandle<Writes>,
}

/// What it saw.
#[derive(Debug, Default)]
struct Writes {
    acked: u64,
    refused: u64,
    unknown: u64,
    longest_gap: Duration,
    reasons: Vec<String>,
}

impl Writer {
    fn start(urls: Vec<String>) -> Self {
        Writer::start_in("members", urls)
    }

    fn start_in(bucket: &'static str, urls: Vec<String>) -> Self {
        let (stop, writes) = (Arc::default(), Arc::default());
        let task = tokio::spawn(write(bucket, urls, Arc::clone(&stop), Arc::clone(&writes)));
        Writer { stop, writes, task }
    }

    async fn until_writes(&self, more: u64) {
        let goal = self.writes.load(Ordering::Relaxed) + more;
        wait::until(&format!("{more} more writes"), CHANGE, async || {
            let writes = self.writes.load(Ordering::Relaxed);
            holds(writes >= goal, || format!("{writes} of {goal}"))
        })
        .await;
    }

    async fn stop(self) -> Writes {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn write(
    bucket: &'static str,
    urls: Vec<String>,
    stop: Arc<AtomicBool>,
    acked: Arc<std::sync::atomic::AtomicU64>,
) -> Writes {
    let (http, mut writes) = (Http::default(), Writes::default());
    let mut last = Instant::now();
    for (serial, url) in urls.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let put = http.put(format!("{url}/{bucket}/{serial}"), "v");
        match put.timeout(Duration::from_millis(800)).outcome().await {
            Outcome::Done(_) => {
                writes.longest_gap = writes.longest_gap.max(last.elapsed());
                last = Instant::now();
                writes.acked += 1;
                acked.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused(reason) => {
                writes.refused += 1;
                writes.reasons.push(reason);
            }
            Outcome::Unknown(reason) => {
                writes.unknown += 1;
                writes.reasons.push(reason);
            }
        }
        writes.reasons.truncate(5);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writes.longest_gap = writes.longest_gap.max(last.elapsed());
    writes
}
