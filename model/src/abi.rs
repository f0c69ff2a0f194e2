// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The words of the system-call interface: page size, errors, protection, mapping and area flags.
//!
//! The numbers of the user-space interface come from `linux-raw-sys`, which is generated from the
//! kernel's headers. `VM_*` are the kernel's own (`include/linux/mm.h`) and have no UAPI.

use linux_raw_sys::{errno, general};

/// Base-2 logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page (x86-64).
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// Defines a set of flags as a transparent integer with the operations of a set.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$fdoc:meta])* $flag:ident = $value:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$fdoc])* pub const $flag: Self = Self($value as $int);)*

            /// All that have a name, by it, in the order in which they are printed.
            pub const NAMED: &'static [(&'static str, Self)] =
                &[$((stringify!($flag), Self::$flag)),*];

            /// No flag.
            pub const fn empty() -> Self {
                Self(0)
            }
            /// Whether all flags of `other` are set here.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
            /// Whether any flag of `other` is set here.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }
            /// Both sets together.
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
            /// Those of this set that are in `other`, too.
            pub const fn only(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
            /// This set without the flags of `other`.
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl core::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut rest = self.0;
                let mut first = true;
                for &(name, Self(flag)) in Self::NAMED {
                    if flag != 0 && rest & flag == flag {
                        rest &= !flag;
                        if !first {
                            f.write_str("|")?;
                        }
                        f.write_str(name)?;
                        first = false;
                    }
                }
                if rest != 0 || first {
                    if !first {
                        f.write_str("|")?;
                    }
                    write!(f, "{rest:#x}")?;
                }
                Ok(())
            }
        }
    };
}

flags! {
    /// `PROT_*` of `mmap(2)` and `mprotect(2)`.
    Prot: u32 {
        /// Pages may be read.
        READ = general::PROT_READ;
        /// Pages may be written.
        WRITE = general::PROT_WRITE;
        /// Pages may be executed.
        EXEC = general::PROT_EXEC;
        /// `mprotect`: from the start of the stack on.
        GROWSDOWN = general::PROT_GROWSDOWN;
        /// `mprotect`: to the end of an area that grows up.
        GROWSUP = general::PROT_GROWSUP;
    }
}

flags! {
    /// `MREMAP_*` of `mremap(2)`.
    MremapFlags: u32 {
        /// Elsewhere, if there is no room.
        MAYMOVE = general::MREMAP_MAYMOVE;
        /// To that address; what is there goes away.
        FIXED = general::MREMAP_FIXED;
        /// The old range stays mapped, without its pages.
        DONTUNMAP = general::MREMAP_DONTUNMAP;
    }
}

flags! {
    /// `MLOCK_*` of `mlock2(2)`.
    MlockFlags: u32 {
        /// Pages are locked as they are touched, and not all at once.
        ONFAULT = general::MLOCK_ONFAULT;
    }
}

flags! {
    /// `MCL_*` of `mlockall(2)`.
    MlockallFlags: u32 {
        /// All that is mapped now.
        CURRENT = general::MCL_CURRENT;
        /// All that will be mapped.
        FUTURE = general::MCL_FUTURE;
        /// As pages are touched.
        ONFAULT = general::MCL_ONFAULT;
    }
}

flags! {
    /// `PR_MDWE_*` of `prctl(PR_SET_MDWE)`.
    MdweFlags: u64 {
        /// No memory that is writable and executable, nor that becomes executable.
        REFUSE_EXEC_GAIN = 1;
        /// Not for forked children.
        NO_INHERIT = 2;
    }
}

flags! {
    /// `SHM_*` of `shmat(2)`. Only C libraries have them, of which `libc` is none of this crate's.
    ShmFlags: u32 {
        /// For reading alone.
        RDONLY = 0o10000;
        /// The address is rounded down.
        RND = 0o20000;
        /// What is there goes away.
        REMAP = 0o40000;
        /// Pages may be executed.
        EXEC = 0o100000;
    }
}

flags! {
    /// `MAP_*` of `mmap(2)`.
    MapFlags: u32 {
        /// Writes are seen by all who map the object. Also the low bit of `MAP_SHARED_VALIDATE`.
        SHARED = general::MAP_SHARED;
        /// Writes are seen by this process alone (copy-on-write).
        PRIVATE = general::MAP_PRIVATE;
        /// Exactly at `addr`; what is there goes away.
        FIXED = general::MAP_FIXED;
        /// Exactly at `addr`, or EEXIST.
        FIXED_NOREPLACE = general::MAP_FIXED_NOREPLACE;
        /// No file behind it.
        ANONYMOUS = general::MAP_ANONYMOUS;
        /// A stack: may grow down.
        GROWSDOWN = general::MAP_GROWSDOWN;
        /// Ignored by the kernel.
        DENYWRITE = general::MAP_DENYWRITE;
        /// Ignored by the kernel.
        EXECUTABLE = general::MAP_EXECUTABLE;
        /// As after `mlock`.
        LOCKED = general::MAP_LOCKED;
        /// Not accounted where overcommit allows it.
        NORESERVE = general::MAP_NORESERVE;
        /// Pages are faulted in at once.
        POPULATE = general::MAP_POPULATE;
        /// `POPULATE` without blocking.
        NONBLOCK = general::MAP_NONBLOCK;
        /// A hint that this is a thread's stack.
        STACK = general::MAP_STACK;
        /// From the pool of huge pages.
        HUGETLB = general::MAP_HUGETLB;
        /// Below 2 GiB (x86).
        BIT32 = general::MAP_32BIT;
        /// Synchronous page faults of a DAX file.
        SYNC = general::MAP_SYNC;
        /// Above 4 GiB (x86).
        ABOVE4G = general::MAP_ABOVE4G;
        /// Pages need not be cleared; ignored on machines with an MMU.
        UNINITIALIZED = general::MAP_UNINITIALIZED;
        /// Huge pages of 2 MiB.
        HUGE_2MB = general::MAP_HUGE_2MB;
        /// Huge pages of 1 GiB.
        HUGE_1GB = general::MAP_HUGE_1GB;
        /// `SHARED` that refuses flags it does not know.
        SHARED_VALIDATE = general::MAP_SHARED_VALIDATE;
        /// Private anonymous memory whose pages may be dropped.
        DROPPABLE = general::MAP_DROPPABLE;
        /// The bits that say which type of mapping it is.
        TYPE = general::MAP_TYPE;
    }
}

flags! {
    /// `VM_*` of an area, as `include/linux/mm.h` of 7.2 numbers the ones that all eras share.
    VmFlags: u64 {
        /// May be read now.
        READ = 0x1;
        /// May be written now.
        WRITE = 0x2;
        /// May be executed now.
        EXEC = 0x4;
        /// Changes are shared.
        SHARED = 0x8;
        /// `mprotect` may add [`READ`](Self::READ).
        MAYREAD = 0x10;
        /// `mprotect` may add [`WRITE`](Self::WRITE).
        MAYWRITE = 0x20;
        /// `mprotect` may add [`EXEC`](Self::EXEC).
        MAYEXEC = 0x40;
        /// The mapping asked for sharing, even of a file opened for reading alone.
        MAYSHARE = 0x80;
        /// Grows down as a stack does.
        GROWSDOWN = 0x100;
        /// Registered with a userfaultfd for missing pages.
        UFFD_MISSING = 0x200;
        /// Page frame numbers without `struct page`.
        PFNMAP = 0x400;
        /// It may hold guard pages (`MADV_GUARD_INSTALL`).
        MAYBE_GUARD = 0x800;
        /// Registered with a userfaultfd for write protection.
        UFFD_WP = 0x1000;
        /// Locked in memory.
        LOCKED = 0x2000;
        /// Memory-mapped I/O.
        IO = 0x4000;
        /// `MADV_SEQUENTIAL`.
        SEQ_READ = 0x8000;
        /// `MADV_RANDOM`.
        RAND_READ = 0x1_0000;
        /// Not copied by fork.
        DONTCOPY = 0x2_0000;
        /// Not grown by mremap, never merged.
        DONTEXPAND = 0x4_0000;
        /// Locked when a page is first touched.
        LOCKONFAULT = 0x8_0000;
        /// Counts against the commit limit.
        ACCOUNT = 0x10_0000;
        /// Does not count against the commit limit.
        NORESERVE = 0x20_0000;
        /// Pages of hugetlbfs.
        HUGETLB = 0x40_0000;
        /// Synchronous page faults.
        SYNC = 0x80_0000;
        /// Contents are wiped in a forked child.
        WIPEONFORK = 0x200_0000;
        /// Left out of core dumps.
        DONTDUMP = 0x400_0000;
        /// Pages with and without `struct page`.
        MIXEDMAP = 0x1000_0000;
        /// `MADV_HUGEPAGE`.
        HUGEPAGE = 0x2000_0000;
        /// `MADV_NOHUGEPAGE`, and `MAP_STACK`.
        NOHUGEPAGE = 0x4000_0000;
        /// `MADV_MERGEABLE`.
        MERGEABLE = 0x8000_0000;
        /// Bits of the number of its protection key, which [`key`](Self::key) puts together.
        PKEY_BIT0 = 1u64 << 32;
        /// The second.
        PKEY_BIT1 = 1u64 << 33;
        /// The third.
        PKEY_BIT2 = 1u64 << 34;
        /// The fourth.
        PKEY_BIT3 = 1u64 << 35;
        /// Pages may be dropped under memory pressure (`MAP_DROPPABLE`).
        DROPPABLE = 1u64 << 40;
        /// May not be changed or removed (`mseal`).
        SEALED = 1u64 << 42;
    }
}

/// Where the number of the protection key is (`VM_PKEY_SHIFT`).
const PKEY_SHIFT: u32 = VmFlags::PKEY_BIT0.0.trailing_zeros();

impl VmFlags {
    /// Those that are the number of its protection key (`ARCH_VM_PKEY_FLAGS`).
    pub const PKEY: Self = Self(15 << PKEY_SHIFT);

    /// The number of its protection key (`vma_pkey`).
    pub const fn key(self) -> u8 {
        (self.only(Self::PKEY).0 >> PKEY_SHIFT) as u8
    }

    /// The flags that are that number, of which there are 16 (`arch_calc_vm_prot_bits`).
    pub const fn of_key(key: u8) -> Self {
        Self((key as u64) << PKEY_SHIFT).only(Self::PKEY)
    }
}

/// Defines the errors that a model can answer with, from the kernel's own numbers.
macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// The error of a system call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Errno {
            $($(#[$doc])* $name = errno::$name as u16,)*
        }

        impl Errno {
            /// The positive number that `errno` would hold.
            pub const fn number(self) -> i32 {
                self as i32
            }
            /// The error of that number, if a mapping call can return it.
            pub const fn from_number(number: i32) -> Option<Self> {
                match number {
                    $(n if n == errno::$name as i32 => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for Errno {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(match self {
                    $(Self::$name => stringify!($name),)*
                })
            }
        }
    };
}

errnos! {
    /// Not permitted: a sealed area, a no-exec file system.
    EPERM
    /// A signal came while the lock was awaited.
    EINTR
    /// A bad page (I/O error behind it).
    EIO
    /// Too long an argument list; here: an unknown tail of an extensible structure.
    E2BIG
    /// No such descriptor.
    EBADF
    /// Try again: locked-memory limit, or no room to split in madvise.
    EAGAIN
    /// Out of memory, areas or address space.
    ENOMEM
    /// The file's mode does not allow it.
    EACCES
    /// A bad address.
    EFAULT
    /// Busy.
    EBUSY
    /// There is a mapping already.
    EEXIST
    /// The file cannot be mapped.
    ENODEV
    /// A bad argument.
    EINVAL
    /// The file is in use as a text.
    ETXTBSY
    /// The offset does not fit.
    EOVERFLOW
    /// Unknown flags of a validated mapping.
    EOPNOTSUPP
    /// Not a type of request that this file knows.
    ENOTTY
    /// No space left in the object.
    ENOSPC
    /// There is no such system call.
    ENOSYS
}
