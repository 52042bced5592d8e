//! How long slices may run, in the units that the kernel counts in: of the device's clock, or its turns where it has none.
//!
//! No clock's rate is known beforehand, and a turn takes as long as its ops. So the first slices are short, and from each slice that was long
//! enough to tell the rate is learned: at first from timestamps around it, which delay a slice's end by some microseconds, until one slice confirms another,
//! and then from what the host saw of it. The host sees a slice begin too early and end too late, never the other way round, and counts what other processes had of the device
//! meanwhile. So a rate is only ever underestimated, and slices are rather too short than too long.

use std::time::Duration;

/// Turns of a slice while the rate is not known yet, and of boundary mode's.
const FEW_TURNS: u32 = 512;
/// Turns of a slice that is bounded by its time.
const MANY_TURNS: u32 = 1 << 24;
/// Slices that the host saw take less than this tell nothing at first: launching them takes a good part of it.
const TELLING_SEEN: Duration = Duration::from_micros(500);
/// The same where timestamps tell, which have steps of up to a microsecond, and of a clock that is known to be at least so fast: if it once seemed much
/// slower than it is, slices are so short that the host never sees a long one. An idle slice of the H200's default grid takes 17 to 80 microseconds, by its clocks.
const TELLING: Duration = Duration::from_micros(10);
/// How much faster a clock may seem than it was thought to be, and that still be confirmed: the first slices are short, and others may have the device
/// before a slice's first worker begins.
const CONFIRMED: f64 = 1.125;
/// How much longer than the one before a slice may be planned where it is counted in turns: the next turns may be slower ones.
const GROWTH: f64 = 2.0;
/// Largest number of units: the kernel compares differences as signed numbers.
const MOST_UNITS: f64 = (i32::MAX / 2) as f64;

/// What a slice is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) timed: bool,
    pub(super) capped: bool,
    pub(super) turn_budget: u32,
    pub(super) time_budget: u32,
    pub(super) linger: u32,
}

/// How long a slice took, at most.
#[derive(Clone, Copy, Debug)]
pub(super) enum Took {
    /// As the host saw it.
    Seen(Duration),
    /// As timestamps around it say.
    Stamped(Duration),
}

#[derive(Clone, Debug)]
pub(super) struct Pace {
    timed: bool,
    live: bool,
    /// Whether the driver ends loops.
    capped: bool,
    /// The most turns, whatever the time.
    turn_limit: u32,
    /// Units in a second, at least.
    rate: Option<f64>,
    /// Whether a second slice said much the same.
    confirmed: bool,
    /// Turns of the next slice while the rate is not known.
    trial_turns: u32,
}

impl Pace {
    /// `timed`: the kernel has a clock. `asked` and `cap`: the caller's bound on the turns of a slice, and the one that comes from a driver that ends
    /// loops.
    pub(super) fn new(timed: bool, live: bool, asked: Option<u32>, cap: Option<u32>) -> Self {
        let usual = if live { MANY_TURNS } else { FEW_TURNS };
        let turn_limit = asked.into_iter().chain(cap).min().unwrap_or(usual);
        Self { timed, live, capped: cap.is_some(), turn_limit, rate: None, confirmed: false, trial_turns: FEW_TURNS }
    }

    pub(super) fn turn_limit(&self) -> u32 {
        self.turn_limit
    }

    /// For a slice that may last and linger as long as this.
    pub(super) fn orders(&self, slice_time: Duration, linger: Duration) -> Orders {
        let Self { timed, capped, turn_limit, .. } = *self;
        let lingers = self.live && !linger.is_zero();
        let Some(rate) = self.rate else {
            return Orders {
                timed,
                capped,
                turn_budget: turn_limit.min(self.trial_turns),
                time_budget: MOST_UNITS as u32,
                linger: if lingers { MOST_UNITS as u32 } else { 0 },
            };
        };
        let units = |time: Duration| (time.as_secs_f64() * rate).clamp(1.0, MOST_UNITS) as u32;
        // Nothing comes to a slice in boundary mode.
        let linger = if lingers { units(linger) } else { 0 };
        Orders { timed, capped, turn_budget: turn_limit, time_budget: units(slice_time), linger }
    }

    /// Whether the next slice should have timestamps around it: as long as nothing is sure, and if the host sees much else before a recorded one ends.
    /// (What that says of a clock is no news, as it seems slower than it is.)
    pub(super) fn wants_stamps(&self, recorded: bool) -> bool {
        if self.timed { !self.confirmed } else { recorded || self.rate.is_none() }
    }

    /// A slice counted so many units in this time. `spent`: it ended because its budget did.
    pub(super) fn learn(&mut self, units: u32, took: Took, spent: bool) {
        let (took, telling) = match took {
            Took::Seen(took) if self.rate.is_none() || !self.timed => (took, TELLING_SEEN),
            Took::Seen(took) | Took::Stamped(took) => (took, TELLING),
        };
        if took < telling || units == 0 {
            // One that ended for want of tasks says nothing of how long that many turns would have been.
            if self.rate.is_none() && spent {
                self.trial_turns = self.trial_turns.saturating_mul(2).min(MANY_TURNS);
            }
            return;
        }
        let seen = f64::from(units) / took.as_secs_f64();
        self.confirmed |= self.rate.is_some_and(|rate| (rate / 2.0..=rate * CONFIRMED).contains(&seen));
        self.rate = Some(match self.rate {
            None => seen,
            // A clock has one rate, and every estimate is too low.
            Some(rate) if self.timed => rate.max(seen),
            Some(rate) => seen.min(rate * GROWTH),
        });
    }

    /// The driver cut a slice: shorter ones end before its limit.
    pub(super) fn shorten(&mut self) {
        self.capped = true;
        self.turn_limit = (self.turn_limit.min(FEW_TURNS) / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The host saw a slice end, not because of its budget.
    fn learn(pace: &mut Pace, units: u32, took: Duration) {
        pace.learn(units, Took::Seen(took), false);
    }

    fn live(timed: bool) -> Pace {
        Pace::new(timed, true, None, None)
    }

    fn orders(pace: &Pace) -> Orders {
        pace.orders(100 * MS, MS)
    }

    #[test]
    fn slices_are_short_until_the_rate_is_known() {
        for timed in [false, true] {
            let mut pace = live(timed);
            assert_eq!(orders(&pace).turn_budget, 512);
            learn(&mut pace, 10, MS / 10);
            assert_eq!(orders(&pace).turn_budget, 512, "too short to tell, and nothing says that its turns were");
            pace.learn(10, Took::Seen(MS / 10), true);
            assert_eq!(orders(&pace).turn_budget, 1024, "these turns were too few to tell");
            learn(&mut pace, 1000, MS);
            let Orders { turn_budget, time_budget, linger, .. } = orders(&pace);
            assert_eq!((turn_budget, time_budget, linger), (1 << 24, 100_000, 1000));
        }
    }

    #[test]
    fn timestamps_are_wanted_until_a_rate_is_known_and_a_clocks_confirmed_and_then_where_a_frame_is_in_the_way_of_turns()
     {
        for (timed, after, later) in [(true, [true, true], [false, false]), (false, [false, true], [false, true])] {
            let mut pace = live(timed);
            let wants = |pace: &Pace| [false, true].map(|recorded| pace.wants_stamps(recorded));
            assert_eq!(wants(&pace), [true, true]);
            pace.learn(100, Took::Stamped(MS / 1000), false);
            assert_eq!(wants(&pace), [true, true], "too short to tell");
            pace.learn(100, Took::Stamped(MS / 100), false);
            assert_eq!(wants(&pace), after);
            pace.learn(1000, Took::Stamped(MS / 10), false);
            assert_eq!(wants(&pace), later);
        }
    }

    #[test]
    fn a_slice_that_was_kept_waiting_confirms_nothing() {
        let mut pace = live(true);
        // Ten units are a microsecond.
        for (units, took, wants) in
            [(1_000, MS, true), (1_000, MS / 10, true), (10_000, 40 * MS, true), (10_000, MS, false), (10, MS, false)]
        {
            pace.learn(units, Took::Stamped(took), false);
            assert_eq!(pace.wants_stamps(false), wants, "{units} units in {took:?}");
        }
        assert_eq!(orders(&pace).linger, 10_000);
    }

    #[test]
    fn what_others_have_of_the_device_meanwhile_does_not_make_a_clock_slower() {
        let mut pace = live(true);
        pace.learn(1000, Took::Stamped(MS), false);
        learn(&mut pace, 1000, 100 * MS);
        assert_eq!(orders(&pace).time_budget, 100_000);
    }

    #[test]
    fn a_clock_is_at_least_as_fast_as_it_ever_seemed() {
        let mut pace = live(true);
        learn(&mut pace, 1000, MS);
        learn(&mut pace, 1000, 50 * MS);
        assert_eq!(orders(&pace).time_budget, 100_000);
        learn(&mut pace, 3000, MS);
        assert_eq!(orders(&pace).time_budget, 300_000);
        learn(&mut pace, 300, MS / 200);
        assert_eq!(orders(&pace).time_budget, 300_000, "a very short one tells nothing");
    }

    #[test]
    fn a_clock_that_seemed_a_thousand_times_slower_than_it_is_is_known_again_after_a_few_slices() {
        let mut pace = live(true);
        // Of the first slice, a tenth of a millisecond long, others had the device nearly all the time.
        pace.learn(100, Took::Stamped(100 * MS), false);
        let launching = MS / 50;
        for _ in 0..10 {
            // In truth a unit is a microsecond; the slice lingers for as long as it is told, and a little longer.
            let units = orders(&pace).linger + 20;
            learn(&mut pace, units, Duration::from_micros(units.into()) + launching);
        }
        let linger = orders(&pace).linger;
        assert!((900..=1000).contains(&linger), "{linger} of 1000 units in a millisecond");
    }

    #[test]
    fn turns_that_become_slow_shorten_the_next_slice_and_fast_ones_lengthen_it_slowly() {
        let mut pace = live(false);
        learn(&mut pace, 1000, MS);
        learn(&mut pace, 1000, 50 * MS);
        assert_eq!(orders(&pace).time_budget, 2000);
        learn(&mut pace, 1_000_000, MS);
        assert_eq!(orders(&pace).time_budget, 4000);
    }

    #[test]
    fn a_slice_whose_linger_is_nothing_leaves_at_once_and_timestamps_tell_sooner() {
        let mut pace = live(true);
        let recorded = |pace: &Pace| pace.orders(2 * MS, Duration::ZERO);
        assert_eq!((recorded(&pace).linger, recorded(&pace).turn_budget), (0, 512));
        pace.learn(100, Took::Stamped(MS / 10), false);
        let Orders { time_budget, linger, turn_budget, .. } = recorded(&pace);
        assert_eq!((time_budget, linger, turn_budget), (2000, 0, 1 << 24), "a tenth of a millisecond tells");
        assert_eq!(orders(&pace).linger, 1000, "the others do");
    }

    #[test]
    fn a_bound_on_the_turns_holds_whatever_the_time_allows() {
        let mut pace = Pace::new(true, true, Some(7), None);
        assert_eq!(orders(&pace).turn_budget, 7);
        learn(&mut pace, 1000, MS);
        assert_eq!(orders(&pace).turn_budget, 7);
    }

    #[test]
    fn where_a_driver_ends_loops_batches_are_part_of_the_budget_and_the_smaller_bound_holds() {
        let budget = |asked, cap| {
            let Orders { capped, turn_budget, .. } = orders(&Pace::new(true, false, asked, cap));
            (capped, turn_budget)
        };
        assert_eq!(budget(Some(900), Some(400)), (true, 400));
        assert_eq!(budget(Some(300), Some(400)), (true, 300));
        assert_eq!(budget(Some(900), None), (false, 512), "the rate is not known yet");
    }

    #[test]
    fn a_cut_halves_the_turns_down_to_one() {
        let mut pace = live(true);
        assert!(!orders(&pace).capped);
        let budgets: Vec<u32> = (0..10)
            .map(|_| {
                pace.shorten();
                orders(&pace).turn_budget
            })
            .collect();
        assert_eq!(budgets, [256, 128, 64, 32, 16, 8, 4, 2, 1, 1]);
        assert!(orders(&pace).capped);
    }

    #[test]
    fn no_time_is_too_long_for_the_kernel_to_compare() {
        let mut pace = Pace::new(true, true, None, None);
        learn(&mut pace, 1_000_000, MS);
        let Orders { time_budget, linger, .. } = pace.orders(Duration::MAX, Duration::MAX);
        assert!(time_budget.cast_signed() > 0 && linger.cast_signed() > 0);
    }

    #[test]
    fn nothing_lingers_in_boundary_mode() {
        let mut pace = Pace::new(true, false, None, None);
        assert_eq!((orders(&pace).linger, orders(&pace).turn_budget), (0, 512));
        learn(&mut pace, 1000, MS);
        assert_eq!((orders(&pace).linger, orders(&pace).turn_budget), (0, 512));
    }
}
