//! A lock that can be taken away, and a resource that refuses whoever has lost it: fencing tokens.

use super::{Ask, Seat, Work};
use crate::history::{Action, Answer, Outcome};

pub(super) const SCRIPTS: &[(&str, &str)] = &[
    (
        "acquire",
        r#"
if kvdb.get("lock") and not kvdb.var.steal then
  kvdb.abort(409, "held")
end
must(kvdb.set("lock", kvdb.var.owner))
must(kvdb.incr("fence", 1))
must(kvdb.set("op/" .. kvdb.var.id, "acquire"))
kvdb.say(kvdb.get("fence"))
"#,
    ),
    (
        "release",
        r#"
if kvdb.get("lock") ~= kvdb.var.owner then
  kvdb.exit(409)
end
must(kvdb.delete("lock"))
must(kvdb.set("op/" .. kvdb.var.id, "release"))
"#,
    ),
    (
        "use",
        r#"
if tonumber(kvdb.var.token) < tonumber(kvdb.get("seen") or "0") then
  kvdb.abort(409, "the token is too old")
end
must(kvdb.set("seen", kvdb.var.token))
must(kvdb.set("resource", kvdb.var.value))
must(kvdb.set("op/" .. kvdb.var.id, "use"))
"#,
    ),
];

/// A client.
pub(super) struct Lock {
    seat: Seat,
    /// Clients that sat here before.
    life: u64,
    /// The last token that it was given; it goes on using it when the lock was taken away.
    token: Option<i64>,
    /// Whether it takes itself for the holder.
    holds: bool,
}

impl Lock {
    pub(super) fn new(seat: Seat) -> Self {
        Lock { seat, life: 0, token: None, holds: false }
    }

    fn owner(&self) -> String {
        format!("c{}-{}", self.seat.index, self.life)
    }
}

impl Work for Lock {
    fn next(&mut self, id: u64) -> Ask {
        let (draw, steal) = (self.seat.rng.u32(..100), self.seat.chance(30));
        let (uses, releases) = if self.holds { (60, 90) } else { (25, 30) };
        let owner = self.owner();
        Ask::from(match self.token {
            Some(token) if draw < uses => Action::Use { token, value: format!("v{id}") },
            _ if draw >= uses && draw < releases => Action::Release { owner },
            _ => Action::Acquire { owner, steal },
        })
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        match (action, outcome) {
            (_, Outcome::Unknown { .. }) => {
                self.life += 1;
                (self.token, self.holds) = (None, false);
            }
            (Action::Acquire { .. }, Outcome::Done { answer: Answer::Number(token), .. }) => {
                (self.token, self.holds) = (Some(*token), true);
            }
            (Action::Release { .. }, Outcome::Done { .. })
            | (Action::Use { .. }, Outcome::Done { answer: Answer::Denied, .. }) => {
                self.holds = false;
            }
            _ => {}
        }
    }
}
