//! The queues beside the slices', and buffers that several of them use.

use taskring::ash::vk;
use taskring::{BackendError, Buffer, BufferDesc, Device, MemoryKind, Timeline};

use super::{Outcome, PATIENCE, begin, device, finish, mapped};

/// How a queue is submitted to, as [`Device::submit`] is.
type Submit = unsafe fn(
    &Device,
    &[vk::CommandBuffer],
    Option<(vk::Semaphore, u64)>,
    Option<(vk::Semaphore, u64)>,
) -> Result<(), BackendError>;

/// Every queue of the device: the family to record for, and how to submit. The slices' comes first.
fn queues(device: &Device) -> Vec<(u32, Submit)> {
    let slices = (device.queue_family(), Device::submit as Submit);
    let other = device.other_queue_family().map(|family| (family, Device::submit_on_other_queue as Submit));
    let transfer = device.transfer_queue_family().map(|family| (family, Device::submit_on_transfer_queue as Submit));
    [Some(slices), other, transfer].into_iter().flatten().collect()
}

/// A report of 16 words.
fn words(device: &Device, name: &str, shared: bool) -> Result<Buffer, BackendError> {
    let usage = vk::BufferUsageFlags::empty();
    device.allocate(BufferDesc { name, bytes: 64, kind: MemoryKind::Report, usage, shared })
}

/// Records a fill of the first `count` words with `value`, which the host can see at its end.
fn record_fill(
    device: &Device,
    family: u32,
    target: &Buffer,
    count: u64,
    value: u32,
) -> Result<(vk::CommandPool, vk::CommandBuffer), Box<dyn std::error::Error>> {
    let raw = device.raw();
    let (pool, commands) = begin(device, family)?;
    // SAFETY: recording; the buffer is alive and has 16 words, and what other queues did with it was waited for.
    unsafe { raw.cmd_fill_buffer(commands, target.raw(), 0, 4 * count, value) };
    let to_host = [vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ)];
    let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
    // SAFETY: recording; the barrier makes the fill visible to the host.
    unsafe { raw.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &to_host, &[], &[]) };
    // SAFETY: recording ends.
    unsafe { raw.end_command_buffer(commands) }?;
    Ok((pool, commands))
}

/// Fills the first `count` words with `value` on a queue, and waits until the host can see it.
fn fill(device: &Device, (family, submit): (u32, Submit), target: &Buffer, count: u64, value: u32) -> Outcome {
    let timeline = Timeline::new(device, "filled", 0)?;
    let (pool, commands) = record_fill(device, family, target, count, value)?;
    // SAFETY: live handles, recorded for this queue's family; everything is kept until the wait below has succeeded.
    unsafe { submit(device, &[commands], None, Some((timeline.raw(), 1))) }?;
    assert!(timeline.wait(1, PATIENCE)?, "the timeline stands at {}", timeline.value()?);
    // SAFETY: the submission is done.
    unsafe { device.raw().destroy_command_pool(pool, None) };
    Ok(())
}

#[test]
fn a_fence_that_goes_with_a_submission_is_signalled_when_that_has_ended() -> Outcome {
    let device = device()?;
    let raw = device.raw();
    let report = words(&device, "filled before a fence", false)?;
    let (pool, commands) = record_fill(&device, device.queue_family(), &report, 16, 7)?;
    // SAFETY: the device lives; destroyed below.
    let fence = unsafe { raw.create_fence(&vk::FenceCreateInfo::default(), None) }?;
    // SAFETY: live handles, recorded for this queue's family; everything is kept until the wait below has succeeded.
    unsafe { device.submit_with_fence(&[commands], fence) }?;
    // SAFETY: a live fence.
    unsafe { raw.wait_for_fences(&[fence], true, PATIENCE.as_nanos() as u64) }?;
    assert_eq!(mapped(&report)?.read_pod::<[u32; 16]>(0)?, [7; 16]);
    // SAFETY: the submission is done.
    unsafe { raw.destroy_command_pool(pool, None) };
    // SAFETY: as above.
    unsafe { raw.destroy_fence(fence, None) };
    drop(report);
    finish(device)
}

#[test]
fn a_submission_on_the_other_queue_ends_and_without_such_a_queue_is_refused() -> Outcome {
    let device = device()?;
    let Some(family) = device.other_queue_family() else {
        // SAFETY: nothing is submitted.
        let refused = unsafe { device.submit_on_other_queue(&[], None, None) };
        assert_eq!(refused, Err(BackendError::NoOtherQueue));
        return finish(device);
    };
    let report = words(&device, "filled by the other queue", false)?;
    fill(&device, (family, Device::submit_on_other_queue), &report, 16, 7)?;
    assert_eq!(mapped(&report)?.read_pod::<[u32; 16]>(0)?, [7; 16]);
    drop(report);
    finish(device)
}

#[test]
fn a_submission_on_the_transfer_queue_ends_and_without_such_a_queue_is_refused() -> Outcome {
    let device = device()?;
    let Some(family) = device.transfer_queue_family() else {
        // SAFETY: nothing is submitted.
        let refused = unsafe { device.submit_on_transfer_queue(&[], None, None) };
        assert_eq!(refused, Err(BackendError::NoTransferQueue));
        return finish(device);
    };
    assert!(family != device.queue_family() && Some(family) != device.other_queue_family());
    let report = words(&device, "filled by the transfer queue", false)?;
    fill(&device, (family, Device::submit_on_transfer_queue), &report, 16, 7)?;
    assert_eq!(mapped(&report)?.read_pod::<[u32; 16]>(0)?, [7; 16]);
    drop(report);
    finish(device)
}

/// Each queue leaves the last word, and those that the queues before it left, as they are.
#[test]
fn all_queues_use_a_shared_buffer_one_after_the_other_and_keep_what_the_others_wrote() -> Outcome {
    let device = device()?;
    let report = words(&device, "shared", true)?;
    let mut expected = [0_u32; 16];
    for ((count, value), queue) in (1..16).rev().zip(1..).zip(queues(&device)) {
        fill(&device, queue, &report, count, value)?;
        expected[..count as usize].fill(value);
        assert_eq!(mapped(&report)?.read_pod::<[u32; 16]>(0)?, expected);
    }
    assert!(expected.contains(&1), "the slices' queue was one of them");
    drop(report);
    finish(device)
}
