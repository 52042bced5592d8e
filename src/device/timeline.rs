//! A timeline semaphore with bounded waits: taskring's own, the engine's, or one that goes to other processes.

#[cfg(unix)]
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ash::vk;

use super::chains;
use super::context::Device;
use crate::BackendError;

/// A timeline semaphore: one of our own, or one that was borrowed from the engine.
///
/// Dropping one of our own hands the semaphore to the device, which destroys it with itself: on Mesa a semaphore that
/// is destroyed right after a wait can make a later wait hang. So make few timelines and keep them, rather than one for
/// each use. Dropping a borrowed one destroys nothing.
#[derive(Debug)]
pub struct Timeline {
    device: Device,
    raw: vk::Semaphore,
    origin: Origin,
    /// Held between reading the value and signalling a greater one, so that host signals cannot overtake each other.
    signalling: Mutex<()>,
}

/// Where a timeline comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Ours; its payload may have come from a descriptor.
    Own,
    /// Ours, and made to be exported.
    Exportable,
    /// Somebody else's.
    Borrowed,
    /// Ours, and signalled by submissions alone: what it says about them is relied on.
    Counter,
}

impl Timeline {
    /// Creates a timeline that stands at `initial`.
    ///
    /// # Errors
    /// [`BackendError::Vulkan`] if the driver refuses, [`BackendError::DeviceLost`] if the device is lost.
    pub fn new(device: &Device, name: &str, initial: u64) -> Result<Self, BackendError> {
        Self::create(device, name, initial, Origin::Own)
    }

    /// Creates a timeline that counts submissions from 0, and that nobody signals but they.
    pub(crate) fn counter(device: &Device, name: &str) -> Result<Self, BackendError> {
        Self::create(device, name, 0, Origin::Counter)
    }

    /// Whether it is one of [`Timeline::counter`].
    pub(crate) fn counts(&self) -> bool {
        self.origin == Origin::Counter
    }

    /// Creates a timeline that stands at `initial` and that [`Timeline::export_fd`] gives to other devices and
    /// processes.
    ///
    /// # Errors
    /// [`BackendError::NoExternalTimelines`] unless [`DevicePlan::external_timelines`](super::DevicePlan) is set,
    /// [`BackendError::Vulkan`] if the driver refuses, [`BackendError::DeviceLost`] if the device is lost.
    pub fn exportable(device: &Device, name: &str, initial: u64) -> Result<Self, BackendError> {
        if !device.plan().external_timelines {
            return Err(BackendError::NoExternalTimelines);
        }
        Self::create(device, name, initial, Origin::Exportable)
    }

    /// Uses a timeline of the engine's. It keeps its name, and dropping the value destroys nothing.
    ///
    /// # Safety
    /// The semaphore is a timeline semaphore of this device that lives at least as long as the value and everything
    /// that is submitted with it. Whoever else signals it keeps Vulkan's order: each value greater than the one before.
    #[must_use]
    pub unsafe fn borrow(device: &Device, raw: vk::Semaphore) -> Self {
        Self::wrap(device, raw, Origin::Borrowed)
    }

    fn create(device: &Device, name: &str, initial: u64, origin: Origin) -> Result<Self, BackendError> {
        device.check()?;
        let exportable = origin == Origin::Exportable;
        // SAFETY: every device of ours has timeline semaphores enabled; `exportable` looked at the plan.
        let created = unsafe { chains::create_timeline(device.raw(), initial, exportable) };
        let raw = device.created("vkCreateSemaphore", name, created)?;
        Ok(Self::wrap(device, raw, origin))
    }

    fn wrap(device: &Device, raw: vk::Semaphore, origin: Origin) -> Self {
        Self { device: device.clone(), raw, origin, signalling: Mutex::new(()) }
    }

    /// The value that it stands at. Takes some 10 ns; nothing blocks.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] if the device is lost.
    pub fn value(&self) -> Result<u64, BackendError> {
        // The validation layer (1.3.239) now and then loses a signal of the host that comes while another thread looks.
        let _order = self.device.is_validated().then(|| self.in_order());
        self.reading()
    }

    fn reading(&self) -> Result<u64, BackendError> {
        self.device.check()?;
        // SAFETY: the semaphore is a timeline and lives as long as `self`.
        let value = unsafe { self.device.raw().get_semaphore_counter_value(self.raw) };
        value.map_err(|result| self.device.fail("vkGetSemaphoreCounterValue", result))
    }

    fn in_order(&self) -> MutexGuard<'_, ()> {
        self.signalling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the timeline has reached `value` or `timeout` is over, and says whether it was reached.
    ///
    /// On NVIDIA's driver it looks now and then instead, and so do all waits of this crate: of several threads that block on one semaphore there, all but
    /// one wake ten milliseconds late, and they may be the engine's.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] if the device is lost.
    pub fn wait(&self, value: u64, timeout: Duration) -> Result<bool, BackendError> {
        self.device.wait_semaphores(vk::SemaphoreWaitFlags::empty(), &[(self, value)], timeout)
    }

    /// Moves the timeline to `value` from the host.
    ///
    /// A timeline that submissions signal too must not be moved past them: Vulkan wants the value below that of every
    /// pending signal, and only the caller knows those. How far one step may go is
    /// [`LimitFacts::max_timeline_difference`](super::LimitFacts); it bounds the distance to what is pending too.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] if the timeline stands at `value` or further, or counts submissions, [`BackendError::TimelineJump`] if
    /// `value` is further away than the device allows, [`BackendError::DeviceLost`] if the device is lost; the timeline
    /// then stays where it is.
    pub fn signal(&self, value: u64) -> Result<(), BackendError> {
        let _order = self.in_order();
        if self.counts() {
            let must = "one that does not count submissions";
            return Err(BackendError::BadOption { option: "timeline", value, must });
        }
        check_step(self.reading()?, value, self.device.facts().limits.max_timeline_difference)?;
        let info = vk::SemaphoreSignalInfo::default().semaphore(self.raw).value(value);
        // SAFETY: the semaphore is a timeline, lives as long as `self`, and stands below `value` by no more than the limit.
        let signalled = unsafe { self.device.raw().signal_semaphore(&info) };
        signalled.map_err(|result| self.device.fail("vkSignalSemaphore", result))
    }

    /// Says whether [`Timeline::signal`] would refuse `value` as too far away.
    ///
    /// # Errors
    /// [`BackendError::TimelineJump`]; [`BackendError::DeviceLost`] if the device is lost.
    pub(crate) fn check_jump(&self, value: u64) -> Result<(), BackendError> {
        match check_step(self.value()?, value, self.device.facts().limits.max_timeline_difference) {
            Err(error @ BackendError::TimelineJump { .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether it is a timeline of this device.
    pub(crate) fn belongs_to(&self, device: &Device) -> bool {
        self.device.is(device)
    }

    /// The semaphore. It stays `self`'s, or its lender's: do not destroy it.
    #[must_use]
    pub fn raw(&self) -> vk::Semaphore {
        self.raw
    }
}

#[cfg(unix)]
impl Timeline {
    /// A descriptor of the timeline, which [`Timeline::import_fd`], or an engine, makes a semaphore of: on the same
    /// physical device with the same driver, in this process or another. What one of them signals, all see.
    ///
    /// # Errors
    /// [`BackendError::NotExportable`] if this is not a timeline of [`Timeline::exportable`],
    /// [`BackendError::Vulkan`] if the driver refuses, [`BackendError::DeviceLost`] if the device is lost.
    pub fn export_fd(&self) -> Result<OwnedFd, BackendError> {
        self.device.check()?;
        if self.origin != Origin::Exportable {
            return Err(BackendError::NotExportable);
        }
        let functions = self.device.external_semaphores()?;
        let kind = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
        let info = vk::SemaphoreGetFdInfoKHR::default().semaphore(self.raw).handle_type(kind);
        // SAFETY: the semaphore was made to be exported like this and lives as long as `self`.
        let exported = unsafe { functions.get_semaphore_fd(&info) };
        let fd = exported.map_err(|result| self.device.fail("vkGetSemaphoreFdKHR", result))?;
        // SAFETY: Vulkan gives each caller a new descriptor and leaves it to them.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The timeline that a descriptor stands for. What the others signal is seen here, for as long as it lives, and the
    /// other way round.
    ///
    /// The driver takes the descriptor over. If the import fails, the descriptor is closed.
    ///
    /// # Safety
    /// The descriptor was exported as `OPAQUE_FD` from a timeline semaphore, by the same driver for the same physical
    /// device: Vulkan does not ask drivers to tell it from any other. Whoever else signals the timeline keeps Vulkan's
    /// order: each value greater than the one before.
    ///
    /// # Errors
    /// [`BackendError::NoExternalTimelines`] unless [`DevicePlan::external_timelines`](super::DevicePlan) is set,
    /// [`BackendError::Vulkan`] if the driver refuses, [`BackendError::DeviceLost`] if the device is lost.
    pub unsafe fn import_fd(device: &Device, name: &str, fd: OwnedFd) -> Result<Self, BackendError> {
        let functions = device.external_semaphores()?;
        let timeline = Self::create(device, name, 0, Origin::Own)?;
        let info = vk::ImportSemaphoreFdInfoKHR::default()
            .semaphore(timeline.raw)
            .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
            .fd(fd.as_raw_fd());
        // SAFETY: the semaphore is a timeline that nobody uses yet; the caller vouches for the descriptor.
        let imported = unsafe { functions.import_semaphore_fd(&info) };
        imported.map_err(|result| device.fail("vkImportSemaphoreFdKHR", result))?;
        // The driver owns the descriptor from here on; up to here it was ours to close.
        let _ = fd.into_raw_fd();
        Ok(timeline)
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        if self.origin != Origin::Borrowed {
            self.device.retire(self.raw);
        }
    }
}

impl Device {
    /// Blocks until one of the timelines has reached its value or `timeout` is over, and says whether one has. Which
    /// one it is, [`Timeline::value`] tells. With no timelines there is nothing to wait for: the answer is `false`, at
    /// once.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] with the position of a timeline that is another device's,
    /// [`BackendError::DeviceLost`] if the device is lost.
    pub fn wait_any(&self, timelines: &[(&Timeline, u64)], timeout: Duration) -> Result<bool, BackendError> {
        if let Some(stranger) = timelines.iter().position(|(timeline, _)| !timeline.device.is(self)) {
            let must = "the position of a timeline of the device that waits for it";
            return Err(BackendError::BadOption { option: "timelines", value: stranger as u64, must });
        }
        if timelines.is_empty() {
            return self.check().map(|()| false);
        }
        self.wait_semaphores(vk::SemaphoreWaitFlags::ANY, timelines, timeout)
    }

    /// Waits for timelines of this device that the caller holds, each with its value.
    fn wait_semaphores(
        &self,
        flags: vk::SemaphoreWaitFlags,
        timelines: &[(&Timeline, u64)],
        timeout: Duration,
    ) -> Result<bool, BackendError> {
        self.check()?;
        if self.facts().waiters_collide() {
            return look_until(timeout, || have_reached(flags, timelines));
        }
        let (semaphores, values): (Vec<_>, Vec<_>) =
            timelines.iter().map(|(timeline, value)| (timeline.raw, *value)).unzip();
        // Drivers add the timeout to a clock. This bound, 146 years, keeps the sum from wrapping.
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 4);
        let info = vk::SemaphoreWaitInfo::default().flags(flags).semaphores(&semaphores).values(&values);
        // SAFETY: both callers pass timelines of this device that they hold, with as many values; `info` lives until
        // the call returns.
        match unsafe { self.raw().wait_semaphores(&info, timeout) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(self.fail("vkWaitSemaphores", result)),
        }
    }
}

/// Whether a wait with these flags would end at once.
fn have_reached(flags: vk::SemaphoreWaitFlags, timelines: &[(&Timeline, u64)]) -> Result<bool, BackendError> {
    let any = flags.contains(vk::SemaphoreWaitFlags::ANY);
    for (timeline, value) in timelines {
        if (timeline.reading()? >= *value) == any {
            return Ok(any);
        }
    }
    Ok(!any)
}

/// How long a thread that has waited so long, and looks now and then, sleeps before it looks again: it is some percent late.
pub(crate) fn nap(waited: Duration) -> Duration {
    (waited / 32).clamp(Duration::from_micros(20), Duration::from_micros(500))
}

/// Looks now and then until `reached` says so or `timeout` is over, and at least once.
fn look_until(
    timeout: Duration,
    mut reached: impl FnMut() -> Result<bool, BackendError>,
) -> Result<bool, BackendError> {
    let start = Instant::now();
    while !reached()? {
        let waited = start.elapsed();
        if waited >= timeout {
            return Ok(false);
        }
        std::thread::sleep(nap(waited).min(timeout - waited));
    }
    Ok(true)
}

/// Whether a timeline at `current` may be moved to `value` where one step may be `limit` long.
fn check_step(current: u64, value: u64, limit: u64) -> Result<(), BackendError> {
    match value.checked_sub(current) {
        None | Some(0) => {
            let must = "greater than the value that the timeline stands at";
            Err(BackendError::BadOption { option: "timeline value", value, must })
        }
        Some(step) if step > limit => Err(BackendError::TimelineJump { value, current, limit }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_now_and_then_looks_at_least_once_and_says_what_it_saw() {
        let (seconds, mut looks) = (Duration::from_secs(60), 0);
        let third = look_until(seconds, || {
            looks += 1;
            Ok(looks == 3)
        });
        assert_eq!((third, looks), (Ok(true), 3));
        assert_eq!(look_until(Duration::ZERO, || Ok(true)), Ok(true));
        assert_eq!(look_until(Duration::from_micros(300), || Ok(false)), Ok(false));
        let lost = BackendError::DeviceLost { call: "a look", fault: None };
        assert_eq!(look_until(seconds, || Err(lost.clone())), Err(lost));
    }

    #[test]
    fn a_look_at_timelines_asks_for_any_or_for_all_as_a_wait_does() {
        let device = Device::new(super::super::DeviceOptions::default()).expect("a device");
        let (low, high) = [1, 5].map(|value| Timeline::new(&device, "looked at", value).expect("a timeline")).into();
        let looks = |low_value, high_value| {
            let both = [(&low, low_value), (&high, high_value)];
            [vk::SemaphoreWaitFlags::ANY, vk::SemaphoreWaitFlags::empty()].map(|flags| have_reached(flags, &both))
        };
        assert_eq!(looks(1, 5), [Ok(true), Ok(true)]);
        assert_eq!(looks(2, 5), [Ok(true), Ok(false)]);
        assert_eq!(looks(1, 6), [Ok(true), Ok(false)]);
        assert_eq!(looks(2, 6), [Ok(false), Ok(false)]);
    }

    #[test]
    fn a_step_up_to_the_limit_is_allowed_and_one_beyond_is_refused() {
        let limit = 0x7fff_ffff;
        assert_eq!(check_step(5, 6, limit), Ok(()));
        assert_eq!(check_step(5, 5 + limit, limit), Ok(()));
        let value = 6 + limit;
        assert_eq!(check_step(5, value, limit), Err(BackendError::TimelineJump { value, current: 5, limit }));
    }

    #[test]
    fn without_a_limit_a_timeline_may_go_from_the_first_value_to_the_last() {
        assert_eq!(check_step(0, u64::MAX, u64::MAX), Ok(()));
    }

    #[test]
    fn a_step_back_and_no_step_are_refused_whatever_the_limit() {
        for value in [4, 5] {
            assert!(
                matches!(check_step(5, value, u64::MAX), Err(BackendError::BadOption { value: v, .. }) if v == value)
            );
        }
    }

    #[test]
    fn a_refused_jump_says_what_to_do() {
        let said = BackendError::TimelineJump { value: 9, current: 1, limit: 7 }.to_string();
        assert_eq!(
            said,
            "the timeline cannot go from 1 to 9 at once: this device allows steps of 7; signal in smaller steps"
        );
    }
}
