//! Completion records as the host reads them: 16 bytes in a ring, and the counts that go with some of them.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use super::mailbox::lap;
use super::memory::Memory;
use super::slices::host;
use crate::abi::{self, CompletionCounts, CompletionRecord};
use crate::device::Mapped;
use crate::error::BackendError;

/// Bytes of a record.
const RECORD: u64 = size_of::<CompletionRecord>() as u64;

/// How a task ended, as the device tells it: a record that was found whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    record: CompletionRecord,
    counts: CompletionCounts,
}

impl End {
    pub(super) fn ticket(&self) -> u32 {
        self.record.ticket
    }

    /// The slot of its task, if there is one.
    pub(super) fn slot(&self) -> usize {
        (self.record.ticket & abi::TR_INDEX_MASK) as usize
    }

    pub(super) fn continuation_data(&self) -> u32 {
        self.record.continuation_data
    }

    pub(super) fn is_faulted(&self) -> bool {
        self.record.lap & abi::TR_RECORD_FAULTED != 0
    }

    /// All 0 if nothing was counted of it.
    pub(super) fn counts(&self) -> CompletionCounts {
        self.counts
    }
}

/// What the completion ring and the counts of all slots take together.
pub(super) fn bytes(capacity: u32) -> u64 {
    u64::from(capacity) * (RECORD + size_of::<CompletionCounts>() as u64)
}

fn is_whole(record: &CompletionRecord) -> bool {
    let CompletionRecord { lap, ticket, continuation_data, check } = record;
    let sum = lap.wrapping_mul(abi::TR_CHECK_LAP).wrapping_add(ticket.wrapping_mul(abi::TR_CHECK_TICKET));
    sum.wrapping_add(continuation_data.wrapping_mul(abi::TR_CHECK_DATA)) == *check
}

/// The word's upper bits are the lap's lower ones.
fn is_of_lap(word: u32, lap: u32) -> bool {
    word >> abi::TR_RECORD_LAP_SHIFT == lap << abi::TR_RECORD_LAP_SHIFT >> abi::TR_RECORD_LAP_SHIFT
}

/// The completion ring, as the host looks at it.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    mapped: &'a Mapped,
    capacity: u32,
}

impl<'a> Ring<'a> {
    pub(super) fn of(memory: &'a Memory) -> Result<Self, BackendError> {
        Ok(Self { mapped: host(&memory.completions)?, capacity: memory.capacity })
    }

    /// Whether the record at this position may have been written. It says nothing of what was written before it.
    pub(super) fn comes(self, position: u32) -> Result<bool, BackendError> {
        let at = u64::from(position & (self.capacity - 1)) * RECORD;
        let word = self.mapped.load(at, Relaxed)?;
        Ok(is_of_lap(word, lap(self.capacity, position)))
    }

    /// Reads the records from this position on that this lap has written, as many as fit. Their number.
    pub(super) fn read(self, position: u32, into: &mut [End]) -> Result<usize, BackendError> {
        let (lap, first) = (lap(self.capacity, position), position & (self.capacity - 1));
        let most = into.len().min((self.capacity - first) as usize);
        let records = self.mapped.each::<CompletionRecord>(u64::from(first) * RECORD, most)?;
        let mut count = 0;
        for (end, record) in into.iter_mut().zip(records) {
            if !is_of_lap(record.lap, lap) || !is_whole(&record) {
                break;
            }
            *end = End { record, counts: CompletionCounts::default() };
            count += 1;
            if record.lap & abi::TR_RECORD_COUNTED != 0 {
                // Pairs with the kernel's release before it stored the record.
                fence(Acquire);
                end.counts = self.counts(record.ticket & abi::TR_INDEX_MASK)?;
            }
        }
        // Pairs with the same of all the others.
        fence(Acquire);
        Ok(count)
    }

    fn counts(self, slot: u32) -> Result<CompletionCounts, BackendError> {
        let behind = u64::from(self.capacity) * RECORD;
        self.mapped.read_pod(behind + u64::from(slot) * size_of::<CompletionCounts>() as u64)
    }
}

/// The end of this task, of which nothing else is known.
#[cfg(test)]
pub(super) fn end(ticket: u32) -> End {
    End { record: CompletionRecord { ticket, ..CompletionRecord::default() }, counts: CompletionCounts::default() }
}

/// A record as the kernel makes it.
#[cfg(test)]
pub(super) fn whole(lap: u32, ticket: u32, continuation_data: u32) -> CompletionRecord {
    let product = |word: u32, factor: u32| word.wrapping_mul(factor);
    let (lap_part, ticket_part) = (product(lap, abi::TR_CHECK_LAP), product(ticket, abi::TR_CHECK_TICKET));
    let check = lap_part.wrapping_add(ticket_part).wrapping_add(product(continuation_data, abi::TR_CHECK_DATA));
    CompletionRecord { lap, ticket, continuation_data, check }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_of_which_one_word_is_still_the_old_one_is_not_whole(
            new in any::<[u32; 3]>(),
            old in any::<[u32; 4]>(),
            stale in 0..4usize,
        ) {
            let record = whole(new[0], new[1], new[2]);
            prop_assert!(is_whole(&record));
            let mut words: [u32; 4] = bytemuck::cast(record);
            prop_assume!(words[stale] != old[stale]);
            words[stale] = old[stale];
            prop_assert!(!is_whole(&bytemuck::cast(words)));
        }
    }

    #[test]
    fn memory_that_was_cleared_holds_no_record_of_any_lap() {
        assert!((1..1 << 12).all(|lap| !is_of_lap(0, lap)));
        assert!(is_of_lap(5 << abi::TR_RECORD_LAP_SHIFT | abi::TR_RECORD_FAULTED, 5));
        assert!(!is_of_lap(5 << abi::TR_RECORD_LAP_SHIFT, 6));
    }
}
