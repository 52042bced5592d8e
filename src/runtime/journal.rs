//! Every submitted task until its completion is consumed: which slot it has, and what was submitted, in case the device can't say.

use std::collections::VecDeque;

use super::groups::{Announcement, Groups};
use super::mailbox::LineTicket;
use super::record::End;
use super::task::{Completion, Outcome, SubmissionId};
use super::wakers::Wakers;
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Free,
    InFlight,
    /// Its completion is in `kept`, for the holder of its handle.
    Kept,
    /// Its completion is in `queue`, for whoever takes completions in bulk.
    Queued,
}

/// What every record looks at; small, so that many are in the caches.
#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    task_id: u32,
    generation: u8,
    status: Status,
    delivery: Delivery,
    /// Whose end is announced with its own, 0 for none.
    group: u32,
}

/// The host's memory of its tasks. An entry's index is the task's slot on the device, so a slot is free exactly when its entry is.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// Each task as it was submitted, or as a recovery found it.
    items: Vec<TaskWorkItem>,
    kept: Vec<Option<Completion>>,
    /// A task with a handle gets the one that became free last, which caches may still have; a batch gets the first ones, which lie side by side.
    free: VecDeque<u32>,
    queue: VecDeque<(u32, Completion)>, // in the order in which they ended
    next_seq: u64,
    in_flight: u32,
    pub(super) groups: Groups,
    pub(super) wakers: Wakers,
}

impl Journal {
    pub(super) fn new(capacity: u32) -> Self {
        let empty =
            Entry { seq: 0, task_id: 0, generation: 0, status: Status::Free, delivery: Delivery::Nobody, group: 0 };
        Self {
            entries: vec![empty; capacity as usize],
            items: vec![TaskWorkItem::default(); capacity as usize],
            kept: vec![None; capacity as usize],
            free: (0..capacity).collect(),
            queue: VecDeque::new(),
            next_seq: 0,
            in_flight: 0,
            groups: Groups::default(),
            wakers: Wakers::default(),
        }
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

    /// Takes tasks in, for which there is room; appends their tickets.
    pub(super) fn admit(&mut self, items: &[TaskWorkItem], delivery: Delivery, tickets: &mut Vec<LineTicket>) {
        if delivery == Delivery::Handle {
            self.free.rotate_right(items.len());
        }
        let indices = self.free.drain(..items.len());
        let (entries, kept, first) = (&mut self.entries, &mut self.items, self.next_seq);
        let take = |(index, (item, seq)): (u32, (&TaskWorkItem, u64))| {
            let entry = &mut entries[index as usize];
            (entry.status, entry.delivery, entry.seq, entry.task_id) = (Status::InFlight, delivery, seq, item.task_id);
            entry.generation = entry.generation.wrapping_add(1);
            kept[index as usize] = *item;
            LineTicket { ticket: Self::ticket(index, entry), target_hi: 0 }
        };
        tickets.extend(indices.zip(items.iter().zip(first..)).map(take));
        self.next_seq += items.len() as u64;
        self.in_flight += items.len() as u32;
    }

    /// Whether this task, which was given out once, has ended. After so many others in its slot that generations wrapped, a task that ended may
    /// be taken for one that did not.
    pub(super) fn has_ended(&self, ticket: u32) -> bool {
        let index = ticket & abi::TR_INDEX_MASK;
        let entry = &self.entries[index as usize];
        Self::ticket(index, entry) != ticket || entry.status != Status::InFlight
    }

    /// The device's record that a task ended: whose it was, and its end.
    fn of_record(&self, end: &End) -> Result<(u32, Completion), BackendError> {
        let index = end.ticket & abi::TR_INDEX_MASK;
        let stray = |what: &str| BackendError::Protocol { what: format!("{what} ended: ticket {:#010x}", end.ticket) };
        let entry = self.entries.get(index as usize).ok_or_else(|| stray("a task that never was"))?;
        if Self::ticket(index, entry) != end.ticket || entry.status != Status::InFlight {
            return Err(stray("a task that is not in flight"));
        }
        Ok((index, Completion::of_record(SubmissionId(entry.seq), entry.task_id, end)))
    }

    /// The device's record that a task ended.
    ///
    /// # Errors
    /// [`BackendError::Protocol`] if no such task is in flight: a record twice, or an overwritten one.
    pub(super) fn end_by_record(&mut self, end: &End) -> Result<Outcome, BackendError> {
        let (index, completion) = self.of_record(end)?;
        self.end(index, completion);
        Ok(completion.outcome)
    }

    /// As [`Journal::end_by_record`], for somebody who takes completions in bulk at this moment. What is not for them goes its own way.
    pub(super) fn end_into(&mut self, end: &End, into: &mut Vec<Completion>) -> Result<Outcome, BackendError> {
        let (index, completion) = self.of_record(end)?;
        if self.entries[index as usize].delivery == Delivery::Bulk {
            self.leave(index);
            self.release(index);
            into.push(completion);
        } else {
            self.end(index, completion);
        }
        Ok(completion.outcome)
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) -> Outcome {
        let index = ticket & abi::TR_INDEX_MASK;
        let completion = Completion::of_item(SubmissionId(self.entries[index as usize].seq), item);
        self.end(index, completion);
        completion.outcome
    }

    /// A task is in flight no more.
    fn leave(&mut self, index: u32) {
        self.in_flight -= 1;
        let group = std::mem::take(&mut self.entries[index as usize].group);
        if group != 0 {
            self.groups.ended(group);
        }
    }

    fn end(&mut self, index: u32, completion: Completion) {
        self.leave(index);
        let entry = &mut self.entries[index as usize];
        match entry.delivery {
            Delivery::Handle => {
                entry.status = Status::Kept;
                self.kept[index as usize] = Some(completion);
                self.wakers.ended(index);
            }
            Delivery::Bulk => {
                entry.status = Status::Queued;
                self.queue.push_back((index, completion));
                self.wakers.queued();
            }
            Delivery::Nobody => self.release(index),
        }
    }

    fn release(&mut self, index: u32) {
        self.entries[index as usize].status = Status::Free;
        self.free.push_back(index);
    }

    /// The completion of a task with a handle, once: its slot is free afterwards.
    pub(super) fn take(&mut self, ticket: u32) -> Option<Completion> {
        let index = ticket & abi::TR_INDEX_MASK;
        let completion = self.kept[index as usize].take()?;
        self.release(index);
        Some(completion)
    }

    /// The task has come this far: what a later recovery falls back on.
    pub(super) fn update(&mut self, ticket: u32, item: TaskWorkItem) {
        self.items[(ticket & abi::TR_INDEX_MASK) as usize] = item;
    }

    /// The holder of a handle does not want the completion any more.
    pub(super) fn forget(&mut self, ticket: u32) {
        let entry = &mut self.entries[(ticket & abi::TR_INDEX_MASK) as usize];
        match entry.status {
            Status::InFlight => {
                entry.delivery = Delivery::Nobody;
                self.wakers.forget(ticket & abi::TR_INDEX_MASK);
            }
            Status::Kept => drop(self.take(ticket)),
            Status::Queued | Status::Free => {}
        }
    }

    /// Up to `limit` completions for bulk delivery, in the order in which the tasks ended.
    pub(super) fn take_bulk(&mut self, limit: usize, into: &mut Vec<Completion>) -> usize {
        let count = self.queue.len().min(limit);
        for (index, completion) in self.queue.drain(..count) {
            into.push(completion);
            self.entries[index as usize].status = Status::Free;
            self.free.push_back(index);
        }
        count
    }

    /// The entries of those of these tasks that are in flight; the ids are sorted.
    fn in_flight_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let wanted =
            |entry: &Entry| entry.status == Status::InFlight && ids.binary_search(&SubmissionId(entry.seq)).is_ok();
        (0..).zip(&self.entries).filter(|(_, entry)| wanted(entry)).map(|(index, _)| index).collect()
    }

    /// Tickets of those of these tasks that are in flight; the ids are sorted.
    pub(super) fn tickets_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let ticket = |index: u32| Self::ticket(index, &self.entries[index as usize]);
        self.in_flight_of(ids).into_iter().map(ticket).collect()
    }

    /// Has something announced when the last of these tasks has ended; the ids are sorted.
    pub(super) fn group(&mut self, ids: &[SubmissionId], announcement: Announcement) -> Result<(), BackendError> {
        if let Some(id) = ids.last().filter(|id| id.0 >= self.next_seq) {
            return Err(BackendError::UnknownSubmission { number: id.0 });
        }
        let members = self.in_flight_of(ids);
        if let Some(index) = members.iter().find(|index| self.entries[**index as usize].group != 0) {
            return Err(BackendError::AlreadyAnnounced { number: self.entries[*index as usize].seq });
        }
        self.groups.check(&announcement)?;
        let number = self.groups.next();
        self.groups.add(number, members.len() as u32, announcement);
        for index in members {
            self.entries[index as usize].group = number;
        }
        Ok(())
    }

    /// Tickets, ids and items of all tasks in flight, in the order of submission.
    pub(super) fn unfinished(&self) -> Vec<(u32, SubmissionId, TaskWorkItem)> {
        let entries = self.entries.iter().zip(&self.items).zip(0u32..);
        let in_flight = entries.filter(|((entry, _), _)| entry.status == Status::InFlight);
        let named = |((entry, item), index): ((&Entry, &TaskWorkItem), u32)| {
            (Self::ticket(index, entry), SubmissionId(entry.seq), *item)
        };
        let mut list: Vec<_> = in_flight.map(named).collect();
        list.sort_by_key(|(_, id, _)| *id);
        list
    }

    /// Faulted tasks whose completions nobody has taken yet: the slots that a snapshot counts as Faulted.
    pub(super) fn faulted_untaken(&self) -> impl Iterator<Item = TaskWorkItem> + '_ {
        let untaken = self.kept.iter().flatten().chain(self.queue.iter().map(|(_, completion)| completion));
        untaken
            .filter(|completion| matches!(completion.outcome, Outcome::Faulted(_)))
            .map(|_| TaskWorkItem { state: abi::TASK_STATE_FAULTED, ..TaskWorkItem::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(journal: &mut Journal, items: &[TaskWorkItem], delivery: Delivery) -> Vec<LineTicket> {
        let mut tickets = Vec::new();
        journal.admit(items, delivery, &mut tickets);
        tickets
    }

    fn record(ticket: u32) -> End {
        End { ticket, ..End::default() }
    }

    #[test]
    fn a_full_journal_takes_nothing_until_a_completion_is_consumed() {
        let mut journal = Journal::new(2);
        let item = TaskWorkItem::default();
        let first = admit(&mut journal, &[item], Delivery::Bulk)[0].ticket;
        admit(&mut journal, &[item], Delivery::Handle);
        assert_eq!(journal.room(), 0);
        journal.end_by_record(&record(first)).unwrap();
        assert_eq!(journal.room(), 0, "ended but not consumed");
        assert_eq!(journal.take_bulk(8, &mut Vec::new()), 1);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn a_second_record_of_the_same_task_is_a_violation() {
        let mut journal = Journal::new(2);
        let ticket = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0].ticket;
        journal.end_by_record(&record(ticket)).unwrap();
        assert!(matches!(journal.end_by_record(&record(ticket)), Err(BackendError::Protocol { .. })));
        let again = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0].ticket;
        assert_ne!(ticket, again, "the slot is the same, the generation is not");
        assert!(journal.end_by_record(&record(ticket)).is_err());
        assert!(journal.has_ended(ticket) && !journal.has_ended(again));
        assert!(journal.end_by_record(&record(again)).is_ok());
        assert!(journal.has_ended(again));
    }

    #[test]
    fn a_dropped_handle_frees_its_slot_whenever_the_task_ends() {
        let mut journal = Journal::new(1);
        let before = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0].ticket;
        journal.forget(before);
        journal.end_by_record(&record(before)).unwrap();
        let after = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0].ticket;
        journal.end_by_record(&record(after)).unwrap();
        assert_eq!(journal.room(), 0);
        journal.forget(after);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn ids_are_never_reused_and_the_unfinished_come_in_order() {
        let mut journal = Journal::new(4);
        let tickets = admit(&mut journal, &[TaskWorkItem::default(); 4], Delivery::Bulk);
        journal.end_by_record(&record(tickets[1].ticket)).unwrap();
        let mut taken = Vec::new();
        journal.take_bulk(1, &mut taken);
        assert_eq!(taken[0].id, SubmissionId(1));
        admit(&mut journal, &[TaskWorkItem::default()], Delivery::Bulk);
        let ids: Vec<_> = journal.unfinished().iter().map(|(_, id, _)| id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4]);
    }
}
