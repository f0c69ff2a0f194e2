// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The contract of uapi/vmalab.h, from its wrong side, and the calls that the node does not have.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::errno::Errno;
use vmalab::{Device, Watch, sys};

use crate::{
    lab::Lab,
    load,
    mem::*,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("ioctl::unlisted_numbers_are_enotty", unlisted_numbers),
    Test::device("ioctl::a_short_structure_is_einval", short_structures),
    Test::device("ioctl::older_structures", older_structures),
    Test::device("ioctl::a_longer_structure", longer_structures),
    Test::device("ioctl::a_bad_pointer_is_efault", bad_pointers),
    Test::device("ioctl::what_is_reserved_is_zero", what_is_reserved),
    Test::device(
        "ioctl::a_refused_call_changes_nothing",
        refused_changes_nothing,
    ),
    Test::device("ioctl::thousands_at_random", thousands_at_random),
    Test::device("ioctl::not_on_a_device", not_on_a_device),
];

/// The two directions, as the C library's `_IOC` has them.
const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

/// A structure that may be longer or shorter than the kernel thinks.
const SPACE: usize = 1 << 14;

fn call(device: impl AsFd, number: u32, argument: usize) -> Result<i32, Errno> {
    // SAFETY: the numbers here are of this device's type, whose calls use no more than the size in
    // the number at the argument; the tests give as much, or a bad pointer for the kernel to check.
    Errno::result(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), number.into(), argument) })
}

fn call_with(device: &Device, number: u32, bytes: &mut [u8; SPACE]) -> Result<i32, Errno> {
    call(device, number, bytes.as_mut_ptr().expose_provenance())
}

/// A number of another size, type, number or direction than `like`.
fn number(direction: u32, kind: u32, number: u32, size: usize) -> u32 {
    (direction << 30) | ((size as u32) << 16) | (kind << 8) | number
}

fn resized(like: u32, size: usize) -> u32 {
    number(like >> 30, (like >> 8) & 0xff, like & 0xff, size)
}

/// All requests of `uapi/vmalab.h`, by name.
pub(crate) const REQUESTS: &[(&str, u32)] = include!(concat!(env!("OUT_DIR"), "/requests.rs"));

/// The size in the number of a request: that of its structure.
pub(crate) fn size_in(request: u32) -> usize {
    ((request >> 16) & 0x3fff) as usize
}

/// Those that the descriptor of a watch has, and that of an object has not; watch.rs tries them, too.
pub(crate) const OF_A_WATCH: [u32; 2] = [sys::VMALAB_IOC_WATCH_SET, sys::VMALAB_IOC_WATCH_STATE];

/// The requests of an object, and the sizes of their structures.
fn requests() -> impl Iterator<Item = (u32, usize)> {
    REQUESTS
        .iter()
        .filter(|(_, request)| !OF_A_WATCH.contains(request))
        .map(|(_, request)| (*request, size_in(*request)))
}

/// The answer to a structure of zeros.
fn to_zeros(request: u32) -> Result<i32, Errno> {
    match request {
        // Nothing to allocate, or no space for the answer.
        sys::VMALAB_IOC_FALLOCATE | sys::VMALAB_IOC_WRITTEN | sys::VMALAB_IOC_WATCH => {
            Err(Errno::EINVAL)
        }
        // It says nothing.
        sys::VMALAB_IOC_ADD_RULE => Err(Errno::EINVAL),
        // Nobody is called that.
        sys::VMALAB_IOC_OPEN_NAME | sys::VMALAB_IOC_GET_RULE => Err(Errno::ENOENT),
        _ => Ok(0),
    }
}

/// The size of the first version of the structure.
fn first_version(request: u32, size: usize) -> usize {
    if request == sys::VMALAB_IOC_STATS {
        std::mem::offset_of!(sys::vmalab_stats, n_calls)
    } else {
        size
    }
}

fn unlisted_numbers(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let mut bytes = [0; SPACE];
    for (request, size) in requests() {
        let (direction, nr) = (request >> 30, request & 0xff);
        for kind in (0..256).filter(|kind| *kind != sys::VMALAB_IOC_TYPE) {
            // Some numbers mean something for every file: FIONBIO and its like are not ours.
            if kind == u32::from(b'T')
                || kind == u32::from(b'f')
                || kind == 0
                || kind == u32::from(b'X')
            {
                continue;
            }
            let other = number(direction, kind, nr, size);
            assert_eq!(
                call_with(&device, other, &mut bytes),
                Err(Errno::ENOTTY),
                "{other:#x}"
            );
        }
        for other in [NONE, WRITE, READ, READ | WRITE] {
            let listed =
                |(request, _): (u32, usize)| request & 0xff == nr && request >> 30 == other;
            if requests().any(listed) {
                continue;
            }
            let other = number(other, sys::VMALAB_IOC_TYPE, nr, size);
            assert_eq!(
                call_with(&device, other, &mut bytes),
                Err(Errno::ENOTTY),
                "{other:#x}"
            );
        }
        let unlisted = |nr: &u32| requests().all(|(request, _)| request & 0xff != *nr);
        for nr in (0..256).filter(unlisted) {
            let other = number(direction, sys::VMALAB_IOC_TYPE, nr, size);
            assert_eq!(
                call_with(&device, other, &mut bytes),
                Err(Errno::ENOTTY),
                "{other:#x}"
            );
        }
    }
    Ok(())
}

fn short_structures(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let mut bytes = [0; SPACE];
    for (request, size) in requests() {
        for short in 0..first_version(request, size) {
            let answer = call_with(&device, resized(request, short), &mut bytes);
            assert_eq!(
                answer,
                Err(Errno::EINVAL),
                "{request:#x} with {short} bytes"
            );
        }
    }
    assert!(bytes == [0; SPACE], "nothing is written");
    Ok(())
}

/// Of a structure that has grown, an older caller gets what it knows, and no byte more.
fn older_structures(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let first = first_version(sys::VMALAB_IOC_STATS, 0);
    assert_eq!(first, 32, "as it was published");
    let addr = map(&device, SHARED, 0, 1);
    protect(addr, 1, RO).unwrap();
    for size in first..size_of::<sys::vmalab_stats>() {
        let mut bytes = [0; SPACE];
        bytes[size..].fill(0xff);
        let request = resized(sys::VMALAB_IOC_STATS, size);
        assert_eq!(
            call_with(&device, request, &mut bytes),
            Ok(0),
            "{size} bytes"
        );
        assert_eq!(bytes[8..16], 1_u64.to_ne_bytes(), "the object");
        assert!(
            bytes[size..].iter().all(|byte| *byte == 0xff),
            "{size} bytes"
        );
    }
    Ok(())
}

fn longer_structures(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    for (request, size) in requests() {
        for longer in [size + 1, size + 8, 4095, 4096, 4097, SPACE - 1] {
            let mut bytes = [0; SPACE];
            let answer = call_with(&device, resized(request, longer), &mut bytes);
            assert_eq!(
                answer,
                to_zeros(request),
                "{request:#x} with {longer} bytes"
            );

            // What the module does not know must be zero, and stays as it is.
            assert!(bytes[size..].iter().all(|byte| *byte == 0));
            for at in [size, longer - 1] {
                let mut bytes = [0; SPACE];
                bytes[at] = 1;
                let answer = call_with(&device, resized(request, longer), &mut bytes);
                assert_eq!(
                    answer,
                    Err(Errno::E2BIG),
                    "{request:#x}, {longer} bytes, {at}"
                );
            }
        }
    }
    Ok(())
}

fn bad_pointers(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let none = map_anonymous(0, 1, libc::PROT_NONE, 0).unwrap();
    let read_only = map_anonymous(0, 1, RO, 0).unwrap();
    let pair = map_anonymous(0, 2, RW, 0).unwrap();
    unmap(pair + PAGE, 1);
    let past = map(&device, SHARED, 1, 1);
    for (request, size) in requests() {
        let kernel = 0xffff_8880_0000_0000;
        let noncanonical = 0x8000_0000_0000_0000;
        for bad in [
            0,
            1,
            none,
            pair + PAGE,
            past,
            kernel,
            noncanonical,
            usize::MAX,
            usize::MAX - size,
        ] {
            assert_eq!(
                call(&device, request, bad),
                Err(Errno::EFAULT),
                "{request:#x} at {bad:#x}"
            );
        }
        write_from_kernel(pair, &[0; PAGE]).unwrap();
        // The last byte is missing.
        let cut = pair + PAGE - size + 1;
        assert_eq!(
            call(&device, request, cut),
            Err(Errno::EFAULT),
            "{request:#x} over the edge"
        );
        assert_eq!(
            call(&device, request, cut - 1),
            to_zeros(request),
            "{request:#x} up to the edge"
        );
        // A tail that is not there.
        let longer = resized(request, size + PAGE);
        assert_eq!(
            call(&device, longer, cut - 1),
            Err(Errno::EFAULT),
            "{request:#x}, a tail"
        );
        // What is only read may be read-only.
        let expected = match to_zeros(request) {
            Ok(_) if (request >> 30) & READ != 0 => Err(Errno::EFAULT),
            answer => answer,
        };
        assert_eq!(
            call(&device, request, read_only),
            expected,
            "{request:#x} read-only"
        );
    }
    // In the object's own memory: the answer goes where the page is made on the way.
    device.set_size(PAGE as u64).unwrap();
    let own = map(&device, SHARED, 0, 1);
    assert_eq!(call(&device, sys::VMALAB_IOC_STATS, own), Ok(0));
    lab.check_pages(&device, 1);
    Ok(())
}

fn what_is_reserved(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let stats = |scope, reserved| {
        let mut stats = sys::vmalab_stats {
            scope,
            reserved,
            ..Default::default()
        };
        call(
            &device,
            sys::VMALAB_IOC_STATS,
            (&raw mut stats).expose_provenance(),
        )
    };
    let resize = |flags, reserved| {
        let mut size = sys::vmalab_size {
            size: PAGE as u64,
            flags,
            reserved,
        };
        call(
            &device,
            sys::VMALAB_IOC_SET_SIZE,
            (&raw mut size).expose_provenance(),
        )
    };
    assert_eq!(stats(sys::VMALAB_SCOPE_OBJECT, 0), Ok(0));
    assert_eq!(stats(sys::VMALAB_SCOPE_MODULE, 0), Ok(0));
    let size = |flags, reserved| {
        let mut size = sys::vmalab_size {
            size: 0,
            flags,
            reserved,
        };
        call(
            &device,
            sys::VMALAB_IOC_GET_SIZE,
            (&raw mut size).expose_provenance(),
        )
    };
    assert_eq!((resize(0, 0), size(0, 0)), (Ok(0), Ok(0)));
    for bit in 0..32 {
        assert_eq!(stats(0, 1 << bit), Err(Errno::EINVAL));
        assert_eq!(resize(1 << bit, 0), Err(Errno::EINVAL));
        assert_eq!(resize(0, 1 << bit), Err(Errno::EINVAL));
        assert_eq!(size(1 << bit, 0), Err(Errno::EINVAL));
        assert_eq!(size(0, 1 << bit), Err(Errno::EINVAL));
    }
    for scope in [2, 3, 0x100, u32::MAX] {
        assert_eq!(stats(scope, 0), Err(Errno::EINVAL));
    }
    Ok(())
}

fn refused_changes_nothing(lab: &Lab) -> Verdict {
    let device = lab.open(4);
    let addr = map(&device, SHARED, 0, 4);
    letters(addr, 4, 'A');
    let before = device.stats().unwrap();
    let mut size = sys::vmalab_size {
        size: PAGE as u64,
        flags: 1,
        reserved: 0,
    };
    let argument = (&raw mut size).expose_provenance();
    assert_eq!(
        call(&device, sys::VMALAB_IOC_SET_SIZE, argument),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        call(&device, sys::VMALAB_IOC_SET_SIZE, 8),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        (device.size(), device.stats()),
        (Ok(4 * PAGE as u64), Ok(before))
    );
    assert_eq!(look(addr, 4), "ABCD");
    Ok(())
}

/// As many as `--calls` says, from a thread for each node: on an object of its own, on the same through a
/// descriptor that is for reading only, and on that of the other thread; what each does to the object is up to
/// chance. Meanwhile others touch what is mapped, and try to remove the module.
fn thousands_at_random(lab: &Lab) -> Verdict {
    let done = AtomicBool::new(false);
    let latest = [const { Mutex::new(None) }; 2];
    let _stays = lab.open(1);
    let calls = lab.calls / 2;
    let answers = thread::scope(|scope| {
        let callers = [0, 1].map(|which| {
            let latest = &latest;
            scope.spawn(move || Caller::new(which, latest).call_at_random(calls))
        });
        let beside = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(load::remove(), Err(Errno::EWOULDBLOCK));
                for which in 0..2 {
                    for page in 0..2 * Caller::PAGES {
                        let _ = read_by_kernel(Caller::room(which) + page * PAGE, 8);
                    }
                }
                thread::yield_now();
            }
        });
        let mut answers = BTreeMap::new();
        let ended = callers.map(|caller| caller.join());
        done.store(true, Ordering::Relaxed);
        beside.join().unwrap();
        for (errno, times) in ended.into_iter().flat_map(|answers| answers.unwrap()) {
            *answers.entry(errno).or_insert(0) += times;
        }
        answers
    });
    // Whatever was done to those objects, the nodes have others.
    for node in NODES {
        let other = Device::open_at(node.to_str().unwrap()).unwrap();
        lab.resize(&other, 4);
        let addr = map(&other, SHARED, 0, 4);
        letters(addr, 4, 'A');
        assert_eq!(look(addr, 4), "ABCD");
    }
    for (errno, times) in answers {
        assert!(ANSWERS.contains(&errno), "errno {errno}, {times} times");
        lab.row(
            &format!("random ioctls answered with {}", errno_name(errno)),
            times.into(),
            "calls",
        );
    }
    Ok(())
}

const NODES: [&CStr; 2] = [sys::VMALAB_PATH, sys::VMALAB_PREPARE_PATH];

/// A thread that asks objects of one node for whatever comes to its mind.
struct Caller<'a> {
    which: usize,
    /// The objects of both threads that are asked now.
    latest: &'a [Mutex<Option<Arc<Device>>>; 2],
    device: Arc<Device>,
    read_only: Device,
    watch: Watch,
    names: u32,
    /// xorshift
    state: u64,
    bytes: [u8; SPACE],
}

impl<'a> Caller<'a> {
    const PAGES: usize = 16;

    /// Where it maps: first shared, then private, then a page that has nothing behind it. It is down where
    /// the kernel maps nothing by itself, so that nothing else is hit by an address near the end.
    fn room(which: usize) -> usize {
        (1 << 44) + which * 1024 * PAGE
    }

    fn private(&self) -> usize {
        Self::room(self.which) + 64 * PAGE
    }

    fn pair(&self) -> usize {
        Self::room(self.which) + 128 * PAGE
    }

    fn new(which: usize, latest: &'a [Mutex<Option<Arc<Device>>>; 2]) -> Self {
        let device = Arc::new(Device::open().unwrap());
        let mut caller = Self {
            which,
            latest,
            read_only: Device::open_read_only(sys::VMALAB_PATH.to_str().unwrap()).unwrap(),
            watch: device.watch().open().unwrap(),
            device,
            names: 0,
            state: 0x2545_f491_4f6c_dd1d + which as u64,
            bytes: [0; SPACE],
        };
        map_anonymous(caller.pair(), 1, RW, libc::MAP_FIXED).unwrap();
        caller.renew();
        caller
    }

    /// Another object: one that is sealed, or gigantic, has little left to answer.
    fn renew(&mut self) {
        let device = Device::open_at(NODES[self.which].to_str().unwrap()).unwrap();
        device.set_size((Self::PAGES * PAGE) as u64).unwrap();
        for (at, kind) in [(Self::room(self.which), SHARED), (self.private(), PRIVATE)] {
            // The old areas need not wait until they are gone.
            let _ = self.device.clear_rules();
            try_map(&device, at, Self::PAGES, RW, kind | libc::MAP_FIXED, 0).unwrap();
        }
        letters(self.private(), Self::PAGES / 2, 'a');
        self.names += 1;
        let name = format!("random-{}-{}", self.which, self.names);
        device.set_name(&name, 0o600).unwrap();
        self.read_only = device.open_name(&name, libc::O_RDONLY).unwrap();
        self.watch = device.watch().open().unwrap();
        self.device = Arc::new(device);
        *self.latest[self.which].lock().unwrap() = Some(self.device.clone());
    }

    /// The same numbers every time.
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// How often there was which answer, by errno.
    fn call_at_random(mut self, calls: u32) -> BTreeMap<i32, u32> {
        let mut answers = BTreeMap::new();
        for call_number in 0..calls {
            let errno = self.ask().map_or_else(|errno| errno as i32, |()| 0);
            *answers.entry(errno).or_insert(0) += 1;
            if call_number % 64 == 0 {
                self.renew();
            }
        }
        *self.latest[self.which].lock().unwrap() = None;
        let _ = self.device.clear_rules();
        for at in [Self::room(self.which), self.private()] {
            unmap(at, Self::PAGES);
        }
        unmap(self.pair(), 1);
        answers
    }

    fn ask(&mut self) -> Result<(), Errno> {
        let (_, request) = REQUESTS[self.random() as usize % REQUESTS.len()];
        let size = size_in(request);
        let request = match self.random() % 8 {
            0 => resized(request, (size + self.random() as usize % 64) % SPACE),
            1 => number(
                self.random() as u32 % 4,
                sys::VMALAB_IOC_TYPE,
                self.random() as u32 % 256,
                self.random() as usize % SPACE,
            ),
            _ => request,
        };
        let argument = self.argument(request, size);
        let answer = match self.random() % 8 {
            _ if OF_A_WATCH.contains(&request) => call(&self.watch, request, argument),
            0 => call(&self.read_only, request, argument),
            1 => {
                let other = self.latest[1 - self.which].lock().unwrap().clone();
                call(
                    &*other.unwrap_or_else(|| self.device.clone()),
                    request,
                    argument,
                )
            }
            _ => call(&*self.device, request, argument),
        };
        if let Ok(fd @ 3..) = answer {
            // SAFETY: the call made it, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        answer.map(drop)
    }

    /// Whole words are what the structures are made of: small numbers, one bit, addresses of mappings,
    /// lengths, and noise.
    fn argument(&mut self, request: u32, size: usize) -> usize {
        let (addr, private, pair) = (Self::room(self.which), self.private(), self.pair());
        let mut bytes = [0; SPACE];
        let part = (size + 16).min(SPACE);
        let dense = self.random() % 4;
        for word in bytes[..part].chunks_exact_mut(4) {
            if self.random() % 4 > dense {
                continue;
            }
            let value = match self.random() % 8 {
                0 => self.random() as u32,
                1 => 1 << (self.random() % 32),
                2 => (self.random() % PAGES_OF_A_WORD) as u32 * PAGE as u32,
                3 => u32::MAX,
                _ => self.random() as u32 % 16,
            };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        for word in bytes[..part].chunks_exact_mut(8) {
            if self.random() % 16 == 0 {
                let base = [addr, private, pair][self.random() as usize % 3];
                let value = base + self.random() as usize % (2 * Self::PAGES) * PAGE;
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
        // Not all the memory that there is.
        if request & 0xff == sys::VMALAB_IOC_FALLOCATE & 0xff {
            for word in bytes[..16].chunks_exact_mut(8) {
                let value = self.random() % (2 * Self::PAGES * PAGE) as u64;
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self.bytes = bytes;
        let inside = self.random() as usize % (Self::PAGES * PAGE);
        match self.random() % 8 {
            0 => self.random() as usize,
            1 => addr + inside,
            2 => private + inside,
            // Over the edge of what is mapped.
            3 => {
                let room = self.random() as usize % (size + 8) + 1;
                write_from_kernel(pair, &[0; PAGE]).unwrap();
                pair + PAGE - room.min(PAGE)
            }
            _ => self.bytes.as_mut_ptr().expose_provenance(),
        }
    }
}

/// Offsets in pages that a word of an argument may say.
const PAGES_OF_A_WORD: u64 = 4096;

/// All answers that uapi/vmalab.h tells of.
const ANSWERS: &[i32] = &[
    0,
    libc::ENOTTY,
    libc::EINVAL,
    libc::EFAULT,
    libc::E2BIG,
    libc::EFBIG,
    libc::EPERM,
    libc::EBUSY,
    libc::EEXIST,
    libc::ENOENT,
    libc::EOPNOTSUPP,
    libc::EBADF,
    libc::EACCES,
];

fn errno_name(errno: i32) -> String {
    if errno == 0 {
        "success".into()
    } else {
        format!("{:?}", Errno::from_raw(errno))
    }
}

/// What works on a file and not on a device, whatever its driver does. See module/README.md.
fn not_on_a_device(lab: &Lab) -> Verdict {
    let device = lab.open(1);
    let fd = device.as_raw_fd();
    assert_eq!(nix::unistd::ftruncate(&device, 0), Err(Errno::EINVAL));
    // SAFETY: these take numbers only.
    let (allocate, seals) = unsafe {
        (
            Errno::result(libc::fallocate(fd, 0, 0, PAGE as i64)),
            Errno::result(libc::fcntl(fd, libc::F_GET_SEALS)),
        )
    };
    assert_eq!((allocate, seals), (Err(Errno::ENODEV), Err(Errno::EINVAL)));
    let addr = map(&device, SHARED, 0, 1);
    assert_eq!(advise(addr, 1, libc::MADV_REMOVE), Err(Errno::ENODEV));
    assert_eq!(device.size(), Ok(PAGE as u64));
    Ok(())
}
