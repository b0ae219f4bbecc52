//! What a run did and saw: the record that the checkers judge and the report shows.
//!
//! A history is complete: every call that was begun is in it, with what is known of its end. It is
//! written to disk (`history.jsonl`, `run.json`), so that it can be judged again without the cluster.
//!
//! Invariants:
//! - A client has one call at a time, and is not used again after a call whose outcome is unknown: its
//!   next call could overlap with what the first one still does. A new client takes its place.
//! - What an answer says is recorded as it was said. Nothing is concluded while recording.

use serde::{Deserialize, Serialize};

/// Microseconds since the run began, by one monotonic clock.
pub type Micros = u64;

/// A step of a list-append transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Micro {
    /// Append a number, unique in the run, to the list of a key.
    Append(u64, u64),
    /// Read the list of a key.
    Read(u64),
}

/// A step of a transaction (`POST /BUCKET`).
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Nothing is done unless the key has this version; `None`: unless it is not there.
    Check { key: String, version: Option<u64> },
    /// The value of a key.
    Get { key: String },
    /// Set a key.
    Set { key: String, value: String },
    /// Delete a key.
    Delete { key: String },
    /// Add to a number.
    Incr { key: String, by: i64 },
}

/// What a step of a transaction answered.
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepAnswer {
    /// The check holds.
    Holds,
    /// A value, and the version it was written at.
    Value { value: Option<String>, version: Option<u64> },
    /// It is set, with this version.
    Set { version: u64 },
    /// Whether there was something to delete.
    Deleted(bool),
    /// The new number, with its version.
    Number { value: i64, version: u64 },
}

/// How a script that must write nothing ends after its first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It does not fail: both writes are made.
    Well,
    /// An uncaught error.
    Error,
    /// `kvdb.abort`.
    Abort,
    /// `kvdb.exit` with a status of 500.
    Exit,
    /// A loop without an end.
    Fuel,
    /// A table that outgrows its memory.
    Memory,
    /// A limit met inside `pcall`, then a normal end.
    Caught,
}

/// What a client asked. The model ([`crate::model`]) says what each means.
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The value of a key.
    Get { key: String },
    /// Set a key to a value that no other write of the run has.
    Set { key: String, value: String },
    /// Set a key if its value is still `from` (`If-Match` with the version that `from` was read at).
    Cas { key: String, from: String, to: String },
    /// Delete a key.
    Delete { key: String },
    /// Add to a counter; answers its new value.
    Add { key: String, by: i64 },
    /// All keys with a prefix, with their values.
    List { prefix: String },
    /// Steps of one script call, all or nothing.
    Append { steps: Vec<Micro> },
    /// Move an amount from one account to another, unless it is not there.
    Transfer { from: u64, to: u64, amount: u64 },
    /// All accounts' balances, by a script.
    Balances,
    /// Take the lock if it is free, or take it away from its holder; answers the fencing token.
    Acquire { owner: String, steal: bool },
    /// Give the lock back, if one still holds it.
    Release { owner: String },
    /// Use the resource under a token; refused where it has seen a newer one.
    Use { token: i64, value: String },
    /// Write a pair in two steps, between which the script ends.
    Pair { pair: u64, value: String, ending: Ending },
    /// Both halves of a pair.
    ReadPair { pair: u64 },
    /// The request of an [`Action::Add`] once more, with the same `Idempotency-Key`; `of` is its number.
    Repeat { of: u64, key: String, by: i64 },
    /// Steps of one `POST /BUCKET`, all or nothing.
    Txn { steps: Vec<Step> },
    /// Set a key that dies after so many seconds.
    SetFor { key: String, value: String, seconds: u64 },
    /// Set a key if it is not there (`If-None-Match: *`).
    Create { key: String, value: String },
    /// Delete a key if its value is still `from` (`If-Match`, as with [`Action::Cas`]).
    Remove { key: String, from: String },
    /// The value of a key unless it is still `from` (`If-None-Match`).
    Revisit { key: String, from: String },
    /// The value of a key, `stale` as the node has it, else linearizable; by a node that has this revision.
    GetAt { key: String, stale: bool, min_revision: Option<u64> },
}

/// What an answer said.
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done; there is nothing to tell.
    Written,
    /// A value, and the version it was written at; `None` where there is none.
    Value { value: Option<String>, version: Option<u64> },
    /// The same, with what the answer said of time: how old the node's state may be, in milliseconds, and
    /// when the key dies, in milliseconds since 1970.
    Dated {
        value: Option<String>,
        version: Option<u64>,
        age_ms: Option<u64>,
        expires_at: Option<u64>,
    },
    /// The value is still the one that was named.
    Unchanged,
    /// A number.
    Number(i64),
    /// A number, and whether the answer says that it is an earlier one's.
    Again { number: i64, replayed: bool },
    /// What each step of a transaction answered.
    Results(Vec<StepAnswer>),
    /// Keys with their values.
    Rows(Vec<(String, String)>),
    /// A list for each [`Micro::Read`], in their order.
    Lists(Vec<Vec<u64>>),
    /// Balances in the accounts' order.
    Balances(Vec<i64>),
    /// Both halves of a pair.
    Halves(Option<String>, Option<String>),
    /// The state did not allow it, and nothing was written: 404, 409, 412 and the like.
    Denied,
    /// The script failed as it was meant to, and nothing was written.
    Failed,
}

/// What is known of a call.
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was answered. `revision` is `X-Kvdb-Revision`: that of a call that wrote is its own, that of
    /// another is the one it read at.
    Done { answer: Answer, revision: Option<u64> },
    /// It had no effect and never will: it did not leave, or was answered `X-Kvdb-Applied: no` for a
    /// reason that is not the state's (no leader, overloaded).
    Refused { reason: String },
    /// Anything may have happened, or may yet.
    Unknown {
        /// Why it is.
        reason: String,
        /// What the final reads told: see [`Resolution`].
        resolution: Resolution,
    },
}

/// What the final reads told of a call whose outcome was unknown. A script of a workload leaves a row
/// `op/ID`; its version is the revision at which the call was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// Nothing: the call leaves no row.
    #[default]
    None,
    /// It was applied, at this revision.
    Applied(u64),
    /// It was not applied.
    NotApplied,
}

/// A call, from the first byte that was sent to the last that came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number in the run; also the `ID` of its row `op/ID`.
    pub id: u64,
    /// The workload, which is also its bucket's name.
    pub workload: String,
    /// Who called.
    pub client: u64,
    /// The node that was asked first.
    pub node: u64,
    /// What was asked.
    pub action: Action,
    /// When it began.
    pub began: Micros,
    /// When its outcome was known to the client, be it that it is unknown.
    pub ended: Micros,
    /// What came of it.
    pub outcome: Outcome,
}

impl Step {
    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Step::Check { key, .. }
            | Step::Get { key }
            | Step::Set { key, .. }
            | Step::Delete { key }
            | Step::Incr { key, .. } => key,
        }
    }

    /// Whether it can change the state.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Step::Check { .. } | Step::Get { .. })
    }
}

impl Answer {
    /// The value of a key that it shows, with its version.
    #[must_use]
    pub fn shown(&self) -> Option<(Option<&str>, Option<u64>)> {
        match self {
            Answer::Value { value, version } | Answer::Dated { value, version, .. } => {
                Some((value.as_deref(), *version))
            }
            _ => None,
        }
    }
}

impl Action {
    /// Whether it can change the state. What is asked once more has changed it already.
    #[must_use]
    pub fn writes(&self) -> bool {
        match self {
            Action::Get { .. }
            | Action::GetAt { .. }
            | Action::Revisit { .. }
            | Action::Repeat { .. }
            | Action::List { .. }
            | Action::Balances
            | Action::ReadPair { .. } => false,
            Action::Txn { steps } => steps.iter().any(Step::writes),
            Action::Append { steps } => steps.iter().any(|step| matches!(step, Micro::Append(..))),
            _ => true,
        }
    }

    /// Whether the answer is one of an earlier time, with the revision that was then: nothing can be
    /// concluded from its place among other calls.
    #[must_use]
    pub fn is_of_the_past(&self) -> bool {
        matches!(self, Action::Repeat { .. } | Action::GetAt { stale: true, .. })
    }
}

impl Operation {
    /// Whether it can change the state.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.action.writes()
    }
}

/// A fault that was done, or was to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Its kind, such as `partition-leader`.
    pub kind: String,
    /// What exactly: `cut 2 | 1 3`.
    pub what: String,
    /// When it was installed.
    pub began: Micros,
    /// When it was undone.
    pub ended: Micros,
    /// What showed that it was there; or why it counts for nothing.
    pub confirmed: Result<String, String>,
    /// Why undoing it failed, if it did: then the cluster is not healthy, and the run says so.
    pub undo_failed: Option<String>,
}

/// What a node holds at the end, read from itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The node.
    pub node: u64,
    /// The applied index that its digest belongs to.
    pub applied_index: u64,
    /// The digest of everything.
    pub digest: String,
    /// By bucket: all rows, in order, as they were listed.
    pub buckets: Vec<(String, Vec<(String, String)>)>,
}

/// A checker's word on a history, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The checker, such as `linearizable`.
    pub checker: String,
    /// The workload that it judged.
    pub workload: String,
    /// How many operations it judged.
    pub checked: usize,
    /// What it found.
    pub finding: Finding,
}

/// What a checker found. Only `Holds` is a pass.
#[expect(missing_docs, reason = "its fields are what their names say")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// What was to hold holds.
    Holds,
    /// It does not: what is wrong, and the ids of the fewest operations that show it.
    Violated { what: String, operations: Vec<u64> },
    /// It could not tell.
    Unknown { why: String },
}

/// A whole run of one cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its name: also its directory's.
    pub name: String,
    /// What its schedule and its clients were drawn from.
    pub seed: u64,
    /// The binary under test: version and digest of the file.
    pub build: String,
    /// How the nodes were started.
    pub knobs: Vec<String>,
    /// Nodes at the start.
    pub nodes: u64,
    /// How they are kept apart: `namespaces` or `plain processes`, and why.
    pub isolation: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// How long it took.
    pub took: Micros,
    /// All calls.
    pub operations: Vec<Operation>,
    /// All faults.
    pub faults: Vec<FaultRecord>,
    /// What every node held at the end.
    pub dumps: Vec<Dump>,
    /// The checkers' words.
    pub verdicts: Vec<Verdict>,
    /// What the harness itself noticed: a node that exited unasked, a cluster that did not heal.
    pub troubles: Vec<String>,
    /// The command that does it again.
    pub replay: String,
}
