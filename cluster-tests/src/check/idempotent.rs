//! Calls with an `Idempotency-Key`: who asks once more what was answered is told the same again, and that it
//! is the same. (That nothing was done twice, the counters' sums tell.)

use std::collections::HashMap;

use super::{Judged, Part, answer, violated};
use crate::history::{Action, Answer, Operation, Outcome};

pub(super) fn check(part: &Part) -> Judged {
    let firsts = part.operations.iter().filter(|op| matches!(op.action, Action::Add { .. }));
    let firsts: HashMap<u64, &Operation> = firsts.map(|op| (op.id, *op)).collect();
    let mut judged = firsts.len();
    for operation in &part.operations {
        let Action::Repeat { of, .. } = &operation.action else { continue };
        let Some(Answer::Again { number, replayed }) = answer(operation) else { continue };
        let Some(first) = firsts.get(of) else { continue };
        let Some(Answer::Number(told)) = answer(first) else { continue };
        if number != told || revision(operation) != revision(first) {
            let what = format!(
                "{told} at {:?} was answered, and {number} at {:?} when it was asked again",
                revision(first),
                revision(operation)
            );
            return Err(violated(what, [*of, operation.id]));
        }
        if !replayed {
            let what = "a call was answered again, and the answer does not say so";
            return Err(violated(what, [*of, operation.id]));
        }
        judged += 1;
    }
    Ok(judged)
}

fn revision(operation: &Operation) -> Option<u64> {
    match operation.outcome {
        Outcome::Done { revision, .. } => revision,
        _ => None,
    }
}
