//! Programs as bytes: compiled in a user's `build.rs`, loaded by a binary that has no compiler.
//!
//! A text header (a line with the format's version and the ABI's digest, then one line an op, then an empty line), then SPIR-V, little-endian.

use super::{Op, Program, Width};
use crate::abi;
use crate::error::BackendError;

const MAGIC: &str = "taskring-program 1";
const SPIRV_MAGIC: u32 = 0x0723_0203;

/// Tells kernels apart that were compiled against another layout of the shared structures (FNV-1a, 64 bits).
fn abi_digest() -> u64 {
    abi::ABI_GLSL
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn bad(reason: impl Into<String>) -> BackendError {
    BackendError::BadProgram { reason: reason.into() }
}

impl Program {
    /// The program as bytes for [`Program::from_bytes`]: write them to `OUT_DIR` in a `build.rs` and `include_bytes!` them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut header = format!("{MAGIC} {:016x}\n", abi_digest());
        for op in &self.ops {
            let width = match op.width {
                Width::Lane => "lane",
                Width::Subgroup => "subgroup",
            };
            let restartable = if op.restartable { " restartable" } else { "" };
            let trusted = if op.trusted { " unsafe" } else { "" };
            header += &format!("{} {width}{restartable}{trusted}\n", op.name);
        }
        header.push('\n');
        let mut bytes = header.into_bytes();
        bytes.extend(self.spirv.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    /// Loads a program that [`Program::to_bytes`] made with this version of the crate. Needs no compiler.
    ///
    /// The bytes are trusted as code is: they are meant to come from the user's own build.
    ///
    /// # Errors
    /// [`BackendError::BadProgram`] if the bytes are no program, or one for another version of the ABI.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BackendError> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").ok_or_else(|| bad("no header"))?;
        let header = core::str::from_utf8(&bytes[..end]).map_err(|_| bad("the header is not text"))?;
        let code = &bytes[end + 2..];
        let mut lines = header.lines();
        let first = lines.next().unwrap_or_default();
        let digest = first.strip_prefix(MAGIC).ok_or_else(|| bad(format!("`{first}` is not `{MAGIC}`")))?;
        if digest.trim() != format!("{:016x}", abi_digest()) {
            return Err(bad("it was compiled with another version of taskring; compile it again"));
        }
        let ops = lines.map(op_line).collect::<Result<Vec<_>, _>>()?;
        let (words, rest) = code.as_chunks::<4>();
        let spirv: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if !rest.is_empty() || spirv.first() != Some(&SPIRV_MAGIC) {
            return Err(bad("what follows the header is not SPIR-V"));
        }
        Ok(Self { ops, spirv })
    }
}

fn op_line(line: &str) -> Result<Op, BackendError> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default().to_owned();
    let width = match words.next() {
        Some("lane") => Width::Lane,
        Some("subgroup") => Width::Subgroup,
        _ => return Err(bad(format!("`{line}` names no width"))),
    };
    let mut op = Op { name, width, restartable: false, trusted: false };
    for word in words {
        match word {
            "restartable" => op.restartable = true,
            "unsafe" => op.trusted = true,
            _ => return Err(bad(format!("`{word}` in `{line}` means nothing"))),
        }
    }
    Ok(op)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        let op = |name: &str, width, restartable, trusted| Op { name: name.into(), width, restartable, trusted };
        Program {
            ops: vec![op("blur", Width::Subgroup, true, false), op("add", Width::Lane, false, true)],
            spirv: vec![SPIRV_MAGIC, 2, 0x0a0a_0a0a],
        }
    }

    #[test]
    fn a_program_survives_the_round_trip_through_bytes() {
        assert_eq!(Program::from_bytes(&program().to_bytes()), Ok(program()));
    }

    #[test]
    fn bytes_that_are_no_program_are_refused() {
        let good = program().to_bytes();
        for cut in 0..good.len() {
            // A cut at a word boundary after the first word is still SPIR-V as far as this can tell; the driver's loader judges the rest.
            if let Ok(program) = Program::from_bytes(&good[..cut]) {
                assert_eq!(program.ops.len(), 2);
                assert!(!program.spirv.is_empty());
            }
        }
        assert!(Program::from_bytes(b"").is_err());
        let mut other = good.clone();
        other[MAGIC.len() + 2] ^= 1;
        assert!(Program::from_bytes(&other).is_err());
    }
}
