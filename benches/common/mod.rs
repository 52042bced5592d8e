//! What every benchmark stands beside: one `vkQueueSubmit` for each task.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its own part of a module that is private to it")]

use std::time::{Duration, Instant};

use taskring::{BackendError, Device, Timeline, vk};

/// Longest wait for anything.
pub const LONG: Duration = Duration::from_secs(30);
/// Samples that are thrown away.
pub const WARM_UP: usize = 200;

/// Of many samples, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// What one sample in a hundred exceeds.
    pub p99: f64,
}

/// Percentiles of samples.
pub fn latency(mut samples: Vec<Duration>) -> Latency {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Latency { p50: at(0.5), p99: at(0.99) }
}

/// An empty dispatch, recorded once and submitted for each task, as a user without taskring would.
pub struct Plain {
    device: Device,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    timeline: Timeline,
    submitted: u64,
    other: bool,
}

impl Plain {
    /// On the slices' queue or, if `other`, on the device's other one.
    pub fn new(device: &Device, other: bool) -> Result<Self, BackendError> {
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
        let family = if other { device.other_queue_family() } else { Some(device.queue_family()) };
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family.ok_or(BackendError::NoOtherQueue)?);
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
        Ok(Self { device: device.clone(), pool, commands, pipeline, layout, timeline, submitted: 0, other })
    }

    pub fn submit(&mut self) -> Result<(), BackendError> {
        self.submitted += 1;
        let (commands, signal) = (&[self.commands], Some((self.timeline.raw(), self.submitted)));
        match self.other {
            // SAFETY: the command buffer may be pending more than once, the value grows, and `Drop` waits before anything goes.
            false => unsafe { self.device.submit(commands, None, signal) },
            // SAFETY: as above.
            true => unsafe { self.device.submit_on_other_queue(commands, None, signal) },
        }
    }

    pub fn poll(&self) -> Result<(), BackendError> {
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

/// Submissions of one empty dispatch, one after another, each waited for by polling its timeline.
pub fn submission_per_task(device: &Device, other: bool, count: usize) -> Result<Latency, BackendError> {
    let mut plain = Plain::new(device, other)?;
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

/// Submissions of one empty dispatch a second, waited for at the end.
pub fn submissions(device: &Device, count: u32) -> Result<f64, BackendError> {
    let mut plain = Plain::new(device, false)?;
    let start = Instant::now();
    for _ in 0..count {
        plain.submit()?;
    }
    plain.poll()?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}
