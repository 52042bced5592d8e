//! The runtime's buffers, by who writes them, and the push constants that lead the kernel to them.

use bytemuck::{Pod, Zeroable};

use super::options::RuntimeOptions;
use super::record;
use crate::abi::{self, TaskWorkItem};
use ash::vk;

use crate::device::{Buffer, BufferDesc, Device, MemoryKind};
use crate::error::BackendError;

/// Bytes of a control line, and the lines before those of the rings, as `memory.glsl` lays them out.
const CONTROL_LINE: u64 = 128;
const CONTROL_LINES: u64 = 40;
/// Slices that may be pending at once: one runs, one follows it without the host.
pub(super) const SLICES: usize = 2;
/// Bytes from one slice's launch or exit record to the next one's: lines of their own.
const RECORD_STRIDE: u64 = 256;

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
    pub lines: u64,
    pub tickets: u64,
    pub launch: u64,
    pub bell: u64,
    pub tenants: u64,
    pub buffers: u64,
    pub completions: u64,
    pub marks: u64,
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
    // Mailbox: the host writes, the device reads.
    pub(super) lines: Buffer,
    pub(super) tickets: Buffer,
    pub(super) launch: Buffer,
    pub(super) bell: Buffer,
    pub(super) tenants: Buffer,
    pub(super) buffers: Buffer,
    // Report: the device writes, the host reads.
    pub(super) completions: Buffer,
    pub(super) marks: Buffer,
    pub(super) exit_record: Buffer,
    pub(super) trace: Buffer,
    /// Where slots and metas are copied to when the host asks for them.
    pub(super) inspection: Buffer,
}

/// Where the launch and exit records of the slice in this place are.
pub(super) fn record_offset(place: usize) -> u64 {
    place as u64 * RECORD_STRIDE
}

/// Where the epoch of a timeline is in the doorbell's buffer, as the host writes it.
pub(super) fn epoch_offset(timeline: u32) -> u64 {
    u64::from(abi::TR_BELL_WORDS) * 4 + size::<abi::EpochWord>(timeline)
}

/// And as command buffers write it.
pub(super) fn carried_offset(timeline: u32) -> u64 {
    u64::from(abi::TR_BELL_CARRIED) * 4 + size::<abi::EpochWord>(timeline)
}

/// Where it is said whether a slot's task is cancelled.
pub(super) fn cancel_offset(slot: u32) -> u64 {
    (u64::from(abi::TR_BELL_SLOTS) + u64::from(slot)) * 4
}

const _: () = assert!(abi::TR_BELL_CARRIED == abi::TR_BELL_WORDS + 4 * abi::TR_TIMELINES);
const _: () = assert!(abi::TR_BELL_SLOTS == abi::TR_BELL_CARRIED + 4 * abi::TR_TIMELINES);

/// The heads of all wait lists, and a bit for each.
fn wheel_words(capacity: u32) -> u32 {
    let lists = abi::TR_WHEEL_BUCKETS * abi::wheel_lists(capacity);
    lists + lists / u32::BITS
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
                // Engines write epochs from queues of other families.
                shared: kind == MemoryKind::Mailbox,
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
            wheel: make("wheel", private, size::<u32>(wheel_words(capacity)))?,
            lines: make("submission ring", mailbox, slots)?,
            tickets: make("tickets", mailbox, size::<[u32; 2]>(capacity))?,
            launch: make("launches", mailbox, SLICES as u64 * RECORD_STRIDE)?,
            bell: make("doorbell", mailbox, cancel_offset(capacity))?,
            tenants: make("tenants", mailbox, size::<u32>(options.tenants))?,
            buffers: make("buffer table", mailbox, size::<abi::BufferEntry>(options.buffers))?,
            completions: make("completion ring", report, record::bytes(capacity))?,
            marks: make("line marks", report, size::<u32>(capacity))?,
            exit_record: make("exit records", report, SLICES as u64 * RECORD_STRIDE)?,
            trace: make("trace", report, size::<abi::TraceRecord>(options.trace_capacity.max(1)))?,
            inspection: make("inspection", report, slots + metas)?,
        })
    }

    /// What the slice in this place of [`SLICES`] is pushed.
    pub(super) fn push(&self, place: usize) -> Push {
        Push {
            control: self.control.address(),
            slots: self.slots.address(),
            metas: self.metas.address(),
            rings: self.rings.address(),
            wheel: self.wheel.address(),
            lines: self.lines.address(),
            tickets: self.tickets.address(),
            launch: self.launch.address() + record_offset(place),
            bell: self.bell.address(),
            tenants: self.tenants.address(),
            buffers: self.buffers.address(),
            completions: self.completions.address(),
            marks: self.marks.address(),
            exit_record: self.exit_record.address() + record_offset(place),
            trace: self.trace.address(),
            capacity_log2: self.capacity.trailing_zeros(),
            padding: 0,
        }
    }

    /// The mailboxes that a running slice looks at, and the reports that the host looks at meanwhile.
    pub(super) fn talking(&self) -> ([&Buffer; 5], [&Buffer; 2]) {
        let mailboxes = [&self.lines, &self.tickets, &self.bell, &self.tenants, &self.buffers];
        (mailboxes, [&self.completions, &self.marks])
    }

    /// What each private buffer is filled with before the first slice, and after one that was cut.
    pub(super) fn fills(&self) -> [(&Buffer, u32); 5] {
        [(&self.control, 0), (&self.slots, 0), (&self.metas, 0), (&self.rings, 0), (&self.wheel, abi::TR_NIL)]
    }
}
