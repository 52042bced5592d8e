//! What a user has without taskring: one `vkQueueSubmit` for each task.

use std::time::{Duration, Instant};

use taskring::{BackendError, Device, Timeline, vk};

use crate::Error;

/// Longest wait for a submission.
const LONGEST: Duration = Duration::from_secs(30);

/// The queue that a [`Submissions`] submits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The queue that taskring's slices run on.
    Slices,
    /// The device's other queue.
    OtherQueue,
}

/// An empty dispatch, recorded once and submitted for each task.
#[derive(Debug)]
pub struct Submissions {
    kernel: Kernel,
    timeline: Timeline,
    submitted: u64,
    on: On,
}

impl Submissions {
    /// On one of the device's queues.
    ///
    /// # Errors
    /// [`BackendError::NoOtherQueue`] if it has only one; what Vulkan says.
    pub fn new(device: &Device, on: On) -> Result<Self, Error> {
        let family = match on {
            On::Slices => device.queue_family(),
            On::OtherQueue => device.other_queue_family().ok_or(BackendError::NoOtherQueue)?,
        };
        let timeline = Timeline::new(device, "submissions", 0)?;
        Ok(Self { kernel: Kernel::new(device, family)?, timeline, submitted: 0, on })
    }

    /// Submits once.
    ///
    /// # Errors
    /// What Vulkan says.
    pub fn submit(&mut self) -> Result<(), Error> {
        self.submit_after(None)
    }

    /// Submits once, to run when the timeline has reached the value. The value has to come.
    ///
    /// # Errors
    /// What Vulkan says.
    pub fn submit_after(&mut self, wait: Option<(&Timeline, u64)>) -> Result<(), Error> {
        let next = self.submitted + 1;
        let wait = wait.map(|(timeline, value)| (timeline.raw(), value));
        let (device, commands, signal) =
            (&self.kernel.device, &[self.kernel.commands], Some((self.timeline.raw(), next)));
        match self.on {
            // SAFETY: the command buffer may be pending more than once, the value grows, and `Drop` waits before anything goes.
            On::Slices => unsafe { device.submit(commands, wait, signal) },
            // SAFETY: as above.
            On::OtherQueue => unsafe { device.submit_on_other_queue(commands, wait, signal) },
        }?;
        self.submitted = next;
        Ok(())
    }

    /// Asks for the timeline's value until all submissions have ended.
    ///
    /// # Errors
    /// What Vulkan says; [`BackendError::Timeout`].
    pub fn poll(&self) -> Result<(), Error> {
        let began = Instant::now();
        while self.timeline.value()? < self.submitted {
            if began.elapsed() > LONGEST {
                return Err(self.late());
            }
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Sleeps in Vulkan's own wait until all submissions have ended.
    ///
    /// # Errors
    /// As [`Submissions::poll`].
    pub fn wait(&self) -> Result<(), Error> {
        if self.timeline.wait(self.submitted, LONGEST)? { Ok(()) } else { Err(self.late()) }
    }

    fn late(&self) -> Error {
        Error::Wrong { what: format!("submission {} has not ended after {LONGEST:?}", self.submitted) }
    }
}

impl Drop for Submissions {
    fn drop(&mut self) {
        // What still runs uses the objects, so these would rather leak; a lost device runs nothing any more.
        let ended = self.timeline.wait(self.submitted, LONGEST);
        self.kernel.in_use = ended == Ok(false);
    }
}

/// The Vulkan objects, destroyed with it.
struct Kernel {
    device: Device,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    in_use: bool,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Kernel {
    fn new(device: &Device, family: u32) -> Result<Self, BackendError> {
        let raw = device.raw();
        // Whatever is made before something fails is destroyed with it: destroying a null handle does nothing.
        let mut kernel = Self {
            device: device.clone(),
            pool: vk::CommandPool::null(),
            commands: vk::CommandBuffer::null(),
            pipeline: vk::Pipeline::null(),
            layout: vk::PipelineLayout::null(),
            in_use: false,
        };
        let info = vk::PipelineLayoutCreateInfo::default();
        // SAFETY: the device lives, and the info is complete.
        kernel.layout = unsafe { raw.create_pipeline_layout(&info, None) }.map_err(failed("vkCreatePipelineLayout"))?;
        kernel.pipeline = pipeline(device, kernel.layout)?;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device lives and was made with a queue of this family.
        kernel.pool = unsafe { raw.create_command_pool(&info, None) }.map_err(failed("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(kernel.pool).command_buffer_count(1);
        // SAFETY: the pool is this kernel's, and nobody else uses it.
        let commands = unsafe { raw.allocate_command_buffers(&info) }.map_err(failed("vkAllocateCommandBuffers"))?;
        kernel.commands = commands.first().copied().unwrap_or_default();
        kernel.record()?;
        Ok(kernel)
    }

    fn record(&self) -> Result<(), BackendError> {
        let (raw, commands) = (self.device.raw(), self.commands);
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new and this kernel's alone.
        unsafe { raw.begin_command_buffer(commands, &info) }.map_err(failed("vkBeginCommandBuffer"))?;
        // SAFETY: the command buffer was begun above, and the pipeline is a compute pipeline.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline) };
        // SAFETY: the pipeline was bound above, and it reads nothing that would have to be bound too.
        unsafe { raw.cmd_dispatch(commands, 1, 1, 1) };
        // SAFETY: the command buffer was begun above.
        unsafe { raw.end_command_buffer(commands) }.map_err(failed("vkEndCommandBuffer"))
    }
}

/// A pipeline that does nothing.
fn pipeline(device: &Device, layout: vk::PipelineLayout) -> Result<vk::Pipeline, BackendError> {
    let source = "#version 460\nlayout(local_size_x = 1) in;\nvoid main() {}";
    let spirv = shaderc::Compiler::new()
        .and_then(|compiler| compiler.compile_into_spirv(source, shaderc::ShaderKind::Compute, "empty", "main", None))
        .map_err(|error| BackendError::BadProgram { reason: error.to_string() })?;
    let raw = device.raw();
    let info = vk::ShaderModuleCreateInfo::default().code(spirv.as_binary());
    // SAFETY: the device lives, and the code is valid, being shaderc's.
    let module = unsafe { raw.create_shader_module(&info, None) }.map_err(failed("vkCreateShaderModule"))?;
    let stage =
        vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE).module(module).name(c"main");
    let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
    // SAFETY: the module was made above, and the caller's layout is of the same device.
    let made = unsafe { raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) };
    // SAFETY: the module is this function's own, and a pipeline does not need it once it is made.
    unsafe { raw.destroy_shader_module(module, None) };
    let made = made.map_err(|(_, result)| failed("vkCreateComputePipelines")(result))?;
    Ok(made.first().copied().unwrap_or_default())
}

fn failed(call: &'static str) -> impl Fn(vk::Result) -> BackendError {
    move |result| BackendError::Vulkan { call, result }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.in_use {
            return;
        }
        let raw = self.device.raw();
        // SAFETY: `Submissions` has waited for all that was submitted, and the pool is this kernel's own.
        unsafe { raw.destroy_command_pool(self.pool, None) };
        // SAFETY: as above, for the pipeline.
        unsafe { raw.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above, for the layout.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}
