// SPDX-License-Identifier: GPL-2.0-only

//! Many pages with one entry of the page table: the hook `huge_fault`.

use super::{FaultInfo, VmOperations};
use crate::{folio::Folio, helpers};
use core::ops::Deref;
use kernel::{bindings, page::PAGE_SIZE};

/// A page fault where the page table has room for an entry for 2 to the power of
/// [`order`](Self::order) pages; or where there is one, which is written to for the first time.
///
/// Whether the entry would be inside the area, the kernel does not look: [`first`](Self::first) does.
pub(crate) struct HugeFault<'a, T> {
    fault: FaultInfo<'a, T>,
    order: u32,
}

impl<'a, T> Deref for HugeFault<'a, T> {
    type Target = FaultInfo<'a, T>;

    fn deref(&self) -> &Self::Target {
        &self.fault
    }
}

impl<T: VmOperations> HugeFault<'_, T> {
    /// # Safety
    ///
    /// The invariants of [`FaultInfo`] hold for `vmf`, which is not NULL, and the order is the one that
    /// the kernel passed with it.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault, order: u32) -> Self {
        Self {
            // SAFETY: The caller's promise.
            fault: unsafe { FaultInfo::from_raw(vmf) },
            order,
        }
    }

    /// How many pages, as a power of two: those of the second level of the page table (`PMD_ORDER`), or
    /// of the third.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// The offset in what the area maps, in pages, of the first page that the entry would stand for;
    /// none if the entry would reach out of the area.
    pub(crate) fn first(&self) -> Option<usize> {
        let size = PAGE_SIZE << self.order;
        let begin = self.address() & !(size - 1);
        let area = self.area();
        let inside = begin >= area.start() && area.end() - begin >= size;
        inside.then(|| area.index() + (begin - area.start()) / PAGE_SIZE)
    }

    /// Whether it has to go page by page: as a private area is written to, and what is there has to be copied;
    /// as what there is must not be written to as a whole, so that the kernel has to split it; or as others
    /// have smaller pages there by now.
    fn goes_by_pages(&self) -> bool {
        // SAFETY: By the type invariants, this is the fault, of this order.
        let there = || unsafe { helpers::vmalab_fault_has_entry(self.as_ptr(), self.order) };
        self.flags().is_write() && (!self.writes_shared() || there())
    }

    /// Maps a whole folio of this order (`vmf_insert_folio_pmd`), which takes a reference of its own;
    /// [`HugeFaultAnswer::FALLBACK`] if it is of another order, if memory of it has failed, if it would reach
    /// out of the area, if pages have to be copied or there is an entry that is written to, or if the area has
    /// `VM_MIXEDMAP` or `VM_PFNMAP`: the kernel would not give such a reference back when it splits the entry.
    ///
    /// It may be written to if the area's pages may, without being asked for.
    ///
    /// The folio is to be the one with the page [`first`](Self::first) as its first. If it belongs to
    /// something that can be truncated, hold its lock.
    pub(crate) fn insert_folio(&self, folio: &Folio) -> HugeFaultAnswer {
        let whole = self.first().is_some() && !folio.has_failed();
        if !whole || self.goes_by_pages() || self.is_special() {
            return HugeFaultAnswer::FALLBACK;
        }
        // SAFETY: `folio` keeps it alive; by the type invariants, this is the fault, of this order. The
        // entry is inside the area.
        HugeFaultAnswer(unsafe {
            helpers::vmalab_insert_folio(self.as_ptr(), folio.as_ptr(), self.order)
        })
    }

    /// Maps as many frames from `pfn` on (`vmf_insert_pfn_pmd`); [`HugeFaultAnswer::FALLBACK`] if it is
    /// not a multiple of the order's size, if they would reach out of the area, or if pages have to be
    /// copied or there is an entry that is written to. As for [`insert_pfn`](super::Fault::insert_pfn), the
    /// area must be of the right kind: SIGBUS if not.
    ///
    /// # Safety
    ///
    /// The program may do what the area allows with the frames, until they are out of the page table.
    pub(crate) unsafe fn insert_pfn(&self, pfn: usize) -> HugeFaultAnswer {
        if self.first().is_none() || self.goes_by_pages() || pfn % (1 << self.order) != 0 {
            return HugeFaultAnswer::FALLBACK;
        }
        if !self.takes_pfns() {
            return HugeFaultAnswer::SIGBUS;
        }
        // SAFETY: By the type invariants, this is the fault, of this order. The area has the flags that
        // the function insists on. The rest is the caller's promise.
        HugeFaultAnswer(unsafe { helpers::vmalab_insert_pfn(self.as_ptr(), pfn, self.order) })
    }
}

/// The answer to [`HugeFault`].
#[must_use = "the kernel has to be told"]
pub(crate) struct HugeFaultAnswer(bindings::vm_fault_t);

impl HugeFaultAnswer {
    /// Nothing of that size: the kernel tries smaller ones, `fault` at last. What is there of that size
    /// is split.
    pub(crate) const FALLBACK: Self = Self(bindings::vm_fault_reason_VM_FAULT_FALLBACK);

    /// There is nothing there: the program gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// The program must not touch this: it gets SIGSEGV.
    pub(crate) const SIGSEGV: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGSEGV);

    /// The memory has failed: see [`VmFault::HWPOISON`](super::VmFault::HWPOISON).
    pub(crate) const HWPOISON: Self = Self(bindings::vm_fault_reason_VM_FAULT_HWPOISON);

    /// There is no memory: see [`VmFault::OOM`](super::VmFault::OOM). For a huge page, `FALLBACK` is
    /// better.
    pub(crate) const OOM: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// Nothing yet: the access is to be tried again.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);

    /// The kernel's own number.
    pub(crate) fn bits(&self) -> bindings::vm_fault_t {
        self.0
    }
}
