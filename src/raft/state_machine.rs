//! The bridge from the log to the core: decode, [`kv::apply()`], commit one batch, answer.
//!
//! A batch holds the effects of whole entries and the applied log id with the membership, so after
//! a crash the state is the one after some entry, and says which. An entry that cannot be decoded, or
//! an error that not every replica would meet, stops the node: going on would let replicas diverge.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use openraft::RaftSnapshotBuilder;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::compaction::Compaction;
use super::feed::Feed;
use super::log_store::Logged;
use super::types::{
    Entry, EntryPayload, LogId, Membership, Payload, Response, Snapshot, SnapshotMeta,
    StoredMembership, TypeConfig,
};
use super::wire;
use crate::encoding;
use crate::error::{Error, Result};
use crate::kv::keyspace::APPLIED;
use crate::kv::{self, Command, Get, Outcome, Store};
use crate::mutant::{self, Mutant};
use crate::storage::{Batch, Checkpoint, Pace, State};

/// Entries that one batch may hold.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Bytes of commands that one batch may hold.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// By how much [`Mutant::AppliedIndexApart`] widens what a crash must meet: microseconds otherwise.
const MUTANT_PAUSE: Duration = Duration::from_millis(20);

/// How far the log is applied: stored beside what it speaks of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Applied {
    log_id: Option<wire::LogId>,
    membership: wire::StoredMembership,
}

/// The index that a view stands on; 0 where nothing was ever applied.
pub fn applied_index(view: &(impl Get + ?Sized)) -> Result<u64> {
    Ok(read_applied(view)?.0.map_or(0, |log_id| log_id.index()))
}

/// The entry that a view stands on, if any.
pub fn applied_entry(view: &(impl Get + ?Sized)) -> Result<Option<wire::LogId>> {
    Ok(read_applied(view)?.0.map(Into::into))
}

fn read_applied(view: &(impl Get + ?Sized)) -> Result<(Option<LogId>, StoredMembership)> {
    let Some(bytes) = view.get(APPLIED)? else { return Ok(Default::default()) };
    let applied: Applied = encoding::decode("applied index", &bytes)?;
    Ok((applied.log_id.map(LogId::from), applied.membership.try_into()?))
}

fn write_applied(
    batch: &mut Batch,
    log_id: Option<LogId>,
    membership: &StoredMembership,
) -> Result<()> {
    let applied = Applied { log_id: log_id.map(Into::into), membership: membership.into() };
    batch.put(APPLIED.to_vec(), encoding::encode(&applied)?.into());
    Ok(())
}

/// A handle on the replicated state, for openraft and for those who wait for it.
#[derive(Clone)]
pub struct StateMachine {
    state: Arc<State>,
    applied: watch::Sender<u64>,
    /// The newest checkpoint of this run; another is made when asked for.
    snapshot: Arc<Mutex<Option<Snapshot<Arc<Checkpoint>>>>>,
    /// Counts installed snapshots: a checkpoint of the state before one is out of date.
    installs: Arc<AtomicU64>,
    feed: Feed,
    compaction: Arc<Compaction>,
}

impl StateMachine {
    /// A state machine over the state on disk.
    pub fn new(state: Arc<State>) -> Result<Self> {
        let applied = applied_index(&*state.view())?;
        let (applied, snapshot) = (watch::Sender::new(applied), Arc::default());
        let (installs, feed, compaction) = (Arc::default(), Feed::default(), Arc::default());
        Ok(StateMachine { state, applied, snapshot, installs, feed, compaction })
    }

    /// The last entry that the state holds.
    pub fn applied_log_id(&self) -> Result<Option<LogId>> {
        Ok(read_applied(&*self.state.view())?.0)
    }

    /// Tells the index that has been applied, as soon as views hold it.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Tells what has been applied, as soon as views hold it.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Is told what has been applied.
    pub(super) fn compaction(&self) -> &Arc<Compaction> {
        &self.compaction
    }

    /// Tells those who follow a bucket what has become of a batch.
    fn tell(&self, entries: &[Entry], responses: &[Response]) -> Result<()> {
        let mut applied = Vec::new();
        for (entry, response) in entries.iter().zip(responses) {
            if let EntryPayload::Normal(Payload(bytes)) = &entry.payload
                && matches!(response, Response(Some(Outcome::Applied { .. })))
            {
                let id = wire::LogId::from(entry.log_id);
                applied.push(Logged::decode(id.term, id.index, bytes)?);
            }
        }
        self.feed.tell(applied);
        Ok(())
    }

    async fn build_checkpoint(&self) -> Result<Snapshot<Arc<Checkpoint>>> {
        let installs = self.installs.load(Ordering::Acquire);
        let state = Arc::clone(&self.state);
        // Flushes and links files: seconds, on a large state.
        let snapshot = tokio::task::spawn_blocking(move || {
            let checkpoint = state.checkpoint()?;
            // The label is read from the bytes it labels; applying may have gone on meanwhile.
            let (last_log_id, last_membership) = read_applied(&*checkpoint.view()?)?;
            let meta = SnapshotMeta { last_log_id, last_membership };
            Ok::<_, Error>(Snapshot { meta, snapshot: Arc::new(checkpoint) })
        })
        .await
        .map_err(|e| Error::Internal(format!("checkpoint: {e}")))??;
        tracing::info!(last = ?snapshot.meta.last_log_id, "snapshot taken");
        self.compaction.snapshot(last_index(&snapshot.meta));
        let last = {
            let mut current = self.current();
            let is_newest = self.installs.load(Ordering::Acquire) == installs;
            if is_newest { current.replace(snapshot.clone()) } else { None }
        };
        remove(last);
        Ok(snapshot)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Snapshot<Arc<Checkpoint>>>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies entries as one batch; the responses in their order.
    fn apply_batch(&self, entries: &[Entry]) -> Result<Vec<Response>> {
        let mut batch = self.state.batch();
        let (mut log_id, mut membership) = read_applied(&batch)?;
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = entry.log_id();
            responses.push(match &entry.payload {
                EntryPayload::Blank => Response(None),
                EntryPayload::Normal(_) if mutant::first(Mutant::ApplySkipsOne) => {
                    Response(Some(Outcome::Conflict))
                }
                EntryPayload::Normal(Payload(bytes)) => {
                    let command: Command = encoding::decode("command", bytes)?;
                    let term = id.committed_leader_id().term;
                    Response(Some(kv::apply(&mut batch, term, id.index(), &command)?))
                }
                EntryPayload::Membership(new) => {
                    record_nodes(&mut batch, new)?;
                    membership = StoredMembership::new(Some(id), new.clone());
                    Response(None)
                }
            });
            log_id = Some(id);
        }
        if mutant::is(Mutant::AppliedIndexApart) {
            let mut ahead = self.state.batch();
            write_applied(&mut ahead, log_id, &membership)?;
            ahead.commit()?;
            tokio::task::block_in_place(|| std::thread::sleep(MUTANT_PAUSE));
        }
        write_applied(&mut batch, log_id, &membership)?;
        batch.commit()?;
        if self.feed.is_watched() {
            self.tell(entries, &responses)?;
        }
        if let Some(log_id) = log_id {
            self.applied.send_replace(log_id.index());
        }
        Ok(responses)
    }
}

/// Lets go of a checkpoint where it keeps nobody: its files may be the last links to what was compacted away since,
/// and take long to remove.
fn remove(snapshot: Option<Snapshot<Arc<Checkpoint>>>) {
    if let Some(snapshot) = snapshot {
        tokio::task::spawn_blocking(move || drop(snapshot));
    }
}

fn install(state: &State, checkpoint: Checkpoint) -> Result<()> {
    state.install(checkpoint)?;
    if mutant::is(Mutant::SnapshotDropsAKey) {
        let mut batch = state.batch();
        kv::drop_keys(&mut batch, &*state.view())?;
        batch.commit()?;
    }
    Ok(())
}

fn last_index(meta: &SnapshotMeta) -> u64 {
    meta.last_log_id.map_or(0, |log_id| log_id.index())
}

/// Remembers which data directory each node id was given to.
fn record_nodes(batch: &mut Batch, membership: &Membership) -> Result<()> {
    let nodes = membership.nodes().map(|(id, peer)| (*id, peer.instance.clone().into()));
    kv::record_nodes(batch, nodes)
}

fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        _ => 0,
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Arc<Checkpoint>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        read_applied(&*self.state.view()).map_err(io::Error::other)
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + openraft::OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let (mut batch, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(item) = next {
                let (entry, responder) = item?;
                bytes += entry_bytes(&entry);
                batch.push(entry);
                responders.push(responder);
                // Only what is there already: waiting for more would delay the answers.
                let full = batch.len() >= BATCH_ENTRIES_MAX || bytes >= BATCH_BYTES_MAX;
                next = if full { None } else { entries.next().now_or_never().flatten() };
            }
            let responses = self.apply_batch(&batch).map_err(io::Error::other)?;
            if let Some(last) = batch.last() {
                self.compaction.applied(last.log_id.index, batch.len(), bytes);
            }
            for (responder, response) in responders.into_iter().zip(responses) {
                if let Some(responder) = responder {
                    responder.send(response);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Arc<Checkpoint>,
    ) -> io::Result<()> {
        let checkpoint = Arc::into_inner(snapshot)
            .ok_or_else(|| io::Error::other("the snapshot to install is in use"))?;
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || install(&state, checkpoint))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let last = {
            let mut current = self.current();
            self.installs.fetch_add(1, Ordering::AcqRel);
            current.take()
        };
        remove(last);
        self.feed.lapse();
        self.compaction.installed(last_index(meta));
        self.applied.send_replace(last_index(meta));
        tracing::info!(last = ?meta.last_log_id, "snapshot installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Arc<Checkpoint>>>> {
        let current = self.current().clone();
        let nothing = read_applied(&*self.state.view()).map_err(io::Error::other)?.0.is_none();
        if current.is_some() || nothing {
            return Ok(current);
        }
        self.build_checkpoint().await.map(Some).map_err(io::Error::other)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Arc<Checkpoint>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Arc<Checkpoint>>> {
        self.build_checkpoint().await.map_err(io::Error::other)
    }
}

/// What a received checkpoint must be before it is installed: whole, undamaged, and what it is said
/// to be.
pub(super) fn verify_checkpoint(
    checkpoint: &Checkpoint,
    meta: &SnapshotMeta,
    pace: Pace,
    stop: &AtomicBool,
) -> Result<()> {
    let (last_log_id, _) = read_applied(&*checkpoint.view()?)?;
    if last_log_id != meta.last_log_id {
        let detail = format!("holds {last_log_id:?}, announced as {:?}", meta.last_log_id);
        return Err(Error::corrupt("snapshot", detail));
    }
    checkpoint.verify(pace, stop)
}
