// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Steering: flags of new areas, and what rules can be.
//!
//! What the kernel does when a hook refuses is in `unwind.rs`.

use std::{
    fs::File,
    io::IoSliceMut,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use vmalab::{AreaFlags, Device, Hook, HookSet, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("steer::pfnmap_reads_and_writes_the_object", pfnmap_contents),
    Test::device("steer::pfnmap_of_larger_pieces", pfnmap_pieces),
    Test::device("steer::pfnmap_is_lent_to_nobody", pfnmap_not_lent),
    Test::device("steer::pfnmap_refuses_what_would_be_copied", pfnmap_private),
    Test::device("steer::pfnmap_loses_its_frames", pfnmap_resize),
    Test::device("steer::pfnmap_while_shrinking", pfnmap_while_shrinking),
    Test::device("steer::pfn_mkwrite", pfn_mkwrite),
    Test::device("steer::mixedmap", mixedmap),
    Test::device("steer::dontexpand_and_dontcopy", dontexpand_dontcopy),
    Test::device("steer::never", never),
    Test::device("steer::special_areas_do_not_merge", no_merge),
    Test::device("steer::rules_that_are_refused", refused_rules),
    Test::device("steer::nth_within_and_how_often", counting),
    Test::device("steer::delays", delays),
];

const PREPARE: &str = "/dev/vmalab-prepare";

/// An object of either node.
pub(crate) fn both_nodes(lab: &Lab, pages: usize) -> [Device; 2] {
    let prepared = Device::open_at(PREPARE).unwrap();
    prepared.set_size((pages * PAGE) as u64).unwrap();
    [lab.open(pages), prepared]
}

/// How an access by the processor ends.
fn signal(addr: usize, access: Access) -> Option<i32> {
    fault(addr, access).map(|(signal, ..)| signal)
}

/// What is in the object, by `pread`.
fn contents(object: &Device, pages: usize) -> String {
    let mut bytes = vec![0; pages * PAGE];
    object.read_at(&mut bytes, 0).unwrap();
    let letter = |page: &[u8]| match page[0] {
        0 => '0',
        letter => char::from(letter),
    };
    bytes.chunks(PAGE).map(letter).collect()
}

fn pfnmap_contents(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 8) {
        object.write_at(&[b'A'; PAGE], 0).unwrap();
        object.write_at(&[b'B'; PAGE], PAGE as u64).unwrap();
        object.set_area_flags(AreaFlags::PFNMAP).unwrap();
        assert_eq!(object.area_flags().unwrap(), AreaFlags::PFNMAP);
        let frames = map(&object, SHARED, 0, 8);
        // The same pages, in both directions; those that were not there come.
        assert_eq!(look(frames, 8), "AB000000");
        letters(frames + 2 * PAGE, 4, 'w');
        assert_eq!(contents(&object, 8), "ABwxyz00");
        assert_eq!(look(frames, 8), "ABwxyz00");
        lab.check_pages(&object, 8);
        // A copy of the area has them, too: fork copies the page table of such an area.
        child(|| {
            assert_eq!(look(frames, 8), "ABwxyz00");
            letters(frames, 1, 'c');
        });
        assert_eq!(contents(&object, 1), "c");
        // And a moved one.
        let to = map_anonymous(0, 8, RO, 0).unwrap();
        let moved = remap(frames, 8, 8, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to).unwrap();
        assert_eq!(look(moved, 8), "cBwxyz00");
        assert_eq!(signal(moved + PAGE, Access::Write), None);

        // Not the one and the other.
        object.set_area_flags(AreaFlags::empty()).unwrap();
        assert_eq!(try_map(&object, 0, 8, RW, SHARED, 0), Err(Errno::EBUSY));
        unmap(moved, 8);
        assert_eq!(try_map(&object, 0, 8, RW, PRIVATE, 0), Err(Errno::EBUSY));
        lab.check_areas(&object, 0);
    }
    let object = lab.open(1);
    let plain = map(&object, SHARED, 0, 1);
    object.set_area_flags(AreaFlags::PFNMAP).unwrap();
    assert_eq!(try_map(&object, 0, 1, RW, SHARED, 0), Err(Errno::EBUSY));
    assert_eq!(look(plain, 1), "0");
    Ok(())
}

/// What was allocated in larger pieces before there were frames is taken apart where it is mapped.
fn pfnmap_pieces(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 40) {
        object.set_folio_size(16 * PAGE as u64).unwrap();
        for page in 0..26 {
            let letters = [b'a' + page; PAGE];
            object
                .write_at(&letters, u64::from(page) * PAGE as u64)
                .unwrap();
        }
        lab.check_pages(&object, 32);
        object.set_area_flags(AreaFlags::PFNMAP).unwrap();
        let addr = map(&object, SHARED, 0, 40);
        // In the middle of a piece, at its end, and at its begin; then all.
        for (page, letter) in [(5, 'f'), (15, 'p'), (16, 'q')] {
            assert_eq!(look(addr + page * PAGE, 1), letter.to_string());
        }
        lab.check_pages(&object, 32);
        letters(addr + 7 * PAGE, 2, 'X');
        assert_eq!(look(addr, 26), "abcdefgXYjklmnopqrstuvwxyz");
        assert_eq!(look(addr + 26 * PAGE, 14), "0".repeat(14));
        assert_eq!(contents(&object, 9), "abcdefgXY");
        lab.check_pages(&object, 40);
        lab.resize(&object, 3);
        assert_eq!(look(addr, 4), "abc!");
        lab.resize(&object, 40);
        assert_eq!(look(addr, 4), "abc0");
    }
    Ok(())
}

/// `check_vma_flags` in mm/gup.c; populating and locking pass such areas over (`__mm_populate`,
/// `vma_supports_mlock`), and madvise refuses them.
fn pfnmap_not_lent(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    object.set_area_flags(AreaFlags::PFNMAP).unwrap();
    let addr = try_map(&object, 0, 4, RW, SHARED | libc::MAP_POPULATE, 0).unwrap();
    lab.check_pages(&object, 0);
    // SAFETY: it changes no contents.
    assert_eq!(unsafe { libc::mlock(pointer(addr).cast(), 4 * PAGE) }, 0);
    lab.check_pages(&object, 0);
    assert_eq!(kilobytes("/proc/self/status", "VmLck:"), 0);
    letters(addr, 4, 'A');

    let at = [RemoteIoVec { base: addr, len: 1 }];
    let got = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &at);
    assert_eq!(got, Err(Errno::EFAULT));
    let memory = File::open("/proc/self/mem").unwrap();
    let error = std::os::unix::fs::FileExt::read_at(&memory, &mut [0], addr as u64).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(
        advise(addr, 4, libc::MADV_POPULATE_READ),
        Err(Errno::EINVAL)
    );
    assert_eq!(advise(addr, 4, libc::MADV_DONTNEED), Err(Errno::EINVAL));
    // It cannot grow in place or elsewhere.
    assert_eq!(
        remap(addr, 4, 5, libc::MREMAP_MAYMOVE, 0),
        Err(Errno::EFAULT)
    );
    assert_eq!(look(addr, 4), "ABCD");
    Ok(())
}

fn pfnmap_private(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 4) {
        object.set_area_flags(AreaFlags::PFNMAP).unwrap();
        let shared = map(&object, SHARED, 0, 4);
        letters(shared, 4, 'A');
        assert_eq!(try_map(&object, 0, 4, RW, PRIVATE, 0), Err(Errno::EINVAL));
        // Nor what may become writable.
        assert_eq!(try_map(&object, 0, 4, RO, PRIVATE, 0), Err(Errno::EINVAL));
        object
            .set_area_flags(AreaFlags::PFNMAP | AreaFlags::NEVER_WRITE)
            .unwrap();
        assert_eq!(try_map(&object, 0, 4, RW, PRIVATE, 0), Err(Errno::EPERM));
        let private = try_map(&object, 0, 4, RO, PRIVATE, 0).unwrap();
        assert_eq!(look(private, 4), "ABCD");
        assert_eq!(protect(private, 4, RW), Err(Errno::EACCES));
        lab.check_areas(&object, 2);
        let both = AreaFlags::PFNMAP | AreaFlags::MIXEDMAP;
        assert_eq!(
            object.set_area_flags(both).unwrap_err().errno(),
            libc::EINVAL
        );
        let unknown = AreaFlags::from_bits_retain(1 << 40);
        assert_eq!(
            object.set_area_flags(unknown).unwrap_err().errno(),
            libc::EINVAL
        );
    }
    let reader = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(
        reader.set_area_flags(AreaFlags::IO).unwrap_err().errno(),
        libc::EBADF
    );
    Ok(())
}

/// `unmap_mapping_range` takes out frames as it takes out pages.
fn pfnmap_resize(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 8) {
        object.set_area_flags(AreaFlags::PFNMAP).unwrap();
        let addr = map(&object, SHARED, 0, 8);
        letters(addr, 8, 'A');
        lab.resize(&object, 3);
        lab.check_pages(&object, 3);
        assert_eq!(look(addr, 8), "ABC!!!!!");
        lab.resize(&object, 8);
        assert_eq!(look(addr, 8), "ABC00000");
        child(|| {
            lab.resize(&object, 1);
            assert_eq!(look(addr, 3), "A!!");
        });
        assert_eq!(look(addr, 3), "A!!");
        lab.resize(&object, 8);
        letters(addr, 8, 'a');
        object.punch_hole(3 * PAGE as u64..5 * PAGE as u64).unwrap();
        lab.check_pages(&object, 6);
        assert_eq!(look(addr, 8), "abc00fgh");
        letters(addr, 8, 'a');
        // Who asks which pages were written learns of all each time: nobody sees whether they were.
        for _ in 0..2 {
            let whole = 0..8 * PAGE as u64;
            assert_eq!(object.take_written(whole.clone()).unwrap().ranges, [whole]);
        }
        // What drops clean pages of the page cache leaves these alone, though the kernel does not see
        // that they are mapped.
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
        // So does what moves pages.
        let _ = std::fs::write("/proc/sys/vm/compact_memory", "1");
        letters(addr + PAGE, 1, 'X');
        assert_eq!(
            (contents(&object, 8), look(addr, 8)),
            ("aXcdefgh".into(), "aXcdefgh".into())
        );
    }
    Ok(())
}

/// Frames go into page tables while the object shrinks and grows: none is there when it is freed. Each
/// page says whose it is: a page that was freed and is somebody else's would say something else.
fn pfnmap_while_shrinking(_lab: &Lab) -> Verdict {
    const PAGES: usize = 64;
    let object = Device::open().unwrap();
    object.set_area_flags(AreaFlags::PFNMAP).unwrap();
    object.set_size((PAGES * PAGE) as u64).unwrap();
    let addr = map(&object, SHARED, 0, PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..2_usize {
            let done = &done;
            scope.spawn(move || {
                for step in (thread * 7..).step_by(5) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let page = step % PAGES;
                    let own = [page as u8 + 1];
                    let _ = write_from_kernel(addr + page * PAGE, &own);
                    if let Ok(got) = read_by_kernel(addr + page * PAGE, 2) {
                        assert!(got[0] == 0 || got[0] == own[0], "page {page} has {got:?}");
                        assert_eq!(got[1], 0, "page {page} has {got:?}");
                    }
                }
            });
        }
        scope.spawn(|| {
            // Takes what is freed, and writes to it.
            while !done.load(Ordering::Relaxed) {
                let other = map_anonymous(0, PAGES, RW, libc::MAP_POPULATE).unwrap();
                for page in 0..PAGES {
                    // SAFETY: it was mapped just above.
                    unsafe { pointer(other + page * PAGE).write_volatile(0xee) };
                }
                unmap(other, PAGES);
            }
        });
        for step in 0..3000 {
            let pages = 1 + step * 11 % PAGES;
            object.set_size((pages * PAGE) as u64).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// `wp_pfn_shared` in mm/memory.c.
fn pfn_mkwrite(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 4) {
        object.set_hooks(HookSet::PageMkwrite).unwrap();
        object.set_area_flags(AreaFlags::PFNMAP).unwrap();
        let addr = map(&object, SHARED, 0, 4);
        let calls = |step: &dyn Fn()| {
            let before = object.stats().unwrap().hooks;
            step();
            let did = object.stats().unwrap().hooks.since(before);
            (did.fault, did.pfn_mkwrite, did.page_mkwrite)
        };
        let write = |page: usize| write_from_kernel(addr + page * PAGE, b"w");
        assert_eq!(calls(&|| drop(read_by_kernel(addr, 1))), (1, 0, 0));
        assert_eq!(calls(&|| write(0).unwrap()), (0, 1, 0));
        assert_eq!(calls(&|| write(0).unwrap()), (0, 0, 0));
        // First inserted, for reading only; then asked.
        assert_eq!(calls(&|| write(1).unwrap()), (1, 1, 0));

        object.steer(Hook::PfnMkwrite).sigbus().once().unwrap();
        assert_eq!(
            calls(&|| assert_eq!(write(2), Err(Errno::EFAULT))),
            (1, 1, 0)
        );
        object.steer(Hook::PfnMkwrite).nopage().times(3).unwrap();
        assert_eq!(calls(&|| write(2).unwrap()), (0, 4, 0));
        object.steer(Hook::PfnMkwrite).sigsegv().once().unwrap();
        assert_eq!(signal(addr + 3 * PAGE, Access::Write), Some(libc::SIGSEGV));
    }
    Ok(())
}

/// Pages that the driver puts into the page table are counted and lent as any other.
fn mixedmap(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 8) {
        object.set_area_flags(AreaFlags::MIXEDMAP).unwrap();
        for kind in KINDS {
            let addr = map(&object, kind, 0, 8);
            assert_eq!(
                look(addr, 8),
                if kind == SHARED {
                    "00000000"
                } else {
                    "ABCD0000"
                }
            );
            letters(addr, 4, if kind == SHARED { 'A' } else { 'w' });
            let at = [RemoteIoVec { base: addr, len: 1 }];
            let mut byte = [0];
            let got = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut byte)], &at);
            assert_eq!(
                (got, byte[0]),
                (Ok(1), if kind == SHARED { b'A' } else { b'w' })
            );
            child(|| assert_eq!(look(addr + PAGE, 1), if kind == SHARED { "B" } else { "x" }));
            lab.resize(&object, 6);
            assert_eq!(look(addr + 5 * PAGE, 3), "0!!");
            lab.resize(&object, 8);
        }
        // With page_mkwrite, the kernel is given the page, and asks.
        object.set_hooks(HookSet::PageMkwrite).unwrap();
        let addr = map(&object, SHARED, 0, 8);
        let before = object.stats().unwrap().hooks.page_mkwrite;
        letters(addr, 1, 'M');
        assert_eq!(object.stats().unwrap().hooks.page_mkwrite, before + 1);
    }
    Ok(())
}

/// `vma_to_resize`/`check_prep_vma` in mm/mremap.c; `dup_mmap` in mm/mmap.c.
fn dontexpand_dontcopy(lab: &Lab) -> Verdict {
    for object in both_nodes(lab, 8) {
        object
            .set_area_flags(AreaFlags::DONTEXPAND | AreaFlags::DONTCOPY)
            .unwrap();
        for kind in KINDS {
            let addr = map(&object, kind, 0, 4);
            letters(addr, 4, 'A');
            assert_eq!(
                remap(addr, 4, 5, libc::MREMAP_MAYMOVE, 0),
                Err(Errno::EFAULT)
            );
            // Shorter, and elsewhere, it may be.
            assert_eq!(remap(addr, 4, 3, 0, 0), Ok(addr));
            let moved = remap(
                addr,
                3,
                3,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                map_anonymous(0, 3, RO, 0).unwrap(),
            )
            .unwrap();
            let before = object.stats().unwrap();
            child(|| {
                assert_eq!(look(moved, 3), "...");
                assert_eq!(layout(moved, 3), []);
                assert_eq!(object.stats().unwrap(), before);
            });
            assert_eq!(look(moved, 3), "ABC");
            unmap(moved, 3);
        }
        // The program may decide otherwise, if the memory is not special in another way.
        object
            .set_area_flags(AreaFlags::DONTCOPY | AreaFlags::DONTDUMP)
            .unwrap();
        let addr = map(&object, SHARED, 0, 1);
        child(|| assert_eq!(look(addr, 1), "."));
        advise(addr, 1, libc::MADV_DOFORK).unwrap();
        advise(addr, 1, libc::MADV_DODUMP).unwrap();
        child(|| assert_eq!(look(addr, 1), "A"));
        object
            .set_area_flags(AreaFlags::IO | AreaFlags::DONTCOPY | AreaFlags::DONTDUMP)
            .unwrap();
        let addr = map(&object, SHARED, 0, 1);
        assert_eq!(advise(addr, 1, libc::MADV_DOFORK), Err(Errno::EINVAL));
        assert_eq!(advise(addr, 1, libc::MADV_DODUMP), Err(Errno::EINVAL));
        letters(addr, 1, 'I');
        let at = [RemoteIoVec { base: addr, len: 1 }];
        let got = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut [0])], &at);
        assert_eq!(got, Err(Errno::EFAULT));
    }
    Ok(())
}

fn never(lab: &Lab) -> Verdict {
    let flags = [
        (AreaFlags::NEVER_READ, libc::PROT_READ),
        (AreaFlags::NEVER_WRITE, libc::PROT_WRITE),
        (AreaFlags::NEVER_EXEC, libc::PROT_EXEC),
    ];
    for object in both_nodes(lab, 4) {
        for (flag, prot) in flags {
            object.set_area_flags(flag).unwrap();
            for kind in KINDS {
                assert_eq!(try_map(&object, 0, 1, prot, kind, 0), Err(Errno::EPERM));
                let addr = try_map(&object, 0, 1, libc::PROT_NONE, kind, 0).unwrap();
                assert_eq!(protect(addr, 1, prot), Err(Errno::EACCES));
                for (other, prot) in flags {
                    if other != flag {
                        protect(addr, 1, prot).unwrap();
                    }
                }
                unmap(addr, 1);
            }
        }
        lab.check_areas(&object, 0);
    }
    Ok(())
}

/// `VM_SPECIAL` forbids all merges. Other flags must be equal, which they are not yet when the kernel tries,
/// if it is `.mmap` that sets them; with `.mmap_prepare` they are.
fn no_merge(lab: &Lab) -> Verdict {
    let special = [
        AreaFlags::MIXEDMAP,
        AreaFlags::PFNMAP,
        AreaFlags::IO,
        AreaFlags::DONTEXPAND,
    ];
    for node in 0..2 {
        let areas = |flags| {
            let object = &both_nodes(lab, 4)[node];
            object.set_area_flags(flags).unwrap();
            let place = map_anonymous(0, 4, libc::PROT_NONE, 0).unwrap();
            for page in [0, 2] {
                try_map(
                    object,
                    place + page * PAGE,
                    2,
                    RW,
                    SHARED | libc::MAP_FIXED,
                    page,
                )
                .unwrap();
            }
            let areas = layout(place, 4).len();
            unmap(place, 4);
            areas
        };
        assert_eq!(areas(AreaFlags::empty()), 1);
        for flags in special {
            assert_eq!(areas(flags), 2, "{flags:?}");
        }
        for flags in [
            AreaFlags::DONTCOPY,
            AreaFlags::DONTDUMP,
            AreaFlags::NEVER_EXEC,
        ] {
            assert_eq!(areas(flags), 2 - node, "{flags:?}");
        }
    }
    Ok(())
}

fn refused_rules(lab: &Lab) -> Verdict {
    let object = lab.open(4);
    let errno = |result: Result<vmalab::RuleId, vmalab::Error>| result.unwrap_err().errno();
    use Hook::*;
    for hook in [Open, Close, Fault, MapPages, PageMkwrite] {
        assert_eq!(
            errno(object.steer(hook).errno(libc::EINVAL).once()),
            libc::EINVAL,
            "{hook:?}"
        );
    }
    for hook in [Mmap, Open, Close, Mapped, MaySplit, Mremap, Mprotect] {
        assert_eq!(
            errno(object.steer(hook).sigbus().once()),
            libc::EINVAL,
            "{hook:?}"
        );
    }
    // The kernel's own numbers never come to user space.
    for error in [0, -1, 134, 512, 4095, i32::MAX] {
        assert_eq!(
            errno(object.steer(Mmap).errno(error).once()),
            libc::EINVAL,
            "{error}"
        );
    }
    for hook in [MapPages, PageMkwrite, Mprotect] {
        assert_eq!(
            errno(object.steer(hook).retry().once()),
            libc::EINVAL,
            "{hook:?}"
        );
    }
    let millisecond = Duration::from_millis(1);
    assert_eq!(
        errno(object.steer(MapPages).delay(millisecond).once()),
        libc::EINVAL
    );
    assert_eq!(
        errno(object.steer(MapPages).nothing().delay(millisecond).once()),
        libc::EINVAL
    );
    assert_eq!(
        errno(object.steer(Fault).delay(1001 * millisecond).once()),
        libc::EINVAL
    );
    assert_eq!(
        errno(object.steer(Fault).once()),
        libc::EINVAL,
        "nothing is said"
    );
    assert_eq!(errno(object.steer(Fault).nothing().once()), libc::EINVAL);
    // Ten seconds for all calls, and nothing for ever.
    let rule = || object.steer(Close).delay(1000 * millisecond);
    assert_eq!(errno(rule().times(11)), libc::EINVAL);
    assert_eq!(errno(rule().times(u64::MAX)), libc::EINVAL);
    assert_eq!(
        errno(object.steer(Close).delay(millisecond).always()),
        libc::EINVAL
    );
    object.clear_rule(rule().times(10).unwrap()).unwrap();
    // Nothing for ever that would be tried again for ever.
    assert_eq!(errno(object.steer(Fault).nopage().always()), libc::EINVAL);
    assert_eq!(errno(object.steer(Fault).oom().times(1001)), libc::EINVAL);
    assert_eq!(errno(object.steer(Fault).sigbus().times(0)), libc::EINVAL);
    assert_eq!(
        errno(object.steer(Fault).sigbus().nth(0).once()),
        libc::EINVAL
    );
    for (start, end) in [(1, 4096), (0, 4097), (4096, 4096), (8192, 4096)] {
        let bytes = start..end;
        assert_eq!(
            errno(object.steer(Fault).sigbus().within(bytes).once()),
            libc::EINVAL
        );
    }

    // The number of a rule is its own.
    let first = object.steer(Fault).sigbus().always().unwrap();
    for _ in 1..sys::VMALAB_MAX_RULES {
        object.steer(Fault).sigbus().always().unwrap();
    }
    assert_eq!(errno(object.steer(Fault).sigbus().always()), libc::ENOSPC);
    object.clear_rule(first).unwrap();
    assert_eq!(object.clear_rule(first).unwrap_err().errno(), libc::ENOENT);
    assert_eq!(object.rule_counts(first).unwrap_err().errno(), libc::ENOENT);
    let next = object.steer(Fault).sigbus().always().unwrap();
    assert!(next.number() > first.number());
    object.clear_rules().unwrap();
    assert_eq!(object.rule_counts(next).unwrap_err().errno(), libc::ENOENT);
    assert_eq!(look(map(&object, SHARED, 0, 1), 1), "0");

    // Who may only read, may not steer.
    let reader = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(errno(reader.steer(Fault).sigbus().once()), libc::EBADF);
    assert_eq!(reader.clear_rules().unwrap_err().errno(), libc::EBADF);
    Ok(())
}

fn counting(lab: &Lab) -> Verdict {
    let object = lab.open(16);
    let within = |from: u64, to: u64| from * PAGE as u64..to * PAGE as u64;
    let some = object
        .steer(Hook::Fault)
        .within(within(2, 6))
        .nth(2)
        .sigbus()
        .times(2)
        .unwrap();
    let all = object.steer(Hook::Fault).nth(8).sigsegv().always().unwrap();
    let addr = map(&object, SHARED, 0, 16);
    let write = |page: usize| write_from_kernel(addr + page * PAGE, b"w").is_ok();
    let seen: Vec<bool> = (0..10).map(write).collect();
    // Of pages 2 to 5, the second and the third; from the eighth on, all.
    let expected = [
        true, true, true, false, false, true, true, false, false, false,
    ];
    assert_eq!(seen, expected);
    let counts = |rule| {
        let counts = object.rule_counts(rule).unwrap();
        (counts.calls, counts.fired)
    };
    assert_eq!((counts(some), counts(all)), ((4, 2), (10, 3)));
    // They are the object's, not the descriptor's, and go with it.
    let other = object.try_clone().unwrap();
    assert_eq!(other.rule_counts(all).unwrap().fired, 3);
    object.clear_rule(all).unwrap();
    assert!(write(9));
    // Each object has its own.
    assert_eq!(look(map(lab.open(4), SHARED, 0, 4), 4), "0000");
    Ok(())
}

/// A delayed open of a split holds the mmap lock for writing, and an area that is not being changed is
/// touched meanwhile: its lock is its own (`lock_vma_under_rcu`).
fn delays(lab: &Lab) -> Verdict {
    const LONG: Duration = Duration::from_secs(1);
    // On a machine that is busy elsewhere, the touch may come too late to be seen.
    const ROUNDS: usize = 10;
    let object = lab.open(8);
    let other = lab.open(ROUNDS);
    let beside = map(&other, SHARED, 0, ROUNDS);
    let meanwhile = (0..ROUNDS).any(|round| {
        let addr = map(&object, SHARED, 0, 8);
        let rule = object.steer(Hook::Open).delay(LONG).once().unwrap();
        let seen = thread::scope(|scope| {
            let split = scope.spawn(|| {
                let begin = Instant::now();
                unmap(addr, 1);
                begin.elapsed()
            });
            let begin = Instant::now();
            while object.rule_counts(rule).unwrap().fired == 0 {
                assert!(
                    begin.elapsed() < Duration::from_secs(60),
                    "the rule has not fired"
                );
                thread::yield_now();
            }
            // SAFETY: it is mapped.
            unsafe { pointer(beside + round * PAGE).write_volatile(b'A') };
            let seen = !split.is_finished();
            // The area that is split is waited for.
            letters(addr + 7 * PAGE, 1, 'B');
            let took = split.join().unwrap();
            assert!(took >= LONG, "{took:?}");
            seen
        });
        assert_eq!(look(addr, 8), ".000000B");
        object.clear_rules().unwrap();
        unmap(addr, 8);
        object.set_size(0).unwrap();
        object.set_size(8 * PAGE as u64).unwrap();
        seen
    });
    assert!(meanwhile, "each fault waited for the split");
    let addr = map(&object, SHARED, 0, 8);

    // A task that is being killed does not wait.
    object
        .steer(Hook::Fault)
        .delay(Duration::from_secs(1))
        .nopage()
        .times(10)
        .unwrap();
    let begin = Instant::now();
    child(|| {
        // SAFETY: the child is alone, and ends by the alarm.
        match unsafe { libc::fork() } {
            0 => {
                let _ = write_from_kernel(addr + 2 * PAGE, b"x");
                std::process::exit(1);
            }
            pid => {
                thread::sleep(Duration::from_millis(50));
                // SAFETY: it is our own child.
                unsafe {
                    libc::kill(pid, libc::SIGKILL);
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
                    assert!(libc::WIFSIGNALED(status));
                }
            }
        }
    });
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    Ok(())
}
