//! Slices as Vulkan sees them: one pipeline, a command buffer for each that may be pending, one timeline that counts them. No policy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::{Memory, Push, SLICES, record_offset};
use super::stopwatch::Stopwatch;
use super::timelines::Reached;
use crate::abi::{self, SlotMeta, TaskWorkItem};
use ash::vk;

use crate::device::{Device, PipelineDesc, Timeline};
use crate::error::BackendError;
use crate::program::{Program, declares, without_clock};

/// How long a wait polls before it blocks. Reading the counter takes some 13 ns on the H100's driver, where a blocked thread wakes
/// 40 us late; a slice that takes longer than this hardly notices.
pub(super) const SPIN: Duration = Duration::from_micros(200);

/// How a slice is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// One of [`SLICES`]; what was there before has ended.
    pub(super) place: usize,
    /// Workgroups.
    pub(super) workers: u32,
    /// Whether the private memory is cleared first.
    pub(super) fresh: bool,
    /// Whether timestamps are to tell how long it takes.
    pub(super) stamped: bool,
}

/// Launches slices and sees them end.
#[derive(Debug)]
pub(super) struct Slices {
    device: Device,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    pool: vk::CommandPool,
    /// One for each place of a slice, and the last for inspections.
    commands: Vec<vk::CommandBuffer>,
    progress: Arc<Timeline>,
    stopwatch: Option<Stopwatch>,
    /// Submissions so far: the value that `progress` reaches when the last one is done.
    submitted: u64,
}

impl Slices {
    pub(super) fn new(device: &Device, program: &Program) -> Result<Self, BackendError> {
        let progress = Arc::new(Timeline::counter(device, "taskring progress")?);
        let raw = device.raw();
        let range = vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(Push::BYTES);
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(std::slice::from_ref(&range));
        // SAFETY: the info is complete and the device is alive in `device`.
        let layout = unsafe { raw.create_pipeline_layout(&info, None) };
        let layout = device.created("vkCreatePipelineLayout", "taskring", layout)?;
        // From here on `Drop` frees what was made, null handles included.
        let mut slices = Self {
            device: device.clone(),
            layout,
            pipeline: vk::Pipeline::null(),
            pool: vk::CommandPool::null(),
            commands: Vec::new(),
            progress,
            stopwatch: Stopwatch::new(device)?,
            submitted: 0,
        };
        slices.pipeline = slices.build_pipeline(program)?;
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER | vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(device.queue_family());
        // SAFETY: the info is complete and the family is the device's own.
        let pool = unsafe { raw.create_command_pool(&info, None) };
        slices.pool = device.created("vkCreateCommandPool", "taskring", pool)?;
        let info =
            vk::CommandBufferAllocateInfo::default().command_pool(slices.pool).command_buffer_count(SLICES as u32 + 1);
        // SAFETY: the pool was just made and nobody else uses it.
        let commands = unsafe { raw.allocate_command_buffers(&info) };
        slices.commands = commands.map_err(|result| device.fail("vkAllocateCommandBuffers", result))?;
        for commands in &slices.commands {
            device.name(*commands, "taskring slice");
        }
        Ok(slices)
    }

    fn build_pipeline(&self, program: &Program) -> Result<vk::Pipeline, BackendError> {
        let device = &self.device;
        if device.facts().api_version < vk::API_VERSION_1_3 && declares(program.spirv(), b"SPV_KHR_non_semantic_info") {
            return Err(BackendError::BadProgram { reason: "an op prints, which needs a device of Vulkan 1.3".into() });
        }
        let untimed = (!device.plan().shader_clock).then(|| without_clock(program.spirv()));
        let info = vk::ShaderModuleCreateInfo::default().code(untimed.as_deref().unwrap_or(program.spirv()));
        // SAFETY: the words are SPIR-V that the crate's compiler made, as `Program` promises.
        let module = unsafe { device.raw().create_shader_module(&info, None) };
        let module = device.created("vkCreateShaderModule", "taskring kernel", module)?;
        let lanes = device.plan().subgroup_size.to_le_bytes();
        let entries = [vk::SpecializationMapEntry::default().constant_id(0).offset(0).size(lanes.len())];
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&lanes);
        let desc = PipelineDesc {
            name: "taskring kernel",
            module,
            entry: c"main",
            layout: self.layout,
            specialization: Some(&specialization),
            cache: vk::PipelineCache::null(),
        };
        // SAFETY: the module and the layout are this device's, and the layout has the kernel's push constants.
        let pipeline = unsafe { device.compute_pipeline(&desc) };
        // SAFETY: a pipeline does not need its module once it is made, and nobody else has this one.
        unsafe { device.raw().destroy_shader_module(module, None) };
        pipeline
    }

    /// Submits a slice after all before it. It begins after the semaphores have reached what they have reached already: that makes what was written
    /// before visible to it. Returns the value that the timeline reaches with the slice's end.
    pub(super) fn launch(&mut self, memory: &Memory, run: Run, reached: &[Reached]) -> Result<u64, BackendError> {
        let commands = self.begin(run.place)?;
        // SAFETY: it is being recorded, outside of any render pass, for this family, and the runtime waits for its end.
        unsafe { self.dispatch(commands, memory, run) };
        barrier(self.device.raw(), commands, Access::Kernel, Access::Host);
        self.submit("slice", commands, reached)
    }

    /// Records the same into somebody else's command buffer. Whatever stands before is seen by the slice, and what the slice leaves by whatever comes
    /// after.
    ///
    /// # Safety
    /// The command buffer is being recorded, outside of any render pass, for the slices' family; what had this place has ended; the memory is kept
    /// until the execution has ended.
    pub(super) unsafe fn record(&self, commands: vk::CommandBuffer, memory: &Memory, run: Run) {
        let raw = self.device.raw();
        barrier(raw, commands, Access::Anything, Access::Device);
        // SAFETY: the caller's promises.
        unsafe { self.dispatch(commands, memory, run) };
        barrier(raw, commands, Access::Kernel, Access::Anything);
    }

    /// # Safety
    /// As for [`Slices::record`].
    unsafe fn dispatch(&self, commands: vk::CommandBuffer, memory: &Memory, run: Run) {
        let raw = self.device.raw();
        clear(raw, commands, memory, run.fresh);
        let stopwatch = self.stopwatch(run);
        if let Some(stopwatch) = stopwatch {
            // SAFETY: the caller's promises.
            unsafe { stopwatch.start(commands, run.place) };
        }
        let push = memory.push(run.place);
        // SAFETY: the pipeline is a compute pipeline of this device.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline) };
        // SAFETY: the layout has a range of these bytes for this stage.
        unsafe { raw.cmd_push_constants(commands, self.layout, vk::ShaderStageFlags::COMPUTE, 0, push.bytes()) };
        // SAFETY: a pipeline is bound, its push constants are set, and every address in them belongs to a buffer in `memory`, as the caller keeps it.
        unsafe { raw.cmd_dispatch(commands, run.workers, 1, 1) };
        if let Some(stopwatch) = stopwatch {
            // SAFETY: the caller's promises.
            unsafe { stopwatch.stop(commands, run.place) };
        }
    }

    /// How long a slice took that has ended, if timestamps tell.
    pub(super) fn took(&self, run: Run) -> Result<Option<Duration>, BackendError> {
        self.stopwatch(run).map(|stopwatch| stopwatch.read(run.place)).transpose()
    }

    fn stopwatch(&self, run: Run) -> Option<&Stopwatch> {
        self.stopwatch.as_ref().filter(|_| run.stamped)
    }

    /// Copies all slots and what is kept beside them to the host. Bounded by `timeout`; no slice may be pending.
    pub(super) fn inspect(
        &mut self,
        memory: &Memory,
        timeout: Duration,
    ) -> Result<(Vec<TaskWorkItem>, Vec<SlotMeta>), BackendError> {
        let (slots, metas) = (memory.slots.bytes(), memory.metas.bytes());
        // One that took too long for whoever asked may still have the command buffer.
        self.rest(timeout)?;
        let commands = self.begin(SLICES)?;
        let raw = self.device.raw();
        let into = memory.inspection.raw();
        for (buffer, bytes, at) in [(&memory.slots, slots, 0), (&memory.metas, metas, slots)] {
            let region = [vk::BufferCopy::default().dst_offset(at).size(bytes)];
            // SAFETY: both buffers are alive, have transfer usage and room for the region, and nothing else uses them now.
            unsafe { raw.cmd_copy_buffer(commands, buffer.raw(), into, &region) };
        }
        barrier(raw, commands, Access::Transfer, Access::Host);
        self.submit("inspection", commands, &[])?;
        if !self.progress.wait(self.submitted, timeout)? {
            return Err(self.late("the slots to be copied to the host", timeout));
        }
        let mut items = vec![TaskWorkItem::default(); memory.capacity as usize];
        let mut kept = vec![SlotMeta::default(); memory.capacity as usize];
        let mapped = host(&memory.inspection)?;
        mapped.read(0, bytemuck::cast_slice_mut(&mut items))?;
        mapped.read(slots, bytemuck::cast_slice_mut(&mut kept))?;
        Ok((items, kept))
    }

    /// Begins the command buffer of a place; what it had before has ended.
    fn begin(&self, place: usize) -> Result<vk::CommandBuffer, BackendError> {
        let raw = self.device.raw();
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let commands = self.commands[place];
        // SAFETY: the command buffer is not pending: what had its place has ended. Beginning resets it.
        let begun = unsafe { raw.begin_command_buffer(commands, &info) };
        begun.map_err(|result| self.device.fail("vkBeginCommandBuffer", result))?;
        // What earlier submissions left in private memory, this one sees.
        barrier(raw, commands, Access::Device, Access::Device);
        Ok(commands)
    }

    /// Submits what was begun.
    fn submit(&mut self, what: &str, commands: vk::CommandBuffer, reached: &[Reached]) -> Result<u64, BackendError> {
        let _span = tracing::trace_span!("submit", what, number = self.submitted + 1).entered();
        // SAFETY: it is in the recording state since `begin`.
        let ended = unsafe { self.device.raw().end_command_buffer(commands) };
        ended.map_err(|result| self.device.fail("vkEndCommandBuffer", result))?;
        let signal = Some((self.progress.raw(), self.submitted + 1));
        let waits: Vec<_> = reached.iter().map(|(timeline, value)| (timeline.raw(), *value)).collect();
        // SAFETY: the handles are alive and recorded for this family, the value is the next of a timeline that only this function signals, and
        // what the commands use lives in the runtime, which waits for them before it goes.
        unsafe { self.device.submit_after(&[commands], &waits, signal) }?;
        self.submitted += 1;
        Ok(self.submitted)
    }

    /// Signals a timeline when everything that was submitted has ended: what it wrote is visible to whoever waits for the value.
    pub(super) fn signal(&self, timeline: &Timeline, value: u64) -> Result<(), BackendError> {
        // SAFETY: the semaphore is alive for as long as the device; the value is greater than any before, as `Runtime::announce` asks.
        unsafe { self.device.submit(&[], None, Some((timeline.raw(), value))) }
    }

    /// Waits until everything that was submitted has ended.
    pub(super) fn rest(&self, timeout: Duration) -> Result<(), BackendError> {
        let ended = self.progress.wait(self.submitted, timeout)?;
        if ended { Ok(()) } else { Err(self.late("the last submission to end", timeout)) }
    }

    /// The timeline that counts submissions.
    pub(super) fn progress(&self) -> &Arc<Timeline> {
        &self.progress
    }

    pub(super) fn late(&self, wanted: &str, waited: Duration) -> BackendError {
        BackendError::late(wanted, format!("submission {} still runs", self.submitted), waited)
    }
}

/// Clears the private memory first, for a fresh slice.
fn clear(raw: &ash::Device, commands: vk::CommandBuffer, memory: &Memory, fresh: bool) {
    if !fresh {
        return;
    }
    for (buffer, word) in memory.fills() {
        // SAFETY: the buffer is alive, has transfer usage, and no submission that uses it is pending.
        unsafe { raw.cmd_fill_buffer(commands, buffer.raw(), 0, vk::WHOLE_SIZE, word) };
    }
    barrier(raw, commands, Access::Transfer, Access::Kernel);
}

/// The mapping of a buffer of a host-visible kind.
#[inline]
pub(super) fn host(buffer: &crate::device::Buffer) -> Result<&crate::device::Mapped, BackendError> {
    buffer
        .mapped()
        .ok_or_else(|| BackendError::Protocol { what: "a buffer of a host-visible kind is not mapped".into() })
}

#[derive(Clone, Copy)]
enum Access {
    Transfer,
    Kernel,
    Device,
    Host,
    /// All that a command buffer can do, and the host.
    Anything,
}

impl Access {
    fn stage(self) -> vk::PipelineStageFlags {
        match self {
            Self::Transfer => vk::PipelineStageFlags::TRANSFER,
            Self::Kernel => vk::PipelineStageFlags::COMPUTE_SHADER,
            Self::Device => Self::Transfer.stage() | Self::Kernel.stage(),
            Self::Host => vk::PipelineStageFlags::HOST,
            Self::Anything => vk::PipelineStageFlags::ALL_COMMANDS | Self::Host.stage(),
        }
    }

    fn writes(self) -> vk::AccessFlags {
        match self {
            Self::Transfer => vk::AccessFlags::TRANSFER_WRITE,
            Self::Kernel => vk::AccessFlags::SHADER_WRITE,
            Self::Device => Self::Transfer.writes() | Self::Kernel.writes(),
            Self::Host => vk::AccessFlags::HOST_WRITE,
            Self::Anything => vk::AccessFlags::MEMORY_WRITE,
        }
    }

    fn uses(self) -> vk::AccessFlags {
        let reads = match self {
            Self::Transfer => vk::AccessFlags::TRANSFER_READ,
            Self::Kernel => vk::AccessFlags::SHADER_READ,
            Self::Device => return Self::Transfer.uses() | Self::Kernel.uses(),
            Self::Host => vk::AccessFlags::HOST_READ,
            Self::Anything => vk::AccessFlags::MEMORY_READ | vk::AccessFlags::HOST_READ,
        };
        reads | self.writes()
    }
}

fn barrier(raw: &ash::Device, commands: vk::CommandBuffer, from: Access, to: Access) {
    let memory = [vk::MemoryBarrier::default().src_access_mask(from.writes()).dst_access_mask(to.uses())];
    let flags = vk::DependencyFlags::empty();
    // SAFETY: the command buffer is being recorded, outside of any render pass, and the stages are ones of a compute queue.
    unsafe { raw.cmd_pipeline_barrier(commands, from.stage(), to.stage(), flags, &memory, &[], &[]) };
}

impl Drop for Slices {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: the runtime has waited for the last submission, or it leaks this value; nobody else has these handles.
        unsafe { raw.destroy_command_pool(self.pool, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}

/// What a slice left in its exit record, if it left one.
pub(super) fn exit_record(memory: &Memory, place: usize, slice: u32) -> Result<Option<abi::SliceExit>, BackendError> {
    let record: abi::SliceExit = host(&memory.exit_record)?.read_pod(record_offset(place))?;
    Ok((record.slice == slice).then_some(record))
}

/// Whether what signals this value has ended.
pub(super) fn ended((timeline, value): &Reached) -> Result<bool, BackendError> {
    if timeline.value()? < *value {
        return Ok(false);
    }
    // It is the wait that makes the device's writes visible, and it returns at once.
    timeline.wait(*value, Duration::ZERO)
}

/// Waits until a timeline has reached a value, for at most `timeout`: polls it for [`SPIN`] before it blocks.
pub(super) fn wait(end: &Reached, spins: bool, timeout: Duration) -> Result<bool, BackendError> {
    let (timeline, value) = end;
    let start = Instant::now();
    while spins && start.elapsed() < SPIN.min(timeout) {
        if timeline.value()? >= *value {
            return Ok(true);
        }
        std::hint::spin_loop();
    }
    timeline.wait(*value, timeout.saturating_sub(start.elapsed()))
}
