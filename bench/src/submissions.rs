//! What a user has without taskring: command buffers, and `vkQueueSubmit`.

use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use taskring::{BackendError, Buffer, Device, Timeline, vk};

use crate::Error;
use crate::kernel::{Kernel, failed};

/// Longest wait for a submission.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// The queue that a [`Submissions`] submits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The queue that taskring's slices run on.
    Slices,
    /// The device's other queue.
    OtherQueue,
}

/// A command buffer, recorded once and submitted as often as one likes.
#[derive(Debug)]
pub struct Submissions {
    commands: Commands,
    /// Used by the commands. `None` once they would rather leak.
    used: Option<(Kernel, Vec<Buffer>)>,
    timeline: Timeline,
    submitted: u64,
    on: On,
}

impl Submissions {
    /// One empty dispatch, on one of the device's queues.
    ///
    /// # Errors
    /// [`BackendError::NoOtherQueue`] if it has only one; what Vulkan says.
    pub fn new(device: &Device, on: On) -> Result<Self, Error> {
        let kernel = Kernel::new(device, "#version 460\nlayout(local_size_x = 1) in;\nvoid main() {}", 0)?;
        Self::recorded(kernel, Vec::new(), on, |kernel, commands| {
            // SAFETY: `recorded` begins the command buffer, and the kernel is pushed nothing.
            unsafe { kernel.bind(commands, &[]) };
            // SAFETY: the pipeline was bound above, and it reads nothing that would have to be bound too.
            unsafe { kernel.device().raw().cmd_dispatch(commands, 1, 1, 1) };
        })
    }

    /// What `record` records, which may use the kernel and the buffers.
    pub(crate) fn recorded(
        kernel: Kernel,
        buffers: Vec<Buffer>,
        on: On,
        record: impl FnOnce(&Kernel, vk::CommandBuffer),
    ) -> Result<Self, Error> {
        let device = kernel.device();
        let family = match on {
            On::Slices => device.queue_family(),
            On::OtherQueue => device.other_queue_family().ok_or(BackendError::NoOtherQueue)?,
        };
        let timeline = Timeline::new(device, "submissions", 0)?;
        let commands = Commands::new(device, family)?;
        let (raw, buffer) = (device.raw(), commands.buffer);
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the command buffer is new and this function's alone.
        unsafe { raw.begin_command_buffer(buffer, &info) }.map_err(failed("vkBeginCommandBuffer"))?;
        record(&kernel, buffer);
        // SAFETY: the command buffer was begun above.
        unsafe { raw.end_command_buffer(buffer) }.map_err(failed("vkEndCommandBuffer"))?;
        Ok(Self { commands, used: Some((kernel, buffers)), timeline, submitted: 0, on })
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
            (&self.commands.device, &[self.commands.buffer], Some((self.timeline.raw(), next)));
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
        poll(self.submitted, || Ok(self.timeline.value()? >= self.submitted))
    }

    /// Sleeps in Vulkan's own wait until all submissions have ended.
    ///
    /// # Errors
    /// As [`Submissions::poll`].
    pub fn wait(&self) -> Result<(), Error> {
        if self.timeline.wait(self.submitted, LONGEST)? { Ok(()) } else { Err(late(self.submitted)) }
    }

    /// The command buffer, which may be pending more than once.
    pub(crate) fn commands(&self) -> vk::CommandBuffer {
        self.commands.buffer
    }

    /// A word of a buffer that the commands use.
    pub(crate) fn word(&self, buffer: usize, offset: u64) -> Result<u32, Error> {
        let buffer = self.used.as_ref().and_then(|(_, buffers)| buffers.get(buffer));
        let mapped = buffer.and_then(Buffer::mapped);
        let mapped = mapped.ok_or_else(|| Error::Wrong { what: "the host sees nothing of a buffer".into() })?;
        // Acquire: pairs with the end of the submission, which made the kernel's stores available to the host.
        Ok(mapped.load(offset, Acquire)?)
    }
}

/// Asks again and again whether this submission has ended, with all of a processor.
pub(crate) fn poll(submission: u64, has_ended: impl Fn() -> Result<bool, BackendError>) -> Result<(), Error> {
    let began = Instant::now();
    while !has_ended()? {
        if began.elapsed() > LONGEST {
            return Err(late(submission));
        }
        std::hint::spin_loop();
    }
    Ok(())
}

pub(crate) fn late(submission: u64) -> Error {
    Error::Wrong { what: format!("submission {submission} has not ended after {LONGEST:?}") }
}

impl Drop for Submissions {
    fn drop(&mut self) {
        // What still runs uses the objects, so these would rather leak; a lost device runs nothing any more.
        let in_use = self.timeline.wait(self.submitted, LONGEST) == Ok(false);
        self.commands.in_use = in_use;
        if in_use {
            std::mem::forget(self.used.take());
        }
    }
}

/// A command buffer with its pool.
struct Commands {
    device: Device,
    pool: vk::CommandPool,
    buffer: vk::CommandBuffer,
    in_use: bool,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands").finish_non_exhaustive()
    }
}

impl Commands {
    fn new(device: &Device, family: u32) -> Result<Self, BackendError> {
        let (raw, buffer) = (device.raw(), vk::CommandBuffer::null());
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device lives and was made with a queue of this family.
        let pool = unsafe { raw.create_command_pool(&info, None) }.map_err(failed("vkCreateCommandPool"))?;
        let mut commands = Self { device: device.clone(), pool, buffer, in_use: false };
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is this function's, and nobody else uses it.
        let buffers = unsafe { raw.allocate_command_buffers(&info) }.map_err(failed("vkAllocateCommandBuffers"))?;
        commands.buffer = buffers.first().copied().unwrap_or_default();
        Ok(commands)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if !self.in_use {
            // SAFETY: `Submissions` has waited for all that was submitted, and the pool is this value's own.
            unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
        }
    }
}
