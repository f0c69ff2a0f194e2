// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Which pages were written: `VMALAB_IOC_WRITTEN`.

use std::{
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_writev, pwrite},
    unistd::Pid,
};
use vmalab::{Device, HookSet, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("written::exactly_what_was_written", exactly),
    Test::device("written::in_whatever_way", in_whatever_way),
    Test::device("written::what_is_unmapped_counts", what_is_unmapped),
    Test::device("written::looking_changes_nothing", looking),
    Test::device("written::little_space", little_space),
    Test::device("written::after_efault_nothing_is_lost", after_efault),
    Test::device("written::wrong_arguments", wrong_arguments),
    Test::device(
        "written::copies_while_others_write",
        copies_while_others_write,
    ),
];

/// An object whose areas tell each first write, or one whose areas do not.
fn open(lab: &Lab, tracked: bool, pages: usize) -> Device {
    let object = lab.open(pages);
    if tracked {
        object.set_hooks(HookSet::PageMkwrite).unwrap();
    }
    object
}

/// The pages that were written, as `#` and `.`; from now on they are not.
fn take(object: &Device, pages: usize) -> String {
    show(
        &object
            .take_written(0..(pages * PAGE) as u64)
            .unwrap()
            .ranges,
        pages,
    )
}

fn show(ranges: &[std::ops::Range<u64>], pages: usize) -> String {
    let at = |page: usize| (page * PAGE) as u64;
    let mark = |page| {
        if ranges.iter().any(|range| range.contains(&at(page))) {
            '#'
        } else {
            '.'
        }
    };
    (0..pages).map(mark).collect()
}

/// Touches a page by the processor.
fn write(addr: usize) {
    // SAFETY: the callers give addresses that they have mapped.
    unsafe { pointer(addr).write_volatile(b'w') };
}

fn read(addr: usize) {
    // SAFETY: as in `write`.
    unsafe { pointer(addr).read_volatile() };
}

fn exactly(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = open(lab, true, 6);
    let addr = map(&object, SHARED, 0, 6);
    assert_eq!(take(&object, 6), "......");
    [1, 3, 4].map(|page| write(addr + page * PAGE));
    read(addr + 5 * PAGE);
    read(addr);
    let ranges = object.take_written(0..6 * PAGE as u64).unwrap().ranges;
    let page = PAGE as u64;
    assert_eq!(ranges, [page..2 * page, 3 * page..5 * page]);
    assert_eq!(take(&object, 6), "......");

    // Write-protected again: the next write is seen, each time, through every area.
    let other = map(&object, SHARED, 2, 4);
    for _ in 0..3 {
        write(addr + 3 * PAGE);
        write(addr + 3 * PAGE);
        write(other + 3 * PAGE);
        read(addr + PAGE);
        assert_eq!(take(&object, 6), "...#.#");
    }
    // A part only.
    [0, 5].map(|page| write(addr + page * PAGE));
    let part = object.take_written(page..6 * page).unwrap();
    assert_eq!(
        (show(&part.ranges, 6), part.end),
        (".....#".into(), 6 * page)
    );
    assert_eq!(take(&object, 6), "#.....");
    // Past the end is nothing.
    let all = object.take_written(0..100 * page).unwrap();
    assert_eq!((all.ranges, all.end), (vec![], 100 * page));
    let past = object.take_written(50 * page..60 * page).unwrap();
    assert_eq!((past.ranges, past.end), (vec![], 60 * page));
    Ok(())
}

fn in_whatever_way(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    for tracked in [true, false] {
        let object = open(lab, tracked, 8);
        let addr = map(&object, SHARED, 0, 8);
        for _ in 0..2 {
            write(addr);
            write_from_kernel(addr + PAGE, b"kernel").unwrap();
            assert_eq!(pwrite(&object, b"write", 2 * PAGE as i64), Ok(5));
            let there = [RemoteIoVec {
                base: addr + 3 * PAGE,
                len: 6,
            }];
            let from = [std::io::IoSlice::new(b"remote")];
            assert_eq!(process_vm_writev(Pid::this(), &from, &there), Ok(6));
            child(|| write(addr + 4 * PAGE));
            // A hole in a page is a write to it, a whole one is not.
            object
                .punch_hole(5 * PAGE as u64..5 * PAGE as u64 + 8)
                .unwrap();
            assert_eq!(
                take(&object, 8),
                if object.stats().unwrap().pages > 5 {
                    "######.."
                } else {
                    "#####..."
                }
            );
            // Copies are not the object.
            letters(map(&object, PRIVATE, 0, 8), 8, 'p');
            let seen = take(&object, 8);
            assert_eq!(seen, "........", "tracked: {tracked}");
        }
    }
    Ok(())
}

fn what_is_unmapped(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    for tracked in [true, false] {
        let object = open(lab, tracked, 6);
        let addr = map(&object, SHARED, 0, 6);
        (0..6).for_each(|page| write(addr + page * PAGE));
        assert_eq!(take(&object, 6), "######");
        (0..5).for_each(|page| write(addr + page * PAGE));
        advise(addr, 1, libc::MADV_DONTNEED).unwrap();
        unmap(addr + PAGE, 1);
        protect(addr + 2 * PAGE, 1, libc::PROT_NONE).unwrap();
        let moved = remap(addr + 3 * PAGE, 1, 2, libc::MREMAP_MAYMOVE, 0).unwrap();
        assert_eq!(take(&object, 6), "#####.", "tracked: {tracked}");
        write(moved);
        unmap(addr, 6);
        unmap(moved, 2);
        assert_eq!(take(&object, 6), "...#..", "tracked: {tracked}");
        assert_eq!(take(&object, 6), "......", "tracked: {tracked}");
        // A process that ends unmaps.
        child(|| write(map(&object, SHARED, 5, 1)));
        assert_eq!(take(&object, 6), ".....#", "tracked: {tracked}");
    }
    Ok(())
}

fn looking(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = open(lab, true, 4);
    let addr = map(&object, SHARED, 0, 4);
    write(addr + 2 * PAGE);
    for _ in 0..2 {
        let seen = object.written(0..4 * PAGE as u64).unwrap().ranges;
        assert_eq!(show(&seen, 4), "..#.");
    }
    assert_eq!(take(&object, 4), "..#.");
    Ok(())
}

/// VMALAB_IOC_WRITTEN with a range of pages and an array at `addr`.
fn call(
    object: &Device,
    pages: std::ops::Range<usize>,
    addr: usize,
    n_ranges: u32,
) -> Result<sys::vmalab_written, Errno> {
    let mut argument = sys::vmalab_written {
        offset: (pages.start * PAGE) as u64,
        length: (pages.len() * PAGE) as u64,
        ranges: addr as u64,
        n_ranges,
        flags: sys::VMALAB_WRITTEN_CLEAR,
    };
    // SAFETY: the kernel checks the address; those of the tests are their own.
    match unsafe { object.written_into(&mut argument) } {
        Ok(()) => Ok(argument),
        Err(error) => Err(Errno::from_raw(error.errno())),
    }
}

fn little_space(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = open(lab, true, 8);
    let addr = map(&object, SHARED, 0, 8);
    [0, 1, 3, 5, 6].map(|page| write(addr + page * PAGE));
    let mut space = [sys::vmalab_range::default(); 2];
    let at = space.as_mut_ptr().expose_provenance();
    let first = call(&object, 0..8, at, 1).unwrap();
    assert_eq!(
        (first.offset, first.length, first.n_ranges),
        (3 * PAGE as u64, 5 * PAGE as u64, 1)
    );
    assert_eq!((space[0].offset, space[0].length), (0, 2 * PAGE as u64));
    let rest = call(&object, 3..8, at, 2).unwrap();
    assert_eq!(
        (rest.offset, rest.length, rest.n_ranges),
        (8 * PAGE as u64, 0, 2)
    );
    assert_eq!(
        (space[0].offset, space[0].length),
        (3 * PAGE as u64, PAGE as u64)
    );
    assert_eq!(
        (space[1].offset, space[1].length),
        (5 * PAGE as u64, 2 * PAGE as u64)
    );

    // More ranges than one call of the kernel gives.
    const MANY: usize = 2000;
    let object = open(lab, true, MANY);
    (0..MANY).step_by(2).for_each(|page| {
        assert_eq!(pwrite(&object, b"x", (page * PAGE) as i64), Ok(1));
    });
    let all = object.take_written(0..(MANY * PAGE) as u64).unwrap();
    assert_eq!(
        (all.ranges.len(), all.end),
        (MANY / 2, (MANY * PAGE) as u64)
    );
    assert_eq!(take(&object, MANY), ".".repeat(MANY));
    Ok(())
}

fn after_efault(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = open(lab, true, 4);
    let addr = map(&object, SHARED, 0, 4);
    [0, 2].map(|page| write(addr + page * PAGE));
    for bad in [0, 8, usize::MAX - 4] {
        assert_eq!(call(&object, 0..4, bad, 4), Err(Errno::EFAULT));
    }
    // The structure itself cannot be written to.
    let read_only = map_anonymous(0, 1, RW, 0).unwrap();
    let mut space = [sys::vmalab_range::default(); 4];
    let argument = sys::vmalab_written {
        offset: 0,
        length: 4 * PAGE as u64,
        ranges: space.as_mut_ptr().expose_provenance() as u64,
        n_ranges: 4,
        flags: sys::VMALAB_WRITTEN_CLEAR,
    };
    // SAFETY: it is a page of our own, and the structure has no padding.
    unsafe {
        pointer(read_only)
            .cast::<sys::vmalab_written>()
            .write(argument)
    };
    protect(read_only, 1, RO).unwrap();
    // SAFETY: the kernel checks the address.
    let done = unsafe {
        libc::ioctl(
            object.as_raw_fd(),
            sys::VMALAB_IOC_WRITTEN.into(),
            pointer(read_only),
        )
    };
    assert_eq!(Errno::result(done), Err(Errno::EFAULT));
    // The answer into the object's own pages is a write to them.
    assert_eq!(
        call(&object, 0..4, addr + 3 * PAGE, 4).map(|done| done.n_ranges),
        Ok(2)
    );
    assert_eq!(take(&object, 4), "...#");
    Ok(())
}

fn wrong_arguments(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let mut space = [sys::vmalab_range::default(); 4];
    let right = sys::vmalab_written {
        offset: 0,
        length: 4 * PAGE as u64,
        ranges: space.as_mut_ptr().expose_provenance() as u64,
        n_ranges: 4,
        flags: 0,
    };
    for wrong in [
        sys::vmalab_written { offset: 1, ..right },
        sys::vmalab_written { length: 1, ..right },
        sys::vmalab_written {
            n_ranges: 0,
            ..right
        },
        sys::vmalab_written { flags: 2, ..right },
        sys::vmalab_written {
            offset: u64::MAX - PAGE as u64 + 1,
            ..right
        },
    ] {
        let mut argument = wrong;
        // SAFETY: the array has that many ranges.
        let error = unsafe { object.written_into(&mut argument) }.unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{wrong:?}");
    }
    // Who may only read must not have others fault again and again.
    let read_only = Device::open_read_only("/dev/vmalab").unwrap();
    for request in [Device::written, Device::take_written] {
        let error = request(&read_only, 0..PAGE as u64).unwrap_err();
        assert_eq!(error.errno(), libc::EBADF);
    }
    Ok(())
}

/// An incremental copy: what is taken is copied, and in the end the copy is what the object is. Threads
/// write through areas of both kinds, with write(2), and drop pages from the page table meanwhile.
fn copies_while_others_write(lab: &Lab) -> Verdict {
    const PAGES: usize = 64;
    let object = lab.open(PAGES);
    let plain = map(&object, SHARED, 0, PAGES);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let tracked = map(&object, SHARED, 0, PAGES);
    let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let end = (PAGES * PAGE) as u64;
    let mut copy = vec![0; PAGES * PAGE];
    let mut rounds = 0_u64;
    let copy_once = |copy: &mut [u8]| {
        for range in object.take_written(0..end).unwrap().ranges {
            let part = &mut copy[range.start as usize..range.end as usize];
            assert_eq!(object.read_at(part, range.start), Ok(part.len()));
        }
    };
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (object, done, writes) = (&object, &done, &writes);
            scope.spawn(move || {
                for step in 1_u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    // Each thread has words of its own in all pages.
                    let page = (step as usize * 7 + thread * 13) % PAGES;
                    let at = page * PAGE + thread * 8;
                    match thread {
                        // SAFETY: inside the mappings, aligned, and no other thread writes there.
                        0 => unsafe { pointer(plain + at).cast::<u64>().write_volatile(step) },
                        // SAFETY: as above.
                        1 => unsafe { pointer(tracked + at).cast::<u64>().write_volatile(step) },
                        2 => assert_eq!(pwrite(object, &step.to_ne_bytes(), at as i64), Ok(8)),
                        _ => {
                            let addr = if step % 2 == 0 { plain } else { tracked };
                            write_from_kernel(addr + at, &step.to_ne_bytes()).unwrap();
                            advise(addr + page * PAGE, 1, libc::MADV_DONTNEED).unwrap();
                        }
                    }
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let began = Instant::now();
        while rounds < 20 || began.elapsed() < Duration::from_secs(4) {
            copy_once(&mut copy);
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    copy_once(&mut copy);
    let mut all = vec![0; PAGES * PAGE];
    assert_eq!(object.read_at(&mut all, 0), Ok(all.len()));
    let lost: Vec<usize> = (0..PAGES)
        .filter(|page| copy[page * PAGE..][..PAGE] != all[page * PAGE..][..PAGE])
        .collect();
    assert!(
        lost.is_empty(),
        "last writes to pages {lost:?} were not told"
    );
    assert_eq!(
        take(&object, PAGES),
        ".".repeat(PAGES),
        "nobody writes any more"
    );
    let writes = writes.load(Ordering::Relaxed);
    assert!(writes > 100, "{writes} writes only");
    lab.row("writes during an incremental copy", writes as f64, "calls");
    lab.row("rounds of an incremental copy", rounds as f64, "calls");
    Ok(())
}
