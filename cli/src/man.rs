// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab man`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::Cli;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to: it is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let directory = &args.directory;
    let cannot = || format!("cannot write to {}", directory.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(cannot)?;
    println!("man -l {}", directory.join("vmalab.1").display());
    Ok(ExitCode::SUCCESS)
}
