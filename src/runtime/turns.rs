//! A lock whose threads take turns.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// How often a thread looks whether it may have it, before it goes ahead or sleeps for it: longer than it takes to wake one that sleeps.
const LOOKS: u32 = 2048;

/// What nobody keeps for long. A mutex goes to whoever asks at the right moment, and a thread that locks it again and again would always be that one; here
/// it lets those go first who wait already.
#[derive(Debug)]
#[repr(align(128))] // what lies beside it has other writers
pub(super) struct Turns<T> {
    mutex: Mutex<T>,
    /// Threads that wait. A hint, so all its accesses are relaxed.
    waiting: AtomicU32,
}

impl<T> Turns<T> {
    pub(super) fn new(value: T) -> Self {
        Self { mutex: Mutex::new(value), waiting: AtomicU32::new(0) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        for _ in 0..LOOKS {
            if self.waiting.load(Relaxed) == 0 {
                break;
            }
            std::hint::spin_loop();
        }
        self.try_lock().unwrap_or_else(|| {
            self.waiting.fetch_add(1, Relaxed);
            let value = (0..LOOKS).find_map(|_| {
                std::hint::spin_loop();
                self.try_lock()
            });
            let value = value.unwrap_or_else(|| self.mutex.lock().unwrap_or_else(PoisonError::into_inner));
            self.waiting.fetch_sub(1, Relaxed);
            value
        })
    }

    /// If nobody has it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.mutex.try_lock() {
            Ok(value) => Some(value),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
