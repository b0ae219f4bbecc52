//! Counts calls as they end.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::schedule::Schedule;
use super::{CALL_MAX, Progress, Report, SLOT};

/// The highest latency that is told from higher ones. More than [`CALL_MAX`]: a call that is made long
/// after it was due has waited before it began.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Digits of a latency that are right.
const DIGITS: u8 = 3;

/// What became of the calls until now.
#[derive(Debug)]
pub(super) struct Tally {
    schedule: Schedule,
    report: Report,
    /// All calls, warm-up included.
    progress: Progress,
    /// When a call was done last.
    last_done: Instant,
    /// When a counted call was done last.
    last_counted: Instant,
}

/// A histogram of latencies in microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    let most = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, most, DIGITS).expect("the bounds are constant, and good")
}

impl Tally {
    pub(super) fn new(schedule: Schedule) -> Self {
        // A call is done at the latest so long after the end: no slot is added later.
        let slots = slot_of(schedule.end - schedule.start + CALL_MAX) + 1;
        let report = Report {
            done: 0,
            failed: 0,
            missed: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            latency: histogram(),
            timeline: vec![0; slots],
            longest_gap: (Duration::ZERO, Duration::ZERO),
        };
        Tally {
            schedule,
            report,
            progress: Progress::default(),
            last_done: schedule.start,
            last_counted: schedule.counted_from,
        }
    }

    /// A call that was due at one time was answered rightly at another.
    pub(super) fn done(&mut self, due: Instant, now: Instant) {
        self.progress.done += 1;
        self.note_gap(now);
        self.last_done = now;
        if let Some(calls) = self.report.timeline.get_mut(slot_of(now - self.schedule.start)) {
            *calls += 1;
        }
        if due < self.schedule.counted_from {
            return;
        }
        self.report.done += 1;
        self.last_counted = now;
        let micros = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
        self.report.latency.saturating_record(micros);
    }

    /// A call that was due at that time failed.
    pub(super) fn failed(&mut self, due: Instant, why: String) {
        self.progress.failed += 1;
        if due >= self.schedule.counted_from {
            self.report.failed += 1;
            self.report.first_failure.get_or_insert(why);
        }
    }

    /// So many calls were due and not made.
    pub(super) fn missed(&mut self, calls: u64) {
        self.report.missed += calls;
    }

    /// How the run stands.
    pub(super) fn progress(&self) -> Progress {
        Progress { elapsed: self.schedule.start.elapsed(), ..self.progress }
    }

    /// The report of a run that is over.
    pub(super) fn finish(mut self) -> Report {
        self.note_gap(self.schedule.end);
        let ends = slot_of((self.last_done.max(self.schedule.end)) - self.schedule.start);
        self.report.timeline.truncate(ends + 1);
        self.report.elapsed = self.last_counted - self.schedule.counted_from;
        self.report
    }

    fn note_gap(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_done);
        if gap > self.report.longest_gap.0 {
            self.report.longest_gap = (gap, self.last_done - self.schedule.start);
        }
    }
}

fn slot_of(since_start: Duration) -> usize {
    usize::try_from(since_start.as_nanos() / SLOT.as_nanos()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Pace, Plan};

    /// A tally of a run with a second of warm-up and two that count, and its clock.
    fn tally() -> (Tally, impl Fn(u64) -> Instant) {
        let (warmup, duration) = (Duration::from_secs(1), Duration::from_secs(2));
        let plan = Plan { clients: 1, pace: Pace::Closed, warmup, duration };
        let start = Instant::now();
        let tally = Tally::new(Schedule::new(&plan, start));
        (tally, move |ms| start + Duration::from_millis(ms))
    }

    #[test]
    fn latency_counts_from_when_the_call_was_due() {
        let (mut tally, at) = tally();
        tally.done(at(1000), at(1250));
        let report = tally.finish();
        assert_eq!((report.done, report.elapsed), (1, Duration::from_millis(250)));
        assert!((report.quantile_ms(1.0) - 250.0).abs() < 0.5);
    }

    #[test]
    fn warmup_is_seen_in_the_timeline_and_not_counted() {
        let (mut tally, at) = tally();
        tally.done(at(0), at(5));
        tally.done(at(999), at(1001));
        tally.failed(at(999), "early".to_owned());
        let progress = tally.progress();
        assert_eq!((progress.done, progress.failed), (2, 1));
        let report = tally.finish();
        assert_eq!((report.done, report.failed, report.latency.len()), (0, 0, 0));
        assert_eq!(report.first_failure, None);
        assert_eq!((report.timeline[0], report.timeline[100]), (1, 1));
    }

    #[test]
    fn the_first_failure_is_kept() {
        let (mut tally, at) = tally();
        for why in ["first", "second"] {
            tally.failed(at(1500), why.to_owned());
        }
        let report = tally.finish();
        assert_eq!((report.failed, report.first_failure.as_deref()), (2, Some("first")));
    }

    #[test]
    fn the_longest_gap_is_between_calls_that_were_done() {
        let (mut tally, at) = tally();
        for ms in [100, 1200, 1210, 2300] {
            tally.done(at(ms - 1), at(ms));
        }
        tally.failed(at(600), "no leader".to_owned());
        let (gap, begun) = tally.finish().longest_gap;
        assert_eq!((gap, begun), (Duration::from_millis(1100), Duration::from_millis(100)));
    }

    #[test]
    fn an_outage_that_lasts_until_the_end_is_a_gap() {
        let (mut tally, at) = tally();
        tally.done(at(0), at(500));
        let report = tally.finish();
        assert_eq!(report.longest_gap, (Duration::from_millis(2500), Duration::from_millis(500)));
        assert_eq!(report.timeline.len(), 301);
    }

    #[test]
    fn answers_after_the_end_count() {
        let (mut tally, at) = tally();
        tally.done(at(2999), at(3000 + 9_990));
        let report = tally.finish();
        assert_eq!((report.done, report.timeline.iter().sum::<u32>()), (1, 1));
        assert_eq!(report.elapsed, Duration::from_millis(2000 + 9_990));
    }
}
