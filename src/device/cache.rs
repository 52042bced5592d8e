//! The cache that all pipelines of a device go through, and its bytes.

use std::sync::{Mutex, MutexGuard};

use ash::vk;

use super::context::{Device, lock};
use crate::BackendError;

/// A device's own cache, or an engine's.
pub(super) struct Cache {
    /// Locked while pipelines are made, too: Vulkan wants a cache that others are merged into to be left alone.
    raw: Mutex<vk::PipelineCache>,
    borrowed: bool,
}

impl Cache {
    /// The engine's, or an empty one if there is none.
    pub(super) fn new(raw: &ash::Device, engines: Option<vk::PipelineCache>) -> Result<Self, BackendError> {
        let cache = match engines {
            Some(cache) => cache,
            None => create(raw, &[]).map_err(|result| BackendError::vulkan("vkCreatePipelineCache", result))?,
        };
        Ok(Self { raw: Mutex::new(cache), borrowed: engines.is_some() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, vk::PipelineCache> {
        lock(&self.raw)
    }

    /// Destroys it, if it is not the engine's.
    pub(super) fn destroy(&mut self, raw: &ash::Device) {
        if !self.borrowed {
            // SAFETY: the device goes, so nobody makes pipelines any more; it is destroyed once.
            unsafe { raw.destroy_pipeline_cache(*self.lock(), None) };
        }
    }
}

fn create(raw: &ash::Device, data: &[u8]) -> ash::prelude::VkResult<vk::PipelineCache> {
    let info = vk::PipelineCacheCreateInfo::default().initial_data(data);
    // SAFETY: the device is alive; data that is not empty is what `Device::load_pipelines` was promised.
    unsafe { raw.create_pipeline_cache(&info, None) }
}

impl Device {
    /// The pipelines that were compiled on this device up to now, as bytes for [`Device::load_pipelines`] of a later run. Of a cache that an engine has
    /// lent, all that is in it.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`] or [`BackendError::Vulkan`].
    pub fn save_pipelines(&self) -> Result<Vec<u8>, BackendError> {
        self.check()?;
        let cache = self.cache().lock();
        // SAFETY: the cache lives as long as the device.
        let data = unsafe { self.raw().get_pipeline_cache_data(*cache) };
        data.map_err(|result| self.fail("vkGetPipelineCacheData", result))
    }

    /// Lets pipelines be taken from what an earlier run saved, instead of being compiled. What another device or driver saved is ignored by the
    /// driver.
    ///
    /// # Safety
    /// The bytes are what [`Device::save_pipelines`] returned. Drivers look at a header that says for which device and driver they are, and trust the rest.
    ///
    /// # Errors
    /// [`BackendError::BadOption`] if the cache is lent by an engine, which loads it by itself; [`BackendError::DeviceLost`] or
    /// [`BackendError::Vulkan`].
    pub unsafe fn load_pipelines(&self, data: &[u8]) -> Result<(), BackendError> {
        self.check()?;
        if self.cache().borrowed {
            let must = "loaded into the device's own cache, and not into an engine's";
            return Err(BackendError::BadOption { option: "pipelines", value: data.len() as u64, must });
        }
        let loaded = create(self.raw(), data).map_err(|result| self.fail("vkCreatePipelineCache", result))?;
        let cache = self.cache().lock();
        // SAFETY: both are caches of this device, and nobody uses the first one meanwhile.
        let merged = unsafe { self.raw().merge_pipeline_caches(*cache, &[loaded]) };
        // SAFETY: just made, and nobody else has it.
        unsafe { self.raw().destroy_pipeline_cache(loaded, None) };
        merged.map_err(|result| self.fail("vkMergePipelineCaches", result))
    }
}
