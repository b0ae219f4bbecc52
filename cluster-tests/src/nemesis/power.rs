//! Power that is cut: what was not synced is gone.
//!
//! A node is stopped first, so that it cannot see its disk fail, then its disk goes down, then it is
//! killed. Of several nodes all disks are down before the first is killed: nobody learns of another's end.
//!
//! Invariants:
//! - It is confirmed by two files: one that was synced is whole afterwards, one that was not is not.
//! - After a cut the disk is mounted again at once; the node stays down until the fault is undone.

mod canary;

use std::fmt;
use std::time::Duration;

use canary::Canary;

use super::pick::{self, list};
use super::{Arena, Evidence, Fault, Kind, Needs, Task, background, node};

/// The kinds.
pub(super) const KINDS: &[Kind] = &[
    kind("power-one", "a node loses its power", |arena| power(arena, |_| 1)),
    kind("power-majority", "so many lose their power that no quorum is left", |arena| {
        power(arena, |all| all / 2 + 1)
    }),
    kind("power-all", "all nodes lose their power at once", |arena| power(arena, |all| all)),
    kind("power-during-recovery", "power is lost again while nodes recover", |arena| {
        let all = arena.cluster.ids().len();
        let count = *arena.rng.choice([1, all / 2 + 1, all].iter())?;
        let ids = some(arena, count)?;
        let cuts = arena.rng.usize(1..=2);
        let after = (0..cuts).map(|_| Duration::from_millis(arena.rng.u64(50..=800))).collect();
        Some(Box::new(Power { ids, after, outage: Outage::default() }))
    }),
    kind(
        "pause-power",
        "one loses its power while those stand still that do not have it all",
        |arena| {
            let all = arena.cluster.ids().len();
            let mut ids = some(arena, all)?;
            if all < 3 {
                return None;
            }
            arena.rng.shuffle(&mut ids);
            let mut behind = ids.split_off(ids.len() - (all - 1) / 2);
            let cut = ids.pop()?;
            behind.sort_unstable();
            ids.sort_unstable();
            let dwell = Duration::from_millis(arena.rng.u64(200..=2000));
            Some(Box::new(PausePower { behind, cut, ahead: ids, dwell, outage: Outage::default() }))
        },
    ),
];

type Draw = fn(&mut Arena) -> Option<Box<dyn Fault>>;

const fn kind(name: &'static str, about: &'static str, draw: Draw) -> Kind {
    Kind { name, about, needs: Needs::Disks, alone: false, draw }
}

/// This many of the nodes that run and whose disk is free.
fn some(arena: &mut Arena, count: usize) -> Option<Vec<u64>> {
    let free = pick::free(arena);
    pick::some_of(&mut arena.rng, free, count)
}

fn power(arena: &mut Arena, count: fn(usize) -> usize) -> Option<Box<dyn Fault>> {
    let count = count(arena.cluster.ids().len());
    let ids = some(arena, count)?;
    Some(Box::new(Power { ids, after: Vec::new(), outage: Outage::default() }))
}

/// Nodes that lose their power together, and again so long after they were started.
struct Power {
    ids: Vec<u64>,
    after: Vec<Duration>,
    outage: Outage,
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "power of {}", list(&self.ids))?;
        for after in &self.after {
            write!(f, ", again {} ms after the start", after.as_millis())?;
        }
        Ok(())
    }
}

impl Fault for Power {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let mut seen = vec![cut(arena, &self.ids, &mut self.outage).await?];
            for after in self.after.clone() {
                for id in &self.ids {
                    node::launch(arena, *id);
                }
                tokio::time::sleep(after).await;
                for id in &self.ids {
                    if !node::runs(arena, *id) {
                        let what = format!("node {id} exited by itself while it recovered");
                        arena.troubles.push(what);
                    }
                }
                seen.push(cut(arena, &self.ids, &mut self.outage).await?);
            }
            Ok(seen.join("; again: "))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            self.outage.end(arena).await?;
            node::resume(arena, &self.ids);
            node::start(arena, &self.ids).await
        })
    }
}

/// Some stand still and fall behind; one of the others loses its power; then these stand still, and those
/// who were behind go on with it: a quorum that holds what was acknowledged only if it was synced.
struct PausePower {
    behind: Vec<u64>,
    cut: u64,
    ahead: Vec<u64>,
    dwell: Duration,
    outage: Outage,
}

impl fmt::Display for PausePower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (behind, ahead) = (list(&self.behind), list(&self.ahead));
        let dwell = self.dwell.as_millis();
        write!(f, "SIGSTOP of {behind} for {dwell} ms, power of {}, SIGSTOP of {ahead}", self.cut)
    }
}

impl Fault for PausePower {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let behind = node::pause(arena, &self.behind).await?;
            // The others go on without them.
            tokio::time::sleep(self.dwell).await;
            let lost = cut(arena, &[self.cut], &mut self.outage).await?;
            let ahead = node::pause(arena, &self.ahead).await?;
            node::resume(arena, &self.behind);
            node::start(arena, &[self.cut]).await?;
            Ok(format!("{behind}; {lost}; {ahead}; {} and {} go on", list(&self.behind), self.cut))
        })
    }

    fn undo<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            self.outage.end(arena).await?;
            node::resume(arena, &[&self.behind[..], &self.ahead[..], &[self.cut]].concat());
            node::start(arena, &[self.cut]).await
        })
    }
}

/// Disks that are ours, and those of them that are down. Kept by the fault, so that undoing it finds them
/// even where installing it was given up half way.
#[derive(Default)]
struct Outage {
    claimed: Vec<u64>,
    dark: Vec<u64>,
}

impl Outage {
    /// Mounts the disks that are down again, and gives all back.
    async fn end(&mut self, arena: &mut Arena) -> Result<(), String> {
        while let Some(id) = self.dark.last().copied() {
            node::kill(arena, &[id]).await?;
            background::on_disk(arena, id, |disk| disk.come_back())?;
            self.dark.pop();
        }
        for id in self.claimed.drain(..) {
            arena.lab.disk(id)?.release();
        }
        Ok(())
    }
}

/// Cuts the power of nodes, and mounts their disks again.
async fn cut(arena: &mut Arena, ids: &[u64], outage: &mut Outage) -> Result<String, String> {
    for id in ids {
        arena.lab.disk(*id)?.claim()?;
        outage.claimed.push(*id);
    }
    let running = arena.cluster.running();
    let live: Vec<u64> = ids.iter().copied().filter(|id| running.contains(id)).collect();
    node::pause(arena, &live).await?;
    let mut canaries = Vec::new();
    for id in ids {
        canaries.push((*id, background::on_disk(arena, *id, |disk| Canary::put(disk.path()))?));
    }
    for id in ids {
        background::on_disk(arena, *id, |disk| disk.go_down())?;
        outage.dark.push(*id);
    }
    node::kill(arena, ids).await?;
    outage.end(arena).await?;
    let mut seen = Vec::new();
    for (id, canary) in canaries {
        let found = tokio::task::block_in_place(|| canary.look());
        seen.push(format!("{id}: {}", found.map_err(|why| format!("node {id}: {why}"))?));
    }
    Ok(seen.join(", "))
}
