//! The driving side: launches slices, sees them end, takes over what they report, recovers from those that were cut.

mod frames;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use super::ends::Ends;
use super::groups::{Announcement, Urgency};
use super::memory::{Memory, SLICES, record_offset};
use super::options::RuntimeOptions;
use super::pace::{Orders, Pace, Took};
use super::recovery;
use super::roster::Roster;
use super::slices::{Run, Slices, exit_record, host};
use super::state::State;
use super::timelines::Reached;
use super::turns::Turns;
use crate::abi::{self, SliceExit, SliceLaunch, SlotMeta, TaskWorkItem};
use crate::error::BackendError;
use crate::policy::{self, Launch, LaunchDecision, LaunchFacts, LaunchPins, MegakernelLaunchRequest};
use crate::program::Op;
use frames::Before;

/// What is reached when a slice that an engine recorded does not end.
pub(super) const UNENDED: &str =
    "a recorded slice has not ended; submit its command buffer, or call discard_slice if it never is";

/// What a driving step found.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A slice was launched or has ended.
    Progress,
    /// A slice runs. It ends when the timeline reaches the value; before, another slice may be due to follow it at this time.
    Running { end: Reached, due: Option<Instant> },
    /// Nothing runs and nothing would.
    Idle,
}

/// What threads share, and the news that it changed.
#[derive(Debug)]
pub(super) struct Shared {
    state: Turns<State>,
    /// The state has them too: to be locked alone, or inside of it.
    pub(super) ends: Arc<Turns<Ends>>,
    pub(super) roster: Arc<Roster>,
    /// Threads that poll for completions.
    pub(super) polling: AtomicU32,
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        let (ends, roster) = (state.ends.clone(), state.journal.roster.clone());
        Self { state: Turns::new(state), ends, roster, polling: AtomicU32::new(0), changed: Condvar::new() }
    }

    /// Locks the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A slice that was submitted and not seen to end.
#[derive(Debug)]
struct Pending {
    slice: u32,
    run: Run,
    /// What is reached with its end: a value of the progress timeline, or of an engine's that it was recorded for.
    end: Reached,
    /// When it can have begun at the earliest: when it was submitted, or the one before was last seen to run.
    since: Instant,
    /// How long after its beginning it should have a successor.
    half_time: Duration,
    /// Of one that an engine submits.
    recorded: Option<Before>,
    /// What it waited for, kept as long as it is pending.
    reached: Vec<Reached>,
}

/// One thread at a time drives: whoever holds the lock around this. Locks [`Shared`] inside, never the other way round.
#[derive(Debug)]
pub(super) struct Driver {
    slices: Slices,
    /// In the order of their submission, which is that of their ends.
    pending: VecDeque<Pending>,
    last: u32,
    /// Whether private memory must be cleared before the next slice.
    fresh: bool,
    /// Whether a slice was cut. Those that were submitted after it end at once; then its tasks are recovered.
    cut: bool,
    lanes: u32,
    shards: u32,
    /// What the policy is told, but for what changes.
    facts: LaunchFacts,
    pins: LaunchPins,
    pace: Pace,
    cut_turn: Option<u32>,
}

impl Driver {
    pub(super) fn new(slices: Slices, pace: Pace, options: &RuntimeOptions, facts: LaunchFacts, lanes: u32) -> Self {
        let (cut_turn, pins) = (options.cut_turn, options.pins());
        let shards = options.shards_for(facts.most_workers);
        let pending = VecDeque::with_capacity(SLICES);
        Self { slices, pending, last: 0, fresh: true, cut: false, lanes, shards, facts, pins, pace, cut_turn }
    }

    /// Takes over what has ended, and launches what is wanted. Waits for nothing.
    pub(super) fn step(&mut self, context: &Context<'_>) -> Result<Step, BackendError> {
        let ended = self.reap(context)?;
        let submits = !context.options.record_only;
        if submits && (self.pending.is_empty() && context.shared.lock().launches() || self.is_due(context)?) {
            self.launch(context)?;
            return Ok(Step::Progress);
        }
        Ok(match self.pending.front() {
            _ if ended => Step::Progress,
            Some(first) => Step::Running { end: first.end.clone(), due: self.due(context) },
            None => Step::Idle,
        })
    }

    /// Runs a slice to its end, if one runs or is wanted.
    pub(super) fn run_one(&mut self, context: &Context<'_>, deadline: Instant) -> Result<bool, BackendError> {
        self.reap(context)?;
        if self.pending.is_empty() {
            let launches = {
                let mut state = context.shared.lock();
                state.relay(context.memory)?;
                state.launches()
            };
            if !launches || context.options.record_only {
                return Ok(false);
            }
            self.launch(context)?;
        }
        self.settle(context, deadline)?;
        Ok(true)
    }

    /// Waits until no slice runs.
    pub(super) fn settle(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), BackendError> {
        let start = Instant::now();
        while let Some(first) = self.pending.front() {
            let left = deadline.saturating_duration_since(Instant::now());
            if !super::slices::wait(&first.end, context.spins, left)? {
                let wanted = "the running slice to end";
                return Err(match first.recorded {
                    Some(_) => BackendError::late(wanted, UNENDED, start.elapsed()),
                    None => self.slices.late(wanted, start.elapsed()),
                });
            }
            self.reap(context)?;
        }
        Ok(())
    }

    /// Asks the slices that run to end, if they can hear it.
    pub(super) fn call_off(&self, context: &Context<'_>) -> Result<(), BackendError> {
        let mut state = context.shared.lock();
        if state.mailbox.live() && !self.pending.is_empty() {
            state.mailbox.ring(context.memory, abi::TR_BELL_STOP, self.last)?;
        }
        Ok(())
    }

    /// Waits until nothing of what was submitted runs: no slice, and no inspection that took too long for whoever asked.
    pub(super) fn finish(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), BackendError> {
        // Groups may have ended with the last slice, and somebody may wait for their values.
        let settled = self.settle(context, deadline).and_then(|()| self.announce(context));
        let submitted = context.shared.ends.lock().deliveries.groups.submitted();
        for Announcement { timeline, value, .. } in submitted {
            if !timeline.wait(value, deadline.saturating_duration_since(Instant::now()))? {
                tracing::warn!(value, "an announced value is not signalled yet");
            }
        }
        self.slices.rest(deadline.saturating_duration_since(Instant::now()))?;
        settled
    }

    /// Signals what is due after the slices that were submitted, the last of which has held the last task of its group.
    pub(super) fn announce(&mut self, context: &Context<'_>) -> Result<(), BackendError> {
        if !context.shared.roster.ends.0.is_due() {
            return Ok(());
        }
        let due = context.shared.ends.lock().deliveries.take_due();
        if due.iter().any(|announcement| announcement.urgency == Urgency::Now) {
            self.call_off(context)?;
        }
        due.iter().try_for_each(|Announcement { timeline, value, .. }| self.slices.signal(timeline, *value))
    }

    pub(super) fn is_running(&self) -> bool {
        !self.pending.is_empty() || self.slices.rest(Duration::ZERO).is_err()
    }

    /// All slots as the device has them. No slice may run.
    pub(super) fn inspect(
        &mut self,
        memory: &Memory,
        timeout: Duration,
    ) -> Result<(Vec<TaskWorkItem>, Vec<SlotMeta>), BackendError> {
        if self.fresh {
            // Never launched since it was last cleared: private memory holds nothing yet.
            let capacity = memory.capacity as usize;
            return Ok((vec![TaskWorkItem::default(); capacity], vec![SlotMeta::default(); capacity]));
        }
        self.slices.inspect(memory, timeout)
    }

    /// When the slice that runs should get a successor: half its time before it ends. Only in live mode, where the successor hears what is
    /// published until its end. A trace is the host's before the next slice writes it.
    fn due(&self, context: &Context<'_>) -> Option<Instant> {
        let alone = self.pending.len() == 1 && context.live && context.options.trace_capacity == 0 && !self.cut;
        // A recorded one may not be submitted yet, and would be overtaken.
        self.pending
            .front()
            .filter(|first| alone && first.recorded.is_none())
            .map(|first| first.since + first.half_time)
    }

    fn is_due(&self, context: &Context<'_>) -> Result<bool, BackendError> {
        if self.due(context).is_none_or(|due| Instant::now() < due) {
            return Ok(false);
        }
        // Whoever has the ends at this moment listens.
        if let Some(mut ends) = context.shared.ends.try_lock() {
            ends.listen(context.memory)?;
        }
        let state = context.shared.lock();
        Ok(!state.stopped && state.journal.in_flight() > 0)
    }

    /// How the next slice is to be launched.
    fn decide(&self, context: &Context<'_>) -> Result<Launch, BackendError> {
        let (snapshot, room, (usual_depth, usual_age)) = {
            let mut state = context.shared.lock();
            (state.seen(), state.journal.room(), state.usual)
        };
        let request = snapshot.try_apply_to_launch_request(MegakernelLaunchRequest::default())?;
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let facts = LaunchFacts { room, waiting: snapshot.paused_count, usual_depth, usual_age, ..self.facts };
        // Without the lock: it may be the caller's code.
        let said = match &context.options.policy {
            Some(policy) => policy.decide(&request, &facts),
            None => policy::recommend(&request, &facts),
        };
        Ok(Launch { snapshot, request, facts, decision: said.settled(&self.pins, &facts) })
    }

    fn launch(&mut self, context: &Context<'_>) -> Result<(), BackendError> {
        let launch = self.decide(context)?;
        let state = &mut *context.shared.lock();
        let (slice, run) = self.prepare(context, state, &launch, false)?;
        let since = Instant::now();
        let reached = state.tables.timelines.take_reached();
        let value = self.slices.launch(context.memory, run, &reached)?;
        state.progress_value = value;
        let end = (self.slices.progress().clone(), value);
        let half_time = half_time(&launch);
        self.pend(state, launch, Pending { slice, run, end, since, half_time, recorded: None, reached });
        Ok(())
    }

    /// A slice is under way.
    fn pend(&mut self, state: &mut State, launch: Launch, pending: Pending) {
        (state.wants_slice, state.slice_runs) = (false, true);
        state.stats.slices += 1;
        state.last_launch = Some(launch);
        (self.last, self.fresh) = (pending.slice, false);
        self.pending.push_back(pending);
    }

    /// Tells the next slice what it has to know. Its number, and how it is to be run.
    fn prepare(
        &mut self,
        context: &Context<'_>,
        state: &mut State,
        launch: &Launch,
        recorded: bool,
    ) -> Result<(u32, Run), BackendError> {
        let LaunchDecision { workers, slice_time, linger, aging_ticks } = launch.decision;
        let Context { memory, options, .. } = context;
        // 0 is no slice's number: it is what a cleared exit record says.
        let slice = self.last.wrapping_add(1).max(1);
        let place = self.pending.front().map_or(0, |first| (first.run.place + 1) % SLICES);
        tracing::debug!(
            slice,
            workers = workers.value,
            workers_because = workers.reason,
            slice_time = ?slice_time.value,
            slice_time_because = slice_time.reason,
            linger = ?linger.value,
            linger_because = linger.reason,
            aging_ticks = aging_ticks.value,
            aging_ticks_because = aging_ticks.reason,
            snapshot = ?launch.snapshot,
            "decided how to launch"
        );
        let Orders { timed, capped, turn_budget, time_budget, linger } =
            self.pace.orders(slice_time.value, linger.value);
        let orders = SliceLaunch {
            slice,
            previous: if self.fresh { 0 } else { self.last },
            workers: workers.value,
            turn_budget,
            time_budget,
            linger,
            timed: timed.into(),
            capped: capped.into(),
            aging_ticks: aging_ticks.value,
            tenants: state.tables.tenants(),
            buffers: state.tables.buffers(),
            batch: self.facts.batch,
            cut_turn: self.cut_turn.take().unwrap_or(0),
            two: 2,
            trace_capacity: options.trace_capacity,
            shards: self.shards,
            follows: u32::from(!self.pending.is_empty()),
            counts: options.counts.into(),
            lists: abi::wheel_lists(options.capacity),
            ..SliceLaunch::default()
        };
        // In boundary mode nothing of the mailbox is written while a slice runs, but for lines that the doorbell does not tell of: the
        // submission orders all of it before the slice.
        state.tables.flush(memory, &mut state.mailbox)?;
        let published = state.mailbox.published();
        state.mailbox.ring(memory, abi::TR_BELL_TAIL, published)?;
        if self.pending.is_empty() {
            // Whom it was meant for has ended, and numbers wrap.
            state.mailbox.ring(memory, abi::TR_BELL_STOP, 0)?;
        }
        host(&memory.launch)?.write_pod(record_offset(place), &orders)?;
        let stamped = self.pace.wants_stamps(recorded);
        Ok((slice, Run { place, workers: workers.value, fresh: self.fresh, stamped }))
    }

    /// Takes over the slices that have ended, recovers if one of them was cut, and announces the ends of groups. True if there were any.
    fn reap(&mut self, context: &Context<'_>) -> Result<bool, BackendError> {
        let mut any = false;
        while let Some(first) = self.pending.front() {
            let now = Instant::now();
            if !super::slices::ended(&first.end)? {
                if let Some(next) = self.pending.get_mut(1) {
                    next.since = now;
                }
                break;
            }
            if let Some(ended) = self.pending.pop_front() {
                self.take_over(context, &ended)?;
            }
            any = true;
        }
        if self.pending.is_empty() && self.cut {
            self.recover(context)?;
        }
        if any && self.pending.is_empty() {
            context.shared.lock().slice_runs = false;
        }
        if any {
            context.shared.changed.notify_all();
        }
        self.announce(context)?;
        Ok(any)
    }

    fn take_over(&mut self, context: &Context<'_>, ended: &Pending) -> Result<(), BackendError> {
        let Context { memory, options, shared, .. } = context;
        let exit = exit_record(memory, ended.run.place, ended.slice)?;
        if let Some(exit) = exit.filter(|exit| exit.reasons & abi::TR_EXIT_SHAPE != 0) {
            let (is, asked) = (exit.subgroup_size, self.lanes);
            return Err(BackendError::Protocol { what: format!("the driver runs subgroups of {is}, not of {asked}") });
        }
        let Some(exit) = exit.filter(|exit| exit.cut_workers == 0 && !self.cut) else {
            let cut_workers = exit.map(|exit| exit.cut_workers);
            tracing::warn!(slice = ended.slice, ?cut_workers, "the driver cut a slice");
            self.cut = true;
            return Ok(());
        };
        let SliceExit { reasons, turns, ready, elapsed: units, .. } = exit;
        let took = self.slices.took(ended.run)?.map_or_else(|| Took::Seen(ended.since.elapsed()), Took::Stamped);
        tracing::trace!(slice = ended.slice, reasons, turns, ready, units, ?took, "slice ended");
        self.pace.learn(units, took, reasons & abi::TR_EXIT_BUDGET != 0);
        let mut state = shared.lock();
        state.harvest(memory, &exit)?;
        state.harvest_trace(memory, exit.traced, options.trace_capacity)
    }

    fn recover(&mut self, context: &Context<'_>) -> Result<(), BackendError> {
        tracing::warn!(turns = self.pace.turn_limit(), "recovering the tasks of a slice that was cut");
        let (slots, metas) = self.slices.inspect(context.memory, context.options.slice_timeout)?;
        // A restartable op that is cut in the shortest slice there is would be cut for ever.
        let may_restart = self.pace.turn_limit() > 1;
        self.pace.shorten();
        (self.fresh, self.cut) = (true, false);
        recovery::recover(&mut context.shared.lock(), context.memory, context.ops, &slots, &metas, may_restart)
    }
}

/// How long after its beginning a slice should have a successor.
fn half_time(launch: &Launch) -> Duration {
    launch.decision.slice_time.value.min(Duration::from_secs(1)) / 2
}

/// What a driver works on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) memory: &'a Memory,
    pub(super) options: &'a RuntimeOptions,
    pub(super) shared: &'a Shared,
    pub(super) ops: &'a [Op],
    pub(super) live: bool,
    /// Whether a thread that waits may take the processor.
    pub(super) spins: bool,
}
