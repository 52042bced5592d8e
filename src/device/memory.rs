//! Buffers in three kinds of memory, by who writes.

use ash::vk;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme};
use gpu_allocator::{AllocationError, MemoryLocation};

use super::context::Device;
use super::mapped::Mapped;
use super::plan::SHARED_MEMORY;
use crate::BackendError;

/// Every buffer starts here. Slots and ring entries are whole 64-byte lines, NVIDIA's cache lines are 128 bytes, and
/// no two buffers should share one: 256 is the next power of two, and what the pickiest devices ask for anyway.
const ALIGNMENT: u64 = 256;

/// What every buffer may be used for: by its address, as storage, and to be filled and copied.
const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS.as_raw()
        | vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// Who writes a buffer and who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryKind {
    /// The host writes, the GPU reads: host-visible and coherent, and device-local where there is such memory.
    ///
    /// Where there is none, or it is full, this is silently system memory, which a running kernel may never see change:
    /// look at [`Buffer::memory_properties`] before you rely on it.
    Mailbox,
    /// The GPU writes, the host reads: host-visible and coherent, and cached where there is such memory.
    Report,
    /// Only the GPU touches it: device-local. It has no mapping, not even on devices whose every memory has one.
    Private,
}

impl MemoryKind {
    /// The kind in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Report => "report",
            Self::Private => "private",
        }
    }

    const fn location(self) -> MemoryLocation {
        match self {
            Self::Mailbox => MemoryLocation::CpuToGpu,
            Self::Report => MemoryLocation::GpuToCpu,
            Self::Private => MemoryLocation::GpuOnly,
        }
    }

    /// What the memory must be able to do, or the buffer is useless.
    const fn required(self) -> vk::MemoryPropertyFlags {
        match self {
            Self::Mailbox | Self::Report => SHARED_MEMORY,
            Self::Private => vk::MemoryPropertyFlags::empty(),
        }
    }
}

/// What [`Device::allocate`] is to make. Later versions may have more fields: end with `..BufferDesc::new(name, bytes, kind)`, if not all is said with
/// that.
#[derive(Clone, Copy, Debug)]
pub struct BufferDesc<'a> {
    /// Debug name of the buffer and of its memory.
    pub name: &'a str,
    /// Size in bytes, at least 1; rounded up to a multiple of 4.
    pub bytes: u64,
    /// Who writes and who reads.
    pub kind: MemoryKind,
    /// Usage beside buffer addresses, storage and transfers, which every buffer has.
    pub usage: vk::BufferUsageFlags,
    /// Whether other queue families of the device's plan use it too, with no ownership transfers. Some devices reach
    /// such a buffer more slowly. Where the plan has one family, this changes nothing.
    pub shared: bool,
}

impl<'a> BufferDesc<'a> {
    /// For one queue family, with the usage that every buffer has.
    #[must_use]
    pub const fn new(name: &'a str, bytes: u64, kind: MemoryKind) -> Self {
        Self { name, bytes, kind, usage: vk::BufferUsageFlags::empty(), shared: false }
    }
}

/// A buffer with its memory. Dropping it frees both, so whatever the GPU does with it must have ended.
#[derive(Debug)]
pub struct Buffer {
    device: Device,
    raw: vk::Buffer,
    allocation: Allocation,
    mapped: Option<Mapped>,
    address: vk::DeviceAddress,
    bytes: u64,
    kind: MemoryKind,
}

impl Device {
    /// Makes a buffer. Mailboxes and reports come cleared; private memory holds anything until the GPU clears it.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] for a size of 0 or beyond the device's limit, [`BackendError::Allocation`] if there
    /// is no memory of that kind left, [`BackendError::DeviceLost`] if the device is lost.
    pub fn allocate(&self, desc: BufferDesc<'_>) -> Result<Buffer, BackendError> {
        self.check()?;
        let limit = self.facts().limits.max_buffer_bytes;
        let bytes = desc.bytes.checked_next_multiple_of(4).filter(|bytes| (1..=limit).contains(bytes)).ok_or(
            BackendError::BadOption {
                option: "buffer size",
                value: desc.bytes,
                must: "at least 1 and at most the device's largest buffer",
            },
        )?;

        let sharers = if desc.shared { self.sharers() } else { &[] };
        let mut info = vk::BufferCreateInfo::default().size(bytes).usage(desc.usage | USAGE);
        if !sharers.is_empty() {
            info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(sharers);
        }
        // SAFETY: the device is alive and has queues of the plan's families; the size is in its limits.
        let created = unsafe { self.raw().create_buffer(&info, None) };
        // From here on, dropping the buffer cleans up, however far this gets.
        let mut buffer = Buffer {
            raw: self.created("vkCreateBuffer", desc.name, created)?,
            device: self.clone(),
            allocation: Allocation::default(),
            mapped: None,
            address: 0,
            bytes,
            kind: desc.kind,
        };
        buffer.back(desc.name)?;
        tracing::debug!(
            name = desc.name, bytes, kind = desc.kind.name(), memory = ?buffer.memory_properties(), "allocated a buffer"
        );
        Ok(buffer)
    }
}

impl Buffer {
    /// Gives memory to the buffer.
    fn back(&mut self, name: &str) -> Result<(), BackendError> {
        let failed = |reason: String| BackendError::Allocation {
            name: name.to_owned(),
            bytes: self.bytes,
            kind: self.kind.name(),
            reason,
        };
        // SAFETY: the buffer is alive.
        let mut requirements = unsafe { self.device.raw().get_buffer_memory_requirements(self.raw) };
        requirements.alignment = requirements.alignment.max(ALIGNMENT);
        let desc = AllocationCreateDesc {
            name,
            requirements,
            location: self.kind.location(),
            linear: true,
            allocation_scheme: AllocationScheme::GpuAllocatorManaged,
        };
        let allocation = self.device.allocator().allocate(&desc);
        self.allocation = allocation.map_err(|error: AllocationError| failed(error.to_string()))?;
        if !self.memory_properties().contains(self.kind.required()) {
            return Err(failed(format!("the allocator gave memory that is only {:?}", self.memory_properties())));
        }

        // SAFETY: the allocation is ours and not freed before the buffer is destroyed.
        let memory = unsafe { self.allocation.memory() };
        // SAFETY: the memory was made for this buffer's requirements; the buffer has none yet.
        unsafe { self.device.raw().bind_buffer_memory(self.raw, memory, self.allocation.offset()) }
            .map_err(|result| self.device.fail("vkBindBufferMemory", result))?;
        let info = vk::BufferDeviceAddressInfo::default().buffer(self.raw);
        // SAFETY: the buffer has its memory, and its usage and the allocator's memory allow addresses.
        self.address = unsafe { self.device.raw().get_buffer_device_address(&info) };

        if self.kind != MemoryKind::Private {
            let base = self.allocation.mapped_ptr().ok_or_else(|| failed("the memory is not mapped".into()))?;
            // SAFETY: the mapping covers the buffer until it is freed, is aligned, and nobody else has seen it yet.
            self.mapped = Some(unsafe { Mapped::new(base, self.bytes, name) });
        }
        Ok(())
    }

    /// The Vulkan buffer. It stays `self`'s: do not destroy it.
    #[must_use]
    pub fn raw(&self) -> vk::Buffer {
        self.raw
    }

    /// The address by which shaders reach the buffer, a multiple of 256.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it was asked to be.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// What the memory really is.
    #[must_use]
    pub fn memory_properties(&self) -> vk::MemoryPropertyFlags {
        self.allocation.memory_properties()
    }

    /// The host's window into a mailbox or a report; `None` for private memory.
    #[must_use]
    pub fn mapped(&self) -> Option<&Mapped> {
        self.mapped.as_ref()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the buffer is ours and destroyed once; its users have ended, as its documentation asks.
        unsafe { self.device.raw().destroy_buffer(self.raw, None) };
        if let Err(error) = self.device.allocator().free(std::mem::take(&mut self.allocation)) {
            tracing::error!(%error, "the allocator did not take a buffer's memory back");
        }
    }
}
