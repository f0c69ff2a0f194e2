// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Looking: the areas of the process as the module tells them, held against `/proc`; and what munmap
//! would do, held against what it does.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use nix::errno::Errno;
use vmalab::{Area, Counters, Device, Event, Hook, Snapshot, Step, StepKind, Watch, sys};

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("look::areas_as_in_smaps", areas_as_in_smaps),
    Test::both("look::counters_as_in_status", counters_as_in_status),
    Test::both("look::anon_vmas", anon_vmas),
    Test::both("look::anon_vmas_after_a_fork", anon_vmas_after_a_fork),
    Test::both("look::offsets_of_anonymous_memory", anonymous_offsets),
    Test::device("look::files_and_objects", files_and_objects),
    Test::device("look::hooks_of_areas", hooks_of_areas),
    Test::both("look::ranges_and_room", ranges_and_room),
    Test::both("look::elements_of_other_sizes", other_sizes),
    Test::both("look::bad_arguments", bad_arguments),
    Test::both("look::no_address_of_the_kernel", no_kernel_address),
    Test::both("look::the_steps_of_munmap", the_steps_of_munmap),
    Test::both("look::munmap_as_foretold_at_random", foretold_at_random),
    Test::both(
        "look::munmap_as_foretold_of_huge_pages",
        foretold_huge_pages,
    ),
    Test::both("look::munmap_as_foretold_of_others", foretold_others),
    Test::both("look::consistent_while_others_map", consistent_in_races),
    Test::both("look::at_the_limit_of_areas", at_the_limit),
];

/// The descriptor to look with; whatever is tested, it is the module's.
fn looking() -> Result<Device, Skip> {
    Device::open().map_err(|error| Skip(error.to_string()))
}

/// The number is that of asm/unistd_64.h since 6.10; libc has no name for it yet.
const SYS_MSEAL: i64 = 462;

fn seal(addr: usize, pages: usize) -> Result<(), Errno> {
    // SAFETY: it changes no memory.
    Errno::result(unsafe { libc::syscall(SYS_MSEAL, addr, pages * PAGE, 0) }).map(drop)
}

fn lock(addr: usize, pages: usize) -> Result<(), Errno> {
    // SAFETY: it changes no memory.
    Errno::result(unsafe { libc::mlock(pointer(addr).cast(), pages * PAGE) }).map(drop)
}

/// xorshift: the same numbers every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}

/// Areas of many kinds, in no particular order.
fn many_kinds(lab: &Lab) -> Vec<Device> {
    let anonymous = |pages, prot, flags| map_anonymous(0, pages, prot, flags).unwrap();
    let object = lab.open(16);
    let shared = map(&object, SHARED, 0, 8);
    letters(shared, 4, 'A');
    unmap(shared + 2 * PAGE, 1);
    protect(shared + 4 * PAGE, 2, RO).unwrap();
    let private = map(&object, PRIVATE, 5, 6);
    letters(private, 2, 'p');
    let other = lab.open(4);
    map(&other, SHARED, 1, 2);
    try_map(&other, 0, 3, RO | libc::PROT_EXEC, PRIVATE, 0).unwrap();

    anonymous(3, libc::PROT_NONE, 0);
    anonymous(2, RO, libc::MAP_NORESERVE);
    anonymous(4, RW | libc::PROT_EXEC, libc::MAP_STACK);
    anonymous(4, RW, libc::MAP_GROWSDOWN);
    let written = anonymous(8, RW, 0);
    letters(written, 3, 'w');
    protect(written + PAGE, 2, RO).unwrap();
    let advised = anonymous(32, RW, 0);
    for (page, advice) in [
        libc::MADV_DONTFORK,
        libc::MADV_DONTDUMP,
        libc::MADV_WIPEONFORK,
        libc::MADV_SEQUENTIAL,
        libc::MADV_RANDOM,
        libc::MADV_HUGEPAGE,
        libc::MADV_NOHUGEPAGE,
        libc::MADV_MERGEABLE,
    ]
    .into_iter()
    .enumerate()
    {
        // Not every kernel has all of them.
        let _ = advise(advised + 3 * page * PAGE, 2, advice);
    }
    let locked = anonymous(4, RW, 0);
    lock(locked, 2).unwrap();
    let on_fault = anonymous(2, RW, 0);
    // SAFETY: it changes no memory.
    unsafe { libc::mlock2(pointer(on_fault).cast(), PAGE, libc::MLOCK_ONFAULT) };
    let sealed = anonymous(3, RW, 0);
    let _ = seal(sealed + PAGE, 1);
    // SAFETY: a new mapping, where the kernel wants it.
    unsafe {
        libc::mmap(
            pointer(0).cast(),
            5 * PAGE,
            RW,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    vec![object, other]
}

/// What smaps says of an area.
#[derive(Debug, PartialEq, Eq, Default)]
struct Shown {
    start: usize,
    end: usize,
    permissions: String,
    offset: u64,
    device: (u32, u32),
    inode: u64,
    flags: Vec<String>,
}

/// The flags by the names that smaps has for them, as 7.2 numbers them on x86-64; no name for those of
/// protection keys, which it shows elsewhere.
const FLAGS: [(u32, &str); 36] = [
    (0, "rd"),
    (1, "wr"),
    (2, "ex"),
    (3, "sh"),
    (4, "mr"),
    (5, "mw"),
    (6, "me"),
    (7, "ms"),
    (8, "gd"),
    (9, "um"),
    (10, "pf"),
    (11, "gu"),
    (12, "uw"),
    (13, "lo"),
    (14, "io"),
    (15, "sr"),
    (16, "rr"),
    (17, "dc"),
    (18, "de"),
    (19, "lf"),
    (20, "ac"),
    (21, "nr"),
    (22, "ht"),
    (23, "sf"),
    (24, "ar"),
    (25, "wf"),
    (26, "dd"),
    (27, "sd"),
    (28, "mm"),
    (29, "hg"),
    (30, "nh"),
    (31, "mg"),
    (37, "ss"),
    (40, "dp"),
    (41, "ui"),
    (42, "sl"),
];
const HIDDEN: u64 = 0x1f << 32;

/// What smaps has to show of an area.
fn shown(area: &Area) -> Shown {
    let bit = |number: u32, yes: char, no: char| {
        if (area.flags >> number) & 1 != 0 {
            yes
        } else {
            no
        }
    };
    let (device, inode) = area
        .file
        .map_or(((0, 0), 0), |file| (file.device, file.inode));
    let name = |number: u32| {
        let known = FLAGS.iter().find(|(bit, _)| *bit == number);
        known.map_or("??", |(_, name)| name).to_owned()
    };
    let flags = area.flags & !HIDDEN;
    Shown {
        start: area.start,
        end: area.end,
        permissions: [
            bit(0, 'r', '-'),
            bit(1, 'w', '-'),
            bit(2, 'x', '-'),
            bit(7, 's', 'p'),
        ]
        .iter()
        .collect(),
        offset: area.file.map_or(0, |_| area.page_offset * PAGE as u64),
        device,
        inode,
        flags: (0..64)
            .filter(|n| (flags >> n) & 1 != 0)
            .map(name)
            .collect(),
    }
}

fn smaps(text: &str) -> Vec<Shown> {
    let mut areas: Vec<Shown> = Vec::new();
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(("VmFlags", _)) = first.split_once(':') {
            areas.last_mut().unwrap().flags = rest.split_whitespace().map(Into::into).collect();
        } else if let Some((start, end)) = first.split_once('-') {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let hex = |text| u64::from_str_radix(text, 16).unwrap();
            let (major, minor) = fields[2].split_once(':').unwrap();
            areas.push(Shown {
                start: hex(start) as usize,
                end: hex(end) as usize,
                permissions: fields[0].into(),
                offset: hex(fields[1]),
                device: (hex(major) as u32, hex(minor) as u32),
                inode: fields[3].parse().unwrap(),
                flags: Vec::new(),
            });
        }
    }
    areas
}

/// A snapshot, and the text of files in /proc/self, while the areas stayed as they are.
fn with_proc<const N: usize>(device: &Device, files: [&str; N]) -> (Snapshot, [String; N]) {
    // Reading takes memory, which may be new areas; sooner or later it is there.
    for _ in 0..100 {
        let before = device.areas().unwrap();
        let texts = files.map(|file| fs::read_to_string(format!("/proc/self/{file}")).unwrap());
        let after = device.areas().unwrap();
        if before == after {
            return (after, texts);
        }
    }
    panic!("the areas of this process never stand still");
}

fn areas_as_in_smaps(lab: &Lab) -> Verdict {
    let device = looking()?;
    let _objects = many_kinds(lab);
    let (seen, [text]) = with_proc(&device, ["smaps"]);
    let mut expected = smaps(&text);
    // The page that all processes have is no area of any.
    expected.retain(|area| area.start < usize::MAX / 2);
    assert!(expected.len() > 40, "{} areas", expected.len());
    for (area, expected) in seen.areas.iter().zip(&expected) {
        assert_eq!(shown(area), *expected);
        assert_eq!(area.sealed, expected.flags.iter().any(|flag| flag == "sl"));
    }
    assert_eq!(seen.areas.len(), expected.len());
    assert_eq!(seen.counters.map_count, expected.len() as u64);
    Ok(())
}

fn counters_as_in_status(lab: &Lab) -> Verdict {
    let device = looking()?;
    let _objects = many_kinds(lab);
    let (seen, [status, stat]) = with_proc(&device, ["status", "stat"]);
    let pages = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes / 4
    };
    let counters = seen.counters;
    assert_eq!(counters.total_vm, pages("VmSize:"));
    assert_eq!(counters.locked_vm, pages("VmLck:"));
    assert!(counters.locked_vm >= 3, "locked: {}", counters.locked_vm);
    assert_eq!(counters.pinned_vm, pages("VmPin:"));
    assert_eq!(counters.data_vm, pages("VmData:"));
    assert_eq!(counters.stack_vm, pages("VmStk:"));
    assert_eq!(counters.exec_vm, pages("VmExe:") + pages("VmLib:"));
    assert_eq!(counters.hiwater_vm.max(counters.total_vm), pages("VmPeak:"));
    check_recount(&seen);
    // Fields 28 and 47 of stat (proc_pid_stat(5)), counted from behind the name.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    assert_eq!(counters.start_stack, fields[28 - 3].parse::<u64>().unwrap());
    assert_eq!(counters.start_brk, fields[47 - 3].parse::<u64>().unwrap());
    let heap = seen
        .areas
        .iter()
        .find(|area| area.start as u64 == counters.start_brk);
    if let Some(heap) = heap {
        assert_eq!(heap.end as u64, counters.brk.next_multiple_of(PAGE as u64));
    }
    assert_eq!(counters.def_flags, 0);
    assert!(counters.mmap_base < counters.task_size);
    Ok(())
}

/// What the areas add up to is what is counted.
#[track_caller]
fn check_recount(seen: &Snapshot) {
    let mut recount = Counters::default();
    let mut last = 0;
    for area in &seen.areas {
        assert!(last <= area.start && area.start < area.end, "{area:x?}");
        last = area.end;
        let pages = ((area.end - area.start) / PAGE) as u64;
        let has = |number: u32| (area.flags >> number) & 1 != 0;
        let (write, exec, shared, stack) = (has(1), has(2), has(3), has(8));
        recount.map_count += 1;
        recount.total_vm += pages;
        if has(13) {
            recount.locked_vm += pages;
        }
        if exec && !write && !stack {
            recount.exec_vm += pages;
        } else if stack || has(37) {
            recount.stack_vm += pages;
        } else if write && !shared {
            recount.data_vm += pages;
        }
    }
    let of = |counters: &Counters| {
        [
            counters.map_count,
            counters.total_vm,
            counters.locked_vm,
            counters.exec_vm,
            counters.stack_vm,
            counters.data_vm,
        ]
    };
    assert_eq!(of(&seen.counters), of(&recount));
}

/// The areas of so many pages, as `(start, end)` in pages, with what `of` says of each.
fn parts<T>(
    device: &Device,
    addr: usize,
    pages: usize,
    of: impl Fn(&Area) -> T,
) -> Vec<(usize, usize, T)> {
    let seen = device.areas_in(addr..addr + pages * PAGE).unwrap();
    let page = |at: usize| at.saturating_sub(addr).min(pages * PAGE) / PAGE;
    let part = |area: &Area| (page(area.start), page(area.end), of(area));
    seen.areas.iter().map(part).collect()
}

/// Room for so many pages that nothing is mapped in or next to. The kernel chooses addresses from the
/// top, so that nothing else will ever be mapped down here.
fn room(pages: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1 << 44);
    NEXT.fetch_add((pages + 2) * PAGE, Ordering::Relaxed) + PAGE
}

fn anon_vmas(lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(16);
    let numbers = |addr| {
        parts(&device, addr, 16, |area| {
            area.anon_vma
                .map(|anon_vma| (anon_vma.number, anon_vma.root))
        })
    };
    map_anonymous(addr, 4, RW, libc::MAP_FIXED).unwrap();
    assert_eq!(numbers(addr), [(0, 4, None)]);
    letters(addr + PAGE, 1, 'w');
    assert_eq!(numbers(addr), [(0, 4, Some((1, 1)))]);
    // A split shares it.
    protect(addr + PAGE, 2, RO).unwrap();
    assert_eq!(
        numbers(addr),
        [
            (0, 1, Some((1, 1))),
            (1, 3, Some((1, 1))),
            (3, 4, Some((1, 1)))
        ]
    );
    // One that was written to apart has another, also of the object's private copies.
    let object = lab.open(8);
    try_map(
        &object,
        addr + 6 * PAGE,
        4,
        RW,
        PRIVATE | libc::MAP_FIXED,
        0,
    )
    .unwrap();
    map_anonymous(addr + 12 * PAGE, 2, RW, libc::MAP_FIXED).unwrap();
    letters(addr + 12 * PAGE, 1, 'o');
    let found = numbers(addr);
    assert_eq!(found[3..], [(6, 10, None), (12, 14, Some((2, 2)))]);
    letters(addr + 7 * PAGE, 1, 'p');
    let found = numbers(addr);
    assert_eq!(
        found[3..],
        [(6, 10, Some((2, 2))), (12, 14, Some((3, 3)))],
        "in the order of their appearance"
    );
    unmap(addr + 7 * PAGE, 1);
    let found = numbers(addr);
    assert_eq!(
        found[3..],
        [
            (6, 7, Some((2, 2))),
            (8, 10, Some((2, 2))),
            (12, 14, Some((3, 3)))
        ]
    );
    // Shared memory has none.
    try_map(
        &object,
        addr + 10 * PAGE,
        1,
        RW,
        SHARED | libc::MAP_FIXED,
        0,
    )
    .unwrap();
    letters(addr + 10 * PAGE, 1, 's');
    assert!(numbers(addr).contains(&(10, 11, None)));
    Ok(())
}

fn anon_vmas_after_a_fork(_lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(8);
    map_anonymous(addr, 2, RW, libc::MAP_FIXED).unwrap();
    map_anonymous(addr + 4 * PAGE, 2, RW, libc::MAP_FIXED).unwrap();
    letters(addr, 1, 'w');
    let numbers = || {
        parts(&device, addr, 8, |area| {
            let anon_vma = area
                .anon_vma
                .map(|anon_vma| (anon_vma.number, anon_vma.root));
            (anon_vma, area.forked)
        })
    };
    let before = [(0, 2, (Some((1, 1)), false)), (4, 6, (None, false))];
    assert_eq!(numbers(), before);
    child(|| {
        // One of its own, whose root is the parent's.
        assert_eq!(
            numbers(),
            [(0, 2, (Some((1, 2)), true)), (4, 6, (None, false))]
        );
        letters(addr + 4 * PAGE, 1, 'c');
        assert_eq!(
            numbers(),
            [(0, 2, (Some((1, 2)), true)), (4, 6, (Some((3, 3)), false))]
        );
    });
    assert_eq!(numbers(), before);
    Ok(())
}

fn anonymous_offsets(_lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(32);
    let first = (addr / PAGE) as u64;
    let offsets = |addr| parts(&device, addr, 16, |area| area.page_offset);
    map_anonymous(addr, 6, RW, libc::MAP_FIXED).unwrap();
    assert_eq!(offsets(addr), [(0, 6, first)]);
    letters(addr, 6, 'a');
    unmap(addr + 2 * PAGE, 1);
    assert_eq!(offsets(addr), [(0, 2, first), (3, 6, first + 3)]);
    // What is written to keeps it when it moves.
    let to = addr + 16 * PAGE;
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    remap(addr + 3 * PAGE, 3, 3, flags, to).unwrap();
    assert_eq!(offsets(addr), [(0, 2, first)]);
    assert_eq!(offsets(to), [(0, 3, first + 3)]);
    Ok(())
}

fn files_and_objects(lab: &Lab) -> Verdict {
    let (first, second) = (lab.open(8), lab.open(8));
    let addr = room(16);
    let at = |device: &Device, page: usize, kind| {
        let fixed = kind | libc::MAP_FIXED;
        try_map(device, addr + page * PAGE, 1, RW, fixed, 2).unwrap();
    };
    at(&second, 0, SHARED);
    at(&first, 2, SHARED);
    at(&second, 4, PRIVATE);
    at(&first.try_clone().unwrap(), 6, PRIVATE);
    map_anonymous(addr + 8 * PAGE, 1, RW, libc::MAP_FIXED).unwrap();
    let zero = fs::File::open("/dev/zero").unwrap();
    try_map(&zero, addr + 10 * PAGE, 1, RO, PRIVATE | libc::MAP_FIXED, 0).unwrap();

    let numbers = |device: &Device| {
        let seen = parts(device, addr, 16, |area| {
            (area.object, area.file.map(|file| file.number))
        });
        seen.into_iter()
            .map(|(_, _, numbers)| numbers)
            .collect::<Vec<_>>()
    };
    // The asking descriptor's object is the first, whatever comes first.
    let [a, b] = [(Some(1), Some(2)), (Some(2), Some(1))];
    assert_eq!(numbers(&first), [b, a, b, a, (None, None), (None, Some(3))]);
    let [a, b] = [(Some(2), Some(2)), (Some(1), Some(1))];
    assert_eq!(
        numbers(&second),
        [b, a, b, a, (None, None), (None, Some(3))]
    );
    let third = lab.open(1);
    let [a, b] = [(Some(3), Some(2)), (Some(2), Some(1))];
    assert_eq!(numbers(&third), [b, a, b, a, (None, None), (None, Some(3))]);
    Ok(())
}

fn hooks_of_areas(lab: &Lab) -> Verdict {
    let all = Hook::Open.mask() | Hook::Close.mask() | Hook::MaySplit.mask();
    for path in [sys::VMALAB_PATH, sys::VMALAB_PREPARE_PATH] {
        let device = Device::open_at(path.to_str().unwrap()).unwrap();
        let addr = map(&device, SHARED, 0, 2);
        let has = |addr| {
            let found = parts(&device, addr, 2, |area| (area.has_operations, area.hooks));
            found[0].2
        };
        let (operations, hooks) = has(addr);
        assert!(operations && hooks.contains(all), "{hooks:?}");
        let prepared = path == sys::VMALAB_PREPARE_PATH;
        assert_eq!(hooks.contains(Hook::Mapped.mask()), prepared);
        assert!(!hooks.contains(Hook::PageMkwrite.mask()));
        device.set_hooks(Hook::PageMkwrite.mask()).unwrap();
        let (_, tracked) = has(map(&device, SHARED, 0, 2));
        let both = Hook::PageMkwrite.mask() | Hook::PfnMkwrite.mask();
        assert_eq!(tracked, hooks | both);
    }
    let device = lab.open(1);
    let addr = map_anonymous(0, 1, RW, 0).unwrap();
    let found = parts(&device, addr, 1, |area| {
        (area.has_operations, area.hooks.bits())
    });
    assert_eq!(found, [(0, 1, (false, 0))]);
    Ok(())
}

fn ask<T>(device: &Device, number: u32, request: &mut T) -> Result<(), Errno> {
    let address = (&raw mut *request).expose_provenance();
    // SAFETY: the number has the size of the structure, and tests give arrays of as much room as they
    // say, or addresses for the kernel to check.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), number.into(), address) }).map(drop)
}

fn request(areas: usize, capacity: usize) -> sys::vmalab_areas {
    sys::vmalab_areas {
        end: u64::MAX,
        areas: areas as u64,
        capacity: capacity as u32,
        area_size: size_of::<sys::vmalab_area>() as u32,
        ..Default::default()
    }
}

fn ranges_and_room(_lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(16);
    for page in [0, 2, 4] {
        map_anonymous(
            addr + page * PAGE,
            2,
            if page == 2 { RO } else { RW },
            libc::MAP_FIXED,
        )
        .unwrap();
    }
    let in_range = |from: usize, to: usize| {
        let range = addr + from * PAGE..addr + to * PAGE;
        let seen = device.areas_in(range).unwrap();
        seen.areas
            .iter()
            .map(|area| ((area.start - addr) / PAGE, (area.end - addr) / PAGE))
            .collect::<Vec<_>>()
    };
    // Whole areas, also if only a byte of them is in it.
    assert_eq!(in_range(0, 6), [(0, 2), (2, 4), (4, 6)]);
    assert_eq!(in_range(1, 3), [(0, 2), (2, 4)]);
    assert_eq!(in_range(2, 4), [(2, 4)]);
    assert_eq!(in_range(6, 16), []);
    assert_eq!(in_range(3, 3), []);
    let one = device
        .areas_in(addr + 2 * PAGE - 1..addr + 2 * PAGE)
        .unwrap();
    assert_eq!(one.areas.len(), 1);

    // Less room than areas: as many as fit, and how many there are.
    let empty = sys::vmalab_area::default();
    let mut array = [empty; 4];
    let at = array.as_mut_ptr().expose_provenance();
    for capacity in 0..4 {
        array.fill(empty);
        let mut request = request(at, capacity);
        (request.start, request.end) = (addr as u64, (addr + 6 * PAGE) as u64);
        ask(&device, sys::VMALAB_IOC_AREAS, &mut request).unwrap();
        assert_eq!(
            (request.filled as usize, request.count),
            (capacity.min(3), 3)
        );
        let filled = array.iter().take_while(|area| area.end != 0).count();
        assert_eq!(filled, capacity.min(3), "and no more is written");
        assert!(array[filled..].iter().all(|area| *area == empty));
        assert!(request.map_count > 3 && request.total_vm > 6);
    }
    Ok(())
}

fn other_sizes(_lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(4);
    map_anonymous(addr, 1, RO, libc::MAP_FIXED).unwrap();
    map_anonymous(addr + 2 * PAGE, 1, RW, libc::MAP_FIXED).unwrap();
    let known = size_of::<sys::vmalab_area>();
    for size in (8..=PAGE + 16).step_by(4) {
        let mut bytes = vec![0xff_u8; 3 * size];
        let mut request = request(bytes.as_mut_ptr().expose_provenance(), 3);
        (request.start, request.end) = (addr as u64, (addr + 4 * PAGE) as u64);
        request.area_size = size as u32;
        let answer = ask(&device, sys::VMALAB_IOC_AREAS, &mut request);
        if size < known || size > PAGE || size % 8 != 0 {
            assert_eq!(answer, Err(Errno::EINVAL), "{size} bytes");
            assert!(bytes.iter().all(|byte| *byte == 0xff));
            continue;
        }
        assert_eq!((answer, request.filled), (Ok(()), 2), "{size} bytes");
        for (index, start) in [addr, addr + 2 * PAGE].into_iter().enumerate() {
            let area = &bytes[index * size..][..size];
            assert_eq!(area[..8], (start as u64).to_ne_bytes());
            assert!(
                area[known..].iter().all(|byte| *byte == 0),
                "what is unknown is zero"
            );
        }
        assert!(bytes[2 * size..].iter().all(|byte| *byte == 0xff));
    }
    Ok(())
}

fn bad_arguments(_lab: &Lab) -> Verdict {
    let device = looking()?;
    let areas = |change: fn(&mut sys::vmalab_areas)| {
        let mut array = vec![sys::vmalab_area::default(); 1000];
        let mut request = request(array.as_mut_ptr().expose_provenance(), array.len());
        change(&mut request);
        ask(&device, sys::VMALAB_IOC_AREAS, &mut request)
    };
    assert_eq!(areas(|_| {}), Ok(()));
    assert_eq!(areas(|r| r.reserved = 1), Err(Errno::EINVAL));
    assert_eq!(
        areas(|r| (r.start, r.end) = (4096, 4095)),
        Err(Errno::EINVAL)
    );
    assert_eq!(areas(|r| r.area_size = 0), Err(Errno::EINVAL));
    assert_eq!(areas(|r| r.area_size = u32::MAX), Err(Errno::EINVAL));
    assert_eq!(areas(|r| r.area_size += 1), Err(Errno::EINVAL));
    for bad in [0, 8, 0x8000_0000_0000_0000, 0xffff_8880_0000_0000, u64::MAX] {
        let mut request = request(bad as usize, 1000);
        assert_eq!(
            ask(&device, sys::VMALAB_IOC_AREAS, &mut request),
            Err(Errno::EFAULT),
            "{bad:#x}"
        );
        let mut request = sys::vmalab_unmapping {
            len: 1 << 40,
            steps: bad,
            capacity: u32::MAX,
            step_size: size_of::<sys::vmalab_step>() as u32,
            max_map_count: u64::MAX,
            ..Default::default()
        };
        request.addr = 0;
        let answer = ask(&device, sys::VMALAB_IOC_WOULD_UNMAP, &mut request);
        // There may be nothing to be written.
        assert!(
            request.count == 0 || answer == Err(Errno::EFAULT),
            "{bad:#x}: {answer:?}"
        );
    }
    // More room than there can be is no mistake, and none at all is a question for the number.
    let mut array = vec![sys::vmalab_area::default(); 1000];
    let mut request = request(array.as_mut_ptr().expose_provenance(), u32::MAX as usize);
    ask(&device, sys::VMALAB_IOC_AREAS, &mut request).unwrap();
    assert_eq!(
        (u64::from(request.filled), request.count),
        (request.map_count, request.map_count)
    );
    let mut none = sys::vmalab_areas {
        end: u64::MAX,
        ..Default::default()
    };
    ask(&device, sys::VMALAB_IOC_AREAS, &mut none).unwrap();
    assert_eq!((none.filled, none.count), (0, none.map_count));

    // The end of the array is missing: what fits is there.
    let pair = map_anonymous(0, 2, RW, 0).unwrap();
    unmap(pair + PAGE, 1);
    let mut request = sys::vmalab_areas {
        areas: (pair + PAGE - size_of::<sys::vmalab_area>()) as u64,
        capacity: 2,
        ..request
    };
    assert_eq!(
        ask(&device, sys::VMALAB_IOC_AREAS, &mut request),
        Err(Errno::EFAULT)
    );
    request.capacity = 1;
    assert_eq!(ask(&device, sys::VMALAB_IOC_AREAS, &mut request), Ok(()));
    let mut unmap = sys::vmalab_unmapping {
        step_size: 8,
        capacity: 1,
        ..Default::default()
    };
    assert_eq!(
        ask(&device, sys::VMALAB_IOC_WOULD_UNMAP, &mut unmap),
        Err(Errno::EINVAL)
    );
    Ok(())
}

fn no_kernel_address(lab: &Lab) -> Verdict {
    let device = looking()?;
    let _objects = many_kinds(lab);
    let words = |bytes: &[u8]| {
        bytes
            .chunks(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    let mut bytes = vec![0_u8; 500 * size_of::<sys::vmalab_area>()];
    let mut areas = request(bytes.as_mut_ptr().expose_provenance(), 500);
    ask(&device, sys::VMALAB_IOC_AREAS, &mut areas).unwrap();
    assert!(areas.count > 40 && areas.count < 500);
    let mut found = words(&bytes);
    for area in device.areas().unwrap().areas {
        // Its last page.
        let mut steps = vec![0_u8; 20 * size_of::<sys::vmalab_step>()];
        let mut unmap = sys::vmalab_unmapping {
            addr: (area.end - PAGE) as u64,
            len: PAGE as u64,
            max_map_count: 65530,
            steps: steps.as_mut_ptr().expose_provenance() as u64,
            capacity: 20,
            step_size: size_of::<sys::vmalab_step>() as u32,
            ..Default::default()
        };
        ask(&device, sys::VMALAB_IOC_WOULD_UNMAP, &mut unmap).unwrap();
        assert!(unmap.count > 0);
        found.extend(words(&steps));
    }
    for word in found {
        assert!(word < 1 << 47, "{word:#x}");
    }
    Ok(())
}

fn kinds(steps: &[Step], addr: usize) -> Vec<String> {
    let page = |at: usize| (at - addr) / PAGE;
    steps
        .iter()
        .map(|step| {
            let (from, to) = (page(step.start), page(step.end));
            match step.kind {
                StepKind::Refuse { errno } => format!("refuse {from}-{to} {errno}"),
                StepKind::Split { at, new_below } => {
                    let new = if new_below { "below" } else { "above" };
                    format!("split {from}-{to} at {} {new}", page(at))
                }
                StepKind::Detach => format!("detach {from}-{to}"),
                StepKind::Unlock => format!("unlock {from}-{to}"),
                StepKind::Announce => format!("announce {from}-{to}"),
                StepKind::Clear => format!("clear {from}-{to}"),
                StepKind::Call { hook, at, errno } => {
                    let at = if hook == Hook::MaySplit {
                        format!(" at {}", page(at))
                    } else {
                        String::new()
                    };
                    let errno = errno.map_or_else(String::new, |errno| format!(" {errno}"));
                    format!(
                        "{} {from}-{to}+{}{at}{errno}",
                        hook.name(),
                        step.page_offset
                    )
                }
                _ => "?".into(),
            }
        })
        .collect()
}

fn the_steps_of_munmap(lab: &Lab) -> Verdict {
    let device = looking()?;
    let addr = room(16);
    map_anonymous(addr, 4, RW, libc::MAP_FIXED).unwrap();
    lock(addr, 4).unwrap();
    //  0    2    4    6    8
    //  |AAAAAAAAA|         |
    let would = |from: usize, to: usize| {
        let would = device
            .would_unmap(addr + from * PAGE, (to - from) * PAGE)
            .unwrap();
        (would.errno, kinds(&would.steps, addr))
    };
    assert_eq!(would(8, 12), (None, vec![]));
    assert_eq!(
        would(1, 3),
        (
            None,
            [
                "split 0-4 at 1 below",
                "split 1-4 at 3 above",
                "detach 1-3",
                "unlock 1-3",
                "clear 1-3"
            ]
            .map(Into::into)
            .into()
        )
    );
    if lab.hooks(&lab.open(1)).is_some() {
        let object = lab.open(16);
        try_map(&object, addr + 6 * PAGE, 4, RW, SHARED | libc::MAP_FIXED, 5).unwrap();
        let before = lab.hooks(&object).unwrap();
        let steps = [
            "split 0-4 at 2 below",
            "detach 2-4",
            "unlock 2-4",
            "may_split 6-10+5 at 8",
            "split 6-10 at 8 above",
            "open 8-10+7",
            "detach 6-8",
            "clear 2-8",
            "close 6-8+5",
        ];
        assert_eq!(would(2, 8), (None, steps.map(Into::into).into()));
        let steps = [
            "may_split 6-10+5 at 7",
            "split 6-10 at 7 below",
            "open 6-7+5",
            "may_split 7-10+6 at 9",
            "split 7-10 at 9 above",
            "open 9-10+8",
            "detach 7-9",
            "clear 7-9",
            "close 7-9+6",
        ];
        assert_eq!(would(7, 9), (None, steps.map(Into::into).into()));
        assert_eq!(lab.hooks(&object).unwrap(), before, "no hook is called");
    }
    // What is refused, and which splits stay.
    map_anonymous(addr + 12 * PAGE, 2, RO, libc::MAP_FIXED).unwrap();
    if seal(addr + 12 * PAGE, 2).is_ok() {
        unmap(addr + 4 * PAGE, 8);
        let steps = [
            "split 0-4 at 2 below",
            "detach 2-4",
            "unlock 2-4",
            "refuse 12-14 1",
        ];
        assert_eq!(
            would(2, 14),
            (Some(libc::EPERM), steps.map(Into::into).into())
        );
        let would = device.would_unmap(addr + 2 * PAGE, 12 * PAGE).unwrap();
        assert_eq!((would.change.map_count, would.change.total_vm), (1, 0));
    }
    let within = |max| {
        let would = device.would_unmap_within(addr + PAGE, PAGE, max).unwrap();
        (would.errno, kinds(&would.steps, addr).len())
    };
    let count = device.areas_in(0..0).unwrap().counters.map_count;
    assert_eq!(within(count), (Some(libc::ENOMEM), 1));
    assert_eq!(within(count + 1), (None, 5));
    for (addr, length) in [
        (addr + 1, PAGE),
        (addr, 0),
        (addr, usize::MAX),
        (usize::MAX & !4095, 4096),
    ] {
        let would = device.would_unmap(addr, length).unwrap();
        assert_eq!((would.errno, would.steps.len()), (Some(libc::EINVAL), 0));
    }
    Ok(())
}

/// The counters, without allocating anything.
fn counters(device: &Device) -> [i64; 6] {
    let mut request = sys::vmalab_areas::default();
    ask(device, sys::VMALAB_IOC_AREAS, &mut request).unwrap();
    [
        request.map_count,
        request.total_vm,
        request.locked_vm,
        request.data_vm,
        request.exec_vm,
        request.stack_vm,
    ]
    .map(|count| count as i64)
}

/// What does not change when others come and go.
type Piece = (
    usize,
    usize,
    u64,
    u64,
    Option<(u32, u32)>,
    Option<u32>,
    bool,
);

fn pieces(device: &Device, addr: usize, pages: usize) -> Vec<Piece> {
    // A page more on both sides: nothing is there.
    let seen = device
        .areas_in(addr - PAGE..addr + (pages + 1) * PAGE)
        .unwrap();
    let piece = |area: &Area| {
        (
            area.start,
            area.end,
            area.flags,
            area.page_offset,
            area.file.map(|file| file.device),
            area.object,
            area.anon_vma.is_some(),
        )
    };
    seen.areas.iter().map(piece).collect()
}

/// What is left of the areas after these steps.
fn after(mut pieces: Vec<Piece>, steps: &[Step], done: bool) -> Vec<Piece> {
    for step in steps {
        match step.kind {
            StepKind::Split { at, .. } => {
                let index = pieces
                    .iter()
                    .position(|piece| piece.0 < at && at < piece.1)
                    .unwrap();
                let mut upper = pieces[index];
                pieces[index].1 = at;
                upper.3 += ((at - upper.0) / PAGE) as u64;
                upper.0 = at;
                pieces.insert(index + 1, upper);
            }
            StepKind::Detach if done => {
                let index = pieces
                    .iter()
                    .position(|piece| (piece.0, piece.1) == (step.start, step.end));
                pieces.remove(index.expect("an area of just that range"));
            }
            _ => {}
        }
    }
    pieces
}

/// A call of a hook: which, on what range and offset, its argument and its result.
type HookCall = (Hook, usize, usize, u64, u64, i32);

/// The calls that an object sees in these steps.
fn calls(steps: &[Step], object: u32) -> Vec<HookCall> {
    let of = steps.iter().filter(|step| step.object == Some(object));
    let call = |step: &Step| match step.kind {
        StepKind::Call { hook, at, errno } => Some((
            hook,
            step.start,
            step.end,
            step.page_offset * PAGE as u64,
            at as u64,
            errno.map_or(0, |errno| -errno),
        )),
        _ => None,
    };
    of.filter_map(call).collect()
}

/// The calls that somebody who watches an object has been told of since this was asked last.
fn watched(watch: &Watch) -> Vec<HookCall> {
    let call = |event: Event| {
        let range = event.range;
        (
            event.hook,
            range.start,
            range.end,
            event.offset,
            event.argument,
            event.result,
        )
    };
    assert_eq!(watch.state().unwrap().lost, 0);
    watch.take().unwrap().into_iter().map(call).collect()
}

/// An arena, and objects to map there.
struct World {
    /// Looks. If the objects are the module's, it is one of the first.
    device: Device,
    objects: [Device; 2],
    /// Of both objects, if they are the module's: which hooks munmap calls.
    watches: Vec<Watch>,
    addr: usize,
    pages: usize,
}

impl World {
    fn new(lab: &Lab, pages: usize) -> Result<Self, Skip> {
        let objects = [lab.open(64), lab.open(64)];
        let device = match lab.hooks(&objects[0]) {
            Some(_) => objects[0].try_clone().unwrap(),
            None => looking()?,
        };
        let hooks = Hook::MaySplit.mask() | Hook::Open.mask() | Hook::Close.mask();
        let watch = |object: &Device| object.watch().hooks(hooks).open().unwrap();
        let watches = match lab.hooks(&objects[0]) {
            Some(_) => objects.iter().map(watch).collect(),
            None => Vec::new(),
        };
        Ok(Self {
            device,
            objects,
            watches,
            addr: room(pages),
            pages,
        })
    }

    /// Asks what munmap would do, does it, and compares all there is to compare. Gives the errno and the
    /// number of steps.
    #[track_caller]
    fn foretell(&self, start: usize, length: usize) -> (Option<i32>, usize) {
        let device = &self.device;
        let would = device.would_unmap(start, length).unwrap();
        let before = pieces(device, self.addr, self.pages);
        for watch in &self.watches {
            watched(watch);
        }
        // Nothing is allocated from here on: that might be a new area.
        let mut changed = counters(device);
        let result = try_unmap(start, length);
        for (change, after) in changed.iter_mut().zip(counters(device)) {
            *change = after - *change;
        }

        let context = || {
            let steps: Vec<String> = would.steps.iter().map(ToString::to_string).collect();
            let steps = steps.join("\n");
            format!("munmap({start:#x}, {length:#x}) = {result:?} of {before:x?}\n{steps}")
        };
        let errno = result.err().map(|errno| errno as i32);
        assert_eq!(errno, would.errno, "{}", context());
        let change = &would.change;
        let expected = [
            change.map_count,
            change.total_vm,
            change.locked_vm,
            change.data_vm,
            change.exec_vm,
            change.stack_vm,
        ];
        assert_eq!(changed, expected, "{}", context());
        let left = after(before.clone(), &would.steps, errno.is_none());
        let found = pieces(device, self.addr, self.pages);
        assert_eq!(found, left, "{}", context());
        // 1 is the object of the descriptor that looks.
        for (watch, object) in self.watches.iter().zip(1..) {
            assert_eq!(watched(watch), calls(&would.steps, object), "{}", context());
        }
        (errno, would.steps.len())
    }

    /// Maps, protects, locks or touches something somewhere, if the kernel lets it.
    fn disturb(&self, random: &mut Random) {
        let page = random.below(self.pages);
        let pages = 1 + random.below((self.pages - page).min(12));
        let at = self.addr + page * PAGE;
        let object = &self.objects[random.below(2)];
        let prot = [
            RW,
            RO,
            RW | libc::PROT_EXEC,
            RO | libc::PROT_EXEC,
            libc::PROT_NONE,
        ];
        let prot = prot[random.below(5)];
        // Whether the kernel lets it does not matter.
        let _ = match random.below(10) {
            0..=1 => map_anonymous(at, pages, prot, libc::MAP_FIXED).map(drop),
            2..=4 => {
                let kind = KINDS[random.below(2)] | libc::MAP_FIXED;
                try_map(object, at, pages, prot, kind, random.below(64)).map(drop)
            }
            5 => {
                let flags =
                    libc::MAP_FIXED | [libc::MAP_GROWSDOWN, libc::MAP_LOCKED][random.below(2)];
                map_anonymous(at, pages, RW, flags).map(drop)
            }
            6 => protect(at, pages, prot),
            7 => lock(at, pages),
            8 => write_from_kernel(at, b"w"),
            _ => {
                let advice = [libc::MADV_DONTFORK, libc::MADV_DOFORK][random.below(2)];
                advise(at, pages, advice)
            }
        };
    }
}

/// `vm.max_map_count`, which is put back afterwards.
struct Limit(String);

impl Limit {
    const PATH: &'static str = "/proc/sys/vm/max_map_count";

    fn change() -> Result<Self, Skip> {
        let old = fs::read_to_string(Self::PATH).map_err(|error| Skip(error.to_string()))?;
        let limit = Self(old);
        fs::write(Self::PATH, &limit.0).map_err(|error| Skip(error.to_string()))?;
        Ok(limit)
    }

    fn set(&self, areas: i64) {
        fs::write(Self::PATH, areas.to_string()).unwrap();
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, &self.0);
    }
}

fn foretold_at_random(lab: &Lab) -> Verdict {
    let mut world = World::new(lab, 48)?;
    let limit = Limit::change()?;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut answers = BTreeMap::new();
    let mut steps = 0;
    for _ in 0..if lab.debug_kernel { 500 } else { 2000 } {
        for _ in 0..1 + random.below(6) {
            world.disturb(&mut random);
        }
        // What is sealed stays: the next ones happen elsewhere.
        let sealed = random.below(40) == 0
            && seal(
                world.addr + random.below(world.pages) * PAGE,
                1 + random.below(4),
            )
            .is_ok();
        for _ in 0..if sealed { 8 } else { 2 } {
            let page = random.below(world.pages);
            let pages = 1 + random.below(world.pages - page);
            let (mut start, mut length) = (world.addr + page * PAGE, pages * PAGE);
            match random.below(20) {
                0 => start += 1 + random.below(PAGE - 1),
                1 => length -= random.below(PAGE),
                2 => length = [0, usize::MAX, usize::MAX - start][random.below(3)],
                3 => (start, length) = (world.addr, world.pages * PAGE),
                _ => {}
            }
            if random.below(4) == 0 {
                limit.set(counters(&world.device)[0] + random.below(3) as i64);
            }
            let (errno, count) = world.foretell(start, length);
            *answers.entry(errno.unwrap_or(0)).or_insert(0_u64) += 1;
            steps += count as u64;
        }
        fs::write(Limit::PATH, &limit.0).unwrap();
        if sealed {
            world.addr = room(world.pages);
        }
    }
    for errno in [0, libc::EINVAL, libc::ENOMEM, libc::EPERM] {
        let times = answers.get(&errno).copied().unwrap_or(0);
        assert!(times > 2, "errno {errno}: {times} times in {answers:?}");
    }
    lab.row(
        "munmap foretold",
        answers.values().sum::<u64>() as f64,
        "calls",
    );
    lab.row("steps of munmap foretold", steps as f64, "steps");
    Ok(())
}

/// Huge pages are cut at their borders alone.
fn foretold_huge_pages(lab: &Lab) -> Verdict {
    const HUGE: usize = 512;
    let mut world = World::new(lab, 3 * HUGE)?;
    world.addr = room(8 * HUGE).next_multiple_of(HUGE * PAGE);
    // No page is needed as long as none is touched.
    let flags = libc::MAP_HUGETLB | libc::MAP_NORESERVE | libc::MAP_FIXED;
    for page in [0, 1, 2, HUGE - 1, HUGE, HUGE + 1, 2 * HUGE, 2 * HUGE + 7] {
        for pages in [1, HUGE - 1, HUGE, HUGE + 1, 2 * HUGE, 3 * HUGE] {
            if let Err(errno) = map_anonymous(world.addr, 3 * HUGE, RW, flags) {
                return Err(Skip::new(format!("no hugetlbfs: {errno}")));
            }
            let inside = page < 3 * HUGE;
            let (errno, _) = world.foretell(world.addr + page * PAGE, pages * PAGE);
            let end = (page + pages).min(3 * HUGE);
            let aligned = page % HUGE == 0 && end % HUGE == 0;
            assert_eq!(
                errno.is_none(),
                !inside || aligned,
                "{pages} pages from {page} on"
            );
            unmap(world.addr, 3 * HUGE);
        }
    }
    Ok(())
}

/// Areas of the kernel's own, and of other drivers, some of which cannot be cut.
fn foretold_others(lab: &Lab) -> Verdict {
    let mut world = World::new(lab, 6)?;
    let mut refused = 0;
    // SAFETY: a segment of its own, which goes with the last who has it.
    let segment = unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 6 * PAGE, 0o600);
        let addr = libc::shmat(id, std::ptr::null(), 0);
        libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        addr.expose_provenance()
    };
    if segment == usize::MAX && Errno::last() == Errno::ENOSYS {
        return Err(Skip::new("the kernel has no System V shared memory"));
    }
    assert_ne!(segment, usize::MAX, "shmat: {}", Errno::last());
    (world.addr, world.pages) = (segment, 6);
    assert_eq!(world.foretell(segment + PAGE, PAGE).0, None);
    assert_eq!(world.foretell(segment, 6 * PAGE).0, None);

    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines().filter(|line| line.contains("[v")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let hex = |text| usize::from_str_radix(text, 16);
        let (Ok(start), Ok(end)) = (hex(start), hex(end)) else {
            continue;
        };
        if start > usize::MAX / 2 || end - start < 2 * PAGE {
            continue;
        }
        (world.addr, world.pages) = (start, (end - start) / PAGE);
        for (start, length) in [(start, PAGE), (start + PAGE, end - start - PAGE)] {
            let (errno, _) = world.foretell(start, length);
            assert!(errno.is_some(), "{line}: a part of it was unmapped");
            refused += 1;
        }
        // vDSO and all: nothing here needs them once they are gone, but the clock.
    }
    assert!(refused > 0, "no area of the kernel's own has two pages");
    Ok(())
}

fn consistent_in_races(lab: &Lab) -> Verdict {
    let device = looking()?;
    let object = lab.open(64);
    let done = AtomicBool::new(false);
    let arenas = [room(64), room(64)];
    let mut readings = 0_u64;
    let mut changes = 0_u64;
    thread::scope(|scope| {
        for (seed, addr) in arenas.into_iter().enumerate() {
            // SAFETY: the descriptor lives longer than the threads.
            let fd = unsafe { BorrowedFd::borrow_raw(object.as_raw_fd()) };
            let done = &done;
            scope.spawn(move || {
                let mut random = Random(seed as u64 + 1);
                while !done.load(Ordering::Relaxed) {
                    let page = random.below(64);
                    let pages = 1 + random.below(64 - page);
                    let at = addr + page * PAGE;
                    match random.below(6) {
                        0 => unmap(at, pages),
                        1 => drop(map_anonymous(at, pages, RW, libc::MAP_FIXED).unwrap()),
                        2 => drop(try_map(fd, at, pages, RW, SHARED | libc::MAP_FIXED, page)),
                        3 => drop(lock(at, pages)),
                        4 => drop(write_from_kernel(at, b"w")),
                        _ => drop(protect(at, pages, RO)),
                    }
                }
            });
        }
        let finished = std::panic::catch_unwind(|| {
            let start = Instant::now();
            let mut last = Counters::default();
            let (mut readings, mut changes) = (0, 0);
            while changes < 200 && start.elapsed().as_secs() < 40 {
                let seen = device.areas().unwrap();
                check_recount(&seen);
                assert_eq!(seen.areas.len() as u64, seen.counters.map_count);
                for addr in arenas {
                    let would = device.would_unmap(addr, 64 * PAGE).unwrap();
                    assert_eq!(would.errno, None);
                }
                readings += 1;
                changes += u64::from(last != seen.counters);
                last = seen.counters;
            }
            (readings, changes)
        });
        done.store(true, Ordering::Relaxed);
        (readings, changes) = finished.unwrap();
    });
    assert!(changes > 10, "{changes} changes in {readings} readings");
    lab.row("readings while others map", readings as f64, "readings");
    Ok(())
}

fn at_the_limit(lab: &Lab) -> Verdict {
    let device = looking()?;
    let setting = Limit::change()?;
    if lab.debug_kernel {
        // It checks the whole tree of areas at each change.
        setting.set(4000);
    }
    let limit: usize = fs::read_to_string(Limit::PATH)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if limit > 200_000 {
        return Err(Skip::new(format!(
            "vm.max_map_count is {limit}: too many to reach"
        )));
    }
    // Room for the arrays that are filled later, while there may still be new areas.
    let array_pages = limit * size_of::<sys::vmalab_step>() * 2 / PAGE + 1;
    let array = map_anonymous(0, array_pages, RW, libc::MAP_POPULATE).unwrap();
    let filler = map_anonymous(0, 2 * limit, libc::PROT_NONE, libc::MAP_NORESERVE).unwrap();
    let full = (0..limit).find_map(|page| protect(filler + 2 * page * PAGE, 1, RO).err());
    assert_eq!(full, Some(Errno::ENOMEM));

    let kernel_memory = || kilobytes("/proc/meminfo", "VmallocUsed:");
    let before = kernel_memory();
    let capacity = limit + 100;
    let mut all = request(array, capacity);
    let start = Instant::now();
    ask(&device, sys::VMALAB_IOC_AREAS, &mut all).unwrap();
    let took = start.elapsed();
    assert_eq!(u64::from(all.filled), all.map_count);
    assert!(all.map_count + 2 >= limit as u64, "{} areas", all.map_count);
    lab.row(
        "reading all areas at vm.max_map_count",
        took.as_secs_f64() * 1e3,
        "ms",
    );

    // munmap of all of them: each a step, and the pages.
    let mut unmap = sys::vmalab_unmapping {
        addr: filler as u64,
        len: (2 * limit * PAGE) as u64,
        max_map_count: limit as u64,
        steps: array as u64,
        capacity: 2 * limit as u32,
        step_size: size_of::<sys::vmalab_step>() as u32,
        ..Default::default()
    };
    let start = Instant::now();
    ask(&device, sys::VMALAB_IOC_WOULD_UNMAP, &mut unmap).unwrap();
    let took = start.elapsed();
    lab.row(
        "foretelling munmap of all areas",
        took.as_secs_f64() * 1e3,
        "ms",
    );
    assert_eq!((unmap.error, unmap.count), (0, u64::from(unmap.filled)));
    assert_eq!(unmap.total_vm, -(2 * limit as i64));
    assert_eq!(unmap.map_count, 1 - unmap.count as i64);
    let after = kernel_memory();
    assert!(
        after < before + 1024,
        "{before} and {after} kB: the kernel keeps something"
    );

    let was = counters(&device);
    try_unmap(filler, 2 * limit * PAGE).unwrap();
    let is = counters(&device);
    assert_eq!(
        (is[0] - was[0], is[1] - was[1]),
        (unmap.map_count, unmap.total_vm)
    );
    Ok(())
}
