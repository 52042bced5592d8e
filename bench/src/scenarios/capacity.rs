//! Whether room that is not used costs anything.

use taskring::RuntimeOptions;

use super::ops::YIELDS;
use super::prefilled::shards_that_fit;
use super::turns::come_back;
use super::{SUBMISSION_EACH, submission_each};
use crate::{Error, Run, Samples, Scenario, Spread, Tally, Unit, Variant};

pub(super) const CAPACITY: Scenario = Scenario {
    name: "capacity",
    meaning: "A thousand tasks that yield, in runtimes with room for a thousand up to a million and more: what a turn costs should not depend on the room.",
    unit: Unit::NanosPerTurn,
    alternatives: &[SUBMISSION_EACH],
    run: measure,
};

/// Tasks that are ready at once.
const READY: u32 = 1 << 10;
/// The same for all capacities, which would get different numbers by default.
const SHARDS: u32 = 4;

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    submission_each(run, |count, seconds| seconds * 1e9 / count)?;
    let yields = if run.is_cpu() { 64 } else { run.size().pick(512, 2_048, 8_192) };
    let huge = !run.is_cpu() && run.size().pick(false, false, true);
    let capacities = (10..=20).step_by(2).chain(huge.then_some(24)).map(|log2| 1u32 << log2);
    for capacity in capacities {
        if shards_that_fit(run.device(), capacity, SHARDS) != Some(SHARDS) {
            run.skip(
                Variant::ours(format!("taskring, capacity {capacity}")),
                "it takes more than half of the device's memory",
            );
            continue;
        }
        let runtime = run.runtime(RuntimeOptions { capacity, shards: Some(SHARDS), ..Default::default() })?;
        let mut tally = Tally::default();
        let variant = Variant::ours(format!("taskring, capacity {capacity}")).at("the capacity", capacity.into());
        run.repeat(variant, || {
            let took = come_back(&runtime, YIELDS, READY, yields, &mut tally)?;
            Ok(took.as_secs_f64() * 1e9 / (f64::from(READY) * f64::from(yields + 1)))
        })?;
    }
    let costs: Vec<f64> = run.measured().filter(|one| one.at.is_some()).map(|one| one.samples.value()).collect();
    if let [smallest, .., largest] = costs[..]
        && let Some(ratio) = Spread::of(&[largest / smallest])
    {
        let variant = Variant::ours("a turn with the largest capacity, beside one with the smallest");
        run.note(variant.unit(Unit::Ratio), Samples::Repeated(ratio));
    }
    Ok(())
}
