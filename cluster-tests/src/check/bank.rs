//! A bank: money is moved, never made or lost, and no account is overdrawn. So it is in every answer that
//! shows all balances, and on every node at the end.

use super::{Judged, Part, answer, violated};
use crate::history::Answer;
use crate::model::{ACCOUNTS, BALANCE, account_key};

pub(super) fn check(part: &Part) -> Judged {
    let mut judged = 0;
    for operation in &part.operations {
        if let Some(Answer::Balances(balances)) = answer(operation) {
            is_sound(balances).map_err(|wrong| violated(wrong, [operation.id]))?;
            judged += 1;
        }
    }
    for (node, rows) in part.rows() {
        let balance = |account| rows.get(account_key(account).as_str())?.parse().ok();
        let balances: Option<Vec<i64>> = (0..ACCOUNTS).map(balance).collect();
        let Some(balances) = balances else {
            return Err(violated(format!("at the end node {node} has not all accounts"), []));
        };
        is_sound(&balances)
            .map_err(|wrong| violated(format!("at the end, node {node}: {wrong}"), []))?;
        judged += 1;
    }
    Ok(judged)
}

fn is_sound(balances: &[i64]) -> Result<(), String> {
    let all = i64::try_from(ACCOUNTS).unwrap_or(i64::MAX) * BALANCE;
    let sum: i64 = balances.iter().fold(0, |sum, balance| sum.saturating_add(*balance));
    if balances.len() as u64 != ACCOUNTS || sum != all {
        return Err(format!("{balances:?} are {sum} in all, and not {all}"));
    }
    if balances.iter().any(|balance| *balance < 0) {
        return Err(format!("an account is overdrawn: {balances:?}"));
    }
    Ok(())
}
