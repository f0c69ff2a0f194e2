// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What kmemleak finds when all other tests are done, on a kernel that has it: memory of the kernel
//! that nobody refers to any more.

use std::{fs, path::Path, thread, time::Duration};

use crate::{
    lab::Lab,
    run::{Test, Verdict},
};

pub(crate) const TESTS: &[Test] = &[Test::device("leaks::kmemleak_finds_none", none_found)];

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Scans twice: what was on its way from one place to another at the first scan has arrived at the
/// second. That one waits until nothing is younger than the five seconds below which kmemleak says
/// nothing.
fn none_found(lab: &Lab) -> Verdict {
    if !Path::new(KMEMLEAK).exists() {
        return Err(lab.not_there("the kernel has no kmemleak"));
    }
    // Of an error in itself, kmemleak switches itself off, and refuses.
    let scan = || fs::write(KMEMLEAK, "scan").expect("kmemleak scans");
    scan();
    thread::sleep(Duration::from_secs(6));
    scan();
    let found = fs::read_to_string(KMEMLEAK).unwrap();
    assert!(found.is_empty(), "{found}");
    Ok(())
}
