// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! An object: holes, seals, which pages were written, and its name.

use std::{
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::errno::Errno;

use crate::{Device, Error, error::Action, sys};

bitflags::bitflags! {
    /// What can no longer be done with an object, by anyone: `enum vmalab_seal`, with the numbers of
    /// `F_ADD_SEALS`.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Seals: u32 {
        /// Adding seals.
        const SEAL = sys::VMALAB_SEAL_SEAL;
        /// Making it smaller.
        const SHRINK = sys::VMALAB_SEAL_SHRINK;
        /// Making it larger.
        const GROW = sys::VMALAB_SEAL_GROW;
        /// Writing to it, in whatever way.
        const WRITE = sys::VMALAB_SEAL_WRITE;
        /// Writing to it, but through mappings that are there already.
        const FUTURE_WRITE = sys::VMALAB_SEAL_FUTURE_WRITE;
    }
}

/// The answer of [`Device::written`] and [`Device::take_written`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what was taken is not told again"]
pub struct Written {
    /// The pages that were written to, in bytes of the object, in order; no two of them touch.
    pub ranges: Vec<Range<u64>>,
    /// Up to where was looked: the end of what was asked for, unless an error came in the middle. Then
    /// this is what is known so far, and the next call, from here on, gives the error.
    pub end: u64,
}

impl Device {
    /// Allocates the pages that `range` (in bytes) touches, as far as they are not there, and makes the
    /// object larger if it ends before. Mirrors `VMALAB_IOC_FALLOCATE`, as `posix_fallocate(3)`.
    ///
    /// Pages that are never written to may be freed again if the system needs memory.
    ///
    /// # Errors
    /// `EINVAL` for an empty range; `EFBIG` if it ends past the module's parameter `max_object_size`;
    /// `ENOSPC` if there are as many pages as its parameter `max_pages` allows; `EPERM` if it is sealed
    /// against growing; `EBADF` if the descriptor is open for reading only; `ENOMEM`; `EINTR`.
    pub fn allocate(&self, range: Range<u64>) -> Result<(), Error> {
        self.fallocate(sys::VMALAB_FALLOCATE_ALLOCATE, range)
    }

    /// Frees the bytes of `range`: whole pages leave the object and every shared mapping, the rest
    /// becomes zeros. Private copies stay. Mirrors `VMALAB_IOC_FALLOCATE`, as `fallocate(2)` with
    /// `FALLOC_FL_PUNCH_HOLE`.
    ///
    /// # Errors
    /// `EINVAL` for an empty range; `EPERM` if it is sealed against writing; `EBADF` if the descriptor is
    /// open for reading only.
    pub fn punch_hole(&self, range: Range<u64>) -> Result<(), Error> {
        self.fallocate(sys::VMALAB_FALLOCATE_PUNCH_HOLE, range)
    }

    /// As [`allocate`](Self::allocate) and [`punch_hole`](Self::punch_hole), with any mode of
    /// `enum vmalab_fallocate_mode`.
    ///
    /// # Errors
    /// Theirs; `EOPNOTSUPP` for a mode that the module does not know.
    pub fn fallocate(&self, mode: u32, range: Range<u64>) -> Result<(), Error> {
        let mut argument = sys::vmalab_fallocate {
            offset: range.start,
            length: range.end.saturating_sub(range.start),
            mode,
            reserved: 0,
        };
        // SAFETY: the request reads one vmalab_fallocate.
        unsafe { self.ioctl(sys::VMALAB_IOC_FALLOCATE, &mut argument) }
            .map_err(|errno| Error::new(Action::Fallocate { mode, range }, errno))
    }

    /// Forbids something for good, for all descriptors and mappings of the object. Mirrors
    /// `VMALAB_IOC_ADD_SEALS`, as `F_ADD_SEALS` of `fcntl(2)` does for a memfd.
    ///
    /// # Errors
    /// `EBUSY` for [`Seals::WRITE`], while there is a shared mapping that is writable, or that
    /// `mprotect` could make so, or while direct I/O into one is under way; `EPERM` if it is sealed
    /// against adding seals, or the descriptor is open for reading only; `EINVAL` for a seal that the
    /// module does not know.
    pub fn add_seals(&self, seals: Seals) -> Result<(), Error> {
        let mut argument = sys::vmalab_seals {
            seals: seals.bits(),
            reserved: 0,
        };
        // SAFETY: the request reads one vmalab_seals.
        unsafe { self.ioctl(sys::VMALAB_IOC_ADD_SEALS, &mut argument) }
            .map_err(|errno| Error::new(Action::AddSeals(seals), errno))
    }

    /// What is forbidden. Mirrors `VMALAB_IOC_GET_SEALS`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node.
    pub fn seals(&self) -> Result<Seals, Error> {
        let mut argument = sys::vmalab_seals::default();
        // SAFETY: the request reads and writes one vmalab_seals.
        unsafe { self.ioctl(sys::VMALAB_IOC_GET_SEALS, &mut argument) }
            .map(|()| Seals::from_bits_retain(argument.seals))
            .map_err(|errno| Error::new(Action::GetSeals, errno))
    }

    /// Which pages of `range` have been written to since they were [taken](Self::take_written) last.
    ///
    /// # Errors
    /// As those of [`take_written`](Self::take_written): pages are write-protected to learn it, so that who
    /// writes to them faults again.
    pub fn written(&self, range: Range<u64>) -> Result<Written, Error> {
        self.all_written(range, 0)
    }

    /// Which pages of `range` (in bytes, whole pages) have been written to, through shared mappings and
    /// with `write(2)`, since this was asked last; from now on they have not. Mirrors
    /// `VMALAB_IOC_WRITTEN` with `VMALAB_WRITTEN_CLEAR`.
    ///
    /// No write is missed, whoever writes meanwhile: copy the pages after this call, and what it did not
    /// tell is told by the next one. A page that was only read may be told, too, unless it was mapped
    /// with [`HookSet::PageMkwrite`](crate::HookSet::PageMkwrite) set; holes that were punched are not.
    ///
    /// ```no_run
    /// # let device = vmalab::Device::open()?;
    /// # let mut copy = vec![0; 1 << 20];
    /// for range in device.take_written(0..1 << 20)?.ranges {
    ///     device.read_at(&mut copy[range.start as usize..range.end as usize], range.start)?;
    /// }
    /// # Ok::<(), vmalab::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EINVAL` if these are no whole pages; `EBADF` if the descriptor is open for reading only;
    /// `ENOMEM`; `ENOTTY` if the descriptor is not one of the node.
    pub fn take_written(&self, range: Range<u64>) -> Result<Written, Error> {
        self.all_written(range, sys::VMALAB_WRITTEN_CLEAR)
    }

    fn all_written(&self, range: Range<u64>, flags: u32) -> Result<Written, Error> {
        let mut written = Written {
            ranges: Vec::new(),
            end: range.start,
        };
        let mut space = [sys::vmalab_range::default(); 256];
        let mut argument = sys::vmalab_written {
            offset: range.start,
            length: range.end.saturating_sub(range.start),
            ranges: space.as_mut_ptr().expose_provenance() as u64,
            n_ranges: 0,
            flags,
        };
        while argument.length > 0 {
            argument.n_ranges = space.len() as u32;
            // SAFETY: the array has that many ranges.
            match unsafe { self.written_into(&mut argument) } {
                Ok(()) => {}
                Err(error) if written.ranges.is_empty() => return Err(error),
                Err(_) => break,
            }
            written.end = argument.offset;
            for found in &space[..argument.n_ranges as usize] {
                let end = found.offset + found.length;
                match written.ranges.last_mut() {
                    Some(last) if last.end == found.offset => last.end = end,
                    _ => written.ranges.push(found.offset..end),
                }
            }
        }
        Ok(written)
    }

    /// Gives the object a name, by which other processes can [open](Self::open_name) it: those whom `mode`
    /// allows, as the mode of a file (`0o600`, `0o644`, ...); the owner is who has made the object. Mirrors
    /// `VMALAB_IOC_SET_NAME`.
    ///
    /// The name is gone with the last descriptor and the last mapping of the object.
    ///
    /// # Errors
    /// `EINVAL` if the name is empty, longer than 63 characters, or has others than printable ones of
    /// ASCII, or the mode is not within `0o666`; `EEXIST` if another object has this name; `EBUSY` if this
    /// one has a name; `EBADF` if the descriptor is open for reading only; `ENOMEM`.
    pub fn set_name(&self, name: &str, mode: u32) -> Result<(), Error> {
        let error = |errno| Error::new(Action::SetName(name.into()), errno);
        if name.is_empty() {
            return Err(error(Errno::EINVAL));
        }
        let mut argument = name_argument(name, mode, 0).map_err(error)?;
        // SAFETY: the request reads one vmalab_name.
        unsafe { self.ioctl(sys::VMALAB_IOC_SET_NAME, &mut argument) }.map_err(error)
    }

    /// Takes the name away, if there is one. Descriptors that were opened by it stay.
    ///
    /// # Errors
    /// `EBADF` if the descriptor is open for reading only.
    pub fn remove_name(&self) -> Result<(), Error> {
        let mut argument = sys::vmalab_name::default();
        // SAFETY: the request reads one vmalab_name.
        unsafe { self.ioctl(sys::VMALAB_IOC_SET_NAME, &mut argument) }
            .map_err(|errno| Error::new(Action::SetName(String::new()), errno))
    }

    /// Opens the object that has this name, for reading and writing. Mirrors `VMALAB_IOC_OPEN_NAME`, by
    /// way of a new descriptor of the node.
    ///
    /// # Errors
    /// `ENOENT` if no object has this name; `EACCES` if its mode does not allow it; those of
    /// [`open`](Self::open).
    pub fn open_named(name: &str) -> Result<Self, Error> {
        Self::open()?.open_name(name, libc::O_RDWR)
    }

    /// As [`open_named`](Self::open_named), with the node of this descriptor, and `O_RDONLY`, `O_WRONLY` or
    /// `O_RDWR`. The object of this descriptor does not matter.
    ///
    /// # Errors
    /// `EACCES` also if this descriptor does not have this access itself; `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn open_name(&self, name: &str, access: i32) -> Result<Self, Error> {
        let error = |errno| Error::new(Action::OpenName(name.into()), errno);
        let flags = (access | libc::O_CLOEXEC) as u32;
        let argument = name_argument(name, 0, flags).map_err(error)?;
        let (fd, request) = (self.as_raw_fd(), sys::VMALAB_IOC_OPEN_NAME);
        // SAFETY: the request reads one vmalab_name.
        let fd = Errno::result(unsafe { libc::ioctl(fd, request.into(), &raw const argument) })
            .map_err(error)?;
        // SAFETY: it is a new descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    /// One call of `VMALAB_IOC_WRITTEN`, for who has an array of his own for the answer.
    ///
    /// # Errors
    /// Those of [`take_written`](Self::take_written); `EINVAL` if there is no space for a range; `EFAULT`.
    ///
    /// # Safety
    /// `argument.ranges` is the address of an array of `argument.n_ranges` [`sys::vmalab_range`], to be
    /// written to.
    pub unsafe fn written_into(&self, argument: &mut sys::vmalab_written) -> Result<(), Error> {
        let range = argument.offset..argument.offset.saturating_add(argument.length);
        // SAFETY: the request reads and writes one vmalab_written; the rest is the caller's promise.
        unsafe { self.ioctl(sys::VMALAB_IOC_WRITTEN, argument) }
            .map_err(|errno: Errno| Error::new(Action::Written(range), errno))
    }
}

fn name_argument(name: &str, mode: u32, flags: u32) -> Result<sys::vmalab_name, Errno> {
    let mut argument = sys::vmalab_name {
        name: [0; sys::VMALAB_NAME_SIZE as usize],
        mode,
        flags,
    };
    if name.contains('\0') {
        return Err(Errno::EINVAL);
    }
    // One zero at least remains.
    let (_, space) = argument.name.split_last_mut().ok_or(Errno::EINVAL)?;
    let space = space.get_mut(..name.len()).ok_or(Errno::EINVAL)?;
    space.copy_from_slice(name.as_bytes());
    Ok(argument)
}
