//! taskring on an engine's device: what it takes, what it leaves alone, and how it goes.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

#[path = "common/mod.rs"]
mod common;
#[path = "common/plain.rs"]
mod plain;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use common::{LONG, lane_program, run_all, words};
use plain::{Enables, Plain};
use taskring::device::{Miss, QueueSlot};
use taskring::{
    BackendError, BufferDesc, Device, EngineDevice, EngineQueue, MemoryKind, Mode, Program, QueueLock, Runtime,
    RuntimeOptions, Task, Timeline, vk,
};

const MARK: &str = "Turn mark(TaskWorkItem task) {
    if (task.continuation_pc == 0u) return task_yield(1u, 0u);
    buffer_store(task_output(task), task.task_id, task.param);
    return task_complete();
}";

fn program() -> Program {
    lane_program(&[("mark", MARK)])
}

fn borrow(engine: EngineDevice<'_>) -> Result<Device, BackendError> {
    // SAFETY: the engine lends its live handles, says what is enabled, and is dropped after all that borrows.
    unsafe { Device::borrow(engine) }
}

/// In the mode that the environment names, else live.
fn runtime(device: &Device, program: &Program) -> Runtime {
    let mode = if std::env::var("TASKRING_MODE").is_ok() { Mode::Auto } else { Mode::Live };
    // On a busy machine a slice may not end for a long time, and what is dropped meanwhile is leaked.
    let options = RuntimeOptions { mode, slice_timeout: LONG, ..RuntimeOptions::default() };
    Runtime::new(device, program, options).expect("a runtime")
}

/// Runs tasks that write their numbers, and looks at what they wrote.
fn runs(device: &Device) {
    let program = program();
    let runtime = runtime(device, &program);
    let (bytes, usage) = (256 * 4, vk::BufferUsageFlags::empty());
    let desc = BufferDesc { name: "marks", bytes, kind: MemoryKind::Report, usage, shared: false };
    let buffer = Arc::new(device.allocate(desc).expect("memory"));
    let marks = runtime.register_buffer(0, &buffer, 0..bytes).expect("registered");
    let tasks: Vec<_> = (0..256).map(|id| Task::new(0).output(marks).id(id).param(id + 1).item()).collect();
    assert_eq!(run_all(&runtime, &tasks).len(), 256);
    drop(runtime);
    assert_eq!(words(&buffer), (1..=256).collect::<Vec<u32>>());
}

#[test]
fn an_engine_lends_its_queue_and_allocator_and_goes_on_with_them_during_and_after() {
    let engine = Plain::new(Enables::All);
    let target = engine.buffer();
    let device = borrow(engine.lends()).expect("borrowed");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The engine's frames go on meanwhile, on the same queue.
        let frames = scope.spawn(|| {
            let mut frame = 0;
            while !done.load(Relaxed) || frame < 3 {
                frame += 1;
                engine.draws(&target, frame);
            }
            frame
        });
        runs(&device);
        done.store(true, Relaxed);
        let frames = frames.join().expect("the engine draws on");
        assert!(engine.lock.times.load(Relaxed) > frames, "taskring's submissions took the lock too");
    });
    let before = engine.lock.times.load(Relaxed);
    device.release().expect("nothing of taskring's is left");
    assert_eq!(engine.lock.times.load(Relaxed), before, "going submits nothing");
    engine.draws(&target, 77);
    engine.free(target);
}

#[test]
fn an_engine_gives_a_queue_away_and_taskring_brings_its_own_memory() {
    let engine = Plain::new(Enables::All);
    let mut lent = engine.lends_on(EngineQueue::given(engine.queue, engine.slot()));
    lent.allocator = None;
    let device = borrow(lent).expect("borrowed");
    runs(&device);
    device.release().expect("nothing of taskring's is left");
    assert_eq!(engine.lock.times.load(Relaxed), 0);
}

#[test]
fn an_engines_pipeline_cache_is_used_and_stays_the_engines() {
    let engine = Plain::new(Enables::All);
    // SAFETY: the device is alive; the same below.
    let cache = unsafe { engine.device.create_pipeline_cache(&vk::PipelineCacheCreateInfo::default(), None) }.unwrap();
    // SAFETY: as above.
    let bytes = || unsafe { engine.device.get_pipeline_cache_data(cache) }.unwrap();
    let mut lent = engine.lends();
    lent.pipeline_cache = Some(cache);
    let device = borrow(lent).expect("borrowed");
    runs(&device);
    assert_eq!(device.save_pipelines().unwrap(), bytes());
    // SAFETY: nothing is loaded.
    assert!(matches!(unsafe { device.load_pipelines(&[]) }, Err(BackendError::BadOption { .. })));
    device.release().expect("nothing of taskring's is left");
    assert!(!bytes().is_empty(), "it is alive");
    // SAFETY: nobody uses it any more.
    unsafe { engine.device.destroy_pipeline_cache(cache, None) };
}

#[test]
fn what_is_required_is_enough_and_what_is_not_enabled_is_not_used() {
    let engine = Plain::new(Enables::Required);
    let device = borrow(engine.lends()).expect("borrowed");
    let plan = device.plan();
    assert_eq!((plan.shader_clock, plan.required_subgroup_size, plan.external_timelines), (false, None, false));
    runs(&device);
    // All probes too.
    device.self_test().expect("a self-test");
    device.release().expect("nothing of taskring's is left");
}

#[test]
fn an_engine_that_enabled_too_little_is_told_everything_at_once_and_keeps_its_device() {
    let engine = Plain::new(Enables::Little);
    let mut lent = engine.lends();
    lent.other = Some(EngineQueue::given(engine.queue, QueueSlot { family: engine.family, index: 1 }));
    let Err(BackendError::Unfit { missing, .. }) = borrow(lent) else { panic!("it is unfit") };
    let names: Vec<_> = missing
        .iter()
        .map(|miss| match miss {
            Miss::Feature { field, offered: true, enabled: false, .. } => *field,
            Miss::Queue { problem, .. } => *problem,
            other => panic!("{other}"),
        })
        .collect();
    let expected = ["vulkanMemoryModel", "vulkanMemoryModelDeviceScope", "bufferDeviceAddress"];
    assert_eq!(names, [&expected[..], &["is not one that the device was created with"]].concat());
    let target = engine.buffer();
    engine.draws(&target, 5);
    engine.free(target);
}

#[test]
fn a_device_is_released_when_nothing_holds_it_and_not_before() {
    let engine = Plain::new(Enables::All);
    let device = borrow(engine.lends()).expect("borrowed");
    let runtime = runtime(&device, &program());
    let task = runtime.submit(Task::new(0)).expect("submitted");
    // SAFETY: the engine's timeline lives longer.
    let timeline = unsafe { Timeline::borrow(&device, engine.frames) };
    let device = device.release().expect_err("a runtime and a task's handle hold it");
    drop(runtime);
    let device = device.release().expect_err("the task's handle does");
    drop(task);
    let device = device.release().expect_err("the timeline does");
    drop(timeline);
    device.release().expect("nothing does");
}

#[test]
fn what_is_left_behind_is_known_to_release_and_heard_by_the_engine() {
    let mut engine = Plain::new(Enables::All);
    let device = borrow(engine.lends()).expect("borrowed");
    std::mem::forget(Timeline::new(&device, "left behind", 0).expect("a timeline"));
    device.release().map(|()| "released").expect_err("the timeline was never dropped");
    engine.expects_messages = true;
    let messages = engine.messages.clone();
    drop(engine);
    let messages = messages.lock().unwrap();
    assert!(messages.iter().any(|message| message.contains("left behind")), "{messages:?}");
}

struct Deaf;

impl QueueLock for Deaf {
    fn hold(&self, _: &mut dyn FnMut()) {}
}

struct Eager(Arc<plain::Lock>);

impl QueueLock for Eager {
    fn hold(&self, submit: &mut dyn FnMut()) {
        self.0.hold(submit);
        submit();
    }
}

#[test]
fn a_lock_that_lets_nothing_through_is_an_error_and_one_that_calls_twice_submits_once() {
    let engine = Plain::new(Enables::All);
    let deaf = borrow(engine.lends_on(EngineQueue::shared(engine.queue, engine.slot(), Deaf))).expect("borrowed");
    // SAFETY: an empty submission.
    let refused = unsafe { deaf.submit(&[], None, None) };
    assert!(matches!(refused, Err(BackendError::Protocol { .. })), "{refused:?}");
    deaf.release().expect("nothing holds it");

    let eager = EngineQueue::shared(engine.queue, engine.slot(), Eager(engine.lock.clone()));
    let device = borrow(engine.lends_on(eager)).expect("borrowed");
    let timeline = Timeline::new(&device, "once", 0).expect("a timeline");
    // SAFETY: an empty submission; a second signal of the same value would be heard by the validation layer.
    unsafe { device.submit(&[], None, Some((timeline.raw(), 1))) }.expect("submitted");
    assert!(timeline.wait(1, LONG).expect("waited"));
    drop(timeline);
    device.release().expect("nothing holds it");
}
