//! Every metric once, as a function that records it; rendered in Prometheus' text format.
//!
//! Names are `kvdb_<noun>_<unit>`. Labels take few values each: never a bucket, key or script name,
//! or one caller could fill the memory of every scraper.

use std::collections::BTreeMap;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, Result};

/// How often samples are folded into histograms; else they would pile up where nobody scrapes.
pub const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From a read served from memory to a script that met its time limit, a factor of about 2 apart.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Route, method and status of an answer.
type Kind = (&'static str, &'static str, u16);

/// The metrics of each kind of answer. To find them by their labels takes allocations and a hash of all
/// of these, for every request.
static ANSWERS: RwLock<BTreeMap<Kind, (Counter, Histogram)>> = RwLock::new(BTreeMap::new());

/// Starts recording; before it, and without it, recording does nothing. Idempotent.
pub fn install() -> Result<()> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let fail =
        |e: metrics_exporter_prometheus::BuildError| Error::Internal(format!("metrics: {e}"));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .map_err(fail)?
        .install_recorder()
        .map_err(fail)?;
    describe();
    // Only the first of two racing calls got past `install_recorder`.
    let _ = HANDLE.set(handle);
    Ok(())
}

fn describe() {
    describe_histogram!("kvdb_http_request_seconds", "Time to answer, by route and status class.");
    describe_counter!("kvdb_http_requests", "Requests answered, by route, method and status.");
    describe_counter!("kvdb_http_redirects", "Script calls redirected to the leader.");
    describe_counter!("kvdb_http_forwards", "Requests proxied to the leader.");
    describe_counter!("kvdb_http_accept_errors", "Connections that could not be accepted.");
    describe_gauge!("kvdb_http_connections", "Open client connections.");
    describe_gauge!("kvdb_http_watches", "Watches that are open.");
    describe_gauge!("kvdb_raft_is_leader", "1 on the leader, else 0.");
    describe_gauge!("kvdb_raft_term", "The node's term.");
    describe_gauge!("kvdb_raft_last_log_index", "The last entry in the log.");
    describe_gauge!("kvdb_raft_committed_index", "The last entry known to be on a quorum.");
    describe_gauge!("kvdb_raft_applied_index", "The last entry in the state.");
    describe_gauge!("kvdb_raft_snapshot_index", "The last entry in the newest snapshot.");
    describe_gauge!("kvdb_raft_purged_index", "The last entry purged from the log.");
    describe_counter!("kvdb_raft_log_entries", "Entries appended to the log since the start.");
    describe_counter!("kvdb_raft_log_syncs", "Syncs of the log since the start.");
    describe_counter!("kvdb_raft_peer_messages", "Messages sent to peers, but for snapshots.");
    describe_counter!(
        "kvdb_raft_peer_bytes",
        "Bytes of messages sent to peers, but for snapshots."
    );
    describe_gauge!(
        "kvdb_clock_offset_seconds",
        "How far the clock is ahead of the voters' median."
    );
    describe_gauge!("kvdb_clock_skewed", "1 where the clock is too far away to lead with, else 0.");
    describe_gauge!("kvdb_node_ready", "1 where the node may be sent requests, else 0.");
}

/// Everything recorded so far; empty where [`install`] was not called.
#[must_use]
pub fn render() -> String {
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds samples into histograms every [`UPKEEP_EVERY`], until dropped.
pub async fn upkeep() {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

/// A request was answered.
pub fn observe_request(route: &'static str, method: &'static str, status: u16, took: Duration) {
    if HANDLE.get().is_none() {
        return;
    }
    let kind = (route, method, status);
    let known = ANSWERS.read().unwrap_or_else(PoisonError::into_inner).get(&kind).cloned();
    let (count, seconds) = known.unwrap_or_else(|| {
        let made = answer_metrics(kind);
        let mut answers = ANSWERS.write().unwrap_or_else(PoisonError::into_inner);
        answers.entry(kind).or_insert(made).clone()
    });
    count.increment(1);
    seconds.record(took.as_secs_f64());
}

fn answer_metrics((route, method, status): Kind) -> (Counter, Histogram) {
    let class = match status {
        0..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    };
    let count = counter!("kvdb_http_requests", "route" => route, "method" => method, "status" => status.to_string());
    (count, histogram!("kvdb_http_request_seconds", "route" => route, "class" => class))
}

/// A script call was sent to the leader by a redirect.
pub fn count_redirect() {
    counter!("kvdb_http_redirects").increment(1);
}

/// A request was proxied to the leader.
pub fn count_forward() {
    counter!("kvdb_http_forwards").increment(1);
}

/// A connection could not be accepted.
pub fn count_accept_error() {
    counter!("kvdb_http_accept_errors").increment(1);
}

/// An open connection, counted until it is dropped.
pub struct OpenConnection(());

impl OpenConnection {
    /// Counts one more.
    #[must_use]
    pub fn count() -> Self {
        gauge!("kvdb_http_connections").increment(1.0);
        OpenConnection(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!("kvdb_http_connections").decrement(1.0);
    }
}

/// A watch, counted until it is dropped.
pub struct OpenWatch(());

impl OpenWatch {
    /// Counts one more.
    #[must_use]
    pub fn count() -> Self {
        gauge!("kvdb_http_watches").increment(1.0);
        OpenWatch(())
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        gauge!("kvdb_http_watches").decrement(1.0);
    }
}

/// Where the node stands; taken when metrics are asked for.
pub struct Standing {
    /// Whether it leads.
    pub is_leader: bool,
    /// Whether it may be sent requests.
    pub is_ready: bool,
    /// Its term.
    pub term: u64,
    /// The last entry in its log.
    pub last_log_index: u64,
    /// The last entry that it knows to be on a quorum.
    pub committed_index: u64,
    /// The last entry in its state.
    pub applied_index: u64,
    /// The last entry in its newest snapshot.
    pub snapshot_index: u64,
    /// The last entry purged from its log.
    pub purged_index: u64,
    /// How far its clock is ahead of the voters' median, in milliseconds.
    pub clock_offset_ms: i64,
    /// Whether that is too far.
    pub is_skewed: bool,
    /// Entries appended to its log since it started.
    pub log_entries: u64,
    /// Syncs of its log since it started.
    pub log_syncs: u64,
    /// Messages that it has sent to peers since it started, but for snapshots.
    pub peer_messages: u64,
    /// Their bytes.
    pub peer_bytes: u64,
}

/// Sets the metrics of the node.
pub fn observe_standing(standing: &Standing) {
    gauge!("kvdb_raft_is_leader").set(flag(standing.is_leader));
    gauge!("kvdb_node_ready").set(flag(standing.is_ready));
    gauge!("kvdb_raft_term").set(index(standing.term));
    gauge!("kvdb_raft_last_log_index").set(index(standing.last_log_index));
    gauge!("kvdb_raft_committed_index").set(index(standing.committed_index));
    gauge!("kvdb_raft_applied_index").set(index(standing.applied_index));
    gauge!("kvdb_raft_snapshot_index").set(index(standing.snapshot_index));
    gauge!("kvdb_raft_purged_index").set(index(standing.purged_index));
    gauge!("kvdb_clock_offset_seconds").set(seconds(standing.clock_offset_ms));
    gauge!("kvdb_clock_skewed").set(flag(standing.is_skewed));
    counter!("kvdb_raft_log_entries").absolute(standing.log_entries);
    counter!("kvdb_raft_log_syncs").absolute(standing.log_syncs);
    counter!("kvdb_raft_peer_messages").absolute(standing.peer_messages);
    counter!("kvdb_raft_peer_bytes").absolute(standing.peer_bytes);
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats; exact below 2^53")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats; exact below 2^53")]
fn index(index: u64) -> f64 {
    index as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_and_rendered() {
        install().unwrap();
        install().unwrap();
        // A route of its own: other tests of this process answer real ones.
        observe_request("recorded", "GET", 200, Duration::from_micros(300));
        drop(OpenConnection::count());
        let text = render();
        for line in [
            r#"kvdb_http_requests{route="recorded",method="GET",status="200"} 1"#,
            r#"kvdb_http_request_seconds_bucket{route="recorded",class="ok",le="0.0005"} 1"#,
            "kvdb_http_connections ",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
