//! The machine that a thread keeps: when it is made, used and thrown away.

use std::cell::Cell;
use std::rc::Rc;

use mlua::Function;

use super::budget::is_out_of_memory;
use super::host::{Host, Session};
use super::modules;
use super::sandbox::Sandbox;
use super::{Call, Cost, Limits, Report, Watch, fault};
use crate::error::{Error, Result};
use crate::kv::Transaction;
use crate::mutant::{self, Mutant};

/// Runs after which a machine is replaced, so that nothing can pile up in one.
const RUNS_MAX: u64 = 10_000;
/// Garbage above what an idle machine takes that is worth a full collection between two calls.
const GARBAGE_BYTES_MAX: usize = 1 << 20;

/// A Luau virtual machine with its cache of compiled scripts; owned by one thread.
pub struct Vm {
    host: Rc<Host>,
    machine: Option<Machine>,
    #[cfg(test)]
    machines_made: u64,
}

struct Machine {
    sandbox: Sandbox,
    /// Memory in use after the last full collection.
    idle_bytes: Cell<usize>,
    runs: u64,
}

impl Vm {
    /// Makes a sandboxed machine.
    pub fn new(limits: Limits) -> Result<Self> {
        let mut vm = Vm {
            host: Rc::new(Host::new(limits)),
            machine: None,
            #[cfg(test)]
            machines_made: 0,
        };
        vm.prepare()?;
        Ok(vm)
    }

    /// Runs one call. The transaction comes back with the writes that are to be committed: none where
    /// the script failed, aborted or answered 400 or above without `kvdb.commit()`.
    pub fn run(&mut self, call: &Call, txn: Transaction, watch: Rc<dyn Watch>) -> Report {
        if let Err(error) = self.prepare() {
            return unrun(txn, error);
        }
        let Some(machine) = &mut self.machine else {
            return unrun(txn, Error::Internal("no machine".to_owned()));
        };
        let lua = &machine.sandbox.lua;
        let function = match modules::load(&self.host, lua, &call.name, &call.script) {
            Ok(function) => function,
            Err(error) => return unrun(txn, error),
        };
        machine.runs += 1;
        let (report, spoilt) = machine.run(&self.host, call, &function, txn, watch);
        drop(function);
        if spoilt || machine.runs >= RUNS_MAX {
            self.host.cache.borrow_mut().unload();
            self.machine = None;
        }
        report
    }

    /// Makes a machine where there is none.
    fn prepare(&mut self) -> Result<()> {
        if self.machine.is_none() {
            let internal = |error| Error::Internal(format!("script machine: {error}"));
            let sandbox = Sandbox::new(&self.host).map_err(internal)?;
            sandbox.lua.gc_collect().map_err(internal)?;
            let idle_bytes = Cell::new(sandbox.lua.used_memory());
            self.machine = Some(Machine { sandbox, idle_bytes, runs: 0 });
            #[cfg(test)]
            {
                self.machines_made += 1;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn machines_made(&self) -> u64 {
        self.machines_made
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.host.cache.borrow().len()
    }

    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> usize {
        self.host.cache.borrow().bytes()
    }
}

/// The report of a call that did not begin.
fn unrun(mut txn: Transaction, error: Error) -> Report {
    txn.discard();
    Report { txn, result: Err(error), cost: Cost::default(), log: Vec::new() }
}

impl Machine {
    /// Runs a function for a call; the last result is whether the machine must be thrown away.
    fn run(
        &self,
        host: &Host,
        call: &Call,
        function: &Function,
        txn: Transaction,
        watch: Rc<dyn Watch>,
    ) -> (Report, bool) {
        let lua = &self.sandbox.lua;
        let used = lua.used_memory();
        host.begin(call, txn);
        host.budget.begin(watch, used);
        let ended = self.call(function, used + host.budget.limits().memory_bytes);
        let cost = host.budget.cost(lua.used_memory());
        let fault = host.budget.end();
        let Some(session) = host.end() else {
            unreachable!("the session of a running call is only taken here");
        };
        let spoilt = fault.is_some() || ended.as_ref().is_err_and(is_out_of_memory);
        let result = outcome(host, &session, fault, ended);
        let Session { mut txn, response, log, .. } = session;
        let result = result.map(|()| {
            let (answer, keep) = response.finish();
            if !keep {
                txn.discard();
            }
            answer
        });
        if result.is_err() && !mutant::is(Mutant::NoRollback) {
            txn.discard();
        }
        let report = Report { txn, result, cost, log: log.finish() };
        (report, spoilt | self.tidy(lua).is_err())
    }

    /// Calls with fresh globals under the memory limit.
    fn call(&self, function: &Function, memory_limit: usize) -> mlua::Result<()> {
        let lua = &self.sandbox.lua;
        lua.set_memory_limit(memory_limit)?;
        let ended = self.sandbox.environments.call(lua, function);
        lua.set_memory_limit(0)?;
        ended.map(drop)
    }

    /// Collects garbage where a call left much of it.
    fn tidy(&self, lua: &mlua::Lua) -> mlua::Result<()> {
        if lua.used_memory() > self.idle_bytes.get() + GARBAGE_BYTES_MAX {
            lua.gc_collect()?;
            self.idle_bytes.set(lua.used_memory());
        }
        Ok(())
    }
}

/// What ended the call, where it did not end well.
fn outcome(
    host: &Host,
    session: &Session,
    fault: Option<Error>,
    ended: mlua::Result<()>,
) -> Result<()> {
    match (fault, ended) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) if !session.response.has_ended() => {
            if is_out_of_memory(&error) {
                Err(host.budget.memory_error())
            } else {
                Err(fault::script_error(session.modules.names(), &error))
            }
        }
        _ => Ok(()),
    }
}
