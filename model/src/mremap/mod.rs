// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `mremap(2)`: the call, and what both orders of its steps share, that since 6.17 (`since_6_17`) and the one
//! before (`before_6_17`). As 7.2 has it where nothing else is said.

mod before_6_17;
mod in_place;
mod move_vma;
mod since_6_17;

use crate::rules::Dontunmap;
use crate::unmapped_area::PMD_SIZE;
use crate::{
    AddressSpace, Container, Errno, MremapFlags, Object, PAGE_SHIFT, PAGE_SIZE, VmFlags, Vma,
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

    fn dontunmap(&self) -> bool {
        self.flags.contains(MremapFlags::DONTUNMAP)
    }

    fn implies_new_addr(&self) -> bool {
        self.flags
            .intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP)
    }

    /// Whether it has flags that nobody knows.
    fn flags_are_unknown(&self) -> bool {
        let known = MremapFlags::FIXED | MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        self.flags.without(known) != MremapFlags::empty()
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
        // Whether it keeps its length was asked of the bytes before 6.17, and is of the pages since.
        let resizes = !self.rules.mremap_checks_first && old_len != new_len;
        let unknown = self.rules.dontunmap == Dontunmap::Unknown;
        if remap.dontunmap() && (unknown || resizes) {
            return Err(Errno::EINVAL);
        }
        let result = if self.rules.mremap_checks_first {
            self.mremap_checked(&mut remap)?
        } else {
            self.mremap_step_by_step(&mut remap)?
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

    /// The area at an address (`vma_lookup`), or EFAULT.
    fn lookup(&self, addr: u64) -> Result<Vma, Errno> {
        self.areas
            .find(addr)
            .filter(|vma| vma.start <= addr)
            .copied()
            .ok_or(Errno::EFAULT)
    }

    /// The second half of `check_prep_vma`, and `vma_to_resize` before that.
    fn check_resize(&self, remap: &mut Remap, vma: &Vma) -> Result<(), Errno> {
        let fixed_size = vma.flags.intersects(VmFlags::DONTEXPAND | VmFlags::PFNMAP);
        if vma.flags.contains(VmFlags::HUGETLB) && !self.rules.mremap_looks_up_first {
            return Err(Errno::EINVAL);
        }
        let foreign = self.rules.dontunmap == Dontunmap::Anonymous && vma.object != Object::Anon;
        if remap.dontunmap() && foreign {
            return Err(Errno::EINVAL);
        }
        if remap.old_len == 0
            && !vma.flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE)
            && self.rules.mremap_duplicates_shared_only
            || remap.dontunmap() && fixed_size
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

    /// `vrm_stat_account`
    fn account_remapped(&mut self, flags: VmFlags, file: bool, pages: u64) {
        self.counters.add(&self.rules, flags, file, pages);
        if flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self.counters.locked_vm.wrapping_add(pages);
        }
    }
}
