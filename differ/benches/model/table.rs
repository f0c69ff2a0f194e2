// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The table, and the report for machines.

use std::{fmt::Write, fs, io, path::Path};

use serde::Serialize;

/// One line: a figure for each subject that took part.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    unit: &'static str,
    size: usize,
    pub(crate) figures: Vec<(&'static str, f64)>,
}

impl Row {
    pub(crate) fn new(name: &'static str, unit: &'static str, size: usize) -> Self {
        Self {
            name,
            unit,
            size,
            figures: Vec::new(),
        }
    }

    fn of(&self, subject: &str) -> Option<f64> {
        let found = self.figures.iter().find(|(name, _)| *name == subject);
        found.map(|(_, figure)| *figure)
    }

    /// How many times the one's figure is the other's.
    fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        Some(self.of(of)? / self.of(to)?)
    }

    fn is_memory(&self) -> bool {
        self.unit == "bytes"
    }
}

/// What the model is to reach.
#[derive(Serialize)]
struct Aim {
    what: String,
    name: &'static str,
    size: usize,
    value: f64,
    aim: f64,
    reached: bool,
    /// If it is missed: what was measured that says why.
    why: Option<String>,
}

/// `vma.c` takes at least so many times as long.
const FASTER_THAN_KERNEL: f64 = 5.0;
/// Bytes of an area: 64, and 20 percent for the container.
const BYTES: f64 = 64.0 * 1.2;

fn aims(rows: &[Row]) -> Vec<Aim> {
    let mut aims = Vec::new();
    for row in rows {
        let why = reason(rows, row);
        let mut aim = |what: &str, value: Option<f64>, aim: f64, at_least: bool| {
            // As printed: two digits.
            let Some(value) = value.map(|value| (value * 100.0).round() / 100.0) else {
                return;
            };
            let reached = if at_least { value >= aim } else { value <= aim };
            aims.push(Aim {
                what: what.into(),
                name: row.name,
                size: row.size,
                value,
                aim,
                reached,
                why: (!reached).then(|| why.clone()),
            });
        };
        if row.is_memory() {
            aim("bytes per area, at most", row.of("model"), BYTES, false);
            let kernel = row.ratio("model", "vma.c");
            aim("part of vma.c's bytes, at most", kernel, 0.5, false);
        } else {
            let kernel = row.ratio("vma.c", "model");
            aim(
                "times as fast as vma.c, at least",
                kernel,
                FASTER_THAN_KERNEL,
                true,
            );
            let rangemap = row.ratio("model", "rangemap");
            aim("part of rangemap's time, at most", rangemap, 1.0, false);
        }
    }
    aims
}

/// Why an aim is missed: what the least took that could be done instead, in the same run.
fn reason(rows: &[Row], row: &Row) -> String {
    if row.is_memory() {
        return "a leaf has memory for a few areas more than it holds, and the index room to grow"
            .into();
    }
    // Maps of ranges know no drivers, and choose no addresses.
    let (without, like) = match row.name {
        "punch and refill, driver" | "punch and renew, driver" => {
            (" without the driver", "punch and refill")
        }
        "unmap, and map anywhere" => (" without the search for a gap", "unmap and map at random"),
        name => ("", name),
    };
    let least = rows
        .iter()
        .find(|other| other.name == like && other.size == row.size)
        .and_then(|row| Some((row.of("BTree")?, row.of("BTreeMap")?)));
    let Some((tree, plain)) = least else {
        return "nothing less was measured".into();
    };
    let mut text =
        format!("the container alone takes {tree:.0} ns{without}, a plain BTreeMap {plain:.0}");
    if let Some(kernel) = row.of("vma.c") {
        let times = kernel / plain;
        write!(text, ": {times:.1} times as fast as vma.c").unwrap();
    }
    text
}

const SUBJECTS: [&str; 6] = ["model", "RbList", "vma.c", "BTree", "rangemap", "BTreeMap"];
const RATIOS: [(&str, &str); 4] = [
    ("vma.c", "model"),
    ("vma.c", "RbList"),
    ("vma.c", "BTreeMap"),
    ("model", "rangemap"),
];

pub(crate) fn text(rows: &[Row], kernel: Option<&str>) -> String {
    let mut text = String::new();
    let kernel = kernel.map_or("none".into(), |version| format!("Linux {version}"));
    writeln!(
        text,
        "Nanoseconds per step (a pair of operations, but for find; building and tearing down is per area),\n\
         or bytes per area, and how they compare. vma.c is that of: {kernel}."
    )
    .unwrap();
    let mut last = "";
    for row in rows {
        if row.name != last {
            last = row.name;
            write!(text, "\n{:46}", format!("{}, {}", row.name, row.unit)).unwrap();
            for subject in SUBJECTS {
                write!(text, "{subject:>10}").unwrap();
            }
            for (of, to) in RATIOS {
                write!(text, "{:>16}", format!("{of}/{to}")).unwrap();
            }
            writeln!(text).unwrap();
        }
        write!(text, "{:>46}", row.size).unwrap();
        for subject in SUBJECTS {
            match row.of(subject) {
                Some(figure) => write!(text, "{figure:>10.1}").unwrap(),
                None => write!(text, "{:>10}", "-").unwrap(),
            }
        }
        for (of, to) in RATIOS {
            match row.ratio(of, to) {
                Some(ratio) => write!(text, "{ratio:>16.2}").unwrap(),
                None => write!(text, "{:>16}", "-").unwrap(),
            }
        }
        writeln!(text).unwrap();
    }
    let aims = aims(rows);
    let missed: Vec<_> = aims.iter().filter(|aim| !aim.reached).collect();
    let reached = aims.len() - missed.len();
    writeln!(
        text,
        "\nOf {} aims {reached} are reached; not these:",
        aims.len()
    )
    .unwrap();
    for missed in missed {
        let Aim {
            what,
            name,
            size,
            value,
            aim,
            ..
        } = missed;
        let why = missed.why.as_deref().unwrap_or_default();
        writeln!(
            text,
            "  {name}, {size} areas: {value:.2} {what} {aim:.2} ({why})"
        )
        .unwrap();
    }
    text
}

#[derive(Serialize)]
struct Figure<'a> {
    name: &'a str,
    size: usize,
    subject: &'a str,
    value: f64,
    unit: &'a str,
}

#[derive(Serialize)]
struct Report<'a> {
    target: &'a str,
    /// Whose vma.c; none: it was skipped.
    kernel: Option<&'a str>,
    rows: Vec<Figure<'a>>,
    aims: Vec<Aim>,
}

pub(crate) fn write_report(path: &Path, rows: &[Row], kernel: Option<&str>) -> io::Result<()> {
    let figures = rows.iter().flat_map(|row| {
        row.figures.iter().map(|&(subject, value)| Figure {
            name: row.name,
            size: row.size,
            subject,
            value,
            unit: row.unit,
        })
    });
    let report = Report {
        target: "bench-model",
        kernel,
        rows: figures.collect(),
        aims: aims(rows),
    };
    fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
}
