//! Record, don't submit: slices in the command buffers of an engine that batches its own submissions.

use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use super::Runtime;
use crate::device::Timeline;
use crate::error::BackendError;

/// # Slices that the engine submits
impl Runtime {
    /// Records a slice into the engine's command buffer, whose submission signals `ended`, a timeline semaphore, to this value. False if nothing was
    /// recorded, because no task could run or the slices before still do: then the command buffer is as it was. Does not wait for the device.
    ///
    /// The slice stays for about `budget`, from 1 µs to 1 s, and leaves at once when there is nothing to do. What a turn takes is not interrupted.
    /// Until a slice has shown how fast the device counts, it is bounded by few turns. In boundary mode one slice can be under way, in live mode
    /// two, so an engine with more frames in flight gets none for some of them.
    ///
    /// With [`RuntimeOptions::record_only`](crate::RuntimeOptions::record_only) these are all slices that there are; without, the runtime submits
    /// its own when none is recorded.
    ///
    /// What was recorded before in the same command buffer, or submitted before, tasks see; what they wrote, commands after it see. If they are to see
    /// what another queue wrote, the engine's submission waits for that queue. The bound compute pipeline and the push constants are others afterwards.
    ///
    /// # Safety
    /// - The command buffer is in the recording state, outside of a render pass, for the family of [`Device::queue_family`](crate::Device::queue_family).
    /// - It is executed exactly once, in the order in which slices were recorded, on the queue that slices are submitted to; or
    ///   [`Runtime::discard_slice`] is called before another is recorded.
    /// - The submission that executes it signals the value, after it.
    /// - The runtime is kept until then.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] for a budget out of range or a semaphore as in [`Runtime::register_timeline`]; [`BackendError::ValueTaken`] for a
    /// value that is not greater than what was reached or promised before; as [`Runtime::poll`]. Nothing was recorded then.
    pub unsafe fn record_slice(
        &self,
        commands: vk::CommandBuffer,
        (ended, value): (&Arc<Timeline>, u64),
        budget: Duration,
    ) -> Result<bool, BackendError> {
        self.accept_semaphore(ended)?;
        let micros = u64::try_from(budget.as_micros()).unwrap_or(u64::MAX);
        if !(1..=1_000_000).contains(&micros) {
            return Err(BackendError::BadOption { option: "budget", value: micros, must: "from 1 us to 1 s" });
        }
        let end = (ended.clone(), value);
        let recorded = self.0.driving(|inner, driver, context| {
            // SAFETY: the caller's promises.
            let recorded = unsafe { driver.record(context, commands, end, budget) };
            recorded.map_err(|error| match error {
                error @ BackendError::ValueTaken { .. } => error,
                error => inner.break_with(error),
            })
        })?;
        if recorded {
            self.0.alarm.ring();
            self.0.shared.changed.notify_all();
        }
        Ok(recorded)
    }

    /// Takes the slice that was recorded last back, of a command buffer that is not submitted after all: its tasks wait for the next one. True if there
    /// was one.
    ///
    /// # Safety
    /// The command buffer was not submitted and never is.
    ///
    /// # Errors
    /// As [`Runtime::poll`].
    pub unsafe fn discard_slice(&self) -> Result<bool, BackendError> {
        // SAFETY: the caller's promise.
        let discarded = self.0.driving(|_, driver, context| unsafe { driver.discard(context) });
        self.0.alarm.ring();
        discarded
    }
}
