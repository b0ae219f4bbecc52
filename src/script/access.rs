//! `kvdb.scope` and `kvdb.access_token`: what the script may do, and what it lets others do.
//!
//! A token permits at most what the script may itself: asking for more is an error, not a smaller token.
//! It is a row of the bucket, so it is valid once the script has committed.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};

use super::host::{
    Host, Session, bad_argument, field_name, for_each_option, function, lua_string, proxy,
    value_or_error,
};
use super::value::{self, raise};
use crate::error::{Error, Result};
use crate::kv::limits::{KEY_BYTES_MAX, TOKEN_PERMISSIONS_MAX, TOKEN_TTL_DEFAULT};
use crate::kv::policy::parse_permissions;
use crate::kv::{Execute, Permission, TokenRequest, token};

/// What minting costs: hashes, and rows.
const MINT_STEPS: usize = 16;

/// Adds the fields to `kvdb`.
pub(super) fn register(lua: &Lua, host: &Rc<Host>, kvdb: &Table) -> mlua::Result<()> {
    kvdb.raw_set("scope", scope(lua, host)?)?;
    kvdb.raw_set("access_token", function(lua, host, access_token)?)
}

/// `kvdb.scope`: an empty frozen table whose fields are the host's.
fn scope(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let read = function(lua, host, |host, lua, (_, name): (Value, Value)| {
        let session = host.session()?;
        match field_name(&name).as_deref() {
            Some("prefix") => lua_string(lua, &session.scope.effective().prefix),
            Some("permissions") => {
                lua.create_sequence_from(session.scope.effective().words()).map(Value::Table)
            }
            _ => Ok(Value::Nil),
        }
    })?;
    let write = function(lua, host, |host, lua, (_, name, value): (Value, Value, Value)| {
        match (field_name(&name).as_deref(), &value) {
            (Some("prefix"), Value::String(prefix)) => {
                host.session()?.scope.set_prefix(value::bytes(prefix));
                Ok(())
            }
            (Some("permissions"), Value::Table(words)) => {
                let (permissions, execute) = permissions(lua, words)?;
                host.session()?.scope.set_permissions(permissions, execute);
                Ok(())
            }
            _ => {
                Err(raise(lua, "`kvdb.scope` has a `prefix` (a string) and `permissions` (a list)"))
            }
        }
    })?;
    proxy(lua, read, write)
}

fn permissions(lua: &Lua, words: &Table) -> mlua::Result<(Vec<Permission>, Execute)> {
    if words.raw_len() > TOKEN_PERMISSIONS_MAX {
        let message = format!("a list of permissions has at most {TOKEN_PERMISSIONS_MAX} words");
        return Err(raise(lua, &message));
    }
    let mut list = Vec::new();
    for index in 1..=words.raw_len() {
        match field_name(&words.raw_get(index)?) {
            Some(word) => list.push(word),
            None => return Err(raise(lua, "a permission is a string")),
        }
    }
    parse_permissions(list.iter().map(String::as_str)).map_err(|e| raise(lua, &e.to_string()))
}

/// The argument of `kvdb.access_token`; what is not named is as in the scope.
#[derive(Default)]
struct Asked {
    prefix: Option<Bytes>,
    permissions: Option<Table>,
    ttl: Option<i64>,
}

fn access_token(host: &Host, lua: &Lua, options: Value) -> mlua::Result<MultiValue> {
    if !options.is_table() {
        return Err(bad_argument(lua, "access_token", 1, "table", &options));
    }
    let mut asked = Asked::default();
    for_each_option(lua, "access_token", 1, &options, |name, value| {
        match (name, value) {
            ("prefix", Value::String(prefix)) => asked.prefix = Some(value::bytes(prefix)),
            ("permissions", Value::Table(words)) => asked.permissions = Some(words.clone()),
            ("ttl", value) => match value::whole(value) {
                Some(seconds) => asked.ttl = Some(seconds),
                None => return false,
            },
            _ => return false,
        }
        true
    })?;
    let words = asked.permissions.as_ref().map(|words| permissions(lua, words)).transpose()?;
    host.budget.charge(MINT_STEPS)?;
    let minted = mint(&mut *host.session()?, &asked, words);
    match host.told(minted)? {
        Ok(token) => value_or_error(lua, Ok(lua_string(lua, token)?)),
        Err(error) => value_or_error(lua, Err(error)),
    }
}

fn mint(
    session: &mut Session,
    asked: &Asked,
    words: Option<(Vec<Permission>, Execute)>,
) -> Result<String> {
    session.txn.check_writable()?;
    let scope = session.scope.effective();
    let prefix = asked.prefix.clone().unwrap_or_else(|| scope.prefix.clone());
    if prefix.len() > KEY_BYTES_MAX {
        return Err(Error::invalid(format!("a prefix is at most {KEY_BYTES_MAX} bytes")));
    }
    let words = words.unwrap_or_else(|| (scope.permissions.clone(), scope.execute.clone()));
    let (permissions, execute) = words;
    for permission in &permissions {
        scope.check(*permission, &prefix)?;
    }
    let request = TokenRequest {
        execute: session.scope.execute_within(execute)?,
        prefix,
        permissions,
        // A token that never ends would be one that nobody remembers: 0 is refused.
        ttl: asked.ttl.map_or(TOKEN_TTL_DEFAULT, |ttl| u64::try_from(ttl).unwrap_or_default()),
    };
    let nonce = session.tokens;
    session.tokens += 1;
    token::mint(&mut session.txn, &request, session.seed, nonce)
}
