//! What an op's SPIR-V does that its source may have hidden: the walk from the op's function over everything that it calls.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use rspirv::dr::{Instruction, Module, Operand};
use rspirv::spirv::{Op, StorageClass, Word};

use super::{OpSource, Width, assemble, compile};
use crate::error::BackendError;

/// The functions and module variables that a kernel has of its own.
struct Own {
    functions: HashSet<String>,
    variables: HashSet<String>,
    spec_ids: usize,
}

fn parse(spirv: &[u32]) -> Result<Module, BackendError> {
    let unreadable =
        |error: String| BackendError::BadProgram { reason: format!("the compiler's SPIR-V is unreadable: {error}") };
    rspirv::dr::load_words(spirv).map_err(|error| unreadable(error.to_string()))
}

fn names(module: &Module) -> HashMap<Word, &str> {
    let named = module.debug_names.iter().filter_map(|i| match i.operands.as_slice() {
        [Operand::IdRef(id), Operand::LiteralString(name)] => Some((*id, name.as_str())),
        _ => None,
    });
    named.collect()
}

fn spec_ids(module: &Module) -> usize {
    let decorations = module.annotations.iter();
    decorations.filter(|i| i.operands.contains(&Operand::Decoration(rspirv::spirv::Decoration::SpecId))).count()
}

/// An op that calls every public function: the compiler drops the ones that nobody calls, and what is not in this kernel counts as the op's own.
const CALLS_EVERYTHING: &str = "
Turn everything(TaskWorkItem task) {
    Buffer b = task_buffer(task, task.param);
    Buffer i = task_input(task);
    Buffer o = task_output(task);
    uint x = task_lane() + task_lanes() + buffer_words(b) + buffer_load(i, 0u) + buffer_atomic_load(o, 0u);
    x += buffer_atomic_add(b, 0u, x) + buffer_atomic_and(b, 0u, x) + buffer_atomic_or(b, 0u, x) + buffer_atomic_xor(b, 0u, x);
    x += buffer_atomic_min(b, 0u, x) + buffer_atomic_max(b, 0u, x) + buffer_atomic_exchange(b, 0u, x);
    x += buffer_atomic_compare_exchange(b, 0u, x, x);
    buffer_store(b, 0u, x);
    buffer_atomic_store(b, 0u, x);
    task_barrier();
    switch (x) {
    case 0u: return task_yield(0u, 0u);
    case 1u: return task_pause(0u, 0u, 0u);
    case 2u: return task_pause_on(0u, 0u, 0u, 0u);
    case 3u: return task_requeue(0u, 0u, 0u);
    case 4u: return task_fault(0u);
    default: return task_complete();
    }
}";

/// The runtime's own part, read off a kernel whose only op calls every public function.
fn own() -> Result<&'static Own, BackendError> {
    static OWN: OnceLock<Result<Own, BackendError>> = OnceLock::new();
    let read = || {
        let everything = OpSource::new("everything", CALLS_EVERYTHING, Width::Subgroup);
        let kernel = assemble::kernel(&[&everything]);
        let spirv = compile::compile(&kernel, false).map_err(|reason| BackendError::BadProgram { reason })?;
        let module = parse(&spirv)?;
        let names = names(&module);
        let name = |i: &Instruction| i.result_id.and_then(|id| names.get(&id)).map(|name| (*name).to_owned());
        let functions = module.functions.iter().filter_map(|f| f.def.as_ref()).filter_map(name);
        let variables = module.types_global_values.iter().filter(|i| i.class.opcode == Op::Variable).filter_map(name);
        Ok(Own {
            functions: functions.filter(|name| !name.starts_with("everything(")).collect(),
            variables: variables.collect(),
            spec_ids: spec_ids(&module),
        })
    };
    OWN.get_or_init(read).as_ref().map_err(Clone::clone)
}

/// Refuses an op that could touch memory other than through the checked accessors.
///
/// # Errors
/// [`BackendError::OpRejected`] says what it does.
pub(super) fn inspect(op: &OpSource, spirv: &[u32]) -> Result<(), BackendError> {
    let own = own()?;
    let module = parse(spirv)?;
    let names = names(&module);
    let name = |id: Word| names.get(&id).copied().unwrap_or_default();
    let reject = |what: String| Err(BackendError::OpRejected { op: op.name.clone(), what });

    if spec_ids(&module) > own.spec_ids {
        return reject("declares a specialization constant".into());
    }
    let mut raw_pointers = HashSet::new();
    let mut runtime_variables = HashSet::new();
    for i in &module.types_global_values {
        let Some(id) = i.result_id else { continue };
        match (i.class.opcode, i.operands.first()) {
            (Op::TypePointer, Some(Operand::StorageClass(StorageClass::PhysicalStorageBuffer))) => {
                raw_pointers.insert(id);
            }
            (Op::Variable, Some(Operand::StorageClass(_))) if own.variables.contains(name(id)) => {
                runtime_variables.insert(id);
            }
            (Op::Variable, Some(Operand::StorageClass(class))) => {
                use StorageClass::{Input, Private, Workgroup};
                if ![Input, Private, Workgroup].contains(class) {
                    let name = name(id);
                    return reject(format!("declares `{name}`, a descriptor or push constant of its own ({class:?})"));
                }
            }
            _ => {}
        }
    }
    // Built-in inputs are the device's to write.
    runtime_variables.retain(|id| !name(*id).starts_with("gl_"));

    let functions: HashMap<Word, &rspirv::dr::Function> =
        module.functions.iter().filter_map(|f| f.def.as_ref()?.result_id.map(|id| (id, f))).collect();
    // The op's own functions, called or not: an uncalled one may be called by another op.
    for (id, function) in functions.iter().filter(|(id, _)| !own.functions.contains(name(**id))) {
        let inside = name(*id).split('(').next().unwrap_or_default().to_owned();
        for i in function.all_inst_iter() {
            let used = i.operands.iter().filter_map(Operand::id_ref_any);
            if let Some(variable) = used.clone().find(|id| runtime_variables.contains(id)) {
                return reject(format!("uses the runtime's `{}` in `{inside}`", name(variable)));
            }
            if i.result_type.is_some_and(|kind| raw_pointers.contains(&kind)) {
                return reject(format!("forms its own pointer in `{inside}`"));
            }
            if i.class.opcode == Op::FunctionCall {
                let callee = used.clone().map(name).find(|name| own.functions.contains(*name)).unwrap_or_default();
                if callee.starts_with("tr_") {
                    let callee = callee.split('(').next().unwrap_or_default();
                    return reject(format!("calls the runtime's `{callee}` in `{inside}`"));
                }
                if callee.starts_with("task_barrier(") && op.width == Width::Lane {
                    return reject(format!("waits for other lanes in `{inside}`, which a lane-wide op cannot"));
                }
            }
            if i.class.opcode == Op::ControlBarrier && op.width == Width::Lane {
                return reject(format!("waits for other lanes in `{inside}`, which a lane-wide op cannot"));
            }
        }
    }
    Ok(())
}
