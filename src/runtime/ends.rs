//! The device's word that tasks ended: its records are read here, one after the other.

use std::sync::Arc;

use super::deliveries::Deliveries;
use super::memory::Memory;
use super::record::{End, Ring};
use super::roster::Roster;
use super::slices::host;
use super::task::Completion;
use crate::abi::{self, TaskWorkItem};
use crate::error::BackendError;

/// Records that are read before anything is done with them. The device has written them, so each line of them comes from afar; those of one such pass come
/// side by side.
const TOGETHER: usize = 64;
/// Records that are taken over before others get a turn: some microseconds.
pub(super) const A_WHILE: usize = 512;

/// Who has these takes over what the device completes. They have a lock of their own, inside of the state's, so that whoever takes completions is not in the
/// way of whoever submits.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) deliveries: Deliveries,
    roster: Arc<Roster>,
    live: bool,
    /// Whether any task is cancelled, and the tickets of those that have ended since the tables last heard of it.
    pub(super) notes: bool,
    pub(super) noted: Vec<u32>,
    pub(super) done: u64,
    pub(super) faulted: u64,
    /// Records that were just read.
    read: Box<[End; TOGETHER]>,
}

impl Ends {
    pub(super) fn new(roster: Arc<Roster>, live: bool) -> Self {
        Self {
            deliveries: Deliveries::new(roster.clone()),
            roster,
            live,
            notes: false,
            noted: Vec::new(),
            done: 0,
            faulted: 0,
            read: Box::new([End::default(); TOGETHER]),
        }
    }

    /// Takes over what has been completed up to now, while slices run, but no more than a while's work: who is to launch a slice cannot look at all that the
    /// ones before it have completed meanwhile, which on the H100 took longer than those slices, and the device stood still. True if there may be more.
    pub(super) fn listen(&mut self, memory: &Memory) -> Result<bool, BackendError> {
        let mut left = A_WHILE;
        while self.live
            && left > 0
            && let count = self.follow(memory, left, None)?
            && count > 0
        {
            left -= count;
        }
        Ok(left == 0)
    }

    /// Completions of batched tasks, in the order of their ends, at most `limit`, and no more than a while's work. True if there may be more.
    pub(super) fn take_bulk(
        &mut self,
        memory: &Memory,
        limit: usize,
        into: &mut Vec<Completion>,
    ) -> Result<bool, BackendError> {
        let had = into.len();
        let most = had + limit.min(A_WHILE);
        let mut left = A_WHILE - self.deliveries.take_queued(most - had, into);
        while self.live
            && left > 0
            && let count = self.follow(memory, left.min(most - into.len()), Some(into))?
            && count > 0
        {
            left -= count;
        }
        // What it took over may have been for others.
        Ok(left == 0 && into.len() - had < limit)
    }

    /// Takes over the next records, at most so many, for whoever takes completions in bulk at this moment if there is somebody. How many there were: 0 if
    /// the next one has not been written.
    fn follow(
        &mut self,
        memory: &Memory,
        most: usize,
        into: Option<&mut Vec<Completion>>,
    ) -> Result<usize, BackendError> {
        let told = &self.roster.ends.0;
        let ends = &mut self.read[..most.min(TOGETHER)];
        let read = Ring::of(memory)?.read(told.consumed(), ends)?;
        let ended = self.deliveries.end_by_records(&ends[..read], into);
        let (taken, stray) = ends[..read].split_at(ended.count);
        told.go_to(told.consumed().wrapping_add(ended.count as u32));
        told.saw_age(ended.oldest);
        self.faulted += ended.faulted as u64;
        self.done += (ended.count - ended.faulted) as u64;
        if self.notes {
            self.noted.extend(taken.iter().map(End::ticket));
        }
        match stray.first() {
            None => Ok(ended.count),
            Some(end) => Err(BackendError::Protocol {
                what: format!("a task that is not in flight ended: ticket {:#010x}", end.ticket()),
            }),
        }
    }

    /// Takes over all records before this position, which an ended slice has reported.
    pub(super) fn follow_to(&mut self, memory: &Memory, completed: u32) -> Result<(), BackendError> {
        // A slice that followed may have completed more already.
        while let left = completed.wrapping_sub(self.roster.ends.0.consumed()).cast_signed()
            && left > 0
        {
            if self.follow(memory, left as usize, None)? == 0 {
                let at = self.roster.ends.0.consumed();
                let what = format!("completion {at} was reported and is not in the ring");
                return Err(BackendError::Protocol { what });
            }
        }
        Ok(())
    }

    /// Every record that was written counts, whatever is missing between them. Then the ring is empty again, as on the first day.
    pub(super) fn salvage(&mut self, memory: &Memory) -> Result<(), BackendError> {
        for _ in 0..memory.capacity {
            if self.follow(memory, 1, None)? == 0 {
                let told = &self.roster.ends.0;
                told.go_to(told.consumed().wrapping_add(1));
            }
        }
        self.roster.ends.0.go_to(0);
        // A record of the former life would pass for one of this life's first lap.
        host(&memory.completions)?.write(0, &vec![0; memory.completions.bytes() as usize])
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) {
        self.deliveries.end_by_item(ticket, item);
        if self.notes {
            self.noted.push(ticket);
        }
        *if item.state == abi::TASK_STATE_FAULTED { &mut self.faulted } else { &mut self.done } += 1;
    }
}
