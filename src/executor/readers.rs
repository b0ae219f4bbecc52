//! Scripts that do not write: read-only ones on any node, and dry runs. Each runs on a view of its own.
//!
//! They enter no bucket's order, so they have threads of their own, and none takes a place in the executor's.
//! The queue is bounded. Of the threads one bucket gets at most half: slow scripts of one bucket leave
//! the others room.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lock;
use super::stats::{Run, Stats};
use crate::error::{Error, Result};
use crate::kv::{BucketId, Transaction};
use crate::script::{self, Report, Vm, Watch};

/// Calls that may wait, and those of one bucket among them.
const QUEUE_MAX: usize = 1024;
const BUCKET_QUEUE_MAX: usize = QUEUE_MAX / 8;
/// Threads for each one of the executor's: a script that waits for nothing still gives others a turn.
const THREADS_FACTOR: usize = 2;

/// The threads that run scripts on views.
pub struct Readers {
    inner: Mutex<Inner>,
    work: Condvar,
    bucket_max: usize,
    limits: script::Limits,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    /// How many of each bucket wait.
    waiting: BTreeMap<BucketId, usize>,
    running: BTreeMap<BucketId, usize>,
    stopped: bool,
}

struct Job {
    call: script::Call,
    txn: Transaction,
    /// Whether it is counted, and what it logs goes to the node's log.
    logs: bool,
    reply: oneshot::Sender<Report>,
}

impl Readers {
    /// Starts the threads.
    pub fn start(threads: usize, limits: script::Limits, stats: Arc<Stats>) -> Result<Arc<Self>> {
        let threads = threads.saturating_mul(THREADS_FACTOR).max(2);
        let readers = Arc::new(Readers {
            inner: Mutex::default(),
            work: Condvar::new(),
            bucket_max: threads / 2,
            limits,
            stats,
        });
        for number in 0..threads {
            let readers = Arc::clone(&readers);
            std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || readers.work())?;
        }
        Ok(readers)
    }

    /// Runs a script on a transaction, whose writes nobody commits.
    pub async fn run(&self, call: script::Call, txn: Transaction, logs: bool) -> Result<Report> {
        let (reply, report) = oneshot::channel();
        self.enqueue(Job { call, txn, logs, reply })?;
        report.await.map_err(|_| Error::Overloaded("the node is shutting down".to_owned()))
    }

    fn enqueue(&self, job: Job) -> Result<()> {
        let mut inner = lock(&self.inner);
        let bucket = job.txn.bucket();
        if inner.is_full(bucket) {
            inner.forget_gone();
        }
        if inner.stopped || inner.is_full(bucket) {
            return Err(Error::Overloaded("too many read-only scripts wait".to_owned()));
        }
        *inner.waiting.entry(bucket).or_default() += 1;
        inner.queue.push_back(job);
        drop(inner);
        self.work.notify_one();
        Ok(())
    }

    /// Lets the threads end; what waits is not run.
    pub fn stop(&self) {
        let mut inner = lock(&self.inner);
        inner.stopped = true;
        inner.queue.clear();
        inner.waiting.clear();
        drop(inner);
        self.work.notify_all();
    }

    fn work(&self) {
        let mut vm = None;
        while let Some(job) = self.next() {
            let bucket = job.txn.bucket();
            // Whoever asked may have gone while it waited.
            if !job.reply.is_closed() {
                self.answer(&mut vm, job);
            }
            self.done(bucket);
        }
    }

    fn answer(&self, vm: &mut Option<Vm>, Job { call, txn, logs, reply }: Job) {
        let vm = match vm {
            Some(vm) => vm,
            empty => match Vm::new(self.limits.clone()) {
                Ok(vm) => empty.insert(vm),
                // Dropping the reply says so.
                Err(error) => return tracing::error!(%error, "no script machine"),
            },
        };
        let clock = Rc::new(Clock { limits: self.limits.clone(), begun: Instant::now() });
        let (bucket, begun) = (txn.bucket(), Instant::now());
        let report = vm.run(&call, txn, clock);
        if logs {
            report.write_log(&call);
            let (failed, took) = (report.result.is_err(), begun.elapsed());
            let run = Run { failed, again: false, cost: report.cost, took };
            self.stats.count(bucket, &call.name, &run);
        }
        // Nobody waits any more where the client has gone.
        let _ = reply.send(report);
    }

    /// The next job whose bucket has a thread left; waits for one.
    fn next(&self) -> Option<Job> {
        let mut inner = lock(&self.inner);
        loop {
            if inner.stopped {
                return None;
            }
            let running = |job: &Job| inner.running.get(&job.txn.bucket()).copied().unwrap_or(0);
            let position = inner.queue.iter().position(|job| running(job) < self.bucket_max);
            if let Some(job) = position.and_then(|position| inner.queue.remove(position)) {
                count_down(&mut inner.waiting, job.txn.bucket());
                *inner.running.entry(job.txn.bucket()).or_default() += 1;
                return Some(job);
            }
            inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, bucket: BucketId) {
        let mut inner = lock(&self.inner);
        count_down(&mut inner.running, bucket);
        drop(inner);
        // Another of the same bucket may have waited for this.
        self.work.notify_one();
    }
}

impl Inner {
    fn is_full(&self, bucket: BucketId) -> bool {
        let own = self.waiting.get(&bucket).copied().unwrap_or(0);
        self.queue.len() >= QUEUE_MAX || own >= BUCKET_QUEUE_MAX
    }

    /// Drops the calls whose clients have gone.
    fn forget_gone(&mut self) {
        let waiting = &mut self.waiting;
        self.queue.retain(|job| {
            let gone = job.reply.is_closed();
            if gone {
                count_down(waiting, job.txn.bucket());
            }
            !gone
        });
    }
}

fn count_down(counts: &mut BTreeMap<BucketId, usize>, bucket: BucketId) {
    if let Some(count) = counts.get_mut(&bucket) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&bucket);
        }
    }
}

/// Ends a script whose time is over.
struct Clock {
    limits: script::Limits,
    begun: Instant,
}

impl Watch for Clock {
    fn check(&self) -> Result<()> {
        if self.begun.elapsed() > Duration::from_millis(self.limits.time_ms) {
            return Err(self.limits.time_error());
        }
        Ok(())
    }
}
