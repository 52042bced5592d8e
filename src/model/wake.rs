//! Whose epoch has come: the twin of `wake.glsl`.

use super::epochs::{self, Timeline};
use super::{Scheduler, TargetFrom, select};
use crate::abi::{TASK_PRIORITY_CRITICAL, TASK_STATE_PAUSED, TR_FOLLOW_HOPS, TR_NIL, TR_WHEEL_BUCKETS, TR_WHEEL_LISTS};

/// What a turn has taken out of the wheel and not placed yet.
#[derive(Default)]
struct Taken {
    /// The first waiter of each lane's list.
    nodes: Vec<u32>,
    /// Whether others were placed before them in this turn.
    flushed: bool,
    /// The timeline that is woken, unless all of the wheel is.
    timeline: Option<u32>,
}

impl Scheduler {
    /// Wakes the waiters of every timeline whose epoch has advanced. Whether there were any to look for, and those that can run at once.
    pub(super) fn wake(&mut self, batch: u32, nothing_ready: bool) -> (bool, Option<select::Claim>) {
        let mut taken = Taken::default();
        // Who is cancelled may hang anywhere.
        let mut whole = std::mem::take(&mut self.cancels);
        let mut found = false;
        let indices: Vec<u32> = (0..self.options.timelines).collect();
        for stride in indices.chunks(self.options.lanes as usize) {
            let advanced = |index: &u32| {
                let Timeline { epoch, woken, .. } = self.timelines[*index as usize];
                // A timeline that took over the index of a closed one begins anew after the last epoch there is.
                (epoch != woken).then(|| (*index, woken, epoch.wrapping_sub(woken)))
            };
            let behind: Vec<_> = stride.iter().filter_map(advanced).collect();
            found |= !behind.is_empty();
            for (index, ..) in &behind {
                let timeline = &mut self.timelines[*index as usize];
                timeline.woken = timeline.epoch;
            }
            if behind.iter().any(|(.., distance)| *distance > TR_WHEEL_BUCKETS.into()) {
                whole = true;
            } else {
                for (index, woken, distance) in behind.iter().copied() {
                    self.flush(&mut taken);
                    taken.timeline = Some(index);
                    let first = epochs::bucket(index, (woken as u32).wrapping_add(1));
                    self.empty(first, distance as u32, &mut taken);
                }
            }
            if whole && !behind.is_empty() {
                self.empty_all(&mut taken);
                whole = false;
            }
        }
        if whole {
            found = true;
            self.empty_all(&mut taken);
        }
        (found, self.woken(taken, batch, nothing_ready))
    }

    fn empty_all(&mut self, taken: &mut Taken) {
        self.flush(taken);
        taken.timeline = None;
        self.empty(0, TR_WHEEL_BUCKETS, taken);
    }

    /// Takes all waiters out of so many buckets, a list for each lane at a time.
    fn empty(&mut self, bucket: u32, buckets: u32, taken: &mut Taken) {
        let lists: Vec<u32> = (0..buckets * TR_WHEEL_LISTS).collect();
        for group in lists.chunks(self.options.lanes as usize) {
            let take = |i: &u32| self.wheel.take(epochs::list(bucket.wrapping_add(i / TR_WHEEL_LISTS), *i));
            let nodes: Vec<u32> = group.iter().map(take).filter(|node| *node != TR_NIL).collect();
            if !nodes.is_empty() {
                self.flush(taken);
                taken.nodes = nodes;
            }
        }
    }

    fn flush(&mut self, taken: &mut Taken) {
        if !taken.nodes.is_empty() {
            taken.flushed = true;
            self.follow(std::mem::take(&mut taken.nodes), 1);
        }
    }

    /// Places waiters anew, each lane those of its list, `hops` at most. What is left of a list goes into a ring by its first task.
    fn follow(&mut self, mut nodes: Vec<u32>, hops: u32) {
        for _ in 0..hops {
            let next: Vec<u32> = nodes.iter().map(|node| self.metas[*node as usize].next).collect();
            for slot in nodes {
                self.dispose(slot, self.slots[slot as usize], TargetFrom::Kept);
            }
            nodes = next.into_iter().filter(|node| *node != TR_NIL).collect();
        }
        let tick = self.rings.tick();
        for slot in nodes {
            self.rings.enqueue(TASK_PRIORITY_CRITICAL, slot, false, tick);
        }
    }

    /// Goes on with what is left of lists, of which these were the first tasks.
    pub(super) fn follow_rest(&mut self, nodes: Vec<u32>) {
        self.follow(nodes, TR_FOLLOW_HOPS);
    }

    /// What was taken last, as a batch to run at once, if it is all that was woken, nothing is ready, and all of it may run side by side. Else it is placed.
    fn woken(&mut self, mut taken: Taken, batch: u32, nothing_ready: bool) -> Option<select::Claim> {
        let runs = |slot: &u32| {
            let (item, meta) = (&self.slots[*slot as usize], &self.metas[*slot as usize]);
            let target = u64::from(meta.target_hi) << 32 | u64::from(item.resume_epoch);
            let timeline = u32::from(item.timeline().index());
            meta.next == TR_NIL
                && taken.timeline == Some(timeline)
                && self.timelines[timeline as usize].epoch >= target
                && self.options.ops.get(item.op_handle as usize) == Some(&false)
                && self.wait_fault(item, meta.ticket).is_none()
        };
        let fits = !taken.nodes.is_empty() && !taken.flushed && nothing_ready && taken.nodes.len() <= batch as usize;
        if !fits || !taken.nodes.iter().all(runs) {
            self.flush(&mut taken);
            return None;
        }
        let tick = self.tick();
        for slot in &taken.nodes {
            let item = &mut self.slots[*slot as usize];
            debug_assert_eq!(item.state, TASK_STATE_PAUSED);
            *item = item.try_resumed().unwrap_or(*item);
            self.metas[*slot as usize].enqueue_tick = tick;
            self.resumes = self.resumes.wrapping_add(1);
        }
        Some(select::Claim { tick, slots: taken.nodes })
    }
}
