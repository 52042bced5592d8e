//! Every submitted task until its end: which slot it has, and what was submitted, in case the device can't say.

use std::sync::Arc;

use super::entry::{Delivery, Status};
use super::mailbox::LineTicket;
use super::roster::Roster;
use super::task::SubmissionId;
use crate::abi::{self, TaskWorkItem};

/// The host's memory of its tasks.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) roster: Arc<Roster>,
    /// Each task as it was submitted, or as a recovery found it, by its slot.
    items: Vec<TaskWorkItem>,
    next_seq: u64,
}

impl Journal {
    pub(super) fn new(roster: Arc<Roster>) -> Self {
        let items = vec![TaskWorkItem::default(); roster.entries.len()];
        Self { roster, items, next_seq: 0 }
    }

    pub(super) fn room(&self) -> usize {
        self.roster.free.count()
    }

    /// Tasks that have not ended, or whose ends nobody has seen yet.
    pub(super) fn in_flight(&self) -> u32 {
        (self.next_seq - self.roster.ends.0.ended()) as u32
    }

    pub(super) fn next_id(&self) -> SubmissionId {
        SubmissionId(self.next_seq)
    }

    /// Takes tasks in, for which there is room, a run of slots at a time; appends their tickets.
    pub(super) fn admit(&mut self, items: &[TaskWorkItem], delivery: Delivery, tickets: &mut Vec<LineTicket>) {
        let Roster { entries, free, .. } = &*self.roster;
        let mut left = items;
        while !left.is_empty() && free.count() > 0 {
            let slots = match delivery {
                Delivery::Handle => free.take_last(),
                _ => free.take(left.len()),
            };
            let (run, rest) = left.split_at(slots.len());
            let place = slots.start as usize..slots.end as usize;
            self.items[place.clone()].copy_from_slice(run);
            let named = entries[place].iter().zip(run).zip((slots.start..).zip(self.next_seq..));
            tickets.extend(named.map(|((entry, item), (slot, seq))| {
                let ticket = entry.begin(slot, seq, item.task_id, delivery);
                LineTicket { ticket, target_hi: 0 }
            }));
            self.next_seq += run.len() as u64;
            left = rest;
        }
    }

    /// The task has come this far: what a later recovery falls back on.
    pub(super) fn update(&mut self, ticket: u32, item: TaskWorkItem) {
        self.items[(ticket & abi::TR_INDEX_MASK) as usize] = item;
    }

    /// Tickets, ids and items of all tasks in flight, in the order of submission.
    pub(super) fn unfinished(&self) -> Vec<(u32, SubmissionId, TaskWorkItem)> {
        let entries = self.roster.entries.iter().zip(&self.items).zip(0u32..);
        let in_flight = entries.filter(|((entry, _), _)| entry.status() == Status::InFlight);
        let mut list: Vec<_> =
            in_flight.map(|((entry, item), index)| (entry.ticket(index), SubmissionId(entry.seq()), *item)).collect();
        list.sort_by_key(|(_, id, _)| *id);
        list
    }
}
