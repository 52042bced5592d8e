//! The ops that the scenarios run.

use taskring::{BackendError, Program, Width};

/// Completes.
pub const NOTHING: u32 = 0;
/// Yields as often as its parameter says, then completes.
pub const YIELDS: u32 = 1;
/// Moves to the next priority as often as its parameter says, then completes.
pub const REQUEUES: u32 = 2;

/// The program of these ops.
///
/// # Errors
/// [`BackendError::BadProgram`] if the compiler does not take it.
pub fn program() -> Result<Program, BackendError> {
    Program::builder()
        .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
        .op(
            "yields",
            "Turn yields(TaskWorkItem task) {
                if (task.continuation_pc < task.param) return task_yield(task.continuation_pc + 1u, 0u);
                return task_complete();
            }",
            Width::Lane,
        )
        .op(
            "requeues",
            "Turn requeues(TaskWorkItem task) {
                uint pc = task.continuation_pc;
                if (pc < task.param) return task_requeue(pc + 1u, 0u, (task.priority + 1u) % TASK_PRIORITIES);
                return task_complete();
            }",
            Width::Lane,
        )
        .build()
}
