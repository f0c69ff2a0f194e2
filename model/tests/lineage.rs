// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `docs/LINEAGE.md` says where each of the kernel's functions is modelled, and what shows it: all that it
//! names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files below a directory.
fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The words of a text, as identifiers are made.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(move |c: char| !inside(c))
        .filter(|word| !word.is_empty())
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn what_it_names_is_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for room in ["model", "differ", "shim", "cli", "module", "tests"] {
        files(&top.join(room), &mut found);
    }
    let paths: Vec<String> = found
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let sources = found.iter().filter(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("rs" | "c" | "h"))
    });
    let mut known: BTreeSet<String> = BTreeSet::new();
    for path in sources {
        let text = fs::read_to_string(path).unwrap();
        known.extend(words(&text).map(String::from));
    }
    let makefile = fs::read_to_string(top.join("Makefile")).unwrap();

    let is_file = |name: &str| {
        let whole = paths.iter().any(|path| path.ends_with(&format!("/{name}")));
        // A recording, all of a mode, or a drawing.
        let data = |path: &&String| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file == format!("{name}.snap")
                || file.ends_with(".jsonl.xz") && file.starts_with(&format!("{name}."))
        };
        whole || paths.iter().any(|path| data(&path))
    };
    let is_there = |name: &str| {
        let target = name.strip_prefix("make ");
        is_file(name)
            || target.is_some_and(|target| makefile.contains(&format!("\n{target}:")))
            || words(name).all(|word| known.contains(word))
    };

    let lineage = fs::read_to_string(top.join("docs/LINEAGE.md")).unwrap();
    let mut checked = 0;
    let mut missing = Vec::new();
    for row in lineage.lines().filter(|line| line.starts_with("| ")) {
        // The first column is the kernel's.
        for name in row.split(" | ").skip(1).flat_map(quoted) {
            checked += 1;
            // Many of one beginning.
            let is_there = match name.strip_suffix('…') {
                Some(begin) => known.iter().any(|word| word.starts_with(begin)),
                None => is_there(name),
            };
            if !is_there {
                missing.push(name);
            }
        }
    }
    assert!(checked > 200, "only {checked} names were found");
    assert_eq!(missing, [""; 0]);
}

/// Each file of the model says first which functions it mirrors, and of which kernels; but for those that have no
/// counterpart, or are one for all.
#[test]
fn each_file_says_what_it_mirrors() {
    let own = ["abi", "op", "outcome", "rules", "signal", "steer"];
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&sources, &mut found);
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let head = text
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("//!"));
        let head: Vec<&str> = head.collect();
        let head = head.join("\n");
        let name = path.file_stem().unwrap().to_str().unwrap();
        let dated = head.split_whitespace().any(|word| {
            let word = word.trim_end_matches(|c: char| !c.is_ascii_digit());
            let numbers = word.trim_start_matches('(').split('.');
            numbers.clone().count() >= 2 && numbers.clone().all(|part| part.parse::<u16>().is_ok())
        });
        let own = own.contains(&name);
        assert!(own || head.contains('`'), "{name} names no function");
        assert!(own || dated, "{name} names no kernel");
    }
}
