//! The wire: what the edge and the typed client both say, and nothing of how either says it.
//!
//! Paths and header names are here once ([`paths`]); so are the JSON bodies ([`types`]), and what
//! each error means to somebody who does not see our sources ([`ErrorCode`]); and all of it together as a
//! document that machines read ([`openapi`]). No axum, no reqwest.
//!
//! Invariants:
//! - Every [`Error`](crate::error::Error) has exactly one [`ErrorCode`], by an exhaustive match.
//! - An error is said to have had no effect only where that is certain.

pub mod error;
pub mod openapi;
pub mod paths;
pub mod types;

pub use error::{Applied, ErrorCode};
pub use types::{
    AddMember, BucketCreated, BucketDigest, BucketInfo, Digest, ErrorBody, ErrorDetail, Member,
    NewBucket, ScriptInfo, ScriptMetrics, Status, TokenInfo, TokenMinted, TransferLeader,
};
