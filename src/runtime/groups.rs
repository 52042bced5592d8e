//! Tasks whose ends other queues wait for.

use std::sync::Arc;

use crate::device::Timeline;
use crate::error::BackendError;

/// When the value for a task or a group is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Urgency {
    /// When the slice in which the last of them ended is over, as slices go; in live mode after the one that is queued behind it, if there is one.
    AtSliceEnd,
    /// As soon as can be: that slice is called off.
    Now,
}

/// What is to be signalled after the slice that held the last task of a group.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    pub(super) timeline: Arc<Timeline>,
    pub(super) value: u64,
    pub(super) urgency: Urgency,
}

impl Announcement {
    fn is_beside(&self, other: &Self) -> bool {
        self.timeline.raw() == other.timeline.raw()
    }
}

#[derive(Debug)]
struct Group {
    left: u32,
    announcement: Announcement,
}

/// The groups whose tasks have not all ended, each with a number from 1.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Vec<Option<Group>>,
    finished: Vec<Announcement>,
    /// Submitted to be signalled, and not seen to be.
    submitted: Vec<Announcement>,
}

impl Groups {
    /// The number that the next group will have.
    pub(super) fn next(&self) -> u32 {
        let free = self.groups.iter().position(Option::is_none);
        free.unwrap_or(self.groups.len()) as u32 + 1
    }

    /// Whether something can still be announced: a timeline's values come in order, each once.
    pub(super) fn check(&mut self, wanted: &Announcement) -> Result<(), BackendError> {
        let Announcement { timeline, value, .. } = wanted;
        let current = timeline.value()?;
        self.submitted.retain(|one| !one.is_beside(wanted) || one.value > current);
        let passed = *value <= current || self.submitted.iter().any(|one| one.is_beside(wanted) && one.value >= *value);
        let waiting = self.groups.iter().flatten().map(|group| &group.announcement);
        let doubled = waiting.chain(&self.finished).any(|one| one.is_beside(wanted) && one.value == *value);
        if passed || doubled {
            let must = "greater than what the timeline has reached, and announced once";
            return Err(BackendError::BadOption { option: "announced value", value: *value, must });
        }
        timeline.check_jump(*value)
    }

    /// A group of so many tasks that have not ended.
    pub(super) fn add(&mut self, number: u32, left: u32, announcement: Announcement) {
        if left == 0 {
            self.finished.push(announcement);
            return;
        }
        let at = number as usize - 1;
        if at == self.groups.len() {
            self.groups.push(None);
        }
        self.groups[at] = Some(Group { left, announcement });
    }

    /// A task of this group has ended.
    pub(super) fn ended(&mut self, number: u32) {
        let Some(place) = self.groups.get_mut(number as usize - 1) else { return };
        if let Some(group) = place {
            group.left -= 1;
        }
        if let Some(group) = place.take_if(|group| group.left == 0) {
            self.finished.push(group.announcement);
        }
    }

    /// Whether there is nothing to look for, and nothing to signal.
    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.groups.iter().all(Option::is_none)
    }

    pub(super) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// What is to be signalled now, in this order. A value is held back until all smaller ones of its timeline have gone: a semaphore's values only
    /// grow, and whoever waits for a smaller one must not be let go by a larger.
    pub(super) fn take_due(&mut self) -> Vec<Announcement> {
        let waiting = |one: &Announcement| {
            let before = |group: &Group| group.announcement.is_beside(one) && group.announcement.value < one.value;
            self.groups.iter().flatten().any(before)
        };
        let (held, mut due): (Vec<_>, Vec<_>) = std::mem::take(&mut self.finished).into_iter().partition(waiting);
        due.sort_by_key(|announcement| announcement.value);
        self.finished = held;
        self.submitted.extend(due.iter().cloned());
        due
    }

    /// What was submitted to be signalled and may not have been yet.
    pub(super) fn submitted(&mut self) -> Vec<Announcement> {
        self.submitted.retain(|one| !one.timeline.value().is_ok_and(|value| value >= one.value));
        self.submitted.clone()
    }
}
