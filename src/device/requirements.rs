//! What taskring needs of a device, known before the device exists, and what of it an engine's device has.
//!
//! All of it is pure: facts of a physical device in, and a list of bits and names out. The chains that carry the bits are `features.rs`'s.

use std::ffi::{CStr, CString};
use std::fmt;

use ash::{ext, khr, vk};

use super::facts::{DeviceFacts, FeatureFacts, SubgroupFacts};
use super::features::{self, FeatureStructs};
use super::plan::{DevicePlan, QueueSlot, SizeControl, missing_properties, plan};

/// A feature bit that taskring enables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// `vulkanMemoryModel`: every ordering of the kernels is one of this model.
    VulkanMemoryModel,
    /// `vulkanMemoryModelDeviceScope`: workers are workgroups, and talk to each other.
    VulkanMemoryModelDeviceScope,
    /// `bufferDeviceAddress`: kernels reach their buffers by address.
    BufferDeviceAddress,
    /// `timelineSemaphore`: slices are counted, and epochs are values.
    TimelineSemaphore,
    /// `subgroupSizeControl`, optional: pipelines are told the size of their subgroups.
    SubgroupSizeControl,
    /// `computeFullSubgroups`, optional: goes with the size.
    ComputeFullSubgroups,
    /// `shaderDeviceClock`, optional: slices are bounded by time, and not by turns.
    ShaderDeviceClock,
    /// `deviceFault`, optional: when the device is lost, the driver says why.
    DeviceFault,
}

impl Feature {
    /// Those without which nothing runs. The others light up what they allow.
    pub const REQUIRED: [Self; 4] = [
        Self::VulkanMemoryModel,
        Self::VulkanMemoryModelDeviceScope,
        Self::BufferDeviceAddress,
        Self::TimelineSemaphore,
    ];
    pub(super) const ALL: [Self; 8] = [
        Self::VulkanMemoryModel,
        Self::VulkanMemoryModelDeviceScope,
        Self::BufferDeviceAddress,
        Self::TimelineSemaphore,
        Self::SubgroupSizeControl,
        Self::ComputeFullSubgroups,
        Self::ShaderDeviceClock,
        Self::DeviceFault,
    ];

    /// Whether nothing runs without it.
    #[must_use]
    pub fn is_required(self) -> bool {
        Self::REQUIRED.contains(&self)
    }

    /// Vulkan's name of the bit.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::VulkanMemoryModel => "vulkanMemoryModel",
            Self::VulkanMemoryModelDeviceScope => "vulkanMemoryModelDeviceScope",
            Self::BufferDeviceAddress => "bufferDeviceAddress",
            Self::TimelineSemaphore => "timelineSemaphore",
            Self::SubgroupSizeControl => "subgroupSizeControl",
            Self::ComputeFullSubgroups => "computeFullSubgroups",
            Self::ShaderDeviceClock => "shaderDeviceClock",
            Self::DeviceFault => "deviceFault",
        }
    }

    /// The structure that has the bit. What Vulkan 1.2 and 1.3 gather in one structure each has structures of its own as well.
    #[must_use]
    pub const fn structure(self) -> &'static str {
        match self {
            Self::VulkanMemoryModel
            | Self::VulkanMemoryModelDeviceScope
            | Self::BufferDeviceAddress
            | Self::TimelineSemaphore => "VkPhysicalDeviceVulkan12Features",
            Self::SubgroupSizeControl | Self::ComputeFullSubgroups => "VkPhysicalDeviceSubgroupSizeControlFeatures",
            Self::ShaderDeviceClock => "VkPhysicalDeviceShaderClockFeaturesKHR",
            Self::DeviceFault => "VkPhysicalDeviceFaultFeaturesEXT",
        }
    }

    /// Whether the device has it.
    #[must_use]
    pub fn is_offered(self, facts: &DeviceFacts) -> bool {
        let (features, subgroup) = (&facts.features, &facts.subgroup);
        match self {
            Self::VulkanMemoryModel => features.vulkan_memory_model,
            Self::VulkanMemoryModelDeviceScope => features.vulkan_memory_model_device_scope,
            Self::BufferDeviceAddress => features.buffer_device_address,
            Self::TimelineSemaphore => features.timeline_semaphore,
            Self::SubgroupSizeControl => subgroup.size_control,
            Self::ComputeFullSubgroups => subgroup.full_subgroups,
            Self::ShaderDeviceClock => features.shader_device_clock,
            Self::DeviceFault => features.device_fault,
        }
    }

    /// The device extension that brings it, where it is not core.
    fn extension(self, api_version: u32) -> Option<&'static CStr> {
        match self {
            Self::SubgroupSizeControl | Self::ComputeFullSubgroups if api_version < vk::API_VERSION_1_3 => {
                Some(ext::subgroup_size_control::NAME)
            }
            Self::ShaderDeviceClock => Some(khr::shader_clock::NAME),
            Self::DeviceFault => Some(ext::device_fault::NAME),
            _ => None,
        }
    }
}

/// What to enable on a device so that taskring runs there, and runs well: the four required features, and the optional ones that the device
/// has. Known from its facts alone, before it exists.
///
/// An engine that does not want an optional feature leaves it out; [`Device::borrow`](super::Device::borrow) then plans without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements {
    plan: DevicePlan,
}

impl Requirements {
    /// The requirements on a device with these facts, which [`DeviceFacts::read`] reads.
    ///
    /// # Errors
    /// Everything that the device lacks, a sentence each, as [`plan`] has them.
    pub fn of(facts: &DeviceFacts) -> Result<Self, Vec<String>> {
        plan(facts).map(|plan| Self { plan })
    }

    pub(super) fn of_plan(plan: &DevicePlan) -> Self {
        Self { plan: plan.clone() }
    }

    /// How taskring would run on a device of its own with all of it.
    #[must_use]
    pub fn plan(&self) -> &DevicePlan {
        &self.plan
    }

    /// The feature bits to enable, required ones first.
    #[must_use]
    pub fn features(&self) -> Vec<Feature> {
        let sizes = self.plan.size_control != SizeControl::Unavailable;
        let optional = [
            (sizes, Feature::SubgroupSizeControl),
            (sizes, Feature::ComputeFullSubgroups),
            (self.plan.shader_clock, Feature::ShaderDeviceClock),
            (self.plan.fault_reports, Feature::DeviceFault),
        ];
        let optional = optional.into_iter().filter(|(wanted, _)| *wanted).map(|(_, feature)| feature);
        Feature::REQUIRED.into_iter().chain(optional).collect()
    }

    /// The device extensions to enable. All of them are optional; those of the instance are only `VK_EXT_debug_utils`, for names.
    #[must_use]
    pub fn extensions(&self) -> Vec<&'static CStr> {
        let wanted = [
            (self.plan.size_control == SizeControl::Extension, ext::subgroup_size_control::NAME),
            (self.plan.shader_clock, khr::shader_clock::NAME),
            (self.plan.external_timelines, khr::external_semaphore_fd::NAME),
            (self.plan.fault_reports, ext::device_fault::NAME),
        ];
        wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name).collect()
    }

    /// Adds the extensions to the engine's own, none twice.
    pub fn merge_extensions<'a>(&self, names: &mut Vec<&'a CStr>)
    where
        'static: 'a,
    {
        for name in self.extensions() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }

    /// Turns the features on in what the engine creates its device with: in the structures that are chained there already, such as the engine's
    /// `VkPhysicalDeviceVulkan12Features`; for what none of them holds, structures of `ours` are chained too. None is there twice.
    ///
    /// Other structures, and the bits of others, stay as they are.
    ///
    /// # Safety
    /// The chain of `info` is one of valid structures that were given to it as `&mut`, as `push_next` does, and nobody else uses them meanwhile.
    pub unsafe fn merge_features<'a>(&self, info: &mut vk::DeviceCreateInfo<'a>, ours: &'a mut FeatureStructs) {
        // SAFETY: the caller's promise.
        unsafe { features::merge(&self.features(), info, ours) }
    }
}

/// What an engine has enabled on its device, as far as taskring asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    features: Vec<Feature>,
    extensions: Vec<CString>,
    /// The families that it was created with, each with the number of its queues.
    families: Vec<(u32, u32)>,
}

impl Enabled {
    /// Reads it off what the device was, or will be, created with.
    ///
    /// # Safety
    /// The chain, the names and the queue infos of `info` are valid, as `vkCreateDevice` wants them.
    #[must_use]
    pub unsafe fn of(info: &vk::DeviceCreateInfo<'_>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { features::read(info) }
    }

    /// Adds a feature, where the engine tells by hand.
    #[must_use]
    pub fn feature(mut self, feature: Feature) -> Self {
        self.features.push(feature);
        self
    }

    /// Adds an extension of the device.
    #[must_use]
    pub fn extension(mut self, name: &CStr) -> Self {
        self.extensions.push(name.to_owned());
        self
    }

    /// Adds a queue family, with the number of its queues. Command buffers of all these families may use what taskring shares with them.
    #[must_use]
    pub fn family(mut self, family: u32, queues: u32) -> Self {
        self.families.push((family, queues));
        self
    }

    /// The families that a shared buffer is made for: none where there is only one, since Vulkan wants a buffer of one family to be its own.
    pub(super) fn sharers(&self) -> Vec<u32> {
        let mut families: Vec<u32> = self.families.iter().map(|(family, _)| *family).collect();
        families.sort_unstable();
        families.dedup();
        if families.len() > 1 { families } else { Vec::new() }
    }

    fn has_extension(&self, name: &CStr) -> bool {
        self.extensions.iter().any(|one| one.as_c_str() == name)
    }

    /// Whether the feature is on, and may be used on a device of this version.
    fn has(&self, feature: Feature, api_version: u32) -> bool {
        let extension = feature.extension(api_version);
        self.features.contains(&feature) && extension.is_none_or(|name| self.has_extension(name))
    }

    /// The facts of the same device, if it offered no more than what is enabled.
    fn restricted(&self, facts: &DeviceFacts) -> DeviceFacts {
        let on = |feature: Feature| feature.is_offered(facts) && self.has(feature, facts.api_version);
        DeviceFacts {
            features: FeatureFacts {
                vulkan_memory_model: on(Feature::VulkanMemoryModel),
                vulkan_memory_model_device_scope: on(Feature::VulkanMemoryModelDeviceScope),
                buffer_device_address: on(Feature::BufferDeviceAddress),
                timeline_semaphore: on(Feature::TimelineSemaphore),
                shader_device_clock: on(Feature::ShaderDeviceClock),
                external_timelines: facts.features.external_timelines
                    && self.has_extension(khr::external_semaphore_fd::NAME),
                device_fault: on(Feature::DeviceFault),
                ..facts.features
            },
            subgroup: SubgroupFacts {
                size_control: on(Feature::SubgroupSizeControl),
                full_subgroups: on(Feature::ComputeFullSubgroups),
                ..facts.subgroup
            },
            ..facts.clone()
        }
    }

    /// How taskring runs on a device with these facts and what is enabled of them, on these queues.
    ///
    /// # Errors
    /// Everything that is missing, not only the first thing.
    pub fn plan(
        &self,
        facts: &DeviceFacts,
        slices: QueueSlot,
        other: Option<QueueSlot>,
    ) -> Result<DevicePlan, Vec<Miss>> {
        let mut missing: Vec<Miss> = Vec::new();
        if facts.api_version >= vk::API_VERSION_1_2 {
            let on = |feature: &Feature| self.has(*feature, facts.api_version);
            let off = Feature::REQUIRED.into_iter().filter(|feature| !on(feature) || !feature.is_offered(facts));
            missing.extend(off.map(|feature| Miss::Feature {
                structure: feature.structure(),
                field: feature.field(),
                offered: feature.is_offered(facts),
                enabled: on(&feature),
            }));
        }
        let restricted = self.restricted(facts);
        missing.extend(missing_properties(&restricted).into_iter().map(Miss::Device));
        for slot in [Some(slices), other].into_iter().flatten() {
            missing.extend(self.queue_problem(facts, slot).map(|problem| Miss::Queue { slot, problem }));
        }
        if other == Some(slices) {
            missing.push(Miss::Queue { slot: slices, problem: "cannot be the slices' queue and the other one" });
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        let plan = plan(&restricted).map_err(|reasons| reasons.into_iter().map(Miss::Device).collect::<Vec<_>>())?;
        Ok(DevicePlan { queue_family: slices.family, other_queue: other, transfer_queue: None, ..plan })
    }

    fn queue_problem(&self, facts: &DeviceFacts, slot: QueueSlot) -> Option<&'static str> {
        let Some(family) = facts.queue_families.get(slot.family as usize) else {
            return Some("is of a family that the device does not have");
        };
        let created = self.families.iter().filter(|(family, _)| *family == slot.family).map(|(_, count)| *count);
        if !family.flags.contains(vk::QueueFlags::COMPUTE) {
            Some("cannot compute")
        } else if slot.index >= created.sum() {
            Some("is not one that the device was created with")
        } else {
            None
        }
    }
}

/// Something that an engine's device lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// A feature bit.
    Feature {
        /// The structure that has it.
        structure: &'static str,
        /// Its name.
        field: &'static str,
        /// Whether the physical device has it.
        offered: bool,
        /// Whether the engine has enabled it.
        enabled: bool,
    },
    /// A version, a limit, or another property of the physical device.
    Device(String),
    /// A queue that was handed in.
    Queue {
        /// Which.
        slot: QueueSlot,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature { structure, field, offered, enabled } => {
                let (offered, enabled) = (if *offered { "" } else { "not " }, if *enabled { "" } else { "not " });
                write!(f, "{structure}::{field} is {offered}offered by the device and {enabled}enabled by the engine")
            }
            Self::Device(reason) => f.write_str(reason),
            Self::Queue { slot, problem } => write!(f, "queue {} of family {} {problem}", slot.index, slot.family),
        }
    }
}

/// For `features.rs`, which reads chains.
pub(super) fn enabled(features: Vec<Feature>, extensions: Vec<CString>, families: Vec<(u32, u32)>) -> Enabled {
    Enabled { features, extensions, families }
}

#[cfg(test)]
mod tests;
