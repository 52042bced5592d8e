//! The self-test: bounded probe kernels find out what a device does that no property of it tells.
//!
//! Vulkan promises neither that a running kernel sees what the host writes, nor that workgroups progress together, and drivers differ. So it is
//! tried: [`SelfTest::run`]. The outcome is plain data; [`Residency::choose`] decides from it alone, so that it can be recorded, fed back in,
//! and tested for devices that are not here.
//!
//! # Why it always ends
//! No kernel waits for anything without counting its turns. The bound is chosen by calibration: short runs first, four times as many turns each,
//! until the time of a turn is known, then as many turns as fill a window of a tenth of a second. The host's part ends with the kernel or at half a
//! second, whichever is first. A kernel that outlives a second (ten on a driver that needs the host's processors, which may be busy) is an error,
//! nothing is submitted after it, and what it uses is leaked.

mod memory;
mod outcome;
mod probe;
mod queue;
mod residency;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use memory::{REPORT, SharedMemory};
use outcome::best_report;
use probe::{Ended, Harness, Kernel, Push, Running};

pub use outcome::{BadRecord, Loops, MemoryClass, MemoryOutcome, Probe, RoundTrip, SelfTest};
pub use residency::Residency;

use super::context::Device;
use super::mapped::{Mapped, store_fence};
use crate::BackendError;

/// How long a kernel waits for the host, or for other workgroups. Long enough for a thread of the host that has to wait for its processor; an answer
/// takes microseconds.
const WINDOW: Duration = Duration::from_millis(100);
/// A run of this length tells the time of a turn: the cost of a submission, some 0.1 ms, is small beside it.
const TELLING: Duration = Duration::from_millis(4);
/// How often a probe is tried before its answer is no: on a busy host, a thread that was not scheduled looks like a kernel that does not see.
/// More often where the kernel needs a processor too.
const ATTEMPTS: u32 = 2;
const ATTEMPTS_ON_CPU: u32 = 5;

/// Messages of the mailbox probe. The first alone proves nothing: a kernel may read a line right once and keep it forever.
const MESSAGES: u32 = 3;
/// Different signs of life that the host must see, the last perhaps with the end of the kernel, the others while it runs.
const BEATS: u32 = 3;
/// Rounds of the round trip, on a device and on a driver that shares its processors with the host.
const ROUNDS: u32 = 2000;
const ROUNDS_ON_CPU: u32 = 200;

/// Offsets of the words of `probe_mailbox.comp`, in bytes.
const NUMBER: u64 = 0;
const PAYLOAD: u64 = 4 * 64;
const BEAT: u64 = REPORT;
const ANSWERED: u64 = REPORT + 4 * 64;
const ANSWER: u64 = REPORT + 4 * 65;

impl SelfTest {
    /// Runs all probes on a device, one after the other, on the slices' queue, one of them with a look at the other queue. Takes some tenths of a
    /// second, and longest where the answers are no. Nothing else should run on these queues meanwhile: it would look like a slow device.
    /// [`Device::self_test`] keeps the outcome.
    ///
    /// # Errors
    /// [`BackendError::Timeout`] if a kernel does not end by itself in its time: the device is not to be used any more, nor can it be
    /// destroyed. [`BackendError::Vulkan`] and [`BackendError::DeviceLost`] as Vulkan has them.
    pub fn run(device: &Device) -> Result<Self, BackendError> {
        let _span = tracing::info_span!("self_test").entered();
        let mut memories = Vec::new();
        for class in MemoryClass::ALL {
            memories.extend(SharedMemory::new(device, class)?);
        }
        let harness = Harness::new(device)?;
        let outcome = run(&harness, &memories);
        if harness.is_stuck() {
            tracing::error!("a probe did not end; what it uses is leaked");
            std::mem::forget((harness, memories));
        }
        outcome
    }
}

fn run(harness: &Harness, memories: &[SharedMemory]) -> Result<SelfTest, BackendError> {
    let loops = loops(harness)?;
    let mut memory = Vec::new();
    let mut windows = Vec::new();
    for shared in memories {
        let window = calibrate(|bound| poll(harness, shared, bound))?;
        let report = kernel_to_host(harness, shared, window)?;
        let mailbox = Probe::NotMeasured("the host sees no kernel's writes".into());
        memory.push(MemoryOutcome { class: shared.class, mailbox, report });
        windows.push(window);
    }
    let mut round_trip = Probe::NotMeasured("there is no memory in which both see each other".into());
    let mut other_queue = Probe::NotMeasured(match harness.has_other_queue() {
        true => "the host cannot tell when a kernel runs".into(),
        false => "the device has one queue".into(),
    });
    let best = best_report(&memory);
    if let Some((report, window)) = memories.iter().zip(&windows).find(|(shared, _)| Some(shared.class) == best) {
        // Without a mailbox the kernel ends by its bound.
        let mut working = Talk { harness, mailbox: report, report, window: *window };
        for ((shared, outcome), window) in memories.iter().zip(&mut memory).zip(&windows) {
            let talk = Talk { harness, mailbox: shared, report, window: *window };
            outcome.mailbox = talk.host_to_kernel()?;
            // The classes come in order of preference, so the first that works is the one that will be used.
            if outcome.mailbox.is_yes() && round_trip.measured().is_none() {
                round_trip = talk.round_trip()?;
                working = talk;
            }
        }
        if harness.has_other_queue() {
            other_queue = working.other_queue()?;
        }
    }
    let workgroups = workgroups(harness)?;
    let longest_us = u64::try_from(harness.longest().as_micros()).unwrap_or(u64::MAX);
    Ok(SelfTest { memory, workgroups, loops, other_queue, round_trip, longest_us })
}

impl Harness {
    fn attempts(&self) -> u32 {
        if self.is_cpu() { ATTEMPTS_ON_CPU } else { ATTEMPTS }
    }
}

/// A bound on the turns of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    turns: u32,
    /// Whether the driver ends loops so early that the turns do not fill the time.
    cut: bool,
}

/// Chooses the bound that makes a kernel end after [`WINDOW`]. `run` runs it with a bound, and says how many turns it took and how long.
fn calibrate(mut run: impl FnMut(u32) -> Result<(u32, Duration), BackendError>) -> Result<Window, BackendError> {
    // The first run pays for all that is done once.
    let mut bound = 256;
    run(bound)?;
    loop {
        let (turns, mut took) = run(bound)?;
        if turns < bound {
            // One more turn might end in silence.
            return Ok(Window { turns: turns.saturating_sub(1), cut: true });
        }
        // A run that was disturbed looks long: it is believed if others are as long.
        for _ in 0..2 {
            if took >= TELLING {
                took = took.min(run(bound)?.1);
            }
        }
        if took >= TELLING || bound > u32::MAX / 4 {
            let turns = u128::from(bound) * WINDOW.as_nanos() / took.as_nanos().max(1);
            return Ok(Window { turns: u32::try_from(turns).unwrap_or(u32::MAX), cut: false });
        }
        bound *= 4;
    }
}

/// Runs the mailbox kernel with nobody talking to it.
fn poll(harness: &Harness, shared: &SharedMemory, bound: u32) -> Result<(u32, Duration), BackendError> {
    clear(shared.mapped()?)?;
    let push = Push { mailbox: shared.mailbox(), report: shared.report(), count: 1, bound, ..Push::default() };
    let ((), ended) = harness.run(Kernel::Mailbox, 1, push, |_| Ok(()))?;
    Ok((turns(&ended, 1), ended.took))
}

/// The turns that a kernel says it took, none if it was ended before it could.
fn turns(ended: &Ended, word: usize) -> u32 {
    ended.result.map_or(0, |result| result[word])
}

/// Makes a mailbox and a report ready for the next kernel.
fn clear(mapped: &Mapped) -> Result<(), BackendError> {
    for offset in [NUMBER, PAYLOAD, BEAT, ANSWERED, ANSWER] {
        mapped.store(offset, 0, Relaxed)?;
    }
    store_fence();
    Ok(())
}

/// Does the host see signs of life while the kernel lives? The kernel stays until its bound, or until it sees that it may go.
fn kernel_to_host(harness: &Harness, shared: &SharedMemory, window: Window) -> Result<Probe<bool>, BackendError> {
    let mapped = shared.mapped()?;
    let push =
        Push { mailbox: shared.mailbox(), report: shared.report(), count: 1, bound: window.turns, ..Push::default() };
    attempts(harness, window, || {
        clear(mapped)?;
        let (seen, _) = harness.run(Kernel::Mailbox, 1, push, |running| {
            let mut last = 0;
            for _ in 0..BEATS {
                let mut beat = last;
                let seen = running.until(|| {
                    beat = mapped.load(BEAT, Relaxed)?;
                    Ok(beat != last)
                })?;
                if !seen {
                    return Ok(false);
                }
                last = beat;
            }
            mapped.store(NUMBER, 1, Relaxed)?;
            store_fence();
            Ok(true)
        })?;
        Ok(seen)
    })
}

/// The same question again, until the answer is yes or has been no often enough.
fn attempts(
    harness: &Harness,
    window: Window,
    mut ask: impl FnMut() -> Result<bool, BackendError>,
) -> Result<Probe<bool>, BackendError> {
    for _ in 0..harness.attempts() {
        if ask()? {
            return Ok(Probe::Measured(true));
        }
    }
    Ok(match window.cut {
        true => Probe::NotMeasured(format!("the driver ended the kernel's loop after {} turns", window.turns)),
        false => Probe::Measured(false),
    })
}

/// A kernel with a mailbox here and a report there.
struct Talk<'a> {
    harness: &'a Harness,
    mailbox: &'a SharedMemory,
    report: &'a SharedMemory,
    window: Window,
}

impl Talk<'_> {
    /// Runs the kernel and hands it over to `host` once it has shown that it polls.
    fn with<T>(
        &self,
        count: u32,
        host: impl FnOnce(&Running<'_>) -> Result<T, BackendError>,
    ) -> Result<Option<T>, BackendError> {
        clear(self.mailbox.mapped()?)?;
        clear(self.report.mapped()?)?;
        let (mailbox, report, bound) = (self.mailbox.mailbox(), self.report.report(), self.window.turns);
        let push = Push { mailbox, report, count, bound, ..Push::default() };
        let mapped = self.report.mapped()?;
        let (told, _) = self.harness.run(Kernel::Mailbox, 1, push, |running| {
            // Beyond 1, it has read the mailbox before anything was written there.
            let polls = running.until(|| Ok(mapped.load(BEAT, Relaxed)? > 1))?;
            polls.then(|| host(running)).transpose()
        })?;
        Ok(told)
    }

    /// One message and its answer. The payload differs from message to message in most of its bits.
    fn ask(&self, running: &Running<'_>, number: u32) -> Result<bool, BackendError> {
        let (mailbox, report) = (self.mailbox.mapped()?, self.report.mapped()?);
        let payload = number.wrapping_mul(0x9e37_79b9);
        mailbox.store(PAYLOAD, payload, Relaxed)?;
        // Pairs with the kernel's acquire after it saw the number.
        store_fence();
        mailbox.store(NUMBER, number, Relaxed)?;
        // Nothing follows that could push the number out of a write-combining buffer.
        store_fence();
        // The acquire pairs with the kernel's release before it stored the number.
        Ok(running.until(|| Ok(report.load(ANSWERED, Acquire)? == number))? && report.load(ANSWER, Relaxed)? == payload)
    }

    fn host_to_kernel(&self) -> Result<Probe<bool>, BackendError> {
        attempts(self.harness, self.window, || {
            let all = self.with(MESSAGES, |running| {
                for number in 1..=MESSAGES {
                    if !self.ask(running, number)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            Ok(all.unwrap_or(false))
        })
    }

    fn round_trip(&self) -> Result<Probe<RoundTrip>, BackendError> {
        let rounds = if self.harness.is_cpu() { ROUNDS_ON_CPU } else { ROUNDS };
        let mut times = Vec::new();
        for _ in 0..self.harness.attempts() {
            times.clear();
            self.with(rounds, |running| {
                for number in 1..=rounds {
                    let start = Instant::now();
                    if !self.ask(running, number)? {
                        break;
                    }
                    times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                Ok(())
            })?;
            if times.len() == rounds as usize {
                times.sort_unstable();
                let at = |percent: usize| times[(times.len() - 1) * percent / 100];
                let (mailbox, report) = (self.mailbox.class, self.report.class);
                return Ok(Probe::Measured(RoundTrip { mailbox, report, rounds, p50_ns: at(50), p99_ns: at(99) }));
            }
        }
        Ok(Probe::NotMeasured(format!("it broke off after {} of {rounds} rounds", times.len())))
    }

    /// Does the other queue advance while the kernel runs? A message lets the kernel go when that is known.
    fn other_queue(&self) -> Result<Probe<bool>, BackendError> {
        attempts(self.harness, self.window, || {
            let advances = self.with(1, |running| {
                let advances = self.harness.other_queue_advances(running)?;
                self.ask(running, 1)?;
                Ok(advances)
            })?;
            Ok(advances.unwrap_or(false))
        })
    }
}

/// How many workgroups meet, doubling their number until they do not.
fn workgroups(harness: &Harness) -> Result<Probe<u32>, BackendError> {
    let meet = |workgroups: u32, count: u32, bound: u32| {
        let push = Push { count, bound, ..Push::default() };
        harness.run(Kernel::Together, workgroups, push, |_| Ok(())).map(|((), ended)| ended)
    };
    // One that waits for another that never comes.
    let window = calibrate(|bound| meet(1, 2, bound).map(|ended| (turns(&ended, 2), ended.took)))?;
    let mut most = 0;
    let mut workgroups = 1;
    while workgroups <= SelfTest::MOST_WORKGROUPS {
        let all =
            attempts(harness, window, || Ok(turns(&meet(workgroups, workgroups, window.turns)?, 1) == workgroups))?;
        if !all.is_yes() {
            break;
        }
        most = workgroups;
        workgroups *= 2;
    }
    Ok(Probe::Measured(most))
}

/// How far a loop gets.
fn loops(harness: &Harness) -> Result<Probe<Loops>, BackendError> {
    let push = Push { count: 1, bound: SelfTest::MOST_TURNS, ..Push::default() };
    let ((), ended) = harness.run(Kernel::Loop, 1, push, |_| Ok(()))?;
    Ok(match ended.result {
        Some(result) => Probe::Measured(Loops { turns: result[1], cut: result[1] < SelfTest::MOST_TURNS }),
        None => Probe::NotMeasured("the code after the loop was not reached".into()),
    })
}
