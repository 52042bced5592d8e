//! How soon tasks resume, beside the raw wires in the same run: a kernel that does nothing but answer a word that is written in the same way.
//!
//! `cargo bench --features shaderc --bench timelines`. Measures, and asserts only that nothing was lost.

mod common;
#[path = "common/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::{LONG, Latency, latency};
use taskring::device::Probe;
use taskring::{
    BackendError, Buffer, BufferDesc, BufferHandle, Carrier, Device, DeviceOptions, MemoryKind, Program, Runtime,
    RuntimeOptions, Signaller, Task, Timeline, TimelineId, Width, vk,
};
use taskring_bench::Warmer;
use wire::{Queue, Sender, Wire, name};

const CLOCKS_RISE: Duration = Duration::from_millis(500);
const QUEUES: [Queue; 3] = [Queue::Slices, Queue::Other, Queue::Transfer];
/// Answers that may be missing.
const MISSING: usize = 20;
const NOTHING: u32 = 0;
const TOLL: u32 = 1;
const ENDLESS: u32 = 2;

fn main() -> Result<(), BackendError> {
    let device = Device::new(DeviceOptions::default())?;
    println!("device: {}", device.description());
    let program = Program::builder()
        .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
        // The last of so many to resume says so to the host.
        .op(
            "toll",
            "Turn toll(TaskWorkItem task) {
                uint before = buffer_atomic_add(task_input(task), 0u, 1u);
                if ((before + 1u) % task.param == 0u) buffer_store(task_output(task), 0u, (before + 1u) / task.param);
                return task_complete();
            }",
            Width::Lane,
        )
        .op("endless", "Turn endless(TaskWorkItem task) { return task_yield(0u, 0u); }", Width::Lane)
        .build()?;
    let samples = if device.is_cpu() { 200 } else { 3_000 };
    println!("\n{:<66} p50 us    p99 us", "from the signal to its answer seen by the host");
    if let Probe::Measured(trip) = &device.self_test()?.round_trip {
        let (p50, p99) = (trip.p50_ns as f64 / 1e3, trip.p99_ns as f64 / 1e3);
        line("raw: the self-test's round trip, with its fences and payload", Some(Latency { p50, p99 }));
    }
    let raw = wires(&device, samples)?;
    resumes(&device, &program, samples, raw)?;
    parked(&device, &program, samples / 20)?;
    engine_waits(&device, &program, samples / 20)?;
    many(&device, &program)
}

fn line(what: &str, latency: Option<Latency>) {
    match latency {
        Some(latency) => println!("  {what:<64} {:>7.2}   {:>7.2}", latency.p50, latency.p99),
        None => println!("  {what:<64} not measured: no answer came"),
    }
}

/// Percentiles of what `sample` gives once the clocks have risen. `None` if it gives nothing again and again: now and then a kernel of the raw wires ends
/// by itself, and the answer with it.
fn sampled(
    count: usize,
    mut sample: impl FnMut() -> Result<Option<Duration>, BackendError>,
) -> Result<Option<Latency>, BackendError> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    let mut missing = 0;
    while samples.len() < count {
        let Some(time) = sample()? else {
            missing += 1;
            if missing > MISSING {
                return Ok(None);
            }
            continue;
        };
        if began.elapsed() > CLOCKS_RISE {
            samples.push(time);
        }
    }
    Ok(Some(latency(samples)))
}

/// The raw wires. Gives the first, the host's own write.
fn wires(device: &Device, count: usize) -> Result<Option<Latency>, BackendError> {
    let mut wire = Wire::new(device)?;
    let host = sampled(count, || wire.ask(|wire, number| wire.write(number)))?;
    line("raw: the host writes the word", host);
    for queue in QUEUES {
        let Some(mut sender) = Sender::new(device, queue)? else { continue };
        // On the kernel's own queue nothing is seen before its end.
        if queue == Queue::Slices {
            continue;
        }
        let fill = |commands, buffer, number| {
            // SAFETY: the command buffer is recording, and the buffer lives as long as the wire.
            unsafe { device.raw().cmd_fill_buffer(commands, buffer, 0, 4, number) };
        };
        let fills = sampled(count, || {
            wire.ask(|wire, number| sender.submit(None, None, |commands| fill(commands, wire.asked(), number)))
        })?;
        line(&format!("raw: a submission on the {} fills the word", name(queue)), fills);

        let semaphore = Timeline::new(device, "raw", 0)?;
        let mut value = 0;
        let relayed = sampled(count, || {
            value += 1;
            wire.ask(|wire, number| {
                sender.submit(None, Some((&semaphore, value)), |_| ())?;
                let start = Instant::now();
                while semaphore.value()? < value && start.elapsed() < LONG {
                    std::hint::spin_loop();
                }
                wire.write(number)
            })
        })?;
        line(&format!("raw: the {} signals, a thread polls and writes the word", name(queue)), relayed);

        for signalling in [None, Some(Queue::Other), Some(Queue::Transfer)] {
            let semaphore = Timeline::new(device, "raw", 0)?;
            let mut other = match signalling {
                Some(other) if other == queue => continue,
                None => None,
                Some(other) => match Sender::new(device, other)? {
                    None => continue,
                    sender => sender,
                },
            };
            let mut value = 0;
            let carried = sampled(count, || {
                value += 1;
                // The wait is pending before the clock starts.
                let asked = wire.asked();
                wire.ask_prepared(
                    |number| sender.submit(Some((&semaphore, value)), None, |commands| fill(commands, asked, number)),
                    || match &mut other {
                        None => semaphore.signal(value),
                        Some(other) => other.submit(None, Some((&semaphore, value)), |_| ()),
                    },
                )
            })?;
            let who = signalling.map_or("the host", name);
            line(&format!("raw: {who} signals, a submission waits on the {} and fills", name(queue)), carried);
        }
    }
    Ok(host)
}

struct Bench {
    // Dropped in this order.
    runtime: Runtime,
    tolled: Arc<Buffer>,
    input: BufferHandle,
    output: BufferHandle,
}

impl Bench {
    fn new(device: &Device, program: &Program, options: RuntimeOptions) -> Result<Self, BackendError> {
        let runtime = Runtime::new(device, program, options)?;
        let usage = vk::BufferUsageFlags::empty();
        let buffer =
            |name, kind| device.allocate(BufferDesc { name, bytes: 256, kind, usage, shared: false }).map(Arc::new);
        let (counter, tolled) = (buffer("counter", MemoryKind::Mailbox)?, buffer("tolled", MemoryKind::Report)?);
        let input = runtime.register_buffer(0, &counter, 0..256)?;
        let output = runtime.register_buffer(0, &tolled, 0..256)?;
        Ok(Self { runtime, tolled, input, output })
    }

    fn tolled(&self) -> Result<u32, BackendError> {
        self.tolled.mapped().ok_or(BackendError::Stopped)?.load(0, Relaxed)
    }

    /// How long from `signal` to the completion of a task that waits for the epoch in a running slice.
    fn resume(
        &self,
        timeline: TimelineId,
        epoch: u64,
        signal: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<Option<Duration>, BackendError> {
        let mut task = self.runtime.submit(Task::new(NOTHING).paused_until(timeline, epoch as u32))?;
        // One that runs shows that the slice does, and that the first one has been read.
        self.runtime.submit(Task::new(NOTHING))?.wait(LONG)?;
        let start = Instant::now();
        signal()?;
        task.wait(LONG)?;
        Ok(Some(start.elapsed()))
    }
}

fn resumes(device: &Device, program: &Program, count: usize, raw: Option<Latency>) -> Result<(), BackendError> {
    let bench = Bench::new(device, program, RuntimeOptions::default())?;
    let runtime = &bench.runtime;
    println!("  taskring, {} mode:", if runtime.residency().is_live() { "live" } else { "boundary" });
    let plain = runtime.create_timeline()?;
    let mut epoch = 0;
    let ours = sampled(count, || {
        epoch += 1;
        bench.resume(plain, epoch, || runtime.signal(plain, epoch))
    })?;
    line("`signal`, no semaphore", ours);
    if let (Some(ours), Some(raw)) = (ours, raw) {
        println!("    p50 / raw p50 = {:.2}", ours.p50 / raw.p50);
    }
    let semaphore = Arc::new(Timeline::new(device, "ours", 0)?);
    let own = runtime.register_timeline(&semaphore, Signaller::Runtime)?;
    let mut epoch = 0;
    let signalled = sampled(count, || {
        epoch += 1;
        bench.resume(own, epoch, || runtime.signal(own, epoch))
    })?;
    line("`signal`, which signals a semaphore too", signalled);
    for queue in QUEUES {
        let Some(mut sender) = Sender::new(device, queue)? else { continue };
        for signaller in [Signaller::Recorded, Signaller::Promised, Signaller::Anyone] {
            if queue == Queue::Slices && signaller != Signaller::Anyone {
                continue;
            }
            let semaphore = Arc::new(Timeline::new(device, "foreign", 0)?);
            let foreign = runtime.register_timeline(&semaphore, signaller)?;
            let carrier = runtime.carrier(foreign)?;
            let mut epoch = 0;
            let resumed = sampled(count, || {
                epoch += 1;
                bench.resume(foreign, epoch, || {
                    let mut recorded = Ok(());
                    sender.submit(None, Some((&semaphore, epoch)), |commands| {
                        if carrier == Carrier::Recorded {
                            // SAFETY: the command buffer is recording for a family of the device, and ends while the runtime is there.
                            recorded = unsafe { runtime.record_signal(commands, foreign, epoch) };
                        }
                    })?;
                    recorded?;
                    if signaller == Signaller::Promised { runtime.promise(foreign, epoch) } else { Ok(()) }
                })
            })?;
            line(&format!("the {} signals, {signaller:?}: {carrier:?}", name(queue)), resumed);
            runtime.close_timeline(foreign)?;
        }
    }
    Ok(())
}

/// Processor time of this process.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<u64> = stat.rsplit(')').next()?.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // utime and stime, in hundredths of a second; the state before them is no number.
    Some(Duration::from_millis(10 * (fields.get(10)? + fields.get(11)?)))
}

/// A million tasks that wait, and nothing else.
fn parked(device: &Device, program: &Program, count: usize) -> Result<(), BackendError> {
    let log2 = if device.is_cpu() { 16 } else { 20 };
    let bench = Bench::new(device, program, RuntimeOptions { capacity: 1 << log2, ..Default::default() })?;
    let semaphore = Arc::new(Timeline::new(device, "foreign", 0)?);
    let foreign = bench.runtime.register_timeline(&semaphore, Signaller::Anyone)?;
    let never = bench.runtime.create_timeline()?;
    let tasks = vec![Task::new(NOTHING).paused_until(never, 1).item(); (1 << log2) - 64];
    let mut rest = &tasks[..];
    while !rest.is_empty() {
        rest = &rest[bench.runtime.submit_batch(rest)?.count()..];
        bench.runtime.poll()?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let (slices, processor) = (bench.runtime.stats().slices, processor_time());
    std::thread::sleep(Duration::from_secs(1));
    let slices = bench.runtime.stats().slices - slices;
    println!("\n{} tasks wait, for one second: {slices} slices", tasks.len());
    if let (Some(before), Some(after)) = (processor, processor_time()) {
        println!("  processor time of the host: {} ms", (after - before).as_millis());
    }
    println!("{:<66} p50 us    p99 us", "from there, one of them resumed by");
    let linger = bench.runtime.last_launch().map_or(Duration::ZERO, |launch| launch.decision.linger.value);
    let idle = 20 * linger;
    let mut epoch = 0;
    let mut wake = |what: &str, signal: &dyn Fn(u64) -> Result<(), BackendError>| {
        let mut samples = Vec::new();
        for _ in 0..count.max(10) {
            epoch += 1;
            let mut task = bench.runtime.submit(Task::new(NOTHING).paused_until(foreign, epoch as u32))?;
            std::thread::sleep(idle);
            let start = Instant::now();
            signal(epoch)?;
            task.wait(LONG)?;
            samples.push(start.elapsed());
        }
        line(what, Some(latency(samples)));
        Ok::<(), BackendError>(())
    };
    wake("`signal`", &|epoch| bench.runtime.signal(foreign, epoch))?;
    wake("the host, on the semaphore", &|epoch| semaphore.signal(epoch))?;
    bench.runtime.stop(LONG)?;
    Ok(())
}

/// What an engine's own wait for its semaphore takes, alone and while a runtime hears of that semaphore too: whoever waits may be in somebody's way.
fn engine_waits(device: &Device, program: &Program, count: usize) -> Result<(), BackendError> {
    let Some((queue, mut sender)) =
        QUEUES.into_iter().rev().find_map(|queue| Some((queue, Sender::new(device, queue).ok()??)))
    else {
        return Ok(());
    };
    let bytes = if device.is_cpu() { 1 << 20 } else { 1 << 26 };
    let (usage, kind) = (vk::BufferUsageFlags::TRANSFER_DST, MemoryKind::Private);
    let filled = device.allocate(BufferDesc { name: "filled", bytes, kind, usage, shared: false })?;
    println!(
        "\n{:<66} p50 us    p99 us",
        format!("the {} fills {} MiB and signals, a thread blocks", name(queue), bytes >> 20)
    );
    for heard in [false, true] {
        let bench = Bench::new(device, program, RuntimeOptions::default())?;
        let semaphore = Arc::new(Timeline::new(device, "frames", 0)?);
        if heard {
            let frames = bench.runtime.register_timeline(&semaphore, Signaller::Anyone)?;
            drop(bench.runtime.submit(Task::new(NOTHING).paused_until(frames, 1 << 30))?);
        }
        let mut frame = 0;
        let waits = sampled(count, || {
            frame += 1;
            let start = Instant::now();
            sender.submit(None, Some((&semaphore, frame)), |commands| {
                // SAFETY: the command buffer is recording, and the buffer lives until the wait below is over.
                unsafe { device.raw().cmd_fill_buffer(commands, filled.raw(), 0, vk::WHOLE_SIZE, frame as u32) };
            })?;
            let (semaphores, values) = ([semaphore.raw()], [frame]);
            let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
            // SAFETY: the semaphore is a timeline of this device, which lives.
            let waited = unsafe { device.raw().wait_semaphores(&info, LONG.as_nanos() as u64) };
            waited.map_err(|result| BackendError::Vulkan { call: "vkWaitSemaphores", result })?;
            Ok(Some(start.elapsed()))
        })?;
        line(if heard { "while a runtime with a paused task hears of it too" } else { "alone" }, waits);
        bench.runtime.stop(LONG)?;
    }
    Ok(())
}

/// Rounds of [`many`] before those that count.
const UNCOUNTED: u32 = 3;

/// A million tasks that one signal resumes.
fn many(device: &Device, program: &Program) -> Result<(), BackendError> {
    let log2 = if device.is_cpu() { 16 } else { 20 };
    println!("\n{} tasks that one signal resumes, until the last one runs     M resumes/s", 1u32 << log2);
    let warmer = Warmer::new(device, program, Task::new(ENDLESS))?;
    // The default has fewer shards for so large a capacity, whose rings are large.
    for (workers, shards) in [(None, None), (None, Some(32)), (Some(1024), Some(64)), (Some(2048), Some(64))] {
        if device.is_cpu() && workers.is_some() {
            continue;
        }
        let options = RuntimeOptions { capacity: 1 << log2, workers, shards, ..Default::default() };
        let bench = Bench::new(device, program, options)?;
        let task = Task::new(TOLL).input(bench.input).output(bench.output).param(1 << log2);
        let mut rates = Vec::new();
        // The first ones find slices that are still short, since it is not known yet how fast they are.
        for round in 1..=UNCOUNTED + 5 {
            let tasks = vec![task.paused_until(TimelineId::DEFAULT, round).item(); 1 << log2];
            let mut rest = &tasks[..];
            while !rest.is_empty() {
                rest = &rest[bench.runtime.submit_batch(rest)?.count()..];
                bench.runtime.poll()?;
            }
            // A slice runs, and all of them wait in lists.
            bench.runtime.snapshot(LONG)?;
            warmer.warm()?;
            bench.runtime.signal(TimelineId::DEFAULT, u64::from(round) - 1)?;
            std::thread::sleep(Duration::from_micros(300));
            let start = Instant::now();
            bench.runtime.signal(TimelineId::DEFAULT, round.into())?;
            while bench.tolled()? != round {
                assert!(start.elapsed() < LONG, "tasks are missing");
                std::hint::spin_loop();
            }
            if round > UNCOUNTED {
                rates.push(f64::from(1u32 << log2) / start.elapsed().as_secs_f64() / 1e6);
            }
            let mut ended = Vec::new();
            while ended.len() < tasks.len() {
                bench.runtime.completions(&mut ended, usize::MAX, LONG)?;
            }
        }
        rates.sort_unstable_by(f64::total_cmp);
        let shards =
            bench.runtime.options().shards.map_or("the default shards".into(), |shards| format!("{shards} shards"));
        let workers = workers.map_or("the default grid".into(), |workers| format!("{workers} workers"));
        let workers = format!("{workers}, {shards}");
        println!("  {workers:<64} {:>7.2}   ({:.2} to {:.2})", rates[2], rates[0], rates[4]);
    }
    Ok(())
}
