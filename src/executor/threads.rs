//! The threads of the pool: who starts them, what they do, and their priority.
//!
//! **The slow lane's threads are niced**, so that what computes for long gets less of a core than what answers
//! clients, sends entries, applies them and keeps the lease. On Linux a nice value is a thread's own, though POSIX
//! says process. A thread inherits it from the one that starts it, and without privileges can only raise it. So threads are
//! started by the keeper, which is never niced and runs no job; and a thread that was niced never goes back. A script
//! there also yields its core many times in a slice ([`GIVE_WAY_EVERY`]), while it has more of it than its share.
//!
//! **No priority is inverted for long.** What a niced thread shares with others it holds for moments: the locks of chains,
//! pool, counts and the channel to Raft, of the recent rows, and RocksDB's when it takes or drops a snapshot or looks
//! into its block cache. A script computes without any of them. If the thread loses its core while it holds one,
//! whoever waits sleeps and competes no more, and the thread still has a third of an equal's weight: it goes on
//! within a few of the scheduler's slices, of about 3 ms each. mimalloc's heaps are per thread and hold no lock while
//! memory is taken or freed. It starts no threads itself: jobs of the runtime and of RocksDB run on theirs.
//! What does wait for it is its own bucket, whose jobs are in order, and which would wait anyway.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::chain::Chain;
use super::pool::{Lane, Pool};

/// How much nicer the slow lane is than the rest of the node. The scheduler gives nice 5 a weight of 335 where nice 0
/// has 1024, and nice 10 has 110. A script's time limit goes by the wall clock, and it should not be met by scripts that
/// met it nowhere near before: with nice 5 a script takes at most three times as long as without, on the busiest machine.
/// Beside three threads that never sleep on each core, 50 ms of computing take half a second, within the limit of one second;
/// with nice 10 they would take one and a half.
const NICE: i32 = 5;
/// How often a script on a thread of the slow lane lets others have its core. The kernel lets a thread that computes finish its
/// slice of about 3 ms before one that wakes, whatever its priority; one that yields has finished it, and waits for another one.
pub(super) const GIVE_WAY_EVERY: Duration = Duration::from_micros(100);
/// As long as it has had at least this part of a core: beside threads that never sleep, each yield costs it a slice of
/// theirs. Without yields, with its nice value, it has a fourth beside one of them.
pub(super) const SHARE: u32 = 4;
/// Over which it is counted: others may come and go while a script runs.
pub(super) const SHARE_TIME: Duration = Duration::from_millis(20);
/// Before a thread is started again that the system has refused.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The loop of the keeper: starts a thread wherever a lane lacks one.
pub(super) fn keep(pool: &Pool, mut start: impl FnMut(String, Lane) -> std::io::Result<()>) {
    let mut number = 0_u64;
    while let Some(lane) = pool.vacancy() {
        let name = if lane == Lane::Slow { "slow" } else { "executor" };
        if let Err(error) = start(format!("{name}-{number}"), lane) {
            tracing::error!(%error, "no thread for the executor");
            pool.not_started(lane);
            std::thread::sleep(RESTART_PAUSE);
        }
        number += 1;
    }
}

/// The loop of a thread: it takes a bucket and has its turn. The turn may change the lane, and says so in the cell.
pub(super) fn work(pool: &Pool, lane: Lane, mut turn: impl FnMut(Arc<Chain>, &Rc<Cell<Lane>>)) {
    if lane == Lane::Slow {
        lower_priority();
    }
    let lane = Rc::new(Cell::new(lane));
    while let Some(chain) = pool.next(lane.get()) {
        turn(chain, &lane);
        lane.set(pool.leave(lane.get()));
    }
}

/// Lowers the priority of the calling thread, for ever. Relative to what the process was started with.
pub(super) fn lower_priority() {
    // Where a container refuses, long scripts compute as equals of everything else.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the slow lane keeps its priority");
    }
}

/// For how long the calling thread has been on a core.
pub(super) fn time_on_core() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::JoinHandle;

    use super::*;
    use crate::executor::lock;
    use crate::kv::BucketId;

    /// Buckets whose job computes for long when nobody knows, and those of which it is known.
    const FIRST: u64 = 100;

    /// What a turn saw: the bucket, and how nice its thread was at the end.
    type Seen = (u64, i32);

    struct Threads {
        pool: Arc<Pool>,
        started: Arc<Mutex<Vec<JoinHandle<()>>>>,
        keeper: JoinHandle<()>,
    }

    impl Threads {
        fn start(pool: Pool, seen: Sender<Seen>) -> Self {
            let (pool, started) = (Arc::new(pool), Arc::new(Mutex::new(Vec::new())));
            let (kept, handles) = (Arc::clone(&pool), Arc::clone(&started));
            let keeper = std::thread::spawn(move || {
                keep(&kept, |name, lane| {
                    let (pool, seen) = (Arc::clone(&kept), seen.clone());
                    let job =
                        move || work(&pool, lane, |chain, lane| turn(&pool, &chain, lane, &seen));
                    lock(&handles).push(std::thread::Builder::new().name(name).spawn(job)?);
                    Ok(())
                });
            });
            Threads { pool, started, keeper }
        }

        /// How many threads there ever were.
        fn stop(self) -> usize {
            self.pool.stop();
            self.keeper.join().unwrap();
            let started = std::mem::take(&mut *lock(&self.started));
            let count = started.len();
            started.into_iter().for_each(|thread| thread.join().unwrap());
            count
        }
    }

    fn turn(pool: &Pool, chain: &Chain, lane: &Cell<Lane>, seen: &Sender<Seen>) {
        if chain.bucket.0 >= FIRST && pool.step_aside().is_ok() {
            lower_priority();
            pool.slow_down();
            lane.set(Lane::Slow);
        }
        seen.send((chain.bucket.0, niceness())).unwrap();
    }

    /// As the kernel tells of the calling thread.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    fn chain(number: u64) -> Arc<Chain> {
        Arc::new(Chain::new(BucketId(number)))
    }

    #[test]
    fn long_work_is_niced_and_other_work_never() {
        let usual = niceness();
        let nicer = (usual + NICE).min(19);
        assert!(usual < nicer, "the test needs to be less than as nice as can be");
        let (seen, told) = channel();
        let threads = Threads::start(Pool::new(1, 2), seen);
        let pool = Arc::clone(&threads.pool);
        let quick = |number| {
            pool.schedule(chain(number));
            assert_eq!(
                told.recv().unwrap(),
                (number, usual),
                "quick work, on a thread that was not niced"
            );
        };
        quick(1);
        pool.hand_over(chain(2)).unwrap();
        assert_eq!(told.recv().unwrap(), (2, nicer), "known to be long");
        quick(3);
        // More threads turn slow than the slow lane has places: each has a successor, and the surplus ends.
        for number in FIRST..FIRST + 10 {
            pool.schedule(chain(number));
            // One that is refused for the moment did not turn slow.
            let (bucket, nice) = told.recv().unwrap();
            assert!(bucket == number && (nice == nicer || nice == usual));
            quick(4);
            assert!(pool.threads() <= 1 + 2 * 2 + 1, "{} threads", pool.threads());
        }
        pool.hand_over(chain(5)).unwrap();
        assert_eq!(told.recv().unwrap(), (5, nicer), "known to be long");
        assert!(threads.stop() > 3);
        assert_eq!(niceness(), usual, "niceness is a thread's own");
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_tried_again() {
        let pool = Pool::new(1, 1);
        let mut tries = 0;
        keep(&pool, |_, lane| {
            assert_eq!(lane, Lane::Fast);
            tries += 1;
            if tries < 3 {
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            pool.stop();
            Ok(())
        });
        assert_eq!(tries, 3);
    }

    #[test]
    fn the_time_on_a_core_is_that_of_computing() {
        let begun = time_on_core();
        std::thread::sleep(Duration::from_millis(20));
        assert!(time_on_core() - begun < Duration::from_millis(15));
        while time_on_core() - begun < Duration::from_millis(16) {}
    }
}
