//! Members that come, go and lead, as an operator has them do it.
//!
//! Invariants:
//! - A node id is used once.
//! - A node is taken out of the membership before its process is ended, and a change that was left half
//!   way is finished: no fault leaves the cluster between two sets of voters.
//! - A node that is taken away has no process and no data any more.

use std::fmt;
use std::time::Duration;

use super::until::until;
use super::{Arena, Evidence, Fault, Kind, Needs, Task, ask, pick};
use crate::launch::CLUSTER_SECRET;
use crate::wait::holds;

/// How long one change may take, with other faults about.
const CHANGE: Duration = Duration::from_secs(40);
/// How long there may be no leader: elections under other faults take their time.
pub(super) const LEADER: Duration = Duration::from_secs(20);
/// How long taking a node away may be tried.
const UNDO: Duration = Duration::from_secs(60);
/// Between two tries of a change that the cluster refused.
const PAUSE: Duration = Duration::from_millis(250);
/// A lab has an address for each id up to this.
const IDS_MAX: u64 = 250;
/// Fewest voters that are left when one is taken away.
const VOTERS_MIN: usize = 3;

/// Changes of the members.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "grow",
        about: "a new node joins and is made a voter; then it is removed",
        needs: Needs::Processes,
        alone: false,
        draw: |arena| Change::draw(arena, Sort::Grow),
    },
    Kind {
        name: "shrink",
        about: "a voter is removed and runs on, outside; where it would leave two, one joins before",
        needs: Needs::Processes,
        alone: false,
        draw: |arena| Change::draw(arena, Sort::Shrink),
    },
    Kind {
        name: "replace",
        about: "a new node is made a voter in the place of another, which is destroyed",
        needs: Needs::Processes,
        alone: false,
        draw: |arena| Change::draw(arena, Sort::Replace),
    },
    Kind {
        name: "transfer",
        about: "leadership is handed to another voter",
        needs: Needs::Processes,
        alone: false,
        draw: |arena| Change::draw(arena, Sort::Transfer),
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Grow,
    Shrink,
    Replace,
    Transfer,
}

struct Change {
    sort: Sort,
    /// The node that is removed, or is to lead; a new one has no id yet.
    target: u64,
    /// Nodes that must be gone at the end.
    leaving: Vec<u64>,
    /// How many nodes there shall be at the end, where that is known.
    size: Option<usize>,
}

impl Change {
    fn draw(arena: &mut Arena, sort: Sort) -> Option<Box<dyn Fault>> {
        let nodes = arena.cluster.ids();
        let target = pick::one(arena)?;
        let enough = nodes.len() >= if sort == Sort::Grow { 1 } else { VOTERS_MIN };
        let change = Change { sort, target, leaving: Vec::new(), size: None };
        enough.then(|| Box::new(change) as Box<dyn Fault>)
    }

    async fn grow(&mut self, arena: &mut Arena) -> Result<Evidence, String> {
        let id = join(arena).await?;
        self.leaving.push(id);
        promote(arena, id).await?;
        voters(arena).await
    }

    async fn shrink(&mut self, arena: &mut Arena) -> Result<Evidence, String> {
        let before = ask::await_leader(arena, LEADER).await?.ids("voter");
        self.size = Some(before.len());
        if before.len() <= VOTERS_MIN {
            add(arena).await?;
        }
        self.leaving.push(self.target);
        remove(arena, self.target, CHANGE).await?;
        Ok(format!("node {} runs on outside; {}", self.target, voters(arena).await?))
    }

    async fn replace(&mut self, arena: &mut Arena) -> Result<Evidence, String> {
        let led = ask::await_leader(arena, LEADER).await?.node_id == self.target;
        let id = add(arena).await?;
        self.leaving.push(self.target);
        remove(arena, self.target, CHANGE).await?;
        arena.cluster.destroy(self.target);
        let role = if led { ", the leader," } else { "" };
        Ok(format!("{id} for {}{role} which is destroyed; {}", self.target, voters(arena).await?))
    }

    async fn transfer(&mut self, arena: &mut Arena) -> Result<Evidence, String> {
        let before = ask::await_leader(arena, LEADER).await?;
        let others: Vec<u64> =
            before.ids("voter").into_iter().filter(|id| *id != before.node_id).collect();
        let Some(to) = arena.rng.choice(others) else { return Err("there is one voter".into()) };
        let body = format!(r#"{{"to":{to}}}"#);
        ask::change(arena, "POST", "/-/cluster/leader", &body).await?;
        until!(CHANGE, {
            let now = ask::leader(arena).await?;
            let moved = now.node_id == to && now.term > before.term;
            holds(moved, || format!("node {} leads in term {}", now.node_id, now.term))?;
            Ok(format!(
                "node {to} leads in term {}, before it {} in {}",
                now.term, before.node_id, before.term
            ))
        })
    }

    /// Takes away who must be gone, and adds who is missing.
    async fn settle(&mut self, arena: &mut Arena) -> Result<(), String> {
        while let Some(id) = self.leaving.last().copied() {
            take_away(arena, id).await?;
            self.leaving.pop();
        }
        let size = self.size.unwrap_or(0);
        while arena.cluster.ids().len() < size {
            add(arena).await?;
        }
        self.size = None;
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sort {
            Sort::Grow => write!(f, "add a voter"),
            Sort::Shrink => write!(f, "remove node {}", self.target),
            Sort::Replace => write!(f, "replace node {}", self.target),
            Sort::Transfer => write!(f, "hand leadership over"),
        }
    }
}

impl Fault for Change {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            match self.sort {
                Sort::Grow => self.grow(arena).await,
                Sort::Shrink => self.shrink(arena).await,
                Sort::Replace => self.replace(arena).await,
                Sort::Transfer => self.transfer(arena).await,
            }
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(self.settle(arena))
    }
}

/// A new node that is a voter; where it does not become one, it is taken away again.
pub(super) async fn add(arena: &mut Arena) -> Result<u64, String> {
    let id = join(arena).await?;
    let promoted = promote(arena, id).await;
    if let Err(why) = promoted {
        take_away(arena, id).await?;
        return Err(why);
    }
    Ok(id)
}

/// Starts a node with a new id, and waits until it is a learner; else it is taken away again.
async fn join(arena: &mut Arena) -> Result<u64, String> {
    holds(arena.last_id < IDS_MAX, || format!("all ids up to {IDS_MAX} are used"))?;
    arena.last_id += 1;
    let id = arena.last_id;
    let place = arena.lab.place(id)?;
    arena.cluster.add_node_at(place, CLUSTER_SECRET);
    let joined = until!(CHANGE, {
        let status = ask::leader(arena).await?;
        let member = status.members.iter().any(|member| member.id == id);
        holds(member, || format!("node {id} has not joined"))
    });
    if let Err(why) = joined {
        take_away(arena, id).await?;
        return Err(why);
    }
    Ok(id)
}

/// Makes a learner a voter.
async fn promote(arena: &mut Arena, id: u64) -> Result<(), String> {
    let path = format!("/-/cluster/members/{id}/promote");
    // Answers with success only where the membership is one set of voters, and this node in it.
    until!(CHANGE, attempt(arena, "POST", &path).await)
}

/// Asks for a change; pauses where it is refused.
async fn attempt(arena: &mut Arena, method: &str, path: &str) -> Result<(), String> {
    let answer = ask::change(arena, method, path, "").await;
    if answer.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    answer.map(drop)
}

/// Removes a member, and waits until the leader knows it no more and the change is finished.
pub(super) async fn remove(arena: &mut Arena, id: u64, limit: Duration) -> Result<(), String> {
    let path = format!("/-/cluster/members/{id}");
    until!(limit, {
        let status = ask::leader(arena).await?;
        if status.members.iter().any(|member| member.id == id) {
            attempt(arena, "DELETE", &path).await?;
            return Err(format!("node {id} is still a member"));
        }
        // A voter that stays is asked to become one: that finishes a change that was left half way.
        let stays = status.ids("voter").into_iter().find(|voter| *voter != id);
        let stays = stays.ok_or("no voter stays")?;
        attempt(arena, "POST", &format!("/-/cluster/members/{stays}/promote")).await
    })
}

/// Removes a node, then ends it and deletes its data. It can be done twice.
pub(super) async fn take_away(arena: &mut Arena, id: u64) -> Result<(), String> {
    remove(arena, id, UNDO).await?;
    if arena.cluster.ids().contains(&id) {
        arena.cluster.destroy(id);
        // Its own question to be let in may have been under way.
        remove(arena, id, UNDO).await?;
    }
    Ok(())
}

async fn voters(arena: &mut Arena) -> Result<String, String> {
    Ok(format!("voters {:?}", ask::await_leader(arena, LEADER).await?.ids("voter")))
}
