//! Every submitted task until its completion is consumed: which slot it has, and what was submitted, in case the device can't say.

use std::collections::VecDeque;

use super::task::{Completion, Outcome, SubmissionId};
use crate::abi::{self, TaskWorkItem};
use crate::error::BackendError;

/// Who gets a task's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The holder of its handle.
    Handle,
    /// Whoever takes completions in bulk.
    Bulk,
    /// Nobody: the handle was dropped.
    Nobody,
}

#[derive(Clone, Copy, Debug)]
enum Status {
    Free,
    InFlight,
    Ended(Completion),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    status: Status,
    delivery: Delivery,
    generation: u8,
    seq: u64,
    item: TaskWorkItem,
}

/// The host's memory of its tasks. An entry's index is the task's slot on the device, so a slot is free exactly when its entry is.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    free: Vec<u32>,
    ended: VecDeque<u32>, // for bulk delivery, in the order in which they ended
    next_seq: u64,
    in_flight: u32,
}

impl Journal {
    pub(super) fn new(capacity: u32) -> Self {
        let empty = Entry {
            status: Status::Free,
            delivery: Delivery::Nobody,
            generation: 0,
            seq: 0,
            item: TaskWorkItem::default(),
        };
        Self {
            entries: vec![empty; capacity as usize],
            free: (0..capacity).rev().collect(),
            ended: VecDeque::new(),
            next_seq: 0,
            in_flight: 0,
        }
    }

    pub(super) fn capacity(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn next_id(&self) -> SubmissionId {
        SubmissionId(self.next_seq)
    }

    fn ticket(index: u32, entry: &Entry) -> u32 {
        index | u32::from(entry.generation) << abi::TR_TICKET_GENERATION_SHIFT
    }

    /// Takes a task in; its ticket, or nothing if there is no room.
    pub(super) fn admit(&mut self, item: TaskWorkItem, delivery: Delivery) -> Option<u32> {
        let index = self.free.pop()?;
        let entry = &mut self.entries[index as usize];
        let generation = entry.generation.wrapping_add(1);
        *entry = Entry { status: Status::InFlight, delivery, generation, seq: self.next_seq, item };
        self.next_seq += 1;
        self.in_flight += 1;
        Some(Self::ticket(index, entry))
    }

    /// The device's record that a task ended.
    ///
    /// # Errors
    /// [`BackendError::Protocol`] if no such task is in flight: a record twice, or an overwritten one.
    pub(super) fn end_by_record(&mut self, record: &abi::CompletionRecord) -> Result<Completion, BackendError> {
        let index = record.ticket & abi::TR_INDEX_MASK;
        let stray =
            |what: &str| BackendError::Protocol { what: format!("{what} ended: ticket {:#010x}", record.ticket) };
        let entry = self.entries.get(index as usize).ok_or_else(|| stray("a task that never was"))?;
        if Self::ticket(index, entry) != record.ticket || !matches!(entry.status, Status::InFlight) {
            return Err(stray("a task that is not in flight"));
        }
        let completion = Completion::of_record(SubmissionId(entry.seq), record);
        self.end(index, completion);
        Ok(completion)
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) -> Completion {
        let index = ticket & abi::TR_INDEX_MASK;
        let completion = Completion::of_item(SubmissionId(self.entries[index as usize].seq), item);
        self.end(index, completion);
        completion
    }

    fn end(&mut self, index: u32, completion: Completion) {
        let entry = &mut self.entries[index as usize];
        entry.status = Status::Ended(completion);
        self.in_flight -= 1;
        match entry.delivery {
            Delivery::Handle => {}
            Delivery::Bulk => self.ended.push_back(index),
            Delivery::Nobody => self.release(index),
        }
    }

    fn release(&mut self, index: u32) {
        self.entries[index as usize].status = Status::Free;
        self.free.push(index);
    }

    /// The completion of a task with a handle, once: its slot is free afterwards.
    pub(super) fn take(&mut self, ticket: u32) -> Option<Completion> {
        let index = ticket & abi::TR_INDEX_MASK;
        let Status::Ended(completion) = self.entries[index as usize].status else { return None };
        self.release(index);
        Some(completion)
    }

    /// The task has come this far: what a later recovery falls back on.
    pub(super) fn update(&mut self, ticket: u32, item: TaskWorkItem) {
        self.entries[(ticket & abi::TR_INDEX_MASK) as usize].item = item;
    }

    /// The holder of a handle does not want the completion any more.
    pub(super) fn forget(&mut self, ticket: u32) {
        let index = ticket & abi::TR_INDEX_MASK;
        match self.entries[index as usize].status {
            Status::InFlight => self.entries[index as usize].delivery = Delivery::Nobody,
            Status::Ended(_) => self.release(index),
            Status::Free => {}
        }
    }

    /// Up to `limit` completions for bulk delivery, in the order in which the tasks ended.
    pub(super) fn take_bulk(&mut self, limit: usize, into: &mut Vec<Completion>) -> usize {
        let count = self.ended.len().min(limit);
        for index in self.ended.drain(..count).collect::<Vec<_>>() {
            if let Status::Ended(completion) = self.entries[index as usize].status {
                into.push(completion);
            }
            self.release(index);
        }
        count
    }

    pub(super) fn has_bulk(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Tickets, ids and items of all tasks in flight, in the order of submission.
    pub(super) fn unfinished(&self) -> Vec<(u32, SubmissionId, TaskWorkItem)> {
        let entries = self.entries.iter().zip(0u32..);
        let in_flight = entries.filter(|(entry, _)| matches!(entry.status, Status::InFlight));
        let mut list: Vec<_> =
            in_flight.map(|(entry, index)| (Self::ticket(index, entry), SubmissionId(entry.seq), entry.item)).collect();
        list.sort_by_key(|(_, id, _)| *id);
        list
    }

    /// Faulted tasks whose completions nobody has taken yet: the slots that a snapshot counts as Faulted.
    pub(super) fn faulted_untaken(&self) -> impl Iterator<Item = TaskWorkItem> + '_ {
        self.entries.iter().filter_map(|entry| match entry.status {
            Status::Ended(Completion { outcome: Outcome::Faulted(_), .. }) => {
                Some(TaskWorkItem { state: abi::TASK_STATE_FAULTED, ..TaskWorkItem::default() })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ticket: u32) -> abi::CompletionRecord {
        abi::CompletionRecord { ticket, state: abi::TASK_STATE_DONE, ..Default::default() }
    }

    #[test]
    fn a_full_journal_takes_nothing_until_a_completion_is_consumed() {
        let mut journal = Journal::new(2);
        let item = TaskWorkItem::default();
        let first = journal.admit(item, Delivery::Bulk).unwrap();
        assert!(journal.admit(item, Delivery::Handle).is_some());
        assert!(journal.admit(item, Delivery::Bulk).is_none());
        journal.end_by_record(&record(first)).unwrap();
        assert!(journal.admit(item, Delivery::Bulk).is_none(), "ended but not consumed");
        assert_eq!(journal.take_bulk(8, &mut Vec::new()), 1);
        assert!(journal.admit(item, Delivery::Bulk).is_some());
    }

    #[test]
    fn a_second_record_of_the_same_task_is_a_violation() {
        let mut journal = Journal::new(2);
        let ticket = journal.admit(TaskWorkItem::default(), Delivery::Nobody).unwrap();
        journal.end_by_record(&record(ticket)).unwrap();
        assert!(matches!(journal.end_by_record(&record(ticket)), Err(BackendError::Protocol { .. })));
        let again = journal.admit(TaskWorkItem::default(), Delivery::Nobody).unwrap();
        assert_ne!(ticket, again, "the slot is the same, the generation is not");
        assert!(journal.end_by_record(&record(ticket)).is_err());
        assert!(journal.end_by_record(&record(again)).is_ok());
    }

    #[test]
    fn a_dropped_handle_frees_its_slot_whenever_the_task_ends() {
        let mut journal = Journal::new(1);
        let before = journal.admit(TaskWorkItem::default(), Delivery::Handle).unwrap();
        journal.forget(before);
        journal.end_by_record(&record(before)).unwrap();
        let after = journal.admit(TaskWorkItem::default(), Delivery::Handle).unwrap();
        journal.end_by_record(&record(after)).unwrap();
        assert_eq!(journal.room(), 0);
        journal.forget(after);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn ids_are_never_reused_and_the_unfinished_come_in_order() {
        let mut journal = Journal::new(4);
        let tickets: Vec<_> = (0..4).map(|_| journal.admit(TaskWorkItem::default(), Delivery::Bulk).unwrap()).collect();
        journal.end_by_record(&record(tickets[1])).unwrap();
        let mut taken = Vec::new();
        journal.take_bulk(1, &mut taken);
        assert_eq!(taken[0].id, SubmissionId(1));
        journal.admit(TaskWorkItem::default(), Delivery::Bulk).unwrap();
        let ids: Vec<_> = journal.unfinished().iter().map(|(_, id, _)| id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4]);
    }
}
