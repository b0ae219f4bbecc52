//! A bank: money is moved, never made or lost, and no account is overdrawn. So it is in every answer that
//! shows all balances, and on every node at the end. Where transactions move it, an account that is not there
//! has what it begins with.

use super::{Judged, Part, answer, violated};
use crate::history::{Action, Answer, Operation, Step, StepAnswer};
use crate::model::{ACCOUNTS, BALANCE, account_key};

pub(super) fn check(part: &Part) -> Judged {
    let mut judged = 0;
    for operation in &part.operations {
        if let Some(balances) = balances(operation) {
            is_sound(&balances).map_err(|wrong| violated(wrong, [operation.id]))?;
            judged += 1;
        }
    }
    for (node, rows) in part.rows() {
        let absent = (part.workload == "transactions").then_some(BALANCE);
        let balance = |account| match rows.get(account_key(account).as_str()) {
            Some(text) => text.parse().ok(),
            None => absent,
        };
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

/// All balances, where an answer shows them.
fn balances(operation: &Operation) -> Option<Vec<i64>> {
    match (&operation.action, answer(operation)?) {
        (_, Answer::Balances(balances)) => Some(balances.clone()),
        // One that writes as well shows some from before and some from after.
        (Action::Txn { steps }, Answer::Results(results)) if !operation.writes() => {
            let balance = |account| {
                let key = account_key(account);
                let asked = |step: &Step| matches!(step, Step::Get { key: asked } if *asked == key);
                match results.get(steps.iter().position(asked)?)? {
                    StepAnswer::Value { value: Some(text), .. } => text.parse().ok(),
                    StepAnswer::Value { value: None, .. } => Some(BALANCE),
                    _ => None,
                }
            };
            (0..ACCOUNTS).map(balance).collect()
        }
        _ => None,
    }
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
