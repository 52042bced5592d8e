//! A timeline semaphore with bounded waits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ash::vk;

use super::chains;
use super::context::Device;
use crate::BackendError;

/// A timeline semaphore of our own.
///
/// Dropping it hands the semaphore to the device, which destroys it with itself: on Mesa a semaphore that is destroyed
/// right after a wait can make a later wait hang. So make few timelines and keep them, rather than one for each use.
#[derive(Debug)]
pub struct Timeline {
    device: Device,
    raw: vk::Semaphore,
    /// Held between reading the value and signalling a greater one, so that host signals cannot overtake each other.
    signalling: Mutex<()>,
}

impl Timeline {
    /// Creates a timeline that stands at `initial`.
    ///
    /// # Errors
    /// [`BackendError::Vulkan`] if the driver refuses, [`BackendError::DeviceLost`] if the device is lost.
    pub fn new(device: &Device, name: &str, initial: u64) -> Result<Self, BackendError> {
        device.check()?;
        // SAFETY: every device of ours has timeline semaphores enabled.
        let created = unsafe { chains::create_timeline(device.raw(), initial) };
        let raw = device.created("vkCreateSemaphore", name, created)?;
        Ok(Self { device: device.clone(), raw, signalling: Mutex::new(()) })
    }

    /// The value that it stands at. Takes some 10 ns; nothing blocks.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] if the device is lost.
    pub fn value(&self) -> Result<u64, BackendError> {
        self.device.check()?;
        // SAFETY: the semaphore is a timeline and lives as long as `self`.
        let value = unsafe { self.device.raw().get_semaphore_counter_value(self.raw) };
        value.map_err(|result| self.device.fail("vkGetSemaphoreCounterValue", result))
    }

    /// Blocks until the timeline has reached `value` or `timeout` is over, and says whether it was reached.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] if the device is lost.
    pub fn wait(&self, value: u64, timeout: Duration) -> Result<bool, BackendError> {
        self.device.check()?;
        // Drivers add the timeout to a clock. This bound, 146 years, keeps the sum from wrapping.
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 4);
        let (semaphores, values) = ([self.raw], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is a timeline and lives as long as `self`; `info` lives until the call returns.
        match unsafe { self.device.raw().wait_semaphores(&info, timeout) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(self.device.fail("vkWaitSemaphores", result)),
        }
    }

    /// Moves the timeline to `value` from the host.
    ///
    /// A timeline that submissions signal too must not be moved past them: Vulkan wants the value below that of every
    /// pending signal, and only the caller knows those.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] if the timeline stands at `value` or further, [`BackendError::DeviceLost`] if the
    /// device is lost.
    pub fn signal(&self, value: u64) -> Result<(), BackendError> {
        let _order = self.signalling.lock().unwrap_or_else(PoisonError::into_inner);
        if value <= self.value()? {
            let must = "greater than the value that the timeline stands at";
            return Err(BackendError::BadOption { option: "timeline value", value, must });
        }
        let info = vk::SemaphoreSignalInfo::default().semaphore(self.raw).value(value);
        // SAFETY: the semaphore is a timeline, lives as long as `self`, and stands below `value`.
        let signalled = unsafe { self.device.raw().signal_semaphore(&info) };
        signalled.map_err(|result| self.device.fail("vkSignalSemaphore", result))
    }

    /// The semaphore. It stays `self`'s: do not destroy it.
    #[must_use]
    pub fn raw(&self) -> vk::Semaphore {
        self.raw
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.device.retire(self.raw);
    }
}
