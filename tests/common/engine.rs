//! What an engine would do beside a runtime: submissions of its own, on the slices' queue or on another one.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of a module that is private to it")]

use taskring::{Device, vk};

pub use taskring::device::QueueRole as Queue;

/// The queues that the device has.
pub fn queues(device: &Device) -> Vec<Queue> {
    [Queue::Slices, Queue::Other, Queue::Transfer]
        .into_iter()
        .filter(|role| device.family_of(*role).is_some())
        .collect()
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
        let family = device.family_of(queue).expect("the device has this queue");
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { device.raw().create_command_pool(&info, None) }.expect("a pool");
        Self { device: device.clone(), queue, pool }
    }

    pub fn queue(&self) -> Queue {
        self.queue
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
        // SAFETY: the handles are alive, and the tests wait for what they submit before they drop what it uses.
        let submitted = unsafe { self.device.submit_on(self.queue, &[commands], wait, signal) };
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
