//! Word 0 of a slot: where its task stands.

use super::{
    TASK_STATE_DONE, TASK_STATE_EMPTY, TASK_STATE_FAULTED, TASK_STATE_PAUSED, TASK_STATE_READY, TASK_STATE_REQUEUED,
    TASK_STATE_RUNNING, TASK_STATE_YIELDED,
};

/// Where a task stands.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// The slot holds no task.
    Empty = TASK_STATE_EMPTY,
    /// The task may run.
    Ready = TASK_STATE_READY,
    /// A worker runs the task.
    Running = TASK_STATE_RUNNING,
    /// The task has ended well.
    Done = TASK_STATE_DONE,
    /// The task waits for its resume epoch.
    Paused = TASK_STATE_PAUSED,
    /// The task gave way and may run again.
    Yielded = TASK_STATE_YIELDED,
    /// The task changed partition and may run again.
    Requeued = TASK_STATE_REQUEUED,
    /// The task has ended with a fault code.
    Faulted = TASK_STATE_FAULTED,
}

impl TaskState {
    /// The state with this code, if there is one.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        Some(match word {
            TASK_STATE_EMPTY => Self::Empty,
            TASK_STATE_READY => Self::Ready,
            TASK_STATE_RUNNING => Self::Running,
            TASK_STATE_DONE => Self::Done,
            TASK_STATE_PAUSED => Self::Paused,
            TASK_STATE_YIELDED => Self::Yielded,
            TASK_STATE_REQUEUED => Self::Requeued,
            TASK_STATE_FAULTED => Self::Faulted,
            _ => return None,
        })
    }

    /// The state's code.
    #[must_use]
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// Whether a worker may claim a task in this state.
    #[must_use]
    pub const fn is_schedulable(self) -> bool {
        matches!(self, Self::Ready | Self::Yielded | Self::Requeued)
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{self, Done, Empty, Faulted, Paused, Ready, Requeued, Running, Yielded};
    use proptest::prelude::*;

    const BY_CODE: [TaskState; 8] = [Empty, Ready, Running, Done, Paused, Yielded, Requeued, Faulted];

    #[test]
    fn every_state_has_its_published_code_and_comes_back_from_it() {
        for (code, state) in (0..).zip(BY_CODE) {
            assert_eq!(state.word(), code);
            assert_eq!(TaskState::from_word(code), Some(state));
        }
    }

    #[test]
    fn only_ready_yielded_and_requeued_tasks_are_schedulable() {
        let schedulable: Vec<_> = BY_CODE.into_iter().filter(|state| state.is_schedulable()).collect();
        assert_eq!(schedulable, [Ready, Yielded, Requeued]);
    }

    proptest! {
        #[test]
        fn a_word_past_the_last_code_is_no_state(word in 8u32..) {
            prop_assert_eq!(TaskState::from_word(word), None);
        }
    }
}
