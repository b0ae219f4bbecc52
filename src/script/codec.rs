//! Bytes as text: `kvdb.base64`, `kvdb.sha256`, `kvdb.hmac`, and `kvdb.uuid`.

use std::fmt::Write as _;
use std::rc::Rc;

use base64::Engine;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use mlua::{Lua, LuaString, MultiValue, Table, Value};
use sha2::{Digest, Sha256};

use super::host::{Host, bad_argument, function, lua_string, value_or_error};
use super::value;

/// Bytes that are hashed between two looks at the budget.
const HASH_BYTES: usize = 64 << 10;

/// Padding may be there or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Adds the functions to `kvdb`.
pub(super) fn register(lua: &Lua, host: &Rc<Host>, kvdb: &Table) -> mlua::Result<()> {
    let base64 = lua.create_table()?;
    base64.raw_set("encode", function(lua, host, encode)?)?;
    base64.raw_set("decode", function(lua, host, decode)?)?;
    base64.set_readonly(true);
    kvdb.raw_set("base64", base64)?;
    kvdb.raw_set("sha256", function(lua, host, sha256)?)?;
    kvdb.raw_set("hmac", function(lua, host, hmac)?)?;
    let uuid = |host: &Host, _: &Lua, ()| Ok(host.random.uuid(host.now()?));
    kvdb.raw_set("uuid", function(lua, host, uuid)?)
}

/// A string argument in place: it may be large.
fn text(lua: &Lua, function: &str, position: usize, value: &Value) -> mlua::Result<LuaString> {
    let wrong = || bad_argument(lua, function, position, "string", value);
    value::text(lua, value)?.ok_or_else(wrong)
}

fn encode(host: &Host, lua: &Lua, bytes: Value) -> mlua::Result<Value> {
    let bytes = text(lua, "base64.encode", 1, &bytes)?;
    host.budget.charge_bytes(bytes.as_bytes().len())?;
    lua_string(lua, BASE64_STANDARD.encode(bytes.as_bytes()))
}

/// Takes base64 and base64url; one text is of one alphabet.
fn decode(host: &Host, lua: &Lua, encoded: Value) -> mlua::Result<MultiValue> {
    let encoded = text(lua, "base64.decode", 1, &encoded)?;
    let encoded = encoded.as_bytes();
    host.budget.charge_bytes(encoded.len())?;
    let url = encoded.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet: &Alphabet = if url { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    match GeneralPurpose::new(alphabet, LENIENT).decode(&*encoded) {
        Ok(bytes) => value_or_error(lua, Ok(lua_string(lua, bytes)?)),
        Err(error) => value_or_error(lua, Err(format!("not base64: {error}"))),
    }
}

fn sha256(host: &Host, lua: &Lua, bytes: Value) -> mlua::Result<String> {
    let bytes = text(lua, "sha256", 1, &bytes)?;
    let mut hash = Sha256::new();
    in_pieces(host, &bytes.as_bytes(), |piece| hash.update(piece))?;
    Ok(hex(&hash.finalize()))
}

fn hmac(host: &Host, lua: &Lua, (key, bytes): (Value, Value)) -> mlua::Result<String> {
    let key = text(lua, "hmac", 1, &key)?;
    let bytes = text(lua, "hmac", 2, &bytes)?;
    host.budget.charge_bytes(key.as_bytes().len())?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.as_bytes())
        .map_err(|error| mlua::Error::RuntimeError(error.to_string()))?;
    in_pieces(host, &bytes.as_bytes(), |piece| mac.update(piece))?;
    Ok(hex(&mac.finalize().into_bytes()))
}

/// Pays for each piece before it is worked on, so that the clock is looked at between two.
fn in_pieces(host: &Host, bytes: &[u8], mut work: impl FnMut(&[u8])) -> mlua::Result<()> {
    host.budget.charge(1)?;
    for piece in bytes.chunks(HASH_BYTES) {
        host.budget.charge_bytes(piece.len())?;
        work(piece);
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
