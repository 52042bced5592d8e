//! How threads wait: whoever waits for tasks drives meanwhile, and the keeper watches slices while nobody does.

use std::sync::PoisonError;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::driver::{Step, UNENDED};
use super::inner::{Inner, deadline};
use super::keeper::{NIGHT, Sleep};
use super::record::Ring;
use super::slices::{self, SPIN};
use super::state::State;
use super::timelines::Reached;
use crate::error::BackendError;

/// How long a thread that waits for another one's driving sleeps before it looks for itself.
const NAP: Duration = Duration::from_millis(2);
/// How long one that waits for a running slice's completions sleeps once it has polled for [`SPIN`].
pub(super) const SHORT_NAP: Duration = Duration::from_micros(50);
/// How many times a thread that polls looks for a completion before it looks for a slice's end: some ten microseconds, longer than an answer takes.
const LOOKS: u32 = 256;
/// The same between two looks at semaphores that others signal: what these looks take is added to how late a signal is relayed.
const FEW_LOOKS: u32 = 4;
/// Semaphores that are looked at between two looks at records, some ten nanoseconds each on the H100's driver: who waits for a task is not kept from it by many.
const FEW_SEMAPHORES: usize = 8;

/// Counts a thread among those that poll, until it is dropped. A hint to the keeper.
struct Polling<'a>(&'a AtomicU32);

impl<'a> Polling<'a> {
    fn begin(polling: &'a AtomicU32) -> Self {
        polling.fetch_add(1, Relaxed);
        Self(polling)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether one of these semaphores has reached its value, or cannot say: whoever takes over the value finds the error.
pub(super) fn have_moved(awaited: &[Reached]) -> bool {
    awaited.iter().any(|(timeline, news)| !timeline.value().is_ok_and(|value| value < *news))
}

impl Inner {
    /// Drives, or lets another thread drive, until `done` gives something. `done` has to listen by itself.
    pub(super) fn drive<T>(
        &self,
        timeout: Duration,
        wanted: &str,
        mut done: impl FnMut() -> Result<Option<T>, BackendError>,
    ) -> Result<T, BackendError> {
        let start = Instant::now();
        let deadline = deadline(timeout);
        let (mut slices, mut polling) = (None, None);
        loop {
            // Before it looks: what another thread takes over meanwhile is news too.
            let next = self.shared.roster.ends.0.consumed();
            if let Some(result) = done()? {
                self.announce_due()?;
                return Ok(result);
            }
            let polls = self.residency.is_live() && self.spins() && start.elapsed() < SPIN;
            let relayed = {
                let state = self.shared.lock();
                state.check()?;
                let slices = *slices.get_or_insert(state.stats.slices);
                if Instant::now() >= deadline {
                    let State { journal, waiting, .. } = &*state;
                    let mut reached = format!("{} tasks unfinished, {waiting} of them paused", journal.in_flight());
                    if let Some(missing) = self.missing_slice(&state, slices) {
                        reached = format!("{reached}; {missing}");
                    }
                    return Err(BackendError::late(wanted, reached, timeout));
                }
                if polls { state.tables.timelines.relayed() } else { Vec::new() }
            };
            polling = polls.then(|| polling.take().unwrap_or_else(|| Polling::begin(&self.shared.polling)));
            // Without a lock, and before anything else: an answer takes microseconds.
            if polls && self.news_come(next, &relayed)? {
                continue;
            }
            let nap = match self.step()? {
                Some(Step::Progress) => continue,
                // Who drives at this moment drives on; a record may come any time.
                Some(Step::Running { .. }) | None if polls => continue,
                Some(Step::Running { .. }) if self.residency.is_live() => SHORT_NAP,
                Some(Step::Running { end, .. }) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    slices::wait(&end, self.spins(), left)?;
                    continue;
                }
                // Another thread drives, or there is nothing to drive until one submits or signals.
                None if self.residency.is_live() => SHORT_NAP,
                None | Some(Step::Idle) => NAP,
            };
            let state = self.shared.lock();
            let nap = nap.min(deadline.saturating_duration_since(Instant::now()));
            drop(self.shared.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Which slice a wait lacks, of those that an engine submits; `None` where the runtime submits them. There were `slices` when the wait began.
    fn missing_slice(&self, state: &State, slices: u64) -> Option<&'static str> {
        let none = "no slice was recorded meanwhile, and the runtime is record_only; call record_slice, submit, and wait again";
        match state {
            _ if !self.options.record_only => None,
            State { slice_runs: true, .. } => Some(UNENDED),
            State { stats, .. } => (stats.slices == slices).then_some(none),
        }
    }

    /// Sleeps while no slice runs, until there may be something to drive: the alarm, or a semaphore that tasks may wait for. False if the keeper is
    /// to stop.
    pub(super) fn park(&self) -> Result<bool, BackendError> {
        let awaited = {
            let state = self.shared.lock();
            if state.journal.in_flight() > 0 { state.tables.timelines.awaited() } else { Vec::new() }
        };
        match awaited.is_empty() {
            true => Ok(self.alarm.sleep(None)),
            false if self.sleeps() => self.alarm.sleep_or(Sleep::Parked, &self.device, &awaited, NIGHT),
            false => Ok(self.alarm.sleep(Some(NAP))),
        }
    }

    /// Polls for the completion record at this position, and for semaphores that others signal, whose epochs it takes over. False if nothing came soon.
    fn news_come(&self, next: u32, relayed: &[Reached]) -> Result<bool, BackendError> {
        if relayed.is_empty() {
            return self.record_comes(next, LOOKS);
        }
        for few in relayed.chunks(FEW_SEMAPHORES).cycle().take((LOOKS / FEW_LOOKS) as usize) {
            if self.record_comes(next, FEW_LOOKS)? {
                return Ok(true);
            }
            if have_moved(few) {
                self.relay()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Polls for the completion record at this position, so many times.
    fn record_comes(&self, next: u32, looks: u32) -> Result<bool, BackendError> {
        let ring = Ring::of(self.memory()?)?;
        for _ in 0..looks {
            // Who sees it looks again with the ends.
            if ring.comes(next)? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// The keeper's wait for a slice's end, for at most `time`, or until it is rung; meanwhile it looks for what has to be looked at before: epochs to be
    /// relayed, ends to be announced. False if it is to stop.
    pub(super) fn watch(&self, end: &Reached, time: Duration) -> Result<bool, BackendError> {
        let (watched, awaited) = {
            let state = self.shared.lock();
            (state.is_watched(), state.tables.timelines.awaited())
        };
        if !self.sleeps() {
            let nap = if watched { SHORT_NAP } else { NAP };
            end.0.wait(end.1, time.min(nap))?;
        } else if !watched {
            return self.alarm.sleep_or(Sleep::ForSlice, &self.device, std::slice::from_ref(end), time);
        } else {
            let deadline = deadline(time);
            let looks = if awaited.is_empty() { LOOKS } else { FEW_LOOKS };
            while Instant::now() < deadline && !self.alarm.is_roused() {
                if self.shared.polling.load(Relaxed) > 0 {
                    // Who polls sees all of that, and two who look at semaphores are in each other's way in the driver.
                    std::hint::spin_loop();
                    continue;
                }
                let next = self.shared.roster.ends.0.consumed();
                if end.0.value()? >= end.1 || have_moved(&awaited) || self.record_comes(next, looks)? {
                    break;
                }
            }
        }
        if watched {
            self.with_state(State::relay)?;
            self.listen()?;
        }
        Ok(self.alarm.sleep(Some(Duration::ZERO)))
    }

    /// Whether the keeper may sleep on several semaphores. The validation layer (1.3.239) now and then loses a signal that one thread of the host gives while
    /// another waits, and stalls that for ten seconds; Mesa's CPU driver waits for any of several semaphores by looking at them again and
    /// again, with all of a core. There it looks by itself, now and then.
    fn sleeps(&self) -> bool {
        !self.device.is_validated() && !self.device.is_cpu()
    }

    /// A CPU driver would be polled with the cycles that it needs itself.
    pub(super) fn spins(&self) -> bool {
        !self.device.is_cpu()
    }
}
