// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What an area has that two or three were merged into: offsets, flags, what its private pages hang on.

use vmalab_model::{
    Advice, Allocation, File, Limits, MapFlags, MremapFlags, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use crate::world::{BASE, World};

const WRITE: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn protect(w: &mut World, from: u64, to: u64, prot: Prot) {
    let op = Op::Mprotect {
        addr: at(from),
        len: (to - from) * PAGE_SIZE,
        prot,
    };
    w.apply(&op).unwrap();
}

/// Each page of a file stays where it is, however the areas around it come and go.
#[test]
fn offsets_stay() {
    for &rules in Rules::all() {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.map('f', 0, 12).unwrap();
        for (from, to, prot, areas) in [
            (4, 6, Prot::READ, 3),
            (6, 8, Prot::READ, 3),
            (2, 4, Prot::READ, 3),
            (3, 4, WRITE, 5),
            (3, 4, Prot::READ, 3),
            (2, 3, WRITE, 3),
            (7, 8, WRITE, 3),
            (5, 6, WRITE, 5),
            (3, 5, WRITE, 3),
            (6, 7, WRITE, 1),
        ] {
            protect(&mut w, from, to, prot);
            for vma in w.space.areas() {
                assert_eq!(vma.start - BASE, vma.pgoff * PAGE_SIZE, "{}", rules.name);
            }
            let seen = w.space.counters().map_count;
            assert_eq!(seen, areas, "{} after {from}-{to}", rules.name);
        }
    }
}

/// One part of three has guards, and so all of it may; whichever it is, and whichever came last.
#[test]
fn guards_are_remembered() {
    let flagged = |w: &World| {
        let areas = w.space.areas();
        let flagged = areas.map(|vma| vma.flags.contains(VmFlags::MAYBE_GUARD));
        flagged.collect::<Vec<bool>>()
    };
    let guard = |page| Op::Madvise {
        addr: at(page),
        len: PAGE_SIZE,
        advice: Advice::GUARD_INSTALL,
    };
    for page in [0, 2, 4] {
        // What is there already gets its neighbours' protection: all of it, or a half of it first.
        for halves in [&[(2, 4)][..], &[(2, 3), (3, 4)], &[(3, 4), (2, 3)]] {
            let mut w = World::new();
            w.draw_in("Aaaaaa");
            protect(&mut w, 2, 4, Prot::READ);
            w.apply(&guard(page)).unwrap();
            assert_eq!(flagged(&w), [page == 0, page == 2, page == 4]);
            for &(from, to) in halves {
                protect(&mut w, from, to, WRITE);
            }
            // Installing made an anon_vma, so that one of the neighbours may have stayed apart.
            let seen = flagged(&w);
            assert!(seen.contains(&true), "page {page}, {halves:?}");
            assert_eq!(w.draw(), "Aaaaaa", "page {page}, {halves:?}");
        }
    }
    // What is new between them.
    for page in [0, 4] {
        let mut w = World::new();
        w.draw_in("Aa..Aa");
        w.apply(&guard(page)).unwrap();
        w.map('a', 2, 4).unwrap();
        assert_eq!((&*w.draw(), &*flagged(&w)), ("Aaaaaa", &[true][..]));
    }
    // Where there are none, none are remembered.
    let mut w = World::new();
    w.draw_in("Aa..Aa");
    w.map('a', 2, 4).unwrap();
    assert_eq!((&*w.draw(), &*flagged(&w)), ("Aaaaaa", &[false][..]));
    // What comes from elsewhere, on either side of what is there.
    for (there, target) in [(0, 2), (2, 0)] {
        let mut w = World::new();
        w.map('f', 8, 10).unwrap();
        w.apply(&guard(8)).unwrap();
        let mut args = w.args('f', there, there + 2);
        args.offset = (8 + there - target) * PAGE_SIZE;
        w.apply(&Op::Mmap(args)).unwrap();
        let relocate = Op::Mremap {
            addr: at(8),
            old_len: 2 * PAGE_SIZE,
            new_len: 2 * PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(target),
        };
        w.apply(&relocate).unwrap();
        assert_eq!((&*w.draw(), &*flagged(&w)), ("Ffff", &[true][..]));
    }
}

/// What private pages hang on is that of the part that had some.
#[test]
fn private_pages_stay_known() {
    let anon = |w: &World| -> Vec<_> { w.space.areas().map(|vma| vma.anon_vma).collect() };
    // New memory beside one that was written to, below, above, and on both sides.
    for (drawn, page) in [("Aa..", 0), ("..Aa", 2), ("Aa..Aa", 0), ("Aa..Aa", 4)] {
        let mut w = World::new();
        w.draw_in(drawn.trim_end_matches('.'));
        w.touch(page, true).unwrap();
        let before = anon(&w).into_iter().flatten().next();
        let from = if drawn.starts_with('.') { 0 } else { 2 };
        w.map('a', from, from + 2).unwrap();
        assert_eq!(anon(&w), [before], "{drawn} {page}");
    }
    // A part that was written to comes to its neighbours, or they to it.
    for page in [0, 2, 4] {
        for (from, to) in [(2, 4), (2, 3), (3, 4)] {
            let mut w = World::new();
            let mut args = w.args('a', 0, 6);
            args.flags |= MapFlags::NORESERVE;
            w.apply(&Op::Mmap(args)).unwrap();
            protect(&mut w, 0, 2, Prot::READ | Prot::EXEC);
            protect(&mut w, 4, 6, Prot::READ | Prot::EXEC);
            for (from, to) in [(0, 2), (4, 6)] {
                if (from..to).contains(&page) {
                    protect(&mut w, from, to, Prot::READ | Prot::WRITE | Prot::EXEC);
                    w.touch(page, true).unwrap();
                    protect(&mut w, from, to, Prot::READ | Prot::EXEC);
                }
            }
            if page == 2 {
                w.touch(page, true).unwrap();
            }
            let before = anon(&w).into_iter().flatten().next();
            assert!(before.is_some());
            protect(&mut w, from, to, Prot::READ | Prot::EXEC);
            let seen: Vec<_> = anon(&w).into_iter().flatten().collect();
            assert!(seen.iter().all(|one| Some(*one) == before));
            let page_of = |vma: &&vmalab_model::Vma| (vma.start..vma.end).contains(&at(page));
            let holder = w.space.areas().find(page_of).unwrap();
            assert_eq!(holder.anon_vma, before, "page {page}, {from}-{to}");
        }
    }
}

/// A child's areas of one piece stay of one piece, and take nothing in.
#[test]
fn a_childs_areas() {
    let mut w = World::new();
    w.draw_in("Aaaa");
    w.touch(0, true).unwrap();
    w.apply(&Op::Fork).unwrap();
    protect(&mut w, 0, 2, Prot::READ);
    assert_eq!(w.draw(), "RrAa");
    protect(&mut w, 0, 2, WRITE);
    assert_eq!(w.draw(), "Aaaa");
    w.map('a', 4, 6).unwrap();
    assert_eq!(w.draw(), "AaaaAa");
    // Until 2.6.33 it was as its parent.
    let mut w = World::with(Rules::V2_6_11, Limits::default(), File::device(64));
    w.draw_in("Aaaa");
    w.touch(0, true).unwrap();
    w.apply(&Op::Fork).unwrap();
    w.map('a', 4, 6).unwrap();
    assert_eq!(w.draw(), "Aaaaaa");
}

/// Nor was memory needed to take an `anon_vma` over.
#[test]
fn what_is_taken_over_once_needed_no_memory() {
    for (rules, asked, left) in [
        (Rules::V2_6_11, false, "Aaaaaa"),
        (Rules::V4_9, true, "AaAaAa"),
    ] {
        let mut w = World::with(rules, Limits::default(), File::device(64));
        w.draw_in("Aa..Aa");
        w.touch(5, true).unwrap();
        w.space.fail_nth_allocation(Allocation::AnonVma, 1);
        w.map('a', 2, 4).unwrap();
        assert_eq!(w.draw(), left, "{}", rules.name);
        assert_eq!(w.space.is_allocation_to_fail(), !asked, "{}", rules.name);
    }
}
