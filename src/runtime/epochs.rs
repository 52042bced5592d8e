//! Timelines in and out: what tasks wait for, and what other queues wait for.

use std::sync::Arc;

use ash::vk;

use super::groups::{Announcement, Urgency};
use super::roster::Roster;
use super::task::SubmissionId;
use super::timelines::{Carrier, Courier, Signaller, Source, record_epoch};
use super::{Runtime, TaskHandle};
use crate::abi::{self, TimelineId};
use crate::device::Timeline;
use crate::error::BackendError;

/// # Timelines that tasks wait for
impl Runtime {
    /// Makes a timeline without a semaphore, at epoch 0: only [`Runtime::signal`] moves it. Timeline 0 always exists; there are at most 256 at a time.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] if there are 256, or if closed ones still have their places.
    pub fn create_timeline(&self) -> Result<TimelineId, BackendError> {
        self.0.with_state(|state, memory| state.create_timeline(memory, 0, None))
    }

    /// Lets tasks wait for the values of a timeline semaphore, which is kept until [`Runtime::close_timeline`]. It stands where its counter does.
    ///
    /// `signaller` says who moves it, and decides on the [`Carrier`]. With [`Signaller::Runtime`] nobody else is heard; of the others, a wrong one
    /// only makes tasks resume later. Every signal of others launches a slice if none runs and any task is unfinished, whatever it waits for.
    ///
    /// # Errors
    /// As [`Runtime::create_timeline`]; [`BackendError::BadOption`] for a semaphore of another device, or one of [`Runtime::progress`]; for a
    /// promised one what making command buffers may give.
    pub fn register_timeline(
        &self,
        semaphore: &Arc<Timeline>,
        signaller: Signaller,
    ) -> Result<TimelineId, BackendError> {
        let live = self.residency().is_live();
        let advances = live && signaller == Signaller::Promised && self.another_queue_advances();
        let carrier = Carrier::choose(signaller, live, advances);
        self.accept_semaphore(semaphore)?;
        let timeline = self.0.with_state(|state, memory| {
            if carrier == Carrier::Queue && state.courier.is_none() {
                state.courier = Some(Courier::new(self.device())?);
            }
            let source = Source { semaphore: semaphore.clone(), carrier, carried: 0, courier_at: 0 };
            state.create_timeline(memory, semaphore.value()?, Some(source))
        })?;
        tracing::debug!(?timeline, ?signaller, ?carrier, "registered a timeline");
        // It waits for this one too from now on.
        self.0.alarm.rouse();
        Ok(timeline)
    }

    /// Whether it may be signalled by whoever uses the runtime, on the runtime's device.
    pub(super) fn accept_semaphore(&self, semaphore: &Timeline) -> Result<(), BackendError> {
        if semaphore.belongs_to(self.device()) && !semaphore.counts() {
            return Ok(());
        }
        let must = "of the runtime's device, and not one that counts submissions";
        Err(BackendError::BadOption { option: "semaphore", value: 0, must })
    }

    fn another_queue_advances(&self) -> bool {
        let test = || self.options().self_test.as_ref().map_or_else(|| self.device().self_test(), Ok);
        self.device().other_queue_family().is_some() && test().is_ok_and(|test| test.other_queue.is_yes())
    }

    /// How a timeline's epochs reach the device.
    ///
    /// # Errors
    /// [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`].
    pub fn carrier(&self, timeline: impl Into<TimelineId>) -> Result<Carrier, BackendError> {
        self.0.with_state(|state, _| {
            let source = state.tables.timelines.source(timeline.into())?;
            Ok(source.map_or(Carrier::Signal, |source| source.carrier))
        })
    }

    /// Advances a timeline to an epoch: tasks that are paused until then, or until an earlier one, resume; in boundary mode from the next slice
    /// on. Where the timeline is a semaphore's, that is signalled after the device was told, and its other signals must be ordered with this one
    /// by the caller.
    ///
    /// # Errors
    /// [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`], [`BackendError::EpochWentBack`], [`BackendError::TimelineJump`]: nothing
    /// has changed then.
    pub fn signal(&self, timeline: impl Into<TimelineId>, epoch: u64) -> Result<(), BackendError> {
        let timeline = timeline.into();
        let semaphore = self.0.with_state(|state, memory| {
            let timelines = &mut state.tables.timelines;
            let semaphore = timelines.source(timeline)?.map(|source| source.semaphore.clone());
            if let Some(semaphore) = &semaphore {
                semaphore.check_jump(epoch)?;
                let current = semaphore.value()?;
                if epoch < current {
                    return Err(BackendError::EpochWentBack {
                        timeline: timeline.index().into(),
                        value: epoch,
                        current,
                    });
                }
            }
            timelines.advance(timeline, epoch)?;
            state.wants_slice |= state.journal.in_flight() > 0;
            state.tell(memory)?;
            Ok(semaphore)
        })?;
        self.0.launch_after_submit();
        match semaphore.map(|semaphore| semaphore.signal(epoch)) {
            // Somebody who signalled a later epoch was faster here.
            None | Some(Ok(()) | Err(BackendError::BadOption { .. })) => Ok(()),
            Some(error) => error,
        }
    }

    /// The epoch of a timeline, as the host last saw it.
    ///
    /// # Errors
    /// [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`].
    pub fn epoch(&self, timeline: impl Into<TimelineId>) -> Result<u64, BackendError> {
        self.0.with_state(|state, _| state.tables.timelines.epoch(timeline.into()))
    }

    /// Records that a timeline has reached an epoch, after all commands before it in this command buffer and whatever they wait for. The submission
    /// has to signal the timeline's semaphore to the same value. Records nothing where slices would not see it: there the relay does.
    ///
    /// # Safety
    /// The command buffer is in the recording state, outside of a render pass, for a queue family that the device was made with. It is executed
    /// only while this runtime exists, of which a clone can be kept until then, and never once the timeline is closed.
    ///
    /// # Errors
    /// [`BackendError::WrongCarrier`] for [`Carrier::Signal`] and [`Carrier::Queue`]: register the timeline as [`Signaller::Recorded`];
    /// [`BackendError::EpochWentBack`]; [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`].
    pub unsafe fn record_signal(
        &self,
        commands: vk::CommandBuffer,
        timeline: impl Into<TimelineId>,
        value: u64,
    ) -> Result<(), BackendError> {
        let timeline = timeline.into();
        self.0.with_state(|state, memory| {
            let current = state.tables.timelines.epoch(timeline)?;
            if value < current {
                return Err(BackendError::EpochWentBack { timeline: timeline.index().into(), value, current });
            }
            let source = state.tables.timelines.source(timeline)?;
            match source.map_or(Carrier::Signal, |source| source.carrier) {
                // SAFETY: the caller's promises; the runtime owns the memory.
                Carrier::Recorded => unsafe {
                    record_epoch(self.device().raw(), commands, memory, timeline, value);
                },
                Carrier::Relay => {}
                carrier @ (Carrier::Signal | Carrier::Queue) => {
                    let (call, needs) = ("record_signal", "were registered as `Signaller::Recorded`");
                    return Err(BackendError::WrongCarrier { timeline, carrier, call, needs });
                }
            }
            Ok(())
        })
    }

    /// Says that submissions are under way which will bring a timeline's semaphore to `value`, whatever else happens. Where the device can, one of ours
    /// waits for it on another queue and writes the epoch with no host in between; elsewhere nothing is to be done.
    ///
    /// A promise that is not kept blocks that queue for everybody on the device, and the runtime's memory is leaked when it is dropped. Promises past the
    /// first 64 that are open are not waited for in this way: the host sees them kept.
    ///
    /// # Errors
    /// [`BackendError::WrongCarrier`] for [`Carrier::Signal`] and [`Carrier::Recorded`]: register the timeline as [`Signaller::Promised`];
    /// [`BackendError::TimelineJump`]; [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`]; what submitting may give.
    pub fn promise(&self, timeline: impl Into<TimelineId>, value: u64) -> Result<(), BackendError> {
        let timeline = timeline.into();
        self.0.with_state(|state, memory| {
            let source = state.tables.timelines.source(timeline)?;
            match (source, &mut state.courier) {
                (Some(source), Some(courier)) if source.carrier == Carrier::Queue => {
                    source.semaphore.check_jump(value)?;
                    if value > source.carried
                        && let Some(submission) = courier.send(memory, &source.semaphore, timeline, value)?
                    {
                        (source.carried, source.courier_at) = (value, submission);
                    }
                    Ok(())
                }
                (Some(source), _) if source.carrier == Carrier::Relay => Ok(()),
                (source, _) => {
                    let carrier = source.map_or(Carrier::Signal, |source| source.carrier);
                    let (call, needs) = ("promise", "were registered as `Signaller::Promised`");
                    Err(BackendError::WrongCarrier { timeline, carrier, call, needs })
                }
            }
        })
    }

    /// Closes a timeline: tasks that wait for it, and those that would, fault with `TASK_FAULT_TIMELINE_CLOSED`. Its semaphore is let go
    /// soon after: a borrowed one may be destroyed when the `Arc` is the caller's alone and all promises are kept.
    ///
    /// # Errors
    /// [`BackendError::UnknownTimeline`], [`BackendError::ClosedTimeline`]; [`BackendError::BadOption`] for the default one.
    pub fn close_timeline(&self, timeline: impl Into<TimelineId>) -> Result<(), BackendError> {
        self.end_timeline(timeline.into(), abi::TASK_FAULT_TIMELINE_CLOSED)
    }

    /// As [`Runtime::close_timeline`], for a semaphore of which nothing more is heard, such as an imported one whose process is gone: the fault is
    /// `TASK_FAULT_TIMELINE_LOST`.
    ///
    /// # Errors
    /// As [`Runtime::close_timeline`].
    pub fn lose_timeline(&self, timeline: impl Into<TimelineId>) -> Result<(), BackendError> {
        self.end_timeline(timeline.into(), abi::TASK_FAULT_TIMELINE_LOST)
    }

    fn end_timeline(&self, timeline: TimelineId, code: u32) -> Result<(), BackendError> {
        self.0.with_state(|state, memory| {
            state.tables.timelines.close(timeline, code)?;
            // Even if nothing is in flight: the index is free once a slice has looked.
            state.wants_slice = true;
            state.tell(memory)
        })?;
        self.0.launch_after_submit();
        // It may sleep on the semaphore.
        self.0.alarm.rouse();
        Ok(())
    }

    /// Cancels tasks that have not ended: each faults with `TASK_FAULT_CANCELLED` where it waits, or instead of its next turn. One whose turn runs
    /// now finishes the turn, and may complete. Returns how many had not ended as far as the host knew. Looks through all wait lists, once for a
    /// call, so cancel many together.
    ///
    /// # Errors
    /// None of its own; see [`Runtime`].
    pub fn cancel(&self, tasks: impl IntoIterator<Item = SubmissionId>) -> Result<usize, BackendError> {
        let mut ids: Vec<SubmissionId> = tasks.into_iter().collect();
        ids.sort_unstable();
        let count = self.0.with_state(|state, memory| state.cancel(memory, |roster| roster.tickets_of(&ids)))?;
        self.0.launch_after_submit();
        Ok(count)
    }
}

impl TaskHandle {
    /// [`Runtime::cancel`] for this task. Its completion comes as always.
    ///
    /// # Errors
    /// As [`Runtime::cancel`].
    pub fn cancel(&self) -> Result<(), BackendError> {
        if self.taken {
            // Its slot is another task's.
            return Ok(());
        }
        let unended = |roster: &Roster| if roster.has_ended(self.ticket) { vec![] } else { vec![self.ticket] };
        self.inner.with_state(|state, memory| state.cancel(memory, unended))?;
        self.inner.launch_after_submit();
        Ok(())
    }
}

/// # Progress that other queues wait for
impl Runtime {
    /// A timeline that counts the runtime's submissions, signalled by themselves. Whoever waits for a value on a queue sees all that tasks wrote in
    /// slices up to then.
    #[must_use]
    pub fn progress(&self) -> &Arc<Timeline> {
        &self.0.progress
    }

    /// What [`Runtime::progress`] reaches when all slices end that were submitted up to now. A completion that was seen before this call belongs to
    /// one of them.
    #[must_use]
    pub fn progress_value(&self) -> u64 {
        self.0.shared.lock().progress_value
    }

    /// Has `value` signalled on a timeline semaphore by the slices' queue after the slice in which the last of these tasks ended: whoever waits for
    /// it on a queue sees what they wrote. Tasks that have ended already count as such; a fault is an end too.
    ///
    /// What is announced for one timeline comes in the order of the values: a group that ends early waits for those with smaller ones. Somebody has to
    /// drive meanwhile: the runtime's own thread, which on a GPU takes a core while slices run and a group is open, or calls. If the runtime is dropped
    /// before the tasks have ended, the value never comes; if it is stopped, they end there. Looks through all tasks in flight, once for a call. On a
    /// device with one queue, a submission that waits for the value holds up the slices themselves: submit it after the tasks have ended.
    ///
    /// # Errors
    /// [`BackendError::UnknownSubmission`], [`BackendError::AlreadyAnnounced`] for a task that is in another group; [`BackendError::BadOption`] for a
    /// value that has passed or is announced already, and for a semaphore as in [`Runtime::register_timeline`]: nothing is announced then.
    pub fn announce(
        &self,
        tasks: impl IntoIterator<Item = SubmissionId>,
        timeline: &Arc<Timeline>,
        value: u64,
        urgency: Urgency,
    ) -> Result<(), BackendError> {
        let mut ids: Vec<SubmissionId> = tasks.into_iter().collect();
        ids.sort_unstable();
        self.accept_semaphore(timeline)?;
        let announcement = Announcement { timeline: timeline.clone(), value, urgency };
        self.0.with_state(|state, _| state.ends.lock().deliveries.group(&state.journal, &ids, announcement))?;
        self.0.launch_after_submit();
        // From now on it looks for ends while slices run.
        self.0.alarm.rouse();
        Ok(())
    }

    /// Asks the slices that were submitted to end soon, in live mode; tasks go on in the next one. What waits for [`Runtime::progress`] need not wait
    /// for the rest of their time then.
    ///
    /// # Errors
    /// As [`Runtime::poll`].
    pub fn end_slice(&self) -> Result<(), BackendError> {
        let result = self.0.driving(|_, driver, context| driver.call_off(context));
        self.0.alarm.ring();
        result
    }
}
