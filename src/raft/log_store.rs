//! The log on disk: entries, vote and committed position, in one order.
//!
//! ```text
//! append ─► log (in memory: what it says, a frame that is gathered) ─► writer ─► segment files
//!              ▲ reads: newest entries from memory, older from the files
//! ```
//!
//! **Group commit.** [`append`](RaftLogStorage::append) puts records into a frame and returns; who proposed
//! them is told when they are synced. One frame is written and synced at a time, and all that arrives
//! meanwhile shares the next: the slower the disk, the larger the batches, and a lone writer never
//! waits for company.
//!
//! **What is synced before it returns:** a vote. Entries are synced before their callback. A
//! committed position rides along with whatever is synced next: without it, a node only learns a
//! little later what was committed. A truncation rides along too, since later entries are behind it
//! in the same file. A purge asks for a sync, since files are given up only behind one, and
//! waits for nothing.
//!
//! **Crashes.** Opening cuts a torn tail and refuses damage; [`recovery`] says how it tells one from
//! the other. The difference matters, because cutting off a synced entry breaks the promise that made it count for
//! a quorum. How far the log must reach is noted beside it: see [`synced`].
//!
//! **Memory.** Newest payloads stay in memory, up to [`Options::cache_bytes`]; those that are not synced always do.
//! The state machine and followers that keep up read from there. What followers and the state machine read at a time is
//! bounded in bytes; `try_get_log_entries` gives all that it is asked for, by openraft's contract.
//!
//! Invariants:
//! - A callback that reports success runs after the sync of its entries and of all before them.
//! - Records reach the disk in the order of the calls, votes and entries alike.
//! - A byte is written only after all before it were synced, or together with them.
//! - No lock is held where somebody is called back.
//!
//! A frame is as large as what arrives during a sync: openraft bounds what is proposed at a time. One of over 4 GB fails
//! the log.
//!
//! Caveat: a write or sync that fails stops the writer for good. Every later call fails,
//! openraft stops, and the process must end: after a failed sync nobody knows what is on disk.

mod codec;
mod frame;
mod history;
mod index;
mod log;
mod recovery;
mod segment;
mod synced;
mod writer;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{JoinHandle, Thread};

use futures::executor::block_on;
use futures::{Stream, stream};
use openraft::storage::RaftLogStorage;
use openraft::type_config::TypeConfigExt;
use openraft::{LogState, OptionalSend, RaftLogReader};

use self::codec::Record;
pub use self::history::{Logged, Stretch};
use self::log::Log;
use self::segment::Files;
use self::synced::Synced;
use self::writer::{Counters, Step, Waiting, Writer};
use super::types::{Entry, IOFlushed, LogId, TypeConfig, Vote};
use super::wire;
use crate::error::{Error, Result};
use crate::mutant::{self, Mutant};

/// What an error calls this.
const WHAT: &str = "raft log";
/// Where the segments lie, in the log's directory; and where an earlier version had its files.
const FILES: &str = "segments";
const FILES_BEFORE: &str = "wal";

/// Sizes of a log. Any can change between two openings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment takes this much, or one batch that is larger. Whole segments are given up, and each is read at once
    /// when the log is opened.
    pub segment_bytes: u64,
    /// Payloads kept in memory.
    pub cache_bytes: usize,
    /// One read returns at most this much, but always an entry.
    pub read_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: 16 << 20, cache_bytes: 16 << 20, read_bytes: 2 << 20 }
    }
}

/// A handle on the log; the log closes with the last of them, or by [`LogStore::close`].
#[derive(Clone)]
pub struct LogStore {
    handle: Arc<Handle>,
}

/// Closes the log, although the writer still shares it.
struct Handle {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    read_bytes: u64,
    /// Taken by who closes it.
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: RwLock<State>,
    /// To wake it.
    writer: OnceLock<Thread>,
}

struct State {
    log: Log,
    standing: Standing,
    /// Whether the writer sleeps until it is woken.
    idle: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// What was gathered is still written.
    Closing,
    Closed,
    Failed(String),
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
        if dir.join(FILES_BEFORE).exists() {
            let detail = format!("{} was written by an earlier version", dir.display());
            return Err(Error::corrupt(WHAT, detail));
        }
        let (synced, position) = Synced::open(dir)?;
        make_dir(&dir.join(FILES))?;
        let (files, starts) = Files::open(&dir.join(FILES), options.segment_bytes)?;
        let mut log = Log::new(options);
        let tail = recovery::replay(&files, &starts, position, &mut log)?;
        synced.note(log.end())?;
        let state = State { log, standing: Standing::Open, idle: false };
        let shared = Arc::new(Shared { state: RwLock::new(state), writer: OnceLock::new() });
        let counters = Arc::new(Counters::default());
        let writer = Writer { files, tail, synced, counters: Arc::clone(&counters) };
        let thread = writer::spawn(writer, Arc::clone(&shared))?;
        shared.writer.get_or_init(|| thread.thread().clone());
        let (read_bytes, writer) = (options.read_bytes, Mutex::new(Some(thread)));
        Ok(LogStore { handle: Arc::new(Handle { shared, counters, read_bytes, writer }) })
    }

    /// Syncs and closes the log, whoever else holds a handle: every later call on any of them fails.
    /// openraft's tasks may hold theirs for a moment after its shutdown.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }

    /// Whether nothing was ever written: no vote, no entry. A node without a log is fresh.
    pub fn is_empty(&self) -> Result<bool> {
        self.read(|log| {
            let head = log.head;
            Ok(head.vote.is_none() && head.last.is_none() && head.purged.is_none())
        })
    }

    /// Drops what a newer leader has overwritten: where the state holds another entry at its index than the
    /// log does, that entry is committed, and the log's end from there on is not.
    ///
    /// An entry may be applied here while only others have synced it, and the state may reach the disk
    /// before the log does. A power cut then leaves a state that is ahead, over the end of an older term
    /// that was to be truncated. openraft would take it for damage.
    pub fn drop_overwritten(&self, applied: LogId) -> Result<()> {
        let applied = wire::LogId::from(applied);
        let held = self.read(|log| Ok(log.log_id(applied.index)))?;
        if held.is_none_or(|held| held == applied) {
            return Ok(());
        }
        let (send, synced) = TypeConfig::oneshot();
        self.write(|log| {
            log.truncate(applied.index)?;
            log.wait(IOFlushed::signal(send));
            Ok(())
        })?;
        block_on(synced).map_err(|_| closed())??;
        Ok(())
    }

    /// Bytes that the log takes on disk, without the space that is kept for what comes.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.read(|log| Ok(log.bytes()))
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

    fn read<T>(&self, look: impl FnOnce(&Log) -> Result<T>) -> Result<T> {
        let state = self.handle.shared.state.read().map_err(poisoned)?;
        state.must_be_open()?;
        look(&state.log)
    }

    fn write<T>(&self, change: impl FnOnce(&mut Log) -> Result<T>) -> Result<T> {
        self.handle.shared.write(change)
    }

    /// Entries from an index to before another, up to a limit of bytes but at least one.
    fn entries(&self, from: u64, to: u64, limit: u64) -> io::Result<Vec<Entry>> {
        let entries = self.read(|log| log.records(from, to, limit)).map_err(io::Error::other)?;
        entries.into_iter().map(|entry| Entry::try_from(entry).map_err(io::Error::other)).collect()
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        self.shared.begin_to_close();
        // Held until the writer has ended: who closes at the same time waits for that, too.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.take() {
            writer.join().map_err(|_| Error::Internal("the log's writer panicked".to_owned()))?;
        }
        self.shared.ended()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::error!(error = %e, "closing the raft log");
        }
    }
}

impl Shared {
    /// Changes the log, and wakes the writer where somebody waits for it.
    fn write<T>(&self, change: impl FnOnce(&mut Log) -> Result<T>) -> Result<T> {
        let mut state = self.state.write().map_err(poisoned)?;
        state.must_be_open()?;
        let done = change(&mut state.log)?;
        if state.idle && state.log.is_waited_for() {
            state.idle = false;
            drop(state);
            self.wake();
        }
        Ok(done)
    }

    /// Changes the log for the writer, whether the log is open or closing.
    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        change(&mut self.lock().log)
    }

    /// What the writer does next.
    fn step(&self) -> Step {
        let mut state = self.lock();
        let closing = match state.standing {
            Standing::Open => false,
            Standing::Closing => true,
            Standing::Closed | Standing::Failed(_) => return Step::Stop,
        };
        match state.log.take(closing) {
            Some(batch) => Step::Write(Box::new(batch)),
            None if closing => {
                state.standing = Standing::Closed;
                Step::Stop
            }
            None => {
                state.idle = true;
                Step::Wait
            }
        }
    }

    fn begin_to_close(&self) {
        let mut state = self.lock();
        if state.standing == Standing::Open {
            state.standing = Standing::Closing;
        }
        drop(state);
        self.wake();
    }

    /// The log failed: nothing is written from now on, and who waits hears of it.
    fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.standing = Standing::Failed(error.to_string());
        let waiting = Waiting::from(state.log.give_up());
        drop(state);
        drop(waiting);
    }

    /// How the log ended.
    fn ended(&self) -> Result<()> {
        match &self.lock().standing {
            Standing::Failed(why) => Err(failed(why)),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

impl State {
    fn must_be_open(&self) -> Result<()> {
        match &self.standing {
            Standing::Open => Ok(()),
            Standing::Closing | Standing::Closed => Err(closed().into()),
            Standing::Failed(why) => Err(failed(why)),
        }
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn failed(why: &str) -> Error {
    Error::Io(format!("{WHAT}: cannot be written: {why}"))
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
        self.read(|log| Ok(log.head.vote.map(Vote::from))).map_err(io::Error::other)
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
        let head = self.read(|log| Ok(log.head)).map_err(io::Error::other)?;
        Ok(LogState {
            last_purged_log_id: head.purged.map(LogId::from),
            last_log_id: head.last.map(LogId::from),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = wire::Vote::from(*vote);
        let (send, synced) = TypeConfig::oneshot();
        let save = |log: &mut Log| {
            if mutant::is(Mutant::UnsyncedVote) && Some(&vote) < log.head.vote.as_ref() {
                IOFlushed::signal(send).io_completed(Ok(()));
                return Ok(());
            }
            log.change(Record::Vote(vote))?;
            log.wait(IOFlushed::signal(send));
            Ok(())
        };
        self.write(save).map_err(io::Error::other)?;
        synced.await.map_err(|_| closed())?
    }

    /// openraft may name a position that the log has not reached, and one that it knows: neither is
    /// worth a record.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed.map(wire::LogId::from) else { return Ok(()) };
        let save = |log: &mut Log| {
            let head = log.head;
            if Some(committed) <= head.committed || Some(committed) > head.last {
                return Ok(());
            }
            log.change(Record::Committed(committed))
        };
        self.write(save).map_err(io::Error::other)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.read(|log| Ok(log.head.committed.map(LogId::from))).map_err(io::Error::other)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let append = |log: &mut Log| {
            let count = log.append(entries.into_iter().map(wire::Entry::from))?;
            if mutant::is(Mutant::AckBeforeFsync) {
                callback.io_completed(Ok(()));
            } else {
                log.wait(callback);
            }
            Ok(count)
        };
        let count = self.write(append).map_err(io::Error::other)?;
        self.handle.counters.entries.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let next = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        self.write(|log| log.truncate(next)).map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let purge = |log: &mut Log| {
            log.change(Record::Purge(log_id.into()))?;
            log.wait(IOFlushed::noop());
            Ok(())
        };
        self.write(purge).map_err(io::Error::other)
    }
}

#[cfg(test)]
#[path = "log_store/tests.rs"]
mod tests;
