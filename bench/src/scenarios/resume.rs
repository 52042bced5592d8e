//! How soon a waiting task goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskring::{Runtime, RuntimeOptions, Signaller, Task, Timeline, TimelineId};

use super::ops::NOTHING;
use super::round_trip::raw_wire;
use crate::run::{LONGEST, settle};
use crate::{Error, On, Run, Scenario, Submissions, Tally, Unit, Variant};

pub(super) const RESUME: Scenario = Scenario {
    name: "resume",
    meaning: "A task waits for an epoch of a timeline: from the host's signal until its completion is seen.",
    unit: Unit::Micros,
    alternatives: &[
        "one vkQueueSubmit that waits for a timeline semaphore: from vkSignalSemaphore until it has ended, polled",
        "the raw wire: a word of memory, answered by a kernel that does nothing else, which nothing can beat",
    ],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let mut submissions = Submissions::new(run.device(), On::Slices)?;
    let (timeline, mut value) = (Timeline::new(run.device(), "signalled by the host", 0)?, 0);
    run.latency(Variant::alternative("one vkQueueSubmit that waits for a semaphore, polled"), || {
        value += 1;
        submissions.submit_after(Some((&timeline, value)))?;
        let start = Instant::now();
        timeline.signal(value)?;
        submissions.poll()?;
        Ok(start.elapsed())
    })?;
    drop(submissions);
    raw_wire(run)?;

    let runtime = run.runtime(RuntimeOptions::default())?;
    let mut tally = Tally::default();
    let plain = runtime.create_timeline()?;
    resumed(run, "taskring, `signal`", &runtime, plain, &mut tally)?;
    let semaphore = Arc::new(Timeline::new(run.device(), "signalled by the runtime", 0)?);
    let exported = runtime.register_timeline(&semaphore, Signaller::Runtime)?;
    resumed(run, "taskring, `signal`, which signals a semaphore too", &runtime, exported, &mut tally)?;
    settle(&runtime, &mut tally)
}

fn resumed(
    run: &mut Run<'_>,
    name: &str,
    runtime: &Runtime,
    timeline: TimelineId,
    tally: &mut Tally,
) -> Result<(), Error> {
    let mut epoch = 0;
    run.latency(Variant::ours(name), || {
        epoch += 1;
        resume(runtime, timeline, epoch, tally)
    })
}

fn resume(runtime: &Runtime, timeline: TimelineId, epoch: u64, tally: &mut Tally) -> Result<Duration, Error> {
    // Tasks name epochs by their last 32 bits.
    let mut task = runtime.submit(Task::new(NOTHING).paused_until(timeline, epoch as u32))?;
    // One that runs shows that a slice does, and that it has read the one that waits.
    let other = runtime.submit(Task::new(NOTHING))?.wait(LONGEST)?;
    let start = Instant::now();
    runtime.signal(timeline, epoch)?;
    let completion = task.wait(LONGEST)?;
    let took = start.elapsed();
    tally.submitted(2);
    tally.completed(&[other, completion])?;
    Ok(took)
}
