//! What a self-test found, as plain data with a text form.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe<T> {
    /// The probe ran, and this is its answer. A `false` is an answer too.
    Measured(T),
    /// The probe did not run, or could not tell; and why. The text form keeps the reason on one line.
    NotMeasured(String),
}

impl<T> Probe<T> {
    /// The answer, if there is one.
    pub fn measured(&self) -> Option<&T> {
        match self {
            Self::Measured(answer) => Some(answer),
            Self::NotMeasured(_) => None,
        }
    }
}

impl Probe<bool> {
    /// Whether the answer is yes. What was not measured is no yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        self.measured() == Some(&true)
    }
}

/// Memory that the host and a kernel share coherently, by where it is and whether the host's caches hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryClass {
    /// Device-local and not cached by the host: a discrete GPU's memory through its BAR.
    DeviceLocal,
    /// Device-local and cached by the host: memory that an integrated GPU or a CPU driver has in common with the host.
    DeviceLocalCached,
    /// System memory that the host writes past its caches.
    System,
    /// System memory in the host's caches.
    SystemCached,
}

impl MemoryClass {
    /// All of them; what suits a mailbox best comes first.
    pub const ALL: [Self; 4] = [Self::DeviceLocal, Self::DeviceLocalCached, Self::System, Self::SystemCached];
    /// The order of preference for a report. Reading device-local memory through a BAR is two hundred times slower than reading cached
    /// system memory (H100: 0.8 and 163 million words a second), so it comes last.
    const FOR_REPORTS: [Self; 4] = [Self::SystemCached, Self::DeviceLocalCached, Self::System, Self::DeviceLocal];

    /// The class in one word, as the text form has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceLocal => "device_local",
            Self::DeviceLocalCached => "device_local_cached",
            Self::System => "system",
            Self::SystemCached => "system_cached",
        }
    }
}

impl fmt::Display for MemoryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found out about a class of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOutcome {
    /// The class. The device has memory of it.
    pub class: MemoryClass,
    /// Whether a running kernel sees what the host writes there: three messages in a row, each with a payload on another line.
    pub mailbox: Probe<bool>,
    /// Whether the host sees what a running kernel writes there.
    pub report: Probe<bool>,
}

/// How far one invocation's loop got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loops {
    /// The turns that it took.
    pub turns: u32,
    /// Whether the driver ended it there; otherwise the probe did, and there may be no cap.
    pub cut: bool,
}

/// How long a host and a kernel take to exchange one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// Where the mailbox was.
    pub mailbox: MemoryClass,
    /// Where the report was.
    pub report: MemoryClass,
    /// Rounds that were measured, one after another.
    pub rounds: u32,
    /// The median in nanoseconds of the host's clock.
    pub p50_ns: u64,
    /// What one round in a hundred exceeds.
    pub p99_ns: u64,
}

/// What a device was found to do. Its [`Display`](fmt::Display) form can be kept, and [`FromStr`] reads it back, so that a program tests each device
/// and driver once:
///
/// ```no_run
/// # use taskring::{Device, RuntimeOptions, SelfTest};
/// # fn options(device: &Device) -> Result<RuntimeOptions, Box<dyn std::error::Error>> {
/// let test = match std::fs::read_to_string("self-test") {
///     Ok(text) => text.parse()?,
///     Err(_) => device.self_test()?.clone(),
/// };
/// std::fs::write("self-test", test.to_string())?;
/// Ok(RuntimeOptions { self_test: Some(test), ..RuntimeOptions::default() })
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// The classes of memory that the device has, in the order of [`MemoryClass::ALL`].
    pub memory: Vec<MemoryOutcome>,
    /// The most workgroups, of those that were tried, that all made progress at the same time: a power of two up to
    /// [`SelfTest::MOST_WORKGROUPS`]; 0 if not even one ended well. Where loops are cut the kernels cannot wait long, and this is a lower bound.
    pub workgroups: Probe<u32>,
    /// Where the driver ends loops.
    pub loops: Probe<Loops>,
    /// Whether the device's other queue runs a kernel from beginning to end while one runs on the slices' queue.
    pub other_queue: Probe<bool>,
    /// The round trip through the best mailbox and the best report.
    pub round_trip: Probe<RoundTrip>,
    /// Time that the longest of all dispatches took, in microseconds.
    pub longest_us: u64,
}

impl SelfTest {
    /// The largest number of workgroups that is tried.
    pub const MOST_WORKGROUPS: u32 = 2048;
    /// The number of turns up to which a loop cap is looked for.
    pub const MOST_TURNS: u32 = 200_000;

    /// The best memory of those in which a running kernel sees the host's writes.
    #[must_use]
    pub fn mailbox(&self) -> Option<MemoryClass> {
        best(&self.memory, MemoryClass::ALL, |outcome| &outcome.mailbox)
    }

    /// The best memory of those in which the host sees a running kernel's writes.
    #[must_use]
    pub fn report(&self) -> Option<MemoryClass> {
        best_report(&self.memory)
    }
}

/// As [`SelfTest::report`], before there is a whole self-test.
pub(super) fn best_report(memory: &[MemoryOutcome]) -> Option<MemoryClass> {
    best(memory, MemoryClass::FOR_REPORTS, |outcome| &outcome.report)
}

fn best(
    memory: &[MemoryOutcome],
    order: [MemoryClass; 4],
    answer: impl Fn(&MemoryOutcome) -> &Probe<bool>,
) -> Option<MemoryClass> {
    let works = |class: &MemoryClass| memory.iter().any(|outcome| outcome.class == *class && answer(outcome).is_yes());
    order.into_iter().find(works)
}

/// The first line of the text form; its number changes whenever the fields do.
const TITLE: &str = "taskring self-test 1";
const NOT_MEASURED: &str = "not measured: ";

/// The text form: a title, then a line `key = value` for each field.
impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        let yes = |answer: &bool| if *answer { "yes" } else { "no" }.to_owned();
        for MemoryOutcome { class, mailbox, report } in &self.memory {
            line(f, &format!("memory.{class}.mailbox"), mailbox, yes)?;
            line(f, &format!("memory.{class}.report"), report, yes)?;
        }
        line(f, "workgroups", &self.workgroups, u32::to_string)?;
        line(f, "loops", &self.loops, |loops| {
            format!("{} {}", if loops.cut { "cut after" } else { "uncut up to" }, loops.turns)
        })?;
        line(f, "other_queue", &self.other_queue, yes)?;
        line(f, "round_trip", &self.round_trip, |trip| {
            let RoundTrip { mailbox, report, rounds, p50_ns, p99_ns } = trip;
            format!("{mailbox} {report} rounds {rounds} p50_ns {p50_ns} p99_ns {p99_ns}")
        })?;
        writeln!(f, "longest_us = {}", self.longest_us)
    }
}

fn line<T>(f: &mut fmt::Formatter<'_>, key: &str, probe: &Probe<T>, show: impl Fn(&T) -> String) -> fmt::Result {
    match probe {
        Probe::Measured(answer) => writeln!(f, "{key} = {}", show(answer)),
        Probe::NotMeasured(reason) => {
            writeln!(f, "{key} = {NOT_MEASURED}{}", reason.split_whitespace().collect::<Vec<_>>().join(" "))
        }
    }
}

/// A text that is no self-test's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a recorded self-test: {what}")]
#[non_exhaustive]
pub struct BadRecord {
    /// What is wrong with it.
    pub what: String,
}

fn bad(what: impl Into<String>) -> BadRecord {
    BadRecord { what: what.into() }
}

impl FromStr for SelfTest {
    type Err = BadRecord;

    fn from_str(text: &str) -> Result<Self, BadRecord> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        if lines.next() != Some(TITLE) {
            return Err(bad(format!("it does not begin with `{TITLE}`")));
        }
        let mut fields = BTreeMap::new();
        for line in lines {
            let (key, value) = line.split_once(" = ").ok_or_else(|| bad(format!("`{line}` is not `key = value`")))?;
            if fields.insert(key, value).is_some() {
                return Err(bad(format!("`{key}` is there twice")));
            }
        }
        let mut take = |key: &str| fields.remove(key).ok_or_else(|| bad(format!("`{key}` is missing")));

        let mut memory = Vec::new();
        for class in MemoryClass::ALL {
            let key = |what| format!("memory.{class}.{what}");
            // A class that the device lacks has no lines; one of two lines alone is a mistake.
            match (take(&key("mailbox")), take(&key("report"))) {
                (Err(_), Err(_)) => {}
                (mailbox, report) => {
                    let (mailbox, report) = (probe(mailbox?, yes_or_no)?, probe(report?, yes_or_no)?);
                    memory.push(MemoryOutcome { class, mailbox, report });
                }
            }
        }
        let outcome = Self {
            memory,
            workgroups: probe(take("workgroups")?, |text| text.parse().ok())?,
            loops: probe(take("loops")?, loops)?,
            other_queue: probe(take("other_queue")?, yes_or_no)?,
            round_trip: probe(take("round_trip")?, round_trip)?,
            longest_us: take("longest_us")?.parse().map_err(|_| bad("`longest_us` is no number"))?,
        };
        fields.keys().next().map_or(Ok(outcome), |key| Err(bad(format!("nothing is called `{key}`"))))
    }
}

fn probe<T>(value: &str, read: impl Fn(&str) -> Option<T>) -> Result<Probe<T>, BadRecord> {
    match value.strip_prefix(NOT_MEASURED) {
        Some(reason) => Ok(Probe::NotMeasured(reason.to_owned())),
        None => read(value).map(Probe::Measured).ok_or_else(|| bad(format!("`{value}` cannot be read"))),
    }
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn loops(text: &str) -> Option<Loops> {
    let (turns, cut) = match text.strip_prefix("cut after ") {
        Some(turns) => (turns, true),
        None => (text.strip_prefix("uncut up to ")?, false),
    };
    Some(Loops { turns: turns.parse().ok()?, cut })
}

fn round_trip(text: &str) -> Option<RoundTrip> {
    let class = |name: &str| MemoryClass::ALL.into_iter().find(|class| class.name() == name);
    let words: Vec<&str> = text.split(' ').collect();
    let [mailbox, report, "rounds", rounds, "p50_ns", p50, "p99_ns", p99] = words[..] else { return None };
    Some(RoundTrip {
        mailbox: class(mailbox)?,
        report: class(report)?,
        rounds: rounds.parse().ok()?,
        p50_ns: p50.parse().ok()?,
        p99_ns: p99.parse().ok()?,
    })
}
