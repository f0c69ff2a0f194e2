// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which address a mapping gets: `__get_unmapped_area` (mm/mmap.c), `arch_get_unmapped_area` and
//! `_topdown` (arch/x86/kernel/sys_x86_64.c), `unmapped_area` and `_topdown` (mm/vma.c),
//! `thp_get_unmapped_area` (mm/huge_memory.c), `shmem_get_unmapped_area` (mm/shmem.c).
//!
//! The names are those of 7.2. `unmapped_area` is since 3.8; until 3.7 each function walked the areas by itself,
//! on x86-64 until 2.6.24 upwards from where it last stopped (`mm->free_area_cache`).

use crate::file::{File, Kind};
use crate::munmap::Gathered;
use crate::rules::{Mistake, StackGuard};
use crate::{AddressSpace, Container, Errno, MapFlags, PAGE_SHIFT, PAGE_SIZE, Vma};

/// Bytes in a huge page (`PMD_SIZE`).
pub const PMD_SIZE: u64 = 2 << 20;
/// End of the addresses that are given to those who do not ask for more (`DEFAULT_MAP_WINDOW`).
const DEFAULT_MAP_WINDOW: u64 = (1 << 47) - PAGE_SIZE;

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) file: Option<&'a File>,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) pgoff: u64,
    pub(crate) flags: MapFlags,
}

impl<C: Container> AddressSpace<C> {
    /// Chooses or checks the address (`__get_unmapped_area`).
    pub(crate) fn get_unmapped_area(&mut self, request: &Request<'_>) -> Result<u64, Errno> {
        let mut request = *request;
        let task_size = self.limits.task_size;
        let len = request.len;
        if len > task_size {
            return Err(Errno::ENOMEM);
        }
        let hugetlb = request.file.is_some_and(|file| file.kind == Kind::Hugetlb);
        if hugetlb {
            // hugetlb_get_unmapped_area
            let fixed = request.flags.contains(MapFlags::FIXED);
            if len % PMD_SIZE != 0 || (fixed && request.addr % PMD_SIZE != 0) {
                return Err(Errno::EINVAL);
            }
            if !self.rules.hugetlb_rounds_hint_down {
                request.addr = request.addr.checked_next_multiple_of(PMD_SIZE).unwrap_or(0);
            }
        }
        if self.rules.first_fit_upwards {
            return self.first_fit(&request);
        }
        if request.file.is_none() {
            request.pgoff = 0;
        }
        let shmem = match request.file {
            Some(file) => file.kind == Kind::Shmem,
            None => request.flags.contains(MapFlags::SHARED),
        };
        // Of anonymous memory only multiples of the huge page, lest each mapping leave a gap behind.
        let thp = match request.file {
            Some(file) => self.rules.file_huge_aligned && file.aligns_huge,
            None => self.rules.anon_huge_aligned && request.addr == 0 && len % PMD_SIZE == 0,
        };
        let addr = if hugetlb {
            self.hugetlb_unmapped_area(&request)?
        } else if shmem {
            self.shmem_unmapped_area(&request)?
        } else if thp {
            match self.thp_unmapped_area(&request) {
                Some(addr) => addr,
                None => self.arch_unmapped_area(&request)?,
            }
        } else {
            self.arch_unmapped_area(&request)?
        };
        if addr > task_size - len {
            return Err(Errno::ENOMEM);
        }
        if addr % PAGE_SIZE != 0 {
            return Err(Errno::EINVAL);
        }
        if addr < self.limits.mmap_min_addr && !self.limits.cap_sys_rawio {
            return Err(Errno::EPERM);
        }
        Ok(addr)
    }

    /// The first gap from where the last search ended (`arch_get_unmapped_area` of arch/x86_64, with
    /// `mm->free_area_cache`).
    fn first_fit(&mut self, request: &Request<'_>) -> Result<u64, Errno> {
        let Request {
            addr, len, flags, ..
        } = *request;
        let task_size = self.limits.task_size;
        if flags.contains(MapFlags::FIXED) {
            if addr > task_size - len {
                return Err(Errno::ENOMEM);
            }
            if addr % PAGE_SIZE != 0 {
                return Err(Errno::EINVAL);
            }
            return Ok(addr);
        }
        let (begin, end) = if flags.contains(MapFlags::BIT32) {
            (0x4000_0000, 0x8000_0000)
        } else {
            (self.limits.mmap_legacy_base, task_size)
        };
        if len > end {
            return Err(Errno::ENOMEM);
        }
        let hint = addr.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        if addr != 0 && end - len >= hint && !self.is_mapped(hint, hint + len) {
            return Ok(hint);
        }
        let from = self.last_search.max(begin);
        let found = self
            .first_gap(from, end, len)
            .or_else(|| self.first_gap(begin, end, len).filter(|_| from != begin))
            .ok_or(Errno::ENOMEM)?;
        self.last_search = found + len;
        Ok(found)
    }

    fn first_gap(&self, from: u64, end: u64, len: u64) -> Option<u64> {
        for gap in self.areas.gaps_from(from, len) {
            let at = gap.start().max(from);
            if end - len < at {
                break;
            }
            if at + len <= gap.end() {
                return Some(at);
            }
        }
        None
    }

    /// The next search begins no higher than where something went away (`arch_unmap_area`).
    pub(crate) fn forget_last_search(&mut self, gone: &Gathered) {
        if !self.rules.first_fit_upwards {
            return;
        }
        for vma in self.areas.iter_from(gone.start) {
            if vma.start >= gone.end {
                break;
            }
            if vma.start >= self.limits.mmap_legacy_base {
                self.last_search = self.last_search.min(vma.start);
            }
        }
    }

    /// An address for huge pages: one that was asked for, or in a gap with room to spare, even if a smaller
    /// one would do (`info.align_mask`).
    fn hugetlb_unmapped_area(&self, request: &Request<'_>) -> Result<u64, Errno> {
        let Request { addr, len, .. } = *request;
        if request.flags.contains(MapFlags::FIXED) {
            return Ok(addr);
        }
        // Asked for, it may be rounded to 0.
        let hint = addr & !(PMD_SIZE - 1);
        if addr != 0 && self.hint_valid(hint, len) && self.is_free(hint, len) {
            return Ok(hint);
        }
        let mut flags = request.flags;
        if !self.rules.hugetlb_heeds_map_flags {
            flags = flags.without(MapFlags::BIT32 | MapFlags::ABOVE4G);
        }
        let wide = Request {
            len: request
                .len
                .checked_add(PMD_SIZE - PAGE_SIZE)
                .ok_or(Errno::ENOMEM)?,
            flags,
            ..*request
        };
        let addr = self.arch_unmapped_area(&wide)? + wide.len - request.len;
        Ok(addr - addr % PMD_SIZE)
    }

    /// Searches with room to spare, and aligns in it (`__thp_get_unmapped_area`).
    ///
    /// Offsets are signed there: of the last ones, what is next to them for a huge page is negative, and the
    /// shortest mapping long enough.
    fn thp_unmapped_area(&self, request: &Request<'_>) -> Option<u64> {
        let offset = (request.pgoff << PAGE_SHIFT) as i64;
        let end = offset.wrapping_add(request.len as i64);
        let aligned = (offset.wrapping_sub(1) | (PMD_SIZE as i64 - 1)).wrapping_add(1);
        if end <= aligned || (end.wrapping_sub(aligned) as u64) < PMD_SIZE {
            return None;
        }
        let wide = request.len.checked_add(PMD_SIZE)?;
        (offset as u64).checked_add(wide)?;
        let addr = self
            .arch_unmapped_area(&Request {
                len: wide,
                ..*request
            })
            .ok()?;
        if addr == request.addr {
            return Some(addr);
        }
        match (offset as u64).wrapping_sub(addr) % PMD_SIZE {
            0 if self.rules.huge_aligned_at_the_top && !self.limits.legacy_layout => {
                Some(addr + PMD_SIZE)
            }
            rest => Some(addr + rest),
        }
    }

    /// `shmem_get_unmapped_area`
    fn shmem_unmapped_area(&self, request: &Request<'_>) -> Result<u64, Errno> {
        let addr = self.arch_unmapped_area(request)?;
        let offset = (request.pgoff << PAGE_SHIFT) % PMD_SIZE;
        if !self.limits.shmem_huge
            || addr % PAGE_SIZE != 0
            || request.flags.contains(MapFlags::FIXED)
            || request.addr == addr
            || request.len < PMD_SIZE
            || (offset != 0 && offset + request.len < 2 * PMD_SIZE)
            || addr % PMD_SIZE == offset
        {
            return Ok(addr);
        }
        let inflated = request.len + PMD_SIZE - PAGE_SIZE;
        let Ok(wide) = self.arch_unmapped_area(&Request {
            file: None,
            len: inflated,
            pgoff: 0,
            ..*request
        }) else {
            return Ok(addr);
        };
        let mut chosen = wide + offset - wide % PMD_SIZE;
        if wide % PMD_SIZE > offset {
            chosen += PMD_SIZE;
        }
        Ok(if chosen > self.limits.task_size - request.len {
            addr
        } else {
            chosen
        })
    }

    /// `arch_get_unmapped_area_topdown`, and where that finds nothing, or by the legacy layout,
    /// `arch_get_unmapped_area`.
    fn arch_unmapped_area(&self, request: &Request<'_>) -> Result<u64, Errno> {
        let Request {
            addr, len, flags, ..
        } = *request;
        let task_size = self.limits.task_size;
        if len > task_size {
            return Err(Errno::ENOMEM);
        }
        if flags.contains(MapFlags::FIXED) {
            return Ok(addr);
        }
        if flags.contains(MapFlags::BIT32) {
            return self.bottom_up(request, 0x4000_0000, 0x8000_0000);
        }
        let end = if addr > DEFAULT_MAP_WINDOW {
            task_size
        } else {
            task_size.min(DEFAULT_MAP_WINDOW)
        };
        if self.limits.legacy_layout {
            return self.bottom_up(request, self.limits.mmap_legacy_base, end);
        }
        let hint = addr & !(PAGE_SIZE - 1);
        if hint != 0 && self.hint_valid(hint, len) && self.is_free(hint, len) {
            return Ok(hint);
        }
        let low = if flags.contains(MapFlags::ABOVE4G) {
            1 << 32
        } else {
            PAGE_SIZE
        };
        let mut high = self.limits.mmap_base;
        if hint > DEFAULT_MAP_WINDOW {
            high += task_size - DEFAULT_MAP_WINDOW;
        }
        if let Some(found) = self.highest_gap(low, high, len) {
            return Ok(found);
        }
        self.bottom_up(request, self.limits.mmap_legacy_base, end)
    }

    /// `mmap_address_hint_valid`
    fn hint_valid(&self, addr: u64, len: u64) -> bool {
        self.limits.task_size - len >= addr
            && (addr > DEFAULT_MAP_WINDOW) == (addr + len > DEFAULT_MAP_WINDOW)
    }

    /// Whether nothing is mapped there, and no stack wants to grow there.
    fn is_free(&self, addr: u64, len: u64) -> bool {
        self.areas
            .find(addr)
            .is_none_or(|vma| addr + len <= self.start_gap(vma))
    }

    pub(crate) fn start_gap(&self, vma: &Vma) -> u64 {
        if self.rules.stack_guard != StackGuard::Gap || self.rules.errs(Mistake::NoGuardGap) {
            vma.start
        } else {
            vma.start_gap(self.limits.stack_guard_gap)
        }
    }

    /// `arch_get_unmapped_area`
    fn bottom_up(&self, request: &Request<'_>, begin: u64, end: u64) -> Result<u64, Errno> {
        let len = request.len;
        if len > end {
            return Err(Errno::ENOMEM);
        }
        if request.addr != 0 {
            let addr = request.addr.next_multiple_of(PAGE_SIZE);
            if end - len >= addr && self.is_free(addr, len) {
                return Ok(addr);
            }
        }
        self.lowest_gap(begin, end, len).ok_or(Errno::ENOMEM)
    }

    /// The highest address in `[low, high)` with room for `len` bytes (`unmapped_area_topdown`).
    ///
    /// A stack above a gap that is large enough takes its guard gap from it; if the rest is too small,
    /// the search goes on below the guard gap. A gap that is too small anyway hides the stack above it:
    /// then the guard gap may be built on.
    fn highest_gap(&self, low: u64, high: u64, len: u64) -> Option<u64> {
        let low = low.max(self.limits.mmap_min_addr);
        let mut high = high;
        for gap in self.areas.gaps_below(high, len) {
            let bottom = gap.start().max(low);
            high = high.min(gap.end());
            if high <= low {
                break;
            }
            let fits = |top: u64| top >= bottom && top - bottom >= len;
            if self.rules.small_gap_hides_stack && !fits(high) {
                continue;
            }
            let top = gap
                .above
                .map_or(high, |above| high.min(self.start_gap(above)));
            if fits(top) {
                return Some(top - len);
            }
            if self.rules.small_gap_hides_stack {
                high = top;
            }
        }
        None
    }

    /// The lowest address in `[low, high)` with room for `len` bytes (`unmapped_area`).
    fn lowest_gap(&self, low: u64, high: u64, len: u64) -> Option<u64> {
        let low = low.max(self.limits.mmap_min_addr);
        for gap in self.areas.gaps_from(low, len) {
            let bottom = gap.start().max(low);
            if bottom >= high {
                break;
            }
            let top = gap
                .above
                .map_or(high, |above| self.start_gap(above).min(high));
            if top >= bottom && top - bottom >= len {
                return Some(bottom);
            }
        }
        None
    }
}
