// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is left when an allocation fails, one after the other.

use vmalab_model::mempolicy::mode;
use vmalab_model::{
    Allocation, Errno, File, Limits, MapFlags, MremapFlags, Op, PAGE_SIZE, Prot, Rules,
};

use crate::world::{BASE, World};

/// The `nth` allocation of that kind fails in an operation; gives its answer, whether it was asked for, and what
/// is drawn then.
fn starve(
    rules: Rules,
    drawn: &str,
    what: Allocation,
    nth: u32,
    op: &Op,
) -> (Result<u64, Errno>, bool, String) {
    let mut w = World::with(rules, Limits::default(), File::device(64));
    w.draw_in(drawn);
    w.space.fail_nth_allocation(what, nth);
    let result = w.apply(op);
    (result, !w.space.is_allocation_to_fail(), w.draw())
}

const fn unmap(from: u64, to: u64) -> Op {
    Op::Munmap {
        addr: BASE + from * PAGE_SIZE,
        len: (to - from) * PAGE_SIZE,
    }
}

/// Two cuts, a note of what goes, and room for the hole: four of the tree, two areas. A kernel whose tree takes
/// none needs the areas alone.
#[test]
fn memory_for_a_hole() {
    let op = unmap(2, 4);
    let no = Err(Errno::ENOMEM);
    for (what, nth, left) in [
        (Allocation::Area, 1, "Dddddd"),
        (Allocation::Area, 2, "DdDddd"),
        (Allocation::Tree, 1, "Dddddd"),
        (Allocation::Tree, 2, "DdDddd"),
        (Allocation::Tree, 3, "DdDdDd"),
        (Allocation::Tree, 4, "DdDdDd"),
    ] {
        let seen = starve(Rules::V7_2, "Dddddd", what, nth, &op);
        assert_eq!(seen, (no, true, left.into()), "{what:?} {nth}");
        let tree = what == Allocation::Tree;
        let left = if tree { "Dd..Dd" } else { left };
        let seen = starve(Rules::V5_10, "Dddddd", what, nth, &op);
        let result = if tree { Ok(0) } else { no };
        assert_eq!(seen, (result, !tree, left.into()), "{what:?} {nth}");
    }
    for (what, more) in [
        (Allocation::Area, 3),
        (Allocation::Tree, 5),
        (Allocation::AnonVma, 1),
    ] {
        let seen = starve(Rules::V7_2, "Dddddd", what, more, &op);
        assert_eq!(seen, (Ok(0), false, "Dd..Dd".into()), "{what:?}");
    }
}

/// Where nothing is, nothing is needed.
#[test]
fn memory_for_nothing() {
    let seen = starve(Rules::V7_2, "Aa..Aa", Allocation::Tree, 1, &unmap(2, 4));
    assert_eq!(seen, (Ok(0), false, "Aa..Aa".into()));
    let seen = starve(Rules::V7_2, "Aa..Aa", Allocation::Tree, 2, &unmap(0, 2));
    assert_eq!(seen, (Err(Errno::ENOMEM), true, "Aa..Aa".into()));
}

/// An area that was written to is tied to its `anon_vma` once more by a cut.
#[test]
fn memory_for_an_anon_vma() {
    for (rules, nth, answer, left) in [
        (Rules::V7_2, 1, Err(Errno::ENOMEM), "Aaaaaa"),
        (Rules::V7_2, 2, Err(Errno::ENOMEM), "AaAaaa"),
        (Rules::V7_2, 3, Ok(0), "Aa..Aa"),
        // It was shared as it was.
        (Rules::V2_6_11, 1, Ok(0), "Aa..Aa"),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("Aaaaaa");
        w.touch(3, true).unwrap();
        w.space.fail_nth_allocation(Allocation::AnonVma, nth);
        assert_eq!(w.apply(&unmap(2, 4)), answer, "{} {nth}", rules.name);
        assert_eq!(w.draw(), left, "{} {nth}", rules.name);
        assert_eq!(w.space.is_allocation_to_fail(), answer.is_ok());
    }
}

fn protect(from: u64, to: u64, prot: Prot) -> Op {
    Op::Mprotect {
        addr: BASE + from * PAGE_SIZE,
        len: (to - from) * PAGE_SIZE,
        prot,
    }
}

const WRITE: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

/// A merge of what is there already: without memory its areas stay apart, and since 6.14 that is an error.
#[test]
fn memory_for_a_merge() {
    for (rules, answer, left) in [
        (Rules::V5_10, Ok(0), "Aaaa"),
        (Rules::V6_1, Ok(0), "AaAa"),
        (Rules::V6_12, Ok(0), "AaAa"),
        (Rules::V6_18, Err(Errno::ENOMEM), "AaRr"),
    ] {
        for (what, answer, left) in [
            (Allocation::Tree, answer, left),
            // What has no `anon_vma` needs none, and no new area.
            (Allocation::AnonVma, Ok(0), "Aaaa"),
            (Allocation::Area, Ok(0), "Aaaa"),
        ] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.draw_in("Aaaa");
            w.apply(&protect(2, 4, Prot::READ)).unwrap();
            w.space.fail_nth_allocation(what, 1);
            let seen = w.apply(&protect(2, 4, WRITE));
            assert_eq!(
                (seen, &*w.draw()),
                (answer, left),
                "{} {what:?}",
                rules.name
            );
        }
    }
}

/// What was not written to takes over an `anon_vma`, and there is no memory to do so: no merge.
#[test]
fn memory_for_a_merge_with_what_was_written() {
    for (written, answer, left) in [
        (Some(0), Err(Errno::ENOMEM), "AaaaRr"),
        (None, Ok(0), "Rrrrrr"),
    ] {
        let mut w = World::new();
        let mut args = w.args('a', 0, 6);
        args.flags |= MapFlags::NORESERVE;
        w.apply(&Op::Mmap(args)).unwrap();
        w.apply(&protect(4, 6, Prot::READ)).unwrap();
        if let Some(page) = written {
            w.touch(page, true).unwrap();
        }
        w.space.fail_nth_allocation(Allocation::AnonVma, 1);
        let seen = w.apply(&protect(0, 4, Prot::READ));
        assert_eq!((seen, &*w.draw()), (answer, left));
    }
}

/// New memory between two areas, one of which was written to: as if there were no neighbours.
#[test]
fn memory_for_a_merge_with_what_is_new() {
    for (what, left) in [
        (Allocation::AnonVma, "AaAaAa"),
        (Allocation::Tree, "AaAaAa"),
        (Allocation::Area, "Aaaaaa"),
    ] {
        let mut w = World::new();
        w.draw_in("Aa..Aa");
        w.touch(5, true).unwrap();
        w.space.fail_nth_allocation(what, 1);
        w.map('a', 2, 4).unwrap();
        assert_eq!(w.draw(), left, "{what:?}");
    }
}

/// What a userfaultfd shall be told: before the splits, after them, or area by area.
#[test]
fn memory_for_what_is_told() {
    for (rules, left) in [
        (Rules::V4_12, "AaaaaaRr"),
        (Rules::V5_10, "AaAaAaRr"),
        (Rules::V6_12, "AaAaAaRr"),
        (Rules::V7_2, "AaAaAaRr"),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("AaaaaaRr");
        w.apply(&Op::UffdRegister {
            addr: BASE,
            len: 6 * PAGE_SIZE,
        })
        .unwrap();
        let counters = w.space.counters();
        w.space.fail_nth_allocation(Allocation::Userfaultfd, 1);
        assert_eq!(w.apply(&unmap(2, 4)), Err(Errno::ENOMEM), "{}", rules.name);
        assert_eq!(w.draw(), left, "{}", rules.name);
        assert_eq!(w.space.counters().total_vm, counters.total_vm);
        assert!(w.space.events().is_empty());
        // Of what nobody watches nobody has to be told.
        w.space.fail_nth_allocation(Allocation::Userfaultfd, 1);
        assert_eq!(w.apply(&unmap(6, 8)), Ok(0));
        assert!(w.space.is_allocation_to_fail());
    }
}

/// One event for all of it, however many areas there are; and none for the target of a move until 4.12.
#[test]
fn what_is_told_takes_memory_once() {
    for (rules, told) in [(Rules::V4_12, false), (Rules::V5_10, true)] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("AaRrAa..Aa");
        w.apply(&Op::UffdRegister {
            addr: BASE,
            len: 6 * PAGE_SIZE,
        })
        .unwrap();
        w.space.fail_nth_allocation(Allocation::Userfaultfd, 2);
        assert_eq!(w.apply(&unmap(0, 4)), Ok(0), "{}", rules.name);
        w.space.fail_nth_allocation(Allocation::Userfaultfd, 1);
        let onto = Op::Mremap {
            addr: BASE + 8 * PAGE_SIZE,
            old_len: 2 * PAGE_SIZE,
            new_len: 2 * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: BASE + 4 * PAGE_SIZE,
        };
        assert_eq!(w.apply(&onto).is_err(), told, "{}", rules.name);
    }
}

/// A cut copies the policy, as do a move and fork; and what gets one gets a copy.
#[test]
fn memory_for_a_policy() {
    let bind = |from, to| Op::Mbind {
        addr: BASE + from * PAGE_SIZE,
        len: (to - from) * PAGE_SIZE,
        mode: mode::BIND,
        nodes: 1,
        flags: 0,
    };
    let move_away = Op::Mremap {
        addr: BASE,
        old_len: 6 * PAGE_SIZE,
        new_len: 6 * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: BASE + 8 * PAGE_SIZE,
    };
    for rules in [Rules::V2_6_11, Rules::V4_9, Rules::V7_2] {
        for (op, nth, left) in [
            (unmap(2, 4), 1, "Aaaaaa"),
            (unmap(2, 4), 2, "AaAaaa"),
            (move_away, 1, "Aaaaaa"),
            (Op::Fork, 1, "Aaaaaa"),
        ] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.draw_in("Aaaaaa");
            w.apply(&bind(0, 6)).unwrap();
            w.space.fail_nth_allocation(Allocation::Policy, nth);
            assert_eq!(w.apply(&op), Err(Errno::ENOMEM), "{}", rules.name);
            assert_eq!(w.draw(), left, "{}", rules.name);
        }
        // The policy itself, and the copy of what is bound: cut out by then, but as it was.
        for (nth, left) in [(1, "Aaaaaa"), (2, "AaAaAa")] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.draw_in("Aaaaaa");
            w.space.fail_nth_allocation(Allocation::Policy, nth);
            let copied = nth == 1 || rules.mbind_copies_policy;
            assert_eq!(w.apply(&bind(2, 4)).is_err(), copied, "{}", rules.name);
            assert_eq!(w.draw(), left, "{}", rules.name);
            let policy = w.space.find_vma(BASE + 2 * PAGE_SIZE).unwrap().policy;
            assert_eq!(policy.is_none(), copied, "{}", rules.name);
        }
    }
}
