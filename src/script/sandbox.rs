//! What exists inside: allow-lists, and a machine that holds nothing else.
//!
//! mlua and Luau bring names that a stranger's code must not have (their `require` reads files, `loadstring`
//! compiles, `getfenv` breaks the frozen globals, `newproxy`, `collectgarbage`, `gcinfo`, `print`).
//! They are not listed, and what is not listed is removed; then `kvdb` and our own `require` are added. `buffer`, `vector`, `debug`, `io` and
//! `string.pack` are left out because nothing here needs them. Coroutines are in: interrupts and
//! memory are the machine's, so they run within the budget of the call.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Lua, LuaOptions, StdLib, Table, Value};

use super::budget::is_out_of_memory;
use super::fault::{PRELUDE, caught_text};
use super::host::{Host, function, lua_string};
use super::modules::{self, Environments};
use super::value::raise;
use super::{api, cache};

/// The functions that every script has by name.
const GLOBALS: &[&str] = &[
    "_VERSION",
    "assert",
    "error",
    "getmetatable",
    "ipairs",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "select",
    "setmetatable",
    "tonumber",
    "tostring",
    "type",
    "typeof",
    "unpack",
    "xpcall",
];

/// The libraries, and what each has.
const LIBRARIES: &[(&str, &[&str])] = &[
    (
        "bit32",
        &[
            "arshift", "band", "bnot", "bor", "btest", "bxor", "byteswap", "countlz", "countrz",
            "extract", "lrotate", "lshift", "replace", "rrotate", "rshift",
        ],
    ),
    (
        "coroutine",
        &["close", "create", "isyieldable", "resume", "running", "status", "wrap", "yield"],
    ),
    (
        "math",
        &[
            "abs",
            "acos",
            "asin",
            "atan",
            "atan2",
            "ceil",
            "clamp",
            "cos",
            "cosh",
            "deg",
            "exp",
            "floor",
            "fmod",
            "frexp",
            "huge",
            "isfinite",
            "isinf",
            "isnan",
            "ldexp",
            "lerp",
            "log",
            "log10",
            "map",
            "max",
            "min",
            "modf",
            "noise",
            "pi",
            "pow",
            "rad",
            "random",
            "randomseed",
            "round",
            "sign",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
        ],
    ),
    ("os", &["clock", "date", "difftime", "time"]),
    (
        "string",
        &[
            "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep",
            "reverse", "split", "sub", "upper",
        ],
    ),
    (
        "table",
        &[
            "clear", "clone", "concat", "create", "find", "foreach", "foreachi", "freeze", "getn",
            "insert", "isfrozen", "maxn", "move", "pack", "remove", "sort", "unpack",
        ],
    ),
    ("utf8", &["char", "charpattern", "codepoint", "codes", "len", "offset"]),
];

/// The largest product of string and pattern that one step of a match may cost.
const PATTERN_WORK_MAX: usize = 1 << 26;

/// A machine with nothing in it but what is listed.
pub(super) struct Sandbox {
    pub(super) lua: Lua,
    pub(super) environments: Environments,
}

impl Sandbox {
    pub(super) fn new(host: &Rc<Host>) -> mlua::Result<Self> {
        let libs = StdLib::TABLE
            | StdLib::STRING
            | StdLib::MATH
            | StdLib::UTF8
            | StdLib::BIT
            | StdLib::OS
            | StdLib::COROUTINE;
        // The option's name misleads: true keeps Luau's own `pcall`, which can be yielded across. Host
        // functions do not panic.
        let lua = Lua::new_with(libs, LuaOptions::new().catch_rust_panics(true))?;
        let globals = lua.globals();
        let kvdb = api::table(&lua, host)?;
        prelude(&lua, host, kvdb.raw_get("json")?)?;
        retain_listed(&globals)?;
        globals.raw_set("kvdb", &kvdb)?;
        let metatable = lua.create_table()?;
        metatable.raw_set("__index", &globals)?;
        metatable.raw_set("__metatable", false)?;
        metatable.set_readonly(true);
        let environments = Environments { kvdb, metatable };
        globals.raw_set("require", modules::require(&lua, host, &environments)?)?;
        lua.sandbox(true)?;
        let meter = Rc::clone(host);
        lua.set_interrupt(move |lua| meter.budget.tick(lua));
        Ok(Sandbox { lua, environments })
    }
}

fn retain_listed(globals: &Table) -> mlua::Result<()> {
    let names: Vec<String> = names(globals)?;
    for name in names {
        match LIBRARIES.iter().find(|(library, _)| *library == name) {
            Some((_, listed)) => retain(&globals.raw_get(name)?, listed)?,
            None if GLOBALS.contains(&name.as_str()) => {}
            None => globals.raw_set(name, Value::Nil)?,
        }
    }
    Ok(())
}

fn retain(library: &Table, listed: &[&str]) -> mlua::Result<()> {
    for name in names(library)? {
        if !listed.contains(&name.as_str()) {
            library.raw_set(name, Value::Nil)?;
        }
    }
    Ok(())
}

fn names(table: &Table) -> mlua::Result<Vec<String>> {
    table.pairs::<String, Value>().map(|pair| pair.map(|(name, _)| name)).collect()
}

/// Replaces the library functions that are not safe, not metered or not deterministic.
fn prelude(lua: &Lua, host: &Rc<Host>, json: Table) -> mlua::Result<()> {
    let bytecode = cache::compile(include_str!("prelude.luau"))?;
    lua.load(bytecode)
        .set_name(format!("={PRELUDE}"))
        .set_mode(ChunkMode::Binary)
        .into_function()?
        .call((helpers(lua, host)?, json))
}

/// The host functions that only the prelude sees.
fn helpers(lua: &Lua, host: &Rc<Host>) -> mlua::Result<Table> {
    let helpers = lua.create_table()?;
    helpers.raw_set(
        "out_of_memory",
        function(lua, host, |host, _, ()| Err::<(), _>(host.budget.out_of_memory()))?,
    )?;
    helpers.raw_set("error_text", function(lua, host, error_text)?)?;
    helpers.raw_set(
        "charge",
        function(lua, host, |host, _, bytes: Value| host.budget.charge_bytes(size(&bytes)))?,
    )?;
    helpers.raw_set("search", function(lua, host, search)?)?;
    helpers.raw_set(
        "pattern",
        function(lua, host, |host, lua, (text, pattern): (Value, Value)| {
            pattern_work(host, lua, &text, &pattern)
        })?,
    )?;
    helpers.raw_set("seconds", function(lua, host, |host, _, ()| Ok(host.now()? / 1000))?)?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds stay below 2^53")]
    let clock = function(lua, host, |host, _, ()| Ok(host.now()? as f64 / 1000.0))?;
    helpers.raw_set("clock", clock)?;
    helpers.raw_set("random", function(lua, host, random)?)?;
    helpers.raw_set("randomseed", function(lua, host, randomseed)?)?;
    Ok(helpers)
}

/// An error of the host as a string; any other value as it is.
fn error_text(host: &Host, lua: &Lua, error: Value) -> mlua::Result<Value> {
    match error {
        Value::Error(error) if is_out_of_memory(&error) => Err(host.budget.out_of_memory()),
        Value::Error(error) => lua_string(lua, caught_text(&error)),
        other => Ok(other),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Integer(size) => usize::try_from(*size).unwrap_or(0),
        _ => 0,
    }
}

/// `string.find` of a text that is no pattern, in linear time: Luau's own is quadratic and cannot
/// be interrupted. The first result is whether it was one.
fn search(
    host: &Host,
    lua: &Lua,
    (text, pattern, init, plain): (Value, Value, Value, Value),
) -> mlua::Result<(bool, Option<usize>, Option<usize>)> {
    let (Value::String(text_string), Value::String(pattern_string)) = (&text, &pattern) else {
        return Ok((false, None, None));
    };
    let (text_bytes, needle) = (text_string.as_bytes(), pattern_string.as_bytes());
    host.budget.charge_bytes(text_bytes.len() + needle.len())?;
    let plain = !matches!(plain, Value::Nil | Value::Boolean(false));
    if !plain && needle.iter().any(|byte| b"^$*+?.([%-".contains(byte)) {
        pattern_work(host, lua, &text, &pattern)?;
        return Ok((false, None, None));
    }
    let start = start(&init, text_bytes.len());
    let found = text_bytes.get(start..).and_then(|rest| memchr::memmem::find(rest, &needle));
    Ok((true, found.map(|at| start + at + 1), found.map(|at| start + at + needle.len())))
}

/// The offset that Lua means by `init`.
fn start(init: &Value, length: usize) -> usize {
    let init = match init {
        Value::Integer(init) => *init,
        // Lua cuts the fraction off.
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and NaN is 0")]
        Value::Number(init) => *init as i64,
        _ => return 0,
    };
    match usize::try_from(init) {
        Ok(init) => init.saturating_sub(1),
        Err(_) => length.saturating_sub(usize::try_from(init.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

/// One step of a match can look at the whole string, and at a whole set for each byte of it.
fn pattern_work(host: &Host, lua: &Lua, text: &Value, pattern: &Value) -> mlua::Result<()> {
    let (Value::String(text), Value::String(pattern)) = (text, pattern) else { return Ok(()) };
    let (length, pattern) = (text.as_bytes().len(), pattern.as_bytes());
    let per_byte = if pattern.contains(&b'[') { pattern.len() } else { 1 };
    let work = length.saturating_mul(per_byte);
    if work > PATTERN_WORK_MAX {
        return Err(raise(lua, "the pattern is too long for a string of this size"));
    }
    host.budget.weigh(work);
    Ok(())
}

/// `math.random`.
fn random(host: &Host, lua: &Lua, (low, high): (Value, Value)) -> mlua::Result<Value> {
    let (low, high) = match (&low, &high) {
        (Value::Nil, Value::Nil) => return Ok(Value::Number(host.random.float())),
        (Value::Integer(high), Value::Nil) => (1, *high),
        (Value::Integer(low), Value::Integer(high)) => (*low, *high),
        _ => return Err(raise(lua, "`math.random` takes up to two whole numbers")),
    };
    if low > high {
        return Err(raise(lua, "`math.random`: the interval is empty"));
    }
    Ok(Value::Integer(host.random.between(low, high)))
}

/// `math.randomseed`.
fn randomseed(host: &Host, lua: &Lua, seed: Value) -> mlua::Result<()> {
    match seed {
        Value::Integer(seed) => host.random.reseed(seed.cast_unsigned()),
        Value::Number(seed) => host.random.reseed(seed.to_bits()),
        _ => return Err(raise(lua, "`math.randomseed` takes a number")),
    }
    Ok(())
}
