//! What is read once the clients have stopped and every fault is undone: what became of the calls whose
//! outcome is unknown, and what every node holds.
//!
//! A call that its client gave up may still be on its way into a node that stood still. So nothing is read
//! before the applied index of every node has stood still for longer than a call can wait inside.

use std::time::{Duration, Instant};

use super::answer::{code, rows, version};
use super::{NAMES, leaves_row};
use crate::cluster::Cluster;
use crate::history::{Dump, Operation, Outcome, Resolution};
use crate::http::Reply;
use crate::wait::{self, holds};

/// How long a cluster is quiet before nothing is thought to be on its way: longer than a node looks for a
/// leader, and then runs a script.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to become quiet.
const QUIET_LIMIT: Duration = Duration::from_secs(60);
/// How long one row, or one node's dump, may take, with all that is tried again.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Rows in a page of a list.
const PAGE_ROWS: usize = 5000;
/// Most pages of a bucket.
const PAGES_MAX: usize = 2000;

/// Waits until the cluster is quiet, then finds out what became of the script calls whose outcome is
/// unknown, by the rows that they leave. All nodes of the cluster must run and be members, and nobody may
/// write. Returns how many were unknown and are not any more. What is dumped afterwards is the end.
pub async fn resolve(operations: &mut [Operation], cluster: &Cluster) -> Result<usize, String> {
    let mut open: Vec<&mut Operation> = operations.iter_mut().filter(|o| is_open(o)).collect();
    quiet(cluster).await?;
    let mut nodes = cluster.ids().into_iter().cycle();
    for operation in &mut open {
        let path = format!("/{}/op%2F{}", operation.workload, operation.id);
        let found = wait::try_until(READ_LIMIT, async || {
            let node = nodes.next().ok_or("the cluster has no nodes")?;
            let call = cluster.http.get(cluster.at(node, &path)).timeout(ATTEMPT);
            let reply = call.header("accept", "application/json").send().await;
            resolution(&reply.map_err(|failure| failure.reason)?)
        })
        .await?;
        if let Outcome::Unknown { resolution, .. } = &mut operation.outcome {
            *resolution = found;
        }
    }
    Ok(open.len())
}

fn is_open(operation: &Operation) -> bool {
    let unknown =
        matches!(operation.outcome, Outcome::Unknown { resolution: Resolution::None, .. });
    unknown && leaves_row(&operation.action, operation.id)
}

/// What the row of an operation tells: its version is the revision at which it was written.
fn resolution(reply: &Reply) -> Result<Resolution, String> {
    match reply.status {
        200 => {
            let revision = version(reply).ok_or_else(|| format!("no version: {reply}"))?;
            Ok(Resolution::Applied(revision))
        }
        404 if code(reply).as_deref() == Some("key_not_found") => Ok(Resolution::NotApplied),
        _ => Err(format!("the row of an operation: {reply}")),
    }
}

/// Waits until every node has applied the same, and nothing more for a while.
async fn quiet(cluster: &Cluster) -> Result<(), String> {
    let (mut last, mut since) = (None, Instant::now());
    wait::try_until(QUIET_LIMIT, async || {
        let mut applied = Vec::new();
        for node in cluster.ids() {
            applied.push(cluster.try_status(node).await?.applied_index);
        }
        if last.as_ref() != Some(&applied) {
            (last, since) = (Some(applied.clone()), Instant::now());
        }
        let same = applied.iter().all(|index| Some(index) == applied.first());
        holds(same, || format!("nodes have applied as far as {applied:?}"))?;
        let still = since.elapsed() >= QUIET;
        holds(still, || format!("something is still written: applied as far as {applied:?}"))
    })
    .await
}

/// Everything that a node holds in the workloads' buckets, read from itself, and the digest that belongs to
/// it. Nobody may write meanwhile.
pub async fn dump(cluster: &Cluster, node: u64) -> Result<Dump, String> {
    wait::try_until(READ_LIMIT, async || {
        let before = cluster.try_digest(node).await?;
        let mut buckets = Vec::new();
        for bucket in before.buckets.iter().filter(|b| NAMES.contains(&b.name.as_str())) {
            buckets.push((bucket.name.clone(), all_rows(cluster, node, &bucket.name).await?));
        }
        let after = cluster.try_digest(node).await?;
        holds(before == after, || format!("node {node} was written to while it was read"))?;
        let (applied_index, digest) = (after.applied_index, after.digest);
        Ok(Dump { node, applied_index, digest, buckets })
    })
    .await
}

/// All rows of a bucket, page by page.
async fn all_rows(
    cluster: &Cluster,
    node: u64,
    bucket: &str,
) -> Result<Vec<(String, String)>, String> {
    let (mut all, mut start): (Vec<(String, String)>, _) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let path = format!("/{bucket}/?values&format=json&limit={PAGE_ROWS}&start={start}");
        let call = cluster.http.get(cluster.at(node, &path)).timeout(ATTEMPT);
        let reply = call.send().await.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("node {node}, a list of `{bucket}`: {reply}"))?;
        let page = rows(&reply.body).ok_or_else(|| format!("node {node}: no list: {reply}"))?;
        let full = page.len() == PAGE_ROWS;
        all.extend(page);
        match all.last() {
            // The smallest key after the last one.
            Some((last, _)) if full => start = format!("{}%00", escaped(last)),
            _ => return Ok(all),
        }
    }
    Err(format!("node {node}: `{bucket}` has more than {PAGES_MAX} pages"))
}

/// A key as it goes into a query.
fn escaped(key: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'/' | b'_' => char::from(byte).into(),
        byte => format!("%{byte:02X}"),
    };
    key.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer};
    use super::*;
    use crate::history::{Action, Micro};
    use crate::http::Http;

    #[test]
    fn keys_are_escaped() {
        assert_eq!(escaped("op/17"), "op/17");
        assert_eq!(escaped("a&b=ü%"), "a%26b%3D%C3%BC%25");
    }

    async fn told(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> String {
        let fake = Fake::start(move |_| answer(status, headers, body)).await;
        let reply = Http::default().get(format!("{}/b/op%2F1", fake.url)).send().await.unwrap();
        format!("{:?}", resolution(&reply)).chars().take(15).collect()
    }

    #[tokio::test]
    async fn rows_tell_what_became_of_a_call() {
        assert_eq!(told(200, &[("etag", "\"17\"")], "append").await, "Ok(Applied(17))");
        let missing = r#"{"error":{"code":"key_not_found","message":"x"}}"#;
        assert_eq!(told(404, &[], missing).await, "Ok(NotApplied)");
        let no_bucket = r#"{"error":{"code":"bucket_not_found","message":"x"}}"#;
        assert!(told(404, &[], no_bucket).await.starts_with("Err"));
        assert!(told(503, &[], "").await.starts_with("Err"));
        assert!(told(200, &[], "no version").await.starts_with("Err"));
    }

    #[test]
    fn only_unknown_calls_with_rows_are_open() {
        let unknown = |resolution| Outcome::Unknown { reason: String::new(), resolution };
        let open = |action, outcome| {
            is_open(&Operation {
                id: 1,
                workload: "append".into(),
                client: 1,
                node: 1,
                action,
                began: 0,
                ended: 1,
                outcome,
            })
        };
        let append = || Action::Append { steps: vec![Micro::Append(1, 2)] };
        let read = Action::Append { steps: vec![Micro::Read(1)] };
        assert!(open(append(), unknown(Resolution::None)));
        assert!(!open(append(), unknown(Resolution::NotApplied)));
        assert!(!open(append(), Outcome::Refused { reason: String::new() }));
        assert!(!open(read, unknown(Resolution::None)));
        assert!(!open(Action::Get { key: "k".into() }, unknown(Resolution::None)));
    }
}
