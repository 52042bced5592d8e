//! The scheduler in plain Rust, function for function the twin of `glsl/`: what it does with one workgroup, the kernel
//! does with one workgroup of the same subgroup size, in the same order and with the same counters and ages. So it is
//! the oracle that tests compare a device with, and the place to look at a schedule in a debugger.
//!
//! # What is the same
//!
//! A batch is at most `min(lanes, batch)` tasks, and a wide task is a batch of its own. Lines are admitted in ring order,
//! a batch a turn or, if more are published, several. Tasks are put where they belong in lane order: into their partitions, into the completion ring,
//! into their wait lists, whose last waiter is woken first. The lanes of a batch run side by side on a device; here
//! their ops run one after another in lane order, which is the same as long as ops of a batch don't look at each
//! other's stores.
//!
//! # What has no twin
//!
//! One worker has one shard, its home: there is no other to look at, for Critical tasks neither, and the rings here are that shard's. Nobody is in the
//! way of its claims, so each is one batch.
//!
//! One worker is never overtaken by another, and the host writes nothing while a turn runs. So no claim is lost, no
//! epoch is seen half written, no task is parked behind the waker's back (`dirty`), and none goes round its ring
//! because it could not be parked or its target not be fixed. Nothing cuts a worker; there is no trace.
//!
//! Lines that run at once are none of them waiters here. A device runs quick ones although a waiter comes with them, and how long an op is, is
//! not known here. To compare the order of such lines with a device, give it batches of one.
//!
//! Where several tasks of one batch wait in the *same* list, a device decides by a race in which order they hang
//! there, and of more than [`TR_PARK_ATTEMPTS`](crate::abi::TR_PARK_ATTEMPTS) it may send some round their ring once
//! more. Here they hang in lane order. To compare the order of wakings with a device, give the tasks of a batch slots
//! that differ modulo [`wheel_lists`](crate::abi::wheel_lists), or epochs or timelines that put them into different buckets.

pub(crate) mod epochs;
mod rings;
mod select;
mod turns;
mod wake;

#[cfg(test)]
mod tests;

use crate::abi::{
    SliceExit, SlotMeta, TASK_FAULT_CANCELLED, TASK_FAULT_RUNTIME, TASK_FAULT_TIMELINE_CLOSED, TASK_STATE_DONE,
    TASK_STATE_FAULTED, TASK_STATE_PAUSED, TASK_STATE_RUNNING, TR_ADMIT_ROUNDS, TR_EXIT_BUDGET, TR_EXIT_IDLE,
    TR_FOLLOW_HOPS, TR_NIL, TaskState, TaskWorkItem,
};
use epochs::{Timeline, Wheel};
use rings::Rings;
use std::collections::{BTreeSet, VecDeque};
use wake::Woken;

/// What a device is told by its launch record, its tables and its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// Logarithm of the number of slots, at most 24.
    pub capacity_log2: u32,
    /// Lanes of the subgroup, at least 1.
    pub lanes: u32,
    /// Largest batch that the worker claims, at least 1.
    pub batch: u32,
    /// Ticks of age that outweigh one step of priority, at most 2^24.
    pub aging_ticks: u32,
    /// For each tenant, whether it may run.
    pub tenants: Vec<bool>,
    /// Timelines in use, at most 256.
    pub timelines: u32,
    /// For each op, whether it is subgroup-wide.
    pub ops: Vec<bool>,
}

/// How an op ends its turn. A device's turn that accessed memory it may not, or that is none of these, is a `Fault`
/// with the code that the device gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskTurn {
    /// The task is done.
    Complete,
    /// Give way, stay in the partition.
    Yield {
        /// Where to go on.
        pc: u32,
        /// The scratch word.
        data: u32,
    },
    /// Wait until a timeline reaches an epoch.
    Pause {
        /// The timeline's word: index, and generation in bits 8 to 15. `None` for the one that the task is on.
        timeline: Option<u32>,
        /// Where to go on.
        pc: u32,
        /// The scratch word.
        data: u32,
        /// The low 32 bits of the epoch.
        epoch: u32,
    },
    /// Move to another partition.
    Requeue {
        /// Where to go on.
        pc: u32,
        /// The scratch word.
        data: u32,
        /// The partition's priority code; one that does not exist is a fault.
        priority: u32,
    },
    /// End with a fault.
    Fault {
        /// The fault code.
        code: u32,
    },
}

/// The end of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelCompletion {
    /// The ticket that it was published under.
    pub ticket: u32,
    /// The task as it ended, Done or Faulted.
    pub item: TaskWorkItem,
}

/// A published task: its ticket, and the high half of the epoch that it waits for if it is paused.
#[derive(Clone, Copy)]
struct Line {
    ticket: u32,
    target_hi: u32,
    item: TaskWorkItem,
}

/// Where the 64-bit epoch of a paused task comes from: `TR_TARGET_*`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetFrom {
    Open,
    Given,
    Kept,
}

/// One worker, its rings and wait lists, and the tasks that it has.
pub struct Scheduler {
    options: ModelOptions,
    slots: Vec<TaskWorkItem>,
    metas: Vec<SlotMeta>,
    rings: Rings,
    wheel: Wheel,
    timelines: Vec<Timeline>,
    lines: VecDeque<Line>,
    completions: Vec<ModelCompletion>,
    admitted: u32,
    completed: u32,
    pauses: u32,
    resumes: u32,
    /// Tickets of tasks that are cancelled and have not ended.
    cancelled: BTreeSet<u32>,
    /// Whether the wait lists are to be looked through for them.
    cancels: bool,
}

/// # The host's side
impl Scheduler {
    /// A scheduler without tasks, all timelines at epoch 0.
    #[must_use]
    pub fn new(options: ModelOptions) -> Self {
        let capacity = 1 << options.capacity_log2;
        Self {
            slots: vec![TaskWorkItem::default(); capacity],
            metas: vec![SlotMeta::default(); capacity],
            rings: Rings::new(options.capacity_log2),
            wheel: Wheel::new(1 << options.capacity_log2),
            timelines: vec![Timeline::default(); options.timelines as usize],
            lines: VecDeque::new(),
            completions: Vec::new(),
            admitted: 0,
            completed: 0,
            pauses: 0,
            resumes: 0,
            cancelled: BTreeSet::new(),
            cancels: false,
            options,
        }
    }

    /// Publishes a line of the submission ring. The ticket's low bits are the task's slot, which must be free; all of
    /// it comes back with the completion.
    pub fn publish(&mut self, ticket: u32, item: TaskWorkItem) {
        let epoch = self.timelines.get(usize::from(item.timeline().index())).map_or(0, |timeline| timeline.epoch);
        let target_hi = (epochs::target(epoch, item.resume_epoch) >> 32) as u32;
        self.lines.push_back(Line { ticket, target_hi, item });
    }

    /// Moves a timeline to an epoch, which the next turns notice. An epoch never goes back: an earlier one than the
    /// timeline's is ignored.
    pub fn signal(&mut self, timeline: u32, epoch: u64) {
        let timeline = &mut self.timelines[timeline as usize];
        timeline.epoch = timeline.epoch.max(epoch);
    }

    /// Closes a timeline: whoever waits for it, or is to wait for it, faults with the code.
    pub fn close(&mut self, timeline: u32, code: u32) {
        let timeline = &mut self.timelines[timeline as usize];
        (timeline.status, timeline.epoch) = (code, u64::MAX);
    }

    /// Puts another timeline in the place of a closed one, whose waiters the scheduler has looked after.
    pub fn reopen(&mut self, timeline: u32, generation: u8, epoch: u64) {
        let timeline = &mut self.timelines[timeline as usize];
        (timeline.status, timeline.epoch) = (generation.into(), epoch);
    }

    /// Cancels a task that was published under this ticket and has not ended: it faults where it waits, or instead of its next turn.
    pub fn cancel(&mut self, ticket: u32) {
        self.cancelled.insert(ticket);
        self.cancels = true;
    }

    /// Takes the completions since the last call, in the order of their records.
    pub fn completions(&mut self) -> Vec<ModelCompletion> {
        std::mem::take(&mut self.completions)
    }

    /// Tasks in the rings.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.rings.ready()
    }

    /// Tasks in the wait lists.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.pauses.wrapping_sub(self.resumes)
    }

    /// Claims so far, wrapping.
    #[must_use]
    pub fn tick(&self) -> u32 {
        self.rings.tick()
    }

    /// Every slot's index and what it holds; a task that has ended stays until its slot is used again.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &TaskWorkItem)> {
        (0..).zip(&self.slots)
    }
}

/// # The device's side
///
/// `ops` takes a turn of a task's op; the task it is given is Running and its age is up to date. `handle_ok` says
/// whether a tenant has a buffer with this handle.
impl Scheduler {
    /// A slice: turns until `turn_budget` of them are spent or `linger_turns + 1` in a row found nothing to do. Gives
    /// what a device writes at its end, except that slice number and trace count are 0. (Where the driver ends loops, a
    /// device counts its batches too, so that its slices have fewer turns than they were given.)
    pub fn run_slice(
        &mut self,
        turn_budget: u32,
        linger_turns: u32,
        ops: &mut dyn FnMut(&TaskWorkItem) -> TaskTurn,
        handle_ok: &dyn Fn(u32, u32) -> bool,
    ) -> SliceExit {
        let mut reason = TR_EXIT_BUDGET;
        let mut turns = 0;
        let mut idle = 0;
        for _ in 0..turn_budget {
            let found = self.turn(ops, handle_ok);
            turns += u32::from(found);
            idle = if found { 0 } else { idle + 1 };
            if idle > linger_turns {
                reason = TR_EXIT_IDLE;
                break;
            }
        }
        self.leave(reason, turns)
    }

    /// One turn of the worker: wakes the waiters of each timeline that has advanced, admits lines, runs a batch. True if
    /// there was anything to do.
    pub fn turn(
        &mut self,
        ops: &mut dyn FnMut(&TaskWorkItem) -> TaskTurn,
        handle_ok: &dyn Fn(u32, u32) -> bool,
    ) -> bool {
        let batch = self.options.batch.min(self.options.lanes);
        let nothing_ready = self.ready() == 0;
        let (mut found, woken) = self.wake(batch, nothing_ready && self.lines.is_empty());
        let mut claim = None;
        match woken {
            Some(Woken::Lists(nodes)) => self.follow(nodes, TR_FOLLOW_HOPS + 1),
            Some(Woken::Runs(woken)) => claim = Some(woken),
            None => {}
        }
        if claim.is_none() {
            found |= !self.lines.is_empty();
            claim = self.admit(batch, nothing_ready);
        }
        let claim = claim.or_else(|| self.rings.claim(self.options.aging_ticks, batch));
        let claimed = claim.is_some();
        if let Some(claim) = claim {
            self.run(claim, ops, handle_ok);
        }
        found || claimed
    }

    /// What forbids a paused task to wait, if anything.
    fn wait_fault(&self, item: &TaskWorkItem, ticket: u32) -> Option<u32> {
        let timeline = item.timeline();
        let status = self.timelines[usize::from(timeline.index())].status;
        match status {
            TASK_FAULT_RUNTIME.. => Some(status),
            _ if status != u32::from(timeline.generation()) => Some(TASK_FAULT_TIMELINE_CLOSED),
            _ => self.cancelled.contains(&ticket).then_some(TASK_FAULT_CANCELLED),
        }
    }

    /// Puts a task where its state says: into a ring, a wait list, or the completion ring. The device's lanes do this together; called lane by lane the
    /// outcome is the same, since what they share are counters that are handed out in lane order.
    fn dispose(&mut self, slot: u32, mut item: TaskWorkItem, target_from: TargetFrom) {
        let meta = self.metas[slot as usize];
        let timeline = item.timeline();
        let index = usize::from(timeline.index());
        let mut target = 0;
        if item.state == TASK_STATE_PAUSED {
            let epoch = self.timelines[index].epoch;
            target = match target_from {
                TargetFrom::Open => epochs::target(epoch, item.resume_epoch),
                TargetFrom::Given | TargetFrom::Kept => u64::from(meta.target_hi) << 32 | u64::from(item.resume_epoch),
            };
            self.pauses = self.pauses.wrapping_add((target_from != TargetFrom::Kept).into());
            let ticket = meta.ticket;
            item = match (self.wait_fault(&item, ticket), item.try_resumed()) {
                (Some(code), _) => turns::faulted(item, code),
                (None, Ok(resumed)) if epoch >= target => resumed,
                _ => item,
            };
            self.resumes = self.resumes.wrapping_add((item.state != TASK_STATE_PAUSED).into());
        }
        let tick = self.rings.tick();
        let meta = &mut self.metas[slot as usize];
        meta.enqueue_tick = tick;
        meta.target_hi = (target >> 32) as u32;
        self.slots[slot as usize] = item;
        match item.state {
            TASK_STATE_PAUSED => {
                let list = self.wheel.list(epochs::bucket(timeline.index().into(), item.resume_epoch), slot);
                self.wheel.hang(list, slot, &mut self.metas);
            }
            TASK_STATE_DONE | TASK_STATE_FAULTED => {
                self.completed = self.completed.wrapping_add(1);
                self.cancelled.remove(&meta.ticket);
                self.completions.push(ModelCompletion { ticket: meta.ticket, item });
            }
            _ => {
                let wide = self.options.ops.get(item.op_handle as usize) == Some(&true);
                self.rings.enqueue(item.priority, slot, wide, tick);
            }
        }
    }

    /// Takes published lines into slots. If nothing was ready, few are published and all of them may run at once, they are
    /// a claim of their own: it moves no tick, and they have no age.
    fn admit(&mut self, batch: u32, nothing_ready: bool) -> Option<select::Claim> {
        let most = batch as usize;
        let shallow = self.lines.len() <= most;
        let count = self.lines.len().min(if shallow { most } else { most * TR_ADMIT_ROUNDS as usize });
        let taken: Vec<Line> = self.lines.drain(..count).collect();
        self.admitted = self.admitted.wrapping_add(count as u32);
        let mut slots = Vec::with_capacity(count);
        for Line { ticket, target_hi, item } in &taken {
            let slot = ticket & self.rings.capacity_mask();
            debug_assert!(
                matches!(
                    self.slots[slot as usize].task_state(),
                    Some(TaskState::Empty | TaskState::Done | TaskState::Faulted)
                ),
                "slot {slot} is published anew before its last task has ended"
            );
            let tick = self.tick();
            let next = self.metas[slot as usize].next;
            let (ticket, target_hi) = (*ticket, *target_hi);
            self.metas[slot as usize] = SlotMeta { ticket, enqueue_tick: tick, next, target_hi };
            self.slots[slot as usize] = *item;
            slots.push(slot);
        }
        let runs_at_once = |Line { item, .. }: &Line| {
            self.options.placement_fault(item).is_none()
                && item.state != TASK_STATE_PAUSED
                && self.options.ops.get(item.op_handle as usize) == Some(&false)
        };
        if shallow && nothing_ready && !slots.is_empty() && taken.iter().all(runs_at_once) {
            return Some(select::Claim { tick: self.tick(), slots });
        }
        for (slot, Line { item, .. }) in slots.into_iter().zip(taken) {
            let fault = self.options.placement_fault(&item);
            self.dispose(slot, fault.map_or(item, |code| turns::faulted(item, code)), TargetFrom::Given);
        }
        None
    }

    /// Runs a claimed batch for one turn.
    fn run(
        &mut self,
        claim: select::Claim,
        ops: &mut dyn FnMut(&TaskWorkItem) -> TaskTurn,
        handle_ok: &dyn Fn(u32, u32) -> bool,
    ) {
        let rest = |slot: &u32| {
            (self.slots[*slot as usize].state == TASK_STATE_PAUSED).then_some(self.metas[*slot as usize].next)
        };
        let rest: Vec<u32> = claim.slots.iter().filter_map(rest).filter(|next| *next != TR_NIL).collect();
        let after = |slot: &u32| {
            let mut item = self.slots[*slot as usize];
            if item.state == TASK_STATE_PAUSED {
                return (*slot, item, TargetFrom::Kept);
            }
            let age = select::age(claim.tick, self.metas[*slot as usize].enqueue_tick);
            item.age_ticks = item.age_ticks.saturating_add(age);
            let cancelled = self.cancelled.contains(&self.metas[*slot as usize].ticket);
            let fault = self.options.run_fault(&item, handle_ok);
            if let Some(code) = cancelled.then_some(TASK_FAULT_CANCELLED).or(fault) {
                return (*slot, turns::faulted(item, code), TargetFrom::Open);
            }
            item.state = TASK_STATE_RUNNING;
            (*slot, self.options.after_turn(item, ops(&item)), TargetFrom::Open)
        };
        // All have run before any is put somewhere.
        let ended: Vec<_> = claim.slots.iter().map(after).collect();
        for (slot, item, target_from) in ended {
            self.dispose(slot, item, target_from);
        }
        self.follow(rest, TR_FOLLOW_HOPS);
    }

    /// The exit record of a slice.
    fn leave(&self, reasons: u32, turns: u32) -> SliceExit {
        SliceExit {
            reasons,
            admitted: self.admitted,
            completed: self.completed,
            ready: self.ready(),
            waiting: self.waiting(),
            turns,
            tick: self.tick(),
            pauses: self.pauses,
            resumes: self.resumes,
            subgroup_size: self.options.lanes,
            ..SliceExit::default()
        }
    }
}
