//! Percentiles of latencies, and the spread of repetitions.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(60);
/// Three digits of each latency are kept.
const DIGITS: u8 = 3;

/// Latencies of many samples, collected in repetitions.
#[derive(Clone, Debug)]
pub struct Latencies {
    all: Histogram<u64>,
    repetition: Histogram<u64>,
    medians: Vec<f64>,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// [`Error::Histogram`] if the histogram refuses its bounds.
    pub fn new() -> Result<Self, Error> {
        let empty = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS);
        let empty = empty.map_err(|error| Error::Histogram { what: error.to_string() })?;
        Ok(Self { all: empty.clone(), repetition: empty, medians: Vec::new() })
    }

    /// Adds a sample; one above a minute counts as a minute.
    pub fn record(&mut self, sample: Duration) {
        self.repetition.saturating_record(u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Ends a repetition. The spread of their medians is the noise of the run.
    ///
    /// # Errors
    /// [`Error::Histogram`] if what it counted cannot be added up.
    pub fn end_repetition(&mut self) -> Result<(), Error> {
        if self.repetition.is_empty() {
            return Ok(());
        }
        self.medians.push(micros(self.repetition.value_at_quantile(0.5)));
        self.all.add(&self.repetition).map_err(|error| Error::Histogram { what: error.to_string() })?;
        self.repetition.reset();
        Ok(())
    }

    /// The percentiles of all repetitions that have ended; `None` before the first.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let medians = Spread::of(&self.medians)?;
        let at = |quantile| micros(self.all.value_at_quantile(quantile));
        Some(Percentiles {
            p50: at(0.5),
            p90: Some(at(0.9)),
            p99: at(0.99),
            p999: Some(at(0.999)),
            max: Some(micros(self.all.max())),
            count: self.all.len(),
            p50_min: medians.min,
            p50_max: medians.max,
            repetitions: medians.repetitions,
        })
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Of many latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// What one sample in ten exceeds, if it is known.
    pub p90: Option<f64>,
    /// What one sample in a hundred exceeds.
    pub p99: f64,
    /// What one sample in a thousand exceeds, if it is known.
    pub p999: Option<f64>,
    /// The longest, if it is known.
    pub max: Option<f64>,
    /// How many samples there were.
    pub count: u64,
    /// The smallest median of a repetition.
    pub p50_min: f64,
    /// The largest median of a repetition.
    pub p50_max: f64,
    /// How many repetitions there were.
    pub repetitions: usize,
}

/// Of one number in each of a few repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The median distance from the median.
    pub mad: f64,
    /// How many repetitions there were.
    pub repetitions: usize,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = middle(&sorted);
        let mut distances: Vec<f64> = sorted.iter().map(|value| (value - median).abs()).collect();
        distances.sort_by(f64::total_cmp);
        Some(Self { median, min, max, mad: middle(&distances), repetitions: sorted.len() })
    }
}

/// The median of sorted numbers; of an even count, between the two in the middle.
fn middle(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_its_distances_are_those_of_the_book() {
        let spread = Spread::of(&[9.0, 1.0, 2.0, 4.0, 2.0, 6.0, 1.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 9.0, mad: 1.0, repetitions: 7 });
        let even = Spread::of(&[1.0, 2.0, 4.0, 8.0]).unwrap();
        assert_eq!((even.median, even.mad), (3.0, 1.5));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn percentiles_of_a_thousand_steps_are_the_steps() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentiles(), None);
        for half in [1..=500, 501..=1000] {
            half.for_each(|micros| latencies.record(Duration::from_micros(micros)));
            latencies.end_repetition().unwrap();
        }
        let found = latencies.percentiles().unwrap();
        let near = |found: f64, exact: f64| assert!((found - exact).abs() <= exact / 500.0, "{found} for {exact}");
        near(found.p50, 500.0);
        near(found.p90.unwrap(), 900.0);
        near(found.p99, 990.0);
        near(found.p999.unwrap(), 999.0);
        near(found.max.unwrap(), 1000.0);
        near(found.p50_min, 250.0);
        near(found.p50_max, 750.0);
        assert_eq!((found.count, found.repetitions), (1000, 2));
    }

    #[test]
    fn a_sample_beyond_all_bounds_counts() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        latencies.end_repetition().unwrap();
        assert_eq!(latencies.percentiles().unwrap().count, 2);
    }
}
