//! How deep and how old the partitions are, smoothed over the last looks.

use std::sync::PoisonError;
use std::time::Duration;

use super::{Runtime, look};
use crate::abi::{TaskPriority, TaskWorkItem};
use crate::convergence::PreparedConvergence;
use crate::device::Device;
use crate::error::BackendError;
use crate::telemetry::TaskQueueSnapshot;

const PARTITIONS: usize = TaskPriority::ALL.len();
/// Looks that are kept.
const WINDOW: usize = 16;
/// A row of looks for the depth of each partition, and one for its age.
const ROWS: usize = 2 * PARTITIONS;
/// Each iteration takes a look half as it was and a quarter of each neighbour: so many make a look a mean of some three on either side.
const ITERATIONS: u32 = 8;

/// How full a partition is, and how long its tasks wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PartitionTrend {
    /// Tasks that a worker may claim.
    pub depth: u32,
    /// The largest age among them, in ticks, the wait that they are in included.
    pub age: u32,
}

/// The window, the newest look last in each row, and what smooths it.
#[derive(Debug)]
pub(super) struct Trends {
    prepared: PreparedConvergence,
    window: Option<[[u32; WINDOW]; ROWS]>,
}

impl Trends {
    fn new(device: &Device) -> Result<Self, BackendError> {
        // Quarters first: the sum of four ages may not fit. A row's first and last look stand for their missing neighbours.
        let body = format!(
            "uint at = index % {WINDOW}u;
            uint left = at == 0u ? current[index] : current[index - 1u];
            uint right = at == {WINDOW}u - 1u ? current[index] : current[index + 1u];
            uint rests = (current[index] & 1u) * 2u + (left & 3u) + (right & 3u);
            next[index] = current[index] / 2u + left / 4u + right / 4u + (rests + 2u) / 4u;"
        );
        let build = TaskQueueSnapshot::build_state_convergence_program;
        let program = build(&body, "current", "next", "changed", (ROWS * WINDOW) as u32, ITERATIONS)?;
        Ok(Self { prepared: program.prepare(device)?, window: None })
    }

    /// Adds a look; what the newest one is, smoothed.
    fn add(
        &mut self,
        look: [PartitionTrend; PARTITIONS],
        timeout: Duration,
    ) -> Result<[PartitionTrend; PARTITIONS], BackendError> {
        let value = |row: usize| if row < PARTITIONS { look[row].depth } else { look[row - PARTITIONS].age };
        // The first look stands for all before it.
        let mut window = self.window.unwrap_or_else(|| std::array::from_fn(|row| [value(row); WINDOW]));
        for (row, looks) in window.iter_mut().enumerate() {
            looks.rotate_left(1);
            looks[WINDOW - 1] = value(row);
        }
        let smooth = self.prepared.run(window.as_flattened(), timeout)?.words;
        self.window = Some(window);
        let newest = |row: usize| smooth[row * WINDOW + WINDOW - 1];
        Ok(std::array::from_fn(|row| PartitionTrend { depth: newest(row), age: newest(row + PARTITIONS) }))
    }
}

/// What the partitions are like now.
fn partitions(tasks: &[TaskWorkItem]) -> [PartitionTrend; PARTITIONS] {
    let mut partitions = [PartitionTrend::default(); PARTITIONS];
    for task in tasks.iter().filter(|task| task.is_schedulable()) {
        // Who has no such priority faults before it is in any.
        if let Some(partition) = partitions.get_mut(task.priority as usize) {
            partition.depth += 1;
            partition.age = partition.age.max(task.age_ticks);
        }
    }
    partitions
}

impl Runtime {
    /// How full each partition is and how long its tasks wait, by priority, smoothed over the last 16 calls: waits for the running slice, looks at
    /// every slot, and smooths on the device, by [state convergence](crate::convergence). The first call compiles that.
    ///
    /// The launch policy goes by the outcome of the last call ([`LaunchFacts::usual_depth`](crate::LaunchFacts::usual_depth)).
    ///
    /// # Errors
    /// [`BackendError::Timeout`]; what the device gives.
    pub fn partition_trends(&self, timeout: Duration) -> Result<[PartitionTrend; PARTITIONS], BackendError> {
        self.0.settled(timeout, |inner, driver, left| {
            let look = partitions(&look::tasks(inner, driver, left)?);
            let mut trends = inner.trends.lock().unwrap_or_else(PoisonError::into_inner);
            let trends = match &mut *trends {
                Some(trends) => trends,
                none => none.insert(Trends::new(&inner.device)?),
            };
            let smooth = trends.add(look, left)?;
            inner.shared.lock().usual = smooth.iter().fold((0, 0), |(depth, age), partition| {
                (partition.depth.saturating_add(depth), partition.age.max(age))
            });
            Ok(smooth)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_what_may_be_claimed_from_it() {
        let task = |state, priority, age_ticks| TaskWorkItem { state, priority, age_ticks, ..TaskWorkItem::default() };
        let tasks = [task(1, 4, 7), task(5, 4, 9), task(6, 0, 1), task(4, 4, 99), task(7, 2, 99), task(1, 5, 99)];
        let trend = |depth, age| PartitionTrend { depth, age };
        assert_eq!(partitions(&tasks), [trend(1, 1), trend(0, 0), trend(0, 0), trend(0, 0), trend(2, 9)]);
    }
}
