//! Fixpoints on the device against the same on the CPU: words, iterations and verdict.
#![cfg(feature = "self-substrate-adapters")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod common;
#[path = "convergence/expression.rs"]
mod expression;

use common::{Checked, LONG, device};
use expression::Expression;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use taskring::*;

const ONE_WORKGROUP: u32 = ConvergenceProgram::ONE_WORKGROUP_WORDS;

fn build(body: &str, words: u32, max_iterations: u32) -> Result<ConvergenceProgram, BackendError> {
    TaskQueueSnapshot::build_state_convergence_program(body, "current", "next", "changed", words, max_iterations)
}

/// The same on the CPU. `transfer` is given all words and an index; it returns the next word, and whether that counts as a change anyway.
fn on_cpu(
    start: &[u32],
    max_iterations: u32,
    transfer: impl Fn(&[u32], u32) -> (u32, bool),
) -> (ConvergenceEnd, u32, Vec<u32>) {
    let mut current = start.to_vec();
    for iteration in 1..=max_iterations {
        let moved: Vec<_> = (0..current.len() as u32).map(|index| transfer(&current, index)).collect();
        let changed = moved.iter().zip(&current).any(|((next, changed), word)| next != word || *changed);
        current = moved.into_iter().map(|(next, _)| next).collect();
        if !changed {
            return (ConvergenceEnd::Converged, iteration, current);
        }
    }
    (ConvergenceEnd::LimitReached, max_iterations, current)
}

fn told(convergence: Convergence) -> (ConvergenceEnd, u32, Vec<u32>) {
    let Convergence { end, iterations, words, .. } = convergence;
    (end, iterations, words)
}

/// Words that are different enough.
fn some_words(count: u32) -> Vec<u32> {
    (0..count).map(|index| index.wrapping_mul(0x9e37_79b9) ^ index >> 3).collect()
}

/// The sizes around every boundary.
fn sizes(device: &Checked) -> Vec<u32> {
    let lanes = device.lanes();
    let around = |size: u32| [size - 1, size, size + 1];
    let mut sizes = vec![1, 2];
    // 256 is a workgroup or two; 2^18 words are as many as a grid of passes has invocations of 256 a workgroup.
    for size in [lanes, 256, ONE_WORKGROUP, 1 << 18] {
        sizes.extend(around(size));
    }
    sizes
}

#[test]
fn words_spread_until_nothing_changes_at_every_boundary_of_sizes() {
    let device = device();
    // The largest word of those before it, twice as far each time.
    let body = "uint far = index / 2u;\nnext[index] = max(current[index], current[far]);";
    let transfer = |words: &[u32], index: u32| (words[index as usize].max(words[index as usize / 2]), false);
    for count in sizes(&device) {
        let start = some_words(count);
        let mut prepared = build(body, count, 100).unwrap().prepare(&device.device).unwrap();
        let expected = on_cpu(&start, 100, transfer);
        assert_eq!(expected.0, ConvergenceEnd::Converged);
        // Twice, since buffers are used again.
        for _ in 0..2 {
            assert_eq!(told(prepared.run(&start, LONG).unwrap()), expected, "{count} words");
        }
    }
}

#[test]
fn the_limit_is_met_exactly_whether_it_is_one_of_few_or_of_many_submissions() {
    let device = device();
    for count in [1, 300, ONE_WORKGROUP, ONE_WORKGROUP + 1] {
        let one = |words: &[u32], index: u32| (words[index as usize].min(200) + 1, false);
        let start: Vec<u32> = (0..count).map(|index| index % 7).collect();
        // One word comes to its end, 201, after as many iterations less what it began with; the last iteration changes nothing.
        for limit in [1, 2, 63, 64, 65, 127, 128, 129, 200, 201, 202, 203] {
            let program = build("next[index] = min(current[index], 200u) + 1u;", count, limit).unwrap();
            let told = told(program.run(&device.device, &start, LONG).unwrap());
            assert_eq!(told, on_cpu(&start, limit, one), "{count} words, limit {limit}");
        }
    }
}

#[test]
fn very_many_iterations_take_as_many_submissions_as_they_need() {
    let device = device();
    // More than one dispatch of one workgroup makes, and than a driver with a loop cap could make in one.
    let program = build("next[index] = min(current[index] + 1u, 70000u);", 3, u32::MAX).unwrap();
    let told = told(program.run(&device.device, &[0, 5, 69_999], LONG).unwrap());
    assert_eq!(told, (ConvergenceEnd::Converged, 70_001, vec![70_000; 3]));
}

#[test]
fn the_most_words_converge() {
    let device = device();
    let (count, body) = (ConvergenceProgram::MOST_WORDS, "next[index] = current[index] & ~(index & 3u);");
    let start = some_words(count);
    let converged = build(body, count, 9).unwrap().run(&device.device, &start, LONG).unwrap();
    assert_eq!((converged.end, converged.iterations), (ConvergenceEnd::Converged, 2));
    let wrong = (0..).zip(&start).zip(&converged.words).find(|((index, word), end)| **end != **word & !(index & 3));
    assert_eq!(wrong, None);
}

#[test]
fn random_bodies_do_the_same_on_the_device_and_on_the_cpu() {
    let device = device();
    let lanes = device.lanes();
    let size = prop_oneof![1..3u32, lanes - 1..lanes + 2, 255..258u32, ONE_WORKGROUP - 1..ONE_WORKGROUP + 2];
    let shape = (any::<Expression>(), any::<Expression>(), 0..4u32, size, 1..12u32, any::<u32>());
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&shape, |(one, other, kind, count, limit, seed)| {
        let (a, b) = (one.glsl(), other.glsl());
        // Most functions run for ever; these do not, or leave words alone, or say themselves that something changed.
        let body = match kind {
            0 => format!("next[index] = {a};"),
            1 => format!("next[index] = max(current[index], ({a}) & 0x7fu);"),
            2 => format!("if (({a}) < ({b})) next[index] = min(current[index], {b});"),
            _ => format!("next[index] = current[index] | ({a});\nchanged = uint(({b}) % 64u == 5u);"),
        };
        let start: Vec<u32> = some_words(count).into_iter().map(|word| word ^ seed).collect();
        let transfer = |words: &[u32], index: u32| {
            let (a, b, own) = (one.value(words, index), other.value(words, index), words[index as usize]);
            match kind {
                0 => (a, false),
                1 => (own.max(a & 0x7f), false),
                2 => (if a < b { own.min(b) } else { own }, false),
                _ => (own | a, b % 64 == 5),
            }
        };
        let told = told(build(&body, count, limit).unwrap().run(&device.device, &start, LONG).unwrap());
        prop_assert!(told == on_cpu(&start, limit, transfer), "{count} words, limit {limit}: {body}");
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn an_index_past_the_end_is_taken_for_the_last_one() {
    let device = device();
    for count in [5, ONE_WORKGROUP + 5] {
        let start = some_words(count);
        // A word below 0, too.
        let body = "uint past = current[index + 1000000u];\nnext[index] = index < 2u ? past : current[index - 6u];";
        let told = told(build(body, count, 1).unwrap().run(&device.device, &start, LONG).unwrap());
        let last = start[count as usize - 1];
        let at = |index: u32| index.checked_sub(6).map_or(last, |index| start[index as usize]);
        let expected = (0..count).map(|index| if index < 2 { last } else { at(index) }).collect();
        assert_eq!(told, (ConvergenceEnd::LimitReached, 1, expected), "{count} words");
    }
}

#[test]
fn the_body_uses_the_names_that_it_was_given_and_its_own_macros() {
    let device = device();
    let body = "#define OF(x) was[x]\n// a comment {\nif (index < 2u) becomes[index] = OF(1u - index);\nmoved = 1u;";
    let build = TaskQueueSnapshot::build_state_convergence_program;
    let program = build(body, "was", "becomes", "moved", 3, 5).unwrap();
    let told = told(program.run(&device.device, &[7, 8, 9], LONG).unwrap());
    assert_eq!(told, (ConvergenceEnd::LimitReached, 5, vec![8, 7, 9]));
}

#[test]
fn a_body_that_does_nothing_converges_at_once() {
    let device = device();
    for count in [4, ONE_WORKGROUP + 1] {
        let start = some_words(count);
        let told = told(build("", count, 3).unwrap().run(&device.device, &start, LONG).unwrap());
        assert_eq!(told, (ConvergenceEnd::Converged, 1, start));
    }
}

#[test]
fn a_mistake_in_the_body_is_reported_with_its_line() {
    let line = |body: &str| match build(body, 8, 8) {
        Err(BackendError::TransferCompile { line, message }) => (line, message),
        other => panic!("{body}: {other:?}"),
    };
    assert_eq!(line("uint a = 1u;\nnext[index] = b;").0, Some(2));
    assert!(line("uint a = 1u;\nnext[index] = b;").1.contains('b'));
    assert_eq!(line("\n\nnext[index] = ;").0, Some(3));
    assert_eq!(line("#define X 1.0\n// a comment\n\nuint a = X;").0, Some(4));
    assert_eq!(line("next[index] = 1u;\ncurrent[index] = 2u;").0, Some(2), "`current` is read only");
    assert_eq!(line("next[index] = 1u;\n}\nvoid other() {").0, Some(2));
    assert_eq!(line("if (index > 1u) {").0, None);
    assert_eq!(line("next[index] = 1u;\n#extension GL_EXT_buffer_reference : require").0, Some(2));
    assert_eq!(line("uint a\0;").0, None);
    for body in ["next[index] = tr_push.words;", "tr_changes = 5u;", "tr_step(index);", "#error no"] {
        assert_eq!(line(body).0, Some(1), "{body}");
    }
}

#[test]
fn a_body_that_waits_for_others_is_refused() {
    for body in ["barrier();", "memoryBarrier(); barrier();"] {
        assert!(matches!(build(body, 8, 8), Err(BackendError::BadTransfer { .. })), "{body}");
    }
}

#[test]
fn bad_names_and_numbers_are_refused_with_what_they_must_be() {
    let option = |words, max_iterations| match build("", words, max_iterations) {
        Err(BackendError::BadOption { option, value, .. }) => (option, value),
        other => panic!("{other:?}"),
    };
    assert_eq!(option(0, 1), ("words", 0));
    assert_eq!(option((1 << 24) + 1, 1), ("words", (1 << 24) + 1));
    assert_eq!(option(1, 0), ("max_iterations", 0));
    let names = |current: &str, next: &str, changed: &str| {
        TaskQueueSnapshot::build_state_convergence_program("", current, next, changed, 1, 1)
    };
    assert!(names("a", "_b", "c1").is_ok());
    for bad in ["", "1a", "a b", "a-b", "a__b", "gl_a", "tr_a", "TR_a", "index", "uint", "while", "b", "c", "ä", "a\n"]
    {
        let refused = names(bad, "b", "c");
        assert!(matches!(&refused, Err(BackendError::BadTransfer { .. })), "`{bad}`: {refused:?}");
        assert!(names("b", bad, "c").is_err() && names("b", "c", bad).is_err(), "`{bad}`");
    }
    assert!(names("a", "b", "b").is_err());
}

#[test]
fn another_number_of_words_is_refused_and_the_next_run_is_right() {
    let device = device();
    let mut prepared = build("next[index] = 3u;", 2, 8).unwrap().prepare(&device.device).unwrap();
    for wrong in [&[][..], &[1], &[1, 2, 3]] {
        let refused = prepared.run(wrong, LONG);
        assert!(matches!(refused, Err(BackendError::BadOption { value, .. }) if value == wrong.len() as u64));
    }
    assert_eq!(told(prepared.run(&[1, 3], LONG).unwrap()), (ConvergenceEnd::Converged, 2, vec![3, 3]));
}

#[test]
fn a_run_that_timed_out_is_waited_for_by_the_next() {
    let device = device();
    let count = ONE_WORKGROUP;
    let mut prepared =
        build("next[index] = current[index] + 1u;", count, 120).unwrap().prepare(&device.device).unwrap();
    let start = some_words(count);
    let after: Vec<u32> = start.iter().map(|word| word.wrapping_add(120)).collect();
    let after = (ConvergenceEnd::LimitReached, 120, after);
    match prepared.run(&start, std::time::Duration::ZERO) {
        // A GPU may be done before anybody looks.
        Ok(done) => assert!(told(done) == after),
        refused => assert!(matches!(refused, Err(BackendError::Timeout { .. })), "{refused:?}"),
    }
    assert!(told(prepared.run(&start, LONG).unwrap()) == after);
}

#[test]
fn a_loop_that_the_driver_cuts_is_an_error_and_no_wrong_answer() {
    let device = device();
    // More turns than Mesa 22.3 lets an invocation take.
    let body = "uint x = current[index];\nfor (uint i = 0u; i < 70000u; ++i) x = x * 1664525u + 1013904223u;\nnext[index] = x;";
    let stepped = |word: u32| (0..70_000).fold(word, |x: u32, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for count in [3, ONE_WORKGROUP + 1] {
        let start = some_words(count);
        match build(body, count, 1).unwrap().run(&device.device, &start, LONG) {
            Ok(right) => {
                assert!(!device.ends_loops(), "it cuts");
                assert!((0..3).all(|index| right.words[index] == stepped(start[index])), "{count} words");
            }
            Err(BackendError::Protocol { what }) => assert!(what.contains("ended a loop"), "{what}"),
            Err(other) => panic!("{other}"),
        }
    }
}
