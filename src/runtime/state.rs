//! What the submitting and the driving threads share: the host's side of the rings, and the journal.

use super::entry::Delivery;
use super::journal::Journal;
use super::mailbox::{LineTicket, Mailbox};
use super::memory::Memory;
use super::options::RuntimeOptions;
use super::record::{End, Ring};
use super::slices::host;
use super::tables::Tables;
use super::task::{Completion, RuntimeStats};
use super::timelines::{Courier, Source};
use crate::abi::{self, SliceExit, TaskWorkItem, TimelineId};
use crate::error::BackendError;
use crate::policy::Launch;
use crate::telemetry::TaskQueueSnapshot;

/// Records that are read before anything is done with them. The device has written them, so each line of them comes from afar; those of one such pass come
/// side by side.
const TOGETHER: usize = 64;
/// Records that are read before a slice is launched: some ten microseconds.
const A_WHILE: usize = 512;

#[derive(Debug)]
pub(super) struct State {
    pub(super) journal: Journal,
    pub(super) tables: Tables,
    pub(super) mailbox: Mailbox,
    /// Of the tasks that were accepted last; kept so that a submission allocates nothing.
    pub(super) tickets: Vec<LineTicket>,
    /// Records that were just read.
    ends: Box<[End; TOGETHER]>,
    pub(super) stats: RuntimeStats,
    pub(super) trace: Vec<abi::TraceRecord>,
    /// Submission ring positions that the device had admitted when the last slice ended.
    admitted: u32,
    /// Completion ring positions read.
    consumed: u32,
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
    /// The largest age of a task that has ended since the last launch.
    oldest: u32,
    pub(super) last_launch: Option<Launch>,
    /// What partitions hold together and how old that is, smoothed, as of the last time that somebody looked.
    pub(super) usual: (u32, u32),
    pub(super) stopped: bool,
    /// The first error of a driving thread that leaves the runtime unusable: every later call says it too.
    pub(super) broken: Option<BackendError>,
}

impl State {
    pub(super) fn new(options: &RuntimeOptions, live: bool) -> Self {
        Self {
            journal: Journal::new(options.capacity),
            tables: Tables::new(options.tenants, options.buffers, options.missed_signals),
            mailbox: Mailbox::new(live, options.capacity, options.missed_bells),
            tickets: Vec::new(),
            ends: Box::new([End::default(); TOGETHER]),
            stats: RuntimeStats::default(),
            trace: Vec::new(),
            admitted: 0,
            consumed: 0,
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
            oldest: 0,
            last_launch: None,
            usual: (0, 0),
            stopped: false,
            broken: None,
        }
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
            max_priority_age: std::mem::take(&mut self.oldest),
            ..TaskQueueSnapshot::default()
        }
    }

    /// The last launch came to nothing; the one before is the last again.
    pub(super) fn unlaunch(&mut self, before: Option<Launch>) {
        if let Some(launch) = std::mem::replace(&mut self.last_launch, before) {
            self.oldest = self.oldest.max(launch.snapshot.max_priority_age);
        }
    }

    /// How many of so many tasks there is room for: slots that nobody has, and lines that the device has read.
    pub(super) fn room(&mut self, memory: &Memory, wanted: usize) -> Result<usize, BackendError> {
        if self.journal.room() < wanted {
            // Whoever only submits would never see that dropped handles have made room.
            self.listen(memory)?;
        }
        self.mailbox.room(memory, &self.journal, wanted.min(self.journal.room()))
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

    /// Cancels tasks that have not ended.
    pub(super) fn cancel(&mut self, memory: &Memory, tickets: Vec<u32>) -> Result<(), BackendError> {
        if tickets.is_empty() {
            return Ok(());
        }
        self.wants_slice = true;
        self.tables.cancels.add(tickets);
        self.tables.timelines.announce();
        self.tell(memory)
    }

    /// Whether a thread that drives has to look often while slices run, and not only at their ends.
    pub(super) fn is_watched(&self) -> bool {
        let awaited = !self.journal.groups.is_empty() || !self.journal.wakers.is_empty();
        self.mailbox.live() && (awaited || self.tables.timelines.has_relayed())
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

    /// Counts an end that no record tells of.
    pub(super) fn count(&mut self, ticket: u32, faulted: bool) {
        if !self.tables.cancels.is_empty() {
            self.tables.cancels.ended(ticket);
        }
        *if faulted { &mut self.stats.faulted } else { &mut self.stats.done } += 1;
    }

    /// Takes over what has been completed up to now, while slices run.
    pub(super) fn listen(&mut self, memory: &Memory) -> Result<(), BackendError> {
        self.listen_to(memory, usize::MAX)
    }

    /// The same, but no more than a few: who is to launch a slice cannot look at all that the ones before it have completed meanwhile, which on the H100 took
    /// longer than those slices, and the device stood still.
    pub(super) fn listen_a_while(&mut self, memory: &Memory) -> Result<(), BackendError> {
        self.listen_to(memory, A_WHILE)
    }

    fn listen_to(&mut self, memory: &Memory, most: usize) -> Result<(), BackendError> {
        let mut left = most;
        while self.mailbox.live()
            && left > 0
            && let count = self.follow(memory, left, None)?
            && count > 0
        {
            left -= count;
        }
        Ok(())
    }

    /// Completions of batched tasks, in the order of their ends, at most `limit`.
    pub(super) fn take_bulk(
        &mut self,
        memory: &Memory,
        limit: usize,
        into: &mut Vec<Completion>,
    ) -> Result<usize, BackendError> {
        let had = into.len();
        self.journal.take_bulk(limit, into);
        while self.mailbox.live()
            && let left = limit - (into.len() - had)
            && self.follow(memory, left, Some(into))? > 0
        {}
        Ok(into.len() - had)
    }

    /// Takes over the next records, at most so many, for whoever takes completions in bulk at this moment if there is somebody. How many there were: 0 if
    /// the next one has not been written.
    fn follow(
        &mut self,
        memory: &Memory,
        most: usize,
        into: Option<&mut Vec<Completion>>,
    ) -> Result<usize, BackendError> {
        let ends = &mut self.ends[..most.min(TOGETHER)];
        let read = Ring::of(memory)?.read(self.consumed, ends)?;
        let ended = self.journal.end_by_records(&ends[..read], into);
        let (taken, stray) = ends[..read].split_at(ended.count);
        self.consumed = self.consumed.wrapping_add(ended.count as u32);
        self.stats.faulted += ended.faulted as u64;
        self.stats.done += (ended.count - ended.faulted) as u64;
        self.oldest = self.oldest.max(ended.oldest);
        if !self.tables.cancels.is_empty() {
            taken.iter().for_each(|end| self.tables.cancels.ended(end.ticket()));
        }
        match stray.first() {
            None => Ok(ended.count),
            Some(end) => Err(BackendError::Protocol {
                what: format!("a task that is not in flight ended: ticket {:#010x}", end.ticket()),
            }),
        }
    }

    /// The position of the next completion record.
    pub(super) fn next_record(&self) -> u32 {
        self.consumed
    }

    /// Takes over what an ended slice reports.
    pub(super) fn harvest(&mut self, memory: &Memory, exit: &SliceExit) -> Result<(), BackendError> {
        // A slice that followed may have completed more already.
        while let left = exit.completed.wrapping_sub(self.consumed).cast_signed()
            && left > 0
        {
            if self.follow(memory, left as usize, None)? == 0 {
                let what = format!("completion {} was reported and is not in the ring", self.consumed);
                return Err(BackendError::Protocol { what });
            }
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

    /// Every record that was written counts, whatever is missing between them.
    pub(super) fn salvage(&mut self, memory: &Memory) -> Result<(), BackendError> {
        for _ in 0..memory.capacity {
            if self.follow(memory, 1, None)? == 0 {
                self.consumed = self.consumed.wrapping_add(1);
            }
        }
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

    /// The rings are empty again, as on the first day; the journal, the tables and the counts stay.
    pub(super) fn start_anew(&mut self, memory: &Memory) -> Result<(), BackendError> {
        (self.admitted, self.consumed) = (0, 0);
        (self.pauses, self.resumes, self.waiting) = (0, 0, 0);
        (self.pushed, self.tick, self.came_back) = (0, 0, 0);
        self.mailbox.start_anew(memory)?;
        // A record of the former life would pass for one of this life's first lap.
        host(&memory.completions)?.write(0, &vec![0; memory.completions.bytes() as usize])
    }
}
