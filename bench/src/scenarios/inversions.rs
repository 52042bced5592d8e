//! How often something less urgent is claimed first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use taskring::{Runtime, RuntimeOptions, Task, TaskPriority, TraceRecord};

use super::drain::submit_all;
use super::load::{AGING_TICKS, Gate, Load, NOTHING, options, program, rounds_of_a_turn, workers};
use crate::run::LONGEST;
use crate::{Error, Run, Samples, Scenario, Spread, Tally, Unit, Variant};

pub(super) const INVERSIONS: Scenario = Scenario {
    name: "inversions",
    meaning: "Ten Critical tasks a millisecond, while twice as many Low tasks as there are lanes take turns of about 10 µs, as in priority_under_load. \
              Afterwards the trace is judged: how many claims were made of less urgent tasks, age counted, from when a Critical task was enqueued \
              until it was claimed. A claim is what a worker takes at once. The stamps are the device's ticks; the first is read before the task's \
              entry is written, so this counts some claims that nobody could have made otherwise.",
    unit: Unit::Inversions,
    alternatives: &["the same with rings of one shard, where every worker looks at every ring"],
    run: measure,
};

/// Time between two Critical tasks.
const BETWEEN: Duration = Duration::from_micros(100);
/// Records of one slice: what it does not hold would be missing in the judgement.
const RECORDS: u32 = 1 << 23;
/// Critical tasks that come into one load.
const AT_ONCE: u64 = 100;
/// As often the slice is made shorter, if it recorded more.
const ATTEMPTS: u32 = 8;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let program = program()?;
    let Some(rounds) = rounds_of_a_turn(run, program)? else { return Ok(()) };
    for (variant, shards) in
        [(Variant::alternative("one shard"), Some(1)), (Variant::ours("taskring, the default number of shards"), None)]
    {
        let mut slice_time = Duration::from_millis(if run.is_cpu() { 50 } else { 5 });
        let options = RuntimeOptions {
            shards,
            aging_ticks: Some(AGING_TICKS),
            trace_capacity: if run.is_cpu() { RECORDS >> 5 } else { RECORDS },
            ..options(run)
        };
        let mut rates = Vec::new();
        for attempt in 1.. {
            let options = RuntimeOptions { slice_time: Some(slice_time), ..options.clone() };
            let runtime = run.runtime_of(program, options)?;
            for _ in 0..run.size().pick(1, 3, 5) {
                run.go_on()?;
                rates.push(judged(run, &runtime, rounds)?);
            }
            let untraced = runtime.stats().untraced;
            if untraced == 0 {
                break;
            }
            if attempt == ATTEMPTS {
                return Err(Error::Wrong { what: format!("the trace had no room for {untraced} turns") });
            }
            slice_time /= 2;
            rates.clear();
        }
        if let Some(rates) = Spread::of(&rates) {
            run.note(variant, Samples::Repeated(rates));
        }
    }
    Ok(())
}

/// Inversions for each Critical claim, of a few hundred or thousand.
fn judged(run: &Run<'_>, runtime: &Runtime, rounds: u32) -> Result<f64, Error> {
    let (mut claims, mut inverted) = (0, 0);
    for _ in 0..run.size().pick(2, 10, 40) {
        // Judging takes longer than recording, so the load ends before.
        let turns = recorded(run, runtime, rounds)?;
        let (more, of) = inversions(&turns, AGING_TICKS);
        if runtime.stats().untraced == 0 && of != AT_ONCE {
            return Err(Error::Wrong { what: format!("of {AT_ONCE} Critical tasks the trace has {of}") });
        }
        (claims, inverted) = (claims + of, inverted + more);
    }
    Ok(inverted as f64 / claims.max(1) as f64)
}

/// All turns while Critical tasks come into the load.
fn recorded(run: &Run<'_>, runtime: &Runtime, rounds: u32) -> Result<Vec<TraceRecord>, Error> {
    let (gate, mut tally) = (Gate::new(run.device(), runtime)?, Tally::default());
    let critical = [Task::new(NOTHING).priority(TaskPriority::Critical).item()];
    let lanes = workers(run) * run.device().plan().subgroup_size;
    let load = Load::start(runtime, &gate, TaskPriority::Low, rounds, 2 * lanes, &mut tally)?;
    let mut next = Instant::now();
    for _ in 0..AT_ONCE {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        submit_all(runtime, &critical, &mut tally)?;
        // After a slice the trace is read, which takes a while: what was to be submitted meanwhile does not come at once.
        next = Instant::now().max(next) + BETWEEN;
    }
    load.end(&mut tally)?;
    // Ends the slice, which tells its trace.
    runtime.snapshot(LONGEST)?;
    Ok(runtime.take_trace())
}

/// How many claims were made of something less urgent while a Critical task waited, and of how many Critical tasks.
fn inversions(turns: &[TraceRecord], aging_ticks: u32) -> (u64, u64) {
    let mut waits: Vec<&TraceRecord> = turns.iter().filter(|turn| turn.op_handle == NOTHING).collect();
    let Some(zero) = waits.first().map(|turn| turn.claimed) else { return (0, 0) };
    // Ticks wrap; those of one trace are near one another.
    let ticks = |tick: u32| i64::from(tick.wrapping_sub(zero).cast_signed());
    waits.sort_by_key(|turn| ticks(turn.claimed));
    let longest = waits.iter().map(|turn| ticks(turn.claimed) - ticks(turn.enqueued)).max().unwrap_or(0);
    // As the kernel has it: less is more urgent.
    let urgency = |turn: &TraceRecord, at: i64| {
        i64::from(turn.priority) * i64::from(aging_ticks) - (at - ticks(turn.enqueued)).max(0)
    };
    // Of each claim that was made while a Critical task waited, the most urgent of its tasks: it is the one that was chosen.
    let mut claims: HashMap<(usize, u32, u32), i64> = HashMap::new();
    for turn in turns.iter().filter(|turn| turn.op_handle != NOTHING) {
        let at = ticks(turn.claimed);
        let from = waits.partition_point(|wait| ticks(wait.claimed) <= at);
        let near = waits[from..].iter().enumerate().take_while(|(_, wait)| ticks(wait.claimed) - longest < at);
        for (n, wait) in near.filter(|(_, wait)| ticks(wait.enqueued) < at) {
            let less = urgency(turn, at) - urgency(wait, at);
            let least = claims.entry((from + n, turn.worker, turn.claimed)).or_insert(less);
            *least = less.min(*least);
        }
    }
    (claims.values().filter(|less| **less > 0).count() as u64, waits.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::load::SPINS;
    use super::*;

    fn turn(op_handle: u32, priority: u32, worker: u32, enqueued: u32, claimed: u32) -> TraceRecord {
        TraceRecord { op_handle, priority, worker, enqueued, claimed, ..TraceRecord::default() }
    }

    fn judged(turns: &[TraceRecord]) -> (u64, u64) {
        inversions(turns, 100)
    }

    #[test]
    fn a_claim_of_something_less_urgent_counts_once_however_many_tasks_it_took() {
        let critical = turn(NOTHING, 0, 0, 10, 20);
        let batch = [turn(SPINS, 3, 1, 5, 15), turn(SPINS, 3, 1, 6, 15)];
        assert_eq!(judged(&[critical, batch[0], batch[1]]), (1, 1));
        let later = turn(SPINS, 3, 2, 5, 21);
        let earlier = turn(SPINS, 3, 2, 5, 10);
        assert_eq!(judged(&[critical, later, earlier]), (0, 1), "nothing while it waited");
    }

    #[test]
    fn a_low_task_that_is_old_enough_is_the_more_urgent_one() {
        let critical = turn(NOTHING, 0, 0, 990, 1_000);
        let (old, young) = (turn(SPINS, 3, 1, 600, 995), turn(SPINS, 3, 1, 700, 995));
        assert_eq!(judged(&[critical, old]), (0, 1));
        assert_eq!(judged(&[critical, young]), (1, 1));
        assert_eq!(judged(&[critical, young, old]), (0, 1), "the oldest of a batch was chosen");
    }

    #[test]
    fn a_wait_counts_over_a_wrap_of_the_ticks_too() {
        let before = turn(SPINS, 3, 1, u32::MAX - 20, u32::MAX - 1);
        let after = turn(SPINS, 3, 1, 0, 3);
        assert_eq!(judged(&[before, after, turn(NOTHING, 0, 0, u32::MAX - 5, 7)]), (2, 1));
    }
}
