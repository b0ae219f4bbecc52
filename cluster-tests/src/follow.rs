//! A client that follows a bucket by its watch: breaks off now and then, resumes at any node where it left
//! off, and keeps what it was told.
//!
//! Invariants:
//! - What a follower keeps are whole commands: changes whose boundary did not come are forgotten, and must
//!   come again.
//! - What cannot be of one history is found as it comes: a boundary that does not count its changes, a
//!   revision twice or out of order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a node may be silent: it says where a watch stands more often.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Before it tries another node.
const PAUSE: Duration = Duration::from_millis(20);
/// Commands after which it breaks off, at most.
const STRETCH_MAX: usize = 400;

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The bucket's revision after it.
    pub revision: u64,
    /// Keys and their new values; none where they were removed.
    pub changes: Vec<(String, Option<String>)>,
}

/// What a follower was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Commands, in the order they came.
    pub commits: Vec<Commit>,
    /// Connections that it took.
    pub connections: u64,
}

impl Told {
    /// What the keys hold after all commands.
    #[must_use]
    pub fn folded(&self) -> BTreeMap<&str, &str> {
        let mut keys = BTreeMap::new();
        for (key, value) in self.commits.iter().flat_map(|commit| &commit.changes) {
            match value {
                Some(value) => keys.insert(key.as_str(), value.as_str()),
                None => keys.remove(key.as_str()),
            };
        }
        keys
    }

    /// Fails unless the revisions are those behind `since`, each once and in order, up to `last`.
    pub fn check_whole(&self, since: u64, last: u64) -> Result<(), String> {
        let mut expected = since;
        for commit in &self.commits {
            expected += 1;
            if commit.revision != expected {
                return Err(format!("revision {} came where {expected} does", commit.revision));
            }
        }
        if expected == last {
            return Ok(());
        }
        Err(format!("it ends at revision {expected}, and the bucket at {last}"))
    }
}

/// A client that follows.
pub struct Follower {
    until: watch::Sender<u64>,
    told: JoinHandle<Result<Told, String>>,
}

impl Follower {
    /// Follows a bucket from behind a revision, at any of these nodes.
    #[must_use]
    pub fn start(urls: Vec<String>, bucket: &str, since: u64) -> Self {
        let (until, reached) = watch::channel(u64::MAX);
        let (path, at) = (format!("/{bucket}/?watch"), Stream::new(since));
        let told = tokio::spawn(follow(urls, path, at, reached));
        Follower { until, told }
    }

    /// Waits until it was told everything up to a revision.
    ///
    /// # Panics
    /// When it was told what cannot be, or not enough within the limit.
    pub async fn finish(self, revision: u64, limit: Duration) -> Told {
        self.until.send_replace(revision);
        let told = tokio::time::timeout(limit, self.told).await;
        let told = told.unwrap_or_else(|_| panic!("not at revision {revision} after {limit:?}"));
        match told.expect("a follower does not panic") {
            Ok(told) => told,
            Err(reason) => panic!("a watch told what cannot be: {reason}"),
        }
    }
}

async fn follow(
    urls: Vec<String>,
    path: String,
    mut stream: Stream,
    mut until: watch::Receiver<u64>,
) -> Result<Told, String> {
    let client = reqwest::Client::builder().no_proxy().read_timeout(SILENCE_MAX).build();
    let client = client.map_err(|error| error.to_string())?;
    while stream.revision < *until.borrow() {
        let url = fastrand::choice(&urls).ok_or("no nodes")?;
        let request = client.get(format!("{url}{path}"));
        let request = request.header("last-event-id", stream.revision.to_string()).send();
        stream.begin();
        if let Ok(mut response) = request.await
            && response.status() == 200
        {
            let enough = stream.told.commits.len() + fastrand::usize(1..STRETCH_MAX);
            while stream.told.commits.len() < enough && stream.revision < *until.borrow_and_update()
            {
                let piece = tokio::select! {
                    piece = response.chunk() => piece,
                    _ = until.changed() => continue,
                };
                let Ok(Some(piece)) = piece else { break };
                stream.take(&piece)?;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(stream.told)
}

/// What came so far.
struct Stream {
    told: Told,
    revision: u64,
    bytes: Vec<u8>,
    /// Changes without their boundary.
    changes: Vec<(String, Option<String>)>,
}

impl Stream {
    fn new(revision: u64) -> Self {
        let (told, bytes, changes) = Default::default();
        Stream { told, revision, bytes, changes }
    }

    /// Forgets what was half there.
    fn begin(&mut self) {
        self.bytes.clear();
        self.changes.clear();
        self.told.connections += 1;
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(piece);
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.bytes.split_off(end + 2);
            let event = std::mem::replace(&mut self.bytes, rest);
            let event = String::from_utf8(event).map_err(|error| error.to_string())?;
            self.event(&event).map_err(|reason| format!("{reason}: {event:?}"))?;
        }
        Ok(())
    }

    fn event(&mut self, event: &str) -> Result<(), String> {
        let field =
            |name| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let data: Value =
            serde_json::from_str(field("data").unwrap_or_default()).map_err(|e| e.to_string())?;
        let number = |name| data.get(name).and_then(Value::as_u64).ok_or("a number is missing");
        let revision = number("revision")?;
        let new = revision > self.revision;
        match field("event") {
            Some("set") if new => {
                let value = data.get("value").ok_or("no value")?;
                self.changes.push((key(&data)?, Some(text(value))));
            }
            Some("delete" | "expire") if new => self.changes.push((key(&data)?, None)),
            Some("commit") if new => self.commit(revision, number("changes")?)?,
            Some("at") if self.changes.is_empty() && revision >= self.revision => {
                self.revision = revision;
            }
            Some("end") => {}
            _ => return Err(format!("it does not belong behind revision {}", self.revision)),
        }
        Ok(())
    }

    fn commit(&mut self, revision: u64, count: u64) -> Result<(), String> {
        let changes = std::mem::take(&mut self.changes);
        if count != changes.len() as u64 || count == 0 {
            return Err(format!("a boundary behind {} changes", changes.len()));
        }
        self.revision = revision;
        self.told.commits.push(Commit { revision, changes });
        Ok(())
    }
}

fn key(data: &Value) -> Result<String, String> {
    data.get("key").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| "no key".to_owned())
}

/// A value as it was written, also where it goes unquoted.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &str = "event: set\ndata: {\"key\":\"a\",\"value\":7,\"revision\":6}\n\n";
    const DELETE: &str = "event: delete\ndata: {\"key\":\"b\",\"revision\":6}\n\n";
    const COMMIT: &str = "event: commit\nid: 6\ndata: {\"revision\":6,\"changes\":2}\n\n";

    fn taken(pieces: &[&str]) -> Result<Stream, String> {
        let mut stream = Stream::new(5);
        for piece in pieces {
            stream.take(piece.as_bytes())?;
        }
        Ok(stream)
    }

    #[test]
    fn whole_commands_are_kept_however_they_come() {
        let next = SET.replace(":6", ":7");
        let stream = taken(&[&SET[..9], &SET[9..], DELETE, COMMIT, &next]);
        let stream = stream.unwrap_or_else(|e| panic!("{e}"));
        let changes = vec![("a".to_owned(), Some("7".to_owned())), ("b".to_owned(), None)];
        assert_eq!(stream.told.commits, [Commit { revision: 6, changes }]);
        assert_eq!(stream.told.folded(), BTreeMap::from([("a", "7")]));
        assert_eq!(stream.told.check_whole(5, 6), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_found() {
        for pieces in [
            &[SET, COMMIT][..],
            &[COMMIT],
            &[SET, DELETE, COMMIT, SET, DELETE, COMMIT],
            &["event: at\nid: 4\ndata: {\"revision\":4}\n\n"],
            &[SET, "event: at\nid: 6\ndata: {\"revision\":6}\n\n"],
        ] {
            assert!(taken(pieces).is_err(), "{pieces:?}");
        }
        let told = |revisions: &[u64]| {
            let commit = |revision: &u64| Commit { revision: *revision, changes: Vec::new() };
            Told { commits: revisions.iter().map(commit).collect(), connections: 1 }
        };
        assert!(told(&[6, 7, 8]).check_whole(5, 8).is_ok());
        for revisions in [&[6, 8][..], &[6, 6, 7], &[7, 8], &[6, 7], &[6, 7, 8, 9]] {
            assert!(told(revisions).check_whole(5, 8).is_err(), "{revisions:?}");
        }
    }
}
