//! `kvdb.json`: values to text and back, without loss.
//!
//! - An integer that fits in an int64 comes back as the same integer, beyond 2^53 as an
//!   [`Int64`](super::value::Int64); larger and fractional numbers are floats.
//! - `null` is `kvdb.json.null`, a value of its own, so that a table can hold it.
//! - Decoded arrays carry the metatable `kvdb.json.array_mt`, so that an empty one stays an array;
//!   `kvdb.json.empty_array` is one ready-made. A table without it is an array where its keys are
//!   1 to n, else an object.
//!
//! Both directions are streams between the VM's own memory and the text: no tree lies in between, so a
//! hostile document takes no memory that the VM's limit does not see.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::host::{Host, bad_argument, function, lua_string, value_or_error};
use super::value::{self, integer, type_name};
use crate::kv::number::float_text;

/// Arrays and objects within each other.
const DEPTH_MAX: usize = 100;
/// Longest text that is made, in bytes.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// Builds `kvdb.json`.
pub(super) fn table(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let array_mt = lua.create_table()?;
    array_mt.set_readonly(true);
    let empty = lua.create_table()?;
    empty.set_metatable(Some(array_mt.clone()))?;
    empty.set_readonly(true);
    let json = lua.create_table()?;
    json.raw_set("null", Value::NULL)?;
    json.raw_set("array_mt", &array_mt)?;
    json.raw_set("empty_array", empty)?;
    let mark = array_mt.clone();
    json.raw_set(
        "decode",
        function(lua, host, move |host, lua, text| decode(host, lua, &mark, &text))?,
    )?;
    json.raw_set(
        "encode",
        function(lua, host, move |host, lua, value| {
            let mut encoder = Encoder { host, array_mt: &array_mt, out: Vec::new() };
            match encoder.value(&value, 0) {
                Ok(()) => value_or_error(lua, Ok(lua_string(lua, &encoder.out)?)),
                Err(Failed::Data(message)) => value_or_error(lua, Err(message)),
                Err(Failed::Stop(error)) => Err(error),
            }
        })?,
    )?;
    json.set_readonly(true);
    Ok(json)
}

fn decode(host: &Host, lua: &Lua, array_mt: &Table, text: &Value) -> mlua::Result<MultiValue> {
    let Value::String(text) = text else {
        return Err(bad_argument(lua, "json.decode", 1, "string", text));
    };
    let text = text.as_bytes();
    let stopped = RefCell::new(None);
    let node = Node { host, lua, array_mt, stopped: &stopped, depth: 0 };
    let mut deserializer = serde_json::Deserializer::from_slice(&text);
    let value = node.deserialize(&mut deserializer).and_then(|v| deserializer.end().map(|()| v));
    match (stopped.take(), value) {
        (Some(error), _) => Err(error),
        (None, value) => value_or_error(lua, value.map_err(|error| error.to_string())),
    }
}

/// Reads one value into the VM.
#[derive(Clone, Copy)]
struct Node<'a> {
    host: &'a Host,
    lua: &'a Lua,
    array_mt: &'a Table,
    /// What ended the reading when it was not the text: a limit.
    stopped: &'a RefCell<Option<mlua::Error>>,
    depth: usize,
}

impl Node<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("more than {DEPTH_MAX} levels")));
        }
        Ok(Node { depth: self.depth + 1, ..self })
    }

    /// Carries an error of the VM out of the reader.
    fn carry<T, E: serde::de::Error>(&self, result: mlua::Result<T>) -> Result<T, E> {
        result.map_err(|error| {
            *self.stopped.borrow_mut() = Some(error);
            E::custom("stopped")
        })
    }

    fn string<E: serde::de::Error>(&self, text: &str) -> Result<Value, E> {
        self.carry(self.host.budget.charge_bytes(text.len()))?;
        self.carry(lua_string(self.lua, text))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.carry(self.host.budget.charge(1))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        Ok(Value::NULL)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.carry(integer(self.lua, value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            #[expect(clippy::cast_precision_loss, reason = "beyond int64 a number is a float")]
            Err(_) => Ok(Value::Number(value as f64)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.string(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let table = self.carry(self.lua.create_table())?;
        while let Some(value) = items.next_element_seed(inner)? {
            self.carry(table.raw_push(value))?;
        }
        self.carry(table.set_metatable(Some(self.array_mt.clone())))?;
        Ok(Value::Table(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let table = self.carry(self.lua.create_table())?;
        while let Some(key) = fields.next_key_seed(inner)? {
            if !key.is_string() {
                return Err(A::Error::custom("a key is a string"));
            }
            let value = fields.next_value_seed(inner)?;
            self.carry(table.raw_set(key, value))?;
        }
        Ok(Value::Table(table))
    }
}

/// Why there is no text.
enum Failed {
    /// The value has none; the script is told.
    Data(String),
    /// The call is over.
    Stop(mlua::Error),
}

impl From<mlua::Error> for Failed {
    fn from(error: mlua::Error) -> Self {
        Failed::Stop(error)
    }
}

struct Encoder<'a> {
    host: &'a Host,
    array_mt: &'a Table,
    out: Vec<u8>,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Failed> {
        self.host.budget.charge(1)?;
        if self.out.len() > TEXT_BYTES_MAX {
            return Err(Failed::Data(format!("the text is longer than {TEXT_BYTES_MAX} bytes")));
        }
        match value {
            Value::Nil => self.raw("null"),
            value if *value == Value::NULL => self.raw("null"),
            Value::Boolean(true) => self.raw("true"),
            Value::Boolean(false) => self.raw("false"),
            Value::Number(float) if float.is_finite() => self.raw(&float_text(*float)),
            Value::Number(_) => return Err(Failed::Data("a number is not finite".to_owned())),
            Value::String(text) => self.string(&text.as_bytes())?,
            Value::Table(table) => self.table(table, depth)?,
            value => match value::whole(value) {
                Some(int) => self.raw(&int.to_string()),
                None => return Err(Failed::Data(format!("a {} has no JSON", type_name(value)))),
            },
        }
        Ok(())
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.host.budget.charge_bytes(bytes.len())?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Failed::Data("a string is not UTF-8".to_owned()))?;
        serde_json::to_writer(&mut self.out, text).map_err(|e| Failed::Data(e.to_string()))
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<(), Failed> {
        if depth >= DEPTH_MAX {
            return Err(Failed::Data(format!("more than {DEPTH_MAX} levels")));
        }
        let marked = table.metatable().is_some_and(|mt| mt == *self.array_mt);
        if marked || self.is_sequence(table)? {
            self.array(table, depth)
        } else {
            self.object(table, depth)
        }
    }

    /// Whether the keys are 1 to n, and there is one.
    fn is_sequence(&self, table: &Table) -> Result<bool, Failed> {
        let length = table.raw_len();
        if length == 0 {
            return Ok(false);
        }
        let mut count = 0;
        table.for_each(|_: Value, _: Value| {
            count += 1;
            self.host.budget.charge(1)
        })?;
        Ok(count == length)
    }

    fn array(&mut self, table: &Table, depth: usize) -> Result<(), Failed> {
        self.raw("[");
        for index in 1..=table.raw_len() {
            if index > 1 {
                self.raw(",");
            }
            self.value(&table.raw_get(index)?, depth + 1)?;
        }
        self.raw("]");
        Ok(())
    }

    fn object(&mut self, table: &Table, depth: usize) -> Result<(), Failed> {
        let mut failed = None;
        let mut first = true;
        self.raw("{");
        table
            .for_each(|key: Value, value: Value| {
                if !std::mem::take(&mut first) {
                    self.raw(",");
                }
                self.field(&key, &value, depth).map_err(|why| match why {
                    Failed::Stop(error) => error,
                    Failed::Data(message) => {
                        failed = Some(message);
                        mlua::Error::RuntimeError(String::new())
                    }
                })
            })
            .map_err(|error| failed.take().map_or(Failed::Stop(error), Failed::Data))?;
        self.raw("}");
        Ok(())
    }

    fn field(&mut self, key: &Value, value: &Value, depth: usize) -> Result<(), Failed> {
        match key {
            Value::String(key) => self.string(&key.as_bytes())?,
            Value::Integer(int) => {
                write!(self.out, "\"{int}\"").map_err(|e| Failed::Data(e.to_string()))?
            }
            key => return Err(Failed::Data(format!("a {} cannot be a key", type_name(key)))),
        }
        self.raw(":");
        self.value(value, depth + 1)
    }
}
