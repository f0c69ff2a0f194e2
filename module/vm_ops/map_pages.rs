// SPDX-License-Identifier: GPL-2.0-only

//! Mapping what is at hand around a page that is read: the hook `map_pages`.

use super::{FaultInfo, VmOperations};
use core::ops::{Deref, RangeInclusive};
use kernel::bindings;

/// A page fault for reading, and the neighbourhood in which pages may be mapped: within the area and
/// within one page table, 16 pages if nobody changed that in debugfs.
///
/// RCU is read-locked: nothing here may sleep.
pub(crate) struct MapPages<'a, T> {
    fault: FaultInfo<'a, T>,
    pages: RangeInclusive<usize>,
}

impl<'a, T> Deref for MapPages<'a, T> {
    type Target = FaultInfo<'a, T>;

    fn deref(&self) -> &Self::Target {
        &self.fault
    }
}

impl<T: VmOperations> MapPages<'_, T> {
    /// # Safety
    ///
    /// The invariants of [`FaultInfo`] hold for `vmf`, which is not NULL, and the pages are those that
    /// the kernel passed with it.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault, first: usize, last: usize) -> Self {
        Self {
            // SAFETY: The caller's promise.
            fault: unsafe { FaultInfo::from_raw(vmf) },
            pages: first..=last,
        }
    }

    /// The pages that may be mapped, as offsets in what the area maps, in pages.
    pub(crate) fn pages(&self) -> RangeInclusive<usize> {
        self.pages.clone()
    }

    /// Maps those that are in the page cache of the area's file, up to date, not locked, and not past
    /// its end (`filemap_map_pages`). None in an area with `VM_MIXEDMAP` or `VM_PFNMAP`: of a huge page the
    /// kernel would map all with one entry, which it cannot split there without losing count.
    ///
    /// It cannot miss a truncation: each page is locked while it is mapped, and is mapped only if it is
    /// still in the cache.
    pub(crate) fn map_cached(&self) -> MapPagesAnswer {
        if self.is_special() {
            return MapPagesAnswer::NOTHING;
        }
        // SAFETY: By the invariants of `FaultInfo`, this is the fault, and we are in its `map_pages`,
        // as the pages are those that the kernel passed. The area has a file: it came through its mmap
        // handler.
        MapPagesAnswer(unsafe {
            bindings::filemap_map_pages(self.fault.as_ptr(), *self.pages.start(), *self.pages.end())
        })
    }
}

/// The answer to [`MapPages`].
#[must_use = "the kernel has to be told"]
pub(crate) struct MapPagesAnswer(bindings::vm_fault_t);

impl MapPagesAnswer {
    /// Nothing was mapped: `fault` is asked.
    pub(crate) const NOTHING: Self = Self(0);

    /// The page was mapped; or there is none now, and the access is to be tried again.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);

    /// There is nothing there: the program gets SIGBUS, and `fault` is not asked.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// There is no memory: see [`VmFault::OOM`](super::VmFault::OOM).
    pub(crate) const OOM: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// The program must not touch this: it gets SIGSEGV.
    pub(crate) const SIGSEGV: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGSEGV);

    /// The memory has failed: see [`VmFault::HWPOISON`](super::VmFault::HWPOISON).
    pub(crate) const HWPOISON: Self = Self(bindings::vm_fault_reason_VM_FAULT_HWPOISON);

    /// The kernel's own number.
    pub(crate) fn bits(&self) -> bindings::vm_fault_t {
        self.0
    }
}
