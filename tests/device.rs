//! The device on whatever driver is installed, under validation. No driver is a failure, not a skip.

#[path = "device/queues.rs"]
mod queues;
#[path = "device/timelines.rs"]
mod timelines;

use std::sync::atomic::Ordering;
use std::time::Duration;

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
    device.allocate(BufferDesc { name, bytes, kind, usage: vk::BufferUsageFlags::empty(), shared: false })
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
    finish_but_for(device, "nothing")
}

/// The same, for a test that meets an error of the layer's own (1.3.239), known by the rule that it names.
fn finish_but_for(device: Device, rule: &str) -> Outcome {
    let log = device.validation_log().clone();
    drop(device);
    let messages: Vec<_> = log.messages().into_iter().filter(|message| !message.contains(rule)).collect();
    assert_eq!(messages, [""; 0]);
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
fn pipelines_are_saved_and_loaded_by_another_device_and_strange_bytes_are_ignored() -> Outcome {
    let first = device()?;
    let test = first.self_test()?.clone();
    let saved = first.save_pipelines()?;
    // Mesa's CPU driver saves no more than the header: length, version, vendor.
    let words: Vec<u32> = saved.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert_eq!(words[1..3], [1, first.facts().vendor_id]);
    finish(first)?;

    let second = device()?;
    // SAFETY: what was saved, and a header of nobody's device.
    unsafe { second.load_pipelines(&saved) }?;
    assert!(second.save_pipelines()?.len() >= saved.len(), "they are in the cache before anything is compiled");
    let mut strange = saved;
    strange[8..32].iter_mut().for_each(|byte| *byte ^= 0x5a);
    // SAFETY: as above.
    unsafe { second.load_pipelines(&strange) }?;
    assert_eq!(second.self_test()?.memory.len(), test.memory.len());
    finish(second)
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
