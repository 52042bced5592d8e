//! Work that keeps the device busy, for the scenarios that look at what else goes on.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use taskring::device::{Loops, Probe};
use taskring::{
    Buffer, BufferDesc, BufferHandle, Device, MemoryKind, Program, Runtime, RuntimeOptions, Task, TaskPriority,
    TaskWorkItem, Width, vk,
};

use super::drain::submit_all;
use crate::run::{LONGEST, settle};
use crate::{Error, Run, Tally, Variant};

/// An op that ends at once.
pub(super) const NOTHING: u32 = 0;
/// An op that computes for as many rounds as its parameter says, and then yields until the first word of its input is not 0.
pub(super) const SPINS: u32 = 1;

/// How long a turn of [`SPINS`] takes, once it is calibrated.
pub(super) const TURN: Duration = Duration::from_micros(10);

/// Ticks that weigh as much as one step of priority, where the number matters: the most that the policy would choose.
pub(super) const AGING_TICKS: u32 = 4_096;

/// The arithmetic of [`SPINS`]: `x` is never 0 for a seed that is not, which no compiler knows.
pub(super) const ROUND: &str = "x ^= x << 13u; x ^= x >> 17u; x ^= x << 5u;";
/// Long beside what it costs to submit and to hear of the end.
const LONG_BATCH: Duration = Duration::from_millis(2);
/// The most rounds of a turn. On any device they take less than a second.
const MOST_ROUNDS: u32 = 1 << 22;

/// The source of [`SPINS`].
pub(super) fn spins() -> String {
    format!(
        "Turn spins(TaskWorkItem task) {{
            uint x = task.continuation_data + task.task_id + 1u;
            for (uint i = 0u; i < task.param; ++i) {{ {ROUND} }}
            if (x != 0u && buffer_load(task_input(task), 0u) != 0u) return task_complete();
            return task_yield(task.continuation_pc + 1u, x);
        }}"
    )
}

/// Why turns of [`SPINS`] cannot be measured on this device, if they cannot: a driver that ends loops cuts such turns, and so faults their tasks.
pub(super) fn unfit(run: &Run<'_>) -> Result<Option<String>, Error> {
    Ok(match &run.device().self_test()?.loops {
        Probe::Measured(Loops { turns, cut: true }) => {
            Some(format!("the driver ends loops after {turns} turns, and would cut tasks that compute"))
        }
        _ => None,
    })
}

/// The program of both, compiled once for all scenarios: it takes seconds.
pub(super) fn program() -> Result<&'static Program, Error> {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program);
    }
    let nothing = "Turn nothing(TaskWorkItem task) { return task_complete(); }";
    let program = Program::builder().op("nothing", nothing, Width::Lane).op("spins", spins(), Width::Lane).build()?;
    Ok(PROGRAM.get_or_init(|| program))
}

/// The grid of the scenarios with load: the default one, in numbers.
pub(super) fn workers(run: &Run<'_>) -> u32 {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32);
    if run.is_cpu() { cores } else { 256 }
}

/// Options for that grid, with room for twice as many tasks as it has lanes, and more.
pub(super) fn options(run: &Run<'_>) -> RuntimeOptions {
    let workers = workers(run);
    let lanes = workers * run.device().plan().subgroup_size;
    RuntimeOptions {
        capacity: (4 * lanes).next_power_of_two().max(1 << 10),
        workers: Some(workers),
        ..Default::default()
    }
}

/// What opens and closes for the tasks of [`SPINS`].
pub(super) struct Gate {
    pub(super) word: Arc<Buffer>,
    pub(super) input: BufferHandle,
}

impl Gate {
    /// Closed.
    pub(super) fn new(device: &Device, runtime: &Runtime) -> Result<Self, Error> {
        let (name, usage) = ("gate", vk::BufferUsageFlags::empty());
        let word = Arc::new(device.allocate(BufferDesc {
            name,
            bytes: 256,
            kind: MemoryKind::Mailbox,
            usage,
            shared: false,
        })?);
        let input = runtime.register_buffer(0, &word, 0..256)?;
        Ok(Self { word, input })
    }

    /// A running slice sees it in its tasks' next turns where it hears the host at all, and the next slice in any case.
    pub(super) fn set(&self, open: bool) -> Result<(), Error> {
        let mapped = self.word.mapped().ok_or_else(|| Error::Wrong { what: "the gate is not mapped".into() })?;
        mapped.store(0, open.into(), Relaxed)?;
        taskring::device::store_fence();
        Ok(())
    }
}

/// Finds how many rounds of the op with this handle, which is [`SPINS`], take [`TURN`], from one batch of so many rounds that submitting it is nothing
/// beside them. For as long as clocks take to rise, the last finding counts.
pub(super) fn calibrate(
    run: &Run<'_>,
    runtime: &Runtime,
    op: u32,
    gate: &Gate,
    tally: &mut Tally,
) -> Result<u32, Error> {
    gate.set(true)?;
    let lanes = run.device().plan().subgroup_size;
    let mut took = |rounds: u32| {
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let tasks = vec![Task::new(op).input(gate.input).param(rounds).item(); lanes as usize];
            let start = Instant::now();
            submit_all(runtime, &tasks, tally)?;
            runtime.drain(LONGEST)?;
            shortest = shortest.min(start.elapsed());
            settle(runtime, tally)?;
        }
        Ok::<_, Error>(shortest)
    };
    let (began, mut rounds) = (Instant::now(), 1 << 10);
    loop {
        let all = took(rounds)?;
        if all < LONG_BATCH && rounds < MOST_ROUNDS {
            rounds *= 2;
        } else if began.elapsed() > run.warm_up() {
            gate.set(false)?;
            let parts = all.as_secs_f64() / TURN.as_secs_f64();
            return Ok((f64::from(rounds) / parts).clamp(1.0, f64::from(MOST_ROUNDS)) as u32);
        }
    }
}

/// How many rounds of [`SPINS`] take [`TURN`] on this device; `None`, and a gap, where they cannot be measured.
pub(super) fn rounds_of_a_turn(run: &mut Run<'_>, program: &Program) -> Result<Option<u32>, Error> {
    if let Some(reason) = unfit(run)? {
        run.skip(Variant::ours("taskring"), reason);
        return Ok(None);
    }
    let runtime = run.runtime_of(program, options(run))?;
    let gate = Gate::new(run.device(), &runtime)?;
    calibrate(run, &runtime, SPINS, &gate, &mut Tally::default()).map(Some)
}

/// Tasks of [`SPINS`] that are on the device until it is ended.
pub(super) struct Load<'a> {
    runtime: &'a Runtime,
    gate: &'a Gate,
}

impl<'a> Load<'a> {
    /// So many tasks, each of which takes turn after turn. They are named from 1 on.
    pub(super) fn start(
        runtime: &'a Runtime,
        gate: &'a Gate,
        priority: TaskPriority,
        rounds: u32,
        count: u32,
        tally: &mut Tally,
    ) -> Result<Self, Error> {
        gate.set(false)?;
        let task = Task::new(SPINS).input(gate.input).param(rounds).priority(priority);
        let tasks: Vec<TaskWorkItem> = (1..=count).map(|id| task.id(id).item()).collect();
        submit_all(runtime, &tasks, tally)?;
        Ok(Self { runtime, gate })
    }

    /// Lets them end, and checks that they and all others did.
    pub(super) fn end(self, tally: &mut Tally) -> Result<(), Error> {
        self.gate.set(true)?;
        settle(self.runtime, tally)
    }
}
