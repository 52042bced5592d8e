//! Tasks counted by their states.

use crate::abi::{TaskState, TaskWorkItem};
use crate::error::BackendError;

/// How many tasks are in which state, and how long they have been at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TaskQueueSnapshot {
    /// Tasks that may run and have not run yet, or have been resumed.
    pub ready_count: u32,
    /// Tasks that wait for their epochs.
    pub paused_count: u32,
    /// Tasks that gave way.
    pub yielded_count: u32,
    /// Tasks that changed partition.
    pub requeued_count: u32,
    /// Tasks that workers run.
    pub running_count: u32,
    /// Tasks that have ended with a fault.
    pub faulted_count: u32,
    /// Sum of `requeue_count` over all slots.
    pub total_requeues: u64,
    /// Largest `age_ticks` of all slots, in ticks.
    pub max_priority_age: u32,
}

fn overflow(counter: &'static str) -> BackendError {
    BackendError::CounterOverflow { counter }
}

impl TaskQueueSnapshot {
    /// Counts the slots that are given. Their requeues and ages count whatever their state, those of ended tasks too
    /// until [their slots are recycled](TaskWorkItem::try_recycled).
    ///
    /// # Errors
    ///
    /// A slot's word 0 is no state code, or a count or the sum overflows.
    pub fn from_tasks(tasks: &[TaskWorkItem]) -> Result<Self, BackendError> {
        let mut snapshot = Self::default();
        for (index, task) in tasks.iter().enumerate() {
            snapshot.count(index, task)?;
        }
        Ok(snapshot)
    }

    fn count(&mut self, index: usize, task: &TaskWorkItem) -> Result<(), BackendError> {
        let state = task.task_state().ok_or(BackendError::UnknownState { index, word: task.state })?;
        let counter = match state {
            TaskState::Empty | TaskState::Done => None,
            TaskState::Ready => Some((&mut self.ready_count, "ready_count")),
            TaskState::Running => Some((&mut self.running_count, "running_count")),
            TaskState::Paused => Some((&mut self.paused_count, "paused_count")),
            TaskState::Yielded => Some((&mut self.yielded_count, "yielded_count")),
            TaskState::Requeued => Some((&mut self.requeued_count, "requeued_count")),
            TaskState::Faulted => Some((&mut self.faulted_count, "faulted_count")),
        };
        if let Some((count, name)) = counter {
            *count = count.checked_add(1).ok_or(overflow(name))?;
        }
        let requeues = self.total_requeues.checked_add(task.requeue_count.into());
        self.total_requeues = requeues.ok_or(overflow("total_requeues"))?;
        self.max_priority_age = self.max_priority_age.max(task.age_ticks);
        Ok(())
    }

    /// Tasks that a worker may claim: ready, yielded and requeued ones.
    ///
    /// # Errors
    ///
    /// The sum does not fit.
    pub fn try_schedulable_count(&self) -> Result<u32, BackendError> {
        let sum = self.ready_count.checked_add(self.yielded_count);
        sum.and_then(|sum| sum.checked_add(self.requeued_count)).ok_or(overflow("schedulable_count"))
    }

    /// How much of the work is tasks that come back: yielded and requeued ones, and every requeue so far.
    ///
    /// # Errors
    ///
    /// The sum does not fit.
    pub fn try_continuation_pressure_count(&self) -> Result<u64, BackendError> {
        let waiting = u64::from(self.yielded_count) + u64::from(self.requeued_count);
        waiting.checked_add(self.total_requeues).ok_or(overflow("continuation_pressure_count"))
    }
}

/// # Counts that panic
///
/// Twins of the counts above for code written against the older ABI.
#[cfg(feature = "legacy-infallible")]
impl TaskQueueSnapshot {
    /// [`try_schedulable_count`](Self::try_schedulable_count), for callers that have no way to handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_schedulable_count` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn schedulable_count(&self) -> u32 {
        crate::abi::or_panic(self.try_schedulable_count())
    }

    /// [`try_continuation_pressure_count`](Self::try_continuation_pressure_count), for callers that have no way to
    /// handle an error.
    ///
    /// # Panics
    ///
    /// Where `try_continuation_pressure_count` gives an error, with its words.
    #[must_use]
    #[track_caller]
    pub fn continuation_pressure_count(&self) -> u64 {
        crate::abi::or_panic(self.try_continuation_pressure_count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn task(state: u32, requeue_count: u32, age_ticks: u32) -> TaskWorkItem {
        TaskWorkItem { state, requeue_count, age_ticks, ..TaskWorkItem::default() }
    }

    fn any_task() -> impl Strategy<Value = TaskWorkItem> {
        (0..8u32, any::<u32>(), any::<u32>()).prop_map(|(state, requeues, age)| task(state, requeues, age))
    }

    proptest! {
        #[test]
        fn a_snapshot_is_what_a_naive_recount_finds(tasks in prop::collection::vec(any_task(), 0..64)) {
            let with_code = |code| tasks.iter().filter(|task| task.state == code).count() as u32;
            let recount = TaskQueueSnapshot {
                ready_count: with_code(1),
                running_count: with_code(2),
                paused_count: with_code(4),
                yielded_count: with_code(5),
                requeued_count: with_code(6),
                faulted_count: with_code(7),
                total_requeues: tasks.iter().map(|task| u64::from(task.requeue_count)).sum(),
                max_priority_age: tasks.iter().map(|task| task.age_ticks).max().unwrap_or(0),
            };
            prop_assert_eq!(TaskQueueSnapshot::from_tasks(&tasks), Ok(recount));
            let schedulable = tasks.iter().filter(|task| task.is_schedulable()).count() as u32;
            prop_assert_eq!(recount.try_schedulable_count(), Ok(schedulable));
        }

        #[test]
        fn the_first_unknown_state_word_is_named_with_its_index(
            tasks in prop::collection::vec(any_task(), 1..32),
            at: prop::sample::Index,
            word in 8u32..,
        ) {
            let mut tasks = tasks;
            let index = at.index(tasks.len());
            tasks[index].state = word;
            tasks.push(task(99, 0, 0));
            prop_assert_eq!(TaskQueueSnapshot::from_tasks(&tasks), Err(BackendError::UnknownState { index, word }));
        }
    }

    #[test]
    fn requeues_and_ages_of_ended_and_empty_slots_count_until_they_are_recycled() -> Result<(), BackendError> {
        let done = task(3, 7, 40);
        let kept = TaskQueueSnapshot::from_tasks(&[done, task(0, 1, 50)])?;
        assert_eq!(kept, TaskQueueSnapshot { total_requeues: 8, max_priority_age: 50, ..TaskQueueSnapshot::default() });
        assert_eq!(TaskQueueSnapshot::from_tasks(&[done.try_recycled()?]), Ok(TaskQueueSnapshot::default()));
        Ok(())
    }

    #[test]
    fn every_count_that_is_full_refuses_one_more_and_is_named() {
        let full = TaskQueueSnapshot {
            ready_count: u32::MAX,
            paused_count: u32::MAX,
            yielded_count: u32::MAX,
            requeued_count: u32::MAX,
            running_count: u32::MAX,
            faulted_count: u32::MAX,
            total_requeues: u64::MAX,
            max_priority_age: u32::MAX,
        };
        let counters = [
            (1, "ready_count"),
            (2, "running_count"),
            (4, "paused_count"),
            (5, "yielded_count"),
            (6, "requeued_count"),
            (7, "faulted_count"),
        ];
        for (state, counter) in counters {
            assert_eq!({ full }.count(0, &task(state, 0, 0)), Err(overflow(counter)));
        }
        assert_eq!({ full }.count(0, &task(3, 1, 0)), Err(overflow("total_requeues")));
        assert_eq!({ full }.count(0, &task(3, 0, 9)), Ok(()));
    }

    #[test]
    fn a_schedulable_count_that_does_not_fit_is_an_error() {
        let snapshot =
            TaskQueueSnapshot { ready_count: u32::MAX - 2, yielded_count: 1, ..TaskQueueSnapshot::default() };
        let fits = TaskQueueSnapshot { requeued_count: 1, ..snapshot };
        assert_eq!(fits.try_schedulable_count(), Ok(u32::MAX));
        for counts in [(3, 0), (1, 2)] {
            let full = TaskQueueSnapshot { yielded_count: counts.0, requeued_count: counts.1, ..snapshot };
            assert_eq!(full.try_schedulable_count(), Err(overflow("schedulable_count")));
        }
    }

    #[test]
    fn continuation_pressure_is_yielded_and_requeued_tasks_and_all_requeues_or_an_error() {
        let snapshot = TaskQueueSnapshot {
            ready_count: 100,
            yielded_count: u32::MAX,
            requeued_count: u32::MAX,
            total_requeues: 5,
            ..TaskQueueSnapshot::default()
        };
        assert_eq!(snapshot.try_continuation_pressure_count(), Ok(2 * u64::from(u32::MAX) + 5));
        let full = TaskQueueSnapshot { total_requeues: u64::MAX, ..snapshot };
        assert_eq!(full.try_continuation_pressure_count(), Err(overflow("continuation_pressure_count")));
    }

    #[cfg(feature = "legacy-infallible")]
    mod legacy {
        use super::*;

        #[test]
        fn the_panicking_counts_give_the_same_numbers() {
            let snapshot = TaskQueueSnapshot {
                ready_count: 1,
                yielded_count: 2,
                requeued_count: 3,
                total_requeues: 9,
                ..Default::default()
            };
            assert_eq!((snapshot.schedulable_count(), snapshot.continuation_pressure_count()), (6, 14));
        }

        #[test]
        #[should_panic(expected = "schedulable_count would overflow")]
        fn a_panicking_count_panics_with_the_words_of_the_error() {
            let _ =
                TaskQueueSnapshot { ready_count: u32::MAX, yielded_count: 1, ..Default::default() }.schedulable_count();
        }

        #[test]
        #[should_panic(expected = "continuation_pressure_count would overflow")]
        fn a_panicking_pressure_panics_with_the_words_of_the_error() {
            let full = TaskQueueSnapshot { yielded_count: 1, total_requeues: u64::MAX, ..Default::default() };
            let _ = full.continuation_pressure_count();
        }
    }
}
