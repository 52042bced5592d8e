//! Every submitted task until its completion is consumed: which slot it has, and what was submitted, in case the device can't say.

use std::collections::{HashMap, VecDeque};

use super::groups::{Announcement, Groups};
use super::mailbox::LineTicket;
use super::record::End;
use super::slots::FreeSlots;
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
    /// Whether it is in `members`.
    announced: bool,
}

impl Entry {
    /// Whether it is that of this task, which has not ended.
    fn is_in_flight(&self, ticket: u32) -> bool {
        u32::from(self.generation) == ticket >> abi::TR_TICKET_GENERATION_SHIFT && self.status == Status::InFlight
    }
}

/// A slot and the generation of the task in it.
fn ticket(index: u32, generation: u8) -> u32 {
    index | u32::from(generation) << abi::TR_TICKET_GENERATION_SHIFT
}

/// The host's memory of its tasks. An entry's index is the task's slot on the device, so a slot is free exactly when its entry is.
#[derive(Debug)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// Each task as it was submitted, or as a recovery found it.
    items: Vec<TaskWorkItem>,
    kept: Vec<Option<Completion>>,
    free: FreeSlots,
    queue: VecDeque<(u32, Completion)>, // in the order in which they ended
    next_seq: u64,
    in_flight: u32,
    /// The groups whose ends are announced of the tasks in these slots.
    members: HashMap<u32, u32>,
    pub(super) groups: Groups,
    pub(super) wakers: Wakers,
}

impl Journal {
    pub(super) fn new(capacity: u32) -> Self {
        let (status, delivery) = (Status::Free, Delivery::Nobody);
        let empty = Entry { seq: 0, task_id: 0, generation: 0, status, delivery, announced: false };
        Self {
            entries: vec![empty; capacity as usize],
            items: vec![TaskWorkItem::default(); capacity as usize],
            kept: vec![None; capacity as usize],
            free: FreeSlots::new(capacity),
            queue: VecDeque::new(),
            next_seq: 0,
            in_flight: 0,
            members: HashMap::new(),
            groups: Groups::default(),
            wakers: Wakers::default(),
        }
    }

    pub(super) fn room(&self) -> usize {
        self.free.count()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn next_id(&self) -> SubmissionId {
        SubmissionId(self.next_seq)
    }

    /// Takes tasks in, for which there is room, a run of slots at a time; appends their tickets.
    pub(super) fn admit(&mut self, items: &[TaskWorkItem], delivery: Delivery, tickets: &mut Vec<LineTicket>) {
        let mut left = items;
        while !left.is_empty() && self.room() > 0 {
            let slots = match delivery {
                Delivery::Handle => self.free.take_last(),
                _ => self.free.take(left.len()),
            };
            let (run, rest) = left.split_at(slots.len());
            let place = slots.start as usize..slots.end as usize;
            self.items[place.clone()].copy_from_slice(run);
            let entries = self.entries[place].iter_mut().zip(run).zip(slots.zip(self.next_seq..));
            tickets.extend(entries.map(|((entry, item), (index, seq))| {
                let generation = entry.generation.wrapping_add(1);
                let (task_id, status) = (item.task_id, Status::InFlight);
                *entry = Entry { seq, task_id, generation, status, delivery, announced: false };
                LineTicket { ticket: ticket(index, generation), target_hi: 0 }
            }));
            self.next_seq += run.len() as u64;
            self.in_flight += run.len() as u32;
            left = rest;
        }
    }

    /// Whether this task, which was given out once, has ended. After so many others in its slot that generations wrapped, a task that ended may
    /// be taken for one that did not.
    pub(super) fn has_ended(&self, ticket: u32) -> bool {
        !self.entries[(ticket & abi::TR_INDEX_MASK) as usize].is_in_flight(ticket)
    }

    /// The device's records that tasks ended, in their order. What is for whoever takes completions in bulk goes to `into`, if somebody does at this
    /// moment. How many records there were before one of a task that is not in flight: one that came twice, or was overwritten.
    pub(super) fn end_by_records(&mut self, ends: &[End], mut into: Option<&mut Vec<Completion>>) -> usize {
        let mut count = 0;
        for end in ends {
            let index = end.ticket & abi::TR_INDEX_MASK;
            let Some(entry) = self.entries.get_mut(index as usize) else { break };
            if !entry.is_in_flight(end.ticket) {
                break;
            }
            count += 1;
            let (id, task_id, announced) = (SubmissionId(entry.seq), entry.task_id, entry.announced);
            // Made in both places: one that is made before it is known for whom goes through memory, in pieces that are no sooner read than written.
            if let (Some(into), Delivery::Bulk) = (&mut into, entry.delivery) {
                entry.status = Status::Free;
                into.push(Completion::of_record(id, task_id, end));
            } else {
                self.deliver(index, Completion::of_record(id, task_id, end));
            }
            if announced {
                self.leave_group(index);
            }
        }
        self.in_flight -= count as u32;
        let slots = ends[..count].iter().map(|end| end.ticket & abi::TR_INDEX_MASK);
        self.free.release(slots.filter(|slot| self.entries[*slot as usize].status == Status::Free));
        count
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) {
        let index = ticket & abi::TR_INDEX_MASK;
        let Entry { seq, announced, .. } = self.entries[index as usize];
        if announced {
            self.leave_group(index);
        }
        self.in_flight -= 1;
        self.deliver(index, Completion::of_item(SubmissionId(seq), item));
        if self.entries[index as usize].status == Status::Free {
            self.free.release([index]);
        }
    }

    #[cold]
    fn leave_group(&mut self, index: u32) {
        if let Some(group) = self.members.remove(&index) {
            self.groups.ended(group);
        }
    }

    /// Puts a completion where it is looked for, and says what its entry is now. If that is free, the slot is to be released.
    fn deliver(&mut self, index: u32, completion: Completion) {
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
            Delivery::Nobody => entry.status = Status::Free,
        }
    }

    /// The completion of a task with a handle, once: its slot is free afterwards.
    pub(super) fn take(&mut self, ticket: u32) -> Option<Completion> {
        let index = ticket & abi::TR_INDEX_MASK;
        let completion = self.kept[index as usize].take()?;
        self.entries[index as usize].status = Status::Free;
        self.free.release([index]);
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
        let entries = &mut self.entries;
        self.free.release(self.queue.drain(..count).map(|(index, completion)| {
            entries[index as usize].status = Status::Free;
            into.push(completion);
            index
        }));
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
        let ticket = |index: u32| ticket(index, self.entries[index as usize].generation);
        self.in_flight_of(ids).into_iter().map(ticket).collect()
    }

    /// Has something announced when the last of these tasks has ended; the ids are sorted.
    pub(super) fn group(&mut self, ids: &[SubmissionId], announcement: Announcement) -> Result<(), BackendError> {
        if let Some(id) = ids.last().filter(|id| id.0 >= self.next_seq) {
            return Err(BackendError::UnknownSubmission { number: id.0 });
        }
        let members = self.in_flight_of(ids);
        if let Some(index) = members.iter().find(|index| self.entries[**index as usize].announced) {
            return Err(BackendError::AlreadyAnnounced { number: self.entries[*index as usize].seq });
        }
        self.groups.check(&announcement)?;
        let number = self.groups.next();
        self.groups.add(number, members.len() as u32, announcement);
        for index in members {
            self.entries[index as usize].announced = true;
            self.members.insert(index, number);
        }
        Ok(())
    }

    /// Tickets, ids and items of all tasks in flight, in the order of submission.
    pub(super) fn unfinished(&self) -> Vec<(u32, SubmissionId, TaskWorkItem)> {
        let entries = self.entries.iter().zip(&self.items).zip(0u32..);
        let in_flight = entries.filter(|((entry, _), _)| entry.status == Status::InFlight);
        let named = |((entry, item), index): ((&Entry, &TaskWorkItem), u32)| {
            (ticket(index, entry.generation), SubmissionId(entry.seq), *item)
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

    /// Whether there was such a task to end.
    fn end(journal: &mut Journal, ticket: u32) -> bool {
        journal.end_by_records(&[End { ticket, ..End::default() }], None) == 1
    }

    #[test]
    fn a_full_journal_takes_nothing_until_a_completion_is_consumed() {
        let mut journal = Journal::new(2);
        let item = TaskWorkItem::default();
        let first = admit(&mut journal, &[item], Delivery::Bulk)[0].ticket;
        admit(&mut journal, &[item], Delivery::Handle);
        assert_eq!(journal.room(), 0);
        assert!(end(&mut journal, first));
        assert_eq!(journal.room(), 0, "ended but not consumed");
        assert_eq!(journal.take_bulk(8, &mut Vec::new()), 1);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn a_second_record_of_the_same_task_is_a_violation() {
        let mut journal = Journal::new(2);
        let ticket = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0].ticket;
        assert!(end(&mut journal, ticket));
        assert!(!end(&mut journal, ticket));
        let again = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0].ticket;
        assert_ne!(ticket, again, "the slot is the same, the generation is not");
        assert!(!end(&mut journal, ticket));
        assert!(journal.has_ended(ticket) && !journal.has_ended(again));
        assert!(end(&mut journal, again));
        assert!(journal.has_ended(again));
    }

    #[test]
    fn a_dropped_handle_frees_its_slot_whenever_the_task_ends() {
        let mut journal = Journal::new(1);
        let before = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0].ticket;
        journal.forget(before);
        assert!(end(&mut journal, before));
        let after = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0].ticket;
        assert!(end(&mut journal, after));
        assert_eq!(journal.room(), 0);
        journal.forget(after);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn ids_are_never_reused_and_the_unfinished_come_in_order() {
        let mut journal = Journal::new(4);
        let tickets = admit(&mut journal, &[TaskWorkItem::default(); 4], Delivery::Bulk);
        assert!(end(&mut journal, tickets[1].ticket));
        let mut taken = Vec::new();
        journal.take_bulk(1, &mut taken);
        assert_eq!(taken[0].id, SubmissionId(1));
        admit(&mut journal, &[TaskWorkItem::default()], Delivery::Bulk);
        let ids: Vec<_> = journal.unfinished().iter().map(|(_, id, _)| id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4]);
    }
}
