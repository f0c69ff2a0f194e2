// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What memory of `/dev/vmalab` and `/dev/vmalab-prepare` costs, beside a memfd, `/dev/zero` and private
//! anonymous memory.
//!
//! To be run in a guest whose clock counts instructions (`qemu-image/run --icount`): there the figures
//! of two runs are the same, whatever else the host does.

mod measure;
mod memory;
mod recording;
mod table;

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::Parser;
use measure::{MEASURES, Measure, Order};
use memory::Kind;
use recording::Recording;
use table::Row;

/// What memory of /dev/vmalab costs, beside other kinds of memory.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How often each figure is taken, after one time that does not count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where to write the report, in JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The module is one that cannot record: only write what to hold the other one against.
    #[arg(long, value_name = "FILE")]
    write_without: Option<PathBuf>,
    /// What was written with a module that cannot record.
    #[arg(long, value_name = "FILE")]
    without_recording: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    // Huge pages only where they are asked for.
    for (file, value) in [("enabled", "madvise"), ("shmem_enabled", "advise")] {
        let path = format!("/sys/kernel/mm/transparent_hugepage/{file}");
        fs::write(&path, value).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    }
    if let Some(path) = &args.write_without {
        let rows = rows(args.rounds, recording::measures(), &[Kind::Device])?;
        return recording::write_without(path, &rows);
    }
    let all = rows(args.rounds, MEASURES.iter(), &Kind::ALL)?;
    print!("{}", table::text(&all));
    let recording = match &args.without_recording {
        Some(path) => {
            let rows = rows(args.rounds, recording::measures(), recording::KINDS)?;
            Some(Recording::new(rows, path)?)
        }
        None => None,
    };
    if let Some(recording) = &recording {
        print!("{}", recording.text());
    }
    match &args.report {
        Some(path) => table::write_report(path, &all, recording.as_ref()),
        None => Ok(()),
    }
}

/// Takes each figure, of each kind of memory in turn.
fn rows(
    rounds: usize,
    measures: impl Iterator<Item = &'static Measure>,
    kinds: &'static [Kind],
) -> io::Result<Vec<Row>> {
    let order = Order::new();
    let mut rows = Vec::new();
    for measure in measures {
        let mut samples = vec![Vec::new(); kinds.len()];
        for round in 0..=rounds {
            for (kind, samples) in kinds.iter().zip(&mut samples) {
                let figure = (measure.run)(*kind, &order).map_err(|error| {
                    io::Error::other(format!("{}, {}: {error}", measure.name, kind.name()))
                })?;
                if round > 0 {
                    samples.extend(figure.map(|ticks| measure.per.divide(ticks)));
                }
            }
        }
        rows.push(Row::new(measure, kinds, samples));
    }
    Ok(rows)
}
