//! Compiles the ops to `$OUT_DIR/program.taskring`.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use taskring::{BackendError, Program, Width};

const SOURCE: &str = "src/double.glsl";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    let glsl = fs::read_to_string(SOURCE)?;
    match Program::builder().op("double_it", glsl, Width::Lane).build() {
        Ok(program) => {
            let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; run this through cargo")?;
            fs::write(Path::new(&out_dir).join("program.taskring"), program.to_bytes())?;
        }
        // Cargo shows these as errors of the crate, and editors find the place.
        Err(BackendError::OpCompile { op, line: Some(line), message }) => {
            println!("cargo::error={SOURCE}:{line}: in op `{op}`: {message}");
        }
        Err(error) => println!("cargo::error={SOURCE}: {error}"),
    }
    Ok(())
}
