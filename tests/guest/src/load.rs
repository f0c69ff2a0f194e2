// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Loading and unloading the module. These come last: they need that nobody else uses it.

use std::{fs::File, os::fd::AsFd, thread};

use nix::{
    errno::Errno,
    kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module},
};

use crate::{
    lab::Lab,
    log::KernelLog,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("load::refused_while_open", refused_while_open),
    Test::device("load::refused_while_mapped", refused_while_mapped),
    Test::device("load::a_hundred_times", a_hundred_times),
    Test::device("load::while_others_open", while_others_open),
];

const NAME: &std::ffi::CStr = c"vmalab";

fn remove() -> Result<(), Errno> {
    delete_module(NAME, DeleteModuleFlags::O_NONBLOCK)
}

/// The module, or why it cannot be loaded again.
fn module(lab: &Lab) -> Result<File, Skip> {
    let Some(path) = &lab.module else {
        return Err(Skip::new("it needs --module vmalab.ko to load it again"));
    };
    File::open(path).map_err(|error| Skip(format!("cannot open {}: {error}", path.display())))
}

fn insert(module: &File) {
    finit_module(module.as_fd(), c"", ModuleInitFlags::empty()).unwrap();
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

/// Bytes that the kernel has in use for itself, as far as /proc/meminfo tells.
fn kernel_memory() -> (u64, u64) {
    // Empties the caches that could be emptied at any other time, too.
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let kilobytes = |key| kilobytes("/proc/meminfo", key);
    (kilobytes("MemFree:"), kilobytes("SUnreclaim:"))
}

fn a_hundred_times(lab: &Lab) -> Verdict {
    const TIMES: u64 = 100;
    // Per load. The module's text, data and tables take more than 64 KiB, and so does any object
    // that is left behind with its page tables; what is free fluctuates by a few hundred KiB in all
    // from the kernel's own caches (per-processor lists, RCU, freed vmalloc ranges).
    const FREE_TOLERANCE: f64 = 16.0;
    const SLAB_TOLERANCE: f64 = 4.0;
    let file = module(lab)?;
    let cycle = |times| {
        for _ in 0..times {
            remove().unwrap();
            insert(&file);
            let object = lab.open(2);
            let addr = map(&object, SHARED, 0, 2);
            letters(addr, 2, 'A');
            unmap(addr, 1);
            drop(object);
            unmap(addr, 2);
        }
    };
    // What only the first times allocate is no leak.
    cycle(20);
    let mut log = KernelLog::from_now_on().ok_or_else(|| Skip::new("no /dev/kmsg"))?;
    let before = kernel_memory();
    cycle(TIMES);
    let after = kernel_memory();
    assert_eq!(log.warnings(), Vec::<String>::new());

    let lost = (before.0 as f64 - after.0 as f64) / TIMES as f64;
    let slab = (after.1 as f64 - before.1 as f64) / TIMES as f64;
    lab.row("free memory lost by one insmod and rmmod", lost, "KiB");
    lab.row("slab gained by one insmod and rmmod", slab, "KiB");
    assert!(
        lost < FREE_TOLERANCE,
        "{lost} KiB of free memory lost each time"
    );
    assert!(slab < SLAB_TOLERANCE, "{slab} KiB of slab gained each time");
    Ok(())
}

/// rmmod comes at any moment of an open: one of them wins, and nothing breaks.
fn while_others_open(lab: &Lab) -> Verdict {
    let file = module(lab)?;
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let opener = scope.spawn(|| {
            let mut opened = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(device) = vmalab::Device::open() {
                    device.set_size(PAGE as u64).unwrap();
                    let addr = map(&device, SHARED, 0, 1);
                    drop(device);
                    letters(addr, 1, 'A');
                    unmap(addr, 1);
                    opened += 1;
                }
            }
            opened
        });
        let mut removed = 0;
        for _ in 0..300 {
            match remove() {
                Ok(()) => {
                    removed += 1;
                    insert(&file);
                }
                Err(errno) => assert_eq!(errno, Errno::EWOULDBLOCK),
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        lab.row(
            "opens during insmod and rmmod",
            opener.join().unwrap().into(),
            "calls",
        );
        lab.row("rmmods during opens", removed.into(), "calls");
    });
    Ok(())
}
