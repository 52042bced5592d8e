//! An op whose turns follow from the task's `param` and `continuation_pc` alone, in GLSL and in Rust.
#![allow(dead_code, reason = "not every test file needs the Rust half")]

use taskring::model::TaskTurn;
use taskring::{Program, TaskWorkItem, Width};

/// Set in `param`: this task never pauses.
const NEVER_PAUSES: u32 = 0x4000_0000;

/// Each turn of a task with an output counts itself there, at the word of its `task_id`.
const GLSL: &str = "
uint NAME_hash(uint x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}
Turn NAME(TaskWorkItem task) {
    if (task.output_handle != 0u && COUNTS) buffer_atomic_add(task_output(task), task.task_id, 1u);
    uint pc = task.continuation_pc;
    uint h = NAME_hash(task.param ^ (pc * 0x9e3779b9u));
    if (pc >= (task.param & 7u)) return (task.param >> 3 & 15u) == 0u ? task_fault(task.param & 0xffffu) : task_complete();
    bool pauses = (task.param & 0x40000000u) == 0u;
    switch (h & 3u) {
    case 0u: return task_yield(pc + 1u, h);
    case 1u: return task_requeue(pc + 1u, h, (h >> 16) % 64u == 0u ? 5u : (h >> 8) % 5u);
    case 2u: return pauses ? task_pause(pc + 1u, h, (h >> 8) % 64u) : task_yield(pc + 1u, h);
    default: return pauses ? task_pause_on((h >> 24) % 16u == 0u ? 7u : h >> 20 & 1u, pc + 1u, h, (h >> 8) % 64u) : task_yield(pc + 1u, h);
    }
}";

/// Op 0 runs in a lane, op 1 in a subgroup.
pub(super) fn program() -> Program {
    let lane = GLSL.replace("NAME", "script_lane").replace("COUNTS", "true");
    let wide = GLSL.replace("NAME", "script_wide").replace("COUNTS", "task_lane() == 0u");
    let builder = Program::builder().op("script_lane", lane, Width::Lane).op("script_wide", wide, Width::Subgroup);
    builder.build().expect("a program")
}

pub(super) fn without_pauses(param: u32) -> u32 {
    param | NEVER_PAUSES
}

fn hash(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The turn that the op takes.
pub(super) fn turn(task: &TaskWorkItem) -> TaskTurn {
    let (param, pc) = (task.param, task.continuation_pc);
    let data = hash(param ^ pc.wrapping_mul(0x9e37_79b9));
    if pc >= param & 7 {
        return if param >> 3 & 15 == 0 { TaskTurn::Fault { code: param & 0xffff } } else { TaskTurn::Complete };
    }
    let (pc, epoch) = (pc + 1, (data >> 8) % 64);
    match data & 3 {
        1 => {
            TaskTurn::Requeue { pc, data, priority: if (data >> 16).is_multiple_of(64) { 5 } else { (data >> 8) % 5 } }
        }
        2 if param & NEVER_PAUSES == 0 => TaskTurn::Pause { timeline: None, pc, data, epoch },
        3 if param & NEVER_PAUSES == 0 => {
            let timeline = if (data >> 24).is_multiple_of(16) { 7 } else { data >> 20 & 1 };
            TaskTurn::Pause { timeline: Some(timeline), pc, data, epoch }
        }
        _ => TaskTurn::Yield { pc, data },
    }
}
