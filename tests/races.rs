//! Two protocols without locks between host and device, explored by loom: every interleaving of a few actors (of the pause's, with up to four preemptions), and every old value that a
//! relaxed load may return. Plain interleavings would prove too much: the kernel has relaxed atomics and fences, and nothing that is sequentially
//! consistent. So each model also runs with one thing wrong, and must find it; where weak memory alone brings it out, the same wrong model passes
//! under plain interleavings, which is checked as well.
//!
//! *A pause that races with a signal*: `tr_dispose`, `tr_run_due`, `tr_hears`, `tr_watch`, `tr_let_go`, `tr_park`, `tr_hang`, `tr_set_dirty`, `tr_take_dirty`, `tr_epoch`, `tr_behind`, `tr_empty` and
//! `tr_wake` (glsl/) against `write_epoch` and `Tables::flush` (src/runtime/tables.rs). *A submission that races with a slice's end*:
//! `tr_listen`, `tr_admit` and `tr_leave` against `Mailbox::publish`, `State::harvest`, `Driver::step`, `Inner::step` and the keeper.
//!
//! What is left out. A worker is one lane: `tr_converge_and_pass_on` is its two fences. There is one timeline, one wait list with its bit, and one line. What a
//! worker took it places at once, and never hands over. Nothing is counted, nobody cancels, and no command buffer writes an epoch. `tr_park` has as many
//! attempts as it needs. A worker takes one or two turns; the last one's `tr_heard` and `DIRTY` go into an exit record, and the next slice, if there is
//! one, comes when all is quiet. High words of an epoch are modelled only where they change. A second slice runs to its end at once: what it can
//! race with was published before it. The keeper's clock, slices that follow a running one, cuts and recovery, laps and a full ring are not here.
//! Plain data are cells whose races loom reports. `store_fence` is a release fence: what `sfence` adds for write-combining memory, and whether
//! the fences of host and device order each other at all, no model of Rust's memory can say. loom does not let a load read a store that is made
//! later, and a read-modify-write, also a compare-and-swap that fails, reads the last value. The models of a pause bound the preemptions, to four.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

#[path = "races/pause.rs"]
mod pause;
#[path = "races/submission.rs"]
mod submission;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{self, AcqRel, Relaxed};
use std::sync::{Mutex, PoisonError};

use loom::sync::atomic::{AtomicU32, fence};

/// What a load may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// Whatever coherence and fences allow.
    Weak,
    /// The last value, and with it all that was done before.
    Interleaved,
}

/// The one thing that is wrong in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    // A pause and a signal.
    ParkLooksNoMore,
    ParkWithoutAcquire,
    WakeWithoutRelease,
    HangWithoutRelease,
    BitWithoutRelease,
    BitsWithoutAcquire,
    TakeWithoutAcquire,
    RescueWithoutAcquire,
    TakersMeet,
    DirtyIsNotSet,
    SignalsUnfenced,
    EpochStoresUnfenced,
    EpochLoadsUnfenced,
    EpochUnchecked,
    AnyHighIsTrusted,
    TurnAfterAcquire,
    TurnWithoutReleases,
    TurnNotCompared,
    CheckIgnored,
    LoserHears,
    WatchWithoutAcquire,
    DueWithoutAcquire,
    // A submission and a slice's end.
    TailUnfenced,
    AdmitWithoutAcquire,
    ExitWithoutRelease,
    HarvestIgnoresTheTail,
    BusyDriverIsLeftAlone,
    KeeperIsNotTold,
}
use Wrong::*;

#[derive(Clone, Copy, Debug)]
struct Setting {
    wrong: Wrong,
    memory: Memory,
}

impl Setting {
    fn word(self, value: u64) -> Word {
        Word(AtomicU32::new(value as u32), self.memory)
    }

    fn fence_unless(self, wrong: Wrong, ordering: Ordering) {
        if self.wrong != wrong {
            fence(ordering);
        }
    }
}

/// A word that many actors see, used as memory.glsl does: relaxed. Under plain interleavings each access is a read-modify-write that acquires and
/// releases: it reads the last value, and orders everything.
struct Word(AtomicU32, Memory);

impl Word {
    fn ordering(&self) -> Ordering {
        if self.1 == Memory::Weak { Relaxed } else { AcqRel }
    }

    fn load(&self) -> u32 {
        if self.1 == Memory::Weak { self.0.load(Relaxed) } else { self.0.fetch_or(0, AcqRel) }
    }

    fn store(&self, value: u32) {
        if self.1 == Memory::Weak { self.0.store(value, Relaxed) } else { _ = self.exchange(value) }
    }

    fn exchange(&self, value: u32) -> u32 {
        self.0.swap(value, self.ordering())
    }

    fn add(&self, value: u32) {
        self.0.fetch_add(value, self.ordering());
    }

    fn and(&self, value: u32) {
        self.0.fetch_and(value, self.ordering());
    }

    fn compare_exchange(&self, expected: u32, value: u32) -> bool {
        self.0.compare_exchange(expected, value, self.ordering(), self.ordering()).is_ok()
    }
}

type Actors = fn(Setting);

/// What loom finds first, if it finds anything; with so many preemptions at most, or with any number.
fn fault(wrong: Wrong, memory: Memory, actors: Actors, preemptions: Option<usize>) -> Option<String> {
    // Each run maps stacks and unmaps them, which threads of one process can only do in turn, and slowly.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    let explore = || model.check(move || actors(Setting { wrong, memory }));
    let panic = catch_unwind(AssertUnwindSafe(explore)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).or_else(|| Some("panic".to_owned()))
}

fn holds(actors: Actors, preemptions: Option<usize>) {
    assert_eq!(fault(Nothing, Memory::Weak, actors, preemptions), None);
}

/// The model finds it, as this fault.
fn is_found(wrong: Wrong, memory: Memory, actors: Actors, preemptions: Option<usize>, expected: &str) {
    let fault = fault(wrong, memory, actors, preemptions);
    assert!(fault.as_ref().is_some_and(|fault| fault.contains(expected)), "{wrong:?}, {memory:?}: {fault:?}");
}

/// Weak memory alone brings it out.
fn only_weak_memory_shows(wrong: Wrong, actors: Actors, preemptions: Option<usize>, expected: &str) {
    is_found(wrong, Memory::Weak, actors, preemptions, expected);
    assert_eq!(fault(wrong, Memory::Interleaved, actors, preemptions), None, "{wrong:?}");
}

const LEFT_BEHIND: &str = "left behind";
/// How loom begins its report of a data race.
const RACE: &str = "Causality violation";
