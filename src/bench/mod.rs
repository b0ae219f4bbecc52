//! A load generator, of the kind that tells the truth about latency.
//!
//! Clients make calls, each over a connection of its own, and a histogram keeps what each call took. In a *closed* loop a
//! client begins its next call when the last is answered: that finds how much is done, and hides how long a
//! stall was, because nobody asks during one. In an *open* loop calls are due at a steady rate, whatever became
//! of those before, and a call's latency counts from when it was due: no coordinated omission (Gil Tene, "How NOT
//! to measure latency", 2015). Calls that were due and never made, because the clients could not keep up until the end, are
//! counted as *missed*: a report that has some tells of a rate that was not reached.
//!
//! One thread drives all clients of a run: on a machine that the database shares, threads that wake each
//! other would be what is measured. `schedule.rs` says when calls are due, `drive.rs` makes them, `tally.rs` counts, and
//! `http.rs` is a client for whatever speaks HTTP.
//!
//! Invariants:
//! - A call is counted if it began (closed) or was due (open) after the warm-up and before the end, however long its
//!   answer takes, up to [`CALL_MAX`].
//! - Each counted call is in exactly one of `done`, `failed` and `missed`; only what was done has a latency.
//! - Serial numbers differ: client `i` of `n` makes the calls `i`, `i + n`, `i + 2n`, …

mod drive;
pub mod http;
mod random;
mod report;
mod schedule;
mod tally;

use std::time::Duration;

pub use drive::run;
pub use random::Random;
pub use report::{Progress, Report};

/// The grain of a report's timeline.
pub const SLOT: Duration = Duration::from_millis(10);
/// How long a call may take; then it has failed.
pub const CALL_MAX: Duration = Duration::from_secs(10);
/// Most clients of a run.
pub const CLIENTS_MAX: usize = 10_000;
/// Most calls that may be due in a second.
pub const RATE_MAX: f64 = 1e6;
/// How long a run may last, warm-up included: a report keeps a number for each [`SLOT`] of it.
pub const RUN_MAX: Duration = Duration::from_secs(24 * 3600);

/// One client: a connection, and what it asks for.
pub trait Client {
    /// Makes one call and waits for its answer, which it checks.
    ///
    /// # Errors
    /// What was wrong with the answer; a client is used again after an error, and connects again itself. So
    /// it is after a call that took too long, which is dropped half-way.
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

impl Plan {
    /// Says what is wrong with a plan that cannot be run.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=CLIENTS_MAX).contains(&self.clients) {
            return Err(format!("{} clients: choose 1 to {CLIENTS_MAX}", self.clients));
        }
        if self.duration.is_zero() {
            return Err("a run without a duration counts nothing".to_owned());
        }
        if self.warmup.saturating_add(self.duration) > RUN_MAX {
            return Err(format!("a run of more than {} hours", RUN_MAX.as_secs() / 3600));
        }
        match self.pace {
            Pace::Open { per_second } if !(per_second > 0.0 && per_second <= RATE_MAX) => {
                Err(format!("{per_second} calls a second: choose more than 0, up to {RATE_MAX}"))
            }
            _ => Ok(()),
        }
    }
}
