//! What a pause and a signal are made of: a timeline's words, its wait list, its waiters, and what is done with them.

use std::cell::Cell;
use std::rc::Rc; // a model's threads are coroutines of one thread
use std::sync::atomic::Ordering::{Acquire, Release};

use loom::cell::UnsafeCell;
use loom::sync::atomic::fence;
use loom::thread::{self, JoinHandle};

use super::super::Wrong::*;
use super::super::{LEFT_BEHIND, Setting, Word};

pub(super) const TWICE: &str = "resumed twice";
pub(super) const TORN: &str = "torn epoch";
pub(super) const EARLY: &str = "woken for an epoch that has not come";
const NIL: u32 = 0;
/// Every slice looks, whatever was signalled before it.
pub(super) const UNHEARD: u32 = u32::MAX;
/// As `TR_WHEEL_BUCKETS`.
const BUCKETS: u32 = 256;

/// A waiter: its plain words, which only their owner touches, and how often it was resumed.
struct Slot {
    words: UnsafeCell<()>,
    next: Cell<u32>,
    resumed: Cell<u32>,
}

/// As `tr_woken_check`.
fn woken_check(woken: u64) -> u32 {
    (woken as u32).wrapping_mul(0x9e37_79b1).wrapping_add(((woken >> 32) as u32).wrapping_mul(0x85eb_ca6b))
}

pub(super) struct Timeline {
    setting: Setting,
    epochs: &'static [u64],
    /// What all waiters wait for: they hang in one list.
    target: u64,
    /// Whether the high words change: of the epoch, and of `woken`.
    carries: (bool, bool),
    epoch: [Word; 3], // hi_first, lo, hi
    /// The last epoch whose stores have begun: for the checks alone.
    reached: Cell<u64>,
    signals: Word,
    woken: [Word; 3], // lo, hi, check
    turn: Word,
    pub(super) dirty: Word,
    bits: Word,
    list: Word,
    slots: Vec<Slot>,
}

impl Timeline {
    /// With the first of the epochs signalled, and the waiters up to `woken` resumed.
    pub(super) fn new(setting: Setting, epochs: &'static [u64], woken: u64, target: u64, slots: usize) -> Rc<Self> {
        let (epoch, hi) = (epochs[0], epochs[0] >> 32);
        let carries = epochs.iter().any(|epoch| epoch >> 32 != hi);
        let slot = |_| Slot { words: UnsafeCell::new(()), next: Cell::new(NIL), resumed: Cell::new(0) };
        Rc::new(Self {
            setting,
            epochs,
            target,
            carries: (carries, carries || woken >> 32 != hi),
            epoch: [hi, epoch, hi].map(|value| setting.word(value)),
            reached: Cell::new(epoch),
            signals: setting.word(0),
            woken: [woken, woken >> 32, woken_check(woken).into()].map(|value| setting.word(value)),
            turn: setting.word(0),
            dirty: setting.word(0),
            bits: setting.word(1),
            list: setting.word(NIL.into()),
            slots: (0..slots).map(slot).collect(),
        })
    }

    /// `write_epoch` and the end of `Tables::flush`.
    pub(super) fn signal(&self, number: u32) {
        let epoch = self.epochs[number as usize];
        self.reached.set(epoch);
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

    /// A list of tasks that this actor took, each placed by `tr_dispose`; the epoch that it knows has come, if it knows one.
    fn place(&self, first: u32, known: Option<u64>) {
        let mut slot = first;
        while slot != NIL {
            let Slot { words, next, resumed } = self.slot(slot);
            let mut rest = words.with(|_| next.get());
            let reached = |epoch| epoch >= self.target;
            if known.is_some_and(reached) || self.read_epoch().is_some_and(reached) {
                resumed.set(resumed.get() + 1);
            } else {
                self.park(slot, &mut rest);
            }
            slot = rest;
        }
    }

    /// A task pauses that was in no list; its epoch has not come as far as this actor has seen.
    pub(super) fn pause(&self, slot: u32) {
        let mut rest = NIL;
        self.park(slot, &mut rest);
        self.place(rest, None);
    }

    /// `tr_hold`, `tr_run_due` or `tr_watch` as often as this, and `tr_let_go`. The task reads the words that were written before the signal.
    pub(super) fn keep(&self, slot: u32, looks: u32, words: &UnsafeCell<()>) {
        let runs = || {
            let resumed = &self.slot(slot).resumed;
            resumed.set(resumed.get() + 1);
            words.with(|_| ());
        };
        let has_come = || u64::from(self.epoch[1].load()) >= self.target;
        let mut watched = 0;
        for _ in 0..looks {
            let signals = self.signals.load();
            if has_come() {
                // Pairs with the release before the epoch, in `signal`.
                self.setting.fence_unless(DueWithoutAcquire, Acquire);
                return runs();
            }
            if signals != watched {
                watched = signals;
                // Pairs with the release before the number, in `signal`.
                self.setting.fence_unless(WatchWithoutAcquire, Acquire);
                if has_come() {
                    return runs();
                }
            }
        }
        self.park(slot, &mut { slot });
    }

    /// The rest of `tr_dispose`, and `tr_park`.
    fn park(&self, slot: u32, rest: &mut u32) {
        let Slot { words, next, .. } = self.slot(slot);
        words.with_mut(|_| ());
        // Pairs with the last acquire in `empty` and the one below, as the one in the loop.
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
        // Pairs with the acquire between bits and list, in `empty`.
        self.setting.fence_unless(BitWithoutRelease, Release);
        self.bits.and(!1);
        // Pairs with the fence before `empty`: if its exchange came first, we see the epoch that it saw.
        self.setting.fence_unless(ParkWithoutAcquire, Acquire);
        if self.setting.wrong == ParkLooksNoMore {
            return;
        }
        let epoch = self.read_epoch();
        if epoch.is_some_and(|epoch| epoch < self.target) {
            return;
        }
        if epoch.is_some() && *rest == NIL {
            *rest = self.take();
            // Pairs with the releases above, of every slot in the list.
            self.setting.fence_unless(RescueWithoutAcquire, Acquire);
        } else if self.setting.wrong != DirtyIsNotSet {
            // `tr_set_dirty`
            fence(Release); // pairs with the fence before `empty`
            self.dirty.exchange(1);
        }
    }

    /// A list has two that may take it: who empties the wheel, and who parked in it too late.
    fn take(&self) -> u32 {
        if self.setting.wrong != TakersMeet {
            return self.list.exchange(NIL);
        }
        let first = self.list.load();
        self.list.store(NIL);
        first
    }

    /// `tr_empty`: the list that it takes; after a fence that acquires and releases.
    fn empty(&self, looks_here: bool) -> u32 {
        let mut first = NIL;
        if looks_here && self.bits.exchange(1) & 1 == 0 {
            // Pairs with the release between list and bit, in `park`.
            self.setting.fence_unless(BitsWithoutAcquire, Acquire);
            // loom's exchange takes the last value that was written. One that comes before the hanging in the list's order is this load.
            if self.list.load() != NIL {
                first = self.take();
            }
        }
        // `tr_pass_on`. Pairs with the releases in `park`, of every slot in the list.
        self.setting.fence_unless(TakeWithoutAcquire, Acquire);
        // And with the acquire of who finds `turn` even.
        self.setting.fence_unless(TurnWithoutReleases, Release);
        first
    }

    /// `woken`, and whether its check matches.
    fn read_woken(&self) -> (u64, bool) {
        let [lo, hi, check] = &self.woken;
        let lo = u64::from(lo.load());
        if !self.carries.1 {
            return (self.epochs[0] >> 32 << 32 | lo, true);
        }
        let woken = u64::from(hi.load()) << 32 | lo;
        let whole = check.load() == woken_check(woken);
        (woken, whole || self.setting.wrong == CheckIgnored)
    }

    /// `tr_behind`: `woken`, and the epoch if it is certain.
    fn behind(&self) -> (u64, Option<u64>) {
        let (woken, whole) = self.read_woken();
        let [hi_first, lo, hi] = &self.epoch;
        let lo = u64::from(lo.load());
        let hi = if self.carries.0 { u64::from(hi.load()) } else { self.epochs[0] >> 32 };
        let agree = !self.carries.0 || u64::from(hi_first.load()) == hi;
        let trusted =
            agree && (hi == woken >> 32 || self.setting.wrong == AnyHighIsTrusted) && lo >= woken & 0xffff_ffff;
        let epoch = if trusted { Some(hi << 32 | lo) } else { self.read_epoch() };
        (woken, epoch.filter(|_| whole))
    }

    /// `tr_wake`, with the news that `tr_listen` has.
    fn wake(&self, heard: &mut u32) {
        let late = self.setting.wrong == TurnAfterAcquire;
        let signals = self.signals.load();
        let early = (!late).then(|| self.turn.load());
        let dirty = self.dirty.load();
        if signals == *heard && dirty == 0 {
            return;
        }
        // Pairs with the release before the number, in `signal`; and with the one before `turn` became even.
        fence(Acquire);
        // `tr_take_dirty`
        let mut whole = dirty != 0 && self.dirty.exchange(0) != 0;
        let turn = early.unwrap_or_else(|| self.turn.load());
        let (woken, epoch) = self.behind();
        let mut all = epoch == Some(woken);
        let won = epoch.filter(|&epoch| epoch != woken && turn & 1 == 0 && self.win(turn));
        let mut buckets = 0;
        if let Some(epoch) = won {
            assert!(epoch <= self.reached.get(), "{EARLY}: {epoch:#x}");
            all = true;
            buckets = (epoch as u32).wrapping_sub(woken as u32);
            whole |= epoch.wrapping_sub(woken) > BUCKETS.into();
            let [lo, hi, check] = &self.woken;
            lo.store(epoch as u32);
            if self.carries.1 {
                hi.store((epoch >> 32) as u32);
                check.store(woken_check(epoch));
            }
        }
        let from = (self.target as u32).wrapping_sub((woken as u32).wrapping_add(1)) % BUCKETS;
        let mut taken = NIL;
        if whole || won.is_some() {
            // `tr_converge_and_pass_on`. Pairs with the release before `dirty` was set,
            fence(Acquire);
            // and with the acquire in `park`. It is behind the stores to `woken`, so that these are two releases before `turn` is even.
            if self.setting.wrong != TurnWithoutReleases {
                self.setting.fence_unless(WakeWithoutRelease, Release);
            }
            taken = self.empty(whole || from < buckets);
        }
        if won.is_some() {
            self.turn.store(turn.wrapping_add(2));
        }
        if all || self.setting.wrong == LoserHears {
            *heard = signals;
        }
        self.place(taken, won.filter(|_| !whole));
    }

    /// One worker wakes a timeline, others pass by.
    fn win(&self, turn: u32) -> bool {
        if self.setting.wrong == TurnNotCompared {
            self.turn.store(turn + 1);
            return true;
        }
        self.turn.compare_exchange(turn, turn + 1)
    }

    /// A worker's turns; what it has heard, if it is the last one to leave.
    pub(super) fn worker(self: &Rc<Self>, turns: u32, heard: u32) -> JoinHandle<u32> {
        let timeline = self.clone();
        thread::spawn(move || {
            let mut heard = heard;
            (0..turns).for_each(|_| timeline.wake(&mut heard));
            heard
        })
    }

    /// The exit record is read (`State::harvest`), and the next slice runs if there is to be one.
    pub(super) fn end_slice(&self, heard: u32) {
        if heard != self.signals.load() || self.dirty.load() != 0 {
            self.wake(&mut { UNHEARD });
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
