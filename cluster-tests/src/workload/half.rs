//! Scripts that end between two writes, in every way that a script can end, and reads of both halves.

use super::{Ask, Seat, Work};
use crate::history::{Action, Ending};

/// A pair's first half and the row of the operation are written before the script ends as it was asked
/// to: where any of it stays, all who read see it.
pub(super) const SCRIPTS: &[(&str, &str)] = &[
    (
        "pair",
        r#"
local pair, ending = "pair/" .. kvdb.var.pair, kvdb.var.ending
must(kvdb.set(pair .. "/a", kvdb.var.value))
must(kvdb.set("op/" .. kvdb.var.id, "pair"))
if ending == "error" then
  error("as meant")
elseif ending == "abort" then
  kvdb.abort(500, "as meant")
elseif ending == "exit" then
  kvdb.exit(500)
elseif ending == "fuel" then
  while true do end
elseif ending == "memory" then
  local held = {}
  while true do
    held[#held + 1] = string.rep("x", 10000) .. #held
  end
elseif ending == "caught" then
  pcall(function()
    while true do end
  end)
end
must(kvdb.set(pair .. "/b", kvdb.var.value))
"#,
    ),
    (
        "readpair",
        r#"
for _, half in { "/a", "/b" } do
  kvdb.say(kvdb.get("pair/" .. kvdb.var.pair .. half) or "")
end
"#,
    ),
];

/// Pairs that live at a time.
const PAIRS: u64 = 4;
/// Operations that a pair has on average.
const OPERATIONS_PER_PAIR: u64 = 150;

/// A client.
pub(super) struct Half {
    seat: Seat,
    asked: u64,
}

impl Half {
    pub(super) fn new(seat: Seat) -> Self {
        Half { seat, asked: 0 }
    }

    /// Those that use up time or memory are rare, or nothing else would be done.
    fn ending(&mut self) -> Ending {
        match self.seat.rng.u32(..100) {
            0 => Ending::Fuel,
            1 => Ending::Memory,
            2 => Ending::Caught,
            3..22 => Ending::Error,
            22..41 => Ending::Abort,
            41..60 => Ending::Exit,
            _ => Ending::Well,
        }
    }
}

impl Work for Half {
    fn next(&mut self, id: u64) -> Ask {
        let generation = self.asked / self.seat.share(PAIRS * OPERATIONS_PER_PAIR);
        let pair = generation * PAIRS + self.seat.rng.u64(..PAIRS);
        self.asked += 1;
        if self.seat.chance(35) {
            return Action::ReadPair { pair }.into();
        }
        Action::Pair { pair, value: format!("v{id}"), ending: self.ending() }.into()
    }
}
