//! The steps of a task, on the value of its slot.

use super::{
    MegakernelWorkItem, TASK_FLAG_PAUSED, TASK_FLAG_REQUEUE_REQUESTED, TASK_FLAG_RESUME_READY,
    TASK_FLAG_TIMELINE_SHIFT, TASK_FLAG_YIELDED, TASK_SLOT_BYTES, TASK_SLOT_WORDS, TASK_TIMELINE_WORD_MASK,
    TaskPriority, TaskState, TaskWorkItem, TimelineId,
};
use crate::{BackendError, TaskAction};

const _: () = assert!(size_of::<TaskWorkItem>() == TASK_SLOT_BYTES && TASK_SLOT_BYTES == 4 * TASK_SLOT_WORDS);

/// The state machine: whether a task in `state` may take the step `action`.
const fn is_legal(action: TaskAction, state: TaskState) -> bool {
    match action {
        TaskAction::Claim => state.is_schedulable(),
        TaskAction::Resume => matches!(state, TaskState::Paused),
        TaskAction::Pause | TaskAction::Yield | TaskAction::Requeue | TaskAction::Complete | TaskAction::Fault => {
            matches!(state, TaskState::Running | TaskState::Paused) || state.is_schedulable()
        }
        TaskAction::Recycle => matches!(state, TaskState::Done | TaskState::Faulted),
    }
}

fn incremented(value: u32, counter: &'static str) -> Result<u32, BackendError> {
    value.checked_add(1).ok_or(BackendError::CounterOverflow { counter })
}

/// # Building and reading
impl TaskWorkItem {
    /// A new task, [`Ready`](TaskState::Ready) to run from its start, on the default timeline and without a parent.
    #[must_use]
    pub const fn from_work_item(
        task_id: u32,
        tenant_id: u32,
        priority: TaskPriority,
        work_item: MegakernelWorkItem,
    ) -> Self {
        Self {
            state: TaskState::Ready.word(),
            op_handle: work_item.op_handle,
            tenant_id,
            priority: priority.word(),
            input_handle: work_item.input_handle,
            output_handle: work_item.output_handle,
            param: work_item.param,
            continuation_pc: 0,
            continuation_data: 0,
            resume_epoch: 0,
            task_id,
            parent_task_id: 0,
            age_ticks: 0,
            requeue_count: 0,
            yield_count: 0,
            flags: 0,
        }
    }

    /// What the task does: words 1, 4, 5 and 6.
    #[must_use]
    pub const fn work_item(self) -> MegakernelWorkItem {
        MegakernelWorkItem {
            op_handle: self.op_handle,
            input_handle: self.input_handle,
            output_handle: self.output_handle,
            param: self.param,
        }
    }

    /// Where the task stands; `None` if word 0 is no state code.
    #[must_use]
    pub const fn task_state(self) -> Option<TaskState> {
        TaskState::from_word(self.state)
    }

    /// How urgent the task is; `None` if word 3 is no priority code.
    #[must_use]
    pub const fn task_priority(self) -> Option<TaskPriority> {
        TaskPriority::from_word(self.priority)
    }

    /// Whether a worker may claim the task; never if word 0 is no state code.
    #[must_use]
    pub const fn is_schedulable(self) -> bool {
        matches!(self.task_state(), Some(state) if state.is_schedulable())
    }

    /// The timeline that `resume_epoch` belongs to: bits 8 to 15 of the flags are its index, 0 for the default one, and bits 16 to 23 its generation.
    #[must_use]
    pub const fn timeline(self) -> TimelineId {
        let word = self.flags >> TASK_FLAG_TIMELINE_SHIFT;
        TimelineId::new(word as u8, (word >> 8) as u8)
    }

    /// The same task, with `resume_epoch` on another timeline.
    #[must_use]
    pub const fn with_timeline(mut self, timeline: TimelineId) -> Self {
        let others = self.flags & !(TASK_TIMELINE_WORD_MASK << TASK_FLAG_TIMELINE_SHIFT);
        self.flags = others | timeline.word() << TASK_FLAG_TIMELINE_SHIFT;
        self
    }
}

/// # Steps
///
/// Pause, yield, requeue, complete and fault are legal for every task that has not ended (Ready, Running, Paused,
/// Yielded, Requeued). A refused step gives an error and no task; the caller's value is as it was.
///
/// ```
/// use taskring::{MegakernelWorkItem, TaskPriority, TaskWorkItem};
///
/// let work = MegakernelWorkItem { op_handle: 3, ..MegakernelWorkItem::default() };
/// let task = TaskWorkItem::from_work_item(1, 0, TaskPriority::Normal, work);
/// let paused = task.try_claimed()?.try_paused(2, 0, 5)?;
/// assert!(paused.try_claimed().is_err(), "it waits for epoch 5");
/// let done = paused.try_resumed()?.try_claimed()?.try_completed()?;
/// assert!(done.try_yielded(0, 0).is_err(), "it has ended");
/// # Ok::<(), taskring::BackendError>(())
/// ```
impl TaskWorkItem {
    fn check(self, action: TaskAction) -> Result<(), BackendError> {
        match self.task_state() {
            Some(state) if is_legal(action, state) => Ok(()),
            Some(state) => Err(BackendError::IllegalTransition { action, state }),
            None => Err(BackendError::UnknownTransitionState { action, word: self.state }),
        }
    }

    /// The task waits until its timeline reaches `epoch`, then goes on at `pc` with the scratch word `data`.
    ///
    /// # Errors
    ///
    /// The task has ended, or word 0 is no task's.
    pub fn try_paused(self, pc: u32, data: u32, epoch: u32) -> Result<Self, BackendError> {
        self.check(TaskAction::Pause)?;
        Ok(Self {
            state: TaskState::Paused.word(),
            continuation_pc: pc,
            continuation_data: data,
            resume_epoch: epoch,
            flags: self.flags & !TASK_FLAG_RESUME_READY | TASK_FLAG_PAUSED,
            ..self
        })
    }

    /// The paused task is ready again: its epoch was reached.
    ///
    /// # Errors
    ///
    /// The task is not Paused.
    pub fn try_resumed(self) -> Result<Self, BackendError> {
        self.check(TaskAction::Resume)?;
        Ok(Self {
            state: TaskState::Ready.word(),
            flags: self.flags & !(TASK_FLAG_PAUSED | TASK_FLAG_YIELDED) | TASK_FLAG_RESUME_READY,
            ..self
        })
    }

    /// The task gives way, stays in its partition and goes on at `pc` with the scratch word `data`.
    ///
    /// # Errors
    ///
    /// The task has ended, word 0 is no task's, or `yield_count` is at its maximum.
    pub fn try_yielded(self, pc: u32, data: u32) -> Result<Self, BackendError> {
        self.check(TaskAction::Yield)?;
        Ok(Self {
            state: TaskState::Yielded.word(),
            continuation_pc: pc,
            continuation_data: data,
            yield_count: incremented(self.yield_count, "yield_count")?,
            flags: self.flags | TASK_FLAG_YIELDED,
            ..self
        })
    }

    /// The task moves to the partition of `priority` and goes on at `pc` with the scratch word `data`.
    ///
    /// # Errors
    ///
    /// The task has ended, word 0 is no task's, or `requeue_count` or `age_ticks` is at its maximum.
    pub fn try_requeued(self, pc: u32, data: u32, priority: TaskPriority) -> Result<Self, BackendError> {
        self.check(TaskAction::Requeue)?;
        Ok(Self {
            state: TaskState::Requeued.word(),
            priority: priority.word(),
            continuation_pc: pc,
            continuation_data: data,
            age_ticks: incremented(self.age_ticks, "age_ticks")?,
            requeue_count: incremented(self.requeue_count, "requeue_count")?,
            flags: self.flags | TASK_FLAG_REQUEUE_REQUESTED,
            ..self
        })
    }

    /// The task ends well.
    ///
    /// # Errors
    ///
    /// The task has ended before, or word 0 is no task's.
    pub fn try_completed(self) -> Result<Self, BackendError> {
        self.check(TaskAction::Complete)?;
        Ok(Self { state: TaskState::Done.word(), flags: 0, ..self })
    }

    /// The task ends with the fault code `code`.
    ///
    /// # Errors
    ///
    /// The task has ended before, or word 0 is no task's.
    pub fn try_faulted(self, code: u32) -> Result<Self, BackendError> {
        self.check(TaskAction::Fault)?;
        Ok(Self { state: TaskState::Faulted.word(), continuation_data: code, ..self })
    }

    /// A worker takes the task: Ready, Yielded or Requeued becomes Running, and nothing else changes.
    ///
    /// # Errors
    ///
    /// The task is not schedulable.
    pub fn try_claimed(self) -> Result<Self, BackendError> {
        self.check(TaskAction::Claim)?;
        Ok(Self { state: TaskState::Running.word(), ..self })
    }

    /// The slot of an ended task is emptied: every word becomes 0, so that no count or age of it drives anything any
    /// more.
    ///
    /// # Errors
    ///
    /// The task is neither Done nor Faulted.
    pub fn try_recycled(self) -> Result<Self, BackendError> {
        self.check(TaskAction::Recycle)?;
        Ok(Self::default())
    }
}

/// # Steps that panic
///
/// Twins of the steps above for code written against the older ABI.
#[cfg(feature = "legacy-infallible")]
impl TaskWorkItem {
    /// [`try_paused`](Self::try_paused), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_paused` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn paused(self, pc: u32, data: u32, epoch: u32) -> Self {
        super::or_panic(self.try_paused(pc, data, epoch))
    }

    /// [`try_resumed`](Self::try_resumed), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_resumed` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn resumed(self) -> Self {
        super::or_panic(self.try_resumed())
    }

    /// [`try_yielded`](Self::try_yielded), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_yielded` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn yielded(self, pc: u32, data: u32) -> Self {
        super::or_panic(self.try_yielded(pc, data))
    }

    /// [`try_requeued`](Self::try_requeued), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_requeued` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn requeued(self, pc: u32, data: u32, priority: TaskPriority) -> Self {
        super::or_panic(self.try_requeued(pc, data, priority))
    }

    /// [`try_completed`](Self::try_completed), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_completed` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn completed(self) -> Self {
        super::or_panic(self.try_completed())
    }

    /// [`try_faulted`](Self::try_faulted), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_faulted` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn faulted(self, code: u32) -> Self {
        super::or_panic(self.try_faulted(code))
    }
}

#[cfg(test)]
mod tests;
