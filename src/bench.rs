//! A load generator, of the kind that tells the truth about latency.
//!
//! Clients make calls, each over a connection of its own, and a histogram keeps what each call took. In a *closed* loop a
//! client begins its next call when the last is answered: that finds how much is done, and hides how long a
//! stall was, because nobody asks during one. In an *open* loop calls are due at a steady rate, whatever became
//! of those before, and a call's latency counts from when it was due: no coordinated omission (Gil Tene, "How NOT
//! to measure latency", 2015).
//!
//! One thread drives all clients of a run: on a machine that the database shares, threads that wake each
//! other would be what is measured.

use std::time::Duration;

/// One client: a connection, and what it asks for.
pub trait Client {
    /// Makes one call and waits for its answer, which it checks.
    ///
    /// # Errors
    /// What was wrong with the answer; a client is used again after an error, and connects again itself.
    fn call(&mut self, serial: u64) -> impl Future<Output = Result<(), String>>;
}

/// When calls begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each client begins a call when its last is answered.
    Closed,
    /// So many calls are due in a second, spread evenly; a client that is late catches up.
    Open {
        /// Calls per second, of all clients together.
        per_second: f64,
    },
}

/// A run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clients at once.
    pub clients: usize,
    /// When they call.
    pub pace: Pace,
    /// Calls that are made first and not counted.
    pub warmup: Duration,
    /// How long calls are counted.
    pub duration: Duration,
}

/// What became of a run.
#[derive(Debug)]
pub struct Report {
    /// Calls whose answers were right.
    pub done: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
    /// From the first counted call to the last answer.
    pub elapsed: Duration,
    /// Latencies of calls that were done, in microseconds.
    pub latency: hdrhistogram::Histogram<u64>,
    /// Calls done in each [`SLOT`] since the run began, warm-up included: outages show here.
    pub timeline: Vec<u32>,
    /// The longest time without any call done, and when it began, since the run began.
    pub longest_gap: (Duration, Duration),
}

/// The grain of a report's timeline.
pub const SLOT: Duration = Duration::from_millis(10);

/// How a run stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Duration,
    /// Calls done so far.
    pub done: u64,
    /// Calls that failed so far.
    pub failed: u64,
}

/// Connects the clients and drives them on this thread until the plan is over. Must not be called on a thread of a runtime.
///
/// # Errors
/// When a client cannot connect.
pub fn run<C: Client>(
    _plan: &Plan,
    _connect: impl AsyncFn(usize) -> Result<C, String>,
    _progress: impl FnMut(Progress),
) -> Result<Report, String> {
    Err("not written yet".to_owned())
}
