//! What a user's op may do, and what becomes of its mistakes.
#![cfg(feature = "shaderc")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers may stop it right there, as it may itself"
)]

#[path = "ops/accessors.rs"]
mod accessors;
mod common;
#[path = "ops/mistakes.rs"]
mod mistakes;
#[path = "ops/refused.rs"]
mod refused;

use common::{LONG, device, lane_program, run_all, words};
use taskring::*;

/// Adds `task.param` and the turn's number to word `param` of the output in each of four turns.
fn counting(name: &str, wide: bool) -> String {
    let word = if wide { "task.param * task_lanes() + task_lane()" } else { "task.param" };
    format!(
        "Turn {name}(TaskWorkItem task) {{
            uint word = {word};
            Buffer o = task_output(task);
            buffer_store(o, word, buffer_load(o, word) + word + task.continuation_pc);
            if (task.continuation_pc == 3u) return task_complete();
            return task_yield(task.continuation_pc + 1u, 0u);
        }}"
    )
}

#[test]
fn ops_of_both_widths_run_mixed_in_one_batch() {
    let device = device();
    let names = ["lane_a", "wide_a", "lane_b", "wide_b"];
    let is_wide = |op: usize| op % 2 == 1;
    let add = |builder: ProgramBuilder, (op, name): (usize, &&str)| {
        let width = if is_wide(op) { Width::Subgroup } else { Width::Lane };
        builder.op(*name, counting(name, is_wide(op)), width)
    };
    let program = names.iter().enumerate().fold(Program::builder(), add).build().unwrap();
    let runtime = device.runtime(&program, RuntimeOptions { capacity: 256, ..RuntimeOptions::default() });
    let each = 200;
    let buffers: Vec<_> = (0..4).map(|_| device.report(each * device.lanes())).collect();
    let register = |buffer| runtime.register_buffer(0, buffer, 0..u64::from(each * device.lanes()) * 4).unwrap();
    let outputs: Vec<BufferHandle> = buffers.iter().map(register).collect();
    let task = |n: u32| Task::new(n % 4).output(outputs[n as usize % 4]).param(n / 4).id(n).item();
    let tasks: Vec<TaskWorkItem> = (0..4 * each).map(task).collect();
    let mut ids: Vec<u32> = Vec::new();
    for done in run_all(&runtime, &tasks) {
        assert_eq!((done.outcome, done.yield_count), (Outcome::Done, 3), "{done:?}");
        ids.push(done.task_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..4 * each).collect::<Vec<_>>());
    for (op, buffer) in buffers.iter().enumerate() {
        let used = if is_wide(op) { each * device.lanes() } else { each };
        let expected = (0..each * device.lanes()).map(|word| if word < used { 4 * word + 6 } else { 0 });
        assert_eq!(words(buffer), expected.collect::<Vec<_>>(), "{}", names[op]);
    }
}

/// Runs `param` tasks of a wide op, each on 64 words of its own, and gives the words.
fn wide_tasks(glsl: &str, tasks: u32) -> (u32, Vec<u32>) {
    let device = device();
    let program = Program::builder().op("wide", glsl, Width::Subgroup).build().unwrap();
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let buffer = device.report(tasks * 256);
    let output = runtime.register_buffer(0, &buffer, 0..buffer.bytes()).unwrap();
    let items: Vec<TaskWorkItem> = (0..tasks).map(|n| Task::new(0).output(output).param(n * 256).item()).collect();
    for done in run_all(&runtime, &items) {
        assert_eq!(done.outcome, Outcome::Done, "{done:?}");
    }
    (device.lanes(), words(&buffer))
}

#[test]
fn a_barrier_makes_the_stores_of_a_lane_visible_to_the_others() {
    // A value goes round the lanes, one step a round; the rounds alternate between two rows so that one barrier a round is enough.
    let glsl = "Turn wide(TaskWorkItem task) {
        Buffer o = task_output(task);
        uint base = task.param;
        buffer_store(o, base + task_lane(), base + task_lane());
        task_barrier();
        for (uint round = 0u; round < 50u; ++round) {
            uint from = base + (round & 1u) * 128u;
            uint to = base + (~round & 1u) * 128u;
            buffer_store(o, to + task_lane(), buffer_load(o, from + (task_lane() + 1u) % task_lanes()) + 1u);
            task_barrier();
        }
        return task_complete();
    }";
    let (lanes, words) = wide_tasks(glsl, 40);
    for task in 0..40 {
        for lane in 0..lanes {
            let start = task * 256 + (lane + 50) % lanes;
            assert_eq!(words[(task * 256 + lane) as usize], start + 50, "task {task}, lane {lane}");
        }
    }
}

#[test]
fn an_op_may_share_memory_between_its_lanes() {
    let glsl = "shared uint box[128];
    Turn wide(TaskWorkItem task) {
        box[task_lane()] = task.param + task_lane();
        barrier();
        uint sum = 0u;
        for (uint lane = 0u; lane < task_lanes(); ++lane) sum += box[lane];
        barrier();
        buffer_store(task_output(task), task.param + task_lane(), sum);
        return task_complete();
    }";
    let (lanes, words) = wide_tasks(glsl, 40);
    for task in 0..40u32 {
        let sum = (0..lanes).map(|lane| task * 256 + lane).sum::<u32>();
        assert_eq!(words[(task * 256) as usize..][..lanes as usize], vec![sum; lanes as usize], "task {task}");
    }
}

#[test]
fn an_index_past_an_ops_own_array_stays_in_it() {
    // Each store is meant for element 1 of a `mid` of three; its neighbours tell where it went.
    let store = |declare: &str| {
        format!(
            "uint sum(uvec4 x) {{ return x.x + x.y + x.z + x.w; }}
            struct Three {{ uint low[4]; uint mid[3]; uvec4 high; }};
            {declare} Three global;
            {declare} uint sized[gl_WorkGroupSize.x];
            Turn wide(TaskWorkItem task) {{
                uint at = buffer_load(task_input(task), task.param);
                Buffer o = task_output(task);
                for (uint i = 0u; i < 4u; ++i) global.low[i] = global.high[i] = 0u;
                for (uint i = 0u; i < 3u; ++i) global.mid[i] = 0u;
                for (uint i = 0u; i < task_lanes(); ++i) sized[i] = 0u;
                global.mid[int(at)] = 7u;
                global.high[at] = 9u;
                sized[at] = 5u;
                buffer_store(o, 4u * task.param, global.mid[at] * 100u + global.mid[0] + global.mid[1] + global.mid[2]);
                buffer_store(o, 4u * task.param + 1u, global.low[0] + global.low[1] + global.low[2] + global.low[3]);
                buffer_store(o, 4u * task.param + 2u, global.high[at] * 100u + sum(global.high));
                buffer_store(o, 4u * task.param + 3u, sized[at] * 100u + sized[task_lanes() - 1u]);
                return task_complete();
            }}"
        )
    };
    let device = device();
    for declare in ["shared", ""] {
        let program = Program::builder().op("wide", store(declare), Width::Subgroup).build().unwrap();
        let runtime = device.runtime(&program, RuntimeOptions::default());
        let indices = [5u32, 1_000, 100_000_000, 1 << 30, 1 << 31, u32::MAX - 1, u32::MAX];
        let (input, output) = (device.report(7), device.report(28));
        input.mapped().unwrap().write(0, bytemuck::cast_slice(&indices)).unwrap();
        let input = runtime.register_buffer(0, &input, 0..28).unwrap();
        let found = runtime.register_buffer(0, &output, 0..112).unwrap();
        for n in 0..7 {
            let done = run_all(&runtime, &[Task::new(0).input(input).output(found).param(n).item()])[0];
            assert_eq!(done.outcome, Outcome::Done);
            let last_of_sized = if indices[n as usize] == 5 && device.lanes() > 6 { 500 } else { 505 };
            let words = &words(&output)[n as usize * 4..][..4];
            assert_eq!(words, [707, 0, 909, last_of_sized], "`{declare}` {}", indices[n as usize]);
        }
    }
}

#[test]
fn an_op_that_prints_runs_as_one_that_does_not() {
    let device = device();
    let prints = "#extension GL_EXT_debug_printf : require
        Turn prints(TaskWorkItem task) {
            debugPrintfEXT(\"task %u has %u\\\\n\", task.task_id, task.param);
            buffer_store(task_output(task), task.task_id, task.param);
            return task_complete();
        }";
    for width in [Width::Lane, Width::Subgroup] {
        let program = Program::builder().op("prints", prints, width).build().unwrap();
        let says: Vec<u8> = program.spirv().iter().flat_map(|word| word.to_le_bytes()).collect();
        let text = b"task %u has %u\n";
        assert!(says.windows(text.len()).any(|window| window == text), "what it prints is left in the kernel");
        let runtime = device.runtime(&program, RuntimeOptions { capacity: 64, ..RuntimeOptions::default() });
        let buffer = device.report(8);
        let output = runtime.register_buffer(0, &buffer, 0..32).unwrap();
        let tasks: Vec<_> = (0..8).map(|id| Task::new(0).output(output).id(id).param(id * 11).item()).collect();
        assert!(run_all(&runtime, &tasks).iter().all(|done| done.outcome == Outcome::Done));
        assert_eq!(words(&buffer), (0..8).map(|id| id * 11).collect::<Vec<u32>>());
    }
}

#[test]
fn what_an_op_does_to_its_copy_of_the_task_stays_there() {
    let device = device();
    let glsl = "Turn sly(TaskWorkItem task) {
        bool first = task.continuation_pc == 0u;
        task.tenant_id = 1u;
        task.state = 3u;
        task.task_id = 9u;
        task.priority = 77u;
        task.yield_count = 1000u;
        task.output_handle = task.param;
        buffer_store(task_output(task), 0u, 1u);
        return first ? task_yield(1u, 0u) : task_complete();
    }";
    let program = Program::builder().op("lane", glsl.replace("sly", "lane"), Width::Lane);
    let program = program.op("wide", glsl.replace("sly", "wide"), Width::Subgroup).build().unwrap();
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let (mine, theirs) = (device.report(1), device.report(1));
    let my_handle = runtime.register_buffer(0, &mine, 0..4).unwrap();
    let their_handle = runtime.register_buffer(1, &theirs, 0..4).unwrap();
    for op in [0, 1] {
        let item = |handle: BufferHandle| Task::new(op).param(handle.word()).id(5).item();
        let done = run_all(&runtime, &[item(my_handle)])[0];
        assert_eq!((done.outcome, done.task_id, done.yield_count), (Outcome::Done, 5, 1));
        assert_eq!(words(&mine), [1]);
        let refused = Outcome::Faulted(TASK_FAULT_BAD_HANDLE);
        assert_eq!(run_all(&runtime, &[item(their_handle)])[0].outcome, refused);
        assert_eq!(words(&theirs), [0]);
    }
}

#[test]
fn an_op_that_is_declared_unsafe_reaches_memory_by_address() {
    let device = device();
    let glsl = "layout(buffer_reference, std430, buffer_reference_align = 4) buffer Mine { uint word[]; };
    Turn poke(TaskWorkItem task) {
        Buffer i = task_input(task);
        Mine mine = Mine(uvec2(buffer_load(i, 0u), buffer_load(i, 1u)));
        mine.word[task.param] = 7u * task.param;
        return task_complete();
    }";
    // SAFETY: the only address that the tasks below pass is that of `target`, whose 64 words their parameters stay within.
    let poke = unsafe { OpSource::new("poke", glsl, Width::Lane).trusted() };
    let program = Program::builder().source(poke).build().unwrap();
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let (target, address) = (device.report(64), device.report(2));
    address.mapped().unwrap().write(0, bytemuck::bytes_of(&target.address())).unwrap();
    let input = runtime.register_buffer(0, &address, 0..8).unwrap();
    let tasks: Vec<TaskWorkItem> = (0..64).map(|n| Task::new(0).input(input).param(n).item()).collect();
    assert!(run_all(&runtime, &tasks).iter().all(|done| done.outcome == Outcome::Done));
    assert_eq!(words(&target), (0..64).map(|n| 7 * n).collect::<Vec<_>>());
}

fn shippable() -> Program {
    let add = OpSource::new("add", counting("add", false), Width::Lane).restartable();
    Program::builder().source(add).op("wide", counting("wide", true), Width::Subgroup).build().unwrap()
}

#[test]
fn a_program_that_went_through_bytes_runs_as_before() {
    let built = shippable();
    let program = Program::from_bytes(&built.to_bytes()).unwrap();
    assert_eq!(program, built);
    assert_eq!(program.ops().iter().map(Op::restartable).collect::<Vec<_>>(), [true, false]);
    let device = device();
    let runtime = device.runtime(&program, RuntimeOptions::default());
    let results = device.report(8);
    let output = runtime.register_buffer(0, &results, 0..32).unwrap();
    let task = Task::new(program.op("add").unwrap()).output(output).param(5);
    assert_eq!(runtime.submit(task).unwrap().wait(LONG).unwrap().outcome, Outcome::Done);
    assert_eq!(words(&results), [0, 0, 0, 0, 0, 26, 0, 0]);
}

#[test]
fn bytes_that_are_no_program_are_refused_with_a_reason() {
    let good = shippable().to_bytes();
    let code = good.windows(2).position(|pair| pair == b"\n\n").unwrap() + 2;
    let refused = |bytes: &[u8], words: &str| match Program::from_bytes(bytes) {
        Err(BackendError::BadProgram { reason }) => {
            assert!(reason.contains(words), "`{reason}` does not say `{words}`")
        }
        other => panic!("{other:?}"),
    };
    refused(b"", "no header");
    refused(&good[..code - 2], "no header");
    refused(&good[..code], "not SPIR-V");
    refused(&good[..good.len() - 1], "not SPIR-V");
    refused(&good[code..], "header");
    refused(b"\x7fELF\x02\x01\x01\n\n", "is not `taskring-program");
    refused(&[&good[..code], b"\0\0\0\0"].concat(), "not SPIR-V");
    let mut other_abi = good.clone();
    other_abi["taskring-program 1 ".len()] ^= 1;
    refused(&other_abi, "another version");
    let header =
        |ops: &str| [good.split(|byte| *byte == b'\n').next().unwrap(), ops.as_bytes(), &good[code - 2..]].concat();
    refused(&header("\nadd diagonal"), "no width");
    refused(&header("\nadd lane quickly"), "`quickly`");
}

#[test]
fn an_op_table_may_hold_a_hundred_ops() {
    let names: Vec<String> = (0..100).map(|n| format!("op_{n}")).collect();
    let text = |n: usize| format!("Turn op_{n}(TaskWorkItem task) {{ return task_fault({n}u + task.param); }}");
    let texts: Vec<String> = (0..100).map(text).collect();
    let ops: Vec<(&str, &str)> = names.iter().zip(&texts).map(|(name, text)| (&**name, &**text)).collect();
    let device = device();
    let runtime = device.runtime(&lane_program(&ops), RuntimeOptions::default());
    let tasks: Vec<TaskWorkItem> = (0..100).map(|op| Task::new(op).param(1000).id(op).item()).collect();
    for done in run_all(&runtime, &tasks) {
        assert_eq!(done.outcome, Outcome::Faulted(1000 + done.task_id));
    }
}
