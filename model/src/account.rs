// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Counting pages, and the limits that the counts run into.
//!
//! Mirrors `vm_stat_account`, `may_expand_vm`, `mlock_future_ok` (mm/mmap.c), `is_exec_mapping` and
//! its sisters (mm/vma.h), `__vm_enough_memory` (mm/util.c).
//!
//! The names and places are those of 7.2. Since 4.5 there are three kinds of pages and what is in none of them;
//! before, `__vm_stat_account` counted otherwise ([`Rules::data_is_the_rest`]), and RLIMIT_DATA was of the heap
//! alone.

use crate::{
    AddressSpace, Container, Counters, Errno, Limits, PAGE_SHIFT, Rules, VmFlags,
    limits::Overcommit,
};

/// Which of the three kinds that `/proc/PID/status` tells apart an area counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Executable, not writable, no stack.
    Exec,
    /// Grows down.
    Stack,
    /// Writable, private, no stack.
    Data,
    /// None of them.
    Plain,
}

fn class(flags: VmFlags) -> Class {
    let stack = flags.contains(VmFlags::GROWSDOWN);
    let write = flags.contains(VmFlags::WRITE);
    if flags.contains(VmFlags::EXEC) && !write && !stack {
        Class::Exec
    } else if stack {
        Class::Stack
    } else if write && !flags.contains(VmFlags::SHARED) {
        Class::Data
    } else {
        Class::Plain
    }
}

impl Counters {
    /// `VmData` used to be all that is neither of a file nor a stack, executable memory to count on its
    /// own, and `VmSize` to leave out what is no ordinary memory (`__vm_stat_account`, `reserved_vm`).
    fn of_class_before(&mut self, flags: VmFlags, file: bool, pages: i64) {
        let add = |counter: &mut u64| *counter = counter.wrapping_add_signed(pages);
        let exec = flags.contains(VmFlags::EXEC) && !flags.contains(VmFlags::WRITE);
        let stack = flags.contains(VmFlags::GROWSDOWN);
        if !flags.intersects(VmFlags::IO | VmFlags::HUGETLB) {
            add(&mut self.total_vm);
        }
        if file {
            if exec {
                add(&mut self.exec_vm);
            }
        } else if stack {
            add(&mut self.stack_vm);
        } else {
            add(&mut self.data_vm);
        }
    }

    fn of_class(&mut self, flags: VmFlags) -> Option<&mut u64> {
        match class(flags) {
            Class::Exec => Some(&mut self.exec_vm),
            Class::Stack => Some(&mut self.stack_vm),
            Class::Data => Some(&mut self.data_vm),
            Class::Plain => None,
        }
    }

    /// Pages of that kind are mapped (`vm_stat_account`).
    pub(crate) fn add(&mut self, rules: &Rules, flags: VmFlags, file: bool, pages: u64) {
        if rules.data_is_the_rest {
            self.of_class_before(flags, file, pages as i64);
            return;
        }
        // Where too much was taken off before, they wrap around.
        self.total_vm = self.total_vm.wrapping_add(pages);
        if let Some(counter) = self.of_class(flags) {
            *counter = counter.wrapping_add(pages);
        }
    }
}

impl Counters {
    /// Pages of that kind are mapped no more.
    pub(crate) fn sub(&mut self, rules: &Rules, flags: VmFlags, file: bool, pages: u64) {
        if rules.data_is_the_rest {
            self.of_class_before(flags, file, -(pages as i64));
            return;
        }
        self.total_vm = self.total_vm.wrapping_sub(pages);
        if let Some(counter) = self.of_class(flags) {
            *counter = counter.wrapping_sub(pages);
        }
    }
}

impl Limits {
    /// Whether so many more bytes may be locked (`mlock_future_ok`).
    pub(crate) fn may_lock(&self, locked: bool, bytes: u64, locked_vm: u64) -> bool {
        !locked
            || self.cap_ipc_lock
            || (bytes >> PAGE_SHIFT).wrapping_add(locked_vm) <= self.memlock >> PAGE_SHIFT
    }

    /// Whether anything may be locked at all (`can_do_mlock`).
    pub(crate) fn can_do_mlock(&self) -> bool {
        self.memlock != 0 || self.cap_ipc_lock
    }
}

impl<C: Container> AddressSpace<C> {
    /// Promises so many pages, if that may be (`security_vm_enough_memory_mm`, `__vm_enough_memory`).
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub(crate) fn charge(&mut self, pages: u64) -> Result<(), Errno> {
        let promised = self.committed.wrapping_add(pages);
        let enough = match self.limits.overcommit {
            Overcommit::Always => true,
            Overcommit::Guess { total } if self.rules.guess_wants_more => pages < total,
            Overcommit::Guess { total } => pages <= total,
            Overcommit::Never { limit, reserve } => {
                let mut kept = self.counters.total_vm / 32;
                if self.rules.user_reserve_is_bounded {
                    kept = kept.min(reserve);
                }
                promised < limit.saturating_sub(kept)
            }
        };
        if !enough {
            return Err(Errno::ENOMEM);
        }
        self.committed = promised;
        Ok(())
    }

    /// Takes a promise back (`vm_unacct_memory`).
    #[inline]
    pub(crate) fn uncharge(&mut self, pages: u64) {
        self.committed = self.committed.wrapping_sub(pages);
    }

    /// So many pages are promised of which nobody will give anything back: an error of the kernel's.
    pub(crate) fn lose_charge(&mut self, pages: u64) {
        self.lost_charge = self.lost_charge.wrapping_add(pages);
    }

    /// Whether so many pages more are within RLIMIT_AS and RLIMIT_DATA (`may_expand_vm`).
    pub(crate) fn may_expand_vm(&self, flags: VmFlags, pages: u64) -> bool {
        let data = flags.contains(VmFlags::WRITE)
            && !flags.intersects(VmFlags::SHARED | VmFlags::GROWSDOWN)
            && !self.rules.data_limit_is_of_heap;
        let Limits { data: soft, .. } = self.limits;
        let limit = if soft == 0 {
            self.limits.data_max
        } else {
            soft
        };
        self.counters.total_vm.wrapping_add(pages) <= self.limits.address_space >> PAGE_SHIFT
            && (!data || self.counters.data_vm.wrapping_add(pages) <= limit >> PAGE_SHIFT)
    }
}
