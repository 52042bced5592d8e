//! What is known of a slot's task at a glance, by whoever submits and whoever takes completions.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::abi;

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
pub(super) enum Status {
    Free,
    InFlight,
    /// Its completion is in `kept`, for the holder of its handle.
    Kept,
    /// Its completion is in `queue`, for whoever takes completions in bulk.
    Queued,
}

const STATUS: u32 = 0b11;
const DELIVERY: u32 = 0b11 << DELIVERY_SHIFT;
const DELIVERY_SHIFT: u32 = 2;
const ANNOUNCED: u32 = 1 << 4;
/// Where tickets have it.
const GENERATION: u32 = !abi::TR_INDEX_MASK;
const NEXT: u32 = 1 << abi::TR_TICKET_GENERATION_SHIFT;

/// What every record looks at: small, so that many are in the caches, and all but the task's names in a word that is compared and stored as one. Bytes of
/// it that are stored one by one are no sooner read together than the processor has seen the stores off.
///
/// While a slot is free it is written by whoever takes it, and from the task's end on by whoever has the [`Ends`](super::ends::Ends).
#[derive(Debug)]
pub(super) struct Entry {
    seq: AtomicU64,
    task_id: AtomicU32,
    tag: AtomicU32,
}

impl Entry {
    /// Of a slot that nobody has had.
    pub(super) fn unused() -> Self {
        let tag = Status::Free as u32 | (Delivery::Nobody as u32) << DELIVERY_SHIFT;
        Self { seq: AtomicU64::new(0), task_id: AtomicU32::new(0), tag: AtomicU32::new(tag) }
    }

    /// The slot's next task begins. Its name on the device: its slot, and the generation in it.
    #[inline]
    pub(super) fn begin(&self, slot: u32, seq: u64, task_id: u32, delivery: Delivery) -> u32 {
        let generation = self.tag.load(Relaxed).wrapping_add(NEXT) & GENERATION;
        self.seq.store(seq, Relaxed);
        self.task_id.store(task_id, Relaxed);
        // Pairs with the acquire of whoever finds this task in flight.
        self.tag.store(generation | Status::InFlight as u32 | (delivery as u32) << DELIVERY_SHIFT, Release);
        slot | generation
    }

    #[inline]
    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }

    #[inline]
    pub(super) fn task_id(&self) -> u32 {
        self.task_id.load(Relaxed)
    }

    #[inline]
    fn tag(&self) -> u32 {
        // Pairs with the releases of `begin` and `set_status`.
        self.tag.load(Acquire)
    }

    /// What [`Entry::begin`] said last.
    #[inline]
    pub(super) fn ticket(&self, slot: u32) -> u32 {
        slot | self.tag() & GENERATION
    }

    /// Whether it is that of this task, which has not ended.
    #[inline]
    pub(super) fn is_in_flight(&self, ticket: u32) -> bool {
        self.tag() & (GENERATION | STATUS) == ticket & GENERATION | Status::InFlight as u32
    }

    /// The same of one whose end is nobody's but whoever's takes completions in bulk.
    #[inline]
    pub(super) fn ends_in_bulk(&self, ticket: u32) -> bool {
        self.tag() == ticket & GENERATION | Status::InFlight as u32 | (Delivery::Bulk as u32) << DELIVERY_SHIFT
    }

    #[inline]
    pub(super) fn status(&self) -> Status {
        match self.tag() & STATUS {
            0 => Status::Free,
            1 => Status::InFlight,
            2 => Status::Kept,
            _ => Status::Queued,
        }
    }

    #[inline]
    pub(super) fn set_status(&self, status: Status) {
        // Whoever sees that the task has ended may write its line anew, which the kernel had read before that was known here.
        self.tag.store(self.tag.load(Relaxed) & !STATUS | status as u32, Release);
    }

    #[inline]
    pub(super) fn delivery(&self) -> Delivery {
        match (self.tag() & DELIVERY) >> DELIVERY_SHIFT {
            0 => Delivery::Handle,
            1 => Delivery::Bulk,
            _ => Delivery::Nobody,
        }
    }

    /// Its holder does not want it any more.
    pub(super) fn deliver_to_nobody(&self) {
        self.tag.store(self.tag.load(Relaxed) & !DELIVERY | (Delivery::Nobody as u32) << DELIVERY_SHIFT, Relaxed);
    }

    /// Whether its end is announced, together with others'.
    #[inline]
    pub(super) fn is_announced(&self) -> bool {
        self.tag() & ANNOUNCED != 0
    }

    pub(super) fn announce(&self) {
        self.tag.store(self.tag.load(Relaxed) | ANNOUNCED, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_said_of_a_task_is_kept_until_the_next_one_and_its_generation_wraps() {
        let entry = Entry::unused();
        for turn in 1..600u32 {
            let delivery = [Delivery::Handle, Delivery::Bulk, Delivery::Nobody][turn as usize % 3];
            let ticket = entry.begin(5, turn.into(), turn, delivery);
            assert_eq!((entry.ticket(5), entry.seq(), entry.task_id()), (ticket, turn.into(), turn));
            assert_eq!(ticket, 5 | turn << abi::TR_TICKET_GENERATION_SHIFT);
            assert!(entry.is_in_flight(ticket) && !entry.is_in_flight(ticket.wrapping_add(NEXT)));
            assert_eq!(entry.ends_in_bulk(ticket), delivery == Delivery::Bulk);
            assert!(!entry.is_announced());
            entry.announce();
            assert!(entry.is_announced() && entry.is_in_flight(ticket));
            assert_eq!((entry.delivery(), entry.ends_in_bulk(ticket)), (delivery, false));
            for status in [Status::Kept, Status::Queued, Status::Free] {
                entry.set_status(status);
                assert_eq!((entry.status(), entry.delivery(), entry.ticket(5)), (status, delivery, ticket));
                assert!(entry.is_announced() && !entry.is_in_flight(ticket));
            }
            entry.deliver_to_nobody();
            assert_eq!((entry.status(), entry.delivery()), (Status::Free, Delivery::Nobody));
        }
    }
}
