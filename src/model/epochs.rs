//! Paused tasks and the epochs that they wait for: the twin of `epochs.glsl`.

use crate::abi::{SlotMeta, TR_NIL, TR_WHEEL_BUCKETS, wheel_lists};

/// The 64-bit epoch that a 32-bit `resume_epoch` means: of those that end in these 32 bits the nearest to `epoch` that
/// is not below zero. Up to 2^31 behind is "already reached".
pub(crate) fn target(epoch: u64, resume_epoch: u32) -> u64 {
    let ahead = resume_epoch.wrapping_sub(epoch as u32).cast_signed();
    match u64::try_from(ahead) {
        Ok(ahead) => epoch.wrapping_add(ahead),
        Err(_) => epoch.checked_sub(ahead.unsigned_abs().into()).unwrap_or(resume_epoch.into()),
    }
}

/// The bucket that a waiter hangs in. Timelines share the wheel, each from another start.
pub(super) fn bucket(timeline: u32, epoch_lo: u32) -> u32 {
    epoch_lo.wrapping_add(timeline * 37)
}

/// One timeline: where it is, and up to where its waiters have been woken.
#[derive(Clone, Copy, Default)]
pub(super) struct Timeline {
    pub(super) epoch: u64,
    pub(super) woken: u64,
    /// Its generation, or the fault code of whoever waits for it.
    pub(super) status: u32,
}

/// The heads of the wait lists; a slot's `next` continues its list.
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// Lists of a bucket.
    pub(super) lists: u32,
}

impl Wheel {
    pub(super) fn new(capacity: u32) -> Self {
        let lists = wheel_lists(capacity);
        Self { heads: vec![TR_NIL; (TR_WHEEL_BUCKETS * lists) as usize], lists }
    }

    /// Index of a list of a bucket.
    pub(super) fn list(&self, bucket: u32, sublist: u32) -> usize {
        (bucket % TR_WHEEL_BUCKETS * self.lists + sublist % self.lists) as usize
    }

    /// Empties the wheel's `index`th 32 lists, as many at a time as there are lanes, and gives the first slots of those that were not empty.
    pub(super) fn take_lists(&mut self, index: u32, lanes: u32) -> Vec<Vec<u32>> {
        let first = index as usize * 32 % self.heads.len();
        let lists = self.heads[first..first + 32].chunks_mut(lanes as usize);
        let taken = lists.map(|heads| heads.iter_mut().map(|head| std::mem::replace(head, TR_NIL)));
        let groups = taken.map(|slots| slots.filter(|slot| *slot != TR_NIL).collect::<Vec<_>>());
        groups.filter(|slots| !slots.is_empty()).collect()
    }

    /// Hangs a slot at the front of a list.
    pub(super) fn hang(&mut self, list: usize, slot: u32, metas: &mut [SlotMeta]) {
        metas[slot as usize].next = std::mem::replace(&mut self.heads[list], slot);
    }

    /// Every slot that hangs in some list.
    #[cfg(test)]
    pub(super) fn waiters(&self, metas: &[SlotMeta]) -> Vec<u32> {
        let mut slots = Vec::new();
        for head in &self.heads {
            let mut node = *head;
            while node != TR_NIL {
                slots.push(node);
                node = metas[node as usize].next;
            }
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `tr_target`, word for word.
    fn target_in_words(epoch: u64, resume_epoch: u32) -> u64 {
        let (lo, hi) = (epoch as u32, (epoch >> 32) as u32);
        let of = |hi: u32| u64::from(hi) << 32 | u64::from(resume_epoch);
        let ahead = resume_epoch.wrapping_sub(lo) as i32 >= 0;
        match (ahead, resume_epoch) {
            (true, resume) if resume < lo => of(hi.wrapping_add(1)),
            (false, resume) if resume > lo && hi > 0 => of(hi - 1),
            _ => of(hi),
        }
    }

    fn near_a_wrap() -> impl Strategy<Value = u32> {
        prop_oneof![any::<u32>(), 0..4u32, Just(u32::MAX), (0..4u32).prop_map(|n| (1 << 31) - 2 + n)]
    }

    proptest! {
        #[test]
        fn a_target_is_what_the_words_of_the_device_make_it(
            hi in near_a_wrap(),
            lo in near_a_wrap(),
            off in near_a_wrap(),
        ) {
            let epoch = u64::from(hi) << 32 | u64::from(lo);
            for resume_epoch in [off, lo.wrapping_add(off)] {
                prop_assert_eq!(target(epoch, resume_epoch), target_in_words(epoch, resume_epoch));
            }
        }

        #[test]
        fn no_other_epoch_with_these_low_bits_is_nearer(
            epoch in 0..u64::MAX - (1 << 33),
            resume_epoch in near_a_wrap(),
        ) {
            let target = target(epoch, resume_epoch);
            prop_assert_eq!(target as u32, resume_epoch);
            for other in [target.checked_sub(1 << 32), target.checked_add(1 << 32)].into_iter().flatten() {
                prop_assert!(target.abs_diff(epoch) <= other.abs_diff(epoch));
            }
        }
    }

    #[test]
    fn half_a_lap_behind_is_reached_and_one_less_than_half_a_lap_ahead_is_not() {
        let epoch = 5 << 32 | 10;
        assert_eq!(target(epoch, 10), epoch);
        assert_eq!(target(epoch, 10 + (1 << 31)), epoch - (1 << 31));
        assert_eq!(target(epoch, 9 + (1 << 31)), epoch + (1 << 31) - 1);
        assert_eq!(target(10, 10 + (1 << 31)), 10 + (1 << 31), "below zero there is no epoch");
    }

    #[test]
    fn a_list_is_emptied_at_once_and_its_last_waiter_comes_first() {
        let mut wheel = Wheel::new(4);
        let mut metas = [SlotMeta::default(); 4];
        for slot in [2, 0, 3] {
            wheel.hang(wheel.list(bucket(1, 6), 0), slot, &mut metas);
        }
        assert_eq!(wheel.waiters(&metas), [3, 0, 2]);
        assert_eq!(wheel.take_lists(bucket(1, 6), 8), [[3]]);
        assert_eq!(wheel.waiters(&metas), []);
    }
}
