//! Every scenario of `taskring-bench`: `cargo bench --features shaderc --bench gpu -- --list`.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskring_bench::main()
}
