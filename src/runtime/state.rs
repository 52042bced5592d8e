//! What the submitting and the driving threads share: the host's side of the rings, and the journal.

use super::journal::{Delivery, Journal};
use super::memory::Memory;
use super::options::RuntimeOptions;
use super::slices::host;
use super::tables::Tables;
use super::task::{Completion, Outcome, RuntimeStats};
use crate::abi::{self, CompletionRecord, SliceExit, TaskWorkItem};
use crate::error::BackendError;

#[derive(Debug)]
pub(super) struct State {
    pub(super) journal: Journal,
    pub(super) tables: Tables,
    pub(super) stats: RuntimeStats,
    pub(super) trace: Vec<abi::TraceRecord>,
    /// Submission ring positions written, and those that the device has admitted (as of the last slice).
    pub(super) published: u32,
    pub(super) admitted: u32,
    /// Completion ring positions read.
    pub(super) consumed: u32,
    /// Whether a slice would find something to do.
    pub(super) wants_slice: bool,
    /// Whether a slice runs whose report is still to be taken over.
    pub(super) slice_runs: bool,
    /// Tasks in wait lists, as of the last slice.
    pub(super) waiting: u32,
    /// The device's counters as of the last slice; they wrap, and start anew after a recovery.
    pauses: u32,
    resumes: u32,
    pub(super) stopped: bool,
    /// The first error of a driving thread that leaves the runtime unusable: every later call says it too.
    pub(super) broken: Option<BackendError>,
}

impl State {
    pub(super) fn new(options: &RuntimeOptions) -> Self {
        Self {
            journal: Journal::new(options.capacity),
            tables: Tables::new(options.tenants, options.buffers),
            stats: RuntimeStats::default(),
            trace: Vec::new(),
            published: 0,
            admitted: 0,
            consumed: 0,
            wants_slice: false,
            slice_runs: false,
            waiting: 0,
            pauses: 0,
            resumes: 0,
            stopped: false,
            broken: None,
        }
    }

    /// Whether the runtime can be used at all.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// The tasks that wait for epochs, if that is all that is left and no slice could change it.
    pub(super) fn stalled(&self) -> Option<u32> {
        let left = self.journal.in_flight();
        let settled = !self.slice_runs && !self.wants_slice && self.admitted == self.published;
        (settled && left > 0 && self.waiting == left).then_some(left)
    }

    /// Room for tasks: slots that nobody has, and lines that the device has read.
    pub(super) fn room(&self) -> usize {
        let lines = self.journal.capacity() - self.published.wrapping_sub(self.admitted);
        self.journal.room().min(lines as usize)
    }

    /// Takes one task in. There must be room.
    pub(super) fn accept(
        &mut self,
        memory: &Memory,
        item: TaskWorkItem,
        delivery: Delivery,
    ) -> Result<u32, BackendError> {
        let full = BackendError::Full { capacity: self.journal.capacity() };
        let ticket = self.journal.admit(item, delivery).ok_or(full)?;
        self.stats.submitted += 1;
        self.publish(memory, ticket, &item)?;
        Ok(ticket)
    }

    /// Writes one line of the submission ring. The next launch publishes it.
    pub(super) fn publish(&mut self, memory: &Memory, ticket: u32, item: &TaskWorkItem) -> Result<(), BackendError> {
        let line = u64::from(self.published & (memory.capacity - 1));
        host(&memory.lines)?.write_pod(line * size_of::<TaskWorkItem>() as u64, item)?;
        host(&memory.tickets)?.write_pod(line * 4, &ticket)?;
        self.published = self.published.wrapping_add(1);
        self.wants_slice = true;
        Ok(())
    }

    pub(super) fn count(&mut self, completion: &Completion) {
        match completion.outcome {
            Outcome::Done => self.stats.done += 1,
            Outcome::Faulted(_) => self.stats.faulted += 1,
        }
    }

    /// Takes over what an ended slice reports.
    pub(super) fn harvest(&mut self, memory: &Memory, exit: &SliceExit) -> Result<(), BackendError> {
        while self.consumed != exit.completed {
            let record = self.record(memory, self.consumed)?.ok_or_else(|| BackendError::Protocol {
                what: format!("completion {} was reported and is not in the ring", self.consumed),
            })?;
            self.end(&record)?;
            self.consumed = self.consumed.wrapping_add(1);
        }
        self.admitted = exit.admitted;
        self.waiting = exit.waiting;
        self.stats.turns += u64::from(exit.turns);
        self.stats.pauses += u64::from(exit.pauses.wrapping_sub(self.pauses));
        self.stats.resumes += u64::from(exit.resumes.wrapping_sub(self.resumes));
        (self.pauses, self.resumes) = (exit.pauses, exit.resumes);
        self.wants_slice |= exit.ready > 0 || exit.admitted != self.published;
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

    /// The record at a position of the completion ring, if this lap has written it.
    pub(super) fn record(&self, memory: &Memory, position: u32) -> Result<Option<CompletionRecord>, BackendError> {
        let at = u64::from(position & (memory.capacity - 1)) * size_of::<CompletionRecord>() as u64;
        let record: CompletionRecord = host(&memory.completions)?.read_pod(at)?;
        let lap = (position >> memory.capacity.trailing_zeros()).wrapping_add(1);
        Ok((record.lap == lap).then_some(record))
    }

    pub(super) fn end(&mut self, record: &CompletionRecord) -> Result<(), BackendError> {
        let completion = self.journal.end_by_record(record)?;
        self.count(&completion);
        Ok(())
    }

    /// The rings are empty again, as on the first day; the journal, the tables and the counts stay.
    pub(super) fn start_anew(&mut self, memory: &Memory) -> Result<(), BackendError> {
        (self.published, self.admitted, self.consumed) = (0, 0, 0);
        (self.pauses, self.resumes, self.waiting) = (0, 0, 0);
        // A record of the former life would pass for one of this life's first lap.
        let completions = host(&memory.completions)?;
        completions.write(0, &vec![0; memory.completions.bytes() as usize])
    }
}
