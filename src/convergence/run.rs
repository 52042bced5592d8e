//! A program on a device: its pipeline, its buffers, and the submissions that take it to its end.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use ash::vk;
use bytemuck::{Pod, Zeroable};

use super::{Convergence, ConvergenceEnd, ConvergenceProgram};
use crate::device::{Buffer, BufferDesc, Device, Mapped, MemoryKind, PipelineDesc, Timeline};
use crate::error::BackendError;

/// Invocations of a workgroup, where the device allows so many.
const WORKGROUP: u32 = 256;
/// Workgroups of a pass, at most: an invocation has several words if there are more.
const WORKGROUPS: u32 = 1024;
/// Turns of loops that an invocation takes in one dispatch, without those of the body: half of what Mesa 22.3 allows.
const TURNS: u32 = 1 << 15;
/// Bytes of what vkCmdDispatchIndirect reads.
const ARGUMENTS: u64 = 12;
/// Bytes of the report: how many iterations changed something, and whether a loop was cut.
const REPORT: u64 = 8;
/// Storage buffers of the kernel.
const BINDINGS: u32 = 4;

/// What the kernel is pushed: `TrPush` in `convergence.comp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Push {
    words: u32,
    before: u32,
    count: u32,
    pass: u32,
    groups: u32,
    two: u32,
}

/// A [`ConvergenceProgram`] that is ready to run on a device, one run at a time.
///
/// Dropping it while a run that timed out is still on the device leaks what that uses.
#[derive(Debug)]
pub struct PreparedConvergence {
    words: u32,
    max_iterations: u32,
    is_one_workgroup: bool,
    /// Invocations of a workgroup.
    size: u32,
    /// Submissions so far: the value that `progress` reaches when the last one is done.
    submitted: u64,
    parts: ManuallyDrop<Parts>,
}

/// What submissions use.
#[derive(Debug)]
struct Parts {
    device: Device,
    progress: Timeline,
    /// Of `current` and `next`, by turns.
    states: [Buffer; 2],
    report: Buffer,
    arguments: Buffer,
    /// What the host writes and reads: the report, and the words behind it.
    host: Buffer,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
    descriptors: vk::DescriptorPool,
    /// The first has the first of `states` for its `current`, the second the second.
    sets: Vec<vk::DescriptorSet>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
}

impl PreparedConvergence {
    pub(super) fn new(device: &Device, program: &ConvergenceProgram) -> Result<Self, BackendError> {
        let (facts, plan) = (device.facts(), device.plan());
        let by_subgroups = plan.required_subgroup_size.map(|lanes| lanes * facts.subgroup.max_workgroup_subgroups);
        let limits =
            [Some(facts.limits.max_workgroup_invocations), Some(facts.limits.max_workgroup_size_x), by_subgroups];
        // All of these are at least a subgroup of a size that is a power of two.
        let size = 1 << limits.into_iter().flatten().fold(WORKGROUP, u32::min).max(plan.subgroup_size).ilog2();
        let mut parts = Parts::new(device, program)?;
        parts.build(program, size)?;
        Ok(Self {
            words: program.words(),
            max_iterations: program.max_iterations(),
            is_one_workgroup: program.is_one_workgroup(),
            size,
            submitted: 0,
            parts: ManuallyDrop::new(parts),
        })
    }

    /// Iterates over these words until nothing changes or the limit is reached, and waits for it.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] for another number of words than the program's; [`BackendError::Timeout`], and then the device may still be
    /// at it, which the next run waits for; [`BackendError::Protocol`] if the driver cut a loop, the body's or the kernel's;
    /// [`BackendError::DeviceLost`].
    pub fn run(&mut self, words: &[u32], timeout: Duration) -> Result<Convergence, BackendError> {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        if words.len() as u64 != u64::from(self.words) {
            let must = "as many words as the program was built for";
            return Err(BackendError::BadOption { option: "words", value: words.len() as u64, must });
        }
        self.rest(left())?;
        self.parts.mapped()?.write(REPORT, bytemuck::cast_slice(words))?;
        let mut iterations = 0;
        loop {
            let count = self.dispatch(iterations)?;
            self.rest(left())?;
            let [changes, cut] = self.parts.mapped()?.read_pod::<[u32; 2]>(0)?;
            if cut != 0 {
                return Err(BackendError::Protocol { what: "the driver ended a loop of a transfer".into() });
            }
            iterations += count;
            let end = match (changes < iterations, iterations == self.max_iterations) {
                (true, _) => ConvergenceEnd::Converged,
                (false, true) => ConvergenceEnd::LimitReached,
                (false, false) => continue,
            };
            let iterations = iterations.min(changes + 1);
            tracing::debug!(words = self.words, iterations, ?end, took = ?start.elapsed(), "iterated");
            let mut words = vec![0; self.words as usize];
            self.parts.mapped()?.read(REPORT, bytemuck::cast_slice_mut(&mut words))?;
            return Ok(Convergence { end, iterations, words });
        }
    }

    /// Waits until the last submission has ended.
    fn rest(&self, timeout: Duration) -> Result<(), BackendError> {
        if self.parts.progress.wait(self.submitted, timeout)? {
            return Ok(());
        }
        Err(BackendError::late("a transfer to converge", format!("submission {} still runs", self.submitted), timeout))
    }

    /// Submits some iterations after `before` others; how many there are at most.
    fn dispatch(&mut self, before: u32) -> Result<u32, BackendError> {
        let left = self.max_iterations - before;
        let strides = self.words.div_ceil(self.size);
        let push = Push { words: self.words, before, count: 0, pass: 0, groups: strides.min(WORKGROUPS), two: 2 };
        let count = if self.is_one_workgroup {
            left.min(TURNS / (2 * strides + 1)).max(1)
        } else {
            left.min(ConvergenceProgram::PASSES)
        };
        self.parts.begin()?;
        self.parts.fill(before == 0, push.groups);
        let last = if self.is_one_workgroup {
            self.parts.bind(0, Push { count, ..push });
            // SAFETY: a pipeline is bound with its descriptors and constants, all of which are alive until the submission has ended.
            unsafe { self.parts.device.raw().cmd_dispatch(self.parts.commands, 1, 1, 1) };
            0
        } else {
            for pass in 0..count {
                self.parts.bind(pass as usize % 2, Push { pass, ..push });
                let (commands, at) = (self.parts.commands, ARGUMENTS * u64::from(pass));
                // SAFETY: as above; the arguments have indirect usage, room for all passes, and hold no more workgroups than every device has.
                unsafe { self.parts.device.raw().cmd_dispatch_indirect(commands, self.parts.arguments.raw(), at) };
                self.parts.barrier();
            }
            // If it ends before, both have the same words. Submissions that others follow have an even number of passes.
            count as usize % 2
        };
        self.parts.end(last, self.submitted + 1)?;
        self.submitted += 1;
        Ok(count)
    }
}

impl Parts {
    fn new(device: &Device, program: &ConvergenceProgram) -> Result<Self, BackendError> {
        let words = 4 * u64::from(program.words);
        let make = |name: &str, kind, bytes, usage| {
            device.allocate(BufferDesc { name: &format!("transfer {name}"), bytes, kind, usage, shared: false })
        };
        let none = vk::BufferUsageFlags::empty();
        let arguments = ARGUMENTS * u64::from(ConvergenceProgram::PASSES + 1);
        let [current, next, changed] = &program.names;
        // From here on `Drop` frees what was made, null handles included.
        Ok(Self {
            device: device.clone(),
            progress: Timeline::counter(device, "transfer progress")?,
            states: [make(current, MemoryKind::Private, words, none)?, make(next, MemoryKind::Private, words, none)?],
            report: make(changed, MemoryKind::Private, REPORT, none)?,
            arguments: make("arguments", MemoryKind::Private, arguments, vk::BufferUsageFlags::INDIRECT_BUFFER)?,
            host: make("words", MemoryKind::Report, REPORT + words, none)?,
            set_layout: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
            descriptors: vk::DescriptorPool::null(),
            sets: Vec::new(),
            pool: vk::CommandPool::null(),
            commands: vk::CommandBuffer::null(),
        })
    }

    fn build(&mut self, program: &ConvergenceProgram, size: u32) -> Result<(), BackendError> {
        let (device, name) = (self.device.clone(), "taskring transfer");
        let raw = device.raw();
        let binding = |binding| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(binding)
                .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = (0..BINDINGS).map(binding).collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the info is complete and the device is alive; the same for each call below.
        let layout = unsafe { raw.create_descriptor_set_layout(&info, None) };
        self.set_layout = device.created("vkCreateDescriptorSetLayout", name, layout)?;
        let bytes = size_of::<Push>() as u32;
        let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(bytes)];
        let layouts = [self.set_layout; 2];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts[..1]).push_constant_ranges(&range);
        // SAFETY: as above.
        let layout = unsafe { raw.create_pipeline_layout(&info, None) };
        self.layout = device.created("vkCreatePipelineLayout", name, layout)?;
        self.pipeline = self.pipeline(program, size)?;

        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(BINDINGS * layouts.len() as u32)];
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(layouts.len() as u32).pool_sizes(&sizes);
        // SAFETY: as above.
        let descriptors = unsafe { raw.create_descriptor_pool(&info, None) };
        self.descriptors = device.created("vkCreateDescriptorPool", name, descriptors)?;
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(self.descriptors).set_layouts(&layouts);
        // SAFETY: as above; the pool has room for these sets.
        let sets = unsafe { raw.allocate_descriptor_sets(&info) };
        self.sets = sets.map_err(|result| device.fail("vkAllocateDescriptorSets", result))?;
        for (turn, set) in self.sets.iter().enumerate() {
            let buffers = [&self.states[turn], &self.states[1 - turn], &self.report, &self.arguments];
            for (binding, buffer) in (0..).zip(buffers) {
                let whole = [vk::DescriptorBufferInfo::default().buffer(buffer.raw()).range(vk::WHOLE_SIZE)];
                let write = vk::WriteDescriptorSet::default()
                    .dst_set(*set)
                    .dst_binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .buffer_info(&whole);
                // SAFETY: nothing was submitted yet, and the buffers have storage usage.
                unsafe { raw.update_descriptor_sets(&[write], &[]) };
            }
        }

        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(device.queue_family());
        // SAFETY: as above; the family is the device's own.
        let pool = unsafe { raw.create_command_pool(&info, None) };
        self.pool = device.created("vkCreateCommandPool", name, pool)?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: the pool was just made and nobody else uses it.
        let commands = unsafe { raw.allocate_command_buffers(&info) };
        self.commands = commands.map_err(|result| device.fail("vkAllocateCommandBuffers", result))?[0];
        Ok(())
    }

    fn pipeline(&self, program: &ConvergenceProgram, size: u32) -> Result<vk::Pipeline, BackendError> {
        let (device, name) = (&self.device, "taskring transfer");
        let info = vk::ShaderModuleCreateInfo::default().code(&program.spirv);
        // SAFETY: the words are SPIR-V that the crate's compiler made.
        let module = unsafe { device.raw().create_shader_module(&info, None) };
        let module = device.created("vkCreateShaderModule", name, module)?;
        let size = size.to_le_bytes();
        let entries = [vk::SpecializationMapEntry::default().constant_id(0).size(size.len())];
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&size);
        let (layout, cache) = (self.layout, vk::PipelineCache::null());
        let desc = PipelineDesc { name, module, entry: c"main", layout, specialization: Some(&specialization), cache };
        // SAFETY: the module and the layout are this device's, and the layout has the kernel's bindings and push constants.
        let pipeline = unsafe { device.compute_pipeline(&desc) };
        // SAFETY: a pipeline does not need its module once it is made, and nobody else has this one.
        unsafe { device.raw().destroy_shader_module(module, None) };
        pipeline
    }

    fn mapped(&self) -> Result<&Mapped, BackendError> {
        self.host.mapped().ok_or_else(|| BackendError::Protocol { what: "a report buffer is not mapped".into() })
    }

    fn begin(&self) -> Result<(), BackendError> {
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is not pending: the caller has seen the last submission end. Beginning resets it.
        let begun = unsafe { self.device.raw().begin_command_buffer(self.commands, &info) };
        begun.map_err(|result| self.device.fail("vkBeginCommandBuffer", result))
    }

    /// Records what stands in the buffers before the first iteration of a submission: the host's words and a clear report before the very first
    /// one, and one pass that has workgroups.
    fn fill(&self, first: bool, groups: u32) {
        let (raw, commands) = (self.device.raw(), self.commands);
        self.barrier();
        if first {
            let region = [vk::BufferCopy::default().src_offset(REPORT).size(self.states[0].bytes())];
            // SAFETY: both buffers are alive, have transfer usage and room for the region.
            unsafe { raw.cmd_copy_buffer(commands, self.host.raw(), self.states[0].raw(), &region) };
            // SAFETY: the buffer is alive and has transfer usage.
            unsafe { raw.cmd_fill_buffer(commands, self.report.raw(), 0, vk::WHOLE_SIZE, 0) };
        }
        let passes = ConvergenceProgram::PASSES as usize;
        let mut arguments = vec![[0u32, 1, 1]; passes + 1];
        arguments[0][0] = groups;
        let bytes = bytemuck::cast_slice(&arguments);
        // SAFETY: the buffer is alive, has transfer usage and as many bytes, which are fewer than the 65,536 that a command may hold.
        unsafe { raw.cmd_update_buffer(commands, self.arguments.raw(), 0, bytes) };
        self.barrier();
    }

    /// Binds the pipeline, for a kernel whose `current` is the first or the second of the two arrays.
    fn bind(&self, turn: usize, push: Push) {
        let (raw, commands, point) = (self.device.raw(), self.commands, vk::PipelineBindPoint::COMPUTE);
        // SAFETY: the command buffer is being recorded, and the pipeline is a compute pipeline of this device.
        unsafe { raw.cmd_bind_pipeline(commands, point, self.pipeline) };
        let sets = &self.sets[turn..=turn];
        // SAFETY: the set is one of this layout.
        unsafe { raw.cmd_bind_descriptor_sets(commands, point, self.layout, 0, sets, &[]) };
        let (stage, bytes) = (vk::ShaderStageFlags::COMPUTE, bytemuck::bytes_of(&push));
        // SAFETY: the layout has a range of these bytes for this stage.
        unsafe { raw.cmd_push_constants(commands, self.layout, stage, 0, bytes) };
    }

    /// Records the copies to the host, of the words in one of the two arrays, and submits all that was recorded.
    fn end(&self, last: usize, value: u64) -> Result<(), BackendError> {
        let (raw, commands) = (self.device.raw(), self.commands);
        self.barrier();
        for (buffer, at) in [(&self.report, 0), (&self.states[last], REPORT)] {
            let region = [vk::BufferCopy::default().dst_offset(at).size(buffer.bytes())];
            // SAFETY: both buffers are alive, have transfer usage and room for the region.
            unsafe { raw.cmd_copy_buffer(commands, buffer.raw(), self.host.raw(), &region) };
        }
        let memory = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ | vk::AccessFlags::HOST_WRITE)];
        let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        // SAFETY: the command buffer is being recorded, outside of any render pass.
        unsafe { raw.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &memory, &[], &[]) };
        // SAFETY: it is in the recording state.
        let ended = unsafe { raw.end_command_buffer(commands) };
        ended.map_err(|result| self.device.fail("vkEndCommandBuffer", result))?;
        let signal = Some((self.progress.raw(), value));
        // SAFETY: the handles are alive and recorded for this family, the value is the next of a timeline that only this function signals, and
        // what the commands use is kept until they are done, or leaked.
        unsafe { self.device.submit(&[commands], None, signal) }
    }

    /// What was written before, whatever comes after sees.
    fn barrier(&self) {
        use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
        let stages = Stage::COMPUTE_SHADER | Stage::TRANSFER;
        let writes = Access::SHADER_WRITE | Access::TRANSFER_WRITE;
        let reads = Access::SHADER_READ | Access::TRANSFER_READ | Access::INDIRECT_COMMAND_READ;
        let memory = [vk::MemoryBarrier::default().src_access_mask(writes).dst_access_mask(reads | writes)];
        let (from, to) = (stages | Stage::DRAW_INDIRECT, stages | Stage::DRAW_INDIRECT);
        let (raw, flags) = (self.device.raw(), vk::DependencyFlags::empty());
        // SAFETY: the command buffer is being recorded, outside of any render pass, and the stages are ones of a compute queue.
        unsafe { raw.cmd_pipeline_barrier(self.commands, from, to, flags, &memory, &[], &[]) };
    }
}

impl Drop for PreparedConvergence {
    fn drop(&mut self) {
        match self.parts.progress.value() {
            Ok(value) if value < self.submitted => {
                tracing::error!("a transfer still runs; its buffers and pipeline are leaked");
            }
            // SAFETY: every submission has ended, or the device is lost; nobody uses the parts afterwards.
            _ => unsafe { ManuallyDrop::drop(&mut self.parts) },
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: every submission has ended, and nobody else has these handles; the same for each below.
        unsafe { raw.destroy_command_pool(self.pool, None) };
        // SAFETY: as above; its sets go with it.
        unsafe { raw.destroy_descriptor_pool(self.descriptors, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
        // SAFETY: as above.
        unsafe { raw.destroy_descriptor_set_layout(self.set_layout, None) };
    }
}
