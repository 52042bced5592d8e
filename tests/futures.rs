//! Waiting without a thread: futures of tasks, and the stream of completions.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use common::{LONG, device, lane_program};
use futures_core::Stream;
use pollster::block_on;
use taskring::*;

const OPS: [(&str, &str); 3] = [
    ("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }"),
    ("spin", "Turn spin(TaskWorkItem task) { return task_yield(0u, 0u); }"),
    ("fail", "Turn fail(TaskWorkItem task) { return task_fault(task.param); }"),
];
const NOTHING: u32 = 0;
const SPIN: u32 = 1;
const FAIL: u32 = 2;

/// Wakes a thread, and counts.
struct Counting {
    thread: Thread,
    times: AtomicU32,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Relaxed);
        self.thread.unpark();
    }
}

fn counting() -> (Arc<Counting>, Waker) {
    let counting = Arc::new(Counting { thread: std::thread::current(), times: AtomicU32::new(0) });
    (counting.clone(), Waker::from(counting))
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

async fn next(stream: &mut Completions) -> Option<Result<Completion, BackendError>> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

#[test]
fn a_task_is_awaited_and_its_completion_comes_once() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let mut good = runtime.submit(Task::new(NOTHING).id(7)).unwrap();
    let completion = block_on(&mut good).unwrap();
    assert_eq!((completion.task_id, completion.outcome, completion.id), (7, Outcome::Done, good.id()));
    assert!(matches!(block_on(&mut good), Err(BackendError::AlreadyTaken { .. })), "it was taken");
    let bad = block_on(runtime.submit(Task::new(FAIL).param(12)).unwrap()).unwrap();
    assert_eq!(bad.outcome, Outcome::Faulted(12), "a fault is an end too");
}

#[test]
fn one_thread_awaits_a_thousand_tasks_and_sleeps_until_it_is_woken() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let (counting, waker) = counting();
    let mut left: Vec<_> = (0..1000).map(|id| runtime.submit(Task::new(NOTHING).id(id)).unwrap()).collect();
    let (start, mut ended) = (Instant::now(), HashSet::new());
    while !left.is_empty() {
        left.retain_mut(|task| match poll(task, &waker) {
            Poll::Pending => true,
            Poll::Ready(completion) => !ended.insert(completion.unwrap().task_id),
        });
        if !left.is_empty() {
            std::thread::park_timeout(LONG);
        }
        assert!(start.elapsed() < LONG, "{} were never woken", left.len());
    }
    assert_eq!(ended.len(), 1000);
    assert!(counting.times.load(Relaxed) <= 1000, "no task wakes more than once");
}

#[test]
fn a_task_is_heard_while_others_keep_the_device_busy_for_ever() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let busy: Vec<_> = (0..8).map(|_| Task::new(SPIN).priority(TaskPriority::Low).item()).collect();
    _ = runtime.submit_batch(&busy).unwrap();
    for id in 0..20 {
        let task = runtime.submit(Task::new(NOTHING).id(id)).unwrap();
        assert_eq!(block_on(task).unwrap().task_id, id);
    }
    let report = runtime.stop(LONG).unwrap();
    assert_eq!(report.unfinished.len(), busy.len());
}

#[test]
fn a_paused_task_wakes_its_future_when_its_epoch_comes_and_not_before() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let (counting, waker) = counting();
    let mut task = runtime.submit(Task::new(NOTHING).paused_until(0, 5)).unwrap();
    assert!(poll(&mut task, &waker).is_pending());
    runtime.signal(0, 4).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((poll(&mut task, &waker).is_pending(), counting.times.load(Relaxed)), (true, 0));
    runtime.signal(0, 5).unwrap();
    assert_eq!(block_on(task).unwrap().outcome, Outcome::Done);
}

#[test]
fn the_waker_that_was_given_last_is_woken() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let ((former, first), (latter, second)) = (counting(), counting());
    let mut task = runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
    assert!(poll(&mut task, &first).is_pending() && poll(&mut task, &second).is_pending());
    runtime.signal(0, 1).unwrap();
    let start = Instant::now();
    while latter.times.load(Relaxed) == 0 && start.elapsed() < LONG {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!((former.times.load(Relaxed), latter.times.load(Relaxed)), (0, 1));
    assert!(matches!(poll(&mut task, &second), Poll::Ready(Ok(_))));
}

#[test]
fn a_stopped_runtime_ends_futures_as_cancelled_and_streams() {
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions::default());
    let never = runtime.submit(Task::new(NOTHING).paused_until(0, 1)).unwrap();
    _ = runtime.submit_batch(&[Task::new(NOTHING).paused_until(0, 1).item()]).unwrap();
    let waiting = Barrier::new(3);
    std::thread::scope(|scope| {
        let future = scope.spawn(|| {
            let mut never = pin!(never);
            let (_, waker) = counting();
            assert!(never.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            waiting.wait();
            block_on(never).unwrap().outcome
        });
        let stream = scope.spawn(|| {
            let mut stream = runtime.completion_stream();
            waiting.wait();
            block_on(async {
                let mut outcomes = Vec::new();
                while let Some(completion) = next(&mut stream).await {
                    outcomes.push(completion.unwrap().outcome);
                }
                outcomes
            })
        });
        waiting.wait();
        std::thread::sleep(Duration::from_millis(20));
        runtime.stop(LONG).unwrap();
        let cancelled = Outcome::Faulted(TASK_FAULT_CANCELLED);
        assert_eq!(future.join().unwrap(), cancelled);
        assert_eq!(stream.join().unwrap(), [cancelled]);
    });
    let mut late = runtime.completion_stream();
    assert!(block_on(next(&mut late)).is_none());
}

#[test]
fn two_streams_share_the_completions_and_each_goes_to_one() {
    const TASKS: u32 = 4000;
    let device = device();
    let runtime = device.runtime(&lane_program(&OPS), RuntimeOptions { capacity: 256, ..RuntimeOptions::default() });
    let ids = std::thread::scope(|scope| {
        let listen = || {
            let mut stream = runtime.completion_stream();
            block_on(async {
                let mut ids = Vec::new();
                while let Some(completion) = next(&mut stream).await {
                    ids.push(completion.unwrap().task_id);
                }
                ids
            })
        };
        let streams = [scope.spawn(listen), scope.spawn(listen)];
        let tasks: Vec<_> = (0..TASKS).map(|id| Task::new(NOTHING).id(id).item()).collect();
        let (mut rest, start) = (&tasks[..], Instant::now());
        while !rest.is_empty() {
            rest = &rest[runtime.submit_batch(rest).unwrap().count()..];
            std::thread::yield_now();
            assert!(start.elapsed() < LONG, "the streams make no room");
        }
        runtime.drain(LONG).unwrap();
        runtime.stop(LONG).unwrap();
        streams.map(|stream| stream.join().unwrap()).concat()
    });
    let different: HashSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (TASKS as usize, TASKS as usize));
}

#[test]
fn without_a_thread_of_its_own_whoever_drives_wakes() {
    let device = device();
    let options = RuntimeOptions { launch_on_submit: false, ..RuntimeOptions::default() };
    let runtime = device.runtime(&lane_program(&OPS), options);
    let (counting, waker) = counting();
    let mut task = runtime.submit(Task::new(NOTHING)).unwrap();
    let mut many = Vec::new();
    _ = runtime.submit_batch(&[Task::new(NOTHING).item()]).unwrap();
    assert!(poll(&mut task, &waker).is_pending());
    assert!(runtime.poll_completions(&mut Context::from_waker(&waker), &mut many, 8).is_pending());
    assert!(runtime.run_slice(LONG).unwrap());
    assert_eq!(counting.times.load(Relaxed), 2);
    assert!(matches!(poll(&mut task, &waker), Poll::Ready(Ok(_))));
    assert_eq!(runtime.poll_completions(&mut Context::from_waker(&waker), &mut many, 8), Poll::Ready(Ok(1)));
    assert_eq!(many.len(), 1);
}
