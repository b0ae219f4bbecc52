//! What an error means to a client: its status, whether to ask again, and what became of the call.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Missing};

/// The public name of an error. Names are part of the wire: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// This node does not have the revision yet that was asked for.
    Behind,
    /// There is no bucket of that name.
    BucketNotFound,
    /// It exists already, or a check failed.
    Conflict,
    /// Stored bytes are damaged; they are not served.
    Corrupt,
    /// The caller lacks a permission.
    Forbidden,
    /// The requested format does not exist.
    Format,
    /// A bucket's records of answers are full.
    IdempotencyFull,
    /// Another request came with the same key.
    IdempotencyMismatch,
    /// A fault of ours.
    Internal,
    /// The request is malformed.
    Invalid,
    /// There is no such key.
    KeyNotFound,
    /// There is no member with that node id.
    MemberNotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Nobody leads at present.
    NoLeader,
    /// A queue is full.
    Overloaded,
    /// The write may or may not have happened.
    OutcomeUnknown,
    /// There is nothing at that path.
    PathNotFound,
    /// An `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed,
    /// Too many requests.
    RateLimited,
    /// The history since that revision is gone.
    RevisionGone,
    /// A script failed.
    ScriptError,
    /// A script met a limit.
    ScriptLimit,
    /// There is no script of that name.
    ScriptNotFound,
    /// There is no such token.
    TokenNotFound,
    /// A size limit was met.
    TooLarge,
    /// The credential fits nothing.
    Unauthorized,
}

/// What became of a mutating call, as this answer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// On disk on a quorum, with all its effects.
    Yes,
    /// Nothing of it was or will be written.
    No,
    /// It may have been written, or may still be.
    Unknown,
}

impl Applied {
    /// The word in the `X-Kvdb-Applied` header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Applied::Yes => "yes",
            Applied::No => "no",
            Applied::Unknown => "unknown",
        }
    }

    /// The inverse of [`Applied::as_str`]; what it cannot read is unknown.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word {
            "yes" => Applied::Yes,
            "no" => Applied::No,
            _ => Applied::Unknown,
        }
    }
}

impl ErrorCode {
    /// The code of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Invalid(_) => ErrorCode::Invalid,
            Error::Unauthorized(_) => ErrorCode::Unauthorized,
            Error::Forbidden(_) => ErrorCode::Forbidden,
            Error::NotFound { what, .. } => Self::of_missing(*what),
            Error::MethodNotAllowed(_) => ErrorCode::MethodNotAllowed,
            Error::NotAcceptable(_) => ErrorCode::Format,
            Error::Conflict(_) => ErrorCode::Conflict,
            Error::PreconditionFailed(_) => ErrorCode::PreconditionFailed,
            Error::TooLarge { .. } => ErrorCode::TooLarge,
            Error::Script { .. } => ErrorCode::ScriptError,
            Error::ScriptLimit { .. } => ErrorCode::ScriptLimit,
            Error::Overloaded(_) => ErrorCode::Overloaded,
            // Refused before the log took anything; the edge asked elsewhere and found nobody.
            Error::NotLeader { .. } | Error::NoLeader(_) => ErrorCode::NoLeader,
            Error::Unknown(_) => ErrorCode::OutcomeUnknown,
            Error::Corrupt { .. } => ErrorCode::Corrupt,
            Error::Io(_) | Error::Internal(_) => ErrorCode::Internal,
        }
    }

    fn of_missing(what: Missing) -> Self {
        match what {
            Missing::Bucket => ErrorCode::BucketNotFound,
            Missing::Key => ErrorCode::KeyNotFound,
            Missing::Script => ErrorCode::ScriptNotFound,
            Missing::Path => ErrorCode::PathNotFound,
            Missing::Member => ErrorCode::MemberNotFound,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::Behind => "behind",
            ErrorCode::BucketNotFound => "bucket_not_found",
            ErrorCode::Conflict => "conflict",
            ErrorCode::Corrupt => "corrupt",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::Format => "format",
            ErrorCode::IdempotencyFull => "idempotency_full",
            ErrorCode::IdempotencyMismatch => "idempotency_mismatch",
            ErrorCode::Internal => "internal",
            ErrorCode::Invalid => "invalid",
            ErrorCode::KeyNotFound => "key_not_found",
            ErrorCode::MemberNotFound => "member_not_found",
            ErrorCode::MethodNotAllowed => "method_not_allowed",
            ErrorCode::NoLeader => "no_leader",
            ErrorCode::Overloaded => "overloaded",
            ErrorCode::OutcomeUnknown => "outcome_unknown",
            ErrorCode::PathNotFound => "path_not_found",
            ErrorCode::PreconditionFailed => "precondition_failed",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::RevisionGone => "revision_gone",
            ErrorCode::ScriptError => "script_error",
            ErrorCode::ScriptLimit => "script_limit",
            ErrorCode::ScriptNotFound => "script_not_found",
            ErrorCode::TokenNotFound => "token_not_found",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::Unauthorized => "unauthorized",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::BucketNotFound
            | ErrorCode::KeyNotFound
            | ErrorCode::MemberNotFound
            | ErrorCode::PathNotFound
            | ErrorCode::ScriptNotFound
            | ErrorCode::TokenNotFound => StatusCode::NOT_FOUND,
            ErrorCode::RevisionGone => StatusCode::GONE,
            ErrorCode::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::RateLimited | ErrorCode::IdempotencyFull => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Format => StatusCode::NOT_ACCEPTABLE,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::ScriptError
            | ErrorCode::ScriptLimit
            | ErrorCode::Corrupt
            | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Behind
            | ErrorCode::NoLeader
            | ErrorCode::Overloaded
            | ErrorCode::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the same call, sent again by itself, may well succeed and does no harm.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            // Nothing was done, and the reason passes by itself.
            ErrorCode::NoLeader | ErrorCode::Overloaded => true,
            ErrorCode::Behind | ErrorCode::RateLimited | ErrorCode::IdempotencyFull => true,
            // Asking again could do it twice.
            ErrorCode::OutcomeUnknown => false,
            // The request or the state must change first.
            ErrorCode::BucketNotFound
            | ErrorCode::Conflict
            | ErrorCode::Forbidden
            | ErrorCode::Format
            | ErrorCode::Invalid
            | ErrorCode::KeyNotFound
            | ErrorCode::MemberNotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::PathNotFound
            | ErrorCode::PreconditionFailed
            | ErrorCode::ScriptError
            | ErrorCode::ScriptLimit
            | ErrorCode::ScriptNotFound
            | ErrorCode::RevisionGone
            | ErrorCode::IdempotencyMismatch
            | ErrorCode::TokenNotFound
            | ErrorCode::TooLarge
            | ErrorCode::Unauthorized => false,
            // The node must be mended first.
            ErrorCode::Corrupt | ErrorCode::Internal => false,
        }
    }

    /// Whether it is certain that nothing of the call was or will be written.
    #[must_use]
    pub fn has_no_side_effects(self) -> bool {
        match self {
            ErrorCode::OutcomeUnknown => false,
            // A fault may strike after the proposal: claim nothing.
            ErrorCode::Corrupt | ErrorCode::Internal => false,
            ErrorCode::BucketNotFound
            | ErrorCode::Conflict
            | ErrorCode::Forbidden
            | ErrorCode::Format
            | ErrorCode::Invalid
            | ErrorCode::KeyNotFound
            | ErrorCode::MemberNotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::NoLeader
            | ErrorCode::Overloaded
            | ErrorCode::PathNotFound
            | ErrorCode::PreconditionFailed
            | ErrorCode::ScriptError
            | ErrorCode::ScriptLimit
            | ErrorCode::ScriptNotFound
            | ErrorCode::Behind
            | ErrorCode::IdempotencyFull
            | ErrorCode::IdempotencyMismatch
            | ErrorCode::RateLimited
            | ErrorCode::RevisionGone
            | ErrorCode::TokenNotFound
            | ErrorCode::TooLarge
            | ErrorCode::Unauthorized => true,
        }
    }

    /// What an answer with this code says in `X-Kvdb-Applied`.
    #[must_use]
    pub fn applied(self) -> Applied {
        if self.has_no_side_effects() { Applied::No } else { Applied::Unknown }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(error: &Error) -> String {
        let code = ErrorCode::of(error);
        format!(
            "{code} {} {} {}",
            code.status().as_u16(),
            if code.is_retryable() { "retry" } else { "-" },
            code.applied().as_str()
        )
    }

    #[test]
    fn the_table() {
        let text = || "x".to_owned();
        let missing = |what| Error::not_found(what, "x");
        for (error, expected) in [
            (Error::Invalid(text()), "invalid 400 - no"),
            (Error::Unauthorized(text()), "unauthorized 401 - no"),
            (Error::Forbidden(text()), "forbidden 403 - no"),
            (missing(Missing::Bucket), "bucket_not_found 404 - no"),
            (missing(Missing::Key), "key_not_found 404 - no"),
            (missing(Missing::Script), "script_not_found 404 - no"),
            (missing(Missing::Path), "path_not_found 404 - no"),
            (missing(Missing::Member), "member_not_found 404 - no"),
            (Error::MethodNotAllowed(text()), "method_not_allowed 405 - no"),
            (Error::NotAcceptable(text()), "format 406 - no"),
            (Error::Conflict(text()), "conflict 409 - no"),
            (Error::PreconditionFailed(text()), "precondition_failed 412 - no"),
            (Error::TooLarge { limit: "x", max: 1 }, "too_large 413 - no"),
            (Error::Script { message: text(), traceback: None }, "script_error 500 - no"),
            (Error::ScriptLimit { limit: "x", max: text() }, "script_limit 500 - no"),
            (Error::Overloaded(text()), "overloaded 503 retry no"),
            (Error::NotLeader { leader: None }, "no_leader 503 retry no"),
            (Error::NoLeader(text()), "no_leader 503 retry no"),
            (Error::Unknown(text()), "outcome_unknown 503 - unknown"),
            (Error::corrupt("x", "y"), "corrupt 500 - unknown"),
            (Error::Io(text()), "internal 500 - unknown"),
            (Error::Internal(text()), "internal 500 - unknown"),
        ] {
            assert_eq!(row(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        for applied in [Applied::Yes, Applied::No, Applied::Unknown] {
            assert_eq!(Applied::parse(applied.as_str()), applied);
        }
        assert_eq!(Applied::parse("YES?"), Applied::Unknown);
    }
}
