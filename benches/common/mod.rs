//! What a benchmark of its own makes of its samples.
#![allow(unreachable_pub, reason = "the module is private to the benchmark")]

use std::time::Duration;

/// Longest wait for anything.
pub const LONG: Duration = Duration::from_secs(30);

/// Of many samples, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// What one sample in a hundred exceeds.
    pub p99: f64,
}

/// Percentiles of samples.
pub fn latency(mut samples: Vec<Duration>) -> Latency {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Latency { p50: at(0.5), p99: at(0.99) }
}
