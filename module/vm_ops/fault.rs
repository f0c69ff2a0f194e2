// SPDX-License-Identifier: GPL-2.0-only

//! A page fault, and the ways to answer it.

use super::{Area, VmOperations};
use crate::{
    folio::{Folio, LockedFolio},
    helpers,
};
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{bindings, prelude::*};

/// A page fault in an area of `T`: somebody touched a page that is not in the page table.
///
/// Some answers need the fault itself and use it up ([`give_locked`](Self::give_locked),
/// [`give`](Self::give), [`retry`](Self::retry)); the others are constants of [`VmFault`].
///
/// # Invariants
///
/// `vmf` is the fault that the kernel is in the middle of, in an area of which the invariants of
/// [`Area`] hold for 'a. No page has been given yet, and the lock of the fault is held.
pub(crate) struct Fault<'a, T> {
    vmf: NonNull<bindings::vm_fault>,
    _area: PhantomData<&'a Area<T>>,
}

impl<T: VmOperations> Fault<'_, T> {
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

    fn raw(&self) -> &bindings::vm_fault {
        // SAFETY: By the type invariants, it is valid, and nobody writes to it while the hook runs
        // but this type, which has no reference out while it does.
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

    /// The flags with which pages for this area are to be allocated: those of the page cache that
    /// its file maps.
    pub(crate) fn gfp(&self) -> bindings::gfp_t {
        self.raw().__bindgen_anon_1.gfp_mask
    }

    /// Answers with a page, and the reference to it that `folio` is. Which page of a large folio it
    /// is follows from [`index`](Self::index).
    ///
    /// The kernel maps it, or copies it if a private mapping is being written to, and does the
    /// accounting. If the page belongs to something that can be truncated, use
    /// [`give_locked`](Self::give_locked).
    pub(crate) fn give(self, folio: Folio) -> VmFault {
        self.put(folio);
        VmFault(0)
    }

    /// As [`give`](Self::give); the kernel keeps the folio locked until the page is in the page
    /// table. Who removes the page from the object locks it, too, and so cannot miss that it is
    /// mapped.
    pub(crate) fn give_locked(self, folio: LockedFolio) -> VmFault {
        self.put(folio.into_locked());
        VmFault(bindings::vm_fault_reason_VM_FAULT_LOCKED)
    }

    fn put(mut self, folio: Folio) {
        let index = self.index();
        let folio = folio.into_raw();
        // SAFETY: The reference that `folio` was keeps it alive.
        let page = unsafe { helpers::vmalab_folio_file_page(folio, index) };
        // SAFETY: By the type invariants, the fault is valid and we may write to it; the reference
        // goes to the kernel with it.
        unsafe { self.vmf.as_mut() }.page = page;
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
            unsafe { helpers::vmalab_release_fault_lock(self.vmf.as_ptr()) };
        }
        Ok(VmFault(bindings::vm_fault_reason_VM_FAULT_RETRY))
    }
}

/// How a page was touched: `FAULT_FLAG_*`.
#[derive(Clone, Copy)]
pub(crate) struct FaultFlags(bindings::fault_flag);

impl FaultFlags {
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

    /// The kernel's own number.
    pub(super) fn into_raw(self) -> bindings::vm_fault_t {
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
