//! A set of keys that are each inserted once: every acknowledged one is on every node at the end with its
//! value, and nothing is there that nobody inserted, or only a call without an effect. A read that began
//! after an insert had ended shows it.

use std::collections::HashMap;

use super::RESOLUTION_ROWS;
use super::{Effect, Judged, Objection, Part, Rows, answer, effect, end, unknown, violated};
use crate::history::{Action, Answer, Operation};

pub(super) fn check(part: &Part) -> Judged {
    let mut inserts: HashMap<&str, &Operation> = HashMap::new();
    for operation in &part.operations {
        if let Action::Set { key, .. } = &operation.action
            && inserts.insert(key, operation).is_some()
        {
            return Err(unknown(format!("`{key}` was inserted twice: it is no set")));
        }
    }
    for operation in &part.operations {
        if let (Action::Get { key }, Some(Answer::Value { value, .. })) =
            (&operation.action, answer(operation))
        {
            read_is_right(operation, value.as_deref(), inserts.get(key.as_str()).copied())?;
        }
    }
    for (node, rows) in part.rows() {
        holds_all(node, &rows, part)?;
        holds_nothing_else(node, &rows, &inserts)?;
    }
    if part.dumps.is_empty() {
        return Err(unknown("no node was read at the end"));
    }
    Ok(inserts.len())
}

fn value(operation: &Operation) -> Option<&str> {
    match &operation.action {
        Action::Set { value, .. } => Some(value),
        _ => None,
    }
}

fn read_is_right(
    read: &Operation,
    shown: Option<&str>,
    insert: Option<&Operation>,
) -> Result<(), Objection> {
    let ids = insert.map(|insert| insert.id).into_iter().chain([read.id]);
    let Some(shown) = shown else {
        let missed = insert.is_some_and(|insert| {
            effect(insert) == Effect::Certain && end(insert).is_some_and(|end| end < read.began)
        });
        return if missed {
            Err(violated("an insert had ended, and is not seen", ids))
        } else {
            Ok(())
        };
    };
    let possible = insert.is_some_and(|insert| {
        effect(insert) != Effect::Never
            && value(insert) == Some(shown)
            && insert.began <= read.ended
    });
    if possible {
        Ok(())
    } else {
        Err(violated(format!("{shown} is read, and was not inserted"), ids))
    }
}

fn holds_all(node: u64, rows: &Rows, part: &Part) -> Result<(), Objection> {
    let mut lost = Vec::new();
    let mut acknowledged = 0;
    for operation in part.operations.iter().filter(|op| effect(op) == Effect::Certain) {
        let Action::Set { key, value } = &operation.action else { continue };
        acknowledged += 1;
        if rows.get(key.as_str()) != Some(&value.as_str()) {
            lost.push(operation.id);
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let what = format!(
        "at the end node {node} lacks {} of {acknowledged} acknowledged inserts",
        lost.len()
    );
    Err(violated(what, lost))
}

fn holds_nothing_else(
    node: u64,
    rows: &Rows,
    inserts: &HashMap<&str, &Operation>,
) -> Result<(), Objection> {
    for (key, held) in rows.iter().filter(|(key, _)| !key.starts_with(RESOLUTION_ROWS)) {
        let insert = inserts.get(key);
        let possible =
            insert.is_some_and(|op| effect(op) != Effect::Never && value(op) == Some(*held));
        if !possible {
            let what = format!(
                "at the end node {node} holds `{key}` = {held}, which nobody inserted with effect"
            );
            return Err(violated(what, insert.map(|insert| insert.id)));
        }
    }
    Ok(())
}
