//! One flat error for the whole library; each arm says who must act.
//!
//! Foreign errors become one of these in the module that owns the foreign crate. Two questions
//! are asked of an error: does every replica get the same one (`is_deterministic`, asked only
//! where commands are applied), and what does it mean to a client (`api::ErrorCode`, asked only at
//! the edge).

use std::fmt;

/// The library's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What is missing, for a 404 that says whether to create a bucket, a key or a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No bucket of that name.
    Bucket,
    /// No such key, or its time to live is over.
    Key,
    /// No script of that name.
    Script,
    /// No version of a script with that number.
    ScriptVersion,
    /// No token with that id.
    Token,
    /// No route at that path.
    Path,
    /// No member with that node id.
    Member,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Bucket => "bucket",
            Missing::Key => "key",
            Missing::Script => "script",
            Missing::ScriptVersion => "version of the script",
            Missing::Token => "token",
            Missing::Path => "path",
            Missing::Member => "member",
        })
    }
}

/// An error, and the revision of the bucket that it was judged at, where there was one.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// The bucket's revision.
    pub revision: Option<u64>,
}

impl Failure {
    /// An error that was judged in a bucket at a revision.
    #[must_use]
    pub fn at(revision: u64, error: Error) -> Self {
        Failure { error, revision: Some(revision) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, revision: None }
    }
}

/// Everything that can go wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The caller's input is malformed; the message says how to mend it.
    #[error("{0}")]
    Invalid(String),
    /// The credential matches no key and no token of the bucket.
    #[error("{0}")]
    Unauthorized(String),
    /// The caller is known but lacks a permission, which the message names.
    #[error("{0}")]
    Forbidden(String),
    /// What was asked for does not exist.
    #[error("no such {what}: {name}")]
    NotFound {
        /// The kind of thing.
        what: Missing,
        /// Its name as asked for.
        name: String,
    },
    /// The path exists, the method does not.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// The requested format does not exist.
    #[error("{0}")]
    NotAcceptable(String),
    /// It exists already, or a check failed.
    #[error("{0}")]
    Conflict(String),
    /// An `If-Match` or `If-None-Match` did not hold.
    #[error("{0}")]
    PreconditionFailed(String),
    /// A size limit; the message names it and its value.
    #[error("{limit} is limited to {max} bytes")]
    TooLarge {
        /// The limit's name.
        limit: &'static str,
        /// Its value in bytes.
        max: u64,
    },
    /// A bucket holds as much as it may.
    #[error("the bucket is limited to {max} {what}")]
    Quota {
        /// What there would be too much of, in the plural.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// The `Idempotency-Key` was used for another request, or by somebody else.
    #[error(
        "the Idempotency-Key was used for another request or by another caller: choose a new one"
    )]
    IdempotencyMismatch,
    /// The bucket keeps as many recorded answers as it may.
    #[error("the bucket keeps as many recorded answers as it may: call later, or without a key")]
    IdempotencyFull,
    /// A script failed; the message carries its name and line.
    #[error("{message}")]
    Script {
        /// Script name, line and what went wrong.
        message: String,
        /// The Lua stack, shown only to the owner of the bucket.
        traceback: Option<String>,
    },
    /// A script met a limit that it cannot catch.
    #[error("script_limit: {limit} is limited to {max}")]
    ScriptLimit {
        /// The limit's name.
        limit: &'static str,
        /// Its value, with its unit.
        max: String,
    },
    /// A bounded queue is full; nothing was done.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// More requests than this node takes in a second; nothing was done.
    #[error("too many requests {whose}: this node takes {per_second} a second, ask again later")]
    RateLimited {
        /// Whose requests were counted.
        whose: &'static str,
        /// How many it takes.
        per_second: u32,
    },
    /// This node does not lead; nothing was proposed. The edge redirects or proxies.
    #[error("this node is not the leader")]
    NotLeader {
        /// The leader's node id, where known.
        leader: Option<u64>,
    },
    /// Nobody leads at present; nothing was done.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// This node does not have a revision yet that was asked for.
    #[error("this node has revision {revision} of the bucket, and not {asked} yet: ask again")]
    Behind {
        /// What it has; 0 where it has no bucket of that name.
        revision: u64,
        /// What was asked for.
        asked: u64,
    },
    /// The outcome of a proposed write is not known.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Bytes on disk or from a peer are not what was written.
    #[error("corrupt {what}: {detail}")]
    Corrupt {
        /// The thing that is damaged.
        what: &'static str,
        /// Where, and what was found.
        detail: String,
    },
    /// The operating system refused a read or write.
    #[error("i/o: {0}")]
    Io(String),
    /// A bug in KVdb, or a node that is shutting down.
    #[error("internal: {0}")]
    Internal(String),
}

impl Error {
    /// Whether every replica meets the same error on the same state and command. Where a command
    /// is applied, any other error must stop the process, or replicas diverge (toyDB's rule).
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        match self {
            // Judged from the command and the state alone.
            Error::Invalid(_)
            | Error::Unauthorized(_)
            | Error::Forbidden(_)
            | Error::NotFound { .. }
            | Error::MethodNotAllowed(_)
            | Error::NotAcceptable(_)
            | Error::Conflict(_)
            | Error::PreconditionFailed(_)
            | Error::TooLarge { .. }
            | Error::Quota { .. }
            | Error::IdempotencyMismatch
            | Error::IdempotencyFull
            | Error::Script { .. } => true,
            // A wall clock may have ended the script.
            Error::ScriptLimit { .. } => false,
            // The state of this node, its disk or its process.
            Error::Overloaded(_)
            | Error::RateLimited { .. }
            | Error::NotLeader { .. }
            | Error::NoLeader(_)
            | Error::Behind { .. }
            | Error::Unknown(_)
            | Error::Corrupt { .. }
            | Error::Io(_)
            | Error::Internal(_) => false,
        }
    }

    /// Shorthand for [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }

    /// Shorthand for [`Error::NotFound`].
    pub fn not_found(what: Missing, name: impl Into<String>) -> Self {
        Error::NotFound { what, name: name.into() }
    }

    /// Shorthand for [`Error::Corrupt`].
    pub fn corrupt(what: &'static str, detail: impl fmt::Display) -> Self {
        Error::Corrupt { what, detail: detail.to_string() }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Io(error.to_string())
    }
}
