// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `madvise(2)`: `do_madvise`, `madvise_walk_vmas`, `madvise_vma_behavior`, `madvise_update_vma`,
//! `madvise_dontneed_free`, `madvise_remove`, `madvise_populate` (mm/madvise.c), `ksm_madvise`
//! (mm/ksm.c), `hugepage_madvise` (mm/khugepaged.c).
//!
//! Advice is of three sorts: what changes flags, so that areas are cut and merged; what drops or brings
//! in pages; and what only hints at their use. Not modelled, and EINVAL here: what tests memory failures.
//!
//! The names are those of 7.2; `madvise_walk_vmas` is since 5.17, before which `do_madvise` (5.6) or `sys_madvise`
//! had the loop. Which advice there is when is [`Rules::last_advice`](crate::Rules::last_advice).

use linux_raw_sys::general;

use crate::file::Kind;
use crate::merge::SPECIAL;
use crate::unmapped_area::PMD_SIZE;
use crate::{AddressSpace, Container, Errno, NewName, Object, PAGE_SIZE, UffdEvent, VmFlags, Vma};

/// Defines the advice by the kernel's own numbers.
macro_rules! advice {
    ($($(#[$doc:meta])* $name:ident = $value:ident;)*) => {
        /// A piece of advice (`MADV_*`), as a number that a program may give.
        ///
        /// ```
        /// use vmalab_model::{AddressSpace, Advice, Errno, Limits, Mmap, Op, Rules, Signal};
        ///
        /// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
        /// space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x4000)));
        /// let guard = Op::Madvise { addr: 0x12000, len: 0x1000, advice: Advice::GUARD_INSTALL };
        /// let outcome = space.apply(&guard);
        /// // Its contents are lost, and it may not be touched; but it is one area still.
        /// assert_eq!(outcome.discarded, [0x12000..0x13000]);
        /// assert_eq!(outcome.layout.len(), 1);
        /// let outcome = space.apply(&Op::Touch { addr: 0x12345, write: false });
        /// assert_eq!(outcome.result, Err(Errno::EFAULT));
        /// assert_eq!(outcome.signal, Some(Signal::Unmapped));
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct Advice(pub u32);

        impl Advice {
            $($(#[$doc])* pub const $name: Self = Self(general::$value);)*

            /// All that are modelled, in any era.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }

        impl core::fmt::Debug for Advice {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $(Self::$name => f.write_str(stringify!($name)),)*
                    Self(number) => write!(f, "{number}"),
                }
            }
        }
    };
}

advice! {
    /// No special treatment.
    NORMAL = MADV_NORMAL;
    /// Expect random access.
    RANDOM = MADV_RANDOM;
    /// Expect access in order.
    SEQUENTIAL = MADV_SEQUENTIAL;
    /// The pages will be needed.
    WILLNEED = MADV_WILLNEED;
    /// The pages are not needed: drop them.
    DONTNEED = MADV_DONTNEED;
    /// The pages may be dropped when memory is short, unless they are written to before.
    FREE = MADV_FREE;
    /// Drop the pages of the object itself.
    REMOVE = MADV_REMOVE;
    /// A forked child does not get the area.
    DONTFORK = MADV_DONTFORK;
    /// A forked child gets the area.
    DOFORK = MADV_DOFORK;
    /// Pages of the same contents may become one.
    MERGEABLE = MADV_MERGEABLE;
    /// They may not.
    UNMERGEABLE = MADV_UNMERGEABLE;
    /// Huge pages are welcome.
    HUGEPAGE = MADV_HUGEPAGE;
    /// They are not.
    NOHUGEPAGE = MADV_NOHUGEPAGE;
    /// The area is left out of core dumps.
    DONTDUMP = MADV_DONTDUMP;
    /// The area is part of core dumps.
    DODUMP = MADV_DODUMP;
    /// A forked child finds zeros.
    WIPEONFORK = MADV_WIPEONFORK;
    /// A forked child finds the contents.
    KEEPONFORK = MADV_KEEPONFORK;
    /// The pages will not be used for a while.
    COLD = MADV_COLD;
    /// The pages are to be swapped out.
    PAGEOUT = MADV_PAGEOUT;
    /// The pages are brought in as if read.
    POPULATE_READ = MADV_POPULATE_READ;
    /// The pages are brought in as if written to.
    POPULATE_WRITE = MADV_POPULATE_WRITE;
    /// As `DONTNEED`, and of locked memory, too.
    DONTNEED_LOCKED = MADV_DONTNEED_LOCKED;
    /// Huge pages now.
    COLLAPSE = MADV_COLLAPSE;
    /// Who touches the pages gets SIGSEGV, although they are mapped.
    GUARD_INSTALL = MADV_GUARD_INSTALL;
    /// The pages may be touched again.
    GUARD_REMOVE = MADV_GUARD_REMOVE;
}

impl Advice {
    /// Whether it drops what is there (`is_discard`).
    const fn discards(self) -> bool {
        matches!(
            self,
            Self::FREE
                | Self::DONTNEED
                | Self::DONTNEED_LOCKED
                | Self::REMOVE
                | Self::DONTFORK
                | Self::WIPEONFORK
                | Self::GUARD_INSTALL
        )
    }
}

impl Advice {
    /// Whether it brings pages in.
    const fn populates(self) -> bool {
        matches!(self, Self::POPULATE_READ | Self::POPULATE_WRITE)
    }
}

impl<C: Container> AddressSpace<C> {
    /// `madvise(2)`. A hole in the range is ENOMEM, but what is mapped around it is treated.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, wrapped around, unknown, or not for this kind of area. ENOMEM: a hole.
    /// EAGAIN: no room for a split. EPERM: sealed contents. EACCES, EBADF, EOPNOTSUPP: not for this
    /// file. EFAULT: pages that cannot be had.
    pub(crate) fn madvise(&mut self, addr: u64, len: u64, advice: Advice) -> Result<(), Errno> {
        let known = self.knows(advice);
        if addr % PAGE_SIZE != 0 || (!known && self.rules.advice_checked_first) {
            return Err(Errno::EINVAL);
        }
        let end = len
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|len| addr.checked_add(len))
            .ok_or(Errno::EINVAL)?;
        if advice.populates() && !self.rules.populate_skips_holes {
            return self.madvise_populate(addr, end, advice == Advice::POPULATE_WRITE);
        }
        self.madvise_walk(addr, end, |space, prev, vma, start, end| {
            if !known {
                return Err(Errno::EINVAL);
            }
            space.madvise_area(prev, vma, start, end, advice)
        })
    }

    /// `madvise_behavior_valid`
    fn knows(&self, advice: Advice) -> bool {
        let guards = matches!(advice, Advice::GUARD_INSTALL | Advice::GUARD_REMOVE);
        Advice::ALL.contains(&advice)
            && if guards {
                self.rules.guards
            } else {
                advice.0 <= self.rules.last_advice
            }
    }

    /// Treats all that is mapped in a range, part by part (`madvise_walk_vmas`). `treat` gives the area that
    /// then holds the part.
    fn madvise_walk(
        &mut self,
        addr: u64,
        end: u64,
        mut treat: impl FnMut(&mut Self, Option<Vma>, &Vma, u64, u64) -> Result<Vma, Errno>,
    ) -> Result<(), Errno> {
        let mut hole = false;
        let mut at = addr;
        let mut prev = None;
        while at < end {
            let Some(&vma) = self.areas.find(at) else {
                return Err(Errno::ENOMEM);
            };
            if at == addr {
                prev = if addr > vma.start {
                    Some(vma)
                } else {
                    self.areas.prev(vma.start).copied()
                };
            }
            if vma.start > at {
                hole = true;
                at = vma.start;
                if at >= end {
                    break;
                }
            }
            let now = treat(self, prev, &vma, at, vma.end.min(end))?;
            at = now.end;
            prev = Some(now);
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `madvise_vma_behavior`. Gives the area that now holds the range.
    fn madvise_area(
        &mut self,
        prev: Option<Vma>,
        vma: &Vma,
        start: u64,
        end: u64,
        advice: Advice,
    ) -> Result<Vma, Errno> {
        let old = vma.flags;
        // can_madvise_modify: who may not write to the memory may not drop its contents.
        if old.contains(VmFlags::SEALED)
            && advice.discards()
            && vma.object == Object::Anon
            && !(old.contains(VmFlags::WRITE) && self.key_permits(old, true))
        {
            return Err(Errno::EPERM);
        }
        if advice.populates() {
            self.madvise_populate(start, end, advice == Advice::POPULATE_WRITE)?;
            return Ok(*vma);
        }
        self.madvise_refuses(vma, start, advice)?;
        let access = VmFlags::RAND_READ | VmFlags::SEQ_READ;
        let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
        let flags = match advice {
            Advice::NORMAL => old.without(access),
            Advice::RANDOM => old.without(access) | VmFlags::RAND_READ,
            Advice::SEQUENTIAL => old.without(access) | VmFlags::SEQ_READ,
            Advice::DONTFORK => old | VmFlags::DONTCOPY,
            Advice::DOFORK => old.without(VmFlags::DONTCOPY),
            Advice::DONTDUMP => old | VmFlags::DONTDUMP,
            Advice::DODUMP => old.without(VmFlags::DONTDUMP),
            Advice::WIPEONFORK => old | VmFlags::WIPEONFORK,
            Advice::KEEPONFORK => old.without(VmFlags::WIPEONFORK),
            Advice::HUGEPAGE => old.without(huge) | VmFlags::HUGEPAGE,
            Advice::NOHUGEPAGE => old.without(huge) | VmFlags::NOHUGEPAGE,
            Advice::MERGEABLE if ksm_compatible(old) => old | VmFlags::MERGEABLE,
            Advice::MERGEABLE => old,
            Advice::UNMERGEABLE => old.without(VmFlags::MERGEABLE),
            Advice::GUARD_INSTALL => return self.guard_install(vma, start, end),
            Advice::GUARD_REMOVE => {
                self.guards.remove(start..end);
                return Ok(*vma);
            }
            _ => {
                if matches!(
                    advice,
                    Advice::DONTNEED | Advice::DONTNEED_LOCKED | Advice::FREE | Advice::REMOVE
                ) {
                    // Of huge pages, whole ones.
                    let size = if old.contains(VmFlags::HUGETLB) {
                        PMD_SIZE
                    } else {
                        PAGE_SIZE
                    };
                    self.discard(start..end - end % size);
                }
                let watched = old.contains(VmFlags::UFFD_MISSING) && self.rules.uffd_tells;
                if advice.discards() && watched {
                    self.uffd_events.push(UffdEvent::Remove { start, end });
                }
                return Ok(*vma);
            }
        };
        if !self.rules.madvise_merges {
            let new = Vma {
                flags,
                ..vma.part(start..end)
            };
            return self.cut_out(vma, new).map_err(|_| Errno::EAGAIN);
        }
        if flags == old {
            return Ok(*vma);
        }
        self.modify_flags(prev.as_ref(), vma, start, end, flags)
            .map_err(|error| self.try_again(error))
    }

    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`: `set_anon_vma_name`, `madvise_set_anon_name`.
    ///
    /// # Errors
    ///
    /// EINVAL: unaligned, wrapped around, no name, or no such call. EBADF: memory that is not anonymous.
    /// ENOMEM: a hole. EAGAIN: no room for a split.
    pub(crate) fn set_anon_vma_name(
        &mut self,
        addr: u64,
        len: u64,
        name: NewName,
    ) -> Result<(), Errno> {
        let name = match name {
            NewName::None => None,
            NewName::Some(name) => Some(name),
            NewName::Invalid => return Err(Errno::EINVAL),
        };
        if !self.rules.names || !self.limits.anon_vma_name || addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        let end = len
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|len| addr.checked_add(len))
            .ok_or(Errno::EINVAL)?;
        self.madvise_walk(addr, end, |space, prev, vma, start, end| {
            let nameable = match vma.object {
                Object::Anon => true,
                Object::Shmem(_) => space.rules.names_shared,
                Object::File(_) | Object::Other => false,
            };
            if !nameable {
                return Err(Errno::EBADF);
            }
            if vma.name == name {
                return Ok(*vma);
            }
            let new = Vma {
                name,
                ..vma.part(start..end)
            };
            let result = space.modify(prev.as_ref(), vma, new);
            let mut named = result.map_err(|error| space.try_again(error))?;
            // madvise_update_vma writes the flags of before over those that the merge inherited.
            if named.flags != vma.flags {
                named.flags = vma.flags;
                space.areas.replace(named.start, named);
            }
            Ok(named)
        })
    }

    /// `madvise_guard_install`. Gives the area.
    ///
    /// # Errors
    /// ENOMEM.
    fn guard_install(&mut self, vma: &Vma, start: u64, end: u64) -> Result<Vma, Errno> {
        let mut vma = *vma;
        if self.rules.guards_are_flagged {
            vma.flags |= VmFlags::MAYBE_GUARD;
            self.areas.replace(vma.start, vma);
        }
        // So that fork copies the page tables.
        if vma.object == Object::Anon || !self.rules.guards_are_flagged {
            vma = self.anon_vma_prepare(&vma)?;
        }
        self.guards.install(start..end);
        self.discard(start..end);
        Ok(vma)
    }

    /// Resources that are short are short for a while.
    fn try_again(&self, error: Errno) -> Errno {
        match error {
            Errno::ENOMEM if self.rules.madvise_tells_of_limit && self.is_full() => error,
            Errno::ENOMEM => Errno::EAGAIN,
            other => other,
        }
    }

    fn is_full(&self) -> bool {
        self.counters.map_count >= self.max_map_count()
    }

    /// What the area is not fit for.
    fn madvise_refuses(&self, vma: &Vma, start: u64, advice: Advice) -> Result<(), Errno> {
        let flags = vma.flags;
        let has = |some: VmFlags| flags.intersects(some);
        let invalid = match advice {
            Advice::DONTNEED | Advice::FREE | Advice::DONTNEED_LOCKED => {
                let locked = advice != Advice::DONTNEED_LOCKED && has(VmFlags::LOCKED);
                let foreign = advice == Advice::FREE && vma.object != Object::Anon;
                let huge = has(VmFlags::HUGETLB)
                    && (!self.rules.dontneed_takes_hugetlb || start % PMD_SIZE != 0);
                locked || foreign || huge || has(VmFlags::PFNMAP)
            }
            Advice::GUARD_INSTALL => has(SPECIAL | VmFlags::HUGETLB | VmFlags::LOCKED),
            Advice::GUARD_REMOVE => has(SPECIAL | VmFlags::HUGETLB),
            Advice::COLLAPSE => !self.fits_huge_page(vma),
            Advice::REMOVE => return self.madvise_remove(vma, start),
            Advice::COLD | Advice::PAGEOUT => {
                has(VmFlags::LOCKED | VmFlags::PFNMAP | VmFlags::HUGETLB)
            }
            Advice::WILLNEED if vma.object == Object::Anon && self.rules.willneed_needs_file => {
                return Err(Errno::EBADF);
            }
            Advice::DOFORK if self.rules.dofork_refuses_special => has(SPECIAL),
            Advice::DOFORK => has(VmFlags::IO),
            Advice::WIPEONFORK => vma.object != Object::Anon || has(VmFlags::SHARED),
            Advice::KEEPONFORK => has(VmFlags::DROPPABLE),
            Advice::DODUMP => (!has(VmFlags::HUGETLB) && has(SPECIAL)) || has(VmFlags::DROPPABLE),
            _ => false,
        };
        if invalid { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Whether there is room for a huge page in an area that may have some (`collapse_possible`). Whether its
    /// pages can become one is not modelled: they are taken to.
    fn fits_huge_page(&self, vma: &Vma) -> bool {
        let not = SPECIAL | VmFlags::HUGETLB | VmFlags::NOHUGEPAGE;
        let first = vma.start.next_multiple_of(PMD_SIZE);
        !vma.flags.intersects(not) && first + PMD_SIZE <= vma.end && vma.anon_vma.is_some()
    }

    /// `madvise_remove`: a hole is punched into the object, if it can have holes.
    fn madvise_remove(&self, vma: &Vma, start: u64) -> Result<(), Errno> {
        let writable = VmFlags::SHARED | VmFlags::MAYWRITE;
        if vma.flags.contains(VmFlags::LOCKED) || !vma.has_file() {
            return Err(Errno::EINVAL);
        }
        if !vma.flags.contains(writable) {
            return Err(Errno::EACCES);
        }
        // vfs_fallocate. A device may be mapped from an offset on that is a negative number (loff_t).
        if (vma.pgoff_at(start).wrapping_mul(PAGE_SIZE) as i64) < 0 {
            return Err(Errno::EINVAL);
        }
        match vma.object {
            Object::File(id) => match self.file(id).kind {
                Kind::Shmem | Kind::Segment | Kind::Hugetlb | Kind::Regular => Ok(()),
                Kind::Device | Kind::Special | Kind::Unmappable => Err(Errno::ENODEV),
            },
            _ => Ok(()),
        }
    }

    /// `madvise_populate`
    fn madvise_populate(&mut self, start: u64, end: u64, write: bool) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let vma = *self
                .areas
                .find(at)
                .filter(|vma| vma.start <= at)
                .ok_or(Errno::ENOMEM)?;
            // check_vma_flags
            let needed = if write { VmFlags::WRITE } else { VmFlags::READ };
            if vma.flags.intersects(VmFlags::IO | VmFlags::PFNMAP)
                || !vma.flags.contains(needed)
                || !self.key_permits(vma.flags, write)
            {
                return Err(Errno::EINVAL);
            }
            self.fault_in(&vma, at, vma.end.min(end), write)?;
            at = vma.end;
        }
        Ok(())
    }
}

/// `vma_ksm_compatible`
fn ksm_compatible(flags: VmFlags) -> bool {
    let not = SPECIAL | VmFlags::HUGETLB | VmFlags::SHARED | VmFlags::MAYSHARE | VmFlags::DROPPABLE;
    !flags.intersects(not)
}
