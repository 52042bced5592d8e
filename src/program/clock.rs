//! The same kernel for devices without a clock that kernels can read: SPIR-V declares what it may use, whether it does or not.

const CAPABILITY: u32 = 17;
const EXTENSION: u32 = 10;
const NOP: u32 = 0;
const UNDEF: u32 = 1;
const READ_CLOCK: u32 = 5056;
const SHADER_CLOCK: u32 = 5055;
/// Words of a module before its first instruction.
const HEADER: usize = 5;

/// Takes the clock out: what reads it reads anything instead, and the launch record tells the kernel not to look.
pub(crate) fn without_clock(spirv: &[u32]) -> Vec<u32> {
    let mut without = spirv[..HEADER.min(spirv.len())].to_vec();
    let mut rest = spirv.get(HEADER..).unwrap_or_default();
    while let [first, ..] = *rest {
        let count = (first >> 16) as usize;
        // A count of 0, or one past the end, is no SPIR-V: the driver shall say so.
        let (instruction, after) = rest.split_at(if count == 0 { rest.len() } else { count.min(rest.len()) });
        match *instruction {
            [_, SHADER_CLOCK] if first & 0xffff == CAPABILITY => {}
            [_, ..] if first & 0xffff == EXTENSION && is_named(&instruction[1..], b"SPV_KHR_shader_clock") => {}
            [_, kind, id, _] if first & 0xffff == READ_CLOCK => {
                without.extend([3 << 16 | UNDEF, kind, id, 1 << 16 | NOP]);
            }
            _ => without.extend(instruction),
        }
        rest = after;
    }
    without
}

/// Whether a module declares this extension: such declarations stand before all but the capabilities.
pub(crate) fn declares(spirv: &[u32], extension: &[u8]) -> bool {
    let mut rest = spirv.get(HEADER..).unwrap_or_default();
    while let [first, ..] = *rest
        && let Some((instruction, after)) = rest.split_at_checked((first >> 16) as usize)
        && [CAPABILITY, EXTENSION].contains(&(first & 0xffff))
    {
        if first & 0xffff == EXTENSION && is_named(&instruction[1..], extension) {
            return true;
        }
        rest = after;
    }
    false
}

/// Whether words are a literal string, which ends with a zero byte.
fn is_named(words: &[u32], name: &[u8]) -> bool {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.split(|byte| *byte == 0).next() == Some(name)
}

#[cfg(all(test, feature = "shaderc"))]
mod tests {
    use super::*;
    use crate::program::{Program, Width};
    use rspirv::spirv::{Capability, Op};

    #[test]
    fn a_kernel_without_its_clock_is_the_same_but_for_the_clock() {
        let program = Program::builder()
            .op("nothing", "Turn nothing(TaskWorkItem task) { return task_complete(); }", Width::Lane)
            .build()
            .expect("a program");
        let clock = b"SPV_KHR_shader_clock";
        assert_eq!(
            [program.spirv(), &without_clock(program.spirv())].map(|spirv| declares(spirv, clock)),
            [true, false]
        );
        assert!(!declares(program.spirv(), b"SPV_KHR_non_semantic_info") && !declares(&[0; 7], clock));
        let load = |spirv: &[u32]| rspirv::dr::load_words(spirv).expect("SPIR-V");
        let (with, without) = (load(program.spirv()), load(&without_clock(program.spirv())));
        let reads =
            |module: &rspirv::dr::Module| module.all_inst_iter().filter(|i| i.class.opcode == Op::ReadClockKHR).count();
        assert!(reads(&with) > 0, "the kernel reads a clock");
        assert_eq!((reads(&without), without.extensions.len() + 1), (0, with.extensions.len()));
        let capability = |i: &rspirv::dr::Instruction| i.operands[0].unwrap_capability();
        let left: Vec<Capability> = without.capabilities.iter().map(capability).collect();
        let had: Vec<Capability> =
            with.capabilities.iter().map(capability).filter(|one| *one != Capability::ShaderClockKHR).collect();
        assert_eq!(left, had);
        let others = |module: &rspirv::dr::Module| {
            let kept = |i: &&rspirv::dr::Instruction| {
                ![Op::ReadClockKHR, Op::Undef, Op::Nop, Op::Capability, Op::Extension].contains(&i.class.opcode)
            };
            module.all_inst_iter().filter(kept).cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(&with), others(&without));
    }

    #[test]
    fn what_is_no_spirv_is_left_alone() {
        for words in [vec![], vec![7; 3], vec![0; 9], vec![1, 2, 3, 4, 5, 9 << 16]] {
            assert_eq!(without_clock(&words), words);
        }
    }
}
