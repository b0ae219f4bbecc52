//! Transfers between accounts, and all balances, by scripts.

use super::{Ask, Seat, Work};
use crate::history::Action;
use crate::model::ACCOUNTS;

/// A transfer of too much has made its writes when it says so: its status takes them back.
pub(super) const SCRIPTS: &[(&str, &str)] = &[
    (
        "transfer",
        r#"
local function balance(row)
  return tonumber(kvdb.get(row) or "0")
end
local from, to = "account/" .. kvdb.var.from, "account/" .. kvdb.var.to
local amount = tonumber(kvdb.var.amount)
local left = balance(from) - amount
must(kvdb.set(from, left))
must(kvdb.set(to, balance(to) + amount))
must(kvdb.set("op/" .. kvdb.var.id, "transfer"))
if left < 0 then
  kvdb.exit(409)
end
"#,
    ),
    (
        "balances",
        r#"
for account = 0, tonumber(kvdb.var.accounts) - 1 do
  kvdb.say(kvdb.get("account/" .. account) or "0")
end
"#,
    ),
];

/// Most that is moved at a time: some of it is not there.
const AMOUNT_MAX: u64 = 60;

/// A client.
pub(super) struct Bank {
    seat: Seat,
}

impl Bank {
    pub(super) fn new(seat: Seat) -> Self {
        Bank { seat }
    }
}

impl Work for Bank {
    fn next(&mut self, _: u64) -> Ask {
        if self.seat.chance(35) {
            return Action::Balances.into();
        }
        let rng = &mut self.seat.rng;
        let (from, step) = (rng.u64(..ACCOUNTS), rng.u64(1..ACCOUNTS));
        let amount = rng.u64(1..=AMOUNT_MAX);
        Action::Transfer { from, to: (from + step) % ACCOUNTS, amount }.into()
    }
}
