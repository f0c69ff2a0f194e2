// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a real 7.2 answered, the model answers: every value, all areas, all counters.

mod replay;

use std::path::Path;

use replay::{load, replay};
use vmalab_model::{Mistake, Rules};

fn recording(name: &str) -> Vec<u8> {
    load(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/vectors")
            .join(name),
    )
}

/// All operations must be compared, so that a reader that skips too much is no success.
fn agrees(name: &str, sequences: usize, operations: usize) {
    let report = replay(&recording(name), Rules::V7_2, usize::MAX);
    if let Some(first) = report.differences.first() {
        panic!(
            "{} of {} sequences differ; the first:\n{first}",
            report.differences.len(),
            report.sequences
        );
    }
    assert_eq!(
        (report.sequences, report.compared, report.skipped),
        (sequences, operations, 0),
        "unknown: {:?}",
        report.unknown
    );
}

/// Addresses inside an arena; limits on the number of areas among the sequences.
#[test]
fn fixed() {
    agrees("fixed.7.2.jsonl.xz", 975, 39_000);
}

/// The kernel chooses the address.
#[test]
fn free() {
    agrees("free.7.2.jsonl.xz", 150, 6_000);
}

/// Private memory that is written to, forked and merged.
#[test]
fn anon() {
    agrees("anon.7.2.jsonl.xz", 500, 20_000);
}

/// 6.12, as far as each sequence goes before its first mremap.
#[test]
fn anon_of_6_12() {
    let report = replay(&recording("anon.6.12.jsonl.xz"), Rules::V6_12, usize::MAX);
    assert!(report.differences.is_empty(), "{}", report.differences[0]);
    assert_eq!((report.compared, report.skipped), (9_962, 10_038));
    // The rule that later changed is among what is compared.
    let later = Rules {
        merge_into_unwritten: true,
        ..Rules::V6_12
    };
    let report = replay(&recording("anon.6.12.jsonl.xz"), later, 1);
    assert_eq!(report.differences.len(), 1);
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
            let report = replay(&text, Rules::V7_2.with_mistake(mistake), 1);
            assert_ne!(report.differences.len(), 0, "{mistake:?} passes {name}");
        }
    }
}
