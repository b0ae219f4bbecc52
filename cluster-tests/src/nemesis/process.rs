//! Processes that are killed or stand still.

use std::fmt;

use super::pick::{self, Whom};
use super::{Arena, Evidence, Fault, Kind, Needs, Task, node};

/// The kinds.
pub(super) const KINDS: &[Kind] = &[
    kind("kill-one", "kill -9 of a node", |arena| kill(pick::one(arena).map(of_one))),
    kind("kill-leader", "kill -9 of the leader", |arena| kill(leader(arena))),
    kind("kill-majority", "kill -9 of so many that no quorum is left", |arena| {
        kill(pick::majority(arena).map(Whom::Nodes))
    }),
    kind("kill-all", "kill -9 of every node", |arena| kill(pick::all(arena).map(Whom::Nodes))),
    kind("pause-one", "SIGSTOP of a node", |arena| pause(pick::one(arena).map(of_one))),
    kind("pause-leader", "SIGSTOP of the leader", |arena| pause(leader(arena))),
    kind("pause-majority", "SIGSTOP of so many that no quorum is left", |arena| {
        pause(pick::majority(arena).map(Whom::Nodes))
    }),
    kind("pause-kill", "SIGSTOP of a majority, which is then killed as it stands", |arena| {
        let ids = pick::majority(arena)?;
        Some(Box::new(PauseKill { ids }))
    }),
];

type Draw = fn(&mut Arena) -> Option<Box<dyn Fault>>;

const fn kind(name: &'static str, about: &'static str, draw: Draw) -> Kind {
    Kind { name, about, needs: Needs::Processes, alone: false, draw }
}

fn of_one(id: u64) -> Whom {
    Whom::Nodes(vec![id])
}

/// Whoever leads, where a node runs that could.
fn leader(arena: &mut Arena) -> Option<Whom> {
    (!pick::awake(arena).is_empty()).then_some(Whom::Leader)
}

fn kill(whom: Option<Whom>) -> Option<Box<dyn Fault>> {
    Some(Box::new(Kill(whom?)))
}

fn pause(whom: Option<Whom>) -> Option<Box<dyn Fault>> {
    Some(Box::new(Pause(whom?)))
}

/// Nodes that are killed, all before waiting for one.
struct Kill(Whom);

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kill -9 of {}", self.0)
    }
}

impl Fault for Kill {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let ids = self.0.settle(arena).await?;
            let seen = node::kill(arena, &ids).await?;
            if seen.is_empty() { Err("they did not run any more".to_owned()) } else { Ok(seen) }
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move { node::start(arena, &self.0.nodes()).await })
    }
}

/// Nodes that stand still.
struct Pause(Whom);

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGSTOP of {}", self.0)
    }
}

impl Fault for Pause {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let ids = self.0.settle(arena).await?;
            node::pause(arena, &ids).await
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            node::resume(arena, &self.0.nodes());
            Ok(())
        })
    }
}

/// Nodes that stand still and then die so: what they had read and not answered dies with them.
struct PauseKill {
    ids: Vec<u64>,
}

impl fmt::Display for PauseKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGSTOP, then kill -9 of {}", pick::list(&self.ids))
    }
}

impl Fault for PauseKill {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let paused = node::pause(arena, &self.ids).await?;
            let killed = node::kill(arena, &self.ids).await?;
            Ok(format!("{paused}; {killed}"))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            node::resume(arena, &self.ids);
            node::start(arena, &self.ids).await
        })
    }
}
