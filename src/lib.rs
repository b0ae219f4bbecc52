//! KVdb: a replicated key-value store that people program.
//!
//! A bucket holds keys and Lua scripts. Everything that writes is executed on the leader and becomes one
//! log entry, a *command* of concrete effects that names its predecessor; every node applies it, or none
//! does. Imports flow down, and a test holds the table:
//!
//! ```text
//! main ─► cli ─► http ─► node ─► executor ─► raft ─► storage ─► kv ─► encoding ─► error
//!          └──► client ─► api       └──────► script ─────────────┘
//! ```
//!
//! In the order in which they are best read: [`kv`] says what the database is, [`script`] runs the guests,
//! [`storage`] and [`raft`] keep and agree, [`executor`] gives each bucket its order, [`node`] is the
//! façade, [`http`] the edge. `docs/life-of-a-script.md` walks the whole road.
//!
//! Where `mutant::is(…)` stands, read `false`: it plants a bug in builds that test the tests, and only there.

pub mod error;

mod mutant;
#[cfg(test)]
mod testing;

pub mod encoding;
pub mod kv;

pub mod script;
pub mod storage;

pub mod raft;

pub mod executor;

pub mod config;
pub mod node;

pub mod api;
pub mod http;
pub mod metrics;

pub mod bench;
pub mod cli;
pub mod client;
