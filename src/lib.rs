//! KVdb: a replicated key-value store that people program.

pub mod encoding;
pub mod error;
pub mod kv;
pub mod node;
pub mod script;
