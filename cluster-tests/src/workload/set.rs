//! A growing set: each key is set once, by one client, and some are read.

use super::{Ask, Seat, Work};
use crate::history::Action;

/// A client.
pub(super) struct Set {
    seat: Seat,
    /// Keys that it has set.
    own: u64,
}

impl Set {
    pub(super) fn new(seat: Seat) -> Self {
        Set { seat, own: 0 }
    }
}

impl Work for Set {
    fn next(&mut self, id: u64) -> Ask {
        let key = |seat, number| format!("e/{seat}-{number}");
        if self.own > 0 && self.seat.chance(20) {
            // The others are about as far.
            let (seat, number) =
                (self.seat.rng.u64(..self.seat.count), self.seat.rng.u64(..self.own));
            return Action::Get { key: key(seat, number) }.into();
        }
        let action = Action::Set { key: key(self.seat.index, self.own), value: format!("v{id}") };
        self.own += 1;
        action.into()
    }
}
