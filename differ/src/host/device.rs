// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What `/dev/vmalab` tells of the calls: which hooks it saw, and what the areas are exactly.
//!
//! Rings are mapped and descriptors opened before the first fork, so that each child has them; what is used
//! in the child allocates nothing.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, fstatvfs};
use vmalab::{Device, HookSet, MappedWatch, Watch, sys};
use vmalab_model::{Asked, Errno, File, FileId, Hook, HookCall, PAGE_SIZE, VmFlags};

use super::files::FILE_PAGES;
use super::wire::RawHook;
use crate::oracle::OracleError;

/// Hook calls that nobody has read yet: more than one operation makes.
const RING: u32 = 4096;

/// Flags of areas that the model does not know of: whether they were written to since somebody asked
/// (`VM_SOFTDIRTY`).
const UNKNOWN: VmFlags = VmFlags(0x0800_0000);

/// All other flags.
pub(super) const SEEN_FLAGS: VmFlags = VmFlags(!UNKNOWN.0);

/// An object of the device, and the ring of its hook calls.
pub(super) struct Watched {
    /// By its place among the files.
    file: FileId,
    device: Device,
    ring: MappedWatch,
    /// Calls are recorded as long as it is open.
    _watch: Watch,
    /// The calls that were lost before this batch, of which there should be none.
    lost: u64,
}

/// A new object of the device, and what the model has to know of it.
pub(super) fn open(path: &Path, place: FileId) -> Result<(Watched, OwnedFd, File), OracleError> {
    let device =
        Device::open_at(path).map_err(|error| OracleError::Environment(error.to_string()))?;
    let not_ours = |error: vmalab::Error| OracleError::system(&path.display().to_string(), error);
    device.set_size(FILE_PAGES * PAGE_SIZE).map_err(not_ours)?;
    let hooks = HookSet::Mmap
        | HookSet::Open
        | HookSet::Close
        | HookSet::Mapped
        | HookSet::MaySplit
        | HookSet::Mremap
        | HookSet::Mprotect;
    let watch = device.watch().hooks(hooks).records(RING).open();
    let watch = watch.map_err(not_ours)?;
    let ring = watch.map().map_err(not_ours)?;
    let fd = device.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| OracleError::system("dup", error))?;
    let mount = fstatvfs(&fd).map_err(|errno| OracleError::system("fstatvfs", errno))?;
    let noexec = mount.flags().contains(FsFlags::ST_NOEXEC);
    let file = File {
        noexec,
        // This node is the one with the newer generation of the mmap handler.
        prepares: path.as_os_str().as_bytes() == sys::VMALAB_PREPARE_PATH.to_bytes(),
        aligns_huge: true,
        ..File::device(FILE_PAGES)
    };
    let watched = Watched {
        file: place,
        device,
        ring,
        _watch: watch,
        lost: 0,
    };
    Ok((watched, fd, file))
}

impl Watched {
    /// A new batch: what others did is nobody's concern, and the driver forgets what it was told. In the
    /// child. Else an errno.
    pub(super) fn begin(&mut self) -> Result<(), i64> {
        self.device.clear_rules().map_err(number)?;
        self.ring.by_ref().for_each(drop);
        self.lost = self.ring.lost();
        Ok(())
    }

    /// Gives each hook call since the last time to `each`. False if some are missing. In the child.
    pub(super) fn take(&mut self, mut each: impl FnMut(RawHook)) -> bool {
        for event in self.ring.by_ref() {
            each(RawHook {
                time: event.time.as_nanos() as u64,
                file: self.file.0.into(),
                hook: event.hook as u32,
                error: event.result.unsigned_abs(),
                unused: 0,
                start: event.range.start as u64,
                end: event.range.end as u64,
                offset: event.offset,
                argument: event.argument,
            });
        }
        self.ring.lost() == self.lost
    }

    /// Reads the areas that touch a range, as many as there is room for: how many there are, and the
    /// counters. In the child.
    pub(super) fn look(
        &self,
        range: Range<u64>,
        areas: &mut [sys::vmalab_area],
    ) -> Result<sys::vmalab_areas, i64> {
        let range = range.start as usize..range.end as usize;
        self.device.read_areas(range, areas).map_err(number)
    }
}

fn number(error: vmalab::Error) -> i64 {
    error.errno().into()
}

/// The number that the device has for a hook.
pub(super) fn hook_number(hook: Asked) -> u32 {
    match hook {
        Asked::Mmap => sys::VMALAB_HOOK_MMAP,
        Asked::MaySplit => sys::VMALAB_HOOK_MAY_SPLIT,
        Asked::Mapped => sys::VMALAB_HOOK_MAPPED,
        Asked::Mremap => sys::VMALAB_HOOK_MREMAP,
        Asked::Mprotect => sys::VMALAB_HOOK_MPROTECT,
    }
}

/// Tells the driver behind a descriptor that the `nth` call of a hook is to fail, and no other; 0: none is.
/// Gives 0, or a negative errno. In the child; `ioctl` does the ioctl with that descriptor, request and address.
pub(super) fn steer([fd, hook, nth, error]: [u64; 4], ioctl: impl Fn(u64, u64, u64) -> i64) -> i64 {
    let mut rule = sys::vmalab_rule::default();
    let done = ioctl(fd, sys::VMALAB_IOC_CLEAR_RULES.into(), &raw mut rule as u64);
    if done < 0 || nth == 0 {
        return done;
    }
    rule.hook = hook as u32;
    rule.answer = sys::VMALAB_ANSWER_ERRNO;
    rule.error = error as u32;
    rule.nth = nth;
    rule.times = 1;
    ioctl(fd, sys::VMALAB_IOC_ADD_RULE.into(), &raw mut rule as u64)
}

/// Puts a call into the model's words, or says what is strange about it.
pub(super) fn call(raw: &RawHook) -> Result<HookCall, String> {
    let hook = match raw.hook {
        sys::VMALAB_HOOK_MMAP => Hook::Mmap,
        sys::VMALAB_HOOK_OPEN => Hook::Open,
        sys::VMALAB_HOOK_CLOSE => Hook::Close,
        sys::VMALAB_HOOK_MAPPED => Hook::Mapped,
        sys::VMALAB_HOOK_MAY_SPLIT => Hook::MaySplit { addr: raw.argument },
        sys::VMALAB_HOOK_MREMAP => Hook::Mremap,
        sys::VMALAB_HOOK_MPROTECT => Hook::Mprotect {
            start: raw.start,
            end: raw.end,
            flags: VmFlags(raw.argument & SEEN_FLAGS.0),
        },
        other => return Err(format!("hook {other} was called, which nobody watched")),
    };
    let error = match raw.error {
        0 => None,
        number => Some(
            i32::try_from(number)
                .ok()
                .and_then(Errno::from_number)
                .ok_or_else(|| format!("a hook answered with the error {number}"))?,
        ),
    };
    Ok(HookCall {
        hook,
        file: FileId(raw.file as u16),
        start: raw.start,
        end: raw.end,
        offset: raw.offset,
        error,
    })
}
