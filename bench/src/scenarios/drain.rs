//! How long a full queue takes to run empty.

use std::time::Instant;

use taskring::{Runtime, RuntimeOptions, Task, TaskPriority, TaskWorkItem};

use super::ops::NOTHING;
use super::recorded::{INDEPENDENT, independent};
use super::{SUBMISSION_EACH, submission_each};
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const DRAIN: Scenario = Scenario {
    name: "drain",
    meaning: "Very many tasks that do nothing, over all five priorities, from the first submission until all have ended; the host's part is included.",
    unit: Unit::TasksPerSecond,
    alternatives: &[SUBMISSION_EACH, INDEPENDENT[0], INDEPENDENT[1], INDEPENDENT[2]],
    run: measure,
};

pub(super) const PRIORITIES: [TaskPriority; 5] =
    [TaskPriority::Critical, TaskPriority::High, TaskPriority::Normal, TaskPriority::Low, TaskPriority::Idle];

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    submission_each(run, |count, seconds| count / seconds)?;
    independent(run, |count, seconds| count / seconds)?;
    let count: u32 = if run.is_cpu() { 1 << 16 } else { 1 << 20 };
    let task = |priority: &TaskPriority| Task::new(NOTHING).priority(*priority).item();
    let tasks: Vec<TaskWorkItem> = PRIORITIES.iter().map(task).cycle().take(count as usize).collect();
    let runtime = run.runtime(RuntimeOptions { capacity: count, ..Default::default() })?;
    let mut tally = Tally::default();
    run.repeat(Variant::ours(format!("taskring, {count} tasks")), || {
        let start = Instant::now();
        submit_all(&runtime, &tasks, &mut tally)?;
        runtime.drain(LONGEST)?;
        let took = start.elapsed();
        settle(&runtime, &mut tally)?;
        Ok(f64::from(count) / took.as_secs_f64())
    })
}

/// Submits until all are taken.
pub(super) fn submit_all(runtime: &Runtime, tasks: &[TaskWorkItem], tally: &mut Tally) -> Result<(), Error> {
    let mut rest = tasks;
    while !rest.is_empty() {
        let taken = runtime.submit_batch(rest)?.count();
        tally.submitted(taken);
        rest = &rest[taken..];
        if taken == 0 {
            runtime.poll()?;
        }
    }
    Ok(())
}
