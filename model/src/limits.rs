// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Limits`]: what a machine, its administrator and `setrlimit(2)` allow a process.
//!
//! `mm->mmap_base` decides on x86-64 since 2.6.25; `stack_guard_gap` is since 4.12.

use crate::PAGE_SIZE;

/// No limit (`RLIM_INFINITY`).
pub const INFINITY: u64 = u64::MAX;

/// The bounds of an address space. The default is a root process on x86-64 with four-level page
/// tables, without address randomisation, as Debian configures its kernels. Sizes and addresses are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// End of the addresses that a process may use (`TASK_SIZE`).
    pub task_size: u64,
    /// Mappings of `MAP_FIXED` below need [`cap_sys_rawio`](Self::cap_sys_rawio)
    /// (`vm.mmap_min_addr`).
    pub mmap_min_addr: u64,
    /// From here downwards addresses are chosen (`mm->mmap_base`).
    pub mmap_base: u64,
    /// From here upwards addresses are chosen where there is no room below
    /// [`mmap_base`](Self::mmap_base) (`mm->mmap_legacy_base`).
    pub mmap_legacy_base: u64,
    /// Addresses are chosen from [`mmap_legacy_base`](Self::mmap_legacy_base) upwards alone: an unlimited stack at
    /// exec, `personality(ADDR_COMPAT_LAYOUT)` or `vm.legacy_va_layout` (`mmap_is_legacy`).
    pub legacy_layout: bool,
    /// Distance kept below an area that may grow down (`stack_guard_gap`).
    pub stack_guard_gap: u64,
    /// `vm.max_map_count`.
    pub max_map_count: u64,
    /// `vm.overcommit_memory`.
    pub overcommit: Overcommit,
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// The hard RLIMIT_DATA, which holds for all but the heap where [`data`](Self::data) is 0: so wants Valgrind.
    pub data_max: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK.
    pub memlock: u64,
    /// CAP_IPC_LOCK: may lock beyond [`memlock`](Self::memlock).
    pub cap_ipc_lock: bool,
    /// CAP_SYS_RAWIO: may map below [`mmap_min_addr`](Self::mmap_min_addr).
    pub cap_sys_rawio: bool,
    /// CAP_SYS_NICE: may have pages moved that others have, too (`MPOL_MF_MOVE_ALL`).
    pub cap_sys_nice: bool,
    /// The processor has protection keys (`ospke` in `/proc/cpuinfo`): memory that is only executable has one of its
    /// own, and cannot be read.
    pub pkeys: bool,
    /// Where anonymous memory uses huge pages
    /// (`/sys/kernel/mm/transparent_hugepage/enabled`).
    pub thp: Thp,
    /// Shared memory may use huge pages, so that its areas are aligned
    /// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled` is not `never` or `deny`).
    pub shmem_huge: bool,
    /// Anonymous memory may have names (`CONFIG_ANON_VMA_NAME`, which Debian leaves out).
    pub anon_vma_name: bool,
}

/// How much memory may be promised (`vm.overcommit_memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overcommit {
    /// 0: a single request may not be larger than what could be had at all.
    Guess {
        /// Memory and swap, in pages. For kernels before 5.2, what is free of them or can be freed at that moment (the
        /// page cache, reclaimable slabs), less what is kept for root.
        total: u64,
    },
    /// 1: all is allowed.
    Always,
    /// 2: all that is promised must be less than the limit, and `MAP_NORESERVE` means nothing.
    Never {
        /// What there is to be promised (`CommitLimit` of `/proc/meminfo`), in pages: less what others have been
        /// promised, and less what is kept for root (`vm.admin_reserve_kbytes`) unless this is root.
        limit: u64,
        /// What is kept for others if the process is large, in pages (`vm.user_reserve_kbytes`): no more than one
        /// page for 32 of its own.
        reserve: u64,
    },
}

/// Where anonymous memory uses huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thp {
    /// Nowhere.
    Never,
    /// Where `MADV_HUGEPAGE` asked for it.
    Madvise,
    /// Wherever one fits.
    Always,
}

impl Default for Limits {
    fn default() -> Self {
        let task_size = (1 << 47) - PAGE_SIZE;
        Self {
            task_size,
            mmap_min_addr: 0x1_0000,
            mmap_base: task_size - (128 << 20),
            mmap_legacy_base: (task_size / 3).next_multiple_of(PAGE_SIZE),
            legacy_layout: false,
            stack_guard_gap: 256 * PAGE_SIZE,
            max_map_count: 65530,
            overcommit: Overcommit::Always,
            address_space: INFINITY,
            data: INFINITY,
            data_max: INFINITY,
            stack: 8 << 20,
            memlock: 8 << 20,
            cap_ipc_lock: true,
            cap_sys_rawio: true,
            cap_sys_nice: true,
            pkeys: false,
            thp: Thp::Always,
            shmem_huge: false,
            anon_vma_name: false,
        }
    }
}
