// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Vma`]: an area as the model keeps it (`struct vm_area_struct`).
//!
//! As 7.2 has it, with what 7.3 remembers of moves; `anon_name` is since 5.17.

use core::num::{NonZeroU8, NonZeroU32};
use core::ops::Range;

use crate::mempolicy::Policy;
use crate::{Area, Object, PAGE_SHIFT, VmFlags};

/// The identity of an `anon_vma`: private pages that may be shared by areas that were one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnonVma(pub NonZeroU32);

/// The name that a process gave to anonymous memory (`struct anon_vma_name`): which of the names of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub NonZeroU8);

/// An area, `[start, end)` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// First byte (`vm_start`).
    pub start: u64,
    /// One past the last byte (`vm_end`).
    pub end: u64,
    /// Offset of `start` in the object, in pages; of private anonymous memory `start >> PAGE_SHIFT`
    /// at the time of the mapping (`vm_pgoff`).
    pub pgoff: u64,
    /// Flags (`vm_flags`).
    pub flags: VmFlags,
    /// What is mapped (`vm_file`).
    pub object: Object,
    /// What private pages hang on, once one was written (`anon_vma`).
    pub anon_vma: Option<AnonVma>,
    /// How many pages it has moved up, modulo 2⁶⁴, since something was written to it: its first page less
    /// its anonymous page offset (`vma_start_anon_pgoff`, since 7.3).
    pub moved: u64,
    /// The area came through `fork` with an `anon_vma` (its `anon_vma_chain` is not singular).
    pub forked: bool,
    /// What its process calls it (`anon_name`).
    pub name: Option<Name>,
    /// From where its pages are taken (`vm_policy`).
    pub policy: Option<Policy>,
}

/// What is kept of tens of thousands of areas is kept small.
const _: () = assert!(size_of::<Vma>() <= 56);

impl Vma {
    /// An area as it is when it was mapped: nothing was written to it.
    pub const fn new(bytes: Range<u64>, pgoff: u64, flags: VmFlags, object: Object) -> Self {
        Self {
            start: bytes.start,
            end: bytes.end,
            pgoff,
            flags,
            object,
            anon_vma: None,
            moved: 0,
            forked: false,
            name: None,
            policy: None,
        }
    }

    /// What a part of it is, cut out.
    pub(crate) const fn part(&self, bytes: Range<u64>) -> Self {
        Self {
            start: bytes.start,
            end: bytes.end,
            pgoff: self.pgoff_at(bytes.start),
            ..*self
        }
    }

    /// Its size in pages (`vma_pages`).
    pub const fn pages(&self) -> u64 {
        (self.end - self.start) >> PAGE_SHIFT
    }

    /// The page offset of an address inside it (`linear_page_index`).
    pub const fn pgoff_at(&self, addr: u64) -> u64 {
        self.pgoff
            .wrapping_add((addr.wrapping_sub(self.start)) >> PAGE_SHIFT)
    }

    /// Whether reads, writes or execution are allowed at all (`vma_is_accessible`).
    pub const fn is_accessible(&self) -> bool {
        self.flags.intersects(VmFlags(
            VmFlags::READ.0 | VmFlags::WRITE.0 | VmFlags::EXEC.0,
        ))
    }

    /// The lowest address that others should keep away from (`vm_start_gap`).
    pub const fn start_gap(&self, guard: u64) -> u64 {
        if self.flags.contains(VmFlags::GROWSDOWN) {
            self.start.saturating_sub(guard)
        } else {
            self.start
        }
    }

    /// Whether a file is behind it, if only that of shared anonymous memory (`vm_file`).
    pub const fn has_file(&self) -> bool {
        !matches!(self.object, Object::Anon)
    }

    /// The part of it that others see.
    pub const fn area(&self) -> Area {
        Area {
            start: self.start,
            end: self.end,
            flags: self.flags,
            offset: self.pgoff << PAGE_SHIFT,
            object: self.object,
            anon_vma: self.anon_vma,
            name: self.name,
        }
    }
}
