//! What the cluster is asked, and what the leader is asked to change.
//!
//! Invariants:
//! - Who leads is the node that says so of itself in the highest term; the others need not agree.
//! - Nodes that stand still are not asked: they would not answer, and each would cost a probe's time.

use std::time::Duration;

use super::until::until;
use super::{Arena, pick};
use crate::http::Reply;
use crate::launch::ADMIN_KEY;
use crate::status::Status;
use crate::wait::holds;

/// How long a change of the members may take on the server, and a little more.
const CHANGE: Duration = Duration::from_secs(25);

/// What the leader says of the cluster.
pub(crate) async fn leader(arena: &mut Arena) -> Result<Status, String> {
    let mut found: Option<Status> = None;
    for id in pick::awake(arena) {
        let Ok(status) = arena.cluster.try_status(id).await else { continue };
        let newer = found.as_ref().is_none_or(|found| found.term < status.term);
        if status.state == "leader" && newer {
            found = Some(status);
        }
    }
    found.ok_or_else(|| "no node says that it leads".to_owned())
}

/// The same, once there is one.
pub(super) async fn await_leader(arena: &mut Arena, limit: Duration) -> Result<Status, String> {
    until!(limit, leader(arena).await).map_err(|last| format!("{last}, within {limit:?}"))
}

/// Asks the leader for a change, once.
pub(super) async fn change(
    arena: &mut Arena,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Reply, String> {
    let id = leader(arena).await?.node_id;
    let call = arena.cluster.http.call(method, arena.cluster.at(id, path)).body(body);
    let call = call.bearer(ADMIN_KEY).header("content-type", "application/json");
    let reply = call.timeout(CHANGE).send().await.map_err(|failure| failure.reason)?;
    holds(reply.status < 300, || format!("node {id}: {method} {path}: {reply}"))?;
    Ok(reply)
}

/// Waits until a node is ready.
pub(super) async fn await_ready(arena: &mut Arena, id: u64, limit: Duration) -> Result<(), String> {
    until!(limit, arena.cluster.try_node_ready(id).await)
        .map_err(|last| format!("node {id} is not ready within {limit:?}: {last}"))
}
