// SPDX-License-Identifier: GPL-2.0-only

//! A ring of records of a fixed size, which user space can map.
//!
//! The pages are, in this order: one for the reader's position (the tail), which user space may write
//! to; one for what the kernel says ([`vmalab_ring`](crate::uapi::vmalab_ring) has the layout); the
//! records. All of it is atomic words: user space can read the ring at any moment, and write what it
//! likes to the first page. Nothing that is read from there is trusted, and nothing that the kernel needs is
//! kept there alone.
//!
//! There is no lock here. One writer at a time is the caller's concern: see `watch.rs`.

use crate::{
    folio::Folio,
    helpers,
    uapi::{vmalab_ring, vmalab_ring_tail}, //
};
use core::{mem::offset_of, ptr::NonNull};
use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Relaxed, Release},
};
use zerocopy::FromZeros;

const WORDS_OF_PAGE: usize = PAGE_SIZE / size_of::<u64>();

/// A ring of records of `WORDS` words.
pub(crate) struct Ring<const WORDS: usize> {
    /// Whole pages.
    memory: VVec<Atomic<u64>>,
    /// A power of two.
    records: usize,
}

impl<const WORDS: usize> Ring<WORDS> {
    /// Where the first record is, from the begin of the structure that the kernel's page is.
    const DATA_OFFSET: usize = PAGE_SIZE;

    const TAIL: usize = offset_of!(vmalab_ring_tail, tail) / size_of::<u64>();
    const HEAD: usize = WORDS_OF_PAGE + offset_of!(vmalab_ring, head) / size_of::<u64>();
    const LOST: usize = WORDS_OF_PAGE + offset_of!(vmalab_ring, lost) / size_of::<u64>();

    /// Makes a ring for `records` records, which is rounded up to a power of two. It is charged to the
    /// memory cgroup of the running task.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn new(records: usize) -> Result<Self> {
        let records = records.checked_next_power_of_two().ok_or(ENOMEM)?;
        let words = records
            .checked_mul(WORDS)
            .and_then(|words| words.checked_next_multiple_of(WORDS_OF_PAGE))
            .and_then(|words| words.checked_add(2 * WORDS_OF_PAGE))
            .ok_or(ENOMEM)?;
        let mut memory = VVec::with_capacity(words, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..words {
            // Each word of each page, so that user space sees nothing that was there before.
            memory.push(Atomic::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        let ring = Self { memory, records };
        let page = vmalab_ring {
            records: records as u32,
            record_size: (WORDS * size_of::<u64>()) as u32,
            data_offset: Self::DATA_OFFSET as u32,
            ..vmalab_ring::new_zeroed()
        };
        ring.store(WORDS_OF_PAGE, page.as_bytes());
        Ok(ring)
    }

    /// For how many records there is room.
    pub(crate) fn records(&self) -> u64 {
        self.records as u64
    }

    /// The size of all of it in bytes: whole pages.
    pub(crate) fn size(&self) -> usize {
        self.memory.len() * size_of::<u64>()
    }

    /// The reader's position. User space may have put anything there.
    ///
    /// What the reader read before it went on has been read when this returns.
    pub(crate) fn tail(&self) -> u64 {
        self.memory[Self::TAIL].load(Acquire)
    }

    /// Moves the reader's position, for a reader in the kernel.
    pub(crate) fn set_tail(&self, tail: u64) {
        self.memory[Self::TAIL].store(tail, Release);
    }

    /// Writes the record at a position. Readers do not look there until [`publish`](Self::publish).
    pub(crate) fn write(&self, position: u64, record: &[u64; WORDS]) {
        let words = self.at(position);
        // As `store` with `Relaxed` for each, but that would be a call for each.
        // SAFETY: There are as many words in both. Those of the ring are accessed as whole words only, here
        // too.
        unsafe { helpers::vmalab_write_words(words[0].as_ptr(), record.as_ptr(), words.len()) };
    }

    /// Reads the record at a position. If that is overwritten at the same time, which happens only if
    /// user space moves the tail meanwhile, it is a mixture.
    pub(crate) fn read(&self, position: u64) -> [u64; WORDS] {
        let mut record = [0; WORDS];
        for (value, word) in record.iter_mut().zip(self.at(position)) {
            *value = word.load(Relaxed);
        }
        record
    }

    /// Tells readers that all before `head` is written.
    pub(crate) fn publish(&self, head: u64) {
        self.memory[Self::HEAD].store(head, Release);
    }

    /// Tells readers how many records were lost.
    pub(crate) fn publish_lost(&self, lost: u64) {
        self.memory[Self::LOST].store(lost, Relaxed);
    }

    fn at(&self, position: u64) -> &[Atomic<u64>] {
        let first = 2 * WORDS_OF_PAGE + (position as usize & (self.records - 1)) * WORDS;
        &self.memory[first..first + WORDS]
    }

    fn store(&self, first: usize, bytes: &[u8]) {
        for (word, bytes) in self.memory[first..].iter().zip(bytes.chunks_exact(8)) {
            let mut value = [0; 8];
            value.copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(value), Relaxed);
        }
    }

    /// One of the pages, to be mapped. It outlives the ring if it still is mapped then.
    pub(crate) fn page(&self, index: usize) -> Option<Folio> {
        if index >= self.memory.len() / WORDS_OF_PAGE {
            return None;
        }
        // SAFETY: It is an address of memory of vmalloc, which lives as long as `self`. Each page of such
        // memory is one of its own, with a reference count.
        let folio = unsafe {
            let address = self.memory.as_ptr().byte_add(index * PAGE_SIZE);
            helpers::vmalab_page_folio_get(bindings::vmalloc_to_page(address.cast()))
        };
        // SAFETY: The reference was just taken, for this.
        NonNull::new(folio).map(|folio| unsafe { Folio::from_raw(folio) })
    }
}
