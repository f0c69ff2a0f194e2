// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The kinds of memory that are compared, and mappings of them.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::ftruncate,
};
use vmalab::{Device, HookSet, Watch, sys};

/// x86-64 has this page size only.
pub(crate) const PAGE: usize = 4096;
/// What one entry of the second level of the page table maps.
pub(crate) const HUGE: usize = 2 << 20;

/// A kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `/dev/vmalab`, which allocates one page at a time.
    Device,
    /// `/dev/vmalab-prepare`, in the same way: areas come into being by `.mmap_prepare` and `mapped`.
    Prepared,
    /// `/dev/vmalab`, and each call of a hook is recorded.
    Watched,
    /// `/dev/vmalab`, which allocates 64 KiB at a time.
    Pieces,
    /// A memfd.
    Memfd,
    /// `/dev/zero`, shared: memory that processes share by fork alone.
    Zero,
    /// Private anonymous memory.
    Anonymous,
}

/// An object of some kind of memory.
pub(crate) struct Object {
    fd: OwnedFd,
    watch: Option<Watch>,
}

impl Object {
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The descriptor alone; nobody watches any more.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Who watches it, and has lost nothing: else it would not be known what was measured.
    pub(crate) fn check_watch(&self) -> io::Result<()> {
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        let state = watch.state().map_err(io::Error::other)?;
        if state.recorded > 0 && state.lost == 0 {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} records, and {} were lost",
            state.recorded, state.lost
        )))
    }
}

impl From<OwnedFd> for Object {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, watch: None }
    }
}

impl Kind {
    /// Those that are compared with each other.
    pub(crate) const ALL: [Self; 6] = [
        Self::Device,
        Self::Prepared,
        Self::Pieces,
        Self::Memfd,
        Self::Zero,
        Self::Anonymous,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "vmalab",
            Self::Prepared => "vmalab-prepare",
            Self::Watched => "vmalab, watched",
            Self::Pieces => "vmalab, 64 KiB",
            Self::Memfd => "memfd",
            Self::Zero => "/dev/zero",
            Self::Anonymous => "anonymous",
        }
    }

    /// A new object of this kind, with nothing in it; none for memory that no descriptor stands for.
    pub(crate) fn object(self, pages: usize) -> io::Result<Option<Object>> {
        let bytes = pages * PAGE;
        Ok(match self {
            Self::Device => Some(device(sys::VMALAB_PATH, bytes, PAGE)?.into()),
            Self::Prepared => Some(device(sys::VMALAB_PREPARE_PATH, bytes, PAGE)?.into()),
            Self::Watched => Some(watched(bytes)?),
            Self::Pieces => Some(device(sys::VMALAB_PATH, bytes, 16 * PAGE)?.into()),
            Self::Memfd => {
                let fd = memfd_create(c"vmalab-bench", MFdFlags::MFD_CLOEXEC)?;
                ftruncate(&fd, bytes as i64)?;
                Some(fd.into())
            }
            Self::Zero | Self::Anonymous => None,
        })
    }
}

/// A new object of that node, of so many bytes, which allocates so many at a time.
pub(crate) fn device(node: &CStr, bytes: usize, piece: usize) -> io::Result<Device> {
    let node = OsStr::from_bytes(node.to_bytes());
    let device = Device::open_at(node).map_err(io::Error::other)?;
    device.set_size(bytes as u64).map_err(io::Error::other)?;
    device
        .set_folio_size(piece as u64)
        .map_err(io::Error::other)?;
    Ok(device)
}

/// The same, page by page, with a ring in which there is room for all calls.
fn watched(bytes: usize) -> io::Result<Object> {
    let device = device(sys::VMALAB_PATH, bytes, PAGE)?;
    let records = (4 * bytes / PAGE).next_power_of_two() as u32;
    let watch = device.watch().hooks(HookSet::all()).records(records).open();
    Ok(Object {
        watch: Some(watch.map_err(io::Error::other)?),
        fd: device.into(),
    })
}

impl From<Device> for Object {
    fn from(device: Device) -> Self {
        OwnedFd::from(device).into()
    }
}

/// A mapping at an address that is a multiple of 2 MiB, for what is measured must not depend on where
/// in a page table it is; gone when dropped.
pub(crate) struct Mapping {
    addr: usize,
    pages: usize,
    /// What was reserved around it.
    reserved: (usize, usize),
}

impl Mapping {
    /// A shared mapping, if there is such a thing, of the object, or of new memory of a kind that has
    /// none.
    pub(crate) fn shared(kind: Kind, object: Option<&Object>, pages: usize) -> io::Result<Self> {
        match (kind, object) {
            (Kind::Anonymous, _) => Self::new(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, pages),
            (_, Some(object)) => Self::new(libc::MAP_SHARED, object.fd().as_raw_fd(), pages),
            (_, None) => {
                let zero = File::options().read(true).write(true).open("/dev/zero")?;
                Self::new(libc::MAP_SHARED, zero.as_raw_fd(), pages)
            }
        }
    }

    /// A private mapping of the object.
    pub(crate) fn private(object: &Object, pages: usize) -> io::Result<Self> {
        Self::new(libc::MAP_PRIVATE, object.fd().as_raw_fd(), pages)
    }

    fn new(flags: i32, fd: i32, pages: usize) -> io::Result<Self> {
        let length = pages * PAGE + HUGE;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let reserved = map(0, length, libc::PROT_NONE, reserve, -1)?;
        let addr = reserved.next_multiple_of(HUGE);
        let mapping = Self {
            addr,
            pages,
            reserved: (reserved, length),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        map(addr, pages * PAGE, access, flags | libc::MAP_FIXED, fd)?;
        Ok(mapping)
    }

    /// Maps the object, or new private memory, where this mapping is or was.
    pub(crate) fn map_over(&self, object: Option<&Object>) -> io::Result<()> {
        let (flags, fd) = match object {
            Some(object) => (libc::MAP_SHARED, object.fd().as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        map(self.addr, self.bytes(), access, flags | libc::MAP_FIXED, fd).map(drop)
    }

    pub(crate) fn addr(&self) -> usize {
        self.addr
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages * PAGE
    }

    /// Writes to one page.
    pub(crate) fn write(&self, page: usize) {
        debug_assert!(page < self.pages);
        let byte = ptr::with_exposed_provenance_mut::<u8>(self.addr + page * PAGE);
        // SAFETY: inside the mapping, which is writable, and nothing else refers to the byte.
        unsafe { byte.write_volatile(1) };
    }

    /// Reads one page.
    pub(crate) fn read(&self, page: usize) {
        debug_assert!(page < self.pages);
        let byte = ptr::with_exposed_provenance::<u8>(self.addr + page * PAGE);
        // SAFETY: inside the mapping, which is readable.
        unsafe { byte.read_volatile() };
    }

    /// Writes to each page.
    pub(crate) fn fill(&self) {
        (0..self.pages).for_each(|page| self.write(page));
    }

    /// Another mapping of the same memory, so that it outlives this one (mremap with an old size of 0).
    pub(crate) fn again(&self) -> io::Result<Self> {
        // SAFETY: it leaves the old mapping as it is, and the new one is where there is nothing.
        let addr = unsafe { libc::mremap(self.pointer(), 0, self.bytes(), libc::MREMAP_MAYMOVE) };
        let addr = address(addr)?;
        Ok(Self {
            addr,
            pages: self.pages,
            reserved: (addr, self.bytes()),
        })
    }

    /// madvise(2) of the whole.
    pub(crate) fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the mapping is ours, and nothing refers to its contents.
        check(unsafe { libc::madvise(self.pointer(), self.bytes(), advice) })
    }

    /// mprotect(2) of the whole.
    pub(crate) fn protect(&self, protection: i32) -> io::Result<()> {
        // SAFETY: as in `advise`.
        check(unsafe { libc::mprotect(self.pointer(), self.bytes(), protection) })
    }

    /// munmap(2) of the whole; what was reserved around it stays until `self` is dropped.
    pub(crate) fn unmap(&self) -> io::Result<()> {
        // SAFETY: as in `advise`.
        check(unsafe { libc::munmap(self.pointer(), self.bytes()) })
    }

    /// munmap(2) of `length` bytes at the offset `begin`.
    pub(crate) fn unmap_part(&self, begin: usize, length: usize) -> io::Result<()> {
        assert!(begin + length <= self.bytes(), "that is not ours");
        let addr = ptr::with_exposed_provenance_mut(self.addr + begin);
        // SAFETY: as in `advise`.
        check(unsafe { libc::munmap(addr, length) })
    }

    /// mremap(2) of the whole to `to`, which is ours as well.
    pub(crate) fn move_to(&self, to: &Self, page: usize) -> io::Result<()> {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let place = ptr::with_exposed_provenance_mut::<libc::c_void>(to.addr + page * PAGE);
        assert!(page + self.pages <= to.pages, "it would not fit");
        let bytes = self.bytes();
        // SAFETY: nothing refers to the contents of either.
        address(unsafe { libc::mremap(self.pointer(), bytes, bytes, flags, place) }).map(drop)
    }

    fn pointer(&self) -> *mut libc::c_void {
        ptr::with_exposed_provenance_mut(self.addr)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (addr, length) = self.reserved;
        // SAFETY: as in `advise`. It cannot fail for a range that was mapped once.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(addr), length) };
    }
}

fn map(addr: usize, length: usize, access: i32, flags: i32, fd: i32) -> io::Result<usize> {
    let addr = ptr::without_provenance_mut(addr);
    // SAFETY: MAP_FIXED is given only for a range that was reserved for it.
    address(unsafe { libc::mmap(addr, length, access, flags, fd, 0) })
}

fn address(addr: *mut libc::c_void) -> io::Result<usize> {
    if addr == libc::MAP_FAILED {
        Err(Errno::last().into())
    } else {
        Ok(addr.expose_provenance())
    }
}

fn check(result: i32) -> io::Result<()> {
    Errno::result(result)?;
    Ok(())
}
