// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The table, and the report for machines.

use std::{fmt::Write, fs, io, path::Path};

use serde::Serialize;

use crate::{
    measure::{Measure, Per},
    memory::Kind,
    recording::Recording,
};

/// One line of the table: the smallest figure for each kind of memory. Only more can come in between: the
/// timer, and what the kernel does later.
pub(crate) struct Row {
    pub(crate) measure: &'static Measure,
    kinds: &'static [Kind],
    figures: Vec<Option<f64>>,
    /// The largest difference of two rounds, relative to that.
    spread: f64,
}

impl Row {
    pub(crate) fn new(
        measure: &'static Measure,
        kinds: &'static [Kind],
        samples: Vec<Vec<f64>>,
    ) -> Self {
        let mut spread: f64 = 0.0;
        let figures = samples.into_iter().map(|mut samples| {
            samples.sort_by(f64::total_cmp);
            let (least, most) = (*samples.first()?, *samples.last()?);
            spread = spread.max((most - least) / least);
            Some(least)
        });
        let figures = figures.collect();
        Self {
            measure,
            kinds,
            figures,
            spread,
        }
    }

    /// The figure of one kind of memory, if it is in the row and there is such a thing.
    pub(crate) fn of(&self, kind: Kind) -> Option<f64> {
        let nth = self.kinds.iter().position(|other| *other == kind)?;
        self.figures[nth]
    }

    fn each(&self, kinds: &[Kind]) -> impl Iterator<Item = Figure> {
        let (name, unit) = (self.measure.name, self.measure.per.unit());
        let each = self.kinds.iter().zip(&self.figures);
        each.filter(|(kind, _)| kinds.contains(kind))
            .filter_map(move |(kind, figure)| {
                Some(Figure {
                    name,
                    subject: kind.name(),
                    value: (*figure)?,
                    unit,
                })
            })
    }
}

/// What the device is to reach: at most so much of what another kind of memory costs.
pub(crate) struct Aim {
    measure: &'static str,
    than: Kind,
    most: f64,
    /// Why one page at a time does not reach it, if it does not.
    single: &'static str,
}

const fn aim(measure: &'static str, than: Kind, most: f64, single: &'static str) -> Aim {
    Aim {
        measure,
        than,
        most,
        single,
    }
}

const ONE_FAULT: &str = "one fault for each page that is touched, as a memfd has; \
                         VMALAB_IOC_SET_FOLIO_SIZE is the way to fewer";
const ALIKE: &str = "the kernel does the same for both, and asks no driver";
const A_HOOK: &str = "the kernel does the same for both, page by page, and asks a hook, which counts the call \
                      and looks whether somebody watches or steers it";
const SINGLY: &str = "the kernel takes single pages off one by one, of a memfd, too, and those of a larger \
                      piece at once (zap_present_folio_ptes), and asks no driver; \
                      VMALAB_IOC_SET_FOLIO_SIZE is the way to larger ones";

const AIMS: &[Aim] = &[
    aim("first write, in order", Kind::Memfd, 0.30, ONE_FAULT),
    aim("first write, in order", Kind::Anonymous, 0.60, ONE_FAULT),
    aim("first write, at random", Kind::Memfd, 0.55, ONE_FAULT),
    aim("read what is there, in order", Kind::Memfd, 1.0, A_HOOK),
    aim("read what is there, at random", Kind::Memfd, 1.0, A_HOOK),
    aim("write what is there, in order", Kind::Memfd, 1.0, A_HOOK),
    aim("write what is there, at random", Kind::Memfd, 1.0, A_HOOK),
    aim("munmap", Kind::Memfd, 0.85, SINGLY),
    aim("fork, shared", Kind::Memfd, 1.0, ALIKE),
    aim("fork, private copies", Kind::Memfd, 1.0, ALIKE),
    aim("mprotect", Kind::Memfd, 1.0, ALIKE),
    aim("mremap to elsewhere", Kind::Memfd, 1.0, ALIKE),
];

/// How an aim was met.
#[derive(Serialize)]
pub(crate) struct Reached {
    pub(crate) measure: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) than: &'static str,
    pub(crate) most: f64,
    pub(crate) ratio: f64,
    /// Of what is printed, two digits.
    pub(crate) reached: bool,
}

/// Each with its aim, and by how much its row differs from round to round.
fn reached(rows: &[Row]) -> Vec<(Reached, &'static Aim, f64)> {
    let mut all = Vec::new();
    for aim in AIMS {
        let Some(row) = rows.iter().find(|row| row.measure.name == aim.measure) else {
            continue;
        };
        for kind in [Kind::Device, Kind::Pieces] {
            if let (Some(ours), Some(theirs)) = (row.of(kind), row.of(aim.than)) {
                let ratio = ours / theirs;
                let reached = Reached {
                    measure: aim.measure,
                    subject: kind.name(),
                    than: aim.than.name(),
                    most: aim.most,
                    ratio,
                    reached: ratio < aim.most + 0.005,
                };
                all.push((reached, aim, row.spread));
            }
        }
    }
    all
}

pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::from(
        "Instructions per page, or per call of mmap and fork; in brackets the ratio to a memfd. Last, by how much\n\
         the figures of one line differed at most from round to round.\n\n",
    );
    write!(text, "{:34}", "").unwrap();
    for kind in Kind::ALL {
        write!(text, "{:>16}", kind.name()).unwrap();
    }
    writeln!(text).unwrap();
    for row in rows {
        write!(text, "{:34}", row.measure.name).unwrap();
        let memfd = row.of(Kind::Memfd);
        for figure in &row.figures {
            match (figure, memfd) {
                (Some(value), Some(memfd)) => {
                    write!(text, "{:>9.0} ({:.2})", value, value / memfd).unwrap();
                }
                (Some(value), None) => write!(text, "{value:>9.0}       ").unwrap(),
                (None, _) => write!(text, "{:>9}       ", "-").unwrap(),
            }
        }
        writeln!(text, "  {:.2} %", row.spread * 100.0).unwrap();
    }
    writeln!(text, "\nWhat is to be reached:").unwrap();
    for (it, aim, spread) in reached(rows) {
        let Reached {
            measure,
            subject,
            than,
            most,
            ratio,
            ..
        } = &it;
        let mark = if it.reached { "ok" } else { "missed" };
        write!(
            text,
            "{mark:>7}  {measure}, {subject}: {ratio:.2} of {than}, at most {most:.2}"
        )
        .unwrap();
        if !it.reached {
            let why = if *subject == Kind::Device.name() {
                aim.single
            } else if ratio - most <= spread {
                "one round differs from the next by more than that"
            } else {
                "no reason is known"
            };
            write!(text, " ({why})").unwrap();
        }
        writeln!(text).unwrap();
    }
    text
}

/// A figure of the report, as everywhere in `build/report`.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    subject: &'static str,
    value: f64,
    unit: &'static str,
}

impl Per {
    fn unit(self) -> &'static str {
        match self {
            Self::Page(_) => "instructions/page",
            Self::Call => "instructions",
        }
    }
}

#[derive(Serialize)]
struct Report {
    target: &'static str,
    kernel: String,
    rows: Vec<Figure>,
    aims: Vec<Reached>,
}

pub(crate) fn write_report(
    path: &Path,
    rows: &[Row],
    recording: Option<&Recording>,
) -> io::Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let recording_rows = recording.map_or(&[][..], Recording::rows);
    // What one object costs is in both tables.
    let figures = Iterator::chain(
        rows.iter().flat_map(|row| row.each(Kind::ALL.as_slice())),
        recording_rows
            .iter()
            .flat_map(|row| row.each(&[Kind::Watched])),
    );
    let aims = reached(rows).into_iter().map(|(reached, ..)| reached);
    let report = Report {
        target: "bench-device",
        kernel: kernel.trim_end().into(),
        rows: figures.collect(),
        aims: aims
            .chain(recording.into_iter().flat_map(Recording::reached))
            .collect(),
    };
    fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
}
