// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `munmap(2)`: `__vm_munmap`, `do_vmi_munmap`, `do_vmi_align_munmap`, and the second half,
//! `vms_complete_munmap_vmas` (mm/vma.c). The first half is [`gather`](crate::gather).
//!
//! ```text
//!            addr          addr+len
//! |----A------|---B---|------C----|      the range cuts A and C
//! |--A--|**A**|***B***|**C**|--C--|      gather: split, split; note what goes
//! |--A--|                   |--C--|      complete: count, close, forget
//! ```
//!
//! The names are those of 7.2; the two halves are since 6.12. Until 6.11 the second was
//! `detach_vmas_to_be_unmapped`, `unmap_region` and `remove_vma_list` (from 6.1 on `remove_mt`).

use crate::gather::{self, Extent, Gather, Refusal, Step, View};
use crate::rules::Announced;
use crate::space::{push_range, record};
use crate::{
    AddressSpace, Allocation, Container, Counters, Errno, Hook, PAGE_SIZE, Rules, VmFlags, Vma,
    rules::Mistake,
};

/// What a range holds that goes away (`struct vma_munmap_struct`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// What the counters lose.
    pub(crate) counters: Counters,
    /// Pages that were accounted, and are so no more.
    pub(crate) accounted: u64,
}

impl<C: Container> View for AddressSpace<C> {
    fn find(&self, addr: u64) -> Option<Extent> {
        self.areas.find(addr).map(|vma| Extent {
            start: vma.start,
            end: vma.end,
            sealed: vma.flags.contains(VmFlags::SEALED),
            locked: vma.flags.contains(VmFlags::LOCKED),
            watched: vma.flags.contains(VmFlags::UFFD_MISSING),
        })
    }

    fn map_count(&self) -> u64 {
        self.counters.map_count
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Range => Self::EINVAL,
            Refusal::Limit => Self::ENOMEM,
            Refusal::Sealed => Self::EPERM,
        }
    }
}

impl<C: Container> AddressSpace<C> {
    /// `do_vmi_munmap`
    pub(crate) fn munmap(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        if len == 0 && self.rules.errs(Mistake::MunmapOfNothingWorks) {
            return Ok(());
        }
        let (addr, end) = gather::range(addr, len, self.limits.task_size, PAGE_SIZE)?;
        if self.rules.errs(Mistake::MunmapOfHoleFails) && !self.is_mapped(addr, end) {
            return Err(Errno::EINVAL);
        }
        let gathered = self.gather(addr, end)?;
        if gathered.counters.map_count > 0 {
            // vma_iter_clear_gfp
            if let Err(error) = self.allocate(Allocation::Tree) {
                self.abort(&gathered);
                return Err(error);
            }
        }
        let freed = self.complete(&gathered);
        self.settle(&gathered, freed);
        Ok(())
    }

    /// Whether any area touches `[start, end)` (`find_vma_intersection`).
    pub(crate) fn is_mapped(&self, start: u64, end: u64) -> bool {
        self.areas.find(start).is_some_and(|vma| vma.start < end)
    }

    /// The highest number of areas with which one more may be made.
    pub(crate) fn max_map_count(&self) -> u64 {
        self.limits
            .max_map_count
            .saturating_sub(self.rules.errs(Mistake::MapCountOffByOne).into())
    }

    /// Splits what the range cuts and adds up what lies in it (`vms_gather_munmap_vmas`). After an
    /// error the splits that succeeded stay.
    pub(crate) fn gather(&mut self, start: u64, end: u64) -> Result<Gathered, Errno> {
        let mut gathered = Gathered {
            start,
            end,
            ..Gathered::default()
        };
        let announced = self.rules.unmap_announced;
        if announced == Announced::BeforeSplits {
            self.uffd_unmaps(start, end)?;
        }
        let every = self.rules.limit_at_every_split || self.rules.errs(Mistake::LimitAtEverySplit);
        let mut steps = Gather::new(start, end, self.max_map_count())
            .limit_at_every_split(every)
            .new_piece_goes(self.rules.new_piece_goes);
        while let Some(step) = steps.next(self) {
            match step {
                Step::Refuse { why, .. } => {
                    self.abort(&gathered);
                    return Err(why.into());
                }
                Step::Split {
                    area,
                    at,
                    new_below,
                } => {
                    if let Err(error) = self.split_unchecked(area, at, new_below) {
                        self.abort(&gathered);
                        return Err(error);
                    }
                }
                Step::Detach { start, .. } => {
                    if let Err(error) = self.allocate(Allocation::Tree) {
                        self.abort(&gathered);
                        return Err(error);
                    }
                    let Some(vma) = self.areas.find(start) else {
                        unreachable!("a step about an area that is not there")
                    };
                    gathered.add(vma, &self.rules);
                }
                // Counted with its area.
                Step::Unlock { .. } => {}
                Step::Announce { .. } => {
                    if announced == Announced::WithEachArea {
                        if let Err(error) = self.uffd_unmaps(start, end) {
                            self.abort(&gathered);
                            return Err(error);
                        }
                    }
                }
            }
        }
        if announced == Announced::AfterSplits {
            self.uffd_unmaps(start, end)?;
        }
        Ok(gathered)
    }

    /// What was gathered stays where it is (`vms_abort_munmap_vmas`).
    fn abort(&mut self, gathered: &Gathered) {
        if self.rules.errs(Mistake::FailedMunmapUnlocks) {
            let now = &mut self.counters.locked_vm;
            *now = now.wrapping_sub(gathered.counters.locked_vm);
        }
    }

    /// Takes the areas of the range out, and tells the drivers, in order of addresses, that they go away
    /// (`vms_clean_up_area`, `remove_vma`). Gives what was promised for shared objects that went with them.
    pub(crate) fn complete(&mut self, gathered: &Gathered) -> u64 {
        if gathered.counters.map_count == 0 {
            return 0;
        }
        self.forget_last_search(gathered);
        // update_hiwater_vm
        self.peak_vm = self.peak_vm.max(self.counters.total_vm);
        let Self {
            areas,
            files,
            hooks,
            discarded,
            shmem,
            ..
        } = self;
        let mut freed = 0;
        let first = hooks.len();
        areas.remove_range(gathered.start..gathered.end, |vma| {
            record(files, hooks, Hook::Close, vma);
            push_range(discarded, vma.start..vma.end);
            freed += shmem.lose(vma.object);
        });
        if self.rules.errs(Mistake::CloseBackwards) {
            self.hooks[first..].reverse();
        }
        self.guards.remove(gathered.start..gathered.end);
        freed
    }

    /// Takes what is gone out of the counters, and gives back what was promised for it (the end of
    /// `vms_complete_munmap_vmas`).
    pub(crate) fn settle(&mut self, gathered: &Gathered, freed: u64) {
        let gone = &gathered.counters;
        self.uncharge(gathered.accounted + freed);
        let now = &mut self.counters;
        now.map_count -= gone.map_count;
        // Below zero where an era loses count, as the kernel's own.
        now.locked_vm = now.locked_vm.wrapping_sub(gone.locked_vm);
        now.total_vm = now.total_vm.wrapping_sub(gone.total_vm);
        now.exec_vm = now.exec_vm.wrapping_sub(gone.exec_vm);
        now.stack_vm = now.stack_vm.wrapping_sub(gone.stack_vm);
        now.data_vm = now.data_vm.wrapping_sub(gone.data_vm);
    }
}

impl Gathered {
    fn add(&mut self, vma: &Vma, rules: &Rules) {
        let pages = vma.pages();
        self.counters.map_count += 1;
        self.counters.add(rules, vma.flags, vma.has_file(), pages);
        if vma.flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm += pages;
        }
        if vma.flags.contains(VmFlags::ACCOUNT) {
            self.accounted += pages;
        }
    }
}
