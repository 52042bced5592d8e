//! What a scenario measures with: warm-up, repetitions, and where the results go.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use taskring::{Completion, Device, Outcome, Program, Runtime, RuntimeOptions};

use crate::stats::{Latencies, Spread};
use crate::{At, Error, Gap, Measurement, Report, Samples, Scenario, Size, Tally, Unit};

/// An idle GPU's clocks are low, and take a while to rise. A CPU's are up already.
const CLOCKS_RISE: Duration = Duration::from_millis(500);
const CACHES_FILL: Duration = Duration::from_millis(30);
/// Longest wait for anything.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// One of the things that a scenario measures.
#[derive(Clone, Debug)]
pub struct Variant {
    name: String,
    is_alternative: bool,
    at: Option<At>,
    unit: Option<Unit>,
}

impl Variant {
    /// taskring, in some way.
    pub fn ours(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_alternative: false, at: None, unit: None }
    }

    /// What a user has without it.
    pub fn alternative(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_alternative: true, at: None, unit: None }
    }

    /// The number in which it differs from its siblings, to draw them against it.
    #[must_use]
    pub fn at(mut self, axis: &str, value: u64) -> Self {
        self.at = Some(At { axis: axis.into(), value });
        self
    }

    /// What its numbers are, if they are not what the scenario's are.
    #[must_use]
    pub fn unit(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }
}

/// A scenario that is being measured.
pub struct Run<'a> {
    pub(crate) device: &'a Device,
    pub(crate) program: &'a Program,
    pub(crate) scenario: &'a Scenario,
    pub(crate) size: Size,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) progress: bool,
    pub(crate) report: &'a mut Report,
}

impl Run<'_> {
    /// The device.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// Whether the device is a driver that runs on the CPU, which gets smaller sizes.
    pub fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// How much is to be measured.
    pub fn size(&self) -> Size {
        self.size
    }

    /// A runtime for [the ops of the scenarios](crate::scenarios::ops).
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn runtime(&self, options: RuntimeOptions) -> Result<Runtime, Error> {
        self.runtime_of(self.program, options)
    }

    /// A runtime for other ops.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn runtime_of(&self, program: &Program, options: RuntimeOptions) -> Result<Runtime, Error> {
        Ok(Runtime::new(self.device, program, options)?)
    }

    /// Takes latencies: `sample` once for each of them, in several repetitions after a warm-up.
    ///
    /// # Errors
    /// Those of `sample`; [`Error::Interrupted`] if somebody asked to stop, after taking note of the repetitions that were done.
    pub fn latency(
        &mut self,
        variant: Variant,
        mut sample: impl FnMut() -> Result<Duration, Error>,
    ) -> Result<(), Error> {
        let mut latencies = Latencies::new()?;
        self.go_on()?;
        let began = Instant::now();
        while began.elapsed() < self.warm_up() {
            sample()?;
        }
        for _ in 0..self.size.repetitions() {
            let began = Instant::now();
            for _ in 0..self.size.samples() {
                latencies.record(sample()?);
                if began.elapsed() > self.size.span() {
                    break;
                }
            }
            latencies.end_repetition()?;
            if self.stop.load(Relaxed) {
                break;
            }
        }
        if let Some(percentiles) = latencies.percentiles() {
            self.note(variant, Samples::Latency(percentiles));
        }
        self.go_on()
    }

    /// Takes one number in each of several repetitions after a warm-up.
    ///
    /// # Errors
    /// As [`Run::latency`].
    pub fn repeat(
        &mut self,
        variant: Variant,
        mut repetition: impl FnMut() -> Result<f64, Error>,
    ) -> Result<(), Error> {
        self.repeat_in_turn(vec![variant], |_| repetition())
    }

    /// As [`Run::repeat`], of several variants: each repetition is done for all of them before the next one, so that what changes with time, such as clocks, changes
    /// for all. `repetition` is given which of them it is for.
    ///
    /// # Errors
    /// As [`Run::latency`].
    pub fn repeat_in_turn(
        &mut self,
        variants: Vec<Variant>,
        mut repetition: impl FnMut(usize) -> Result<f64, Error>,
    ) -> Result<(), Error> {
        self.go_on()?;
        let (began, mut numbers) = (Instant::now(), vec![Vec::new(); variants.len()]);
        loop {
            for index in 0..variants.len() {
                repetition(index)?;
            }
            if began.elapsed() >= self.warm_up() || self.stop.load(Relaxed) {
                break;
            }
        }
        'all: for _ in 0..self.size.repetitions() {
            for (index, numbers) in numbers.iter_mut().enumerate() {
                if self.stop.load(Relaxed) {
                    break 'all;
                }
                numbers.push(repetition(index)?);
            }
        }
        for (variant, numbers) in variants.into_iter().zip(numbers) {
            if let Some(spread) = Spread::of(&numbers) {
                self.note(variant, Samples::Repeated(spread));
            }
        }
        self.go_on()
    }

    /// Takes note of a result.
    pub fn note(&mut self, variant: Variant, samples: Samples) {
        let unit = variant.unit.unwrap_or(self.scenario.unit);
        if self.progress {
            eprintln!("      {:<72} {:>14}", variant.name, unit.show(samples.value()));
        }
        self.report.measurements.push(Measurement {
            scenario: self.scenario.name.into(),
            variant: variant.name,
            is_alternative: variant.is_alternative,
            unit,
            at: variant.at,
            samples,
        });
    }

    /// What was taken note of for this scenario.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Measurement> {
        self.report.of(self.scenario.name)
    }

    /// Takes note of what cannot be measured here, and why.
    pub fn skip(&mut self, variant: Variant, reason: impl Into<String>) {
        let reason = reason.into();
        if self.progress {
            eprintln!("      {:<72} not measured: {reason}", variant.name);
        }
        let scenario = self.scenario.name.into();
        self.report.gaps.push(Gap { scenario, variant: Some(variant.name), reason, failed: false });
    }

    pub(crate) fn warm_up(&self) -> Duration {
        match self.size {
            Size::Smoke => Duration::ZERO,
            _ if self.is_cpu() => CACHES_FILL,
            Size::Quick => CLOCKS_RISE / 2,
            _ => CLOCKS_RISE,
        }
    }

    /// [`Error::Interrupted`] if somebody asked to stop.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        if self.stop.load(Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Ends what a runtime still does and checks that nothing was lost or done twice.
pub(crate) fn settle(runtime: &Runtime, tally: &mut Tally) -> Result<(), Error> {
    settle_as(runtime, tally, |_| Outcome::Done)
}

/// [`settle`] where not every task is to end Done.
pub(crate) fn settle_as(
    runtime: &Runtime,
    tally: &mut Tally,
    expected: impl Fn(&Completion) -> Outcome,
) -> Result<(), Error> {
    runtime.drain(LONGEST)?;
    let mut ended = Vec::new();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO)?;
    tally.ended(&ended, expected)?;
    tally.settle()?;
    let stats = runtime.stats();
    if (stats.submitted, stats.faulted) != (stats.done + stats.faulted, tally.faults()) {
        return Err(Error::Wrong { what: format!("the runtime counts otherwise: {stats:?}") });
    }
    Ok(())
}
