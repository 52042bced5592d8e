//! What boundary mode costs and gives, beside what a user has without taskring: one `vkQueueSubmit` for each task. Both in one run.
//!
//! `cargo bench --features shaderc --bench boundary`; the first lines name the device and the driver. Measures, and asserts only that nothing was
//! lost.

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::{LONG, Latency, WARM_UP, latency, submission_per_task, submissions};
use taskring::{
    BackendError, BufferDesc, Device, DeviceOptions, MemoryKind, Mode, Program, Runtime, RuntimeOptions, Task,
    TaskWorkItem, Width, vk,
};

fn main() -> Result<(), BackendError> {
    let device = Device::new(DeviceOptions::default())?;
    println!("device: {}", device.description());
    let program = Program::builder()
        .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
        .op(
            "count",
            "Turn count(TaskWorkItem task) {
                if (task.continuation_pc < task.param) return task_yield(task.continuation_pc + 1u, 0u);
                buffer_atomic_add(task_output(task), 0u, 1u);
                return task_complete();
            }",
            Width::Lane,
        )
        .build()?;

    let submit = submission_per_task(&device, false, 2_000)?;
    println!("\nround trip of one task              p50 us    p99 us");
    println!("  one vkQueueSubmit, value polled  {:>7.1}   {:>7.1}", submit.p50, submit.p99);
    for workers in [1, 256] {
        let runtime = Runtime::new(
            &device,
            &program,
            RuntimeOptions { mode: Mode::Boundary, workers: Some(workers), ..Default::default() },
        )?;
        let taskring = round_trips(&runtime, 2_000)?;
        println!("  taskring, {workers:>3} workers            {:>7.1}   {:>7.1}", taskring.p50, taskring.p99);
    }

    println!("\nno-op tasks, submitted and completions consumed by one thread   M tasks/s");
    println!(
        "  one vkQueueSubmit for each, value polled at the end          {:>8.3}",
        submissions(&device, 20_000)? / 1e6
    );
    for (capacity, workers) in [(1 << 14, 64), (1 << 14, 256), (1 << 16, 256), (1 << 18, 256), (1 << 18, 1024)] {
        let options = RuntimeOptions {
            mode: Mode::Boundary,
            capacity,
            workers: Some(workers),
            launch_on_submit: false,
            ..Default::default()
        };
        let rate = stream(&Runtime::new(&device, &program, options)?, Duration::from_secs(1))?;
        println!("  taskring, capacity {capacity:>6}, {workers:>4} workers                      {:>8.3}", rate / 1e6);
    }

    println!("\nturns inside slices (65,536 tasks that yield 64 times each)   M turns/s");
    for (workers, shards) in [(64, 1), (256, 1), (64, 16), (256, 16), (1024, 16), (1024, 64), (2048, 128)] {
        let options = RuntimeOptions {
            mode: Mode::Boundary,
            capacity: 1 << 16,
            workers: Some(workers),
            shards: Some(shards),
            launch_on_submit: false,
            turn_budget: Some(1 << 20),
            ..Default::default()
        };
        let rate = turns(&device, &program, options)?;
        println!("  taskring, {workers:>4} workers, {shards:>3} shards                          {:>8.3}", rate / 1e6);
    }
    Ok(())
}

fn round_trips(runtime: &Runtime, count: usize) -> Result<Latency, BackendError> {
    let mut samples = Vec::new();
    for n in 0..count + WARM_UP {
        let start = Instant::now();
        runtime.submit(Task::new(0))?.wait(LONG)?;
        if n >= WARM_UP {
            samples.push(start.elapsed());
        }
    }
    Ok(latency(samples))
}

fn stream(runtime: &Runtime, duration: Duration) -> Result<f64, BackendError> {
    let batch = vec![Task::new(0).item(); runtime.options().capacity as usize];
    let mut ended = Vec::new();
    let (mut consumed, mut start) = (0u64, Instant::now());
    for warm in [true, false] {
        (consumed, start) = (0, Instant::now());
        let span = if warm { duration / 5 } else { duration };
        while start.elapsed() < span {
            runtime.submit_batch(&batch)?;
            ended.clear();
            consumed += runtime.completions(&mut ended, usize::MAX, LONG)? as u64;
        }
    }
    let rate = consumed as f64 / start.elapsed().as_secs_f64();
    runtime.drain(LONG)?;
    assert_eq!(runtime.stats().submitted, runtime.stats().done);
    Ok(rate)
}

fn turns(device: &Device, program: &Program, options: RuntimeOptions) -> Result<f64, BackendError> {
    const YIELDS: u32 = 64;
    let capacity = options.capacity;
    let runtime = Runtime::new(device, program, options)?;
    let usage = vk::BufferUsageFlags::empty();
    let count =
        device.allocate(BufferDesc { name: "count", bytes: 4, kind: MemoryKind::Report, usage, shared: false })?;
    let count = std::sync::Arc::new(count);
    let output = runtime.register_buffer(0, &count, 0..4)?;
    let tasks: Vec<TaskWorkItem> = vec![Task::new(1).output(output).param(YIELDS).item(); capacity as usize];
    let mut best = f64::MAX;
    for _ in 0..5 {
        runtime.submit_batch(&tasks)?;
        let start = Instant::now();
        runtime.drain(LONG)?;
        best = best.min(start.elapsed().as_secs_f64());
        runtime.completions(&mut Vec::new(), usize::MAX, LONG)?;
    }
    let counted = count.mapped().map(|mapped| mapped.load(0, Relaxed)).transpose()?;
    assert_eq!(counted, Some(5 * capacity));
    Ok(f64::from(capacity) * f64::from(YIELDS + 1) / best)
}
