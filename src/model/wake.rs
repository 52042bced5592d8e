//! Whose epoch has come: the twin of `wake.glsl`.

use super::epochs::{self, Timeline};
use super::{Scheduler, TargetFrom, select};
use crate::abi::{TASK_PRIORITY_CRITICAL, TASK_STATE_PAUSED, TR_NIL, TR_WHEEL_BUCKETS};

/// What a turn has taken out of the wheel.
#[derive(Default)]
struct Taken {
    /// The first waiter of each lane's list.
    nodes: Vec<u32>,
    /// Whether others went to the rings in this turn.
    handed_over: bool,
    /// The timeline that is woken, unless all of the wheel is.
    timeline: Option<u32>,
}

/// What a worker has woken, to go on with.
pub(super) enum Woken {
    /// Tasks that run at once.
    Runs(select::Claim),
    /// Lists whose waiters are to be placed.
    Lists(Vec<u32>),
}

impl Scheduler {
    /// Wakes the waiters of every timeline whose epoch has advanced. Whether there were any to look for, and those that are not handed over.
    pub(super) fn wake(&mut self, batch: u32, idle: bool) -> (bool, Option<Woken>) {
        let mut taken = Taken::default();
        // Who is cancelled may hang anywhere.
        let mut whole = std::mem::take(&mut self.cancels);
        let mut found = false;
        let lanes = self.options.lanes;
        for base in (0..self.options.timelines.max(1)).step_by(lanes as usize) {
            let stride = base..self.options.timelines.min(base + lanes);
            let last = base + lanes >= self.options.timelines;
            let advanced = |index: u32| {
                let Timeline { epoch, woken, .. } = self.timelines[index as usize];
                // A timeline that took over the index of a closed one begins anew after the last epoch there is.
                (epoch != woken).then(|| (index, woken, epoch.wrapping_sub(woken)))
            };
            let behind: Vec<_> = stride.filter_map(advanced).collect();
            if behind.is_empty() && !(whole && last) {
                continue;
            }
            found = true;
            for (index, ..) in &behind {
                let timeline = &mut self.timelines[*index as usize];
                timeline.woken = timeline.epoch;
            }
            if whole || behind.iter().any(|(.., distance)| *distance > TR_WHEEL_BUCKETS.into()) {
                whole = false;
                taken.timeline = None;
                self.empty(0, TR_WHEEL_BUCKETS, &mut taken);
                continue;
            }
            for (index, woken, distance) in behind {
                taken.timeline = Some(index);
                let first = epochs::bucket(index, (woken as u32).wrapping_add(1));
                self.empty(first, distance as u32, &mut taken);
            }
        }
        (found, self.woken(taken, batch, idle))
    }

    /// Takes all waiters out of so many buckets, a list for each lane at a time.
    fn empty(&mut self, bucket: u32, buckets: u32, taken: &mut Taken) {
        let words = self.wheel.lists / 32;
        let first = bucket % TR_WHEEL_BUCKETS * words;
        for index in first..first + buckets * words {
            for nodes in self.wheel.take_lists(index, self.options.lanes) {
                let before = std::mem::replace(&mut taken.nodes, nodes);
                taken.handed_over |= !before.is_empty();
                self.put(before);
            }
        }
    }

    /// Puts lists into a ring, each by its first waiter.
    fn put(&mut self, nodes: Vec<u32>) {
        let tick = self.rings.tick();
        for slot in nodes {
            self.rings.enqueue(TASK_PRIORITY_CRITICAL, slot, false, tick);
        }
    }

    /// Places the waiters of lists anew, a lane for each list, so many of each at most. What is left goes into a ring.
    pub(super) fn follow(&mut self, mut nodes: Vec<u32>, hops: u32) {
        for _ in 0..hops {
            let next: Vec<u32> = nodes.iter().map(|node| self.metas[*node as usize].next).collect();
            for slot in nodes {
                self.dispose(slot, self.slots[slot as usize], TargetFrom::Kept);
            }
            nodes = next.into_iter().filter(|node| *node != TR_NIL).collect();
        }
        self.put(nodes);
    }

    /// What was taken, if it is not more than a list for each lane. If nothing else is to be done, and all of it is due and may run side by side, it runs at once.
    fn woken(&mut self, taken: Taken, batch: u32, idle: bool) -> Option<Woken> {
        let Taken { nodes, handed_over, timeline: known } = taken;
        if handed_over || nodes.is_empty() {
            self.put(nodes);
            return None;
        }
        let runs = |slot: &u32| {
            let (item, meta) = (&self.slots[*slot as usize], &self.metas[*slot as usize]);
            let target = u64::from(meta.target_hi) << 32 | u64::from(item.resume_epoch);
            let timeline = u32::from(item.timeline().index());
            meta.next == TR_NIL
                && known == Some(timeline)
                && self.timelines[timeline as usize].epoch >= target
                && self.options.ops.get(item.op_handle as usize) == Some(&false)
                && self.wait_fault(item, meta.ticket).is_none()
        };
        if !idle || nodes.len() > batch as usize || !nodes.iter().all(runs) {
            return Some(Woken::Lists(nodes));
        }
        let tick = self.tick();
        for slot in &nodes {
            let item = &mut self.slots[*slot as usize];
            debug_assert_eq!(item.state, TASK_STATE_PAUSED);
            *item = item.try_resumed().unwrap_or(*item);
            self.metas[*slot as usize].enqueue_tick = tick;
            self.resumes = self.resumes.wrapping_add(1);
        }
        Some(Woken::Runs(select::Claim { tick, slots: nodes }))
    }
}
