// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `fork(2)`: `dup_mmap` (mm/mmap.c; before 6.15 kernel/fork.c), `anon_vma_fork` (mm/rmap.c).

use crate::mlock::LOCKED;
use crate::{AddressSpace, Allocation, Container, Counters, Errno, Hook, VmFlags, Vma};

impl<C: Container> AddressSpace<C> {
    /// Makes this the address space of a forked child: areas that are not for it go, nothing is locked,
    /// and private pages hang on an `anon_vma` of each area's own.
    ///
    /// `open` is called for every area that a driver has in the child.
    ///
    /// # Errors
    ///
    /// ENOMEM: an area's worth of memory may not be promised once more, or there is none for the copy. The
    /// parent's areas stay; those that had been copied are closed.
    pub(crate) fn fork(&mut self) -> Result<(), Errno> {
        let mut child = C::default();
        let mut counters = self.counters;
        let committed = self.committed;
        let parent = core::mem::take(&mut self.areas);
        if let Err(error) = self.copy_areas(&parent, &mut child, &mut counters) {
            for copy in child.iter_from(0) {
                self.call(Hook::Close, copy);
            }
            self.areas = parent;
            self.committed = committed;
            return Err(error);
        }
        // Page tables are copied of what the child has and may keep.
        for vma in parent.iter_from(0) {
            let wiped = vma.flags.contains(VmFlags::WIPEONFORK);
            if vma.flags.contains(VmFlags::DONTCOPY) {
                self.guards.remove(vma.start..vma.end);
            } else if wiped {
                self.guards.remove(vma.start..vma.end);
                self.discard(vma.start..vma.end);
            }
        }
        self.shmem = self.shmem.of_child(child.iter_from(0));
        self.committed_of_parents = committed.wrapping_sub(self.lost_charge);
        self.areas = child;
        self.counters = counters;
        self.counters.locked_vm = 0;
        self.peak_vm = self.counters.total_vm;
        self.def_flags = self.def_flags.without(LOCKED);
        self.inherit_mdwe();
        self.inherit_keys();
        Ok(())
    }

    fn copy_areas(
        &mut self,
        parent: &C,
        child: &mut C,
        counters: &mut Counters,
    ) -> Result<(), Errno> {
        // __mt_dup
        self.allocate(Allocation::Tree)?;
        for vma in parent.iter_from(0) {
            if vma.flags.contains(VmFlags::DONTCOPY) {
                self.allocate(Allocation::Tree)?;
                counters.sub(&self.rules, vma.flags, vma.has_file(), vma.pages());
                counters.map_count -= 1;
                continue;
            }
            if vma.flags.contains(VmFlags::ACCOUNT) {
                self.charge(vma.pages())?;
            }
            let copy = self.copy_for_child(vma, child)?;
            self.call(Hook::Open, &copy);
            child.insert(copy);
        }
        Ok(())
    }

    fn copy_for_child(&mut self, vma: &Vma, child: &mut C) -> Result<Vma, Errno> {
        let wiped = vma.flags.contains(VmFlags::WIPEONFORK);
        let written = vma.anon_vma.is_some() && !wiped;
        let own = self.rules.fork_makes_anon_vmas;
        self.allocate(Allocation::Area)?;
        child.reserve(vma.start)?;
        if vma.policy.is_some() {
            self.allocate(Allocation::Policy)?;
        }
        if own && written {
            self.allocate(Allocation::AnonVma)?;
        }
        Ok(Vma {
            // A userfaultfd that does not ask for forks watches the parent alone.
            flags: vma.flags.without(LOCKED | VmFlags::UFFD_MISSING),
            anon_vma: if own {
                written.then(|| self.new_anon_vma())
            } else {
                vma.anon_vma
            },
            forked: own && written,
            ..*vma
        })
    }
}
