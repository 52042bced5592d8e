//! What a runtime costs that has nothing to do.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use taskring::{Runtime, RuntimeOptions, Task};

use super::ops::NOTHING;
use super::other_queue::lingers;
use super::round_trip::trip;
use crate::run::settle;
use crate::{Error, Run, Samples, Scenario, Size, Spread, Tally, Unit, Variant};

pub(super) const IDLE: Scenario = Scenario {
    name: "idle",
    meaning: "The processor time of all of the process's threads while the host sleeps, and the slices that are launched meanwhile: of a runtime that has \
              nothing left to do, and of one whose tasks all wait for an epoch. A driver that runs on the CPU is part of the process.",
    unit: Unit::ProcessorTime,
    alternatives: &["no runtime"],
    run: measure,
};

const PAUSED: u32 = 1_000;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    watch(run, Variant::alternative("no runtime"), None)?;

    let runtime = run.runtime(RuntimeOptions::default())?;
    let mut tally = Tally::default();
    trip(&runtime, &mut tally)?;
    leave(&runtime);
    watch(run, Variant::ours("taskring, nothing to do"), Some((&runtime, "taskring, nothing to do: slices")))?;
    settle(&runtime, &mut tally)?;
    drop(runtime);

    let runtime = run.runtime(RuntimeOptions::default())?;
    let (timeline, mut tally) = (runtime.create_timeline()?, Tally::default());
    let paused = vec![Task::new(NOTHING).paused_until(timeline, 1).item(); PAUSED as usize];
    tally.submitted(runtime.submit_batch(&paused)?.count());
    leave(&runtime);
    let name = format!("taskring, {PAUSED} paused tasks");
    watch(run, Variant::ours(&name), Some((&runtime, &format!("{name}: slices"))))?;
    runtime.signal(timeline, 1)?;
    settle(&runtime, &mut tally)
}

/// Waits until well after the last slice has left the device.
fn leave(runtime: &Runtime) {
    std::thread::sleep(20 * lingers(runtime) + Duration::from_millis(100));
}

/// Sleeps, and says what went on meanwhile.
fn watch(run: &mut Run<'_>, variant: Variant, slices_of: Option<(&Runtime, &str)>) -> Result<(), Error> {
    let millis = if run.size() == Size::Smoke { 20 } else { run.size().pick(200, 1_000, 2_000) };
    let span = Duration::from_millis(millis);
    let (mut times, mut slices) = (Vec::new(), Vec::new());
    for _ in 0..run.size().repetitions() {
        run.go_on()?;
        let launched = || slices_of.map_or(0, |(runtime, _)| runtime.stats().slices);
        let (before, processor, start) = (launched(), ProcessTime::now(), Instant::now());
        std::thread::sleep(span);
        let (processor, took) = (processor.elapsed().as_secs_f64(), start.elapsed().as_secs_f64());
        times.push(processor * 1e6 / took);
        slices.push((launched() - before) as f64 / took);
    }
    if let Some(times) = Spread::of(&times) {
        run.note(variant, Samples::Repeated(times));
    }
    if let (Some((_, name)), Some(slices)) = (slices_of, Spread::of(&slices)) {
        run.note(Variant::ours(name).unit(Unit::SlicesPerSecond), Samples::Repeated(slices));
    }
    Ok(())
}
