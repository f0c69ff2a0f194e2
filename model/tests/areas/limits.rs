// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What each sort of area counts as, and where the limits lie: one page below them, and one above.

use vmalab_model::limits::Overcommit;
use vmalab_model::{
    AddressSpace, Advice, Backing, Break, Counters, Errno, File, FileId, Limits, MapFlags,
    MlockFlags, MlockallFlags, Mmap, MremapFlags, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use crate::world::{BASE, World};

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

const READ: Prot = Prot::READ;
const WRITE: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);
const EXEC: Prot = Prot(Prot::READ.0 | Prot::EXEC.0);
const ALL: Prot = Prot(Prot::READ.0 | Prot::WRITE.0 | Prot::EXEC.0);
const PRIVATE: MapFlags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0);
const SHARED: MapFlags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0);
const STACK: MapFlags = MapFlags(PRIVATE.0 | MapFlags::GROWSDOWN.0);

/// Maps pages `from..to`; of the first file, if the flags do not say that it is anonymous memory.
fn map(from: u64, to: u64, prot: Prot, flags: MapFlags) -> Op {
    let anonymous = flags.contains(MapFlags::ANONYMOUS);
    Op::Mmap(Mmap {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        prot,
        flags: flags | MapFlags::FIXED,
        backing: if anonymous {
            Backing::None
        } else {
            Backing::File(FileId(0))
        },
        offset: 0,
    })
}

fn protect(from: u64, to: u64, prot: Prot) -> Op {
    Op::Mprotect {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        prot,
    }
}

fn lock(from: u64, to: u64) -> Op {
    Op::Mlock {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        flags: MlockFlags::empty(),
    }
}

/// An area of so many pages at page `from` gets another size.
fn resize(from: u64, old: u64, new: u64) -> Op {
    Op::Mremap {
        addr: at(from),
        old_len: old * PAGE_SIZE,
        new_len: new * PAGE_SIZE,
        flags: MremapFlags::empty(),
        new_addr: 0,
    }
}

/// A user without privileges, and the limits of the machine, but for what is given.
fn user(limits: Limits) -> World {
    let limits = Limits {
        cap_ipc_lock: false,
        cap_sys_rawio: false,
        ..limits
    };
    World::with(Rules::V7_2, limits, File::device(64))
}

/// Total, data, stack, exec.
fn counted(counters: &Counters) -> [u64; 4] {
    [
        counters.total_vm,
        counters.data_vm,
        counters.stack_vm,
        counters.exec_vm,
    ]
}

/// Three pages of each sort, and none when they are gone; by all rules that there have been.
#[test]
fn what_areas_count_as() {
    const FILE: MapFlags = MapFlags::PRIVATE;
    const FILE_SHARED: MapFlags = MapFlags::SHARED;
    for (prot, flags, now, before) in [
        (READ, PRIVATE, [3, 0, 0, 0], [3, 3, 0, 0]),
        (WRITE, PRIVATE, [3, 3, 0, 0], [3, 3, 0, 0]),
        (EXEC, PRIVATE, [3, 0, 0, 3], [3, 3, 0, 0]),
        (ALL, PRIVATE, [3, 3, 0, 0], [3, 3, 0, 0]),
        (READ, STACK, [3, 0, 3, 0], [3, 0, 3, 0]),
        (WRITE, STACK, [3, 0, 3, 0], [3, 0, 3, 0]),
        (EXEC, STACK, [3, 0, 3, 0], [3, 0, 3, 0]),
        (READ, SHARED, [3, 0, 0, 0], [3, 0, 0, 0]),
        (WRITE, SHARED, [3, 0, 0, 0], [3, 0, 0, 0]),
        (EXEC, SHARED, [3, 0, 0, 3], [3, 0, 0, 3]),
        (ALL, SHARED, [3, 0, 0, 0], [3, 0, 0, 0]),
        (READ, FILE, [3, 0, 0, 0], [3, 0, 0, 0]),
        (WRITE, FILE, [3, 3, 0, 0], [3, 0, 0, 0]),
        (EXEC, FILE, [3, 0, 0, 3], [3, 0, 0, 3]),
        (ALL, FILE, [3, 3, 0, 0], [3, 0, 0, 0]),
        (WRITE, FILE_SHARED, [3, 0, 0, 0], [3, 0, 0, 0]),
        (EXEC, FILE_SHARED, [3, 0, 0, 3], [3, 0, 0, 3]),
        (ALL, FILE_SHARED, [3, 0, 0, 0], [3, 0, 0, 0]),
    ] {
        for &rules in Rules::all() {
            let expected = if rules.data_is_the_rest { before } else { now };
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.apply(&map(0, 3, prot, flags)).unwrap();
            let counters = w.space.counters();
            assert_eq!(counted(&counters), expected, "{} {flags:?}", rules.name);
            assert_eq!((counters.map_count, counters.locked_vm), (1, 0));
            w.unmap(1, 2).unwrap();
            let less = expected.map(|pages| pages / 3 * 2);
            assert_eq!(counted(&w.space.counters()), less, "{}", rules.name);
            w.unmap(0, 3).unwrap();
            assert_eq!(w.space.counters(), Counters::default(), "{}", rules.name);
        }
    }
}

/// Another protection is another sort.
#[test]
fn protection_moves_between_counters() {
    let mut w = World::new();
    w.apply(&map(0, 4, WRITE, PRIVATE)).unwrap();
    for (prot, expected) in [
        (READ, [4, 2, 0, 0]),
        (EXEC, [4, 2, 0, 2]),
        (ALL, [4, 4, 0, 0]),
        (WRITE, [4, 4, 0, 0]),
    ] {
        w.apply(&protect(1, 3, prot)).unwrap();
        assert_eq!(counted(&w.space.counters()), expected, "{prot:?}");
    }
}

/// What can be executed of a file was a sort of its own always, and what a child does not get is counted no more.
#[test]
fn what_was_counted_before_4_5() {
    let mut w = World::with(Rules::V2_6_11, Limits::default(), File::regular(64));
    w.apply(&map(0, 4, READ, MapFlags::PRIVATE)).unwrap();
    for (prot, exec) in [(EXEC, 2), (ALL, 0), (EXEC, 2), (READ, 0), (EXEC, 2)] {
        w.apply(&protect(1, 3, prot)).unwrap();
        assert_eq!(counted(&w.space.counters()), [4, 0, 0, exec], "{prot:?}");
    }
    let mut w = World::with(Rules::V4_9, Limits::default(), File::regular(64));
    w.apply(&map(0, 4, WRITE, PRIVATE)).unwrap();
    let alone = Op::Madvise {
        addr: at(0),
        len: PAGE_SIZE,
        advice: Advice::DONTFORK,
    };
    w.apply(&alone).unwrap();
    w.apply(&Op::Fork).unwrap();
    assert_eq!(counted(&w.space.counters()), [3, 3, 0, 0]);
    assert_eq!(w.space.counters().map_count, 1);
}

/// Memory of devices and of huge pages was no part of `VmSize` once.
#[test]
fn what_is_no_ordinary_memory() {
    for (sets, before) in [
        (VmFlags::IO, 0),
        (VmFlags::HUGETLB, 0),
        (VmFlags::DONTEXPAND, 3),
    ] {
        let device = File {
            sets,
            ..File::device(64)
        };
        for (rules, expected) in [(Rules::V2_6_11, before), (Rules::V7_2, 3)] {
            let mut w = World::with(rules, Limits::default(), device);
            w.apply(&map(0, 3, WRITE, MapFlags::SHARED)).unwrap();
            assert_eq!(w.space.counters().total_vm, expected, "{}", rules.name);
        }
    }
}

// RLIMIT_AS

#[test]
fn the_size_of_an_address_space() {
    let mut w = user(Limits {
        address_space: 4 * PAGE_SIZE + 1,
        ..Limits::default()
    });
    let no = Err(Errno::ENOMEM);
    assert_eq!(w.apply(&map(8, 13, READ, SHARED)), no);
    assert_eq!(w.apply(&map(8, 11, READ, SHARED)), Ok(at(8)));
    assert_eq!(w.apply(&resize(8, 3, 5)), no);
    assert_eq!(w.apply(&resize(8, 3, 4)), Ok(at(8)));
    assert_eq!(w.apply(&map(0, 1, READ, PRIVATE)), no);
    assert_eq!(w.apply(&resize(8, 4, 2)), Ok(at(8)));
    assert_eq!(w.apply(&map(0, 2, READ, PRIVATE)), Ok(at(0)));
    w.space.set_break(Break::empty(at(4)));
    assert_eq!(w.apply(&Op::Brk { addr: at(5) }), Ok(at(4)));
    w.unmap(0, 1).unwrap();
    assert_eq!(w.apply(&Op::Brk { addr: at(5) }), Ok(at(5)));
}

// RLIMIT_DATA

#[test]
fn data_is_limited() {
    let mut w = user(Limits {
        data: 3 * PAGE_SIZE + 1,
        ..Limits::default()
    });
    let no = Err(Errno::ENOMEM);
    assert_eq!(w.apply(&map(0, 4, WRITE, PRIVATE)), no);
    assert_eq!(w.apply(&map(0, 3, WRITE, PRIVATE)), Ok(at(0)));
    assert_eq!(w.apply(&map(3, 4, WRITE, PRIVATE)), no);
    assert_eq!(w.apply(&map(4, 5, WRITE, MapFlags::PRIVATE)), no);
    assert_eq!(w.apply(&resize(0, 3, 4)), no);
    // What is no data is not limited.
    assert_eq!(w.apply(&map(4, 5, EXEC, PRIVATE)), Ok(at(4)));
    assert_eq!(w.apply(&map(5, 6, WRITE, SHARED)), Ok(at(5)));
    assert_eq!(w.apply(&map(6, 7, WRITE, STACK)), Ok(at(6)));
    // It may not become data, either; what is data already may go on as such.
    assert_eq!(w.apply(&protect(4, 5, WRITE)), no);
    assert_eq!(w.apply(&protect(0, 3, ALL)), Ok(0));
    w.space.limits_mut().data = 4 * PAGE_SIZE;
    assert_eq!(w.apply(&protect(4, 5, WRITE)), Ok(0));
}

/// With the program's own data, and even where nothing has to be mapped.
#[test]
fn the_heap_is_limited() {
    let mut w = user(Limits {
        data: 3 * PAGE_SIZE,
        ..Limits::default()
    });
    w.space.set_break(Break {
        end: at(2),
        program_data: PAGE_SIZE,
        ..Break::empty(at(2))
    });
    for (asked, answered) in [
        (at(4) + 1, at(2)),
        (at(4), at(4)),
        (at(4) + 1, at(4)),
        (at(2) - 1, at(4)),
        (at(3) + 1, at(3) + 1),
    ] {
        assert_eq!(w.apply(&Op::Brk { addr: asked }), Ok(answered));
    }
    assert_eq!(counted(&w.space.counters()), [2, 2, 0, 0]);
}

// RLIMIT_MEMLOCK

/// Nothing may be locked: that is another error than too much.
#[test]
fn nobody_may_lock() {
    let limits = Limits {
        memlock: 0,
        ..Limits::default()
    };
    let all = Op::Mlockall {
        flags: MlockallFlags::CURRENT,
    };
    let mut w = user(limits);
    let no = Err(Errno::EPERM);
    w.draw_in("Aa");
    assert_eq!(w.apply(&lock(0, 1)), no);
    assert_eq!(w.apply(&all), no);
    assert_eq!(w.apply(&map(2, 3, WRITE, PRIVATE | MapFlags::LOCKED)), no);
    // One byte is something, though no page.
    w.space.limits_mut().memlock = 1;
    assert_eq!(w.apply(&lock(0, 1)), Err(Errno::ENOMEM));
    assert_eq!(w.apply(&all), Err(Errno::ENOMEM));
    let locked = map(2, 3, WRITE, PRIVATE | MapFlags::LOCKED);
    assert_eq!(w.apply(&locked), Err(Errno::EAGAIN));
    assert_eq!(w.space.counters().locked_vm, 0);
    // Who has the capability may, in any case.
    for memlock in [0, 1] {
        let limits = Limits { memlock, ..limits };
        let mut w = World::with(Rules::V7_2, limits, File::device(64));
        w.draw_in("Aa");
        assert_eq!(w.apply(&lock(0, 1)), Ok(0));
        assert_eq!(w.apply(&all), Ok(0));
        assert_eq!(w.apply(&locked), Ok(at(2)));
        assert_eq!(w.space.counters().locked_vm, 3);
    }
}

/// Pages that are locked already count once.
#[test]
fn so_many_pages_may_be_locked() {
    let mut w = user(Limits {
        memlock: 3 * PAGE_SIZE + 1,
        ..Limits::default()
    });
    let no = Err(Errno::ENOMEM);
    w.draw_in("Aaaaaa");
    assert_eq!(w.apply(&lock(0, 4)), no);
    assert_eq!(w.apply(&lock(0, 2)), Ok(0));
    assert_eq!(w.apply(&lock(2, 4)), no);
    assert_eq!(w.apply(&lock(1, 4)), no);
    assert_eq!(w.apply(&lock(0, 3)), Ok(0));
    assert_eq!(w.space.counters().locked_vm, 3);
    assert_eq!(w.draw(), "AaaAaa");
    let all = Op::Mlockall {
        flags: MlockallFlags::CURRENT,
    };
    assert_eq!(w.apply(&all), no);
    w.unmap(3, 6).unwrap();
    assert_eq!(w.apply(&all), Ok(0));
    // What is locked and grows.
    assert_eq!(w.apply(&resize(0, 3, 4)), Err(Errno::EAGAIN));
    w.unmap(2, 3).unwrap();
    assert_eq!(w.apply(&resize(0, 2, 3)), Ok(at(0)));
    assert_eq!(w.space.counters().locked_vm, 3);
}

/// After `mlockall(MCL_FUTURE)` all that is new is locked, if it may be.
#[test]
fn what_comes_is_limited() {
    let mut w = user(Limits {
        memlock: 2 * PAGE_SIZE,
        ..Limits::default()
    });
    let future = Op::Mlockall {
        flags: MlockallFlags::FUTURE,
    };
    w.apply(&future).unwrap();
    assert_eq!(w.apply(&map(0, 3, READ, PRIVATE)), Err(Errno::EAGAIN));
    assert_eq!(w.apply(&map(0, 1, READ, PRIVATE)), Ok(at(0)));
    w.space.set_break(Break::empty(at(4)));
    assert_eq!(w.apply(&Op::Brk { addr: at(6) }), Ok(at(4)));
    assert_eq!(w.apply(&Op::Brk { addr: at(5) }), Ok(at(5)));
    assert_eq!(w.space.counters().locked_vm, 2);
    assert_eq!(w.apply(&map(8, 9, READ, PRIVATE)), Err(Errno::EAGAIN));
}

// RLIMIT_STACK

/// A stack grows as far as its own limit goes, and as far as it may be locked.
#[test]
fn stacks_are_limited() {
    let mut w = user(Limits {
        stack: 4 * PAGE_SIZE,
        memlock: 3 * PAGE_SIZE,
        ..Limits::default()
    });
    w.apply(&map(10, 12, WRITE, STACK)).unwrap();
    assert_eq!(w.touch(7, true), Err(Errno::EFAULT));
    assert_eq!(w.touch(8, true), Ok(()));
    assert_eq!(counted(&w.space.counters()), [4, 0, 4, 0]);

    let mut w = user(*w.space.limits());
    w.apply(&map(10, 12, WRITE, STACK | MapFlags::LOCKED))
        .unwrap();
    assert_eq!(w.touch(8, true), Err(Errno::EFAULT));
    assert_eq!(w.touch(9, true), Ok(()));
    assert_eq!(w.space.counters().locked_vm, 3);

    let mut w = user(Limits {
        address_space: 3 * PAGE_SIZE,
        ..Limits::default()
    });
    w.apply(&map(10, 12, WRITE, STACK)).unwrap();
    assert_eq!(w.touch(8, true), Err(Errno::EFAULT));
    assert_eq!(w.touch(9, true), Ok(()));
}

// vm.overcommit_memory

#[test]
fn promises_are_limited() {
    let mut w = user(Limits {
        overcommit: Overcommit::Guess { total: 4 },
        ..Limits::default()
    });
    let no = Err(Errno::ENOMEM);
    assert_eq!(w.apply(&map(0, 5, WRITE, PRIVATE)), no);
    assert_eq!(w.apply(&map(0, 5, WRITE, SHARED)), no);
    assert_eq!(w.apply(&map(0, 4, WRITE, SHARED)), Ok(at(0)));
    assert_eq!(w.apply(&map(4, 8, WRITE, PRIVATE)), Ok(at(4)));
    // Net of what is in the way.
    assert_eq!(w.apply(&map(3, 12, WRITE, PRIVATE)), no);
    assert_eq!(w.apply(&map(4, 11, WRITE, PRIVATE)), Ok(at(4)));
    assert_eq!(w.apply(&Op::Fork), no);
    assert_eq!(w.apply(&resize(4, 7, 12)), no);
    // What is read-only was promised to nobody, until it becomes writable.
    assert_eq!(w.apply(&map(0, 5, READ, PRIVATE)), Ok(at(0)));
    assert_eq!(w.apply(&protect(0, 5, WRITE)), no);
    assert_eq!(w.apply(&protect(0, 4, WRITE)), Ok(0));
}

/// All that counts is counted of what was there before the run, too.
#[test]
fn restored_areas_count() {
    let mut w = World::new();
    w.apply(&map(0, 2, WRITE, PRIVATE | MapFlags::LOCKED))
        .unwrap();
    w.apply(&map(4, 6, EXEC, PRIVATE)).unwrap();
    let areas: Vec<_> = w.space.areas().map(|vma| vma.area()).collect();
    let mut copy: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
    for area in areas {
        copy.restore(area, false).unwrap();
    }
    assert_eq!(copy.counters(), w.space.counters());
    assert_eq!(copy.counters().locked_vm, 2);
}
