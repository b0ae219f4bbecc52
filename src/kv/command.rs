//! What a log entry says: concrete effects that name their predecessor, never code.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keyspace::Row;
use super::name::BucketName;

/// The number of a bucket: the log index of its creation, so no number ever returns, not even
/// when a name does. Number 0 is the directory, which lists the others.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BucketId(pub u64);

/// The directory: which buckets exist, and which node ids were ever used.
pub const DIRECTORY: BucketId = BucketId(0);

/// A command's identity, unique for ever: one leader has a term, and its process counts up and
/// never rewinds. A revision would not do: two leaders can each propose a "revision 6".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct CommandId {
    /// The term of the leader that executed it.
    pub term: u64,
    /// The leader's count.
    pub seq: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.seq)
    }
}

/// One transaction on one bucket: if `prev` is the bucket's head, make every effect, else none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The bucket that it reads and writes.
    pub bucket: BucketId,
    /// The command that last changed the state it was executed on.
    pub prev: CommandId,
    /// Its own identity, the bucket's head once applied.
    pub id: CommandId,
    /// When execution started, in milliseconds since 1970; never goes back within a bucket.
    pub now: u64,
    /// The seed of the script's random numbers: with `now`, all that a replay needs.
    pub seed: u64,
    /// What it does.
    pub effect: Effect,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Sets and removes rows of the bucket.
    Write(Vec<Write>),
    /// Adds a bucket to the directory, with its first rows. Only the directory's commands do this.
    CreateBucket {
        /// The name, which must be free.
        name: BucketName,
        /// The first rows: the policy.
        rows: Vec<Write>,
        /// Rows of the directory beside the bucket's own: the recorded answer.
        directory: Vec<Write>,
    },
    /// Removes the bucket, all its rows and its directory row.
    DeleteBucket {
        /// Rows of the directory that change with it: the recorded answer.
        directory: Vec<Write>,
    },
    /// Removes rows whose time is over; as [`Effect::Write`], but watchers are told why.
    Sweep(Vec<Write>),
}

impl Effect {
    /// Whether it changes no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Effect::Write(writes) | Effect::Sweep(writes) if writes.is_empty())
    }
}

/// One row set, or removed where there is no value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// Which row.
    pub row: Row,
    /// Its new value.
    pub value: Option<Bytes>,
}

/// What became of a command, the same on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All its effects are made.
    Applied {
        /// The bucket's revision from now on; the new bucket's, where one was created.
        revision: u64,
    },
    /// The head was another, or the command is of another term: nothing changed.
    Conflict,
}
