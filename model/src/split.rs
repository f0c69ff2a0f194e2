// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Cutting an area in two: `__split_vma` and `split_vma` (mm/vma.c).
//!
//! `__split_vma` is since 2.6.33, when `munmap` came to pass the limit for a moment; 2.6.11 has `split_vma` alone.
//! Both were in mm/mmap.c until 6.11.

use crate::file::{Kind, MaySplit};
use crate::rules::Mistake;
use crate::unmapped_area::PMD_SIZE;
use crate::{AddressSpace, Allocation, Container, Errno, Hook, Object, VmFlags, Vma};

impl<C: Container> AddressSpace<C> {
    /// Cuts the area that starts at `start` in two, whatever the limit on areas (`__split_vma`).
    ///
    /// The new piece is the lower or the upper one. It matters to the driver: `may_split` is asked
    /// about the whole, and `open` is called on the new piece while the old one still covers all.
    pub(crate) fn split_unchecked(
        &mut self,
        start: u64,
        at: u64,
        new_below: bool,
    ) -> Result<(), Errno> {
        let Some(&whole) = self.areas.find(start) else {
            unreachable!("a split of an area that is not there")
        };
        //  start        at        end
        // |-------------|----------|
        //     lower        upper
        let pgoff = if self.rules.errs(Mistake::SplitLosesOffset) {
            whole.pgoff
        } else {
            whole.pgoff_at(at)
        };
        let new = || {
            let mut new = whole;
            if new_below {
                new.end = at;
            } else {
                (new.start, new.pgoff) = (at, pgoff);
            }
            new
        };
        if let Err(error) = self.may_split(&whole, at) {
            if self.rules.errs(Mistake::FailedSplitCloses) {
                self.call(Hook::Close, &new());
            }
            return Err(error);
        }
        self.allocate_area(start)?;
        self.allocate(Allocation::Tree)?;
        if whole.policy.is_some() {
            self.allocate(Allocation::Policy)?;
        }
        if whole.anon_vma.is_some() && self.rules.fork_makes_anon_vmas {
            self.allocate(Allocation::AnonVma)?;
        }
        if whole.has_file() && !self.rules.errs(Mistake::SplitForgetsOpen) {
            self.call(Hook::Open, &new());
        }
        self.areas.split(start, at, pgoff);
        self.shmem.gain(whole.object);
        self.counters.map_count += 1;
        Ok(())
    }

    /// Cuts an area in two, if there may be one more (`split_vma`).
    pub(crate) fn split(&mut self, start: u64, at: u64, new_below: bool) -> Result<(), Errno> {
        if self.counters.map_count >= self.max_map_count() {
            return Err(Errno::ENOMEM);
        }
        self.split_unchecked(start, at, new_below)
    }

    /// Asks the driver whether the area may be cut (`vm_ops->may_split`).
    pub(crate) fn may_split(&mut self, vma: &Vma, at: u64) -> Result<(), Errno> {
        let Object::File(id) = vma.object else {
            let huge = vma.flags.contains(VmFlags::HUGETLB);
            return if huge && at % PMD_SIZE != 0 {
                Err(Errno::EINVAL)
            } else {
                Ok(())
            };
        };
        let asked = self.rules.asks_before_split;
        let file = self.file(id);
        let refused = match file.may_split {
            MaySplit::Anywhere => None,
            // Before drivers were asked, split_vma() itself knew of huge pages.
            _ if !asked && file.kind != Kind::Hugetlb => None,
            MaySplit::Aligned(size) if at % size == 0 => None,
            MaySplit::Aligned(_) => Some(Errno::EINVAL),
            MaySplit::Never(_) if file.kind == Kind::Special && !self.rules.special_is_whole => {
                None
            }
            MaySplit::Never(error) => Some(error),
        };
        if asked {
            self.ask(Hook::MaySplit { addr: at }, vma, refused)
        } else {
            refused.map_or(Ok(()), Err)
        }
    }
}
