//! Slices that an engine submits: recorded into its command buffers, in its frames, on its queue.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

#[path = "common/mod.rs"]
mod common;
#[path = "common/plain.rs"]
mod plain;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use common::{LONG, lane_program, words};
use plain::{Enables, Plain};
use taskring::*;

const OPS: [(&str, &str); 3] = [
    (
        "copy",
        "Turn copy(TaskWorkItem task) {
            if (task.continuation_pc < 2u) return task_yield(task.continuation_pc + 1u, 0u);
            buffer_store(task_output(task), task.task_id, buffer_load(task_input(task), task.task_id) + task.param);
            return task_complete();
        }",
    ),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
    ("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }"),
];
const COPY: u32 = 0;
const SPIN: u32 = 1;
const NOTHING: u32 = 2;
const MS: Duration = Duration::from_millis(1);

/// A runtime on an engine's device, all of whose slices the engine submits. Dropped from the top: the engine goes last.
struct Bench {
    runtime: Runtime,
    frames: Arc<Timeline>,
    device: Device,
    engine: Plain,
}

fn bench(options: RuntimeOptions) -> Bench {
    let engine = Plain::new(Enables::All);
    // SAFETY: the engine lends live handles, says what is enabled, and is dropped last.
    let device = unsafe { Device::borrow(engine.lends()) }.expect("borrowed");
    // SAFETY: the engine's semaphore lives longer, and only its frames signal it.
    let frames = Arc::new(unsafe { Timeline::borrow(&device, engine.frames) });
    let mode = if std::env::var("TASKRING_MODE").is_ok() { Mode::Auto } else { Mode::Live };
    let options = RuntimeOptions { mode, slice_timeout: LONG, ..options };
    let runtime = Runtime::new(&device, &lane_program(&OPS), options).expect("a runtime");
    Bench { runtime, frames, device, engine }
}

fn record_only() -> RuntimeOptions {
    RuntimeOptions { record_only: true, ..RuntimeOptions::default() }
}

impl Bench {
    /// One frame with a slice in it, if there is something to do, and `more` behind it. Whether there was a slice.
    fn frame(&self, budget: Duration, more: impl FnOnce(vk::CommandBuffer)) -> bool {
        let commands = self.engine.begin();
        let recorded = self.record(commands, budget).expect("recorded, or not");
        more(commands);
        self.engine.submit(commands);
        recorded
    }

    fn record(&self, commands: vk::CommandBuffer, budget: Duration) -> Result<bool, BackendError> {
        let ended = (&self.frames, self.engine.next_frame());
        // SAFETY: it is being recorded for the engine's family, and `frame` submits it with that value, or the test discards it.
        unsafe { self.runtime.record_slice(commands, ended, budget) }
    }

    /// Frames until nothing is in flight any more.
    fn frames_until_done(&self) -> u32 {
        let (start, mut slices) = (Instant::now(), 0);
        while !self.runtime.unfinished().is_empty() {
            slices += u32::from(self.frame(5 * MS, |_| ()));
            self.engine.rest();
            self.runtime.poll().expect("taken over");
            assert!(start.elapsed() < LONG, "the tasks never end");
        }
        slices
    }

    fn buffer(&self, kind: MemoryKind) -> Arc<Buffer> {
        Arc::new(self.device.allocate(BufferDesc::new("test", 256, kind)).expect("memory"))
    }
}

#[test]
fn tasks_run_in_the_engines_frames_and_nobody_else_submits() {
    let bench = bench(record_only());
    // A self-test submits too.
    let before = u64::from(bench.engine.lock.times.load(Relaxed));
    let tasks: Vec<_> = (0..500).map(|id| Task::new(NOTHING).id(id).item()).collect();
    let mut ended = Vec::new();
    for round in 0..3 {
        let mut handle = bench.runtime.submit(Task::new(NOTHING)).unwrap();
        assert_eq!(bench.runtime.submit_batch(&tasks).unwrap().count(), 500);
        assert!(bench.frames_until_done() > 0);
        assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Done);
        bench.runtime.completions(&mut ended, usize::MAX, LONG).unwrap();
        assert_eq!(ended.len(), 500 * (round + 1));
    }
    assert!(!bench.frame(MS, |_| ()), "there is nothing to do");
    bench.engine.rest();
    let submissions = u64::from(bench.engine.lock.times.load(Relaxed)) - before;
    let frames = bench.engine.next_frame() - 1;
    // A slice that was cut is looked after with a copy.
    assert_eq!(submissions, frames + bench.runtime.stats().recoveries, "every submission was a frame");
}

#[test]
fn a_slice_sees_what_stands_before_it_and_what_stands_behind_sees_the_slice() {
    let bench = bench(record_only());
    let raw = bench.device.raw();
    let buffers = [MemoryKind::Private, MemoryKind::Private, MemoryKind::Report].map(|kind| bench.buffer(kind));
    let [input, output, copy] = &buffers;
    let handles = [input, output].map(|buffer| bench.runtime.register_buffer(0, buffer, 0..256).unwrap());
    for round in 0..4u32 {
        let task = |id| Task::new(COPY).input(handles[0]).output(handles[1]).id(id).param(id).item();
        _ = bench.runtime.submit_batch(&(0..64).map(task).collect::<Vec<_>>()).unwrap();
        let commands = bench.engine.begin();
        // SAFETY: it is being recorded; the buffer has room and lives until the end of the frame.
        unsafe { raw.cmd_fill_buffer(commands, input.raw(), 0, vk::WHOLE_SIZE, 1000 * round) };
        assert!(bench.record(commands, 500 * MS).unwrap());
        let region = [vk::BufferCopy::default().size(256)];
        // SAFETY: as above.
        unsafe { raw.cmd_copy_buffer(commands, output.raw(), copy.raw(), &region) };
        let host = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        // SAFETY: as above.
        unsafe { raw.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &host, &[], &[]) };
        bench.engine.submit(commands);
        bench.engine.rest();
        bench.runtime.poll().unwrap();
        if bench.runtime.stats().recoveries == 0 {
            assert_eq!(words(copy), (0..64).map(|id| 1000 * round + id).collect::<Vec<u32>>());
        }
        // Where the driver cut the slice, its tasks are still to end.
        bench.frames_until_done();
    }
}

#[test]
fn two_frames_are_under_way_in_live_mode_and_one_in_boundary_mode() {
    let bench = bench(record_only());
    let live = bench.runtime.residency().is_live();
    for round in 0..5 {
        let tasks: Vec<_> = (0..300).map(|id| Task::new(NOTHING).id(id).item()).collect();
        _ = bench.runtime.submit_batch(&tasks).unwrap();
        let (commands, value) = ([(); 3].map(|()| bench.engine.begin()), bench.engine.next_frame());
        let record = |frame: usize, value| {
            // SAFETY: they are submitted below, in this order and with these values.
            unsafe { bench.runtime.record_slice(commands[frame], (&bench.frames, value), 5 * MS) }
        };
        assert_eq!(record(0, value), Ok(true), "round {round}");
        assert!(record(1, value).is_err(), "the value is the first frame's");
        assert_eq!(record(1, value + 1), Ok(live));
        assert_eq!(record(2, value + 2), Ok(false), "there is no third place");
        for commands in commands {
            bench.engine.submit(commands);
        }
        bench.engine.rest();
        bench.runtime.poll().unwrap();
        bench.frames_until_done();
    }
    let mut ended = Vec::new();
    while bench.runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap() > 0 {}
    assert_eq!(ended.len(), 1500);
}

#[test]
fn a_longer_budget_is_more_turns() {
    let bench = bench(record_only());
    _ = bench.runtime.submit_batch(&[Task::new(SPIN).item(); 4]).unwrap();
    let turns_of = |budget| {
        let before = bench.runtime.stats().turns;
        assert!(bench.frame(budget, |_| ()));
        bench.engine.rest();
        bench.runtime.poll().unwrap();
        bench.runtime.stats().turns - before
    };
    // Until it is known how fast the device counts.
    for _ in 0..12 {
        turns_of(2 * MS);
    }
    let sum = |budget| (0..4).map(|_| turns_of(budget)).sum::<u64>();
    let (short, long) = (sum(MS / 2), sum(40 * MS));
    // In boundary mode, and where slices are cut, turns are bounded by themselves.
    if bench.runtime.residency().is_live() {
        assert!(long > 4 * short, "{long} turns of long slices, {short} of short ones");
    }
    assert!(short > 0 && long > 0);
    bench.runtime.stop(LONG).unwrap();
}

#[test]
fn a_slice_that_is_never_submitted_is_taken_back_and_its_tasks_run_later() {
    let bench = bench(record_only());
    let ended = bench.runtime.submit(Task::new(NOTHING).id(3)).unwrap();
    let abandoned = bench.engine.begin();
    for _ in 0..3 {
        assert!(bench.record(abandoned, MS).unwrap());
        // SAFETY: the command buffer is never submitted.
        assert!(unsafe { bench.runtime.discard_slice() }.unwrap());
    }
    // SAFETY: as above; there is none.
    assert!(!unsafe { bench.runtime.discard_slice() }.unwrap());
    assert_eq!((bench.runtime.stats().slices, bench.runtime.last_launch()), (0, None));
    bench.frames_until_done();
    let decision = bench.runtime.last_launch().expect("a launch").decision;
    assert_eq!((decision.slice_time.value, decision.linger.value), (5 * MS, Duration::ZERO), "a frame's budget");
    assert_eq!(pollster::block_on(ended).unwrap().task_id, 3);
    // Once more, with memory that is not fresh.
    _ = bench.runtime.submit_batch(&[Task::new(NOTHING).item()]).unwrap();
    assert!(bench.record(abandoned, MS).unwrap());
    // SAFETY: as above.
    assert!(unsafe { bench.runtime.discard_slice() }.unwrap());
    bench.frames_until_done();
}

#[test]
fn a_future_is_woken_by_the_end_of_a_frame() {
    let bench = bench(record_only());
    std::thread::scope(|scope| {
        let task = bench.runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
        let waiter = scope.spawn(|| pollster::block_on(task).unwrap().outcome);
        let start = Instant::now();
        for frame in 0u64.. {
            bench.frame(MS, |_| ());
            bench.engine.rest();
            if frame == 3 {
                bench.runtime.signal(0, 1).unwrap();
            }
            if waiter.is_finished() {
                break;
            }
            assert!(start.elapsed() < LONG, "never woken");
            std::thread::sleep(MS);
        }
        assert_eq!(waiter.join().unwrap(), Outcome::Done);
    });
}

#[test]
fn what_cannot_be_recorded_is_refused_and_the_frame_goes_on_without() {
    let bench = bench(record_only());
    _ = bench.runtime.submit_batch(&[Task::new(NOTHING).item()]).unwrap();
    let commands = bench.engine.begin();
    let attempt = |timeline: &Arc<Timeline>, value, budget| {
        // SAFETY: nothing is recorded.
        let refused = unsafe { bench.runtime.record_slice(commands, (timeline, value), budget) };
        let Err(BackendError::BadOption { option, .. }) = refused else { panic!("{refused:?}") };
        option
    };
    assert_eq!(attempt(&bench.frames, 1, Duration::ZERO), "budget");
    assert_eq!(attempt(&bench.frames, 1, 2000 * MS), "budget");
    assert_eq!(attempt(bench.runtime.progress(), 9, MS), "semaphore");
    bench.engine.submit(commands);
    bench.engine.rest();
    bench.frames_until_done();
}

#[test]
fn a_value_that_is_taken_is_refused_with_the_one_to_exceed() {
    let bench = bench(record_only());
    _ = bench.runtime.submit_batch(&[Task::new(NOTHING).item(); 2]).unwrap();
    let commands = bench.engine.begin();
    let record = |value| {
        // SAFETY: nothing is recorded, but for what is discarded.
        unsafe { bench.runtime.record_slice(commands, (&bench.frames, value), MS) }
    };
    assert_eq!(record(0), Err(BackendError::ValueTaken { value: 0, taken: 0 }), "reached");
    assert_eq!(record(5), Ok(true));
    let refused = record(5).unwrap_err();
    assert_eq!(refused, BackendError::ValueTaken { value: 5, taken: 5 }, "promised");
    for word in ["record_slice", "value 5", "timeline semaphore", "give the value"] {
        assert!(refused.to_string().contains(word), "{refused}");
    }
    // SAFETY: the command buffer is never submitted.
    assert!(unsafe { bench.runtime.discard_slice() }.unwrap());
    bench.frames_until_done();
}

#[test]
fn a_wait_without_a_frame_says_which_one_it_lacks() {
    let bench = bench(record_only());
    let mut task = bench.runtime.submit(Task::new(NOTHING)).unwrap();
    let reached = |error: BackendError| match error {
        BackendError::Timeout { reached, .. } => reached,
        other => panic!("{other:?}"),
    };
    let none = reached(task.wait(5 * MS).unwrap_err());
    assert!(none.contains("no slice was recorded") && none.contains("call record_slice"), "{none}");
    let abandoned = bench.engine.begin();
    assert!(bench.record(abandoned, MS).unwrap());
    let unsubmitted = [
        reached(task.wait(5 * MS).unwrap_err()),
        reached(bench.runtime.drain(5 * MS).unwrap_err()),
        reached(bench.runtime.snapshot(5 * MS).unwrap_err()),
    ];
    for said in unsubmitted {
        assert!(said.contains("a recorded slice has not ended") && said.contains("discard_slice"), "{said}");
    }
    // SAFETY: the command buffer is never submitted.
    assert!(unsafe { bench.runtime.discard_slice() }.unwrap());
    bench.frames_until_done();
    assert_eq!(task.wait(LONG).unwrap().outcome, Outcome::Done);
    let mut paused = bench.runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
    std::thread::scope(|scope| {
        let said = scope.spawn(|| reached(paused.wait(200 * MS).unwrap_err()));
        while !said.is_finished() {
            _ = bench.runtime.submit_batch(&[Task::new(NOTHING).item()]).unwrap();
            bench.frame(MS, |_| ());
            bench.engine.rest();
        }
        let said = said.join().unwrap();
        assert!(!said.contains("no slice was recorded"), "there were some: {said}");
    });
    bench.runtime.stop(LONG).unwrap();
}

#[test]
fn recorded_slices_and_the_runtimes_own_take_turns() {
    let bench = bench(RuntimeOptions::default());
    let tasks: Vec<_> = (0..50).map(|id| Task::new(NOTHING).id(id).item()).collect();
    let mut ended = Vec::new();
    for _ in 0..20 {
        _ = bench.runtime.submit_batch(&tasks).unwrap();
        bench.frame(MS, |_| ());
    }
    bench.engine.rest();
    bench.runtime.drain(LONG).unwrap();
    while bench.runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap() > 0 {}
    assert_eq!(ended.len(), 1000);
}
