// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What memory of `/dev/vmalab` costs, beside a memfd, `/dev/zero` and private anonymous memory.
//!
//! To be run in a guest whose clock counts instructions (`qemu-image/run --icount`): there the figures
//! of two runs are the same, whatever else the host does.

mod measure;
mod memory;
mod table;

use std::{fs, io, path::PathBuf, process::ExitCode};

use clap::Parser;
use measure::{MEASURES, Order};
use memory::Kind;
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
    let order = Order::new();
    let mut rows = Vec::new();
    for measure in MEASURES {
        let mut samples = vec![Vec::new(); Kind::ALL.len()];
        for round in 0..=args.rounds {
            for (kind, samples) in Kind::ALL.into_iter().zip(&mut samples) {
                let figure = (measure.run)(kind, &order).map_err(|error| {
                    io::Error::other(format!("{}, {}: {error}", measure.name, kind.name()))
                })?;
                if round > 0 {
                    samples.extend(figure.map(|ticks| measure.per.divide(ticks)));
                }
            }
        }
        rows.push(Row::new(measure, samples));
    }
    print!("{}", table::text(&rows));
    match &args.report {
        Some(path) => table::write_report(path, &rows),
        None => Ok(()),
    }
}
