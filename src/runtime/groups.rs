//! Tasks whose ends other queues wait for.

use std::sync::Arc;

use crate::device::Timeline;

/// When the value for a task or a group is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl Groups {
    /// The number that the next group will have.
    pub(super) fn next(&self) -> u32 {
        let free = self.groups.iter().position(Option::is_none);
        free.unwrap_or(self.groups.len()) as u32 + 1
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

    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.groups.iter().all(Option::is_none)
    }

    /// What is due to be signalled.
    pub(super) fn take_finished(&mut self) -> Vec<Announcement> {
        std::mem::take(&mut self.finished)
    }
}
