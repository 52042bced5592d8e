//! What one does without taskring on the device's side: dispatches that are recorded beforehand, of which the device decides the sizes at most.

use std::ffi::CStr;
use std::time::Instant;

use taskring::{Buffer, BufferDesc, Device, MemoryKind, vk};

use crate::kernel::Kernel;
use crate::{Error, On, Run, Submissions, Variant};

/// What [`independent`] measures.
pub(super) const INDEPENDENT: [&str; 3] = [
    "as many empty dispatches, recorded in one command buffer, with no barrier between them",
    "the same with vkCmdDispatchIndirect, all sizes written by a kernel before",
    "device-generated commands",
];
/// What [`chained`] measures.
pub(super) const CHAINED: [&str; 3] = [
    "as many empty dispatches, recorded in one command buffer, with a barrier between each two",
    "the same with vkCmdDispatchIndirect, each dispatch writing the next one's size",
    "device-generated commands",
];

/// Writes sizes of one workgroup; none if `count` is 0.
const SIZES: &str = "#version 460
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 64) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint word[]; };
layout(push_constant, std430) uniform Push { Words sizes; uint first; uint count; } push;
void main() {
    for (uint i = gl_GlobalInvocationID.x; i < 3u * push.count; i += 64u * gl_NumWorkGroups.x)
        push.sizes.word[3u * push.first + i] = 1u;
}";
/// Bytes of one `VkDispatchIndirectCommand`.
const SIZE_BYTES: u64 = 12;

/// Dispatches that have nothing to do with one another.
pub(super) fn independent(run: &mut Run<'_>, number: impl Fn(f64, f64) -> f64) -> Result<(), Error> {
    dispatches(run, "recorded dispatches, no barrier", Sizes::Recorded { barriers: false }, &number)?;
    dispatches(run, "indirect dispatches, sizes written by a kernel before", Sizes::WrittenBefore, &number)?;
    generated(run)
}

/// Dispatches of which each sees what the one before it wrote.
pub(super) fn chained(run: &mut Run<'_>, number: impl Fn(f64, f64) -> f64) -> Result<(), Error> {
    dispatches(run, "recorded dispatches, a barrier between each two", Sizes::Recorded { barriers: true }, &number)?;
    dispatches(run, "indirect dispatches, each writes the next one's size", Sizes::WrittenByTheOneBefore, &number)?;
    generated(run)
}

/// Who says how large a dispatch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizes {
    Recorded { barriers: bool },
    WrittenBefore,
    WrittenByTheOneBefore,
}

fn dispatches(run: &mut Run<'_>, name: &str, sizes: Sizes, number: impl Fn(f64, f64) -> f64) -> Result<(), Error> {
    let count: u32 = if run.is_cpu() { 500 } else { run.size().pick(2_000, 5_000, 10_000) };
    let mut submissions = record(run.device(), sizes, count)?;
    run.repeat(Variant::alternative(format!("{name}, {count}")), || {
        let start = Instant::now();
        submissions.submit()?;
        submissions.poll()?;
        Ok(number(f64::from(count), start.elapsed().as_secs_f64()))
    })
}

fn record(device: &Device, sizes: Sizes, count: u32) -> Result<Submissions, Error> {
    let buffer = device.allocate(BufferDesc {
        name: "sizes of dispatches",
        bytes: SIZE_BYTES * u64::from(count + 1),
        kind: MemoryKind::Private,
        usage: vk::BufferUsageFlags::INDIRECT_BUFFER,
        shared: false,
    })?;
    let (address, raw) = (buffer.address(), buffer.raw());
    let kernel = Kernel::new(device, SIZES, 16)?;
    Submissions::recorded(kernel, vec![buffer], On::Slices, |kernel, commands| {
        let record = Recording { kernel, commands, sizes: raw, address };
        // The submission before may still read its sizes.
        record.barrier();
        match sizes {
            Sizes::Recorded { barriers } => (0..count).for_each(|_| {
                record.dispatch(0, 0);
                if barriers {
                    record.barrier();
                }
            }),
            Sizes::WrittenBefore => {
                record.dispatch(0, count);
                record.barrier();
                (0..count).for_each(|n| record.dispatch_indirect(n, 0));
            }
            Sizes::WrittenByTheOneBefore => {
                record.dispatch(0, 1);
                (0..count).for_each(|n| {
                    record.barrier();
                    record.dispatch_indirect(n, 1);
                });
            }
        }
    })
}

/// A command buffer that [`Submissions::recorded`] has begun.
struct Recording<'a> {
    kernel: &'a Kernel,
    commands: vk::CommandBuffer,
    sizes: vk::Buffer,
    address: u64,
}

impl Recording<'_> {
    /// Who comes next writes `count` sizes from `first` on.
    fn bind(&self, first: u32, count: u32) {
        let mut push = [0; 16];
        push[..8].copy_from_slice(&self.address.to_le_bytes());
        push[8..12].copy_from_slice(&first.to_le_bytes());
        push[12..].copy_from_slice(&count.to_le_bytes());
        // SAFETY: the command buffer is being recorded, and the kernel was made for 16 bytes.
        unsafe { self.kernel.bind(self.commands, &push) };
    }

    fn dispatch(&self, first: u32, count: u32) {
        self.bind(first, count);
        // SAFETY: the pipeline is bound, and the buffer that it is pushed has room for these sizes and lives as long as the commands.
        unsafe { self.kernel.device().raw().cmd_dispatch(self.commands, 1, 1, 1) };
    }

    /// Takes size `n`, and writes the `next` ones after it.
    fn dispatch_indirect(&self, n: u32, next: u32) {
        self.bind(n + 1, next);
        let offset = SIZE_BYTES * u64::from(n);
        // SAFETY: as above; the size was written before, behind a barrier.
        unsafe { self.kernel.device().raw().cmd_dispatch_indirect(self.commands, self.sizes, offset) };
    }

    /// What comes next sees all that was written before, as data and as sizes.
    fn barrier(&self) {
        use vk::{AccessFlags as Access, PipelineStageFlags as Stage};
        let uses = Access::SHADER_READ | Access::SHADER_WRITE | Access::INDIRECT_COMMAND_READ;
        let memory = [vk::MemoryBarrier::default().src_access_mask(Access::SHADER_WRITE).dst_access_mask(uses)];
        let (stages, flags) = (Stage::COMPUTE_SHADER | Stage::DRAW_INDIRECT, vk::DependencyFlags::empty());
        let raw = self.kernel.device().raw();
        // SAFETY: the command buffer is being recorded, outside of any render pass, and the stages are ones of a compute queue.
        unsafe { raw.cmd_pipeline_barrier(self.commands, stages, stages, flags, &memory, &[], &[]) };
    }
}

/// Says why device-generated commands are not measured.
fn generated(run: &mut Run<'_>) -> Result<(), Error> {
    let (instance, physical) = (run.device().instance(), run.device().physical_device());
    // SAFETY: the physical device is the instance's, and both live.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) };
    let extensions = extensions.map_err(crate::kernel::failed("vkEnumerateDeviceExtensionProperties"))?;
    let has = |name: &&CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(*name));
    let known = [c"VK_EXT_device_generated_commands", c"VK_NV_device_generated_commands_compute"];
    let reason = match known.into_iter().find(has) {
        Some(name) => format!("the device has {}, which taskring's device is made without", name.to_string_lossy()),
        None => "the device has no extension for them".into(),
    };
    run.skip(Variant::alternative("device-generated commands"), reason);
    Ok(())
}

/// Writes rows of 16 bytes.
const RECORDS: &str = "#version 460
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Rows { uvec4 row[]; };
layout(push_constant, std430) uniform Push { Rows rows; uint count; } push;
void main() {
    for (uint i = gl_GlobalInvocationID.x; i < push.count; i += 256u * gl_NumWorkGroups.x)
        push.rows.row[i] = uvec4(i + 1u, 0u, 0u, 0u);
}";

/// What nothing that reports each task can beat: a kernel that does nothing but write records where the host can read them, all its lanes side by
/// side.
pub(super) fn records(run: &mut Run<'_>, count: u32, bytes: u32) -> Result<(), Error> {
    let rows = count * (bytes / 16);
    let (name, usage) = ("records", vk::BufferUsageFlags::empty());
    let desc = BufferDesc { name, bytes: u64::from(rows) * 16, kind: MemoryKind::Report, usage, shared: false };
    let buffer: Buffer = run.device().allocate(desc)?;
    let mut push = [0; 12];
    push[..8].copy_from_slice(&buffer.address().to_le_bytes());
    push[8..].copy_from_slice(&rows.to_le_bytes());
    let kernel = Kernel::new(run.device(), RECORDS, 12)?;
    let mut submissions = Submissions::recorded(kernel, vec![buffer], On::Slices, |kernel, commands| {
        let raw = kernel.device().raw();
        let barrier = |from: (vk::PipelineStageFlags, vk::AccessFlags),
                       to: (vk::PipelineStageFlags, vk::AccessFlags)| {
            let memory = [vk::MemoryBarrier::default().src_access_mask(from.1).dst_access_mask(to.1)];
            // SAFETY: the command buffer is being recorded, outside of any render pass, and the stages are ones of a compute queue.
            unsafe {
                raw.cmd_pipeline_barrier(commands, from.0, to.0, vk::DependencyFlags::empty(), &memory, &[], &[]);
            };
        };
        let writes = (vk::PipelineStageFlags::COMPUTE_SHADER, vk::AccessFlags::SHADER_WRITE);
        // The submission before writes the same records.
        barrier(writes, writes);
        // SAFETY: the command buffer is being recorded, and the kernel was made for 12 bytes.
        unsafe { kernel.bind(commands, &push) };
        // SAFETY: the pipeline is bound, and the buffer that it is pushed has room for the rows and lives as long as the commands.
        unsafe { raw.cmd_dispatch(commands, rows.div_ceil(256).min(65_535), 1, 1) };
        barrier(writes, (vk::PipelineStageFlags::HOST, vk::AccessFlags::HOST_READ));
    })?;
    let name = format!("the ceiling: {count} records of {bytes} bytes, written by a kernel that does nothing else");
    run.repeat(Variant::alternative(name), || {
        let start = Instant::now();
        submissions.submit()?;
        submissions.poll()?;
        let took = start.elapsed();
        let last = submissions.word(0, u64::from(rows - 1) * 16)?;
        if last != rows {
            return Err(Error::Wrong { what: format!("the last record says {last}, not {rows}") });
        }
        Ok(f64::from(count) / took.as_secs_f64())
    })
}
