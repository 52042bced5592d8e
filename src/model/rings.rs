//! Five rings of ready tasks: the twin of `rings.glsl`.

use crate::abi::{TASK_PRIORITIES, TR_ENTRY_LAP_MASK, TR_ENTRY_LAP_SHIFT, TR_ENTRY_WIDE};

/// What a ring holds at a position: slot, width bit and lap tag in one word, and the tick of its enqueue.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) word: u32,
    pub(super) tick: u32,
}

/// The rings, one for each priority. Positions count for ever, wrapping; a ring has room for every slot.
pub(super) struct Rings {
    capacity_log2: u32,
    pub(super) heads: [u32; TASK_PRIORITIES as usize],
    pub(super) tails: [u32; TASK_PRIORITIES as usize],
    entries: Vec<Entry>,
}

impl Rings {
    pub(super) fn new(capacity_log2: u32) -> Self {
        let entries = vec![Entry::default(); (TASK_PRIORITIES as usize) << capacity_log2];
        Self { capacity_log2, heads: Default::default(), tails: Default::default(), entries }
    }

    /// Empty rings that have been in use until every one of them stood at `position`.
    #[cfg(test)]
    pub(super) fn starting_at(capacity_log2: u32, position: u32) -> Self {
        let mut rings = Self::new(capacity_log2);
        for ring in 0..TASK_PRIORITIES {
            rings.heads[ring as usize] = position;
            rings.tails[ring as usize] = position;
            for back in 1..=1 << capacity_log2 {
                let used = position.wrapping_sub(back);
                let (at, word) = (rings.entry_index(ring, used), rings.lap(used) << TR_ENTRY_LAP_SHIFT);
                rings.entries[at].word = word;
            }
        }
        rings
    }

    pub(super) fn capacity_mask(&self) -> u32 {
        (1 << self.capacity_log2) - 1
    }

    fn entry_index(&self, ring: u32, position: u32) -> usize {
        ((ring << self.capacity_log2) + (position & self.capacity_mask())) as usize
    }

    fn lap(&self, position: u32) -> u32 {
        (position >> self.capacity_log2).wrapping_add(1) & TR_ENTRY_LAP_MASK
    }

    /// The entry at a position, if it was written in the position's lap (`tr_written`).
    pub(super) fn written(&self, ring: u32, position: u32) -> Option<Entry> {
        let entry = self.entries[self.entry_index(ring, position)];
        (entry.word >> TR_ENTRY_LAP_SHIFT == self.lap(position)).then_some(entry)
    }

    /// The wrapping sum of the heads. It counts claims, as the device's counter does, which with several shards would have too many heads to
    /// add up.
    pub(super) fn tick(&self) -> u32 {
        self.heads.iter().fold(0, |sum, head| sum.wrapping_add(*head))
    }

    /// Entries in all rings.
    pub(super) fn ready(&self) -> u32 {
        self.heads.iter().zip(&self.tails).fold(0, |sum, (head, tail)| sum.wrapping_add(tail.wrapping_sub(*head)))
    }

    /// Reserves a position and writes it: `tr_reserve_entries` and `tr_enqueue`. The device reserves partition by
    /// partition, in lane order within each; called lane by lane this gives everyone the same position.
    pub(super) fn enqueue(&mut self, ring: u32, slot: u32, wide: bool, tick: u32) {
        let position = self.tails[ring as usize];
        self.tails[ring as usize] = position.wrapping_add(1);
        let width = if wide { TR_ENTRY_WIDE } else { 0 };
        let at = self.entry_index(ring, position);
        self.entries[at] = Entry { word: slot | width | self.lap(position) << TR_ENTRY_LAP_SHIFT, tick };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::TR_INDEX_MASK;

    #[test]
    fn zeroed_memory_holds_no_entry_of_the_first_lap() {
        let rings = Rings::new(3);
        for ring in 0..TASK_PRIORITIES {
            assert!((0..8).all(|position| rings.written(ring, position).is_none()));
        }
    }

    #[test]
    fn an_entry_is_only_there_at_its_own_position_and_lap() {
        let mut rings = Rings::new(2);
        rings.enqueue(3, 7, true, 90);
        let entry = rings.written(3, 0).expect("it was just written");
        assert_eq!((entry.word & TR_INDEX_MASK, entry.word & TR_ENTRY_WIDE, entry.tick), (7, TR_ENTRY_WIDE, 90));
        assert!((1..=64).all(|position| rings.written(3, position).is_none()));
        assert!((0..64).all(|position| rings.written(2, position).is_none()));
    }

    #[test]
    fn a_ring_goes_on_where_its_positions_and_laps_wrap() {
        for capacity_log2 in [0, 1, 5] {
            let start = u32::MAX - 300;
            let mut rings = Rings::starting_at(capacity_log2, start);
            for step in 0..600 {
                let position = start.wrapping_add(step);
                assert!(rings.written(1, position).is_none(), "{position} before it is written");
                rings.enqueue(1, step & rings.capacity_mask(), false, step);
                assert_eq!(rings.written(1, position).map(|entry| entry.tick), Some(step));
                rings.heads[1] = rings.heads[1].wrapping_add(1);
                assert_eq!(rings.ready(), 0);
            }
        }
    }
}
