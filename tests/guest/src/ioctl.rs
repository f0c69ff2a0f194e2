// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The contract of uapi/vmalab.h, from its wrong side, and the calls that the node does not have.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use vmalab::{Device, sys};

use crate::{
    lab::Lab,
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

fn call(device: &Device, number: u32, argument: usize) -> Result<i32, Errno> {
    // SAFETY: the numbers here are of this device's type, whose calls use no more than the size in
    // the number at the argument; the tests give as much, or a bad pointer for the kernel to check.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), number.into(), argument) })
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

/// The requests and the sizes of their structures.
fn requests() -> [(u32, usize); 12] {
    [
        (sys::VMALAB_IOC_STATS, size_of::<sys::vmalab_stats>()),
        (sys::VMALAB_IOC_GET_SIZE, size_of::<sys::vmalab_size>()),
        (sys::VMALAB_IOC_SET_SIZE, size_of::<sys::vmalab_size>()),
        (sys::VMALAB_IOC_SET_HOOKS, size_of::<sys::vmalab_hooks>()),
        (sys::VMALAB_IOC_AREAS, size_of::<sys::vmalab_areas>()),
        (
            sys::VMALAB_IOC_WOULD_UNMAP,
            size_of::<sys::vmalab_unmapping>(),
        ),
        (
            sys::VMALAB_IOC_FALLOCATE,
            size_of::<sys::vmalab_fallocate>(),
        ),
        (sys::VMALAB_IOC_ADD_SEALS, size_of::<sys::vmalab_seals>()),
        (sys::VMALAB_IOC_GET_SEALS, size_of::<sys::vmalab_seals>()),
        (sys::VMALAB_IOC_WRITTEN, size_of::<sys::vmalab_written>()),
        (sys::VMALAB_IOC_SET_NAME, size_of::<sys::vmalab_name>()),
        (sys::VMALAB_IOC_OPEN_NAME, size_of::<sys::vmalab_name>()),
    ]
}

/// The answer to a structure of zeros.
fn to_zeros(request: u32) -> Result<i32, Errno> {
    match request {
        // Nothing to allocate, or no space for the answer.
        sys::VMALAB_IOC_FALLOCATE | sys::VMALAB_IOC_WRITTEN => Err(Errno::EINVAL),
        // Nobody is called that.
        sys::VMALAB_IOC_OPEN_NAME => Err(Errno::ENOENT),
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
        for other in [NONE, WRITE, READ, READ | WRITE]
            .into_iter()
            .filter(|way| *way != direction)
        {
            let other = number(other, sys::VMALAB_IOC_TYPE, nr, size);
            assert_eq!(
                call_with(&device, other, &mut bytes),
                Err(Errno::ENOTTY),
                "{other:#x}"
            );
        }
        // Those of a watch are tried in watch.rs.
        let watch = sys::VMALAB_IOC_WATCH;
        let known = |nr| {
            let mut listed = requests().into_iter().map(|(request, _)| request);
            listed.any(|request| request & 0xff == nr) || watch & 0xff == nr
        };
        for nr in (0..256).filter(|nr| !known(*nr)) {
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

fn thousands_at_random(lab: &Lab) -> Verdict {
    let mut device = lab.open(4);
    let mut addr = map(&device, SHARED, 0, 4);
    // xorshift: the same numbers every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = [0; SPACE];
    let mut answers = std::collections::BTreeMap::new();
    for round in 1..5000 {
        let (request, size) = requests()[random() as usize % requests().len()];
        let request = match random() % 4 {
            0 => request,
            1 => resized(request, (size + random() as usize % 64) % SPACE),
            2 => number(
                random() as u32 % 4,
                sys::VMALAB_IOC_TYPE,
                random() as u32 % 8,
                size,
            ),
            _ => number(
                random() as u32 % 4,
                sys::VMALAB_IOC_TYPE,
                random() as u32 % 256,
                random() as usize % SPACE,
            ),
        };
        let dense = random() % 3;
        bytes.fill_with(|| if dense == 0 { random() as u8 } else { 0 });
        // Sizes that mean something, and would not be worth a long time to fill.
        if dense == 1 {
            let place = bytes.as_mut_ptr().expose_provenance() as u64 + 1024;
            let words = [
                random() % 16 * 4096,
                random() % 16 * 4096 * (random() % 2),
                [random() % 4, place][random() as usize % 2],
                random() % 4,
            ];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
        }
        let argument = match random() % 4 {
            0 => random() as usize,
            1 => addr + random() as usize % (4 * PAGE),
            _ => bytes.as_mut_ptr().expose_provenance(),
        };
        let errno = call(&device, request, argument).map_or_else(|errno| errno as i32, |_| 0);
        *answers.entry(errno).or_insert(0) += 1;
        // One that is sealed has little left to answer.
        if round % 64 == 0 {
            device = lab.open(4);
            addr = map(&device, SHARED, 0, 4);
        }
    }
    let known = [
        0,
        libc::ENOTTY,
        libc::EINVAL,
        libc::EFAULT,
        libc::E2BIG,
        libc::EFBIG,
        libc::EPERM,
        libc::EBUSY,
        libc::EOPNOTSUPP,
        libc::ENOENT,
    ];
    for (errno, times) in answers {
        assert!(known.contains(&errno), "errno {errno}, {times} times");
        lab.row(
            &format!("random ioctls answered with {}", errno_name(errno)),
            times.into(),
            "calls",
        );
    }
    let device = lab.open(4);
    let addr = map(&device, SHARED, 0, 4);
    letters(addr, 4, 'A');
    assert_eq!(look(addr, 4), "ABCD");
    Ok(())
}

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
