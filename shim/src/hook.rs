// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The hooks of the driver: which there are, sets of them, and counts of their calls.

use crate::sys;

/// Makes everything that has one entry for each hook.
macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident, $field:ident = $number:ident;)*) => {
        /// A hook: a function of the driver that the kernel calls for an object or an area of it.
        /// `enum vmalab_hook`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Hook {
            $($(#[$doc])* $hook = sys::$number,)*
        }

        impl Hook {
            /// All hooks, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$hook),*];

            /// Its name in the kernel.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$hook => stringify!($field),)*
                }
            }

            /// Its name as C has strings.
            pub const fn c_name(self) -> &'static std::ffi::CStr {
                match self {
                    $(Self::$hook => {
                        const NAME: &str = concat!(stringify!($field), "\0");
                        match std::ffi::CStr::from_bytes_with_nul(NAME.as_bytes()) {
                            Ok(name) => name,
                            Err(_) => unreachable!(),
                        }
                    })*
                }
            }
        }

        bitflags::bitflags! {
            /// A set of hooks; [`Hook::mask`] makes one of a single hook.
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
            pub struct HookSet: u64 {
                $(#[doc = concat!("[`Hook::", stringify!($hook), "`]")]
                const $hook = 1 << sys::$number;)*
            }
        }

        /// How often the kernel called each hook of the driver.
        ///
        /// Take the difference of two readings to see what one operation did:
        ///
        /// ```no_run
        /// # let device = vmalab::Device::open()?;
        /// # let mapping = device.map().length(3 * 4096).shared()?;
        /// let before = device.stats()?.hooks;
        /// let rest = mapping.unmap_range(4096..2 * 4096)?;
        /// let did = device.stats()?.hooks.since(before);
        /// assert_eq!((did.may_split, did.open, did.close), (2, 2, 1));
        /// # Ok::<(), vmalab::Error>(())
        /// ```
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub struct HookCounts {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl HookCounts {
            /// The calls since an `earlier` reading of the same scope.
            pub fn since(self, earlier: Self) -> Self {
                Self {
                    $($field: self.$field.wrapping_sub(earlier.$field),)*
                }
            }

            /// The calls of one hook.
            pub fn of(&self, hook: Hook) -> u64 {
                match hook {
                    $(Hook::$hook => self.$field,)*
                }
            }
        }

        impl From<[u64; sys::VMALAB_MAX_HOOKS as usize]> for HookCounts {
            /// From the counts of [`sys::vmalab_stats`].
            fn from(n_calls: [u64; sys::VMALAB_MAX_HOOKS as usize]) -> Self {
                Self {
                    $($field: n_calls[sys::$number as usize],)*
                }
            }
        }
    };
}

hooks! {
    /// The mmap handler of `file_operations`. A range that the kernel merges into an area before it
    /// does not call `mmap`, but does call `mmap_prepare`.
    Mmap, mmap = VMALAB_HOOK_MMAP;
    /// `vm_operations.open`: an area was copied (split, fork, mremap).
    Open, open = VMALAB_HOOK_OPEN;
    /// `vm_operations.close`: an area went away.
    Close, close = VMALAB_HOOK_CLOSE;
    /// `vm_operations.mapped`: there is a new area of the node with `mmap_prepare`.
    Mapped, mapped = VMALAB_HOOK_MAPPED;
    /// `vm_operations.may_split`: an area is about to be split.
    MaySplit, may_split = VMALAB_HOOK_MAY_SPLIT;
    /// `vm_operations.mremap`: an area was moved.
    Mremap, mremap = VMALAB_HOOK_MREMAP;
    /// `vm_operations.mprotect`: an area, or a part of it, is about to get another protection.
    Mprotect, mprotect = VMALAB_HOOK_MPROTECT;
    /// `vm_operations.fault`: a page was asked for.
    Fault, fault = VMALAB_HOOK_FAULT;
    /// `vm_operations.huge_fault`: a huge page was asked for, or written to for the first time.
    HugeFault, huge_fault = VMALAB_HOOK_HUGE_FAULT;
    /// `vm_operations.map_pages`: a page was read, and those around it are mapped if they are there.
    MapPages, map_pages = VMALAB_HOOK_MAP_PAGES;
    /// `vm_operations.page_mkwrite`: a page is written to for the first time, in an area that has this
    /// hook: see [`Device::set_hooks`](crate::Device::set_hooks).
    PageMkwrite, page_mkwrite = VMALAB_HOOK_PAGE_MKWRITE;
    /// `vm_operations.pfn_mkwrite`: as `page_mkwrite`, for memory that was mapped by its frame number.
    PfnMkwrite, pfn_mkwrite = VMALAB_HOOK_PFN_MKWRITE;
}

impl Hook {
    /// The hook of a number of `enum vmalab_hook`.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The set of this hook alone.
    pub const fn mask(self) -> HookSet {
        HookSet::from_bits_retain(1 << self as u32)
    }
}

impl From<Hook> for HookSet {
    fn from(hook: Hook) -> Self {
        hook.mask()
    }
}

// `from_number` takes the position for the number.
const _: () = {
    let mut number = 0;
    while number < Hook::ALL.len() {
        assert!(Hook::ALL[number] as usize == number);
        number += 1;
    }
    assert!(number == sys::VMALAB_NR_HOOKS as usize);
};
