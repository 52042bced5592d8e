//! What any engine has: an instance, a device, one queue for everything, an allocator, a timeline that counts frames, an image to draw into. Plain ash.
//! The two places that know of taskring are marked.

use std::error::Error;
use std::sync::{Arc, Mutex};

use taskring::ash::{self, vk};
use taskring::device::{DeviceFacts, Enabled, FeatureStructs, QueueSlot};
use taskring::gpu_allocator::vulkan::{
    Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc,
};
use taskring::gpu_allocator::{AllocationSizes, AllocatorDebugSettings, MemoryLocation};
use taskring::{BackendError, Device, EngineDevice, EngineQueue, Requirements};

type Outcome<T> = Result<T, Box<dyn Error>>;
const VERSION: u32 = vk::API_VERSION_1_3;

pub(crate) struct Vulkan {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    pub(crate) device: ash::Device,
    enabled: Enabled,
    family: u32,
    queue: vk::Queue,
    /// Held for each submission, by whoever submits.
    lock: Arc<Mutex<()>>,
    /// Gone before the device is.
    allocator: Option<Arc<Mutex<Allocator>>>,
    pool: vk::CommandPool,
    pub(crate) commands: vk::CommandBuffer,
    pub(crate) frames: vk::Semaphore,
    images: Vec<(vk::Image, Allocation)>,
    readback: Option<(vk::Buffer, Allocation)>,
}

// The functions of this file call Vulkan with what `Vulkan` owns and keeps alive, from one thread; each frame is waited for before the next is recorded.
impl Vulkan {
    pub(crate) fn new() -> Outcome<Self> {
        // SAFETY: the system's loader.
        let entry = unsafe { ash::Entry::load() }?;
        let app = vk::ApplicationInfo::default().application_name(c"engine").api_version(VERSION);
        // SAFETY: the info is complete.
        let instance =
            unsafe { entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None) }?;
        // SAFETY: the instance is alive.
        let physical = *unsafe { instance.enumerate_physical_devices() }?.first().ok_or("there is no device")?;
        // SAFETY: as above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let draws = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
        let family = (0..).zip(&families).find(|(_, family)| family.queue_flags.contains(draws));
        let family = family.ok_or("no queue draws and computes")?.0;

        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let mut core = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        // Of taskring, first: what to enable, beside the engine's own.
        // SAFETY: as above.
        let facts = unsafe { DeviceFacts::read(&instance, physical, VERSION) }?;
        let requirements = Requirements::of(&facts).map_err(|lacks| lacks.join("; "))?;
        let (mut rest, mut names) = (FeatureStructs::default(), Vec::new());
        requirements.merge_extensions(&mut names);
        let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let mut info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
        info = info.push_next(&mut core);
        // SAFETY: the chain has the structure above.
        unsafe { requirements.merge_features(&mut info, &mut rest) };
        // SAFETY: the info is complete.
        let enabled = unsafe { Enabled::of(&info) };
        // SAFETY: as above.
        let device = unsafe { instance.create_device(physical, &info, None) }?;

        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: instance.clone(),
            device: device.clone(),
            physical_device: physical,
            debug_settings: AllocatorDebugSettings::default(),
            buffer_device_address: true,
            allocation_sizes: AllocationSizes::default(),
        })?;
        // SAFETY: the device was made with this queue.
        let queue = unsafe { device.get_device_queue(family, 0) };
        let reset = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let pool = vk::CommandPoolCreateInfo::default().queue_family_index(family).flags(reset);
        // SAFETY: the info is complete.
        let pool = unsafe { device.create_command_pool(&pool, None) }?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is new.
        let commands = unsafe { device.allocate_command_buffers(&info) }?[0];
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        // SAFETY: the info is complete.
        let frames =
            unsafe { device.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None) }?;
        let (lock, allocator) = (Arc::default(), Some(Arc::new(Mutex::new(allocator))));
        let (images, readback, _entry) = (Vec::new(), None, entry);
        Ok(Self {
            _entry,
            instance,
            physical,
            device,
            enabled,
            family,
            queue,
            lock,
            allocator,
            pool,
            commands,
            frames,
            images,
            readback,
        })
    }

    /// Of taskring, second: its device is this one.
    ///
    /// # Safety
    /// All that borrows is dropped before `self`.
    pub(crate) unsafe fn lend(&self) -> Result<Device, BackendError> {
        let slot = QueueSlot { family: self.family, index: 0 };
        let queue = EngineQueue::shared(self.queue, slot, self.lock.clone());
        let (instance, enabled) = ((&self.instance, VERSION), self.enabled.clone());
        let mut engine = EngineDevice::new(instance, self.physical, &self.device, enabled, queue);
        engine.allocator = self.allocator.clone();
        // SAFETY: the handles are alive and belong together, and all submissions hold the lock; the caller promises the rest.
        unsafe { Device::borrow(engine) }
    }

    fn allocate(&self, name: &str, requirements: vk::MemoryRequirements, linear: bool) -> Outcome<Allocation> {
        let location = if linear { MemoryLocation::GpuToCpu } else { MemoryLocation::GpuOnly };
        let allocation_scheme = AllocationScheme::GpuAllocatorManaged;
        let desc = AllocationCreateDesc { name, requirements, location, linear, allocation_scheme };
        let allocator = self.allocator.as_ref().ok_or("the allocator is gone")?;
        Ok(allocator.lock().map_err(|_| "the allocator panicked")?.allocate(&desc)?)
    }

    /// A square image that is copied and blitted to and from, in the general layout once [`Vulkan::begin`] has run.
    pub(crate) fn image(&mut self, side: u32) -> Outcome<vk::Image> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R8G8B8A8_UNORM)
            .extent(vk::Extent3D { width: side, height: side, depth: 1 })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .usage(vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST);
        // SAFETY: the info is complete.
        let image = unsafe { self.device.create_image(&info, None) }?;
        // SAFETY: the image is new.
        let requirements = unsafe { self.device.get_image_memory_requirements(image) };
        let allocation = self.allocate("image", requirements, false)?;
        // SAFETY: the allocation is freed after the image.
        let memory = unsafe { allocation.memory() };
        // SAFETY: the memory was made for the image.
        unsafe { self.device.bind_image_memory(image, memory, allocation.offset()) }?;
        self.images.push((image, allocation));
        Ok(image)
    }

    /// The buffer that pictures are read back from.
    pub(crate) fn readback(&mut self, bytes: u64) -> Outcome<vk::Buffer> {
        let info = vk::BufferCreateInfo::default().size(bytes).usage(vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: the info is complete.
        let buffer = unsafe { self.device.create_buffer(&info, None) }?;
        // SAFETY: the buffer is new.
        let requirements = unsafe { self.device.get_buffer_memory_requirements(buffer) };
        let allocation = self.allocate("readback", requirements, true)?;
        // SAFETY: the allocation is freed after the buffer.
        let memory = unsafe { allocation.memory() };
        // SAFETY: the memory was made for the buffer.
        unsafe { self.device.bind_buffer_memory(buffer, memory, allocation.offset()) }?;
        self.readback = Some((buffer, allocation));
        Ok(buffer)
    }

    /// What the last frame that ended left in the readback buffer.
    pub(crate) fn picture(&self, bytes: usize) -> Outcome<&[u8]> {
        let mapped = self.readback.as_ref().and_then(|(_, allocation)| allocation.mapped_slice());
        Ok(&mapped.ok_or("nothing to read back")?[..bytes])
    }

    /// Begins a frame; the first one brings the images into the general layout.
    pub(crate) fn begin(&self, first: bool) -> Outcome<()> {
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the frame before has ended.
        unsafe { self.device.begin_command_buffer(self.commands, &info) }?;
        let whole =
            vk::ImageSubresourceRange::default().aspect_mask(vk::ImageAspectFlags::COLOR).level_count(1).layer_count(1);
        for (image, _) in self.images.iter().filter(|_| first) {
            let general = [vk::ImageMemoryBarrier::default()
                .image(*image)
                .new_layout(vk::ImageLayout::GENERAL)
                .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE)
                .subresource_range(whole)];
            let (top, copy) = (vk::PipelineStageFlags::TOP_OF_PIPE, vk::PipelineStageFlags::TRANSFER);
            let none = vk::DependencyFlags::empty();
            // SAFETY: it is being recorded.
            unsafe { self.device.cmd_pipeline_barrier(self.commands, top, copy, none, &[], &[], &general) };
            let black = vk::ClearColorValue::default();
            // SAFETY: as above, and the image has this layout from here on.
            unsafe {
                self.device.cmd_clear_color_image(self.commands, *image, vk::ImageLayout::GENERAL, &black, &[whole])
            };
        }
        Ok(())
    }

    /// What was copied is there for the next copy, and for the host.
    pub(crate) fn barrier(&self) {
        let memory = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE | vk::AccessFlags::TRANSFER_READ)
            .dst_access_mask(
                vk::AccessFlags::TRANSFER_WRITE | vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::HOST_READ,
            )];
        let copy = vk::PipelineStageFlags::TRANSFER;
        let (after, none) = (copy | vk::PipelineStageFlags::HOST, vk::DependencyFlags::empty());
        // SAFETY: it is being recorded.
        unsafe { self.device.cmd_pipeline_barrier(self.commands, copy, after, none, &memory, &[], &[]) };
    }

    /// Submits the frame, which signals its number.
    pub(crate) fn submit(&self, frame: u64) -> Outcome<()> {
        // SAFETY: it is being recorded.
        unsafe { self.device.end_command_buffer(self.commands) }?;
        let (commands, semaphores, values) = ([self.commands], [self.frames], [frame]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info = vk::SubmitInfo::default().command_buffers(&commands).signal_semaphores(&semaphores);
        let _held = self.lock.lock().map_err(|_| "a submission panicked")?;
        // SAFETY: the queue is locked.
        Ok(unsafe { self.device.queue_submit(self.queue, &[info.push_next(&mut timeline)], vk::Fence::null()) }?)
    }
}

impl Drop for Vulkan {
    fn drop(&mut self) {
        if let Some(Ok(mut allocator)) = self.allocator.as_deref().map(Mutex::lock) {
            for (image, allocation) in self.images.drain(..) {
                // SAFETY: the last frame has ended; the same below.
                unsafe { self.device.destroy_image(image, None) };
                let _ = allocator.free(allocation);
            }
            if let Some((buffer, allocation)) = self.readback.take() {
                // SAFETY: as above.
                unsafe { self.device.destroy_buffer(buffer, None) };
                let _ = allocator.free(allocation);
            }
        }
        drop(self.allocator.take());
        // SAFETY: as above.
        unsafe { self.device.destroy_semaphore(self.frames, None) };
        // SAFETY: as above.
        unsafe { self.device.destroy_command_pool(self.pool, None) };
        // SAFETY: nothing of it is left.
        unsafe { self.device.destroy_device(None) };
        // SAFETY: as above.
        unsafe { self.instance.destroy_instance(None) };
    }
}
