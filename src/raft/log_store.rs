//! The log on disk: entries, vote and committed position, in one order, over raft-log.
//!
//! **Group commit.** [`append`](RaftLogStorage::append) writes records and returns; who proposed
//! them is told when they are synced. One sync is in flight at a time, and all that arrives
//! meanwhile shares the next: the slower the disk, the larger the batches, and a lone writer never
//! waits for company. raft-log's own wait for a batch is therefore off.
//!
//! **What is synced before it returns:** a vote. Entries are synced before their callback. A
//! committed position rides along with whatever is synced next: without it, a node only learns a
//! little later what was committed. A truncation rides along too, since later entries are behind it
//! in the same file. A purge asks for a sync, since raft-log deletes files only behind one, and
//! waits for nothing.
//!
//! **Crashes.** Opening cuts a torn tail and refuses damage; `recovery` says how it tells one from
//! the other: what is written after a sync begins with a mark that says so. The difference matters,
//! because cutting off a synced entry breaks the promise that made it count for a quorum. How far the
//! log must reach is noted beside it: see `synced`.
//!
//! **Memory.** Newest payloads stay in memory, up to [`Options::cache_bytes`]; those of the file
//! that is being written always do. The state machine and followers that keep up read from there.
//! A read of many entries is bounded in bytes.
//!
//! Invariants:
//! - A callback that reports success runs after the sync of its entries and of all before them.
//! - Records reach the disk in the order of the calls, votes and entries alike.
//! - A byte is written only after all before it were synced, or together with them: raft-log's worker
//!   does one write and one sync at a time. Marks rely on it.
//! - No lock is held where raft-log's worker calls back.
//!
//! Caveat: a write or sync that fails stops raft-log's worker for good. Every later call fails,
//! openraft stops, and the process must end: after a failed sync nobody knows what is on disk.

mod codec;
mod flush;
mod history;
mod recovery;
mod synced;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread;

use futures::{Stream, stream};
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::{LogState, OptionalSend, RaftLogReader};
use raft_log::RaftLog;
use raft_log::Segment;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::codeq::Span;
use tracing::error;

use self::codec::{Mark, Records};
use self::flush::{Counters, Flush};
pub use self::history::{Logged, Stretch};
use self::synced::Synced;
use super::types::{Entry, IOFlushed, LogId, TypeConfig, Vote};
use super::wire;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// What an error calls this.
const WHAT: &str = "raft log";
/// Where raft-log's files lie, in the log's directory.
const FILES: &str = "wal";
/// raft-log's buffer for reading a file when it opens.
const READ_BUFFER_BYTES: usize = 1 << 20;
/// The least that an entry counts for in the cache.
const ENTRY_BYTES_MIN: usize = 64;

/// Sizes of a log. Any can change between two openings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A file of the log is closed at this size. Whole files are deleted, and the newest is read
    /// twice when the log is opened.
    pub chunk_bytes: usize,
    /// Payloads kept in memory.
    pub cache_bytes: usize,
    /// One read returns at most this much, but always an entry.
    pub read_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { chunk_bytes: 16 << 20, cache_bytes: 16 << 20, read_bytes: 2 << 20 }
    }
}

/// A handle on the log; the log closes with the last of them, or by [`LogStore::close`].
#[derive(Clone)]
pub struct LogStore {
    handle: Arc<Handle>,
}

/// Closes the log, although the flusher still shares it.
struct Handle {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    read_bytes: u64,
}

struct Shared {
    /// None once closed.
    log: RwLock<Option<Log>>,
}

/// The log under its lock.
struct Log {
    raft: RaftLog<Records>,
    /// The position after the last record.
    end: u64,
    /// Whether a mark is the first of the records that are not yet synced.
    marked: bool,
    /// Whether a sync is in flight.
    flushing: bool,
    /// Who waits for the next sync.
    waiting: Vec<IOFlushed>,
    done: mpsc::Sender<()>,
    counters: Arc<Counters>,
    synced: Synced,
}

impl LogStore {
    /// Opens the log of a directory, which is made if there is none, with default sizes.
    ///
    /// Blocks while it reads the whole log. A torn tail is cut; damage is [`Error::Corrupt`]; a log
    /// that another process has open is [`Error::Io`].
    pub fn open(dir: &Path) -> Result<LogStore> {
        LogStore::open_with(dir, Options::default())
    }

    /// Opens the log of a directory with the sizes given.
    pub fn open_with(dir: &Path, options: Options) -> Result<LogStore> {
        make_dir(dir)?;
        let (synced, position) = Synced::open(dir)?;
        let files = dir.join(FILES);
        make_dir(&files)?;
        let config = raft_log_config(&files, options)?;
        recovery::mend(&config.wal, position)?;
        let raft = RaftLog::open(Arc::new(config)).map_err(open_error)?;
        let counters = Arc::new(Counters::default());
        let (done, flushes) = mpsc::channel();
        let log = Log::new(raft, done, Arc::clone(&counters), synced)?;
        let shared = Arc::new(Shared { log: RwLock::new(Some(log)) });
        spawn_flusher(Arc::clone(&shared), flushes)?;
        let handle = Handle { shared, counters, read_bytes: options.read_bytes };
        Ok(LogStore { handle: Arc::new(handle) })
    }

    /// Syncs and closes the log, whoever else holds a handle: every later call on any of them fails.
    /// openraft's tasks may hold theirs for a moment after its shutdown.
    pub fn close(&self) -> Result<()> {
        Ok(self.handle.shared.close()?)
    }

    /// Whether nothing was ever written: no vote, no entry. A node without a log is fresh.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.read(|log| {
            let state = log.raft.log_state();
            Ok(state.vote().is_none() && state.last().is_none() && state.purged().is_none())
        })?)
    }

    /// Drops what a newer leader has overwritten: where the state holds another entry at its index than the
    /// log does, that entry is committed, and the log's end from there on is not.
    ///
    /// An entry may be applied here while only others have synced it, and the state may reach the disk
    /// before the log does. A power cut then leaves a state that is ahead, over the end of an older term
    /// that was to be truncated. openraft would take it for damage.
    pub fn drop_overwritten(&self, applied: LogId) -> Result<()> {
        let applied = wire::LogId::from(applied);
        self.write(|log| {
            let purged = log.raft.log_state().purged().copied();
            if purged.is_some_and(|purged| purged.index >= applied.index) {
                return Ok(());
            }
            let held = log.raft.read(applied.index, applied.index + 1).next().transpose()?;
            if held.is_some_and(|(log_id, _)| log_id != applied) {
                log.truncate(applied.index)?;
                log.flush()?;
                log.raft.wait_worker_idle()?;
            }
            Ok(())
        })
        .map_err(Error::from)
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        Ok(self.read(|log| Ok(log.raft.on_disk_size()))?)
    }

    /// Syncs since it was opened.
    #[must_use]
    pub fn fsyncs(&self) -> u64 {
        self.handle.counters.fsyncs.load(Ordering::Relaxed)
    }

    /// Entries appended since it was opened.
    #[must_use]
    pub fn appended_entries(&self) -> u64 {
        self.handle.counters.entries.load(Ordering::Relaxed)
    }

    fn read<T>(&self, look: impl FnOnce(&Log) -> io::Result<T>) -> io::Result<T> {
        let guard = self.handle.shared.log.read().map_err(poisoned)?;
        look(guard.as_ref().ok_or_else(closed)?)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Log) -> io::Result<T>) -> io::Result<T> {
        self.handle.shared.write(change)
    }

    /// Entries from an index to before another, up to a limit of bytes but at least one.
    fn entries(&self, from: u64, to: u64, limit: u64) -> io::Result<Vec<Entry>> {
        let records = self.read(|log| log.records(from, to, limit))?;
        records.into_iter().map(|entry| Entry::try_from(entry).map_err(io::Error::other)).collect()
    }
}

impl Shared {
    fn write<T>(&self, change: impl FnOnce(&mut Log) -> io::Result<T>) -> io::Result<T> {
        let mut guard = self.log.write().map_err(poisoned)?;
        change(guard.as_mut().ok_or_else(closed)?)
    }

    fn close(&self) -> io::Result<()> {
        let log = self.log.write().unwrap_or_else(PoisonError::into_inner).take();
        // Out of the lock: this waits for raft-log's worker.
        log.map_or(Ok(()), |mut log| {
            log.flush()?;
            log.raft.wait_worker_idle()
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(e) = self.shared.close() {
            error!(error = %e, "closing the raft log");
        }
    }
}

impl Log {
    /// Marks all that is there as synced, which [`recovery::mend`] saw to.
    fn new(
        raft: RaftLog<Records>,
        done: mpsc::Sender<()>,
        counters: Arc<Counters>,
        synced: Synced,
    ) -> io::Result<Log> {
        let end = raft.stat().open_chunk.global_end;
        let (marked, flushing, waiting) = (false, false, Vec::new());
        let mut log = Log { raft, end, marked, flushing, waiting, done, counters, synced };
        log.mark()?;
        log.flush()?;
        log.raft.wait_worker_idle()?;
        Ok(log)
    }

    /// Writes the mark that unsynced records begin with, if there are none yet.
    fn mark(&mut self) -> io::Result<()> {
        if self.marked {
            return Ok(());
        }
        self.marked = true;
        let segment = self.raft.save_user_data(Some(Mark(self.end)))?;
        self.wrote(segment);
        Ok(())
    }

    /// Notes where the last record ended.
    fn wrote(&mut self, last: Segment) {
        self.end = *last.end();
    }

    fn append(
        &mut self,
        entries: impl Iterator<Item = wire::Entry>,
        flushed: IOFlushed,
    ) -> io::Result<()> {
        self.mark()?;
        let mut count = 0;
        let records = entries.map(|entry| {
            count += 1;
            (entry.log_id, entry.body)
        });
        let segment = self.raft.append(records)?;
        self.wrote(segment);
        self.counters.entries.fetch_add(count, Ordering::Relaxed);
        if mutant::is(Mutant::AckBeforeFsync) {
            flushed.io_completed(Ok(()));
            return self.raft.flush(false, None);
        }
        self.flush_soon(flushed)
    }

    fn save_vote(&mut self, vote: wire::Vote, flushed: IOFlushed) -> io::Result<()> {
        if mutant::is(Mutant::UnsyncedVote) && Some(&vote) < self.raft.log_state().vote() {
            flushed.io_completed(Ok(()));
            return Ok(());
        }
        self.mark()?;
        let segment = self.raft.save_vote(vote)?;
        self.wrote(segment);
        self.flush_soon(flushed)
    }

    /// openraft may name a position that the log has not reached, and one that it knows: neither is
    /// worth a record, and raft-log refuses the former.
    fn save_committed(&mut self, committed: wire::LogId) -> io::Result<()> {
        let state = self.raft.log_state();
        if Some(&committed) <= state.committed() || Some(&committed) > state.last() {
            return Ok(());
        }
        self.mark()?;
        let segment = self.raft.commit(committed)?;
        self.wrote(segment);
        Ok(())
    }

    /// Keeps the entries before an index. Nothing happens past the end, which raft-log would refuse.
    fn truncate(&mut self, next: u64) -> io::Result<()> {
        if self.raft.log_state().last().is_none_or(|last| last.index < next) {
            return Ok(());
        }
        self.mark()?;
        let segment = self.raft.truncate(next)?;
        self.wrote(segment);
        Ok(())
    }

    fn purge(&mut self, upto: wire::LogId) -> io::Result<()> {
        self.mark()?;
        let segment = self.raft.purge(upto)?;
        self.wrote(segment);
        self.flush_soon(IOFlushed::noop())
    }

    /// Tells `flushed` when all records so far are synced.
    fn flush_soon(&mut self, flushed: IOFlushed) -> io::Result<()> {
        self.waiting.push(flushed);
        if self.flushing { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let note = (self.synced.clone(), self.end);
        let flush = Flush::new(waiting, note, self.done.clone(), Arc::clone(&self.counters));
        self.flushing = true;
        self.marked = false;
        self.raft.flush(true, Some(flush))
    }

    /// After a sync: starts the next, or else writes the mark of this one, without a sync.
    fn flushed(&mut self) -> io::Result<()> {
        self.flushing = false;
        if !self.waiting.is_empty() {
            return self.flush();
        }
        self.mark()?;
        self.raft.flush(false, None)
    }

    fn records(&self, from: u64, to: u64, limit: u64) -> io::Result<Vec<wire::Entry>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in self.raft.read(from, to.max(from)) {
            let (log_id, body) = record?;
            bytes += codec::size(&body);
            if bytes > limit && !records.is_empty() {
                break;
            }
            records.push(wire::Entry { log_id, body });
        }
        Ok(records)
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn raft_log_config(dir: &Path, options: Options) -> Result<raft_log::Config> {
    let dir = dir.to_str().ok_or_else(|| Error::invalid("the data directory is not UTF-8"))?;
    let mut config = raft_log::Config::new(dir);
    config.wal.read_buffer_size = Some(READ_BUFFER_BYTES);
    config.wal.chunk_max_size = Some(options.chunk_bytes);
    // Ours to judge: see `recovery`.
    config.wal.truncate_incomplete_record = Some(false);
    // With any wait, raft-log would sync several writes at once, and marks would not hold.
    config.wal.flush_batch_wait = Some(std::time::Duration::ZERO);
    config.log_cache_capacity = Some(options.cache_bytes);
    config.log_cache_max_items = Some(options.cache_bytes / ENTRY_BYTES_MIN);
    Ok(config)
}

/// Starts the thread that follows each sync with the next.
fn spawn_flusher(shared: Arc<Shared>, flushes: mpsc::Receiver<()>) -> io::Result<()> {
    let follow = move || {
        while flushes.recv().is_ok() {
            // Who waits hears of a failure from `Flush`; here it can also be that the log closed.
            if let Err(e) = shared.write(Log::flushed) {
                tracing::debug!(error = %e, "after a sync of the raft log");
            }
        }
    };
    thread::Builder::new().name("raft-log-flusher".into()).spawn(follow).map(drop)
}

fn open_error(e: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match e.kind() {
        InvalidData | InvalidInput | Other | UnexpectedEof => Error::corrupt(WHAT, e),
        _ => Error::Io(format!("{WHAT}: {e}")),
    }
}

fn poisoned<T>(_: PoisonError<T>) -> io::Error {
    io::Error::other("a panic left the raft log half changed")
}

fn closed() -> io::Error {
    io::Error::other("the raft log is closed")
}

/// The indexes of a range: from, and to before.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        self.entries(from, to, u64::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        if mutant::first(Mutant::UnsyncedVote) {
            return Ok(None);
        }
        self.read(|log| Ok(log.raft.log_state().vote().copied().map(Vote::from)))
    }

    /// Nothing where the first entry is purged: entries behind a gap must not reach a follower.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.entries(start, end, self.handle.read_bytes)?;
        let whole = entries.first().is_none_or(|first| first.log_id.index == start);
        Ok(if whole { entries } else { Vec::new() })
    }

    /// What is applied, batch by batch, so that a node far behind does not hold it all at once.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        stream::try_unfold(Batches::new(self.clone(), from, to), Batches::next)
    }
}

/// Entries of a range, read batch by batch.
struct Batches {
    store: LogStore,
    next: u64,
    to: u64,
    batch: std::vec::IntoIter<Entry>,
}

impl Batches {
    fn new(store: LogStore, next: u64, to: u64) -> Batches {
        Batches { store, next, to, batch: Vec::new().into_iter() }
    }

    async fn next(mut self) -> io::Result<Option<(Entry, Batches)>> {
        if self.batch.len() == 0 {
            let limit = self.store.handle.read_bytes;
            self.batch = self.store.entries(self.next, self.to, limit)?.into_iter();
        }
        let Some(entry) = self.batch.next() else {
            return Ok(None);
        };
        self.next = entry.log_id.index.saturating_add(1);
        Ok(Some((entry, self)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.read(|log| {
            let state = log.raft.log_state();
            Ok(LogState {
                last_purged_log_id: state.purged().copied().map(LogId::from),
                last_log_id: state.last().copied().map(LogId::from),
            })
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (send, flushed) = TypeConfig::oneshot();
        self.write(|log| log.save_vote((*vote).into(), IOFlushed::signal(send)))?;
        flushed.await.map_err(|_| closed())?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(committed) => self.write(|log| log.save_committed(committed.into())),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.read(|log| Ok(log.raft.log_state().committed().copied().map(LogId::from)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write(|log| log.append(entries.into_iter().map(wire::Entry::from), callback))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let next = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        self.write(|log| log.truncate(next))
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.write(|log| log.purge(log_id.into()))
    }
}

#[cfg(test)]
#[path = "log_store/tests.rs"]
mod tests;
