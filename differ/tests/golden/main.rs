// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Golden layouts: what an operation does, drawn as `vmalab diff` draws it, one file of drawings for each
//! call in `snapshots/`. Where kernels part, each answer is drawn.
//!
//! Read the drawings like text. After a change that is meant, `INSTA_UPDATE=always` writes them anew, or
//! `cargo insta review` asks about each.

mod case;

use std::ops::Range;

use std::num::NonZeroU8;

use case::{Case, SEGMENT, at, case, map};
use vmalab_model::limits::Overcommit;
use vmalab_model::mempolicy::mode;
use vmalab_model::{
    Advice, Allocation, Asked, Backing, Errno, FileId, Limits, MapFlags, MdweFlags, MlockFlags,
    MlockallFlags, Mmap, MremapFlags, Name, NewName, Op, PAGE_SIZE, Prot, Rules, ShmFlags,
};

const RW: Prot = Prot(Prot::READ.0 | Prot::WRITE.0);

fn golden(name: &str, cases: Vec<String>) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, cases.join("\n"));
    });
}

fn len(pages: &Range<u64>) -> u64 {
    (pages.end - pages.start) * PAGE_SIZE
}

fn munmap(pages: Range<u64>) -> Op {
    Op::Munmap {
        addr: at(pages.start),
        len: len(&pages),
    }
}

fn mmap(letter: char, pages: Range<u64>) -> Op {
    Op::Mmap(map(letter, pages))
}

/// Anywhere, and with those flags as well.
fn anywhere(letter: char, pages: u64, flags: MapFlags) -> Op {
    let args = map(letter, 0..pages);
    Op::Mmap(Mmap {
        addr: 0,
        flags: args.flags.without(MapFlags::FIXED) | flags,
        ..args
    })
}

fn with(op: Op, flags: MapFlags) -> Op {
    match op {
        Op::Mmap(args) => Op::Mmap(Mmap {
            flags: args.flags | flags,
            ..args
        }),
        _ => unreachable!("only mmap has such flags"),
    }
}

fn mprotect(pages: Range<u64>, prot: Prot) -> Op {
    Op::Mprotect {
        addr: at(pages.start),
        len: len(&pages),
        prot,
    }
}

fn mlock(pages: Range<u64>) -> Op {
    Op::Mlock {
        addr: at(pages.start),
        len: len(&pages),
        flags: MlockFlags::empty(),
    }
}

fn munlock(pages: Range<u64>) -> Op {
    Op::Munlock {
        addr: at(pages.start),
        len: len(&pages),
    }
}

fn madvise(pages: Range<u64>, advice: Advice) -> Op {
    Op::Madvise {
        addr: at(pages.start),
        len: len(&pages),
        advice,
    }
}

fn mseal(pages: Range<u64>) -> Op {
    Op::Mseal {
        addr: at(pages.start),
        len: len(&pages),
        flags: 0,
    }
}

fn watch(pages: Range<u64>) -> Op {
    Op::UffdRegister {
        addr: at(pages.start),
        len: len(&pages),
    }
}

fn mlock_on_fault(pages: Range<u64>) -> Op {
    Op::Mlock {
        addr: at(pages.start),
        len: len(&pages),
        flags: MlockFlags::ONFAULT,
    }
}

fn mlockall(flags: MlockallFlags) -> Op {
    Op::Mlockall { flags }
}

/// From that memory node, or the default.
fn mbind(pages: Range<u64>, mode: u32) -> Op {
    Op::Mbind {
        addr: at(pages.start),
        len: len(&pages),
        mode,
        nodes: u64::from(mode != mode::DEFAULT),
        flags: 0,
    }
}

fn name(pages: Range<u64>, number: u8) -> Op {
    Op::SetName {
        addr: at(pages.start),
        len: len(&pages),
        name: NonZeroU8::new(number).map_or(NewName::None, |number| NewName::Some(Name(number))),
    }
}

fn shmat(page: u64, flags: ShmFlags) -> Op {
    Op::Shmat {
        segment: SEGMENT,
        addr: at(page),
        flags,
    }
}

fn shmdt(page: u64) -> Op {
    Op::Shmdt { addr: at(page) }
}

fn remap_file_pages(pages: Range<u64>, pgoff: u64) -> Op {
    Op::RemapFilePages {
        addr: at(pages.start),
        len: len(&pages),
        prot: Prot::empty(),
        pgoff,
        flags: MapFlags::empty(),
    }
}

/// The driver of `f` refuses the next call of a hook.
fn steer(hook: Asked) -> Op {
    Op::Steer {
        file: Backing::File(FileId(0)),
        hook,
        nth: 1,
        error: Errno::EIO,
    }
}

/// The next allocation of that kind fails, or one after it.
fn starve(what: Allocation, nth: u32) -> Op {
    Op::FailAllocation { what, nth }
}

/// To another length, where it stands.
fn resize(pages: Range<u64>, new: u64) -> Op {
    Op::Mremap {
        addr: at(pages.start),
        old_len: len(&pages),
        new_len: new * PAGE_SIZE,
        flags: MremapFlags::empty(),
        new_addr: 0,
    }
}

/// To another place.
fn relocate(pages: Range<u64>, new: u64, target: u64, flags: MremapFlags) -> Op {
    Op::Mremap {
        addr: at(pages.start),
        old_len: len(&pages),
        new_len: new * PAGE_SIZE,
        flags: MremapFlags::MAYMOVE | flags,
        new_addr: at(target),
    }
}

fn touch(page: u64) -> Op {
    Op::Touch {
        addr: at(page),
        write: true,
    }
}

/// With a stack at pages 12 and 13, and little between it and what is below.
fn stack(title: &'static str) -> Case {
    case(title)
        .limits(|limits| limits.stack_guard_gap = 4 * PAGE_SIZE)
        .then(with(mmap('a', 12..14), MapFlags::GROWSDOWN))
}

#[test]
fn munmap_cases() {
    let start = case;
    golden(
        "munmap",
        vec![
            start("The head. Which piece is the new one, and is opened, turned round by 6.5.")
                .in_all_eras()
                .draw("[F F F F F F F F")
                .when(munmap(0..2)),
            start("The tail.").draw("[F F F F F F F F").when(munmap(6..8)),
            start("The middle: one area becomes two.")
                .in_all_eras()
                .draw("[F F F F F F F F")
                .when(munmap(2..6)),
            start("All of it.").draw("[F F F F F F F F").when(munmap(0..8)),
            start("Several areas, the holes between them, and parts of the first and the last.")
                .draw("[F F F F[H H H . .[a a a .[G G G G")
                .when(munmap(2..14)),
            start("A hole: a success, since there is nothing to do, and so nothing to fail.")
                .in_all_eras()
                .draw("[a a . . . .[a a")
                .when(munmap(2..6)),
            start("One byte: a length is rounded up to pages.")
                .draw("[a a a a")
                .when(Op::Munmap {
                    addr: at(1),
                    len: 1,
                }),
            start("No length.").in_all_eras().draw("[a a a a").when(munmap(1..1)),
            start("An address that begins no page.")
                .draw("[a a a a")
                .when(Op::Munmap {
                    addr: at(1) + 1,
                    len: PAGE_SIZE,
                }),
            start("Beyond the end of all addresses.")
                .draw("[a a a a")
                .when(Op::Munmap {
                    addr: at(1),
                    len: Limits::default().task_size,
                }),
            start("A hole is punched at the limit on areas.")
                .in_all_eras()
                .draw("[a a a a . .[a a")
                .room_for(0)
                .when(munmap(1..3)),
            start("The head at the limit. Kernels before 2.6.33 refused every split there.")
                .in_all_eras()
                .draw("[a a a a . .[a a")
                .room_for(0)
                .when(munmap(0..2)),
            start("From one area into the next at the limit: one split too many for a moment.")
                .in_all_eras()
                .draw("[a a a a[G G G G")
                .room_for(0)
                .when(munmap(2..6)),
            start("One area below the limit, a kernel before 2.6.33 made the first split, and it stays.")
                .since(Rules::V2_6_11)
                .draw("[a a a a[G G G G")
                .room_for(1)
                .when(munmap(2..6)),
            start("The driver allows the first split and forbids the second. Before 4.15 none was asked.")
                .in_all_eras()
                .draw("[J J J J J J J J")
                .when(munmap(4..6)),
            start("What is locked leaves the count.")
                .draw("[a a a a a a")
                .then(mlock(0..6))
                .when(munmap(2..4)),
            start("A seal behind the first area: the first one is already cut, and stays so.")
                .since(Rules::V6_12)
                .draw("[a a a a[G G G G")
                .then(mseal(4..8))
                .when(munmap(2..6)),
        ],
    );
}

/// The numbers are those of the kernel's old table of cases (`vma_merge`).
#[test]
fn merge_cases() {
    let read = |pages| mprotect(pages, Prot::READ);
    let write = |pages| mprotect(pages, RW);
    golden(
        "merge",
        vec![
            case("1: what is new fits both its neighbours.")
                .draw("[a a a . . .[a a a")
                .when(mmap('a', 3..6)),
            case("2: it fits the one below.")
                .draw("[a a a . . .[G G G")
                .when(mmap('a', 3..6)),
            case("3: it fits the one above.")
                .draw("[G G G . . .[a a a")
                .when(mmap('a', 3..6)),
            case("4: the tail of an area becomes like the one above, which grows down.")
                .draw("[a a a a a a")
                .then(read(4..6))
                .when(read(2..4)),
            case("5: the head of an area becomes like the one below, which grows.")
                .draw("[a a a a a a")
                .then(read(0..2))
                .when(read(2..4)),
            case("6: an area becomes like both its neighbours.")
                .draw("[a a a a a a")
                .then(read(2..4))
                .when(write(2..4)),
            case("7: an area becomes like the one below.")
                .draw("[a a a a[G G")
                .then(read(2..4))
                .when(write(2..4)),
            case("8: an area becomes like the one above.")
                .draw("[G G[a a a a")
                .then(read(2..4))
                .when(write(2..4)),
            case("None: its middle becomes something else.")
                .draw("[a a a a a a")
                .when(read(2..4)),
            case("The file fits, its offset does not.")
                .draw("[G G G")
                .when(Op::Mmap(Mmap {
                    offset: 0,
                    ..map('G', 3..6)
                })),
            case("A driver hears nothing of pages that its area takes in.")
                .in_all_eras()
                .draw("[F F F")
                .when(mmap('F', 3..6)),
            case("A driver changes the flags, so that its areas are alike when it was asked: from 5.9 to 6.16 that is seen.")
                .in_all_eras()
                .draw("[N N N")
                .when(mmap('N', 3..6)),
            case("Both sides fit, but what vanishes would have to be closed.")
                .in_all_eras()
                .draw("[F F F . . .[F F F")
                .when(mmap('F', 3..6)),
            case("What must not grow merges with nothing.")
                .draw("[H H H")
                .when(mmap('H', 3..6)),
            case("Shared anonymous memory is an object of its own each time.")
                .draw("[s s s")
                .when(mmap('s', 3..6)),
            case("Both neighbours were written to apart: what is new joins the one below.")
                .draw("[a a a . . .[a a a")
                .written(&[0, 6])
                .when(mmap('a', 3..6)),
            case("Written to here and there, asked from above: 6.1 alone joined the one above.")
                .since(Rules::V4_9)
                .draw("[a a a . . .[a a a")
                .written(&[0, 6])
                .when(mmap('a', 3..6)),
            case("Written memory becomes like unwritten memory below it: one area, but not from 3.0 to 6.15.")
                .in_all_eras()
                .draw("[a a a a a a")
                .then(mprotect(0..3, Prot::empty()))
                .written(&[3])
                .then(read(3..6))
                .then(write(0..3))
                .when(write(3..6)),
            case("Unwritten memory joins written memory of the same kind.")
                .in_all_eras()
                .draw("[a a a")
                .written(&[0])
                .when(mmap('a', 3..6)),
            case("A forked child takes nothing into what was written. Before 2.6.34 it did.")
                .in_all_eras()
                .draw("[a a a")
                .written(&[0])
                .then(Op::Fork)
                .when(mmap('a', 3..6)),
        ],
    );
}

#[test]
fn mmap_cases() {
    golden(
        "mmap",
        vec![
            case("Over something: that is closed before the driver is shown what is new.")
                .draw("[F F F F F F[H H H H H H")
                .when(mmap('H', 3..9)),
            case("The driver refuses when the old pages are gone: a hole.")
                .in_all_eras()
                .draw("[a a a a a a")
                .when(mmap('K', 2..4)),
            case("No memory may be promised: since 6.12 that is known before anything goes.")
                .in_all_eras()
                .draw("[G G G G G G")
                .tighten(|limits, _| limits.overcommit = Overcommit::Guess { total: 1 })
                .when(mmap('a', 2..4)),
            case("In the middle of an area, at the limit, even of the same kind.")
                .in_all_eras()
                .draw("[a a a a a a")
                .room_for(0)
                .when(mmap('a', 2..4)),
            case("A limit on all memory is net of what goes away.")
                .draw("[a a a a a a")
                .tighten(|limits, now| limits.address_space = now.total_vm * PAGE_SIZE)
                .when(mmap('G', 2..4)),
            case("Something is there: MAP_FIXED_NOREPLACE leaves it. Before 4.17 it was a hint.")
                .in_all_eras()
                .limits(|limits| {
                    limits.mmap_base = at(16);
                    limits.mmap_legacy_base = at(8);
                })
                .draw(". .[a a")
                .when(match mmap('G', 0..3) {
                    Op::Mmap(args) => Op::Mmap(Mmap {
                        flags: MapFlags::SHARED | MapFlags::FIXED_NOREPLACE,
                        ..args
                    }),
                    _ => unreachable!(),
                }),
            case("The kernel chooses: downwards from the base, in 2.6.11 upwards.")
                .in_all_eras()
                .limits(|limits| {
                    limits.mmap_base = at(16);
                    limits.mmap_legacy_base = at(0);
                })
                .draw("[G G . . . . .[G G . .[G G . . .")
                .when(anywhere('a', 4, MapFlags::empty())),
            case("A hint is taken where there is room.")
                .limits(|limits| limits.mmap_base = at(16))
                .draw("[G G")
                .when(match mmap('a', 4..6) {
                    Op::Mmap(args) => Op::Mmap(Mmap {
                        addr: args.addr + 1,
                        flags: args.flags.without(MapFlags::FIXED),
                        ..args
                    }),
                    _ => unreachable!(),
                }),
            case("Locked from the start.")
                .draw("[a a")
                .when(with(mmap('a', 2..4), MapFlags::LOCKED)),
            case("More locked memory than allowed.")
                .tighten(|limits, _| (limits.memlock, limits.cap_ipc_lock) = (PAGE_SIZE, false))
                .draw("[a a")
                .when(with(mmap('a', 2..4), MapFlags::LOCKED)),
            case("MAP_STACK keeps huge pages away since 6.7, so that it merges with less.")
                .since(Rules::V6_1)
                .draw("[a a")
                .when(with(mmap('a', 2..4), MapFlags::STACK)),
            case("One area more than the limit may be made by mmap, none after it.")
                .draw("[a a")
                .room_for(0)
                .when(mmap('G', 2..4)),
        ],
    );
}

#[test]
fn mprotect_cases() {
    golden(
        "mprotect",
        vec![
            case("The middle; the driver is asked since 5.11.")
                .in_all_eras()
                .draw("[F F F F F F")
                .when(mprotect(2..4, Prot::READ)),
            case("Up to a hole: what came before it stays changed.")
                .draw("[a a a . .[a a a")
                .when(mprotect(1..7, Prot::READ)),
            case("Up to a file that cannot be written to: what came before it stays changed.")
                .draw("[a a . .")
                .then(mprotect(0..2, Prot::READ))
                .then(Op::Mmap(Mmap {
                    prot: Prot::READ,
                    ..map('L', 2..4)
                }))
                .when(mprotect(1..4, RW)),
            case("One split fits below the limit, the second does not: the first stays.")
                .in_all_eras()
                .draw("[a a a a a a")
                .room_for(1)
                .when(mprotect(2..4, Prot::READ)),
            case("No split fits.")
                .draw("[a a a a a a")
                .room_for(0)
                .when(mprotect(2..4, Prot::READ)),
            case("The driver refuses.")
                .draw("[M M M M")
                .when(mprotect(1..3, Prot::READ)),
            case("Down to the start of a stack.")
                .draw("[a a")
                .then(with(mmap('a', 4..8), MapFlags::GROWSDOWN))
                .when(mprotect(6..7, Prot(Prot::READ.0 | Prot::GROWSDOWN.0))),
            case("Back again: a merge that close forbids makes the kernel ask twice since 6.12.")
                .since(Rules::V6_1)
                .draw("[F F F F F F")
                .then(mprotect(3..6, Prot::READ))
                .when(mprotect(3..6, RW)),
        ],
    );
}

#[test]
fn mremap_cases() {
    let fixed = MremapFlags::FIXED;
    golden(
        "mremap",
        vec![
            case("Shorter.").draw("[a a a a a a").when(resize(0..6, 4)),
            case("Longer, where it stands.")
                .draw("[a a a .")
                .when(resize(0..3, 5)),
            case("Longer, up to the one above, which fits: one area since 5.19.")
                .in_all_eras()
                .draw("[a a a . .[a a a")
                .when(resize(0..3, 5)),
            case("Longer, with something in the way.")
                .draw("[a a a[G G")
                .when(resize(0..3, 5)),
            case("To another place, over what is there.")
                .in_all_eras()
                .draw("[F F F F . . . .[a a a a")
                .when(relocate(1..3, 2, 8, fixed)),
            case("To another place and shorter.")
                .draw("[G G G G")
                .when(relocate(0..4, 2, 8, fixed)),
            case("Several areas with the gap between them: since 6.17.")
                .since(Rules::V6_1)
                .draw("[a a[G G .[F")
                .when(relocate(0..6, 6, 8, fixed)),
            case("The driver sends it back; what was in the way stays away.")
                .draw(". . . . . . . .[a a a a")
                .then(mmap('M', 0..4))
                .when(relocate(1..3, 2, 8, fixed)),
            case("The pages move, the area stays.")
                .since(Rules::V5_10)
                .draw("[a a a a")
                .written(&[0])
                .when(relocate(0..4, 4, 8, fixed | MremapFlags::DONTUNMAP)),
            case("Locked pages move, the area stays: what became of the count.")
                .since(Rules::V5_10)
                .draw("[a a a a")
                .then(mlock(0..4))
                .when(relocate(0..2, 2, 8, fixed | MremapFlags::DONTUNMAP)),
            case("An old length of 0 has shared memory a second time.")
                .draw("[G G G G")
                .when(relocate(1..1, 2, 8, fixed)),
            case("An old length of 0 of private memory: EINVAL since 4.14.")
                .in_all_eras()
                .draw("[a a a a")
                .when(relocate(1..1, 2, 8, fixed)),
            case(
                "Near the limit the worst case is counted, before or after the target is unmapped.",
            )
            .in_all_eras()
            .draw("[a a a a . . . .[G G G G")
            .room_for(3)
            .when(relocate(1..3, 2, 8, fixed)),
            case("To nothing.").draw("[a a a a").when(resize(0..4, 0)),
        ],
    );
}

#[test]
fn mlock_cases() {
    golden(
        "mlock",
        vec![
            case("The middle.")
                .in_all_eras()
                .draw("[a a a a a a")
                .when(mlock(2..4)),
            case("Up to a hole: what came before it is locked.")
                .in_all_eras()
                .draw("[a a a . .[a a")
                .when(mlock(1..6)),
            case("Unlocked again. Locking had its pages made, and so it is one area only since 6.16.")
                .in_all_eras()
                .draw("[a a a a a a")
                .then(mlock(2..4))
                .when(munlock(2..4)),
            case("Everything, and what comes. What never merges is not locked, until 2.6.11 it was.")
                .in_all_eras()
                .draw("[a a . .[G G .[H H")
                .when(mlockall(MlockallFlags::CURRENT | MlockallFlags::FUTURE)),
            case("What comes after that.")
                .in_all_eras()
                .draw("[a a")
                .then(mlockall(MlockallFlags::FUTURE))
                .when(mmap('a', 2..4)),
            case("Nothing any more.")
                .in_all_eras()
                .draw("[a a . .[G G")
                .then(mlockall(MlockallFlags::CURRENT | MlockallFlags::FUTURE))
                .when(Op::Munlockall),
            case("When it is touched, and not before. Since 4.4.")
                .in_all_eras()
                .draw("[a a a a a a")
                .when(mlock_on_fault(2..4)),
            case("When they are touched, but neither what there is nor what comes: an error since 5.2.")
                .since(Rules::V4_9)
                .draw("[a a")
                .when(mlockall(MlockallFlags::ONFAULT)),
        ],
    );
}

#[test]
fn madvise_cases() {
    golden(
        "madvise",
        vec![
            case("Not for children: cut out.")
                .draw("[a a a a a a")
                .when(madvise(2..4, Advice::DONTFORK)),
            case("And back: one area again.")
                .draw("[a a a a a a")
                .then(madvise(2..4, Advice::DONTFORK))
                .when(madvise(2..4, Advice::DOFORK)),
            case("At the limit the error is another one.")
                .draw("[a a a a a a")
                .room_for(0)
                .when(madvise(2..4, Advice::DONTFORK)),
            case("Over a hole: done, and an error all the same.")
                .draw("[a a . .[a a")
                .when(madvise(0..6, Advice::DONTFORK)),
            case("Advice that changes nothing cuts nothing; in 2.6.11 it did.")
                .in_all_eras()
                .draw("[G G G G G G")
                .when(madvise(2..4, Advice::NORMAL)),
        ],
    );
}

#[test]
fn brk_cases() {
    let brk = |page| Op::Brk { addr: at(page) };
    golden(
        "brk",
        vec![
            case("Up, in the middle of a page; since 6.1 the heap keeps apart from what is below it.")
                .in_all_eras()
                .heap(2)
                .draw("[a a . . . . . .[G")
                .when(Op::Brk { addr: at(4) + 1 }),
            case("Further: the heap grows.")
                .heap(2)
                .then(brk(4))
                .when(brk(6)),
            case("Down.").heap(2).then(brk(6)).when(brk(3)),
            case("Into the page before another area: the break stays.")
                .heap(2)
                .then(brk(4))
                .draw(". . . . . . . .[G")
                .when(brk(8)),
            case("Below its start: the break stays.")
                .heap(2)
                .then(brk(4))
                .when(brk(1)),
            case("Down where nothing is mapped any more: since 6.1 that is an error.")
                .in_all_eras()
                .heap(2)
                .then(brk(6))
                .then(munmap(2..6))
                .draw(". . . . . . . .[G")
                .when(brk(3)),
            case("Down through a seal: the error is hidden.")
                .since(Rules::V6_12)
                .heap(2)
                .then(brk(6))
                .then(mseal(4..5))
                .when(brk(3)),
            case("Beyond the end of all addresses: the break stays.")
                .heap(2)
                .then(brk(4))
                .when(Op::Brk { addr: 1 << 47 }),
        ],
    );
}

#[test]
fn fork_cases() {
    golden(
        "fork",
        vec![
            case("What is not for children is not there.")
                .draw("[a a a a a a[F F")
                .then(madvise(2..4, Advice::DONTFORK))
                .when(Op::Fork),
            case("What is wiped is there; only its pages are not.")
                .draw("[a a a a a a")
                .written(&[0])
                .then(madvise(2..4, Advice::WIPEONFORK))
                .when(Op::Fork),
            case("No lock is inherited.")
                .draw("[a a a a a a")
                .then(mlock(2..4))
                .when(Op::Fork),
            case("Each area is opened.")
                .draw("[F F F . .[J J J J")
                .when(Op::Fork),
        ],
    );
}

#[test]
fn stack_cases() {
    golden(
        "stack",
        vec![
            stack("A touch below a stack: it grows.")
                .in_all_eras()
                .draw("[a a")
                .when(touch(9)),
            stack("Into its guard gap above another area. Until 4.11 the gap was one page of its own.")
                .in_all_eras()
                .draw("[a a . .[G G")
                .when(touch(9)),
            stack("The gap is kept free of what the kernel places.")
                .in_all_eras()
                .limits(|limits| {
                    limits.mmap_base = at(16);
                    limits.mmap_legacy_base = at(0);
                })
                .draw("[G . . . . . . . . . . . . .[G G")
                .when(anywhere('a', 4, MapFlags::empty())),
            stack("Up to the limit on stacks, which does not count the guard page that 4.9 had.")
                .in_all_eras()
                .limits(|limits| limits.stack = 3 * PAGE_SIZE)
                .when(touch(11)),
            stack("No further than the limit on stacks.")
                .tighten(|limits, _| limits.stack = 3 * PAGE_SIZE)
                .when(touch(9)),
            case("What is no stack does not grow.")
                .draw(". . . .[a a")
                .when(touch(3)),
        ],
    );
}

/// Pages of the pool are 512 of these.
#[test]
fn hugetlb_cases() {
    golden(
        "hugetlb",
        vec![
            case("A part of a huge page cannot be unmapped.")
                .in_all_eras()
                .then(mmap('I', 0..1024))
                .when(munmap(0..4)),
            case("A huge page can.")
                .then(mmap('I', 0..1024))
                .when(munmap(0..512)),
            case("Its protection could not be changed in 2.6.11.")
                .in_all_eras()
                .then(mmap('I', 0..512))
                .when(mprotect(0..512, Prot::READ)),
            case("A length is rounded up to huge pages since 3.10.")
                .in_all_eras()
                .when(mmap('I', 0..4)),
        ],
    );
}

#[test]
fn mseal_cases() {
    let sealed = |title| case(title).draw("[a a a a a a").then(mseal(2..4));
    golden(
        "mseal",
        vec![
            case("The middle: cut out, and it stays.")
                .draw("[a a a a a a")
                .when(mseal(2..4)),
            case("Over a hole: nothing is sealed.")
                .draw("[a a . .[a a")
                .when(mseal(0..6)),
            sealed("Not to be unmapped.").when(munmap(3..4)),
            sealed("Nor replaced.").when(mmap('G', 2..4)),
            sealed("Nor protected; what came before it is.").when(mprotect(0..6, Prot::READ)),
            sealed("Nor moved.").when(relocate(2..4, 2, 8, MremapFlags::FIXED)),
        ],
    );
}

#[test]
fn userfaultfd_cases() {
    let watched = |title| {
        case(title)
            .since(Rules::V4_12)
            .draw("[a a a a a a")
            .then(watch(0..6))
    };
    golden(
        "userfaultfd",
        vec![
            case("The middle is watched: cut out.")
                .draw("[a a a a a a")
                .when(watch(2..4)),
            watched("It is told of what is unmapped.").when(munmap(2..4)),
            watched("It is told, and then there is no room for the split: until 4.19.")
                .room_for(0)
                .when(munmap(2..4)),
            watched("It is told of a move.").when(relocate(0..6, 6, 8, MremapFlags::FIXED)),
            watched("A move over what is watched: told since 4.13.")
                .draw(". . . . . . . .[G G")
                .when(relocate(8..10, 2, 0, MremapFlags::FIXED)),
            watched("It is told of pages that are dropped.").when(madvise(2..4, Advice::DONTNEED)),
            watched("Up to a seal behind the first area: it is told, of the whole range.")
                .since(Rules::V6_12)
                .then(mseal(4..6))
                .when(munmap(2..6)),
        ],
    );
}

#[test]
fn mbind_cases() {
    golden(
        "mbind",
        vec![
            case(
                "The middle gets its pages from one node alone: areas of two policies never merge.",
            )
            .in_all_eras()
            .draw("[a a a a a a")
            .when(mbind(2..4, mode::BIND)),
            case("The default again. Areas came only ever to be more until 2.6.34.")
                .in_all_eras()
                .draw("[a a a a a a")
                .then(mbind(2..4, mode::BIND))
                .when(mbind(2..4, mode::DEFAULT)),
            case("What is mapped beside it has no policy of its own.")
                .in_all_eras()
                .draw("[a a a a")
                .then(mbind(0..4, mode::BIND))
                .when(mmap('a', 4..6)),
            case("Over a hole.")
                .in_all_eras()
                .draw("[a a a . .[a a")
                .when(mbind(1..6, mode::BIND)),
            case("The default over a hole. Since 2.6.16.")
                .in_all_eras()
                .draw("[a a a . .[a a")
                .when(mbind(1..6, mode::DEFAULT)),
            case("From a hole at the begin. The default may, but not from 2.6.34 to 5.4.")
                .in_all_eras()
                .draw(". .[a a a a")
                .when(mbind(0..4, mode::DEFAULT)),
            case("A policy of a later kernel.")
                .in_all_eras()
                .draw("[a a a a")
                .when(mbind(0..2, mode::PREFERRED_MANY)),
        ],
    );
}

#[test]
fn name_cases() {
    let named = |title| {
        case(title)
            .since(Rules::V6_1)
            .limits(|limits| limits.anon_vma_name = true)
    };
    golden(
        "name",
        vec![
            named("The middle gets a name.")
                .in_all_eras()
                .draw("[a a a a a a")
                .when(name(2..4, 1)),
            named("And loses it.")
                .draw("[a a a a a a")
                .then(name(2..4, 1))
                .when(name(2..4, 0)),
            named("The same name beside it.")
                .draw("[a a a a a a")
                .then(name(0..3, 1))
                .when(name(3..6, 1)),
            named("Another name.")
                .draw("[a a a a a a")
                .then(name(0..3, 1))
                .when(name(3..6, 2)),
            named("Shared memory has one since 6.2.")
                .draw("[s s s s")
                .when(name(0..2, 1)),
            named("Memory of a file has none; what comes before it got its own.")
                .draw("[a a[G G")
                .when(name(0..4, 1)),
            named("The name goes where the memory goes.")
                .draw("[a a a a")
                .then(name(0..4, 1))
                .when(relocate(1..3, 2, 8, MremapFlags::FIXED)),
        ],
    );
}

#[test]
fn shm_cases() {
    let none = ShmFlags::empty();
    golden(
        "shm",
        vec![
            case("A segment is attached.")
                .in_all_eras()
                .draw("[a a")
                .when(shmat(4, none)),
            case("Where something is.")
                .draw("[a a a a a a")
                .when(shmat(4, none)),
            case("In the place of something.")
                .draw("[a a a a a a")
                .when(shmat(4, ShmFlags::REMAP)),
            case("Twice, side by side: each time it is another file.")
                .then(shmat(0, none))
                .when(shmat(4, none)),
            case(
                "Detached in all its pieces, from where it was attached on, whatever lies between.",
            )
            .in_all_eras()
            .then(shmat(0, none))
            .then(munmap(1..2))
            .then(mmap('a', 1..2))
            .when(shmdt(0)),
            case("By the address of another piece.")
                .then(shmat(0, none))
                .then(munmap(0..1))
                .when(shmdt(1)),
            case("The first piece is gone, and the rest is found.")
                .then(shmat(0, none))
                .then(munmap(0..1))
                .when(shmdt(0)),
            case("What was attached, and is no segment.")
                .draw("[a a")
                .when(shmdt(0)),
        ],
    );
}

#[test]
fn guard_cases() {
    let guarded = |title| case(title).since(Rules::V6_18);
    golden(
        "guard",
        vec![
            guarded(
                "Pages whose touch is refused: the area is not even cut, and their contents go.",
            )
            .in_all_eras()
            .draw("[a a a a a a")
            .written(&[3])
            .when(madvise(2..4, Advice::GUARD_INSTALL)),
            guarded("A touch of them.")
                .draw("[a a a a a a")
                .then(madvise(2..4, Advice::GUARD_INSTALL))
                .when(touch(3)),
            guarded("Beside them.")
                .draw("[a a a a a a")
                .then(madvise(2..4, Advice::GUARD_INSTALL))
                .when(touch(4)),
            guarded("Removed again.")
                .draw("[a a a a a a")
                .then(madvise(2..4, Advice::GUARD_INSTALL))
                .then(madvise(2..4, Advice::GUARD_REMOVE))
                .when(touch(3)),
            guarded("They keep no areas apart: the flag is passed on.")
                .draw("[a a a . .[a a")
                .then(madvise(0..2, Advice::GUARD_INSTALL))
                .when(mmap('a', 3..5)),
            guarded("Not where pages are locked.")
                .draw("[a a a a")
                .then(mlock(0..4))
                .when(madvise(1..2, Advice::GUARD_INSTALL)),
        ],
    );
}

#[test]
fn remap_file_pages_cases() {
    golden(
        "remap_file_pages",
        vec![
            case("Other pages of the file. Before 4.0 it stayed one area.")
                .in_all_eras()
                .draw("[G G G G G G")
                .when(remap_file_pages(2..4, 10)),
            case("The same pages back.")
                .since(Rules::V4_9)
                .draw("[G G G G G G")
                .then(remap_file_pages(2..4, 10))
                .when(remap_file_pages(2..4, 2)),
            case("Of memory that is not shared.")
                .in_all_eras()
                .draw("[g g g g")
                .when(remap_file_pages(1..2, 3)),
            case("Over two areas of two files.")
                .in_all_eras()
                .draw("[G G G[F F F")
                .when(remap_file_pages(2..4, 3)),
        ],
    );
}

#[test]
fn protection_cases() {
    let exec = Prot::READ | Prot::EXEC;
    let mdwe = |bits| Op::SetMdwe { bits };
    let denied = |title| case(title).since(Rules::V6_12);
    let pkey = |pkey| Op::PkeyMprotect {
        addr: at(1),
        len: 2 * PAGE_SIZE,
        prot: Prot::READ,
        pkey,
    };
    let keyed = |title| {
        case(title)
            .since(Rules::V4_9)
            .limits(|limits| limits.pkeys = true)
    };
    let allocate = |rights| Op::PkeyAlloc { flags: 0, rights };
    golden(
        "protection",
        vec![
            denied("No memory that becomes executable: PR_SET_MDWE. Since 6.3.")
                .in_all_eras()
                .draw("[a a a a")
                .when(mdwe(MdweFlags::REFUSE_EXEC_GAIN)),
            denied("What was not executable does not become so.")
                .draw("[a a a a")
                .then(mprotect(0..4, Prot::READ))
                .then(mdwe(MdweFlags::REFUSE_EXEC_GAIN))
                .when(mprotect(1..3, exec)),
            denied("What was may lose it, and has lost it for good.")
                .draw("[a a a a")
                .then(mprotect(0..4, exec))
                .then(mdwe(MdweFlags::REFUSE_EXEC_GAIN))
                .then(mprotect(1..3, Prot::READ))
                .when(mprotect(1..3, exec)),
            denied("A child that inherits nothing may again.")
                .draw("[a a a a")
                .then(mdwe(MdweFlags::REFUSE_EXEC_GAIN | MdweFlags::NO_INHERIT))
                .then(Op::Fork)
                .when(mprotect(1..3, exec)),
            case("No key: as mprotect. Since 4.9.")
                .in_all_eras()
                .draw("[a a a a")
                .when(pkey(-1)),
            case("The first key, where the processor has keys.")
                .since(Rules::V4_9)
                .limits(|limits| limits.pkeys = true)
                .draw("[a a a a")
                .when(pkey(0)),
            keyed("A key that nobody allocated.")
                .draw("[a a a a")
                .when(pkey(1)),
            keyed("One that somebody did: areas with different keys are different ones.")
                .draw("[a a a a")
                .then(mprotect(0..4, Prot::READ))
                .then(allocate(0))
                .when(pkey(1)),
            keyed("mprotect keeps it.")
                .draw("[a a a a")
                .then(allocate(0))
                .then(pkey(1))
                .when(mprotect(0..4, Prot::READ)),
            keyed("Memory that is only executable has a key of its own, the lowest that is free.")
                .draw("[a a a a")
                .then(allocate(0))
                .then(mprotect(1..3, Prot::EXEC))
                .when(touch(1)),
            keyed("What it had no rights to kept that key until 4.16.")
                .draw("[a a a a")
                .then(mprotect(1..3, Prot::EXEC))
                .then(mprotect(1..3, Prot::empty()))
                .when(mprotect(0..4, RW)),
            keyed("A forked child has the keys of its parent. Since 5.0.")
                .draw("[a a a a")
                .then(allocate(0))
                .then(Op::Fork)
                .when(pkey(1)),
            keyed("A key by which the thread may do nothing: mlock finds no page.")
                .draw("[a a a a")
                .then(allocate(1))
                .then(pkey(1))
                .when(mlock(0..4)),
        ],
    );
}

#[test]
fn memfd_cases() {
    let reading = |letter, pages| {
        Op::Mmap(Mmap {
            prot: Prot::READ,
            ..map(letter, pages)
        })
    };
    let sealed = |title| case(title).in_all_eras().draw("[a a a a a a");
    golden(
        "memfd",
        vec![
            sealed("A file that is sealed against writing, shared, to be written to: before 5.10, what was there is gone.")
                .when(mmap('P', 2..4)),
            sealed("For reading. Since 6.7, and in stable versions of 5.10 and 6.1.")
                .when(reading('P', 2..4)),
            case("Which never becomes writable.")
                .since(Rules::V5_10)
                .then(reading('P', 0..4))
                .when(mprotect(1..3, RW)),
            sealed("Sealed against future writing, of which there is no other. Since 5.1.")
                .when(mmap('Q', 2..4)),
            sealed("For reading.").when(reading('Q', 2..4)),
            case("What was mapped for reading merges: the flags are the same.")
                .since(Rules::V5_10)
                .then(reading('P', 0..2))
                .then(reading('P', 4..6))
                .when(reading('P', 2..4)),
            case("Privately it is a file like any other.")
                .in_all_eras()
                .draw("[p p")
                .when(mmap('p', 2..4)),
        ],
    );
}

#[test]
fn map_flag_cases() {
    let low = |limits: &mut Limits| {
        limits.mmap_base = at(16);
        limits.mmap_legacy_base = at(0);
    };
    let droppable = |pages: Range<u64>, more| {
        let args = map('a', pages);
        Op::Mmap(Mmap {
            flags: args.flags.without(MapFlags::TYPE) | MapFlags::DROPPABLE | more,
            ..args
        })
    };
    golden(
        "map_flags",
        vec![
            case("MAP_DROPPABLE: neither locked nor given to children with its contents. Since 6.11.")
                .in_all_eras()
                .draw("[a a")
                .when(droppable(2..4, MapFlags::empty())),
            case("Locked as it is mapped.")
                .since(Rules::V6_12)
                .when(droppable(0..2, MapFlags::LOCKED)),
            case("Where all that comes is locked.")
                .since(Rules::V6_12)
                .then(mlockall(MlockallFlags::FUTURE))
                .when(droppable(0..2, MapFlags::empty())),
            case("MAP_32BIT: upwards from a quarter of what 32 bits can say.")
                .in_all_eras()
                .limits(low)
                .when(anywhere('a', 4, MapFlags::BIT32)),
            case("MAP_STACK: no huge pages, since 6.7.")
                .in_all_eras()
                .draw("[a a")
                .when(with(mmap('a', 2..4), MapFlags::STACK)),
            case("MAP_SYNC of memory without a file is remembered, and keeps areas apart.")
                .in_all_eras()
                .draw("[a a")
                .when(with(mmap('a', 2..4), MapFlags::SYNC)),
            case("MAP_SHARED_VALIDATE with a flag that means nothing.")
                .in_all_eras()
                .when(with(mmap('G', 0..2), MapFlags(MapFlags::SHARED_VALIDATE.0 | 0x80_0000))),
        ],
    );
}

#[test]
fn allocation_cases() {
    let area = |nth| starve(Allocation::Area, nth);
    golden(
        "allocation",
        vec![
            case("No memory for the second piece of a hole: the first cut stays.")
                .in_all_eras()
                .draw("[F F F F F F F F")
                .then(area(2))
                .when(munmap(2..6)),
            case("None in the tree for what is gathered.")
                .in_all_eras()
                .draw("[F F F F F F F F")
                .then(starve(Allocation::Tree, 3))
                .when(munmap(2..6)),
            case("None to merge: an area of its own.")
                .in_all_eras()
                .draw("[a a . .[a a")
                .then(starve(Allocation::Tree, 1))
                .when(mmap('a', 2..4)),
            case("None to merge what is there already: an error since 6.14.")
                .in_all_eras()
                .draw("[a a a a")
                .then(mprotect(2..4, Prot::READ))
                .then(starve(Allocation::Tree, 1))
                .when(mprotect(2..4, RW)),
            case("None for the copy: nothing has moved, but what was in the way is gone.")
                .in_all_eras()
                .draw("[F F F F . . . .[a a a a")
                .then(area(2))
                .when(relocate(1..3, 2, 9, MremapFlags::FIXED)),
            case("None for the anon_vma of a page that is written to.")
                .in_all_eras()
                .draw("[a a")
                .then(starve(Allocation::AnonVma, 1))
                .when(touch(0)),
            case("None for the second area of a child: it never lives, and its areas are closed.")
                .in_all_eras()
                .draw("[F F .[H H")
                .then(area(2))
                .when(Op::Fork),
        ],
    );
}

#[test]
fn steer_cases() {
    let steered = |title| case(title).draw("[F F F F F F F F");
    golden(
        "steer",
        vec![
            steered("A driver that refuses the first cut.")
                .in_all_eras()
                .then(steer(Asked::MaySplit))
                .when(munmap(2..6)),
            steered("The second one: the first stays.")
                .in_all_eras()
                .then(Op::Steer {
                    file: Backing::File(FileId(0)),
                    hook: Asked::MaySplit,
                    nth: 2,
                    error: Errno::EIO,
                })
                .when(munmap(2..6)),
            steered("One that refuses to be mapped leaves a hole.")
                .in_all_eras()
                .draw("[a a a a")
                .then(steer(Asked::Mmap))
                .when(mmap('F', 1..3)),
            steered("One that sends a move back. Since 4.3.")
                .in_all_eras()
                .then(steer(Asked::Mremap))
                .when(relocate(2..4, 2, 10, MremapFlags::FIXED)),
            steered("One that refuses another protection. Since 5.11.")
                .in_all_eras()
                .then(steer(Asked::Mprotect))
                .when(mprotect(2..4, Prot::READ)),
            steered("What another file is told is not for this one.")
                .then(steer(Asked::Mmap))
                .when(mmap('G', 8..10)),
        ],
    );
}
