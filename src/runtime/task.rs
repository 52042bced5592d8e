//! Tasks as the host writes them, and as they come back.

use super::record::End;
use crate::abi::{self, CompletionCounts, MegakernelWorkItem, TaskPriority, TaskState, TaskWorkItem, TimelineId};

/// Builds a [`TaskWorkItem`] to submit.
///
/// ```
/// use taskring::{Task, TaskPriority, TaskState};
///
/// // Op 0, which `Program::op` gives by name, once timeline 0 has reached epoch 5.
/// let item = Task::new(0).priority(TaskPriority::High).param(7).paused_until(0, 5).item();
/// assert_eq!((item.task_state(), item.resume_epoch), (Some(TaskState::Paused), 5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a task does nothing until it is submitted"]
pub struct Task(TaskWorkItem);

impl Task {
    /// A ready task of tenant 0 at normal priority, for the op with this handle, as [`Program::op`](crate::Program::op) gives it.
    pub fn new(op: u32) -> Self {
        let work = MegakernelWorkItem { op_handle: op, ..MegakernelWorkItem::default() };
        Self(TaskWorkItem::from_work_item(0, 0, TaskPriority::Normal, work))
    }

    /// The partition that it waits in.
    pub fn priority(mut self, priority: TaskPriority) -> Self {
        self.0.priority = priority.word();
        self
    }

    /// The tenant that it runs for.
    pub fn tenant(mut self, tenant: u32) -> Self {
        self.0.tenant_id = tenant;
        self
    }

    /// The buffer behind `task_input`.
    pub fn input(mut self, buffer: BufferHandle) -> Self {
        self.0.input_handle = buffer.word();
        self
    }

    /// The buffer behind `task_output`.
    pub fn output(mut self, buffer: BufferHandle) -> Self {
        self.0.output_handle = buffer.word();
        self
    }

    /// The parameter word.
    pub fn param(mut self, param: u32) -> Self {
        self.0.param = param;
        self
    }

    /// The id that joins the turns of this task in traces and completions. The runtime does not interpret it.
    pub fn id(mut self, id: u32) -> Self {
        self.0.task_id = id;
        self
    }

    /// Where the op begins.
    pub fn starting_at(mut self, pc: u32, data: u32) -> Self {
        self.0.continuation_pc = pc;
        self.0.continuation_data = data;
        self
    }

    /// Comes in paused until the timeline reaches the epoch. The 32 bits mean the nearest epoch that ends in them, up to 2^31 behind
    /// (already reached) or ahead.
    pub fn paused_until(mut self, timeline: impl Into<TimelineId>, epoch: u32) -> Self {
        self.0.state = TaskState::Paused.word();
        self.0.resume_epoch = epoch;
        self.0.flags |= abi::TASK_FLAG_PAUSED;
        self.0 = self.0.with_timeline(timeline.into());
        self
    }

    /// The 64 bytes.
    #[must_use]
    pub fn item(self) -> TaskWorkItem {
        self.0
    }
}

impl From<Task> for TaskWorkItem {
    fn from(task: Task) -> Self {
        task.0
    }
}

/// A registered buffer: what a task carries in its handle words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferHandle(pub(super) u32);

impl BufferHandle {
    /// The handle as the task's word; never 0, which means "no buffer".
    #[must_use]
    pub fn word(self) -> u32 {
        self.0
    }
}

/// Names one submission for the life of its runtime: never reused, and not the `task_id` word, which is the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(pub(super) u64);

impl SubmissionId {
    /// The sequence number, from 0.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The part of a batch that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the tasks from `count` on were not taken"]
pub struct Accepted {
    pub(super) first: u64,
    pub(super) count: usize,
}

impl Accepted {
    /// How many tasks were taken, from the batch's start. The caller still has the rest.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their ids, in the batch's order.
    #[must_use]
    pub fn ids(&self) -> impl ExactSizeIterator<Item = SubmissionId> + use<> {
        let first = self.first;
        (0..self.count).map(move |index| SubmissionId(first + index as u64))
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its op completed it.
    Done,
    /// It faulted with this code: the op's own, or one of `TASK_FAULT_*`.
    Faulted(u32),
}

/// The end of one task. Each submitted task has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// Which submission.
    pub id: SubmissionId,
    /// How it ended.
    pub outcome: Outcome,
    /// Word 10, the user's.
    pub task_id: u32,
    /// Word 8 at the end: the op's scratch word, or the fault code.
    pub continuation_data: u32,
    /// Word 12 at the end: ticks spent waiting in rings. This and the counts below are 0 without [`RuntimeOptions::counts`](super::RuntimeOptions::counts).
    pub age_ticks: u32,
    /// Word 13 at the end.
    pub requeue_count: u32,
    /// Word 14 at the end.
    pub yield_count: u32,
}

impl Completion {
    /// From a slot that is Done or Faulted.
    pub(super) fn of_item(id: SubmissionId, item: &TaskWorkItem) -> Self {
        let faulted = item.state == abi::TASK_STATE_FAULTED;
        Self {
            id,
            outcome: if faulted { Outcome::Faulted(item.continuation_data) } else { Outcome::Done },
            task_id: item.task_id,
            continuation_data: item.continuation_data,
            age_ticks: item.age_ticks,
            requeue_count: item.requeue_count,
            yield_count: item.yield_count,
        }
    }

    pub(super) fn of_record(id: SubmissionId, task_id: u32, end: &End) -> Self {
        match end.is_faulted() {
            true => Self { outcome: Outcome::Faulted(end.continuation_data()), ..Self::done(id, task_id, end) },
            false => Self::done(id, task_id, end),
        }
    }

    /// The same of a task that did not fault.
    #[inline]
    pub(super) fn done(id: SubmissionId, task_id: u32, end: &End) -> Self {
        let CompletionCounts { age_ticks, requeue_count, yield_count, .. } = end.counts();
        let continuation_data = end.continuation_data();
        Self { id, outcome: Outcome::Done, task_id, continuation_data, age_ticks, requeue_count, yield_count }
    }
}

/// What a stopped runtime leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopReport {
    /// Tasks that ended, over the runtime's life, before the stop.
    pub ended: u64,
    /// Tasks that did not, each as its slot was left, in the order of submission. Their completions say `TASK_FAULT_CANCELLED`.
    pub unfinished: Vec<(SubmissionId, TaskWorkItem)>,
}

/// What a runtime has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RuntimeStats {
    /// Slices launched.
    pub slices: u64,
    /// Turns of workers that found something to do.
    pub turns: u64,
    /// Tasks taken from the host.
    pub submitted: u64,
    /// Tasks that the device has taken in up to the end of the last slice; those that a recovery published again count twice.
    pub admitted: u64,
    /// Tasks that ended Done.
    pub done: u64,
    /// Tasks that ended Faulted.
    pub faulted: u64,
    /// Times that a task began to wait for an epoch.
    pub pauses: u64,
    /// Times that a waiting task was resumed.
    pub resumes: u64,
    /// Slices that the driver cut and that were recovered.
    pub recoveries: u64,
    /// Turns that the trace had no room for.
    pub untraced: u64,
}
