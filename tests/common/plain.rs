//! An engine of plain ash: its own instance, device, queue, lock, allocator and validation messages.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of a module that is private to it")]

use std::ffi::{CStr, c_void};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use taskring::ash::{self, ext, vk};
use taskring::device::{DeviceFacts, Enabled, FeatureStructs, QueueSlot};
use taskring::gpu_allocator::vulkan::{
    Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc,
};
use taskring::gpu_allocator::{AllocationSizes, AllocatorDebugSettings, MemoryLocation};
use taskring::{EngineDevice, EngineQueue, QueueLock, Requirements};

const VERSION: u32 = vk::API_VERSION_1_3;

/// Which of taskring's requirements the engine enables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Enables {
    All,
    /// What is required, by hand, in one structure of its own.
    Required,
    /// Timeline semaphores, which it uses itself.
    Little,
}

/// The lock of the engine's queue, which counts who asks for it.
#[derive(Default)]
pub struct Lock {
    held: Mutex<()>,
    pub times: AtomicU32,
}

impl QueueLock for Lock {
    fn hold(&self, submit: &mut dyn FnMut()) {
        let _held = self.held.lock().expect("no submission panics");
        self.times.fetch_add(1, Relaxed);
        submit();
    }
}

pub struct Plain {
    /// What the validation layer says. Anything fails the test when this is dropped, unless it is expected.
    pub messages: Arc<Mutex<Vec<String>>>,
    pub expects_messages: bool,
    messenger: (ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT),
    pub physical: vk::PhysicalDevice,
    pub device: ash::Device,
    pub enabled: Enabled,
    pub family: u32,
    pub queue: vk::Queue,
    pub lock: Arc<Lock>,
    pub allocator: Option<Arc<Mutex<Allocator>>>,
    pub pool: vk::CommandPool,
    /// Counts the engine's submissions.
    pub frames: vk::Semaphore,
    frame: Mutex<u64>,
    pub instance: ash::Instance,
    _entry: ash::Entry,
}

unsafe extern "system" fn hear(
    _: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    messages: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: Vulkan passes valid data.
    let data = unsafe { &*data };
    // SAFETY: its message ends with a zero.
    let text = unsafe { data.message_as_c_str() };
    // SAFETY: the list outlives the messenger.
    let messages = unsafe { &*messages.cast::<Mutex<Vec<String>>>() };
    messages.lock().unwrap().push(text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default());
    vk::FALSE
}

impl Plain {
    pub fn new(enables: Enables) -> Self {
        // SAFETY: the system's loader.
        let entry = unsafe { ash::Entry::load() }.expect("a loader");
        let app = vk::ApplicationInfo::default().application_name(c"a plain engine").api_version(VERSION);
        let layers = [c"VK_LAYER_KHRONOS_validation".as_ptr()];
        let extensions = [ext::debug_utils::NAME.as_ptr(), ext::validation_features::NAME.as_ptr()];
        let checks = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut checked = vk::ValidationFeaturesEXT::default().enabled_validation_features(&checks);
        let info = vk::InstanceCreateInfo::default()
            .application_info(&app)
            .enabled_layer_names(&layers)
            .enabled_extension_names(&extensions)
            .push_next(&mut checked);
        // SAFETY: the info is complete.
        let instance = unsafe { entry.create_instance(&info, None) }.expect("an instance with the validation layer");
        let messages = Arc::new(Mutex::new(Vec::new()));
        let loud = vk::DebugUtilsMessageSeverityFlagsEXT::WARNING | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR;
        let info = vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(loud)
            .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION)
            .pfn_user_callback(Some(hear))
            .user_data(Arc::as_ptr(&messages).cast_mut().cast());
        let messengers = ext::debug_utils::Instance::new(&entry, &instance);
        // SAFETY: the list is kept longer than the messenger.
        let messenger = unsafe { messengers.create_debug_utils_messenger(&info, None) }.expect("a messenger");

        // SAFETY: the instance is alive.
        let physical = unsafe { instance.enumerate_physical_devices() }.expect("devices")[0];
        // SAFETY: as above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let draws = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
        let family = (0..).zip(&families).find(|(_, family)| family.queue_flags.contains(draws)).expect("graphics").0;
        // SAFETY: as above.
        let facts = unsafe { DeviceFacts::read(&instance, physical, VERSION) }.expect("facts");
        let requirements = Requirements::of(&facts).expect("a device that can run taskring");

        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let mut names: Vec<&CStr> = Vec::new();
        // What the engine enables for itself.
        let mut core = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true).host_query_reset(true);
        if enables == Enables::Required {
            core = core.vulkan_memory_model(true).vulkan_memory_model_device_scope(true).buffer_device_address(true);
        }
        let mut ours = FeatureStructs::default();
        let mut info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).push_next(&mut core);
        if enables == Enables::All {
            requirements.merge_extensions(&mut names);
            // SAFETY: the chain has the engine's structure alone.
            unsafe { requirements.merge_features(&mut info, &mut ours) };
        }
        let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
        let info = info.enabled_extension_names(&names);
        // SAFETY: the info is complete.
        let enabled = unsafe { Enabled::of(&info) };
        // SAFETY: as above.
        let device = unsafe { instance.create_device(physical, &info, None) }.expect("a device");
        // SAFETY: the device was made with this queue.
        let queue = unsafe { device.get_device_queue(family, 0) };

        let addresses = enables != Enables::Little;
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: instance.clone(),
            device: device.clone(),
            physical_device: physical,
            debug_settings: AllocatorDebugSettings::default(),
            buffer_device_address: addresses,
            allocation_sizes: AllocationSizes::new(8 << 20, 8 << 20),
        });
        let flags = vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER;
        let pool = vk::CommandPoolCreateInfo::default().queue_family_index(family).flags(flags);
        // SAFETY: the device is alive; the same below.
        let pool = unsafe { device.create_command_pool(&pool, None) }.expect("a pool");
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        // SAFETY: as above.
        let frames = unsafe { device.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None) };
        Self {
            messages,
            expects_messages: false,
            messenger: (messengers, messenger),
            physical,
            device,
            enabled,
            family,
            queue,
            lock: Arc::default(),
            allocator: Some(Arc::new(Mutex::new(allocator.expect("an allocator")))),
            pool,
            frames: frames.expect("a timeline"),
            frame: Mutex::new(0),
            instance,
            _entry: entry,
        }
    }

    pub fn slot(&self) -> QueueSlot {
        QueueSlot { family: self.family, index: 0 }
    }

    /// What it lends: its queue, which it goes on using, and its allocator.
    pub fn lends(&self) -> EngineDevice<'_> {
        self.lends_on(EngineQueue::shared(self.queue, self.slot(), self.lock.clone()))
    }

    pub fn lends_on(&self, queue: EngineQueue) -> EngineDevice<'_> {
        let (instance, enabled) = ((&self.instance, VERSION), self.enabled.clone());
        let mut engine = EngineDevice::new(instance, self.physical, &self.device, enabled, queue);
        engine.allocator = self.allocator.clone();
        (engine.debug_names, engine.validated) = (true, true);
        engine
    }

    /// A buffer in the engine's own memory.
    pub fn buffer(&self) -> (vk::Buffer, Allocation) {
        let info = vk::BufferCreateInfo::default().size(256).usage(vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: the device is alive; the same below.
        let buffer = unsafe { self.device.create_buffer(&info, None) }.expect("a buffer");
        // SAFETY: as above.
        let requirements = unsafe { self.device.get_buffer_memory_requirements(buffer) };
        let (location, allocation_scheme) = (MemoryLocation::GpuToCpu, AllocationScheme::GpuAllocatorManaged);
        let desc =
            AllocationCreateDesc { name: "the engine's", requirements, location, linear: true, allocation_scheme };
        let allocation = self.allocator.as_ref().unwrap().lock().unwrap().allocate(&desc).expect("memory");
        // SAFETY: the memory is the allocation's for as long as that lives.
        let memory = unsafe { allocation.memory() };
        // SAFETY: the memory was made for the buffer.
        unsafe { self.device.bind_buffer_memory(buffer, memory, allocation.offset()) }.expect("bound");
        (buffer, allocation)
    }

    pub fn free(&self, (buffer, allocation): (vk::Buffer, Allocation)) {
        // SAFETY: the engine has waited for what used it.
        unsafe { self.device.destroy_buffer(buffer, None) };
        self.allocator.as_ref().unwrap().lock().unwrap().free(allocation).expect("freed");
    }

    /// A command buffer that is being recorded.
    pub fn begin(&self) -> vk::CommandBuffer {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: one thread at a time uses the pool.
        let commands = unsafe { self.device.allocate_command_buffers(&info) }.expect("a command buffer")[0];
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: it is new.
        unsafe { self.device.begin_command_buffer(commands, &info) }.expect("recording");
        commands
    }

    /// The value that the next submission signals.
    pub fn next_frame(&self) -> u64 {
        *self.frame.lock().unwrap() + 1
    }

    /// Submits a command buffer under the queue's lock.
    pub fn submit(&self, commands: vk::CommandBuffer) {
        // SAFETY: it is being recorded.
        unsafe { self.device.end_command_buffer(commands) }.expect("recorded");
        let mut frame = self.frame.lock().unwrap();
        *frame += 1;
        let (signalled, commands, frames) = ([*frame], [commands], [self.frames]);
        let mut values = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&signalled);
        let info = vk::SubmitInfo::default().command_buffers(&commands).signal_semaphores(&frames);
        let info = [info.push_next(&mut values)];
        // SAFETY: the handles are alive, and the lock is held.
        self.lock.hold(&mut || unsafe { self.device.queue_submit(self.queue, &info, vk::Fence::null()) }.unwrap());
    }

    /// Waits for all that it submitted.
    pub fn rest(&self) {
        let (frames, values) = ([self.frames], [*self.frame.lock().unwrap()]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&frames).values(&values);
        // SAFETY: the semaphore is alive.
        unsafe { self.device.wait_semaphores(&info, 20_000_000_000) }.expect("the engine's queue goes on");
    }

    /// One frame of its own: fills a buffer and looks at it.
    pub fn draws(&self, target: &(vk::Buffer, Allocation), word: u32) {
        let commands = self.begin();
        // SAFETY: it is being recorded, and the buffer is alive.
        unsafe { self.device.cmd_fill_buffer(commands, target.0, 0, vk::WHOLE_SIZE, word) };
        let barrier = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ | vk::AccessFlags::TRANSFER_WRITE)];
        let (from, to) =
            (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST | vk::PipelineStageFlags::TRANSFER);
        // SAFETY: it is being recorded.
        unsafe {
            self.device.cmd_pipeline_barrier(commands, from, to, vk::DependencyFlags::empty(), &barrier, &[], &[]);
        }
        self.submit(commands);
        self.rest();
        assert_eq!(target.1.mapped_slice().expect("mapped")[..4], word.to_le_bytes());
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: all submissions were waited for, and whoever borrowed the device has gone.
        unsafe { self.device.destroy_semaphore(self.frames, None) };
        // SAFETY: as above.
        unsafe { self.device.destroy_command_pool(self.pool, None) };
        drop(self.allocator.take());
        // SAFETY: as above; what taskring left behind would be heard here.
        unsafe { self.device.destroy_device(None) };
        // SAFETY: nothing speaks any more but the instance.
        unsafe { self.messenger.0.destroy_debug_utils_messenger(self.messenger.1, None) };
        // SAFETY: everything of it is gone.
        unsafe { self.instance.destroy_instance(None) };
        if !std::thread::panicking() && !self.expects_messages {
            assert_eq!(*self.messages.lock().unwrap(), [""; 0], "the validation layer complains");
        }
    }
}
