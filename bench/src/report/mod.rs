//! What a run leaves: JSON lines for programs, Markdown for a README, HTML to look at.

mod html;
mod markdown;
mod plot;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::measurement::number;
use crate::{About, Error, Facts, Measurement, Samples};

/// The version of the results file that this crate writes and reads.
const FORMAT: u32 = 1;

/// All that was measured in one run, and where.
///
/// As JSON lines: first everything but the measurements, then one measurement a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    format: u32,
    /// Where and how it was measured.
    pub facts: Facts,
    /// The scenarios that were to run.
    pub scenarios: Vec<About>,
    /// What was not measured, and why.
    pub gaps: Vec<Gap>,
    /// Whether scenarios failed, or somebody stopped the run.
    pub incomplete: bool,
    /// What was measured, in order.
    #[serde(skip)]
    pub measurements: Vec<Measurement>,
}

/// Something that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The scenario's name.
    pub scenario: String,
    /// Which part of it; `None` for all that is missing.
    pub variant: Option<String>,
    /// Why.
    pub reason: String,
    /// Whether it should have worked.
    pub failed: bool,
}

impl Report {
    /// A report without measurements.
    #[must_use]
    pub fn new(facts: Facts, scenarios: Vec<About>) -> Self {
        Self { format: FORMAT, facts, scenarios, gaps: Vec::new(), incomplete: false, measurements: Vec::new() }
    }

    /// Writes `results.jsonl`, `report.md` and `report.html` into the folder, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        for (name, text) in
            [("results.jsonl", self.json_lines()?), ("report.md", self.markdown()), ("report.html", self.html())]
        {
            let path = folder.join(name);
            let written = fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Reads a `results.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::BadLine`] with the first line that cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&fs::read_to_string(path).map_err(Error::io(path))?, path)
    }

    /// Reads the lines of a `results.jsonl`; the path is for errors.
    ///
    /// # Errors
    /// [`Error::BadLine`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let bad = |line: usize, what: String| Error::BadLine { path: path.to_owned(), line, what };
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        let (head, number) = lines.next().ok_or_else(|| bad(1, "the file is empty".into()))?;
        let mut report: Self = serde_json::from_str(head).map_err(|error| bad(number, error.to_string()))?;
        if report.format != FORMAT {
            return Err(bad(number, format!("it is of format {}, and this reads format {FORMAT}", report.format)));
        }
        for (line, number) in lines {
            let measurement = serde_json::from_str(line).map_err(|error| bad(number, error.to_string()))?;
            report.measurements.push(measurement);
        }
        Ok(report)
    }

    /// What [`Report::read`] reads.
    ///
    /// # Errors
    /// [`Error::Json`].
    pub fn json_lines(&self) -> Result<String, Error> {
        let mut text = serde_json::to_string(self)? + "\n";
        for measurement in &self.measurements {
            text += &(serde_json::to_string(measurement)? + "\n");
        }
        Ok(text)
    }

    /// Tables for a README.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// One page that needs nothing else: no network, no script.
    #[must_use]
    pub fn html(&self) -> String {
        html::render(self)
    }

    /// What was measured of a scenario.
    pub fn of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.measurements.iter().filter(move |one| one.scenario == scenario)
    }

    /// What was not measured of a scenario.
    fn gaps_of<'a>(&'a self, scenario: &'a str) -> impl Iterator<Item = &'a Gap> {
        self.gaps.iter().filter(move |gap| gap.scenario == scenario)
    }

    /// What a scenario's measurements stand beside: its first alternative.
    fn beside(&self, scenario: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|one| one.scenario == scenario && one.is_alternative)
    }

    /// For each scenario that has both, its first alternative and the first measurement of taskring's.
    fn headlines(&self) -> impl Iterator<Item = (&Measurement, &Measurement)> {
        self.scenarios.iter().filter_map(|about| {
            let beside = self.beside(&about.name)?;
            let ours = self.of(&about.name).find(|one| !one.is_alternative && one.unit == beside.unit)?;
            Some((beside, ours))
        })
    }

    /// What has to be known about all the numbers, if anything has.
    fn warnings(&self) -> Vec<&'static str> {
        let software = "Measured on a software device: these times say nothing about a GPU.";
        let incomplete = "Incomplete: the run was stopped, or scenarios failed.";
        let validated = "Measured under the validation layer, which takes time of its own.";
        [(self.facts.software, software), (self.facts.validated, validated), (self.incomplete, incomplete)]
            .into_iter()
            .filter_map(|(so, warning)| so.then_some(warning))
            .collect()
    }
}

/// Behind the title of each plot and table.
fn mark(facts: &Facts) -> &'static str {
    if facts.software { " (software device)" } else { "" }
}

/// What a table says about a measurement: the number, its noise or its tail, and how much better it is than what it stands beside.
fn cells(measurement: &Measurement, beside: Option<&Measurement>) -> [String; 3] {
    let (unit, value) = (measurement.unit, measurement.samples.value());
    let show = |value| unit.show(value);
    let more = match &measurement.samples {
        Samples::Latency(percentiles) => {
            let max = percentiles.max.map(|max| format!(", longest {}", show(max))).unwrap_or_default();
            format!("p99 {}{max}", show(percentiles.p99))
        }
        Samples::Repeated(spread) => format!("{} to {}", show(spread.min), show(spread.max)),
    };
    let times = match beside {
        // Numbers of different units have nothing in common.
        Some(beside) if beside.unit != unit => "–".into(),
        Some(beside) if beside.variant != measurement.variant => {
            unit.advantage(value, beside.samples.value()).map_or("–".into(), |times| format!("{}×", number(times)))
        }
        Some(_) => "1".into(),
        None => "–".into(),
    };
    [show(value), more, times]
}

/// The gap in words.
fn gap_text(gap: &Gap) -> String {
    let what = gap.variant.as_deref().unwrap_or("the rest");
    format!("{what}: {} ({})", if gap.failed { "failed" } else { "not measured" }, gap.reason)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{At, Percentiles, Scenario, Size, Spread, Unit, scenarios};

    pub(crate) fn spread(median: f64, noise: f64) -> Samples {
        let (min, max) = (median - noise, median + noise);
        Samples::Repeated(Spread { median, min, max, mad: noise / 2.0, repetitions: 3 })
    }

    pub(crate) fn latency(p50: f64, noise: f64) -> Samples {
        Samples::Latency(Percentiles {
            p50,
            p90: Some(1.1 * p50),
            p99: 1.5 * p50,
            p999: Some(2.0 * p50),
            max: Some(70.0 * p50),
            count: 3_000,
            p50_min: p50 - noise,
            p50_max: p50 + noise,
            repetitions: 3,
        })
    }

    /// A made-up run of all scenarios.
    pub(crate) fn sample() -> Report {
        let facts = Facts {
            taskring: "0.1.0".into(),
            commit: Some("abc1234".into()),
            date: "2026-01-02T03:04:05Z".into(),
            command: "gpu --quick".into(),
            size: Size::Quick,
            host: "linux x86_64, 16 processors".into(),
            device: "A device <with> \"odd\" & old name".into(),
            driver: "driver 1".into(),
            vulkan: "1.3.0".into(),
            subgroup_size: 32,
            software: true,
            validated: false,
            live: true,
            reasons: vec!["a reason".into()],
            mailbox: Some("device_local".into()),
            report: Some("system_cached".into()),
        };
        let all = scenarios::all();
        let mut report = Report::new(facts, all.iter().map(About::from).collect());
        for Scenario { name, unit, .. } in all {
            let samples = if unit == Unit::Micros { latency } else { spread };
            for (at, is_alternative) in [(None, true), (None, false), (Some(1024), false), (Some(1 << 20), false)] {
                report.measurements.push(Measurement {
                    scenario: name.into(),
                    variant: format!("variant {at:?} of {is_alternative} < & >"),
                    is_alternative,
                    unit,
                    at: at.map(|value| At { axis: "the <capacity>".into(), value }),
                    samples: samples(if is_alternative { 12.5 } else { 5.25 }, 0.5),
                });
            }
        }
        let scenario = "other_queue".to_owned();
        report.gaps.push(Gap { scenario, variant: None, reason: "only < 1 queue".into(), failed: false });
        report
    }

    #[test]
    fn what_was_written_as_json_lines_reads_back_the_same() {
        let report = sample();
        let text = report.json_lines().unwrap();
        assert_eq!(text.lines().count(), 1 + report.measurements.len());
        assert_eq!(Report::parse(&text, Path::new("x")).unwrap(), report);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let text = sample().json_lines().unwrap();
        let parse = |text: &str| Report::parse(text, Path::new("old.jsonl")).unwrap_err().to_string();
        let cut = text.lines().take(2).collect::<Vec<_>>().join("\n") + "\n{\"scenario\":1}\n";
        assert!(parse(&cut).starts_with("old.jsonl, line 3: "), "{}", parse(&cut));
        assert_eq!(parse(""), "old.jsonl, line 1: the file is empty");
        assert!(parse(&text.replacen("\"format\":1", "\"format\":2", 1)).contains("format 2"));
        let missing = Report::read(Path::new("/nowhere/at/all.jsonl")).unwrap_err().to_string();
        assert!(missing.starts_with("/nowhere/at/all.jsonl: "), "{missing}");
    }
}
