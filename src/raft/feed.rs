//! What was applied, told to those who follow a bucket.
//!
//! The state machine tells of each applied command once views hold it. A subscriber has a queue of its
//! own with a limit; where it is full, the subscriber is told nothing more until it asks anew, and
//! reads in the log what it missed. So nobody who follows holds up applying, and nothing is kept for
//! those who do not read.
//!
//! Invariants:
//! - A command that no view showed when a subscription began or was renewed, is in its queue or the
//!   subscription has lapsed: whoever takes a view *after* that misses nothing.
//! - A queue is in log order and without gaps.
//! - Where nobody subscribes, applying pays a fence and a load for a batch.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::log_store::Logged;
use crate::kv::BucketId;

/// Commands in a queue.
const QUEUE_COMMANDS_MAX: usize = 8192;
/// Bytes of commands in a queue; one command may be larger.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of commands in all queues.
const BYTES_MAX: usize = 128 << 20;
/// What a command counts for beside its bytes.
const COMMAND_BYTES: usize = 256;

/// Where applied commands are told. Cheap to clone.
#[derive(Clone, Default)]
pub struct Feed(Arc<Shared>);

#[derive(Default)]
struct Shared {
    subscriptions: AtomicUsize,
    /// Bytes in all queues.
    bytes: AtomicUsize,
    buckets: Mutex<BTreeMap<BucketId, Vec<Arc<Queue>>>>,
}

#[derive(Default)]
struct Queue {
    held: Mutex<Held>,
    news: Notify,
}

#[derive(Default)]
struct Held {
    commands: VecDeque<Arc<Logged>>,
    bytes: usize,
    lapsed: bool,
}

/// The applied commands of a bucket, from some moment on.
pub struct Subscription {
    shared: Arc<Shared>,
    bucket: BucketId,
    queue: Arc<Queue>,
}

impl Feed {
    /// Follows a bucket from now on.
    #[must_use]
    pub fn subscribe(&self, bucket: BucketId) -> Subscription {
        let queue = Arc::new(Queue::default());
        self.0.buckets().entry(bucket).or_default().push(Arc::clone(&queue));
        self.0.subscriptions.fetch_add(1, Ordering::SeqCst);
        // With the fence of `is_watched`: who finds nobody here has committed before any view that
        // is taken from here on.
        fence(Ordering::SeqCst);
        Subscription { shared: Arc::clone(&self.0), bucket, queue }
    }

    /// Whether anybody follows anything; to be asked after what is to be told was committed.
    pub(super) fn is_watched(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.subscriptions.load(Ordering::Relaxed) > 0
    }

    /// Tells of applied commands, in the order of the log.
    pub(super) fn tell(&self, applied: impl IntoIterator<Item = Logged>) {
        let buckets = self.0.buckets();
        for logged in applied {
            let Some(queues) = buckets.get(&logged.command.bucket) else { continue };
            let logged = Arc::new(logged);
            queues.iter().for_each(|queue| queue.push(&self.0.bytes, &logged));
        }
    }

    /// Ends what all subscribers are told: the state went on by other means than commands.
    pub(super) fn lapse(&self) {
        let buckets = self.0.buckets();
        buckets.values().flatten().for_each(|queue| queue.clear(&self.0.bytes, true));
    }
}

impl Shared {
    fn buckets(&self) -> MutexGuard<'_, BTreeMap<BucketId, Vec<Arc<Queue>>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(logged: &Logged) -> usize {
    COMMAND_BYTES + logged.bytes
}

impl Queue {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, all_bytes: &AtomicUsize, logged: &Arc<Logged>) {
        let (mut held, weight) = (self.held(), weight(logged));
        if held.lapsed {
            return;
        }
        let full = held.commands.len() >= QUEUE_COMMANDS_MAX
            || held.bytes + weight > QUEUE_BYTES_MAX
            || all_bytes.load(Ordering::Relaxed) + weight > BYTES_MAX;
        if full && !held.commands.is_empty() {
            drop(held);
            return self.clear(all_bytes, true);
        }
        held.commands.push_back(Arc::clone(logged));
        held.bytes += weight;
        all_bytes.fetch_add(weight, Ordering::Relaxed);
        drop(held);
        self.news.notify_one();
    }

    fn pop(&self, all_bytes: &AtomicUsize) -> Option<Arc<Logged>> {
        let mut held = self.held();
        let logged = held.commands.pop_front()?;
        held.bytes -= weight(&logged);
        all_bytes.fetch_sub(weight(&logged), Ordering::Relaxed);
        Some(logged)
    }

    /// Forgets what is queued.
    fn clear(&self, all_bytes: &AtomicUsize, lapsed: bool) {
        let mut held = self.held();
        all_bytes.fetch_sub(held.bytes, Ordering::Relaxed);
        *held = Held { lapsed, ..Held::default() };
        drop(held);
        self.news.notify_one();
    }
}

impl Subscription {
    /// The next command that was applied; `None` where the subscription has lapsed: what comes next is
    /// in the log, and it must be renewed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Logged>> {
        loop {
            if let Some(logged) = self.queue.pop(&self.shared.bytes) {
                return Some(logged);
            }
            if self.queue.held().lapsed {
                return None;
            }
            self.queue.news.notified().await;
        }
    }

    /// Begins anew: forgets what is queued, and follows from now on.
    pub fn renew(&mut self) {
        self.queue.clear(&self.shared.bytes, false);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut buckets = self.shared.buckets();
        if let Some(queues) = buckets.get_mut(&self.bucket) {
            queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
            if queues.is_empty() {
                buckets.remove(&self.bucket);
            }
        }
        drop(buckets);
        self.queue.clear(&self.shared.bytes, true);
        self.shared.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::kv::{Command, CommandId, Effect};

    fn logged(bucket: u64, index: u64, bytes: usize) -> Logged {
        let id = |seq| CommandId { term: 1, seq };
        let (bucket, effect) = (BucketId(bucket), Effect::Write(Vec::new()));
        let (prev, id) = (id(index - 1), id(index));
        let command = Command { bucket, prev, id, now: 0, seed: 0, effect };
        Logged { term: 1, index, bytes, command }
    }

    /// What is there at once: an index, a lapse, or nothing.
    fn next(subscription: &mut Subscription) -> Option<Option<u64>> {
        let next = subscription.next().now_or_never()?;
        Some(next.map(|logged| logged.index))
    }

    #[test]
    fn each_is_told_of_its_bucket_only_while_it_is_there() {
        let feed = Feed::default();
        assert!(!feed.is_watched());
        let (mut one, mut two) = (feed.subscribe(BucketId(1)), feed.subscribe(BucketId(2)));
        let mut twin = feed.subscribe(BucketId(1));
        assert!(feed.is_watched());
        feed.tell([logged(1, 10, 5), logged(2, 11, 5), logged(3, 12, 5), logged(1, 13, 5)]);
        for one in [&mut one, &mut twin] {
            assert_eq!([next(one), next(one), next(one)], [Some(Some(10)), Some(Some(13)), None]);
        }
        assert_eq!([next(&mut two), next(&mut two)], [Some(Some(11)), None]);
        drop((one, two, twin));
        assert!(!feed.is_watched() && feed.0.buckets().is_empty());
    }

    #[test]
    fn a_full_queue_lapses_until_it_is_renewed_and_keeps_nothing() {
        let feed = Feed::default();
        let mut slow = feed.subscribe(BucketId(1));
        let mut quick = feed.subscribe(BucketId(1));
        for index in 1..=QUEUE_COMMANDS_MAX as u64 + 1 {
            feed.tell([logged(1, index, 0)]);
            assert_eq!(next(&mut quick), Some(Some(index)));
        }
        assert_eq!(next(&mut slow), Some(None));
        feed.tell([logged(1, 90_000, 0)]);
        assert_eq!(next(&mut slow), Some(None), "as long as it is not renewed");
        slow.renew();
        feed.tell([logged(1, 90_001, 0)]);
        assert_eq!([next(&mut slow), next(&mut slow)], [Some(Some(90_001)), None]);
        assert_eq!(next(&mut quick), Some(Some(90_000)));
        drop((slow, quick));
        assert_eq!(feed.0.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_are_limited_but_one_command_always_fits() {
        let feed = Feed::default();
        let mut subscription = feed.subscribe(BucketId(1));
        feed.tell([logged(1, 1, QUEUE_BYTES_MAX * 2)]);
        assert_eq!(next(&mut subscription), Some(Some(1)));
        feed.tell([logged(1, 2, QUEUE_BYTES_MAX / 2), logged(1, 3, QUEUE_BYTES_MAX / 2)]);
        assert_eq!(next(&mut subscription), Some(None));
        assert_eq!(feed.0.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_installed_snapshot_is_a_lapse_for_all() {
        let feed = Feed::default();
        let mut subscription = feed.subscribe(BucketId(1));
        feed.tell([logged(1, 1, 0)]);
        feed.lapse();
        assert_eq!(next(&mut subscription), Some(None));
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let feed = Feed::default();
        let mut subscription = feed.subscribe(BucketId(1));
        let waiting = tokio::spawn(async move { subscription.next().await.map(|l| l.index) });
        tokio::task::yield_now().await;
        feed.tell([logged(1, 7, 0)]);
        assert_eq!(waiting.await.unwrap(), Some(7));
    }
}
