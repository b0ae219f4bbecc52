//! Room: what all requests together may take of this node's memory.
//!
//! Each request has limits of its own, but many at once could still exhaust the process. So lists take
//! turns, each until it is read or cut; and bytes are counted node-wide: those of bodies as they
//! arrive, until the answer is made, and those of answers that were made elsewhere or beforehand, until
//! they are sent. Where there is no room a request is refused as overloaded, before anything came of
//! it. An answer is never refused: it may tell of what was done.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Most lists that are read or sent at a time; each holds about its first mebibyte.
const LISTS_MAX: usize = 32;
/// How long a list waits for its turn.
const LIST_WAIT: Duration = Duration::from_secs(2);
/// Most bytes of bodies and of answers at a time.
const BODY_BYTES_MAX: usize = 256 << 20;

/// What is left; shared by all requests of a node.
#[derive(Clone, Debug)]
pub(super) struct Room {
    lists: Arc<Semaphore>,
    list_wait: Duration,
    bodies: Arc<Semaphore>,
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
        let (lists, bodies) = (semaphore(lists), semaphore(body_bytes));
        Room { lists, list_wait: LIST_WAIT, bodies }
    }

    /// A list's turn, or an error when it does not come soon.
    pub(super) async fn list(&self) -> Result<OwnedSemaphorePermit> {
        let turn = self.lists.clone().acquire_owned();
        match tokio::time::timeout(self.list_wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Overloaded("too many lists are under way".to_owned())),
        }
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

    /// Counts bytes that are there already: as many of them as there is room for.
    pub(super) fn take(&self, bytes: usize) -> Taken {
        Taken { bodies: self.bodies.clone(), bytes: self.bodies.forget_permits(bytes) }
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    bodies: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.bodies.add_permits(self.bytes);
    }
}

/// A body whose bytes are counted until it is sent or dropped.
pub(super) fn holding(body: Body, taken: Taken) -> Body {
    Body::new(Holding { body, _taken: taken })
}

struct Holding {
    body: Body,
    _taken: Taken,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
        let first = room.list().await.unwrap();
        assert!(matches!(room.list().await, Err(Error::Overloaded(_))));
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.list().await.is_ok() }
        });
        tokio::time::sleep(room.list_wait / 4).await;
        drop(first);
        assert!(waiting.await.unwrap());
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
        assert_eq!(axum::body::to_bytes(body, 100).await.unwrap(), text);
        assert!(room.check().is_ok());
        drop(held);
        room.add(&mut None, 10).unwrap();
    }
}
