//! Values between Lua and the host: text, numbers, and integers that a float cannot hold.
//!
//! A Luau number is a float, exact to 2^53. Beyond that an integer that comes from the host (from
//! JSON, from a counter) is an [`Int64`]: a value that prints, stores, counts, compares and encodes
//! exactly, and adds and subtracts exactly or fails. Below, it is a plain number.

use bytes::Bytes;
use mlua::{
    AnyUserData, Lua, LuaString, MetaMethod, Table, UserData, UserDataFields, UserDataMethods,
    Value,
};

use crate::kv::Number;
use crate::kv::number::float_text;

/// The largest integer below which a float holds every one.
const EXACT_MAX: u64 = 1 << 53;

/// An integer that a float cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Int64(pub(super) i64);

/// An integer as a number where that is exact, else as an [`Int64`].
pub(super) fn integer(lua: &Lua, int: i64) -> mlua::Result<Value> {
    if int.unsigned_abs() <= EXACT_MAX {
        return Ok(Value::Integer(int));
    }
    lua.create_userdata(Int64(int)).map(Value::UserData)
}

/// A counter's value.
pub(super) fn number(lua: &Lua, number: Number) -> mlua::Result<Value> {
    match number {
        Number::Int(int) => integer(lua, int),
        Number::Float(float) => Ok(Value::Number(float)),
    }
}

/// The integer in a value of that type.
pub(super) fn int64(userdata: &AnyUserData) -> Option<i64> {
    userdata.borrow::<Int64>().ok().map(|int| int.0)
}

/// A whole number, however it is held.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(int) => Some(*int),
        Value::UserData(userdata) => int64(userdata),
        _ => None,
    }
}

/// What a number or integer is as a counter; `None` for anything else and for what is not finite.
pub(super) fn as_number(value: &Value) -> Option<Number> {
    match value {
        Value::Number(float) if float.is_finite() => Some(Number::Float(*float)),
        value => whole(value).map(Number::Int),
    }
}

/// The bytes that `kvdb.set` stores for a value; `None` for one that cannot be stored.
pub(super) fn stored(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(bytes(text)),
        Value::Number(float) if float.is_finite() => Some(float_text(*float).into()),
        value => whole(value).map(|int| int.to_string().into()),
    }
}

/// Copies a Lua string.
pub(super) fn bytes(text: &LuaString) -> Bytes {
    Bytes::copy_from_slice(&text.as_bytes())
}

/// A string, or a number's text, as Lua itself would take it for one.
pub(super) fn text(lua: &Lua, value: &Value) -> mlua::Result<Option<LuaString>> {
    match value {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Integer(_) | Value::Number(_) => lua.coerce_string(value.clone()),
        Value::UserData(userdata) => {
            int64(userdata).map(|int| lua.create_string(int.to_string())).transpose()
        }
        _ => Ok(None),
    }
}

/// What [`print()`] takes.
pub(super) const PRINTABLE: &str = "string, number, boolean or nil";

/// Appends what `kvdb.print` prints for a value; false for one that has no text.
pub(super) fn print(lua: &Lua, value: &Value, out: &mut Vec<u8>) -> mlua::Result<bool> {
    match value {
        Value::Nil => out.extend_from_slice(b"nil"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::String(text) => out.extend_from_slice(&text.as_bytes()),
        // Its digits, as Lua would print them.
        Value::Integer(int) if int.unsigned_abs() <= EXACT_MAX => {
            out.extend_from_slice(int.to_string().as_bytes());
        }
        value if *value == Value::NULL => out.extend_from_slice(b"null"),
        value => match text(lua, value)? {
            Some(text) => out.extend_from_slice(&text.as_bytes()),
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// Whether a value is what `kvdb.get` returned as its second.
pub(super) fn is_info(value: &Value, info_mt: &Table) -> bool {
    matches!(value, Value::Table(table) if table.metatable().is_some_and(|mt| mt == *info_mt))
}

/// The name of a value's type, as a script knows it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Integer(_) => "number",
        Value::UserData(userdata) if userdata.is::<Int64>() => "int64",
        Value::LightUserData(_) | Value::Error(_) => "userdata",
        value => value.type_name(),
    }
}

impl UserData for Int64 {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "int64");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, this, ()| Ok(this.0.to_string()));
        methods.add_meta_function(MetaMethod::Concat, |lua, (a, b): (Value, Value)| {
            let mut joined = Vec::new();
            for value in [a, b] {
                match text(lua, &value)? {
                    Some(text) => joined.extend_from_slice(&text.as_bytes()),
                    None => return Err(refuse(lua, "concatenate", &value)),
                }
            }
            lua.create_string(&joined)
        });
        methods.add_meta_function(MetaMethod::Eq, |_, (a, b): (Value, Value)| {
            Ok(whole(&a).is_some() && whole(&a) == whole(&b))
        });
        methods.add_meta_function(MetaMethod::Lt, |lua, (a, b): (Value, Value)| {
            Ok(operand(lua, "compare", &a)? < operand(lua, "compare", &b)?)
        });
        methods.add_meta_function(MetaMethod::Le, |lua, (a, b): (Value, Value)| {
            Ok(operand(lua, "compare", &a)? <= operand(lua, "compare", &b)?)
        });
        methods.add_meta_function(MetaMethod::Add, |lua, (a, b): (Value, Value)| {
            arithmetic(lua, "add", &a, &b, i64::checked_add)
        });
        methods.add_meta_function(MetaMethod::Sub, |lua, (a, b): (Value, Value)| {
            arithmetic(lua, "subtract", &a, &b, i64::checked_sub)
        });
    }
}

fn arithmetic(
    lua: &Lua,
    verb: &str,
    a: &Value,
    b: &Value,
    op: fn(i64, i64) -> Option<i64>,
) -> mlua::Result<Value> {
    match op(operand(lua, verb, a)?, operand(lua, verb, b)?) {
        Some(int) => integer(lua, int),
        None => Err(raise(lua, "the result does not fit in an int64")),
    }
}

fn operand(lua: &Lua, verb: &str, value: &Value) -> mlua::Result<i64> {
    whole(value).ok_or_else(|| refuse(lua, verb, value))
}

fn refuse(lua: &Lua, verb: &str, value: &Value) -> mlua::Error {
    raise(lua, &format!("cannot {verb} an int64 and a {} exactly", type_name(value)))
}

/// A Lua error with the position of the line that called the host.
pub(super) fn raise(lua: &Lua, message: &str) -> mlua::Error {
    let position = lua.inspect_stack(1, |frame| {
        let source = frame.source().short_src?.into_owned();
        Some(format!("{source}:{}: ", frame.current_line()?))
    });
    mlua::Error::RuntimeError(format!("{}{message}", position.flatten().unwrap_or_default()))
}
