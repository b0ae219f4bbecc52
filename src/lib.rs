//! KVdb: a replicated key-value store that people program.

pub mod encoding;
pub mod error;
pub mod executor;
pub mod kv;
pub mod raft;
pub mod script;
pub mod storage;
