//! The operations of the database that are not scripts: what each asks of the caller, reads and writes.
//!
//! An operation runs in a [`Transaction`] on the leader, and its authority is judged there, in the same
//! state. It answers with an [`Answer`], which leaves only once the command has been applied.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::command::Write;
use super::keyspace::{Row, Script};
use super::limits::{CONTENT_TYPE_BYTES_MAX, SCRIPT_SOURCE_BYTES_MAX};
use super::name::{Key, ScriptName};
use super::number::Number;
use super::policy::{Credential, KeyHash, Permission, Policy};
use super::transaction::Transaction;
use crate::encoding;
use crate::error::{Error, Missing, Result};
use crate::mutant::{self, Mutant};

/// A change of one bucket.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Sets a key.
    Set {
        /// Which.
        key: Key,
        /// To what.
        value: Bytes,
        /// How it is served again.
        content_type: Option<String>,
        /// What must hold of the version that is there.
        condition: Condition,
    },
    /// Adds to a number; a missing key counts as 0.
    Increment {
        /// Which.
        key: Key,
        /// By how much.
        by: Number,
        /// What must hold of the version that is there.
        condition: Condition,
    },
    /// Removes a key.
    Delete {
        /// Which.
        key: Key,
        /// What must hold of the version that is there.
        condition: Condition,
    },
    /// Uploads a script, which has been compiled already.
    PutScript {
        /// Its name.
        name: ScriptName,
        /// Luau source.
        source: String,
    },
    /// Removes a script.
    DeleteScript {
        /// Its name.
        name: ScriptName,
    },
}

/// What must hold of a key's version before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// `If-Match: "N"`: it has this version.
    Version(u64),
    /// `If-Match: *`: it exists.
    Present,
    /// `If-None-Match: *`: it does not exist.
    Absent,
}

impl Condition {
    fn check(self, version: Option<u64>) -> Result<()> {
        let holds = match self {
            Condition::Any => true,
            Condition::Version(expected) => {
                version == Some(expected) || mutant::strikes(Mutant::CasIgnoresVersion, 4)
            }
            Condition::Present => version.is_some(),
            Condition::Absent => version.is_none(),
        };
        if holds {
            return Ok(());
        }
        Err(Error::PreconditionFailed(match version {
            Some(version) => format!("the key has version {version}"),
            None => "the key does not exist".to_owned(),
        }))
    }
}

/// What a caller is told, once it is true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers beyond those that every answer has, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The bucket's revision that the answer stands on.
    pub revision: u64,
    /// The version of the key that was written or read.
    pub version: Option<u64>,
    /// Whether the writes are kept although the status is 400 or above: the script called
    /// `kvdb.commit()`. Below 400 they always are.
    pub committed: bool,
}

impl Answer {
    /// A 200 with a text body.
    #[must_use]
    pub fn text(body: impl Into<Bytes>) -> Self {
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }
}

impl Operation {
    /// Runs it for the bearer of the credential.
    pub fn run(&self, txn: &mut Transaction, credential: &Credential) -> Result<Answer> {
        let grant = txn.policy()?.grant(credential)?;
        match self {
            Operation::Set { key, value, content_type, condition } => {
                grant.check(Permission::Write, key.bytes())?;
                condition.check(version(txn, key)?)?;
                let content_type = checked_content_type(content_type.as_deref())?;
                txn.set(key, value.clone(), content_type, None)?;
                Ok(Answer { version: Some(txn.revision()), ..Answer::text("") })
            }
            Operation::Increment { key, by, condition } => {
                grant.check(Permission::Write, key.bytes())?;
                condition.check(version(txn, key)?)?;
                let sum = increment(txn, key, *by)?;
                let version = Some(txn.revision());
                Ok(Answer { version, ..Answer::text(sum.to_string()) })
            }
            Operation::Delete { key, condition } => {
                grant.check(Permission::Delete, key.bytes())?;
                condition.check(version(txn, key)?)?;
                txn.delete(key)?;
                Ok(Answer::text(""))
            }
            Operation::PutScript { name, source } => {
                grant.check_owner()?;
                put_script(txn, name, source)
            }
            Operation::DeleteScript { name } => {
                grant.check_owner()?;
                if txn.script(name)?.is_none() {
                    return Err(Error::not_found(Missing::Script, name.as_str()));
                }
                txn.put_row(Row::script(name), None)?;
                Ok(Answer::text(""))
            }
        }
    }
}

fn version(txn: &mut Transaction, key: &Key) -> Result<Option<u64>> {
    Ok(txn.get(key)?.map(|record| record.version))
}

fn checked_content_type(content_type: Option<&str>) -> Result<Option<String>> {
    match content_type {
        Some(long) if long.len() > CONTENT_TYPE_BYTES_MAX => {
            Err(Error::TooLarge { limit: "a content type", max: CONTENT_TYPE_BYTES_MAX as u64 })
        }
        other => Ok(other.map(str::to_owned)),
    }
}

/// Adds to the number that a key holds; its expiry and content type stay.
pub fn increment(txn: &mut Transaction, key: &Key, by: Number) -> Result<Number> {
    let old = txn.get(key)?;
    let current = match &old {
        Some(record) => Number::parse(&record.value)?,
        None => Number::Int(0),
    };
    let sum = current.plus(by)?;
    let (content_type, expires_at) =
        old.map_or((None, None), |record| (record.content_type, record.expires_at));
    txn.set(key, sum.to_string().into(), content_type, expires_at)?;
    Ok(sum)
}

fn put_script(txn: &mut Transaction, name: &ScriptName, source: &str) -> Result<Answer> {
    if source.len() > SCRIPT_SOURCE_BYTES_MAX {
        return Err(Error::TooLarge { limit: "a script", max: SCRIPT_SOURCE_BYTES_MAX as u64 });
    }
    let version = txn.revision();
    let script = Script {
        version,
        sha256: Sha256::digest(source.as_bytes()).into(),
        source: source.to_owned(),
    };
    txn.put_row(Row::script(name), Some(encoding::encode(&script)?.into()))?;
    Ok(Answer { version: Some(version), ..Answer::text(version.to_string()) })
}

/// The keys and settings that a bucket is created with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRequest {
    /// The owner's key.
    pub secret_key: Option<String>,
    /// The key for writing.
    pub write_key: Option<String>,
    /// The key for reading.
    pub read_key: Option<String>,
    /// Whom to write to about the bucket.
    pub email: Option<String>,
}

impl PolicyRequest {
    /// The rows that a new bucket begins with.
    pub fn rows(&self) -> Result<Vec<Write>> {
        let hash = |key: &Option<String>| key.as_deref().map(KeyHash::of).transpose();
        let policy = Policy {
            secret_key: hash(&self.secret_key)?,
            write_key: hash(&self.write_key)?,
            read_key: hash(&self.read_key)?,
            default_ttl: 0,
            email: self.email.clone(),
        };
        let value = Some(encoding::encode(&policy)?.into());
        Ok(vec![Write { row: Row::policy(), value }])
    }
}
