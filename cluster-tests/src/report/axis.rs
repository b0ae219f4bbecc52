//! From time to pixels: the axis that the panels of a plot and the lanes of its faults share.

use crate::history::Micros;

/// Where time begins, from the left.
pub(super) const LEFT: f64 = 170.0;
/// Where it ends.
pub(super) const RIGHT: f64 = 1130.0;
/// Seconds between ticks, of which the smallest that leaves room is taken.
const TICKS: &[u64] =
    &[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];
const TICKS_MAX: u64 = 12;
const SECOND: Micros = 1_000_000;

/// The time axis of a run.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    end: Micros,
}

impl Axis {
    /// From the start of a run to a moment.
    pub(super) fn new(end: Micros) -> Self {
        Axis { end: end.max(1) }
    }

    /// Where a moment is, from the left; what is later than the end is at the end.
    pub(super) fn x(self, time: Micros) -> f64 {
        LEFT + (RIGHT - LEFT) * (time.min(self.end) as f64 / self.end as f64)
    }

    /// Moments of the ticks, each with its label: whole seconds, a round number of them apart.
    pub(super) fn ticks(self) -> Vec<(Micros, String)> {
        let fits = |step: &&u64| self.end / (**step * SECOND) <= TICKS_MAX;
        let whole = || self.end.div_ceil(TICKS_MAX).div_ceil(SECOND);
        let step = TICKS.iter().find(fits).copied().unwrap_or_else(whole) * SECOND;
        let times = (0..=self.end / step).map(|index| index * step);
        times.map(|time| (time, clock(time))).collect()
    }
}

/// A moment in the unit that is read at a glance: `90 s`, `12:30 min`, `2:30 h`.
fn clock(time: Micros) -> String {
    let seconds = time / SECOND;
    match seconds {
        0..600 => format!("{seconds} s"),
        600..7200 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = Axis::new(95 * SECOND).ticks();
        let times: Vec<_> = ticks.iter().map(|(time, _)| *time / SECOND).collect();
        assert_eq!(times, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        for end in [1, 10, 59, 600, 4_000, 90_000, 10_000_000] {
            let ticks = Axis::new(end * SECOND).ticks();
            assert!((1..=13).contains(&ticks.len()), "{end}: {ticks:?}");
        }
        assert_eq!([90, 3_900, 9_000].map(|s| clock(s * SECOND)), ["90 s", "65:00 min", "2:30 h"]);
    }

    #[test]
    fn what_is_after_the_end_is_drawn_at_the_end() {
        let axis = Axis::new(100);
        assert_eq!([0, 50, 100, 101].map(|time| axis.x(time)), [LEFT, 650.0, RIGHT, RIGHT]);
    }
}
