// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What else programs do with memory, as on a memfd: advice, mincore, guards, futexes; and where the
//! device is another thing. module/README.md has the table.

use std::{
    fs::File,
    io::ErrorKind,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    process::exit,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        stat::{SFlag, fstat},
        uio::{pread, pwrite},
        wait::WaitStatus,
    },
};
use vmalab::{AreaFlags, Device, HookSet};

use crate::{
    lab::{Lab, Subject},
    mem::*,
    run::{Skip, Test, Verdict, child_status},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("memory::madvise_populate", populate),
    Test::both("memory::advice_that_changes_nothing", changes_nothing),
    Test::both("memory::mincore", mincore),
    Test::both("memory::guard_pages", guard_pages),
    Test::both("memory::futex_between_processes", futex),
    Test::both("memory::mbind", mbind),
    Test::both("memory::mremap_leaves_a_private_place", leaves_private),
    Test::both("memory::that_fails", failed).logs(),
    Test::device(
        "memory::that_fails_in_special_areas",
        failed_in_special_areas,
    )
    .logs(),
    Test::device("memory::that_fails_in_a_piece", failed_in_a_piece).logs(),
    Test::device("memory::pages_move", pages_move).logs(),
    Test::device("memory::frames_stay", frames_stay).logs(),
    Test::device("memory::where_huge_pages_fit", where_huge_pages_fit),
    Test::device("memory::the_file_is_the_node", the_file_is_the_node),
    Test::device("memory::no_userfaultfd", no_userfaultfd),
];

fn populate(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        let addr = map(&object, kind, 0, 6);
        advise(addr, 2, libc::MADV_POPULATE_READ).unwrap();
        lab.check_pages(&object, 2);
        advise(addr + PAGE, 2, libc::MADV_POPULATE_WRITE).unwrap();
        lab.check_pages(&object, 3);
        let faults = lab.hooks(&object).map(|hooks| hooks.fault);
        letters(addr + PAGE, 2, 'A');
        assert_eq!(
            lab.hooks(&object).map(|hooks| hooks.fault),
            faults,
            "all were there already"
        );
        assert_eq!(look(addr, 6), "0AB0!!");
        // It tells of the end, unlike MAP_POPULATE.
        for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
            assert_eq!(advise(addr + 3 * PAGE, 2, advice), Err(Errno::EFAULT));
        }
        let read_only = try_map(&object, 0, 2, RO, kind, 0).unwrap();
        assert_eq!(
            advise(read_only, 2, libc::MADV_POPULATE_WRITE),
            Err(Errno::EINVAL)
        );
        advise(read_only, 2, libc::MADV_POPULATE_READ).unwrap();
    }
    Ok(())
}

fn changes_nothing(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        let addr = map(&object, kind, 0, 4);
        letters(addr, 3, 'A');
        for advice in [
            libc::MADV_NORMAL,
            libc::MADV_RANDOM,
            libc::MADV_SEQUENTIAL,
            libc::MADV_WILLNEED,
            libc::MADV_COLD,
            libc::MADV_PAGEOUT,
            libc::MADV_DONTDUMP,
            libc::MADV_DODUMP,
            libc::MADV_DOFORK,
        ] {
            assert_eq!(advise(addr, 4, advice), Ok(()), "{advice}");
            assert_eq!(look(addr, 3), "ABC", "{advice}");
        }
        // For private anonymous memory only.
        for advice in [libc::MADV_FREE, libc::MADV_WIPEONFORK] {
            assert_eq!(advise(addr, 4, advice), Err(Errno::EINVAL), "{advice}");
        }
        assert_eq!(advise(addr, 4, 12345), Err(Errno::EINVAL));
        assert_eq!(look(addr, 4), "ABC0");
    }
    Ok(())
}

/// What is in the object, whether this area has it in its page table or not.
fn mincore(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        letters(map(&object, SHARED, 0, 6), 2, 'A');
        let addr = map(&object, kind, 0, 8);
        let resident = || {
            let mut pages = [0xff_u8; 8];
            // SAFETY: there is a byte for each page.
            let done = unsafe { libc::mincore(pointer(addr).cast(), 8 * PAGE, pages.as_mut_ptr()) };
            assert_eq!(Errno::result(done), Ok(0));
            pages
                .map(|page| if page & 1 == 1 { '#' } else { '.' })
                .iter()
                .collect::<String>()
        };
        assert_eq!(resident(), "##......");
        letters(addr + 4 * PAGE, 1, 'E');
        assert_eq!(resident(), "##..#...");
        lab.fallocate(&object, 3, 0, PAGE).unwrap();
        assert_eq!(resident(), ".#..#...");
        lab.resize(&object, 1);
        assert_eq!(resident(), "........");
    }
    Ok(())
}

fn guard_pages(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        let addr = map(&object, kind, 0, 4);
        letters(addr, 4, 'A');
        match advise(addr + PAGE, 2, MADV_GUARD_INSTALL) {
            Err(Errno::EINVAL) if lab.subject == Subject::Memfd => {
                return Err(Skip::new("this kernel has no guards in files"));
            }
            result => result.unwrap(),
        }
        assert_eq!(look(addr, 4), "A!!D");
        let guarded = Some((libc::SIGSEGV, SEGV_MAPERR, true));
        let access = |at| fault(addr + at * PAGE, Access::Write);
        assert_eq!((access(0), access(1)), (None, guarded));
        advise(addr + PAGE, 1, MADV_GUARD_REMOVE).unwrap();
        // In a private area the copies are gone.
        let again = if kind == SHARED { 'B' } else { '0' };
        assert_eq!(look(addr + PAGE, 3), format!("{again}!D"));
        advise(addr, 4, MADV_GUARD_REMOVE).unwrap();
    }
    Ok(())
}

/// Known by the object and the offset, not by the address.
fn futex(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let (here, there) = (map(&object, SHARED, 0, 2), map(&object, SHARED, 1, 1));
    let call = |addr: usize, operation: i32, value: u32| {
        let none = std::ptr::null::<libc::timespec>();
        // SAFETY: the address is of a mapped word.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_futex, pointer(addr), operation, value, none)
        })
    };
    // SAFETY: the words are mapped as long as this process lives, and only used as atomics.
    let word = |addr: usize| unsafe { AtomicU32::from_ptr(pointer(addr).cast()) };
    let ready = word(here + PAGE + 8);
    // SAFETY: this process has one thread.
    let waiter = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            ready.store(1, Ordering::Release);
            while word(here + PAGE).load(Ordering::Acquire) == 0 {
                let _ = call(here + PAGE, libc::FUTEX_WAIT, 0);
            }
            std::process::exit(7);
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    while ready.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    // Until it waits, there is nobody to be woken.
    while call(there, libc::FUTEX_WAKE, 1).unwrap() == 0 {
        std::thread::yield_now();
    }
    word(there).store(1, Ordering::Release);
    call(there, libc::FUTEX_WAKE, 1).unwrap();
    let status = nix::sys::wait::waitpid(waiter, None);
    assert_eq!(status, Ok(nix::sys::wait::WaitStatus::Exited(waiter, 7)));
    Ok(())
}

fn leaves_private(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    letters(map(&object, SHARED, 0, 3), 3, 'A');
    let addr = map(&object, PRIVATE, 0, 3);
    letters(addr, 2, 'x');
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    let moved = remap(addr, 3, 3, flags, 0).unwrap();
    // The copies went along; the old place has what the object has.
    assert_eq!(
        (look(addr, 3), look(moved, 3)),
        ("ABC".into(), "xyC".into())
    );
    Ok(())
}

/// stat, the holes of lseek and copy_file_range are about the node, or of regular files only.
fn the_file_is_the_node(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    letters(map(&object, SHARED, 0, 4), 1, 'A');
    let stat = fstat(&object).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks, stat.st_nlink), (0, 0, 1));
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    assert_eq!(kind, SFlag::S_IFCHR);
    // All is data.
    let seek = |at, whence| nix::unistd::lseek(&object, at, whence);
    assert_eq!(
        seek(2 * PAGE as i64, nix::unistd::Whence::SeekData),
        Ok(2 * PAGE as i64)
    );
    assert_eq!(seek(0, nix::unistd::Whence::SeekHole), Ok(4 * PAGE as i64));
    let other = lab.open(4);
    let (from, to) = (object.as_raw_fd(), other.as_raw_fd());
    let (mut at, mut there) = (0, 0);
    // SAFETY: the offsets may be written to.
    let copied = unsafe { libc::copy_file_range(from, &mut at, to, &mut there, PAGE, 0) };
    assert_eq!(Errno::result(copied), Err(Errno::EINVAL));
    Ok(())
}

/// The kernel's table of it (`vm_uffd_ops`) is not for modules.
fn no_userfaultfd(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    let addr = map(&object, SHARED, 0, 2);
    // UFFDIO_REGISTER_MODE_MISSING
    let watched = |addr| Ok(userfaultfd(addr, 2, 0, 1)?.map(drop));
    assert_eq!(watched(addr)?, Err(Errno::EINVAL));
    let anonymous = map_anonymous(0, 2, RW, 0).unwrap();
    assert_eq!(watched(anonymous)?, Ok(()));
    Ok(())
}

/// A userfaultfd with these features that watches so many pages in this mode.
pub(crate) fn userfaultfd(
    addr: usize,
    pages: usize,
    features: u64,
    mode: u64,
) -> Result<Result<OwnedFd, Errno>, Skip> {
    // UFFDIO_API and UFFDIO_REGISTER of linux/userfaultfd.h.
    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    let skip = |errno| Skip(format!("no userfaultfd: {errno}"));
    // SAFETY: it takes a number.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) });
    // SAFETY: it is a new descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd.map_err(skip)? as i32) };
    let mut api = [0xaa_u64, features, 0];
    // SAFETY: the structure has that size.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), API, api.as_mut_ptr()) }).map_err(skip)?;
    // start, length, mode, ioctls
    let mut range = [addr as u64, (pages * PAGE) as u64, mode, 0];
    // SAFETY: as above.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), REGISTER, range.as_mut_ptr()) };
    Ok(Errno::result(done).map(|_| fd))
}

/// On which node a page is (move_pages(2), which moves none).
fn node(addr: usize) -> i32 {
    let (pages, mut status) = ([addr], [-1]);
    let (pages, status) = (pages.as_ptr(), status.as_mut_ptr());
    let none = std::ptr::null::<i32>();
    // SAFETY: it reads one address, and writes one number.
    let done = unsafe { libc::syscall(libc::SYS_move_pages, 0, 1_usize, pages, none, status, 0) };
    assert_eq!(Errno::result(done), Ok(0));
    // SAFETY: the array is alive.
    unsafe { status.read() }
}

/// Pages come from the node that the area says (`vma_alloc_folio`; for a memfd `shmem_alloc_folio`).
fn mbind(lab: &Lab) -> Verdict {
    const NODES: &str = "/sys/devices/system/node/node1";
    if !std::path::Path::new(NODES).exists() {
        return Err(Skip::new(
            "the machine has one memory node: qemu-image/run --nodes 2",
        ));
    }
    for wanted in [1, 0, 1] {
        let object = lab.open(64);
        let addr = map(&object, SHARED, 0, 64);
        bind(addr, 64, wanted).unwrap();
        letters(addr, 20, 'A');
        // Also where it is read first.
        assert_eq!(look(addr + 40 * PAGE, 2), "00");
        for page in (0..20).chain(40..42) {
            assert_eq!(node(addr + page * PAGE), wanted as i32, "page {page}");
        }
        assert_eq!(look(addr, 3), "ABC");
        // A copy comes by the private area.
        let private = map(&object, PRIVATE, 0, 64);
        bind(private, 64, 1 - wanted).unwrap();
        letters(private, 1, 'a');
        assert_eq!(node(private), 1 - wanted as i32);
    }
    Ok(())
}

/// The number of the frame in which a page is, from /proc/self/pagemap.
fn frame(addr: usize) -> u64 {
    let mut entry = [0; 8];
    let file = File::open("/proc/self/pagemap").unwrap();
    file.read_exact_at(&mut entry, (addr / PAGE * 8) as u64)
        .unwrap();
    u64::from_ne_bytes(entry) & ((1 << 55) - 1)
}

/// Has the kernel use a frame no more, and move what is in it; says whether it did.
fn soft_offline(frame: u64) -> Result<bool, Skip> {
    let file = "/sys/devices/system/memory/soft_offline_page";
    match std::fs::write(file, format!("{:#x}", frame * PAGE as u64)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Skip::new("this kernel takes no memory out of use"))
        }
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        done => {
            done.unwrap();
            Ok(true)
        }
    }
}

/// The frames that hold pages of files that were written to and are not mapped, as /proc/kpageflags has it.
fn written_and_not_mapped() -> Vec<u64> {
    const DIRTY: u64 = 1 << 4;
    const MMAP: u64 = 1 << 11;
    const ANON: u64 = 1 << 12;
    let flags = std::fs::read("/proc/kpageflags").unwrap();
    let flags = flags.chunks_exact(8);
    let flags = flags.map(|flags| u64::from_ne_bytes(flags.try_into().unwrap()));
    let is_it = |flags: u64| flags & (DIRTY | MMAP | ANON) == DIRTY;
    let frames = (0..).zip(flags).filter(|(_, flags)| is_it(*flags));
    frames.map(|(frame, _)| frame).collect()
}

/// Has the memory of a page fail, in another process that maps it (`madvise_inject_error`).
fn fail(object: impl AsFd, page: usize) -> Verdict {
    const NOT_BUILT_IN: i32 = 2;

    let status = child_status(|| {
        let addr = map(object, SHARED, page, 1);
        look(addr, 1);
        match advise(addr, 1, libc::MADV_HWPOISON) {
            Err(Errno::EINVAL) => exit(NOT_BUILT_IN),
            // It is not taken out of the object, so that its loss is told, which of a memfd the kernel knows;
            // or it cannot be split from what is beside it.
            Ok(()) | Err(Errno::EBUSY | Errno::EHWPOISON) => {}
            Err(errno) => panic!("{errno}"),
        }
    });
    match status {
        WaitStatus::Exited(_, NOT_BUILT_IN) => {
            Err(Skip::new("this kernel takes no memory out of use"))
        }
        // Who maps it may be told right away.
        WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGBUS, _) => Ok(()),
        status => panic!("{status:?}"),
    }
}

/// What was in memory that has failed is lost, which everybody who comes to it is told. The rest is there.
fn failed(lab: &Lab) -> Verdict {
    let lost = (libc::SIGBUS, BUS_MCEERR_AR, true);
    let object = lab.open(4);
    assert_eq!(pwrite(&object, &[b'a'; 4 * PAGE], 0), Ok(4 * PAGE));
    fail(&object, 1)?;
    for kind in KINDS {
        let addr = map(&object, kind, 0, 4);
        assert_eq!(fault(addr + PAGE, Access::Read), Some(lost));
        assert_eq!(fault(addr + PAGE, Access::Write), Some(lost));
        assert_eq!(look(addr, 1) + &look(addr + 2 * PAGE, 2), "aaa");
        unmap(addr, 4);
    }
    let mut bytes = [0; 2 * PAGE];
    let at = PAGE as i64;
    assert_eq!(pread(&object, &mut bytes, 0), Ok(PAGE));
    assert_eq!(pread(&object, &mut bytes, at), Err(Errno::EIO));
    assert_eq!(pwrite(&object, &bytes, 0), Ok(PAGE));
    assert_eq!(pwrite(&object, &bytes, at), Err(Errno::EIO));
    assert_eq!(pread(&object, &mut bytes, 2 * at), Ok(2 * PAGE));
    assert_eq!(bytes, [b'a'; 2 * PAGE]);
    // With another page in its place, all is well.
    lab.resize(&object, 1);
    lab.resize(&object, 4);
    assert_eq!(look(map(&object, SHARED, 0, 4), 4), "a000");
    Ok(())
}

/// Also where the driver itself puts pages into the page table, and where it is asked before they are written to.
fn failed_in_special_areas(lab: &Lab) -> Verdict {
    let lost = (libc::SIGBUS, BUS_MCEERR_AR, true);
    for flags in [AreaFlags::empty(), AreaFlags::MIXEDMAP] {
        for hooks in [HookSet::empty(), HookSet::PageMkwrite] {
            let object = lab.open(2);
            assert_eq!(pwrite(&object, &[b'a'; 2 * PAGE], 0), Ok(2 * PAGE));
            fail(&object, 1)?;
            object.set_hooks(hooks).unwrap();
            object.set_area_flags(flags).unwrap();
            let addr = map(&object, SHARED, 0, 2);
            for access in [Access::Read, Access::Write] {
                assert_eq!(fault(addr + PAGE, access), Some(lost), "{flags:?}");
                assert_eq!(fault(addr, access), None);
            }
        }
    }
    Ok(())
}

/// A piece that somebody holds a page of cannot be split: of that, too, only the page that has failed is lost.
fn failed_in_a_piece(_lab: &Lab) -> Verdict {
    const PIECE: usize = 16;
    let lost = (libc::SIGBUS, BUS_MCEERR_AR, true);
    let object = Device::open().unwrap();
    object.set_size((2 * PIECE * PAGE) as u64).unwrap();
    object.set_folio_size((PIECE * PAGE) as u64).unwrap();
    let bytes = 0..(2 * PIECE * PAGE) as u64;
    let addr = map(&object, SHARED, 0, 2 * PIECE);
    letters(addr, 2 * PIECE, 'A');
    let lent = lend(addr + 3 * PAGE);
    fail(&object, 1)?;

    let others = "ACDEFGHIJKLMNOP";
    let all = |addr| look(addr, 1) + &look(addr + 2 * PAGE, PIECE - 2);
    // Nothing of it seems to be written to, mapped, or held any more: and yet it cannot be had again.
    let taken = || drop(object.take_written(bytes.clone()).unwrap());
    taken();
    drop(lent);
    advise(addr, 2 * PIECE, libc::MADV_DONTNEED).unwrap();
    taken();
    for access in [Access::Read, Access::Write] {
        assert_eq!(fault(addr + PAGE, access), Some(lost));
        // What is beside it is mapped without it.
        advise(addr, 2 * PIECE, libc::MADV_DONTNEED).unwrap();
        assert_eq!(all(addr), others);
        letters(addr, 1, 'A');
        assert_eq!(fault(addr + PAGE, access), Some(lost));
    }
    let private = map(&object, PRIVATE, 0, PIECE);
    letters(private, 1, 'a');
    assert_eq!(fault(private + PAGE, Access::Write), Some(lost));
    assert_eq!(look(private, 1) + &look(private + 2 * PAGE, 2), "aCD");
    assert_eq!(object.stats().unwrap().pages, 2 * PIECE as u64);
    object.punch_hole(0..(PIECE * PAGE) as u64).unwrap();
    assert_eq!(object.stats().unwrap().pages, PIECE as u64);
    assert_eq!(look(addr, PIECE), "0".repeat(PIECE));
    Ok(())
}

/// A page is moved with what is in it, where it is mapped and where not, written to since it was looked at or
/// not (`migrate_folio`, `release_folio`).
fn pages_move(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = lab.open(4);
    let bytes = 0..4 * PAGE as u64;
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 4, 'A');
    let frames = [0, 1, 2, 3].map(|page| frame(addr + page * PAGE));
    // One mapped, one not, one of which it was told that it was written to, and one that nobody has moved.
    assert!(soft_offline(frames[0])?);
    assert_ne!(frame(addr), frames[0]);
    unmap(addr, 4);
    assert!(soft_offline(frames[1])?);
    assert_eq!(
        object.take_written(bytes.clone()).unwrap().ranges,
        [bytes.clone()]
    );
    assert!(soft_offline(frames[2])?);
    let again = map(&object, SHARED, 0, 4);
    assert_eq!(look(again, 4), "ABCD");
    for (page, old) in frames[..3].iter().enumerate() {
        assert_ne!(frame(again + page * PAGE), *old, "page {page}");
    }
    assert_eq!(frame(again + 3 * PAGE), frames[3]);
    lab.check_pages(&object, 4);
    // A write before the move is told of after it.
    let last = 3 * PAGE as u64..4 * PAGE as u64;
    assert!(!object.take_written(bytes).unwrap().ranges.is_empty());
    letters(again + 3 * PAGE, 1, 'd');
    assert!(soft_offline(frames[3])?);
    assert_eq!(object.take_written(last.clone()).unwrap().ranges, [last]);
    assert_eq!(look(again, 4), "ABCd");
    // One that was allocated ahead and that nobody has used.
    let ahead = lab.open(2);
    ahead.allocate(0..2 * PAGE as u64).unwrap();
    let addr = map(&ahead, SHARED, 0, 2);
    look(addr, 1);
    let old = frame(addr);
    unmap(addr, 2);
    assert!(soft_offline(old)?);
    lab.check_pages(&ahead, 2);
    let addr = map(&ahead, SHARED, 0, 2);
    assert_eq!(look(addr, 2), "00");
    assert_ne!(frame(addr), old);
    lab.check_pages(&ahead, 2);
    Ok(())
}

/// Frames stay where they are mapped: nobody would know where to map them anew.
fn frames_stay(lab: &Lab) -> Verdict {
    const PAGES: usize = 16;

    let object = lab.open(PAGES);
    object.set_area_flags(AreaFlags::PFNMAP).unwrap();
    let addr = map(&object, SHARED, 0, PAGES);
    let before = written_and_not_mapped();
    letters(addr, PAGES, 'a');
    let mut stayed = 0;
    for frame in written_and_not_mapped() {
        // Ours, and what came to be of others meanwhile, which may move.
        if before.binary_search(&frame).is_err() && !soft_offline(frame)? {
            stayed += 1;
        }
    }
    assert!(stayed >= PAGES, "{stayed} frames stayed");
    // Still the pages of the object.
    letters(addr, PAGES, 'A');
    let mut bytes = vec![0; PAGES * PAGE];
    object.read_at(&mut bytes, 0).unwrap();
    for (page, bytes) in bytes.chunks(PAGE).enumerate() {
        assert!(
            bytes.iter().all(|byte| *byte == b'A' + page as u8),
            "page {page}"
        );
    }
    Ok(())
}

/// A mapping that is long enough for a huge page begins where one fits (`thp_get_unmapped_area`).
fn where_huge_pages_fit(lab: &Lab) -> Verdict {
    const HUGE: usize = 512;
    for kind in KINDS {
        let object = lab.open(3 * HUGE);
        for from in [0, 1, HUGE - 1] {
            // Shorter ones are moved in between, so that it is no accident.
            let short = map(&object, kind, 0, 1);
            let addr = map(&object, kind, from, 2 * HUGE);
            assert_eq!((addr / PAGE) % HUGE, from, "{addr:#x}");
            // Where it is told to begin, it does.
            let told = addr + PAGE;
            assert_eq!(
                try_map(&object, told, 2 * HUGE, RW, kind | libc::MAP_FIXED, 0),
                Ok(told)
            );
            unmap(addr, 2 * HUGE + 1);
            assert_eq!(look(short, 1), "0");
        }
    }
    Ok(())
}
