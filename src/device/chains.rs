//! Every Vulkan call of the crate that takes a `pNext` chain, and nothing else.
//!
//! They live in one file because the next release of `ash` renames `push_next`.

use std::ffi::{CStr, c_char};

use ash::prelude::VkResult;
use ash::{ext, khr, vk};

use super::context::PipelineDesc;
use super::facts::{
    DeviceFacts, FeatureFacts, LimitFacts, MemoryHeapFacts, MemoryTypeFacts, QueueFamilyFacts, SubgroupFacts,
};
use super::features::FeatureStructs;
use super::plan::DevicePlan;
use super::requirements::Requirements;

/// What the instance says it was written for. Devices of 1.2 are fine; 1.3 makes size control core where it is core.
const API_VERSION: u32 = vk::API_VERSION_1_3;

/// What an instance is made of.
pub(super) struct InstanceRequest<'a> {
    pub(super) application_name: &'a CStr,
    pub(super) layers: &'a [&'static CStr],
    pub(super) extensions: &'a [&'static CStr],
    /// Whether the layers are to check synchronization too.
    pub(super) check_synchronization: bool,
    /// Who hears messages while the instance is created and destroyed.
    pub(super) messenger: Option<vk::DebugUtilsMessengerCreateInfoEXT<'a>>,
}

fn pointers(names: &[&'static CStr]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}

/// Creates an instance.
///
/// # Safety
/// The messenger's user data outlives the instance.
pub(super) unsafe fn create_instance(entry: &ash::Entry, request: InstanceRequest<'_>) -> VkResult<ash::Instance> {
    let application = vk::ApplicationInfo::default()
        .application_name(request.application_name)
        .engine_name(c"taskring")
        .api_version(API_VERSION);
    let (layers, extensions) = (pointers(request.layers), pointers(request.extensions));
    let mut info = vk::InstanceCreateInfo::default()
        .application_info(&application)
        .enabled_layer_names(&layers)
        .enabled_extension_names(&extensions);

    let checks = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
    let mut validation = vk::ValidationFeaturesEXT::default().enabled_validation_features(&checks);
    if request.check_synchronization {
        info = info.push_next(&mut validation);
    }
    let mut messenger = request.messenger.unwrap_or_default();
    if request.messenger.is_some() {
        info = info.push_next(&mut messenger);
    }
    // SAFETY: `info` and all that it points to live until the call returns; the caller keeps the user data longer.
    unsafe { entry.create_instance(&info, None) }
}

/// Takes a snapshot of a physical device, as an instance of this version may use it.
///
/// # Safety
/// The physical device belongs to the instance.
pub(super) unsafe fn read_facts(
    instance: &ash::Instance,
    device: vk::PhysicalDevice,
    index: usize,
    instance_version: u32,
) -> VkResult<DeviceFacts> {
    // SAFETY: the caller's promise; the same for each call below.
    let properties = unsafe { instance.get_physical_device_properties(device) };
    // SAFETY: as above.
    let families = unsafe { instance.get_physical_device_queue_family_properties(device) };
    // SAFETY: as above.
    let memory = unsafe { instance.get_physical_device_memory_properties(device) };

    let limits = properties.limits;
    let mut facts = DeviceFacts {
        name: text(properties.device_name_as_c_str()),
        index,
        vendor_id: properties.vendor_id,
        api_version: properties.api_version.min(instance_version),
        device_type: properties.device_type,
        queue_families: families
            .iter()
            .map(|family| QueueFamilyFacts {
                flags: family.queue_flags,
                count: family.queue_count,
                timestamp_valid_bits: family.timestamp_valid_bits,
            })
            .collect(),
        memory_types: memory
            .memory_types_as_slice()
            .iter()
            .map(|kind| MemoryTypeFacts { properties: kind.property_flags, heap: kind.heap_index })
            .collect(),
        memory_heaps: memory
            .memory_heaps_as_slice()
            .iter()
            .map(|heap| MemoryHeapFacts { bytes: heap.size, flags: heap.flags })
            .collect(),
        limits: LimitFacts {
            max_workgroup_invocations: limits.max_compute_work_group_invocations,
            max_workgroup_size_x: limits.max_compute_work_group_size[0],
            max_workgroup_count_x: limits.max_compute_work_group_count[0],
            max_shared_memory_bytes: limits.max_compute_shared_memory_size,
            max_storage_buffer_bytes: limits.max_storage_buffer_range,
            max_buffer_bytes: u64::MAX,
            max_push_constant_bytes: limits.max_push_constants_size,
            max_timeline_difference: 0,
            non_coherent_atom_bytes: limits.non_coherent_atom_size,
            timestamp_period_ns: limits.timestamp_period,
        },
        ..DeviceFacts::default()
    };
    if facts.api_version >= vk::API_VERSION_1_2 {
        // SAFETY: the caller's promise; the version was just looked at.
        unsafe { read_newer_facts(instance, device, &mut facts) }?;
    }
    Ok(facts)
}

/// Adds what only devices of Vulkan 1.2 and newer are asked for.
///
/// # Safety
/// The physical device belongs to the instance and implements Vulkan 1.2.
unsafe fn read_newer_facts(
    instance: &ash::Instance,
    device: vk::PhysicalDevice,
    facts: &mut DeviceFacts,
) -> VkResult<()> {
    let core_1_3 = facts.api_version >= vk::API_VERSION_1_3;
    // SAFETY: the caller's promise.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }?;
    let has = |wanted: &CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(wanted));
    let knows_size_control = core_1_3 || has(ext::subgroup_size_control::NAME);

    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut subgroup = vk::PhysicalDeviceSubgroupProperties::default();
    let mut timeline = vk::PhysicalDeviceTimelineSemaphoreProperties::default();
    let mut sizes = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
    let mut buffers = vk::PhysicalDeviceMaintenance4Properties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default()
        .push_next(&mut driver)
        .push_next(&mut subgroup)
        .push_next(&mut timeline);
    if knows_size_control {
        properties = properties.push_next(&mut sizes);
    }
    if core_1_3 {
        properties = properties.push_next(&mut buffers);
    }
    // SAFETY: the caller's promise; the device knows every structure of the chain.
    unsafe { instance.get_physical_device_properties2(device, &mut properties) };

    let mut memory_model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default();
    let mut addresses = vk::PhysicalDeviceBufferDeviceAddressFeatures::default();
    let mut timelines = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
    let mut size_control = vk::PhysicalDeviceSubgroupSizeControlFeatures::default();
    let mut clocks = vk::PhysicalDeviceShaderClockFeaturesKHR::default();
    let mut faults = vk::PhysicalDeviceFaultFeaturesEXT::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut memory_model)
        .push_next(&mut addresses)
        .push_next(&mut timelines);
    if knows_size_control {
        features = features.push_next(&mut size_control);
    }
    if has(khr::shader_clock::NAME) {
        features = features.push_next(&mut clocks);
    }
    if has(ext::device_fault::NAME) {
        features = features.push_next(&mut faults);
    }
    // SAFETY: as for the properties.
    unsafe { instance.get_physical_device_features2(device, &mut features) };
    let shader_int64 = features.features.shader_int64 != vk::FALSE;
    let external_timelines = has(khr::external_semaphore_fd::NAME) && {
        // SAFETY: the caller's promise.
        unsafe { shares_timelines(instance, device) }
    };

    facts.driver_name = text(driver.driver_name_as_c_str());
    facts.driver_info = text(driver.driver_info_as_c_str());
    facts.limits.max_timeline_difference = timeline.max_timeline_semaphore_value_difference;
    if core_1_3 {
        facts.limits.max_buffer_bytes = buffers.max_buffer_size;
    }
    facts.subgroup = SubgroupFacts {
        size: subgroup.subgroup_size,
        min_size: if knows_size_control { sizes.min_subgroup_size } else { subgroup.subgroup_size },
        max_size: if knows_size_control { sizes.max_subgroup_size } else { subgroup.subgroup_size },
        stages: subgroup.supported_stages,
        operations: subgroup.supported_operations,
        size_control: size_control.subgroup_size_control != vk::FALSE,
        full_subgroups: size_control.compute_full_subgroups != vk::FALSE,
        required_size_stages: sizes.required_subgroup_size_stages,
        max_workgroup_subgroups: sizes.max_compute_workgroup_subgroups,
    };
    facts.features = FeatureFacts {
        vulkan_memory_model: memory_model.vulkan_memory_model != vk::FALSE,
        vulkan_memory_model_device_scope: memory_model.vulkan_memory_model_device_scope != vk::FALSE,
        buffer_device_address: addresses.buffer_device_address != vk::FALSE,
        timeline_semaphore: timelines.timeline_semaphore != vk::FALSE,
        shader_int64,
        shader_device_clock: clocks.shader_device_clock != vk::FALSE,
        external_timelines,
        device_fault: faults.device_fault != vk::FALSE,
    };
    Ok(())
}

/// Whether timeline semaphores can be both exported and imported as opaque file descriptors. A driver that has the
/// extension may still share binary semaphores only.
///
/// # Safety
/// The physical device belongs to the instance and implements Vulkan 1.2.
unsafe fn shares_timelines(instance: &ash::Instance, device: vk::PhysicalDevice) -> bool {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
        .handle_type(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD)
        .push_next(&mut kind);
    let mut answer = vk::ExternalSemaphoreProperties::default();
    // SAFETY: the caller's promise; both structures live until the call returns.
    unsafe { instance.get_physical_device_external_semaphore_properties(device, &info, &mut answer) };
    let both = vk::ExternalSemaphoreFeatureFlags::EXPORTABLE | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
    answer.external_semaphore_features.contains(both)
}

/// A driver's string; empty if the driver forgot its end.
pub(super) fn text(string: Result<&CStr, std::ffi::FromBytesUntilNulError>) -> String {
    string.map(|string| string.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Creates a device with the queues of the plan and exactly the features that the kernels use.
///
/// # Safety
/// The physical device belongs to the instance, and the plan was made from its facts.
pub(super) unsafe fn create_device(
    instance: &ash::Instance,
    device: vk::PhysicalDevice,
    plan: &DevicePlan,
) -> VkResult<ash::Device> {
    let families = plan.queues();
    let priorities = vec![1.0; families.iter().map(|(_, count)| *count).max().unwrap_or_default()];
    let queue = |(family, count): &(u32, usize)| {
        vk::DeviceQueueCreateInfo::default().queue_family_index(*family).queue_priorities(&priorities[..*count])
    };
    let queues: Vec<_> = families.iter().map(queue).collect();
    let requirements = Requirements::of_plan(plan);
    let extensions = pointers(&requirements.extensions());
    let mut features = FeatureStructs::default();
    let mut info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&extensions);
    // SAFETY: the chain is empty.
    unsafe { requirements.merge_features(&mut info, &mut features) };
    // SAFETY: the caller's promises; the plan asks for nothing that the device does not have.
    unsafe { instance.create_device(device, &info, None) }
}

/// Creates a timeline semaphore, which can be exported as an opaque file descriptor if that is asked for.
///
/// # Safety
/// The device has timeline semaphores enabled; for an exportable one, its plan has external timelines.
pub(super) unsafe fn create_timeline(device: &ash::Device, initial: u64, exportable: bool) -> VkResult<vk::Semaphore> {
    let mut kind =
        vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE).initial_value(initial);
    let mut export =
        vk::ExportSemaphoreCreateInfo::default().handle_types(vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD);
    let mut info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    if exportable {
        info = info.push_next(&mut export);
    }
    // SAFETY: the caller's promises; `info` lives until the call returns.
    unsafe { device.create_semaphore(&info, None) }
}

/// Submits command buffers with timeline waits before all of them, and at most one timeline signal and one fence after; the fence may be null.
///
/// # Safety
/// As for `vkQueueSubmit`: live handles of this device, the queue locked, command buffers ready to be executed.
pub(super) unsafe fn submit(
    device: &ash::Device,
    queue: vk::Queue,
    command_buffers: &[vk::CommandBuffer],
    waits: &[(vk::Semaphore, u64)],
    signal: Option<(vk::Semaphore, u64)>,
    fence: vk::Fence,
) -> VkResult<()> {
    let (wait_semaphores, wait_values): (Vec<_>, Vec<_>) = waits.iter().copied().unzip();
    let (signal_semaphores, signal_values): (Vec<_>, Vec<_>) = signal.into_iter().unzip();
    let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; wait_semaphores.len()];
    let mut timelines = vk::TimelineSemaphoreSubmitInfo::default()
        .wait_semaphore_values(&wait_values)
        .signal_semaphore_values(&signal_values);
    let info = vk::SubmitInfo::default()
        .command_buffers(command_buffers)
        .wait_semaphores(&wait_semaphores)
        .wait_dst_stage_mask(&stages)
        .signal_semaphores(&signal_semaphores)
        .push_next(&mut timelines);
    // SAFETY: the caller's promises; `info` and all that it points to live until the call returns.
    unsafe { device.queue_submit(queue, &[info], fence) }
}

/// Allocates memory of one type for a buffer that has a device address.
///
/// # Safety
/// As for `vkAllocateMemory`; buffer addresses are enabled, and the type needs no feature that is not.
pub(super) unsafe fn allocate_addressed(
    device: &ash::Device,
    memory_type: u32,
    bytes: u64,
) -> VkResult<vk::DeviceMemory> {
    let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
    let info = vk::MemoryAllocateInfo::default().allocation_size(bytes).memory_type_index(memory_type);
    // SAFETY: the caller's promises; the chain lives until the call returns.
    unsafe { device.allocate_memory(&info.push_next(&mut flags), None) }
}

/// Creates a compute pipeline; a given subgroup size is required, and with it full subgroups.
///
/// # Safety
/// As for `vkCreateComputePipelines`; a given size is one that the plan of this device allows.
pub(super) unsafe fn create_compute_pipeline(
    device: &ash::Device,
    desc: &PipelineDesc<'_>,
    required_subgroup_size: Option<u32>,
) -> VkResult<vk::Pipeline> {
    let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default()
        .required_subgroup_size(required_subgroup_size.unwrap_or_default());
    let mut stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(desc.module)
        .name(desc.entry);
    if let Some(specialization) = desc.specialization {
        stage = stage.specialization_info(specialization);
    }
    if required_subgroup_size.is_some() {
        stage = stage.flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS).push_next(&mut size);
    }
    let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(desc.layout);
    // SAFETY: the caller's promises; `info` and all that it points to live until the call returns.
    let created = unsafe { device.create_compute_pipelines(desc.cache, &[info], None) };
    // One pipeline was asked for, so a failure leaves none behind.
    let pipelines = created.map_err(|(_, result)| result)?;
    pipelines.first().copied().ok_or(vk::Result::ERROR_UNKNOWN)
}
