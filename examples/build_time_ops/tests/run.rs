//! The binary, as its user runs it.

use std::process::Command;

#[test]
fn the_shipped_program_runs_all_its_tasks() {
    let run = Command::new(env!("CARGO_BIN_EXE_taskring-build-time-ops")).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}{complained}");
    assert_eq!(said, "1000 of 1000 tasks are done, 1000 results are right\n");
}
