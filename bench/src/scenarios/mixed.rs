//! Many kinds of tasks at once.

use std::time::Instant;

use taskring::{Completion, Program, Runtime, RuntimeOptions, Task, TaskWorkItem, Width};

use super::drain::submit_all;
use super::load::{Gate, calibrate, spins, unfit};
use super::{SUBMISSION_EACH, submission_each};
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const MIXED: Scenario = Scenario {
    name: "mixed",
    meaning: "As many tasks of each of five kinds, from the first submission until all have ended: of a lane those that do nothing, that yield 16 times, \
              and that compute for about 10 µs; of a subgroup those that do nothing and that yield 4 times.",
    unit: Unit::TasksPerSecond,
    alternatives: &[SUBMISSION_EACH, "the same tasks, one kind after another"],
    run: measure,
};

/// Op of each kind, and how often its tasks yield.
const KINDS: [(u32, u32); 5] = [(0, 0), (1, 16), (SPINS, 0), (3, 0), (4, 4)];
const SPINS: u32 = 2;

fn program() -> Result<Program, Error> {
    let yields = |name: &str| {
        format!(
            "Turn {name}(TaskWorkItem task) {{
                if (task.continuation_pc < task.param) return task_yield(task.continuation_pc + 1u, 0u);
                return task_complete();
            }}"
        )
    };
    Ok(Program::builder()
        .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
        .op("yields", yields("yields"), Width::Lane)
        .op("spins", spins(), Width::Lane)
        .op("wide_nothing", "Turn wide_nothing(TaskWorkItem task) { return task_complete(); }", Width::Subgroup)
        .op("wide_yields", yields("wide_yields"), Width::Subgroup)
        .build()?)
}

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    if let Some(reason) = unfit(run)? {
        run.skip(Variant::ours("taskring, all kinds at once"), reason);
        return Ok(());
    }
    submission_each(run, |count, seconds| count / seconds)?;
    let capacity: u32 = if run.is_cpu() { run.size().pick(1 << 12, 1 << 13, 1 << 14) } else { 1 << 17 };
    let runtime = run.runtime_of(&program()?, RuntimeOptions { capacity, ..Default::default() })?;
    let (gate, mut tally) = (Gate::new(run.device(), &runtime)?, Tally::default());
    let rounds = calibrate(run, &runtime, SPINS, &gate, &mut tally)?;
    gate.set(true)?;
    // Its id says of which kind a task is.
    let kind = |(id, (op, yields)): (u32, (u32, u32))| match op {
        SPINS => Task::new(op).id(id).input(gate.input).param(rounds).item(),
        _ => Task::new(op).id(id).param(yields).item(),
    };
    let kinds: Vec<TaskWorkItem> = (0..).zip(KINDS).map(kind).collect();
    let each = capacity as usize / KINDS.len();
    let apart: Vec<Vec<TaskWorkItem>> = kinds.iter().map(|kind| vec![*kind; each]).collect();
    let together = vec![kinds.iter().copied().cycle().take(each * KINDS.len()).collect()];
    for (variant, parts) in [
        (Variant::alternative("taskring, one kind after another"), apart),
        (Variant::ours("taskring, all kinds at once"), together),
    ] {
        run.repeat(variant, || rate(&runtime, &parts, &mut tally))?;
    }
    Ok(())
}

/// Tasks a second; each part begins when the one before has ended.
fn rate(runtime: &Runtime, parts: &[Vec<TaskWorkItem>], tally: &mut Tally) -> Result<f64, Error> {
    let start = Instant::now();
    for part in parts {
        submit_all(runtime, part, tally)?;
        runtime.drain(LONGEST)?;
    }
    let took = start.elapsed();
    let mut ended = Vec::new();
    runtime.completions(&mut ended, usize::MAX, std::time::Duration::ZERO)?;
    tally.completed(&ended)?;
    settle(runtime, tally)?;
    let asked = |one: &Completion| KINDS.get(one.task_id as usize).map(|(_, yields)| *yields);
    if let Some(one) = ended.iter().find(|one| asked(one) != Some(one.yield_count)) {
        let what = format!("a task of kind {} yielded {} times, not {:?}", one.task_id, one.yield_count, asked(one));
        return Err(Error::Wrong { what });
    }
    Ok(ended.len() as f64 / took.as_secs_f64())
}
