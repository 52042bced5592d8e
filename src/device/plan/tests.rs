//! Policy, by named cases, on facts of devices that need not be here.

use super::*;
use crate::device::{SubgroupFacts, recorded};

/// The reasons against a device, none if it is acceptable.
fn reasons(facts: &DeviceFacts) -> Vec<String> {
    plan(facts).err().unwrap_or_default()
}

#[test]
fn a_gpu_with_a_dedicated_compute_family_gets_it_and_its_own_subgroup_size() {
    let expected = DevicePlan {
        queue_family: 2,
        other_queue: Some(QueueSlot { family: 0, index: 0 }),
        transfer_queue: Some(QueueSlot { family: 1, index: 0 }),
        subgroup_size: 32,
        required_subgroup_size: Some(32),
        size_control: SizeControl::Core,
        shader_clock: true,
        external_timelines: true,
        fault_reports: true,
    };
    assert_eq!(plan(&recorded::h100()), Ok(expected));
}

#[test]
fn a_cpu_driver_gets_its_only_family() {
    let expected = DevicePlan {
        queue_family: 0,
        other_queue: None,
        transfer_queue: None,
        subgroup_size: 8,
        required_subgroup_size: Some(8),
        size_control: SizeControl::Core,
        shader_clock: true,
        external_timelines: false,
        fault_reports: false,
    };
    assert_eq!(plan(&recorded::lavapipe()), Ok(expected));
}

#[test]
fn subgroups_of_four_without_int64_are_enough() {
    let facts = recorded::swiftshader();
    assert!(!facts.features.shader_int64);
    assert_eq!(plan(&facts).map(|plan| plan.subgroup_size), Ok(4));
}

#[test]
fn an_old_device_is_refused_for_its_version_and_not_for_what_it_was_not_asked() {
    assert_eq!(reasons(&recorded::vulkan_1_1()), ["Vulkan 1.1.95 (1.2 is needed)"]);
}

#[test]
fn a_device_that_lacks_three_things_is_refused_with_all_three() {
    let mut facts = recorded::h100();
    facts.features.timeline_semaphore = false;
    facts.subgroup.operations = vk::SubgroupFeatureFlags::BASIC;
    facts.queue_families.retain(|family| !family.flags.contains(vk::QueueFlags::COMPUTE));
    assert_eq!(
        reasons(&facts),
        ["no feature timelineSemaphore", "subgroup operations BASIC (BASIC and BALLOT are needed)", "no compute queue"]
    );
}

/// Each requirement alone, so that none is checked through another.
#[test]
fn every_single_requirement_is_checked() {
    type Break = fn(&mut DeviceFacts);
    let cases: [(Break, &str); 11] = [
        (|f| f.api_version = vk::make_api_version(0, 1, 1, 0), "Vulkan 1.1.0"),
        (|f| f.features.vulkan_memory_model = false, "vulkanMemoryModel"),
        (|f| f.features.vulkan_memory_model_device_scope = false, "vulkanMemoryModelDeviceScope"),
        (|f| f.features.buffer_device_address = false, "bufferDeviceAddress"),
        (|f| f.features.timeline_semaphore = false, "timelineSemaphore"),
        (|f| f.subgroup.stages = vk::ShaderStageFlags::FRAGMENT, "no subgroup operations in compute"),
        (|f| f.subgroup.operations = vk::SubgroupFeatureFlags::BALLOT, "BASIC and BALLOT"),
        (|f| (f.subgroup.size, f.subgroup.min_size, f.subgroup.max_size) = (2, 2, 2), "subgroups of 2"),
        (|f| f.queue_families.iter_mut().for_each(|family| family.count = 0), "no compute queue"),
        (|f| f.memory_types.retain(|m| !m.properties.contains(SHARED_MEMORY)), "host-coherent"),
        (|f| f.limits.max_push_constant_bytes = 64, "64 bytes of push constants"),
    ];
    for (break_it, expected) in cases {
        let mut facts = recorded::h100();
        break_it(&mut facts);
        let reasons = reasons(&facts);
        assert!(reasons.len() == 1 && reasons[0].contains(expected), "{expected}: {reasons:?}");
    }
}

#[test]
fn without_a_dedicated_compute_family_the_first_one_with_compute_is_taken() {
    let mut facts = recorded::h100();
    facts.queue_families.rotate_left(1); // The one with graphics comes last.
    facts.queue_families.retain(|family| {
        family.flags.contains(vk::QueueFlags::GRAPHICS) || !family.flags.contains(vk::QueueFlags::COMPUTE)
    });
    let first = facts.queue_families.iter().position(|family| family.flags.contains(vk::QueueFlags::COMPUTE));
    assert!(first > Some(0));
    assert_eq!(plan(&facts).ok().map(|plan| plan.queue_family as usize), first);
}

/// The plan of an H100 with these queue families only.
fn with_families(families: &[(vk::QueueFlags, u32)]) -> DevicePlan {
    let families =
        families.iter().map(|(flags, count)| QueueFamilyFacts { flags: *flags, count: *count, ..<_>::default() });
    plan(&DeviceFacts { queue_families: families.collect(), ..recorded::h100() }).expect("acceptable")
}

#[test]
fn the_second_queue_is_of_another_family_best_one_with_graphics_and_otherwise_beside_the_first() {
    let (compute, graphics) = (vk::QueueFlags::COMPUTE, vk::QueueFlags::GRAPHICS);
    let (both, video) = (compute | graphics, vk::QueueFlags::VIDEO_DECODE_KHR);
    let queues = |families: &[_]| {
        let plan = with_families(families);
        (plan.other_queue, plan.queues())
    };
    let slot = |family, index| Some(QueueSlot { family, index });
    let apart = |first, second| vec![(first, 1), (second, 1)];
    assert_eq!(queues(&[(both, 16), (video, 2), (compute, 8), (video, 7)]), (slot(0, 0), apart(2, 0)));
    assert_eq!(queues(&[(compute, 1), (compute, 1), (both, 1)]), (slot(2, 0), apart(0, 2)));
    assert_eq!(queues(&[(compute, 2), (compute, 1)]), (slot(1, 0), apart(0, 1)));
    assert_eq!(queues(&[(video, 2), (both, 2)]), (slot(1, 1), vec![(1, 2)]));
    assert_eq!(queues(&[(compute, 2), (graphics, 1), (both, 0)]), (slot(0, 1), vec![(0, 2)]));
    assert_eq!(queues(&[(both, 1), (video, 2), (graphics, 1)]), (None, vec![(0, 1)]));
}

#[test]
fn the_transfer_queue_is_of_a_family_without_graphics_and_compute_and_does_little_else() {
    let (compute, graphics, copy) = (vk::QueueFlags::COMPUTE, vk::QueueFlags::GRAPHICS, vk::QueueFlags::TRANSFER);
    let (all, video) = (compute | graphics | copy, vk::QueueFlags::VIDEO_DECODE_KHR);
    let family = |families: &[_]| with_families(families).transfer_queue.map(|slot| (slot.family, slot.index));
    assert_eq!(family(&[(all, 16), (copy, 2), (compute | copy, 8), (copy | video, 7)]), Some((1, 0)));
    assert_eq!(family(&[(all, 16), (copy | video, 7), (copy, 2), (copy, 2)]), Some((2, 0)));
    let sparse = copy | vk::QueueFlags::SPARSE_BINDING;
    assert_eq!(family(&[(all, 16), (copy | video, 7), (sparse, 2)]), Some((2, 0)));
    assert_eq!(family(&[(all, 16), (copy | video, 7)]), Some((1, 0)), "better than none");
    assert_eq!(family(&[(all, 16), (copy, 0), (video, 1)]), None);
    assert_eq!(family(&[(all, 16), (compute | copy, 8), (graphics | copy, 1)]), None);
}

#[test]
fn the_transfer_queue_comes_beside_the_others_each_family_once() {
    let (compute, copy) = (vk::QueueFlags::COMPUTE, vk::QueueFlags::TRANSFER);
    assert_eq!(plan(&recorded::h100()).map(|plan| plan.queues()), Ok(vec![(2, 1), (0, 1), (1, 1)]));
    assert_eq!(with_families(&[(copy, 1), (compute, 2)]).queues(), [(1, 2), (0, 1)]);
    assert_eq!(with_families(&[(copy, 1), (compute, 1)]).queues(), [(1, 1), (0, 1)]);
}

#[test]
fn the_clock_is_planned_where_it_is_and_missed_nowhere() {
    assert_eq!(plan(&recorded::h100()).map(|plan| plan.shader_clock), Ok(true));
    assert_eq!(plan(&recorded::swiftshader()).map(|plan| plan.shader_clock), Ok(false));
}

#[test]
fn a_shared_buffer_is_made_for_all_families_of_the_plan_or_for_none_where_there_is_one() {
    let sharers = |facts: &DeviceFacts| plan(facts).map(|plan| plan.sharers());
    assert_eq!(sharers(&recorded::h100()), Ok(vec![2, 0, 1]));
    assert_eq!(sharers(&recorded::lavapipe()), Ok(vec![]));
    let mut facts = recorded::h100();
    facts.queue_families.truncate(1); // Two queues, both of it.
    assert_eq!(sharers(&facts), Ok(vec![]));
}

#[test]
fn external_timelines_are_planned_where_they_are_and_missed_nowhere() {
    assert_eq!(plan(&recorded::h100()).map(|plan| plan.external_timelines), Ok(true));
    assert_eq!(plan(&recorded::lavapipe()).map(|plan| plan.external_timelines), Ok(false));
}

#[test]
fn no_size_is_required_if_any_part_of_size_control_is_missing() {
    type Break = fn(&mut SubgroupFacts);
    let cases: [Break; 3] = [
        |s| s.size_control = false,
        |s| s.full_subgroups = false,
        |s| s.required_size_stages = vk::ShaderStageFlags::FRAGMENT,
    ];
    for break_it in cases {
        let mut facts = recorded::h100();
        break_it(&mut facts.subgroup);
        let plan = plan(&facts);
        assert_eq!(plan.as_ref().map(|plan| plan.required_subgroup_size), Ok(None));
        assert_eq!(plan.map(|plan| plan.size_control), Ok(SizeControl::Unavailable));
    }
}

#[test]
fn on_vulkan_1_2_size_control_comes_from_the_extension() {
    let mut facts = recorded::h100();
    facts.api_version = vk::API_VERSION_1_2;
    assert_eq!(plan(&facts).map(|plan| plan.size_control), Ok(SizeControl::Extension));
}

#[test]
fn a_size_that_is_too_small_is_raised_where_the_device_can_be_told() {
    let mut facts = recorded::h100();
    (facts.subgroup.size, facts.subgroup.min_size, facts.subgroup.max_size) = (1, 1, 16);
    assert_eq!(plan(&facts).map(|plan| plan.required_subgroup_size), Ok(Some(4)));
    facts.subgroup.size_control = false;
    assert_eq!(reasons(&facts), ["subgroups of 1 (4 to 128 are needed)"]);
}

#[test]
fn a_device_whose_own_size_is_the_larger_one_keeps_it() {
    let mut facts = recorded::h100();
    (facts.subgroup.size, facts.subgroup.min_size, facts.subgroup.max_size) = (64, 32, 64);
    assert_eq!(plan(&facts).map(|plan| plan.required_subgroup_size), Ok(Some(64)));
}

/// The named devices as one machine's enumeration.
fn machine(devices: impl IntoIterator<Item = DeviceFacts>) -> Vec<DeviceFacts> {
    devices.into_iter().enumerate().map(|(index, facts)| DeviceFacts { index, ..facts }).collect()
}

fn chosen(devices: &[DeviceFacts], selector: &DeviceSelector) -> Option<usize> {
    choose(devices, selector).ok().map(|(facts, _)| facts.index)
}

#[test]
fn the_automatic_choice_ranks_discrete_integrated_virtual_cpu() {
    let of_type = |device_type| DeviceFacts { device_type, ..recorded::h100() };
    let mut devices = machine([
        recorded::lavapipe(),
        of_type(vk::PhysicalDeviceType::VIRTUAL_GPU),
        of_type(vk::PhysicalDeviceType::INTEGRATED_GPU),
        of_type(vk::PhysicalDeviceType::DISCRETE_GPU),
    ]);
    for expected in [3, 2, 1, 0] {
        assert_eq!(chosen(&devices, &DeviceSelector::Auto), Some(expected));
        devices.pop();
    }
    assert_eq!(chosen(&devices, &DeviceSelector::Auto), None);
}

#[test]
fn of_equal_devices_the_first_is_taken() {
    let devices = machine([recorded::lavapipe(), recorded::h100(), recorded::h100()]);
    assert_eq!(chosen(&devices, &DeviceSelector::Auto), Some(1));
}

#[test]
fn the_automatic_choice_passes_over_a_better_device_that_is_not_acceptable() {
    let devices = machine([recorded::vulkan_1_1(), recorded::lavapipe()]);
    assert_eq!(chosen(&devices, &DeviceSelector::Auto), Some(1));
}

#[test]
fn a_name_matches_in_either_case_and_an_index_exactly() {
    let devices = machine([recorded::h100(), recorded::lavapipe(), recorded::swiftshader()]);
    assert_eq!(chosen(&devices, &DeviceSelector::Name("LLVMpipe".into())), Some(1));
    assert_eq!(chosen(&devices, &DeviceSelector::Index(2)), Some(2));
    assert_eq!(chosen(&devices, &DeviceSelector::Index(3)), None);
}

#[test]
fn a_failed_choice_lists_every_device_with_all_its_reasons() {
    let devices = machine([recorded::vulkan_1_1(), recorded::h100()]);
    let rejected = choose(&devices, &DeviceSelector::Name("radeon".into())).err().unwrap_or_default();
    let reasons: Vec<_> = rejected.iter().map(|rejection| rejection.reasons.join("; ")).collect();
    assert_eq!(
        reasons,
        ["does not match the name `radeon`; Vulkan 1.1.95 (1.2 is needed)", "does not match the name `radeon`"]
    );
}

#[test]
fn the_environment_names_a_device_by_index_or_by_name() {
    assert_eq!(DeviceSelector::parse("1"), DeviceSelector::Index(1));
    assert_eq!(DeviceSelector::parse(" llvmpipe "), DeviceSelector::Name("llvmpipe".into()));
    assert_eq!(DeviceSelector::parse(""), DeviceSelector::Auto);
}
