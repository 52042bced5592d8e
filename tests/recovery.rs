//! Slices that end without a reason: by fault injection on every driver, and by a driver's own loop cap where there is one.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;
#[path = "common/script.rs"]
mod script;

use std::time::Duration;

use common::{LONG, device, run_all, words};
use taskring::*;

/// Turns that a task takes: so many that a worker's ninth turn still finds some to run, however few turns two workers need for all tasks once.
const TURNS: u32 = 20;

/// Counts each of its turns at word `task_id`.
const COUNTS: &str = "Turn NAME(TaskWorkItem task) {
    if (task_lane() == 0u || LANE) buffer_atomic_add(task_output(task), task.task_id, 1u);
    if (task.continuation_pc + 1u == TURNS) return task_complete();
    return task_yield(task.continuation_pc + 1u, 0u);
}";

fn counts(name: &str, width: Width, restartable: bool) -> OpSource {
    let lane = if width == Width::Lane { "true" } else { "false" };
    let glsl = COUNTS.replace("NAME", name).replace("LANE", lane).replace("TURNS", &format!("{TURNS}u"));
    let op = OpSource::new(name, glsl, width);
    if restartable { op.restartable() } else { op }
}

fn cut_in(turn: u32) -> RuntimeOptions {
    RuntimeOptions { capacity: 256, cut_turn: Some(turn), workers: Some(2), ..RuntimeOptions::default() }
}

#[test]
fn tasks_of_a_restartable_op_outlive_a_cut_slice() {
    let device = device();
    for width in [Width::Lane, Width::Subgroup] {
        for turn in [1, 2, 5, 9] {
            let program = Program::builder().source(counts("counts", width, true)).build().unwrap();
            let runtime = device.runtime(&program, cut_in(turn));
            let counts = device.report(256);
            let output = runtime.register_buffer(0, &counts, 0..1024).unwrap();
            let tasks: Vec<TaskWorkItem> = (0..200).map(|id| Task::new(0).id(id).output(output).item()).collect();
            let ended = run_all(&runtime, &tasks);
            assert_eq!(runtime.stats().recoveries, 1);
            assert!(
                ended
                    .iter()
                    .all(|completion| (completion.outcome, completion.yield_count) == (Outcome::Done, TURNS - 1))
            );
            // A turn that was cut ran, was not committed, and ran again.
            let counts = words(&counts);
            assert!(counts[..200].iter().all(|count| [TURNS, TURNS + 1].contains(count)), "{counts:?}");
            assert!(counts[..200].contains(&(TURNS + 1)), "the cut hit somebody");
        }
    }
}

#[test]
fn a_cut_turn_of_another_op_faults_and_everything_else_goes_on() {
    let device = device();
    for width in [Width::Lane, Width::Subgroup] {
        let program = Program::builder().source(counts("counts", width, false)).build().unwrap();
        let runtime = device.runtime(&program, cut_in(3));
        let counts = device.report(256);
        let output = runtime.register_buffer(0, &counts, 0..1024).unwrap();
        let tasks: Vec<TaskWorkItem> = (0..200).map(|id| Task::new(0).id(id).output(output).item()).collect();
        let ended = run_all(&runtime, &tasks);
        let cut: Vec<&Completion> =
            ended.iter().filter(|completion| completion.outcome == Outcome::Faulted(TASK_FAULT_CUT)).collect();
        assert!(!cut.is_empty() && cut.len() < 200, "{} of 200 were cut", cut.len());
        let counts = words(&counts);
        for completion in &ended {
            let turns = counts[completion.task_id as usize];
            match completion.outcome {
                Outcome::Done => assert_eq!(turns, TURNS),
                Outcome::Faulted(_) => {
                    assert_eq!(turns, completion.yield_count + 1, "the cut turn ran and was not committed")
                }
            }
        }
    }
}

#[test]
fn what_waits_goes_on_waiting_after_a_cut() {
    let device = device();
    let program = Program::builder().source(counts("counts", Width::Lane, true)).build().unwrap();
    let runtime = device.runtime(&program, RuntimeOptions { launch_on_submit: false, workers: Some(1), ..cut_in(2) });
    let counts = device.report(256);
    let output = runtime.register_buffer(0, &counts, 0..1024).unwrap();
    let paused: Vec<TaskWorkItem> =
        (0..60).map(|id| Task::new(0).id(id).output(output).paused_until(0, 1 + id / 30).item()).collect();
    let running = Task::new(0).id(100).output(output).item();
    _ = runtime.submit_batch(&[running]).unwrap();
    _ = runtime.submit_batch(&paused).unwrap();
    assert_eq!(runtime.drain(LONG), Err(BackendError::Stalled { paused: 60 }));
    assert_eq!(runtime.stats().recoveries, 1);
    runtime.signal(0, 1).unwrap();
    assert_eq!(runtime.drain(LONG), Err(BackendError::Stalled { paused: 30 }));
    runtime.signal(0, 2).unwrap();
    runtime.drain(LONG).unwrap();
    assert_eq!(words(&counts)[..60], [TURNS; 60]);
}

#[test]
fn a_stop_after_a_cut_reports_the_turns_that_were_committed() {
    let device = device();
    let program = Program::builder().source(counts("counts", Width::Lane, true)).build().unwrap();
    let options = RuntimeOptions { launch_on_submit: false, workers: Some(1), ..cut_in(3) };
    let runtime = device.runtime(&program, options);
    let counts = device.report(16);
    let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
    _ = runtime.submit_batch(&[Task::new(0).output(output).item()]).unwrap();
    assert_eq!(runtime.run_slice(LONG), Ok(true));
    assert_eq!(runtime.stats().recoveries, 1);
    // Nothing has run since the recovery: what it published again has not reached a slot yet.
    let report = runtime.stop(LONG).unwrap();
    let left = report.unfinished[0].1;
    assert_eq!((left.continuation_pc, left.yield_count), (2, 2));
}

#[test]
fn a_cut_history_still_ends_every_task_once() {
    let device = device();
    let program = script::program();
    for turn in 1..12 {
        let runtime = device.runtime(&program, cut_in(turn));
        runtime.create_timeline().unwrap();
        runtime.signal(0, 64).unwrap();
        runtime.signal(1, 64).unwrap();
        let tasks: Vec<TaskWorkItem> = (0..2000u32)
            .map(|id| Task::new(id % 2).id(id).param(id.wrapping_mul(0x9e37_79b9) & 0x7fff_ffff).item())
            .collect();
        let mut ids: Vec<u32> = run_all(&runtime, &tasks).iter().map(|completion| completion.task_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..2000).collect::<Vec<_>>());
        assert_eq!(runtime.stats().recoveries, 1);
    }
}

/// A slice that is always busy takes the most turns of loops.
#[test]
fn no_slice_is_cut_for_the_schedulers_own_loops() {
    let device = device();
    let yields = "Turn yields(TaskWorkItem task) {
        if (task.continuation_pc == 100u) return task_complete();
        return task_yield(task.continuation_pc + 1u, 0u);
    }";
    let program = Program::builder().source(OpSource::new("yields", yields, Width::Lane)).build().unwrap();
    for (workers, tasks) in [(1, 100), (4, 400)] {
        let options = RuntimeOptions {
            capacity: 512,
            slice_time: Some(Duration::MAX),
            workers: Some(workers),
            ..RuntimeOptions::default()
        };
        let runtime = device.runtime(&program, options);
        let ended = run_all(&runtime, &vec![Task::new(0).item(); tasks]);
        assert!(ended.iter().all(|completion| completion.outcome == Outcome::Done));
        assert_eq!(runtime.stats().recoveries, 0, "{:?}", runtime.stats());
    }
}

/// On a driver that ends loops silently this is the real thing; on the others the slice is simply long.
#[test]
fn loop_cap_of_a_driver_loses_no_task_and_commits_no_half_turn() {
    let device = device();
    // 40,000 turns of a loop a task turn: a second turn of the same worker passes 65,535.
    let long = "Turn long_sum(TaskWorkItem task) {
        uint sum = 0u;
        for (uint i = 0u; i < 40000u; ++i) sum = sum * 31u + (i ^ task.param);
        buffer_store(task_output(task), task.task_id, sum);
        if (task.continuation_pc == 2u) return task_complete();
        return task_yield(task.continuation_pc + 1u, 0u);
    }";
    let program =
        Program::builder().source(OpSource::new("long_sum", long, Width::Lane).restartable()).build().unwrap();
    let options = RuntimeOptions { capacity: 64, workers: Some(2), turn_budget: Some(64), ..RuntimeOptions::default() };
    let runtime = device.runtime(&program, options);
    let sums = device.report(64);
    let output = runtime.register_buffer(0, &sums, 0..256).unwrap();
    let task = |id: u32| Task::new(0).id(id).param(id).output(output).item();
    let ended = run_all(&runtime, &(0..40).map(task).collect::<Vec<_>>());
    let expected = |param: u32| (0..40_000u32).fold(0u32, |sum, i| sum.wrapping_mul(31).wrapping_add(i ^ param));
    let sums = words(&sums);
    for completion in &ended {
        assert_eq!((completion.outcome, completion.yield_count), (Outcome::Done, 2));
        assert_eq!(sums[completion.task_id as usize], expected(completion.task_id), "task {}", completion.task_id);
    }
    assert_eq!(runtime.stats().recoveries > 0, device.ends_loops(), "{:?}", runtime.stats());
}
