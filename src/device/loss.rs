//! Device loss is for good: once seen, it is what every later call reports.

use std::sync::OnceLock;

use ash::vk;

use crate::BackendError;

/// Remembers the first Vulkan command that said that the device is lost.
#[derive(Debug, Default)]
pub(super) struct Loss(OnceLock<&'static str>);

impl Loss {
    /// The error for a command that failed; device loss is remembered.
    #[cold]
    pub(super) fn note(&self, call: &'static str, result: vk::Result) -> BackendError {
        if result == vk::Result::ERROR_DEVICE_LOST {
            self.0.get_or_init(|| call);
        }
        self.check().err().unwrap_or_else(|| BackendError::vulkan(call, result))
    }

    /// Says that the device is lost, if it ever was.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        self.0.get().map_or(Ok(()), |call| Err(BackendError::DeviceLost { call }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_failure_is_reported_and_forgotten() {
        let loss = Loss::default();
        let (call, result) = ("vkCreateBuffer", vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        assert_eq!(loss.note(call, result), BackendError::Vulkan { call, result });
        assert_eq!(loss.check(), Ok(()));
    }

    #[test]
    fn device_loss_is_reported_by_everything_that_follows_and_names_the_first_call() {
        let loss = Loss::default();
        let lost = BackendError::DeviceLost { call: "vkQueueSubmit" };
        assert_eq!(loss.note("vkQueueSubmit", vk::Result::ERROR_DEVICE_LOST), lost);
        assert_eq!(loss.check(), Err(lost.clone()));
        assert_eq!(loss.note("vkWaitSemaphores", vk::Result::ERROR_DEVICE_LOST), lost);
        assert_eq!(loss.note("vkCreateBuffer", vk::Result::ERROR_OUT_OF_HOST_MEMORY), lost);
    }
}
