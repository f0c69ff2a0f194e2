// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab worlds`

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vmalab_differ::known::KNOWN;
use vmalab_differ::oracle::Oracle;
use vmalab_differ::page::{self, Origin};
use vmalab_differ::report::{Row, case_text};
use vmalab_differ::sequence::to_json;
use vmalab_differ::small::{End, Extra, KINDS, Plan, Stats, alphabet, explore, narrow, shard};
use vmalab_model::Rules;

use crate::diff::stop_flag;
use crate::oracles::{Choice, Which};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// How many operations at most
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    ops: u32,
    /// Over how many pages
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=16))]
    pages: u64,
    /// Lock and unlock, too
    #[arg(long)]
    locks: bool,
    /// Each operation also where a driver's hook refuses, and where one of its allocations fails
    #[arg(long)]
    fails: bool,
    /// In the world where two areas are the limit
    #[arg(long)]
    narrow: bool,
    /// Play symmetric sequences as well: those that come to a state that others came to
    #[arg(long)]
    all: bool,
    /// Do part I of N of the longest sequences, from 0/N on
    #[arg(long, value_name = "I/N", value_parser = shard, default_value = "0/1")]
    shard: (u64, u64),
    /// How many threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// Write a report for machines to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Where a finding is written: a sequence to replay, a program of C, a page of HTML
    #[arg(long, value_name = "DIRECTORY", default_value = "build/report")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    match args.choice.oracle {
        Which::Host => bail!(
            "each sequence takes a process of its own there; name --oracle vmac (or model) for millions"
        ),
        Which::Vmac => {
            let mut oracles = args.choice.vmac(jobs)?;
            let kernel = oracles[0].kernel().to_owned();
            let rules = args.choice.rules(&kernel, None)?;
            explore_with(args, &mut oracles, &kernel, rules)
        }
        Which::Model => {
            let peers = (0..jobs).map(|_| args.choice.peer(None));
            let mut peers = peers.collect::<anyhow::Result<Vec<_>>>()?;
            let rules = args.choice.rules("", None)?;
            explore_with(args, &mut peers, "", rules)
        }
    }
}

fn explore_with<O: Oracle + Send>(
    args: &Args,
    oracles: &mut [O],
    kernel: &str,
    rules: Rules,
) -> anyhow::Result<ExitCode> {
    let worlds = oracles[0].worlds();
    let world = match args.narrow {
        true => narrow(worlds).context("this oracle has no world with such a limit")?,
        false => 0,
    };
    let extra = Extra {
        locks: args.locks,
        fails: args.fails,
    };
    let letters = alphabet(&worlds[world], args.pages, extra)?;
    let world_name = worlds[world].name.clone();
    let name = oracles[0].name();
    let plan = Plan {
        rules,
        world,
        length: args.ops,
        letters,
        known: KNOWN,
        symmetric_once: !args.all,
        shard: args.shard,
    };
    println!("oracle  {name}");
    println!("model   rules {}", rules.name);
    println!(
        "world   {world_name}: up to {} operations over {} pages; {} letters, {} kinds of area",
        args.ops,
        args.pages,
        plan.letters.len(),
        KINDS.len()
    );
    let stop = stop_flag()?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "length {prefix}: {bar:30} {human_pos} of {human_len} operations, {per_sec}, {eta} left",
    )?);
    let at = Mutex::new(0);
    let (stats, end) = explore(oracles, &plan, |length, done, all| {
        let mut at = at.lock().expect("no panic");
        if *at != length {
            *at = length;
            bar.reset();
            bar.set_length(all);
            bar.set_prefix(length.to_string());
        }
        bar.set_position(done);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    bar.finish_and_clear();
    print_stats(&stats);
    crate::known::print(&name, &stats.known);
    let mut report = json!({
        "target": "worlds", "kernel": kernel, "oracle": name, "era": rules.name,
        "world": world_name, "pages": args.pages, "kinds": KINDS.len(), "letters": stats.letters,
        "shard": [args.shard.0, args.shard.1],
        "sequences": stats.sequences.iter().map(u128::to_string).collect::<Vec<_>>(),
        "states": stats.states, "compared": stats.compared,
        "refused": stats.refused, "starved": stats.starved, "full": stats.full, "played": stats.played,
        "seconds": stats.elapsed.as_secs_f64(),
        "passed": u8::from(matches!(end, End::Agreed)),
        "failed": u8::from(matches!(end, End::Found(_))),
        "skipped": u8::from(matches!(end, End::Stopped)),
        "rows": rows(&stats, &format!("{name} against {}", rules.name)),
    });
    let code = match &end {
        End::Agreed => {
            println!("result  no divergence");
            ExitCode::SUCCESS
        }
        End::Stopped => {
            println!("result  stopped; no divergence up to there");
            ExitCode::SUCCESS
        }
        End::Found(found) => {
            let (case, short) = &**found;
            println!(
                "result  DIVERGENCE after {} operations, of which {} are enough\n",
                case.ops.len(),
                short.ops.len()
            );
            print!("{}", case_text(short, oracles[0].worlds()));
            let worlds = oracles[0].worlds();
            report["finding"] = to_json(&worlds[short.world], Some(rules.name), &short.ops);
            let origin = origin(args, &name, &rules, case.ops.len());
            let written = page::write(&args.out, short, &origin, worlds);
            crate::report::print(&args.out, &written);
            ExitCode::FAILURE
        }
    };
    if let Some(path) = &args.report {
        fs::write(path, format!("{report:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(code)
}

/// Figures in the shape that all reports have.
fn rows(stats: &Stats, subject: &str) -> Vec<Row> {
    let row = |name: String, value, unit: &str| Row {
        name,
        subject: subject.into(),
        value,
        unit: unit.into(),
    };
    let lengths = (1..).zip(&stats.compared);
    let compared = lengths.map(|(length, count)| {
        row(
            format!("compared, length {length}"),
            json!(count),
            "operations",
        )
    });
    let known = stats.known.iter();
    let known = known.map(|(name, count)| row(format!("known: {name}"), json!(count), "times"));
    compared.chain(known).collect()
}

/// Where a finding comes from.
fn origin(args: &Args, oracle: &str, rules: &Rules, length: usize) -> Origin {
    let (part, parts) = args.shard;
    let mut command = format!("vmalab worlds --ops {} --pages {}", args.ops, args.pages);
    let given = [
        ("locks", args.locks),
        ("fails", args.fails),
        ("narrow", args.narrow),
        ("all", args.all),
    ];
    for (option, given) in given {
        if given {
            command += &format!(" --{option}");
        }
    }
    Origin {
        name: format!("worlds-{part}-{parts}"),
        oracle: oracle.into(),
        era: rules.name.into(),
        found_in: format!(
            "a small world of {} pages, after {length} operations",
            args.pages
        ),
        command: format!("{command} --shard {part}/{parts}{}", args.choice.words()),
    }
}

fn print_stats(stats: &Stats) {
    for (index, compared) in stats.compared.iter().enumerate() {
        println!(
            "length {}: {} sequences; from {} states, {} operations compared",
            index + 1,
            stats.sequences[index],
            stats.states[index],
            compared
        );
    }
    println!(
        "failed  a driver refused in {}, an allocation failed in {}, there were too many areas in {}",
        stats.refused, stats.starved, stats.full
    );
    println!(
        "ops     {} played in {:.1?}, {:.0}/s",
        stats.played,
        stats.elapsed,
        stats.played as f64 / stats.elapsed.as_secs_f64()
    );
}
