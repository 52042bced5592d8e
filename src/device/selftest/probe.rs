//! The harness that every probe runs in: one dispatch, a host that talks to it, and an end that is waited for with a bound.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ash::vk;
use bytemuck::{Pod, Zeroable};

use crate::BackendError;
use crate::device::context::{Device, PipelineDesc};
use crate::device::memory::{Buffer, BufferDesc, MemoryKind};
use crate::device::timeline::Timeline;

/// The longest that any probe may take on a device, from its submission to its end. The kernels bound themselves to about a tenth of it, so this
/// is met only by a driver that keeps a kernel beyond its own end.
const LIMIT: Duration = Duration::from_secs(1);
/// The same for a driver that runs on the CPU: a busy machine slows such kernels by any factor, and that is no reason to give the device up.
const LIMIT_ON_CPU: Duration = Duration::from_secs(10);
/// The longest that the host's side of a probe goes on.
const HOST_LIMIT: Duration = Duration::from_millis(500);
/// On a CPU driver, how long the host polls for one thing before it gives the processor away, and how long it does: an answer takes half a
/// microsecond if the kernel has a processor of its own, and else can only come once it gets this one.
const SPIN: Duration = Duration::from_micros(50);
/// What stands in word 0 of the result if the kernel got past its loops.
const REACHED_THE_END: u32 = 0x600d;
/// Words of a result.
const RESULT_WORDS: usize = 16;
const RESULT_BYTES: u64 = 4 * RESULT_WORDS as u64;

/// The kernels, compiled and committed beside their sources.
const SPIRV: [(&str, &[u8]); 3] = [
    ("taskring mailbox probe", include_bytes!("../../../glsl/probe_mailbox.spv")),
    ("taskring together probe", include_bytes!("../../../glsl/probe_together.spv")),
    ("taskring loop probe", include_bytes!("../../../glsl/probe_loop.spv")),
];

/// Which kernel: an index of `SPIRV`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kernel {
    Mailbox = 0,
    Together = 1,
    Loop = 2,
}

/// The push constants of every kernel, as `probe.glsl` has them.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Push {
    /// The harness sets it.
    pub(super) result: u64,
    pub(super) mailbox: u64,
    pub(super) report: u64,
    pub(super) count: u32,
    pub(super) bound: u32,
}

/// How a kernel ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// What it left, if it got past its loops.
    pub(super) result: Option<[u32; RESULT_WORDS]>,
    /// Time between its submission and the end that the host saw.
    pub(super) took: Duration,
}

/// Makes pipelines once and runs them one at a time.
#[derive(Debug)]
pub(super) struct Harness {
    device: Device,
    layout: vk::PipelineLayout,
    pipelines: [vk::Pipeline; SPIRV.len()],
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    progress: Timeline,
    submitted: Cell<u64>,
    /// A submission was not seen to end: its objects may not be destroyed, and nothing may be submitted after it.
    stuck: Cell<bool>,
    longest: Cell<Duration>,
    scratch: Buffer,
    result: Buffer,
}

impl Harness {
    pub(super) fn new(device: &Device) -> Result<Self, BackendError> {
        let buffer = |name, kind| {
            let usage = vk::BufferUsageFlags::empty();
            device.allocate(BufferDesc { name, bytes: RESULT_BYTES, kind, usage })
        };
        let scratch = buffer("taskring probe scratch", MemoryKind::Private)?;
        let result = buffer("taskring probe result", MemoryKind::Report)?;
        let progress = Timeline::new(device, "taskring probes", 0)?;
        let bytes = size_of::<Push>() as u32;
        let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(bytes)];
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&range);
        // SAFETY: the info is complete and the device is alive in `device`.
        let layout = unsafe { device.raw().create_pipeline_layout(&info, None) };
        let layout = device.created("vkCreatePipelineLayout", "taskring probes", layout)?;
        // From here on `Drop` frees what was made, null handles included.
        let mut harness = Self {
            device: device.clone(),
            layout,
            pipelines: Default::default(),
            pool: vk::CommandPool::null(),
            commands: vk::CommandBuffer::null(),
            progress,
            submitted: Cell::new(0),
            stuck: Cell::new(false),
            longest: Cell::default(),
            scratch,
            result,
        };
        for (index, (name, spirv)) in SPIRV.iter().enumerate() {
            harness.pipelines[index] = harness.pipeline(name, spirv)?;
        }
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(device.queue_family());
        // SAFETY: the info is complete and the family is the device's own.
        let pool = unsafe { device.raw().create_command_pool(&info, None) };
        harness.pool = device.created("vkCreateCommandPool", "taskring probes", pool)?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(harness.pool).command_buffer_count(1);
        // SAFETY: the pool was just made and nobody else uses it.
        let commands = unsafe { device.raw().allocate_command_buffers(&info) };
        harness.commands = commands.map_err(|result| device.fail("vkAllocateCommandBuffers", result))?[0];
        Ok(harness)
    }

    fn pipeline(&self, name: &str, spirv: &[u8]) -> Result<vk::Pipeline, BackendError> {
        let words: Vec<u32> = spirv.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: the words are SPIR-V: a test compares them with what the compiler makes of the source.
        let module = unsafe { self.device.raw().create_shader_module(&info, None) };
        let module = self.device.created("vkCreateShaderModule", name, module)?;
        let lanes = self.device.plan().subgroup_size.to_le_bytes();
        let entries = [vk::SpecializationMapEntry::default().constant_id(0).size(lanes.len())];
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&lanes);
        let (layout, cache) = (self.layout, vk::PipelineCache::null());
        let desc = PipelineDesc { name, module, entry: c"main", layout, specialization: Some(&specialization), cache };
        // SAFETY: the module and the layout are this device's, and the layout has the kernel's push constants.
        let pipeline = unsafe { self.device.compute_pipeline(&desc) };
        // SAFETY: a pipeline does not need its module once it is made, and nobody else has this one.
        unsafe { self.device.raw().destroy_shader_module(module, None) };
        pipeline
    }

    pub(super) fn is_cpu(&self) -> bool {
        self.device.is_cpu()
    }

    /// The longest that any dispatch took up to now.
    pub(super) fn longest(&self) -> Duration {
        self.longest.get()
    }

    /// Whether a kernel may still be running. Then everything that it uses must be leaked.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    /// Runs `workgroups` of a kernel, and `host` beside it; returns what `host` returned and what the kernel left.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if the kernel does not end within the limit: then the harness is stuck. Other errors as Vulkan has them.
    pub(super) fn run<T>(
        &self,
        kernel: Kernel,
        workgroups: u32,
        push: Push,
        host: impl FnOnce(&Running<'_>) -> Result<T, BackendError>,
    ) -> Result<(T, Ended), BackendError> {
        self.record(kernel, workgroups, Push { result: self.scratch.address(), ..push })?;
        let value = self.submitted.get() + 1;
        let start = Instant::now();
        // SAFETY: the handles are alive and recorded for this family, the value is the next of a timeline that only this function signals, and
        // what the commands use is kept until their end is seen below, or leaked.
        unsafe { self.device.submit(&[self.commands], None, Some((self.progress.raw(), value))) }?;
        self.submitted.set(value);
        // Until the opposite is seen.
        self.stuck.set(true);
        let running = Running { progress: &self.progress, value, deadline: start + HOST_LIMIT, yields: self.is_cpu() };
        let limit = if self.is_cpu() { LIMIT_ON_CPU } else { LIMIT };
        let told = host(&running);
        let ended = self.progress.wait(value, (start + limit).saturating_duration_since(Instant::now()));
        let took = start.elapsed();
        // The objects of a lost device may be destroyed.
        self.stuck.set(!matches!(ended, Ok(true) | Err(BackendError::DeviceLost { .. })));
        if !ended? {
            return Err(BackendError::Timeout {
                wanted: format!("the self-test's {kernel:?} kernel to end by itself"),
                reached: "it still runs".into(),
                waited_ms: took.as_millis() as u64,
            });
        }
        self.longest.set(self.longest.get().max(took));
        let mapped = self.result.mapped();
        let mapped = mapped.ok_or_else(|| BackendError::Protocol { what: "a report buffer is not mapped".into() })?;
        let result: [u32; RESULT_WORDS] = mapped.read_pod(0)?;
        Ok((told?, Ended { result: (result[0] == REACHED_THE_END).then_some(result), took }))
    }

    /// Records: clear the result, run the kernel, copy the result to where the host can read it.
    fn record(&self, kernel: Kernel, workgroups: u32, push: Push) -> Result<(), BackendError> {
        use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
        let (raw, commands, device) = (self.device.raw(), self.commands, &self.device);
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is not pending: `run` waits for each submission. Beginning resets it.
        let begun = unsafe { raw.begin_command_buffer(commands, &info) };
        begun.map_err(|result| device.fail("vkBeginCommandBuffer", result))?;
        let barrier = |from: (Stage, Access), to: (Stage, Access)| {
            let memory = [vk::MemoryBarrier::default().src_access_mask(from.1).dst_access_mask(to.1)];
            // SAFETY: the command buffer is being recorded, outside of any render pass, and the stages are ones of a compute queue.
            unsafe {
                raw.cmd_pipeline_barrier(commands, from.0, to.0, vk::DependencyFlags::empty(), &memory, &[], &[]);
            };
        };
        let shader = (Stage::COMPUTE_SHADER, Access::SHADER_READ | Access::SHADER_WRITE);
        let transfer = (Stage::TRANSFER, Access::TRANSFER_READ | Access::TRANSFER_WRITE);
        barrier(transfer, transfer);
        // SAFETY: the buffer is alive and has transfer usage.
        unsafe { raw.cmd_fill_buffer(commands, self.scratch.raw(), 0, vk::WHOLE_SIZE, 0) };
        barrier(transfer, shader);
        let pipeline = self.pipelines[kernel as usize];
        // SAFETY: the pipeline is a compute pipeline of this device.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
        let (stage, bytes) = (vk::ShaderStageFlags::COMPUTE, bytemuck::bytes_of(&push));
        // SAFETY: the layout has a range of these bytes for this stage.
        unsafe { raw.cmd_push_constants(commands, self.layout, stage, 0, bytes) };
        // SAFETY: a pipeline is bound, its push constants are set, and their addresses are of memory that is kept until the kernel's end.
        unsafe { raw.cmd_dispatch(commands, workgroups, 1, 1) };
        barrier(shader, transfer);
        let region = [vk::BufferCopy::default().size(RESULT_BYTES)];
        // SAFETY: both buffers are alive, have transfer usage and room for the region.
        unsafe { raw.cmd_copy_buffer(commands, self.scratch.raw(), self.result.raw(), &region) };
        barrier((Stage::TRANSFER | Stage::COMPUTE_SHADER, transfer.1 | shader.1), (Stage::HOST, Access::HOST_READ));
        // SAFETY: it is in the recording state since above.
        let ended = unsafe { raw.end_command_buffer(commands) };
        ended.map_err(|result| device.fail("vkEndCommandBuffer", result))
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: every submission has ended, or this value is leaked; nobody else has these handles. The same for each call below.
        unsafe { raw.destroy_command_pool(self.pool, None) };
        for pipeline in self.pipelines {
            // SAFETY: as above.
            unsafe { raw.destroy_pipeline(pipeline, None) };
        }
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}

/// A kernel that was submitted and may be running.
pub(super) struct Running<'a> {
    progress: &'a Timeline,
    value: u64,
    /// When the host gives up, with time left for the kernel to end.
    deadline: Instant,
    /// Whether the host's polling would take cycles from the driver's threads.
    yields: bool,
}

impl Running<'_> {
    /// Polls until `seen` says yes, or the kernel has ended, or the host has waited long enough; and then looks once more.
    pub(super) fn until(&self, mut seen: impl FnMut() -> Result<bool, BackendError>) -> Result<bool, BackendError> {
        let began = Instant::now();
        loop {
            // Asking for the time and for the kernel's end costs more than a look at a word.
            for _ in 0..64 {
                if seen()? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            // A thread that sleeps is scheduled soon after it wakes, whatever else keeps the processors busy; one that yields is not.
            if self.yields && began.elapsed() > SPIN {
                std::thread::sleep(SPIN);
            }
            if self.progress.value()? >= self.value || Instant::now() > self.deadline {
                // The answer to the last message comes with the kernel's end.
                return seen();
            }
        }
    }
}
