// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Neighbouring eras differ in what is documented, and in nothing else: random operations by the rules of
//! both part only where a field of `Rules` that differs says so, and each such field shows. The table of it
//! goes to `build/report/eras.json`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;
use vmalab_differ::eras::{self, Difference, Found};
use vmalab_differ::show;
use vmalab_model::Rules;

/// Batches for each pair.
const BATCHES: u64 = 1_000;

/// Fields that no operation of this test shows, and why.
const SILENT: &[(&str, &str)] = &[
    (
        "stack_checked_first",
        "of MAP_GROWSDOWN on a file or shared memory; only private anonymous memory is made so here",
    ),
    (
        "brk_stays_apart",
        "of a heap right above other memory; there is none below the heap here",
    ),
    (
        "small_gap_hides_stack",
        "of a stack above a gap that is smaller than its guard gap; hardly met here",
    ),
    (
        "last_policy",
        "of the numbers of the newest policies, which mbind is hardly given here",
    ),
    (
        "guards_are_flagged",
        "of guard regions in shared memory, whose `anon_vma` only a later merge would tell",
    ),
    (
        "anon_huge_aligned",
        "of 2 MiB and more of anonymous memory; mappings are smaller here",
    ),
    (
        "mprotect_asks_again",
        "of a merge that `close` forbids; without `close_forbids_merging` there is none",
    ),
    (
        "dontunmap_beside_source_is_alone",
        "of MREMAP_DONTUNMAP right beside its source, together with `dontunmap_is_clean`; hardly met here",
    ),
    (
        "dontunmap_counts_copy",
        "of MREMAP_DONTUNMAP of locked memory, together with `dontunmap_is_clean`; hardly met here",
    ),
    ("mdwe_no_inherit", "without `mdwe` there is no such call"),
    (
        "mremap_charges_what_shrank",
        "of a move that shrinks near the commit limit, by more pages than it keeps; hardly met here",
    ),
];

fn row(difference: &Difference) -> serde_json::Value {
    let files = &difference.world.files;
    json!({
        "fields": difference.fields.iter().map(|field| field.name).collect::<Vec<_>>(),
        "world": difference.world.name,
        "operations": difference.ops.iter().map(|op| show::op(op, files)).collect::<Vec<_>>(),
        "difference": difference.what,
    })
}

#[test]
fn neighbours_differ_in_what_is_documented() {
    let mut pairs = Vec::new();
    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    let mut silent = BTreeSet::new();
    for pair in Rules::all().windows(2) {
        let [old, new] = pair else { unreachable!() };
        let Found {
            explained,
            unexplained,
            silent: quiet,
        } = eras::differences(old, new, 1, BATCHES);
        if let Some(difference) = &unexplained {
            wrong.push(format!(
                "{} and {} differ in what no field says: {:#}",
                old.name,
                new.name,
                row(difference)
            ));
        }
        let fields = explained.iter().flat_map(|difference| &difference.fields);
        shown.extend(fields.map(|field| field.name));
        silent.extend(quiet.iter().map(|field| field.name));
        for field in &quiet {
            if !SILENT.iter().any(|(name, _)| *name == field.name) {
                let (old, new) = (old.name, new.name);
                wrong.push(format!(
                    "{} never showed between {old} and {new}",
                    field.name
                ));
            }
        }
        pairs.push(json!({
            "old": old.name,
            "new": new.name,
            "batches": BATCHES,
            "explained": explained.iter().map(row).collect::<Vec<_>>(),
            "unexplained": unexplained.as_ref().map(row),
            "silent": quiet.iter().map(|field| field.name).collect::<Vec<_>>(),
        }));
    }
    for (name, _) in SILENT {
        if !silent.contains(name) {
            wrong.push(format!(
                "{name} is no silent field: it showed, or does not differ"
            ));
        }
    }
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/report");
    fs::create_dir_all(&report).unwrap();
    let reasons: serde_json::Map<_, _> = SILENT
        .iter()
        .map(|&(name, reason)| (name.to_owned(), reason.into()))
        .collect();
    let text = format!("{:#}\n", json!({ "pairs": pairs, "silent": reasons }));
    fs::write(report.join("eras.json"), text).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
