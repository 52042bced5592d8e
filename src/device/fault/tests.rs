//! Reports of a driver that is made up here: none can be brought to lose its device on request.

use super::*;

/// Two addresses and a detail, of which it has one address less to tell the second time.
unsafe extern "system" fn page_fault(
    _: vk::Device,
    counts: *mut vk::DeviceFaultCountsEXT<'_>,
    info: *mut vk::DeviceFaultInfoEXT<'_>,
) -> vk::Result {
    // SAFETY: `read` passes its own.
    let counts = unsafe { &mut *counts };
    // SAFETY: as above; null the first time.
    let Some(info) = (unsafe { info.as_mut() }) else {
        (counts.address_info_count, counts.vendor_info_count, counts.vendor_binary_size) = (2, 1, 4096);
        return vk::Result::SUCCESS;
    };
    assert_eq!((counts.address_info_count, counts.vendor_info_count), (2, 1), "room for what was counted");
    assert_eq!(counts.vendor_binary_size, 0, "nobody asked for the dump");
    counts.address_info_count = 1;
    *info = info.description(c"page fault").unwrap();
    let address = vk::DeviceFaultAddressInfoEXT::default()
        .address_type(vk::DeviceFaultAddressTypeEXT::WRITE_INVALID)
        .reported_address(0x12_3456)
        .address_precision(0x1000);
    // SAFETY: there is room for two.
    unsafe { info.p_address_infos.write(address) };
    let vendor = vk::DeviceFaultVendorInfoEXT::default()
        .description(c"engine 3")
        .unwrap()
        .vendor_fault_code(7)
        .vendor_fault_data(0xff);
    // SAFETY: there is room for one.
    unsafe { info.p_vendor_infos.write(vendor) };
    vk::Result::INCOMPLETE
}

unsafe extern "system" fn silent(
    _: vk::Device,
    _: *mut vk::DeviceFaultCountsEXT<'_>,
    _: *mut vk::DeviceFaultInfoEXT<'_>,
) -> vk::Result {
    vk::Result::ERROR_OUT_OF_HOST_MEMORY
}

fn asked(driver: vk::PFN_vkGetDeviceFaultInfoEXT) -> Option<FaultReport> {
    let functions = device_fault::DeviceFn { get_device_fault_info_ext: driver };
    // SAFETY: the function is one of the two above, which look at no device.
    unsafe { read(&functions, vk::Device::null()) }
}

#[test]
fn a_report_has_the_drivers_words_the_addresses_and_the_vendors_details() {
    let kind = vk::DeviceFaultAddressTypeEXT::WRITE_INVALID;
    let expected = FaultReport {
        description: "page fault".into(),
        addresses: vec![FaultAddress { kind, address: 0x12_3456, precision: 0x1000 }],
        details: vec![FaultDetail { description: "engine 3".into(), code: 7, data: 0xff }],
    };
    assert_eq!(asked(page_fault), Some(expected));
    assert_eq!(asked(silent), None);
}

#[test]
fn a_report_reads_as_one_line_with_the_range_that_an_address_stands_for() {
    let report = asked(page_fault).unwrap();
    assert_eq!(report.to_string(), "page fault, invalid write in 0x123000 to 0x123fff, engine 3 (code 0x7, data 0xff)");
    let exact = FaultAddress { precision: 1, ..report.addresses[0] };
    assert_eq!(exact.to_string(), "invalid write at 0x123456");
    let unsaid = FaultAddress { precision: 0, kind: vk::DeviceFaultAddressTypeEXT::NONE, ..exact };
    assert_eq!(unsaid.to_string(), "something at 0x123456");
    assert_eq!(FaultReport::default().to_string(), "no description");
}
