//! The harness that every probe runs in: one dispatch, a host that talks to it, and an end that is waited for with a bound; on the other queue
//! one more, if the host submits it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ash::vk;
use bytemuck::{Pod, Zeroable};

use super::queue::Queue;
use crate::BackendError;
use crate::device::context::{Device, PipelineDesc};
use crate::device::memory::{Buffer, BufferDesc, MemoryKind};

/// The longest that any probe may take, from its submission to its end. The kernels bound themselves to about a tenth of a second. The rest is for what keeps the
/// device or its processors busy, such as slices of other processes, which NVIDIA's driver lets end first; that is no reason to give a device up.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest that the host's side of a probe goes on; as a rule until the kernel has ended.
const HOST_LIMIT: Duration = Duration::from_secs(5);
/// On a CPU driver, how long the host polls for one thing before it gives the processor away, and how long it does: an answer takes half a
/// microsecond if the kernel has a processor of its own, and else can only come once it gets this one.
const SPIN: Duration = Duration::from_micros(50);
/// What stands in word 0 of the result if the kernel got past its loops.
const REACHED_THE_END: u32 = 0x600d;
/// Words of a result.
const RESULT_WORDS: usize = 16;
pub(super) const RESULT_BYTES: u64 = 4 * RESULT_WORDS as u64;

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

/// The one that runs on the other queue.
const BESIDE: Kernel = Kernel::Loop;

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
    slices: Queue,
    other: Option<Queue>,
    longest: Cell<Duration>,
    result: Buffer,
}

impl Harness {
    pub(super) fn new(device: &Device) -> Result<Self, BackendError> {
        let (name, usage) = ("taskring probe result", vk::BufferUsageFlags::empty());
        let result = device.allocate(BufferDesc {
            name,
            bytes: RESULT_BYTES,
            kind: MemoryKind::Report,
            usage,
            shared: false,
        })?;
        let (slices, other) = (Queue::of_slices(device)?, Queue::other(device)?);
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
            slices,
            other,
            longest: Cell::default(),
            result,
        };
        for (index, (name, spirv)) in SPIRV.iter().enumerate() {
            harness.pipelines[index] = harness.pipeline(name, spirv)?;
        }
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

    /// Whether a kernel may still be running, on either queue. Then everything that it uses must be leaked.
    pub(super) fn is_stuck(&self) -> bool {
        self.slices.is_pending() || self.other.as_ref().is_some_and(Queue::is_pending)
    }

    /// Whether there is another queue to see.
    pub(super) fn has_other_queue(&self) -> bool {
        self.other.is_some()
    }

    /// Runs `workgroups` of a kernel, and `host` beside it; returns what `host` returned and what the kernel left.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if the kernel, or what `host` submitted beside it, does not end within the limit: then the harness is stuck.
    /// Other errors as Vulkan has them.
    pub(super) fn run<T>(
        &self,
        kernel: Kernel,
        workgroups: u32,
        push: Push,
        host: impl FnOnce(&Running<'_>) -> Result<T, BackendError>,
    ) -> Result<(T, Ended), BackendError> {
        self.record(kernel, workgroups, push)?;
        let start = Instant::now();
        self.slices.submit()?;
        let running = Running { queue: &self.slices, deadline: start + HOST_LIMIT, yields: self.is_cpu() };
        let told = host(&running);
        let ended = self.slices.see_end(kernel, start, LIMIT);
        let took = start.elapsed();
        // Whatever became of the kernel: this is seen to end too, or known to be stuck.
        let beside = self.other.as_ref().map_or(Ok(()), |other| other.see_end(BESIDE, start, LIMIT));
        ended.and(beside)?;
        self.longest.set(self.longest.get().max(took));
        let mapped = self.result.mapped();
        let mapped = mapped.ok_or_else(|| BackendError::Protocol { what: "a report buffer is not mapped".into() })?;
        let result: [u32; RESULT_WORDS] = mapped.read_pod(0)?;
        Ok((told?, Ended { result: (result[0] == REACHED_THE_END).then_some(result), took }))
    }

    /// Submits a kernel of one turn to the other queue: does it end while the one on the slices' queue is running?
    pub(super) fn other_queue_advances(&self, running: &Running<'_>) -> Result<bool, BackendError> {
        let Some(other) = &self.other else { return Ok(false) };
        other.begin()?;
        self.dispatch(other, BESIDE, 1, Push { count: 1, bound: 1, ..Push::default() });
        other.submit()?;
        // In this order: a kernel that has not ended yet had not ended before.
        Ok(running.until(|| other.has_ended())? && !running.queue.has_ended()?)
    }

    /// Records: clear the result, run the kernel, copy the result to where the host can read it.
    fn record(&self, kernel: Kernel, workgroups: u32, push: Push) -> Result<(), BackendError> {
        use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
        let (raw, queue) = (self.device.raw(), &self.slices);
        let commands = queue.commands;
        queue.begin()?;
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
        unsafe { raw.cmd_fill_buffer(commands, queue.scratch.raw(), 0, vk::WHOLE_SIZE, 0) };
        barrier(transfer, shader);
        self.dispatch(queue, kernel, workgroups, push);
        barrier(shader, transfer);
        let region = [vk::BufferCopy::default().size(RESULT_BYTES)];
        // SAFETY: both buffers are alive, have transfer usage and room for the region.
        unsafe { raw.cmd_copy_buffer(commands, queue.scratch.raw(), self.result.raw(), &region) };
        barrier((Stage::TRANSFER | Stage::COMPUTE_SHADER, transfer.1 | shader.1), (Stage::HOST, Access::HOST_READ));
        Ok(())
    }

    /// Records a kernel, its result going to the queue's own memory.
    fn dispatch(&self, queue: &Queue, kernel: Kernel, workgroups: u32, push: Push) {
        let (raw, commands, pipeline) = (self.device.raw(), queue.commands, self.pipelines[kernel as usize]);
        let push = Push { result: queue.scratch.address(), ..push };
        // SAFETY: the command buffer is being recorded, and the pipeline is a compute pipeline of this device.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
        let (stage, bytes) = (vk::ShaderStageFlags::COMPUTE, bytemuck::bytes_of(&push));
        // SAFETY: the layout has a range of these bytes for this stage.
        unsafe { raw.cmd_push_constants(commands, self.layout, stage, 0, bytes) };
        // SAFETY: a pipeline is bound, its push constants are set, and the addresses that it uses are of memory that is kept until its end.
        unsafe { raw.cmd_dispatch(commands, workgroups, 1, 1) };
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let raw = self.device.raw();
        for pipeline in self.pipelines {
            // SAFETY: every submission has ended, or this value is leaked; nobody else has the pipeline.
            unsafe { raw.destroy_pipeline(pipeline, None) };
        }
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}

/// A kernel that was submitted and may be running.
pub(super) struct Running<'a> {
    queue: &'a Queue,
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
            if self.queue.has_ended()? || Instant::now() > self.deadline {
                // The answer to the last message comes with the kernel's end.
                return seen();
            }
        }
    }
}
