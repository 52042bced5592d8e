//! What taskring finds out about this machine's device, and how it would run there.
//!
//! `cargo run --example doctor`, with `--json` for programs, with `--record` for the text that `--replay FILE` and `SelfTest::from_str` read.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use taskring::device::{MemoryOutcome, Probe, RoundTrip};
use taskring::{Device, DeviceOptions, Residency, SelfTest};

/// Tests a device for what taskring needs; `TASKRING_DEVICE` chooses another one.
#[derive(Parser)]
struct Arguments {
    /// Print JSON: one object, with the keys of the recorded form and a few about the device and the mode.
    #[arg(long, conflicts_with = "record")]
    json: bool,
    /// Print the outcome as a record that can be replayed.
    #[arg(long)]
    record: bool,
    /// Read a record instead of testing a device.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Run under Vulkan's validation layer.
    #[arg(long, conflicts_with = "replay")]
    validate: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("doctor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let (device, clock, outcome) = match &arguments.replay {
        Some(path) => (format!("recorded in {}", path.display()), None, std::fs::read_to_string(path)?.parse()?),
        None => {
            let device = Device::new(DeviceOptions {
                validation: arguments.validate,
                application_name: "taskring doctor".into(),
                ..DeviceOptions::default()
            })?;
            let outcome = SelfTest::run(&device)?;
            if let [first, ..] = device.validation_messages().as_slice() {
                return Err(first.clone().into());
            }
            (device.description(), Some(device.plan().shader_clock), outcome)
        }
    };
    let choice = Residency::choose(&outcome);
    if arguments.json {
        print!("{}", json(&device, clock, &outcome, &choice));
    } else if arguments.record {
        print!("{outcome}");
    } else {
        print_for_people(&device, clock, &outcome, &choice);
        print!("\nThe longest probe took {} ms", outcome.longest_us / 1000);
        match arguments.replay {
            Some(_) => println!("."),
            None => println!(", everything {:.1?}.", start.elapsed()),
        }
    }
    Ok(())
}

/// The clock is the device's and not of the record.
fn print_for_people(device: &str, clock: Option<bool>, outcome: &SelfTest, choice: &Residency) {
    println!("{device}\n");
    if let Some(clock) = clock {
        println!("device clock in kernels                {}", yes(&clock));
    }
    for MemoryOutcome { class, mailbox, report } in &outcome.memory {
        println!("{class} memory");
        println!("  a running kernel sees host writes    {}", answer(mailbox, yes));
        println!("  the host sees a running kernel's     {}", answer(report, yes));
    }
    println!(
        "workgroups that progress together      {}",
        answer(&outcome.workgroups, |workgroups| match *workgroups {
            SelfTest::MOST_WORKGROUPS => format!("{workgroups} or more"),
            workgroups => format!("{workgroups}"),
        })
    );
    println!(
        "loops                                  {}",
        answer(&outcome.loops, |loops| match loops.cut {
            true => format!("the driver ends them after {} turns", loops.turns),
            false => format!("not cut up to {} turns", loops.turns),
        })
    );
    println!("another queue advances meanwhile       {}", answer(&outcome.other_queue, yes));
    println!(
        "round trip of one word                 {}",
        answer(&outcome.round_trip, |trip| {
            let RoundTrip { mailbox, report, rounds, p50_ns, p99_ns } = trip;
            let (p50, p99) = (*p50_ns as f64 / 1000.0, *p99_ns as f64 / 1000.0);
            format!("p50 {p50:.2} us, p99 {p99:.2} us ({rounds} rounds; mailbox {mailbox}, report {report})")
        })
    );
    println!("\nMode: {}", mode(choice));
    if let Residency::Boundary { turn_limit: Some(turns), .. } = choice {
        println!("Slices of at most {turns} turns");
    }
    for reason in choice.reasons() {
        println!("  - {reason}");
    }
}

fn answer<T>(probe: &Probe<T>, show: impl Fn(&T) -> String) -> String {
    match probe {
        Probe::Measured(answer) => show(answer),
        Probe::NotMeasured(reason) => format!("not measured: {reason}"),
    }
}

fn yes(answer: &bool) -> String {
    if *answer { "yes" } else { "no" }.into()
}

fn mode(choice: &Residency) -> &'static str {
    match choice {
        Residency::Live { .. } => "live",
        Residency::Boundary { .. } => "boundary",
    }
}

/// The lines of the recorded form as members of an object, between the device and the choice.
fn json(device: &str, clock: Option<bool>, outcome: &SelfTest, choice: &Residency) -> String {
    let record = outcome.to_string();
    let fields = record.lines().filter_map(|line| line.split_once(" = "));
    let mut members = vec![format!("\"device\": {}", quoted(device))];
    members.extend(clock.map(|clock| format!("\"device_clock\": {clock}")));
    members.extend(fields.map(|(key, value)| {
        let value = match value {
            "yes" => "true".into(),
            "no" => "false".into(),
            number if number.parse::<u64>().is_ok() => number.into(),
            text => quoted(text),
        };
        format!("{}: {value}", quoted(key))
    }));
    members.push(format!("\"mode\": {}", quoted(mode(choice))));
    if let Residency::Boundary { turn_limit: Some(turns), .. } = choice {
        members.push(format!("\"turn_limit\": {turns}"));
    }
    let reasons: Vec<_> = choice.reasons().iter().map(|reason| quoted(reason)).collect();
    members.push(format!("\"reasons\": [{}]", reasons.join(", ")));
    format!("{{\n  {}\n}}\n", members.join(",\n  "))
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        letter if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.into(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
