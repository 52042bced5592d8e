//! From a transfer body to a kernel, with mistakes reported where they were made.

use rspirv::dr::{Module, Operand};
use rspirv::spirv::{AddressingModel, Capability, Op, StorageClass};

use super::ConvergenceProgram;
use crate::error::BackendError;
use crate::program;

const HEADER: &str = "#version 460
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_cpp_style_line_directive : require
#extension GL_KHR_memory_scope_semantics : require
layout(local_size_x_id = 0) in;
";

/// What the compiler's messages call the transfer body.
const BODY_FILE: &str = "transfer";
/// And what stands around it, where the caller's names are declared.
const NAMES_FILE: &str = "names";
/// What the body calls its own word.
const INDEX: &str = "index";

/// The two kernels of `convergence.comp`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// Never writes `current`, so this is the one that a body is judged in.
    Pass,
    OneWorkgroup,
}

/// SPIR-V of the kernel for so many words.
pub(super) fn compile(body: &str, names: [&str; 3], words: u32, max_iterations: u32) -> Result<Vec<u32>, BackendError> {
    check_number("words", words, ConvergenceProgram::MOST_WORDS, "from 1 to 2^24")?;
    check_number("max_iterations", max_iterations, u32::MAX, "at least 1")?;
    check_names(names)?;
    let begin = format!("#line 1 \"{BODY_FILE}\"\n");
    let body = program::preprocessed(&format!("{HEADER}{begin}{body}"), &begin).map_err(|log| located(&log))?;
    check_body(&body)?;
    let source = |kernel| source(&body, names, words, kernel);
    let judged = program::compile(&source(Kernel::Pass), false).map_err(|log| located(&log))?;
    check_reach(&judged)?;
    let kernel = if words <= ConvergenceProgram::ONE_WORKGROUP_WORDS { Kernel::OneWorkgroup } else { Kernel::Pass };
    let spirv = program::compile(&source(kernel), true).map_err(|log| located(&log))?;
    program::own_arrays(&spirv)
}

fn check_number(option: &'static str, value: u32, most: u32, must: &'static str) -> Result<(), BackendError> {
    let within = (1..=most).contains(&value);
    if within { Ok(()) } else { Err(BackendError::BadOption { option, value: value.into(), must }) }
}

fn bad<T>(reason: String) -> Result<T, BackendError> {
    Err(BackendError::BadTransfer { reason })
}

/// Whether the names can be declared; keywords are left to the compiler.
fn check_names(names: [&str; 3]) -> Result<(), BackendError> {
    for (index, name) in names.iter().enumerate() {
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.contains("__") {
            return bad(format!("`{name}` cannot name a GLSL variable"));
        }
        if *name == INDEX || ["tr_", "gl_"].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix)) {
            return bad(format!("the name `{name}` is taken"));
        }
        if names[..index].contains(name) {
            return bad(format!("two buffers are named `{name}`"));
        }
    }
    Ok(())
}

/// Whether what is left of the body after the preprocessor is statements and nothing else.
fn check_body(body: &str) -> Result<(), BackendError> {
    let mut depth = 0i64;
    for (line, text) in (1..).zip(body.lines()) {
        let error = |message: &str| Err(BackendError::TransferCompile { line: Some(line), message: message.into() });
        if text.trim_start().starts_with("#extension") || text.trim_start().starts_with("#version") {
            return error("the body cannot ask for extensions or versions");
        }
        for c in text.chars() {
            depth += i64::from(c == '{') - i64::from(c == '}');
            if depth < 0 {
                return error("a brace is closed that was not opened");
            }
        }
    }
    if depth == 0 {
        return Ok(());
    }
    Err(BackendError::TransferCompile { line: None, message: format!("{depth} braces are not closed") })
}

/// The names are declared before the body and everything else after it, so the body sees the two arrays, its word, and nothing of the kernel.
fn source(body: &str, [current, next, changed]: [&str; 3], words: u32, kernel: Kernel) -> String {
    let (access, define) = match kernel {
        Kernel::Pass => ("readonly", ""),
        Kernel::OneWorkgroup => ("", "#define TR_ONE_WORKGROUP\n"),
    };
    let commit = match kernel {
        Kernel::Pass => String::new(),
        Kernel::OneWorkgroup => {
            format!("void tr_commit(uint {INDEX}) {{ {current}[{INDEX}] = {next}[{INDEX}]; }}\n")
        }
    };
    let passes = ConvergenceProgram::PASSES;
    format!(
        "{HEADER}#line 1 \"{NAMES_FILE}\"
uint {changed};
layout(set = 0, binding = 0, std430) nonprivate {access} buffer TrCurrent {{ uint {current}[{words}]; }};
layout(set = 0, binding = 1, std430) nonprivate buffer TrNext {{ uint {next}[{words}]; }};
void tr_transfer(const uint {INDEX}) {{
#line 1 \"{BODY_FILE}\"
{body}
#line 1 \"{NAMES_FILE}\"
}}
bool tr_step(uint {INDEX}) {{
    {changed} = 0u;
    {next}[{INDEX}] = {current}[{INDEX}];
    tr_transfer({INDEX});
    return {changed} != 0u || {next}[{INDEX}] != {current}[{INDEX}];
}}
{commit}{define}const uint TR_PASSES = {passes}u;
#line 1 \"convergence.comp\"
{}",
        include_str!("../../glsl/convergence.comp")
    )
}

/// The first error of a compiler log, with the line in the body if it is there.
fn located(log: &str) -> BackendError {
    let error = program::first_error(log);
    let place = error.strip_prefix(&format!("{BODY_FILE}:"));
    match place.and_then(|rest| rest.split_once(": error: ")) {
        Some((line, message)) => BackendError::TransferCompile { line: line.parse().ok(), message: message.to_owned() },
        None if error.starts_with(NAMES_FILE) => {
            let reason =
                format!("the three names must be ones that GLSL allows, and the body whole statements ({error})");
            BackendError::BadTransfer { reason }
        }
        None => BackendError::TransferCompile { line: None, message: error.to_owned() },
    }
}

/// Refuses a body that has found a way to more than its arrays and variables, or that waits for other invocations.
fn check_reach(spirv: &[u32]) -> Result<(), BackendError> {
    let module: Module =
        rspirv::dr::load_words(spirv).or_else(|error| bad(format!("the compiler's SPIR-V is unreadable: {error}")))?;
    const OURS: [Capability; 3] =
        [Capability::Shader, Capability::VulkanMemoryModel, Capability::VulkanMemoryModelDeviceScope];
    for capability in module.capabilities.iter().flat_map(|i| &i.operands) {
        if !matches!(capability, Operand::Capability(one) if OURS.contains(one)) {
            return bad(format!("the body asks for {capability}, which the kernel does not have"));
        }
    }
    let logical = Operand::AddressingModel(AddressingModel::Logical);
    if module.memory_model.as_ref().and_then(|i| i.operands.first()) != Some(&logical) {
        return bad("the body forms pointers".into());
    }
    if module.all_inst_iter().any(|i| i.class.opcode == Op::ControlBarrier) {
        return bad("the body waits for other invocations, which do not all come there".into());
    }
    // Four buffers and the push constants are the kernel's own.
    let variables = module.types_global_values.iter().filter(|i| i.class.opcode == Op::Variable);
    let inner = [StorageClass::Input, StorageClass::Private].map(Operand::StorageClass);
    if variables.filter(|i| i.operands.first().is_some_and(|class| !inner.contains(class))).count() != 5 {
        return bad("the body declares memory of its own".into());
    }
    Ok(())
}
