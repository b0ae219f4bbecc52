//! When calls are due, and which of them are counted.

use std::time::{Duration, Instant};

use super::{Pace, Plan};

/// The times of a run that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the run began.
    pub(super) start: Instant,
    /// When its warm-up ended: what begins from here on is counted.
    pub(super) counted_from: Instant,
    /// When the last call may begin.
    pub(super) end: Instant,
    /// How many clients share the calls.
    clients: u64,
    /// The due calls, in an open loop.
    pub(super) open: Option<Open>,
}

/// Calls that are due at a steady rate: the call `serial` at `serial / per_second` after the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    per_second: f64,
    /// The first call that is counted.
    counted_from: u64,
    /// The calls that are due before the end.
    pub(super) total: u64,
}

impl Schedule {
    pub(super) fn new(plan: &Plan, start: Instant) -> Self {
        let counted_from = start + plan.warmup;
        let open = match plan.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(Open {
                per_second,
                counted_from: calls_within(plan.warmup, per_second),
                total: calls_within(plan.warmup + plan.duration, per_second),
            }),
        };
        let end = counted_from + plan.duration;
        Schedule { start, counted_from, end, clients: plan.clients as u64, open }
    }

    /// When a call of an open loop is due.
    pub(super) fn due(&self, open: &Open, serial: u64) -> Instant {
        self.start + Duration::from_secs_f64(serial as f64 / open.per_second)
    }

    /// The counted calls that are due from this one on, before the end, of the same client.
    pub(super) fn remaining(&self, open: &Open, serial: u64) -> u64 {
        let behind = open.counted_from.saturating_sub(serial).div_ceil(self.clients);
        let first = serial + behind * self.clients;
        open.total.saturating_sub(first).div_ceil(self.clients)
    }

    /// The call of the same client after this one.
    pub(super) fn next(&self, serial: u64) -> u64 {
        serial + self.clients
    }

    /// The client that makes a call.
    pub(super) fn client(&self, serial: u64) -> usize {
        usize::try_from(serial % self.clients).unwrap_or_default()
    }
}

/// How many calls are due before so much time is over; the first is due at once.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a plan's numbers are small"
)]
fn calls_within(time: Duration, per_second: f64) -> u64 {
    (time.as_secs_f64() * per_second).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(clients: usize, warmup: u64, duration: u64) -> (Schedule, Open) {
        let plan = Plan {
            clients,
            pace: Pace::Open { per_second: 10.0 },
            warmup: Duration::from_secs(warmup),
            duration: Duration::from_secs(duration),
        };
        let schedule = Schedule::new(&plan, Instant::now());
        (schedule, schedule.open.unwrap())
    }

    #[test]
    fn calls_are_due_at_a_steady_rate() {
        let (schedule, open) = schedule(4, 0, 2);
        assert_eq!(open.total, 20);
        assert_eq!(schedule.due(&open, 0), schedule.start);
        assert_eq!(schedule.due(&open, 15), schedule.start + Duration::from_millis(1500));
        assert_eq!((schedule.next(3), schedule.client(7), schedule.client(8)), (7, 3, 0));
    }

    #[test]
    fn what_remains_is_each_clients_share_after_the_warmup() {
        // Calls 10 to 29 are counted.
        let (schedule, open) = schedule(4, 1, 2);
        let shares: Vec<_> = (0..4).map(|client| schedule.remaining(&open, client)).collect();
        assert_eq!(shares, [5, 5, 5, 5]);
        assert_eq!(schedule.remaining(&open, 26), 1);
        assert_eq!(schedule.remaining(&open, 30), 0);
        let (schedule, open) = self::schedule(3, 1, 1);
        // 10 to 19: 12, 15, 18 of client 0; 10, 13, 16, 19 of client 1; 11, 14, 17 of client 2.
        let shares: Vec<_> = (0..3).map(|client| schedule.remaining(&open, client)).collect();
        assert_eq!(shares, [3, 4, 3]);
    }
}
