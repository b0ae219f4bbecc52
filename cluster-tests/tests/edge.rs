//! The edge: requests and what must come back, on the leader and on a follower, and the same from both.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::BTreeSet;
use std::path::Path;

use cluster_tests::cluster::Cluster;
use cluster_tests::http::Reply;
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use cluster_tests::session::{Place, Report, Session};

/// What was drawn by lot is at least as long as an id; numbers and words are compared.
const DRAWN_LENGTH: usize = 22;
/// Errors that no request makes by itself: of a node's options, of its load, of what breaks.
const ELSEWHERE: [&str; 8] = [
    "corrupt",
    "idempotency_full",
    "internal",
    "no_leader",
    "outcome_unknown",
    "overloaded",
    "rate_limited",
    "revision_gone",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_answers_as_the_contract_says() {
    let scenario = Scenario::begin("edge");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    let mut failures = Vec::new();
    let mut codes = BTreeSet::new();
    for (name, session) in sessions() {
        scenario.phase(&name);
        let on_leader = run(&cluster, leader, &format!("{name}-l"), leader, &session).await;
        let on_follower = run(&cluster, leader, &format!("{name}-f"), follower, &session).await;
        let labelled = |place: &str, report: &Report| -> Vec<String> {
            let failures = report.failures.iter();
            failures.map(|failure| format!("{name}.session on {place}, {failure}")).collect()
        };
        failures.extend(labelled("the leader", &on_leader));
        failures.extend(labelled("a follower", &on_follower));
        failures.extend(differences(&name, &on_leader, &on_follower));
        codes.extend(on_leader.replies.iter().filter_map(|(_, reply)| code(reply)));
    }
    scenario.phase("a bucket without a name gets one that cannot be guessed");
    for id in cluster.ids() {
        check_drawn_name(&cluster, id).await;
    }
    for id in cluster.ids() {
        check_longest_transaction(&cluster, id).await;
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    let unmet: Vec<_> =
        documented_codes().into_iter().filter(|code| !codes.contains(code)).collect();
    assert_eq!(unmet, ELSEWHERE, "errors that no session has as JSON");
    cluster.agree().await;
}

/// The code of an error in JSON.
fn code(reply: &Reply) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    Some(json.pointer("/error/code")?.as_str()?.to_owned())
}

/// The codes in the table of errors of the HTTP reference, sorted.
fn documented_codes() -> Vec<String> {
    let path = Scenario::checkout().join("docs/api.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("\n## Errors\n").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
    let mut codes: Vec<_> =
        rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
    codes.sort();
    codes
}

async fn run(cluster: &Cluster, leader: u64, bucket: &str, on: u64, session: &Session) -> Report {
    cluster.create_bucket(leader, bucket, &session.policy).await;
    let digest = cluster.try_digest(leader).await.unwrap();
    let base_revision = digest.bucket(bucket).revision;
    let place = Place { url: cluster.url(on).to_owned(), bucket: bucket.to_owned(), base_revision };
    session.run(&cluster.http, &place).await
}

/// What the two answered differently: status, the names of the headers, and the body. Revisions, the bucket's
/// name, and what was drawn by lot and kept, as tokens are, are each session's own.
fn differences(name: &str, leader: &Report, follower: &Report) -> Vec<String> {
    // A request without an answer is a failure already.
    let other = |line| follower.replies.iter().find(|(other, _)| *other == line);
    let pairs = leader.replies.iter().filter_map(|reply| Some((reply, other(reply.0)?)));
    pairs
        .filter(|((_, a), (_, b))| {
            let leader = summary(a, &format!("{name}-l"), &leader.kept);
            leader != summary(b, &format!("{name}-f"), &follower.kept)
        })
        .filter(|((_, a), _)| !is_about_the_node(a))
        .map(|((line, a), (_, b))| {
            format!("{name}.session line {line}: the leader answers {a}, a follower {b}")
        })
        .collect()
}

fn summary(reply: &Reply, bucket: &str, kept: &[(String, String)]) -> (u16, Vec<String>, String) {
    let mut headers: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    headers.dedup();
    let drawn = kept.iter().filter(|(_, value)| value.len() >= DRAWN_LENGTH);
    let body = drawn.fold(reply.text(), |body, (word, value)| body.replace(value, word));
    let body = body.replace(bucket, "BUCKET");
    let body = body.split(|c: char| c.is_ascii_digit()).collect::<Vec<_>>().join("");
    (reply.status, headers, body)
}

/// Status and metrics speak of the node that was asked.
fn is_about_the_node(reply: &Reply) -> bool {
    let text = reply.text();
    text.contains("\"members\"") || text.contains("# TYPE")
}

async fn check_longest_transaction(cluster: &Cluster, id: u64) {
    let transaction = |operations: usize| {
        let operations = vec![r#"{"incr":"n"}"#; operations].join(",");
        let body = format!(r#"{{"txn":[{operations}]}}"#);
        cluster.http.post(cluster.at(id, &format!("/longest-{id}")), body)
    };
    cluster.create_bucket(id, &format!("longest-{id}"), "").await;
    transaction(1000).expect(200).await;
    let refused = transaction(1001).expect(400).await;
    assert!(refused.text().contains("at most 1000"), "{refused}");
    let count = cluster.http.get(cluster.at(id, &format!("/longest-{id}/n"))).expect(200).await;
    assert_eq!(count.text(), "1000");
}

async fn check_drawn_name(cluster: &Cluster, id: u64) {
    let mut names = Vec::new();
    for _ in 0..3 {
        let reply = cluster.http.post(cluster.at(id, "/"), "").expect(201).await;
        let name = reply.text();
        let legal = name.len() == 22 && name.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(legal, "node {id} drew the name {name:?}");
        cluster.http.put(cluster.at(id, &format!("/{name}/k")), "v").expect(200).await;
        names.push(name);
    }
    names.dedup();
    assert_eq!(names.len(), 3, "drawn twice: {names:?}");
    let json = cluster.http.post(cluster.at(id, "/"), "").header("accept", "application/json");
    let name = json.expect(201).await.json().get("id").and_then(|id| id.as_str()).map(str::len);
    assert_eq!(name, Some(22));
}

fn sessions() -> Vec<(String, Session)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edge");
    let mut sessions: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let session = Session::parse(&std::fs::read_to_string(&path).unwrap());
            let session = session.unwrap_or_else(|e| panic!("{name}.session: {e}"));
            (name, session)
        })
        .collect();
    sessions.sort_by(|(a, _), (b, _)| a.cmp(b));
    sessions
}
