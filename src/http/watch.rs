//! `GET /BUCKET/?watch`: a bucket's changes as server-sent events, until one of the two has had enough.
//!
//! ```text
//! event: set                                              set, delete or expire
//! data: {"key":"a","value":"x","revision":8}              a number goes unquoted, as in a list
//!
//! event: commit                                           after all changes of a command
//! id: 8
//! data: {"revision":8,"changes":1}
//! ```
//!
//! A key that is no UTF-8 is `key_base64`, such a value `value_base64`. `at` has an id too: where
//! the watch stands, at first and whenever nothing has come for a while. Only these two do, so
//! that `Last-Event-ID` resumes between commands; changes whose `commit` did not come, come again. The last
//! event is `end`, and says why.
//!
//! A task of its own takes what the node tells and hands it to the connection in small pieces. It never
//! waits for long: a client that takes no piece within [`TAKE_TIME`] is cut, with `end` behind what
//! is under way already.

use std::io;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Edge;
use super::answer::{self, Outcome};
use super::call::Call;
use super::leader::patiently;
use crate::error::{Error, Failure, Result};
use crate::kv::BucketName;
use crate::kv::json::{is_number, push_string};
use crate::metrics::OpenWatch;
use crate::node::{Change, Commit, Event, Kind, Reason, Watch};

/// How long a client may take nothing of what it is sent.
const TAKE_TIME: Duration = Duration::from_secs(10);
/// Pieces that wait for a client.
const PIECES_MAX: usize = 4;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Has nginx pass events on as they come.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Begins a watch.
pub(super) async fn watch(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    if call.method == Method::HEAD {
        return Err(Error::invalid("a watch has no HEAD: GET it").into());
    }
    if call.origin.hops > 0 {
        return Err(Error::invalid("a watch is not handed on: every node serves it").into());
    }
    let since = since(call)?;
    let prefix = call.query.get("prefix").cloned().unwrap_or_default();
    let place = edge.room.watch()?;
    let credential = call.credential()?;
    let begin = async || {
        let begun = edge.node.watch(bucket, prefix.clone(), since, credential.clone()).await;
        match begun {
            // What no view was there for may be asked again.
            Err(Failure { error, revision: None }) => Err(error),
            begun => Ok(begun),
        }
    };
    let watch = patiently(begin).await.map_err(at_revision)??;
    let revision = watch.revision();
    let (client, body) = pipe(TAKE_TIME);
    tokio::spawn(run(watch, client, place));
    let mut response = answer::respond(StatusCode::OK, EVENT_STREAM, Bytes::new());
    *response.body_mut() = Body::from_stream(body);
    response.headers_mut().insert(BUFFERING, HeaderValue::from_static("no"));
    answer::set_revision(response.headers_mut(), revision);
    Ok(response)
}

/// An error with the revision that it names.
fn at_revision(error: Error) -> Failure {
    let revision = match &error {
        Error::RevisionGone { revision } | Error::Behind { revision, .. } => Some(*revision),
        _ => None,
    };
    Failure { error, revision }
}

/// The revision to resume behind: where the client says it got to, else what it was told to ask for.
fn since(call: &Call) -> Result<Option<u64>> {
    let number = |name: &str, text: &str| {
        let invalid = |_| Error::invalid(format!("`{name}` is a revision, not `{text}`"));
        text.parse().map(Some).map_err(invalid)
    };
    match call.texts(&LAST_EVENT_ID)?.last() {
        Some(text) if !text.is_empty() => number("Last-Event-ID", text),
        _ => call.query.text("since").map_or(Ok(None), |text| number("since", &text)),
    }
}

/// Passes on what the node tells, to the end of the watch or the client's.
async fn run(mut watch: Watch, mut client: Client, _place: OwnedSemaphorePermit) {
    let _open = OpenWatch::count();
    loop {
        let event = tokio::select! {
            biased;
            () = client.pieces.closed() => return,
            event = watch.next() => event,
        };
        let sent = match event {
            Ok(Event::Commit(commit)) => client.commit(&commit).await,
            Ok(Event::At(revision)) => client.send(at(revision)).await,
            Ok(Event::End(reason, revision)) => return client.end(Vec::new(), reason, revision),
            Err(error) => {
                // The connection breaks off: the client resumes, here or at another node.
                tracing::error!(%error, "a watch failed");
                return;
            }
        };
        match sent {
            Ok(()) => {}
            Err(Unsent::Gone) => return,
            Err(Unsent::Stuck(rest)) => {
                return client.end(rest, Reason::Slow, watch.revision());
            }
        }
    }
}

/// Where a watch is written to.
struct Client {
    pieces: mpsc::Sender<Bytes>,
    last: oneshot::Sender<Bytes>,
    time: Duration,
}

/// Why something was not sent.
enum Unsent {
    /// The client is gone.
    Gone,
    /// It does not read; this is left of the event.
    Stuck(Vec<u8>),
}

/// A client, and the body that it is sent: pieces, then the last one. A body whose last piece never comes
/// breaks off.
fn pipe(time: Duration) -> (Client, impl Stream<Item = io::Result<Bytes>>) {
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let (last, end) = oneshot::channel();
    let taken = stream::unfold(taken, async |mut taken| Some((Ok(taken.recv().await?), taken)));
    let end = async { end.await.map_err(|_| io::Error::other("the watch broke off")) };
    (Client { pieces, last, time }, taken.chain(stream::once(end)))
}

impl Client {
    async fn send(&mut self, text: Vec<u8>) -> std::result::Result<(), Unsent> {
        let mut rest = Bytes::from(text);
        while !rest.is_empty() {
            let room = match tokio::time::timeout(self.time, self.pieces.reserve()).await {
                Ok(room) => room.map_err(|_| Unsent::Gone)?,
                Err(_) => return Err(Unsent::Stuck(rest.into())),
            };
            room.send(rest.split_to(PIECE_BYTES.min(rest.len())));
        }
        Ok(())
    }

    /// Sends a command's changes, a piece or so at a time, and its boundary.
    async fn commit(&mut self, commit: &Commit) -> std::result::Result<(), Unsent> {
        let mut text = Vec::new();
        for change in &commit.changes {
            push_change(&mut text, change, commit.revision);
            if text.len() >= PIECE_BYTES {
                self.send(std::mem::take(&mut text)).await?;
            }
        }
        let Commit { revision, changes } = commit;
        let changes = changes.len();
        let data = format!(r#"{{"revision":{revision},"changes":{changes}}}"#);
        push_event(&mut text, "commit", Some(*revision), data.as_bytes());
        self.send(text).await
    }

    /// Sends the last event, behind what is left of the one before it. It has a place of its own, so
    /// that it gets there also where the client has left no room.
    fn end(self, mut text: Vec<u8>, reason: Reason, revision: u64) {
        let reason = reason.as_str();
        let data = format!(r#"{{"reason":"{reason}","revision":{revision}}}"#);
        push_event(&mut text, "end", None, data.as_bytes());
        // Fails where the client is gone, which ends the watch as well.
        let _ = self.last.send(text.into());
    }
}

fn at(revision: u64) -> Vec<u8> {
    let mut text = Vec::new();
    let data = format!(r#"{{"revision":{revision}}}"#);
    push_event(&mut text, "at", Some(revision), data.as_bytes());
    text
}

fn push_event(text: &mut Vec<u8>, event: &str, id: Option<u64>, data: &[u8]) {
    text.extend_from_slice(format!("event: {event}\n").as_bytes());
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    text.extend_from_slice(data);
    text.extend_from_slice(b"\n\n");
}

fn push_change(text: &mut Vec<u8>, change: &Change, revision: u64) {
    let mut data = b"{".to_vec();
    push_field(&mut data, "key", &change.key, false);
    let event = match &change.kind {
        Kind::Set(_) => "set",
        Kind::Delete => "delete",
        Kind::Expire => "expire",
    };
    if let Kind::Set(record) = &change.kind {
        push_field(&mut data, "value", &record.value, true);
    }
    data.extend_from_slice(format!(r#""revision":{revision}"#).as_bytes());
    if let Kind::Set(record) = &change.kind
        && let Some(expires_at) = record.expires_at
    {
        data.extend_from_slice(format!(r#","expires_at":{expires_at}"#).as_bytes());
    }
    data.push(b'}');
    push_event(text, event, None, &data);
}

/// Appends bytes as a field of an object: text or a number, or base64 where they are no text.
fn push_field(data: &mut Vec<u8>, name: &str, bytes: &[u8], numbers: bool) {
    let is_text = std::str::from_utf8(bytes).is_ok();
    let suffix = if is_text { "" } else { "_base64" };
    data.extend_from_slice(format!(r#""{name}{suffix}":"#).as_bytes());
    match is_text {
        true if numbers && is_number(bytes) => data.extend_from_slice(bytes),
        true => push_string(data, bytes),
        false => push_string(data, BASE64_STANDARD.encode(bytes).as_bytes()),
    }
    data.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;
    use crate::kv::Record;

    fn set(key: &[u8], value: &[u8], expires_at: Option<u64>) -> Change {
        let value = Bytes::copy_from_slice(value);
        let record = Record { version: 8, expires_at, content_type: None, value };
        Change { key: Bytes::copy_from_slice(key), kind: Kind::Set(record) }
    }

    #[test]
    fn changes_as_they_are_sent() {
        let shown = |change: &Change| {
            let mut text = Vec::new();
            push_change(&mut text, change, 8);
            String::from_utf8(text).unwrap()
        };
        let delete = |kind| Change { key: Bytes::from_static(b"k\n"), kind };
        for (change, expected) in [
            (set(b"k", b"x\ny\"", None), r#"set|{"key":"k","value":"x\ny\"","revision":8}"#),
            (
                set(b"1", b"1.50", Some(9)),
                r#"set|{"key":"1","value":1.50,"revision":8,"expires_at":9}"#,
            ),
            (set(b"k", b"", None), r#"set|{"key":"k","value":"","revision":8}"#),
            (
                set(b"\xff", b"\x00\xfe", None),
                r#"set|{"key_base64":"/w==","value_base64":"AP4=","revision":8}"#,
            ),
            (delete(Kind::Delete), r#"delete|{"key":"k\n","revision":8}"#),
            (delete(Kind::Expire), r#"expire|{"key":"k\n","revision":8}"#),
        ] {
            let (event, data) = expected.split_once('|').unwrap();
            assert_eq!(shown(&change), format!("event: {event}\ndata: {data}\n\n"));
        }
    }

    #[test]
    fn the_last_event_is_where_to_resume() {
        let since = |uri: &str, last: Option<&'static str>| {
            let mut request = http::Request::builder().uri(uri);
            if let Some(last) = last {
                request = request.header("last-event-id", last);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            since(&Call::new(parts, Origin::default()))
        };
        assert_eq!(since("/b/?watch", None), Ok(None));
        assert_eq!(since("/b/?watch&since=0", None), Ok(Some(0)));
        assert_eq!(since("/b/?watch&since=5", Some("7")), Ok(Some(7)));
        assert_eq!(since("/b/?watch&since=5", Some("")), Ok(Some(5)));
        assert!(matches!(since("/b/?watch&since=x", None), Err(Error::Invalid(_))));
        assert!(matches!(since("/b/?watch&since=5", Some("x")), Err(Error::Invalid(_))));
    }

    /// For a client that takes nothing.
    const TIME: Duration = Duration::from_millis(300);

    async fn all(body: impl Stream<Item = io::Result<Bytes>>) -> (String, bool) {
        let pieces: Vec<_> = body.collect().await;
        let whole = pieces.iter().all(io::Result::is_ok);
        let text = pieces.into_iter().flatten().flatten().collect();
        (String::from_utf8(text).unwrap(), whole)
    }

    #[tokio::test]
    async fn who_reads_nothing_is_cut_between_events() {
        let (mut client, body) = pipe(TIME);
        let value = vec![b'v'; PIECE_BYTES * (PIECES_MAX + 3)];
        let commit = Commit { revision: 8, changes: vec![set(b"k", &value, None)] };
        let Err(Unsent::Stuck(rest)) = client.commit(&commit).await else { panic!("was sent") };
        client.end(rest, Reason::Slow, 7);
        let (text, whole) = all(body).await;
        let events: Vec<_> = text.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 2, "no half event");
        assert!(events[0].ends_with(r#"v","revision":8}"#) && whole);
        assert_eq!(events[1], "event: end\ndata: {\"reason\":\"slow\",\"revision\":7}");
    }

    #[tokio::test]
    async fn who_reads_slowly_gets_everything() {
        let (mut client, body) = pipe(TIME);
        let value = vec![b'v'; PIECE_BYTES * 10];
        let commit = Commit { revision: 8, changes: vec![set(b"k", &value, None)] };
        let sent = tokio::spawn(async move {
            assert!(client.commit(&commit).await.is_ok());
            client.end(Vec::new(), Reason::Shutdown, 8);
        });
        let (text, whole) = all(body.then(async |piece| {
            tokio::time::sleep(TIME / 3).await;
            piece
        }))
        .await;
        sent.await.unwrap();
        let events: Vec<_> = text.split_terminator("\n\n").collect();
        assert!(whole && events[0].len() > value.len());
        assert_eq!(events[1], "event: commit\nid: 8\ndata: {\"revision\":8,\"changes\":1}");
        assert_eq!(events[2], "event: end\ndata: {\"reason\":\"shutdown\",\"revision\":8}");
    }

    #[tokio::test]
    async fn a_watch_that_failed_breaks_off() {
        let (mut client, body) = pipe(TIME);
        assert!(client.send(at(5)).await.is_ok());
        drop(client);
        let (text, whole) = all(body).await;
        assert_eq!((text.as_str(), whole), ("event: at\nid: 5\ndata: {\"revision\":5}\n\n", false));
    }
}
