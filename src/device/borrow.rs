//! A device that an engine made and keeps: what it hands over, and what stays its own.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use gpu_allocator::vulkan::Allocator;

use super::context::{Device, Parts};
use super::facts::DeviceFacts;
use super::instance::{ValidationLog, names};
use super::plan::QueueSlot;
use super::queues::Queues;
use super::requirements::{Enabled, Miss};
use crate::BackendError;

/// Keeps a queue to one user at a time: an engine's lock, which all of taskring's submissions go through.
///
/// taskring takes it for one `vkQueueSubmit` at a time, and holds locks of its own meanwhile. So whoever holds it calls nothing of taskring's,
/// and `hold` waits for nothing but other submissions.
pub trait QueueLock: Send + Sync {
    /// Calls `submit` once, while nobody else uses the queue.
    fn hold(&self, submit: &mut dyn FnMut());
}

impl QueueLock for Mutex<()> {
    fn hold(&self, submit: &mut dyn FnMut()) {
        let _held = self.lock().unwrap_or_else(PoisonError::into_inner);
        submit();
    }
}

impl<L: QueueLock + ?Sized> QueueLock for Arc<L> {
    fn hold(&self, submit: &mut dyn FnMut()) {
        (**self).hold(submit);
    }
}

/// A queue of an engine's.
pub struct EngineQueue {
    pub(super) raw: vk::Queue,
    pub(super) slot: QueueSlot,
    pub(super) lock: Box<dyn QueueLock>,
}

impl EngineQueue {
    /// A queue that the engine submits to as well, under this lock: an `Arc<Mutex<()>>`, or whatever the engine has.
    pub fn shared(raw: vk::Queue, slot: QueueSlot, lock: impl QueueLock + 'static) -> Self {
        Self { raw, slot, lock: Box::new(lock) }
    }

    /// A queue that the engine leaves to taskring alone for as long as the borrowed device lives.
    #[must_use]
    pub fn given(raw: vk::Queue, slot: QueueSlot) -> Self {
        Self::shared(raw, slot, Mutex::new(()))
    }
}

impl fmt::Debug for EngineQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineQueue").field("raw", &self.raw).field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// What an engine lends.
#[non_exhaustive]
pub struct EngineDevice<'a> {
    /// The instance.
    pub instance: &'a ash::Instance,
    /// `VkApplicationInfo::apiVersion` of the instance. Nothing newer is used.
    pub api_version: u32,
    /// The physical device.
    pub physical: vk::PhysicalDevice,
    /// The device.
    pub device: &'a ash::Device,
    /// What is enabled on it.
    pub enabled: Enabled,
    /// Where slices are submitted.
    pub slices: EngineQueue,
    /// A second queue with compute, on which taskring may wait for promised semaphores ([`Runtime::promise`](crate::Runtime::promise)) and see what
    /// slices cost others. `None` if the engine has none to spare.
    pub other: Option<EngineQueue>,
    /// An allocator to take all memory from, made with `buffer_device_address`. taskring locks it for one allocation at a time. `None`: one of
    /// its own on the same device, whose blocks begin at 8 MiB.
    pub allocator: Option<Arc<Mutex<Allocator>>>,
    /// A pipeline cache to make all pipelines with, of which Vulkan's locking is its own (no `EXTERNALLY_SYNCHRONIZED` flag), and into which the engine
    /// merges nothing while a pipeline is made. `None`: one of taskring's own; see [`Device::load_pipelines`].
    pub pipeline_cache: Option<vk::PipelineCache>,
    /// Whether `VK_EXT_debug_utils` is enabled on the instance: then all of taskring's objects have names.
    pub debug_names: bool,
    /// Whether the validation layer is on. Its messages go to the engine's messenger.
    pub validated: bool,
}

impl<'a> EngineDevice<'a> {
    /// What cannot be left out; the rest is `None` and `false`.
    #[must_use]
    pub fn new(
        (instance, api_version): (&'a ash::Instance, u32),
        physical: vk::PhysicalDevice,
        device: &'a ash::Device,
        enabled: Enabled,
        slices: EngineQueue,
    ) -> Self {
        let (other, allocator, pipeline_cache) = (None, None, None);
        Self {
            instance,
            api_version,
            physical,
            device,
            enabled,
            slices,
            other,
            allocator,
            pipeline_cache,
            debug_names: false,
            validated: false,
        }
    }
}

impl fmt::Debug for EngineDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { physical, device, enabled, slices, other, .. } = self;
        let mut shown = f.debug_struct("EngineDevice");
        shown.field("physical", physical).field("device", &device.handle()).field("enabled", enabled);
        shown.field("slices", slices).field("other", other).finish_non_exhaustive()
    }
}

impl Device {
    /// Runs on an engine's device. Whatever was borrowed is neither destroyed nor reset nor waited idle, and the engine goes on using all of it
    /// meanwhile; [`Device::release`] says when it may destroy it.
    ///
    /// Nothing is submitted here. What is not enabled of the optional features is done without; [`Device::plan`] says which.
    ///
    /// # Safety
    /// - The handles belong together, are alive, and stay so until [`Device::release`] has said `Ok`; so do the loader's library (`ash::Entry`) and
    ///   the allocator's device.
    /// - What `enabled` says is enabled.
    /// - Nobody submits to the queues but under their locks, and to a queue that was given away nobody at all; nobody destroys what is
    ///   taskring's.
    ///
    /// # Errors
    /// [`BackendError::Unfit`] with everything that the device, its features or the queues lack; [`BackendError::Vulkan`];
    /// [`BackendError::Allocation`] if there is no allocator and none can be made.
    pub unsafe fn borrow(engine: EngineDevice<'_>) -> Result<Self, BackendError> {
        let _span = tracing::info_span!("borrow_device").entered();
        // SAFETY: the caller's promise.
        let facts = unsafe { DeviceFacts::read(engine.instance, engine.physical, engine.api_version) }?;
        let other = engine.other.as_ref().map(|queue| queue.slot);
        let unfit = |missing| BackendError::Unfit { device: facts.name.clone(), missing };
        let plan = engine.enabled.plan(&facts, engine.slices.slot, other).map_err(unfit)?;
        if engine.other.as_ref().is_some_and(|other| other.raw == engine.slices.raw) {
            let problem = "has the same handle as the other one";
            return Err(unfit(vec![Miss::Queue { slot: engine.slices.slot, problem }]));
        }
        let parts = Parts {
            physical: engine.physical,
            raw: engine.device.clone(),
            instance: engine.instance.clone(),
            queues: Queues::borrowed(engine.slices, engine.other),
            names: engine.debug_names.then(|| names(engine.instance, engine.device)),
            log: ValidationLog::default(),
            validated: engine.validated,
            sharers: engine.enabled.sharers(),
            allocator: engine.allocator,
            cache: engine.pipeline_cache,
            owned: None,
            facts,
            plan,
        };
        let device = Self::of(parts)?;
        tracing::info!(device = %device.description(), "borrowed a device");
        Ok(device)
    }

    /// Gives the last handle back. `Ok`: nothing of taskring's is left on the device, and an engine may destroy what it had lent.
    ///
    /// # Errors
    /// The handle, if something else still holds the device: a runtime, a task's handle, a buffer, a timeline, a clone; or something that was leaked
    /// because a slice would not end, and then for good.
    pub fn release(self) -> Result<(), Self> {
        self.last()
    }
}
