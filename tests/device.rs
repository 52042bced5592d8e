//! The device on whatever driver is installed, under validation. No driver is a failure, not a skip.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ash::vk;
use rspirv::binary::Assemble;
use rspirv::{dr, spirv};
use taskring::ash;
use taskring::{
    BackendError, Buffer, BufferDesc, Device, DeviceOptions, DeviceSelector, Mapped, MemoryKind, PipelineDesc, Timeline,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// More than any driver here needs for anything below, under validation too.
const PATIENCE: Duration = Duration::from_secs(20);

fn device() -> Result<Device, BackendError> {
    Device::new(DeviceOptions { validation: true, application_name: "taskring tests".into(), ..Default::default() })
}

fn buffer(device: &Device, name: &str, bytes: u64, kind: MemoryKind) -> Result<Buffer, BackendError> {
    device.allocate(BufferDesc { name, bytes, kind, usage: vk::BufferUsageFlags::empty() })
}

fn mapped(buffer: &Buffer) -> Result<&Mapped, String> {
    buffer.mapped().ok_or_else(|| format!("a {} has no mapping", buffer.kind().name()))
}

/// A command buffer that is being recorded for a family, and its pool.
fn begin(device: &Device, family: u32) -> Result<(vk::CommandPool, vk::CommandBuffer), Box<dyn std::error::Error>> {
    let raw = device.raw();
    let pool = vk::CommandPoolCreateInfo::default().queue_family_index(family);
    // SAFETY: the device has queues of the family; callers destroy the pool.
    let pool = unsafe { raw.create_command_pool(&pool, None) }?;
    let commands = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
    // SAFETY: the pool is alive.
    let commands = unsafe { raw.allocate_command_buffers(&commands) }?[0];
    // SAFETY: the buffer is new.
    unsafe { raw.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default()) }?;
    Ok((pool, commands))
}

/// Drops the last handle of a device and fails if the validation layer ever said anything, its end included.
fn finish(device: Device) -> Outcome {
    let log = device.validation_log().clone();
    drop(device);
    assert_eq!(log.messages(), [""; 0]);
    Ok(())
}

#[test]
fn a_device_comes_up_and_goes_without_a_word_from_the_validation_layer() -> Outcome {
    let device = device()?;
    assert!(device.description().contains(&device.facts().name));
    assert_eq!(device.check(), Ok(()));
    assert_eq!(device.is_cpu(), device.facts().device_type == vk::PhysicalDeviceType::CPU);
    let family = device.facts().queue_families.get(device.queue_family() as usize).ok_or("no such family")?;
    assert!(family.flags.contains(vk::QueueFlags::COMPUTE));
    finish(device)
}

#[test]
fn the_validation_layer_is_in_effect() -> Outcome {
    let device = device()?;
    let mistake = vk::BufferCreateInfo::default().size(64); // usage: none
    // SAFETY: not valid Vulkan, on purpose: the layer reports it and every driver here survives it.
    let created = unsafe { device.raw().create_buffer(&mistake, None) }?;
    // SAFETY: just created, never used.
    unsafe { device.raw().destroy_buffer(created, None) };
    let messages = device.validation_messages();
    assert!(messages.iter().any(|message| message.contains("VUID-VkBufferCreateInfo-usage")), "{messages:?}");
    Ok(())
}

#[test]
fn the_validation_layer_checks_synchronization() -> Outcome {
    let device = device()?;
    let target = buffer(&device, "filled twice", 64, MemoryKind::Private)?;
    let (pool, commands) = begin(&device, device.queue_family())?;
    for value in 0..2 {
        // SAFETY: recording; the second fill races with the first, on purpose, and is never submitted.
        unsafe { device.raw().cmd_fill_buffer(commands, target.raw(), 0, vk::WHOLE_SIZE, value) };
    }
    // SAFETY: the pool's commands were never submitted.
    unsafe { device.raw().destroy_command_pool(pool, None) };
    let messages = device.validation_messages();
    let hazard = messages.iter().find(|message| message.contains("SYNC-HAZARD-WRITE-AFTER-WRITE"));
    assert!(hazard.is_some_and(|message| message.contains("filled twice")), "objects have names: {messages:?}");
    Ok(())
}

#[test]
fn what_leaks_is_still_heard_after_the_device_is_gone() -> Outcome {
    let device = device()?;
    let log = device.validation_log().clone();
    // SAFETY: a plain semaphore; leaking it is the point.
    unsafe { device.raw().create_semaphore(&vk::SemaphoreCreateInfo::default(), None) }?;
    drop(device);
    let messages = log.messages();
    assert!(messages.iter().any(|message| message.contains("VUID-vkDestroyDevice-device")), "{messages:?}");
    Ok(())
}

#[test]
fn a_name_that_no_device_has_is_answered_with_every_device_and_its_reasons() -> Outcome {
    let selector = DeviceSelector::Name("no device has this name".into());
    let refused = Device::new(DeviceOptions { selector, ..Default::default() });
    let Err(BackendError::NoDevice { wanted, rejected }) = refused else {
        return Err(format!("{refused:?}").into());
    };
    assert!(wanted.contains("no device has this name"));
    assert!(!rejected.is_empty());
    for rejection in rejected {
        assert!(rejection.reasons.iter().any(|reason| reason.contains("does not match")), "{rejection}");
    }
    Ok(())
}

#[test]
fn a_device_can_be_chosen_by_its_own_index_and_name() -> Outcome {
    let first = device()?;
    let facts = first.facts();
    for selector in [DeviceSelector::Index(facts.index), DeviceSelector::Name(facts.name.to_uppercase())] {
        let again = Device::new(DeviceOptions { selector, ..Default::default() })?;
        assert_eq!(&again.facts().name, &facts.name);
    }
    finish(first)
}

#[test]
fn every_kind_of_memory_is_what_it_promises() -> Outcome {
    let device = device()?;
    let shared = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
    let has = |wanted| device.facts().memory_types.iter().any(|memory| memory.properties.contains(wanted));
    for (kind, required, preferred) in [
        (MemoryKind::Mailbox, shared, shared | vk::MemoryPropertyFlags::DEVICE_LOCAL),
        (MemoryKind::Report, shared, shared | vk::MemoryPropertyFlags::HOST_CACHED),
        (MemoryKind::Private, vk::MemoryPropertyFlags::DEVICE_LOCAL, vk::MemoryPropertyFlags::DEVICE_LOCAL),
    ] {
        let made = buffer(&device, kind.name(), 4096, kind)?;
        let properties = made.memory_properties();
        assert!(properties.contains(required), "{kind:?}: {properties:?}");
        assert!(properties.contains(preferred) || !has(preferred), "{kind:?}: {properties:?}");
        assert_eq!((made.kind(), made.bytes()), (kind, 4096));
        assert_eq!(made.mapped().is_some(), kind != MemoryKind::Private);
        assert!(made.address() != 0 && made.address() % 256 == 0, "{kind:?}: {:#x}", made.address());
    }
    finish(device)
}

#[test]
fn memory_is_clear_when_it_comes_even_if_somebody_wrote_there_before() -> Outcome {
    let device = device()?;
    for kind in [MemoryKind::Mailbox, MemoryKind::Report] {
        let dirty = buffer(&device, "dirty", 256, kind)?;
        mapped(&dirty)?.write(0, &[0xff; 256])?;
        drop(dirty);
        let clean = buffer(&device, "clean", 256, kind)?;
        assert_eq!(mapped(&clean)?.read_pod::<[u32; 64]>(0)?, [0; 64]);
    }
    finish(device)
}

#[test]
fn what_the_host_writes_it_reads_back() -> Outcome {
    let device = device()?;
    let report = buffer(&device, "report", 10, MemoryKind::Report)?;
    let window = mapped(&report)?;
    assert_eq!((report.bytes(), window.bytes()), (12, 12), "sizes are whole words");
    window.write_pod(4, &[1_u32, 2])?;
    window.store(0, 3, Ordering::Release)?;
    assert_eq!(window.load(8, Ordering::Acquire)?, 2);
    assert_eq!(window.read_pod::<[u32; 3]>(0)?, [3, 1, 2]);
    drop(report);
    finish(device)
}

#[test]
fn an_access_outside_a_buffer_is_refused() -> Outcome {
    let device = device()?;
    let mailbox = buffer(&device, "small", 64, MemoryKind::Mailbox)?;
    let refused = mapped(&mailbox)?.write(60, &[0; 8]);
    assert_eq!(refused, Err(BackendError::OutOfRange { name: "small".into(), offset: 60, bytes: 8, size: 64 }));
    drop(mailbox);
    finish(device)
}

#[test]
fn impossible_sizes_are_refused() -> Outcome {
    let device = device()?;
    for bytes in [0, u64::MAX] {
        let refused = buffer(&device, "impossible", bytes, MemoryKind::Private);
        assert!(matches!(refused, Err(BackendError::BadOption { value, .. }) if value == bytes), "{refused:?}");
    }
    finish(device)
}

#[test]
fn a_wait_for_a_timeline_ends_in_time_and_says_whether_the_value_was_reached() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "epochs", 5)?;
    assert_eq!(timeline.value()?, 5);
    let started = Instant::now();
    assert!(!timeline.wait(6, Duration::from_millis(30))?);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(20) && waited < PATIENCE, "{waited:?}");
    timeline.signal(6)?;
    assert!(timeline.wait(6, PATIENCE)?);
    assert!(timeline.wait(6, Duration::MAX)?, "a wait for what is already there needs no time");
    assert_eq!(timeline.value()?, 6);
    drop(timeline);
    finish(device)
}

#[test]
fn a_timeline_does_not_go_back_from_the_host() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "epochs", 5)?;
    for value in [4, 5] {
        assert!(matches!(timeline.signal(value), Err(BackendError::BadOption { .. })));
    }
    assert_eq!(timeline.value()?, 5);
    drop(timeline);
    finish(device)
}

#[test]
fn a_jump_that_the_device_does_not_allow_is_refused_and_the_timeline_stays() -> Outcome {
    let device = device()?;
    let limit = device.facts().limits.max_timeline_difference;
    let timeline = Timeline::new(&device, "far", 0)?;
    match limit.checked_add(1) {
        Some(value) => {
            assert_eq!(timeline.signal(value), Err(BackendError::TimelineJump { value, current: 0, limit }));
            assert_eq!(timeline.value()?, 0);
            timeline.signal(limit)?;
            timeline.signal(value)?;
            assert_eq!(timeline.value()?, value);
        }
        // Where every step is allowed, the longest one is.
        None => {
            timeline.signal(limit)?;
            assert_eq!(timeline.value()?, limit);
        }
    }
    drop(timeline);
    finish(device)
}

#[test]
fn a_borrowed_timeline_works_like_any_other_and_is_still_there_after_the_drop() -> Outcome {
    let device = device()?;
    let raw = device.raw();
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE).initial_value(3);
    // SAFETY: the device has timelines enabled; destroyed below.
    let engines = unsafe { raw.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None) }?;
    {
        // SAFETY: just created, destroyed only after the value is gone.
        let borrowed = unsafe { Timeline::borrow(&device, engines) };
        assert_eq!((borrowed.raw(), borrowed.value()?), (engines, 3));
        borrowed.signal(4)?;
        assert!(borrowed.wait(4, PATIENCE)?);
        assert!(!device.wait_any(&[(&borrowed, 5)], Duration::ZERO)?);
    }
    // SAFETY: the engine's semaphore is alive: that is what is tested.
    assert_eq!(unsafe { raw.get_semaphore_counter_value(engines) }?, 4);
    // SAFETY: nobody uses it any more. A second destruction, with the device, would be heard below.
    unsafe { raw.destroy_semaphore(engines, None) };
    finish(device)
}

#[test]
fn a_wait_for_any_of_two_timelines_wakes_when_the_second_gets_there() -> Outcome {
    let device = device()?;
    let (first, second) = (Timeline::new(&device, "first", 0)?, Timeline::new(&device, "second", 0)?);
    let started = Instant::now();
    let woken = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| device.wait_any(&[(&first, 1), (&second, 2)], PATIENCE));
        std::thread::sleep(Duration::from_millis(30));
        second.signal(1)?; // Not far enough.
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiter.is_finished(), "nothing was reached yet");
        second.signal(2)?;
        waiter.join().map_err(|_| "the waiter panicked")?.map_err(Box::<dyn std::error::Error>::from)
    })?;
    assert!(woken && started.elapsed() < PATIENCE);
    assert_eq!((first.value()?, second.value()?), (0, 2));
    drop((first, second));
    finish(device)
}

#[test]
fn a_wait_for_any_timeline_ends_in_time_and_one_for_none_at_once() -> Outcome {
    let device = device()?;
    let (first, second) = (Timeline::new(&device, "first", 0)?, Timeline::new(&device, "second", 0)?);
    let started = Instant::now();
    assert!(!device.wait_any(&[(&first, 1), (&second, 1)], Duration::from_millis(30))?);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(20) && waited < PATIENCE, "{waited:?}");
    let started = Instant::now();
    assert!(!device.wait_any(&[], PATIENCE)?);
    assert!(started.elapsed() < PATIENCE / 2);
    drop((first, second));
    finish(device)
}

#[test]
fn a_device_does_not_wait_for_the_timeline_of_another() -> Outcome {
    let (here, there) = (device()?, device()?);
    let (ours, theirs) = (Timeline::new(&here, "ours", 1)?, Timeline::new(&there, "theirs", 1)?);
    let refused = here.wait_any(&[(&ours, 1), (&theirs, 1)], PATIENCE);
    assert!(matches!(refused, Err(BackendError::BadOption { value: 1, .. })), "{refused:?}");
    drop((ours, theirs));
    finish(here)?;
    finish(there)
}

#[cfg(unix)]
#[test]
fn an_exported_timeline_and_its_import_are_one_and_where_that_cannot_be_it_is_said() -> Outcome {
    let device = device()?;
    if !device.plan().external_timelines {
        let refused = Timeline::exportable(&device, "shared", 0).err();
        assert_eq!(refused, Some(BackendError::NoExternalTimelines));
        let anything = std::fs::File::open("/dev/null")?.into();
        // SAFETY: no timeline's descriptor, but no driver gets to see it.
        let refused = unsafe { Timeline::import_fd(&device, "import", anything) }.err();
        assert_eq!(refused, Some(BackendError::NoExternalTimelines));
        return finish(device);
    }
    let other = self::device()?;
    let exported = Timeline::exportable(&device, "shared", 3)?;
    // SAFETY: the descriptor is a timeline's of the same physical device.
    let imported = unsafe { Timeline::import_fd(&other, "import", exported.export_fd()?) }?;
    assert_eq!(imported.value()?, 3, "the payload comes with the descriptor");
    exported.signal(4)?;
    assert!(imported.wait(4, PATIENCE)?);
    imported.signal(5)?;
    assert!(exported.wait(5, PATIENCE)?);
    drop(exported);
    finish(device)?;
    imported.signal(6)?;
    assert_eq!(imported.value()?, 6, "the one outlives the other");
    drop(imported);
    finish(other)
}

#[cfg(unix)]
#[test]
fn a_timeline_that_was_not_made_to_be_exported_is_not() -> Outcome {
    let device = device()?;
    let timeline = Timeline::new(&device, "private", 0)?;
    assert_eq!(timeline.export_fd().err(), Some(BackendError::NotExportable));
    drop(timeline);
    finish(device)
}

/// Every lane of one subgroup writes the subgroup's size to its own word. In GLSL:
/// `void main() { target.words[gl_SubgroupInvocationID] = gl_SubgroupSize; }`, with `local_size_x_id = 0`.
fn lane_kernel() -> Result<Vec<u32>, dr::Error> {
    use spirv::{BuiltIn, Capability, Decoration, StorageClass};
    let mut b = dr::Builder::new();
    b.set_version(1, 5);
    let capabilities = [
        Capability::Shader,
        Capability::GroupNonUniform,
        Capability::VulkanMemoryModel,
        Capability::PhysicalStorageBufferAddresses,
    ];
    capabilities.into_iter().for_each(|capability| b.capability(capability));
    b.memory_model(spirv::AddressingModel::PhysicalStorageBuffer64, spirv::MemoryModel::Vulkan);

    let (void, uint) = (b.type_void(), b.type_int(32, 0));
    let function = b.type_function(void, []);
    let words = b.type_runtime_array(uint);
    b.decorate(words, Decoration::ArrayStride, [dr::Operand::LiteralBit32(4)]);
    let (block, zero, one) = (b.type_struct([words]), b.constant_bit32(uint, 0), b.constant_bit32(uint, 1));
    let block_pointer = b.type_pointer(None, StorageClass::PhysicalStorageBuffer, block);
    let word_pointer = b.type_pointer(None, StorageClass::PhysicalStorageBuffer, uint);
    let push = b.type_struct([block_pointer]);
    for each in [block, push] {
        b.decorate(each, Decoration::Block, []);
        b.member_decorate(each, 0, Decoration::Offset, [dr::Operand::LiteralBit32(0)]);
    }
    let push_pointer = b.type_pointer(None, StorageClass::PushConstant, push);
    let push_member = b.type_pointer(None, StorageClass::PushConstant, block_pointer);
    let push = b.variable(push_pointer, None, StorageClass::PushConstant, None);
    let input = b.type_pointer(None, StorageClass::Input, uint);
    let inputs = [BuiltIn::SubgroupLocalInvocationId, BuiltIn::SubgroupSize].map(|built_in| {
        let variable = b.variable(input, None, StorageClass::Input, None);
        b.decorate(variable, Decoration::BuiltIn, [dr::Operand::BuiltIn(built_in)]);
        variable
    });
    let width = b.spec_constant_bit32(uint, 1);
    b.decorate(width, Decoration::SpecId, [dr::Operand::LiteralBit32(0)]);
    let triple = b.type_vector(uint, 3);
    let workgroup = b.spec_constant_composite(triple, [width, one, one]);
    b.decorate(workgroup, Decoration::BuiltIn, [dr::Operand::BuiltIn(BuiltIn::WorkgroupSize)]);

    let main = b.begin_function(void, None, spirv::FunctionControl::NONE, function)?;
    b.begin_block(None)?;
    let target = b.access_chain(push_member, None, push, [zero])?;
    let target = b.load(block_pointer, None, target, None, [])?;
    let lane = b.load(uint, None, inputs[0], None, [])?;
    let size = b.load(uint, None, inputs[1], None, [])?;
    let word = b.access_chain(word_pointer, None, target, [zero, lane])?;
    b.store(word, size, Some(spirv::MemoryAccess::ALIGNED), [dr::Operand::LiteralBit32(4)])?;
    b.ret()?;
    b.end_function()?;
    b.entry_point(spirv::ExecutionModel::GLCompute, main, "main", [push, inputs[0], inputs[1]]);
    b.execution_mode(main, spirv::ExecutionMode::LocalSize, [1, 1, 1]);
    Ok(b.module().assemble())
}

#[test]
fn a_submitted_kernel_runs_with_the_planned_subgroup_size_and_signals_its_timeline() -> Outcome {
    let device = device()?;
    let size = device.plan().subgroup_size;
    let report = buffer(&device, "lanes", 4 * u64::from(size) + 4, MemoryKind::Report)?;
    let timeline = Timeline::new(&device, "progress", 0)?;
    let code = lane_kernel()?;

    let raw = device.raw();
    let push = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(8)];
    let layout = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&push);
    // SAFETY: a valid description; destroyed below.
    let layout = unsafe { raw.create_pipeline_layout(&layout, None) }?;
    // SAFETY: valid SPIR-V; destroyed below.
    let module = unsafe { raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None) }?;
    let entries = [vk::SpecializationMapEntry::default().constant_id(0).offset(0).size(4)];
    let width = size.to_ne_bytes();
    let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&width);
    let desc = PipelineDesc {
        name: "lane kernel",
        module,
        entry: c"main",
        layout,
        specialization: Some(&specialization),
        cache: vk::PipelineCache::null(),
    };
    // SAFETY: live handles; the layout has the module's push constants.
    let pipeline = unsafe { device.compute_pipeline(&desc) }?;
    let (pool, commands) = begin(&device, device.queue_family())?;
    // SAFETY: recording; the pipeline is alive.
    unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipeline) };
    let address = report.address().to_ne_bytes();
    // SAFETY: recording; the range is the layout's.
    unsafe { raw.cmd_push_constants(commands, layout, vk::ShaderStageFlags::COMPUTE, 0, &address) };
    // SAFETY: recording; one workgroup writes `size` words of a buffer that has one more.
    unsafe { raw.cmd_dispatch(commands, 1, 1, 1) };
    let to_host = [vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::SHADER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ)];
    let (from, to) = (vk::PipelineStageFlags::COMPUTE_SHADER, vk::PipelineStageFlags::HOST);
    // SAFETY: recording; the barrier makes the kernel's writes visible to the host.
    unsafe { raw.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &to_host, &[], &[]) };
    // SAFETY: recording ends.
    unsafe { raw.end_command_buffer(commands) }?;

    // The wait is for a value that is already there: a queue must never be parked on one that might not come.
    timeline.signal(1)?;
    // SAFETY: live handles; everything is kept until the wait below has succeeded.
    unsafe { device.submit(&[commands], Some((timeline.raw(), 1)), Some((timeline.raw(), 2))) }?;
    assert!(timeline.wait(2, PATIENCE)?, "the timeline stands at {}", timeline.value()?);

    let window = mapped(&report)?;
    for lane in 0..u64::from(size) {
        assert_eq!(window.load(4 * lane, Ordering::Acquire)?, size, "lane {lane}");
    }
    assert_eq!(window.load(4 * u64::from(size), Ordering::Acquire)?, 0);

    // SAFETY: the submission is done; the same for the rest.
    unsafe { raw.destroy_command_pool(pool, None) };
    // SAFETY: as above.
    unsafe { raw.destroy_pipeline(pipeline, None) };
    // SAFETY: as above.
    unsafe { raw.destroy_shader_module(module, None) };
    // SAFETY: as above.
    unsafe { raw.destroy_pipeline_layout(layout, None) };
    drop((report, timeline));
    finish(device)
}

#[test]
fn a_submission_on_the_other_queue_ends_and_without_such_a_queue_is_refused() -> Outcome {
    let device = device()?;
    let Some(family) = device.other_queue_family() else {
        // SAFETY: nothing is submitted.
        let refused = unsafe { device.submit_on_other_queue(&[], None, None) };
        assert_eq!(refused, Err(BackendError::NoOtherQueue));
        return finish(device);
    };
    let raw = device.raw();
    let report = buffer(&device, "filled by the other queue", 64, MemoryKind::Report)?;
    let timeline = Timeline::new(&device, "other queue", 0)?;
    let (pool, commands) = begin(&device, family)?;
    // SAFETY: recording; the buffer is alive, and no queue has used it yet.
    unsafe { raw.cmd_fill_buffer(commands, report.raw(), 0, vk::WHOLE_SIZE, 7) };
    let to_host = [vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
        .dst_access_mask(vk::AccessFlags::HOST_READ)];
    let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
    // SAFETY: recording; the barrier makes the fill visible to the host.
    unsafe { raw.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &to_host, &[], &[]) };
    // SAFETY: recording ends.
    unsafe { raw.end_command_buffer(commands) }?;
    // SAFETY: live handles; everything is kept until the wait below has succeeded.
    unsafe { device.submit_on_other_queue(&[commands], None, Some((timeline.raw(), 1))) }?;
    assert!(timeline.wait(1, PATIENCE)?, "the timeline stands at {}", timeline.value()?);
    assert_eq!(mapped(&report)?.read_pod::<[u32; 16]>(0)?, [7; 16]);
    // SAFETY: the submission is done.
    unsafe { raw.destroy_command_pool(pool, None) };
    drop((report, timeline));
    finish(device)
}
