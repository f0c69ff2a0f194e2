// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Each allocation of each call fails once: the call says so with a proper error, nothing is lost, and
//! the object is as good as before.
//!
//! It needs a kernel with fault injection (Documentation/fault-injection/fault-injection.rst): after
//! `n` is written to `fail-nth`, the n-th allocation of this thread fails, or copy from or to its
//! memory. So a call is made again and again with n from 1 on, until it has no n-th.
//!
//! A new request of the device is tried with zeros by itself. A new call, or a request with an
//! argument that leads further, is a line in one of the tables of `calls` and `kinds`.

mod calls;
mod kinds;

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, OpenOptionsExt},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::pipe,
};
use vmalab::{AreaFlags, Device, Watch, sys};

use crate::{
    lab::Lab,
    load,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("failing::open_and_mmap", |lab| {
        each(lab, BOTH, plain, calls::opening())
    })
    .logs(),
    Test::device("failing::mmap_watched_and_steered", |lab| {
        each(lab, BOTH, kinds::watched, calls::refusing())
    })
    .logs(),
    Test::device("failing::faults", |lab| {
        each(lab, ONE, plain, calls::faulting())
    })
    .logs(),
    Test::device("failing::faults_watched_and_steered", |lab| {
        each(lab, ONE, kinds::watched, calls::faulting())
    })
    .logs(),
    Test::device("failing::munmap_and_mremap", |lab| {
        each(lab, BOTH, plain, calls::moving())
    })
    .logs(),
    Test::device("failing::mprotect_and_madvise", |lab| {
        each(lab, ONE, plain, calls::changing())
    })
    .logs(),
    Test::device("failing::fork", |lab| {
        each(lab, BOTH, plain, calls::forking())
    })
    .logs(),
    Test::device("failing::ioctls", |lab| {
        each(lab, ONE, plain, calls::asking())
    })
    .logs(),
    Test::device("failing::read_and_write", |lab| {
        each(lab, ONE, plain, calls::reading())
    })
    .logs(),
    Test::device("failing::lent_and_passed_on", |lab| {
        each(lab, ONE, plain, calls::lending())
    })
    .logs(),
    Test::device("failing::pieces", |lab| {
        each(lab, ONE, kinds::in_pieces, kinds::pieces())
    })
    .logs(),
    Test::device("failing::frames", |lab| {
        each(lab, BOTH, kinds::by_frame, kinds::frames())
    })
    .logs(),
    Test::device("failing::frames_of_pieces", |lab| {
        each(
            lab,
            ONE,
            kinds::by_frame_in_pieces,
            kinds::frames_of_pieces(),
        )
    })
    .logs(),
    Test::device("failing::mixedmap", |lab| {
        each(lab, ONE, kinds::mixed, calls::faulting())
    })
    .logs(),
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
/// Pages for what an ioctl takes and gives.
const ARGUMENT: usize = 8;

/// What is done to an object before it is mapped; somebody may watch it from then on.
type Prepare = fn(&Device) -> Option<Watch>;

/// As a fresh object is.
fn plain(_: &Device) -> Option<Watch> {
    None
}

/// What a call has to do with.
struct Stage {
    device: Device,
    /// Somebody who watches it, or nobody.
    _watch: Option<Watch>,
    /// `PAGES` of the object, shared; up to `ROOM` there is nothing behind them.
    shared: usize,
    /// The same, private.
    private: usize,
    /// `ROOM` pages without access, to map something else over.
    place: usize,
    /// `ARGUMENT` pages for the argument of an ioctl, and for what that points to, from the second on.
    argument: usize,
    /// A pipe that nobody else uses: where it is read, and where it is written.
    pipe: (OwnedFd, OwnedFd),
    epoll: OwnedFd,
    /// `/dev/zero`
    zeros: File,
    through: Through,
}

impl Stage {
    fn new(node: &str, prepare: Prepare) -> Self {
        let device = Device::open_at(node).unwrap();
        device.set_size((PAGES * PAGE) as u64).unwrap();
        let watch = prepare(&device);
        let place = map_anonymous(0, 3 * ROOM, libc::PROT_NONE, libc::MAP_NORESERVE).unwrap();
        // Frames are mapped shared only.
        let frames = device.area_flags().unwrap().contains(AreaFlags::PFNMAP);
        let other = if frames { SHARED } else { PRIVATE };
        let [shared, private] =
            [(SHARED, place), (other, place + ROOM * PAGE)].map(|(kind, at)| {
                try_map(&device, at, PAGES, RW, kind | libc::MAP_FIXED, 0).unwrap();
                unmap(at + PAGES * PAGE, ROOM - PAGES);
                at
            });
        let through = Through::new().unwrap();
        through.letters(private, FILLED / 2, b'a').unwrap();
        through.letters(shared, FILLED, b'A').unwrap();
        let (reader, writer) = pipe().unwrap();
        // SAFETY: the descriptor is new, and nobody else's.
        let epoll = unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            OwnedFd::from_raw_fd(Errno::result(epoll).unwrap())
        };
        Self {
            device,
            _watch: watch,
            shared,
            private,
            place: place + 2 * ROOM * PAGE,
            argument: map_anonymous(0, ARGUMENT, RW, libc::MAP_POPULATE).unwrap(),
            pipe: (reader, writer),
            epoll,
            zeros: File::open("/dev/zero").unwrap(),
            through,
        }
    }

    /// A watch of the object: it must not allocate memory here.
    fn watch(&self) -> Result<OwnedFd, Errno> {
        let mut argument = WATCH;
        let (object, request) = (self.device.as_raw_fd(), sys::VMALAB_IOC_WATCH);
        // SAFETY: the structure is that of the request, and the descriptor nobody else's.
        unsafe {
            let watch = libc::ioctl(object, request.into(), &mut argument);
            Ok(OwnedFd::from_raw_fd(Errno::result(watch)?))
        }
    }

    /// The object can be used, and still has the first pages, if the call leaves them.
    fn check(&self, leaves: bool) -> Result<(), String> {
        let all = self.place + ROOM / 2 * PAGE;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        // A rule of the call's own may be left.
        let done = self.device.clear_rules();
        done.and_then(|()| self.device.set_size((PAGES * PAGE) as u64))
            .map_err(|error| text(&error))?;
        try_map(&self.device, all, PAGES, RW, SHARED | libc::MAP_FIXED, 0)
            .map_err(|errno| text(&errno))?;
        self.through
            .mark(all, PAGES, b'+')
            .map_err(|errno| text(&errno))?;
        let seen = self.through.begins(all).map_err(|errno| text(&errno))?;
        let emptied = !leaves && seen == [*b"\0+"; 4];
        if seen != [*b"A+", *b"B+", *b"C+", *b"D+"] && !emptied {
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

/// A file through which the kernel writes to memory and reads it, which answers EFAULT where the process would
/// die. For all pages at once: a pipe for each takes long on a kernel that checks itself.
struct Through(File);

impl Through {
    fn new() -> Result<Self, Errno> {
        let file = memfd_create(c"vmalab-through", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self(file.into()))
    }

    /// Fills the pages with letters, the first with `first`, the next with the one after it.
    fn letters(&self, at: usize, pages: usize, first: u8) -> Result<(), Errno> {
        let letters = (first..).take(pages).flat_map(|letter| [letter; PAGE]);
        self.write(&letters.collect::<Vec<_>>(), &parts(at, pages, 0, PAGE))
    }

    /// Makes this the second byte of each page.
    fn mark(&self, at: usize, pages: usize, byte: u8) -> Result<(), Errno> {
        self.write(&vec![byte; pages], &parts(at, pages, 1, 1))
    }

    /// With what the first pages begin.
    fn begins(&self, at: usize) -> Result<[[u8; 2]; 4], Errno> {
        let parts = parts(at, 4, 0, 2);
        // SAFETY: the kernel only reads the memory, and checks its addresses.
        let done = unsafe { libc::pwritev(self.0.as_raw_fd(), parts.as_ptr(), 4, 0) };
        let mut begins = [[0; 2]; 4];
        all_of(done, size_of_val(&begins))?;
        let read = self.0.read_exact_at(begins.as_flattened_mut(), 0);
        read.map_err(|_| Errno::EIO)?;
        Ok(begins)
    }

    fn write(&self, bytes: &[u8], to: &[libc::iovec]) -> Result<(), Errno> {
        let written = self.0.write_all_at(bytes, 0);
        written.map_err(|_| Errno::EIO)?;
        // SAFETY: the kernel checks the addresses, which are of a mapping of the stage's.
        let done = unsafe { libc::preadv(self.0.as_raw_fd(), to.as_ptr(), to.len() as i32, 0) };
        all_of(done, bytes.len())
    }
}

/// The bytes of each page from `offset` on.
fn parts(at: usize, pages: usize, offset: usize, length: usize) -> Vec<libc::iovec> {
    let part = |page| libc::iovec {
        iov_base: pointer(at + page * PAGE + offset).cast(),
        iov_len: length,
    };
    (0..pages).map(part).collect()
}

/// Fewer bytes than that are a part that could not be accessed.
fn all_of(done: isize, length: usize) -> Result<(), Errno> {
    match Errno::result(done)? as usize == length {
        true => Ok(()),
        false => Err(Errno::EFAULT),
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        unmap(self.shared, 3 * ROOM);
        unmap(self.argument, ARGUMENT);
        unmap(kinds::HUGE, kinds::OF_HUGE);
    }
}

/// A call, by name. It must not allocate memory in this process: that would fail, too.
struct Call {
    name: String,
    /// Whether the first pages are as before.
    leaves: bool,
    /// Whether something in it must have failed once; else nothing has been tried.
    must_fail: bool,
    /// Whether the process keeps what it does: then each attempt has a process of its own.
    for_good: bool,
    body: Box<Body>,
}

impl Call {
    /// It may do without memory of its own, and copy nothing.
    fn may_need_none(self) -> Self {
        Self {
            must_fail: false,
            ..self
        }
    }

    /// What it has done, its process cannot undo.
    fn for_good(self) -> Self {
        Self {
            for_good: true,
            ..self
        }
    }

    /// Makes the call on a new stage with its `n`-th allocation failing, and checks what is left; tells
    /// how many are left until then.
    fn attempt(&self, fail_nth: &FailNth, node: &str, prepare: Prepare, n: u32) -> Attempt {
        let stage = Stage::new(node, prepare);
        let (answer, left) = fail_nth.during(n, || (self.body)(&stage));
        if let Err(reason) = stage.check(self.leaves) {
            let name = &self.name;
            panic!("{node}: after {name}, allocation {n} failing: {reason}");
        }
        // What has failed must not have been done.
        if self.for_good && answer.is_ok() {
            std::mem::forget(stage);
        }
        (answer, left)
    }
}

/// What a call has answered, and how many allocations were left until the one that was to fail.
type Attempt = (Result<(), Errno>, u32);

/// Makes the attempt in a child process.
fn in_a_child(attempt: impl FnOnce(&FailNth) -> Attempt) -> Attempt {
    let (reader, writer) = pipe().unwrap();
    child(|| {
        // That of this process's thread.
        let (answer, left) = attempt(&FailNth::open().unwrap());
        let errno = answer.err().map_or(0, |errno| errno as u32);
        let words = [errno, left].map(u32::to_ne_bytes).concat();
        File::from(writer).write_all(&words).unwrap();
    });
    let mut words = [[0; 4]; 2];
    File::from(reader)
        .read_exact(words.as_flattened_mut())
        .unwrap();
    let [errno, left] = words.map(u32::from_ne_bytes);
    let answer = match errno {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno as i32)),
    };
    (answer, left)
}

type Body = dyn Fn(&Stage) -> Result<(), Errno>;

fn call(name: impl Into<String>, body: impl Fn(&Stage) -> Result<(), Errno> + 'static) -> Call {
    Call {
        name: name.into(),
        leaves: true,
        must_fail: true,
        for_good: false,
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
    fn new(lab: &Lab) -> Result<Self, Skip> {
        let this = Self::open().map_err(|error| {
            lab.not_there(format!("the kernel has no fault injection: {error}"))
        })?;
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
            fs::write(&path, value).map_err(|error| lab.not_there(format!("{path}: {error}")))?;
        }
        Ok(this)
    }

    /// The settings are made already.
    fn open() -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true);
        Ok(Self(file.open("/proc/thread-self/fail-nth")?))
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

fn each(lab: &Lab, nodes: &[&CStr], prepare: Prepare, calls: Vec<Call>) -> Verdict {
    let fail_nth = FailNth::new(lab)?;
    let control = Device::open().unwrap();
    let before = alive(&control);
    let mut untried = Vec::new();
    for node in nodes {
        let node = node.to_str().unwrap();
        for call in &calls {
            let name = &call.name;
            let attempt = |n| match call.for_good {
                true => in_a_child(|fail_nth| call.attempt(fail_nth, node, prepare, n)),
                false => call.attempt(&fail_nth, node, prepare, n),
            };
            let (usual, _) = attempt(ENDLESS);
            let mut n = 0;
            loop {
                n += 1;
                let (answer, left) = attempt(n);
                let proper = match answer {
                    Err(errno) if left == 0 => Err(errno) == usual || ERRORS.contains(&errno),
                    answer => answer == usual,
                };
                assert!(
                    proper,
                    "{node}: {name}, allocation {n} failing (left {left}): {answer:?}, usually {usual:?}"
                );
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
            if n == 1 && call.must_fail {
                untried.push(format!("{node}: {name}"));
            }
            lab.row(
                &format!("failed in turn on {node}: {name}"),
                (n - 1).into(),
                "allocations",
            );
        }
    }
    assert!(untried.is_empty(), "nothing failed in {untried:#?}");
    Ok(())
}

/// Loading takes thousands of allocations, most of them pages for the file and its sections. Those of
/// the module's own begin come last: of these each one fails, of those before some.
fn loading(lab: &Lab) -> Verdict {
    const LAST: u32 = 200;
    let fail_nth = FailNth::new(lab)?;
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
