//! Counters that are added to with an `Idempotency-Key`: a client that does not know what became of its
//! call asks the same again, of any node, until it is told. Now and then it asks what was answered long ago.

use std::collections::VecDeque;

use super::{Ask, Seat, Work, counter};
use crate::history::{Action, Outcome};

/// The counter's: who asks again cannot be told from who asks once.
pub(super) const SCRIPTS: &[(&str, &str)] = counter::SCRIPTS;

/// Counters.
const KEYS: u64 = 3;
/// Answered calls that a client remembers.
const ANSWERED_MAX: usize = 40;

/// A client.
pub(super) struct Idempotent {
    seat: Seat,
    /// The call that is under way.
    asked: u64,
    /// Calls that were answered: their numbers, and what they asked.
    answered: VecDeque<(u64, Action)>,
}

impl Idempotent {
    pub(super) fn new(seat: Seat) -> Self {
        Idempotent { seat, asked: 0, answered: VecDeque::new() }
    }

    /// One of the answered calls, once more.
    fn again(&mut self) -> Option<Action> {
        let at = self.seat.rng.usize(..self.answered.len().max(1));
        match self.answered.get(at)? {
            (of, Action::Add { key, by }) => {
                Some(Action::Repeat { of: *of, key: key.clone(), by: *by })
            }
            _ => None,
        }
    }
}

impl Work for Idempotent {
    fn next(&mut self, id: u64) -> Ask {
        self.asked = id;
        let key = format!("once/{}", self.seat.rng.u64(..KEYS));
        let draw = self.seat.rng.u32(..100);
        if draw < 15 {
            return Action::Get { key }.into();
        }
        let again = self.again().filter(|_| draw < 35);
        again.map_or(Ask { once: true, ..Action::Add { key, by: 1 }.into() }, Ask::from)
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        if matches!((action, outcome), (Action::Add { .. }, Outcome::Done { .. })) {
            self.answered.push_back((self.asked, action.clone()));
            if self.answered.len() > ANSWERED_MAX {
                self.answered.pop_front();
            }
        }
    }

    fn roams(&self) -> bool {
        true
    }
}
