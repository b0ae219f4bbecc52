//! A lock with fencing tokens: no token is given twice, later ones are greater, and once the resource was
//! used under a token, it is never used under an older one.

use std::collections::HashMap;

use super::order::{Span, floors};
use super::{Judged, Objection, Part, answer, end, violated};
use crate::history::{Action, Answer, Operation};

pub(super) fn check(part: &Part) -> Judged {
    let mut taken = Vec::new();
    let mut used = Vec::new();
    let mut tokens: HashMap<i64, u64> = HashMap::new();
    for operation in &part.operations {
        match (&operation.action, answer(operation)) {
            (Action::Acquire { .. }, Some(Answer::Number(token))) => {
                if let Some(other) = tokens.insert(*token, operation.id) {
                    let what = format!("the token {token} was given twice");
                    return Err(violated(what, [other, operation.id]));
                }
                taken.push(span(operation, *token));
            }
            (Action::Use { token, .. }, Some(Answer::Written)) => {
                used.push(span(operation, *token));
            }
            _ => {}
        }
    }
    never_falls(&taken, true, "was given")?;
    never_falls(&used, false, "was accepted")?;
    Ok(taken.len() + used.len())
}

fn span(operation: &Operation, measure: i64) -> Span<i64> {
    Span { id: operation.id, began: operation.began, ended: end(operation), measure }
}

fn never_falls(spans: &[Span<i64>], rises: bool, what: &str) -> Result<(), Objection> {
    for (span, floor) in spans.iter().zip(floors(spans)) {
        let Some(floor) = floor else { continue };
        if span.measure < floor.measure || (rises && span.measure == floor.measure) {
            let what =
                format!("the token {} {what} after {} had been", span.measure, floor.measure);
            return Err(violated(what, [floor.id, span.id]));
        }
    }
    Ok(())
}
