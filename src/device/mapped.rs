//! Mapped memory: the only file that touches it.
//!
//! # Why atomics
//! The GPU reads and writes this memory while the host does, and so may several host threads. Plain accesses would be
//! data races, and volatile ones too: Rust treats a volatile access as a plain one where threads are concerned, and no
//! fence orders it. So **every access is a relaxed (or stronger) atomic access of one aligned 32-bit word**, in bulk
//! copies as well: words are never torn, and any ordering is made with the fences of [`std::sync::atomic`]. A relaxed
//! atomic load or store is one plain instruction on every supported processor. What is lost is wide vectors: a 64-byte
//! line that is copied in cache takes 5 ns instead of 1.5 (x86-64, a virtual machine), which no bus keeps up with.
//!
//! [`AtomicU32::from_ptr`] makes a reference for the length of one access. It is a reference to a cell, which promises
//! neither immutability nor exclusiveness; references to plain data are never made here. One function copies plainly, into memory that is the
//! caller's alone until it publishes it ([`Mapped::write_unshared`]).
//!
//! # What a copy promises
//! Each word of a copy is whole; the copy is not. Publish what was written with a later store, after [`store_fence`];
//! read only what such a store has published, and after an acquire.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Pod;

use crate::BackendError;

/// Bytes of a word, the unit of every access.
const WORD: u64 = 4;

/// A window of mapped memory that belongs to one buffer.
///
/// Offsets and lengths are in bytes and multiples of 4. Never read a mailbox: reads of memory on the far side of PCIe
/// take a microsecond a word.
#[derive(Debug)]
pub struct Mapped {
    base: NonNull<u32>,
    bytes: u64,
    name: String,
}

// SAFETY: the pointer is valid from any thread for as long as the buffer lives, which owns this window.
unsafe impl Send for Mapped {}
// SAFETY: every access through a shared reference is atomic, but for an unsafe one whose callers keep others away: none race.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Takes over a mapping and clears it.
    ///
    /// # Safety
    /// `base` is aligned to 4 and valid for reads and writes of `bytes` for as long as the window exists. During this
    /// call nobody else accesses it, GPU included; afterwards, in this program, only the window does.
    pub(super) unsafe fn new(base: NonNull<c_void>, bytes: u64, name: &str) -> Self {
        // SAFETY: the caller's promise covers all the bytes, and an exclusive access now. Mapped, so they fit `usize`.
        unsafe { base.cast::<u8>().write_bytes(0, bytes as usize) };
        Self { base: base.cast(), bytes, name: name.to_owned() }
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Loads one word.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] past the end, [`BackendError::BadOption`] if the offset is no multiple of 4.
    ///
    /// # Panics
    /// As [`AtomicU32::load`]: if the ordering is one of stores.
    pub fn load(&self, offset: u64, order: Ordering) -> Result<u32, BackendError> {
        let first = self.range(offset, WORD)?;
        // SAFETY: `range` has checked this word.
        Ok(unsafe { self.word(first) }.load(order))
    }

    /// Stores one word.
    ///
    /// # Errors
    /// As [`Mapped::load`].
    ///
    /// # Panics
    /// As [`AtomicU32::store`]: if the ordering is one of loads.
    pub fn store(&self, offset: u64, value: u32, order: Ordering) -> Result<(), BackendError> {
        let first = self.range(offset, WORD)?;
        // SAFETY: `range` has checked this word.
        unsafe { self.word(first) }.store(value, order);
        Ok(())
    }

    /// Copies bytes out, word by word in ascending order.
    ///
    /// # Errors
    /// As [`Mapped::load`]; the length must be a multiple of 4 too.
    #[inline]
    pub fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), BackendError> {
        let first = self.range(offset, target.len() as u64)?;
        for (index, bytes) in target.as_chunks_mut().0.iter_mut().enumerate() {
            // SAFETY: `range` has checked all the words of the target's length.
            *bytes = unsafe { self.word(first + index) }.load(Ordering::Relaxed).to_ne_bytes();
        }
        Ok(())
    }

    /// Copies bytes in, word by word in ascending order.
    ///
    /// # Errors
    /// As [`Mapped::load`]; the length must be a multiple of 4 too.
    pub fn write(&self, offset: u64, source: &[u8]) -> Result<(), BackendError> {
        let first = self.range(offset, source.len() as u64)?;
        for (index, bytes) in source.as_chunks().0.iter().enumerate() {
            // SAFETY: `range` has checked all the words of the source's length.
            unsafe { self.word(first + index) }.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies bytes in as fast as the processor can: in no particular order, and no word is atomic.
    ///
    /// # Safety
    /// Until a later store, after [`store_fence`], has published these bytes, no other thread accesses them, and the GPU uses nothing of what it may
    /// find there.
    ///
    /// # Errors
    /// As [`Mapped::load`]; the length must be a multiple of 4 too.
    pub(crate) unsafe fn write_unshared(&self, offset: u64, source: &[u8]) -> Result<(), BackendError> {
        let first = self.range(offset, source.len() as u64)?;
        // SAFETY: `range` has checked all the words of the source's length.
        let target = unsafe { self.base.add(first) };
        // SAFETY: the target is mapped, as `range` has checked, and the caller's alone.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target.as_ptr().cast::<u8>(), source.len()) };
        Ok(())
    }

    /// Reads a value of plain data.
    ///
    /// # Errors
    /// As [`Mapped::read`].
    #[inline]
    pub fn read_pod<T: Pod>(&self, offset: u64) -> Result<T, BackendError> {
        let mut value = T::zeroed();
        self.read(offset, bytemuck::bytes_of_mut(&mut value))?;
        Ok(value)
    }

    /// Values that lie side by side, in ascending order; each is read when it is asked for, and not before.
    ///
    /// # Errors
    /// As [`Mapped::read`], for all of them.
    #[inline]
    pub(crate) fn each<T: Pod>(&self, offset: u64, count: usize) -> Result<impl Iterator<Item = T>, BackendError> {
        const { assert!(size_of::<T>().is_multiple_of(WORD as usize), "whole words") };
        // More than there can be, if it is more than fits.
        let first = self.range(offset, (count as u64).saturating_mul(size_of::<T>() as u64) / WORD * WORD)?;
        let words = size_of::<T>() / WORD as usize;
        Ok((0..count).map(move |value| {
            let mut target = T::zeroed();
            for (index, bytes) in bytemuck::bytes_of_mut(&mut target).as_chunks_mut().0.iter_mut().enumerate() {
                // SAFETY: `range` has checked all the words of all the values.
                *bytes = unsafe { self.word(first + value * words + index) }.load(Ordering::Relaxed).to_ne_bytes();
            }
            target
        }))
    }

    /// Writes a value of plain data.
    ///
    /// # Errors
    /// As [`Mapped::write`].
    pub fn write_pod<T: Pod>(&self, offset: u64, value: &T) -> Result<(), BackendError> {
        self.write(offset, bytemuck::bytes_of(value))
    }

    /// One word, as a cell that anybody may change at any time.
    ///
    /// # Safety
    /// The index is below `bytes / 4`.
    #[inline]
    unsafe fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the caller keeps the index inside the mapping.
        let word = unsafe { self.base.add(index) };
        // SAFETY: `new` was promised that the word is aligned and mapped, and that all accesses are made here: atomic.
        unsafe { AtomicU32::from_ptr(word.as_ptr()) }
    }

    /// The first word of a range that was checked.
    #[inline]
    fn range(&self, offset: u64, bytes: u64) -> Result<usize, BackendError> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if inside && offset.is_multiple_of(WORD) && bytes.is_multiple_of(WORD) {
            // A mapped offset fits `usize`.
            return Ok((offset / WORD) as usize);
        }
        Err(self.refusal(offset, bytes))
    }

    /// Why a range was refused.
    #[cold]
    fn refusal(&self, offset: u64, bytes: u64) -> BackendError {
        let must = "a multiple of 4";
        if !offset.is_multiple_of(WORD) {
            return BackendError::BadOption { option: "offset of a mapped access", value: offset, must };
        }
        if !bytes.is_multiple_of(WORD) {
            return BackendError::BadOption { option: "length of a mapped access", value: bytes, must };
        }
        BackendError::OutOfRange { name: self.name.clone(), offset, bytes, size: self.bytes }
    }
}

/// Orders every store before it, stores to mapped memory included, before every store after it, as a GPU sees them.
///
/// A release fence is not enough: on x86-64 it emits no instruction, and stores to write-combining memory, which
/// mailboxes are, may pass each other. Elsewhere a sequentially consistent fence is the strongest there is in Rust.
#[inline]
pub fn store_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE, which is all that the instruction needs.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
    std::sync::atomic::fence(if cfg!(target_arch = "x86_64") { Ordering::Release } else { Ordering::SeqCst });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window over ordinary memory, which Miri can follow.
    struct Window {
        mapped: Mapped,
        memory: *mut [u32],
    }

    impl Window {
        fn new(words: usize) -> Self {
            let memory = Box::into_raw(vec![0xdead_beef; words].into_boxed_slice());
            let base = NonNull::new(memory.cast::<c_void>()).unwrap_or(NonNull::dangling());
            // SAFETY: the words are leaked until `drop`, aligned, and nobody else has the pointer.
            let mapped = unsafe { Mapped::new(base, words as u64 * WORD, "test") };
            Self { mapped, memory }
        }
    }

    impl Drop for Window {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `Box::into_raw` and is used no more.
            drop(unsafe { Box::from_raw(self.memory) });
        }
    }

    #[test]
    fn a_new_window_is_cleared_to_its_last_word() {
        let window = Window::new(5);
        let mut bytes = [1; 20];
        assert_eq!(window.mapped.read(0, &mut bytes), Ok(()));
        assert_eq!(bytes, [0; 20]);
    }

    #[test]
    fn values_side_by_side_are_read_when_they_are_asked_for_and_refused_where_one_lies_outside() {
        let window = Window::new(7);
        assert_eq!(window.mapped.write(4, bytemuck::cast_slice(&[1, 2, 3, 4, 5, 6])), Ok(()));
        let mut pairs = window.mapped.each::<[u32; 2]>(4, 3).unwrap();
        assert_eq!(pairs.next(), Some([1, 2]));
        assert_eq!(window.mapped.store(12, 9, Ordering::Relaxed), Ok(()));
        assert_eq!(pairs.collect::<Vec<_>>(), [[9, 4], [5, 6]]);
        assert!(window.mapped.each::<[u32; 2]>(8, 3).is_err() && window.mapped.each::<[u32; 2]>(2, 1).is_err());
        assert!(window.mapped.each::<[u32; 4]>(0, 1 << 60).is_err(), "more bytes than a number has");
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_changes() {
        let window = Window::new(6);
        let value = [0x1122_3344_u32, 0x5566_7788];
        assert_eq!(window.mapped.write_pod(8, &value), Ok(()));
        assert_eq!(window.mapped.read_pod(8), Ok(value));
        assert_eq!(window.mapped.read_pod(0), Ok([0, 0, value[0], value[1], 0, 0]));
        assert_eq!(window.mapped.store(20, 9, Ordering::Release), Ok(()));
        assert_eq!(window.mapped.load(20, Ordering::Acquire), Ok(9));
    }

    #[test]
    fn the_host_memory_that_is_copied_need_not_be_aligned() {
        let window = Window::new(4);
        let source = [7_u8, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(window.mapped.write(4, &source[1..]), Ok(()));
        let mut target = [0; 9];
        assert_eq!(window.mapped.read(4, &mut target[1..]), Ok(()));
        assert_eq!(target[1..], source[1..]);
    }

    #[test]
    fn an_access_that_leaves_the_window_is_refused_whole() {
        let window = Window::new(4);
        let out = |offset, bytes| BackendError::OutOfRange { name: "test".into(), offset, bytes, size: 16 };
        assert_eq!(window.mapped.write(12, &[1; 8]), Err(out(12, 8)));
        assert_eq!(window.mapped.load(12, Ordering::Relaxed), Ok(0));
        assert_eq!(window.mapped.load(16, Ordering::Relaxed), Err(out(16, 4)));
        assert_eq!(window.mapped.store(u64::MAX - 3, 1, Ordering::Relaxed), Err(out(u64::MAX - 3, 4)));
        assert_eq!(window.mapped.read(16, &mut []), Ok(()));
    }

    #[test]
    fn an_access_that_splits_a_word_is_refused() {
        let window = Window::new(4);
        assert!(matches!(window.mapped.load(2, Ordering::Relaxed), Err(BackendError::BadOption { value: 2, .. })));
        assert!(matches!(window.mapped.write(0, &[0; 7]), Err(BackendError::BadOption { value: 7, .. })));
    }

    #[test]
    fn several_threads_may_use_one_window() {
        let window = Window::new(1024);
        let mapped = &window.mapped;
        std::thread::scope(|scope| {
            for thread in 0..2_u32 {
                scope.spawn(move || {
                    (0..1024).all(|index| mapped.store(index * WORD, thread, Ordering::Relaxed).is_ok())
                });
            }
        });
        assert!((0..1024).all(|index| mapped.load(index * WORD, Ordering::Relaxed).is_ok_and(|word| word < 2)));
    }
}
