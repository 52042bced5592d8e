//! The queues of the device, and who may submit to them when.

use ash::vk;

use super::borrow::EngineQueue;
use super::chains;
use super::context::Device;
use super::plan::{DevicePlan, QueueSlot};
use crate::BackendError;

/// A queue of the device, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueRole {
    /// Slices run on it; [`Device::submit`].
    Slices,
    /// No slice runs on it; [`Device::submit_on_other_queue`].
    Other,
    /// It can copy and nothing else; [`Device::submit_on_transfer_queue`].
    Transfer,
}

/// A queue; Vulkan wants one caller at a time.
type Queue = EngineQueue;

/// The queues of the plan.
pub(super) struct Queues {
    slices: Queue,
    other: Option<Queue>,
    transfer: Option<Queue>,
}

impl Queues {
    /// Asks for the queues.
    ///
    /// # Safety
    /// The device was created with the queues of this plan.
    pub(super) unsafe fn of(device: &ash::Device, plan: &DevicePlan) -> Self {
        let queue = |slot: QueueSlot| {
            // SAFETY: the caller's promise.
            EngineQueue::given(unsafe { device.get_device_queue(slot.family, slot.index) }, slot)
        };
        Self {
            slices: queue(plan.slices_queue()),
            other: plan.other_queue.map(queue),
            transfer: plan.transfer_queue.map(queue),
        }
    }

    /// An engine's queues.
    pub(super) fn borrowed(slices: EngineQueue, other: Option<EngineQueue>) -> Self {
        Self { slices, other, transfer: None }
    }

    /// Gives the queues the names that tools and validation messages show.
    pub(super) fn name(&self, device: &Device) {
        let named = [
            (Some(&self.slices), "taskring slices"),
            (self.other.as_ref(), "taskring other queue"),
            (self.transfer.as_ref(), "taskring transfer queue"),
        ];
        for (queue, name) in named {
            if let Some(queue) = queue {
                device.name(queue.raw, name);
            }
        }
    }
}

impl Device {
    /// The family of the queue that [`Device::submit`] submits to; command pools are made for it.
    #[must_use]
    pub fn queue_family(&self) -> u32 {
        self.plan().queue_family
    }

    /// The family of the queue that [`Device::submit_on_other_queue`] submits to, if there is one.
    #[must_use]
    pub fn other_queue_family(&self) -> Option<u32> {
        self.plan().other_queue.map(|slot| slot.family)
    }

    /// The family of the queue that [`Device::submit_on_transfer_queue`] submits to, if there is one.
    #[must_use]
    pub fn transfer_queue_family(&self) -> Option<u32> {
        self.plan().transfer_queue.map(|slot| slot.family)
    }

    /// The family of the queue with this role, if there is one.
    #[must_use]
    pub fn family_of(&self, role: QueueRole) -> Option<u32> {
        match role {
            QueueRole::Slices => Some(self.queue_family()),
            QueueRole::Other => self.other_queue_family(),
            QueueRole::Transfer => self.transfer_queue_family(),
        }
    }

    /// Submits to the queue with this role.
    ///
    /// # Safety
    /// As for the role's own function.
    ///
    /// # Errors
    /// As the role's own function.
    pub unsafe fn submit_on(
        &self,
        role: QueueRole,
        command_buffers: &[vk::CommandBuffer],
        wait: Option<(vk::Semaphore, u64)>,
        signal: Option<(vk::Semaphore, u64)>,
    ) -> Result<(), BackendError> {
        match role {
            // SAFETY: the caller's promises.
            QueueRole::Slices => unsafe { self.submit(command_buffers, wait, signal) },
            // SAFETY: as above.
            QueueRole::Other => unsafe { self.submit_on_other_queue(command_buffers, wait, signal) },
            // SAFETY: as above.
            QueueRole::Transfer => unsafe { self.submit_on_transfer_queue(command_buffers, wait, signal) },
        }
    }

    /// Submits command buffers to the compute queue, after `wait` was reached and with `signal` when they are done.
    ///
    /// It stands behind the slices of runtimes that were submitted before, which in live mode stay for a while even if
    /// there is nothing to do: [`Runtime::end_slice`](crate::Runtime::end_slice) makes way.
    ///
    /// Both are timeline semaphores with a value. The wait holds up the whole queue and cannot be taken back, so it
    /// should be for a value that is sure to come.
    ///
    /// # Safety
    /// All that `vkQueueSubmit` demands: the handles are live ones of this device, the command buffers are recorded for
    /// [`Device::queue_family`] and not pending unless recorded for that, the signalled value is greater than any that
    /// is pending; and everything that the command buffers use, this device included, is kept until they are done.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] or [`BackendError::Vulkan`]; then nothing was submitted.
    pub unsafe fn submit(
        &self,
        command_buffers: &[vk::CommandBuffer],
        wait: Option<(vk::Semaphore, u64)>,
        signal: Option<(vk::Semaphore, u64)>,
    ) -> Result<(), BackendError> {
        // SAFETY: the caller's promises.
        unsafe { self.submit_to(&self.queues().slices, command_buffers, wait.as_slice(), signal, vk::Fence::null()) }
    }

    /// As [`Device::submit`], with a fence that is signalled at their end, for programs that have no timeline semaphores.
    ///
    /// # Safety
    /// As for [`Device::submit`]; the fence is a live one of this device, unsignalled, and of no other submission that has not ended.
    ///
    /// # Errors
    /// As [`Device::submit`].
    pub unsafe fn submit_with_fence(
        &self,
        command_buffers: &[vk::CommandBuffer],
        fence: vk::Fence,
    ) -> Result<(), BackendError> {
        // SAFETY: the caller's promises.
        unsafe { self.submit_to(&self.queues().slices, command_buffers, &[], None, fence) }
    }

    /// As [`Device::submit`], to a queue that no slice runs on, and with no order between the two but what the
    /// semaphores say. It is there to see what slices cost other queues, in the self-test and in benchmarks, and for
    /// what must not stand behind a slice, such as carrying semaphore values.
    ///
    /// # Safety
    /// As for [`Device::submit`], with command buffers recorded for [`Device::other_queue_family`]. If that is another
    /// family, buffers that both queues use need an ownership transfer wherever their contents are to be kept, unless
    /// they are [shared](super::BufferDesc::shared).
    ///
    /// # Errors
    /// [`BackendError::NoOtherQueue`] if the plan has none, [`BackendError::DeviceLost`] or [`BackendError::Vulkan`];
    /// then nothing was submitted.
    pub unsafe fn submit_on_other_queue(
        &self,
        command_buffers: &[vk::CommandBuffer],
        wait: Option<(vk::Semaphore, u64)>,
        signal: Option<(vk::Semaphore, u64)>,
    ) -> Result<(), BackendError> {
        let queue = self.queues().other.as_ref().ok_or(BackendError::NoOtherQueue)?;
        // SAFETY: the caller's promises.
        unsafe { self.submit_to(queue, command_buffers, wait.as_slice(), signal, vk::Fence::null()) }
    }

    /// As [`Device::submit`], to a queue that can copy and fill and nothing else: what stands there takes no part of
    /// the device from slices or frames but memory bandwidth. There is no order between the queues but what the
    /// semaphores say.
    ///
    /// # Safety
    /// As for [`Device::submit_on_other_queue`], with command buffers recorded for [`Device::transfer_queue_family`],
    /// which is always another family than the other queues'.
    ///
    /// # Errors
    /// [`BackendError::NoTransferQueue`] if the plan has none, [`BackendError::DeviceLost`] or
    /// [`BackendError::Vulkan`]; then nothing was submitted.
    pub unsafe fn submit_on_transfer_queue(
        &self,
        command_buffers: &[vk::CommandBuffer],
        wait: Option<(vk::Semaphore, u64)>,
        signal: Option<(vk::Semaphore, u64)>,
    ) -> Result<(), BackendError> {
        let queue = self.queues().transfer.as_ref().ok_or(BackendError::NoTransferQueue)?;
        // SAFETY: the caller's promises.
        unsafe { self.submit_to(queue, command_buffers, wait.as_slice(), signal, vk::Fence::null()) }
    }

    /// As [`Device::submit`], after several values.
    ///
    /// # Safety
    /// As for [`Device::submit`].
    pub(crate) unsafe fn submit_after(
        &self,
        command_buffers: &[vk::CommandBuffer],
        waits: &[(vk::Semaphore, u64)],
        signal: Option<(vk::Semaphore, u64)>,
    ) -> Result<(), BackendError> {
        // SAFETY: the caller's promises.
        unsafe { self.submit_to(&self.queues().slices, command_buffers, waits, signal, vk::Fence::null()) }
    }

    /// Submits to a queue of this device.
    ///
    /// # Safety
    /// As for [`Device::submit`], with command buffers recorded for the family of this queue.
    unsafe fn submit_to(
        &self,
        queue: &Queue,
        command_buffers: &[vk::CommandBuffer],
        waits: &[(vk::Semaphore, u64)],
        signal: Option<(vk::Semaphore, u64)>,
        fence: vk::Fence,
    ) -> Result<(), BackendError> {
        self.check()?;
        let mut submitted = None;
        queue.lock.hold(&mut || {
            // An engine's lock that calls twice must not submit twice.
            submitted.get_or_insert_with(|| {
                // SAFETY: the caller's promises; the queue is locked until the call returns.
                unsafe { chains::submit(self.raw(), queue.raw, command_buffers, waits, signal, fence) }
            });
        });
        let silent =
            || BackendError::Protocol { what: "the engine's queue lock did not let a submission through".into() };
        submitted.ok_or_else(silent)?.map_err(|result| self.fail("vkQueueSubmit", result))
    }
}
