//! Damaged files: a bit, a block, an end, a file, a whole disk, or an older state of one file.
//!
//! A node is killed, one of its files is damaged, and it is started again. What it may do is refuse, mend
//! itself, or not mind. What it may not do is serve what it no longer holds, forget what it
//! acknowledged, or spread the damage: that would be silent here, and is for the checkers to see.
//! A node that refused is replaced, as an operator replaces a dead one.
//!
//! Invariants:
//! - One node is damaged at a time, all others being healthy: no majority ever loses what it had synced.
//!   Damage in a table may lie where nothing has read yet, so a node that still has it is replaced too.
//! - The damaged node's disk is claimed until the node is whole or replaced: no other fault meets what
//!   this one edits. Where nodes have no disks of their own there is none to claim.
//! - The evidence begins with `outcome=`: [`outcome()`] reads it.

pub(super) mod files;
mod harm;
mod outcome;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::files::{Found, Sort};
use self::outcome::Outcome;
use super::membership;
use super::until::until;
use super::{Arena, Evidence, Fault, Kind, Needs, Task, ask, node, pick};
use crate::wait::holds;

/// How long all nodes may take to be ready before one is damaged.
const HEALTHY: Duration = Duration::from_secs(30);
/// How long a file may take until it has changed, for an older copy of it.
const AGE: Duration = Duration::from_secs(15);
/// Between two looks at a file.
const POLL: Duration = Duration::from_millis(50);
/// Fewest bytes of a log that have to have been written.
const GROWTH_BYTES: usize = 512;
/// Fewest nodes of a cluster that one can be damaged of.
const NODES_MIN: usize = 3;

/// Damages.
pub(super) const KINDS: &[Kind] = &[
    kind("flip-log", "a bit of a file of the log flips", |arena| draw(arena, Harm::Flip, is_log)),
    kind("flip-state", "a bit of a file of the database flips", |arena| {
        draw(arena, Harm::Flip, Sort::is_state)
    }),
    kind("flip-identity", "a bit of the file flips that says whose the directory is", |arena| {
        draw(arena, Harm::Flip, |sort| sort == Sort::Identity)
    }),
    kind("truncate-log", "a file of the log loses its end", |arena| {
        draw(arena, Harm::Truncate, is_log)
    }),
    kind("truncate-state", "a file of the database loses its end", |arena| {
        draw(arena, Harm::Truncate, Sort::is_state)
    }),
    kind("delete-file", "any file is gone", |arena| draw(arena, Harm::Delete, |_| true)),
    kind("old-log", "a file of the log is as it was a while ago", |arena| {
        draw(arena, Harm::Old, |sort| sort == Sort::Log)
    }),
    kind("old-state", "a file of the database is as it was a while ago", |arena| {
        draw(arena, Harm::Old, |sort| matches!(sort, Sort::Manifest | Sort::Current | Sort::State))
    }),
    kind("zero-block", "4 KiB of any file are zeros", |arena| draw(arena, Harm::Zero, |_| true)),
    kind("lost-disk", "everything is gone", |arena| draw(arena, Harm::Wipe, |_| true)),
];

const fn kind(
    name: &'static str,
    about: &'static str,
    draw: fn(&mut Arena) -> Option<Box<dyn Fault>>,
) -> Kind {
    Kind { name, about, needs: Needs::Processes, alone: true, draw }
}

fn is_log(sort: Sort) -> bool {
    matches!(sort, Sort::Log | Sort::Synced)
}

/// The outcome in a damage's evidence: `refused`, `repaired` or `harmless`.
#[must_use]
pub fn outcome(evidence: &str) -> Option<&str> {
    let rest = evidence.strip_prefix("outcome=")?;
    rest.split(|c: char| !c.is_ascii_lowercase()).next()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Flip,
    Truncate,
    Delete,
    Old,
    Zero,
    Wipe,
}

struct Damage {
    node: u64,
    harm: Harm,
    wanted: fn(Sort) -> bool,
    /// Whether the node is ours, and its disk where it has one: from before the damage until it is undone.
    claimed: bool,
    /// Whether it has to be replaced.
    refused: bool,
    /// A damaged file that was perhaps not read as a whole.
    latent: Option<PathBuf>,
}

/// A damage to one node of a cluster that is whole.
fn draw(arena: &mut Arena, harm: Harm, wanted: fn(Sort) -> bool) -> Option<Box<dyn Fault>> {
    let nodes = arena.cluster.ids().len();
    let whole = arena.cluster.running().len() == nodes && nodes >= NODES_MIN;
    let free = pick::free(arena);
    let node = arena.rng.choice(free).filter(|_| whole)?;
    Some(Box::new(Damage { node, harm, wanted, claimed: false, refused: false, latent: None }))
}

impl Damage {
    async fn run(&mut self, arena: &mut Arena) -> Result<Evidence, String> {
        healthy(arena, self.node).await?;
        self.claim(arena)?;
        let data = arena.cluster.data(self.node).to_owned();
        let older = match self.harm {
            Harm::Old => Some(age(arena, self.node, &data, self.wanted).await?),
            _ => None,
        };
        node::kill(arena, &[self.node]).await?;
        let done = self.harm(&mut arena.rng, &data, older);
        let log = fs::metadata(arena.cluster.log(self.node));
        let log_before = log.map_or(0, |about| about.len());
        node::launch(arena, self.node);
        // Where nothing was done it runs again, and that is all.
        let done = done?;
        // Until it has shown otherwise, should nobody wait for that.
        self.refused = true;
        let outcome = outcome::watch(arena, self.node, log_before).await;
        self.refused = matches!(outcome, Outcome::Refused(_));
        Ok(format!("{outcome}; node {}; {done}", self.node))
    }

    fn claim(&mut self, arena: &mut Arena) -> Result<(), String> {
        if let Ok(disk) = arena.lab.disk(self.node) {
            disk.claim()?;
        }
        self.claimed = true;
        Ok(())
    }

    fn release(&mut self, arena: &mut Arena) {
        if let Ok(disk) = arena.lab.disk(self.node) {
            disk.release();
        }
        self.claimed = false;
    }

    fn harm(
        &mut self,
        rng: &mut fastrand::Rng,
        data: &Path,
        older: Option<(Found, Vec<u8>)>,
    ) -> Result<String, String> {
        if self.harm == Harm::Wipe {
            let bytes = files::bytes(data);
            fs::remove_dir_all(data).map_err(|e| format!("{}: {e}", data.display()))?;
            return Ok(format!("{bytes} bytes -> an empty disk"));
        }
        if let Some((file, bytes)) = older {
            return Ok(format!("{}: {}", file.name, harm::put_back(&file, &bytes)?));
        }
        let bytes_min = u64::from(self.harm != Harm::Delete);
        let file = files::draw(rng, data, bytes_min, self.wanted)?;
        self.latent = (file.sort == Sort::Table).then(|| file.path.clone());
        let done = match self.harm {
            Harm::Flip => harm::flip(rng, &file),
            Harm::Truncate => harm::truncate(rng, &file),
            Harm::Delete => harm::delete(&file),
            _ => harm::zero(rng, &file),
        };
        Ok(format!("{}: {}", file.name, done?))
    }

    /// Another in the place of a node that refused.
    async fn replace(&mut self, arena: &mut Arena) -> Result<(), String> {
        // A new one first: see docs/operations.md.
        let short =
            ask::await_leader(arena, membership::LEADER).await?.ids("voter").contains(&self.node);
        node::kill(arena, &[self.node]).await?;
        if short {
            membership::add(arena).await?;
        }
        membership::take_away(arena, self.node).await
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let harm = format!("{:?}", self.harm).to_lowercase();
        write!(f, "{harm}: a file of node {}", self.node)
    }
}

impl Fault for Damage {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(self.run(arena))
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            // A node that was not damaged is another's business, also where it does not run.
            if !self.claimed {
                return Ok(());
            }
            let there = arena.cluster.ids().contains(&self.node);
            let latent = self.latent.as_ref().is_some_and(|path| path.exists());
            // Damage may be met later than at the start.
            if there && (self.refused || latent || !node::runs(arena, self.node)) {
                self.replace(arena).await?;
            }
            self.release(arena);
            Ok(())
        })
    }
}

/// Waits until all nodes are ready, and all of them vote.
async fn healthy(arena: &mut Arena, id: u64) -> Result<(), String> {
    until!(HEALTHY, {
        let nodes = arena.cluster.ids();
        for id in &nodes {
            holds(node::runs(arena, *id), || format!("node {id} has exited"))?;
            arena.cluster.try_node_ready(*id).await?;
        }
        let voters = ask::leader(arena).await?.ids("voter");
        let whole = voters == nodes && voters.len() >= NODES_MIN && voters.contains(&id);
        holds(whole, || format!("the voters are {voters:?}, the nodes {nodes:?}"))
    })
}

/// A copy of a file of a node that runs, once the file has changed since. The database renews some of
/// its files only when it is opened, so for those the node is started again in half of the cases.
async fn age(
    arena: &mut Arena,
    id: u64,
    data: &Path,
    wanted: fn(Sort) -> bool,
) -> Result<(Found, Vec<u8>), String> {
    let copies = files::list(data).into_iter().filter(|file| wanted(file.sort));
    let copies: Vec<_> =
        copies.filter_map(|file| Some((fs::read(&file.path).ok()?, file))).collect();
    if copies.iter().all(|(_, file)| file.sort != Sort::Log) && arena.rng.bool() {
        node::kill(arena, &[id]).await?;
        node::start(arena, &[id]).await?;
        ask::await_ready(arena, id, HEALTHY).await?;
    }
    let deadline = Instant::now() + AGE;
    loop {
        let changed = copies.iter().filter(|(bytes, file)| has_changed(file, bytes));
        if let Some((bytes, file)) = arena.rng.choice(changed.collect::<Vec<_>>()) {
            return Ok((file.clone(), bytes.clone()));
        }
        holds(Instant::now() < deadline, || format!("no such file has changed in {AGE:?}"))?;
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a file is there, and is no longer what it was; the log is written all the time, so a little more of it.
fn has_changed(file: &Found, before: &[u8]) -> bool {
    let Ok(now) = fs::read(&file.path) else { return false };
    let least = if file.sort == Sort::Log { GROWTH_BYTES } else { 1 };
    let changed = now.iter().zip(before).filter(|(now, before)| now != before).count();
    changed + now.len().abs_diff(before.len()) >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_is_read_off_the_evidence() {
        for (outcome, word) in [
            (Outcome::Refused("why".into()), "refused"),
            (Outcome::Repaired("what".into()), "repaired"),
            (Outcome::Harmless, "harmless"),
        ] {
            assert_eq!(super::outcome(&format!("{outcome}; node 2; x")), Some(word));
        }
        assert_eq!(super::outcome("node 2"), None);
    }
}
