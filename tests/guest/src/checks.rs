// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Whether a kernel that checks itself still does, when all other tests are done: what has reported once often
//! says nothing more, and what is not switched on says nothing at all.

use std::{fs, path::Path};

use crate::{
    lab::Lab,
    run::{Skip, Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[Test::device("checks::are_on", are_on)];

fn are_on(lab: &Lab) -> Verdict {
    if !lab.debug_kernel {
        return Err(Skip::new("the kernel does not check itself"));
    }
    // lockdep switches itself off with its first report, and when it runs out of its own memory.
    let stats = fs::read_to_string("/proc/lockdep_stats").unwrap();
    let line = stats.lines().find(|line| line.contains("debug_locks:"));
    let on = line.and_then(|line| line.split_whitespace().last());
    assert_eq!(on, Some("1"), "lockdep: {line:?}");
    // These two need a word on the command line.
    let words = fs::read_to_string("/proc/cmdline").unwrap();
    let mut words = words.split_whitespace();
    assert!(
        words.any(|word| word == "page_poison=1"),
        "no page_poison=1"
    );
    for file in [
        "/sys/kernel/debug/page_owner",
        "/sys/kernel/debug/kmemleak",
        "/sys/kernel/debug/failslab",
        "/sys/kernel/debug/fail_page_alloc",
        "/sys/kernel/debug/fail_usercopy",
        "/proc/thread-self/fail-nth",
    ] {
        assert!(Path::new(file).exists(), "no {file}");
    }
    Ok(())
}
