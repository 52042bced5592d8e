//! Policy and text form, on recorded outcomes: of devices that need not be here.

use super::*;

fn memory(class: MemoryClass, mailbox: bool, report: bool) -> MemoryOutcome {
    MemoryOutcome { class, mailbox: Probe::Measured(mailbox), report: Probe::Measured(report) }
}

/// A large GPU with a BAR: a running kernel sees host writes there, and never in system memory.
fn h100() -> SelfTest {
    use MemoryClass::{DeviceLocal, System, SystemCached};
    SelfTest {
        memory: vec![memory(DeviceLocal, true, true), memory(System, false, true), memory(SystemCached, false, true)],
        workgroups: Probe::Measured(2048),
        loops: Probe::Measured(Loops { turns: 200_000, cut: false }),
        other_queue: Probe::NotMeasured("the device has one queue".into()),
        round_trip: Probe::Measured(RoundTrip {
            mailbox: DeviceLocal,
            report: SystemCached,
            rounds: 2000,
            p50_ns: 2400,
            p99_ns: 2800,
        }),
        longest_us: 100_412,
    }
}

/// A driver that ends all loops of an invocation after 65,535 turns.
fn capped() -> SelfTest {
    SelfTest {
        memory: vec![memory(MemoryClass::DeviceLocalCached, true, true)],
        workgroups: Probe::Measured(2),
        loops: Probe::Measured(Loops { turns: 65_535, cut: true }),
        round_trip: Probe::NotMeasured("it broke off after 31 of 200 rounds".into()),
        ..h100()
    }
}

/// A device on which neither side sees the other before the kernel's end.
fn blind() -> SelfTest {
    SelfTest {
        memory: vec![memory(MemoryClass::System, false, false)],
        round_trip: Probe::NotMeasured("there is no memory in which both see each other".into()),
        ..h100()
    }
}

/// The limit and the number of reasons of a choice that must be boundary mode.
fn boundary(test: &SelfTest) -> (Option<u32>, usize) {
    match Residency::choose(test) {
        Residency::Boundary { turn_limit, reasons } => (turn_limit, reasons.len()),
        live @ Residency::Live { .. } => panic!("{live:?}"),
    }
}

#[test]
fn a_gpu_that_sees_only_its_own_memory_change_lives_on_that() {
    let Residency::Live { mailbox, report, workgroups, reasons } = Residency::choose(&h100()) else { panic!() };
    assert_eq!((mailbox, report, workgroups), (MemoryClass::DeviceLocal, MemoryClass::SystemCached, 2048));
    assert!(reasons.contains(&"it does not see them in system_cached memory".to_owned()), "{reasons:?}");
}

#[test]
fn a_device_without_a_bar_that_sees_system_memory_lives_on_that() {
    let mut test = h100();
    test.memory.remove(0);
    test.memory[1].mailbox = Probe::Measured(true);
    let Residency::Live { mailbox, report, .. } = Residency::choose(&test) else { panic!() };
    assert_eq!((mailbox, report), (MemoryClass::SystemCached, MemoryClass::SystemCached));
}

#[test]
fn a_device_on_which_nobody_sees_anybody_gets_boundary_mode_with_both_reasons() {
    assert_eq!(boundary(&blind()), (None, 2));
}

#[test]
fn a_driver_that_ends_loops_gets_boundary_mode_and_short_slices() {
    assert_eq!(boundary(&capped()), (Some(341), 2));
    let tiny = SelfTest { loops: Probe::Measured(Loops { turns: 2, cut: true }), ..h100() };
    assert_eq!(boundary(&tiny), (Some(1), 1));
}

#[test]
fn each_thing_that_live_mode_needs_is_missed_alone() {
    let unknown = || "it was not tried".to_owned();
    let mut deaf = h100();
    deaf.memory[0].mailbox = Probe::NotMeasured(unknown());
    for test in [
        deaf,
        SelfTest {
            memory: h100()
                .memory
                .into_iter()
                .map(|one| MemoryOutcome { report: Probe::Measured(false), ..one })
                .collect(),
            ..h100()
        },
        SelfTest { loops: Probe::NotMeasured(unknown()), ..h100() },
        SelfTest { workgroups: Probe::Measured(0), ..h100() },
        SelfTest { workgroups: Probe::NotMeasured(unknown()), ..h100() },
        SelfTest { round_trip: Probe::NotMeasured(unknown()), ..h100() },
    ] {
        assert_eq!(boundary(&test), (None, 1), "{test}");
    }
}

#[test]
fn whether_another_queue_advances_does_not_change_the_choice() {
    for answer in [true, false] {
        let test = SelfTest { other_queue: Probe::Measured(answer), ..h100() };
        assert_eq!(Residency::choose(&test), Residency::choose(&h100()));
    }
}

#[test]
fn an_outcome_survives_the_round_trip_through_text() {
    for test in [h100(), capped(), blind()] {
        assert_eq!(test.to_string().parse(), Ok(test));
    }
}

#[test]
fn the_text_form_is_stable() {
    let text = "taskring self-test 1
memory.device_local.mailbox = yes
memory.device_local.report = yes
memory.system.mailbox = no
memory.system.report = yes
memory.system_cached.mailbox = no
memory.system_cached.report = yes
workgroups = 2048
loops = uncut up to 200000
other_queue = not measured: the device has one queue
round_trip = device_local system_cached rounds 2000 p50_ns 2400 p99_ns 2800
longest_us = 100412
";
    assert_eq!(h100().to_string(), text);
}

#[test]
fn a_text_with_a_line_too_few_too_many_twice_or_garbled_is_refused() {
    let text = h100().to_string();
    let lines: Vec<&str> = text.lines().collect();
    for index in 0..lines.len() {
        let mut changed = lines.clone();
        changed.remove(index);
        assert!(changed.join("\n").parse::<SelfTest>().is_err(), "without `{}`", lines[index]);
        changed.insert(index, "workgroups = many");
        assert!(changed.join("\n").parse::<SelfTest>().is_err(), "instead of `{}`", lines[index]);
        changed.insert(index, lines[index]);
        assert!(changed.join("\n").parse::<SelfTest>().is_err(), "before `{}`", lines[index]);
    }
    assert!(format!("{text}colour = green").parse::<SelfTest>().is_err());
}

#[test]
fn a_reason_of_several_lines_stays_one_line() {
    let test = SelfTest { workgroups: Probe::NotMeasured("a\nb = c".into()), ..h100() };
    let read: SelfTest = test.to_string().parse().expect("readable");
    assert_eq!(read.workgroups, Probe::NotMeasured("a b = c".into()));
}

/// A device whose turns take that long, whose submissions cost 50 us, and which ends loops at `cap`.
fn device(turn: Duration, cap: u32) -> impl FnMut(u32) -> Result<(u32, Duration), BackendError> {
    move |bound| Ok((bound.min(cap), Duration::from_micros(50) + turn * bound.min(cap)))
}

#[test]
fn the_window_is_about_a_tenth_of_a_second_whatever_a_turn_takes() {
    for turn in [Duration::from_nanos(1), Duration::from_nanos(900), Duration::from_micros(40)] {
        let window = calibrate(device(turn, u32::MAX)).expect("calibrated");
        let long = turn * window.turns;
        assert!(!window.cut && long <= WINDOW && long >= WINDOW * 9 / 10, "{turn:?}: {long:?}");
    }
}

#[test]
fn a_window_stays_below_a_loop_cap() {
    let window = calibrate(device(Duration::from_nanos(20), 65_535)).expect("calibrated");
    assert_eq!(window, Window { turns: 65_534, cut: true });
}

#[test]
fn a_device_that_takes_no_time_at_all_is_calibrated_too() {
    let window = calibrate(|bound| Ok((bound, Duration::ZERO))).expect("calibrated");
    assert_eq!(window, Window { turns: u32::MAX, cut: false });
}
