//! Real clusters of the built binary, real faults, and what must hold.
//!
//! A test is one [`Scenario`](scenario::Scenario): a line of named phases, printed as they begin. It starts a
//! [`Cluster`](cluster::Cluster) of child processes on loopback, breaks it, and asks any node over HTTP
//! what became of the data. Nothing here links the server: the tests see what a customer sees, the
//! binary and its wire.
//!
//! Invariants:
//! - One cluster test runs at a time on a machine, so that its timings are its own.
//! - No process outlives its test, also when the test panics; the data and logs of a failed test stay.
//! - Nothing is slept for: a test waits for a condition with a deadline, and says what it waited for.
//! - An outcome is done, refused or unknown, and unknown is never taken for either.

pub mod campaign;
pub mod check;
pub mod cluster;
pub mod follow;
pub mod history;
pub mod http;
pub mod lab;
pub mod launch;
pub mod load;
pub mod model;
pub mod nemesis;
pub mod process;
pub mod report;
pub mod scenario;
pub mod session;
pub mod sources;
pub mod status;
pub mod transcript;
pub mod wait;
pub mod wire;
pub mod workload;
