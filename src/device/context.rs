//! The device that everything else holds.

use std::ffi::CStr;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ash::ext::debug_utils;
#[cfg(unix)]
use ash::khr::external_semaphore_fd;
use ash::prelude::VkResult;
use ash::vk;
use gpu_allocator::vulkan::{Allocator, AllocatorCreateDesc};
use gpu_allocator::{AllocationSizes, AllocatorDebugSettings};

use super::cache::Cache;
use super::chains;
use super::facts::DeviceFacts;
use super::fault;
use super::instance::{Instance, ValidationLog, c_string};
use super::loss::Loss;
use super::plan::{DevicePlan, DeviceSelector, choose};
use super::queues::Queues;
use super::selftest::SelfTest;
use crate::BackendError;

const MIB: u64 = 1 << 20;

/// How [`Device::new`] is to make a device. Later versions may have more fields: end with `..DeviceOptions::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Which device to take. What is said here wins over the environment: `TASKRING_DEVICE` (an index, or a part of a
    /// name) counts only where this is [`DeviceSelector::Auto`].
    pub selector: DeviceSelector,
    /// Whether to run under the validation layer, with synchronization checks. `TASKRING_VALIDATION=1` turns it on too.
    pub validation: bool,
    /// The name that drivers and tools see.
    pub application_name: String,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { selector: DeviceSelector::Auto, validation: false, application_name: "taskring".into() }
    }
}

/// What [`Device::compute_pipeline`] is to make.
#[derive(Clone, Copy, Debug)]
pub struct PipelineDesc<'a> {
    /// Debug name of the pipeline.
    pub name: &'a str,
    /// The compiled kernel.
    pub module: vk::ShaderModule,
    /// Its entry point.
    pub entry: &'a CStr,
    /// Its layout.
    pub layout: vk::PipelineLayout,
    /// Values of its specialization constants, if it has any.
    pub specialization: Option<&'a vk::SpecializationInfo<'a>>,
    /// A pipeline cache, or null for the device's own.
    pub cache: vk::PipelineCache,
}

/// A Vulkan device that taskring runs on. Clones share it; the last one to go destroys what taskring owns of it.
#[derive(Clone)]
pub struct Device(Arc<Shared>);

/// What a device is made of, whoever made the parts.
pub(super) struct Parts {
    pub(super) facts: DeviceFacts,
    pub(super) plan: DevicePlan,
    pub(super) physical: vk::PhysicalDevice,
    pub(super) raw: ash::Device,
    pub(super) instance: ash::Instance,
    pub(super) queues: Queues,
    pub(super) names: Option<debug_utils::Device>,
    pub(super) log: ValidationLog,
    pub(super) validated: bool,
    /// The families that a shared buffer is made for; none where there is one.
    pub(super) sharers: Vec<u32>,
    /// Somebody's allocator; `None` for one of our own.
    pub(super) allocator: Option<Arc<Mutex<Allocator>>>,
    /// Somebody's pipeline cache; `None` for one of our own.
    pub(super) cache: Option<vk::PipelineCache>,
    /// Destroys the device and then the instance; `None` if both are somebody else's.
    pub(super) owned: Option<(OwnedDevice, Instance)>,
}

/// What the clones share. Fields are dropped in this order, after [`Shared::drop`]: the allocator before the device.
struct Shared {
    facts: DeviceFacts,
    plan: DevicePlan,
    physical: vk::PhysicalDevice,
    raw: ash::Device,
    instance: ash::Instance,
    queues: Queues,
    names: Option<debug_utils::Device>,
    #[cfg(unix)]
    external_semaphores: Option<external_semaphore_fd::Device>,
    loss: Loss,
    log: ValidationLog,
    validated: bool,
    sharers: Vec<u32>,
    /// Semaphores of dropped timelines; see [`Timeline`](super::Timeline).
    retired: Mutex<Vec<vk::Semaphore>>,
    /// Held while the self-test runs: two at once would measure each other.
    testing: Mutex<()>,
    self_test: OnceLock<Result<SelfTest, BackendError>>,
    allocator: Arc<Mutex<Allocator>>,
    cache: Cache,
    _owned: Option<(OwnedDevice, Instance)>,
}

/// Destroys the device when it is dropped.
pub(super) struct OwnedDevice(ash::Device);

impl Device {
    /// Makes an instance and a device.
    ///
    /// # Errors
    /// [`BackendError::NoLoader`] and [`BackendError::NoValidationLayer`] if these are not installed,
    /// [`BackendError::NoDevice`] with every device and all its reasons if none will do, [`BackendError::Vulkan`] if
    /// the driver refuses.
    pub fn new(options: DeviceOptions) -> Result<Self, BackendError> {
        let _span = tracing::info_span!("create_device").entered();
        let validation = options.validation || std::env::var("TASKRING_VALIDATION").is_ok_and(|value| value == "1");
        let selector = match (options.selector, std::env::var("TASKRING_DEVICE")) {
            (DeviceSelector::Auto, Ok(text)) => DeviceSelector::parse(&text),
            (selector, _) => selector,
        };
        let no_device = |rejected| BackendError::NoDevice { wanted: selector.to_string(), rejected };

        let instance = Instance::new(&options.application_name, validation).map_err(|error| match error {
            // What the loader answers if it found no driver.
            BackendError::Vulkan { result: vk::Result::ERROR_INCOMPATIBLE_DRIVER, .. } => no_device(Vec::new()),
            error => error,
        })?;
        let (handles, facts): (Vec<_>, Vec<_>) = instance.devices()?.into_iter().unzip();
        let (facts, plan) = choose(&facts, &selector).map_err(no_device)?;
        let physical = handles.get(facts.index).copied().ok_or_else(|| no_device(Vec::new()))?;

        // SAFETY: the physical device is this instance's, and the plan was made from its facts.
        let raw = unsafe { chains::create_device(instance.raw(), physical, &plan) }
            .map_err(|result| BackendError::vulkan("vkCreateDevice", result))?;
        let owned_device = OwnedDevice(raw.clone());
        // SAFETY: the device was just created with the plan's queues.
        let queues = unsafe { Queues::of(&raw, &plan) };
        let parts = Parts {
            facts: facts.clone(),
            physical,
            queues,
            names: instance.names(&raw),
            log: instance.log().clone(),
            validated: validation,
            sharers: plan.sharers(),
            allocator: None,
            cache: None,
            instance: instance.raw().clone(),
            raw,
            plan,
            owned: Some((owned_device, instance)),
        };
        let device = Self::of(parts)?;
        device.name(device.raw().handle(), &options.application_name);
        device.queues().name(&device);
        tracing::info!(device = %device.description(), validation, "created a device");
        Ok(device)
    }

    /// Puts a device together.
    pub(super) fn of(parts: Parts) -> Result<Self, BackendError> {
        let Parts {
            facts,
            plan,
            physical,
            raw,
            instance,
            queues,
            names,
            log,
            validated,
            sharers,
            allocator,
            cache,
            owned,
        } = parts;
        let cache = Cache::new(&raw, cache)?;
        let allocator = match allocator {
            Some(allocator) => allocator,
            None => Arc::new(Mutex::new(own_allocator(&instance, &raw, physical)?)),
        };
        let shared = Shared {
            #[cfg(unix)]
            external_semaphores: plan.external_timelines.then(|| external_semaphore_fd::Device::new(&instance, &raw)),
            loss: Loss::new(plan.fault_reports.then(|| fault::reader(&instance, &raw))),
            retired: Mutex::default(),
            testing: Mutex::default(),
            self_test: OnceLock::new(),
            facts,
            plan,
            physical,
            raw,
            instance,
            queues,
            names,
            log,
            validated,
            sharers,
            allocator,
            cache,
            _owned: owned,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Drops the last handle, or returns the one of several.
    pub(super) fn last(self) -> Result<(), Self> {
        Arc::try_unwrap(self.0).map(drop).map_err(Self)
    }

    /// What the physical device said about itself.
    #[must_use]
    pub fn facts(&self) -> &DeviceFacts {
        &self.0.facts
    }

    /// How taskring runs on it.
    #[must_use]
    pub fn plan(&self) -> &DevicePlan {
        &self.0.plan
    }

    /// Whether it is a driver that runs on the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.0.facts.is_cpu()
    }

    /// Whether it was made to run under the validation layer.
    #[must_use]
    pub fn is_validated(&self) -> bool {
        self.0.validated
    }

    /// One line for reports: device, driver, Vulkan version, subgroup size.
    #[must_use]
    pub fn description(&self) -> String {
        self.0.facts.describe(self.0.plan.subgroup_size)
    }

    /// The Vulkan device. It may be the engine's: do not destroy it, and do not wait for it to be idle.
    #[must_use]
    pub fn raw(&self) -> &ash::Device {
        &self.0.raw
    }

    /// The Vulkan instance, under the same rule.
    #[must_use]
    pub fn instance(&self) -> &ash::Instance {
        &self.0.instance
    }

    /// The physical device.
    #[must_use]
    pub fn physical_device(&self) -> vk::PhysicalDevice {
        self.0.physical
    }

    /// What the device was found to do: [`SelfTest::run`] on the first call, its outcome from then on, for all clones.
    /// Calls that come while it runs wait for it.
    ///
    /// # Errors
    /// As [`SelfTest::run`]. A [`BackendError::Timeout`] is for good, since the kernel may still be there; after
    /// any other error but device loss the next call tries again.
    pub fn self_test(&self) -> Result<&SelfTest, BackendError> {
        let _alone = lock(&self.0.testing);
        let kept = match self.0.self_test.get() {
            Some(kept) => kept,
            None => match SelfTest::run(self) {
                outcome @ (Ok(_) | Err(BackendError::Timeout { .. })) => self.0.self_test.get_or_init(|| outcome),
                Err(error) => return Err(error),
            },
        };
        kept.as_ref().map_err(Clone::clone)
    }

    /// What the validation layer said. It may be kept longer than the device. Of a borrowed one the engine's own messenger hears, and this stays empty.
    #[must_use]
    pub fn validation_log(&self) -> &ValidationLog {
        &self.0.log
    }

    /// The warnings and errors of the validation layer up to now; none without validation.
    #[must_use]
    pub fn validation_messages(&self) -> Vec<String> {
        self.0.log.messages()
    }

    /// Says that the device is lost, if any call ever found it so.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] with the first call that said so.
    pub fn check(&self) -> Result<(), BackendError> {
        self.0.loss.check()
    }

    /// Builds a compute pipeline that runs with the plan's subgroup size: required, and with full subgroups, where the
    /// device can be told. The workgroup's size in x must then be a multiple of it.
    ///
    /// # Safety
    /// All that `vkCreateComputePipelines` demands: live handles of this device that fit each other.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] or [`BackendError::Vulkan`].
    pub unsafe fn compute_pipeline(&self, desc: &PipelineDesc<'_>) -> Result<vk::Pipeline, BackendError> {
        self.check()?;
        let _span = tracing::debug_span!("create_pipeline", name = desc.name).entered();
        let own = (desc.cache == vk::PipelineCache::null()).then(|| self.cache().lock());
        let desc = &PipelineDesc { cache: own.as_deref().copied().unwrap_or(desc.cache), ..*desc };
        // SAFETY: the caller's promises; the size is the plan's.
        let created = unsafe { chains::create_compute_pipeline(self.raw(), desc, self.0.plan.required_subgroup_size) };
        self.created("vkCreateComputePipelines", desc.name, created)
    }

    /// Whether the two are clones of one device.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The error for a Vulkan call that failed. Device loss is remembered from here on.
    pub(crate) fn fail(&self, call: &'static str, result: vk::Result) -> BackendError {
        self.0.loss.note(call, result)
    }

    /// Takes what a Vulkan call created: names it, or says what failed.
    pub(crate) fn created<T: vk::Handle + Copy>(
        &self,
        call: &'static str,
        name: &str,
        created: VkResult<T>,
    ) -> Result<T, BackendError> {
        let handle = created.map_err(|result| self.fail(call, result))?;
        self.name(handle, name);
        Ok(handle)
    }

    /// Gives an object of this device the name that tools and validation messages show.
    pub(crate) fn name<T: vk::Handle>(&self, handle: T, name: &str) {
        let Some(names) = &self.0.names else { return };
        let name = c_string(name);
        let info = vk::DebugUtilsObjectNameInfoEXT::default().object_handle(handle).object_name(&name);
        // SAFETY: callers in this crate pass objects of this device that they have just made and share with nobody yet.
        if let Err(result) = unsafe { names.set_debug_utils_object_name(&info) } {
            // A name is a comfort; its want of memory is no reason to fail what works.
            tracing::debug!(?result, "an object stays without its name");
        }
    }

    /// The functions that export and import semaphores.
    #[cfg(unix)]
    pub(super) fn external_semaphores(&self) -> Result<&external_semaphore_fd::Device, BackendError> {
        self.0.external_semaphores.as_ref().ok_or(BackendError::NoExternalTimelines)
    }

    /// The families that a shared buffer is made for; none where there is one.
    pub(super) fn sharers(&self) -> &[u32] {
        &self.0.sharers
    }

    /// What all pipelines go through.
    pub(super) fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The queues.
    pub(super) fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// The allocator, locked.
    pub(super) fn allocator(&self) -> MutexGuard<'_, Allocator> {
        lock(&self.0.allocator)
    }

    /// Keeps a semaphore that nobody uses any more until the device goes.
    pub(super) fn retire(&self, semaphore: vk::Semaphore) {
        lock(&self.0.retired).push(semaphore);
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.description()).finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cache.destroy(&self.raw);
        let retired = self.retired.get_mut().unwrap_or_else(PoisonError::into_inner);
        for semaphore in retired.drain(..) {
            // SAFETY: it is a semaphore of this device, retired once; whoever submitted with it kept the device longer.
            unsafe { self.raw.destroy_semaphore(semaphore, None) };
        }
    }
}

impl Drop for OwnedDevice {
    fn drop(&mut self) {
        let _span = tracing::debug_span!("destroy_device").entered();
        // SAFETY: every object of the device keeps a clone of `Device`, so they are gone; `submit` was promised that
        // the device is kept until what it submitted is done.
        unsafe { self.0.destroy_device(None) };
    }
}

/// An allocator whose blocks start small: a runtime in somebody's engine should not take 256 MiB for its first page.
fn own_allocator(
    instance: &ash::Instance,
    device: &ash::Device,
    physical_device: vk::PhysicalDevice,
) -> Result<Allocator, BackendError> {
    let allocation_sizes = AllocationSizes::new(8 * MIB, 8 * MIB)
        .with_max_device_memblock_size(256 * MIB)
        .with_max_host_memblock_size(64 * MIB);
    let desc = AllocatorCreateDesc {
        instance: instance.clone(),
        device: device.clone(),
        physical_device,
        debug_settings: AllocatorDebugSettings::default(),
        buffer_device_address: true,
        allocation_sizes,
    };
    Allocator::new(&desc).map_err(|error| BackendError::Allocation {
        name: "the allocator itself".into(),
        bytes: 0,
        kind: "any",
        reason: error.to_string(),
    })
}

/// Locks, whatever happened to the last holder: what these locks protect is whole between any two of its changes.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
