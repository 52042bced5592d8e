//! A submission that races with a slice's end.

use std::cell::{Cell, RefCell};
use std::rc::Rc; // a model's threads are coroutines of one thread
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread;

use super::Wrong::*;
use super::{LEFT_BEHIND, Memory, RACE, Setting, Word, holds, is_found, only_weak_memory_shows};

/// A mutex of the host: it acquires and releases, and nothing more. loom's own would order all that is done under any mutex.
struct Lock<T>(AtomicU32, RefCell<T>);

impl<T> Lock<T> {
    fn new(value: T) -> Self {
        Self(AtomicU32::new(0), RefCell::new(value))
    }

    fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.compare_exchange(0, 1, Acquire, Relaxed).ok()?; // pairs with the release below
        let result = act(&mut self.1.borrow_mut());
        self.0.store(0, Release); // pairs with the acquire above
        Some(result)
    }
}

/// As `Step` in driver.rs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Progress,
    Running,
    Idle,
}

/// What `State` has of the mailbox and of slices.
#[derive(Default)]
struct Host {
    published: u32,
    wants_slice: bool,
}

struct Runtime {
    setting: Setting,
    /// A submitted line; its words are plain.
    line: UnsafeCell<()>,
    tail: Word,
    /// `TR_CONTROL_ADMITTED`. Slices follow one another, so one worker at a time has it.
    admitted: Cell<u32>,
    /// `SliceExit::admitted` and `SliceExit::doorbell`.
    exit: UnsafeCell<()>,
    exit_words: Cell<(u32, u32)>,
    /// The timeline semaphore that counts slices.
    progress: Word,
    state: Lock<Host>,
    /// Whether the first slice was not yet seen to end.
    driver: Lock<bool>,
    /// `Alarm`: its mutex and flag are one word, that is exchanged.
    alarm: AtomicU32,
}

impl Runtime {
    /// `Shared::lock`.
    fn with_state<R>(&self, act: impl Fn(&mut Host) -> R) -> R {
        loop {
            match self.state.try_with(&act) {
                Some(result) => return result,
                None => thread::yield_now(),
            }
        }
    }

    /// `Inner::submit_batch`: `Mailbox::publish` under the lock, and `Inner::launch_after_submit`.
    fn submit(&self) {
        self.with_state(|state| {
            state.wants_slice = true;
            self.line.with_mut(|_| ());
            state.published = 1;
            // Pairs with the acquire in `slice`.
            self.setting.fence_unless(TailUnfenced, Release);
            self.tail.store(1);
        });
        if self.step().is_none() && self.setting.wrong != BusyDriverIsLeftAlone {
            self.ring();
        }
    }

    fn ring(&self) {
        self.alarm.swap(1, AcqRel);
    }

    fn is_rung(&self) -> bool {
        self.alarm.swap(0, AcqRel) == 1
    }

    /// A slice whose one worker looks so many times: `tr_listen`, `tr_admit`, `tr_leave`.
    fn slice(&self, looks: u32) {
        let mut tail = 0;
        for _ in 0..looks {
            tail = self.tail.load();
            if tail > self.admitted.get() {
                // Pairs with the release in `submit`.
                self.setting.fence_unless(AdmitWithoutAcquire, Acquire);
                self.line.with(|_| ());
                self.admitted.set(tail);
            }
        }
        self.exit.with_mut(|_| self.exit_words.set((self.admitted.get(), tail)));
        // The submission's barrier and signal: pairs with the acquire in `step`.
        self.setting.fence_unless(ExitWithoutRelease, Release);
        self.progress.add(1);
    }

    /// `Inner::step` and `Driver::step`.
    fn step(&self) -> Option<Step> {
        let step = self.driver.try_with(|pending| {
            if *pending {
                if self.progress.load() == 0 {
                    return Step::Running;
                }
                fence(Acquire); // the wait for the submission: pairs with the release in `slice`
                *pending = false;
                let (admitted, heard) = self.exit.with(|_| self.exit_words.get());
                // `State::harvest`
                self.with_state(|state| {
                    let published = if self.setting.wrong == HarvestIgnoresTheTail { heard } else { state.published };
                    state.wants_slice = admitted != published;
                });
            } else if !self.with_state(|state| state.wants_slice) {
                return Step::Idle;
            }
            if self.with_state(|state| std::mem::take(&mut state.wants_slice)) {
                self.with_state(|state| self.tail.store(state.published));
                self.slice(1);
            }
            Step::Progress
        });
        if step == Some(Step::Progress) {
            self.ring();
        }
        step
    }

    /// `keep`, until it sleeps with nobody to wake it yet.
    fn keep(&self) {
        loop {
            match self.step() {
                Some(Step::Progress) => _ = self.is_rung(),
                Some(Step::Idle) if !self.is_rung() => return,
                Some(Step::Idle) => {}
                Some(Step::Running) | None => thread::yield_now(),
            }
        }
    }
}

/// A slice runs, and the keeper waits for its end; somebody submits a line.
fn submission_and_exit(setting: Setting) {
    let runtime = Rc::new(Runtime {
        setting,
        line: UnsafeCell::new(()),
        tail: setting.word(0),
        admitted: Cell::new(0),
        exit: UnsafeCell::new(()),
        exit_words: Cell::new((0, 0)),
        progress: setting.word(0),
        state: Lock::new(Host::default()),
        driver: Lock::new(true),
        alarm: AtomicU32::new(0),
    });
    let device = runtime.clone();
    // The keeper sleeps until the slice has ended, so one thread is enough for both.
    let device = thread::spawn(move || {
        device.slice(2);
        if setting.wrong != KeeperIsNotTold {
            device.keep();
        }
    });
    runtime.submit();
    device.join().unwrap();
    if runtime.is_rung() {
        runtime.keep();
    }
    assert_eq!(runtime.admitted.get(), 1, "{LEFT_BEHIND}");
}

#[test]
fn a_line_that_is_published_as_a_slice_ends_is_taken_by_it_or_by_the_next() {
    holds(submission_and_exit, None);
    for wrong in [TailUnfenced, AdmitWithoutAcquire, ExitWithoutRelease] {
        only_weak_memory_shows(wrong, submission_and_exit, None, RACE);
    }
    for wrong in [HarvestIgnoresTheTail, BusyDriverIsLeftAlone, KeeperIsNotTold] {
        is_found(wrong, Memory::Interleaved, submission_and_exit, None, LEFT_BEHIND);
    }
}
