//! A whole run on a device, with scenarios that measure next to nothing.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taskring::device::Probe;
use taskring::{Device, DeviceOptions, RuntimeOptions, Task};
use taskring_bench::{Bench, Error, Report, Run, Scenario, Size, Tally, Unit, Variant, compare, scenarios::ops};

/// Runs one task for each sample and says that it took 5 µs.
const FIVE: Scenario = Scenario {
    name: "five",
    meaning: "Nothing.",
    unit: Unit::Micros,
    alternatives: &["nothing at all"],
    run: |run| {
        five(run, Variant::alternative("without"))?;
        five(run, Variant::ours("with"))
    },
};
const FAILS: Scenario = Scenario {
    name: "fails",
    run: |run| {
        run.skip(Variant::ours("a part"), "it is nowhere");
        Err(Error::Wrong { what: "all of it".into() })
    },
    ..FIVE
};

fn five(run: &mut Run<'_>, variant: Variant) -> Result<(), Error> {
    let runtime = run.runtime(RuntimeOptions::default())?;
    let mut tally = Tally::default();
    run.latency(variant, || {
        let completion = runtime.submit(Task::new(ops::NOTHING))?.wait(Duration::from_secs(10))?;
        tally.submitted(1);
        tally.completed(&[completion])?;
        Ok(Duration::from_micros(5))
    })?;
    tally.settle()
}

fn bench() -> Bench {
    Bench::new(Size::Quick).with(FIVE).with(FAILS).software(true)
}

#[test]
fn a_run_measures_what_it_can_and_reports_what_it_cannot() {
    let report =
        bench().only(&["five", "fails"]).unwrap().run(&Device::new(DeviceOptions::default()).unwrap()).unwrap();
    let variants: Vec<_> = report.measurements.iter().map(|one| (one.variant.as_str(), one.is_alternative)).collect();
    assert_eq!(variants, [("without", true), ("with", false)]);
    assert!(report.measurements.iter().all(|one| (4.99..5.01).contains(&one.samples.value())));
    let gaps: Vec<_> = report.gaps.iter().map(|gap| (gap.variant.as_deref(), gap.failed)).collect();
    assert_eq!(gaps, [(Some("a part"), false), (None, true)]);
    assert!(report.incomplete && !report.facts.reasons.is_empty());

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("harness");
    report.write(&folder).unwrap();
    let again = Report::read(&folder.join("results.jsonl")).unwrap();
    assert_eq!(again, report);
    assert!(!compare(&report, &again, 1.0).is_regression());
}

#[test]
fn every_scenario_works_and_loses_no_task() {
    let device = Device::new(DeviceOptions::default()).unwrap();
    let bench = Bench::new(Size::Smoke).software(true);
    let names: Vec<&str> = bench.scenarios().iter().map(|scenario| scenario.name).collect();
    let report = bench.run(&device).unwrap();
    // A wrong result is a failure of its scenario.
    assert!(!report.incomplete, "{:#?}", report.gaps);
    for name in names {
        let mut ours = report.of(name).filter(|one| !one.is_alternative);
        let loops_are_cut = matches!(&device.self_test().unwrap().loops, Probe::Measured(loops) if loops.cut);
        let unfit = match name {
            "other_queue" => device.other_queue_family().is_none(),
            "mixed" | "priority_under_load" | "inversions" | "phases" => loops_are_cut,
            _ => false,
        };
        assert_eq!(ours.next().is_none(), unfit, "{name}");
        let mut numbers = report.of(name).map(|one| one.samples.value());
        assert!(numbers.all(|number| number.is_finite() && number >= 0.0), "{name}");
    }
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

#[test]
fn a_run_that_is_stopped_says_so() {
    let bench = bench().only(&["five"]).unwrap();
    bench.stop_flag().store(true, Relaxed);
    let report = bench.run(&Device::new(DeviceOptions::default()).unwrap()).unwrap();
    assert!(report.incomplete && report.measurements.is_empty());
    assert!(report.html().contains("Incomplete"));
    assert!(report.gaps.iter().all(|gap| !gap.failed), "nothing of it is a failure: {:?}", report.gaps);
}

#[test]
fn a_software_device_is_refused_unless_it_was_asked_for() {
    let device = Device::new(DeviceOptions::default()).unwrap();
    let refused = bench().software(false).only(&["five"]).unwrap().run(&device);
    if device.is_cpu() {
        assert!(matches!(&refused, Err(Error::Software { .. })), "{refused:?}");
    } else {
        assert!(refused.is_ok(), "{refused:?}");
    }
}
