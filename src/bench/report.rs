//! What became of a run, in numbers and in words.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::SLOT;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Calls whose answers were right.
    pub done: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls of an open loop that were due and never made: the clients were too late.
    pub missed: u64,
    /// Why the first of the failed did.
    pub first_failure: Option<String>,
    /// From the first counted call to the last answer.
    pub elapsed: Duration,
    /// Latencies of calls that were done, in microseconds.
    pub latency: Histogram<u64>,
    /// Calls done in each [`SLOT`] since the run began, warm-up included: outages show here.
    pub timeline: Vec<u32>,
    /// The longest time without any call done, and when it began, since the run began.
    pub longest_gap: (Duration, Duration),
}

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Time since it began.
    pub elapsed: Duration,
    /// Calls done so far, warm-up included.
    pub done: u64,
    /// Calls that failed so far, warm-up included.
    pub failed: u64,
}

impl Report {
    /// Calls done in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the done calls did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        milliseconds(self.latency.value_at_quantile(quantile))
    }

    /// Adds what another thread's clients did meanwhile. The longest gap is then known to a [`SLOT`].
    pub fn merge(&mut self, other: &Report) {
        self.done += other.done;
        self.failed += other.failed;
        self.missed += other.missed;
        self.first_failure = self.first_failure.take().or_else(|| other.first_failure.clone());
        self.elapsed = self.elapsed.max(other.elapsed);
        // Cannot fail: all have the same bounds.
        let _ = self.latency.add(&other.latency);
        let length = self.timeline.len().max(other.timeline.len());
        self.timeline.resize(length, 0);
        for (slot, more) in self.timeline.iter_mut().zip(&other.timeline) {
            *slot += more;
        }
        self.longest_gap = longest_gap(&self.timeline);
    }

    /// The distribution of latencies in milliseconds, as HdrHistogram's tools print and plot it.
    #[must_use]
    pub fn distribution(&self) -> String {
        let latency = &self.latency;
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        let mut count = 0;
        for step in latency.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let quantile = step.quantile_iterated_to();
            text += &format!(
                "{:>12.3} {quantile:>14.12} {count:>10}",
                milliseconds(step.value_iterated_to())
            );
            if quantile < 1.0 {
                text += &format!(" {:>14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        text + &format!(
            "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
             #[Max     = {:>12.3}, Total count    = {:>12}]\n\
             #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
            latency.mean() / 1000.0,
            latency.stdev() / 1000.0,
            milliseconds(latency.max()),
            latency.len(),
            latency.buckets(),
            // What three significant digits make of it.
            2048
        )
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The longest row of slots without a call, and where it begins.
fn longest_gap(timeline: &[u32]) -> (Duration, Duration) {
    let (mut longest, mut begun, mut length) = ((0, 0), 0, 0);
    for (slot, calls) in (0u32..).zip(timeline) {
        length = if *calls == 0 { length + 1 } else { 0 };
        if length == 1 {
            begun = slot;
        }
        longest = if length > longest.0 { (length, begun) } else { longest };
    }
    (SLOT * longest.0, SLOT * longest.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally;

    fn report(latencies: &[u64], timeline: &[u32]) -> Report {
        let mut latency = tally::histogram();
        latencies.iter().for_each(|micros| latency.record(*micros).unwrap());
        Report {
            done: latencies.len() as u64,
            failed: 1,
            missed: 2,
            first_failure: None,
            elapsed: Duration::from_secs(2),
            latency,
            timeline: timeline.to_vec(),
            longest_gap: (Duration::ZERO, Duration::ZERO),
        }
    }

    #[test]
    fn merged_reports_are_one_run() {
        let mut all = report(&[1000, 3000], &[1, 0, 0, 1]);
        let mut other = report(&[9000], &[0, 0, 0, 0, 0, 1]);
        other.first_failure = Some("why".to_owned());
        other.elapsed = Duration::from_secs(3);
        all.merge(&other);
        assert_eq!((all.done, all.failed, all.missed), (3, 2, 4));
        assert_eq!(all.first_failure.as_deref(), Some("why"));
        assert_eq!(all.timeline, [1, 0, 0, 1, 0, 1]);
        assert_eq!(all.longest_gap, (SLOT * 2, SLOT));
        assert!((all.per_second() - 1.0).abs() < 1e-9);
        assert!((all.quantile_ms(0.5) - 3.0).abs() < 0.01);
    }

    #[test]
    fn the_longest_gap_may_be_at_either_end() {
        assert_eq!(longest_gap(&[0, 0, 1, 0]), (SLOT * 2, Duration::ZERO));
        assert_eq!(longest_gap(&[0, 1, 0, 0]), (SLOT * 2, SLOT * 2));
        assert_eq!(longest_gap(&[1, 1]).0, Duration::ZERO);
    }

    #[test]
    fn the_distribution_is_in_the_usual_format() {
        let text = report(&[1000, 2000, 3000, 4000], &[]).distribution();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let last = lines.iter().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(*last, "       4.001 1.000000000000          4");
        assert!(
            text.contains("#[Max     =        4.001, Total count    =            4]"),
            "{text}"
        );
    }
}
