//! One turn of a bucket on an executor thread: run its jobs, propose what they wrote.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Executor;
use super::chain::Chain;
use super::ground::Ground;
use super::job::{Job, Ran, Told, Unconfirmed};
use super::perform::Performer;
use super::pool::Lane;
use crate::encoding;
use crate::error::{Error, Missing, Result};
use crate::kv::{
    BucketId, Command, CommandId, Counts, DIRECTORY, Effect, Overlay, Row, Transaction, Write,
};
use crate::mutant::{self, Mutant};
use crate::raft::{Proposal, Verdict};
use crate::script::{Vm, Watch};

/// Jobs that a bucket may run before the next bucket has its turn.
const TURN_JOBS_MAX: usize = 64;
/// How long it may go on.
const TURN_TIME_MAX: Duration = Duration::from_millis(2);
/// Before a refused chain tries again: an election takes longer than a lease's hiccup.
const REFUSED_PAUSE: Duration = Duration::from_millis(25);

/// The loop of an executor thread.
pub(super) fn work(executor: &Arc<Executor>) {
    let mut vm = None;
    while executor.pool.join() {
        let mut in_the_fast_lane = true;
        while in_the_fast_lane && let Some(chain) = executor.pool.next() {
            let lane = Rc::new(Cell::new(Lane::Fast));
            let batch = Rc::new(Batch::new(executor));
            let mut turn = Turn {
                executor,
                chain: &chain,
                vm: &mut vm,
                lane: Rc::clone(&lane),
                batch: Rc::clone(&batch),
            };
            turn.run();
            batch.send();
            if chain.end_turn() {
                executor.pool.schedule(chain);
            } else {
                executor.retire(&chain);
            }
            in_the_fast_lane = executor.pool.leave(lane.get());
        }
    }
}

struct Turn<'t> {
    executor: &'t Arc<Executor>,
    chain: &'t Arc<Chain>,
    /// Made when the thread first meets a script.
    vm: &'t mut Option<Vm>,
    lane: Rc<Cell<Lane>>,
    batch: Rc<Batch>,
}

/// The proposals of a turn, sent together: one at a time, the first would have an fsync and a round of
/// messages of its own, and the others would wait for it.
struct Batch {
    executor: Arc<Executor>,
    proposals: RefCell<Vec<Proposal>>,
}

impl Batch {
    fn new(executor: &Arc<Executor>) -> Self {
        Batch { executor: Arc::clone(executor), proposals: RefCell::default() }
    }

    fn push(&self, proposal: Proposal) {
        self.proposals.borrow_mut().push(proposal);
    }

    fn send(&self) {
        self.executor.proposer.propose(self.proposals.take());
    }
}

impl Turn<'_> {
    fn run(&mut self) {
        let begun = Instant::now();
        let Some(term) = *self.executor.ready.borrow() else {
            return refuse_waiting(self.chain);
        };
        let mut ground = None;
        for _ in 0..TURN_JOBS_MAX {
            let Some((job, overlay)) = self.chain.take(term) else { return };
            if self.chain.bucket == DIRECTORY {
                // Deletions of buckets change it, and are not of this chain.
                ground = None;
            }
            self.run_job(term, job, overlay, &mut ground);
            if begun.elapsed() > TURN_TIME_MAX {
                return;
            }
        }
    }

    fn run_job(&mut self, term: u64, job: Job, mut overlay: Overlay, ground: &mut Option<Ground>) {
        if ground.is_none() {
            match Ground::of(self.chain.bucket, self.executor.state.view()) {
                Ok(Some(found)) => {
                    overlay.trim(&found.meta);
                    *ground = Some(found);
                }
                Ok(None) => {
                    let name = format!("bucket number {}", self.chain.bucket.0);
                    let missing = Err(Error::not_found(Missing::Bucket, name).into());
                    return self.put_reader(term, job, missing, Overlay::default());
                }
                Err(error) => {
                    self.chain.put_back(overlay);
                    return job.answer(Err(error.into()));
                }
            }
        }
        let Some(Ground { view, meta }) = ground else { return };
        let now = self.executor.nature.now_ms();
        let txn = Transaction::new(Arc::clone(view), self.chain.bucket, overlay, now);
        let mut performer = Performer {
            executor: self.executor,
            vm: self.vm,
            watch: Rc::new(Stopwatch::start(&self.batch, &self.lane)),
            bucket: self.chain.bucket,
            bucket_name: &meta.name,
            term,
        };
        match performer.perform(&job, txn) {
            (overlay, Ran::Wrote(command, delta, answer)) => {
                self.propose(job, *command, (delta, answer), overlay);
            }
            (overlay, Ran::Read(answer)) => self.put_reader(term, job, answer, overlay),
            (overlay, Ran::Refused(error)) => {
                self.chain.put_back(overlay);
                job.answer(Err(error.into()));
            }
        }
    }

    /// Proposes what a job wrote, and lets the next one run on top of it.
    fn propose(
        &self,
        job: Job,
        command: Command,
        (delta, answer): (Counts, Told),
        mut overlay: Overlay,
    ) {
        let payload = match encoding::encode(&command) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.chain.put_back(overlay);
                return job.answer(Err(error.into()));
            }
        };
        let Command { id, now, effect, .. } = command;
        let answer_now =
            matches!(effect, Effect::Write(_)) && mutant::is(Mutant::AnswerBeforeApply);
        overlay.push(id, now, &overlay_writes(effect), delta);
        let revision = overlay.revision();
        if self.chain.put_in_flight((job, answer), overlay, id, payload.len()).is_none() {
            return;
        }
        let (executor, chain) = (Arc::clone(self.executor), Arc::clone(self.chain));
        let done = move |verdict| settle(&executor, &chain, id, verdict);
        let payload = payload.into();
        self.batch.push(Proposal { payload, done: Box::new(done) });
        if answer_now {
            settle(self.executor, self.chain, id, Verdict::Applied { revision });
        }
    }

    fn put_reader(&self, term: u64, job: Job, answer: Told, overlay: Overlay) {
        if answer.is_err() && mutant::is(Mutant::ErrorNotConfirmed) {
            self.chain.put_back(overlay);
            return job.answer(answer);
        }
        if let Some((job, answer)) = self.chain.put_reader(job, answer, overlay) {
            confirm(self.executor, Unconfirmed { term, job, answer });
        }
    }
}

/// This node does not lead: nothing was proposed of these, and the edge knows where to go.
pub(super) fn refuse_waiting(chain: &Chain) {
    for job in chain.take_waiting() {
        job.answer(Err(Error::NotLeader { leader: None }.into()));
    }
}

/// What later jobs of the same bucket see of a command before it is applied.
fn overlay_writes(effect: Effect) -> Vec<Write> {
    match effect {
        Effect::Write(writes) | Effect::Sweep(writes) => writes,
        // The number is not known yet; that the name is taken is.
        Effect::CreateBucket { name, mut directory, .. } => {
            let taken = encoding::encode(&BucketId(0)).unwrap_or_default();
            directory.push(Write { row: Row::bucket(&name), value: Some(taken.into()) });
            directory
        }
        Effect::DeleteBucket { .. } => Vec::new(),
    }
}

/// A command has its outcome: answer, and let the chain go on.
fn settle(executor: &Arc<Executor>, chain: &Arc<Chain>, id: CommandId, verdict: Verdict) {
    let next = chain.outcome(id, verdict, |unconfirmed| confirm(executor, unconfirmed));
    if !next.schedule {
        return executor.retire(chain);
    }
    if !next.pause {
        return executor.pool.schedule(Arc::clone(chain));
    }
    let (executor, chain) = (Arc::clone(executor), Arc::clone(chain));
    let runtime = executor.runtime.clone();
    runtime.spawn(async move {
        tokio::time::sleep(REFUSED_PAUSE).await;
        executor.pool.schedule(chain);
    });
}

fn confirm(executor: &Executor, unconfirmed: Unconfirmed) {
    if let Err(refused) = executor.unconfirmed.send(unconfirmed) {
        let gone = Error::Unknown("the node is shutting down".to_owned());
        refused.0.job.answer(Err(gone.into()));
    }
}

/// Keeps a script's time, and moves its thread to the slow lane.
struct Stopwatch {
    batch: Rc<Batch>,
    lane: Rc<Cell<Lane>>,
    begun: Instant,
}

impl Stopwatch {
    fn start(batch: &Rc<Batch>, lane: &Rc<Cell<Lane>>) -> Self {
        let (batch, lane) = (Rc::clone(batch), Rc::clone(lane));
        Stopwatch { batch, lane, begun: Instant::now() }
    }
}

impl Watch for Stopwatch {
    fn check(&self) -> Result<()> {
        let elapsed = self.begun.elapsed();
        let settings = &self.batch.executor.settings;
        // What was proposed before this script does not wait for it.
        if elapsed > TURN_TIME_MAX {
            self.batch.send();
        }
        if elapsed > Duration::from_millis(settings.limits.time_ms) {
            return Err(settings.limits.time_error());
        }
        if self.lane.get() == Lane::Fast && elapsed > settings.slow_after {
            self.batch.executor.pool.slow_down()?;
            self.lane.set(Lane::Slow);
        }
        Ok(())
    }
}
