// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a memory file that is sealed against writing may be mapped for: `memfd_check_seals_mmap`, `check_write_seal`
//! (mm/memfd.c), and `mapping_map_writable`, by which a seal stands on its own.
//!
//! The names are those of 6.13 and later. Seals came in 3.17, with `i_mmap_writable` alone; from 5.1 to 5.11
//! `shmem_mmap` looked at `F_SEAL_FUTURE_WRITE`, then `seal_check_future_write` and `seal_check_write`.
//!
//! A seal is there before the file is first mapped: `fcntl(F_ADD_SEALS)` is no operation.

use crate::file::{File, WriteSeal};
use crate::{Errno, Rules, VmFlags};

/// What comes of a seal.
enum Verdict {
    /// Nothing.
    Free,
    /// It is mapped, and never becomes writable.
    ForReading,
    /// EPERM.
    Refused {
        /// Before anything is unmapped.
        first: bool,
    },
}

fn verdict(rules: &Rules, file: &File, flags: VmFlags) -> Verdict {
    // What was not opened for writing is shared by name only (VM_MAYSHARE).
    if !flags.contains(VmFlags::SHARED) {
        return Verdict::Free;
    }
    let (known, first, reads) = match file.write_seal {
        WriteSeal::None => return Verdict::Free,
        WriteSeal::Write => (
            rules.write_seal,
            rules.write_seal_checked_first,
            rules.write_seal_lets_read,
        ),
        WriteSeal::FutureWrite => (
            rules.future_write_seal,
            rules.future_write_seal_checked_first,
            true,
        ),
    };
    if !known {
        Verdict::Free
    } else if flags.contains(VmFlags::WRITE) || !reads {
        Verdict::Refused { first }
    } else {
        Verdict::ForReading
    }
}

/// Before anything is unmapped (`memfd_check_seals_mmap`): the flags without what a seal takes away.
///
/// # Errors
/// EPERM.
pub(crate) fn check_seals(rules: &Rules, file: &File, flags: VmFlags) -> Result<VmFlags, Errno> {
    match verdict(rules, file, flags) {
        Verdict::Refused { first: true } => Err(Errno::EPERM),
        Verdict::ForReading => Ok(flags.without(VmFlags::MAYWRITE)),
        Verdict::Free | Verdict::Refused { first: false } => Ok(flags),
    }
}

/// When there is an area (`mapping_map_writable` of `__mmap_region`, `seal_check_write` of `shmem_mmap`).
///
/// # Errors
/// EPERM.
pub(crate) fn check_seals_late(rules: &Rules, file: &File, flags: VmFlags) -> Result<(), Errno> {
    match verdict(rules, file, flags) {
        Verdict::Refused { first: false } => Err(Errno::EPERM),
        _ => Ok(()),
    }
}
