//! Which slots nobody has.

use std::ops::Range;

/// A bit for each slot, so few bytes that they stay in a cache. Batches go round: tasks that were submitted side by side have slots side by side, and
/// whatever is kept of a slot is written and read in streams. Where nearly all are taken, a batch looks at a word for each 64 slots that it passes.
#[derive(Debug)]
pub(super) struct FreeSlots {
    words: Vec<u64>,
    capacity: u32,
    count: usize,
    /// The slot after those that a batch was given last.
    next: u32,
    /// The slot that became free last, which caches may still have.
    last: u32,
}

impl FreeSlots {
    /// All of them.
    pub(super) fn new(capacity: u32) -> Self {
        let words = (0..capacity).step_by(64).map(|first| u64::MAX >> (64 - (capacity - first).min(64)));
        Self { words: words.collect(), capacity, count: capacity as usize, next: 0, last: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The next free slots that lie side by side, at most so many; none if there are none.
    pub(super) fn take(&mut self, most: usize) -> Range<u32> {
        let most = most.min(self.count) as u32;
        if most == 0 {
            return 0..0;
        }
        let ahead = loop {
            let ahead = self.words[self.next as usize / 64] >> (self.next % 64);
            if ahead != 0 {
                break ahead;
            }
            self.go_to((self.next / 64 + 1) * 64);
        };
        let first = self.next + ahead.trailing_zeros();
        let count = (ahead >> ahead.trailing_zeros()).trailing_ones().min(most);
        self.words[first as usize / 64] &= !(u64::MAX >> (64 - count) << (first % 64));
        self.count -= count as usize;
        self.go_to(first + count);
        first..first + count
    }

    fn go_to(&mut self, next: u32) {
        self.next = if next < self.capacity { next } else { 0 };
    }

    /// The slot that became free last, or the next one if somebody has it by now: for a task with a handle.
    pub(super) fn take_last(&mut self) -> Range<u32> {
        let (word, bit) = Self::place(self.last);
        if self.words[word] & bit == 0 {
            return self.take(1);
        }
        self.words[word] &= !bit;
        self.count -= 1;
        self.last..self.last + 1
    }

    /// Slots that nobody has any more.
    pub(super) fn release(&mut self, slots: impl IntoIterator<Item = u32>) {
        let mut freeing = self.freeing();
        slots.into_iter().for_each(|slot| freeing.add(slot));
    }

    /// For slots that become free one after the other, and are free once it is dropped.
    pub(super) fn freeing(&mut self) -> Freeing<'_> {
        let Self { words, count, last, .. } = self;
        Freeing { words, count, last, word: 0, bits: 0 }
    }

    fn place(slot: u32) -> (usize, u64) {
        (slot as usize / 64, 1 << (slot % 64))
    }
}

/// A word of bits is stored once for all slots that follow each other in it: a store and a load of it for each would wait for one another.
#[derive(Debug)]
pub(super) struct Freeing<'a> {
    words: &'a mut [u64],
    count: &'a mut usize,
    last: &'a mut u32,
    word: usize,
    bits: u64,
}

impl Freeing<'_> {
    #[inline]
    pub(super) fn add(&mut self, slot: u32) {
        let (word, bit) = FreeSlots::place(slot);
        if word != self.word {
            self.store();
            self.word = word;
        }
        self.bits |= bit;
        *self.last = slot;
    }

    fn store(&mut self) {
        *self.count += self.bits.count_ones() as usize;
        self.words[self.word] |= std::mem::take(&mut self.bits);
    }
}

impl Drop for Freeing<'_> {
    fn drop(&mut self) {
        self.store();
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
            let (mut free, mut taken) = (FreeSlots::new(capacity), Vec::new());
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
        let mut free = FreeSlots::new(128);
        assert_eq!([free.take(100), free.take(36)], [0..64, 64..100]);
        free.release([7, 99, 3, 4, 5]);
        assert_eq!([free.take_last(), free.take(1)], [5..6, 100..101]);
        assert_eq!(free.take_last(), 101..102, "somebody has slot 5");
        assert_eq!([free.take(100), free.take(100), free.take(1)], [102..128, 3..5, 7..8]);
        assert_eq!([free.take(100), free.take(100)], [99..100, 0..0]);
    }
}
