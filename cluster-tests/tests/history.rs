//! A watch from a time that a node has no history of any more.

use std::time::{Duration, Instant};

use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_too_long_ago_is_told_where_to_begin() {
    let scenario = Scenario::begin("history");
    scenario.phase("start a node that keeps little");
    let mut cluster = Launch::of(1).snapshot_entries(50).keep_entries(10).start(&scenario).await;
    let node = cluster.leader().await;
    cluster.create_bucket(node, "history", "").await;
    let first = cluster.http.put(cluster.at(node, "/history/k"), "v").expect(200).await;
    let first = first.header("x-kvdb-revision").unwrap().to_owned();

    scenario.phase("write until the history is gone");
    let watch = format!("/history/?watch&since={first}");
    let started = Instant::now();
    let gone = loop {
        for _ in 0..50 {
            cluster.http.put(cluster.at(node, "/history/k"), "v").expect(200).await;
        }
        // One that begins has no end: it is left after a moment.
        let call = cluster.http.get(cluster.at(node, &watch)).header("accept", "application/json");
        match call.timeout(Duration::from_millis(500)).send().await {
            Ok(reply) => break reply,
            Err(_) => assert!(started.elapsed() < LIMIT, "a history without end"),
        }
    };
    assert_eq!(gone.status, 410, "{gone}");
    assert!(gone.text().contains(r#""code":"revision_gone""#), "{gone}");

    scenario.phase("a watch from the revision that it names begins");
    let last = cluster.http.get(cluster.at(node, "/history/k")).expect(200).await;
    assert_eq!(gone.header("x-kvdb-revision"), last.header("x-kvdb-revision"));
    let since = gone.header("x-kvdb-revision").unwrap();
    let watch = format!("/history/?watch&since={since}");
    let call = cluster.http.get(cluster.at(node, &watch)).timeout(Duration::from_millis(500));
    let failure = call.send().await.unwrap_err();
    assert!(failure.sent, "it began, and goes on: {failure:?}");
}
