// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What operations do to areas and say to drivers, drawn. See `world` for the letters.

mod cuts;
mod limits;
mod memfd;
mod merged;
mod mistakes;
mod neighbours;
mod old_kernels;
mod operations;
mod pkeys;
mod places;
mod promises;
mod starved;
mod steered;
mod watched;
mod world;

use vmalab_model::file::MaySplit;
use vmalab_model::limits::Overcommit;
use vmalab_model::{
    Advice, Allocation, Backing, Errno, File, Limits, MapFlags, Mmap, Op, PAGE_SIZE, Prot, Rules,
    Signal, VmFlags,
};
use world::{BASE, World};

// munmap

#[test]
fn unmap_head_tail_and_middle() {
    let mut w = World::new();
    w.draw_in("Dddddddddddd");
    //        |*|
    w.unmap(0, 2).unwrap();
    assert_eq!(w.draw(), "..Dddddddddd");
    assert_eq!(w.hooks(), "may_split 0-12 at 2, open 2-12, close 0-2");
    //                  |*|
    w.unmap(10, 12).unwrap();
    assert_eq!(w.draw(), "..Dddddddd");
    assert_eq!(w.hooks(), "may_split 2-12 at 10, open 2-10, close 10-12");
    //             |**|
    w.unmap(4, 8).unwrap();
    assert_eq!(w.draw(), "..Dd....Dd");
    assert_eq!(
        w.hooks(),
        "may_split 2-10 at 4, open 2-4, may_split 4-10 at 8, open 8-10, close 4-8"
    );
}

#[test]
fn unmap_across_areas_and_holes() {
    let mut w = World::new();
    w.draw_in("DdddXxx.Aaa.Ffff");
    //           |**********|
    w.unmap(2, 13).unwrap();
    assert_eq!(w.draw(), "Dd...........Fff");
    assert_eq!(
        w.hooks(),
        "may_split 0-4 at 2, open 0-2, close 2-4, close 4-7"
    );
}

/// A success, though nothing was there.
#[test]
fn unmap_a_hole() {
    let mut w = World::new();
    w.draw_in("Aa....Aa");
    assert_eq!(w.unmap(2, 6), Ok(()));
    assert_eq!(w.draw(), "Aa....Aa");
    assert_eq!(w.hooks(), "");
}

#[test]
fn unmap_refuses_bad_ranges() {
    let mut w = World::new();
    let task_size = w.space.limits().task_size;
    for (addr, len) in [
        (BASE + 1, PAGE_SIZE),
        (BASE, 0),
        (task_size + PAGE_SIZE, PAGE_SIZE),
        (task_size - PAGE_SIZE, 2 * PAGE_SIZE),
        (BASE, u64::MAX),
    ] {
        assert_eq!(
            w.apply(&Op::Munmap { addr, len }),
            Err(Errno::EINVAL),
            "{addr:#x} {len:#x}"
        );
    }
    // The end of the address space itself is no mistake, and a length is rounded up.
    let op = Op::Munmap {
        addr: task_size - PAGE_SIZE,
        len: 1,
    };
    assert_eq!(w.apply(&op), Ok(0));
}

/// The first cut is allowed, the second is not: the first stays.
#[test]
fn unmap_keeps_the_first_split() {
    let device = File {
        may_split: MaySplit::Aligned(4 * PAGE_SIZE),
        ..File::device(64)
    };
    let mut w = World::with(Rules::V7_2, Limits::default(), device);
    w.draw_in("Dddddddd");
    //            |**|
    assert_eq!(w.unmap(4, 6), Err(Errno::EINVAL));
    assert_eq!(w.draw(), "DdddDddd");
    assert_eq!(
        w.hooks(),
        "may_split 0-8 at 4, open 0-4, may_split 4-8 at 6"
    );
}

/// At the limit only that fails which makes one area more.
#[test]
fn unmap_at_the_limit() {
    let limits = Limits {
        max_map_count: 3,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.draw_in("AaaaRrrrAaaa");
    assert_eq!(w.unmap(1, 3), Err(Errno::ENOMEM));
    assert_eq!(w.draw(), "AaaaRrrrAaaa");
    //  |****|
    w.unmap(2, 6).unwrap();
    assert_eq!(w.draw(), "Aa....RrAaaa");
    w.unmap(0, 1).unwrap();
    w.unmap(11, 12).unwrap();
    assert_eq!(w.draw(), ".A....RrAaa");
}

/// Seen on a real kernel: the tail of the unsealed area is cut off before the seal is met.
#[test]
fn unmap_stops_at_a_seal() {
    let mut w = World::new();
    w.draw_in("AaaaRrrr");
    w.seal(4, 8);
    //   |****|
    assert_eq!(w.unmap(2, 6), Err(Errno::EPERM));
    assert_eq!(w.draw(), "AaAaRrrr");
    // Inside the sealed one nothing is cut.
    assert_eq!(w.unmap(5, 6), Err(Errno::EPERM));
    assert_eq!(w.draw(), "AaAaRrrr");
}

// merging of new ranges

#[test]
fn anonymous_memory_merges_on_both_sides() {
    let mut w = World::new();
    w.draw_in("Aaa...Aaa");
    w.map('a', 3, 4).unwrap();
    assert_eq!(w.draw(), "Aaaa..Aaa");
    w.map('a', 5, 6).unwrap();
    assert_eq!(w.draw(), "Aaaa.Aaaa");
    w.map('a', 4, 5).unwrap();
    assert_eq!(w.draw(), "Aaaaaaaaa");
    w.map('r', 9, 10).unwrap();
    assert_eq!(w.draw(), "AaaaaaaaaR");
}

/// The driver's mmap handler does not hear of pages that an area of its own takes in.
#[test]
fn a_device_merges_without_its_mmap_hook() {
    let mut w = World::new();
    w.draw_in("Ddd");
    w.map('d', 3, 6).unwrap();
    assert_eq!(w.draw(), "Dddddd");
    assert_eq!(w.hooks(), "");
    w.draw_in("Dddddd...Ddd");
    // Both sides fit, but the right one would have to vanish without a call of its close hook.
    w.map('d', 6, 9).unwrap();
    assert_eq!(w.draw(), "DddddddddDdd");
    assert_eq!(w.hooks(), "");
    // Without a left neighbour the right one grows downwards.
    w.unmap(0, 9).unwrap();
    w.map('d', 6, 9).unwrap();
    assert_eq!(w.draw(), "......Dddddd");
    assert_eq!(w.hooks(), "");
}

#[test]
fn a_file_without_hooks_merges_on_both_sides() {
    let mut w = World::new();
    w.draw_in("Fff...Fff");
    w.map('f', 3, 6).unwrap();
    assert_eq!(w.draw(), "Fffffffff");
}

#[test]
fn what_must_not_expand_does_not_merge() {
    let mut w = World::new();
    w.draw_in("Xxx");
    w.map('x', 3, 6).unwrap();
    assert_eq!(w.draw(), "XxxXxx");
    assert_eq!(w.hooks(), "mmap 3-6");
}

/// Nor what is of a device in another way, each of which is enough.
#[test]
fn what_is_special_does_not_merge() {
    for (sets, left) in [
        (VmFlags::empty(), "Dddddd"),
        (VmFlags::IO, "DddDdd"),
        (VmFlags::DONTEXPAND, "DddDdd"),
        (VmFlags::PFNMAP, "DddDdd"),
        (VmFlags::MIXEDMAP, "DddDdd"),
    ] {
        let device = File {
            sets,
            prepares: true,
            ..File::device(64)
        };
        let mut w = World::with(Rules::V7_2, Limits::default(), device);
        w.draw_in("Ddd");
        w.map('d', 3, 6).unwrap();
        assert_eq!(w.draw(), left, "{sets:?}");
    }
}

/// What is new between two areas, of which one or both were written to: since 6.12, and until 6.0, the one below
/// goes first; in between the one above did, and the one below had to fit that.
#[test]
fn which_neighbour_goes_first() {
    for (written, usual, in_6_1) in [
        (&[][..], "Aaaaaa", "Aaaaaa"),
        (&[0], "Aaaaaa", "Aaaaaa"),
        (&[4], "Aaaaaa", "AaAaaa"),
        (&[0, 4], "AaaaAa", "AaAaaa"),
    ] {
        for (rules, left) in [
            (Rules::V5_10, usual),
            (Rules::V6_1, in_6_1),
            (Rules::V6_12, usual),
            (Rules::V7_2, usual),
        ] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.draw_in("Aa..Aa");
            for &page in written {
                w.touch(page, true).unwrap();
            }
            w.map('a', 2, 4).unwrap();
            assert_eq!(w.draw(), left, "{written:?} {}", rules.name);
        }
    }
    // And on one side alone, of what fits, of what does not, and of what never does.
    for (drawn, letter, left) in [
        ("Ff", 'f', "Ffff"),
        ("....Ff", 'f', "..Ffff"),
        ("Rr..Rr", 'f', "RrFfRr"),
        ("Xx..Xx", 'x', "XxXxXx"),
    ] {
        for rules in [Rules::V6_1, Rules::V7_2] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.draw_in(drawn);
            w.map(letter, 2, 4).unwrap();
            assert_eq!(w.draw(), left, "{}", rules.name);
        }
    }
}

#[test]
fn other_offsets_do_not_merge() {
    let mut w = World::new();
    w.draw_in("Ddd");
    let mut args = w.args('d', 3, 6);
    args.offset += PAGE_SIZE;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
    assert_eq!(w.draw(), "DddDdd");
}

/// Two areas that were written to apart keep their own pages; what comes between joins the first.
#[test]
fn written_memory_merges_on_one_side() {
    let mut w = World::new();
    w.draw_in("Aaa...Aaa");
    w.touch(0, true).unwrap();
    w.touch(6, true).unwrap();
    w.map('a', 3, 6).unwrap();
    assert_eq!(w.draw(), "AaaaaaAaa");
}

/// Halves of what was one share their pages' anchor, and so does a neighbour that is written to later.
#[test]
fn halves_merge_again() {
    let mut w = World::new();
    w.draw_in("Aaaaaaaaa");
    w.touch(0, true).unwrap();
    w.unmap(3, 6).unwrap();
    assert_eq!(w.draw(), "Aaa...Aaa");
    w.map('a', 3, 6).unwrap();
    assert_eq!(w.draw(), "Aaaaaaaaa");
}

/// What came through fork takes nothing in.
#[test]
fn a_child_does_not_merge_what_was_written() {
    let mut w = World::new();
    w.draw_in("Aaa...Aaa");
    w.touch(0, true).unwrap();
    w.apply(&Op::Fork).unwrap();
    w.map('a', 3, 6).unwrap();
    assert_eq!(w.draw(), "AaaAaaaaa");
}

// MAP_FIXED over something

/// The old areas are closed before the new one is shown to its driver.
#[test]
fn replacing_closes_first() {
    let mut w = World::new();
    w.draw_in("DdddddXxxxxx");
    //           |****|
    w.map('x', 3, 9).unwrap();
    assert_eq!(w.draw(), "DddXxxxxxXxx");
    assert_eq!(
        w.hooks(),
        "may_split 0-6 at 3, open 0-3, may_split 6-12 at 9, open 9-12, \
         close 3-6, close 6-9, mmap 3-9"
    );
}

/// The driver refuses when the old areas are gone: a hole stays.
#[test]
fn a_refused_replacement_leaves_a_hole() {
    let device = File {
        mmap_error: Some(Errno::EBUSY),
        ..File::device(64)
    };
    let mut w = World::with(Rules::V7_2, Limits::default(), device);
    w.draw_in("Aaaaaa");
    assert_eq!(w.map('d', 2, 4), Err(Errno::EBUSY));
    assert_eq!(w.draw(), "Aa..Aa");
}

/// A limit that is met before leaves the cuts, no more. What goes away is counted out of it first.
#[test]
fn limits_are_net_of_what_goes() {
    let limits = Limits {
        address_space: 6 * PAGE_SIZE,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.draw_in("Aaaaaa");
    assert_eq!(w.map('r', 2, 4), Ok(()));
    assert_eq!(w.draw(), "AaRrAa");
    assert_eq!(w.map('r', 5, 7), Err(Errno::ENOMEM));
    assert_eq!(w.draw(), "AaRrAA");
}

/// From 3.10 to 6.11 the same was found out before the cuts, until then when all was gone.
#[test]
fn limits_leave_what_they_did_in_their_era() {
    for (rules, left) in [
        (Rules::V7_2, "AaaaaA"),
        (Rules::V6_12, "AaaaaA"),
        (Rules::V6_1, "Aaaaaa"),
        (Rules::V4_9, "Aaaaaa"),
        (Rules::V2_6_11, "Aaaaa"),
    ] {
        let limits = Limits {
            address_space: 6 * PAGE_SIZE,
            ..Limits::default()
        };
        let mut w = World::with(rules, limits, File::device(64));
        w.draw_in("Aaaaaa");
        assert_eq!(w.map('r', 5, 8), Err(Errno::ENOMEM), "{}", rules.name);
        assert_eq!(w.draw(), left, "{}", rules.name);
    }
}

#[test]
fn promised_memory_is_limited() {
    let limits = Limits {
        overcommit: Overcommit::Guess { total: 4 },
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    assert_eq!(w.map('a', 0, 5), Err(Errno::ENOMEM));
    assert_eq!(w.map('r', 0, 5), Ok(()));
    let mut args = w.args('a', 5, 10);
    args.flags |= MapFlags::NORESERVE;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
}

#[test]
fn noreplace_replaces_nothing() {
    let mut w = World::new();
    w.draw_in("..Aa");
    let mut args = w.args('a', 0, 3);
    args.flags = args.flags.without(MapFlags::FIXED) | MapFlags::FIXED_NOREPLACE;
    assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EEXIST));
    args.len = 2 * PAGE_SIZE;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
    assert_eq!(w.draw(), "Aaaa");
}

// mmap's errors

/// One wrong argument after the other, in the order in which the kernel looks at them: each line is
/// right where the one before is wrong.
#[test]
fn mmap_errors_in_order() {
    let mut w = World::new();
    let good = w.args('d', 0, 2);
    let with = |change: &dyn Fn(&mut Mmap)| {
        let mut args = good;
        change(&mut args);
        args
    };
    let huge = u64::MAX - PAGE_SIZE + 2;
    for (args, error) in [
        (
            with(&|a| {
                a.offset = 1;
                a.backing = Backing::None;
            }),
            Errno::EINVAL,
        ),
        (
            with(&|a| {
                a.backing = Backing::None;
                a.len = 0;
            }),
            Errno::EBADF,
        ),
        (with(&|a| a.len = 0), Errno::EINVAL),
        (with(&|a| a.len = huge), Errno::ENOMEM),
        (
            with(&|a| {
                a.len = 1 << 47;
                a.addr = 1;
            }),
            Errno::ENOMEM,
        ),
        (with(&|a| a.addr += 1), Errno::EINVAL),
        (
            with(&|a| {
                a.flags = MapFlags::FIXED;
                a.offset = !(PAGE_SIZE - 1);
            }),
            Errno::EOVERFLOW,
        ),
        (with(&|a| a.flags = MapFlags::FIXED), Errno::EINVAL),
        (
            with(&|a| a.flags = MapFlags::FIXED | MapFlags::SHARED_VALIDATE | MapFlags::SYNC),
            Errno::EOPNOTSUPP,
        ),
        (with(&|a| a.flags |= MapFlags::GROWSDOWN), Errno::EINVAL),
        (with(&|a| a.flags |= MapFlags::HUGETLB), Errno::EINVAL),
    ] {
        assert_eq!(w.apply(&Op::Mmap(args)), Err(error), "{args:x?}");
        assert_eq!(w.hooks(), "");
    }
    assert!(w.apply(&Op::Mmap(good)).is_ok());
}

#[test]
fn the_mode_of_the_file_decides() {
    for (read, write, prot, flags, result) in [
        (
            true,
            false,
            Prot::WRITE,
            MapFlags::SHARED,
            Err(Errno::EACCES),
        ),
        (true, false, Prot::WRITE, MapFlags::PRIVATE, Ok(())),
        (true, false, Prot::READ, MapFlags::SHARED, Ok(())),
        (
            false,
            true,
            Prot::WRITE,
            MapFlags::SHARED,
            Err(Errno::EACCES),
        ),
        (true, true, Prot::WRITE, MapFlags::SHARED, Ok(())),
    ] {
        let device = File {
            read,
            write,
            ..File::device(64)
        };
        let mut w = World::with(Rules::V7_2, Limits::default(), device);
        let mut args = w.args('d', 0, 2);
        args.prot = prot;
        args.flags = flags | MapFlags::FIXED;
        assert_eq!(w.apply(&Op::Mmap(args)).map(drop), result, "{args:?}");
    }
    // Mapped shared from a file that is open for reading: it can never be made writable.
    let device = File {
        write: false,
        ..File::device(64)
    };
    let mut w = World::with(Rules::V7_2, Limits::default(), device);
    let mut args = w.args('d', 0, 2);
    args.prot = Prot::READ;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
    assert_eq!(
        w.apply(&Op::Mprotect {
            addr: BASE,
            len: PAGE_SIZE,
            prot: Prot::WRITE
        }),
        Err(Errno::EACCES)
    );
}

#[test]
fn memory_below_the_minimum_needs_a_capability() {
    let mut limits = Limits::default();
    let op = |addr| {
        Op::Mmap(Mmap {
            addr,
            len: PAGE_SIZE,
            prot: Prot::READ,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
            backing: Backing::None,
            offset: 0,
        })
    };
    let mut root = World::with(Rules::V7_2, limits, File::device(1));
    assert_eq!(root.apply(&op(0)), Ok(0));
    limits.cap_sys_rawio = false;
    let mut user = World::with(Rules::V7_2, limits, File::device(1));
    assert_eq!(user.apply(&op(0)), Err(Errno::EPERM));
    assert_eq!(user.apply(&op(0x1_0000)), Ok(0x1_0000));
}

#[test]
fn locked_memory_is_limited() {
    let limits = Limits {
        memlock: 2 * PAGE_SIZE,
        cap_ipc_lock: false,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    let mut args = w.args('a', 0, 2);
    args.flags |= MapFlags::LOCKED;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
    assert_eq!(w.space.counters().locked_vm, 2);
    let mut args = w.args('a', 2, 3);
    args.flags |= MapFlags::LOCKED;
    assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EAGAIN));
    w.unmap(1, 2).unwrap();
    assert_eq!(w.space.counters().locked_vm, 1);
}

// touching

#[test]
fn touching_needs_permission_and_a_page() {
    let mut w = World::with(Rules::V7_2, Limits::default(), File::device(2));
    w.draw_in("DddRr.Aa");
    let mut touch = |page, write, expected: Option<Signal>| {
        let refused = w.touch(page, write).err();
        assert_eq!(refused, expected.map(|_| Errno::EFAULT), "page {page}");
        assert_eq!(w.signal, expected, "page {page}");
    };
    touch(0, true, None);
    // The third page is past the end of the device.
    touch(2, false, Some(Signal::BeyondEnd));
    touch(3, false, None);
    touch(3, true, Some(Signal::Denied));
    touch(5, false, Some(Signal::Unmapped));
    touch(6, true, None);
    let device = w.device;
    w.space.set_file_size(device, 3);
    assert_eq!(w.touch(2, false), Ok(()));
    assert_eq!(w.signal, None);
}

/// What else is refused, and that the signal is of the touch alone.
#[test]
fn signals_of_a_touch() {
    let limits = Limits {
        pkeys: true,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.draw_in("AaRr");
    let mut signal = |op: &Op| {
        let result = w.apply(op);
        (result.err(), w.signal)
    };
    let touch = |addr| Op::Touch { addr, write: false };
    let guard = Op::Madvise {
        addr: BASE,
        len: PAGE_SIZE,
        advice: Advice::GUARD_INSTALL,
    };
    let exec = Op::Mprotect {
        addr: BASE + 2 * PAGE_SIZE,
        len: PAGE_SIZE,
        prot: Prot::EXEC,
    };
    assert_eq!(
        (signal(&guard), signal(&exec)),
        ((None, None), (None, None))
    );
    let fault = |signal| (Some(Errno::EFAULT), Some(signal));
    assert_eq!(signal(&touch(BASE)), fault(Signal::Unmapped));
    assert_eq!(signal(&touch(BASE + 2 * PAGE_SIZE)), fault(Signal::Key));
    let written = Op::Touch {
        addr: BASE + 2 * PAGE_SIZE,
        write: true,
    };
    assert_eq!(signal(&written), fault(Signal::Key));
    // The last page that a process cannot have, no address, and the kernel's own.
    for (addr, expected) in [
        ((1 << 47) - 1, Signal::Unmapped),
        (1 << 47, Signal::NoAddress),
        (u64::MAX << 47, Signal::Unmapped),
        ((u64::MAX << 47) - 1, Signal::NoAddress),
        (u64::MAX, Signal::Unmapped),
    ] {
        assert_eq!(signal(&touch(addr)), fault(expected), "{addr:#x}");
    }
    // Without memory the program would try again.
    let starve = Op::FailAllocation {
        what: Allocation::AnonVma,
        nth: 1,
    };
    let write = Op::Touch {
        addr: BASE + PAGE_SIZE,
        write: true,
    };
    assert_eq!(signal(&starve), (None, None));
    // Who installed the guards has made the anon_vma.
    assert_eq!(signal(&write), (None, None));
    let mut w = World::new();
    w.draw_in("AaRr");
    w.apply(&starve).unwrap();
    assert_eq!((w.apply(&write), w.signal), (Err(Errno::EFAULT), None));
    assert_eq!((w.unmap(0, 0), w.signal), (Err(Errno::EINVAL), None));
    let numbers = [Signal::Denied, Signal::BeyondEnd].map(Signal::number);
    assert_eq!(numbers, [11, 7]);
}

/// A stack grows down to what is touched, but not into the guard gap above another area.
#[test]
fn a_stack_grows() {
    let limits = Limits {
        stack_guard_gap: 4 * PAGE_SIZE,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.map('a', 0, 2).unwrap();
    let mut args = w.args('a', 12, 14);
    args.flags |= MapFlags::GROWSDOWN;
    assert!(w.apply(&Op::Mmap(args)).is_ok());
    assert_eq!(w.space.counters().stack_vm, 2);
    assert_eq!(w.touch(8, false), Ok(()));
    assert_eq!(w.draw(), "Aa......Aaaaaa");
    assert_eq!(w.touch(5, false), Err(Errno::EFAULT));
    assert_eq!(w.touch(6, false), Ok(()));
    assert_eq!(w.draw(), "Aa....Aaaaaaaa");
    assert_eq!(w.space.counters().stack_vm, 8);
}
