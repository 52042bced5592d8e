//! What the slots say while no slice runs.

use std::time::Duration;

use super::driver::Driver;
use super::inner::Inner;
use super::recovery;
use crate::abi::{self, SlotMeta, TaskWorkItem};
use crate::error::BackendError;

/// The tasks that have not ended, and those that faulted and whose completions nobody has taken, as the device left them. The age of those in
/// rings includes the wait that they are in.
pub(super) fn tasks(inner: &Inner, driver: &mut Driver, timeout: Duration) -> Result<Vec<TaskWorkItem>, BackendError> {
    let (slots, metas) = driver.inspect(inner.memory()?, timeout)?;
    let state = inner.shared.lock();
    let unfinished = state.journal.unfinished().into_iter().map(|(ticket, _, submitted)| {
        let left = recovery::in_slot(ticket, &slots, &metas);
        left.map_or(submitted, |item| waited(item, &metas[(ticket & abi::TR_INDEX_MASK) as usize], state.tick()))
    });
    Ok(unfinished.chain(state.ends.lock().deliveries.faulted_untaken()).collect())
}

/// What a claim at this tick would add to the task's age: `tr_run` in `scheduler.comp`.
fn waited(item: TaskWorkItem, meta: &SlotMeta, tick: u32) -> TaskWorkItem {
    let waits = if item.is_schedulable() { tick.wrapping_sub(meta.enqueue_tick).cast_signed().max(0) } else { 0 };
    TaskWorkItem { age_ticks: item.age_ticks.saturating_add(waits.cast_unsigned()), ..item }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waits_in_a_ring_grows_older_and_no_age_wraps() {
        let age = |state, age_ticks, enqueue_tick, tick| {
            let item = TaskWorkItem { state, age_ticks, ..TaskWorkItem::default() };
            waited(item, &SlotMeta { enqueue_tick, ..SlotMeta::default() }, tick).age_ticks
        };
        assert_eq!(age(abi::TASK_STATE_READY, 5, 100, 107), 12);
        assert_eq!(age(abi::TASK_STATE_YIELDED, 0, u32::MAX, 2), 3, "ticks wrap");
        assert_eq!(age(abi::TASK_STATE_REQUEUED, u32::MAX - 1, 0, 7), u32::MAX);
        assert_eq!(age(abi::TASK_STATE_READY, 5, 8, 7), 5, "queued after the tick was read");
        assert_eq!(age(abi::TASK_STATE_PAUSED, 5, 100, 107), 5);
    }
}
