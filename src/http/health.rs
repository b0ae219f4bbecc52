//! `/livez`, `/readyz` and `/metrics`, for those who watch; and what describes the API.

use axum::response::Response;
use http::{HeaderValue, StatusCode};

use super::Edge;
use super::answer::{JSON, TEXT, respond, text};
use crate::api::openapi;
use crate::metrics::{self, Standing};

/// Prometheus' text format.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// The process serves.
pub(super) fn live() -> Response {
    text("ok\n")
}

/// The node has caught up once, and is not shutting down.
pub(super) fn ready(edge: &Edge) -> Response {
    if edge.node.is_ready() {
        return text("ok\n");
    }
    respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".into())
}

/// Everything recorded, and where the node stands now.
pub(super) fn render(edge: &Edge) -> Response {
    let status = edge.node.status();
    let skew = edge.node.clock_skew();
    let (log_entries, log_syncs) = edge.node.log_activity();
    let (peer_messages, peer_bytes) = edge.node.peer_traffic();
    metrics::observe_standing(&Standing {
        is_leader: status.leader == Some(status.node_id),
        is_ready: edge.node.is_ready(),
        term: status.term,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        purged_index: status.purged_index,
        clock_offset_ms: skew.offset_ms,
        is_skewed: skew.is_skewed,
        log_entries,
        log_syncs,
        peer_messages,
        peer_bytes,
    });
    respond(StatusCode::OK, PROMETHEUS, metrics::render().into())
}

/// The API as OpenAPI.
pub(super) fn describe() -> Response {
    respond(StatusCode::OK, JSON, openapi::document().into())
}
