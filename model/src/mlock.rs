// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mlock(2)`, `mlock2(2)`, `munlock(2)`, `mlockall(2)` and `munlockall(2)`: `do_mlock`,
//! `apply_vma_lock_flags`, `apply_mlockall_flags`, `mlock_fixup` (mm/mlock.c).
//!
//! The names are those of 7.2; `apply_vma_lock_flags` and `apply_mlockall_flags` came with `mlock2` in 4.4, before
//! which `do_mlock` and `do_mlockall` had the loops. Until 2.6.37 pages were made area by area
//! (`make_pages_present`), since then at the end (`__mm_populate`).

use crate::merge::SPECIAL;
use crate::{
    AddressSpace, Container, Errno, MlockFlags, MlockallFlags, PAGE_SHIFT, PAGE_SIZE, VmFlags, Vma,
};

/// Both kinds of locking (`VM_LOCKED_MASK`).
pub(crate) const LOCKED: VmFlags = VmFlags(VmFlags::LOCKED.0 | VmFlags::LOCKONFAULT.0);

impl<C: Container> AddressSpace<C> {
    /// `mlock(2)`, and with flags `mlock2(2)`. What was locked before an error stays locked.
    ///
    /// # Errors
    ///
    /// EPERM: nothing may be locked. ENOMEM: the limit, a hole in the range, no room for a split, or
    /// pages that cannot be had. EINVAL: the range wraps around, or unknown flags. ENOSYS: there is no
    /// `mlock2` yet.
    pub(crate) fn mlock(&mut self, addr: u64, len: u64, flags: MlockFlags) -> Result<(), Errno> {
        let mut lock = VmFlags::LOCKED;
        if flags != MlockFlags::empty() {
            if !self.rules.mlock2 {
                return Err(Errno::ENOSYS);
            }
            if flags != MlockFlags::ONFAULT {
                return Err(Errno::EINVAL);
            }
            lock |= VmFlags::LOCKONFAULT;
        }
        if !self.limits.can_do_mlock() {
            return Err(Errno::EPERM);
        }
        let (start, len) = lock_range(addr, len);
        let limit = self.limits.memlock >> PAGE_SHIFT;
        if !self.limits.cap_ipc_lock {
            let mut locked = (len >> PAGE_SHIFT).wrapping_add(self.counters.locked_vm);
            if locked > limit && self.rules.mlock_counts_once {
                locked = locked.wrapping_sub(self.locked_in(start, start.saturating_add(len)));
            }
            if locked > limit {
                return Err(Errno::ENOMEM);
            }
        }
        self.apply_lock_flags(start, len, lock)?;
        if self.rules.mlock_populates_each {
            return Ok(());
        }
        // __mlock_posix_error_return
        self.populate(start, start + len)
            .map_err(|error| match error {
                Errno::ENOMEM => Errno::EAGAIN,
                _ => Errno::ENOMEM,
            })
    }

    /// `munlock(2)`.
    ///
    /// # Errors
    ///
    /// As [`mlock`](Self::mlock), but for what concerns limits and pages.
    pub(crate) fn munlock(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let (start, len) = lock_range(addr, len);
        self.apply_lock_flags(start, len, VmFlags::empty())
    }

    /// `mlockall(2)`. Areas that cannot be locked are left out.
    ///
    /// # Errors
    ///
    /// EINVAL: flags that make no sense. EPERM: nothing may be locked. ENOMEM: the limit.
    pub(crate) fn mlockall(&mut self, flags: MlockallFlags) -> Result<(), Errno> {
        let mut known = MlockallFlags::CURRENT | MlockallFlags::FUTURE;
        if self.rules.mlock2 {
            known |= MlockallFlags::ONFAULT;
        }
        let alone = flags == MlockallFlags::ONFAULT && self.rules.mlockall_checks_onfault;
        if flags == MlockallFlags::empty()
            || flags.without(known) != MlockallFlags::empty()
            || alone
        {
            return Err(Errno::EINVAL);
        }
        if !self.limits.can_do_mlock() {
            return Err(Errno::EPERM);
        }
        let current = flags.contains(MlockallFlags::CURRENT);
        if current
            && !self.limits.cap_ipc_lock
            && self.counters.total_vm > self.limits.memlock >> PAGE_SHIFT
        {
            return Err(Errno::ENOMEM);
        }
        self.apply_lockall_flags(flags);
        if current && !self.rules.mlock_populates_each {
            // What cannot be had is left out.
            let mut at = 0;
            while let Some(&vma) = self.areas.find(at) {
                at = vma.end;
                let _ = self.populate(vma.start, vma.end);
            }
        }
        Ok(())
    }

    /// `munlockall(2)`.
    pub(crate) fn munlockall(&mut self) {
        self.apply_lockall_flags(MlockallFlags::empty());
    }

    /// `apply_mlockall_flags`
    fn apply_lockall_flags(&mut self, flags: MlockallFlags) {
        let mut lock = VmFlags::LOCKED;
        if flags.contains(MlockallFlags::ONFAULT) {
            lock |= VmFlags::LOCKONFAULT;
        }
        let current = flags.contains(MlockallFlags::CURRENT);
        self.def_flags = self.def_flags.without(LOCKED);
        if flags.contains(MlockallFlags::FUTURE) {
            self.def_flags |= lock;
            if !current {
                return;
            }
        }
        let add = if current { lock } else { VmFlags::empty() };
        let mut prev = None;
        let mut at = 0;
        while let Some(&vma) = self.areas.find(at) {
            let flags = vma.flags.without(LOCKED) | add;
            let now = self.mlock_fixup(prev, &vma, vma.start, vma.end, flags);
            let now = now.unwrap_or(vma);
            at = now.end;
            prev = Some(now);
        }
    }

    fn count_locked(&mut self, pages: i64) {
        self.counters.locked_vm = self.counters.locked_vm.wrapping_add_signed(pages);
    }

    /// `count_mm_mlocked_page_nr`
    fn locked_in(&self, start: u64, end: u64) -> u64 {
        self.areas
            .iter_from(start)
            .take_while(|vma| vma.start < end)
            .filter(|vma| vma.flags.contains(VmFlags::LOCKED))
            .map(|vma| (vma.end.min(end) - vma.start.max(start)) >> PAGE_SHIFT)
            .sum()
    }

    /// `apply_vma_lock_flags`
    fn apply_lock_flags(&mut self, start: u64, len: u64, add: VmFlags) -> Result<(), Errno> {
        let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
        if end == start {
            return Ok(());
        }
        let mut at = start;
        let mut prev = None;
        while at < end {
            let vma = *self
                .areas
                .find(at)
                .filter(|vma| vma.start <= at)
                .ok_or(Errno::ENOMEM)?;
            if at == start {
                prev = if at > vma.start {
                    Some(vma)
                } else {
                    self.areas.prev(at).copied()
                };
            }
            let flags = vma.flags.without(LOCKED) | add;
            let now = self.mlock_fixup(prev, &vma, at, vma.end.min(end), flags)?;
            at = now.end;
            prev = Some(now);
        }
        Ok(())
    }

    /// `mlock_fixup`. Gives the area that now holds the range.
    fn mlock_fixup(
        &mut self,
        prev: Option<Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        flags: VmFlags,
    ) -> Result<Vma, Errno> {
        let old = vma.flags;
        let pages = ((end - start) >> PAGE_SHIFT) as i64;
        // In an int, 8 TiB are locked as a negative number of pages.
        let pages = if self.rules.mlock_counts_in_an_int {
            i64::from(pages as i32)
        } else {
            pages
        };
        if !self.rules.mlock_merges {
            if flags == old {
                return Ok(*vma);
            }
            let new = Vma {
                flags,
                ..vma.part(start..end)
            };
            let mut now = self.cut_out(vma, new).map_err(|_| Errno::EAGAIN)?;
            if flags.contains(VmFlags::LOCKED) {
                self.count_locked(pages);
                self.make_pages_present(start, end)?;
                now = *self.areas.find(start).unwrap_or(&now);
            } else {
                self.count_locked(-pages);
            }
            return Ok(now);
        }
        // vma_supports_mlock
        if flags == old || old.intersects(SPECIAL | VmFlags::DROPPABLE | VmFlags::HUGETLB) {
            return Ok(*vma);
        }
        let now = self.modify_flags(prev.as_ref(), vma, start, end, flags)?;
        if !flags.contains(VmFlags::LOCKED) {
            self.count_locked(-pages);
        } else if !old.contains(VmFlags::LOCKED) {
            self.count_locked(pages);
        }
        Ok(now)
    }
}

/// The pages that a range of bytes touches; the sum may wrap around to nothing, as in the kernel.
fn lock_range(addr: u64, len: u64) -> (u64, u64) {
    let bytes = len.wrapping_add(addr % PAGE_SIZE);
    (
        addr & !(PAGE_SIZE - 1),
        bytes.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1),
    )
}
