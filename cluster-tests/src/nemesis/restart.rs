//! Nodes stopped in order, one after the other, as an operator upgrades a cluster.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Arena, Evidence, Fault, Kind, Needs, Task, ask, node};
use crate::wait;

/// How long a stop in order may take: handing over, draining, writing out.
const STOP: Duration = Duration::from_secs(20);
/// How long a node may take until it has caught up again.
const READY: Duration = Duration::from_secs(30);

/// Restarts in order.
pub(super) const KINDS: &[Kind] = &[Kind {
    name: "rolling-restart",
    about: "SIGTERM to each node in turn; the next when it is ready again",
    needs: Needs::Processes,
    alone: false,
    draw: |arena| {
        let mut nodes = arena.cluster.running();
        arena.rng.shuffle(&mut nodes);
        (!nodes.is_empty()).then(|| Box::new(Rolling { nodes }) as Box<dyn Fault>)
    },
}];

struct Rolling {
    /// In this order.
    nodes: Vec<u64>,
}

impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restart nodes {:?} one after the other", self.nodes)
    }
}

impl Fault for Rolling {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let mut said = Vec::new();
            for id in self.nodes.clone() {
                said.push(format!("node {id}: {}", restart(arena, id).await?));
            }
            Ok(said.join(", "))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move { node::start(arena, &self.nodes).await })
    }
}

/// Stops a node in order, and waits until it is ready again; its exit status.
async fn restart(arena: &mut Arena, id: u64) -> Result<String, String> {
    node::signal(arena, id, Signal::SIGTERM)?;
    let exit = node::ended(arena, id, STOP).await;
    if exit.is_err() {
        node::kill(arena, &[id]).await?;
    }
    node::start(arena, &[id]).await?;
    let exit = exit?;
    wait::holds(exit == "exit status: 0", || format!("node {id} stopped with {exit}"))?;
    ask::await_ready(arena, id, READY).await.map_err(|why| format!("after its restart: {why}"))?;
    Ok(exit)
}
