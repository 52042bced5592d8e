//! Writes `$OUT_DIR/abi.glsl`, the GLSL twin of `src/abi/layout.rs`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

macro_rules! shared_consts {
    ($($(#[$doc:meta])* pub $name:ident $(: $ty:ty)? = $value:literal;)*) => {
        pub(super) const CONSTS: &[(&str, u32)] = &[$((stringify!($name), $value)),*];
    };
}

macro_rules! shared_structs {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident,)* })*) => {
        pub(super) const STRUCTS: &[(&str, &[&str])] = &[$((stringify!($name), &[$(stringify!($field)),*])),*];
    };
}

#[path = "src/abi/layout.rs"]
mod layout;

fn abi_glsl() -> Result<String, std::fmt::Error> {
    let mut glsl = String::from("// Generated from src/abi/layout.rs by build.rs. Do not edit.\n\n");
    for (name, value) in layout::CONSTS {
        writeln!(glsl, "const uint {name} = {value}u;")?;
    }
    for (name, fields) in layout::STRUCTS {
        writeln!(glsl, "\nstruct {name} {{")?;
        for field in *fields {
            writeln!(glsl, "    uint {field};")?;
        }
        writeln!(glsl, "}};")?;
    }
    Ok(glsl)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/abi/layout.rs");
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this through cargo")?;
    fs::write(Path::new(&out_dir).join("abi.glsl"), abi_glsl()?)?;
    Ok(())
}
