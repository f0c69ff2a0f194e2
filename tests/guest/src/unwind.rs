// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the kernel does when a hook refuses: each of its error paths is reached by a rule, and what remains
//! is what the source of 7.2 says. Each test names the function that unwinds.

use std::{
    fs::{self, File},
    io::IoSliceMut,
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::{Pid, pipe},
};
use vmalab::{AreaFlags, Device, Hook, HookCounts, HookSet};

use crate::{
    core::{Core, mark},
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
    steer::both_nodes,
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("unwind::munmap_second_split", munmap_second_split),
    Test::device("unwind::munmap_first_split", munmap_first_split),
    Test::device(
        "unwind::map_fixed_over_what_cannot_be_split",
        map_fixed_split,
    ),
    Test::device("unwind::mmap_fails_when_the_old_is_gone", mmap_fails),
    Test::device("unwind::mapped_fails", mapped_fails),
    Test::device("unwind::mmap_fails_and_its_charge_stays", charge_stays),
    Test::device("unwind::mremap_may_not_split", mremap_split),
    Test::device("unwind::mremap_refused_after_the_move", mremap_back),
    Test::device("unwind::mremap_refused_over_others", mremap_over_others),
    Test::device("unwind::mremap_cannot_cut_out_the_old", mremap_old_stays),
    Test::device("unwind::mprotect_of_the_second_area", mprotect_second),
    Test::device("unwind::mprotect_may_not_split", mprotect_split),
    Test::device(
        "unwind::mlock_and_madvise_may_not_split",
        mlock_madvise_split,
    ),
    Test::device("unwind::a_fault_in_a_system_call", fault_in_call),
    Test::device("unwind::retry", retry),
    Test::device("unwind::tried_again", tried_again),
    Test::device("unwind::out_of_memory", oom).logs(),
    Test::device("unwind::failed_memory", hwpoison).logs(),
    Test::device("unwind::page_mkwrite", page_mkwrite),
    Test::device("unwind::map_pages", map_pages),
    Test::device("unwind::populate_and_mlock", populate),
    Test::device("unwind::core_dump", core_dump).logs(),
    Test::device("unwind::mincore_and_soft_dirty", soft_dirty),
    Test::device("unwind::random", random).logs(),
];

/// An object of eight pages, `A` to `H`, mapped as a whole in the middle of 16 pages that are free.
fn eight(object: &Device, kind: i32) -> usize {
    let place = map_anonymous(0, 16, libc::PROT_NONE, 0).unwrap();
    let addr = place + 4 * PAGE;
    try_map(object, addr, 8, RW, kind | libc::MAP_FIXED, 0).unwrap();
    unmap(place, 4);
    unmap(addr + 8 * PAGE, 4);
    letters(addr, 8, 'A');
    addr
}

/// Both nodes and both kinds.
fn each(lab: &Lab, body: impl Fn(&Device, i32, usize)) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            let addr = eight(&object, kind);
            body(&object, kind, addr);
            object.clear_rules().unwrap();
            unmap(addr, 8);
            lab.check_areas(&object, 0);
        }
    }
    Ok(())
}

/// The calls of one step.
fn did(object: &Device, step: impl FnOnce()) -> HookCounts {
    let before = object.stats().unwrap().hooks;
    step();
    object.stats().unwrap().hooks.since(before)
}

fn bytes(from: u64, to: u64) -> std::ops::Range<u64> {
    from * PAGE as u64..to * PAGE as u64
}

/// `vms_gather_munmap_vmas`: the area is split at the begin of the range, and not at its end. What was
/// detached is attached again (`reattach_vmas`); the split stays.
fn munmap_second_split(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        object
            .steer(Hook::MaySplit)
            .nth(2)
            .errno(libc::EINVAL)
            .once()
            .unwrap();
        let did = did(object, || {
            assert_eq!(try_unmap(addr + 2 * PAGE, 3 * PAGE), Err(Errno::EINVAL));
        });
        assert_eq!((did.may_split, did.open, did.close), (2, 1, 0));
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 8, 2)]);
        assert_eq!(look(addr, 8), "ABCDEFGH");
        // The next time it is possible, and the first split is there already.
        unmap(addr + 2 * PAGE, 3);
        assert_eq!(look(addr, 8), "AB...FGH");
    })
}

/// The same at the begin: nothing has happened.
fn munmap_first_split(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        // An errno that munmap has nowhere of its own comes through.
        object
            .steer(Hook::MaySplit)
            .errno(libc::EXDEV)
            .once()
            .unwrap();
        let did = did(object, || {
            assert_eq!(try_unmap(addr + 2 * PAGE, 3 * PAGE), Err(Errno::EXDEV));
        });
        assert_eq!((did.may_split, did.open, did.close), (1, 0, 0));
        assert_eq!(layout(addr, 8), [(0, 8, 0)]);
        // By the place, not by the number: the end of a head.
        object
            .steer(Hook::MaySplit)
            .within(bytes(3, 4))
            .errno(libc::EBUSY)
            .once()
            .unwrap();
        assert_eq!(try_unmap(addr, 2 * PAGE), Ok(()));
        assert_eq!(try_unmap(addr, 3 * PAGE), Err(Errno::EBUSY));
        assert_eq!(look(addr, 8), "..CDEFGH");
    })
}

/// `__mmap_setup`: the same gathering, before anything is charged or unmapped.
fn map_fixed_split(lab: &Lab) -> Verdict {
    each(lab, |object, kind, addr| {
        let over = |file: bool| match file {
            true => try_map(object, addr + 2 * PAGE, 3, RW, kind | libc::MAP_FIXED, 0),
            false => map_anonymous(addr + 2 * PAGE, 3, RW, libc::MAP_FIXED),
        };
        for file in [false, true] {
            object
                .steer(Hook::MaySplit)
                .errno(libc::EINVAL)
                .once()
                .unwrap();
            let did = did(object, || assert_eq!(over(file), Err(Errno::EINVAL)));
            assert_eq!((did.mmap, did.may_split, did.close), (0, 1, 0));
            assert_eq!(layout(addr, 8), [(0, 8, 0)]);
        }
        object
            .steer(Hook::MaySplit)
            .nth(2)
            .errno(libc::EINVAL)
            .once()
            .unwrap();
        assert_eq!(over(false), Err(Errno::EINVAL));
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 8, 2)]);
        assert_eq!(look(addr, 8), "ABCDEFGH");
    })
}

/// `__mmap_region`: when the handler is asked, of either generation, `vms_clean_up_area` has removed the
/// pages of what was there, and closed it. So `vms_abort_munmap_vmas` cannot attach it again: a hole
/// remains.
fn mmap_fails(lab: &Lab) -> Verdict {
    each(lab, |object, kind, addr| {
        object.steer(Hook::Mmap).errno(libc::ENXIO).once().unwrap();
        let did = did(object, || {
            let result = try_map(object, addr + 2 * PAGE, 3, RW, kind | libc::MAP_FIXED, 0);
            assert_eq!(result, Err(Errno::ENXIO));
        });
        assert_eq!((did.mmap, did.mapped, did.open, did.close), (1, 0, 2, 1));
        assert_eq!(look(addr, 8), "AB...FGH");
        assert_eq!(layout(addr, 8), [(0, 2, 0), (5, 8, 5)]);
        lab.check_areas(object, 2);
        // Where nothing was, nothing is.
        object.steer(Hook::Mmap).errno(libc::EPERM).once().unwrap();
        let result = try_map(object, addr + 2 * PAGE, 3, RW, kind | libc::MAP_FIXED, 0);
        assert_eq!(result, Err(Errno::EPERM));
        assert_eq!(layout(addr, 8), [(0, 2, 0), (5, 8, 5)]);
        lab.check_areas(object, 2);
    })
}

/// `mmap_action_finish`: the new area is there, and is unmapped again, with a `close`. What was there before
/// is gone, too.
fn mapped_fails(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let [_, object] = both_nodes(lab, 8);
        let addr = eight(&object, kind);
        object
            .steer(Hook::Mapped)
            .errno(libc::EOWNERDEAD)
            .once()
            .unwrap();
        let over = || try_map(&object, addr + 2 * PAGE, 3, RW, kind | libc::MAP_FIXED, 0);
        let calls = did(&object, || assert_eq!(over(), Err(Errno::EOWNERDEAD)));
        // Closed: the part that was there, and the new one.
        assert_eq!((calls.mmap, calls.mapped, calls.close), (1, 1, 2));
        assert_eq!(layout(addr, 8), [(0, 2, 0), (5, 8, 5)]);
        lab.check_areas(&object, 2);
        assert_eq!(over(), Ok(addr + 2 * PAGE));
        lab.check_areas(&object, 3);
        // Populating comes after it, and so not at all.
        object.steer(Hook::Mapped).errno(libc::EIO).once().unwrap();
        let calls = did(&object, || {
            let result = try_map(&object, 0, 8, RW, kind | libc::MAP_POPULATE, 0);
            assert_eq!(result, Err(Errno::EIO));
        });
        assert_eq!((calls.fault, calls.map_pages), (0, 0));
        // A range that makes a neighbour longer is no new area: `mapped` is not asked.
        unmap(addr + 5 * PAGE, 3);
        object.steer(Hook::Mapped).errno(libc::EIO).once().unwrap();
        let longer = try_map(&object, addr + 5 * PAGE, 1, RW, kind | libc::MAP_FIXED, 3);
        assert_eq!(longer, Ok(addr + 5 * PAGE));
        lab.check_areas(&object, 2);
    }
    Ok(())
}

/// `__mmap_setup` sets what the old areas have charged (`nr_accounted`) against the new charge. When the
/// handler fails then, only the difference is given back: the old charge is never.
fn charge_stays(lab: &Lab) -> Verdict {
    const PAGES: usize = 8;
    const TIMES: usize = 64;
    for object in both_nodes(lab, PAGES) {
        let committed = || kilobytes("/proc/meminfo", "Committed_AS:") as i64 * 1024 / PAGE as i64;
        let place = map_anonymous(0, PAGES, libc::PROT_NONE, 0).unwrap();
        let before = committed();
        for _ in 0..TIMES {
            map_anonymous(place, PAGES, RW, libc::MAP_FIXED).unwrap();
            object.steer(Hook::Mmap).errno(libc::EINVAL).once().unwrap();
            let result = try_map(&object, place, PAGES, RW, PRIVATE | libc::MAP_FIXED, 0);
            assert_eq!(result, Err(Errno::EINVAL));
            object.clear_rules().unwrap();
        }
        let lost = committed() - before;
        let expected = (TIMES * PAGES) as i64;
        // Others in the guest may have come or gone with a few.
        assert!(
            (lost - expected).abs() < expected / 4,
            "{lost} pages lost, not {expected}"
        );
        lab.row(
            "commit_charge_lost_by_a_failing_mmap",
            lost as f64 / TIMES as f64,
            "pages",
        );
    }
    Ok(())
}

const MAYMOVE: i32 = libc::MREMAP_MAYMOVE;
const FIXED: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
const DONTUNMAP: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;

/// `prep_move_vma` asks whether the part could be cut out, at its begin and at its end, before anything is
/// done.
fn mremap_split(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        let to = map_anonymous(0, 2, RW, 0).unwrap();
        for nth in [1, 2] {
            object
                .steer(Hook::MaySplit)
                .nth(nth)
                .errno(libc::EINVAL)
                .once()
                .unwrap();
            let did = did(object, || {
                let result = remap(addr + 2 * PAGE, 2, 2, MAYMOVE | libc::MREMAP_DONTUNMAP, 0);
                assert_eq!(result, Err(Errno::EINVAL));
            });
            assert_eq!((did.may_split, did.open, did.mremap), (nth, 0, 0));
            assert_eq!(layout(addr, 8), [(0, 8, 0)]);
            object.clear_rules().unwrap();
        }
        // But after what was at a fixed new place is gone (`mremap_to`).
        object
            .steer(Hook::MaySplit)
            .errno(libc::EINVAL)
            .once()
            .unwrap();
        assert_eq!(remap(addr + 2 * PAGE, 2, 2, FIXED, to), Err(Errno::EINVAL));
        assert_eq!(look(to, 2), "..");
        assert_eq!(look(addr, 8), "ABCDEFGH");
        // Shorter is munmap of the tail.
        object
            .steer(Hook::MaySplit)
            .errno(libc::EMLINK)
            .once()
            .unwrap();
        assert_eq!(remap(addr, 8, 5, 0, 0), Err(Errno::EMLINK));
        assert_eq!(look(addr, 8), "ABCDEFGH");
    })
}

/// `copy_vma_and_data`: the pages are at the new place when the hook is asked. They are moved back, copies
/// of a private area included, and the new area is unmapped in place of the old one.
fn mremap_back(lab: &Lab) -> Verdict {
    each(lab, |object, kind, addr| {
        // The page that the area has by itself, if it is private.
        letters(addr + 3 * PAGE, 1, 'x');
        let whole = "ABCxEFGH";
        // Out of the way of growing in place.
        let wall = map_anonymous(addr + 8 * PAGE, 1, RO, libc::MAP_FIXED_NOREPLACE).unwrap();
        let free = map_anonymous(0, 16, RO, 0).unwrap();
        unmap(free, 16);
        let moves = [
            (0, 8, 8, FIXED, free),
            (0, 8, 12, MAYMOVE, 0),
            (0, 8, 8, DONTUNMAP, 0),
            (2, 3, 3, FIXED, free),
            (6, 2, 5, MAYMOVE, 0),
        ];
        for (from, old, new, flags, to) in moves {
            object
                .steer(Hook::Mremap)
                .errno(libc::EL2HLT)
                .once()
                .unwrap();
            let did = did(object, || {
                let result = remap(addr + from * PAGE, old, new, flags, to);
                assert_eq!(result, Err(Errno::EL2HLT));
            });
            assert_eq!(
                (did.open, did.mremap, did.close),
                (1, 1, 1),
                "{from} {old} {new}"
            );
            assert_eq!(layout(addr, 8), [(0, 8, 0)]);
            assert_eq!(layout(free, 16), []);
            assert_eq!(look(addr, 8), whole);
            lab.check_areas(object, 1);
        }
        // The copies are still copies.
        if kind == PRIVATE {
            let seen = map(object, SHARED, 0, 8);
            assert_eq!(look(seen, 8), "00000000");
            unmap(seen, 8);
        }
        unmap(wall, 1);
    })
}

/// `mremap_to`: what was at the new place is gone before the move begins.
fn mremap_over_others(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        let other = lab.open(4);
        let to = map(&other, SHARED, 0, 4);
        letters(to, 4, 'w');
        object
            .steer(Hook::Mremap)
            .errno(libc::EBUSY)
            .once()
            .unwrap();
        assert_eq!(
            remap(addr + 4 * PAGE, 2, 2, FIXED, to + PAGE),
            Err(Errno::EBUSY)
        );
        assert_eq!(
            (look(addr, 8), look(to, 4)),
            ("ABCDEFGH".into(), "w..z".into())
        );
        lab.check_areas(&other, 2);
        lab.check_areas(object, 1);
        // What stands in the way can refuse, too: then nothing is moved.
        other
            .steer(Hook::MaySplit)
            .within(bytes(3, 4))
            .errno(libc::EPERM)
            .always()
            .unwrap();
        try_map(&other, to, 4, RW, SHARED | libc::MAP_FIXED, 0).unwrap();
        let did = did(object, || {
            assert_eq!(remap(addr, 2, 2, FIXED, to + PAGE), Err(Errno::EPERM));
        });
        assert_eq!((did.may_split, did.open, did.mremap), (0, 0, 0));
        assert_eq!(look(to, 4), "wxyz");
        other.clear_rules().unwrap();
        unmap(to, 4);
    })
}

/// `unmap_source_vma`: the part was asked for in `prep_move_vma`, but now it cannot be cut out. The move is
/// done, and mremap succeeds: both places are mapped, the old one without its pages.
fn mremap_old_stays(lab: &Lab) -> Verdict {
    each(lab, |object, kind, addr| {
        let free = map_anonymous(0, 2, RO, 0).unwrap();
        unmap(free, 2);
        // Asked at the begin and at the end; then split at the begin, and not at the end.
        object
            .steer(Hook::MaySplit)
            .nth(4)
            .errno(libc::EINVAL)
            .once()
            .unwrap();
        assert_eq!(remap(addr + 2 * PAGE, 2, 2, FIXED, free), Ok(free));
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 8, 2)]);
        assert_eq!(look(free, 2), "CD");
        // The copies of a private area are at the new place, the object's pages in both.
        let old = if kind == SHARED {
            "ABCDEFGH"
        } else {
            "AB00EFGH"
        };
        assert_eq!(look(addr, 8), old);
        lab.check_areas(object, 3);
        unmap(free, 2);
    })
}

/// `do_mprotect_pkey` goes area by area: those before the one that refuses are changed already.
fn mprotect_second(lab: &Lab) -> Verdict {
    each(lab, |object, kind, addr| {
        // Two areas: the middle is another part of the object.
        unmap(addr + 4 * PAGE, 4);
        try_map(object, addr + 4 * PAGE, 2, RW, kind | libc::MAP_FIXED, 6).unwrap();
        object
            .steer(Hook::Mprotect)
            .within(bytes(6, 8))
            .errno(libc::ETXTBSY)
            .once()
            .unwrap();
        let did = did(object, || {
            assert_eq!(protect(addr, 6, RO), Err(Errno::ETXTBSY))
        });
        assert_eq!(did.mprotect, 2);
        let write = |page: usize| write_from_kernel(addr + page * PAGE, b"w");
        assert_eq!(
            (write(0), write(3)),
            (Err(Errno::EFAULT), Err(Errno::EFAULT))
        );
        assert_eq!((write(4), write(5)), (Ok(()), Ok(())));
        // Of the first: nothing has changed.
        object
            .steer(Hook::Mprotect)
            .errno(libc::EPERM)
            .once()
            .unwrap();
        assert_eq!(protect(addr, 6, RW), Err(Errno::EPERM));
        assert_eq!(write(0), Err(Errno::EFAULT));
        unmap(addr, 6);
    })
}

/// `vma_modify` splits the head off, then the tail; the protection is written after both.
fn mprotect_split(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        for (nth, expected) in [(1, &[(0, 8, 0)][..]), (2, &[(0, 2, 0), (2, 8, 2)])] {
            object
                .steer(Hook::MaySplit)
                .nth(nth)
                .errno(libc::ERANGE)
                .once()
                .unwrap();
            let did = did(object, || {
                assert_eq!(protect(addr + 2 * PAGE, 3, RO), Err(Errno::ERANGE));
            });
            assert_eq!((did.mprotect, did.may_split), (1, nth));
            assert_eq!(layout(addr, 8), expected);
            letters(addr, 8, 'A');
            object.clear_rules().unwrap();
        }
        // Where the piece that was split off is left as it was, the next call begins at its edge.
        protect(addr + 2 * PAGE, 3, RO).unwrap();
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 5, 2), (5, 8, 5)]);
    })
}

/// `mlock_fixup`, and `madvise_update_vma`, which calls ENOMEM EAGAIN.
fn mlock_madvise_split(lab: &Lab) -> Verdict {
    each(lab, |object, _, addr| {
        let lock = |page: usize, pages: usize| {
            // SAFETY: it changes no contents.
            let result = unsafe { libc::mlock(pointer(addr + page * PAGE).cast(), pages * PAGE) };
            Errno::result(result).map(drop)
        };
        let locked = || kilobytes("/proc/self/status", "VmLck:");
        for nth in [1, 2] {
            object
                .steer(Hook::MaySplit)
                .nth(nth)
                .errno(libc::EDOM)
                .once()
                .unwrap();
            assert_eq!(lock(2, 3), Err(Errno::EDOM));
            assert_eq!(locked(), 0);
            object.clear_rules().unwrap();
        }
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 8, 2)]);
        for (errno, expected) in [(libc::ENOMEM, Errno::EAGAIN), (libc::EDOM, Errno::EDOM)] {
            object.steer(Hook::MaySplit).errno(errno).once().unwrap();
            assert_eq!(
                advise(addr + 3 * PAGE, 1, libc::MADV_DONTFORK),
                Err(expected)
            );
        }
        assert_eq!(layout(addr, 8), [(0, 2, 0), (2, 8, 2)]);
        child(|| assert_eq!(look(addr, 8), "ABCDEFGH"));
    })
}

/// The kernel copies from or to the mapping: it gets as far as there are pages, or EFAULT. For
/// get_user_pages, that is `vm_fault_to_errno`.
fn fault_in_call(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            let addr = map(&object, kind, 0, 8);
            let (reader, writer) = pipe().unwrap();
            let write = |page: usize, pages: usize| {
                let from = pointer(addr + page * PAGE).cast();
                // SAFETY: the kernel checks the addresses.
                Errno::result(unsafe { libc::write(writer.as_raw_fd(), from, pages * PAGE) })
            };
            let read = |page: usize, pages: usize| {
                let to = pointer(addr + page * PAGE).cast();
                // SAFETY: as above; the mapping is only a test's own.
                Errno::result(unsafe { libc::read(reader.as_raw_fd(), to, pages * PAGE) })
            };
            let peek = |page: usize, pages: usize| {
                let at = [RemoteIoVec {
                    base: addr + page * PAGE,
                    len: pages * PAGE,
                }];
                process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0; 8 * PAGE])], &at)
            };
            let page = PAGE as isize;
            for answer in 0..2 {
                let rule = object.steer(Hook::Fault).within(bytes(1, 2));
                let rule = if answer == 0 {
                    rule.sigbus()
                } else {
                    rule.sigsegv()
                };
                rule.always().unwrap();
                assert_eq!(write(0, 3), Ok(page), "short");
                assert_eq!(read(0, 2), Ok(page), "all that is in the pipe");
                assert_eq!(write(1, 1), Err(Errno::EFAULT));
                assert_eq!(write(2, 2), Ok(2 * page));
                assert_eq!(read(0, 2), Ok(page), "short again");
                assert_eq!(read(1, 1), Err(Errno::EFAULT));
                // What could not be copied is not lost.
                assert_eq!(read(2, 1), Ok(page));
                assert_eq!(peek(0, 3), Ok(PAGE));
                assert_eq!(peek(1, 1), Err(Errno::EFAULT));
                let expected = if answer == 0 {
                    libc::SIGBUS
                } else {
                    libc::SIGSEGV
                };
                let (signal, _, right) = fault(addr + PAGE, Access::Read).unwrap();
                assert_eq!((signal, right), (expected, true));
                object.clear_rules().unwrap();
                assert_eq!(look(addr + PAGE, 1), "0");
                advise(addr, 8, libc::MADV_DONTNEED).unwrap();
                // Read pages would be mapped by map_pages.
                object.set_size(0).unwrap();
                object.set_size(8 * PAGE as u64).unwrap();
            }
        }
    }
    Ok(())
}

/// VM_FAULT_RETRY: the lock is let go of, and taken again; `fault` is called again. That is allowed once, and
/// for the processor once more, if it was under the lock of the area at first (`do_user_addr_fault` in
/// arch/x86/mm/fault.c).
fn retry(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            let addr = map(&object, kind, 0, 8);
            let rule = object.steer(Hook::Fault).retry().times(1000).unwrap();
            let fired = |step: &dyn Fn()| {
                let before = object.rule_counts(rule).unwrap();
                step();
                let now = object.rule_counts(rule).unwrap();
                (now.calls - before.calls, now.fired - before.fired)
            };
            // By the processor.
            // SAFETY: it is mapped.
            let write = |page: usize| unsafe { pointer(addr + page * PAGE).write_volatile(b'w') };
            assert_eq!(fired(&|| write(0)), (3, 2));
            // By the kernel for a system call.
            assert_eq!(
                fired(&|| write_from_kernel(addr + PAGE, b"k").unwrap()),
                (2, 1)
            );
            assert_eq!(
                fired(&|| drop(read_by_kernel(addr + 2 * PAGE, 1).unwrap())),
                (2, 1)
            );
            // By get_user_pages.
            let at = [RemoteIoVec {
                base: addr + 3 * PAGE,
                len: 2 * PAGE,
            }];
            let mut buffer = [1; 2 * PAGE];
            let got =
                || process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [1; 2 * PAGE])], &at);
            let calls = fired(&|| assert_eq!(got(), Ok(2 * PAGE)));
            assert_eq!(calls, (4, 2), "each page is an access");
            let again = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut buffer)], &at);
            assert_eq!((again, buffer), (Ok(2 * PAGE), [0; 2 * PAGE]));
            let populated =
                fired(&|| advise(addr + 5 * PAGE, 3, libc::MADV_POPULATE_WRITE).unwrap());
            assert!(populated.1 >= 1, "{populated:?}");
            assert_eq!((look_first(addr), look_first(addr + PAGE)), (b'w', b'k'));
        }
    }
    Ok(())
}

fn look_first(addr: usize) -> u8 {
    read_by_kernel(addr, 1).unwrap()[0]
}

/// VM_FAULT_NOPAGE without a page: the access is tried again until there is one.
fn tried_again(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            let addr = map(&object, kind, 0, 8);
            let rule = |times| object.steer(Hook::Fault).nopage().times(times).unwrap();
            let touches: [&dyn Fn(); 3] = [
                // SAFETY: it is mapped.
                &|| unsafe { pointer(addr).write_volatile(b'w') },
                &|| write_from_kernel(addr + PAGE, b"k").unwrap(),
                &|| advise(addr + 2 * PAGE, 1, libc::MADV_POPULATE_WRITE).unwrap(),
            ];
            for touch in touches {
                let rule = rule(100);
                assert_eq!(did(&object, touch).fault, 101);
                assert_eq!(object.rule_counts(rule).unwrap().fired, 100);
                object.clear_rules().unwrap();
            }
        }
    }
    Ok(())
}

/// VM_FAULT_OOM: nobody is killed for it (`pagefault_out_of_memory`): the processor tries again, what the
/// kernel does for a system call fails.
fn oom(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(8);
        let addr = map(&object, kind, 0, 8);
        object.steer(Hook::Fault).oom().times(3).unwrap();
        let calls = did(&object, || {
            // SAFETY: it is mapped.
            unsafe { pointer(addr).write_volatile(b'w') };
        });
        assert_eq!(calls.fault, 4);
        let step = || object.steer(Hook::Fault).oom().once().unwrap();
        step();
        assert_eq!(write_from_kernel(addr + PAGE, b"k"), Err(Errno::EFAULT));
        step();
        assert_eq!(
            advise(addr + 2 * PAGE, 1, libc::MADV_POPULATE_WRITE),
            Err(Errno::ENOMEM)
        );
        step();
        // SAFETY: it changes no contents.
        let locked = unsafe { libc::mlock(pointer(addr + 3 * PAGE).cast(), PAGE) };
        // `__mlock_posix_error_return`
        assert_eq!(Errno::result(locked), Err(Errno::EAGAIN));
        object.steer(Hook::MapPages).oom().times(2).unwrap();
        let other = map(&object, SHARED, 0, 1);
        let calls = did(&object, || {
            // SAFETY: it is mapped.
            unsafe { pointer(other).read_volatile() };
        });
        assert_eq!(calls.map_pages, 3);
    }
    Ok(())
}

/// VM_FAULT_HWPOISON: another code of the signal, and EHWPOISON for who asks to be told
/// (`vm_fault_to_errno`).
fn hwpoison(lab: &Lab) -> Verdict {
    let object = lab.open(8);
    let addr = map(&object, SHARED, 0, 8);
    object.steer(Hook::Fault).hwpoison().always().unwrap();
    assert_eq!(
        fault(addr, Access::Write),
        Some((libc::SIGBUS, BUS_MCEERR_AR, true))
    );
    assert_eq!(
        advise(addr, 1, libc::MADV_POPULATE_READ),
        Err(Errno::EHWPOISON)
    );
    assert_eq!(
        advise(addr, 1, libc::MADV_POPULATE_WRITE),
        Err(Errno::EHWPOISON)
    );
    assert_eq!(write_from_kernel(addr, b"k"), Err(Errno::EFAULT));
    // Only the administrator may have the machine seem broken.
    child(|| {
        nix::unistd::setuid(nix::unistd::Uid::from_raw(65534)).unwrap();
        let refused = object.steer(Hook::Fault).hwpoison().once().unwrap_err();
        assert_eq!(refused.errno(), libc::EPERM);
        object.steer(Hook::Fault).sigbus().nth(1000).once().unwrap();
    });
    object.clear_rules().unwrap();
    assert_eq!(look(addr, 1), "0");
    Ok(())
}

/// `do_page_mkwrite`: an error ends the access, NOPAGE has it tried again, and the page stays read-only.
fn page_mkwrite(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 8) {
        object.set_hooks(HookSet::PageMkwrite).unwrap();
        let addr = map(&object, SHARED, 0, 8);
        let write = |page: usize| write_from_kernel(addr + page * PAGE, b"w");
        let mkwrite = || object.steer(Hook::PageMkwrite);
        // In the same fault as the page comes, and in one of its own.
        for present in [false, true] {
            let first = if present { 4 } else { 0 };
            if present {
                assert_eq!(look(addr + 4 * PAGE, 4), "0000");
            }
            mkwrite().sigbus().once().unwrap();
            assert_eq!(write(first), Err(Errno::EFAULT));
            assert_eq!(look(addr + first * PAGE, 1), "0");
            let tries = |times| {
                did(&object, || {
                    mkwrite().nopage().times(times).unwrap();
                    assert_eq!(write(first + 1), Ok(()));
                })
            };
            assert_eq!(tries(5).page_mkwrite, 6);
            for (errno, signal) in [(0, libc::SIGBUS), (1, libc::SIGSEGV)] {
                let rule = mkwrite();
                let rule = if errno == 0 {
                    rule.sigbus()
                } else {
                    rule.sigsegv()
                };
                rule.once().unwrap();
                let (got, _, right) = fault(addr + (first + 2) * PAGE, Access::Write).unwrap();
                assert_eq!((got, right), (signal, true));
            }
            // Populating asks, too.
            mkwrite().sigbus().once().unwrap();
            assert_eq!(
                advise(addr + (first + 3) * PAGE, 1, libc::MADV_POPULATE_WRITE),
                Err(Errno::EFAULT)
            );
            assert_eq!(write(first + 3), Ok(()));
            object.clear_rules().unwrap();
        }
    }
    Ok(())
}

/// `do_fault_around`: nothing mapped has `fault` asked, and any other answer is the answer.
fn map_pages(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            letters(map(&object, SHARED, 0, 8), 8, 'A');
            let addr = map(&object, kind, 0, 8);
            let calls = |page: usize| {
                let did = did(&object, || _ = read_by_kernel(addr + page * PAGE, 1));
                (did.map_pages, did.fault)
            };
            object.steer(Hook::MapPages).nothing().times(2).unwrap();
            assert_eq!((calls(0), calls(1)), ((1, 1), (1, 1)));
            object.steer(Hook::MapPages).sigbus().once().unwrap();
            let (signal, _, right) = fault(addr + 2 * PAGE, Access::Read).unwrap();
            assert_eq!((signal, right), (libc::SIGBUS, true));
            object.steer(Hook::MapPages).nopage().times(4).unwrap();
            assert_eq!(calls(3), (5, 0));
            assert_eq!(calls(4), (0, 0), "mapped with it");
            assert_eq!(look(addr, 8), "ABCDEFGH");
        }
    }
    Ok(())
}

/// `__mm_populate`: mmap ignores errors, mlock tells them in its own numbers
/// (`__mlock_posix_error_return`), and the area is locked all the same; `madvise_populate` tells them.
fn populate(lab: &Lab) -> Verdict {
    for kind in KINDS {
        for object in both_nodes(lab, 8) {
            object
                .steer(Hook::Fault)
                .within(bytes(2, 3))
                .sigbus()
                .always()
                .unwrap();
            for flags in [libc::MAP_POPULATE, libc::MAP_LOCKED] {
                object.set_size(0).unwrap();
                object.set_size(8 * PAGE as u64).unwrap();
                let addr = try_map(&object, 0, 8, RW, kind | flags, 0).unwrap();
                // As far as it came.
                lab.check_pages(&object, 2);
                assert_eq!(look(addr, 8), "00!00000");
                unmap(addr, 8);
            }
            let addr = map(&object, kind, 0, 8);
            let lock = |page: usize| {
                // SAFETY: it changes no contents.
                let result = unsafe { libc::mlock(pointer(addr + page * PAGE).cast(), 2 * PAGE) };
                Errno::result(result)
            };
            assert_eq!(lock(1), Err(Errno::ENOMEM));
            assert_eq!(kilobytes("/proc/self/status", "VmLck:"), 8);
            for advice in [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE] {
                assert_eq!(advise(addr + PAGE, 3, advice), Err(Errno::EFAULT));
                assert_eq!(advise(addr + 3 * PAGE, 3, advice), Ok(()));
            }
            unmap(addr, 8);
        }
    }
    Ok(())
}

/// What of a process is in its core: `vma_dump_size`.
fn core_dump(lab: &Lab) -> Verdict {
    let marked = |kind, flags, which: u8| {
        let object = lab.open(1);
        object.set_area_flags(flags).unwrap();
        let addr = map(&object, kind, 0, 1);
        write_from_kernel(addr, &mark(which)).unwrap();
        object
    };
    // File-backed pages, too.
    let core = Core::of(Some("0x7f"), || {
        marked(SHARED, AreaFlags::empty(), b'n');
        marked(SHARED, AreaFlags::MIXEDMAP, b'm');
        marked(SHARED, AreaFlags::DONTDUMP, b'd');
        marked(SHARED, AreaFlags::IO, b'i');
    })?;
    assert_eq!(
        ['n', 'm', 'd', 'i'].map(|which| core.has(which as u8)),
        [true, true, false, false]
    );
    // Those that are dumped if nobody says otherwise: copies of private areas. The node has a link, so that a
    // shared area of it is one of a file.
    let core = Core::of(Some("0x33"), || {
        marked(SHARED, AreaFlags::empty(), b's');
        marked(PRIVATE, AreaFlags::empty(), b'p');
    })?;
    assert_eq!((core.has(b's'), core.has(b'p')), (false, true));
    Ok(())
}

/// Frames count as present (`mincore_pte_range`). Whether they were written to since is not seen
/// (`clear_refs_test_walk` passes such areas over), as it is of pages that the driver inserted.
fn soft_dirty(lab: &Lab) -> Verdict {
    const SOFT_DIRTY: u64 = 1 << 55;
    let object = lab.open(4);
    object.set_area_flags(AreaFlags::PFNMAP).unwrap();
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 2, 'A');
    let other = map(&object, SHARED, 0, 4);
    look(other + PAGE, 1);
    let mut present = [9; 4];
    // SAFETY: it writes one byte for each page.
    let result = unsafe { libc::mincore(pointer(other).cast(), 4 * PAGE, present.as_mut_ptr()) };
    assert_eq!(Errno::result(result), Ok(0));
    // Where there is no entry in the page table, the page cache is asked.
    assert_eq!(present.map(|byte| byte & 1), [1, 1, 0, 0]);

    let entry = |page: usize| entry_of(addr + page * PAGE);
    if entry(0) & SOFT_DIRTY == 0 {
        return Err(Skip::new("this kernel has no soft-dirty bits"));
    }
    fs::write("/proc/self/clear_refs", "4").unwrap();
    write_from_kernel(addr + PAGE, b"x").unwrap();
    assert_eq!((entry(0) & SOFT_DIRTY, entry(1) & SOFT_DIRTY), (0, 0));
    // What is counted is.
    let object = lab.open(4);
    object.set_area_flags(AreaFlags::MIXEDMAP).unwrap();
    let addr = map(&object, SHARED, 0, 4);
    look(addr, 4);
    let entry = |page: usize| entry_of(addr + page * PAGE);
    fs::write("/proc/self/clear_refs", "4").unwrap();
    assert_eq!((entry(0) & SOFT_DIRTY, entry(1) & SOFT_DIRTY), (0, 0));
    write_from_kernel(addr + PAGE, b"x").unwrap();
    assert_eq!(
        (entry(0) & SOFT_DIRTY, entry(1) & SOFT_DIRTY),
        (0, SOFT_DIRTY)
    );
    Ok(())
}

/// The entry of /proc/self/pagemap.
fn entry_of(addr: usize) -> u64 {
    let mut bytes = [0; 8];
    let file = File::open("/proc/self/pagemap").unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, (addr / PAGE) as u64 * 8).unwrap();
    u64::from_ne_bytes(bytes)
}

/// Random operations under random rules. After each, the module has counted as many areas as there are; at
/// the end, nothing is left.
fn random(lab: &Lab) -> Verdict {
    const ARENA: usize = 48;
    const PAGES: usize = 16;
    const STEPS: usize = 3000;
    let mut errors = 0_u64;
    let objects = Iterator::chain(both_nodes(lab, PAGES).into_iter(), both_nodes(lab, PAGES));
    for (node, object) in objects.enumerate() {
        // The second time all areas are of frames.
        let always = if node < 2 {
            AreaFlags::empty()
        } else {
            AreaFlags::PFNMAP
        };
        object.set_area_flags(always).unwrap();
        let arena = map_anonymous(0, ARENA, libc::PROT_NONE, 0).unwrap();
        unmap(arena, ARENA);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 + node as u64;
        let mut next = |below: usize| {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for step in 0..STEPS {
            let page = next(ARENA - 8);
            let (at, pages, from) = (arena + page * PAGE, 1 + next(8), next(PAGES));
            let kind = KINDS[next(2)];
            let failed = match next(14) {
                0..=2 => {
                    let populate = [0, libc::MAP_POPULATE][next(2)];
                    let prot = [RW, RO, libc::PROT_NONE][next(3)];
                    try_map(
                        &object,
                        at,
                        pages,
                        prot,
                        kind | libc::MAP_FIXED | populate,
                        from,
                    )
                    .is_err()
                }
                3 => try_unmap(at, pages * PAGE).is_err(),
                4 => protect(at, pages, [RW, RO][next(2)]).is_err(),
                5 => {
                    let to = arena + next(ARENA - 8) * PAGE;
                    let flags = [FIXED, FIXED | libc::MREMAP_DONTUNMAP][next(2)];
                    remap(at, pages, pages, flags, to).is_err()
                }
                6 => remap(at, pages, 1 + next(8), 0, 0).is_err(),
                7 => {
                    let advice = [
                        libc::MADV_DONTFORK,
                        libc::MADV_DOFORK,
                        libc::MADV_DONTNEED,
                        libc::MADV_POPULATE_READ,
                        libc::MADV_POPULATE_WRITE,
                    ];
                    advise(at, pages, advice[next(5)]).is_err()
                }
                8 => write_from_kernel(at, b"w").is_err(),
                9 => read_by_kernel(at, 1).is_err(),
                10 => object.set_size(((1 + next(PAGES)) * PAGE) as u64).is_err(),
                11 => {
                    let sets = [
                        AreaFlags::empty(),
                        AreaFlags::IO,
                        AreaFlags::NEVER_WRITE,
                        AreaFlags::MIXEDMAP,
                        AreaFlags::DONTEXPAND | AreaFlags::DONTCOPY,
                    ];
                    object
                        .set_hooks([HookSet::empty(), HookSet::PageMkwrite][next(2)])
                        .unwrap();
                    object.set_area_flags(sets[next(5)] | always).is_err()
                }
                12 if step % 16 == 0 => {
                    child(|| drop(look(arena, ARENA)));
                    false
                }
                _ => {
                    if next(8) == 0 {
                        object.clear_rules().unwrap();
                    }
                    let hook = Hook::ALL[next(Hook::ALL.len())];
                    let rule = object.steer(hook).nth(1 + next(3) as u64);
                    let rule = match next(3) {
                        0 => rule.within(bytes(from as u64, from as u64 + 4)),
                        _ => rule,
                    };
                    let rule = match next(9) {
                        0..=3 => rule.errno([libc::EINVAL, libc::ENOMEM, libc::EINTR][next(3)]),
                        4 => rule.sigbus(),
                        5 => rule.nopage(),
                        6 => rule.retry(),
                        7 => rule.oom(),
                        _ => rule.delay(std::time::Duration::from_micros(50)),
                    };
                    // Many a hook has no such answer.
                    rule.times(1 + next(3) as u64).is_err()
                }
            };
            errors += u64::from(failed);
            assert_eq!(
                object.stats().unwrap().areas,
                layout(arena, ARENA).len() as u64,
                "areas after step {step} of node {node}"
            );
        }
        object.clear_rules().unwrap();
        unmap(arena, ARENA);
        lab.check_areas(&object, 0);
    }
    lab.row("random_steps_that_failed", errors as f64, "steps");
    Ok(())
}
