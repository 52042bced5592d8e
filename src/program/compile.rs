//! From GLSL to a [`Program`], with mistakes reported where they were made.

use std::sync::OnceLock;

use super::{Op, Program, Width, assemble, clamp, inspect};
use crate::error::BackendError;

/// The source of one op.
#[derive(Clone, Debug)]
#[must_use = "an op does nothing until it is in a program"]
pub struct OpSource {
    pub(super) name: String,
    pub(super) glsl: String,
    pub(super) width: Width,
    pub(super) restartable: bool,
    pub(super) trusted: bool,
    /// Whether it is in the kernel twice, once where a batch takes the shortest way.
    pub(super) quick: bool,
}

/// How long the text of a quick op may be, in bytes, preprocessed. Longer ones would crowd the instruction cache, and gain less.
const QUICK_TEXT: usize = 1024;

impl OpSource {
    /// An op `name` whose GLSL defines `Turn name(TaskWorkItem task)`; see the [module](crate::program) for what else it may use.
    pub fn new(name: impl Into<String>, glsl: impl Into<String>, width: Width) -> Self {
        Self { name: name.into(), glsl: glsl.into(), width, restartable: false, trusted: false, quick: false }
    }

    /// Declares that a turn of this op may run again from its start after the driver cut it, even if some of its stores have happened.
    /// Tasks of other ops fault then, with `TASK_FAULT_CUT`.
    pub fn restartable(mut self) -> Self {
        self.restartable = true;
        self
    }

    /// Declares the op unsafe: it may form its own pointers, and its SPIR-V is not inspected.
    ///
    /// # Safety
    /// Every access that the op makes by other means than the checked accessors must stay inside memory that is its own; buffer robustness
    /// features do not cover buffer addresses, so a stray store can overwrite anything that the process has on the device.
    pub unsafe fn trusted(mut self) -> Self {
        self.trusted = true;
        self
    }
}

/// Collects ops and compiles them with the scheduler.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it builds"]
pub struct ProgramBuilder {
    ops: Vec<OpSource>,
}

impl ProgramBuilder {
    /// Adds an op; shorthand for [`ProgramBuilder::source`] with [`OpSource::new`].
    pub fn op(self, name: impl Into<String>, glsl: impl Into<String>, width: Width) -> Self {
        self.source(OpSource::new(name, glsl, width))
    }

    /// Adds an op. Handles are given in order, from 0.
    pub fn source(mut self, op: OpSource) -> Self {
        self.ops.push(op);
        self
    }

    /// Compiles each op alone and then all of them into one kernel, and inspects what they declare and reach.
    ///
    /// # Errors
    /// [`BackendError::OpCompile`] with the op's name and its own line; [`BackendError::OpRejected`] for an op that reaches memory past the
    /// accessors and is not declared unsafe; [`BackendError::BadProgram`] for names that clash or are no names, and for no ops at all.
    pub fn build(mut self) -> Result<Program, BackendError> {
        let _span = tracing::info_span!("program.build", ops = self.ops.len()).entered();
        self.check_names()?;
        for op in &mut self.ops {
            op.glsl = preprocess(op)?;
            let alone = compile(&assemble::kernel(&[op]), false).map_err(|log| located(op, &log))?;
            if !op.trusted {
                inspect::Kernel::read(&alone)?.check_declarations(op)?;
            }
        }
        let text = assemble::kernel(&self.ops.iter().collect::<Vec<_>>());
        let together = inspect::Kernel::read(&compile(&text, false).map_err(|log| self.clash(log))?)?;
        for op in self.ops.iter().filter(|op| !op.trusted) {
            together.check_reach(op)?;
        }
        // Where a batch takes the shortest way, nobody looks whether the driver has ended a loop.
        for op in &mut self.ops {
            op.quick = op.width == Width::Lane && op.glsl.len() <= QUICK_TEXT && !together.loops(op);
        }
        let text = assemble::kernel(&self.ops.iter().collect::<Vec<_>>());
        let spirv = clamp::own_arrays(&compile(&text, true).map_err(|log| self.clash(log))?)?;
        let ops = self.ops.into_iter();
        let ops = ops.map(|op| Op { name: op.name, width: op.width, restartable: op.restartable, trusted: op.trusted });
        Ok(Program { ops: ops.collect(), spirv })
    }

    /// Each op compiled alone, so this is a name that two of them share.
    fn clash(&self, log: String) -> BackendError {
        let error = first_error(&log);
        let culprit = self.ops.iter().find(|op| error.starts_with(&format!("{}{}:", assemble::OP_FILE, op.name)));
        culprit.map_or_else(|| BackendError::BadProgram { reason: log.clone() }, |op| located(op, &log))
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

pub(crate) fn first_error(log: &str) -> &str {
    log.lines().find(|line| line.contains("error:")).unwrap_or_else(|| log.lines().next().unwrap_or_default())
}

/// The first error of a compiler log as the op's own, with the line in the op's source if it is there.
fn located(op: &OpSource, log: &str) -> BackendError {
    let error = first_error(log);
    let place = error.strip_prefix(&format!("{}{}:", assemble::OP_FILE, op.name));
    let (line, message) = match place.and_then(|rest| rest.split_once(": error: ")) {
        Some((line, message)) => (line.parse().ok(), message.to_owned()),
        None if error.starts_with(assemble::TABLE_FILE) => {
            (None, format!("it must define `Turn {}(TaskWorkItem task)` and close every brace ({error})", op.name))
        }
        // A linker's message goes on in the next line.
        None if error.contains("Linking") => {
            (None, log.split_whitespace().collect::<Vec<_>>().join(" ").replace("kernel: error: ", ""))
        }
        None => (None, error.to_owned()),
    };
    BackendError::OpCompile { op: op.name.clone(), line, message }
}

/// The op's source without macros, conditions and comments: what it says here it says in every program, and no macro of it gets into the
/// runtime's text or another op's. Lines stay where they were.
fn preprocess(op: &OpSource) -> Result<String, BackendError> {
    let (source, begin) = assemble::alone(op);
    let text = preprocessed(&source, &begin).map_err(|log| located(op, &log))?;
    // Instructions of its own making are what no inspection can judge. Directives come out of the preprocessor at the start of a line.
    for name in text.lines().filter_map(|line| line.trim_start().strip_prefix("#extension ")) {
        if !op.trusted && (name.trim_start().starts_with("all") || name.contains("spirv_intrinsics")) {
            let what = "asks for SPIR-V instructions of its own, or for all extensions".into();
            return Err(BackendError::OpRejected { op: op.name.clone(), what });
        }
    }
    Ok(text)
}

/// What follows the line `begin` of a source, without macros, conditions and comments.
///
/// # Errors
/// The compiler's words.
pub(crate) fn preprocessed(source: &str, begin: &str) -> Result<String, String> {
    if source.contains('\0') {
        return Err("the source holds a NUL character".into());
    }
    let text =
        with_compiler(|compiler, options| compiler.preprocess(source, "kernel", "main", Some(options)))?.as_text();
    let after = text.split_once(begin).map(|(_, after)| after.to_owned());
    Ok(after.unwrap_or(text))
}

/// SPIR-V of a whole kernel. Only the optimized one is for devices; the other keeps every function and name for inspection.
pub(crate) fn compile(source: &str, optimize: bool) -> Result<Vec<u32>, String> {
    let artifact = with_compiler(|compiler, options| {
        if optimize {
            options.set_optimization_level(shaderc::OptimizationLevel::Performance);
        }
        compiler.compile_into_spirv(source, shaderc::ShaderKind::Compute, "kernel", "main", Some(options))
    });
    artifact.map(|artifact| artifact.as_binary().to_vec())
}

fn with_compiler(
    work: impl FnOnce(&shaderc::Compiler, &mut shaderc::CompileOptions<'_>) -> shaderc::Result<shaderc::CompilationArtifact>,
) -> Result<shaderc::CompilationArtifact, String> {
    // One compiler for the process, which any number of threads may use at once: creating one costs some twenty times a compilation.
    static COMPILER: OnceLock<Option<shaderc::Compiler>> = OnceLock::new();
    let compiler = COMPILER.get_or_init(|| shaderc::Compiler::new().ok());
    let compiler = compiler.as_ref().ok_or("shaderc did not start")?;
    let mut options = shaderc::CompileOptions::new().map_err(|error| error.to_string())?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    options.set_target_spirv(shaderc::SpirvVersion::V1_5);
    options.set_optimization_level(shaderc::OptimizationLevel::Zero);
    work(compiler, &mut options).map_err(|error| match error {
        shaderc::Error::CompilationError(_, log) => log,
        other => other.to_string(),
    })
}
