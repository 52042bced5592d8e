//! What the device tests share: a device under validation, and ops whose every turn says what it saw.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of a module that is private to it")]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use taskring::{
    Buffer, BufferDesc, Completion, Device, DeviceOptions, MemoryKind, Mode, Program, Runtime, RuntimeOptions,
    TaskWorkItem, Width, vk,
};

/// Longest that any test waits for anything.
pub const LONG: Duration = Duration::from_secs(60);

/// A device under validation; a message that it collected fails the test when this is dropped.
pub struct Checked {
    pub device: Device,
}

pub fn device() -> Checked {
    let device = Device::new(DeviceOptions { validation: true, ..DeviceOptions::default() }).expect("a device");
    Checked { device }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.device.validation_messages(), Vec::<String>::new(), "the validation layer complains");
        }
    }
}

impl Checked {
    pub fn lanes(&self) -> u32 {
        self.device.plan().subgroup_size
    }

    /// Whether this is the driver that ends all loops after 65,535 turns.
    pub fn ends_loops(&self) -> bool {
        self.device.facts().driver_info.contains("Mesa 22.")
    }

    /// A buffer that the host can read.
    pub fn report(&self, words: u32) -> Arc<Buffer> {
        self.buffer(MemoryKind::Report, words)
    }

    /// Memory that a running kernel sees the host write, where there is any.
    pub fn mailbox(&self, words: u32) -> Arc<Buffer> {
        self.buffer(MemoryKind::Mailbox, words)
    }

    fn buffer(&self, kind: MemoryKind, words: u32) -> Arc<Buffer> {
        let (bytes, usage) = (u64::from(words) * 4, vk::BufferUsageFlags::empty());
        Arc::new(self.device.allocate(BufferDesc { name: "test", bytes, kind, usage, shared: false }).expect("memory"))
    }

    /// A runtime in the mode that the environment names, else a live one: most tests are not about the choice, and a self-test takes its time.
    pub fn runtime(&self, program: &Program, options: RuntimeOptions) -> Runtime {
        let named = std::env::var("TASKRING_MODE").is_ok();
        let mode = if options.mode == Mode::Auto && !named { Mode::Live } else { options.mode };
        Runtime::new(&self.device, program, RuntimeOptions { mode, ..options }).expect("a runtime")
    }
}

pub fn word(buffer: &Buffer, index: u32) -> u32 {
    buffer.mapped().expect("mapped").load(u64::from(index) * 4, Relaxed).expect("in range")
}

pub fn words(buffer: &Buffer) -> Vec<u32> {
    let mut words = vec![0; (buffer.bytes() / 4) as usize];
    buffer.mapped().expect("mapped").read(0, bytemuck::cast_slice_mut(&mut words)).expect("in range");
    words
}

/// A program of lane-wide ops.
pub fn lane_program(ops: &[(&str, &str)]) -> Program {
    program(ops, Width::Lane)
}

/// A program of these ops, which is compiled once for all tests of a process.
pub fn program(ops: &[(&str, &str)], width: Width) -> Program {
    static COMPILED: Mutex<BTreeMap<String, Arc<OnceLock<Program>>>> = Mutex::new(BTreeMap::new());
    let add = |builder: taskring::ProgramBuilder, (name, glsl): &(&str, &str)| builder.op(*name, *glsl, width);
    let compile = || ops.iter().fold(Program::builder(), add).build().expect("a program");
    let key = format!("{width:?} {ops:?}");
    let compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    compiled.get_or_init(compile).clone()
}

/// Submits all of them, however small the rings, and returns all completions in the order of their ends.
pub fn run_all(runtime: &Runtime, tasks: &[TaskWorkItem]) -> Vec<Completion> {
    let mut completions = Vec::new();
    let mut rest = tasks;
    while !rest.is_empty() {
        let accepted = runtime.submit_batch(rest).expect("accepted").count();
        rest = &rest[accepted..];
        if accepted == 0 {
            assert!(runtime.completions(&mut completions, usize::MAX, LONG).expect("driven") > 0, "stuck");
        }
    }
    while completions.len() < tasks.len() {
        assert!(runtime.completions(&mut completions, usize::MAX, LONG).expect("driven") > 0, "stuck");
    }
    completions
}
