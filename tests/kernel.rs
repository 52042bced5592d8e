//! Every transition of the ABI, on the device.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use common::{LONG, device, lane_program, program, run_all, word, words};
use taskring::*;

/// Writes the task as it came in, 16 words a turn, to the output from word `16 * pc`, then ends its turn as `param` says for this pc: four
/// bits a turn.
const WITNESS: &str = "
Turn witness(TaskWorkItem task) {
    uint at = task.continuation_pc * 16u;
    Buffer o = task_output(task);
    buffer_store(o, at + 0u, task.state);
    buffer_store(o, at + 1u, task.op_handle);
    buffer_store(o, at + 2u, task.tenant_id);
    buffer_store(o, at + 3u, task.priority);
    buffer_store(o, at + 4u, task.input_handle);
    buffer_store(o, at + 5u, task.output_handle);
    buffer_store(o, at + 6u, task.param);
    buffer_store(o, at + 7u, task.continuation_pc);
    buffer_store(o, at + 8u, task.continuation_data);
    buffer_store(o, at + 9u, task.resume_epoch);
    buffer_store(o, at + 10u, task.task_id);
    buffer_store(o, at + 11u, task.parent_task_id);
    buffer_store(o, at + 12u, task.age_ticks);
    buffer_store(o, at + 13u, task.requeue_count);
    buffer_store(o, at + 14u, task.yield_count);
    buffer_store(o, at + 15u, task.flags);
    uint next = task.continuation_pc + 1u;
    switch ((task.param >> (4u * task.continuation_pc)) & 15u) {
    case 1u: return task_yield(next, 100u + next);
    case 2u: return task_pause(next, 200u + next, 5u);
    case 3u: return task_requeue(next, 300u + next, TASK_PRIORITY_CRITICAL);
    case 4u: return task_fault(77u);
    case 5u: return task_pause_on(1u, next, 500u + next, 9u);
    case 6u: return task_requeue(next, 0u, 5u);
    case 7u: return task_pause_on(9u, next, 0u, 0u);
    case 8u: return Turn(99u, 0u, 0u, 0u, 0u);
    default: return task_complete();
    }
}";

struct Bench {
    runtime: Runtime,
    seen: std::sync::Arc<Buffer>,
    output: BufferHandle,
    _device: common::Checked,
}

fn bench(width: Width) -> Bench {
    let device = device();
    let program = program(&[("witness", WITNESS)], width);
    let runtime = device.runtime(&program, RuntimeOptions { capacity: 64, ..RuntimeOptions::default() });
    let seen = device.report(256);
    let output = runtime.register_buffer(0, &seen, 0..1024).unwrap();
    Bench { runtime, seen, output, _device: device }
}

impl Bench {
    fn task(&self, turns: u32) -> Task {
        Task::new(0).output(self.output).param(turns).id(0xabcd)
    }

    fn run(&self, task: Task) -> Completion {
        self.runtime.submit(task).unwrap().wait(LONG).unwrap()
    }

    /// The task as its turn at this pc saw it.
    fn seen_at(&self, pc: u32) -> TaskWorkItem {
        let words = words(&self.seen);
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words[pc as usize * 16..][..16]))
    }
}

const BOTH: [Width; 2] = [Width::Lane, Width::Subgroup];

#[test]
fn a_task_arrives_word_for_word_and_running() {
    for width in BOTH {
        let bench = bench(width);
        let task = bench.task(0).priority(TaskPriority::Low).starting_at(0, 42);
        let sent = TaskWorkItem { parent_task_id: 3, resume_epoch: 4, ..task.item() };
        let done = run_all(&bench.runtime, &[sent]);
        assert_eq!(done[0].outcome, Outcome::Done);
        assert_eq!(done[0].task_id, 0xabcd);
        assert_eq!(bench.seen_at(0), sent.try_claimed().unwrap());
    }
}

#[test]
fn a_yield_keeps_the_task_and_counts() {
    for width in BOTH {
        let bench = bench(width);
        let done = bench.run(bench.task(0x11));
        assert_eq!((done.outcome, done.yield_count, done.requeue_count), (Outcome::Done, 2, 0));
        let second = bench.seen_at(1);
        assert_eq!((second.continuation_pc, second.continuation_data, second.yield_count), (1, 101, 1));
        assert_eq!(second.flags, TASK_FLAG_YIELDED);
        assert_eq!(bench.seen_at(2).continuation_data, 102);
    }
}

#[test]
fn a_requeue_moves_the_task_and_counts() {
    for width in BOTH {
        let bench = bench(width);
        let done = bench.run(bench.task(0x3).priority(TaskPriority::Idle));
        assert_eq!((done.outcome, done.yield_count, done.requeue_count), (Outcome::Done, 0, 1));
        let second = bench.seen_at(1);
        assert_eq!((second.priority, second.continuation_data), (TASK_PRIORITY_CRITICAL, 301));
        assert_eq!(second.flags, TASK_FLAG_REQUEUE_REQUESTED);
        // One tick for the requeue itself, and nothing else was claimed in between.
        assert_eq!(second.age_ticks, 1);
    }
}

#[test]
fn a_pause_holds_until_its_epoch_and_no_earlier() {
    for width in BOTH {
        let bench = bench(width);
        let mut handle = bench.runtime.submit(bench.task(0x2)).unwrap();
        bench.runtime.drain(LONG).unwrap_err();
        bench.runtime.signal(0, 4).unwrap();
        assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
        assert_eq!(bench.runtime.snapshot(LONG).unwrap().paused_count, 1);
        bench.runtime.signal(0, 5).unwrap();
        assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Done);
        let second = bench.seen_at(1);
        assert_eq!((second.resume_epoch, second.continuation_data), (5, 201));
        assert_eq!(second.flags, TASK_FLAG_RESUME_READY);
        bench.runtime.snapshot(LONG).unwrap(); // whereby the slice ends, which counts
        let stats = bench.runtime.stats();
        assert_eq!((stats.pauses, stats.resumes), (1, 1));
    }
}

#[test]
fn a_pause_on_a_reached_epoch_does_not_hold() {
    let bench = bench(Width::Lane);
    bench.runtime.signal(0, 5).unwrap();
    assert_eq!(bench.run(bench.task(0x2)).outcome, Outcome::Done);
    assert_eq!(bench.seen_at(1).flags, TASK_FLAG_RESUME_READY);
}

#[test]
fn a_resume_clears_an_earlier_yield() {
    let bench = bench(Width::Lane);
    bench.runtime.signal(0, 5).unwrap();
    bench.run(bench.task(0x21));
    assert_eq!(bench.seen_at(1).flags, TASK_FLAG_YIELDED);
    assert_eq!(bench.seen_at(2).flags, TASK_FLAG_RESUME_READY);
}

#[test]
fn a_task_waits_for_the_timeline_that_it_names() {
    let bench = bench(Width::Subgroup);
    assert_eq!(bench.runtime.create_timeline(), Ok(1.into()));
    let mut handle = bench.runtime.submit(bench.task(0x5)).unwrap();
    bench.runtime.signal(0, 100).unwrap();
    assert!(matches!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 })));
    bench.runtime.signal(1, 9).unwrap();
    assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Done);
    assert_eq!(bench.seen_at(1).timeline(), 1.into());
}

#[test]
fn a_fault_carries_its_code() {
    for width in BOTH {
        let bench = bench(width);
        let done = bench.run(bench.task(0x41));
        assert_eq!((done.outcome, done.yield_count, done.continuation_data), (Outcome::Faulted(77), 1, 77));
    }
}

#[test]
fn a_turn_that_cannot_be_faults_with_its_reason() {
    for width in BOTH {
        let bench = bench(width);
        assert_eq!(bench.run(bench.task(0x6)).outcome, Outcome::Faulted(TASK_FAULT_BAD_PRIORITY));
        assert_eq!(bench.run(bench.task(0x7)).outcome, Outcome::Faulted(TASK_FAULT_BAD_TIMELINE));
        assert_eq!(bench.run(bench.task(0x8)).outcome, Outcome::Faulted(TASK_FAULT_BAD_TURN));
    }
}

#[test]
fn a_counter_at_its_maximum_faults_the_task_instead_of_wrapping() {
    let bench = bench(Width::Lane);
    let full = |turns, change: fn(&mut TaskWorkItem)| {
        let mut item = bench.task(turns).item();
        change(&mut item);
        run_all(&bench.runtime, &[item])[0]
    };
    let overflow = Outcome::Faulted(TASK_FAULT_COUNTER_OVERFLOW);
    let yielded = full(0x1, |item| item.yield_count = u32::MAX);
    assert_eq!((yielded.outcome, yielded.yield_count), (overflow, u32::MAX));
    let requeued = full(0x3, |item| item.requeue_count = u32::MAX);
    assert_eq!((requeued.outcome, requeued.requeue_count), (overflow, u32::MAX));
    assert_eq!(full(0x3, |item| item.age_ticks = u32::MAX).outcome, overflow);
    assert_eq!(full(0x1, |item| item.yield_count = u32::MAX - 1).outcome, Outcome::Done);
}

#[test]
fn tasks_come_in_ready_yielded_requeued_or_paused_and_in_no_other_state() {
    let bench = bench(Width::Lane);
    bench.runtime.signal(0, 1).unwrap();
    let in_state = |state| TaskWorkItem { state, ..bench.task(0).item() };
    for state in [TASK_STATE_READY, TASK_STATE_YIELDED, TASK_STATE_REQUEUED, TASK_STATE_PAUSED] {
        assert_eq!(run_all(&bench.runtime, &[in_state(state)])[0].outcome, Outcome::Done, "state {state}");
    }
    for state in [TASK_STATE_EMPTY, TASK_STATE_RUNNING, TASK_STATE_DONE, TASK_STATE_FAULTED, 8, u32::MAX] {
        let refused = bench.runtime.submit_batch(&[in_state(state)]);
        let problem = TaskProblem::BadState { word: state };
        assert_eq!(refused, Err(BackendError::Refused { index: 0, problem }));
        assert_eq!(unchecked(&bench.runtime, in_state(state)), Outcome::Faulted(TASK_FAULT_BAD_STATE), "state {state}");
    }
}

fn unchecked(runtime: &Runtime, item: TaskWorkItem) -> Outcome {
    assert_eq!(runtime.submit_batch_unchecked(&[item]).unwrap().count(), 1);
    let mut ended = Vec::new();
    assert_eq!(runtime.completions(&mut ended, 1, LONG), Ok(1));
    ended[0].outcome
}

#[test]
fn the_device_faults_what_the_host_did_not_check_and_runs_the_rest() {
    let bench = bench(Width::Lane);
    let good = bench.task(0).item();
    let cases = [
        (TaskWorkItem { op_handle: 1, ..good }, TASK_FAULT_UNKNOWN_OP),
        (TaskWorkItem { op_handle: u32::MAX, ..good }, TASK_FAULT_UNKNOWN_OP),
        (TaskWorkItem { priority: 5, ..good }, TASK_FAULT_BAD_PRIORITY),
        (TaskWorkItem { priority: u32::MAX, ..good }, TASK_FAULT_BAD_PRIORITY),
        (TaskWorkItem { input_handle: 0x0010_0007, ..good }, TASK_FAULT_BAD_HANDLE),
        (TaskWorkItem { output_handle: u32::MAX, ..good }, TASK_FAULT_BAD_HANDLE),
        (TaskWorkItem { output_handle: good.output_handle + (1 << 20), ..good }, TASK_FAULT_BAD_HANDLE),
        (TaskWorkItem { tenant_id: 1, ..good }, TASK_FAULT_BAD_HANDLE),
        (TaskWorkItem { state: TASK_STATE_PAUSED, flags: 0x0700, ..good }, TASK_FAULT_BAD_TIMELINE),
    ];
    for (item, code) in cases {
        assert_eq!(unchecked(&bench.runtime, item), Outcome::Faulted(code), "{item:?}");
        assert_eq!(unchecked(&bench.runtime, good), Outcome::Done);
    }
}

#[test]
fn a_tenant_past_the_table_never_runs_whatever_lies_there() {
    let bench = bench(Width::Lane);
    let of_tenant = |tenant_id| TaskWorkItem { tenant_id, output_handle: 0, ..bench.task(4).item() };
    for tenant in [0, 31] {
        // The op ran: it faulted with its own code, or with the store that has no buffer.
        assert_eq!(unchecked(&bench.runtime, of_tenant(tenant)), Outcome::Faulted(TASK_FAULT_BAD_HANDLE));
    }
    for tenant in [32, 33, u32::MAX] {
        assert_eq!(unchecked(&bench.runtime, of_tenant(tenant)), Outcome::Faulted(TASK_FAULT_BAD_TENANT));
        let problem = TaskProblem::BadTenant { tenant, count: 32 };
        let refused = Err(BackendError::Refused { index: 0, problem });
        assert_eq!(bench.runtime.submit_batch(&[of_tenant(tenant)]), refused);
    }
    bench.runtime.set_tenant(31, false).unwrap();
    assert_eq!(unchecked(&bench.runtime, of_tenant(31)), Outcome::Faulted(TASK_FAULT_BAD_TENANT));
    bench.runtime.set_tenant(31, true).unwrap();
    assert_eq!(unchecked(&bench.runtime, of_tenant(31)), Outcome::Faulted(TASK_FAULT_BAD_HANDLE));
    assert_eq!(bench.runtime.set_tenant(32, true), Err(BackendError::UnknownTenant { tenant: 32, count: 32 }));
}

#[test]
fn epochs_compare_in_64_bits_across_wraps_and_jumps() {
    let bench = bench(Width::Lane);
    let paused = |epoch| bench.task(0).paused_until(0, epoch);
    bench.runtime.signal(0, 0xffff_fff0).unwrap();
    let mut past_wrap = bench.runtime.submit(paused(4)).unwrap();
    let mut before_wrap = bench.runtime.submit(paused(0xffff_fffe)).unwrap();
    let mut long_ago = bench.runtime.submit(paused(0x9000_0000)).unwrap();
    assert_eq!(long_ago.wait(LONG).unwrap().outcome, Outcome::Done);
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 2 }));
    bench.runtime.signal(0, 0xffff_ffff).unwrap();
    before_wrap.wait(LONG).unwrap();
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
    bench.runtime.signal(0, 0x1_0000_0003).unwrap();
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
    bench.runtime.signal(0, 0x1_0000_0004).unwrap();
    past_wrap.wait(LONG).unwrap();
    // A jump over more than the low word strands nobody: not even one whose low word looks ahead again.
    let mut jumped = bench.runtime.submit(paused(0x100)).unwrap();
    bench.runtime.signal(0, 0x7_0000_0001).unwrap();
    jumped.wait(LONG).unwrap();
}

#[test]
fn an_epoch_that_jumps_past_the_wheel_wakes_all_that_are_due_and_nobody_else() {
    let bench = bench(Width::Lane);
    let tasks: Vec<TaskWorkItem> = (0..60).map(|i| bench.task(0).id(i).paused_until(0, 1 + i * 40).item()).collect();
    assert_eq!(bench.runtime.submit_batch(&tasks).unwrap().count(), 60);
    bench.runtime.drain(LONG).unwrap_err();
    bench.runtime.signal(0, 1 + 29 * 40).unwrap();
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 30 }));
    let mut ended = Vec::new();
    bench.runtime.completions(&mut ended, usize::MAX, LONG).unwrap();
    let mut ids: Vec<u32> = ended.iter().map(|completion| completion.task_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..30).collect::<Vec<_>>());
    bench.runtime.signal(0, u64::MAX).unwrap();
    bench.runtime.drain(LONG).unwrap();
}

#[test]
fn a_subgroup_wide_op_runs_in_every_lane_of_a_full_subgroup() {
    let device = device();
    let glsl = "Turn wide(TaskWorkItem task) {
        buffer_atomic_add(task_output(task), task_lane(), 1u);
        if (task.continuation_pc == 0u) return task_yield(1u, 0u);
        return task_lane() == 0u ? task_complete() : task_fault(1u);
    }";
    let program = program(&[("wide", glsl)], Width::Subgroup);
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let counts = device.report(256);
    let output = runtime.register_buffer(0, &counts, 0..1024).unwrap();
    let done = runtime.submit(Task::new(0).output(output)).unwrap().wait(LONG).unwrap();
    assert_eq!(done.outcome, Outcome::Done, "lane 0 decides");
    let expected: Vec<u32> = (0..256).map(|lane| if lane < device.lanes() { 2 } else { 0 }).collect();
    assert_eq!(words(&counts), expected);
}

#[test]
fn age_counts_the_claims_that_went_before() {
    let device = device();
    let program = lane_program(&[("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }")]);
    let options = RuntimeOptions { workers: Some(1), batch: Some(1), ..RuntimeOptions::default() };
    let runtime = device.runtime(&program, options);
    let tasks: Vec<TaskWorkItem> = (0..50).map(|id| Task::new(0).id(id).item()).collect();
    // Four admissions a turn and one claim, so task n was enqueued when n / 4 had been claimed.
    let done = run_all(&runtime, &tasks);
    assert_eq!(
        done.iter().map(|c| (c.task_id, c.age_ticks)).collect::<Vec<_>>(),
        (0..50).map(|id| (id, id - id / 4)).collect::<Vec<_>>()
    );
}

#[test]
fn a_stored_word_is_seen_by_the_same_tasks_next_turn_wherever_it_runs() {
    let device = device();
    // Plain loads and stores: only the release and acquire around a turn's end order them.
    let glsl = "Turn relay(TaskWorkItem task) {
        Buffer o = task_output(task);
        uint at = task.param;
        uint value = buffer_load(o, at);
        if (value != task.continuation_pc) return task_fault(1u + value);
        if (task.continuation_pc == 100u) return task_complete();
        buffer_store(o, at, value + 1u);
        return task_yield(task.continuation_pc + 1u, 0u);
    }";
    let program = lane_program(&[("relay", glsl)]);
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let relay = device.report(512);
    let output = runtime.register_buffer(0, &relay, 0..2048).unwrap();
    let tasks: Vec<TaskWorkItem> = (0..512).map(|at| Task::new(0).output(output).param(at).item()).collect();
    for completion in run_all(&runtime, &tasks) {
        assert_eq!((completion.outcome, completion.yield_count), (Outcome::Done, 100));
    }
    assert_eq!(word(&relay, 511), 100);
}
