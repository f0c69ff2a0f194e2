// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Objects that allocate memory in larger pieces: folios of several pages, and huge pages, which one
//! entry of the page table stands for.

use std::{
    fs::{self, File},
    io::{IoSliceMut, Read},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        uio::{RemoteIoVec, process_vm_readv, pwrite},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pipe},
};
use vmalab::{AreaFlags, Device, Hook, HookSet};

use crate::{
    hooks::{did, present, read, write},
    lab::Lab,
    mem::*,
    memory::userfaultfd,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("folio::the_size_set_and_told", set_and_told),
    Test::device("folio::a_touch_brings_a_piece", a_touch_brings_a_piece),
    Test::device("folio::smaller_where_there_is_less_room", smaller),
    Test::device("folio::a_piece_at_the_edge_of_an_area", at_the_edge),
    Test::device("folio::the_end_within_a_piece", the_end_within),
    Test::device("folio::the_end_within_a_piece_that_is_held", held),
    Test::device(
        "folio::shrunk_while_others_split",
        shrunk_while_others_split,
    ),
    Test::device("folio::private_copies_are_single_pages", private_copies),
    Test::device("folio::each_page_asks_before_it_is_written", tracked),
    Test::device("folio::areas_cut_out_of_a_piece", cut_out),
    Test::device("folio::locked_in_memory", locked),
    Test::device("folio::a_process_killed_in_the_middle", killed),
    Test::device("huge::by_huge_fault_and_by_fault", huge_by_both),
    Test::device("huge::recorded", huge_recorded),
    Test::device("huge::steered", huge_steered).logs(),
    Test::device("huge::only_where_one_fits", huge_where_it_fits),
    Test::device("huge::split_by_munmap", huge_munmap),
    Test::device("huge::split_by_mprotect_and_madvise", huge_mprotect),
    Test::device("huge::moved", huge_moved),
    Test::device("huge::the_end_within_one", huge_truncated),
    Test::device("huge::private", huge_private),
    Test::device("huge::each_page_asks_before_it_is_written", huge_tracked),
    Test::device("huge::not_in_mixed_areas", huge_mixed),
    Test::device("huge::watched_by_userfaultfd", huge_watched),
    Test::device("huge::others_are_faster", huge_raced),
    Test::device("huge::fork_and_another_process", huge_fork),
];

/// Pages of a piece of 64 KiB.
const PIECE: usize = 16;
/// Pages of a huge page.
const HUGE: usize = 512;

/// An object of so many pages, with pieces of so many pages.
fn object(pages: usize, piece: usize) -> Device {
    let device = Device::open().unwrap();
    device.set_size((pages * PAGE) as u64).unwrap();
    device.set_folio_size((piece * PAGE) as u64).unwrap();
    assert_eq!(device.folio_size(), Ok((piece * PAGE) as u64));
    device
}

#[track_caller]
fn check_pages(object: &Device, expected: u64) {
    assert_eq!(object.stats().unwrap().pages, expected, "pages");
}

/// A mapping of the object at an address that is a multiple of `pages`, a power of two.
fn map_aligned(object: &Device, kind: i32, from: usize, pages: usize, align: usize) -> usize {
    let place = map_anonymous(0, pages + align, libc::PROT_NONE, 0).unwrap();
    let addr = place.next_multiple_of(align * PAGE);
    try_map(object, addr, pages, RW, kind | libc::MAP_FIXED, from).unwrap()
}

/// How many pages of an area are mapped by entries that stand for a huge page.
fn huge_mapped(addr: usize) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let begin = format!("{addr:x}-");
    let area = smaps.lines().skip_while(|line| !line.starts_with(&begin));
    let line = area
        .skip(1)
        .find(|line| line.starts_with("FilePmdMapped:"))
        .expect("an area at this address");
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024 / PAGE as u64
}

/// Whether the kernel gives huge pages at all, where nobody asks for them in particular.
pub(crate) fn huge_pages() -> Verdict {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    match fs::read_to_string(path) {
        Ok(text) if text.contains("[always]") => Ok(()),
        Ok(text) => Err(Skip(format!("{path} says {}", text.trim()))),
        Err(error) => Err(Skip(format!("{path}: {error}"))),
    }
}

/// What the first byte of each page is, `0` for zero.
fn first_bytes(addr: usize, pages: usize) -> String {
    let byte = |page| {
        // SAFETY: the callers map so many pages.
        unsafe { pointer(addr + page * PAGE).read_volatile() }
    };
    let letter = |byte: u8| if byte == 0 { '0' } else { byte.into() };
    (0..pages).map(|page| letter(byte(page))).collect()
}

fn set_and_told(_lab: &Lab) -> Verdict {
    let device = Device::open().unwrap();
    let page = PAGE as u64;
    let fresh = device.folio_size().unwrap();
    for size in [2 * page, 16 * page, 512 * page, page] {
        device.set_folio_size(size).unwrap();
        assert_eq!(device.folio_size(), Ok(size));
    }
    let no_sizes = [
        1,
        page - 1,
        page / 2,
        3 * page,
        1024 * page,
        1 << 63,
        u64::MAX,
    ];
    for size in no_sizes {
        let error = device.set_folio_size(size).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL, "{size:#x}");
    }
    assert_eq!(device.folio_size(), Ok(page));
    device.set_folio_size(2 * page).unwrap();
    device.set_folio_size(0).unwrap();
    assert_eq!(device.folio_size(), Ok(fresh), "as at first");
    let read_only = Device::open_read_only("/dev/vmalab").unwrap();
    let error = read_only.set_folio_size(2 * page).unwrap_err();
    assert_eq!(error.errno(), libc::EBADF);
    assert_eq!(read_only.folio_size(), Ok(fresh));
    Ok(())
}

fn a_touch_brings_a_piece(_lab: &Lab) -> Verdict {
    for access in [read, write] {
        let object = object(4 * PIECE, PIECE);
        let addr = map_aligned(&object, SHARED, 0, 4 * PIECE, PIECE);
        let other = map(&object, SHARED, 0, 4 * PIECE);
        let did = did(&object, || access(addr + (PIECE + 5) * PAGE));
        assert_eq!(did.fault, 1);
        check_pages(&object, PIECE as u64);
        let seen = present(addr, 4 * PIECE);
        let expected = ".".repeat(PIECE) + &"#".repeat(PIECE) + &".".repeat(2 * PIECE);
        assert_eq!(seen, expected);
        // What was not touched is zero, and there for the others, too.
        let bytes = read_by_kernel(other + (PIECE + 6) * PAGE, PAGE).unwrap();
        assert_eq!(bytes, [0; PAGE]);
        letters(addr + PIECE * PAGE, PIECE, 'A');
        assert_eq!(look(other + PIECE * PAGE, PIECE), "ABCDEFGHIJKLMNOP");
        check_pages(&object, PIECE as u64);
    }
    Ok(())
}

fn smaller(_lab: &Lab) -> Verdict {
    // The last piece is of 8 pages, and the last page is alone.
    let object = object(2 * PIECE + 9, PIECE);
    let addr = map(&object, SHARED, 0, 2 * PIECE + 9);
    write(addr + (2 * PIECE + 2) * PAGE);
    check_pages(&object, 8);
    write(addr + (2 * PIECE + 8) * PAGE);
    check_pages(&object, 9);

    // A page that is there already: around it come 8, 4 and 1, as they are touched.
    object.set_folio_size(PAGE as u64).unwrap();
    write(addr + 5 * PAGE);
    check_pages(&object, 10);
    object.set_folio_size((PIECE * PAGE) as u64).unwrap();
    write(addr + 15 * PAGE);
    check_pages(&object, 18);
    write(addr);
    check_pages(&object, 22);
    write(addr + 4 * PAGE);
    check_pages(&object, 23);
    write(addr + 7 * PAGE);
    check_pages(&object, 25);
    write(addr + PIECE * PAGE);
    check_pages(&object, 25 + PIECE as u64);
    Ok(())
}

/// A piece of which an area has a part only: the rest is allocated, but not mapped.
fn at_the_edge(_lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = object(PIECE, PIECE);
        let place = map_anonymous(0, 3 * PIECE, libc::PROT_NONE, 0).unwrap();
        let addr = place + PIECE * PAGE;
        try_map(&object, addr, 4, RW, kind | libc::MAP_FIXED, 3).unwrap();
        read(addr + PAGE);
        check_pages(&object, PIECE as u64);
        assert_eq!(present(place, 3 * PIECE)[..PIECE], ".".repeat(PIECE));
        assert_eq!(present(addr + 4 * PAGE, PIECE), ".".repeat(PIECE));
        assert_eq!(look(addr - PAGE, 6), "!0000!");
        letters(addr, 4, 'A');
        let expected = if kind == SHARED {
            "000ABCD000000000"
        } else {
            "0000000000000000"
        };
        assert_eq!(look(map(&object, SHARED, 0, PIECE), PIECE), expected);
    }
    Ok(())
}

fn the_end_within(_lab: &Lab) -> Verdict {
    for kind in KINDS {
        for end in [1, 7, 8, 15] {
            let object = object(PIECE, PIECE);
            let addr = map(&object, kind, 0, PIECE);
            letters(addr, PIECE, 'A');
            check_pages(&object, PIECE as u64);
            object.set_size((end * PAGE) as u64).unwrap();
            let kept: String = ('A'..).take(end).collect();
            let gone = PIECE - end;
            assert_eq!(look(addr, PIECE), kept.clone() + &"!".repeat(gone));
            check_pages(&object, end as u64);
            object.set_size((PIECE * PAGE) as u64).unwrap();
            assert_eq!(look(addr, PIECE), kept + &"0".repeat(gone));
            check_pages(&object, PIECE as u64);
        }
    }
    Ok(())
}

/// While somebody holds a page of it, a piece cannot be split: nothing happens then.
fn held(_lab: &Lab) -> Verdict {
    const END: usize = 10;
    let object = object(2 * PIECE, PIECE);
    let addr = map(&object, SHARED, 0, 2 * PIECE);
    letters(addr, 2 * PIECE, 'A');
    let all = "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`";
    let (reader, _writer) = lend(addr + 2 * PAGE);

    for _ in 0..3 {
        let error = object.set_size((END * PAGE) as u64).unwrap_err();
        assert_eq!(error.errno(), libc::EBUSY);
        assert_eq!(look(addr, 2 * PIECE), all);
        check_pages(&object, 2 * PIECE as u64);
        assert_eq!(object.size(), Ok((2 * PIECE * PAGE) as u64));
    }
    // At an edge there is nothing to split, nor in a piece that nobody holds.
    object.set_size(((PIECE + 1) * PAGE) as u64).unwrap();
    object.set_size((PIECE * PAGE) as u64).unwrap();
    assert_eq!(
        look(addr, 2 * PIECE),
        all[..PIECE].to_owned() + &"!".repeat(PIECE)
    );

    // It is let go.
    let mut bytes = [0; PAGE];
    File::from(reader).read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [b'C'; PAGE]);
    object.set_size((END * PAGE) as u64).unwrap();
    assert_eq!(look(addr, PIECE), "ABCDEFGHIJ!!!!!!");
    check_pages(&object, END as u64);
    Ok(())
}

/// A piece that is split while it is being removed is removed from no count of dirty pages, in which it never was:
/// what the kernel logs then, whoever runs the test sees.
fn shrunk_while_others_split(lab: &Lab) -> Verdict {
    const PAGES: usize = 1024 * PIECE;
    let object = object(PAGES, PIECE);
    let addr = map(&object, SHARED, 0, PAGES);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for piece in (0..PAGES).step_by(PIECE) {
                    // Of a piece of which it is told of a part only, it makes pages.
                    advise(addr + piece * PAGE, PIECE / 2, libc::MADV_COLD).unwrap();
                }
            }
        });
        for _ in 0..lab.many(20, 4) {
            object.set_size((PAGES * PAGE) as u64).unwrap();
            for piece in (0..PAGES).step_by(PIECE) {
                assert_eq!(pwrite(&object, b"dirty", (piece * PAGE) as i64), Ok(5));
            }
            advise(addr, PAGES, libc::MADV_POPULATE_READ).unwrap();
            // Who splits a piece may be at it: see `held`.
            while let Err(error) = object.set_size(0) {
                assert_eq!(error.errno(), libc::EBUSY);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    check_pages(&object, 0);
    Ok(())
}

fn private_copies(_lab: &Lab) -> Verdict {
    let object = object(PIECE, PIECE);
    let (shared, private) = (
        map(&object, SHARED, 0, PIECE),
        map(&object, PRIVATE, 0, PIECE),
    );
    letters(shared, PIECE, 'A');
    read(private);
    letters(private + 3 * PAGE, 1, 'x');
    write_from_kernel(private + 15 * PAGE, &[b'y'; PAGE]).unwrap();
    letters(shared + 3 * PAGE, 2, '1');
    assert_eq!(look(private, PIECE), "ABCx2FGHIJKLMNOy");
    assert_eq!(look(shared, PIECE), "ABC12FGHIJKLMNOP");
    check_pages(&object, PIECE as u64);
    Ok(())
}

/// Sets the hooks that areas from now on have besides those that all have.
fn set_hooks(object: &Device, hooks: &[Hook]) {
    let hooks = hooks.iter().map(|hook| hook.mask());
    object.set_hooks(hooks.collect::<HookSet>()).unwrap();
}

fn tracked(_lab: &Lab) -> Verdict {
    let object = object(PIECE, PIECE);
    set_hooks(&object, &[Hook::PageMkwrite]);
    let addr = map(&object, SHARED, 0, PIECE);
    let asked = |step: &dyn Fn()| did(&object, step).page_mkwrite;
    // Nothing is there; it is there, and not mapped; it is there and mapped.
    assert_eq!(asked(&|| write(addr)), 1);
    assert_eq!(asked(&|| write(addr)), 0);
    assert_eq!(asked(&|| write(addr + PAGE)), 1);
    assert_eq!(asked(&|| read(addr + 2 * PAGE)), 0);
    assert_eq!(asked(&|| write(addr + 3 * PAGE)), 1);
    assert_eq!(asked(&|| letters(addr, PIECE, 'A')), PIECE as u64 - 3);
    assert_eq!(look(addr, PIECE), "ABCDEFGHIJKLMNOP");
    check_pages(&object, PIECE as u64);
    Ok(())
}

fn cut_out(_lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = object(PIECE, PIECE);
        let addr = map(&object, kind, 0, PIECE);
        let to = map_anonymous(0, 2, libc::PROT_NONE, 0).unwrap();
        letters(addr, PIECE, 'A');
        unmap(addr + 4 * PAGE, 2);
        protect(addr + 8 * PAGE, 2, RO).unwrap();
        assert_eq!(write_from_kernel(addr + 8 * PAGE, b"x"), Err(Errno::EFAULT));
        advise(addr + 12 * PAGE, 1, libc::MADV_DONTNEED).unwrap();
        let fixed = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let moved = remap(addr + 14 * PAGE, 2, 2, fixed, to).unwrap();
        child(|| {
            let object_has = if kind == SHARED { 'M' } else { '0' };
            assert_eq!(look(addr, PIECE), format!("ABCD..GHIJKL{object_has}N.."));
            assert_eq!(look(moved, 2), "OP");
            letters(addr, 1, 'a');
        });
        let first = if kind == SHARED { 'a' } else { 'A' };
        assert_eq!(look(addr, 4), format!("{first}BCD"));
        check_pages(&object, PIECE as u64);
    }
    Ok(())
}

fn locked(_lab: &Lab) -> Verdict {
    const PAGES: usize = 4 * PIECE;
    for piece in [PIECE, HUGE] {
        let object = object(2 * HUGE, piece);
        let addr = map_aligned(&object, SHARED, 0, 2 * HUGE, HUGE);
        // SAFETY: it only changes how the mapping is treated.
        let lock = unsafe { libc::mlock(pointer(addr).cast(), PAGES * PAGE) };
        assert_eq!(lock, 0);
        assert_eq!(present(addr, PAGES), "#".repeat(PAGES));
        let status = "/proc/self/status";
        assert_eq!(kilobytes(status, "VmLck:"), (PAGES * PAGE / 1024) as u64);
        unmap(addr + PAGE, 2);
        assert_eq!(
            kilobytes(status, "VmLck:"),
            ((PAGES - 2) * PAGE / 1024) as u64
        );
        object.set_size((PAGES / 2 * PAGE) as u64).unwrap();
        check_pages(&object, PAGES as u64 / 2);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::munlockall() }, 0);
        assert_eq!(kilobytes(status, "VmLck:"), 0);
        unmap(addr, 2 * HUGE);
    }
    Ok(())
}

/// What is left behind, the harness looks.
fn killed(_lab: &Lab) -> Verdict {
    for piece in [PIECE, HUGE] {
        let (reader, writer) = pipe().unwrap();
        // SAFETY: the test has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let object = object(64 * HUGE, piece);
                let addr = map(&object, SHARED, 0, 64 * HUGE);
                nix::unistd::write(&writer, b"x").unwrap();
                for page in (0..64 * HUGE).cycle() {
                    write(addr + page * PAGE);
                    if page % 4096 == 4095 {
                        advise(addr, 64 * HUGE, libc::MADV_DONTNEED).unwrap();
                    }
                }
            }
            ForkResult::Parent { child } => {
                File::from(reader).read_exact(&mut [0]).unwrap();
                kill(child, Signal::SIGKILL).unwrap();
                let status = waitpid(child, None);
                assert_eq!(
                    status,
                    Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false))
                );
            }
        }
    }
    Ok(())
}

/// A huge page comes at once, and is mapped by one entry, with the hook `huge_fault` and without.
fn huge_by_both(_lab: &Lab) -> Verdict {
    huge_pages()?;
    for hooks in [&[Hook::HugeFault] as &[Hook], &[]] {
        for access in [read, write] {
            let object = object(2 * HUGE, HUGE);
            set_hooks(&object, hooks);
            // Where the kernel puts it, one fits.
            let addr = map(&object, SHARED, 0, 2 * HUGE);
            assert_eq!(addr % (HUGE * PAGE), 0, "{addr:#x}");
            let did = did(&object, || access(addr + 9 * PAGE));
            if hooks.is_empty() {
                assert_eq!((did.huge_fault, did.fault), (0, 1));
            } else {
                assert!(did.huge_fault >= 1);
                assert_eq!(did.fault, 0);
            }
            check_pages(&object, HUGE as u64);
            assert_eq!(huge_mapped(addr), HUGE as u64);
            assert_eq!(present(addr, HUGE), "#".repeat(HUGE));
            letters(addr, 4, 'A');
            assert_eq!(look(map(&object, SHARED, 0, 6), 6), "ABCD00");

            // Another mapping finds it.
            let again = map(&object, SHARED, 0, 2 * HUGE);
            access(again);
            assert_eq!(huge_mapped(again), HUGE as u64);
            check_pages(&object, HUGE as u64);
        }
    }
    Ok(())
}

/// The hook `huge_fault` is told of with the order of the entry that could be.
fn huge_recorded(_lab: &Lab) -> Verdict {
    huge_pages()?;
    const NOPAGE: i32 = 0x100;
    const FALLBACK: i32 = 0x800;
    const FLAG_WRITE: u64 = 1;
    let object = object(2 * HUGE, HUGE);
    set_hooks(&object, &[Hook::HugeFault]);
    let addr = map(&object, SHARED, 0, 2 * HUGE);
    let watch = object.watch().hooks(HookSet::HugeFault).open().unwrap();
    write(addr + 9 * PAGE);
    let events = watch.take().unwrap();
    let event = events.last().unwrap();
    let page = addr + 9 * PAGE;
    assert_eq!(event.range, page..page + PAGE);
    assert_eq!(event.offset, 9 * PAGE as u64);
    assert_eq!(event.argument >> 32, u64::from(HUGE.ilog2()));
    assert_eq!(event.argument & FLAG_WRITE, FLAG_WRITE);
    assert_eq!(event.result, NOPAGE);
    // Larger ones were asked for before, if the processor has them.
    for event in &events[..events.len() - 1] {
        assert_eq!(
            (event.argument >> 32, event.result),
            (18, FALLBACK),
            "{event}"
        );
    }
    Ok(())
}

/// Each answer that a rule can give in place of the hook `huge_fault`.
fn huge_steered(_lab: &Lab) -> Verdict {
    huge_pages()?;
    let new = || {
        let object = object(2 * HUGE, HUGE);
        set_hooks(&object, &[Hook::HugeFault]);
        let addr = map(&object, SHARED, 0, 2 * HUGE);
        (object, addr)
    };
    let signals = |rule: fn(vmalab::Rule<'_>) -> vmalab::Rule<'_>| {
        let (object, addr) = new();
        rule(object.steer(Hook::HugeFault)).always().unwrap();
        let end = fault(addr + PAGE, Access::Write).map(|(signal, code, _)| (signal, code));
        check_pages(&object, 0);
        object.clear_rules().unwrap();
        write(addr + PAGE);
        assert_eq!(huge_mapped(addr), HUGE as u64);
        end
    };
    assert_eq!(
        signals(|rule| rule.sigbus()),
        Some((libc::SIGBUS, BUS_ADRERR))
    );
    assert_eq!(
        signals(|rule| rule.sigsegv()),
        Some((libc::SIGSEGV, SEGV_MAPERR))
    );

    // Tried again, for no memory as well: there is a page in the end, and it is a huge one.
    for oom in [false, true] {
        let (object, addr) = new();
        let rule = object.steer(Hook::HugeFault);
        let rule = if oom { rule.oom() } else { rule.nopage() };
        let rule = rule.times(3).unwrap();
        let did = did(&object, || write(addr + PAGE));
        assert_eq!(object.rule_counts(rule).unwrap().fired, 3);
        assert!(did.huge_fault >= 4, "{did:?}");
        assert_eq!(did.fault, 0);
        assert_eq!(huge_mapped(addr), HUGE as u64);
    }

    // Nothing of that size: `fault` is asked, and gives the piece that it would have been.
    let (object, addr) = new();
    object.steer(Hook::HugeFault).nothing().always().unwrap();
    let did = did(&object, || write(addr + PAGE));
    assert_eq!(did.fault, 1);
    check_pages(&object, HUGE as u64);
    Ok(())
}

/// Not where an area, the object, or what is there already leaves no room for one.
fn huge_where_it_fits(_lab: &Lab) -> Verdict {
    for hooks in [&[Hook::HugeFault] as &[Hook], &[]] {
        let new = |pages| {
            let object = object(pages, HUGE);
            set_hooks(&object, hooks);
            object
        };
        // An area that begins, and one that ends, within a huge page: the piece comes, in small pages.
        for (from, pages) in [(1, HUGE), (0, HUGE - 1), (0, 1)] {
            let object = new(2 * HUGE);
            let place = map_anonymous(0, 3 * HUGE, libc::PROT_NONE, 0).unwrap();
            let addr = place.next_multiple_of(HUGE * PAGE) + from * PAGE;
            try_map(&object, addr, pages, RW, SHARED | libc::MAP_FIXED, from).unwrap();
            write(addr);
            assert_eq!(huge_mapped(addr), 0);
            assert_eq!(&present(addr - PAGE, 2), ".#");
            assert_eq!(look(addr + pages * PAGE, 1), "!");
            check_pages(&object, HUGE as u64);
        }
        // Shifted: pages of the address and pages of the object are not aligned to each other.
        let object = new(2 * HUGE);
        let addr = map_aligned(&object, SHARED, 1, HUGE, HUGE);
        write(addr);
        assert_eq!(huge_mapped(addr), 0);
        assert_eq!(look(map(&object, SHARED, 0, 3), 3), "0?0");

        // The object ends before the huge page does.
        let object = new(HUGE + 64);
        let addr = map_aligned(&object, SHARED, 0, 2 * HUGE, HUGE);
        write(addr + HUGE * PAGE);
        check_pages(&object, 64);
        assert_eq!(huge_mapped(addr), 0);
        assert_eq!(look(addr + (HUGE + 64) * PAGE, 1), "!");

        // One page is there: the half of the huge page without it comes, and no more.
        let object = new(HUGE);
        object.set_folio_size(PAGE as u64).unwrap();
        let addr = map_aligned(&object, SHARED, 0, HUGE, HUGE);
        letters(addr + 300 * PAGE, 1, 'A');
        advise(addr, HUGE, libc::MADV_DONTNEED).unwrap();
        object.set_folio_size((HUGE * PAGE) as u64).unwrap();
        write(addr);
        check_pages(&object, 1 + HUGE as u64 / 2);
        assert_eq!(huge_mapped(addr), 0);
        assert_eq!(look(addr + 299 * PAGE, 3), "0A0");
    }
    Ok(())
}

/// An object of two huge pages, both mapped by one entry, with letters in the first pages of each.
fn two_huge(hooks: &[Hook]) -> Result<(Device, usize), Skip> {
    huge_pages()?;
    let object = object(2 * HUGE, HUGE);
    set_hooks(&object, hooks);
    let addr = map(&object, SHARED, 0, 2 * HUGE);
    letters(addr, 8, 'A');
    letters(addr + HUGE * PAGE, 8, 'a');
    assert_eq!(huge_mapped(addr), 2 * HUGE as u64);
    Ok((object, addr))
}

fn huge_munmap(_lab: &Lab) -> Verdict {
    let (object, addr) = two_huge(&[Hook::HugeFault])?;
    let did = did(&object, || unmap(addr + 2 * PAGE, 2));
    assert_eq!((did.may_split, did.open, did.close), (2, 2, 1));
    assert_eq!(look(addr, 8), "AB..EFGH");
    assert_eq!(huge_mapped(addr), 0);
    assert_eq!(huge_mapped(addr + 4 * PAGE), HUGE as u64, "the second one");
    assert_eq!(first_bytes(addr + HUGE * PAGE, 8), "abcdefgh");
    // From the middle of the one to the middle of the other.
    unmap(addr + 6 * PAGE, HUGE);
    assert_eq!(look(addr + HUGE * PAGE, 8), "......gh");
    check_pages(&object, 2 * HUGE as u64);
    assert_eq!(first_bytes(map(&object, SHARED, 0, 8), 8), "ABCDEFGH");
    Ok(())
}

fn huge_mprotect(_lab: &Lab) -> Verdict {
    let (object, addr) = two_huge(&[Hook::HugeFault])?;
    // All of one: it stays whole.
    protect(addr, HUGE, RO).unwrap();
    assert_eq!(huge_mapped(addr), HUGE as u64);
    assert_eq!(write_from_kernel(addr, b"x"), Err(Errno::EFAULT));
    protect(addr, HUGE, RW).unwrap();
    letters(addr, 1, '1');
    assert_eq!(huge_mapped(addr), HUGE as u64);
    // A part of the other.
    protect(addr + (HUGE + 2) * PAGE, 2, RO).unwrap();
    assert_eq!(look(addr + HUGE * PAGE, 8), "abcdefgh");
    let read_only = addr + (HUGE + 2) * PAGE;
    assert_eq!(
        fault(read_only, Access::Write),
        Some((libc::SIGSEGV, SEGV_ACCERR, true))
    );
    letters(addr + (HUGE + 4) * PAGE, 1, '5');
    assert_eq!(look(addr + HUGE * PAGE, 8), "abcd5fgh");
    // Out of the page table, a part and all of the first.
    advise(addr + PAGE, 1, libc::MADV_DONTNEED).unwrap();
    assert_eq!(look(addr, 8), "1BCDEFGH");
    advise(addr, HUGE, libc::MADV_DONTNEED).unwrap();
    assert_eq!(present(addr, HUGE), ".".repeat(HUGE));
    assert_eq!(look(addr, 8), "1BCDEFGH");
    assert_eq!(huge_mapped(addr), HUGE as u64, "it comes back whole");
    check_pages(&object, 2 * HUGE as u64);
    Ok(())
}

fn huge_moved(_lab: &Lab) -> Verdict {
    const FIXED: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let (object, addr) = two_huge(&[])?;
    let place = map_anonymous(0, 4 * HUGE, libc::PROT_NONE, 0).unwrap();
    let to = place.next_multiple_of(HUGE * PAGE);
    // To where it fits, and to where it does not.
    let moved = remap(addr, HUGE, HUGE, FIXED, to).unwrap();
    assert_eq!(huge_mapped(moved), HUGE as u64);
    assert_eq!(first_bytes(moved, 8), "ABCDEFGH");
    let shifted = remap(moved, HUGE, HUGE, FIXED, to + (HUGE + 3) * PAGE).unwrap();
    assert_eq!(huge_mapped(shifted), 0);
    assert_eq!(first_bytes(shifted, 8), "ABCDEFGH");
    // Half of one.
    let half = remap(addr + HUGE * PAGE, 4, 4, FIXED, to).unwrap();
    assert_eq!(first_bytes(half, 4), "abcd");
    assert_eq!(look(addr + HUGE * PAGE, 8), "....efgh");
    check_pages(&object, 2 * HUGE as u64);
    Ok(())
}

fn huge_truncated(_lab: &Lab) -> Verdict {
    for hooks in [&[Hook::HugeFault] as &[Hook], &[]] {
        let (object, addr) = two_huge(hooks)?;
        object.set_size(((HUGE + 3) * PAGE) as u64).unwrap();
        check_pages(&object, HUGE as u64 + 3);
        assert_eq!(look(addr + HUGE * PAGE, 8), "abc!!!!!");
        assert_eq!(huge_mapped(addr), HUGE as u64);
        object.set_size((2 * HUGE * PAGE) as u64).unwrap();
        assert_eq!(look(addr + HUGE * PAGE, 8), "abc00000");
        object.set_size((5 * PAGE) as u64).unwrap();
        check_pages(&object, 5);
        assert_eq!(look(addr, 8), "ABCDE!!!");
        object.set_size(0).unwrap();
        check_pages(&object, 0);
        assert_eq!(look(addr, 2), "!!");
        object.set_size((2 * HUGE * PAGE) as u64).unwrap();
        // The old area has a page table there by now.
        let addr = map(&object, SHARED, 0, 2 * HUGE);
        write(addr);
        check_pages(&object, HUGE as u64);
        assert_eq!(huge_mapped(addr), HUGE as u64);
    }
    Ok(())
}

fn huge_private(_lab: &Lab) -> Verdict {
    for hooks in [&[Hook::HugeFault] as &[Hook], &[]] {
        let (object, shared) = two_huge(hooks)?;
        let addr = map(&object, PRIVATE, 0, 2 * HUGE);
        assert_eq!(first_bytes(addr, 8), "ABCDEFGH");
        assert_eq!(huge_mapped(addr), HUGE as u64);
        letters(addr + 2 * PAGE, 1, 'x');
        assert_eq!(first_bytes(addr, 8), "ABxDEFGH");
        assert_eq!(first_bytes(shared, 8), "ABCDEFGH");
        letters(shared, 1, '1');
        assert_eq!(first_bytes(addr, 8), "1BxDEFGH");
        // A write first.
        letters(addr + (HUGE + 1) * PAGE, 1, 'y');
        assert_eq!(first_bytes(addr + HUGE * PAGE, 8), "aycdefgh");
        child(|| {
            letters(addr, 1, 'z');
            assert_eq!(first_bytes(addr, 8), "zBxDEFGH");
        });
        assert_eq!(first_bytes(addr, 8), "1BxDEFGH");
        check_pages(&object, 2 * HUGE as u64);
        object.set_size((2 * PAGE) as u64).unwrap();
        assert_eq!(look(addr, 4), "1B!!", "copies go, too");
    }
    Ok(())
}

fn huge_tracked(_lab: &Lab) -> Verdict {
    huge_pages()?;
    for hooks in [
        &[Hook::HugeFault, Hook::PageMkwrite] as &[Hook],
        &[Hook::PageMkwrite],
    ] {
        let object = object(HUGE, HUGE);
        set_hooks(&object, hooks);
        let addr = map_aligned(&object, SHARED, 0, HUGE, HUGE);
        let asked = |step: &dyn Fn()| did(&object, step).page_mkwrite;
        // What is only read is mapped as a whole, and what is written to, page by page.
        assert_eq!(asked(&|| read(addr)), 0);
        assert_eq!(huge_mapped(addr), HUGE as u64);
        assert_eq!(asked(&|| write(addr + PAGE)), 1);
        assert_eq!(asked(&|| write(addr + PAGE)), 0);
        assert_eq!(asked(&|| write(addr + 2 * PAGE)), 1);
        advise(addr, HUGE, libc::MADV_DONTNEED).unwrap();
        assert_eq!(asked(&|| write(addr + 3 * PAGE)), 1);
        assert_eq!(asked(&|| write(addr + 4 * PAGE)), 1);
        check_pages(&object, HUGE as u64);
    }
    Ok(())
}

/// In areas with VM_MIXEDMAP the kernel loses count of what one entry stood for when it splits that
/// (`vma_is_special_huge`): so there is never one, whichever way the pages come.
fn huge_mixed(_lab: &Lab) -> Verdict {
    huge_pages()?;
    for hooks in [
        &[] as &[Hook],
        &[Hook::HugeFault],
        &[Hook::PageMkwrite],
        &[Hook::HugeFault, Hook::PageMkwrite],
    ] {
        for kind in KINDS {
            for touch in [read, write] {
                let object = object(2 * HUGE, HUGE);
                set_hooks(&object, hooks);
                // As a huge page it is there already, for another.
                let other = map_aligned(&object, SHARED, 0, 2 * HUGE, HUGE);
                read(other);
                read(other + HUGE * PAGE);
                object.set_area_flags(AreaFlags::MIXEDMAP).unwrap();
                let addr = map_aligned(&object, kind, 0, 2 * HUGE, HUGE);
                for page in [0, 1, HUGE + 1] {
                    touch(addr + page * PAGE);
                }
                assert_eq!(huge_mapped(addr), 0, "{hooks:?}");
                // Would split it.
                protect(addr, 1, RO).unwrap();
                unmap(addr + HUGE * PAGE, HUGE / 2);
                read(addr + 2 * PAGE);
                object.set_size(PAGE as u64).unwrap();
                read(addr);
                check_pages(&object, 1);
            }
        }
    }
    Ok(())
}

/// Also where the kernel maps page by page since a userfaultfd watches, each is asked for.
fn huge_watched(_lab: &Lab) -> Verdict {
    huge_pages()?;
    let object = object(2 * HUGE, HUGE);
    set_hooks(&object, &[Hook::HugeFault, Hook::PageMkwrite]);
    let addr = map_aligned(&object, SHARED, 0, 2 * HUGE, HUGE);
    // UFFD_FEATURE_WP_UNPOPULATED and _WP_ASYNC, UFFDIO_REGISTER_MODE_WP
    let watched = userfaultfd(addr, 2 * HUGE, (1 << 13) | (1 << 15), 2)?.unwrap();
    let asked = |step: &dyn Fn()| did(&object, step).page_mkwrite;
    assert_eq!(asked(&|| write(addr + PAGE)), 1);
    assert_eq!(asked(&|| write(addr + 2 * PAGE)), 1);
    assert_eq!(asked(&|| write(addr + 2 * PAGE)), 0);
    // With a mark for each page: UFFDIO_WRITEPROTECT.
    let (start, length) = (addr + HUGE * PAGE, HUGE * PAGE);
    let mut range = [start as u64, length as u64, 1];
    // SAFETY: the structure has that size.
    let done = unsafe { libc::ioctl(watched.as_raw_fd(), 0xc018_aa06, range.as_mut_ptr()) };
    assert_eq!(Errno::result(done), Ok(0));
    // A mark stays where a page is first mapped, and is taken away by a second fault, which asks, too.
    assert_eq!(asked(&|| write(start + PAGE)), 2);
    assert_eq!(asked(&|| write(start + 2 * PAGE)), 2);
    assert_eq!(asked(&|| read(start + 3 * PAGE)), 0);
    assert_eq!(asked(&|| write(start + 3 * PAGE)), 1);
    Ok(())
}

/// While a fault is under way, another one, or a guard, changes what is in the page table there.
fn huge_raced(_lab: &Lab) -> Verdict {
    const DELAY: Duration = Duration::from_millis(300);

    huge_pages()?;
    let reads: &(dyn Fn(usize) + Sync) = &|addr| read(addr + 2 * PAGE);
    let guards: &(dyn Fn(usize) + Sync) =
        &|addr| advise(addr + 5 * PAGE, 1, MADV_GUARD_INSTALL).unwrap();
    let writes: [&(dyn Fn(usize) + Sync); 3] = [
        &write,
        &|addr| write_from_kernel(addr, b"k").unwrap(),
        &|addr| advise(addr, 1, libc::MADV_POPULATE_WRITE).unwrap(),
    ];
    for hooks in [
        &[] as &[Hook],
        &[Hook::HugeFault],
        &[Hook::PageMkwrite],
        &[Hook::HugeFault, Hook::PageMkwrite],
    ] {
        for meanwhile in [reads, guards] {
            for step in writes {
                let object = object(HUGE, HUGE);
                set_hooks(&object, hooks);
                assert_eq!(pwrite(&object, b"there", 0), Ok(5));
                let addr = map_aligned(&object, SHARED, 0, HUGE, HUGE);
                let late = match hooks.first() {
                    Some(Hook::HugeFault) => Hook::HugeFault,
                    _ => Hook::Fault,
                };
                object.steer(late).delay(DELAY).once().unwrap();
                thread::scope(|scope| {
                    let late = scope.spawn(|| step(addr));
                    thread::sleep(DELAY / 3);
                    meanwhile(addr);
                    late.join().unwrap();
                });
                read(addr + 4 * PAGE);
                check_pages(&object, HUGE as u64);
            }
        }
    }
    Ok(())
}

fn huge_fork(_lab: &Lab) -> Verdict {
    let (object, addr) = two_huge(&[Hook::HugeFault])?;
    child(|| {
        assert_eq!(first_bytes(addr, 8), "ABCDEFGH");
        letters(addr + PAGE, 1, 'x');
        unmap(addr + 4 * PAGE, 2);
        let base = addr + HUGE * PAGE;
        let mut bytes = vec![0; 3 * PAGE];
        let from = [RemoteIoVec {
            base,
            len: 3 * PAGE,
        }];
        let got = process_vm_readv(Pid::parent(), &mut [IoSliceMut::new(&mut bytes)], &from);
        assert_eq!(got, Ok(3 * PAGE));
        assert_eq!((bytes[0], bytes[3 * PAGE - 1]), (b'a', b'c'));
    });
    assert_eq!(first_bytes(addr, 8), "AxCDEFGH");
    assert_eq!(huge_mapped(addr), 2 * HUGE as u64);
    check_pages(&object, 2 * HUGE as u64);
    Ok(())
}
