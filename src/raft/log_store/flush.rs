//! One flush to disk, and who waits for it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use super::synced::Synced;
use crate::raft::types::IOFlushed;

/// What the log did since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) fsyncs: AtomicU64,
    pub(super) entries: AtomicU64,
}

/// Called by raft-log's worker once the records before it are on disk.
///
/// It tells who waits, which takes no lock, and hands the rest to the flusher: the next flush needs
/// the log's lock, and a holder of that lock may be waiting for the very worker that calls this.
pub(crate) struct Flush {
    waiting: Vec<IOFlushed>,
    /// What is on disk then, and where that is noted.
    note: (Synced, u64),
    done: mpsc::Sender<()>,
    counters: Arc<Counters>,
}

impl Flush {
    pub(super) fn new(
        waiting: Vec<IOFlushed>,
        note: (Synced, u64),
        done: mpsc::Sender<()>,
        counters: Arc<Counters>,
    ) -> Self {
        Flush { waiting, note, done, counters }
    }

    fn complete(&mut self, result: &io::Result<()>) {
        for waiting in self.waiting.drain(..) {
            waiting.io_completed(copy(result));
        }
    }
}

impl raft_log::Callback for Flush {
    fn send(mut self, result: io::Result<()>) {
        if result.is_ok() {
            self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
        }
        let (synced, position) = &self.note;
        let noted = result.and_then(|()| synced.note(*position));
        self.complete(&noted);
    }
}

// A worker that stopped on an error drops what is still queued: nobody may wait for ever.
impl Drop for Flush {
    fn drop(&mut self) {
        self.complete(&Err(io::Error::other("the log's writer stopped")));
        // The receiver is gone only where the store is closing; nothing follows then.
        let _ = self.done.send(());
    }
}

/// A copy of a result; `io::Error` has none of its own.
fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
    }
}
