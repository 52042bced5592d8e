//! Plots as small SVGs. Places in them are percentages, so that they fill any width while their text keeps its size.

use std::fmt::Write as _;

use super::html::escape;
use crate::stats::{Percentiles, Spread};
use crate::{Measurement, Samples, Unit};

/// Pixels of a bar's row.
const ROW: u32 = 16;
/// Pixels of a curve.
const HEIGHT: f64 = 180.0;

/// Every plot of a scenario's measurements, one unit after the other; nothing if there are none.
pub(super) fn plots(measured: &[&Measurement], mark: &str) -> String {
    let mut units: Vec<Unit> = Vec::new();
    for one in measured {
        if !units.contains(&one.unit) {
            units.push(one.unit);
        }
    }
    let of = |unit| measured.iter().copied().filter(move |one| one.unit == unit).collect::<Vec<_>>();
    units.into_iter().map(|unit| plots_of(&of(unit), mark)).collect()
}

/// The plots of measurements of one unit.
fn plots_of(measured: &[&Measurement], mark: &str) -> String {
    let mut text = String::new();
    let latencies = rows(measured, |samples| match samples {
        Samples::Latency(percentiles) => Some(*percentiles),
        Samples::Repeated(_) => None,
    });
    let spreads = rows(measured, |samples| match samples {
        Samples::Repeated(spread) => Some(*spread),
        Samples::Latency(_) => None,
    });
    if !latencies.is_empty() {
        text += &latency_bars(&latencies, mark);
        let along = points(&latencies, |one| Point { mid: one.p50, low: one.p50, high: one.p99 });
        text += &curve(measured, &along, "Dot: median; stroke: up to p99.", mark);
    }
    if !spreads.is_empty() {
        text += &spread_bars(&spreads, mark);
        let along = points(&spreads, |one| Point { mid: one.median, low: one.min, high: one.max });
        text +=
            &curve(measured, &along, "Dot: median of the repetitions; stroke: from their least to their most.", mark);
    }
    text
}

/// A number and where its noise or its tail goes.
#[derive(Clone, Copy, Debug)]
struct Point {
    mid: f64,
    low: f64,
    high: f64,
}

fn points<T: Copy>(rows: &[(&Measurement, T)], of: impl Fn(T) -> Point) -> Vec<(u64, Point)> {
    let point = |(one, samples): &(&Measurement, T)| Some((one.at.as_ref()?.value, of(*samples)));
    let mut points: Vec<_> = rows.iter().filter_map(point).collect();
    points.sort_by_key(|(at, _)| *at);
    points
}

fn rows<'a, T>(measured: &[&'a Measurement], of: impl Fn(&Samples) -> Option<T>) -> Vec<(&'a Measurement, T)> {
    measured.iter().filter_map(|&one| Some((one, of(&one.samples)?))).collect()
}

/// Medians and tails of latencies, on a logarithmic axis.
fn latency_bars(rows: &[(&Measurement, Percentiles)], mark: &str) -> String {
    let shortest = rows.iter().map(|(_, one)| one.p50).fold(f64::MAX, f64::min).max(1e-3);
    let longest = rows.iter().map(|(_, one)| one.max.unwrap_or(one.p99)).fold(0.0, f64::max);
    let (low, high) = ((shortest * 0.8).log10(), (longest * 1.25).log10());
    // The last tick's label needs some room to the right.
    let place = |value: f64| 95.0 * ((value.max(1e-3).log10() - low) / (high - low)).clamp(0.0, 1.0);
    let ticks: Vec<f64> = (-4..9)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
        .filter(|tick| (low..=high).contains(&tick.log10()))
        .filter(|tick| high - low < 1.3 || tick.log10().fract() == 0.0)
        .collect();
    let mut text = format!("<figure>\n<figcaption>Latency in µs, logarithmic{mark}</figcaption>\n");
    for (one, percentiles) in rows {
        let kind = kind(one);
        let (p50, p99) = (place(percentiles.p50), place(percentiles.p99));
        let value = format!("{}, p99 {}", one.unit.show(percentiles.p50), one.unit.show(percentiles.p99));
        let mut svg = grid(&ticks, place);
        svg += &bar(kind, p50, p99 - p50);
        if let Some(max) = percentiles.max {
            svg += &horizontal(&format!("tail {kind}"), p99, place(max));
        }
        if let Some(p999) = percentiles.p999 {
            svg += &upright(&format!("tail {kind}"), place(p999));
        }
        svg += &format!("<circle class=\"{kind}\" cx=\"{p50:.2}%\" cy=\"8\" r=\"5\"/>");
        text += &row(one, &value, &svg);
    }
    text += &axis(&ticks, place);
    text + "<p class=\"key\">Dot: median. Bar: from there to p99. Line: to the longest; its stroke: p99.9. Less is better. \
            Grey: the alternatives.</p>\n</figure>\n"
}

/// Medians of repetitions as bars from 0.
fn spread_bars(rows: &[(&Measurement, Spread)], mark: &str) -> String {
    let most = largest(rows.iter().map(|(_, one)| one.max));
    let place = |value: f64| 95.0 * (value / most).clamp(0.0, 1.0);
    let ticks = steps(most);
    let unit = rows.first().map(|(one, _)| one.unit);
    let (name, less) = unit.map_or(("", false), |unit| (unit.name(), unit.less_is_better()));
    let mut text = format!("<figure>\n<figcaption>{name}{mark}</figcaption>\n");
    for (one, spread) in rows {
        let svg = grid(&ticks, place)
            + &bar(kind(one), 0.0, place(spread.median))
            + &horizontal("noise", place(spread.min), place(spread.max))
            + &upright("noise", place(spread.min))
            + &upright("noise", place(spread.max));
        text += &row(one, &one.unit.show(spread.median), &svg);
    }
    text += &axis(&ticks, place);
    let better = if less { "Less" } else { "More" };
    let _ = writeln!(
        text,
        "<p class=\"key\">Bar: median of the repetitions; the strokes: their least and their most. {better} is better. Grey: the alternatives.</p>\n</figure>"
    );
    text
}

/// What depends on one number; nothing of fewer than two points.
fn curve(measured: &[&Measurement], points: &[(u64, Point)], key: &str, mark: &str) -> String {
    let one = measured.iter().find_map(|one| Some((one.unit, &one.at.as_ref()?.axis)));
    let Some((unit, axis)) = one.filter(|_| points.len() > 1) else { return String::new() };
    let title = format!("{} against {}", unit.name(), escape(axis));
    let most = 1.1 * largest(points.iter().map(|(_, one)| one.high));
    // Logarithmic, but 0 has no place there.
    let linear = points.iter().any(|(at, _)| *at == 0);
    let place = |at: u64| if linear { at as f64 } else { (at as f64).log2() };
    let (first, last) =
        points.iter().fold((f64::MAX, 0.0f64), |(low, high), &(at, _)| (low.min(place(at)), high.max(place(at))));
    let across = |at| 10.0 + 84.0 * (place(at) - first) / (last - first).max(1e-9);
    let down = |value: f64| HEIGHT * (1.0 - value / most);
    let mut svg = String::new();
    for tick in steps(most) {
        let y = down(tick);
        let _ = write!(svg, "<line class=\"grid\" x1=\"0%\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = write!(svg, "<text x=\"0%\" y=\"{:.1}\">{}</text>", y - 3.0, short(tick));
    }
    for pair in points.windows(2) {
        let [(from, before), (to, after)] = pair else { continue };
        let (x1, y1, x2, y2) = (across(*from), down(before.mid), across(*to), down(after.mid));
        let _ =
            write!(svg, "<line class=\"curve with\" x1=\"{x1:.2}%\" y1=\"{y1:.1}\" x2=\"{x2:.2}%\" y2=\"{y2:.1}\"/>");
    }
    for (at, point) in points {
        let (x, y) = (across(*at), down(point.mid));
        let (y1, y2, below) = (down(point.low), down(point.high), HEIGHT + 18.0);
        let _ = write!(svg, "<line class=\"noise\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>");
        let _ = write!(svg, "<circle class=\"with\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"4\"/>");
        let _ = write!(svg, "<text text-anchor=\"middle\" x=\"{x:.2}%\" y=\"{below}\">{}</text>", binary(*at));
    }
    format!(
        "<figure>\n<figcaption>{title}{mark}</figcaption>\n\
         <svg role=\"img\" aria-label=\"{title}\" height=\"{}\">{svg}</svg>\n\
         <p class=\"key\">{key}</p>\n</figure>\n",
        HEIGHT + 24.0
    )
}

/// The end of an axis; where there is nothing but 0, it is as good as any.
fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    let largest = numbers.fold(0.0, f64::max);
    if largest > 0.0 { largest } else { 1.0 }
}

fn kind(measurement: &Measurement) -> &'static str {
    if measurement.is_alternative { "without" } else { "with" }
}

fn row(measurement: &Measurement, value: &str, svg: &str) -> String {
    let (kind, name, value) = (kind(measurement), escape(&measurement.variant), escape(value));
    format!(
        "<div class=\"row {kind}\"><span>{name}</span> <b>{value}</b></div>\n\
         <svg role=\"img\" aria-label=\"{name}: {value}\" height=\"{ROW}\">{svg}</svg>\n"
    )
}

fn bar(kind: &str, x: f64, width: f64) -> String {
    format!("<rect class=\"bar {kind}\" x=\"{x:.2}%\" y=\"3\" width=\"{width:.2}%\" height=\"10\"/>")
}

fn horizontal(class: &str, from: f64, to: f64) -> String {
    format!("<line class=\"{class}\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"8\" y2=\"8\"/>")
}

fn upright(class: &str, x: f64) -> String {
    format!("<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"4\" y2=\"12\"/>")
}

fn grid(ticks: &[f64], place: impl Fn(f64) -> f64) -> String {
    let line = |tick: &f64| {
        format!("<line class=\"grid\" x1=\"{0:.2}%\" x2=\"{0:.2}%\" y1=\"0\" y2=\"{ROW}\"/>", place(*tick))
    };
    ticks.iter().map(line).collect()
}

fn axis(ticks: &[f64], place: impl Fn(f64) -> f64) -> String {
    let label = |tick: &f64| {
        let (x, anchor) = (place(*tick), if place(*tick) < 3.0 { "start" } else { "middle" });
        format!("<text text-anchor=\"{anchor}\" x=\"{x:.2}%\" y=\"14\">{}</text>", short(*tick))
    };
    format!("<svg height=\"18\" aria-hidden=\"true\">{}</svg>\n", ticks.iter().map(label).collect::<String>())
}

/// From 0 up to `most`, in four to ten round steps.
fn steps(most: f64) -> Vec<f64> {
    let rough = most / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [5.0, 2.0, 1.0].map(|step| step * power).into_iter().find(|step| *step <= rough).unwrap_or(power);
    (0..12).map(|n| f64::from(n) * step).take_while(|tick| *tick <= most).collect()
}

/// A round number without idle digits.
fn short(value: f64) -> String {
    let (scaled, letter) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    // What is left of computing a step of tenths.
    format!("{}{letter}", (scaled * 1e4).round() / 1e4)
}

/// A number of which a power of two is short.
fn binary(at: u64) -> String {
    match at {
        at if at >= 1 << 20 && at.trailing_zeros() >= 20 => format!("{}M", at >> 20),
        at if at >= 1 << 10 && at.trailing_zeros() >= 10 => format!("{}k", at >> 10),
        at => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sample, spread};
    use super::*;

    #[test]
    fn measurements_of_two_units_are_two_figures_and_0_has_a_place_in_them() {
        let report = sample();
        let mut measured: Vec<Measurement> = report.measurements[..4].to_vec();
        for (one, unit) in measured.iter_mut().zip([Unit::Inversions, Unit::SlicesPerSecond].into_iter().cycle()) {
            (one.unit, one.samples) = (unit, spread(0.0, 0.0));
        }
        let text = plots(&measured.iter().collect::<Vec<_>>(), "");
        assert_eq!(text.matches("<figcaption>inversions/claim<").count(), 1, "{text}");
        assert_eq!(text.matches("<figcaption>slices/s<").count(), 1, "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn latencies_are_drawn_against_what_they_depend_on() {
        let report = sample();
        let latencies: Vec<&Measurement> = report.of("round_trip").collect();
        assert!(plots(&latencies, "").contains("<figcaption>µs against the &lt;capacity&gt;<"));
    }

    #[test]
    fn an_axis_has_a_few_round_steps() {
        assert_eq!(steps(20.8e6), [0.0, 5e6, 10e6, 15e6, 20e6]);
        assert_eq!(steps(1.0).len(), 6);
        assert!((4..=12).contains(&steps(0.37).len()));
        assert_eq!([0.0, 0.2, 50.0, 2_000.0, 1.5e7].map(short), ["0", "0.2", "50", "2k", "15M"]);
        assert_eq!([64, 1500, 1 << 14, 1 << 24].map(binary), ["64", "1500", "16k", "16M"]);
    }
}
