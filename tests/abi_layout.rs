//! What the GLSL compiler makes of the generated structures, compared with the Rust ones by name and offset.
#![cfg(feature = "shaderc")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;

use rspirv::dr::{Module, Operand};
use rspirv::spirv::{Decoration, MemoryAccess, Op, StorageClass, Word};
use taskring::abi::{ABI_GLSL, STRUCTS};

/// A shader that writes into an array of each structure, so that the compiler has to lay all of them out.
fn shader() -> Result<String, std::fmt::Error> {
    let mut glsl = format!("#version 460\n#extension GL_EXT_buffer_reference : require\n{ABI_GLSL}\n");
    let (mut pointers, mut stores) = (String::new(), String::new());
    for layout in STRUCTS {
        let (name, (field, _)) = (layout.name, layout.fields[0]);
        writeln!(glsl, "layout(buffer_reference, std430) buffer {name}Array {{ {name} items[]; }};")?;
        writeln!(pointers, "    {name}Array p{name};")?;
        writeln!(stores, "    push.p{name}.items[gl_GlobalInvocationID.x].{field} = 1u;")?;
    }
    writeln!(glsl, "layout(local_size_x = 32) in;\nlayout(push_constant) uniform Push {{\n{pointers}}} push;")?;
    writeln!(glsl, "void main() {{\n{stores}}}")?;
    Ok(glsl)
}

fn compile(source: &str) -> Result<Module, Box<dyn Error>> {
    let compiler = shaderc::Compiler::new()?;
    let mut options = shaderc::CompileOptions::new()?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    // Names are what is compared; without debug information there may be none.
    options.set_generate_debug_info();
    let kind = shaderc::ShaderKind::Compute;
    let spirv = compiler.compile_into_spirv(source, kind, "abi_layout.comp", "main", Some(&options))?;
    Ok(rspirv::dr::load_words(spirv.as_binary())?)
}

/// The layout that a module gives to the structure `name`: the fields' names and offsets, and the stride of its array.
fn layout_in(module: &Module, name: &str) -> (Vec<(String, usize)>, Option<usize>) {
    let mut offsets: BTreeMap<(Word, Word), usize> = BTreeMap::new();
    let mut strides: BTreeMap<Word, usize> = BTreeMap::new();
    for instruction in &module.annotations {
        match (instruction.class.opcode, instruction.operands.as_slice()) {
            (
                Op::MemberDecorate,
                [Operand::IdRef(id), Operand::LiteralBit32(member), Operand::Decoration(Decoration::Offset), offset],
            ) => {
                offsets.insert((*id, *member), offset.unwrap_literal_bit32() as usize);
            }
            (Op::Decorate, [Operand::IdRef(id), Operand::Decoration(Decoration::ArrayStride), stride]) => {
                strides.insert(*id, stride.unwrap_literal_bit32() as usize);
            }
            _ => {}
        }
    }
    let mut fields = Vec::new();
    let mut stride = None;
    let named = module.debug_names.iter().filter(|instruction| {
        instruction.class.opcode == Op::Name && instruction.operands[1] == Operand::LiteralString(name.into())
    });
    // A compiler may name a second, undecorated copy of the structure; only the one in memory has offsets.
    let ids = named.map(|instruction| instruction.operands[0].unwrap_id_ref());
    for id in ids.filter(|id| offsets.contains_key(&(*id, 0))) {
        for instruction in &module.debug_names {
            if let [Operand::IdRef(of), Operand::LiteralBit32(member), Operand::LiteralString(field)] =
                instruction.operands.as_slice()
                && *of == id
            {
                fields.push((field.clone(), offsets.get(&(id, *member)).copied().unwrap_or(usize::MAX)));
            }
        }
        let is_array = |class: Op| matches!(class, Op::TypeRuntimeArray | Op::TypeArray);
        let mut arrays = module.types_global_values.iter().filter(|instruction| is_array(instruction.class.opcode));
        let array = arrays.find(|instruction| instruction.operands[0] == Operand::IdRef(id));
        stride = array.and_then(|array| strides.get(&array.result_id?).copied());
    }
    (fields, stride)
}

#[test]
fn the_compiled_glsl_has_the_fields_offsets_and_strides_of_the_rust_structs() -> Result<(), Box<dyn Error>> {
    let module = compile(&shader()?)?;
    assert!(!STRUCTS.is_empty());
    for layout in STRUCTS {
        let (fields, stride) = layout_in(&module, layout.name);
        let fields: Vec<(&str, usize)> = fields.iter().map(|(field, offset)| (field.as_str(), *offset)).collect();
        assert_eq!(fields, layout.fields, "{}", layout.name);
        assert_eq!(stride, Some(layout.size), "{}", layout.name);
    }
    Ok(())
}

#[test]
fn the_push_constants_have_the_names_and_offsets_of_the_rust_struct() -> Result<(), Box<dyn Error>> {
    let extensions = ["GL_KHR_memory_scope_semantics", "GL_KHR_shader_subgroup_ballot", "GL_EXT_buffer_reference"];
    let extensions: String = extensions.iter().map(|name| format!("#extension {name} : require\n")).collect();
    let memory = include_str!("../glsl/memory.glsl");
    let module = compile(&format!(
        "#version 460\n#pragma use_vulkan_memory_model\n{extensions}layout(local_size_x = 32) in;\n{ABI_GLSL}\n{memory}\n\
         void main() {{ tr_store(tr_push.control, 0u, tr_push.capacity_log2); }}"
    ))?;
    macro_rules! offsets {
        ($($field:ident),+) => { [$((stringify!($field), std::mem::offset_of!(taskring::Push, $field))),+] };
    }
    let expected = offsets!(
        control,
        slots,
        metas,
        rings,
        wheel,
        lines,
        tickets,
        launch,
        bell,
        tenants,
        buffers,
        completions,
        marks,
        exit_record,
        trace,
        capacity_log2
    );
    let (fields, _) = layout_in(&module, "TrPush");
    let fields: Vec<(&str, usize)> = fields.iter().map(|(field, offset)| (field.as_str(), *offset)).collect();
    assert_eq!(fields, expected);
    Ok(())
}

#[test]
fn no_access_of_the_kernel_is_private_to_its_invocation() -> Result<(), Box<dyn Error>> {
    // The memory model's fences order only what is not; atomics never are.
    let glsl = "Turn copy(TaskWorkItem task) {
        buffer_store(task_output(task), 0u, buffer_load(task_input(task), 0u));
        return task_complete();
    }";
    let program = taskring::Program::builder().op("copy", glsl, taskring::Width::Lane).build()?;
    let module = rspirv::dr::load_words(program.spirv())?;
    let shared: Vec<Word> = module
        .types_global_values
        .iter()
        .filter(|i| i.class.opcode == Op::TypePointer)
        .filter(|i| i.operands[0] == Operand::StorageClass(StorageClass::PhysicalStorageBuffer))
        .filter_map(|i| i.result_id)
        .collect();
    let all: Vec<&rspirv::dr::Instruction> = module.all_inst_iter().collect();
    let pointers: Vec<Word> = all
        .iter()
        .filter(|i| i.result_type.is_some_and(|kind| shared.contains(&kind)))
        .filter_map(|i| i.result_id)
        .collect();
    let accesses = all.iter().filter(|i| matches!(i.class.opcode, Op::Load | Op::Store));
    let accesses: Vec<_> = accesses.filter(|i| pointers.contains(&i.operands[0].unwrap_id_ref())).collect();
    assert!(accesses.len() > 20, "only {} accesses: this test looks at nothing", accesses.len());
    for access in accesses {
        let flags = access.operands.iter().find_map(|operand| match operand {
            Operand::MemoryAccess(flags) => Some(*flags),
            _ => None,
        });
        assert!(flags.is_some_and(|flags| flags.contains(MemoryAccess::NON_PRIVATE_POINTER)), "{access:?}");
    }
    Ok(())
}
