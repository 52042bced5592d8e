//! Small buffers in memory of exactly one type: an allocator would be free to take another.

use std::ptr::NonNull;

use ash::vk;

use super::outcome::MemoryClass;
use crate::BackendError;
use crate::device::chains;
use crate::device::context::Device;
use crate::device::facts::DeviceFacts;
use crate::device::mapped::Mapped;

/// A mailbox in the first half, a report in the second: neither shares a line with the other, nor a page on most devices.
const BYTES: u64 = 8192;
/// Where the report begins.
pub(super) const REPORT: u64 = BYTES / 2;

/// What a memory type's properties may be. Whatever else a type is needs a feature that is not enabled, or is of no use here.
const KNOWN: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::from_raw(
    vk::MemoryPropertyFlags::DEVICE_LOCAL.as_raw()
        | vk::MemoryPropertyFlags::HOST_VISIBLE.as_raw()
        | vk::MemoryPropertyFlags::HOST_COHERENT.as_raw()
        | vk::MemoryPropertyFlags::HOST_CACHED.as_raw(),
);

impl MemoryClass {
    fn properties(self) -> vk::MemoryPropertyFlags {
        use vk::MemoryPropertyFlags as Memory;
        let shared = Memory::HOST_VISIBLE | Memory::HOST_COHERENT;
        match self {
            Self::DeviceLocal => shared | Memory::DEVICE_LOCAL,
            Self::DeviceLocalCached => shared | Memory::DEVICE_LOCAL | Memory::HOST_CACHED,
            Self::System => shared,
            Self::SystemCached => shared | Memory::HOST_CACHED,
        }
    }

    /// The class of memory with these properties; `None` if a host and a kernel do not share it.
    pub(crate) fn of(properties: vk::MemoryPropertyFlags) -> Option<Self> {
        Self::ALL.into_iter().find(|class| properties & KNOWN == class.properties())
    }

    /// Which types of a device are of this class.
    fn types(self, facts: &DeviceFacts) -> impl Iterator<Item = u32> {
        let all = (0u32..).zip(&facts.memory_types);
        all.filter(move |(_, memory)| {
            memory.properties & KNOWN == self.properties() && KNOWN.contains(memory.properties)
        })
        .map(|(index, _)| index)
    }
}

/// Memory of one class that the host and a kernel share.
#[derive(Debug)]
pub(super) struct SharedMemory {
    device: Device,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    address: vk::DeviceAddress,
    mapped: Option<Mapped>,
    pub(super) class: MemoryClass,
}

impl SharedMemory {
    /// Memory of that class; `None` if the device has none that buffers can be made of.
    pub(super) fn new(device: &Device, class: MemoryClass) -> Result<Option<Self>, BackendError> {
        let raw = device.raw();
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let info = vk::BufferCreateInfo::default().size(BYTES).usage(usage);
        // SAFETY: the info is complete and the device is alive in `device`.
        let buffer = unsafe { raw.create_buffer(&info, None) };
        let buffer = device.created("vkCreateBuffer", "taskring probe", buffer)?;
        // From here on `Drop` frees what was made, null handles included.
        let memory = vk::DeviceMemory::null();
        let mut shared = Self { device: device.clone(), buffer, memory, address: 0, mapped: None, class };
        // SAFETY: the buffer was just made.
        let needs = unsafe { raw.get_buffer_memory_requirements(buffer) };
        let Some(kind) = class.types(device.facts()).find(|kind| needs.memory_type_bits & (1 << kind) != 0) else {
            return Ok(None);
        };
        shared.back(kind, needs.size)?;
        Ok(Some(shared))
    }

    fn back(&mut self, kind: u32, bytes: u64) -> Result<(), BackendError> {
        let raw = self.device.raw();
        let fail = |call, result| self.device.fail(call, result);
        // SAFETY: the type is one of the device's and of no feature, and buffer addresses are enabled on every device of ours.
        let memory = unsafe { chains::allocate_addressed(raw, kind, bytes) };
        self.memory = self.device.created("vkAllocateMemory", "taskring probe", memory)?;
        // SAFETY: the memory was made for this buffer, which has none yet.
        let bound = unsafe { raw.bind_buffer_memory(self.buffer, self.memory, 0) };
        bound.map_err(|result| fail("vkBindBufferMemory", result))?;
        let info = vk::BufferDeviceAddressInfo::default().buffer(self.buffer);
        // SAFETY: the buffer has its memory, and both were made for addresses.
        self.address = unsafe { raw.get_buffer_device_address(&info) };
        // SAFETY: the memory is host-visible and not mapped yet.
        let base = unsafe { raw.map_memory(self.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) };
        let base = NonNull::new(base.map_err(|result| fail("vkMapMemory", result))?);
        let base = base.ok_or_else(|| BackendError::Protocol { what: "vkMapMemory gave a null pointer".into() })?;
        // SAFETY: the mapping covers the buffer until `Drop` frees the memory, is aligned, and nobody else has seen it yet.
        self.mapped = Some(unsafe { Mapped::new(base, BYTES, "taskring probe") });
        Ok(())
    }

    /// The address of the mailbox.
    pub(super) fn mailbox(&self) -> u64 {
        self.address
    }

    /// The address of the report.
    pub(super) fn report(&self) -> u64 {
        self.address + REPORT
    }

    /// The host's window into both.
    pub(super) fn mapped(&self) -> Result<&Mapped, BackendError> {
        self.mapped.as_ref().ok_or_else(|| BackendError::Protocol { what: "a probe's memory is not mapped".into() })
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: the buffer is ours; no kernel uses it, since the self-test waits for each and leaks this where a wait fails.
        unsafe { raw.destroy_buffer(self.buffer, None) };
        // SAFETY: as above; freeing the memory unmaps it, and the window goes with `self`.
        unsafe { raw.free_memory(self.memory, None) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::recorded;

    fn types(facts: &DeviceFacts) -> Vec<Vec<u32>> {
        MemoryClass::ALL.iter().map(|class| class.types(facts).collect()).collect()
    }

    #[test]
    fn each_memory_type_that_the_host_can_share_is_of_one_class() {
        assert_eq!(types(&recorded::h100()), [vec![4], vec![], vec![2], vec![3]]);
        assert_eq!(types(&recorded::lavapipe()), [vec![], vec![0], vec![], vec![]]);
    }

    #[test]
    fn each_class_is_that_of_its_properties() {
        assert!(MemoryClass::ALL.into_iter().all(|class| MemoryClass::of(class.properties()) == Some(class)));
        assert_eq!(MemoryClass::of(vk::MemoryPropertyFlags::DEVICE_LOCAL), None);
    }

    #[test]
    fn a_memory_type_that_needs_a_feature_is_left_alone() {
        let mut facts = recorded::h100();
        facts.memory_types[4].properties |= vk::MemoryPropertyFlags::DEVICE_COHERENT_AMD;
        assert_eq!(types(&facts)[0], [0; 0]);
    }
}
