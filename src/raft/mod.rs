//! The log: consensus by openraft, and the only place that names it.
//!
//! ```text
//! executor ─► proposer ─► openraft ─► log_store (disk)
//!                            │  └───► network ══► server of each follower ─► its openraft
//!                            └─quorum─► state_machine ─► kv::apply ─► one batch ─► feed
//! ```
//!
//! openraft takes a call that returns as done. So `log_store` answers after an fsync, `state_machine` makes
//! whole entries visible at once, and an outcome that nobody can know is called unknown.
//!
//! Reads are by read index (Raft thesis, 6.4): a quorum says that this node still leads. Leases are not
//! used: a voter that restarts forgets the lease it granted.

mod auth;
mod cluster;
mod compaction;
mod feed;
mod frame;
mod heard;
mod log_store;
mod network;
mod pipeline;
mod proposer;
mod server;
mod snapshot;
mod state_machine;
#[cfg(test)]
mod testing;
mod traffic;
pub mod types;
mod vacancy;
pub mod wire;

pub use auth::PeerIdentity;
pub use cluster::{Cluster, Confirm, Leadership, MemberInfo, Standing, Timing};
pub use feed::{Feed, Subscription};
pub use log_store::{LogStore, Logged, Options as LogOptions, Stretch};
pub use network::{CONNECT_TIMEOUT, http_client};
pub use proposer::{Proposal, Proposer, Verdict};
pub use server::{Answer, Refusal, authenticate};
pub use state_machine::{StateMachine, applied_entry, applied_index};
pub use types::{NodeId, Peer};
