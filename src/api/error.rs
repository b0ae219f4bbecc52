//! What an error means to a client: its status, whether to ask again, and what became of the call.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Missing};

/// Makes [`ErrorCode`] and what each means of one table. `retry` says that the same call, sent again by
/// itself, may well succeed and does no harm; `no` that nothing of the call was or will be written.
macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $code:ident = $name:literal, $status:ident, $retry:ident, $applied:ident; )*) => {
        /// The public name of an error. Names are part of the wire: never change one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[doc = $doc])+ $code, )*
        }

        impl ErrorCode {
            /// All of them, in the order of their names.
            pub const ALL: &[ErrorCode] = &[$( ErrorCode::$code, )*];

            /// The name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $( ErrorCode::$code => $name, )*
                }
            }

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self {
                    $( ErrorCode::$code => StatusCode::$status, )*
                }
            }

            /// Whether the same call, sent again by itself, may well succeed and does no harm.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self {
                    $( ErrorCode::$code => matches!(Again::$retry, Again::Retry), )*
                }
            }

            /// What an answer with this code says in `X-Kvdb-Applied`.
            #[must_use]
            pub fn applied(self) -> Applied {
                match self {
                    $( ErrorCode::$code => Applied::$applied, )*
                }
            }

            /// One line that says what it means.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $( ErrorCode::$code => concat!($($doc),+).trim_start(), )*
                }
            }
        }
    };
}

/// Whether a client may send the same call again by itself.
enum Again {
    /// Nothing was done, and the reason passes by itself.
    Retry,
    /// The request, the state or the node must change first, or it could be done twice.
    Never,
}

// An executor that fails before it proposes has written nothing, and what fails after it says *unknown*:
// so faults of ours are `No` as well.
codes! {
    /// This node does not have the revision that was asked for yet.
    Behind = "behind", SERVICE_UNAVAILABLE, Retry, No;
    /// There is no bucket of that name.
    BucketNotFound = "bucket_not_found", NOT_FOUND, Never, No;
    /// It exists already, or a check failed.
    Conflict = "conflict", CONFLICT, Never, No;
    /// Stored bytes are damaged; they are not served.
    Corrupt = "corrupt", INTERNAL_SERVER_ERROR, Never, No;
    /// The caller lacks a permission.
    Forbidden = "forbidden", FORBIDDEN, Never, No;
    /// The requested format does not exist.
    Format = "format", NOT_ACCEPTABLE, Never, No;
    /// The bucket keeps as many recorded answers as it may.
    IdempotencyFull = "idempotency_full", TOO_MANY_REQUESTS, Never, No;
    /// The `Idempotency-Key` was used for another request, or by somebody else.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, Never, No;
    /// A fault of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, Never, No;
    /// The request is malformed.
    Invalid = "invalid", BAD_REQUEST, Never, No;
    /// There is no such key.
    KeyNotFound = "key_not_found", NOT_FOUND, Never, No;
    /// There is no member with that node id.
    MemberNotFound = "member_not_found", NOT_FOUND, Never, No;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, Never, No;
    /// Nobody leads at present.
    NoLeader = "no_leader", SERVICE_UNAVAILABLE, Retry, No;
    /// The write may or may not have happened.
    OutcomeUnknown = "outcome_unknown", SERVICE_UNAVAILABLE, Never, Unknown;
    /// A queue is full.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Retry, No;
    /// There is nothing at that path.
    PathNotFound = "path_not_found", NOT_FOUND, Never, No;
    /// An `If-Match` or `If-None-Match` did not hold.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, Never, No;
    /// More requests than a node takes in a second.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, Retry, No;
    /// The node's history of the bucket does not reach back to that revision.
    RevisionGone = "revision_gone", GONE, Never, No;
    /// A script failed.
    ScriptError = "script_error", INTERNAL_SERVER_ERROR, Never, No;
    /// A script met a limit.
    ScriptLimit = "script_limit", INTERNAL_SERVER_ERROR, Never, No;
    /// There is no script of that name.
    ScriptNotFound = "script_not_found", NOT_FOUND, Never, No;
    /// The script has no version with that number.
    ScriptVersionNotFound = "script_version_not_found", NOT_FOUND, Never, No;
    /// There is no token with that id.
    TokenNotFound = "token_not_found", NOT_FOUND, Never, No;
    /// A size limit was met, or a bucket's quota.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, Never, No;
    /// The credential fits nothing.
    Unauthorized = "unauthorized", UNAUTHORIZED, Never, No;
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
            Error::TooLarge { .. } | Error::Quota { .. } => ErrorCode::TooLarge,
            Error::IdempotencyMismatch => ErrorCode::IdempotencyMismatch,
            Error::IdempotencyFull => ErrorCode::IdempotencyFull,
            Error::Script { .. } => ErrorCode::ScriptError,
            Error::ScriptLimit { .. } => ErrorCode::ScriptLimit,
            Error::Overloaded(_) => ErrorCode::Overloaded,
            Error::RateLimited { .. } => ErrorCode::RateLimited,
            // Refused before the log took anything; the edge asked elsewhere and found nobody.
            Error::NotLeader { .. } | Error::NoLeader(_) => ErrorCode::NoLeader,
            Error::RevisionGone { .. } => ErrorCode::RevisionGone,
            Error::Behind { .. } => ErrorCode::Behind,
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
            Missing::ScriptVersion => ErrorCode::ScriptVersionNotFound,
            Missing::Token => ErrorCode::TokenNotFound,
            Missing::Path => ErrorCode::PathNotFound,
            Missing::Member => ErrorCode::MemberNotFound,
        }
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
            (Error::RateLimited { whose: "x", per_second: 1 }, "rate_limited 429 retry no"),
            (Error::NotLeader { leader: None }, "no_leader 503 retry no"),
            (Error::NoLeader(text()), "no_leader 503 retry no"),
            (Error::RevisionGone { revision: 1 }, "revision_gone 410 - no"),
            (Error::Behind { revision: 1, asked: 2 }, "behind 503 retry no"),
            (Error::Unknown(text()), "outcome_unknown 503 - unknown"),
            (Error::corrupt("x", "y"), "corrupt 500 - no"),
            (Error::Io(text()), "internal 500 - no"),
            (Error::Internal(text()), "internal 500 - no"),
            (missing(Missing::ScriptVersion), "script_version_not_found 404 - no"),
            (missing(Missing::Token), "token_not_found 404 - no"),
            (Error::Quota { what: "keys", max: 1 }, "too_large 413 - no"),
            (Error::IdempotencyMismatch, "idempotency_mismatch 422 - no"),
            (Error::IdempotencyFull, "idempotency_full 429 - no"),
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
