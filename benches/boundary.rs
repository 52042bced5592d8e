//! What boundary mode costs and gives, beside what a user has without taskring: one `vkQueueSubmit` for each task. Both in one run.
//!
//! `cargo bench --features shaderc --bench boundary`; the first lines name the device and the driver. Measures, and asserts only that nothing was
//! lost.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use taskring::{
    BackendError, BufferDesc, Device, DeviceOptions, MemoryKind, Program, Runtime, RuntimeOptions, Task, TaskWorkItem,
    Timeline, Width, vk,
};

const LONG: Duration = Duration::from_secs(30);
const WARM_UP: usize = 200;

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

    let submit = submission_per_task(&device, 2_000)?;
    println!("\nround trip of one task              p50 us    p99 us");
    println!("  one vkQueueSubmit, value polled  {:>7.1}   {:>7.1}", submit.p50, submit.p99);
    for workers in [1, 256] {
        let runtime = Runtime::new(
            &device,
            &program,
            RuntimeOptions { workers: Some(workers), linger_turns: 0, ..Default::default() },
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
        let options =
            RuntimeOptions { capacity, workers: Some(workers), launch_on_submit: false, ..Default::default() };
        let rate = stream(&Runtime::new(&device, &program, options)?, Duration::from_secs(1))?;
        println!("  taskring, capacity {capacity:>6}, {workers:>4} workers                      {:>8.3}", rate / 1e6);
    }

    println!("\nturns inside slices (65,536 tasks that yield 64 times each)   M turns/s");
    for (workers, shards) in [(64, 1), (256, 1), (64, 16), (256, 16), (1024, 16), (1024, 64), (2048, 128)] {
        let options = RuntimeOptions {
            capacity: 1 << 16,
            workers: Some(workers),
            shards: Some(shards),
            launch_on_submit: false,
            turn_budget: 1 << 20,
            ..Default::default()
        };
        let rate = turns(&device, &program, options)?;
        println!("  taskring, {workers:>4} workers, {shards:>3} shards                          {:>8.3}", rate / 1e6);
    }
    Ok(())
}

struct Latency {
    p50: f64,
    p99: f64,
}

fn latency(mut samples: Vec<Duration>) -> Latency {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Latency { p50: at(0.5), p99: at(0.99) }
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
    let count = device.allocate(BufferDesc { name: "count", bytes: 4, kind: MemoryKind::Report, usage })?;
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

/// An empty dispatch, recorded once and submitted for each task, as a user without taskring would.
struct Plain {
    device: Device,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    timeline: Timeline,
    submitted: u64,
}

impl Plain {
    fn new(device: &Device) -> Result<Self, BackendError> {
        let raw = device.raw();
        let vulkan = |call| move |result| BackendError::Vulkan { call, result };
        let spirv = shaderc::Compiler::new()
            .and_then(|compiler| {
                let source = "#version 460\nlayout(local_size_x = 1) in;\nvoid main() {}";
                compiler.compile_into_spirv(source, shaderc::ShaderKind::Compute, "empty", "main", None)
            })
            .map_err(|error| BackendError::BadProgram { reason: error.to_string() })?;
        // SAFETY: each call below creates an object of this live device from a complete info; `Drop` destroys them once.
        let layout = unsafe { raw.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default(), None) };
        let layout = layout.map_err(vulkan("vkCreatePipelineLayout"))?;
        let info = vk::ShaderModuleCreateInfo::default().code(spirv.as_binary());
        // SAFETY: as above; the code is shaderc's.
        let module = unsafe { raw.create_shader_module(&info, None) }.map_err(vulkan("vkCreateShaderModule"))?;
        let cache = vk::PipelineCache::null();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        // SAFETY: as above.
        let pipeline = unsafe { raw.create_compute_pipelines(cache, &[info], None) };
        let pipeline = pipeline.map_err(|(_, result)| vulkan("vkCreateComputePipelines")(result))?[0];
        // SAFETY: the pipeline is made.
        unsafe { raw.destroy_shader_module(module, None) };
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(device.queue_family());
        // SAFETY: as above.
        let pool = unsafe { raw.create_command_pool(&info, None) }.map_err(vulkan("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: as above.
        let commands = unsafe { raw.allocate_command_buffers(&info) }.map_err(vulkan("vkAllocateCommandBuffers"))?[0];
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new and nobody else's.
        unsafe { raw.begin_command_buffer(commands, &info) }.map_err(vulkan("vkBeginCommandBuffer"))?;
        // SAFETY: it is recording, and the pipeline is a compute pipeline.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
        // SAFETY: a pipeline is bound.
        unsafe { raw.cmd_dispatch(commands, 1, 1, 1) };
        // SAFETY: it is recording.
        unsafe { raw.end_command_buffer(commands) }.map_err(vulkan("vkEndCommandBuffer"))?;
        let timeline = Timeline::new(device, "baseline", 0)?;
        Ok(Self { device: device.clone(), pool, commands, pipeline, layout, timeline, submitted: 0 })
    }

    fn submit(&mut self) -> Result<(), BackendError> {
        self.submitted += 1;
        // SAFETY: the command buffer may be pending more than once, the value grows, and `Drop` waits before anything goes.
        unsafe { self.device.submit(&[self.commands], None, Some((self.timeline.raw(), self.submitted))) }
    }

    fn poll(&self) -> Result<(), BackendError> {
        while self.timeline.value()? < self.submitted {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let ended = self.timeline.wait(self.submitted, LONG);
        assert_eq!(ended, Ok(true), "the baseline's submissions did not end");
        let raw = self.device.raw();
        // SAFETY: all submissions have ended, and these are this value's own.
        unsafe { raw.destroy_command_pool(self.pool, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}

fn submission_per_task(device: &Device, count: usize) -> Result<Latency, BackendError> {
    let mut plain = Plain::new(device)?;
    let mut samples = Vec::new();
    for n in 0..count + WARM_UP {
        let start = Instant::now();
        plain.submit()?;
        plain.poll()?;
        if n >= WARM_UP {
            samples.push(start.elapsed());
        }
    }
    Ok(latency(samples))
}

fn submissions(device: &Device, count: u32) -> Result<f64, BackendError> {
    let mut plain = Plain::new(device)?;
    let start = Instant::now();
    for _ in 0..count {
        plain.submit()?;
    }
    plain.poll()?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
