// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mseal(2)`: `do_mseal`, `range_contains_unmapped`, `mseal_apply` (mm/mseal.c), since 6.10.
//!
//! What a seal forbids is asked where it is forbidden: `munmap` and what replaces (`gather`),
//! `mprotect`, `mremap`, and `madvise` that drops contents which its caller could not overwrite.

use crate::{AddressSpace, Container, Errno, PAGE_SIZE, VmFlags};

impl<C: Container> AddressSpace<C> {
    /// `mseal(2)`. What was sealed before an error stays sealed.
    ///
    /// # Errors
    ///
    /// ENOSYS: there is no such call yet. EINVAL: flags, unaligned, or wrapped around. ENOMEM: a hole in
    /// the range, or no room for a split.
    pub(crate) fn mseal(&mut self, addr: u64, len: u64, flags: u64) -> Result<(), Errno> {
        if !self.rules.mseal {
            return Err(Errno::ENOSYS);
        }
        if flags != 0 || addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let end = len
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|len| addr.checked_add(len))
            .ok_or(Errno::EINVAL)?;
        // All of it must be mapped, so that nobody can map something else into a sealed range.
        let mut at = addr;
        for vma in self.areas.iter_from(addr) {
            if vma.start > at || at >= end {
                break;
            }
            at = vma.end;
        }
        if at < end {
            return Err(Errno::ENOMEM);
        }
        let mut at = addr;
        let mut prev = self.areas.prev(addr).copied();
        while at < end {
            let Some(&vma) = self.areas.find(at) else {
                unreachable!("all of the range is mapped")
            };
            if at == addr && vma.start < addr {
                prev = Some(vma);
            }
            let mut now = vma;
            if !vma.flags.contains(VmFlags::SEALED) {
                let flags = vma.flags | VmFlags::SEALED;
                now = self.modify_flags(prev.as_ref(), &vma, at, vma.end.min(end), flags)?;
            }
            at = now.end;
            prev = Some(now);
        }
        Ok(())
    }
}
