//! The policy that is taken where the caller brings none.

use std::time::Duration;

use super::{Decided, LaunchDecision, LaunchFacts, MegakernelLaunchRequest};

/// A slice that could have more workers is shorter than it may be, so that one with more can follow soon. On an H100 slices of 10 ms do 0.6 %
/// fewer turns a second than slices of 1 s, less than two runs of the same differ (docs/MEASUREMENTS.md).
const SHORT: Duration = Duration::from_millis(10);
/// How many times over the tasks have come back in the last slice, for it to be a storm.
const STORM: u64 = 16;
/// The part of the capacity that is left when room is short: one in so many.
const SHORT_OF_ROOM: u32 = 16;
/// The part of the usual `aging_ticks` that is left when tasks have waited past the bound: one in so many.
const SOONER: u32 = 4;

/// Recommends how to launch a slice.
///
/// **Workers**: the usual grid, and one worker for each batch where there are more batches than that. On an H100 (docs/MEASUREMENTS.md, boundary mode)
/// 65,536 tasks of lane-wide ops, which are 2,048 batches, do 246 million turns a second with 256 workers and 16 shards, 742 with 1,024 and 64, and 1,079
/// with 2,048 and 128. Never fewer than the usual grid: a round trip takes the same with 32 or 256 workers there, and who left early could not come
/// back for a burst. Tasks that are usually ready count as ready.
///
/// **Slice time**: all that is allowed if the grid is the largest, or if the tasks feed themselves, by coming back again and again. Short if more tasks
/// could make a larger grid worth while, and in boundary mode if there is little room, since what has ended makes room only when the slice
/// has.
///
/// **Linger**: all that is allowed, and nothing if there is no task that could become ready.
///
/// **Age**: all that is allowed, and a quarter if a task has waited longer than the bound in all its waits together, or usually one has.
#[must_use]
pub fn recommend(request: &MegakernelLaunchRequest, facts: &LaunchFacts) -> LaunchDecision {
    let batches = request.queue_len.max(facts.usual_depth).div_ceil(facts.batch.max(1));
    let workers = if facts.usual_workers >= facts.most_workers {
        Decided::new(facts.most_workers, "the device holds no more")
    } else if batches >= facts.most_workers {
        Decided::new(facts.most_workers, "more work than the device holds at once")
    } else if batches > facts.usual_workers {
        Decided::new(batches, "one for each batch that is ready, or usually is")
    } else {
        Decided::new(facts.usual_workers, "the usual grid")
    };
    let storm = request.requeue_count > STORM * u64::from(request.queue_len.max(facts.batch));
    let (whole, short) = (facts.slice_time, facts.slice_time.min(SHORT));
    let slice_time = if !facts.live && facts.room < facts.capacity / SHORT_OF_ROOM {
        Decided::new(short, "little room, and what has ended makes more")
    } else if workers.value == facts.most_workers {
        Decided::new(whole, "no slice could have more workers")
    } else if storm {
        Decided::new(whole, "the tasks come back by themselves")
    } else {
        Decided::new(short, "one with more workers may have to follow")
    };
    let linger = if request.queue_len == 0 && facts.waiting == 0 {
        Decided::new(Duration::ZERO, "nothing is there that could become ready")
    } else {
        Decided::new(facts.linger, "more may come")
    };
    let aging_ticks = if request.max_priority_age.max(facts.usual_age) > facts.age_bound() {
        Decided::new((facts.aging_ticks / SOONER).max(1), "a task has waited longer than the bound")
    } else {
        Decided::new(facts.aging_ticks, "no task has waited long")
    };
    LaunchDecision { workers, slice_time, linger, aging_ticks }
}

#[cfg(test)]
mod tests {
    use super::super::LaunchPins;
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// A large GPU.
    const FACTS: LaunchFacts = LaunchFacts {
        usual_workers: 256,
        most_workers: 1024,
        batch: 32,
        capacity: 1 << 16,
        room: 1 << 15,
        waiting: 0,
        usual_depth: 0,
        usual_age: 0,
        live: true,
        slice_time: Duration::from_millis(100),
        linger: Duration::from_micros(500),
        aging_ticks: 4096,
    };
    /// A CPU driver on a small machine.
    const TWO: LaunchFacts = LaunchFacts { usual_workers: 2, most_workers: 2, batch: 8, ..FACTS };

    fn queue(queue_len: u32) -> MegakernelLaunchRequest {
        MegakernelLaunchRequest { queue_len, ..MegakernelLaunchRequest::default() }
    }

    /// The numbers alone.
    fn numbers(decision: LaunchDecision) -> (u32, Duration, Duration, u32) {
        let LaunchDecision { workers, slice_time, linger, aging_ticks } = decision;
        (workers.value, slice_time.value, linger.value, aging_ticks.value)
    }

    #[test]
    fn an_empty_queue_gets_the_usual_grid_which_leaves_at_once() {
        let decision = recommend(&queue(0), &FACTS);
        assert_eq!(numbers(decision), (256, 10 * MS, Duration::ZERO, 4096));
        assert_eq!(decision.linger.reason, "nothing is there that could become ready");
        // Paused tasks may be resumed any time.
        assert_eq!(recommend(&queue(0), &LaunchFacts { waiting: 1, ..FACTS }).linger.value, FACTS.linger);
    }

    #[test]
    fn one_task_gets_the_usual_grid_which_waits_for_more_and_makes_way_for_a_larger_one() {
        let decision = recommend(&queue(1), &FACTS);
        assert_eq!(numbers(decision), (256, 10 * MS, FACTS.linger, 4096));
        assert_eq!(decision.workers.reason, "the usual grid");
        assert_eq!(decision.slice_time.reason, "one with more workers may have to follow");
    }

    #[test]
    fn a_worker_for_each_batch_from_the_usual_grid_up() {
        let workers = |queue_len| recommend(&queue(queue_len), &FACTS).workers.value;
        assert_eq!([256 * 32, 256 * 32 + 1, 300 * 32, 1023 * 32].map(workers), [256, 257, 300, 1023]);
    }

    #[test]
    fn more_work_than_the_device_can_hold_gets_all_of_it_for_the_whole_time() {
        for queue_len in [1024 * 32, 1 << 24, u32::MAX] {
            let decision = recommend(&queue(queue_len), &FACTS);
            assert_eq!(numbers(decision), (1024, 100 * MS, FACTS.linger, 4096));
            assert_eq!(decision.workers.reason, "more work than the device holds at once");
        }
    }

    #[test]
    fn a_requeue_storm_gets_the_whole_time_since_it_needs_no_host() {
        let storm = MegakernelLaunchRequest { requeue_count: 16 * 1000 + 1, ..queue(1000) };
        let decision = recommend(&storm, &FACTS);
        assert_eq!(numbers(decision), (256, 100 * MS, FACTS.linger, 4096));
        assert_eq!(decision.slice_time.reason, "the tasks come back by themselves");
        let calm = MegakernelLaunchRequest { requeue_count: 16 * 1000, ..storm };
        assert_eq!(recommend(&calm, &FACTS).slice_time.value, 10 * MS);
        let most = MegakernelLaunchRequest { requeue_count: u64::MAX, ..queue(u32::MAX) };
        assert_eq!(recommend(&most, &FACTS).workers.value, 1024);
    }

    #[test]
    fn ages_past_the_bound_make_age_outrank_priority_sooner() {
        let bound = 4 * 4096 + (1 << 16);
        let aged = |max_priority_age| {
            recommend(&MegakernelLaunchRequest { max_priority_age, ..queue(1) }, &FACTS).aging_ticks.value
        };
        assert_eq!([0, bound, bound + 1, u32::MAX].map(aged), [4096, 4096, 1024, 1024]);
        let least = LaunchFacts { aging_ticks: 1, ..FACTS };
        let old = MegakernelLaunchRequest { max_priority_age: u32::MAX, ..queue(1) };
        assert_eq!(recommend(&old, &least).aging_ticks.value, 1);
    }

    #[test]
    fn what_is_usual_counts_between_bursts_too() {
        let usual = LaunchFacts { usual_depth: 500 * 32, usual_age: u32::MAX, ..FACTS };
        let decision = recommend(&queue(1), &usual);
        assert_eq!((decision.workers.value, decision.aging_ticks.value), (500, 1024));
        assert_eq!(recommend(&queue(600 * 32), &usual).workers.value, 600);
    }

    #[test]
    fn under_memory_pressure_a_slice_that_cannot_be_heard_is_short_whatever_there_is_to_do() {
        let pressed = LaunchFacts { live: false, room: 4095, ..FACTS };
        let decision = recommend(&queue(1 << 16), &pressed);
        assert_eq!(numbers(decision), (1024, 10 * MS, FACTS.linger, 4096));
        assert_eq!(decision.slice_time.reason, "little room, and what has ended makes more");
        assert_eq!(recommend(&queue(1 << 16), &LaunchFacts { room: 4096, ..pressed }).slice_time.value, 100 * MS);
        assert_eq!(recommend(&queue(1 << 16), &LaunchFacts { live: true, ..pressed }).slice_time.value, 100 * MS);
    }

    #[test]
    fn a_device_with_two_workgroups_gets_two_for_the_whole_time_whatever_there_is_to_do() {
        for queue_len in [0, 1, 1000, u32::MAX] {
            let decision = recommend(&queue(queue_len), &TWO);
            assert_eq!((decision.workers.value, decision.slice_time.value), (2, 100 * MS));
            assert_eq!(decision.workers.reason, "the device holds no more");
        }
    }

    #[test]
    fn a_time_that_may_be_short_only_is_not_made_longer() {
        let facts = LaunchFacts { slice_time: 2 * MS, ..FACTS };
        assert_eq!(recommend(&queue(1), &facts).slice_time.value, 2 * MS);
    }

    #[test]
    fn pins_replace_what_was_decided_each_by_itself() {
        let decision = recommend(&queue(1), &FACTS);
        let second = Duration::from_secs(1);
        let all = LaunchPins {
            workers: Some(7),
            slice_time: Some(Duration::MAX),
            linger: Some(second),
            aging_ticks: Some(1 << 20),
        };
        assert_eq!(numbers(decision.settled(&all, &FACTS)), (7, Duration::MAX, second, 1 << 20));
        assert_eq!(decision.settled(&all, &FACTS).linger.reason, "pinned by the caller");
        let none = LaunchPins::default();
        assert_eq!(decision.settled(&none, &FACTS), decision);
        let one = decision.settled(&LaunchPins { linger: Some(second), ..none }, &FACTS);
        assert_eq!(one, LaunchDecision { linger: Decided::new(second, "pinned by the caller"), ..decision });
    }

    proptest! {
        #[test]
        fn no_policy_leaves_the_bounds(workers: u32, micros: u64, linger: u64, aging_ticks: u32) {
            let said = LaunchDecision {
                workers: Decided::new(workers, "mine"),
                slice_time: Decided::new(Duration::from_micros(micros), "mine"),
                linger: Decided::new(Duration::from_micros(linger), "mine"),
                aging_ticks: Decided::new(aging_ticks, "mine"),
            };
            let (workers, slice_time, linger, aging) = numbers(said.settled(&LaunchPins::default(), &FACTS));
            prop_assert!((1..=1024).contains(&workers));
            prop_assert!((Duration::from_micros(1)..=FACTS.slice_time).contains(&slice_time));
            prop_assert!(linger <= FACTS.linger);
            prop_assert!((1..=4096).contains(&aging));
        }

        #[test]
        fn what_is_recommended_needs_no_correction(
            queue_len: u32, requeue_count: u64, max_priority_age: u32, room in 0..1u32 << 16, waiting: u32, live: bool, two: bool,
        ) {
            let request = MegakernelLaunchRequest { queue_len, requeue_count, max_priority_age };
            let facts = LaunchFacts { room, waiting, live, ..if two { TWO } else { FACTS } };
            let decision = recommend(&request, &facts);
            prop_assert_eq!(decision.settled(&LaunchPins::default(), &facts), decision);
        }
    }
}
