//! A pause that races with a signal.

use std::cell::Cell;
use std::rc::Rc; // a model's threads are coroutines of one thread
use std::sync::atomic::Ordering::{Acquire, Release};

use loom::cell::UnsafeCell;
use loom::sync::atomic::fence;
use loom::thread::{self, JoinHandle};

use super::Wrong::*;
use super::{LEFT_BEHIND, Memory, RACE, Setting, Word, fault, holds, is_found, only_weak_memory_shows};

const TWICE: &str = "resumed twice";
const TORN: &str = "torn epoch";
const NIL: u32 = 0;
/// As `TR_WHEEL_BUCKETS`.
const BUCKETS: u32 = 256;

/// A waiter: its plain words, which only their owner touches, and how often it was resumed.
struct Slot {
    words: UnsafeCell<()>,
    next: Cell<u32>,
    resumed: Cell<u32>,
}

struct Timeline {
    setting: Setting,
    epochs: &'static [u64],
    /// What all waiters wait for: they hang in one list.
    target: u64,
    /// Whether the high words change: of the epoch, and of `woken`.
    carries: (bool, bool),
    epoch: [Word; 3], // hi_first, lo, hi
    signals: Word,
    woken: [Word; 2], // lo, hi
    busy: Word,
    dirty: Word,
    dirties: Word,
    list: Word,
    slots: Vec<Slot>,
}

impl Timeline {
    /// With the first of the epochs signalled, and the waiters up to `woken` resumed.
    fn new(setting: Setting, epochs: &'static [u64], woken: u64, target: u64, slots: usize) -> Rc<Self> {
        let (epoch, hi) = (epochs[0], epochs[0] >> 32);
        let carries = epochs.iter().any(|epoch| epoch >> 32 != hi);
        let slot = |_| Slot { words: UnsafeCell::new(()), next: Cell::new(NIL), resumed: Cell::new(0) };
        Rc::new(Self {
            setting,
            epochs,
            target,
            carries: (carries, carries || woken >> 32 != hi),
            epoch: [hi, epoch, hi].map(|value| setting.word(value)),
            signals: setting.word(0),
            woken: [woken, woken >> 32].map(|value| setting.word(value)),
            busy: setting.word(0),
            dirty: setting.word(0),
            dirties: setting.word(0),
            list: setting.word(NIL.into()),
            slots: (0..slots).map(slot).collect(),
        })
    }

    /// `write_epoch` and the end of `Tables::flush`.
    fn signal(&self, number: u32) {
        let epoch = self.epochs[number as usize];
        let [hi_first, lo, hi] = &self.epoch;
        for (word, value, changes) in
            [(hi_first, epoch >> 32, self.carries.0), (lo, epoch, true), (hi, epoch >> 32, self.carries.0)]
        {
            if changes {
                // Each store before the next: pairs with the acquires in `read_epoch`.
                self.setting.fence_unless(EpochStoresUnfenced, Release);
                word.store(value as u32);
            }
        }
        // Pairs with the acquire in `wake`, after the number was seen.
        self.setting.fence_unless(SignalsUnfenced, Release);
        self.signals.store(number);
    }

    /// `tr_epoch`.
    fn read_epoch(&self) -> Option<u64> {
        let [hi_first, lo, hi] = &self.epoch;
        // Without high words it is one load, and nothing leans on the fences between them.
        let fence_between = || {
            if self.carries.0 {
                self.setting.fence_unless(EpochLoadsUnfenced, Acquire)
            }
        };
        let hi = if self.carries.0 { hi.load() } else { (self.epochs[0] >> 32) as u32 };
        fence_between(); // this and the next pair with the releases in `signal`
        let epoch = u64::from(hi) << 32 | u64::from(lo.load());
        fence_between();
        if self.carries.0 && hi_first.load() != hi && self.setting.wrong != EpochUnchecked {
            return None;
        }
        assert!(self.epochs.contains(&epoch), "{TORN}: {epoch:#x}");
        Some(epoch)
    }

    /// `tr_dispose` of a paused task whose slot this actor owns.
    fn dispose(&self, slot: u32) {
        let Slot { words, resumed, .. } = self.slot(slot);
        words.with(|_| ()); // the task is read
        if self.read_epoch().is_some_and(|epoch| epoch >= self.target) {
            return resumed.set(resumed.get() + 1);
        }
        self.park(slot);
    }

    /// The rest of `tr_dispose`, and `tr_park`.
    fn park(&self, slot: u32) {
        let Slot { words, next, .. } = self.slot(slot);
        words.with_mut(|_| ());
        // Pairs with the acquire in `wake_timeline`, as the one in the loop.
        self.setting.fence_unless(HangWithoutRelease, Release);
        // `tr_hang`
        loop {
            let head = self.list.load();
            words.with_mut(|_| next.set(head));
            self.setting.fence_unless(HangWithoutRelease, Release);
            if self.list.compare_exchange(head, slot) {
                break;
            }
        }
        // Pairs with the release in `wake_timeline`: if its exchange came first, we see the epoch that it saw.
        self.setting.fence_unless(ParkWithoutAcquire, Acquire);
        let looks = self.setting.wrong != ParkLooksNoMore;
        if looks && self.read_epoch().is_none_or(|epoch| epoch >= self.target) {
            self.set_dirty();
        }
    }

    /// `tr_set_dirty`.
    fn set_dirty(&self) {
        fence(Release); // pairs with the acquire in `take_dirty`
        if self.dirty.exchange(1) == 0 {
            self.dirties.add(1);
        }
    }

    /// `tr_take_dirty`.
    fn take_dirty(&self) -> bool {
        let dirty = self.dirty.exchange(0) != 0;
        if dirty {
            self.dirties.add(u32::MAX);
        }
        fence(Acquire); // pairs with the release in `set_dirty`
        dirty
    }

    /// High before low, against the order of the stores, and fenced from it: a high word from one store with a low one from an earlier store would
    /// look like an epoch to which nobody woke anyone. `tr_woken`.
    fn read_woken(&self) -> u64 {
        let [lo, hi] = &self.woken;
        let low_first = (self.setting.wrong == WokenUnordered).then(|| lo.load());
        let hi = if self.carries.1 { hi.load() } else { (self.epochs[0] >> 32) as u32 };
        if self.carries.1 {
            self.setting.fence_unless(WokenUnordered, Acquire); // pairs with the release between the stores
        }
        u64::from(hi) << 32 | u64::from(low_first.unwrap_or_else(|| lo.load()))
    }

    /// `tr_wake_timeline`.
    fn wake_timeline(&self) -> bool {
        // Both `busy` and the exchange below see to it that a list has one taker.
        let meet = self.setting.wrong == TakersMeet;
        if !self.busy.compare_exchange(0, 1) && !meet {
            return false;
        }
        fence(Acquire); // pairs with the release before `busy` is cleared
        let woken = self.read_woken();
        let dirty = self.take_dirty();
        let Some(epoch) = self.read_epoch() else {
            if dirty {
                self.set_dirty();
            }
            self.busy.store(0);
            return false;
        };
        let lapped = epoch - woken > BUCKETS.into();
        let buckets = if dirty || lapped { BUCKETS } else { (epoch - woken) as u32 };
        let first = (woken as u32).wrapping_add(1);
        if (self.target as u32).wrapping_sub(first) % BUCKETS < buckets {
            // Pairs with the acquire in `park`.
            self.setting.fence_unless(WakeWithoutRelease, Release);
            let mut slot = if meet { self.list.load() } else { self.list.exchange(NIL) };
            if meet {
                self.list.store(NIL);
            }
            // Pairs with the release in `park`, of every slot in the list.
            self.setting.fence_unless(TakeWithoutAcquire, Acquire);
            while slot != NIL {
                let Slot { words, next, .. } = self.slot(slot);
                let next = words.with(|_| next.get());
                self.dispose(slot);
                slot = next;
            }
        }
        self.woken[0].store(epoch as u32);
        if self.carries.1 {
            self.setting.fence_unless(WokenUnordered, Release); // pairs with the acquire in `read_woken`
            self.woken[1].store((epoch >> 32) as u32);
        }
        fence(Release); // pairs with the acquire of whoever finds `busy` at 0
        self.busy.store(0);
        true
    }

    /// `tr_wake`, with the news that `tr_listen` has.
    fn wake(&self, heard: &mut u32) {
        let (signals, dirties) = (self.signals.load(), self.dirties.load());
        if signals == *heard && dirties == 0 {
            return;
        }
        fence(Acquire); // pairs with the release before the number, in `signal`
        let woken = self.read_woken();
        let behind = self.read_epoch() != Some(woken) || self.dirty.load() != 0;
        if !behind || self.wake_timeline() {
            *heard = signals;
        }
    }

    /// A worker's turns; what it has heard, if it is the last one to leave. It knows of the first epoch.
    fn worker(self: &Rc<Self>, turns: u32) -> JoinHandle<u32> {
        let timeline = self.clone();
        thread::spawn(move || {
            let mut heard = 0;
            (0..turns).for_each(|_| timeline.wake(&mut heard));
            heard
        })
    }

    /// The exit record is read (`State::harvest`), and the next slice runs if there is to be one.
    fn end_slice(&self, heard: u32) {
        if heard != self.signals.load() || self.dirties.load() != 0 {
            let mut unheard = u32::MAX;
            self.wake(&mut unheard);
        }
        for slot in &self.slots {
            assert_ne!(slot.resumed.get(), 0, "{LEFT_BEHIND}");
            assert_eq!(slot.resumed.get(), 1, "{TWICE}");
        }
    }

    fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize - 1]
    }
}

/// Each waiter has found its target ahead, and parks; the host signals; a worker looks.
fn pause_and_signal(setting: Setting, epochs: &'static [u64], target: u64, waiters: u32, turns: u32) {
    let timeline = Timeline::new(setting, epochs, epochs[0], target, waiters as usize);
    let parking = (1..=waiters).map(|slot| {
        let timeline = timeline.clone();
        thread::spawn(move || timeline.park(slot))
    });
    let parking: Vec<_> = parking.collect();
    let worker = timeline.worker(turns);
    (1..epochs.len()).for_each(|number| timeline.signal(number as u32));
    parking.into_iter().for_each(|parking| parking.join().unwrap());
    timeline.end_slice(worker.join().unwrap());
}

fn one_waiter(setting: Setting) {
    pause_and_signal(setting, &[0, 1], 1, 1, 2);
}

fn a_signal_too_many(setting: Setting) {
    pause_and_signal(setting, &[0, 1, 2], 1, 1, 1);
}

fn two_waiters(setting: Setting) {
    pause_and_signal(setting, &[0, 1], 1, 2, 1);
}

fn a_carry(setting: Setting) {
    pause_and_signal(setting, &[0xffff_ffff, 1 << 32], 1 << 32, 1, 1);
}

/// One worker still wakes up to the first epoch, which has another high word than the one before it. Then comes the second, which has the low word
/// of the one before, and another worker looks.
fn woken_carries(setting: Setting) {
    let timeline = Timeline::new(setting, &[1 << 32, 1 << 32 | 2], 2, 1 << 32 | 2, 1);
    timeline.park(1);
    let first = timeline.clone();
    let first = thread::spawn(move || first.wake_timeline());
    let last_to_leave = timeline.worker(1);
    timeline.signal(1);
    first.join().unwrap();
    timeline.end_slice(last_to_leave.join().unwrap());
}

#[test]
fn a_waiter_is_never_left_behind_and_is_resumed_once() {
    holds(one_waiter);
    for wrong in [ParkWithoutAcquire, WakeWithoutRelease, SignalsUnfenced] {
        only_weak_memory_shows(wrong, one_waiter, LEFT_BEHIND);
    }
    // Whoever hung the task up and whoever took it touch its slot at the same time.
    for wrong in [HangWithoutRelease, TakeWithoutAcquire] {
        only_weak_memory_shows(wrong, one_waiter, RACE);
    }
    // Plain interleavings show it.
    is_found(ParkLooksNoMore, Memory::Interleaved, one_waiter, LEFT_BEHIND);
    is_found(TakersMeet, Memory::Interleaved, woken_carries, TWICE);
}

#[test]
fn a_signal_that_follows_another_leaves_nobody_behind() {
    holds(a_signal_too_many);
}

#[test]
fn two_waiters_of_one_list_are_both_resumed() {
    // With any number it would take minutes.
    assert_eq!(fault(Nothing, Memory::Weak, two_waiters, Some(3)), None);
}

#[test]
fn nobody_trusts_a_torn_epoch() {
    holds(a_carry);
    for wrong in [EpochStoresUnfenced, EpochLoadsUnfenced] {
        is_found(wrong, Memory::Weak, a_carry, TORN);
    }
    is_found(EpochUnchecked, Memory::Interleaved, a_carry, TORN);
}

#[test]
fn a_torn_woken_pair_hides_a_waiter_unless_its_high_word_is_read_first() {
    holds(woken_carries);
    is_found(WokenUnordered, Memory::Interleaved, woken_carries, LEFT_BEHIND);
}
