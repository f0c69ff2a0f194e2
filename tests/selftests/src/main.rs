// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Reads what the kernel's own tests said in each setting (`tests/selftests/run` leaves it), holds the
//! module's settings against those without it, and writes a report and a table.
//!
//! - `loaded` against `without`: the module is there, or not. There must be no difference.
//! - `vmalab` and `vmalab-prepare` against `memfd`: the same test on objects of the device, and on memfds.
//!   A difference must be in the list of known ones, with the reason for it.

mod compare;
mod log;
mod tap;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use compare::{Difference, Known};
use serde::Serialize;
use tap::{Outcome, Run};

/// Compares what the kernel's tests said.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The list of known differences.
    #[arg(long)]
    differences: PathBuf,
    /// Where to write the report, in JSON.
    #[arg(long)]
    report: PathBuf,
    /// Where to write the table.
    #[arg(long)]
    table: PathBuf,
    /// What the guests left: directories with `kernel-log`, and in `out` what `run` leaves.
    #[arg(required = true)]
    left: Vec<PathBuf>,
}

/// Each setting, and the one that it is held against.
const SETTINGS: [(&str, Option<&str>); 5] = [
    ("without", None),
    ("loaded", Some("without")),
    ("memfd", None),
    ("vmalab", Some("memfd")),
    ("vmalab-prepare", Some("memfd")),
];

/// A figure of the report, as everywhere in `build/report`.
#[derive(Serialize)]
struct Row {
    name: String,
    subject: String,
    value: usize,
    unit: &'static str,
}

#[derive(Serialize)]
struct Note {
    name: String,
    reason: String,
}

#[derive(Serialize)]
struct Report {
    target: &'static str,
    passed: usize,
    failed: usize,
    skipped: usize,
    rows: Vec<Row>,
    skips: Vec<Note>,
    failures: Vec<Note>,
    differences: Vec<Difference>,
}

/// What all suites said: by suite, in the order in which they ran, and setting.
#[derive(Default)]
struct Results {
    order: Vec<String>,
    runs: BTreeMap<(String, String), Run>,
    warnings: log::Warnings,
}

impl Results {
    fn read(left: &[PathBuf]) -> Result<Results, String> {
        let mut results = Results::default();
        for directory in left {
            results
                .warnings
                .extend(log::read(&read(&directory.join("kernel-log"))?));
            let directory = directory.join("out");
            let ended = read(&directory.join("ended"))?;
            for line in ended.lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                let [setting, suite, status, _seconds] = words[..] else {
                    return Err(format!("{}: not understood: {line}", directory.display()));
                };
                let status = status
                    .parse()
                    .map_err(|_| format!("no exit status: {line}"))?;
                let output = read(&directory.join(setting).join(suite).with_extension("log"))?;
                if !results.order.iter().any(|known| known == suite) {
                    results.order.push(suite.to_owned());
                }
                let key = (suite.to_owned(), setting.to_owned());
                results.runs.insert(key, Run::parse(&output, status));
            }
        }
        Ok(results)
    }

    /// What the kernel warned of here, and not in the other setting nor without the module.
    fn new_warnings(&self, suite: &str, setting: &str, reference: &str) -> Vec<&String> {
        let of = |setting: &str| self.warnings.get(&(suite.to_owned(), setting.to_owned()));
        let known = |line: &&String| {
            [reference, "without"]
                .iter()
                .filter_map(|s| of(s))
                .any(|set| set.contains(*line))
        };
        of(setting)
            .into_iter()
            .flatten()
            .filter(|line| !known(line))
            .collect()
    }

    fn get(&self, suite: &str, setting: &str) -> Option<&Run> {
        self.runs.get(&(suite.to_owned(), setting.to_owned()))
    }
}

/// A file as text; a test may print anything.
fn read(path: &Path) -> Result<String, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn report(results: &Results, known: &mut [Known], by_name: &BTreeSet<String>) -> Report {
    let mut report = Report {
        target: "selftests",
        passed: 0,
        failed: 0,
        skipped: 0,
        rows: Vec::new(),
        skips: Vec::new(),
        failures: Vec::new(),
        differences: Vec::new(),
    };
    for suite in &results.order {
        for (setting, reference) in SETTINGS {
            let Some(run) = results.get(suite, setting) else {
                continue;
            };
            for outcome in [Outcome::Pass, Outcome::Fail, Outcome::Skip] {
                report.rows.push(Row {
                    name: suite.clone(),
                    subject: format!("{setting}: {}", outcome.text()),
                    value: run.count(outcome),
                    unit: "cases",
                });
            }
            let Some(reference) = reference else { continue };
            let name = format!("{suite}, {setting}");
            // A test that has no memfd to be held against has the one that it was written for.
            let held_against = [reference, "without"]
                .into_iter()
                .find_map(|setting| Some((setting, results.get(suite, setting)?)));
            let Some((reference, other)) = held_against else {
                report.failures.push(Note {
                    name,
                    reason: format!("did not run in the setting {reference}"),
                });
                continue;
            };
            let mut differences =
                compare::differences(suite, setting, other, run, by_name.contains(suite));
            for line in results.new_warnings(suite, setting, reference) {
                differences.push(Difference::logged(suite, setting, line));
            }
            compare::explain(&mut differences, known);
            let unknown: Vec<_> = differences
                .iter()
                .filter(|found| found.reason.is_none())
                .collect();
            match unknown.first() {
                Some(first) => report.failures.push(Note {
                    name,
                    reason: format!(
                        "{} differ from {reference}; the first, {}: {} there, {} here: {}",
                        unknown.len(),
                        first.case,
                        first.was.text(),
                        first.is.text(),
                        first.remark
                    ),
                }),
                None if run.count(Outcome::Pass) + run.count(Outcome::Fail) == 0 => {
                    let case = run.cases.values().next().map(|case| case.name.clone());
                    report.skips.push(Note {
                        name,
                        reason: case.unwrap_or_else(|| run.last.clone()),
                    });
                }
                None => report.passed += 1,
            }
            report.differences.extend(differences);
        }
    }
    for known in known {
        if let Some(reason) = known.stale(|suite, setting| results.get(suite, setting).is_some()) {
            report.failures.push(Note {
                name: "the list of known differences".to_owned(),
                reason,
            });
        }
    }
    report.failed = report.failures.len();
    report.skipped = report.skips.len();
    report
}

/// The table, for people.
fn table(results: &Results, report: &Report) -> String {
    let mut text = String::from(
        "The kernel's own tests: cases that passed/failed/were skipped in each setting. `=` says: case by case\n\
         the same as in the setting it is held against (loaded: without; vmalab, vmalab-prepare: memfd, or without if there is none).\n\n",
    );
    let width = results.order.iter().map(String::len).max().unwrap_or(0);
    let _ = write!(text, "{:width$}", "");
    for (setting, _) in SETTINGS {
        let _ = write!(text, "  {setting:>14}");
    }
    text.push('\n');
    for suite in &results.order {
        let _ = write!(text, "{suite:width$}");
        for (setting, reference) in SETTINGS {
            let cell = results.get(suite, setting).map_or("-".to_owned(), |run| {
                let counts =
                    [Outcome::Pass, Outcome::Fail, Outcome::Skip].map(|outcome| run.count(outcome));
                let same = reference.is_some()
                    && !report
                        .differences
                        .iter()
                        .any(|d| d.suite == *suite && d.setting == setting);
                format!(
                    "{}/{}/{}{}",
                    counts[0],
                    counts[1],
                    counts[2],
                    if same { " =" } else { "" }
                )
            });
            let _ = write!(text, "  {cell:>14}");
        }
        text.push('\n');
    }

    text.push_str("\nWhat differs, and why:\n");
    for found in &report.differences {
        let _ = write!(
            text,
            "\n{}, {}: {}: {} -> {}\n",
            found.suite,
            found.setting,
            found.case,
            found.was.text(),
            found.is.text()
        );
        if !found.remark.is_empty() {
            let _ = writeln!(text, "    it says: {}", found.remark);
        }
        let reason = found.reason.as_deref().unwrap_or("NOT KNOWN");
        let _ = writeln!(text, "    {reason}");
    }
    text
}

fn run(args: &Args) -> Result<(), String> {
    let results = Results::read(&args.left)?;
    let list = read(&args.differences)?;
    let mut known = Known::read_all(&list)?;
    let by_name = compare::compared_by_name(&list);
    let report = report(&results, &mut known, &by_name);
    let json = serde_json::to_string_pretty(&report).expect("a report is plain data");
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    write(&args.table, table(&results, &report))?;
    write(&args.report, json + "\n")
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmalab-selftests: {error}");
            ExitCode::FAILURE
        }
    }
}
