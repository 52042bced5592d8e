//! Epochs that command buffers and promises carry, and not the host.

use super::*;

#[test]
fn an_epoch_that_a_submission_writes_resumes_tasks() {
    let bench = bench(small());
    let live = bench.runtime.residency().is_live();
    for (n, queue) in (0..).zip(queues(&bench.device.device)) {
        let engine = Engine::new(&bench.device.device, queue);
        let ended = bench.semaphore(0);
        let mut submissions = 0;
        // The second begins below 2^32 and ends above.
        for start in [0, (1 << 32) - 3] {
            let semaphore = bench.semaphore(start);
            let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Recorded).unwrap();
            assert_eq!(bench.runtime.carrier(timeline) == Ok(Carrier::Recorded), live);
            for epoch in start + 1..start + 6 {
                bench.submit(&[bench.waiter(n, timeline, epoch as u32)]);
                submissions += 1;
                engine.submit(None, Some((&ended, submissions)), |commands| {
                    // SAFETY: the command buffer records, for a family of the device, and is waited for below.
                    unsafe { bench.runtime.record_signal(commands, timeline, epoch) }.unwrap();
                });
                assert!(ended.wait(submissions, LONG).unwrap());
                if live {
                    // The semaphore does not say so, and nobody launches a slice for it; the device's word does.
                    bench.submit(&[Task::new(COUNT).output(bench.output).param(999).item()]);
                    bench.ends(2);
                    semaphore.signal(epoch).unwrap();
                } else {
                    semaphore.signal(epoch).unwrap();
                    bench.ends(1);
                }
            }
            bench.runtime.close_timeline(timeline).unwrap();
        }
        assert_eq!(word(&bench.counts, n), 10);
    }
}

#[test]
fn a_promised_epoch_resumes_tasks() {
    let bench = bench(small());
    let semaphore = bench.semaphore(0);
    let timeline = bench.runtime.register_timeline(&semaphore, Signaller::Promised).unwrap();
    let test = bench.device.device.self_test().unwrap();
    let queue = bench.runtime.residency().is_live() && test.other_queue.measured() == Some(&true);
    assert_eq!(bench.runtime.carrier(timeline), Ok(if queue { Carrier::Queue } else { Carrier::Relay }));
    let engine = Engine::new(&bench.device.device, Queue::Slices);
    for epoch in 1..100u64 {
        bench.submit(&[bench.waiter(0, timeline, epoch as u32)]);
        engine.signal(&semaphore, epoch);
        // One in four nobody promises: it is seen all the same.
        if !epoch.is_multiple_of(4) {
            bench.runtime.promise(timeline, epoch).unwrap();
        }
        bench.ends(1);
    }
    assert!(semaphore.wait(99, LONG).unwrap());
}

#[test]
fn a_call_for_another_carrier_is_refused_by_name() {
    let bench = bench(small());
    let plain = bench.runtime.create_timeline().unwrap();
    let engine = Engine::new(&bench.device.device, Queue::Slices);
    let wrong = |result: Result<(), BackendError>, name| match result {
        Err(BackendError::WrongCarrier { timeline, call, .. }) => assert_eq!((timeline, call), (plain, name)),
        other => panic!("{other:?}"),
    };
    wrong(bench.runtime.promise(plain, 1), "promise");
    let done = bench.semaphore(0);
    engine.submit(None, Some((&done, 1)), |commands| {
        // SAFETY: the command buffer records, for a family of the device.
        wrong(unsafe { bench.runtime.record_signal(commands, plain, 1) }, "record_signal");
    });
    assert!(done.wait(1, LONG).unwrap());
}
