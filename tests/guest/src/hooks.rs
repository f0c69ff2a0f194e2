// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! When the kernel calls which hook, beyond those of munmap, and what comes of it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::errno::Errno;
use vmalab::{Device, HookCounts, HookSet, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("hooks::a_read_maps_what_is_around", maps_around),
    Test::both("hooks::what_is_absent_is_not_mapped", absent_is_not_mapped),
    Test::device("hooks::map_pages_before_fault", map_pages_before_fault),
    Test::device("hooks::mremap", mremap),
    Test::device("hooks::mprotect", mprotect),
    Test::device("hooks::page_mkwrite", page_mkwrite),
    Test::device("hooks::page_mkwrite_is_of_the_area", of_the_area),
    Test::device("hooks::written_pages_while_shrinking", while_shrinking),
    Test::device("hooks::mapped_after_mmap_prepare", mapped),
    Test::device("hooks::mmap_prepare_refused", prepare_refused),
];

/// Which pages are in the page table, as `#` and `.`; from /proc/self/pagemap.
pub(crate) fn present(addr: usize, pages: usize) -> String {
    let file = File::open("/proc/self/pagemap").unwrap();
    let mut bytes = vec![0; pages * 8];
    file.read_exact_at(&mut bytes, (addr / PAGE * 8) as u64)
        .unwrap();
    let entries = bytes.chunks_exact(8);
    let here = entries.map(|entry| u64::from_ne_bytes(entry.try_into().unwrap()) >> 63 == 1);
    here.map(|here| if here { '#' } else { '.' }).collect()
}

/// Touches a page by the processor.
pub(crate) fn read(addr: usize) {
    // SAFETY: the callers give addresses that they have mapped.
    unsafe { pointer(addr).read_volatile() };
}

pub(crate) fn write(addr: usize) {
    // SAFETY: as in `read`.
    unsafe { pointer(addr).write_volatile(b'w') };
}

/// What one step did.
pub(crate) fn did(object: &Device, step: impl FnOnce()) -> HookCounts {
    let before = object.stats().unwrap().hooks;
    step();
    object.stats().unwrap().hooks.since(before)
}

/// How many pages the kernel maps around one.
fn window() -> usize {
    // It is there with debugfs only; this is what it is unless somebody has changed it.
    fs::read_to_string("/sys/kernel/debug/fault_around_bytes")
        .map_or(16, |text| text.trim().parse::<usize>().unwrap() / PAGE)
}

/// The first page from page 16 on that begins a window.
fn first_window(addr: usize) -> usize {
    (16..)
        .find(|page| (addr / PAGE + page) % window() == 0)
        .unwrap()
}

fn maps_around(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    const PAGES: usize = 64;
    if window() != 16 {
        return Err(Skip(format!(
            "{} pages are mapped around one, not 16",
            window()
        )));
    }
    for kind in KINDS {
        let object = lab.open(PAGES);
        letters(map(&object, SHARED, 0, PAGES), PAGES, 'A');
        let addr = map(&object, kind, 0, PAGES);
        let first = first_window(addr);
        assert_eq!(present(addr, PAGES), ".".repeat(PAGES));

        read(addr + (first + 5) * PAGE);
        let rest = PAGES - first - 16;
        let expected = ".".repeat(first) + &"#".repeat(16) + &".".repeat(rest);
        assert_eq!(present(addr, PAGES), expected);

        // Not past the area, neither downwards nor upwards.
        let around = map(&object, kind, 0, PAGES);
        let window = around + first_window(around) * PAGE;
        let part = window + 2 * PAGE;
        try_map(&object, part, 3, RW, kind | libc::MAP_FIXED, 0).unwrap();
        read(part + PAGE);
        assert_eq!(present(window, 16), "..###...........");
        assert_eq!(
            look(addr + first * PAGE, 1),
            char::from(b'A' + first as u8).to_string()
        );
    }
    Ok(())
}

/// Neither what nobody has touched yet, nor what is past the end.
fn absent_is_not_mapped(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    const PAGES: usize = 64;
    for kind in KINDS {
        let object = lab.open(PAGES);
        let shared = map(&object, SHARED, 0, PAGES);
        let addr = map(&object, kind, 0, PAGES);
        let first = first_window(addr);
        for page in [3, 4, 9] {
            letters(shared + (first + page) * PAGE, 1, 'A');
        }
        read(addr + (first + 4) * PAGE);
        let seen = present(addr + first * PAGE, 16);
        assert_eq!(seen, "...##....#......");
        lab.check_pages(&object, 3);

        lab.resize(&object, first + 4);
        assert_eq!(present(addr + first * PAGE, 16), "...#............");
        lab.resize(&object, PAGES);
        read(addr + (first + 3) * PAGE);
        assert_eq!(look(addr + (first + 2) * PAGE, 4), "0A00");
    }
    Ok(())
}

fn map_pages_before_fault(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    for kind in KINDS {
        let object = lab.open(4);
        let addr = map(&object, kind, 0, 4);
        let calls = |step: &dyn Fn()| {
            let did = did(&object, step);
            (did.map_pages, did.fault, did.page_mkwrite)
        };
        assert_eq!(calls(&|| read(addr)), (1, 1, 0), "it is not there");
        assert_eq!(calls(&|| read(addr)), (0, 0, 0), "it is mapped");
        assert_eq!(calls(&|| write(addr + PAGE)), (0, 1, 0), "a write");
        let again = map(&object, kind, 0, 1);
        assert_eq!(
            calls(&|| read(again)),
            (1, 0, 0),
            "it is there, but not mapped"
        );
        let past = map(&object, kind, 4, 1);
        let killed = || assert_eq!(fault(past, Access::Read), Some((libc::SIGBUS, 2, true)));
        assert_eq!(calls(&killed), (1, 1, 0), "past the end");
    }
    Ok(())
}

fn mremap(lab: &Lab) -> Verdict {
    const MAYMOVE: i32 = libc::MREMAP_MAYMOVE;
    let resized = |addr, old, new, flags, to| {
        remap(addr, old, new, flags, to).unwrap();
    };
    for kind in KINDS {
        let object = lab.open(8);
        let place = map_anonymous(0, 16, libc::PROT_NONE, 0).unwrap();
        let addr = try_map(&object, place, 4, RW, kind | libc::MAP_FIXED, 0).unwrap();
        letters(addr, 4, 'A');
        let calls = |step: &dyn Fn()| {
            let did = did(&object, step);
            (did.may_split, did.open, did.mremap, did.close)
        };
        // In place: longer, and shorter, which is an munmap.
        unmap(place + 4 * PAGE, 12);
        assert_eq!(calls(&|| resized(addr, 4, 6, 0, 0)), (0, 0, 0, 0));
        assert_eq!(calls(&|| resized(addr, 6, 4, 0, 0)), (1, 1, 0, 1));

        // The whole area, and then two pages out of the middle, which have to be cut out.
        let to = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
        let fixed = MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(calls(&|| resized(addr, 4, 4, fixed, to)), (0, 1, 1, 1));
        assert_eq!(look(to, 4), "ABCD");
        let before = object.stats().unwrap().hooks;
        let moved = remap(to + PAGE, 2, 2, fixed, to + 6 * PAGE).unwrap();
        let did = object.stats().unwrap().hooks.since(before);
        assert_eq!((did.mremap, did.open - did.close), (1, 2));
        assert_eq!((look(to, 4), look(moved, 2)), ("A..D".into(), "BC".into()));
        lab.check_areas(&object, 3);
    }
    Ok(())
}

fn mprotect(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        letters(addr, 6, 'A');
        let calls = |step: &dyn Fn()| {
            let did = did(&object, step);
            (did.mprotect, did.may_split)
        };
        assert_eq!(calls(&|| protect(addr, 6, RO).unwrap()), (1, 0));
        assert_eq!(calls(&|| protect(addr, 2, RW).unwrap()), (1, 1));
        // Nothing changes in the one, but the kernel asks for both.
        assert_eq!(calls(&|| protect(addr, 6, RO).unwrap()), (2, 0));
        // Refused before anyone is asked.
        let read_only = Device::open_read_only("/dev/vmalab").unwrap();
        let refused = try_map(&read_only, 0, 1, RO, SHARED, 0).unwrap();
        let did = did(&read_only, || {
            assert_eq!(protect(refused, 1, RW), Err(Errno::EACCES));
        });
        assert_eq!(did.mprotect, 0);
        assert_eq!(look(addr, 6), "ABCDEF");
    }
    Ok(())
}

fn page_mkwrite(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let object = lab.open(8);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let addr = map(&object, SHARED, 0, 8);
    let calls = |step: &dyn Fn()| {
        let did = did(&object, step);
        (did.fault, did.page_mkwrite)
    };
    // In one fault, and in another one.
    assert_eq!(calls(&|| write(addr)), (1, 1));
    assert_eq!(calls(&|| write(addr)), (0, 0));
    assert_eq!(calls(&|| read(addr + PAGE)), (1, 0));
    assert_eq!(calls(&|| write(addr + PAGE)), (0, 1));
    assert_eq!(calls(&|| write(addr + PAGE)), (0, 0));
    // The kernel writes.
    assert_eq!(calls(&|| letters(addr + 2 * PAGE, 1, 'A')), (1, 1));
    // What is mapped around is read-only.
    let again = map(&object, SHARED, 0, 8);
    assert_eq!(calls(&|| read(again)), (0, 0));
    assert_eq!(calls(&|| write(again + PAGE)), (0, 1));
    // A child has its own page table, whose pages are read again before they are written to.
    child(|| assert_eq!(calls(&|| write(addr)).1, 1));
    // After a change of the protection, too.
    protect(addr, 8, RO).unwrap();
    protect(addr, 8, RW).unwrap();
    assert_eq!(look(addr + 2 * PAGE, 2), "A0");
    // Copies of a private area are nobody's.
    let private = map(&object, PRIVATE, 0, 8);
    assert_eq!(calls(&|| write(private)), (1, 0));
    read(private + PAGE);
    assert_eq!(calls(&|| write(private + PAGE)), (0, 0));
    Ok(())
}

/// An area keeps the hooks that it was mapped with.
fn of_the_area(lab: &Lab) -> Verdict {
    let object = lab.open(8);
    let without = map(&object, SHARED, 0, 4);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let with = map(&object, SHARED, 0, 4);
    object.set_hooks(HookSet::empty()).unwrap();
    let calls = |addr| did(&object, || write(addr)).page_mkwrite;
    assert_eq!((calls(without), calls(with)), (0, 1));
    // A part of it, and a copy.
    unmap(with + PAGE, 1);
    assert_eq!(calls(with + 2 * PAGE), 1);
    let moved = remap(with + 3 * PAGE, 1, 1, libc::MREMAP_MAYMOVE, 0).unwrap();
    assert_eq!(calls(moved), 1);
    assert_eq!(calls(map(&object, SHARED, 0, 1)), 0);

    let read_only = Device::open_read_only("/dev/vmalab").unwrap();
    assert_eq!(
        read_only
            .set_hooks(HookSet::PageMkwrite)
            .unwrap_err()
            .errno(),
        libc::EBADF
    );
    assert_eq!(
        object.set_hooks(HookSet::Open).unwrap_err().errno(),
        libc::EINVAL
    );
    assert_eq!(
        object
            .set_hooks(HookSet::from_bits_retain(1 << 63))
            .unwrap_err()
            .errno(),
        libc::EINVAL
    );
    Ok(())
}

/// The pages of areas with `page_mkwrite` are not locked while it runs.
fn while_shrinking(lab: &Lab) -> Verdict {
    const PAGES: usize = 16;
    let object = lab.open(PAGES);
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let addr = map(&object, SHARED, 0, PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..3 {
            let done = &done;
            scope.spawn(move || {
                for step in (thread..).step_by(7) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let page = addr + step % PAGES * PAGE;
                    // EFAULT or not: both are right, the moment decides.
                    let _ = read_by_kernel(page, 1);
                    let _ = write_from_kernel(page, b"x");
                }
            });
        }
        for step in 0..2000 {
            lab.resize(&object, 1 + step * 5 % PAGES);
        }
        done.store(true, Ordering::Relaxed);
    });
    lab.resize(&object, 1);
    look(addr, PAGES);
    lab.check_pages(&object, 1);
    lab.resize(&object, PAGES);
    assert_eq!(look(addr + PAGE, PAGES - 1), "0".repeat(PAGES - 1));
    Ok(())
}

/// The node with `.mmap_prepare`, of a size.
fn prepared(pages: usize) -> Device {
    let path = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
    let object = Device::open_at(path).unwrap();
    object.set_size((pages * PAGE) as u64).unwrap();
    object
}

fn mapped(lab: &Lab) -> Verdict {
    for kind in KINDS {
        // Both nodes: calls of the handler and of `mapped`.
        for (object, first, longer) in
            [(prepared(8), (1, 1), (1, 0)), (lab.open(8), (1, 0), (0, 0))]
        {
            let calls = |step: &mut dyn FnMut()| {
                let did = did(&object, step);
                (did.mmap, did.mapped)
            };
            let place = map_anonymous(0, 8, libc::PROT_NONE, 0).unwrap();
            let map = |page: usize, pages: usize| {
                let addr = place + page * PAGE;
                try_map(&object, addr, pages, RW, kind | libc::MAP_FIXED, page).unwrap();
            };
            assert_eq!(calls(&mut || map(0, 2)), first);
            lab.check_areas(&object, 1);
            // It makes the area before it longer.
            assert_eq!(calls(&mut || map(2, 2)), longer);
            lab.check_areas(&object, 1);
            assert_eq!(calls(&mut || map(6, 2)), first);
            lab.check_areas(&object, 2);
            letters(place, 4, 'A');
            assert_eq!(look(place, 4), "ABCD");

            // Over the middle of the first, and after all descriptors are gone.
            assert_eq!(calls(&mut || map(1, 1)), longer, "the gap is filled");
            unmap(place + 2 * PAGE, 1);
            lab.check_areas(&object, 3);
            child(|| lab.check_areas(&object, 6));
            drop(object);
            letters(place + 3 * PAGE, 1, 'X');
            assert_eq!(look(place + 2 * PAGE, 2), ".X");
            unmap(place, 8);
        }
    }
    Ok(())
}

/// What is refused leaves nothing behind.
fn prepare_refused(lab: &Lab) -> Verdict {
    let object = prepared(4);
    let addr = map(&object, SHARED, 0, 1);
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: libc::RLIM_INFINITY,
    };
    child(|| {
        // SAFETY: it is the child's own limit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &none) }, 0);
        assert_eq!(try_map(&object, 0, 1, RW, SHARED, 0), Err(Errno::ENOMEM));
    });
    lab.check_areas(&object, 1);
    let path = sys::VMALAB_PREPARE_PATH.to_str().unwrap();
    let read_only = Device::open_read_only(path).unwrap();
    assert_eq!(try_map(&read_only, 0, 1, RW, SHARED, 0), Err(Errno::EACCES));
    lab.check_areas(&read_only, 0);
    letters(addr, 1, 'A');
    Ok(())
}
