//! Limits of requests a second: who is refused, who is not, and what is told.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Call, Http, Reply};
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;

/// What a node takes for a bucket in a second, and of a client: far more than the test asks by itself.
const OF_BUCKET: usize = 2;
const OF_CLIENT: usize = 100;
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_is_refused_by_that_node_for_a_while() {
    let scenario = Scenario::begin("rates");
    scenario.phase("start three nodes");
    let launch = Launch::of(3).flag("--bucket-requests-per-second", OF_BUCKET);
    let launch = launch.flag("--client-requests-per-second", OF_CLIENT);
    let mut cluster = launch.start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    for bucket in ["busy", "quiet"] {
        cluster.create_bucket(leader, bucket, "").await;
    }

    scenario.phase("a bucket that is asked for too often");
    let write = |id: u64, bucket: &str| {
        let call = cluster.http.put(cluster.at(id, &format!("/{bucket}/k")), "v");
        call.header("accept", "application/json")
    };
    told(&write(follower, "busy").expect(200).await, OF_BUCKET, "1");
    let refused = until(429, OF_BUCKET * 2, || write(follower, "busy")).await;
    check_refused(&refused, OF_BUCKET);
    assert_eq!(refused.header("x-kvdb-applied"), Some("no"), "{refused}");

    scenario.phase("other nodes and other buckets do not mind");
    // What the follower handed on was counted there, and not again.
    told(&write(leader, "busy").expect(200).await, OF_BUCKET, "1");
    told(&write(follower, "quiet").expect(200).await, OF_BUCKET, "1");
    until(200, 1, || write(follower, "busy")).await;

    scenario.phase("a client that asks too often");
    check_client(&cluster, follower).await;
}

async fn check_client(cluster: &Cluster, id: u64) {
    let client = |last| Http::from_address(IpAddr::from([127, 0, 0, last]));
    let (busy, quiet) = (client(2), client(3));
    let url = cluster.at(id, "/-/cluster");
    let ask = |http: &Http| http.get(url.clone()).header("accept", "application/json");
    told(&ask(&busy).expect(200).await, OF_CLIENT, "99");
    check_refused(&until(429, OF_CLIENT * 2, || ask(&busy)).await, OF_CLIENT);
    told(&ask(&quiet).expect(200).await, OF_CLIENT, "99");
    let alive = busy.get(cluster.at(id, "/livez")).expect(200).await;
    assert_eq!(alive.header("x-ratelimit-limit"), None, "who watches over a node may ask");
    until(200, 1, || ask(&busy)).await;
}

/// Calls so many times at once, again and again, until an answer has this status.
async fn until(status: u16, calls: usize, call: impl Fn() -> Call) -> Reply {
    let started = Instant::now();
    loop {
        let replies: Vec<_> = (0..calls).map(|_| tokio::spawn(call().send())).collect();
        for reply in replies {
            let reply = reply.await.unwrap().unwrap();
            if reply.status == status {
                return reply;
            }
        }
        assert!(started.elapsed() < LIMIT, "no {status} within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The answer says the limit, and what is left of it.
fn told(reply: &Reply, limit: usize, remaining: &str) {
    let header = |name| reply.header(name).unwrap_or_else(|| panic!("no {name}: {reply}"));
    assert_eq!(header("x-ratelimit-limit"), limit.to_string(), "{reply}");
    assert_eq!(header("x-ratelimit-remaining"), remaining, "{reply}");
    assert_eq!(header("x-ratelimit-reset"), "1", "{reply}");
}

fn check_refused(reply: &Reply, limit: usize) {
    told(reply, limit, "0");
    assert_eq!(reply.header("retry-after"), Some("1"), "{reply}");
    let text = reply.text();
    for part in [r#""code":"rate_limited""#, r#""retryable":true,"applied":"no""#] {
        assert!(text.contains(part), "{reply}");
    }
}
