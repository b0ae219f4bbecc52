//! When this node last heard its leader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The moment of the last message of the leader that was accepted; that of the start, before the first.
pub(super) struct Heard {
    start: Instant,
    /// Milliseconds after the start.
    last_ms: AtomicU64,
}

impl Heard {
    pub(super) fn new() -> Self {
        Heard { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// A message was accepted now.
    pub(super) fn note(&self) {
        self.last_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
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
    fn age_is_that_of_the_last_message() {
        let mut heard = Heard::new();
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
