//! The leader's executor: one order per bucket, ahead of the log.
//!
//! Every change of a bucket goes through its `chain`, which runs one job at a time. The next
//! job does not wait for the last one's quorum: it runs on top of the writes of commands proposed and
//! not yet applied (the overlay), names the last of them as its predecessor, and is proposed at
//! once. Its answer waits until its own command has been applied. If a command is refused or
//! conflicts, all that built on it conflict by themselves; the chain then takes no new job until every
//! proposal has an outcome, drops its overlay and runs the failed jobs again.
//!
//! Invariants, each with the failure that it prevents:
//! - An id is proposed once, and a job runs again only after its command was refused before it was
//!   appended, or was applied as a conflict. Everything else is answered *unknown*.
//! - An answer leaves after the command it stands on has been applied. If it wrote nothing, a read index
//!   begun after it ran, in the same term, must have passed as well: errors and 404s too.
//! - Ids never repeat: one counter per process, never rewound.
//! - One running job per bucket, a bounded queue per bucket, and buckets take turns: none stops another.
//!   A job that runs long gives its thread's place away, and one that computes for long does so in the bounded slow
//!   lane, whose threads have a lower priority.

mod chain;
mod chains;
mod ground;
mod job;
mod known;
mod perform;
mod pool;
mod readers;
mod run;
mod stats;
mod threads;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::kv::{BucketId, Once};
use crate::raft::{Confirm, Proposer};
use crate::script;
use crate::storage::State;
use chain::Entered;
use chains::Chains;
use job::{Job, Unconfirmed};
pub use job::{MORE, Request, ScriptCall, Told, Upkeep};
use known::Known;
pub use perform::{find_script, shown};
use pool::Pool;
pub use readers::Readers;
pub use stats::{ScriptStats, Stats};

/// Jobs that may wait for one bucket; more are refused.
const QUEUE_JOBS_MAX: usize = 8192;
/// Jobs that may wait or be in flight on the whole node.
const NODE_JOBS_MAX: usize = 32_768;
/// Answers that wait for one read index together.
const CONFIRM_BATCH_MAX: usize = 1024;

/// What the executor is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads of the fast lane.
    pub threads: usize,
    /// Jobs that may run long at the same time.
    pub slow_max: usize,
    /// When a job counts as long.
    pub slow_after: Duration,
    /// What one script call may use.
    pub limits: script::Limits,
    /// Keys that a bucket may hold; 0 is any number.
    pub bucket_keys_max: u64,
    /// Bytes of keys and values that a bucket may hold; 0 is any number.
    pub bucket_bytes_max: u64,
    /// How long an answer stays recorded under its `Idempotency-Key`, in seconds.
    pub recorded_seconds: u64,
}

/// Reads the clock and draws randomness for the executor: the node owns both.
pub trait Nature: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// Sixty-four unguessable bits.
    fn seed(&self) -> u64;
}

/// The term in which this node leads and has applied all that came before; `None` where it does not.
pub type ReadyTerm = watch::Receiver<Option<u64>>;

/// Runs jobs. Cheap to share behind an `Arc`.
pub struct Executor {
    chains: Chains,
    pool: Pool,
    known: Known,
    state: Arc<State>,
    proposer: Proposer,
    ready: ReadyTerm,
    nature: Arc<dyn Nature>,
    settings: Settings,
    sequence: AtomicU64,
    jobs: Arc<AtomicUsize>,
    unconfirmed: mpsc::UnboundedSender<Unconfirmed>,
    stats: Arc<Stats>,
    runtime: tokio::runtime::Handle,
}

impl Executor {
    /// Starts the threads and the task that confirms answers which wrote nothing.
    pub fn start(
        settings: Settings,
        state: Arc<State>,
        proposer: Proposer,
        confirm: impl Confirm,
        ready: ReadyTerm,
        nature: Arc<dyn Nature>,
        stats: Arc<Stats>,
    ) -> Result<Arc<Self>> {
        // Unbounded in type only: it holds at most the jobs that are admitted.
        let (unconfirmed, pending) = mpsc::unbounded_channel();
        tokio::spawn(confirm_answers(pending, confirm));
        let executor = Arc::new(Executor {
            chains: Chains::default(),
            pool: Pool::new(settings.threads, settings.slow_max),
            known: Known::new(settings.slow_after),
            state,
            proposer,
            ready,
            nature,
            settings,
            sequence: AtomicU64::new(1),
            jobs: Arc::default(),
            unconfirmed,
            stats,
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(refuse_when_deposed(Arc::clone(&executor)));
        let kept = Arc::clone(&executor);
        std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            threads::keep(&kept.pool, |name, lane| {
                let executor = Arc::clone(&kept);
                let thread = std::thread::Builder::new().name(name);
                thread.spawn(move || run::work(&executor, lane)).map(drop)
            });
        })?;
        Ok(executor)
    }

    /// Queues a job and waits for its answer. Dropping the future drops a job that has not begun.
    pub async fn execute(
        self: &Arc<Self>,
        bucket: BucketId,
        request: Request,
        once: Option<Once>,
    ) -> Told {
        let (reply, answer) = oneshot::channel();
        let seed = self.nature.seed();
        let job = Job { request, once, seed, attempts: 0, reply, _admitted: self.admit()? };
        self.enqueue(bucket, job)?;
        let stopped = |_| Err(Error::Unknown("the executor stopped".to_owned()).into());
        answer.await.unwrap_or_else(stopped)
    }

    // Not within `execute`, which would keep the chain's memory for as long as it waits.
    fn enqueue(&self, bucket: BucketId, mut job: Job) -> Result<()> {
        // Goes round once for each time that the chain was retired by another just now.
        let chain = loop {
            let chain = self.chains.of(bucket);
            match chain.enqueue(job)? {
                Entered::Queued { schedule } => {
                    if schedule {
                        self.pool.schedule(Arc::clone(&chain));
                    }
                    break chain;
                }
                Entered::Retired(back) => job = back,
            }
        };
        // Deposed since the call was let in: this job came after the others had been refused.
        if self.ready.borrow().is_none() {
            run::refuse_waiting(&chain);
        }
        Ok(())
    }

    /// Stops the threads once they are idle.
    pub fn stop(&self) {
        self.pool.stop();
    }

    fn admit(&self) -> Result<Admitted> {
        let admitted = Admitted(Arc::clone(&self.jobs));
        if self.jobs.fetch_add(1, Ordering::Relaxed) >= NODE_JOBS_MAX {
            return Err(Error::Overloaded(format!("{NODE_JOBS_MAX} calls wait on this node")));
        }
        Ok(admitted)
    }

    fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }
}

/// A place among the node's jobs, given back when the job is gone.
struct Admitted(Arc<AtomicUsize>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// No panic happens while our locks are held, and if one did, the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends waiting jobs elsewhere whenever this node stops leading.
async fn refuse_when_deposed(executor: Arc<Executor>) {
    let mut ready = executor.ready.clone();
    while ready.changed().await.is_ok() {
        if ready.borrow_and_update().is_none() {
            executor.chains.all().iter().for_each(|chain| run::refuse_waiting(chain));
        }
    }
}

/// Releases answers that wrote nothing, many per read index, each begun after they ran.
async fn confirm_answers(mut pending: mpsc::UnboundedReceiver<Unconfirmed>, confirm: impl Confirm) {
    let mut batch = Vec::new();
    while pending.recv_many(&mut batch, CONFIRM_BATCH_MAX).await > 0 {
        let waiting = std::mem::take(&mut batch);
        let confirmed = confirm.read_index();
        tokio::spawn(async move {
            let term = confirmed.await;
            for answer in waiting {
                answer.release(&term);
            }
        });
    }
}
