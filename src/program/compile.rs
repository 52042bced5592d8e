//! From GLSL to a [`Program`], with mistakes reported where they were made.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Op, Program, Width, assemble, inspect};
use crate::error::BackendError;

/// The source of one op.
#[derive(Clone, Debug)]
pub struct OpSource {
    pub(super) name: String,
    pub(super) glsl: String,
    pub(super) width: Width,
    pub(super) restartable: bool,
    pub(super) trusted: bool,
}

impl OpSource {
    /// An op `name` whose GLSL defines `Turn name(TaskWorkItem task)`; see the [module](crate::program) for what else it may use.
    pub fn new(name: impl Into<String>, glsl: impl Into<String>, width: Width) -> Self {
        Self { name: name.into(), glsl: glsl.into(), width, restartable: false, trusted: false }
    }

    /// Declares that a turn of this op may run again from its start after the driver cut it, even if some of its stores have happened.
    /// Tasks of other ops fault then, with `TASK_FAULT_CUT`.
    #[must_use]
    pub fn restartable(mut self) -> Self {
        self.restartable = true;
        self
    }

    /// Declares the op unsafe: it may form its own pointers, and its SPIR-V is not inspected.
    ///
    /// # Safety
    /// Every access that the op makes by other means than the checked accessors must stay inside memory that is its own; buffer robustness
    /// features do not cover buffer addresses, so a stray store can overwrite anything that the process has on the device.
    #[must_use]
    pub unsafe fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }
}

/// Collects ops and compiles them with the scheduler.
#[derive(Clone, Debug, Default)]
pub struct ProgramBuilder {
    ops: Vec<OpSource>,
}

impl ProgramBuilder {
    /// Adds an op; shorthand for [`ProgramBuilder::source`] with [`OpSource::new`].
    #[must_use]
    pub fn op(self, name: impl Into<String>, glsl: impl Into<String>, width: Width) -> Self {
        self.source(OpSource::new(name, glsl, width))
    }

    /// Adds an op. Handles are given in order, from 0.
    #[must_use]
    pub fn source(mut self, op: OpSource) -> Self {
        self.ops.push(op);
        self
    }

    /// Compiles each op alone, inspects it, and compiles all of them into one kernel.
    ///
    /// # Errors
    /// [`BackendError::OpCompile`] with the op's name and its own line; [`BackendError::OpRejected`] for an op that reaches memory past the
    /// accessors and is not declared unsafe; [`BackendError::BadProgram`] for names that clash or are no names, and for no ops at all.
    pub fn build(self) -> Result<Program, BackendError> {
        let _span = tracing::info_span!("program.build", ops = self.ops.len()).entered();
        self.check_names()?;
        for op in &self.ops {
            let alone = compile(&assemble::kernel(&[op]), false).map_err(|log| located(op, &log))?;
            if !op.trusted {
                inspect::inspect(op, &alone)?;
            }
        }
        let all: Vec<&OpSource> = self.ops.iter().collect();
        let spirv = compile(&assemble::kernel(&all), true).map_err(|log| {
            let culprit =
                self.ops.iter().find(|op| first_error(&log).starts_with(&format!("{}{}:", assemble::OP_FILE, op.name)));
            // Each op compiled alone, so this is a name that two of them share.
            culprit.map_or_else(|| BackendError::BadProgram { reason: log.clone() }, |op| located(op, &log))
        })?;
        let ops = self.ops.into_iter();
        let ops = ops.map(|op| Op { name: op.name, width: op.width, restartable: op.restartable, trusted: op.trusted });
        Ok(Program { ops: ops.collect(), spirv })
    }

    fn check_names(&self) -> Result<(), BackendError> {
        let bad = |reason| Err(BackendError::BadProgram { reason });
        if self.ops.is_empty() {
            return bad("it has no ops".into());
        }
        for (index, op) in self.ops.iter().enumerate() {
            let name = &op.name;
            let mut letters = name.chars();
            let starts_well = letters.next().is_some_and(|first| first.is_ascii_alphabetic());
            if !starts_well || !letters.all(|c| c.is_ascii_alphanumeric() || c == '_') || name.contains("__") {
                return bad(format!("`{name}` cannot name a GLSL function"));
            }
            if ["tr_", "task_", "buffer_", "gl_"].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix)) {
                return bad(format!("the op name `{name}` begins like the runtime's own functions"));
            }
            if self.ops[..index].iter().any(|other| other.name == *name) {
                return bad(format!("two ops are named `{name}`"));
            }
        }
        Ok(())
    }
}

fn first_error(log: &str) -> &str {
    log.lines().find(|line| line.contains("error:")).unwrap_or_else(|| log.lines().next().unwrap_or_default())
}

/// The first error of a compiler log as the op's own, with the line in the op's source if it is there.
fn located(op: &OpSource, log: &str) -> BackendError {
    let error = first_error(log);
    let place = error.strip_prefix(&format!("{}{}:", assemble::OP_FILE, op.name));
    let (line, message) = match place.and_then(|rest| rest.split_once(": error: ")) {
        Some((line, message)) => (line.parse().ok(), message.to_owned()),
        None if error.starts_with(assemble::TABLE_FILE) => {
            (None, format!("it must define `Turn {}(TaskWorkItem task)` at its end's top level ({error})", op.name))
        }
        None => (None, error.to_owned()),
    };
    BackendError::OpCompile { op: op.name.clone(), line, message }
}

/// SPIR-V of a whole kernel. Only the optimized one is for devices; the other keeps every function and name for inspection.
pub(super) fn compile(source: &str, optimize: bool) -> Result<Vec<u32>, String> {
    // One compiler for the process: creating one costs some twenty times a compilation.
    static COMPILER: OnceLock<Option<Mutex<shaderc::Compiler>>> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| shaderc::Compiler::new().ok().map(Mutex::new));
    let compiler = compiler.as_ref().ok_or("shaderc did not start")?.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = shaderc::CompileOptions::new().map_err(|error| error.to_string())?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    options.set_target_spirv(shaderc::SpirvVersion::V1_5);
    let level = if optimize { shaderc::OptimizationLevel::Performance } else { shaderc::OptimizationLevel::Zero };
    options.set_optimization_level(level);
    let kind = shaderc::ShaderKind::Compute;
    let artifact = compiler.compile_into_spirv(source, kind, "kernel", "main", Some(&options));
    match artifact {
        Ok(artifact) => Ok(artifact.as_binary().to_vec()),
        Err(shaderc::Error::CompilationError(_, log)) => Err(log),
        Err(other) => Err(other.to_string()),
    }
}
