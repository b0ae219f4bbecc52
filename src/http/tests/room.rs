//! What strangers, and one bucket's clients, can take from the others: nothing.

use super::*;
use crate::http::room::Room;
use crate::kv::BucketName;

/// An edge with so many turns for lists, and so many bytes for bodies and answers.
async fn edge(lists: usize, body_bytes: usize) -> Edge {
    let mut edge = Edge::start(Options::default()).await;
    edge.bucket("id=b&secret_key=s").await;
    Arc::get_mut(&mut edge.service.0).unwrap().room = Room::new(lists, body_bytes);
    edge
}

/// Whether there is hardly any room: an answer takes all that its request's body leaves.
fn full(edge: &Edge) -> bool {
    edge.service.0.room.add(&mut None, 1000).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_before_anything_is_waited_for() {
    let edge = edge(0, 1 << 20).await;
    for path in ["", "tokens/", "scripts/", "scripts/s?source", "?watch&since=9999999"] {
        for (key, status) in [("", 403), ("wrong", 401)] {
            let sign = if path.contains('?') { '&' } else { '?' };
            let key = if key.is_empty() { String::new() } else { format!("{sign}key={key}") };
            let refused = edge.ask(&format!("GET /b/{path}{key}")).await;
            assert_eq!(refused.status, status, "{path}{key}: {}", refused.body);
            assert!(!refused.header("x-kvdb-revision").is_empty(), "{path}");
        }
    }
    for path in ["", "tokens/"] {
        let waited = edge.ask(&format!("GET /b/{path}?key=s")).await;
        assert_eq!(waited.status, 503, "{path}: there is no turn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_revision_has_no_turn() {
    let edge = edge(1, 1 << 20).await;
    tokio::select! {
        biased;
        early = edge.ask("GET /b/?min_revision=99999999999") => panic!("{}", early.brief()),
        list = edge.ask("GET /b/?key=s") => assert_eq!(list.brief(), "200 "),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bucket_has_not_all_turns() {
    let edge = edge(4, 1 << 20).await;
    edge.bucket("id=c").await;
    let b = edge.node.read(&BucketName::parse("b").unwrap()).await.unwrap().bucket();
    let turn = edge.service.0.room.list(b).await.unwrap();
    let (own, other) = tokio::join!(edge.ask("GET /b/?key=s"), edge.ask("GET /c/"));
    assert_eq!((own.status, other.brief().as_str()), (503, "200 "));
    drop(turn);
    assert_eq!(edge.ask("GET /b/?key=s").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_counted_until_they_are_sent() {
    let edge = edge(1, 100_000).await;
    let source = "kvdb.print(string.rep('x', 200000))";
    assert_eq!(edge.send("PUT /b/scripts/s?key=s", &[], source).await.status, 200);
    assert_eq!(edge.send("PUT /b/scripts/r?readonly&key=s", &[], source).await.status, 200);
    for (line, body) in [
        ("GET /b/scripts/s?key=s", ""),
        ("GET /b/scripts/r?key=s", ""),
        ("POST /b/scripts/?dry_run&key=s", "kvdb.print(string.rep('\\1', 200000))"),
    ] {
        assert!(!full(&edge), "{line}");
        let response = edge.answer(line, &[], body).await;
        assert_eq!(response.status(), 200, "{line}");
        assert!(full(&edge), "{line}");
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(body.len() >= 200_000 && full(&edge), "{line}: not sent yet");
        drop(body);
    }
    assert!(!full(&edge));
}
