// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Raw mappings, and looking at them without dying.
//!
//! Tests speak of pages: an address here is a number, and the safe wrappers below let the kernel do
//! the access (through a pipe or from a file), which answers EFAULT where the process would die.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use nix::{errno::Errno, unistd::pipe};

use crate::run::child_status;

/// x86-64 has this page size only.
pub(crate) const PAGE: usize = 4096;

pub(crate) const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub(crate) const RO: i32 = libc::PROT_READ;
pub(crate) const SHARED: i32 = libc::MAP_SHARED;
pub(crate) const PRIVATE: i32 = libc::MAP_PRIVATE;

/// Nothing is mapped there, as in asm-generic/siginfo.h; libc has no names for these.
pub(crate) const SEGV_MAPERR: i32 = 1;
/// The protection forbids it.
pub(crate) const SEGV_ACCERR: i32 = 2;
/// There is no memory behind the address.
pub(crate) const BUS_ADRERR: i32 = 2;
/// The memory has failed.
pub(crate) const BUS_MCEERR_AR: i32 = 4;

/// Both kinds of mapping.
pub(crate) const KINDS: [i32; 2] = [SHARED, PRIVATE];

/// The answer of a call that gives an address.
fn addr_or_errno(addr: *mut libc::c_void) -> Result<usize, Errno> {
    if addr == libc::MAP_FAILED {
        Err(Errno::last())
    } else {
        Ok(addr.expose_provenance())
    }
}

/// mmap(2) of `pages` pages from page `from` on, read-write, anywhere.
pub(crate) fn map(fd: impl AsFd, kind: i32, from: usize, pages: usize) -> usize {
    try_map(fd, 0, pages, RW, kind, from).unwrap()
}

/// mmap(2), in pages.
pub(crate) fn try_map(
    fd: impl AsFd,
    addr: usize,
    pages: usize,
    prot: i32,
    flags: i32,
    from: usize,
) -> Result<usize, Errno> {
    let fd = fd.as_fd().as_raw_fd();
    let addr = std::ptr::without_provenance_mut(addr);
    // SAFETY: a test gives MAP_FIXED only over ranges that it mapped itself.
    addr_or_errno(unsafe { libc::mmap(addr, pages * PAGE, prot, flags, fd, (from * PAGE) as i64) })
}

/// mmap(2) of anonymous memory, in pages.
pub(crate) fn map_anonymous(
    addr: usize,
    pages: usize,
    prot: i32,
    flags: i32,
) -> Result<usize, Errno> {
    let addr = std::ptr::without_provenance_mut(addr);
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: as in `try_map`.
    addr_or_errno(unsafe { libc::mmap(addr, pages * PAGE, prot, flags, -1, 0) })
}

/// munmap(2), in pages.
#[track_caller]
pub(crate) fn unmap(addr: usize, pages: usize) {
    try_unmap(addr, pages * PAGE).unwrap();
}

/// munmap(2), in bytes.
pub(crate) fn try_unmap(addr: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: a test unmaps only what it mapped itself.
    Errno::result(unsafe { libc::munmap(pointer(addr).cast(), length) }).map(drop)
}

/// mprotect(2), in pages.
#[track_caller]
pub(crate) fn protect(addr: usize, pages: usize, prot: i32) -> Result<(), Errno> {
    // SAFETY: as in `try_unmap`.
    Errno::result(unsafe { libc::mprotect(pointer(addr).cast(), pages * PAGE, prot) }).map(drop)
}

/// mremap(2), in pages; `to` is for MREMAP_FIXED.
pub(crate) fn remap(
    addr: usize,
    old_pages: usize,
    new_pages: usize,
    flags: i32,
    to: usize,
) -> Result<usize, Errno> {
    let (old, new) = (old_pages * PAGE, new_pages * PAGE);
    // SAFETY: as in `try_map`.
    addr_or_errno(unsafe { libc::mremap(pointer(addr).cast(), old, new, flags, pointer(to)) })
}

/// madvise(2), in pages.
pub(crate) fn advise(addr: usize, pages: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: as in `try_unmap`.
    Errno::result(unsafe { libc::madvise(pointer(addr).cast(), pages * PAGE, advice) }).map(drop)
}

/// As in asm-generic/mman-common.h, since 6.13; libc has no names for these.
pub(crate) const MADV_GUARD_INSTALL: i32 = 102;
pub(crate) const MADV_GUARD_REMOVE: i32 = 103;

/// mseal(2), in pages: what is sealed stays until the process ends.
pub(crate) fn mseal(addr: usize, pages: usize) -> Result<(), Errno> {
    // The number is that of asm/unistd_64.h since 6.10; libc has no name for it yet.
    const SYS_MSEAL: i64 = 462;
    // SAFETY: it changes no memory.
    Errno::result(unsafe { libc::syscall(SYS_MSEAL, addr, pages * PAGE, 0) }).map(drop)
}

/// A pipe that holds a page of a mapping (vmsplice), until it is read or closed.
pub(crate) fn lend(addr: usize) -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    let part = libc::iovec {
        iov_base: pointer(addr).cast(),
        iov_len: PAGE,
    };
    // SAFETY: the pipe takes a reference to the page; others may write to it, as they may to all of a mapping.
    let lent = unsafe { libc::vmsplice(writer.as_raw_fd(), &part, 1, 0) };
    assert_eq!(Errno::result(lent), Ok(PAGE as isize));
    (reader, writer)
}

/// As in linux/mempolicy.h.
pub(crate) const MPOL_BIND: i32 = 2;

/// mbind(2) to one node, in pages: ENOSYS if the kernel has no NUMA.
pub(crate) fn bind(addr: usize, pages: usize, node: u32) -> Result<(), Errno> {
    let nodes = 1_u64 << node;
    let (length, nodes) = (pages * PAGE, &raw const nodes);
    // SAFETY: it reads one word, and changes no contents.
    let done = unsafe { libc::syscall(libc::SYS_mbind, addr, length, MPOL_BIND, nodes, 64, 0) };
    Errno::result(done).map(drop)
}

/// An io_uring, for buffers of it: pages that the kernel holds on to for writing (`FOLL_PIN`).
pub(crate) struct Ring(OwnedFd);

impl Ring {
    pub(crate) fn new() -> Result<Self, Errno> {
        // struct io_uring_params, of which all may be zero.
        let mut parameters = [0_u32; 30];
        // SAFETY: the structure is as long as that, and is written to; the descriptor is a new one.
        unsafe {
            let ring = libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr());
            Ok(Self(OwnedFd::from_raw_fd(Errno::result(ring)? as i32)))
        }
    }

    /// Takes the pages, which must be none of a buffer yet.
    pub(crate) fn register(&self, addr: usize, pages: usize) -> Result<(), Errno> {
        const IORING_REGISTER_BUFFERS: u32 = 0;
        let part = libc::iovec {
            iov_base: pointer(addr).cast(),
            iov_len: pages * PAGE,
        };
        self.ask(IORING_REGISTER_BUFFERS, &raw const part, 1)
    }

    /// Gives them back.
    pub(crate) fn unregister(&self) -> Result<(), Errno> {
        const IORING_UNREGISTER_BUFFERS: u32 = 1;
        self.ask(IORING_UNREGISTER_BUFFERS, std::ptr::null(), 0)
    }

    fn ask(&self, what: u32, parts: *const libc::iovec, count: u32) -> Result<(), Errno> {
        let ring = self.0.as_raw_fd();
        // SAFETY: the kernel checks the addresses, and nothing is read into the buffers.
        let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, what, parts, count) };
        Errno::result(done).map(drop)
    }
}

pub(crate) fn pointer(addr: usize) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(addr)
}

/// Fills the pages with letters, the first with `first`, the next with the one after it.
#[track_caller]
pub(crate) fn letters(addr: usize, pages: usize, first: char) {
    for page in 0..pages {
        let letter = first as u8 + page as u8;
        write_from_kernel(addr + page * PAGE, &[letter; PAGE]).unwrap();
    }
}

/// Lets the kernel write to memory, as read(2) of a pipe.
pub(crate) fn write_from_kernel(addr: usize, bytes: &[u8]) -> Result<(), Errno> {
    assert!(bytes.len() <= PAGE, "more than a pipe surely takes");
    let (reader, writer) = pipe()?;
    nix::unistd::write(&writer, bytes)?;
    // SAFETY: the kernel checks the address, which is of a test's own mapping.
    let got = unsafe { libc::read(reader.as_raw_fd(), pointer(addr).cast(), bytes.len()) };
    match Errno::result(got)? {
        length if length as usize == bytes.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Lets the kernel read memory, as write(2) into a pipe.
pub(crate) fn read_by_kernel(addr: usize, length: usize) -> Result<Vec<u8>, Errno> {
    assert!(length <= PAGE, "more than a pipe surely takes");
    let (reader, writer) = pipe()?;
    // SAFETY: the kernel checks the address.
    Errno::result(unsafe { libc::write(writer.as_raw_fd(), pointer(addr).cast(), length) })?;
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader)
        .read_to_end(&mut bytes)
        .map_err(|_| Errno::EIO)?;
    Ok(bytes)
}

/// A letter for each page: the one that fills it, `0` for zeros, `?` if it is torn, `.` if nothing
/// is mapped, `!` if something is, but cannot be read.
pub(crate) fn look(addr: usize, pages: usize) -> String {
    (0..pages).map(|page| look_at(addr + page * PAGE)).collect()
}

fn look_at(addr: usize) -> char {
    match read_by_kernel(addr, PAGE) {
        Ok(bytes) if bytes.len() < PAGE || bytes.iter().any(|byte| *byte != bytes[0]) => '?',
        Ok(bytes) if bytes[0] == 0 => '0',
        Ok(bytes) => bytes[0].into(),
        Err(_) => {
            // SAFETY: it does nothing but answer ENOMEM if there is no area.
            let mapped = unsafe { libc::msync(pointer(addr).cast(), PAGE, libc::MS_ASYNC) } == 0;
            if mapped { '!' } else { '.' }
        }
    }
}

/// The areas of /proc/self/maps that overlap a range: begin and end in pages from `addr`, and what
/// page of the object is at the begin.
pub(crate) fn layout(addr: usize, pages: usize) -> Vec<(usize, usize, usize)> {
    let end = addr + pages * PAGE;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let area = |line: &str| {
        let mut fields = line.split_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let (from, to) = (number(from), number(to));
        let offset = number(fields.nth(1)?);
        (from < end && to > addr).then(|| {
            (
                (from.max(addr) - addr) / PAGE,
                (to.min(end) - addr) / PAGE,
                offset / PAGE,
            )
        })
    };
    maps.lines().filter_map(area).collect()
}

/// A number of kB from /proc/self/status or /proc/meminfo.
pub(crate) fn kilobytes(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(key))
        .unwrap_or_else(|| {
            panic!("no {key} in {file}");
        });
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// An access of the processor's own.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Read,
    Write,
}

/// How an access ends, tried in a child: `None` if well, else the signal, its code, and whether the
/// address that it tells is the right one.
pub(crate) fn fault(addr: usize, access: Access) -> Option<(i32, i32, bool)> {
    let (reader, writer) = pipe().unwrap();
    let status = child_status(|| {
        // SAFETY: the handler only calls write and _exit, which may be called in one.
        unsafe {
            FAULT_FD = writer.as_raw_fd();
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = report_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            for signal in [libc::SIGBUS, libc::SIGSEGV] {
                assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
            }
            match access {
                Access::Read => drop(pointer(addr).read_volatile()),
                Access::Write => pointer(addr).write_volatile(0),
            }
        }
    });
    assert!(
        matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
        "{status:?}"
    );
    drop(writer);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).unwrap();
    let mut words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    let (signal, code, told) = (words.next()?, words.next()?, words.next()?);
    Some((signal as i32, code as i32, told as usize == addr))
}

static mut FAULT_FD: i32 = -1;

extern "C" fn report_fault(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a siginfo_t of a fault; FAULT_FD was set before the handler was, and
    // write and _exit may be called in a handler.
    unsafe {
        let words = [
            signal as u64,
            (*info).si_code as u64,
            (*info).si_addr().addr() as u64,
        ];
        libc::write(FAULT_FD, words.as_ptr().cast(), size_of_val(&words));
        libc::_exit(0);
    }
}
