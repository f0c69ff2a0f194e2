// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `sys_mremap` and `mremap_to` as they were before 6.17: each argument is checked where it is used, so that an
//! error may come when something has been unmapped already.

use super::Remap;
use crate::{AddressSpace, Container, Errno, MremapFlags, PAGE_SHIFT, PAGE_SIZE, VmFlags};

impl<C: Container> AddressSpace<C> {
    /// `sys_mremap`
    pub(super) fn mremap_step_by_step(&mut self, remap: &mut Remap) -> Result<u64, Errno> {
        let addr = remap.addr;
        if remap.flags_are_unknown()
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
        self.mremap_at(remap, &vma)
    }

    /// `mremap_to`
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
        if remap.dontunmap() && !self.may_expand_vm(vma.flags, remap.old_len >> PAGE_SHIFT) {
            return Err(Errno::ENOMEM);
        }
        self.set_new_addr(remap, &vma)?;
        self.move_vma(remap, vma)
    }
}
