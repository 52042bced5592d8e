//! What can go wrong.

use std::path::PathBuf;

use taskring::BackendError;

/// What can go wrong while measuring, reading or writing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// taskring, or the device under it.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The device is a driver that runs on the CPU, and nobody asked for that.
    #[error("{device} runs on the CPU, so its times say nothing about a GPU; `--software` measures it all the same")]
    Software {
        /// The device's name.
        device: String,
    },
    /// A name of no scenario.
    #[error("there is no scenario `{name}`; there are: {}", .known.join(", "))]
    UnknownScenario {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Tasks were lost, ran twice or did not do what they should have.
    #[error("wrong result: {what}")]
    Wrong {
        /// What was seen.
        what: String,
    },
    /// The histogram of latencies refused something.
    #[error("the histogram of latencies: {what}")]
    Histogram {
        /// What it said.
        what: String,
    },
    /// Somebody asked to stop.
    #[error("stopped before the end")]
    Interrupted,
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a results file is not what this version writes.
    #[error("{}, line {line}: {what}", .path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A report that cannot be written as JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// With this path, for [`Result::map_err`].
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
