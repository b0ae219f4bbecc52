//! Compiled scripts, by digest and name: compiling costs a hundred times what running does.

use std::collections::HashMap;
use std::rc::Rc;

use mlua::Function;
use mlua::chunk::Compiler;

use crate::kv::ScriptName;

/// Scripts kept at most; beyond it the one unused longest goes.
const ENTRIES_MAX: usize = 256;
/// Their sources together, in bytes: code takes a few times that in a machine.
const SOURCE_BYTES_MAX: usize = 4 << 20;

type Id = ([u8; 32], ScriptName);

struct Entry {
    bytecode: Rc<[u8]>,
    /// Loaded into the present machine.
    function: Option<Function>,
    source_bytes: usize,
    used: u64,
}

/// The cache of one thread. Bytecode outlives a machine; functions do not.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Id, Entry>,
    source_bytes: usize,
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
    pub(super) fn insert(&mut self, id: Id, bytecode: Rc<[u8]>, function: Function, source: usize) {
        self.clock += 1;
        let entry =
            Entry { bytecode, function: Some(function), source_bytes: source, used: self.clock };
        self.source_bytes += source;
        if let Some(old) = self.entries.insert(id, entry) {
            self.source_bytes -= old.source_bytes;
        }
        while self.entries.len() > ENTRIES_MAX
            || (self.source_bytes > SOURCE_BYTES_MAX && self.entries.len() > 1)
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
        let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
        if let Some(entry) = self.entries.remove(&id) {
            self.source_bytes -= entry.source_bytes;
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
}

/// Compiles a source. It is always taken as text: hostile bytecode could corrupt memory.
pub(super) fn compile(source: &str) -> mlua::Result<Vec<u8>> {
    Compiler::new()
        .set_optimization_level(2)
        .set_debug_level(1)
        // Its fields change while a script runs, so they must not be looked up when it is loaded.
        .add_mutable_global("kvdb")
        .compile(source)
}
