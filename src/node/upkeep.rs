//! What the database does by itself: time passes in its buckets, and what is over goes.
//!
//! Both are commands of the bucket like any other, made on the leader. A tick says that it is later; a read asks
//! for one where something is over that the log does not say is. A sweep removes rows whose time is over,
//! some hundred at a time; nobody waits for it, for a dead row is not shown.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::Node;
use crate::error::{Failure, Result};
use crate::executor::{MORE, Request, Upkeep};
use crate::kv::{BucketId, View, store};

/// Between two looks for what is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Between two looks for buckets that are gone.
const RECLAIM_EVERY: Duration = Duration::from_secs(2);
/// Buckets looked at each time; the next look goes on behind them.
const LOOK_BUCKETS_MAX: usize = 10_000;
/// Sweeps of one bucket at each look: others wait.
const SWEEPS_MAX: usize = 20;
/// Buckets that are swept at a time: one whose scripts run long keeps none of the others.
const SWEEPS_AT_A_TIME: usize = 64;

/// What a follower asks the leader for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct TickRequest {
    pub(super) bucket: BucketId,
    /// In milliseconds since 1970.
    pub(super) until: u64,
}

impl Node {
    /// Has the leader, which may be this node, say in a bucket's log that it is this late.
    pub(super) async fn tick(&self, bucket: BucketId, until: u64) -> Result<()> {
        let own = self.0.cluster.leadership().borrow().own_term.is_some();
        match own {
            true => self.own_tick(TickRequest { bucket, until }).await,
            false => self.ask_leader("/peer/tick", &TickRequest { bucket, until }).await,
        }
    }

    pub(super) async fn own_tick(&self, TickRequest { bucket, until }: TickRequest) -> Result<()> {
        self.ready().await?;
        let tick = Request::Upkeep(Upkeep::Tick { until });
        self.run(bucket, tick, None).await.map(drop).map_err(|failure| failure.error)
    }

    /// Sweeps, as long as this node runs; only a leader finds anything to do.
    pub(super) async fn sweep(self) {
        let mut from = BucketId(0);
        while !*self.0.shutting_down.borrow() {
            tokio::time::sleep(SWEEP_EVERY).await;
            if self.0.ready_term.borrow().is_none() {
                continue;
            }
            let (state, now) = (self.0.state.clone(), self.now_ms());
            let look = tokio::task::spawn_blocking(move || due(&*state.view(), from, now)).await;
            match look {
                Ok(Ok((buckets, next))) => {
                    from = next;
                    let sweeps = stream::iter(buckets);
                    sweeps.for_each_concurrent(SWEEPS_AT_A_TIME, |id| self.sweep_bucket(id)).await;
                }
                Ok(Err(error)) => self.heed(&error),
                Err(error) => tracing::error!(%error, "a sweep failed"),
            }
        }
    }

    /// Gives the space of deleted buckets back, on every node by itself, as long as this one runs.
    pub(super) async fn reclaim(self) {
        while !*self.0.shutting_down.borrow() {
            let state = self.0.state.clone();
            let reclaimed = tokio::task::spawn_blocking(move || state.reclaim()).await;
            if !matches!(reclaimed, Ok(true)) {
                tokio::time::sleep(RECLAIM_EVERY).await;
            }
        }
    }

    async fn sweep_bucket(&self, bucket: BucketId) {
        for _ in 0..SWEEPS_MAX {
            match self.run(bucket, Request::Upkeep(Upkeep::Sweep), None).await {
                Ok(answer) if answer.body == MORE => {}
                Ok(_) => return,
                // Settled by the next look, whoever leads then.
                Err(Failure { error, .. }) => return tracing::debug!(%error, "a sweep waits"),
            }
        }
    }
}

/// The buckets from a number on in which something is over, and where the next look begins.
fn due(view: &dyn View, from: BucketId, now: u64) -> Result<(Vec<BucketId>, BucketId)> {
    let looked_at = store::buckets_from(view, from, LOOK_BUCKETS_MAX)?;
    let next = match looked_at.last() {
        Some((last, _)) if looked_at.len() == LOOK_BUCKETS_MAX => BucketId(last.0 + 1),
        _ => BucketId(0),
    };
    let mut due = Vec::new();
    for (bucket, meta) in looked_at {
        if meta.counts.expiring > 0
            && store::first_expiry(view, bucket)?.is_some_and(|at| at <= now)
        {
            due.push(bucket);
        }
    }
    Ok((due, next))
}
