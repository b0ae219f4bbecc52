//! Transfers by transactions (`POST /BUCKET`): a client reads all accounts at once, then moves money between
//! two of them if nobody has touched these since. An account that is not there yet has what it begins with.

use super::{Ask, Seat, Work};
use crate::history::{Action, Answer, Outcome, Step, StepAnswer};
use crate::model::{ACCOUNTS, BALANCE, account_key};

/// Most that is moved at a time.
const AMOUNT_MAX: i64 = 60;
/// Keys that are set and deleted along with a transfer.
const SLIPS: u64 = 4;
/// A number that every transfer adds to.
const MOVES: &str = "moves";

/// A client.
pub(super) struct Transactions {
    seat: Seat,
    /// Balance and version of each account, as it was just read.
    accounts: Vec<(i64, Option<u64>)>,
}

impl Transactions {
    pub(super) fn new(seat: Seat) -> Self {
        Transactions { seat, accounts: Vec::new() }
    }

    /// A transfer on what was read; none where nothing is left there.
    fn transfer(&mut self, id: u64) -> Option<Action> {
        let accounts = std::mem::take(&mut self.accounts);
        let rng = &mut self.seat.rng;
        let (from, step) = (rng.u64(..ACCOUNTS), rng.u64(1..ACCOUNTS));
        let to = (from + step) % ACCOUNTS;
        let of = |account: u64| accounts.get(usize::try_from(account).ok()?).copied();
        let ((has, from_version), (gets, to_version)) = (of(from)?, of(to)?);
        let amount = rng.i64(1..=AMOUNT_MAX).min(has);
        if amount == 0 {
            return None;
        }
        let (from, to) = (account_key(from), account_key(to));
        let mut steps = vec![
            Step::Check { key: from.clone(), version: from_version },
            Step::Check { key: to.clone(), version: to_version },
            Step::Set { key: from, value: (has - amount).to_string() },
            Step::Set { key: to.clone(), value: (gets + amount).to_string() },
            Step::Incr { key: MOVES.to_owned(), by: 1 },
            Step::Get { key: to },
        ];
        let slip = format!("slip/{}", rng.u64(..SLIPS));
        steps.push(match rng.bool() {
            true => Step::Set { key: slip, value: format!("v{id}") },
            false => Step::Delete { key: slip },
        });
        Some(Action::Txn { steps })
    }
}

/// All accounts, and what is not money.
fn read() -> Action {
    let slips = (0..SLIPS).map(|slip| format!("slip/{slip}"));
    let keys = (0..ACCOUNTS).map(account_key).chain([MOVES.to_owned()]).chain(slips);
    Action::Txn { steps: keys.map(|key| Step::Get { key }).collect() }
}

impl Work for Transactions {
    fn next(&mut self, id: u64) -> Ask {
        self.transfer(id).unwrap_or_else(read).into()
    }

    fn saw(&mut self, action: &Action, outcome: &Outcome) {
        if action.writes() {
            return;
        }
        let Outcome::Done { answer: Answer::Results(results), .. } = outcome else { return };
        let balance = |result: &StepAnswer| match result {
            StepAnswer::Value { value: Some(text), version } => {
                Some((text.parse().ok()?, *version))
            }
            StepAnswer::Value { value: None, .. } => Some((BALANCE, None)),
            _ => None,
        };
        let accounts = results.iter().zip(0..ACCOUNTS);
        self.accounts = accounts.map_while(|(result, _)| balance(result)).collect();
    }
}
