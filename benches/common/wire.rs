//! The raw wires that timelines stand beside: a kernel that does nothing but answer a word, and whoever writes that word.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its own part of a module that is private to it")]

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub use taskring::device::QueueRole as Queue;
use taskring::{BackendError, Buffer, BufferDesc, Device, MemoryKind, Timeline, vk};

/// Longest that the kernel polls: the next one has to be launched before.
const TURNS: u32 = 1 << 22;
const PATIENCE: Duration = Duration::from_secs(5);

const KERNEL: &str = "#version 460
#pragma use_vulkan_memory_model
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 1) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { nonprivate uint word[]; };
layout(push_constant, std430) uniform Push { Words asked; Words answered; uint turns; } push;
void main() {
    uint last = 0u;
    for (uint turn = 0u; turn < push.turns && last != ~0u; ++turn) {
        uint asked = atomicLoad(push.asked.word[0], gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
        if (asked == last) continue;
        last = asked;
        memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquireRelease | gl_SemanticsMakeVisible | gl_SemanticsMakeAvailable);
        atomicStore(push.answered.word[0], last, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
    }
}";

/// A queue's name in tables.
pub fn name(queue: Queue) -> &'static str {
    match queue {
        Queue::Slices => "slices' queue",
        Queue::Other => "other queue",
        Queue::Transfer => "transfer queue",
    }
}

fn vulkan(call: &'static str) -> impl Fn(vk::Result) -> BackendError {
    move |result| BackendError::Vulkan { call, result }
}

/// Command buffers on one queue, recorded anew for each submission.
pub struct Sender {
    device: Device,
    queue: Queue,
    pool: vk::CommandPool,
    commands: Vec<vk::CommandBuffer>,
    ended: Timeline,
    submitted: u64,
}

impl Sender {
    /// `None` if the device lacks the queue.
    pub fn new(device: &Device, queue: Queue) -> Result<Option<Self>, BackendError> {
        let Some(family) = device.family_of(queue) else { return Ok(None) };
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let info = vk::CommandPoolCreateInfo::default().flags(flags).queue_family_index(family);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { device.raw().create_command_pool(&info, None) }.map_err(vulkan("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(16);
        // SAFETY: the pool is new.
        let commands = unsafe { device.raw().allocate_command_buffers(&info) };
        let commands = commands.map_err(vulkan("vkAllocateCommandBuffers"))?;
        let ended = Timeline::new(device, "sender", 0)?;
        Ok(Some(Self { device: device.clone(), queue, pool, commands, ended, submitted: 0 }))
    }

    /// Submits what is recorded, if anything, after a wait if there is one, and signals the timeline.
    pub fn submit(
        &mut self,
        wait: Option<(&Timeline, u64)>,
        signal: Option<(&Timeline, u64)>,
        record: impl FnOnce(vk::CommandBuffer),
    ) -> Result<(), BackendError> {
        let commands = self.commands[(self.submitted % 16) as usize];
        self.ended.wait(self.submitted.saturating_sub(15), PATIENCE)?;
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the submission that had this command buffer has ended.
        unsafe { self.device.raw().begin_command_buffer(commands, &info) }.map_err(vulkan("vkBeginCommandBuffer"))?;
        record(commands);
        // SAFETY: it is recording.
        unsafe { self.device.raw().end_command_buffer(commands) }.map_err(vulkan("vkEndCommandBuffer"))?;
        self.submitted += 1;
        let point = |(timeline, value): (&Timeline, u64)| (timeline.raw(), value);
        let own = (self.ended.raw(), self.submitted);
        // Who signals another timeline counts with an empty submission behind it.
        let (first, second) = signal.map_or((own, None), |signal| (point(signal), Some(own)));
        self.send(&[commands], wait.map(point), first)?;
        second.map_or(Ok(()), |own| self.send(&[], None, own))
    }

    fn send(
        &self,
        commands: &[vk::CommandBuffer],
        wait: Option<(vk::Semaphore, u64)>,
        signal: (vk::Semaphore, u64),
    ) -> Result<(), BackendError> {
        // SAFETY: the handles are alive, and `Drop` waits for the submissions.
        unsafe { self.device.submit_on(self.queue, commands, wait, Some(signal)) }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        assert_eq!(self.ended.wait(self.submitted, PATIENCE), Ok(true), "the submissions did not end");
        // SAFETY: they have ended.
        unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
    }
}

/// The kernel and its two words.
pub struct Wire {
    device: Device,
    asked: Buffer,
    answered: Buffer,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    launcher: Option<Sender>,
    number: u32,
}

impl Wire {
    pub fn new(device: &Device) -> Result<Self, BackendError> {
        let buffer = |name, kind| {
            device.allocate(BufferDesc { name, bytes: 256, kind, usage: vk::BufferUsageFlags::empty(), shared: true })
        };
        let (asked, answered) = (buffer("asked", MemoryKind::Mailbox)?, buffer("answered", MemoryKind::Report)?);
        let failed = |error: shaderc::Error| BackendError::BadProgram { reason: error.to_string() };
        let mut options = shaderc::CompileOptions::new().map_err(failed)?;
        options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
        let compiler = shaderc::Compiler::new().map_err(failed)?;
        let kind = shaderc::ShaderKind::Compute;
        let spirv = compiler.compile_into_spirv(KERNEL, kind, "wire", "main", Some(&options)).map_err(failed)?;
        let raw = device.raw();
        let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(20)];
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&range);
        // SAFETY: the info is complete; `Drop` destroys the layout.
        let layout = unsafe { raw.create_pipeline_layout(&info, None) }.map_err(vulkan("vkCreatePipelineLayout"))?;
        let info = vk::ShaderModuleCreateInfo::default().code(spirv.as_binary());
        // SAFETY: the code is shaderc's.
        let module = unsafe { raw.create_shader_module(&info, None) }.map_err(vulkan("vkCreateShaderModule"))?;
        let cache = vk::PipelineCache::null();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        // SAFETY: module and layout are this device's and fit.
        let pipeline = unsafe { raw.create_compute_pipelines(cache, &[info], None) };
        let pipeline = pipeline.map_err(|(_, result)| vulkan("vkCreateComputePipelines")(result))?[0];
        // SAFETY: the pipeline is made.
        unsafe { raw.destroy_shader_module(module, None) };
        let launcher = Sender::new(device, Queue::Slices)?;
        Ok(Self { device: device.clone(), asked, answered, layout, pipeline, launcher, number: 0 })
    }

    /// The word that the kernel polls.
    pub fn asked(&self) -> vk::Buffer {
        self.asked.raw()
    }

    fn load(&self) -> Result<u32, BackendError> {
        self.answered.mapped().ok_or(BackendError::NoOtherQueue)?.load(0, Relaxed)
    }

    /// Writes the word from the host.
    pub fn write(&self, number: u32) -> Result<(), BackendError> {
        self.asked.mapped().ok_or(BackendError::NoOtherQueue)?.store(0, number, Relaxed)?;
        taskring::device::store_fence();
        Ok(())
    }

    fn launch(&mut self) -> Result<(), BackendError> {
        let (raw, layout, pipeline) = (self.device.raw().clone(), self.layout, self.pipeline);
        let mut push = [0u8; 20];
        push[..8].copy_from_slice(&self.asked.address().to_le_bytes());
        push[8..16].copy_from_slice(&self.answered.address().to_le_bytes());
        push[16..].copy_from_slice(&TURNS.to_le_bytes());
        let Some(launcher) = &mut self.launcher else { return Ok(()) };
        launcher.submit(None, None, |commands| {
            // SAFETY: the command buffer is recording, and the pipeline is a compute pipeline.
            unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
            // SAFETY: the layout has a range of these bytes.
            unsafe { raw.cmd_push_constants(commands, layout, vk::ShaderStageFlags::COMPUTE, 0, &push) };
            // SAFETY: a pipeline is bound, and the buffers live as long as the launcher.
            unsafe { raw.cmd_dispatch(commands, 1, 1, 1) };
        })
    }

    /// How long from the call of `write`, which has the word written with the number that it is given, until the answer is seen. The kernel runs
    /// before it and after. `None` if no answer came.
    pub fn ask(
        &mut self,
        write: impl FnOnce(&Self, u32) -> Result<(), BackendError>,
    ) -> Result<Option<Duration>, BackendError> {
        let Some(number) = self.running()? else { return Ok(None) };
        let start = Instant::now();
        write(self, number)?;
        Ok(self.comes(number, Duration::from_millis(100))?.then(|| start.elapsed()))
    }

    /// As [`Wire::ask`], from the call of `go`; `prepare` gets the number before.
    pub fn ask_prepared(
        &mut self,
        prepare: impl FnOnce(u32) -> Result<(), BackendError>,
        go: impl FnOnce() -> Result<(), BackendError>,
    ) -> Result<Option<Duration>, BackendError> {
        let Some(number) = self.running()? else { return Ok(None) };
        prepare(number)?;
        std::thread::sleep(Duration::from_micros(100));
        let start = Instant::now();
        go()?;
        Ok(self.comes(number, Duration::from_millis(100))?.then(|| start.elapsed()))
    }

    /// Sees to it that the kernel runs, and gives the next number to ask with.
    fn running(&mut self) -> Result<Option<u32>, BackendError> {
        for _ in 0..3 {
            self.number += 1;
            self.write(self.number)?;
            if self.comes(self.number, Duration::from_micros(500))? {
                self.number += 1;
                return Ok(Some(self.number));
            }
            self.launch()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(None)
    }

    fn comes(&self, number: u32, patience: Duration) -> Result<bool, BackendError> {
        let start = Instant::now();
        while self.load()? != number {
            if start.elapsed() > patience {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
        Ok(true)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = self.write(u32::MAX) {
            eprintln!("the kernel was not told to end: {error}");
        }
        // Waits for the kernel.
        self.launcher = None;
        // SAFETY: nothing that used it runs.
        unsafe { self.device.raw().destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above.
        unsafe { self.device.raw().destroy_pipeline_layout(self.layout, None) };
    }
}
