//! Keys that die after some seconds: set by `PUT ?ttl=` and by a script, read and listed while they die.

use super::{Ask, Seat, Work};
use crate::history::Action;

pub(super) const SCRIPTS: &[(&str, &str)] = &[(
    "setfor",
    r#"
must(kvdb.set(kvdb.var.name, kvdb.var.value, { ttl = tonumber(kvdb.var.seconds) }))
must(kvdb.set("op/" .. kvdb.var.id, "setfor", { ttl = 0 }))
"#,
)];

/// Keys that live at a time.
const KEYS: u64 = 16;
/// Operations that a client asks before the next keys are begun: lists see all keys, so that the histories
/// of keys are long.
const OPERATIONS_PER_GENERATION: u64 = 800;
/// For how long a key may live.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=3;

/// A client.
pub(super) struct Expiry {
    seat: Seat,
    asked: u64,
}

impl Expiry {
    pub(super) fn new(seat: Seat) -> Self {
        Expiry { seat, asked: 0 }
    }
}

impl Work for Expiry {
    fn next(&mut self, id: u64) -> Ask {
        let generation = self.asked / self.seat.share(OPERATIONS_PER_GENERATION);
        self.asked += 1;
        let (prefix, rng) = (format!("x{generation}/"), &mut self.seat.rng);
        let key = format!("{prefix}{:02}", rng.u64(..KEYS));
        Ask::from(match rng.u32(..100) {
            0..15 => Action::SetFor { key, value: format!("v{id}"), seconds: rng.u64(SECONDS) },
            15..80 => Action::Get { key },
            _ => Action::List { prefix },
        })
    }

    fn roams(&self) -> bool {
        true
    }
}
