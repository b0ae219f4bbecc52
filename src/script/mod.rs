//! The guest: Luau over a transaction. (skeleton of the public surface)
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Result;
use crate::kv::{Answer, Grant, Script, ScriptName, Transaction};

/// The HTTP request that called the script: `kvdb.req`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Headers, names in lower case; never the credential.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// One call of one script.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name, for error messages.
    pub name: ScriptName,
    /// Source and digest, read in the same transaction.
    pub script: Script,
    /// `kvdb.var`: query, then form, then `remote_addr`.
    pub vars: BTreeMap<String, String>,
    /// `kvdb.req`.
    pub request: Request,
    /// What the caller may do: where `kvdb.scope` begins.
    pub grant: Grant,
    /// Where random numbers begin.
    pub seed: u64,
}

/// What one call may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Interrupts: calls, loop turns, pattern steps.
    pub fuel: u64,
    /// Wall clock in milliseconds; kept by the [`Watch`], here for the message.
    pub time_ms: u64,
    /// Memory of the VM in bytes, above what an idle one takes.
    pub memory_bytes: usize,
    /// Bytes that a script may print.
    pub output_bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
}

/// Whoever keeps the time: called now and then while a script runs; an error ends the script, and
/// the script cannot catch it.
pub trait Watch {
    /// May the script go on?
    fn check(&self) -> Result<()>;
}

/// Compiles a source without running it; the error names the line.
pub fn check(_name: &ScriptName, _source: &str) -> Result<()> {
    todo!()
}

/// A Luau virtual machine with its cache of compiled scripts; owned by one thread.
pub struct Vm {}

impl Vm {
    /// Makes a sandboxed machine.
    pub fn new(_limits: Limits) -> Result<Self> {
        todo!()
    }

    /// Runs one call. The transaction comes back with the writes that are to be committed: none where
    /// the script failed, aborted or answered 400 or above without `kvdb.commit()`.
    pub fn run(
        &mut self,
        _call: &Call,
        _txn: Transaction,
        _watch: std::rc::Rc<dyn Watch>,
    ) -> (Transaction, Result<Answer>) {
        todo!()
    }
}
