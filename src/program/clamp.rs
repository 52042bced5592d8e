//! Keeps the indices into an op's own arrays and vectors inside of them. SPIR-V leaves an index past the end undefined, and no robustness
//! feature covers memory that is shared in a workgroup or private to an invocation: a store there may hit anything, of any tenant's.

use std::collections::HashMap;

use rspirv::binary::Assemble as _;
use rspirv::dr::{Instruction, Operand};
use rspirv::spirv::{GlslStd450Op, Op, StorageClass, Word};

use crate::error::BackendError;

/// What is known of a module's ids, and what is added to it.
struct Clamp {
    /// Types, constants and global variables.
    globals: HashMap<Word, Instruction>,
    /// The type of each value.
    kinds: HashMap<Word, Word>,
    glsl: Word,
    bound: Word,
    added: Vec<Instruction>,
}

/// The same kernel, in which each index of an access chain is the smaller of itself and the last that there is. Buffers behind addresses are
/// left alone: the runtime's kernel checks their accesses itself.
///
/// # Errors
/// [`BackendError::BadProgram`] if the SPIR-V cannot be read.
pub(crate) fn own_arrays(spirv: &[u32]) -> Result<Vec<u32>, BackendError> {
    let bad = |reason: String| BackendError::BadProgram { reason };
    let mut module = rspirv::dr::load_words(spirv).map_err(|error| bad(format!("unreadable SPIR-V: {error}")))?;
    let imported = |i: &&Instruction| i.operands.first() == Some(&Operand::LiteralString("GLSL.std.450".into()));
    let glsl = module.ext_inst_imports.iter().find(imported).and_then(|i| i.result_id);
    let mut clamp = Clamp {
        globals: module.types_global_values.iter().filter_map(|i| Some((i.result_id?, i.clone()))).collect(),
        kinds: module.all_inst_iter().filter_map(|i| Some((i.result_id?, i.result_type?))).collect(),
        glsl: glsl.ok_or_else(|| bad("the SPIR-V imports no GLSL.std.450".into()))?,
        bound: module.header.as_ref().map_or(0, |header| header.bound),
        added: Vec::new(),
    };
    for block in module.functions.iter_mut().flat_map(|function| &mut function.blocks) {
        let mut instructions = Vec::with_capacity(block.instructions.len());
        for mut i in block.instructions.drain(..) {
            if [Op::AccessChain, Op::InBoundsAccessChain].contains(&i.class.opcode) {
                clamp.chain(&mut i, &mut instructions);
            }
            instructions.push(i);
        }
        block.instructions = instructions;
    }
    module.types_global_values.append(&mut clamp.added);
    if let Some(header) = &mut module.header {
        header.bound = clamp.bound;
    }
    Ok(module.assemble())
}

impl Clamp {
    /// Clamps the indices of one access chain; what that takes goes before it.
    fn chain(&mut self, chain: &mut Instruction, before: &mut Vec<Instruction>) {
        use StorageClass::{Function, Private, StorageBuffer, Workgroup};
        let base = chain.operands.first().and_then(Operand::id_ref_any);
        let pointer = base.and_then(|base| self.globals.get(self.kinds.get(&base)?)).map(|i| i.operands.as_slice());
        let Some(&[Operand::StorageClass(class), Operand::IdRef(mut inside)]) = pointer else { return };
        if ![Workgroup, Private, Function, StorageBuffer].contains(&class) {
            return;
        }
        for operand in &mut chain.operands[1..] {
            let Operand::IdRef(index) = operand else { return };
            let Some(composite) = self.globals.get(&inside).cloned() else { return };
            let count = match (composite.class.opcode, composite.operands.as_slice()) {
                (Op::TypeStruct, members) => {
                    let member = self.constant_value(*index).and_then(|index| members.get(index as usize));
                    let Some(Operand::IdRef(member)) = member else { return };
                    inside = *member;
                    continue;
                }
                (Op::TypeArray, [Operand::IdRef(element), Operand::IdRef(length)]) => {
                    inside = *element;
                    self.constant_value(*length).ok_or(*length)
                }
                (Op::TypeVector | Op::TypeMatrix, [Operand::IdRef(part), Operand::LiteralBit32(count)]) => {
                    inside = *part;
                    Ok(*count)
                }
                _ => return,
            };
            *index = self.clamped(*index, count, before);
        }
    }

    /// An index below `count`, which is a number or the id of a specialization constant.
    fn clamped(&mut self, index: Word, count: Result<u32, Word>, before: &mut Vec<Instruction>) -> Word {
        if count.is_ok_and(|count| self.constant_value(index).is_some_and(|index| index < count)) {
            return index;
        }
        // An index of another size needs a feature that only a trusted op can ask for.
        let plain = |kind: &Word| {
            self.globals.get(kind).is_some_and(|i| i.operands.first() == Some(&Operand::LiteralBit32(32)))
        };
        let Some(kind) = self.kinds.get(&index).copied().filter(plain) else { return index };
        let last = match count {
            Ok(count) => self.constant(kind, count.saturating_sub(1)),
            Err(count) => {
                let operands = vec![Operand::IdRef(count), Operand::IdRef(self.constant(kind, 1))];
                let last = self.id(kind);
                before.push(Instruction::new(Op::ISub, Some(kind), Some(last), operands));
                last
            }
        };
        let clamped = self.id(kind);
        let least = [Operand::IdRef(self.glsl), Operand::LiteralExtInstInteger(GlslStd450Op::UMin as u32)];
        let operands = least.into_iter().chain([Operand::IdRef(index), Operand::IdRef(last)]).collect();
        before.push(Instruction::new(Op::ExtInst, Some(kind), Some(clamped), operands));
        clamped
    }

    fn constant_value(&self, id: Word) -> Option<u32> {
        let constant = self.globals.get(&id).filter(|i| i.class.opcode == Op::Constant)?;
        if let [Operand::LiteralBit32(value)] = constant.operands[..] { Some(value) } else { None }
    }

    /// A constant of a 32-bit type.
    fn constant(&mut self, kind: Word, value: u32) -> Word {
        let same = |i: &&Instruction| {
            i.class.opcode == Op::Constant
                && i.result_type == Some(kind)
                && i.operands == [Operand::LiteralBit32(value)]
        };
        if let Some(id) = self.globals.values().find(same).and_then(|i| i.result_id) {
            return id;
        }
        let id = self.id(kind);
        let constant = Instruction::new(Op::Constant, Some(kind), Some(id), vec![Operand::LiteralBit32(value)]);
        self.globals.insert(id, constant.clone());
        self.added.push(constant);
        id
    }

    fn id(&mut self, kind: Word) -> Word {
        let id = self.bound;
        self.bound += 1;
        self.kinds.insert(id, kind);
        id
    }
}
