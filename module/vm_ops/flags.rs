// SPDX-License-Identifier: GPL-2.0-only

//! The flags that a driver gives to its areas, or takes from them, in its mmap handler.

use super::AreaDesc;
use kernel::{
    mm::virt::{flags, vm_flags_t, VmaNew},
    prelude::*,
};

/// Flags for new areas.
///
/// # Invariants
///
/// `set` is within [`SETTABLE`](Self::SETTABLE) and has at most one of [`flags::PFNMAP`] and
/// [`flags::MIXEDMAP`]. `clear` is within [`CLEARABLE`](Self::CLEARABLE).
#[derive(Clone, Copy)]
pub(crate) struct AreaFlags {
    set: vm_flags_t,
    clear: vm_flags_t,
}

impl AreaFlags {
    /// What a driver may set. All others are of the kernel's own accounting (LOCKED, ACCOUNT,
    /// NORESERVE), are for memory without a file only (WIPEONFORK), or are the program's to choose
    /// (those of madvise and mprotect).
    pub(crate) const SETTABLE: vm_flags_t = flags::PFNMAP
        | flags::MIXEDMAP
        | flags::IO
        | flags::DONTEXPAND
        | flags::DONTCOPY
        | flags::DONTDUMP;

    /// What a driver may clear, so that mprotect cannot allow it either.
    pub(crate) const CLEARABLE: vm_flags_t = flags::MAYREAD | flags::MAYWRITE | flags::MAYEXEC;

    /// # Errors
    ///
    /// EINVAL for a flag that a driver may not change, and for both of [`flags::PFNMAP`] and
    /// [`flags::MIXEDMAP`], at which the kernel stops (`vmf_insert_pfn_prot`).
    pub(crate) const fn new(set: vm_flags_t, clear: vm_flags_t) -> Result<Self> {
        const EITHER: vm_flags_t = flags::PFNMAP | flags::MIXEDMAP;
        if set & !Self::SETTABLE != 0 || clear & !Self::CLEARABLE != 0 || set & EITHER == EITHER {
            return Err(EINVAL);
        }
        // INVARIANT: That was checked.
        Ok(Self { set, clear })
    }

    /// What becomes of the flags of an area.
    ///
    /// # Errors
    ///
    /// EPERM if it is to permit at once what it may never permit, as with a sealed memfd. EINVAL for
    /// [`flags::PFNMAP`] where pages would be copied: a frame is not copied when it is written to, and
    /// the kernel stops at that, too.
    fn on(self, old: vm_flags_t) -> Result<vm_flags_t> {
        // VM_READ, VM_WRITE and VM_EXEC are four bits below, as mprotect has it.
        if old & self.clear >> 4 != 0 {
            return Err(EPERM);
        }
        let new = (old | self.set) & !self.clear;
        let copied = new & (flags::SHARED | flags::MAYWRITE) == flags::MAYWRITE;
        if new & flags::PFNMAP != 0 && copied {
            return Err(EINVAL);
        }
        Ok(new)
    }

    /// Changes the flags of a new area: for `.mmap`, before [`install`](super::install).
    ///
    /// # Errors
    ///
    /// EPERM, EINVAL: see the type.
    pub(crate) fn apply(self, vma: &VmaNew) -> Result {
        let new = self.on(vma.flags())?;
        // SAFETY: A `VmaNew` is an area in the making, which nobody else can see yet. By the type
        // invariants and the checks of `on`, these are flags that an area may have.
        unsafe { (*vma.as_ptr()).__bindgen_anon_2.vm_flags = new };
        Ok(())
    }

    /// The same for an area that does not exist yet: for `.mmap_prepare`.
    ///
    /// # Errors
    ///
    /// EPERM, EINVAL: see the type.
    pub(crate) fn apply_to(self, desc: &mut AreaDesc<'_>) -> Result {
        let new = self.on(desc.flags())?;
        // By the type invariants and the checks of `on`, these are flags that an area may have.
        desc.set_flags(new);
        Ok(())
    }
}
