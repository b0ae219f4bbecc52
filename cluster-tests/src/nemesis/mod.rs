//! Faults as values: drawn from a seed, installed, confirmed, undone.
//!
//! A [`Fault`] knows what it will do before it does it (`Display`), says what showed that it was there
//! once it is ([`Evidence`]), and can be undone. A fault that cannot show that it was there is not
//! counted. A table names them all; a schedule draws from it.
//!
//! Faults share a vocabulary, one way for each thing: `pick` chooses nodes, `node` acts on their
//! processes, `ask` asks the cluster, `background` does what may take long, and `until!` waits.
//!
//! Invariants:
//! - Nothing here waits for luck: a fault that needs a state (a process gone, a cut that drops) waits for
//!   it with a deadline.
//! - Undoing works whatever happened meanwhile, and can be done twice.
//! - At most a minority loses what it had synced (damaged files, a lost disk) at a time.

mod ask;
mod background;
mod clock;
mod crash;
mod damage;
mod delay;
mod disk;
mod membership;
mod network;
mod node;
mod pick;
mod power;
mod process;
mod restart;
mod until;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::cluster::Cluster;
use crate::lab::Lab;

pub(crate) use ask::leader as who_leads;
pub use damage::outcome as damage_outcome;

/// The future of a method that is called through a table.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// What showed that a fault was there: a line for the report.
pub type Evidence = String;

/// Where faults are done.
pub struct Arena {
    /// The nodes.
    pub cluster: Cluster,
    /// What they stand on: network, disks, clocks.
    pub lab: Lab,
    /// What every choice is drawn from.
    pub rng: fastrand::Rng,
    /// Ids that were given to nodes so far; none is ever used again.
    pub last_id: u64,
    /// What went wrong that nobody planned.
    pub troubles: Vec<String>,
}

/// A fault that can be done and undone. Its `Display` is what exactly it does: `cut 2 | 1 3`.
pub trait Fault: fmt::Display + Send {
    /// Does it, and waits until it is there.
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence>;

    /// Undoes it, and waits until it is gone and the nodes that it stopped run again. It does not wait
    /// until the cluster is healthy: others may be at work.
    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()>;
}

/// A kind of fault.
#[derive(Debug)]
pub struct Kind {
    /// Its name, in the report and on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it needs of the machine.
    pub needs: Needs,
    /// Whether no other fault may be there at the same time.
    pub alone: bool,
    /// Draws one; `None` where there is nothing to do it to now.
    pub draw: fn(&mut Arena) -> Option<Box<dyn Fault>>,
}

/// What a kind of fault needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Processes that can be signalled.
    Processes,
    /// A network namespace for each node.
    Namespaces,
    /// A disk image for each node.
    Disks,
    /// `strace` may attach.
    Tracing,
    /// A compiler for the clock's shim.
    Clock,
}

/// Every kind of fault, in the order of the report.
#[must_use]
pub fn kinds() -> Vec<&'static Kind> {
    [
        process::KINDS,
        network::KINDS,
        delay::KINDS,
        power::KINDS,
        disk::KINDS,
        clock::KINDS,
        damage::KINDS,
        membership::KINDS,
        crash::KINDS,
        restart::KINDS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The kinds of these names, all where none is named.
pub fn named(names: &[String]) -> Result<Vec<&'static Kind>, String> {
    let all = kinds();
    if names.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        let found = all.iter().copied().find(|kind| kind.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(|kind| kind.name).collect();
            format!("no fault `{name}`; there are {}", names.join(", "))
        })
    };
    names.iter().map(find).collect()
}

/// Whether undoing a kind needs a quorum, so that it is undone after all others.
#[must_use]
pub fn needs_quorum(kind: &Kind) -> bool {
    membership::KINDS.iter().any(|other| other.name == kind.name)
}
