//! What is measured, and how much of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Run, Unit};

/// Something to measure, beside its alternatives.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What its numbers mean, in a sentence or two.
    pub meaning: &'static str,
    /// What its numbers are.
    pub unit: Unit,
    /// What a user has without taskring, measured in the same run.
    pub alternatives: &'static [&'static str],
    /// Measures: calls the methods of [`Run`], which take note of the results.
    pub run: fn(&mut Run<'_>) -> Result<(), Error>,
}

/// What a report keeps of a [`Scenario`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The scenario's name.
    pub name: String,
    /// What its numbers mean.
    pub meaning: String,
    /// What its numbers are.
    pub unit: Unit,
    /// What a user has without taskring.
    pub alternatives: Vec<String>,
}

impl From<&Scenario> for About {
    fn from(scenario: &Scenario) -> Self {
        Self {
            name: scenario.name.into(),
            meaning: scenario.meaning.into(),
            unit: scenario.unit,
            alternatives: scenario.alternatives.iter().map(|&one| one.into()).collect(),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Next to nothing, to see that all of it works: the numbers mean nothing.
    Smoke,
    /// All scenarios within about a minute.
    Quick,
    /// Some minutes.
    #[default]
    Default,
    /// As long as it takes.
    Full,
}

impl Size {
    /// One of three values; the smallest size takes the first.
    pub fn pick<T>(self, quick: T, default: T, full: T) -> T {
        match self {
            Self::Smoke | Self::Quick => quick,
            Self::Default => default,
            Self::Full => full,
        }
    }

    /// How often everything is repeated.
    pub(crate) fn repetitions(self) -> usize {
        if self == Self::Smoke { 1 } else { self.pick(3, 5, 10) }
    }

    /// Latencies that one repetition takes, at most.
    pub(crate) fn samples(self) -> usize {
        if self == Self::Smoke { 20 } else { self.pick(1_000, 5_000, 20_000) }
    }

    /// How long a repetition goes on taking latencies.
    pub(crate) fn span(self) -> Duration {
        self.pick(Duration::from_millis(150), Duration::from_secs(1), Duration::from_secs(5))
    }
}
