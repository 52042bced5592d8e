//! Which ring the next batch comes from, and the taking: the twin of `select.glsl`.

use super::rings::Rings;
use crate::abi::{TASK_PRIORITIES, TR_AGE_LIMIT, TR_ENTRY_WIDE, TR_INDEX_MASK};

/// Ticks since `then`; 0 if `then` is yet to come. Ticks wrap, so half of them lie ahead.
pub(super) fn age(tick: u32, then: u32) -> u32 {
    tick.wrapping_sub(then).cast_signed().max(0).cast_unsigned()
}

/// A batch that was taken from one ring, in lane order. If it is wide it is one task.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The tick at the claim, which the claim itself then moves on.
    pub(super) tick: u32,
    pub(super) slots: Vec<u32>,
}

impl Rings {
    /// How urgent the entry at a ring's head is, less is more; `None` if there is none.
    fn urgency(&self, ring: u32, tick: u32, aging_ticks: u32) -> Option<u32> {
        let entry = self.written(ring, self.heads[ring as usize])?;
        let age = age(tick, entry.tick).min(TR_AGE_LIMIT);
        Some((ring.wrapping_mul(aging_ticks).wrapping_add(TR_AGE_LIMIT - age) << 3) | ring)
    }

    /// Takes up to `batch` tasks from the ring with the most urgent head: the entries at its head up to the first that
    /// is wide, or one that is. Nobody competes, so a claim that finds something takes it.
    pub(super) fn claim(&mut self, aging_ticks: u32, batch: u32) -> Option<Claim> {
        let tick = self.tick();
        let urgency = (0..TASK_PRIORITIES).filter_map(|ring| self.urgency(ring, tick, aging_ticks)).min()?;
        let ring = urgency & 7;

        let head = self.heads[ring as usize];
        let prefix = (0..batch).map_while(|lane| self.written(ring, head.wrapping_add(lane)));
        let mut slots = Vec::new();
        for entry in prefix {
            let wide = entry.word & TR_ENTRY_WIDE != 0;
            if wide && !slots.is_empty() {
                break;
            }
            slots.push(entry.word & TR_INDEX_MASK);
            if wide {
                break;
            }
        }
        self.heads[ring as usize] = head.wrapping_add(slots.len() as u32);
        Some(Claim { tick, slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims of up to `batch` until nothing is left, as lists of slots.
    fn drain(rings: &mut Rings, aging_ticks: u32, batch: u32) -> Vec<Vec<u32>> {
        std::iter::from_fn(|| rings.claim(aging_ticks, batch).map(|claim| claim.slots)).collect()
    }

    #[test]
    fn empty_rings_give_no_claim() {
        assert_eq!(Rings::new(3).claim(16, 4), None);
    }

    #[test]
    fn of_the_same_age_the_more_urgent_partition_goes_first() {
        let mut rings = Rings::new(3);
        for ring in [4, 2, 0, 3, 1] {
            rings.enqueue(ring, ring, false, 0);
        }
        assert_eq!(drain(&mut rings, 1, 4), [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn a_wide_task_is_a_batch_of_its_own_and_ends_the_batch_before_it() {
        let mut rings = Rings::new(3);
        for (slot, wide) in [false, false, true, true, false, false, false].into_iter().enumerate() {
            rings.enqueue(2, slot as u32, wide, 0);
        }
        assert_eq!(drain(&mut rings, 1, 4), [vec![0, 1], vec![2], vec![3], vec![4, 5, 6]]);
    }

    #[test]
    fn a_batch_is_as_large_as_asked_for_and_no_larger_than_the_ring() {
        let mut rings = Rings::new(2);
        (0..4).for_each(|slot| rings.enqueue(0, slot, false, 0));
        assert_eq!(rings.claim(1, 3), Some(Claim { tick: 0, slots: vec![0, 1, 2] }));
        rings.enqueue(0, 0, false, 3);
        assert_eq!(rings.claim(1, 128), Some(Claim { tick: 3, slots: vec![3, 0] }));
        assert_eq!(rings.tick(), 5);
    }

    #[test]
    fn a_step_of_priority_weighs_as_much_as_the_aging_ticks() {
        for (age_of_low, first) in [(9, 1), (10, 1), (11, 2)] {
            let mut rings = Rings::starting_at(3, 1000);
            let tick = rings.tick();
            rings.enqueue(2, 2, false, tick.wrapping_sub(age_of_low));
            rings.enqueue(1, 1, false, tick);
            assert_eq!(rings.claim(10, 1).map(|claim| claim.slots), Some(vec![first]), "age {age_of_low}");
        }
    }

    #[test]
    fn age_is_counted_across_the_wrap_of_the_tick_and_is_zero_for_what_is_yet_to_come() {
        assert_eq!(age(3, u32::MAX - 1), 5);
        assert_eq!(age(7, 7), 0);
        assert_eq!(age(u32::MAX - 1, 3), 0);
        assert_eq!(age(0x7fff_ffff, 0), 0x7fff_ffff);
        assert_eq!(age(0x8000_0000, 0), 0);
    }
}
