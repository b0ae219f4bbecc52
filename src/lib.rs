//! KVdb: a replicated key-value store that people program.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod encoding;
pub mod error;
pub mod http;
pub mod kv;
pub mod metrics;
pub mod node;
pub mod script;
