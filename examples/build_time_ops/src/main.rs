//! Runs a program that the build script compiled: this binary has no GLSL and no compiler in it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use taskring::{BufferDesc, Device, DeviceOptions, MemoryKind, Outcome, Program, Runtime, RuntimeOptions, Task};

const TASKS: u32 = 1000;
const LONG: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let program = Program::from_bytes(include_bytes!(concat!(env!("OUT_DIR"), "/program.taskring")))?;
    let double_it = program.op("double_it")?;
    let device = Device::new(DeviceOptions::default())?;
    let runtime = Runtime::new(&device, &program, RuntimeOptions::default())?;

    let bytes = u64::from(TASKS) * 4;
    let allocate = |name, kind| device.allocate(BufferDesc::new(name, bytes, kind)).map(Arc::new);
    let (numbers, doubles) = (allocate("numbers", MemoryKind::Mailbox)?, allocate("doubles", MemoryKind::Report)?);
    let mailbox = numbers.mapped().ok_or("a mailbox is mapped")?;
    for n in 0..TASKS {
        mailbox.write_pod(u64::from(n) * 4, &(n + 7))?;
    }
    let input = runtime.register_buffer(0, &numbers, 0..bytes)?;
    let output = runtime.register_buffer(0, &doubles, 0..bytes)?;

    let task = |n| Task::new(double_it).input(input).output(output).param(n).item();
    let tasks: Vec<_> = (0..TASKS).map(task).collect();
    assert_eq!(runtime.submit_batch(&tasks)?.count(), tasks.len(), "a runtime holds more than {TASKS} tasks");
    runtime.drain(LONG)?;
    let mut ended = Vec::new();
    runtime.completions(&mut ended, tasks.len(), LONG)?;
    let done = ended.iter().filter(|completion| completion.outcome == Outcome::Done).count();

    let report = doubles.mapped().ok_or("a report is mapped")?;
    let mut right = 0;
    for n in 0..TASKS {
        let double: u32 = report.read_pod(u64::from(n) * 4)?;
        right += u32::from(double == 2 * (n + 7));
    }
    println!("{done} of {TASKS} tasks are done, {right} results are right");
    if done != tasks.len() || right != TASKS { Err("something went wrong".into()) } else { Ok(()) }
}
