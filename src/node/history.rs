//! The log is the history of every bucket: which of its entries were applied, and as which revision.
//!
//! Nothing is stored for it. A command names its predecessor and ids are unique, so *backwards* from a
//! bucket's head, the entry with the head's id is the applied one, the entry with the id that it names
//! comes before it, and each is one revision less. *Forwards* from a place so found, each entry that names
//! the head is the next: the same compare-and-swap that [`crate::kv::apply()`] makes. What is on neither
//! path was a conflict. The history ends where the log was purged.
//!
//! Caveat: backwards costs a look at every entry since, of all buckets.

use crate::error::Result;
use crate::kv::{BucketId, CommandId};
use crate::raft::{LogStore, Logged, Stretch};

/// Entries looked at in one step.
pub(super) const STEP: u64 = 256;

/// A log that can be read.
pub(super) trait Log {
    /// Entries from an index to before another, or the first of them that are there.
    fn stretch(&self, from: u64, to: u64) -> Result<Stretch>;
}

impl Log for LogStore {
    fn stretch(&self, from: u64, to: u64) -> Result<Stretch> {
        LogStore::stretch(self, from, to)
    }
}

/// A place in a bucket's history, between two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The bucket.
    pub(super) bucket: BucketId,
    /// The command applied last before it.
    pub(super) head: CommandId,
    /// The revision that this one made.
    pub(super) revision: u64,
    /// The first entry of the log that is not before it.
    pub(super) next: u64,
}

impl Place {
    /// Goes on behind an entry; whether it is the bucket's next command, and no conflict.
    pub(super) fn pass(&mut self, logged: &Logged) -> bool {
        self.next = logged.index.saturating_add(1);
        let command = &logged.command;
        let applied = command.bucket == self.bucket
            && command.prev == self.head
            && command.id.term == logged.term;
        if applied {
            self.head = command.id;
            self.revision += 1;
        }
        applied
    }

    /// The place with an earlier revision, or `None` where the log does not reach back to it. Revision
    /// 0 is the bucket's beginning. Any other from before that is of another life of its name.
    pub(super) fn rewind(mut self, log: &impl Log, since: u64) -> Result<Option<Place>> {
        // A bucket is numbered by the entry that made it, and its revisions begin there.
        let beginning = self.bucket.0;
        let since = if since == 0 { beginning } else { since };
        if since < beginning || since > self.revision {
            return Ok(None);
        }
        if since < self.revision && !self.may_reach(log, since)? {
            return Ok(None);
        }
        let mut to = self.next;
        while since < self.revision {
            let from = to.saturating_sub(STEP).max(beginning + 1);
            let (links, whole) = links(log, self.bucket, from, to)?;
            for link in links.into_iter().rev() {
                if since < self.revision && link.id == self.head {
                    let (head, revision) = (link.prev, self.revision - 1);
                    self = Place { head, revision, next: link.index, ..self };
                }
            }
            if since < self.revision && (!whole || from == beginning + 1) {
                return Ok(None);
            }
            to = from;
        }
        Ok(Some(self))
    }

    /// Whether the log can still hold the command after a revision. Each revision takes an entry, so
    /// it is this far back at least: where that is purged, no entry need be looked at.
    fn may_reach(&self, log: &impl Log, since: u64) -> Result<bool> {
        let newest = self.next.saturating_sub(self.revision - since);
        Ok(reads_at(&log.stretch(newest, newest.saturating_add(1))?, newest))
    }
}

/// Whether entries were read, from this index on.
pub(super) fn reads_at(stretch: &Stretch, from: u64) -> bool {
    stretch.from == from && stretch.to > from
}

/// What a command of the bucket says of the order.
struct Link {
    index: u64,
    id: CommandId,
    prev: CommandId,
}

/// The links in a range of the log, oldest first, and whether the whole range was there.
fn links(log: &impl Log, bucket: BucketId, from: u64, to: u64) -> Result<(Vec<Link>, bool)> {
    let (mut links, mut next, mut whole) = (Vec::new(), from, true);
    while next < to {
        let stretch = log.stretch(next, to)?;
        if !reads_at(&stretch, next) {
            whole = false;
            links.clear();
        }
        if stretch.to <= next {
            break;
        }
        next = stretch.to;
        let commands = stretch.commands.into_iter();
        let own = commands.filter(|l| l.command.bucket == bucket && l.command.id.term == l.term);
        links.extend(own.map(|logged| {
            let (id, prev) = (logged.command.id, logged.command.prev);
            Link { index: logged.index, id, prev }
        }));
    }
    Ok((links, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Command, DIRECTORY, Effect};

    /// A log of commands, some applied and some conflicts, from an index on.
    struct Entries {
        purged_before: u64,
        /// Entries that one read holds.
        read_max: u64,
        entries: Vec<Option<Logged>>,
    }

    impl Log for Entries {
        fn stretch(&self, from: u64, to: u64) -> Result<Stretch> {
            let from = from.max(self.purged_before);
            let to = to.min(self.entries.len() as u64).min(from + self.read_max).max(from);
            let held = self.entries.get(from as usize..to as usize).unwrap_or_default();
            Ok(Stretch { from, to, commands: held.iter().flatten().cloned().collect() })
        }
    }

    fn id(seq: u64) -> CommandId {
        CommandId { term: 3, seq }
    }

    fn entry(index: u64, bucket: BucketId, prev: CommandId, own: CommandId) -> Option<Logged> {
        let effect = Effect::Write(Vec::new());
        let command = Command { bucket, prev, id: own, now: 0, seed: 0, effect };
        Some(Logged { term: 3, index, bytes: 0, command })
    }

    /// Bucket 5, made by entry 5, among other buckets, blanks and conflicts. Its place after all, and the
    /// indexes of its applied commands.
    fn history(len: u64) -> (Entries, Place, Vec<u64>) {
        let bucket = BucketId(5);
        let mut place = Place { bucket, head: id(1_000_005), revision: 5, next: 6 };
        let (mut entries, mut applied) = (Vec::new(), Vec::new());
        for index in 0..len {
            let own = id(1_000_000 + index);
            let logged = match (index, index * 7 % 11) {
                (5, _) => entry(index, DIRECTORY, id(1), own),
                (..5, _) | (_, 0) => None,
                (_, 1..4) => entry(index, BucketId(4), place.head, own),
                // Executed on what was never applied, or on what is the head no more.
                (_, 4) => entry(index, bucket, id(999), own),
                (_, 5) => entry(index, bucket, id(1_000_005), own),
                // Of another term than its entry: never applied, whatever it names.
                (_, 6) => entry(index, bucket, place.head, CommandId { term: 2, seq: index }),
                _ => entry(index, bucket, place.head, own),
            };
            if logged.as_ref().is_some_and(|logged| place.pass(logged)) {
                applied.push(index);
            }
            entries.push(logged);
        }
        place.next = len;
        (Entries { purged_before: 0, read_max: 100, entries }, place, applied)
    }

    /// What comes after a place, up to the log's end: revisions and indexes.
    fn forward(log: &Entries, mut place: Place) -> Vec<(u64, u64)> {
        let mut passed = Vec::new();
        for logged in log.entries.iter().skip(place.next as usize).flatten() {
            if place.pass(logged) {
                passed.push((place.revision, logged.index));
            }
        }
        passed
    }

    #[test]
    fn backwards_and_forwards_meet_on_what_was_applied() {
        let (log, end, applied) = history(3_000);
        assert!(applied.len() > 700 && end.revision == 5 + applied.len() as u64);
        let revisions: Vec<_> = (6..).zip(applied).collect();
        for since in [5, 6, 100, 500, end.revision - 1, end.revision] {
            let place = end.rewind(&log, since).unwrap().unwrap();
            assert_eq!(place.revision, since);
            assert_eq!(forward(&log, place), revisions[since as usize - 5..], "since {since}");
        }
        let whole = end.rewind(&log, 0).unwrap().unwrap();
        assert_eq!((whole.revision, whole.head), (5, id(1_000_005)));
        assert_eq!(forward(&log, whole), revisions);
    }

    #[test]
    fn history_ends_where_the_log_was_purged() {
        let (mut log, end, applied) = history(3_000);
        for purged_before in [2_000, 2_001, 2_500, 2_999] {
            log.purged_before = purged_before;
            let kept = applied.iter().filter(|index| **index >= purged_before).count() as u64;
            let oldest = end.revision - kept;
            let place = end.rewind(&log, oldest).unwrap().unwrap();
            assert_eq!(forward(&log, place).len() as u64, kept, "{purged_before}");
            for gone in [0, 5, oldest - 100, oldest - 1] {
                assert_eq!(end.rewind(&log, gone).unwrap(), None, "{purged_before} {gone}");
            }
        }
        log.purged_before = 3_000;
        assert_eq!(end.rewind(&log, end.revision).unwrap(), Some(end), "nothing need be read");
        assert_eq!(end.rewind(&log, end.revision - 1).unwrap(), None);
    }

    #[test]
    fn revisions_of_another_life_or_of_the_future_are_no_history() {
        let (log, end, _) = history(100);
        assert_eq!(end.rewind(&log, 4).unwrap(), None);
        assert_eq!(end.rewind(&log, end.revision + 1).unwrap(), None);
    }

    /// A snapshot was installed, and its entries are not in this log.
    #[test]
    fn a_log_that_ends_too_early_is_no_history() {
        let (log, end, _) = history(1_000);
        let ahead = Place { head: id(5_000_000), revision: end.revision + 9, next: 1_500, ..end };
        assert_eq!(ahead.rewind(&log, end.revision).unwrap(), None);
        let unknown = Place { head: id(5_000_000), ..end };
        assert_eq!(unknown.rewind(&log, end.revision - 1).unwrap(), None);
    }
}
