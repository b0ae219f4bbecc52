//! How a cluster is started: its size, its knobs, its ports.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::scenario::Scenario;

/// The key for changing the cluster.
pub const ADMIN_KEY: &str = "admin-key-of-the-tests";
/// The secret that peers share.
pub const CLUSTER_SECRET: &str = "cluster-secret-of-the-tests";
/// How long a cluster may take until every node is ready.
const READY: Duration = Duration::from_secs(30);
/// How often ports are drawn again when somebody else took one.
const ATTEMPTS: usize = 3;

/// Entries that stay in the log behind a snapshot where the benchmark has a follower come back by one.
pub const BENCH_KEEP_ENTRIES: u64 = 100;

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Nodes at the start; their ids count from 1.
    pub nodes: u64,
    /// Flags beyond those that every node needs.
    pub flags: Vec<String>,
}

impl Launch {
    /// A cluster of some nodes, with the defaults of the binary.
    #[must_use]
    pub fn of(nodes: u64) -> Self {
        Launch { nodes, flags: Vec::new() }
    }

    /// Adds a flag and its value.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Applied entries between snapshots.
    #[must_use]
    pub fn snapshot_entries(self, entries: u64) -> Self {
        self.flag("--snapshot-entries", entries)
    }

    /// Entries that stay in the log behind a snapshot.
    #[must_use]
    pub fn keep_entries(self, entries: u64) -> Self {
        self.flag("--keep-entries", entries)
    }

    /// All ways in which the benchmark starts clusters, which campaigns can start theirs in, too.
    #[must_use]
    pub fn benchmarks() -> [Launch; 2] {
        [Launch::of(3), Launch::of(3).keep_entries(BENCH_KEEP_ENTRIES)]
    }

    /// Starts it and waits until all nodes are ready and agree on a leader.
    ///
    /// # Panics
    /// When they do not.
    pub async fn start(self, scenario: &Scenario) -> Cluster {
        for attempt in 1..=ATTEMPTS {
            let dir = scenario.dir().join(format!("cluster-{attempt}"));
            let mut cluster = Cluster::launch(&self, dir);
            match cluster.try_ready(READY).await {
                Ok(()) => return cluster,
                Err(reason) if attempt < ATTEMPTS && cluster.lost_a_port() => {
                    scenario.say(&format!("a port was taken, trying others: {reason}"));
                }
                Err(reason) => panic!("the cluster is not ready after {READY:?}: {reason}"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }
}

/// A port that is free now. Below the range that the system draws from for outgoing connections, or
/// one of ours could take it while its node is down.
///
/// # Panics
/// When none is.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u32 = 11_000;
    const COUNT: u32 = 20_000;
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let free = (0..COUNT).find_map(|_| {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(drawn) % COUNT).ok()?;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    free.expect("a port is free")
}
