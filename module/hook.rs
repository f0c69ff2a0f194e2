// SPDX-License-Identifier: GPL-2.0-only

//! A call of a hook, whichever it is: what the kernel said, and what it was answered.
//!
//! Each hook has arguments and answers of its own. What counts calls, records them or decides about them
//! wants them all in one shape: [`Call`] and [`Answer`]. `Object::on` is where they pass.

use crate::{
    folio::LockedFolio,
    steer::Steered,
    uapi::*,
    vm_ops::{
        Area,
        FaultInfo,
        HugeFault,
        HugeFaultAnswer,
        MapPages,
        MapPagesAnswer,
        MkwriteAnswer,
        VmFault,
        VmOperations, //
    },
};
use core::ops::Range;
use kernel::{
    mm::virt::vm_flags_t,
    page::PAGE_SIZE,
    prelude::*, //
};

/// The hooks, numbered as in `uapi/vmalab.h`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    Mmap = VMALAB_HOOK_MMAP,
    Open = VMALAB_HOOK_OPEN,
    Close = VMALAB_HOOK_CLOSE,
    Mapped = VMALAB_HOOK_MAPPED,
    MaySplit = VMALAB_HOOK_MAY_SPLIT,
    Mremap = VMALAB_HOOK_MREMAP,
    Mprotect = VMALAB_HOOK_MPROTECT,
    Fault = VMALAB_HOOK_FAULT,
    HugeFault = VMALAB_HOOK_HUGE_FAULT,
    MapPages = VMALAB_HOOK_MAP_PAGES,
    PageMkwrite = VMALAB_HOOK_PAGE_MKWRITE,
    PfnMkwrite = VMALAB_HOOK_PFN_MKWRITE,
}

impl Hook {
    /// All of them, in the order of their numbers, with the names that their counts have in debugfs.
    pub(crate) const ALL: [(Self, &'static CStr); VMALAB_NR_HOOKS as usize] = [
        (Self::Mmap, c"n_mmap"),
        (Self::Open, c"n_open"),
        (Self::Close, c"n_close"),
        (Self::Mapped, c"n_mapped"),
        (Self::MaySplit, c"n_may_split"),
        (Self::Mremap, c"n_mremap"),
        (Self::Mprotect, c"n_mprotect"),
        (Self::Fault, c"n_fault"),
        (Self::HugeFault, c"n_huge_fault"),
        (Self::MapPages, c"n_map_pages"),
        (Self::PageMkwrite, c"n_page_mkwrite"),
        (Self::PfnMkwrite, c"n_pfn_mkwrite"),
    ];
}

/// A call of a hook, as the kernel made it.
pub(crate) struct Call {
    /// Which hook.
    pub(crate) hook: Hook,
    /// The addresses that it is about: the area, the part of it, or the page.
    pub(crate) range: Range<usize>,
    /// The offset of the first of them in the object, in pages.
    pub(crate) index: usize,
    /// The flags of the area.
    pub(crate) flags: vm_flags_t,
    /// What else there is to say: where an area is to be split, which flags it is to get, how a page
    /// was touched (`FAULT_FLAG_*`).
    pub(crate) argument: u64,
}

impl Call {
    /// A call about a whole area.
    pub(crate) fn area<T: VmOperations>(hook: Hook, area: &Area<T>) -> Self {
        Self {
            hook,
            range: area.start()..area.end(),
            index: area.index(),
            flags: area.flags(),
            argument: 0,
        }
    }

    /// A call about a part of an area.
    pub(crate) fn part<T: VmOperations>(hook: Hook, area: &Area<T>, part: Range<usize>) -> Self {
        Self {
            index: area.index() + (part.start - area.start()) / PAGE_SIZE,
            range: part,
            ..Self::area(hook, area)
        }
    }

    /// A call about a page.
    pub(crate) fn fault<T: VmOperations>(hook: Hook, fault: &FaultInfo<'_, T>) -> Self {
        let address = fault.address();
        Self {
            hook,
            range: address..address + PAGE_SIZE,
            index: fault.index(),
            flags: fault.area().flags(),
            argument: fault.flags().bits().into(),
        }
    }

    /// A call about a huge page; the argument has its order above the flags of the fault, which have
    /// 32 bits.
    pub(crate) fn huge<T: VmOperations>(hook: Hook, fault: &HugeFault<'_, T>) -> Self {
        let call = Self::fault(hook, fault);
        let argument = call.argument | u64::from(fault.order()) << 32;
        call.with(argument)
    }

    /// A call about the pages around one.
    pub(crate) fn around<T: VmOperations>(hook: Hook, around: &MapPages<'_, T>) -> Self {
        let pages = around.pages();
        let start = around.address() - (around.index() - pages.start()) * PAGE_SIZE;
        Self {
            range: start..start + (pages.end() - pages.start() + 1) * PAGE_SIZE,
            index: *pages.start(),
            ..Self::fault(hook, around)
        }
    }

    /// The same, with something else to say.
    pub(crate) fn with(self, argument: u64) -> Self {
        Self { argument, ..self }
    }
}

/// What a hook answers.
pub(crate) trait Answer: Sized {
    /// The answer as the kernel takes it: 0, a negative errno, or `VM_FAULT_*`.
    fn code(&self) -> i32;

    /// What a rule says in place of the hook. Rules have only answers that the hook can give.
    fn steered(steered: Steered) -> Self;
}

/// A hook that has nothing to say: it can only be delayed.
impl Answer for () {
    fn code(&self) -> i32 {
        0
    }

    fn steered(_steered: Steered) {}
}

impl Answer for Result {
    fn code(&self) -> i32 {
        match self {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    fn steered(steered: Steered) -> Self {
        match steered {
            Steered::Error(error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// What comes of a fault.
pub(crate) enum Found {
    /// A page, to be given to the kernel locked.
    Page(LockedFolio),
    /// The lock is to be let go of, and the fault retried.
    Retry,
    /// All else.
    Answer(VmFault),
}

impl From<Error> for Found {
    fn from(error: Error) -> Self {
        Self::Answer(error.into())
    }
}

impl Answer for Found {
    fn code(&self) -> i32 {
        match self {
            Self::Page(_) => VmFault::LOCKED_BITS as i32,
            Self::Retry => VmFault::RETRY_BITS as i32,
            Self::Answer(answer) => answer.bits() as i32,
        }
    }

    fn steered(steered: Steered) -> Self {
        Self::Answer(match steered {
            Steered::Retry => return Self::Retry,
            Steered::Sigsegv => VmFault::SIGSEGV,
            Steered::Oom => VmFault::OOM,
            Steered::Hwpoison => VmFault::HWPOISON,
            Steered::NoPage => VmFault::NOPAGE,
            Steered::Sigbus | Steered::Nothing | Steered::Error(_) => VmFault::SIGBUS,
        })
    }
}

/// The other hooks of a fault; `$other` is for what they cannot answer, or have a name of their own for.
macro_rules! fault_answers {
    ($($answer:ident, $other:ident;)*) => {$(
        impl Answer for $answer {
            fn code(&self) -> i32 {
                // The bits are in the lower half.
                self.bits() as i32
            }

            fn steered(steered: Steered) -> Self {
                match steered {
                    Steered::Sigbus => Self::SIGBUS,
                    Steered::Sigsegv => Self::SIGSEGV,
                    Steered::Oom => Self::OOM,
                    Steered::Hwpoison => Self::HWPOISON,
                    Steered::NoPage => Self::NOPAGE,
                    Steered::Nothing | Steered::Retry | Steered::Error(_) => Self::$other,
                }
            }
        }
    )*};
}
fault_answers! {
    HugeFaultAnswer, FALLBACK;
    MapPagesAnswer, NOTHING;
    MkwriteAnswer, SIGBUS;
}
