// SPDX-License-Identifier: GPL-2.0-only

//! Folios: references to them, and their lock.
//!
//! C header: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h)

#![allow(dead_code, reason = "a driver uses the part of this that it needs")]

use crate::helpers;
use core::{
    mem::ManuallyDrop,
    ops::{Deref, Range},
    ptr::NonNull, //
};
use kernel::{alloc::AllocError, bindings, prelude::*};

/// A reference to a folio. Dropping it gives the reference back, and with the last one the memory.
///
/// # Invariants
///
/// The pointer is to a folio to which this holds one reference.
pub(crate) struct Folio(NonNull<bindings::folio>);

// SAFETY: A reference to a folio belongs to no thread.
unsafe impl Send for Folio {}
// SAFETY: What can be done through a shared reference is safe in parallel.
unsafe impl Sync for Folio {}

impl Folio {
    /// The order of the largest folio that a page cache takes and that one entry of the page table can
    /// stand for (`PMD_ORDER`).
    pub(crate) const MAX_ORDER: u32 = bindings::PMD_ORDER;

    /// Allocates a folio of 2 to the power of `order` pages, filled with zeros and marked as up to date.
    ///
    /// The allocator has no order larger than [`MAX_ORDER`](Self::MAX_ORDER).
    pub(crate) fn zeroed(gfp: bindings::gfp_t, order: u32) -> Result<Self, AllocError> {
        if order > Self::MAX_ORDER {
            return Err(AllocError);
        }
        // SAFETY: It may be called with any flags that the context allows; a flag that sleeps where
        // that is forbidden is a bug, but not unsound.
        let raw = unsafe { helpers::vmalab_folio_alloc(gfp | bindings::__GFP_ZERO, order) };
        let folio = NonNull::new(raw).ok_or(AllocError)?;
        // SAFETY: The folio is new: nobody else knows it.
        unsafe { helpers::vmalab_folio_mark_uptodate_new(raw) };
        // INVARIANT: The allocation comes with one reference.
        Ok(Self(folio))
    }

    /// The flags for an allocation that may well fail, as there is a way without it: no effort, no
    /// word, and nobody is killed for it.
    pub(crate) fn optional(gfp: bindings::gfp_t) -> bindings::gfp_t {
        // SAFETY: It only computes.
        unsafe { helpers::vmalab_gfp_optional(gfp) }
    }

    /// # Safety
    ///
    /// `raw` is a folio with a reference that the caller gives to this.
    pub(crate) unsafe fn from_raw(raw: NonNull<bindings::folio>) -> Self {
        // INVARIANT: The caller's promise.
        Self(raw)
    }

    /// Waits for the lock of the folio.
    pub(crate) fn lock(self) -> LockedFolio {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_folio_lock(self.as_ptr()) };
        // SAFETY: It was just locked.
        unsafe { LockedFolio::from_locked(self) }
    }

    /// How many pages it has: a power of two.
    pub(crate) fn pages(&self) -> usize {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_folio_nr_pages(self.as_ptr()) }
    }

    /// The number of its first page frame.
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_folio_pfn(self.as_ptr()) }
    }

    /// Which pages of its page cache it is, as offsets in pages, if it is in one. While it is not locked,
    /// it may leave the cache at any time.
    pub(crate) fn indices(&self) -> Range<usize> {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe {
            let first = helpers::vmalab_folio_index(self.as_ptr());
            first..first + helpers::vmalab_folio_nr_pages(self.as_ptr())
        }
    }

    /// The folio, for as long as `self` lives.
    pub(crate) fn as_ptr(&self) -> *mut bindings::folio {
        self.0.as_ptr()
    }

    /// The folio, and the reference with it.
    pub(crate) fn into_raw(self) -> *mut bindings::folio {
        ManuallyDrop::new(self).as_ptr()
    }
}

impl Clone for Folio {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_folio_get(self.as_ptr()) };
        // INVARIANT: The new one holds the reference that was just taken.
        Self(self.0)
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours to give back.
        unsafe { helpers::vmalab_folio_put(self.0.as_ptr()) };
    }
}

/// A reference to a folio that is locked by whoever holds this. Dropping it unlocks the folio.
///
/// # Invariants
///
/// The folio is locked, and the lock is ours.
pub(crate) struct LockedFolio(Folio);

impl LockedFolio {
    /// # Safety
    ///
    /// The folio is locked, and the lock is the caller's to give away.
    pub(crate) unsafe fn from_locked(folio: Folio) -> Self {
        // INVARIANT: The caller's promise.
        Self(folio)
    }

    /// Marks it as written to.
    pub(crate) fn mark_dirty(&self) {
        // SAFETY: By the type invariants, the folio is alive, and locked, so that it cannot be removed
        // from its page cache in the meantime.
        unsafe { bindings::folio_mark_dirty(self.0.as_ptr()) };
    }

    /// The reference, and the lock with it: it is the caller's to unlock now.
    pub(crate) fn into_locked(self) -> Folio {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped after the reference was moved out of it.
        unsafe { core::ptr::read(&this.0) }
    }
}

impl Deref for LockedFolio {
    type Target = Folio;

    fn deref(&self) -> &Folio {
        &self.0
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is ours; `self.0` still holds the folio.
        unsafe { bindings::folio_unlock(self.0.as_ptr()) };
    }
}
