// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Each container against the plain one: the same answers, whatever is put in and taken out.

use std::fmt::Debug;
use std::num::NonZeroU8;

use proptest::prelude::*;
use vmalab_model::limits::Overcommit;
use vmalab_model::mempolicy::mode;
use vmalab_model::{
    AddressSpace, Advice, Allocation, Asked, BTree, Backing, Break, Container, Errno, File, FileId,
    Gap, Hook, Limits, MapFlags, MdweFlags, MlockFlags, MlockallFlags, Mmap, MremapFlags, Name,
    NewName, Object, Op, Outcome, PAGE_SIZE, Prot, RbList, Rules, ShmFlags, SortedVec, VmFlags,
    Vma,
};

/// Pages in the world of these tests: enough for leaves to overflow, few enough to meet edges.
const PAGES: u64 = 4000;

fn area(start: u64, end: u64) -> Vma {
    let bytes = start * PAGE_SIZE..end * PAGE_SIZE;
    Vma::new(bytes, start, VmFlags::READ, Object::Anon)
}

#[derive(Clone, Debug)]
enum Act {
    /// Fills what is free of the range with areas of so many pages, with a page between them or not.
    Fill(u64, u64, u64, bool),
    /// Takes out what starts in the range.
    Remove(u64, u64),
    /// The area found there ends or begins somewhere else, as far as there is room.
    Move(u64, i64, bool),
    /// The area found there is cut in two.
    Cut(u64),
    /// What starts in the range becomes one area, which may take a page more on either side.
    Join(u64, u64, bool),
    /// Looks for gaps of so many pages.
    Gaps(u64, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let page = 0..PAGES;
    prop_oneof![
        4 => (page.clone(), 1..200_u64, 1..6_u64, any::<bool>())
            .prop_map(|(from, len, size, apart)| Act::Fill(from, len, size, apart)),
        2 => (page.clone(), prop_oneof![1..4_u64, 1..400_u64])
            .prop_map(|(from, len)| Act::Remove(from, len)),
        3 => (page.clone(), -4..5_i64, any::<bool>())
            .prop_map(|(at, by, end)| Act::Move(at, by, end)),
        4 => page.clone().prop_map(Act::Cut),
        2 => (page.clone(), prop_oneof![1..9_u64, 1..400_u64], any::<bool>())
            .prop_map(|(from, len, more)| Act::Join(from, len, more)),
        2 => (page, 1..50_u64).prop_map(|(at, len)| Act::Gaps(at, len)),
    ]
}

fn perform<C: Container>(areas: &mut C, act: &Act) {
    let bytes = |page: u64| page * PAGE_SIZE;
    match *act {
        Act::Fill(from, len, size, apart) => {
            let mut at = from;
            while at < from + len {
                let free_until = areas.find(bytes(at)).map_or(u64::MAX, |vma| vma.start);
                if bytes(at + size) <= free_until {
                    areas.reserve(bytes(at)).expect("there is memory");
                    areas.insert(area(at, at + size));
                }
                at += size + u64::from(apart);
            }
        }
        Act::Remove(from, len) => {
            let range = bytes(from)..bytes(from + len);
            let there = areas.iter_from(range.start).copied();
            let there = there.filter(|vma| vma.start >= range.start);
            let there: Vec<Vma> = there.take_while(|vma| vma.start < range.end).collect();
            let mut gone = Vec::new();
            areas.remove_range(range, |vma| gone.push(*vma));
            assert_eq!(gone, there);
        }
        Act::Move(at, by, end) => {
            let Some(&old) = areas.find(bytes(at)) else {
                return;
            };
            let mut new = old;
            if end {
                let limit = areas.find(old.end).map_or(u64::MAX, |vma| vma.start);
                new.end = old.end.saturating_add_signed(by * PAGE_SIZE as i64);
                new.end = new.end.clamp(old.start + PAGE_SIZE, limit);
            } else {
                let limit = areas.prev(old.start).map_or(0, |vma| vma.end);
                new.start = old.start.saturating_add_signed(by * PAGE_SIZE as i64);
                new.start = new.start.clamp(limit, old.end - PAGE_SIZE);
            }
            areas.replace(old.start, new);
        }
        Act::Cut(at) => {
            let Some(&whole) = areas.find(bytes(at)) else {
                return;
            };
            let middle = whole.start + (whole.end - whole.start) / PAGE_SIZE / 2 * PAGE_SIZE;
            if middle > whole.start {
                areas.reserve(whole.start).expect("there is memory");
                areas.split(whole.start, middle, whole.pgoff_at(middle));
            }
        }
        Act::Join(from, len, more) => {
            let starts = |vma: &&Vma| vma.start >= bytes(from);
            let mut those = areas.iter_from(bytes(from)).filter(starts);
            let Some(&first) = those.next().filter(|vma| vma.start < bytes(from + len)) else {
                return;
            };
            let last = those.take_while(|vma| vma.start < bytes(from + len)).last();
            let mut one = Vma {
                end: last.unwrap_or(&first).end,
                ..first
            };
            if more {
                let below = areas.prev(one.start).map_or(0, |vma| vma.end);
                let above = areas.find(one.end).map_or(u64::MAX, |vma| vma.start);
                one.start = one.start.saturating_sub(PAGE_SIZE).max(below);
                one.end = (one.end + PAGE_SIZE).min(above);
            }
            areas.join(one);
        }
        Act::Gaps(..) => {}
    }
}

/// All answers that a container gives around an address.
fn compare<C: Container + Debug>(areas: &C, plain: &SortedVec, at: u64, len: u64) {
    assert_eq!(areas.len(), plain.len());
    assert_eq!(areas.is_empty(), plain.is_empty());
    assert_eq!(areas.find(at), plain.find(at), "find({at:#x})");
    assert_eq!(areas.prev(at), plain.prev(at), "prev({at:#x})");
    assert!(areas.iter_from(at).eq(plain.iter_from(at)), "from {at:#x}");
    assert!(
        areas.iter_from(at).rev().eq(plain.iter_from(at).rev()),
        "from {at:#x}, backwards"
    );
    assert!(
        areas.iter_below(at).eq(plain.iter_below(at)),
        "below {at:#x}"
    );
    let collect = |gaps: &mut dyn Iterator<Item = Gap<'_>>| -> Vec<(u64, u64)> {
        gaps.map(|gap| (gap.start(), gap.end())).collect()
    };
    assert_eq!(
        collect(&mut areas.gaps_from(at, len)),
        collect(&mut plain.gaps_from(at, len)),
        "gaps of {len:#x} from {at:#x}"
    );
    assert_eq!(
        collect(&mut areas.gaps_below(at, len)),
        collect(&mut plain.gaps_below(at, len)),
        "gaps of {len:#x} below {at:#x}"
    );
}

fn agrees<C: Container + Debug>(acts: &[Act]) {
    let (mut areas, mut plain) = (C::default(), SortedVec::default());
    for act in acts {
        perform(&mut areas, act);
        perform(&mut plain, act);
        let (Act::Fill(at, ..)
        | Act::Remove(at, _)
        | Act::Move(at, ..)
        | Act::Cut(at)
        | Act::Join(at, ..)
        | Act::Gaps(at, _)) = *act;
        let len = if let Act::Gaps(_, len) = *act { len } else { 1 };
        for at in [at * PAGE_SIZE, at * PAGE_SIZE + 1] {
            compare(&areas, &plain, at, len * PAGE_SIZE);
        }
    }
    for (at, len) in [
        (0, 1),
        (0, 7 * PAGE_SIZE),
        (u64::MAX, 1),
        (u64::MAX, 7 * PAGE_SIZE),
    ] {
        compare(&areas, &plain, at, len);
    }
    for act in [Act::Remove(1, PAGES), Act::Remove(0, 2 * PAGES)] {
        perform(&mut areas, &act);
        perform(&mut plain, &act);
        compare(&areas, &plain, PAGES / 2 * PAGE_SIZE, 1);
    }
    assert!(areas.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn btree(acts in prop::collection::vec(act(), 1..60)) {
        agrees::<BTree>(&acts);
    }

    #[test]
    fn rb_list(acts in prop::collection::vec(act(), 1..60)) {
        agrees::<RbList>(&acts);
    }
}

/// Upwards, downwards, outwards: the orders in which programs map.
#[test]
fn built_in_order() {
    fn build<C: Container + Debug>(order: impl Iterator<Item = u64>) {
        let (mut areas, mut plain) = (C::default(), SortedVec::default());
        for at in order {
            areas.insert(area(2 * at, 2 * at + 1));
            plain.insert(area(2 * at, 2 * at + 1));
        }
        compare(&areas, &plain, 1000 * PAGE_SIZE, PAGE_SIZE);
        compare(&areas, &plain, u64::MAX, 2 * PAGE_SIZE);
    }
    for_each(|up, down, outwards| {
        build::<BTree>(up);
        build::<BTree>(down);
        build::<BTree>(outwards);
    });
    for_each(|up, down, outwards| {
        build::<RbList>(up);
        build::<RbList>(down);
        build::<RbList>(outwards);
    });

    fn for_each(
        what: impl Fn(
            std::ops::Range<u64>,
            std::iter::Rev<std::ops::Range<u64>>,
            std::vec::IntoIter<u64>,
        ),
    ) {
        let outwards: Vec<u64> = (0..700).flat_map(|n| [700 - n, 701 + n]).collect();
        what(0..1500, (0..1500).rev(), outwards.into_iter());
    }
}

/// Operations on a hundred pages, so that areas meet, and at addresses of the kernel's choice.
fn op() -> impl Strategy<Value = Op> {
    let base = 0x100_0000;
    let page = move |page: u64| base + page * PAGE_SIZE;
    let mmap = (0..100_u64, 1..20_u64, 0..4_u8, any::<bool>(), any::<bool>());
    prop_oneof![
        4 => mmap.prop_map(move |(from, len, kind, write, fixed)| {
            let kinds = [MapFlags::PRIVATE, MapFlags::SHARED];
            let mut flags = kinds[usize::from(kind % 2)];
            if kind < 2 {
                flags |= MapFlags::ANONYMOUS;
            }
            if fixed {
                flags |= MapFlags::FIXED;
            } else if kind == 0 {
                flags |= MapFlags::GROWSDOWN;
            }
            Op::Mmap(Mmap {
                addr: if fixed { page(from) } else { 0 },
                len: len * PAGE_SIZE,
                prot: if write { Prot::READ | Prot::WRITE } else { Prot::READ },
                flags,
                backing: if kind < 2 { Backing::None } else { Backing::File(vmalab_model::FileId(0)) },
                offset: if kind < 2 { 0 } else { from * PAGE_SIZE },
            })
        }),
        3 => (0..100_u64, 1..20_u64).prop_map(move |(from, len)| Op::Munmap {
            addr: page(from),
            len: len * PAGE_SIZE,
        }),
        1 => (0..100_u64, any::<bool>()).prop_map(move |(at, write)| Op::Touch {
            addr: page(at),
            write,
        }),
    ]
}

/// All other calls, too, and what drivers and allocations can be told to do.
fn any_op() -> impl Strategy<Value = Op> {
    let range = (0..100_u64, 1..20_u64)
        .prop_map(|(from, len)| (0x100_0000 + from * PAGE_SIZE, len * PAGE_SIZE));
    let prots = [
        Prot::empty(),
        Prot::READ,
        Prot::READ | Prot::WRITE,
        Prot::READ | Prot::EXEC,
    ];
    let prot = prop::sample::select(prots.to_vec());
    let moves = [
        MremapFlags::empty(),
        MremapFlags::MAYMOVE,
        MremapFlags::MAYMOVE | MremapFlags::FIXED,
        MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
    ];
    let locks = [
        MlockFlags::empty(),
        MlockFlags::empty(),
        MlockFlags::ONFAULT,
    ];
    let current = MlockallFlags::CURRENT;
    let all = [
        current,
        current | MlockallFlags::FUTURE,
        MlockallFlags::FUTURE,
    ];
    let modes = [mode::DEFAULT, mode::BIND, mode::LOCAL, mode::PREFERRED_MANY];
    let names = [
        NewName::None,
        NewName::Invalid,
        NewName::Some(Name(NonZeroU8::MIN)),
    ];
    let attached = [ShmFlags::empty(), ShmFlags::REMAP, ShmFlags::RDONLY];
    let advice = prop::sample::select(Advice::ALL.to_vec());
    let refuses = (prop::sample::select(Asked::ALL.to_vec()), 0..4_u32);
    let fails = (prop::sample::select(Allocation::ALL.to_vec()), 0..4_u32);
    let areas = prop_oneof![
        2 => (range.clone(), prot.clone())
            .prop_map(|((addr, len), prot)| Op::Mprotect { addr, len, prot }),
        2 => (range.clone(), range.clone(), prop::sample::select(moves.to_vec())).prop_map(
            |((addr, old_len), (new_addr, new_len), flags)| {
                let same = flags.contains(MremapFlags::DONTUNMAP);
                let new_len = if same { old_len } else { new_len };
                Op::Mremap { addr, old_len, new_len, flags, new_addr }
            }
        ),
        2 => (range.clone(), advice)
            .prop_map(|((addr, len), advice)| Op::Madvise { addr, len, advice }),
        1 => range.clone().prop_map(|(addr, _)| Op::Brk { addr }),
        1 => (0..2_u64, 0..4_u64).prop_map(|(flags, rights)| Op::PkeyAlloc { flags, rights }),
        1 => (-1..4_i32).prop_map(|pkey| Op::PkeyFree { pkey }),
        1 => (range.clone(), prot, -1..4_i32)
            .prop_map(|((addr, len), prot, pkey)| Op::PkeyMprotect { addr, len, prot, pkey }),
        1 => (range.clone(), 0..100_u64).prop_map(|((addr, len), pgoff)| Op::RemapFilePages {
            addr,
            len,
            prot: Prot::empty(),
            pgoff,
            flags: MapFlags::empty(),
        }),
        1 => (range.clone(), prop::sample::select(names.to_vec()))
            .prop_map(|((addr, len), name)| Op::SetName { addr, len, name }),
        1 => (range.clone(), prop::sample::select(modes.to_vec()), 0..2_u64).prop_map(
            |((addr, len), mode, nodes)| Op::Mbind { addr, len, mode, nodes, flags: 0 }
        ),
        1 => (range.clone(), prop::sample::select(attached.to_vec()))
            .prop_map(|((addr, _), flags)| Op::Shmat { segment: SEGMENT, addr, flags }),
        1 => range.clone().prop_map(|(addr, _)| Op::Shmdt { addr }),
    ];
    let states = prop_oneof![
        4 => (range.clone(), prop::sample::select(locks.to_vec()))
            .prop_map(|((addr, len), flags)| Op::Mlock { addr, len, flags }),
        4 => range.clone().prop_map(|(addr, len)| Op::Munlock { addr, len }),
        1 => prop::sample::select(all.to_vec()).prop_map(|flags| Op::Mlockall { flags }),
        1 => Just(Op::Munlockall),
        1 => range.clone().prop_map(|(addr, len)| Op::Mseal { addr, len, flags: 0 }),
        1 => Just(Op::SetMdwe { bits: MdweFlags::REFUSE_EXEC_GAIN }),
        4 => range.clone().prop_map(|(addr, len)| Op::UffdRegister { addr, len }),
        4 => range.prop_map(|(addr, len)| Op::UffdUnregister { addr, len }),
        2 => Just(Op::Fork),
        4 => refuses.prop_map(|(hook, nth)| Op::Steer {
            file: Backing::File(DEVICE),
            hook,
            nth,
            error: Errno::EIO,
        }),
        2 => fails.prop_map(|(what, nth)| Op::FailAllocation { what, nth }),
    ];
    prop_oneof![
        8 => op(),
        8 => areas,
        5 => states,
    ]
}

/// Limits that are out of reach, and some that are not.
fn limits() -> impl Strategy<Value = Limits> {
    let all = Limits {
        anon_vma_name: true,
        pkeys: true,
        ..Limits::default()
    };
    let pages = |pages: u64| pages * PAGE_SIZE;
    prop::sample::select(vec![
        all,
        Limits {
            max_map_count: 12,
            ..all
        },
        Limits {
            cap_ipc_lock: false,
            cap_sys_rawio: false,
            memlock: pages(30),
            address_space: pages(150),
            data: pages(60),
            stack: pages(16),
            overcommit: Overcommit::Guess { total: 15 },
            pkeys: false,
            ..all
        },
    ])
}

/// The files of [`space`].
const DEVICE: FileId = FileId(0);
const SEGMENT: FileId = FileId(1);

fn space<C: Container>(rules: Rules, limits: Limits) -> AddressSpace<C> {
    let mut space = AddressSpace::new(rules, limits);
    assert_eq!(space.add_file(File::device(100)), DEVICE);
    assert_eq!(space.add_file(File::segment(6)), SEGMENT);
    let heap = 0x100_0000 + 50 * PAGE_SIZE;
    space.set_break(Break::empty(heap));
    space
}

/// Whichever allocation of an operation fails: no driver hears of an area that did not come to be, the
/// counters count what is there, and the invariants hold. That the operation fails, too, is so where an
/// area is missing.
fn starve<C: Container + Clone>(ops: &[Op], rules: Rules, limits: Limits) {
    let mut space = space::<C>(rules, limits);
    for op in ops {
        for what in Allocation::ALL {
            for nth in 1.. {
                if matches!(op, Op::FailAllocation { .. }) {
                    break;
                }
                let mut trial = space.clone();
                trial.fail_nth_allocation(what, nth);
                let before = trial.clone();
                let Outcome {
                    result,
                    hooks,
                    counters,
                    ..
                } = trial.apply(op);
                trial.check_invariants().unwrap();
                trial.check_merged(&before, op, result).unwrap();
                if trial.is_allocation_to_fail() {
                    break;
                }
                let strict = matches!(
                    op,
                    Op::Mmap(_) | Op::Munmap { .. } | Op::Mprotect { .. } | Op::Fork
                );
                if what == Allocation::Area && strict {
                    assert_eq!(result, Err(Errno::ENOMEM), "{op:?}");
                }
                // A merge that fails leaves a new area, which the driver maps; and a child's areas are
                // opened, while the parent's stay.
                let counted = !matches!(op, Op::Mmap(_) | Op::RemapFilePages { .. } | Op::Fork);
                if result.is_err() || counted {
                    let called = |hook| hooks.iter().filter(|call| call.hook == hook).count();
                    let mapped = |space: &AddressSpace<C>| {
                        let ours = |vma: &&Vma| vma.object == Object::File(DEVICE);
                        space.areas().filter(ours).count()
                    };
                    assert_eq!(
                        mapped(&space) + called(Hook::Open) - called(Hook::Close),
                        mapped(&trial),
                        "{what:?} {nth} {op:?}"
                    );
                }
                assert_eq!(counters.map_count as usize, trial.areas().count());
            }
        }
        space.apply(op);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// What is predicted does not depend on the container.
    #[test]
    fn operations_have_the_same_outcome(
        ops in prop::collection::vec(any_op(), 1..150),
        rules in prop::sample::select(Rules::all().to_vec()),
        limits in limits(),
    ) {
        let mut plain = space::<SortedVec>(rules, limits);
        let mut btree = space::<BTree>(rules, limits);
        let mut rb_list = space::<RbList>(rules, limits);
        for op in ops {
            let before = plain.clone();
            let expected = plain.apply(&op);
            prop_assert_eq!(&btree.apply(&op), &expected);
            prop_assert_eq!(&rb_list.apply(&op), &expected);
            plain.check_invariants().unwrap();
            plain.check_merged(&before, &op, expected.result).unwrap();
        }
    }

    /// Any allocation may fail: see [`starve`].
    #[test]
    fn any_allocation_may_fail(
        ops in prop::collection::vec(any_op(), 1..60),
        rules in prop::sample::select(Rules::all().to_vec()),
        limits in limits(),
    ) {
        starve::<BTree>(&ops, rules, limits);
        starve::<RbList>(&ops, rules, limits);
    }
}
