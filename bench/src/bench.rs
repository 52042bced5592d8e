//! Runs scenarios on a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use taskring::Device;

use crate::{About, Error, Facts, Gap, Report, Run, Scenario, Size, scenarios};

/// Runs scenarios on a device, one after another.
#[derive(Clone, Debug)]
pub struct Bench {
    scenarios: Vec<Scenario>,
    size: Size,
    software: bool,
    progress: bool,
    command: String,
    stop: Arc<AtomicBool>,
}

impl Bench {
    /// All of this crate's scenarios.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let scenarios = scenarios::all();
        Self { scenarios, size, software: false, progress: false, command: String::new(), stop: Arc::default() }
    }

    /// Adds a scenario.
    #[must_use]
    pub fn with(mut self, scenario: Scenario) -> Self {
        self.scenarios.push(scenario);
        self
    }

    /// Keeps only the scenarios of these names, in their own order.
    ///
    /// # Errors
    /// [`Error::UnknownScenario`].
    pub fn only<N: AsRef<str>>(mut self, names: &[N]) -> Result<Self, Error> {
        for name in names.iter().map(AsRef::as_ref) {
            if !self.scenarios.iter().any(|scenario| scenario.name == name) {
                let known = self.scenarios.iter().map(|scenario| scenario.name.to_owned()).collect();
                return Err(Error::UnknownScenario { name: name.to_owned(), known });
            }
        }
        self.scenarios.retain(|scenario| names.iter().any(|name| name.as_ref() == scenario.name));
        Ok(self)
    }

    /// Whether to measure on a driver that runs on the CPU.
    #[must_use]
    pub fn software(mut self, software: bool) -> Self {
        self.software = software;
        self
    }

    /// Whether to say on the standard error stream what is being measured.
    #[must_use]
    pub fn progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// The command line that the report is to name.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// Set it to end the run after the repetition that is being measured; the report says then that it is incomplete.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// The scenarios that would run.
    #[must_use]
    pub fn scenarios(&self) -> &[Scenario] {
        &self.scenarios
    }

    /// Runs them. A scenario that fails is a [`Gap`] of the report, and the others run all the same.
    ///
    /// # Errors
    /// [`Error::Software`] on a driver that runs on the CPU, unless that was asked for; what building the ops and asking the device for its
    /// facts may give.
    pub fn run(&self, device: &Device) -> Result<Report, Error> {
        if device.is_cpu() && !self.software {
            return Err(Error::Software { device: device.facts().name.clone() });
        }
        let program = scenarios::ops::program()?;
        let facts = Facts::collect(device, &program, self.size, self.command.clone())?;
        let mut report = Report::new(facts, self.scenarios.iter().map(About::from).collect());
        let (began, count) = (Instant::now(), self.scenarios.len());
        for (n, scenario) in self.scenarios.iter().enumerate() {
            if self.progress {
                eprintln!("[{}/{count}] {:>4} s  {}", n + 1, began.elapsed().as_secs(), scenario.name);
            }
            let (stop, size, progress) = (&*self.stop, self.size, self.progress);
            let mut run = Run { device, program: &program, scenario, size, stop, progress, report: &mut report };
            let ended = if stop.load(Relaxed) { Err(Error::Interrupted) } else { (scenario.run)(&mut run) };
            let Err(error) = ended else { continue };
            let failed = !matches!(error, Error::Interrupted);
            report.incomplete = true;
            if self.progress {
                eprintln!("      {error}");
            }
            report.gaps.push(Gap { scenario: scenario.name.into(), variant: None, reason: error.to_string(), failed });
        }
        if self.progress {
            eprintln!("done after {:.1} s", began.elapsed().as_secs_f64());
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keeps_what_is_named_and_lists_the_names_if_one_is_unknown() {
        let names = |bench: Bench| bench.scenarios().iter().map(|scenario| scenario.name).collect::<Vec<_>>();
        assert_eq!(names(Bench::new(Size::Quick).only(&["drain", "round_trip"]).unwrap()), ["round_trip", "drain"]);
        let error = Bench::new(Size::Quick).only(&["drain", "drian"]).unwrap_err().to_string();
        assert!(error.contains("`drian`"), "{error}");
        for scenario in scenarios::all() {
            assert!(error.contains(scenario.name), "{error}");
        }
    }
}
