// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The worlds of [`VmaC`](super::VmaC): drivers of every temper, and each limit near.

use vmalab_model::file::{Hooks, Kind, MaySplit, WriteSeal};
use vmalab_model::limits::{Overcommit, Thp};
use vmalab_model::{Area, Break, Errno, File, FileId, Limits, Object, PAGE_SIZE, VmFlags};

use crate::oracle::{Heap, NamedFile, World};

const ARENA: u64 = 0x100_0000_0000;
const HEAP: u64 = 0x180_0000_0000;
/// From here on addresses below 2 GiB are chosen.
const LOW: u64 = 0x4000_0000;

/// Of so many batches each of the other worlds has one, by its place among them, and the usual one has the rest.
const EVERY: u64 = 10;

/// The usual one first.
pub(crate) fn all() -> Vec<World> {
    let limits = Limits {
        // Faults are without pages here, and so without huge ones.
        thp: Thp::Never,
        anon_vma_name: true,
        ..Limits::default()
    };
    let plain = World {
        name: "plain".into(),
        every: 1,
        areas: Vec::new(),
        counters: Default::default(),
        files: files(),
        limits,
        arena: ARENA..ARENA + 32 * PAGE_SIZE,
        heap: Some(Heap {
            // Somewhere in its second page.
            start: Break {
                start: HEAP,
                end: HEAP + PAGE_SIZE + 100,
                program_data: 3000,
                data_start: HEAP - 2 * PAGE_SIZE,
                code_end: HEAP - 4 * PAGE_SIZE,
            },
            window: HEAP + 2 * PAGE_SIZE..HEAP + 64 * PAGE_SIZE,
        }),
        locks_all: true,
        low: Some(LOW..LOW + (64 << 20)),
        deprecated: true,
        policies: true,
        huge: false,
        fails: false,
        steers: true,
        chosen: Some(limits.mmap_base - (64 << 20)..limits.mmap_base),
    };
    let crowded = World {
        name: "near the limit on areas".into(),
        every: EVERY,
        limits: Limits {
            max_map_count: 10,
            ..limits
        },
        ..plain.clone()
    };
    let poor = World {
        name: "near the resource limits".into(),
        every: EVERY,
        limits: Limits {
            address_space: 40 * PAGE_SIZE,
            data: 20 * PAGE_SIZE,
            stack: 3 * PAGE_SIZE,
            memlock: 10 * PAGE_SIZE,
            cap_ipc_lock: false,
            cap_sys_nice: false,
            ..limits
        },
        ..plain.clone()
    };
    let frugal = World {
        name: "near the commit limit".into(),
        every: EVERY,
        limits: Limits {
            overcommit: Overcommit::Guess { total: 3 },
            memlock: 0,
            cap_ipc_lock: false,
            ..limits
        },
        ..plain.clone()
    };
    let strict = World {
        name: "where nothing is promised twice".into(),
        every: EVERY,
        limits: Limits {
            overcommit: Overcommit::Never {
                limit: 24,
                reserve: 1,
            },
            ..limits
        },
        ..plain.clone()
    };
    let sealed = World {
        name: "with sealed areas".into(),
        every: EVERY,
        areas: sealed_areas(),
        ..plain.clone()
    };
    let starved = World {
        name: "where allocations fail".into(),
        every: EVERY,
        fails: true,
        ..plain.clone()
    };
    let keyed = World {
        name: "with protection keys".into(),
        every: EVERY,
        limits: Limits {
            pkeys: true,
            ..limits
        },
        ..plain.clone()
    };
    // For small worlds, which come to the limit soon (small::narrow).
    let narrow = World {
        name: "where two areas are the limit".into(),
        every: EVERY,
        limits: Limits {
            max_map_count: 2,
            ..limits
        },
        ..plain.clone()
    };
    let mut worlds = vec![
        plain, crowded, poor, frugal, sealed, starved, strict, keyed, narrow,
    ];
    debug_assert!((worlds.len() as u64) < EVERY, "each has its turn");
    for world in &mut worlds {
        let areas = &world.areas;
        world.counters.map_count = areas.len() as u64;
        for area in areas {
            let pages = (area.end - area.start) / PAGE_SIZE;
            world.counters.total_vm += pages;
            if area.flags.contains(VmFlags::WRITE) && !area.flags.contains(VmFlags::SHARED) {
                world.counters.data_vm += pages;
            }
        }
    }
    worlds
}

fn files() -> Vec<NamedFile> {
    let device = File::device(64);
    let files = [
        ("memfd", File::memfd(64)),
        ("short_memfd", File::memfd(10)),
        (
            "read_only_memfd",
            File {
                write: false,
                ..File::memfd(64)
            },
        ),
        (
            "file_on_noexec",
            File {
                noexec: true,
                ..File::regular(64)
            },
        ),
        ("device", device),
        (
            "device_with_mmap_prepare",
            File {
                prepares: true,
                ..device
            },
        ),
        (
            "device_without_close",
            File {
                hooks: Hooks {
                    close: false,
                    ..Hooks::ALL
                },
                ..device
            },
        ),
        (
            "device_with_large_pages",
            File {
                may_split: MaySplit::Aligned(2 * PAGE_SIZE),
                ..device
            },
        ),
        (
            "device_in_one_piece",
            File {
                may_split: MaySplit::Never(Errno::EBUSY),
                ..device
            },
        ),
        (
            "device_of_page_frames",
            File {
                sets: VmFlags(VmFlags::PFNMAP.0 | VmFlags::IO.0 | VmFlags::DONTEXPAND.0),
                ..device
            },
        ),
        (
            "device_of_page_frames_with_mmap_prepare",
            File {
                sets: VmFlags::MIXEDMAP,
                prepares: true,
                ..device
            },
        ),
        (
            "device_with_get_unmapped_area",
            File {
                chooses_address: true,
                ..device
            },
        ),
        (
            "device_not_dumped",
            File {
                sets: VmFlags::DONTDUMP,
                ..device
            },
        ),
        (
            "device_that_refuses",
            File {
                mmap_error: Some(Errno::EBUSY),
                ..device
            },
        ),
        (
            "device_that_stays",
            File {
                mremap_error: Some(Errno::EBUSY),
                ..device
            },
        ),
        (
            "device_that_keeps_its_protection",
            File {
                mprotect_error: Some(Errno::EACCES),
                ..device
            },
        ),
        (
            "device_that_refuses_in_mmap_prepare",
            File {
                mmap_error: Some(Errno::EACCES),
                prepares: true,
                ..device
            },
        ),
        (
            "directory",
            File {
                kind: Kind::Unmappable,
                write: false,
                ..File::regular(0)
            },
        ),
        (
            "write_only_memfd",
            File {
                read: false,
                ..File::memfd(64)
            },
        ),
        ("sealed_memfd", File::sealed_memfd(64, WriteSeal::Write)),
        (
            "memfd_sealed_for_the_future",
            File::sealed_memfd(64, WriteSeal::FutureWrite),
        ),
    ];
    let named = |(name, file): (&str, File)| NamedFile {
        name: name.into(),
        file,
    };
    files.into_iter().map(named).collect()
}

/// `mseal` left some behind, of each kind, beside each other and beside others.
fn sealed_areas() -> Vec<Area> {
    let may = VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
    let private = VmFlags::READ | VmFlags::WRITE | VmFlags::ACCOUNT | may;
    let shared = VmFlags::READ | VmFlags::WRITE | VmFlags::SHARED | VmFlags::MAYSHARE | may;
    let area = |first: u64, pages: u64, flags, object| Area {
        start: ARENA + first * PAGE_SIZE,
        end: ARENA + (first + pages) * PAGE_SIZE,
        flags,
        offset: match object {
            Object::Anon => ARENA + first * PAGE_SIZE,
            _ => first * PAGE_SIZE,
        },
        object,
        anon_vma: None,
        name: None,
    };
    let device = Object::File(FileId(4));
    vec![
        area(1, 2, private, Object::Anon),
        area(3, 2, private | VmFlags::SEALED, Object::Anon),
        area(8, 3, shared | VmFlags::SEALED, device),
        area(11, 1, shared, device),
    ]
}
