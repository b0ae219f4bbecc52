//! When this node last heard its leader, and whether it must respect it although its lease was forgotten.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::types::Vote;

/// The moment of the last message of the leader that was accepted; that of the start, before the first.
pub(super) struct Heard {
    start: Instant,
    /// How long a silent leader is respected.
    lease: Duration,
    /// Milliseconds after the start.
    last_ms: AtomicU64,
    /// Messages so far.
    count: AtomicU64,
    /// Whose lease openraft was made to forget, and how many messages had come by then.
    forgotten: Mutex<Option<(Vote, u64)>>,
}

impl Heard {
    pub(super) fn new(lease: Duration) -> Self {
        Heard {
            start: Instant::now(),
            lease,
            last_ms: AtomicU64::new(0),
            count: AtomicU64::new(0),
            forgotten: Mutex::default(),
        }
    }

    /// A message was accepted now.
    pub(super) fn note(&self) {
        self.last_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// How many messages were accepted so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// openraft forgets the lease of the leader with this vote, after so many messages.
    pub(super) fn forget(&self, vote: Vote, count: u64) {
        *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner) = Some((vote, count));
    }

    /// Whether the leader with this vote, which is the newest, has been heard since its lease was forgotten, and within
    /// a lease: openraft does not give it back, and would vote against a leader that is well.
    pub(super) fn is_back(&self, vote: Vote) -> bool {
        let forgotten = *self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        forgotten.is_some_and(|(then, count)| then == vote && self.count() > count)
            && self.age() < self.lease
    }

    /// How long ago that was.
    pub(super) fn age(&self) -> Duration {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        self.start.elapsed().saturating_sub(Duration::from_millis(last_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_heard_again_is_respected_again() {
        let mut heard = Heard::new(Duration::from_secs(60));
        let (vote, newer) = (Vote::new_committed(1, 7), Vote::new_committed(2, 8));
        heard.note();
        assert!(!heard.is_back(vote), "nothing was forgotten");
        heard.forget(vote, heard.count());
        assert!(!heard.is_back(vote), "not heard since");
        heard.note();
        assert!(heard.is_back(vote));
        assert!(!heard.is_back(newer), "another has its own lease");
        heard.lease = Duration::ZERO;
        assert!(!heard.is_back(vote), "silent for as long as a lease");
    }

    #[test]
    fn age_is_that_of_the_last_message() {
        let mut heard = Heard::new(Duration::from_secs(60));
        heard.start -= Duration::from_secs(60);
        assert!(heard.age() >= Duration::from_secs(60), "never heard: since the start");
        heard.note();
        assert!(heard.age() < Duration::from_secs(30));
        // What was noted before is not undone by who comes late.
        let last = heard.last_ms.swap(u64::MAX / 2, Ordering::Relaxed);
        heard.note();
        assert!(last >= 60_000 && heard.age().is_zero());
    }
}
