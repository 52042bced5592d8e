//! What the clones of a runtime and its handles share, and how their threads take turns at driving it.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::driver::{Context, Driver, Shared, Step};
use super::ends::{A_WHILE, Ends};
use super::entry::Delivery;
use super::keeper::Alarm;
use super::memory::Memory;
use super::options::RuntimeOptions;
use super::state::State;
use super::tables::Tables;
use super::task::{Accepted, Completion};
use super::wakers::Woken;
use crate::abi::TaskWorkItem;
use crate::device::{Device, Residency, Timeline};
use crate::error::BackendError;
use crate::program::Op;

/// No wait is longer. A clock has no number for the end of very long ones.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The end of a wait that begins now.
pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST)
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) device: Device,
    pub(super) ops: Vec<Op>,
    pub(super) options: RuntimeOptions,
    pub(super) shared: Shared,
    pub(super) driver: Mutex<Option<Driver>>,
    pub(super) memory: Option<Memory>,
    pub(super) residency: Residency,
    /// What counts slices, for those who wait without driving.
    pub(super) progress: Arc<Timeline>,
    pub(super) alarm: Alarm,
    #[cfg(feature = "self-substrate-adapters")]
    pub(super) trends: Mutex<Option<super::trends::Trends>>,
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

    /// Acts on the ends, and wakes those who waited for what it found.
    pub(super) fn with_ends<T>(
        &self,
        act: impl FnOnce(&mut Ends, &Memory) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let mut woken = Woken::default();
        let mut ends = self.shared.ends.lock();
        let result = act(&mut ends, self.memory()?);
        woken.of(&mut ends);
        result
    }

    /// Acts on the ends again and again while there is more, as often as one full ring takes: whoever submits meanwhile must not keep it here for ever.
    pub(super) fn in_rounds(
        &self,
        mut act: impl FnMut(&mut Ends, &Memory) -> Result<bool, BackendError>,
    ) -> Result<(), BackendError> {
        let mut rounds = 0..=self.options.capacity as usize / A_WHILE;
        while rounds.next().is_some() && self.with_ends(&mut act)? {}
        Ok(())
    }

    /// Takes over all that has been completed up to now, while slices run.
    pub(super) fn listen(&self) -> Result<(), BackendError> {
        self.in_rounds(Ends::listen)
    }

    /// Completions of batched tasks, in the order of their ends, at most `limit`.
    pub(super) fn take_bulk(&self, limit: usize, into: &mut Vec<Completion>) -> Result<usize, BackendError> {
        let had = into.len();
        self.in_rounds(|ends, memory| ends.take_bulk(memory, limit - (into.len() - had), into))?;
        Ok(into.len() - had)
    }

    /// Announces the ends of groups that were just found.
    pub(super) fn announce_due(&self) -> Result<(), BackendError> {
        if self.shared.roster.ends.0.is_due() { self.step().map(drop) } else { Ok(()) }
    }

    pub(super) fn refuse(&self, state: &State, tasks: &[TaskWorkItem]) -> Result<(), BackendError> {
        if state.stopped {
            return Err(BackendError::Stopped);
        }
        let ops = u32::try_from(self.ops.len()).unwrap_or(u32::MAX);
        let mut rest = tasks;
        while let Some((first, others)) = rest.split_first() {
            if let Some(problem) = state.tables.problem(first, ops) {
                return Err(BackendError::Refused { index: tasks.len() - rest.len(), problem });
            }
            // Tasks of a batch are often alike in all that is looked at.
            let alike = others.iter().take_while(|other| Tables::looks_like(other, first)).count();
            rest = &others[alike..];
        }
        Ok(())
    }

    pub(super) fn submit_batch(&self, tasks: &[TaskWorkItem], checked: bool) -> Result<Accepted, BackendError> {
        self.make_room()?;
        let accepted = self.with_state(|state, memory| {
            // Those that are taken, and no others: of a large batch a full ring takes a little at a time.
            let count = if state.stopped { 0 } else { state.room(memory, tasks.len())? };
            let tasks = &tasks[..count];
            self.refuse(state, if checked { tasks } else { &[] })?;
            let first = state.journal.next_id().number();
            state.accept(memory, tasks, Delivery::Bulk)?;
            Ok(Accepted { first, count })
        })?;
        self.launch_after_submit();
        Ok(accepted)
    }

    /// Whoever only submits would never see that dropped handles have made room.
    pub(super) fn make_room(&self) -> Result<(), BackendError> {
        if self.shared.roster.free.count() == 0 { self.listen() } else { Ok(()) }
    }

    /// What was submitted is submitted, whatever comes of the launch: an error of it is sticky, and the wait for the task says it.
    pub(super) fn launch_after_submit(&self) {
        if !self.options.launch_on_submit {
            return;
        }
        match self.step() {
            // The thread that drives may just have looked for the last time.
            Ok(None) => self.alarm.ring(),
            Ok(Some(_)) => {}
            Err(error) => tracing::warn!(%error, "a submission could not launch its slice"),
        }
    }

    /// One driving step, if no other thread is at it. An error that it meets is every later call's too.
    pub(super) fn step(&self) -> Result<Option<Step>, BackendError> {
        let mut driver = match self.driver.try_lock() {
            Ok(driver) => driver,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        self.shared.lock().check()?;
        self.relay()?;
        let context = self.context()?;
        let driver = driver.as_mut().ok_or(BackendError::Stopped)?;
        let step = driver.step(&context).map_err(|error| self.break_with(error))?;
        if matches!(step, Step::Progress) {
            // Whoever launched it may never call again, and whoever waits should look more often now.
            self.alarm.ring();
            self.shared.changed.notify_all();
            self.wake();
        }
        Ok(Some(step))
    }

    /// Takes over the epochs of semaphores that others have signalled.
    pub(super) fn relay(&self) -> Result<(), BackendError> {
        let relayed = self.shared.lock().relay(self.memory()?);
        relayed.map_err(|error| self.break_with(error))
    }

    pub(super) fn context(&self) -> Result<Context<'_>, BackendError> {
        let (live, spins) = (self.residency.is_live(), self.spins());
        Ok(Context {
            memory: self.memory()?,
            options: &self.options,
            shared: &self.shared,
            ops: &self.ops,
            live,
            spins,
        })
    }

    pub(super) fn break_with(&self, error: BackendError) -> BackendError {
        if !matches!(error, BackendError::Timeout { .. }) {
            tracing::error!(%error, "the runtime is broken");
            let mut state = self.shared.lock();
            state.broken.get_or_insert_with(|| error.clone());
            drop(state);
            self.wake_all();
        }
        error
    }

    /// Acts while no slice runs and none can be launched. `act` gets what is left of the time.
    pub(super) fn settled<T>(
        &self,
        timeout: Duration,
        act: impl FnOnce(&Self, &mut Driver, Duration) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let deadline = deadline(timeout);
        let result = self.driving(|inner, driver, context| {
            driver.call_off(context)?;
            driver.settle(context, deadline).map_err(|error| inner.break_with(error))?;
            act(inner, driver, deadline.saturating_duration_since(Instant::now()))
        });
        // What was left undone goes on.
        self.alarm.ring();
        result
    }

    /// The last slice is called off, and no other follows; even of a runtime that is broken, since its slices may still run.
    pub(super) fn close(&self) {
        self.shared.lock().stopped = true;
        let deadline = deadline(self.options.slice_timeout);
        let mut guard = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(context), Some(driver)) = (self.context(), guard.as_mut())
            && let Err(error) = driver.call_off(&context).and_then(|()| driver.finish(&context, deadline))
        {
            tracing::debug!(%error, "closing a runtime");
        }
        let courier = self.shared.lock().courier.take();
        if let Some(courier) = courier {
            // Promises are kept, or the memory that they write to is leaked.
            let left = deadline.saturating_duration_since(Instant::now());
            let rested = courier.rest(left);
            tracing::debug!(?rested, "promises");
            self.shared.lock().courier = Some(courier);
        }
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
        let result = act(self, driver, &context);
        drop(guard);
        self.wake();
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _span = tracing::info_span!("runtime.destroy").entered();
        let carries =
            self.shared.lock().courier.as_ref().is_some_and(|courier| courier.rest(Duration::ZERO) != Ok(true));
        // On a lost device nothing runs any more, and Vulkan lets what it used be destroyed.
        let drives =
            self.driver.get_mut().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(Driver::is_running);
        let running = self.device.check().is_ok() && (carries || drives);
        if running {
            // The device may still use all of it: better lost than freed under its hands.
            tracing::error!(carries, "a submission of the runtime still runs; its memory and pipeline are leaked");
            std::mem::forget(self.memory.take());
            let mut state = self.shared.lock();
            state.tables.leak();
            std::mem::forget(state.courier.take());
            drop(state);
            std::mem::forget(self.driver.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}
