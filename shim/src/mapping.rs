// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A mapped range that this process owns: made by [`MapOptions`], cut by [`Mapping::unmap_range`].

use std::{
    ffi::c_void,
    fmt,
    num::NonZeroUsize,
    ops::Range,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

use bitflags::bitflags;
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap},
};

use crate::{Error, error::Action, page_size};

bitflags! {
    /// What may be done with the bytes of a mapping, as in `mmap(2)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Prot: i32 {
        /// They may be read: `PROT_READ`.
        const READ = libc::PROT_READ;
        /// They may be written: `PROT_WRITE`.
        const WRITE = libc::PROT_WRITE;
        /// They may be executed: `PROT_EXEC`.
        const EXEC = libc::PROT_EXEC;
    }
}

/// Who sees what is written to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Everyone: it goes into the object (`MAP_SHARED`).
    Shared,
    /// Only this mapping: it goes into copies of the pages (`MAP_PRIVATE`).
    Private,
}

/// A mapping in the making, from [`Device::map`](crate::Device::map): set what matters, then call
/// [`shared`](Self::shared) or [`private`](Self::private). Mirrors `mmap(2)`.
#[derive(Debug, Clone)]
#[must_use = "nothing is mapped before shared() or private()"]
pub struct MapOptions<'fd> {
    fd: BorrowedFd<'fd>,
    length: usize,
    offset: u64,
    prot: Prot,
    addr: Option<NonZeroUsize>,
    flags: MapFlags,
}

impl<'fd> MapOptions<'fd> {
    pub(crate) fn new(fd: BorrowedFd<'fd>) -> Self {
        Self {
            fd,
            length: 0,
            offset: 0,
            prot: Prot::READ | Prot::WRITE,
            addr: None,
            flags: MapFlags::empty(),
        }
    }

    /// How many bytes to map, rounded up to whole pages. There is no default.
    pub fn length(mut self, length: usize) -> Self {
        self.length = length;
        self
    }

    /// Where in the object the mapping begins, in bytes: a multiple of the page size. Default: 0.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// What may be done with the bytes. Default: read and write.
    pub fn prot(mut self, prot: Prot) -> Self {
        self.prot = prot;
        self
    }

    /// Where the mapping should be; the kernel takes another place if that one is not free.
    pub fn hint(mut self, addr: usize) -> Self {
        self.addr = NonZeroUsize::new(addr);
        self.flags.remove(MapFlags::MAP_FIXED_NOREPLACE);
        self
    }

    /// Where the mapping must be: a multiple of the page size. What is mapped there already stays,
    /// and the call fails with `EEXIST` (`MAP_FIXED_NOREPLACE`).
    pub fn exactly_at(mut self, addr: usize) -> Self {
        self.addr = NonZeroUsize::new(addr);
        self.flags.insert(MapFlags::MAP_FIXED_NOREPLACE);
        self
    }

    /// Faults all pages in at once (`MAP_POPULATE`). Failing to do so is no error.
    pub fn populate(mut self) -> Self {
        self.flags.insert(MapFlags::MAP_POPULATE);
        self
    }

    /// Further `MAP_*` flags, as `mmap(2)` takes them.
    ///
    /// # Safety
    /// With `MAP_FIXED` the mapping replaces what is at the address that [`hint`](Self::hint) gave,
    /// which must not be 0: nothing may own or refer to that. Other flags must not break what
    /// [`Mapping`] promises either.
    pub unsafe fn custom_flags(mut self, flags: i32) -> Self {
        self.flags.insert(MapFlags::from_bits_retain(flags));
        self
    }

    /// Maps it shared: writes go into the object, where everyone sees them.
    ///
    /// # Errors
    /// `EINVAL` for a length of 0 or an offset that is not a multiple of the page size; `EACCES`
    /// if the protection needs more than the descriptor permits; `EEXIST` if the place is taken;
    /// `ENOMEM` at `vm.max_map_count` areas or without address space; all others of `mmap(2)`.
    pub fn shared(self) -> Result<Mapping, Error> {
        self.map(Sharing::Shared)
    }

    /// Maps it privately: the first write to a page copies it, and nobody else sees the copy.
    ///
    /// # Errors
    /// Those of [`shared`](Self::shared).
    pub fn private(self) -> Result<Mapping, Error> {
        self.map(Sharing::Private)
    }

    fn map(self, sharing: Sharing) -> Result<Mapping, Error> {
        let Self {
            fd,
            length,
            offset,
            prot,
            addr,
            flags,
        } = self;
        let error = |errno| Error::new(Action::Map { length, offset }, errno);

        let size = NonZeroUsize::new(length).ok_or_else(|| error(Errno::EINVAL))?;
        let whole = length
            .checked_next_multiple_of(page_size())
            .filter(|&whole| isize::try_from(whole).is_ok())
            .ok_or_else(|| error(Errno::ENOMEM))?;
        let signed = offset.try_into().map_err(|_| error(Errno::EOVERFLOW))?;
        let kind = match sharing {
            Sharing::Shared => MapFlags::MAP_SHARED,
            Sharing::Private => MapFlags::MAP_PRIVATE,
        };
        let prot_flags = ProtFlags::from_bits_retain(prot.bits());

        // SAFETY: without MAP_FIXED, only unused addresses are taken, and nothing can refer to
        // those; with it, the caller of `custom_flags` has made the promise.
        let addr_got = unsafe { mmap(addr, size, prot_flags, flags | kind, fd, signed) };
        let mapping = Mapping {
            addr: addr_got.map_err(error)?.cast(),
            length: whole,
            offset,
            sharing,
            prot,
        };
        // Kernels before 4.17 take MAP_FIXED_NOREPLACE for a hint.
        if flags.contains(MapFlags::MAP_FIXED_NOREPLACE)
            && addr.is_some_and(|addr| addr != mapping.addr.addr())
        {
            return Err(error(Errno::EEXIST));
        }
        Ok(mapping)
    }
}

/// A mapped range of whole pages that this process owns. Dropping it unmaps it.
///
/// It keeps the object alive, without the [`Device`](crate::Device). After a fork, the child has a
/// mapping of its own at the same address.
///
/// # Invariants
/// `addr .. addr + length` is mapped, page-aligned, and not owned by anyone else in this process.
pub struct Mapping {
    addr: NonNull<u8>,
    length: usize,
    offset: u64,
    sharing: Sharing,
    prot: Prot,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: with a shared reference, safe code reaches the bytes by atomic accesses only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The address of the first byte. The pages are there until the mapping is dropped or unmapped.
    ///
    /// Other processes and threads may write at any time: use volatile or atomic accesses.
    pub fn as_ptr(&self) -> *mut u8 {
        self.addr.as_ptr()
    }

    /// The length in bytes: whole pages, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Where in the object the mapping begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Shared or private.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// What may be done with the bytes.
    pub fn prot(&self) -> Prot {
        self.prot
    }

    /// Copies the bytes at `at` (counted from the begin of the mapping) into `buffer`.
    ///
    /// The copy is made of relaxed atomic loads of one byte each. If someone writes meanwhile, each
    /// byte is an old or a new one. A page past the end of the object raises SIGBUS.
    ///
    /// # Errors
    /// `EINVAL` if not all of it lies inside the mapping, `EACCES` without [`Prot::READ`].
    pub fn read_at(&self, at: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let bytes = self.bytes(at, buffer.len(), Prot::READ)?;
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies `data` to `at` (counted from the begin of the mapping), as [`read_at`](Self::read_at)
    /// does the other way.
    ///
    /// # Errors
    /// `EINVAL` if not all of it lies inside the mapping, `EACCES` without [`Prot::WRITE`].
    pub fn write_at(&self, at: usize, data: &[u8]) -> Result<(), Error> {
        let bytes = self.bytes(at, data.len(), Prot::WRITE)?;
        for (to, from) in bytes.iter().zip(data) {
            to.store(*from, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes `byte` to all of `range` (counted from the begin of the mapping), as
    /// [`write_at`](Self::write_at) does.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at).
    pub fn fill(&self, range: Range<usize>, byte: u8) -> Result<(), Error> {
        for to in self.bytes(range.start, range.len(), Prot::WRITE)? {
            to.store(byte, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bytes, for atomic access of the kind that `need` permits.
    fn bytes(&self, at: usize, count: usize, need: Prot) -> Result<&[AtomicU8], Error> {
        let error = |errno| {
            Error::new(
                Action::Copy {
                    offset: at,
                    count,
                    length: self.length,
                },
                errno,
            )
        };
        if at.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(error(Errno::EINVAL));
        }
        if !self.prot.contains(need) {
            return Err(error(Errno::EACCES));
        }
        // SAFETY: the range is inside the mapping, which lives as long as the borrow; every value
        // of a byte is valid, and atomics may be written to by others. Nobody stores to a mapping
        // without Prot::WRITE through them, because the callers ask for what they do.
        Ok(unsafe { std::slice::from_raw_parts(self.addr.as_ptr().add(at).cast(), count) })
    }

    /// The bytes as a slice.
    ///
    /// # Safety
    /// As long as the slice lives, nobody writes to these pages of the object (or the mapping is
    /// private and they have been copied already), the object does not shrink below them, and the
    /// mapping permits [`Prot::READ`].
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the invariant gives the range; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.addr.as_ptr(), self.length) }
    }

    /// The bytes as a slice to write to.
    ///
    /// # Safety
    /// As for [`as_slice`](Self::as_slice); also nobody else reads them, and the mapping permits
    /// [`Prot::WRITE`], too.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`.
        unsafe { std::slice::from_raw_parts_mut(self.addr.as_ptr(), self.length) }
    }

    /// Changes what may be done with the bytes. Mirrors `mprotect(2)` over the whole mapping.
    ///
    /// # Errors
    /// `EACCES` if the descriptor did not permit it; `ENOMEM` at `vm.max_map_count` areas; `EPERM`
    /// if it is sealed. The mapping may then be protected in part, and counts as what it was.
    pub fn protect(&mut self, prot: Prot) -> Result<(), Error> {
        let flags = ProtFlags::from_bits_retain(prot.bits());
        // SAFETY: we own the range, and the exclusive borrow shows that no slice of it is around.
        unsafe { mprotect(self.addr.cast(), self.length, flags) }
            .map_err(|errno| Error::new(Action::Protect, errno))?;
        self.prot = prot;
        Ok(())
    }

    /// Unmaps it, and tells of a failure, which dropping cannot. Mirrors `munmap(2)`.
    ///
    /// # Errors
    /// `EPERM` if it is sealed; `ENOMEM` if it is in the middle of an area (merged from several
    /// mappings of one descriptor) and the process has `vm.max_map_count` areas. The mapping comes
    /// back in the error.
    pub fn unmap(self) -> Result<(), UnmapError> {
        let all = 0..self.length;
        self.unmap_range(all).map(drop)
    }

    /// Unmaps `range` (in bytes from the begin of the mapping, page-aligned) and gives back what
    /// remains on either side. The contents there stay as they are. Mirrors `munmap(2)` of a part,
    /// for which the kernel splits the area.
    ///
    /// ```text
    ///           range
    /// |--------|xxxxxxxxxx|-----|
    ///    head                tail
    /// ```
    ///
    /// # Errors
    /// `EINVAL` if the range is empty, unaligned or not inside; `ENOMEM` if one more area would be
    /// more than `vm.max_map_count`; `EPERM` if it is sealed. The mapping comes back in the error,
    /// with all its pages.
    pub fn unmap_range(self, range: Range<usize>) -> Result<Remains, UnmapError> {
        let whole = self.into_raw_parts();
        let Range { start, end } = range.clone();
        let page = page_size();
        let result = if start >= end || end > whole.length || start % page != 0 || end % page != 0 {
            Err(Errno::EINVAL)
        } else {
            // SAFETY: the range is inside one that we own, and taking `self` by value shows that
            // nothing borrows from it.
            unsafe { munmap(address(whole.addr, start), end - start) }
        };
        // SAFETY: the parts are those of `self`, which is forgotten, less what is now unmapped. A
        // munmap that failed has unmapped nothing (it may have split the area in two).
        unsafe {
            match result {
                Ok(()) => Ok(Remains {
                    head: whole.part(0..start),
                    tail: whole.part(end..whole.length),
                }),
                Err(errno) => {
                    let error = Error::new(
                        Action::Unmap {
                            range,
                            length: whole.length,
                        },
                        errno,
                    );
                    Err(UnmapError {
                        error,
                        mapping: Self::from_raw_parts(whole),
                    })
                }
            }
        }
    }

    /// Gives the mapping up without unmapping it.
    pub fn into_raw_parts(self) -> RawMapping {
        let this = std::mem::ManuallyDrop::new(self);
        RawMapping {
            addr: this.addr.as_ptr(),
            length: this.length,
            offset: this.offset,
            sharing: this.sharing,
            prot: this.prot,
        }
    }

    /// Takes ownership of a mapped range: one from [`into_raw_parts`](Self::into_raw_parts), or any
    /// other whole pages.
    ///
    /// # Safety
    /// The range is mapped (not at address 0), begins and ends at multiples of the page size, is not
    /// empty, and nobody else owns it or will unmap it; `sharing` and `prot` are what it was mapped
    /// with.
    pub unsafe fn from_raw_parts(raw: RawMapping) -> Self {
        let RawMapping {
            addr,
            length,
            offset,
            sharing,
            prot,
        } = raw;
        // SAFETY: the caller's promise.
        let addr = unsafe { NonNull::new_unchecked(addr) };
        Self {
            addr,
            length,
            offset,
            sharing,
            prot,
        }
    }
}

/// The address `at` bytes into a mapping.
fn address(addr: *mut u8, at: usize) -> NonNull<c_void> {
    NonNull::new(addr.wrapping_add(at).cast()).expect("a mapping does not wrap around")
}

impl Drop for Mapping {
    /// Unmaps it. A failure leaves it mapped; [`Mapping::unmap`] tells of it.
    fn drop(&mut self) {
        // SAFETY: we own the range, and nothing can borrow from a value that is dropped.
        let _ = unsafe { munmap(self.addr.cast(), self.length) };
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("addr", &self.addr)
            .field("length", &self.length)
            .field("offset", &self.offset)
            .field("sharing", &self.sharing)
            .field("prot", &self.prot)
            .finish()
    }
}

/// What [`Mapping::unmap_range`] leaves.
#[derive(Debug)]
#[must_use = "what is not kept is unmapped"]
pub struct Remains {
    /// The pages before the range, if there are any.
    pub head: Option<Mapping>,
    /// The pages after the range, if there are any.
    pub tail: Option<Mapping>,
}

/// A failed unmapping: why, and the mapping, which still has all its pages.
#[derive(Debug)]
pub struct UnmapError {
    error: Error,
    mapping: Mapping,
}

impl UnmapError {
    /// Why it failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The mapping, to be used or tried again.
    pub fn into_mapping(self) -> Mapping {
        self.mapping
    }
}

impl fmt::Display for UnmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for UnmapError {}

impl From<UnmapError> for Error {
    /// Drops the mapping.
    fn from(error: UnmapError) -> Self {
        error.error
    }
}

/// The parts of a [`Mapping`], owned by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawMapping {
    /// The address of the first byte.
    pub addr: *mut u8,
    /// In bytes.
    pub length: usize,
    /// Where in the object it begins, in bytes.
    pub offset: u64,
    /// Shared or private.
    pub sharing: Sharing,
    /// What may be done with the bytes.
    pub prot: Prot,
}

impl RawMapping {
    /// A part of it as a mapping of its own, if there is anything in it.
    ///
    /// # Safety
    /// As for [`Mapping::from_raw_parts`], for the part.
    unsafe fn part(self, range: Range<usize>) -> Option<Mapping> {
        (!range.is_empty()).then(|| {
            let part = Self {
                addr: self.addr.wrapping_add(range.start),
                length: range.len(),
                offset: self.offset + range.start as u64,
                ..self
            };
            // SAFETY: the caller's promise.
            unsafe { Mapping::from_raw_parts(part) }
        })
    }
}
