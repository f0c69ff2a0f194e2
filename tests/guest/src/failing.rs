// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Each allocation of each call fails once: the call says so with a proper error, nothing is lost, and
//! the object is as good as before.
//!
//! It needs a kernel with fault injection (Documentation/fault-injection/fault-injection.rst): after
//! `n` is written to `fail-nth`, the n-th allocation of this thread fails, or copy from or to its
//! memory. So a call is made again and again with n from 1 on, until it has no n-th.
//!
//! A new request of the device is tried with zeros by itself. A new call, or a request with an
//! argument that leads further, is a line in one of the tables below.

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;
use vmalab::{Device, HookSet, sys};

use crate::{
    ioctl::{REQUESTS, size_in},
    lab::Lab,
    load,
    mem::*,
    run::{Skip, Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("failing::open_and_mmap", |lab| each(lab, BOTH, opening())).logs(),
    Test::device("failing::faults", |lab| each(lab, ONE, faulting())).logs(),
    Test::device("failing::munmap_and_mremap", |lab| {
        each(lab, BOTH, moving())
    })
    .logs(),
    Test::device("failing::mprotect_and_madvise", |lab| {
        each(lab, ONE, changing())
    })
    .logs(),
    Test::device("failing::fork", |lab| each(lab, ONE, forking())).logs(),
    Test::device("failing::ioctls", |lab| each(lab, ONE, asking())).logs(),
    Test::device("failing::read_and_write", |lab| each(lab, ONE, reading())).logs(),
    Test::device("failing::insmod_and_rmmod", loading).logs(),
];

/// The nodes differ in how areas come into being, and in nothing else.
const BOTH: &[&CStr] = &[sys::VMALAB_PATH, sys::VMALAB_PREPARE_PATH];
const ONE: &[&CStr] = &[sys::VMALAB_PATH];

/// Pages of the object.
const PAGES: usize = 16;
/// Pages that are there at first, the letters from A on; half as many in the private mapping, from a on.
const FILLED: usize = 8;
/// Pages of address space for each mapping.
const ROOM: usize = 32;

/// What a call has to do with.
struct Stage {
    device: Device,
    /// `PAGES` of the object, shared; up to `ROOM` there is nothing behind them.
    shared: usize,
    /// The same, private.
    private: usize,
    /// `ROOM` pages without access, to map something else over.
    place: usize,
    /// `ROOM` pages for the argument of an ioctl, and for what that points to, from the second on.
    argument: usize,
}

impl Stage {
    fn new(node: &str) -> Self {
        let device = Device::open_at(node).unwrap();
        device.set_size((PAGES * PAGE) as u64).unwrap();
        let place = map_anonymous(0, 3 * ROOM, libc::PROT_NONE, libc::MAP_NORESERVE).unwrap();
        let [shared, private] =
            [(SHARED, place), (PRIVATE, place + ROOM * PAGE)].map(|(kind, at)| {
                try_map(&device, at, PAGES, RW, kind | libc::MAP_FIXED, 0).unwrap();
                unmap(at + PAGES * PAGE, ROOM - PAGES);
                at
            });
        letters(shared, FILLED, 'A');
        letters(private, FILLED / 2, 'a');
        Self {
            device,
            shared,
            private,
            place: place + 2 * ROOM * PAGE,
            argument: map_anonymous(0, ROOM, RW, libc::MAP_POPULATE).unwrap(),
        }
    }

    /// The object can be used, and still has the first pages, if the call leaves them.
    fn check(&self, leaves: bool) -> Result<(), String> {
        let all = self.place + ROOM / 2 * PAGE;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        self.device
            .set_size((PAGES * PAGE) as u64)
            .map_err(|error| text(&error))?;
        try_map(&self.device, all, PAGES, RW, SHARED | libc::MAP_FIXED, 0)
            .map_err(|errno| text(&errno))?;
        for page in 0..PAGES {
            write_from_kernel(all + page * PAGE + 1, b"+").map_err(|errno| text(&errno))?;
        }
        let first = |page: usize| read_by_kernel(all + page * PAGE, 2).unwrap_or_default();
        let seen: Vec<_> = (0..4).map(first).collect();
        let gone = |bytes: &Vec<u8>| bytes == b"\0+";
        let emptied = !leaves && seen.iter().all(gone);
        if seen != [b"A+", b"B+", b"C+", b"D+"] && !emptied {
            return Err(format!("the first pages begin with {seen:?}"));
        }
        Ok(())
    }

    /// Asks the device with what is at `argument`. If the answer is a descriptor, it is closed.
    fn ioctl(&self, request: u32) -> Result<(), Errno> {
        // SAFETY: nobody else looks at the argument, or at what it points to.
        let answer = unsafe { libc::ioctl(self.device.as_raw_fd(), request.into(), self.argument) };
        if answer > 2 {
            // SAFETY: the call made it, and nobody else has it.
            unsafe { libc::close(answer) };
        }
        Errno::result(answer).map(drop)
    }

    /// Asks with this structure.
    fn ask<T>(&self, request: u32, structure: T) -> Result<(), Errno> {
        // SAFETY: there is room for it, aligned to a page.
        unsafe { pointer(self.argument).cast::<T>().write(structure) };
        self.ioctl(request)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        unmap(self.shared, 3 * ROOM);
        unmap(self.argument, ROOM);
    }
}

/// A call, by name. It must not allocate memory in this process: that would fail, too.
struct Call {
    name: String,
    /// Whether the first pages are as before.
    leaves: bool,
    body: Box<Body>,
}

type Body = dyn Fn(&Stage) -> Result<(), Errno>;

fn call(name: impl Into<String>, body: impl Fn(&Stage) -> Result<(), Errno> + 'static) -> Call {
    Call {
        name: name.into(),
        leaves: true,
        body: Box::new(body),
    }
}

/// All hooks, without waiting for one.
const WATCH: sys::vmalab_watch = sys::vmalab_watch {
    hooks: (1 << sys::VMALAB_NR_HOOKS) - 1,
    records: 64,
    flags: sys::VMALAB_WATCH_NONBLOCK,
};

/// What a call may answer whose allocation, or copy from or to user space, failed.
const ERRORS: [Errno; 3] = [Errno::ENOMEM, Errno::EFAULT, Errno::EAGAIN];

/// No call has as many allocations.
const ENDLESS: u32 = 1 << 30;

/// `fail-nth` of this thread.
struct FailNth(File);

impl FailNth {
    fn new() -> Result<Self, Skip> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .map_err(|error| Skip(format!("the kernel has no fault injection: {error}")))?;
        // Allocations that may wait, and pages one by one, do not fail unless asked to; each that
        // does is logged with a stack.
        for (setting, value) in [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("fail_page_alloc/verbose", "0"),
            ("fail_usercopy/verbose", "0"),
        ] {
            let path = format!("/sys/kernel/debug/{setting}");
            fs::write(&path, value).map_err(|error| Skip(format!("{path}: {error}")))?;
        }
        Ok(Self(file))
    }

    /// Does something with its `n`-th allocation failing, from 1 on; tells how many are left until
    /// then, 0 if it did fail.
    fn during<T>(&self, n: u32, body: impl FnOnce() -> T) -> (T, u32) {
        let n = n.to_string();
        self.0.write_at(n.as_bytes(), 0).unwrap();
        let value = body();
        let mut left = [0; 16];
        let left = match self.0.read_at(&mut left, 0) {
            Ok(length) => {
                let text = std::str::from_utf8(&left[..length]).expect("digits");
                text.trim_end().parse().expect("a number")
            }
            // The copy of the answer was the one to fail: no other was left.
            Err(_) => 1,
        };
        // … or the copy of this.
        let _ = self.0.write_at(b"0", 0);
        (value, left)
    }
}

/// The live objects, areas and pages of the module.
fn alive(device: &Device) -> (u64, u64, u64) {
    let stats = device.module_stats().unwrap();
    (stats.objects, stats.areas, stats.pages)
}

fn each(lab: &Lab, nodes: &[&CStr], calls: Vec<Call>) -> Verdict {
    let fail_nth = FailNth::new()?;
    let control = Device::open().unwrap();
    let before = alive(&control);
    for node in nodes {
        let node = node.to_str().unwrap();
        for Call { name, leaves, body } in &calls {
            let usual = {
                let stage = Stage::new(node);
                body(&stage)
            };
            let mut n = 0;
            loop {
                n += 1;
                let stage = Stage::new(node);
                let (answer, left) = fail_nth.during(n, || body(&stage));
                let proper = match answer {
                    Err(errno) if left == 0 => Err(errno) == usual || ERRORS.contains(&errno),
                    answer => answer == usual,
                };
                assert!(
                    proper,
                    "{node}: {name}, allocation {n} failing (left {left}): {answer:?}, usually {usual:?}"
                );
                if let Err(reason) = stage.check(*leaves) {
                    panic!("{node}: after {name}, allocation {n} failing: {reason}");
                }
                drop(stage);
                let deadline = Instant::now() + Duration::from_secs(10);
                while alive(&control) != before {
                    assert!(
                        Instant::now() < deadline,
                        "{node}: {name}, allocation {n} failing, leaves (objects, areas, pages) {:?}, not {before:?}",
                        alive(&control)
                    );
                    thread::yield_now();
                }
                if left != 0 {
                    break;
                }
            }
            lab.row(
                &format!("failed in turn on {node}: {name}"),
                (n - 1).into(),
                "allocations",
            );
        }
    }
    Ok(())
}

fn opening() -> Vec<Call> {
    let mut calls = vec![
        call("open", |_| open(sys::VMALAB_PATH)),
        call("open of the other node", |_| open(sys::VMALAB_PREPARE_PATH)),
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
            ),
        ]);
    }
    calls.push(call("mmap of nothing over the middle", |stage| {
        map_anonymous(stage.shared + 4 * PAGE, 4, RW, libc::MAP_FIXED).map(drop)
    }));
    calls
}

fn open(node: &CStr) -> Result<(), Errno> {
    // SAFETY: the path is a string, and the descriptor nobody else's.
    unsafe {
        let fd = Errno::result(libc::open(node.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC))?;
        Errno::result(libc::close(fd)).map(drop)
    }
}

fn faulting() -> Vec<Call> {
    const READ: i32 = libc::MADV_POPULATE_READ;
    const WRITE: i32 = libc::MADV_POPULATE_WRITE;
    vec![
        call("read a page that is there", |s| advise(s.shared, 1, READ)),
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
            s.device
                .set_hooks(HookSet::PageMkwrite)
                .map_err(|error| Errno::from_raw(error.errno()))?;
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

fn moving() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, of) in [("shared", 0), ("private", 1)] {
        let at = move |stage: &Stage| [stage.shared, stage.private][of];
        let mut add = |name: &str, body: fn(&Stage, usize) -> Result<(), Errno>| {
            calls.push(call(format!("{name}, {kind}"), move |stage| {
                body(stage, at(stage))
            }));
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

fn changing() -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, of) in [("shared", 0), ("private", 1)] {
        let at = move |stage: &Stage| [stage.shared, stage.private][of];
        let mut add = |name: &str, body: fn(usize) -> Result<(), Errno>| {
            calls.push(call(format!("{name}, {kind}"), move |stage| {
                body(at(stage))
            }));
        };
        add("mprotect", |at| protect(at, PAGES, RO));
        add("mprotect of the middle", |at| protect(at + 4 * PAGE, 4, RO));
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

fn forking() -> Vec<Call> {
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

fn asking() -> Vec<Call> {
    let zeros = |(name, request): &(&'static str, u32)| {
        let (request, size) = (*request, size_in(*request));
        assert!(size < ROOM * PAGE);
        let zeros = call(format!("{name} with zeros"), move |stage| {
            stage.ioctl(request)
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
    calls.push(call("the ring of a watch", |stage| {
        // SAFETY: there is room for the structure, and the descriptor is nobody else's. What is mapped
        // over the place is gone with the stage.
        unsafe {
            pointer(stage.argument)
                .cast::<sys::vmalab_watch>()
                .write(WATCH);
            let (object, request) = (stage.device.as_raw_fd(), sys::VMALAB_IOC_WATCH);
            let watch = Errno::result(libc::ioctl(object, request.into(), stage.argument))?;
            let watch = OwnedFd::from_raw_fd(watch);
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
    calls.push(call("VMALAB_IOC_WRITTEN", |stage| {
        let written = sys::vmalab_written {
            offset: 0,
            length: (PAGES * PAGE) as u64,
            ranges: (stage.argument + PAGE) as u64,
            n_ranges: 8,
            flags: sys::VMALAB_WRITTEN_CLEAR,
        };
        stage.ask(sys::VMALAB_IOC_WRITTEN, written)
    }));
    calls.push(call("VMALAB_IOC_ADD_SEALS", |stage| {
        let seals = sys::VMALAB_SEAL_GROW | sys::VMALAB_SEAL_SHRINK;
        stage.ask(
            sys::VMALAB_IOC_ADD_SEALS,
            sys::vmalab_seals { seals, reserved: 0 },
        )
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
            move |stage| {
                let done = stage.device.set_size((pages * PAGE) as u64);
                done.map_err(|error| Errno::from_raw(error.errno()))
            },
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

fn reading() -> Vec<Call> {
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

/// Loading takes thousands of allocations, most of them pages for the file and its sections. Those of
/// the module's own begin come last: of these each one fails, of those before some.
fn loading(lab: &Lab) -> Verdict {
    const LAST: u32 = 200;
    let fail_nth = FailNth::new()?;
    let file = load::module(lab)?;
    // Opened as the module wants to be found again, whatever happens.
    let total = {
        load::remove().unwrap();
        let (answer, left) = fail_nth.during(ENDLESS, || load::try_insert(&file, c""));
        answer.unwrap();
        ENDLESS - left
    };
    let early = (1..total.saturating_sub(LAST)).step_by(lab.many(10, 100));
    let last = total.saturating_sub(LAST).max(1)..=total + 8;
    let mut failed = 0_u32;
    let mut loaded = true;
    for n in early.chain(last) {
        if loaded {
            load::remove().unwrap();
        }
        let (answer, left) = fail_nth.during(n, || load::try_insert(&file, c""));
        match answer {
            Ok(()) => loaded = true,
            Err(errno) => {
                assert!(
                    left == 0 && ERRORS.contains(&errno),
                    "allocation {n}: {errno}, left {left}"
                );
                failed += 1;
                for node in [sys::VMALAB_PATH, sys::VMALAB_PREPARE_PATH] {
                    let node = node.to_str().unwrap();
                    let gone = OpenOptions::new().read(true).custom_flags(0).open(node);
                    assert!(gone.is_err(), "{node} is there without its module");
                }
                // What is left behind may keep it from coming back; now and then that is enough to see it.
                loaded = failed % 8 == 0;
                if loaded {
                    load::try_insert(&file, c"").unwrap();
                }
            }
        }
    }
    if !loaded {
        load::try_insert(&file, c"").unwrap();
    }
    // What is left of the n-th is not for removing: that has few allocations of its own.
    for n in 1..20 {
        let (answer, left) = fail_nth.during(n, load::remove);
        match answer {
            Ok(()) => load::try_insert(&file, c"").unwrap(),
            Err(errno) => assert!(left == 0 && ERRORS.contains(&errno), "rmmod, {n}: {errno}"),
        }
        if left != 0 {
            break;
        }
    }
    assert_eq!(load::try_insert(&file, c""), Err(Errno::EEXIST));
    lab.row("allocations of insmod", total.into(), "allocations");
    lab.row("insmods that failed", failed.into(), "calls");
    Ok(())
}
