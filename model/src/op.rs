// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Operations: what a program asks of its address space.

use crate::steer::Asked;
use crate::vma::Name;
use crate::{
    Advice, Allocation, Errno, MapFlags, MdweFlags, MlockFlags, MlockallFlags, MremapFlags, Prot,
    ShmFlags,
};

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

impl Mmap {
    /// Private memory that can be read and written, at that very address.
    ///
    /// ```
    /// use vmalab_model::{AddressSpace, Limits, Mmap, Op, Prot, Rules};
    ///
    /// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    /// space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x4000)));
    /// // Right behind it, but for reading alone: an area of its own.
    /// let read = Mmap { prot: Prot::READ, ..Mmap::anonymous(0x14000, 0x4000) };
    /// assert_eq!(space.apply(&Op::Mmap(read)).counters.map_count, 2);
    /// ```
    pub const fn anonymous(addr: u64, len: u64) -> Self {
        Self {
            addr,
            len,
            prot: Prot(Prot::READ.0 | Prot::WRITE.0),
            flags: MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0),
            backing: Backing::None,
            offset: 0,
        }
    }

    /// Pages of a file, shared with all who map them, that can be read and written, at that very address.
    pub const fn shared(file: FileId, addr: u64, len: u64, offset: u64) -> Self {
        Self {
            flags: MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0),
            backing: Backing::File(file),
            offset,
            ..Self::anonymous(addr, len)
        }
    }
}

/// What `prctl(PR_SET_VMA_ANON_NAME)` gives for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewName {
    /// A null pointer: the memory has no name any more.
    None,
    /// A name.
    Some(Name),
    /// A text that cannot be one: with a bracket in it, or of more than 79 characters.
    Invalid,
}

/// One operation on an address space, with the arguments as a program gives them: nothing is checked before it
/// is applied.
///
/// ```
/// use vmalab_model::{AddressSpace, Errno, Limits, MlockFlags, Mmap, Op, Rules};
///
/// // The third page of eight is locked by every kernel; not all have the call that locks as it is touched.
/// for (rules, answer) in [(Rules::V2_6_11, Err(Errno::ENOSYS)), (Rules::V7_2, Ok(0))] {
///     let mut space: AddressSpace = AddressSpace::new(rules, Limits::default());
///     space.apply(&Op::Mmap(Mmap::anonymous(0x10000, 0x8000)));
///     let lock = |flags| Op::Mlock { addr: 0x12000, len: 0x1000, flags };
///     let outcome = space.apply(&lock(MlockFlags::empty()));
///     assert_eq!((outcome.result, outcome.counters.locked_vm), (Ok(0), 1));
///     assert_eq!(space.apply(&lock(MlockFlags::ONFAULT)).result, answer);
/// }
/// ```
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
    /// `mprotect(2)`.
    Mprotect {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// What may be done with the pages from now on.
        prot: Prot,
    },
    /// `mremap(2)`.
    Mremap {
        /// First byte of what shall move, grow or shrink.
        addr: u64,
        /// How many bytes it has; 0 to have shared memory a second time.
        old_len: u64,
        /// How many bytes it shall have.
        new_len: u64,
        /// How.
        flags: MremapFlags,
        /// Where to, with `MREMAP_FIXED`; a hint with `MREMAP_DONTUNMAP`.
        new_addr: u64,
    },
    /// `mlock(2)`, and with flags `mlock2(2)`.
    Mlock {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// None: the older call.
        flags: MlockFlags,
    },
    /// `munlock(2)`.
    Munlock {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// `madvise(2)`.
    Madvise {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// Which.
        advice: Advice,
    },
    /// `pkey_mprotect(2)`.
    PkeyMprotect {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// What may be done with the pages from now on.
        prot: Prot,
        /// The protection key; -1: none, as `mprotect(2)`.
        pkey: i32,
    },
    /// `pkey_alloc(2)`: it gives the key.
    PkeyAlloc {
        /// None is known.
        flags: u64,
        /// What the thread may not do with its memory: `PKEY_DISABLE_*`.
        rights: u64,
    },
    /// `pkey_free(2)`.
    PkeyFree {
        /// Which.
        pkey: i32,
    },
    /// `mlockall(2)`.
    Mlockall {
        /// What.
        flags: MlockallFlags,
    },
    /// `munlockall(2)`.
    Munlockall,
    /// `mseal(2)`.
    Mseal {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// None is known.
        flags: u64,
    },
    /// `brk(2)`, the system call: it gives the break.
    Brk {
        /// Where the heap shall end.
        addr: u64,
    },
    /// `remap_file_pages(2)`.
    RemapFilePages {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// 0.
        prot: Prot,
        /// From which page of the file on.
        pgoff: u64,
        /// `MAP_NONBLOCK`, or nothing; the rest is ignored.
        flags: MapFlags,
    },
    /// `prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME)`: anonymous memory gets a name.
    SetName {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// Which.
        name: NewName,
    },
    /// `mbind(2)`.
    Mbind {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
        /// `MPOL_*`.
        mode: u32,
        /// The memory nodes, a bit each.
        nodes: u64,
        /// `MPOL_MF_*`.
        flags: u32,
    },
    /// `shmat(2)`.
    Shmat {
        /// Which segment.
        segment: FileId,
        /// Where, or 0.
        addr: u64,
        /// How.
        flags: ShmFlags,
    },
    /// `shmdt(2)`.
    Shmdt {
        /// Where it was attached.
        addr: u64,
    },
    /// `prctl(PR_SET_MDWE)`: no memory that is writable and executable, nor that becomes executable.
    SetMdwe {
        /// What.
        bits: MdweFlags,
    },
    /// `fork(2)`; what follows is done by the child, while the parent waits.
    Fork,
    /// The driver of a file is told to refuse: the `nth` call of a hook from now on, whoever makes it, and no
    /// other. What it was told before is void. With 0 it is told nothing new.
    Steer {
        /// Whose.
        file: Backing,
        /// Which hook.
        hook: Asked,
        /// 1 is the next call.
        nth: u32,
        /// With which error.
        error: Errno,
    },
    /// A userfaultfd that asks for all events watches for missing pages in a range
    /// (`UFFDIO_REGISTER`).
    UffdRegister {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// It watches a range no more (`UFFDIO_UNREGISTER`).
    UffdUnregister {
        /// First byte.
        addr: u64,
        /// How many bytes.
        len: u64,
    },
    /// The `nth` allocation of that kind from now on fails, and no other; 0: none does. As the kernel's fault
    /// injection has it (`/proc/self/fail-nth`); [`AddressSpace::fail_nth_allocation`] in the model.
    ///
    /// [`AddressSpace::fail_nth_allocation`]: crate::AddressSpace::fail_nth_allocation
    FailAllocation {
        /// Of what.
        what: Allocation,
        /// Which.
        nth: u32,
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
