//! One hot counter: `PATCH`, and a script that adds one and answers the value.

use super::{Ask, Seat, Work};
use crate::history::Action;

pub(super) const SCRIPTS: &[(&str, &str)] = &[(
    "add",
    r#"
must(kvdb.incr(kvdb.var.counter, kvdb.var.by))
must(kvdb.set("op/" .. kvdb.var.id, "add"))
kvdb.say(kvdb.get(kvdb.var.counter))
"#,
)];

/// A client.
pub(super) struct Counter {
    seat: Seat,
}

impl Counter {
    pub(super) fn new(seat: Seat) -> Self {
        Counter { seat }
    }
}

impl Work for Counter {
    fn next(&mut self, _: u64) -> Ask {
        let key = "counter".to_owned();
        Ask::from(match self.seat.chance(75) {
            true => Action::Add { key, by: 1 },
            false => Action::Get { key },
        })
    }
}
