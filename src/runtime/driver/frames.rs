//! Slices that an engine submits: recorded into its command buffer, and ended when its semaphore says so.

use std::time::{Duration, Instant};

use ash::vk;

use super::{Context, Driver, Pending, SLICES, half_time};
use crate::error::BackendError;
use crate::policy::{Decided, Launch};
use crate::runtime::timelines::Reached;

/// What has to be undone if a recorded slice is never submitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    last: u32,
    fresh: bool,
    launch: Option<Launch>,
}

impl Driver {
    /// Records a slice, if there is something to do for one and its place is free. It has ended when the timeline has reached the value.
    ///
    /// # Safety
    /// As for [`Runtime::record_slice`](crate::Runtime::record_slice).
    pub(in crate::runtime) unsafe fn record(
        &mut self,
        context: &Context<'_>,
        commands: vk::CommandBuffer,
        end: Reached,
        budget: Duration,
    ) -> Result<bool, BackendError> {
        self.reap(context)?;
        let promised =
            self.pending.iter().filter(|pending| pending.end.0.raw() == end.0.raw()).map(|pending| pending.end.1);
        let taken = promised.fold(end.0.value()?, u64::max);
        if end.1 <= taken {
            return Err(BackendError::ValueTaken { value: end.1, taken });
        }
        let wanted = {
            let mut state = context.shared.lock();
            state.relay(context.memory)?;
            // One behind another is heard for the same reason as in `is_due`.
            let behind = context.live && context.options.trace_capacity == 0 && !self.cut && !state.stopped;
            match self.pending.len() {
                0 => state.launches(),
                count => behind && count < SLICES && state.journal.in_flight() > 0,
            }
        };
        if !wanted {
            return Ok(false);
        }
        let mut launch = self.decide(context)?;
        launch.decision.slice_time = Decided::new(budget, "the budget that it was recorded with");
        launch.decision.linger = Decided::new(Duration::ZERO, "no slice lingers in somebody else's frame");
        let state = &mut *context.shared.lock();
        let before = Before { last: self.last, fresh: self.fresh, launch: state.last_launch };
        let (slice, run) = self.prepare(context, state, &launch, true)?;
        // SAFETY: the caller's promises; what had this place has ended.
        unsafe { self.slices.record(commands, context.memory, run) };
        // The engine's submission waits for what it has to wait for; these are kept as long as they may be needed.
        let reached = state.tables.timelines.take_reached();
        let (since, half_time, recorded) = (Instant::now(), half_time(&launch), Some(before));
        self.pend(state, launch, Pending { slice, run, end, since, half_time, recorded, reached });
        Ok(true)
    }

    /// Forgets the slice that was recorded last, if it may still be waited for. True if there was one.
    ///
    /// # Safety
    /// As for [`Runtime::discard_slice`](crate::Runtime::discard_slice).
    pub(in crate::runtime) unsafe fn discard(&mut self, context: &Context<'_>) -> Result<bool, BackendError> {
        self.reap(context)?;
        let Some(before) = self.pending.back().and_then(|last| last.recorded) else { return Ok(false) };
        let reached = self.pending.pop_back().map(|last| last.reached).unwrap_or_default();
        (self.last, self.fresh) = (before.last, before.fresh);
        let mut state = context.shared.lock();
        state.tables.timelines.put_back(reached);
        (state.wants_slice, state.slice_runs) = (true, !self.pending.is_empty());
        state.stats.slices -= 1;
        state.unlaunch(before.launch);
        Ok(true)
    }
}
