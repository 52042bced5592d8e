//! The runtime's buffers, by who writes them, and the push constants that lead the kernel to them.

use bytemuck::{Pod, Zeroable};

use super::options::RuntimeOptions;
use crate::abi::{self, TaskWorkItem};
use ash::vk;

use crate::device::{Buffer, BufferDesc, Device, MemoryKind};
use crate::error::BackendError;

/// Timelines that the flags word can name.
pub(super) const MAX_TIMELINES: u32 = 256;
/// Bytes of a control line, and the lines before those of the rings, as `memory.glsl` lays them out.
const CONTROL_LINE: u64 = 128;
const CONTROL_LINES: u64 = 7;

/// What the kernel is pushed: the twin of `TrPush` in `memory.glsl`, compared by a test.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs, reason = "one pointer for each buffer of the same name in `Memory`")]
pub struct Push {
    pub control: u64,
    pub slots: u64,
    pub metas: u64,
    pub rings: u64,
    pub wheel: u64,
    pub wakes: u64,
    pub lines: u64,
    pub tickets: u64,
    pub launch: u64,
    pub epochs: u64,
    pub tenants: u64,
    pub buffers: u64,
    pub completions: u64,
    pub exit_record: u64,
    pub trace: u64,
    pub capacity_log2: u32,
    // The block ends at byte 124; this fills the struct to a multiple of its alignment and is not pushed.
    pub padding: u32,
}

impl Push {
    /// Bytes that are pushed.
    pub(super) const BYTES: u32 = 124;

    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::bytes_of(self)[..Self::BYTES as usize]
    }
}

/// All buffers of a runtime.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) capacity: u32,
    // Private: the device's alone.
    pub(super) control: Buffer,
    pub(super) slots: Buffer,
    pub(super) metas: Buffer,
    pub(super) rings: Buffer,
    pub(super) wheel: Buffer,
    pub(super) wakes: Buffer,
    // Mailbox: the host writes, the device reads.
    pub(super) lines: Buffer,
    pub(super) tickets: Buffer,
    pub(super) launch: Buffer,
    pub(super) epochs: Buffer,
    pub(super) tenants: Buffer,
    pub(super) buffers: Buffer,
    // Report: the device writes, the host reads.
    pub(super) completions: Buffer,
    pub(super) exit_record: Buffer,
    pub(super) trace: Buffer,
    /// Where slots and metas are copied to when the host asks for them.
    pub(super) inspection: Buffer,
}

fn size<T>(count: u32) -> u64 {
    u64::from(count) * size_of::<T>() as u64
}

impl Memory {
    pub(super) fn new(device: &Device, options: &RuntimeOptions, shards: u32) -> Result<Self, BackendError> {
        let make = |name: &str, kind, bytes| {
            device.allocate(BufferDesc {
                name: &format!("taskring {name}"),
                bytes,
                kind,
                usage: vk::BufferUsageFlags::empty(),
            })
        };
        let capacity = options.capacity;
        let (private, mailbox, report) = (MemoryKind::Private, MemoryKind::Mailbox, MemoryKind::Report);
        let slots = size::<TaskWorkItem>(capacity);
        let metas = size::<abi::SlotMeta>(capacity);
        let rings = abi::TASK_PRIORITIES * shards;
        Ok(Self {
            capacity,
            control: make("control", private, (CONTROL_LINES + 2 * u64::from(rings)) * CONTROL_LINE)?,
            slots: make("slots", private, slots)?,
            metas: make("metas", private, metas)?,
            rings: make("rings", private, u64::from(rings) * size::<[u32; 2]>(capacity))?,
            wheel: make("wheel", private, size::<u32>(abi::TR_WHEEL_BUCKETS * abi::TR_WHEEL_LISTS))?,
            wakes: make("wakes", private, size::<abi::WakeState>(MAX_TIMELINES))?,
            lines: make("submission ring", mailbox, slots)?,
            tickets: make("tickets", mailbox, size::<u32>(capacity))?,
            launch: make("launch", mailbox, size::<abi::SliceLaunch>(1))?,
            epochs: make("epochs", mailbox, size::<abi::EpochWord>(MAX_TIMELINES))?,
            tenants: make("tenants", mailbox, size::<u32>(options.tenants))?,
            buffers: make("buffer table", mailbox, size::<abi::BufferEntry>(options.buffers))?,
            completions: make("completion ring", report, size::<abi::CompletionRecord>(capacity))?,
            exit_record: make("exit record", report, size::<abi::SliceExit>(1))?,
            trace: make("trace", report, size::<abi::TraceRecord>(options.trace_capacity.max(1)))?,
            inspection: make("inspection", report, slots + metas)?,
        })
    }

    pub(super) fn push(&self) -> Push {
        Push {
            control: self.control.address(),
            slots: self.slots.address(),
            metas: self.metas.address(),
            rings: self.rings.address(),
            wheel: self.wheel.address(),
            wakes: self.wakes.address(),
            lines: self.lines.address(),
            tickets: self.tickets.address(),
            launch: self.launch.address(),
            epochs: self.epochs.address(),
            tenants: self.tenants.address(),
            buffers: self.buffers.address(),
            completions: self.completions.address(),
            exit_record: self.exit_record.address(),
            trace: self.trace.address(),
            capacity_log2: self.capacity.trailing_zeros(),
            padding: 0,
        }
    }

    /// What each private buffer is filled with before the first slice, and after one that was cut.
    pub(super) fn fills(&self) -> [(&Buffer, u32); 6] {
        [
            (&self.control, 0),
            (&self.slots, 0),
            (&self.metas, 0),
            (&self.rings, 0),
            (&self.wakes, 0),
            (&self.wheel, abi::TR_NIL),
        ]
    }
}
