//! What live mode gives and costs, beside its baselines in the same run: the raw wire (a word of mailbox memory answered by a kernel that does
//! nothing else) and one `vkQueueSubmit` for each task.
//!
//! `cargo bench --features shaderc --bench live`; the first lines name the device and the driver, and how it lives there. Measures, and asserts
//! only that nothing was lost.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{LONG, Latency, Plain, latency, submission_per_task, submissions};
use taskring::device::Probe;
use taskring::{BackendError, Device, DeviceOptions, Program, Runtime, RuntimeOptions, Task, TaskWorkItem, Width};

/// An idle device's clocks are low, and take a while to rise.
const CLOCKS_RISE: Duration = Duration::from_millis(500);
const NOTHING: u32 = 0;
const YIELDS: u32 = 1;

fn main() -> Result<(), BackendError> {
    let device = Device::new(DeviceOptions::default())?;
    println!("device: {}", device.description());
    let program = Program::builder()
        .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
        .op(
            "yields",
            "Turn yields(TaskWorkItem task) {
                if (task.continuation_pc < task.param) return task_yield(task.continuation_pc + 1u, 0u);
                return task_complete();
            }",
            Width::Lane,
        )
        .build()?;
    let runtime = Runtime::new(&device, &program, RuntimeOptions::default())?;
    println!("mode: {}", if runtime.residency().is_live() { "live" } else { "boundary" });
    runtime.residency().reasons().iter().for_each(|reason| println!("  {reason}"));
    drop(runtime);

    round_trips(&device, &program)?;
    streams(&device, &program)?;
    other_queue(&device, &program)?;
    slicing(&device, &program)
}

fn line(what: &str, latency: Latency) {
    println!("  {what:<58} {:>7.2}   {:>7.2}", latency.p50, latency.p99);
}

fn round_trips(device: &Device, program: &Program) -> Result<(), BackendError> {
    println!("\n{:<60} p50 us    p99 us", "round trip of one no-op task, submission to completion seen");
    let raw = match &device.self_test()?.round_trip {
        Probe::Measured(raw) => {
            let raw = Latency { p50: raw.p50_ns as f64 / 1e3, p99: raw.p99_ns as f64 / 1e3 };
            line("raw wire, one workgroup", raw);
            Some(raw)
        }
        Probe::NotMeasured(reason) => {
            println!("  raw wire: not measured: {reason}");
            None
        }
    };
    let submit = submission_per_task(device, false, 2_000)?;
    line("one vkQueueSubmit, timeline polled", submit);
    for workers in [Some(1), Some(32), None, Some(1024)] {
        let runtime = Runtime::new(device, program, RuntimeOptions { workers, ..Default::default() })?;
        let mut samples = Vec::new();
        let began = Instant::now();
        while samples.len() < 20_000 {
            let start = Instant::now();
            runtime.submit(Task::new(NOTHING))?.wait(LONG)?;
            if began.elapsed() > CLOCKS_RISE {
                samples.push(start.elapsed());
            }
        }
        let ours = latency(samples);
        line(&format!("taskring, {}", workers.map_or("the default grid".into(), |n| format!("{n} workers"))), ours);
        if let (None, Some(raw)) = (workers, raw) {
            println!(
                "    p50 / raw p50 = {:.2}, p99 / own p50 = {:.2}, submission p50 / p50 = {:.2}",
                ours.p50 / raw.p50,
                ours.p99 / ours.p50,
                submit.p50 / ours.p50
            );
        }
    }
    Ok(())
}

fn streams(device: &Device, program: &Program) -> Result<(), BackendError> {
    println!("\n{:<60} M tasks/s", "an endless stream of no-op tasks, completions consumed");
    println!(
        "  {:<58} {:>7.3}",
        "one vkQueueSubmit for each, waited for at the end",
        submissions(device, 20_000)? / 1e6
    );
    for capacity in [1 << 14, 1 << 16] {
        for batch in [256, 1024, 4096] {
            for workers in [Some(64), None] {
                let options = RuntimeOptions { capacity, workers, ..Default::default() };
                let runtime = Runtime::new(device, program, options)?;
                let one = stream(&runtime, batch, Duration::from_millis(500))?;
                let two = two_threads(&runtime, batch, Duration::from_millis(500))?;
                let workers = workers.map_or("default".into(), |n| n.to_string());
                let what = format!("taskring, capacity {capacity}, {batch} at a time, {workers} workers");
                let slices = runtime.stats().slices;
                println!("  {what:<58} {:>7.2}   consumer apart {:>7.2}   {slices:>5} slices", one / 1e6, two / 1e6);
            }
        }
    }
    Ok(())
}

/// Tasks a second, by one thread that submits and consumes.
fn stream(runtime: &Runtime, batch: usize, span: Duration) -> Result<f64, BackendError> {
    let batch = vec![Task::new(NOTHING).item(); batch];
    let mut ended = Vec::new();
    let (mut consumed, mut start) = (0u64, Instant::now());
    for span in [span / 5, span] {
        (consumed, start) = (0, Instant::now());
        while start.elapsed() < span {
            runtime.submit_batch(&batch)?;
            ended.clear();
            consumed += runtime.completions(&mut ended, usize::MAX, Duration::ZERO)? as u64;
        }
    }
    let rate = consumed as f64 / start.elapsed().as_secs_f64();
    drained(runtime)?;
    Ok(rate)
}

/// Tasks a second, submitted by one thread and consumed by another.
fn two_threads(runtime: &Runtime, batch: usize, span: Duration) -> Result<f64, BackendError> {
    let batch = vec![Task::new(NOTHING).item(); batch];
    let over = AtomicBool::new(false);
    let rate = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            while !over.load(Relaxed) {
                runtime.submit_batch(&batch)?;
            }
            Ok(())
        });
        let (mut consumed, start, mut ended) = (0u64, Instant::now(), Vec::new());
        while start.elapsed() < span {
            ended.clear();
            consumed += runtime.completions(&mut ended, usize::MAX, Duration::from_millis(10))? as u64;
        }
        over.store(true, Relaxed);
        let rate = consumed as f64 / start.elapsed().as_secs_f64();
        match producer.join() {
            Ok(done) => done.map(|()| rate),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    drained(runtime)?;
    Ok(rate)
}

fn drained(runtime: &Runtime) -> Result<(), BackendError> {
    runtime.drain(LONG)?;
    runtime.completions(&mut Vec::new(), usize::MAX, Duration::ZERO)?;
    assert_eq!(runtime.stats().submitted, runtime.stats().done);
    Ok(())
}

fn other_queue(device: &Device, program: &Program) -> Result<(), BackendError> {
    println!("\n{:<60} p50 us    p99 us", "an empty dispatch on another queue, timeline polled");
    if device.other_queue_family().is_none() {
        println!("  not measured: the device has one queue");
        return Ok(());
    }
    let alone = submission_per_task(device, true, 5_000)?;
    line("no runtime", alone);
    let runtime = Runtime::new(device, program, RuntimeOptions::default())?;
    runtime.submit(Task::new(NOTHING))?.wait(LONG)?;
    let linger = runtime.options().linger;
    std::thread::sleep(100 * linger);
    let idle = submission_per_task(device, true, 5_000)?;
    line("an idle runtime, after its linger", idle);
    line("no runtime, once more", submission_per_task(device, true, 5_000)?);
    println!("    p50 with it / without = {:.3}", idle.p50 / alone.p50);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            while !over.load(Relaxed) {
                runtime.submit(Task::new(NOTHING))?.wait(LONG)?;
            }
            Ok::<(), BackendError>(())
        });
        std::thread::sleep(Duration::from_millis(5));
        let mut plain = Plain::new(device, true)?;
        let mut samples = Vec::new();
        for _ in 0..2_000 {
            let start = Instant::now();
            plain.submit()?;
            plain.poll()?;
            samples.push(start.elapsed());
        }
        line("while slices run", latency(samples));
        over.store(true, Relaxed);
        match busy.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The same work in long slices and in short ones: what there is more of them costs the difference.
fn slicing(device: &Device, program: &Program) -> Result<(), BackendError> {
    println!("\n65,536 tasks that yield 8,192 times each                          M turns/s   slices");
    let mut rates = Vec::new();
    for (name, slice_time) in [
        ("slices of 1 s", Duration::from_secs(1)),
        ("slices of 100 ms, the default", RuntimeOptions::default().slice_time),
        ("slices of 10 ms", Duration::from_millis(10)),
        ("slices of 1 ms", Duration::from_millis(1)),
        ("slices of 1 s, once more", Duration::from_secs(1)),
    ] {
        let options = RuntimeOptions { capacity: 1 << 16, slice_time, ..Default::default() };
        let runtime = Runtime::new(device, program, options)?;
        // The first slices are short whatever was asked for.
        work(&runtime, 64)?;
        let before = runtime.stats().slices;
        let (rate, took) = work(&runtime, 8_192)?;
        let slices = runtime.stats().slices - before;
        println!("  {name:<62} {:>8.1}   {slices:>6}", rate / 1e6);
        rates.push((rate, took, slices));
    }
    let (whole, sliced, tiny) = (rates[0].0.max(rates[4].0), rates[1].0, rates[3]);
    let gap = tiny.1.as_secs_f64() * (1.0 - tiny.0 / whole) / tiny.2.max(1) as f64;
    println!("    cost of slicing at the default: {:.2} %", 100.0 * (1.0 - sliced / whole));
    println!("    from one slice to the next (by the 1 ms slices): {:.1} us", gap * 1e6);
    Ok(())
}

/// Turns a second, and the time that all of them took.
fn work(runtime: &Runtime, yields: u32) -> Result<(f64, Duration), BackendError> {
    let tasks: Vec<TaskWorkItem> = vec![Task::new(YIELDS).param(yields).item(); runtime.options().capacity as usize];
    let start = Instant::now();
    let accepted = runtime.submit_batch(&tasks)?.count();
    runtime.drain(LONG)?;
    let took = start.elapsed();
    let ended = runtime.completions(&mut Vec::new(), usize::MAX, Duration::ZERO)?;
    assert_eq!((accepted, ended), (tasks.len(), tasks.len()));
    Ok((tasks.len() as f64 * f64::from(yields + 1) / took.as_secs_f64(), took))
}
