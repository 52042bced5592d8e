//! The self-test on whatever driver is installed, under validation; and that the committed kernels are what their sources say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop right there")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use taskring::device::{Loops, Probe};
use taskring::{Device, DeviceOptions, Residency, SelfTest};

/// No dispatch may take longer; what the library itself demands is a second.
const BOUND: Duration = Duration::from_secs(1);

/// Two of them at once would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it on a device under validation, whose every message fails the test. On a machine whose processors others keep busy a probe can miss what
/// is there, so where live mode is to be expected it gets a few chances.
fn run() -> (SelfTest, Device, Duration) {
    let device = Device::new(DeviceOptions { validation: true, ..DeviceOptions::default() }).unwrap();
    for chance in 1.. {
        let start = Instant::now();
        let outcome = SelfTest::run(&device).unwrap();
        let took = start.elapsed();
        println!("{}\n{outcome}in {took:?}", device.description());
        assert_eq!(device.validation_messages(), [""; 0]);
        if is_live(&outcome) || is_capped(&device) || chance == 5 {
            return (outcome, device, took);
        }
    }
    unreachable!()
}

fn is_live(outcome: &SelfTest) -> bool {
    matches!(Residency::choose(outcome), Residency::Live { .. })
}

/// Whether this is the driver that ends all loops after 65,535 turns.
fn is_capped(device: &Device) -> bool {
    device.facts().driver_info.contains("Mesa 22.")
}

#[test]
fn the_outcome_is_what_is_known_of_the_driver_down_to_its_loop_cap() {
    let _alone = alone();
    let (outcome, device, took) = run();
    let expected = match is_capped(&device) {
        true => Loops { turns: 65_535, cut: true },
        false => Loops { turns: SelfTest::MOST_TURNS, cut: false },
    };
    assert_eq!(outcome.loops, Probe::Measured(expected));
    assert!(outcome.longest_us < BOUND.as_micros() as u64, "{outcome}");
    // Some thirty short dispatches, and a few that fill their window.
    assert!(took < 10 * BOUND, "{took:?}");

    match device.plan().other_queue {
        None => assert_eq!(outcome.other_queue, Probe::NotMeasured("the device has one queue".into())),
        Some(_) => {
            assert!(outcome.report().is_none() || is_capped(&device) || outcome.other_queue.measured().is_some())
        }
    }

    let choice = Residency::choose(&outcome);
    match choice {
        Residency::Live { workgroups, .. } => assert!(workgroups >= 1 && !is_capped(&device)),
        Residency::Boundary { ref turn_limit, .. } => {
            assert!(is_capped(&device) && turn_limit.is_some(), "{choice:?}");
        }
    }
    if device.is_cpu() && !is_capped(&device) {
        // The host and the driver's threads share their caches: whatever the memory is called, both see all of it.
        assert!(outcome.memory.iter().all(|one| one.mailbox.is_yes() && one.report.is_yes()), "{outcome}");
    }
}

#[test]
fn a_real_outcome_survives_the_round_trip_through_text_and_the_device_can_be_tested_again_and_keeps_that() {
    let _alone = alone();
    let (first, device, _) = run();
    let read: SelfTest = first.to_string().parse().unwrap();
    assert_eq!(read, first);
    assert_eq!(Residency::choose(&read), Residency::choose(&first));
    // The self-test leaves nothing behind on the device that would keep another from running.
    let (clone, kept) = (device.clone(), device.self_test().unwrap());
    assert_eq!(kept.loops, first.loops);
    assert!(std::ptr::eq(kept, clone.self_test().unwrap()));
    assert_eq!(device.validation_messages(), [""; 0]);
}

/// FNV-1a, 64 bits: enough to notice an edit.
#[cfg(feature = "shaderc")]
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// With `TASKRING_BLESS=1`, compiles the kernels and notes what of. Another shaderc makes other words of the same source, so the sources are
/// what is compared, and that they compile.
#[cfg(feature = "shaderc")]
#[test]
fn the_committed_kernels_were_compiled_from_the_sources_as_they_are() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("glsl");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let bless = std::env::var("TASKRING_BLESS").is_ok_and(|value| value == "1");
    let compiler = shaderc::Compiler::new().unwrap();
    let mut options = shaderc::CompileOptions::new().unwrap();
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    options.set_target_spirv(shaderc::SpirvVersion::V1_5);
    options.set_optimization_level(shaderc::OptimizationLevel::Performance);
    options.set_include_callback(|name, _, _, _| {
        Ok(shaderc::ResolvedInclude { resolved_name: name.to_owned(), content: text(name) })
    });
    let mut digests = format!("probe.glsl {:016x}\n", digest(&text("probe.glsl")));
    for name in ["mailbox", "together", "loop"] {
        let source = format!("probe_{name}.comp");
        let kernel = compiler
            .compile_into_spirv(&text(&source), shaderc::ShaderKind::Compute, &source, "main", Some(&options))
            .unwrap_or_else(|error| panic!("{error}"));
        if bless {
            std::fs::write(folder.join(format!("probe_{name}.spv")), kernel.as_binary_u8()).unwrap();
        }
        digests += &format!("{source} {:016x}\n", digest(&text(&source)));
    }
    let noted = folder.join("probe_sources.txt");
    if bless {
        std::fs::write(&noted, &digests).unwrap();
    }
    let committed = std::fs::read_to_string(&noted).unwrap();
    assert_eq!(committed, digests, "a probe was edited and not compiled anew; TASKRING_BLESS=1 does it");
}
