//! The runtime that users hold: submit, wait, signal, look, stop.
//!
//! In live mode a running slice hears of tasks and epochs as they come, and its completions are seen as they happen. In boundary mode host and
//! device meet where slices begin and end, which is what Vulkan promises everywhere. [`Mode`] says which of them it is to be.
//!
//! A submission launches a slice if none runs. Whoever waits, and a thread of the runtime's own, launch the next one and take over what ended;
//! that thread sleeps while nothing is to be done, and a runtime without [`RuntimeOptions::launch_on_submit`] has none.

mod cancels;
mod deliveries;
mod driver;
mod ends;
mod entry;
mod epochs;
mod frames;
mod futures;
mod groups;
mod handle;
mod inner;
mod journal;
mod keeper;
mod look;
mod mailbox;
mod memory;
mod mode;
mod options;
mod pace;
mod record;
mod recovery;
mod roster;
mod slices;
mod slots;
mod state;
mod stopwatch;
mod tables;
mod task;
mod timelines;
#[cfg(feature = "self-substrate-adapters")]
mod trends;
mod turns;
mod waits;
mod wakers;

pub use futures::Completions;
pub use groups::Urgency;
pub use handle::TaskHandle;
#[doc(hidden)]
pub use memory::Push;
pub use options::{Mode, RuntimeOptions};
pub use task::{Accepted, BufferHandle, Completion, Outcome, RuntimeStats, StopReport, SubmissionId, Task};
pub use timelines::{Carrier, Signaller};
#[cfg(feature = "self-substrate-adapters")]
pub use trends::PartitionTrend;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::abi::{TaskWorkItem, TraceRecord};
use crate::device::{Buffer, Device, Residency};
use crate::error::BackendError;
use crate::policy::Launch;
use crate::program::Program;
use crate::telemetry::TaskQueueSnapshot;
use driver::{Driver, Shared, Step};
use entry::Delivery;
use inner::{Inner, deadline};
use keeper::{Alarm, Kept};
use memory::Memory;
use pace::Pace;
use slices::Slices;
use state::State;

/// Tasks on a device. Clones share it, and all methods take `&self`: any number of threads may use it at once.
///
/// Dropping the last clone calls off what runs and waits for its end, for at most [`RuntimeOptions::slice_timeout`]; unfinished tasks are gone then.
///
/// # Errors
/// What the device or the driver gives is for good: every later call says it again, but for those that ask nothing of either, such as
/// [`Runtime::unfinished`] and [`Runtime::stats`]. What is said at each call is what it may give beside.
#[derive(Clone)]
pub struct Runtime(Arc<Kept>);

impl Runtime {
    /// Makes a runtime for the program's ops on the device. No slice runs before the first submission. In [`Mode::Auto`] the first runtime of a
    /// device may run its [self-test](Device::self_test), some tenths of a second.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] for an option, or a `TASKRING_MODE`, out of range; [`BackendError::NoThread`]; what the self-test, allocating and
    /// building the pipeline may give.
    pub fn new(device: &Device, program: &Program, options: RuntimeOptions) -> Result<Self, BackendError> {
        let _span =
            tracing::info_span!("runtime.create", device = device.description(), capacity = options.capacity).entered();
        options.check()?;
        let memory = Memory::new(device, &options, options.shards_for(options.most_workers_on(device)))?;
        let residency = mode::residency(device, &options, &memory)?;
        let (live, timed) = (residency.is_live(), device.plan().shader_clock);
        tracing::info!(live, reasons = ?residency.reasons(), "chose a mode");
        let pace = Pace::new(timed, live, options.turn_budget, residency.turn_limit());
        let facts = options.launch_facts(device, &residency);
        let slices = Slices::new(device, program)?;
        let progress = slices.progress().clone();
        let driver = Driver::new(slices, pace, &options, facts, device.plan().subgroup_size);
        let shared = Shared::new(State::new(&options, live));
        let inner = Inner {
            device: device.clone(),
            ops: program.ops().to_vec(),
            options,
            shared,
            driver: Mutex::new(Some(driver)),
            memory: Some(memory),
            residency,
            progress,
            alarm: Alarm::new(device)?,
            #[cfg(feature = "self-substrate-adapters")]
            trends: Mutex::default(),
        };
        Ok(Self(Arc::new(Kept::new(inner)?)))
    }

    /// Whether slices hear the host while they run, and why.
    #[must_use]
    pub fn residency(&self) -> &Residency {
        &self.0.residency
    }

    /// The device that it runs on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The options that it was made with.
    #[must_use]
    pub fn options(&self) -> &RuntimeOptions {
        &self.0.options
    }

    /// Submits one task and returns the handle by which its end can be waited for.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if the host can see that the task is wrong, [`BackendError::Full`] if there is no room,
    /// [`BackendError::Stopped`] after a stop. The task was not taken then.
    pub fn submit(&self, task: impl Into<TaskWorkItem>) -> Result<TaskHandle, BackendError> {
        let item = task.into();
        self.0.make_room()?;
        let (id, ticket) = self.0.with_state(|state, memory| {
            self.0.refuse(state, &[item])?;
            let full = BackendError::Full { capacity: self.0.options.capacity };
            if state.room(memory, 1)? == 0 {
                return Err(full);
            }
            let id = state.journal.next_id();
            state.accept(memory, &[item], Delivery::Handle)?;
            state.tickets.first().map(|line| (id, line.ticket)).ok_or(full)
        })?;
        self.0.launch_after_submit();
        Ok(TaskHandle::new(self.0.clone(), id, ticket))
    }

    /// Submits tasks whose completions come in bulk, by [`Runtime::completions`]. If there is no room for all, the batch's first tasks are
    /// taken, none at all perhaps; the rest, from [`Accepted::count`] on, is still the caller's, and was not looked at.
    ///
    /// # Errors
    /// [`BackendError::Refused`] if the host can see that one of those is wrong for which there is room, and none was taken;
    /// [`BackendError::Stopped`].
    pub fn submit_batch(&self, tasks: &[TaskWorkItem]) -> Result<Accepted, BackendError> {
        self.0.submit_batch(tasks, true)
    }

    /// [`Runtime::submit_batch`] without the host's checks: what is wrong with a task, the device finds, and the task faults. For programs
    /// that trust their tasks, and for tests of the device's checks.
    ///
    /// # Errors
    /// [`BackendError::Stopped`].
    pub fn submit_batch_unchecked(&self, tasks: &[TaskWorkItem]) -> Result<Accepted, BackendError> {
        self.0.submit_batch(tasks, false)
    }

    /// Does what can be done without waiting: takes over a slice that has ended, launches one that is wanted. True if it did something.
    ///
    /// # Errors
    /// What the device or the driver gives; [`BackendError::DeviceLost`] stays.
    pub fn poll(&self) -> Result<bool, BackendError> {
        self.0.listen()?;
        Ok(matches!(self.0.step()?, Some(Step::Progress)))
    }

    /// Runs one slice to its end: the one that runs, or one that is wanted. False if there was nothing to run. For users who place the device's
    /// work themselves, with [`RuntimeOptions::launch_on_submit`] off.
    ///
    /// # Errors
    /// [`BackendError::Timeout`]; as [`Runtime::poll`].
    pub fn run_slice(&self, timeout: Duration) -> Result<bool, BackendError> {
        let deadline = deadline(timeout);
        self.0.driving(|inner, driver, context| {
            let ran = driver.run_one(context, deadline);
            inner.alarm.ring(); // if it still runs, or another one is wanted
            ran.map_err(|error| inner.break_with(error))
        })
    }

    /// Appends completions of batched tasks, in the order in which the tasks ended, up to `limit`; waits until there is one or `timeout` has
    /// passed. Their number, 0 after the timeout.
    ///
    /// # Errors
    /// As [`Runtime::poll`].
    pub fn completions(
        &self,
        into: &mut Vec<Completion>,
        limit: usize,
        timeout: Duration,
    ) -> Result<usize, BackendError> {
        if limit == 0 {
            return Ok(0);
        }
        let taken = self.0.drive(timeout, "a completion", || {
            let taken = self.0.take_bulk(limit, into)?;
            Ok((taken > 0).then_some(taken))
        });
        match taken {
            Err(BackendError::Timeout { .. }) => Ok(0),
            other => other,
        }
    }

    /// Runs until every submitted task has ended.
    ///
    /// # Errors
    /// [`BackendError::Stalled`] if all that is left waits for epochs; [`BackendError::Timeout`].
    pub fn drain(&self, timeout: Duration) -> Result<(), BackendError> {
        self.0.drive(timeout, "all tasks to end", || {
            self.0.listen()?;
            let state = self.0.shared.lock();
            match state.stalled() {
                Some(paused) => Err(BackendError::Stalled { paused }),
                None => Ok((state.journal.in_flight() == 0).then_some(())),
            }
        })
    }

    /// Lets a tenant's tasks run, or not: those claimed while it is off fault with `TASK_FAULT_BAD_TENANT`. All are on at first. Takes effect
    /// soon in live mode, and in boundary mode from the next slice on.
    ///
    /// # Errors
    /// [`BackendError::UnknownTenant`] at or past the end of the table.
    pub fn set_tenant(&self, tenant: u32, enabled: bool) -> Result<(), BackendError> {
        self.0.with_state(|state, memory| {
            state.tables.set_tenant(tenant, enabled)?;
            state.tell(memory)
        })
    }

    /// Lets a tenant's tasks use a range of bytes of a buffer, which the runtime keeps alive until it is unregistered. Offset and length are
    /// multiples of 4.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`], [`BackendError::BadOption`] for a range that is not whole words or if the table is full,
    /// [`BackendError::UnknownTenant`].
    pub fn register_buffer(
        &self,
        tenant: u32,
        buffer: &Arc<Buffer>,
        range: Range<u64>,
    ) -> Result<BufferHandle, BackendError> {
        self.0.with_state(|state, memory| {
            let handle = state.tables.register(tenant, buffer, range)?;
            state.tell(memory)?;
            Ok(handle)
        })
    }

    /// [`Runtime::register_buffer`] for memory that the runtime knows nothing of but its device address. It may be the host's, so turns wait for the
    /// results of their atomics there, as they do in buffers that are mapped.
    ///
    /// # Safety
    /// `words` 32-bit words from `address`, which is a multiple of 4, stay readable and writable by the device's compute queue until
    /// [`Runtime::unregister_buffer`] has returned or the runtime is gone.
    ///
    /// # Errors
    /// As [`Runtime::register_buffer`].
    pub unsafe fn register_address(&self, tenant: u32, address: u64, words: u32) -> Result<BufferHandle, BackendError> {
        if !address.is_multiple_of(4) {
            return Err(BackendError::BadOption { option: "address", value: address, must: "a multiple of 4" });
        }
        self.0.with_state(|state, memory| {
            let handle = state.tables.register_address(tenant, address, words.into(), None)?;
            state.tell(memory)?;
            Ok(handle)
        })
    }

    /// Ends a registration: waits for the running slice, after which no task can reach the buffer by this handle, and those that try fault with
    /// `TASK_FAULT_BAD_HANDLE`.
    ///
    /// # Errors
    /// [`BackendError::UnknownHandle`]; [`BackendError::Timeout`], and then the handle is still registered.
    pub fn unregister_buffer(&self, handle: BufferHandle, timeout: Duration) -> Result<(), BackendError> {
        self.0.settled(timeout, |inner, _, _| {
            let mut state = inner.shared.lock();
            let _kept_until_here = state.tables.unregister(handle)?;
            state.tell(inner.memory()?)
        })
    }

    /// What the tasks are doing: waits for the running slice and looks at every slot. The age of a task that is ready includes the wait that it is
    /// in.
    ///
    /// # Errors
    /// [`BackendError::Timeout`]; what the device gives.
    pub fn snapshot(&self, timeout: Duration) -> Result<TaskQueueSnapshot, BackendError> {
        self.0.settled(timeout, |inner, driver, left| TaskQueueSnapshot::from_tasks(&look::tasks(inner, driver, left)?))
    }

    /// The tasks that have not ended, in the order of submission, as the host knows them: as they were submitted, or as the last recovery found
    /// them. Asks nothing of the device, so it answers after device loss too.
    #[must_use]
    pub fn unfinished(&self) -> Vec<(SubmissionId, TaskWorkItem)> {
        let unfinished = self.0.shared.lock().journal.unfinished().into_iter();
        unfinished.map(|(_, id, item)| (id, item)).collect()
    }

    /// What has been done so far; turns, pauses and resumes are counted up to the end of the last slice. [`Runtime::snapshot`] ends one.
    #[must_use]
    pub fn stats(&self) -> RuntimeStats {
        self.0.shared.lock().stats()
    }

    /// What the last slice was launched with, and why; `None` before the first.
    ///
    /// The snapshot that it was decided on is what the host knew then, without a question to the device. `paused_count` is as of the end of the last
    /// slice that has ended. `ready_count` is every other task that has not ended, so it counts those that run or have paused since, and those that
    /// have ended in boundary mode while a slice ran; which of them yielded or changed their priority, the host does not know. `total_requeues` is how
    /// often tasks came back in that last slice, at least. `max_priority_age` is the largest age with which a task has ended since the launch
    /// before, and 0 without [`RuntimeOptions::counts`]. [`Runtime::snapshot`] gives the consistent numbers.
    #[must_use]
    pub fn last_launch(&self) -> Option<Launch> {
        self.0.shared.lock().last_launch
    }

    /// The turns recorded since the last call in slices that have ended ([`Runtime::snapshot`] ends one), in no particular order; empty without
    /// [`RuntimeOptions::trace_capacity`].
    pub fn take_trace(&self) -> Vec<TraceRecord> {
        std::mem::take(&mut self.0.shared.lock().trace)
    }

    /// Stops for good: submissions are refused from now on, the running slice is the last. Tasks that have not ended are reported as they
    /// were left, and complete as faulted with `TASK_FAULT_CANCELLED`. [`Runtime::drain`] first to finish them.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if the running slice does not end in time: submissions are refused already, and a second call goes on.
    pub fn stop(&self, timeout: Duration) -> Result<StopReport, BackendError> {
        self.0.shared.lock().stopped = true;
        self.0.settled(timeout, |inner, driver, left| {
            let (slots, metas) = driver.inspect(inner.memory()?, left)?;
            let mut state = inner.shared.lock();
            let mut ends = inner.shared.ends.lock();
            let mut report = StopReport { ended: ends.done + ends.faulted, unfinished: Vec::new() };
            for (ticket, id, submitted) in state.journal.unfinished() {
                let item = recovery::in_slot(ticket, &slots, &metas).unwrap_or(submitted);
                report.unfinished.push((id, item));
                ends.end_by_item(ticket, &recovery::cancelled(item));
            }
            state.wants_slice = false;
            drop((ends, state));
            inner.wake_all();
            // The groups of those that did not end have ended with them.
            if let Err(error) = driver.announce(&inner.context()?) {
                tracing::error!(%error, "ends of groups could not be announced");
            }
            Ok(report)
        })
    }
}

/// Not what the tasks are doing, which are megabytes.
impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { device, options, residency, .. } = &**self.0;
        let mut shown = f.debug_struct("Runtime");
        shown.field("device", device).field("options", options).field("residency", residency).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "shaderc")]
mod tests;
