//! How soon an urgent task is back from a busy device.

use std::time::{Duration, Instant};

use taskring::{Runtime, Task, TaskPriority};

use super::load::{Gate, Load, NOTHING, ROUND, TURN, options, program, rounds_of_a_turn, workers};
use crate::kernel::Kernel;
use crate::run::LONGEST;
use crate::{Error, On, Run, Scenario, Submissions, Tally, Unit, Variant};

pub(super) const PRIORITY_UNDER_LOAD: Scenario = Scenario {
    name: "priority_under_load",
    meaning: "A Critical task that does nothing, from its submission until its completion is seen, while Low tasks keep the device busy: a lane each, \
              turns of about 10 µs, after each of which they yield. Load is how many there are, in percent of the lanes.",
    unit: Unit::Micros,
    alternatives: &[
        "one vkQueueSubmit of an empty dispatch behind 4 dispatches of as many lanes and about 10 µs, polled: a queue's order is fixed",
        "the same on the device's other queue, beside 64 such dispatches",
    ],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let program = program()?;
    let Some(rounds) = rounds_of_a_turn(run, program)? else { return Ok(()) };
    dispatches(run, "one vkQueueSubmit behind 4 dispatches", On::Slices, 4, rounds)?;
    let other = "one vkQueueSubmit on the other queue, beside 64 dispatches";
    if run.device().other_queue_family().is_some() {
        dispatches(run, other, On::OtherQueue, 64, rounds)?;
    } else {
        run.skip(Variant::alternative(other), "the device has one queue");
    }

    // The highest load first: it is what the scenario is about.
    let loads: &[u32] =
        run.size().pick(&[200, 100, 50, 0], &[200, 100, 50, 25, 0], &[200, 150, 100, 75, 50, 25, 12, 0]);
    for &percent in loads {
        let runtime = run.runtime_of(program, options(run))?;
        let (gate, mut tally) = (Gate::new(run.device(), &runtime)?, Tally::default());
        let lanes = workers(run) * run.device().plan().subgroup_size;
        let count = lanes * percent / 100;
        let load = Load::start(&runtime, &gate, TaskPriority::Low, rounds, count, &mut tally)?;
        let variant = Variant::ours(format!("taskring, {count} Low tasks, {percent} % of the lanes"));
        let variant = variant.at("the load in percent", percent.into());
        let measured = run.latency(variant, || critical(&runtime, &mut tally));
        load.end(&mut tally)?;
        measured?;
    }
    Ok(())
}

/// Submits a Critical task and waits for it.
fn critical(runtime: &Runtime, tally: &mut Tally) -> Result<Duration, Error> {
    let start = Instant::now();
    let completion = runtime.submit(Task::new(NOTHING).priority(TaskPriority::Critical))?.wait(LONGEST)?;
    let took = start.elapsed();
    tally.submitted(1);
    tally.completed(&[completion])?;
    Ok(took)
}

/// An empty dispatch while others compute that were submitted before.
fn dispatches(run: &mut Run<'_>, name: &str, on: On, ahead: u32, rounds: u32) -> Result<(), Error> {
    let (groups, lanes) = (workers(run), run.device().plan().subgroup_size);
    let source = format!(
        "#version 460
        layout(local_size_x = {lanes}) in;
        layout(push_constant, std430) uniform Push {{ uint rounds; uint never; }} push;
        shared uint seen;
        void main() {{
            uint x = gl_GlobalInvocationID.x + 1u;
            for (uint i = 0u; i < push.rounds; ++i) {{ {ROUND} }}
            if (x == push.never) seen = x;
        }}"
    );
    let mut push = [0; 8];
    push[..4].copy_from_slice(&rounds.to_le_bytes());
    let kernel = Kernel::new(run.device(), &source, 8)?;
    let mut low = Submissions::recorded(kernel, Vec::new(), On::Slices, |kernel, commands| {
        // SAFETY: the command buffer is being recorded, and the kernel was made for 8 bytes.
        unsafe { kernel.bind(commands, &push) };
        // SAFETY: the pipeline is bound, and uses nothing else.
        unsafe { kernel.device().raw().cmd_dispatch(commands, groups, 1, 1) };
    })?;
    let mut urgent = Submissions::new(run.device(), on)?;
    let variant = Variant::alternative(format!("{name} of {} µs", TURN.as_micros()));
    run.latency(variant, || {
        for _ in 0..ahead {
            low.submit()?;
        }
        let start = Instant::now();
        urgent.submit()?;
        urgent.poll()?;
        let took = start.elapsed();
        low.poll()?;
        Ok(took)
    })
}
