//! The host's side of the submission ring, and the doorbell.
//!
//! In boundary mode the doorbell is rung before a slice is submitted and at no other time. In live mode it is rung at once, and a running slice
//! hears it.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use bytemuck::{Pod, Zeroable};

use super::journal::Journal;
use super::memory::Memory;
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

/// Marks that are looked at together.
const MARKS: usize = 64;

#[derive(Debug)]
pub(super) struct Mailbox {
    live: bool,
    /// Positions of the submission ring that are written.
    published: u32,
    /// Positions that may be written: the kernel has read what was there a lap before.
    writable: u32,
    /// Who was published last in each line.
    lines: Vec<u32>,
    /// Fault injection: submissions whose doorbell is not to be heard by the slice that runs.
    missed: u32,
}

impl Mailbox {
    pub(super) fn new(live: bool, capacity: u32, missed: u32) -> Self {
        Self { live, published: 0, writable: capacity, lines: vec![0; capacity as usize], missed }
    }

    pub(super) fn live(&self) -> bool {
        self.live
    }

    pub(super) fn published(&self) -> u32 {
        self.published
    }

    /// How many lines can be written, at most `wanted`.
    pub(super) fn room(&mut self, memory: &Memory, journal: &Journal, wanted: usize) -> Result<usize, BackendError> {
        let marks = host(&memory.marks)?;
        let mut room = self.writable.wrapping_sub(self.published);
        while self.live && (room as usize) < wanted && room < memory.capacity {
            // Some at a time, up to the end of the ring.
            let read = self.writable.wrapping_sub(memory.capacity);
            let at = read & (memory.capacity - 1);
            let mut words = [0u32; MARKS];
            let words = &mut words[..MARKS.min((memory.capacity - at) as usize).min((memory.capacity - room) as usize)];
            marks.read(u64::from(at) * 4, bytemuck::cast_slice_mut(words))?;
            // Pairs with the kernel's release after it read the lines.
            fence(Acquire);
            let (lap, asked) = (lap(memory, read), words.len());
            let was_read = were_read(words, lap, &self.lines[at as usize..], journal);
            (self.writable, room) = (self.writable.wrapping_add(was_read as u32), room + was_read as u32);
            if was_read < asked {
                break;
            }
        }
        Ok((room as usize).min(wanted))
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

    /// Stores a word of the doorbell, and sees it off: nothing that follows might push it out of a write-combining buffer.
    pub(super) fn ring(&self, memory: &Memory, word: u32, value: u32) -> Result<(), BackendError> {
        host(&memory.bell)?.store(u64::from(word) * 4, value, Relaxed)?;
        store_fence();
        Ok(())
    }

    /// The rings are empty again, as on the first day.
    pub(super) fn start_anew(&mut self, memory: &Memory) -> Result<(), BackendError> {
        (self.published, self.writable) = (0, memory.capacity);
        host(&memory.marks)?.write(0, &vec![0; memory.marks.bytes() as usize])
    }
}

/// How many of the first lines were read: those that are marked with the lap, and those whose tasks have ended. A completion may be seen before
/// the mark of its line; were it not for the second, there might be no room, and nothing on its way that would make some.
fn were_read(marks: &[u32], lap: u32, tickets: &[u32], journal: &Journal) -> usize {
    marks.iter().zip(tickets).take_while(|(mark, ticket)| **mark == lap || journal.has_ended(**ticket)).count()
}

/// The lap of a position, from 1: what marks and completion records carry.
pub(super) fn lap(memory: &Memory, position: u32) -> u32 {
    (position >> memory.capacity.trailing_zeros()).wrapping_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::CompletionRecord;
    use crate::runtime::journal::Delivery;

    #[test]
    fn a_line_can_be_written_again_once_it_is_marked_or_its_task_has_ended() {
        let (mut journal, mut lines) = (Journal::new(4), Vec::new());
        journal.admit(&[TaskWorkItem::default(); 4], Delivery::Bulk, &mut lines);
        let tickets: Vec<u32> = lines.iter().map(|line| line.ticket).collect();
        assert_eq!(were_read(&[7, 6, 7, 7], 7, &tickets, &journal), 1, "the second was not read yet");
        let record =
            CompletionRecord { ticket: tickets[1], state: abi::TASK_STATE_DONE, ..CompletionRecord::default() };
        journal.end_by_record(&record).unwrap();
        assert_eq!(were_read(&[7, 6, 7, 6], 7, &tickets, &journal), 3, "its mark is late");
    }
}
