//! What it costs to give the device away and take it back.

use std::time::Duration;

use taskring::RuntimeOptions;

use super::ops::YIELDS;
use super::turns::come_back;
use crate::{Error, Run, Scenario, Tally, Unit, Variant};

pub(super) const SLICES: Scenario = Scenario {
    name: "slices",
    meaning: "The same work in long slices and in short ones. What short ones have more of costs the difference.",
    unit: Unit::TurnsPerSecond,
    alternatives: &["slices of 1 s, the longest that there are"],
    run: measure,
};

fn measure(run: &mut Run<'_>) -> Result<(), Error> {
    let (count, yields) = match run.is_cpu() {
        true => (1 << 11, run.size().pick(64, 256, 1_024)),
        false => (1 << 16, run.size().pick(1_024, 8_192, 8_192)),
    };
    let ms = |count| Some(Duration::from_millis(count));
    for (variant, slice_time) in [
        (Variant::alternative("slices of 1 s"), ms(1_000)),
        (Variant::ours("slices as long as the policy says, up to 100 ms"), None),
        (Variant::ours("slices of 100 ms"), ms(100)),
        (Variant::ours("slices of 10 ms"), ms(10)),
        (Variant::ours("slices of 1 ms"), ms(1)),
    ] {
        let runtime = run.runtime(RuntimeOptions { capacity: count, slice_time, ..Default::default() })?;
        let mut tally = Tally::default();
        run.repeat(variant, || {
            let took = come_back(&runtime, YIELDS, count, yields, &mut tally)?;
            Ok(f64::from(count) * f64::from(yields + 1) / took.as_secs_f64())
        })?;
    }
    Ok(())
}
