//! The host's side of a running call, shared by all host functions: one cell, empty between calls.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua, LuaString, MultiValue, Table, Value};

use super::budget::Budget;
use super::cache::Cache;
use super::log::Log;
use super::modules::Modules;
use super::random::Random;
use super::response::Response;
use super::scope::Scope;
use super::value::{self, raise, type_name};
use super::{Call, Limits, Request};
use crate::error::Result;
use crate::kv::{Key, Permission, Transaction};

/// What host functions work on.
pub(super) struct Host {
    pub(super) budget: Budget,
    pub(super) random: Random,
    pub(super) cache: RefCell<Cache>,
    session: RefCell<Option<Session>>,
}

/// The state of one call.
pub(super) struct Session {
    pub(super) txn: Transaction,
    pub(super) scope: Scope,
    pub(super) response: Response,
    pub(super) modules: Modules,
    pub(super) log: Log,
    /// What ids of tokens are made of: the call's seed, and how many there are.
    pub(super) seed: u64,
    pub(super) tokens: u64,
    pub(super) vars: Arc<BTreeMap<String, String>>,
    pub(super) request: Arc<Request>,
    /// `kvdb.var` and `kvdb.req`, once the script has looked at them.
    pub(super) var_table: Option<Table>,
    pub(super) req_table: Option<Table>,
}

impl Host {
    pub(super) fn new(limits: Limits) -> Self {
        Host {
            budget: Budget::new(limits),
            random: Random::default(),
            cache: RefCell::default(),
            session: RefCell::new(None),
        }
    }

    /// Opens the cell for a call.
    pub(super) fn begin(&self, call: &Call, txn: Transaction) {
        self.random.begin(call.seed);
        *self.session.borrow_mut() = Some(Session {
            txn,
            scope: Scope::new(call.grant.clone()),
            response: Response::default(),
            modules: Modules::new(call.name.clone()),
            log: Log::default(),
            seed: call.seed,
            tokens: 0,
            vars: Arc::clone(&call.vars),
            request: Arc::clone(&call.request),
            var_table: None,
            req_table: None,
        });
    }

    /// Empties the cell.
    pub(super) fn end(&self) -> Option<Session> {
        self.session.borrow_mut().take()
    }

    /// The running call. Nothing that runs Lua code may be called while it is borrowed.
    pub(super) fn session(&self) -> mlua::Result<RefMut<'_, Session>> {
        let outside = || mlua::Error::RuntimeError("no call is running".to_owned());
        let session = self.session.try_borrow_mut().map_err(|_| outside())?;
        RefMut::filter_map(session, Option::as_mut).map_err(|_| outside())
    }

    /// Runs a database operation; see [`Budget::told`].
    pub(super) fn told<T>(
        &self,
        result: Result<T>,
    ) -> mlua::Result<std::result::Result<T, String>> {
        self.budget.told(result)
    }

    /// Milliseconds since 1970, fixed for the call.
    pub(super) fn now(&self) -> mlua::Result<u64> {
        Ok(self.session()?.txn.now())
    }

    /// Reads a key and checks the permission for it.
    pub(super) fn key(
        &self,
        lua: &Lua,
        function: &str,
        key: &Value,
        permission: Permission,
    ) -> mlua::Result<std::result::Result<Key, String>> {
        let bytes = self.string(lua, function, 1, key)?;
        let key = match Key::parse(bytes) {
            Ok(key) => key,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let session = self.session()?;
        let allowed = session.scope.check(permission, key.bytes());
        let writable = match permission {
            Permission::Write | Permission::Delete => session.txn.check_writable(),
            Permission::Read | Permission::Enumerate => Ok(()),
        };
        self.told(allowed.and(writable).map(|()| key))
    }

    /// A string argument; numbers count as their text.
    pub(super) fn string(
        &self,
        lua: &Lua,
        function: &str,
        position: usize,
        value: &Value,
    ) -> mlua::Result<Bytes> {
        if let Value::String(text) = value {
            return Ok(value::bytes(text));
        }
        match value::text(lua, value)? {
            Some(text) => Ok(value::bytes(&text)),
            None => Err(bad_argument(lua, function, position, "string", value)),
        }
    }
}

/// The Lua error for an argument of the wrong type.
pub(super) fn bad_argument(
    lua: &Lua,
    function: &str,
    position: usize,
    expected: &str,
    value: &Value,
) -> mlua::Error {
    let got = type_name(value);
    raise(
        lua,
        &format!("bad argument #{position} to `kvdb.{function}`: {expected} expected, got {got}"),
    )
}

/// Visits a table of options; `visit` is false for one that it does not know, or of a wrong type.
pub(super) fn for_each_option(
    lua: &Lua,
    function: &str,
    position: usize,
    options: &Value,
    mut visit: impl FnMut(&str, &Value) -> bool,
) -> mlua::Result<()> {
    let table = match options {
        Value::Nil => return Ok(()),
        Value::Table(table) => table,
        other => return Err(bad_argument(lua, function, position, "table", other)),
    };
    table.for_each(|name: Value, value: Value| {
        let name = field_name(&name).unwrap_or_default();
        if visit(&name, &value) {
            return Ok(());
        }
        Err(raise(
            lua,
            &format!(
                "`{}` is no option of `kvdb.{function}`, or of a wrong type",
                name.escape_default()
            ),
        ))
    })
}

/// Makes a host function: it fails once the call has been stopped, and a lack of memory in it ends
/// the call.
pub(super) fn function<A, R>(
    lua: &Lua,
    host: &Rc<Host>,
    body: impl Fn(&Host, &Lua, A) -> mlua::Result<R> + 'static,
) -> mlua::Result<Function>
where
    A: FromLuaMulti,
    R: IntoLuaMulti,
{
    let host = Rc::clone(host);
    lua.create_function(move |lua, args: A| {
        host.budget.enter()?;
        body(&host, lua, args).map_err(|error| host.budget.seen(error))
    })
}

/// An empty table whose fields are read and written by the host.
pub(super) fn proxy(lua: &Lua, read: Function, write: Function) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    freeze(lua, &table, read, write)?;
    Ok(table)
}

/// Freezes a table; fields that it does not have are the host's.
pub(super) fn freeze(
    lua: &Lua,
    table: &Table,
    read: Function,
    write: Function,
) -> mlua::Result<()> {
    let metatable = lua.create_table()?;
    metatable.raw_set("__index", read)?;
    metatable.raw_set("__newindex", write)?;
    metatable.raw_set("__metatable", false)?;
    metatable.set_readonly(true);
    table.set_metatable(Some(metatable))?;
    table.set_readonly(true);
    Ok(())
}

/// Bytes that [`unguarded`] makes without the limit.
const SMALL_BYTES: usize = 4 << 10;

/// Makes strings and tables of about so many bytes. Under a memory limit, each of them is a protected call
/// of its own, several times what it takes to make it: so for [`SMALL_BYTES`] at most the limit is lifted for a moment,
/// where it is not reached yet. It is exceeded by little more than this, once: what comes next meets it.
pub(super) fn unguarded<T>(
    lua: &Lua,
    bytes: usize,
    make: impl FnOnce() -> mlua::Result<T>,
) -> mlua::Result<T> {
    if bytes > SMALL_BYTES {
        return make();
    }
    let limit = lua.set_memory_limit(0)?;
    if limit > 0 && lua.used_memory() > limit {
        lua.set_memory_limit(limit)?;
        return make();
    }
    let made = make();
    lua.set_memory_limit(limit)?;
    made
}

/// A Lua string.
pub(super) fn lua_string(lua: &Lua, text: impl AsRef<[u8]>) -> mlua::Result<Value> {
    lua.create_string(text).map(Value::String)
}

/// A value alone, so that `kvdb.say(f(x))` prints nothing more; or no value and the error.
pub(super) fn value_or_error(
    lua: &Lua,
    result: std::result::Result<Value, String>,
) -> mlua::Result<MultiValue> {
    let results = match result {
        Ok(value) => vec![value],
        Err(error) => vec![Value::Nil, lua_string(lua, error)?],
    };
    Ok(MultiValue::from_vec(results))
}

/// The text of a field name; `None` where it is no string.
pub(super) fn field_name(name: &Value) -> Option<String> {
    match name {
        Value::String(name) => Some(LuaString::to_string_lossy(name)),
        _ => None,
    }
}
