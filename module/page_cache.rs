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
//!    lock of the inode ([`PageCache::lock`]): never the one inside the other;
//! 2. `invalidate_lock` of the cache: shared where a page is added, exclusive where pages are removed;
//! 3. `i_mmap_rwsem` of the cache (the kernel's, while it unmaps), or the lock of a folio;
//! 4. the lock of the page table; the lock of the index (`i_pages`).
//!
//! As copying to or from user memory may fault, and thus take 1 and 2, [`PageCache::read`] copies under
//! none of them. [`Locked::write`] copies under all of them, with page faults switched off: what is not
//! there then, [`fault_in`] gets, before the locks are taken again. So the buffer may be a mapping of the
//! very page.
//!
//! # Shrinking against faults
//!
//! [`Locked::resize`] writes the new size first. Then it unmaps what is past it from all areas,
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
    iov::{IovIterDest, IovIterSource},
    page::PAGE_SIZE,
    prelude::*,
    types::ScopeGuard, //
};

/// Who answers for the pages of a cache.
pub(crate) trait Account {
    /// So many pages are about to be added: an error forbids it.
    fn charge(&self, pages: usize) -> Result;

    /// So many pages are gone, or were not added after all.
    fn uncharge(&self, pages: usize);
}

/// A driver that has no limit and keeps no count.
impl Account for () {
    fn charge(&self, _pages: usize) -> Result {
        Ok(())
    }

    fn uncharge(&self, _pages: usize) {}
}

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

    /// Takes the lock under which the cache changes: its size, and what is written to it.
    ///
    /// The mmap lock must not be held, and no user memory be touched until the guard is dropped.
    pub(crate) fn lock(&self) -> Locked<'_> {
        // SAFETY: By the type invariants, the inode is valid.
        unsafe { helpers::vmalab_inode_lock(self.inode.as_ptr()) };
        // INVARIANT: It was taken just above.
        Locked(self)
    }

    /// The page at `index`, locked. It is allocated and zeroed if it was not there, and charged to
    /// `account` and to the memory cgroup of the running task.
    ///
    /// # Errors
    ///
    /// ENXIO past the end, ENOMEM, and those of `account`.
    pub(crate) fn lock_page(
        &self,
        index: usize,
        gfp: bindings::gfp_t,
        account: &impl Account,
    ) -> Result<LockedFolio> {
        let _invalidate = self.invalidate_lock_shared();

        if index as u64 >= self.size().div_ceil(PAGE_SIZE as u64) {
            return Err(ENXIO);
        }
        loop {
            if let Some(folio) = self.find(index) {
                return Ok(folio);
            }
            account.charge(1)?;
            match self.add(index, gfp) {
                Ok(folio) => return Ok(folio),
                Err(error) => {
                    account.uncharge(1);
                    // If it is there, another was faster.
                    if error != EEXIST {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Copies bytes from `at` on into `to`, up to the end, and says how many. Where there is no page,
    /// they are zeros, and none is allocated.
    ///
    /// Who writes or removes pages at the same time is not waited for: the bytes of a page may be partly
    /// older, partly newer ones.
    ///
    /// # Errors
    ///
    /// EFAULT if not a single byte could be copied, EINTR if the task is being killed.
    pub(crate) fn read(&self, at: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut done = 0;
        loop {
            let Some(part) = Part::of(at + done as u64, to.len(), self.size()) else {
                return Ok(done);
            };
            let copied = match self.get(part.index) {
                // SAFETY: `folio` keeps the page alive, and the part is within it.
                Some(folio) => unsafe {
                    let page = helpers::vmalab_folio_file_page(folio.as_ptr(), part.index);
                    bindings::copy_page_to_iter(page, part.offset, part.length, to.as_raw())
                },
                // SAFETY: An `IovIterDest` may be written to.
                None => unsafe { bindings::iov_iter_zero(part.length, to.as_raw()) },
            };
            done += copied;
            if copied < part.length || interrupted() {
                return match (done, copied < part.length) {
                    (0, true) => Err(EFAULT),
                    (0, false) => Err(EINTR),
                    _ => Ok(done),
                };
            }
        }
    }

    /// The page at `index`, if it is there. It may be removed, and changed, at any time.
    fn get(&self, index: usize) -> Option<Folio> {
        // SAFETY: `as_ptr` is valid.
        let raw = unsafe { helpers::vmalab_filemap_get_folio(self.as_ptr(), index) };
        let raw = NonNull::new(from_err_ptr(raw).ok()?)?;
        // SAFETY: On success the function gives a reference.
        Some(unsafe { Folio::from_raw(raw) })
    }

    /// The same, locked: then it cannot be removed.
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

/// A cache whose lock is held: see [`PageCache::lock`].
///
/// # Invariants
///
/// The lock of the inode is ours.
pub(crate) struct Locked<'a>(&'a PageCache);

impl Locked<'_> {
    /// Changes the size, in bytes. Pages past the new end are gone when this returns, from the cache and
    /// from all areas, copies of private areas included.
    ///
    /// # Errors
    ///
    /// EFBIG if the kernel has no way to express the size.
    pub(crate) fn resize(&self, size: u64, account: &impl Account) -> Result {
        let size = bindings::loff_t::try_from(size).map_err(|_| EFBIG)?;
        let cache = self.0;
        let _invalidate = cache.invalidate_lock();

        // Pages are added only under the shared lock, so that the difference is what went away.
        let before = cache.pages();
        // SAFETY: By the invariants of `PageCache`, the inode is valid. Its lock is held, as the
        // function wants it, and the invalidate lock, which keeps faults away.
        unsafe { bindings::truncate_setsize(cache.inode.as_ptr(), size) };
        account.uncharge(before.saturating_sub(cache.pages()));
        Ok(())
    }

    /// Copies bytes from `from` to `at` on, in one page at most, and says how many: none if `from` is
    /// not in memory, for which see [`fault_in`]. A page that is not there is added.
    ///
    /// # Errors
    ///
    /// ENOSPC at the end and past it, ENOMEM, and those of `account`.
    pub(crate) fn write(
        &self,
        at: u64,
        from: &mut IovIterSource<'_>,
        account: &impl Account,
    ) -> Result<usize> {
        let cache = self.0;
        let part = Part::of(at, from.len(), cache.size()).ok_or(ENOSPC)?;
        // SAFETY: `as_ptr` is valid.
        let gfp = unsafe { helpers::vmalab_mapping_gfp_mask(cache.as_ptr()) };
        let folio = cache.lock_page(part.index, gfp, account)?;
        // SAFETY: The folio is locked, and the part is within it. An `IovIterSource` may be read.
        Ok(unsafe {
            helpers::vmalab_write_to_folio(
                folio.as_ptr(),
                at as bindings::loff_t,
                part.length,
                from.as_raw(),
            )
        })
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is ours, and the inode is valid by those of
        // `PageCache`.
        unsafe { helpers::vmalab_inode_unlock(self.0.inode.as_ptr()) };
    }
}

/// Bytes of a single page.
struct Part {
    /// Which page, by its offset in pages.
    index: usize,
    /// Where in the page they begin.
    offset: usize,
    length: usize,
}

impl Part {
    /// The first of `length` bytes from `at` on, before the `end`; there are none past it.
    fn of(at: u64, length: usize, end: u64) -> Option<Self> {
        let offset = at as usize % PAGE_SIZE;
        let length = length
            .min(PAGE_SIZE - offset)
            .min(usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX));
        (length > 0).then_some(Self {
            index: (at / PAGE_SIZE as u64) as usize,
            offset,
            length,
        })
    }
}

/// Brings the first bytes of `from` into memory, so that they can be copied with page faults switched
/// off. To be called without any lock of this file. They may be gone again when this returns.
///
/// # Errors
///
/// EFAULT if the first byte cannot be read, EINTR if the task is being killed.
pub(crate) fn fault_in(from: &mut IovIterSource<'_>) -> Result {
    let length = from.len().min(PAGE_SIZE);
    // SAFETY: An `IovIterSource` may be read; this touches its memory only.
    let left = unsafe { bindings::fault_in_iov_iter_readable(from.as_raw(), length) };
    if length > 0 && left == length {
        return Err(EFAULT);
    }
    if interrupted() {
        return Err(EINTR);
    }
    Ok(())
}

/// Lets others run, if they wait, and says whether the task is being killed. For loops over many pages.
fn interrupted() -> bool {
    // SAFETY: It asks about the running task; only who holds no spinlock may call it, which no code of
    // this file does.
    unsafe { helpers::vmalab_interrupted() }
}
