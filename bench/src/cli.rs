//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;

use clap::{Parser, Subcommand};
use taskring::{Device, DeviceOptions};

use crate::{Bench, Error, Report, Size, compare};

/// What the shell expects of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Measures taskring beside what a user has without it.
#[derive(Debug, Parser)]
#[command(name = "gpu", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Say what there is to measure, and measure nothing
    #[arg(long)]
    list: bool,
    /// Measure only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Measure all within about a minute
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Measure more, and larger sizes
    #[arg(long)]
    full: bool,
    /// Measure on a driver that runs on the CPU, too; its times say nothing about a GPU
    #[arg(long)]
    software: bool,
    /// The folder for results.jsonl, report.md and report.html
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    // Cargo passes it to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what changed from one run to another beyond the noise of both; the exit code is 1 if something got worse
    Compare {
        /// The results.jsonl of before
        old: PathBuf,
        /// The results.jsonl of now
        new: PathBuf,
        /// How many percent worse something may be
        #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
        threshold: f64,
    },
}

/// What `cargo bench --bench gpu` runs: see `--help`.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Compare { old, new, threshold }) => compared(old, new, *threshold),
        None => measured(&arguments),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn compared(old: &std::path::Path, new: &std::path::Path, threshold: f64) -> Result<ExitCode, Error> {
    let comparison = compare(&Report::read(old)?, &Report::read(new)?, threshold);
    print!("{comparison}");
    Ok(if comparison.is_regression() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measured(arguments: &Arguments) -> Result<ExitCode, Error> {
    let size = match (arguments.quick, arguments.full) {
        (true, _) => Size::Quick,
        (_, true) => Size::Full,
        _ => Size::Default,
    };
    let mut bench = Bench::new(size).software(arguments.software).progress(true).command(command_line());
    if !arguments.only.is_empty() {
        bench = bench.only(&arguments.only)?;
    }
    if arguments.list {
        for scenario in bench.scenarios() {
            println!("{} ({})\n    {}", scenario.name, scenario.unit.name(), scenario.meaning);
            scenario.alternatives.iter().for_each(|one| println!("    beside: {one}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let device = Device::new(DeviceOptions::default())?;
    eprintln!("{}", device.description());
    let stop = bench.stop_flag();
    let caught = ctrlc::set_handler(move || {
        if stop.swap(true, Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        eprintln!("stopping after this repetition; once more to stop at once");
    });
    if let Err(error) = caught {
        eprintln!("Ctrl-C will end the run without a report: {error}");
    }
    let report = bench.run(&device)?;
    report.write(&arguments.out)?;
    println!("{}", report.markdown());
    eprintln!("written to {}", arguments.out.display());
    let failed = report.gaps.iter().any(|gap| gap.failed);
    Ok(match (failed, report.incomplete) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(INTERRUPTED),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// The command as a user would type it, as far as it can be known.
fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let by_cargo = arguments.iter().any(|one| one == "--bench");
    let typed = arguments.into_iter().filter(|one| one != "--bench");
    let head = if by_cargo { "cargo bench --features shaderc --bench gpu --" } else { "gpu" };
    std::iter::once(head.to_owned()).chain(typed).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_as_documented() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let quick = parse("gpu --only drain,stream --quick --software --out there --bench").unwrap();
        assert_eq!(quick.only, ["drain", "stream"]);
        assert!(quick.quick && quick.software && quick.command.is_none());
        assert!(parse("gpu --quick --full").is_err());
        let compare = parse("gpu compare old.jsonl new.jsonl --threshold 3 --bench").unwrap();
        assert!(matches!(compare.command, Some(Command::Compare { threshold: 3.0, .. })));
    }
}
