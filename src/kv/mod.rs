//! The core: what the database is. No I/O, no async, no clock, no randomness, no hash map.
//!
//! A *bucket* holds rows: keys, scripts, its policy. It is the unit of order: every change of a
//! bucket is a [`Command`], executed on the leader and made of concrete effects, and each command names
//! its predecessor. [`apply()`] makes the effects only where that predecessor is the bucket's *head*.
//! So a command applies onto exactly the state that it was executed on, or not at all. The deletion of a
//! bucket becomes the head of the directory, too: it frees a name. A membership records its node ids there
//! without one, which no creation reads.
//!
//! Invariants:
//! - Only [`apply()`] and [`record_nodes`] change replicated state, and both are deterministic.
//! - A bucket's revision begins at the log index of its creation and rises by one with each applied
//!   command; neither a revision nor a [`CommandId`] nor a [`BucketId`] ever returns.
//! - A bucket's meta row always equals what [`store::recount`] finds in its rows.
//! - A row belongs to one bucket, and no transaction reads or writes two.

pub mod apply;
pub mod batch;
pub mod command;
mod decoded;
pub mod json;
pub mod keyspace;
pub mod limits;
pub mod memory;
mod merge;
pub mod name;
pub mod number;
pub mod operation;
pub mod overlay;
pub mod policy;
pub mod recorded;
pub mod store;
pub mod token;
pub mod transaction;
pub mod upload;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use apply::drop_keys;
pub use apply::{apply, record_nodes};
pub use batch::Step;
pub use command::{BucketId, Command, CommandId, DIRECTORY, Effect, Outcome, Write};
pub use keyspace::{BucketMeta, Counts, Record, Row, Script, ScriptMode, Table};
pub use name::{BucketName, Key, ScriptName};
pub use number::Number;
pub use operation::{Answer, Condition, Operation};
pub use overlay::Overlay;
pub use policy::{Credential, Execute, Grant, Permission, Policy, PolicyPatch, grant};
pub use recorded::Once;
pub use store::{Get, SharedView, Store, View};
pub use token::{Token, TokenRequest};
pub use transaction::{Lifetime, ListRange, Transaction};
