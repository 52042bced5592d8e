//! The text of a kernel: the scheduler's files, the ops between them, and the op table as GLSL.

use std::fmt::Write as _;

use super::{OpSource, Width};
use crate::abi;

const HEADER: &str = "#version 460
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_cpp_style_line_directive : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_shader_realtime_clock : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x_id = 0) in;
";

/// What the compiler's messages call an op's source.
pub(super) const OP_FILE: &str = "op:";
/// What the compiler's messages call the generated op table.
pub(super) const TABLE_FILE: &str = "ops.glsl";

/// One op's source for the preprocessor, which sees nothing else, and the line after which the op begins.
pub(super) fn alone(op: &OpSource) -> (String, String) {
    let begin = format!("#line 1 \"{OP_FILE}{}\"\n", op.name);
    (format!("{HEADER}{begin}{}", op.glsl), begin)
}

/// The kernel's source; the ops are preprocessed. Ops stand before the scheduler, so they see the accessors and nothing of the rings.
pub(super) fn kernel(ops: &[&OpSource]) -> String {
    let mut text = String::from(HEADER);
    let file = |text: &mut String, name: &str, body: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "#line 1 \"{name}\"\n{body}");
    };
    file(&mut text, "abi.glsl", abi::ABI_GLSL);
    file(&mut text, "memory.glsl", include_str!("../../glsl/memory.glsl"));
    file(&mut text, "task.glsl", include_str!("../../glsl/task.glsl"));
    for op in ops {
        file(&mut text, &format!("{OP_FILE}{}", op.name), &op.glsl);
        // What an op's `precision` statement says ends with it; so do its macros, which were expanded before.
        text.push_str("precision highp int;\nprecision highp float;\n");
    }
    file(&mut text, TABLE_FILE, &table(ops));
    file(&mut text, "turns.glsl", include_str!("../../glsl/turns.glsl"));
    file(&mut text, "rings.glsl", include_str!("../../glsl/rings.glsl"));
    file(&mut text, "select.glsl", include_str!("../../glsl/select.glsl"));
    file(&mut text, "epochs.glsl", include_str!("../../glsl/epochs.glsl"));
    file(&mut text, "keep.glsl", include_str!("../../glsl/keep.glsl"));
    file(&mut text, "place.glsl", include_str!("../../glsl/place.glsl"));
    file(&mut text, "listen.glsl", include_str!("../../glsl/listen.glsl"));
    file(&mut text, "wake.glsl", include_str!("../../glsl/wake.glsl"));
    file(&mut text, "admit.glsl", include_str!("../../glsl/admit.glsl"));
    file(&mut text, "slice.glsl", include_str!("../../glsl/slice.glsl"));
    file(&mut text, "scheduler.comp", include_str!("../../glsl/scheduler.comp"));
    text
}

/// The op table: how wide each op is, and one function a width that calls the right one.
fn table(ops: &[&OpSource]) -> String {
    let mut widths = String::new();
    let mut lane = String::new();
    let (mut quick, mut quick_lane) = (String::new(), String::new());
    let mut wide = String::new();
    for (handle, op) in ops.iter().enumerate() {
        let name = &op.name;
        let (constant, calls) = match op.width {
            Width::Lane => ("TR_WIDTH_LANE", &mut lane),
            Width::Subgroup => ("TR_WIDTH_SUBGROUP", &mut wide),
        };
        let _ = writeln!(widths, "    case {handle}u: return {constant};");
        let _ = writeln!(calls, "    case {handle}u: return {name}(task);");
        if op.quick {
            let _ = writeln!(quick, "    case {handle}u: return true;");
            let _ = writeln!(quick_lane, "    case {handle}u: return {name}(task);");
        }
    }
    // A width without ops still needs its function, and a switch needs a label.
    format!(
        "uint tr_op_width(uint op) {{\n    switch (op) {{\n{widths}    default: return TR_WIDTH_UNKNOWN;\n    }}\n}}\n\
         bool tr_is_quick(uint op) {{\n    switch (op) {{\n{quick}    default: return false;\n    }}\n}}\n\
         Turn tr_run_quick(TaskWorkItem task) {{\n    switch (task.op_handle) {{\n{quick_lane}    default: return task_fault(TASK_FAULT_UNKNOWN_OP);\n    }}\n}}\n\
         Turn tr_run_lane(TaskWorkItem task) {{\n    switch (task.op_handle) {{\n{lane}    default: return task_fault(TASK_FAULT_UNKNOWN_OP);\n    }}\n}}\n\
         Turn tr_run_wide(TaskWorkItem task) {{\n    switch (task.op_handle) {{\n{wide}    default: return task_fault(TASK_FAULT_UNKNOWN_OP);\n    }}\n}}\n"
    )
}
