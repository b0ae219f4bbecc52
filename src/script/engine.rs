//! The machine that a thread keeps: when it is made, used and thrown away.

use std::cell::Cell;
use std::rc::Rc;

use mlua::Function;

use super::budget::is_out_of_memory;
use super::cache::{self, Cache};
use super::host::Host;
use super::sandbox::Sandbox;
use super::{Call, Cost, Limits, Report, Watch, fault};
use crate::error::{Error, Result};
use crate::kv::{Answer, Transaction};
use crate::mutant::{self, Mutant};

/// Runs after which a machine is replaced, so that nothing can pile up in one.
const RUNS_MAX: u64 = 10_000;
/// Garbage above what an idle machine takes that is worth a full collection between two calls.
const GARBAGE_BYTES_MAX: usize = 1 << 20;

/// A Luau virtual machine with its cache of compiled scripts; owned by one thread.
pub struct Vm {
    host: Rc<Host>,
    machine: Option<Machine>,
    cache: Cache,
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
            cache: Cache::default(),
            #[cfg(test)]
            machines_made: 0,
        };
        vm.prepare()?;
        Ok(vm)
    }

    /// Runs one call. The transaction comes back with the writes that are to be committed: none where
    /// the script failed, aborted or answered 400 or above without `kvdb.commit()`.
    pub fn run(&mut self, call: &Call, txn: Transaction, watch: Rc<dyn Watch>) -> Report {
        let (txn, result) = self.run_call(call, txn, watch);
        Report { txn, result, cost: Cost::default(), log: Vec::new() }
    }

    fn run_call(
        &mut self,
        call: &Call,
        mut txn: Transaction,
        watch: Rc<dyn Watch>,
    ) -> (Transaction, Result<Answer>) {
        let function = match self.prepare().and_then(|()| self.load(call)) {
            Ok(function) => function,
            Err(error) => {
                txn.discard();
                return (txn, Err(error));
            }
        };
        let Some(machine) = &mut self.machine else {
            txn.discard();
            return (txn, Err(Error::Internal("no machine".to_owned())));
        };
        machine.runs += 1;
        let (txn, result, spoilt) = machine.run(&self.host, call, &function, txn, watch);
        drop(function);
        if spoilt || machine.runs >= RUNS_MAX {
            self.cache.unload();
            self.machine = None;
        }
        (txn, result)
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

    /// The script as a function of the machine, compiled and loaded at most once.
    fn load(&mut self, call: &Call) -> Result<Function> {
        let id = (call.script.sha256, call.name.clone());
        if let Some(function) = self.cache.function(&id) {
            return Ok(function);
        }
        let failed = |error| fault::script_error(call.name.as_str(), &error);
        let bytecode = match self.cache.bytecode(&id) {
            Some(bytecode) => bytecode,
            None => {
                let bytecode = cache::compile(&call.script.source).map_err(failed)?;
                cache::bounded(bytecode)?.into()
            }
        };
        let Some(machine) = &self.machine else {
            return Err(Error::Internal("no machine".to_owned()));
        };
        let function = machine.sandbox.load(call.name.as_str(), &bytecode).map_err(failed)?;
        self.cache.insert(id, bytecode, function.clone());
        Ok(function)
    }

    #[cfg(test)]
    pub(super) fn machines_made(&self) -> u64 {
        self.machines_made
    }

    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.len()
    }

    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }
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
    ) -> (Transaction, Result<Answer>, bool) {
        let lua = &self.sandbox.lua;
        let used = lua.used_memory();
        host.begin(call, txn);
        host.budget.begin(watch, used);
        let ended = self.call(function, used + host.budget.limits().memory_bytes);
        let fault = host.budget.end();
        let Some(session) = host.end() else {
            unreachable!("the session of a running call is only taken here");
        };
        let mut txn = session.txn;
        let (result, spoilt) = match (fault, ended) {
            (Some(fault), _) => (Err(fault), true),
            (None, Err(error)) if !session.response.has_ended() => {
                if is_out_of_memory(&error) {
                    (Err(host.budget.memory_error()), true)
                } else {
                    (Err(fault::script_error(call.name.as_str(), &error)), false)
                }
            }
            _ => (Ok(session.response.finish()), false),
        };
        let result = result.map(|(answer, keep)| {
            if !keep {
                txn.discard();
            }
            answer
        });
        if result.is_err() && !mutant::is(Mutant::NoRollback) {
            txn.discard();
        }
        (txn, result, spoilt | self.tidy(lua).is_err())
    }

    /// Calls with fresh globals under the memory limit.
    fn call(&self, function: &Function, memory_limit: usize) -> mlua::Result<()> {
        let lua = &self.sandbox.lua;
        function.set_environment(self.sandbox.environment()?)?;
        lua.set_memory_limit(memory_limit)?;
        let ended = function.call::<()>(());
        lua.set_memory_limit(0)?;
        // The call's globals must not live as long as the cached function.
        function.set_environment(lua.globals())?;
        ended
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
