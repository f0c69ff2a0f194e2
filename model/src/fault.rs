// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Touching memory: `do_user_addr_fault` (arch/x86/mm/fault.c), `handle_mm_fault` (mm/memory.c),
//! `expand_downwards` and `find_mergeable_anon_vma` (mm/vma.c).
//!
//! Which pages are present is not modelled, so calls of a driver's `fault` hook are not predicted.
//!
//! The names are those of 7.2. A stack grew by a page that it did not use from 2.6.36 to 4.11
//! (`check_stack_guard_page`); since 6.5 it grows before the area is looked at (`lock_mm_and_find_vma`), which
//! comes to the same.

use core::num::NonZeroU32;

use crate::limits::Thp;
use crate::merge::STICKY;
use crate::mprotect::ACCESS;
use crate::rules::{StackFloor, StackGuard};
use crate::unmapped_area::PMD_SIZE;
use crate::vma::AnonVma;
use crate::{
    AddressSpace, Allocation, Container, Errno, MapFlags, Object, PAGE_SHIFT, PAGE_SIZE, Rules,
    Signal, VmFlags, Vma,
};

/// Why a page cannot be had.
enum Refused {
    /// Who touches it by itself gets that signal.
    With(Signal),
    /// For want of memory: who touches it by itself does so again, until there is some.
    NoMemory,
}

const UNMAPPED: Refused = Refused::With(Signal::Unmapped);

impl<C: Container> AddressSpace<C> {
    /// The kernel reads or writes one byte for the process (`copy_from_user`, `copy_to_user`), or the process
    /// does.
    pub(crate) fn touch(&mut self, addr: u64, write: bool) -> Result<(), Errno> {
        self.do_user_addr_fault(addr, write).map_err(|refused| {
            self.signal = match refused {
                Refused::With(signal) => Some(signal),
                Refused::NoMemory => None,
            };
            Errno::EFAULT
        })
    }

    /// `do_user_addr_fault`
    fn do_user_addr_fault(&mut self, addr: u64, write: bool) -> Result<(), Refused> {
        let page = addr & !(PAGE_SIZE - 1);
        if addr >= self.limits.task_size {
            // Of addresses of 48 bits, the upper half is the kernel's.
            let canonical = matches!(addr >> 47, 0 | 0x1_ffff);
            return Err(Refused::With(if canonical {
                Signal::Unmapped
            } else {
                Signal::NoAddress
            }));
        }
        let mut vma = *self.areas.find(page).ok_or(UNMAPPED)?;
        if vma.start > page {
            vma = self.expand_downwards(&vma, page).map_err(|_| UNMAPPED)?;
        }
        self.fault(&vma, page, write)
    }

    /// One page is wanted (`access_error`, `handle_mm_fault`).
    fn fault(&mut self, vma: &Vma, page: u64, write: bool) -> Result<(), Refused> {
        let readable = VmFlags::READ | VmFlags::EXEC;
        let readable =
            vma.flags.intersects(readable) || self.rules.write_implies_read && vma.is_accessible();
        // bad_area_access_from_pkeys comes first.
        if !self.key_permits(vma.flags, write) {
            return Err(Refused::With(Signal::Key));
        }
        let permitted = if write {
            vma.flags.contains(VmFlags::WRITE)
        } else {
            readable
        };
        if !permitted {
            return Err(Refused::With(Signal::Denied));
        }
        if self.guards.contains(page) {
            return Err(UNMAPPED);
        }
        let grown = self.check_stack_guard_page(vma, page)?;
        let vma = &grown;
        let private = !vma.flags.contains(VmFlags::SHARED);
        // A private page of its own hangs on the anon_vma, which is made first: even where there is
        // no page to copy from.
        let beyond = vma.pgoff_at(page) >= self.object_pages(vma);
        if private
            && (write || self.huge_fault(vma, page))
            && (!beyond || self.rules.anon_vma_before_page)
        {
            self.anon_vma_prepare(vma).map_err(|_| Refused::NoMemory)?;
        }
        if beyond {
            return Err(Refused::With(Signal::BeyondEnd));
        }
        Ok(())
    }

    /// The lowest page of a stack is never used: the stack grows, so that another one is the lowest
    /// (`check_stack_guard_page`).
    fn check_stack_guard_page(&mut self, vma: &Vma, page: u64) -> Result<Vma, Refused> {
        if self.rules.stack_guard != StackGuard::Page
            || !vma.flags.contains(VmFlags::GROWSDOWN)
            || page != vma.start
        {
            return Ok(*vma);
        }
        match self.areas.prev(vma.start).filter(|prev| prev.end == page) {
            Some(prev) if prev.flags.contains(VmFlags::GROWSDOWN) => Ok(*vma),
            Some(_) => Err(UNMAPPED),
            None => match page.checked_sub(PAGE_SIZE) {
                Some(below) => self.expand_downwards(vma, below),
                // Below the first address the sum wraps around, to where nothing has to grow.
                None => self.anon_vma_prepare(vma),
            }
            .map_err(|_| UNMAPPED),
        }
    }

    /// Whether a first touch would try for a huge page, which needs the `anon_vma` even for reading
    /// (`do_huge_pmd_anonymous_page`; private memory of the pool, `hugetlb_no_page`).
    fn huge_fault(&self, vma: &Vma, page: u64) -> bool {
        if vma.flags.contains(VmFlags::HUGETLB) {
            return !vma.flags.contains(VmFlags::MAYSHARE);
        }
        let start = page & !(PMD_SIZE - 1);
        vma.object == Object::Anon
            && start >= vma.start
            && start + PMD_SIZE <= vma.end
            && !vma.flags.contains(VmFlags::NOHUGEPAGE)
            && match self.limits.thp {
                Thp::Never => false,
                Thp::Madvise => vma.flags.contains(VmFlags::HUGEPAGE),
                Thp::Always => true,
            }
    }

    /// Faults the pages of a range in, as MAP_POPULATE and locking do (`__mm_populate`). Stops where a
    /// page cannot be had.
    pub(crate) fn populate(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let Some(&vma) = self.areas.find(at).filter(|vma| vma.start < end) else {
                break;
            };
            let first = vma.start.max(at);
            at = vma.end;
            if !vma.flags.intersects(VmFlags::IO | VmFlags::PFNMAP) {
                self.populate_area(&vma, first, vma.end.min(end))?;
            }
        }
        Ok(())
    }

    /// `populate_vma_page_range`: writable private pages are written to, all others read.
    pub(crate) fn populate_area(&mut self, vma: &Vma, start: u64, end: u64) -> Result<(), Errno> {
        let on_fault = vma.flags.contains(VmFlags::LOCKONFAULT);
        if on_fault && !self.rules.lock_on_fault_needs_access {
            return Ok(());
        }
        if !vma.is_accessible() {
            return Err(Errno::EFAULT);
        }
        let write = vma.flags.contains(VmFlags::WRITE) && !vma.flags.contains(VmFlags::SHARED);
        if !write && !vma.flags.contains(VmFlags::MAYREAD) {
            return Err(Errno::EFAULT);
        }
        if !self.key_permits(vma.flags, write) {
            return Err(Errno::EFAULT);
        }
        if on_fault {
            return Ok(());
        }
        if (write || self.huge_fault(vma, start)) && !self.guards.contains(start) {
            self.anon_vma_prepare(vma)?;
        }
        if vma.pgoff_at(end) > self.object_pages(vma) || self.guards.any(start..end) {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }

    /// Reads or writes pages of an area, which its flags allow, one by one up to one that cannot be
    /// had (`faultin_page_range`).
    pub(crate) fn fault_in(
        &mut self,
        vma: &Vma,
        start: u64,
        end: u64,
        write: bool,
    ) -> Result<(), Errno> {
        let pages = self.object_pages(vma);
        let private = !vma.flags.contains(VmFlags::SHARED);
        if private
            && (write || self.huge_fault(vma, start))
            && (vma.pgoff_at(start) < pages || self.rules.anon_vma_before_page)
            && !self.guards.contains(start)
        {
            self.anon_vma_prepare(vma)?;
        }
        if vma.pgoff_at(end) > pages || self.guards.any(start..end) {
            return Err(Errno::EFAULT);
        }
        Ok(())
    }

    /// Faults pages in, as locking did before there was [`populate`](Self::populate)
    /// (`make_pages_present`). Some pages but not all are EPERM, by mistake of the kernel.
    pub(crate) fn make_pages_present(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let vma = *self.areas.find(start).ok_or(Errno::EFAULT)?;
        let write = vma.flags.contains(VmFlags::WRITE);
        let mut at = start;
        while at < end {
            let Some(&vma) = self.areas.find(at).filter(|vma| vma.start <= at) else {
                break;
            };
            let needed = if write { VmFlags::WRITE } else { VmFlags::READ };
            if vma.flags.contains(VmFlags::IO) || !vma.flags.contains(needed) {
                break;
            }
            let there = self
                .object_pages(&vma)
                .saturating_sub(vma.pgoff_at(at))
                .min((vma.end.min(end) - at) >> PAGE_SHIFT);
            if there > 0
                && write
                && !vma.flags.contains(VmFlags::SHARED)
                && self.anon_vma_prepare(&vma).is_err()
            {
                break;
            }
            at += there << PAGE_SHIFT;
            if at < vma.end {
                break;
            }
        }
        match at {
            _ if at >= end => Ok(()),
            _ if at == start => Err(Errno::EFAULT),
            _ => Err(Errno::EPERM),
        }
    }

    /// How many pages the object of an area holds.
    fn object_pages(&self, vma: &Vma) -> u64 {
        match vma.object {
            Object::File(id) => self.file(id).pages,
            Object::Shmem(number) => self.shmem.pages(number).unwrap_or(u64::MAX),
            Object::Anon | Object::Other => u64::MAX,
        }
    }

    /// Gives the area an `anon_vma`, if it can that of a neighbour from which it may have been cut
    /// (`__anon_vma_prepare`, `find_mergeable_anon_vma`).
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) fn anon_vma_prepare(&mut self, vma: &Vma) -> Result<Vma, Errno> {
        if vma.anon_vma.is_some() {
            return Ok(*vma);
        }
        self.allocate(Allocation::AnonVma)?;
        let next = self
            .areas
            .find(vma.end)
            .filter(|next| anon_vma_compatible(&self.rules, vma, next));
        let anon_vma = next.and_then(reusable).or_else(|| {
            self.areas
                .prev(vma.start)
                .filter(|prev| anon_vma_compatible(&self.rules, prev, vma))
                .and_then(reusable)
        });
        let anon_vma = anon_vma.unwrap_or_else(|| self.new_anon_vma());
        let vma = Vma {
            anon_vma: Some(anon_vma),
            forked: false,
            ..*vma
        };
        self.areas.replace(vma.start, vma);
        Ok(vma)
    }

    pub(crate) fn new_anon_vma(&mut self) -> AnonVma {
        self.last_anon_vma = self.last_anon_vma.checked_add(1).unwrap_or(NonZeroU32::MIN);
        AnonVma(self.last_anon_vma)
    }

    /// A stack grows down to `page` (`expand_downwards`, `acct_stack_growth`).
    fn expand_downwards(&mut self, vma: &Vma, page: u64) -> Result<Vma, Errno> {
        if !vma.flags.contains(VmFlags::GROWSDOWN) {
            return Err(Errno::EFAULT);
        }
        let bounded = match self.rules.stack_floor {
            StackFloor::None => false,
            StackFloor::ForMost => !self.limits.cap_sys_rawio,
            StackFloor::ForAll => true,
        };
        if page < self.limits.mmap_min_addr && bounded {
            return Err(Errno::EPERM);
        }
        if let Some(prev) = self.areas.prev(vma.start) {
            if self.rules.stack_guard == StackGuard::Gap
                && !prev.flags.contains(VmFlags::GROWSDOWN)
                && prev.is_accessible()
                && page - prev.end < self.limits.stack_guard_gap
            {
                return Err(Errno::ENOMEM);
            }
        }
        self.allocate(Allocation::Tree)?;
        let vma = self.anon_vma_prepare(vma)?;
        let grow = (vma.start - page) >> PAGE_SHIFT;
        let spared = if self.rules.stack_limit_spares_guard {
            PAGE_SIZE
        } else {
            0
        };
        let locked = vma.flags.contains(VmFlags::LOCKED);
        if grow > vma.pgoff
            || !self.may_expand_vm(vma.flags, grow)
            || vma.end - page - spared > self.limits.stack
            || !self
                .limits
                .may_lock(locked, grow << PAGE_SHIFT, self.counters.locked_vm)
        {
            return Err(Errno::ENOMEM);
        }
        self.charge(grow)?;
        // Whether or not it counts.
        if !vma.flags.contains(VmFlags::ACCOUNT) {
            self.lose_charge(grow);
        }
        let grown = Vma {
            start: page,
            pgoff: vma.pgoff - grow,
            ..vma
        };
        if locked {
            self.counters.locked_vm = self.counters.locked_vm.wrapping_add(grow);
        }
        self.counters
            .add(&self.rules, vma.flags, vma.has_file(), grow);
        self.areas.replace(vma.start, grown);
        Ok(grown)
    }
}

/// `anon_vma_compatible`: `b` follows `a`, and they differ at most in what mprotect changes.
fn anon_vma_compatible(rules: &Rules, a: &Vma, b: &Vma) -> bool {
    a.end == b.start
        && a.object == b.object
        && a.object != Object::Other
        && a.flags.without(ACCESS | STICKY) == b.flags.without(ACCESS | STICKY)
        && a.policy == b.policy
        && b.pgoff == a.pgoff_at(b.start)
        && (!rules.private_pages_know_their_place || a.moved == b.moved)
}

/// `reusable_anon_vma`
fn reusable(old: &Vma) -> Option<AnonVma> {
    old.anon_vma.filter(|_| !old.forked)
}

/// Whether the pages are wanted at once.
pub(crate) fn wants_pages(flags: MapFlags, vm_flags: VmFlags) -> bool {
    vm_flags.contains(VmFlags::LOCKED)
        || (flags.contains(MapFlags::POPULATE) && !flags.contains(MapFlags::NONBLOCK))
}
