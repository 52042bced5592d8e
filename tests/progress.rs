//! What other queues hear of tasks: the timeline that counts slices, and values for chosen tasks.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;
#[path = "common/engine.rs"]
mod engine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Checked, LONG, device, lane_program, words};
use engine::{Engine, Queue, queues};
use taskring::*;

const OPS: [(&str, &str); 2] = [
    // Takes many turns, and writes in its last.
    (
        "write",
        "Turn write(TaskWorkItem task) {
            if (task.continuation_pc < 20u) return task_yield(task.continuation_pc + 1u, 0u);
            buffer_store(task_output(task), task.param, 0xace0000u + task.param);
            return task_complete();
        }",
    ),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
];
const WRITE: u32 = 0;
const SPIN: u32 = 1;
const TASKS: u32 = 64;

struct Bench {
    // Dropped in this order.
    runtime: Runtime,
    written: Arc<Buffer>,
    output: BufferHandle,
    copy: Buffer,
    device: Checked,
}

fn bench(options: RuntimeOptions) -> Bench {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), options);
    let bytes = u64::from(TASKS) * 4;
    let buffer = |name, kind| {
        let usage = vk::BufferUsageFlags::empty();
        device.device.allocate(BufferDesc { name, bytes, kind, usage, shared: true }).unwrap()
    };
    let written = Arc::new(buffer("written by tasks", MemoryKind::Private));
    let copy = buffer("copied by the engine", MemoryKind::Report);
    let output = runtime.register_buffer(0, &written, 0..bytes).unwrap();
    Bench { runtime, written, output, copy, device }
}

impl Bench {
    fn writer(&self, n: u32) -> TaskWorkItem {
        Task::new(WRITE).output(self.output).param(n).item()
    }

    fn timeline(&self) -> Arc<Timeline> {
        Arc::new(Timeline::new(&self.device.device, "engine", 0).unwrap())
    }

    /// Copies on an engine's queue what tasks wrote, once the timeline has reached the value; gives what was copied.
    fn copied_after(&self, engine: &Engine, timeline: &Timeline, value: u64) -> Vec<u32> {
        let copied = self.timeline();
        engine.submit(Some((timeline, value)), Some((&copied, 1)), |commands| {
            let region = [vk::BufferCopy::default().size(self.written.bytes())];
            // SAFETY: the command buffer records, and the buffers live until the wait below.
            unsafe { self.device.device.raw().cmd_copy_buffer(commands, self.written.raw(), self.copy.raw(), &region) };
            let host = [vk::MemoryBarrier::default()
                .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
                .dst_access_mask(vk::AccessFlags::HOST_READ)];
            let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
            let flags = vk::DependencyFlags::empty();
            // SAFETY: as above.
            unsafe { self.device.device.raw().cmd_pipeline_barrier(commands, from, to, flags, &host, &[], &[]) };
        });
        let queue = engine.queue();
        let start = Instant::now();
        while !copied.wait(1, Duration::from_millis(20)).unwrap() {
            assert!(start.elapsed() < LONG, "the engine's submission still waits on {queue:?}");
            // Where there is one queue, the copy may stand behind a slice that does not end by itself.
            self.runtime.end_slice().unwrap();
        }
        words(&self.copy)
    }
}

fn expected() -> Vec<u32> {
    (0..TASKS).map(|n| 0xace_0000 + n).collect()
}

#[test]
fn an_engines_submission_that_waits_for_our_progress_sees_what_tasks_wrote() {
    for queue in queues(&device().device) {
        let bench = bench(RuntimeOptions::default());
        let engine = Engine::new(&bench.device.device, queue);
        let tasks: Vec<_> = (0..TASKS).map(|n| bench.writer(n)).collect();
        _ = bench.runtime.submit_batch(&tasks).unwrap();
        bench.runtime.drain(LONG).unwrap();
        let value = bench.runtime.progress_value();
        assert!(value > 0);
        assert_eq!(bench.copied_after(&engine, bench.runtime.progress(), value), expected());
    }
}

/// Slices that do not end by themselves as long as a test lasts, where one can be told to.
fn endless(live: bool) -> RuntimeOptions {
    let turn_budget = live.then_some(1 << 30);
    let slice_time = if live { Duration::MAX } else { Duration::from_millis(10) };
    RuntimeOptions { slice_time: Some(slice_time), turn_budget, ..RuntimeOptions::default() }
}

#[test]
fn a_value_for_a_group_comes_after_its_last_task_and_shows_what_all_of_them_wrote() {
    let live = bench(RuntimeOptions::default()).runtime.residency().is_live();
    let queues = queues(&device().device).into_iter().cycle();
    for (urgency, queue) in [Urgency::AtSliceEnd, Urgency::Now].into_iter().zip(queues) {
        let options = if urgency == Urgency::Now { endless(live) } else { RuntimeOptions::default() };
        let bench = bench(options);
        let engine = Engine::new(&bench.device.device, queue);
        let done = bench.timeline();
        // Others keep the slices busy for ever, and the first slices are short.
        _ = bench.runtime.submit_batch(&[Task::new(SPIN).item(); 3]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let tasks: Vec<_> = (0..TASKS).map(|n| bench.writer(n)).collect();
        let ids: Vec<_> = bench.runtime.submit_batch(&tasks).unwrap().ids().collect();
        bench.runtime.announce(ids, &done, 7, urgency).unwrap();
        // With no further call. A queue that waited now would hold up the slices themselves where there is only one.
        assert!(done.wait(7, LONG).unwrap(), "the value never came");
        assert_eq!(bench.copied_after(&engine, &done, 7), expected());
        assert!(bench.runtime.stats().recoveries > 0 || bench.runtime.unfinished().len() == 3);
    }
}

#[test]
fn values_of_one_timeline_come_in_order_whatever_ends_first() {
    let bench = bench(RuntimeOptions::default());
    let (gate, done) = (bench.runtime.create_timeline().unwrap(), bench.timeline());
    let tasks = [Task::new(WRITE).output(bench.output).paused_until(gate, 1).item(), bench.writer(1)];
    let ids: Vec<_> = bench.runtime.submit_batch(&tasks).unwrap().ids().collect();
    bench.runtime.announce([ids[0]], &done, 1, Urgency::AtSliceEnd).unwrap();
    bench.runtime.announce([ids[1]], &done, 2, Urgency::AtSliceEnd).unwrap();
    for value in [0, 1, 2] {
        let again = bench.runtime.announce([], &done, value, Urgency::AtSliceEnd);
        assert!(matches!(again, Err(BackendError::BadOption { option: "announced value", .. })), "{again:?}");
    }
    assert_eq!(bench.runtime.completions(&mut Vec::new(), 1, LONG), Ok(1));
    bench.runtime.snapshot(LONG).unwrap();
    assert_eq!(done.value(), Ok(0), "2 would say that 1 is over");
    bench.runtime.signal(gate, 1).unwrap();
    assert!(done.wait(2, LONG).unwrap());
}

#[test]
fn nobody_but_submissions_counts_submissions() {
    let bench = bench(RuntimeOptions::default());
    let progress = bench.runtime.progress();
    let refused = |result: Result<(), BackendError>| assert!(matches!(result, Err(BackendError::BadOption { .. })));
    refused(progress.signal(1000));
    refused(bench.runtime.announce([], progress, 1000, Urgency::Now));
    refused(bench.runtime.register_timeline(progress, Signaller::Runtime).map(drop));
    assert_eq!(progress.value(), Ok(0));
}

#[test]
fn an_engine_that_waits_on_a_queue_of_its_own_may_wait_before_the_tasks_are_done() {
    let device = device();
    let Some(queue) = queues(&device.device).into_iter().find(|queue| *queue != Queue::Slices) else {
        // The only queue that there is.
        assert_eq!(device.device.other_queue_family(), None);
        return;
    };
    let bench = bench(RuntimeOptions::default());
    let engine = Engine::new(&bench.device.device, queue);
    let gate = bench.runtime.create_timeline().unwrap();
    let done = bench.timeline();
    let tasks: Vec<_> =
        (0..TASKS).map(|n| Task::new(WRITE).output(bench.output).param(n).paused_until(gate, 1).item()).collect();
    let ids: Vec<_> = bench.runtime.submit_batch(&tasks).unwrap().ids().collect();
    bench.runtime.announce(ids, &done, 1, Urgency::Now).unwrap();
    let runtime = bench.runtime.clone();
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        runtime.signal(gate, 1).unwrap();
    });
    assert_eq!(bench.copied_after(&engine, &done, 1), expected());
    opener.join().unwrap();
}

#[test]
fn a_group_whose_tasks_have_ended_is_announced_at_once_and_one_that_is_stopped_ends_there() {
    let bench = bench(RuntimeOptions::default());
    let done = bench.timeline();
    let ids: Vec<_> = bench.runtime.submit_batch(&[bench.writer(0)]).unwrap().ids().collect();
    bench.runtime.drain(LONG).unwrap();
    bench.runtime.announce(ids, &done, 1, Urgency::AtSliceEnd).unwrap();
    assert!(done.wait(1, LONG).unwrap());
    let ids: Vec<_> = bench.runtime.submit_batch(&[Task::new(SPIN).item(); 2]).unwrap().ids().collect();
    bench.runtime.announce(ids, &done, 2, Urgency::AtSliceEnd).unwrap();
    bench.runtime.stop(LONG).unwrap();
    assert!(done.wait(2, LONG).unwrap());
}

#[test]
fn a_task_is_in_one_group_and_exists() {
    let bench = bench(RuntimeOptions::default());
    let done = bench.timeline();
    let ids: Vec<_> = bench.runtime.submit_batch(&[Task::new(SPIN).item(); 2]).unwrap().ids().collect();
    bench.runtime.announce([ids[0]], &done, 1, Urgency::AtSliceEnd).unwrap();
    let twice = bench.runtime.announce(ids.clone(), &done, 2, Urgency::AtSliceEnd);
    assert_eq!(twice, Err(BackendError::AlreadyAnnounced { number: ids[0].number() }));
    let other = device();
    let stranger = other.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let ids: Vec<_> = stranger.submit_batch(&[Task::new(SPIN).item(); 9]).unwrap().ids().collect();
    let unknown = bench.runtime.announce([ids[8]], &done, 2, Urgency::AtSliceEnd);
    assert_eq!(unknown, Err(BackendError::UnknownSubmission { number: 8 }));
}

#[test]
fn slices_that_are_asked_to_end_do() {
    let live = bench(RuntimeOptions::default()).runtime.residency().is_live();
    let bench = bench(endless(live));
    _ = bench.runtime.submit_batch(&[Task::new(SPIN).item(); 3]).unwrap();
    // The first ones are short, until it is known how fast they are.
    for _ in 0..20 {
        bench.runtime.poll().unwrap();
        let value = bench.runtime.progress_value();
        bench.runtime.end_slice().unwrap();
        assert!(bench.runtime.progress().wait(value, LONG).unwrap());
    }
    // A driver that cuts slices ends those whose op may not be run again.
    assert!(bench.runtime.stats().recoveries > 0 || bench.runtime.unfinished().len() == 3, "their tasks go on");
}
