//! The databases: how each is started, loaded, killed and asked whether it is well.
//!
//! Each has durable settings and its defaults else. Their data is in directories of this run, their ports are
//! free ones, and they are killed when they are dropped.

pub mod child;
pub mod etcd;
pub mod load;
pub mod ours;
pub mod redis;
pub mod tarantool;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use load::Load;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long a cluster may take until it is well.
pub const READY: Duration = Duration::from_secs(120);

/// A cluster of three that rows measure in the same way: ours, or etcd.
pub trait System {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Where its nodes serve clients.
    fn urls(&self) -> Vec<String>;
    /// Its nodes' processes, in the order of the URLs.
    fn pids(&self) -> Vec<u32>;
    /// Which node leads, by its place among the URLs; all nodes that run agree.
    ///
    /// # Errors
    /// When there is none for long.
    fn leader(&mut self) -> Result<usize, String>;
    /// One small write, tried on each node in turn.
    ///
    /// # Errors
    /// When none takes it.
    fn write_once(&mut self) -> Result<(), String>;
    /// Sets keys, many at once.
    ///
    /// # Errors
    /// When it fails.
    fn load(&mut self, load: &Load) -> Result<(), String>;
    /// Starts all nodes that do not run; waits for nothing.
    ///
    /// # Errors
    /// When one cannot be started.
    fn start(&mut self) -> Result<(), String>;
    /// `kill -9` of all nodes at once.
    fn kill_all(&mut self);

    /// Starts what does not run, and waits until there is a leader that takes writes.
    ///
    /// # Errors
    /// When there is none for long.
    fn revive(&mut self) -> Result<(), String> {
        self.start()?;
        self.leader()?;
        until("a write", READY, || self.write_once())
    }

    /// The URL of the leader alone.
    ///
    /// # Errors
    /// When there is none.
    fn leader_url(&mut self) -> Result<Vec<String>, String> {
        let leader = self.leader()?;
        Ok(self.urls().into_iter().skip(leader).take(1).collect())
    }
}

/// Waits until the check is `Ok`, on a thread that may wait.
///
/// # Errors
/// Why the check last said no, when the limit is over.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match check() {
            Ok(found) => return Ok(found),
            Err(last) if begun.elapsed() >= limit => {
                return Err(format!("waited {limit:?} for {what}; last: {last}"));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Where a program is, by its name, as a shell would find it.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Where a program is, or how to get it.
///
/// # Errors
/// When it is not installed.
pub fn needed(name: &str) -> Result<PathBuf, String> {
    program(name)
        .ok_or_else(|| format!("`{name}` is not installed: `deploy/setup.sh --bench` does it"))
}
