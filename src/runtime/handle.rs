//! The handle of one submitted task.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::keeper::Kept;
use super::task::{Completion, SubmissionId};
use crate::error::BackendError;

/// One submitted task, and a future of its end. Dropping it without waiting lets the task run and forgets its completion.
#[must_use = "a dropped handle forgets the task's completion"]
pub struct TaskHandle {
    pub(super) inner: Arc<Kept>,
    id: SubmissionId,
    pub(super) ticket: u32,
    pub(super) taken: bool,
}

impl TaskHandle {
    pub(super) fn new(inner: Arc<Kept>, id: SubmissionId, ticket: u32) -> Self {
        Self { inner, id, ticket, taken: false }
    }

    /// The submission's id.
    #[must_use]
    pub fn id(&self) -> SubmissionId {
        self.id
    }

    pub(super) fn untaken(&self) -> Result<(), BackendError> {
        if self.taken { Err(BackendError::AlreadyTaken { number: self.id.0 }) } else { Ok(()) }
    }

    /// Waits for the task to end, driving slices meanwhile.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] after `timeout`, and the task goes on: wait again. [`BackendError::AlreadyTaken`] after a wait that succeeded. What
    /// the device or the driver gives.
    pub fn wait(&mut self, timeout: Duration) -> Result<Completion, BackendError> {
        self.untaken()?;
        let ticket = self.ticket;
        let completion = self.inner.drive(timeout, "a task to end", || {
            let mut completion = None;
            self.inner.in_rounds(|ends, memory| {
                let more = ends.listen(memory)?;
                completion = ends.deliveries.take(ticket);
                Ok(more && completion.is_none())
            })?;
            Ok(completion)
        })?;
        self.taken = true;
        Ok(completion)
    }
}

impl fmt::Debug for TaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("id", &self.id).field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Drop for TaskHandle {
    fn drop(&mut self) {
        if !self.taken {
            self.inner.shared.ends.lock().deliveries.forget(self.ticket);
        }
    }
}
