//! The driving side: launches slices, waits for them, takes over what they report, recovers from those that were cut.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::memory::Memory;
use super::options::RuntimeOptions;
use super::recovery;
use super::slices::{Slices, exit_record, host};
use super::state::State;
use crate::abi::{self, SliceExit, SliceLaunch, SlotMeta, TaskWorkItem};
use crate::error::BackendError;
use crate::program::Op;

/// What a driving step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A slice was launched or has ended.
    Progress,
    /// A slice runs and has not ended in the time that the step had.
    Running,
    /// Nothing runs and nothing would.
    Idle,
}

/// State and the news that it changed.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread at a time drives: whoever holds the lock around this. Locks [`Shared`] inside, never the other way round.
#[derive(Debug)]
pub(super) struct Driver {
    slices: Slices,
    /// The number of the slice that runs, if one does.
    running: Option<u32>,
    last: u32,
    /// Whether private memory must be cleared before the next slice.
    fresh: bool,
    workers: u32,
    lanes: u32,
    /// Halved when the driver cuts a slice: short slices end before its limit.
    turn_budget: u32,
    cut_turn: Option<u32>,
}

impl Driver {
    pub(super) fn new(slices: Slices, options: &RuntimeOptions, workers: u32, lanes: u32) -> Self {
        let (turn_budget, cut_turn) = (options.turn_budget, options.cut_turn);
        Self { slices, running: None, last: 0, fresh: true, workers, lanes, turn_budget, cut_turn }
    }

    /// One step: takes over an ended slice, or launches one that is wanted, or waits for the running one until `deadline`.
    pub(super) fn step(&mut self, context: &Context<'_>, deadline: Instant) -> Result<Step, BackendError> {
        let Some(slice) = self.running else { return self.launch(context) };
        if !self.slices.wait(deadline.saturating_duration_since(Instant::now()))? {
            return Ok(Step::Running);
        }
        self.running = None;
        self.take_over(context, slice)?;
        context.shared.lock().slice_runs = false;
        context.shared.changed.notify_all();
        Ok(Step::Progress)
    }

    /// Runs a slice to its end, if one runs or is wanted.
    pub(super) fn run_one(&mut self, context: &Context<'_>, deadline: Instant) -> Result<bool, BackendError> {
        if self.running.is_none() && self.step(context, deadline)? == Step::Idle {
            return Ok(false);
        }
        self.settle(context, deadline)?;
        Ok(true)
    }

    /// Waits until no slice runs.
    pub(super) fn settle(&mut self, context: &Context<'_>, deadline: Instant) -> Result<(), BackendError> {
        while self.running.is_some() {
            if self.step(context, deadline)? == Step::Running {
                return Err(self.slices.late("the running slice to end", Duration::ZERO));
            }
        }
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
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

    fn launch(&mut self, context: &Context<'_>) -> Result<Step, BackendError> {
        let Context { memory, options, shared, .. } = context;
        let mut state = shared.lock();
        if !state.wants_slice || state.stopped {
            return Ok(Step::Idle);
        }
        // 0 is no slice's number: it is what a cleared exit record says.
        let slice = self.last.wrapping_add(1).max(1);
        let launch = SliceLaunch {
            slice,
            workers: self.workers,
            turn_budget: self.turn_budget,
            linger_turns: options.linger_turns,
            published: state.published,
            aging_ticks: options.aging_ticks,
            tenants: state.tables.tenants(),
            buffers: state.tables.buffers(),
            timelines: state.tables.timelines(),
            batch: options.batch.unwrap_or(self.lanes).min(self.lanes),
            cut_turn: self.cut_turn.take().unwrap_or(0),
            two: 2,
            trace_capacity: options.trace_capacity,
            shards: options.shards_for(self.workers),
            ..SliceLaunch::default()
        };
        // Nothing of the mailbox is written while a slice runs, but for lines that the slice was not told of: the submission orders all of
        // it before the slice.
        state.tables.flush(memory)?;
        host(&memory.launch)?.write_pod(0, &launch)?;
        self.slices.launch(memory, self.workers, self.fresh)?;
        (state.wants_slice, state.slice_runs) = (false, true);
        state.stats.slices += 1;
        (self.last, self.running, self.fresh) = (slice, Some(slice), false);
        Ok(Step::Progress)
    }

    fn take_over(&mut self, context: &Context<'_>, slice: u32) -> Result<(), BackendError> {
        let Context { memory, options, shared, .. } = context;
        let exit = exit_record(memory, slice)?;
        if let Some(exit) = exit.filter(|exit| exit.reasons & abi::TR_EXIT_SHAPE != 0) {
            let (is, asked) = (exit.subgroup_size, self.lanes);
            return Err(BackendError::Protocol { what: format!("the driver runs subgroups of {is}, not of {asked}") });
        }
        if let Some(exit) = exit.filter(|exit| exit.cut_workers == 0) {
            tracing::trace!(slice, reasons = exit.reasons, turns = exit.turns, ready = exit.ready, "slice ended");
            let mut state = shared.lock();
            state.harvest(memory, &exit)?;
            return state.harvest_trace(memory, exit.traced, options.trace_capacity);
        }
        self.recover(context, slice, exit)
    }

    fn recover(&mut self, context: &Context<'_>, slice: u32, exit: Option<SliceExit>) -> Result<(), BackendError> {
        let cut_workers = exit.map(|exit| exit.cut_workers);
        tracing::warn!(slice, ?cut_workers, budget = self.turn_budget, "the driver cut a slice; recovering its tasks");
        let (slots, metas) = self.slices.inspect(context.memory, context.options.slice_timeout)?;
        // A restartable op that is cut in the shortest slice there is would be cut for ever.
        let may_restart = self.turn_budget > 1;
        self.turn_budget = (self.turn_budget / 2).max(1);
        self.fresh = true;
        recovery::recover(&mut context.shared.lock(), context.memory, context.ops, &slots, &metas, may_restart)
    }
}

/// What a driver works on.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) memory: &'a Memory,
    pub(super) options: &'a RuntimeOptions,
    pub(super) shared: &'a Shared,
    pub(super) ops: &'a [Op],
}
