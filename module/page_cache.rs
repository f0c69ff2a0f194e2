// SPDX-License-Identifier: GPL-2.0-only

//! A page cache of one's own: pages by index, up to a size, that areas can map.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)
//!
//! All opens of one device node share the node's inode, and with it one `address_space`. So a driver
//! with separate memory behind each open needs an inode for each, and has the open file's `f_mapping`
//! point to it (the block layer does so, and the graphics drivers). `misc.rs` does the pointing. Then
//!
//! - the areas of the file are in the list of *this* inode, so that pages can be taken out of all
//!   areas of one object and of no other;
//! - the pages are charged to the memory cgroup of who touches them first, as file memory;
//! - what looks a page up by inode and index works: futexes shared between processes, mincore, page
//!   migration, write tracking;
//! - what asks the inode for its size gets the right one: the kernel maps a large folio at once only
//!   if it ends before the size of `f_mapping->host`.
//!
//! Pages are never written out, swapped or reclaimed: they stay until the size shrinks below them or
//! the cache is dropped.
//!
//! # Lock order
//!
//! From the outside to the inside:
//!
//! 1. the mmap lock of a process, or the lock of an area (held by the caller of a fault), *or* the
//!    lock of the inode (taken by [`PageCache::resize`]): never the one inside the other;
//! 2. `invalidate_lock` of the cache: shared in a fault, exclusive in [`PageCache::resize`];
//! 3. `i_mmap_rwsem` of the cache (the kernel's, while it unmaps), or the lock of a folio;
//! 4. the lock of the page table; the lock of the index (`i_pages`).
//!
//! As copying to or from user memory may fault, and thus take 1 and 2, nothing is copied under any of
//! them.
//!
//! # Shrinking against faults
//!
//! [`PageCache::resize`] writes the new size first. Then it unmaps what is past it from all areas,
//! removes the pages, each under its lock, and unmaps again (`truncate_pagecache`). A fault that runs
//! at the same time either
//!
//! - comes to the invalidate lock later: it sees the new size, and there is no page;
//! - came earlier: its page is in the cache, and locked until it is in the page table. The removal
//!   waits for the lock and then finds it mapped, and unmaps it;
//! - came earlier, on behalf of a write to a private mapping: its page was copied, and the copy is in
//!   the page table, or comes there. The second unmapping takes it out.

#![allow(dead_code, reason = "a driver uses the part of this that it needs")]

use crate::{
    folio::{Folio, LockedFolio},
    helpers,
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    page::PAGE_SIZE,
    prelude::*,
    types::ScopeGuard, //
};

/// What the kernel's memory management may do with the pages.
static OPERATIONS: bindings::address_space_operations = bindings::address_space_operations {
    // The flag is enough: nothing is ever written anywhere.
    dirty_folio: Some(bindings::noop_dirty_folio),
    // Moving the contents is all that there is to moving a page.
    migrate_folio: Some(bindings::filemap_migrate_folio),
    ..pin_init::zeroed()
};

/// A page cache with an anonymous inode around it.
///
/// # Invariants
///
/// `inode` is an inode from `vmalab_anon_inode`, and this holds a reference to it.
pub(crate) struct PageCache {
    inode: NonNull<bindings::inode>,
}

// SAFETY: A reference to an inode belongs to no thread.
unsafe impl Send for PageCache {}
// SAFETY: All methods take the locks that they need.
unsafe impl Sync for PageCache {}

impl PageCache {
    /// Makes an empty cache of size 0.
    ///
    /// # Errors
    ///
    /// ENOMEM, or what a security module says to a new anonymous inode.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The operations are a static. The module outlives the inode, since an inode lives
        // no longer than the `PageCache`.
        let inode = from_err_ptr(unsafe { helpers::vmalab_anon_inode(&OPERATIONS) })?;
        // INVARIANT: That is where it comes from, with a reference.
        Ok(Self {
            inode: NonNull::new(inode).ok_or(ENOMEM)?,
        })
    }

    /// The address by which the kernel knows the cache, for as long as `self` lives.
    pub(crate) fn as_ptr(&self) -> *mut bindings::address_space {
        // SAFETY: By the type invariants, the inode is valid; the field does not change.
        unsafe { (*self.inode.as_ptr()).i_mapping }
    }

    /// The size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: By the type invariants, the inode is valid. A size is never negative.
        unsafe { helpers::vmalab_i_size_read(self.inode.as_ptr()) as u64 }
    }

    /// How many pages are in the cache.
    fn pages(&self) -> usize {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_nrpages(self.as_ptr()) }
    }

    /// Changes the size, in bytes, and says how many pages that removed. Pages past the new end are
    /// gone when this returns, from the cache and from all areas.
    ///
    /// # Errors
    ///
    /// EFBIG if the kernel has no way to express the size.
    pub(crate) fn resize(&self, size: u64) -> Result<usize> {
        let size = bindings::loff_t::try_from(size).map_err(|_| EFBIG)?;
        let _inode = self.inode_lock();
        let _invalidate = self.invalidate_lock();

        // Pages are added only under the shared lock, so that the difference is what went away.
        let before = self.pages();
        // SAFETY: By the type invariants, the inode is valid. Its lock is held, as the function
        // wants it, and the invalidate lock, which keeps faults away.
        unsafe { bindings::truncate_setsize(self.inode.as_ptr(), size) };
        Ok(before.saturating_sub(self.pages()))
    }

    /// The page at `index`, locked. It is allocated and zeroed if it was not there, and charged to the
    /// memory cgroup of the running task; `added` is called then, while the page cannot be removed.
    ///
    /// # Errors
    ///
    /// ENXIO past the end, ENOMEM.
    pub(crate) fn lock_page(
        &self,
        index: usize,
        gfp: bindings::gfp_t,
        added: impl FnOnce(),
    ) -> Result<LockedFolio> {
        let _invalidate = self.invalidate_lock_shared();

        if index as u64 >= self.size().div_ceil(PAGE_SIZE as u64) {
            return Err(ENXIO);
        }
        loop {
            if let Some(folio) = self.find(index) {
                return Ok(folio);
            }
            match self.add(index, gfp) {
                Ok(folio) => {
                    added();
                    return Ok(folio);
                }
                // Another fault was faster.
                Err(error) if error == EEXIST => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn find(&self, index: usize) -> Option<LockedFolio> {
        // SAFETY: `as_ptr` is valid.
        let raw = unsafe { helpers::vmalab_filemap_lock_folio(self.as_ptr(), index) };
        let raw = NonNull::new(from_err_ptr(raw).ok()?)?;
        // SAFETY: On success the function gives a reference, and the lock.
        Some(unsafe { LockedFolio::from_locked(Folio::from_raw(raw)) })
    }

    fn add(&self, index: usize, gfp: bindings::gfp_t) -> Result<LockedFolio> {
        let folio = Folio::zeroed(gfp)?;
        // SAFETY: The cache and the folio are valid, and the folio is new and not locked. On success
        // the cache has taken a reference of its own, and the folio is locked for us.
        unsafe {
            to_result(bindings::filemap_add_folio(
                self.as_ptr(),
                folio.as_ptr(),
                index,
                gfp,
            ))?;
            Ok(LockedFolio::from_locked(folio))
        }
    }

    fn inode_lock(&self) -> impl Drop + '_ {
        // SAFETY: By the type invariants, the inode is valid.
        unsafe { helpers::vmalab_inode_lock(self.inode.as_ptr()) };
        ScopeGuard::new(|| {
            // SAFETY: It was taken just above.
            unsafe { helpers::vmalab_inode_unlock(self.inode.as_ptr()) }
        })
    }

    fn invalidate_lock(&self) -> impl Drop + '_ {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_lock(self.as_ptr()) };
        ScopeGuard::new(|| {
            // SAFETY: It was taken just above.
            unsafe { helpers::vmalab_filemap_invalidate_unlock(self.as_ptr()) }
        })
    }

    fn invalidate_lock_shared(&self) -> impl Drop + '_ {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_lock_shared(self.as_ptr()) };
        ScopeGuard::new(|| {
            // SAFETY: It was taken just above.
            unsafe { helpers::vmalab_filemap_invalidate_unlock_shared(self.as_ptr()) }
        })
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the reference is ours. It is the last one, with which the
        // kernel removes all pages.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}
