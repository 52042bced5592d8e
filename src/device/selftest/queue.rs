//! One of the device's queues, as the harness uses it: a command buffer, a timeline that its submissions move, and memory for a kernel's result.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ash::vk;

use super::probe::{Kernel, RESULT_BYTES};
use crate::BackendError;
use crate::device::context::Device;
use crate::device::memory::{Buffer, BufferDesc, MemoryKind};
use crate::device::timeline::Timeline;

/// A queue on which one submission at a time is under way.
#[derive(Debug)]
pub(super) struct Queue {
    device: Device,
    /// Whether it is the other queue, and not that of the slices.
    other: bool,
    pool: vk::CommandPool,
    pub(super) commands: vk::CommandBuffer,
    progress: Timeline,
    /// How many submissions there were: the value that the last one signals.
    submitted: Cell<u64>,
    /// The last submission was not seen to end: what it uses may not be destroyed, and nothing may be submitted after it.
    pending: Cell<bool>,
    /// What kernels write. It belongs to this queue's family.
    pub(super) scratch: Buffer,
}

impl Queue {
    /// The slices' queue.
    pub(super) fn of_slices(device: &Device) -> Result<Self, BackendError> {
        Self::new(device, device.queue_family(), false)
    }

    /// The other queue, if the device has one.
    pub(super) fn other(device: &Device) -> Result<Option<Self>, BackendError> {
        device.other_queue_family().map(|family| Self::new(device, family, true)).transpose()
    }

    fn new(device: &Device, family: u32, other: bool) -> Result<Self, BackendError> {
        let raw = device.raw();
        let (name, usage) = ("taskring probe scratch", vk::BufferUsageFlags::empty());
        let scratch = device.allocate(BufferDesc {
            name,
            bytes: RESULT_BYTES,
            kind: MemoryKind::Private,
            usage,
            shared: false,
        })?;
        let progress = Timeline::new(device, "taskring probes", 0)?;
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(family);
        // SAFETY: the info is complete and the family is one that the device has a queue of.
        let pool = unsafe { raw.create_command_pool(&info, None) };
        let pool = device.created("vkCreateCommandPool", "taskring probes", pool)?;
        // From here on `Drop` frees the pool, and the command buffer with it.
        let mut queue = Self {
            device: device.clone(),
            other,
            pool,
            commands: vk::CommandBuffer::null(),
            progress,
            submitted: Cell::new(0),
            pending: Cell::new(false),
            scratch,
        };
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool was just made and nobody else uses it.
        let commands = unsafe { raw.allocate_command_buffers(&info) };
        queue.commands = commands.map_err(|result| device.fail("vkAllocateCommandBuffers", result))?[0];
        Ok(queue)
    }

    /// Makes the command buffer record anew.
    pub(super) fn begin(&self) -> Result<(), BackendError> {
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is not pending: the harness sees each submission end. Beginning resets it.
        let begun = unsafe { self.device.raw().begin_command_buffer(self.commands, &info) };
        begun.map_err(|result| self.device.fail("vkBeginCommandBuffer", result))
    }

    /// Submits what was recorded since [`Queue::begin`].
    pub(super) fn submit(&self) -> Result<(), BackendError> {
        // SAFETY: it is in the recording state since `begin`.
        let ended = unsafe { self.device.raw().end_command_buffer(self.commands) };
        ended.map_err(|result| self.device.fail("vkEndCommandBuffer", result))?;
        let value = self.submitted.get() + 1;
        let (commands, signal) = ([self.commands], Some((self.progress.raw(), value)));
        if self.other {
            // SAFETY: the handles are alive and recorded for the other queue's family, the value is the next of a timeline that only this
            // function signals, and what the commands use is kept until `see_end` saw their end, or leaked.
            unsafe { self.device.submit_on_other_queue(&commands, None, signal) }?;
        } else {
            // SAFETY: as above, for the slices' family.
            unsafe { self.device.submit(&commands, None, signal) }?;
        }
        self.submitted.set(value);
        // Until the opposite is seen.
        self.pending.set(true);
        Ok(())
    }

    /// Whether the last submission has ended, or there was none.
    pub(super) fn has_ended(&self) -> Result<bool, BackendError> {
        Ok(self.progress.value()? >= self.submitted.get())
    }

    /// Waits for the end of the last submission, a kernel, if there was one, until `limit` after `start`.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if it does not end: then it is pending for good. Other errors as Vulkan has them.
    pub(super) fn see_end(&self, kernel: Kernel, start: Instant, limit: Duration) -> Result<(), BackendError> {
        let ended = self.progress.wait(self.submitted.get(), limit.saturating_sub(start.elapsed()));
        // The objects of a lost device may be destroyed.
        self.pending.set(!matches!(ended, Ok(true) | Err(BackendError::DeviceLost { .. })));
        if ended? {
            return Ok(());
        }
        let queue = if self.other { "other" } else { "slices'" };
        let wanted = format!("the self-test's {kernel:?} kernel to end by itself on the {queue} queue");
        Err(BackendError::late(wanted, "it still runs", start.elapsed()))
    }

    /// Whether a submission may still be running. Then everything that it uses must be leaked.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.get()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: every submission has ended, or this value is leaked; nobody else has the pool.
        unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
    }
}
