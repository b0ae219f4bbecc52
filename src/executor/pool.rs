//! The threads: buckets take turns, and long jobs move out of the way.
//!
//! A thread needs a place in the fast lane to take a bucket. A job that runs long gives its place back
//! and goes on in the slow lane, so that a spare thread takes over the other buckets. The slow lane is
//! bounded; where it is full, a long job is refused rather than let stop the node.
//!
//! On few cores a place is not enough: a script that computes for 50 ms takes a core from everything else
//! of the node. So a thread in the slow lane has less of a claim on the processor, as a process under
//! `nice` has. It cannot take that back without privileges, and ends with its turn.
//!
//! Waking a thread is a system call, whether one waits or not. So it is counted who waits, and only
//! as many threads as the fast lane has places take turns: work stays where the caches are warm.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::chain::Chain;
use super::lock;
use crate::error::{Error, Result};

pub(super) struct Pool {
    lanes: Mutex<Lanes>,
    /// For threads of the fast lane that wait for a bucket.
    work: Condvar,
    /// For threads that wait until somebody moves to the slow lane.
    spare: Condvar,
    fast_max: usize,
    slow_max: usize,
}

#[derive(Default)]
struct Lanes {
    /// Buckets with something to do, each at most once.
    ready: VecDeque<Arc<Chain>>,
    /// Threads that belong to the fast lane, and those of them that wait.
    fast: usize,
    waiting: usize,
    slow: usize,
    stopped: bool,
}

/// Which lane a thread is in when its turn ends; told to [`Pool::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Fast,
    Slow,
}

/// How far a thread in the slow lane steps back: a tenth of the share of the others, where they want theirs.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Leaves the processor to other threads where they want it. Elsewhere than on Linux, a priority is the
/// whole process's.
pub(super) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a long script keeps its priority");
    }
}

impl Pool {
    pub(super) fn new(fast_max: usize, slow_max: usize) -> Self {
        let (work, spare) = (Condvar::new(), Condvar::new());
        Pool { lanes: Mutex::default(), work, spare, fast_max, slow_max }
    }

    /// As many as can be busy at a time.
    pub(super) fn threads(&self) -> usize {
        self.fast_max + self.slow_max
    }

    /// Puts a bucket at the end of the row.
    pub(super) fn schedule(&self, chain: Arc<Chain>) {
        let mut lanes = lock(&self.lanes);
        lanes.ready.push_back(chain);
        let somebody_waits = lanes.waiting > 0;
        drop(lanes);
        if somebody_waits {
            self.work.notify_one();
        }
    }

    /// Waits for a place in the fast lane; false once stopped.
    pub(super) fn join(&self) -> bool {
        let mut lanes = lock(&self.lanes);
        while !lanes.stopped && lanes.fast >= self.fast_max {
            lanes = self.spare.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        lanes.fast += 1;
        !lanes.stopped
    }

    /// Waits for a bucket, in the fast lane; `None` once stopped.
    pub(super) fn next(&self) -> Option<Arc<Chain>> {
        let mut lanes = lock(&self.lanes);
        loop {
            if lanes.stopped {
                return None;
            }
            if let Some(chain) = lanes.ready.pop_front() {
                return Some(chain);
            }
            lanes.waiting += 1;
            lanes = self.work.wait(lanes).unwrap_or_else(PoisonError::into_inner);
            lanes.waiting -= 1;
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
        self.spare.notify_one();
        Ok(())
    }

    /// Ends a turn; whether the thread is still in the fast lane, or must join it again.
    pub(super) fn leave(&self, lane: Lane) -> bool {
        if lane == Lane::Slow {
            lock(&self.lanes).slow -= 1;
        }
        lane == Lane::Fast
    }

    pub(super) fn stop(&self) {
        lock(&self.lanes).stopped = true;
        self.work.notify_all();
        self.spare.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::BucketId;

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_thread_that_steps_back_has_less_priority() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let there = std::thread::spawn(move || {
            step_back();
            priority()
        });
        assert_eq!(there.join().unwrap(), NICE);
        assert_eq!(priority(), before);
    }

    fn chain(number: u64) -> Arc<Chain> {
        Arc::new(Chain::new(BucketId(number)))
    }

    #[test]
    fn a_long_job_gives_its_place_to_another_bucket() {
        let pool = Pool::new(1, 1);
        pool.schedule(chain(1));
        pool.schedule(chain(2));
        assert!(pool.join());
        assert_eq!(pool.next().unwrap().bucket, BucketId(1));
        pool.slow_down().unwrap();
        // Would wait for ever if the place were still taken.
        assert!(pool.join());
        assert_eq!(pool.next().unwrap().bucket, BucketId(2));
        assert!(matches!(pool.slow_down(), Err(Error::Overloaded(_))));
        assert!(!pool.leave(Lane::Slow));
        pool.slow_down().unwrap();
        assert!(pool.leave(Lane::Fast));
    }

    #[test]
    fn stopping_wakes_everybody() {
        let pool = Arc::new(Pool::new(1, 1));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let pool = Arc::clone(&pool);
                std::thread::spawn(move || !pool.join() || pool.next().is_none())
            })
            .collect();
        pool.stop();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    }
}
