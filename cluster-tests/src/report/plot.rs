//! The timeline of a run: latency, throughput and what was not done over time, under the faults.
//!
//! Three panels share one time axis, and so do the lanes of faults below them (`lanes`). Confirmed
//! faults are drawn over the panels as translucent bands too, and each violation is marked where the
//! last operation that shows it began. Calls are drawn from bins: the size does not depend on how many
//! there are.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::history::{Finding, Micros, Run};

use super::axis::{Axis, LEFT, RIGHT};
use super::html::{Html, count, duration, moment};
use super::lanes::{self, Lanes};
use super::stats::{self, Bin, Bins};

/// Of the whole drawing.
const WIDTH: f64 = 1150.0;
/// The panels, from the top.
const LATENCY: Range<f64> = 30.0..230.0;
const DONE: Range<f64> = 266.0..356.0;
const NOT_DONE: Range<f64> = 392.0..452.0;
/// Where the lanes begin.
const LANES: f64 = 488.0;
/// Violations that are marked; the checkers are a dozen.
const MARKS_MAX: usize = 50;
/// Rows in which their numbers stand, so that those of one moment do not cover each other.
const MARK_ROWS: usize = 6;

/// Draws the timeline.
pub(super) fn timeline(run: &Run) -> Html {
    let bins = Bins::of(run);
    let axis = Axis::new(stats::end(run));
    let lanes = Lanes::of(run);
    let bottom = LANES + lanes.height();
    let parts = [
        grid(axis, bottom),
        lanes::bands(run, axis, LATENCY.start, NOT_DONE.end),
        latency(&bins, axis),
        throughput(&bins, axis),
        not_done(&bins, axis),
        hovers(&bins, axis),
        marks(run, axis, bottom),
        lanes.html(axis, LANES),
    ];
    let height = bottom + 30.0;
    let parts: Html = parts.into_iter().collect();
    Html::raw(format!(
        "<div class=\"scroll\"><svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         role=\"img\" aria-label=\"latency, throughput and faults over time\">{parts}</svg></div>\n"
    ))
}

fn grid(axis: Axis, bottom: f64) -> Html {
    let tick = |(time, label): (Micros, String)| {
        let (x, top, low) = (axis.x(time), LATENCY.start, bottom + 18.0);
        Html::raw(format!(
            "<path class=\"grid\" d=\"M{x:.1} {top}V{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{low:.1}\" text-anchor=\"middle\">{label}</text>\n"
        ))
    };
    axis.ticks().into_iter().map(tick).collect()
}

/// A line through all panels and lanes for each violation, with its number and a link to it.
fn marks(run: &Run, axis: Axis, bottom: f64) -> Html {
    let violated = run.verdicts.iter().filter_map(|verdict| match &verdict.finding {
        Finding::Violated { operations, .. } => Some(operations),
        Finding::Holds | Finding::Unknown { .. } => None,
    });
    let mark = |(number, ids): (usize, &Vec<u64>)| {
        let ids: BTreeSet<&u64> = ids.iter().collect();
        let named = run.operations.iter().filter(|operation| ids.contains(&operation.id));
        let (x, top) = (axis.x(named.map(|operation| operation.began).max()?), LATENCY.start);
        Some(Html::raw(format!(
            "<a href=\"#violation-{number}\"><path class=\"mark\" d=\"M{x:.1} {top}V{bottom:.1}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{}\">✗ {number}</text></a>\n",
            x + 4.0,
            top + 12.0 + (number % MARK_ROWS) as f64 * 15.0
        )))
    };
    (1..).zip(violated.take(MARKS_MAX)).filter_map(mark).collect()
}

/// The frame of a panel: its name, and lines at some values with their labels.
fn panel(name: &str, at: &Range<f64>, lines: &[(f64, String)]) -> Html {
    let line = |(y, label): &(f64, String)| {
        let (x, low, label) = (LEFT - 8.0, y + 4.0, Html::text(label));
        Html::raw(format!(
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text class=\"tick\" x=\"{x}\" y=\"{low:.1}\" text-anchor=\"end\">{label}</text>\n"
        ))
    };
    let lines: Html = lines.iter().map(line).collect();
    let (y, name) = (at.start - 10.0, Html::text(name));
    Html::raw(format!("<text class=\"name\" x=\"{LEFT}\" y=\"{y}\">{name}</text>\n{lines}"))
}

/// Powers of ten that enclose all latencies: at least one decade.
fn decades(bins: &Bins) -> (f64, f64) {
    let shown = |pick: fn(&Bin) -> Option<Micros>| bins.bins.iter().filter_map(pick);
    let low = shown(|bin| bin.p50).min().unwrap_or(1_000).max(1);
    let high = shown(|bin| bin.p99).max().unwrap_or(10_000).max(1);
    let floor = (low as f64).log10().floor();
    (floor, (high as f64).log10().ceil().max(floor + 1.0))
}

fn latency(bins: &Bins, axis: Axis) -> Html {
    let (floor, ceiling) = decades(bins);
    let y = |exponent: f64| {
        let part = (exponent - floor) / (ceiling - floor);
        LATENCY.end - (LATENCY.end - LATENCY.start) * part.clamp(0.0, 1.0)
    };
    let labels: Vec<(f64, String)> =
        (floor as i32..=ceiling as i32).map(|power| (y(f64::from(power)), decade(power))).collect();
    let line = |class: &str, pick: fn(&Bin) -> Option<Micros>| {
        let at = |bin: &Bin| pick(bin).map(|time| y((time.max(1) as f64).log10()));
        path(class, &steps(bins, axis, at))
    };
    let frame = panel("Latency of what was done", &LATENCY, &labels);
    let key = key(&LATENCY, &[("line p50", "p50"), ("line p99", "p99")]);
    [frame, line("line p99", |bin| bin.p99), line("line p50", |bin| bin.p50), key]
        .into_iter()
        .collect()
}

/// A power of ten of microseconds, in words.
fn decade(power: i32) -> String {
    let (unit, over) = match power {
        ..3 => ("µs", power),
        3..6 => ("ms", power - 3),
        _ => ("s", power - 6),
    };
    format!("{} {unit}", count(10_u64.pow(u32::try_from(over).unwrap_or(0))))
}

fn throughput(bins: &Bins, axis: Axis) -> Html {
    let most = bins.bins.iter().map(|bin| bins.per_second(bin.done)).fold(1.0, f64::max);
    let top = nice(most);
    let at = |bin: &Bin| Some(scaled(&DONE, bins.per_second(bin.done), top));
    let frame = panel("Done per second", &DONE, &levels(&DONE, top));
    [frame, path("area done", &area(bins, axis, &DONE, at))].into_iter().collect()
}

/// Refused calls and, on top of them, those whose outcome is unknown.
fn not_done(bins: &Bins, axis: Axis) -> Html {
    let both = |bin: &Bin| bins.per_second(bin.refused + bin.unknown);
    let top = nice(bins.bins.iter().map(both).fold(1.0, f64::max));
    let some = |value: f64| (value > 0.0).then(|| scaled(&NOT_DONE, value, top));
    let refused = area(bins, axis, &NOT_DONE, |bin| some(bins.per_second(bin.refused)));
    let unknown = |bin: &Bin| if bin.unknown > 0 { some(both(bin)) } else { None };
    let unknown = area(bins, axis, &NOT_DONE, unknown);
    let frame = panel("Refused or unknown per second", &NOT_DONE, &levels(&NOT_DONE, top));
    let key = key(&NOT_DONE, &[("area refused", "refused"), ("area unknown", "unknown")]);
    [frame, path("area unknown", &unknown), path("area refused", &refused), key]
        .into_iter()
        .collect()
}

/// What the lines and areas of a panel are, at its upper right.
fn key(at: &Range<f64>, entries: &[(&str, &str)]) -> Html {
    let entry = |(index, (class, label)): (usize, &(&str, &str))| {
        let x = RIGHT - 80.0 * (entries.len() - index) as f64;
        let (y, to, low) = (at.start - 14.0, x + 18.0, at.start - 10.0);
        let label = Html::text_in("tspan", "", label);
        Html::raw(format!(
            "<path class=\"{class} sample\" d=\"M{x} {y}H{to}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{low}\">{label}</text>\n",
            to + 5.0
        ))
    };
    entries.iter().enumerate().map(entry).collect()
}

/// The next number of 1, 2, 4, 6, 8, 10, 20 … that is not below: its half is whole.
pub(super) fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn levels(at: &Range<f64>, top: f64) -> Vec<(f64, String)> {
    let label = |value: f64| (scaled(at, value, top), count(value.round() as u64));
    if top < 2.0 { vec![label(0.0), label(top)] } else { [0.0, top / 2.0, top].map(label).into() }
}

fn scaled(at: &Range<f64>, value: f64, top: f64) -> f64 {
    at.end - (at.end - at.start) * (value / top).clamp(0.0, 1.0)
}

fn path(class: &str, d: &str) -> Html {
    Html::raw(format!("<path class=\"{class}\" d=\"{d}\"/>\n"))
}

/// A line of steps, a step for each bin; broken where a bin has no value.
fn steps(bins: &Bins, axis: Axis, y: impl Fn(&Bin) -> Option<f64>) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (from, to, bin) in spans(bins, axis) {
        let Some(y) = y(bin) else {
            drawing = false;
            continue;
        };
        let start = if drawing { format!("V{y:.1}") } else { format!("M{from:.1} {y:.1}") };
        path.push_str(&format!("{start}H{to:.1}"));
        drawing = true;
    }
    path
}

/// Columns from the bottom of a panel, one for each bin that has a value.
fn area(bins: &Bins, axis: Axis, at: &Range<f64>, y: impl Fn(&Bin) -> Option<f64>) -> String {
    let bottom = at.end;
    let column =
        |(from, to, bin)| y(bin).map(|y| format!("M{from:.1} {bottom}V{y:.1}H{to:.1}V{bottom}Z"));
    spans(bins, axis).filter_map(column).collect()
}

/// Where each bin begins and ends.
fn spans(bins: &Bins, axis: Axis) -> impl Iterator<Item = (f64, f64, &Bin)> {
    let edge = move |index: usize| axis.x(index as u64 * bins.width);
    bins.bins.iter().enumerate().map(move |(index, bin)| (edge(index), edge(index + 1), bin))
}

/// A clear column over each bin that tells its figures.
fn hovers(bins: &Bins, axis: Axis) -> Html {
    let (top, height) = (LATENCY.start, NOT_DONE.end - LATENCY.start);
    let hover = |(index, (from, to, bin)): (usize, (f64, f64, &Bin))| {
        let title = Html::text(figures(bins, index as u64, bin));
        Html::raw(format!(
            "<rect class=\"hover\" x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\">\
             <title>{title}</title></rect>",
            to - from
        ))
    };
    spans(bins, axis).enumerate().map(hover).collect()
}

fn figures(bins: &Bins, index: u64, bin: &Bin) -> String {
    let time = |time: Option<Micros>| time.map_or_else(|| "none".to_owned(), duration);
    format!(
        "from {}: {} done (p50 {}, p99 {}), {} refused, {} unknown",
        moment(index * bins.width),
        count(bin.done),
        time(bin.p50),
        time(bin.p99),
        count(bin.refused),
        count(bin.unknown)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.3, 1.0, 1.2, 37.0, 501.0, 600.0].map(nice), [1., 1., 2., 40., 600., 600.]);
        assert_eq!([2, 3, 5, 6, 7].map(decade), ["100 µs", "1 ms", "100 ms", "1 s", "10 s"]);
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_done() {
        let bin = |done| Bin { done, ..Bin::default() };
        let bins = Bins { width: 1_000_000, bins: vec![bin(1), bin(0), bin(1), bin(2)] };
        let axis = Axis::new(4_000_000);
        let line = steps(&bins, axis, |bin| (bin.done > 0).then_some(bin.done as f64));
        assert_eq!(line, "M170.0 1.0H410.0M650.0 1.0H890.0V2.0H1130.0");
    }
}
