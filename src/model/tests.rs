//! What the scheduler does, case by case; `properties` says what it always does.

mod properties;
mod waits;

use super::*;
use crate::abi::*;

const ANY_HANDLE: &dyn Fn(u32, u32) -> bool = &|_, _| true;
const PRIORITIES: [TaskPriority; 5] = TaskPriority::ALL;

/// Four timelines, tenants 0 and 1, op 0 for a lane and op 1 for the subgroup.
fn options(capacity_log2: u32, lanes: u32) -> ModelOptions {
    ModelOptions {
        capacity_log2,
        lanes,
        batch: lanes,
        aging_ticks: 16,
        tenants: vec![true; 2],
        timelines: 4,
        ops: vec![false, true],
    }
}

fn task(task_id: u32, priority: TaskPriority) -> TaskWorkItem {
    TaskWorkItem::from_work_item(task_id, 0, priority, MegakernelWorkItem::default())
}

impl Scheduler {
    /// A scheduler whose rings have been in use until each stood at `position`.
    fn starting_at(options: ModelOptions, position: u32) -> Self {
        let rings = Rings::starting_at(options.capacity_log2, position);
        Self { rings, ..Self::new(options) }
    }

    /// Takes turns until there was nothing to do for long enough to look at every timeline.
    fn settle(&mut self, ops: &mut dyn FnMut(&TaskWorkItem) -> TaskTurn) {
        let round = self.options.timelines.div_ceil(self.options.lanes);
        let mut idle = 0;
        while idle < round {
            idle = if self.turn(ops, ANY_HANDLE) { 0 } else { idle + 1 };
        }
    }

    /// Settles with tasks that complete in their first turn, and gives their ids in the order in which they ended.
    fn complete_all(&mut self) -> Vec<u32> {
        self.settle(&mut |_| TaskTurn::Complete);
        self.completions().iter().map(|end| end.item.task_id).collect()
    }
}

/// Ends of tasks as (task id, state, word 8).
fn ends(scheduler: &mut Scheduler) -> Vec<(u32, u32, u32)> {
    let ends = scheduler.completions();
    ends.iter().map(|end| (end.item.task_id, end.item.state, end.item.continuation_data)).collect()
}

#[test]
fn a_task_comes_back_once_under_its_whole_ticket() {
    let mut scheduler = Scheduler::new(options(3, 4));
    let ticket = 0xab << TR_TICKET_GENERATION_SHIFT | 5;
    scheduler.publish(ticket, task(9, TaskPriority::Low));
    assert!(scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE));
    let done = TaskWorkItem { state: TASK_STATE_DONE, ..task(9, TaskPriority::Low) };
    assert_eq!(scheduler.completions(), [ModelCompletion { ticket, item: done }]);
    assert_eq!(scheduler.slots().nth(5), Some((5, &done)));
    assert_eq!(scheduler.completions(), []);
    assert!(!scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE));
}

#[test]
fn a_line_that_cannot_be_placed_faults_and_the_others_go_on() {
    let mut scheduler = Scheduler::new(options(3, 8));
    let ready = task(0, TaskPriority::Normal);
    let paused = ready.try_paused(0, 0, 7).unwrap();
    let lines = [
        TaskWorkItem { state: TASK_STATE_EMPTY, ..ready },
        TaskWorkItem { state: TASK_STATE_RUNNING, ..ready },
        TaskWorkItem { state: 8, ..ready },
        TaskWorkItem { priority: TASK_PRIORITIES, ..ready },
        paused.with_timeline(4.into()),
        ready.with_timeline(4.into()),
        ready.try_yielded(0, 0).unwrap(),
        ready.try_requeued(0, 0, TaskPriority::Normal).unwrap(),
    ];
    for (slot, line) in (0..).zip(lines) {
        scheduler.publish(slot, TaskWorkItem { task_id: slot, ..line });
    }
    scheduler.settle(&mut |_| TaskTurn::Complete);
    let (faulted, done) = (TASK_STATE_FAULTED, TASK_STATE_DONE);
    let expected = [
        (0, faulted, TASK_FAULT_BAD_STATE),
        (1, faulted, TASK_FAULT_BAD_STATE),
        (2, faulted, TASK_FAULT_BAD_STATE),
        (3, faulted, TASK_FAULT_BAD_PRIORITY),
        (4, faulted, TASK_FAULT_BAD_TIMELINE),
        (5, done, 0),
        (6, done, 0),
        (7, done, 0),
    ];
    assert_eq!(ends(&mut scheduler), expected);
}

#[test]
fn a_task_that_may_not_run_faults_without_running_and_the_others_go_on() {
    let mut scheduler = Scheduler::new(ModelOptions { tenants: vec![true, false], ..options(3, 8) });
    let ready = task(0, TaskPriority::Normal);
    let lines = [
        TaskWorkItem { op_handle: 2, ..ready },
        TaskWorkItem { tenant_id: 1, ..ready },
        TaskWorkItem { tenant_id: 2, ..ready },
        TaskWorkItem { input_handle: 6, ..ready },
        TaskWorkItem { output_handle: 6, ..ready },
        TaskWorkItem { input_handle: 5, ..ready },
    ];
    for (slot, line) in (0..).zip(lines) {
        scheduler.publish(slot, TaskWorkItem { task_id: slot, ..line });
    }
    let mut ran = Vec::new();
    let mut op = |task: &TaskWorkItem| {
        ran.push((task.task_id, task.state));
        TaskTurn::Complete
    };
    scheduler.turn(&mut op, &|tenant, handle| tenant == 0 && handle == 5);
    assert_eq!(ran, [(5, TASK_STATE_RUNNING)]);
    let expected = [
        (0, TASK_STATE_FAULTED, TASK_FAULT_UNKNOWN_OP),
        (1, TASK_STATE_FAULTED, TASK_FAULT_BAD_TENANT),
        (2, TASK_STATE_FAULTED, TASK_FAULT_BAD_TENANT),
        (3, TASK_STATE_FAULTED, TASK_FAULT_BAD_HANDLE),
        (4, TASK_STATE_FAULTED, TASK_FAULT_BAD_HANDLE),
        (5, TASK_STATE_DONE, 0),
    ];
    assert_eq!(ends(&mut scheduler), expected);
}

#[test]
fn a_turn_that_is_refused_is_a_fault_and_leaves_the_other_words_alone() {
    let full = TaskWorkItem { yield_count: u32::MAX, requeue_count: u32::MAX, ..task(1, TaskPriority::High) };
    let aged = TaskWorkItem { age_ticks: u32::MAX, ..task(1, TaskPriority::High) };
    let requeue = |priority| TaskTurn::Requeue { pc: 3, data: 4, priority };
    let pause = |timeline| TaskTurn::Pause { timeline, pc: 3, data: 4, epoch: 5 };
    let cases = [
        (full, TaskTurn::Yield { pc: 3, data: 4 }, TASK_FAULT_COUNTER_OVERFLOW),
        (full, requeue(0), TASK_FAULT_COUNTER_OVERFLOW),
        (aged, requeue(0), TASK_FAULT_COUNTER_OVERFLOW),
        (full, requeue(5), TASK_FAULT_BAD_PRIORITY),
        (full, pause(Some(4)), TASK_FAULT_BAD_TIMELINE),
        (full, pause(Some(0x1_0000)), TASK_FAULT_BAD_TIMELINE),
        (full.with_timeline(4.into()), pause(None), TASK_FAULT_BAD_TIMELINE),
        (full, TaskTurn::Fault { code: 77 }, 77),
    ];
    for (item, turn, code) in cases {
        let mut scheduler = Scheduler::new(options(1, 4));
        scheduler.publish(0, item);
        scheduler.turn(&mut |_| turn, ANY_HANDLE);
        let item = TaskWorkItem { state: TASK_STATE_FAULTED, continuation_data: code, ..item };
        assert_eq!(scheduler.completions(), [ModelCompletion { ticket: 0, item }], "{turn:?}");
    }
}

#[test]
fn a_yielded_task_goes_behind_its_partition_and_a_requeued_one_into_another() {
    let mut scheduler = Scheduler::new(ModelOptions { batch: 1, ..options(3, 4) });
    for slot in 0..3 {
        scheduler.publish(slot, task(slot, TaskPriority::Normal));
    }
    let mut order = Vec::new();
    scheduler.settle(&mut |task| {
        order.push((task.task_id, task.continuation_pc, task.priority));
        match (task.task_id, task.continuation_pc) {
            (0, 0) => TaskTurn::Yield { pc: 1, data: 0 },
            (1, 0) => TaskTurn::Requeue { pc: 2, data: 0, priority: TASK_PRIORITY_CRITICAL },
            _ => TaskTurn::Complete,
        }
    });
    // All are admitted in the first turn: 0 yields behind 2, and 1 comes back first because it is critical then.
    assert_eq!(order, [(0, 0, 2), (1, 0, 2), (1, 2, 0), (2, 0, 2), (0, 1, 2)]);
    let counts: Vec<_> =
        scheduler.completions().iter().map(|end| (end.item.yield_count, end.item.requeue_count)).collect();
    assert_eq!(counts, [(0, 1), (0, 0), (1, 0)]);
}

#[test]
fn a_turn_runs_no_more_than_its_batch_or_its_lanes_and_admits_some_times_as_many() {
    for (lanes, batch) in [(4, 2), (2, 4), (3, 3)] {
        let mut scheduler = Scheduler::new(ModelOptions { batch, ..options(4, lanes) });
        for slot in 0..16 {
            scheduler.publish(slot, task(slot, TaskPriority::Normal));
        }
        for turn in 1..=4 {
            scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE);
            let batch = lanes.min(batch);
            assert_eq!(scheduler.completions().len() as u32, batch);
            assert_eq!(
                (scheduler.admitted, scheduler.tick()),
                ((turn * TR_ADMIT_ROUNDS * batch).min(16), turn * batch)
            );
        }
    }
}

#[test]
fn what_fits_into_a_batch_runs_at_once_if_nothing_else_is_ready() {
    let mut scheduler = Scheduler::new(ModelOptions { batch: 4, ..options(3, 4) });
    let publish = |scheduler: &mut Scheduler, slots: std::ops::Range<u32>| {
        slots.for_each(|slot| scheduler.publish(slot, task(slot, PRIORITIES[slot as usize % 5])));
    };
    publish(&mut scheduler, 0..4);
    let mut ages = Vec::new();
    assert!(scheduler.turn(
        &mut |task| {
            ages.push(task.age_ticks);
            TaskTurn::Yield { pc: 0, data: 0 }
        },
        ANY_HANDLE
    ));
    assert_eq!((ages, scheduler.tick(), scheduler.ready()), (vec![0; 4], 0, 4), "they were in no ring");
    // Now something is ready, so these go round their rings, and each priority waits its turn.
    publish(&mut scheduler, 4..6);
    assert!(scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE));
    assert_eq!((scheduler.tick(), scheduler.ready()), (2, 4), "the two critical ones");
}

#[test]
fn wide_tasks_run_alone_and_in_order_with_the_others() {
    let mut scheduler = Scheduler::new(options(3, 8));
    for slot in 0..8 {
        let op_handle = u32::from([2, 3, 6].contains(&slot));
        scheduler.publish(slot, TaskWorkItem { op_handle, ..task(slot, TaskPriority::Normal) });
    }
    let mut batches: Vec<Vec<u32>> = Vec::new();
    while scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE) {
        batches.push(scheduler.completions().iter().map(|end| end.ticket).collect());
    }
    assert_eq!(batches, [vec![0, 1], vec![2], vec![3], vec![4, 5], vec![6], vec![7]]);
}

#[test]
fn age_is_the_claims_since_the_task_was_queued_and_stops_at_the_maximum() {
    let mut scheduler = Scheduler::new(ModelOptions { batch: 2, ..options(3, 2) });
    for slot in 0..6 {
        let age_ticks = if slot == 5 { u32::MAX - 1 } else { 0 };
        scheduler.publish(slot, TaskWorkItem { age_ticks, ..task(slot, PRIORITIES[slot as usize / 2 + 1]) });
    }
    // All are admitted before the first is claimed.
    for _ in 0..3 {
        assert_eq!(scheduler.admit(2, false), None);
    }
    scheduler.settle(&mut |task| match task.continuation_pc {
        0 if task.task_id < 2 => TaskTurn::Yield { pc: 1, data: 0 },
        _ => TaskTurn::Complete,
    });
    let ages: Vec<_> = scheduler.completions().iter().map(|end| (end.item.task_id, end.item.age_ticks)).collect();
    assert_eq!(ages, [(0, 0), (1, 0), (2, 4), (3, 4), (4, 6), (5, u32::MAX)]);
}

#[test]
fn an_idle_task_runs_as_soon_as_its_age_outranks_endless_critical_work() {
    for aging_ticks in [0, 1, 4, 100] {
        let mut scheduler = Scheduler::new(ModelOptions { batch: 1, aging_ticks, ..options(1, 2) });
        scheduler.publish(0, task(0, TaskPriority::Idle));
        scheduler.publish(1, task(1, TaskPriority::Critical));
        assert_eq!(scheduler.admit(1, false), None);
        let mut age = None;
        for _ in 0..=4 * aging_ticks + 1 {
            assert_eq!(age, None, "aging {aging_ticks}");
            let mut op = |task: &TaskWorkItem| {
                age = (task.task_id == 0).then_some(task.age_ticks);
                TaskTurn::Yield { pc: 0, data: 0 }
            };
            scheduler.turn(&mut op, ANY_HANDLE);
        }
        assert_eq!(age, Some(4 * aging_ticks + 1), "aging {aging_ticks}");
    }
}

#[test]
fn a_slice_ends_when_its_turns_are_spent() {
    let mut scheduler = Scheduler::new(options(2, 4));
    for slot in 0..4 {
        scheduler.publish(slot, task(slot, TaskPriority::Normal));
    }
    let pause = TaskTurn::Pause { timeline: Some(2), pc: 0, data: 0, epoch: 9 };
    let mut op = |task: &TaskWorkItem| match task.task_id {
        0 => TaskTurn::Yield { pc: 0, data: 0 },
        1 => pause,
        _ => TaskTurn::Complete,
    };
    let spent = SliceExit {
        reasons: TR_EXIT_BUDGET,
        admitted: 4,
        completed: 2,
        ready: 1,
        waiting: 1,
        turns: 3,
        tick: 2,
        pauses: 1,
        subgroup_size: 4,
        ..SliceExit::default()
    };
    assert_eq!(scheduler.run_slice(3, 5, &mut op, ANY_HANDLE), spent);
    assert_eq!(scheduler.run_slice(0, 5, &mut op, ANY_HANDLE), SliceExit { turns: 0, ..spent });
}

#[test]
fn a_slice_ends_when_it_has_found_nothing_for_longer_than_its_linger() {
    for linger in [0, 3] {
        let mut scheduler = Scheduler::new(options(2, 4));
        scheduler.publish(3, task(1, TaskPriority::Normal));
        let mut complete = |_: &TaskWorkItem| TaskTurn::Complete;
        // One turn with work, and then `linger + 1` without.
        let budget_that_is_spent = scheduler.run_slice(linger + 1, linger, &mut complete, ANY_HANDLE);
        assert_eq!((budget_that_is_spent.reasons, budget_that_is_spent.turns), (TR_EXIT_BUDGET, 1));
        let idle = scheduler.run_slice(linger + 2, linger, &mut complete, ANY_HANDLE);
        assert_eq!((idle.reasons, idle.turns, idle.completed), (TR_EXIT_IDLE, 0, 1));
    }
}
