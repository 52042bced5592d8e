//! The thread that keeps slices going while nobody calls: it submits the next one before the last one ends, and sees to it that what was
//! published or signalled as a slice ended is not left behind. It sleeps while no slice runs.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::driver::Step;
use super::inner::Inner;
use crate::error::BackendError;

/// The longest that the keeper waits for a slice without looking whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// How soon it looks again when another thread drives.
const NAP: Duration = Duration::from_millis(1);

/// What the keeper sleeps on.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    state: Mutex<Call>,
    rung: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Call {
    #[default]
    Nothing,
    Work,
    Stop,
}

impl Alarm {
    fn lock(&self) -> MutexGuard<'_, Call> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to drive.
    pub(super) fn ring(&self) {
        let mut call = self.lock();
        if *call == Call::Nothing {
            *call = Call::Work;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        *self.lock() = Call::Stop;
        self.rung.notify_one();
    }

    /// Sleeps until it is rung, for at most `timeout` if there is one. False if the keeper is to stop.
    fn sleep(&self, timeout: Option<Duration>) -> bool {
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
        if *call == Call::Work {
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
            Ok(Some(Step::Running { value, due })) => {
                // It may be due and not wanted.
                let due = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
                inner.progress.wait(value, due.clamp(NAP, PATIENCE)).is_ok() && inner.alarm.sleep(Some(Duration::ZERO))
            }
            Ok(None) => inner.alarm.sleep(Some(NAP)),
            Ok(Some(Step::Idle)) => inner.alarm.sleep(None),
            // A recovery that took too long is tried again. Any other error every later call says too.
            Err(BackendError::Timeout { .. }) => inner.alarm.sleep(Some(PATIENCE)),
            Err(_) => false,
        };
        if !goes_on {
            return;
        }
    }
}
