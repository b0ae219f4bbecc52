//! The guest: Luau over a transaction. What a script may see, and what it may cost.
//!
//! A [`Vm`] belongs to one thread and is kept: its host functions are registered once, compiled scripts
//! are cached by their digest, and a call brings only a fresh table of globals. The state of the call
//! (transaction, answer, scope) lies in one cell that all host functions share and that is empty
//! between calls.
//!
//! Invariants, each held by tests:
//! - *A script sees its own call.* Globals are new in each call and everything behind them is frozen.
//!   What exists is what the allow-lists in `sandbox.rs` name; all else is removed before the first call.
//! - *A limit cannot be caught.* What ends a script is kept outside of Lua (`budget.rs`): once there is
//!   a fault, every interrupt and every host function fails, and the fault is the result whatever the
//!   script returned. A machine that met one is thrown away.
//! - *A module is part of the call.* What `require` reads is of the transaction's state, runs within the
//!   call's limits, and is forgotten with the call (`modules.rs`).
//! - *No work goes unmetered.* Luau calls the interrupt in loops, calls and pattern steps. Library
//!   functions that could run long between two interrupts are wrapped or bounded (`prelude.luau`).
//! - *Compiling is bounded by the source.* It cannot be interrupted, so nothing is inlined, and
//!   bytecode has a limit (`cache.rs`).
//! - *A call is deterministic.* Time and randomness come from the transaction and the call; no text
//!   shows an address. The exceptions are the wall clock limit, the order of `pairs` over keys
//!   that are tables or functions, and weak tables.
//! - *Nothing beyond the grant.* Every function asks the scope, which only narrows, and a token that a
//!   script makes out permits at most the scope (`scope.rs`, `access.rs`).
//! - *A read-only call writes nothing.* Its transaction refuses every write; the script is told `err`.
//! - *Writes stay or go as one.* The transaction comes back with its writes only where the script
//!   ended well with a status below 400, or said `kvdb.commit()`.
//!
//! A host function tells three kinds of failure apart: misuse (a table for a key) is a Lua error; what
//! data or permissions refuse is returned as `err`; damage and limits end the script.

mod access;
mod api;
mod budget;
mod cache;
mod codec;
mod engine;
mod fault;
mod host;
mod json;
mod log;
mod modules;
mod random;
mod response;
mod sandbox;
mod scope;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::kv::limits::SCRIPT_SOURCE_BYTES_MAX;
use crate::kv::{Answer, Grant, Script, ScriptName, Transaction};

pub use engine::Vm;

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
    pub script: Arc<Script>,
    /// `kvdb.var`: query, then form, then `remote_addr`.
    pub vars: Arc<BTreeMap<String, String>>,
    /// `kvdb.req`.
    pub request: Arc<Request>,
    /// What the caller may do: where `kvdb.scope` begins.
    pub grant: Grant,
    /// Where random numbers begin.
    pub seed: u64,
}

/// What became of a call.
pub struct Report {
    /// The transaction, with the writes that are to be committed.
    pub txn: Transaction,
    /// The answer, or what ended the script.
    pub result: Result<Answer>,
    /// What the call used.
    pub cost: Cost,
    /// The lines of `kvdb.log`, also where the script failed.
    pub log: Vec<String>,
}

impl Report {
    /// Writes the script's lines to the node's log: for whoever ran the call in earnest.
    pub fn write_log(&self, call: &Call) {
        for line in &self.log {
            tracing::info!(script = call.name.as_str(), path = call.request.path, "{line}");
        }
    }
}

/// What one call used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// As of [`Limits::fuel`].
    pub fuel: u64,
    /// The most memory that was seen in use, as of [`Limits::memory_bytes`].
    pub memory_bytes: usize,
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

impl Limits {
    /// What a [`Watch`] answers once the wall clock has run out.
    #[must_use]
    pub fn time_error(&self) -> Error {
        Error::ScriptLimit { limit: "time", max: format!("{} ms", self.time_ms) }
    }
}

/// Whoever keeps the time: called now and then while a script runs; an error ends the script, and
/// the script cannot catch it.
pub trait Watch {
    /// May the script go on?
    fn check(&self) -> Result<()>;
}

/// Compiles a source without running it; the error names the line.
pub fn check(name: &ScriptName, source: &str) -> Result<()> {
    if source.len() > SCRIPT_SOURCE_BYTES_MAX {
        return Err(Error::TooLarge { limit: "a script", max: SCRIPT_SOURCE_BYTES_MAX as u64 });
    }
    let bytecode = cache::compile(source).map_err(|error| {
        Error::Invalid(fault::message(name.as_str(), &fault::compile_text(&error)))
    })?;
    cache::bounded(bytecode).map(drop)
}
