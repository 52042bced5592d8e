//! Random histories from many workers and a host that submits, signals, looks and consumes at random: whatever the schedule, each task must end as
//! its own script says, once, and have taken each of its turns once.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;
#[path = "common/script.rs"]
mod script;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::{Checked, LONG, device, words};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use taskring::model::TaskTurn;
use taskring::policy::{Decided, recommend};
use taskring::*;

/// Tasks of one history. All histories of this file together have more than 100,000.
const TASKS: u32 = 6_000;
const HISTORIES: u64 = 18;
/// Bits 3 to 6 of `param` all set: the script never faults by itself at its end.
const MAX_EPOCH: u32 = 64;

#[derive(Debug, PartialEq, Eq)]
struct Expected {
    outcome: Outcome,
    continuation_data: u32,
    requeue_count: u32,
    yield_count: u32,
    turns: u32,
}

/// What must become of a task, by the model's state machine and without any schedule. Ages differ, everything else does not.
fn expected(mut item: TaskWorkItem, output_known: bool) -> Expected {
    let mut turns = 0;
    let outcome = loop {
        let fault = if TaskPriority::from_word(item.priority).is_none() {
            Some(TASK_FAULT_BAD_PRIORITY)
        } else if item.state == TASK_STATE_PAUSED && item.timeline().index() > 1 {
            Some(TASK_FAULT_BAD_TIMELINE)
        } else if item.op_handle > 1 {
            Some(TASK_FAULT_UNKNOWN_OP)
        } else if item.tenant_id > 31 {
            Some(TASK_FAULT_BAD_TENANT)
        } else if !output_known || item.tenant_id != 0 {
            Some(TASK_FAULT_BAD_HANDLE)
        } else {
            None
        };
        if let Some(code) = fault {
            break item.try_faulted(code).unwrap();
        }
        if item.task_state() == Some(TaskState::Paused) {
            item = item.try_resumed().unwrap();
        }
        item = item.try_claimed().unwrap();
        turns += 1;
        item = match script::turn(&item) {
            TaskTurn::Complete => break item.try_completed().unwrap(),
            TaskTurn::Fault { code } => break item.try_faulted(code).unwrap(),
            TaskTurn::Yield { pc, data } => item.try_yielded(pc, data).unwrap(),
            TaskTurn::Requeue { pc, data, priority } => match TaskPriority::from_word(priority) {
                Some(priority) => item.try_requeued(pc, data, priority).unwrap(),
                None => break item.try_faulted(TASK_FAULT_BAD_PRIORITY).unwrap(),
            },
            TaskTurn::Pause { timeline, pc, data, epoch } => {
                if timeline.is_some_and(|timeline| timeline > 1) {
                    break item.try_faulted(TASK_FAULT_BAD_TIMELINE).unwrap();
                }
                let item = timeline.map_or(item, |timeline| item.with_timeline((timeline as u8).into()));
                item.try_paused(pc, data, epoch).unwrap()
            }
        };
    };
    let faulted = outcome.task_state() == Some(TaskState::Faulted);
    Expected {
        outcome: if faulted { Outcome::Faulted(outcome.continuation_data) } else { Outcome::Done },
        continuation_data: outcome.continuation_data,
        requeue_count: outcome.requeue_count,
        yield_count: outcome.yield_count,
        turns,
    }
}

fn random_task(rng: &mut TestRng, id: u32, output: u32) -> TaskWorkItem {
    let mut one_in = |n: u32| rng.random_range(0..n) == 0;
    let (odd_op, odd_priority, odd_tenant, odd_handle, paused) =
        (one_in(97), one_in(89), one_in(83), one_in(79), one_in(5));
    let states = [TASK_STATE_READY, TASK_STATE_READY, TASK_STATE_YIELDED, TASK_STATE_REQUEUED];
    let state = if paused { TASK_STATE_PAUSED } else { states[rng.random_range(0..4)] };
    let timeline = if paused { rng.random_range(0..2) } else { 0 };
    TaskWorkItem {
        state,
        op_handle: if odd_op { 2 } else { u32::from(rng.random_range(0..8) == 0) },
        tenant_id: if odd_tenant { [1, 31, 32, 33, u32::MAX][rng.random_range(0..5)] } else { 0 },
        priority: if odd_priority { 5 } else { rng.random_range(0..5) },
        output_handle: if odd_handle { output + (1 << 20) } else { output },
        param: rng.random::<u32>() & 0x7fff_ffff,
        resume_epoch: rng.random_range(0..MAX_EPOCH),
        task_id: id,
        flags: timeline << TASK_FLAG_TIMELINE_SHIFT,
        ..TaskWorkItem::default()
    }
}

fn play(device: &Checked, program: &Program, seed: u64) {
    let mut seed_bytes = [0; 32];
    seed_bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
    // Another grid for each slice, of fewer workers than shards too.
    let launches = std::sync::atomic::AtomicU32::new(seed as u32);
    let policy = LaunchPolicy::new(move |request, facts| {
        let workers = launches.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9) >> 29;
        LaunchDecision { workers: Decided::new(workers + 1, "any"), ..recommend(request, facts) }
    });
    let options = RuntimeOptions {
        capacity: [64, 256, 4096][rng.random_range(0..3)],
        turn_budget: [Some(3), Some(40), None][rng.random_range(0..3)],
        aging_ticks: Some([1, 64, 4096][rng.random_range(0..3)]),
        batch: [None, Some(3)][rng.random_range(0..2)],
        workers: [None, Some(1), Some(8)][rng.random_range(0..3)],
        most_workers: Some(8),
        policy: [None, Some(policy)][rng.random_range(0..2)].clone(),
        shards: [None, Some(4), Some(8)][rng.random_range(0..3)],
        launch_on_submit: rng.random_range(0..2) == 0,
        ..RuntimeOptions::default()
    };
    let runtime = device.runtime(program, options);
    runtime.create_timeline().unwrap();
    let turns = device.report(TASKS);
    let output = runtime.register_buffer(0, &turns, 0..u64::from(TASKS) * 4).unwrap().word();
    let tasks: Vec<TaskWorkItem> = (0..TASKS).map(|id| random_task(&mut rng, id, output)).collect();

    let (mut submitted, mut epochs, mut ended) = (0, [0u64; 2], Vec::new());
    while ended.len() < tasks.len() {
        match rng.random_range(0..20) {
            0..8 => {
                let size = rng.random_range(1..=200).min(tasks.len() - submitted);
                submitted += runtime.submit_batch_unchecked(&tasks[submitted..][..size]).unwrap().count();
            }
            8 => {
                // Beyond the last epoch that a script waits for, an epoch is any number, far jumps included.
                let timeline = rng.random_range(0..2usize);
                epochs[timeline] += if rng.random_range(0..9) == 0 { 1 << rng.random_range(0..30) } else { 3 };
                runtime.signal(timeline as u8, epochs[timeline]).unwrap();
            }
            9 => assert!(runtime.snapshot(LONG).unwrap().running_count == 0, "no slice runs, so no task does"),
            10..13 => drop(runtime.poll().unwrap()),
            13 if submitted == tasks.len() => {
                for (timeline, epoch) in (0..).zip(&mut epochs) {
                    *epoch = u64::from(MAX_EPOCH).max(*epoch);
                    runtime.signal(timeline, *epoch).unwrap();
                }
            }
            _ => drop(runtime.completions(&mut ended, 100, Duration::from_micros(300)).unwrap()),
        }
    }
    runtime.drain(LONG).unwrap();

    let by_id: HashMap<u32, &Completion> = ended.iter().map(|completion| (completion.task_id, completion)).collect();
    assert_eq!((by_id.len(), ended.len()), (tasks.len(), tasks.len()), "seed {seed}: each exactly once");
    let taken = words(&turns);
    for item in &tasks {
        let told = by_id[&item.task_id];
        let is = Expected {
            outcome: told.outcome,
            continuation_data: told.continuation_data,
            requeue_count: told.requeue_count,
            yield_count: told.yield_count,
            turns: taken[item.task_id as usize],
        };
        assert_eq!(is, expected(*item, item.output_handle == output), "seed {seed}: {item:?}");
    }
    // Pauses are counted up to the end of a slice.
    runtime.snapshot(LONG).unwrap();
    let stats = runtime.stats();
    assert_eq!((stats.done + stats.faulted, stats.submitted), (u64::from(TASKS), u64::from(TASKS)));
    // Where a driver cuts loops a slice may have been cut, and recovered: what is counted then starts anew.
    assert!(stats.recoveries == 0 || device.ends_loops(), "{stats:?}");
    assert!(stats.recoveries > 0 || stats.pauses == stats.resumes, "{stats:?}");
}

#[test]
fn a_hundred_thousand_tasks_end_as_their_scripts_say() {
    let device = device();
    let program = script::program();
    for seed in 0..HISTORIES {
        play(&device, &program, seed);
    }
}

#[test]
fn a_history_that_is_stopped_accounts_for_every_task() {
    let device = device();
    let program = script::program();
    for seed in 0..8u64 {
        let options =
            RuntimeOptions { capacity: 1024, turn_budget: Some(2 + seed as u32), ..RuntimeOptions::default() };
        let runtime = device.runtime(&program, options);
        runtime.create_timeline().unwrap();
        let turns = device.report(1024);
        let output = runtime.register_buffer(0, &turns, 0..4096).unwrap().word();
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]);
        let tasks: Vec<TaskWorkItem> = (0..1000).map(|id| random_task(&mut rng, id, output)).collect();
        assert_eq!(runtime.submit_batch_unchecked(&tasks).unwrap().count(), 1000);
        runtime.signal(0, 20).unwrap();
        for _ in 0..seed {
            runtime.poll().unwrap();
        }
        let report = runtime.stop(LONG).unwrap();
        let mut ended = Vec::new();
        while runtime.completions(&mut ended, 100, Duration::ZERO).unwrap() > 0 {}
        assert_eq!(ended.len(), 1000);
        let cancelled: Vec<u32> = ended
            .iter()
            .filter(|completion| completion.outcome == Outcome::Faulted(TASK_FAULT_CANCELLED))
            .map(|completion| completion.task_id)
            .collect();
        let left: Vec<u32> = report.unfinished.iter().map(|(_, item)| item.task_id).collect();
        assert_eq!(cancelled.len(), left.len());
        assert!(cancelled.iter().all(|id| left.contains(id)));
        assert_eq!(report.ended as usize + left.len(), 1000);
        // What was not cancelled ended as its script says.
        let others = ended.iter().filter(|completion| completion.outcome != Outcome::Faulted(TASK_FAULT_CANCELLED));
        for told in others {
            let item = tasks[told.task_id as usize];
            assert_eq!(told.outcome, expected(item, item.output_handle == output).outcome, "seed {seed}: {item:?}");
        }
    }
}
