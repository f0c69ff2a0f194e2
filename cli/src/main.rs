// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The command `vmalab`: one file here for each subcommand.

mod diff;
mod eras;
mod export;
mod known;
mod man;
mod oracles;
mod record;
mod replay;
mod report;
mod shrink;
mod stats;
mod watch;
mod worlds;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::sys::signal::{SigHandler, Signal, signal};

/// A laboratory for Linux memory mappings: see what the kernel does with a mapping, predict it, and
/// prove the prediction.
#[derive(Parser)]
#[command(
    name = "vmalab",
    version,
    after_help = "Exit status: 0 all agreed, 1 something was found, 2 wrong usage or environment."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare a kernel with the model, on random operations
    Diff(diff::Args),
    /// List the eras of the model, and the one that the running kernel belongs to
    Eras(eras::Args),
    /// Write cases for other systems that answer the mmap family: calls, and what each era answers
    Export(export::Args),
    /// List where kernels are known to do otherwise than the model, and why that is no finding
    Known(known::Args),
    /// Write manual pages of this command, one for each subcommand
    Man(man::Args),
    /// Make a sequence of what a real program does with its memory, by strace
    Record(record::Args),
    /// Play sequences of operations on an oracle, and recordings of real kernels on the model
    Replay(replay::Args),
    /// Put all findings of some directories on one page of HTML
    Report(report::Args),
    /// Make a sequence that shows a divergence as short and simple as can be
    Shrink(shrink::Args),
    /// Show what /dev/vmalab counts: live objects, areas and pages, and calls of its hooks
    Stats(stats::Args),
    /// Show the calls of the hooks of /dev/vmalab as they happen: of a command, or of all programs
    Watch(watch::Args),
    /// Compare with the model every sequence of a few operations over a few pages
    Worlds(worlds::Args),
}

fn main() -> ExitCode {
    // The end of whoever reads what is printed ends this program, as it does any other one in a pipe; by default a
    // program in Rust ignores the signal, and fails at the next line.
    // SAFETY: no handler is called, and nobody else here has a say in this signal.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    let done = match Cli::parse().command {
        Command::Diff(args) => diff::run(&args),
        Command::Eras(args) => eras::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Known(args) => known::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Worlds(args) => worlds::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("vmalab: {error:#}");
        ExitCode::from(2)
    })
}

/// The running kernel's release, as `uname -r` prints it.
fn release() -> anyhow::Result<String> {
    Ok(nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned())
}
