//! Every accessor on the device, against the same in Rust, and what it does with what is out of bounds or somebody else's.

use std::sync::Arc;

use super::common::{Checked, LONG, device, run_all, words};
use taskring::*;

const BOTH: [Width; 2] = [Width::Lane, Width::Subgroup];

const OUT_OF_BOUNDS: Outcome = Outcome::Faulted(TASK_FAULT_OUT_OF_BOUNDS);
const BAD_HANDLE: Outcome = Outcome::Faulted(TASK_FAULT_BAD_HANDLE);

/// One access, number `pc`, to word `task.param` of the input, plus the lane in a wide op whose flags are 0; its result goes to the same
/// word of the output.
const ACCESS: &str = "
Turn access(TaskWorkItem task) {
    Buffer b = task_input(task);
    uint word = task.param + (task.flags == 0u && WIDE ? task_lane() : 0u);
    uint value = task.continuation_data;
    uint result = 0u;
    switch (task.continuation_pc) {
    case 0u: result = buffer_load(b, word); break;
    case 1u: buffer_store(b, word, value); break;
    case 2u: result = buffer_atomic_load(b, word); break;
    case 3u: buffer_atomic_store(b, word, value); break;
    case 4u: result = buffer_atomic_add(b, word, value); break;
    case 5u: result = buffer_atomic_and(b, word, value); break;
    case 6u: result = buffer_atomic_or(b, word, value); break;
    case 7u: result = buffer_atomic_xor(b, word, value); break;
    case 8u: result = buffer_atomic_min(b, word, value); break;
    case 9u: result = buffer_atomic_max(b, word, value); break;
    case 10u: result = buffer_atomic_exchange(b, word, value); break;
    case 11u: result = buffer_atomic_compare_exchange(b, word, value, ~value); break;
    case 12u: result = buffer_words(b); break;
    default: return task_fault(1u);
    }
    buffer_store(task_output(task), word, result);
    return task_complete();
}";
const ACCESSES: u32 = 13;

/// What the access gives, and the word that it leaves.
fn expected(access: u32, before: u32, value: u32, words: u32) -> (u32, u32) {
    match access {
        0 | 2 => (before, before),
        1 | 3 => (0, value),
        4 => (before, before.wrapping_add(value)),
        5 => (before, before & value),
        6 => (before, before | value),
        7 => (before, before ^ value),
        8 => (before, before.min(value)),
        9 => (before, before.max(value)),
        10 => (before, value),
        11 => (before, if before == value { !value } else { before }),
        _ => (words, before),
    }
}

fn program(width: Width) -> Program {
    let glsl = ACCESS.replace("WIDE", if width == Width::Subgroup { "true" } else { "false" });
    Program::builder().op("access", glsl, width).build().unwrap()
}

fn fill(buffer: &Buffer, word: impl Fn(u32) -> u32) {
    for index in 0..(buffer.bytes() / 4) as u32 {
        let order = std::sync::atomic::Ordering::Relaxed;
        buffer.mapped().unwrap().store(u64::from(index) * 4, word(index), order).unwrap();
    }
}

fn scramble(x: u32) -> u32 {
    let x = (x ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
    (x ^ x >> 13).wrapping_mul(0xc2b2_ae35) ^ x >> 16
}

struct Bench {
    device: Checked,
    runtime: Runtime,
    data: Arc<Buffer>,
    results: Arc<Buffer>,
}

impl Bench {
    fn new(width: Width, words: u32) -> Self {
        let device = device();
        let runtime = device.runtime(&program(width), RuntimeOptions { capacity: 1024, ..RuntimeOptions::default() });
        let (data, results) = (device.report(words), device.report(words));
        fill(&data, scramble);
        fill(&results, |_| 0xdead_beef);
        Self { device, runtime, data, results }
    }

    /// The part of the data in these words, for tenant 0.
    fn part(&self, words: std::ops::Range<u64>) -> BufferHandle {
        self.runtime.register_buffer(0, &self.data, words.start * 4..words.end * 4).unwrap()
    }
}

#[test]
fn every_accessor_does_what_it_says() {
    for width in BOTH {
        let rounds = 6;
        let lanes = if width == Width::Subgroup { device().lanes() } else { 1 };
        let count = ACCESSES * rounds * lanes;
        let bench = Bench::new(width, count);
        let input = bench.part(0..count.into());
        let output = bench.runtime.register_buffer(0, &bench.results, 0..bench.results.bytes()).unwrap();
        // The value is the word itself now and then, for compare_exchange, and far from it otherwise.
        let value = |n: u32| if (n / ACCESSES).is_multiple_of(2) { scramble(n * lanes) } else { scramble(!n) };
        let task =
            |n: u32| Task::new(0).input(input).output(output).param(n * lanes).starting_at(n % ACCESSES, value(n));
        let tasks: Vec<TaskWorkItem> = (0..ACCESSES * rounds).map(|n| task(n).item()).collect();
        for done in run_all(&bench.runtime, &tasks) {
            assert_eq!(done.outcome, Outcome::Done, "{done:?}");
        }
        let (data, results) = (words(&bench.data), words(&bench.results));
        for word in 0..count {
            let n = word / lanes;
            let (result, after) = expected(n % ACCESSES, scramble(word), value(n), count);
            let found = (results[word as usize], data[word as usize]);
            assert_eq!(found, (result, after), "{width:?}: access {} of word {word}", n % ACCESSES);
        }
    }
}

#[test]
fn what_is_out_of_bounds_gives_0_changes_nothing_and_faults_the_task() {
    for width in BOTH {
        let bench = Bench::new(width, 256);
        // A range in the middle of its buffer: its neighbours are somebody else's.
        let part = bench.part(64..128);
        let output = bench.runtime.register_buffer(0, &bench.results, 0..1024).unwrap();
        let before = words(&bench.data);
        // 2^30 words are 2^32 bytes: an offset that wraps; 2^32 - 64 words lie just before the range if it is taken for negative.
        for word in [64, 65, 255, 1 << 30, (1 << 30) + 1, 1 << 31, u32::MAX - 63, u32::MAX] {
            for access in 0..ACCESSES - 1 {
                // Flags of 1 tell a wide op's lanes to stay at one word.
                let task = Task::new(0).input(part).output(output).param(word).starting_at(access, 7);
                let item = TaskWorkItem { flags: 1, ..task.item() };
                let done = run_all(&bench.runtime, &[item])[0];
                assert_eq!(done.outcome, OUT_OF_BOUNDS, "{width:?}: access {access} of word {word}");
                if let Some(result) = words(&bench.results).get(word as usize) {
                    assert_eq!(*result, 0, "{width:?}: access {access} of word {word}");
                }
                assert_eq!(words(&bench.data), before, "{width:?}: access {access} of word {word}");
                fill(&bench.results, |_| 0xdead_beef);
            }
        }
        // The last word is inside, and it is the range's last, not the buffer's.
        let task = Task::new(0).input(part).output(output).param(63).starting_at(10, 7);
        let done = run_all(&bench.runtime, &[TaskWorkItem { flags: 1, ..task.item() }])[0];
        assert_eq!(done.outcome, Outcome::Done);
        let mut after = before;
        after[127] = 7;
        assert_eq!(words(&bench.data), after);
        if width == Width::Subgroup {
            // Only the last lane leaves the range: that is enough, and the stores of the others have happened.
            let task = Task::new(0).input(part).output(output).param(65 - bench.device.lanes()).starting_at(1, 9);
            assert_eq!(run_all(&bench.runtime, &[task.item()])[0].outcome, OUT_OF_BOUNDS);
            after[128 - (bench.device.lanes() as usize - 1)..128].fill(9);
            assert_eq!(words(&bench.data), after);
        }
    }
}

#[test]
fn a_handle_opens_what_is_registered_for_the_tasks_tenant_and_nothing_else() {
    let glsl = "Turn open(TaskWorkItem task) {
        Buffer b = task.continuation_pc == 0u ? task_buffer(task, task.param) : Buffer(task.param);
        uint found = buffer_words(b) + buffer_load(b, 0u) + buffer_atomic_add(b, 0u, 1u);
        buffer_store(b, 0u, 99u);
        buffer_store(task_output(task), 0u, found);
        return task_complete();
    }";
    for width in BOTH {
        let device = device();
        let program = Program::builder().op("open", glsl, width).build().unwrap();
        let runtime = device.runtime(&program, RuntimeOptions::default());
        let (mine, theirs, result) = (device.report(4), device.report(4), device.report(1));
        let register = |tenant, buffer| runtime.register_buffer(tenant, buffer, 0..4).unwrap();
        let stale = register(0, &theirs);
        runtime.unregister_buffer(stale, LONG).unwrap();
        // The same entry of the table, a generation later.
        let (their_handle, my_handle, output) = (register(1, &theirs), register(0, &mine), register(0, &result));
        assert_ne!(stale, their_handle);
        let open = |handle: u32, pc| {
            fill(&result, |_| 77);
            let task = Task::new(0).output(output).param(handle).starting_at(pc, 0);
            run_all(&runtime, &[task.item()])[0].outcome
        };
        let past_the_table = runtime.options().buffers | my_handle.word() & 0xfff0_0000;
        for pc in [0, 1] {
            for handle in [their_handle.word(), stale.word(), 0x10_0000, 1, 12_345, past_the_table, u32::MAX] {
                assert_eq!(open(handle, pc), BAD_HANDLE, "{width:?} {handle:#x}");
                assert_eq!((words(&theirs), words(&result)), (vec![0; 4], vec![0]), "{width:?} {handle:#x}");
            }
            // No buffer at all has no words, and faults when it is touched.
            assert!(matches!(open(0, pc), Outcome::Faulted(TASK_FAULT_BAD_HANDLE | TASK_FAULT_OUT_OF_BOUNDS)));
            assert_eq!(words(&result), [0]);
            fill(&mine, |_| 5);
            assert_eq!(open(my_handle.word(), pc), Outcome::Done);
            assert_eq!(words(&mine), [99, 5, 5, 5]);
        }
        let theirs_now = Task::new(0).tenant(1).param(their_handle.word());
        assert_eq!(run_all(&runtime, &[theirs_now.item()])[0].outcome, BAD_HANDLE, "it has no output to write to");
        assert_eq!(words(&theirs)[0], 99, "but its own buffer is open to it");
    }
}

#[test]
fn atomics_on_one_word_lose_nothing_however_many_tasks_meet_there() {
    let glsl = "Turn meet(TaskWorkItem task) {
        Buffer o = task_output(task);
        uint me = task.param WIDE;
        buffer_atomic_add(o, 0u, me);
        buffer_atomic_xor(o, 1u, me * 2654435761u);
        buffer_atomic_max(o, 2u, me);
        buffer_atomic_min(o, 3u, me);
        buffer_atomic_or(o, 4u + me / 32u, 1u << me % 32u);
        return task_complete();
    }";
    for width in BOTH {
        let device = device();
        let (wide, lanes) =
            if width == Width::Subgroup { ("* task_lanes() + task_lane()", device.lanes()) } else { ("", 1) };
        let program = Program::builder().op("meet", glsl.replace("WIDE", wide), width).build().unwrap();
        let runtime = device.runtime(&program, RuntimeOptions::default());
        let all = 600 * lanes;
        let met = device.report(4 + all.div_ceil(32));
        fill(&met, |word| if word == 3 { u32::MAX } else { 0 });
        let output = runtime.register_buffer(0, &met, 0..met.bytes()).unwrap();
        let tasks: Vec<TaskWorkItem> = (0..600).map(|n| Task::new(0).output(output).param(n).item()).collect();
        assert!(run_all(&runtime, &tasks).iter().all(|done| done.outcome == Outcome::Done));
        let met = words(&met);
        let xor = (0..all).fold(0, |xor, me| xor ^ me.wrapping_mul(2_654_435_761));
        assert_eq!(met[..4], [all * (all - 1) / 2, xor, all - 1, 0]);
        assert_eq!(met[4..].iter().map(|bits| bits.count_ones()).sum::<u32>(), all);
    }
}
