//! After a slice that ended without a reason: rings and wait lists may have holes, so they are cleared, and every unfinished task is published
//! again as its slot has it. Slots are the truth; the journal has what never reached one.

use super::mailbox::LineTicket;
use super::memory::Memory;
use super::state::State;
use crate::abi::{self, SlotMeta, TaskState, TaskWorkItem};
use crate::error::BackendError;
use crate::program::Op;

/// What becomes of a task that was in flight when its slice was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It had ended; only its record is missing. Or its turn was cut and may not run again.
    Ended(TaskWorkItem),
    /// It goes on from here.
    Published(TaskWorkItem),
}

/// The task as the device left it; nothing if no worker had admitted it.
pub(super) fn in_slot(ticket: u32, slots: &[TaskWorkItem], metas: &[SlotMeta]) -> Option<TaskWorkItem> {
    let index = (ticket & abi::TR_INDEX_MASK) as usize;
    let (slot, meta) = (slots.get(index)?, metas.get(index)?);
    (meta.ticket == ticket && slot.state != abi::TASK_STATE_EMPTY).then_some(*slot)
}

/// Whether a paused task's 64-bit epoch was fixed, and has been reached.
fn target_reached(item: &TaskWorkItem, meta: &SlotMeta, epoch: u64) -> bool {
    let target = u64::from(meta.target_hi) << 32 | u64::from(item.resume_epoch);
    meta.next != abi::TR_UNDECIDED && epoch >= target
}

fn fate(left: TaskWorkItem, target_reached: bool, restartable: bool) -> Result<Fate, BackendError> {
    Ok(match left.task_state() {
        Some(TaskState::Done | TaskState::Faulted) => Fate::Ended(left),
        Some(TaskState::Running) if restartable => {
            // The slot still has the words with which the turn began.
            Fate::Published(TaskWorkItem { state: abi::TASK_STATE_READY, ..left })
        }
        Some(TaskState::Running) => Fate::Ended(left.try_faulted(abi::TASK_FAULT_CUT)?),
        // The 32 bits alone could mean a later epoch by now.
        Some(TaskState::Paused) if target_reached => Fate::Published(left.try_resumed()?),
        _ => Fate::Published(left),
    })
}

/// Brings the host's state back to the start of a life in which the unfinished tasks have just been submitted.
pub(super) fn recover(
    state: &mut State,
    memory: &Memory,
    ops: &[Op],
    slots: &[TaskWorkItem],
    metas: &[SlotMeta],
    may_restart: bool,
) -> Result<(), BackendError> {
    let ends = state.ends.clone();
    let mut ends = ends.lock();
    ends.salvage(memory)?;
    state.start_anew(memory)?;
    state.tables.timelines.start_anew();
    let (mut tickets, mut items) = (Vec::new(), Vec::new());
    for (ticket, _, submitted) in state.journal.unfinished() {
        let slot = in_slot(ticket, slots, metas);
        let left = slot.unwrap_or(submitted);
        let restartable = may_restart && ops.get(left.op_handle as usize).is_some_and(Op::restartable);
        let epoch = state.tables.timelines.epoch_of(&left);
        let meta = &metas[(ticket & abi::TR_INDEX_MASK) as usize];
        match fate(left, slot.is_some() && target_reached(&left, meta, epoch), restartable)? {
            Fate::Ended(item) => {
                ends.end_by_item(ticket, &item);
            }
            Fate::Published(item) => {
                state.journal.update(ticket, item);
                let decided = slot.is_some() && meta.next != abi::TR_UNDECIDED;
                let target_hi = if decided { meta.target_hi } else { state.tables.timelines.target_hi(&item) };
                tickets.push(LineTicket { ticket, target_hi });
                items.push(item);
            }
        }
    }
    state.publish(memory, &tickets, &items)?;
    state.wants_slice |= state.tables.timelines.has_unheard_close();
    state.stats.recoveries += 1;
    Ok(())
}

/// A task that was stopped before it ended. What its slot held is reported beside it, so the state that it was in does not matter here.
pub(super) fn cancelled(item: TaskWorkItem) -> TaskWorkItem {
    TaskWorkItem { state: abi::TASK_STATE_FAULTED, continuation_data: abi::TASK_FAULT_CANCELLED, ..item }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::task::Task;

    fn in_state(state: TaskState) -> TaskWorkItem {
        TaskWorkItem { state: state.word(), ..Task::new(0).item() }
    }

    #[test]
    fn a_cut_turn_runs_again_only_if_its_op_is_restartable() {
        let running = in_state(TaskState::Running);
        assert_eq!(fate(running, false, true), Ok(Fate::Published(in_state(TaskState::Ready))));
        assert_eq!(fate(running, false, false), Ok(Fate::Ended(running.try_faulted(abi::TASK_FAULT_CUT).unwrap())));
    }

    #[test]
    fn what_waited_goes_on_waiting_unless_its_epoch_was_reached() {
        let paused = Task::new(0).paused_until(0, 5).item();
        assert_eq!(fate(paused, false, false), Ok(Fate::Published(paused)));
        assert_eq!(fate(paused, true, false), Ok(Fate::Published(paused.try_resumed().unwrap())));
    }

    #[test]
    fn a_slot_of_an_earlier_task_is_not_mistaken_for_this_one() {
        let slots = [in_state(TaskState::Done)];
        let meta = |ticket| [SlotMeta { ticket, ..SlotMeta::default() }];
        assert_eq!(in_slot(1 << 24, &slots, &meta(0)), None, "another generation");
        assert_eq!(in_slot(1 << 24, &slots, &meta(1 << 24)), Some(slots[0]));
        assert_eq!(
            in_slot(1 << 24, &[in_state(TaskState::Empty)], &meta(1 << 24)),
            None,
            "claimed, but not copied yet"
        );
    }

    #[test]
    fn a_fixed_epoch_is_compared_in_all_its_64_bits() {
        let paused = Task::new(0).paused_until(0, 5).item();
        let meta = |target_hi, next| SlotMeta { target_hi, next, ..SlotMeta::default() };
        assert!(target_reached(&paused, &meta(0, abi::TR_NIL), 5));
        assert!(!target_reached(&paused, &meta(0, abi::TR_NIL), 4));
        assert!(!target_reached(&paused, &meta(1, abi::TR_NIL), 5));
        assert!(target_reached(&paused, &meta(1, abi::TR_NIL), 5 | 1 << 32));
        assert!(
            !target_reached(&paused, &meta(0, abi::TR_UNDECIDED), 5),
            "what is not fixed is decided when it is placed again"
        );
    }
}
