use proptest::prelude::*;

use super::super::*;
use crate::BackendError::{self, CounterOverflow, IllegalTransition, UnknownTransitionState};
use crate::TaskAction;

type Words = [u32; TASK_SLOT_WORDS];

/// One step with its arguments.
#[derive(Clone, Copy, Debug)]
struct Step {
    action: TaskAction,
    pc: u32,
    data: u32,
    epoch: u32,
    priority: u32,
}

impl Step {
    fn take(self, task: TaskWorkItem) -> Result<TaskWorkItem, BackendError> {
        let Self { action, pc, data, epoch, priority } = self;
        match action {
            TaskAction::Claim => task.try_claimed(),
            TaskAction::Pause => task.try_paused(pc, data, epoch),
            TaskAction::Resume => task.try_resumed(),
            TaskAction::Yield => task.try_yielded(pc, data),
            TaskAction::Requeue => task.try_requeued(pc, data, TaskPriority::ALL[priority as usize]),
            TaskAction::Complete => task.try_completed(),
            TaskAction::Fault => task.try_faulted(data),
            TaskAction::Recycle => task.try_recycled(),
        }
    }
}

const ACTIONS: [TaskAction; 8] = [
    TaskAction::Claim,
    TaskAction::Pause,
    TaskAction::Resume,
    TaskAction::Yield,
    TaskAction::Requeue,
    TaskAction::Complete,
    TaskAction::Fault,
    TaskAction::Recycle,
];

/// The code of the next state for each code of the present one (Empty, Ready, Running, Done, Paused, Yielded, Requeued,
/// Faulted), `-` where the step is refused.
fn table(action: TaskAction) -> &'static [u8; 8] {
    match action {
        TaskAction::Claim => b"-2---22-",
        TaskAction::Pause => b"-44-444-",
        TaskAction::Resume => b"----1---",
        TaskAction::Yield => b"-55-555-",
        TaskAction::Requeue => b"-66-666-",
        TaskAction::Complete => b"-33-333-",
        TaskAction::Fault => b"-77-777-",
        TaskAction::Recycle => b"---0---0",
    }
}

/// What the ABI's text says of a step, by word numbers; `None` where it is refused.
fn oracle(step: Step, mut words: Words) -> Option<Words> {
    let next = *table(step.action).get(words[0] as usize)?;
    if next == b'-' {
        return None;
    }
    words[0] = u32::from(next - b'0');
    match step.action {
        TaskAction::Claim => {}
        TaskAction::Pause => {
            words[7..10].copy_from_slice(&[step.pc, step.data, step.epoch]);
            words[15] = (words[15] | 1) & !8;
        }
        TaskAction::Resume => words[15] = (words[15] | 8) & !3,
        TaskAction::Yield => {
            words[7..9].copy_from_slice(&[step.pc, step.data]);
            words[14] = words[14].checked_add(1)?;
            words[15] |= 2;
        }
        TaskAction::Requeue => {
            words[3] = step.priority;
            words[7..9].copy_from_slice(&[step.pc, step.data]);
            words[12] = words[12].checked_add(1)?;
            words[13] = words[13].checked_add(1)?;
            words[15] |= 4;
        }
        TaskAction::Complete => words[15] = 0,
        TaskAction::Fault => words[8] = step.data,
        TaskAction::Recycle => words = [0; TASK_SLOT_WORDS],
    }
    Some(words)
}

fn words_of(task: TaskWorkItem) -> Words {
    bytemuck::cast(task)
}

/// A word, often at an edge.
fn any_word() -> impl Strategy<Value = u32> {
    prop_oneof![4 => any::<u32>(), 1 => 0..32u32, 1 => Just(u32::MAX)]
}

/// A slot, mostly with a known state.
fn any_slot() -> impl Strategy<Value = Words> {
    (prop::array::uniform16(any_word()), prop_oneof![8 => 0..8u32, 1 => any_word()]).prop_map(|(mut words, state)| {
        words[0] = state;
        words
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    (prop::sample::select(&ACTIONS), any_word(), any_word(), any_word(), 0..5u32)
        .prop_map(|(action, pc, data, epoch, priority)| Step { action, pc, data, epoch, priority })
}

fn step(action: TaskAction) -> Step {
    Step { action, pc: 70, data: 80, epoch: 90, priority: 4 }
}

/// A slot whose word `n` is `100 + n`, except for its state and its flags.
fn slot(state: u32, flags: u32) -> TaskWorkItem {
    let mut words: Words = std::array::from_fn(|n| 100 + n as u32);
    words[0] = state;
    words[15] = flags;
    bytemuck::cast(words)
}

#[test]
fn every_state_takes_exactly_the_steps_of_the_table() {
    for action in ACTIONS {
        for code in 0..8 {
            for flags in 0..16 {
                let before = slot(code, flags | 0xabcd_ef00);
                let after = step(action).take(before).map(words_of);
                let refusal = || before.task_state().map(|state| Err(IllegalTransition { action, state }));
                let expected = oracle(step(action), words_of(before)).map(Ok).or_else(refusal);
                assert_eq!(Some(after), expected, "{action} from state {code}");
            }
        }
    }
}

#[test]
fn a_refusal_names_the_action_and_the_state() {
    let done = slot(3, 0).try_yielded(0, 0).map_err(|error| error.to_string());
    assert!(done.is_err_and(|words| words.contains("yield") && words.contains("Done")));
    let unknown = slot(0x1234, 0).try_faulted(0).map_err(|error| error.to_string());
    assert!(unknown.is_err_and(|words| words.contains("fault") && words.contains("0x1234")));
}

#[test]
fn a_counter_at_its_maximum_refuses_the_step_and_is_named() {
    let full = TaskWorkItem { yield_count: u32::MAX, ..slot(2, 0) };
    assert_eq!(full.try_yielded(1, 2), Err(CounterOverflow { counter: "yield_count" }));
    assert!(full.try_requeued(1, 2, TaskPriority::Low).is_ok());
    let full = TaskWorkItem { requeue_count: u32::MAX, ..slot(2, 0) };
    assert_eq!(full.try_requeued(1, 2, TaskPriority::Low), Err(CounterOverflow { counter: "requeue_count" }));
    assert!(full.try_yielded(1, 2).is_ok());
    let full = TaskWorkItem { age_ticks: u32::MAX, ..slot(2, 0) };
    assert_eq!(full.try_requeued(1, 2, TaskPriority::Low), Err(CounterOverflow { counter: "age_ticks" }));
    assert!(full.try_yielded(1, 2).is_ok());
}

#[test]
fn a_counter_one_below_its_maximum_still_counts() {
    let nearly = u32::MAX - 1;
    let task = TaskWorkItem { yield_count: nearly, requeue_count: nearly, age_ticks: nearly, ..slot(2, 0) };
    assert_eq!(task.try_yielded(1, 2).map(|task| task.yield_count), Ok(u32::MAX));
    let requeued = task.try_requeued(1, 2, TaskPriority::Low);
    assert_eq!(requeued.map(|task| (task.requeue_count, task.age_ticks)), Ok((u32::MAX, u32::MAX)));
}

#[test]
fn a_new_task_is_ready_and_has_its_arguments_in_words_1_to_6_and_10() {
    const WORK: MegakernelWorkItem = MegakernelWorkItem { op_handle: 1, input_handle: 4, output_handle: 5, param: 6 };
    const TASK: TaskWorkItem = TaskWorkItem::from_work_item(10, 2, TaskPriority::Low, WORK);
    assert_eq!(words_of(TASK), [1, 1, 2, 3, 4, 5, 6, 0, 0, 0, 10, 0, 0, 0, 0, 0]);
    assert_eq!(TASK.work_item(), WORK);
    assert_eq!(TASK.task_state(), Some(TaskState::Ready));
    assert_eq!(TASK.task_priority(), Some(TaskPriority::Low));
    assert!(TASK.is_schedulable());
}

#[test]
fn a_task_of_an_unknown_state_or_priority_decodes_to_none() {
    let task = TaskWorkItem { priority: 5, ..slot(8, 0) };
    assert_eq!((task.task_state(), task.task_priority(), task.is_schedulable()), (None, None, false));
}

#[test]
fn the_bytes_of_a_slot_are_its_fields_in_order_as_little_endian_words() {
    let task = TaskWorkItem {
        state: 0x0302_0100,
        op_handle: 0x0706_0504,
        tenant_id: 0x0b0a_0908,
        priority: 0x0f0e_0d0c,
        input_handle: 0x1312_1110,
        output_handle: 0x1716_1514,
        param: 0x1b1a_1918,
        continuation_pc: 0x1f1e_1d1c,
        continuation_data: 0x2322_2120,
        resume_epoch: 0x2726_2524,
        task_id: 0x2b2a_2928,
        parent_task_id: 0x2f2e_2d2c,
        age_ticks: 0x3332_3130,
        requeue_count: 0x3736_3534,
        yield_count: 0x3b3a_3938,
        flags: 0x3f3e_3d3c,
    };
    let counting: [u8; TASK_SLOT_BYTES] = std::array::from_fn(|n| n as u8);
    assert_eq!(bytemuck::bytes_of(&task), counting);
}

proptest! {
    #[test]
    fn any_step_of_any_slot_does_what_the_oracle_says(words in any_slot(), step in any_step()) {
        let after = step.take(bytemuck::cast(words));
        prop_assert_eq!(after.ok().map(words_of), oracle(step, words));
    }

    #[test]
    fn refused_steps_leave_no_trace_in_a_life_of_many(
        words in any_slot(),
        steps in prop::collection::vec(any_step(), 0..64),
    ) {
        let mut task: TaskWorkItem = bytemuck::cast(words);
        let mut expected = words;
        for step in steps {
            task = step.take(task).unwrap_or(task);
            expected = oracle(step, expected).unwrap_or(expected);
        }
        prop_assert_eq!(words_of(task), expected);
    }

    #[test]
    fn an_unknown_state_word_refuses_every_step_and_is_named(words in any_slot(), state in 8u32.., step in any_step()) {
        let task = TaskWorkItem { state, ..bytemuck::cast(words) };
        prop_assert_eq!(step.take(task), Err(UnknownTransitionState { action: step.action, word: state }));
    }

    #[test]
    fn a_timeline_is_bits_8_to_23_of_the_flags_and_nothing_else(words in any_slot(), index: u8, generation: u8) {
        let before: TaskWorkItem = bytemuck::cast(words);
        let bytes = words[15].to_le_bytes();
        prop_assert_eq!(before.timeline(), TimelineId::new(bytes[1], bytes[2]));
        let mut expected = words;
        expected[15] = words[15] & 0xff00_00ff | u32::from(index) << 8 | u32::from(generation) << 16;
        prop_assert_eq!(words_of(before.with_timeline(TimelineId::new(index, generation))), expected);
    }

    #[test]
    fn a_paused_and_resumed_task_keeps_its_timeline(index: u8, generation: u8, epoch: u32) {
        let timeline = TimelineId::new(index, generation);
        let resumed = slot(2, 0).with_timeline(timeline).try_paused(1, 2, epoch).and_then(TaskWorkItem::try_resumed);
        prop_assert_eq!(resumed.map(TaskWorkItem::timeline), Ok(timeline));
    }
}

#[cfg(feature = "legacy-infallible")]
mod legacy {
    use super::*;

    /// The step by its panicking twin, or `None` where it has none.
    fn take(Step { action, pc, data, epoch, priority }: Step, task: TaskWorkItem) -> Option<TaskWorkItem> {
        Some(match action {
            TaskAction::Pause => task.paused(pc, data, epoch),
            TaskAction::Resume => task.resumed(),
            TaskAction::Yield => task.yielded(pc, data),
            TaskAction::Requeue => task.requeued(pc, data, TaskPriority::ALL[priority as usize]),
            TaskAction::Complete => task.completed(),
            TaskAction::Fault => task.faulted(data),
            TaskAction::Claim | TaskAction::Recycle => return None,
        })
    }

    #[test]
    fn a_panicking_twin_does_the_same_or_panics_with_the_words_of_the_error() {
        for action in ACTIONS.into_iter().filter(|action| !matches!(action, TaskAction::Claim | TaskAction::Recycle)) {
            for code in 0..9 {
                let task = slot(code, 0);
                let twin = std::panic::catch_unwind(|| take(step(action), task));
                match step(action).take(task) {
                    Ok(after) => assert_eq!(twin.ok().flatten(), Some(after), "{action} from {code}"),
                    Err(error) => {
                        let words = twin.err().and_then(|panic| panic.downcast_ref::<String>().cloned());
                        assert_eq!(words, Some(error.to_string()), "{action} from {code}");
                    }
                }
            }
        }
    }
}
