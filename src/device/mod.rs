//! The Vulkan device: what it must offer, which one is taken, and what taskring makes on it.
//!
//! Planning is split from acting. [`DeviceFacts`] is a snapshot of a physical device as plain data; [`plan`] says from
//! it alone whether and how taskring runs there, and [`choose`] ranks several. Both are pure and tested without a GPU.
//! [`Device::new`] then does what the plan says, and nothing else in the crate decides about extensions or features.
//!
//! # Who validates what
//! Safe functions of this module check what Rust can see: ranges, alignment, timelines that would go back. Functions
//! that take raw handles are `unsafe`: the caller vouches for them. Whether the calls are *valid Vulkan* is left to the
//! validation layer, which [`DeviceOptions::validation`] turns on and [`Device::validation_log`] reads back.
//!
//! # An engine's device
//! [`Requirements`] says what to enable before the device exists, and merges it into what the engine creates it with. [`Device::borrow`] takes the
//! engine's handles and [what is enabled](Enabled), and plans with that and nothing more.
//!
//! # Who owns what
//! [`Device`] is a handle to shared state that destroys, in its order, what it owns. Code outside this module never
//! assumes that the instance, the device or the queue is taskring's own, never waits for the device to be idle, and
//! keeps a clone of [`Device`] in everything that has to be destroyed before it. Buffers and timelines do that by
//! themselves.

mod borrow;
mod cache;
mod chains;
mod context;
mod facts;
mod fault;
mod features;
mod instance;
mod loss;
mod mapped;
mod memory;
mod plan;
mod queues;
#[cfg(test)]
pub(crate) mod recorded;
mod requirements;
mod selftest;
mod timeline;

pub use borrow::{EngineDevice, EngineQueue, QueueLock};
pub use context::{Device, DeviceOptions, PipelineDesc};
pub use facts::{
    DeviceFacts, FeatureFacts, LimitFacts, MemoryHeapFacts, MemoryTypeFacts, QueueFamilyFacts, SubgroupFacts,
};
pub use fault::{FaultAddress, FaultDetail, FaultReport};
pub use features::FeatureStructs;
pub use instance::ValidationLog;
pub use mapped::{Mapped, store_fence};
pub use memory::{Buffer, BufferDesc, MemoryKind};
pub use plan::{DevicePlan, DeviceSelector, QueueSlot, SizeControl, choose, plan};
pub use queues::QueueRole;
pub use requirements::{Enabled, Feature, Miss, Requirements};
pub use selftest::{BadRecord, Loops, MemoryClass, MemoryOutcome, Probe, Residency, RoundTrip, SelfTest};
pub use timeline::Timeline;
pub(crate) use timeline::nap;
