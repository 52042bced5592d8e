//! The instance that taskring makes for itself: loader, validation layer, message log.

use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ash::ext::{debug_utils, validation_features};
use ash::vk;

use super::chains::{self, InstanceRequest};
use super::facts::DeviceFacts;
use crate::BackendError;

const VALIDATION_LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";
const VALIDATION_LAYER_NAME: &str = "VK_LAYER_KHRONOS_validation";

/// Every warning and error of the validation layer, in order and unfiltered.
///
/// It may be kept longer than the device: what the layer says while the device is destroyed is in it too.
#[derive(Clone, Debug, Default)]
pub struct ValidationLog(Arc<Mutex<Vec<String>>>);

impl ValidationLog {
    /// The messages up to now.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(log: &Mutex<Vec<String>>, message: String) {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    /// A messenger that writes here. It holds a bare pointer to the log: keep the log until the messenger is gone.
    fn messenger(&self) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
        vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(
                vk::DebugUtilsMessageSeverityFlagsEXT::WARNING | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR,
            )
            .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION)
            .pfn_user_callback(Some(on_message))
            .user_data(Arc::as_ptr(&self.0).cast_mut().cast())
    }
}

/// Receives one message of the validation layer.
unsafe extern "system" fn on_message(
    severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    log: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: Vulkan passes a pointer to valid data, or null in a broken layer.
    let text = unsafe { data.as_ref() }.map_or(std::ptr::null(), |data| data.p_message);
    let text = if text.is_null() {
        String::new()
    } else {
        // SAFETY: Vulkan promises a NUL-terminated string that lives during the callback.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    if severity.contains(vk::DebugUtilsMessageSeverityFlagsEXT::ERROR) {
        tracing::error!(target: "taskring::validation", "{text}");
    } else {
        tracing::warn!(target: "taskring::validation", "{text}");
    }
    // SAFETY: `Instance` keeps the log that `ValidationLog::messenger` took the pointer from until both are gone.
    if let Some(log) = unsafe { log.cast::<Mutex<Vec<String>>>().as_ref() } {
        ValidationLog::push(log, text);
    }
    // The specification wants this: anything else makes the call fail that is being reported.
    vk::FALSE
}

/// An instance of our own. Dropping it destroys it.
pub(super) struct Instance {
    raw: ash::Instance,
    /// Whether objects can have names.
    names: bool,
    messenger: Option<(debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    log: ValidationLog,
    entry: ash::Entry,
}

impl Instance {
    pub(super) fn new(application_name: &str, validation: bool) -> Result<Self, BackendError> {
        let entry = loader()?;
        let layers: &[&'static CStr] = if validation { &[VALIDATION_LAYER] } else { &[] };
        if validation && !has_validation_layer(&entry)? {
            return Err(BackendError::NoValidationLayer { layer: VALIDATION_LAYER_NAME });
        }
        let mut available = extensions(&entry, None)?;
        for layer in layers {
            available.extend(extensions(&entry, Some(layer))?);
        }
        let has = |wanted: &CStr| available.iter().any(|one| one.extension_name_as_c_str() == Ok(wanted));
        let names = has(debug_utils::NAME);
        let check_synchronization = validation && has(validation_features::NAME);
        if validation && !names {
            tracing::warn!("there is no VK_EXT_debug_utils: the log stays empty, whatever the validation layer says");
        }
        if validation && !check_synchronization {
            tracing::warn!("the validation layer has no VK_EXT_validation_features: synchronization is not checked");
        }
        let wanted = [(names, debug_utils::NAME), (check_synchronization, validation_features::NAME)];
        let wanted: Vec<_> = wanted.into_iter().filter(|(available, _)| *available).map(|(_, name)| name).collect();

        let log = ValidationLog::default();
        let application_name = c_string(application_name);
        let request = InstanceRequest {
            application_name: &application_name,
            layers,
            extensions: &wanted,
            check_synchronization,
            messenger: (validation && names).then(|| log.messenger()),
        };
        // SAFETY: the log is kept in `Self` and dropped after the instance was destroyed.
        let raw = unsafe { chains::create_instance(&entry, request) }
            .map_err(|result| BackendError::vulkan("vkCreateInstance", result))?;
        let mut instance = Self { raw, names, messenger: None, log, entry };
        if validation && names {
            instance.listen()?;
        }
        Ok(instance)
    }

    /// Hears messages between the creation and the destruction of the instance.
    fn listen(&mut self) -> Result<(), BackendError> {
        let messengers = debug_utils::Instance::new(&self.entry, &self.raw);
        // SAFETY: the extension is enabled, and the log is kept in `Self` longer than the messenger.
        let messenger = unsafe { messengers.create_debug_utils_messenger(&self.log.messenger(), None) }
            .map_err(|result| BackendError::vulkan("vkCreateDebugUtilsMessengerEXT", result))?;
        self.messenger = Some((messengers, messenger));
        Ok(())
    }

    /// The physical devices and their facts, in the loader's order.
    pub(super) fn devices(&self) -> Result<Vec<(vk::PhysicalDevice, DeviceFacts)>, BackendError> {
        // SAFETY: the instance is alive.
        let devices = unsafe { self.raw.enumerate_physical_devices() }
            .map_err(|result| BackendError::vulkan("vkEnumeratePhysicalDevices", result))?;
        let facts = |(index, device)| {
            // SAFETY: this instance has just listed the device. What is newer than the instance, nobody here uses.
            let facts = unsafe { chains::read_facts(&self.raw, device, index, u32::MAX) }
                .map_err(|result| BackendError::vulkan("vkEnumerateDeviceExtensionProperties", result))?;
            Ok((device, facts))
        };
        devices.into_iter().enumerate().map(facts).collect()
    }

    pub(super) fn raw(&self) -> &ash::Instance {
        &self.raw
    }

    pub(super) fn log(&self) -> &ValidationLog {
        &self.log
    }

    /// What gives names to the objects of a device, if this instance can.
    pub(super) fn names(&self, device: &ash::Device) -> Option<debug_utils::Device> {
        self.names.then(|| names(&self.raw, device))
    }
}

/// What gives names to the objects of a device; its instance has the extension for it.
pub(super) fn names(instance: &ash::Instance, device: &ash::Device) -> debug_utils::Device {
    debug_utils::Device::new(instance, device)
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _span = tracing::debug_span!("destroy_instance").entered();
        if let Some((messengers, messenger)) = self.messenger.take() {
            // SAFETY: it was created from this instance and is destroyed once.
            unsafe { messengers.destroy_debug_utils_messenger(messenger, None) };
        }
        // SAFETY: whoever made objects of this instance destroyed them before; the instance is destroyed once.
        unsafe { self.raw.destroy_instance(None) };
    }
}

fn has_validation_layer(entry: &ash::Entry) -> Result<bool, BackendError> {
    // SAFETY: the loader is open; the call has no other condition.
    let layers = unsafe { entry.enumerate_instance_layer_properties() }
        .map_err(|result| BackendError::vulkan("vkEnumerateInstanceLayerProperties", result))?;
    Ok(layers.iter().any(|layer| layer.layer_name_as_c_str() == Ok(VALIDATION_LAYER)))
}

/// The system's Vulkan loader. Once open it stays so: with the last device of several it would be unmapped while other threads open it anew. Drivers it opens
/// and closes by itself, with its instances.
fn loader() -> Result<ash::Entry, BackendError> {
    static LOADER: OnceLock<ash::Entry> = OnceLock::new();
    if let Some(loader) = LOADER.get() {
        return Ok(loader.clone());
    }
    // SAFETY: opening the system's Vulkan loader runs its initializers, which the platform vouches for.
    let loader = unsafe { ash::Entry::load() }.map_err(|error| BackendError::NoLoader { reason: error.to_string() })?;
    Ok(LOADER.get_or_init(|| loader).clone())
}

fn extensions(entry: &ash::Entry, layer: Option<&CStr>) -> Result<Vec<vk::ExtensionProperties>, BackendError> {
    // SAFETY: the loader is open; the call has no other condition.
    unsafe { entry.enumerate_instance_extension_properties(layer) }
        .map_err(|result| BackendError::vulkan("vkEnumerateInstanceExtensionProperties", result))
}

/// A C string without the zero bytes that the text may have.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}
