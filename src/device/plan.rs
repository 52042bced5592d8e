//! Decisions about a device, made from its facts alone.

use ash::vk;

use super::facts::{DeviceFacts, QueueFamilyFacts, version};
use super::requirements::Feature;
use crate::error::Rejection;

/// Subgroup sizes that the scheduler is written for.
const SUBGROUP_SIZES: std::ops::RangeInclusive<u32> = 4..=128;
/// What every kernel may use. It is also the least that Vulkan allows a device to have, so only a broken driver fails.
const PUSH_CONSTANT_BYTES: u32 = 128;
/// What the kernels use beside plain loads, stores and atomics.
const SUBGROUP_OPERATIONS: vk::SubgroupFeatureFlags = vk::SubgroupFeatureFlags::from_raw(
    vk::SubgroupFeatureFlags::BASIC.as_raw() | vk::SubgroupFeatureFlags::BALLOT.as_raw(),
);
/// What the host needs of memory that it shares with the device.
pub(super) const SHARED_MEMORY: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw() | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw(),
);

/// Where subgroup size control comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeControl {
    /// The device cannot be told a size; kernels take what `gl_SubgroupSize` says.
    Unavailable,
    /// From `VK_EXT_subgroup_size_control`, on Vulkan 1.2.
    Extension,
    /// From Vulkan 1.3.
    Core,
}

/// One queue of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueSlot {
    /// Its family.
    pub family: u32,
    /// Its index among the family's queues.
    pub index: u32,
}

/// How taskring runs on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DevicePlan {
    /// The queue family that slices are submitted to.
    ///
    /// A family with compute and without graphics, if there is one: its queues run beside the engine's frames instead
    /// of between them. Otherwise the first family with compute.
    pub queue_family: u32,
    /// A second queue with compute, where the device has one: to see what slices cost the queues beside theirs.
    ///
    /// Of another family if possible, best of one with graphics: such a queue is what an engine draws on. Otherwise
    /// the second queue of the slices' own family.
    pub other_queue: Option<QueueSlot>,
    /// A queue that is meant for copies, where the device has one: of a family with transfers and without graphics and
    /// compute. Copies there run beside everything else.
    ///
    /// Of several such families the one that can do the least besides, such as video; the first of equals.
    pub transfer_queue: Option<QueueSlot>,
    /// The subgroup size of every kernel: the number of lanes of a worker.
    pub subgroup_size: u32,
    /// The size that pipelines ask for, with full subgroups; `None` where the device cannot be told.
    pub required_subgroup_size: Option<u32>,
    /// What has to be enabled for that.
    pub size_control: SizeControl,
    /// Whether kernels may read the device's clock (`shaderDeviceClock`), which all its invocations share. Nothing
    /// needs it, and the subgroup clock is not enabled.
    pub shader_clock: bool,
    /// Whether timelines can be shared with other devices and processes, through file descriptors. Nothing needs it.
    pub external_timelines: bool,
    /// Whether the driver says what lost the device (`deviceFault`), for [`FaultReport`](super::FaultReport). Nothing needs it.
    pub fault_reports: bool,
}

impl DevicePlan {
    /// The queue that slices are submitted to.
    pub(super) fn slices_queue(&self) -> QueueSlot {
        QueueSlot { family: self.queue_family, index: 0 }
    }

    /// The families that the device is made with, each once, with the number of its queues.
    pub(super) fn queues(&self) -> Vec<(u32, usize)> {
        let mut queues: Vec<(u32, usize)> = Vec::new();
        for slot in [Some(self.slices_queue()), self.other_queue, self.transfer_queue].into_iter().flatten() {
            match queues.iter_mut().find(|(family, _)| *family == slot.family) {
                Some((_, count)) => *count += 1,
                None => queues.push((slot.family, 1)),
            }
        }
        queues
    }

    /// The families that a shared buffer is made for: all of the plan's, or none where there is only one, since Vulkan
    /// wants a buffer of one family to be its own.
    pub(super) fn sharers(&self) -> Vec<u32> {
        let families: Vec<_> = self.queues().into_iter().map(|(family, _)| family).collect();
        if families.len() > 1 { families } else { Vec::new() }
    }
}

/// Which device to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSelector {
    /// The best acceptable one: discrete before integrated before virtual GPUs before CPU drivers, the first of equals.
    /// The environment variable `TASKRING_DEVICE` replaces this choice, and only this one.
    #[default]
    Auto,
    /// The one at this position in the loader's enumeration order.
    Index(usize),
    /// The best acceptable one whose name contains this text, in either case.
    Name(String),
}

impl std::fmt::Display for DeviceSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("the automatic choice"),
            Self::Index(index) => write!(f, "index {index}"),
            Self::Name(name) => write!(f, "the name `{name}`"),
        }
    }
}

impl DeviceSelector {
    /// Reads the value of `TASKRING_DEVICE`: a number is an index, anything else a part of a name.
    pub(super) fn parse(text: &str) -> Self {
        match text.trim() {
            "" => Self::Auto,
            text => text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index),
        }
    }

    /// Why this selector does not mean that device.
    fn objection(&self, facts: &DeviceFacts) -> Option<String> {
        let wanted = match self {
            Self::Auto => true,
            Self::Index(index) => *index == facts.index,
            Self::Name(name) => facts.name.to_lowercase().contains(&name.to_lowercase()),
        };
        (!wanted).then(|| format!("does not match {self}"))
    }
}

/// Decides how taskring runs on a device, or lists everything that the device lacks.
///
/// # Errors
/// One sentence for each unmet requirement: Vulkan 1.2, the Vulkan memory model with device scope, buffer addresses,
/// timeline semaphores, basic and ballot subgroup operations in compute shaders, subgroups of 4 to 128, a compute
/// queue, host-visible coherent memory, 128 bytes of push constants. A device older than Vulkan 1.2 is not asked for
/// features and subgroups, so its list does not name them.
pub fn plan(facts: &DeviceFacts) -> Result<DevicePlan, Vec<String>> {
    let missing = [missing_features(facts), missing_properties(facts)].concat();
    match (queue_family(facts), missing.is_empty()) {
        (Some(queue_family), true) => {
            let size_control = size_control(facts);
            let subgroup_size = subgroup_size(facts, size_control);
            let required_subgroup_size = (size_control != SizeControl::Unavailable).then_some(subgroup_size);
            Ok(DevicePlan {
                queue_family,
                other_queue: other_queue(facts, queue_family),
                transfer_queue: transfer_queue(facts),
                subgroup_size,
                required_subgroup_size,
                size_control,
                shader_clock: facts.features.shader_device_clock,
                external_timelines: facts.features.external_timelines,
                fault_reports: facts.features.device_fault,
            })
        }
        _ => Err(missing),
    }
}

/// Takes the best acceptable device that the selector means, and its plan.
///
/// # Errors
/// Every device with all the reasons why it was not taken; an empty list if there is no device at all.
pub fn choose<'a>(
    devices: &'a [DeviceFacts],
    selector: &DeviceSelector,
) -> Result<(&'a DeviceFacts, DevicePlan), Vec<Rejection>> {
    let mut acceptable = Vec::new();
    let mut rejected = Vec::new();
    for facts in devices {
        let mut reasons: Vec<String> = selector.objection(facts).into_iter().collect();
        match plan(facts) {
            Ok(plan) if reasons.is_empty() => acceptable.push((facts, plan)),
            Ok(_) => {}
            Err(missing) => reasons.extend(missing),
        }
        if !reasons.is_empty() {
            rejected.push(Rejection { device: facts.name.clone(), index: facts.index, reasons });
        }
    }
    acceptable.into_iter().min_by_key(|(facts, _)| (rank(facts.device_type), facts.index)).ok_or(rejected)
}

/// Order of preference of the automatic choice.
fn rank(device_type: vk::PhysicalDeviceType) -> u32 {
    match device_type {
        vk::PhysicalDeviceType::DISCRETE_GPU => 0,
        vk::PhysicalDeviceType::INTEGRATED_GPU => 1,
        vk::PhysicalDeviceType::VIRTUAL_GPU => 2,
        vk::PhysicalDeviceType::CPU => 3,
        _ => 4,
    }
}

/// The required features that a device lacks; one older than Vulkan 1.2 is not asked.
fn missing_features(facts: &DeviceFacts) -> Vec<String> {
    let asked = facts.api_version >= vk::API_VERSION_1_2;
    let missing = Feature::REQUIRED.into_iter().filter(|feature| asked && !feature.is_offered(facts));
    missing.map(|feature| format!("no feature {}", feature.field())).collect()
}

/// What a device lacks beside features: its version, subgroups, queues, memory and limits.
pub(super) fn missing_properties(facts: &DeviceFacts) -> Vec<String> {
    let mut missing = Vec::new();
    if facts.api_version >= vk::API_VERSION_1_2 {
        missing.extend(missing_of_subgroups(facts));
    } else {
        missing.push(format!("Vulkan {} (1.2 is needed)", version(facts.api_version)));
    }
    if queue_family(facts).is_none() {
        missing.push("no compute queue".into());
    }
    if !facts.memory_types.iter().any(|memory| memory.properties.contains(SHARED_MEMORY)) {
        missing.push("no memory that is both host-visible and host-coherent".into());
    }
    let push_constants = facts.limits.max_push_constant_bytes;
    if push_constants < PUSH_CONSTANT_BYTES {
        missing.push(format!("{push_constants} bytes of push constants ({PUSH_CONSTANT_BYTES} are needed)"));
    }
    missing
}

fn missing_of_subgroups(facts: &DeviceFacts) -> Vec<String> {
    let mut missing = Vec::new();
    let subgroup = &facts.subgroup;
    if !subgroup.stages.contains(vk::ShaderStageFlags::COMPUTE) {
        missing.push("no subgroup operations in compute shaders".into());
    } else if !subgroup.operations.contains(SUBGROUP_OPERATIONS) {
        missing.push(format!("subgroup operations {:?} (BASIC and BALLOT are needed)", subgroup.operations));
    }
    let size = subgroup_size(facts, size_control(facts));
    if !SUBGROUP_SIZES.contains(&size) {
        let (least, most) = SUBGROUP_SIZES.into_inner();
        missing.push(format!("subgroups of {size} ({least} to {most} are needed)"));
    }
    missing
}

/// Size control is used as a whole or not at all: a required size without full subgroups leaves lanes out.
fn size_control(facts: &DeviceFacts) -> SizeControl {
    let subgroup = &facts.subgroup;
    let usable = subgroup.size_control
        && subgroup.full_subgroups
        && subgroup.required_size_stages.contains(vk::ShaderStageFlags::COMPUTE);
    match usable {
        false => SizeControl::Unavailable,
        true if facts.api_version >= vk::API_VERSION_1_3 => SizeControl::Core,
        true => SizeControl::Extension,
    }
}

/// The device's own preference, moved into the supported range where it can be told so.
fn subgroup_size(facts: &DeviceFacts, size_control: SizeControl) -> u32 {
    let subgroup = &facts.subgroup;
    let (least, most) = SUBGROUP_SIZES.into_inner();
    match size_control {
        SizeControl::Unavailable => subgroup.size,
        _ => subgroup.size.clamp(least, most).min(subgroup.max_size).max(subgroup.min_size),
    }
}

/// The families that have queues with all of these abilities, and their indices.
fn families(facts: &DeviceFacts, wanted: vk::QueueFlags) -> impl Iterator<Item = (u32, &QueueFamilyFacts)> {
    (0u32..).zip(&facts.queue_families).filter(move |(_, family)| family.count > 0 && family.flags.contains(wanted))
}

fn queue_family(facts: &DeviceFacts) -> Option<u32> {
    let compute = || families(facts, vk::QueueFlags::COMPUTE);
    let dedicated = compute().find(|(_, family)| !family.flags.contains(vk::QueueFlags::GRAPHICS));
    dedicated.or_else(|| compute().next()).map(|(index, _)| index)
}

fn other_queue(facts: &DeviceFacts, slices: u32) -> Option<QueueSlot> {
    let (compute, graphics) = (vk::QueueFlags::COMPUTE, vk::QueueFlags::GRAPHICS);
    let elsewhere = |wanted| families(facts, wanted).map(|(family, _)| family).find(|family| *family != slices);
    let beside = || families(facts, compute).any(|(family, facts)| family == slices && facts.count > 1);
    match elsewhere(compute | graphics).or_else(|| elsewhere(compute)) {
        Some(family) => Some(QueueSlot { family, index: 0 }),
        None => beside().then_some(QueueSlot { family: slices, index: 1 }),
    }
}

fn transfer_queue(facts: &DeviceFacts) -> Option<QueueSlot> {
    let plain = vk::QueueFlags::TRANSFER | vk::QueueFlags::SPARSE_BINDING | vk::QueueFlags::PROTECTED;
    let besides = |family: &QueueFamilyFacts| (family.flags & !plain).as_raw().count_ones();
    families(facts, vk::QueueFlags::TRANSFER)
        .filter(|(_, family)| !family.flags.intersects(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE))
        .min_by_key(|(_, family)| besides(family))
        .map(|(family, _)| QueueSlot { family, index: 0 })
}

#[cfg(test)]
mod tests;
