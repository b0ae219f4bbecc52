//! Single keys, changed only on a condition: `If-None-Match: *` creates, `If-Match` replaces and deletes,
//! and `If-None-Match` with a version asks whether there is something new.

use super::{Ask, Seat, Work};
use crate::history::{Action, Outcome};

/// Keys that live at a time.
const KEYS: u64 = 3;
/// Operations that a key has on average.
const OPERATIONS_PER_KEY: u64 = 150;

/// A client.
pub(super) struct Conditional {
    seat: Seat,
    asked: u64,
    /// Key, value and version of what was read last; it may be old.
    read: Option<(String, String, u64)>,
}

impl Conditional {
    pub(super) fn new(seat: Seat) -> Self {
        Conditional { seat, asked: 0, read: None }
    }

    fn key(&mut self) -> String {
        let generation = self.asked / self.seat.share(KEYS * OPERATIONS_PER_KEY);
        format!("c{}", generation * KEYS + self.seat.rng.u64(..KEYS))
    }
}

impl Work for Conditional {
    fn next(&mut self, id: u64) -> Ask {
        let (key, draw) = (self.key(), self.seat.rng.u32(..100));
        self.asked += 1;
        let value = format!("v{id}");
        let Some((known, from, version)) = self.read.clone().filter(|_| draw < 65) else {
            return Ask::from(match draw {
                // Who knows nothing asks more often than who does.
                0..45 | 65..80 => Action::Get { key },
                _ => Action::Create { key, value },
            });
        };
        // What was replaced is tried again only seldom: it cannot be there any more.
        if self.seat.chance(75) {
            self.read = None;
        }
        let action = match draw {
            0..40 => Action::Cas { key: known, from, to: value },
            40..52 => Action::Remove { key: known, from },
            _ => Action::Revisit { key: known, from },
        };
        Ask { version: Some(version), ..action.into() }
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        if let Action::Get { key } | Action::Revisit { key, .. } = action
            && let Outcome::Done { answer, .. } = outcome
            && let Some((Some(value), Some(version))) = answer.shown()
        {
            self.read = Some((key.clone(), value.to_owned(), version));
        }
    }
}
