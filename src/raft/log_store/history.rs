//! The log as a history: what its entries said, for those who follow a bucket.

use super::LogStore;
use crate::encoding;
use crate::error::Result;
use crate::kv::Command;
use crate::raft::wire::{Body, LogId};

/// Bytes of entries in one stretch; the log is locked against appends while they are read.
const STRETCH_BYTES_MAX: u64 = 1 << 20;

/// A command as an entry of the log holds it: applied, or a conflict.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// The entry's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
    /// Bytes of the encoded command.
    pub bytes: usize,
    /// The command.
    pub command: Command,
}

/// Consecutive entries of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// The first index.
    pub from: u64,
    /// The index after the last; the same as the first where there are none.
    pub to: u64,
    /// Those that hold commands.
    pub commands: Vec<Logged>,
}

impl Logged {
    /// Decodes the command of an entry.
    pub(in crate::raft) fn decode(term: u64, index: u64, bytes: &[u8]) -> Result<Self> {
        let command = encoding::decode("command", bytes)?;
        Ok(Logged { term, index, bytes: bytes.len(), command })
    }
}

impl LogStore {
    /// Entries from an index to before another, as many as one read takes. It begins later where the first
    /// are purged, and is empty where there are none.
    pub fn stretch(&self, from: u64, to: u64) -> Result<Stretch> {
        let entries = self.read(|log| log.records(from, to, STRETCH_BYTES_MAX))?;
        let first = entries.first().map_or(from, |entry| entry.log_id.index);
        let mut stretch = Stretch { from: first, to: first, commands: Vec::new() };
        for entry in entries {
            let LogId { term, index } = entry.log_id;
            if let Body::Command(bytes) = &entry.body {
                stretch.commands.push(Logged::decode(term, index, bytes)?);
            }
            stretch.to = index.saturating_add(1);
        }
        Ok(stretch)
    }

    /// Whether the log has this entry. If it was applied, then all that the log has before it was, too.
    pub fn holds(&self, entry: LogId) -> Result<bool> {
        let held = self.read(|log| log.records(entry.index, entry.index.saturating_add(1), 0))?;
        Ok(held.first().is_some_and(|held| held.log_id == entry))
    }
}
