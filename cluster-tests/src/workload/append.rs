//! Lists that grow: some read and some appended to in one script call.

use super::{Ask, Seat, Work};
use crate::history::{Action, Micro};

/// `steps` is `a:KEY:ELEMENT` and `r:KEY`, separated by commas; each list that is read is a line.
pub(super) const SCRIPTS: &[(&str, &str)] = &[(
    "append",
    r#"
local wrote = false
for kind, key, element in string.gmatch(kvdb.var.steps, "(%a):(%d+):?(%d*)") do
  local row = "list/" .. key
  local list = kvdb.get(row)
  if kind == "a" then
    must(kvdb.set(row, if list then list .. "," .. element else element))
    wrote = true
  else
    kvdb.say(list or "")
  end
end
if wrote then
  must(kvdb.set("op/" .. kvdb.var.id, "append"))
end
"#,
)];

/// Lists that live at a time.
const KEYS: u64 = 6;
/// Elements that a list gets on average.
const ELEMENTS_PER_KEY: u64 = 100;
/// Most steps of a call.
const STEPS_MAX: u64 = 4;

/// A client.
pub(super) struct Append {
    seat: Seat,
    appended: u64,
}

impl Append {
    pub(super) fn new(seat: Seat) -> Self {
        Append { seat, appended: 0 }
    }
}

impl Work for Append {
    fn next(&mut self, id: u64) -> Ask {
        let generation = self.appended / self.seat.share(KEYS * ELEMENTS_PER_KEY);
        let (reads_only, count) = (self.seat.chance(30), self.seat.rng.u64(1..=STEPS_MAX));
        let steps = (0..count).map(|step| {
            let key = generation * KEYS + self.seat.rng.u64(..KEYS);
            if reads_only || self.seat.chance(40) {
                return Micro::Read(key);
            }
            self.appended += 1;
            Micro::Append(key, id * STEPS_MAX + step)
        });
        Action::Append { steps: steps.collect() }.into()
    }
}
