//! Room: what all requests together may take of this node's memory.
//!
//! Each request has limits of its own, but many at once could still exhaust the process. So lists take
//! turns, of which no bucket has more than its share, and watches have so many places, each until it is
//! read or cut; and bytes are counted node-wide: those of bodies as they arrive, until the answer is made,
//! and those of large answers that are there as a whole, wherever they were made, until they are sent.
//! Where there is no room a request is refused as overloaded, before anything came of it. An answer is
//! never refused: it may tell of what was done.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::kv::BucketId;

/// Most lists that are read or sent at a time; each holds about its first mebibyte.
const LISTS_MAX: usize = 32;
/// One bucket's lists have at most this part of the turns.
const BUCKET_SHARE: usize = 4;
/// How long a list waits for its turn.
const LIST_WAIT: Duration = Duration::from_secs(2);
/// Most watches at a time: each has a task, and what it was told and has not sent.
const WATCHES_MAX: usize = 1024;
/// Most bytes of bodies and of answers at a time.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Answers that are no longer than this are not counted.
const ANSWER_BYTES_FREE: u64 = 64 << 10;

/// What is left; shared by all requests of a node.
#[derive(Clone, Debug)]
pub(super) struct Room {
    lists: Arc<Semaphore>,
    shares: Shares,
    list_wait: Duration,
    bodies: Arc<Semaphore>,
    watches: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        Room::new(LISTS_MAX, BODY_BYTES_MAX)
    }
}

impl Room {
    /// Room for so many lists, and so many bytes of bodies.
    pub(super) fn new(lists: usize, body_bytes: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Room {
            shares: Shares::new((lists / BUCKET_SHARE).max(1)),
            lists: semaphore(lists),
            list_wait: LIST_WAIT,
            bodies: semaphore(body_bytes),
            watches: semaphore(WATCHES_MAX),
        }
    }

    /// The turn of a bucket's list, or an error when it does not come soon. Only for who may have the list:
    /// a turn is waited for and held, and what strangers hold shuts others out.
    pub(super) async fn list(&self, bucket: BucketId) -> Result<Turn> {
        let turn = async {
            let share = self.shares.of(bucket);
            let of_bucket = share.turns.clone().acquire_owned().await?;
            let turn = self.lists.clone().acquire_owned().await?;
            Ok::<_, AcquireError>(Turn { _permits: [turn, of_bucket], _share: share })
        };
        match tokio::time::timeout(self.list_wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Overloaded("too many lists are under way".to_owned())),
        }
    }

    /// A watch's place, for as long as it lasts; at once or not at all.
    pub(super) fn watch(&self) -> Result<OwnedSemaphorePermit> {
        self.watches.clone().try_acquire_owned().map_err(|_| {
            Error::Overloaded(format!("{WATCHES_MAX} watches are open on this node: ask another"))
        })
    }

    /// Adds bytes of a body to what it holds; at once or not at all.
    pub(super) fn add(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<()> {
        let full = || Error::Overloaded("too many bytes of bodies are under way".to_owned());
        let count = u32::try_from(bytes).map_err(|_| full())?;
        let more = self.bodies.clone().try_acquire_many_owned(count).map_err(|_| full())?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

impl Room {
    /// Fails where there is no room for a byte: for what will bring bytes that cannot be refused.
    pub(super) fn check(&self) -> Result<()> {
        match self.bodies.available_permits() {
            0 => Err(Error::Overloaded("too many bytes of bodies are under way".to_owned())),
            _ => Ok(()),
        }
    }

    /// Counts a large answer, if it is there as a whole, until it is sent: as many of its bytes as there is
    /// room for.
    pub(super) fn hold(&self, response: Response) -> Response {
        let bytes = http_body::Body::size_hint(response.body()).exact();
        match bytes.filter(|bytes| *bytes > ANSWER_BYTES_FREE).map(usize::try_from) {
            Some(Ok(bytes)) => response.map(|body| holding(body, self.take(bytes))),
            _ => response,
        }
    }

    fn take(&self, bytes: usize) -> Taken {
        Taken { bodies: self.bodies.clone(), bytes: self.bodies.forget_permits(bytes) }
    }
}

/// The right to read and send a list, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    // Dropped before the share: the last of a bucket forgets its turns.
    _permits: [OwnedSemaphorePermit; 2],
    _share: Share,
}

/// The turns of each bucket that has lists which wait or are under way: no more buckets than lists.
#[derive(Clone, Debug)]
struct Shares {
    turns: usize,
    buckets: Arc<Mutex<HashMap<BucketId, Bucket>>>,
}

#[derive(Debug)]
struct Bucket {
    turns: Arc<Semaphore>,
    lists: usize,
}

impl Shares {
    fn new(turns: usize) -> Self {
        Shares { turns, buckets: Arc::default() }
    }

    fn of(&self, bucket: BucketId) -> Share {
        let mut buckets = self.buckets();
        let new = || Bucket { turns: Arc::new(Semaphore::new(self.turns)), lists: 0 };
        let entry = buckets.entry(bucket).or_insert_with(new);
        entry.lists += 1;
        Share { shares: self.clone(), bucket, turns: entry.turns.clone() }
    }

    fn buckets(&self) -> MutexGuard<'_, HashMap<BucketId, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A list's claim to a turn of its bucket's.
#[derive(Debug)]
struct Share {
    shares: Shares,
    bucket: BucketId,
    turns: Arc<Semaphore>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut buckets = self.shares.buckets();
        if let Some(bucket) = buckets.get_mut(&self.bucket) {
            bucket.lists -= 1;
            if bucket.lists == 0 {
                buckets.remove(&self.bucket);
            }
        }
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
struct Taken {
    bodies: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.bodies.add_permits(self.bytes);
    }
}

/// A body whose bytes are counted until they are sent or dropped. A connection takes a whole body at
/// once and is done with it, but not with its bytes: so these hold on to their count themselves.
fn holding(body: Body, taken: Taken) -> Body {
    Body::new(Holding { body, taken: Arc::new(taken) })
}

struct Holding {
    body: Body,
    taken: Arc<Taken>,
}

struct Held {
    bytes: Bytes,
    _taken: Arc<Taken>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let taken = &self.taken;
        let held = |bytes| Bytes::from_owner(Held { bytes, _taken: taken.clone() });
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lists_take_turns_and_give_up() {
        let room = Room { list_wait: Duration::from_millis(200), ..Room::new(1, 0) };
        let first = room.list(BucketId(1)).await.unwrap();
        assert!(matches!(room.list(BucketId(2)).await, Err(Error::Overloaded(_))));
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.list(BucketId(1)).await.is_ok() }
        });
        tokio::time::sleep(room.list_wait / 4).await;
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_bucket_has_a_quarter_of_the_turns() {
        let room = Room { list_wait: Duration::from_millis(50), ..Room::new(8, 0) };
        let (one, other) = (BucketId(1), BucketId(2));
        let mut turns = vec![room.list(one).await.unwrap(), room.list(one).await.unwrap()];
        assert!(matches!(room.list(one).await, Err(Error::Overloaded(_))));
        turns.push(room.list(other).await.unwrap());
        turns.remove(0);
        turns.push(room.list(one).await.unwrap());
        assert!(matches!(room.list(one).await, Err(Error::Overloaded(_))));
        assert_eq!(room.shares.buckets().len(), 2);
        drop(turns);
        assert!(room.shares.buckets().is_empty(), "nothing is left of who gave up or is done");
        assert_eq!(room.lists.available_permits(), 8);
    }

    #[test]
    fn watches_have_so_many_places() {
        let room = Room::default();
        let mut places: Vec<_> = (0..WATCHES_MAX).map(|_| room.watch().unwrap()).collect();
        assert!(matches!(room.watch(), Err(Error::Overloaded(_))));
        places.pop();
        assert!(room.watch().is_ok());
    }

    #[test]
    fn bytes_are_counted_until_they_are_let_go() {
        let room = Room::new(0, 10);
        let (mut one, mut two) = (None, None);
        room.add(&mut one, 4).unwrap();
        room.add(&mut one, 4).unwrap();
        assert!(matches!(room.add(&mut two, 3), Err(Error::Overloaded(_))));
        room.add(&mut two, 2).unwrap();
        drop(one);
        room.add(&mut two, 8).unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_counted_until_it_is_sent_and_never_refused() {
        let room = Room::new(0, 10);
        let mut held = None;
        room.add(&mut held, 4).unwrap();
        let text = Bytes::from_static(b"more than fits");
        let body = holding(Body::from(text.clone()), room.take(text.len()));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(14));
        assert!(matches!(room.check(), Err(Error::Overloaded(_))));
        assert!(matches!(room.add(&mut None, 1), Err(Error::Overloaded(_))));
        // The body is used up, its bytes are still to be sent.
        let mut sent = axum::body::to_bytes(body, 100).await.unwrap();
        assert_eq!(sent, text);
        drop(sent.split_to(10));
        assert!(matches!(room.check(), Err(Error::Overloaded(_))));
        drop(sent);
        assert!(room.check().is_ok());
        drop(held);
        room.add(&mut None, 10).unwrap();
    }

    #[test]
    fn a_small_answer_costs_nothing() {
        let room = Room::new(0, 1 << 20);
        let free = usize::try_from(ANSWER_BYTES_FREE).unwrap();
        let held = [free, free + 1].map(|bytes| {
            let held = room.hold(Response::new(Body::from(vec![b'x'; bytes])));
            ((1 << 20) - room.bodies.available_permits(), held).0
        });
        assert_eq!(held, [0, free + 1]);
        assert_eq!(room.bodies.available_permits(), 1 << 20);
    }
}
