// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The counts that `/dev/vmalab` keeps of its hooks, asked for in the child.

use std::os::{fd::OwnedFd, unix::ffi::OsStrExt};
use std::path::Path;

use nix::sys::statvfs::{FsFlags, fstatvfs};
use vmalab::{Device, sys};
use vmalab_model::{File, PAGE_SIZE};

use super::FILE_PAGES;
use super::wire::N_HOOKS;
use crate::oracle::{HookCounts, OracleError};

/// A new object of the device, and what the model has to know of it.
pub(super) fn open(path: &Path) -> Result<(OwnedFd, File), OracleError> {
    let device =
        Device::open_at(path).map_err(|error| OracleError::Environment(error.to_string()))?;
    let not_ours = |error: vmalab::Error| OracleError::system(&path.display().to_string(), error);
    device.set_size(FILE_PAGES * PAGE_SIZE).map_err(not_ours)?;
    // Asks for the counts once: a child that cannot would be a finding.
    device.stats().map_err(not_ours)?;
    let fd = OwnedFd::from(device);
    let mount = fstatvfs(&fd).map_err(|errno| OracleError::system("fstatvfs", errno))?;
    let noexec = mount.flags().contains(FsFlags::ST_NOEXEC);
    Ok((
        fd,
        File {
            noexec,
            // This node is the one with the newer generation of the mmap handler.
            prepares: path.as_os_str().as_bytes() == sys::VMALAB_PREPARE_PATH.to_bytes(),
            chooses_address: true,
            ..File::device(FILE_PAGES)
        },
    ))
}

/// Which hooks are counted.
const HOOKS: [u32; N_HOOKS] = [
    sys::VMALAB_HOOK_MMAP,
    sys::VMALAB_HOOK_OPEN,
    sys::VMALAB_HOOK_CLOSE,
    sys::VMALAB_HOOK_MAY_SPLIT,
    sys::VMALAB_HOOK_MAPPED,
    sys::VMALAB_HOOK_MREMAP,
    sys::VMALAB_HOOK_MPROTECT,
    sys::VMALAB_HOOK_FAULT,
];

/// The calls between two counts.
pub(super) fn calls(before: &[u64; N_HOOKS], after: &[u64; N_HOOKS]) -> HookCounts {
    let calls = |hook: usize| after[hook] - before[hook];
    HookCounts {
        mmap: calls(0),
        open: calls(1),
        close: calls(2),
        may_split: calls(3),
        mapped: calls(4),
        mremap: calls(5),
        mprotect: calls(6),
        fault: calls(7),
    }
}

/// Calls of each of [`HOOKS`] so far, of the object behind a descriptor; or an
/// errno. `ioctl` does the ioctl with that request and that address. Allocates nothing.
pub(super) fn hook_counts(ioctl: impl FnOnce(u64, u64) -> i64) -> Result<[u64; N_HOOKS], i64> {
    let mut stats = sys::vmalab_stats {
        scope: sys::VMALAB_SCOPE_OBJECT,
        ..Default::default()
    };
    let ret = ioctl(u64::from(sys::VMALAB_IOC_STATS), &raw mut stats as u64);
    if ret < 0 {
        return Err(-ret);
    }
    Ok(HOOKS.map(|hook| stats.n_calls[hook as usize]))
}
