// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Everything at once: threads of two processes map, touch, unmap, move and fork areas of the same
//! objects, others change the size under them, ask, read what is told about them, and try to remove the
//! module. It goes on for as long as `--seconds` says.
//!
//! Whatever comes out of a race, this holds:
//! - a byte of an object is zero, or what somebody wrote there: each page has one value that is ever
//!   written to it;
//! - nothing is left in the end, and the kernel has logged nothing.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsFd, AsRawFd},
    thread,
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
};
use vmalab::{Device, HookSet, Watch, sys};

use crate::{
    ioctl::REQUESTS,
    lab::Lab,
    load,
    mem::*,
    run::{Test, Verdict, start_child},
};

pub(crate) const TESTS: &[Test] = &[Test::device("stress::all_at_once", all_at_once)];

/// Pages of each object, and of each place where a worker maps it.
const PAGES: usize = 32;
const OBJECTS: usize = 3;
/// Threads of each process that map and touch.
const WORKERS: usize = 3;

/// Random numbers: xorshift.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    /// A range of pages of an object: where it begins, and how many.
    fn range(&mut self) -> (usize, usize) {
        let from = self.below(PAGES);
        (from, 1 + self.below((PAGES - from).min(8)))
    }
}

/// The only byte that is ever written to a page of an object.
fn value(object: usize, page: usize) -> u8 {
    (1 + object * PAGES + page) as u8
}

/// Copies within this process by way of the kernel, which answers EFAULT where an access would be a
/// signal. It allocates nothing.
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

/// Where the threads of a process map the objects.
#[derive(Clone, Copy)]
struct Places {
    /// For each object, `PAGES` where page n is page n of the object, if it is mapped. What is not
    /// mapped is reserved, for nobody else may come in between.
    of: [usize; OBJECTS],
    /// `PAGES` to which areas are moved, of whatever object.
    elsewhere: usize,
}

impl Places {
    fn new() -> Self {
        let reserve = || map_anonymous(0, PAGES, libc::PROT_NONE, libc::MAP_NORESERVE).unwrap();
        Self {
            of: [(); OBJECTS].map(|()| reserve()),
            elsewhere: reserve(),
        }
    }
}

/// A thread that maps and touches.
struct Worker<'a> {
    objects: &'a [Device],
    places: Places,
    random: Random,
}

impl Worker<'_> {
    fn step(&mut self) {
        let object = self.random.below(OBJECTS);
        let (from, pages) = self.random.range();
        let at = self.places.of[object] + from * PAGE;
        match self.random.below(16) {
            0..=2 => {
                let kind = KINDS[self.random.below(2)];
                let prot = [RW, RW, RO, libc::PROT_NONE][self.random.below(4)];
                let populate = [0, 0, libc::MAP_POPULATE][self.random.below(3)];
                let flags = kind | libc::MAP_FIXED | populate;
                try_map(&self.objects[object], at, pages, prot, flags, from).unwrap();
            }
            3 => drop(map_anonymous(at, pages, libc::PROT_NONE, libc::MAP_FIXED).unwrap()),
            4..=6 => self.write(object, from, pages),
            7..=9 => self.read(object, from, pages),
            10 => drop(protect(
                at,
                pages,
                [RW, RO, libc::PROT_NONE][self.random.below(3)],
            )),
            11 => {
                const ADVICE: [i32; 6] = [
                    libc::MADV_DONTNEED,
                    libc::MADV_POPULATE_READ,
                    libc::MADV_POPULATE_WRITE,
                    libc::MADV_COLD,
                    libc::MADV_PAGEOUT,
                    libc::MADV_NORMAL,
                ];
                let _ = advise(at, pages, ADVICE[self.random.below(ADVICE.len())]);
            }
            12 => self.remap(at, pages),
            13 => self.fork(object),
            14 => {
                let hooks = [HookSet::empty(), HookSet::PageMkwrite][self.random.below(2)];
                self.objects[object].set_hooks(hooks).unwrap();
            }
            _ => {
                // SAFETY: it changes no memory.
                unsafe { libc::mlock(pointer(at).cast(), pages * PAGE) };
                // SAFETY: nor does this.
                unsafe { libc::munlock(pointer(at).cast(), pages * PAGE) };
            }
        }
    }

    fn write(&mut self, object: usize, from: usize, pages: usize) {
        for page in from..from + pages {
            let at = self.places.of[object] + page * PAGE + self.random.below(PAGE - 8);
            let _ = copy(at, &mut [value(object, page); 8], true);
        }
    }

    fn read(&self, object: usize, from: usize, pages: usize) {
        for page in from..from + pages {
            check(self.places.of[object], object, page);
        }
    }

    /// Moves some pages away, leaving the place reserved, or the old area there.
    fn remap(&mut self, at: usize, pages: usize) {
        let page = self.random.below(PAGES - pages + 1);
        let to = self.places.elsewhere + page * PAGE;
        let longer = (pages + self.random.below(2)).min(PAGES - page);
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if self.random.below(2) == 0 {
            let _ = remap(at, pages, pages, fixed | libc::MREMAP_DONTUNMAP, to);
        } else if remap(at, pages, longer, fixed, to).is_ok() {
            // Another thread may have mapped something there by now. None of them maps anything at an
            // address that the kernel chooses.
            let flags = libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE;
            let _ = map_anonymous(at, pages, libc::PROT_NONE, flags);
        }
    }

    /// A child touches what it got, unmaps some of it, and is gone.
    fn fork(&mut self, object: usize) {
        let (from, pages) = self.random.range();
        let place = self.places.of[object];
        // SAFETY: the child makes system calls only, and uses nothing but its stack.
        unsafe {
            match Errno::result(libc::syscall(libc::SYS_fork)) {
                Ok(0) => {
                    for page in 0..PAGES {
                        let at = place + page * PAGE;
                        let _ = copy(at, &mut [value(object, page)], page % 2 == 0);
                    }
                    libc::munmap(pointer(place + from * PAGE).cast(), pages * PAGE);
                    libc::_exit(0);
                }
                Ok(child) => {
                    let nowhere = std::ptr::null_mut();
                    while libc::wait4(child as i32, nowhere, 0, std::ptr::null_mut()) == -1 {}
                }
                Err(errno) => panic!("fork: {errno}"),
            }
        }
    }
}

/// Page `page` of the object, mapped from `place` on: its bytes are zero, or its own.
#[track_caller]
fn check(place: usize, object: usize, page: usize) {
    let mut bytes = [0; PAGE];
    if copy(place + page * PAGE, &mut bytes, false).is_ok() {
        let own = value(object, page);
        let foreign = bytes.iter().find(|byte| ![0, own].contains(byte));
        assert_eq!(
            foreign, None,
            "object {object}, page {page}, whose bytes are 0 or {own}"
        );
    }
}

/// A request of the device with an argument of a few small numbers; on an object of which nobody
/// expects anything.
fn ask(device: &Device, random: &mut Random) {
    let mut argument = [0_u64; 2048];
    for word in argument.iter_mut().take(random.below(8)) {
        *word = [0, 1, PAGE, PAGES * PAGE, 0xff][random.below(5)] as u64;
    }
    let (_, request) = REQUESTS[random.below(REQUESTS.len())];
    // SAFETY: the structure of a request is smaller than the argument, and has no address in it that is
    // mapped: nothing is at the small ones.
    unsafe { libc::ioctl(device.as_raw_fd(), request.into(), argument.as_mut_ptr()) };
}

/// Reads all that is told about the objects. It has no buffer that grows: that might be mapped where a
/// worker works.
fn read_about(paths: &[CString], objects: &[Device]) {
    let mut bytes = [0_u8; 4096];
    for path in paths {
        // SAFETY: the path is a string, the descriptor nobody else's, and the buffer as long as said.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            while libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) > 0 {}
            libc::close(fd);
        }
    }
    for object in objects {
        let mut poll = libc::pollfd {
            fd: object.as_raw_fd(),
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: there is one.
        unsafe { libc::poll(&mut poll, 1, 0) };
        let stats = object.stats().unwrap();
        assert!(
            stats.objects == 1 && stats.pages <= PAGES as u64,
            "{stats:?}"
        );
        object.module_stats().unwrap();
    }
}

/// Reads what was recorded, now and then through a new watch, or of other hooks.
fn read_records(watches: &mut [Option<Watch>], objects: &[Device], random: &mut Random) {
    let n = random.below(objects.len());
    let mut records = [0_u64; 512];
    match &watches[n] {
        None => {
            // There may be too many of others.
            watches[n] = objects[n].watch().records(64).open().ok();
        }
        Some(watch) => {
            let fd = watch.as_fd().as_raw_fd();
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: there is one, and the buffer is as long as said.
            unsafe {
                if libc::poll(&mut poll, 1, 0) == 1 {
                    libc::read(fd, records.as_mut_ptr().cast(), size_of_val(&records));
                }
            }
            watch.state().unwrap();
            match random.below(64) {
                0 => watches[n] = None,
                1 => watch.set_hooks(HookSet::Fault).unwrap(),
                2 => watch.set_hooks(HookSet::all()).unwrap(),
                _ => {}
            }
        }
    }
}

/// All threads of one process, until the time is over; how many steps they made.
fn run_wild(objects: &[Device], until: Instant, seed: usize) -> u64 {
    let places = Places::new();
    let steps = |mut step: Box<dyn FnMut() + Send + '_>| {
        let mut steps = 0_u64;
        while Instant::now() < until {
            step();
            steps += 1;
        }
        steps
    };
    let files = fs::read_dir("/sys/kernel/debug/vmalab")
        .into_iter()
        .flatten();
    let files = files.map(|entry| entry.unwrap().path().display().to_string());
    let fds = objects
        .iter()
        .map(|object| format!("/proc/self/fdinfo/{}", object.as_raw_fd()));
    let others = [
        "/proc/self/maps",
        "/proc/self/smaps",
        "/proc/self/numa_maps",
    ]
    .map(String::from);
    let paths: Vec<CString> = files
        .chain(fds)
        .chain(others)
        .map(|path| CString::new(path).unwrap())
        .collect();
    let victim = Device::open().unwrap();
    thread::scope(|scope| {
        let steps = &steps;
        let mut threads = Vec::new();
        for worker in 0..WORKERS {
            let mut worker = Worker {
                objects,
                places,
                random: Random::new(seed + worker),
            };
            threads.push(scope.spawn(move || steps(Box::new(|| worker.step()))));
        }
        let mut random = Random::new(seed + WORKERS);
        threads.push(scope.spawn(move || {
            steps(Box::new(|| {
                let object = &objects[random.below(OBJECTS)];
                object
                    .set_size((random.below(PAGES + 1) * PAGE) as u64)
                    .unwrap();
                thread::yield_now();
            }))
        }));
        let mut random = Random::new(seed + WORKERS + 2);
        threads.push(scope.spawn(move || {
            let mut watches: [Option<Watch>; OBJECTS] = Default::default();
            steps(Box::new(|| {
                read_records(&mut watches, objects, &mut random)
            }))
        }));
        let mut random = Random::new(seed + WORKERS + 1);
        let victim = &victim;
        threads.push(scope.spawn(move || steps(Box::new(|| ask(victim, &mut random)))));
        let paths = &paths;
        threads.push(scope.spawn(move || steps(Box::new(|| read_about(paths, objects)))));
        threads.push(scope.spawn(move || {
            steps(Box::new(|| {
                drop(Device::open().unwrap());
                assert_eq!(load::remove(), Err(Errno::EWOULDBLOCK));
                thread::yield_now();
            }))
        }));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

fn all_at_once(lab: &Lab) -> Verdict {
    let prepare = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
    let mut objects = vec![Device::open_at(prepare).unwrap()];
    objects.extend((1..OBJECTS).map(|_| Device::open().unwrap()));
    for object in &objects {
        lab.resize(object, PAGES);
    }
    let until = Instant::now() + lab.time;
    let other = start_child(|| {
        run_wild(&objects, until, 100);
    });
    let steps = run_wild(&objects, until, 0);
    assert_eq!(waitpid(other, None), Ok(WaitStatus::Exited(other, 0)));

    for (n, object) in objects.iter().enumerate() {
        lab.resize(object, PAGES);
        let place = map(object, SHARED, 0, PAGES);
        for page in 0..PAGES {
            check(place, n, page);
            copy(place + page * PAGE, &mut [value(n, page)], true).unwrap();
        }
        lab.check_pages(object, PAGES as u64);
        unmap(place, PAGES);
    }
    lab.row("steps of one process, all at once", steps as f64, "steps");
    Ok(())
}
