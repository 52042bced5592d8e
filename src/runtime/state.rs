//! What the submitting and the driving threads share: the host's side of the submission ring, the tables, and the journal.

use std::sync::Arc;

use super::ends::Ends;
use super::entry::Delivery;
use super::journal::Journal;
use super::mailbox::{LineTicket, Mailbox};
use super::memory::Memory;
use super::options::RuntimeOptions;
use super::roster::Roster;
use super::slices::host;
use super::tables::Tables;
use super::task::RuntimeStats;
use super::timelines::{Courier, Source};
use super::turns::Turns;
use crate::abi::{self, SliceExit, TaskWorkItem, TimelineId};
use crate::error::BackendError;
use crate::policy::Launch;
use crate::telemetry::TaskQueueSnapshot;

#[derive(Debug)]
pub(super) struct State {
    /// Locked inside of the state, never the other way round.
    pub(super) ends: Arc<Turns<Ends>>,
    pub(super) journal: Journal,
    pub(super) tables: Tables,
    pub(super) mailbox: Mailbox,
    /// Of the tasks that were accepted last; kept so that a submission allocates nothing.
    pub(super) tickets: Vec<LineTicket>,
    pub(super) stats: RuntimeStats,
    pub(super) trace: Vec<abi::TraceRecord>,
    /// Submission ring positions that the device had admitted when the last slice ended.
    admitted: u32,
    /// Whether a slice would find something to do, if none runs.
    pub(super) wants_slice: bool,
    /// Whether a slice runs whose report is still to be taken over.
    pub(super) slice_runs: bool,
    /// Writes the epochs that were promised; made with the first timeline that needs it.
    pub(super) courier: Option<Courier>,
    /// What the progress timeline reaches when all that was submitted has ended.
    pub(super) progress_value: u64,
    /// Tasks in wait lists, as of the last slice.
    pub(super) waiting: u32,
    /// The device's counters as of the last slice; they wrap, and start anew after a recovery.
    pauses: u32,
    resumes: u32,
    /// Pushes into rings and claims from them, counted in the same way.
    pushed: u32,
    tick: u32,
    /// Tasks that came back to the rings in the last slice, at least.
    came_back: u32,
    pub(super) last_launch: Option<Launch>,
    /// What partitions hold together and how old that is, smoothed, as of the last time that somebody looked.
    pub(super) usual: (u32, u32),
    pub(super) stopped: bool,
    /// The first error of a driving thread that leaves the runtime unusable: every later call says it too.
    pub(super) broken: Option<BackendError>,
}

impl State {
    pub(super) fn new(options: &RuntimeOptions, live: bool) -> Self {
        let roster = Arc::new(Roster::new(options.capacity));
        Self {
            ends: Arc::new(Turns::new(Ends::new(roster.clone(), live))),
            journal: Journal::new(roster),
            tables: Tables::new(options.tenants, options.buffers, options.missed_signals),
            mailbox: Mailbox::new(live, options.capacity, options.missed_bells),
            tickets: Vec::new(),
            stats: RuntimeStats::default(),
            trace: Vec::new(),
            admitted: 0,
            wants_slice: false,
            slice_runs: false,
            courier: None,
            progress_value: 0,
            waiting: 0,
            pauses: 0,
            resumes: 0,
            pushed: 0,
            tick: 0,
            came_back: 0,
            last_launch: None,
            usual: (0, 0),
            stopped: false,
            broken: None,
        }
    }

    /// What has been done so far.
    pub(super) fn stats(&self) -> RuntimeStats {
        let ends = self.ends.lock();
        RuntimeStats { done: ends.done, faulted: ends.faulted, ..self.stats }
    }

    /// Whether the runtime can be used at all.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Whether a slice is to be launched, if none runs.
    pub(super) fn launches(&self) -> bool {
        self.wants_slice && !self.stopped
    }

    /// The tasks that wait for epochs, if that is all that is left and no slice could change it.
    pub(super) fn stalled(&self) -> Option<u32> {
        let left = self.journal.in_flight();
        let settled = !self.slice_runs && !self.wants_slice && self.admitted == self.mailbox.published();
        let hopeless = settled && left > 0 && self.waiting == left && !self.tables.timelines.has_foreign();
        hopeless.then_some(left)
    }

    /// The tick at which the last slice ended.
    pub(super) fn tick(&self) -> u32 {
        self.tick
    }

    /// The tasks as the host knows them for a launch, without asking the device; `Runtime::last_launch` says how far this may be from the truth.
    pub(super) fn seen(&mut self) -> TaskQueueSnapshot {
        TaskQueueSnapshot {
            ready_count: self.journal.in_flight().saturating_sub(self.waiting),
            paused_count: self.waiting,
            total_requeues: self.came_back.into(),
            max_priority_age: self.journal.roster.ends.0.take_oldest(),
            ..TaskQueueSnapshot::default()
        }
    }

    /// The last launch came to nothing; the one before is the last again.
    pub(super) fn unlaunch(&mut self, before: Option<Launch>) {
        if let Some(launch) = std::mem::replace(&mut self.last_launch, before) {
            self.journal.roster.ends.0.saw_age(launch.snapshot.max_priority_age);
        }
    }

    /// How many of so many tasks there is room for: slots that nobody has, and lines that the device has read.
    pub(super) fn room(&mut self, memory: &Memory, wanted: usize) -> Result<usize, BackendError> {
        self.mailbox.room(memory, &self.journal.roster, wanted.min(self.journal.room()))
    }

    /// Takes tasks in, for which there is room. Their tickets are in `tickets` then.
    pub(super) fn accept(
        &mut self,
        memory: &Memory,
        items: &[TaskWorkItem],
        delivery: Delivery,
    ) -> Result<(), BackendError> {
        let mut tickets = std::mem::take(&mut self.tickets);
        tickets.clear();
        self.journal.admit(items, delivery, &mut tickets);
        if !self.tables.cancels.is_empty() {
            self.hear_of_cancelled();
        }
        if !self.tables.cancels.are_written() {
            // A slot whose last task was cancelled: this one is not.
            self.tell(memory)?;
        }
        let is_paused = |item: &TaskWorkItem| item.state == abi::TASK_STATE_PAUSED;
        if items.iter().any(is_paused) {
            // Their pauses begin now: neither an epoch that came before nor one that comes before the device reads the line must change what they mean.
            self.relay(memory)?;
            for (ticket, item) in tickets.iter_mut().zip(items).filter(|(_, item)| is_paused(item)) {
                ticket.target_hi = self.tables.timelines.target_hi(item);
            }
        }
        self.stats.submitted += items.len() as u64;
        self.publish(memory, &tickets, items)?;
        self.tickets = tickets;
        Ok(())
    }

    /// Publishes tasks that are in the journal. There must be room.
    pub(super) fn publish(
        &mut self,
        memory: &Memory,
        tickets: &[LineTicket],
        items: &[TaskWorkItem],
    ) -> Result<(), BackendError> {
        self.wants_slice |= !items.is_empty();
        self.mailbox.publish(memory, tickets, items)
    }

    /// Lets the device know what has changed in the tables: at once in live mode, and else with the next slice.
    pub(super) fn tell(&mut self, memory: &Memory) -> Result<(), BackendError> {
        if self.mailbox.live() { self.tables.flush(memory, &mut self.mailbox) } else { Ok(()) }
    }

    /// Takes over the epochs of semaphores that others have signalled.
    pub(super) fn relay(&mut self, memory: &Memory) -> Result<(), BackendError> {
        if !self.tables.timelines.relay()? {
            return Ok(());
        }
        self.wants_slice |= self.journal.in_flight() > 0;
        self.tell(memory)
    }

    /// Cancels those of the tasks that have not ended. Their number.
    pub(super) fn cancel(
        &mut self,
        memory: &Memory,
        which: impl FnOnce(&Roster) -> Vec<u32>,
    ) -> Result<usize, BackendError> {
        // Before it is looked which have not ended: the ends of all of those are noted.
        self.ends.lock().notes = true;
        let tickets = which(&self.journal.roster);
        let count = tickets.len();
        if count > 0 {
            self.wants_slice = true;
            self.tables.cancels.add(tickets);
            self.tables.timelines.announce();
            self.tell(memory)?;
        }
        self.hear_of_cancelled();
        Ok(count)
    }

    /// Takes over which of the cancelled tasks have ended.
    fn hear_of_cancelled(&mut self) {
        let mut ends = self.ends.lock();
        ends.noted.drain(..).for_each(|ticket| self.tables.cancels.ended(ticket));
        ends.notes = !self.tables.cancels.is_empty();
    }

    /// Whether a thread that drives has to look often while slices run, and not only at their ends.
    pub(super) fn is_watched(&self) -> bool {
        self.mailbox.live() && (self.tables.timelines.has_relayed() || self.ends.lock().deliveries.is_awaited())
    }

    /// Makes a timeline, with the semaphore that its epochs come from if there is one.
    pub(super) fn create_timeline(
        &mut self,
        memory: &Memory,
        epoch: u64,
        source: Option<Source>,
    ) -> Result<TimelineId, BackendError> {
        let courier_at = self.courier.as_ref().map_or(Ok(0), Courier::ended)?;
        let timeline = self.tables.timelines.create(epoch, source, courier_at)?;
        self.tell(memory)?;
        Ok(timeline)
    }

    /// Takes over what an ended slice reports.
    pub(super) fn harvest(&mut self, memory: &Memory, exit: &SliceExit) -> Result<(), BackendError> {
        self.ends.lock().follow_to(memory, exit.completed)?;
        if !self.tables.cancels.is_empty() {
            self.hear_of_cancelled();
        }
        self.tables.timelines.heard(exit.heard);
        // What was pushed and neither admitted nor resumed has yielded or changed its priority. Not all that is admitted or resumed is pushed, so
        // there may have been more.
        let pushed = exit.tick.wrapping_add(exit.ready);
        let came = pushed.wrapping_sub(self.pushed);
        let new = exit.admitted.wrapping_sub(self.admitted).wrapping_add(exit.resumes.wrapping_sub(self.resumes));
        self.came_back = came.saturating_sub(new);
        (self.pushed, self.tick) = (pushed, exit.tick);
        self.stats.admitted += u64::from(exit.admitted.wrapping_sub(self.admitted));
        self.admitted = exit.admitted;
        self.mailbox.admitted(memory, exit.admitted);
        self.waiting = exit.waiting;
        self.stats.turns += u64::from(exit.turns);
        self.stats.pauses += u64::from(exit.pauses.wrapping_sub(self.pauses));
        self.stats.resumes += u64::from(exit.resumes.wrapping_sub(self.resumes));
        (self.pauses, self.resumes) = (exit.pauses, exit.resumes);
        // What was published or signalled after the slice had last looked is the next one's.
        let signalled = exit.heard != self.tables.timelines.signals() || exit.dirty > 0;
        self.wants_slice =
            exit.ready > 0 || exit.admitted != self.mailbox.published() || (exit.waiting > 0 && signalled);
        // An index is free once a slice has looked after its close, whoever waits.
        self.wants_slice |= self.tables.timelines.has_unheard_close();
        Ok(())
    }

    /// Takes over the trace of an ended slice.
    pub(super) fn harvest_trace(&mut self, memory: &Memory, traced: u32, capacity: u32) -> Result<(), BackendError> {
        let kept = traced.min(capacity);
        let mut records = vec![abi::TraceRecord::default(); kept as usize];
        host(&memory.trace)?.read(0, bytemuck::cast_slice_mut(&mut records))?;
        self.trace.extend(records);
        self.stats.untraced += u64::from(traced - kept);
        Ok(())
    }

    /// The submission ring is empty again, as on the first day; the journal, the tables and the counts stay.
    pub(super) fn start_anew(&mut self, memory: &Memory) -> Result<(), BackendError> {
        self.admitted = 0;
        (self.pauses, self.resumes, self.waiting) = (0, 0, 0);
        (self.pushed, self.tick, self.came_back) = (0, 0, 0);
        self.mailbox.start_anew(memory)
    }
}
