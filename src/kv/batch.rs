//! Several operations on keys as one command: `POST /BUCKET`.
//!
//! They run in their order, each seeing the ones before it. The first that fails undoes all of them.

use bytes::Bytes;

use super::json;
use super::limits::{BATCH_ANSWER_BYTES_MAX, BATCH_OPERATIONS_MAX};
use super::name::Key;
use super::number::Number;
use super::operation::{Answer, increment};
use super::policy::{Grant, Permission};
use super::transaction::{Lifetime, Transaction};
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Sets a key.
    Set {
        /// Which.
        key: Key,
        /// To what.
        value: Bytes,
        /// How long it lives.
        lifetime: Lifetime,
    },
    /// Removes a key.
    Delete {
        /// Which.
        key: Key,
    },
    /// Adds to a number.
    Increment {
        /// Which.
        key: Key,
        /// By how much.
        by: Number,
        /// How long it lives; where nothing is said, a key that is there keeps its time.
        lifetime: Lifetime,
    },
    /// Reads a key.
    Get {
        /// Which.
        key: Key,
    },
    /// Fails the batch unless a key has this version; `None` where it must be absent.
    Check {
        /// Which.
        key: Key,
        /// The version that it must have.
        version: Option<u64>,
    },
}

impl Step {
    fn key(&self) -> &Key {
        match self {
            Step::Set { key, .. }
            | Step::Delete { key }
            | Step::Increment { key, .. }
            | Step::Get { key }
            | Step::Check { key, .. } => key,
        }
    }

    fn permission(&self) -> Permission {
        match self {
            Step::Set { .. } | Step::Increment { .. } => Permission::Write,
            Step::Delete { .. } => Permission::Delete,
            Step::Get { .. } | Step::Check { .. } => Permission::Read,
        }
    }
}

/// Fails with what the caller lacks.
pub(super) fn check_permissions(steps: &[Step], grant: &Grant) -> Result<()> {
    steps.iter().try_for_each(|step| grant.check(step.permission(), step.key().bytes()))
}

/// Runs all of them; the answer is JSON, a result for each.
pub(super) fn run(steps: &[Step], txn: &mut Transaction) -> Result<Answer> {
    if steps.len() > BATCH_OPERATIONS_MAX {
        let text = format!("a transaction has at most {BATCH_OPERATIONS_MAX} operations");
        return Err(Error::invalid(text));
    }
    let mut results = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if index > 0 {
            results.push(b',');
        }
        step.run(txn, &mut results)?;
        if results.len() > BATCH_ANSWER_BYTES_MAX {
            let max = BATCH_ANSWER_BYTES_MAX as u64;
            return Err(Error::TooLarge { limit: "the answer of a transaction", max });
        }
    }
    let writes = txn.writes().next().is_some();
    let revision = if writes { txn.revision() } else { txn.read_revision() };
    let head = format!(r#"{{"revision":{revision},"results":["#);
    let body = [head.as_bytes(), &results, b"]}"].concat();
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Ok(Answer { headers, ..Answer::text(body) })
}

impl Step {
    fn run(&self, txn: &mut Transaction, results: &mut Vec<u8>) -> Result<()> {
        match self {
            Step::Set { key, value, lifetime } => {
                txn.set(key, value.clone(), None, *lifetime)?;
                results
                    .extend_from_slice(format!(r#"{{"version":{}}}"#, txn.revision()).as_bytes());
            }
            Step::Delete { key } => {
                let deleted = txn.delete(key)?;
                results.extend_from_slice(format!(r#"{{"deleted":{deleted}}}"#).as_bytes());
            }
            Step::Increment { key, by, lifetime } => {
                let sum = increment(txn, key, *by, *lifetime)?;
                results.extend_from_slice(br#"{"value":"#);
                json::push_value(results, sum.to_string().as_bytes());
                results.extend_from_slice(format!(r#","version":{}}}"#, txn.revision()).as_bytes());
            }
            Step::Get { key } => push_get(txn, key, results)?,
            Step::Check { key, version } => {
                check(txn, key, *version)?;
                results.extend_from_slice(br#"{"ok":true}"#);
            }
        }
        Ok(())
    }
}

fn push_get(txn: &mut Transaction, key: &Key, results: &mut Vec<u8>) -> Result<()> {
    let Some(record) = txn.get(key)? else {
        results.extend_from_slice(br#"{"value":null}"#);
        return Ok(());
    };
    results.push(b'{');
    json::push_field(results, "value", &record.value);
    results.extend_from_slice(format!(r#","version":{}"#, record.version).as_bytes());
    if let Some(expires_at) = record.expires_at {
        results.extend_from_slice(format!(r#","expires_at":{expires_at}"#).as_bytes());
    }
    results.push(b'}');
    Ok(())
}

fn check(txn: &mut Transaction, key: &Key, wanted: Option<u64>) -> Result<()> {
    let found = txn.get(key)?.map(|record| record.version);
    if found == wanted || (found.is_some() && mutant::is(Mutant::CheckIgnored)) {
        return Ok(());
    }
    let name = key.bytes().escape_ascii();
    let is = found.map_or("does not exist".to_owned(), |version| format!("has version {version}"));
    let asked = wanted.map_or("none".to_owned(), |version| version.to_string());
    Err(Error::Conflict(format!("check failed: the key `{name}` {is}, asked for {asked}")))
}
