// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What real kernels answered, the model answers by the rules of their era: every value, all areas, all counters.

use std::path::Path;

use vmalab_model::{Mistake, Rules};
use vmalab_vectors::{Recording, replay};

fn recording(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    Recording::load(&path).unwrap()
}

/// All operations must be compared, so that a reader that skips too much is no success.
fn agrees(mode: &str, kernel: &str, sequences: usize) {
    let name = format!("{mode}.{kernel}.jsonl.xz");
    let rules = Rules::for_kernel(kernel).expect("an era");
    let report = replay(&recording(&name), *rules, usize::MAX).unwrap();
    if let Some(first) = report.first {
        panic!(
            "{name}: {} of {} sequences differ; the first:\n{first}",
            report.differ, report.sequences
        );
    }
    assert_eq!(
        (report.sequences, report.compared, report.skipped),
        (sequences, 40 * sequences, 0),
        "{name}: unknown: {:?}",
        report.unknown
    );
}

const KERNELS: [&str; 8] = ["2.6.11", "4.9", "4.12", "5.10", "6.1", "6.12", "7.2", "7.3"];

/// Addresses inside an arena; limits on the number of areas among the sequences.
#[test]
fn fixed() {
    for kernel in KERNELS {
        // Some processes of 2.6.11 unmapped their own stack.
        agrees("fixed", kernel, if kernel == "2.6.11" { 967 } else { 975 });
    }
}

/// The kernel chooses the address.
#[test]
fn free() {
    for kernel in KERNELS {
        agrees("free", kernel, 150);
    }
}

/// Private memory that is written to, forked and merged.
#[test]
fn anon() {
    for kernel in KERNELS {
        agrees("anon", kernel, 500);
    }
}

/// Files of hugetlbfs, cut at aligned and at unaligned addresses.
#[test]
fn huge() {
    for kernel in KERNELS {
        agrees("huge", kernel, 150);
    }
}

/// What a userfaultfd is told, and when.
#[test]
fn uffd() {
    for kernel in &KERNELS[2..] {
        agrees("uffd", kernel, 300);
    }
}

/// By the rules of the era before, as many sequences differ as the recordings of the two kernels do.
#[test]
fn eras_part_where_the_kernels_do() {
    for (before, kernel, sequences) in [
        (Rules::V4_12, "5.10", 195),
        (Rules::V5_10, "6.1", 67),
        (Rules::V6_1, "6.12", 79),
        (Rules::V6_12, "7.2", 274),
    ] {
        let text = recording(&format!("anon.{kernel}.jsonl.xz"));
        let report = replay(&text, before, usize::MAX).unwrap();
        assert_eq!(report.differ, sequences, "{}, {kernel}", before.name);
    }
}

/// A wrong rule is noticed. (A recording has no drivers, so what concerns hooks is not among them.)
#[test]
fn mistakes_are_noticed() {
    for (name, mistakes) in [
        (
            "fixed.7.2.jsonl.xz",
            [
                Mistake::SplitLosesOffset,
                Mistake::MunmapOfNothingWorks,
                Mistake::LimitAtEverySplit,
                Mistake::MapCountOffByOne,
                Mistake::MergeIgnoresOffset,
                Mistake::LockedNotCounted,
            ]
            .as_slice(),
        ),
        (
            "free.7.2.jsonl.xz",
            &[Mistake::MunmapOfHoleFails, Mistake::NoGuardGap],
        ),
        (
            "anon.7.2.jsonl.xz",
            &[Mistake::NoMergeForward, Mistake::MergeIgnoresAnonVma],
        ),
    ] {
        let text = recording(name);
        for &mistake in mistakes {
            let report = replay(&text, Rules::V7_2.with_mistake(mistake), 1).unwrap();
            assert_ne!(report.differ, 0, "{mistake:?} passes {name}");
        }
    }
}
