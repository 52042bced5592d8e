//! A load that changes, under the launch policy and under fixed settings.

use std::time::{Duration, Instant};

use taskring::{BackendError, Program, Runtime, RuntimeOptions, Task, TaskHandle, TaskWorkItem, TimelineId, Width};

use super::drain::submit_all;
use super::load::{ROUND, unfit};
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const PHASES: Scenario = Scenario {
    name: "phases",
    meaning: "Bursts of tasks of a lane each that compute and give way a few times; then few long tasks of a subgroup each; then many that wait, of which one is resumed now and then. How long each phase takes by itself, and all of them in turn, without the pauses that belong to them.",
    unit: Unit::Micros,
    alternatives: &["the same, each slice with a fixed number of workers and up to 100 ms long"],
    run: measure,
};

const SHORT: u32 = 0;
const LONG: u32 = 1;
/// Between two bursts, and between two signals: slices have left the device by then.
const PAUSE: Duration = Duration::from_millis(1);

/// How much there is to do.
#[derive(Clone, Copy)]
struct Load {
    bursts: u32,
    burst: u32,
    yields: u32,
    /// Of arithmetic, in each of their turns: so many that a burst is to keep the usual grid longer than the host takes to hand it over, or no
    /// setting would matter.
    rounds: u32,
    /// Of a subgroup each.
    long: u32,
    turns: u32,
    waiting: u32,
    signals: u32,
}

const ON_GPU: Load = Load {
    bursts: 8,
    burst: 1 << 16,
    yields: 8,
    rounds: 1 << 13,
    long: 16,
    turns: 1_000,
    waiting: 50_000,
    signals: 100,
};
const ON_CPU: Load =
    Load { bursts: 2, burst: 1 << 10, yields: 4, rounds: 1 << 4, long: 4, turns: 32, waiting: 500, signals: 5 };

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    if let Some(reason) = unfit(run)? {
        run.skip(Variant::ours("the policy"), reason);
        return Ok(());
    }
    let load = if run.is_cpu() { ON_CPU } else { ON_GPU };
    let program = program(load.rounds)?;
    let fixed: &[u32] =
        if run.is_cpu() { &[1, 2] } else { run.size().pick(&[256], &[32, 256, 1024], &[32, 256, 1024]) };
    let settings = fixed.iter().map(|workers| {
        let (workers, slice_time, linger) = (Some(*workers), Some(Duration::from_millis(100)), Some(LINGER));
        RuntimeOptions { workers, slice_time, linger, ..Default::default() }
    });
    let settings: Vec<RuntimeOptions> = settings.chain([RuntimeOptions::default()]).collect();
    let named = |phase: &str| -> Vec<Variant> {
        let name = |options: &RuntimeOptions| match options.workers {
            Some(workers) => Variant::alternative(format!("{phase}, {workers} workers")),
            None => Variant::ours(format!("{phase}, the policy")),
        };
        settings.iter().map(name).collect()
    };
    let capacity = (load.burst.max(load.waiting) * 2).next_power_of_two();
    let player =
        |options: &RuntimeOptions| Player::new(run, &program, load, RuntimeOptions { capacity, ..options.clone() });
    let mut players = settings.iter().map(player).collect::<Result<Vec<_>, Error>>()?;
    run.repeat_in_turn(named("bursts"), |which| micros(players[which].bursts()))?;
    run.repeat_in_turn(named("long tasks"), |which| micros(players[which].long()))?;
    run.repeat_in_turn(named("waiting"), |which| micros(players[which].waiting()))?;
    run.repeat_in_turn(named("all three"), |which| {
        let player = &mut players[which];
        micros(Ok(player.bursts()? + player.long()? + player.waiting()?))
    })
}

/// What the policy chooses at most, too.
const LINGER: Duration = Duration::from_micros(500);

fn micros(took: Result<Duration, Error>) -> Result<f64, Error> {
    Ok(took?.as_secs_f64() * 1e6)
}

fn program(rounds: u32) -> Result<Program, BackendError> {
    // So that no compiler leaves it out, the next turn goes on with what this one has computed.
    let op = |name: &str, rounds: u32| {
        format!(
            "Turn {name}(TaskWorkItem task) {{
                uint x = task.continuation_data + task.task_id + 1u;
                for (uint i = 0u; i < {rounds}u; ++i) {{ {ROUND} }}
                if (task.continuation_pc < task.param) return task_yield(task.continuation_pc + 1u, x);
                return task_complete();
            }}"
        )
    };
    Program::builder()
        .op("phases_short", op("phases_short", rounds), Width::Lane)
        .op("phases_long", op("phases_long", 1 << 8), Width::Subgroup)
        .build()
}

/// A runtime, and what it has to do.
struct Player {
    runtime: Runtime,
    load: Load,
    timeline: TimelineId,
    epoch: u64,
    tally: Tally,
}

impl Player {
    fn new(run: &Run<'_>, program: &Program, load: Load, options: RuntimeOptions) -> Result<Self, Error> {
        let runtime = Runtime::new(run.device(), program, options)?;
        let timeline = runtime.create_timeline()?;
        Ok(Self { runtime, load, timeline, epoch: 0, tally: Tally::default() })
    }

    fn bursts(&mut self) -> Result<Duration, Error> {
        let burst: Vec<TaskWorkItem> = vec![Task::new(SHORT).param(self.load.yields).item(); self.load.burst as usize];
        let mut took = Duration::ZERO;
        for _ in 0..self.load.bursts {
            std::thread::sleep(PAUSE);
            took += self.all_of(&burst)?;
        }
        Ok(took)
    }

    fn long(&mut self) -> Result<Duration, Error> {
        std::thread::sleep(PAUSE);
        let tasks: Vec<TaskWorkItem> = vec![Task::new(LONG).param(self.load.turns).item(); self.load.long as usize];
        self.all_of(&tasks)
    }

    /// From the first submission to the last end.
    fn all_of(&mut self, tasks: &[TaskWorkItem]) -> Result<Duration, Error> {
        let start = Instant::now();
        submit_all(&self.runtime, tasks, &mut self.tally)?;
        self.runtime.drain(LONGEST)?;
        let took = start.elapsed();
        settle(&self.runtime, &mut self.tally)?;
        Ok(took)
    }

    /// From each signal until the task that it resumes has ended.
    fn waiting(&mut self) -> Result<Duration, Error> {
        let last = self.epoch + u64::from(self.load.signals) + 1;
        // Tasks name epochs by their last 32 bits.
        let until = |epoch: u64| Task::new(SHORT).paused_until(self.timeline, epoch as u32);
        let crowd = vec![until(last).item(); self.load.waiting as usize];
        let resumed: Result<Vec<TaskHandle>, _> =
            (self.epoch + 1..last).map(|epoch| self.runtime.submit(until(epoch))).collect();
        self.tally.submitted(self.load.signals as usize);
        submit_all(&self.runtime, &crowd, &mut self.tally)?;
        let mut took = Duration::ZERO;
        for mut task in resumed? {
            std::thread::sleep(PAUSE);
            self.epoch += 1;
            let start = Instant::now();
            self.runtime.signal(self.timeline, self.epoch)?;
            let completion = task.wait(LONGEST)?;
            took += start.elapsed();
            self.tally.completed(&[completion])?;
        }
        self.epoch = last;
        self.runtime.signal(self.timeline, last)?;
        settle(&self.runtime, &mut self.tally)?;
        Ok(took)
    }
}
