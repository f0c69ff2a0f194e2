// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Areas that are left side by side though they would merge: that it is noticed, and where it has a reason.

use std::ops::Range;

use vmalab_model::file::Hooks;
use vmalab_model::mempolicy::mode;
use vmalab_model::{
    AddressSpace, Advice, Allocation, Asked, Backing, Break, Errno, File, FileId, Limits, MapFlags,
    Mistake, MlockFlags, MlockallFlags, Mmap, MremapFlags, Op, PAGE_SIZE, Prot, Rules, VmFlags,
};

use crate::world::{BASE, World};

const WRITE: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn len(pages: &Range<u64>) -> u64 {
    (pages.end - pages.start) * PAGE_SIZE
}

/// What [`World::apply`] would have complained of.
fn complaint(w: &mut World, op: &Op) -> Option<String> {
    let before = w.space.clone();
    let result = w.space.apply(op).result;
    w.space.check_merged(&before, op, result).err()
}

#[test]
fn a_merge_that_is_skipped_is_noticed() {
    for (mistake, first, written, second) in [
        (Mistake::NoMergeForward, 2, None, 0),
        (Mistake::NoUnwrittenMerge, 0, Some(1), 2),
    ] {
        for rules in [Rules::V7_2.with_mistake(mistake), Rules::V7_2] {
            let mut w = World::with(rules, Limits::default(), File::device(64));
            w.map('a', first, first + 2).unwrap();
            if let Some(page) = written {
                w.touch(page, true).unwrap();
            }
            let op = Op::Mmap(w.args('a', second, second + 2));
            let complaint = complaint(&mut w, &op);
            assert_eq!(
                complaint.is_some_and(|text| text.contains("left at 0x102000 what would merge")),
                rules.mistake.is_some(),
                "{mistake:?}"
            );
            let drawn = if rules.mistake.is_some() {
                "AaAa"
            } else {
                "Aaaa"
            };
            assert_eq!(w.draw(), drawn);
        }
    }
}

/// Each reason there can be.
#[test]
fn neighbours_with_a_reason() {
    let anonymous = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    let map = |pages: Range<u64>, flags| {
        Op::Mmap(Mmap {
            addr: at(pages.start),
            len: len(&pages),
            prot: WRITE,
            flags,
            backing: Backing::None,
            offset: 0,
        })
    };
    let device = |pages: Range<u64>| {
        Op::Mmap(Mmap {
            addr: at(pages.start),
            len: len(&pages),
            prot: WRITE,
            flags: MapFlags::SHARED | MapFlags::FIXED,
            backing: Backing::File(FileId(0)),
            offset: pages.start * PAGE_SIZE,
        })
    };
    let protect = |pages: Range<u64>, prot| Op::Mprotect {
        addr: at(pages.start),
        len: len(&pages),
        prot,
    };
    let watch = |pages: Range<u64>| Op::UffdRegister {
        addr: at(pages.start),
        len: len(&pages),
    };
    let mbind = |mode| Op::Mbind {
        addr: at(2),
        len: 2 * PAGE_SIZE,
        mode,
        nodes: u64::from(mode != mode::DEFAULT),
        flags: 0,
    };
    let relocate = |pages: Range<u64>, flags| Op::Mremap {
        addr: at(pages.start),
        old_len: len(&pages),
        new_len: len(&pages),
        flags: MremapFlags::MAYMOVE | flags,
        new_addr: at(8),
    };
    let advise = |advice| Op::Madvise {
        addr: at(2),
        len: 2 * PAGE_SIZE,
        advice,
    };
    let refuse = |hook, nth| Op::Steer {
        file: Backing::File(FileId(0)),
        hook,
        nth,
        error: Errno::EIO,
    };
    let write = |page| Op::Touch {
        addr: at(page),
        write: true,
    };
    let four = || map(0..4, anonymous);
    let droppable = MapFlags::DROPPABLE | MapFlags::ANONYMOUS | MapFlags::FIXED;
    let future = Op::Mlockall {
        flags: MlockallFlags::FUTURE,
    };
    let lock = Op::Mlock {
        addr: at(2),
        len: 2 * PAGE_SIZE,
        flags: MlockFlags::empty(),
    };
    let unlock = Op::Munlock {
        addr: at(2),
        len: 2 * PAGE_SIZE,
    };
    let grow = Op::Mremap {
        addr: at(0),
        old_len: 4 * PAGE_SIZE,
        new_len: 6 * PAGE_SIZE,
        flags: MremapFlags::empty(),
        new_addr: 0,
    };
    let starve = Op::FailAllocation {
        what: Allocation::Tree,
        nth: 1,
    };
    for (reason, rules, setup, op) in [
        (
            "what an operation had done before it failed stays",
            Rules::V7_2,
            vec![device(0..4), refuse(Asked::MaySplit, 2)],
            Op::Munmap {
                addr: at(1),
                len: 2 * PAGE_SIZE,
            },
        ),
        (
            "a merge for which there is no memory is done without, until 6.13 and where areas are new",
            Rules::V7_2,
            vec![four(), starve],
            map(4..6, anonymous),
        ),
        (
            "a fault ties pages to an anon_vma, or lets a stack grow, and merges nothing",
            Rules::V4_9,
            vec![
                four(),
                protect(0..2, Prot::READ),
                write(2),
                protect(2..4, Prot::READ),
                protect(0..4, WRITE),
            ],
            write(0),
        ),
        (
            "fork copies areas as they are, but not all that kept them apart",
            Rules::V7_2,
            vec![four(), watch(0..2)],
            Op::Fork,
        ),
        (
            "MREMAP_DONTUNMAP takes from the source what kept it apart, and keeps the copy from it",
            Rules::V7_2,
            vec![four(), map(6..8, anonymous)],
            Op::Mremap {
                addr: at(6),
                old_len: 2 * PAGE_SIZE,
                new_len: 2 * PAGE_SIZE,
                flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
                new_addr: at(8),
            },
        ),
        (
            "what was moved and cannot be unmapped stays: cut, and without VM_ACCOUNT",
            Rules::V7_2,
            vec![device(0..4), refuse(Asked::MaySplit, 4)],
            relocate(1..3, MremapFlags::FIXED),
        ),
        (
            "the flags that a driver sets come when it is decided that nothing merges",
            Rules::V7_2,
            vec![device(0..2)],
            device(2..4),
        ),
        (
            "what may be dropped is unlocked when it is decided that nothing merges",
            Rules::V7_2,
            vec![map(0..2, droppable), future],
            map(2..4, droppable),
        ),
        (
            "Rules::brk_stays_apart",
            Rules::V7_2,
            vec![four()],
            Op::Brk { addr: at(6) },
        ),
        (
            "Rules::mlock_merges",
            Rules::V2_6_11,
            vec![four(), lock],
            unlock,
        ),
        (
            "Rules::madvise_merges",
            Rules::V2_6_11,
            vec![four()],
            advise(Advice::NORMAL),
        ),
        (
            "Rules::mbind_merges",
            Rules::V2_6_11,
            vec![four(), mbind(mode::BIND)],
            mbind(mode::DEFAULT),
        ),
        (
            "Rules::mremap_grown_merges",
            Rules::V5_10,
            vec![four(), map(6..8, anonymous)],
            grow,
        ),
        (
            "Rules::uffd_merges_by_area_offset",
            Rules::V4_12,
            vec![
                four(),
                map(4..6, anonymous | MapFlags::NORESERVE),
                watch(4..6),
                map(4..6, anonymous),
                watch(4..6),
            ],
            watch(2..4),
        ),
    ] {
        let mut space: AddressSpace = AddressSpace::new(rules, Limits::default());
        let changes = reason.contains("driver sets");
        space.add_file(File {
            sets: if changes {
                VmFlags::DONTDUMP
            } else {
                VmFlags::empty()
            },
            hooks: Hooks {
                close: false,
                ..Hooks::ALL
            },
            ..File::device(64)
        });
        space.set_break(Break::empty(at(4)));
        for op in &setup {
            space.apply(op).result.unwrap();
        }
        let before = space.clone();
        let result = space.apply(&op).result;
        let reasons: Vec<_> = space.left_apart(&before, &op, result);
        let reasons: Vec<&str> = reasons
            .into_iter()
            .flat_map(|(_, reasons)| reasons)
            .collect();
        assert!(reasons.contains(&reason), "{reasons:?}, not {reason}");
    }
}
