//! What others pay for the runtime.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use taskring::{Runtime, RuntimeOptions};

use super::round_trip::trip;
use crate::run::settle;
use crate::{Error, On, Run, Scenario, Submissions, Tally, Unit, Variant};

pub(super) const OTHER_QUEUE: Scenario = Scenario {
    name: "other_queue",
    meaning: "An empty dispatch on the device's other queue, polled: what others on the GPU pay for a runtime that is idle, or busy.",
    unit: Unit::Micros,
    alternatives: &["the same dispatch while there is no runtime"],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    if run.device().other_queue_family().is_none() {
        run.skip(Variant::alternative("an empty dispatch on another queue"), "the device has one queue");
        return Ok(());
    }
    dispatches(run, Variant::alternative("no runtime"))?;
    let runtime = run.runtime(RuntimeOptions::default())?;
    let mut tally = Tally::default();
    trip(&runtime, &mut tally)?;
    // Well after its last slice has left the device.
    std::thread::sleep(20 * lingers(&runtime) + Duration::from_millis(20));
    dispatches(run, Variant::ours("an idle runtime"))?;

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            while !over.load(Relaxed) {
                trip(&runtime, &mut tally)?;
            }
            settle(&runtime, &mut tally)
        });
        let measured = dispatches(run, Variant::ours("a busy runtime: one task after another"));
        over.store(true, Relaxed);
        match busy.join() {
            Ok(settled) => settled.and(measured),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// How long the last slice stayed without anything to do.
pub(super) fn lingers(runtime: &Runtime) -> Duration {
    runtime.last_launch().map_or(Duration::ZERO, |launch| launch.decision.linger.value)
}

fn dispatches(run: &mut Run<'_>, variant: Variant) -> Result<(), Error> {
    let mut submissions = Submissions::new(run.device(), On::OtherQueue)?;
    run.latency(variant, || {
        let start = Instant::now();
        submissions.submit()?;
        submissions.poll()?;
        Ok(start.elapsed())
    })
}
