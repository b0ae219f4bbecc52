//! Single keys: get, set, compare-and-set by `If-Match`, delete.

use super::{Ask, Seat, Work};
use crate::history::{Action, Answer, Outcome};

/// Keys that live at a time.
const KEYS: u64 = 3;
/// Operations that a key has on average: a checker's work grows fast with them.
const OPERATIONS_PER_KEY: u64 = 150;

/// A client.
pub(super) struct Register {
    seat: Seat,
    asked: u64,
    /// Key, value and version of what was just read.
    read: Option<(String, String, u64)>,
}

impl Register {
    pub(super) fn new(seat: Seat) -> Self {
        Register { seat, asked: 0, read: None }
    }

    fn key(&mut self) -> String {
        let generation = self.asked / self.seat.share(KEYS * OPERATIONS_PER_KEY);
        format!("r{}", generation * KEYS + self.seat.rng.u64(..KEYS))
    }
}

impl Work for Register {
    fn next(&mut self, id: u64) -> Ask {
        let value = format!("v{id}");
        let (key, draw) = (self.key(), self.seat.rng.u32(..100));
        self.asked += 1;
        if let Some((key, from, version)) = self.read.take()
            && draw < 60
        {
            let action = Action::Cas { key, from, to: value };
            return Ask { version: Some(version), ..action.into() };
        }
        Ask::from(match draw {
            0..50 => Action::Get { key },
            50..90 => Action::Set { key, value },
            _ => Action::Delete { key },
        })
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        if let Action::Get { key } = action
            && let Outcome::Done { answer, .. } = outcome
            && let Answer::Value { value: Some(value), version: Some(version) } = answer
        {
            self.read = Some((key.clone(), value.clone(), *version));
        }
    }
}
