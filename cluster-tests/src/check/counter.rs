//! Counters whose additions answer the new value.
//!
//! - Where all additions are positive, no two answers are the same, and a later one (in real time) is
//!   greater; a read is at least as great as all that had been answered before it began.
//! - At the end each node holds the sum of all acknowledged additions, and of those of the unknown ones
//!   that were applied: a number between two bounds, or exactly one if all are resolved.

use std::collections::{BTreeMap, HashMap};

use super::order::{Span, floors};
use super::{Effect, Judged, Objection, Part, answer, effect, end, unknown, violated};
use crate::history::{Action, Answer, Operation};

pub(super) fn check(part: &Part) -> Judged {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &part.operations {
        if let Action::Add { key, .. } | Action::Get { key } = &operation.action {
            keys.entry(key).or_default().push(operation);
        }
    }
    for (key, operations) in &keys {
        let amounts = operations.iter().filter_map(|operation| amount(operation));
        if amounts.clone().all(|by| by > 0) {
            answers_rise(key, operations)?;
        }
        final_value(part, key, operations)?;
    }
    if part.dumps.is_empty() {
        return Err(unknown("no node was read at the end"));
    }
    Ok(keys.values().map(Vec::len).sum())
}

fn amount(operation: &Operation) -> Option<i64> {
    match operation.action {
        Action::Add { by, .. } => Some(by),
        _ => None,
    }
}

/// What an operation says of the counter.
fn number(operation: &Operation) -> Option<i64> {
    match answer(operation)? {
        Answer::Number(number) => Some(*number),
        Answer::Value { value: Some(text), .. } => text.parse().ok(),
        Answer::Value { value: None, .. } => Some(0),
        _ => None,
    }
}

fn answers_rise(key: &str, operations: &[&Operation]) -> Result<(), Objection> {
    let mut answered: HashMap<i64, u64> = HashMap::new();
    let mut spans = Vec::new();
    for operation in operations {
        let Some(measure) = number(operation) else { continue };
        let (id, began, ended) = (operation.id, operation.began, end(operation));
        spans.push((Span { id, began, ended, measure }, amount(operation).is_some()));
        if amount(operation).is_some()
            && let Some(other) = answered.insert(measure, id)
        {
            let what = format!("two additions to `{key}` answered {measure}");
            return Err(violated(what, [other, id]));
        }
    }
    let only: Vec<Span<i64>> = spans.iter().map(|(span, _)| *span).collect();
    for ((span, adds), floor) in spans.iter().zip(floors(&only)) {
        let Some(floor) = floor else { continue };
        let fell = span.measure < floor.measure || (*adds && span.measure == floor.measure);
        if fell {
            let what =
                format!("`{key}` was {}, and later {} was answered", floor.measure, span.measure);
            return Err(violated(what, [floor.id, span.id]));
        }
    }
    Ok(())
}

fn final_value(part: &Part, key: &str, operations: &[&Operation]) -> Result<(), Objection> {
    let (mut least, mut most) = (0_i64, 0_i64);
    let (mut certain, mut possible) = (0, 0);
    for operation in operations {
        let by = amount(operation).unwrap_or(0);
        match effect(operation) {
            Effect::Certain => {
                (least, most) = (least.saturating_add(by), most.saturating_add(by));
                certain += 1;
            }
            Effect::Possible => {
                (least, most) = (least.saturating_add(by.min(0)), most.saturating_add(by.max(0)));
                possible += 1;
            }
            Effect::Never => {}
        }
    }
    for (node, rows) in part.rows() {
        let held = rows.get(key).map_or(Some(0), |text| text.parse::<i64>().ok());
        if held.is_none_or(|held| held < least || held > most) {
            let what = format!(
                "at the end node {node} holds {:?} for `{key}`; {certain} additions were made and \
                 {possible} may have been: {least} to {most}",
                rows.get(key)
            );
            return Err(violated(what, last_answers(operations)));
        }
    }
    Ok(())
}

/// The greatest answer, which the end should not be below.
fn last_answers(operations: &[&Operation]) -> Option<u64> {
    operations.iter().max_by_key(|operation| number(operation)).map(|operation| operation.id)
}
