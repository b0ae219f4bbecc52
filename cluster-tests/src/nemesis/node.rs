//! What is done to a node's process: stop it, let it go on, kill it, start it again; and what the kernel
//! says of it.
//!
//! Invariants:
//! - Nothing here panics because a node has ended, or was removed for good, meanwhile: it says so.
//! - Every wait has an end.

use std::time::Duration;

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Arena;
use super::until::until;
use crate::wait::holds;

/// How long a process may take to be gone, or to stand still. A process whose disk is frozen is neither
/// before the disk is let go.
const STATE: Duration = Duration::from_secs(12);
/// How long a node may take to listen again. It replays its log before that.
const LISTENS: Duration = Duration::from_secs(30);

/// Whether the cluster has the node and its process runs.
pub(super) fn runs(arena: &mut Arena, id: u64) -> bool {
    arena.cluster.ids().contains(&id) && arena.cluster.process(id).is_running()
}

/// A node's process id, if it runs.
pub(super) fn pid(arena: &mut Arena, id: u64) -> Result<u32, String> {
    holds(runs(arena, id), || format!("node {id} does not run"))?;
    Ok(arena.cluster.process(id).pid())
}

/// Sends a node a signal, if it runs.
pub(super) fn signal(arena: &mut Arena, id: u64, signal: Signal) -> Result<(), String> {
    // It cannot be another's: whoever has exited keeps its number until we have looked.
    let number = i32::try_from(pid(arena, id)?).map_err(|e| e.to_string())?;
    send(Pid::from_raw(number), signal).map_err(|e| format!("node {id}: {signal}: {e}"))
}

/// Stops nodes with SIGSTOP, and waits until no thread of them moves.
pub(super) async fn pause(arena: &mut Arena, ids: &[u64]) -> Result<String, String> {
    for id in ids {
        signal(arena, *id, Signal::SIGSTOP)?;
    }
    let mut seen = Vec::new();
    for id in ids {
        let pid = pid(arena, *id)?;
        let moves = || format!("node {id}: pid {pid} moves after SIGSTOP");
        until!(STATE, holds(stands_still(pid), moves))?;
        seen.push(format!("{id}: pid {pid} in state {}", state(pid).unwrap_or('?')));
    }
    Ok(seen.join(", "))
}

/// Lets nodes go on; those that do not run stay as they are.
pub(super) fn resume(arena: &mut Arena, ids: &[u64]) {
    for id in ids {
        // It has exited meanwhile: nothing is left to be undone.
        let _ = signal(arena, *id, Signal::SIGCONT);
    }
}

/// Kills those of the nodes that run with SIGKILL, all before waiting for one, and waits until they are
/// gone.
pub(super) async fn kill(arena: &mut Arena, ids: &[u64]) -> Result<String, String> {
    let mut seen = Vec::new();
    for id in ids {
        if let Ok(pid) = pid(arena, *id) {
            signal(arena, *id, Signal::SIGKILL)?;
            seen.push((*id, pid));
        }
    }
    let mut lines = Vec::new();
    for (id, pid) in seen {
        ended(arena, id, STATE).await.map_err(|why| format!("{why} after SIGKILL"))?;
        holds(state(pid).is_none(), || format!("node {id}: pid {pid} is still in /proc"))?;
        lines.push(format!("{id}: pid {pid} gone"));
    }
    Ok(lines.join(", "))
}

/// Waits until a node's process has ended; how, in words.
pub(super) async fn ended(arena: &mut Arena, id: u64, limit: Duration) -> Result<String, String> {
    until!(limit, {
        holds(!runs(arena, id), || format!("node {id} runs on"))?;
        let there = arena.cluster.ids().contains(&id);
        let status = if there { arena.cluster.process(id).exit_status() } else { None };
        Ok(status.map_or_else(|| "ended".to_owned(), |status| status.to_string()))
    })
}

/// Starts a node unless it runs, or was removed for good meanwhile; waits for nothing.
pub(super) fn launch(arena: &mut Arena, id: u64) {
    if arena.cluster.ids().contains(&id) && !runs(arena, id) {
        // Forgets the process that has exited.
        arena.cluster.process(id).reap();
        arena.cluster.restart(id);
    }
}

/// Starts those of the nodes that do not run, and waits until each listens for clients.
pub(super) async fn start(arena: &mut Arena, ids: &[u64]) -> Result<(), String> {
    for id in ids {
        launch(arena, *id);
    }
    for id in ids {
        if arena.cluster.ids().contains(id) {
            listens(arena, *id).await?;
        }
    }
    Ok(())
}

/// Waits until a node has a listening socket. Looked up, not tried: the network may be cut.
async fn listens(arena: &mut Arena, id: u64) -> Result<(), String> {
    let port = arena.cluster.url(id).rsplit(':').next().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| format!("node {id} has no port"))?;
    // A fault that has its disk keeps it from starting, and starts it when it is undone.
    let broken = arena.lab.disk(id).is_ok_and(|disk| disk.is_claimed());
    until!(
        LISTENS,
        match pid(arena, id) {
            Err(_) if broken => Ok(Ok(())),
            // Nothing to wait for any more.
            Err(_) => Ok(Err(format!("node {id} exited when it was started again"))),
            Ok(pid) if stands_still(pid) || has_listener(pid, port) => Ok(Ok(())),
            Ok(_) => Err(format!("node {id} does not listen after {LISTENS:?}")),
        }
    )?
}

/// The letter of a process's state in `/proc`: `T` is stopped, `t` stopped under a tracer.
fn state(pid: u32) -> Option<char> {
    state_in(&format!("/proc/{pid}/stat"))
}

fn state_in(path: &str) -> Option<char> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name before it is in parentheses, and may hold blanks and more of them.
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether all threads of a process are stopped.
pub(super) fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut states = threads
        .flatten()
        .filter_map(|thread| state_in(&thread.path().join("stat").to_string_lossy()));
    states.all(|state| matches!(state, 'T' | 't'))
}

/// Who traces a process.
pub(super) fn tracer(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// Whether a TCP socket listens on a port, in the network namespace of a process.
fn has_listener(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().is_some_and(|local| local.ends_with(&suffix));
        local && words.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_read_behind_the_name() {
        assert!(matches!(state(std::process::id()), Some('R' | 'S')));
        assert_eq!(state(u32::MAX), None);
        assert!(!stands_still(std::process::id()));
    }

    #[test]
    fn listeners_are_seen_and_told_from_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(has_listener(std::process::id(), port));
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap().port();
        assert!(!has_listener(std::process::id(), own));
    }
}
