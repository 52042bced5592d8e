//! How often something less urgent is claimed first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use taskring::{Runtime, RuntimeOptions, Task, TaskPriority, TraceRecord};

use super::drain::submit_all;
use super::load::{Gate, Load, NOTHING, SPINS, calibrate, options, program, unfit, workers};
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
/// As often the slice is made shorter, if it recorded more.
const ATTEMPTS: u32 = 8;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    if let Some(reason) = unfit(run)? {
        run.skip(Variant::ours("taskring"), reason);
        return Ok(());
    }
    let program = program()?;
    let runtime = run.runtime_of(&program, options(run))?;
    let (gate, mut tally) = (Gate::new(run.device(), &runtime)?, Tally::default());
    let rounds = calibrate(run, &runtime, SPINS, &gate, &mut tally)?;
    drop(runtime);
    for (variant, shards) in
        [(Variant::alternative("one shard"), Some(1)), (Variant::ours("taskring, the default number of shards"), None)]
    {
        let mut options = RuntimeOptions {
            shards,
            trace_capacity: if run.is_cpu() { RECORDS >> 5 } else { RECORDS },
            slice_time: Duration::from_millis(if run.is_cpu() { 50 } else { 5 }),
            ..options(run)
        };
        let mut rates = Vec::new();
        for attempt in 1.. {
            let runtime = run.runtime_of(&program, options.clone())?;
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
            options.slice_time /= 2;
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
    let (gate, mut tally) = (Gate::new(run.device(), runtime)?, Tally::default());
    let critical = [Task::new(NOTHING).priority(TaskPriority::Critical).item()];
    let wanted: u64 = run.size().pick(200, 1_000, 4_000);
    let lanes = workers(run) * run.device().plan().subgroup_size;
    let load = Load::start(runtime, &gate, TaskPriority::Low, rounds, 2 * lanes, &mut tally)?;
    let mut judge = Judge::new(runtime.options().aging_ticks);
    let mut next = Instant::now();
    for _ in 0..wanted {
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        submit_all(runtime, &critical, &mut tally)?;
        // After a slice the trace is read, which takes a while: what was to be submitted meanwhile does not come at once.
        next = Instant::now().max(next) + BETWEEN;
        judge.hear(runtime.take_trace());
    }
    load.end(&mut tally)?;
    // Ends the slice, which tells its trace.
    runtime.snapshot(LONGEST)?;
    judge.hear(runtime.take_trace());
    judge.hear(Vec::new());
    if runtime.stats().untraced == 0 && judge.claims != wanted {
        return Err(Error::Wrong { what: format!("of {wanted} Critical tasks the trace has {}", judge.claims) });
    }
    Ok(judge.inversions as f64 / judge.claims.max(1) as f64)
}

/// Judges slice by slice: a task that was enqueued in one may have been claimed in the next.
struct Judge {
    aging_ticks: i64,
    before: Vec<TraceRecord>,
    claims: u64,
    inversions: u64,
}

impl Judge {
    fn new(aging_ticks: u32) -> Self {
        Self { aging_ticks: aging_ticks.into(), before: Vec::new(), claims: 0, inversions: 0 }
    }

    /// The turns of a slice.
    fn hear(&mut self, turns: Vec<TraceRecord>) {
        if turns.is_empty() {
            return;
        }
        let mut waits: Vec<&TraceRecord> = turns.iter().filter(|turn| turn.op_handle == NOTHING).collect();
        self.claims += waits.len() as u64;
        if let Some(zero) = waits.first().map(|turn| turn.claimed) {
            // Ticks wrap; those of two slices are near one another.
            let ticks = |tick: u32| i64::from(tick.wrapping_sub(zero).cast_signed());
            waits.sort_by_key(|turn| ticks(turn.claimed));
            let longest = waits.iter().map(|turn| ticks(turn.claimed) - ticks(turn.enqueued)).max().unwrap_or(0);
            // Of each claim that was made while a Critical task waited, the most urgent of its tasks: it is the one that was chosen.
            let mut claims: HashMap<(usize, u32, u32), i64> = HashMap::new();
            for turn in self.before.iter().chain(&turns).filter(|turn| turn.op_handle != NOTHING) {
                let at = ticks(turn.claimed);
                let from = waits.partition_point(|wait| ticks(wait.claimed) <= at);
                let near = waits[from..].iter().enumerate().take_while(|(_, wait)| ticks(wait.claimed) - longest < at);
                for (n, wait) in near.filter(|(_, wait)| ticks(wait.enqueued) < at) {
                    let less =
                        self.urgency(turn, at - ticks(turn.enqueued)) - self.urgency(wait, at - ticks(wait.enqueued));
                    let least = claims.entry((from + n, turn.worker, turn.claimed)).or_insert(less);
                    *least = less.min(*least);
                }
            }
            self.inversions += claims.values().filter(|less| **less > 0).count() as u64;
        }
        self.before = turns;
    }

    /// As the kernel has it: less is more urgent.
    fn urgency(&self, turn: &TraceRecord, age: i64) -> i64 {
        i64::from(turn.priority) * self.aging_ticks - age.max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(op_handle: u32, priority: u32, worker: u32, enqueued: u32, claimed: u32) -> TraceRecord {
        TraceRecord { op_handle, priority, worker, enqueued, claimed, ..TraceRecord::default() }
    }

    fn inversions(slices: &[&[TraceRecord]]) -> (u64, u64) {
        let mut judge = Judge::new(100);
        slices.iter().for_each(|slice| judge.hear(slice.to_vec()));
        (judge.inversions, judge.claims)
    }

    #[test]
    fn a_claim_of_something_less_urgent_counts_once_however_many_tasks_it_took() {
        let critical = turn(NOTHING, 0, 0, 10, 20);
        let batch = [turn(SPINS, 3, 1, 5, 15), turn(SPINS, 3, 1, 6, 15)];
        assert_eq!(inversions(&[&[critical, batch[0], batch[1]]]), (1, 1));
        let later = turn(SPINS, 3, 2, 5, 21);
        let earlier = turn(SPINS, 3, 2, 5, 10);
        assert_eq!(inversions(&[&[critical, later, earlier]]), (0, 1), "nothing while it waited");
    }

    #[test]
    fn a_low_task_that_is_old_enough_is_the_more_urgent_one() {
        let critical = turn(NOTHING, 0, 0, 990, 1_000);
        let (old, young) = (turn(SPINS, 3, 1, 600, 995), turn(SPINS, 3, 1, 700, 995));
        assert_eq!(inversions(&[&[critical, old]]), (0, 1));
        assert_eq!(inversions(&[&[critical, young]]), (1, 1));
        assert_eq!(inversions(&[&[critical, young, old]]), (0, 1), "the oldest of a batch was chosen");
    }

    #[test]
    fn a_wait_that_began_in_the_slice_before_counts_over_a_wrap_of_the_ticks_too() {
        let before = [turn(SPINS, 3, 1, u32::MAX - 20, u32::MAX - 1)];
        let after = [turn(SPINS, 3, 1, 0, 3), turn(NOTHING, 0, 0, u32::MAX - 5, 7)];
        assert_eq!(inversions(&[&before, &after]), (2, 1));
    }
}
