//! Transactions that check versions: of all that wrote a key which they had checked, no two built on the same
//! version of it. Two that did are a lost update, whatever the revisions say.

use std::collections::HashMap;

use super::{Effect, Judged, Part, effect, violated};
use crate::history::{Action, Step};

pub(super) fn check(part: &Part) -> Judged {
    let mut built: HashMap<(&str, Option<u64>), u64> = HashMap::new();
    for operation in part.operations.iter().filter(|op| effect(op) == Effect::Certain) {
        let Action::Txn { steps } = &operation.action else { continue };
        for step in steps {
            let Step::Check { key, version } = step else { continue };
            if !steps.iter().any(|step| step.writes() && step.key() == key) {
                continue;
            }
            if let Some(other) = built.insert((key, *version), operation.id) {
                let version = version.map_or("none".to_owned(), |version| version.to_string());
                let what = format!("two transactions replaced version {version} of `{key}`");
                return Err(violated(what, [other, operation.id]));
            }
        }
    }
    Ok(built.len())
}
