// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What holds for any sequence of operations.

#[allow(dead_code, reason = "what is drawn there is for other tests")]
#[path = "areas/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use proptest::prelude::*;
use vmalab_model::file::Kind;
use vmalab_model::gather::{Extent, Gather, Step, View};
use vmalab_model::limits::Overcommit;
use vmalab_model::mempolicy::mode;
use vmalab_model::{
    AddressSpace, Advice, Allocation, Asked, Backing, Break, Errno, File, FileId, Hook, Limits,
    MapFlags, MdweFlags, Mistake, MlockFlags, MlockallFlags, Mmap, MremapFlags, Name, NewName,
    Object, Op, PAGE_SIZE, Prot, Rules, ShmFlags, VmFlags, Vma,
};
use world::{BASE, World};

const PAGES: u64 = 12;

#[derive(Clone, Debug)]
enum Act {
    Map {
        letter: char,
        from: u64,
        len: u64,
        noreplace: bool,
        shift: u64,
    },
    Unmap {
        from: u64,
        len: u64,
    },
    Touch {
        page: u64,
        write: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let from = 0..PAGES;
    let len = 1..=5_u64;
    prop_oneof![
        4 => (
            prop::sample::select(vec!['a', 'r', 'd', 'f', 'x']),
            from.clone(),
            len.clone(),
            prop::bool::weighted(0.2),
            prop::sample::select(vec![0, 0, 0, 1]),
        )
            .prop_map(|(letter, from, len, noreplace, shift)| Act::Map {
                letter,
                from,
                len: len.min(PAGES - from),
                noreplace,
                shift,
            }),
        3 => (from.clone(), len).prop_map(|(from, len)| Act::Unmap {
            from,
            len: len.min(PAGES - from),
        }),
        1 => (from, any::<bool>()).prop_map(|(page, write)| Act::Touch { page, write }),
    ]
}

/// What is mapped at a page, as seen by somebody who knows of pages alone.
type Pages = BTreeMap<u64, (Object, u64, bool)>;

fn pages(space: &AddressSpace) -> Pages {
    let mut pages = Pages::new();
    for vma in space.areas() {
        for (index, addr) in (vma.start..vma.end).step_by(PAGE_SIZE as usize).enumerate() {
            let offset = match vma.object {
                Object::Anon => 0,
                _ => vma.pgoff + index as u64,
            };
            let write = vma.flags.contains(VmFlags::WRITE);
            pages.insert((addr - BASE) / PAGE_SIZE, (vma.object, offset, write));
        }
    }
    pages
}

/// How many areas more the device's driver should know of after the last operation.
fn device_calls(w: &World) -> i64 {
    let ours = w.calls.iter().filter(|call| call.file == w.device);
    ours.map(|call| match call.hook {
        Hook::Mmap | Hook::Open => 1,
        Hook::Close => -1,
        _ => 0,
    })
    .sum()
}

fn object(w: &World, letter: char) -> Object {
    match w.args(letter, 0, 1).backing {
        vmalab_model::Backing::File(id) => Object::File(id),
        vmalab_model::Backing::None => Object::Anon,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However areas are cut and merged, every page maps what was asked for last, a failed operation
    /// changes no page, the invariants hold, and a driver that counts `mmap`, `open` and `close` knows
    /// how many areas it has.
    #[test]
    fn pages_are_as_asked(
        acts in prop::collection::vec(act(), 1..60),
        max_map_count in prop::sample::select(vec![3, 5, 8, 65530]),
    ) {
        let limits = Limits { max_map_count, ..Limits::default() };
        let mut w = World::with(Rules::V7_2, limits, File::device(64));
        let mut expected = Pages::new();
        let mut live = 0;
        for act in acts {
            match act {
                Act::Map { letter, from, len, noreplace, shift } => {
                    let mut args = w.args(letter, from, from + len);
                    args.offset += shift * PAGE_SIZE;
                    if noreplace {
                        args.flags |= MapFlags::FIXED_NOREPLACE;
                    }
                    let occupied = (from..from + len).any(|page| expected.contains_key(&page));
                    let result = w.apply(&Op::Mmap(args));
                    if result.is_ok() {
                        prop_assert!(!(noreplace && occupied));
                        for page in from..from + len {
                            let object = object(&w, letter);
                            let offset = if object == Object::Anon { 0 } else { page + shift };
                            expected.insert(page, (object, offset, letter != 'r'));
                        }
                    }
                }
                Act::Unmap { from, len } => {
                    if w.unmap(from, from + len).is_ok() {
                        expected.retain(|page, _| !(from..from + len).contains(page));
                    }
                }
                Act::Touch { page, write } => {
                    let allowed = match expected.get(&page) {
                        Some(&(object, offset, writable)) => {
                            (writable || !write) && (object == Object::Anon || offset < 64)
                        }
                        None => false,
                    };
                    prop_assert_eq!(w.touch(page, write).is_ok(), allowed);
                }
            }
            prop_assert_eq!(&pages(&w.space), &expected);
            live += device_calls(&w);
            let device = Object::File(w.device);
            let areas = w.space.areas().filter(|vma| vma.object == device).count();
            prop_assert_eq!(live, areas as i64);
        }
    }

    /// One who only looks sees the steps that one who carries them out sees.
    #[test]
    fn a_dry_run_takes_the_same_steps(
        acts in prop::collection::vec(act(), 1..40),
        from in 0..PAGES,
        len in 1..=8_u64,
        room in 0..3_u64,
    ) {
        let mut w = World::new();
        for act in acts {
            if let Act::Map { letter, from, len, .. } = act {
                w.map(letter, from, from + len).unwrap();
            }
        }
        let (start, end) = (BASE + from * PAGE_SIZE, BASE + (from + len) * PAGE_SIZE);
        let mut dry = Plain(w.space.areas().copied().collect());
        let max = dry.map_count() + room;
        let seen = steps(&mut dry, start, end, max, false);
        let mut wet = Plain(w.space.areas().copied().collect());
        let done = steps(&mut wet, start, end, max, true);
        prop_assert_eq!(&seen, &done);

        // And it is what the model does with them.
        w.space.limits_mut().max_map_count = max;
        let refused = matches!(seen.last(), Some(Step::Refuse { .. }));
        prop_assert_eq!(w.unmap(from, from + len).is_err(), refused);
        if !refused {
            wet.0.retain(|vma| vma.end <= start || vma.start >= end);
        }
        let left: Vec<_> = w.space.areas().map(|vma| (vma.start, vma.end)).collect();
        let plain: Vec<_> = wet.0.iter().map(|vma| (vma.start, vma.end)).collect();
        prop_assert_eq!(left, plain);
    }
}

/// A number as a tester would choose it: near a page of the arena, or near an end of the range.
fn number() -> impl Strategy<Value = u64> {
    let near = prop::sample::select(vec![0, 1, PAGE_SIZE - 1, PAGE_SIZE]);
    let ends = prop::sample::select(vec![
        0,
        1 << 32,
        Limits::default().task_size,
        1 << 47,
        1 << 63,
        u64::MAX,
    ]);
    prop_oneof![
        8 => (0..PAGES).prop_map(|page| BASE + page * PAGE_SIZE),
        8 => (0..PAGES).prop_map(|pages| pages * PAGE_SIZE),
        2 => (ends, near.clone()).prop_map(|(end, near): (u64, u64)| end.wrapping_sub(near)),
        1 => (0..PAGES, near).prop_map(|(page, near)| BASE + page * PAGE_SIZE + near),
        1 => any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is called with whatever arguments, within whatever limits, nothing panics and the invariants
    /// hold; and not even a deliberate mistake makes it panic.
    #[test]
    fn any_arguments_are_answered(
        calls in prop::collection::vec(
            (0..20_u8, number(), number(), number(), number(), any::<u32>(), any::<u32>()),
            1..80,
        ),
        mistake in prop::option::of(prop::sample::select(Mistake::ALL.to_vec())),
        limits in limits(),
    ) {
        for &rules in Rules::all() {
            let rules = match mistake {
                Some(mistake) => rules.with_mistake(mistake),
                None => rules,
            };
            let mut space: AddressSpace = AddressSpace::new(rules, limits);
            let files = [
                File::device(8),
                File::regular(8),
                File::memfd(8),
                File::hugetlb(1024),
                File::segment(8),
                File { read: false, ..File::regular(8) },
                File { write: false, ..File::regular(8) },
                File { noexec: true, ..File::regular(8) },
                File { kind: Kind::Unmappable, ..File::device(8) },
                File::special(),
            ];
            for file in files {
                space.add_file(file);
            }
            let heap = BASE + PAGES / 2 * PAGE_SIZE;
            space.set_break(Break::empty(heap));
            for &call in &calls {
                let op = decode(call);
                let before = space.clone();
                let result = space.apply(&op).result;
                if mistake.is_none() {
                    prop_assert_eq!(space.check_invariants(), Ok(()));
                    prop_assert_eq!(space.check_merged(&before, &op, result), Ok(()));
                }
            }
        }
    }
}

/// Limits out of reach, and near ones.
fn limits() -> impl Strategy<Value = Limits> {
    let poor = Limits {
        stack: 1 << 20,
        memlock: 1 << 20,
        ..Limits::default()
    };
    prop::sample::select(vec![
        poor,
        Limits {
            anon_vma_name: true,
            pkeys: true,
            max_map_count: 8,
            ..poor
        },
        Limits {
            cap_ipc_lock: false,
            cap_sys_rawio: false,
            memlock: 5 * PAGE_SIZE,
            data: 9 * PAGE_SIZE,
            address_space: 20 * PAGE_SIZE,
            overcommit: Overcommit::Guess { total: 6 },
            mmap_min_addr: BASE,
            ..poor
        },
    ])
}

/// An operation of numbers.
fn decode((call, a, b, c, d, x, y): (u8, u64, u64, u64, u64, u32, u32)) -> Op {
    // Of the flags most calls have few.
    let few = x & y & (y >> 7);
    let file = Backing::File(FileId((y >> 8) as u16 % 11));
    match call {
        0..=2 => {
            let fixed = if x & 1 == 0 {
                MapFlags::FIXED
            } else {
                MapFlags::empty()
            };
            let kind = [MapFlags::SHARED, MapFlags::PRIVATE][(x >> 1) as usize % 2];
            Op::Mmap(Mmap {
                addr: a,
                len: b,
                prot: Prot(y & 7),
                flags: MapFlags(few) | fixed | kind,
                backing: file,
                offset: c,
            })
        }
        3 => Op::Munmap { addr: a, len: b },
        4 => Op::Touch {
            addr: a,
            write: x & 1 == 0,
        },
        5 => Op::Mprotect {
            addr: a,
            len: b,
            prot: Prot(y & 7 | few),
        },
        6 if x & 1 == 0 => Op::Mlock {
            addr: a,
            len: b,
            flags: MlockFlags(few),
        },
        6 => Op::Munlock { addr: a, len: b },
        7 => Op::Mremap {
            addr: a,
            old_len: b,
            new_len: c,
            flags: MremapFlags(x & 7),
            new_addr: d,
        },
        8 if x & 15 == 0 => Op::Fork,
        8 if x & 1 == 0 => Op::Madvise {
            addr: a,
            len: b,
            advice: Advice(x % 26),
        },
        8 => Op::Madvise {
            addr: a,
            len: b,
            advice: Advice::ALL[y as usize % Advice::ALL.len()],
        },
        9 if x & 1 == 0 => Op::UffdRegister { addr: a, len: b },
        9 => Op::UffdUnregister { addr: a, len: b },
        10 => Op::Brk { addr: a },
        11 => Op::RemapFilePages {
            addr: a,
            len: b,
            prot: Prot(few),
            pgoff: c / PAGE_SIZE,
            flags: MapFlags(few),
        },
        12 if x & 1 == 0 => Op::Mseal {
            addr: a,
            len: b,
            flags: u64::from(few & 1),
        },
        12 => Op::PkeyMprotect {
            addr: a,
            len: b,
            prot: Prot(y & 7),
            pkey: x as i32 % 3,
        },
        13 => Op::Mbind {
            addr: a,
            len: b,
            mode: (y % 8) | (few & (mode::STATIC_NODES | mode::RELATIVE_NODES)),
            nodes: u64::from(x & 3),
            flags: few & 15,
        },
        14 => Op::SetName {
            addr: a,
            len: b,
            name: match NonZeroU8::new(x as u8 & 3) {
                None => NewName::None,
                Some(number) if y & 3 != 0 => NewName::Some(Name(number)),
                Some(_) => NewName::Invalid,
            },
        },
        15 => Op::Shmat {
            segment: FileId(if x & 7 == 0 { y as u16 } else { 4 }),
            addr: a,
            flags: ShmFlags(x & 0o170_000),
        },
        16 => Op::Shmdt { addr: a },
        17 => Op::Steer {
            file,
            hook: Asked::ALL[x as usize % Asked::ALL.len()],
            nth: y & 3,
            error: Errno::EIO,
        },
        18 => Op::FailAllocation {
            what: Allocation::ALL[x as usize % Allocation::ALL.len()],
            nth: y & 7,
        },
        _ if x & 7 == 0 => Op::SetMdwe {
            bits: MdweFlags(u64::from(y & 3)),
        },
        _ if x & 1 == 0 => Op::Munlockall,
        _ => Op::Mlockall {
            flags: MlockallFlags(y & 7),
        },
    }
}

/// Areas in a list.
struct Plain(Vec<Vma>);

impl View for Plain {
    fn find(&self, addr: u64) -> Option<Extent> {
        let vma = self.0.iter().find(|vma| vma.end > addr)?;
        Some(Extent {
            start: vma.start,
            end: vma.end,
            sealed: vma.flags.contains(VmFlags::SEALED),
            locked: vma.flags.contains(VmFlags::LOCKED),
            watched: vma.flags.contains(VmFlags::UFFD_MISSING),
        })
    }

    fn map_count(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The steps of an unmapping; the splits are carried out if `doing`.
fn steps(areas: &mut Plain, start: u64, end: u64, max: u64, doing: bool) -> Vec<Step> {
    let mut gather = Gather::new(start, end, max);
    let mut steps = Vec::new();
    while let Some(step) = gather.next(areas) {
        steps.push(step);
        if let Step::Split { area, at, .. } = step {
            if doing {
                let index = areas.0.iter().position(|vma| vma.start == area).unwrap();
                let mut upper = areas.0[index];
                areas.0[index].end = at;
                upper.start = at;
                areas.0.insert(index + 1, upper);
            }
        }
    }
    steps
}
