//! Scripts that do not write, on any node: read-only ones and dry runs.
//!
//! Whether a script is read-only is part of its upload, and judged in the view that the call runs on. A node
//! that only believes so, by its own state, takes such a view first; where it was wrong, the leader is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Consistency, Node, ScriptCall};
use crate::encoding;
use crate::error::{Failure, Result};
use crate::executor::{Told, find_script, shown};
use crate::kv::{
    Answer, BucketName, Credential, Grant, Record, Row, Script, ScriptMode, ScriptName, Table,
    Transaction, grant, store,
};
use crate::script::{self, Report};

/// What a dry run came to.
#[derive(Debug)]
pub struct DryRun {
    /// The bucket's revision that it ran on.
    pub revision: u64,
    /// What the caller would have been told.
    pub result: Result<Answer>,
    /// Keys that it read, in the order of the first time.
    pub reads: Vec<Bytes>,
    /// Keys that it would have written, in byte order, with their values; `None` where removed.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// The lines that it logged.
    pub log: Vec<String>,
    /// What it cost.
    pub cost: script::Cost,
    /// How long it ran.
    pub took: Duration,
}

impl Node {
    /// Whether this node believes that a script is read-only. To be asked before a call is sent elsewhere.
    pub fn may_be_readonly(&self, bucket: &BucketName, name: &ScriptName) -> Result<bool> {
        let state = self.state().latest();
        match store::bucket_id(&state, bucket)? {
            Some(id) => Ok(store::row(&state, id, &Row::readonly(name))?.is_some()),
            None => Ok(false),
        }
    }

    /// Runs a read-only script on a view; `None` where it is not read-only there. The age is that of a
    /// stale view.
    pub async fn run_readonly(
        &self,
        bucket: &BucketName,
        call: &ScriptCall,
        credential: &Credential,
        consistency: Consistency,
    ) -> Result<Option<(Told, Option<Duration>)>> {
        let (mut txn, age) = self.read_with(bucket, consistency).await?;
        let revision = txn.read_revision();
        let found = find_script(call, credential, &mut txn);
        let (grant, script) = match found {
            Ok((_, script)) if !script.mode.readonly => return Ok(None),
            Ok(found) => found,
            Err(error) => return Ok(Some((Err(Failure::at(revision, error)), age))),
        };
        txn.forbid_writes();
        let owner = grant.owner;
        let call = self.view_call(call.clone(), script, grant);
        let result = match self.readers().run(call, txn, true).await {
            Ok(report) => report.result.map_err(|error| shown(error, owner)),
            Err(error) => Err(error),
        };
        let told = match result {
            Ok(answer) => Ok(Answer { revision, ..answer }),
            Err(error) => Err(Failure::at(revision, error)),
        };
        Ok(Some((told, age)))
    }

    /// Runs a source on a view for the bucket's owner, and tells what it would do.
    pub async fn dry_run(
        &self,
        bucket: &BucketName,
        call: ScriptCall,
        source: String,
        credential: &Credential,
    ) -> std::result::Result<DryRun, Failure> {
        let mut txn = self.read(bucket).await?;
        let revision = txn.read_revision();
        let owned = |txn: &mut Transaction| {
            let grant = grant(txn, credential)?;
            grant.check_owner().map(|()| grant)
        };
        let grant = owned(&mut txn).map_err(|error| Failure::at(revision, error))?;
        txn.trace_reads();
        let sha256 = Sha256::digest(source.as_bytes()).into();
        let script = Script { version: revision, sha256, source, mode: ScriptMode::default() };
        let script = Arc::new(script);
        let begun = Instant::now();
        let report = self.readers().run(self.view_call(call, script, grant), txn, false).await?;
        let took = begun.elapsed();
        let Report { txn, result, cost, log } = report;
        let (reads, writes) = (txn.traced_reads().to_vec(), key_writes(&txn)?);
        Ok(DryRun { revision, result, reads, writes, log, cost, took })
    }

    fn view_call(&self, call: ScriptCall, script: Arc<Script>, grant: Grant) -> script::Call {
        let ScriptCall { name, vars, request } = call;
        let grant = if script.mode.as_owner { Grant::owner() } else { grant };
        script::Call { name, script, vars, request, grant, seed: self.seed() }
    }
}

fn key_writes(txn: &Transaction) -> Result<Vec<(Bytes, Option<Bytes>)>> {
    let keys = txn.writes().filter(|(row, _)| row.table == Table::Key);
    let value = |bytes: &Bytes| -> Result<Bytes> {
        let record: Record = encoding::decode("record", bytes)?;
        Ok(record.value)
    };
    keys.map(|(row, bytes)| Ok((row.name.clone(), bytes.map(value).transpose()?))).collect()
}
