//! Live or boundary: what was asked for, what the device can do, and what memory there is.

use super::memory::Memory;
use super::options::{Mode, RuntimeOptions};
use crate::device::{Buffer, Device, MemoryClass, Residency};
use crate::error::BackendError;

/// How a runtime with these options and this memory lives on a device.
pub(super) fn residency(device: &Device, options: &RuntimeOptions, memory: &Memory) -> Result<Residency, BackendError> {
    let asked = match options.mode {
        Mode::Auto if options.self_test.is_none() => from_environment()?,
        asked => asked,
    };
    let reasons = |mode: &str| vec![format!("{mode} mode was asked for")];
    let (mailboxes, reports) = memory.talking();
    let class = |buffer: &Buffer| MemoryClass::of(buffer.memory_properties());
    match (asked, class(mailboxes[0]), class(reports[0])) {
        (Mode::Live, Some(mailbox), Some(report)) => {
            Ok(Residency::Live { mailbox, report, workgroups: 0, reasons: reasons("live") })
        }
        (Mode::Boundary, ..) => {
            let tested = options.self_test.as_ref().map(Residency::choose);
            let turn_limit = tested.and_then(|tested| tested.turn_limit());
            Ok(Residency::Boundary { turn_limit, reasons: reasons("boundary") })
        }
        _ => {
            let test = options.self_test.as_ref().map_or_else(|| device.self_test(), Ok)?;
            Ok(confirmed(Residency::choose(test), &mailboxes.map(class), &reports.map(class)))
        }
    }
}

fn from_environment() -> Result<Mode, BackendError> {
    match std::env::var("TASKRING_MODE").as_deref() {
        Ok("live") => Ok(Mode::Live),
        Ok("boundary") => Ok(Mode::Boundary),
        Ok("" | "auto") | Err(_) => Ok(Mode::Auto),
        Ok(_) => {
            let must = "`auto`, `live` or `boundary`";
            Err(BackendError::BadOption { option: "TASKRING_MODE", value: 0, must })
        }
    }
}

/// What was chosen, given the memory that the allocator gave. It falls back silently to memory in which a running kernel may see nothing, so
/// live mode is given up unless all of it is of a class that was found to work.
fn confirmed(chosen: Residency, mailboxes: &[Option<MemoryClass>], reports: &[Option<MemoryClass>]) -> Residency {
    let Residency::Live { mailbox, report, .. } = &chosen else { return chosen };
    let needs = [("mailbox", *mailbox, mailboxes), ("report", *report, reports)];
    let odd = needs.into_iter().find_map(|(what, class, given)| {
        let odd = given.iter().find(|given| **given != Some(class))?.map_or("another kind of", MemoryClass::name);
        Some(format!("the allocator gave {odd} memory for a {what}, where {class} memory was found to work"))
    });
    match odd {
        None => chosen,
        Some(reason) => {
            tracing::warn!(%reason, "no live mode");
            Residency::Boundary { turn_limit: None, reasons: vec![reason] }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_mode_is_given_up_where_the_allocator_fell_back_to_other_memory() {
        let (bar, cached, plain) = (MemoryClass::DeviceLocal, MemoryClass::SystemCached, MemoryClass::System);
        let live = Residency::Live { mailbox: bar, report: cached, workgroups: 8, reasons: Vec::new() };
        assert_eq!(confirmed(live.clone(), &[Some(bar); 2], &[Some(cached)]), live);
        for (mailboxes, reports, named) in [
            ([Some(bar), Some(plain)], [Some(cached)], "mailbox"),
            ([Some(bar), None], [Some(cached)], "mailbox"),
            ([Some(bar), Some(bar)], [Some(bar)], "report"),
        ] {
            let given_up = confirmed(live.clone(), &mailboxes, &reports);
            assert!(!given_up.is_live() && given_up.reasons()[0].contains(named), "{given_up:?}");
        }
    }
}
