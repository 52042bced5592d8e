//! What can be seen of a queue of tasks.

mod snapshot;

pub use snapshot::TaskQueueSnapshot;
