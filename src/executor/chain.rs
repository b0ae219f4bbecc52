//! One bucket's order: what waits, what is in flight, and what becomes of it.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::job::{Job, Request, Told, Unconfirmed};
use super::{QUEUE_JOBS_MAX, lock};
use crate::error::{Error, Failure, Result};
use crate::kv::{Answer, BucketId, CommandId, Overlay};
use crate::mutant::{self, Mutant};
use crate::raft::Verdict;

/// Commands of one bucket that may be proposed and not yet applied.
const IN_FLIGHT_MAX: usize = 2048;
/// Bytes of them.
const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Commands in flight beside which a job does not wait for others.
const FEW: usize = 8;
/// Jobs that must wait for each command in flight, where there are more.
const COMPANY: usize = 3;
/// How often a job runs before it is answered with the reason for its failures.
const ATTEMPTS_MAX: u32 = 32;

/// A bucket's jobs. The lock is held to look and to move jobs, never while one runs.
pub(super) struct Chain {
    pub(super) bucket: BucketId,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Job>,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    /// Jobs to run again once nothing is in flight. None was answered, so their order is free.
    failed: Vec<Job>,
    overlay: Overlay,
    /// The term that the commands in flight belong to.
    term: u64,
    /// A command failed: what follows it will, too. Shut until nothing is in flight.
    shut: bool,
    /// What failed would fail again at once: a pause before the chain's next turn.
    pause: bool,
    /// The executor has forgotten it: nothing may enter any more.
    retired: bool,
    /// In the row of the pool, or taken by one of its threads.
    scheduled: bool,
}

/// A proposed command whose outcome is not known yet.
struct InFlight {
    id: CommandId,
    bytes: usize,
    job: Job,
    answer: Told,
    /// Jobs that read on top of it and wrote nothing.
    readers: Vec<(Job, Told)>,
}

/// What a chain asks for after an outcome or a turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Next {
    /// Put it in the row of the pool.
    pub(super) schedule: bool,
    /// Wait a little first: this node was refused, or its term seems to be over.
    pub(super) pause: bool,
    /// Retire it: it holds nothing.
    pub(super) retire: bool,
}

/// What became of a job that was to enter.
// Moved once and matched at once: a box would be an allocation for each call.
#[expect(clippy::large_enum_variant)]
pub(super) enum Entered {
    /// It is in the queue; whether the chain must be scheduled.
    Queued { schedule: bool },
    /// The chain is retired, and there is a new one, or will be.
    Retired(Job),
}

/// What a turn may run next.
// Moved once and matched at once: a box would be an allocation for each call.
#[expect(clippy::large_enum_variant)]
pub(super) enum Taken {
    /// A job, with the overlay to run it on.
    Job(Job, Overlay),
    /// One that was not wanted; it stays first.
    Unwanted,
    /// Nothing for now.
    Nothing,
}

impl Chain {
    pub(super) fn new(bucket: BucketId) -> Self {
        Chain { bucket, inner: Mutex::default() }
    }

    /// Adds a job.
    pub(super) fn enqueue(&self, job: Job) -> Result<Entered> {
        let mut inner = lock(&self.inner);
        if inner.retired {
            return Ok(Entered::Retired(job));
        }
        if matches!(job.request, Request::Upkeep(_)) {
            // Reads wait for it, and it is short: it waits for no call, but the one that runs.
            inner.queue.push_front(job);
            return Ok(Entered::Queued { schedule: inner.wants_turn() });
        }
        if inner.queue.len() >= QUEUE_JOBS_MAX {
            inner.queue.retain(|job| !job.reply.is_closed());
        }
        if inner.queue.len() >= QUEUE_JOBS_MAX {
            return Err(Error::Overloaded(format!("{QUEUE_JOBS_MAX} calls wait for this bucket")));
        }
        inner.queue.push_back(job);
        Ok(Entered::Queued { schedule: inner.wants_turn() })
    }

    /// Retires a chain that holds nothing; whether it is retired. Who has it in hand may still look at it, and will
    /// find nothing: it is not scheduled, and nothing enters.
    pub(super) fn retire(&self) -> bool {
        let mut inner = lock(&self.inner);
        inner.retired |= inner.is_idle();
        inner.retired
    }

    /// The next job to run in this term, where it is wanted.
    pub(super) fn take(&self, term: u64, is_wanted: impl Fn(&Job) -> bool) -> Taken {
        let mut inner = lock(&self.inner);
        if inner.term != term {
            // What another term left in flight must have its outcome first.
            inner.shut |= !inner.in_flight.is_empty();
            if !inner.shut {
                inner.term = term;
                inner.overlay = Overlay::default();
            }
        }
        let full =
            inner.in_flight.len() >= IN_FLIGHT_MAX || inner.in_flight_bytes >= IN_FLIGHT_BYTES_MAX;
        if inner.shut || full {
            return Taken::Nothing;
        }
        let job = loop {
            let Some(job) = inner.queue.pop_front() else { return Taken::Nothing };
            // Whoever asked has gone, and nothing was done yet: nothing will be.
            if !job.reply.is_closed() {
                break job;
            }
        };
        if !is_wanted(&job) {
            inner.queue.push_front(job);
            return Taken::Unwanted;
        }
        if mutant::strikes(Mutant::NoHeadCheck, 50) {
            inner.overlay = Overlay::default();
        }
        Taken::Job(job, std::mem::take(&mut inner.overlay))
    }

    /// All jobs of which nothing is proposed: this node does not lead.
    pub(super) fn take_waiting(&self) -> Vec<Job> {
        let mut inner = lock(&self.inner);
        let failed = std::mem::take(&mut inner.failed);
        failed.into_iter().chain(inner.queue.drain(..)).collect()
    }

    /// Puts a command in flight. `None` where the chain was shut meanwhile: the job waits to run again.
    pub(super) fn put_in_flight(
        &self,
        (job, answer): (Job, Told),
        overlay: Overlay,
        id: CommandId,
        bytes: usize,
    ) -> Option<()> {
        let mut inner = lock(&self.inner);
        if inner.shut {
            inner.failed.push(job);
            return None;
        }
        inner.overlay = overlay;
        inner.in_flight_bytes += bytes;
        inner.in_flight.push_back(InFlight { id, bytes, job, answer, readers: Vec::new() });
        Some(())
    }

    /// Keeps an answer that wrote nothing until the newest command in flight is applied; gives it back
    /// where there is none.
    pub(super) fn put_reader(
        &self,
        job: Job,
        answer: Told,
        overlay: Overlay,
    ) -> Option<(Job, Told)> {
        let mut inner = lock(&self.inner);
        if inner.shut {
            inner.failed.push(job);
            return None;
        }
        inner.overlay = overlay;
        match inner.in_flight.back_mut() {
            Some(_) if mutant::is(Mutant::DirtyRead) => {
                job.answer(answer);
                None
            }
            Some(last) => {
                last.readers.push((job, answer));
                None
            }
            None => Some((job, answer)),
        }
    }

    /// Gives the overlay back after a job that did not run.
    pub(super) fn put_back(&self, overlay: Overlay) {
        let mut inner = lock(&self.inner);
        if !inner.shut {
            inner.overlay = overlay;
        }
    }

    /// Ends a turn.
    pub(super) fn end_turn(&self) -> Next {
        let mut inner = lock(&self.inner);
        inner.scheduled = false;
        inner.next()
    }

    /// Takes the outcome of a command; answers whom it concerns.
    pub(super) fn outcome(
        &self,
        id: CommandId,
        verdict: Verdict,
        mut confirm: impl FnMut(Unconfirmed),
    ) -> Next {
        let mut inner = lock(&self.inner);
        let Some(position) = inner.in_flight.iter().position(|command| command.id == id) else {
            return Next::default();
        };
        let Some(command) = inner.in_flight.remove(position) else { return Next::default() };
        inner.in_flight_bytes -= command.bytes;
        match verdict {
            Verdict::Applied { revision } => {
                let term = id.term;
                command.job.answer(at_revision(command.answer, revision));
                for (job, answer) in command.readers {
                    confirm(Unconfirmed { term, job, answer });
                }
            }
            Verdict::Conflict => inner.fail(Some(command.job), command.readers, None),
            Verdict::Refused(reason) => {
                inner.fail(Some(command.job), command.readers, Some(&reason));
            }
            Verdict::Unknown(reason) => {
                command.job.answer(Err(Error::Unknown(reason).into()));
                inner.fail(None, command.readers, None);
            }
        }
        inner.next()
    }
}

impl Inner {
    /// What is to be done after an outcome or a turn.
    fn next(&mut self) -> Next {
        self.reopen();
        // Kept while the chain is shut: whichever outcome opens it may be another's than the one that asked.
        let pause = !self.shut && std::mem::take(&mut self.pause);
        Next { schedule: self.wants_turn(), pause, retire: self.is_idle() }
    }

    fn is_idle(&self) -> bool {
        let holds_nothing =
            self.queue.is_empty() && self.in_flight.is_empty() && self.failed.is_empty();
        holds_nothing && !self.scheduled && !self.shut
    }

    /// Marks the chain as to be scheduled, once, where it has something to do.
    fn wants_turn(&mut self) -> bool {
        let room =
            self.in_flight.len() < IN_FLIGHT_MAX && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX;
        let worth_it = is_worth_a_turn(self.queue.len(), self.in_flight.len());
        let wants = !self.scheduled && !self.shut && room && worth_it;
        self.scheduled |= wants;
        wants
    }

    /// Shuts the chain and keeps the jobs to run again. None of them wrote anything.
    fn fail(&mut self, job: Option<Job>, readers: Vec<(Job, Told)>, reason: Option<&Error>) {
        self.shut = true;
        for mut job in job.into_iter().chain(readers.into_iter().map(|(job, _)| job)) {
            job.attempts += 1;
            // A job that failed before meets the same again, mostly: as long as this node does not know that
            // its term is over, all it proposes is refused, or conflicts in the log of the next.
            self.pause |= reason.is_some() || job.attempts > 1;
            if job.attempts < ATTEMPTS_MAX {
                self.failed.push(job);
                continue;
            }
            let reason = reason.cloned().unwrap_or_else(|| {
                Error::Overloaded(format!("the call met {ATTEMPTS_MAX} conflicts in a row"))
            });
            job.answer(Err(reason.into()));
        }
    }

    /// Opens a shut chain once every proposal has an outcome. The overlay was built on one that failed.
    fn reopen(&mut self) {
        // A thread that holds a job of this chain puts it among the failed before its turn ends.
        if !self.shut || !self.in_flight.is_empty() || self.scheduled {
            return;
        }
        self.shut = false;
        self.overlay = Overlay::default();
        for job in std::mem::take(&mut self.failed).into_iter().rev() {
            self.queue.push_front(job);
        }
    }
}

/// An answer that stands on the state after a command.
fn at_revision(told: Told, revision: u64) -> Told {
    match told {
        // What is repeated stays as it was.
        Ok(answer) if answer.replayed => Ok(answer),
        Ok(answer) => Ok(Answer { revision, ..answer }),
        Err(failure) => Err(Failure::at(revision, failure.error)),
    }
}

/// Whether so many jobs should run now. Few beside many commands in flight wait for company, at most until those
/// have their outcome: every turn costs a round of messages and syncs, which is most of what a node does under load. A
/// job that meets hardly anything in flight never waits, and however long a commit takes, turns grow until none waits.
fn is_worth_a_turn(queued: usize, in_flight: usize) -> bool {
    queued > 0 && (in_flight < FEW || queued >= COMPANY * in_flight)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;

    use super::*;
    use crate::executor::job::Upkeep;

    const TERM: u64 = 7;

    fn job() -> (Job, Receiver<Told>) {
        Job::of(Request::Upkeep(Upkeep::Sweep))
    }

    fn enter(chain: &Chain, job: Job) -> bool {
        match chain.enqueue(job).unwrap() {
            Entered::Queued { schedule } => schedule,
            Entered::Retired(_) => panic!("retired"),
        }
    }

    fn id(seq: u64) -> CommandId {
        CommandId { term: TERM, seq }
    }

    /// Takes the next job and puts its command in flight.
    fn run(chain: &Chain, seq: u64) {
        let Taken::Job(job, overlay) = chain.take(TERM, |_| true) else { panic!("no job") };
        chain.put_in_flight((job, Ok(Answer::text(""))), overlay, id(seq), 1).unwrap();
    }

    fn end(chain: &Chain, seq: u64, verdict: Verdict) -> Next {
        chain.outcome(id(seq), verdict, |_| panic!("nobody read"))
    }

    fn refused() -> Verdict {
        Verdict::Refused(Error::NotLeader { leader: None })
    }

    /// A chain with so many commands in flight, numbered from 0, in the middle of a turn.
    fn in_flight(commands: u64) -> (Chain, Vec<Receiver<Told>>) {
        let chain = Chain::new(BucketId(1));
        let (jobs, answers): (Vec<_>, Vec<_>) = (0..commands).map(|_| job()).unzip();
        let scheduled: Vec<_> = jobs.into_iter().map(|job| enter(&chain, job)).collect();
        assert_eq!(scheduled.iter().filter(|scheduled| **scheduled).count(), 1);
        (0..commands).for_each(|seq| run(&chain, seq));
        (chain, answers)
    }

    const AGAIN: Next = Next { schedule: true, pause: false, retire: false };
    const AGAIN_LATER: Next = Next { pause: true, ..AGAIN };
    const NOTHING: Next = Next { schedule: false, pause: false, retire: false };

    #[test]
    fn who_was_refused_during_its_own_turn_pauses() {
        let (chain, _answers) = in_flight(1);
        assert_eq!(end(&chain, 0, refused()), NOTHING);
        assert_eq!(chain.end_turn(), AGAIN_LATER);
        run(&chain, 1);
        assert_eq!(chain.end_turn(), NOTHING, "the pause is over");
    }

    #[test]
    fn who_was_refused_pauses_whatever_became_of_the_others() {
        let (chain, _answers) = in_flight(2);
        assert_eq!(chain.end_turn(), NOTHING);
        assert_eq!(end(&chain, 0, refused()), NOTHING);
        assert_eq!(end(&chain, 1, Verdict::Conflict), AGAIN_LATER);
    }

    #[test]
    fn a_second_conflict_in_a_row_pauses_and_the_first_does_not() {
        let (chain, _answers) = in_flight(1);
        assert_eq!(chain.end_turn(), NOTHING);
        assert_eq!(end(&chain, 0, Verdict::Conflict), AGAIN);
        run(&chain, 1);
        assert_eq!(chain.end_turn(), NOTHING);
        assert_eq!(end(&chain, 1, Verdict::Conflict), AGAIN_LATER);
        run(&chain, 2);
        assert_eq!(chain.end_turn(), NOTHING);
        let retire = Next { retire: true, ..NOTHING };
        assert_eq!(end(&chain, 2, Verdict::Applied { revision: 3 }), retire);
    }

    #[test]
    fn a_job_that_is_not_wanted_stays_first() {
        let chain = Chain::new(BucketId(1));
        let ((job, _answer), (next, _other)) = (job(), job());
        let first = Job { seed: 1, ..job };
        assert!(enter(&chain, next) && !enter(&chain, first));
        assert!(matches!(chain.take(TERM, |job| job.seed != 1), Taken::Unwanted));
        assert!(matches!(chain.take(TERM, |job| job.seed == 1), Taken::Job(..)));
    }

    #[test]
    fn who_meets_little_never_waits_and_turns_grow_until_none_waits() {
        assert!(is_worth_a_turn(1, 0));
        assert!(!is_worth_a_turn(0, 0));
        // Clients that each call once, during a commit that takes for ever.
        let (mut queued, mut in_flight) = (0, 0);
        for clients in 1..=1000 {
            queued += 1;
            if is_worth_a_turn(queued, in_flight) {
                (queued, in_flight) = (0, in_flight + queued);
            }
            assert_eq!(queued + in_flight, clients);
            assert!(queued < COMPANY * in_flight, "{queued} wait for {in_flight}");
            assert!(queued == 0 || in_flight >= FEW, "{queued} wait for {in_flight}");
        }
    }
}
