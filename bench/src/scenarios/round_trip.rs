//! How soon one task is back.

use std::time::{Duration, Instant};

use taskring::device::Probe;
use taskring::{Mode, Runtime, RuntimeOptions, Task};

use super::ops::NOTHING;
use crate::run::{LONGEST, settle};
use crate::{Error, Fenced, On, Percentiles, Run, Samples, Scenario, Submissions, Tally, Unit, Variant};

pub(super) const ROUND_TRIP: Scenario = Scenario {
    name: "round_trip",
    meaning: "One task that does nothing, from its submission until its completion is seen: what a task costs that the host waits for.",
    unit: Unit::Micros,
    alternatives: &[
        "one vkQueueSubmit of an empty dispatch, its timeline polled, or waited for in vkWaitSemaphores; or its fence polled",
        "the raw wire: a word of memory, answered by a kernel that does nothing else, which nothing can beat",
    ],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let mut submissions = Submissions::new(run.device(), On::Slices)?;
    run.latency(Variant::alternative("one vkQueueSubmit, polled"), || {
        let start = Instant::now();
        submissions.submit()?;
        submissions.poll()?;
        Ok(start.elapsed())
    })?;
    run.latency(Variant::alternative("one vkQueueSubmit, blocked in a wait"), || {
        let start = Instant::now();
        submissions.submit()?;
        submissions.wait()?;
        Ok(start.elapsed())
    })?;
    drop(submissions);
    let mut fenced = Fenced::new(run.device())?;
    run.latency(Variant::alternative("one vkQueueSubmit, its fence polled"), || {
        let start = Instant::now();
        fenced.submit_and_poll()?;
        Ok(start.elapsed())
    })?;
    drop(fenced);
    raw_wire(run)?;
    ours(run, "taskring", RuntimeOptions::default())?;
    if !run.is_cpu() && run.size().pick(false, true, true) {
        for workers in [1, 32, 1024] {
            let options = RuntimeOptions { workers: Some(workers), ..Default::default() };
            ours(run, &format!("taskring, {workers} workers"), options)?;
        }
    }
    ours(run, "taskring, boundary mode", RuntimeOptions { mode: Mode::Boundary, ..Default::default() })
}

/// What the device's self-test found.
pub(super) fn raw_wire(run: &mut Run<'_>) -> Result<(), Error> {
    let variant = Variant::alternative("raw wire");
    match run.device().self_test()?.round_trip.clone() {
        Probe::Measured(raw) => {
            let (p50, p99) = (raw.p50_ns as f64 / 1e3, raw.p99_ns as f64 / 1e3);
            // The self-test keeps no more than these two, and ran once.
            let (p90, p999, max) = (None, None, None);
            let percentiles = Percentiles {
                p50,
                p90,
                p99,
                p999,
                max,
                count: raw.rounds.into(),
                p50_min: p50,
                p50_max: p50,
                repetitions: 1,
            };
            run.note(variant, Samples::Latency(percentiles));
        }
        Probe::NotMeasured(reason) => run.skip(variant, reason),
    }
    Ok(())
}

fn ours(run: &mut Run<'_>, name: &str, options: RuntimeOptions) -> Result<(), Error> {
    let runtime = run.runtime(options)?;
    let mut tally = Tally::default();
    run.latency(Variant::ours(name), || trip(&runtime, &mut tally))?;
    settle(&runtime, &mut tally)
}

/// Submits a task and waits for it.
pub(super) fn trip(runtime: &Runtime, tally: &mut Tally) -> Result<Duration, Error> {
    let start = Instant::now();
    let completion = runtime.submit(Task::new(NOTHING))?.wait(LONGEST)?;
    let took = start.elapsed();
    tally.submitted(1);
    tally.completed(&[completion])?;
    Ok(took)
}
