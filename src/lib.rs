//! A task runtime that lives on the GPU.
//!
//! The host publishes 64-byte continuation tasks; a resident Vulkan compute kernel claims them by priority with aging and runs them. Tasks
//! complete, yield, pause until a timeline reaches an epoch, move to another priority, or fault, with no host in the loop while a slice runs.
//!
#![cfg_attr(feature = "shaderc", doc = "```no_run")]
#![cfg_attr(not(feature = "shaderc"), doc = "```ignore")]
//! use std::time::Duration;
//! use taskring::{BackendError, Device, DeviceOptions, Outcome, Program, Runtime, RuntimeOptions, Task, Width};
//!
//! /// Takes `param` turns, and gives way in between.
//! const COUNT: &str = "Turn count(TaskWorkItem task) {
//!     uint turns = task.continuation_data + 1u;
//!     if (turns < task.param) return task_yield(0u, turns);
//!     return task_complete();
//! }";
//!
//! fn main() -> Result<(), BackendError> {
//!     let device = Device::new(DeviceOptions::default())?;
//!     let program = Program::builder().op("count", COUNT, Width::Lane).build()?;
//!     let runtime = Runtime::new(&device, &program, RuntimeOptions::default())?;
//!
//!     let mut task = runtime.submit(Task::new(program.op("count")?).param(3))?;
//!     let completion = task.wait(Duration::from_secs(10))?;
//!     assert_eq!((completion.outcome, completion.yield_count), (Outcome::Done, 2));
//!     Ok(())
//! }
//! ```
//!
//! [`Task`] and [`Runtime`] are where to begin; [`program`] says what an op may do. `README.md` has an example with buffers and timelines, and the
//! features of the crate; `docs/INTEGRATION.md` is for engines that lend their device; `docs/ARCHITECTURE.md` is the five-minute tour;
//! `docs/MEMORY_MODEL.md` says who writes which word and in what order.

// docs.rs says then which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[doc(hidden)]
pub mod abi;
#[cfg(feature = "self-substrate-adapters")]
pub mod convergence;
pub mod device;
mod error;
#[doc(hidden)]
pub mod model;
pub mod policy;
pub mod program;
mod runtime;
mod telemetry;

pub use abi::TraceRecord;
pub use abi::{
    MegakernelWorkItem, TASK_FAULT_BAD_HANDLE, TASK_FAULT_BAD_PRIORITY, TASK_FAULT_BAD_STATE, TASK_FAULT_BAD_TENANT,
    TASK_FAULT_BAD_TIMELINE, TASK_FAULT_BAD_TURN, TASK_FAULT_CANCELLED, TASK_FAULT_COUNTER_OVERFLOW, TASK_FAULT_CUT,
    TASK_FAULT_OUT_OF_BOUNDS, TASK_FAULT_RUNTIME, TASK_FAULT_TIMELINE_CLOSED, TASK_FAULT_TIMELINE_LOST,
    TASK_FAULT_UNKNOWN_OP, TASK_FLAG_PAUSED, TASK_FLAG_REQUEUE_REQUESTED, TASK_FLAG_RESUME_READY,
    TASK_FLAG_TIMELINE_GENERATION_SHIFT, TASK_FLAG_TIMELINE_MASK, TASK_FLAG_TIMELINE_SHIFT, TASK_FLAG_YIELDED,
    TASK_PRIORITIES, TASK_PRIORITY_CRITICAL, TASK_PRIORITY_HIGH, TASK_PRIORITY_IDLE, TASK_PRIORITY_LOW,
    TASK_PRIORITY_NORMAL, TASK_SLOT_BYTES, TASK_SLOT_WORDS, TASK_STATE_DONE, TASK_STATE_EMPTY, TASK_STATE_FAULTED,
    TASK_STATE_PAUSED, TASK_STATE_READY, TASK_STATE_REQUEUED, TASK_STATE_RUNNING, TASK_STATE_YIELDED, TaskPriority,
    TaskState, TaskWorkItem, TimelineId,
};
// Inlined it would be three thousand pages of ash's.
#[doc(no_inline)]
pub use ash::{self, vk};
pub use bytemuck;
#[cfg(feature = "self-substrate-adapters")]
pub use convergence::{Convergence, ConvergenceEnd, ConvergenceProgram, PreparedConvergence};
pub use device::{
    Buffer, BufferDesc, Device, DeviceOptions, DeviceSelector, EngineDevice, EngineQueue, Mapped, MemoryKind,
    PipelineDesc, QueueLock, Requirements, Residency, SelfTest, Timeline,
};
pub use error::{BackendError, Rejection, TaskAction, TaskProblem};
pub use futures_core;
pub use gpu_allocator;
pub use policy::{Launch, LaunchDecision, LaunchFacts, LaunchPolicy, MegakernelLaunchRequest};
pub use program::{Op, Program, Width};
#[cfg(feature = "shaderc")]
pub use program::{OpSource, ProgramBuilder};
#[cfg(feature = "self-substrate-adapters")]
pub use runtime::PartitionTrend;
#[doc(hidden)]
pub use runtime::Push;
pub use runtime::{
    Accepted, BufferHandle, Carrier, Completion, Completions, Mode, Outcome, Runtime, RuntimeOptions, RuntimeStats,
    Signaller, StopReport, SubmissionId, Task, TaskHandle, Urgency,
};
pub use telemetry::TaskQueueSnapshot;

/// Runs the README's example.
#[cfg(all(doctest, feature = "shaderc"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the code of the integrators' guide.
#[cfg(all(doctest, feature = "shaderc"))]
#[doc = include_str!("../docs/INTEGRATION.md")]
struct Integration;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_share_can_be_shared_and_what_they_pass_on_can_be_passed_on() {
        const fn shared<T: Send + Sync>() {}
        const fn passed_on<T: Send>() {}
        const {
            shared::<Device>();
            shared::<Buffer>();
            shared::<Timeline>();
            shared::<Program>();
            shared::<Runtime>();
            shared::<BackendError>();
            passed_on::<TaskHandle>();
            passed_on::<Completions>();
        }
    }
}
