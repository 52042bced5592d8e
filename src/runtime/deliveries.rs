//! Completions on their way from the device's records to whoever looks for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::entry::{Delivery, Status};
use super::groups::{Announcement, Groups};
use super::journal::Journal;
use super::record::End;
use super::roster::Roster;
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

/// What is known of ended tasks until their completions are consumed, and who waits for them.
#[derive(Debug)]
pub(super) struct Deliveries {
    roster: Arc<Roster>,
    kept: Vec<Option<Completion>>,
    queue: VecDeque<(u32, Completion)>, // in the order in which they ended
    /// The groups whose ends are announced of the tasks in these slots.
    members: HashMap<u32, u32>,
    pub(super) groups: Groups,
    pub(super) wakers: Wakers,
}

impl Deliveries {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        Self {
            kept: vec![None; roster.entries.len()],
            roster,
            queue: VecDeque::new(),
            members: HashMap::new(),
            groups: Groups::default(),
            wakers: Wakers::default(),
        }
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
    /// stream costs the host is these loops and that of `Ring::read`, so each is short enough for all it needs to stay in registers.
    #[inline(never)]
    fn end_usually(&mut self, ends: &[End], into: &mut Vec<Completion>) -> usize {
        let Roster { entries, free, ends: told } = &*self.roster;
        let mut count = 0;
        for end in ends.iter().take_while(|end| !end.is_faulted()) {
            let Some(entry) = entries.get(end.slot()).filter(|entry| entry.ends_in_bulk(end.ticket())) else {
                break;
            };
            entry.set_status(Status::Free);
            count += 1;
        }
        into.extend(ends[..count].iter().map(|end| {
            let entry = &entries[end.slot()];
            Completion::done(SubmissionId(entry.seq()), entry.task_id(), end)
        }));
        // Only now: the next task in a slot has another name.
        free.release(ends[..count].iter().map(|end| end.slot() as u32));
        told.0.add(count);
        count
    }

    /// One, however it ended. False if its task is not in flight.
    fn end(&mut self, end: &End, into: Option<&mut Vec<Completion>>) -> bool {
        let entry = self.roster.entries.get(end.slot());
        let Some(entry) = entry.filter(|entry| entry.is_in_flight(end.ticket())) else { return false };
        let index = end.slot() as u32;
        let announced = entry.is_announced();
        let completion = Completion::of_record(SubmissionId(entry.seq()), entry.task_id(), end);
        match into {
            Some(into) if entry.delivery() == Delivery::Bulk => {
                entry.set_status(Status::Free);
                into.push(completion);
            }
            _ => self.deliver(index, completion),
        }
        self.is_over(index, announced);
        true
    }

    /// The host's word that a task ended: `item` is Done or Faulted.
    pub(super) fn end_by_item(&mut self, ticket: u32, item: &TaskWorkItem) {
        let index = ticket & abi::TR_INDEX_MASK;
        let entry = &self.roster.entries[index as usize];
        let announced = entry.is_announced();
        let completion = Completion::of_item(SubmissionId(entry.seq()), item);
        self.deliver(index, completion);
        self.is_over(index, announced);
    }

    /// Its completion is where it belongs.
    fn is_over(&mut self, index: u32, announced: bool) {
        if announced {
            self.leave_group(index);
        }
        if self.roster.entries[index as usize].status() == Status::Free {
            self.roster.free.release([index]);
        }
        self.roster.ends.0.add(1);
    }

    #[cold]
    fn leave_group(&mut self, index: u32) {
        if let Some(group) = self.members.remove(&index) {
            self.groups.ended(group);
            self.roster.ends.0.set_due(self.groups.has_finished());
        }
    }

    /// Puts a completion where it is looked for, and says what its entry is now. If that is free, the slot is to be released.
    fn deliver(&mut self, index: u32, completion: Completion) {
        let entry = &self.roster.entries[index as usize];
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
        self.roster.entries[index as usize].set_status(Status::Free);
        self.roster.free.release([index]);
        Some(completion)
    }

    /// The holder of a handle does not want the completion any more.
    pub(super) fn forget(&mut self, ticket: u32) {
        let entry = &self.roster.entries[(ticket & abi::TR_INDEX_MASK) as usize];
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
    pub(super) fn take_queued(&mut self, limit: usize, into: &mut Vec<Completion>) -> usize {
        let count = self.queue.len().min(limit);
        let Roster { entries, free, .. } = &*self.roster;
        free.release(self.queue.drain(..count).map(|(index, completion)| {
            entries[index as usize].set_status(Status::Free);
            into.push(completion);
            index
        }));
        count
    }

    /// Has something announced when the last of these tasks has ended; the ids are sorted.
    pub(super) fn group(
        &mut self,
        journal: &Journal,
        ids: &[SubmissionId],
        announcement: Announcement,
    ) -> Result<(), BackendError> {
        if let Some(id) = ids.last().filter(|id| **id >= journal.next_id()) {
            return Err(BackendError::UnknownSubmission { number: id.0 });
        }
        let members = self.roster.in_flight_of(ids);
        let entry = |index: &u32| &self.roster.entries[*index as usize];
        if let Some(announced) = members.iter().map(entry).find(|entry| entry.is_announced()) {
            return Err(BackendError::AlreadyAnnounced { number: announced.seq() });
        }
        self.groups.check(&announcement)?;
        let number = self.groups.next();
        self.groups.add(number, members.len() as u32, announcement);
        for index in members {
            self.roster.entries[index as usize].announce();
            self.members.insert(index, number);
        }
        self.roster.ends.0.set_due(self.groups.has_finished());
        Ok(())
    }

    /// Whether anybody waits for ends that the runtime's own thread has to see.
    pub(super) fn is_awaited(&self) -> bool {
        !self.groups.is_empty() || !self.wakers.is_empty()
    }

    /// Groups that have ended, to be announced now.
    pub(super) fn take_due(&mut self) -> Vec<Announcement> {
        let due = self.groups.take_due();
        // Those that are held back wait for others, whose ends will say so again.
        self.roster.ends.0.set_due(false);
        due
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

    fn pair(capacity: u32) -> (Journal, Deliveries) {
        let roster = Arc::new(Roster::new(capacity));
        (Journal::new(roster.clone()), Deliveries::new(roster))
    }

    fn admit(journal: &mut Journal, items: &[TaskWorkItem], delivery: Delivery) -> Vec<u32> {
        let mut tickets = Vec::new();
        journal.admit(items, delivery, &mut tickets);
        tickets.iter().map(|line| line.ticket).collect()
    }

    /// Whether there was such a task to end.
    fn end(ends: &mut Deliveries, ticket: u32) -> bool {
        ends.end_by_records(&[record::end(ticket)], None).count == 1
    }

    #[test]
    fn a_full_journal_takes_nothing_until_a_completion_is_consumed() {
        let (mut journal, mut ends) = pair(2);
        let item = TaskWorkItem::default();
        let first = admit(&mut journal, &[item], Delivery::Bulk)[0];
        admit(&mut journal, &[item], Delivery::Handle);
        assert_eq!(journal.room(), 0);
        assert!(end(&mut ends, first));
        assert_eq!(journal.room(), 0, "ended but not consumed");
        assert_eq!(ends.take_queued(8, &mut Vec::new()), 1);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn a_second_record_of_the_same_task_is_a_violation() {
        let (mut journal, mut ends) = pair(2);
        let ticket = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0];
        assert!(end(&mut ends, ticket));
        assert!(!end(&mut ends, ticket));
        let again = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Nobody)[0];
        assert_ne!(ticket, again, "the slot is the same, the generation is not");
        assert!(!end(&mut ends, ticket));
        assert!(journal.roster.has_ended(ticket) && !journal.roster.has_ended(again));
        assert!(end(&mut ends, again));
        assert!(journal.roster.has_ended(again));
    }

    #[test]
    fn ends_of_all_kinds_go_where_they_belong_in_their_order_up_to_one_that_comes_twice() {
        let (mut journal, mut ends) = pair(8);
        let bulk = admit(&mut journal, &[TaskWorkItem::default(); 4], Delivery::Bulk);
        let handle = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0];
        let records = [bulk[2], handle, bulk[0], bulk[2], bulk[1]].map(record::end);
        let mut into = Vec::new();
        let ended = ends.end_by_records(&records, Some(&mut into));
        assert_eq!(ended, Ended { count: 3, faulted: 0, oldest: 0 });
        assert_eq!(into.iter().map(|one| one.id.number()).collect::<Vec<_>>(), [2, 0]);
        assert_eq!((journal.in_flight(), journal.room()), (2, 5), "the handle's is kept");
        assert_eq!(ends.take(handle).map(|one| one.id.number()), Some(4));
        assert_eq!(journal.room(), 6);
    }

    #[test]
    fn a_dropped_handle_frees_its_slot_whenever_the_task_ends() {
        let (mut journal, mut ends) = pair(1);
        let before = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0];
        ends.forget(before);
        assert!(end(&mut ends, before));
        let after = admit(&mut journal, &[TaskWorkItem::default()], Delivery::Handle)[0];
        assert!(end(&mut ends, after));
        assert_eq!(journal.room(), 0);
        ends.forget(after);
        assert_eq!(journal.room(), 1);
    }

    #[test]
    fn ids_are_never_reused_and_the_unfinished_come_in_order() {
        let (mut journal, mut ends) = pair(4);
        let tickets = admit(&mut journal, &[TaskWorkItem::default(); 4], Delivery::Bulk);
        assert!(end(&mut ends, tickets[1]));
        let mut taken = Vec::new();
        ends.take_queued(1, &mut taken);
        assert_eq!(taken[0].id, SubmissionId(1));
        admit(&mut journal, &[TaskWorkItem::default()], Delivery::Bulk);
        let ids: Vec<_> = journal.unfinished().iter().map(|(_, id, _)| id.0).collect();
        assert_eq!(ids, [0, 2, 3, 4]);
    }
}
