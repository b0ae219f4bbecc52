//! The lanes: buckets take turns, and long jobs move out of the way.
//!
//! A thread needs a place in the fast lane to take a bucket. A job that takes long steps *aside*: it gives its
//! thread's place to another. One that has also computed for long, rather than waited for the disk or for a core,
//! takes its thread to the *slow lane* for ever: from then on the thread has a lower priority, which nobody but
//! root can raise again. A bucket whose next job is known to compute for long ([`super::known`]) is handed to the
//! slow lane before the job begins. So only the first runs of a script compute beside the node's other threads as
//! their equals, and cost a machine with its compiled scripts.
//!
//! How many long jobs run is bounded, and how many buckets wait for the slow lane; beyond that, a long job is refused
//! rather than let stop the node. A bucket stays in order wherever it is: it is in one row, or taken by one thread.
//!
//! Threads are started by the keeper ([`super::threads`]), where a lane lacks one. At most so many exist: the places of
//! the fast lane, and twice the long jobs that may run (threads aside or spare, and those of the slow lane).
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
    /// For threads that wait for a place in the fast lane.
    place: Condvar,
    /// For threads of the slow lane that wait for a bucket.
    slow_work: Condvar,
    /// For the keeper, who waits until a lane lacks a thread.
    vacancy: Condvar,
    fast_max: usize,
    slow_max: usize,
}

#[derive(Default)]
struct Lanes {
    /// Buckets with something to do, each in at most one row.
    ready: VecDeque<Arc<Chain>>,
    /// Those whose next job is known to compute for long.
    slow_ready: VecDeque<Arc<Chain>>,
    /// Threads that have a place in the fast lane, and those of them that wait.
    fast: usize,
    waiting: usize,
    /// Threads that gave their place away: still running the job, or waiting for a place.
    aside: usize,
    spare: usize,
    /// Threads of the slow lane, and those of them that run a job.
    slow: usize,
    slow_running: usize,
    stopped: bool,
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Fast,
    /// Its job takes long and gave its place away; it may have one again when the job is over.
    Aside,
    /// Its priority is lower, for ever.
    Slow,
}

impl Pool {
    pub(super) fn new(fast_max: usize, slow_max: usize) -> Self {
        Pool {
            lanes: Mutex::default(),
            work: Condvar::new(),
            place: Condvar::new(),
            slow_work: Condvar::new(),
            vacancy: Condvar::new(),
            fast_max,
            slow_max,
        }
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

    /// Puts a bucket at the end of the slow lane's row, where there is room. Whoever had it has no part in it any more.
    pub(super) fn hand_over(&self, chain: Arc<Chain>) -> Result<()> {
        let mut lanes = lock(&self.lanes);
        // As many may wait as run: none waits for much longer than one turn of another.
        if lanes.slow_ready.len() >= self.slow_max {
            return Err(self.full());
        }
        lanes.slow_ready.push_back(chain);
        let lacking = lanes.lacks_slow(self.slow_max);
        drop(lanes);
        self.slow_work.notify_one();
        if lacking {
            self.vacancy.notify_one();
        }
        Ok(())
    }

    /// Waits for a bucket; `None` where the thread is to end.
    pub(super) fn next(&self, lane: Lane) -> Option<Arc<Chain>> {
        if lane == Lane::Slow { self.next_slow() } else { self.next_fast() }
    }

    fn next_fast(&self) -> Option<Arc<Chain>> {
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

    fn next_slow(&self) -> Option<Arc<Chain>> {
        let mut lanes = lock(&self.lanes);
        loop {
            if lanes.stopped {
                return None;
            }
            if lanes.slow > self.slow_max {
                lanes.slow -= 1;
                // What woke this one may have been meant for another.
                self.slow_work.notify_one();
                return None;
            }
            if lanes.long() < self.slow_max
                && let Some(chain) = lanes.slow_ready.pop_front()
            {
                lanes.slow_running += 1;
                return Some(chain);
            }
            lanes = self.slow_work.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The calling thread gives its place in the fast lane away, where one more job may run long.
    pub(super) fn step_aside(&self) -> Result<()> {
        let mut lanes = lock(&self.lanes);
        if lanes.long() >= self.slow_max {
            return Err(self.full());
        }
        lanes.fast -= 1;
        lanes.aside += 1;
        let has_spare = lanes.spare > 0;
        // Another that steps aside at this moment may count on the same spare thread.
        let lacking = lanes.fast + lanes.spare < self.fast_max;
        drop(lanes);
        if has_spare {
            self.place.notify_one();
        }
        if lacking {
            self.vacancy.notify_one();
        }
        Ok(())
    }

    /// The calling thread, aside, is of the slow lane from now on. Where that has too many, an idle one ends.
    pub(super) fn slow_down(&self) {
        let mut lanes = lock(&self.lanes);
        lanes.aside -= 1;
        lanes.slow += 1;
        lanes.slow_running += 1;
        let surplus = lanes.slow > self.slow_max;
        drop(lanes);
        if surplus {
            self.slow_work.notify_one();
        }
    }

    /// Ends a turn; the lane that the thread is in then. One that is aside waits for a place in the fast lane.
    pub(super) fn leave(&self, lane: Lane) -> Lane {
        match lane {
            Lane::Fast => Lane::Fast,
            Lane::Aside => self.join(),
            Lane::Slow => {
                // The thread looks at the row itself, next.
                lock(&self.lanes).slow_running -= 1;
                Lane::Slow
            }
        }
    }

    fn join(&self) -> Lane {
        let mut lanes = lock(&self.lanes);
        lanes.aside -= 1;
        // One more job may run long.
        if !lanes.slow_ready.is_empty() {
            self.slow_work.notify_one();
        }
        lanes.spare += 1;
        while !lanes.stopped && lanes.fast >= self.fast_max {
            lanes = self.place.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
        lanes.spare -= 1;
        lanes.fast += 1;
        Lane::Fast
    }

    /// Waits until a lane lacks a thread, and counts one in; `None` once stopped.
    pub(super) fn vacancy(&self) -> Option<Lane> {
        let mut lanes = lock(&self.lanes);
        loop {
            if lanes.stopped {
                return None;
            }
            if lanes.fast + lanes.spare < self.fast_max {
                lanes.fast += 1;
                return Some(Lane::Fast);
            }
            if lanes.lacks_slow(self.slow_max) {
                lanes.slow += 1;
                return Some(Lane::Slow);
            }
            lanes = self.vacancy.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The thread that was counted in could not be started.
    pub(super) fn not_started(&self, lane: Lane) {
        let mut lanes = lock(&self.lanes);
        match lane {
            Lane::Slow => lanes.slow -= 1,
            Lane::Fast | Lane::Aside => lanes.fast -= 1,
        }
        drop(lanes);
        // The place that was kept for it is free: who waits for one would wait for ever.
        if lane != Lane::Slow {
            self.place.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        lock(&self.lanes).stopped = true;
        for waiting in [&self.work, &self.place, &self.slow_work, &self.vacancy] {
            waiting.notify_all();
        }
    }

    fn full(&self) -> Error {
        Error::Overloaded(format!("{} long scripts are running already", self.slow_max))
    }

    /// How many threads there are.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        let lanes = lock(&self.lanes);
        lanes.fast + lanes.aside + lanes.spare + lanes.slow
    }
}

impl Lanes {
    /// Jobs that run long now.
    fn long(&self) -> usize {
        self.aside + self.slow_running
    }

    /// Whether more buckets wait for the slow lane than it has idle threads, and it may have more.
    fn lacks_slow(&self, slow_max: usize) -> bool {
        self.slow < slow_max && self.slow_ready.len() > self.slow - self.slow_running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::BucketId;

    fn chain(number: u64) -> Arc<Chain> {
        Arc::new(Chain::new(BucketId(number)))
    }

    fn bucket(chain: Option<Arc<Chain>>) -> u64 {
        chain.unwrap().bucket.0
    }

    // Each call that would wait for ever makes its test hang, which is how it fails.

    #[test]
    fn a_long_job_gives_its_place_to_another_bucket() {
        let pool = Pool::new(1, 1);
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        pool.schedule(chain(1));
        pool.schedule(chain(2));
        assert_eq!(bucket(pool.next(Lane::Fast)), 1);
        pool.step_aside().unwrap();
        // The place is empty, so that the keeper starts another thread, which takes the next bucket.
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        assert_eq!(bucket(pool.next(Lane::Fast)), 2);
        assert!(matches!(pool.step_aside(), Err(Error::Overloaded(_))));
        pool.slow_down();
        assert!(matches!(pool.step_aside(), Err(Error::Overloaded(_))), "it still runs");
        assert_eq!(pool.leave(Lane::Slow), Lane::Slow, "for ever");
        pool.step_aside().unwrap();
    }

    #[test]
    fn a_thread_that_only_waited_is_a_spare_one_and_no_other_is_started() {
        let pool = Arc::new(Pool::new(1, 1));
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        pool.step_aside().unwrap();
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        let spare = {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || pool.leave(Lane::Aside))
        };
        while lock(&pool.lanes).spare == 0 {
            std::thread::yield_now();
        }
        pool.step_aside().unwrap();
        assert_eq!(spare.join().unwrap(), Lane::Fast);
        let lanes = lock(&pool.lanes);
        assert_eq!((lanes.fast, lanes.aside, lanes.spare), (1, 1, 0));
    }

    #[test]
    fn known_work_goes_to_slow_threads_and_no_more_than_may_run() {
        let pool = Pool::new(1, 2);
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        for number in 1..=2 {
            pool.hand_over(chain(number)).unwrap();
        }
        assert!(matches!(pool.hand_over(chain(3)), Err(Error::Overloaded(_))), "the row is full");
        assert_eq!([pool.vacancy(), pool.vacancy()], [Some(Lane::Slow); 2]);
        assert_eq!(bucket(pool.next(Lane::Slow)), 1);
        // The fast lane's row is its own.
        pool.schedule(chain(9));
        assert_eq!(bucket(pool.next(Lane::Fast)), 9);
        pool.step_aside().unwrap();
        // Two run long, and the second thread of the slow lane may take no third.
        assert!(lock(&pool.lanes).long() == 2 && !lock(&pool.lanes).slow_ready.is_empty());
        assert!(matches!(pool.step_aside(), Err(Error::Overloaded(_))));
        assert_eq!(pool.leave(Lane::Slow), Lane::Slow);
        assert_eq!(bucket(pool.next(Lane::Slow)), 2);
    }

    #[test]
    fn an_idle_thread_of_the_slow_lane_ends_where_there_are_too_many() {
        let pool = Pool::new(1, 1);
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        pool.hand_over(chain(1)).unwrap();
        assert_eq!(pool.vacancy(), Some(Lane::Slow));
        assert_eq!(bucket(pool.next(Lane::Slow)), 1);
        pool.leave(Lane::Slow);
        pool.step_aside().unwrap();
        pool.slow_down();
        assert!(pool.next(Lane::Slow).is_none());
        assert_eq!(lock(&pool.lanes).slow, 1);
    }

    #[test]
    fn stopping_wakes_everybody() {
        let pool = Arc::new(Pool::new(1, 2));
        let wait = |what: fn(&Pool) -> bool| {
            let pool = Arc::clone(&pool);
            std::thread::spawn(move || what(&pool))
        };
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        pool.step_aside().unwrap();
        assert_eq!(pool.vacancy(), Some(Lane::Fast));
        let threads = [
            wait(|pool| pool.next(Lane::Fast).is_none()),
            wait(|pool| pool.next(Lane::Slow).is_none()),
            wait(|pool| pool.next(pool.leave(Lane::Aside)).is_none()),
            wait(|pool| pool.vacancy().is_none()),
        ];
        pool.stop();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    }
}
