//! What the clones of a runtime and its handles share, and how their threads take turns at driving it.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::driver::{Context, Driver, Shared, Step};
use super::journal::Delivery;
use super::memory::Memory;
use super::options::RuntimeOptions;
use super::state::State;
use super::task::Accepted;
use crate::abi::TaskWorkItem;
use crate::device::Device;
use crate::error::BackendError;
use crate::program::Op;

/// How long a thread that waits for another one's driving sleeps before it looks for itself.
const NAP: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) device: Device,
    pub(super) ops: Vec<Op>,
    pub(super) options: RuntimeOptions,
    pub(super) shared: Shared,
    pub(super) driver: Mutex<Option<Driver>>,
    pub(super) memory: Option<Memory>,
}

impl Inner {
    pub(super) fn memory(&self) -> Result<&Memory, BackendError> {
        self.memory.as_ref().ok_or(BackendError::Stopped)
    }

    pub(super) fn with_state<T>(
        &self,
        act: impl FnOnce(&mut State, &Memory) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut state = self.shared.lock();
        state.check()?;
        act(&mut state, self.memory()?)
    }

    pub(super) fn refuse(&self, state: &State, tasks: &[TaskWorkItem]) -> Result<(), BackendError> {
        if state.stopped {
            return Err(BackendError::Stopped);
        }
        let ops = u32::try_from(self.ops.len()).unwrap_or(u32::MAX);
        let problems = tasks.iter().enumerate();
        let first = problems.filter_map(|(index, item)| Some((index, state.tables.problem(item, ops)?))).next();
        first.map_or(Ok(()), |(index, problem)| Err(BackendError::Refused { index, problem }))
    }

    pub(super) fn submit_batch(&self, tasks: &[TaskWorkItem], checked: bool) -> Result<Accepted, BackendError> {
        let accepted = self.with_state(|state, memory| {
            self.refuse(state, if checked { tasks } else { &[] })?;
            let accepted = Accepted { first: state.journal.next_id().number(), count: state.room().min(tasks.len()) };
            for item in &tasks[..accepted.count] {
                state.accept(memory, *item, Delivery::Bulk)?;
            }
            Ok(accepted)
        })?;
        self.launch_after_submit();
        Ok(accepted)
    }

    /// What was submitted is submitted, whatever comes of the launch: an error of it is sticky, and the wait for the task says it.
    pub(super) fn launch_after_submit(&self) {
        if self.options.launch_on_submit
            && let Err(error) = self.step(Instant::now())
        {
            tracing::warn!(%error, "a submission could not launch its slice");
        }
    }

    /// One driving step, if no other thread is at it. An error that it meets is every later call's too.
    pub(super) fn step(&self, deadline: Instant) -> Result<Option<Step>, BackendError> {
        let mut driver = match self.driver.try_lock() {
            Ok(driver) => driver,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        self.shared.lock().check()?;
        let context = self.context()?;
        let driver = driver.as_mut().ok_or(BackendError::Stopped)?;
        driver.step(&context, deadline).map(Some).map_err(|error| self.break_with(error))
    }

    pub(super) fn context(&self) -> Result<Context<'_>, BackendError> {
        Ok(Context { memory: self.memory()?, options: &self.options, shared: &self.shared, ops: &self.ops })
    }

    pub(super) fn break_with(&self, error: BackendError) -> BackendError {
        if !matches!(error, BackendError::Timeout { .. }) {
            tracing::error!(%error, "the runtime is broken");
            self.shared.lock().broken.get_or_insert_with(|| error.clone());
            self.shared.changed.notify_all();
        }
        error
    }

    /// Drives, or lets another thread drive, until `done` gives something.
    pub(super) fn drive<T>(
        &self,
        timeout: Duration,
        wanted: &str,
        mut done: impl FnMut(&mut State) -> Result<Option<T>, BackendError>,
    ) -> Result<T, BackendError> {
        let start = Instant::now();
        let deadline = start + timeout;
        loop {
            {
                let mut state = self.shared.lock();
                if let Some(result) = done(&mut state)? {
                    return Ok(result);
                }
                state.check()?;
                if Instant::now() >= deadline {
                    let State { journal, waiting, .. } = &*state;
                    let reached = format!("{} tasks unfinished, {waiting} of them paused", journal.in_flight());
                    let waited_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                    return Err(BackendError::Timeout { wanted: wanted.to_owned(), reached, waited_ms });
                }
            }
            if matches!(self.step(deadline)?, None | Some(Step::Idle)) {
                // Another thread drives, or there is nothing to drive until one submits or signals.
                let state = self.shared.lock();
                let nap = NAP.min(deadline.saturating_duration_since(Instant::now()));
                drop(self.shared.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Acts while no slice runs and none can be launched. `act` gets what is left of the time.
    pub(super) fn settled<T>(
        &self,
        timeout: Duration,
        act: impl FnOnce(&Self, &mut Driver, Duration) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let deadline = Instant::now() + timeout;
        self.driving(|inner, driver, context| {
            driver.settle(context, deadline).map_err(|error| inner.break_with(error))?;
            act(inner, driver, deadline.saturating_duration_since(Instant::now()))
        })
    }

    /// Acts as the one thread that drives, once the other ones let it.
    pub(super) fn driving<T>(
        &self,
        act: impl FnOnce(&Self, &mut Driver, &Context<'_>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut guard = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.lock().check()?;
        let context = self.context()?;
        let driver = guard.as_mut().ok_or(BackendError::Stopped)?;
        act(self, driver, &context)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _span = tracing::info_span!("runtime.destroy").entered();
        let timeout = self.options.slice_timeout;
        let settled = self.settled(timeout, |_, _, _| Ok(()));
        let running =
            self.driver.get_mut().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(Driver::is_running);
        if running {
            // The device may still use all of it: better lost than freed under its hands.
            tracing::error!(?settled, "a slice still runs; its memory and pipeline are leaked");
            std::mem::forget(self.memory.take());
            std::mem::forget(self.driver.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}
