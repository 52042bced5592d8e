//! `vkQueueSubmit` with a fence, which is what a program without timeline semaphores has.

use taskring::{Device, vk};

use crate::Error;
use crate::kernel::failed;
use crate::submissions::{LONGEST, On, Submissions, late, poll};

/// A command buffer that is submitted with a fence, once at a time.
pub struct Fenced {
    device: Device,
    /// `None` once it would rather leak.
    submissions: Option<Submissions>,
    fence: vk::Fence,
    submitted: u64,
    /// Whether the last submission was seen to end, or there was none.
    ended: bool,
}

impl std::fmt::Debug for Fenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fenced").field("submitted", &self.submitted).finish_non_exhaustive()
    }
}

impl Fenced {
    /// One empty dispatch, on the queue that taskring's slices run on.
    ///
    /// # Errors
    /// What Vulkan says.
    pub fn new(device: &Device) -> Result<Self, Error> {
        let submissions = Submissions::new(device, On::Slices)?;
        // SAFETY: the device lives, and the info is complete.
        let fence = unsafe { device.raw().create_fence(&vk::FenceCreateInfo::default(), None) };
        let fence = fence.map_err(failed("vkCreateFence"))?;
        Ok(Self { device: device.clone(), submissions: Some(submissions), fence, submitted: 0, ended: true })
    }

    /// Submits once, and asks for the fence until it is signalled.
    ///
    /// # Errors
    /// What Vulkan says; [`Error::Wrong`] if it has not ended after half a minute, or the one before has not.
    pub fn submit_and_poll(&mut self) -> Result<(), Error> {
        let Some(submissions) = self.submissions.as_ref().filter(|_| self.ended) else {
            return Err(late(self.submitted));
        };
        let (commands, raw) = (submissions.commands(), self.device.raw());
        // SAFETY: the fence is this value's own, and what was submitted with it has ended.
        unsafe { raw.reset_fences(&[self.fence]) }.map_err(failed("vkResetFences"))?;
        self.submitted += 1;
        // SAFETY: the command buffer was recorded for this queue's family, the fence is unsignalled, and `Drop` waits before either goes.
        unsafe { self.device.submit_with_fence(&[commands], self.fence) }?;
        self.ended = false;
        // SAFETY: the fence lives as long as this value.
        poll(self.submitted, || unsafe { raw.get_fence_status(self.fence) }.map_err(failed("vkGetFenceStatus")))?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: the fence lives as long as this value.
        let waits = || unsafe { raw.wait_for_fences(&[self.fence], true, LONGEST.as_nanos() as u64) };
        if !self.ended && waits() == Err(vk::Result::TIMEOUT) {
            // What still runs uses them.
            std::mem::forget(self.submissions.take());
            return;
        }
        // SAFETY: nothing that was submitted with it runs any more, and it is this value's own.
        unsafe { raw.destroy_fence(self.fence, None) };
    }
}
