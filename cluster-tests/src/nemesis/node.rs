//! What many faults need of a node: whether it is there, to end it, to start it, to ask who leads.
//!
//! Invariants:
//! - Nothing here panics over a node that ended by itself or that another fault has in its hands.
//! - Who leads is the node that says so of itself in the highest term; the others need not agree.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Arena;
use crate::http::Reply;
use crate::launch::ADMIN_KEY;
use crate::status::Status;
use crate::wait::holds;

/// Waits as [`crate::wait::try_until`] does, with a block in the place of the closure: the future of an
/// async closure that borrows cannot be shown to be [`Send`], which a [`super::Task`] is.
macro_rules! until {
    ($limit:expr, $check:expr) => {{
        let deadline = std::time::Instant::now() + $limit;
        loop {
            let checked: Result<_, String> = async { $check }.await;
            match checked {
                Ok(found) => break Ok(found),
                Err(last) if std::time::Instant::now() >= deadline => break Err(last),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }};
}
pub(super) use until;

/// How long a change of the members may take on the server, and a little more.
const CHANGE: Duration = Duration::from_secs(25);
/// How long there may be no leader: elections under other faults take their time.
const LEADER: Duration = Duration::from_secs(20);

/// A node that runs, drawn.
pub(super) fn draw(arena: &mut Arena) -> Option<u64> {
    let running = arena.cluster.running();
    arena.rng.choice(running)
}

/// Whether the cluster has the node and its process runs.
pub(super) fn runs(arena: &mut Arena, id: u64) -> bool {
    arena.cluster.ids().contains(&id) && arena.cluster.process(id).is_running()
}

/// Sends a signal, if there is somebody to get it.
pub(super) fn signal(arena: &mut Arena, id: u64, signal: Signal) {
    if runs(arena, id)
        && let Ok(pid) = i32::try_from(arena.cluster.process(id).pid())
    {
        // It may have ended since it was looked at.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// `kill -9`, and its end.
pub(super) fn end(arena: &mut Arena, id: u64) {
    signal(arena, id, Signal::SIGKILL);
    if arena.cluster.ids().contains(&id) {
        arena.cluster.process(id).reap();
    }
}

/// Starts a node unless it runs, or is no more.
pub(super) fn start(arena: &mut Arena, id: u64) {
    if arena.cluster.ids().contains(&id) && !runs(arena, id) {
        arena.cluster.restart(id);
    }
}

/// Waits until a node has ended; its exit status in words.
pub(super) async fn ended(arena: &mut Arena, id: u64, limit: Duration) -> Result<String, String> {
    let process = arena.cluster.process(id);
    until!(
        limit,
        match process.exit_status() {
            Some(status) => Ok(status.to_string()),
            None => holds(!process.is_running(), || format!("node {id} runs on"))
                .map(|()| "ended".to_owned()),
        }
    )
}

/// Waits until a node serves, be there a leader or not.
pub(super) async fn serves(arena: &mut Arena, id: u64, limit: Duration) -> Result<(), String> {
    until!(limit, {
        holds(runs(arena, id), || format!("node {id} has exited"))?;
        let probe = arena.cluster.http.get(arena.cluster.at(id, "/livez"));
        let reply = probe.timeout(Duration::from_secs(1)).send().await;
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("node {id}: /livez: {reply}"))
    })
}

/// What the leader says of the cluster.
pub(super) async fn leader(arena: &mut Arena) -> Result<Status, String> {
    let mut found: Option<Status> = None;
    for id in arena.cluster.running() {
        let Ok(status) = arena.cluster.try_status(id).await else { continue };
        let newer = found.as_ref().is_none_or(|found| found.term < status.term);
        if status.state == "leader" && newer {
            found = Some(status);
        }
    }
    found.ok_or_else(|| "no node says that it leads".to_owned())
}

/// The same, once there is one.
pub(super) async fn await_leader(arena: &mut Arena) -> Result<Status, String> {
    until!(LEADER, leader(arena).await)
}

/// Asks the leader for a change, once.
pub(super) async fn ask_leader(
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

/// Bytes of a file; 0 where there is none.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}
