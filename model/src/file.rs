// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`File`]: what the model knows of an open file that is mapped.
//!
//! `vm_operations_struct` as 7.2 has it: `split` came in 4.15 and is `may_split` since 5.11, `mremap` came in 4.3,
//! `mprotect` in 5.11, `mapped` in 7.1; `file_operations` has `mmap_prepare` since 6.16.

use crate::steer::Steered;
use crate::unmapped_area::PMD_SIZE;
use crate::{Errno, FileId, VmFlags};

/// An open file (`struct file`): two opens of one path are two files, two descriptors of one open
/// (`dup`) are one.
///
/// ```
/// use vmalab_model::file::{File, MaySplit};
/// use vmalab_model::{AddressSpace, Errno, Limits, Mmap, Op, Rules};
///
/// // A driver that lets its areas be cut at every fourth page alone.
/// let device = File { may_split: MaySplit::Aligned(0x4000), ..File::device(16) };
/// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
/// let id = space.add_file(device);
/// space.apply(&Op::Mmap(Mmap::shared(id, 0x10000, 0x8000, 0)));
/// let unmap = |len| Op::Munmap { addr: 0x10000, len };
/// assert_eq!(space.apply(&unmap(0x1000)).result, Err(Errno::EINVAL));
/// assert_eq!(space.apply(&unmap(0x4000)).result, Ok(0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// Opened for reading (`FMODE_READ`).
    pub read: bool,
    /// Opened for writing (`FMODE_WRITE`).
    pub write: bool,
    /// On a file system mounted noexec, or a device node there (`path_noexec`).
    pub noexec: bool,
    /// How many pages it holds; a touch past them is refused.
    pub pages: u64,
    /// How it is sealed against writing, from before it is first mapped.
    pub write_seal: WriteSeal,
    /// Which hooks its driver has. Their calls are part of the outcome.
    pub hooks: Hooks,
    /// Flags that its mmap handler sets on every new area.
    pub sets: VmFlags,
    /// Whether the handler runs before merging (`mmap_prepare`) or only for what was not merged
    /// (`mmap`).
    pub prepares: bool,
    /// Its driver has a say in where it is mapped (`file_operations.get_unmapped_area`), and chooses as the
    /// kernel would. What tmpfs and hugetlbfs do follows from [`kind`](Self::kind).
    pub chooses_address: bool,
    /// It is mapped where huge pages fit, if it is long enough for one and may be anywhere: what its driver
    /// has there is `thp_get_unmapped_area`, which the kernel knows. So have ext2, ext4, xfs, btrfs, erofs and fuse.
    pub aligns_huge: bool,
    /// It is what `shmat` made of that segment.
    pub attached: Option<FileId>,
    /// The error with which its mmap handler refuses, if it does.
    pub mmap_error: Option<Errno>,
    /// What its `may_split` hook says.
    pub may_split: MaySplit,
    /// The error with which its `mremap` hook sends an area back, if it does.
    pub mremap_error: Option<Errno>,
    /// The error with which its `mprotect` hook refuses, if it does.
    pub mprotect_error: Option<Errno>,
    /// What its driver was told to do once, besides what it always does.
    pub steered: Option<Steered>,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, of which the kernel bounds the size.
    Regular,
    /// A regular file on tmpfs, as `memfd_create(2)` makes them: may want huge-page alignment.
    Shmem,
    /// A character device.
    Device,
    /// A file of hugetlbfs: its pages are of 2 MiB, and reserved when they are mapped.
    Hugetlb,
    /// A segment of System V shared memory: not to be mapped, but attached.
    Segment,
    /// What the kernel itself maps into a process.
    Special,
    /// It cannot be mapped: ENODEV.
    Unmappable,
}

/// How a memory file is sealed against writing (`F_ADD_SEALS` of `fcntl(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSeal {
    /// It is not. All other seals change nothing about areas; `F_SEAL_EXEC` of a file that is executable seals it
    /// against writing, too.
    None,
    /// `F_SEAL_WRITE`: nobody writes to it any more.
    Write,
    /// `F_SEAL_FUTURE_WRITE` alone: nobody but through shared areas that were there before.
    FutureWrite,
}

/// What a driver answers when asked whether an area may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaySplit {
    /// Everywhere, or there is no such hook.
    Anywhere,
    /// At multiples of so many bytes, else EINVAL (hugetlbfs).
    Aligned(u64),
    /// Nowhere: the error (`[vdso]` and its like say EINVAL).
    Never(Errno),
}

/// The hooks that a driver has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// `file_operations.mmap` or `mmap_prepare` is watched.
    pub mmap: bool,
    /// `vm_operations_struct.open`.
    pub open: bool,
    /// `vm_operations_struct.close`. Its presence restricts merging.
    pub close: bool,
    /// `vm_operations_struct.may_split` (`split` before 5.11).
    pub may_split: bool,
    /// `vm_operations_struct.mapped`; only with [`File::prepares`].
    pub mapped: bool,
    /// `vm_operations_struct.mremap`.
    pub mremap: bool,
    /// `vm_operations_struct.mprotect`.
    pub mprotect: bool,
}

impl Hooks {
    /// All of them, as `/dev/vmalab` has.
    pub const ALL: Self = Self {
        mmap: true,
        open: true,
        close: true,
        may_split: true,
        mapped: true,
        mremap: true,
        mprotect: true,
    };
    /// None of them.
    pub const NONE: Self = Self {
        mmap: false,
        open: false,
        close: false,
        may_split: false,
        mapped: false,
        mremap: false,
        mprotect: false,
    };
}

impl File {
    /// A regular file without hooks, open for reading and writing.
    pub const fn regular(pages: u64) -> Self {
        Self {
            kind: Kind::Regular,
            read: true,
            write: true,
            noexec: false,
            pages,
            write_seal: WriteSeal::None,
            hooks: Hooks::NONE,
            sets: VmFlags::empty(),
            prepares: true,
            chooses_address: false,
            aligns_huge: false,
            attached: None,
            mmap_error: None,
            may_split: MaySplit::Anywhere,
            mremap_error: None,
            mprotect_error: None,
            steered: None,
        }
    }

    /// A memory file that is sealed so (`F_ADD_SEALS`).
    pub const fn sealed_memfd(pages: u64, write_seal: WriteSeal) -> Self {
        Self {
            write_seal,
            ..Self::memfd(pages)
        }
    }

    /// A memory file (`memfd_create(2)`).
    pub const fn memfd(pages: u64) -> Self {
        Self {
            kind: Kind::Shmem,
            ..Self::regular(pages)
        }
    }

    /// A segment of System V shared memory (`shmget(2)`).
    pub const fn segment(pages: u64) -> Self {
        Self {
            kind: Kind::Segment,
            ..Self::regular(pages)
        }
    }

    /// A file of hugetlbfs, with pages of 2 MiB; `pages` counts small ones.
    pub const fn hugetlb(pages: u64) -> Self {
        Self {
            kind: Kind::Hugetlb,
            hooks: Hooks {
                close: true,
                ..Hooks::NONE
            },
            sets: VmFlags(VmFlags::HUGETLB.0 | VmFlags::DONTEXPAND.0),
            prepares: false,
            may_split: MaySplit::Aligned(PMD_SIZE),
            ..Self::regular(pages)
        }
    }

    /// A character device with all hooks, each of which allows everything.
    pub const fn device(pages: u64) -> Self {
        Self {
            kind: Kind::Device,
            hooks: Hooks::ALL,
            prepares: false,
            ..Self::regular(pages)
        }
    }

    /// A mapping that the kernel itself installed, as `[vvar]` and `[vdso]`: it has a `close` hook and
    /// may not be cut.
    pub const fn special() -> Self {
        Self {
            kind: Kind::Special,
            hooks: Hooks {
                close: true,
                may_split: true,
                ..Hooks::NONE
            },
            may_split: MaySplit::Never(Errno::EINVAL),
            ..Self::regular(u64::MAX)
        }
    }
}
