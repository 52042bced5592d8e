//! Epochs that command buffers write: those of an engine, as it records them, and our own that wait for a promised value on another queue.

use std::mem::offset_of;
use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use crate::abi::{self, EpochWord, TimelineId};
use crate::device::{Device, Timeline};
use crate::error::BackendError;
use crate::runtime::memory::{Memory, carried_offset};

/// Promises that may be waited for at once; of more, the relay hears when they are kept.
const PENDING: u64 = 64;

/// Records that a timeline has reached an epoch, after all commands before it.
///
/// # Safety
/// The command buffer is in the recording state, outside of a render pass, for a family of this device; the memory outlives its execution.
pub(in crate::runtime) unsafe fn record_epoch(
    raw: &ash::Device,
    commands: vk::CommandBuffer,
    memory: &Memory,
    id: TimelineId,
    epoch: u64,
) {
    use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
    let at = carried_offset(id.index().into());
    let (lo, hi) = (epoch as u32, (epoch >> 32) as u32);
    let field = |offset: usize, value: u32| (at + offset as u64, value);
    // In the order that `tr_epoch` relies on. Epochs never go back, so below 2^32 the high halves are 0 already.
    let high = [field(offset_of!(EpochWord, hi_first), hi), field(offset_of!(EpochWord, lo), lo)];
    let (skipped, last) = if hi == 0 { (1, None) } else { (0, Some(field(offset_of!(EpochWord, hi), hi))) };
    // Another value than any that stood there lately: the low bits of the epoch, of this timeline.
    let hint = (u64::from(abi::TR_BELL_RECORDED) * 4, lo << 8 | u32::from(id.index()));
    let fills = high.into_iter().skip(skipped).chain(last).chain([hint]);
    let (mut from, mut written) = (Stage::ALL_COMMANDS, Access::MEMORY_WRITE);
    for (offset, value) in fills {
        // Each after the one before, and the first after everything that the epoch stands for.
        let order = [vk::MemoryBarrier::default().src_access_mask(written).dst_access_mask(Access::TRANSFER_WRITE)];
        // SAFETY: the caller's promises.
        unsafe {
            raw.cmd_pipeline_barrier(commands, from, Stage::TRANSFER, vk::DependencyFlags::empty(), &order, &[], &[]);
        }
        // SAFETY: the caller's promises; the doorbell has transfer usage, all families share it, and the word is inside.
        unsafe { raw.cmd_fill_buffer(commands, memory.bell.raw(), offset, 4, value) };
        (from, written) = (Stage::TRANSFER, Access::TRANSFER_WRITE);
    }
}

/// Submissions on the other queue, each of which waits for a promised value and writes it as an epoch.
#[derive(Debug)]
pub(in crate::runtime) struct Courier {
    device: Device,
    pool: vk::CommandPool,
    commands: Vec<vk::CommandBuffer>,
    /// Counts them.
    ended: Timeline,
    submitted: u64,
}

impl Courier {
    pub(in crate::runtime) fn new(device: &Device) -> Result<Self, BackendError> {
        let family = device.other_queue_family().ok_or(BackendError::NoOtherQueue)?;
        let ended = Timeline::counter(device, "taskring courier")?;
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER | vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(family);
        // SAFETY: the info is complete and the family is one that the device was made with.
        let pool = unsafe { device.raw().create_command_pool(&info, None) };
        let pool = device.created("vkCreateCommandPool", "taskring courier", pool)?;
        let mut courier = Self { device: device.clone(), pool, commands: Vec::new(), ended, submitted: 0 };
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(PENDING as u32);
        // SAFETY: the pool was just made and nobody else uses it.
        let commands = unsafe { device.raw().allocate_command_buffers(&info) };
        courier.commands = commands.map_err(|result| device.fail("vkAllocateCommandBuffers", result))?;
        Ok(courier)
    }

    /// Has an epoch written once the semaphore has reached it. `None` if too many are waited for already; else the number of the submission.
    pub(in crate::runtime) fn send(
        &mut self,
        memory: &Memory,
        semaphore: &Arc<Timeline>,
        id: TimelineId,
        epoch: u64,
    ) -> Result<Option<u64>, BackendError> {
        if self.submitted - self.ended.value()? >= PENDING {
            return Ok(None);
        }
        let raw = self.device.raw();
        let fail = |call, result| self.device.fail(call, result);
        let commands = self.commands[(self.submitted % PENDING) as usize];
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the submission that had this command buffer has ended: fewer than `PENDING` have not.
        let begun = unsafe { raw.begin_command_buffer(commands, &info) };
        begun.map_err(|result| fail("vkBeginCommandBuffer", result))?;
        // SAFETY: it is in the recording state since above, and the runtime keeps the memory until the courier's submissions have ended.
        unsafe { record_epoch(raw, commands, memory, id, epoch) };
        // SAFETY: as above.
        let ended = unsafe { raw.end_command_buffer(commands) };
        ended.map_err(|result| fail("vkEndCommandBuffer", result))?;
        let number = self.submitted + 1;
        let (wait, signal) = ((semaphore.raw(), epoch), (self.ended.raw(), number));
        // SAFETY: the handles are alive, and the runtime keeps them until this submission has ended; only this function signals that timeline.
        unsafe { self.device.submit_on_other_queue(&[commands], Some(wait), Some(signal)) }?;
        self.submitted = number;
        Ok(Some(number))
    }

    /// How many of the submissions have ended.
    pub(in crate::runtime) fn ended(&self) -> Result<u64, BackendError> {
        self.ended.value()
    }

    /// Waits until all of them have ended. True if so.
    pub(in crate::runtime) fn rest(&self, timeout: Duration) -> Result<bool, BackendError> {
        self.ended.wait(self.submitted, timeout)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        // SAFETY: the runtime has waited for the last submission, or it leaks this value; nobody else has the pool.
        unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
    }
}
