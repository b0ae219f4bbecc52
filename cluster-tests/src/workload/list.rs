//! Keys put and deleted under a prefix, and listed with their values.

use super::{Ask, Seat, Work};
use crate::history::Action;

/// Keys that are put under a prefix before the next one is begun.
const KEYS_PER_PREFIX: u64 = 60;

/// A client.
pub(super) struct List {
    seat: Seat,
    /// Keys that it has put.
    put: u64,
}

impl List {
    pub(super) fn new(seat: Seat) -> Self {
        List { seat, put: 0 }
    }
}

impl Work for List {
    fn next(&mut self, id: u64) -> Ask {
        let share = self.seat.share(KEYS_PER_PREFIX);
        let (prefix, own) = (format!("p{}/", self.put / share), self.put % share);
        let draw = self.seat.rng.u32(..100);
        Ask::from(match draw {
            0..35 => Action::List { prefix },
            35..60 if own > 0 => {
                // Anybody's, whether it is there or not.
                let (seat, number) =
                    (self.seat.rng.u64(..self.seat.count), self.seat.rng.u64(..own));
                Action::Delete { key: format!("{prefix}{seat}-{number}") }
            }
            _ => {
                self.put += 1;
                let key = format!("{prefix}{}-{own}", self.seat.index);
                Action::Set { key, value: format!("v{id}") }
            }
        })
    }
}
