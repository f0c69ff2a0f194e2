// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What memory is promised by each call, when it is given back, and what is forgotten.

use vmalab_model::file::MaySplit;
use vmalab_model::limits::Overcommit;
use vmalab_model::{
    Allocation, Errno, File, Limits, MapFlags, Mmap, MremapFlags, Op, PAGE_SIZE, Prot, Rules,
};

use crate::world::{BASE, World};

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// How much is promised, after each of these calls.
fn promised(rules: Rules, letters: &str, ops: &[Op]) -> Vec<u64> {
    let mut w = World::with(rules, Limits::default(), File::device(64));
    w.draw_in(letters);
    let before = w.space.committed();
    let mut all = vec![before];
    for op in ops {
        w.apply(op).unwrap();
        all.push(w.space.committed());
    }
    all
}

/// What may be written privately is promised, once; what goes gives its promise back.
#[test]
fn memory_is_promised() {
    let unmap = Op::Munmap {
        addr: at(1),
        len: 2 * PAGE_SIZE,
    };
    let protect = |prot| Op::Mprotect {
        addr: at(4),
        len: 2 * PAGE_SIZE,
        prot,
    };
    let grow = Op::Mremap {
        addr: at(0),
        old_len: PAGE_SIZE,
        new_len: 3 * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE,
        new_addr: 0,
    };
    let both = Prot::READ | Prot::WRITE;
    for &rules in Rules::all() {
        // Read-only and shared memory is not, until it is made writable. Of late that is taken back if nothing
        // was written.
        let kept = if rules.mprotect_unaccounts { 3 } else { 5 };
        assert_eq!(
            promised(
                rules,
                "AaaRrrFfff",
                &[unmap, protect(both), protect(Prot::READ), grow, Op::Fork]
            ),
            [3, 1, 3, if kept == 3 { 1 } else { 3 }, kept, 2 * kept],
            "{}",
            rules.name
        );
    }
}

/// A shared object is promised as a whole, and until its last page goes.
#[test]
fn shared_memory_is_promised_as_a_whole() {
    for &rules in Rules::all() {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        let args = Mmap {
            flags: MapFlags::SHARED | MapFlags::ANONYMOUS | MapFlags::FIXED,
            offset: 0,
            ..w.args('a', 0, 4)
        };
        w.apply(&Op::Mmap(args)).unwrap();
        assert_eq!(w.space.committed(), 4);
        w.unmap(1, 2).unwrap();
        w.unmap(0, 1).unwrap();
        assert_eq!(w.space.committed(), 4, "{}", rules.name);
        w.unmap(2, 4).unwrap();
        assert_eq!(w.space.committed(), 0, "{}", rules.name);
        let unreserved = Mmap {
            flags: args.flags | MapFlags::NORESERVE,
            ..args
        };
        w.apply(&Op::Mmap(unreserved)).unwrap();
        assert_eq!(w.space.committed(), 0, "{}", rules.name);
    }
}

/// Mode 2: all of it has to be less than the limit, whatever MAP_NORESERVE says.
#[test]
fn no_more_is_promised_than_there_is() {
    for &rules in Rules::all() {
        let limits = Limits {
            overcommit: Overcommit::Never {
                limit: 8,
                reserve: 0,
            },
            ..Limits::default()
        };
        let mut w = World::with(rules, limits, File::device(64));
        w.map('a', 0, 4).unwrap();
        assert_eq!(w.map('a', 4, 8), Err(Errno::ENOMEM), "{}", rules.name);
        let mut args = w.args('a', 4, 8);
        args.flags |= MapFlags::NORESERVE;
        assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::ENOMEM));
        w.map('r', 4, 12).unwrap();
        // In the place of something that goes there is room again.
        w.map('a', 0, 7).unwrap();
        assert_eq!(w.apply(&Op::Fork), Err(Errno::ENOMEM), "{}", rules.name);
        w.unmap(0, 4).unwrap();
        assert_eq!(w.apply(&Op::Fork), Ok(0), "{}", rules.name);
        assert_eq!(w.space.committed(), 6);
    }
}

/// What a large process leaves to others: one page of 32, up to a bound since 3.10.
#[test]
fn a_large_process_leaves_something() {
    for (rules, most) in [(Rules::V2_6_11, 6), (Rules::V4_9, 8), (Rules::V7_2, 8)] {
        let limits = Limits {
            overcommit: Overcommit::Never {
                limit: 10,
                reserve: 1,
            },
            ..Limits::default()
        };
        let mut w = World::with(rules, limits, File::device(64));
        w.map('r', 0, 96).unwrap();
        assert_eq!(w.map('a', 96, 97 + most), Err(Errno::ENOMEM));
        w.map('a', 96, 96 + most).unwrap();
    }
}

/// What is charged and never given back: until 7.3.3 the kernel forgets it in three places at least.
#[test]
fn promises_are_forgotten() {
    let refusing = File {
        mmap_error: Some(Errno::EBUSY),
        ..File::device(64)
    };
    // Mapped privately and writable over something that was promised, and refused by the driver.
    for (rules, left) in [
        (Rules::V6_1, 0),
        (Rules::V6_12, 4),
        (Rules::V7_2, 4),
        (Rules::V7_3_4, 0),
    ] {
        let mut w = World::with(rules, Limits::default(), refusing);
        w.map('a', 0, 4).unwrap();
        let mut args = w.args('d', 0, 4);
        args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
        assert_eq!(w.apply(&Op::Mmap(args)), Err(Errno::EBUSY));
        assert_eq!(w.space.committed(), left, "{}", rules.name);
    }
    // A move that shrinks.
    for (rules, left) in [(Rules::V6_12, 1), (Rules::V6_18, 4), (Rules::V7_3_4, 1)] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.map('a', 0, 4).unwrap();
        let shrink = Op::Mremap {
            addr: at(0),
            old_len: 4 * PAGE_SIZE,
            new_len: PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(8),
        };
        w.apply(&shrink).unwrap();
        assert_eq!(w.space.committed(), left, "{}", rules.name);
    }
    // A stack that does not count grows.
    for &rules in Rules::all() {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        let mut args = w.args('a', 14, 16);
        args.flags |= MapFlags::GROWSDOWN | MapFlags::NORESERVE;
        w.apply(&Op::Mmap(args)).unwrap();
        w.touch(12, true).unwrap();
        let grown = w.space.counters().total_vm - 2;
        assert_eq!(w.space.committed(), grown, "{}", rules.name);
    }
}

/// A move that grows is sent back, by a driver.
#[test]
fn a_promise_for_what_came_back() {
    let staying = File {
        mremap_error: Some(Errno::EBUSY),
        ..File::device(64)
    };
    for (rules, left) in [
        (Rules::V5_10, 2),
        (Rules::V6_1, 4),
        (Rules::V7_2, 4),
        (Rules::V7_3_4, 2),
    ] {
        let mut w = World::with(rules, Limits::default(), staying);
        let mut args = w.args('d', 0, 2);
        args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
        w.apply(&Op::Mmap(args)).unwrap();
        let grow = Op::Mremap {
            addr: at(0),
            old_len: 2 * PAGE_SIZE,
            new_len: 4 * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(8),
        };
        assert_eq!(w.apply(&grow), Err(Errno::EBUSY));
        assert_eq!(w.space.committed(), left, "{}", rules.name);
    }
}

/// A source that the driver does not let be cut stays, and is not accounted for any more. Until 4.14 nobody asks
/// drivers, and from 5.11 on they are asked before anything moves: so it takes one who says no the second time.
#[test]
fn a_promise_for_what_stays() {
    let whole = File {
        may_split: MaySplit::Never(Errno::EBUSY),
        ..File::device(64)
    };
    let mut w = World::with(Rules::V5_10, Limits::default(), whole);
    let mut args = w.args('d', 0, 4);
    args.flags = MapFlags::PRIVATE | MapFlags::FIXED;
    w.apply(&Op::Mmap(args)).unwrap();
    let part = Op::Mremap {
        addr: at(1),
        old_len: PAGE_SIZE,
        new_len: PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: at(8),
    };
    w.apply(&part).unwrap();
    assert_eq!(w.space.committed(), 1);
    for (rules, left) in [(Rules::V6_1, 5), (Rules::V7_2, 5), (Rules::V7_3_4, 5)] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.apply(&Op::Mmap(args)).unwrap();
        w.space.fail_nth_allocation(Allocation::Area, 2);
        w.apply(&part).unwrap();
        assert_eq!(w.space.committed(), left, "{}", rules.name);
    }
}

/// A copy of the middle of an area, which stays as it is, marks the area above in one era.
#[test]
fn a_copy_marks_what_is_above() {
    let copy = Op::Mremap {
        addr: at(1),
        old_len: PAGE_SIZE,
        new_len: PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
        new_addr: at(10),
    };
    let unmap = Op::Munmap {
        addr: at(3),
        len: PAGE_SIZE,
    };
    let marks = |rules: &Rules| {
        // It was 3 pages before, 4 with the copy, and the page above was not among them.
        promised(*rules, "AaaR", &[copy, unmap]) == [3, 4, 3]
    };
    assert!(marks(&Rules::V5_10));
    assert!(!marks(&Rules::V6_1));
    assert_eq!(promised(Rules::V6_1, "AaaR", &[copy, unmap]), [3, 4, 4]);
}
