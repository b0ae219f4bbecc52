//! The plots, as SVG: calm colours, axes with units, a legend, and a line that says whose figures they are.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::results::{Lines, Series};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (800, 460);
/// Below the charts.
const CAVEAT: &str = "Absolute figures of one small machine that all processes and the load share: compare the lines only.";
/// Ours first; who comes later has a colour by its place.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x5a, 0x96),
    RGBColor(0xc8, 0x7a, 0x3a),
    RGBColor(0x5f, 0x8a, 0x6b),
    RGBColor(0x80, 0x70, 0x90),
];
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// A plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// The name of its file.
    pub file: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// The image.
    pub svg: String,
}

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// Evenly, from 0 or below.
    Even,
    /// By their logarithm to a base.
    Log(f64),
    /// Percentiles, more room for the rare: 90, 99, 99.9 are as far from each other.
    Percentile,
}

impl Scale {
    /// Where a value is.
    fn place(self, value: f64) -> f64 {
        match self {
            Scale::Even => value,
            Scale::Log(base) => value.max(1e-6).log(base),
            Scale::Percentile => -(1.0 - (value / 100.0).min(0.999_999)).log10(),
        }
    }

    /// What is written at a place.
    fn label(self, place: f64) -> String {
        match self {
            Scale::Even if place.abs() >= 10_000.0 => format!("{}k", place / 1000.0),
            Scale::Even => format!("{}", (place * 100.0).round() / 100.0),
            Scale::Log(base) => counted(base.powf(place)),
            Scale::Percentile => {
                let text = format!("{:.4}", 100.0 - 100.0 * 10f64.powf(-place));
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }

    /// The ends of the axis, around all values.
    fn ends(self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        let places: Vec<f64> = values.map(|value| self.place(value)).collect();
        let least = places.iter().copied().fold(f64::INFINITY, f64::min);
        let most = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self {
            Scale::Even => (least.min(0.0), if most > 0.0 { most * 1.08 } else { 1.0 }),
            _ => (least.floor(), most.ceil().max(least.floor() + 1.0)),
        }
    }

    /// Most labels: on the others, one for each whole number.
    fn labels(self, (least, most): (f64, f64)) -> usize {
        if self == Scale::Even { 10 } else { (most - least) as usize + 1 }
    }
}

/// `0.1`, `50`, `50k`, `5M`.
fn counted(value: f64) -> String {
    match value {
        million if million >= 999_999.0 => format!("{}M", (million / 1e5).round() / 10.0),
        thousand if thousand >= 9_999.0 => format!("{}k", (thousand / 100.0).round() / 10.0),
        small => format!("{}", (small * 1000.0).round() / 1000.0),
    }
}

/// What is drawn.
struct Chart<'a> {
    file: &'static str,
    title: &'static str,
    x: (&'static str, Scale),
    y: (&'static str, Scale),
    lines: &'a Lines,
    dots: bool,
}

/// All plots that there is something for.
///
/// # Errors
/// When one cannot be drawn.
pub fn plots(series: &Series) -> Result<Vec<Plot>, String> {
    let keys = ("keys (log scale)", Scale::Log(10.0));
    let charts = [
        Chart {
            file: "throughput.svg",
            title: "PUT of 256 bytes: throughput against clients",
            x: ("clients (log scale)", Scale::Log(4.0)),
            y: ("calls per second", Scale::Even),
            lines: &series.clients,
            dots: true,
        },
        Chart {
            file: "latency.svg",
            title: "PUT: latency at half of KVdb's peak rate (etcd: that rate, or its own peak)",
            x: ("percentile", Scale::Percentile),
            y: ("latency in ms (log scale)", Scale::Log(10.0)),
            lines: &series.latency,
            dots: true,
        },
        Chart {
            file: "failover.svg",
            title: "Writes around kill -9 of the leader, 16 writers",
            x: ("seconds since the kill", Scale::Even),
            y: ("writes per second, by 50 ms", Scale::Even),
            lines: &series.failover,
            dots: false,
        },
        Chart {
            file: "size.svg",
            title: "PUT: throughput against the number of keys, 64 clients",
            x: keys,
            y: ("calls per second", Scale::Even),
            lines: &series.size,
            dots: true,
        },
        Chart {
            file: "memory.svg",
            title: "Memory per node against the number of keys of 256 bytes",
            x: keys,
            y: ("MiB", Scale::Even),
            lines: &series.memory,
            dots: true,
        },
    ];
    charts.iter().filter(|chart| chart.lines.points().next().is_some()).map(draw).collect()
}

fn draw(chart: &Chart<'_>) -> Result<Plot, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        paint(&area, chart).map_err(|e| format!("{}: {e}", chart.file))?;
        area.present().map_err(|e| format!("{}: {e}", chart.file))?;
    }
    Ok(Plot { file: chart.file, title: chart.title, svg })
}

fn paint(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    chart: &Chart<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    let font = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.fill(&WHITE)?;
    area.draw(&Text::new(CAVEAT, (16, 436), font(12)))?;
    let (x, y) = (chart.x.1, chart.y.1);
    let x_ends = x.ends(chart.lines.points().map(|point| point.0));
    let y_ends = y.ends(chart.lines.points().map(|point| point.1));
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, font(18))
        .margin(12)
        .margin_bottom(34)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x_ends.0..x_ends.1, y_ends.0..y_ends.1)?;
    context
        .configure_mesh()
        .x_desc(chart.x.0)
        .y_desc(chart.y.0)
        .x_labels(x.labels(x_ends))
        .y_labels(y.labels(y_ends))
        .x_label_formatter(&|place| x.label(*place))
        .y_label_formatter(&|place| y.label(*place))
        .label_style(font(12))
        .axis_desc_style(font(14))
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .draw()?;
    for ((name, points), colour) in chart.lines.0.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<_> = points.iter().map(|(a, b)| (x.place(*a), y.place(*b))).collect();
        let style = colour.stroke_width(2);
        let line = LineSeries::new(places.iter().copied(), style);
        context.draw_series(line)?.label(name.as_str()).legend(move |(left, middle)| {
            PathElement::new([(left, middle), (left + 18, middle)], style)
        });
        if chart.dots {
            let dots = places.iter().map(|place| Circle::new(*place, 3, colour.filled()));
            context.draw_series(dots)?;
        }
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .label_font(font(13))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        let mut series = Series::default();
        for (clients, rate) in [(1.0, 900.0), (64.0, 20_000.0), (256.0, 31_000.0)] {
            series.clients.add("KVdb, HTTP", (clients, rate));
            series.clients.add("etcd, gRPC", (clients, rate / 5.0));
        }
        series.latency.set("KVdb, HTTP", vec![(50.0, 0.9), (99.0, 4.0), (99.9, 12.0)]);
        series
    }

    #[test]
    fn plot_has_title_axes_legend_and_caveat() {
        let plots = plots(&series()).unwrap();
        let files: Vec<_> = plots.iter().map(|plot| plot.file).collect();
        assert_eq!(files, ["throughput.svg", "latency.svg"], "what was not measured has no plot");
        for text in [
            plots[0].title,
            "clients (log scale)",
            "calls per second",
            "etcd, gRPC",
            "64",
            "30k",
            CAVEAT,
        ] {
            assert!(plots[0].svg.contains(text), "{text}");
        }
        for text in ["latency in ms (log scale)", "99.9", "percentile", "100"] {
            assert!(plots[1].svg.contains(text), "{text}");
        }
    }

    #[test]
    fn labels_are_the_values_of_their_places() {
        for percentile in [90.0, 99.0, 99.9] {
            let place = Scale::Percentile.place(percentile);
            assert_eq!(Scale::Percentile.label(place), percentile.to_string());
        }
        assert_eq!(Scale::Log(4.0).label(Scale::Log(4.0).place(64.0)), "64");
        assert_eq!(Scale::Log(10.0).label(6.0), "1M");
        assert_eq!(Scale::Log(10.0).label(-1.0), "0.1");
        assert_eq!(Scale::Even.label(25_000.0), "25k");
    }

    #[test]
    fn axis_holds_all_values() {
        assert_eq!(Scale::Log(10.0).ends([0.9, 12.0].into_iter()), (-1.0, 2.0));
        assert_eq!(Scale::Even.ends([-1.0, 4.0].into_iter()).0, -1.0);
    }
}
