//! Pauses, epochs and wakings, case by case.

use super::*;

fn waiter(task_id: u32, timeline: u8, epoch: u32) -> TaskWorkItem {
    task(task_id, TaskPriority::Normal).with_timeline(timeline.into()).try_paused(0, 0, epoch).unwrap()
}

/// A scheduler whose timeline 0 is at `epoch`, with waiters 0, 1, ... for these `resume_epoch`s.
fn waiting_at(epoch: u64, resume_epochs: &[u32]) -> Scheduler {
    let mut scheduler = Scheduler::new(options(5, 4));
    scheduler.signal(0, epoch);
    scheduler.complete_all();
    for (slot, epoch) in (0..).zip(resume_epochs) {
        scheduler.publish(slot, waiter(slot, 0, *epoch));
    }
    scheduler
}

#[test]
fn a_paused_task_waits_and_goes_on_with_its_flags_set_when_its_epoch_is_reached() {
    let mut scheduler = Scheduler::new(options(3, 4));
    scheduler.publish(6, task(1, TaskPriority::Low).with_timeline(2.into()));
    let mut seen = Vec::new();
    let mut op = |task: &TaskWorkItem| {
        seen.push((task.continuation_pc, task.continuation_data, task.flags));
        match task.continuation_pc {
            0 => TaskTurn::Yield { pc: 1, data: 10 },
            1 => TaskTurn::Pause { timeline: None, pc: 2, data: 20, epoch: 5 },
            2 => TaskTurn::Pause { timeline: Some(1), pc: 3, data: 30, epoch: 6 },
            _ => TaskTurn::Complete,
        }
    };
    scheduler.settle(&mut op);
    scheduler.signal(2, 4);
    scheduler.signal(1, 9);
    scheduler.settle(&mut op);
    assert_eq!((scheduler.waiting(), scheduler.ready(), scheduler.resumes), (1, 0, 0));
    scheduler.signal(2, 5);
    scheduler.settle(&mut op);
    let on = |timeline: u32| timeline << TASK_FLAG_TIMELINE_SHIFT;
    let resumed = TASK_FLAG_RESUME_READY;
    let expected =
        [(0, 0, on(2)), (1, 10, on(2) | TASK_FLAG_YIELDED), (2, 20, on(2) | resumed), (3, 30, on(1) | resumed)];
    assert_eq!(seen, expected);
    // The second pause's epoch was reached already; it counts, but never hangs in a list.
    assert_eq!((scheduler.waiting(), scheduler.pauses, scheduler.resumes), (0, 2, 2));
    assert_eq!(scheduler.completions().len(), 1);
}

#[test]
fn a_task_that_is_published_paused_waits_or_resumes_at_once() {
    let mut scheduler = waiting_at(10, &[11, 10, 9, 12]);
    assert_eq!(scheduler.complete_all(), [1, 2]);
    assert_eq!(scheduler.waiting(), 2);
    scheduler.signal(0, 11);
    assert_eq!(scheduler.complete_all(), [0]);
}

#[test]
fn a_task_does_not_age_while_it_waits_for_an_epoch() {
    let mut scheduler = waiting_at(0, &[1]);
    assert_eq!(scheduler.complete_all(), []);
    scheduler.publish(1, task(1, TaskPriority::Normal));
    let mut yields = 40;
    scheduler.settle(&mut |_| {
        yields -= 1;
        if yields > 0 { TaskTurn::Yield { pc: 0, data: 0 } } else { TaskTurn::Complete }
    });
    scheduler.signal(0, 1);
    assert_eq!((scheduler.tick(), scheduler.complete_all()), (39, vec![1, 0]), "task 1 ended first");
    assert_eq!(scheduler.slots[0].age_ticks, 0);
}

#[test]
fn waiters_of_one_list_wake_in_the_opposite_order_of_their_hanging() {
    let mut scheduler = Scheduler::new(ModelOptions { batch: 1, ..options(10, 4) });
    for slot in [0, 256, 512, 768] {
        scheduler.publish(slot, waiter(slot, 0, 3));
    }
    assert_eq!(scheduler.complete_all(), []);
    scheduler.signal(0, 3);
    assert_eq!(scheduler.complete_all(), [768, 512, 256, 0]);
}

#[test]
fn lists_of_more_than_one_group_are_gone_along_one_after_another() {
    let mut scheduler = Scheduler::new(ModelOptions { batch: 1, ..options(10, 4) });
    // Lists 0, 1 and 5 of one bucket: lanes 0 and 1 of the first group, lane 1 of the second.
    for slot in [5, 0, 257, 256, 1, 513] {
        scheduler.publish(slot, waiter(slot, 0, 1));
    }
    scheduler.complete_all();
    scheduler.signal(0, 1);
    assert_eq!(scheduler.complete_all(), [256, 0, 513, 1, 257, 5]);
}

#[test]
fn waiters_that_are_all_there_is_to_run_are_run_in_the_turn_that_wakes_them() {
    let mut scheduler = waiting_at(0, &[1, 1, 2]);
    scheduler.complete_all();
    scheduler.signal(0, 1);
    let done = scheduler.turn(&mut |_| TaskTurn::Complete, &|_, _| true);
    assert!(done);
    assert_eq!(scheduler.completions().iter().map(|end| end.item.task_id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((scheduler.tick(), scheduler.waiting()), (0, 1), "they were in no ring");
}

#[test]
fn earlier_epochs_of_one_signal_wake_first() {
    let mut scheduler = waiting_at(0, &[9, 3, 7, 1, 100]);
    scheduler.complete_all();
    scheduler.signal(0, 9);
    assert_eq!(scheduler.complete_all(), [3, 1, 2, 0]);
}

#[test]
fn a_signal_wakes_what_is_due_in_its_bucket_and_leaves_the_epochs_a_lap_later() {
    let mut scheduler = waiting_at(0, &[5, 5 + 256, 5 + 512]);
    assert_eq!(scheduler.complete_all(), []);
    for (epoch, due) in [(4, vec![]), (5, vec![0]), (260, vec![]), (261, vec![1]), (516, vec![]), (517, vec![2])] {
        scheduler.signal(0, epoch);
        assert_eq!(scheduler.complete_all(), due, "epoch {epoch}");
    }
}

#[test]
fn a_jump_over_the_whole_wheel_wakes_everyone_due_and_nobody_else() {
    for jump in [255, 256, 257, 1000, 1 << 20] {
        let epochs: Vec<u32> = (1..=16).map(|n| n * 100).collect();
        let mut scheduler = waiting_at(0, &epochs);
        assert_eq!(scheduler.complete_all(), []);
        scheduler.signal(0, jump);
        let mut woken = scheduler.complete_all();
        woken.sort_unstable();
        let due: Vec<u32> = (0..16).filter(|n| u64::from(epochs[*n as usize]) <= jump).collect();
        assert_eq!(woken, due, "jump of {jump}");
    }
}

#[test]
fn a_jump_by_more_than_32_bits_count_wakes_everyone_of_its_timeline_and_nobody_else() {
    for jump in [1 << 32, (1 << 32) + 1, 3 << 32, (5 << 32) - 1, u64::MAX] {
        let mut scheduler = Scheduler::new(options(4, 4));
        let epochs = [1, 2, 300, 1 << 20, i32::MAX as u32];
        for (slot, epoch) in (0..).zip(epochs) {
            scheduler.publish(slot, waiter(slot, 0, epoch));
            scheduler.publish(8 + slot, waiter(8 + slot, 1, epoch));
        }
        assert_eq!(scheduler.complete_all(), []);
        scheduler.signal(0, jump);
        let mut woken = scheduler.complete_all();
        woken.sort_unstable();
        assert_eq!(woken, [0, 1, 2, 3, 4], "jump of {jump:#x}");
        assert_eq!(scheduler.waiting(), 5);
    }
}

#[test]
fn an_epoch_past_the_wrap_of_the_low_words_is_waited_for() {
    let wrap: u64 = 7 << 32;
    let mut scheduler = waiting_at(wrap - 2, &[u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1, 300]);
    assert_eq!(scheduler.complete_all(), [0, 1]);
    for (epoch, due) in [(wrap - 1, vec![2]), (wrap, vec![3]), (wrap + 1, vec![4]), (wrap + 299, vec![])] {
        scheduler.signal(0, epoch);
        assert_eq!(scheduler.complete_all(), due, "epoch {epoch:#x}");
    }
    scheduler.signal(0, wrap + 300);
    assert_eq!(scheduler.complete_all(), [5]);
}

#[test]
fn the_low_words_alone_do_not_wake_a_task() {
    // Waits for 2^32 + 1; the timeline then stands at an epoch whose low word is far above 1.
    let mut scheduler = waiting_at((1 << 32) - 10, &[1]);
    assert_eq!(scheduler.complete_all(), []);
    scheduler.signal(0, (1 << 32) - 1);
    assert_eq!(scheduler.complete_all(), []);
    scheduler.signal(0, 1 << 32 | 1);
    assert_eq!(scheduler.complete_all(), [0]);
}

#[test]
fn timelines_that_share_a_bucket_do_not_wake_each_others_tasks() {
    let mut scheduler = Scheduler::new(options(4, 4));
    for timeline in 0..4 {
        let epoch = 200 - 37 * u32::from(timeline);
        let slot = u32::from(timeline);
        let list = |timeline, epoch| scheduler.wheel.list(epochs::bucket(timeline, epoch), 0);
        assert_eq!(list(slot, epoch), list(0, 200));
        scheduler.publish(slot, waiter(slot, timeline, epoch));
    }
    assert_eq!(scheduler.complete_all(), []);
    scheduler.signal(2, 200 - 74);
    assert_eq!(scheduler.complete_all(), [2]);
    scheduler.signal(0, 1000);
    assert_eq!(scheduler.complete_all(), [0]);
    scheduler.signal(1, 200 - 38);
    scheduler.signal(3, 200 - 112);
    assert_eq!(scheduler.complete_all(), []);
    scheduler.signal(1, 200 - 37);
    scheduler.signal(3, 200 - 111);
    assert_eq!(scheduler.complete_all(), [1, 3]);
}

#[test]
fn a_turn_wakes_the_waiters_of_every_timeline_that_advanced_however_many_there_are() {
    let mut scheduler = Scheduler::new(ModelOptions { timelines: 9, ..options(4, 2) });
    (0..9u8).for_each(|timeline| scheduler.publish(timeline.into(), waiter(timeline.into(), timeline, 5)));
    assert_eq!(scheduler.complete_all(), []);
    (0..9).for_each(|timeline| scheduler.signal(timeline, 5));
    assert!(scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE));
    assert_eq!(scheduler.wheel.waiters(&scheduler.metas), []);
    scheduler.complete_all();
    assert_eq!(scheduler.waiting(), 0);
}

#[test]
fn an_epoch_never_goes_back() {
    let mut scheduler = waiting_at(10, &[12]);
    scheduler.signal(0, 3);
    assert_eq!(scheduler.complete_all(), []);
    assert_eq!(scheduler.timelines[0].epoch, 10);
    assert_eq!(scheduler.waiting(), 1);
}
