//! Following a bucket: every command that touched a prefix, in order, from a revision on.
//!
//! A watch reads two things: the log, for what is behind it ([`history`](super::history)), and the feed,
//! for what is applied from now on. The subscription begins before the view that says where the log is
//! read up to, so that each command is in one of them, and is taken once: by its index. A watch
//! that the feed left behind goes on in the log; only where that is purged has it lost its place.
//!
//! Any node serves any watch: revisions and the order of commands are the same everywhere.
//!
//! Invariants:
//! - Commands follow each other without a gap: each names the one before it, or the watch ends.
//! - Nothing leaves that the caller may not see: authority is judged again before a command that changes
//!   who may what is passed on, and at least every [`LOOK_EVERY`].
//! - A watch holds at most a stretch of the log and what the feed holds for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::Node;
use super::history::{Place, STEP, reads_at};
use crate::encoding;
use crate::error::{Error, Missing, Result};
use crate::kv::{
    BucketId, BucketName, Credential, Effect, Permission, Record, SharedView, Table, View, Write,
    grant, store, transaction,
};
use crate::raft::wire::LogId;
use crate::raft::{Logged, Stretch, Subscription, applied_entry};

/// How long a watch may go without judging the caller's authority again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a watch is silent before it says where it stands.
const AT_EVERY: Duration = Duration::from_secs(10);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A command that changed keys under the prefix.
    Commit(Commit),
    /// Everything up to this revision has been told.
    At(u64),
    /// Nothing more comes: why, and the revision up to which everything was told.
    End(Reason, u64),
}

/// What one command changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The bucket's revision after it.
    pub revision: u64,
    /// Its changes under the prefix, in the order of rows.
    pub changes: Vec<Change>,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What became of it.
    pub kind: Kind,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// It was set.
    Set(Record),
    /// It was deleted.
    Delete,
    /// Its time was over.
    Expire,
}

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its reader takes less than comes.
    Slow,
    /// What comes next is not in this node's history.
    Gone,
    /// The caller may not see it any more.
    Revoked,
    /// The bucket was deleted.
    Deleted,
    /// The node is shutting down.
    Shutdown,
}

impl Reason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Slow => "slow",
            Reason::Gone => "gone",
            Reason::Revoked => "revoked",
            Reason::Deleted => "deleted",
            Reason::Shutdown => "shutdown",
        }
    }
}

/// What keeps a watch from going on.
enum Cut {
    End(Reason),
    Failed(Error),
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Cut::Failed(error)
    }
}

/// Who follows what.
struct Follower {
    bucket: BucketId,
    prefix: Bytes,
    credential: Credential,
}

impl Follower {
    /// Fails unless the caller may list and read what it follows: the one place that knows.
    fn judge(&self, view: SharedView, now: u64) -> Result<()> {
        let missing = || Error::not_found(Missing::Bucket, String::new());
        let mut txn = transaction::read_only(view, self.bucket, now)?.ok_or_else(missing)?;
        let grant = grant(&mut txn, &self.credential)?;
        grant.check(Permission::Enumerate, &self.prefix)?;
        grant.check(Permission::Read, &self.prefix)
    }

    /// The changes of a command that are under the prefix.
    fn changes(&self, effect: &Effect) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for Write { row, value } in writes(effect) {
            if row.table != Table::Key || !row.name.starts_with(&self.prefix) {
                continue;
            }
            let kind = match value {
                Some(value) => Kind::Set(encoding::decode("record", value)?),
                None => removal(effect),
            };
            changes.push(Change { key: row.name.clone(), kind });
        }
        Ok(changes)
    }
}

/// The rows that a command writes in its own bucket.
fn writes(effect: &Effect) -> &[Write] {
    match effect {
        Effect::Write(writes) | Effect::Sweep(writes) => writes,
        Effect::CreateBucket { .. } | Effect::DeleteBucket { .. } => &[],
    }
}

/// What a removed key is told as.
fn removal(effect: &Effect) -> Kind {
    match effect {
        Effect::Sweep(_) => Kind::Expire,
        Effect::Write(_) | Effect::CreateBucket { .. } | Effect::DeleteBucket { .. } => {
            Kind::Delete
        }
    }
}

/// Whether a command may change who may what.
fn changes_authority(effect: &Effect) -> bool {
    writes(effect).iter().any(|write| matches!(write.row.table, Table::Policy | Table::Token))
}

/// A bucket that is followed.
pub struct Watch {
    node: Node,
    follower: Follower,
    /// Behind what was told last.
    place: Place,
    /// Up to where the log is to be read; what comes after is told by the feed.
    until: u64,
    /// What was read of the log, and up to where.
    read: VecDeque<Logged>,
    read_to: u64,
    feed: Subscription,
    /// Whether the feed has left it behind.
    lapsed: bool,
    stopping: watch::Receiver<bool>,
    /// How long it is silent before it says where it stands.
    pub(super) at_every: Duration,
    judged: Instant,
    /// When anything was told last.
    told: Option<Instant>,
}

impl Node {
    /// Follows a bucket from behind a revision, 0 for its beginning, or from now on; on any node.
    /// [`Error::RevisionGone`] where the node's history does not reach back to it.
    pub async fn watch(
        &self,
        bucket: &BucketName,
        prefix: Bytes,
        since: Option<u64>,
        credential: Credential,
    ) -> Result<Watch> {
        let missing = || Error::not_found(Missing::Bucket, bucket.as_str());
        let (view, now) = self.linearizable_view().await?;
        let id = store::bucket_id(&*view, bucket)?.ok_or_else(missing)?;
        let follower = Follower { bucket: id, prefix, credential };
        follower.judge(view, now)?;
        self.reached(bucket, since).await?;
        let feed = self.cluster().feed().subscribe(id);
        // After the subscription began, as `raft::Feed` wants it.
        let view = self.state().view();
        let end = place(&*view, id)?.ok_or_else(missing)?;
        let place = match since {
            Some(since) if since != end.revision => {
                let applied = applied_entry(&*view)?;
                let place = self.rewind(end, applied, since).await?;
                place.ok_or(Error::RevisionGone { revision: end.revision })?
            }
            _ => end,
        };
        Ok(Watch {
            node: self.clone(),
            follower,
            place,
            until: end.next,
            read: VecDeque::new(),
            read_to: place.next,
            feed,
            lapsed: false,
            stopping: self.0.shutting_down.subscribe(),
            at_every: AT_EVERY,
            judged: Instant::now(),
            told: None,
        })
    }

    /// The place with an earlier revision, where the history reaches back to it.
    async fn rewind(
        &self,
        end: Place,
        applied: Option<LogId>,
        since: u64,
    ) -> Result<Option<Place>> {
        let log = self.0.log.clone();
        let rewind = move || match applied {
            Some(entry) if log.holds(entry)? => end.rewind(&log, since),
            _ => Ok(None),
        };
        self.read_history(rewind).await
    }

    /// Does something with the log that takes a while: few at a time, and on a thread that may wait.
    async fn read_history<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.0.history_turns).acquire_owned().await;
        let turn = turn.map_err(|e| Error::Internal(format!("the history: {e}")))?;
        let read = move || {
            // Kept for as long as the log is read, whether or not anybody still waits for it.
            let _turn = turn;
            read()
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|e| Error::Internal(format!("reading the history: {e}")))?
    }
}

/// Where a bucket's history ends in a view.
fn place(view: &(dyn View + Send + Sync), bucket: BucketId) -> Result<Option<Place>> {
    let next = next_entry(applied_entry(view)?);
    let meta = store::meta(view, bucket)?;
    Ok(meta.map(|meta| Place { bucket, head: meta.head, revision: meta.revision, next }))
}

fn next_entry(applied: Option<LogId>) -> u64 {
    applied.map_or(0, |entry| entry.index.saturating_add(1))
}

impl Watch {
    /// The revision up to which everything was told.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.place.revision
    }

    /// What comes next. After [`Event::End`] and after an error nothing does. First it says where it
    /// stands, and again whenever it has been silent for a while.
    pub async fn next(&mut self) -> Result<Event> {
        let event = match self.advance().await {
            Ok(event) => event,
            Err(Cut::End(reason)) => Event::End(reason, self.place.revision),
            Err(Cut::Failed(error)) => return Err(error),
        };
        self.told = Some(Instant::now());
        Ok(event)
    }

    async fn advance(&mut self) -> std::result::Result<Event, Cut> {
        loop {
            if *self.stopping.borrow() {
                return Err(Cut::End(Reason::Shutdown));
            }
            if self.judged.elapsed() >= LOOK_EVERY {
                self.judge()?;
            }
            if self.told.is_none_or(|told| told.elapsed() >= self.at_every) {
                return Ok(Event::At(self.place.revision));
            }
            if let Some(logged) = self.take().await?
                && let Some(commit) = self.pass(&logged)?
            {
                return Ok(Event::Commit(commit));
            }
        }
    }

    /// The next entry to look at, or nothing where it is time to look around.
    async fn take(&mut self) -> std::result::Result<Option<Arc<Logged>>, Cut> {
        if let Some(logged) = self.read.pop_front() {
            return Ok(Some(Arc::new(logged)));
        }
        self.place.next = self.place.next.max(self.read_to);
        if self.place.next < self.until {
            self.read_on().await?;
            return Ok(None);
        }
        let told = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => {
                return Err(Cut::End(Reason::Shutdown));
            }
            told = tokio::time::timeout(LOOK_EVERY, self.feed.next()) => told,
        };
        match told {
            Ok(None) => self.go_back().await.map(|()| None),
            told => Ok(told.ok().flatten()),
        }
    }

    /// Reads the next stretch of the log.
    async fn read_on(&mut self) -> std::result::Result<(), Cut> {
        let (log, bucket, from) = (self.node.0.log.clone(), self.follower.bucket, self.place.next);
        let to = self.until.min(from.saturating_add(STEP));
        let read = move || -> Result<Stretch> {
            let mut stretch = log.stretch(from, to)?;
            stretch.commands.retain(|logged| logged.command.bucket == bucket);
            Ok(stretch)
        };
        let stretch = self.node.read_history(read).await?;
        if !reads_at(&stretch, from) {
            let reason = if self.lapsed { Reason::Slow } else { Reason::Gone };
            return Err(Cut::End(reason));
        }
        (self.read, self.read_to) = (stretch.commands.into(), stretch.to);
        Ok(())
    }

    /// Goes back to the log, where the feed has left it behind.
    async fn go_back(&mut self) -> std::result::Result<(), Cut> {
        self.feed.renew();
        let view = self.node.state().view();
        let end = place(&*view, self.follower.bucket)?;
        if let Some(end) = end.filter(|end| end.head == self.place.head) {
            (self.place, self.until) = (end, end.next);
            return Ok(());
        }
        let applied = applied_entry(&*view)?;
        let log = self.node.0.log.clone();
        let holds = move || applied.map_or(Ok(false), |entry| log.holds(entry));
        // Else a snapshot was installed, and what it stands for was never in this log.
        if !self.node.read_history(holds).await? {
            return Err(Cut::End(Reason::Gone));
        }
        (self.until, self.lapsed) = (next_entry(applied), true);
        Ok(())
    }

    /// Goes on behind an entry: the changes to tell, if it is a command of the bucket that has any.
    fn pass(&mut self, logged: &Logged) -> std::result::Result<Option<Commit>, Cut> {
        if logged.index < self.place.next {
            // Read in the log already.
            return Ok(None);
        }
        let before = self.place;
        if !self.place.pass(logged) {
            let told = logged.index >= self.until;
            // What the feed tells was applied: then something is missing before it.
            return if told { Err(Cut::End(Reason::Gone)) } else { Ok(None) };
        }
        let effect = &logged.command.effect;
        if matches!(effect, Effect::DeleteBucket { .. }) {
            return Err(Cut::End(Reason::Deleted));
        }
        if changes_authority(effect) {
            // It is not told to whom it shuts out.
            self.judge().inspect_err(|_| self.place = before)?;
        }
        let changes = self.follower.changes(effect)?;
        let revision = self.place.revision;
        Ok((!changes.is_empty()).then_some(Commit { revision, changes }))
    }

    /// Judges the caller's authority in the state of this moment.
    fn judge(&mut self) -> std::result::Result<(), Cut> {
        self.judged = Instant::now();
        match self.follower.judge(self.node.state().view(), self.node.now_ms()) {
            Ok(()) => Ok(()),
            Err(Error::Unauthorized(_) | Error::Forbidden(_)) => Err(Cut::End(Reason::Revoked)),
            Err(Error::NotFound { what: Missing::Bucket, .. }) => Err(Cut::End(Reason::Deleted)),
            Err(error) => Err(Cut::Failed(error)),
        }
    }
}
