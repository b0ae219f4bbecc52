//! What a node does with its damage: it refuses to serve, mends itself, or does not mind.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::nemesis::until::until;
use crate::nemesis::{Arena, node};
use crate::wait::holds;

/// How long a node may take until it is ready or has exited.
const DECIDE: Duration = Duration::from_secs(12);
/// How long a read may be refused because nobody leads.
const READ: Duration = Duration::from_secs(10);
/// Keys of a page when everything is read.
const PAGE: usize = 5000;
/// Pages of a bucket that are read.
const PAGES_MAX: usize = 200;
/// Lines of a log that say that a node mended itself.
const MENDED: [&str; 2] = ["cutting a torn tail", "snapshot installed"];

/// The outcome of a damage, and what showed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It exited, never served, or failed reads.
    Refused(String),
    /// It serves, and said what it mended.
    Repaired(String),
    /// It serves.
    Harmless,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Refused(said) => write!(f, "outcome=refused; {said}"),
            Outcome::Repaired(said) => write!(f, "outcome=repaired; {said}"),
            Outcome::Harmless => write!(f, "outcome=harmless"),
        }
    }
}

/// Watches a node that was just started until it has exited, or serves and has read everything that it
/// holds: a damaged block may lie where nothing looks at it during the start.
pub(super) async fn watch(arena: &mut Arena, id: u64, log_before: u64) -> Outcome {
    let ready = until!(DECIDE, {
        if !node::runs(arena, id) {
            return Ok(false);
        }
        arena.cluster.try_node_ready(id).await.map(|()| true)
    });
    let read = match ready {
        Ok(true) => read_all(arena, id).await,
        Ok(false) => Err("it exited".to_owned()),
        Err(last) => Err(format!("not ready after {DECIDE:?}: {last}")),
    };
    let log = log_since(arena.cluster.process(id).log(), log_before);
    if let Err(why) = read {
        return Outcome::Refused(refusal(arena, id, &why, &log));
    }
    let mended = log.lines().find(|line| MENDED.iter().any(|words| line.contains(words)));
    mended.map_or(Outcome::Harmless, |line| Outcome::Repaired(without_time(line)))
}

/// How it refused; a crash is one, and nothing that was planned.
fn refusal(arena: &mut Arena, id: u64, why: &str, log: &str) -> String {
    let exit = arena.cluster.process(id).exit_status();
    let said = reason(log);
    let in_order = exit.is_some_and(|exit| exit.code() == Some(1)) && !log.contains("panicked at");
    if exit.is_some() && !in_order {
        let exit = exit.map(|exit| exit.to_string()).unwrap_or_default();
        arena.troubles.push(format!("node {id} crashed over its damage: {exit}: {said}"));
    }
    format!("{why}: {said}")
}

/// The line of a log that names the damage, or its last.
fn reason(log: &str) -> String {
    let lines = || log.lines().rev().filter(|line| !line.trim().is_empty());
    let telling = lines().find(|line| line.contains("corrupt") || line.contains("cannot go on"));
    telling.or_else(|| lines().next()).map(without_time).unwrap_or_default()
}

/// A line without the time that it begins with, of bearable length.
fn without_time(line: &str) -> String {
    let line = line.trim();
    let rest = line.split_once("Z ").filter(|(time, _)| !time.contains(' ')).map(|(_, rest)| rest);
    rest.unwrap_or(line).trim().chars().take(300).collect()
}

fn log_since(path: &Path, before: u64) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let before = usize::try_from(before).unwrap_or(usize::MAX);
    String::from_utf8_lossy(bytes.get(before..).unwrap_or_default()).into_owned()
}

/// Reads all keys of all buckets that this may read, from the node itself.
async fn read_all(arena: &mut Arena, id: u64) -> Result<(), String> {
    let digest = until!(READ, arena.cluster.try_digest(id).await)?;
    for bucket in digest.buckets.iter().filter(|bucket| bucket.keys > 0) {
        let mut start = String::new();
        for _ in 0..PAGES_MAX {
            match read_page(arena, id, &bucket.name, &start).await? {
                Some(last) => start = format!("{last}%00"),
                None => break,
            }
        }
    }
    holds(node::runs(arena, id), || "it exited while it was read".to_owned())
}

/// Reads a page; its last key where there are more. An answer that is missing because nobody leads says
/// nothing of the node, so it is asked for again; one that names an error of its own does.
async fn read_page(
    arena: &mut Arena,
    id: u64,
    bucket: &str,
    start: &str,
) -> Result<Option<String>, String> {
    let path = format!("/{bucket}/?values=true&format=json&limit={PAGE}&start={start}");
    let reply = until!(READ, {
        holds(node::runs(arena, id), || "it exited while it was read".to_owned())?;
        let reply = arena.cluster.http.get(arena.cluster.at(id, &path)).send().await;
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status != 503, || format!("reading `{bucket}` answers {reply}"))?;
        Ok(reply)
    })?;
    let text = reply.text();
    let why = || format!("reading `{bucket}` answers {}: {text}", reply.status);
    holds(reply.status < 500, why)?;
    // One that needs a key is not for us to read.
    let rows: Vec<(String, String)> = serde_json::from_str(&text).unwrap_or_default();
    let more = reply.header("x-kvdb-truncated") == Some("true") || rows.len() == PAGE;
    Ok(rows.into_iter().next_back().map(|(key, _)| key).filter(|_| more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_shown_without_its_time() {
        let log = "2026-11-24T06:13:00.463838Z  INFO serving\n\
                   kvdb: corrupt raft log: x is damaged at 17\n\nRead docs.\n";
        assert_eq!(reason(log), "kvdb: corrupt raft log: x is damaged at 17");
        assert_eq!(reason("2026-11-24T06:13:00.463838Z  INFO serving"), "INFO serving");
        assert_eq!(reason(""), "");
    }
}
