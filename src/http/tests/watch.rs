//! Watches as a client sees them.

use std::path::Path;
use std::time::Duration;

use axum::body::BodyDataStream;
use futures::StreamExt;

use super::*;

/// An open watch.
struct Watch {
    revision: u64,
    body: BodyDataStream,
    text: String,
}

impl Watch {
    async fn open(edge: &Edge, query: &str, headers: &[(&str, &str)]) -> Self {
        let response = edge.answer(&format!("GET /b/?watch{query}"), headers, "").await;
        let (parts, body) = response.into_parts();
        assert_eq!((parts.status.as_u16(), &parts.headers["content-type"]), (200, &EVENTS));
        assert_eq!(parts.headers["cache-control"], "no-store");
        let revision = parts.headers["x-kvdb-revision"].to_str().unwrap().parse().unwrap();
        Watch { revision, body: body.into_data_stream(), text: String::new() }
    }

    /// The next event, its lines joined; nothing at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.replace('\n', " "), rest.to_owned());
                self.text = rest;
                return Some(event);
            }
            let piece = tokio::time::timeout(Duration::from_secs(20), self.body.next());
            let piece = piece.await.expect("a piece in time")?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.unwrap());
        }
        events
    }
}

const EVENTS: http::HeaderValue = http::HeaderValue::from_static("text/event-stream");

async fn put(edge: &Edge, key: &str, value: &str) -> u64 {
    let put = edge.send(&format!("PUT /b/{key}"), &[], value).await;
    assert_eq!(put.status, 200);
    put.header("x-kvdb-revision").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_as_they_are_made_with_a_boundary_for_each_command() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let mut watch = Watch::open(&edge, "&prefix=a", &[]).await;
    let first = watch.revision;
    let at = format!("event: at id: {first} data: {{\"revision\":{first}}}");
    assert_eq!(watch.next().await.unwrap(), at);
    put(&edge, "other", "x").await;
    let source = "kvdb.set('a2', 'x\\ny') kvdb.set('a1', 7) kvdb.set('b', 1) kvdb.delete('a0')";
    put(&edge, "a0", "old").await;
    edge.send("PUT /b/scripts/s", &[], source).await;
    let ran = edge.ask("GET /b/scripts/s").await;
    let last: u64 = ran.header("x-kvdb-revision").parse().unwrap();
    let set = first + 2;
    assert_eq!(
        watch.events(6).await,
        [
            format!("event: set data: {{\"key\":\"a0\",\"value\":\"old\",\"revision\":{set}}}"),
            format!("event: commit id: {set} data: {{\"revision\":{set},\"changes\":1}}"),
            format!("event: delete data: {{\"key\":\"a0\",\"revision\":{last}}}"),
            format!("event: set data: {{\"key\":\"a1\",\"value\":7,\"revision\":{last}}}"),
            format!("event: set data: {{\"key\":\"a2\",\"value\":\"x\\ny\",\"revision\":{last}}}"),
            format!("event: commit id: {last} data: {{\"revision\":{last},\"changes\":3}}"),
        ]
    );
    edge.node.begin_shutdown();
    let end = format!("event: end data: {{\"reason\":\"shutdown\",\"revision\":{last}}}");
    assert_eq!((watch.next().await, watch.next().await), (Some(end), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_watch_is_refused() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b&read_key=r").await;
    for (line, status) in [
        ("HEAD /b/?watch&key=r", 400),
        ("GET /b/?watch&key=r&since=x", 400),
        ("GET /b/?watch", 403),
        ("GET /b/?watch&key=wrong", 401),
        ("GET /b/?watch&since=999999", 403),
        ("GET /none/?watch", 404),
        ("GET /b/?watch&key=r&since=999999", 503),
        ("GET /b/?watch&key=r&since=1", 410),
    ] {
        let refused = edge.send(line, &[JSON], "").await;
        assert_eq!(refused.status, status, "{line}: {}", refused.body);
        let [names, retry] =
            ["x-kvdb-revision", "retry-after"].map(|h| !refused.header(h).is_empty());
        assert_eq!((names, retry), (![400, 404].contains(&status), status == 503), "{line}");
        assert_eq!(refused.body.contains("revision_gone"), status == 410, "{}", refused.body);
    }
    let not_watched = edge.ask("GET /b/?watch=0&key=r").await;
    assert_eq!(not_watched.brief(), "200 ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_after_a_restart_until_the_history_is_purged() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let first = put(&edge, "k", "1").await;
    for value in ["2", "3"] {
        put(&edge, "k", value).await;
    }
    edge.node.shutdown().await.unwrap();
    // The directory stays locked as long as anybody has the node.
    let copy = tempfile::tempdir().unwrap();
    copy_all(&edge._directory.path().join("data"), &copy.path().join("data"));
    let edge = Edge::start_in(copy, Options::default()).await;
    let id = first.to_string();
    let mut watch = Watch::open(&edge, "&since=0", &[("last-event-id", &id)]).await;
    let events = watch.events(5).await;
    assert!(events[0].starts_with(&format!("event: at id: {first} ")), "{events:?}");
    assert!(events[1].contains("\"value\":2,") && events[3].contains("\"value\":3,"), "{events:?}");
    put(&edge, "k", "4").await;
    assert!(watch.next().await.unwrap().contains("\"value\":4,"));

    edge.node.snapshot().await.unwrap();
    let purged = || edge.node.status().purged_index == edge.node.status().applied_index;
    for _ in 0..1_000 {
        if purged() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(purged());
    let gone = edge.send("GET /b/?watch", &[("last-event-id", &id)], "").await;
    let revision = (first + 3).to_string();
    assert_eq!((gone.status, gone.header("x-kvdb-revision")), (410, revision.as_str()));
    let mut watch = Watch::open(&edge, "", &[("last-event-id", &revision)]).await;
    assert!(watch.next().await.unwrap().starts_with(&format!("event: at id: {revision} ")));
}

/// A client that is gone must not keep a place.
#[tokio::test(flavor = "multi_thread")]
async fn places_are_free_again_once_clients_are_gone() {
    let edge = Edge::start(Options::default()).await;
    edge.bucket("id=b").await;
    let mut open = Vec::new();
    let full = loop {
        let answer = edge.answer("GET /b/?watch", &[], "").await;
        if answer.status() != 200 {
            break answer.status();
        }
        open.push(answer);
    };
    assert_eq!((full.as_u16(), open.len()), (503, 1024));
    drop(open);
    for _ in 0..1_000 {
        if edge.answer("GET /b/?watch", &[], "").await.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no place");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if from.is_dir() {
            copy_all(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}
