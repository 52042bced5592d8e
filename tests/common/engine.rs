//! What an engine would do beside a runtime: submissions of its own, on the slices' queue or on another one.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of a module that is private to it")]

use taskring::{Device, vk};

/// Where a submission goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Slices,
    Other,
    Transfer,
}

impl Queue {
    /// Those that the device has.
    pub fn all(device: &Device) -> Vec<Self> {
        [Self::Slices, Self::Other, Self::Transfer].into_iter().filter(|queue| queue.family(device).is_some()).collect()
    }

    pub fn family(self, device: &Device) -> Option<u32> {
        match self {
            Self::Slices => Some(device.queue_family()),
            Self::Other => device.other_queue_family(),
            Self::Transfer => device.transfer_queue_family(),
        }
    }
}

/// Command buffers for one queue, each used once.
pub struct Engine {
    device: Device,
    queue: Queue,
    pool: vk::CommandPool,
}

pub type Point<'a> = (&'a taskring::Timeline, u64);

impl Engine {
    pub fn new(device: &Device, queue: Queue) -> Self {
        let family = queue.family(device).expect("the device has this queue");
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { device.raw().create_command_pool(&info, None) }.expect("a pool");
        Self { device: device.clone(), queue, pool }
    }

    /// Submits what `record` records, after `wait` and before `signal`.
    pub fn submit(&self, wait: Option<Point<'_>>, signal: Option<Point<'_>>, record: impl FnOnce(vk::CommandBuffer)) {
        let raw = self.device.raw();
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: the pool is ours, and one thread uses it.
        let commands = unsafe { raw.allocate_command_buffers(&info) }.expect("a command buffer")[0];
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the command buffer is new.
        unsafe { raw.begin_command_buffer(commands, &begin) }.expect("recording");
        record(commands);
        // SAFETY: it is in the recording state.
        unsafe { raw.end_command_buffer(commands) }.expect("recorded");
        let point = |(timeline, value): Point<'_>| (timeline.raw(), value);
        let (wait, signal) = (wait.map(point), signal.map(point));
        let commands = [commands];
        let submitted = match self.queue {
            // SAFETY: the handles are alive, and the tests wait for what they submit before they drop what it uses.
            Queue::Slices => unsafe { self.device.submit(&commands, wait, signal) },
            // SAFETY: as above.
            Queue::Other => unsafe { self.device.submit_on_other_queue(&commands, wait, signal) },
            // SAFETY: as above.
            Queue::Transfer => unsafe { self.device.submit_on_transfer_queue(&commands, wait, signal) },
        };
        submitted.expect("submitted");
    }

    /// A submission that only signals.
    pub fn signal(&self, timeline: &taskring::Timeline, value: u64) {
        self.submit(None, Some((timeline, value)), |_| ());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the tests have waited for the submissions.
        unsafe { self.device.raw().destroy_command_pool(self.pool, None) };
    }
}
