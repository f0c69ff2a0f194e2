// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Allocation`]: what the kernel allocates memory for while it changes areas, and how one of them can be
//! made to fail, as the kernel's fault injection does (`/proc/self/fail-nth`).
//!
//! The maple tree takes memory since 6.1; what ties an area to an `anon_vma` (`anon_vma_clone`) since 2.6.34, when
//! there came to be more than one of them.

use core::num::NonZeroU32;

use crate::{AddressSpace, Container, Errno};

/// What memory is allocated for.
///
/// ```
/// use vmalab_model::{AddressSpace, Allocation, Errno, Limits, Mmap, Op, Rules};
///
/// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
/// space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x8000)));
/// // A hole takes two areas more. There is memory for the first one.
/// space.fail_nth_allocation(Allocation::Area, 2);
/// let hole = Op::Munmap { addr: 0x12000, len: 0x2000 };
/// let outcome = space.apply(&hole);
/// assert_eq!(outcome.result, Err(Errno::ENOMEM));
/// assert_eq!(outcome.layout.len(), 2, "the first cut stays");
/// // Nothing is lost, and it can be tried again.
/// assert_eq!(space.apply(&hole).result, Ok(0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Allocation {
    /// An area: `vm_area_alloc`, `vm_area_dup`.
    Area,
    /// Nodes of the tree of areas, and of the one that `munmap` gathers areas in: `mas_preallocate`,
    /// `mas_store_gfp`, `__mt_dup`. Each call counts, whether or not the tree is such that it takes memory.
    /// Since 6.1; before that, the places in the tree lay in the areas.
    Tree,
    /// What ties an area to an `anon_vma`: `__anon_vma_prepare`, and since 2.6.34 `anon_vma_clone` and
    /// `anon_vma_fork` of an area that has one. Each call counts once.
    AnonVma,
    /// A policy: `mpol_new`, and a copy of one for an area that is cut or moved, or that a child gets (`mpol_copy`,
    /// `mpol_dup`).
    Policy,
    /// What a userfaultfd will be told of an unmapping (`userfaultfd_unmap_prep`): each range counts once.
    Userfaultfd,
}

impl Allocation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Area,
        Self::Tree,
        Self::AnonVma,
        Self::Policy,
        Self::Userfaultfd,
    ];
}

/// The allocation that is to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    what: Allocation,
    /// Which one it is from now on; 1 is the next.
    nth: NonZeroU32,
}

impl<C: Container> AddressSpace<C> {
    /// The `nth` allocation of that kind from now on fails, and no other; 0: none does. The operation that
    /// wanted it unwinds as the kernel's does.
    pub fn fail_nth_allocation(&mut self, what: Allocation, nth: u32) {
        self.failing = NonZeroU32::new(nth).map(|nth| Failing { what, nth });
    }

    /// Whether the allocation that is to fail is still to come.
    pub fn is_allocation_to_fail(&self) -> bool {
        self.failing.is_some()
    }

    /// Allocates memory. In the places that only some eras have, the caller asks for the era.
    #[inline]
    pub(crate) fn allocate(&mut self, what: Allocation) -> Result<(), Errno> {
        if self.failing.is_some() {
            self.count_down(what)?;
        }
        Ok(())
    }

    /// Allocates an area ([`Allocation::Area`]), and makes room for it at that address.
    #[inline]
    pub(crate) fn allocate_area(&mut self, addr: u64) -> Result<(), Errno> {
        self.allocate(Allocation::Area)?;
        Ok(self.areas.reserve(addr)?)
    }

    #[cold]
    fn count_down(&mut self, what: Allocation) -> Result<(), Errno> {
        if what == Allocation::Tree && !self.rules.tree_takes_memory {
            return Ok(());
        }
        let Some(failing) = self.failing.as_mut().filter(|failing| failing.what == what) else {
            return Ok(());
        };
        match NonZeroU32::new(failing.nth.get() - 1) {
            Some(nth) => {
                failing.nth = nth;
                Ok(())
            }
            None => {
                self.failing = None;
                Err(Errno::ENOMEM)
            }
        }
    }
}
