//! Kernels of a benchmark's own, outside of taskring.

use taskring::{BackendError, Device, vk};

/// A compute kernel from GLSL, with push constants and nothing else bound.
pub(crate) struct Kernel {
    device: Device,
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

pub(crate) fn failed(call: &'static str) -> impl Fn(vk::Result) -> BackendError {
    move |result| BackendError::Vulkan { call, result }
}

impl Kernel {
    /// Compiles it; it is pushed so many bytes.
    pub(crate) fn new(device: &Device, source: &str, push_bytes: u32) -> Result<Self, BackendError> {
        let raw = device.raw();
        // Whatever is made before something fails is destroyed with it: destroying a null handle does nothing.
        let mut kernel =
            Self { device: device.clone(), pipeline: vk::Pipeline::null(), layout: vk::PipelineLayout::null() };
        let range = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(push_bytes)];
        let ranges = if push_bytes > 0 { &range[..] } else { &[] };
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(ranges);
        // SAFETY: the device lives, and the info is complete.
        kernel.layout = unsafe { raw.create_pipeline_layout(&info, None) }.map_err(failed("vkCreatePipelineLayout"))?;
        kernel.pipeline = pipeline(device, kernel.layout, source)?;
        Ok(kernel)
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Records its binding.
    ///
    /// # Safety
    /// The command buffer is being recorded for a family with compute, and `push` has as many bytes as the kernel was made with.
    pub(crate) unsafe fn bind(&self, commands: vk::CommandBuffer, push: &[u8]) {
        let raw = self.device.raw();
        // SAFETY: the caller's promise; the pipeline is a compute pipeline.
        unsafe { raw.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, self.pipeline) };
        if !push.is_empty() {
            // SAFETY: the caller's promise: the layout has a range of these bytes.
            unsafe { raw.cmd_push_constants(commands, self.layout, vk::ShaderStageFlags::COMPUTE, 0, push) };
        }
    }
}

fn pipeline(device: &Device, layout: vk::PipelineLayout, source: &str) -> Result<vk::Pipeline, BackendError> {
    let bad = |error: shaderc::Error| BackendError::BadProgram { reason: error.to_string() };
    let compiler = shaderc::Compiler::new().map_err(bad)?;
    let mut options = shaderc::CompileOptions::new().map_err(bad)?;
    options.set_target_env(shaderc::TargetEnv::Vulkan, shaderc::EnvVersion::Vulkan1_2 as u32);
    options.set_optimization_level(shaderc::OptimizationLevel::Performance);
    let kind = shaderc::ShaderKind::Compute;
    let spirv = compiler.compile_into_spirv(source, kind, "benchmark", "main", Some(&options)).map_err(bad)?;
    let raw = device.raw();
    let info = vk::ShaderModuleCreateInfo::default().code(spirv.as_binary());
    // SAFETY: the device lives, and the code is valid, being shaderc's.
    let module = unsafe { raw.create_shader_module(&info, None) }.map_err(failed("vkCreateShaderModule"))?;
    let stage =
        vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE).module(module).name(c"main");
    let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
    // SAFETY: the module was made above, and the caller's layout is of the same device.
    let made = unsafe { raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) };
    // SAFETY: the module is this function's own, and a pipeline does not need it once it is made.
    unsafe { raw.destroy_shader_module(module, None) };
    let made = made.map_err(|(_, result)| failed("vkCreateComputePipelines")(result))?;
    Ok(made.first().copied().unwrap_or_default())
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let raw = self.device.raw();
        // SAFETY: who submitted with it has waited or leaks it, and it is this value's own.
        unsafe { raw.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as above, for the layout.
        unsafe { raw.destroy_pipeline_layout(self.layout, None) };
    }
}
