//! The capabilities of every SPIR-V module are held against what is required of a device.
#![cfg(feature = "shaderc")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

use std::collections::BTreeSet;

use rspirv::dr::{Module, load_bytes, load_words};
use rspirv::spirv::Capability;
use taskring::device::Feature;
use taskring::{Program, Width};

/// What a capability needs of the device: a feature, or nothing beyond what every device of Vulkan 1.2 has, or subgroup operations, which the
/// plan asks for by themselves.
fn needs(capability: Capability) -> Option<Feature> {
    match capability {
        Capability::Shader | Capability::GroupNonUniform | Capability::GroupNonUniformBallot => None,
        Capability::VulkanMemoryModel => Some(Feature::VulkanMemoryModel),
        Capability::VulkanMemoryModelDeviceScope => Some(Feature::VulkanMemoryModelDeviceScope),
        Capability::PhysicalStorageBufferAddresses => Some(Feature::BufferDeviceAddress),
        Capability::ShaderClockKHR => Some(Feature::ShaderDeviceClock),
        other => panic!("{other:?} is used and no requirement covers it"),
    }
}

fn features(module: &Module) -> BTreeSet<Feature> {
    module.capabilities.iter().filter_map(|i| needs(i.operands[0].unwrap_capability())).collect()
}

/// The self-test's kernels, as they are shipped.
fn probes() -> Vec<(String, Module)> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/glsl")).expect("the folder");
    let files = files.map(|file| file.expect("an entry").path());
    let spirv = files.filter(|path| path.extension().is_some_and(|extension| extension == "spv"));
    let load = |path: std::path::PathBuf| {
        let module = load_bytes(std::fs::read(&path).expect("readable")).expect("SPIR-V");
        (path.display().to_string(), module)
    };
    spirv.map(load).collect()
}

/// A kernel with ops of both widths, which use every accessor and every end of a turn.
fn kernel() -> Module {
    let op = "Turn NAME(TaskWorkItem task) {
        Buffer b = task_buffer(task, task.param);
        uint x = task_lane() + task_lanes() + buffer_words(b) + buffer_load(task_input(task), 0u);
        x += buffer_atomic_load(task_output(task), 0u) + buffer_atomic_add(b, 0u, x) + buffer_atomic_and(b, 0u, x);
        x += buffer_atomic_or(b, 0u, x) + buffer_atomic_xor(b, 0u, x) + buffer_atomic_min(b, 0u, x);
        x += buffer_atomic_max(b, 0u, x) + buffer_atomic_exchange(b, 0u, x) + buffer_atomic_compare_exchange(b, 0u, x, x);
        buffer_store(b, 0u, x);
        buffer_atomic_store(b, 0u, x);
        BARRIER
        switch (x) {
        case 0u: return task_yield(0u, 0u);
        case 1u: return task_pause(0u, 0u, 0u);
        case 2u: return task_pause_on(0u, 0u, 0u, 0u);
        case 3u: return task_requeue(0u, 0u, 0u);
        case 4u: return task_fault(0u);
        default: return task_complete();
        }
    }";
    let lane = op.replace("NAME", "lane").replace("BARRIER", "");
    let wide = op.replace("NAME", "wide").replace("BARRIER", "task_barrier();");
    let program = Program::builder().op("lane", lane, Width::Lane).op("wide", wide, Width::Subgroup).build();
    load_words(program.expect("a program").spirv()).expect("SPIR-V")
}

#[test]
fn no_module_uses_what_is_not_asked_for_and_only_the_scheduler_uses_what_is_optional() {
    let probes = probes();
    assert_eq!(probes.len(), 3, "the shipped modules");
    for (name, module) in &probes {
        let optional: Vec<_> = features(module).into_iter().filter(|feature| !feature.is_required()).collect();
        assert_eq!(optional, [], "{name} runs on every device");
    }
    // Where there is no clock, it is taken out of the kernel: a unit test of the program compares what is left.
    let optional: Vec<_> = features(&kernel()).into_iter().filter(|feature| !feature.is_required()).collect();
    assert_eq!(optional, [Feature::ShaderDeviceClock]);
}

#[test]
fn every_required_feature_of_kernels_is_used_by_one() {
    let used: BTreeSet<_> =
        probes().iter().map(|(_, module)| features(module)).chain([features(&kernel())]).flatten().collect();
    let required: Vec<_> = Feature::REQUIRED.into_iter().filter(|feature| !used.contains(feature)).collect();
    assert_eq!(required, [Feature::TimelineSemaphore], "which is the host's");
}

#[cfg(feature = "self-substrate-adapters")]
#[test]
fn state_convergence_runs_on_every_device_that_is_taken() {
    for words in [256, 1 << 20] {
        let body = "next[index] = min(current[index], current[index / 2u]);";
        let build = taskring::TaskQueueSnapshot::build_state_convergence_program;
        let program = build(body, "current", "next", "changed", words, 100).expect("a program");
        let used = features(&load_words(program.spirv()).expect("SPIR-V"));
        let optional: Vec<_> = used.into_iter().filter(|feature| !feature.is_required()).collect();
        assert_eq!(optional, [], "{words} words");
    }
}
