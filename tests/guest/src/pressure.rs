// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the module gives back when memory is short: pages that were allocated ahead and never used.

use std::fs;

use nix::sys::uio::pwrite;
use vmalab::HookSet;

use crate::{
    lab::Lab,
    mem::*,
    run::{Skip, Test, Verdict, child},
};

pub(crate) const TESTS: &[Test] = &[
    Test::device("pressure::only_what_was_never_used_is_freed", only_unused),
    Test::device("pressure::what_is_told_as_written_stays", written_stays),
    Test::device("pressure::it_makes_room", it_makes_room),
];

/// Has the kernel call all shrinkers.
fn drop_slab() -> Result<(), Skip> {
    fs::write("/proc/sys/vm/drop_caches", "2")
        .map_err(|error| Skip(format!("no drop_caches: {error}")))
}

fn only_unused(lab: &Lab) -> Verdict {
    const PAGES: usize = 600;
    let object = lab.open(PAGES);
    let addr = map(&object, SHARED, 0, PAGES);
    // Touched, not allocated ahead: they stay even if they are zeros.
    look(addr, 4);
    object.allocate(0..(PAGES * PAGE) as u64).unwrap();
    lab.check_pages(&object, PAGES as u64);
    letters(addr + 10 * PAGE, 3, 'A');
    assert_eq!(pwrite(&object, b"w", 20 * PAGE as i64), Ok(1));
    letters(map(&object, PRIVATE, 30, 2), 2, 'p');
    // Written to and unmapped again.
    letters(addr + 40 * PAGE, 2, 'a');
    advise(addr, PAGES, libc::MADV_DONTNEED).unwrap();

    drop_slab()?;
    let left = object.stats().unwrap().pages;
    // A page that was only read is as good as a hole when nobody maps it.
    assert!(
        (4 + 3 + 1 + 2..4 + 3 + 1 + 2 + 2 + 62).contains(&left),
        "{left} pages left"
    );
    assert_eq!(object.module_stats().unwrap().pages, left);
    assert_eq!(
        (look(addr + 10 * PAGE, 4), look(addr + 40 * PAGE, 2)),
        ("ABC0".into(), "ab".into())
    );
    assert_eq!(read_by_kernel(addr + 20 * PAGE, 2), Ok(b"w\0".into()));
    assert!(
        look(addr + 50 * PAGE, PAGES - 50)
            .chars()
            .all(|letter| letter == '0')
    );

    // What came back was touched: it stays.
    let left = object.stats().unwrap().pages;
    drop_slab()?;
    assert_eq!(object.stats().unwrap().pages, left);
    lab.resize(&object, 0);
    lab.check_pages(&object, 0);
    Ok(())
}

/// A page that counts as not written any more is not one that never was.
fn written_stays(lab: &Lab) -> Verdict {
    const PAGES: usize = 64;
    let object = lab.open(PAGES);
    object.allocate(0..(PAGES * PAGE) as u64).unwrap();
    object.set_hooks(HookSet::PageMkwrite).unwrap();
    let addr = map(&object, SHARED, 0, PAGES);
    letters(addr + PAGE, 5, 'A');
    let written = object.take_written(0..(PAGES * PAGE) as u64).unwrap();
    let (page, told) = (PAGE as u64, written.ranges.first().cloned());
    assert_eq!((written.ranges.len(), told), (1, Some(page..6 * page)));
    unmap(addr, PAGES);
    drop_slab()?;
    assert_eq!(look(map(&object, SHARED, 0, 7), 7), "0ABCDE0");
    Ok(())
}

/// More is allocated ahead than would leave enough for the process: it gets it nevertheless.
fn it_makes_room(lab: &Lab) -> Verdict {
    // What the kernel keeps back for a while after it gave huge pages could be more than it has left to give.
    let boost = "/proc/sys/vm/watermark_boost_factor";
    fs::write(boost, "0").map_err(|error| Skip(format!("{boost}: {error}")))?;
    let free = || kilobytes("/proc/meminfo", "MemAvailable:") as usize * 1024;
    // Objects may have half of the memory together: so the other half is taken before, in large pieces. A kernel
    // that checks itself takes minutes for all of the rest: there, less is left, and more is taken of it, since
    // MemAvailable is less than there is.
    let (most, share) = match lab.debug_kernel {
        true => (free() / 4 * 3 / PAGE, 14),
        false => (free() / 2 / PAGE, 10),
    };
    let taken = map_anonymous(0, most, RW, libc::MAP_NORESERVE).unwrap();
    advise(taken, most, libc::MADV_HUGEPAGE).unwrap();
    advise(taken, most, libc::MADV_POPULATE_WRITE).unwrap();
    let free = free();
    let ahead = free / 20 * 16;
    let object = lab.open(ahead / PAGE);
    // The shrinker comes to it, too, and has to come back.
    let _other = lab.open(1);
    object.allocate(0..(ahead / PAGE * PAGE) as u64).unwrap();
    assert_eq!(pwrite(&object, b"kept", 0), Ok(4));
    let before = object.stats().unwrap().pages;
    assert_eq!(before, (ahead / PAGE) as u64);
    child(|| {
        let pages = free / 20 * share / PAGE;
        let addr = map_anonymous(0, pages, RW, libc::MAP_NORESERVE).unwrap();
        for page in 0..pages {
            // SAFETY: it was just mapped.
            unsafe { pointer(addr + page * PAGE).write_volatile(1) };
        }
    });
    let left = object.stats().unwrap().pages;
    lab.row(
        "pages allocated ahead under pressure: before",
        before as f64,
        "pages",
    );
    lab.row(
        "pages allocated ahead under pressure: left",
        left as f64,
        "pages",
    );
    // MemAvailable is less than there is: not all that the process takes has to come from here.
    assert!(left < before * 19 / 20, "{left} pages of {before} are left");
    assert_eq!(
        read_by_kernel(map(&object, SHARED, 0, 1), 4),
        Ok(b"kept".into())
    );
    unmap(taken, most);
    Ok(())
}
