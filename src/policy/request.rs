//! What a snapshot asks of a launch.

use crate::error::BackendError;
use crate::telemetry::TaskQueueSnapshot;

/// What a launch is asked to cope with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MegakernelLaunchRequest {
    /// Tasks that a worker may claim.
    pub queue_len: u32,
    /// Continuation pressure: yielded and requeued tasks, and requeues so far.
    pub requeue_count: u64,
    /// Largest age of a task, in ticks.
    pub max_priority_age: u32,
}

impl TaskQueueSnapshot {
    /// The request with what this snapshot saw: its schedulable tasks in place of `queue_len`, its continuation
    /// pressure added to `requeue_count`, and the larger of the two ages.
    ///
    /// # Errors
    ///
    /// One of the sums does not fit.
    pub fn try_apply_to_launch_request(
        &self,
        request: MegakernelLaunchRequest,
    ) -> Result<MegakernelLaunchRequest, BackendError> {
        let pressure = self.try_continuation_pressure_count()?;
        let requeue_count = request.requeue_count.checked_add(pressure);
        Ok(MegakernelLaunchRequest {
            queue_len: self.try_schedulable_count()?,
            requeue_count: requeue_count.ok_or(BackendError::CounterOverflow { counter: "requeue_count" })?,
            max_priority_age: request.max_priority_age.max(self.max_priority_age),
        })
    }

    /// [`try_apply_to_launch_request`](Self::try_apply_to_launch_request), for callers that have no way to handle an
    /// error.
    ///
    /// # Panics
    ///
    /// Where `try_apply_to_launch_request` gives an error, with its words.
    #[cfg(feature = "legacy-infallible")]
    #[must_use]
    #[track_caller]
    pub fn apply_to_launch_request(&self, request: MegakernelLaunchRequest) -> MegakernelLaunchRequest {
        crate::abi::or_panic(self.try_apply_to_launch_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: TaskQueueSnapshot = TaskQueueSnapshot {
        ready_count: 10,
        paused_count: 1000,
        yielded_count: 20,
        requeued_count: 30,
        running_count: 2000,
        faulted_count: 3000,
        total_requeues: 400,
        max_priority_age: 7,
    };

    #[test]
    fn a_snapshot_replaces_the_queue_adds_its_pressure_and_keeps_the_larger_age() {
        let request = MegakernelLaunchRequest { queue_len: 999, requeue_count: 5, max_priority_age: 6 };
        let applied = MegakernelLaunchRequest { queue_len: 60, requeue_count: 455, max_priority_age: 7 };
        assert_eq!(SNAPSHOT.try_apply_to_launch_request(request), Ok(applied));
        let older = MegakernelLaunchRequest { max_priority_age: 8, ..request };
        let applied = MegakernelLaunchRequest { max_priority_age: 8, ..applied };
        assert_eq!(SNAPSHOT.try_apply_to_launch_request(older), Ok(applied));
    }

    #[test]
    fn a_sum_that_does_not_fit_into_the_request_is_an_error_that_names_it() {
        let overflow = |counter| Err(BackendError::CounterOverflow { counter });
        let room = MegakernelLaunchRequest { requeue_count: u64::MAX - 450, ..MegakernelLaunchRequest::default() };
        assert_eq!(SNAPSHOT.try_apply_to_launch_request(room).map(|request| request.requeue_count), Ok(u64::MAX));
        let full = MegakernelLaunchRequest { requeue_count: u64::MAX - 449, ..room };
        assert_eq!(SNAPSHOT.try_apply_to_launch_request(full), overflow("requeue_count"));
        let crowd = TaskQueueSnapshot { ready_count: u32::MAX, ..SNAPSHOT };
        assert_eq!(crowd.try_apply_to_launch_request(room), overflow("schedulable_count"));
        let history = TaskQueueSnapshot { total_requeues: u64::MAX, ..SNAPSHOT };
        assert_eq!(history.try_apply_to_launch_request(room), overflow("continuation_pressure_count"));
    }

    #[cfg(feature = "legacy-infallible")]
    #[test]
    #[should_panic(expected = "requeue_count would overflow")]
    fn the_panicking_twin_panics_with_the_words_of_the_error() {
        let full = MegakernelLaunchRequest { requeue_count: u64::MAX, ..MegakernelLaunchRequest::default() };
        let _ = SNAPSHOT.apply_to_launch_request(full);
    }
}
