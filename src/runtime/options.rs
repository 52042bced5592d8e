//! What a user chooses when a runtime is made.

use std::time::Duration;

use crate::abi;
use crate::device::Device;
use crate::error::BackendError;

/// How a [`Runtime`](crate::Runtime) is laid out and driven. Every field has a default that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Unfinished tasks that the runtime can hold, completions not yet consumed included: a power of two from 64 to 2^24. Each costs about
    /// 300 bytes of device memory and 130 of the host's.
    pub capacity: u32,
    /// Workers, that is workgroups of one subgroup, in a slice. `None`: 256 on a GPU, the number of cores on a CPU driver, whose surplus
    /// workgroups only start when others leave.
    pub workers: Option<u32>,
    /// Turns that a worker takes before its slice ends, at least 1. The longest time that the host waits to be heard is this times the
    /// longest turn.
    pub turn_budget: u32,
    /// Turns without anything to do after which a worker leaves its slice.
    pub linger_turns: u32,
    /// Ticks (claims) of waiting that weigh as much as one step of priority, from 1 to 2^20. A ready task is claimed after at most
    /// `4 * aging_ticks + capacity + 4 * batch * workers` further claims, whatever else is submitted.
    pub aging_ticks: u32,
    /// Largest batch that a worker claims at once; `None` for a whole subgroup.
    pub batch: Option<u32>,
    /// Entries of the tenant table: ids from 0 to one less exist.
    pub tenants: u32,
    /// Entries of the buffer table.
    pub buffers: u32,
    /// Turns of tasks that a slice can record for [`Runtime::take_trace`](crate::Runtime::take_trace); 0 records nothing.
    pub trace_capacity: u32,
    /// Longest wait for one slice where the caller names no time: on drop. Well above what a driver's watchdog allows.
    pub slice_timeout: Duration,
    /// Whether a submission launches a slice if none runs. Without it, only waits and [`Runtime::poll`](crate::Runtime::poll) do.
    pub launch_on_submit: bool,
    /// Makes each worker that runs a task in this turn (1 is the first) of the first slice behave as if the driver had cut it there. For tests
    /// of recovery.
    pub cut_turn: Option<u32>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            capacity: 16_384,
            workers: None,
            turn_budget: 512,
            linger_turns: 16,
            aging_ticks: 4_096,
            batch: None,
            tenants: 32,
            buffers: 1_024,
            trace_capacity: 0,
            slice_timeout: Duration::from_secs(20),
            launch_on_submit: true,
            cut_turn: None,
        }
    }
}

impl RuntimeOptions {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let within = |option, value: u32, range: std::ops::RangeInclusive<u32>, must| {
            if range.contains(&value) {
                Ok(())
            } else {
                Err(BackendError::BadOption { option, value: value.into(), must })
            }
        };
        if !self.capacity.is_power_of_two() || !(64..=abi::TR_INDEX_MASK + 1).contains(&self.capacity) {
            let must = "a power of two from 64 to 2^24";
            return Err(BackendError::BadOption { option: "capacity", value: self.capacity.into(), must });
        }
        within("workers", self.workers.unwrap_or(1), 1..=65_535, "from 1 to 65535")?;
        within("turn_budget", self.turn_budget, 1..=1 << 30, "from 1 to 2^30")?;
        within("aging_ticks", self.aging_ticks, 1..=1 << 20, "from 1 to 2^20")?;
        within("batch", self.batch.unwrap_or(1), 1..=128, "from 1 to 128")?;
        within("tenants", self.tenants, 1..=1 << 20, "from 1 to 2^20")?;
        within("buffers", self.buffers, 1..=abi::TR_HANDLE_INDEX_MASK + 1, "from 1 to 2^20")?;
        within("trace_capacity", self.trace_capacity, 0..=1 << 24, "at most 2^24")?;
        within("cut_turn", self.cut_turn.unwrap_or(1), 1..=u32::MAX, "at least 1")
    }

    pub(super) fn workers_on(&self, device: &Device) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(2));
        self.workers.unwrap_or_else(|| if device.is_cpu() { cores() } else { 256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(RuntimeOptions::default().check(), Ok(()));
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        let refused = |options: RuntimeOptions| match options.check() {
            Err(BackendError::BadOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let base = RuntimeOptions::default;
        assert_eq!(refused(RuntimeOptions { capacity: 100, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { capacity: 32, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { capacity: 1 << 25, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { workers: Some(0), ..base() }), "workers");
        assert_eq!(refused(RuntimeOptions { turn_budget: 0, ..base() }), "turn_budget");
        assert_eq!(refused(RuntimeOptions { aging_ticks: 0, ..base() }), "aging_ticks");
        assert_eq!(refused(RuntimeOptions { tenants: 0, ..base() }), "tenants");
        assert_eq!(refused(RuntimeOptions { batch: Some(0), ..base() }), "batch");
    }
}
