//! What the host does by itself: `cargo bench --features shaderc --bench host`.
//!
//! No time of a device is in these numbers. But the host writes tasks into memory that the driver has given, and reads completions from there, so the
//! numbers of those two name the device.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use taskring::{
    BackendError, Buffer, BufferDesc, Completion, Device, DeviceOptions, MemoryKind, Mode, Program, Runtime,
    RuntimeOptions, Task, TaskPriority, TaskQueueSnapshot, TaskWorkItem, Width, vk,
};

const LONG: Duration = Duration::from_secs(30);
/// Tasks that a runtime holds.
const CAPACITY: u32 = 1 << 14;
const BATCHES: [usize; 3] = [1, 256, 4_096];

fn main() {
    // Percentiles of a host's path settle soon.
    let times = (Duration::from_millis(500), Duration::from_secs(2));
    let criterion = Criterion::default().warm_up_time(times.0).measurement_time(times.1);
    let mut criterion = criterion.configure_from_args();
    transitions(&mut criterion);
    snapshot(&mut criterion);
    match Device::new(DeviceOptions::default()) {
        Ok(device) => rings(&mut criterion, &device),
        Err(error) => eprintln!("submissions and completions: not measured ({error})"),
    }
    criterion.final_summary();
}

/// A benchmark has nobody to hand an error to.
fn must<T>(result: Result<T, BackendError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The checked steps of a task: one life of four turns.
fn transitions(criterion: &mut Criterion) {
    let life = |task: TaskWorkItem| {
        let task = task.try_claimed()?.try_yielded(1, 2)?;
        let task = task.try_claimed()?.try_requeued(2, 3, TaskPriority::Low)?;
        let task = task.try_claimed()?.try_paused(3, 4, 5)?;
        task.try_resumed()?.try_claimed()?.try_completed()?.try_recycled()
    };
    let mut group = criterion.benchmark_group("abi");
    group.throughput(Throughput::Elements(9));
    group.bench_function("nine steps of a task", |bench| {
        bench.iter(|| must(life(black_box(Task::new(0).item()))));
    });
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let states = [Task::new(0), Task::new(0).paused_until(0, 7)].map(Task::item);
    let mut group = criterion.benchmark_group("snapshot");
    for count in [256, 1 << 14] {
        let tasks: Vec<TaskWorkItem> = states.iter().copied().cycle().take(count).collect();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("from_tasks, {count}"), |bench| {
            bench.iter(|| must(TaskQueueSnapshot::from_tasks(black_box(&tasks))));
        });
    }
    group.finish();
}

/// The host's side of the rings, with slices that run outside of the clock.
fn rings(criterion: &mut Criterion, device: &Device) {
    let nothing = "Turn nothing(TaskWorkItem task) { return task_complete(); }";
    let program = must(Program::builder().op("nothing", nothing, Width::Lane).build());
    let options =
        RuntimeOptions { capacity: CAPACITY, mode: Mode::Boundary, launch_on_submit: false, ..Default::default() };
    let runtime = must(Runtime::new(device, &program, options));
    let mut group = criterion.benchmark_group(format!("boundary mode, {}", device.facts().name));
    for count in BATCHES {
        let tasks = vec![Task::new(0).item(); count];
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("submit_batch, {count}"), |bench| {
            bench.iter_custom(|times| submitted(&runtime, &tasks, times));
        });
        group.bench_function(format!("completions, {count}"), |bench| {
            bench.iter_batched_ref(
                || finished(&runtime, &tasks),
                |taken: &mut Vec<Completion>| must(runtime.completions(taken, count, Duration::ZERO)),
                BatchSize::PerIteration,
            );
        });
    }
    let desc = BufferDesc {
        name: "a buffer",
        bytes: 256,
        kind: MemoryKind::Private,
        usage: vk::BufferUsageFlags::empty(),
        shared: false,
    };
    let buffer = Arc::new(must(device.allocate(desc)));
    let tasks = vec![Task::new(0).item(); CAPACITY as usize];
    group.throughput(Throughput::Elements(CAPACITY.into()));
    group.bench_function(format!("a slice's {CAPACITY} completions taken over"), |bench| {
        bench.iter_custom(|times| (0..times).map(|_| taken_over(&runtime, &buffer, &tasks)).sum());
    });
    group.finish();
}

/// How long so many batches took to submit. Whenever there is no room left, slices run, and nobody counts the time.
fn submitted(runtime: &Runtime, tasks: &[TaskWorkItem], times: u64) -> Duration {
    let (mut took, mut room) = (Duration::ZERO, 0);
    for _ in 0..times {
        if room < tasks.len() {
            empty(runtime);
            room = CAPACITY as usize;
        }
        let start = Instant::now();
        let taken = must(runtime.submit_batch(black_box(tasks))).count();
        took += start.elapsed();
        assert_eq!(taken, tasks.len());
        room -= taken;
    }
    empty(runtime);
    took
}

/// Tasks that have ended, whose completions nobody has taken.
fn finished(runtime: &Runtime, tasks: &[TaskWorkItem]) -> Vec<Completion> {
    empty(runtime);
    assert_eq!(must(runtime.submit_batch(tasks)).count(), tasks.len());
    must(runtime.drain(LONG));
    Vec::with_capacity(tasks.len())
}

/// How long it took to take over what a slice has left.
fn taken_over(runtime: &Runtime, buffer: &Arc<Buffer>, tasks: &[TaskWorkItem]) -> Duration {
    let mut took = Duration::ZERO;
    assert_eq!(must(runtime.submit_batch(tasks)).count(), tasks.len());
    while must(runtime.poll()) {
        assert_eq!(runtime.progress().wait(runtime.progress_value(), LONG), Ok(true), "the slice did not end");
        let handle = must(runtime.register_buffer(0, buffer, 0..256));
        let start = Instant::now();
        // Takes over the slice, which has ended, and launches none.
        must(runtime.unregister_buffer(handle, LONG));
        took += start.elapsed();
    }
    empty(runtime);
    took
}

/// Ends and takes everything.
fn empty(runtime: &Runtime) {
    must(runtime.drain(LONG));
    let mut taken = Vec::new();
    must(runtime.completions(&mut taken, usize::MAX, Duration::ZERO));
}
