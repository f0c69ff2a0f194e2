// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab shrink`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use vmalab_differ::page::what;
use vmalab_differ::report::case_text;
use vmalab_differ::runner::{Runner, SHRINK_FOR};
use vmalab_differ::sequence::to_text;

use crate::oracles::Choice;
use crate::replay::{Loaded, load};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A sequence of operations, as text or JSON
    file: PathBuf,
    #[command(flatten)]
    choice: Choice,
    /// Play in this world of the oracle instead of the one that the sequence names
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// Stop after so many seconds with the simplest that was found by then
    #[arg(long, value_name = "SECONDS", default_value_t = SHRINK_FOR.as_secs())]
    time: u64,
    /// Write the short sequence to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Loaded {
        mut chosen,
        world,
        ops,
    } = load(&args.file, &args.choice, args.world.as_deref())?;
    let mut runner = Runner::new(&mut *chosen.oracle, chosen.rules)?;
    let Some(case) = runner.replay(world, &ops)? else {
        println!("all {} operations did as predicted", ops.len());
        return Ok(ExitCode::SUCCESS);
    };
    let begin = Instant::now();
    let short = runner.shrink(&case, Duration::from_secs(args.time))?;
    println!(
        "{} operations of {} are enough, found in {:.1?}:",
        short.ops.len(),
        ops.len(),
        begin.elapsed()
    );
    print!("{}", case_text(&short, runner.worlds()));
    if let Some(out) = &args.out {
        let world = &runner.worlds()[short.world];
        let text = to_text(world, Some(chosen.rules.name), &short.ops, &what(&short));
        fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(ExitCode::FAILURE)
}
