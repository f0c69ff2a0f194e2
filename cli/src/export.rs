// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab export`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vmalab_differ::conformance::{Case, SCHEMA};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to: it is made, and must be empty
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// How many cases
    #[arg(long, default_value_t = 500)]
    cases: u64,
    /// Calls in each
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=4096))]
    calls: u16,
    /// From which all follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let directory = &args.directory;
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot make {shown}"))?;
    let empty = fs::read_dir(directory)
        .with_context(|| format!("cannot read {shown}"))?
        .next()
        .is_none();
    anyhow::ensure!(empty, "{shown} is not empty");
    fs::write(directory.join("schema.json"), SCHEMA)
        .with_context(|| format!("cannot write to {shown}"))?;
    for number in 0..args.cases {
        let case = Case::generate(args.seed, number, args.calls.into());
        let path = directory.join(format!("case-{number:05}.json"));
        let text = serde_json::to_string(&case)? + "\n";
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{} cases of {} calls in {shown}", args.cases, args.calls);
    Ok(ExitCode::SUCCESS)
}
