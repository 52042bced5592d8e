//! What an op's SPIR-V does that its source may have hidden. Two looks: at what the op declares, compiled alone; and at every function that
//! its turn can reach, in the whole program, where a call may find another op's function.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use rspirv::dr::{Function, Instruction, Module, Operand};
use rspirv::spirv::{Decoration, Op, StorageClass, Word};

use super::{OpSource, Width, assemble, compile};
use crate::error::BackendError;

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

/// How [`Kernel::environment`] names the extension for instructions that a driver may pass over.
const NON_SEMANTIC: &str = "Extension \"SPV_KHR_non_semantic_info\"";

/// The generated functions, which differ from program to program. They call ops and `task_fault`, and nothing else.
const OP_TABLE: [&str; 5] = ["tr_op_width(", "tr_is_quick(", "tr_run_quick(", "tr_run_lane(", "tr_run_wide("];

/// What every kernel has of its own, read off one whose only op calls every public function.
struct Own {
    functions: HashMap<String, Vec<Step>>,
    variables: HashSet<String>,
    environment: HashSet<String>,
    spec_ids: usize,
}

/// An instruction, and the names of what it works on.
type Step = (Op, Vec<String>);

fn own() -> Result<&'static Own, BackendError> {
    static OWN: OnceLock<Result<Own, BackendError>> = OnceLock::new();
    let read = || {
        let everything = OpSource::new("everything", CALLS_EVERYTHING, Width::Subgroup);
        let text = assemble::kernel(&[&everything]);
        let spirv = compile::compile(&text, false).map_err(|reason| BackendError::BadProgram { reason })?;
        let kernel = Kernel::read(&spirv)?;
        let functions = kernel.functions().filter(|(id, _)| !kernel.name(*id).starts_with("everything("));
        let variables = kernel.module.types_global_values.iter().filter(|i| i.class.opcode == Op::Variable);
        Ok(Own {
            functions: functions.map(|(id, f)| (kernel.name(id).to_owned(), kernel.steps(f))).collect(),
            variables: variables.filter_map(|i| i.result_id).map(|id| kernel.name(id).to_owned()).collect(),
            environment: kernel.environment().collect(),
            spec_ids: kernel.spec_ids(),
        })
    };
    OWN.get_or_init(read).as_ref().map_err(Clone::clone)
}

/// A function's or variable's name as its author wrote it.
fn plain(name: &str) -> &str {
    name.split('(').next().unwrap_or_default()
}

/// Whom an instruction calls.
fn callee(i: &Instruction) -> Option<Word> {
    i.operands.iter().find_map(Operand::id_ref_any).filter(|_| i.class.opcode == Op::FunctionCall)
}

/// A compiled kernel that still has its names.
pub(super) struct Kernel {
    module: Module,
    names: HashMap<Word, String>,
}

impl Kernel {
    pub(super) fn read(spirv: &[u32]) -> Result<Self, BackendError> {
        let module = rspirv::dr::load_words(spirv).map_err(|error| BackendError::BadProgram {
            reason: format!("the compiler's SPIR-V is unreadable: {error}"),
        })?;
        let named = module.debug_names.iter().filter_map(|i| match i.operands.as_slice() {
            [Operand::IdRef(id), Operand::LiteralString(name)] => Some((*id, name.clone())),
            _ => None,
        });
        let names = named.collect();
        Ok(Self { module, names })
    }

    fn name(&self, id: Word) -> &str {
        self.names.get(&id).map_or("", String::as_str)
    }

    fn functions(&self) -> impl Iterator<Item = (Word, &Function)> {
        self.module.functions.iter().filter_map(|f| Some((f.def.as_ref()?.result_id?, f)))
    }

    fn steps(&self, function: &Function) -> Vec<Step> {
        let step = |i: &Instruction| {
            let names = i.operands.iter().filter_map(Operand::id_ref_any).map(|id| self.name(id).to_owned());
            (i.class.opcode, names.collect())
        };
        function.all_inst_iter().map(step).collect()
    }

    fn spec_ids(&self) -> usize {
        let decorations = self.module.annotations.iter();
        decorations.filter(|i| i.operands.contains(&Operand::Decoration(Decoration::SpecId))).count()
    }

    /// What the kernel asks of the device: capabilities, extensions and the workgroup's shape, in words.
    fn environment(&self) -> impl Iterator<Item = String> {
        let module = &self.module;
        let asked = module.capabilities.iter().chain(&module.extensions).chain(&module.execution_modes);
        // An id would be that of the entry point: nothing that tells kernels apart.
        let words = |i: &Instruction| {
            i.operands.iter().filter(|o| o.id_ref_any().is_none()).map(ToString::to_string).collect::<Vec<_>>()
        };
        asked.map(move |i| format!("{:?} {}", i.class.opcode, words(i).join(" ")))
    }

    /// Refuses what an op declares: descriptors, constants, demands on the device, and whatever changes the runtime's own functions.
    ///
    /// # Errors
    /// [`BackendError::OpRejected`] says what it is.
    pub(super) fn check_declarations(&self, op: &OpSource) -> Result<(), BackendError> {
        use StorageClass::{Input, Private, Workgroup};
        let own = own()?;
        let reject = |what: String| Err(BackendError::OpRejected { op: op.name.clone(), what });
        if self.spec_ids() > own.spec_ids {
            return reject("declares a specialization constant".into());
        }
        for i in self.module.types_global_values.iter().filter(|i| i.class.opcode == Op::Variable) {
            let name = i.result_id.map_or("", |id| self.name(id));
            if let Some(Operand::StorageClass(class)) = i.operands.first()
                && ![Input, Private, Workgroup].contains(class)
                && !own.variables.contains(name)
            {
                let name = if name.is_empty() { "an unnamed block" } else { name };
                return reject(format!("declares {name}, a descriptor or push constant of its own ({class:?})"));
            }
        }
        // Beyond what the scheduler does, an op may ask for subgroup operations and for instructions without a meaning, such as those of
        // `debugPrintfEXT`: they compute nothing, and a device of Vulkan 1.3 passes over them.
        let allowed = |what: &str| what.starts_with("Capability GroupNonUniform") || what == NON_SEMANTIC;
        let asks = |what: &String| !own.environment.contains(what) && !allowed(what);
        if let Some(what) = self.environment().find(asks) {
            return reject(format!("asks for {what}, which the runtime's kernels do not have"));
        }
        // A global that is initialized at run time, or a function that hides a built-in one: code outside of the op's turns.
        for (id, function) in self.functions() {
            let name = self.name(id);
            let changed = own.functions.get(name).is_some_and(|steps| *steps != self.steps(function));
            if changed && !OP_TABLE.iter().any(|generated| name.starts_with(generated)) {
                let name = plain(name);
                return reject(format!(
                    "changes the runtime's `{name}`, by a global that is initialized and not const, or by hiding a built-in function"
                ));
            }
        }
        Ok(())
    }

    /// Every function that a turn of the op can reach, callers before those whom they alone call; the runtime's too.
    fn reach(&self, op: &OpSource) -> Vec<(Word, &Function)> {
        let functions: HashMap<Word, &Function> = self.functions().collect();
        let entry = format!("{}(", op.name);
        let mut next: Vec<Word> = functions.keys().copied().filter(|id| self.name(*id).starts_with(&entry)).collect();
        let mut seen: HashSet<Word> = next.iter().copied().collect();
        let mut reached = Vec::new();
        while let Some(id) = next.pop() {
            let Some(function) = functions.get(&id) else { continue };
            next.extend(function.all_inst_iter().filter_map(callee).filter(|callee| seen.insert(*callee)));
            reached.push((id, *function));
        }
        reached
    }

    /// Whether a turn of the op can come to a loop.
    pub(super) fn loops(&self, op: &OpSource) -> bool {
        let reach = self.reach(op);
        reach.iter().any(|(_, function)| function.all_inst_iter().any(|i| i.class.opcode == Op::LoopMerge))
    }

    /// Refuses an op that could touch memory other than through the checked accessors, in any function that its turn can reach.
    ///
    /// # Errors
    /// [`BackendError::OpRejected`] says what it does.
    pub(super) fn check_reach(&self, op: &OpSource) -> Result<(), BackendError> {
        let own = own()?;
        let globals = || self.module.types_global_values.iter().filter_map(|i| Some((i.result_id?, i)));
        let physical = Some(&Operand::StorageClass(StorageClass::PhysicalStorageBuffer));
        let raw_pointers: HashSet<Word> = globals()
            .filter(|(_, i)| i.class.opcode == Op::TypePointer && i.operands.first() == physical)
            .map(|(id, _)| id)
            .collect();
        // Built-in inputs are the device's to write.
        let runtimes = |id: Word| own.variables.contains(self.name(id)) && !self.name(id).starts_with("gl_");
        let runtime_variables: HashSet<Word> =
            globals().filter(|(id, i)| i.class.opcode == Op::Variable && runtimes(*id)).map(|(id, _)| id).collect();

        let is_own = |id: Word| own.functions.contains_key(self.name(id));
        for (id, function) in self.reach(op).into_iter().filter(|(id, _)| !is_own(*id)) {
            let inside = plain(self.name(id));
            let reject = |what: String| Err(BackendError::OpRejected { op: op.name.clone(), what });
            let waits = || reject(format!("waits for other lanes in `{inside}`, which a lane-wide op cannot"));
            for i in function.all_inst_iter() {
                let used = || i.operands.iter().filter_map(Operand::id_ref_any);
                if let Some(variable) = used().find(|id| runtime_variables.contains(id)) {
                    return reject(format!("uses the runtime's `{}` in `{inside}`", self.name(variable)));
                }
                if i.result_type.is_some_and(|kind| raw_pointers.contains(&kind)) {
                    return reject(format!("forms its own pointer in `{inside}`"));
                }
                if i.class.opcode == Op::ReadClockKHR {
                    return reject(format!("reads the device's clock in `{inside}`, which not every device has"));
                }
                if i.class.opcode == Op::ControlBarrier && op.width == Width::Lane {
                    return waits();
                }
                let Some(callee) = callee(i).filter(|callee| is_own(*callee)) else { continue };
                let name = plain(self.name(callee));
                if name.starts_with("tr_") {
                    return reject(format!("calls the runtime's `{name}` in `{inside}`"));
                } else if name == "task_barrier" && op.width == Width::Lane {
                    return waits();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, glsl: &str) -> OpSource {
        OpSource::new(name, glsl, Width::Lane)
    }

    fn kernel(ops: &[&OpSource]) -> Kernel {
        Kernel::read(&compile::compile(&assemble::kernel(ops), false).expect("it compiles")).expect("it is SPIR-V")
    }

    #[test]
    fn a_loop_is_found_wherever_a_turn_can_come_to_one() {
        let ends = |body: &str| format!("Turn f(TaskWorkItem task) {{ {body} return task_complete(); }}");
        let straight = op(
            "f",
            &ends("uint format = buffer_load(task_input(task), 0u); buffer_store(task_output(task), 1u, format);"),
        );
        assert!(!kernel(&[&straight]).loops(&straight));
        for looped in [
            "for (uint i = 0u; i < task.param; ++i) buffer_store(task_output(task), i, i);",
            "while (buffer_load(task_input(task), 0u) == 0u) {}",
        ] {
            let looped = op("f", &ends(looped));
            assert!(kernel(&[&looped]).loops(&looped), "{}", looped.glsl);
        }
        // Alone, the second would call a helper of its own; together with the first, it calls that one's, which fits better.
        let first = op(
            "g",
            "uint g_help(uint x) { for (uint i = 0u; i < x; ++i) x ^= x << 1u; return x; }
            Turn g(TaskWorkItem task) { return task_fault(g_help(task.param)); }",
        );
        let second = op(
            "f",
            "uint g_help(float x) { return uint(x); }
            Turn f(TaskWorkItem task) { return task_fault(g_help(1u)); }",
        );
        assert!(!kernel(&[&second]).loops(&second));
        assert!(kernel(&[&first, &second]).loops(&second));
    }
}
