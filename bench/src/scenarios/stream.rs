//! How many tasks a second.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use taskring::{BackendError, Mode, Runtime, RuntimeOptions, Task};

use super::ops::NOTHING;
use super::{SUBMISSION_EACH, submission_each};
use crate::run::settle;
use crate::stats::Spread;
use crate::{Error, Run, Samples, Scenario, Tally, Unit, Variant};

pub(super) const STREAM: Scenario = Scenario {
    name: "stream",
    meaning: "An endless stream of tasks that do nothing, submitted in batches, their completions consumed: how many tasks a second the host can hand over and get back. Whether host or device is the limit tells how often the host, when it looked, found that nothing had come back: the device was behind. The rest is the host's time, in submissions and in taking completions.",
    unit: Unit::TasksPerSecond,
    alternatives: &[SUBMISSION_EACH],
    run: measure,
};

/// Completions that the second thread takes at a time: so few that they are in its caches still when it looks at them. All that there are would be more and
/// more once it is behind, and slow it down further.
const TAKEN: usize = 256;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    submission_each(run, |count, seconds| count / seconds)?;
    let span = run.size().pick(150, 500, 2_000);
    let span = Duration::from_millis(if run.is_cpu() { span / 2 } else { span });
    let shapes: &[(u32, usize)] = run.size().pick(
        &[(1 << 14, 256), (1 << 16, 4_096)],
        &[(1 << 14, 256), (1 << 14, 4_096), (1 << 16, 256), (1 << 16, 4_096)],
        &[(1 << 14, 256), (1 << 14, 1_024), (1 << 14, 4_096), (1 << 16, 256), (1 << 16, 1_024), (1 << 16, 4_096)],
    );
    for &(capacity, batch) in shapes {
        let runtime = run.runtime(RuntimeOptions { capacity, ..Default::default() })?;
        let (mut tally, mut host) = (Tally::default(), Host::default());
        let name = format!("taskring, {batch} at a time, capacity {capacity}");
        run.repeat(Variant::ours(&name), || one_thread(&runtime, batch, span, &mut tally, &mut host))?;
        for (what, share) in host.shares() {
            if let Some(share) = Spread::of(&[share]) {
                run.note(Variant::ours(format!("{name}: {what}")).unit(Unit::Share), Samples::Repeated(share));
            }
        }
        let name = format!("taskring, {batch} at a time, capacity {capacity}, consumed by a second thread");
        run.repeat(Variant::ours(name), || two_threads(&runtime, batch, span, &mut tally))?;
    }
    let runtime =
        run.runtime(RuntimeOptions { mode: Mode::Boundary, launch_on_submit: false, ..Default::default() })?;
    let mut tally = Tally::default();
    let batch = runtime.options().capacity as usize;
    let name = format!("taskring, boundary mode, {batch} at a time");
    run.repeat(Variant::ours(name), || one_thread(&runtime, batch, span, &mut tally, &mut Host::default()))
}

/// What the host did meanwhile.
#[derive(Default)]
struct Host {
    looks: u32,
    vain: u32,
    time: Duration,
    submitting: Duration,
    completing: Duration,
}

impl Host {
    fn shares(&self) -> [(&'static str, f64); 3] {
        let of_time = |part: Duration| part.as_secs_f64() / self.time.as_secs_f64().max(1e-9);
        [
            ("looks for completions in vain", f64::from(self.vain) / f64::from(self.looks.max(1))),
            ("the host's time in submissions", of_time(self.submitting)),
            ("the host's time in taking completions", of_time(self.completing)),
        ]
    }
}

/// Tasks a second, by one thread that submits and consumes.
fn one_thread(
    runtime: &Runtime,
    batch: usize,
    span: Duration,
    tally: &mut Tally,
    host: &mut Host,
) -> Result<f64, Error> {
    let batch = vec![Task::new(NOTHING).item(); batch];
    // In boundary mode nothing ends before somebody waits for it.
    let patience = if runtime.residency().is_live() { Duration::ZERO } else { span };
    let (mut consumed, mut ended, start) = (0, Vec::new(), Instant::now());
    while start.elapsed() < span {
        let began = Instant::now();
        tally.submitted(runtime.submit_batch(&batch)?.count());
        host.submitting += began.elapsed();
        ended.clear();
        let began = Instant::now();
        consumed += runtime.completions(&mut ended, usize::MAX, patience)?;
        host.completing += began.elapsed();
        (host.looks, host.vain) = (host.looks + 1, host.vain + u32::from(ended.is_empty()));
        tally.completed(&ended)?;
    }
    let time = start.elapsed();
    host.time += time;
    let rate = consumed as f64 / time.as_secs_f64();
    settle(runtime, tally)?;
    Ok(rate)
}

/// Tasks a second, submitted by one thread and consumed by another.
fn two_threads(runtime: &Runtime, batch: usize, span: Duration, tally: &mut Tally) -> Result<f64, Error> {
    let batch = vec![Task::new(NOTHING).item(); batch];
    let over = AtomicBool::new(false);
    let rate = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut submitted = 0;
            while !over.load(Relaxed) {
                submitted += runtime.submit_batch(&batch)?.count();
            }
            Ok::<_, BackendError>(submitted)
        });
        let (mut consumed, mut ended, start) = (0, Vec::new(), Instant::now());
        let mut consume = || {
            while start.elapsed() < span {
                ended.clear();
                consumed += runtime.completions(&mut ended, TAKEN, Duration::from_millis(10))?;
                tally.completed(&ended)?;
            }
            Ok::<_, Error>(consumed as f64 / start.elapsed().as_secs_f64())
        };
        let rate = consume();
        over.store(true, Relaxed);
        match producer.join() {
            Ok(submitted) => tally.submitted(submitted?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        rate
    })?;
    settle(runtime, tally)?;
    Ok(rate)
}
