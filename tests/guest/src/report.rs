// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The report for machines.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::run::Results;

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
}

/// A test that was skipped, or that failed.
#[derive(Clone, Serialize)]
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) reason: String,
}

#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    kernel: &'a str,
    /// Only the host knows.
    accel: Option<&'a str>,
    passed: u64,
    failed: usize,
    skipped: usize,
    rows: &'a [Row],
    skips: &'a [Note],
    failures: &'a [Note],
}

pub(crate) fn write(path: &Path, results: &Results) -> Result<(), String> {
    let results = results.lock().unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let report = Report {
        target: "guest-tests",
        kernel: kernel.trim_end(),
        accel: None,
        passed: results.passed,
        failed: results.failures.len(),
        skipped: results.skips.len(),
        rows: &results.rows,
        skips: &results.skips,
        failures: &results.failures,
    };
    let text = serde_json::to_string_pretty(&report).expect("a report is plain data");
    fs::write(path, text + "\n")
        .map_err(|error| format!("cannot write the report to {}: {error}", path.display()))
}
