//! Whom a fault meets, and what every fault does to processes: stop, kill, let go, start again.
//!
//! Invariants:
//! - A node is drawn from those that run; who leads is asked when the fault is installed, not before.
//! - Nothing here panics because a node has died meanwhile: it says so.
//! - A command that may take long runs on a thread that clients do not use.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::Arena;
use crate::lab::{Disk, run};
use crate::wait::holds;

/// How long a process may take to be gone, or to stand still. A process whose disk is frozen is neither
/// before the disk is let go.
const STATE: Duration = Duration::from_secs(12);
/// How long a node may take to listen again. It replays its log before that.
const LISTENS: Duration = Duration::from_secs(30);
/// How long to look for a leader.
const LEADER: Duration = Duration::from_secs(8);
/// How often a state is looked at.
const POLL: Duration = Duration::from_millis(10);

/// One of the nodes that run.
pub fn one(arena: &mut Arena) -> Option<u64> {
    some(arena, 1).and_then(|ids| ids.first().copied())
}

/// This many of the nodes that run, in order.
pub fn some(arena: &mut Arena, count: usize) -> Option<Vec<u64>> {
    let mut running = arena.cluster.running();
    if count == 0 || running.len() < count {
        return None;
    }
    arena.rng.shuffle(&mut running);
    running.truncate(count);
    running.sort_unstable();
    Some(running)
}

/// As many nodes that run as can be missing: from one to a minority of the cluster.
pub fn minority(arena: &mut Arena) -> Option<Vec<u64>> {
    let most = arena.cluster.ids().len().saturating_sub(1) / 2;
    let count = if most == 0 { 0 } else { arena.rng.usize(1..=most) };
    some(arena, count)
}

/// So many nodes that run that the rest is no majority; not all of them, where there are more.
pub fn majority(arena: &mut Arena) -> Option<Vec<u64>> {
    let all = arena.cluster.ids().len();
    let least = all / 2 + 1;
    let most = (all.saturating_sub(1)).max(least);
    let count = arena.rng.usize(least..=most);
    some(arena, count)
}

/// Every node that runs.
pub fn all(arena: &mut Arena) -> Option<Vec<u64>> {
    let running = arena.cluster.running();
    (!running.is_empty()).then_some(running)
}

/// Nodes that run and whose disk no fault has.
pub fn with_free_disk(arena: &mut Arena) -> Vec<u64> {
    let mut running = arena.cluster.running();
    running.retain(|id| arena.lab.disk(*id).is_ok_and(|disk| !disk.is_claimed()));
    running
}

/// Does something to a node's disk that may take long, such as waiting until it is not busy.
pub fn on_disk<T>(
    arena: &mut Arena,
    id: u64,
    work: impl FnOnce(&mut Disk) -> Result<T, String>,
) -> Result<T, String> {
    let disk = arena.lab.disk(id)?;
    tokio::task::block_in_place(|| work(disk))
}

/// Whom a fault meets: drawn before, or whoever leads once it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// These nodes.
    Nodes(Vec<u64>),
    /// Whoever leads.
    Leader,
}

impl Whom {
    /// The nodes. Whoever leads is settled now, and stays settled.
    pub async fn settle(&mut self, arena: &mut Arena) -> Result<Vec<u64>, String> {
        if *self == Whom::Leader {
            *self = Whom::Nodes(vec![leader(arena).await?]);
        }
        Ok(self.nodes())
    }

    /// The nodes; none while it is not settled who leads.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        match self {
            Whom::Nodes(ids) => ids.clone(),
            Whom::Leader => Vec::new(),
        }
    }
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whom::Nodes(ids) => f.write_str(&list(ids)),
            Whom::Leader => f.write_str("whoever leads"),
        }
    }
}

/// Ids as a report shows them: `1 3`.
#[must_use]
pub fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// The node that says that it leads; the one of the newest term where several do. Nodes that stand still
/// are not asked.
pub async fn leader(arena: &mut Arena) -> Result<u64, String> {
    let deadline = Instant::now() + LEADER;
    loop {
        let mut newest: Option<(u64, u64)> = None;
        for id in awake(arena) {
            let Ok(status) = arena.cluster.try_status(id).await else { continue };
            if status.state == "leader" {
                newest = newest.max(Some((status.term, id)));
            }
        }
        match newest {
            Some((_, id)) => return Ok(id),
            None if Instant::now() > deadline => {
                return Err(format!("no node says within {LEADER:?} that it leads"));
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// The nodes that run and do not stand still.
pub fn awake(arena: &mut Arena) -> Vec<u64> {
    let mut running = arena.cluster.running();
    running.retain(|id| !pid(arena, *id).is_ok_and(stands_still));
    running
}

/// A node's process id, if it runs.
pub fn pid(arena: &mut Arena, id: u64) -> Result<u32, String> {
    let process = arena.cluster.process(id);
    if process.is_running() { Ok(process.pid()) } else { Err(format!("node {id} does not run")) }
}

/// Sends a node a signal, if it runs.
pub fn signal(arena: &mut Arena, id: u64, signal: Signal) -> Result<(), String> {
    // It cannot be another's: whoever has exited keeps its number until we have looked.
    let number = i32::try_from(pid(arena, id)?).map_err(|e| e.to_string())?;
    send(Pid::from_raw(number), signal).map_err(|e| format!("node {id}: {signal}: {e}"))
}

/// The letter of a process's state in `/proc`: `T` is stopped, `t` stopped under a tracer.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    state_in(&format!("/proc/{pid}/stat"))
}

fn state_in(path: &str) -> Option<char> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name before it is in parentheses, and may hold blanks and more of them.
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether all threads of a process are stopped.
#[must_use]
pub fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut states = threads
        .flatten()
        .filter_map(|thread| state_in(&thread.path().join("stat").to_string_lossy()));
    states.all(|state| matches!(state, 'T' | 't'))
}

/// Who traces a process.
#[must_use]
pub fn tracer(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// Stops nodes with SIGSTOP, and waits until no thread of them moves.
pub async fn pause(arena: &mut Arena, ids: &[u64]) -> Result<String, String> {
    for id in ids {
        signal(arena, *id, Signal::SIGSTOP)?;
    }
    let mut seen = Vec::new();
    for id in ids {
        let pid = pid(arena, *id)?;
        until(STATE, || {
            holds(stands_still(pid), || format!("node {id}: pid {pid} moves after SIGSTOP"))
        })
        .await?;
        seen.push(format!("{id}: pid {pid} in state {}", state(pid).unwrap_or('?')));
    }
    Ok(seen.join(", "))
}

/// Lets nodes go on; those that do not run stay as they are.
pub fn resume(arena: &mut Arena, ids: &[u64]) {
    for id in ids {
        // It has exited meanwhile: nothing is left to be undone.
        let _ = signal(arena, *id, Signal::SIGCONT);
    }
}

/// Kills nodes with SIGKILL, all before waiting for one, and waits until they are gone.
pub async fn kill(arena: &mut Arena, ids: &[u64]) -> Result<String, String> {
    let mut seen = Vec::new();
    for id in ids {
        if let Ok(pid) = pid(arena, *id) {
            signal(arena, *id, Signal::SIGKILL)?;
            seen.push((*id, pid));
        }
    }
    let mut lines = Vec::new();
    for (id, pid) in seen {
        gone(arena, id).await.map_err(|why| format!("{why} after SIGKILL"))?;
        holds(state(pid).is_none(), || format!("node {id}: pid {pid} is still in /proc"))?;
        lines.push(format!("{id}: pid {pid} gone"));
    }
    Ok(lines.join(", "))
}

/// Waits until a node's process is gone, however it ended.
pub async fn gone(arena: &mut Arena, id: u64) -> Result<(), String> {
    until(STATE, || {
        let running = arena.cluster.process(id).is_running();
        holds(!running, || format!("node {id} still runs"))
    })
    .await
}

/// Starts those of the nodes that do not run, and waits until each listens for clients.
pub async fn start(arena: &mut Arena, ids: &[u64]) -> Result<(), String> {
    // A node may have been removed for good meanwhile.
    let members = arena.cluster.ids();
    let ids: Vec<u64> = ids.iter().copied().filter(|id| members.contains(id)).collect();
    for id in &ids {
        if !arena.cluster.process(*id).is_running() {
            // Forgets the process that has exited.
            arena.cluster.process(*id).reap();
            arena.cluster.restart(*id);
        }
    }
    for id in ids {
        listens(arena, id).await?;
    }
    Ok(())
}

/// Waits until a node has a listening socket. Looked up, not tried: the network may be cut.
async fn listens(arena: &mut Arena, id: u64) -> Result<(), String> {
    let port = arena.cluster.url(id).rsplit(':').next().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| format!("node {id} has no port"))?;
    // A fault that has its disk keeps it from starting, and starts it when it is undone.
    let broken = arena.lab.disk(id).is_ok_and(|disk| disk.is_claimed());
    until(LISTENS, || match pid(arena, id) {
        Err(_) if broken => Ok(Ok(())),
        // Nothing to wait for any more.
        Err(_) => Ok(Err(format!("node {id} exited when it was started again"))),
        // Another fault has it: it need not listen before that is undone.
        Ok(pid) if stands_still(pid) => Ok(Ok(())),
        Ok(pid) if has_listener(pid, port) => Ok(Ok(())),
        Ok(_) => Err(format!("node {id} does not listen after {LISTENS:?}")),
    })
    .await?
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

/// Waits until the check is `Ok`, or returns why it last said no. As `wait::try_until`, for what can be
/// looked at without waiting: futures of async closures cannot be shown to move between threads.
pub async fn until<T>(
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= deadline => return Err(last),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Runs a command to its end, away from the threads that clients use.
pub async fn command(mut command: Command) -> Result<String, String> {
    blocking(move || run(&mut command)).await
}

/// Does work that may take long, away from the threads that clients use.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| format!("work on a thread of its own: {e}"))?
}

/// Splits ids at random, as evenly as can be; the second part is not smaller.
#[must_use]
pub fn halves(rng: &mut fastrand::Rng, mut ids: Vec<u64>) -> (Vec<u64>, Vec<u64>) {
    rng.shuffle(&mut ids);
    let mut rest = ids.split_off(ids.len() / 2);
    ids.sort_unstable();
    rest.sort_unstable();
    (ids, rest)
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

    #[test]
    fn halves_are_even_and_complete() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (a, b) = halves(&mut rng, (1..=5).collect());
        assert_eq!((a.len(), b.len()), (2, 3));
        let mut all = [a, b].concat();
        all.sort_unstable();
        assert_eq!(all, vec![1, 2, 3, 4, 5]);
    }
}
