// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a real 7.2 answered, the model answers.

mod replay;

use std::path::Path;

use replay::{Report, replay};
use vmalab_model::Rules;

fn run(name: &str) -> Report {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors");
    let report = replay(&dir.join(name), Rules::V7_2);
    println!(
        "{name}: {} sequences, {} operations compared, {} skipped (sequences ended by {:?})",
        report.sequences, report.compared, report.skipped, report.unknown
    );
    if let Some(first) = report.differences.first() {
        panic!(
            "{} sequences differ; the first:\n{first}",
            report.differences.len()
        );
    }
    report
}

#[test]
fn free() {
    let report = run("free.7.2.jsonl.xz");
    assert_eq!(report.compared, 6000);
}

#[test]
fn fixed() {
    run("fixed.7.2.jsonl.xz");
}

#[test]
fn anon() {
    run("anon.7.2.jsonl.xz");
}
