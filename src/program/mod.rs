//! Ops and programs: the users' GLSL, compiled together with the scheduler into one kernel.
//!
//! ```glsl
//! Turn square(TaskWorkItem task) {
//!     uint value = buffer_load(task_input(task), task.param);
//!     buffer_store(task_output(task), task.param, value * value);
//!     return task_complete();
//! }
//! ```
//!
//! An op is a GLSL function `Turn NAME(TaskWorkItem task)` that looks at `task.continuation_pc`, does one turn of work and says how the turn
//! ended: `task_complete()`, `task_yield(pc, data)`, `task_pause(pc, data, epoch)`, `task_pause_on(timeline, pc, data, epoch)`,
//! `task_requeue(pc, data, priority)` or `task_fault(code)`. It reaches memory through `task_input(task)`, `task_output(task)` and
//! `task_buffer(task, handle)` with `buffer_load`, `buffer_store`, `buffer_words` and the `buffer_atomic_*` functions, each of which checks
//! tenant, generation and length. All ops of a program share one namespace: prefix helpers with the op's name. Names that begin with `tr_`,
//! `task_`, `buffer_` or `TR_` are the runtime's. Macros end with their op.
//!
//! | | |
//! |---|---|
//! | `uint buffer_words(Buffer b)` | the length in words of 32 bits |
//! | `uint buffer_load(Buffer b, uint word)`, `void buffer_store(Buffer b, uint word, uint value)` | `word` counts words, not bytes |
//! | `uint buffer_atomic_load(b, word)`, `void buffer_atomic_store(b, word, value)` | |
//! | `uint buffer_atomic_add(b, word, value)`, and `and`, `or`, `xor`, `min`, `max`, `exchange` | give the value before |
//! | `uint buffer_atomic_compare_exchange(b, word, expected, value)` | likewise |
//! | `uint task_lane()`, `uint task_lanes()` | the lane of this invocation, and how many there are |
//! | `void task_barrier()` | in an op of [`Width::Subgroup`]: lanes see what others wrote |
//!
//! An op may have `shared` and global variables, and arrays of its own: an index past their end is clamped to their last element. A global
//! keeps its value from task to task, and cannot be initialized unless it is `const`. Devices are made without optional features, so an op
//! has no 64-bit, 16-bit or 8-bit numbers; it may use subgroup operations, where the device has them.
//!
//! To look at values, an op may say `#extension GL_EXT_debug_printf : require` and call `debugPrintfEXT("%u\\n", value)`, on devices of Vulkan
//! 1.3. It prints where the validation layer is told to; elsewhere the device passes over it. The text is preprocessed twice, so a line ends with two
//! backslashes and an `n`.
//!
//! With the feature `shaderc` a [`Program`] is built from source, in a process or in a `build.rs` ([`Program::to_bytes`]); without it a
//! program comes from such bytes ([`Program::from_bytes`]) and no compiler is needed.

#[cfg(feature = "shaderc")]
mod assemble;
#[cfg(feature = "shaderc")]
mod clamp;
mod clock;
#[cfg(feature = "shaderc")]
mod compile;
#[cfg(feature = "shaderc")]
mod inspect;
mod shipped;

#[cfg(feature = "shaderc")]
pub use compile::{OpSource, ProgramBuilder};

#[cfg(feature = "self-substrate-adapters")]
pub(crate) use clamp::own_arrays;
pub(crate) use clock::{declares, without_clock};
#[cfg(feature = "self-substrate-adapters")]
pub(crate) use compile::{compile, first_error, preprocessed};

use std::fmt;

use crate::abi;
use crate::error::BackendError;

/// How many lanes run one task of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Width {
    /// One lane runs a task; a subgroup runs a batch of them side by side. For small, scalar work.
    Lane = abi::TR_WIDTH_LANE,
    /// A whole subgroup runs a task: every lane executes the op, with the same `task` and the same control flow around `task_barrier()`.
    /// Lane 0 decides how the turn ends.
    Subgroup = abi::TR_WIDTH_SUBGROUP,
}

/// One entry of a program's op table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub(crate) name: String,
    pub(crate) width: Width,
    pub(crate) restartable: bool,
    pub(crate) trusted: bool,
}

impl Op {
    /// The op's name, which is also its GLSL function's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many lanes run one task.
    #[must_use]
    pub fn width(&self) -> Width {
        self.width
    }

    /// Whether a turn that was cut may run again.
    #[must_use]
    pub fn restartable(&self) -> bool {
        self.restartable
    }

    /// Whether the op was declared unsafe and so not inspected.
    #[must_use]
    pub fn trusted(&self) -> bool {
        self.trusted
    }
}

/// A compiled kernel and its op table. Independent of any device: it fits every subgroup size.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    ops: Vec<Op>,
    spirv: Vec<u32>,
}

impl Program {
    /// Starts a program from GLSL.
    #[cfg(feature = "shaderc")]
    pub fn builder() -> ProgramBuilder {
        ProgramBuilder::default()
    }

    /// The op table; an op's handle is its index.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The handle of the op of this name, for [`TaskWorkItem::op_handle`](crate::TaskWorkItem).
    ///
    /// # Errors
    /// [`BackendError::BadProgram`] names the ops that there are.
    pub fn op(&self, name: &str) -> Result<u32, BackendError> {
        let found = self.ops.iter().zip(0u32..).find(|(op, _)| op.name == name);
        found.map(|(_, handle)| handle).ok_or_else(|| {
            let known: Vec<_> = self.ops.iter().map(Op::name).collect();
            BackendError::BadProgram { reason: format!("it has no op `{name}`; its ops are: {}", known.join(", ")) }
        })
    }

    /// The kernel's SPIR-V (version 1.5, for Vulkan 1.2). Specialization constant 0 is the subgroup size.
    #[must_use]
    pub fn spirv(&self) -> &[u32] {
        &self.spirv
    }
}

/// Not the kernel, which is tens of thousands of words.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("ops", &self.ops).finish_non_exhaustive()
    }
}
