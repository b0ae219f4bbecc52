//! What a bucket's leader is ahead of the state: the writes of commands that are proposed, merged.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use bytes::Bytes;

use super::command::{CommandId, Write};
use super::decoded::Decoded;
use super::keyspace::{BucketMeta, Counts, Row, Script};
use super::policy::Policy;

/// Scripts that an overlay keeps decoded.
const SCRIPTS_DECODED_MAX: usize = 4;

/// The writes of a bucket's commands that are proposed and not yet known to be applied, merged.
#[derive(Debug, Default)]
pub struct Overlay {
    /// The head that the oldest of them was executed on.
    base: CommandId,
    /// Oldest first.
    commands: VecDeque<Proposed>,
    /// The newest value of each row, and who wrote it.
    pub(super) rows: BTreeMap<Row, (CommandId, Option<Bytes>)>,
    /// Revision, time and counts after the newest.
    revision: u64,
    now: u64,
    counts: Counts,
    /// What its commands' transactions need not decode again.
    pub(super) policies: Decoded<Policy, 1>,
    pub(super) scripts: Decoded<Script, SCRIPTS_DECODED_MAX>,
}

/// What an overlay keeps of a proposed command.
#[derive(Debug)]
struct Proposed {
    id: CommandId,
    /// The rows that it wrote.
    rows: Vec<Row>,
    /// By how much it changes the bucket's counts.
    delta: Counts,
}

impl Overlay {
    /// Drops what the view already holds, judged by the bucket's head *in the view*: a
    /// notification could be early or late. If the head is none of ours, all of it is void.
    pub fn trim(&mut self, meta: &BucketMeta) {
        if self.commands.is_empty() || meta.head != self.base {
            if self.commands.iter().any(|command| command.id == meta.head) {
                while self.commands.front().is_some_and(|_| self.base != meta.head) {
                    self.pop_oldest();
                }
            } else {
                self.clear();
            }
        }
        self.base = meta.head;
        if self.commands.is_empty() {
            (self.revision, self.now) = (meta.revision, meta.now);
        }
        let ahead = self.commands.iter().map(|command| command.delta);
        self.counts = ahead.fold(meta.counts, Counts::plus);
    }

    fn clear(&mut self) {
        let (policies, scripts) = (mem::take(&mut self.policies), mem::take(&mut self.scripts));
        *self = Overlay { policies, scripts, ..Overlay::default() };
    }

    fn pop_oldest(&mut self) {
        let Some(Proposed { id, rows, .. }) = self.commands.pop_front() else { return };
        self.base = id;
        for row in rows {
            if self.rows.get(&row).is_some_and(|(writer, _)| *writer == id) {
                self.rows.remove(&row);
            }
        }
    }

    /// Adds a proposed command on top, which changes the bucket's counts by `delta`.
    pub fn push(&mut self, id: CommandId, now: u64, writes: &[Write], delta: Counts) {
        self.revision += 1;
        self.now = self.now.max(now);
        self.counts = self.counts.plus(delta);
        for write in writes {
            self.rows.insert(write.row.clone(), (id, write.value.clone()));
        }
        let rows = writes.iter().map(|write| write.row.clone()).collect();
        self.commands.push_back(Proposed { id, rows, delta });
    }

    /// The command that the next one names as its predecessor.
    #[must_use]
    pub fn head(&self) -> CommandId {
        self.commands.back().map_or(self.base, |command| command.id)
    }

    /// Revision after the newest command.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The bucket's time after the newest command.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What the bucket holds after the newest command.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether nothing is ahead of the view.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
