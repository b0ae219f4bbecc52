//! One turn of a bucket on an executor thread: run its jobs, propose what they wrote.
//!
//! A turn runs jobs of its thread's lane. On a thread of the fast lane it ends before a job that is known to compute for
//! long, and the bucket goes to the slow lane as it is; there it ends before any other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Executor;
use super::chain::{Chain, Next, Taken};
use super::ground::Ground;
use super::job::{Job, Ran, Request, ScriptCall, Told, Unconfirmed};
use super::perform::Performer;
use super::pool::Lane;
use super::threads;
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

/// What an executor thread does.
pub(super) fn work(executor: &Arc<Executor>, lane: Lane) {
    let mut vm = None;
    threads::work(&executor.pool, lane, |chain, lane| {
        let (lane, batch) = (Rc::clone(lane), Rc::new(Batch::new(executor)));
        let mut turn =
            Turn { executor, chain: &chain, vm: &mut vm, lane, batch: Rc::clone(&batch) };
        let ended = turn.run();
        batch.send();
        if ended == Ended::Here {
            let next = chain.end_turn();
            go_on(executor, chain, &next);
        }
    });
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Here,
    /// It goes on in the slow lane: the bucket is not this thread's any more.
    HandedOver,
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
    fn run(&mut self) -> Ended {
        let begun = Instant::now();
        let Some(term) = *self.executor.ready.borrow() else {
            refuse_waiting(self.chain);
            return Ended::Here;
        };
        let mut ground = None;
        for _ in 0..TURN_JOBS_MAX {
            let (job, overlay) = match self.chain.take(term, |job| self.is_ours(job)) {
                Taken::Job(job, overlay) => (job, overlay),
                Taken::Unwanted if self.lane.get() == Lane::Fast => {
                    if self.hand_over(term) {
                        return Ended::HandedOver;
                    }
                    continue;
                }
                Taken::Unwanted | Taken::Nothing => return Ended::Here,
            };
            if self.chain.bucket == DIRECTORY {
                // Deletions of buckets change it, and are not of this chain.
                ground = None;
            }
            self.run_job(term, job, overlay, &mut ground);
            if begun.elapsed() > TURN_TIME_MAX {
                break;
            }
        }
        Ended::Here
    }

    /// Whether a job is one for the lane that this thread is in.
    fn is_ours(&self, job: &Job) -> bool {
        let in_the_slow_lane = self.lane.get() == Lane::Slow;
        script_of(job)
            .is_some_and(|call| self.executor.known.is_slow(self.chain.bucket, &call.name))
            == in_the_slow_lane
    }

    /// Gives the bucket to the slow lane for its next job; where that is full, the job is refused.
    fn hand_over(&self, term: u64) -> bool {
        // Before another thread proposes what follows.
        self.batch.send();
        let Err(full) = self.executor.pool.hand_over(Arc::clone(self.chain)) else { return true };
        if let Taken::Job(job, overlay) = self.chain.take(term, |job| !self.is_ours(job)) {
            self.chain.put_back(overlay);
            job.answer(Err(full.into()));
        }
        false
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
        let watch = Rc::new(Stopwatch::start(&self.batch, &self.lane));
        let mut performer = Performer {
            executor: self.executor,
            vm: self.vm,
            watch: Rc::clone(&watch) as Rc<dyn Watch>,
            bucket: self.chain.bucket,
            bucket_name: &meta.name,
            term,
        };
        let performed = performer.perform(&job, txn);
        self.note(&job, &watch);
        match performed {
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

    /// Notes how long a script has computed, where it took long or was known for that.
    fn note(&self, job: &Job, watch: &Stopwatch) {
        if self.lane.get() != Lane::Fast
            && let Some(call) = script_of(job)
        {
            self.executor.known.note(self.chain.bucket, &call.name, watch.computed());
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
        let done = move |verdict| settle(&executor, chain, id, verdict);
        let payload = payload.into();
        self.batch.push(Proposal { payload, done: Box::new(done) });
        if answer_now {
            settle(self.executor, Arc::clone(self.chain), id, Verdict::Applied { revision });
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

fn script_of(job: &Job) -> Option<&ScriptCall> {
    match &job.request {
        Request::Run(call, _) => Some(call),
        Request::Operation(..) | Request::CreateBucket(..) | Request::Upkeep(_) => None,
    }
}

/// A command has its outcome: answer, and let the chain go on.
fn settle(executor: &Arc<Executor>, chain: Arc<Chain>, id: CommandId, verdict: Verdict) {
    let next = chain.outcome(id, verdict, |unconfirmed| confirm(executor, unconfirmed));
    go_on(executor, chain, &next);
}

/// Does what a chain asks for after an outcome or a turn.
fn go_on(executor: &Arc<Executor>, chain: Arc<Chain>, next: &Next) {
    if next.retire {
        return executor.chains.retire(&chain);
    }
    if !next.schedule {
        return;
    }
    if !next.pause {
        return executor.pool.schedule(chain);
    }
    let executor = Arc::clone(executor);
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

/// Keeps a script's time, and moves its thread out of the way.
struct Stopwatch {
    batch: Rc<Batch>,
    lane: Rc<Cell<Lane>>,
    begun: Instant,
    /// How long the thread had been on a core when the script was first looked at. It has hardly run by then, and one that
    /// ends before costs no system call.
    computed_before: Cell<Option<Duration>>,
    /// When its thread last let others have its core.
    gave_way: Cell<Instant>,
    /// Since when its share is counted, and how long the script had been on a core by then.
    share_since: Cell<(Instant, Duration)>,
}

impl Stopwatch {
    fn start(batch: &Rc<Batch>, lane: &Rc<Cell<Lane>>) -> Self {
        let (batch, lane) = (Rc::clone(batch), Rc::clone(lane));
        let now = Instant::now();
        Stopwatch {
            batch,
            lane,
            begun: now,
            computed_before: Cell::new(None),
            gave_way: Cell::new(now),
            share_since: Cell::new((now, Duration::ZERO)),
        }
    }

    /// For how long the script has been on a core.
    fn computed(&self) -> Duration {
        let before = self.computed_before.get();
        before.map_or(Duration::ZERO, |before| threads::time_on_core().saturating_sub(before))
    }

    /// Lets others have the core, now and then, but for as long as the script gets its share.
    fn give_way(&self) {
        if self.gave_way.get().elapsed() < threads::GIVE_WAY_EVERY {
            return;
        }
        let (since, computed_by_then) = self.share_since.get();
        let (length, computed) = (since.elapsed(), self.computed());
        if computed.saturating_sub(computed_by_then) > length / threads::SHARE {
            std::thread::yield_now();
        }
        let now = Instant::now();
        self.gave_way.set(now);
        if length > threads::SHARE_TIME {
            self.share_since.set((now, computed));
        }
    }

    /// Gives the place in the fast lane away, and goes to the slow lane if it is computing that takes so long.
    fn slow_down(&self) -> Result<()> {
        let executor = &self.batch.executor;
        if self.lane.get() == Lane::Fast {
            executor.pool.step_aside()?;
            self.lane.set(Lane::Aside);
        }
        if self.lane.get() == Lane::Aside && self.computed() > executor.settings.slow_after {
            executor.pool.slow_down();
            self.lane.set(Lane::Slow);
            threads::lower_priority();
        }
        Ok(())
    }
}

impl Watch for Stopwatch {
    fn check(&self) -> Result<()> {
        if self.computed_before.get().is_none() {
            self.computed_before.set(Some(threads::time_on_core()));
        }
        let elapsed = self.begun.elapsed();
        let settings = &self.batch.executor.settings;
        // What was proposed before this script does not wait for it.
        if elapsed > TURN_TIME_MAX {
            self.batch.send();
        }
        if elapsed > Duration::from_millis(settings.limits.time_ms) {
            return Err(settings.limits.time_error());
        }
        if elapsed > settings.slow_after {
            self.slow_down()?;
        }
        if self.lane.get() == Lane::Slow {
            self.give_way();
        }
        Ok(())
    }
}
