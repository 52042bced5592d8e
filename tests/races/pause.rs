//! A pause that races with a signal.
//!
//! What no wrong variant here can show:
//! - The fences around `dirty`. They order the hanging before whoever takes the word; loom's exchanges of bits and list follow it anyway.
//! - The release of `tr_pass_on` alone. The `tr_converge_and_pass_on` before it is behind the stores to `woken` as well, so only without both a fault is found.
//! - Of what `tr_behind` asks of an epoch before it trusts it, that both high words agree and that the low one does not go back. With the high word
//!   of `woken`, which was acquired, the halves make no epoch beyond the last one, and if one is too low, the signal that tore it is still to be heard.
//! - That who cannot read the epoch whole sets `dirty`. The epoch that was being stored has its signal yet to come.

#[path = "timeline.rs"]
mod timeline;

use std::rc::Rc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::Wrong::*;
use super::{LEFT_BEHIND, Memory, RACE, Setting, holds, is_found, only_weak_memory_shows};
use timeline::{EARLY, TORN, TWICE, Timeline, UNHEARD};

/// With any number CI would wait too long.
const PREEMPTIONS: Option<usize> = Some(4);

/// Each waiter has found its target ahead, and parks; the host signals; a worker looks.
fn pause_and_signal(setting: Setting, epochs: &'static [u64], target: u64, waiters: u32, turns: u32) {
    let timeline = Timeline::new(setting, epochs, epochs[0], target, waiters as usize);
    let parking = (1..=waiters).map(|slot| {
        let timeline = timeline.clone();
        thread::spawn(move || timeline.pause(slot))
    });
    let parking: Vec<_> = parking.collect();
    let worker = (turns > 0).then(|| timeline.worker(turns, 0));
    (1..epochs.len()).for_each(|number| timeline.signal(number as u32));
    parking.into_iter().for_each(|parking| parking.join().unwrap());
    timeline.end_slice(worker.map_or(UNHEARD, |worker| worker.join().unwrap()));
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

/// Whoever parks too late may take the other's task with its own.
fn two_late_waiters(setting: Setting) {
    pause_and_signal(setting, &[0, 1], 1, 2, 0);
}

fn a_carry(setting: Setting) {
    pause_and_signal(setting, &[0xffff_ffff, 1 << 32], 1 << 32, 1, 1);
}

/// The target is passed by, and halves of two epochs would look like it.
fn a_leap(setting: Setting) {
    pause_and_signal(setting, &[3, 1 << 32 | 5], 5, 1, 1);
}

/// One worker still wakes up to the first epoch, which has another high word than the one before it. Then comes the second, which has the low word
/// of the one before, and another worker looks.
fn woken_carries(setting: Setting) {
    let timeline = Timeline::new(setting, &[1 << 32, 1 << 32 | 0xffff_ffff], 0xffff_ffff, 1 << 32 | 0xffff_ffff, 1);
    timeline.pause(1);
    let first = timeline.worker(1, UNHEARD);
    let last_to_leave = timeline.worker(1, 0);
    timeline.signal(1);
    first.join().unwrap();
    timeline.end_slice(last_to_leave.join().unwrap());
}

/// Two workers look at an epoch that carries, and nobody waits.
fn two_wakers(setting: Setting) {
    let timeline = Timeline::new(setting, &[10, 1 << 32 | 5], 10, 0, 0);
    let workers = [timeline.worker(1, 0), timeline.worker(1, UNHEARD)];
    timeline.signal(1);
    workers.into_iter().for_each(|worker| _ = worker.join().unwrap());
}

/// A worker looks the whole wheel through, so that it takes two waiters before their time, and hangs them up again, while another one wakes them.
fn hung_up_again(setting: Setting) {
    let timeline = Timeline::new(setting, &[0, 1], 0, 1, 2);
    timeline.pause(1);
    timeline.pause(2);
    timeline.dirty.store(1);
    let first = timeline.worker(1, 0);
    let last_to_leave = timeline.worker(1, 0);
    timeline.signal(1);
    first.join().unwrap();
    timeline.end_slice(last_to_leave.join().unwrap());
}

/// A worker keeps a waiter for a turn, while another one wakes and the host signals.
fn kept_for_a_turn(setting: Setting) {
    let timeline = Timeline::new(setting, &[0, 1], 0, 1, 1);
    let words = Rc::new(UnsafeCell::new(()));
    let (its, kept) = (timeline.clone(), words.clone());
    let keeper = thread::spawn(move || its.keep(1, 1, &kept));
    let last_to_leave = timeline.worker(1, 0);
    words.with_mut(|_| ());
    timeline.signal(1);
    keeper.join().unwrap();
    timeline.end_slice(last_to_leave.join().unwrap());
}

#[test]
fn a_waiter_that_its_worker_kept_is_not_left_behind_when_it_lets_go() {
    holds(kept_for_a_turn, PREEMPTIONS);
    is_found(DirtyIsNotSet, Memory::Interleaved, kept_for_a_turn, PREEMPTIONS, LEFT_BEHIND);
    only_weak_memory_shows(WatchWithoutAcquire, kept_for_a_turn, PREEMPTIONS, RACE);
    only_weak_memory_shows(DueWithoutAcquire, kept_for_a_turn, PREEMPTIONS, RACE);
}

#[test]
fn a_waiter_is_never_left_behind_and_is_resumed_once() {
    holds(one_waiter, PREEMPTIONS);
    for wrong in [ParkWithoutAcquire, WakeWithoutRelease, SignalsUnfenced, BitWithoutRelease, BitsWithoutAcquire] {
        only_weak_memory_shows(wrong, one_waiter, PREEMPTIONS, LEFT_BEHIND);
    }
    // Plain interleavings show it.
    is_found(ParkLooksNoMore, Memory::Interleaved, one_waiter, PREEMPTIONS, LEFT_BEHIND);
    is_found(TakersMeet, Memory::Interleaved, one_waiter, PREEMPTIONS, TWICE);
}

#[test]
fn a_signal_that_follows_another_leaves_nobody_behind() {
    holds(a_signal_too_many, PREEMPTIONS);
}

#[test]
fn two_waiters_of_one_list_are_both_resumed() {
    holds(two_waiters, PREEMPTIONS);
    // Whoever hung a task up and whoever took it touch its slot at the same time. Of one waiter the list's bit tells enough.
    is_found(TakeWithoutAcquire, Memory::Weak, two_waiters, PREEMPTIONS, RACE);
}

#[test]
fn who_parks_too_late_takes_the_list_itself() {
    holds(two_late_waiters, PREEMPTIONS);
    for wrong in [HangWithoutRelease, RescueWithoutAcquire] {
        only_weak_memory_shows(wrong, two_late_waiters, PREEMPTIONS, RACE);
    }
}

#[test]
fn who_has_the_rest_of_a_list_has_the_wheel_looked_through() {
    holds(hung_up_again, PREEMPTIONS);
    is_found(DirtyIsNotSet, Memory::Interleaved, hung_up_again, PREEMPTIONS, LEFT_BEHIND);
}

#[test]
fn nobody_trusts_a_torn_epoch() {
    holds(a_carry, PREEMPTIONS);
    holds(a_leap, PREEMPTIONS);
    for wrong in [EpochStoresUnfenced, EpochLoadsUnfenced] {
        is_found(wrong, Memory::Weak, a_carry, PREEMPTIONS, TORN);
    }
    is_found(EpochUnchecked, Memory::Interleaved, a_carry, PREEMPTIONS, TORN);
    is_found(AnyHighIsTrusted, Memory::Interleaved, two_wakers, PREEMPTIONS, EARLY);
}

#[test]
fn who_wins_a_turn_has_seen_what_the_one_before_it_did() {
    holds(two_wakers, PREEMPTIONS);
    for wrong in [TurnAfterAcquire, TurnWithoutReleases, TurnNotCompared] {
        only_weak_memory_shows(wrong, two_wakers, PREEMPTIONS, EARLY);
    }
}

#[test]
fn a_torn_woken_pair_hides_a_waiter_unless_it_is_checked() {
    holds(woken_carries, PREEMPTIONS);
    for wrong in [CheckIgnored, LoserHears] {
        is_found(wrong, Memory::Interleaved, woken_carries, PREEMPTIONS, LEFT_BEHIND);
    }
}
