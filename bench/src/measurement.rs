//! One number that was measured, with its noise.

use serde::{Deserialize, Serialize};

use crate::stats::{Percentiles, Spread};

/// What a scenario's variant came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The scenario's name.
    pub scenario: String,
    /// What was measured, in words.
    pub variant: String,
    /// Whether it is what a user has without taskring, or without what the scenario looks at.
    pub is_alternative: bool,
    /// What the numbers are.
    pub unit: Unit,
    /// For variants that differ in one number, that number. They are drawn against it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// The numbers.
    pub samples: Samples,
}

/// A number in which a variant differs from its siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// What the number is: the capacity, say.
    pub axis: String,
    /// The number.
    pub value: u64,
}

/// The numbers of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Samples {
    /// Of many latencies.
    Latency(Percentiles),
    /// Of one number for each repetition.
    Repeated(Spread),
}

impl Samples {
    /// The one number that stands for all: the median.
    pub fn value(&self) -> f64 {
        match self {
            Self::Latency(percentiles) => percentiles.p50,
            Self::Repeated(spread) => spread.median,
        }
    }

    /// Between which values that number lay from one repetition to the next: the noise of the run.
    pub fn noise(&self) -> (f64, f64) {
        match self {
            Self::Latency(percentiles) => (percentiles.p50_min, percentiles.p50_max),
            Self::Repeated(spread) => (spread.min, spread.max),
        }
    }
}

/// What the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Nanoseconds for each turn.
    #[serde(rename = "ns/turn")]
    NanosPerTurn,
    /// Tasks a second.
    #[serde(rename = "tasks/s")]
    TasksPerSecond,
    /// Turns a second.
    #[serde(rename = "turns/s")]
    TurnsPerSecond,
    /// Ticks: claims of tasks by all workers.
    #[serde(rename = "ticks")]
    Ticks,
    /// Claims that should have come later, for each one that should have come first.
    #[serde(rename = "inversions/claim")]
    Inversions,
    /// Microseconds of processor time a second, of all threads of the process.
    #[serde(rename = "us of processor time/s")]
    ProcessorTime,
    /// Slices launched a second.
    #[serde(rename = "slices/s")]
    SlicesPerSecond,
    /// One number by another; 1 would be best.
    #[serde(rename = "ratio")]
    Ratio,
    /// A part of all, 0 to 1; 0 would be best.
    #[serde(rename = "share")]
    Share,
}

impl Unit {
    /// As it stands behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::NanosPerTurn => "ns/turn",
            Self::TasksPerSecond => "tasks/s",
            Self::TurnsPerSecond => "turns/s",
            Self::Ticks => "ticks",
            Self::Inversions => "inversions/claim",
            Self::ProcessorTime => "µs of processor time/s",
            Self::SlicesPerSecond => "slices/s",
            Self::Ratio => "times",
            Self::Share => "of all",
        }
    }

    /// Whether less is better.
    pub fn less_is_better(self) -> bool {
        !matches!(self, Self::TasksPerSecond | Self::TurnsPerSecond)
    }

    /// How good `value` is beside `other`: above 1 if it is better. `None` beside nothing.
    pub fn advantage(self, value: f64, other: f64) -> Option<f64> {
        let (better, worse) = if self.less_is_better() { (other, value) } else { (value, other) };
        (worse != 0.0).then(|| better / worse)
    }

    /// The number in three digits, with the unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Micros => time(value * 1e3),
            Self::NanosPerTurn => format!("{}/turn", time(value)),
            Self::ProcessorTime => format!("{}/s", time(value * 1e3)),
            _ => format!("{} {}", number(value), self.name()),
        }
    }
}

/// Nanoseconds in three digits, in the unit that suits them.
fn time(nanos: f64) -> String {
    let scales = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let (scale, name) = scales.into_iter().find(|(scale, _)| nanos >= scale * 0.9995).unwrap_or((1.0, "ns"));
    format!("{} {name}", number(nanos / scale))
}

/// Three digits, and `k`, `M` or `G` for a thousand, a million and a milliard.
pub(crate) fn number(value: f64) -> String {
    let scales = [(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")];
    // What is rounded up to the next scale belongs there: 999,700 is 1.00 M.
    let (scale, letter) = scales.into_iter().find(|(scale, _)| value.abs() >= scale * 0.9995).unwrap_or((1.0, ""));
    let scaled = value / scale;
    let digits = match scaled.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.1234, 5.367, 99.97, 135_000.0, 999_700.0, 20_800_000.0, 1_079_000_000.0].map(number);
        assert_eq!(shown, ["0.00", "0.12", "5.37", "100", "135 k", "1.00 M", "20.8 M", "1.08 G"]);
    }

    #[test]
    fn times_are_in_the_unit_that_suits_them() {
        assert_eq!(
            [0.42, 5.367, 4_260.0, 2.5e6].map(|micros| Unit::Micros.show(micros)),
            ["420 ns", "5.37 µs", "4.26 ms", "2.50 s"]
        );
        assert_eq!(Unit::NanosPerTurn.show(87_600.0), "87.6 µs/turn");
        assert_eq!(Unit::TasksPerSecond.show(2.08e7), "20.8 M tasks/s");
        assert_eq!(Unit::ProcessorTime.show(1_500.0), "1.50 ms/s");
        assert_eq!(Unit::Inversions.show(0.0), "0.00 inversions/claim");
    }

    #[test]
    fn better_is_less_time_and_more_work() {
        assert_eq!(Unit::Micros.advantage(5.0, 10.0), Some(2.0));
        assert_eq!(Unit::TasksPerSecond.advantage(5.0, 10.0), Some(0.5));
        assert_eq!(Unit::Inversions.advantage(0.0, 0.5), None, "no number says how much less nothing is");
    }
}
