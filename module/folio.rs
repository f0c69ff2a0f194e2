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
use kernel::{alloc::AllocError, bindings, prelude::*, types::Opaque};

/// How memory is allocated: with which flags, and by whose memory policy, which says on which nodes.
///
/// # Invariants
///
/// The area, if there is one, is locked for 'a: the mmap lock is held, or its own.
#[derive(Clone, Copy)]
pub(crate) struct Alloc<'a> {
    gfp: bindings::gfp_t,
    /// The area whose policy holds, and for which address of it; else that of the running task.
    place: Option<(&'a Opaque<bindings::vm_area_struct>, usize)>,
}

impl<'a> Alloc<'a> {
    /// By the policy of the running task.
    pub(crate) fn new(gfp: bindings::gfp_t) -> Self {
        // INVARIANT: There is no area.
        Self { gfp, place: None }
    }

    /// By the policy of an area for an address of it (`get_vma_policy`), which is that of the running task if
    /// the area has none.
    ///
    /// # Safety
    ///
    /// The area is valid, and locked for 'a.
    pub(crate) unsafe fn within(
        gfp: bindings::gfp_t,
        area: &'a Opaque<bindings::vm_area_struct>,
        address: usize,
    ) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            gfp,
            place: Some((area, address)),
        }
    }

    /// The flags.
    pub(crate) fn gfp(&self) -> bindings::gfp_t {
        self.gfp
    }

    /// The same for an allocation that may well fail, as there is a way without it: no effort, no word, and
    /// nobody is killed for it.
    pub(crate) fn optional(self) -> Self {
        // SAFETY: It only computes.
        let gfp = unsafe { helpers::vmalab_gfp_optional(self.gfp) };
        // INVARIANT: The area is the same.
        Self { gfp, ..self }
    }
}

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
    pub(crate) fn zeroed(how: Alloc<'_>, order: u32) -> Result<Self, AllocError> {
        if order > Self::MAX_ORDER {
            return Err(AllocError);
        }
        let gfp = how.gfp | bindings::__GFP_ZERO;
        // SAFETY: They may be called with any flags that the context allows; a flag that sleeps where
        // that is forbidden is a bug, but not unsound. By the invariants of `Alloc`, the area is valid, and
        // its policy does not change.
        let raw = unsafe {
            match how.place {
                Some((area, at)) => helpers::vmalab_vma_alloc_folio(gfp, order, area.get(), at),
                None => helpers::vmalab_folio_alloc(gfp, order),
            }
        };
        let folio = NonNull::new(raw).ok_or(AllocError)?;
        // SAFETY: The folio is new: nobody else knows it.
        unsafe { helpers::vmalab_folio_mark_uptodate_new(raw) };
        // INVARIANT: The allocation comes with one reference.
        Ok(Self(folio))
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

    /// Whether memory of it has failed (`memory_failure`): of a large one, which could not be split then,
    /// any.
    pub(crate) fn has_failed(&self) -> bool {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_folio_has_failed(self.as_ptr()) }
    }

    /// Whether the memory of the page at `index` of a page cache, which is in this folio, has failed, so that
    /// nobody must look at it any more.
    pub(crate) fn page_has_failed(&self, index: usize) -> bool {
        // SAFETY: By the type invariants, the folio is alive.
        unsafe { helpers::vmalab_page_has_failed(self.as_ptr(), index) }
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
