// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `do_mremap`, `remap_move` and `mremap_to` since 6.17: all arguments are checked before anything is unmapped,
//! and several areas move at once.

use super::Remap;
use crate::rules::Mistake;
use crate::{
    AddressSpace, Container, Errno, MremapFlags, Object, PAGE_SHIFT, PAGE_SIZE, VmFlags, Vma,
};

impl Remap {
    /// `check_mremap_params`; with the mistake that a length of 0 is taken.
    fn check(&self, task_size: u64, nothing: bool) -> Result<(), Errno> {
        let mut ok = !self.flags_are_unknown()
            && self.addr % PAGE_SIZE == 0
            && (self.new_len != 0 || nothing)
            && self.new_len <= task_size;
        if ok && self.implies_new_addr() {
            let overlap = self.addr.wrapping_add(self.old_len) > self.new_addr
                && self.new_addr.wrapping_add(self.new_len) > self.addr;
            ok = self.new_addr <= task_size - self.new_len
                && self.new_addr % PAGE_SIZE == 0
                && self.flags.contains(MremapFlags::MAYMOVE)
                && !(self.dontunmap() && self.old_len != self.new_len)
                && !overlap;
        }
        if ok { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

impl<C: Container> AddressSpace<C> {
    /// `do_mremap`
    pub(super) fn mremap_checked(&mut self, remap: &mut Remap) -> Result<u64, Errno> {
        let nothing = self.rules.errs(Mistake::MremapToNothingWorks) && !remap.implies_new_addr();
        remap.check(self.limits.task_size, nothing)?;
        // The worst case of the unmappings that may come first, and of the move.
        let count = self.counters.map_count;
        let full = if self.rules.mremap_counts_exactly {
            count + 4 + u64::from(remap.dontunmap()) > self.max_map_count()
        } else {
            remap.implies_new_addr() && count + 5 >= self.max_map_count()
        };
        if full {
            return Err(Errno::ENOMEM);
        }
        if remap.flags.contains(MremapFlags::FIXED) && remap.old_len == remap.new_len {
            return self.remap_move(remap);
        }
        let vma = self.lookup(remap.addr)?;
        self.check_prep(remap, &vma)?;
        if remap.implies_new_addr() {
            self.mremap_to(remap, vma)
        } else {
            self.mremap_at(remap, &vma)
        }
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
        if remap.dontunmap() && !self.may_expand_vm(vma.flags, remap.old_len >> PAGE_SHIFT) {
            return Err(Errno::ENOMEM);
        }
        self.set_new_addr(remap, &vma)?;
        self.move_vma(remap, vma)
    }
}
