// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What other calls than mmap and munmap do to areas and say to drivers, drawn.

use std::num::NonZeroU8;

use vmalab_model::mempolicy::mode;
use vmalab_model::{
    AddressSpace, Advice, Backing, Break, Errno, File, FileId, Limits, MapFlags, MdweFlags,
    MlockFlags, MlockallFlags, Mmap, MremapFlags, Name, NewName, Object, Op, PAGE_SIZE, PMD_SIZE,
    Prot, Rules, ShmFlags, VmFlags,
};

use crate::world::{BASE, World};

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn protect(from: u64, to: u64, prot: Prot) -> Op {
    Op::Mprotect {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        prot,
    }
}

/// Pages `from..to` move to `target`.
fn relocate(from: u64, to: u64, target: u64) -> Op {
    Op::Mremap {
        addr: at(from),
        old_len: (to - from) * PAGE_SIZE,
        new_len: (to - from) * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(target),
    }
}

fn with(device: File) -> World {
    World::with(Rules::V7_2, Limits::default(), device)
}

// madvise

/// A device has no holes; but first, an offset in a file is no negative number, as which it may be mapped.
#[test]
fn a_hole_in_a_device() {
    for (offset, errno) in [
        (0, Errno::ENODEV),
        ((2 * PAGE_SIZE).wrapping_neg(), Errno::EINVAL),
    ] {
        let mut w = World::with(Rules::V7_2, Limits::default(), File::device(64));
        let mut args = w.args('d', 0, 1);
        args.offset = offset;
        w.apply(&Op::Mmap(args)).unwrap();
        let remove = Op::Madvise {
            addr: at(0),
            len: PAGE_SIZE,
            advice: Advice::REMOVE,
        };
        assert_eq!(w.apply(&remove), Err(errno));
    }
}

// mremap with MREMAP_DONTUNMAP

/// Whichever way it went.
#[test]
fn private_pages_that_come_back_have_not_moved() {
    for away in [0, 15] {
        let mut w = World::with(Rules::V7_3, Limits::default(), File::device(64));
        let mut args = w.args('f', 8, 10);
        args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
        w.apply(&Op::Mmap(args)).unwrap();
        w.touch(9, true).unwrap();
        w.apply(&relocate(9, 10, away)).unwrap();
        w.apply(&relocate(away, away + 1, 9)).unwrap();
        assert_eq!(w.draw(), "........Ff");
    }
}

/// The copy of what was never written to stays apart from its source; in 6.1 from all if it is beside it.
#[test]
fn a_copy_beside_its_source() {
    for (rules, left) in [
        (Rules::V5_10, "Aaaaaaaa"),
        (Rules::V6_1, "AaaAaAaa"),
        (Rules::V7_2, "AaaaaAaa"),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("Aaaaaaaa");
        let copy = Op::Mremap {
            addr: at(6),
            old_len: 2 * PAGE_SIZE,
            new_len: 2 * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
            new_addr: at(3),
        };
        w.apply(&copy).unwrap();
        assert_eq!(w.draw(), left, "{}", rules.name);
    }
}

#[test]
fn a_copy_of_locked_memory() {
    for (rules, locked) in [
        (Rules::V5_10, 2),
        (Rules::V6_12, 2),
        (Rules::V6_18, 4),
        (Rules::V7_2, 2),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        let mut args = w.args('a', 0, 2);
        args.flags |= MapFlags::LOCKED;
        w.apply(&Op::Mmap(args)).unwrap();
        let copy = Op::Mremap {
            addr: at(0),
            old_len: 2 * PAGE_SIZE,
            new_len: 2 * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
            new_addr: at(8),
        };
        w.apply(&copy).unwrap();
        assert_eq!(w.space.counters().locked_vm, locked, "{}", rules.name);
    }
}

// mlock2

#[test]
fn locking_on_fault_what_nobody_may_access() {
    for (rules, result) in [(Rules::V5_10, Err(Errno::ENOMEM)), (Rules::V6_1, Ok(0))] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        let mut args = w.args('a', 0, 2);
        args.prot = Prot(0);
        w.apply(&Op::Mmap(args)).unwrap();
        let lock = Op::Mlock {
            addr: at(0),
            len: 2 * PAGE_SIZE,
            flags: MlockFlags::ONFAULT,
        };
        assert_eq!(w.apply(&lock), result, "{}", rules.name);
    }
}

// madvise

#[test]
fn populating_and_holes() {
    for (rules, error) in [(Rules::V6_1, Errno::EINVAL), (Rules::V7_2, Errno::ENOMEM)] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("..Rr");
        let populate = Op::Madvise {
            addr: at(0),
            len: 4 * PAGE_SIZE,
            advice: Advice::POPULATE_WRITE,
        };
        // The hole, or what cannot be written to behind it.
        assert_eq!(w.apply(&populate), Err(error), "{}", rules.name);
    }
}

#[test]
fn advice_at_the_limit() {
    for (rules, error) in [
        (Rules::V4_9, Errno::EAGAIN),
        (Rules::V5_10, Errno::ENOMEM),
        (Rules::V6_1, Errno::EAGAIN),
    ] {
        let limits = Limits {
            max_map_count: 1,
            ..Limits::default()
        };
        let mut w = World::with(rules, limits, File::device(64));
        w.draw_in("Aaaa");
        let advise = Op::Madvise {
            addr: at(1),
            len: PAGE_SIZE,
            advice: Advice::RANDOM,
        };
        assert_eq!(w.apply(&advise), Err(error), "{}", rules.name);
        assert_eq!(w.draw(), "Aaaa");
    }
}

// mremap, of private mappings of files

/// Since 7.3, what was written to merges only with what has moved as far; what was not, with all.
#[test]
fn private_pages_know_their_place() {
    for (rules, written, left) in [
        (Rules::V7_2, true, "Fff"),
        (Rules::V7_3, true, "FfF"),
        (Rules::V7_3, false, "Fff"),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        for (from, to, offset) in [(0, 2, 0), (8, 9, 2)] {
            let mut args = w.args('f', from, to);
            args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
            args.offset = offset * PAGE_SIZE;
            w.apply(&Op::Mmap(args)).unwrap();
        }
        if written {
            w.touch(8, true).unwrap();
        }
        w.apply(&relocate(8, 9, 2)).unwrap();
        assert_eq!(w.draw(), left, "{}", rules.name);
        // What comes back to where it had moved to has moved as far.
        w.apply(&relocate(2, 3, 8)).unwrap();
        w.apply(&relocate(8, 9, 2)).unwrap();
        assert_eq!(w.draw(), left, "{}", rules.name);
    }
}

// mprotect

#[test]
fn mprotect_asks_the_driver() {
    let mut w = World::new();
    w.draw_in("Dddddd");
    //           |*|
    w.apply(&protect(2, 4, Prot::READ)).unwrap();
    assert_eq!(w.draw(), "DdDdDd");
    assert_eq!(
        w.hooks(),
        "mprotect 2-4 of 0-6, may_split 0-6 at 2, open 0-2, may_split 2-6 at 4, open 4-6"
    );
    // What it refuses does not even split.
    let mut w = with(File {
        mprotect_error: Some(Errno::EPERM),
        ..File::device(64)
    });
    w.draw_in("Dddddd");
    assert_eq!(w.apply(&protect(2, 4, Prot::READ)), Err(Errno::EPERM));
    assert_eq!(w.draw(), "Dddddd");
    assert_eq!(w.hooks(), "mprotect 2-4 of 0-6");
}

/// Seen of the kernel's own code: a merge that a `close` hook forbids leaves the iterator one area behind.
#[test]
fn mprotect_asks_again_where_a_merge_was_refused() {
    let mut w = World::new();
    w.draw_in("Dddddd");
    w.apply(&protect(3, 6, Prot::READ)).unwrap();
    w.apply(&protect(3, 6, Prot::READ | Prot::WRITE)).unwrap();
    assert_eq!(w.draw(), "DddDdd");
    assert_eq!(w.hooks(), "mprotect 3-6 of 3-6, mprotect 3-6 of 3-6");
}

/// What was changed before the hole stays changed.
#[test]
fn mprotect_stops_at_a_hole() {
    let mut w = World::new();
    w.draw_in("Aaa..Aaa");
    assert_eq!(w.apply(&protect(1, 7, Prot::READ)), Err(Errno::ENOMEM));
    assert_eq!(w.draw(), "ARr..Aaa");
}

#[test]
fn protection_keys_have_to_be_allocated() {
    let limits = Limits {
        pkeys: true,
        ..Limits::default()
    };
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.draw_in("Aaa");
    let call = |pkey| Op::PkeyMprotect {
        addr: at(1),
        len: PAGE_SIZE,
        prot: Prot::READ,
        pkey,
    };
    assert_eq!(w.apply(&call(1)), Err(Errno::EINVAL));
    assert_eq!(w.draw(), "Aaa");
    w.apply(&call(0)).unwrap();
    assert_eq!(w.draw(), "ARA");
    // A processor without them has not even the first.
    let mut w = World::new();
    w.draw_in("Aaa");
    assert_eq!(w.apply(&call(0)), Err(Errno::EINVAL));
}

#[test]
fn what_is_denied_to_those_who_would_execute() {
    let mut w = World::new();
    w.draw_in("AaaRrr");
    let mdwe = |bits| Op::SetMdwe { bits };
    w.apply(&mdwe(MdweFlags::REFUSE_EXEC_GAIN)).unwrap();
    let exec = Prot::READ | Prot::EXEC;
    assert_eq!(w.apply(&protect(3, 6, exec)), Err(Errno::EACCES));
    let mut args = w.args('r', 8, 9);
    args.prot = exec | Prot::WRITE;
    assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EACCES));
    // New and not writable is no gain.
    args.prot = exec;
    w.apply(&Op::Mmap(args)).unwrap();
    assert_eq!(w.apply(&mdwe(MdweFlags(0))), Err(Errno::EPERM));
}

// mremap

#[test]
fn a_driver_is_told_of_a_move() {
    let mut w = World::new();
    w.draw_in("Dddd");
    //          |*|
    assert_eq!(w.apply(&relocate(1, 3, 8)), Ok(at(8)));
    assert_eq!(w.draw(), "D..D....Dd");
    assert_eq!(
        w.hooks(),
        "may_split 0-4 at 1, may_split 0-4 at 3, open 8-10 of page 1, mremap 8-10 of page 1, \
         may_split 0-4 at 1, open 0-1, may_split 1-4 at 3, open 3-4, close 1-3"
    );
}

/// The pages go back; what had been in the way stays away.
#[test]
fn a_driver_sends_a_move_back() {
    let mut w = with(File {
        mremap_error: Some(Errno::EBUSY),
        ..File::device(64)
    });
    w.draw_in("Dddd....Aaaa");
    assert_eq!(w.apply(&relocate(1, 3, 8)), Err(Errno::EBUSY));
    assert_eq!(w.draw(), "Dddd......Aa");
    assert_eq!(
        w.hooks(),
        "may_split 0-4 at 1, may_split 0-4 at 3, open 8-10 of page 1, mremap 8-10 of page 1, \
         close 8-10 of page 1"
    );
}

#[test]
fn several_areas_move_with_the_gaps_between_them() {
    let mut w = World::new();
    w.draw_in("AaRr.F");
    w.apply(&relocate(0, 6, 8)).unwrap();
    assert_eq!(w.draw(), "........AaRr.F");
    // Before 6.17 a move was of one area.
    let mut w = World::with(Rules::V6_12, Limits::default(), File::device(64));
    w.draw_in("AaRr.F");
    assert_eq!(w.apply(&relocate(0, 6, 8)), Err(Errno::EFAULT));
}

/// Its driver could put an area elsewhere than it shall be; alone it moves all the same.
#[test]
fn a_driver_that_chooses_addresses_is_not_moved_with_others() {
    let mut w = with(File {
        chooses_address: true,
        ..File::device(64)
    });
    w.draw_in("AaDd");
    assert_eq!(w.apply(&relocate(0, 4, 8)), Err(Errno::EFAULT));
    assert_eq!(w.draw(), "..Dd....Aa", "what came before it has moved");
    w.apply(&relocate(2, 4, 10)).unwrap();
    assert_eq!(w.draw(), "........AaDd");
}

/// `thp_get_unmapped_area`: an address has the same place in a huge page as what it shows, and areas are moved
/// as those of any file.
#[test]
fn a_driver_has_long_mappings_where_huge_pages_fit() {
    let file = File {
        aligns_huge: true,
        ..File::device(64)
    };
    let mut w = with(file);
    let map = |pages: u64, page: u64| {
        Op::Mmap(Mmap {
            addr: 0,
            len: pages * PAGE_SIZE,
            prot: Prot::READ,
            flags: MapFlags::SHARED,
            backing: Backing::File(FileId(0)),
            offset: page * PAGE_SIZE,
        })
    };
    let huge = PMD_SIZE / PAGE_SIZE;
    for page in [0, 1, 3] {
        // What is longer by one page must not be there by accident.
        w.apply(&map(1, 0)).unwrap();
        let addr = w.apply(&map(2 * huge, page)).unwrap();
        assert_eq!(addr % PMD_SIZE, page * PAGE_SIZE, "{addr:#x}");
        // None fits into it: it comes right below.
        let below = w.apply(&map(huge, huge - 1)).unwrap();
        assert_eq!(below, addr - PMD_SIZE);
    }
    let mut w = with(file);
    w.draw_in("AaDd");
    w.apply(&relocate(0, 4, 8)).unwrap();
    assert_eq!(w.draw(), "........AaDd");
}

// mlock, mlockall

#[test]
fn locking_cuts_and_merges() {
    let mut w = World::new();
    w.draw_in("Aaaaaa");
    let len = 2 * PAGE_SIZE;
    w.apply(&Op::Mlock {
        addr: at(2),
        len,
        flags: MlockFlags::ONFAULT,
    })
    .unwrap();
    assert_eq!(
        (w.draw().as_str(), w.space.counters().locked_vm),
        ("AaAaAa", 2)
    );
    w.apply(&Op::Munlock { addr: at(2), len }).unwrap();
    assert_eq!(
        (w.draw().as_str(), w.space.counters().locked_vm),
        ("Aaaaaa", 0)
    );
}

/// Until 7.3.3, 8 TiB are more pages than what they are counted in can hold.
#[test]
fn so_much_cannot_be_counted() {
    for (rules, counted) in [
        (Rules::V4_12, (1_u64 << 31).wrapping_neg()),
        (Rules::V7_2, (1_u64 << 31).wrapping_neg()),
        (Rules::V7_3_4, 1 << 31),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        let mut args = w.args('a', 0, 1 << 31);
        args.flags |= MapFlags::NORESERVE;
        w.apply(&Op::Mmap(args)).unwrap();
        w.apply(&Op::Mlock {
            addr: at(0),
            len: 1 << 43,
            flags: MlockFlags::ONFAULT,
        })
        .unwrap();
        assert_eq!(w.space.counters().locked_vm, counted, "{}", rules.name);
        w.apply(&Op::Munlockall).unwrap();
        assert_eq!(w.space.counters().locked_vm, 0, "{}", rules.name);
    }
}

#[test]
fn locking_all_locks_what_comes() {
    let mut w = World::new();
    w.draw_in("Aaaa");
    let lock = |flags| Op::Mlockall { flags };
    w.apply(&lock(MlockallFlags::FUTURE)).unwrap();
    assert_eq!(w.space.counters().locked_vm, 0);
    w.map('a', 6, 8).unwrap();
    assert_eq!(w.space.counters().locked_vm, 2);
    // Not said again, so it is no longer so.
    w.apply(&lock(MlockallFlags::CURRENT)).unwrap();
    w.map('a', 10, 12).unwrap();
    assert_eq!(w.space.counters().locked_vm, 6);
    w.apply(&Op::Munlockall).unwrap();
    assert_eq!(w.space.counters().locked_vm, 0);
    assert_eq!(w.apply(&lock(MlockallFlags::ONFAULT)), Err(Errno::EINVAL));
}

// brk

#[test]
fn the_break_goes_up_and_down() {
    let mut w = World::new();
    let brk = |addr| Op::Brk { addr };
    w.space.set_break(Break::empty(at(2)));
    w.draw_in("Aa......R");
    // Not into the area above, nor into the page before it. Never into what is below.
    assert_eq!(w.apply(&brk(0)), Ok(at(2)));
    assert_eq!(w.apply(&brk(at(8))), Ok(at(2)));
    assert_eq!(w.apply(&brk(at(4) + 1)), Ok(at(4) + 1));
    // It begins an area of its own.
    assert_eq!(w.draw(), "AaAaa...R");
    assert_eq!(w.apply(&brk(at(6))), Ok(at(6)));
    assert_eq!(w.draw(), "AaAaaa..R");
    assert_eq!(w.apply(&brk(at(3))), Ok(at(3)));
    assert_eq!(w.draw(), "AaA.....R");
    // An error of the unmapping inside is hidden.
    w.apply(&brk(at(5))).unwrap();
    let seal = Op::Mseal {
        addr: at(4),
        len: PAGE_SIZE,
        flags: 0,
    };
    w.apply(&seal).unwrap();
    assert_eq!(w.apply(&brk(at(3))), Ok(at(5)));
    assert_eq!(w.draw(), "AaAAA...R");
}

// mseal

#[test]
fn a_seal_keeps_out_all_changes() {
    let mut w = World::new();
    w.draw_in("RrrrrrAa");
    let seal = |from, to| Op::Mseal {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        flags: 0,
    };
    assert_eq!(w.apply(&seal(6, 9)), Err(Errno::ENOMEM));
    w.apply(&seal(2, 4)).unwrap();
    assert_eq!(w.draw(), "RrRrRrAa");
    let eperm = Err(Errno::EPERM);
    assert_eq!(w.apply(&protect(2, 4, Prot::empty())), eperm);
    assert_eq!(w.apply(&relocate(2, 4, 10)), eperm);
    assert_eq!(w.apply(&relocate(6, 7, 3)), eperm);
    let advise = |advice| Op::Madvise {
        addr: at(2),
        len: PAGE_SIZE,
        advice,
    };
    // Who could not write cannot wipe; other advice is welcome.
    assert_eq!(w.apply(&advise(Advice::DONTNEED)), eperm);
    w.apply(&advise(Advice::WILLNEED)).unwrap();
    // Before 6.10 there were no seals.
    let mut w = World::with(Rules::V6_1, Limits::default(), File::device(64));
    assert_eq!(w.apply(&seal(0, 1)), Err(Errno::ENOSYS));
}

// remap_file_pages

#[test]
fn pages_of_a_file_are_remapped_by_mmap() {
    let mut w = World::new();
    w.draw_in("Dddddd");
    w.apply(&Op::RemapFilePages {
        addr: at(2),
        len: 2 * PAGE_SIZE,
        prot: Prot::empty(),
        pgoff: 20,
        flags: MapFlags::empty(),
    })
    .unwrap();
    assert_eq!(w.draw(), "DdDdDd");
    assert_eq!(
        w.hooks(),
        "may_split 0-6 at 2, open 0-2, may_split 2-6 at 4, open 4-6, close 2-4, mmap 2-4 of page 20"
    );
}

// Names, policies, guard regions

fn name(from: u64, to: u64, number: u8) -> Op {
    Op::SetName {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        name: NonZeroU8::new(number).map_or(NewName::None, |number| NewName::Some(Name(number))),
    }
}

fn nameable(rules: Rules) -> World {
    let limits = Limits {
        anon_vma_name: true,
        ..Limits::default()
    };
    World::with(rules, limits, File::device(64))
}

#[test]
fn a_name_cuts_and_merges() {
    let mut w = nameable(Rules::V7_2);
    w.draw_in("Aaaaaa");
    w.apply(&name(2, 4, 1)).unwrap();
    assert_eq!(w.draw(), "AaAaAa");
    w.apply(&name(4, 6, 2)).unwrap();
    assert_eq!(w.draw(), "AaAaAa", "another name is another area");
    w.apply(&name(4, 6, 1)).unwrap();
    assert_eq!(w.draw(), "AaAaaa");
    w.apply(&name(0, 6, 0)).unwrap();
    assert_eq!(w.draw(), "Aaaaaa");
}

#[test]
fn only_anonymous_memory_has_a_name() {
    let mut w = nameable(Rules::V7_2);
    w.draw_in("AaF.Aa");
    // What comes before it has got its name.
    assert_eq!(w.apply(&name(1, 3, 1)), Err(Errno::EBADF));
    assert_eq!(w.draw(), "AAF.Aa");
    assert_eq!(w.apply(&name(3, 5, 1)), Err(Errno::ENOMEM));
    assert_eq!(w.draw(), "AAF.AA");
    let mut older = nameable(Rules::V5_10);
    older.draw_in("Aa");
    assert_eq!(older.apply(&name(0, 1, 1)), Err(Errno::EINVAL));
}

fn bind(from: u64, to: u64, mode: u32) -> Op {
    Op::Mbind {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        mode,
        nodes: (mode != mode::DEFAULT).into(),
        flags: 0,
    }
}

#[test]
fn a_policy_cuts_and_merges() {
    let mut w = World::new();
    w.draw_in("Aaaaaa");
    w.apply(&bind(2, 4, mode::BIND)).unwrap();
    assert_eq!(w.draw(), "AaAaAa");
    w.apply(&bind(3, 6, mode::INTERLEAVE)).unwrap();
    assert_eq!(w.draw(), "AaAAaa");
    w.apply(&bind(0, 6, mode::DEFAULT)).unwrap();
    assert_eq!(w.draw(), "Aaaaaa");
}

#[test]
fn a_policy_is_for_all_of_a_range_but_the_default() {
    let mut w = World::new();
    w.draw_in("Aaa.Aaa");
    assert_eq!(w.apply(&bind(1, 6, mode::BIND)), Err(Errno::EFAULT));
    assert_eq!(w.apply(&bind(6, 9, mode::BIND)), Err(Errno::EFAULT));
    assert_eq!(w.draw(), "Aaa.Aaa");
    w.apply(&bind(1, 6, mode::DEFAULT)).unwrap();
    assert_eq!(w.apply(&bind(8, 9, mode::DEFAULT)), Err(Errno::EFAULT));
    // Once, a hole at the end was not seen if something was mapped behind it.
    let mut older = World::with(Rules::V4_12, Limits::default(), File::device(64));
    older.draw_in("Aaa.Aaa");
    older.apply(&bind(1, 4, mode::BIND)).unwrap();
    assert_eq!(older.draw(), "AAa.Aaa");
}

#[test]
fn a_guard_is_of_pages_and_moves_with_them() {
    let mut w = World::new();
    w.draw_in("Aaaa");
    let guard = |from: u64, to: u64, advice| Op::Madvise {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        advice,
    };
    w.apply(&guard(1, 2, Advice::GUARD_INSTALL)).unwrap();
    assert_eq!(w.draw(), "Aaaa");
    assert_eq!(w.touch(1, false), Err(Errno::EFAULT));
    w.touch(2, false).unwrap();
    w.apply(&guard(0, 4, Advice::DONTNEED)).unwrap();
    assert_eq!(
        w.touch(1, true),
        Err(Errno::EFAULT),
        "it outlives its pages"
    );
    w.apply(&relocate(0, 4, 8)).unwrap();
    assert_eq!(w.touch(9, true), Err(Errno::EFAULT));
    w.apply(&guard(8, 12, Advice::GUARD_REMOVE)).unwrap();
    w.touch(9, true).unwrap();
}

/// A name that is given writes back the flags of before over those that a merge has inherited.
#[test]
fn a_name_forgets_guards_that_it_merges_with() {
    let mut w = nameable(Rules::V7_2);
    w.draw_in("Aaaa");
    w.apply(&name(2, 4, 1)).unwrap();
    let guard = Op::Madvise {
        addr: at(3),
        len: PAGE_SIZE,
        advice: Advice::GUARD_INSTALL,
    };
    w.apply(&guard).unwrap();
    let flagged = |w: &World| {
        let areas = w.space.areas();
        let flags = areas.map(|area| area.flags.contains(VmFlags::MAYBE_GUARD));
        flags.collect::<Vec<_>>()
    };
    assert_eq!(flagged(&w), [false, true]);
    w.apply(&name(0, 2, 1)).unwrap();
    assert_eq!((w.draw().as_str(), flagged(&w)), ("Aaaa", vec![false]));
    assert_eq!(w.touch(3, true), Err(Errno::EFAULT), "the guard is there");
}

// What is discarded

#[test]
fn what_moves_is_not_lost() {
    let mut w = World::new();
    w.draw_in("Aaaa....Dd");
    let outcome = w.space.apply(&relocate(0, 2, 9));
    // The page of the device that was in the way alone.
    let page = at(9)..at(10);
    assert_eq!(outcome.discarded, vec![page]);
    let outcome = w.space.apply(&Op::Munmap {
        addr: at(2),
        len: 7 * PAGE_SIZE,
    });
    assert_eq!(outcome.discarded, [at(2)..at(4), at(8)..at(9)]);
}

// Segments

#[test]
fn a_segment_goes_in_all_its_pieces() {
    let mut w = World::new();
    let segment = w.space.add_file(File::segment(5));
    let attach = |page| Op::Shmat {
        segment,
        addr: at(page),
        flags: ShmFlags::empty(),
    };
    let detach = |page| Op::Shmdt { addr: at(page) };
    assert_eq!(w.apply(&attach(0)), Ok(at(0)));
    assert_eq!(
        w.apply(&attach(4)),
        Err(Errno::EINVAL),
        "something is there"
    );
    w.apply(&attach(6)).unwrap();
    w.unmap(1, 2).unwrap();
    w.apply(&protect(2, 3, Prot::READ)).unwrap();
    let starts = |w: &World| w.space.areas().map(|vma| vma.start).collect::<Vec<_>>();
    assert_eq!(starts(&w), [0, 2, 3, 6].map(at));
    w.apply(&detach(0)).unwrap();
    assert_eq!(starts(&w), [at(6)]);
    assert_eq!(w.apply(&detach(0)), Err(Errno::EINVAL));
    // What moved is found where it would have begun.
    w.apply(&relocate(7, 9, 12)).unwrap();
    w.apply(&detach(11)).unwrap();
    assert_eq!(starts(&w), [6, 9].map(at));
}

/// The guard page of a stack at the very beginning would be below it.
#[test]
fn a_stack_at_the_first_address() {
    let mut w = World::with(Rules::V4_9, Limits::default(), File::device(64));
    let args = Mmap {
        addr: 0,
        ..w.args('a', 0, 2)
    };
    w.space
        .execute(&Op::Mmap(Mmap {
            flags: args.flags | MapFlags::GROWSDOWN,
            ..args
        }))
        .unwrap();
    let touch = Op::Touch {
        addr: 0,
        write: true,
    };
    assert_eq!(w.space.execute(&touch), Ok(0));
    let stack = *w.space.find_vma(0).unwrap();
    assert_eq!((stack.start, stack.anon_vma.is_some()), (0, true));
}

/// Who attaches and does not succeed leaves no file behind; who detaches leaves one that can be used again.
#[test]
fn attaching_goes_on_for_ever() {
    let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    let segment = space.add_file(File::segment(1));
    let attach = |addr| Op::Shmat {
        segment,
        addr,
        flags: ShmFlags::empty(),
    };
    for _ in 0..70_000 {
        // Unlike an address that is not aligned, one beyond the end is found out when all is made.
        let beyond = space.execute(&attach(space.limits().task_size));
        assert_eq!(beyond, Err(Errno::ENOMEM));
    }
    for _ in 0..70_000 {
        let addr = space.execute(&attach(0)).unwrap();
        space.execute(&Op::Shmdt { addr }).unwrap();
    }
    let addr = space.execute(&attach(0)).unwrap();
    let area = space.shown(space.find_vma(addr).unwrap());
    assert_eq!(area.object, Object::File(FileId(0)));
}

#[test]
fn a_restored_area_keeps_its_name() {
    let limits = Limits {
        anon_vma_name: true,
        ..Limits::default()
    };
    let name = Name(1.try_into().unwrap());
    let mut w = World::with(Rules::V7_2, limits, File::device(64));
    w.map('a', 0, 2).unwrap();
    w.apply(&Op::SetName {
        addr: at(0),
        len: 2 * PAGE_SIZE,
        name: NewName::Some(name),
    })
    .unwrap();
    let area = w.space.find_vma(at(0)).unwrap().area();
    w.unmap(0, 2).unwrap();
    w.space.restore(area, false).unwrap();
    assert_eq!(w.space.find_vma(at(0)).unwrap().name, Some(name));
}
