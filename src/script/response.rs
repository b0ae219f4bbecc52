//! The answer that a script builds: status, headers, body, and how the script ended.
//!
//! Status and headers count until something is printed: the answer is as if it left with the first
//! byte, although nothing leaves before the writes are committed.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Table, Value};

use super::host::{Host, bad_argument, field_name, function, lua_string, proxy};
use super::value::{self, raise};
use crate::error::Error;
use crate::kv::Answer;

/// Headers that a script may set, beside those that begin with `x-`.
const HEADERS: [&str; 4] = ["content-type", "cache-control", "location", "etag"];
/// What a script may not write: what KVdb says itself, and what proxies before it would obey.
const HEADERS_RESERVED: [&str; 5] =
    ["x-kvdb-", "x-ratelimit-", "x-content-type-options", "x-accel-", "x-sendfile"];
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// Longest header value, in bytes.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// All headers together as they are sent, in bytes: a follower that proxies takes twice that, and
/// other headers come to them.
const HEADERS_BYTES_MAX: usize = 8 << 10;
/// The status codes of a redirect.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// How the script left before its last line.
enum Ending {
    /// `exit` or `redirect`.
    Exit,
    /// `abort`, with its own answer.
    Abort { status: u16, message: Bytes },
}

/// The answer so far.
#[derive(Default)]
pub(super) struct Response {
    status: Option<u16>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    commit: bool,
    ending: Option<Ending>,
}

impl Response {
    /// Whether the script ended itself.
    pub(super) fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    fn has_left(&self) -> bool {
        !self.body.is_empty()
    }

    fn set_status(&mut self, status: u16) {
        if !self.has_left() {
            self.status = Some(status);
        }
    }

    fn set_header(&mut self, name: &str, value: Option<String>) {
        if self.has_left() {
            return;
        }
        self.headers.retain(|(other, _)| other != name);
        if let Some(value) = value {
            self.headers.push((name.to_owned(), value));
        }
    }

    /// Sets a header; too many bytes of them end the script.
    fn put_header(&mut self, host: &Host, name: &str, value: Option<String>) -> mlua::Result<()> {
        self.set_header(name, value);
        // `NAME: VALUE` and the end of the line.
        let line = |(name, value): &(String, String)| name.len() + value.len() + 4;
        if self.headers.iter().map(line).sum::<usize>() > HEADERS_BYTES_MAX {
            let max = HEADERS_BYTES_MAX as u64;
            return Err(host.budget.fail(Error::TooLarge { limit: "headers of a script", max }));
        }
        Ok(())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The finished answer, and whether the writes stay.
    pub(super) fn finish(mut self) -> (Answer, bool) {
        if let Some(Ending::Abort { status, message }) = self.ending {
            let headers = vec![content_type()];
            return (Answer { status, headers, body: message, ..Answer::default() }, false);
        }
        let status = self.status.unwrap_or(200);
        if self.header("content-type").is_none() {
            self.headers.push(content_type());
        }
        let keep = status < 400 || self.commit;
        let (headers, body) = (self.headers, self.body.into());
        let committed = self.commit && status >= 400;
        (Answer { status, headers, body, committed, ..Answer::default() }, keep)
    }
}

fn content_type() -> (String, String) {
    ("content-type".to_owned(), "text/plain".to_owned())
}

/// Adds the functions of the answer to `kvdb`; `info_mt` marks what `get` returns beside a value.
pub(super) fn register(
    lua: &Lua,
    host: &Rc<Host>,
    kvdb: &Table,
    info_mt: &Table,
) -> mlua::Result<()> {
    for (name, end) in [("print", &b""[..]), ("say", &b"\n"[..])] {
        let info_mt = info_mt.clone();
        let body = move |host: &Host, lua: &Lua, args: MultiValue| {
            let shown = args.iter().filter(|arg| !value::is_info(arg, &info_mt));
            print(host, lua, name, shown, end)
        };
        kvdb.raw_set(name, function(lua, host, body)?)?;
    }
    kvdb.raw_set("redirect", function(lua, host, redirect)?)?;
    kvdb.raw_set("exit", function(lua, host, exit)?)?;
    kvdb.raw_set("abort", function(lua, host, abort)?)?;
    kvdb.raw_set(
        "commit",
        function(lua, host, |host, _, ()| {
            host.session()?.response.commit = true;
            Ok(())
        })?,
    )?;
    kvdb.raw_set("header", headers(lua, host)?)
}

fn print<'a>(
    host: &Host,
    lua: &Lua,
    name: &str,
    args: impl Iterator<Item = &'a Value>,
    end: &[u8],
) -> mlua::Result<()> {
    let mut session = host.session()?;
    let body = &mut session.response.body;
    let before = body.len();
    let max = host.budget.limits().output_bytes;
    for (index, arg) in args.enumerate() {
        if !value::print(lua, arg, body)? {
            body.truncate(before);
            return Err(bad_argument(lua, name, index + 1, value::PRINTABLE, arg));
        }
        if body.len() > max {
            return Err(host.budget.fail(output_error(max)));
        }
    }
    body.extend_from_slice(end);
    host.budget.charge_bytes(body.len() - before)
}

fn output_error(max: usize) -> Error {
    Error::TooLarge { limit: "output of a script", max: max as u64 }
}

fn redirect(host: &Host, lua: &Lua, (url, code): (Value, Value)) -> mlua::Result<()> {
    let url = header_value(host, lua, "redirect", &url)?;
    let code = match &code {
        Value::Nil => 302,
        code => status_in(code, &REDIRECTS)
            .ok_or_else(|| raise(lua, "a redirect's code is 301, 302, 303, 307 or 308"))?,
    };
    let response = &mut host.session()?.response;
    response.set_status(code);
    response.put_header(host, "location", Some(url))?;
    response.ending = Some(Ending::Exit);
    Err(host.budget.stop())
}

fn exit(host: &Host, lua: &Lua, code: Value) -> mlua::Result<()> {
    let code = match &code {
        Value::Nil => None,
        code => Some(status(lua, code)?),
    };
    let response = &mut host.session()?.response;
    if let Some(code) = code {
        response.set_status(code);
    }
    response.ending = Some(Ending::Exit);
    Err(host.budget.stop())
}

fn abort(host: &Host, lua: &Lua, (code, message): (Value, Value)) -> mlua::Result<()> {
    let (code, message) = match (code, message) {
        (text @ Value::String(_), Value::Nil) => (Value::Nil, text),
        other => other,
    };
    let status = match &code {
        Value::Nil => 400,
        code => match status(lua, code)? {
            code @ 400.. => code,
            _ => return Err(raise(lua, "`kvdb.abort` answers a status of 400 to 599")),
        },
    };
    let message = match &message {
        Value::Nil => Bytes::new(),
        message => host.string(lua, "abort", 2, message)?,
    };
    let max = host.budget.limits().output_bytes;
    if message.len() > max {
        return Err(host.budget.fail(output_error(max)));
    }
    host.session()?.response.ending = Some(Ending::Abort { status, message });
    Err(host.budget.stop())
}

/// `kvdb.status`.
pub(super) fn read_status(host: &Host) -> mlua::Result<Value> {
    Ok(Value::Integer(host.session()?.response.status.unwrap_or(200).into()))
}

/// `kvdb.status = value`.
pub(super) fn write_status(host: &Host, lua: &Lua, value: &Value) -> mlua::Result<()> {
    let status = status(lua, value)?;
    host.session()?.response.set_status(status);
    Ok(())
}

fn status(lua: &Lua, value: &Value) -> mlua::Result<u16> {
    let code = value::whole(value).and_then(|code| u16::try_from(code).ok());
    code.filter(|code| (200..600).contains(code))
        .ok_or_else(|| raise(lua, "a status is a whole number from 200 to 599"))
}

fn status_in(value: &Value, allowed: &[u16]) -> Option<u16> {
    let code = u16::try_from(value::whole(value)?).ok()?;
    allowed.contains(&code).then_some(code)
}

/// `kvdb.header`: an empty frozen table whose fields are the host's.
fn headers(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let read = function(lua, host, |host, lua, (_, name): (Value, Value)| {
        let name = header_name(lua, &name)?;
        let session = host.session()?;
        match session.response.header(&name) {
            Some(value) => lua_string(lua, value),
            None if name == "content-type" => lua_string(lua, "text/plain"),
            None => Ok(Value::Nil),
        }
    })?;
    let write = function(lua, host, |host, lua, (_, name, value): (Value, Value, Value)| {
        let name = header_name(lua, &name)?;
        let value = match &value {
            Value::Nil => None,
            value => Some(header_value(host, lua, "header", value)?),
        };
        let response = &mut host.session()?.response;
        if response.headers.len() >= HEADERS_MAX {
            return Err(raise(lua, &format!("an answer has at most {HEADERS_MAX} headers")));
        }
        response.put_header(host, &name, value)
    })?;
    proxy(lua, read, write)
}

fn header_name(lua: &Lua, name: &Value) -> mlua::Result<String> {
    let name = field_name(name).unwrap_or_default().to_ascii_lowercase();
    let token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let reserved = HEADERS_RESERVED.iter().any(|prefix| name.starts_with(prefix));
    let own = name.len() > 2 && name.starts_with("x-") && !reserved;
    if token && name.len() <= 128 && (own || HEADERS.contains(&name.as_str())) {
        return Ok(name);
    }
    let list = HEADERS.join(", ");
    Err(raise(
        lua,
        &format!(
            "a script may set the headers {list} and x-…, but none that begins with {}",
            HEADERS_RESERVED.join(", ")
        ),
    ))
}

/// A header's value: visible ASCII, so that no byte of it can end the header.
fn header_value(host: &Host, lua: &Lua, function: &str, value: &Value) -> mlua::Result<String> {
    let position = if function == "header" { 2 } else { 1 };
    let bytes = host.string(lua, function, position, value)?;
    let visible = bytes.iter().all(|b| matches!(b, b' '..=b'~' | b'\t'));
    if !visible || bytes.len() > HEADER_BYTES_MAX {
        return Err(raise(
            lua,
            &format!("a header or URL is at most {HEADER_BYTES_MAX} bytes of visible ASCII"),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
