//! Workloads: what clients do while faults happen, recorded as a history.
//!
//! A workload has a bucket of its name, some scripts in it, and clients that each draw one call after the
//! other from a seed: a `Work`. The calls are real: HTTP/1.1 to any node, redirects followed by hand,
//! nothing ever sent twice. [`Crowd`] is all clients of all workloads at once; [`resolve`] and
//! [`dump`] read what is left when they are done and the cluster is whole again.
//!
//! | workload | what it does | what it would show |
//! |---|---|---|
//! | `register` | get, set, compare-and-set, delete of single keys | stale reads, lost updates |
//! | `counter` | adds one, by `PATCH` and by a script | an increment lost, or made twice |
//! | `set` | sets keys that nobody else sets | an acknowledged write lost, a refused one there |
//! | `append` | some lists read and appended to in one call | write skew, reads of two states |
//! | `bank` | transfers and balances by scripts | money made or lost, an account overdrawn |
//! | `lock` | a lock with fencing tokens, by scripts | two holders, a token given twice |
//! | `list` | keys put and deleted under a prefix, and listed | a list of no single state |
//! | `half` | scripts that fail between two writes | half a script's writes |
//! | `idempotent` | adds with `Idempotency-Key`, asked again until it is told | an increment made twice, another answer |
//! | `transactions` | transfers by `POST /BUCKET` with checks, and reads of all | a lost update, money made or lost |
//! | `expiry` | keys that live for seconds, read and listed while they die | a key that dies early, late, or is back |
//! | `conditional` | `If-Match` and `If-None-Match` on few keys | a condition that did not hold, and did |
//! | `stale` | stale reads, and reads of at least a revision, on any node | a session that goes back, an age that lies |
//!
//! Invariants:
//! - What is asked is a function of the seed, of the client's seat, and of what the client was answered;
//!   times and nodes are not. So are the numbers of the operations, and what is made of them: values that
//!   no other write of the run has.
//! - A script that succeeds and writes leaves the row `op/ID` in the same transaction; one that was called
//!   to fail has written it before it fails. Nothing else leaves such a row: see [`leaves_row`].
//! - A delete of what is not there writes nothing: it is answered like any other, with the revision that it
//!   read at, which another operation may have made. So is whatever the state denied; a compare-and-set
//!   that failed does not say its revision at all.
//! - The scripts do what [`crate::model`] says, no more.
//! - A client that does not know what became of its call is not used again: another one sits down in its
//!   place, with a new number and new connections.
//! - What lives long is short: a key, a list or a prefix has its share of operations, then a new one
//!   takes its place.

mod aftermath;
mod answer;
mod append;
mod bank;
mod client;
mod conditional;
mod counter;
mod crowd;
mod expiry;
#[cfg(test)]
mod fake;
mod half;
mod idempotent;
mod list;
mod lock;
mod register;
mod request;
mod set;
mod setup;
mod stale;
mod transactions;

use crate::history::{Action, Operation, Outcome};

pub use aftermath::{dump, resolve};
pub use crowd::{Crowd, Node, Plan};
pub use request::leaves_row;
pub use setup::setup;

/// All workloads.
pub const NAMES: &[&str] = &[
    "register",
    "counter",
    "set",
    "append",
    "bank",
    "lock",
    "list",
    "half",
    "idempotent",
    "transactions",
    "expiry",
    "conditional",
    "stale",
];

/// How the reason begins where an answer is none that the contract knows.
const UNEXPECTED: &str = "unexpected: ";
/// Most troubles that are listed.
const TROUBLES_MAX: usize = 50;

/// What a client asks: one after the other, each once the last was answered.
pub(crate) trait Work: Send {
    /// Draws what is asked next. The number of the operation makes its values unique.
    fn next(&mut self, id: u64) -> Ask;

    /// Learns what came of it.
    fn saw(&mut self, _action: &Action, _outcome: &Outcome) {}

    /// Whether each call goes to a node that is drawn anew, instead of staying with one for a while.
    fn roams(&self) -> bool {
        false
    }
}

/// An action, and what its request needs beyond it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) action: Action,
    /// The version that a condition names.
    version: Option<u64>,
    /// Whether it has an `Idempotency-Key`, and is asked again until it is answered for good.
    once: bool,
}

impl From<Action> for Ask {
    fn from(action: Action) -> Self {
        Ask { action, version: None, once: false }
    }
}

/// A client's place among those of its workload.
pub(crate) struct Seat {
    /// Its number, from 0.
    pub(crate) index: u64,
    /// How many there are.
    pub(crate) count: u64,
    /// What it draws from.
    pub(crate) rng: fastrand::Rng,
}

impl Seat {
    /// This seat's part of something that all seats of the workload share; at least one.
    fn share(&self, of_all: u64) -> u64 {
        (of_all / self.count).max(1)
    }

    /// True this many times of a hundred.
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }
}

/// What clients of a workload ask; `None` where there is no such workload.
pub(crate) fn work(workload: &str, seat: Seat) -> Option<Box<dyn Work>> {
    Some(match workload {
        "register" => Box::new(register::Register::new(seat)),
        "counter" => Box::new(counter::Counter::new(seat)),
        "set" => Box::new(set::Set::new(seat)),
        "append" => Box::new(append::Append::new(seat)),
        "bank" => Box::new(bank::Bank::new(seat)),
        "lock" => Box::new(lock::Lock::new(seat)),
        "list" => Box::new(list::List::new(seat)),
        "half" => Box::new(half::Half::new(seat)),
        "idempotent" => Box::new(idempotent::Idempotent::new(seat)),
        "transactions" => Box::new(transactions::Transactions::new(seat)),
        "expiry" => Box::new(expiry::Expiry::new(seat)),
        "conditional" => Box::new(conditional::Conditional::new(seat)),
        "stale" => Box::new(stale::Stale::new(seat)),
        _ => return None,
    })
}

/// The scripts of a workload: name and source.
fn scripts(workload: &str) -> &'static [(&'static str, &'static str)] {
    match workload {
        "counter" => counter::SCRIPTS,
        "append" => append::SCRIPTS,
        "bank" => bank::SCRIPTS,
        "lock" => lock::SCRIPTS,
        "half" => half::SCRIPTS,
        "idempotent" => idempotent::SCRIPTS,
        "expiry" => expiry::SCRIPTS,
        _ => &[],
    }
}

/// Answers that the contract does not know: a 500 that nobody meant, a 400, a body that cannot be read.
/// Each is a trouble of the run, whatever the checkers say.
#[must_use]
pub fn unexpected(operations: &[Operation]) -> Vec<String> {
    let found = operations.iter().filter_map(|operation| match &operation.outcome {
        Outcome::Unknown { reason, .. } if reason.starts_with(UNEXPECTED) => {
            let Operation { id, workload, node, .. } = operation;
            Some(format!("operation {id} of `{workload}` at node {node}: {reason}"))
        }
        _ => None,
    });
    found.take(TROUBLES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::history::{Answer, Micro, Resolution};
    use crate::model::Bucket;

    fn seat(index: u64, count: u64, seed: u64) -> Seat {
        Seat { index, count, rng: fastrand::Rng::with_seed(seed) }
    }

    /// What a client asks that is answered by the model.
    fn asked(workload: &str, index: u64, seed: u64, count: usize) -> Vec<Ask> {
        let mut bucket = Bucket::of(workload);
        let mut work = work(workload, seat(index, 5, seed)).unwrap();
        (1..=count as u64)
            .map(|id| {
                let ask = work.next(id);
                let answer = bucket.step(&ask.action, id);
                work.saw(&ask.action, &Outcome::Done { answer, revision: Some(id) });
                ask
            })
            .collect()
    }

    #[test]
    fn the_seed_and_the_seat_decide_what_is_asked() {
        for name in NAMES {
            let first = asked(name, 1, 7, 300);
            assert_eq!(first, asked(name, 1, 7, 300), "{name}");
            assert_ne!(first, asked(name, 1, 8, 300), "{name}: another seed");
        }
        assert!(work("nonsense", seat(0, 1, 1)).is_none());
    }

    #[test]
    fn every_kind_of_action_is_drawn() {
        let mut kinds = BTreeSet::new();
        for name in NAMES {
            for ask in asked(name, 0, 3, 2000) {
                kinds.insert(format!("{name} {:?}", std::mem::discriminant(&ask.action)));
                if let Action::Pair { ending, .. } = ask.action {
                    kinds.insert(format!("{ending:?}"));
                }
            }
        }
        // register 4, counter 2, set 2, append 1, bank 2, lock 3, list 3, half 2 and 7 endings;
        // idempotent 3, transactions 1, expiry 3, conditional 5, stale 3.
        assert_eq!(kinds.len(), 41, "{kinds:#?}");
    }

    #[test]
    fn a_third_of_the_appends_only_read() {
        let asks = asked("append", 0, 3, 2000);
        let reads = asks.iter().filter(|ask| !ask.action.writes()).count();
        assert!((500..900).contains(&reads), "{reads} of 2000");
    }

    #[test]
    fn what_lives_long_is_short() {
        let (mut clients, mut bucket) = (Vec::new(), Bucket::default());
        clients.extend((0..5).map(|index| work("append", seat(index, 5, index)).unwrap()));
        for id in 0..5000 {
            let client = clients.get_mut(id as usize % 5).unwrap();
            bucket.step(&client.next(id).action, id);
        }
        let longest = bucket.rows("list/").iter().map(|(_, list)| list.split(',').count()).max();
        assert!((60..200).contains(&longest.unwrap()), "{longest:?}");
    }

    #[test]
    fn transfers_preserve_the_sum_and_find_what_they_read() {
        let mut bucket = Bucket::of("transactions");
        let mut work = work("transactions", seat(0, 1, 5)).unwrap();
        let mut moved = 0;
        for id in 1..500 {
            let action = work.next(id).action;
            let answer = bucket.step(&action, id);
            assert_ne!(answer, Answer::Denied, "{action:?}");
            moved += u64::from(action.writes());
            work.saw(&action, &Outcome::Done { answer, revision: Some(id) });
        }
        assert!(moved > 200, "{moved}");
        let rows = bucket.rows("account/");
        let sum: i64 = rows.iter().map(|(_, balance)| balance.parse::<i64>().unwrap()).sum();
        assert_eq!(sum, 100 * i64::try_from(rows.len()).unwrap());
    }

    #[test]
    fn what_is_asked_again_was_answered() {
        let mut work = work("idempotent", seat(0, 1, 5)).unwrap();
        let (mut answered, mut again) = (BTreeSet::new(), 0);
        for id in 1..500 {
            let Ask { action, once, .. } = work.next(id);
            assert_eq!(once, matches!(action, Action::Add { .. }));
            if let Action::Repeat { of, .. } = action {
                assert!(answered.contains(&of), "{of} was not answered");
                again += 1;
            }
            let reason = || "x".to_owned();
            let outcome = match id % 3 {
                0 => Outcome::Refused { reason: reason() },
                1 => Outcome::Unknown { reason: reason(), resolution: Resolution::None },
                _ => Outcome::Done { answer: Answer::Number(1), revision: Some(id) },
            };
            if id % 3 == 2 && once {
                answered.insert(id);
            }
            work.saw(&action, &outcome);
        }
        assert!(again > 50, "{again}");
    }

    #[test]
    fn a_session_names_the_greatest_revision_that_it_saw() {
        let mut work = work("stale", seat(0, 1, 5)).unwrap();
        let (mut greatest, mut named) = (None, 0);
        for id in 1..500 {
            let action = work.next(id).action;
            if let Action::GetAt { min_revision: Some(least), .. } = action {
                assert_eq!(Some(least), greatest);
                named += 1;
            }
            let revision = Some(1000 + id / 2 - id % 5);
            greatest = greatest.max(revision);
            work.saw(&action, &Outcome::Done { answer: Answer::Written, revision });
        }
        assert!(named > 50, "{named}");
    }

    #[test]
    fn elements_and_values_are_unique() {
        let mut seen = BTreeSet::new();
        for ask in asked("append", 0, 3, 500) {
            let Action::Append { steps } = ask.action else { panic!("{ask:?}") };
            assert!((1..=4).contains(&steps.len()), "{steps:?}");
            for step in steps {
                let Micro::Append(_, element) = step else { continue };
                assert!(seen.insert(element), "{element} twice");
            }
        }
    }

    #[test]
    fn a_cas_names_the_version_that_was_read() {
        let (mut bucket, mut last) = (Bucket::default(), None);
        let mut work = work("register", seat(0, 1, 5)).unwrap();
        let mut tried = 0;
        for id in 1..500 {
            let ask = work.next(id);
            if let Action::Cas { key, from, .. } = &ask.action {
                assert_eq!(last, Some((key.clone(), from.clone(), ask.version)));
                tried += 1;
            }
            let answer = bucket.step(&ask.action, id);
            last = match (&ask.action, &answer) {
                (Action::Get { key }, Answer::Value { value: Some(value), version }) => {
                    Some((key.clone(), value.clone(), *version))
                }
                _ => None,
            };
            work.saw(&ask.action, &Outcome::Done { answer, revision: None });
        }
        assert!(tried > 20, "{tried}");
    }
}
