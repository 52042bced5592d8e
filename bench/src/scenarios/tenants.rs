//! What many tenants cost, and one that is switched off.

use std::time::{Duration, Instant};

use taskring::{
    Accepted, BackendError, Completion, Outcome, Runtime, RuntimeOptions, TASK_FAULT_BAD_TENANT, Task, TaskWorkItem,
};

use super::ops::NOTHING;
use crate::run::{LONGEST, settle_as};
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const TENANTS: Scenario = Scenario {
    name: "tenants",
    meaning: "Tasks that do nothing, of one tenant or of a thousand in turn, from the first submission until all have ended. While a tenant is off, its \
              tasks fault, and no others; the device then has to look at the word of each task's tenant that comes after it. The host's check would refuse them, so \
              it is left out there, and once where all are on.",
    unit: Unit::TasksPerSecond,
    alternatives: &["all tasks are one tenant's"],
    run: measure,
};

type Submit = fn(&Runtime, &[TaskWorkItem]) -> Result<Accepted, BackendError>;

const MANY: u32 = 1_000;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let count: u32 = if run.is_cpu() { run.size().pick(1 << 14, 1 << 15, 1 << 16) } else { 1 << 18 };
    let options = RuntimeOptions { capacity: count, tenants: MANY, ..Default::default() };
    for (variant, tenants, checked, off) in [
        (Variant::alternative("one tenant"), 1, true, None),
        (Variant::ours("1000 tenants, all on"), MANY, true, None),
        (Variant::ours("1000 tenants, all on, not checked by the host"), MANY, false, None),
        (Variant::ours("1000 tenants, the last one off, not checked by the host"), MANY, false, Some(MANY - 1)),
        (Variant::ours("1000 tenants, the first one off, not checked by the host"), MANY, false, Some(0)),
    ] {
        let runtime = run.runtime(options.clone())?;
        if let Some(off) = off {
            runtime.set_tenant(off, false)?;
        }
        // Its id says whose a task is.
        let tasks: Vec<TaskWorkItem> =
            (0..tenants).cycle().take(count as usize).map(|of| Task::new(NOTHING).tenant(of).id(of).item()).collect();
        let mut tally = Tally::default();
        let submit: Submit = if checked { Runtime::submit_batch } else { Runtime::submit_batch_unchecked };
        run.repeat(variant, || rate(&runtime, &tasks, submit, off, &mut tally))?;
    }
    Ok(())
}

fn rate(
    runtime: &Runtime,
    tasks: &[TaskWorkItem],
    submit: Submit,
    off: Option<u32>,
    tally: &mut Tally,
) -> Result<f64, Error> {
    let expected = |one: &Completion| match off {
        Some(off) if one.task_id == off => Outcome::Faulted(TASK_FAULT_BAD_TENANT),
        _ => Outcome::Done,
    };
    let start = Instant::now();
    let mut rest = tasks;
    while !rest.is_empty() {
        let taken = submit(runtime, rest)?.count();
        tally.submitted(taken);
        rest = &rest[taken..];
        if taken == 0 {
            runtime.poll()?;
        }
    }
    runtime.drain(LONGEST)?;
    let took: Duration = start.elapsed();
    settle_as(runtime, tally, expected)?;
    Ok(tasks.len() as f64 / took.as_secs_f64())
}
