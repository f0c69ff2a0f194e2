// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Each deliberate mistake, drawn: an operation in which it shows, and one like it in which it does not.

use std::ops::Range;

use vmalab_model::file::MaySplit;
use vmalab_model::{
    Break, Errno, File, Limits, MapFlags, Mistake, Mmap, MremapFlags, Op, Outcome, PAGE_SIZE, Prot,
    Rules,
};

use crate::world::{BASE, World};

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

fn len(pages: &Range<u64>) -> u64 {
    (pages.end - pages.start) * PAGE_SIZE
}

fn unmap(pages: Range<u64>) -> Op {
    Op::Munmap {
        addr: at(pages.start),
        len: len(&pages),
    }
}

fn protect(pages: Range<u64>, prot: Prot) -> Op {
    Op::Mprotect {
        addr: at(pages.start),
        len: len(&pages),
        prot,
    }
}

const READ: Prot = Prot::READ;
const WRITE: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

fn map(letter: char, pages: Range<u64>) -> Op {
    Op::Mmap(World::new().args(letter, pages.start, pages.end))
}

/// From that page of the file on.
fn map_from(letter: char, pages: Range<u64>, offset: u64) -> Op {
    Op::Mmap(Mmap {
        offset: offset * PAGE_SIZE,
        ..World::new().args(letter, pages.start, pages.end)
    })
}

fn map_with(letter: char, pages: Range<u64>, flags: MapFlags) -> Op {
    let args = World::new().args(letter, pages.start, pages.end);
    Op::Mmap(Mmap {
        flags: args.flags | flags,
        ..args
    })
}

fn anywhere(pages: u64) -> Op {
    let args = World::new().args('a', 0, pages);
    Op::Mmap(Mmap {
        addr: 0,
        flags: args.flags.without(MapFlags::FIXED),
        ..args
    })
}

fn write(page: u64) -> Op {
    Op::Touch {
        addr: at(page),
        write: true,
    }
}

fn resize(pages: Range<u64>, new: u64) -> Op {
    Op::Mremap {
        addr: at(pages.start),
        old_len: len(&pages),
        new_len: new * PAGE_SIZE,
        flags: MremapFlags::empty(),
        new_addr: 0,
    }
}

fn brk(addr: u64) -> Op {
    Op::Brk { addr }
}

/// How things stand, within which limits, and with which driver of `d`.
struct Scene {
    drawn: &'static str,
    then: Vec<Op>,
    limits: Limits,
    device: File,
}

fn scene(drawn: &'static str) -> Scene {
    Scene {
        drawn,
        then: Vec::new(),
        limits: Limits::default(),
        device: File::device(64),
    }
}

impl Scene {
    fn then(mut self, op: Op) -> Self {
        self.then.push(op);
        self
    }

    fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Its driver lets nothing be cut.
    fn whole(mut self) -> Self {
        self.device.may_split = MaySplit::Never(Errno::EBUSY);
        self
    }

    /// What an operation comes to.
    fn play(&self, rules: Rules, op: &Op) -> Outcome {
        let mut w = World::with(Rules::V7_2, self.limits, self.device);
        w.draw_in(self.drawn);
        for op in &self.then {
            w.apply(op).unwrap();
        }
        let heap = self.limits.task_size - 2 * PAGE_SIZE;
        w.space.set_break(Break::empty(heap));
        w.space.with_rules(rules).apply(op)
    }
}

/// Each shows, and only where it is one.
#[test]
fn each_mistake_shows() {
    let end = Limits::default().task_size;
    let near = |limits: &mut Limits| {
        limits.mmap_base = at(16);
        limits.mmap_legacy_base = at(0);
        limits.stack_guard_gap = 4 * PAGE_SIZE;
    };
    let stack = map_with('a', 12..14, MapFlags::GROWSDOWN);
    let locked = map_with('a', 0..2, MapFlags::LOCKED);
    let seal = Op::Mseal {
        addr: at(2),
        len: 2 * PAGE_SIZE,
        flags: 0,
    };
    let table = [
        (
            Mistake::SplitLosesOffset,
            scene("Ffff"),
            unmap(0..2),
            unmap(0..4),
        ),
        (
            Mistake::SplitForgetsOpen,
            scene("Dddd"),
            unmap(0..2),
            unmap(0..4),
        ),
        (
            Mistake::MunmapOfHoleFails,
            scene("Aa..Aa"),
            unmap(2..4),
            unmap(1..4),
        ),
        (
            Mistake::MunmapOfNothingWorks,
            scene("Aa"),
            unmap(0..0),
            unmap(0..1),
        ),
        (
            Mistake::LimitAtEverySplit,
            scene("Aaaa").limits(|limits| limits.max_map_count = 1),
            unmap(0..2),
            unmap(1..2),
        ),
        (
            Mistake::MapCountOffByOne,
            scene("Aaaa").limits(|limits| limits.max_map_count = 2),
            protect(0..2, READ),
            protect(0..4, READ),
        ),
        (
            Mistake::CloseBackwards,
            scene("DddX"),
            unmap(0..4),
            unmap(0..3),
        ),
        (
            Mistake::NoMergeForward,
            scene("..Aa"),
            map('a', 0..2),
            map('a', 4..6),
        ),
        (
            Mistake::MergeIgnoresOffset,
            scene("Ff..Ff"),
            map_from('f', 2..4, 9),
            map('f', 2..4),
        ),
        (
            Mistake::MergeIgnoresClose,
            scene("Dd..Dd"),
            map('d', 2..4),
            map('d', 2..3),
        ),
        (
            Mistake::MergeIgnoresAnonVma,
            scene("Aa..Aa").then(write(0)).then(write(4)),
            map('a', 2..4),
            map('a', 2..3),
        ),
        // Two that were written to side by side.
        (
            Mistake::MergeIgnoresAnonVma,
            scene("Aa..Aa")
                .then(write(0))
                .then(write(4))
                .then(map('a', 2..4))
                .then(protect(4..6, READ)),
            protect(4..6, WRITE),
            protect(4..5, READ),
        ),
        (
            Mistake::LockedNotCounted,
            scene("Aa"),
            map_with('a', 2..4, MapFlags::LOCKED),
            map('a', 2..4),
        ),
        (
            Mistake::ReplacedCountedTwice,
            scene("Aaaa").limits(|limits| limits.address_space = 4 * PAGE_SIZE),
            map('r', 1..3),
            map('r', 4..5),
        ),
        (
            Mistake::NoreplaceReplaces,
            scene("Aa"),
            map_with('r', 1..3, MapFlags::FIXED_NOREPLACE),
            map_with('r', 2..3, MapFlags::FIXED_NOREPLACE),
        ),
        (
            Mistake::NoGuardGap,
            scene("").limits(near).then(stack),
            anywhere(4),
            anywhere(2),
        ),
        (
            Mistake::FailedSplitCloses,
            scene("Dddd").whole(),
            unmap(0..2),
            unmap(0..4),
        ),
        (
            Mistake::FailedMunmapUnlocks,
            scene("").then(locked).then(map('r', 2..4)).then(seal),
            unmap(0..4),
            unmap(0..2),
        ),
        (
            Mistake::MergeUnderflowsOffset,
            scene("").then(map_from('f', 2..4, 1)),
            map_from('f', 0..2, 0),
            map_from('f', 0..2, 2),
        ),
        (
            Mistake::MergeUnderflowsOffset,
            scene("").then(map_from('f', 2..4, 4)),
            map_from('f', 0..2, 4),
            map_from('f', 0..2, 1),
        ),
        (
            Mistake::NextKeepsOldFlags,
            scene("AaaaRr"),
            protect(2..4, READ),
            protect(1..2, READ),
        ),
        (
            Mistake::NoUnwrittenMerge,
            scene("Aa").then(write(0)),
            map('a', 2..4),
            map('r', 2..4),
        ),
        (
            Mistake::NoUnwrittenMerge,
            scene("")
                .then(map_with('a', 0..4, MapFlags::NORESERVE))
                .then(protect(0..2, READ))
                .then(write(2)),
            protect(2..4, READ),
            protect(2..4, Prot::empty()),
        ),
        (
            Mistake::NextRemovedTwice,
            scene("RrAaRrDd"),
            protect(2..4, READ),
            protect(2..3, READ),
        ),
        (
            Mistake::MremapGrowsFromPart,
            scene("Aaaa"),
            resize(2..4, 4),
            resize(0..4, 6),
        ),
        (
            Mistake::MremapIgnoresUnmap,
            scene("Dddd").whole(),
            resize(0..4, 2),
            resize(0..4, 4),
        ),
        (
            Mistake::MremapToNothingWorks,
            scene("Aaaa"),
            resize(0..4, 0),
            resize(0..4, 1),
        ),
        (
            Mistake::BrkUnbounded,
            scene(""),
            brk(end + PAGE_SIZE),
            brk(end - PAGE_SIZE),
        ),
    ];
    for (mistake, scene, shows, hides) in &table {
        let wrong = Rules::V7_2.with_mistake(*mistake);
        let play = |rules, op| scene.play(rules, op);
        assert_ne!(play(wrong, shows), play(Rules::V7_2, shows), "{mistake:?}");
        assert_eq!(play(wrong, hides), play(Rules::V7_2, hides), "{mistake:?}");
    }
    let shown = |mistake: &&Mistake| table.iter().any(|row| row.0 == **mistake);
    let missing: Vec<_> = Mistake::ALL.iter().filter(|one| !shown(one)).collect();
    assert_eq!(missing, [&Mistake::BrkUnbounded; 0]);
}
