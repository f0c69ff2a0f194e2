// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The two lists: which paths must be reached, and what of them is not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// Names of functions and files, `#` begins a comment.
pub(crate) fn paths(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let text = read(path)?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""));
    Ok(lines
        .flat_map(str::split_whitespace)
        .map(String::from)
        .collect())
}

/// Reasons by place. A reason stands at the left margin, and the places that it explains below it, indented.
pub(crate) fn unreached(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut reasons = BTreeMap::new();
    let mut reason = "";
    let text = read(path)?;
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let place = line.trim();
        if !line.starts_with(char::is_whitespace) {
            reason = line;
        } else if reason.is_empty() {
            bail!("{}: no reason stands above {place}", path.display());
        } else if reasons
            .insert(place.to_owned(), reason.to_owned())
            .is_some()
        {
            bail!("{}: {place} stands there twice", path.display());
        }
    }
    Ok(reasons)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
