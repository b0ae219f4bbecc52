//! What was acknowledged last is on every node at the end.
//!
//! For every key that is overwritten: the value at the end is of a write that may have been the last one,
//! with an effect, and no acknowledged write began after it had ended. For lists: every acknowledged
//! element is there. For the lock: its counter is not below an acknowledged token.

use std::collections::BTreeMap;

use super::{
    Effect, Judged, Objection, Part, Rows, answer, effect, end, unknown, violated, written,
};
use crate::history::{Action, Answer, Micro, Operation};
use crate::model::{half, list_key};

pub(super) fn check(part: &Part) -> Judged {
    if part.dumps.is_empty() {
        return Err(unknown("no node was read at the end"));
    }
    let writes = writes(part);
    let mut judged = 0;
    for (node, rows) in part.rows() {
        for (key, writes) in &writes {
            holds_a_last_one(node, key, rows.get(key.as_str()).copied(), writes)?;
            judged += writes.len();
        }
        judged += holds_elements(node, &rows, part)?;
        judged += holds_token(node, &rows, part)?;
    }
    Ok(judged)
}

/// A write, and what it leaves in the row.
struct Write<'a> {
    operation: &'a Operation,
    leaves: Option<&'a str>,
}

fn writes<'a>(part: &Part<'a>) -> BTreeMap<String, Vec<Write<'a>>> {
    let mut writes: BTreeMap<String, Vec<Write>> = BTreeMap::new();
    for operation in part.operations.iter().copied() {
        let mut add = |key: String, leaves: Option<&'a str>| {
            writes.entry(key).or_default().push(Write { operation, leaves });
        };
        match &operation.action {
            Action::Delete { key } | Action::Remove { key, .. } => add(key.clone(), None),
            Action::Pair { pair, value, .. } => {
                add(half(*pair, 'a'), Some(value));
                add(half(*pair, 'b'), Some(value));
            }
            action => {
                if let Some((key, value)) = written(action) {
                    add(key.to_owned(), Some(value));
                }
            }
        }
    }
    writes
}

fn holds_a_last_one(
    node: u64,
    key: &str,
    held: Option<&str>,
    writes: &[Write],
) -> Result<(), Objection> {
    let certain = writes.iter().filter(|write| effect(write.operation) == Effect::Certain);
    let latest = certain.max_by_key(|write| write.operation.began);
    let may_be_last = |write: &Write| {
        let operation = write.operation;
        let superseded = latest.is_some_and(|latest| {
            end(operation).is_some_and(|ended| ended < latest.operation.began)
        });
        effect(operation) != Effect::Never && !superseded
    };
    let mut source = writes.iter().filter(|write| write.leaves == held);
    let never_written = held.is_none() && latest.is_none();
    if never_written || source.clone().any(may_be_last) {
        return Ok(());
    }
    let what = format!(
        "at the end node {node} holds {held:?} for `{key}`, which no write left that may have been the last"
    );
    let source = source.next().map(|write| write.operation.id);
    Err(violated(what, latest.map(|write| write.operation.id).into_iter().chain(source)))
}

fn holds_elements(node: u64, rows: &Rows, part: &Part) -> Judged {
    let mut lists: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut judged = 0;
    for operation in part.operations.iter().filter(|op| effect(op) == Effect::Certain) {
        let Action::Append { steps } = &operation.action else { continue };
        for step in steps {
            let Micro::Append(key, element) = step else { continue };
            let list = lists.entry(*key).or_insert_with(|| {
                let text = rows.get(list_key(*key).as_str()).copied().unwrap_or("");
                let mut list: Vec<&str> = text.split(',').collect();
                list.sort_unstable();
                list
            });
            if list.binary_search(&element.to_string().as_str()).is_err() {
                let what = format!("at the end node {node} lacks {element} in list {key}");
                return Err(violated(what, [operation.id]));
            }
            judged += 1;
        }
    }
    Ok(judged)
}

fn holds_token(node: u64, rows: &Rows, part: &Part) -> Judged {
    let tokens = part.operations.iter().filter_map(|operation| {
        match (&operation.action, answer(operation)) {
            (Action::Acquire { .. }, Some(Answer::Number(token))) => Some((*token, operation.id)),
            _ => None,
        }
    });
    let Some((token, id)) = tokens.clone().max() else { return Ok(0) };
    let fence: Option<i64> = rows.get("fence").and_then(|text| text.parse().ok());
    if fence.is_none_or(|fence| fence < token) {
        let what =
            format!("the token {token} was given, and at the end node {node} is at {fence:?}");
        return Err(violated(what, [id]));
    }
    Ok(tokens.count())
}
