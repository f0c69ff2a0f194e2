// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Neighbouring eras differ in what is documented, and in nothing else: random operations by the rules of
//! both part only where a field of `Rules` that differs says so, and each such field shows. The table of it
//! goes to `build/report/eras.json`.

use std::fs;
use std::path::Path;

use serde_json::json;
use vmalab_differ::eras::{self, Difference, Found};
use vmalab_differ::show;
use vmalab_model::Rules;

/// Batches for each pair.
const BATCHES: u64 = 2_000;

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
        for field in &quiet {
            let (old, new) = (old.name, new.name);
            wrong.push(format!(
                "{} never showed between {old} and {new}",
                field.name
            ));
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
    let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/report");
    fs::create_dir_all(&report).unwrap();
    let text = format!("{:#}\n", json!({ "pairs": pairs }));
    fs::write(report.join("eras.json"), text).unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
