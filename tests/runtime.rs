//! The host's side: submissions, waits, limits, stop. On the device, with every record accounted for.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{LONG, device, lane_program, run_all, word, words};
use taskring::*;

const OPS: [(&str, &str); 3] = [
    (
        "count",
        "Turn count(TaskWorkItem task) { buffer_atomic_add(task_output(task), task.param, 1u); return task_complete(); }",
    ),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
    ("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }"),
];
const COUNT: u32 = 0;
const SPIN: u32 = 1;
const NOTHING: u32 = 2;

fn small() -> RuntimeOptions {
    RuntimeOptions { capacity: 64, ..RuntimeOptions::default() }
}

#[test]
fn a_batch_with_one_bad_task_is_refused_whole() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let counts = device.report(16);
    let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
    let good = Task::new(COUNT).output(output).item();
    let bad = [
        (TaskWorkItem { op_handle: 3, ..good }, TaskProblem::UnknownOp { op: 3, count: 3 }),
        (TaskWorkItem { priority: 9, ..good }, TaskProblem::BadPriority { word: 9 }),
        (TaskWorkItem { tenant_id: 32, ..good }, TaskProblem::BadTenant { tenant: 32, count: 32 }),
        (TaskWorkItem { input_handle: 5, ..good }, TaskProblem::BadHandle { handle: 5, tenant: 0 }),
        (TaskWorkItem { state: 3, ..good }, TaskProblem::BadState { word: 3 }),
        (TaskWorkItem { flags: 0x100, ..good }, TaskProblem::BadTimeline { timeline: 1, count: 1 }),
    ];
    for (item, problem) in bad {
        let refused = runtime.submit_batch(&[good, good, item, good]);
        assert_eq!(refused, Err(BackendError::Refused { index: 2, problem }));
    }
    assert_eq!(runtime.stats().submitted, 0);
    run_all(&runtime, &[good]);
    assert_eq!(word(&counts, 0), 1, "only the one good submission ran");
}

#[test]
fn a_full_ring_takes_a_prefix_and_the_rest_is_still_the_callers() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let counts = device.report(128);
    let output = runtime.register_buffer(0, &counts, 0..512).unwrap();
    let tasks: Vec<TaskWorkItem> = (0..100).map(|n| Task::new(COUNT).output(output).param(n).item()).collect();
    let accepted = runtime.submit_batch(&tasks).unwrap();
    assert_eq!(accepted.count(), 64);
    runtime.drain(LONG).unwrap();
    // Ended, but not consumed: their completions still hold the room.
    assert_eq!(runtime.submit_batch(&tasks[64..]).unwrap().count(), 0);
    assert_eq!(runtime.submit(tasks[64]).map(|_| ()), Err(BackendError::Full { capacity: 64 }));
    let mut ended = Vec::new();
    assert_eq!(runtime.completions(&mut ended, 10, LONG), Ok(10));
    assert_eq!(runtime.submit_batch(&tasks[64..]).unwrap().count(), 10);
    while ended.len() < 74 {
        runtime.completions(&mut ended, usize::MAX, LONG).unwrap();
    }
    assert_eq!(runtime.submit_batch(&tasks[74..]).unwrap().count(), 26);
    runtime.drain(LONG).unwrap();
    assert_eq!(words(&counts)[..100], [1; 100], "each ran once");
}

#[test]
fn what_a_task_counts_in_memory_of_the_host_is_there_with_its_completion() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    for buffer in [device.report(64), device.mailbox(64)] {
        let output = runtime.register_buffer(0, &buffer, 0..256).unwrap();
        // SAFETY: the buffer outlives the runtime's tasks, which this test waits for.
        let raw = unsafe { runtime.register_address(0, buffer.address(), 64) }.unwrap();
        for round in 0..300u32 {
            let (n, output) = (round % 64, if round % 2 == 0 { output } else { raw });
            let before = word(&buffer, n);
            runtime.submit(Task::new(COUNT).output(output).param(n)).unwrap().wait(LONG).unwrap();
            assert_eq!(word(&buffer, n), before + 1, "round {round}");
        }
    }
}

#[test]
fn every_task_of_eight_threads_ends_exactly_once() {
    const THREADS: u32 = 8;
    const EACH: u32 = 600;
    let device = device();
    let options = RuntimeOptions { capacity: 256, ..RuntimeOptions::default() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let counts = device.report(THREADS * EACH);
    let output = runtime.register_buffer(0, &counts, 0..u64::from(THREADS * EACH) * 4).unwrap();
    let ended = std::sync::Mutex::new(Vec::new());
    let waited = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (runtime, ended, waited) = (runtime.clone(), &ended, &waited);
            scope.spawn(move || {
                let mut own = Vec::new();
                let mut next = 0;
                while next < EACH {
                    let task = |n: u32| Task::new(COUNT).output(output).param(thread * EACH + n);
                    if next % 50 == 49 {
                        // One by handle; a full runtime makes room as the others consume.
                        match runtime.submit(task(next)) {
                            Ok(mut handle) => {
                                assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Done);
                                waited.fetch_add(1, Relaxed);
                                next += 1;
                            }
                            Err(BackendError::Full { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    } else {
                        let batch: Vec<_> = (next..next / 50 * 50 + 49).map(|n| task(n).item()).collect();
                        next += runtime.submit_batch(&batch).unwrap().count() as u32;
                    }
                    runtime.completions(&mut own, usize::MAX, Duration::from_millis(1)).unwrap();
                }
                ended.lock().unwrap().extend(own);
            });
        }
    });
    let mut ended = ended.into_inner().unwrap();
    runtime.drain(LONG).unwrap();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
    assert_eq!(words(&counts), vec![1; (THREADS * EACH) as usize], "each ran once");
    let ids: HashSet<SubmissionId> = ended.iter().map(|completion| completion.id).collect();
    assert_eq!((ended.len(), ids.len()), (ended.len(), ended.len()), "no completion twice");
    assert_eq!(ended.len() as u32 + waited.load(Relaxed), THREADS * EACH);
    assert_eq!(runtime.stats().done, u64::from(THREADS * EACH));
}

#[test]
fn an_idle_task_under_endless_critical_load_runs_within_the_stated_bound() {
    let device = device();
    // Every critical task resubmits itself by yielding for ever.
    // With one shard they are more than the workers hold at once, so its rings are never empty.
    for (workers, shards, batch) in [(1, 1, Some(1)), (1, 1, None), (4, 1, Some(4)), (8, 4, None)] {
        let options = RuntimeOptions {
            workers: Some(workers),
            shards: Some(shards),
            batch,
            aging_ticks: Some(50),
            turn_budget: Some(64),
            launch_on_submit: false,
            ..small()
        };
        let (capacity, aging) = (options.capacity, 50);
        let runtime = device.runtime(&lane_program(&OPS), options);
        let spinners = vec![Task::new(SPIN).priority(TaskPriority::Critical).item(); 40];
        assert_eq!(runtime.submit_batch(&spinners).unwrap().count(), 40);
        for _ in 0..3 {
            assert_eq!(runtime.run_slice(LONG), Ok(true));
        }
        let idle = runtime.submit(Task::new(NOTHING).priority(TaskPriority::Idle)).unwrap();
        let mut idle = idle;
        let mut age = None;
        for _ in 0..200 {
            runtime.run_slice(LONG).unwrap();
            if let Ok(completion) = idle.wait(Duration::ZERO) {
                age = Some(completion.age_ticks);
                break;
            }
        }
        let age = age.expect("it ran");
        let batch = batch.unwrap_or(device.lanes());
        let bound = shards * (4 * aging + capacity + 32 * batch * workers);
        assert!(age <= bound, "an age of {age} ticks is over {bound}");
        // With more shards it may find one where nothing critical is ready.
        assert!(shards > 1 || age > 3 * aging, "an age of {age}: it did not even wait its turn, so this shows nothing");
        runtime.stop(LONG).unwrap();
    }
}

#[test]
fn more_urgent_tasks_go_first_when_nobody_is_old() {
    let device = device();
    let options = RuntimeOptions { workers: Some(1), batch: Some(1), launch_on_submit: false, ..small() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let mixed: Vec<TaskWorkItem> =
        (0..60).map(|n| Task::new(NOTHING).id(n).priority(TaskPriority::ALL[n as usize * 7 % 5]).item()).collect();
    // Paused until the same epoch: all become ready in one turn.
    let paused: Vec<TaskWorkItem> = mixed.iter().map(|item| item.try_paused(0, 0, 1).unwrap()).collect();
    _ = runtime.submit_batch(&paused).unwrap();
    while runtime.run_slice(LONG).unwrap() {}
    runtime.signal(0, 1).unwrap();
    let mut ended = Vec::new();
    while ended.len() < 60 {
        runtime.run_slice(LONG).unwrap();
        runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
    }
    let order: Vec<u32> = ended.iter().map(|completion| mixed[completion.task_id as usize].priority).collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_stop_in_the_middle_strands_nothing_unreported() {
    let device = device();
    let options = RuntimeOptions { capacity: 256, turn_budget: Some(4), ..RuntimeOptions::default() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let mut tasks = vec![Task::new(SPIN).item(); 20];
    tasks.extend(vec![Task::new(NOTHING).item(); 100]);
    tasks.extend(vec![Task::new(NOTHING).paused_until(0, 7).item(); 30]);
    assert_eq!(runtime.submit_batch(&tasks).unwrap().count(), 150);
    let mut handle = runtime.submit(Task::new(SPIN).id(9)).unwrap();
    for _ in 0..3 {
        runtime.run_slice(LONG).unwrap();
    }
    let report = runtime.stop(LONG).unwrap();
    assert_eq!(runtime.submit(Task::new(NOTHING)).map(|_| ()), Err(BackendError::Stopped));
    assert_eq!(report.ended + report.unfinished.len() as u64, 151);
    assert!(report.unfinished.len() >= 51, "the spinning and the paused cannot have ended");
    let paused = report.unfinished.iter().filter(|(_, item)| item.task_state() == Some(TaskState::Paused)).count();
    assert_eq!(paused, 30);
    assert!(
        report.unfinished.iter().any(|(_, item)| item.yield_count > 0),
        "slots are reported as the device left them"
    );
    let cancelled = Outcome::Faulted(TASK_FAULT_CANCELLED);
    assert_eq!(handle.wait(LONG).unwrap().outcome, cancelled);
    let mut ended = Vec::new();
    while runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap() > 0 {}
    assert_eq!(ended.len(), 150);
    let told = ended.iter().filter(|completion| completion.outcome == cancelled).count();
    assert_eq!(told, report.unfinished.len() - 1);
    assert_eq!(runtime.stop(LONG).unwrap().unfinished, []);
}

#[test]
fn a_stop_before_the_first_slice_reports_what_was_submitted() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { launch_on_submit: false, ..small() });
    let item = Task::new(NOTHING).id(3).item();
    _ = runtime.submit_batch(&[item]).unwrap();
    let report = runtime.stop(LONG).unwrap();
    assert_eq!((report.ended, report.unfinished[0].1), (0, item));
}

#[test]
fn the_host_remembers_what_has_not_ended_without_asking_the_device() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let waiting = Task::new(NOTHING).id(1).paused_until(0, 1).item();
    let ids: Vec<SubmissionId> = runtime.submit_batch(&[waiting, Task::new(NOTHING).item()]).unwrap().ids().collect();
    runtime.drain(LONG).unwrap_err();
    assert_eq!(runtime.unfinished(), [(ids[0], waiting)]);
    runtime.signal(0, 1).unwrap();
    runtime.drain(LONG).unwrap();
    assert_eq!(runtime.unfinished(), []);
}

#[test]
fn a_snapshot_counts_every_state_once() {
    let device = device();
    let runtime = device
        .runtime(&lane_program(&OPS), RuntimeOptions { turn_budget: Some(3), launch_on_submit: false, ..small() });
    let mut tasks = vec![Task::new(SPIN).item(); 5];
    tasks.extend(vec![Task::new(NOTHING).paused_until(0, 7).item(); 6]);
    _ = runtime.submit_batch(&tasks).unwrap();
    let before = runtime.snapshot(LONG).unwrap();
    assert_eq!((before.ready_count, before.paused_count), (5, 6), "nothing has reached the device yet");
    runtime.run_slice(LONG).unwrap();
    _ = runtime.submit_batch_unchecked(&[TaskWorkItem { op_handle: 77, ..Task::new(0).item() }]).unwrap();
    runtime.run_slice(LONG).unwrap();
    let after = runtime.snapshot(LONG).unwrap();
    assert_eq!((after.paused_count, after.faulted_count, after.running_count), (6, 1, 0));
    assert_eq!(after.ready_count + after.yielded_count, 5);
    assert!(after.yielded_count > 0);
    runtime.stop(LONG).unwrap();
}

#[test]
fn a_wait_ends_by_itself_and_the_task_goes_on() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let mut handle = runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
    assert_eq!(runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }), "the host learns that it waits");
    let start = Instant::now();
    let late = handle.wait(Duration::from_millis(60));
    assert!(
        matches!(&late, Err(BackendError::Timeout { reached, .. }) if reached.contains("1 of them paused")),
        "{late:?}"
    );
    assert!(start.elapsed() >= Duration::from_millis(60));
    runtime.signal(0, 1).unwrap();
    assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Done);
    assert!(handle.wait(LONG).is_err(), "a completion is taken once");
}

#[test]
fn a_wait_may_be_as_long_as_a_duration_can_be() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { slice_timeout: Duration::MAX, ..small() });
    let mut handle = runtime.submit(Task::new(NOTHING)).unwrap();
    runtime.run_slice(Duration::MAX).unwrap();
    assert_eq!(handle.wait(Duration::MAX).unwrap().outcome, Outcome::Done);
    runtime.drain(Duration::MAX).unwrap();
    assert_eq!(runtime.snapshot(Duration::MAX).unwrap().running_count, 0);
    assert_eq!(runtime.stop(Duration::MAX).unwrap().unfinished.len(), 0);
}

#[test]
fn a_wait_of_one_thread_sees_the_signal_of_another() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let mut handle = runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
    let (signalled, other) = (AtomicBool::new(false), runtime.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            signalled.store(true, Relaxed);
            other.signal(0, 1).unwrap();
        });
        handle.wait(LONG).unwrap();
        assert!(signalled.load(Relaxed));
    });
}

#[test]
fn a_dropped_handle_does_not_stop_its_task_nor_keep_its_room() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let counts = device.report(16);
    let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
    for _ in 0..200 {
        // The 65th would find no room if a dropped handle kept it.
        while let Err(BackendError::Full { .. }) = runtime.submit(Task::new(COUNT).output(output)).map(drop) {
            runtime.drain(LONG).unwrap();
        }
    }
    runtime.drain(LONG).unwrap();
    assert_eq!(word(&counts, 0), 200);
}

#[test]
fn dropping_a_runtime_with_work_in_flight_is_bounded_and_clean() {
    let device = device();
    let program = lane_program(&OPS);
    for _ in 0..5 {
        let runtime = device.runtime(&program, small());
        _ = runtime.submit_batch(&vec![Task::new(SPIN).item(); 64]).unwrap();
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn an_unregistered_buffer_is_gone_for_the_host_and_for_the_device() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let counts = device.report(16);
    let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
    let item = Task::new(COUNT).output(output).item();
    runtime.unregister_buffer(output, LONG).unwrap();
    assert_eq!(std::sync::Arc::strong_count(&counts), 1, "the runtime lets go of it");
    let problem = TaskProblem::BadHandle { handle: output.word(), tenant: 0 };
    assert_eq!(runtime.submit_batch(&[item]), Err(BackendError::Refused { index: 0, problem }));
    _ = runtime.submit_batch_unchecked(&[item]).unwrap();
    let mut ended = Vec::new();
    runtime.completions(&mut ended, 1, LONG).unwrap();
    assert_eq!(ended[0].outcome, Outcome::Faulted(TASK_FAULT_BAD_HANDLE));
    assert_eq!(word(&counts, 0), 0);
}

#[test]
fn rings_survive_many_laps() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), small());
    let counts = device.report(16);
    let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
    // 64 slots and a 7-bit lap tag: past 8,192 positions the tag comes round.
    let tasks = vec![Task::new(COUNT).output(output).item(); 9_000];
    assert!(run_all(&runtime, &tasks).iter().all(|completion| completion.outcome == Outcome::Done));
    assert_eq!(word(&counts, 0), 9_000);
}

#[test]
fn a_bad_option_is_named() {
    let device = device();
    let refused = Runtime::new(&device.device, &lane_program(&OPS), RuntimeOptions { capacity: 63, ..small() });
    assert!(matches!(refused, Err(BackendError::BadOption { option: "capacity", value: 63, .. })));
}

#[test]
fn a_trace_has_one_record_for_each_turn() {
    let device = device();
    let options = RuntimeOptions { trace_capacity: 1 << 12, ..small() };
    let yields = "Turn yields(TaskWorkItem task) {
        if (task.continuation_pc == 3u) return task_complete();
        return task_yield(task.continuation_pc + 1u, 0u);
    }";
    let runtime = device.runtime(&lane_program(&[("yields", yields)]), options);
    let tasks: Vec<TaskWorkItem> = (0..50).map(|id| Task::new(0).id(id).item()).collect();
    let ended = run_all(&runtime, &tasks);
    runtime.snapshot(LONG).unwrap(); // whereby the slice ends, which tells its trace
    let trace = runtime.take_trace();
    let stats = runtime.stats();
    assert_eq!((stats.untraced, stats.admitted), (0, 50));
    for one in ended {
        let turns = trace.iter().filter(|record| record.task_id == one.task_id);
        let waited: i32 = turns.map(|record| record.claimed.wrapping_sub(record.enqueued).cast_signed().max(0)).sum();
        assert_eq!(waited, one.age_ticks.cast_signed(), "its age is what it waited, turn by turn");
    }
    let turns: HashSet<(u32, u32)> = trace.iter().map(|record| (record.task_id, record.pc)).collect();
    let expected: HashSet<(u32, u32)> = (0..50).flat_map(|id| (0..4).map(move |pc| (id, pc))).collect();
    assert_eq!((trace.len(), turns), (200, expected));
    let mut times: Vec<u32> = trace.iter().flat_map(|record| [record.began, record.ended]).collect();
    times.sort_unstable();
    assert_eq!(times, (0..400).collect::<Vec<_>>(), "every event has a logical time of its own");
    assert!(trace.iter().all(|record| record.began < record.ended));
}
