//! Keys that die. Once one was read as dead it stays dead, and none dies early: that is in the search for an
//! order ([`super::linearizable`]), in which each write is followed by a death that nobody ordered. Here:
//! - No read or list that began after a key's time was over shows it.
//! - All reads of a value say the same time of its death.
//! - At the end nothing is left; the nodes are read when all have been quiet for longer than a key lives.
//!
//! Nodes share the machine's clock, and time is compared with the harness's. Where a fault moved a node's
//! clock, only what does not depend on clocks is judged from then on: one that ran ahead may have stamped
//! a key, and the time of a bucket never goes back.

use std::collections::HashMap;

use super::{Effect, Judged, Objection, Part, RESOLUTION_ROWS, answer, effect, end, violated};
use crate::history::{Action, Answer, Micros, Operation};

/// What the clocks of one machine may differ by, with the rounding to milliseconds.
const SLACK: Micros = 100_000;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// The earliest moment at which the key of a write may die; `None` where it does not die.
pub(super) fn earliest_death(part: &Part, operation: &Operation) -> Option<Micros> {
    let Action::SetFor { seconds, .. } = &operation.action else { return None };
    let death = operation.began.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND));
    Some(match clocks_moved(part) {
        Some(at) if at < death => operation.began,
        _ => death.saturating_sub(SLACK),
    })
}

/// When a fault first moved a clock.
fn clocks_moved(part: &Part) -> Option<Micros> {
    let moved = part.faults.iter().filter(|fault| fault.kind.starts_with("clock-"));
    moved.map(|fault| fault.began).min()
}

pub(super) fn check(part: &Part) -> Judged {
    let mut writes: HashMap<(&str, &str), &Operation> = HashMap::new();
    for operation in &part.operations {
        if let Action::SetFor { key, value, .. } = &operation.action {
            writes.insert((key, value), operation);
        }
    }
    let mut deaths: HashMap<(&str, &str), (u64, u64)> = HashMap::new();
    let mut judged = 0;
    for operation in &part.operations {
        for (key, value) in shown(operation) {
            let Some(write) = writes.get(&(key, value)) else { continue };
            is_in_time(part, write, operation)?;
            judged += 1;
        }
        if let (Action::Get { key }, Some(Answer::Dated { value, expires_at, .. })) =
            (&operation.action, answer(operation))
            && let (Some(value), Some(at)) = (value, expires_at)
        {
            let (before, reader) = *deaths.entry((key, value)).or_insert((*at, operation.id));
            if before != *at {
                let what = format!("`{key}` = {value} dies at {before}, and at {at}");
                return Err(violated(what, [reader, operation.id]));
            }
        }
    }
    if clocks_moved(part).is_none() {
        nothing_is_left(part)?;
    }
    Ok(judged)
}

/// The keys that a read or a list shows, with their values.
fn shown(operation: &Operation) -> Vec<(&str, &str)> {
    match (&operation.action, answer(operation)) {
        (Action::List { .. }, Some(Answer::Rows(rows))) => {
            rows.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        }
        (Action::Get { key }, Some(answer)) => {
            let value = answer.shown().and_then(|(value, _)| value);
            value.map(|value| (key.as_str(), value)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a value may be seen by a read: it did not begin after the latest moment of its death.
fn is_in_time(part: &Part, write: &Operation, read: &Operation) -> Result<(), Objection> {
    let Action::SetFor { key, seconds, .. } = &write.action else { return Ok(()) };
    let Some(ended) = end(write) else { return Ok(()) };
    let latest = ended.saturating_add(seconds.saturating_mul(MICROS_PER_SECOND));
    let latest = latest.saturating_add(SLACK);
    let trusted = clocks_moved(part).is_none_or(|at| read.began < at);
    if trusted && read.began > latest {
        let late = (read.began - latest) / 1000;
        let what = format!("`{key}` was set for {seconds} s, and is seen {late} ms after its time");
        return Err(violated(what, [write.id, read.id]));
    }
    Ok(())
}

fn nothing_is_left(part: &Part) -> Result<(), Objection> {
    for (node, rows) in part.rows() {
        if let Some((key, value)) = rows.iter().find(|(key, _)| !key.starts_with(RESOLUTION_ROWS)) {
            let what = format!("at the end node {node} still holds `{key}` = {value}");
            let write = part.operations.iter().filter(|operation| {
                effect(operation) != Effect::Never
                    && matches!(&operation.action, Action::SetFor { value: set, .. } if set == value)
            });
            return Err(violated(what, write.map(|operation| operation.id)));
        }
    }
    Ok(())
}
