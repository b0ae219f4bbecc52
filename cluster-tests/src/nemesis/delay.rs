//! Packets that arrive late, or after those that were sent later.
//!
//! The kernel hands what a node receives from its peers to a thread of ours (NFQUEUE), which gives it back
//! after a while. Clients' packets are not held.

mod holder;

use std::fmt;
use std::time::Duration;

use holder::{Habit, Holder};

use super::network::probe::{self, End};
use super::{Arena, Evidence, Fault, Kind, Needs, Task, background, pick};

/// The kinds.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "delay",
        about: "packets from peers arrive late, in their order",
        needs: Needs::Namespaces,
        alone: false,
        draw: |arena| {
            let least = Duration::from_millis(arena.rng.u64(10..=400));
            let jitter = least.mul_f64(arena.rng.f64() / 2.0);
            delay(arena, Habit { least, jitter, share: 100, in_order: true })
        },
    },
    Kind {
        name: "reorder",
        about: "some packets from peers arrive after later ones",
        needs: Needs::Namespaces,
        alone: false,
        draw: |arena| {
            let jitter = Duration::from_millis(arena.rng.u64(20..=200));
            let share = arena.rng.u8(20..=50);
            delay(arena, Habit { least: Duration::ZERO, jitter, share, in_order: false })
        },
    },
];

/// Reorderings that must be seen.
const OVERTAKEN_MIN: u32 = 2;

fn delay(arena: &mut Arena, habit: Habit) -> Option<Box<dyn Fault>> {
    let running = arena.cluster.running().len();
    if arena.cluster.ids().len() < 2 || running == 0 {
        return None;
    }
    let count = if arena.rng.bool() { 1 } else { running };
    let ids = pick::some(arena, count)?;
    Some(Box::new(Delay { habit, ids, holders: Vec::new() }))
}

/// Nodes that hear their peers late.
struct Delay {
    habit: Habit,
    ids: Vec<u64>,
    holders: Vec<Holder>,
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hold {} at {}", self.habit, pick::list(&self.ids))
    }
}

impl Fault for Delay {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            for id in self.ids.clone() {
                let (habit, rng) = (self.habit, arena.rng.fork());
                let holder = background::blocking(move || Holder::begin(id, habit, rng)).await?;
                self.holders.push(holder);
            }
            let mut seen = Vec::new();
            for id in self.ids.clone() {
                // From every peer until it is seen: another fault may be between two.
                let mut confirmed = Err(format!("node {id} has no peer"));
                for other in arena.cluster.others(id) {
                    confirmed = confirmed.or(self.confirm(other, id).await);
                    if confirmed.is_ok() {
                        break;
                    }
                }
                seen.push(format!("{id}: {}", confirmed?));
            }
            Ok(seen.join(", "))
        })
    }

    fn undo<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            let mut ended = Ok(());
            for holder in self.holders.drain(..) {
                ended = ended.and(background::blocking(move || holder.end()).await);
            }
            ended
        })
    }
}

impl Delay {
    async fn confirm(&self, other: u64, id: u64) -> Result<String, String> {
        let (from, to) = (End::Node(other), End::Node(id));
        if self.habit.in_order {
            let pings = probe::ping(from, to, "-c 8 -i 0.02 -W 2").await?;
            let least = self.habit.least.as_secs_f64() * 1000.0;
            return if pings.received > 0 && pings.average >= least {
                Ok(format!("pings took {:.0} ms", pings.average))
            } else {
                Err(format!("{pings:?} of node {id}, asked for {least:.0} ms"))
            };
        }
        let pings = probe::ping(from, to, "-c 60 -i 0.003 -W 1").await?;
        if pings.overtaken < OVERTAKEN_MIN {
            return Err(format!("{pings:?} of node {id}: too few were overtaken"));
        }
        Ok(format!("{} of {} pings were overtaken", pings.overtaken, pings.sent))
    }
}
