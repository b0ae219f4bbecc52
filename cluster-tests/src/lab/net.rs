//! The network: a bridge, and a namespace with an address for each node.

mod filter;

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::{run, shell};

pub use filter::Filter;

/// The address of the harness and its clients on the bridge.
pub const HARNESS: &str = "10.77.0.254";
/// The port that every node serves clients on.
pub const CLIENT_PORT: u16 = 7400;
/// The port that every node serves its peers on.
pub const PEER_PORT: u16 = 7401;

/// The bridge and the namespaces on it.
pub struct Network {
    members: BTreeSet<u64>,
}

impl Network {
    /// Puts the bridge up.
    pub(super) fn up() -> Result<Self, String> {
        // Of a cluster before this one in the same world.
        let _ = run(&mut shell("ip link del br0"));
        run(&mut shell("ip link add br0 type bridge"))?;
        run(&mut shell(&format!("ip addr add {HARNESS}/24 dev br0")))?;
        run(&mut shell("ip link set br0 up"))?;
        Ok(Network { members: BTreeSet::new() })
    }

    /// The address of a node.
    #[must_use]
    pub fn address(id: u64) -> String {
        format!("10.77.0.{id}")
    }

    /// What starts a program in a node's namespace. Not `ip netns exec`, which would clone the mounts,
    /// and keep a disk of another node busy.
    #[must_use]
    pub fn prefix(id: u64) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/n{id}")]
    }

    /// A command in a node's namespace; its words are split at blanks.
    #[must_use]
    pub fn inside(id: u64, line: &str) -> Command {
        shell(&format!("nsenter --net=/run/netns/n{id} {line}"))
    }

    /// Moves this thread into a node's namespace, for good: sockets that it opens are the node's.
    pub fn enter(id: u64) -> Result<(), String> {
        let path = format!("/run/netns/n{id}");
        let namespace = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|e| format!("{path}: setns: {e}"))
    }

    /// Does work on a thread of its own in a node's namespace, and waits for it.
    pub fn within<T: Send + 'static>(
        id: u64,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let thread = std::thread::spawn(move || Network::enter(id).and_then(|()| work()));
        thread.join().map_err(|_| format!("work in the namespace of node {id} panicked"))?
    }

    /// Makes a node's namespace and plugs it in; nothing where it is there.
    pub(super) fn join(&mut self, id: u64) -> Result<(), String> {
        if !self.members.insert(id) {
            return Ok(());
        }
        // Of a cluster before this one. The link first: a namespace goes in its own time.
        let _ = run(&mut shell(&format!("ip link del v{id}")));
        let _ = run(&mut shell(&format!("ip netns del n{id}")));
        for line in [
            format!("ip netns add n{id}"),
            format!("ip link add v{id} type veth peer name eth0 netns n{id}"),
            format!("ip link set v{id} master br0 up"),
            format!("ip -n n{id} addr add {}/24 dev eth0", Network::address(id)),
            format!("ip -n n{id} link set eth0 up"),
            format!("ip -n n{id} link set lo up"),
        ] {
            run(&mut shell(&line))?;
        }
        Ok(())
    }

    /// Takes all of it down.
    pub(super) fn down(self) -> Result<(), String> {
        for id in &self.members {
            run(&mut shell(&format!("ip link del v{id}")))?;
            run(&mut shell(&format!("ip netns del n{id}")))?;
        }
        run(&mut shell("ip link del br0")).map(drop)
    }
}
