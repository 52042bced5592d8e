//! Measures taskring beside what a user has without it, in the same run, and writes reports that can be compared.
//!
//! `cargo bench --features shaderc --bench gpu` in taskring's repository runs [`main`]. As a library: a [`Bench`] runs [`Scenario`]s, its own or
//! others, on a device and gives a [`Report`], which writes itself as JSON lines, Markdown and HTML; [`compare()`] says what changed between two.
//!
//! ```no_run
//! use taskring::{Device, DeviceOptions};
//! use taskring_bench::{Bench, Size};
//!
//! let device = Device::new(DeviceOptions::default())?;
//! let report = Bench::new(Size::Quick).only(&["round_trip"])?.run(&device)?;
//! report.write(std::path::Path::new("target/bench"))?;
//! # Ok::<(), taskring_bench::Error>(())
//! ```

mod bench;
mod cli;
pub mod compare;
mod error;
mod facts;
mod fenced;
mod kernel;
mod measurement;
pub mod report;
mod run;
mod scenario;
pub mod scenarios;
mod stats;
mod submissions;
mod tally;
mod warmer;

pub use bench::Bench;
pub use cli::main;
pub use compare::{Comparison, Verdict, compare};
pub use error::Error;
pub use facts::Facts;
pub use fenced::Fenced;
pub use measurement::{At, Measurement, Samples, Unit};
pub use report::{Gap, Report};
pub use run::{Run, Variant};
pub use scenario::{About, Scenario, Size};
pub use stats::{Latencies, Percentiles, Spread};
pub use submissions::{On, Submissions};
pub use tally::Tally;
pub use warmer::Warmer;
