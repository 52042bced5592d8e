//! Tasks that wait for timeline semaphores, whoever signals them.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

#[path = "timelines/carriers.rs"]
mod carriers;
mod common;
#[path = "timelines/ends.rs"]
mod ends;
#[path = "common/engine.rs"]
mod engine;
#[path = "timelines/keep.rs"]
mod keep;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Checked, LONG, device, lane_program, word, words};
use engine::{Engine, Queue, queues};
use taskring::*;

const OPS: [(&str, &str); 5] = [
    (
        "count",
        "Turn count(TaskWorkItem task) { buffer_atomic_add(task_output(task), task.param, 1u); return task_complete(); }",
    ),
    // Pauses for each epoch from 1 to its parameter.
    (
        "follow",
        "Turn follow(TaskWorkItem task) {
            if (task.continuation_pc == task.param) return task_complete();
            return task_pause(task.continuation_pc + 1u, 0u, task.continuation_pc + 1u);
        }",
    ),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
    // Pauses on the timeline that its parameter names.
    (
        "pause_on",
        "Turn pause_on(TaskWorkItem task) {
            if (task.continuation_pc == 1u) return task_complete();
            return task_pause_on(task.param, 1u, 0u, 1u);
        }",
    ),
    // Counts like the first, but is not one of the short ops whose epochs are looked at beside the doorbell.
    (
        "count_late",
        "Turn count_late(TaskWorkItem task) {
            for (uint i = 0u; i < 2u; ++i) buffer_atomic_add(task_output(task), task.param, i);
            return task_complete();
        }",
    ),
];
const COUNT: u32 = 0;
const FOLLOW: u32 = 1;
const SPIN: u32 = 2;
const PAUSE_ON: u32 = 3;
const COUNT_LATE: u32 = 4;

fn small() -> RuntimeOptions {
    RuntimeOptions { capacity: 1024, ..RuntimeOptions::default() }
}

struct Bench {
    // Dropped in this order.
    runtime: Runtime,
    counts: Arc<Buffer>,
    output: BufferHandle,
    device: Checked,
}

fn bench(options: RuntimeOptions) -> Bench {
    bench_on(device(), options)
}

fn bench_on(device: Checked, options: RuntimeOptions) -> Bench {
    let runtime = device.runtime(&lane_program(&OPS), options);
    let counts = device.report(1024);
    let output = runtime.register_buffer(0, &counts, 0..4096).unwrap();
    Bench { runtime, counts, output, device }
}

impl Bench {
    fn semaphore(&self, initial: u64) -> Arc<Timeline> {
        Arc::new(Timeline::new(&self.device.device, "engine", initial).unwrap())
    }

    /// A task that counts in word `n` once the epoch is reached.
    fn waiter(&self, n: u32, timeline: TimelineId, epoch: u32) -> TaskWorkItem {
        Task::new(COUNT).output(self.output).param(n).id(n).paused_until(timeline, epoch).item()
    }

    fn submit(&self, tasks: &[TaskWorkItem]) -> Vec<SubmissionId> {
        let accepted = self.runtime.submit_batch(tasks).unwrap();
        assert_eq!(accepted.count(), tasks.len());
        accepted.ids().collect()
    }

    /// Waits for the ends of so many tasks.
    fn ends(&self, count: usize) -> Vec<Completion> {
        let mut ends = Vec::new();
        while ends.len() < count {
            assert!(self.runtime.completions(&mut ends, usize::MAX, LONG).unwrap() > 0, "{} of {count}", ends.len());
        }
        ends
    }

    /// Waits until so many tasks have ended, with no call to the runtime.
    fn counted(&self, n: u32, count: u32) {
        let start = Instant::now();
        while word(&self.counts, n) < count {
            assert!(start.elapsed() < LONG, "{} of {count}", word(&self.counts, n));
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(word(&self.counts, n), count);
    }

    /// Waits until no slice runs and no thread of the runtime's launches one.
    fn parked(&self) {
        let start = Instant::now();
        let mut before = None;
        while before != Some(self.runtime.stats().slices) {
            assert!(start.elapsed() < LONG, "slices go on and on");
            before = Some(self.runtime.stats().slices);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_task_resumes_whoever_signals_the_semaphore_and_whether_slices_run_or_not() {
    let bench = bench(small());
    let semaphore = bench.semaphore(0);
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    let mut epoch = 0;
    let mut signallers: Vec<Option<Engine>> = vec![None];
    signallers
        .extend(queues(&bench.device.device).into_iter().map(|queue| Some(Engine::new(&bench.device.device, queue))));
    for parked in [false, true] {
        for engine in &signallers {
            bench.submit(&[bench.waiter(7, timeline, epoch + 1)]);
            if parked {
                bench.parked();
            }
            epoch += 1;
            match engine {
                None => semaphore.signal(epoch.into()).unwrap(),
                Some(engine) => engine.signal(&semaphore, epoch.into()),
            }
            bench.counted(7, epoch);
        }
    }
    assert_eq!(bench.runtime.epoch(timeline), Ok(epoch.into()));
    assert!(semaphore.wait(epoch.into(), LONG).unwrap());
}

#[test]
fn a_signal_whose_hint_is_lost_is_found_by_the_slice_that_runs() {
    // Not endless: a slice that others on the device wait for too long is killed.
    let long = RuntimeOptions { slice_time: Some(Duration::from_secs(1)), turn_budget: Some(1 << 30), ..small() };
    let bench = bench(RuntimeOptions { missed_signals: u32::MAX, mode: Mode::Live, ..long });
    if bench.device.ends_loops() {
        // The driver would cut a slice that stays this long; nobody is given live mode there.
        assert!(!Residency::choose(bench.device.device.self_test().unwrap()).is_live());
        eprintln!("not run: the driver ends the loops of such a slice before");
        return;
    }
    // So that slices are busy; the first ones are short.
    bench.submit(&[Task::new(SPIN).item()]);
    std::thread::sleep(Duration::from_millis(100));
    let (mut epoch, mut found) = (0, 0);
    while found < 3 {
        epoch += 1;
        assert!(epoch < 30, "each is found when a slice is launched or begins");
        let waiter = TaskWorkItem { op_handle: COUNT_LATE, ..bench.waiter(0, TimelineId::DEFAULT, epoch) };
        bench.submit(&[waiter]);
        bench.submit(&[Task::new(COUNT).output(bench.output).param(1).item()]);
        bench.counted(1, epoch); // and so the waiter was read, too
        // A slice that begins looks at everything, and who launches one tells all that there is.
        let slices = || (bench.runtime.stats().slices, bench.runtime.progress().value().unwrap());
        let before = slices();
        bench.runtime.signal(0, epoch.into()).unwrap();
        bench.counted(0, epoch);
        found += u32::from(slices() == before);
    }
    assert!(bench.runtime.end_slice().is_ok());
}

#[test]
fn each_of_many_waiters_resumes_at_its_own_epoch_and_not_before() {
    let bench = bench(small());
    let semaphore = bench.semaphore(0);
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    let tasks: Vec<_> = (0..600).map(|n| bench.waiter(n, timeline, n + 1)).collect();
    bench.submit(&tasks);
    // One step, a step over many, and one past all of them.
    let mut ended = 0;
    for epoch in [1u32, 2, 300, 301, 10_000] {
        semaphore.signal(epoch.into()).unwrap();
        let reached = epoch.min(600) as usize;
        let mut ends = bench.ends(reached - ended);
        ends.sort_by_key(|end| end.task_id);
        let ids: Vec<u32> = ends.iter().map(|end| end.task_id).collect();
        assert_eq!(ids, (ended as u32..reached as u32).collect::<Vec<_>>());
        ended = reached;
    }
    assert_eq!(words(&bench.counts)[..600], [1; 600]);
}

#[test]
fn two_hundred_timelines_do_not_mistake_one_another() {
    let bench = bench(small());
    let semaphores: Vec<_> = (0..200).map(|_| bench.semaphore(0)).collect();
    let signaller = |n: usize| [Signaller::Anyone, Signaller::Runtime, Signaller::Recorded][n % 3];
    let register = |(n, semaphore)| bench.runtime.register_timeline(semaphore, signaller(n)).unwrap();
    let timelines: Vec<_> = semaphores.iter().enumerate().map(register).collect();
    for round in 1..4u32 {
        let tasks: Vec<_> = (0..).zip(&timelines).map(|(n, timeline)| bench.waiter(n, *timeline, round)).collect();
        bench.submit(&tasks);
        // Half of them, from both ends; then the rest.
        for half in [0, 1] {
            for n in (half..200).step_by(2) {
                let n = if round == 2 { 199 - n } else { n };
                match signaller(n) {
                    Signaller::Runtime => bench.runtime.signal(timelines[n], round.into()).unwrap(),
                    _ => semaphores[n].signal(round.into()).unwrap(),
                }
            }
            bench.ends(100);
            let signalled = words(&bench.counts)[..200].iter().filter(|count| **count == round).count();
            assert_eq!(signalled, 100 * (half + 1));
        }
    }
    assert!(semaphores.iter().all(|semaphore| semaphore.value() == Ok(3)), "`signal` moves the semaphore too");
}

#[test]
fn epochs_go_past_32_bits_and_jump_by_more_than_half_of_them() {
    let bench = bench(small());
    let start = (1u64 << 32) - 2;
    let semaphore = bench.semaphore(start);
    let registered = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    let plain = bench.runtime.create_timeline().unwrap();
    bench.runtime.signal(plain, start).unwrap();
    let epochs = [start + 1, start + 3, start + (1 << 31), start + (1 << 31) + 5, start + (5 << 31)];
    for (count, epoch) in (0..).zip(epochs) {
        // 32 bits mean the nearest epoch, so who waits for a farther one says so when it is near.
        let nearest = epoch.min(semaphore.value().unwrap() + (1 << 31) - 1) as u32;
        bench.submit(&[bench.waiter(0, registered, nearest), bench.waiter(1, plain, nearest)]);
        bench.parked();
        assert_eq!(words(&bench.counts)[..2], [count; 2]);
        semaphore.signal(epoch).unwrap();
        bench.runtime.signal(plain, epoch).unwrap();
        bench.ends(2);
        // What has passed already, by up to half of the 32 bits.
        bench.submit(&[bench.waiter(2, registered, (epoch - (1 << 31)) as u32), bench.waiter(2, plain, epoch as u32)]);
        bench.ends(2);
    }
    assert_eq!(words(&bench.counts)[..3], [5, 5, 10]);
    assert!(matches!(bench.runtime.signal(plain, 5), Err(BackendError::EpochWentBack { value: 5, .. })));
    assert!(matches!(bench.runtime.signal(registered, 5), Err(BackendError::EpochWentBack { value: 5, .. })));
}

#[test]
fn a_million_tasks_wait_for_one_epoch() {
    let bench = bench(RuntimeOptions { capacity: 1 << 20, ..small() });
    let timeline = bench.runtime.create_timeline().unwrap();
    let tasks = vec![bench.waiter(3, timeline, 1); 1 << 20];
    let mut rest = &tasks[..];
    while !rest.is_empty() {
        rest = &rest[bench.runtime.submit_batch(rest).unwrap().count()..];
        bench.runtime.poll().unwrap();
    }
    bench.parked();
    assert_eq!(word(&bench.counts, 3), 0);
    bench.runtime.signal(timeline, 1).unwrap();
    bench.ends(1 << 20);
    assert_eq!(word(&bench.counts, 3), 1 << 20);
}

#[test]
fn a_pause_that_races_with_its_signal_is_never_left_behind() {
    const TASKS: u32 = 500;
    const EPOCHS: u32 = 2000;
    let bench = bench(small());
    let tasks: Vec<_> = (0..TASKS).map(|id| Task::new(FOLLOW).param(EPOCHS).id(id).item()).collect();
    bench.submit(&tasks);
    let mut ends = Vec::new();
    let (mut epoch, mut paused) = (0, 0);
    // Signals come while tasks pause for them, since nobody waits for the last epoch's tasks.
    while ends.len() < TASKS as usize {
        epoch = (epoch + 1).min(EPOCHS);
        bench.runtime.signal(0, epoch.into()).unwrap();
        let patience = if epoch == EPOCHS { LONG } else { Duration::ZERO };
        let more = bench.runtime.completions(&mut ends, usize::MAX, patience).unwrap();
        // A million pauses may take their time, as long as they go on.
        let stats = bench.runtime.stats();
        assert!(more > 0 || epoch < EPOCHS || stats.pauses > paused, "{} of {TASKS} went on; {stats:?}", ends.len());
        paused = stats.pauses;
    }
    bench.runtime.snapshot(LONG).unwrap(); // whereby the slice ends, which tells its counts
    let stats = bench.runtime.stats();
    // What a slice that the driver cut had counted is not known.
    assert!(stats.recoveries > 0 || (stats.pauses, stats.resumes) == (1_000_000, 1_000_000), "{stats:?}");
}

#[test]
fn a_pause_is_fixed_by_where_the_semaphore_is_and_not_by_where_it_was_last_seen() {
    let bench = bench(small());
    let far = 1u64 << 32;
    let semaphore = bench.semaphore(far);
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    // Nothing is unfinished, so nobody looks.
    let now = far + (1 << 31) + 10;
    semaphore.signal(now).unwrap();
    bench.submit(&[bench.waiter(0, timeline, (now + 1) as u32)]);
    bench.parked();
    assert_eq!(word(&bench.counts, 0), 0, "the epoch has not come");
    semaphore.signal(now + 1).unwrap();
    bench.ends(1);
}

#[test]
fn a_runtime_that_is_only_called_hears_of_semaphores_and_announces_ends() {
    let bench = bench(RuntimeOptions { launch_on_submit: false, ..small() });
    let (semaphore, done) = (bench.semaphore(0), bench.semaphore(0));
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    let ids = bench.submit(&[bench.waiter(0, timeline, 1)]);
    bench.runtime.announce(ids, &done, 1, Urgency::AtSliceEnd).unwrap();
    while bench.runtime.run_slice(LONG).unwrap() {}
    assert_eq!(word(&bench.counts, 0), 0);
    semaphore.signal(1).unwrap();
    assert!(bench.runtime.run_slice(LONG).unwrap());
    assert_eq!(word(&bench.counts, 0), 1);
    assert!(done.wait(1, LONG).unwrap());
}

#[test]
fn nothing_runs_while_tasks_only_wait_and_no_wait_is_hopeless_while_others_may_signal() {
    let bench = bench(small());
    bench.submit(&[bench.waiter(0, TimelineId::DEFAULT, 1)]);
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
    let semaphore = bench.semaphore(0);
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Anyone).unwrap();
    bench.submit(&[bench.waiter(1, timeline, 1)]);
    bench.parked();
    let waits = bench.runtime.drain(Duration::from_millis(100));
    assert!(matches!(waits, Err(BackendError::Timeout { .. })), "{waits:?}");
    bench.runtime.signal(0, 1).unwrap();
    semaphore.signal(1).unwrap();
    bench.runtime.drain(LONG).unwrap();
}

/// Under the validation layer the runtime's thread looks every other millisecond instead, so this runs without it, in a process of its own. (On CPU
/// drivers it looks all the same.)
#[test]
fn a_parked_runtime_sleeps_on_the_semaphores_and_wakes_for_whoever_comes() {
    const CHILD: &str = "TASKRING_TEST_PARKED";
    if std::env::var_os(CHILD).is_none() {
        let name = "a_parked_runtime_sleeps_on_the_semaphores_and_wakes_for_whoever_comes";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output =
            child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").env("TASKRING_VALIDATION", "0").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let bench = bench_on(Checked { device: Device::new(DeviceOptions::default()).unwrap() }, small());
    assert!(!bench.device.device.is_validated());
    let semaphores = [bench.semaphore(0), bench.semaphore(0)];
    let timelines = [0, 1].map(|n| bench.runtime.register_timeline(&semaphores[n], Signaller::Anyone).unwrap());
    let engine = Engine::new(&bench.device.device, Queue::Slices);
    for epoch in 1..20u32 {
        let sleeper = bench.waiter(3, timelines[1], 1000);
        bench.submit(&[bench.waiter(0, timelines[0], epoch), bench.waiter(1, timelines[1], epoch), sleeper]);
        bench.parked();
        semaphores[0].signal(epoch.into()).unwrap();
        bench.counted(0, epoch);
        bench.parked();
        engine.signal(&semaphores[1], epoch.into());
        bench.counted(1, epoch);
        bench.parked();
        bench.submit(&[Task::new(COUNT).output(bench.output).param(2).item()]);
        bench.counted(2, epoch);
    }
    assert_eq!(word(&bench.counts, 3), 0);
    bench.parked();
}

#[test]
fn a_task_that_is_woken_alone_pauses_again_until_its_next_epoch() {
    let device = device();
    // Ends its first turns as a task does that takes the shortest way: the worker that wakes it runs it at once.
    let steps = "Turn steps(TaskWorkItem task) {
        uint next = task.continuation_pc + 1u;
        if (next > task.param) return task_complete();
        return task_pause(next, 0u, task.resume_epoch + 1u);
    }";
    let runtime = device.runtime(&lane_program(&[("steps", steps)]), small());
    let timeline = runtime.create_timeline().unwrap();
    // Across the wrap of the low words: a target that lost its high one would have passed.
    let start = (1u64 << 32) - 3;
    runtime.signal(timeline, start).unwrap();
    let waiter = Task::new(0).param(6).paused_until(timeline, (start + 1) as u32);
    let mut task = runtime.submit(waiter).unwrap();
    for step in 1..=7 {
        let early = task.wait(Duration::from_millis(20));
        assert!(matches!(early, Err(BackendError::Timeout { .. })), "step {step}: {early:?}");
        runtime.signal(timeline, start + step).unwrap();
    }
    assert_eq!(task.wait(LONG).unwrap().outcome, Outcome::Done);
    runtime.snapshot(LONG).unwrap();
    let RuntimeStats { pauses, resumes, .. } = runtime.stats();
    assert_eq!((pauses, resumes), (7, 7));
}
