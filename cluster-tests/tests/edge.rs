//! The edge: requests and what must come back, on the leader and on a follower, and the same from both.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::path::Path;

use cluster_tests::cluster::Cluster;
use cluster_tests::http::Reply;
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use cluster_tests::session::{Place, Report, Session};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_answers_as_the_contract_says() {
    let scenario = Scenario::begin("edge");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await.into_iter().next().unwrap();
    let mut failures = Vec::new();
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
    }
    scenario.phase("a bucket without a name gets one that cannot be guessed");
    for id in cluster.ids() {
        check_drawn_name(&cluster, id).await;
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    cluster.agree().await;
}

async fn run(cluster: &Cluster, leader: u64, bucket: &str, on: u64, session: &Session) -> Report {
    cluster.create_bucket(leader, bucket, &session.policy).await;
    let digest = cluster.try_digest(leader).await.unwrap();
    let base_revision = digest.bucket(bucket).revision;
    let place = Place { url: cluster.url(on).to_owned(), bucket: bucket.to_owned(), base_revision };
    session.run(&cluster.http, &place).await
}

/// What the two answered differently: status, the names of the headers, and the body. Revisions and the
/// bucket's name are each session's own.
fn differences(name: &str, leader: &Report, follower: &Report) -> Vec<String> {
    let pairs = leader.replies.iter().zip(&follower.replies);
    pairs
        .filter(|((_, a), (_, b))| {
            summary(a, &format!("{name}-l")) != summary(b, &format!("{name}-f"))
        })
        .filter(|((_, a), _)| !is_about_the_node(a))
        .map(|((line, a), (_, b))| {
            format!("{name}.session line {line}: the leader answers {a}, a follower {b}")
        })
        .collect()
}

fn summary(reply: &Reply, bucket: &str) -> (u16, Vec<String>, String) {
    let mut headers: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    headers.dedup();
    let body: String = reply.text().replace(bucket, "BUCKET");
    let body = body.split(|c: char| c.is_ascii_digit()).collect::<Vec<_>>().join("");
    (reply.status, headers, body)
}

/// Status and metrics speak of the node that was asked.
fn is_about_the_node(reply: &Reply) -> bool {
    let text = reply.text();
    text.contains("\"members\"") || text.contains("# TYPE")
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
