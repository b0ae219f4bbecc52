//! The operations of the database that are not scripts: what each asks of the caller, reads and writes.
//!
//! An operation runs in a [`Transaction`] on the leader, and its authority is judged there, in the same
//! state. It answers with an [`Answer`], which leaves only once the command has been applied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::batch::{self, Step};
use super::keyspace::ScriptMode;
use super::limits::CONTENT_TYPE_BYTES_MAX;
use super::name::{Key, ScriptName};
use super::number::Number;
use super::policy::{Credential, Grant, Permission, PolicyPatch, grant};
use super::token::{self, TokenRequest};
use super::transaction::{Lifetime, Transaction};
use super::upload;
use crate::error::{Error, Result};
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
        /// How long it lives.
        lifetime: Lifetime,
        /// What must hold of the version that is there.
        condition: Condition,
    },
    /// Adds to a number; a missing key counts as 0.
    Increment {
        /// Which.
        key: Key,
        /// By how much.
        by: Number,
        /// How long it lives; where nothing is said, a key that is there keeps its time.
        lifetime: Lifetime,
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
    /// Several at once.
    Batch(Vec<Step>),
    /// Uploads a script, which has been compiled already.
    PutScript {
        /// Its name.
        name: ScriptName,
        /// Luau source.
        source: String,
        /// How it is run.
        mode: ScriptMode,
    },
    /// Makes an earlier version of a script the one that is run.
    RollBack {
        /// Its name.
        name: ScriptName,
        /// The version.
        version: u64,
    },
    /// Removes a script.
    DeleteScript {
        /// Its name.
        name: ScriptName,
    },
    /// Makes out a token.
    MintToken(TokenRequest),
    /// Ends a token.
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// Changes the policy.
    ChangePolicy(PolicyPatch),
    /// Removes the bucket with all that is in it.
    DeleteBucket,
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
    /// Fails unless it holds of the key.
    pub fn check(self, txn: &mut Transaction, key: &Key) -> Result<()> {
        if self == Condition::Any {
            return Ok(());
        }
        let version = txn.get(key)?.map(|record| record.version);
        let holds = match self {
            Condition::Any => true,
            Condition::Version(expected) => {
                version == Some(expected) || mutant::strikes(Mutant::CasIgnoresVersion, 4)
            }
            Condition::Present => version.is_some(),
            Condition::Absent => version.is_none() || mutant::strikes(Mutant::AbsentIgnored, 4),
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Whether it is the answer that another call was given under the same `Idempotency-Key`.
    #[serde(skip)]
    pub replayed: bool,
}

impl Answer {
    /// Whether the call was done, with its effects: what was refused may be tried again.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.status < 400 || self.committed
    }

    /// A 200 with a text body.
    #[must_use]
    pub fn text(body: impl Into<Bytes>) -> Self {
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }
}

impl Operation {
    /// Runs it for the bearer of the credential; `seed` is the call's randomness.
    pub fn run(&self, txn: &mut Transaction, credential: &Credential, seed: u64) -> Result<Answer> {
        self.check_authority(&grant(txn, credential)?)?;
        match self {
            Operation::Set { key, value, content_type, lifetime, condition } => {
                condition.check(txn, key)?;
                let content_type = checked_content_type(content_type.as_deref())?;
                txn.set(key, value.clone(), content_type, *lifetime)?;
                Ok(Answer { version: Some(txn.revision()), ..Answer::text("") })
            }
            Operation::Increment { key, by, lifetime, condition } => {
                condition.check(txn, key)?;
                let sum = increment(txn, key, *by, *lifetime)?;
                let version = Some(txn.revision());
                Ok(Answer { version, ..Answer::text(sum.to_string()) })
            }
            Operation::Delete { key, condition } => {
                condition.check(txn, key)?;
                txn.delete(key)?;
                Ok(Answer::text(""))
            }
            Operation::Batch(steps) => batch::run(steps, txn),
            Operation::PutScript { name, source, mode } => upload::put(txn, name, source, *mode),
            Operation::RollBack { name, version } => upload::roll_back(txn, name, *version),
            Operation::DeleteScript { name } => upload::delete(txn, name),
            Operation::MintToken(request) => Ok(Answer::text(token::mint(txn, request, seed, 0)?)),
            Operation::RevokeToken { id } => {
                token::revoke(txn, id)?;
                Ok(Answer::text(""))
            }
            Operation::ChangePolicy(patch) => {
                let changed = patch.change(&*txn.policy()?)?;
                token::drop_unsigned(txn, &changed)?;
                txn.set_policy(&changed)?;
                Ok(Answer::text(""))
            }
            // Its rows are not written one by one: whoever executes it makes the command.
            Operation::DeleteBucket => Ok(Answer::text("")),
        }
    }

    /// Fails with what the caller lacks; also where an answer is only repeated.
    pub fn check_authority(&self, grant: &Grant) -> Result<()> {
        match self {
            Operation::Set { key, .. } | Operation::Increment { key, .. } => {
                grant.check(Permission::Write, key.bytes())
            }
            Operation::Delete { key, .. } => grant.check(Permission::Delete, key.bytes()),
            Operation::Batch(steps) => batch::check_permissions(steps, grant),
            Operation::PutScript { .. }
            | Operation::RollBack { .. }
            | Operation::DeleteScript { .. }
            | Operation::MintToken(_)
            | Operation::RevokeToken { .. }
            | Operation::ChangePolicy(_)
            | Operation::DeleteBucket => grant.check_owner(),
        }
    }
}

fn checked_content_type(content_type: Option<&str>) -> Result<Option<String>> {
    match content_type {
        Some(long) if long.len() > CONTENT_TYPE_BYTES_MAX => {
            Err(Error::TooLarge { limit: "a content type", max: CONTENT_TYPE_BYTES_MAX as u64 })
        }
        other => Ok(other.map(str::to_owned)),
    }
}

/// Adds to the number that a key holds. Its content type stays, and so does its time, unless the lifetime
/// says otherwise.
pub fn increment(
    txn: &mut Transaction,
    key: &Key,
    by: Number,
    lifetime: Lifetime,
) -> Result<Number> {
    let Some(old) = txn.get(key)? else {
        let sum = Number::Int(0).plus(by)?;
        txn.set(key, sum.to_string().into(), None, lifetime)?;
        return Ok(sum);
    };
    let sum = Number::parse(&old.value)?.plus(by)?;
    let lifetime = match (lifetime, old.expires_at) {
        (Lifetime::Default, Some(expires_at)) => Lifetime::Until(expires_at),
        (Lifetime::Default, None) => Lifetime::Unlimited,
        (other, _) => other,
    };
    txn.set(key, sum.to_string().into(), old.content_type, lifetime)?;
    Ok(sum)
}
