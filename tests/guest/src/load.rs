// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Loading and unloading the module. These come last: they need that nobody else uses it.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::Read,
    os::fd::AsFd,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    errno::Errno,
    kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module},
    sys::uio::pwrite,
};
use vmalab::Device;

use crate::{
    lab::Lab,
    log::KernelLog,
    mem::*,
    run::{Skip, Test, Verdict, child},
    watch,
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("load::refused_while_open", refused_while_open),
    Test::device("load::refused_while_mapped", refused_while_mapped),
    Test::device("load::while_it_is_looked_at", while_looked_at),
    Test::device("load::a_hundred_times", a_hundred_times),
    Test::device("load::while_others_open", while_others_open),
    Test::device("load::limits_of_all_objects", limits),
    Test::device("load::what_fits_is_not_refused", what_fits),
    Test::device("load::parameters", parameters).logs(),
    Test::device("load::half_of_the_memory", half),
];

const NAME: &CStr = c"vmalab";

/// rmmod.
pub(crate) fn remove() -> Result<(), Errno> {
    delete_module(NAME, DeleteModuleFlags::O_NONBLOCK)
}

/// The module, or why it cannot be loaded again.
pub(crate) fn module(lab: &Lab) -> Result<File, Skip> {
    let Some(path) = &lab.module else {
        return Err(Skip::new("it needs --module vmalab.ko to load it again"));
    };
    File::open(path).map_err(|error| Skip(format!("cannot open {}: {error}", path.display())))
}

fn insert(module: &File) {
    insert_with(module, c"");
}

fn insert_with(module: &File, parameters: &CStr) {
    try_insert(module, parameters).unwrap();
}

/// insmod.
pub(crate) fn try_insert(module: &File, parameters: &CStr) -> Result<(), Errno> {
    finit_module(module.as_fd(), parameters, ModuleInitFlags::empty())
}

fn refused_while_open(lab: &Lab) -> Verdict {
    let object = lab.open(1);
    assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
    letters(map(&object, SHARED, 0, 1), 1, 'A');
    Ok(())
}

fn refused_while_mapped(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(4);
        let addr = map(&object, kind, 0, 4);
        letters(addr, 3, 'A');
        drop(object);
        assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
        unmap(addr + PAGE, 1);
        assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
        unmap(addr, 1);
        assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
        letters(addr + 3 * PAGE, 1, 'D');
        assert_eq!(look(addr, 4), "..CD");
        // Only a child has it.
        child(|| {
            unmap(addr + 2 * PAGE, 1);
            assert_eq!(remove(), Err(Errno::EWOULDBLOCK));
        });
        unmap(addr, 4);
    }
    Ok(())
}

/// Who counts the module's events, or has its files open, keeps it, or is left with something that ends.
fn while_looked_at(lab: &Lab) -> Verdict {
    let file = module(lab)?;
    let used = || {
        let object = lab.open(2);
        let addr = map(&object, SHARED, 0, 2);
        letters(addr, 2, 'A');
        unmap(addr, 2);
    };
    // perf takes a reference (`trace_event_try_get_ref`).
    let counter = watch::perf_counter()?;
    used();
    assert_eq!(remove(), Err(Errno::EWOULDBLOCK), "an event is counted");
    drop(counter);
    // So has the file with a line for each object an owner.
    let directory = Path::new("/sys/kernel/debug/vmalab");
    let list = File::open(directory.join("list")).unwrap();
    assert_eq!(remove(), Err(Errno::EWOULDBLOCK), "the list is open");
    drop(list);
    // Files of counts are the kernel's own: they tell nothing more.
    let counts: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with("list"))
        .map(|path| File::open(path).unwrap())
        .collect();
    assert!(!counts.is_empty());
    // An event that is written to the trace goes with its module (`trace_module_remove_events`).
    let enable = "/sys/kernel/tracing/events/vmalab/vmalab_hook/enable";
    fs::write(enable, "1").unwrap();
    used();
    remove().unwrap();
    for mut count in &counts {
        assert!(
            count.read(&mut [0; 8]).is_err(),
            "a count without its module"
        );
    }
    assert!(!Path::new(enable).exists());
    insert(&file);
    drop(counts);
    assert_eq!(fs::read_to_string(enable).unwrap().trim(), "0");
    used();
    Ok(())
}

/// What is free, and what the slab holds that it cannot give back, in KiB.
fn kernel_memory() -> [f64; 2] {
    // Empties the caches that could be emptied at any other time, too, and adds up the counts of
    // the processors.
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    fs::read("/proc/sys/vm/stat_refresh").unwrap();
    let zones = fs::read_to_string("/proc/zoneinfo").unwrap();
    // Each processor's own stock of free pages, which MemFree leaves out.
    let counts = zones
        .lines()
        .filter_map(|line| line.trim().strip_prefix("count:"));
    let stock: usize = counts
        .map(|count| count.trim().parse::<usize>().unwrap())
        .sum();
    let free = kilobytes("/proc/meminfo", "MemFree:") as usize + stock * PAGE / 1024;
    [
        free as f64,
        kilobytes("/proc/meminfo", "SUnreclaim:") as f64,
    ]
}

/// Ten rounds of ten, after one that does not count. What the kernel caches for itself takes some
/// ten KiB now and then; a leak takes the same in each round. So it is the median round that must
/// take less than half a page for each load, in which a leak of one page shows, and of half a KiB in
/// the slab. Smaller ones need a kernel with kmemleak.
fn a_hundred_times(lab: &Lab) -> Verdict {
    const PER_ROUND: usize = 10;
    let rounds = lab.many(10, 2);
    // In KiB for each load.
    const FREE_TOLERANCE: f64 = 2.0;
    const SLAB_TOLERANCE: f64 = 0.5;
    let file = module(lab)?;
    let mut log = KernelLog::from_now_on().ok_or_else(|| Skip::new("no /dev/kmsg"))?;
    let round = || {
        for _ in 0..PER_ROUND {
            remove().unwrap();
            insert(&file);
            let object = lab.open(2);
            let addr = map(&object, SHARED, 0, 2);
            letters(addr, 2, 'A');
            unmap(addr, 1);
            drop(object);
            unmap(addr, 2);
        }
        kernel_memory()
    };
    // What only the first times allocate is no leak.
    let mut samples = vec![round()];
    samples.extend((0..rounds).map(|_| round()));
    assert_eq!(log.warnings(), Vec::<String>::new());

    // In KiB for each load, in the median round.
    let change = |which: usize| {
        let pairs = samples.windows(2);
        let mut change: Vec<f64> = pairs.map(|pair| pair[1][which] - pair[0][which]).collect();
        change.sort_by(f64::total_cmp);
        change[rounds / 2] / PER_ROUND as f64
    };
    let (lost, slab) = (0.0 - change(0), change(1));
    lab.row(
        "free memory lost by one insmod and rmmod, median",
        lost,
        "KiB",
    );
    lab.row("slab gained by one insmod and rmmod", slab, "KiB");
    // What a kernel that checks itself keeps of each module, and of what was freed, is no leak, and its few rounds
    // have no median: there, kmemleak looks.
    assert!(
        lab.debug_kernel || lost < FREE_TOLERANCE,
        "{lost} KiB of free memory lost each time"
    );
    assert!(
        lab.debug_kernel || slab < SLAB_TOLERANCE,
        "{slab} KiB of slab gained each time"
    );
    Ok(())
}

/// rmmod comes at any moment of an open: one of them wins, and nothing breaks.
fn while_others_open(lab: &Lab) -> Verdict {
    const TIMES: u32 = 10;
    let file = module(lab)?;
    let done = AtomicBool::new(false);
    let opener = || {
        let mut opened = 0;
        while !done.load(Ordering::Relaxed) {
            if let Ok(device) = Device::open() {
                device.set_size(PAGE as u64).unwrap();
                let addr = map(&device, SHARED, 0, 1);
                drop(device);
                letters(addr, 1, 'A');
                unmap(addr, 1);
                opened += 1;
            }
            thread::yield_now();
        }
        opened
    };
    thread::scope(|scope| {
        let opener = scope.spawn(opener);
        let (mut removed, mut refused) = (0, 0);
        while removed < TIMES {
            match remove() {
                Ok(()) => {
                    removed += 1;
                    insert(&file);
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::EWOULDBLOCK);
                    refused += 1;
                }
            }
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        lab.row(
            "opens during insmod and rmmod",
            opener.join().unwrap().into(),
            "calls",
        );
        lab.row("rmmods refused meanwhile", refused.into(), "calls");
    });
    Ok(())
}

/// As many objects and pages as the parameters say, as tmpfs has inodes and blocks: ENOSPC, and SIGBUS
/// where there is no errno.
fn limits(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let file = module(lab)?;
    remove().unwrap();
    insert_with(&file, c"max_objects=2 max_pages=8");
    child(|| {
        let (one, other) = (lab.open(8), lab.open(8));
        assert_eq!(Device::open().unwrap_err().errno(), libc::ENOSPC);
        let (here, there) = (map(&one, SHARED, 0, 8), map(&other, PRIVATE, 0, 8));
        letters(here, 6, 'A');
        letters(there, 2, 'a');
        assert_eq!(
            (look(here, 8), look(there, 8)),
            ("ABCDEF!!".into(), "ab!!!!!!".into())
        );
        let full = Some((libc::SIGBUS, BUS_ADRERR, true));
        assert_eq!(fault(here + 7 * PAGE, Access::Write), full);
        assert_eq!(pwrite(&one, b"x", 6 * PAGE as i64), Err(Errno::ENOSPC));
        // What is there can be written to; up to where there is nothing.
        assert_eq!(pwrite(&one, &[b'x'; 2 * PAGE], 5 * PAGE as i64), Ok(PAGE));
        assert_eq!(one.module_stats().unwrap().pages, 8);

        // What one gives back, the other can have.
        lab.resize(&one, 4);
        letters(there + 6 * PAGE, 2, 'g');
        assert_eq!(look(there, 8), "ab!!!!gh");
        drop(one);
        assert_eq!(
            Device::open().unwrap_err().errno(),
            libc::ENOSPC,
            "it is mapped"
        );
        unmap(here, 8);
        let third = lab.open(8);
        assert_eq!(pwrite(&third, &[b'x'; 8 * PAGE], 0), Ok(4 * PAGE));
    });
    remove().unwrap();
    insert(&file);
    Ok(())
}

/// An attempt that does not fit, of a piece or of an object, takes nothing from others, not even for a moment.
fn what_fits(lab: &Lab) -> Verdict {
    const PIECE: usize = 512;
    let rounds = lab.many(100_000, 5_000);
    let file = module(lab)?;
    remove().unwrap();
    // A piece and a page for the one object, a page for the other.
    insert_with(&file, c"max_objects=2 max_pages=514");
    child(|| {
        let (large, small) = (lab.open(2 * PIECE), lab.open(1));
        large.set_folio_size((PIECE * PAGE) as u64).unwrap();
        letters(map(&large, SHARED, 0, 2 * PIECE), 1, 'A');
        assert_eq!(large.stats().unwrap().pages as usize, PIECE);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // There is no room for the second piece, but for a page of it.
                let second = (PIECE * PAGE) as u64;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(pwrite(&large, b"x", second as i64), Ok(1));
                    large.punch_hole(second..second + PAGE as u64).unwrap();
                }
            });
            let refused = (0..rounds).find(|_| {
                let written = pwrite(&small, b"x", 0);
                small.punch_hole(0..PAGE as u64).unwrap();
                written != Ok(1)
            });
            done.store(true, Ordering::Relaxed);
            assert_eq!(refused, None, "the round in which it was");
        });
    });
    remove().unwrap();
    insert(&file);
    Ok(())
}

/// What the parameters say of fresh objects, and which values the module is not loaded with.
fn parameters(lab: &Lab) -> Verdict {
    let file = module(lab)?;
    remove().unwrap();
    let refused = [
        c"max_object_size=9223372036854771713",
        c"object_size=8192 max_object_size=8191",
        c"folio_size=0",
        c"folio_size=2048",
        c"folio_size=12288",
        c"folio_size=4194304",
    ];
    for parameters in refused {
        assert_eq!(
            try_insert(&file, parameters),
            Err(Errno::EINVAL),
            "{parameters:?}"
        );
    }
    insert_with(
        &file,
        c"object_size=12289 max_object_size=65536 folio_size=16384",
    );
    child(|| {
        let object = Device::open().unwrap();
        // Whole pages.
        assert_eq!(object.size().unwrap(), 4 * PAGE as u64);
        assert_eq!(object.folio_size().unwrap(), 4 * PAGE as u64);
        letters(map(&object, SHARED, 0, 4), 1, 'A');
        assert_eq!(object.stats().unwrap().pages, 4);
        object.set_folio_size(PAGE as u64).unwrap();
        object.set_size(65536).unwrap();
        assert_eq!(object.set_size(65537).unwrap_err().errno(), libc::EFBIG);
    });
    remove().unwrap();
    // The largest that there can be.
    insert_with(
        &file,
        c"object_size=9223372036854771712 max_object_size=9223372036854771712",
    );
    child(|| {
        let object = Device::open().unwrap();
        assert_eq!(object.size().unwrap(), i64::MAX as u64 - 4095);
        assert_eq!(pwrite(&object, b"x", i64::MAX - 4096), Ok(1));
    });
    remove().unwrap();
    insert(&file);
    Ok(())
}

/// Pages are not swapped: all of them together are no more than half of the memory, if nothing else is said.
fn half(lab: &Lab) -> Verdict {
    const PIECE: usize = 512;
    module(lab)?;
    let memory = kilobytes("/proc/meminfo", "MemTotal:") as usize * 1024 / PAGE;
    child(|| {
        let object = Device::open().unwrap();
        object.set_size((memory * PAGE) as u64).unwrap();
        // In the largest pieces: the quickest way to many pages.
        object.set_folio_size((PIECE * PAGE) as u64).unwrap();
        let pages = || object.stats().unwrap().pages as usize;
        let touch = |page: usize| pwrite(&object, b"x", (page * PAGE) as i64);
        let mut at = 0;
        while pages() + PIECE <= memory / 2 {
            touch(at).unwrap();
            at += PIECE;
        }
        let full = (at..).find(|page| touch(*page).is_err()).unwrap();
        assert_eq!(touch(full), Err(Errno::ENOSPC));
        assert_eq!(pages(), memory / 2);
    });
    Ok(())
}
