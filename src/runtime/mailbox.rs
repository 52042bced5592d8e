//! The host's side of the submission ring, and the doorbell.
//!
//! In boundary mode the doorbell is rung before a slice is submitted and at no other time. In live mode it is rung at once, and a running slice
//! hears it.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use bytemuck::{Pod, Zeroable};

use super::memory::Memory;
use super::roster::Roster;
use super::slices::host;
use crate::abi::{self, TaskWorkItem};
use crate::device::store_fence;
use crate::error::BackendError;

/// What goes with a line: the task's ticket and, if it is paused, the high half of the 64-bit epoch that it waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LineTicket {
    pub(super) ticket: u32,
    pub(super) target_hi: u32,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    live: bool,
    /// Positions of the submission ring that are written.
    published: u32,
    /// Positions that may be written: the kernel has read what was there a lap before.
    writable: u32,
    /// Who was published last in each line.
    lines: Vec<u32>,
    /// What the host has stored last in each word of the doorbell.
    rung: [u32; abi::TR_BELL_WORDS as usize],
    /// Fault injection: submissions whose doorbell is not to be heard by the slice that runs.
    missed: u32,
}

impl Mailbox {
    pub(super) fn new(live: bool, capacity: u32, missed: u32) -> Self {
        let rung = [0; abi::TR_BELL_WORDS as usize]; // as memory that was cleared
        Self { live, published: 0, writable: capacity, lines: vec![0; capacity as usize], rung, missed }
    }

    pub(super) fn live(&self) -> bool {
        self.live
    }

    pub(super) fn published(&self) -> u32 {
        self.published
    }

    /// How many lines can be written, at most `wanted`.
    pub(super) fn room(&mut self, memory: &Memory, roster: &Roster, wanted: usize) -> Result<usize, BackendError> {
        let mut room = self.writable.wrapping_sub(self.published);
        while self.live
            && (room as usize) < wanted
            && let read = self.read(memory, roster, (wanted as u32).min(memory.capacity) - room)?
            && read > 0
        {
            (self.writable, room) = (self.writable.wrapping_add(read), room + read);
        }
        // Pairs with the kernel's release after it read the lines that it has marked.
        fence(Acquire);
        Ok((room as usize).min(wanted))
    }

    /// How many lines that the kernel has read follow each other from the oldest one on; not all of them, and no more than so many.
    fn read(&self, memory: &Memory, roster: &Roster, most: u32) -> Result<u32, BackendError> {
        let oldest = self.writable.wrapping_sub(memory.capacity);
        let at = oldest & (memory.capacity - 1);
        let lines = &self.lines[at as usize..(at + most).min(memory.capacity) as usize];
        let is_marked = || Ok(host(&memory.marks)?.load(u64::from(at) * 4, Relaxed)? == lap(memory.capacity, oldest));
        were_read(lines, roster, is_marked)
    }

    /// An ended slice says that it has read all lines before this position.
    pub(super) fn admitted(&mut self, memory: &Memory, position: u32) {
        let writable = position.wrapping_add(memory.capacity);
        if writable.wrapping_sub(self.writable) <= memory.capacity {
            self.writable = writable;
        }
    }

    /// Writes tasks into lines, and publishes them. There must be room.
    pub(super) fn publish(
        &mut self,
        memory: &Memory,
        tickets: &[LineTicket],
        items: &[TaskWorkItem],
    ) -> Result<(), BackendError> {
        if items.is_empty() {
            return Ok(());
        }
        let (lines, words) = (host(&memory.lines)?, host(&memory.tickets)?);
        let start = self.published & (memory.capacity - 1);
        let before_wrap = items.len().min((memory.capacity - start) as usize);
        for (at, range) in [(start, 0..before_wrap), (0, before_wrap..items.len())] {
            // Lines whole and in order, and the tickets after them: two streams, of which each fills its write-combining buffers.
            let at = u64::from(at);
            let items = bytemuck::cast_slice(&items[range.clone()]);
            // SAFETY: `room` found the lines read by whom they were published to, and the tail below publishes them again; one thread at a time
            // publishes, since the state is locked.
            unsafe { lines.write_unshared(at * size_of::<TaskWorkItem>() as u64, items) }?;
            let tickets = &tickets[range];
            for (line, published) in self.lines[at as usize..].iter_mut().zip(tickets) {
                *line = published.ticket;
            }
            let tickets = bytemuck::cast_slice(tickets);
            // SAFETY: as for the lines.
            unsafe { words.write_unshared(at * size_of::<LineTicket>() as u64, tickets) }?;
        }
        self.published = self.published.wrapping_add(items.len() as u32);
        if self.live && self.missed > 0 {
            self.missed -= 1;
        } else if self.live {
            // Pairs with the tr_acquire after the kernel saw the tail.
            store_fence();
            self.ring(memory, abi::TR_BELL_TAIL, self.published)?;
        }
        Ok(())
    }

    /// Stores a word of the doorbell, and sees it off: nothing that follows might push it out of a write-combining buffer. A word that says it already is let be,
    /// since that takes as long as a good part of an answer.
    pub(super) fn ring(&mut self, memory: &Memory, word: u32, value: u32) -> Result<(), BackendError> {
        if std::mem::replace(&mut self.rung[word as usize], value) != value {
            host(&memory.bell)?.store(u64::from(word) * 4, value, Relaxed)?;
            store_fence();
        }
        Ok(())
    }

    /// The rings are empty again, as on the first day.
    pub(super) fn start_anew(&mut self, memory: &Memory) -> Result<(), BackendError> {
        (self.published, self.writable) = (0, memory.capacity);
        host(&memory.marks)?.write(0, &vec![0; memory.marks.bytes() as usize])
    }
}

/// How many of these lines were read before one that may not have been: their tasks have ended, or else the first of them is marked. Tasks that end in
/// their first turn have no mark, and of others the completion may be seen before the mark.
fn were_read(
    lines: &[u32],
    roster: &Roster,
    is_marked: impl FnOnce() -> Result<bool, BackendError>,
) -> Result<u32, BackendError> {
    let ended = lines.iter().take_while(|ticket| roster.has_ended(**ticket)).count();
    if ended == 0 && !lines.is_empty() { is_marked().map(u32::from) } else { Ok(ended as u32) }
}

/// The lap of a position, from 1: what marks and completion records carry.
pub(super) fn lap(capacity: u32, position: u32) -> u32 {
    (position >> capacity.trailing_zeros()).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::deliveries::Deliveries;
    use crate::runtime::entry::Delivery;
    use crate::runtime::journal::Journal;
    use crate::runtime::record;
    use std::sync::Arc;

    #[test]
    fn a_line_can_be_written_again_once_it_is_marked_or_its_task_has_ended() {
        let (roster, mut lines) = (Arc::new(Roster::new(4)), Vec::new());
        let (mut journal, mut ends) = (Journal::new(roster.clone()), Deliveries::new(roster.clone()));
        journal.admit(&[TaskWorkItem::default(); 4], Delivery::Bulk, &mut lines);
        let tickets: Vec<u32> = lines.iter().map(|line| line.ticket).collect();
        let read = |lines: &[u32], mark| were_read(lines, &roster, || Ok(mark));
        assert_eq!(read(&tickets[1..], true), Ok(1));
        assert_eq!(read(&tickets[1..], false), Ok(0), "it was not read yet");
        assert_eq!(read(&[], true), Ok(0));
        assert_eq!(ends.end_by_records(&[record::end(tickets[1]), record::end(tickets[2])], None).count, 2);
        assert_eq!(read(&tickets[1..], false), Ok(2), "their marks are late, or never come");
        assert_eq!(read(&tickets, true), Ok(1), "one after the other");
    }
}
