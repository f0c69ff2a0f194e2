// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Outcomes: what an operation did, predicted by the model or observed on a kernel.

use alloc::vec::Vec;
use core::ops::Range;

use crate::vma::{AnonVma, Name};
use crate::{Errno, FileId, Signal, UffdEvent, VmFlags};

/// What an area shows, in the terms of `/proc/PID/maps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// Private anonymous memory.
    Anon,
    /// Shared anonymous memory (`/dev/zero (deleted)`): one object per `mmap` call. The number tells
    /// one from another; an oracle numbers them in the order in which it first sees them.
    Shmem(u32),
    /// A file of the run.
    File(FileId),
    /// Something that was there before the run began (the program, its libraries, its stack, …).
    Other,
}

/// One area (`vm_area_struct`): `[start, end)` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Area {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Flags. An oracle that reads `/proc` sees READ, WRITE, EXEC and MAYSHARE of them.
    pub flags: VmFlags,
    /// Offset of `start` in the object, in bytes. Of private anonymous areas the kernel keeps one
    /// too (`vm_pgoff`), which `/proc` does not tell.
    pub offset: u64,
    /// What is mapped.
    pub object: Object,
    /// Its `anon_vma`. The number tells one from another, and means nothing else.
    pub anon_vma: Option<AnonVma>,
    /// What its process calls it.
    pub name: Option<Name>,
}

/// Counters of the address space (`mm_struct`), in pages but for `map_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Number of areas.
    pub map_count: u64,
    /// `VmSize`.
    pub total_vm: u64,
    /// `VmLck`.
    pub locked_vm: u64,
    /// `VmData`.
    pub data_vm: u64,
    /// `VmStk`.
    pub stack_vm: u64,
    /// `VmExe` and `VmLib` together.
    pub exec_vm: u64,
}

/// A hook of a driver: its mmap handler, or a member of `vm_operations_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `file_operations.mmap` (or `mmap_prepare`).
    Mmap,
    /// `open`: an area was copied, by a split, a move or fork.
    Open,
    /// `close`: an area goes away.
    Close,
    /// `may_split`: may the area be cut at this address? (`start` and `end` are the area's.)
    MaySplit {
        /// Where the cut would be.
        addr: u64,
    },
    /// `mapped`: an area has come into being, of a driver with `mmap_prepare`.
    Mapped,
    /// `mremap`: the area is what another one was moved to, pages and all. It may be more than what
    /// moved, if that was merged.
    Mremap,
    /// `mprotect`: may a part of the area get these flags?
    Mprotect {
        /// First byte of the part.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// The flags that it would have.
        flags: VmFlags,
    },
    /// `fault`: a page is wanted.
    Fault {
        /// The page.
        addr: u64,
        /// For writing.
        write: bool,
    },
}

/// One call of a hook, with the area as the hook saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookCall {
    /// Which.
    pub hook: Hook,
    /// Whose.
    pub file: FileId,
    /// First byte of the area.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// Offset of `start` in the file, in bytes.
    pub offset: u64,
    /// The error that it answered.
    pub error: Option<Errno>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The value, or the error. `mmap`, `mremap`, `shmat` and `brk` give an address, `pkey_alloc` a key, all others 0.
    pub result: Result<u64, Errno>,
    /// What a program would get that touched the memory by itself, where [`Op::Touch`](crate::Op::Touch) is
    /// EFAULT. None if that was for want of memory, and of all other operations.
    pub signal: Option<Signal>,
    /// The hook calls that a driver's areas saw, in order. The model does not predict
    /// [`Hook::Fault`]: it does not know which pages are present.
    pub hooks: Vec<HookCall>,
    /// What a userfaultfd is told, in order.
    pub events: Vec<UffdEvent>,
    /// The ranges whose pages were taken out of the page tables, in order: what was private there is lost.
    /// Pages that moved elsewhere are not among them.
    pub discarded: Vec<Range<u64>>,
    /// The areas afterwards, by address, as far as they touch the window that was asked for.
    pub layout: Vec<Area>,
    /// The counters afterwards.
    pub counters: Counters,
    /// The most pages that there ever were until then ([`AddressSpace::peak_vm`](crate::AddressSpace::peak_vm)).
    pub peak_vm: u64,
    /// How many pages have been promised afterwards, to the process and to those that it is a fork of
    /// (`vm_committed_as`, of which each process has a share). What the kernel forgets to give back stays.
    pub committed: u64,
}

impl Default for Outcome {
    /// Room to be filled in: success, and nothing mapped.
    fn default() -> Self {
        Self {
            result: Ok(0),
            signal: None,
            hooks: Vec::new(),
            events: Vec::new(),
            discarded: Vec::new(),
            layout: Vec::new(),
            counters: Counters::default(),
            peak_vm: 0,
            committed: 0,
        }
    }
}
