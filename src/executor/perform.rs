//! What a job comes to: its request, run in a transaction. No side effect but on that.
//!
//! Authority is judged here, in the state that the request runs on, and so are the limits of the bucket. A
//! call under an `Idempotency-Key` that was completed before is answered from its record; one that is
//! completed now is recorded by the command that has its effects.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Executor;
use super::job::{Job, MORE, Ran, Request, ScriptCall, Upkeep};
use super::stats::Run;
use crate::encoding;
use crate::error::{Error, Failure, Missing, Result};
use crate::kv::limits::SWEEP_ROWS_MAX;
use crate::kv::{
    Answer, BucketId, BucketName, Command, CommandId, Credential, Effect, Grant, Once, Operation,
    Overlay, PolicyPatch, Row, Transaction, Write, grant, recorded,
};
use crate::mutant::{self, Mutant};
use crate::script::{self, Vm, Watch};

/// What a job is run with.
pub(super) struct Performer<'t> {
    pub(super) executor: &'t Arc<Executor>,
    /// Made when the thread first meets a script.
    pub(super) vm: &'t mut Option<Vm>,
    pub(super) watch: Rc<dyn Watch>,
    pub(super) bucket: BucketId,
    pub(super) bucket_name: &'t str,
    pub(super) term: u64,
}

impl Performer<'_> {
    /// Runs a job; the overlay comes back as it was given.
    pub(super) fn perform(&mut self, job: &Job, mut txn: Transaction) -> (Overlay, Ran) {
        match &job.request {
            Request::CreateBucket(name, policy) => {
                return self.create_bucket(job, name, policy, txn);
            }
            Request::Upkeep(upkeep) => return self.keep_up(job, *upkeep, txn),
            Request::Operation(..) | Request::Run(..) => {}
        }
        let repeated = match &job.once {
            Some(once) => repeat(&job.request, once, self.bucket_name, &mut txn),
            None => Ok(None),
        };
        let result = match repeated {
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
            Ok(None) => {
                let result;
                (txn, result) = self.run(job, txn);
                result.and_then(|answer| self.complete(job, answer, &mut txn))
            }
        };
        if result.is_err() && !mutant::is(Mutant::NoRollback) {
            txn.discard();
        }
        self.conclude(job, result, txn)
    }

    fn run(&mut self, job: &Job, mut txn: Transaction) -> (Transaction, Result<Answer>) {
        match &job.request {
            Request::Operation(operation, credential) => {
                let result = operation.run(&mut txn, credential, job.seed);
                (txn, result)
            }
            Request::Run(call, credential) => self.run_script(call, credential, job, txn),
            Request::CreateBucket(..) | Request::Upkeep(_) => {
                (txn, Err(Error::Internal("no request of a client".to_owned())))
            }
        }
    }

    /// Records the answer where the call is to happen once, and holds the bucket to its limits.
    fn complete(&self, job: &Job, answer: Answer, txn: &mut Transaction) -> Result<Answer> {
        let answer = Answer { revision: txn.revision(), ..answer };
        if let Some(once) = &job.once
            && answer.is_completed()
            && !txn.is_readonly()
            && !is_deletion(&job.request)
        {
            recorded::keep(txn, once, &answer, self.executor.settings.recorded_seconds)?;
        }
        self.check_quotas(txn)?;
        Ok(answer)
    }

    fn check_quotas(&self, txn: &mut Transaction) -> Result<()> {
        let (before, after) = (txn.counts_before(), txn.counts());
        if after.keys <= before.keys && after.bytes <= before.bytes {
            return Ok(());
        }
        let (policy, settings) = (txn.policy()?, &self.executor.settings);
        for (what, before, after, limits) in [
            ("keys", before.keys, after.keys, [policy.max_keys, settings.bucket_keys_max]),
            ("bytes", before.bytes, after.bytes, [policy.max_bytes, settings.bucket_bytes_max]),
        ] {
            let max = limits.into_iter().filter(|max| *max > 0).min().unwrap_or(u64::MAX);
            if after > before && after > max {
                return Err(Error::Quota { what, max });
            }
        }
        Ok(())
    }

    /// What is to be done about a result: a command, where anything was written or a time has passed.
    fn conclude(&self, job: &Job, result: Result<Answer>, txn: Transaction) -> (Overlay, Ran) {
        let (now, lapsed) = (txn.now(), txn.has_lapsed());
        let (revision, read_revision) = (txn.revision(), txn.read_revision());
        let (overlay, writes, delta) = txn.finish();
        let effect = match (&result, &job.request) {
            (Err(Error::Overloaded(_)), _) => None,
            (Ok(answer), request) if is_deletion(request) && !answer.replayed => {
                match self.deletion(job, answer, now) {
                    Ok(effect) => Some(effect),
                    Err(error) => return (overlay, Ran::Refused(error)),
                }
            }
            _ if !writes.is_empty() || lapsed => Some(Effect::Write(writes)),
            _ => None,
        };
        let told = match result {
            Ok(answer) => Ok(answer),
            Err(error) if mutant::is(Mutant::NoRollback) && effect.is_some() => {
                Ok(Answer { status: 500, ..Answer::text(format!("{error}\n")) })
            }
            Err(error) => Err(error),
        };
        match (told, effect) {
            (Err(error @ Error::Overloaded(_)), _) => (overlay, Ran::Refused(error)),
            (told, Some(effect)) => {
                let told = told.map(|answer| Answer {
                    revision,
                    committed: answer.committed || (answer.status >= 400 && !effect.is_empty()),
                    ..answer
                });
                let command = self.command(job, &overlay, now, effect);
                let told = told.map_err(|error| Failure::at(read_revision, error));
                (overlay, Ran::Wrote(Box::new(command), delta, told))
            }
            (Ok(answer), None) if answer.replayed => (overlay, Ran::Read(Ok(answer))),
            (Ok(answer), None) => {
                (overlay, Ran::Read(Ok(Answer { revision: read_revision, ..answer })))
            }
            (Err(error), None) => (overlay, Ran::Read(Err(Failure::at(read_revision, error)))),
        }
    }

    fn deletion(&self, job: &Job, answer: &Answer, now: u64) -> Result<Effect> {
        let directory = match &job.once {
            Some(once) => {
                let seconds = self.executor.settings.recorded_seconds;
                recorded::rows(&once.within(self.bucket_name), answer, now, seconds)?
            }
            None => Vec::new(),
        };
        Ok(Effect::DeleteBucket { directory })
    }

    fn create_bucket(
        &self,
        job: &Job,
        name: &BucketName,
        patch: &PolicyPatch,
        mut txn: Transaction,
    ) -> (Overlay, Ran) {
        let rows = self.creation(job, name, patch, &mut txn);
        let (now, revision, lapsed) = (txn.now(), txn.read_revision(), txn.has_lapsed());
        let (overlay, directory, delta) = txn.finish();
        let told = |error| Err(Failure { error, revision: None });
        match rows {
            Ok(Created::Before(answer)) => (overlay, Ran::Read(Ok(answer))),
            Ok(Created::Now(rows, answer)) => {
                let effect = Effect::CreateBucket { name: name.clone(), rows, directory };
                let command = self.command(job, &overlay, now, effect);
                (overlay, Ran::Wrote(Box::new(command), delta, Ok(answer)))
            }
            Err(error) if lapsed => {
                let command = self.command(job, &overlay, now, Effect::Write(Vec::new()));
                (overlay, Ran::Wrote(Box::new(command), delta, told(error)))
            }
            Err(error) => {
                debug_assert!(revision > 0 || overlay.is_empty(), "the directory has a revision");
                (overlay, Ran::Read(told(error)))
            }
        }
    }

    fn creation(
        &self,
        job: &Job,
        name: &BucketName,
        patch: &PolicyPatch,
        txn: &mut Transaction,
    ) -> Result<Created> {
        if let Some(once) = &job.once
            && let Some(answer) = repeat_recorded(txn, once)?
        {
            return Ok(Created::Before(with_first_revision(answer, txn)?));
        }
        if txn.row(&Row::bucket(name))?.is_some() {
            return Err(Error::Conflict(format!("the bucket `{name}` exists already")));
        }
        let policy = encoding::encode(&patch.create()?)?;
        let rows = vec![Write { row: Row::policy(), value: Some(policy.into()) }];
        let answer = Answer { status: 201, ..Answer::text(name.to_string()) };
        if let Some(once) = &job.once {
            recorded::keep(txn, once, &answer, self.executor.settings.recorded_seconds)?;
        }
        Ok(Created::Now(rows, answer))
    }

    fn keep_up(&self, job: &Job, upkeep: Upkeep, mut txn: Transaction) -> (Overlay, Ran) {
        let (swept, effect): (_, fn(Vec<Write>) -> Effect) = match upkeep {
            Upkeep::Tick { .. } => (Ok(false), Effect::Write),
            Upkeep::Sweep => (txn.sweep(SWEEP_ROWS_MAX), Effect::Sweep),
        };
        let now = txn.now();
        let (overlay, writes, delta) = txn.finish();
        let wanted = match upkeep {
            Upkeep::Tick { until } => overlay.now() < until.min(now),
            Upkeep::Sweep => !writes.is_empty(),
        };
        match swept {
            Ok(more) => {
                let answer = Ok(Answer::text(if more { MORE } else { "" }));
                if !wanted {
                    return (overlay, Ran::Read(answer));
                }
                let command = self.command(job, &overlay, now, effect(writes));
                (overlay, Ran::Wrote(Box::new(command), delta, answer))
            }
            Err(error) => (overlay, Ran::Read(Err(error.into()))),
        }
    }

    fn command(&self, job: &Job, overlay: &Overlay, now: u64, effect: Effect) -> Command {
        let id = CommandId { term: self.term, seq: self.executor.next_sequence() };
        Command { bucket: self.bucket, prev: overlay.head(), id, now, seed: job.seed, effect }
    }

    fn run_script(
        &mut self,
        call: &ScriptCall,
        credential: &Credential,
        job: &Job,
        mut txn: Transaction,
    ) -> (Transaction, Result<Answer>) {
        let (grant, script) = match find_script(call, credential, &mut txn) {
            Ok(found) => found,
            Err(error) => return (txn, Err(error)),
        };
        let owner = grant.owner;
        if script.mode.readonly {
            txn.forbid_writes();
        }
        let call = script::Call {
            name: call.name.clone(),
            grant: if script.mode.as_owner { Grant::owner() } else { grant },
            script,
            vars: Arc::clone(&call.vars),
            request: Arc::clone(&call.request),
            seed: job.seed,
        };
        let limits = &self.executor.settings.limits;
        let vm = match &mut self.vm {
            Some(vm) => vm,
            empty => match Vm::new(limits.clone()) {
                Ok(vm) => empty.insert(vm),
                Err(error) => return (txn, Err(error)),
            },
        };
        let begun = Instant::now();
        let report = vm.run(&call, txn, Rc::clone(&self.watch));
        report.write_log(&call);
        self.executor.stats.count(
            self.bucket,
            &call.name,
            &Run {
                failed: report.result.is_err(),
                again: job.attempts > 0,
                cost: report.cost,
                took: begun.elapsed(),
            },
        );
        (report.txn, report.result.map_err(|error| shown(error, owner)))
    }
}

/// A bucket's first revision is its number, which nobody knows when its creation is recorded.
fn with_first_revision(answer: Answer, txn: &mut Transaction) -> Result<Answer> {
    let name = BucketName::parse(&String::from_utf8_lossy(&answer.body))?;
    let revision = match txn.row(&Row::bucket(&name))? {
        Some(bytes) => encoding::decode::<BucketId>("directory row", &bytes)?.0,
        // Deleted since.
        None => 0,
    };
    Ok(Answer { revision, ..answer })
}

/// What a creation comes to.
enum Created {
    /// The same call was completed before.
    Before(Answer),
    /// These are the bucket's first rows.
    Now(Vec<Write>, Answer),
}

/// The script of a call, and what its caller may do.
pub fn find_script(
    call: &ScriptCall,
    credential: &Credential,
    txn: &mut Transaction,
) -> Result<(Grant, Arc<crate::kv::Script>)> {
    let grant = grant(txn, credential)?;
    grant.check_execute(&call.name)?;
    let script = txn.script(&call.name)?;
    Ok((grant, script.ok_or_else(|| Error::not_found(Missing::Script, call.name.as_str()))?))
}

/// The answer that was given before under the call's key. Whoever asks must still be allowed to.
fn repeat(
    request: &Request,
    once: &Once,
    bucket: &str,
    txn: &mut Transaction,
) -> Result<Option<Answer>> {
    match request {
        Request::Operation(operation, credential) => {
            operation.check_authority(&grant(txn, credential)?)?;
            if matches!(operation, Operation::DeleteBucket) {
                // The bucket may be another life of the name that was to be deleted.
                return recorded::find_deletion(txn, &once.within(bucket));
            }
        }
        Request::Run(call, credential) => grant(txn, credential)?.check_execute(&call.name)?,
        Request::CreateBucket(..) | Request::Upkeep(_) => return Ok(None),
    }
    repeat_recorded(txn, once)
}

fn repeat_recorded(txn: &mut Transaction, once: &Once) -> Result<Option<Answer>> {
    let answer = recorded::find(txn, once)?;
    if answer.is_none() {
        recorded::check_room(txn)?;
    }
    Ok(answer)
}

fn is_deletion(request: &Request) -> bool {
    matches!(request, Request::Operation(Operation::DeleteBucket, _))
}

/// An error of a script as its caller may see it: the Lua stack is only for the owner.
pub fn shown(error: Error, owner: bool) -> Error {
    match error {
        Error::Script { message, .. } if !owner => Error::Script { message, traceback: None },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Missing;

    #[test]
    fn only_the_owner_sees_the_stack() {
        let script = |traceback: Option<&str>| Error::Script {
            message: "script `a` line 1: x".to_owned(),
            traceback: traceback.map(str::to_owned),
        };
        assert_eq!(shown(script(Some("a:1")), true), script(Some("a:1")));
        assert_eq!(shown(script(Some("a:1")), false), script(None));
        let missing = Error::not_found(Missing::Script, "a");
        assert_eq!(shown(missing.clone(), false), missing);
    }
}
