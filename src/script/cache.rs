//! Compiled scripts, by digest and name: compiling costs a hundred times what running does.
//!
//! Compiling cannot be interrupted, so what it costs must be bounded by the source alone: the compiler
//! inlines nothing and unrolls nothing (a few hundred bytes of functions that call each other could
//! become a hundred megabytes), and bytecode above a limit is refused before it is loaded or kept.

use std::collections::HashMap;
use std::rc::Rc;

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Function, Lua};

use crate::error::{Error, Result};
use crate::kv::ScriptName;

/// Scripts kept at most; beyond it the one unused longest goes.
const ENTRIES_MAX: usize = 256;
/// Their bytecode together, in bytes: loaded code takes a few times that in a machine.
pub(super) const CACHE_BYTES_MAX: usize = 8 << 20;
/// The bytecode of one script, in bytes; a program takes a small multiple of its source.
pub(super) const BYTECODE_BYTES_MAX: usize = 4 << 20;

type Id = ([u8; 32], ScriptName);

struct Entry {
    bytecode: Rc<[u8]>,
    /// Loaded into the present machine.
    function: Option<Function>,
    used: u64,
}

/// The cache of one thread. Bytecode outlives a machine; functions do not.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Id, Entry>,
    bytes: usize,
    clock: u64,
}

impl Cache {
    /// The loaded function, if there is one.
    pub(super) fn function(&mut self, id: &Id) -> Option<Function> {
        self.touch(id)?.function.clone()
    }

    /// The bytecode, if it was compiled before.
    pub(super) fn bytecode(&mut self, id: &Id) -> Option<Rc<[u8]>> {
        Some(Rc::clone(&self.touch(id)?.bytecode))
    }

    fn touch(&mut self, id: &Id) -> Option<&mut Entry> {
        self.clock += 1;
        let entry = self.entries.get_mut(id)?;
        entry.used = self.clock;
        Some(entry)
    }

    /// Adds what was compiled and loaded.
    pub(super) fn insert(&mut self, id: Id, bytecode: Rc<[u8]>, function: Function) {
        self.clock += 1;
        self.bytes += bytecode.len();
        let entry = Entry { bytecode, function: Some(function), used: self.clock };
        if let Some(old) = self.entries.insert(id, entry) {
            self.bytes -= old.bytecode.len();
        }
        while self.entries.len() > ENTRIES_MAX || self.bytes > CACHE_BYTES_MAX {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
        let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
        if let Some(entry) = self.entries.remove(&id) {
            self.bytes -= entry.bytecode.len();
        }
    }

    /// Forgets the functions of a machine that is thrown away.
    pub(super) fn unload(&mut self) {
        for entry in self.entries.values_mut() {
            entry.function = None;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Refuses bytecode that is too large to load and keep.
pub(super) fn bounded(bytecode: Vec<u8>) -> Result<Vec<u8>> {
    if bytecode.len() > BYTECODE_BYTES_MAX {
        return Err(Error::TooLarge { limit: "a compiled script", max: BYTECODE_BYTES_MAX as u64 });
    }
    Ok(bytecode)
}

/// Loads what [`compile`] made, and nothing else: bytecode is trusted by Luau.
pub(super) fn function(lua: &Lua, name: &ScriptName, bytecode: &[u8]) -> mlua::Result<Function> {
    lua.load(bytecode).set_name(format!("={name}")).set_mode(ChunkMode::Binary).into_function()
}

/// Compiles a source. It is always taken as text: hostile bytecode could corrupt memory.
pub(super) fn compile(source: &str) -> mlua::Result<Vec<u8>> {
    Compiler::new()
        // The next level inlines calls within calls: exponential in the source.
        .set_optimization_level(1)
        .set_debug_level(1)
        // Its fields change while a script runs, so they must not be looked up when it is loaded.
        .add_mutable_global("kvdb")
        .compile(source)
}
