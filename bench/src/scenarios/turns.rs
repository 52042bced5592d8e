//! How many turns a second, while tasks stay on the device.

use std::time::{Duration, Instant};

use taskring::{Completion, Runtime, RuntimeOptions, Task, TaskWorkItem};

use super::drain::submit_all;
use super::ops::{REQUEUES, YIELDS};
use super::recorded::{CHAINED, chained};
use super::{SUBMISSION_EACH, submission_each};
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const YIELD: Scenario = Scenario {
    name: "yield",
    meaning: "Tasks that yield 64 times each before they complete: how fast the device goes on with tasks while the host does nothing.",
    unit: Unit::TurnsPerSecond,
    alternatives: &[SUBMISSION_EACH, CHAINED[0], CHAINED[1], CHAINED[2]],
    run: |run| measure(run, YIELDS),
};

pub(super) const REQUEUE: Scenario = Scenario {
    name: "requeue",
    meaning: "The same for tasks that move to another priority 64 times each.",
    unit: Unit::TurnsPerSecond,
    alternatives: &[SUBMISSION_EACH, CHAINED[0], CHAINED[1], CHAINED[2]],
    run: |run| measure(run, REQUEUES),
};

/// How often each task comes back.
const TIMES: u32 = 64;

fn measure(run: &mut Run<'_>, op: u32) -> Result<(), Error> {
    submission_each(run, |count, seconds| count / seconds)?;
    chained(run, |count, seconds| count / seconds)?;
    let capacity = if run.is_cpu() { run.size().pick(1 << 12, 1 << 13, 1 << 14) } else { 1 << 16 };
    // A grid of the device's own size first; larger ones where there is room for them.
    let grids: &[Option<(u32, u32)>] = match (run.is_cpu(), run.size().pick(false, true, true)) {
        (true, _) => &[None],
        (_, false) => &[None, Some((1024, 64))],
        (_, true) => &[None, Some((64, 1)), Some((256, 16)), Some((1024, 64)), Some((2048, 128))],
    };
    for grid in grids {
        let (workers, shards) = grid.unzip();
        let runtime = run.runtime(RuntimeOptions { capacity, workers, shards, ..Default::default() })?;
        let mut tally = Tally::default();
        let grid =
            grid.map_or("the default grid".into(), |(workers, shards)| format!("{workers} workers, {shards} shards"));
        run.repeat(Variant::ours(format!("taskring, {capacity} tasks, {grid}")), || {
            let took = come_back(&runtime, op, capacity, TIMES, &mut tally)?;
            Ok(f64::from(capacity) * f64::from(TIMES + 1) / took.as_secs_f64())
        })?;
    }
    Ok(())
}

/// How long `count` tasks take that come back `times` each.
pub(super) fn come_back(
    runtime: &Runtime,
    op: u32,
    count: u32,
    times: u32,
    tally: &mut Tally,
) -> Result<Duration, Error> {
    let tasks: Vec<TaskWorkItem> = vec![Task::new(op).param(times).item(); count as usize];
    let start = Instant::now();
    submit_all(runtime, &tasks, tally)?;
    runtime.drain(LONGEST)?;
    let took = start.elapsed();
    let mut ended = Vec::new();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO)?;
    tally.completed(&ended)?;
    settle(runtime, tally)?;
    let came_back = |one: &Completion| if op == REQUEUES { one.requeue_count } else { one.yield_count };
    match ended.iter().find(|one| came_back(one) != times) {
        Some(one) => Err(Error::Wrong { what: format!("a task came back {} times, not {times}", came_back(one)) }),
        None => Ok(took),
    }
}
