// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The calls on an object as a fresh one is: pages by pages, without rules, and nobody watches.

use std::{
    cell::OnceCell,
    ffi::CStr,
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::errno::Errno;
use vmalab::{Hook, HookSet, sys};

use super::*;
use crate::ioctl::{OF_A_WATCH, REQUESTS, size_in};

pub(super) fn opening() -> Vec<Call> {
    let mut calls = vec![
        call("open", |_| open(sys::VMALAB_PATH).map(drop)),
        call("open of the other node", |_| {
            open(sys::VMALAB_PREPARE_PATH).map(drop)
        }),
    ];
    for (kind, name) in [(SHARED, "shared"), (PRIVATE, "private")] {
        let fixed = kind | libc::MAP_FIXED;
        calls.extend([
            call(format!("mmap {name}"), move |stage| {
                try_map(&stage.device, stage.place, PAGES, RW, fixed, 0).map(drop)
            }),
            call(format!("mmap {name}, populated"), move |stage| {
                let flags = fixed | libc::MAP_POPULATE;
                try_map(&stage.device, stage.place, PAGES, RW, flags, 0).map(drop)
            }),
            call(format!("mmap {name} over the middle"), move |stage| {
                try_map(&stage.device, stage.shared + 4 * PAGE, 4, RW, fixed, 2).map(drop)
            }),
            call(
                format!("mmap {name} that makes an area longer"),
                move |stage| {
                    let end =
                        [stage.shared, stage.private][usize::from(kind == PRIVATE)] + PAGES * PAGE;
                    try_map(&stage.device, end, 4, RW, fixed, PAGES).map(drop)
                },
            )
            .may_need_none(),
        ]);
    }
    calls.push(call("mmap of nothing over the middle", |stage| {
        map_anonymous(stage.shared + 4 * PAGE, 4, RW, libc::MAP_FIXED).map(drop)
    }));
    calls
}

/// What mmap says when a hook forbids it.
pub(super) fn refusing() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, name) in [(SHARED, "shared"), (PRIVATE, "private")] {
        let map = move |stage: &Stage| {
            let fixed = kind | libc::MAP_FIXED;
            try_map(&stage.device, stage.shared + 4 * PAGE, 4, RW, fixed, 2).map(drop)
        };
        calls.push(call(format!("mmap {name}"), map));
        // The second one is asked on one of the nodes only, when there is an area already.
        for hook in [Hook::Mmap, Hook::Mapped] {
            let name = format!("mmap {name} that {} forbids", hook.name());
            calls.push(call(name, move |stage| {
                let mut rule = sys::vmalab_rule {
                    hook: hook as u32,
                    answer: sys::VMALAB_ANSWER_ERRNO,
                    error: libc::EXDEV as u32,
                    nth: 1,
                    times: 1,
                    ..Default::default()
                };
                errno(stage.device.add_rule(&mut rule).map(drop))?;
                map(stage)
            }));
        }
    }
    calls
}

/// What the library says, as the kernel said it.
pub(super) fn errno(done: Result<(), vmalab::Error>) -> Result<(), Errno> {
    done.map_err(|error| Errno::from_raw(error.errno()))
}

/// The node, without memory of this process.
pub(super) fn open(node: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the path is a string, and the descriptor nobody else's.
    unsafe {
        let fd = Errno::result(libc::open(node.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

pub(super) fn faulting() -> Vec<Call> {
    const READ: i32 = libc::MADV_POPULATE_READ;
    const WRITE: i32 = libc::MADV_POPULATE_WRITE;
    vec![
        call("read a page that is there", |s| advise(s.shared, 1, READ)).may_need_none(),
        call("read new pages", |s| advise(s.shared + 10 * PAGE, 4, READ)),
        call("write new pages", |s| {
            advise(s.shared + 10 * PAGE, 4, WRITE)
        }),
        call("read private pages", |s| advise(s.private, PAGES, READ)),
        call("copy a page on write", |s| {
            advise(s.private + 6 * PAGE, 1, WRITE)
        }),
        call("copy new pages on write", |s| {
            advise(s.private + 12 * PAGE, 2, WRITE)
        }),
        call("the first write to pages that are tracked", |s| {
            errno(s.device.set_hooks(HookSet::PageMkwrite))?;
            try_map(&s.device, s.place, PAGES, RW, SHARED | libc::MAP_FIXED, 0)?;
            advise(s.place, PAGES, WRITE)
        }),
        // By the processor itself: without memory, it tries again.
        call("the processor reads", |s| {
            // SAFETY: the stage maps these pages.
            unsafe { pointer(s.shared + 10 * PAGE).read_volatile() };
            Ok(())
        }),
        call("the processor writes", |s| {
            // SAFETY: the stage maps these pages.
            unsafe { pointer(s.shared + 11 * PAGE).write_volatile(1) };
            Ok(())
        }),
        call("the processor writes to private memory", |s| {
            // SAFETY: the stage maps these pages.
            unsafe { pointer(s.private + 7 * PAGE).write_volatile(1) };
            Ok(())
        }),
    ]
}

pub(super) fn moving() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, of) in [("shared", 0), ("private", 1)] {
        let at = move |stage: &Stage| [stage.shared, stage.private][of];
        let mut add = |name: &str, body: fn(&Stage, usize) -> Result<(), Errno>| {
            let call = call(format!("{name}, {kind}"), move |stage| {
                body(stage, at(stage))
            });
            calls.push(match name {
                "munmap" | "mremap to more" => call.may_need_none(),
                _ => call,
            });
        };
        add("munmap", |_, at| try_unmap(at, PAGES * PAGE));
        add("munmap of the head", |_, at| try_unmap(at, 2 * PAGE));
        add("munmap of the tail", |_, at| {
            try_unmap(at + 10 * PAGE, 6 * PAGE)
        });
        add("munmap of the middle", |_, at| {
            try_unmap(at + 4 * PAGE, 4 * PAGE)
        });
        add("mremap to more", |_, at| {
            remap(at, PAGES, ROOM, 0, 0).map(drop)
        });
        add("mremap to less", |_, at| {
            remap(at, PAGES, 4, 0, 0).map(drop)
        });
        add("mremap to elsewhere", |stage, at| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            remap(at, PAGES, PAGES, flags, stage.place).map(drop)
        });
        add("mremap of the middle to elsewhere, longer", |stage, at| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            remap(at + 4 * PAGE, 4, 8, flags, stage.place).map(drop)
        });
        add("mremap that leaves the old area", |stage, at| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
            remap(at, PAGES, PAGES, flags, stage.place).map(drop)
        });
    }
    calls.push(call("munmap across both", |stage| {
        try_unmap(stage.shared + 4 * PAGE, (ROOM + 4) * PAGE)
    }));
    calls
}

pub(super) fn changing() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, of) in [("shared", 0), ("private", 1)] {
        let at = move |stage: &Stage| [stage.shared, stage.private][of];
        let mut add = |name: &str, body: fn(usize) -> Result<(), Errno>| {
            let call = call(format!("{name}, {kind}"), move |stage| body(at(stage)));
            calls.push(match name {
                "mseal of the middle" => call.for_good(),
                "mprotect"
                | "msync"
                | "MADV_DONTNEED in the middle"
                | "MADV_COLD"
                | "MADV_PAGEOUT" => call.may_need_none(),
                _ => call,
            });
        };
        add("mprotect", |at| protect(at, PAGES, RO));
        add("mprotect of the middle", |at| protect(at + 4 * PAGE, 4, RO));
        add("mseal of the middle", |at| mseal(at + 4 * PAGE, 4));
        add("mlock of the middle", |at| {
            // SAFETY: it changes no memory.
            Errno::result(unsafe { libc::mlock(pointer(at + 4 * PAGE).cast(), 8 * PAGE) }).map(drop)
        });
        add("msync", |at| {
            // SAFETY: it changes no memory.
            Errno::result(unsafe { libc::msync(pointer(at).cast(), PAGES * PAGE, libc::MS_SYNC) })
                .map(drop)
        });
        add("MADV_DONTNEED in the middle", |at| {
            advise(at + 4 * PAGE, 4, libc::MADV_DONTNEED)
        });
        add("MADV_DONTFORK in the middle", |at| {
            advise(at + 4 * PAGE, 4, libc::MADV_DONTFORK)
        });
        add("MADV_COLD", |at| advise(at, PAGES, libc::MADV_COLD));
        add("MADV_PAGEOUT", |at| advise(at, PAGES, libc::MADV_PAGEOUT));
    }
    calls
}

pub(super) fn forking() -> Vec<Call> {
    let fork = || {
        // SAFETY: the child ends at once; nobody else waits for it.
        unsafe {
            let child = Errno::result(libc::syscall(libc::SYS_fork))?;
            if child == 0 {
                libc::_exit(0);
            }
            loop {
                let done = libc::wait4(child as i32, std::ptr::null_mut(), 0, std::ptr::null_mut());
                if Errno::result(done).map(i64::from) == Ok(child) {
                    return Ok(());
                }
            }
        }
    };
    vec![call("fork with areas in several parts", move |stage| {
        for page in [1, 5] {
            protect(stage.shared + page * PAGE, 1, RO)?;
            protect(stage.private + page * PAGE, 1, RO)?;
        }
        fork()
    })]
}

pub(super) fn asking() -> Vec<Call> {
    let zeros = |(name, request): &(&'static str, u32)| {
        let (request, size) = (*request, size_in(*request));
        assert!(size < ARGUMENT * PAGE);
        let zeros = call(format!("{name} with zeros"), move |stage| {
            if !OF_A_WATCH.contains(&request) {
                return stage.ioctl(request);
            }
            let watch = stage.watch()?;
            // SAFETY: nobody else looks at the argument, which is larger than the structure.
            let answer = unsafe { libc::ioctl(watch.as_raw_fd(), request.into(), stage.argument) };
            Errno::result(answer).map(drop)
        });
        Call {
            leaves: false,
            ..zeros
        }
    };
    let mut calls: Vec<_> = REQUESTS.iter().map(zeros).collect();
    calls.push(call("VMALAB_IOC_AREAS of all", |stage| {
        let areas = sys::vmalab_areas {
            end: u64::MAX,
            areas: (stage.argument + PAGE) as u64,
            capacity: 1 << 8,
            area_size: size_of::<sys::vmalab_area>() as u32,
            ..Default::default()
        };
        stage.ask(sys::VMALAB_IOC_AREAS, areas)
    }));
    for (name, page, pages) in [("the middle", 4, 4), ("both", 4, ROOM + 4)] {
        let name = format!("VMALAB_IOC_WOULD_UNMAP of {name}");
        calls.push(call(name, move |stage| {
            let unmap = sys::vmalab_unmapping {
                addr: (stage.shared + page * PAGE) as u64,
                len: (pages * PAGE) as u64,
                max_map_count: 65530,
                steps: (stage.argument + PAGE) as u64,
                capacity: 1 << 8,
                step_size: size_of::<sys::vmalab_step>() as u32,
                ..Default::default()
            };
            stage.ask(sys::VMALAB_IOC_WOULD_UNMAP, unmap)
        }));
    }
    for (name, mode, page, pages) in [
        ("new pages", sys::VMALAB_FALLOCATE_KEEP_SIZE, 10, 4),
        ("pages past the end", sys::VMALAB_FALLOCATE_ALLOCATE, 12, 8),
        ("a hole", sys::VMALAB_FALLOCATE_PUNCH_HOLE, 5, 2),
    ] {
        let name = format!("VMALAB_IOC_FALLOCATE of {name}");
        calls.push(call(name, move |stage| {
            let range = sys::vmalab_fallocate {
                offset: (page * PAGE - 100) as u64,
                length: (pages * PAGE + 200) as u64,
                mode,
                ..Default::default()
            };
            stage.ask(sys::VMALAB_IOC_FALLOCATE, range)
        }));
    }
    calls.push(call("VMALAB_IOC_WATCH", |stage| {
        stage.ask(sys::VMALAB_IOC_WATCH, WATCH)
    }));
    calls.push(call(
        "VMALAB_IOC_ADD_RULE, GET_RULE, CLEAR_RULES",
        |stage| {
            let rule = sys::vmalab_rule {
                hook: Hook::Fault as u32,
                answer: sys::VMALAB_ANSWER_SIGBUS,
                nth: 1000,
                times: 1,
                ..Default::default()
            };
            stage.ask(sys::VMALAB_IOC_ADD_RULE, rule)?;
            // Its number is in the structure.
            stage.ioctl(sys::VMALAB_IOC_GET_RULE)?;
            stage.ioctl(sys::VMALAB_IOC_CLEAR_RULES)
        },
    ));
    calls.push(call("the ring of a watch", |stage| {
        let watch = stage.watch()?;
        // SAFETY: what is mapped over the place is gone with the stage.
        unsafe {
            try_map(&watch, stage.place, 1, RW, SHARED | libc::MAP_FIXED, 0)?;
            try_map(
                &watch,
                stage.place + PAGE,
                2,
                RO,
                SHARED | libc::MAP_FIXED,
                1,
            )?;
            advise(stage.place, 1, libc::MADV_POPULATE_WRITE)?;
            advise(stage.place + PAGE, 2, libc::MADV_POPULATE_READ)?;
            advise(stage.shared + 10 * PAGE, 2, libc::MADV_POPULATE_WRITE)?;
            let to = pointer(stage.argument).cast();
            Errno::result(libc::read(watch.as_raw_fd(), to, PAGE)).map(drop)
        }
    }));
    calls.push(call("VMALAB_IOC_WRITTEN", take_written));
    calls.push(call("VMALAB_IOC_ADD_SEALS", |stage| {
        let seals = sys::VMALAB_SEAL_GROW | sys::VMALAB_SEAL_SHRINK;
        stage.ask(
            sys::VMALAB_IOC_ADD_SEALS,
            sys::vmalab_seals { seals, reserved: 0 },
        )
    }));
    calls.push(call("VMALAB_IOC_ADD_SEALS against writing", |stage| {
        let object = open(sys::VMALAB_PATH)?;
        let to = pointer(stage.argument + PAGE).cast();
        // SAFETY: the buffer is that long; the structure fits to the request.
        unsafe {
            Errno::result(libc::pwrite(object.as_raw_fd(), to, PAGE, 0))?;
            let mut seals = sys::vmalab_seals {
                seals: sys::VMALAB_SEAL_WRITE,
                reserved: 0,
            };
            let request = sys::VMALAB_IOC_ADD_SEALS.into();
            Errno::result(libc::ioctl(object.as_raw_fd(), request, &mut seals)).map(drop)
        }
    }));
    calls.push(call("VMALAB_IOC_SET_NAME and OPEN_NAME", |stage| {
        let mut name = sys::vmalab_name {
            mode: 0o600,
            ..Default::default()
        };
        name.name[0] = b'x';
        stage.ask(sys::VMALAB_IOC_SET_NAME, name)?;
        (name.mode, name.flags) = (0, libc::O_RDWR as u32);
        stage.ask(sys::VMALAB_IOC_OPEN_NAME, name)
    }));
    for pages in [4, PAGES + 1, 1 << 20] {
        calls.push(call(
            format!("VMALAB_IOC_SET_SIZE to {pages} pages"),
            move |stage| errno(stage.device.set_size((pages * PAGE) as u64)),
        ));
    }
    calls
}

/// A file that is read to its end.
fn read_all(path: &std::ffi::CStr) -> Result<(), Errno> {
    let mut bytes = [0_u8; 4096];
    // SAFETY: the path is a string, the descriptor nobody else's, and the buffer as long as said.
    unsafe {
        let fd = Errno::result(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
        let answer = loop {
            let length = Errno::result(libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()));
            if !matches!(length, Ok(1..)) {
                break length.map(drop);
            }
        };
        Errno::result(libc::close(fd))?;
        answer
    }
}

pub(super) fn reading() -> Vec<Call> {
    let buffer = |stage: &Stage| pointer(stage.argument).cast::<libc::c_void>();
    let mut calls = vec![
        call("read", move |stage| {
            // SAFETY: the buffer is that long.
            let done = unsafe { libc::pread(stage.device.as_raw_fd(), buffer(stage), 4 * PAGE, 0) };
            Errno::result(done).map(drop)
        }),
        call("write to new pages", move |stage| {
            let (fd, at) = (stage.device.as_raw_fd(), (FILLED * PAGE) as i64);
            // SAFETY: the buffer is that long.
            Errno::result(unsafe { libc::pwrite(fd, buffer(stage), 4 * PAGE, at) }).map(drop)
        }),
        call("/proc/self/maps", |_| read_all(c"/proc/self/maps")),
        call("/proc/self/smaps", |_| read_all(c"/proc/self/smaps")),
        call("/proc/self/numa_maps", |_| {
            read_all(c"/proc/self/numa_maps")
        }),
        call("fdinfo", |stage| {
            use std::io::Write;
            let mut path = [0_u8; 40];
            let fd = stage.device.as_raw_fd();
            write!(&mut path[..], "/proc/self/fdinfo/{fd}").expect("it is short");
            read_all(std::ffi::CStr::from_bytes_until_nul(&path).expect("it ends"))
        }),
    ];
    // Whatever files there are.
    for entry in fs::read_dir("/sys/kernel/debug/vmalab")
        .into_iter()
        .flatten()
    {
        let path = entry.expect("an entry").path();
        let name = format!("{}", path.display());
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        calls.push(call(name, move |_| read_all(&path)));
    }
    calls
}

/// As in linux/mempolicy.h; libc has no name for it.
const MPOL_MF_MOVE: u32 = 2;

/// What lends pages, passes them on, or waits for what happens to them.
pub(super) fn lending() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, of) in [("shared", 0), ("private", 1)] {
        let new = move |stage: &Stage| [stage.shared, stage.private][of] + 10 * PAGE;
        for (how, write) in [("process_vm_readv", false), ("process_vm_writev", true)] {
            let name = format!("{how}, {kind}");
            calls.push(call(name, move |stage| {
                by_process_vm(stage, new(stage), write)
            }));
        }
        calls.push(call(format!("vmsplice, {kind}"), move |stage| {
            let iov = iovec(new(stage), 2);
            // SAFETY: the stage maps the pages, and nobody minds what they show.
            let lent = unsafe { libc::vmsplice(stage.pipe.1.as_raw_fd(), &iov, 1, 0) };
            Errno::result(lent).map(drop)
        }));
        calls.push(call(
            format!("read(2) of zeros into it, {kind}"),
            move |stage| {
                let to = pointer(new(stage)).cast();
                // SAFETY: the stage maps the pages.
                let done = unsafe { libc::read(stage.zeros.as_raw_fd(), to, 2 * PAGE) };
                Errno::result(done).map(drop)
            },
        ));
        // The file comes with the first attempt, in which nothing fails, and so does the ring.
        for (way, write) in [("into", false), ("out of", true)] {
            let file = OnceCell::new();
            let name = format!("direct I/O {way} it, {kind}");
            calls.push(call(name, move |stage| {
                let file = file.get_or_init(direct).as_ref().map_err(|errno| *errno)?;
                let (file, at) = (file.as_raw_fd(), pointer(new(stage)).cast());
                // SAFETY: the stage maps the pages.
                Errno::result(unsafe {
                    match write {
                        true => libc::pwrite(file, at, 2 * PAGE, 0),
                        false => libc::pread(file, at, 2 * PAGE, 0),
                    }
                })
                .map(drop)
            }));
        }
        // Its pages are pinned, which a tmpfs does without.
        let ring = OnceCell::new();
        calls.push(call(format!("buffers of io_uring, {kind}"), move |stage| {
            let ring = ring
                .get_or_init(Ring::new)
                .as_ref()
                .map_err(|errno| *errno)?;
            ring.register(new(stage), 2)?;
            ring.unregister()
        }));
        calls.push(call(format!("mbind of the middle, {kind}"), move |stage| {
            let (at, node) = (new(stage) - 6 * PAGE, 1_u64);
            // SAFETY: it changes no memory, and the mask is as long as said.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_mbind,
                    at,
                    4 * PAGE,
                    libc::MPOL_BIND,
                    &node,
                    64,
                    MPOL_MF_MOVE,
                )
            };
            Errno::result(done).map(drop)
        }));
    }
    calls.push(call("mremap that copies", |stage| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        remap(stage.shared, 0, PAGES, flags, stage.place).map(drop)
    }));
    calls.push(call("sendfile", |stage| {
        let (from, to) = (stage.device.as_raw_fd(), stage.pipe.1.as_raw_fd());
        let mut at = 0;
        // SAFETY: the position is this function's.
        Errno::result(unsafe { libc::sendfile(to, from, &mut at, 4 * PAGE) }).map(drop)
    }));
    calls.push(call("splice there and back", |stage| {
        let object = stage.device.as_raw_fd();
        let (reader, writer) = (stage.pipe.0.as_raw_fd(), stage.pipe.1.as_raw_fd());
        let (mut from, mut to) = (0, (10 * PAGE) as i64);
        let nowhere = std::ptr::null_mut();
        // SAFETY: the positions are this function's.
        unsafe {
            Errno::result(libc::splice(
                object,
                &mut from,
                writer,
                nowhere,
                2 * PAGE,
                0,
            ))?;
            Errno::result(libc::splice(reader, nowhere, object, &mut to, 2 * PAGE, 0)).map(drop)
        }
    }));
    calls.push(call("epoll of a watch", |stage| {
        let watch = stage.watch()?;
        let mut wanted = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: 0,
        };
        let (epoll, watch) = (stage.epoll.as_raw_fd(), watch.as_raw_fd());
        let mut came = wanted;
        // SAFETY: the events are this function's.
        unsafe {
            Errno::result(libc::epoll_ctl(
                epoll,
                libc::EPOLL_CTL_ADD,
                watch,
                &mut wanted,
            ))?;
            Errno::result(libc::epoll_wait(epoll, &mut came, 1, 0)).map(drop)
        }
    }));
    calls
}

/// A file of two pages that is read and written past the page cache, or as if it were.
fn direct() -> Result<OwnedFd, Errno> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_DIRECT)
        .open(std::env::temp_dir());
    let done = file.and_then(|file| file.set_len(2 * PAGE as u64).map(|()| file.into()));
    done.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn iovec(at: usize, pages: usize) -> libc::iovec {
    libc::iovec {
        iov_base: pointer(at).cast(),
        iov_len: pages * PAGE,
    }
}

/// Copies two pages from there to the argument, or back.
fn by_process_vm(stage: &Stage, at: usize, write: bool) -> Result<(), Errno> {
    let (here, there) = (iovec(stage.argument, 2), iovec(at, 2));
    // SAFETY: both are mapped by the stage, of which nobody else has references.
    let done = unsafe {
        match write {
            true => libc::process_vm_writev(libc::getpid(), &here, 1, &there, 1, 0),
            false => libc::process_vm_readv(libc::getpid(), &here, 1, &there, 1, 0),
        }
    };
    Errno::result(done).map(drop)
}

/// Which pages were written, which are clean then.
pub(super) fn take_written(stage: &Stage) -> Result<(), Errno> {
    let written = sys::vmalab_written {
        offset: 0,
        length: (PAGES * PAGE) as u64,
        ranges: (stage.argument + PAGE) as u64,
        n_ranges: 8,
        flags: sys::VMALAB_WRITTEN_CLEAR,
    };
    stage.ask(sys::VMALAB_IOC_WRITTEN, written)
}
