//! What is known of tasks without a lock: to whoever submits, who holds the state, and to whoever takes completions, who holds the ends.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::entry::{Entry, Status};
use super::slots::{Apart, FreeSlots};
use super::task::SubmissionId;
use crate::abi;

/// The tasks' slots. An entry's index is the task's slot on the device, so a slot is free exactly when its entry is.
#[derive(Debug)]
pub(super) struct Roster {
    pub(super) entries: Box<[Entry]>,
    pub(super) free: FreeSlots,
    pub(super) ends: Apart<Count>,
}

/// What is known of the ends. Written by whoever holds them.
#[derive(Debug, Default)]
pub(super) struct Count {
    ended: AtomicU64,
    /// Completion ring positions read.
    consumed: AtomicU32,
    /// The largest age of a task that has ended since somebody asked.
    oldest: AtomicU32,
    /// Whether a group has ended that was not announced.
    due: AtomicBool,
}

impl Roster {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            entries: (0..capacity).map(|_| Entry::unused()).collect(),
            free: FreeSlots::new(capacity),
            ends: Apart::default(),
        }
    }

    /// Whether this task, which was given out once, has ended. After so many others in its slot that generations wrapped, a task that ended may
    /// be taken for one that did not.
    pub(super) fn has_ended(&self, ticket: u32) -> bool {
        !self.entries[(ticket & abi::TR_INDEX_MASK) as usize].is_in_flight(ticket)
    }

    /// The slots of those of these tasks that are in flight; the ids are sorted.
    pub(super) fn in_flight_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let wanted =
            |entry: &Entry| entry.status() == Status::InFlight && ids.binary_search(&SubmissionId(entry.seq())).is_ok();
        (0..).zip(&self.entries).filter(|(_, entry)| wanted(entry)).map(|(index, _)| index).collect()
    }

    /// Tickets of those of these tasks that are in flight; the ids are sorted.
    pub(super) fn tickets_of(&self, ids: &[SubmissionId]) -> Vec<u32> {
        let ticket = |index: u32| self.entries[index as usize].ticket(index);
        self.in_flight_of(ids).into_iter().map(ticket).collect()
    }
}

impl Count {
    /// How many tasks have ended.
    pub(super) fn ended(&self) -> u64 {
        // Pairs with the release in `add`.
        self.ended.load(Acquire)
    }

    pub(super) fn add(&self, count: usize) {
        // Pairs with the acquire in `ended`: whoever counts them in finds their entries ended.
        self.ended.store(self.ended.load(Relaxed) + count as u64, Release);
    }

    /// The position of the next completion record. Without the ends, no more than a hint.
    pub(super) fn consumed(&self) -> u32 {
        self.consumed.load(Relaxed)
    }

    pub(super) fn go_to(&self, position: u32) {
        self.consumed.store(position, Relaxed);
    }

    pub(super) fn saw_age(&self, age: u32) {
        if age > 0 {
            self.oldest.fetch_max(age, Relaxed);
        }
    }

    pub(super) fn take_oldest(&self) -> u32 {
        self.oldest.swap(0, Relaxed)
    }

    /// Whether a group has ended that was not announced. A hint, as whoever announces holds the ends, and looks there.
    pub(super) fn is_due(&self) -> bool {
        self.due.load(Relaxed)
    }

    pub(super) fn set_due(&self, due: bool) {
        self.due.store(due, Relaxed);
    }
}
