//! How long a run takes: so that who waits knows, and `QUICK=1` stays what it promises.
//!
//! What a row takes beside its load was measured on two cores; on another machine it is off by a factor, which is
//! learnt as rows are done.

use std::time::{Duration, Instant};

use crate::lab::Settings;
use crate::rows::COSTS;

/// What draws a plot and belongs to no row.
pub const PLOTS: &str = "plots";
/// What a look at the disk before and after a load takes, and connecting.
const AROUND_A_LOAD: f64 = 0.4;
/// A guess is never corrected by more than this, either way.
const FACTOR_MAX: f64 = 4.0;

/// What a row takes, in seconds; of two figures, the second is that of a quick run.
struct Effort {
    name: &'static str,
    /// Starting and loading databases.
    once: (f64, f64),
    /// Loads of a round.
    loads: f64,
    /// Of a round, beside its loads.
    round: (f64, f64),
    /// Most rounds.
    rounds_max: usize,
}

const fn rate(name: &'static str, once: f64, loads: f64) -> Effort {
    Effort { name, once: (once, once), loads, round: (0.0, 0.0), rounds_max: usize::MAX }
}

const fn sized(
    name: &'static str,
    once: (f64, f64),
    loads: f64,
    round: (f64, f64),
    rounds_max: usize,
) -> Effort {
    Effort { name, once, loads, round, rounds_max }
}

const EFFORTS: &[Effort] = &[
    // The first starts ours and etcd, and loads them.
    rate("transfer-etcd", 10.0, 2.0),
    rate("transfer-redis", 3.0, 2.0),
    rate("transfer-tarantool", 2.0, 2.0),
    rate("put-grpc", 0.0, 2.0),
    rate("put-gateway", 0.0, 2.0),
    rate("get-leader", 0.0, 2.0),
    rate("get-spread", 0.0, 3.0),
    rate("hot-counter", 0.0, 2.0),
    rate("put-p50", 0.0, 2.0),
    sized("put-p99", (12.0, 4.0), 2.0, (0.0, 0.0), usize::MAX),
    sized("slow-script", (7.0, 3.0), 2.0, (0.0, 0.0), usize::MAX),
    sized("outage", (0.0, 0.0), 0.0, (17.0, 17.0), usize::MAX),
    sized("memory", (130.0, 25.0), 0.0, (1.0, 1.0), 1),
    sized("restart", (0.0, 0.0), 0.0, (20.0, 5.0), 5),
    sized("disk-bytes", (400.0, 22.0), 0.0, (0.0, 0.0), 1),
    sized("five-million", (300.0, 10.0), 2.0, (0.0, 0.0), usize::MAX),
    sized("rejoin", (150.0, 12.0), 0.0, (0.0, 0.0), 1),
    sized(COSTS, (25.0, 10.0), 0.0, (0.0, 0.0), 1),
    sized(PLOTS, (100.0, 40.0), 0.0, (0.0, 0.0), 1),
];

/// Seconds that something is expected to take.
#[must_use]
pub fn seconds(name: &str, settings: &Settings) -> f64 {
    let Some(effort) = EFFORTS.iter().find(|effort| effort.name == name) else { return 0.0 };
    let load = (settings.duration + settings.warmup).as_secs_f64() + AROUND_A_LOAD;
    let rounds = settings.rounds.min(effort.rounds_max) as f64;
    let of = |(full, quick)| settings.scaled(full, quick);
    of(effort.once) + rounds * (effort.loads * load + of(effort.round))
}

/// A run's list of what is to do, and how far it is.
pub struct Outlook {
    /// What is still to do, in order, with the seconds that are expected of each.
    to_do: Vec<f64>,
    next: usize,
    begun: Instant,
}

impl Outlook {
    /// Begins now.
    #[must_use]
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, settings: &Settings) -> Self {
        let to_do = names.map(|name| seconds(name, settings)).collect();
        Outlook { to_do, next: 0, begun: Instant::now() }
    }

    /// Where the run is as the next begins: `3 of 18, about 2 min left`.
    pub fn begin_next(&mut self) -> String {
        let left = self.left(self.begun.elapsed());
        self.next += 1;
        format!("{} of {}, about {} left", self.next, self.to_do.len(), rough(left))
    }

    fn left(&self, elapsed: Duration) -> Duration {
        let (done, left) = self.to_do.split_at(self.next.min(self.to_do.len()));
        let (done, left) = (done.iter().sum::<f64>(), left.iter().sum::<f64>());
        let factor = if done > 0.0 { elapsed.as_secs_f64() / done } else { 1.0 };
        Duration::from_secs_f64(left * factor.clamp(1.0 / FACTOR_MAX, FACTOR_MAX))
    }
}

/// `40 s`, `3 min`: as exact as it is known.
fn rough(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 90.0 => format!("{:.0} s", (seconds / 10.0).ceil() * 10.0),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    /// What is promised of a quick run, less a fifth for a machine that has something else to do.
    const QUICK_MAX: f64 = 300.0 * 0.8;

    fn settings(quick: bool) -> Settings {
        if quick { Settings::QUICK } else { Settings::FULL }
    }

    #[test]
    fn a_quick_run_of_all_rows_ends_in_less_than_five_minutes() {
        let settings = settings(true);
        let names = ROWS.iter().map(|row| row.name).chain([COSTS]);
        let all: f64 = names.map(|name| seconds(name, &settings)).sum();
        assert!(all < QUICK_MAX, "{all} s");
    }

    #[test]
    fn something_is_expected_of_every_row_and_of_nothing_else() {
        let known: Vec<_> = EFFORTS.iter().map(|effort| effort.name).collect();
        let all: Vec<_> = ROWS.iter().map(|row| row.name).chain([COSTS, PLOTS]).collect();
        assert_eq!(known, all);
        assert!(all.iter().all(|name| seconds(name, &settings(true)) > 0.0));
    }

    #[test]
    fn rounds_cost_their_loads() {
        let one = settings(true);
        let three = Settings { rounds: 3, ..one };
        let load = 2.0 + AROUND_A_LOAD;
        assert!((seconds("put-grpc", &one) - 2.0 * load).abs() < 1e-9);
        assert!((seconds("put-grpc", &three) - 6.0 * load).abs() < 1e-9);
        assert!((seconds("memory", &three) - seconds("memory", &one)).abs() < 1e-9);
    }

    #[test]
    fn what_is_left_follows_what_was_needed_so_far() {
        let mut outlook = Outlook { to_do: vec![10.0, 20.0, 30.0], next: 0, begun: Instant::now() };
        let left =
            |outlook: &Outlook, seconds| outlook.left(Duration::from_secs(seconds)).as_secs();
        assert_eq!(left(&outlook, 0), 60);
        assert_eq!(outlook.begin_next(), "1 of 3, about 60 s left");
        assert_eq!(left(&outlook, 20), 100, "all takes twice as long");
        assert_eq!(left(&outlook, 1000), 200, "a stall is no rule");
        outlook.next = 3;
        assert_eq!(left(&outlook, 60), 0);
    }

    #[test]
    fn times_are_told_roughly() {
        assert_eq!(rough(Duration::from_secs(33)), "40 s");
        assert_eq!(rough(Duration::from_secs(170)), "3 min");
    }
}
