//! Slices that hear the host while they run, that follow one another, that end at the wrong moment; and a host that stands still.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use std::collections::HashSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Checked, LONG, device, lane_program, run_all, word, words};
use taskring::device::{Loops, MemoryClass, MemoryOutcome, Probe, RoundTrip};
use taskring::*;

const OPS: [(&str, &str); 3] = [
    (
        "count",
        "Turn count(TaskWorkItem task) { buffer_atomic_add(task_output(task), task.param, 1u); return task_complete(); }",
    ),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
    (
        "steps",
        "Turn steps(TaskWorkItem task) {
            if (task.continuation_pc == 100u) {
                buffer_atomic_add(task_output(task), task.param, 1u);
                return task_complete();
            }
            return task_yield(task.continuation_pc + 1u, 0u);
        }",
    ),
];
const COUNT: u32 = 0;
const SPIN: u32 = 1;
const STEPS: u32 = 2;

/// Slices that a test sees end: long enough to be talked to, short enough that many follow one another.
fn short() -> RuntimeOptions {
    RuntimeOptions {
        capacity: 256,
        slice_time: Some(Duration::from_millis(5)),
        linger: Some(Duration::from_millis(2)),
        ..RuntimeOptions::default()
    }
}

/// Polls without a call to the runtime.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn recorded(mailbox: bool) -> SelfTest {
    let class = |class| MemoryOutcome { class, mailbox: Probe::Measured(mailbox), report: Probe::Measured(true) };
    let (mailbox, report) = (MemoryClass::DeviceLocalCached, MemoryClass::DeviceLocalCached);
    SelfTest {
        memory: MemoryClass::ALL.map(class).to_vec(),
        workgroups: Probe::Measured(2),
        loops: Probe::Measured(Loops { turns: SelfTest::MOST_TURNS, cut: false }),
        other_queue: Probe::NotMeasured("recorded".into()),
        round_trip: Probe::Measured(RoundTrip { mailbox, report, rounds: 1, p50_ns: 1, p99_ns: 1 }),
        longest_us: 1,
    }
}

/// The mode that the options ask for, whatever the environment says.
fn residency_of(device: &Checked, options: RuntimeOptions) -> Residency {
    Runtime::new(&device.device, &lane_program(&OPS), options).unwrap().residency().clone()
}

#[test]
fn a_mode_that_is_asked_for_is_taken() {
    let device = device();
    let asked = |mode| residency_of(&device, RuntimeOptions { mode, ..short() });
    assert!(asked(Mode::Live).is_live());
    assert!(!asked(Mode::Boundary).is_live());
    assert!(asked(Mode::Boundary).reasons()[0].contains("asked for"));
}

#[test]
fn a_recorded_self_test_decides_where_nobody_asks() {
    let device = device();
    let deaf = RuntimeOptions { self_test: Some(recorded(false)), ..short() };
    let residency = residency_of(&device, deaf);
    assert!(!residency.is_live() && residency.reasons()[0].contains("sees the host's writes in no kind"));
}

/// Mesa's CPU driver has a clock that goes round every 4.3 seconds.
#[test]
fn a_slice_with_nothing_to_do_leaves_whenever_it_began() {
    let device = device();
    if device.device.self_test().unwrap().loops.measured().is_some_and(|loops| loops.cut) {
        eprintln!("not run: the driver ends the loops of such a slice before");
        return;
    }
    let options = RuntimeOptions {
        mode: Mode::Live,
        launch_on_submit: false,
        slice_time: Some(Duration::MAX),
        linger: Some(Duration::from_millis(100)),
        ..short()
    };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(4_500) {
        run_all(&runtime, &[Task::new(STEPS).item()]);
        while runtime.run_slice(Duration::from_secs(10)).unwrap() {}
    }
}

#[test]
fn a_task_that_is_published_while_a_slice_runs_is_run_by_that_slice() {
    let device = device();
    let test = device.device.self_test().unwrap();
    if test.loops.measured().is_some_and(|loops| loops.cut) {
        // The driver would cut a slice that stays this long; nobody is given live mode there.
        assert!(!Residency::choose(test).is_live());
        return;
    }
    let options = RuntimeOptions { mode: Mode::Live, launch_on_submit: false, ..short() };
    let linger = Duration::from_millis(300);
    let options = RuntimeOptions { slice_time: Some(Duration::MAX), linger: Some(linger), ..options };
    let runtime = device.runtime(&lane_program(&OPS), options);
    // The first slices are short, until it is known how fast they are.
    for _ in 0..5 {
        run_all(&runtime, &[Task::new(STEPS).item()]);
        while runtime.run_slice(LONG).unwrap() {}
    }
    // A round in which the host was away for as long as a slice may stay tells nothing, and is done again.
    let told = (0..5).any(|_| {
        let counts = device.report(64);
        let output = runtime.register_buffer(0, &counts, 0..256).unwrap();
        let task = |n| Task::new(COUNT).output(output).param(n);
        let before = runtime.stats().slices;
        let mut was_there = Instant::now();
        _ = runtime.submit_batch(&[task(0).item()]).unwrap();
        runtime.poll().unwrap();
        let unheard = (1..20).find_map(|n| {
            _ = runtime.submit_batch(&[task(n).item()]).unwrap();
            let away = was_there.elapsed();
            // Nobody launches anything here.
            let start = Instant::now();
            while word(&counts, n) == 0 && start.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_micros(100));
            }
            was_there = Instant::now();
            let runs = word(&counts, n);
            (runs != 1).then_some((n, runs, away))
        });
        let was_late = matches!(unheard, Some((_, 0, away)) if away > linger / 3);
        if !was_late {
            assert_eq!(unheard, None);
            assert_eq!(runtime.stats().slices, before + 1, "one slice heard all of them");
        }
        runtime.drain(LONG).unwrap();
        while runtime.run_slice(LONG).unwrap() {}
        !was_late
    });
    assert!(told, "the host was away five times");
}

#[test]
fn what_is_published_just_as_the_slice_has_looked_for_the_last_time_is_run_without_a_further_call() {
    let device = device();
    // The doorbells of the first submissions are not heard: exactly as if each came after the slice's last look.
    let options = RuntimeOptions { missed_bells: 40, ..short() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let counts = device.report(64);
    let output = runtime.register_buffer(0, &counts, 0..256).unwrap();
    for n in 0..40 {
        drop(runtime.submit(Task::new(COUNT).output(output).param(n)).unwrap());
        if n % 2 == 0 {
            // In the middle of a slice, or after its end.
            std::thread::sleep(Duration::from_micros(u64::from(n) * 200));
        }
        eventually("the task runs although nobody calls", || word(&counts, n) == 1);
    }
    runtime.drain(LONG).unwrap();
}

#[test]
fn publishing_at_any_moment_around_a_slices_end_strands_nothing() {
    let device = device();
    let options = RuntimeOptions { linger: Some(Duration::from_micros(100)), ..short() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let counts = device.report(512);
    let output = runtime.register_buffer(0, &counts, 0..2048).unwrap();
    for n in 0..500u32 {
        drop(runtime.submit(Task::new(COUNT).output(output).param(n)).unwrap());
        eventually("the task runs although nobody calls", || word(&counts, n) == 1);
        // Around the linger, where the slice takes its leave.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(u64::from(n * 7 % 250)) {
            std::hint::spin_loop();
        }
    }
    runtime.drain(LONG).unwrap();
}

#[test]
fn a_signal_at_any_moment_around_a_slices_end_wakes_its_waiter() {
    let device = device();
    let options = RuntimeOptions { linger: Some(Duration::from_micros(100)), ..short() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let counts = device.report(512);
    let output = runtime.register_buffer(0, &counts, 0..2048).unwrap();
    for n in 0..300u32 {
        drop(runtime.submit(Task::new(COUNT).output(output).param(n).paused_until(0, n + 1)).unwrap());
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(u64::from(n * 7 % 400)) {
            std::hint::spin_loop();
        }
        runtime.signal(0, u64::from(n) + 1).unwrap();
        eventually("the waiter runs although nobody calls", || word(&counts, n) == 1);
    }
    runtime.drain(LONG).unwrap();
}

#[test]
fn slices_follow_one_another_while_nobody_calls() {
    let device = device();
    let runtime =
        device.runtime(&lane_program(&OPS), RuntimeOptions { slice_time: Some(Duration::from_millis(2)), ..short() });
    let counts = device.report(256);
    let output = runtime.register_buffer(0, &counts, 0..1024).unwrap();
    let spinners = vec![Task::new(SPIN).item(); 4];
    assert_eq!(runtime.submit_batch(&spinners).unwrap().count(), 4);
    eventually("twenty slices", || runtime.stats().slices > 20);
    let steps: Vec<TaskWorkItem> = (0..200).map(|n| Task::new(STEPS).output(output).param(n).item()).collect();
    assert_eq!(runtime.submit_batch(&steps).unwrap().count(), 200);
    eventually("all steps are taken", || words(&counts)[..200] == [1; 200]);
    let report = runtime.stop(LONG).unwrap();
    assert_eq!((report.ended, report.unfinished.len()), (200, 4));
}

#[test]
fn an_idle_runtime_has_no_slice() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), short());
    run_all(&runtime, &vec![Task::new(COUNT).output(output_of(&runtime, &device)).item(); 10]);
    let waiting = Task::new(SPIN).paused_until(0, 1).item();
    _ = runtime.submit_batch(&[waiting]).unwrap();
    assert_eq!(runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
    let slices = runtime.stats().slices;
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(runtime.stats().slices, slices, "nothing is launched for a task that waits");
    assert_eq!(runtime.poll(), Ok(false));
}

fn output_of(runtime: &Runtime, device: &Checked) -> BufferHandle {
    runtime.register_buffer(0, &device.report(16), 0..64).unwrap()
}

#[test]
fn a_slice_that_ends_without_a_reason_with_others_behind_it_loses_nothing() {
    let device = device();
    for turn in [1, 40, 400, 4000] {
        let restartable = OpSource::new("steps", OPS[2].1, Width::Lane).restartable();
        let program = Program::builder().source(restartable).build().unwrap();
        let options = RuntimeOptions { cut_turn: Some(turn), slice_time: Some(Duration::from_millis(1)), ..short() };
        let runtime = device.runtime(&program, options);
        let counts = device.report(1024);
        let output = runtime.register_buffer(0, &counts, 0..4096).unwrap();
        let tasks: Vec<TaskWorkItem> = (0..1000).map(|n| Task::new(0).id(n).output(output).param(n).item()).collect();
        let ended = run_all(&runtime, &tasks);
        let ids: HashSet<u32> = ended.iter().map(|completion| completion.task_id).collect();
        assert_eq!((ended.len(), ids.len()), (1000, 1000));
        assert!(ended.iter().all(|completion| (completion.outcome, completion.yield_count) == (Outcome::Done, 100)));
        // A turn that was cut ran, was not committed, and ran again.
        assert!(words(&counts)[..1000].iter().all(|count| [1, 2].contains(count)));
        runtime.drain(LONG).unwrap();
    }
}

#[test]
fn a_host_that_stands_still_for_five_seconds_loses_nothing() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { capacity: 1024, ..short() });
    let counts = device.report(1 << 16);
    let output = runtime.register_buffer(0, &counts, 0..4 << 16).unwrap();
    let pid = std::process::id();
    let stops = format!("sleep 0.3; kill -STOP {pid}; sleep 5; kill -CONT {pid}");
    let mut stopper = Command::new("sh").args(["-c", &stops]).spawn().unwrap();
    let (mut next, mut ended, began) = (0u32, Vec::new(), Instant::now());
    // On both sides of the stop.
    while stopper.try_wait().unwrap().is_none() || next < 2000 {
        let batch: Vec<_> = (next..next + 50)
            .map(|n| {
                Task::new(if n.is_multiple_of(5) { STEPS } else { COUNT }).id(n).output(output).param(n & 0xffff).item()
            })
            .collect();
        next += runtime.submit_batch(&batch).unwrap().count() as u32;
        runtime.completions(&mut ended, usize::MAX, Duration::from_millis(1)).unwrap();
        assert!(began.elapsed() < LONG);
    }
    assert!(began.elapsed() > Duration::from_secs(5), "nobody stopped this process");
    runtime.drain(LONG).unwrap();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
    let mut ids: Vec<u32> = ended.iter().map(|completion| completion.task_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..next).collect::<Vec<_>>(), "each once");
    let ended_otherwise: Vec<_> = ended.iter().filter(|completion| completion.outcome != Outcome::Done).collect();
    assert!(ended_otherwise.is_empty(), "{ended_otherwise:?}");
    assert_eq!(words(&counts).iter().sum::<u32>(), next, "each ran once");
}

#[test]
fn a_hundred_runtimes_come_and_go() {
    let device = device();
    let program = lane_program(&OPS);
    let counts = device.report(16);
    for round in 0..100u32 {
        let runtime = device.runtime(&program, short());
        let output = runtime.register_buffer(0, &counts, 0..64).unwrap();
        let tasks = vec![Task::new(COUNT).output(output).item(); 10];
        match round % 4 {
            0 => drop(run_all(&runtime, &tasks)),
            1 => {
                _ = runtime.submit_batch(&tasks).unwrap();
                runtime.drain(LONG).unwrap();
            }
            2 => {
                _ = runtime.submit_batch(&vec![Task::new(SPIN).item(); 10]).unwrap();
                assert_eq!(runtime.stop(LONG).unwrap().unfinished.len(), 10);
            }
            // With work in flight.
            _ => drop(runtime.submit_batch(&vec![Task::new(SPIN).item(); 10]).unwrap()),
        }
    }
    assert_eq!(word(&counts, 0), 500);
}

#[test]
fn eight_threads_that_fill_the_rings_lose_and_double_nothing() {
    const EACH: u32 = 2000;
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { capacity: 64, ..short() });
    let counts = device.report(8 * EACH);
    let output = runtime.register_buffer(0, &counts, 0..u64::from(8 * EACH) * 4).unwrap();
    let (ended, refused, over) = (Mutex::new(Vec::new()), AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let storm: Vec<_> = (0..8u32)
            .map(|thread| {
                let (runtime, refused) = (runtime.clone(), &refused);
                scope.spawn(move || {
                    let mut next = 0;
                    while next < EACH {
                        let op = |n: u32| if n.is_multiple_of(10) { STEPS } else { COUNT };
                        let tasks: Vec<_> = (next..EACH.min(next + 40))
                            .map(|n| Task::new(op(n)).output(output).param(thread * EACH + n).item())
                            .collect();
                        let taken = runtime.submit_batch(&tasks).unwrap().count() as u32;
                        refused.fetch_add(u32::from(taken < tasks.len() as u32), Relaxed);
                        next += taken;
                        if taken == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let (runtime, ended, over) = (&runtime, &ended, &over);
        scope.spawn(move || {
            let mut own = Vec::new();
            while !over.load(Relaxed) {
                runtime.completions(&mut own, usize::MAX, Duration::from_millis(1)).unwrap();
            }
            ended.lock().unwrap().extend(own);
        });
        for thread in storm {
            thread.join().unwrap();
        }
        over.store(true, Relaxed);
    });
    runtime.drain(LONG).unwrap();
    let mut ended = ended.into_inner().unwrap();
    runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
    let ids: HashSet<SubmissionId> = ended.iter().map(|completion| completion.id).collect();
    assert_eq!((ended.len(), ids.len()), (8 * EACH as usize, 8 * EACH as usize));
    assert_eq!(words(&counts), vec![1; 8 * EACH as usize], "each ran once");
    assert!(refused.load(Relaxed) > 0, "the rings were never full");
}
