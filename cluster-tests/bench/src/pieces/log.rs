//! Entries handed to the log: encoded, checksummed and given to the thread that writes and syncs them.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvdb::encoding;
use kvdb::error::Result;
use kvdb::raft::types::{Entry, EntryPayload, IOFlushed, Payload, log_id};
use kvdb::raft::{LogOptions, LogStore};
use openraft::storage::RaftLogStorage;

use super::Running;
use super::fixture::{self, TERM};

/// Small segments, so that those behind a purge are written again soon.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Runs after which all entries so far are purged.
const PURGE_RUNS: u64 = 256;
/// How long a sync may take before something is wrong.
const SYNC_TIME: Duration = Duration::from_secs(60);

struct Log {
    store: LogStore,
    payloads: Vec<Bytes>,
    /// Of the next run.
    entries: Vec<Entry>,
    next: u64,
    runs: u64,
    syncs: u64,
    _directory: tempfile::TempDir,
}

impl Log {
    fn open() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::default() };
        let store = LogStore::open_with(&directory.path().join("log"), options)?;
        let encoded = |command| Ok(Bytes::from(encoding::encode(&command)?));
        Ok(Log {
            syncs: store.fsyncs(),
            store,
            payloads: fixture::puts()?.into_iter().map(encoded).collect::<Result<_>>()?,
            entries: Vec::new(),
            next: 0,
            runs: 0,
            _directory: directory,
        })
    }

    /// Waits for the sync that the last run asked for, so that each run finds the log at rest, and makes the
    /// entries of the next.
    fn prepare(&mut self) {
        let begun = Instant::now();
        while self.store.fsyncs() < self.syncs {
            assert!(begun.elapsed() < SYNC_TIME, "the log does not sync");
            std::thread::yield_now();
        }
        if self.runs % PURGE_RUNS == PURGE_RUNS - 1 {
            let purged = self.store.purge(log_id(TERM, self.next - 1));
            at_once(purged).expect("the disk is sound");
            self.syncs += 1;
        }
        let entry = |(index, bytes): (u64, &Bytes)| Entry {
            log_id: log_id(TERM, index),
            payload: EntryPayload::Normal(Payload(bytes.clone())),
        };
        self.entries = (self.next..).zip(&self.payloads).map(entry).collect();
        self.next += self.entries.len() as u64;
        self.syncs = self.store.fsyncs() + 1;
        self.runs += 1;
    }

    fn append(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        at_once(self.store.append(entries, IOFlushed::noop())).expect("the disk is sound");
    }
}

/// What a future comes to that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("the log waits for no sync here"),
    }
}

pub(super) fn append() -> Result<Running> {
    let log = Rc::new(RefCell::new(Log::open()?));
    let same = Rc::clone(&log);
    Ok(Running {
        prepare: Some(Box::new(move || same.borrow_mut().prepare())),
        run: Box::new(move || log.borrow_mut().append()),
    })
}
