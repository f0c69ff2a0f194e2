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
//! Pages are never written out, swapped or reclaimed by the kernel: they stay until the size shrinks below
//! them, a hole is punched, or the cache is dropped. But for those that were allocated ahead: as long as
//! nobody has used them, [`PageCache::drop_unused`] may.
//!
//! # Lock order
//!
//! From the outside to the inside:
//!
//! 1. the mmap lock of a process, or the lock of an area (held by the caller of a fault), *or* the
//!    lock of the inode ([`PageCache::lock`]): never the one inside the other;
//! 2. `invalidate_lock` of the cache: shared where a page is added, and where a frame is mapped; exclusive
//!    where pages are removed, and where a large folio is split to be mapped by frames;
//! 3. the lock of a folio;
//! 4. `i_mmap_rwsem` of the cache (the kernel's, while it unmaps or write-protects);
//! 5. the lock of the page table; the lock of the index (`i_pages`).
//!
//! As copying to or from user memory may fault, and thus take 1 and 2, [`PageCache::read`] copies under
//! none of them. [`Locked::write`] copies under all of them, with page faults switched off: what is not
//! there then, [`fault_in`] gets, before the locks are taken again. So the buffer may be a mapping of the
//! very page.
//!
//! # Shrinking against faults
//!
//! [`Locked::resize`] has the invalidate lock to itself. It unmaps what is past the new end from all areas,
//! removes the pages, each under its lock, writes the new size, and unmaps again. A fault that runs at the
//! same time either
//!
//! - finds no page, and comes to the invalidate lock later: it sees the new size, and adds none;
//! - finds a page that is there, or has added one before: it has the lock of the page until that is in the
//!   page table. The removal waits for the lock, and then finds the page mapped, and unmaps it;
//! - does so on behalf of a write to a private mapping: its page was copied, and the copy is in
//!   the page table, or comes there. The second unmapping takes it out.
//!
//! A file system would write the size first. Here no folio that is still in the cache may reach past the
//! size, not even for a moment: see [`PageCache::split_at`].
//!
//! # Pages that nobody uses
//!
//! A page that was allocated ahead has a mark in the index. It may be removed if, with its folio locked, it
//! is clean, not mapped, and all zeros: then who looks for it later finds zeros, as before. The invalidate
//! lock, exclusive, keeps faults, writes and [`PageCache::written`] away, between that look and the removal,
//! for which the kernel takes the folio's lock anew. What can still come is `map_pages`, or a fault that
//! has found the page: it holds a reference while it maps, and then what was written is marked as dirty:
//! the kernel removes no folio that has either.
//!
//! The kernel, too, takes away a clean page that is not mapped, since it could be had again from the store behind
//! it, when the memory is to be used no more (soft offline). Here there is none, and nobody would count the page:
//! so it may not (`release_folio`), and moves the page. Clean ones that have been written to are those that
//! [`PageCache::written`] has told of.
//!
//! # Which pages were written
//!
//! A page has been written if its folio is dirty, or an entry of a page table that maps it into a shared
//! area is dirty, or writable. [`PageCache::written`] asks for both with the folio locked, and makes the
//! entries read-only and clean. So a write that it does not tell of has still to come through a fault, or
//! comes from who holds on to the page (direct I/O into a mapping): both mark the folio as dirty when they
//! are done, and so does the kernel when it drops a dirty entry. Hence no write is lost; one may be told
//! of twice.
//!
//! # Frames
//!
//! A page that is mapped by its frame number (a [`Frame`], in an area with `VM_PFNMAP`) has neither a
//! reference nor a count for it: nobody who looks at the page can tell that it is mapped. So that no
//! frame is in a page table when it is freed,
//!
//! - it is put there under the invalidate lock, and pages are removed under that lock, too, exclusively,
//!   after they were unmapped from all areas of the cache. That unmapping goes by the areas and the index,
//!   and takes out frames as well as pages. So it comes after each insertion, or the insertion after the
//!   removal, and then there is no page;
//! - the page is marked as dirty, and stays so: [`PageCache::written`] tells of it each time. So neither
//!   the shrinker nor the kernel takes it for one that nobody uses;
//! - from the first frame on, pages of the cache are not moved in memory. Who moves one holds its lock,
//!   and a frame is had with the lock and after that change: it is either moved by then, and looked up
//!   again, or not moved any more;
//! - no page of the cache is mapped in the usual way, too, which the driver must see to. For to move a
//!   page that is mapped, the kernel looks for it in all areas of the cache, and takes the entry with the
//!   frame for one that has been counted (`try_to_migrate`). A page that is not mapped, it does not look
//!   for; but it does so for one of a large folio that it splits (`unmap_folio`), so none is a frame;
//! - an area goes before its file, and the file before the cache.

#![allow(dead_code, reason = "a driver uses the part of this that it needs")]

use crate::{
    folio::{Alloc, Folio, LockedFolio},
    helpers,
};
use core::{ops::Range, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    ffi,
    iov::{IovIterDest, IovIterSource},
    page::PAGE_SIZE,
    prelude::*,
    time::{delay::fsleep, Delta},
    types::ScopeGuard, //
};

/// Who answers for the pages of a cache.
pub(crate) trait Account {
    /// In folios of how many pages, as a power of two, memory is to be allocated from now on: see
    /// [`PageCache::lock_page`].
    fn folio_order(&self) -> u32 {
        0
    }

    /// So many pages are about to be added: an error forbids it.
    fn charge(&self, pages: usize) -> Result;

    /// So many pages are gone, or were not added after all.
    fn uncharge(&self, pages: usize);
}

/// The same account, for single pages.
struct Singly<'a, T>(&'a T);

impl<T: Account> Account for Singly<'_, T> {
    fn charge(&self, pages: usize) -> Result {
        self.0.charge(pages)
    }

    fn uncharge(&self, pages: usize) {
        self.0.uncharge(pages);
    }
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
    release_folio: Some(helpers::vmalab_release_folio),
    ..pin_init::zeroed()
};

/// The same, once frames have been mapped.
static FIXED: bindings::address_space_operations = bindings::address_space_operations {
    dirty_folio: Some(bindings::noop_dirty_folio),
    migrate_folio: Some(stay),
    release_folio: Some(helpers::vmalab_release_folio),
    ..pin_init::zeroed()
};

/// Moves no page.
///
/// # Safety
///
/// None: it looks at nothing.
unsafe extern "C" fn stay(
    _mapping: *mut bindings::address_space,
    _to: *mut bindings::folio,
    _from: *mut bindings::folio,
    _mode: bindings::migrate_mode,
) -> ffi::c_int {
    EBUSY.to_errno()
}

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

    /// Says who may use the pages, as the mode of a file: see [`check_access`](Self::check_access). At
    /// first it is the owner alone.
    pub(crate) fn set_mode(&self, mode: u16) {
        // SAFETY: By the type invariants, the inode is valid.
        unsafe { helpers::vmalab_inode_set_mode(self.inode.as_ptr(), mode) };
    }

    /// Whether the running task may read or write the pages, by the mode, the owner (who has made the
    /// cache), its capabilities and the security modules (`inode_permission`).
    ///
    /// # Errors
    ///
    /// EACCES, or what a security module says.
    pub(crate) fn check_access(&self, read: bool, write: bool) -> Result {
        // SAFETY: By the type invariants, the inode is valid.
        to_result(unsafe { helpers::vmalab_inode_permission(self.inode.as_ptr(), read, write) })
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

    /// The folio with the page at `index`, locked. If it is not there, it is allocated and zeroed, and
    /// charged to `account` and to the memory cgroup of the running task.
    ///
    /// It may be a large one, with the pages beside it: as large as `account` wants, or smaller where one
    /// of them is there already or past the end, or of one page where there is not as much memory in
    /// one piece, or to be had.
    ///
    /// # Errors
    ///
    /// ENXIO past the end, ENOMEM, and those of `account`.
    pub(crate) fn lock_page(
        &self,
        index: usize,
        how: Alloc<'_>,
        account: &impl Account,
    ) -> Result<LockedFolio> {
        // What is there needs no more than its own lock: see the top.
        let looked = !self.is_changing();
        if looked {
            if let Some(folio) = self.find(index) {
                return if self.has(index) {
                    Ok(folio)
                } else {
                    Err(ENXIO)
                };
            }
        }

        let _invalidate = self.invalidate_lock_shared();
        if !self.has(index) {
            return Err(ENXIO);
        }
        if looked {
            match self.add(index, how, account) {
                Err(error) if error == EEXIST => {}
                result => return result,
            }
        }
        self.find_or_add(index, how, account)
            .map(|(folio, _)| folio)
    }

    /// The page at `index`, as [`lock_page`](Self::lock_page), to be mapped by its frame number.
    ///
    /// # Errors
    ///
    /// Those of [`lock_page`](Self::lock_page); EBUSY if the page is of a larger folio, and somebody holds
    /// a page of that, so that it cannot be split.
    pub(crate) fn frame(
        &self,
        index: usize,
        how: Alloc<'_>,
        account: &impl Account,
    ) -> Result<Frame<'_>> {
        // SAFETY: `as_ptr` is valid, and the operations are a static.
        unsafe { helpers::vmalab_set_a_ops(self.as_ptr(), &FIXED) };
        loop {
            let held = self.invalidate_lock_shared();
            let folio = held.lock_page(index, how, account)?;
            if folio.indices().len() == 1 {
                folio.mark_dirty();
                // INVARIANT: It was locked in the cache, under the invalidate lock, after the operations
                // were changed, which are never changed back.
                return Ok(Frame { folio, index, held });
            }
            drop((folio, held));
            let _invalidate = self.invalidate_lock();
            for edge in [index, index + 1] {
                self.split_at(edge)?;
            }
        }
    }

    /// Sees to it that a folio begins at `index`, if there is one: splits a large one that reaches over it.
    /// The invalidate lock is held, exclusively.
    ///
    /// The kernel does that, too, when it removes pages. But what cannot be split it removes as a whole,
    /// or keeps as a whole. And whoever splits a folio, for whatever reason and at whatever time, as to move
    /// it or for MADV_COLD, drops what of it is past the end, and takes it from the count of dirty pages
    /// (`folio_account_cleaned`), in which pages of a cache without write-back never were. So no folio may
    /// ever reach over the end.
    ///
    /// # Errors
    ///
    /// EBUSY if somebody holds a page of it.
    fn split_at(&self, index: usize) -> Result {
        /// Who looks at a page in passing has it for a moment.
        const ATTEMPTS: usize = 50;
        const PAUSE: Delta = Delta::from_micros(200);

        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                fsleep(PAUSE);
            }
            match self.find(index) {
                Some(folio) if folio.indices().start < index => {
                    // If not, and it cannot be split, it is taken for one that can be had again.
                    folio.mark_dirty();
                }
                _ => return Ok(()),
            }
            let at = (index * PAGE_SIZE) as bindings::loff_t;
            // An empty range: nothing is removed or filled with zeros, but the folio around it is split.
            // SAFETY: `as_ptr` is valid, and `at` is more than 0: a folio begins before it.
            unsafe { bindings::truncate_inode_pages_range(self.as_ptr(), at, at as u64 - 1) };
        }
        Err(EBUSY)
    }

    /// Whether pages may be mapped by their frame numbers. Who asks with a folio locked knows: if not, this
    /// folio is not.
    fn has_frames(&self) -> bool {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_has_a_ops(self.as_ptr(), &FIXED) }
    }

    /// As [`lock_page`](Self::lock_page), also past the end; says whether the page was added. The invalidate
    /// lock is held.
    fn find_or_add(
        &self,
        index: usize,
        how: Alloc<'_>,
        account: &impl Account,
    ) -> Result<(LockedFolio, bool)> {
        loop {
            if let Some(folio) = self.find(index) {
                return Ok((folio, false));
            }
            match self.add(index, how, account) {
                Ok(folio) => return Ok((folio, true)),
                // Another was faster, with this page or with one beside it.
                Err(error) if error == EEXIST => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the page at `index` is before the end.
    fn has(&self, index: usize) -> bool {
        (index as u64) < self.size().div_ceil(PAGE_SIZE as u64)
    }

    /// Whether somebody may be about to remove pages, and has the lock of the inode. It may change at any
    /// time.
    fn is_changing(&self) -> bool {
        // SAFETY: By the type invariants, the inode is valid.
        unsafe { helpers::vmalab_inode_is_locked(self.inode.as_ptr()) }
    }

    /// Copies bytes from `at` on into `to`, up to the end, and says how many. Where there is no page,
    /// they are zeros, and none is allocated.
    ///
    /// Who writes or removes pages at the same time is not waited for: the bytes of a page may be partly
    /// older, partly newer ones.
    ///
    /// # Errors
    ///
    /// If not a single byte could be copied: EFAULT, EIO if the memory of the page has failed; EINTR if the
    /// task is being killed.
    pub(crate) fn read(&self, at: u64, to: &mut IovIterDest<'_>) -> Result<usize> {
        let mut done = 0;
        loop {
            let Some(part) = Part::of(at + done as u64, to.len(), self.size()) else {
                return Ok(done);
            };
            let copied = match self.get(part.index) {
                Some(folio) if folio.page_has_failed(part.index) => {
                    return if done > 0 { Ok(done) } else { Err(EIO) }
                }
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

    /// Calls `found` for each run of pages within `pages` that have been written since they were last
    /// looked at with `clear`, or came into being, in order. Gives the page to go on with: the end of
    /// `pages`, or the begin of the first run that `found` has refused, or has not come to.
    ///
    /// Pages are told apart by folios: of a large one that was written to anywhere, all are told. In
    /// areas without the hook `page_mkwrite`, a page that could have been written to counts as
    /// written, even if it was only read.
    pub(crate) fn written(
        &self,
        pages: Range<usize>,
        clear: bool,
        mut found: impl FnMut(Range<usize>) -> bool,
    ) -> usize {
        // No page is removed meanwhile, not even by a shrinker, to which it looks clean.
        let _invalidate = self.invalidate_lock_shared();
        let mut next = pages.start;
        while next < pages.end {
            let Some(folio) = self.next(next, pages.end - 1) else {
                return pages.end;
            };
            let folio = folio.lock();
            let whole = folio.indices();
            let part = whole.start.max(next)..whole.end.min(pages.end);
            // SAFETY: The folio is locked.
            if !part.is_empty() && unsafe { helpers::vmalab_folio_written(folio.as_ptr()) } {
                if !found(part.clone()) {
                    return part.start;
                }
                // The kernel would take a clean one away whose memory has failed.
                if clear && !self.has_frames() && !folio.has_failed() {
                    // SAFETY: The folio is locked.
                    unsafe { helpers::vmalab_folio_clear_dirty(folio.as_ptr()) };
                }
            }
            next = part.end.max(next + 1);
            if interrupted() {
                break;
            }
        }
        next
    }

    /// Takes back that [`written`](Self::written) has told of these pages.
    pub(crate) fn mark_written(&self, pages: Range<usize>) {
        let mut next = pages.start;
        while next < pages.end {
            let Some(folio) = self.next(next, pages.end - 1) else {
                return;
            };
            let folio = folio.lock();
            next = folio.indices().end.max(next + 1);
            // SAFETY: `folio` keeps it alive; it is locked. If it was removed, this does nothing that
            // matters.
            unsafe { bindings::folio_mark_dirty(folio.as_ptr()) };
        }
    }

    /// Looks at `wanted` pages that were allocated ahead, from `first` on, and removes those that nobody has
    /// used since. `None` if others are busy with the cache.
    ///
    /// It waits for no lock, and allocates nothing: for shrinkers.
    pub(crate) fn drop_unused(
        &self,
        first: usize,
        wanted: usize,
        account: &impl Account,
    ) -> Option<Unused> {
        let _invalidate = self.try_invalidate_lock()?;
        let mut done = Unused {
            next: first,
            ..Unused::default()
        };
        while done.scanned < wanted {
            // SAFETY: `as_ptr` is valid.
            let raw = unsafe { helpers::vmalab_filemap_next_ahead(self.as_ptr(), done.next) };
            let Some(raw) = NonNull::new(raw) else {
                done.next = 0;
                break;
            };
            // SAFETY: The function gives a reference.
            let folio = unsafe { Folio::from_raw(raw) };
            let indices = folio.indices();
            // SAFETY: `folio` keeps it alive.
            let unused = unsafe { helpers::vmalab_folio_unused(folio.as_ptr()) };
            // Who holds a reference uses the page.
            drop(folio);
            done.scanned += indices.len();
            done.next = indices.end;
            if unused {
                let before = self.pages();
                // SAFETY: `as_ptr` is valid, and the invalidate lock is held.
                unsafe {
                    helpers::vmalab_invalidate_unused(self.as_ptr(), indices.start, indices.end - 1)
                };
                let removed = before.saturating_sub(self.pages());
                account.uncharge(removed);
                done.removed += removed;
            } else {
                done.used += indices.len();
                // SAFETY: `as_ptr` is valid.
                unsafe { helpers::vmalab_mark_ahead(self.as_ptr(), indices.start, false) };
            }
        }
        Some(done)
    }

    /// The first page that is there, from `first` to `last`.
    fn next(&self, first: usize, last: usize) -> Option<Folio> {
        // SAFETY: `as_ptr` is valid.
        let raw = unsafe { helpers::vmalab_filemap_next_folio(self.as_ptr(), first, last) };
        // SAFETY: If there is one, the function gives a reference to it.
        NonNull::new(raw).map(|raw| unsafe { Folio::from_raw(raw) })
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

    /// Adds a folio with the page at `index`, as large as `account` wants if that can be.
    ///
    /// # Errors
    ///
    /// EEXIST, ENOMEM, and those of `account`.
    fn add(&self, index: usize, how: Alloc<'_>, account: &impl Account) -> Result<LockedFolio> {
        let order = (1..=account.folio_order().min(Folio::MAX_ORDER))
            .rev()
            .find(|&order| self.has_room(index, order));
        if let Some(order) = order {
            let how = how.optional();
            match self.add_folio(index >> order << order, order, how, account) {
                Err(error) if error != EEXIST => {}
                result => return result,
            }
        }
        self.add_folio(index, 0, how, account)
    }

    /// Whether a folio of this order, with the page at `index`, fits: it begins at a multiple of its size,
    /// ends before the end, and none of its pages is there.
    fn has_room(&self, index: usize, order: u32) -> bool {
        let (first, last) = (index >> order << order, index | ((1 << order) - 1));
        let (first, last) = (first * PAGE_SIZE, last * PAGE_SIZE);

        (last as u64) < self.size()
            // SAFETY: `as_ptr` is valid. Whatever is before the end fits.
            && !unsafe {
                bindings::filemap_range_has_page(
                    self.as_ptr(),
                    first as bindings::loff_t,
                    last as bindings::loff_t,
                )
            }
    }

    fn add_folio(
        &self,
        index: usize,
        order: u32,
        how: Alloc<'_>,
        account: &impl Account,
    ) -> Result<LockedFolio> {
        account.charge(1 << order)?;
        let not_added = ScopeGuard::new(|| account.uncharge(1 << order));
        let folio = Folio::zeroed(how, order)?;
        // SAFETY: The cache and the folio are valid, the folio is new and not locked, and the index is
        // a multiple of its size. On success the cache has taken references of its own, and the folio
        // is locked for us.
        let folio = unsafe {
            to_result(bindings::filemap_add_folio(
                self.as_ptr(),
                folio.as_ptr(),
                index,
                how.gfp(),
            ))?;
            LockedFolio::from_locked(folio)
        };
        not_added.dismiss();
        Ok(folio)
    }

    fn invalidate_lock(&self) -> impl Drop + '_ {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_lock(self.as_ptr()) };
        ScopeGuard::new(|| {
            // SAFETY: It was taken just above.
            unsafe { helpers::vmalab_filemap_invalidate_unlock(self.as_ptr()) }
        })
    }

    fn try_invalidate_lock(&self) -> Option<impl Drop + '_> {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_trylock(self.as_ptr()) }.then(|| {
            ScopeGuard::new(|| {
                // SAFETY: It was taken just above.
                unsafe { helpers::vmalab_filemap_invalidate_unlock(self.as_ptr()) }
            })
        })
    }

    fn invalidate_lock_shared(&self) -> Held<'_> {
        // SAFETY: `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_lock_shared(self.as_ptr()) };
        // INVARIANT: It was taken just above.
        Held(self)
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        // The file that came with the inode may still be in the middle of being closed, and hold it for a
        // moment after it has let go of this module. So nothing of ours is left in it.
        //
        // SAFETY: By the type invariants, the reference is ours. No file maps the cache any more, nor does
        // an area, so that no page comes any more.
        unsafe {
            bindings::truncate_inode_pages(self.as_ptr(), 0);
            helpers::vmalab_set_a_ops(self.as_ptr(), &raw const bindings::empty_aops);
            bindings::iput(self.inode.as_ptr());
        }
    }
}

/// A cache from which no page is removed, and to which several may add pages.
///
/// # Invariants
///
/// The invalidate lock is held, shared, and ours to give back.
struct Held<'a>(&'a PageCache);

impl Held<'_> {
    /// See [`PageCache::lock_page`].
    fn lock_page(
        &self,
        index: usize,
        how: Alloc<'_>,
        account: &impl Account,
    ) -> Result<LockedFolio> {
        let cache = self.0;
        if !cache.has(index) {
            return Err(ENXIO);
        }
        cache
            .find_or_add(index, how, account)
            .map(|(folio, _)| folio)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants, the lock is ours, and `as_ptr` is valid.
        unsafe { helpers::vmalab_filemap_invalidate_unlock_shared(self.0.as_ptr()) };
    }
}

/// A page that may be mapped by its frame number, in areas of the cache that it is in: see the top.
///
/// # Invariants
///
/// `folio` has the page at `index` of the cache, is marked as written to, and does not move. It is removed
/// from the cache only when this is gone, after all areas of the cache were unmapped there.
pub(crate) struct Frame<'a> {
    // Dropped in this order: the folio is unlocked first.
    folio: LockedFolio,
    index: usize,
    held: Held<'a>,
}

impl Frame<'_> {
    /// The number of the frame.
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: The folio is alive, and by the type invariants has the page.
        unsafe { helpers::vmalab_folio_file_pfn(self.folio.as_ptr(), self.index) }
    }

    /// The offset of the page in the cache, in pages.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether its memory has failed: see [`Folio::page_has_failed`].
    pub(crate) fn has_failed(&self) -> bool {
        self.folio.page_has_failed(self.index)
    }

    /// The cache that the page is in.
    pub(crate) fn cache(&self) -> &PageCache {
        self.held.0
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
    /// EFBIG if the kernel has no way to express the size; EBUSY if the end would be within a large folio
    /// of which somebody holds a page.
    pub(crate) fn resize(&self, size: u64, account: &impl Account) -> Result {
        let size = bindings::loff_t::try_from(size).map_err(|_| EFBIG)?;
        let cache = self.0;
        let _invalidate = cache.invalidate_lock();
        // Pages are added only under the shared lock, so that the difference is what went away.
        let before = cache.pages();
        if (size as u64) < cache.size() {
            cache.split_at(size as usize / PAGE_SIZE)?;
            // While the pages are there, the size is the old one: see `split_at`.
            //
            // SAFETY: By the invariants of `PageCache`, the inode is valid. Its lock is held, and the
            // invalidate lock, which keeps faults away.
            unsafe { bindings::truncate_pagecache(cache.inode.as_ptr(), size) };
        }
        // SAFETY: As above; and its lock is what the function wants.
        unsafe { bindings::truncate_setsize(cache.inode.as_ptr(), size) };
        account.uncharge(before.saturating_sub(cache.pages()));
        Ok(())
    }

    /// Frees the bytes of `range`: whole pages are removed, from the cache and from all shared areas, and
    /// the rest becomes zeros. Copies of private areas stay.
    ///
    /// As `fallocate` with `FALLOC_FL_PUNCH_HOLE`.
    pub(crate) fn punch_hole(&self, range: Range<u64>, account: &impl Account) {
        let cache = self.0;
        let end = range.end.min(cache.size());
        if range.start >= end {
            return;
        }
        let _invalidate = cache.invalidate_lock();

        let before = cache.pages();
        for at in [
            range.start.div_ceil(PAGE_SIZE as u64),
            end / PAGE_SIZE as u64,
        ] {
            // If it cannot be split, all of it stays.
            let _ = cache.split_at(at as usize);
        }
        // SAFETY: By the invariants of `PageCache`, the inode is valid. Its lock is held, and the
        // invalidate lock, which keeps faults away. The range is not empty, and within the size, which
        // fits.
        unsafe {
            bindings::truncate_pagecache_range(
                cache.inode.as_ptr(),
                range.start as bindings::loff_t,
                (end - 1) as bindings::loff_t,
            )
        };
        account.uncharge(before.saturating_sub(cache.pages()));

        // What is left of the pages at the edges has been written to.
        for at in [range.start, end] {
            if at % PAGE_SIZE as u64 != 0 {
                let index = (at / PAGE_SIZE as u64) as usize;
                cache.mark_written(index..index + 1);
            }
        }
    }

    /// Adds the pages that `range` touches, as far as they are not there, also past the end. If that
    /// fails, what was added past the end is removed again, and what was added before it stays. `added` is
    /// called for each page that is new. They come one by one, so that a shrinker can take one of them.
    ///
    /// # Errors
    ///
    /// ENOMEM, EINTR if a signal is pending, and those of `account`.
    pub(crate) fn allocate(
        &self,
        range: Range<u64>,
        account: &impl Account,
        mut added: impl FnMut(),
    ) -> Result {
        let cache = self.0;
        let pages = (range.start / PAGE_SIZE as u64) as usize
            ..range.end.div_ceil(PAGE_SIZE as u64) as usize;
        // SAFETY: `as_ptr` is valid.
        let how = Alloc::new(unsafe { helpers::vmalab_mapping_gfp_mask(cache.as_ptr()) });
        let result = pages.into_iter().try_for_each(|index| {
            let _invalidate = cache.invalidate_lock_shared();
            let (folio, is_new) = cache.find_or_add(index, how, &Singly(account))?;
            if is_new {
                // SAFETY: `as_ptr` is valid. The folio is locked, so that it is there.
                unsafe { helpers::vmalab_mark_ahead(cache.as_ptr(), index, true) };
                added();
            }
            drop(folio);
            if interrupted() || kernel::current!().signal_pending() {
                return Err(EINTR);
            }
            Ok(())
        });
        if result.is_err() && range.end > cache.size() {
            self.resize(cache.size(), account)?;
        }
        result
    }

    /// Whether somebody may write to a page without a mapping: direct I/O into one that is gone
    /// (`folio_maybe_dma_pinned`). Who only looks at a page, or maps it, is nobody to wait for.
    pub(crate) fn has_pinned_pages(&self) -> bool {
        let cache = self.0;
        let mut next = 0;
        while let Some(folio) = cache.next(next, usize::MAX) {
            // SAFETY: `folio` keeps it alive.
            if unsafe { helpers::vmalab_folio_maybe_dma_pinned(folio.as_ptr()) } {
                return true;
            }
            next = folio.indices().end.max(next + 1);
            interrupted();
        }
        false
    }

    /// Keeps shared areas that are or can become writable from coming into being until the result is
    /// dropped (`mapping_deny_writable`).
    ///
    /// # Errors
    ///
    /// EBUSY if there is one.
    pub(crate) fn deny_writable(&self) -> Result<impl Drop + '_> {
        let mapping = self.0.as_ptr();
        // SAFETY: `as_ptr` is valid.
        to_result(unsafe { helpers::vmalab_mapping_deny_writable(mapping) })?;
        Ok(ScopeGuard::new(move || {
            // SAFETY: It was denied just above.
            unsafe { helpers::vmalab_mapping_allow_writable(mapping) }
        }))
    }

    /// The size, which does not change now.
    pub(crate) fn size(&self) -> u64 {
        self.0.size()
    }

    /// Copies bytes from `from` to `at` on, in one page at most, and says how many: none if `from` is
    /// not in memory, for which see [`fault_in`]. A page that is not there is added.
    ///
    /// # Errors
    ///
    /// ENOSPC at the end and past it, EIO if the memory of the page has failed, ENOMEM, and those of
    /// `account`.
    pub(crate) fn write(
        &self,
        at: u64,
        from: &mut IovIterSource<'_>,
        account: &impl Account,
    ) -> Result<usize> {
        let cache = self.0;
        let part = Part::of(at, from.len(), cache.size()).ok_or(ENOSPC)?;
        // SAFETY: `as_ptr` is valid.
        let how = Alloc::new(unsafe { helpers::vmalab_mapping_gfp_mask(cache.as_ptr()) });
        let folio = cache.lock_page(part.index, how, account)?;
        if folio.page_has_failed(part.index) {
            return Err(EIO);
        }
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

/// What [`PageCache::drop_unused`] has done.
#[derive(Default)]
pub(crate) struct Unused {
    /// Where to go on: 0 after the last page.
    pub(crate) next: usize,
    /// How many pages were looked at.
    pub(crate) scanned: usize,
    /// How many of them are gone.
    pub(crate) removed: usize,
    /// How many of them are used, and will not be looked at again. The rest cannot be removed now.
    pub(crate) used: usize,
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
