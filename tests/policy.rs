//! What is decided about a launch is what is launched.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LONG, device, lane_program, words};
use taskring::policy::{Decided, recommend};
use taskring::*;

const OPS: [(&str, &str); 3] = [
    ("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }"),
    (
        "grid",
        "Turn grid(TaskWorkItem task) {
            buffer_store(task_output(task), task.param, gl_NumWorkGroups.x);
            return task_complete();
        }",
    ),
    (
        "thrice",
        "Turn thrice(TaskWorkItem task) {
            if (task.continuation_pc == 3u) return task_complete();
            return task_yield(task.continuation_pc + 1u, 0u);
        }",
    ),
];
const NOTHING: u32 = 0;
const GRID: u32 = 1;
const THRICE: u32 = 2;

fn options() -> RuntimeOptions {
    RuntimeOptions { capacity: 256, launch_on_submit: false, ..RuntimeOptions::default() }
}

/// A policy that changes a part of what is recommended.
fn changed(change: impl Fn(&mut LaunchDecision) + Send + Sync + 'static) -> Option<LaunchPolicy> {
    Some(LaunchPolicy::new(move |request, facts| {
        let mut decision = recommend(request, facts);
        change(&mut decision);
        decision
    }))
}

/// The number of workgroups that each of so many slices really had, each slice with one task.
fn grids(runtime: &Runtime, device: &common::Checked, slices: u32) -> Vec<u32> {
    let seen = device.report(slices);
    let output = runtime.register_buffer(0, &seen, 0..u64::from(slices) * 4).unwrap();
    for slice in 0..slices {
        _ = runtime.submit_batch(&[Task::new(GRID).output(output).param(slice).item()]).unwrap();
        while runtime.run_slice(LONG).unwrap() {}
    }
    words(&seen)
}

#[test]
fn the_recommended_grid_is_the_one_that_runs() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), options());
    assert_eq!(runtime.last_launch(), None);
    let ran = grids(&runtime, &device, 1);
    let launch = runtime.last_launch().unwrap();
    assert_eq!(ran, [launch.decision.workers.value]);
    assert_eq!(launch.decision, recommend(&launch.request, &launch.facts), "nothing is pinned");
    assert_eq!(launch.request, launch.snapshot.try_apply_to_launch_request(Default::default()).unwrap());
}

#[test]
fn a_policy_of_the_callers_decides_anew_for_each_slice() {
    let device = device();
    let asked = AtomicU32::new(0);
    let policy = changed(move |decision| {
        decision.workers = Decided::new(asked.fetch_add(1, Relaxed) * 3 % 5 + 1, "mine");
    });
    let options = RuntimeOptions { most_workers: Some(5), shards: Some(4), policy, ..options() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    assert_eq!(grids(&runtime, &device, 10), [1, 4, 2, 5, 3, 1, 4, 2, 5, 3]);
    assert_eq!(runtime.last_launch().unwrap().decision.workers, Decided::new(3, "mine"));
}

#[test]
fn one_worker_finds_what_many_left_in_every_shard_however_short_its_slices_are() {
    let device = device();
    let asked = AtomicU32::new(0);
    let policy = changed(move |decision| {
        decision.workers = Decided::new(if asked.fetch_add(1, Relaxed) < 4 { 4 } else { 1 }, "many, then one");
    });
    let options = RuntimeOptions {
        most_workers: Some(4),
        shards: Some(4),
        turn_budget: Some(1),
        batch: Some(1),
        policy,
        ..options()
    };
    let runtime = device.runtime(&lane_program(&OPS), options);
    assert_eq!(runtime.submit_batch(&vec![Task::new(THRICE).item(); 60]).unwrap().count(), 60);
    // Each task has four turns, and a worker with nothing to do in two shards has lost a slice.
    let slices = (0..1_000).take_while(|_| runtime.run_slice(LONG).unwrap()).count();
    let mut ended = Vec::new();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
    assert_eq!(ended.len(), 60, "after {slices} slices: {:?}", runtime.snapshot(LONG).unwrap());
}

#[test]
fn a_pin_wins_over_a_policy_and_a_bound_over_both() {
    let device = device();
    let policy = changed(|decision| {
        decision.workers = Decided::new(9, "mine");
        decision.linger = Decided::new(Duration::MAX, "mine");
        decision.aging_ticks = Decided::new(u32::MAX, "mine");
    });
    let pinned = RuntimeOptions { workers: Some(3), aging_ticks: Some(77), policy: policy.clone(), ..options() };
    let runtime = device.runtime(&lane_program(&OPS), pinned);
    assert_eq!(grids(&runtime, &device, 2), [3, 3]);
    let decision = runtime.last_launch().unwrap().decision;
    assert_eq!(decision.workers, Decided::new(3, "pinned by the caller"));
    assert_eq!(decision.aging_ticks.value, 77);

    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { most_workers: Some(4), policy, ..options() });
    assert_eq!(grids(&runtime, &device, 2), [4, 4]);
    let Launch { facts, decision, .. } = runtime.last_launch().unwrap();
    assert_eq!((decision.linger.value, decision.aging_ticks.value), (facts.linger, facts.aging_ticks));
}

#[test]
fn age_outranks_priority_as_soon_as_the_policy_says() {
    let device = device();
    let place_of_the_idle_task = |aging_ticks| {
        let policy = changed(move |decision| decision.aging_ticks = Decided::new(aging_ticks, "mine"));
        let options = RuntimeOptions { workers: Some(1), batch: Some(1), policy, ..options() };
        let runtime = device.runtime(&lane_program(&OPS), options);
        // Lines are admitted few at a time, so the later ones come into their ring at later ticks.
        let critical = Task::new(NOTHING).priority(TaskPriority::Critical);
        let mut tasks = vec![critical.item(); 200];
        tasks[0] = Task::new(NOTHING).priority(TaskPriority::Idle).id(1).item();
        assert_eq!(runtime.submit_batch(&tasks).unwrap().count(), 200);
        let mut ended = Vec::new();
        while runtime.run_slice(LONG).unwrap() {}
        while runtime.completions(&mut ended, 200, Duration::ZERO).unwrap() > 0 {}
        ended.iter().position(|completion| completion.task_id == 1).unwrap()
    };
    assert_eq!(place_of_the_idle_task(4096), 199, "priority decides");
    assert!(place_of_the_idle_task(1) < 40, "age decides");
}

#[test]
fn a_decision_is_made_on_what_the_host_knows() {
    let device = device();
    // On a machine that is busy with other things, too, no slice takes so long that another one follows it.
    let slice_time = Some(Duration::from_secs(1));
    let options = RuntimeOptions { turn_budget: Some(1 << 20), workers: Some(1), slice_time, ..options() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    // More than one worker runs at once, so some wait.
    let mut tasks = vec![Task::new(THRICE).item(); 40];
    tasks.extend([Task::new(NOTHING).paused_until(0, 9).item(); 10]);
    assert_eq!(runtime.submit_batch(&tasks).unwrap().count(), 50);
    runtime.run_slice(LONG).unwrap();
    let first = runtime.last_launch().unwrap();
    // Who is paused, the host learns from a slice's end.
    assert_eq!((first.request.queue_len, first.facts.room, first.facts.waiting), (50, 206, 0));
    assert_eq!((first.request.requeue_count, first.request.max_priority_age), (0, 0));

    _ = runtime.submit_batch(&[Task::new(NOTHING).item(); 3]).unwrap();
    runtime.run_slice(LONG).unwrap();
    let second = runtime.last_launch().unwrap();
    assert_eq!((second.request.queue_len, second.facts.waiting), (3, 10));
    // Each of the 40 came back three times; those that ran straight from their lines are not told apart from new ones.
    assert!((80..=120).contains(&second.request.requeue_count), "{second:?}");
    assert!(second.request.max_priority_age > 0, "{second:?}");

    runtime.signal(0, 9).unwrap();
    runtime.drain(LONG).unwrap();
    let last = runtime.last_launch().unwrap();
    assert_eq!((last.request.queue_len, last.facts.waiting), (0, 10), "the ten wait as far as the host knows");
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_decision_and_its_reason_is_an_event() {
    let device = device();
    // Without a thread of the runtime's own, which would launch a slice now and then where nobody listens.
    let alone = RuntimeOptions { workers: Some(2), launch_on_submit: false, ..options() };
    let runtime = device.runtime(&lane_program(&OPS), alone);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // Who meets a call first decides whether anybody listens to it, and that may be another test's thread, where nobody does.
    grids(&runtime, &device, 1);
    tracing::subscriber::with_default(subscriber, || {
        tracing::callsite::rebuild_interest_cache();
        grids(&runtime, &device, 1)
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let event = text.lines().find(|line| line.contains("decided how to launch")).expect("an event");
    let LaunchDecision { workers, slice_time, linger, aging_ticks } = runtime.last_launch().unwrap().decision;
    assert!(event.contains("workers=2"), "{event}");
    for reason in [workers.reason, slice_time.reason, linger.reason, aging_ticks.reason] {
        assert!(event.contains(reason), "{reason}: {event}");
    }
}

#[test]
fn a_snapshot_counts_the_wait_that_a_ready_task_is_in() {
    let device = device();
    // One claim a turn, and one turn a slice.
    let options = RuntimeOptions { workers: Some(1), batch: Some(1), turn_budget: Some(1), ..options() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    _ = runtime.submit_batch(&[Task::new(NOTHING).item(); 40]).unwrap();
    let ages = (0..12).map(|_| {
        runtime.run_slice(LONG).unwrap();
        runtime.snapshot(LONG).unwrap().max_priority_age
    });
    let ages: Vec<u32> = ages.collect();
    // Tasks are admitted faster than they run, so whoever is first in the ring has been there for ever longer.
    assert!(ages.is_sorted() && ages[0] < ages[11], "{ages:?}");
}

#[cfg(feature = "self-substrate-adapters")]
#[test]
fn trends_follow_the_partitions_smoothly_and_the_policy_hears_of_them() {
    let device = device();
    let options = RuntimeOptions { workers: Some(1), turn_budget: Some(1), capacity: 1024, ..options() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let none = [PartitionTrend::default(); 5];
    assert_eq!(runtime.partition_trends(LONG), Ok(none));
    let low = Task::new(NOTHING).priority(TaskPriority::Low).item();
    assert_eq!(runtime.submit_batch(&[low; 1000]).unwrap().count(), 1000);
    let depths: Vec<u32> = (0..16).map(|_| runtime.partition_trends(LONG).unwrap()[3].depth).collect();
    // The same smoothing, here.
    let mut window = [0u32; 16];
    let expected: Vec<u32> = (0..16)
        .map(|_| {
            window.rotate_left(1);
            window[15] = 1000;
            let mut smooth = window;
            for _ in 0..8 {
                let at = |index: usize| smooth[index.min(15)];
                let next = std::array::from_fn(|i| (at(i.saturating_sub(1)) + 2 * at(i) + at(i + 1) + 2) / 4);
                smooth = next;
            }
            smooth[15]
        })
        .collect();
    assert_eq!(depths, expected);
    assert!(depths[0] < 700 && depths[15] > 950, "{depths:?}");
    let others = runtime.partition_trends(LONG).unwrap();
    assert_eq!([0, 1, 2, 4].map(|partition: usize| others[partition].depth), [0; 4]);

    runtime.run_slice(LONG).unwrap();
    assert_eq!(runtime.last_launch().unwrap().facts.usual_depth, others[3].depth);
    runtime.stop(LONG).unwrap();
}
