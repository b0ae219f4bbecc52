//! KVdb beside its peers: the same load on each, in turn, on one machine.
//!
//! `make bench` runs it. A [row](rows) of the table is one question, such as how many PUTs a second; a
//! [`Lab`](lab::Lab) starts the [databases](peers) that it needs and lets [clients] loose on them with the
//! generator that `kvdb bench` has, too. What came of it is [judged](stats) by ratios, kept as [results], and told
//! as a [document and plots](report), with what a command [costs] ours.
//!
//! Apart from that, [pieces] of a call's road are timed and their instructions [counted](steady), to tell a change of
//! the code from a change of the machine.
//!
//! Invariants:
//! - Same plan, same keys and values, same generator for all; what differs is the protocol.
//! - A figure comes from right answers only.
//! - Nothing that was started outlives the run, and its data is deleted.

pub mod clients;
pub mod costs;
pub mod drive;
pub mod estimate;
pub mod lab;
pub mod machine;
pub mod peers;
pub mod pieces;
pub mod report;
pub mod results;
pub mod rows;
pub mod say;
pub mod scratch;
pub mod stats;
pub mod steady;
pub mod supervise;
