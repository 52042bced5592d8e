//! How waits end otherwise than by their epoch: closed timelines, cancelled tasks, a dropped runtime.

use super::*;

#[test]
fn a_closed_timeline_faults_whoever_waits_for_it_and_whoever_would() {
    let bench = bench(small());
    let (closed, lost, other) = (bench.semaphore(0), bench.semaphore(0), bench.runtime.create_timeline().unwrap());
    let closed = bench.runtime.register_timeline(&closed, Signaller::Anyone).unwrap();
    let lost = bench.runtime.register_timeline(&lost, Signaller::Anyone).unwrap();
    let mut tasks: Vec<_> = (0..300).map(|n| bench.waiter(n, [closed, lost, other][n as usize % 3], n + 1)).collect();
    bench.submit(&tasks);
    bench.runtime.snapshot(LONG).unwrap(); // whereby all of them hang in lists
    bench.runtime.close_timeline(closed).unwrap();
    bench.runtime.lose_timeline(lost).unwrap();
    for end in bench.ends(200) {
        let code = [TASK_FAULT_TIMELINE_CLOSED, TASK_FAULT_TIMELINE_LOST][end.task_id as usize % 3];
        assert_eq!(end.outcome, Outcome::Faulted(code));
    }
    let refused = bench.runtime.submit_batch(&tasks[..1]).unwrap_err();
    let problem = TaskProblem::ClosedTimeline { timeline: closed };
    assert_eq!(refused, BackendError::Refused { index: 0, problem });
    assert_eq!(bench.runtime.signal(closed, 1), Err(BackendError::ClosedTimeline { timeline: closed }));
    // Whom the host does not stop, the device does.
    tasks.truncate(1);
    tasks.push(Task::new(PAUSE_ON).param(closed.word()).item());
    assert_eq!(bench.runtime.submit_batch_unchecked(&tasks).unwrap().count(), 2);
    for end in bench.ends(2) {
        assert_eq!(end.outcome, Outcome::Faulted(TASK_FAULT_TIMELINE_CLOSED));
    }
    bench.runtime.signal(other, 300).unwrap();
    bench.ends(100);
}

#[test]
fn a_timeline_that_takes_over_an_index_begins_anew_and_is_not_mistaken_for_its_predecessor() {
    let bench = bench(small());
    let semaphore = bench.semaphore(0);
    let mut former = Vec::new();
    // More than there are indices, so that each is used again.
    for n in 0..300u32 {
        let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Runtime).unwrap();
        let epoch = u64::from(n) + 1;
        bench.submit(&[bench.waiter(n, timeline, epoch as u32)]);
        bench.runtime.signal(timeline, epoch).unwrap();
        bench.ends(1);
        assert_eq!(word(&bench.counts, n), 1);
        bench.runtime.close_timeline(timeline).unwrap();
        bench.runtime.snapshot(LONG).unwrap(); // whereby a slice ends that has looked after it
        former.push(timeline);
    }
    // A timeline that was closed while a slice ran is free again soon, with nothing else to do.
    let others: Vec<_> = (0..256).map_while(|_| bench.runtime.create_timeline().ok()).collect();
    bench.runtime.close_timeline(others[0]).unwrap();
    let free_again = || {
        let start = Instant::now();
        loop {
            if let Ok(timeline) = bench.runtime.create_timeline() {
                return timeline;
            }
            assert!(start.elapsed() < LONG, "the index is not free");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    free_again();
    others[1..].iter().for_each(|timeline| bench.runtime.close_timeline(*timeline).unwrap());
    bench.runtime.snapshot(LONG).unwrap();
    // Two workers may have looked after a part each, and none of them knows of all when its slice is called off.
    let heir = free_again();
    assert!(heir.generation() > 0 && former.iter().any(|timeline| timeline.index() == heir.index()));
    let stale = former.iter().find(|timeline| timeline.index() == heir.index()).unwrap();
    assert_ne!(*stale, heir);
    bench.submit(&[
        Task::new(PAUSE_ON).param(stale.word()).id(1).item(),
        Task::new(PAUSE_ON).param(heir.word()).id(2).item(),
    ]);
    // Looking after so many closed timelines in one turn is more than some drivers let a loop do, and then any turn may have been cut.
    let cut = || bench.runtime.stats().recoveries > 0;
    let mut ends = bench.ends(1);
    assert!(ends.len() == 1 || cut(), "the heir's epoch has not come");
    bench.runtime.signal(heir, 1).unwrap();
    ends.extend(bench.ends(2 - ends.len()));
    ends.sort_by_key(|end| end.task_id);
    let outcomes = [ends[0].outcome, ends[1].outcome];
    assert!(outcomes == [Outcome::Faulted(TASK_FAULT_TIMELINE_CLOSED), Outcome::Done] || cut(), "{outcomes:?}");
}

#[test]
fn cancelled_tasks_end_where_they_wait_and_others_do_not_notice() {
    let bench = bench(small());
    let timeline = bench.runtime.create_timeline().unwrap();
    let tasks: Vec<_> = (0..500).map(|n| bench.waiter(n, timeline, 1 + n % 7)).collect();
    let ids = bench.submit(&tasks);
    bench.runtime.snapshot(LONG).unwrap(); // whereby all of them hang in lists
    assert_eq!(bench.runtime.cancel(ids.iter().copied().step_by(5)), Ok(100));
    for end in bench.ends(100) {
        assert_eq!((end.outcome, end.task_id % 5), (Outcome::Faulted(TASK_FAULT_CANCELLED), 0));
    }
    assert_eq!(bench.runtime.cancel(ids.iter().copied().step_by(5)), Ok(0), "they have ended");
    // Their slots go to others, whom nobody has cancelled.
    let heirs: Vec<_> = (500..600).map(|n| bench.waiter(n, timeline, 1)).collect();
    bench.submit(&heirs);
    bench.runtime.signal(timeline, 7).unwrap();
    assert!(bench.ends(500).iter().all(|end| end.outcome == Outcome::Done));
    let mut handle = bench.runtime.submit(bench.waiter(0, timeline, 8)).unwrap();
    handle.cancel().unwrap();
    assert_eq!(handle.wait(LONG).unwrap().outcome, Outcome::Faulted(TASK_FAULT_CANCELLED));
    handle.cancel().unwrap();
    // Nobody who comes to the same slot is meant, not even with the same generation.
    for _ in 0..600 {
        let mut next = bench.runtime.submit(Task::new(COUNT).output(bench.output).param(1000)).unwrap();
        assert_eq!(next.wait(LONG).unwrap().outcome, Outcome::Done);
        handle.cancel().unwrap();
    }
}

#[test]
fn cancelling_nobody_launches_nothing() {
    let bench = bench(small());
    bench.submit(&[bench.waiter(0, TimelineId::DEFAULT, 1)]);
    // No slice runs then, however long the first one took.
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
    bench.parked();
    assert_eq!(bench.runtime.cancel([]), Ok(0));
    let slices = bench.runtime.stats().slices;
    bench.parked();
    assert_eq!(bench.runtime.stats().slices, slices);
    assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 }));
}

#[test]
fn a_wide_task_is_cancelled_whole() {
    let device = device();
    let steps = "Turn steps(TaskWorkItem task) {
        buffer_atomic_add(task_output(task), 0u, 1u);
        return task_yield(0u, 0u);
    }";
    let program = Program::builder().op("steps", steps, Width::Subgroup).build().unwrap();
    let runtime = device.runtime(&program, small());
    let counts = device.report(1);
    let output = runtime.register_buffer(0, &counts, 0..4).unwrap();
    for _ in 0..50 {
        let mut handle = runtime.submit(Task::new(0).output(output)).unwrap();
        runtime.poll().unwrap();
        handle.cancel().unwrap();
        let end = handle.wait(LONG).unwrap();
        assert!([TASK_FAULT_CANCELLED, TASK_FAULT_CUT].map(Outcome::Faulted).contains(&end.outcome), "{end:?}");
    }
    // Every lane of each turn, or none.
    runtime.snapshot(LONG).unwrap();
    assert!(word(&counts, 0).is_multiple_of(device.lanes()) || runtime.stats().recoveries > 0);
}

#[test]
fn a_cancel_that_races_with_the_signal_ends_each_task_once_either_way() {
    let bench = bench(small());
    for round in 1..200u32 {
        let tasks: Vec<_> = (0..50).map(|n| bench.waiter(n, TimelineId::DEFAULT, round)).collect();
        let ids = bench.submit(&tasks);
        let runtime = bench.runtime.clone();
        let signaller = std::thread::spawn(move || runtime.signal(0, round.into()).unwrap());
        bench.runtime.cancel(ids).unwrap();
        signaller.join().unwrap();
        bench.ends(50);
    }
    assert_eq!(bench.runtime.unfinished(), []);
}

#[test]
fn dropping_a_runtime_whose_tasks_wait_for_an_engine_is_bounded_and_lets_go_of_its_semaphores() {
    let device = device();
    let semaphore = Arc::new(Timeline::new(&device.device, "engine", 0).unwrap());
    for signaller in [Signaller::Anyone, Signaller::Recorded, Signaller::Promised, Signaller::Runtime] {
        let runtime = device.runtime(&lane_program(&OPS), small());
        let timeline = runtime.register_timeline(&semaphore, signaller).unwrap();
        let task = Task::new(FOLLOW).paused_until(timeline, 1).item();
        _ = runtime.submit_batch(&[task; 100]).unwrap();
        runtime.poll().unwrap();
        drop(runtime);
        assert_eq!(Arc::strong_count(&semaphore), 1);
    }
    semaphore.signal(1).unwrap();
}
