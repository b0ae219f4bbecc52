//! A job: one request on its way through the executor.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Admitted;
use crate::error::{Error, Failure, Result};
use crate::kv::{
    Answer, BucketName, Command, Counts, Credential, Once, Operation, PolicyPatch, ScriptName,
};
use crate::script;

/// What may be asked of a bucket's executor.
#[derive(Clone, Debug)]
pub enum Request {
    /// A change that is no script.
    Operation(Operation, Credential),
    /// A script call.
    Run(ScriptCall, Credential),
    /// A new bucket; asked of the directory.
    CreateBucket(BucketName, PolicyPatch),
    /// What no client asks for.
    Upkeep(Upkeep),
}

/// What the database does with a bucket by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Has the bucket's time reach the clock, unless it is past this: what is over is dead from then on.
    Tick {
        /// In milliseconds since 1970.
        until: u64,
    },
    /// Removes rows whose time is over; the answer is [`MORE`] where there are others.
    Sweep,
}

/// What a sweep answers that has not removed all.
pub const MORE: &str = "more";

/// What a job is told.
pub type Told = std::result::Result<Answer, Failure>;

/// A script call as it came in; the script itself is read in the transaction.
#[derive(Clone, Debug)]
pub struct ScriptCall {
    /// Which script.
    pub name: ScriptName,
    /// `kvdb.var`, `remote_addr` included.
    pub vars: Arc<BTreeMap<String, String>>,
    /// `kvdb.req`.
    pub request: Arc<script::Request>,
}

/// A request with what it needs to run, and run again.
pub(super) struct Job {
    pub(super) request: Request,
    /// Where it is to happen once, however often it is asked for.
    pub(super) once: Option<Once>,
    /// Kept when the job runs again, so that only the state decides what differs.
    pub(super) seed: u64,
    /// How often it ran.
    pub(super) attempts: u32,
    pub(super) reply: oneshot::Sender<Told>,
    pub(super) _admitted: Admitted,
}

impl Job {
    /// A job, and where its answer comes.
    #[cfg(test)]
    pub(super) fn of(request: Request) -> (Self, oneshot::Receiver<Told>) {
        let (reply, answer) = oneshot::channel();
        let _admitted = Admitted(Arc::default());
        (Job { request, once: None, seed: 0, attempts: 0, reply, _admitted }, answer)
    }

    pub(super) fn answer(self, answer: Told) {
        // Nobody waits any more where the client has gone.
        let _ = self.reply.send(answer);
    }
}

/// What running a job came to.
pub(super) enum Ran {
    /// It wrote, or saw a time pass: this is to be proposed, and the answer leaves once it is applied.
    Wrote(Box<Command>, Counts, Told),
    /// It wrote nothing: the answer leaves once what it read is known to be the newest.
    Read(Told),
    /// It did not run: the answer leaves now.
    Refused(Error),
}

/// An answer that stands on applied state and still lacks its read index.
pub(super) struct Unconfirmed {
    pub(super) term: u64,
    pub(super) job: Job,
    pub(super) answer: Told,
}

impl Unconfirmed {
    /// Sends the answer where the read index passed in the term that it ran in: only then was this
    /// node the one leader all the while.
    pub(super) fn release(self, confirmed: &Result<u64>) {
        match confirmed {
            Ok(term) if *term == self.term => self.job.answer(self.answer),
            Ok(_) => self.job.answer(Err(Error::NotLeader { leader: None }.into())),
            Err(error) => self.job.answer(Err(error.clone().into())),
        }
    }
}
