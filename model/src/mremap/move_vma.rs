// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Moving an area: `move_vma`, `unmap_source_vma`, `dontunmap_complete` (mm/mremap.c) and `copy_vma` (mm/vma.c).
//!
//! As 7.2 has them; `MREMAP_DONTUNMAP` is since 5.7.

use super::Remap;
use crate::mlock::LOCKED;
use crate::unmapped_area::Request;
use crate::{
    AddressSpace, Allocation, Container, Errno, File, Hook, MapFlags, MremapFlags, Object,
    PAGE_SHIFT, VmFlags, Vma,
};

impl<C: Container> AddressSpace<C> {
    /// `vrm_set_new_addr`
    pub(super) fn set_new_addr(&mut self, remap: &mut Remap, vma: &Vma) -> Result<(), Errno> {
        let mut flags = MapFlags::empty();
        if remap.flags.contains(MremapFlags::FIXED) {
            flags |= MapFlags::FIXED;
        }
        if vma.flags.contains(VmFlags::MAYSHARE) {
            flags |= MapFlags::SHARED;
        }
        let file = match vma.object {
            Object::File(id) => Some(*self.file(id)),
            Object::Shmem(_) if vma.flags.contains(VmFlags::HUGETLB) => Some(File::hugetlb(0)),
            Object::Shmem(_) => Some(File::memfd(0)),
            Object::Other => Some(File::regular(0)),
            Object::Anon => None,
        };
        remap.new_addr = self.get_unmapped_area(&Request {
            file: file.as_ref(),
            addr: if remap.implies_new_addr() {
                remap.new_addr
            } else {
                0
            },
            len: remap.new_len,
            pgoff: vma.pgoff_at(remap.addr),
            flags,
        })?;
        Ok(())
    }

    /// Copies the area, and unmaps what it was copied from (`move_vma`).
    pub(super) fn move_vma(&mut self, remap: &Remap, vma: Vma) -> Result<u64, Errno> {
        let dontunmap = remap.dontunmap();
        let old_end = remap.addr + remap.old_len;
        let vma = self.prep_move_vma(remap, vma)?;
        let mut charged = 0;
        if vma.flags.contains(VmFlags::ACCOUNT) {
            let bytes = if dontunmap {
                remap.new_len
            } else if self.rules.mremap_charges_what_shrank {
                remap.asked.abs_diff(remap.new_len)
            } else {
                remap.delta()
            };
            charged = bytes >> PAGE_SHIFT;
            self.charge(charged)?;
        }

        let copied = self.copy_vma(remap, &vma);
        let copy = copied.inspect_err(|_| self.uncharge(charged))?;
        if let Err(error) = self.tell_mremap(&copy) {
            // With MREMAP_DONTUNMAP it was charged for the copy, which gives it back.
            if !dontunmap {
                if self.rules.mremap_charges_what_came_back {
                    self.lose_charge(charged);
                } else {
                    self.uncharge(charged);
                }
            }
            // The pages go back, and it is the copy that is unmapped.
            self.account_remapped(copy.flags, copy.has_file(), remap.new_len >> PAGE_SHIFT);
            self.unmap_what_moved(remap, remap.new_addr, remap.new_len);
            return Err(error);
        }
        if !remap.grows() && !dontunmap {
            // What went away before the move was given back then.
            self.lose_charge(charged);
        }
        self.guards.rename(remap.addr..old_end, remap.new_addr);
        if vma.flags.contains(VmFlags::UFFD_MISSING) {
            let len = if self.rules.remap_told_before_shrinking {
                remap.asked
            } else {
                remap.old_len
            };
            self.uffd_remaps(remap.addr, remap.new_addr, len);
        }
        let mut flags = vma.flags;
        if dontunmap {
            // The old pages are gone, so nothing of them is locked.
            if self.rules.dontunmap_is_clean || !self.rules.dontunmap_counts_copy {
                flags = flags.without(LOCKED);
            }
            self.dontunmap_complete(remap, &copy)?;
        }
        let source = self.lookup(remap.addr);
        let whole = source.is_ok_and(|vma| vma.start == remap.addr && vma.end == old_end);
        if self.rules.mremap_counts_whole_moves || !whole {
            self.account_remapped(flags, vma.has_file(), remap.new_len >> PAGE_SHIFT);
        } else if flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self
                .counters
                .locked_vm
                .wrapping_add(remap.new_len >> PAGE_SHIFT);
        }
        // Without an old range (a duplicate of a shared one) there is nothing to unmap, and an error is
        // nobody's concern.
        if !dontunmap {
            // That both were there for a moment is no peak.
            let peak = self.peak_vm;
            self.unmap_what_moved(remap, remap.addr, remap.old_len);
            self.peak_vm = peak;
        }
        Ok(remap.new_addr)
    }

    /// Checks what may stand against the move, and cuts a locked source out that stays (`prep_move_vma`). Gives
    /// what is left to move.
    fn prep_move_vma(&mut self, remap: &Remap, vma: Vma) -> Result<Vma, Errno> {
        let old_end = remap.addr + remap.old_len;
        let before = vma.start != remap.addr;
        let after = vma.end != old_end;
        let locked = vma.flags.contains(VmFlags::LOCKED);
        let stays = remap.dontunmap();
        let split_first = stays && locked && self.rules.dontunmap_is_clean;
        let full = if self.rules.mremap_counts_exactly {
            self.counters.map_count + 2 + u64::from(split_first) > self.max_map_count()
        } else {
            self.counters.map_count + 3 >= self.max_map_count()
        };
        if full {
            return Err(Errno::ENOMEM);
        }
        if before && self.rules.mremap_asks_first {
            self.may_split(&vma, remap.addr)?;
        }
        if after && self.rules.mremap_asks_first {
            self.may_split(&vma, old_end)?;
        }
        if !split_first {
            return Ok(vma);
        }
        if before {
            self.split(vma.start, remap.addr, true)?;
        }
        if after {
            self.split(remap.addr, old_end, false)?;
        }
        self.lookup(remap.addr)
    }

    /// The source of `MREMAP_DONTUNMAP` has lost its pages: nothing of it is locked, nor private
    /// (`dontunmap_complete`).
    fn dontunmap_complete(&mut self, remap: &Remap, copy: &Vma) -> Result<(), Errno> {
        let old_end = remap.addr + remap.old_len;
        let mut old = self.lookup(remap.addr)?;
        old.flags = old.flags.without(LOCKED);
        if old.start == remap.addr && old.end == old_end {
            if self.rules.dontunmap_unlinks {
                old.anon_vma = None;
                old.forked = false;
                old.moved = 0;
            }
            if self.rules.dontunmap_is_clean && old.object == Object::Anon {
                old.pgoff = old.start >> PAGE_SHIFT;
            }
        }
        self.areas.replace(old.start, old);
        let amid = old.start < remap.addr && old_end < old.end && copy.start != old.start;
        if self.rules.dontunmap_accounts_above && amid && old.flags.contains(VmFlags::ACCOUNT) {
            self.account_unasked(old.end);
        }
        Ok(())
    }

    /// Unmaps the source, or the copy if it was refused: what was moved of it is not lost
    /// (`unmap_source_vma`).
    fn unmap_what_moved(&mut self, remap: &Remap, addr: u64, len: u64) {
        let moved = remap.old_len;
        let lost = self.discarded.len();
        let last = self.discarded.last().cloned();
        let dontunmap = remap.dontunmap();
        let accounted = |vma: &Vma| vma.flags.contains(VmFlags::ACCOUNT) && !dontunmap;
        let source = self.areas.find(addr).copied().filter(accounted);
        let committed = self.committed;
        let unmapped = self.munmap(addr, len);
        if source.is_some() {
            // It was told to give no charge back: that went with the pages.
            self.committed = committed;
        }
        if unmapped.is_err() {
            self.account_what_stays(source, len >> PAGE_SHIFT);
            return;
        }
        self.discarded.truncate(lost);
        if let (Some(now), Some(last)) = (self.discarded.last_mut(), last) {
            *now = last;
        }
        if moved < len {
            self.discard(addr + moved..addr + len);
        }
    }

    /// Of what could not be unmapped, `pages` should have been. The area, if it was accounted for, is so no more.
    fn account_what_stays(&mut self, source: Option<Vma>, pages: u64) {
        let once_more = match source {
            Some(_) => self.rules.mremap_charges_what_stays,
            None => self.rules.mremap_charges_all_that_stays,
        };
        if once_more {
            self.committed += pages;
            self.lose_charge(pages);
        }
        if let Some(source) = source {
            self.unaccount(source.start, source.end);
            let rest = source.pages().saturating_sub(pages);
            if once_more {
                self.lose_charge(rest);
            } else {
                self.uncharge(rest);
            }
        }
    }

    /// The areas of a range lose VM_ACCOUNT.
    fn unaccount(&mut self, start: u64, end: u64) {
        let mut at = start;
        while let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) {
            let flags = vma.flags.without(VmFlags::ACCOUNT);
            self.areas.replace(vma.start, Vma { flags, ..vma });
            at = vma.end;
        }
    }

    /// The area from there on counts as accounted for, without a charge.
    fn account_unasked(&mut self, addr: u64) {
        let Some(&vma) = self.areas.find(addr) else {
            return;
        };
        if !vma.flags.contains(VmFlags::ACCOUNT) {
            let flags = vma.flags | VmFlags::ACCOUNT;
            self.areas.replace(vma.start, Vma { flags, ..vma });
            self.lost_charge = self.lost_charge.wrapping_sub(vma.pages());
        }
    }

    /// Tells the driver that an area of its has moved here (`vm_ops->mremap`).
    fn tell_mremap(&mut self, copy: &Vma) -> Result<(), Errno> {
        let Object::File(id) = copy.object else {
            return Ok(());
        };
        if !self.rules.tells_of_mremap {
            return Ok(());
        }
        let usually = self.file(id).mremap_error;
        self.ask(Hook::Mremap, copy, usually)
    }

    /// `copy_vma`. Gives the area that holds the copy.
    fn copy_vma(&mut self, remap: &Remap, vma: &Vma) -> Result<Vma, Errno> {
        let unfaulted = vma.object == Object::Anon && vma.anon_vma.is_none();
        let new = Vma {
            start: remap.new_addr,
            end: remap.new_addr + remap.new_len,
            pgoff: if unfaulted {
                remap.new_addr >> PAGE_SHIFT
            } else {
                vma.pgoff_at(remap.addr)
            },
            moved: if vma.anon_vma.is_none() {
                0
            } else {
                let by = (remap.new_addr >> PAGE_SHIFT).wrapping_sub(remap.addr >> PAGE_SHIFT);
                vma.moved.wrapping_add(by)
            },
            ..*vma
        };
        let keep = unfaulted && self.rules.dontunmap_is_clean && remap.dontunmap();
        let beside = new.start == vma.end || new.end == vma.start;
        let alone = keep && beside && self.rules.dontunmap_beside_source_is_alone;
        let other = |near: &Vma| !(alone || keep && near.start == vma.start);
        let prev = self.areas.prev(new.start).copied().filter(other);
        let next = self.areas.find(new.start).copied().filter(other);
        if let Ok(Some(merged)) = self.merge_new_range(&new, prev.as_ref(), next.as_ref()) {
            return Ok(merged);
        }
        self.allocate_area(new.start)?;
        if vma.policy.is_some() {
            self.allocate(Allocation::Policy)?;
        }
        if vma.anon_vma.is_some() && self.rules.fork_makes_anon_vmas {
            self.allocate(Allocation::AnonVma)?;
        }
        self.call(Hook::Open, &new);
        // vma_link
        if let Err(error) = self.allocate(Allocation::Tree) {
            self.call(Hook::Close, &new);
            return Err(error);
        }
        self.areas.insert(new);
        self.shmem.gain(new.object);
        self.counters.map_count += 1;
        Ok(new)
    }
}
