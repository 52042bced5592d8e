//! Device loss is for good: once seen, it is what every later call reports.

use std::sync::{Arc, OnceLock};

use ash::vk;

use super::fault::FaultReport;
use crate::BackendError;

/// What asks the driver for its report.
type Ask = Box<dyn Fn() -> Option<FaultReport> + Send + Sync>;

/// Remembers the first Vulkan command that said that the device is lost, and what the driver said about it.
pub(super) struct Loss {
    first: OnceLock<(&'static str, Option<Arc<FaultReport>>)>,
    ask: Option<Ask>,
}

impl Loss {
    /// `ask` is called once, when the device is lost; `None` where the driver tells nothing.
    pub(super) fn new(ask: Option<Ask>) -> Self {
        Self { first: OnceLock::new(), ask }
    }

    /// The error for a command that failed; device loss is remembered.
    #[cold]
    pub(super) fn note(&self, call: &'static str, result: vk::Result) -> BackendError {
        if result == vk::Result::ERROR_DEVICE_LOST {
            self.first.get_or_init(|| {
                let fault = self.ask.as_ref().and_then(|ask| ask()).map(Arc::new);
                tracing::error!(call, fault = fault.as_deref().map(tracing::field::display), "the device is lost");
                (call, fault)
            });
        }
        self.check().err().unwrap_or_else(|| BackendError::vulkan(call, result))
    }

    /// Says that the device is lost, if it ever was.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        match self.first.get() {
            Some((call, fault)) => Err(BackendError::DeviceLost { call, fault: fault.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    const LOST: vk::Result = vk::Result::ERROR_DEVICE_LOST;

    #[test]
    fn an_ordinary_failure_is_reported_and_forgotten_and_the_driver_is_not_asked() {
        let loss = Loss::new(Some(Box::new(|| panic!("the device is not lost"))));
        let (call, result) = ("vkCreateBuffer", vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
        assert_eq!(loss.note(call, result), BackendError::Vulkan { call, result });
        assert_eq!(loss.check(), Ok(()));
    }

    #[test]
    fn device_loss_is_reported_by_everything_that_follows_and_names_the_first_call() {
        let loss = Loss::new(None);
        let lost = BackendError::DeviceLost { call: "vkQueueSubmit", fault: None };
        assert_eq!(loss.note("vkQueueSubmit", LOST), lost);
        assert_eq!(loss.check(), Err(lost.clone()));
        assert_eq!(loss.note("vkWaitSemaphores", LOST), lost);
        assert_eq!(loss.note("vkCreateBuffer", vk::Result::ERROR_OUT_OF_HOST_MEMORY), lost);
    }

    #[test]
    fn the_driver_is_asked_once_and_its_report_is_in_every_error_from_then_on() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let report = FaultReport { description: "page fault".into(), ..FaultReport::default() };
        let told = report.clone();
        let loss = Loss::new(Some(Box::new(move || {
            ASKED.fetch_add(1, Relaxed);
            Some(told.clone())
        })));
        let lost = BackendError::DeviceLost { call: "vkQueueSubmit", fault: Some(Arc::new(report)) };
        assert_eq!(loss.note("vkQueueSubmit", LOST), lost);
        assert_eq!(loss.note("vkWaitSemaphores", LOST), lost);
        assert_eq!(loss.check(), Err(lost.clone()));
        assert_eq!(ASKED.load(Relaxed), 1);
        assert!(lost.to_string().starts_with("the device was lost in vkQueueSubmit: page fault; "), "{lost}");
    }
}
