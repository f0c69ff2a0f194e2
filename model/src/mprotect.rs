// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mprotect(2)`, `pkey_mprotect(2)`: `do_mprotect_pkey`, `mprotect_fixup` (mm/mprotect.c).
//!
//! The names are those of 7.2; until 4.8 `sys_mprotect` was all that there was.

use crate::mmap::prot_flags;
use crate::{AddressSpace, Container, Errno, Hook, Object, PAGE_SIZE, Prot, VmFlags, Vma};

/// What `mprotect` sets and clears (`VM_ACCESS_FLAGS`).
pub(crate) const ACCESS: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0);
/// Accepted without meaning (`PROT_SEM`).
const PROT_SEM: u32 = 8;

impl<C: Container> AddressSpace<C> {
    /// `mprotect(2)`. What was changed before an error stays changed.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, or bits that are no protection. ENOMEM: a hole in the range, a limit, or no
    /// room for a split. EACCES: more than the mapping may have. EPERM: a sealed area.
    pub(crate) fn mprotect(
        &mut self,
        addr: u64,
        len: u64,
        prot: Prot,
        pkey: Option<i32>,
    ) -> Result<(), Errno> {
        let grows = Prot::GROWSDOWN | Prot::GROWSUP;
        if prot.contains(grows) || addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let checks_empty = self.rules.mprotect_checks_empty;
        if len == 0 && !checks_empty {
            return Ok(());
        }
        // A length just below 2^64 is rounded up to 0.
        let end = addr
            .checked_add(len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1))
            .filter(|&end| end > addr || checks_empty)
            .ok_or(Errno::ENOMEM)?;
        let plain = prot.without(grows);
        if plain.0 & !(7 | PROT_SEM) != 0 {
            return Err(Errno::EINVAL);
        }
        if pkey.is_some_and(|pkey| !self.is_allocated(pkey)) {
            return Err(Errno::EINVAL);
        }
        if end == addr {
            return Ok(());
        }
        let first = *self
            .areas
            .find(addr)
            .filter(|vma| vma.start < end)
            .ok_or(Errno::ENOMEM)?;
        let mut start = addr;
        if prot.contains(Prot::GROWSDOWN) {
            start = first.start;
            if !first.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
        } else if first.start > addr {
            return Err(Errno::ENOMEM);
        } else if prot.contains(Prot::GROWSUP) {
            // Nothing grows up on x86.
            return Err(Errno::EINVAL);
        }

        let access = prot_flags(plain);
        let mut prev = if start > first.start {
            Some(first)
        } else {
            self.areas.prev(start).copied()
        };
        while start < end {
            let vma = *self
                .areas
                .find(start)
                .filter(|vma| vma.start <= start)
                .ok_or(Errno::ENOMEM)?;
            if vma.flags.contains(VmFlags::HUGETLB) && self.rules.mprotect_refuses_hugetlb {
                return Err(Errno::EACCES);
            }
            let key = self.override_key(vma.flags, plain, pkey);
            let flags = vma.flags.without(ACCESS | VmFlags::PKEY) | access | key;
            // Each VM_MAY* flag is four bits above its VM_* flag.
            if flags.0 & !(flags.0 >> 4) & ACCESS.0 != 0 {
                return Err(Errno::EACCES);
            }
            if self.denies_write_exec(vma.flags, flags) {
                return Err(Errno::EACCES);
            }
            self.ask_mprotect(&vma, start, vma.end.min(end), flags)?;
            let now = self.mprotect_fixup(prev.as_ref(), &vma, start, vma.end.min(end), flags)?;
            if now.flags != vma.flags && self.went_back && self.rules.mprotect_asks_again {
                self.ask_mprotect(&now, now.start, now.end, now.flags)?;
            }
            start = now.end;
            prev = Some(now);
        }
        Ok(())
    }

    /// `pkey_mprotect(2)`.
    ///
    /// # Errors
    ///
    /// As [`mprotect`](Self::mprotect). ENOSYS: there is no such call yet. EINVAL: a key that nobody
    /// allocated.
    pub(crate) fn pkey_mprotect(
        &mut self,
        addr: u64,
        len: u64,
        prot: Prot,
        pkey: i32,
    ) -> Result<(), Errno> {
        if !self.rules.pkeys {
            return Err(Errno::ENOSYS);
        }
        self.mprotect(addr, len, prot, Some(pkey).filter(|&pkey| pkey != -1))
    }

    /// Asks the driver whether a part of the area may get these flags (`vm_ops->mprotect`).
    fn ask_mprotect(
        &mut self,
        vma: &Vma,
        start: u64,
        end: u64,
        flags: VmFlags,
    ) -> Result<(), Errno> {
        let Object::File(id) = vma.object else {
            return Ok(());
        };
        if !self.rules.asks_before_mprotect {
            return Ok(());
        }
        let usually = self.file(id).mprotect_error;
        self.ask(Hook::Mprotect { start, end, flags }, vma, usually)
    }

    /// `mprotect_fixup`. Gives the area that now holds the range.
    fn mprotect_fixup(
        &mut self,
        prev: Option<&Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        mut flags: VmFlags,
    ) -> Result<Vma, Errno> {
        let old = vma.flags;
        let pages = (end - start) / PAGE_SIZE;
        if old.contains(VmFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        if flags == old {
            return Ok(*vma);
        }
        let mut charged = 0;
        if flags.contains(VmFlags::WRITE) {
            if !self.may_expand_vm(flags, pages) && self.may_expand_vm(old, pages) {
                return Err(Errno::ENOMEM);
            }
            let settled = VmFlags::ACCOUNT
                | VmFlags::WRITE
                | VmFlags::HUGETLB
                | VmFlags::SHARED
                | VmFlags::NORESERVE;
            if !old.intersects(settled) {
                self.charge(pages)?;
                charged = pages;
                flags |= VmFlags::ACCOUNT;
            }
        } else if self.rules.mprotect_unaccounts
            && old.contains(VmFlags::ACCOUNT)
            && vma.object == Object::Anon
            && vma.anon_vma.is_none()
        {
            flags = flags.without(VmFlags::ACCOUNT);
        }
        let modified = self.modify_flags(prev, vma, start, end, flags);
        let mut now = modified.inspect_err(|_| self.uncharge(charged))?;
        if old.contains(VmFlags::ACCOUNT) && !flags.contains(VmFlags::ACCOUNT) {
            self.uncharge(pages);
        }
        if flags.contains(VmFlags::WRITE)
            && old.contains(VmFlags::LOCKED)
            && !old.intersects(VmFlags::WRITE | VmFlags::SHARED)
        {
            let _ = self.populate_area(&now, start, end);
            now = *self.areas.find(now.start).unwrap_or(&now);
        }
        let file = vma.has_file();
        self.counters.sub(&self.rules, old, file, pages);
        self.counters.add(&self.rules, flags, file, pages);
        Ok(now)
    }
}
