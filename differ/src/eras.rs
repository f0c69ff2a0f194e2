// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`differences`]: what tells two eras apart, by random operations on both.
//!
//! The same operations run by the rules of both. Where the outcomes part, that field of [`Rules`] is looked
//! for that alone makes them the same again when it gets the other era's value: it explains the
//! difference. From then on the field has that value, so that others are seen behind it. What no field
//! explains is a difference that nobody has written down.

use std::collections::VecDeque;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vmalab_model::file::{Hooks, Kind, WriteSeal};
use vmalab_model::limits::Overcommit;
use vmalab_model::mempolicy::{mode, pages};
use vmalab_model::{
    AddressSpace, Advice, Allocation, Area, Backing, Break, Errno, Field, File, FileId, Limits,
    MapFlags, MlockFlags, Mmap, MremapFlags, Object, Op, Outcome, PAGE_SIZE, Prot, Rules, VmFlags,
};

use crate::compare::Comparer;
use crate::generate::Generator;
use crate::oracle::{Fields, Heap, NamedFile, Observation, Sees, World};
use crate::vmac;

/// Operations of one batch.
const BATCH: usize = 96;

/// A way in which two eras part.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The fields that together explain it: mostly one.
    pub fields: Vec<&'static Field>,
    /// The world it was seen in.
    pub world: World,
    /// Few operations that show it in the last of them.
    pub ops: Vec<Op>,
    /// In what their outcomes differ there.
    pub what: String,
}

/// What was found of two eras.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The differences that are explained, in the order in which they were found.
    pub explained: Vec<Difference>,
    /// One that no field explains, if there is any.
    pub unexplained: Option<Difference>,
    /// The fields that differ and never showed.
    pub silent: Vec<&'static Field>,
}

/// Looks for all ways in which the two eras part, in so many batches.
pub fn differences(old: &Rules, new: &Rules, seed: u64, batches: u64) -> Found {
    let mut found = Found::default();
    let worlds = worlds_of_all_kinds();
    let mut mixed = *new;
    let mut later = VecDeque::new();
    for batch in 0..batches {
        let world = &worlds[(batch % worlds.len() as u64) as usize];
        // Behind the first difference of a batch there may be another one.
        loop {
            let ops = operations(world, &mixed, seed, batch);
            let Some((ops, what)) = part(world, old, &mixed, &ops) else {
                break;
            };
            let ops = shorten(world, old, &mixed, ops);
            let Some(field) = alone(world, old, &mixed, &ops) else {
                later.push_back((world, ops));
                break;
            };
            field.copy(&mut mixed, old);
            found.explained.push(Difference {
                fields: vec![field],
                world: world.clone(),
                ops,
                what,
            });
        }
    }
    // What took several fields may be explained by one, now that others are out of the way.
    while let Some((world, ops)) = later.pop_front() {
        let Some((ops, what)) = part(world, old, &mixed, &ops) else {
            continue;
        };
        let fields = together(world, old, &mixed, &ops);
        let difference = Difference {
            world: world.clone(),
            ops,
            what,
            fields: fields.clone().unwrap_or_default(),
        };
        let Some(fields) = fields else {
            found.unexplained = Some(difference);
            break;
        };
        for field in &fields {
            field.copy(&mut mixed, old);
        }
        found.explained.push(difference);
    }
    // What a later field goes by alone is hidden once an earlier one is as it was: the new rules with that
    // one field of the old ones.
    let rare = rare(&worlds[0]);
    for field in old.differences(&mixed) {
        let random = (0..batches).map(|batch| {
            let world = &worlds[(batch % worlds.len() as u64) as usize];
            (world.clone(), operations(world, new, seed, batch))
        });
        let mut all = rare.iter().cloned().chain(random);
        match all.find_map(|(world, ops)| on_its_own(&world, old, new, field, &ops)) {
            Some(difference) => found.explained.push(difference),
            None => found.silent.push(field),
        }
    }
    found
}

/// In what the new rules part from themselves with that field of the old ones.
fn on_its_own(
    world: &World,
    old: &Rules,
    new: &Rules,
    field: &'static Field,
    ops: &[Op],
) -> Option<Difference> {
    let mut trial = *new;
    field.copy(&mut trial, old);
    let (ops, what) = part(world, &trial, new, ops)?;
    Some(Difference {
        fields: vec![field],
        world: world.clone(),
        ops: shorten(world, &trial, new, ops),
        what,
    })
}

/// What random operations hardly come to, as far as eras differ in it.
fn rare(plain: &World) -> Vec<(World, Vec<Op>)> {
    let page = |n: u64| plain.arena.start + n * PAGE_SIZE;
    let private = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
    let map = |addr, pages, flags, backing| {
        Op::Mmap(Mmap {
            addr,
            len: pages * PAGE_SIZE,
            prot: Prot::READ | Prot::WRITE,
            flags,
            backing,
            offset: 0,
        })
    };
    let fixed = |addr, pages| map(addr, pages, private | MapFlags::FIXED, Backing::None);
    let anywhere = |pages| map(0, pages, private, Backing::None);

    // A file that shall be a stack, where something is already.
    let file = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::GROWSDOWN;
    let stack_of_file = vec![
        fixed(page(0), 1),
        map(page(0), 1, file, Backing::File(FileId(0))),
    ];
    // A heap right above other memory.
    let heap = plain.arena.end;
    let beside_heap = World {
        heap: Some(Heap {
            start: Break::empty(heap),
            window: heap..heap + 64 * PAGE_SIZE,
        }),
        ..plain.clone()
    };
    let up_to_heap = vec![
        fixed(heap - PAGE_SIZE, 1),
        Op::Brk {
            addr: heap + PAGE_SIZE,
        },
    ];
    // An area in the guard gap of a stack, below room that is too small for what is wanted with the gap.
    let stack = plain.limits.mmap_base - 4 * PAGE_SIZE;
    let in_guard_gap = vec![
        map(
            stack,
            1,
            private | MapFlags::FIXED | MapFlags::GROWSDOWN,
            Backing::None,
        ),
        fixed(stack - 101 * PAGE_SIZE, 1),
        anywhere(50),
    ];
    // Huge pages, out of step.
    let huge = vec![anywhere(1), anywhere(1024)];
    // Memory of huge pages, near an address and below 2 GiB.
    let huge_page = |addr, flags| {
        let flags = private | MapFlags::HUGETLB | MapFlags::NORESERVE | flags;
        vec![map(addr, 512, flags, Backing::None)]
    };
    // The newest policies.
    let policies = (0..=mode::WEIGHTED_INTERLEAVE).map(|mode| {
        let bind = Op::Mbind {
            addr: page(0),
            len: PAGE_SIZE,
            mode,
            nodes: 1,
            flags: 0,
        };
        (plain.clone(), vec![fixed(page(0), 1), bind])
    });
    // A move that shrinks by more than may be promised at once.
    let frugal = World {
        limits: Limits {
            overcommit: Overcommit::Guess { total: 3 },
            ..plain.limits
        },
        ..plain.clone()
    };
    let shrunk = vec![
        fixed(page(0), 3),
        fixed(page(3), 3),
        fixed(page(6), 3),
        Op::Mremap {
            addr: page(0),
            old_len: 9 * PAGE_SIZE,
            new_len: PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: page(16),
        },
    ];
    let file_of = |file: File| World {
        files: vec![NamedFile {
            name: "file".into(),
            file,
        }],
        ..plain.clone()
    };
    let of_file = |pages: std::ops::Range<u64>, prot, offset| {
        Op::Mmap(Mmap {
            addr: page(pages.start),
            len: (pages.end - pages.start) * PAGE_SIZE,
            prot,
            flags: MapFlags::SHARED | MapFlags::FIXED,
            backing: Backing::File(FileId(0)),
            offset,
        })
    };
    let beside = || {
        let both = Prot::READ | Prot::WRITE;
        vec![of_file(0..1, both, 0), of_file(1..2, both, PAGE_SIZE)]
    };
    let driver = |sets| {
        file_of(File {
            sets,
            hooks: Hooks {
                close: false,
                ..Hooks::ALL
            },
            ..File::device(64)
        })
    };
    let unmappable = file_of(File {
        kind: Kind::Unmappable,
        ..File::regular(8)
    });
    let noexec = file_of(File {
        noexec: true,
        ..File::regular(8)
    });
    let read_only = file_of(File {
        write: false,
        ..File::memfd(8)
    });
    let sealed = |write_seal| file_of(File::sealed_memfd(8, write_seal));
    // Where something is that is to be replaced.
    let shared_over = |prot| vec![fixed(page(0), 1), of_file(0..1, prot, 0)];
    // Where there are protection keys.
    let keyed = World {
        limits: Limits {
            pkeys: true,
            ..plain.limits
        },
        ..plain.clone()
    };
    let execute_only = Op::Mmap(Mmap {
        prot: Prot::EXEC,
        ..Mmap::anonymous(page(0), PAGE_SIZE)
    });
    let no_rights = Op::Mprotect {
        addr: page(0),
        len: PAGE_SIZE,
        prot: Prot::empty(),
    };
    let key_zero = Op::PkeyMprotect {
        addr: page(0),
        len: PAGE_SIZE,
        prot: Prot::READ,
        pkey: 0,
    };
    let allocate = Op::PkeyAlloc {
        flags: 0,
        rights: 0,
    };
    // A heap that a gap divides from the program's data.
    let with_gap = World {
        heap: Some(Heap {
            start: Break {
                start: heap,
                end: heap + 2 * PAGE_SIZE,
                program_data: PAGE_SIZE,
                data_start: heap - 6 * PAGE_SIZE,
                code_end: heap - 6 * PAGE_SIZE,
            },
            window: heap..heap + 64 * PAGE_SIZE,
        }),
        limits: Limits {
            data: 7 * PAGE_SIZE,
            ..plain.limits
        },
        ..plain.clone()
    };
    let tight = World {
        limits: Limits {
            data: PAGE_SIZE,
            ..plain.limits
        },
        ..with_gap.clone()
    };
    let touch = |addr| Op::Touch { addr, write: true };
    let brk = |addr| vec![Op::Brk { addr }];
    let lowest = plain.limits.mmap_min_addr;
    let at_the_floor = vec![
        map(
            lowest,
            1,
            private | MapFlags::FIXED | MapFlags::GROWSDOWN,
            Backing::None,
        ),
        touch(lowest - PAGE_SIZE),
    ];
    let unprivileged = World {
        limits: Limits {
            cap_sys_rawio: false,
            ..plain.limits
        },
        ..plain.clone()
    };
    let small_stacks = World {
        limits: Limits {
            stack: 3 * PAGE_SIZE,
            ..plain.limits
        },
        ..plain.clone()
    };
    let down = vec![
        map(
            page(14),
            2,
            private | MapFlags::FIXED | MapFlags::GROWSDOWN,
            Backing::None,
        ),
        touch(page(13)),
        touch(page(12)),
    ];
    let low_base = World {
        limits: Limits {
            mmap_base: 1 << 31,
            ..plain.limits
        },
        ..plain.clone()
    };
    let above = MapFlags::ABOVE4G;
    let watch = Op::UffdRegister {
        addr: page(0),
        len: PAGE_SIZE,
    };
    let of_two_nodes = |nodes, flags| {
        let bind = Op::Mbind {
            addr: page(0),
            len: PAGE_SIZE,
            mode: mode::BIND,
            nodes,
            flags,
        };
        vec![fixed(page(0), 1), bind]
    };
    let shared_at = Op::Mmap(Mmap {
        addr: page(0),
        len: PAGE_SIZE,
        prot: Prot::READ,
        flags: MapFlags::SHARED | MapFlags::ANONYMOUS | MapFlags::FIXED,
        backing: Backing::None,
        offset: PAGE_SIZE,
    });
    // A process that is large, and what it leaves to others.
    let large = World {
        limits: Limits {
            overcommit: Overcommit::Never {
                limit: 10_000,
                reserve: 0,
            },
            ..plain.limits
        },
        ..plain.clone()
    };
    let leaves_little = vec![
        Op::Mmap(Mmap {
            addr: 0,
            len: 3200 * PAGE_SIZE,
            prot: Prot::READ,
            flags: private,
            backing: Backing::None,
            offset: 0,
        }),
        anywhere(9_950),
    ];
    // What fork leaves out, page by page.
    let leave_out = |at| Op::Madvise {
        addr: at,
        len: PAGE_SIZE,
        advice: Advice::DONTFORK,
    };
    let left_out = vec![fixed(page(0), 2), leave_out(page(0)), leave_out(page(1))];
    // A merge for which there is no memory.
    let protect = |prot| Op::Mprotect {
        addr: page(1),
        len: PAGE_SIZE,
        prot,
    };
    let starved = vec![
        fixed(page(0), 2),
        protect(Prot::READ),
        Op::FailAllocation {
            what: Allocation::Tree,
            nth: 1,
        },
        protect(Prot::READ | Prot::WRITE),
    ];
    let second_policy = vec![
        fixed(page(0), 1),
        Op::FailAllocation {
            what: Allocation::Policy,
            nth: 2,
        },
        Op::Mbind {
            addr: page(0),
            len: PAGE_SIZE,
            mode: mode::BIND,
            nodes: 1,
            flags: 0,
        },
    ];
    // What is locked already, near the limit.
    let lockable = World {
        limits: Limits {
            memlock: 4 * PAGE_SIZE,
            cap_ipc_lock: false,
            ..plain.limits
        },
        ..plain.clone()
    };
    let lock = Op::Mlock {
        addr: page(0),
        len: 3 * PAGE_SIZE,
        flags: MlockFlags::empty(),
    };
    // A copy of the middle of an area that is accounted for, below one that is not.
    let copied = vec![
        fixed(page(0), 3),
        Op::Mmap(Mmap {
            addr: page(3),
            len: PAGE_SIZE,
            prot: Prot::READ,
            flags: private | MapFlags::FIXED,
            backing: Backing::None,
            offset: 0,
        }),
        Op::Mremap {
            addr: page(1),
            old_len: PAGE_SIZE,
            new_len: PAGE_SIZE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
            new_addr: page(16),
        },
    ];
    // So much that its pages are more than an int can count.
    let locked = vec![
        map(
            page(0),
            1 << 31,
            private | MapFlags::FIXED | MapFlags::NORESERVE,
            Backing::None,
        ),
        Op::Mlock {
            addr: page(0),
            len: 1 << 43,
            flags: MlockFlags::ONFAULT,
        },
    ];
    let of_huge_pages = file_of(File {
        aligns_huge: true,
        ..File::regular(2048)
    });
    let file_anywhere = |pages| map(0, pages, MapFlags::PRIVATE, Backing::File(FileId(0)));
    let mut rare = vec![
        // Up to where a huge page ends.
        (of_huge_pages, vec![anywhere(511), file_anywhere(512)]),
        (lockable, vec![fixed(page(0), 3), lock, lock]),
        (plain.clone(), copied),
        (plain.clone(), locked),
        (plain.clone(), second_policy),
        (large, leaves_little),
        (plain.clone(), left_out),
        (plain.clone(), starved),
        (driver(VmFlags::DONTDUMP), beside()),
        (driver(VmFlags::DONTCOPY), beside()),
        (unmappable, vec![of_file(0..0, Prot::READ, 0)]),
        (
            noexec,
            vec![
                of_file(0..1, Prot::READ, 0),
                Op::Mprotect {
                    addr: page(0),
                    len: PAGE_SIZE,
                    prot: Prot::EXEC,
                },
            ],
        ),
        (read_only, vec![of_file(0..1, Prot::READ, 0), watch]),
        (keyed.clone(), vec![execute_only, no_rights, touch(page(0))]),
        (keyed.clone(), vec![fixed(page(0), 1), key_zero]),
        (keyed.clone(), vec![Op::PkeyFree { pkey: 0 }]),
        (keyed, vec![allocate, Op::Fork, allocate]),
        (sealed(WriteSeal::Write), shared_over(Prot::READ)),
        (sealed(WriteSeal::Write), shared_over(Prot::WRITE)),
        (sealed(WriteSeal::FutureWrite), shared_over(Prot::WRITE)),
        (
            file_of(File::regular(8)),
            vec![of_file(0..1, Prot::READ, 1 << 63)],
        ),
        (plain.clone(), vec![shared_at]),
        (plain.clone(), of_two_nodes(3, 0)),
        (plain.clone(), of_two_nodes(1, pages::MOVE)),
        (plain.clone(), at_the_floor.clone()),
        (unprivileged, at_the_floor),
        (small_stacks, down),
        (
            plain.clone(),
            vec![map(page(0), 1, private | MapFlags::SYNC, Backing::None)],
        ),
        (low_base, vec![map(0, 1, private | above, Backing::None)]),
        (with_gap.clone(), brk(heap - PAGE_SIZE)),
        (with_gap.clone(), brk(heap + 3 * PAGE_SIZE)),
        (tight, brk(heap + PAGE_SIZE)),
        (plain.clone(), stack_of_file),
        (beside_heap, up_to_heap),
        (plain.clone(), in_guard_gap),
        (plain.clone(), huge),
        (plain.clone(), huge_page(page(1), MapFlags::empty())),
        (plain.clone(), huge_page(0, MapFlags::BIT32)),
        (frugal, shrunk),
    ];
    rare.extend(policies);
    rare
}

/// The field that alone makes the outcomes the same.
fn alone(world: &World, old: &Rules, mixed: &Rules, ops: &[Op]) -> Option<&'static Field> {
    old.differences(mixed).find(|field| {
        let mut trial = *mixed;
        field.copy(&mut trial, old);
        part(world, old, &trial, ops).is_none()
    })
}

/// The fields that make the outcomes the same, none of which can be left out.
fn together(world: &World, old: &Rules, mixed: &Rules, ops: &[Op]) -> Option<Vec<&'static Field>> {
    let explains = |fields: &[&'static Field]| {
        let mut trial = *mixed;
        for field in fields {
            field.copy(&mut trial, old);
        }
        part(world, old, &trial, ops).is_none()
    };
    let mut fields: Vec<_> = old.differences(mixed).collect();
    if !explains(&fields) {
        return None;
    }
    let mut index = 0;
    while index < fields.len() {
        let mut fewer = fields.clone();
        fewer.remove(index);
        if explains(&fewer) {
            fields = fewer;
        } else {
            index += 1;
        }
    }
    Some(fields)
}

/// The operations up to the first whose outcomes differ, and in what.
fn part(world: &World, old: &Rules, new: &Rules, ops: &[Op]) -> Option<(Vec<Op>, String)> {
    let (mut one, mut other) = (start(world, old), start(world, new));
    let mut comparer = Comparer::new(Sees {
        fields: Fields::all(),
        flags: VmFlags(u64::MAX),
    });
    let mut predicted = Outcome::default();
    let mut seen = Observation {
        fields: Fields::all(),
        ..Observation::default()
    };
    for (index, op) in ops.iter().enumerate() {
        one.apply_into(op, 0..u64::MAX, &mut predicted);
        other.apply_into(op, 0..u64::MAX, &mut seen.outcome);
        let what = match comparer.compare(&predicted, &seen) {
            Some(difference) => format!(
                "{}: {} by {}, {} by {}",
                difference.field, difference.predicted, old.name, difference.observed, new.name
            ),
            None if predicted.events != seen.outcome.events => format!(
                "events: {:x?} by {}, {:x?} by {}",
                predicted.events, old.name, seen.outcome.events, new.name
            ),
            None => continue,
        };
        return Some((ops[..=index].to_vec(), what));
    }
    None
}

/// Leaves operations out as long as the outcomes still differ.
fn shorten(world: &World, old: &Rules, new: &Rules, mut ops: Vec<Op>) -> Vec<Op> {
    let mut chunk = ops.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(ops.len()));
            match part(world, old, new, &fewer) {
                Some((shorter, _)) => ops = shorter,
                None => at += chunk,
            }
        }
        chunk /= 2;
    }
    ops
}

fn start(world: &World, rules: &Rules) -> AddressSpace {
    let mut space = AddressSpace::new(*rules, world.limits);
    for named in &world.files {
        space.add_file(named.file);
    }
    if let Some(heap) = &world.heap {
        space.set_break(heap.start);
    }
    for area in &world.areas {
        space.restore(*area, false).expect("a world is sound");
    }
    space
}

/// A batch of operations, as the outcomes by those rules lead.
fn operations(world: &World, rules: &Rules, seed: u64, batch: u64) -> Vec<Op> {
    let mut generator = Generator::new(seed, batch, world);
    let mut random = ChaCha8Rng::seed_from_u64(!seed);
    random.set_stream(batch);
    let mut space = start(world, rules);
    let mut outcome = Outcome::default();
    let mut ops = Vec::new();
    while ops.len() < BATCH {
        let op = match random.next_u32() % 8 {
            0 => special(&mut random, world, &outcome.layout),
            _ => None,
        };
        let op = op.unwrap_or_else(|| generator.op());
        space.apply_into(&op, 0..u64::MAX, &mut outcome);
        outcome.layout.retain(|area| world.observes(area));
        generator.learn(&outcome);
        ops.push(op);
    }
    ops
}

/// What the generator does not make: userfaultfd, and whole pages of hugetlbfs.
fn special(random: &mut ChaCha8Rng, world: &World, layout: &[Area]) -> Option<Op> {
    let mut below = |n: u64| u64::from(random.next_u32()) % n;
    let huge = world
        .files
        .iter()
        .position(|named| named.file.kind == vmalab_model::file::Kind::Hugetlb);
    if let Some(file) = huge.filter(|_| below(3) != 0) {
        let prots = [Prot::READ, Prot::READ | Prot::WRITE];
        return Some(Op::Mmap(Mmap {
            addr: world.arena.start,
            len: [PAGE_SIZE, 512 * PAGE_SIZE][below(2) as usize],
            prot: prots[below(2) as usize],
            flags: MapFlags::SHARED | MapFlags::FIXED,
            backing: Backing::File(FileId(file as u16)),
            offset: below(3) * 512 * PAGE_SIZE,
        }));
    }
    if layout.is_empty() {
        return None;
    }
    let area = layout[below(layout.len() as u64) as usize];
    // A stack's guard page is not shown, so that there may be nothing else.
    let pages = ((area.end - area.start) / PAGE_SIZE).clamp(1, 64);
    let skip = below(pages);
    let addr = area.start + skip * PAGE_SIZE;
    let len = (1 + below(pages - skip)) * PAGE_SIZE;
    Some(match below(4) {
        0 => Op::UffdUnregister { addr, len },
        _ => Op::UffdRegister { addr, len },
    })
}

/// Drivers of every temper and each limit near; files of huge pages; what the kernel maps by itself.
fn worlds_of_all_kinds() -> Vec<World> {
    let mut worlds = vmac::worlds();
    let plain = worlds[0].clone();
    let named = |name: &str, file| NamedFile {
        name: name.into(),
        file,
    };
    worlds.push(World {
        name: "with huge pages".into(),
        files: vec![
            named("huge", File::hugetlb(1024)),
            named("memfd", File::memfd(64)),
        ],
        ..plain.clone()
    });
    let special = Area {
        start: plain.arena.start + 2 * PAGE_SIZE,
        end: plain.arena.start + 6 * PAGE_SIZE,
        flags: VmFlags::READ | VmFlags::MAYREAD | VmFlags::MAYEXEC | VmFlags::DONTEXPAND,
        offset: 0,
        object: Object::File(FileId(0)),
        anon_vma: None,
        name: None,
    };
    worlds.push(World {
        name: "with the kernel's own areas".into(),
        files: vec![
            named("vdso", File::special()),
            named("file", File::regular(8)),
        ],
        areas: vec![special],
        ..plain.clone()
    });
    worlds.push(World {
        name: "with a driver that refuses".into(),
        files: vec![named(
            "device",
            File {
                mmap_error: Some(Errno::EBUSY),
                mremap_error: Some(Errno::EBUSY),
                ..File::device(64)
            },
        )],
        ..plain
    });
    worlds
}
