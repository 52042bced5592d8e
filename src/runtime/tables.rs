//! Tenants, registered buffers and epochs: what the host decides and the device looks up. In live mode changes are written to the mailbox at
//! once, in boundary mode between slices.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use super::cancels::Cancels;
use super::mailbox::Mailbox;
use super::memory::Memory;
use super::slices::host;
use super::task::BufferHandle;
use super::timelines::Timelines;
use crate::abi::{self, BufferEntry, TaskState, TaskWorkItem};
use crate::device::{Buffer, store_fence};
use crate::error::{BackendError, TaskProblem};

/// Generations that a handle can tell apart, from 1.
const GENERATIONS: u32 = 0xfff;

#[derive(Debug)]
pub(super) struct Tables {
    tenants: Vec<bool>,
    buffers: Vec<BufferEntry>,
    /// The generation that each buffer entry had last, from 1; 0 if it was never used.
    generations: Vec<u32>,
    /// What a registered buffer's entry keeps alive; nothing for a raw address.
    kept: Vec<Option<Arc<Buffer>>>,
    free: Vec<u32>,
    changed: Changed,
    pub(super) timelines: Timelines,
    pub(super) cancels: Cancels,
    /// The number of signals that the doorbell has.
    rung: u32,
    /// Fault injection: changes that the doorbell does not tell of.
    missed: u32,
}

/// What the mailbox does not say yet, by index.
#[derive(Debug, Default)]
struct Changed {
    tenants: BTreeSet<usize>,
    buffers: BTreeSet<usize>,
}

impl Tables {
    pub(super) fn new(tenants: u32, buffers: u32, missed: u32) -> Self {
        Self {
            tenants: vec![true; tenants as usize],
            buffers: vec![BufferEntry::default(); buffers as usize],
            generations: vec![0; buffers as usize],
            kept: vec![None; buffers as usize],
            free: (0..buffers).rev().collect(),
            changed: Changed { tenants: (0..tenants as usize).collect(), ..Changed::default() },
            timelines: Timelines::new(),
            cancels: Cancels::default(),
            rung: 0,
            missed,
        }
    }

    pub(super) fn tenants(&self) -> u32 {
        len(&self.tenants)
    }

    pub(super) fn buffers(&self) -> u32 {
        len(&self.buffers)
    }

    pub(super) fn set_tenant(&mut self, tenant: u32, enabled: bool) -> Result<(), BackendError> {
        let count = self.tenants();
        let entry = self.tenants.get_mut(tenant as usize).ok_or(BackendError::UnknownTenant { tenant, count })?;
        *entry = enabled;
        self.changed.tenants.insert(tenant as usize);
        Ok(())
    }

    /// Registers part of a buffer, which is kept until it is unregistered.
    pub(super) fn register(
        &mut self,
        tenant: u32,
        buffer: &Arc<Buffer>,
        range: Range<u64>,
    ) -> Result<BufferHandle, BackendError> {
        let length = range.end.saturating_sub(range.start);
        if length == 0 || range.end > buffer.bytes() {
            let (offset, size) = (range.start, buffer.bytes());
            return Err(BackendError::OutOfRange { name: "registered range".into(), offset, bytes: length, size });
        }
        if !range.start.is_multiple_of(4) || !length.is_multiple_of(4) {
            return Err(BackendError::BadOption {
                option: "range",
                value: range.start | length,
                must: "a multiple of 4 bytes",
            });
        }
        self.register_address(tenant, buffer.address() + range.start, length / 4, Some(buffer.clone()))
    }

    pub(super) fn register_address(
        &mut self,
        tenant: u32,
        address: u64,
        words: u64,
        kept: Option<Arc<Buffer>>,
    ) -> Result<BufferHandle, BackendError> {
        let count = self.tenants();
        if tenant >= count {
            return Err(BackendError::UnknownTenant { tenant, count });
        }
        // SPIR-V takes an index for a signed number.
        let limit = BackendError::BadOption { option: "words", value: words, must: "less than 2^31" };
        let words = u32::try_from(words).ok().filter(|words| *words < 1 << 31).ok_or(limit)?;
        let full = BackendError::BadOption {
            option: "buffers",
            value: self.buffers().into(),
            must: "more: all entries are in use",
        };
        let index = self.free.pop().ok_or(full)?;
        let generation = self.generations[index as usize] % GENERATIONS + 1;
        self.generations[index as usize] = generation;
        let (address_lo, address_hi) = (address as u32, (address >> 32) as u32);
        // Of a raw address nobody knows.
        let host_reads = kept.as_ref().is_none_or(|buffer| buffer.mapped().is_some()).into();
        self.buffers[index as usize] =
            BufferEntry { address_lo, address_hi, words, tenant, generation, host_reads, ..BufferEntry::default() };
        self.kept[index as usize] = kept;
        self.changed.buffers.insert(index as usize);
        Ok(BufferHandle(generation << abi::TR_HANDLE_GENERATION_SHIFT | index))
    }

    fn find(&self, handle: u32) -> Option<(usize, &BufferEntry)> {
        let index = (handle & abi::TR_HANDLE_INDEX_MASK) as usize;
        let generation = handle >> abi::TR_HANDLE_GENERATION_SHIFT;
        let entry = self.buffers.get(index)?;
        (generation != 0 && entry.generation == generation).then_some((index, entry))
    }

    /// Forgets a buffer. What it kept alive is returned: the device may use it until the next boundary.
    pub(super) fn unregister(&mut self, handle: BufferHandle) -> Result<Option<Arc<Buffer>>, BackendError> {
        let (index, _) = self.find(handle.0).ok_or(BackendError::UnknownHandle { handle: handle.0 })?;
        self.buffers[index] = BufferEntry::default();
        self.free.push(index as u32);
        self.changed.buffers.insert(index);
        Ok(self.kept[index].take())
    }

    /// Whether two tasks are the same to [`Tables::problem`].
    pub(super) fn looks_like(one: &TaskWorkItem, other: &TaskWorkItem) -> bool {
        // All up to the output handle; what an op makes of the rest is its own.
        const LOOKED_AT: usize = offset_of!(TaskWorkItem, param);
        one.flags == other.flags && bytemuck::bytes_of(one)[..LOOKED_AT] == bytemuck::bytes_of(other)[..LOOKED_AT]
    }

    /// Keeps the registered buffers for ever: the device may still use them.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.kept));
    }

    /// What the host can see to be wrong with a task.
    pub(super) fn problem(&self, item: &TaskWorkItem, ops: u32) -> Option<TaskProblem> {
        let state = item.task_state();
        if !matches!(state, Some(TaskState::Ready | TaskState::Yielded | TaskState::Requeued | TaskState::Paused)) {
            return Some(TaskProblem::BadState { word: item.state });
        }
        if item.task_priority().is_none() {
            return Some(TaskProblem::BadPriority { word: item.priority });
        }
        if item.op_handle >= ops {
            return Some(TaskProblem::UnknownOp { op: item.op_handle, count: ops });
        }
        let tenant = item.tenant_id;
        if !self.tenants.get(tenant as usize).is_some_and(|enabled| *enabled) {
            return Some(TaskProblem::BadTenant { tenant, count: self.tenants() });
        }
        if let Some(problem) = self.timelines.problem(item) {
            return Some(problem);
        }
        let known = |handle| handle == 0 || self.find(handle).is_some_and(|(_, entry)| entry.tenant == tenant);
        let unknown = [item.input_handle, item.output_handle].into_iter().find(|handle| !known(*handle));
        unknown.map(|handle| TaskProblem::BadHandle { handle, tenant })
    }

    /// Writes what has changed to the mailbox, and what says so to the doorbell. In boundary mode only while no slice runs.
    pub(super) fn flush(&mut self, memory: &Memory, mailbox: &mut Mailbox) -> Result<(), BackendError> {
        let changed = std::mem::take(&mut self.changed);
        for index in changed.tenants {
            host(&memory.tenants)?.write_pod(4 * index as u64, &u32::from(self.tenants[index]))?;
        }
        for index in changed.buffers {
            let at = (index * size_of::<BufferEntry>()) as u64;
            host(&memory.buffers)?.write_pod(at, &self.buffers[index])?;
        }
        let open = self.tenants.iter().position(|enabled| !enabled).unwrap_or(self.tenants.len());
        mailbox.ring(memory, abi::TR_BELL_OPEN_TENANTS, open as u32)?;
        // A task that is published after this names a timeline or a buffer that the kernel knows: the fence before the tail orders them.
        self.timelines.ring_count(memory, mailbox)?;
        if !self.cancels.are_written() {
            self.cancels.write(memory)?;
            // Pairs with the tr_acquire after the kernel saw the number of cancels.
            store_fence();
        }
        for (word, value) in self.cancels.words() {
            mailbox.ring(memory, word, value)?;
        }
        // Behind all that: whoever sees an epoch sees which tasks were cancelled before it was signalled, and which tenants turned off (`tr_run_due`).
        self.timelines.write(memory)?;
        // Pairs with the tr_acquire after the kernel saw the number of signals.
        store_fence();
        let signals = self.timelines.signals();
        if std::mem::replace(&mut self.rung, signals) != signals && self.missed > 0 {
            self.missed -= 1;
            return Ok(());
        }
        mailbox.ring(memory, abi::TR_BELL_SIGNALS, signals)
    }
}

fn len<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::task::Task;

    fn tables() -> Tables {
        Tables::new(32, 2, 0)
    }

    #[test]
    fn a_handle_dies_with_its_registration_even_if_the_entry_is_used_again() {
        let mut tables = tables();
        let first = tables.register_address(0, 0x1000, 4, None).unwrap();
        tables.unregister(first).unwrap();
        let second = tables.register_address(0, 0x2000, 4, None).unwrap();
        assert_eq!(first.word() & abi::TR_HANDLE_INDEX_MASK, second.word() & abi::TR_HANDLE_INDEX_MASK);
        assert_ne!(first, second);
        let with = |handle| tables.problem(&Task::new(0).input(handle).item(), 1);
        assert_eq!(with(second), None);
        assert_eq!(with(first), Some(TaskProblem::BadHandle { handle: first.word(), tenant: 0 }));
        assert_eq!(tables.unregister(first).err(), Some(BackendError::UnknownHandle { handle: first.word() }));
    }

    #[test]
    fn generations_wrap_past_zero() {
        let mut tables = tables();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..GENERATIONS {
            let handle = tables.register_address(0, 0x1000, 1, None).unwrap();
            assert_ne!(handle.word(), 0);
            assert!(seen.insert(handle));
            tables.unregister(handle).unwrap();
        }
        assert!(
            seen.contains(&tables.register_address(0, 0x1000, 1, None).unwrap()),
            "the first generation comes again"
        );
    }

    #[test]
    fn another_tenants_buffer_is_a_bad_handle() {
        let mut tables = tables();
        let handle = tables.register_address(3, 0x1000, 4, None).unwrap();
        assert_eq!(tables.problem(&Task::new(0).tenant(3).output(handle).item(), 1), None);
        let other = tables.problem(&Task::new(0).tenant(4).output(handle).item(), 1);
        assert_eq!(other, Some(TaskProblem::BadHandle { handle: handle.word(), tenant: 4 }));
    }

    #[test]
    fn a_tenant_at_or_past_the_tables_end_is_refused() {
        let tables = tables();
        let refused = |tenant| tables.problem(&Task::new(0).tenant(tenant).item(), 1).is_some();
        assert_eq!([0, 31, 32, 33, u32::MAX].map(refused), [false, false, true, true, true]);
    }

    #[test]
    fn a_full_buffer_table_says_so() {
        let mut tables = tables();
        for _ in 0..2 {
            tables.register_address(0, 0x1000, 4, None).unwrap();
        }
        assert!(tables.register_address(0, 0x1000, 4, None).is_err());
    }
}
