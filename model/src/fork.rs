// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `fork(2)`: `dup_mmap` (mm/mmap.c), `anon_vma_fork` (mm/rmap.c).

use crate::mlock::LOCKED;
use crate::{AddressSpace, Container, Hook, VmFlags, Vma};

impl<C: Container> AddressSpace<C> {
    /// Makes this the address space of a forked child: areas that are not for it go, nothing is locked,
    /// and private pages hang on an `anon_vma` of each area's own.
    ///
    /// `open` is called for every area that a driver has in the child.
    pub fn become_child(&mut self) {
        let mut areas = C::default();
        let old = core::mem::take(&mut self.areas);
        for vma in old.iter_from(0) {
            if vma.flags.contains(VmFlags::DONTCOPY) {
                self.counters
                    .sub(&self.rules, vma.flags, vma.has_file(), vma.pages());
                self.counters.map_count -= 1;
                continue;
            }
            let wiped = vma.flags.contains(VmFlags::WIPEONFORK);
            let written = vma.anon_vma.is_some() && !wiped;
            let own = self.rules.fork_makes_anon_vmas;
            let child = Vma {
                // A userfaultfd that does not ask for forks watches the parent alone.
                flags: vma.flags.without(LOCKED | VmFlags::UFFD_MISSING),
                anon_vma: if own {
                    written.then(|| self.new_anon_vma())
                } else {
                    vma.anon_vma
                },
                forked: own && written,
                ..*vma
            };
            self.call(Hook::Open, &child);
            areas.insert(child);
        }
        self.areas = areas;
        self.counters.locked_vm = 0;
    }
}
