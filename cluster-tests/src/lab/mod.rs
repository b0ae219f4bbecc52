//! What the nodes stand on: a network namespace, an address, a disk image and a clock for each.
//!
//! A lab is a private world of the machine: mount, network and process namespaces of its own, which
//! [`enter`] makes by starting this program again under `unshare`. When the harness ends, however it
//! ends, the kernel takes the world down: processes, mounts, loop devices, addresses. Nothing has to be
//! swept up after a crash (but a disk that is frozen when the harness is killed: see [`let_go`]), and nothing of it can reach the machine's own network.
//!
//! Where root or the kernel does not allow that, nodes are plain processes on loopback. Faults that need
//! more are then not done, and the report says so.

mod clock;
mod disk;
mod net;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::launch::free_port;
use crate::nemesis::Needs;

pub use clock::{Clock, Offset};
pub use disk::Disk;
pub use net::{CLIENT_PORT, Filter, HARNESS, Network, PEER_PORT};
pub use world::{Isolation, enter, let_go, own_name};

/// Where a node is, and what its process is started with.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node's id.
    pub id: u64,
    /// The address that it serves on.
    pub host: String,
    /// The port for clients.
    pub port: u16,
    /// The port for peers.
    pub peer_port: u16,
    /// Its data directory.
    pub data: PathBuf,
    /// A command that starts the binary given to it, such as `nsenter`.
    pub prefix: Vec<String>,
    /// Environment of the process.
    pub env: Vec<(String, String)>,
}

impl Place {
    /// A place on loopback, with ports that are free now.
    #[must_use]
    pub fn on_loopback(id: u64, data: PathBuf) -> Self {
        let (port, peer_port) = (free_port(), free_port());
        let host = "127.0.0.1".to_owned();
        Place { id, host, port, peer_port, data, prefix: Vec::new(), env: Vec::new() }
    }
}

/// The world of one cluster.
pub struct Lab {
    isolation: Isolation,
    dir: PathBuf,
    network: Option<Network>,
    disks: BTreeMap<u64, Disk>,
    clock: Option<Clock>,
}

impl Lab {
    /// A world for one cluster, in a directory of its own.
    pub fn new(isolation: Isolation, dir: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let network = match isolation {
            Isolation::Namespaces => Some(Network::up()?),
            Isolation::Plain(_) => None,
        };
        let clock = Clock::build(dir).ok();
        let dir = dir.to_owned();
        Ok(Lab { isolation, dir, network, disks: BTreeMap::new(), clock })
    }

    /// How nodes are kept apart.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Whether the machine has what a fault needs, or what it lacks.
    pub fn has(&self, needs: Needs) -> Result<(), String> {
        if needs == Needs::Clock && self.clock.is_none() {
            return Err("the clock's shim cannot be compiled: install a C compiler".to_owned());
        }
        self.isolation.has(needs)
    }

    /// Makes the ground for a node: its namespace, its disk, its clock.
    pub fn place(&mut self, id: u64) -> Result<Place, String> {
        let site = self.dir.join(format!("node-{id}"));
        std::fs::create_dir_all(&site).map_err(|e| format!("{}: {e}", site.display()))?;
        let mut place = Place::on_loopback(id, site.join("data"));
        if let Some(network) = &mut self.network {
            network.join(id)?;
            self.disks.insert(id, Disk::make(&site)?);
            place.host = Network::address(id);
            (place.port, place.peer_port) = (CLIENT_PORT, PEER_PORT);
            place.data = site.join("disk").join("data");
            place.prefix = Network::prefix(id);
        }
        if let Some(clock) = &self.clock {
            place.env = clock.environment(id)?;
        }
        Ok(place)
    }

    /// A node's disk.
    pub fn disk(&mut self, id: u64) -> Result<&mut Disk, String> {
        self.disks.get_mut(&id).ok_or_else(|| format!("node {id} has no disk of its own"))
    }

    /// The network.
    pub fn network(&self) -> Result<&Network, String> {
        self.network.as_ref().ok_or_else(|| "there are no namespaces".to_owned())
    }

    /// The clocks.
    pub fn clock(&self) -> Result<&Clock, String> {
        self.clock.as_ref().ok_or_else(|| "there is no shim for clocks".to_owned())
    }

    /// Takes down what [`Lab::place`] made. Nodes must not run any more.
    pub fn down(&mut self) -> Result<(), String> {
        for disk in self.disks.values_mut() {
            disk.remove()?;
        }
        self.disks.clear();
        self.network.take().map_or(Ok(()), Network::down)
    }
}

/// Runs a command to its end; its complaint where it fails.
pub fn run(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}").replace('"', "");
    let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}: {}", output.status, complaint.trim()))
}

/// A command and its arguments, split at blanks.
#[must_use]
pub fn shell(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}
