//! Facts of devices that need not be here, for tests of policy.
//!
//! [`lavapipe`] is what Mesa 25.0.7 printed. The others are modelled on what such devices report: they are right in
//! what policy looks at, and no measurement of anything else.

use ash::vk;

use super::facts::{
    DeviceFacts, FeatureFacts, LimitFacts, MemoryHeapFacts, MemoryTypeFacts, QueueFamilyFacts, SubgroupFacts,
};

const GIB: u64 = 1 << 30;

/// A family of `count` queues.
fn family(flags: vk::QueueFlags, count: u32) -> QueueFamilyFacts {
    QueueFamilyFacts { flags, count, timestamp_valid_bits: 64 }
}

/// Mesa's CPU driver on 2 cores with AVX2: one queue, one memory type, subgroups of 8.
pub(crate) fn lavapipe() -> DeviceFacts {
    use vk::{
        MemoryPropertyFlags as Memory, QueueFlags as Queue, ShaderStageFlags as Stage, SubgroupFeatureFlags as Op,
    };
    DeviceFacts {
        name: "llvmpipe (LLVM 15.0.6, 256 bits)".into(),
        index: 0,
        vendor_id: 0x10005,
        driver_name: "llvmpipe".into(),
        driver_info: "Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)".into(),
        api_version: vk::make_api_version(0, 1, 4, 305),
        device_type: vk::PhysicalDeviceType::CPU,
        queue_families: vec![family(Queue::GRAPHICS | Queue::COMPUTE | Queue::TRANSFER | Queue::SPARSE_BINDING, 1)],
        subgroup: SubgroupFacts {
            size: 8,
            min_size: 8,
            max_size: 8,
            stages: Stage::FRAGMENT | Stage::COMPUTE | Stage::TASK_EXT | Stage::MESH_EXT,
            operations: Op::BASIC
                | Op::VOTE
                | Op::ARITHMETIC
                | Op::BALLOT
                | Op::SHUFFLE
                | Op::SHUFFLE_RELATIVE
                | Op::CLUSTERED
                | Op::QUAD,
            size_control: true,
            full_subgroups: true,
            required_size_stages: Stage::FRAGMENT | Stage::COMPUTE,
            max_workgroup_subgroups: 32,
        },
        features: FeatureFacts {
            vulkan_memory_model: true,
            vulkan_memory_model_device_scope: true,
            buffer_device_address: true,
            timeline_semaphore: true,
            shader_int64: true,
            shader_device_clock: true,
            external_timelines: false,
            device_fault: false,
        },
        memory_types: vec![MemoryTypeFacts {
            properties: Memory::DEVICE_LOCAL | Memory::HOST_VISIBLE | Memory::HOST_COHERENT | Memory::HOST_CACHED,
            heap: 0,
        }],
        memory_heaps: vec![MemoryHeapFacts { bytes: 25_276_063_744, flags: vk::MemoryHeapFlags::DEVICE_LOCAL }],
        limits: LimitFacts {
            max_workgroup_invocations: 1024,
            max_workgroup_size_x: 1024,
            max_workgroup_count_x: 65_535,
            max_shared_memory_bytes: 32_768,
            max_storage_buffer_bytes: 134_217_728,
            max_buffer_bytes: 4_294_967_295,
            max_push_constant_bytes: 256,
            max_timeline_difference: u64::MAX,
            non_coherent_atom_bytes: 64,
            timestamp_period_ns: 1.0,
        },
    }
}

/// The other CPU driver: subgroups of 4, no 64-bit integers, no clock, small workgroups.
pub(crate) fn swiftshader() -> DeviceFacts {
    let like = lavapipe();
    DeviceFacts {
        name: "SwiftShader Device (Subzero)".into(),
        vendor_id: 0x1ae0,
        driver_name: "SwiftShader driver".into(),
        driver_info: String::new(),
        api_version: vk::make_api_version(0, 1, 3, 0),
        queue_families: vec![family(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER, 1)],
        subgroup: SubgroupFacts { size: 4, min_size: 4, max_size: 4, ..like.subgroup },
        features: FeatureFacts { shader_int64: false, shader_device_clock: false, ..like.features },
        limits: LimitFacts { max_workgroup_invocations: 256, max_push_constant_bytes: 128, ..like.limits },
        ..like
    }
}

/// A large GPU: subgroups of 32, a dedicated compute family, memory that is device-local and host-visible at once.
pub(crate) fn h100() -> DeviceFacts {
    use vk::{MemoryHeapFlags as Heap, MemoryPropertyFlags as Memory, QueueFlags as Queue};
    let like = lavapipe();
    let shared = Memory::HOST_VISIBLE | Memory::HOST_COHERENT;
    let copy = Queue::TRANSFER | Queue::SPARSE_BINDING;
    DeviceFacts {
        name: "NVIDIA H100 80GB HBM3".into(),
        index: 0,
        vendor_id: 0x10de,
        driver_name: "NVIDIA".into(),
        driver_info: "580.159.04".into(),
        api_version: vk::make_api_version(0, 1, 4, 312),
        device_type: vk::PhysicalDeviceType::DISCRETE_GPU,
        queue_families: vec![
            family(Queue::GRAPHICS | Queue::COMPUTE | copy, 16),
            family(copy, 2),
            family(Queue::COMPUTE | copy, 8),
            family(Queue::VIDEO_DECODE_KHR | copy, 7),
        ],
        subgroup: SubgroupFacts { size: 32, min_size: 32, max_size: 32, ..like.subgroup },
        features: FeatureFacts { external_timelines: true, device_fault: true, ..like.features },
        memory_types: [
            (Memory::empty(), 1),
            (Memory::DEVICE_LOCAL, 0),
            (shared, 1),
            (shared | Memory::HOST_CACHED, 1),
            (shared | Memory::DEVICE_LOCAL, 0),
        ]
        .map(|(properties, heap)| MemoryTypeFacts { properties, heap })
        .into(),
        memory_heaps: vec![
            MemoryHeapFacts { bytes: 80 * GIB, flags: Heap::DEVICE_LOCAL },
            MemoryHeapFacts { bytes: 64 * GIB, flags: Heap::empty() },
        ],
        limits: LimitFacts {
            max_workgroup_count_x: 0x7fff_ffff,
            max_shared_memory_bytes: 49_152,
            max_storage_buffer_bytes: u32::MAX,
            max_buffer_bytes: 1 << 40,
            max_timeline_difference: 0x7fff_ffff,
            ..like.limits
        },
    }
}

/// A discrete GPU whose driver stopped at Vulkan 1.1, so that nobody asks it for subgroups and features.
pub(crate) fn vulkan_1_1() -> DeviceFacts {
    DeviceFacts {
        name: "An Old GPU".into(),
        driver_name: String::new(),
        driver_info: String::new(),
        api_version: vk::make_api_version(0, 1, 1, 95),
        subgroup: SubgroupFacts::default(),
        features: FeatureFacts::default(),
        ..h100()
    }
}
