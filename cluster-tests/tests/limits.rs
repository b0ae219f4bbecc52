//! Hostile scripts: stopped, named, undone, and nobody else's trouble.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets a surprise panics"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Http, Reply};
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;

struct Hostile {
    name: &'static str,
    source: &'static str,
    /// The answer names one of these.
    limits: &'static [&'static str],
}

const TIME: &[&str] = &["fuel", "time"];

const HOSTILE: &[Hostile] = &[
    Hostile { name: "loop", source: "kvdb.set('mark', 1) while true do end", limits: TIME },
    Hostile {
        name: "memory",
        source: "kvdb.set('mark', 1) local t = {} \
                 while true do t[#t + 1] = string.rep('x', 10000) .. #t end",
        limits: &["memory"],
    },
    Hostile {
        name: "catches",
        source: "kvdb.set('mark', 1) pcall(function() while true do end end) kvdb.say('still here')",
        limits: TIME,
    },
    Hostile {
        name: "catches-for-ever",
        source: "kvdb.set('mark', 1) kvdb.commit() \
                 while true do pcall(function() while true do end end) end",
        limits: TIME,
    },
    Hostile {
        name: "pattern",
        source: "kvdb.set('mark', 1) \
                 string.find(string.rep('a', 60), string.rep('a?', 60) .. string.rep('a', 60) .. 'b')",
        limits: TIME,
    },
];

/// Calls of each hostile script, all begun at once: more than there are cores.
const CALLS: usize = 4;
/// Longest that a write to another bucket may take meanwhile.
const OTHERS_MAX: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_scripts_are_stopped_and_disturb_nobody() {
    let scenario = Scenario::begin("limits");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    cluster.create_bucket(leader, "hostile", "").await;
    cluster.create_bucket(leader, "quiet", "").await;
    for hostile in HOSTILE {
        cluster.put_script(leader, "hostile", hostile.name, hostile.source).await;
    }
    let before = cluster.status(leader).await;
    let digest = cluster.try_digest(leader).await.unwrap().bucket("hostile").clone();

    scenario.phase("a quiet bucket is written to all the while");
    let stop = Arc::new(AtomicBool::new(false));
    let quiet = tokio::spawn(write_quietly(cluster.url(leader).to_owned(), Arc::clone(&stop)));
    for hostile in HOSTILE {
        scenario.phase(&format!("{CALLS} calls of `{}`", hostile.name));
        call_hostile(&cluster, &[leader, follower], hostile).await;
    }
    stop.store(true, Ordering::Relaxed);
    let latencies = quiet.await.unwrap();

    scenario.phase("nothing was written, nobody was disturbed");
    cluster.http.get(cluster.at(leader, "/hostile/mark")).expect(404).await;
    let now = cluster.try_digest(leader).await.unwrap();
    assert_eq!(now.bucket("hostile"), &digest, "a stopped script left something behind");
    let slowest = latencies.iter().max().unwrap();
    scenario.figure("writes to the quiet bucket", latencies.len());
    scenario.figure("the slowest of them", format!("{slowest:.1?}"));
    assert!(*slowest < OTHERS_MAX, "a write to another bucket took {slowest:?}");
    let after = cluster.status(leader).await;
    assert_eq!((after.term, after.leader), (before.term, before.leader), "an election");
    cluster.agree().await;
}

async fn call_hostile(cluster: &Cluster, nodes: &[u64], hostile: &Hostile) {
    let path = format!("/hostile/scripts/{}", hostile.name);
    let calls: Vec<_> = (nodes.iter().cycle().take(CALLS))
        .map(|id| {
            let call = cluster.http.post(cluster.at(*id, &path), "").follow();
            let call = call.header("accept", "application/json").timeout(Duration::from_secs(30));
            tokio::spawn(call.send())
        })
        .collect();
    for call in calls {
        check_stopped(&call.await.unwrap().unwrap(), hostile);
    }
}

fn check_stopped(reply: &Reply, hostile: &Hostile) {
    assert_eq!(reply.status, 500, "`{}`: {reply}", hostile.name);
    assert_eq!(reply.header("x-kvdb-applied"), Some("no"), "`{}`: {reply}", hostile.name);
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "script_limit", "`{}`: {reply}", hostile.name);
    assert_eq!(error["applied"], "no", "`{}`: {reply}", hostile.name);
    let message = error["message"].as_str().unwrap().to_lowercase();
    let named = hostile.limits.iter().any(|limit| message.contains(limit));
    assert!(named, "`{}`: none of {:?} is named: {message}", hostile.name, hostile.limits);
}

/// Writes to another bucket, one after the other, until told to stop; returns how long each took.
async fn write_quietly(url: String, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let http = Http::default();
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let key = latencies.len();
        http.put(format!("{url}/quiet/{key}"), "v").expect(200).await;
        latencies.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    latencies
}
