//! The threads: buckets take turns, and long jobs move out of the way.
//!
//! A thread needs a place in the fast lane to take a bucket. A job that runs long gives its place back
//! and goes on in the slow lane, so that another thread serves the other buckets. The slow lane is
//! bounded; where it is full, a long job is refused rather than let stop the node.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::chain::Chain;
use super::lock;
use crate::error::{Error, Result};

pub(super) struct Pool {
    lanes: Mutex<Lanes>,
    wake: Condvar,
    fast_max: usize,
    slow_max: usize,
}

#[derive(Default)]
struct Lanes {
    /// Buckets with something to do, each at most once.
    ready: VecDeque<Arc<Chain>>,
    fast: usize,
    slow: usize,
    stopped: bool,
}

/// Which lane a thread is in; given back by [`Pool::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Fast,
    Slow,
}

impl Pool {
    pub(super) fn new(fast_max: usize, slow_max: usize) -> Self {
        Pool { lanes: Mutex::default(), wake: Condvar::new(), fast_max, slow_max }
    }

    /// As many as can be busy at a time.
    pub(super) fn threads(&self) -> usize {
        self.fast_max + self.slow_max
    }

    /// Puts a bucket at the end of the row.
    pub(super) fn schedule(&self, chain: Arc<Chain>) {
        lock(&self.lanes).ready.push_back(chain);
        self.wake.notify_one();
    }

    /// Waits for a bucket and a place in the fast lane; `None` once stopped.
    pub(super) fn enter(&self) -> Option<Arc<Chain>> {
        let mut lanes = lock(&self.lanes);
        loop {
            if lanes.stopped {
                return None;
            }
            if lanes.fast < self.fast_max
                && let Some(chain) = lanes.ready.pop_front()
            {
                lanes.fast += 1;
                return Some(chain);
            }
            lanes = self.wake.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Moves the calling thread to the slow lane, where there is room.
    pub(super) fn slow_down(&self) -> Result<()> {
        let mut lanes = lock(&self.lanes);
        if lanes.slow >= self.slow_max {
            let busy = self.slow_max;
            return Err(Error::Overloaded(format!("{busy} long scripts are running already")));
        }
        lanes.slow += 1;
        lanes.fast -= 1;
        drop(lanes);
        self.wake.notify_one();
        Ok(())
    }

    /// Gives the place back.
    pub(super) fn leave(&self, lane: Lane) {
        let mut lanes = lock(&self.lanes);
        match lane {
            Lane::Fast => lanes.fast -= 1,
            Lane::Slow => lanes.slow -= 1,
        }
        drop(lanes);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        lock(&self.lanes).stopped = true;
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::BucketId;

    fn chain(number: u64) -> Arc<Chain> {
        Arc::new(Chain::new(BucketId(number)))
    }

    #[test]
    fn a_long_job_gives_its_place_to_another_bucket() {
        let pool = Pool::new(1, 1);
        pool.schedule(chain(1));
        pool.schedule(chain(2));
        assert_eq!(pool.enter().unwrap().bucket, BucketId(1));
        pool.slow_down().unwrap();
        // Would wait for ever if the place were still taken.
        assert_eq!(pool.enter().unwrap().bucket, BucketId(2));
        assert!(matches!(pool.slow_down(), Err(Error::Overloaded(_))));
        pool.leave(Lane::Slow);
        pool.slow_down().unwrap();
    }

    #[test]
    fn stopping_wakes_everybody() {
        let pool = Arc::new(Pool::new(1, 0));
        let waiting = std::thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.enter().is_none()
        });
        pool.stop();
        assert!(waiting.join().unwrap());
    }
}
