// SPDX-License-Identifier: GPL-2.0-only

//! A page that becomes writable: the hooks `page_mkwrite` and `pfn_mkwrite`.

use super::{FaultInfo, VmOperations};
use crate::{
    folio::{Folio, LockedFolio},
    helpers,
};
use core::{ops::Deref, ptr::NonNull};
use kernel::{bindings, prelude::*};

/// A page of a shared area, mapped for reading or about to be mapped, is about to become writable.
///
/// The page is not locked: it may be removed from its object at the same time. The kernel locks it
/// after the hook, and tries the access again if it is in no page cache any more.
pub(crate) struct PageMkwrite<'a, T>(FaultInfo<'a, T>);

impl<'a, T> Deref for PageMkwrite<'a, T> {
    type Target = FaultInfo<'a, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: VmOperations> PageMkwrite<'_, T> {
    /// # Safety
    ///
    /// The invariants of [`FaultInfo`] hold for `vmf`, which is not NULL and has the page.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: The caller's promise.
        Self(unsafe { FaultInfo::from_raw(vmf) })
    }

    /// The folio that the page is of.
    pub(crate) fn folio(&self) -> Folio {
        // SAFETY: The kernel passes the page, and holds a reference to it.
        let raw = unsafe { helpers::vmalab_page_folio_get(self.raw().page) };
        // SAFETY: A page is always of a folio; the reference was just taken.
        unsafe { Folio::from_raw(NonNull::new_unchecked(raw)) }
    }

    /// The page becomes writable; the folio stays locked until it is. For a handler that has seen under
    /// this lock that the page is still in its object, or has changed something under it, or whose pages
    /// are in no page cache.
    ///
    /// # Errors
    ///
    /// Gives the folio back if it is not the one that is asked for.
    pub(crate) fn allow_locked(
        self,
        folio: LockedFolio,
    ) -> core::result::Result<MkwriteAnswer, LockedFolio> {
        if !core::ptr::eq(folio.as_ptr(), self.folio().as_ptr()) {
            return Err(folio);
        }
        // The kernel has a reference of its own.
        drop(folio.into_locked());
        Ok(MkwriteAnswer(bindings::vm_fault_reason_VM_FAULT_LOCKED))
    }
}

/// As [`PageMkwrite`], for what was mapped by its frame number.
pub(crate) struct PfnMkwrite<'a, T>(FaultInfo<'a, T>);

impl<'a, T> Deref for PfnMkwrite<'a, T> {
    type Target = FaultInfo<'a, T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: VmOperations> PfnMkwrite<'_, T> {
    /// # Safety
    ///
    /// The invariants of [`FaultInfo`] hold for `vmf`, which is not NULL.
    pub(super) unsafe fn from_raw(vmf: *mut bindings::vm_fault) -> Self {
        // SAFETY: The caller's promise.
        Self(unsafe { FaultInfo::from_raw(vmf) })
    }
}

/// The answer to [`PageMkwrite`] and [`PfnMkwrite`].
///
/// There is no retry that lets go of the lock: the kernel goes on with the fault after this.
#[must_use = "the kernel has to be told"]
pub(crate) struct MkwriteAnswer(bindings::vm_fault_t);

impl MkwriteAnswer {
    /// The page becomes writable, if it is in a page cache when the kernel has locked it; else the access
    /// is tried again. So for a page that never is in one, [`PageMkwrite::allow_locked`] is the only way.
    pub(crate) const ALLOW: Self = Self(0);

    /// Not now: the access is to be tried again, since something has changed.
    pub(crate) const NOPAGE: Self = Self(bindings::vm_fault_reason_VM_FAULT_NOPAGE);

    /// It must not be written to, as when there is no space for it: the program gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// The program must not touch this: it gets SIGSEGV.
    pub(crate) const SIGSEGV: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGSEGV);

    /// The memory has failed: see [`VmFault::HWPOISON`](super::VmFault::HWPOISON).
    pub(crate) const HWPOISON: Self = Self(bindings::vm_fault_reason_VM_FAULT_HWPOISON);

    /// There is no memory: see [`VmFault::OOM`](super::VmFault::OOM).
    pub(crate) const OOM: Self = Self(bindings::vm_fault_reason_VM_FAULT_OOM);

    /// The kernel's own number.
    pub(crate) fn bits(&self) -> bindings::vm_fault_t {
        self.0
    }
}

impl From<Error> for MkwriteAnswer {
    /// As the kernel's `vmf_error`.
    fn from(error: Error) -> Self {
        if error == ENOMEM {
            Self::OOM
        } else {
            Self::SIGBUS
        }
    }
}
