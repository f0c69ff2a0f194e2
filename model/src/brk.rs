// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `brk(2)`: the system call, `check_brk_limits`, `vm_brk_flags` (mm/mmap.c), `do_brk_flags`
//! (mm/vma.c).
//!
//! It has no errors: it answers with the break that there is afterwards, which is the old one if
//! anything went wrong.
//!
//! The names are those of 7.2. In 6.1 the heap's own area came to be looked for and expanded; until 6.0 `do_brk`
//! mapped as `mmap` does. 2.6.11 has other bounds: the fields `brk_*` of [`Rules`](crate::Rules).

use crate::rules::Mistake;
use crate::unmapped_area::Request;
use crate::{
    AddressSpace, Allocation, Container, Errno, MapFlags, Object, PAGE_SHIFT, PAGE_SIZE, VmFlags,
    Vma,
};

/// The program break: the heap is `[start, end)`, the last page of it in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Break {
    /// Where the heap begins (`mm->start_brk`).
    pub start: u64,
    /// One past its last byte (`mm->brk`).
    pub end: u64,
    /// Bytes of the program's own data, which count against RLIMIT_DATA as well
    /// (`end_data - start_data`).
    pub program_data: u64,
    /// Where the program's own data begins (`mm->start_data`).
    pub data_start: u64,
    /// One past the program's code (`mm->end_code`).
    pub code_end: u64,
}

impl Break {
    /// A heap of no pages there, right behind a program without data.
    pub const fn empty(addr: u64) -> Self {
        Self {
            start: addr,
            end: addr,
            program_data: 0,
            data_start: addr,
            code_end: addr,
        }
    }
}

/// What areas of a program may do by default (`VM_DATA_DEFAULT_FLAGS`).
const DATA_DEFAULT: VmFlags = VmFlags(
    VmFlags::READ.0
        | VmFlags::WRITE.0
        | VmFlags::MAYREAD.0
        | VmFlags::MAYWRITE.0
        | VmFlags::MAYEXEC.0,
);

fn page_align(addr: u64) -> u64 {
    addr.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

impl<C: Container> AddressSpace<C> {
    /// Says where the heap is.
    pub fn set_break(&mut self, new: Break) {
        self.heap = new;
    }

    /// `brk(2)`. Gives the break.
    pub(crate) fn brk(&mut self, new: u64) -> u64 {
        if self.try_brk(new).is_ok() {
            self.heap.end = new;
        }
        self.heap.end
    }

    fn try_brk(&mut self, new: u64) -> Result<(), Errno> {
        let Break {
            start,
            end,
            program_data,
            data_start,
            code_end,
        } = self.heap;
        let floor = if self.rules.brk_goes_down_to_code {
            code_end
        } else {
            start
        };
        if new < floor {
            return Err(Errno::EINVAL);
        }
        // check_data_rlimit
        let data = if self.rules.brk_limit_counts_gap {
            new.saturating_sub(data_start)
        } else {
            new.saturating_sub(start).saturating_add(program_data)
        };
        let too_much = data > self.limits.data;
        if too_much && !self.rules.brk_shrinks_beyond_limit {
            return Err(Errno::ENOSPC);
        }
        let (new_page, old_page) = (page_align(new), page_align(end));
        if new_page == old_page {
            return Ok(());
        }
        if new <= end {
            // What lies there need not be the heap.
            if !self.is_mapped(new_page, old_page) && self.rules.brk_needs_heap {
                return Err(Errno::EINVAL);
            }
            return self.munmap(new_page, old_page - new_page);
        }
        if too_much {
            return Err(Errno::ENOSPC);
        }
        // Near the end of all addresses the sum wraps around, and is far too long.
        let len = new_page.wrapping_sub(old_page);
        self.brk_limits(old_page, len)?;
        // Not right below something else: the page behind, and the guard gap of a stack.
        if let Some(next) = self.areas.find(old_page) {
            if new_page + PAGE_SIZE > self.start_gap(next) {
                return Err(Errno::ENOMEM);
            }
        }
        self.do_brk_flags(old_page, len)?;
        if self.def_flags.contains(VmFlags::LOCKED) {
            let _ = self.populate(old_page, old_page + len);
        }
        Ok(())
    }

    /// `check_brk_limits`
    fn brk_limits(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let bound = self.get_unmapped_area(&Request {
            file: None,
            addr,
            len,
            pgoff: 0,
            flags: MapFlags::FIXED,
        });
        // Forgotten, but no sum wraps around.
        if !self.rules.errs(Mistake::BrkUnbounded) || len > 1 << 62 {
            bound?;
        }
        let locked = self.def_flags.contains(VmFlags::LOCKED);
        if !self.limits.may_lock(locked, len, self.counters.locked_vm) {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// `do_brk_flags`
    fn do_brk_flags(&mut self, addr: u64, len: u64) -> Result<(), Errno> {
        let pages = len >> PAGE_SHIFT;
        let flags = DATA_DEFAULT | VmFlags::ACCOUNT | self.def_flags;
        if !self.may_expand_vm(flags, pages) || self.counters.map_count > self.max_map_count() {
            return Err(Errno::ENOMEM);
        }
        self.charge(pages)?;
        let grown = self.add_to_heap(addr, len, flags);
        if grown.is_err() {
            self.uncharge(pages);
        }
        grown
    }

    /// Where the limits allow it.
    fn add_to_heap(&mut self, addr: u64, len: u64, flags: VmFlags) -> Result<(), Errno> {
        let pages = len >> PAGE_SHIFT;
        let new = Vma::new(addr..addr + len, addr >> PAGE_SHIFT, flags, Object::Anon);
        // What the heap begins behind is no part of it.
        let apart = self.rules.brk_stays_apart && addr == self.heap.start;
        let prev = self.areas.prev(addr).copied().filter(|_| !apart);
        if self.merge_new_range(&new, prev.as_ref(), None)?.is_none() {
            self.allocate_area(addr)?;
            self.allocate(Allocation::Tree)?;
            self.areas.insert(new);
            self.counters.map_count += 1;
        }
        self.counters.add(&self.rules, flags, false, pages);
        if flags.contains(VmFlags::LOCKED) {
            self.counters.locked_vm = self.counters.locked_vm.wrapping_add(pages);
        }
        Ok(())
    }
}
