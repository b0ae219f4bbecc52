//! Scripts as functions: the one that is called, and those that it asks for by `require`.
//!
//! A module is another script of the bucket, read in the transaction of the call, so that a call never
//! mixes two states of its code. It runs once a call, with globals of its own, and what it returns is
//! what every `require` of the call gets; nothing of it lives on in the next call. It may do what its
//! caller may: how it was uploaded (`readonly`, `run_as`) only counts where it is called itself.
//!
//! A module runs within its caller's call: the same fuel, memory and clock, and the source of a module is
//! paid for whether or not it is compiled already, so that what a call costs does not depend on the
//! machine that it meets.

use std::rc::Rc;

use mlua::{Function, Lua, Table, Value};

use super::budget::is_out_of_memory;
use super::host::{Host, field_name, function, unguarded};
use super::value::{raise, type_name};
use super::{cache, fault};
use crate::error::{Error, Missing, Result};
use crate::kv::{Script, ScriptName};

/// Modules of a call.
const MODULES_MAX: usize = 64;
/// Modules that wait for each other.
const DEPTH_MAX: usize = 16;
/// Bytes of source that compile in about the time of one interrupt.
const SOURCE_BYTES_PER_STEP: usize = 16;

/// The scripts of a call.
pub(super) struct Modules {
    /// The called script, then its modules in the order in which they were asked for, each with its
    /// result once it has one.
    known: Vec<(ScriptName, Option<Value>)>,
    /// Which of them run, outermost first.
    running: Vec<usize>,
}

impl Modules {
    pub(super) fn new(called: ScriptName) -> Self {
        Modules { known: vec![(called, None)], running: vec![0] }
    }

    /// Whose lines an error may name.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.known.iter().map(|(name, _)| name.as_str())
    }

    fn find(&self, name: &ScriptName) -> Option<usize> {
        self.known.iter().position(|(known, _)| known == name)
    }

    /// The result of a module that ran; an error where it may not run.
    fn result(&self, name: &ScriptName) -> std::result::Result<Option<Value>, String> {
        let found = self.find(name);
        if let Some(at) = self.running.iter().position(|running| Some(*running) == found) {
            let circle = self.running.iter().skip(at).chain(&found);
            let names = circle.filter_map(|index| self.known.get(*index));
            let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
            return Err(format!("modules that require each other: {}", names.join(" → ")));
        }
        if self.running.len() > DEPTH_MAX {
            return Err(format!("`{name}` is more than {DEPTH_MAX} modules deep"));
        }
        if found.is_none() && self.known.len() > MODULES_MAX {
            return Err(format!("`{name}` is one more than {MODULES_MAX} modules"));
        }
        Ok(found.and_then(|at| self.known.get(at)?.1.clone()))
    }

    fn begin(&mut self, name: &ScriptName) {
        let at = self.find(name).unwrap_or_else(|| {
            self.known.push((name.clone(), None));
            self.known.len() - 1
        });
        self.running.push(at);
    }

    fn end(&mut self, result: Option<Value>) {
        if let Some(module) = self.running.pop().and_then(|at| self.known.get_mut(at)) {
            module.1 = result;
        }
    }
}

/// Makes the globals of a script: what it sets is its own, and reads fall through to what all have.
#[derive(Clone)]
pub(super) struct Environments {
    pub(super) kvdb: Table,
    pub(super) metatable: Table,
}

impl Environments {
    pub(super) fn fresh(&self, lua: &Lua) -> mlua::Result<Table> {
        unguarded(lua, 0, || self.make(lua))
    }

    fn make(&self, lua: &Lua) -> mlua::Result<Table> {
        let environment = lua.create_table_with_capacity(0, 2)?;
        environment.raw_set("kvdb", &self.kvdb)?;
        environment.raw_set("_G", &environment)?;
        environment.set_metatable(Some(self.metatable.clone()))?;
        // The frozen globals behind it cannot change, so Luau may resolve names when it loads.
        environment.set_safeenv(true);
        Ok(environment)
    }

    /// Calls a script's function with fresh globals.
    pub(super) fn call(&self, lua: &Lua, function: &Function) -> mlua::Result<Value> {
        function.set_environment(self.fresh(lua)?)?;
        let result = function.call(());
        // The globals must not live as long as the cached function.
        function.set_environment(lua.globals())?;
        result
    }
}

/// A script as a function of the machine, compiled and loaded at most once.
pub(super) fn load(host: &Host, lua: &Lua, name: &ScriptName, script: &Script) -> Result<Function> {
    let id = (script.sha256, name.clone());
    let mut cache = host.cache.borrow_mut();
    if let Some(function) = cache.function(&id) {
        return Ok(function);
    }
    let failed = |error: mlua::Error| {
        if is_out_of_memory(&error) {
            return host.budget.memory_error();
        }
        fault::script_error(std::iter::once(name.as_str()), &error)
    };
    let bytecode = match cache.bytecode(&id) {
        Some(bytecode) => bytecode,
        None => {
            let bytecode = cache::compile(&script.source).map_err(failed)?;
            cache::bounded(bytecode)?.into()
        }
    };
    let function = cache::function(lua, name, &bytecode).map_err(failed)?;
    cache.insert(id, bytecode, function.clone());
    Ok(function)
}

/// Makes `require`.
pub(super) fn require(
    lua: &Lua,
    host: &Rc<Host>,
    environments: &Environments,
) -> mlua::Result<Function> {
    let environments = environments.clone();
    function(lua, host, move |host, lua, name: Value| {
        let name = module_name(lua, &name)?;
        host.budget.charge(1)?;
        let known = host.session()?.modules.result(&name);
        if let Some(result) = known.map_err(|error| raise(lua, &error))? {
            return Ok(result);
        }
        let function = module(host, lua, &name)?;
        host.session()?.modules.begin(&name);
        let result = environments.call(lua, &function).map(|result| match result {
            Value::Nil => Value::Boolean(true),
            result => result,
        });
        host.session()?.modules.end(result.as_ref().ok().cloned());
        result
    })
}

fn module_name(lua: &Lua, name: &Value) -> mlua::Result<ScriptName> {
    let Some(text) = field_name(name) else {
        let got = type_name(name);
        let expected = "the name of a script of this bucket";
        return Err(raise(lua, &format!("`require` takes {expected}, not a {got}")));
    };
    ScriptName::parse(&text).map_err(|error| raise(lua, &error.to_string()))
}

/// Reads, compiles and loads a module.
fn module(host: &Host, lua: &Lua, name: &ScriptName) -> mlua::Result<Function> {
    let found = host.session()?.txn.script(name).map_err(|error| host.budget.fail(error))?;
    let Some(script) = found else {
        let missing = Error::not_found(Missing::Script, name.as_str());
        return Err(raise(lua, &missing.to_string()));
    };
    host.budget.charge(script.source.len() / SOURCE_BYTES_PER_STEP)?;
    load(host, lua, name, &script).map_err(|error| match error {
        Error::Script { message, .. } => raise(lua, &message),
        error => host.budget.fail(error),
    })
}
