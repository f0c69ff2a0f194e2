// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations: what a program asks of its address space.

use crate::{MapFlags, Prot};

/// A file that was made known to the address space before it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u16);

/// What the descriptor argument of `mmap` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// No descriptor (-1), as with `MAP_ANONYMOUS`. Without that flag it is a bad descriptor: EBADF.
    None,
    /// An open descriptor of that file.
    File(FileId),
}

/// The arguments of `mmap(2)`; `addr`, `len` and `offset` in bytes, unchecked as a program gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mmap {
    /// Where, or a hint, or 0.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
    /// What may be done with the pages.
    pub prot: Prot,
    /// How.
    pub flags: MapFlags,
    /// The descriptor.
    pub backing: Backing,
    /// From which byte of the file on.
    pub offset: u64,
}

/// One operation on an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `mmap(2)`.
    Mmap(Mmap),
    /// `munmap(2)`.
    Munmap {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// One byte is read or written, through a system call that answers EFAULT where a load or
    /// store would raise a signal. A write gives a private area its `anon_vma`, on which merging depends.
    Touch {
        /// Which byte.
        addr: u64,
        /// Written, else read.
        write: bool,
    },
}
