//! What is asked for and what is missed, on facts of devices that need not be here.

use super::*;
use crate::device::recorded;

const FIRST: QueueSlot = QueueSlot { family: 0, index: 0 };

/// Everything that taskring would enable there, on one queue of each family.
fn all(facts: &DeviceFacts) -> Enabled {
    let requirements = Requirements::of(facts).unwrap();
    let features = requirements.features().into_iter().fold(Enabled::default(), Enabled::feature);
    let enabled = requirements.extensions().into_iter().fold(features, Enabled::extension);
    (0..).zip(&facts.queue_families).fold(enabled, |enabled, (family, _)| enabled.family(family, 1))
}

fn words(missing: Vec<Miss>) -> Vec<String> {
    missing.iter().map(ToString::to_string).collect()
}

#[test]
fn a_borrowed_device_with_everything_enabled_runs_like_one_of_our_own_on_the_queues_that_are_lent() {
    for facts in [recorded::h100(), recorded::lavapipe(), recorded::swiftshader()] {
        let own = plan(&facts).unwrap();
        let lent = all(&facts).plan(&facts, FIRST, None).unwrap();
        assert_eq!(lent, DevicePlan { queue_family: 0, other_queue: None, transfer_queue: None, ..own });
    }
}

#[test]
fn everything_that_is_off_is_named_at_once_with_whether_the_device_has_it() {
    let mut facts = recorded::h100();
    facts.features.timeline_semaphore = false;
    facts.limits.max_push_constant_bytes = 64;
    let enabled = Enabled::default().feature(Feature::VulkanMemoryModel).feature(Feature::BufferDeviceAddress);
    let missing = enabled.plan(&facts, QueueSlot { family: 1, index: 0 }, None).unwrap_err();
    let structure = "VkPhysicalDeviceVulkan12Features";
    assert_eq!(
        words(missing),
        [
            format!("{structure}::vulkanMemoryModelDeviceScope is offered by the device and not enabled by the engine"),
            format!("{structure}::timelineSemaphore is not offered by the device and not enabled by the engine"),
            "64 bytes of push constants (128 are needed)".into(),
            "queue 0 of family 1 cannot compute".into(),
        ]
    );
}

#[test]
fn each_required_feature_is_missed_alone_and_no_optional_one_ever_is() {
    let facts = recorded::h100();
    for left_out in Feature::ALL {
        let mut enabled = all(&facts);
        enabled.features.retain(|feature| *feature != left_out);
        match enabled.plan(&facts, FIRST, None) {
            Ok(_) => assert!(!left_out.is_required(), "{left_out:?}"),
            Err(missing) => {
                let fields: Vec<_> = missing
                    .iter()
                    .map(|miss| if let Miss::Feature { field, .. } = miss { field } else { "something else" })
                    .collect();
                assert_eq!((fields, left_out.is_required()), (vec![left_out.field()], true));
            }
        }
    }
}

#[test]
fn an_optional_feature_counts_only_with_the_extension_that_brings_it() {
    let facts = DeviceFacts { api_version: vk::API_VERSION_1_2, ..recorded::h100() };
    let whole = all(&facts);
    let with = whole.plan(&facts, FIRST, None).unwrap();
    let optional =
        |plan: &DevicePlan| (plan.shader_clock, plan.size_control, plan.external_timelines, plan.fault_reports);
    assert_eq!(optional(&with), (true, SizeControl::Extension, true, true));
    let bare = Enabled { extensions: Vec::new(), ..whole };
    let without = bare.plan(&facts, FIRST, None).unwrap();
    assert_eq!(optional(&without), (false, SizeControl::Unavailable, false, false));
}

#[test]
fn a_queue_must_be_one_that_the_device_was_created_with_and_not_lent_twice() {
    let facts = recorded::h100();
    let enabled = all(&facts);
    let problem = |slices, other| words(enabled.plan(&facts, slices, other).unwrap_err());
    let (second, nowhere) = (QueueSlot { family: 2, index: 1 }, QueueSlot { family: 99, index: 0 });
    assert_eq!(problem(second, None), ["queue 1 of family 2 is not one that the device was created with"]);
    assert_eq!(problem(nowhere, None), ["queue 0 of family 99 is of a family that the device does not have"]);
    assert_eq!(problem(FIRST, Some(FIRST)), ["queue 0 of family 0 cannot be the slices' queue and the other one"]);
}

#[test]
fn an_old_device_is_missed_for_its_version_and_not_for_features_that_it_was_not_asked_for() {
    let facts = recorded::vulkan_1_1();
    let enabled = Enabled::default().family(0, 1);
    assert_eq!(words(enabled.plan(&facts, FIRST, None).unwrap_err()), ["Vulkan 1.1.95 (1.2 is needed)"]);
}

#[test]
fn buffers_are_shared_between_the_engines_families_if_there_are_several() {
    assert_eq!(Enabled::default().family(0, 4).sharers(), [0; 0]);
    assert_eq!(Enabled::default().family(2, 1).family(0, 4).family(2, 1).sharers(), [0, 2]);
}

#[test]
fn extensions_are_added_to_the_engines_own_and_none_twice() {
    let requirements = Requirements::of(&recorded::h100()).unwrap();
    let mut names = vec![c"VK_KHR_swapchain", khr::shader_clock::NAME];
    requirements.merge_extensions(&mut names);
    assert_eq!(
        names,
        [c"VK_KHR_swapchain", khr::shader_clock::NAME, khr::external_semaphore_fd::NAME, ext::device_fault::NAME]
    );
}

/// The kinds of the structures in a chain, first to last.
fn kinds(info: &vk::DeviceCreateInfo<'_>) -> Vec<vk::StructureType> {
    let mut kinds = Vec::new();
    let mut next = info.p_next.cast::<vk::BaseInStructure<'_>>();
    // SAFETY: the tests' chains are valid.
    while let Some(structure) = unsafe { next.as_ref() } {
        kinds.push(structure.s_type);
        next = structure.p_next;
    }
    kinds
}

#[test]
fn bits_go_into_the_structures_that_are_there_and_only_the_rest_is_chained() {
    use vk::StructureType as Kind;
    let requirements = Requirements::of(&recorded::h100()).unwrap();
    let mut core_12 = vk::PhysicalDeviceVulkan12Features::default().draw_indirect_count(true);
    let mut core_13 = vk::PhysicalDeviceVulkan13Features::default().dynamic_rendering(true);
    let mut ours = FeatureStructs::default();
    let mut info = vk::DeviceCreateInfo::default().push_next(&mut core_12).push_next(&mut core_13);
    // SAFETY: the chain is one of the two structures above.
    unsafe { requirements.merge_features(&mut info, &mut ours) };
    let expected = [
        Kind::PHYSICAL_DEVICE_FAULT_FEATURES_EXT,
        Kind::PHYSICAL_DEVICE_SHADER_CLOCK_FEATURES_KHR,
        Kind::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES,
        Kind::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
    ];
    assert_eq!(kinds(&info), expected);
    // SAFETY: as above.
    let mut enabled = unsafe { Enabled::of(&info) };
    enabled.features.sort();
    assert_eq!(enabled.features, Feature::ALL);
    assert_eq!((core_12.draw_indirect_count, core_13.dynamic_rendering), (vk::TRUE, vk::TRUE), "the engine's own");
    assert_eq!((core_12.timeline_semaphore, core_12.shader_int8), (vk::TRUE, vk::FALSE));
}

#[test]
fn single_structures_are_used_too_and_an_empty_chain_gets_one_of_each() {
    let requirements = Requirements::of(&recorded::h100()).unwrap();
    let mut timelines = vk::PhysicalDeviceTimelineSemaphoreFeatures::default();
    let (mut ours, mut again) = (FeatureStructs::default(), FeatureStructs::default());
    let mut info = vk::DeviceCreateInfo::default().push_next(&mut timelines);
    // SAFETY: the chain is the structure above.
    unsafe { requirements.merge_features(&mut info, &mut ours) };
    let mut once = kinds(&info);
    assert_eq!(once.len(), 6);
    // SAFETY: as above, and ours.
    unsafe { requirements.merge_features(&mut info, &mut again) };
    assert_eq!(kinds(&info), once, "merging twice adds nothing");
    once.sort();
    once.dedup();
    assert_eq!(once.len(), 6, "no kind is there twice");
    assert_eq!(timelines.timeline_semaphore, vk::TRUE);
}

#[test]
fn what_a_device_was_created_with_is_read_off_its_info() {
    let priorities = [1.0; 3];
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(2).queue_priorities(&priorities)];
    let names = [khr::shader_clock::NAME.as_ptr()];
    let mut clocks = vk::PhysicalDeviceShaderClockFeaturesKHR::default().shader_device_clock(true);
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = info.push_next(&mut clocks);
    // SAFETY: the info and all that it points to are alive.
    let enabled = unsafe { Enabled::of(&info) };
    let expected = Enabled::default().feature(Feature::ShaderDeviceClock).extension(khr::shader_clock::NAME);
    assert_eq!(enabled, expected.family(2, 3));
    // SAFETY: an empty info.
    assert_eq!(unsafe { Enabled::of(&vk::DeviceCreateInfo::default()) }, Enabled::default());
}

#[test]
fn fault_reports_are_asked_for_where_the_device_has_them_and_a_device_without_runs_all_the_same() {
    let (with, without) = (recorded::h100(), recorded::lavapipe());
    let asked = |facts: &DeviceFacts| {
        let requirements = Requirements::of(facts).unwrap();
        let extension = requirements.extensions().contains(&ext::device_fault::NAME);
        (requirements.features().contains(&Feature::DeviceFault), extension, requirements.plan().fault_reports)
    };
    assert_eq!((asked(&with), asked(&without)), ((true, true, true), (false, false, false)));
}
