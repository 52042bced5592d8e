//! Who is to be woken when tasks end. Whoever waits with a thread of their own is not here, and pays a look at an empty list.

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use super::ends::Ends;
use super::inner::Inner;
use super::memory::Memory;
use super::state::State;
use crate::error::BackendError;

#[derive(Debug, Default)]
pub(super) struct Wakers {
    /// Of tasks with handles, by their slots.
    handles: HashMap<u32, Waker>,
    /// Of those who take completions in bulk.
    bulk: Vec<Waker>,
    /// To be woken as soon as the ends are unlocked: a waker may do anything.
    woken: Vec<Waker>,
}

impl Wakers {
    /// Whether nobody waits, or is still to be woken.
    pub(super) fn is_empty(&self) -> bool {
        self.handles.is_empty() && self.bulk.is_empty() && self.woken.is_empty()
    }

    /// When the task in this slot ends. The last one who asks is woken.
    pub(super) fn wait_for(&mut self, slot: u32, waker: &Waker) {
        self.handles.entry(slot).and_modify(|one| one.clone_from(waker)).or_insert_with(|| waker.clone());
    }

    /// When there is a completion to be taken in bulk.
    pub(super) fn wait_for_any(&mut self, waker: &Waker) {
        if !self.bulk.iter().any(|one| one.will_wake(waker)) {
            self.bulk.push(waker.clone());
        }
    }

    pub(super) fn ended(&mut self, slot: u32) {
        if !self.handles.is_empty() {
            self.woken.extend(self.handles.remove(&slot));
        }
    }

    pub(super) fn queued(&mut self) {
        self.woken.append(&mut self.bulk);
    }

    /// The task's completion is wanted no more.
    pub(super) fn forget(&mut self, slot: u32) {
        if !self.handles.is_empty() {
            self.handles.remove(&slot);
        }
    }

    /// Nothing will come any more that they could wait for.
    pub(super) fn wake_all(&mut self) {
        self.woken.append(&mut self.bulk);
        self.woken.extend(self.handles.drain().map(|(_, waker)| waker));
    }
}

/// Wakes whom it has when it is dropped: declared before the ends are locked, and so dropped after they are unlocked.
#[derive(Default)]
pub(super) struct Woken(Vec<Waker>);

impl Woken {
    pub(super) fn of(&mut self, ends: &mut Ends) {
        self.0.append(&mut ends.deliveries.wakers.woken);
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Inner {
    /// Wakes those whose tasks have ended.
    pub(super) fn wake(&self) {
        let mut woken = Woken::default();
        woken.of(&mut self.shared.ends.lock());
    }

    /// Nothing will come any more that anybody could wait for.
    pub(super) fn wake_all(&self) {
        let mut woken = Woken::default();
        let mut ends = self.shared.ends.lock();
        ends.deliveries.wakers.wake_all();
        woken.of(&mut ends);
        drop(ends);
        self.shared.changed.notify_all();
    }

    /// Looks whether something has come; if not, `wait` names the waker of whoever asks, and the keeper looks for it.
    pub(super) fn poll<T>(
        &self,
        context: &Context<'_>,
        come: impl FnOnce(&State, &mut Ends, &Memory) -> Result<Option<T>, BackendError>,
        wait: impl FnOnce(&mut Wakers, &Waker),
    ) -> Poll<Result<T, BackendError>> {
        let mut woken = Woken::default();
        let state = self.shared.lock();
        let mut ends = self.shared.ends.lock();
        let polled = self.memory().and_then(|memory| {
            let come = come(&state, &mut ends, memory)?;
            if come.is_none() {
                state.check()?;
            }
            Ok(come)
        });
        drop(state);
        woken.of(&mut ends);
        if let Some(result) = polled.transpose() {
            drop(ends);
            return Poll::Ready(self.announce_due().and(result));
        }
        let first = ends.deliveries.wakers.is_empty();
        wait(&mut ends.deliveries.wakers, context.waker());
        drop(ends);
        // From now on it looks for ends while slices run, too.
        if first && self.residency.is_live() {
            self.alarm.rouse();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn one() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    fn wake(wakers: &mut Wakers) {
        drop(Woken(std::mem::take(&mut wakers.woken)));
    }

    #[test]
    fn a_tasks_end_wakes_the_last_who_asked_for_it_once_and_nobody_else() {
        let (mut wakers, (former, first), (latter, second)) = (Wakers::default(), one(), one());
        wakers.wait_for(7, &first);
        wakers.wait_for(7, &second);
        wakers.wait_for(8, &first);
        wakers.ended(9);
        wakers.ended(7);
        wakers.ended(7);
        wake(&mut wakers);
        assert_eq!((former.0.load(Relaxed), latter.0.load(Relaxed)), (0, 1));
        wakers.forget(8);
        wakers.ended(8);
        wake(&mut wakers);
        assert_eq!(former.0.load(Relaxed), 0, "forgotten");
        assert!(wakers.is_empty());
    }

    #[test]
    fn a_completion_in_bulk_wakes_all_who_take_them_each_once() {
        let (mut wakers, (former, first), (latter, second)) = (Wakers::default(), one(), one());
        wakers.wait_for_any(&first);
        wakers.wait_for_any(&first);
        wakers.wait_for_any(&second);
        wakers.queued();
        wakers.queued();
        wake(&mut wakers);
        assert_eq!((former.0.load(Relaxed), latter.0.load(Relaxed)), (1, 1));
    }

    #[test]
    fn at_the_end_everyone_is_woken() {
        let (mut wakers, (former, first), (latter, second)) = (Wakers::default(), one(), one());
        wakers.wait_for(7, &first);
        wakers.wait_for_any(&second);
        wakers.wake_all();
        assert!(!wakers.is_empty(), "they are still to be woken");
        wake(&mut wakers);
        assert_eq!((former.0.load(Relaxed), latter.0.load(Relaxed), wakers.is_empty()), (1, 1, true));
    }
}
