//! Every submitted task until its completion is consumed: which slot it has, and what was submitted, in case the device can't say.

use std::collections::{HashMap, VecDeque};

use super::entry::{Delivery, Entry, Status};
use super::groups::{Announcement, Groups};
use super::mailbox::LineTicket;
use super::record::End;
use super::slots::FreeSlots;
use super::task::{Completion, Outcome, SubmissionId};
use super::wakers::Wakers;
use crate::abi::{self, TaskWorkItem};
use crate::error::BackendError;

/// What records told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Of how many tasks.
    pub(super) count: usize,
    /// How many of them faulted.
    pub(super) faulted: usize,
    /// The largest of their ages, if they were counted.
    pub(super) oldest: u32,
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
        Self {
            entries: vec![Entry::UNUSED; capacity as usize],
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
            let entries = self.entries[place].iter_mut().zip(run).enumerate();
            tickets.extend(entries.map(|(at, (entry, item))| {
                entry.begin(self.next_seq + at as u64, item.task_id, delivery);
                LineTicket { ticket: entry.ticket(slots.start + at as u32), target_hi: 0 }
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
    /// moment. It stops before a record of a task that is not in flight: one that came twice, or was overwritten.
    pub(super) fn end_by_records(&mut self, ends: &[End], mut into: Option<&mut Vec<Completion>>) -> Ended {
        let mut ended = Ended::default();
        loop {
            if let Some(into) = into.as_deref_mut() {
                ended.count += self.end_usually(&ends[ended.count..], into);
            }
            let Some(end) = ends.get(ended.count) else { break };
            if !self.end(end, into.as_deref_mut()) {
                break;
            }
            ended.count += 1;
            ended.faulted += usize::from(end.is_faulted());
        }
        ended.oldest = ends[..ended.count].iter().map(|end| end.counts().age_ticks).max().unwrap_or(0);
        ended
    }

    /// As many from the first one on as ended as most tasks do: done, and for whoever takes completions in bulk at this moment. Their number. What a
    /// stream costs the host is these two loops and that of `Ring::read`, so each is short enough for all it needs to stay in registers.
    #[inline(never)]
    fn end_usually(&mut self, ends: &[End], into: &mut Vec<Completion>) -> usize {
        let (mut freeing, entries) = (self.free.freeing(), self.entries.as_mut_slice());
        let mut count = 0;
        for end in ends.iter().take_while(|end| !end.is_faulted()) {
            let Some(entry) = entries.get_mut(end.slot()).filter(|entry| entry.ends_in_bulk(end.ticket())) else {
                break;
            };
            entry.set_status(Status::Free);
            freeing.add(end.slot() as u32);
            count += 1;
        }
        drop(freeing);
        into.extend(ends[..count].iter().map(|end| {
            let entry = &entries[end.slot()];
            Completion::done(SubmissionId(entry.seq), entry.task_id, end)
        }));
        self.in_flight -= count as u32;
        count
    }

    /// One, however it ended. False if its task is not in flight.
    fn end(&mut self, end: &End, into: Option<&mut Vec<Completion>>) -> bool {
        let index = end.ticket() & abi::TR_INDEX_MASK;
        let Some(entry) = self.entries.get_mut(index as usize).filter(|entry| entry.is_in_flight(end.ticket())) else {
            return false;
        };
        let announced = entry.is_announced();
        let completion = Completion::of_record(SubmissionId(entry.seq), entry.task_id, end);
        match into {
            Some(into) if entry.delivery() == Delivery::Bulk => {
                entry.set_status(Status::Free);
                into.push(completion);
            }
            _ => self.deliver(index, completion),
        }
        if announced {
            self.leave_group(index);
        }
        self.in_flight -= 1;
        self.release_if_free(index);
        true
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) {
        let index = ticket & abi::TR_INDEX_MASK;
        let entry = self.entries[index as usize];
        if entry.is_announced() {
            self.leave_group(index);
        }
        self.in_flight -= 1;
        self.deliver(index, Completion::of_item(SubmissionId(entry.seq), item));
        self.release_if_free(index);
    }

    fn release_if_free(&mut self, index: u32) {
        if self.entries[index as usize].status() == Status::Free {
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
        match entry.delivery() {
            Delivery::Handle => {
                entry.set_status(Status::Kept);
                self.kept[index as usize] = Some(completion);
                self.wakers.ended(index);
            }
            Delivery::Bulk => {
                entry.set_status(Status::Queued);
                self.queue.push_back((index, completion));
                self.wakers.queued();
            }
            Delivery::Nobody => entry.set_status(Status::Free),
        }
    }

    /// The completion of a task with a handle, once: its slot is free afterwards.
    pub(super) fn take(&mut self, ticket: u32) -> Option<Completion> {
        let index = ticket & abi::TR_INDEX_MASK;
        let completion = self.kept[index as usize].take()?;
        self.entries[index as usize].set_status(Status::Free);
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
        match entry.status() {
            Status::InFlight => {
                entry.deliver_to_nobody();
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
            entries[index as usize].set_status(Status::Free);
            into.push(completion);
            index
        }));
        count
    }

    /// The entries of those of these tasks that are in flight; the ids are sorted.
    fn in_flight_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let wanted =
            |entry: &Entry| entry.status() == Status::InFlight && ids.binary_search(&SubmissionId(entry.seq)).is_ok();
        (0..).zip(&self.entries).filter(|(_, entry)| wanted(entry)).map(|(index, _)| index).collect()
    }

    /// Tickets of those of these tasks that are in flight; the ids are sorted.
    pub(super) fn tickets_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let ticket = |index: u32| self.entries[index as usize].ticket(index);
        self.in_flight_of(ids).into_iter().map(ticket).collect()
    }

    /// Has something announced when the last of these tasks has ended; the ids are sorted.
    pub(super) fn group(&mut self, ids: &[SubmissionId], announcement: Announcement) -> Result<(), BackendError> {
        if let Some(id) = ids.last().filter(|id| id.0 >= self.next_seq) {
            return Err(BackendError::UnknownSubmission { number: id.0 });
        }
        let members = self.in_flight_of(ids);
        if let Some(index) = members.iter().find(|index| self.entries[**index as usize].is_announced()) {
            return Err(BackendError::AlreadyAnnounced { number: self.entries[*index as usize].seq });
        }
        self.groups.check(&announcement)?;
        let number = self.groups.next();
        self.groups.add(number, members.len() as u32, announcement);
        for index in members {
            self.entries[index as usize].announce();
            self.members.insert(index, number);
        }
        Ok(())
    }

    /// Tickets, ids and items of all tasks in flight, in the order of submission.
    pub(super) fn unfinished(&self) -> Vec<(u32, SubmissionId, TaskWorkItem)> {
        let entries = self.entries.iter().zip(&self.items).zip(0u32..);
        let in_flight = entries.filter(|((entry, _), _)| entry.status() == Status::InFlight);
        let named = |((entry, item), index): ((&Entry, &TaskWorkItem), u32)| {
            (entry.ticket(index), SubmissionId(entry.seq), *item)
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
    use crate::runtime::record;

    fn admit(journal: &mut Journal, items: &[TaskWorkItem], delivery: Delivery) -> Vec<LineTicket> {
        let mut tickets = Vec::new();
        journal.admit(items, delivery, &mut tickets);
        tickets
    }

    /// Whether there was such a task to end.
    fn end(journal: &mut Journal, ticket: u32) -> bool {
        journal.end_by_records(&[record::end(ticket)], None).count == 1
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
    fn ends_of_all_kinds_go_where_they_belong_in_their_order_up_to_one_that_comes_twice() {
        let mut journal = Journal::new(8);
        let bulk = admit(&mut journal, &[TaskWorkItem::default(); 4], Delivery::Bulk);
        let handle = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0].ticket;
        let ends = [bulk[2].ticket, handle, bulk[0].ticket, bulk[2].ticket, bulk[1].ticket].map(record::end);
        let mut into = Vec::new();
        let ended = journal.end_by_records(&ends, Some(&mut into));
        assert_eq!(ended, Ended { count: 3, faulted: 0, oldest: 0 });
        assert_eq!(into.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((journal.in_flight(), journal.room()), (2, 5), "the handle's is kept");
        assert_eq!(journal.take(handle).map(|one| one.id.number()), Some(4));
        assert_eq!(journal.room(), 6);
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
