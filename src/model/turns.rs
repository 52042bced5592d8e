//! The state machine of one task: the twin of `turns.glsl`.

use super::{ModelOptions, TaskTurn};
use crate::abi::{
    TASK_FAULT_BAD_HANDLE, TASK_FAULT_BAD_PRIORITY, TASK_FAULT_BAD_STATE, TASK_FAULT_BAD_TENANT,
    TASK_FAULT_BAD_TIMELINE, TASK_FAULT_COUNTER_OVERFLOW, TASK_FAULT_UNKNOWN_OP, TASK_STATE_FAULTED, TaskPriority,
    TaskState, TaskWorkItem, TimelineId,
};

/// The task, ended with a fault. Unlike [`TaskWorkItem::try_faulted`] from any state: a line that can't be placed is a
/// fault whatever its word 0.
pub(super) fn faulted(item: TaskWorkItem, code: u32) -> TaskWorkItem {
    TaskWorkItem { state: TASK_STATE_FAULTED, continuation_data: code, ..item }
}

impl ModelOptions {
    /// What is wrong with a line of the submission ring, if anything.
    pub(super) fn placement_fault(&self, item: &TaskWorkItem) -> Option<u32> {
        let paused = item.task_state() == Some(TaskState::Paused);
        if !item.is_schedulable() && !paused {
            return Some(TASK_FAULT_BAD_STATE);
        }
        if item.task_priority().is_none() {
            return Some(TASK_FAULT_BAD_PRIORITY);
        }
        (paused && u32::from(item.timeline().index()) >= self.timelines).then_some(TASK_FAULT_BAD_TIMELINE)
    }

    /// What forbids a claimed task to run, if anything.
    pub(super) fn run_fault(&self, item: &TaskWorkItem, handle_ok: &dyn Fn(u32, u32) -> bool) -> Option<u32> {
        if item.op_handle as usize >= self.ops.len() {
            return Some(TASK_FAULT_UNKNOWN_OP);
        }
        if self.tenants.get(item.tenant_id as usize) != Some(&true) {
            return Some(TASK_FAULT_BAD_TENANT);
        }
        let known = |handle| handle == 0 || handle_ok(item.tenant_id, handle);
        (!known(item.input_handle) || !known(item.output_handle)).then_some(TASK_FAULT_BAD_HANDLE)
    }

    /// A running task after its turn. A refused step is a fault, never a lost count.
    pub(super) fn after_turn(&self, item: TaskWorkItem, turn: TaskTurn) -> TaskWorkItem {
        let step = match turn {
            TaskTurn::Complete => item.try_completed(),
            TaskTurn::Yield { pc, data } => item.try_yielded(pc, data),
            TaskTurn::Pause { timeline, pc, data, epoch } => {
                let named = timeline.map_or(Some(item.timeline()), TimelineId::from_word);
                let Some(timeline) = named.filter(|timeline| u32::from(timeline.index()) < self.timelines) else {
                    return faulted(item, TASK_FAULT_BAD_TIMELINE);
                };
                item.with_timeline(timeline).try_paused(pc, data, epoch)
            }
            TaskTurn::Requeue { pc, data, priority } => match TaskPriority::from_word(priority) {
                Some(priority) => item.try_requeued(pc, data, priority),
                None => return faulted(item, TASK_FAULT_BAD_PRIORITY),
            },
            TaskTurn::Fault { code } => return faulted(item, code),
        };
        // The task is Running, which every step is legal from; so what was refused is a counter at its maximum.
        step.unwrap_or(faulted(item, TASK_FAULT_COUNTER_OVERFLOW))
    }
}
