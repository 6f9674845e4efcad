//! Draws the chart of a benchmark: above, latency over time; below, latency by percentile.

use std::error::Error;

use plotters::prelude::*;

use super::load::Kind;
use super::measure::{Latencies, Measure};
use super::report::Report;

const SIZE: (u32, u32) = (960, 760);
const FONT: &str = "sans-serif";

/// Colours that people with red-green colour blindness can tell apart.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(80, 80, 80),
];

/// The highest percentile that the chart shows, as its number of nines: 5 nines are 99.999 %. The
/// curve ends earlier if there are too few latencies.
const NINES: f64 = 5.0;

type Drawn = Result<(), Box<dyn Error>>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws latency over time and by percentile. Returns the text of an SVG file.
///
/// # Errors
/// A sentence, if no request succeeded or the chart cannot be drawn.
pub fn svg(report: &Report) -> Result<String, String> {
    if report.measure.successes() == 0 {
        return Err("there is nothing to draw: no request succeeded".into());
    }
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| format!("the picture cannot be drawn: {error}"))?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = title(report);
    let root = root.titled(&title, (FONT, 15))?;
    let (above, below) = root.split_vertically(SIZE.1 / 2);
    over_time(&report.measure, &above)?;
    by_percentile(&report.measure, &below)?;
    root.present()?;
    Ok(())
}

fn title(report: &Report) -> String {
    let config = &report.config;
    let word = |name: &str| match &config[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rate = match config["rate"].as_f64() {
        Some(rate) => format!("{rate} due a second"),
        None => "closed loop".into(),
    };
    format!(
        "{}, {} clients over {} connections, {} keys ({}), values of {} bytes, {rate}: {:.0}/s",
        word("mix"),
        word("clients"),
        word("connections"),
        word("keys"),
        word("distribution"),
        word("value_size"),
        report.measure.throughput(),
    )
}

/// Draws the median, the 99th percentile and the longest latency of each moment of the run.
fn over_time(measure: &Measure, panel: &Panel<'_>) -> Drawn {
    let (length, moments) = measure.moments();
    let points = |value: fn(&super::measure::Moment) -> f64| -> Vec<(f64, f64)> {
        let moments = moments.iter().enumerate();
        // In a moment without a successful request there is no latency, so the curve has a gap
        // there.
        let moments = moments.filter(|(_, moment)| moment.successes > 0);
        moments
            .map(|(place, moment)| (length.as_secs_f64() * place as f64, value(moment)))
            .collect()
    };
    let lines = [
        ("p50", points(|moment| moment.p50_us)),
        ("p99", points(|moment| moment.p99_us)),
        ("max", points(|moment| moment.max_us)),
    ];
    let span = measure.length().as_secs_f64().max(length.as_secs_f64());
    let axes = Axes {
        x: 0.0..span,
        x_name: "seconds",
        x_label: |seconds| format!("{seconds}"),
        width: length.as_secs_f64(),
    };
    axes.lines(panel, &lines)
}

/// Draws the curve of latency by percentile: for each percentage, the latency that this percentage
/// of the requests did not exceed.
fn by_percentile(measure: &Measure, panel: &Panel<'_>) -> Drawn {
    let all = measure.all();
    let nines = (all.len() as f64).log10().clamp(1.0, NINES);
    let kinds = Kind::ALL.into_iter().map(|kind| (kind, measure.kind(kind)));
    let kinds = kinds.filter(|(_, latencies)| !latencies.is_empty());
    let names: Vec<(String, Vec<(f64, f64)>)> = kinds
        .map(|(kind, latencies)| (kind.to_string(), curve(latencies, nines)))
        .collect();
    let lines: Vec<_> = names
        .iter()
        .map(|(name, points)| (name.as_str(), points.clone()))
        .collect();
    let axes = Axes {
        x: 0.0..nines,
        x_name: "share of the requests",
        x_label: |nines| format!("{} %", percent(*nines)),
        width: 0.0,
    };
    axes.lines(panel, &lines)
}

/// Writes the percentile with this many nines in percent: 2 nines are 99 %, 3 nines are 99.9 %.
fn percent(nines: f64) -> String {
    let digits = (nines - 2.0).ceil().max(0.0) as usize;
    format!("{:.digits$}", 100.0 * (1.0 - 10f64.powf(-nines)))
}

fn curve(latencies: &Latencies, nines: f64) -> Vec<(f64, f64)> {
    const POINTS: usize = 200;
    (0..=POINTS)
        .map(|step| {
            let nines = nines * step as f64 / POINTS as f64;
            let quantile = 1.0 - 10f64.powf(-nines);
            (nines, latencies.value_at_quantile(quantile) as f64 / 1000.0)
        })
        .collect()
}

/// The horizontal axis of a panel. The vertical axis is latency in microseconds.
struct Axes {
    x: std::ops::Range<f64>,
    x_name: &'static str,
    x_label: fn(&f64) -> String,
    /// The usual distance between neighbouring points of a curve. Points that are further apart are
    /// not joined by a line; 0 joins all points.
    width: f64,
}

impl Axes {
    fn lines(&self, panel: &Panel<'_>, lines: &[(&str, Vec<(f64, f64)>)]) -> Drawn {
        let values = || {
            lines
                .iter()
                .flat_map(|(_, points)| points.iter().map(|p| p.1))
        };
        let lowest = values().fold(f64::INFINITY, f64::min).clamp(0.1, 1e9);
        let highest = values().fold(lowest, f64::max);
        let mut chart = ChartBuilder::on(panel)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.clone(), (lowest * 0.8..highest * 1.25).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x_name)
            .y_desc("latency, us")
            .x_label_formatter(&self.x_label)
            .y_label_formatter(&|us| format!("{us:.0}"))
            .label_style((FONT, 13))
            .light_line_style(RGBColor(240, 240, 240))
            .draw()?;
        for ((name, points), colour) in lines.iter().zip(COLOURS) {
            let mut named = false;
            for piece in points.chunk_by(|a, b| self.width == 0.0 || b.0 - a.0 < 1.5 * self.width) {
                let series = LineSeries::new(piece.iter().copied(), colour.stroke_width(2));
                let drawn = chart.draw_series(series)?;
                if !std::mem::replace(&mut named, true) {
                    drawn.label(*name).legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                    });
                }
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 13))
            .draw()?;
        Ok(())
    }
}
