// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! A thread that maps, touches, moves, forks, and does to objects what any process may do.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::uio::{pread, pwrite},
    unistd::pipe2,
};
use vmalab::{Device, HookSet, sys};

use super::*;

/// The step of a worker.
pub(super) fn steps<'a>(shared: &'a Shared<'_>, random: Random) -> Box<dyn FnMut() + Send + 'a> {
    let mut worker = Worker {
        shared,
        random,
        through: Pipe::new(),
        lent: Pipe::new(),
        lent_of: None,
    };
    Box::new(move || worker.step())
}

/// A pipe that nobody else uses, and that never blocks.
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Self {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        Self { reader, writer }
    }

    /// What is in it, up to the length of `bytes`.
    fn take(&self, bytes: &mut [u8]) -> usize {
        nix::unistd::read(&self.reader, bytes).unwrap_or(0)
    }

    /// Lets the kernel copy through it, by touching the memory as the processor would, but for the signal.
    fn copy(&self, address: usize, bytes: &mut [u8], write: bool) -> Result<(), Errno> {
        let length = bytes.len();
        if write {
            nix::unistd::write(&self.writer, bytes)?;
            let to = pointer(address).cast();
            // SAFETY: the kernel checks the address, which is of a place of the test.
            let done = unsafe { libc::read(self.reader.as_raw_fd(), to, length) };
            let done = Errno::result(done).map(drop);
            // What it could not copy is still in there.
            if done.is_err() {
                self.take(bytes);
            }
            done
        } else {
            let from = pointer(address).cast();
            // SAFETY: as above.
            let done = unsafe { libc::write(self.writer.as_raw_fd(), from, length) };
            Errno::result(done)?;
            self.take(bytes);
            Ok(())
        }
    }
}

/// Copies within this process by way of the kernel's access to others, which pins the pages, and answers
/// EFAULT where an access would be a signal.
fn copy(address: usize, bytes: &mut [u8], write: bool) -> Result<(), Errno> {
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: pointer(address).cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the buffer is as long as said; the other side is a mapping of a test, or nothing.
    let length = unsafe {
        if write {
            libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0)
        } else {
            libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0)
        }
    };
    Errno::result(length).map(drop)
}

/// There is no page, or it may not be written to.
extern "C" fn gone(_signal: i32) {
    // SAFETY: it may be called in a handler.
    unsafe { libc::_exit(0) };
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    random: Random,
    through: Pipe,
    /// Pages that a pipe holds (vmsplice).
    lent: Pipe,
    /// The object and the page that are in it.
    lent_of: Option<(usize, usize)>,
}

impl Worker<'_> {
    fn step(&mut self) {
        let (object, device) = self.shared.any(&mut self.random);
        let (from, pages) = self.random.range(object);
        let at = place(object) + from * PAGE;
        match self.random.below(27) {
            0..=2 => self.map(object, device, from, pages),
            3 => match map_anonymous(at, pages, libc::PROT_NONE, libc::MAP_FIXED) {
                Ok(_) | Err(REFUSED) => {}
                Err(errno) => panic!("mmap of nothing: {errno}"),
            },
            4 | 5 => self.unmap(object, from, pages),
            6..=8 => self.write(object, from, pages),
            9..=11 => self.read(object, from, pages),
            12 => {
                let prot = self.random.one_of(&[RW, RO, libc::PROT_NONE]);
                let _ = protect(at, pages, prot);
            }
            13 => {
                const ADVICE: &[i32] = &[
                    libc::MADV_DONTNEED,
                    libc::MADV_POPULATE_READ,
                    libc::MADV_POPULATE_WRITE,
                    libc::MADV_COLD,
                    libc::MADV_PAGEOUT,
                    libc::MADV_NORMAL,
                    libc::MADV_HUGEPAGE,
                    libc::MADV_NOHUGEPAGE,
                    libc::MADV_COLLAPSE,
                    MADV_GUARD_INSTALL,
                    MADV_GUARD_REMOVE,
                    MADV_GUARD_REMOVE,
                ];
                let _ = advise(at, pages, self.random.one_of(ADVICE));
            }
            14 => self.grow_or_shrink(object, at, from, pages),
            15 => self.remap(at, pages),
            16 => self.fork(object),
            17 => {
                let both = HookSet::PageMkwrite | HookSet::HugeFault;
                let hooks = [
                    HookSet::empty(),
                    HookSet::PageMkwrite,
                    HookSet::HugeFault,
                    both,
                ];
                device.set_hooks(self.random.one_of(&hooks)).unwrap();
            }
            18 => {
                // SAFETY: it changes no memory.
                unsafe { libc::mlock(pointer(at).cast(), pages * PAGE) };
                // SAFETY: nor does this.
                unsafe { libc::munlock(pointer(at).cast(), pages * PAGE) };
            }
            19 | 20 => device.punch_hole(self.bytes(from, pages)).unwrap(),
            21 => {
                let modes = [
                    sys::VMALAB_FALLOCATE_ALLOCATE,
                    sys::VMALAB_FALLOCATE_KEEP_SIZE,
                ];
                let bytes = (from * PAGE) as u64..((from + pages) * PAGE) as u64;
                device.fallocate(self.random.one_of(&modes), bytes).unwrap();
            }
            22 => self.by_descriptor(object, device, from),
            23 => self.lend(object, from),
            24 | 25 => self.sealed(),
            _ => {
                let whole = 0..(PAGES[object] * PAGE) as u64;
                if self.random.below(2) == 0 {
                    drop(device.take_written(whole).unwrap());
                } else {
                    drop(device.written(whole).unwrap());
                }
            }
        }
    }

    /// A range in bytes, that begins and ends within pages now and then.
    fn bytes(&mut self, from: usize, pages: usize) -> std::ops::Range<u64> {
        let inside = self.random.one_of(&[0, 0, 100]);
        (from * PAGE + inside) as u64..((from + pages) * PAGE - inside) as u64
    }

    fn map(&mut self, object: usize, device: &Device, mut from: usize, mut pages: usize) {
        // Now and then all of it, with room for huge pages.
        if self.random.below(4) == 0 {
            (from, pages) = (0, PAGES[object]);
        }
        let at = place(object) + from * PAGE;
        let kind = self.random.one_of(&KINDS);
        let prot = self.random.one_of(&[RW, RW, RO, libc::PROT_NONE]);
        let populate = self.random.one_of(&[0, 0, 0, libc::MAP_POPULATE]);
        let flags = kind | libc::MAP_FIXED | populate;
        match try_map(device, at, pages, prot, flags, from) {
            Ok(_) | Err(REFUSED) => {}
            Err(Errno::EINVAL) if object == FRAMES && kind == PRIVATE => {}
            Err(errno) => panic!("mmap of object {object}: {errno}"),
        }
    }

    /// Here, or where areas were moved to.
    fn unmap(&mut self, object: usize, from: usize, pages: usize) {
        let of = self.random.one_of(&[object, object, ELSEWHERE]);
        let (from, pages) = match self.random.below(8) {
            0 => (0, PAGES[object]),
            _ => (from, pages),
        };
        match try_unmap(place(of) + from * PAGE, pages * PAGE) {
            Ok(()) | Err(REFUSED) => {}
            Err(errno) => panic!("munmap: {errno}"),
        }
    }

    /// One of the ways to have the kernel touch memory.
    fn touch(&mut self, address: usize, bytes: &mut [u8], write: bool) -> Result<(), Errno> {
        match self.random.below(2) {
            0 => copy(address, bytes, write),
            _ => self.through.copy(address, bytes, write),
        }
    }

    fn write(&mut self, object: usize, from: usize, pages: usize) {
        for page in from..from + pages {
            let at = place(object) + page * PAGE + self.random.below(PAGE - 8);
            let _ = self.touch(at, &mut [value(object, page); 8], true);
        }
    }

    fn read(&mut self, object: usize, from: usize, pages: usize) {
        let mut bytes = [0; PAGE];
        for page in from..from + pages {
            let at = place(object) + page * PAGE;
            if self.touch(at, &mut bytes, false).is_ok() {
                check(object, page, &bytes);
            }
        }
    }

    fn grow_or_shrink(&mut self, object: usize, at: usize, from: usize, pages: usize) {
        let new = 1 + self.random.below((PAGES[object] - from).min(2 * pages));
        let _ = remap(at, pages, new, 0, 0);
    }

    /// Moves some pages away, leaving nothing behind, the old area, or all of it.
    fn remap(&mut self, at: usize, pages: usize) {
        let to = place(ELSEWHERE) + self.random.below(PAGES[0]) * PAGE;
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let _ = match self.random.below(3) {
            0 => remap(at, pages, pages, fixed | libc::MREMAP_DONTUNMAP, to),
            _ => remap(at, pages, pages + self.random.below(2), fixed, to),
        };
    }

    /// A child touches what it got, unmaps some of it, and is gone, before the end if a page is not there.
    fn fork(&mut self, object: usize) {
        let (from, pages) = self.random.range(object);
        let (address, own) = (place(object) + from * PAGE, value(object, from));
        // SAFETY: the child makes system calls only, and uses nothing but its stack and what is mapped at the
        // place, where an access without memory ends it.
        unsafe {
            match Errno::result(libc::syscall(libc::SYS_fork)) {
                Ok(0) => {
                    for signal in [libc::SIGSEGV, libc::SIGBUS] {
                        libc::signal(signal, gone as *const () as usize);
                    }
                    for page in from..from + pages {
                        let at = place(object) + page * PAGE;
                        let _ = copy(at, &mut [value(object, page)], page % 2 == 0);
                    }
                    libc::munmap(pointer(address + PAGE).cast(), pages * PAGE);
                    let byte = pointer(address).read_volatile();
                    pointer(address).write_volatile(own);
                    libc::_exit(i32::from(![0, own].contains(&byte)));
                }
                Ok(child) => {
                    let mut status = 0;
                    let nowhere = std::ptr::null_mut();
                    while libc::wait4(child as i32, &mut status, 0, nowhere) == -1 {}
                    assert_eq!(
                        status, 0,
                        "object {object}, page {from}, in a child: a byte that is neither 0 nor {own}"
                    );
                }
                Err(errno) => panic!("fork: {errno}"),
            }
        }
    }

    fn by_descriptor(&mut self, object: usize, device: &Device, page: usize) {
        let mut bytes = [value(object, page); PAGE];
        let at = (page * PAGE) as i64;
        // Past the end there is nothing.
        match self.random.below(2) {
            0 => match pwrite(device, &bytes, at) {
                Ok(PAGE) | Err(Errno::ENOSPC) => {}
                other => panic!("write to object {object}: {other:?}"),
            },
            _ => match pread(device, &mut bytes, at) {
                Ok(length @ (0 | PAGE)) => check(object, page, &bytes[..length]),
                other => panic!("read of object {object}: {other:?}"),
            },
        }
    }

    /// Takes back the page that was lent, and lends another.
    fn lend(&mut self, object: usize, page: usize) {
        if let Some((object, page)) = self.lent_of.take() {
            let mut bytes = [0; PAGE];
            let length = self.lent.take(&mut bytes);
            check(object, page, &bytes[..length]);
            return;
        }
        let iov = libc::iovec {
            iov_base: pointer(place(object) + page * PAGE).cast(),
            iov_len: PAGE,
        };
        let flags = libc::SPLICE_F_NONBLOCK;
        // SAFETY: the kernel checks the address, and nobody changes what a private page shows but for its value.
        let lent = unsafe { libc::vmsplice(self.lent.writer.as_raw_fd(), &iov, 1, flags) };
        if lent > 0 {
            self.lent_of = Some((object, page));
        }
    }

    /// Whatever may be done to the object that is about to be sealed.
    fn sealed(&mut self) {
        let device = self.shared.sealed.read().unwrap();
        let page = self.random.below(SEALED_PAGES);
        let at = place(SEALED) + page * PAGE;
        let offset = (page * PAGE) as i64;
        let own = [value(SEALED, page); 64];
        let refused = match self.random.below(6) {
            0 => {
                let flags = self.random.one_of(&KINDS) | libc::MAP_FIXED;
                try_map(&*device, at, 1, RW, flags, page).map(drop)
            }
            1 => try_unmap(place(SEALED), SEALED_PAGES * PAGE),
            2 => pwrite(&*device, &own, offset).map(drop),
            3 => device
                .punch_hole(offset as u64..(offset + 64) as u64)
                .map_err(|error| Errno::from_raw(error.errno())),
            4 => device
                .allocate(offset as u64..(offset + 64) as u64)
                .map_err(|error| Errno::from_raw(error.errno())),
            _ => {
                let _ = copy(at, &mut own.clone(), true);
                Ok(())
            }
        };
        assert!(
            matches!(refused, Ok(()) | Err(Errno::EPERM)),
            "sealing meanwhile: {refused:?}"
        );
    }
}
