// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! How long an object lives: as long as a descriptor or an area refers to it.

use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd},
};

use nix::{errno::Errno, unistd::dup};
use vmalab::Device;

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::both("lifetime::closed_before_munmap", closed_before_munmap),
    Test::both("lifetime::two_opens_do_not_share", two_opens_do_not_share),
    Test::both("lifetime::dup_and_fork_share", dup_and_fork_share),
    Test::both("lifetime::read_only_descriptors", read_only_descriptors),
    Test::both("lifetime::thousands_of_objects", thousands_of_objects),
    Test::device("lifetime::counts_go_back_to_zero", counts_go_back_to_zero),
    Test::device("lifetime::a_second_open_of_the_descriptor", a_second_open),
    Test::device("lifetime::counts_in_debugfs", counts_in_debugfs),
];

fn closed_before_munmap(lab: &Lab) -> Verdict {
    for kind in KINDS {
        let object = lab.open(6);
        let addr = map(&object, kind, 0, 6);
        letters(addr, 3, 'A');
        drop(object);
        assert_eq!(look(addr, 6), "ABC000");
        letters(addr + 4 * PAGE, 1, 'E');
        unmap(addr + PAGE, 1);
        assert_eq!(look(addr, 6), "A.C0E0");
        child(|| assert_eq!(look(addr, 6), "A.C0E0"));
        unmap(addr, 6);
        assert_eq!(look(addr, 6), "......");
    }
    Ok(())
}

fn two_opens_do_not_share(lab: &Lab) -> Verdict {
    let (one, other) = (lab.open(2), lab.open(2));
    let (addr, elsewhere) = (map(&one, SHARED, 0, 2), map(&other, SHARED, 0, 2));
    letters(addr, 1, 'A');
    letters(elsewhere + PAGE, 1, 'Z');
    assert_eq!(
        (look(addr, 2), look(elsewhere, 2)),
        ("A0".into(), "0Z".into())
    );
    Ok(())
}

fn dup_and_fork_share(lab: &Lab) -> Verdict {
    let object = lab.open(3);
    let copy = dup(&object).unwrap();
    let addr = map(&object, SHARED, 0, 3);
    drop(object);
    let elsewhere = map(&copy, SHARED, 0, 3);
    letters(addr, 1, 'A');
    child(|| letters(map(&copy, SHARED, 0, 3) + PAGE, 1, 'B'));
    assert_eq!(
        (look(addr, 3), look(elsewhere, 3)),
        ("AB0".into(), "AB0".into())
    );
    Ok(())
}

fn read_only_descriptors(lab: &Lab) -> Verdict {
    let device = lab.open(2);
    let path = format!("/proc/self/fd/{}", device.as_raw_fd());
    let file = File::open(path).unwrap();
    assert_eq!(try_map(&file, 0, 1, RW, SHARED, 0), Err(Errno::EACCES));
    let shared = try_map(&file, 0, 1, RO, SHARED, 0).unwrap();
    assert_eq!(protect(shared, 1, RW), Err(Errno::EACCES));
    assert_eq!(
        fault(shared, Access::Write),
        Some((libc::SIGSEGV, SEGV_ACCERR, true))
    );
    let private = map(&file, PRIVATE, 0, 1);
    letters(private, 1, 'P');
    assert_eq!(look(private, 1), "P");

    let path = format!("/proc/self/fd/{}", device.as_raw_fd());
    let write_only = File::options().write(true).open(path).unwrap();
    for kind in KINDS {
        assert_eq!(try_map(&write_only, 0, 1, RW, kind, 0), Err(Errno::EACCES));
    }
    Ok(())
}

fn thousands_of_objects(lab: &Lab) -> Verdict {
    for _ in 0..lab.many(2000, 200) {
        let object = lab.open(2);
        let addr = map(&object, SHARED, 0, 2);
        letters(addr, 1, 'A');
        drop(object);
        unmap(addr + PAGE, 1);
        unmap(addr, 1);
    }
    Ok(())
}

fn counts_go_back_to_zero(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let watch = Device::open().unwrap();
    let alive = || {
        let stats = watch.module_stats().unwrap();
        (stats.objects - 1, stats.areas, stats.pages)
    };
    assert_eq!(alive(), (0, 0, 0));
    let object = lab.open(4);
    assert_eq!(alive(), (1, 0, 0));
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 3, 'A');
    assert_eq!(alive(), (1, 1, 3));
    unmap(addr + PAGE, 1);
    assert_eq!(alive(), (1, 2, 3));
    drop(object);
    assert_eq!(alive(), (1, 2, 3));
    unmap(addr, 1);
    assert_eq!(alive(), (1, 1, 3));
    unmap(addr, 4);
    assert_eq!(alive(), (0, 0, 0));
    Ok(())
}

/// Unlike a memfd, opening the node again through /proc is an open: a new object.
fn a_second_open(lab: &Lab) -> Verdict {
    let object = lab.open(1);
    letters(map(&object, SHARED, 0, 1), 1, 'A');
    let path = format!("/proc/self/fd/{}", object.as_fd().as_raw_fd());
    let other = Device::open_at(path).unwrap();
    other.set_size(PAGE as u64).unwrap();
    assert_eq!(look(map(&other, SHARED, 0, 1), 1), "0");
    Ok(())
}

fn counts_in_debugfs(lab: &Lab) -> Verdict {
    lab.single_pages()?;
    let folder = "/sys/kernel/debug/vmalab";
    if !fs::exists(folder).unwrap_or(false) {
        return Err(Skip::new(format!("no {folder}: debugfs is not mounted")));
    }
    let read = |name: &str| -> u64 {
        let text = fs::read_to_string(format!("{folder}/{name}")).unwrap();
        text.trim().parse().unwrap()
    };
    let alive = || (read("objects"), read("areas"), read("pages"));
    assert_eq!(alive(), (0, 0, 0));
    let object = lab.open(4);
    let addr = map(&object, SHARED, 0, 4);
    letters(addr, 2, 'A');
    unmap(addr + PAGE, 1);
    assert_eq!(alive(), (1, 2, 2));
    unmap(addr, 4);
    drop(object);
    assert_eq!(alive(), (0, 0, 0));
    Ok(())
}
