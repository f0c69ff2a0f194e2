// SPDX-License-Identifier: GPL-2.0-only

//! A page fault, and the ways to answer it: the hook `fault`, and what the other hooks of a fault share
//! with it.

use super::{Area, VmOperations};
use crate::{
    folio::{Alloc, Folio, LockedFolio},
    helpers,
    page_cache::Frame,
};
use core::{marker::PhantomData, ops::Deref, ptr::NonNull};
use kernel::{bindings, error::to_result, mm::virt::flags, page::PAGE_SIZE, prelude::*};

/// What all hooks of a fault are told.
///
/// # Invariants
///
/// `vmf` is the fault that the kernel is in the middle of, in an area of which the invariants of
/// [`Area`] hold for 'a. The lock of the fault is held.
pub(crate) struct FaultInfo<'a, T> {
    vmf: NonNull<bindings::vm_fault>,
    _area: PhantomData<&'a Area<T>>,
}

impl<T: VmOperations> FaultInfo<'_, T> {
    /// # Safety
    ///
    /// The type invariants hold for `vmf`, and it is not NULL.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            // SAFETY: The caller's promise.
            vmf: unsafe { NonNull::new_unchecked(vmf) },
            _area: PhantomData,
        }
    }

    /// The fault as the kernel knows it.
    pub(super) fn as_ptr(&self) -> *mut bindings::vm_fault {
        self.vmf.as_ptr()
    }

    pub(super) fn raw(&self) -> &bindings::vm_fault {
        // SAFETY: By the type invariants, it is valid, and nobody writes to it while the hook runs
        // but the types of this module, which have no reference out while they do.
        unsafe { self.vmf.as_ref() }
    }

    /// The area of the fault.
    pub(crate) fn area(&self) -> &Area<T> {
        // SAFETY: By the type invariants; the reference ends before `self` is used up, and with it
        // the lock may go.
        unsafe { Area::from_raw(self.raw().__bindgen_anon_1.vma) }
    }

    /// The address that was touched, rounded down to its page.
    pub(crate) fn address(&self) -> usize {
        self.raw().__bindgen_anon_1.address
    }

    /// The page that is wanted, as an offset in what the area maps, in pages (`pgoff`).
    ///
    /// It may be past the end of the object: a mapping may be longer than what it maps.
    pub(crate) fn index(&self) -> usize {
        self.raw().__bindgen_anon_1.pgoff
    }

    /// How the page was touched, and what the handler may do.
    pub(crate) fn flags(&self) -> FaultFlags {
        FaultFlags(self.raw().flags)
    }

    /// How pages for this area are to be allocated: with the flags of the page cache that its file maps, by
    /// the memory policy of the area.
    pub(crate) fn alloc(&self) -> Alloc<'_> {
        let gfp = self.raw().__bindgen_anon_1.gfp_mask;
        // SAFETY: By the type invariants, the area is valid, and the lock of the fault held while `self` is
        // borrowed.
        unsafe { Alloc::within(gfp, self.area().as_opaque(), self.address()) }
    }

    /// Whether the area is shared: what is written there is written for all.
    pub(crate) fn is_shared(&self) -> bool {
        self.area().flags() & flags::SHARED != 0
    }

    /// Whether the page may be made writable in the page table at once. In a private area it must
    /// not: there the kernel makes a copy when the touch is tried again.
    pub(super) fn writes_shared(&self) -> bool {
        self.flags().is_write() && self.is_shared()
    }

    /// Whether pages must not be mapped with one entry for a huge page: in such areas the kernel takes what
    /// that stands for to be frames, and when it splits it, the reference to the folio, its count of
    /// mappings and the pages of the process are left as they were (`vma_is_special_huge`).
    pub(super) fn is_special(&self) -> bool {
        self.area().flags() & (flags::PFNMAP | flags::MIXEDMAP) != 0
    }

    /// Whether a userfaultfd watches the area: the kernel then maps one page at a time, and may have put a
    /// mark where it goes.
    pub(crate) fn is_watched(&self) -> bool {
        // SAFETY: By the type invariants, the area is valid.
        unsafe { helpers::vmalab_userfaultfd_armed(self.area().as_ptr()) }
    }

    /// Whether the area can take frame numbers: the conditions that the kernel stops at if they do
    /// not hold (`vmf_insert_pfn_prot`).
    pub(super) fn takes_pfns(&self) -> bool {
        let kind = self.area().flags() & (flags::PFNMAP | flags::MIXEDMAP);
        kind == flags::MIXEDMAP || kind == flags::PFNMAP && !self.area().is_private_writable()
    }
}

/// A page fault in an area of `T`: somebody touched a page that is not in the page table.
///
/// There are four kinds of answers:
///
/// - give a page, and let the kernel map or copy it: [`give`](Self::give),
///   [`give_locked`](Self::give_locked). This is the normal way;
/// - put it into the page table oneself: [`insert`](Self::insert),
///   [`insert_pages`](Self::insert_pages) for a neighbourhood, [`insert_frame`](Self::insert_frame) and
///   [`insert_pfn`](Self::insert_pfn) by its frame number, uncounted;
/// - have it tried again: [`retry`](Self::retry), [`VmFault::NOPAGE`];
/// - a constant of [`VmFault`] that says that there is nothing.
///
/// # Invariants
///
/// No page has been given yet.
pub(crate) struct Fault<'a, T>(FaultInfo<'a, T>);

impl<'a, T> Deref for Fault<'a, T> {
    type Target = FaultInfo<'a, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: VmOperations> Fault<'_, T> {
    /// # Safety
    ///
    /// The invariants of [`FaultInfo`] hold for `vmf`, it is not NULL, and no page has been given.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: The caller's promise. INVARIANT: As well.
        Self(unsafe { FaultInfo::from_raw(vmf) })
    }

    /// Answers with a page, and the reference to it that `folio` is. Which page of a large folio it
    /// is follows from [`index`](FaultInfo::index).
    ///
    /// The kernel maps it, or copies it if a private mapping is being written to, and does the
    /// accounting. Of a large folio it maps as many pages as fit; but of a huge one, in an area with
    /// [`flags::MIXEDMAP`] or [`flags::PFNMAP`], or with memory that has failed, the one alone, as
    /// [`insert`](Self::insert) does. If the page belongs to something that can be truncated, use
    /// [`give_locked`](Self::give_locked).
    pub(crate) fn give(self, folio: Folio) -> VmFault {
        if self.goes_alone(&folio) {
            return self.insert(&folio);
        }
        self.put(folio);
        VmFault(0)
    }

    /// As [`give`](Self::give); the kernel keeps the folio locked until the page is in the page
    /// table. Who removes the page from the object locks it, too, and so cannot miss that it is
    /// mapped.
    pub(crate) fn give_locked(self, folio: LockedFolio) -> VmFault {
        if self.goes_alone(&folio) {
            return self.insert(&folio);
        }
        self.put(folio.into_locked());
        VmFault(bindings::vm_fault_reason_VM_FAULT_LOCKED)
    }

    /// As [`give_locked`](Self::give_locked), for an area with a `page_mkwrite` that is to hear of each
    /// page. Of a large folio, the kernel would map all pages at once, writable, after asking for the
    /// one. So this maps the one alone, and read-only: the access is tried again, and asks.
    pub(crate) fn give_one_locked(self, folio: LockedFolio) -> VmFault {
        let one_by_one = self.is_watched() && (!is_huge(&folio) || self.has_mark());
        if folio.pages() == 1 || one_by_one || !self.writes_shared() {
            return self.give_locked(folio);
        }
        self.insert_page(&folio, false)
    }

    /// Whether the page must not be given to the kernel. It would map all of the folio, with one entry if
    /// that fits (`finish_fault`). And a page whose memory has failed it would try to remove (`__do_fault`).
    fn goes_alone(&self, folio: &Folio) -> bool {
        // What is copied is a page.
        let copied = self.flags().is_write() && !self.is_shared();
        folio.page_has_failed(self.index())
            || !copied && (folio.has_failed() || is_huge(folio) && self.is_special())
    }

    /// Whether userfaultfd has put a mark into the page table where the page goes.
    fn has_mark(&self) -> bool {
        // SAFETY: The fault is valid by the type invariants.
        unsafe { helpers::vmalab_fault_has_mark(self.as_ptr()) }
    }

    fn put(mut self, folio: Folio) {
        let index = self.index();
        let folio = folio.into_raw();
        // SAFETY: The reference that `folio` was keeps it alive.
        let page = unsafe { helpers::vmalab_folio_file_page(folio, index) };
        // SAFETY: By the type invariants, the fault is valid and we may write to it; the reference
        // goes to the kernel with it.
        unsafe { self.0.vmf.as_mut() }.page = page;
    }

    /// Puts a page into the page table, which takes a reference of its own
    /// (`vmf_insert_page_mkwrite`). It is writable at once if a shared area is being written to, without
    /// a call of `page_mkwrite`.
    ///
    /// The page is counted and unmapped as any other, but nothing keeps it from being removed from
    /// its object in the meantime: hold its lock if that can happen, and also if it is of a folio that is
    /// mapped with one entry elsewhere. SIGBUS for a page that cannot be mapped, as one of the slab; and where userfaultfd has put a mark, which only the kernel itself can
    /// take away: in an area that [is watched](FaultInfo::is_watched), [`give`](Self::give) the page.
    pub(crate) fn insert(&self, folio: &Folio) -> VmFault {
        self.insert_page(folio, self.writes_shared())
    }

    fn insert_page(&self, folio: &Folio, writable: bool) -> VmFault {
        if folio.page_has_failed(self.index()) {
            return VmFault::HWPOISON;
        }
        if self.has_mark() {
            return VmFault::SIGBUS;
        }
        // The kernel would take that for a lack of memory. Another fault has been faster; as long as the
        // folio is locked, none can be from here on.
        //
        // SAFETY: The fault is valid by the type invariants.
        if unsafe { helpers::vmalab_fault_is_huge(self.as_ptr()) } {
            return VmFault::NOPAGE;
        }
        // SAFETY: `folio` keeps it alive, and the fault is valid by the type invariants.
        VmFault(unsafe {
            let page = helpers::vmalab_folio_file_page(folio.as_ptr(), self.index());
            bindings::vmf_insert_page_mkwrite(self.as_ptr(), page, writable)
        })
    }

    /// Puts pages into the page table from `addr` on, at least the one that was touched among them
    /// (`vm_insert_pages`). Those that are there already are left as they are.
    ///
    /// As [`insert`](Self::insert), but a page that is to be written to comes back as a fault of its
    /// own. The area must have [`flags::MIXEDMAP`] from its mmap handler on, and the pages must be
    /// inside it: SIGBUS if not.
    pub(crate) fn insert_pages(&self, mut addr: usize, mut folios: &[Folio]) -> VmFault {
        const BATCH: usize = 16;

        let area = self.area();
        let wanted = addr..addr.saturating_add(folios.len().saturating_mul(PAGE_SIZE));
        if area.flags() & flags::MIXEDMAP == 0
            || addr % PAGE_SIZE != 0
            || addr < area.start()
            || wanted.end > area.end()
            || !wanted.contains(&self.address())
        {
            return VmFault::SIGBUS;
        }
        while !folios.is_empty() {
            let batch = &folios[..folios.len().min(BATCH)];
            let mut pages = [core::ptr::null_mut(); BATCH];
            for (nth, (page, folio)) in pages.iter_mut().zip(batch).enumerate() {
                let index = area.index() + (addr - area.start()) / PAGE_SIZE + nth;
                // SAFETY: `folio` keeps it alive.
                *page = unsafe { helpers::vmalab_folio_file_page(folio.as_ptr(), index) };
            }
            let mut left = batch.len();
            // SAFETY: By the type invariants, the area is valid and a lock held. There are as many
            // pages as `left` says, which `folios` keeps alive. The area has the flag without which
            // the kernel would want the lock for writing.
            let result = to_result(unsafe {
                bindings::vm_insert_pages(area.as_ptr(), addr, pages.as_mut_ptr(), &mut left)
            });
            let done = match result {
                Ok(()) => batch.len(),
                // There is one already: on with the next.
                Err(error) if error == EBUSY => batch.len() - left + 1,
                Err(error) => return error.into(),
            };
            addr += done * PAGE_SIZE;
            folios = &folios[done.min(folios.len())..];
        }
        VmFault::NOPAGE
    }

    /// Puts a frame number into the page table: memory of a device, for which there need not be a
    /// page, and which is not counted (`vmf_insert_pfn`, `vmf_insert_mixed`).
    ///
    /// The area must have [`flags::PFNMAP`], and be shared or never writable, or
    /// [`flags::MIXEDMAP`], from its mmap handler on: SIGBUS if not.
    ///
    /// # Safety
    ///
    /// The program may do what the area allows with the physical page `pfn`, until it is out of the
    /// page table.
    pub(crate) unsafe fn insert_pfn(&self, pfn: usize) -> VmFault {
        if !self.takes_pfns() {
            return VmFault::SIGBUS;
        }
        let vma = self.area().as_ptr();
        // SAFETY: By the type invariants, the area is valid and a lock held. It has the flags that the
        // functions insist on. The rest is the caller's promise.
        VmFault(unsafe {
            if self.area().flags() & flags::MIXEDMAP != 0 {
                bindings::vmf_insert_mixed(vma, self.address(), pfn)
            } else {
                bindings::vmf_insert_pfn(vma, self.address(), pfn)
            }
        })
    }

    /// Puts a page of the area's own page cache into the page table by its frame number, as
    /// [`insert_pfn`](Self::insert_pfn) does. SIGBUS also if it is not the page that is asked for.
    ///
    /// # Safety
    ///
    /// No area of the cache maps its pages in another way.
    pub(crate) unsafe fn insert_frame(&self, frame: &Frame<'_>) -> VmFault {
        // SAFETY: By the type invariants, the area is valid. It has a file: it came through its mmap
        // handler.
        let mapping = unsafe { (*(*self.area().as_ptr()).vm_file).f_mapping };
        if mapping != frame.cache().as_ptr() || frame.index() != self.index() {
            return VmFault::SIGBUS;
        }
        if frame.has_failed() {
            return VmFault::HWPOISON;
        }
        // SAFETY: The page is for programs, and by the invariants of `Frame` it stays the cache's until
        // it was unmapped from all areas that are in its list, each at the index that it has there.
        // That was checked. The rest is the caller's promise.
        unsafe { self.insert_pfn(frame.pfn()) }
    }

    /// Lets go of the lock, and has the kernel start the fault again from its beginning. For a
    /// handler that has waited for something without which there is no page.
    ///
    /// # Errors
    ///
    /// Gives the fault back if it may not be retried, as when it is a retry already.
    pub(crate) fn retry(self) -> core::result::Result<VmFault, Self> {
        let flags = self.flags();
        if !flags.may_retry() {
            return Err(self);
        }
        if !flags.contains(bindings::fault_flag_FAULT_FLAG_RETRY_NOWAIT) {
            // SAFETY: By the type invariants, the lock is held. As `self` is used up, nobody refers
            // to the area any more, which may be gone after this.
            unsafe { helpers::vmalab_release_fault_lock(self.as_ptr()) };
        }
        Ok(VmFault(bindings::vm_fault_reason_VM_FAULT_RETRY))
    }
}

/// Whether one entry of the page table can stand for all of the folio.
fn is_huge(folio: &Folio) -> bool {
    folio.pages() >= 1 << Folio::MAX_ORDER
}

/// How a page was touched: `FAULT_FLAG_*`.
#[derive(Clone, Copy)]
pub(crate) struct FaultFlags(bindings::fault_flag);

impl FaultFlags {
    /// From the kernel's own number.
    pub(crate) fn from_bits(bits: bindings::fault_flag) -> Self {
        Self(bits)
    }

    /// The kernel's own number.
    pub(crate) fn bits(self) -> bindings::fault_flag {
        self.0
    }

    fn contains(self, flag: bindings::fault_flag) -> bool {
        self.0 & flag != 0
    }

    /// It is a write.
    pub(crate) fn is_write(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_WRITE)
    }

    /// An instruction was to be run from there.
    pub(crate) fn is_instruction(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_INSTRUCTION)
    }

    /// It comes from user mode, not from the kernel on behalf of a system call.
    pub(crate) fn is_user(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_USER)
    }

    /// It comes from another process, as with ptrace or `process_vm_readv`.
    pub(crate) fn is_remote(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_REMOTE)
    }

    /// Only the lock of the area is held, not the mmap lock. It happens to handlers of areas that
    /// have a `map_pages` hook.
    pub(crate) fn has_area_lock_only(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_VMA_LOCK)
    }

    /// The fault may be retried, and has not been retried yet.
    pub(crate) fn may_retry(self) -> bool {
        self.contains(bindings::fault_flag_FAULT_FLAG_ALLOW_RETRY)
            && !self.contains(bindings::fault_flag_FAULT_FLAG_TRIED)
    }
}

/// The answer to a fault: `vm_fault_t`.
#[must_use = "a page that was given is lost if the kernel is not told"]
pub(crate) struct VmFault(bindings::vm_fault_t);

impl VmFault {
    /// There is nothing there: the program gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// The program must not touch this: it gets SIGSEGV.
    pub(crate) const SIGSEGV: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGSEGV);

    /// There is no memory. The kernel looks for a process to kill, or for one that dies already, and
    /// the access is tried again.
    pub(crate) const OOM: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// The handler has put the page into the page table itself; or there is no page now, and the
    /// access is to be tried again.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);

    /// The memory has failed: the program gets SIGBUS with another code, and the kernel log tells of an
    /// error of the machine.
    pub(crate) const HWPOISON: Self = Self(bindings::vm_fault_reason_VM_FAULT_HWPOISON);

    /// What [`Fault::retry`] answers, as the kernel's own number.
    pub(crate) const RETRY_BITS: u32 = bindings::vm_fault_reason_VM_FAULT_RETRY;

    /// What [`Fault::give_locked`] answers, as the kernel's own number.
    pub(crate) const LOCKED_BITS: u32 = bindings::vm_fault_reason_VM_FAULT_LOCKED;

    /// The kernel's own number.
    pub(crate) fn bits(&self) -> bindings::vm_fault_t {
        self.0
    }
}

impl From<Error> for VmFault {
    /// As the kernel's `vmf_error`: ENOMEM is [`OOM`](Self::OOM), all else
    /// [`SIGBUS`](Self::SIGBUS).
    fn from(error: Error) -> Self {
        if error == ENOMEM {
            Self::OOM
        } else {
            Self::SIGBUS
        }
    }
}
