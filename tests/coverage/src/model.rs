// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What of the model was reached, as llvm-cov counts it: lines in the format of lcov, and regions, of which a
//! line may have several, as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::part::Function;

/// The functions of the model. A place is a file, a function and the text of a line: numbers
/// change too often.
pub(crate) fn functions(regions: &Path, lines: &Path) -> anyhow::Result<Vec<Function>> {
    let regions = counted_regions(&serde_json::from_str(&read(regions)?)?)?;
    let mut functions = Vec::new();
    for (path, lines) in counted_lines(&read(lines)?)? {
        let source = read(Path::new(&path))?;
        let source: Vec<&str> = source.lines().map(str::trim).collect();
        let file = path.find("model/src/").map_or(&*path, |at| &path[at..]);
        let of = |line: u64| (0..line as usize).rev().find_map(|at| named(source[at]));
        let mut of_file = BTreeMap::<&str, (Function, Vec<(u64, bool)>)>::new();
        for (line, reached) in lines {
            let name = of(line).with_context(|| format!("{path}:{line} is in no function"))?;
            let new = || (Function::new(file, name), Vec::new());
            of_file
                .entry(name)
                .or_insert_with(new)
                .1
                .push((line, reached));
        }
        for ((_, [line, ..]), reached) in regions.iter().filter(|((at, _), _)| *at == path) {
            if let Some((function, _)) = of(*line).and_then(|name| of_file.get_mut(name)) {
                function.branch(*line, *reached);
            }
        }
        functions.extend(of_file.into_values().map(|(mut function, lines)| {
            let name = function.name.clone();
            function.count(&lines, |first, _| {
                format!("{file} {name}: {}", source[first as usize - 1])
            });
            function
        }));
    }
    Ok(functions)
}

/// Of each file, each line with code, and whether it was reached.
fn counted_lines(lcov: &str) -> anyhow::Result<BTreeMap<String, Vec<(u64, bool)>>> {
    let mut files = BTreeMap::<String, Vec<_>>::new();
    let mut file = None;
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = Some(files.entry(path.to_owned()).or_default());
        } else if let Some(counted) = line.strip_prefix("DA:") {
            let numbers = counted.split_once(',');
            let numbers =
                numbers.and_then(|(line, count)| Some((line.parse().ok()?, count != "0")));
            let (Some(file), Some(numbers)) = (&mut file, numbers) else {
                bail!("expected the count of a line, found {line}");
            };
            file.push(numbers);
        }
    }
    Ok(files)
}

/// Where a region is: its file, and from which line and column to which.
type Region = (String, [u64; 4]);

/// Each region, and whether any copy of a generic function reached it.
fn counted_regions(counts: &Value) -> anyhow::Result<BTreeMap<Region, bool>> {
    let mut regions = BTreeMap::new();
    let functions = counts["data"][0]["functions"].as_array();
    for function in functions.context("llvm-cov counted no functions")? {
        for region in function["regions"].as_array().into_iter().flatten() {
            let number = |at: usize| region[at].as_u64().context("a region is of numbers");
            // The kind 0 is code; others are gaps and expansions.
            if number(7)? != 0 {
                continue;
            }
            let file = function["filenames"][number(5)? as usize].as_str();
            let file = file.context("a function has a file")?.to_owned();
            let place = [number(0)?, number(1)?, number(2)?, number(3)?];
            *regions.entry((file, place)).or_default() |= number(4)? > 0;
        }
    }
    Ok(regions)
}

/// The name of the function that begins in this line.
fn named(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let words = ["pub", "pub(crate)", "pub(super)", "const", "unsafe"];
    let name = after.split(['(', '<']).next()?;
    before
        .split_whitespace()
        .all(|word| words.contains(&word))
        .then_some(name)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
