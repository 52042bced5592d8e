//! This crate's scenarios. A new one is a file here, and a line in [`all`].

mod aging;
mod capacity;
mod drain;
mod idle;
mod inversions;
mod load;
mod mixed;
pub mod ops;
mod other_queue;
mod phases;
mod prefilled;
mod priority;
mod recorded;
mod resume;
mod round_trip;
mod slices;
mod stream;
mod tenants;
mod turns;

use std::time::Instant;

use crate::{Error, On, Run, Scenario, Size, Submissions, Variant};

/// All scenarios, in the order in which they run.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        round_trip::ROUND_TRIP,
        stream::STREAM,
        drain::DRAIN,
        prefilled::PREFILLED,
        turns::YIELD,
        turns::REQUEUE,
        mixed::MIXED,
        tenants::TENANTS,
        resume::RESUME,
        priority::PRIORITY_UNDER_LOAD,
        inversions::INVERSIONS,
        aging::AGING,
        other_queue::OTHER_QUEUE,
        slices::SLICES,
        capacity::CAPACITY,
        phases::PHASES,
        idle::IDLE,
    ]
}

/// The alternative of everything that is counted by the second.
const SUBMISSION_EACH: &str = "one vkQueueSubmit of an empty dispatch for each, waited for at the end";

/// Measures [`SUBMISSION_EACH`]; `number` makes the result of how many there were and of the seconds that they took.
fn submission_each(run: &mut Run<'_>, number: impl Fn(f64, f64) -> f64) -> Result<(), Error> {
    let mut submissions = Submissions::new(run.device(), On::Slices)?;
    let count = if run.size() == Size::Smoke { 100 } else { run.size().pick(2_000, 10_000, 20_000) };
    run.repeat(Variant::alternative(SUBMISSION_EACH), || {
        let start = Instant::now();
        for _ in 0..count {
            submissions.submit()?;
        }
        submissions.poll()?;
        Ok(number(f64::from(count), start.elapsed().as_secs_f64()))
    })
}
