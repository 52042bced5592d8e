//! How fast the device works off what is there.

use std::time::{Duration, Instant};

use taskring::{Device, Mode, Program, Runtime, RuntimeOptions, Task, TaskWorkItem, Width, vk};

use super::drain::{PRIORITIES, submit_all};
use super::load::Gate;
use super::ops::YIELDS;
use super::recorded::{INDEPENDENT, independent, records};
use super::{SUBMISSION_EACH, submission_each};
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Scenario, Tally, Unit, Variant, Warmer};

pub(super) const PREFILLED: Scenario = Scenario {
    name: "prefilled",
    meaning: "Very many tasks that do nothing, over all five priorities, from the launch of a slice until the last completion is in memory that the \
              host can read; what the host does before and after is not timed, and the device is kept busy with other tasks meanwhile, so that its clocks \
              are up. Either the tasks lie in the host's lines when the clock starts, and the \
              device takes them in meanwhile; or they are in the rings: the device has taken all of them in, each has yielded at least once, and \
              ends when it sees a word that the host wrote.",
    unit: Unit::TasksPerSecond,
    alternatives: &[
        SUBMISSION_EACH,
        INDEPENDENT[0],
        INDEPENDENT[1],
        INDEPENDENT[2],
        "the ceiling: a kernel that writes as many records of 16 bytes, which taskring's completions are here, or of 32, and does nothing else",
    ],
    run: measure,
};

/// An op that ends at once.
const NOTHING: u32 = 0;
/// An op that yields until the first word of its input is not 0.
const GATED: u32 = 1;

fn program(width: Width) -> Result<Program, Error> {
    let gated = "Turn gated(TaskWorkItem task) {
        if (buffer_load(task_input(task), 0u) == 0u) return task_yield(0u, 0u);
        return task_complete();
    }";
    let nothing = "Turn nothing(TaskWorkItem task) { return task_complete(); }";
    Ok(Program::builder().op("nothing", nothing, width).op("gated", gated, width).build()?)
}

/// For lanes and for subgroups, compiled side by side: each takes seconds.
fn programs() -> Result<[Program; 2], Error> {
    std::thread::scope(|scope| {
        let lane = scope.spawn(|| program(Width::Lane));
        let subgroup = program(Width::Subgroup);
        let lane = lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok([lane?, subgroup?])
    })
}

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    submission_each(run, |count, seconds| count / seconds)?;
    independent(run, |count, seconds| count / seconds)?;
    // Tasks at once, and how often: more shards have room where there are fewer at once.
    let shapes: &[(u32, u32)] = match run.is_cpu() {
        true => run.size().pick(&[(1 << 13, 1)], &[(1 << 16, 1)], &[(1 << 18, 1)]),
        false => run.size().pick(&[(1 << 20, 1)], &[(1 << 24, 1)], &[(1 << 24, 1), (1 << 22, 4)]),
    };
    let all = shapes.iter().map(|(count, fills)| count * fills).max().unwrap_or(0);
    records(run, all, 16)?;
    records(run, all, 32)?;
    let warmer = Warmer::new(run.device(), run.program, Task::new(YIELDS).param(u32::MAX))?;
    let [lane, subgroup] = programs()?;
    for &(count, fills) in shapes {
        if shards_that_fit(run.device(), count, 1).is_none() {
            let reason = format!("they need {} MiB, more than half of the device's memory", bytes(count, 1) >> 20);
            run.skip(Variant::ours(format!("taskring, {count} tasks at once")), reason);
            continue;
        }
        shape(run, &warmer, &lane, Width::Lane, count, fills)?;
        shape(run, &warmer, &subgroup, Width::Subgroup, count, fills)?;
    }
    Ok(())
}

/// Measures so many tasks, so many times, on several grids.
fn shape(
    run: &mut Run<'_>,
    warmer: &Warmer,
    program: &Program,
    width: Width,
    count: u32,
    fills: u32,
) -> Result<(), Error> {
    let wide = width == Width::Subgroup;
    let what = if wide { "subgroup" } else { "lane" };
    let times = if fills == 1 { String::new() } else { format!("{fills} times ") };
    let name = format!("taskring, {times}{count} {what} tasks");
    let grids: &[Option<u32>] = match run.is_cpu() {
        true => &[None],
        false if wide => run.size().pick(&[Some(1_024)], &[Some(2_048)], &[None, Some(1_024), Some(2_048)]),
        false => run.size().pick(&[Some(1_024)], &[None, Some(2_048)], &[None, Some(1_024), Some(2_048)]),
    };
    for &workers in grids {
        let shards = workers.and_then(|workers| shards_that_fit(run.device(), count, (workers / 8).min(128)));
        let options = RuntimeOptions {
            capacity: count,
            workers,
            shards,
            mode: Mode::Boundary,
            launch_on_submit: false,
            // The smaller completions; the counts are not this scenario's.
            counts: false,
            // Bounds the slices in which tasks yield without end, too.
            turn_budget: Some(1 << 14),
            ..Default::default()
        };
        let grid = workers.map_or("the default grid".into(), |workers| format!("{workers} workers"));
        let grid = shards.map_or(grid.clone(), |shards| format!("{grid}, {shards} shards"));
        let runtime = run.runtime_of(program, options)?;
        let prefilled = Prefilled { runtime: &runtime, gate: Gate::new(run.device(), &runtime)?, warmer };
        let mut tally = Tally::default();
        let rate = |took: Duration| f64::from(count) * f64::from(fills) / took.as_secs_f64();
        run.repeat(Variant::ours(format!("{name}, in the rings, {grid}")), || {
            (0..fills).map(|_| prefilled.rings(count, &mut tally)).sum::<Result<Duration, Error>>().map(rate)
        })?;
        // How fast lines are taken in does not depend on the shards.
        if workers.is_none() && !wide {
            run.repeat(Variant::ours(format!("{name}, in the host's lines, {grid}")), || {
                (0..fills).map(|_| prefilled.lines(count, &mut tally)).sum::<Result<Duration, Error>>().map(rate)
            })?;
        }
    }
    Ok(())
}

/// Bytes of device memory of a runtime: what each task costs, and what each shard adds.
fn bytes(capacity: u32, shards: u32) -> u64 {
    u64::from(capacity) * (160 + 40 * u64::from(shards))
}

/// The most shards, up to `most`, with which a runtime takes no more than half of the device's largest heap; `None` if not even one fits.
pub(super) fn shards_that_fit(device: &Device, capacity: u32, most: u32) -> Option<u32> {
    let heaps = &device.facts().memory_heaps;
    let heaps = heaps.iter().filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let room = heaps.map(|heap| heap.bytes).max().unwrap_or(0) / 2;
    let fits = |shards: &u32| {
        // The kernel counts the rings' words in 32 bits, and SPIR-V takes an index for a signed number.
        let ring_words = 10 * u64::from(*shards) * u64::from(capacity);
        let one_buffer = 4 * ring_words <= device.facts().limits.max_buffer_bytes;
        bytes(capacity, *shards) <= room && ring_words <= 1 << 30 && one_buffer
    };
    (0..=most.max(1).ilog2()).rev().map(|log2| 1 << log2).find(fits)
}

/// A runtime, and what its tasks look at.
struct Prefilled<'a> {
    runtime: &'a Runtime,
    gate: Gate,
    warmer: &'a Warmer,
}

impl Prefilled<'_> {
    /// How long tasks take from the host's lines on.
    fn lines(&self, count: u32, tally: &mut Tally) -> Result<Duration, Error> {
        submit_all(self.runtime, &tasks(Task::new(NOTHING), count), tally)?;
        self.warmer.warm()?;
        self.work_off(tally)
    }

    /// How long tasks take from the rings on.
    fn rings(&self, count: u32, tally: &mut Tally) -> Result<Duration, Error> {
        self.gate.set(false)?;
        let before = self.runtime.stats().admitted;
        submit_all(self.runtime, &tasks(Task::new(GATED).input(self.gate.input), count), tally)?;
        let (began, all) = (Instant::now(), before + u64::from(count));
        while self.runtime.stats().admitted < all {
            self.runtime.run_slice(LONGEST)?;
            if began.elapsed() > LONGEST {
                let admitted = self.runtime.stats().admitted - before;
                return Err(Error::Wrong {
                    what: format!("of {count} tasks {admitted} are in the rings after {LONGEST:?}"),
                });
            }
        }
        self.warmer.warm()?;
        self.gate.set(true)?;
        self.work_off(tally)
    }

    /// Launches slices until all is done, and times them: the host's part in between is its own.
    fn work_off(&self, tally: &mut Tally) -> Result<Duration, Error> {
        let (runtime, mut took) = (self.runtime, Duration::ZERO);
        loop {
            let start = Instant::now();
            if !runtime.poll()? {
                break;
            }
            let (progress, value) = (runtime.progress(), runtime.progress_value());
            if runtime.device().is_cpu() {
                // It would be polled with the cycles that it needs itself.
                progress.wait(value, LONGEST)?;
            }
            while progress.value()? < value && start.elapsed() < LONGEST {
                std::hint::spin_loop();
            }
            took += start.elapsed();
            // Takes over what has ended, and launches nothing.
            let handle = runtime.register_buffer(0, &self.gate.word, 0..256)?;
            runtime.unregister_buffer(handle, LONGEST)?;
        }
        settle(runtime, tally)?;
        Ok(took)
    }
}

fn tasks(task: Task, count: u32) -> Vec<TaskWorkItem> {
    PRIORITIES.iter().map(|priority| task.priority(*priority).item()).cycle().take(count as usize).collect()
}
