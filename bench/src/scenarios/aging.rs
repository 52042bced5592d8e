//! How long the least urgent task waits, at the most.

use taskring::{RuntimeOptions, Task, TaskPriority};

use super::load::{AGING_TICKS, Gate, Load, NOTHING, options, program, workers};
use crate::run::LONGEST;
use crate::{Error, Run, Samples, Scenario, Spread, Tally, Unit, Variant};

pub(super) const AGING: Scenario = Scenario {
    name: "aging",
    meaning: "Idle tasks, one after another, while twice as many Critical tasks as there are lanes yield without end, in rings of one shard: the ticks \
              that the one waited that waited longest. A tick is a claim of a task. More than the bound would be a wrong result.",
    unit: Unit::Ticks,
    alternatives: &["the bound that is promised: 4 * aging_ticks + capacity + 32 * batch * workers"],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let program = program()?;
    let (workers, batch) = (workers(run), run.device().plan().subgroup_size);
    let samples = run.size().pick(20, 100, 1_000);
    for aging_ticks in [AGING_TICKS, 64] {
        let options = RuntimeOptions { aging_ticks: Some(aging_ticks), shards: Some(1), ..options(run) };
        let bound = 4 * aging_ticks + options.capacity + 32 * batch * workers;
        let bound_known = Spread::of(&[f64::from(bound)]);
        if let Some(bound) = bound_known {
            let variant = Variant::alternative(format!("the bound, aging_ticks {aging_ticks}"));
            run.note(variant, Samples::Repeated(bound));
        }
        let runtime = run.runtime_of(program, options)?;
        let (gate, mut tally) = (Gate::new(run.device(), &runtime)?, Tally::default());
        let load = Load::start(&runtime, &gate, TaskPriority::Critical, 0, 2 * batch * workers, &mut tally)?;
        let variant = Variant::ours(format!("taskring, aging_ticks {aging_ticks}"));
        let measured = run.repeat(variant, || {
            let mut longest = 0;
            for _ in 0..samples {
                let idle = Task::new(NOTHING).priority(TaskPriority::Idle);
                let completion = runtime.submit(idle)?.wait(LONGEST)?;
                tally.submitted(1);
                tally.completed(&[completion])?;
                longest = longest.max(completion.age_ticks);
            }
            if longest > bound {
                let what = format!("an Idle task waited {longest} ticks, more than the bound of {bound}");
                return Err(Error::Wrong { what });
            }
            Ok(longest.into())
        });
        load.end(&mut tally)?;
        measured?;
    }
    Ok(())
}
