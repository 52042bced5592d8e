//! What the driver knows about the fault that lost the device, where it has `VK_EXT_device_fault` and that is enabled.

use std::fmt;
use std::ptr;

use ash::ext::device_fault;
use ash::vk;

use super::chains::text;

/// What the driver says about the fault that lost the device. Words and codes are the vendor's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultReport {
    /// What happened.
    pub description: String,
    /// Addresses that have to do with it: those that were accessed, and those of instructions.
    pub addresses: Vec<FaultAddress>,
    /// What else the vendor tells.
    pub details: Vec<FaultDetail>,
}

/// An address in a [`FaultReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultAddress {
    /// What it is the address of.
    pub kind: vk::DeviceFaultAddressTypeEXT,
    /// The device address that was reported.
    pub address: u64,
    /// The true address has the same bits above those of this power of two, in bytes; 1 where it is exact.
    pub precision: u64,
}

/// The vendor's own piece of a [`FaultReport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultDetail {
    /// In words.
    pub description: String,
    /// The vendor's code of the fault.
    pub code: u64,
    /// Data that goes with the code.
    pub data: u64,
}

impl fmt::Display for FaultAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use vk::DeviceFaultAddressTypeEXT as Kind;
        let kind = match self.kind {
            Kind::READ_INVALID => "invalid read",
            Kind::WRITE_INVALID => "invalid write",
            Kind::EXECUTE_INVALID => "invalid execution",
            Kind::INSTRUCTION_POINTER_UNKNOWN => "instruction",
            Kind::INSTRUCTION_POINTER_INVALID => "invalid instruction",
            Kind::INSTRUCTION_POINTER_FAULT => "faulting instruction",
            _ => "something",
        };
        // Vulkan has it a power of two; whatever a driver says must not become a panic here.
        let low = self.precision.max(1) - 1;
        let (first, last) = (self.address & !low, self.address | low);
        if first == last { write!(f, "{kind} at {first:#x}") } else { write!(f, "{kind} in {first:#x} to {last:#x}") }
    }
}

impl fmt::Display for FaultDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {:#x}, data {:#x})", self.description, self.code, self.data)
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.description.is_empty() { "no description" } else { &self.description })?;
        self.addresses.iter().try_for_each(|address| write!(f, ", {address}"))?;
        self.details.iter().try_for_each(|detail| write!(f, ", {detail}"))
    }
}

/// What asks the driver why the device was lost; `deviceFault` is enabled.
pub(super) fn reader(
    instance: &ash::Instance,
    raw: &ash::Device,
) -> Box<dyn Fn() -> Option<FaultReport> + Send + Sync> {
    let functions = device_fault::Device::new(instance, raw);
    // SAFETY: the device lives as long as what notes its loss, which asks only then.
    Box::new(move || unsafe { read(functions.fp(), functions.device()) })
}

/// Asks the driver. `None` if it does not answer.
///
/// # Safety
/// The device is alive and lost, and has `deviceFault` enabled; the function is its own.
unsafe fn read(functions: &device_fault::DeviceFn, device: vk::Device) -> Option<FaultReport> {
    let ask = functions.get_device_fault_info_ext;
    let mut counts = vk::DeviceFaultCountsEXT::default();
    // SAFETY: the caller's promise; without an info only the counts are written.
    let counted = unsafe { ask(device, &raw mut counts, ptr::null_mut()) };
    if counted != vk::Result::SUCCESS {
        return None;
    }
    let mut addresses = vec![vk::DeviceFaultAddressInfoEXT::default(); counts.address_info_count as usize];
    let mut vendor = vec![vk::DeviceFaultVendorInfoEXT::default(); counts.vendor_info_count as usize];
    // The vendor's dump is a feature of its own, which is not enabled.
    counts.vendor_binary_size = 0;
    let mut info = vk::DeviceFaultInfoEXT {
        p_address_infos: addresses.as_mut_ptr(),
        p_vendor_infos: vendor.as_mut_ptr(),
        ..vk::DeviceFaultInfoEXT::default()
    };
    // SAFETY: the caller's promise; there is room for as many as the counts say.
    let told = unsafe { ask(device, &raw mut counts, &raw mut info) };
    if !matches!(told, vk::Result::SUCCESS | vk::Result::INCOMPLETE) {
        return None;
    }
    addresses.truncate(counts.address_info_count as usize);
    vendor.truncate(counts.vendor_info_count as usize);
    let address = |info: &vk::DeviceFaultAddressInfoEXT| FaultAddress {
        kind: info.address_type,
        address: info.reported_address,
        precision: info.address_precision,
    };
    let detail = |info: &vk::DeviceFaultVendorInfoEXT| FaultDetail {
        description: text(info.description_as_c_str()),
        code: info.vendor_fault_code,
        data: info.vendor_fault_data,
    };
    Some(FaultReport {
        description: text(info.description_as_c_str()),
        addresses: addresses.iter().map(address).collect(),
        details: vendor.iter().map(detail).collect(),
    })
}

#[cfg(test)]
mod tests;
