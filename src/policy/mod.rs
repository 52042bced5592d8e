//! From what is seen of a queue to what is launched.
//!
//! A [snapshot](crate::TaskQueueSnapshot) becomes a [request](MegakernelLaunchRequest); the request, with [what is known of the
//! device](LaunchFacts), becomes a [decision](LaunchDecision). Each step is a pure function. The runtime takes them before each slice, puts the
//! caller's pins over the outcome, and launches with it: [`Runtime::last_launch`](crate::Runtime::last_launch) shows all of it.

mod recommend;
mod request;

pub use recommend::recommend;
pub use request::MegakernelLaunchRequest;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::TaskQueueSnapshot;

/// What a decision takes into account beside the request. To test a policy, take [`Launch::facts`], or the default, which is all zeros, and set what
/// matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchFacts {
    /// Workers of the usual grid.
    pub usual_workers: u32,
    /// The most workers that the device holds and the runtime's rings are laid out for.
    pub most_workers: u32,
    /// Tasks that a worker takes at once: its lanes, or fewer if the runtime was told so.
    pub batch: u32,
    /// Tasks that the runtime can hold.
    pub capacity: u32,
    /// How many more it could take now.
    pub room: u32,
    /// Tasks that wait for epochs.
    pub waiting: u32,
    /// Tasks that are usually ready, by `Runtime::partition_trends` (feature `self-substrate-adapters`); 0 if nobody has asked for those.
    pub usual_depth: u32,
    /// The largest age that one of them usually has, from there too.
    pub usual_age: u32,
    /// Whether a running slice hears the host.
    pub live: bool,
    /// The longest that a slice should last. A policy may say less.
    pub slice_time: Duration,
    /// The longest that a slice should linger. A policy may say less.
    pub linger: Duration,
    /// Ticks of age that weigh as much as one step of priority, at most: the bound on waiting follows from it. A policy may say less.
    pub aging_ticks: u32,
}

impl LaunchFacts {
    /// The part of the bound on a ready task's wait, in ticks, that does not grow with the grid: `4 * aging_ticks + capacity`, of
    /// [`RuntimeOptions::aging_ticks`](crate::RuntimeOptions::aging_ticks).
    #[must_use]
    pub fn age_bound(&self) -> u32 {
        self.aging_ticks.saturating_mul(4).saturating_add(self.capacity)
    }
}

/// A number that was decided, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<T> {
    /// The number.
    pub value: T,
    /// Why it is that.
    pub reason: &'static str,
}

impl<T> Decided<T> {
    /// Decides for a value.
    pub const fn new(value: T, reason: &'static str) -> Self {
        Self { value, reason }
    }
}

/// How a slice is to be launched. Later versions may decide more, so take what is not yours from [`recommend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchDecision {
    /// Workers, that is workgroups of one subgroup.
    pub workers: Decided<u32>,
    /// How long it lasts while there is something to do.
    pub slice_time: Decided<Duration>,
    /// How long it stays without anything to do. In boundary mode nothing can come to it, and it never does.
    pub linger: Decided<Duration>,
    /// Ticks of age that weigh as much as one step of priority.
    pub aging_ticks: Decided<u32>,
}

/// What the caller has decided, once and for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LaunchPins {
    pub(crate) workers: Option<u32>,
    pub(crate) slice_time: Option<Duration>,
    pub(crate) linger: Option<Duration>,
    pub(crate) aging_ticks: Option<u32>,
}

impl LaunchDecision {
    /// With the pins in place of what was decided, and all of it in range: whatever a policy says, a slice has from 1 to the most workers, no time
    /// is longer than the longest, and age counts at least as much as the stated bound on waiting needs.
    pub(crate) fn settled(self, pins: &LaunchPins, facts: &LaunchFacts) -> Self {
        fn settle<T: Ord + Copy>(decided: Decided<T>, pin: Option<T>, least: T, most: T) -> Decided<T> {
            match pin {
                Some(value) => Decided::new(value, "pinned by the caller"),
                None if decided.value < least => Decided::new(least, "the policy said less than there can be"),
                None if decided.value > most => Decided::new(most, "the policy said more than there may be"),
                None => decided,
            }
        }
        Self {
            workers: settle(self.workers, pins.workers, 1, facts.most_workers),
            slice_time: settle(self.slice_time, pins.slice_time, Duration::from_micros(1), facts.slice_time),
            linger: settle(self.linger, pins.linger, Duration::ZERO, facts.linger),
            aging_ticks: settle(self.aging_ticks, pins.aging_ticks, 1, facts.aging_ticks),
        }
    }
}

/// What a slice was launched with, and all that this followed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Launch {
    /// What the host knew of the tasks, without asking the device; see [`Runtime::last_launch`](crate::Runtime::last_launch).
    pub snapshot: TaskQueueSnapshot,
    /// What that asks for.
    pub request: MegakernelLaunchRequest,
    /// What is known beside.
    pub facts: LaunchFacts,
    /// What was launched.
    pub decision: LaunchDecision,
}

/// A caller's own policy. Two are equal if they are clones of one.
///
/// It is asked before each slice, by whichever thread launches it: it should take less than a microsecond, and must not call the runtime.
#[derive(Clone)]
pub struct LaunchPolicy(Arc<Rule>);

type Rule = dyn Fn(&MegakernelLaunchRequest, &LaunchFacts) -> LaunchDecision + Send + Sync;

impl LaunchPolicy {
    /// A policy that decides by a function. [`recommend`] is the one that is taken where none is given; a policy may ask it and change a part of
    /// the answer.
    ///
    /// ```
    /// use taskring::policy::{Decided, LaunchDecision, LaunchPolicy, recommend};
    ///
    /// let small = LaunchPolicy::new(|request, facts| {
    ///     let decision = recommend(request, facts);
    ///     let workers = Decided::new(decision.workers.value.min(64), "the rest of the device is for frames");
    ///     LaunchDecision { workers, ..decision }
    /// });
    /// # _ = small;
    /// ```
    pub fn new(
        rule: impl Fn(&MegakernelLaunchRequest, &LaunchFacts) -> LaunchDecision + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(rule))
    }

    pub(crate) fn decide(&self, request: &MegakernelLaunchRequest, facts: &LaunchFacts) -> LaunchDecision {
        (self.0)(request, facts)
    }
}

impl fmt::Debug for LaunchPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaunchPolicy(..)")
    }
}

impl PartialEq for LaunchPolicy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LaunchPolicy {}
