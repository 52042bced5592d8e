//! State convergence: an array of words that a transfer function is applied to until nothing changes any more.
//!
//! [`TaskQueueSnapshot::build_state_convergence_program`] makes a [`ConvergenceProgram`] from the GLSL of the transfer, which is a body of
//! statements that runs once for each word in each iteration:
//!
//! ```glsl
//! uint left = index == 0u ? 0u : current[index - 1u];
//! next[index] = max(current[index], left);
//! ```
//!
//! `current`, `next` and `changed` are the names that the caller gives to the three buffers:
//!
//! ```no_run
//! # use taskring::{BackendError, Convergence, Device, TaskQueueSnapshot};
//! # use std::time::Duration;
//! # fn run(device: &Device, body: &str, words: &[u32]) -> Result<Convergence, BackendError> {
//! let build = TaskQueueSnapshot::build_state_convergence_program;
//! let program = build(body, "current", "next", "changed", 1000, 64)?; // 1,000 words, at most 64 iterations
//! program.run(device, words, Duration::from_secs(1))
//! # }
//! ```
//!
//! - `index` is the word that the body runs for, a `uint`.
//! - `current` is an array of all words as the iteration before left them; the body may read any of them.
//! - `next` is an array of the same length. The body writes `next[index]` and no other word; one that it leaves alone stays as it was.
//! - `changed` is a `uint` that is 0 when the body begins. If it is something else at the end, the iteration has changed something; it has
//!   also if any word of `next` differs from that of `current`, so most bodies need not write it.
//!
//! An index past the end of either array is taken for the last one. The body has no functions of its own, no barriers and no memory but its
//! variables and the two arrays. Macros are fine.
//!
//! Iterations end when one of them has changed nothing, or at the limit ([`ConvergenceEnd`]).
//!
//! # How it runs
//! No workgroup waits for another. Up to [`ConvergenceProgram::ONE_WORKGROUP_WORDS`] one workgroup strides over all words and makes many
//! iterations in one dispatch, its invocations meeting in barriers. Beyond, an iteration is a *pass*: a dispatch of many workgroups, whose number
//! the pass before it has written to memory if it has changed something. So the passes that are left once nothing changes are
//! dispatches of no workgroups. One submission holds at most [`ConvergenceProgram::PASSES`] passes, or a dispatch of some ten thousand turns
//! of its loops: that keeps it short for watchdogs. If nothing has converged by its end, another one goes on.

mod compile;
mod run;

pub use run::PreparedConvergence;

use std::fmt;
use std::time::Duration;

use crate::device::Device;
use crate::error::BackendError;
use crate::telemetry::TaskQueueSnapshot;

/// A transfer function for a number of words, compiled; it fits every device.
#[derive(Clone, PartialEq, Eq)]
pub struct ConvergenceProgram {
    /// Debug names of the buffers of `current`, `next` and `changed`.
    names: [String; 3],
    words: u32,
    max_iterations: u32,
    spirv: Vec<u32>,
}

/// Why the iterations ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvergenceEnd {
    /// The last iteration changed nothing.
    Converged,
    /// The last iteration changed something, and was the last that is allowed.
    LimitReached,
}

/// What the iterations came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Convergence {
    /// Why they ended.
    pub end: ConvergenceEnd,
    /// How many there were, the one that changed nothing included: at least 1.
    pub iterations: u32,
    /// The words after the last one.
    pub words: Vec<u32>,
}

impl ConvergenceProgram {
    /// The most words that one workgroup strides over in one dispatch. With workgroups of 256 an invocation has 64 of them then.
    /// Where the passes of many workgroups begin to be faster is not measured.
    pub const ONE_WORKGROUP_WORDS: u32 = 1 << 14;
    /// The most words.
    pub const MOST_WORDS: u32 = 1 << 24;
    /// Passes in one submission.
    pub const PASSES: u32 = 64;

    /// The number of words.
    #[must_use]
    pub fn words(&self) -> u32 {
        self.words
    }

    /// The limit on iterations.
    #[must_use]
    pub fn max_iterations(&self) -> u32 {
        self.max_iterations
    }

    /// Whether one workgroup does it all, and not passes of many.
    #[must_use]
    pub fn is_one_workgroup(&self) -> bool {
        self.words <= Self::ONE_WORKGROUP_WORDS
    }

    /// The kernel's SPIR-V (version 1.5, for Vulkan 1.2). Specialization constant 0 is the workgroup's size.
    #[must_use]
    pub fn spirv(&self) -> &[u32] {
        &self.spirv
    }

    /// Makes the pipeline and the buffers for a device, to run any number of times.
    ///
    /// # Errors
    /// What allocating and building the pipeline may give.
    pub fn prepare(&self, device: &Device) -> Result<PreparedConvergence, BackendError> {
        PreparedConvergence::new(device, self)
    }

    /// Runs it once: [`ConvergenceProgram::prepare`] and [`PreparedConvergence::run`].
    ///
    /// # Errors
    /// As those two.
    pub fn run(&self, device: &Device, words: &[u32], timeout: Duration) -> Result<Convergence, BackendError> {
        self.prepare(device)?.run(words, timeout)
    }
}

/// Not the kernel, which is thousands of words.
impl fmt::Debug for ConvergenceProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, words, max_iterations, .. } = self;
        let mut shown = f.debug_struct("ConvergenceProgram");
        shown
            .field("names", names)
            .field("words", words)
            .field("max_iterations", max_iterations)
            .finish_non_exhaustive()
    }
}

impl TaskQueueSnapshot {
    /// Compiles a transfer body that runs over `words` words, from 1 to 2^24, until nothing changes or for `max_iterations`, at least 1. The
    /// [module](crate::convergence) says what the body may do and what the three names mean in it.
    ///
    /// # Errors
    /// [`BackendError::TransferCompile`] with the line in the body; [`BackendError::BadOption`] for a number out of range;
    /// [`BackendError::BadTransfer`] for names that are equal or are no GLSL names, and for a body that reaches for more than it has.
    pub fn build_state_convergence_program(
        transfer_body: &str,
        current_buffer: &str,
        next_buffer: &str,
        changed_buffer: &str,
        words: u32,
        max_iterations: u32,
    ) -> Result<ConvergenceProgram, BackendError> {
        let _span = tracing::info_span!("convergence.build", words, max_iterations).entered();
        let names = [current_buffer, next_buffer, changed_buffer];
        let spirv = compile::compile(transfer_body, names, words, max_iterations)?;
        Ok(ConvergenceProgram { names: names.map(str::to_owned), words, max_iterations, spirv })
    }
}
