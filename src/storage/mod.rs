//! The disk: where replicated state lives on a node, and the only place that names RocksDB.
//!
//! ```text
//! data/IDENTITY        which cluster and node this directory belongs to; written once per change
//! data/LOCK            held while a process uses the directory
//! data/log/            the Raft log and how far it is synced, owned by `raft`
//! data/state/CURRENT   the name of the database in use
//! data/state/db-N/     RocksDB
//! data/snapshots/      checkpoints: hard links into the database, gone at the next start
//! data/incoming/       snapshots being received, gone at the next start
//! ```
//!
//! What survives which crash:
//! - The database has no log of its own. A batch holds the effects of whole entries together with the
//!   applied index, so what a crash leaves is the state after *some* entry; the Raft log is
//!   replayed from there. One column family, so a flush cuts at one point for all rows.
//! - A checkpoint flushes first. The Raft log is purged only behind a checkpoint, so the entries that
//!   the state still lacks after a crash are always there.
//! - `CURRENT` and `IDENTITY` are replaced by write, fsync, rename, fsync of the directory.

mod batch;
mod checkpoint;
mod db;
mod directory;
#[cfg(test)]
mod mirror;
mod pace;
mod recent;
mod state;
mod view;

pub use batch::Batch;
pub use checkpoint::Checkpoint;
pub use db::{DAMAGED, Tuning};
pub use directory::{DataDir, Identity, write_durably};
pub use pace::{Pace, Paced};
pub use state::State;
