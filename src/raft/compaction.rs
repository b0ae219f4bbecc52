//! When this node takes a snapshot, and how much of the log it keeps behind it.
//!
//! **By entries.** Snapshots are taken at indexes that are a fixed number of entries apart. All replicas apply the same
//! entries at about the same time, and a snapshot writes out what the state has in memory: taken at one index
//! everywhere, it would slow down every quorum. So which indexes they are follows from the node's id, and from nothing
//! that a restart forgets. openraft then purges what is more than `keep_entries` behind.
//!
//! **By bytes.** Entries differ in size, and disks are measured in bytes. Where the log exceeds its bound, a snapshot
//! is taken as well, and the log is purged to half the bound, whatever number of entries that keeps. The bytes are
//! counted as entries are applied, in some parts, so that it is known about where the newer half begins; of what was
//! in the log at the start, only the sum is known, and entries count for equally large.
//!
//! The state machine tells what it has applied; a task of its own does the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openraft::async_runtime::WatchReceiver;
use tokio::sync::Notify;

use super::state_machine::StateMachine;
use super::types::{Raft, TypeConfig};
use crate::error::{Error, Result};

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What an entry takes in the log beside its payload, about.
const ENTRY_BYTES: u64 = 64;
/// Parts in which the log's bytes are counted; there are some more while a snapshot is taken.
const PARTS: u64 = 16;
/// How long a snapshot that was asked for may take before it is asked for again.
const RETRY: Duration = Duration::from_millis(500);
/// How long it is waited for; what is applied later asks anew.
const TIMEOUT: Duration = Duration::from_secs(20);
/// 2⁶⁴ divided by the golden ratio: multiples of it, modulo 2⁶⁴, lie far apart, however many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A fraction of a number, of which each node id has another: 1, 2 and 3 have 62 %, 24 % and 85 %.
fn share(id: u64, of: u64) -> u64 {
    let product = u128::from(id.wrapping_mul(GOLDEN)) * u128::from(of);
    u64::try_from(product >> 64).unwrap_or(of)
}

/// What the plan of a node is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Entries from one snapshot to the next.
    entries: u64,
    /// The remainder of a snapshot's index.
    offset: u64,
    /// Bytes that the log may take; replicas are due at different ones.
    bytes_max: u64,
    /// Bytes that it is purged to.
    bytes_kept: u64,
}

impl Rules {
    /// The rules of a node; no bytes: no bound.
    pub(super) fn new(id: u64, entries: u64, bytes: u64) -> Self {
        let bytes = if bytes == 0 { u64::MAX } else { bytes };
        let entries = entries.max(1);
        Rules {
            entries,
            offset: share(id, entries),
            bytes_max: bytes - share(id, bytes / 4),
            bytes_kept: bytes / 2,
        }
    }

    /// The first index behind a snapshot at which another is due.
    fn next_index(&self, snapshot: u64) -> u64 {
        let next = snapshot.saturating_add(1);
        let remainder = next % self.entries;
        let gap = match self.offset.checked_sub(remainder) {
            Some(gap) => gap,
            None => self.entries - (remainder - self.offset),
        };
        next.saturating_add(gap)
    }
}

/// A part of the log.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: u64,
    last: u64,
    bytes: u64,
}

/// Where the log stands, and what that calls for.
#[derive(Debug)]
struct Plan {
    rules: Rules,
    applied: u64,
    next_index: u64,
    /// Oldest first, without gaps.
    parts: VecDeque<Part>,
    /// Of all parts.
    bytes: u64,
    /// The last entry that is in a part, or was.
    counted: u64,
}

impl Plan {
    /// With a log that holds what is behind `purged` up to `last`, in so many bytes.
    fn new(rules: Rules, purged: u64, last: u64, bytes: u64) -> Self {
        let mut plan = Plan {
            rules,
            applied: 0,
            next_index: rules.next_index(0),
            parts: VecDeque::new(),
            bytes: 0,
            counted: purged,
        };
        if last > purged {
            plan.count(last, bytes);
        }
        plan
    }

    fn applied(&mut self, last: u64, bytes: u64) {
        self.applied = self.applied.max(last);
        // What the log held at the start may be applied once more, and is counted.
        if last > self.counted {
            self.count(last, bytes);
        }
    }

    fn count(&mut self, last: u64, bytes: u64) {
        let part_bytes = self.rules.bytes_kept / PARTS;
        match self.parts.back_mut() {
            Some(part) if part.bytes.saturating_add(bytes) <= part_bytes => {
                (part.last, part.bytes) = (last, part.bytes + bytes);
            }
            _ => self.parts.push_back(Part { first: self.counted + 1, last, bytes }),
        }
        self.counted = last;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A snapshot was taken.
    fn snapshot(&mut self, index: u64) {
        self.next_index = self.next_index.max(self.rules.next_index(index));
    }

    /// A snapshot was received: it takes the place of state and log.
    fn installed(&mut self, index: u64) {
        self.snapshot(index);
        self.applied = self.applied.max(index);
        self.parts.clear();
        (self.bytes, self.counted) = (0, index);
    }

    fn is_due(&self) -> bool {
        self.applied >= self.next_index || self.bytes >= self.rules.bytes_max
    }

    /// The log was purged up to an index.
    fn purged(&mut self, purged: u64) {
        while let Some(part) = self.parts.front_mut() {
            if part.last > purged {
                let (left, all) = (part.last - purged, part.last - part.first + 1);
                if left < all {
                    let rest = portion(part.bytes, left, all);
                    self.bytes = self.bytes.saturating_sub(part.bytes - rest);
                    (part.first, part.bytes) = (purged + 1, rest);
                }
                return;
            }
            self.bytes = self.bytes.saturating_sub(part.bytes);
            self.parts.pop_front();
        }
    }

    /// How far to purge for the sake of bytes, if at all.
    fn purge_to(&self) -> Option<u64> {
        if self.bytes < self.rules.bytes_max {
            return None;
        }
        let (mut excess, mut upto) = (self.bytes - self.rules.bytes_kept, None);
        for part in &self.parts {
            if part.bytes > excess {
                let entries = portion(part.last - part.first + 1, excess, part.bytes);
                return (entries > 0).then(|| part.first + entries - 1).or(upto);
            }
            excess -= part.bytes;
            upto = Some(part.last);
        }
        upto
    }
}

/// So much of a number as a part is of a whole that is not nothing.
fn portion(of: u64, part: u64, whole: u64) -> u64 {
    let portion = u128::from(of) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(portion).unwrap_or(of)
}

/// What is known of the log's growth: told by the state machine, heeded by a task.
pub(super) struct Compaction {
    plan: Mutex<Plan>,
    due: Notify,
}

impl Default for Compaction {
    /// Nothing is due before [`Compaction::begin`].
    fn default() -> Self {
        let plan = Plan::new(Rules::new(0, u64::MAX, 0), 0, 0, 0);
        Compaction { plan: Mutex::new(plan), due: Notify::new() }
    }
}

impl Compaction {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a log that holds what is behind `purged` up to `last`, in so many bytes.
    pub(super) fn begin(&self, rules: Rules, purged: u64, last: u64, bytes: u64) {
        *self.plan() = Plan::new(rules, purged, last, bytes);
    }

    /// Entries were applied, the last at this index, with so many bytes of payloads.
    pub(super) fn applied(&self, last: u64, entries: usize, payload_bytes: usize) {
        let bytes = (payload_bytes as u64).saturating_add(ENTRY_BYTES * entries as u64);
        let is_due = {
            let mut plan = self.plan();
            plan.applied(last, bytes);
            plan.is_due()
        };
        if is_due {
            self.due.notify_one();
        }
    }

    /// A snapshot was taken that covers an index.
    pub(super) fn snapshot(&self, index: u64) {
        self.plan().snapshot(index);
    }

    /// A snapshot was installed that covers an index.
    pub(super) fn installed(&self, index: u64) {
        self.plan().installed(index);
    }

    /// What a snapshot is to cover, if one is due.
    fn due(&self, purged: u64) -> Option<u64> {
        let mut plan = self.plan();
        plan.purged(purged);
        plan.is_due().then_some(plan.applied)
    }

    /// How far to purge for the sake of bytes, if at all.
    fn purge_to(&self, purged: u64) -> Option<u64> {
        let mut plan = self.plan();
        plan.purged(purged);
        plan.purge_to()
    }
}

/// Takes snapshots when they are due, as long as Raft runs.
pub(super) async fn run(raft: Raft<StateMachine>, compaction: Arc<Compaction>) {
    let mut stops = raft.server_metrics();
    let purged = || raft.metrics().borrow_watched().purged.map_or(0, |log_id| log_id.index());
    loop {
        tokio::select! {
            () = compaction.due.notified() => {}
            () = async { while stops.changed().await.is_ok() {} } => return,
        }
        let Some(index) = compaction.due(purged()) else { continue };
        // Not taken in time: what is applied next asks again.
        let Ok(snapshot) = take_snapshot(&raft, index).await else { continue };
        if let Some(upto) = compaction.purge_to(purged()) {
            tracing::info!(upto, "purging the log for its bytes");
            purge(&raft, upto.min(snapshot)).await;
        }
    }
}

/// Purges the log up to an index, and waits for that: a snapshot that is taken meanwhile would be one too many. openraft
/// postpones it where a follower is being sent what is to go.
async fn purge(raft: &Raft<StateMachine>, upto: u64) {
    // An error: Raft has stopped.
    if raft.trigger().purge_log(upto).await.is_ok() {
        let is_purged =
            |metrics: &Metrics| metrics.purged.is_some_and(|purged| purged.index() >= upto);
        let _ = raft.wait(Some(TIMEOUT)).metrics(is_purged, "purge").await;
    }
}

/// Has a snapshot taken that covers an index; the last index that it covers.
pub(super) async fn take_snapshot(raft: &Raft<StateMachine>, index: u64) -> Result<u64> {
    let covers =
        |metrics: &Metrics| metrics.snapshot.is_some_and(|snapshot| snapshot.index() >= index);
    let begun = Instant::now();
    loop {
        // Ignored while an older one is being taken, so it is asked for until it is there.
        let asked = raft.trigger().snapshot().await;
        asked.map_err(|error| Error::Internal(format!("raft: {error}")))?;
        match raft.wait(Some(RETRY)).metrics(covers, "snapshot").await {
            Ok(metrics) => return Ok(metrics.snapshot.map_or(0, |snapshot| snapshot.index())),
            Err(_) if begun.elapsed() < TIMEOUT => {}
            Err(_) => return Err(Error::Unknown("the snapshot is not taken yet".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
