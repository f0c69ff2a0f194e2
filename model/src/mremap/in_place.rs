// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What `mremap` does to an area where it stands: `mremap_at`, `shrink_vma`, `expand_vma_in_place` (mm/mremap.c)
//! and `vma_merge_extend` (mm/vma.c).
//!
//! As 7.2 has them; what grows merges with the area behind it since 6.1.

use super::Remap;
use crate::rules::Mistake;
use crate::unmapped_area::Request;
use crate::{AddressSpace, Container, Errno, MapFlags, MremapFlags, PAGE_SHIFT, VmFlags, Vma};

impl<C: Container> AddressSpace<C> {
    /// In place, if that can be (`mremap_at`).
    pub(super) fn mremap_at(&mut self, remap: &mut Remap, vma: &Vma) -> Result<u64, Errno> {
        if remap.shrinks() {
            self.shrink(remap)?;
        } else if remap.grows() {
            if vma.end - remap.addr == remap.old_len && self.expandable(vma, remap.delta()) {
                self.expand_in_place(remap, vma)?;
                return Ok(remap.addr);
            }
            if !remap.flags.contains(MremapFlags::MAYMOVE) {
                return Err(Errno::ENOMEM);
            }
            self.set_new_addr(remap, vma)?;
            return self.move_vma(remap, *vma);
        }
        Ok(remap.addr)
    }

    /// Unmaps what is too much (`shrink_vma`).
    pub(super) fn shrink(&mut self, remap: &Remap) -> Result<(), Errno> {
        let result = self.munmap(remap.addr + remap.new_len, remap.delta());
        if self.rules.errs(Mistake::MremapIgnoresUnmap) {
            return Ok(());
        }
        result
    }

    /// `vma_expandable`
    fn expandable(&mut self, vma: &Vma, delta: u64) -> bool {
        let Some(end) = vma.end.checked_add(delta) else {
            return false;
        };
        !self.is_mapped(vma.end, end)
            && self
                .get_unmapped_area(&Request {
                    file: None,
                    addr: vma.start,
                    len: end - vma.start,
                    pgoff: 0,
                    flags: MapFlags::FIXED,
                })
                .is_ok()
    }

    /// `expand_vma_in_place`, `vma_merge_extend`
    fn expand_in_place(&mut self, remap: &Remap, vma: &Vma) -> Result<(), Errno> {
        let pages = remap.delta() >> PAGE_SHIFT;
        let mut charged = 0;
        if vma.flags.contains(VmFlags::ACCOUNT) {
            charged = pages;
            self.charge(charged)?;
        }
        let more = Vma {
            start: vma.end,
            end: vma.end + remap.delta(),
            pgoff: if self.rules.errs(Mistake::MremapGrowsFromPart) {
                vma.pgoff + (remap.old_len >> PAGE_SHIFT)
            } else {
                vma.pgoff_at(vma.end)
            },
            forked: false,
            ..*vma
        };
        // Where a `close` hook forbids all merging, the area grows by itself.
        let alone = self.rules.close_forbids_merging && !self.may_vanish(vma);
        if self.rules.mremap_grown_merges && !alone {
            let next = self.areas.find(vma.end).copied();
            let merged = self.merge_new_range(&more, Some(vma), next.as_ref());
            let merged = merged.and_then(|merged| merged.ok_or(Errno::ENOMEM));
            merged.inspect_err(|_| self.uncharge(charged))?;
        } else {
            let grown = Vma {
                end: more.end,
                ..*vma
            };
            self.areas.replace(vma.start, grown);
        }
        self.account_remapped(vma.flags, vma.has_file(), pages);
        Ok(())
    }
}
