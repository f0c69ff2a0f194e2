// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Signal`]: what a program gets that touches memory by itself, and may not.

/// A signal with its code (`siginfo_t`), as a load or a store would raise it where a system call answers
/// EFAULT (`do_user_addr_fault`, `mm_fault_error`, `do_sigbus`; arch/x86/mm/fault.c). The same in all eras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// SIGSEGV, `SEGV_MAPERR`: nothing is mapped there, and no stack grows so far; or the page is guarded
    /// (`MADV_GUARD_INSTALL`).
    Unmapped,
    /// SIGSEGV, `SEGV_ACCERR`: the area may not be read, or not be written to.
    Denied,
    /// SIGSEGV, `SEGV_PKUERR`: the thread may not read, or not write, what has that protection key, as
    /// the one of memory that is only executable.
    Key,
    /// SIGSEGV, `SI_KERNEL`: no address at all, for its upper bits are not alike. The processor stops the
    /// access before it looks at any page.
    NoAddress,
    /// SIGBUS, `BUS_ADRERR`: mapped, but beyond the end of the object.
    BeyondEnd,
}

impl Signal {
    /// The number of the signal.
    pub const fn number(self) -> i32 {
        use linux_raw_sys::general::{SIGBUS, SIGSEGV};
        (match self {
            Self::Unmapped | Self::Denied | Self::Key | Self::NoAddress => SIGSEGV,
            Self::BeyondEnd => SIGBUS,
        }) as i32
    }
}

impl core::fmt::Display for Signal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Unmapped => "SIGSEGV (SEGV_MAPERR)",
            Self::Denied => "SIGSEGV (SEGV_ACCERR)",
            Self::Key => "SIGSEGV (SEGV_PKUERR)",
            Self::NoAddress => "SIGSEGV (SI_KERNEL)",
            Self::BeyondEnd => "SIGBUS (BUS_ADRERR)",
        })
    }
}
