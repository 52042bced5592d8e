//! Timelines: waits, steps, borrowed ones, and ones that are shared.

use std::time::{Duration, Instant};

use taskring::ash::vk;
use taskring::{BackendError, Timeline};

use super::{Outcome, PATIENCE, device, finish, finish_but_for};

#[test]
fn a_wait_for_a_timeline_ends_in_time_and_says_whether_the_value_was_reached() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "epochs", 5)?;
    assert_eq!(timeline.value()?, 5);
    let started = Instant::now();
    assert!(!timeline.wait(6, Duration::from_millis(30))?);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(20) && waited < PATIENCE, "{waited:?}");
    timeline.signal(6)?;
    assert!(timeline.wait(6, PATIENCE)?);
    assert!(timeline.wait(6, Duration::MAX)?, "a wait for what is already there needs no time");
    assert_eq!(timeline.value()?, 6);
    drop(timeline);
    finish(device)
}

#[test]
fn a_timeline_does_not_go_back_from_the_host() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "epochs", 5)?;
    for value in [4, 5] {
        assert!(matches!(timeline.signal(value), Err(BackendError::BadOption { .. })));
    }
    assert_eq!(timeline.value()?, 5);
    drop(timeline);
    finish(device)
}

#[test]
fn a_jump_that_the_device_does_not_allow_is_refused_and_the_timeline_stays() -> Outcome {
    let device = device()?;
    let limit = device.facts().limits.max_timeline_difference;
    let timeline = Timeline::new(&device, "far", 0)?;
    match limit.checked_add(1) {
        Some(value) => {
            assert_eq!(timeline.signal(value), Err(BackendError::TimelineJump { value, current: 0, limit }));
            assert_eq!(timeline.value()?, 0);
            timeline.signal(limit)?;
            timeline.signal(value)?;
            assert_eq!(timeline.value()?, value);
        }
        // Where every step is allowed, the longest one is.
        None => {
            timeline.signal(limit)?;
            assert_eq!(timeline.value()?, limit);
        }
    }
    drop(timeline);
    finish(device)
}

#[test]
fn a_borrowed_timeline_works_like_any_other_and_is_still_there_after_the_drop() -> Outcome {
    let device = device()?;
    let raw = device.raw();
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE).initial_value(3);
    // SAFETY: the device has timelines enabled; destroyed below.
    let engines = unsafe { raw.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None) }?;
    {
        // SAFETY: just created, destroyed only after the value is gone.
        let borrowed = unsafe { Timeline::borrow(&device, engines) };
        assert_eq!((borrowed.raw(), borrowed.value()?), (engines, 3));
        borrowed.signal(4)?;
        assert!(borrowed.wait(4, PATIENCE)?);
        assert!(!device.wait_any(&[(&borrowed, 5)], Duration::ZERO)?);
    }
    // SAFETY: the engine's semaphore is alive: that is what is tested.
    assert_eq!(unsafe { raw.get_semaphore_counter_value(engines) }?, 4);
    // SAFETY: nobody uses it any more. A second destruction, with the device, would be heard below.
    unsafe { raw.destroy_semaphore(engines, None) };
    finish(device)
}

#[test]
fn a_wait_for_any_of_two_timelines_wakes_when_the_second_gets_there() -> Outcome {
    let device = device()?;
    let (first, second) = (Timeline::new(&device, "first", 0)?, Timeline::new(&device, "second", 0)?);
    let started = Instant::now();
    let woken = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| device.wait_any(&[(&first, 1), (&second, 2)], PATIENCE));
        std::thread::sleep(Duration::from_millis(30));
        second.signal(1)?; // Not far enough.
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiter.is_finished(), "nothing was reached yet");
        second.signal(2)?;
        waiter.join().map_err(|_| "the waiter panicked")?.map_err(Box::<dyn std::error::Error>::from)
    })?;
    assert!(woken && started.elapsed() < PATIENCE);
    assert_eq!((first.value()?, second.value()?), (0, 2));
    drop((first, second));
    finish(device)
}

#[test]
fn a_wait_for_any_timeline_ends_in_time_and_one_for_none_at_once() -> Outcome {
    let device = device()?;
    let (first, second) = (Timeline::new(&device, "first", 0)?, Timeline::new(&device, "second", 0)?);
    let started = Instant::now();
    assert!(!device.wait_any(&[(&first, 1), (&second, 1)], Duration::from_millis(30))?);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(20) && waited < PATIENCE, "{waited:?}");
    let started = Instant::now();
    assert!(!device.wait_any(&[], PATIENCE)?);
    assert!(started.elapsed() < PATIENCE / 2);
    drop((first, second));
    finish(device)
}

#[test]
fn a_device_does_not_wait_for_the_timeline_of_another() -> Outcome {
    let (here, there) = (device()?, device()?);
    let (ours, theirs) = (Timeline::new(&here, "ours", 1)?, Timeline::new(&there, "theirs", 1)?);
    let refused = here.wait_any(&[(&ours, 1), (&theirs, 1)], PATIENCE);
    assert!(matches!(refused, Err(BackendError::BadOption { value: 1, .. })), "{refused:?}");
    drop((ours, theirs));
    finish(here)?;
    finish(there)
}

#[cfg(unix)]
#[test]
fn an_exported_timeline_and_its_import_are_one_and_where_that_cannot_be_it_is_said() -> Outcome {
    let device = device()?;
    if !device.plan().external_timelines {
        let refused = Timeline::exportable(&device, "shared", 0).err();
        assert_eq!(refused, Some(BackendError::NoExternalTimelines));
        let anything = std::fs::File::open("/dev/null")?.into();
        // SAFETY: no timeline's descriptor, but no driver gets to see it.
        let refused = unsafe { Timeline::import_fd(&device, "import", anything) }.err();
        assert_eq!(refused, Some(BackendError::NoExternalTimelines));
        return finish(device);
    }
    let other = super::device()?;
    let exported = Timeline::exportable(&device, "shared", 3)?;
    // SAFETY: the descriptor is a timeline's of the same physical device.
    let imported = unsafe { Timeline::import_fd(&other, "import", exported.export_fd()?) }?;
    assert_eq!(imported.value()?, 3, "the payload comes with the descriptor");
    exported.signal(4)?;
    assert!(imported.wait(4, PATIENCE)?);
    imported.signal(5)?;
    assert!(exported.wait(5, PATIENCE)?);
    drop(exported);
    // The layer takes a value that it learned from a wait for one that is still to be signalled.
    finish_but_for(device, "VUID-VkSemaphoreSignalInfo-value-03259")?;
    imported.signal(6)?;
    assert_eq!(imported.value()?, 6, "the one outlives the other");
    drop(imported);
    finish_but_for(other, "VUID-VkSemaphoreSignalInfo-value-03259")
}

#[cfg(unix)]
#[test]
fn a_timeline_that_was_not_made_to_be_exported_is_not() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "private", 0)?;
    assert_eq!(timeline.export_fd().err(), Some(BackendError::NotExportable));
    drop(timeline);
    finish(device)
}
