//! The structures that hold feature bits, in the chains that devices are created with. No Vulkan call.

use std::ffi::CStr;
use std::mem::offset_of;

use ash::vk::{self, StructureType as Kind};

use super::requirements::{Enabled, Feature, enabled};

/// Room for the structures that an engine's chain lacks; see [`Requirements::merge_features`](super::Requirements::merge_features).
#[derive(Debug, Default)]
pub struct FeatureStructs {
    memory_model: vk::PhysicalDeviceVulkanMemoryModelFeatures<'static>,
    addresses: vk::PhysicalDeviceBufferDeviceAddressFeatures<'static>,
    timelines: vk::PhysicalDeviceTimelineSemaphoreFeatures<'static>,
    sizes: vk::PhysicalDeviceSubgroupSizeControlFeatures<'static>,
    clocks: vk::PhysicalDeviceShaderClockFeaturesKHR<'static>,
    faults: vk::PhysicalDeviceFaultFeaturesEXT<'static>,
}

type Base = vk::BaseOutStructure<'static>;

/// Where a structure of this kind has the feature.
fn place(kind: Kind, feature: Feature) -> Option<usize> {
    type Core12 = vk::PhysicalDeviceVulkan12Features<'static>;
    type Core13 = vk::PhysicalDeviceVulkan13Features<'static>;
    type Model = vk::PhysicalDeviceVulkanMemoryModelFeatures<'static>;
    type Sizes = vk::PhysicalDeviceSubgroupSizeControlFeatures<'static>;
    Some(match (kind, feature) {
        (Kind::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, Feature::VulkanMemoryModel) => {
            offset_of!(Core12, vulkan_memory_model)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, Feature::VulkanMemoryModelDeviceScope) => {
            offset_of!(Core12, vulkan_memory_model_device_scope)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, Feature::BufferDeviceAddress) => {
            offset_of!(Core12, buffer_device_address)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, Feature::TimelineSemaphore) => {
            offset_of!(Core12, timeline_semaphore)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, Feature::SubgroupSizeControl) => {
            offset_of!(Core13, subgroup_size_control)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, Feature::ComputeFullSubgroups) => {
            offset_of!(Core13, compute_full_subgroups)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, Feature::VulkanMemoryModel) => {
            offset_of!(Model, vulkan_memory_model)
        }
        (Kind::PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES, Feature::VulkanMemoryModelDeviceScope) => {
            offset_of!(Model, vulkan_memory_model_device_scope)
        }
        (Kind::PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES, Feature::BufferDeviceAddress) => {
            offset_of!(vk::PhysicalDeviceBufferDeviceAddressFeatures<'static>, buffer_device_address)
        }
        (Kind::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES, Feature::TimelineSemaphore) => {
            offset_of!(vk::PhysicalDeviceTimelineSemaphoreFeatures<'static>, timeline_semaphore)
        }
        (Kind::PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, Feature::SubgroupSizeControl) => {
            offset_of!(Sizes, subgroup_size_control)
        }
        (Kind::PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES, Feature::ComputeFullSubgroups) => {
            offset_of!(Sizes, compute_full_subgroups)
        }
        (Kind::PHYSICAL_DEVICE_SHADER_CLOCK_FEATURES_KHR, Feature::ShaderDeviceClock) => {
            offset_of!(vk::PhysicalDeviceShaderClockFeaturesKHR<'static>, shader_device_clock)
        }
        (Kind::PHYSICAL_DEVICE_FAULT_FEATURES_EXT, Feature::DeviceFault) => {
            offset_of!(vk::PhysicalDeviceFaultFeaturesEXT<'static>, device_fault)
        }
        _ => return None,
    })
}

/// The structures of a chain.
///
/// # Safety
/// The chain is one of valid structures for as long as the iterator is used.
unsafe fn structures(chain: *const std::ffi::c_void) -> impl Iterator<Item = (Kind, *mut Base)> {
    let mut next = chain.cast::<Base>().cast_mut();
    std::iter::from_fn(move || {
        let here = next;
        // SAFETY: the caller's promise; every structure of a chain begins like this one.
        let base = unsafe { here.as_ref() }?;
        next = base.p_next;
        Some((base.s_type, here))
    })
}

/// The bit of a feature in a structure of this kind, if it is there.
fn bit(kind: Kind, structure: *mut Base, feature: Feature) -> Option<*mut vk::Bool32> {
    place(kind, feature).map(|offset| structure.wrapping_byte_add(offset).cast())
}

/// Turns features on in a chain, and puts structures in front for what none there holds.
///
/// # Safety
/// As for [`Requirements::merge_features`](super::Requirements::merge_features).
pub(super) unsafe fn merge<'a>(
    features: &[Feature],
    info: &mut vk::DeviceCreateInfo<'a>,
    ours: &'a mut FeatureStructs,
) {
    let mut left = features.to_vec();
    let mut turn_on = |kind, structure| {
        let before = left.len();
        left.retain(|feature| match bit(kind, structure, *feature) {
            Some(bit) => {
                // SAFETY: the bit lies in a structure of this kind, which the caller lets be written, or in one of `ours`.
                unsafe { bit.write(vk::TRUE) };
                false
            }
            None => true,
        });
        left.len() < before
    };
    // SAFETY: the caller's promise.
    for (kind, structure) in unsafe { structures(info.p_next) } {
        turn_on(kind, structure);
    }
    let FeatureStructs { memory_model, addresses, timelines, sizes, clocks, faults } = ours;
    let ours: [(Kind, *mut Base); 6] = [
        (memory_model.s_type, (&raw mut *memory_model).cast()),
        (addresses.s_type, (&raw mut *addresses).cast()),
        (timelines.s_type, (&raw mut *timelines).cast()),
        (sizes.s_type, (&raw mut *sizes).cast()),
        (clocks.s_type, (&raw mut *clocks).cast()),
        (faults.s_type, (&raw mut *faults).cast()),
    ];
    for (kind, structure) in ours {
        if turn_on(kind, structure) {
            // SAFETY: the structure is one of `ours`, which lives as long as the info uses it.
            unsafe { (*structure).p_next = info.p_next.cast_mut().cast() };
            info.p_next = structure.cast();
        }
    }
}

/// What the info of a device enables.
///
/// # Safety
/// As for [`Enabled::of`].
pub(super) unsafe fn read(info: &vk::DeviceCreateInfo<'_>) -> Enabled {
    let mut on = Vec::new();
    // SAFETY: the caller's promise.
    for (kind, structure) in unsafe { structures(info.p_next) } {
        for feature in Feature::ALL {
            // SAFETY: the bit lies in a structure of this kind.
            if bit(kind, structure, feature).is_some_and(|bit| unsafe { bit.read() } != vk::FALSE) {
                on.push(feature);
            }
        }
    }
    // SAFETY: the caller's promise: so many names.
    let names = unsafe { list(info.pp_enabled_extension_names, info.enabled_extension_count) };
    // SAFETY: the caller's promise: each name ends with a zero.
    let names = names.iter().map(|name| unsafe { CStr::from_ptr(*name) }.to_owned()).collect();
    // SAFETY: the caller's promise: so many infos.
    let queues = unsafe { list(info.p_queue_create_infos, info.queue_create_info_count) };
    let families = queues.iter().map(|queue| (queue.queue_family_index, queue.queue_count)).collect();
    enabled(on, names, families)
}

/// A list as Vulkan has it, which may be null if it is empty.
///
/// # Safety
/// There are so many valid elements for as long as the slice is used.
unsafe fn list<'a, T>(first: *const T, count: u32) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
