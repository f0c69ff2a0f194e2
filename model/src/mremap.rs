// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mremap(2)`: `do_mremap`, `remap_move`, `mremap_to`, `mremap_at`, `move_vma` (mm/mremap.c) and
//! `copy_vma` (mm/vma.c), as they are since 6.17, and the order of steps that `sys_mremap`,
//! `mremap_to` and `vma_to_resize` had before.

use crate::mlock::LOCKED;
use crate::rules::{Dontunmap, Mistake};
use crate::unmapped_area::{PMD_SIZE, Request};
use crate::{
    AddressSpace, Allocation, Container, Errno, File, Hook, MapFlags, MremapFlags, Object,
    PAGE_SHIFT, PAGE_SIZE, VmFlags, Vma,
};

/// A remapping under way (`struct vma_remap_struct`).
#[derive(Clone, Copy)]
struct Remap {
    addr: u64,
    old_len: u64,
    /// `old_len` before it shrank.
    asked: u64,
    new_len: u64,
    flags: MremapFlags,
    new_addr: u64,
    /// What grew is locked, so that its pages are wanted.
    populate: bool,
}

impl Remap {
    fn delta(&self) -> u64 {
        self.old_len.abs_diff(self.new_len)
    }

    fn shrinks(&self) -> bool {
        self.old_len > self.new_len
    }

    fn grows(&self) -> bool {
        self.old_len < self.new_len
    }

    fn implies_new_addr(&self) -> bool {
        self.flags
            .intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP)
    }

    /// Huge pages of the pool move or shrink as a whole (`align_hugetlb`).
    fn align_hugetlb(&mut self, vma: &Vma) -> Result<(), Errno> {
        if !vma.flags.contains(VmFlags::HUGETLB) {
            return Ok(());
        }
        let align = |len: u64| len.wrapping_add(PMD_SIZE - 1) & !(PMD_SIZE - 1);
        self.old_len = align(self.old_len);
        self.new_len = align(self.new_len);
        if self.addr % PMD_SIZE != 0 || self.new_addr % PMD_SIZE != 0 || self.grows() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// `check_mremap_params`; with the mistake that a length of 0 is taken.
    fn check(&self, task_size: u64, nothing: bool) -> Result<(), Errno> {
        let known = MremapFlags::FIXED | MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        let mut ok = self.flags.without(known) == MremapFlags::empty()
            && self.addr % PAGE_SIZE == 0
            && (self.new_len != 0 || nothing)
            && self.new_len <= task_size;
        if ok && self.implies_new_addr() {
            let overlap = self.addr.wrapping_add(self.old_len) > self.new_addr
                && self.new_addr.wrapping_add(self.new_len) > self.addr;
            ok = self.new_addr <= task_size - self.new_len
                && self.new_addr % PAGE_SIZE == 0
                && self.flags.contains(MremapFlags::MAYMOVE)
                && !(self.flags.contains(MremapFlags::DONTUNMAP) && self.old_len != self.new_len)
                && !overlap;
        }
        if ok { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

impl<C: Container> AddressSpace<C> {
    /// `mremap(2)`. Gives the address.
    ///
    /// # Errors
    ///
    /// EINVAL: arguments that make no sense. EFAULT: not mapped, or not one area where it must be.
    /// ENOMEM: a limit, or no room. EAGAIN: the limit on locked memory. EPERM: a sealed area.
    pub(crate) fn mremap(
        &mut self,
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: MremapFlags,
        new_addr: u64,
    ) -> Result<u64, Errno> {
        let align = |len: u64| len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let mut remap = Remap {
            addr,
            old_len: align(old_len),
            asked: align(old_len),
            new_len: align(new_len),
            flags,
            new_addr,
            populate: false,
        };
        let dontunmap = flags.contains(MremapFlags::DONTUNMAP);
        if dontunmap && self.rules.dontunmap == Dontunmap::Unknown {
            return Err(Errno::EINVAL);
        }
        if !self.rules.mremap_checks_first {
            if dontunmap && old_len != new_len {
                return Err(Errno::EINVAL);
            }
            return self.mremap_step_by_step(&mut remap);
        }
        let nothing = self.rules.errs(Mistake::MremapToNothingWorks) && !remap.implies_new_addr();
        remap.check(self.limits.task_size, nothing)?;
        // The worst case of the unmappings that may come first, and of the move.
        let count = self.counters.map_count;
        let full = if self.rules.mremap_counts_exactly {
            count + 4 + u64::from(dontunmap) > self.max_map_count()
        } else {
            remap.implies_new_addr() && count + 5 >= self.max_map_count()
        };
        if full {
            return Err(Errno::ENOMEM);
        }
        if flags.contains(MremapFlags::FIXED) && remap.old_len == remap.new_len {
            return self.remap_move(&remap);
        }
        let vma = self.lookup(addr)?;
        self.check_prep(&mut remap, &vma)?;
        let result = if remap.implies_new_addr() {
            self.mremap_to(&mut remap, vma)?
        } else {
            self.mremap_at(&mut remap, &vma)?
        };
        self.populate_grown(&remap);
        Ok(result)
    }

    /// Faults in what grew and is locked.
    fn populate_grown(&mut self, remap: &Remap) {
        if remap.populate {
            let start = remap.new_addr + remap.old_len;
            let end = start + remap.delta();
            let _ = if self.rules.mlock_populates_each {
                self.make_pages_present(start, end)
            } else {
                self.populate(start, end)
            };
        }
    }

    /// `mremap` as it was before 6.17: each argument is checked where it is used, so that an error may
    /// come when something has been unmapped already.
    fn mremap_step_by_step(&mut self, remap: &mut Remap) -> Result<u64, Errno> {
        let known = MremapFlags::FIXED | MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        let addr = remap.addr;
        if remap.flags.without(known) != MremapFlags::empty()
            || (remap.implies_new_addr() && !remap.flags.contains(MremapFlags::MAYMOVE))
            || addr % PAGE_SIZE != 0
            || remap.new_len == 0
        {
            return Err(Errno::EINVAL);
        }
        if self.rules.mremap_looks_up_first {
            let vma = self.lookup(addr)?;
            if vma.flags.contains(VmFlags::SEALED) {
                return Err(Errno::EPERM);
            }
            remap.align_hugetlb(&vma)?;
        }
        if remap.implies_new_addr() {
            return self.mremap_to_step_by_step(remap);
        }
        remap.new_addr = addr;
        if !remap.grows() {
            if remap.shrinks() {
                self.munmap(addr.wrapping_add(remap.new_len), remap.delta())?;
            }
            return Ok(addr);
        }
        let vma = self.lookup(addr)?;
        self.check_resize(remap, &vma)?;
        let result = self.mremap_at(remap, &vma)?;
        self.populate_grown(remap);
        Ok(result)
    }

    /// `mremap_to` before 6.17.
    fn mremap_to_step_by_step(&mut self, remap: &mut Remap) -> Result<u64, Errno> {
        let task_size = self.limits.task_size;
        let Remap {
            addr,
            old_len,
            new_len,
            new_addr,
            ..
        } = *remap;
        if new_addr % PAGE_SIZE != 0
            || new_len > task_size
            || new_addr > task_size - new_len
            || (addr.wrapping_add(old_len) > new_addr && new_addr + new_len > addr)
        {
            return Err(Errno::EINVAL);
        }
        if self.rules.mremap_counts_first && self.counters.map_count + 5 >= self.max_map_count() {
            return Err(Errno::ENOMEM);
        }
        if remap.flags.contains(MremapFlags::FIXED) {
            self.make_room(new_addr, new_len)?;
        }
        if remap.shrinks() {
            self.munmap(addr.wrapping_add(new_len), remap.delta())?;
            remap.old_len = new_len;
        }
        let vma = self.lookup(addr)?;
        self.check_resize(remap, &vma)?;
        if remap.flags.contains(MremapFlags::DONTUNMAP)
            && !self.may_expand_vm(vma.flags, remap.old_len >> PAGE_SHIFT)
        {
            return Err(Errno::ENOMEM);
        }
        self.set_new_addr(remap, &vma)?;
        let result = self.move_vma(remap, vma)?;
        self.populate_grown(remap);
        Ok(result)
    }

    /// The area at an address (`vma_lookup`), or EFAULT.
    fn lookup(&self, addr: u64) -> Result<Vma, Errno> {
        self.areas
            .find(addr)
            .filter(|vma| vma.start <= addr)
            .copied()
            .ok_or(Errno::EFAULT)
    }

    /// Moves all areas of a range, with the gaps between them (`remap_move`).
    fn remap_move(&mut self, whole: &Remap) -> Result<u64, Errno> {
        let end = whole.addr.wrapping_add(whole.old_len);
        let mut result = Err(Errno::EFAULT);
        let mut target = whole.new_addr;
        let mut last_end = None;
        let mut at = whole.addr;
        while at < end {
            let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) else {
                break;
            };
            if last_end.is_none() && vma.start > whole.addr {
                return Err(Errno::EFAULT);
            }
            if !self.may_be_one_of_many(&vma) && (last_end.is_some() || vma.end < end) {
                return Err(Errno::EFAULT);
            }
            let addr = vma.start.max(whole.addr);
            let len = vma.end.min(end) - addr;
            let gap = last_end.map_or(0, |last| vma.start - last);
            let mut remap = Remap {
                addr,
                old_len: len,
                asked: len,
                new_len: len,
                new_addr: target + gap,
                ..*whole
            };
            self.check_prep(&mut remap, &vma)?;
            let moved = self.mremap_to(&mut remap, vma)?;
            if last_end.is_none() {
                result = Ok(moved);
            }
            last_end = Some(vma.end);
            target = moved + len;
            at = vma.end;
        }
        result
    }

    /// Whether an area may move together with others (`vma_multi_allowed`): not if a userfaultfd has to be
    /// told, for which the lock is dropped, nor if its driver could put it elsewhere than it shall be.
    fn may_be_one_of_many(&self, vma: &Vma) -> bool {
        let elsewhere = match vma.object {
            Object::File(id) => self.file(id).chooses_address,
            _ => false,
        };
        !vma.flags.contains(VmFlags::UFFD_MISSING) && !elsewhere
    }

    /// `check_prep_vma`
    fn check_prep(&self, remap: &mut Remap, vma: &Vma) -> Result<(), Errno> {
        if vma.flags.contains(VmFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        remap.align_hugetlb(vma)?;
        if !remap.implies_new_addr() {
            remap.new_addr = remap.addr;
            if !remap.grows() {
                return Ok(());
            }
        }
        self.check_resize(remap, vma)
    }

    /// The second half of `check_prep_vma`, and `vma_to_resize` before that.
    fn check_resize(&self, remap: &mut Remap, vma: &Vma) -> Result<(), Errno> {
        let fixed_size = vma.flags.intersects(VmFlags::DONTEXPAND | VmFlags::PFNMAP);
        if vma.flags.contains(VmFlags::HUGETLB) && !self.rules.mremap_looks_up_first {
            return Err(Errno::EINVAL);
        }
        let foreign = self.rules.dontunmap == Dontunmap::Anonymous && vma.object != Object::Anon;
        if remap.flags.contains(MremapFlags::DONTUNMAP) && foreign {
            return Err(Errno::EINVAL);
        }
        if remap.old_len == 0
            && !vma.flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE)
            && self.rules.mremap_duplicates_shared_only
            || remap.flags.contains(MremapFlags::DONTUNMAP) && fixed_size
        {
            return Err(Errno::EINVAL);
        }
        let old_len = if remap.shrinks() {
            remap.new_len
        } else {
            remap.old_len
        };
        if old_len > vma.end - remap.addr {
            return Err(Errno::EFAULT);
        }
        if remap.new_len == old_len {
            return Ok(());
        }
        let locked = vma.flags.contains(VmFlags::LOCKED);
        remap.populate = locked;
        if vma
            .pgoff_at(remap.addr)
            .checked_add(remap.new_len >> PAGE_SHIFT)
            .is_none()
        {
            return Err(Errno::EINVAL);
        }
        if fixed_size {
            return Err(Errno::EFAULT);
        }
        if !self
            .limits
            .may_lock(locked, remap.delta(), self.counters.locked_vm)
        {
            return Err(Errno::EAGAIN);
        }
        if !self.may_expand_vm(vma.flags, remap.delta() >> PAGE_SHIFT) {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// To another place (`mremap_to`).
    fn mremap_to(&mut self, remap: &mut Remap, mut vma: Vma) -> Result<u64, Errno> {
        if remap.flags.contains(MremapFlags::FIXED) {
            self.make_room(remap.new_addr, remap.new_len)?;
            vma = self.lookup(remap.addr)?;
        }
        if remap.shrinks() {
            self.shrink(remap)?;
            vma = self.lookup(remap.addr)?;
            remap.old_len = remap.new_len;
        }
        if remap.flags.contains(MremapFlags::DONTUNMAP)
            && !self.may_expand_vm(vma.flags, remap.old_len >> PAGE_SHIFT)
        {
            return Err(Errno::ENOMEM);
        }
        self.set_new_addr(remap, &vma)?;
        self.move_vma(remap, vma)
    }

    /// Unmaps what is where an area shall move.
    fn make_room(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        if !self.rules.mremap_tells_of_target {
            return self.munmap_untold(addr, len);
        }
        let mark = self.uffd_mark();
        let result = self.munmap(addr, len);
        self.uffd_early(mark);
        result
    }

    /// In place, if that can be (`mremap_at`).
    fn mremap_at(&mut self, remap: &mut Remap, vma: &Vma) -> Result<u64, Errno> {
        if remap.shrinks() {
            self.shrink(remap)?;
        } else if remap.grows() {
            if vma.end - remap.addr == remap.old_len && self.expandable(vma, remap.delta()) {
                self.expand_in_place(remap, vma)?;
                return Ok(remap.addr);
            }
            if !remap.flags.contains(MremapFlags::MAYMOVE) {
                return Err(Errno::ENOMEM);
            }
            self.set_new_addr(remap, vma)?;
            return self.move_vma(remap, *vma);
        }
        Ok(remap.addr)
    }

    /// Unmaps what is too much (`shrink_vma`).
    fn shrink(&mut self, remap: &Remap) -> Result<(), Errno> {
        let result = self.munmap(remap.addr + remap.new_len, remap.delta());
        if self.rules.errs(Mistake::MremapIgnoresUnmap) {
            return Ok(());
        }
        result
    }

    /// `vma_expandable`
    fn expandable(&mut self, vma: &Vma, delta: u64) -> bool {
        let Some(end) = vma.end.checked_add(delta) else {
            return false;
        };
        !self.is_mapped(vma.end, end)
            && self
                .get_unmapped_area(&Request {
                    file: None,
                    addr: vma.start,
                    len: end - vma.start,
                    pgoff: 0,
                    flags: MapFlags::FIXED,
                })
                .is_ok()
    }

    /// `expand_vma_in_place`, `vma_merge_extend`
    fn expand_in_place(&mut self, remap: &Remap, vma: &Vma) -> Result<(), Errno> {
        let pages = remap.delta() >> PAGE_SHIFT;
        let mut charged = 0;
        if vma.flags.contains(VmFlags::ACCOUNT) {
            charged = pages;
            self.charge(charged)?;
        }
        let more = Vma {
            start: vma.end,
            end: vma.end + remap.delta(),
            pgoff: if self.rules.errs(Mistake::MremapGrowsFromPart) {
                vma.pgoff + (remap.old_len >> PAGE_SHIFT)
            } else {
                vma.pgoff_at(vma.end)
            },
            forked: false,
            ..*vma
        };
        // Where a `close` hook forbids all merging, the area grows by itself.
        let alone = self.rules.close_forbids_merging && !self.may_vanish(vma);
        if self.rules.mremap_grown_merges && !alone {
            let next = self.areas.find(vma.end).copied();
            let merged = self.merge_new_range(&more, Some(vma), next.as_ref());
            let merged = merged.and_then(|merged| merged.ok_or(Errno::ENOMEM));
            merged.inspect_err(|_| self.uncharge(charged))?;
        } else {
            let grown = Vma {
                end: more.end,
                ..*vma
            };
            self.areas.replace(vma.start, grown);
        }
        self.account_remapped(vma.flags, vma.has_file(), pages);
        Ok(())
    }

    /// `vrm_stat_account`
    fn account_remapped(&mut self, flags: VmFlags, file: bool, pages: u64) {
        self.counters.add(&self.rules, flags, file, pages);
        if flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self.counters.locked_vm.wrapping_add(pages);
        }
    }

    /// `vrm_set_new_addr`
    fn set_new_addr(&mut self, remap: &mut Remap, vma: &Vma) -> Result<(), Errno> {
        let mut flags = MapFlags::empty();
        if remap.flags.contains(MremapFlags::FIXED) {
            flags |= MapFlags::FIXED;
        }
        if vma.flags.contains(VmFlags::MAYSHARE) {
            flags |= MapFlags::SHARED;
        }
        let file = match vma.object {
            Object::File(id) => Some(*self.file(id)),
            Object::Shmem(_) if vma.flags.contains(VmFlags::HUGETLB) => Some(File::hugetlb(0)),
            Object::Shmem(_) => Some(File::memfd(0)),
            Object::Other => Some(File::regular(0)),
            Object::Anon => None,
        };
        remap.new_addr = self.get_unmapped_area(&Request {
            file: file.as_ref(),
            addr: if remap.implies_new_addr() {
                remap.new_addr
            } else {
                0
            },
            len: remap.new_len,
            pgoff: vma.pgoff_at(remap.addr),
            flags,
        })?;
        Ok(())
    }

    /// Copies the area, and unmaps what it was copied from (`move_vma`).
    fn move_vma(&mut self, remap: &Remap, mut vma: Vma) -> Result<u64, Errno> {
        let dontunmap = remap.flags.contains(MremapFlags::DONTUNMAP);
        let locked = vma.flags.contains(VmFlags::LOCKED);
        let old_end = remap.addr + remap.old_len;
        let before = vma.start != remap.addr;
        let after = vma.end != old_end;

        // prep_move_vma
        let clean = self.rules.dontunmap_is_clean;
        let split_first = dontunmap && locked && clean;
        let full = if self.rules.mremap_counts_exactly {
            self.counters.map_count + 2 + u64::from(split_first) > self.max_map_count()
        } else {
            self.counters.map_count + 3 >= self.max_map_count()
        };
        if full {
            return Err(Errno::ENOMEM);
        }
        if before && self.rules.mremap_asks_first {
            self.may_split(&vma, remap.addr)?;
        }
        if after && self.rules.mremap_asks_first {
            self.may_split(&vma, old_end)?;
        }
        if split_first {
            if before {
                self.split(vma.start, remap.addr, true)?;
            }
            if after {
                self.split(remap.addr, old_end, false)?;
            }
            vma = self.lookup(remap.addr)?;
        }
        let mut charged = 0;
        if vma.flags.contains(VmFlags::ACCOUNT) {
            let bytes = if dontunmap {
                remap.new_len
            } else if self.rules.mremap_charges_what_shrank {
                remap.asked.abs_diff(remap.new_len)
            } else {
                remap.delta()
            };
            charged = bytes >> PAGE_SHIFT;
            self.charge(charged)?;
        }

        let copied = self.copy_vma(remap, &vma);
        let copy = copied.inspect_err(|_| self.uncharge(charged))?;
        if let Err(error) = self.tell_mremap(&copy) {
            if !self.rules.mremap_charges_what_came_back {
                self.uncharge(charged);
            } else if !dontunmap {
                self.lose_charge(charged);
            }
            // The pages go back, and it is the copy that is unmapped.
            self.account_remapped(copy.flags, copy.has_file(), remap.new_len >> PAGE_SHIFT);
            self.unmap_what_moved(remap, remap.new_addr, remap.new_len);
            return Err(error);
        }
        if !remap.grows() && !dontunmap {
            // What went away before the move was given back then.
            self.lose_charge(charged);
        }
        self.guards.rename(remap.addr..old_end, remap.new_addr);
        if vma.flags.contains(VmFlags::UFFD_MISSING) {
            let len = if self.rules.remap_told_before_shrinking {
                remap.asked
            } else {
                remap.old_len
            };
            self.uffd_remaps(remap.addr, remap.new_addr, len);
        }
        let mut flags = vma.flags;
        if dontunmap {
            // dontunmap_complete: the old pages are gone, so nothing is locked and nothing private.
            if clean || !self.rules.dontunmap_counts_copy {
                flags = flags.without(LOCKED);
            }
            let mut old = self.lookup(remap.addr)?;
            old.flags = old.flags.without(LOCKED);
            if old.start == remap.addr && old.end == old_end {
                if self.rules.dontunmap_unlinks {
                    old.anon_vma = None;
                    old.forked = false;
                    old.moved = 0;
                }
                if clean && old.object == Object::Anon {
                    old.pgoff = old.start >> PAGE_SHIFT;
                }
            }
            self.areas.replace(old.start, old);
            let amid = old.start < remap.addr && old_end < old.end && copy.start != old.start;
            if self.rules.dontunmap_accounts_above && amid && old.flags.contains(VmFlags::ACCOUNT) {
                self.account_unasked(old.end);
            }
        }
        let source = self.lookup(remap.addr);
        let whole = source.is_ok_and(|vma| vma.start == remap.addr && vma.end == old_end);
        if self.rules.mremap_counts_whole_moves || !whole {
            self.account_remapped(flags, vma.has_file(), remap.new_len >> PAGE_SHIFT);
        } else if flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self
                .counters
                .locked_vm
                .wrapping_add(remap.new_len >> PAGE_SHIFT);
        }
        // Without an old range (a duplicate of a shared one) there is nothing to unmap, and an error is
        // nobody's concern.
        if !dontunmap {
            // That both were there for a moment is no peak.
            let peak = self.peak_vm;
            self.unmap_what_moved(remap, remap.addr, remap.old_len);
            self.peak_vm = peak;
        }
        Ok(remap.new_addr)
    }

    /// Unmaps the source, or the copy if it was refused: what was moved of it is not lost
    /// (`unmap_source_vma`).
    fn unmap_what_moved(&mut self, remap: &Remap, addr: u64, len: u64) {
        let moved = remap.old_len;
        let lost = self.discarded.len();
        let last = self.discarded.last().cloned();
        let dontunmap = remap.flags.contains(MremapFlags::DONTUNMAP);
        let accounted = |vma: &Vma| vma.flags.contains(VmFlags::ACCOUNT) && !dontunmap;
        let source = self.areas.find(addr).copied().filter(accounted);
        let committed = self.committed;
        let unmapped = self.munmap(addr, len);
        if source.is_some() {
            // It was told to give no charge back: that went with the pages.
            self.committed = committed;
        }
        if unmapped.is_err() {
            self.account_what_stays(source, len >> PAGE_SHIFT);
            return;
        }
        self.discarded.truncate(lost);
        if let (Some(now), Some(last)) = (self.discarded.last_mut(), last) {
            *now = last;
        }
        if moved < len {
            self.discard(addr + moved..addr + len);
        }
    }

    /// Of what could not be unmapped, `pages` should have been. The area, if it was accounted for, is so no more.
    fn account_what_stays(&mut self, source: Option<Vma>, pages: u64) {
        let once_more = match source {
            Some(_) => self.rules.mremap_charges_what_stays,
            None => self.rules.mremap_charges_all_that_stays,
        };
        if once_more {
            self.committed += pages;
            self.lose_charge(pages);
        }
        if let Some(source) = source {
            self.unaccount(source.start, source.end);
            let rest = source.pages().saturating_sub(pages);
            if once_more {
                self.lose_charge(rest);
            } else {
                self.uncharge(rest);
            }
        }
    }

    /// The areas of a range lose VM_ACCOUNT.
    fn unaccount(&mut self, start: u64, end: u64) {
        let mut at = start;
        while let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) {
            let flags = vma.flags.without(VmFlags::ACCOUNT);
            self.areas.replace(vma.start, Vma { flags, ..vma });
            at = vma.end;
        }
    }

    /// The area from there on counts as accounted for, without a charge.
    fn account_unasked(&mut self, addr: u64) {
        let Some(&vma) = self.areas.find(addr) else {
            return;
        };
        if !vma.flags.contains(VmFlags::ACCOUNT) {
            let flags = vma.flags | VmFlags::ACCOUNT;
            self.areas.replace(vma.start, Vma { flags, ..vma });
            self.lost_charge = self.lost_charge.wrapping_sub(vma.pages());
        }
    }

    /// Tells the driver that an area of its has moved here (`vm_ops->mremap`).
    fn tell_mremap(&mut self, copy: &Vma) -> Result<(), Errno> {
        let Object::File(id) = copy.object else {
            return Ok(());
        };
        if !self.rules.tells_of_mremap {
            return Ok(());
        }
        let usually = self.file(id).mremap_error;
        self.ask(Hook::Mremap, copy, usually)
    }

    /// `copy_vma`. Gives the area that holds the copy.
    fn copy_vma(&mut self, remap: &Remap, vma: &Vma) -> Result<Vma, Errno> {
        let unfaulted = vma.object == Object::Anon && vma.anon_vma.is_none();
        let new = Vma {
            start: remap.new_addr,
            end: remap.new_addr + remap.new_len,
            pgoff: if unfaulted {
                remap.new_addr >> PAGE_SHIFT
            } else {
                vma.pgoff_at(remap.addr)
            },
            moved: if vma.anon_vma.is_none() {
                0
            } else {
                let by = (remap.new_addr >> PAGE_SHIFT).wrapping_sub(remap.addr >> PAGE_SHIFT);
                vma.moved.wrapping_add(by)
            },
            ..*vma
        };
        let keep = unfaulted
            && self.rules.dontunmap_is_clean
            && remap.flags.contains(MremapFlags::DONTUNMAP);
        let beside = new.start == vma.end || new.end == vma.start;
        let alone = keep && beside && self.rules.dontunmap_beside_source_is_alone;
        let other = |near: &Vma| !(alone || keep && near.start == vma.start);
        let prev = self.areas.prev(new.start).copied().filter(other);
        let next = self.areas.find(new.start).copied().filter(other);
        if let Ok(Some(merged)) = self.merge_new_range(&new, prev.as_ref(), next.as_ref()) {
            return Ok(merged);
        }
        self.allocate_area(new.start)?;
        if vma.policy.is_some() {
            self.allocate(Allocation::Policy)?;
        }
        if vma.anon_vma.is_some() && self.rules.fork_makes_anon_vmas {
            self.allocate(Allocation::AnonVma)?;
        }
        self.call(Hook::Open, &new);
        // vma_link
        if let Err(error) = self.allocate(Allocation::Tree) {
            self.call(Hook::Close, &new);
            return Err(error);
        }
        self.areas.insert(new);
        self.shmem.gain(new.object);
        self.counters.map_count += 1;
        Ok(new)
    }
}
