// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab record`

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, bail};
use vmalab_differ::oracle::Oracle;
use vmalab_differ::peer::Peer;
use vmalab_differ::sequence::{to_json, to_text};
use vmalab_differ::strace;
use vmalab_model::Rules;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Read a trace that was made by: strace -f -o FILE -e trace=%memory,clone,clone3,execve COMMAND
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    from: Option<PathBuf>,
    /// Write the sequence to this file [default: to standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write it as JSON, which has no comments, instead of text
    #[arg(long)]
    json: bool,
    /// Run this under strace, which must be installed
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "from")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (trace, of) = match &args.from {
        Some(path) => (read(path)?, path.display().to_string()),
        None => (run_traced(&args.command)?, shown(&args.command)),
    };
    let peer = Peer::new(Rules::V7_2);
    let world = &peer.worlds()[0];
    let recorded = strace::read(&trace, world).map_err(|what| anyhow!("{of}: {what}"))?;
    if recorded.ops.is_empty() {
        bail!("{of}: there is no call in it that could be replayed");
    }
    let mut comment = format!("Recorded of {of}.\n");
    for (why, count) in &recorded.left_out {
        comment += &format!("Left out: {count} calls {why}.\n");
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&to_json(world, None, &recorded.ops))? + "\n",
        false => to_text(world, None, &recorded.ops, &comment),
    };
    match &args.out {
        None => io::stdout().write_all(text.as_bytes())?,
        Some(out) => {
            fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
            print!("{comment}");
            println!("{} operations in {}", recorded.ops.len(), out.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Runs a command, and gives the trace of it. Its output and exit status are its own.
fn run_traced(command: &[OsString]) -> anyhow::Result<String> {
    let file = std::env::temp_dir().join(format!("vmalab-record-{}", std::process::id()));
    let status = Command::new("strace")
        .args(["-f", "-qq", "-e", strace::CALLS, "-o"])
        .arg(&file)
        .arg("--")
        .args(command)
        .status()
        .context("cannot start strace: apt install strace, or give a trace by --from")?;
    if !status.success() {
        eprintln!("vmalab: strace, or what it ran, ended with {status}");
    }
    let trace = read(&file);
    let _ = fs::remove_file(&file);
    trace
}

fn shown(command: &[OsString]) -> String {
    let words = command.iter().map(|word| word.to_string_lossy());
    words.collect::<Vec<_>>().join(" ")
}
