//! Waiters that hang nowhere, since the worker that was the last to have something to do keeps them.

use super::common::run_all;
use super::*;

/// Stays in its turn until the word of its input is its parameter, which is given up after very many looks.
const BUSY: &str = "Turn busy(TaskWorkItem task) {
    buffer_store(task_output(task), 0u, task.param);
    for (uint look = 0u; look < LOOKS; ++look) {
        if (buffer_atomic_load(task_input(task), 0u) == task.param) return task_complete();
    }
    return task_fault(0x10000u);
}";

#[test]
fn a_waiter_does_not_wait_for_what_its_worker_runs_next() {
    let device = device();
    // On a GPU some seconds, and so less than its watchdog has patience.
    let looks = if device.device.is_cpu() { "0x20000000u" } else { "0x400000u" };
    let program = lane_program(&[OPS[0], ("busy", &BUSY.replace("LOOKS", looks))]);
    // A slice in which a turn does not end, and in which the other workers do not leave.
    let linger = Some(Duration::from_secs(1));
    let options = RuntimeOptions { slice_time: Some(Duration::MAX), turn_budget: Some(1 << 30), linger, ..small() };
    let runtime = device.runtime(&program, options);
    if !runtime.residency().is_live() {
        return; // nobody keeps a waiter of whom nothing can be heard
    }
    if device.device.is_cpu() && std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
        eprintln!("not run: a driver with one thread runs no other worker beside the busy one");
        return;
    }
    let (counts, gate) = (device.report(64), device.mailbox(1));
    let output = runtime.register_buffer(0, &counts, 0..256).unwrap();
    let input = runtime.register_buffer(0, &gate, 0..4).unwrap();
    // The first slices are short, until it is known how fast they are.
    for _ in 0..6 {
        drop(run_all(&runtime, &[Task::new(COUNT).output(output).param(1).item(); 512]));
        runtime.snapshot(LONG).unwrap();
    }
    let (mut round, mut prompt_rounds) = (0, 0);
    while prompt_rounds < 20 {
        round += 1;
        assert!(round <= 60, "{prompt_rounds} of 60 rounds told something");
        let submitted = Instant::now();
        let waiter = Task::new(COUNT).output(output).param(1).paused_until(0, round);
        let busy = Task::new(1).input(input).output(output).param(round);
        let counted = word(&counts, 1);
        if round % 2 == 0 {
            assert_eq!(runtime.submit_batch(&[waiter.item()]).unwrap().count(), 1);
            std::thread::sleep(Duration::from_millis(5)); // for it to be kept
            assert_eq!(runtime.submit_batch(&[busy.item()]).unwrap().count(), 1);
        } else {
            assert_eq!(runtime.submit_batch(&[waiter.item(), busy.item()]).unwrap().count(), 2);
        }
        let until = |n: u32, value: u32, what: &str| {
            let start = Instant::now();
            while word(&counts, n) != value {
                assert!(start.elapsed() < LONG, "round {round}: {what}");
                std::thread::yield_now();
            }
        };
        until(0, round, "the busy task does not begin");
        // Whichever worker has the busy task now, the waiter is not its any more.
        runtime.signal(0, round.into()).unwrap();
        // If other processes keep the host waiting, the other workers may have left, or the busy task may have given up: such a round tells nothing.
        let prompt = submitted.elapsed() < Duration::from_millis(500);
        until(1, counted + 1, "the waiter waits for the busy task");
        gate.mapped().unwrap().store(0, round, std::sync::atomic::Ordering::Relaxed).unwrap();
        let mut ends = Vec::new();
        while ends.len() < 2 {
            assert!(runtime.completions(&mut ends, 2, LONG).unwrap() > 0);
        }
        assert!(
            !prompt || ends.iter().all(|end| end.outcome == Outcome::Done),
            "round {round}: the busy task was waited for"
        );
        prompt_rounds += u32::from(prompt);
    }
}

#[test]
fn a_waiter_that_nobody_hung_up_outlives_its_slice() {
    let bench = bench(small());
    for epoch in 1..=60u32 {
        bench.submit(&[bench.waiter(0, TimelineId::DEFAULT, epoch)]);
        match epoch % 4 {
            0 => assert_eq!(bench.runtime.drain(LONG), Err(BackendError::Stalled { paused: 1 })),
            1 => bench.runtime.end_slice().unwrap(),
            2 => drop(bench.runtime.snapshot(LONG).unwrap()),
            _ => {} // in the middle of one
        }
        bench.runtime.signal(0, epoch.into()).unwrap();
        bench.counted(0, epoch);
    }
}

#[test]
fn tasks_run_at_once_though_a_waiter_comes_with_them_and_it_runs_at_its_epoch() {
    let bench = bench(small());
    for epoch in 1..=200u32 {
        let counts = |n: u32| Task::new(COUNT).output(bench.output).param(n).id(n).item();
        // On an idle device, in either order, in one batch of lines or in two.
        let waiter = bench.waiter(0, TimelineId::DEFAULT, epoch);
        match epoch % 3 {
            0 => drop(bench.submit(&[waiter, counts(1)])),
            1 => drop(bench.submit(&[counts(1), waiter])),
            _ => [waiter, counts(1)].iter().for_each(|task| drop(bench.submit(&[*task]))),
        }
        bench.counted(1, epoch);
        assert_eq!(word(&bench.counts, 0), epoch - 1, "it does not wait");
        bench.runtime.signal(0, epoch.into()).unwrap();
        bench.counted(0, epoch);
    }
    assert!(bench.ends(400).iter().all(|end| end.outcome == Outcome::Done));
}

#[test]
fn who_was_cancelled_before_the_signal_does_not_run_though_its_worker_sees_the_epoch() {
    let bench = bench(small());
    for epoch in 1..=200u32 {
        let ids =
            bench.submit(&[bench.waiter(0, TimelineId::DEFAULT, epoch), bench.waiter(1, TimelineId::DEFAULT, epoch)]);
        bench.runtime.submit(Task::new(COUNT).output(bench.output).param(2)).unwrap().wait(LONG).unwrap(); // for them to be kept
        bench.runtime.cancel([ids[0]]).unwrap();
        bench.runtime.signal(0, epoch.into()).unwrap();
        for end in bench.ends(2) {
            let outcome = if end.task_id == 0 { Outcome::Faulted(TASK_FAULT_CANCELLED) } else { Outcome::Done };
            assert_eq!(end.outcome, outcome, "epoch {epoch}");
        }
        assert_eq!((word(&bench.counts, 0), word(&bench.counts, 1)), (0, epoch));
    }
}
