// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The interface of `libvmac.so`, as `differ/vmac/vmac.h` has it.

use std::ffi::c_char;

pub(super) const ABI: u32 = 12;

pub(super) const MMAP: u32 = 0;
pub(super) const MUNMAP: u32 = 1;
pub(super) const TOUCH: u32 = 2;
pub(super) const MPROTECT: u32 = 3;
pub(super) const MLOCK: u32 = 4;
pub(super) const MUNLOCK: u32 = 5;
pub(super) const MREMAP: u32 = 6;
pub(super) const MADVISE: u32 = 7;
pub(super) const FORK: u32 = 8;
pub(super) const BRK: u32 = 9;
pub(super) const MLOCKALL: u32 = 10;
pub(super) const MUNLOCKALL: u32 = 11;
pub(super) const MSEAL: u32 = 12;
pub(super) const REMAP_FILE_PAGES: u32 = 13;
pub(super) const PKEY_MPROTECT: u32 = 14;
pub(super) const MDWE: u32 = 15;
pub(super) const SET_NAME: u32 = 16;
pub(super) const MBIND: u32 = 17;
pub(super) const FAIL: u32 = 18;
pub(super) const STEER: u32 = 19;
pub(super) const PKEY_ALLOC: u32 = 20;
pub(super) const PKEY_FREE: u32 = 21;

pub(super) const FAIL_ANY: u32 = 0;
pub(super) const FAIL_AREA: u32 = 1;
pub(super) const FAIL_TREE: u32 = 2;
pub(super) const FAIL_ANON_VMA: u32 = 3;

/// Of `SET_NAME`: a text that cannot be a name.
pub(super) const INVALID_NAME: u64 = u64::MAX;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Op {
    pub(super) kind: u32,
    pub(super) prot: u32,
    pub(super) flags: u32,
    pub(super) file: i32,
    pub(super) addr: u64,
    pub(super) len: u64,
    pub(super) offset: u64,
    pub(super) new_len: u64,
    pub(super) new_addr: u64,
}

pub(super) const HOOK_MMAP: u32 = 0;
pub(super) const HOOK_OPEN: u32 = 1;
pub(super) const HOOK_CLOSE: u32 = 2;
pub(super) const HOOK_MAY_SPLIT: u32 = 3;
pub(super) const HOOK_MAPPED: u32 = 4;
pub(super) const HOOK_MREMAP: u32 = 5;
pub(super) const HOOK_MPROTECT: u32 = 6;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Hook {
    pub(super) kind: u32,
    pub(super) file: i32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) pgoff: u64,
    pub(super) addr: u64,
    pub(super) to: u64,
    pub(super) flags: u64,
    pub(super) error: u32,
    pub(super) unused: u32,
}

pub(super) const ANON: i32 = -1;
pub(super) const SHMEM: i32 = -2;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) flags: u64,
    pub(super) pgoff: u64,
    pub(super) object: i32,
    pub(super) anon_vma: u32,
    pub(super) name: u32,
    pub(super) unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Counters {
    pub(super) map_count: u64,
    pub(super) total_vm: u64,
    pub(super) locked_vm: u64,
    pub(super) data_vm: u64,
    pub(super) stack_vm: u64,
    pub(super) exec_vm: u64,
    pub(super) committed: u64,
}

#[repr(C)]
pub(super) struct Seen {
    pub(super) result: i64,
    pub(super) areas: *const Area,
    pub(super) hooks: *const Hook,
    pub(super) broke: *const c_char,
    pub(super) n_areas: u32,
    pub(super) n_hooks: u32,
    pub(super) counters: Counters,
    pub(super) lost: u64,
    pub(super) discarded: *const [u64; 2],
    pub(super) n_discarded: u64,
    pub(super) excused: u64,
}

pub(super) const EXCUSED_TREE: u64 = 1;
pub(super) const EXCUSED_LOCKED: u64 = 2;

pub(super) const REGULAR: u32 = 0;
pub(super) const MEMFD: u32 = 1;
pub(super) const DEVICE: u32 = 2;
pub(super) const UNMAPPABLE: u32 = 3;

pub(super) const ANYWHERE: u32 = 0;
pub(super) const ALIGNED: u32 = 1;
pub(super) const NEVER: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct File {
    pub(super) kind: u32,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) noexec: bool,
    pub(super) prepares: bool,
    pub(super) hook_mmap: bool,
    pub(super) hook_open: bool,
    pub(super) hook_close: bool,
    pub(super) hook_may_split: bool,
    pub(super) hook_mapped: bool,
    pub(super) hook_mremap: bool,
    pub(super) hook_mprotect: bool,
    pub(super) chooses_address: bool,
    pub(super) seals: u8,
    pub(super) unused: [u8; 3],
    pub(super) mmap_error: u32,
    pub(super) mremap_error: u32,
    pub(super) mprotect_error: u32,
    pub(super) may_split: u32,
    pub(super) may_split_arg: u64,
    pub(super) pages: u64,
    pub(super) sets: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) task_size: u64,
    pub(super) mmap_min_addr: u64,
    pub(super) mmap_base: u64,
    pub(super) mmap_legacy_base: u64,
    pub(super) stack_guard_gap: u64,
    pub(super) max_map_count: u64,
    pub(super) commit: u64,
    pub(super) commit_limit: u64,
    pub(super) user_reserve: u64,
    pub(super) address_space: u64,
    pub(super) data: u64,
    pub(super) stack: u64,
    pub(super) memlock: u64,
    pub(super) start_brk: u64,
    pub(super) brk: u64,
    pub(super) program_data: u64,
    pub(super) cap_ipc_lock: bool,
    pub(super) cap_sys_rawio: bool,
    pub(super) cap_sys_nice: bool,
    pub(super) pkeys: bool,
    pub(super) unused: [u8; 4],
}

/// The functions, which `vmac.h` describes.
///
/// # Safety
/// For all of them: the library they are from is still loaded, one thread at a time calls into it, and
/// each pointer is to a value of its type, or to as many as are counted, that lives during the call.
pub(super) struct Calls {
    pub(super) reset: unsafe extern "C" fn(*const Limits, *const File, u32),
    pub(super) set_patience: unsafe extern "C" fn(u32),
    pub(super) restore: unsafe extern "C" fn(*const Area, *mut Seen),
    pub(super) apply: unsafe extern "C" fn(*const Op, *mut Seen) -> i32,
    pub(super) exit: unsafe extern "C" fn(*mut Seen),
    pub(super) perform: unsafe extern "C" fn(*const Op, u32, *mut Seen),
    pub(super) find: unsafe extern "C" fn(*const u64, u32, *mut Seen),
    pub(super) memory: unsafe extern "C" fn() -> u64,
    /// Only where it was built with `COUNTED=1`.
    pub(super) reached: Option<unsafe extern "C" fn(*mut u64) -> *const u8>,
}
