//! Reads, on any node.
//!
//! A linearizable read asks the leader how far the log must be applied (read index), waits for that, and only
//! then takes its view. A stale read takes the view that is there, and says how long ago this node was last
//! known to be up to date; it is served without a leader too. Either may ask for a revision of the bucket that
//! the view must have: who has written, and was told the revision, reads it back from any node.
//!
//! What is dead by the leader's clock is dead for every later read, too: where anything of the bucket is over
//! and the log does not say so yet, the leader first appends that it is (a tick).
//!
//! Who may see a view is judged in it, by `kv::grant`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Node;
use super::link::{READ_INDEX, ReadIndex};
use crate::error::{Error, Missing, Result};
use crate::kv::{BucketId, BucketName, Get, SharedView, Transaction, store, transaction};
use crate::mutant::{self, Mutant};
use crate::raft::applied_index;

/// Rounds of a read whose state was replaced while it waited.
const READ_ATTEMPTS_MAX: u32 = 3;
/// How long a read waits for the revision that it asks for.
const REVISION_TIMEOUT: Duration = Duration::from_secs(2);

/// What a read asks of its view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Whether this node's own state will do, however old.
    pub stale: bool,
    /// The revision that the bucket must have.
    pub min_revision: Option<u64>,
}

impl Node {
    /// A linearizable view of a bucket.
    pub async fn read(&self, bucket: &BucketName) -> Result<Transaction> {
        let missing = || Error::not_found(Missing::Bucket, bucket.as_str());
        let (view, now) = self.linearizable_view().await?;
        let id = store::bucket_id(&*view, bucket)?.ok_or_else(missing)?;
        let txn = transaction::read_only(view, id, now)?.ok_or_else(missing)?;
        if !txn.will_lapse()? || mutant::is(Mutant::NoTick) {
            return Ok(txn);
        }
        self.tick(id, now).await?;
        // Its time is now at or after that of this read. What is over since then is not this read's matter.
        let (view, _) = self.linearizable_view().await?;
        let id = store::bucket_id(&*view, bucket)?.ok_or_else(missing)?;
        transaction::read_only(view, id, 0)?.ok_or_else(missing)
    }

    /// A view of a bucket as it is asked for; and its age, if it may be stale. [`Error::Behind`] where
    /// it does not get the revision in time.
    pub async fn read_with(
        &self,
        bucket: &BucketName,
        consistency: Consistency,
    ) -> Result<(Transaction, Option<Duration>)> {
        let Consistency { stale, min_revision } = consistency;
        if stale && mutant::is(Mutant::MinRevisionIgnored) {
            return self.read_stale(bucket).map(|(txn, age)| (txn, Some(age)));
        }
        if stale {
            self.reached(bucket, min_revision).await?;
            let (txn, age) = self.read_stale(bucket)?;
            return Ok((at_least(txn, min_revision)?, Some(age)));
        }
        let mut txn = self.read(bucket).await?;
        if min_revision.is_some_and(|asked| txn.read_revision() < asked) {
            self.reached(bucket, min_revision).await?;
            txn = self.read(bucket).await?;
        }
        Ok((at_least(txn, min_revision)?, None))
    }

    /// This node's own view of a bucket, and how long ago it was last known to be up to date.
    pub fn read_stale(&self, bucket: &BucketName) -> Result<(Transaction, Duration)> {
        let missing = || Error::not_found(Missing::Bucket, bucket.as_str());
        // Before the view: what is heard after it says nothing of it.
        let (age, view) = (self.state_age(), self.state().view());
        let id = store::bucket_id(&*view, bucket)?.ok_or_else(missing)?;
        let txn = transaction::read_only(view, id, 0)?.ok_or_else(missing)?;
        Ok((txn, age))
    }

    /// How long ago this node's state was last known to be up to date.
    #[must_use]
    pub fn state_age(&self) -> Duration {
        self.cluster().state_age()
    }

    /// Waits until this node has a revision of a bucket.
    pub(super) async fn reached(
        &self,
        bucket: &BucketName,
        min_revision: Option<u64>,
    ) -> Result<()> {
        let Some(asked) = min_revision else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + REVISION_TIMEOUT;
        let mut applies = self.cluster().applies();
        loop {
            // Before the look: what is applied after it wakes us.
            applies.borrow_and_update();
            let revision = revision(&self.state().latest(), bucket)?;
            if revision >= asked {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, applies.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(Error::Behind { revision, asked }),
            }
        }
    }

    /// A view that holds everything that was acknowledged before it was asked for, and the time of the
    /// read by the leader's clock.
    pub(super) async fn linearizable_view(&self) -> Result<(SharedView, u64)> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let node = self.clone();
            let ask = move || node.clone().read_index();
            let ReadIndex { index, now } = self.0.read_indexes.ask(ask).await?;
            self.0.cluster.applied(index).await?;
            // After the wait; and an installed snapshot may have replaced the state meanwhile.
            let view = self.0.state.view();
            if applied_index(&*view)? >= index {
                return Ok((view, now));
            }
        }
        Err(Error::NoLeader("this node's state is being replaced".to_owned()))
    }

    /// Asks the leader, which may be this node, how far the log must be applied.
    async fn read_index(self) -> Result<ReadIndex> {
        let leadership = *self.0.cluster.leadership().borrow();
        if mutant::is(Mutant::LocalRead) && leadership.own_term.is_some()
            || mutant::is(Mutant::FollowerRead) && leadership.own_term.is_none()
        {
            return Ok(ReadIndex { index: 0, now: self.now_ms() });
        }
        if leadership.own_term.is_some() {
            let (index, _) = self.0.cluster.read_index().await?;
            return Ok(ReadIndex { index, now: self.now_ms() });
        }
        self.heed_removal(self.ask_leader(READ_INDEX, &()).await)
    }

    /// Notes whether the leader takes this node for a member. Nobody sends a node that is removed the entry
    /// that says so.
    pub(super) fn heed_removal(&self, answer: Result<ReadIndex>) -> Result<ReadIndex> {
        match answer {
            Ok(index) => {
                self.0.removed.store(false, Ordering::Relaxed);
                Ok(index)
            }
            Err(Error::Forbidden(reason)) => {
                if !self.0.removed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(reason, "the leader does not take this node for a member");
                }
                Err(Error::NoLeader(reason))
            }
            Err(error) => Err(error),
        }
    }
}

/// The revision of a bucket; 0 where there is none of that name.
fn revision(state: &impl Get, bucket: &BucketName) -> Result<u64> {
    let Some(id): Option<BucketId> = store::bucket_id(state, bucket)? else { return Ok(0) };
    Ok(store::meta(state, id)?.map_or(0, |meta| meta.revision))
}

fn at_least(txn: Transaction, min_revision: Option<u64>) -> Result<Transaction> {
    match (min_revision, txn.read_revision()) {
        (Some(asked), revision) if revision < asked => Err(Error::Behind { revision, asked }),
        _ => Ok(txn),
    }
}
