// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the children map: memory files, segments of System V shared memory; and the file through which
//! operations write to memory.
//!
//! All is opened before the template is forked, so that each child has it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::c_int;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use vmalab_model::PAGE_SIZE;

use super::wire::{MAX_OPS, MAX_SEGMENTS, device_number};
use crate::contents;
use crate::oracle::OracleError;

/// Pages of the larger files.
pub(super) const FILE_PAGES: u64 = 64;
/// Pages of the file that ends before the arena does.
pub(super) const SHORT_FILE_PAGES: u64 = 10;
/// Pages of a segment.
pub(super) const SEGMENT_PAGES: u64 = 5;
/// Bytes of all numbers that operations write.
pub(super) const NUMBERS: u64 = 8 * MAX_OPS as u64;

/// A file of the run.
pub(super) struct Open {
    pub(super) fd: OwnedFd,
    /// Its device and inode.
    pub(super) identity: (u64, u64),
}

/// A segment of System V shared memory.
pub(super) struct Segment {
    pub(super) id: i32,
}

/// A memory file of so many pages.
pub(super) fn memfd(pages: u64) -> Result<OwnedFd, OracleError> {
    let failed = |errno| OracleError::system("memfd_create", errno);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(c"vmalab", flags).map_err(failed)?;
    ftruncate(&fd, (pages * PAGE_SIZE) as i64).map_err(failed)?;
    Ok(fd)
}

/// Writes to each page which one it is, of the file in that place.
pub(super) fn number_pages(fd: &OwnedFd, place: usize, pages: u64) -> Result<(), OracleError> {
    for page in 0..pages {
        let number = contents::pattern(place, page).to_ne_bytes();
        pwrite(fd, &number, (page * PAGE_SIZE) as i64)
            .map_err(|errno| OracleError::system("cannot write to a memfd", errno))?;
    }
    Ok(())
}

/// The same file, sealed. A kernel that does not know the seal (before 5.1) leaves it as it is, which the rules of its
/// era foretell.
pub(super) fn seal(fd: OwnedFd, seal: c_int) -> Result<OwnedFd, OracleError> {
    match fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seal))) {
        Ok(_) | Err(Errno::EINVAL) => Ok(fd),
        Err(errno) => Err(OracleError::system("cannot seal a memfd", errno)),
    }
}

/// The same file, opened otherwise.
pub(super) fn open_again(fd: &OwnedFd, how: &OpenOptions) -> Result<OwnedFd, OracleError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let file = how.open(path).map_err(|error| {
        OracleError::system("cannot open a memfd again (is /proc mounted?)", error)
    })?;
    Ok(file.into())
}

/// A directory, which nobody can map.
pub(super) fn root() -> Result<OwnedFd, OracleError> {
    let file = OpenOptions::new().read(true).open("/");
    let file = file.map_err(|error| OracleError::system("cannot open /", error))?;
    Ok(file.into())
}

/// Device and inode, as `/proc` shows them of an area.
pub(super) fn identity(fd: &OwnedFd) -> Result<(u64, u64), OracleError> {
    let stat = fstat(fd).map_err(|errno| OracleError::system("fstat", errno))?;
    let device = device_number(major(stat.st_dev) as u32, minor(stat.st_dev) as u32);
    Ok((device, stat.st_ino))
}

/// Two segments, which go with this process.
pub(super) fn segments() -> nix::Result<Vec<Segment>> {
    (0..MAX_SEGMENTS)
        .map(|_| {
            let bytes = (SEGMENT_PAGES * PAGE_SIZE) as usize;
            // SAFETY: neither call touches memory that is anybody's.
            let (id, kept) = unsafe {
                let id = Errno::result(libc::shmget(libc::IPC_PRIVATE, bytes, 0o700))?;
                (id, libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY))
            };
            // What is removed lives as long as it is attached somewhere, and can still be attached.
            // SAFETY: the structure is not asked for.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
            if kept as isize == -1 {
                return Err(Errno::last());
            }
            Ok(Segment { id })
        })
        .collect()
}

/// What each operation of a batch writes to memory, in a file.
pub(super) fn numbers() -> Result<OwnedFd, OracleError> {
    let fd = memfd(NUMBERS.div_ceil(PAGE_SIZE) + 1)?;
    let numbers: Vec<u8> = (0..MAX_OPS)
        .flat_map(|index| contents::number(index).to_ne_bytes())
        .collect();
    let mut file = std::fs::File::from(fd);
    file.write_all(&numbers)
        .map_err(|error| OracleError::system("cannot write to a memfd", error))?;
    Ok(file.into())
}
