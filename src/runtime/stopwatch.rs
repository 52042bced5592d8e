//! How long slices take: timestamps around them, since the host sees neither their beginning nor, soon, their end, and neither does it see what
//! other processes had of the device before.

use std::time::Duration;

use ash::vk;

use super::memory::SLICES;
use crate::device::Device;
use crate::error::BackendError;

/// Two timestamps for each place of a slice.
#[derive(Debug)]
pub(super) struct Stopwatch {
    device: Device,
    queries: vk::QueryPool,
    /// The bits of a timestamp that mean something.
    mask: u64,
    period_ns: f64,
}

impl Stopwatch {
    /// `None` where the slices' queue has no timestamps, or nobody should ask for them.
    pub(super) fn new(device: &Device) -> Result<Option<Self>, BackendError> {
        let families = &device.facts().queue_families;
        let bits = families.get(device.queue_family() as usize).map_or(0, |family| family.timestamp_valid_bits);
        if bits == 0 || device.facts().queries_are_perilous() {
            return Ok(None);
        }
        let (kind, count) = (vk::QueryType::TIMESTAMP, 2 * SLICES as u32);
        let info = vk::QueryPoolCreateInfo::default().query_type(kind).query_count(count);
        // SAFETY: the info is complete and the device is alive in `device`.
        let queries = unsafe { device.raw().create_query_pool(&info, None) };
        let queries = device.created("vkCreateQueryPool", "taskring slice times", queries)?;
        let mask = u64::MAX >> (64 - bits.min(64));
        let period_ns = f64::from(device.facts().limits.timestamp_period_ns);
        Ok(Some(Self { device: device.clone(), queries, mask, period_ns }))
    }

    /// Records that the slice in this place begins.
    ///
    /// # Safety
    /// The command buffer is being recorded, outside of a render pass, for the slices' family; what had this place has ended.
    pub(super) unsafe fn start(&self, commands: vk::CommandBuffer, place: usize) {
        // SAFETY: the caller's promises.
        unsafe { self.device.raw().cmd_reset_query_pool(commands, self.queries, 2 * place as u32, 2) };
        // SAFETY: as above.
        unsafe { self.write(commands, 2 * place as u32) };
    }

    /// Records that it ends.
    ///
    /// # Safety
    /// As for [`Stopwatch::start`], which came before.
    pub(super) unsafe fn stop(&self, commands: vk::CommandBuffer, place: usize) {
        // SAFETY: the caller's promises.
        unsafe { self.write(commands, 2 * place as u32 + 1) };
    }

    unsafe fn write(&self, commands: vk::CommandBuffer, query: u32) {
        let stage = vk::PipelineStageFlags::COMPUTE_SHADER;
        // SAFETY: the callers' promises, and the query was reset.
        unsafe { self.device.raw().cmd_write_timestamp(commands, stage, self.queries, query) };
    }

    /// How long the slice in this place took, which has ended.
    pub(super) fn read(&self, place: usize) -> Result<Duration, BackendError> {
        let mut times = [0u64; 2];
        let flags = vk::QueryResultFlags::TYPE_64;
        // SAFETY: the pool is ours and has these queries.
        let read =
            unsafe { self.device.raw().get_query_pool_results(self.queries, 2 * place as u32, &mut times, flags) };
        read.map_err(|result| self.device.fail("vkGetQueryPoolResults", result))?;
        let steps = times[1].wrapping_sub(times[0]) & self.mask;
        Ok(Duration::from_nanos((steps as f64 * self.period_ns) as u64))
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // SAFETY: the runtime has waited for the last slice, or it leaks this value; nobody else has the pool.
        unsafe { self.device.raw().destroy_query_pool(self.queries, None) };
    }
}
