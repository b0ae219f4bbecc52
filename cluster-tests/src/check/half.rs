//! Pairs that are written in two steps by one script: both halves are always equal, and never those of a
//! script that failed between the two, or of a call that was refused.

use std::collections::{BTreeSet, HashMap};

use super::{Effect, Judged, Objection, Part, answer, effect, violated};
use crate::history::{Action, Answer};
use crate::model::half;

pub(super) fn check(part: &Part) -> Judged {
    // Values are unique in the run: each is of one call.
    let mut writers: HashMap<(u64, &str), (u64, Effect)> = HashMap::new();
    let mut pairs = BTreeSet::new();
    for operation in &part.operations {
        if let Action::Pair { pair, value, .. } = &operation.action {
            writers.insert((*pair, value), (operation.id, effect(operation)));
            pairs.insert(*pair);
        }
    }
    let right = |pair: u64, a: Option<&str>, b: Option<&str>, reader: Option<u64>| {
        is_whole(&writers, pair, a, b, reader)
    };
    let mut judged = 0;
    for operation in &part.operations {
        if let (Action::ReadPair { pair }, Some(Answer::Halves(a, b))) =
            (&operation.action, answer(operation))
        {
            right(*pair, a.as_deref(), b.as_deref(), Some(operation.id))?;
            judged += 1;
        }
    }
    for (_, rows) in part.rows() {
        for pair in &pairs {
            let read = |name| rows.get(half(*pair, name).as_str()).copied();
            right(*pair, read('a'), read('b'), None)?;
            judged += 1;
        }
    }
    Ok(judged)
}

fn is_whole(
    writers: &HashMap<(u64, &str), (u64, Effect)>,
    pair: u64,
    a: Option<&str>,
    b: Option<&str>,
    reader: Option<u64>,
) -> Result<(), Objection> {
    let writer = |value: Option<&str>| value.and_then(|value| writers.get(&(pair, value)).copied());
    let ids = [a, b].into_iter().filter_map(writer).map(|(id, _)| id).chain(reader);
    if a != b {
        return Err(violated(format!("the halves of pair {pair} are {a:?} and {b:?}"), ids));
    }
    let Some(value) = a else { return Ok(()) };
    match writer(Some(value)) {
        None => Err(violated(format!("nobody wrote {value}, which pair {pair} holds"), ids)),
        Some((_, Effect::Never)) => {
            let what = format!("pair {pair} holds {value}, of a call that failed or was refused");
            Err(violated(what, ids))
        }
        Some(_) => Ok(()),
    }
}
