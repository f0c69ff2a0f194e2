// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What must hold after every operation, as `validate_mm` (mm/vma.c) checks in debug kernels, and more.

use alloc::{format, string::String};

use crate::{AddressSpace, Container, Counters, Object, PAGE_SIZE, VmFlags};

impl<C: Container> AddressSpace<C> {
    /// Checks that the areas are sorted, disjoint, not empty, page-aligned and below the end of the
    /// address space, and that a recount gives the counters. The error says what is wrong.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut recount = Counters::default();
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
        }
        // Before it was clean, DONTUNMAP left pages counted as locked that are not.
        if !self.rules.dontunmap_is_clean && recount.locked_vm < self.counters.locked_vm {
            recount.locked_vm = self.counters.locked_vm;
        }
        // mlock counts in an int.
        if recount.locked_vm as u32 == self.counters.locked_vm as u32 {
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
        if recount != self.counters {
            return Err(format!(
                "counters {:?}, but a recount gives {recount:?}",
                self.counters
            ));
        }
        Ok(())
    }
}
