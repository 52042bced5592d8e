//! What always holds, whatever tasks come and whatever they do.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// What happens to a scheduler.
#[derive(Clone, Debug)]
enum Event {
    /// A task is published, if a slot is free; it does these turns and then completes.
    Publish(TaskWorkItem, Vec<TaskTurn>),
    /// A timeline goes on by so many epochs.
    Signal(u32, u64),
    /// The worker takes so many turns.
    Turns(u32),
}

/// An epoch word not far from where the timelines of a test are, or anywhere.
fn epoch() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..40u32, 2 => 0..2000u32, 1 => (0..40u32).prop_map(|n| u32::MAX - n), 1 => any::<u32>()]
}

fn turn() -> impl Strategy<Value = TaskTurn> {
    prop_oneof![
        3 => (0..9u32, 0..9u32).prop_map(|(pc, data)| TaskTurn::Yield { pc, data }),
        3 => (prop::option::of(0..5u32), epoch())
            .prop_map(|(timeline, epoch)| TaskTurn::Pause { timeline, pc: 1, data: 2, epoch }),
        2 => (0..6u32).prop_map(|priority| TaskTurn::Requeue { pc: 3, data: 4, priority }),
        1 => Just(TaskTurn::Fault { code: 9 }),
    ]
}

fn line() -> impl Strategy<Value = TaskWorkItem> {
    let ready = (0..5usize, 0..3u32)
        .prop_map(|(priority, op_handle)| TaskWorkItem { op_handle, ..task(0, TaskPriority::ALL[priority]) });
    let words = (0..5u8, epoch(), 0..8u32).prop_map(|(timeline, epoch, state)| (timeline, epoch, state));
    (ready, words, 0..10u32).prop_map(|(ready, (timeline, epoch, state), kind)| match kind {
        0..=5 => ready,
        6..=7 => ready.with_timeline(timeline.into()).try_paused(0, 0, epoch).unwrap(),
        8 => TaskWorkItem { state, resume_epoch: epoch, ..ready.with_timeline(timeline.into()) },
        _ => TaskWorkItem { priority: 5, ..ready },
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let step = prop_oneof![6 => 0..4u64, 2 => 0..600u64, 1 => Just(1 << 32), 1 => (1u64 << 31) - 2..(1 << 31) + 2];
    let event = prop_oneof![
        4 => (line(), vec(turn(), 0..5)).prop_map(|(line, turns)| Event::Publish(line, turns)),
        2 => (0..4u32, step).prop_map(|(timeline, step)| Event::Signal(timeline, step)),
        3 => (1..6u32).prop_map(Event::Turns),
    ];
    vec(event, 1..120)
}

fn shapes() -> impl Strategy<Value = ModelOptions> {
    (0..5u32, 1..10u32, 1..10u32, 0..20u32).prop_map(|(capacity_log2, lanes, batch, aging_ticks)| ModelOptions {
        batch,
        aging_ticks,
        ..options(capacity_log2, lanes)
    })
}

/// A scheduler and what a test knows about it by itself.
struct Play {
    scheduler: Scheduler,
    epochs: Vec<u64>,
    free: Vec<u32>,
    published: u32,
    /// Turns that are left to each task.
    turns: BTreeMap<u32, VecDeque<TaskTurn>>,
    /// Timeline and 64-bit epoch that each paused task waits for.
    targets: BTreeMap<u32, (u32, u64)>,
    ends: Vec<ModelCompletion>,
}

/// The nearest epoch that ends in these low bits, the earlier of two.
fn nearest(epoch: u64, low: u32) -> u64 {
    let ends = [-1, 0, 1].map(|lap| ((epoch >> 32) as i128 + lap) << 32 | i128::from(low));
    let candidates = ends.into_iter().filter_map(|end| u64::try_from(end).ok());
    candidates.min_by_key(|end| (end.abs_diff(epoch), *end)).unwrap()
}

impl Play {
    fn new(scheduler: Scheduler) -> Self {
        let epochs = vec![0; scheduler.options.timelines as usize];
        let free = (0..1 << scheduler.options.capacity_log2).rev().collect();
        let (turns, targets, ends) = Default::default();
        Self { scheduler, epochs, free, published: 0, turns, targets, ends }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Publish(line, turns) => {
                let Some(slot) = self.free.pop() else { return };
                let task_id = self.published;
                self.turns.insert(task_id, turns.into());
                let ticket = task_id << TR_TICKET_GENERATION_SHIFT | slot;
                if let Some(epoch) = self.epochs.get(usize::from(line.timeline().index()))
                    && line.state == TASK_STATE_PAUSED
                {
                    self.targets
                        .insert(task_id, (u32::from(line.timeline().index()), nearest(*epoch, line.resume_epoch)));
                }
                self.scheduler.publish(ticket, TaskWorkItem { task_id, ..line });
                self.published += 1;
            }
            Event::Signal(timeline, step) => {
                self.epochs[timeline as usize] += step;
                self.scheduler.signal(timeline, self.epochs[timeline as usize]);
            }
            Event::Turns(turns) => (0..turns).for_each(|_| {
                self.turn();
            }),
        }
    }

    /// One turn. A task that runs has waited for its epoch, if for any.
    fn turn(&mut self) -> bool {
        let Self { scheduler, epochs, turns, targets, .. } = self;
        let found = scheduler.turn(
            &mut |task| {
                if let Some((timeline, target)) = targets.remove(&task.task_id) {
                    assert!(epochs[timeline as usize] >= target, "{task:?} was woken before {target}");
                    assert_ne!(task.flags & TASK_FLAG_RESUME_READY, 0);
                }
                let next = turns.get_mut(&task.task_id).and_then(VecDeque::pop_front);
                if let Some(TaskTurn::Pause { timeline, epoch, .. }) = next {
                    let timeline = timeline.unwrap_or(task.timeline().word());
                    if let Some(now) = epochs.get(timeline as usize) {
                        targets.insert(task.task_id, (timeline, nearest(*now, epoch)));
                    }
                }
                next.unwrap_or(TaskTurn::Complete)
            },
            ANY_HANDLE,
        );
        let ends = scheduler.completions();
        self.free.extend(ends.iter().map(|end| end.ticket & scheduler.rings.capacity_mask()));
        self.ends.extend(ends);
        self.check_conservation();
        found
    }

    /// Every task is in exactly one place, and in a state that belongs there.
    fn check_conservation(&self) {
        let Scheduler { rings, slots, metas, wheel, lines, .. } = &self.scheduler;
        let queued: Vec<u32> = (0..TASK_PRIORITIES)
            .flat_map(|ring| {
                let (head, tail) = (rings.heads[ring as usize], rings.tails[ring as usize]);
                (0..tail.wrapping_sub(head)).map(move |n| rings.written(ring, head.wrapping_add(n)))
            })
            .map(|entry| entry.expect("between head and tail every entry is written").word & TR_INDEX_MASK)
            .collect();
        assert_eq!(self.scheduler.ready(), queued.len() as u32);
        // A paused one in a ring is the first of a list that is being woken.
        let (going, queued): (Vec<_>, Vec<_>) =
            queued.into_iter().partition(|slot| slots[*slot as usize].state == TASK_STATE_PAUSED);
        let list = |slot: u32| {
            let next = move |slot: &u32| Some(metas[*slot as usize].next).filter(|next| *next != TR_NIL);
            std::iter::successors(Some(slot), next)
        };
        let waiting: Vec<u32> = wheel.waiters(metas).into_iter().chain(going.into_iter().flat_map(list)).collect();
        assert!(queued.iter().all(|slot| slots[*slot as usize].is_schedulable()));
        assert!(waiting.iter().all(|slot| slots[*slot as usize].state == TASK_STATE_PAUSED));
        assert_eq!(self.scheduler.waiting(), waiting.len() as u32);

        let held = queued.iter().chain(&waiting).map(|slot| slots[*slot as usize].task_id);
        let unadmitted = lines.iter().map(|line| line.item.task_id);
        let ended = self.ends.iter().map(|end| end.item.task_id);
        let mut everyone: Vec<u32> = held.chain(unadmitted).chain(ended).collect();
        everyone.sort_unstable();
        assert_eq!(everyone, (0..self.published).collect::<Vec<_>>());
    }

    /// Turns until every timeline was looked at and nothing was left to do.
    fn settle(&mut self) {
        let round = self.scheduler.options.timelines.div_ceil(self.scheduler.options.lanes);
        let mut idle = 0;
        while idle < round {
            idle = if self.turn() { 0 } else { idle + 1 };
        }
    }
}

proptest! {
    #[test]
    fn every_task_is_in_one_place_nobody_wakes_early_and_nobody_waits_past_its_epoch(
        options in shapes(),
        events in events(),
    ) {
        let mut play = Play::new(Scheduler::new(options));
        for event in events {
            play.happen(event);
        }
        play.settle();
        prop_assert_eq!(play.scheduler.ready(), 0);
        for slot in play.scheduler.wheel.waiters(&play.scheduler.metas) {
            let task = play.scheduler.slots[slot as usize];
            let (timeline, target) = play.targets[&task.task_id];
            prop_assert!(play.epochs[timeline as usize] < target, "{:?} waits past {}", task, target);
        }
        // Whoever is left has an epoch that is less than a wrap ahead, and at most five more pauses to come.
        for timeline in (0..4).cycle().take(6 * 4) {
            play.happen(Event::Signal(timeline, 1 << 32));
            play.settle();
        }
        prop_assert_eq!(play.scheduler.waiting(), 0);
        prop_assert_eq!(play.ends.len() as u32, play.published);
    }

    #[test]
    fn nothing_changes_where_ticks_and_ring_positions_wrap(
        options in shapes(),
        events in events(),
        before in 0..200u32,
    ) {
        let ends = |scheduler| {
            let mut play = Play::new(scheduler);
            events.iter().for_each(|event| play.happen(event.clone()));
            play.settle();
            play.ends
        };
        let from_zero = ends(Scheduler::new(options.clone()));
        // The tick is five positions.
        for start in [before.wrapping_neg(), (u32::MAX / 5).wrapping_sub(before / 5), 1 << 31] {
            let at = Scheduler::starting_at(options.clone(), start);
            prop_assert_eq!(&ends(at), &from_zero, "all rings at {:#x}", start);
        }
    }

    #[test]
    fn tasks_of_one_partition_run_in_the_order_of_their_publication(
        options in shapes(),
        priorities in vec(0..5usize, 1..64),
        turns in vec(0..3u32, 64),
    ) {
        let mut scheduler = Scheduler::new(ModelOptions { capacity_log2: 6, ..options });
        let mut order = Vec::new();
        for ((slot, priority), turns) in (0..).zip(&priorities).zip(turns) {
            scheduler.publish(slot, task(slot, TaskPriority::ALL[*priority]));
            for _ in 0..turns {
                scheduler.turn(&mut |_| TaskTurn::Complete, ANY_HANDLE);
            }
            order.extend(scheduler.completions());
        }
        scheduler.settle(&mut |_| TaskTurn::Complete);
        order.extend(scheduler.completions());
        prop_assert_eq!(order.len(), priorities.len());
        for priority in 0..TASK_PRIORITIES {
            prop_assert!(order.iter().filter(|end| end.item.priority == priority).is_sorted_by_key(|end| end.ticket));
        }
    }

    #[test]
    fn an_idle_task_under_endless_critical_load_waits_no_longer_than_the_bound(
        options in shapes(),
        publish_idle_at in 0..16u32,
    ) {
        let capacity = 1 << options.capacity_log2;
        let bound = 4 * options.aging_ticks + capacity + options.batch.min(options.lanes) - 1;
        let mut scheduler = Scheduler::new(options);
        for slot in 0..capacity {
            let idle = slot == publish_idle_at % capacity;
            scheduler.publish(slot, task(idle.into(), if idle { TaskPriority::Idle } else { TaskPriority::Critical }));
        }
        let mut runs = 0;
        let mut age = 0;
        for _ in 0..4 * bound {
            scheduler.turn(&mut |task| {
                if task.task_id == 1 {
                    assert!(task.age_ticks - age <= bound, "waited {} of {bound}", task.age_ticks - age);
                    age = task.age_ticks;
                    runs += 1;
                }
                TaskTurn::Yield { pc: 0, data: 0 }
            }, ANY_HANDLE);
        }
        prop_assert!(runs >= 2, "the idle task ran {} times", runs);
    }

    #[test]
    fn nobody_waits_longer_than_the_bound_whatever_the_others_are(
        options in shapes(),
        priorities in vec(0..5usize, 32),
        wide in vec(0..2u32, 32),
    ) {
        let capacity = 1 << options.capacity_log2;
        // A batch takes what is behind a ring's head along, in each of the four other rings.
        let bound = 4 * options.aging_ticks + capacity + 4 * (options.batch.min(options.lanes) - 1);
        let mut scheduler = Scheduler::new(options);
        for slot in 0..capacity {
            let item = task(slot, TaskPriority::ALL[priorities[slot as usize]]);
            scheduler.publish(slot, TaskWorkItem { op_handle: wide[slot as usize], ..item });
        }
        let mut ages = vec![0; capacity as usize];
        for _ in 0..200 {
            scheduler.turn(&mut |task| {
                let waited = task.age_ticks - std::mem::replace(&mut ages[task.task_id as usize], task.age_ticks);
                assert!(waited <= bound, "{task:?} waited {waited} of {bound}");
                TaskTurn::Yield { pc: 0, data: 0 }
            }, ANY_HANDLE);
        }
        let tick = scheduler.tick();
        for slot in scheduler.slots().filter(|(_, task)| task.is_schedulable()).map(|(slot, _)| slot as usize) {
            prop_assert!(tick - scheduler.metas[slot].enqueue_tick <= bound);
        }
    }
}
