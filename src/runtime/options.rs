//! What a user chooses when a runtime is made.

use std::time::Duration;

use crate::abi;
use crate::device::{Device, Residency, SelfTest};
use crate::error::BackendError;
use crate::policy::{LaunchFacts, LaunchPins, LaunchPolicy};

/// How a [`Runtime`](crate::Runtime) is laid out and driven. Every field has a default that works, and later versions may have more of them:
///
/// ```
/// use taskring::RuntimeOptions;
///
/// let options = RuntimeOptions { capacity: 1 << 16, tenants: 4, ..RuntimeOptions::default() };
/// ```
///
/// How each slice is launched is decided anew by a [policy](crate::policy). `workers`, `slice_time`, `linger` and `aging_ticks` are pins: what is `Some`
/// holds for all slices, what is `None` the policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Unfinished tasks that the runtime can hold, completions not yet consumed included: a power of two from 64 to 2^24, by default
    /// 16,384. Each costs about 300 bytes of device memory and 130 of the host's.
    pub capacity: u32,
    /// Workers, that is workgroups of one subgroup, in a slice. `None`: on a GPU usually 256 and up to 1,024 where there is work for them, but
    /// no more than the self-test saw make progress together; on a CPU driver, whose surplus workgroups only start when others leave, the
    /// number of cores. At most 8,192.
    pub workers: Option<u32>,
    /// The most workers that the policy may choose, for which the rings are laid out; without effect where `workers` is `Some`. `None`: as said there.
    pub most_workers: Option<u32>,
    /// Shards of the rings: a power of two up to 256; no more than there are workers are made. Claims in different shards do not contend; in
    /// exchange a worker sees only its own shard and one other each turn, so order between shards is loose, and each shard has rings for the whole
    /// capacity (40 bytes a slot), of at most 2^30 words together: 10 * shards * capacity. `None`: one for each 8 workers that a slice can have, at
    /// most 64 and at most 256 MiB.
    pub shards: Option<u32>,
    /// Whether a running slice hears the host.
    pub mode: Mode,
    /// What the device was found to do, for [`Mode::Auto`]; `None` for [`Device::self_test`], which runs once for each device and takes some
    /// tenths of a second.
    pub self_test: Option<SelfTest>,
    /// How long a slice lasts while there is something to do, from 1 µs to 1 s, or [`Duration::MAX`] if only its turns are to end it (or some
    /// minutes), on a GPU that no other process uses: NVIDIA's driver lets others wait until a slice has ended, and kills one for which they have waited some four
    /// seconds. `None`: up to 100 ms, a sixth of the strictest known watchdog (640 ms, Intel's). A turn is never interrupted: it has to be shorter
    /// than the watchdog by itself. The next slice is submitted before this one ends, so the device does not wait in between; what waits for a
    /// slice's end, such as [`Runtime::snapshot`](crate::Runtime::snapshot) in boundary mode, waits as long.
    pub slice_time: Option<Duration>,
    /// Live mode: how long a slice stays without anything to do before it leaves the device to others, at most 1 s. `None`: up to 500 µs. While it
    /// stays, a submission is heard within microseconds, and other queues share the device's time with it.
    pub linger: Option<Duration>,
    /// Turns that a worker takes before its slice ends, whatever its time, from 1 to 2^30. `None`: 512 in boundary mode, where the next slice
    /// is the first to hear the host, and 2^24 in live mode. Where the driver ends loops, four batches count as another turn.
    pub turn_budget: Option<u32>,
    /// Ticks (claims) of waiting that weigh as much as one step of priority, from 1 to 2^20. `None`: 4,096, or fewer when tasks have waited long; no
    /// policy can make it more, so the bound that follows holds. With one shard a ready task is claimed after at most
    /// `4 * aging_ticks + capacity + 32 * batch * workers` further claims, whatever else is submitted; with several, count only the claims by
    /// workers that look at its shard, which each worker does once in as many turns as there are shards.
    pub aging_ticks: Option<u32>,
    /// What decides how each slice is launched, up to the pins and the bounds; `None` for [`policy::recommend`](crate::policy::recommend).
    pub policy: Option<LaunchPolicy>,
    /// Tasks that a worker claims at once, at most, from 1 to 128; no more than its subgroup has lanes. `None` for as many.
    pub batch: Option<u32>,
    /// Entries of the tenant table, from 1 to 2^20 and by default 32: ids from 0 to one less exist.
    pub tenants: u32,
    /// Entries of the buffer table, from 1 to 2^20 and by default 1,024: so many registrations at a time.
    pub buffers: u32,
    /// Whether completions carry ages and counts; by default they do. Without, a completion is 16 bytes of the device's writes, and never 32.
    pub counts: bool,
    /// Turns of tasks that a slice can record for [`Runtime::take_trace`](crate::Runtime::take_trace), 48 bytes each, at most 2^24; 0, the default,
    /// records nothing.
    pub trace_capacity: u32,
    /// Longest wait for one slice where the caller names no time, as on drop; by default 20 s, well above what a driver's watchdog allows.
    pub slice_timeout: Duration,
    /// Whether a submission launches a slice if none runs, and the runtime has a thread of its own; by default so. Without it, only waits and
    /// [`Runtime::poll`](crate::Runtime::poll) launch any.
    pub launch_on_submit: bool,
    /// Whether the runtime submits no slices by itself, so that those of [`Runtime::record_slice`](crate::Runtime::record_slice) are all that there
    /// are. Waits wait for them. What copies slots for a snapshot, a stop or a recovery, and what announces ends, is submitted all the same.
    pub record_only: bool,
    /// Makes each worker that runs a task in this turn (1 is the first) or a later one of the first slice behave as if the driver had cut it
    /// there. For tests of recovery.
    #[doc(hidden)]
    pub cut_turn: Option<u32>,
    /// Makes so many submissions, the first ones, go unheard by the slice that runs, as if it had just looked for the last time. For tests of
    /// that race.
    #[doc(hidden)]
    pub missed_bells: u32,
    /// Makes so many changes of epochs, the first ones, be written without the hint to look for them. For tests that a lost hint costs no task.
    #[doc(hidden)]
    pub missed_signals: u32,
}

/// Whether a running slice hears the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// As [`RuntimeOptions::self_test`] decides; without one as the environment variable `TASKRING_MODE` says (`live` or `boundary`), and else
    /// as the device's own self-test does.
    #[default]
    Auto,
    /// Slices read their mailbox while they run, whatever the self-test would say. Where they do not see it, tasks wait for the next slice.
    Live,
    /// Slices read their mailbox when they begin.
    Boundary,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self {
            capacity: 16_384,
            workers: None,
            most_workers: None,
            shards: None,
            mode: Mode::Auto,
            self_test: None,
            slice_time: None,
            linger: None,
            turn_budget: None,
            aging_ticks: None,
            policy: None,
            batch: None,
            tenants: 32,
            buffers: 1_024,
            counts: true,
            trace_capacity: 0,
            slice_timeout: Duration::from_secs(20),
            launch_on_submit: true,
            record_only: false,
            cut_turn: None,
            missed_bells: 0,
            missed_signals: 0,
        }
    }
}

impl RuntimeOptions {
    pub(super) fn check(&self) -> Result<(), BackendError> {
        let within = |option, value: u32, range: std::ops::RangeInclusive<u32>, must| {
            if range.contains(&value) {
                Ok(())
            } else {
                Err(BackendError::BadOption { option, value: value.into(), must })
            }
        };
        if !self.capacity.is_power_of_two() || !(64..=abi::TR_INDEX_MASK + 1).contains(&self.capacity) {
            let must = "a power of two from 64 to 2^24";
            return Err(BackendError::BadOption { option: "capacity", value: self.capacity.into(), must });
        }
        within("workers", self.workers.unwrap_or(1), 1..=MOST_WORKERS_EVER, "from 1 to 8192")?;
        within("most_workers", self.most_workers.unwrap_or(1), 1..=MOST_WORKERS_EVER, "from 1 to 8192")?;
        let shards = self.shards.unwrap_or(1);
        if !shards.is_power_of_two() || shards > 256 {
            return Err(BackendError::BadOption {
                option: "shards",
                value: shards.into(),
                must: "a power of two up to 256",
            });
        }
        if self.ring_words(shards) > MOST_RING_WORDS {
            return Err(BackendError::BadOption {
                option: "shards",
                value: shards.into(),
                must: "so few that 10 * shards * capacity, the words of all rings, is at most 2^30",
            });
        }
        within("turn_budget", self.turn_budget.unwrap_or(1), 1..=1 << 30, "from 1 to 2^30")?;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        if let Some(slice_time) = self.slice_time.filter(|time| *time != Duration::MAX) {
            within("slice_time", micros(slice_time), 1..=1_000_000, "from 1 us to 1 s, or Duration::MAX")?;
        }
        within("linger", self.linger.map_or(0, micros), 0..=1_000_000, "at most 1 s")?;
        within("aging_ticks", self.aging_ticks.unwrap_or(1), 1..=1 << 20, "from 1 to 2^20")?;
        within("batch", self.batch.unwrap_or(1), 1..=128, "from 1 to 128")?;
        within("tenants", self.tenants, 1..=1 << 20, "from 1 to 2^20")?;
        within("buffers", self.buffers, 1..=abi::TR_HANDLE_INDEX_MASK + 1, "from 1 to 2^20")?;
        within("trace_capacity", self.trace_capacity, 0..=1 << 24, "at most 2^24")?;
        within("cut_turn", self.cut_turn.unwrap_or(1), 1..=u32::MAX, "at least 1")
    }

    pub(super) fn pins(&self) -> LaunchPins {
        let Self { workers, slice_time, linger, aging_ticks, .. } = *self;
        LaunchPins { workers, slice_time, linger, aging_ticks }
    }

    /// The most workers that a slice on this device can have, as far as is known before it is tested.
    pub(super) fn most_workers_on(&self, device: &Device) -> u32 {
        let asked = self.workers.or(self.most_workers);
        asked.unwrap_or_else(|| if device.is_cpu() { cores() } else { MOST_WORKERS })
    }

    /// What the policy is told, before there are any tasks.
    pub(super) fn launch_facts(&self, device: &Device, residency: &Residency) -> LaunchFacts {
        let together = match residency {
            // 0 where that was not measured.
            Residency::Live { workgroups, .. } if *workgroups > 0 => *workgroups,
            _ => u32::MAX,
        };
        let asked = self.workers.or(self.most_workers);
        let most_workers = asked.unwrap_or_else(|| self.most_workers_on(device).min(together));
        let usual = if device.is_cpu() { cores() } else { USUAL_WORKERS };
        let lanes = device.plan().subgroup_size;
        LaunchFacts {
            usual_workers: self.workers.unwrap_or(usual).min(most_workers),
            most_workers,
            batch: self.batch.unwrap_or(lanes).min(lanes),
            capacity: self.capacity,
            room: self.capacity,
            waiting: 0,
            usual_depth: 0,
            usual_age: 0,
            live: residency.is_live(),
            slice_time: self.slice_time.unwrap_or(SLICE_TIME),
            linger: self.linger.unwrap_or(LINGER),
            aging_ticks: self.aging_ticks.unwrap_or(AGING_TICKS),
        }
    }
}

/// The usual grid on a GPU, and the largest; `policy::recommend` says what they rest on.
const USUAL_WORKERS: u32 = 256;
const MOST_WORKERS: u32 = 1_024;
/// With which the bound on waiting stays within the ages that count (`abi::TR_AGE_LIMIT`), in batches of 128.
const MOST_WORKERS_EVER: u32 = 8_192;
/// The longest times, and the largest number of ticks, that a policy may choose.
const SLICE_TIME: Duration = Duration::from_millis(100);
const LINGER: Duration = Duration::from_micros(500);
const AGING_TICKS: u32 = 4_096;

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(2, |n| u32::try_from(n.get()).unwrap_or(2))
}

/// Bytes of rings that the default number of shards stays under.
const RING_BYTES: u64 = 256 << 20;
/// Words of all rings: the kernel finds one by an index of 32 bits, and NVIDIA's driver (580) goes astray where that is more than 2^32 bytes.
const MOST_RING_WORDS: u64 = 1 << 30;

impl RuntimeOptions {
    /// How many shards there are with this many workers: never more, or some would be nobody's home.
    pub(super) fn shards_for(&self, workers: u32) -> u32 {
        let most = |limit: u32| 1 << limit.max(1).ilog2();
        let fitting = RING_BYTES / (4 * self.ring_words(1));
        let default = (workers / 8).min(64).min(u32::try_from(fitting).unwrap_or(u32::MAX));
        most(self.shards.unwrap_or(default).min(workers))
    }

    /// Words of all rings of so many shards; an entry has two.
    fn ring_words(&self, shards: u32) -> u64 {
        2 * u64::from(abi::TASK_PRIORITIES) * u64::from(shards) * u64::from(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(RuntimeOptions::default().check(), Ok(()));
    }

    #[test]
    fn there_are_as_many_shards_as_workers_and_memory_allow() {
        let shards =
            |capacity, shards, workers| RuntimeOptions { capacity, shards, ..Default::default() }.shards_for(workers);
        assert_eq!([1, 4, 16, 100, 256, 4096].map(|workers| shards(1 << 14, None, workers)), [1, 1, 2, 8, 32, 64]);
        assert_eq!([1 << 19, 1 << 20, 1 << 22, 1 << 24].map(|capacity| shards(capacity, None, 256)), [8, 4, 1, 1]);
        assert_eq!(shards(1 << 14, Some(8), 256), 8);
        assert_eq!(shards(1 << 14, Some(8), 2), 2, "a shard needs a worker at home");
    }

    #[test]
    fn every_word_of_the_rings_has_an_index() {
        for log2 in 6..=24 {
            let with = |shards| RuntimeOptions { capacity: 1 << log2, shards, ..Default::default() };
            for shards in (0..=8).map(|log2| 1u32 << log2) {
                let words = 10 * (u64::from(shards) << log2);
                let asked = with(Some(shards)).check();
                let named = matches!(asked, Err(BackendError::BadOption { option: "shards", .. }));
                assert_eq!((asked.is_ok(), named), (words <= 1 << 30, words > 1 << 30), "2^{log2}, {shards}");
            }
            for workers in [1, 7, 8, 256, 1024, MOST_WORKERS_EVER] {
                let options = with(None);
                let (checked, shards) = (options.check(), options.shards_for(workers));
                assert_eq!(checked, Ok(()));
                assert!(10 * (u64::from(shards) << log2) <= 1 << 30, "2^{log2}, {workers} workers");
            }
        }
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        let refused = |options: RuntimeOptions| match options.check() {
            Err(BackendError::BadOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        let base = RuntimeOptions::default;
        assert_eq!(refused(RuntimeOptions { capacity: 100, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { capacity: 32, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { capacity: 1 << 25, ..base() }), "capacity");
        assert_eq!(refused(RuntimeOptions { workers: Some(0), ..base() }), "workers");
        assert_eq!(refused(RuntimeOptions { most_workers: Some(8_193), ..base() }), "most_workers");
        assert_eq!(refused(RuntimeOptions { turn_budget: Some(0), ..base() }), "turn_budget");
        assert_eq!(refused(RuntimeOptions { slice_time: Some(Duration::ZERO), ..base() }), "slice_time");
        assert_eq!(refused(RuntimeOptions { linger: Some(Duration::from_secs(2)), ..base() }), "linger");
        assert_eq!(refused(RuntimeOptions { aging_ticks: Some(0), ..base() }), "aging_ticks");
        assert_eq!(refused(RuntimeOptions { tenants: 0, ..base() }), "tenants");
        assert_eq!(refused(RuntimeOptions { batch: Some(0), ..base() }), "batch");
    }
}
