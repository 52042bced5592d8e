//! The thread that keeps slices going while nobody calls: it submits the next one before the last one ends, and sees to it that what was
//! published or signalled as a slice ended is not left behind. It sleeps while no slice runs.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::driver::Step;
use super::inner::Inner;
use super::timelines::Reached;
use super::waits::{SHORT_NAP, have_moved};
use crate::device::{Device, Timeline, nap};
use crate::error::BackendError;

/// The longest that the keeper waits for a slice without looking whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// How soon it looks again when another thread drives.
const NAP: Duration = Duration::from_millis(1);

/// The longest that it sleeps on semaphores: whatever a driver does, it looks again.
pub(super) const NIGHT: Duration = Duration::from_secs(10);

/// What the keeper sleeps on: a condition variable, or semaphores and one that wakes it from those.
#[derive(Debug)]
pub(super) struct Alarm {
    state: Mutex<Call>,
    rung: Condvar,
    bell: Timeline,
    /// What the bell has to reach, while the keeper sleeps on semaphores, and how.
    sleeps: Mutex<Option<(u64, Sleep)>>,
}

/// What wakes a keeper that sleeps on semaphores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// No slice runs: every ring.
    Parked,
    /// A slice runs, at whose end it will look anyway: only [`Alarm::rouse`]. Signalling the bell takes microseconds, and submissions ring.
    ForSlice,
}

impl Sleep {
    fn goes_on(self, call: Call) -> bool {
        call == Call::Nothing || (call == Call::Work && self == Self::ForSlice)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    Nothing,
    /// There may be something to drive.
    Work,
    /// There is something new to look for while slices run.
    News,
    Stop,
}

impl Alarm {
    pub(super) fn new(device: &Device) -> Result<Self, BackendError> {
        let bell = Timeline::new(device, "taskring alarm", 0)?;
        Ok(Self { state: Mutex::default(), rung: Condvar::new(), bell, sleeps: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Call> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to drive.
    pub(super) fn ring(&self) {
        let mut call = self.lock();
        if *call == Call::Nothing {
            *call = Call::Work;
            self.wake(|sleep| sleep == Sleep::Parked);
        }
    }

    /// There is something new to look for while slices run.
    pub(super) fn rouse(&self) {
        let mut call = self.lock();
        if *call != Call::Stop {
            *call = Call::News;
        }
        self.wake(|_| true);
    }

    /// Whether it has been roused, or stopped, since the keeper last slept.
    pub(super) fn is_roused(&self) -> bool {
        matches!(*self.lock(), Call::News | Call::Stop)
    }

    fn stop(&self) {
        let mut call = self.lock();
        *call = Call::Stop;
        self.wake(|_| true);
    }

    /// With the call locked, so that the keeper either sees it before it sleeps, or is woken.
    fn wake(&self, wakes: impl Fn(Sleep) -> bool) {
        self.rung.notify_one();
        let sleeps = self.sleeping().take_if(|(_, sleep)| wakes(*sleep));
        if let Some((value, _)) = sleeps
            && let Err(error) = self.bell.signal(value)
        {
            tracing::debug!(%error, "the keeper sleeps on");
        }
    }

    fn sleeping(&self) -> MutexGuard<'_, Option<(u64, Sleep)>> {
        self.sleeps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until it is woken or one of the timelines has reached its value, for at most `timeout`. False if the keeper is to stop.
    pub(super) fn sleep_or(
        &self,
        sleep: Sleep,
        device: &Device,
        awaited: &[Reached],
        timeout: Duration,
    ) -> Result<bool, BackendError> {
        let call = self.lock();
        if device.facts().waiters_collide() {
            self.look_out(call, sleep, timeout, || have_moved(awaited));
        } else if sleep.goes_on(*call) {
            let value = self.bell.value()? + 1;
            *self.sleeping() = Some((value, sleep));
            drop(call);
            let any = awaited.iter().map(|(timeline, news)| (&**timeline, *news)).chain([(&self.bell, value)]);
            let woken = device.wait_any(&any.collect::<Vec<_>>(), timeout);
            *self.sleeping() = None;
            woken?;
        } else {
            drop(call);
        }
        Ok(self.sleep(Some(Duration::ZERO)))
    }

    /// The same where the thread must not block on semaphores: it looks now and then whether they have `come`.
    fn look_out(&self, mut call: MutexGuard<'_, Call>, sleep: Sleep, timeout: Duration, come: impl Fn() -> bool) {
        let start = Instant::now();
        while sleep.goes_on(*call) && start.elapsed() < timeout && !come() {
            let nap = nap(start.elapsed()).min(timeout);
            call = self.rung.wait_timeout(call, nap).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sleeps until it is rung, for at most `timeout` if there is one. False if the keeper is to stop.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut call = self.lock();
        match timeout {
            None => {
                let idle = |call: &mut Call| *call == Call::Nothing;
                call = self.rung.wait_while(call, idle).unwrap_or_else(PoisonError::into_inner);
            }
            Some(timeout) if *call == Call::Nothing => {
                call = self.rung.wait_timeout(call, timeout).unwrap_or_else(PoisonError::into_inner).0;
            }
            Some(_) => {}
        }
        if *call != Call::Stop {
            *call = Call::Nothing;
        }
        *call != Call::Stop
    }
}

/// A runtime and its keeper, if it has one. Whoever drops it settles the runtime: on their thread, and not on the keeper's.
#[derive(Debug)]
pub(super) struct Kept {
    inner: Arc<Inner>,
    keeper: Option<JoinHandle<()>>,
}

impl Kept {
    pub(super) fn new(inner: Inner) -> Result<Self, BackendError> {
        let inner = Arc::new(inner);
        let keeper = match inner.options.launch_on_submit {
            false => None,
            true => {
                let inner = inner.clone();
                let keeper = std::thread::Builder::new().name("taskring keeper".into()).spawn(move || keep(&inner));
                let failed = |error: std::io::Error| BackendError::NoThread { reason: error.to_string() };
                Some(keeper.map_err(failed)?)
            }
        };
        Ok(Self { inner, keeper })
    }
}

impl Deref for Kept {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.inner.close();
        self.inner.alarm.stop();
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the keeper panicked");
        }
    }
}

fn keep(inner: &Inner) {
    loop {
        let goes_on = match inner.step() {
            Ok(Some(Step::Progress)) => inner.alarm.sleep(Some(Duration::ZERO)),
            Ok(Some(Step::Running { end, due })) => {
                // It may be due and not wanted.
                let due = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
                inner.watch(&end, due.clamp(NAP, PATIENCE)).unwrap_or_else(|error| ended(inner, error))
            }
            // Who drives may be done in a moment, and leave what has to be watched.
            Ok(None) => inner.alarm.sleep(Some(if inner.shared.lock().is_watched() { SHORT_NAP } else { NAP })),
            Ok(Some(Step::Idle)) => inner.park().unwrap_or_else(|error| ended(inner, error)),
            // A recovery that took too long is tried again. Any other error every later call says too.
            Err(BackendError::Timeout { .. }) => inner.alarm.sleep(Some(PATIENCE)),
            Err(_) => false,
        };
        if !goes_on {
            return;
        }
    }
}

/// The keeper can't go on; every later call says why.
fn ended(inner: &Inner, error: BackendError) -> bool {
    inner.break_with(error);
    false
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::device::DeviceOptions;

    #[test]
    fn a_keeper_that_looks_now_and_then_wakes_for_what_comes_and_for_whoever_may_wake_it() {
        let alarm = Alarm::new(&Device::new(DeviceOptions::default()).unwrap()).unwrap();
        // How often it looks before it is awake, where what it waits for comes at the third look.
        let looks = |sleep| {
            let looks = Cell::new(0);
            alarm.look_out(alarm.lock(), sleep, Duration::from_secs(60), || {
                looks.set(looks.get() + 1);
                looks.get() == 3
            });
            looks.get()
        };
        assert_eq!((looks(Sleep::Parked), looks(Sleep::ForSlice)), (3, 3));
        alarm.ring();
        assert_eq!((looks(Sleep::Parked), looks(Sleep::ForSlice)), (0, 3), "who sleeps for a slice sleeps on");
        alarm.rouse();
        assert_eq!((looks(Sleep::Parked), looks(Sleep::ForSlice)), (0, 0));
        assert!(alarm.sleep(None));
        alarm.look_out(alarm.lock(), Sleep::Parked, Duration::from_micros(1), || false);
    }
}
