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
    meaning: "An endless stream of tasks that do nothing, submitted in batches, their completions consumed: how many tasks a second the host can hand over and get back. Whether host or device is the limit tells how often the host, when it looked, found that nothing had come back: the device was behind.",
    unit: Unit::TasksPerSecond,
    alternatives: &[SUBMISSION_EACH],
    run: measure,
};

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
        let (mut tally, mut looks) = (Tally::default(), Looks::default());
        let name = format!("taskring, {batch} at a time, capacity {capacity}");
        run.repeat(Variant::ours(&name), || one_thread(&runtime, batch, span, &mut tally, &mut looks))?;
        if let Some(share) = Spread::of(&[looks.share()]) {
            let variant = Variant::ours(format!("{name}: looks for completions in vain")).unit(Unit::Share);
            run.note(variant, Samples::Repeated(share));
        }
        let name = format!("taskring, {batch} at a time, capacity {capacity}, consumed by a second thread");
        run.repeat(Variant::ours(name), || two_threads(&runtime, batch, span, &mut tally))?;
    }
    let runtime =
        run.runtime(RuntimeOptions { mode: Mode::Boundary, launch_on_submit: false, ..Default::default() })?;
    let mut tally = Tally::default();
    let batch = runtime.options().capacity as usize;
    let name = format!("taskring, boundary mode, {batch} at a time");
    run.repeat(Variant::ours(name), || one_thread(&runtime, batch, span, &mut tally, &mut Looks::default()))
}

/// How often the host looked for completions, and how often there was none.
#[derive(Default)]
struct Looks {
    all: u64,
    vain: u64,
}

impl Looks {
    fn share(&self) -> f64 {
        self.vain as f64 / self.all.max(1) as f64
    }
}

/// Tasks a second, by one thread that submits and consumes.
fn one_thread(
    runtime: &Runtime,
    batch: usize,
    span: Duration,
    tally: &mut Tally,
    looks: &mut Looks,
) -> Result<f64, Error> {
    let batch = vec![Task::new(NOTHING).item(); batch];
    // In boundary mode nothing ends before somebody waits for it.
    let patience = if runtime.residency().is_live() { Duration::ZERO } else { span };
    let (mut consumed, mut ended, start) = (0, Vec::new(), Instant::now());
    while start.elapsed() < span {
        tally.submitted(runtime.submit_batch(&batch)?.count());
        ended.clear();
        consumed += runtime.completions(&mut ended, usize::MAX, patience)?;
        (looks.all, looks.vain) = (looks.all + 1, looks.vain + u64::from(ended.is_empty()));
        tally.completed(&ended)?;
    }
    let rate = consumed as f64 / start.elapsed().as_secs_f64();
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
                consumed += runtime.completions(&mut ended, usize::MAX, Duration::from_millis(10))?;
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
