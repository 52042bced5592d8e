//! Tasks that the host has cancelled, until they have ended.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{Memory, cancel_offset};
use super::slices::host;
use crate::abi;
use crate::error::BackendError;

#[derive(Debug, Default)]
pub(super) struct Cancels {
    /// The slots of cancelled tasks, and the tickets.
    tickets: BTreeMap<u32, u32>,
    /// How often tasks were cancelled, wrapping.
    calls: u32,
    /// Slots of which the mailbox does not say yet what is above.
    changed: BTreeSet<u32>,
}

impl Cancels {
    /// These tasks, which have not ended, are to end.
    pub(super) fn add(&mut self, tickets: impl IntoIterator<Item = u32>) {
        for ticket in tickets {
            let slot = ticket & abi::TR_INDEX_MASK;
            self.tickets.insert(slot, ticket);
            self.changed.insert(slot);
        }
        self.calls = self.calls.wrapping_add(1);
    }

    /// Whether the mailbox says all of it.
    pub(super) fn are_written(&self) -> bool {
        self.changed.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// A task has ended, and its slot may be another's soon.
    pub(super) fn ended(&mut self, ticket: u32) {
        let slot = ticket & abi::TR_INDEX_MASK;
        if self.tickets.remove(&slot).is_some() {
            self.changed.insert(slot);
        }
    }

    /// Writes what has changed to the mailbox.
    pub(super) fn write(&mut self, memory: &Memory) -> Result<(), BackendError> {
        let changed = std::mem::take(&mut self.changed);
        let bell = host(&memory.bell)?;
        for slot in &changed {
            let cancelled = |ticket: &u32| abi::TR_CANCEL | ticket >> abi::TR_TICKET_GENERATION_SHIFT;
            bell.write_pod(cancel_offset(*slot), &self.tickets.get(slot).map_or(0, cancelled))?;
        }
        Ok(())
    }

    /// What the doorbell says of them: how often, and how many.
    pub(super) fn words(&self) -> [(u32, u32); 2] {
        [(abi::TR_BELL_CANCELS, self.calls), (abi::TR_BELL_CANCELLING, self.tickets.len() as u32)]
    }
}
