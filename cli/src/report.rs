// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab report`, and what all subcommands say of the files of a finding.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use vmalab_differ::index;
use vmalab_differ::page::Written;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where findings are
    #[arg(value_name = "DIRECTORY", default_value = "build/report")]
    directories: Vec<PathBuf>,
    /// The page [default: index.html in the first directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => args.directories[0].join(index::NAME),
    };
    let count = index::write(&args.directories, &out);
    let count = count.with_context(|| format!("cannot write {}", out.display()))?;
    println!("{count} findings in {}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Tells which files were written.
pub(crate) fn print(directory: &Path, written: &io::Result<Written>) {
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            println!("\nnot written to {}: {error}", directory.display());
            return;
        }
    };
    println!("\nwritten:\n  {}", written.sequence.display());
    match &written.program {
        Ok(program) => println!("  {}", program.display()),
        Err(why) => println!("  no program of C: {why}"),
    }
    println!("  {}", written.page.display());
    println!("all that is there:\n  {}", written.index.display());
}
