// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What of `mm/vma.c` was reached, as gcov counts it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::part::{Function, KERNEL};

/// The functions of `mm/vma.c`. A place is a function and the lines within it: no kernel code is quoted.
pub(crate) fn functions(counts: &Path) -> anyhow::Result<Vec<Function>> {
    let text = fs::read(counts).with_context(|| format!("cannot read {}", counts.display()))?;
    let counts: Value = serde_json::from_slice(&text)?;
    let file = list(&counts["files"]).iter().find(|file| {
        let name = file["file"].as_str();
        name.is_some_and(|name| name.ends_with("/mm/vma.c"))
    });
    let file = file.context("gcov did not count mm/vma.c")?;
    let mut starts = BTreeMap::new();
    for function in list(&file["functions"]) {
        starts.insert(name(&function["name"])?, number(&function["start_line"])?);
    }
    let mut functions = BTreeMap::<String, (Function, Vec<(u64, bool)>)>::new();
    for line in list(&file["lines"]) {
        if line["function_name"].is_null() {
            continue;
        }
        let name = name(&line["function_name"])?;
        let Some(start) = starts.get(&name) else {
            bail!("a line of {name}, which is not a function");
        };
        let (function, lines) = functions
            .entry(name.clone())
            .or_insert_with(|| (Function::new(KERNEL, &name), Vec::new()));
        let place = number(&line["line_number"])? - start;
        lines.push((place, number(&line["count"])? > 0));
        for branch in list(&line["branches"]) {
            function.branch(place, number(&branch["count"])? > 0);
        }
    }
    let counted = functions.into_values().map(|(mut function, mut lines)| {
        lines.sort_unstable();
        let name = function.name.clone();
        function.count(&lines, |first, last| match first == last {
            true => format!("{name}+{first}"),
            false => format!("{name}+{first}-{last}"),
        });
        function
    });
    Ok(counted.collect())
}

/// Copies that the compiler makes count as the function they are of.
fn name(name: &Value) -> anyhow::Result<String> {
    let name = name.as_str().context("a function has a name")?;
    Ok(name.split('.').next().unwrap_or(name).to_owned())
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value
        .as_u64()
        .with_context(|| format!("expected a number, found {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
