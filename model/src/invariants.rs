// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What must hold after every operation, as `validate_mm` (mm/vma.c) checks in debug kernels, and more.
//!
//! `validate_mm` has looked at the maple tree since 6.1, and at the list and the red-black tree until 6.0. That
//! nothing stays apart that would merge is what `vma_merge` and its successors are for, in all eras.

use alloc::{format, string::String, vec::Vec};

use crate::{
    AddressSpace, Container, Counters, Errno, MremapFlags, Object, Op, PAGE_SIZE, Rules, VmFlags,
    Vma,
};

/// Two areas side by side that the era would merge, and that were not so before an operation.
struct Apart<'a> {
    rules: &'a Rules,
    op: &'a Op,
    result: Result<u64, Errno>,
    /// An allocation was made to fail.
    starved: bool,
    /// Where the heap begins.
    heap: u64,
    below: &'a Vma,
    above: &'a Vma,
    /// The areas that held the last page of the one below, and the first of the one above, before.
    were: [Option<&'a Vma>; 2],
    /// Their driver changes flags when all is decided.
    driver_sets_flags: bool,
}

impl Apart<'_> {
    /// The address where they meet.
    fn at(&self) -> u64 {
        self.above.start
    }

    /// Whether one of them got its `anon_vma` just now.
    fn was_written(&self) -> bool {
        let now = [self.below, self.above];
        let mut both = now.into_iter().zip(self.were);
        both.any(|(now, was)| {
            now.anon_vma.is_some() && was.is_none_or(|was| was.anon_vma.is_none())
        })
    }

    /// Whether they meet where `mremap` took something away.
    fn moved_away(&self) -> bool {
        let Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            ..
        } = *self.op
        else {
            return false;
        };
        if flags.contains(MremapFlags::DONTUNMAP) {
            return false;
        }
        let end = addr
            .saturating_add(old_len.max(new_len))
            .saturating_add(PAGE_SIZE);
        (addr..end).contains(&self.at())
    }
}

/// When an operation may leave such neighbours.
struct Exception {
    /// Why.
    reason: &'static str,
    holds: fn(&Apart<'_>) -> bool,
}

/// All of them. An era that does not merge in an operation has a rule that says so.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        reason: "what an operation had done before it failed stays",
        holds: |apart| match *apart.op {
            // It answers with the old break if it failed.
            Op::Brk { addr } => apart.result != Ok(addr),
            _ => apart.result.is_err(),
        },
    },
    Exception {
        reason: "a merge for which there is no memory is done without, until 6.13 and where areas are new",
        holds: |apart| apart.starved,
    },
    Exception {
        reason: "a fault ties pages to an anon_vma, or lets a stack grow, and merges nothing",
        holds: |apart| matches!(apart.op, Op::Touch { .. }) || apart.was_written(),
    },
    Exception {
        reason: "fork copies areas as they are, but not all that kept them apart",
        holds: |apart| matches!(apart.op, Op::Fork),
    },
    Exception {
        reason: "MREMAP_DONTUNMAP takes from the source what kept it apart, and keeps the copy from it",
        holds: |apart| matches!(apart.op, Op::Mremap { flags, .. } if flags.contains(MremapFlags::DONTUNMAP)),
    },
    Exception {
        reason: "what was moved and cannot be unmapped stays: cut, and without VM_ACCOUNT",
        holds: |apart| apart.moved_away(),
    },
    Exception {
        reason: "the flags that a driver sets come when it is decided that nothing merges",
        holds: |apart| apart.driver_sets_flags,
    },
    Exception {
        reason: "what may be dropped is unlocked when it is decided that nothing merges",
        holds: |apart| {
            apart.rules.droppable_is_not_locked && apart.above.flags.contains(VmFlags::DROPPABLE)
        },
    },
    Exception {
        reason: "Rules::brk_stays_apart",
        holds: |apart| {
            apart.rules.brk_stays_apart
                && matches!(apart.op, Op::Brk { .. })
                && apart.at() == apart.heap
        },
    },
    Exception {
        reason: "Rules::mlock_merges",
        holds: |apart| {
            let locks = matches!(
                apart.op,
                Op::Mlock { .. } | Op::Munlock { .. } | Op::Mlockall { .. } | Op::Munlockall
            );
            locks && !apart.rules.mlock_merges
        },
    },
    Exception {
        reason: "Rules::madvise_merges",
        holds: |apart| matches!(apart.op, Op::Madvise { .. }) && !apart.rules.madvise_merges,
    },
    Exception {
        reason: "Rules::mbind_merges",
        holds: |apart| matches!(apart.op, Op::Mbind { .. }) && !apart.rules.mbind_merges,
    },
    Exception {
        reason: "Rules::mremap_grown_merges",
        holds: |apart| matches!(apart.op, Op::Mremap { .. }) && !apart.rules.mremap_grown_merges,
    },
    Exception {
        reason: "Rules::uffd_merges_by_area_offset",
        holds: |apart| {
            let watches = matches!(
                apart.op,
                Op::UffdRegister { .. } | Op::UffdUnregister { .. }
            );
            watches && apart.rules.uffd_merges_by_area_offset
        },
    },
];

impl<C: Container> AddressSpace<C> {
    /// Checks that the areas are sorted, disjoint, not empty, page-aligned and below the end of the
    /// address space, and that a recount gives the counters. The error says what is wrong.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut recount = Counters::default();
        // Below zero where an era marks areas as accounted for that are not.
        let others = self.committed_of_parents.wrapping_add(self.shmem.charged());
        let mut accounted = others.wrapping_add(self.lost_charge);
        let mut last = 0;
        for vma in self.areas.iter_from(0) {
            let at = format!("area {:#x}-{:#x}", vma.start, vma.end);
            if vma.start % PAGE_SIZE != 0 || vma.end % PAGE_SIZE != 0 {
                return Err(format!("{at} is not page-aligned"));
            }
            if vma.start >= vma.end {
                return Err(format!("{at} is empty"));
            }
            if vma.start < last {
                return Err(format!("{at} overlaps what ends at {last:#x}"));
            }
            if vma.end > self.limits.task_size {
                return Err(format!("{at} ends beyond the address space"));
            }
            if matches!(vma.object, Object::File(id) if usize::from(id.0) >= self.files.len()) {
                return Err(format!("{at} is of a file that nobody added"));
            }
            if vma.object == Object::Anon && vma.flags.contains(VmFlags::SHARED) {
                return Err(format!("{at} is shared, but of no object"));
            }
            // A stack has one to grow, even where it could be shared.
            let grows = vma.flags.contains(VmFlags::GROWSDOWN);
            // And guard regions gave it one, before they were flagged.
            let guarded = self.rules.guards && !self.rules.guards_are_flagged;
            if vma.anon_vma.is_some() && vma.flags.contains(VmFlags::SHARED) && !grows && !guarded {
                return Err(format!("{at} is shared, but has private pages"));
            }
            last = vma.end;
            recount.map_count += 1;
            recount.add(&self.rules, vma.flags, vma.has_file(), vma.pages());
            if vma.flags.contains(VmFlags::LOCKED) {
                recount.locked_vm += vma.pages();
            }
            if vma.flags.contains(VmFlags::ACCOUNT) {
                accounted = accounted.wrapping_add(vma.pages());
            }
        }
        // Before it was clean, DONTUNMAP left pages counted as locked that are not.
        if !self.rules.dontunmap_is_clean && recount.locked_vm < self.counters.locked_vm {
            recount.locked_vm = self.counters.locked_vm;
        }
        if self.rules.mlock_counts_in_an_int
            && recount.locked_vm as u32 == self.counters.locked_vm as u32
        {
            recount.locked_vm = self.counters.locked_vm;
        }
        // Areas that moved as a whole were lost to all counters but these two.
        if !self.rules.mremap_counts_whole_moves {
            recount = Counters {
                map_count: recount.map_count,
                locked_vm: recount.locked_vm,
                ..self.counters
            };
        }
        if accounted != self.committed {
            return Err(format!(
                "{} pages promised, but {accounted} are of areas, objects, parents, or lost",
                self.committed
            ));
        }
        if recount != self.counters {
            return Err(format!(
                "counters {:?}, but a recount gives {recount:?}",
                self.counters
            ));
        }
        Ok(())
    }
}

impl<C: Container + Clone> AddressSpace<C> {
    /// Checks that an operation, which `before` had not seen, left no two areas side by side that the era
    /// would have merged ([`left_apart`](Self::left_apart)) without a reason. The error says where.
    pub fn check_merged(
        &self,
        before: &Self,
        op: &Op,
        result: Result<u64, Errno>,
    ) -> Result<(), String> {
        let apart = self.left_apart(before, op, result);
        match apart.iter().find(|(_, reasons)| reasons.is_empty()) {
            None => Ok(()),
            Some((at, _)) => Err(format!(
                "{op:x?} gave {result:x?}, and left at {at:#x} what would merge, for no reason"
            )),
        }
    }

    /// Where an operation, which `before` had not seen, left two areas side by side that the era would have
    /// merged, whichever of the two were the new one; but for those that were there before. With the reasons
    /// that there are. A mistake in the rules is none.
    ///
    /// ```
    /// use vmalab_model::{AddressSpace, Limits, MlockFlags, Op, Rules};
    /// # use vmalab_model::{Backing, MapFlags, Mmap, Prot};
    /// # let map = Op::Mmap(Mmap {
    /// #     addr: 0x10000,
    /// #     len: 0x4000,
    /// #     prot: Prot::READ | Prot::WRITE,
    /// #     flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
    /// #     backing: Backing::None,
    /// #     offset: 0,
    /// # });
    /// let mut space: AddressSpace = AddressSpace::new(Rules::V2_6_11, Limits::default());
    /// space.apply(&map);
    /// space.apply(&Op::Mlock { addr: 0x12000, len: 0x2000, flags: MlockFlags::empty() });
    /// let before = space.clone();
    /// let unlock = Op::Munlock { addr: 0x12000, len: 0x2000 };
    /// let result = space.apply(&unlock).result;
    /// let apart = space.left_apart(&before, &unlock, result);
    /// assert_eq!(apart, [(0x12000, vec!["Rules::mlock_merges"])]);
    /// ```
    pub fn left_apart(
        &self,
        before: &Self,
        op: &Op,
        result: Result<u64, Errno>,
    ) -> Vec<(u64, Vec<&'static str>)> {
        if self.rules.mistake.is_some() {
            let honest = |space: &Self| {
                let mut space = space.clone();
                space.rules.mistake = None;
                space
            };
            return honest(self).left_apart(&honest(before), op, result);
        }
        let starved = before.is_allocation_to_fail() && !self.is_allocation_to_fail();
        let mut found = Vec::new();
        let mut below: Option<&Vma> = None;
        for above in self.areas.iter_from(0) {
            let pair = below.replace(above).zip(Some(above));
            let Some((below, above)) = pair.filter(|(below, above)| self.would_merge(below, above))
            else {
                continue;
            };
            let at = above.start;
            let were = [at - 1, at].map(|addr| {
                let was = before.areas.find(addr);
                was.filter(|was| was.start <= addr)
            });
            if let [Some(below), Some(above)] = were {
                if before.would_merge(below, above) {
                    continue;
                }
            }
            let apart = Apart {
                rules: &self.rules,
                op,
                result,
                starved,
                heap: self.heap.start,
                below,
                above,
                were,
                driver_sets_flags: matches!(
                    above.object,
                    Object::File(id) if self.file(id).sets != VmFlags::empty()
                ),
            };
            let reasons = EXCEPTIONS.iter().filter(|one| (one.holds)(&apart));
            found.push((at, reasons.map(|one| one.reason).collect()));
        }
        found
    }
}
