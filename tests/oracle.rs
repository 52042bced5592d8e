//! The device against the model: one worker of the same width must do the same things in the same order, down to every age.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{LONG, device};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use taskring::model::{ModelOptions, Scheduler};
use taskring::*;

#[path = "common/script.rs"]
mod script;

const CAPACITY_LOG2: u32 = 8;

/// What the host does between two slices.
#[derive(Clone, Debug)]
enum Step {
    Submit(Vec<TaskWorkItem>),
    Signal {
        timeline: u8,
        by: u32,
    },
    /// One in so many of the tasks that have not ended.
    Cancel {
        one_in: usize,
    },
    /// Timeline 1, for good.
    Close,
    Slice,
}

fn task(pauses: bool) -> impl Strategy<Value = TaskWorkItem> {
    // Also ops, priorities and tenants that are not there: the device must fault them, in the same place of the order.
    let seed =
        if pauses { (0..0x8000_0000u32).boxed() } else { (0..0x8000_0000u32).prop_map(script::without_pauses).boxed() };
    (0..3u32, 0..6u32, 0..34u32, seed, 0..4u32).prop_map(move |(op, priority, tenant, param, state)| {
        let state = [TASK_STATE_READY, TASK_STATE_YIELDED, TASK_STATE_REQUEUED, TASK_STATE_PAUSED][state as usize];
        let state = if !pauses && state == TASK_STATE_PAUSED { TASK_STATE_READY } else { state };
        let (tenant_id, resume_epoch) = (tenant.saturating_sub(20), param % 64);
        let flags = (param & 0x100) * u32::from(state == TASK_STATE_PAUSED);
        TaskWorkItem {
            state,
            op_handle: op,
            tenant_id,
            priority,
            param,
            resume_epoch,
            flags,
            task_id: param,
            ..TaskWorkItem::default()
        }
    })
}

fn steps(pauses: bool) -> impl Strategy<Value = Vec<Step>> {
    let submit = prop::collection::vec(task(pauses), 1..60).prop_map(Step::Submit);
    let signal = (0..2u8, 1..40u32).prop_map(|(timeline, by)| Step::Signal { timeline, by });
    let cancel = (1..20usize).prop_map(|one_in| Step::Cancel { one_in });
    let step = prop_oneof![12 => submit, 8 => signal, 3 => cancel, 1 => Just(Step::Close), 16 => Just(Step::Slice)];
    prop::collection::vec(step, 1..25)
}

/// Everything that a completion says, in the order of completions.
fn told(completion: &Completion) -> (u32, Outcome, u32, u32, u32, u32) {
    let Completion { outcome, task_id, continuation_data, age_ticks, requeue_count, yield_count, .. } = *completion;
    (task_id, outcome, continuation_data, age_ticks, requeue_count, yield_count)
}

fn told_by_model(item: &TaskWorkItem) -> (u32, Outcome, u32, u32, u32, u32) {
    let outcome = if item.state == TASK_STATE_DONE { Outcome::Done } else { Outcome::Faulted(item.continuation_data) };
    (item.task_id, outcome, item.continuation_data, item.age_ticks, item.requeue_count, item.yield_count)
}

/// Plays the steps to both, with a final stretch in which every epoch comes, and compares all that they tell.
fn agree(
    device: &common::Checked,
    program: &Program,
    batch: Option<u32>,
    turn_budget: u32,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let options = RuntimeOptions {
        capacity: 1 << CAPACITY_LOG2,
        workers: Some(1),
        batch,
        turn_budget: Some(turn_budget),
        slice_time: Some(Duration::MAX),
        aging_ticks: Some(20),
        launch_on_submit: false,
        ..RuntimeOptions::default()
    };
    let runtime = device.runtime(program, options.clone());
    runtime.create_timeline().unwrap();
    let lanes = device.lanes();
    let mut model = Scheduler::new(ModelOptions {
        capacity_log2: CAPACITY_LOG2,
        lanes,
        batch: batch.unwrap_or(lanes),
        aging_ticks: 20,
        tenants: vec![true; options.tenants as usize],
        timelines: 2,
        ops: vec![false, true],
    });
    // Batches get the next free slots, round and round.
    let (mut free, mut next): (BTreeSet<u32>, _) = ((0..1 << CAPACITY_LOG2).collect(), 0);
    let mut epochs = [0u64; 2];
    let mut closed = false;
    let mut in_flight: Vec<(SubmissionId, u32)> = Vec::new();
    let (mut told_device, mut told_model) = (Vec::new(), Vec::new());

    let ending = [Step::Signal { timeline: 0, by: 1 << 20 }, Step::Signal { timeline: 1, by: 1 << 20 }];
    let ending = ending.into_iter().chain(std::iter::repeat_n(Step::Slice, 400));
    for step in steps.iter().cloned().chain(ending) {
        match step {
            Step::Submit(tasks) => {
                let accepted = runtime.submit_batch_unchecked(&tasks).unwrap();
                prop_assert_eq!(accepted.count(), free.len().min(tasks.len()), "both have the same room");
                for (item, id) in tasks.iter().zip(accepted.ids()) {
                    let slot = *free.range(next..).next().or_else(|| free.first()).unwrap();
                    free.remove(&slot);
                    next = slot + 1;
                    in_flight.push((id, slot));
                    model.publish(slot, *item);
                }
            }
            Step::Cancel { one_in } => {
                let chosen = in_flight.iter().step_by(one_in);
                let count = runtime.cancel(chosen.clone().map(|(id, _)| *id)).unwrap();
                prop_assert_eq!(count, in_flight.len().div_ceil(one_in));
                chosen.for_each(|(_, slot)| model.cancel(*slot));
            }
            Step::Close if closed => {}
            Step::Close => {
                closed = true;
                runtime.lose_timeline(1).unwrap();
                model.close(1, TASK_FAULT_TIMELINE_LOST);
            }
            Step::Signal { timeline: 1, .. } if closed => {}
            Step::Signal { timeline, by } => {
                epochs[usize::from(timeline)] += u64::from(by);
                runtime.signal(timeline, epochs[usize::from(timeline)]).unwrap();
                model.signal(timeline.into(), epochs[usize::from(timeline)]);
            }
            Step::Slice => {
                let before = runtime.stats().turns;
                if !runtime.run_slice(LONG).unwrap() {
                    continue;
                }
                let turns = (runtime.stats().turns - before) as u32;
                // Where the driver ends loops, a slice's batches count as turns too, and it has fewer than it was given.
                let budget = if device.ends_loops() { turns } else { turn_budget };
                let mut ended = Vec::new();
                runtime.completions(&mut ended, usize::MAX, Duration::ZERO).unwrap();
                let exit = model.run_slice(budget, 1, &mut script::turn, &|_, handle| handle == 0);
                for completion in model.completions() {
                    free.insert(completion.ticket);
                    in_flight.retain(|(_, slot)| *slot != completion.ticket);
                    told_model.push(told_by_model(&completion.item));
                }
                told_device.extend(ended.iter().map(told));
                prop_assert_eq!(&told_device, &told_model);
                prop_assert!(turns <= turn_budget);
                prop_assert_eq!(turns, exit.turns);
                let stats = runtime.stats();
                prop_assert_eq!(stats.pauses as u32, exit.pauses);
                prop_assert_eq!(stats.resumes as u32, exit.resumes);
            }
        }
    }
    prop_assert_eq!(told_device.len() as u64, runtime.stats().submitted, "every task has ended");
    runtime.drain(LONG).unwrap();
    Ok(())
}

fn compare(pauses: bool, batch: Option<u32>, cases: u32) {
    let device = device();
    let program = script::program();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = (steps(pauses), prop_oneof![Just(2u32), Just(7), Just(64)]);
    TestRunner::new(config).run(&strategy, |(steps, budget)| agree(&device, &program, batch, budget, &steps)).unwrap();
}

#[test]
fn batches_agree_with_the_model_to_the_last_tick() {
    compare(false, None, 24);
}

#[test]
fn pauses_agree_with_the_model_to_the_last_tick() {
    // One task at a time: which of two lanes hangs its task first into the same wait list is the device's choice.
    compare(true, Some(1), 24);
}
