//! Sessions that go from node to node: stale reads, and reads by a node that has what was seen before.

use super::{Ask, Seat, Work};
use crate::history::{Action, Outcome};

/// Keys that live at a time.
const KEYS: u64 = 3;
/// Operations that a key has on average.
const OPERATIONS_PER_KEY: u64 = 150;

/// A client.
pub(super) struct Stale {
    seat: Seat,
    asked: u64,
    /// The greatest revision that it was answered.
    seen: Option<u64>,
    /// What it wrote last.
    wrote: Option<String>,
}

impl Stale {
    pub(super) fn new(seat: Seat) -> Self {
        Stale { seat, asked: 0, seen: None, wrote: None }
    }

    fn key(&mut self) -> String {
        let generation = self.asked / self.seat.share(KEYS * OPERATIONS_PER_KEY);
        format!("s{}", generation * KEYS + self.seat.rng.u64(..KEYS))
    }
}

impl Work for Stale {
    fn next(&mut self, id: u64) -> Ask {
        let (key, draw) = (self.key(), self.seat.rng.u32(..100));
        self.asked += 1;
        let wrote = self.wrote.take();
        Ask::from(match draw {
            0..30 => Action::Set { key, value: format!("v{id}") },
            // What it has just written, wherever it goes now.
            30..60 => self.since(wrote.unwrap_or(key)),
            60..90 => Action::GetAt { key, stale: true, min_revision: None },
            _ => Action::Get { key },
        })
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        let Outcome::Done { revision, .. } = outcome else { return };
        self.seen = self.seen.max(*revision);
        if let Action::Set { key, .. } = action {
            self.wrote = Some(key.clone());
        }
    }

    fn roams(&self) -> bool {
        true
    }
}

impl Stale {
    /// A read, stale or not, that must not be behind what this client has seen.
    fn since(&mut self, key: String) -> Action {
        Action::GetAt { key, stale: self.seat.chance(70), min_revision: self.seen }
    }
}
