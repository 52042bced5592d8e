//! What changed between two runs, beyond the noise of both.

use std::fmt;

use crate::measurement::number;
use crate::{Facts, Measurement, Report, Samples};

/// What became of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within the noise of the two runs, or there are too few repetitions to tell.
    Same,
    /// Better, beyond the noise.
    Better,
    /// Worse, beyond the noise, by less than the threshold.
    Worse,
    /// Worse, beyond the noise, by more than the threshold.
    Regression,
    /// Only the old run has it.
    Missing,
    /// Only the new run has it.
    Added,
}

/// One measurement in both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The old one.
    pub old: Option<Measurement>,
    /// The new one.
    pub new: Option<Measurement>,
    /// How many percent the number went up or down; 0 where one is missing.
    pub percent: f64,
    /// What became of it.
    pub verdict: Verdict,
}

/// Two runs beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Every measurement of either run.
    pub changes: Vec<Change>,
    /// Why the runs are hard to compare, if they are.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Whether anything of taskring's got worse beyond the noise and the threshold. An alternative that did is another machine's doing.
    #[must_use]
    pub fn is_regression(&self) -> bool {
        self.changes.iter().any(|change| change.verdict == Verdict::Regression && !change.is_alternative())
    }
}

impl Change {
    fn is_alternative(&self) -> bool {
        self.old.as_ref().or(self.new.as_ref()).is_some_and(|one| one.is_alternative)
    }
}

/// Compares two runs; `threshold` is in percent.
///
/// The noise of a run is the range of its repetitions, widened by half of it on either side: three repetitions of one thing all lie above three
/// others of the same thing once in twenty times. A change is beyond the noise if the two runs' ranges do not meet.
#[must_use]
pub fn compare(old: &Report, new: &Report, threshold: f64) -> Comparison {
    let twin = |report: &Report, one: &Measurement| {
        let same = |other: &&Measurement| (&other.scenario, &other.variant) == (&one.scenario, &one.variant);
        report.measurements.iter().find(same).cloned()
    };
    let both = old.measurements.iter().map(|one| change(one, twin(new, one), threshold));
    let added = new.measurements.iter().filter(|one| twin(old, one).is_none());
    let added = added.map(|one| Change { old: None, new: Some(one.clone()), percent: 0.0, verdict: Verdict::Added });
    let changes: Vec<Change> = both.chain(added).collect();
    let mut notes = notes(old, new);
    let moved = |change: &&Change| {
        change.is_alternative() && change.verdict != Verdict::Same && change.percent.abs() > threshold
    };
    let moved = changes.iter().filter(moved).count();
    if moved > 0 {
        notes.push(format!(
            "{moved} alternatives changed by more than {threshold} %, so something else than taskring did too"
        ));
    }
    Comparison { changes, notes }
}

fn change(old: &Measurement, new: Option<Measurement>, threshold: f64) -> Change {
    // Numbers of different units have nothing in common.
    let new = new.filter(|new| new.unit == old.unit);
    let (percent, verdict) = match &new {
        None => (0.0, Verdict::Missing),
        Some(new) => {
            let (before, after) = (old.samples.value(), new.samples.value());
            // Of nothing, anything is infinitely more.
            let percent = if after == before { 0.0 } else { 100.0 * (after / before - 1.0) };
            let ((old_low, old_high), (new_low, new_high)) = (noise(&old.samples), noise(&new.samples));
            let apart = new_low > old_high || new_high < old_low;
            let worse = (percent > 0.0) == old.unit.less_is_better();
            let verdict = match (apart, worse) {
                (false, _) => Verdict::Same,
                (true, false) => Verdict::Better,
                (true, true) if percent.abs() > threshold => Verdict::Regression,
                (true, true) => Verdict::Worse,
            };
            (percent, verdict)
        }
    };
    Change { old: Some(old.clone()), new, percent, verdict }
}

/// Of a single repetition nobody knows how far the next one would be.
fn noise(samples: &Samples) -> (f64, f64) {
    let repetitions = match samples {
        Samples::Latency(percentiles) => percentiles.repetitions,
        Samples::Repeated(spread) => spread.repetitions,
    };
    let (low, high) = samples.noise();
    let margin = if repetitions < 2 { f64::INFINITY } else { (high - low) / 2.0 };
    (low - margin, high + margin)
}

fn notes(old: &Report, new: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, of: fn(&Facts) -> String| {
        let (old, new) = (of(&old.facts), of(&new.facts));
        if old != new {
            notes.push(format!("the runs differ in {what}: {old}; {new}"));
        }
    };
    differ("device", |facts| facts.device.clone());
    differ("driver", |facts| facts.driver.clone());
    differ("host", |facts| facts.host.clone());
    differ("mode", |facts| if facts.live { "live".into() } else { "boundary".into() });
    differ("size", |facts| format!("{:?}", facts.size).to_lowercase());
    for (name, report) in [("old", old), ("new", new)] {
        if report.incomplete {
            notes.push(format!("the {name} run is incomplete"));
        }
    }
    notes
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        let mut scenario = "";
        for change in &self.changes {
            let Some(one) = change.old.as_ref().or(change.new.as_ref()) else { continue };
            if one.scenario != scenario {
                scenario = &one.scenario;
                writeln!(f, "{scenario}")?;
            }
            let value =
                |one: &Option<Measurement>| one.as_ref().map_or("–".into(), |one| number(one.samples.value()));
            let (old, new, unit) = (value(&change.old), value(&change.new), one.unit.name());
            let verdict = match (change.verdict, one.is_alternative) {
                (Verdict::Same, _) => "within the noise",
                (Verdict::Better, false) => "better",
                (Verdict::Worse, false) => "worse, within the threshold",
                (Verdict::Regression, false) => "REGRESSION",
                (Verdict::Better, true) => "an alternative, better",
                (Verdict::Worse | Verdict::Regression, true) => "an alternative, worse",
                (Verdict::Missing, _) => "missing in the new run",
                (Verdict::Added, _) => "new",
            };
            let percent = change.percent;
            writeln!(f, "  {:<72} {old:>8} -> {new:>8} {unit:<8} {percent:>+7.1} %  {verdict}", one.variant)?;
        }
        let regressions = self.changes.iter().filter(|one| one.verdict == Verdict::Regression && !one.is_alternative());
        writeln!(f, "{} measurements, {} regressions", self.changes.len(), regressions.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{latency, sample, spread};
    use crate::{Percentiles, Unit};

    fn of(samples: [Samples; 2], unit: Unit) -> Verdict {
        let [old, new] = samples.map(|samples| {
            let mut report = sample();
            report.measurements.retain(|one| !one.is_alternative);
            report.measurements.truncate(1);
            report.measurements[0].samples = samples;
            report.measurements[0].unit = unit;
            report
        });
        compare(&old, &new, 5.0).changes[0].verdict
    }

    #[test]
    fn a_change_counts_beyond_the_noise_of_both_runs() {
        assert_eq!(of([spread(100.0, 1.0), spread(80.0, 1.0)], Unit::TasksPerSecond), Verdict::Regression);
        assert_eq!(of([spread(100.0, 0.5), spread(97.0, 0.5)], Unit::TasksPerSecond), Verdict::Worse);
        assert_eq!(of([spread(100.0, 15.0), spread(80.0, 15.0)], Unit::TasksPerSecond), Verdict::Same);
        assert_eq!(of([spread(100.0, 6.0), spread(80.0, 6.0)], Unit::TasksPerSecond), Verdict::Same);
        assert_eq!(of([spread(100.0, 1.0), spread(120.0, 1.0)], Unit::TasksPerSecond), Verdict::Better);
        assert_eq!(of([spread(100.0, 1.0), spread(120.0, 1.0)], Unit::NanosPerTurn), Verdict::Regression);
        assert_eq!(of([latency(5.0, 0.1), latency(6.0, 0.1)], Unit::Micros), Verdict::Regression);
        assert_eq!(of([latency(5.0, 0.1), latency(4.0, 0.1)], Unit::Micros), Verdict::Better);
    }

    #[test]
    fn of_one_repetition_nothing_is_known() {
        let once = |p50| {
            let Samples::Latency(percentiles) = latency(p50, 0.0) else { unreachable!() };
            Samples::Latency(Percentiles { repetitions: 1, ..percentiles })
        };
        assert_eq!(of([once(5.0), once(50.0)], Unit::Micros), Verdict::Same);
    }

    #[test]
    fn what_only_one_run_has_is_said_and_is_no_regression() {
        let (old, mut new) = (sample(), sample());
        new.measurements[1].variant = "another".into();
        new.facts.driver = "driver 2".into();
        let comparison = compare(&old, &new, 5.0);
        let count = |verdict| comparison.changes.iter().filter(|change| change.verdict == verdict).count();
        assert_eq!((count(Verdict::Missing), count(Verdict::Added)), (1, 1));
        assert!(!comparison.is_regression());
        let text = comparison.to_string();
        assert!(text.contains("missing in the new run") && text.contains("driver 1; driver 2"), "{text}");
    }

    #[test]
    fn a_worse_alternative_is_no_regression_of_ours() {
        let (old, mut new) = (sample(), sample());
        assert!(new.measurements[0].is_alternative);
        new.measurements[0].samples = latency(50.0, 0.1);
        let comparison = compare(&old, &new, 5.0);
        assert!(!comparison.is_regression());
        assert!(comparison.notes[0].starts_with("1 alternatives changed"), "{:?}", comparison.notes);
        new.measurements[1].samples = latency(50.0, 0.1);
        assert!(compare(&old, &new, 5.0).is_regression());
    }
}
