//! The timelines that tasks wait for: where each is, who else signals it, and which are closed.

mod carrier;
mod courier;

pub use carrier::{Carrier, Signaller};
pub(super) use courier::{Courier, record_epoch};

use std::collections::{BTreeSet, VecDeque};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::mailbox::Mailbox;
use super::memory::{Memory, carried_offset, epoch_offset};
use super::slices::host;
use crate::abi::{self, EpochWord, TaskWorkItem, TimelineId};
use crate::device::{Timeline, store_fence};
use crate::error::{BackendError, TaskProblem};
use crate::model::epochs;

/// Where the epoch of a closed timeline is.
const LAST: u64 = u64::MAX;

#[derive(Debug)]
struct Entry {
    id: TimelineId,
    /// What the device is told, or will be with the next flush.
    epoch: u64,
    state: State,
    source: Option<Source>,
    /// Whether the device's words still have what command buffers wrote for the closed timeline that was here.
    stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Its waiters fault with the code. Until the device has heard of this change of the epochs, and of all before it, some may still hang in
    /// wait lists, and the index is not given out anew.
    Closed {
        code: u32,
        heard_with: u32,
        /// A submission of the courier that may still write its epoch, or the last before.
        courier_at: u64,
    },
    /// No task knows it any more.
    Free,
}

/// A semaphore, and a value that it has reached.
pub(super) type Reached = (Arc<Timeline>, u64);

/// A semaphore whose values are the epochs.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) semaphore: Arc<Timeline>,
    pub(super) carrier: Carrier,
    /// The largest value that a submission of ours was told to carry, and that submission.
    pub(super) carried: u64,
    pub(super) courier_at: u64,
}

/// What would be news of a timeline.
fn news(entry: &Entry, source: &Source) -> Option<Reached> {
    Some((source.semaphore.clone(), entry.epoch.checked_add(1)?))
}

#[derive(Debug)]
pub(super) struct Timelines {
    /// By index. The default timeline is the first.
    entries: Vec<Entry>,
    /// What the mailbox says of each: its status and its epoch.
    told: Vec<(u32, u64)>,
    /// How often an epoch has changed, wrapping.
    signals: u32,
    /// Of what the mailbox does not say yet, the indices.
    changed: BTreeSet<usize>,
    /// Those whose semaphores others may signal.
    foreign: Vec<usize>,
    /// Indices to be given out anew, the one that rested longest first: the longer it rests, the later a stale name is taken for its heir's.
    free: VecDeque<usize>,
    /// The changes that the last slice had looked after.
    heard: u32,
    /// What was relayed since a slice was last submitted: where semaphores are, at least.
    reached: Vec<Reached>,
}

impl Timelines {
    pub(super) fn new() -> Self {
        let default = Entry { id: TimelineId::DEFAULT, epoch: 0, state: State::Open, source: None, stale: false };
        Self {
            entries: vec![default],
            told: vec![(0, 0); abi::TR_TIMELINES as usize], // as memory that was cleared
            signals: 0,
            changed: BTreeSet::new(),
            foreign: Vec::new(),
            free: VecDeque::new(),
            heard: 0,
            reached: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// How often an epoch has changed, wrapping.
    pub(super) fn signals(&self) -> u32 {
        self.signals
    }

    fn find(&self, id: TimelineId) -> Result<usize, BackendError> {
        let (timeline, count) = (u32::from(id.index()), self.count());
        let entry = self.entries.get(usize::from(id.index()));
        match entry.ok_or(BackendError::UnknownTimeline { timeline, count })? {
            entry if entry.id == id && entry.state == State::Open => Ok(usize::from(id.index())),
            _ => Err(BackendError::ClosedTimeline { timeline: id }),
        }
    }

    /// What is wrong with a task's timeline.
    pub(super) fn problem(&self, item: &TaskWorkItem) -> Option<TaskProblem> {
        let id = item.timeline();
        let count = self.count();
        match self.find(id) {
            Ok(_) => None,
            Err(BackendError::ClosedTimeline { timeline }) => Some(TaskProblem::ClosedTimeline { timeline }),
            Err(_) => Some(TaskProblem::BadTimeline { timeline: u32::from(id.index()), count }),
        }
    }

    pub(super) fn epoch(&self, id: TimelineId) -> Result<u64, BackendError> {
        Ok(self.entries[self.find(id)?].epoch)
    }

    /// The epoch of a task's timeline. Of one that is closed, and whose tasks will fault, the first.
    pub(super) fn epoch_of(&self, item: &TaskWorkItem) -> u64 {
        self.epoch(item.timeline()).unwrap_or(0)
    }

    /// High half of the 64-bit epoch that a paused task's `resume_epoch` means now.
    pub(super) fn target_hi(&self, item: &TaskWorkItem) -> u32 {
        (epochs::target(self.epoch_of(item), item.resume_epoch) >> 32) as u32
    }

    pub(super) fn source(&mut self, id: TimelineId) -> Result<Option<&mut Source>, BackendError> {
        let index = self.find(id)?;
        Ok(self.entries[index].source.as_mut())
    }

    /// Whether somebody else may signal a timeline.
    pub(super) fn has_foreign(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// Whether a running slice hears of some timeline only if the host polls it.
    pub(super) fn has_relayed(&self) -> bool {
        self.sources().any(|(_, source)| source.carrier == Carrier::Relay)
    }

    /// The semaphores that others may signal, and the values that would be news.
    pub(super) fn awaited(&self) -> Vec<Reached> {
        self.sources().filter_map(|(entry, source)| news(entry, source)).collect()
    }

    /// Those of which a running slice hears only if the host polls them.
    pub(super) fn relayed(&self) -> Vec<Reached> {
        let relayed = self.sources().filter(|(_, source)| source.carrier == Carrier::Relay);
        relayed.filter_map(|(entry, source)| news(entry, source)).collect()
    }

    fn sources(&self) -> impl Iterator<Item = (&Entry, &Source)> {
        let entries = self.foreign.iter().map(|index| &self.entries[*index]);
        entries.filter_map(|entry| Some((entry, entry.source.as_ref()?)))
    }

    /// Submissions of the courier up to `courier_at` have ended.
    pub(super) fn create(
        &mut self,
        epoch: u64,
        source: Option<Source>,
        courier_at: u64,
    ) -> Result<TimelineId, BackendError> {
        self.reclaim(courier_at);
        let foreign = source.as_ref().is_some_and(|source| source.carrier != Carrier::Signal);
        let (index, id, stale) = if self.count() < abi::TR_TIMELINES {
            (self.entries.len(), TimelineId::new(self.count() as u8, 0), false)
        } else {
            let must = "fewer: 256 exist, or were closed and no slice has looked since";
            let full = BackendError::BadOption { option: "timelines", value: 257, must };
            let index = self.free.pop_front().ok_or(full)?;
            let former = self.entries[index].id;
            (index, TimelineId::new(former.index(), former.generation().wrapping_add(1)), true)
        };
        let entry = Entry { id, epoch, state: State::Open, source, stale };
        match self.entries.get_mut(index) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        if foreign {
            self.foreign.push(index);
        }
        self.touch(index);
        Ok(id)
    }

    /// There is something new to look at.
    pub(super) fn announce(&mut self) {
        self.signals = self.signals.wrapping_add(1);
    }

    fn touch(&mut self, index: usize) {
        self.announce();
        self.changed.insert(index);
    }

    pub(super) fn advance(&mut self, id: TimelineId, value: u64) -> Result<(), BackendError> {
        let index = self.find(id)?;
        let current = self.entries[index].epoch;
        if value < current {
            return Err(BackendError::EpochWentBack { timeline: id.index().into(), value, current });
        }
        self.entries[index].epoch = value;
        self.touch(index);
        Ok(())
    }

    /// Closes a timeline. Its semaphore, if it had one, is nobody's here any more.
    pub(super) fn close(&mut self, id: TimelineId, code: u32) -> Result<(), BackendError> {
        let index = self.find(id)?;
        if id == TimelineId::DEFAULT {
            let must = "another one: tasks that name no timeline are on the default one";
            return Err(BackendError::BadOption { option: "timeline", value: 0, must });
        }
        self.touch(index);
        self.foreign.retain(|foreign| *foreign != index);
        if let Some(source) = &self.entries[index].source {
            self.reached.retain(|(other, _)| !Arc::ptr_eq(other, &source.semaphore));
        }
        let heard_with = self.signals;
        let entry = &mut self.entries[index];
        entry.epoch = LAST;
        let courier_at = entry.source.take().map_or(0, |source| source.courier_at);
        entry.state = State::Closed { code, heard_with, courier_at };
        Ok(())
    }

    /// A slice has looked after every change of the epochs up to this one.
    pub(super) fn heard(&mut self, signals: u32) {
        self.heard = signals;
    }

    /// Whether a timeline was closed since a slice last looked.
    pub(super) fn has_unheard_close(&self) -> bool {
        let unheard = |entry: &Entry| match entry.state {
            State::Closed { heard_with, .. } => self.heard.wrapping_sub(heard_with).cast_signed() < 0,
            State::Open | State::Free => false,
        };
        self.entries.iter().any(unheard)
    }

    /// Frees the indices of closed timelines that no task and no submission knows any more.
    fn reclaim(&mut self, courier_ended: u64) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if let State::Closed { heard_with, courier_at, .. } = entry.state
                && self.heard.wrapping_sub(heard_with).cast_signed() >= 0
                && courier_at <= courier_ended
            {
                entry.state = State::Free;
                self.free.push_back(index);
            }
        }
    }

    /// The wait lists are empty again, and nobody was woken yet. Closed timelines fault whoever comes by their status alone; were they still at the last
    /// epoch, the next slice would look through all lists for each of them, which may be more than the driver lets a slice do.
    pub(super) fn start_anew(&mut self) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if entry.state != State::Open {
                entry.epoch = 0;
                self.changed.insert(index);
            }
        }
        self.announce();
    }

    /// Takes over the counters of the semaphores that others may signal. True if one has moved.
    pub(super) fn relay(&mut self) -> Result<bool, BackendError> {
        let mut moved = false;
        for at in 0..self.foreign.len() {
            let index = self.foreign[at];
            let Some(source) = &self.entries[index].source else { continue };
            let value = source.semaphore.value()?;
            if value > self.entries[index].epoch {
                let semaphore = source.semaphore.clone();
                self.reached.retain(|(other, _)| !Arc::ptr_eq(other, &semaphore));
                self.reached.push((semaphore, value));
                self.entries[index].epoch = value;
                self.touch(index);
                moved = true;
            }
        }
        Ok(moved)
    }

    /// What the next slice waits for without having to wait.
    pub(super) fn take_reached(&mut self) -> Vec<Reached> {
        std::mem::take(&mut self.reached)
    }

    /// The slice that was to wait for it never will.
    pub(super) fn put_back(&mut self, mut reached: Vec<Reached>) {
        reached.retain(|(one, _)| self.reached.iter().all(|(other, _)| !Arc::ptr_eq(one, other)));
        self.reached.append(&mut reached);
    }

    /// Writes what has changed to the mailbox.
    pub(super) fn write(&mut self, memory: &Memory) -> Result<(), BackendError> {
        let changed = std::mem::take(&mut self.changed);
        for index in &changed {
            let entry = &mut self.entries[*index];
            let status = match entry.state {
                State::Closed { code, .. } => code,
                State::Open => entry.id.generation().into(),
                State::Free => abi::TASK_FAULT_TIMELINE_CLOSED,
            };
            if std::mem::take(&mut entry.stale) {
                host(&memory.bell)?.write_pod(carried_offset(*index as u32), &EpochWord::default())?;
            }
            let told = std::mem::replace(&mut self.told[*index], (status, entry.epoch));
            write_epoch(memory, *index, told, (status, entry.epoch))?;
        }
        Ok(())
    }

    /// Tells the doorbell how many timelines there are.
    pub(super) fn ring_count(&self, memory: &Memory, mailbox: &mut Mailbox) -> Result<(), BackendError> {
        mailbox.ring(memory, abi::TR_BELL_TIMELINES, self.count())
    }
}

/// In the order that lets `tr_epoch` tell an epoch that is being written, and `tr_wait_fault` a closed timeline: see [`EpochWord`]. A word that says it already
/// is let be, as in `Mailbox::ring`: most epochs change in their low half alone.
fn write_epoch(memory: &Memory, timeline: usize, told: (u32, u64), new: (u32, u64)) -> Result<(), BackendError> {
    let (bell, at) = (host(&memory.bell)?, epoch_offset(timeline as u32));
    let words = |(status, epoch): (u32, u64)| {
        let (lo, hi) = (epoch as u32, (epoch >> 32) as u32);
        [
            (offset_of!(EpochWord, status), status),
            (offset_of!(EpochWord, hi_first), hi),
            (offset_of!(EpochWord, lo), lo),
            (offset_of!(EpochWord, hi), hi),
        ]
    };
    for ((field, value), _) in words(new).into_iter().zip(words(told)).filter(|(new, told)| new != told) {
        // Each store before the next: pairs with the tr_acquire between the loads in `tr_epoch`.
        store_fence();
        bell.store(at + field as u64, value, Relaxed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_never_goes_back() {
        let mut timelines = Timelines::new();
        timelines.advance(TimelineId::DEFAULT, 7).unwrap();
        timelines.advance(TimelineId::DEFAULT, 7).unwrap();
        let back = timelines.advance(TimelineId::DEFAULT, 6);
        assert_eq!(back, Err(BackendError::EpochWentBack { timeline: 0, value: 6, current: 7 }));
        assert_eq!(timelines.advance(1.into(), 1), Err(BackendError::UnknownTimeline { timeline: 1, count: 1 }));
    }

    #[test]
    fn an_index_is_given_out_anew_only_once_the_device_has_looked_after_its_close() {
        let mut timelines = Timelines::new();
        let ids: Vec<_> = (1..abi::TR_TIMELINES).map(|_| timelines.create(0, None, 0).unwrap()).collect();
        timelines.close(ids[6], abi::TASK_FAULT_TIMELINE_CLOSED).unwrap();
        let closed = timelines.signals();
        assert!(timelines.has_unheard_close());
        assert!(timelines.create(0, None, 0).is_err(), "its waiters may still hang in lists");
        timelines.heard(closed.wrapping_sub(1));
        assert!(timelines.create(0, None, 0).is_err(), "a slice that looked before the close says nothing");
        timelines.heard(closed);
        assert!(!timelines.has_unheard_close());
        let heir = timelines.create(9, None, 0).unwrap();
        assert_eq!((heir.index(), heir.generation()), (ids[6].index(), 1));
        assert_eq!(timelines.epoch(heir), Ok(9));
        assert_eq!(timelines.epoch(ids[6]), Err(BackendError::ClosedTimeline { timeline: ids[6] }));
        assert!(timelines.close(TimelineId::DEFAULT, abi::TASK_FAULT_TIMELINE_CLOSED).is_err());
    }

    #[test]
    fn the_index_that_rested_longest_is_given_out_first() {
        let mut timelines = Timelines::new();
        let ids: Vec<_> = (1..abi::TR_TIMELINES).map(|_| timelines.create(0, None, 0).unwrap()).collect();
        let mut last = ids[0];
        for id in [ids[9], ids[3]] {
            timelines.close(id, abi::TASK_FAULT_TIMELINE_CLOSED).unwrap();
            timelines.heard(timelines.signals());
            last = timelines.create(0, None, 0).unwrap();
            timelines.close(last, abi::TASK_FAULT_TIMELINE_CLOSED).unwrap();
        }
        assert_eq!(last.index(), ids[3].index());
        timelines.heard(timelines.signals());
        let next = [(); 2].map(|()| timelines.create(0, None, 0).unwrap().index());
        assert_eq!(next, [ids[9].index(), ids[3].index()]);
    }
}
