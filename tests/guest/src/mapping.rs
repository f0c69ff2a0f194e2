// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Everything else that is done with a mapping: mmap over it, mremap, mprotect, madvise, mlock.

use nix::errno::Errno;

use crate::{
    lab::{Lab, Subject},
    mem::*,
    run::{Skip, Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("mapping::fixed_over_it", fixed_over_it),
    Test::both("mapping::mremap_moves", mremap_moves),
    Test::both("mapping::mremap_grows", mremap_grows),
    Test::both("mapping::mremap_shrinks", mremap_shrinks),
    Test::both(
        "mapping::mremap_leaves_the_old_place",
        mremap_leaves_the_old_place,
    ),
    Test::both(
        "mapping::mremap_of_nothing_duplicates",
        mremap_of_nothing_duplicates,
    ),
    Test::both("mapping::mremap_of_several_areas", mremap_of_several),
    Test::both("mapping::mprotect", mprotect),
    Test::both("mapping::madvise_dontneed", madvise_dontneed),
    Test::both("mapping::mlock", mlock),
    Test::both("mapping::populate", populate),
    Test::both("mapping::msync", msync),
    Test::both("mapping::wrong_arguments", wrong_arguments),
];

/// The object of six pages with the letters A to F, and a mapping of it.
fn six(lab: &Lab, kind: i32) -> (vmalab::Device, usize) {
    let object = lab.open(6);
    let addr = map(&object, kind, 0, 6);
    letters(addr, 6, 'A');
    (object, addr)
}

fn fixed_over_it(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        map_anonymous(addr + 2 * PAGE, 1, RW, libc::MAP_FIXED).unwrap();
        assert_eq!(look(addr, 6), "AB0DEF");
        lab.check_areas(&object, 2);

        // Another object, then the same one with other pages.
        let other = lab.open(2);
        try_map(&other, addr + 4 * PAGE, 2, RW, SHARED | libc::MAP_FIXED, 0).unwrap();
        assert_eq!(look(addr, 6), "AB0D00");
        lab.check_areas(&other, 1);
        try_map(&object, addr, 1, RW, SHARED | libc::MAP_FIXED, 5).unwrap();
        assert_eq!(
            look(addr, 6),
            if kind == SHARED { "FB0D00" } else { "0B0D00" }
        );
        lab.check_areas(&object, 3);

        let taken = try_map(&object, addr, 1, RW, SHARED | libc::MAP_FIXED_NOREPLACE, 0);
        assert_eq!(taken, Err(Errno::EEXIST));
        unmap(addr, 6);
        lab.check_areas(&object, 0);
        lab.check_areas(&other, 0);
    }
    Ok(())
}

fn mremap_moves(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        let place = map_anonymous(0, 6, libc::PROT_NONE, 0).unwrap();
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(remap(addr, 6, 6, fixed, place), Ok(place));
        assert_eq!(
            (look(addr, 6), look(place, 6)),
            ("......".into(), "ABCDEF".into())
        );
        lab.check_areas(&object, 1);

        // A middle: the old area is split for it.
        let elsewhere = map_anonymous(0, 2, libc::PROT_NONE, 0).unwrap();
        assert_eq!(
            remap(place + 2 * PAGE, 2, 2, fixed, elsewhere),
            Ok(elsewhere)
        );
        assert_eq!(
            (look(place, 6), look(elsewhere, 2)),
            ("AB..EF".into(), "CD".into())
        );
        assert_eq!(layout(elsewhere, 2), [(0, 2, 2)]);
        lab.check_areas(&object, 3);
        letters(elsewhere, 1, 'x');
        assert_eq!(look(elsewhere, 2), "xD");
    }
    Ok(())
}

fn mremap_grows(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(5);
        letters(map(&object, SHARED, 0, 5), 5, 'A');
        // In place, into a hole that is there for sure.
        let place = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
        unmap(place, 8);
        let addr = try_map(&object, place, 2, RW, kind | libc::MAP_FIXED_NOREPLACE, 0).unwrap();
        assert_eq!(remap(addr, 2, 4, 0, 0), Ok(addr));
        assert_eq!(look(addr, 5), "ABCD.");
        assert_eq!(layout(addr, 5), [(0, 4, 0)]);
        // Something is in the way: only moving helps.
        map_anonymous(addr + 4 * PAGE, 1, RW, libc::MAP_FIXED).unwrap();
        assert_eq!(remap(addr, 4, 6, 0, 0), Err(Errno::ENOMEM));
        let moved = remap(addr, 4, 6, libc::MREMAP_MAYMOVE, 0).unwrap();
        assert_ne!(moved, addr);
        assert_eq!(
            (look(addr, 5), look(moved, 6)),
            ("....0".into(), "ABCDE!".into())
        );
        lab.check_areas(&object, 2);
    }
    Ok(())
}

fn mremap_shrinks(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        assert_eq!(remap(addr, 6, 2, 0, 0), Ok(addr));
        assert_eq!(look(addr, 6), "AB....");
        lab.check_areas(&object, 1);
    }
    Ok(())
}

fn mremap_leaves_the_old_place(lab: &Lab) -> Verdict {
    let (object, addr) = six(lab, SHARED);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    let moved = remap(addr, 6, 6, flags, 0).unwrap();
    // The old area is there, without its page table entries; the object fills them again.
    assert_eq!(
        (look(addr, 6), look(moved, 6)),
        ("ABCDEF".into(), "ABCDEF".into())
    );
    lab.check_areas(&object, 2);
    Ok(())
}

/// Shared only: of private areas the kernel refuses it, and logs a warning.
fn mremap_of_nothing_duplicates(lab: &Lab) -> Verdict {
    let (object, addr) = six(lab, SHARED);
    let copy = remap(addr, 0, 6, libc::MREMAP_MAYMOVE, 0).unwrap();
    letters(copy, 1, 'x');
    assert_eq!(
        (look(addr, 6), look(copy, 6)),
        ("xBCDEF".into(), "xBCDEF".into())
    );
    lab.check_areas(&object, 2);
    Ok(())
}

/// Of several areas, and the gaps between them, since 6.17 (`remap_move`).
fn mremap_of_several(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        unmap(addr + 2 * PAGE, 1);
        protect(addr + 4 * PAGE, 1, RO).unwrap();
        assert_eq!(layout(addr, 6).len(), 4);
        let to = map_anonymous(0, 6, libc::PROT_NONE, 0).unwrap();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        match remap(addr, 6, 6, flags, to) {
            Err(Errno::EFAULT) if lab.subject == Subject::Memfd => {
                return Err(Skip::new("this kernel moves one area at a time"));
            }
            moved => assert_eq!(moved, Ok(to)),
        }
        assert_eq!(look(addr, 6), "......");
        // What was in the way stays, where a gap comes.
        assert_eq!(look(to, 6), "AB!DEF");
        assert_eq!(protect(to + 2 * PAGE, 1, RW), Ok(()));
        assert_eq!(write_from_kernel(to + 4 * PAGE, b"x"), Err(Errno::EFAULT));
        lab.check_areas(&object, 4);
    }
    Ok(())
}

fn mprotect(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let (object, addr) = six(lab, kind);
        protect(addr + 2 * PAGE, 2, RO).unwrap();
        assert_eq!(layout(addr, 6), [(0, 2, 0), (2, 4, 2), (4, 6, 4)]);
        lab.check_areas(&object, 3);
        assert_eq!(
            fault(addr + 2 * PAGE, Access::Write),
            Some((libc::SIGSEGV, SEGV_ACCERR, true))
        );
        assert_eq!(fault(addr + 2 * PAGE, Access::Read), None);
        protect(addr + 3 * PAGE, 2, libc::PROT_NONE).unwrap();
        assert_eq!(look(addr, 6), "ABC!!F");
        lab.check_areas(&object, 4);
        protect(addr, 6, RW).unwrap();
        letters(addr, 6, 'U');
        assert_eq!(look(addr, 6), "UVWXYZ");
        unmap(addr, 6);
        lab.check_areas(&object, 0);
    }
    Ok(())
}

fn madvise_dontneed(lab: &Lab) -> Verdict {
    let (object, shared) = six(lab, SHARED);
    advise(shared, 6, libc::MADV_DONTNEED).unwrap();
    assert_eq!(look(shared, 6), "ABCDEF");
    lab.check_pages(&object, 6);

    let private = map(&object, PRIVATE, 0, 6);
    letters(private, 6, 'U');
    advise(private + PAGE, 4, libc::MADV_DONTNEED).unwrap();
    assert_eq!(look(private, 6), "UBCDEZ");
    Ok(())
}

fn mlock(lab: &Lab) -> Verdict {
    let locked = || kilobytes("/proc/self/status", "VmLck:") / (PAGE as u64 / 1024);
    let lock = |addr: usize, pages: usize| {
        // SAFETY: it changes no contents.
        Errno::result(unsafe { libc::mlock(pointer(addr).cast(), pages * PAGE) }).map(drop)
    };
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        let before = locked();
        match lock(addr, 6) {
            Err(Errno::ENOMEM | Errno::EPERM)
                if before == 0 && !nix::unistd::geteuid().is_root() =>
            {
                return Err(Skip::new("this user may not lock memory"));
            }
            result => result.unwrap(),
        }
        assert_eq!(locked() - before, 6);
        lab.check_pages(&object, 6);
        unmap(addr + 2 * PAGE, 2);
        assert_eq!(locked() - before, 4);
        // SAFETY: it changes no contents.
        assert_eq!(unsafe { libc::munlock(pointer(addr).cast(), PAGE) }, 0);
        assert_eq!(locked() - before, 3);
        assert_eq!(look(addr, 6), "00..00");
        unmap(addr, 6);
        assert_eq!(locked(), before);

        // Past the end of the object, there is nothing to lock.
        let addr = map(&object, kind, 5, 2);
        assert_eq!(lock(addr, 2), Err(Errno::ENOMEM));
        unmap(addr, 2);
    }
    Ok(())
}

fn populate(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = try_map(&object, 0, 6, RW, kind | libc::MAP_POPULATE, 0).unwrap();
        lab.check_pages(&object, 6);
        let faults = lab.hooks(&object).map(|hooks| hooks.fault);
        letters(addr, 6, 'A');
        assert_eq!(
            lab.hooks(&object).map(|hooks| hooks.fault),
            faults,
            "all were there already"
        );
        assert_eq!(look(addr, 6), "ABCDEF");

        // It stops at the end of the object, and that is no error.
        let past = try_map(&object, 0, 2, RW, kind | libc::MAP_POPULATE, 5).unwrap();
        assert_eq!(look(past, 2), if kind == SHARED { "F!" } else { "0!" });
    }
    Ok(())
}

fn msync(lab: &Lab) -> Verdict {
    let (_object, addr) = six(lab, SHARED);
    // SAFETY: it changes no contents.
    let sync = |flags| Errno::result(unsafe { libc::msync(pointer(addr).cast(), 6 * PAGE, flags) });
    assert_eq!(sync(libc::MS_ASYNC), Ok(0));
    assert_eq!(sync(libc::MS_INVALIDATE), Ok(0));
    assert_eq!(sync(libc::MS_SYNC), Ok(0));
    unmap(addr + PAGE, 1);
    assert_eq!(sync(libc::MS_ASYNC), Err(Errno::ENOMEM));
    assert_eq!(sync(libc::MS_SYNC), Err(Errno::ENOMEM));
    Ok(())
}

fn wrong_arguments(lab: &Lab) -> Verdict {
    let object = lab.open(2);
    assert_eq!(try_map(&object, 0, 0, RW, SHARED, 0), Err(Errno::EINVAL));
    assert_eq!(try_map(&object, 0, 1, RW, 0, 0), Err(Errno::EINVAL));
    assert_eq!(
        try_map(&object, 1, 1, RW, SHARED | libc::MAP_FIXED, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        try_map(&object, 0, 1 << 40, RW, SHARED, 0),
        Err(Errno::ENOMEM)
    );
    // No pages of 2 MiB here.
    assert_eq!(
        try_map(&object, 0, 1, RW, SHARED | libc::MAP_HUGETLB, 0),
        Err(Errno::EINVAL)
    );
    lab.check_areas(&object, 0);
    Ok(())
}
