//! Which entries the log has, where they are on disk, and the newest of them in memory.
//!
//! Invariants:
//! - Entries are consecutive. Those in memory are the newest, and all that are not yet synced.

use std::collections::VecDeque;

use super::codec;
use crate::raft::wire::{Body, LogId};

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    /// The position of its record in the log; in its frame, until it is [`Index::place`]d.
    pub(super) position: u64,
    /// Bytes of the record.
    pub(super) length: u32,
    /// The lower half of the XXH3-64 of the record.
    pub(super) checksum: u32,
}

/// An entry that was looked up.
pub(super) enum Held<'a> {
    InMemory(LogId, &'a Body),
    OnDisk(LogId, Slot),
}

#[derive(Debug)]
pub(super) struct Index {
    /// The index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    /// The bodies of the newest.
    cache: VecDeque<Body>,
    cache_bytes: u64,
    cache_bytes_max: u64,
    /// The first index that has no position yet.
    placed: u64,
    /// The first index that is not on disk, and the one after the last that is being written.
    synced: u64,
    in_flight: u64,
}

impl Index {
    pub(super) fn new(cache_bytes_max: u64) -> Self {
        let (slots, cache) = (VecDeque::new(), VecDeque::new());
        let (first, placed, synced, in_flight) = (0, 0, 0, 0);
        let cache_bytes = 0;
        Index { first, slots, cache, cache_bytes, cache_bytes_max, placed, synced, in_flight }
    }

    /// The first entry's index, if there is an entry.
    pub(super) fn first(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// The index after the last entry's; nothing where there is none.
    pub(super) fn next(&self) -> Option<u64> {
        self.first().map(|first| first + self.slots.len() as u64)
    }

    /// The log id of an entry.
    pub(super) fn log_id(&self, index: u64) -> Option<LogId> {
        self.slot(index).map(|slot| LogId { term: slot.term, index })
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Entries from an index to before another.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = Held<'_>> {
        let next = self.next().unwrap_or(self.first);
        let oldest_body = next - self.cache.len() as u64;
        (from.max(self.first)..to.min(next)).filter_map(move |index| {
            let slot = self.slot(index)?;
            let log_id = LogId { term: slot.term, index };
            let body = index.checked_sub(oldest_body).and_then(|at| self.cache.get(at as usize));
            Some(body.map_or(Held::OnDisk(log_id, *slot), |body| Held::InMemory(log_id, body)))
        })
    }

    /// Adds the entry after the last, or the first of all.
    pub(super) fn push(&mut self, index: u64, slot: Slot, body: Body) {
        if self.slots.is_empty() {
            (self.first, self.placed, self.synced) = (index, index, index);
        }
        self.slots.push_back(slot);
        self.cache_bytes += codec::size(&body);
        self.cache.push_back(body);
        self.evict();
    }

    /// Keeps the entries before an index.
    pub(super) fn truncate(&mut self, next: u64) {
        while self.next().is_some_and(|end| end > next) {
            self.slots.pop_back();
            if let Some(body) = self.cache.pop_back() {
                self.cache_bytes -= codec::size(&body);
            }
        }
        for bound in [&mut self.placed, &mut self.synced, &mut self.in_flight] {
            *bound = next.min(*bound);
        }
    }

    /// Drops the entries up to an index.
    pub(super) fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            if self.cache.len() == self.slots.len() {
                self.forget_oldest();
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Says where the frame begins that holds what has no position yet: it is being written from now on.
    pub(super) fn place(&mut self, frame: u64) {
        let next = self.next().unwrap_or(self.placed);
        let unplaced = usize::try_from(next.saturating_sub(self.placed)).unwrap_or(usize::MAX);
        for slot in self.slots.iter_mut().rev().take(unplaced) {
            slot.position += frame;
        }
        (self.placed, self.in_flight) = (next, next);
    }

    /// What was being written is on disk.
    pub(super) fn synced(&mut self) {
        self.synced = self.synced.max(self.in_flight);
        self.evict();
    }

    fn evict(&mut self) {
        let next = self.next().unwrap_or(self.first);
        while self.cache_bytes > self.cache_bytes_max
            && next - (self.cache.len() as u64) < self.synced
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(body) = self.cache.pop_front() {
            self.cache_bytes -= codec::size(&body);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn slot(position: u64) -> Slot {
        Slot { term: 1, position, length: 1, checksum: 0 }
    }

    fn index(entries: std::ops::Range<u64>, cache_bytes_max: u64) -> Index {
        let mut index = Index::new(cache_bytes_max);
        for number in entries {
            index.push(number, slot(number), Body::Command(Bytes::from_static(b"x")));
        }
        index
    }

    fn in_memory(index: &Index) -> Vec<u64> {
        let held = index.range(0, u64::MAX).filter_map(|held| match held {
            Held::InMemory(id, _) => Some(id.index),
            Held::OnDisk(..) => None,
        });
        held.collect()
    }

    fn positions(index: &Index) -> Vec<u64> {
        index.slots.iter().map(|slot| slot.position).collect()
    }

    #[test]
    fn what_is_not_synced_stays_in_memory() {
        let mut index = index(5..15, 200);
        assert_eq!(in_memory(&index).len(), 10);
        index.place(100);
        assert_eq!(in_memory(&index).len(), 10);
        index.synced();
        assert_eq!(in_memory(&index), [12, 13, 14], "of 65 bytes each");
        assert_eq!(positions(&index), (105..115).collect::<Vec<_>>());
    }

    #[test]
    fn a_truncation_in_flight_takes_its_entries_back() {
        let mut index = index(0..6, 0);
        index.place(100);
        index.truncate(3);
        index.push(3, slot(0), Body::Blank);
        index.synced();
        assert_eq!(in_memory(&index), [3], "its successor is not on disk");
        index.place(1000);
        assert_eq!(positions(&index), [100, 101, 102, 1000]);
        index.synced();
        assert!(in_memory(&index).is_empty());
    }

    #[test]
    fn purging_may_leave_nothing_and_the_next_may_be_anywhere() {
        let mut index = index(0..6, 1000);
        index.place(100);
        index.purge(3);
        assert_eq!((index.first(), index.next()), (Some(4), Some(6)));
        assert_eq!(in_memory(&index), [4, 5]);
        index.purge(500);
        assert_eq!((index.first(), index.next(), index.log_id(5)), (None, None, None));
        assert_eq!(index.cache_bytes, 0);
        index.push(501, slot(7), Body::Blank);
        index.synced();
        index.place(1000);
        assert_eq!(positions(&index), [1007]);
        assert_eq!(in_memory(&index), [501]);
    }
}
