//! `kvdb`: the table that a script sees. Each function checks its arguments, then the permission,
//! then asks the transaction.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};

use super::host::{
    Host, Session, bad_argument, field_name, for_each_option, freeze, function, lua_string,
    unguarded, value_or_error,
};
use super::value::{self, raise};
use super::{access, codec, json, log, response};
use crate::error::{Error, Result};
use crate::kv::limits::LIST_LIMIT_DEFAULT;
use crate::kv::{
    Condition, Key, Lifetime, ListRange, Number, Permission, Record, Transaction, operation,
};

/// Keys read in one go while listing; a batch adapts to the size of the values.
const BATCH_KEYS: usize = 32;
const BATCH_KEYS_MAX: usize = 1024;
/// Values that a batch should hold at most, in bytes: they lie outside of the VM's own memory.
const BATCH_BYTES: usize = 256 << 10;

/// What a variable takes in the machine beside its text.
const VAR_OVERHEAD: usize = 96;

/// Builds `kvdb`.
pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let kvdb = lua.create_table()?;
    let mark = info_mark(lua)?;
    let info_mt = mark.clone();
    let get = move |host: &Host, lua: &Lua, key| get(host, lua, &info_mt, &key);
    kvdb.raw_set("get", function(lua, host, get)?)?;
    let info_mt = mark.clone();
    let set = move |host: &Host, lua: &Lua, args| set(host, lua, &info_mt, args);
    kvdb.raw_set("set", function(lua, host, set)?)?;
    kvdb.raw_set("incr", function(lua, host, incr)?)?;
    kvdb.raw_set("delete", function(lua, host, |host, lua, key| delete(host, lua, &key))?)?;
    kvdb.raw_set("list", function(lua, host, list)?)?;
    kvdb.raw_set("now", function(lua, host, |host, _, ()| host.now())?)?;
    access::register(lua, host, &kvdb)?;
    kvdb.raw_set("json", json::table(lua, host)?)?;
    codec::register(lua, host, &kvdb)?;
    response::register(lua, host, &kvdb, &mark)?;
    log::register(lua, host, &kvdb, &mark)?;
    let read = function(lua, host, |host, lua, (_, name): (Value, Value)| field(host, lua, &name))?;
    let write = function(lua, host, |host, lua, (_, name, value): (Value, Value, Value)| {
        assign(host, lua, &name, &value)
    })?;
    freeze(lua, &kvdb, read, write)?;
    Ok(kvdb)
}

/// The fields that change from call to call.
fn field(host: &Host, lua: &Lua, name: &Value) -> mlua::Result<Value> {
    let Value::String(name) = name else { return Ok(Value::Nil) };
    match &*name.as_bytes() {
        b"status" => response::read_status(host),
        b"var" => vars(host, lua).map(Value::Table),
        b"req" => request(host, lua).map(Value::Table),
        _ => Ok(Value::Nil),
    }
}

fn assign(host: &Host, lua: &Lua, name: &Value, value: &Value) -> mlua::Result<()> {
    match field_name(name).as_deref() {
        Some("status") => response::write_status(host, lua, value),
        name => Err(raise(lua, &format!("`kvdb.{}` cannot be assigned", name.unwrap_or("?")))),
    }
}

fn vars(host: &Host, lua: &Lua) -> mlua::Result<Table> {
    let mut session = host.session()?;
    if let Some(table) = &session.var_table {
        return Ok(table.clone());
    }
    let cost = |(name, value): (&String, &String)| name.len() + value.len() + VAR_OVERHEAD;
    let bytes: usize = session.vars.iter().map(cost).sum();
    let make = || {
        let table = lua.create_table_with_capacity(0, session.vars.len())?;
        for (name, value) in &*session.vars {
            table.raw_set(name.as_str(), value.as_str())?;
        }
        Ok(table)
    };
    let table = unguarded(lua, bytes, make)?;
    session.var_table = Some(table.clone());
    Ok(table)
}

fn request(host: &Host, lua: &Lua) -> mlua::Result<Table> {
    let mut session = host.session()?;
    if let Some(table) = &session.req_table {
        return Ok(table.clone());
    }
    let headers = lua.create_table()?;
    for (name, value) in &session.request.headers {
        // A header that came twice is one list, as HTTP has it.
        let value = match headers.raw_get::<Option<String>>(name.as_str())? {
            Some(first) => format!("{first}, {value}"),
            None => value.clone(),
        };
        headers.raw_set(name.as_str(), value)?;
    }
    let table = lua.create_table()?;
    table.raw_set("method", session.request.method.as_str())?;
    table.raw_set("path", session.request.path.as_str())?;
    table.raw_set("headers", headers)?;
    table.raw_set("body", lua.create_string(&session.request.body)?)?;
    session.req_table = Some(table.clone());
    Ok(table)
}

/// Only as many results as there are, so that `kvdb.say(kvdb.get(key))` says one `nil`.
fn get(host: &Host, lua: &Lua, info_mt: &Table, key: &Value) -> mlua::Result<MultiValue> {
    let key = match host.key(lua, "get", key, Permission::Read)? {
        Ok(key) => key,
        Err(error) => return get_error(lua, error),
    };
    let found = host.session()?.txn.get(&key);
    match host.told(found)? {
        Ok(None) => {
            host.budget.charge(1)?;
            Ok(MultiValue::from_vec(vec![Value::Nil]))
        }
        Ok(Some(record)) => {
            host.budget.charge_bytes(record.value.len())?;
            let now = host.now()?;
            let make = || {
                let info = Value::Table(info(lua, info_mt, &record, now)?);
                Ok(MultiValue::from_vec(vec![lua_string(lua, &record.value)?, info]))
            };
            unguarded(lua, record.value.len(), make)
        }
        Err(error) => get_error(lua, error),
    }
}

fn get_error(lua: &Lua, error: String) -> mlua::Result<MultiValue> {
    Ok(MultiValue::from_vec(vec![Value::Nil, Value::Nil, lua_string(lua, error)?]))
}

/// The metatable that tells an `info` from other tables. `get` has three results, and a script that
/// writes `kvdb.say(kvdb.get(key))` or `kvdb.set(to, kvdb.get(from))` means the first.
fn info_mark(lua: &Lua) -> mlua::Result<Table> {
    let mark = lua.create_table()?;
    mark.raw_set("__metatable", false)?;
    mark.set_readonly(true);
    Ok(mark)
}

fn info(lua: &Lua, info_mt: &Table, record: &Record, now: u64) -> mlua::Result<Table> {
    let info = lua.create_table_with_capacity(0, 3)?;
    info.raw_set("version", record.version)?;
    if let Some(expires_at) = record.expires_at {
        info.raw_set("expires_at", expires_at)?;
        info.raw_set("ttl", expires_at.saturating_sub(now).div_ceil(1000))?;
    }
    info.set_metatable(Some(info_mt.clone()))?;
    Ok(info)
}

/// The third argument of `kvdb.set`.
#[derive(Default)]
struct SetOptions {
    condition: Condition,
    /// In seconds.
    ttl: Option<i64>,
}

fn set(
    host: &Host,
    lua: &Lua,
    info_mt: &Table,
    (key, value, options): (Value, Value, Value),
) -> mlua::Result<Value> {
    let options = if value::is_info(&options, info_mt) { Value::Nil } else { options };
    let options = set_options(lua, &options)?;
    let bytes = match value::stored(&value) {
        Some(bytes) => bytes,
        None if value.is_number() => return lua_string(lua, "the value is not a finite number"),
        None => return Err(bad_argument(lua, "set", 2, "string or number", &value)),
    };
    let key = match host.key(lua, "set", &key, Permission::Write)? {
        Ok(key) => key,
        Err(error) => return lua_string(lua, error),
    };
    host.budget.charge_bytes(bytes.len())?;
    let max = host.budget.limits().value_bytes;
    let done = if bytes.len() > max {
        let error = Error::TooLarge { limit: "a value", max: max as u64 };
        Err(Error::Invalid(error.to_string()))
    } else {
        put(&mut host.session()?.txn, &key, bytes, &options)
    };
    error_or_nil(lua, host.told(done)?)
}

fn put(txn: &mut Transaction, key: &Key, value: Bytes, options: &SetOptions) -> Result<()> {
    let lifetime = options.ttl.map_or(Ok(Lifetime::Default), lifetime)?;
    options.condition.check(txn, key)?;
    txn.set(key, value, None, lifetime)
}

fn lifetime(ttl: i64) -> Result<Lifetime> {
    match u64::try_from(ttl) {
        Ok(seconds) => Lifetime::of_seconds(seconds),
        Err(_) => Err(Error::invalid("a ttl is not negative: 0 is for ever")),
    }
}

fn set_options(lua: &Lua, options: &Value) -> mlua::Result<SetOptions> {
    let (mut absent, mut if_version, mut ttl) = (false, None, None);
    for_each_option(lua, "set", 3, options, |name, value| {
        match (name, value) {
            ("ttl", value) => match value::whole(value) {
                Some(seconds) => ttl = Some(seconds),
                None => return false,
            },
            ("if_absent", Value::Boolean(wanted)) => absent = *wanted,
            ("if_version", version) => match value::whole(version).map(u64::try_from) {
                Some(Ok(version)) => if_version = Some(version),
                _ => return false,
            },
            _ => return false,
        }
        true
    })?;
    let condition = match (absent, if_version) {
        (true, Some(_)) => {
            return Err(raise(lua, "`if_absent` and `if_version` exclude each other"));
        }
        (true, None) => Condition::Absent,
        (false, Some(version)) => Condition::Version(version),
        (false, None) => Condition::Any,
    };
    Ok(SetOptions { condition, ttl })
}

fn incr(host: &Host, lua: &Lua, (key, by): (Value, Value)) -> mlua::Result<(Value, Value)> {
    let by = match &by {
        Value::Nil => Ok(Number::Int(1)),
        Value::String(text) => host.told(Number::parse(&text.as_bytes()))?,
        by => match value::as_number(by) {
            Some(by) => Ok(by),
            None if by.is_number() => Err("the increment is not a finite number".to_owned()),
            None => return Err(bad_argument(lua, "incr", 2, "number or string", by)),
        },
    };
    let sum = match (host.key(lua, "incr", &key, Permission::Write)?, by) {
        (Ok(key), Ok(by)) => {
            host.budget.charge(1)?;
            // An expiry that is there stays.
            let sum = operation::increment(&mut host.session()?.txn, &key, by, Lifetime::Default);
            host.told(sum)?
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    match sum {
        Ok(sum) => Ok((Value::Nil, value::number(lua, sum)?)),
        Err(error) => Ok((lua_string(lua, error)?, Value::Nil)),
    }
}

fn delete(host: &Host, lua: &Lua, key: &Value) -> mlua::Result<Value> {
    let key = match host.key(lua, "delete", key, Permission::Delete)? {
        Ok(key) => key,
        Err(error) => return lua_string(lua, error),
    };
    host.budget.charge(1)?;
    let done = host.session()?.txn.delete(&key).map(drop);
    error_or_nil(lua, host.told(done)?)
}

fn error_or_nil(lua: &Lua, result: std::result::Result<(), String>) -> mlua::Result<Value> {
    match result {
        Ok(()) => Ok(Value::Nil),
        Err(error) => lua_string(lua, error),
    }
}

/// What `kvdb.list` is to list.
struct Listing {
    range: ListRange,
    limit: usize,
    values: bool,
}

fn list(host: &Host, lua: &Lua, (prefix, options): (Value, Value)) -> mlua::Result<MultiValue> {
    let prefix = match &prefix {
        Value::Nil => Bytes::new(),
        prefix => host.string(lua, "list", 1, prefix)?,
    };
    let mut listing = list_options(lua, prefix.clone(), &options)?;
    let allowed = list_prefix(&*host.session()?, prefix, listing.values);
    match host.told(allowed)? {
        Ok(prefix) => listing.range.prefix = prefix,
        Err(error) => return value_or_error(lua, Err(error)),
    }
    let found = lua.create_table()?;
    collect(host, lua, listing, &found)?;
    value_or_error(lua, Ok(Value::Table(found)))
}

fn list_prefix(session: &Session, prefix: Bytes, values: bool) -> Result<Bytes> {
    let prefix = session.scope.list_prefix(prefix)?;
    if values {
        session.scope.check(Permission::Read, &prefix)?;
    }
    Ok(prefix)
}

fn list_options(lua: &Lua, prefix: Bytes, options: &Value) -> mlua::Result<Listing> {
    let mut range = ListRange { prefix, ..ListRange::default() };
    let (mut limit, mut values, mut after) = (LIST_LIMIT_DEFAULT, false, None);
    for_each_option(lua, "list", 2, options, |name, value| {
        match (name, value) {
            ("limit", value) => match value::whole(value).map(usize::try_from) {
                Some(Ok(wanted)) => limit = wanted,
                _ => return false,
            },
            ("after", Value::String(key)) => after = Some(value::bytes(key)),
            ("reverse", Value::Boolean(reverse)) => range.reverse = *reverse,
            ("values", Value::Boolean(wanted)) => values = *wanted,
            _ => return false,
        }
        true
    })?;
    if let Some(key) = after {
        go_after(&mut range, key);
    }
    Ok(Listing { range, limit, values })
}

/// Lets the range begin behind a key, in its own direction.
fn go_after(range: &mut ListRange, key: Bytes) {
    if range.reverse {
        range.end = Some(key);
    } else {
        // The next key in byte order.
        range.start = Some([&key, &b"\0"[..]].concat().into());
    }
}

/// Lists in batches: no more than one of them lies outside of the VM's memory, and the clock is
/// looked at between two.
fn collect(host: &Host, lua: &Lua, mut listing: Listing, found: &Table) -> mlua::Result<()> {
    let mut batch_keys = BATCH_KEYS;
    let mut left = listing.limit;
    while left > 0 {
        let wanted = batch_keys.min(left);
        let batch = host.session()?.txn.list(&listing.range, wanted);
        let batch = batch.map_err(|error| host.budget.fail(error))?;
        let bytes: usize = batch.iter().map(|(_, record)| record.value.len()).sum();
        host.budget.charge(batch.len() + 1)?;
        host.budget.charge_bytes(bytes)?;
        let last = batch.last().map(|(key, _)| key.clone());
        let count = batch.len();
        for (key, record) in batch {
            found.raw_push(entry(lua, &key, &record, listing.values)?)?;
        }
        left -= count;
        match last {
            Some(last) if count == wanted => go_after(&mut listing.range, last),
            _ => return Ok(()),
        }
        batch_keys = (BATCH_BYTES / (bytes / count).max(1)).clamp(1, BATCH_KEYS_MAX);
    }
    Ok(())
}

/// A key, or a pair of key and value.
fn entry(lua: &Lua, key: &[u8], record: &Record, values: bool) -> mlua::Result<Value> {
    let key = lua_string(lua, key)?;
    if !values {
        return Ok(key);
    }
    let pair = lua.create_table_with_capacity(2, 0)?;
    pair.raw_push(key)?;
    pair.raw_push(lua_string(lua, &record.value)?)?;
    Ok(Value::Table(pair))
}
