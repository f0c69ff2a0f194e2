// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A descriptor of the node, and what can be asked of it.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        stat::Mode,
        uio::{pread, pwrite},
    },
};

use crate::{Error, HookCounts, HookSet, MapOptions, WatchOptions, error::Action, sys};

/// An open descriptor of `/dev/vmalab`.
///
/// [`open`](Self::open) makes a new object; [`try_clone`](Self::try_clone) and a fork share it. The
/// object lives until the last descriptor and the last mapping of it are gone. Dropping the device
/// closes the descriptor and leaves mappings as they are.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

impl Device {
    /// Opens `/dev/vmalab` for reading and writing, which makes a new object.
    ///
    /// # Errors
    /// `ENOENT` or `ENXIO` if the module is not loaded, `EACCES` if this user may not open the
    /// node, and all others of `open(2)`.
    pub fn open() -> Result<Self, Error> {
        Self::open_at(OsStr::from_bytes(sys::VMALAB_PATH.to_bytes()))
    }

    /// As [`open`](Self::open), for a node at another path (in a container, for example).
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), OFlag::O_RDWR)
    }

    /// As [`open_at`](Self::open_at), for reading only: a shared mapping of such a descriptor can
    /// never be written to, a private one can.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path.as_ref(), OFlag::O_RDONLY)
    }

    fn open_with(path: &Path, access: OFlag) -> Result<Self, Error> {
        match open(path, access | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(Error::new(Action::Open(path.into()), errno)),
        }
    }

    /// Another descriptor of the same object, as `dup(2)` gives (with close-on-exec).
    ///
    /// # Errors
    /// `EMFILE` if the process has too many descriptors.
    pub fn try_clone(&self) -> Result<Self, Error> {
        match self.fd.try_clone() {
            Ok(fd) => Ok(Self { fd }),
            Err(error) => {
                let errno = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
                Err(Error::new(Action::Duplicate, errno))
            }
        }
    }

    /// Counts of this descriptor's object: what is alive now, and its hook calls so far.
    /// Mirrors `VMALAB_IOC_STATS` with `VMALAB_SCOPE_OBJECT`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.stats_of(sys::VMALAB_SCOPE_OBJECT)
    }

    /// As [`stats`](Self::stats), of all objects since the module was loaded: `VMALAB_SCOPE_MODULE`.
    /// This device's own object is counted, too.
    ///
    /// # Errors
    /// Those of [`stats`](Self::stats).
    pub fn module_stats(&self) -> Result<Stats, Error> {
        self.stats_of(sys::VMALAB_SCOPE_MODULE)
    }

    fn stats_of(&self, scope: sys::vmalab_scope) -> Result<Stats, Error> {
        let mut stats = sys::vmalab_stats {
            scope,
            ..Default::default()
        };
        // SAFETY: the request reads and writes exactly one vmalab_stats. That size is part of the
        // number, so that it holds for a driver of another kind, too, if it knows the number at all.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_STATS, &mut stats) };
        done.map(|()| stats.into())
            .map_err(|errno| Error::new(Action::Stats, errno))
    }

    /// The size of the object, in bytes: a whole number of pages. Mirrors `VMALAB_IOC_GET_SIZE`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node.
    pub fn size(&self) -> Result<u64, Error> {
        let mut size = sys::vmalab_size::default();
        // SAFETY: as in `stats_of`, with one vmalab_size.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_GET_SIZE, &mut size) };
        done.map(|()| size.size)
            .map_err(|errno| Error::new(Action::GetSize, errno))
    }

    /// Sets the size of the object to `size` bytes, rounded up to whole pages. Mirrors
    /// `VMALAB_IOC_SET_SIZE`, and behaves as `ftruncate(2)` does on a memfd.
    ///
    /// Pages past a new, smaller end are freed and taken out of every mapping, in every process:
    /// touching them then raises SIGBUS, also through the safe methods of
    /// [`Mapping`](crate::Mapping). Pages that a later growth brings back are zero.
    ///
    /// # Errors
    /// `EFBIG` if it is larger than the module's parameter `max_object_size`; `EBADF` if the
    /// descriptor is open for reading only; `EPERM` if it is sealed against that
    /// ([`add_seals`](Self::add_seals)); `ENOTTY` if the descriptor is not one of the node.
    pub fn set_size(&self, size: u64) -> Result<(), Error> {
        let mut argument = sys::vmalab_size {
            size,
            ..Default::default()
        };
        // SAFETY: as in `stats_of`, with one vmalab_size.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_SET_SIZE, &mut argument) };
        done.map_err(|errno| Error::new(Action::SetSize(size), errno))
    }

    /// Chooses which optional hooks the areas of the object have that are mapped from now on: those in
    /// `hooks`, and no other. There are two: [`Hook::PageMkwrite`](crate::Hook::PageMkwrite) and
    /// [`Hook::HugeFault`](crate::Hook::HugeFault). Mirrors `VMALAB_IOC_SET_HOOKS`.
    ///
    /// # Errors
    /// `EINVAL` for a hook that is not optional; `EBADF` if the descriptor is open for
    /// reading only; `ENOTTY` if the descriptor is not one of the
    /// node, or the module is too old.
    pub fn set_hooks(&self, hooks: HookSet) -> Result<(), Error> {
        let mut argument = sys::vmalab_hooks {
            hooks: hooks.bits(),
            reserved: 0,
        };
        // SAFETY: as in `stats_of`, with one vmalab_hooks.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_SET_HOOKS, &mut argument) };
        done.map_err(|errno| Error::new(Action::SetHooks(hooks), errno))
    }

    /// Copies bytes of the object from `offset` on into `buffer`, up to the end of the object, and says
    /// how many. Where nothing has been written yet they are zeros, and no page is allocated. Mirrors
    /// `pread(2)`.
    ///
    /// # Errors
    /// `EBADF` if the descriptor is open for writing only.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let length = buffer.len();
        let error = |errno| Error::new(Action::Read { offset, length }, errno);
        let at = offset.try_into().map_err(|_| error(Errno::EINVAL))?;
        pread(&self.fd, buffer, at).map_err(error)
    }

    /// Copies `data` into the object, from `offset` on up to its end, and says how many bytes. Mirrors
    /// `pwrite(2)`.
    ///
    /// # Errors
    /// `ENOSPC` at the end and past it, which stays where it is ([`set_size`](Self::set_size)), or if
    /// there are as many pages as the module's parameter `max_pages` allows; `EPERM` if it is sealed
    /// against writing; `EBADF` if the descriptor is open for reading only.
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<usize, Error> {
        let length = data.len();
        let error = |errno| Error::new(Action::Write { offset, length }, errno);
        let at = offset.try_into().map_err(|_| error(Errno::EINVAL))?;
        pwrite(&self.fd, data, at).map_err(error)
    }

    /// In pieces of how many bytes the object allocates memory from now on. Mirrors
    /// `VMALAB_IOC_GET_FOLIO_SIZE`.
    ///
    /// # Errors
    /// `ENOTTY` if the descriptor is not one of the node, or the module is too old.
    pub fn folio_size(&self) -> Result<u64, Error> {
        let mut size = sys::vmalab_size::default();
        // SAFETY: as in `stats_of`, with one vmalab_size.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_GET_FOLIO_SIZE, &mut size) };
        done.map(|()| size.size)
            .map_err(|errno| Error::new(Action::GetFolioSize, errno))
    }

    /// Has the object allocate memory in pieces of `size` bytes from now on: a power of two, from one
    /// page to 2 MiB, or 0 for what a fresh object has, which is one page unless the module was loaded
    /// with another `folio_size`. Mirrors `VMALAB_IOC_SET_FOLIO_SIZE`, which
    /// says what comes of it.
    ///
    /// With a larger one, first touches are cheaper, and pages are allocated that nobody has touched:
    ///
    /// ```no_run
    /// # let device = vmalab::Device::open()?;
    /// device.set_folio_size(64 << 10)?;
    /// let mapping = device.map().length(1 << 20).shared()?;
    /// mapping.write_at(0, b"x")?;
    /// assert_eq!(device.stats()?.pages, 16);
    /// # Ok::<(), vmalab::Error>(())
    /// ```
    ///
    /// # Errors
    /// `EINVAL` if there is no such size; `EBADF` if the descriptor is open for reading only;
    /// `ENOTTY` if the descriptor is not one of the node, or the module is too old.
    pub fn set_folio_size(&self, size: u64) -> Result<(), Error> {
        let mut argument = sys::vmalab_size {
            size,
            ..Default::default()
        };
        // SAFETY: as in `stats_of`, with one vmalab_size.
        let done = unsafe { self.ioctl(sys::VMALAB_IOC_SET_FOLIO_SIZE, &mut argument) };
        done.map_err(|errno| Error::new(Action::SetFolioSize(size), errno))
    }

    /// Begins a mapping of the object: see [`MapOptions`].
    pub fn map(&self) -> MapOptions<'_> {
        MapOptions::new(self.fd.as_fd())
    }

    /// Begins to watch the object: a record of each call of a hook. See [`WatchOptions`] and
    /// [`Watch`](crate::Watch).
    pub fn watch(&self) -> WatchOptions<'_> {
        WatchOptions::new(self)
    }

    /// # Safety
    /// `argument` is what `request` reads and writes.
    pub(crate) unsafe fn ioctl<T>(&self, request: u32, argument: &mut T) -> Result<(), Errno> {
        let argument: *mut T = argument;
        // SAFETY: the caller's promise; the descriptor is open as long as `self` lives.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request.into(), argument) };
        Errno::result(result).map(drop)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl IntoRawFd for Device {
    fn into_raw_fd(self) -> RawFd {
        self.fd.into_raw_fd()
    }
}

impl FromRawFd for Device {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        // SAFETY: the caller's promise is the same: an open descriptor, owned by the caller.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Self { fd }
    }
}

impl From<OwnedFd> for Device {
    /// Takes a descriptor that came from elsewhere, over a socket for example. One that is not of
    /// the node answers `ENOTTY` to everything but [`Device::map`], which maps any file.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}

/// What is alive now, and the hook calls so far: `struct vmalab_stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stats {
    /// Live objects, that of the asking descriptor included.
    pub objects: u64,
    /// Live areas (VMAs) that map them, in all processes.
    pub areas: u64,
    /// Pages that they hold; copies that private mappings made are not theirs.
    pub pages: u64,
    /// The hook calls so far.
    pub hooks: HookCounts,
}

impl From<sys::vmalab_stats> for Stats {
    fn from(raw: sys::vmalab_stats) -> Self {
        Self {
            objects: raw.objects,
            areas: raw.areas,
            pages: raw.pages,
            hooks: raw.n_calls.into(),
        }
    }
}
