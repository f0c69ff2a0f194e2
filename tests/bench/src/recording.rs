// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What it costs that calls of hooks can be recorded: while nobody watches, against a module that is built
//! without that; and while somebody does.

use std::{collections::BTreeMap, fmt::Write, fs, io, path::Path};

use crate::{
    measure::{MEASURES, Measure},
    memory::Kind,
    table::{Reached, Row},
};

/// Each of these calls hooks; but for munmap, one for each page or for each 16.
const NAMES: [&str; 5] = [
    "first write, in order",
    "first write, at random",
    "read what is there, in order",
    "write what is there, in order",
    "munmap",
];
/// Nobody watches, and somebody does.
pub(crate) const KINDS: &[Kind] = &[Kind::Device, Kind::Watched];
/// What an object of the other module is called.
const WITHOUT: &str = "vmalab, not able to record";
/// At most so much of what it costs without recording, and of what it costs unwatched.
const OFF: f64 = 1.01;
const ON: f64 = 1.10;

/// What is measured.
pub(crate) fn measures() -> impl Iterator<Item = &'static Measure> {
    MEASURES
        .iter()
        .filter(|measure| NAMES.contains(&measure.name))
}

/// The figures of a module that cannot record, by measure.
pub(crate) type Without = BTreeMap<String, f64>;

/// Writes them, for the run with the module that can.
pub(crate) fn write_without(path: &Path, rows: &[Row]) -> io::Result<()> {
    let figures: Without = rows
        .iter()
        .filter_map(|row| Some((row.measure.name.to_owned(), row.of(Kind::Device)?)))
        .collect();
    fs::write(path, serde_json::to_string(&figures)?)
}

/// All figures of it.
pub(crate) struct Recording {
    rows: Vec<Row>,
    without: Without,
}

impl Recording {
    /// Of the rows of the module that can record, and the file of the other one.
    pub(crate) fn new(rows: Vec<Row>, without: &Path) -> io::Result<Self> {
        let without = serde_json::from_str(&fs::read_to_string(without)?)?;
        Ok(Self { rows, without })
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What was to be reached, of each row.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let mut all = Vec::new();
        for row in &self.rows {
            let measure = row.measure.name;
            let mut add = |subject, ours, than, theirs, most| {
                let (Some(ours), Some(theirs)) = (ours, theirs) else {
                    return;
                };
                let ratio: f64 = ours / theirs;
                all.push(Reached {
                    measure,
                    subject,
                    than,
                    most,
                    ratio,
                    reached: ratio < most + 0.0005,
                });
            };
            let off = row.of(Kind::Device);
            let without = self.without.get(measure).copied();
            add(Kind::Device.name(), off, WITHOUT, without, OFF);
            let on = row.of(Kind::Watched);
            add(Kind::Watched.name(), on, Kind::Device.name(), off, ON);
        }
        all
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "\nRecording. At most {OFF:.2} of a module that is not able to record, while nobody watches, and at\n\
             most {ON:.2} of that while somebody does.\n\n{:34}{:>12}{:>18}{:>18}\n",
            "", "not able to", "unwatched", "watched"
        );
        let reached = self.reached();
        for row in &self.rows {
            let name = row.measure.name;
            let without = self.without.get(name).copied().unwrap_or(f64::NAN);
            write!(text, "{name:34}{without:>12.0}").unwrap();
            for kind in KINDS {
                let it = reached
                    .iter()
                    .find(|it| it.measure == name && it.subject == kind.name());
                match (row.of(*kind), it) {
                    (Some(figure), Some(it)) => {
                        let mark = if it.reached { ' ' } else { '!' };
                        write!(text, "{figure:>9.0} ({:.3}){mark}", it.ratio).unwrap();
                    }
                    _ => write!(text, "{:>18}", "-").unwrap(),
                }
            }
            writeln!(text).unwrap();
        }
        let missed = reached.iter().filter(|it| !it.reached).count();
        match missed {
            0 => writeln!(text, "\nAll of it was reached."),
            _ => writeln!(
                text,
                "\n{missed} missed (!): a record takes some 300 instructions, whatever the call costs besides: a lock, the clock,\n\
                 80 bytes."
            ),
        }
        .unwrap();
        text
    }
}
