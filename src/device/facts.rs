//! What a physical device says about itself, as plain data.

use ash::vk;

use super::chains;
use crate::BackendError;

/// A snapshot of a physical device: everything that [`plan`](super::plan) and the launch policy look at.
///
/// Devices older than Vulkan 1.2 are asked for their limits, queues and memory only; `subgroup`, `features` and the
/// driver's name stay at their defaults, and the plan refuses such a device for its version.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct DeviceFacts {
    /// The device's own name.
    pub name: String,
    /// Position in the loader's enumeration order.
    pub index: usize,
    /// PCI vendor id, or the Khronos id of a vendor without one.
    pub vendor_id: u32,
    /// Name of the driver.
    pub driver_name: String,
    /// The driver's words on its version.
    pub driver_info: String,
    /// The Vulkan version that the device implements, as [`vk::make_api_version`] packs it.
    pub api_version: u32,
    /// Discrete, integrated, virtual or CPU.
    pub device_type: vk::PhysicalDeviceType,
    /// The queue families, by their index.
    pub queue_families: Vec<QueueFamilyFacts>,
    /// Subgroup sizes and operations.
    pub subgroup: SubgroupFacts,
    /// Features that taskring needs or likes.
    pub features: FeatureFacts,
    /// The memory types, by their index.
    pub memory_types: Vec<MemoryTypeFacts>,
    /// The memory heaps, by their index.
    pub memory_heaps: Vec<MemoryHeapFacts>,
    /// Limits.
    pub limits: LimitFacts,
}

/// One queue family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueFamilyFacts {
    /// What its queues can do.
    pub flags: vk::QueueFlags,
    /// How many queues it has.
    pub count: u32,
    /// How many bits of a timestamp are meaningful; 0 means that it has no timestamps.
    pub timestamp_valid_bits: u32,
}

/// Subgroup sizes and operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubgroupFacts {
    /// The size that a pipeline gets if it asks for none.
    pub size: u32,
    /// The smallest size that a pipeline may get; `size` where the device does not say.
    pub min_size: u32,
    /// The largest size that a pipeline may get; `size` where the device does not say.
    pub max_size: u32,
    /// Shader stages that have subgroup operations.
    pub stages: vk::ShaderStageFlags,
    /// The operations that these stages have.
    pub operations: vk::SubgroupFeatureFlags,
    /// The feature `subgroupSizeControl`.
    pub size_control: bool,
    /// The feature `computeFullSubgroups`.
    pub full_subgroups: bool,
    /// Shader stages in which a pipeline may require a size.
    pub required_size_stages: vk::ShaderStageFlags,
    /// Subgroups of one workgroup of a pipeline that requires a size; 0 where none may.
    pub max_workgroup_subgroups: u32,
}

/// Device features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureFacts {
    /// `vulkanMemoryModel`.
    pub vulkan_memory_model: bool,
    /// `vulkanMemoryModelDeviceScope`.
    pub vulkan_memory_model_device_scope: bool,
    /// `bufferDeviceAddress`.
    pub buffer_device_address: bool,
    /// `timelineSemaphore`.
    pub timeline_semaphore: bool,
    /// `shaderInt64`. taskring does without; ops that want it have to look.
    pub shader_int64: bool,
    /// `shaderDeviceClock`; a device without `VK_KHR_shader_clock` has none. taskring does without.
    pub shader_device_clock: bool,
    /// Whether timeline semaphores can be exported and imported as opaque file descriptors; a device without
    /// `VK_KHR_external_semaphore_fd` cannot. taskring does without.
    pub external_timelines: bool,
    /// `deviceFault`; a device without `VK_EXT_device_fault` has none. taskring does without.
    pub device_fault: bool,
}

/// One memory type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryTypeFacts {
    /// Its properties.
    pub properties: vk::MemoryPropertyFlags,
    /// Index of its heap.
    pub heap: u32,
}

/// One memory heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryHeapFacts {
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is the device's own.
    pub flags: vk::MemoryHeapFlags,
}

/// Limits, in Vulkan's own meaning of each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LimitFacts {
    /// Invocations in one workgroup.
    pub max_workgroup_invocations: u32,
    /// Invocations of one workgroup in x.
    pub max_workgroup_size_x: u32,
    /// Workgroups of one dispatch in x.
    pub max_workgroup_count_x: u32,
    /// Shared memory of one workgroup in bytes.
    pub max_shared_memory_bytes: u32,
    /// Bytes that one storage buffer descriptor may cover.
    pub max_storage_buffer_bytes: u32,
    /// Bytes of one buffer; `u64::MAX` where the device does not say (before Vulkan 1.3).
    pub max_buffer_bytes: u64,
    /// Bytes of push constants.
    pub max_push_constant_bytes: u32,
    /// How far apart the values of one timeline semaphore may lie while something waits or is pending.
    pub max_timeline_difference: u64,
    /// Granularity of flushing memory that is not coherent, in bytes.
    pub non_coherent_atom_bytes: u64,
    /// Nanoseconds per step of a timestamp.
    pub timestamp_period_ns: f32,
}

impl DeviceFacts {
    /// Asks a physical device, as an instance of `api_version` (what its `VkApplicationInfo` said) may use it.
    ///
    /// # Safety
    /// The physical device is one of the instance's, which is alive.
    ///
    /// # Errors
    /// [`BackendError::Vulkan`].
    pub unsafe fn read(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        api_version: u32,
    ) -> Result<Self, BackendError> {
        let failed = |call| move |result| BackendError::vulkan(call, result);
        // SAFETY: the caller's promise.
        let all = unsafe { instance.enumerate_physical_devices() }.map_err(failed("vkEnumeratePhysicalDevices"))?;
        let index = all.iter().position(|one| *one == physical).unwrap_or_default();
        // SAFETY: the caller's promise.
        let facts = unsafe { chains::read_facts(instance, physical, index, api_version) };
        facts.map_err(failed("vkEnumerateDeviceExtensionProperties"))
    }

    /// Whether the "device" is a driver that runs on the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.device_type == vk::PhysicalDeviceType::CPU
    }

    /// Whether threads that block on one semaphore are in each other's way. NVIDIA's driver (580) wakes one of them, and the others look again ten
    /// milliseconds later. NVK has another name.
    pub(crate) fn waiters_collide(&self) -> bool {
        self.driver_name == "NVIDIA"
    }

    /// Whether asking for a query's result waits for the whole device, an engine's submissions included, and uses the queue's context beside the
    /// queue's own thread: Mesa's lavapipe (22 to 25).
    pub(crate) fn queries_are_perilous(&self) -> bool {
        self.driver_name == "llvmpipe"
    }

    /// One line for reports: device, driver, Vulkan version and the subgroup size that kernels run with.
    #[must_use]
    pub fn describe(&self, subgroup_size: u32) -> String {
        let kind = match self.device_type {
            vk::PhysicalDeviceType::DISCRETE_GPU => "GPU",
            vk::PhysicalDeviceType::INTEGRATED_GPU => "integrated GPU",
            vk::PhysicalDeviceType::VIRTUAL_GPU => "virtual GPU",
            vk::PhysicalDeviceType::CPU => "CPU driver",
            _ => "device of another type",
        };
        let (name, driver, info, vulkan) =
            (&self.name, &self.driver_name, &self.driver_info, version(self.api_version));
        format!("{name} ({kind}), driver {driver} {info}, Vulkan {vulkan}, subgroups of {subgroup_size}")
    }
}

/// A packed Vulkan version in digits.
pub(super) fn version(packed: u32) -> String {
    let (major, minor, patch) =
        (vk::api_version_major(packed), vk::api_version_minor(packed), vk::api_version_patch(packed));
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests {
    use crate::device::recorded;

    #[test]
    fn a_device_describes_itself_in_one_line() {
        assert_eq!(
            recorded::h100().describe(32),
            "NVIDIA H100 80GB HBM3 (GPU), driver NVIDIA 580.159.04, Vulkan 1.4.312, subgroups of 32"
        );
        assert!(recorded::lavapipe().describe(8).contains("(CPU driver), driver llvmpipe Mesa 25.0.7"));
    }

    #[test]
    fn only_a_cpu_driver_is_a_cpu() {
        assert!(recorded::lavapipe().is_cpu());
        assert!(!recorded::h100().is_cpu());
    }
}
