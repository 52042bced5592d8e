//! Which slots nobody has.

use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Two threads that write what lies in one line of a cache, or in the next, which processors fetch along, keep taking it from each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// A bit for each slot, so few bytes that they stay in a cache. Batches go round: tasks that were submitted side by side have slots side by side, and
/// whatever is kept of a slot is written and read in streams. Where nearly all are taken, a batch looks at a word for each 64 slots that it passes.
///
/// One thread at a time takes slots, and one at a time frees them, without a lock in common.
#[derive(Debug)]
pub(super) struct FreeSlots {
    words: Box<[AtomicU64]>,
    capacity: u32,
    taker: Apart<Taker>,
    freer: Apart<Freer>,
}

/// Written by whoever takes.
#[derive(Debug, Default)]
struct Taker {
    /// How often a slot was taken.
    taken: AtomicU64,
    /// The slot after those that a batch was given last.
    next: AtomicU32,
}

/// Written by whoever frees.
#[derive(Debug, Default)]
struct Freer {
    /// How often a slot became free, those that were free at first included.
    freed: AtomicU64,
    /// The slot that became free last, which caches may still have.
    last: AtomicU32,
}

impl FreeSlots {
    /// All of them.
    pub(super) fn new(capacity: u32) -> Self {
        let words = (0..capacity).step_by(64).map(|first| (u64::MAX >> (64 - (capacity - first).min(64))).into());
        let freer = Freer { freed: u64::from(capacity).into(), last: 0.into() };
        Self { words: words.collect(), capacity, taker: Apart::default(), freer: Apart(freer) }
    }

    /// At least so many, to whoever takes.
    pub(super) fn count(&self) -> usize {
        // Pairs with the release after the bits were set.
        self.freer.0.freed.load(Acquire).wrapping_sub(self.taker.0.taken.load(Relaxed)) as usize
    }

    /// The next free slots that lie side by side, at most so many; none if there are none.
    pub(super) fn take(&self, most: usize) -> Range<u32> {
        let most = most.min(self.count()) as u32;
        if most == 0 {
            return 0..0;
        }
        let mut next = self.taker.0.next.load(Relaxed);
        let ahead = loop {
            // Pairs with the release of whoever freed them.
            let ahead = self.words[next as usize / 64].load(Acquire) >> (next % 64);
            if ahead != 0 {
                break ahead;
            }
            next = self.after((next / 64 + 1) * 64);
        };
        let first = next + ahead.trailing_zeros();
        let count = (ahead >> ahead.trailing_zeros()).trailing_ones().min(most);
        self.taker.0.next.store(self.after(first + count), Relaxed);
        self.take_bits(first as usize / 64, u64::MAX >> (64 - count) << (first % 64));
        first..first + count
    }

    /// The slot that became free last, or the next one if somebody has it by now: for a task with a handle.
    pub(super) fn take_last(&self) -> Range<u32> {
        let last = self.freer.0.last.load(Relaxed);
        let (word, bit) = Self::place(last);
        // Pairs with the release of whoever freed it.
        if self.words[word].load(Acquire) & bit == 0 {
            return self.take(1);
        }
        self.take_bits(word, bit);
        last..last + 1
    }

    fn take_bits(&self, word: usize, bits: u64) {
        // Whoever frees touches others of the word only.
        self.words[word].fetch_and(!bits, Relaxed);
        let taken = self.taker.0.taken.load(Relaxed).wrapping_add(bits.count_ones().into());
        self.taker.0.taken.store(taken, Relaxed);
    }

    fn after(&self, next: u32) -> u32 {
        if next < self.capacity { next } else { 0 }
    }

    /// Slots that nobody has any more.
    pub(super) fn release(&self, slots: impl IntoIterator<Item = u32>) {
        let mut freeing = Freeing { slots: self, count: 0, last: None, word: 0, bits: 0 };
        slots.into_iter().for_each(|slot| freeing.add(slot));
    }

    fn place(slot: u32) -> (usize, u64) {
        (slot as usize / 64, 1 << (slot % 64))
    }
}

/// A word of bits is stored once for all slots that follow each other in it, and how many there are once for all.
struct Freeing<'a> {
    slots: &'a FreeSlots,
    count: u64,
    last: Option<u32>,
    word: usize,
    bits: u64,
}

impl Freeing<'_> {
    #[inline]
    fn add(&mut self, slot: u32) {
        let (word, bit) = FreeSlots::place(slot);
        if word != self.word {
            self.store();
            self.word = word;
        }
        self.bits |= bit;
        self.count += 1;
        self.last = Some(slot);
    }

    fn store(&mut self) {
        let bits = std::mem::take(&mut self.bits);
        if bits != 0 {
            // Pairs with the acquire of whoever takes them: what was read of their tasks is read.
            self.slots.words[self.word].fetch_or(bits, Release);
        }
    }
}

impl Drop for Freeing<'_> {
    /// Even if the caller's iterator panics: what was said to be free is.
    fn drop(&mut self) {
        let Some(last) = self.last else { return };
        self.store();
        let Freer { freed, last: kept } = &self.slots.freer.0;
        kept.store(last, Relaxed);
        // Pairs with the acquire of whoever counts: the bits are set.
        freed.store(freed.load(Relaxed).wrapping_add(self.count), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_slot_is_given_out_once_until_it_is_released(
            capacity in prop::sample::select(vec![1u32, 64, 100, 256]),
            steps in prop::collection::vec((0..3u8, 1..100usize, any::<prop::sample::Index>()), 0..600),
        ) {
            let (free, mut taken) = (FreeSlots::new(capacity), Vec::new());
            for (step, most, which) in steps {
                let slots = match step {
                    0 => free.take(most),
                    1 => free.take_last(),
                    _ if taken.is_empty() => continue,
                    _ => {
                        let some = which.index(taken.len());
                        free.release(taken.drain(some..(some + most).min(taken.len())));
                        continue;
                    }
                };
                prop_assert_eq!(slots.is_empty(), taken.len() == capacity as usize);
                prop_assert!(slots.len() <= most.max(1) && slots.end <= capacity);
                prop_assert!(!slots.clone().any(|slot| taken.contains(&slot)));
                taken.extend(slots);
                prop_assert_eq!(free.count(), capacity as usize - taken.len());
            }
        }
    }

    #[test]
    fn batches_go_round_and_a_task_with_a_handle_gets_what_became_free_last() {
        let free = FreeSlots::new(128);
        assert_eq!([free.take(100), free.take(36)], [0..64, 64..100]);
        free.release([7, 99, 3, 4, 5]);
        assert_eq!([free.take_last(), free.take(1)], [5..6, 100..101]);
        assert_eq!(free.take_last(), 101..102, "somebody has slot 5");
        assert_eq!([free.take(100), free.take(100), free.take(1)], [102..128, 3..5, 7..8]);
        assert_eq!([free.take(100), free.take(100)], [99..100, 0..0]);
    }

    #[test]
    fn who_frees_and_who_takes_need_no_lock_and_every_slot_is_given_out_once_at_a_time() {
        let free = &FreeSlots::new(192);
        let (back, freed) = std::sync::mpsc::channel::<Range<u32>>();
        std::thread::scope(|scope| {
            scope.spawn(move || freed.into_iter().for_each(|slots| free.release(slots.rev())));
            let owned: Vec<AtomicU32> = (0..192).map(|_| AtomicU32::new(0)).collect();
            let mut held = std::collections::VecDeque::new();
            for round in 0..if cfg!(miri) { 200 } else { 100_000 } {
                let slots = if round % 7 == 0 { free.take_last() } else { free.take(round % 90 + 1) };
                for slot in slots.clone() {
                    assert_eq!(owned[slot as usize].fetch_add(1, Relaxed), 0);
                }
                held.push_back(slots);
                let kept = round % 3;
                while let Some(slots) = (held.len() > kept).then(|| held.pop_front()).flatten() {
                    for slot in slots.clone() {
                        owned[slot as usize].fetch_sub(1, Relaxed);
                    }
                    assert!(back.send(slots).is_ok());
                }
            }
            held.into_iter().for_each(|slots| assert!(back.send(slots).is_ok()));
            drop(back);
        });
        assert_eq!(free.count(), 192);
    }
}
