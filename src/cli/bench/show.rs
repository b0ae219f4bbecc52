//! What a bench says, while it runs and at its end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::Bench;
use super::bucket::Site;
use crate::bench::{Progress, Report};

/// How often a line is written where nothing can be rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The shares of calls whose latency is told, by name.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The line on standard error that says how it goes.
pub(super) struct Line {
    terminal: bool,
    last: Progress,
}

impl Line {
    pub(super) fn new(note: &str) -> Self {
        say(&format!("{note}\n"));
        Line { terminal: std::io::stderr().is_terminal(), last: Progress::default() }
    }

    pub(super) fn show(&mut self, threads: &[Progress]) {
        let now = sum(threads);
        let since = now.elapsed.saturating_sub(self.last.elapsed);
        if since.is_zero() || (!self.terminal && since < LINE_EVERY) {
            return;
        }
        let rate = (now.done - self.last.done) as f64 / since.as_secs_f64();
        let seconds = now.elapsed.as_secs();
        let line = format!("{seconds:>4} s  {rate:>8.0}/s  {} failed", now.failed);
        // A carriage return and "erase to the end of the line".
        say(&if self.terminal { format!("\r{line}\x1b[K") } else { format!("{line}\n") });
        self.last = now;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.terminal {
            say("\r\x1b[K");
        }
    }
}

fn sum(threads: &[Progress]) -> Progress {
    threads.iter().fold(Progress::default(), |sum, thread| Progress {
        elapsed: sum.elapsed.max(thread.elapsed),
        done: sum.done + thread.done,
        failed: sum.failed + thread.failed,
    })
}

fn say(text: &str) {
    // Where standard error is closed, nobody wants to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The report in JSON.
#[derive(Debug, Serialize)]
struct Json<'a> {
    work: String,
    clients: usize,
    rate: Option<f64>,
    keys: u64,
    value_size: u64,
    seconds: f64,
    done: u64,
    failed: u64,
    missed: u64,
    per_second: f64,
    latency_ms: Latency,
    longest_gap_ms: f64,
    longest_gap_at_ms: f64,
    first_failure: Option<&'a str>,
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// The report as it was asked for.
pub(super) fn report(bench: &Bench, site: &Site, report: &Report) -> String {
    if bench.json { json(bench, report) } else { text(bench, &site.note(), report) }
}

fn json(bench: &Bench, report: &Report) -> String {
    let json = Json {
        work: bench.name(),
        clients: bench.clients,
        rate: bench.rate,
        keys: bench.keys,
        value_size: bench.value_size,
        seconds: report.elapsed.as_secs_f64(),
        done: report.done,
        failed: report.failed,
        missed: report.missed,
        per_second: report.per_second(),
        latency_ms: Latency {
            min: report.quantile_ms(0.0),
            mean: report.latency.mean() / 1000.0,
            p50: report.quantile_ms(0.5),
            p90: report.quantile_ms(0.9),
            p99: report.quantile_ms(0.99),
            p99_9: report.quantile_ms(0.999),
            max: report.quantile_ms(1.0),
        },
        longest_gap_ms: report.longest_gap.0.as_secs_f64() * 1000.0,
        longest_gap_at_ms: report.longest_gap.1.as_secs_f64() * 1000.0,
        first_failure: report.first_failure.as_deref(),
    };
    // Numbers and text always become JSON.
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}

fn text(bench: &Bench, note: &str, report: &Report) -> String {
    let pace = match bench.rate {
        Some(rate) => format!("{rate} calls due a second"),
        None => "each calling when answered".to_owned(),
    };
    let mut text = format!(
        "{}: {} clients, {pace}; {} keys, values of {} bytes\n{note}\n\n",
        bench.name(),
        bench.clients,
        bench.keys,
        bench.value_size
    );
    text += &format!("done         {} ({:.0}/s)\n", report.done, report.per_second());
    text += &format!("failed       {}", report.failed);
    if let Some(why) = &report.first_failure {
        text += &format!("; the first: {why}");
    }
    if bench.rate.is_some() {
        text += &format!("\nmissed       {}", report.missed);
        if report.missed > 0 {
            text += ": the rate was not reached";
        }
    }
    text += "\nlatency, ms";
    for (name, quantile) in QUANTILES {
        text += &format!("  {name} {:.2}", report.quantile_ms(quantile));
    }
    let (gap, at) = report.longest_gap;
    text += &format!(
        "\nlongest gap  {:.0} ms without an answer, {:.1} s after the start\n",
        gap.as_secs_f64() * 1000.0,
        at.as_secs_f64()
    );
    if bench.histogram {
        text += &format!("\n{}", report.distribution());
    }
    text
}
