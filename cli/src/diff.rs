// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab diff`

mod died;

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::signal::{Signal, raise};
use vmalab_differ::host::HostOptions;
use vmalab_differ::jobs::{self, Progress};
use vmalab_differ::oracle::{Oracle, OracleError, World};
use vmalab_differ::page;
use vmalab_differ::reach::Reach;
use vmalab_differ::report::{About, Report, finding_text, origin, result_name};
use vmalab_differ::runner::{BATCH, End, Plan, Stats};
use vmalab_differ::saved::Saved;
use vmalab_differ::small::{part, shard};
use vmalab_differ::supervised::{self, Campaign, Role};
use vmalab_differ::vmac::Isolated;
use vmalab_model::Rules;

use crate::known;
use crate::oracles::{Choice, Which};
use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,
    /// How many operations [default: 10000; with --time: no end]
    #[arg(long)]
    ops: Option<u64>,
    /// For how long, as in 90, 15m or 8h
    #[arg(long, value_parser = duration)]
    time: Option<Duration>,
    /// Do part I of N, from 0/N on; all parts together do what one run of that seed does
    #[arg(long, value_name = "I/N", value_parser = shard, requires = "seed")]
    shard: Option<(u64, u64)>,
    /// Go on where this file says, and keep in it how far the run got; it need not be there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Where a finding is written: a sequence to replay, a program of C, a page of HTML
    #[arg(long, value_name = "DIRECTORY", default_value = "build/report")]
    out: PathBuf,
    /// How many threads, as long as there is work for them [default: one for each processor; with --limit sysctl: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// From which all operations follow [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// The first batch: to repeat what was found in it
    #[arg(long, default_value_t = 0)]
    batch: u64,
    /// With --oracle host: read the counters after every N-th operation, and after the last of each batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    counters_every: u32,
    /// With --oracle host: look at all areas after every N-th operation, and after the last of each
    /// batch; in between, at those in reach of the operation
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    layout_every: u32,
    /// Write a report for machines to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report for machines instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.choice.oracle {
        Which::Host => run_host(args),
        Which::Vmac => run_vmac(args),
        Which::Model => run_model(args),
    }
}

fn run_host(args: &Args) -> anyhow::Result<ExitCode> {
    let looks = HostOptions {
        counters_every: args.counters_every,
        layout_every: args.layout_every,
        ..HostOptions::default()
    };
    let jobs = match args.choice.lowers_the_limit() {
        true if args.jobs.is_some_and(|jobs| jobs > 1) => {
            bail!(
                "--jobs goes with other limits: --limit sysctl lowers one that all of them would see"
            )
        }
        true => 1,
        false => jobs(args),
    };
    let mut hosts = args.choice.hosts(jobs, &looks)?;
    let kernel = hosts[0].release().to_owned();
    let rules = args.choice.rules(&kernel, None)?;
    let mut about = about(args, &hosts[0], kernel, rules)?;
    (about.layout_every, about.counters_every) = (args.layout_every, args.counters_every);
    about.skipped = hosts[0].skipped().to_vec();
    let looks = format!(
        "at the areas in reach after each operation, at all in the windows after every {}; at the \
         counters after every {}; at everything after each batch",
        args.layout_every, args.counters_every
    );
    compare_side_by_side(args, &about, rules, &looks, &mut hosts, None)
}

/// In a process of its own, which the kernel's code may kill.
fn run_vmac(args: &Args) -> anyhow::Result<ExitCode> {
    let mut oracles = args.choice.vmac(jobs(args))?;
    let kernel = oracles[0].kernel().to_owned();
    let rules = args.choice.rules(&kernel, None)?;
    let about = about(args, &oracles[0], kernel, rules)?;
    let campaign = Campaign::new()?;
    match campaign.fork()? {
        Role::Worker(terminal) => {
            let worker = Worker {
                campaign: &campaign,
                terminal,
            };
            let code =
                compare_side_by_side(args, &about, rules, EVERYTHING, &mut oracles, Some(&worker));
            campaign.over();
            code
        }
        Role::Supervisor(supervised::End::Over(code)) => Ok(ExitCode::from(code)),
        Role::Supervisor(supervised::End::Ended(signal)) => {
            if signal == Signal::SIGPIPE {
                // Whoever reads what is printed has seen enough of this one, too.
                raise(signal)?;
            }
            bail!("the process that compares was ended by {signal} (is there too little memory?)")
        }
        Role::Supervisor(supervised::End::Died(how)) => {
            let oracle = Isolated::new(oracles.remove(0));
            died::conclude(args, &about, rules, oracle, &campaign, &how)
        }
    }
}

fn run_model(args: &Args) -> anyhow::Result<ExitCode> {
    let peers = (0..jobs(args)).map(|_| args.choice.peer(None));
    let mut peers = peers.collect::<anyhow::Result<Vec<_>>>()?;
    let rules = args.choice.rules("", None)?;
    let about = about(args, &peers[0], String::new(), rules)?;
    compare_side_by_side(args, &about, rules, EVERYTHING, &mut peers, None)
}

/// How an oracle looks that hides nothing.
const EVERYTHING: &str = "at everything after each operation";

/// Oracles of one kind, each in a thread of its own.
fn compare_side_by_side<O: Oracle + Send>(
    args: &Args,
    about: &About,
    rules: Rules,
    looks: &str,
    oracles: &mut [O],
    worker: Option<&Worker>,
) -> anyhow::Result<ExitCode> {
    let looks = format!("{looks}; threads: {}", oracles.len());
    let worlds: Vec<Vec<World>> = oracles.iter().map(|one| one.worlds().to_vec()).collect();
    let under_way = worker.map_or(&[][..], |worker| worker.campaign.under_way());
    compare(
        args,
        about,
        rules,
        &looks,
        &worlds,
        worker,
        |plan, progress| jobs::run(oracles, plan, under_way, progress),
    )
}

/// What a process has that is supervised.
struct Worker<'a> {
    campaign: &'a Campaign,
    /// Where its standard error went before it was supervised.
    terminal: File,
}

/// How many threads: none that would have nothing to do, since each one's oracle takes a while to start.
fn jobs(args: &Args) -> usize {
    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let (_, ops) = share(args);
    let most = usize::try_from(jobs::most(ops));
    most.map_or(jobs, |most| jobs.min(most))
}

fn about(args: &Args, oracle: &impl Oracle, kernel: String, rules: Rules) -> anyhow::Result<About> {
    let saved = saved(args)?;
    let seed = args
        .seed
        .or(saved.map(|saved| saved.seed))
        .unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    Ok(About {
        kernel,
        era: rules.name.into(),
        oracle: oracle.name(),
        seed,
        first_batch: args.batch + share(args).0,
        layout_every: 1,
        counters_every: 1,
        skipped: Vec::new(),
        command: format!("vmalab diff --seed {seed}{}", args.choice.words()),
    })
}

/// How far the run got that is to go on, if there was one.
fn saved(args: &Args) -> anyhow::Result<Option<Saved>> {
    let Some(path) = &args.resume else {
        return Ok(None);
    };
    Saved::read(path).with_context(|| format!("cannot go on with {}", path.display()))
}

/// The first batch of this part, from `--batch` on, and how many operations.
fn share(args: &Args) -> (u64, u64) {
    let endless = 1 << 32;
    let Some(shard) = args.shard else {
        let ops = args.ops.unwrap_or(match args.time {
            Some(_) => endless * BATCH,
            None => 10_000,
        });
        return (0, ops);
    };
    match (args.ops, args.time) {
        // Each has a range of its own that no other one comes to.
        (None, Some(_)) => (shard.0 * endless, endless * BATCH),
        (ops, _) => {
            let ops = ops.unwrap_or(10_000);
            let batches = part(ops.div_ceil(BATCH), shard);
            let end = (batches.end * BATCH).min(ops);
            (batches.start, end - (batches.start * BATCH).min(end))
        }
    }
}

/// Seconds, or with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((last, 's')) => (&text[..last], 1),
        Some((last, 'm')) => (&text[..last], 60),
        Some((last, 'h')) => (&text[..last], 3600),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().ok();
    let seconds = seconds.and_then(|seconds| seconds.checked_mul(unit));
    let seconds = seconds.ok_or("expected a number, alone or followed by s, m or h")?;
    Ok(Duration::from_secs(seconds))
}

/// Told how far the run has come, it says whether to go on.
type Tell<'a> = &'a (dyn Fn(&Progress) -> ControlFlow<()> + Sync);

fn compare(
    args: &Args,
    about: &About,
    rules: Rules,
    looks: &str,
    worlds: &[Vec<World>],
    worker: Option<&Worker>,
    mut run: impl FnMut(&Plan, Tell) -> Result<(Stats, End), OracleError>,
) -> anyhow::Result<ExitCode> {
    let saved = saved(args)?;
    let (_, total) = share(args);
    introduce(args, about);
    if !args.json {
        println!("looks   {looks}");
    }
    let mut stats = match &saved {
        None => Stats {
            next_batch: about.first_batch,
            ..Stats::default()
        },
        Some(saved) => saved
            .stats(about)
            .map_err(|why| anyhow!("cannot go on: {why}"))?,
    };
    let interrupted;
    let stop = match worker {
        Some(worker) => worker.campaign.stop(),
        None => {
            interrupted = stop_flag()?;
            &*interrupted
        }
    };
    let keep = |stats: &Stats| -> anyhow::Result<()> {
        let saved = Saved::new(about, stats);
        if let Some(worker) = worker {
            worker.campaign.keep(&saved)?;
        }
        let Some(path) = &args.resume else {
            return Ok(());
        };
        let written = saved.write(path);
        written.with_context(|| format!("cannot write {}", path.display()))
    };
    // A run that dies soon has a seed, too.
    keep(&stats)?;
    let begin = Instant::now();
    let earlier = stats.elapsed;
    // What was done in earlier runs says nothing of the rate of this one.
    let bar = progress_bar(args, total, worker)?.with_position(stats.ops);
    bar.reset_eta();
    let end = loop {
        let planned = (stats.next_batch - about.first_batch) * BATCH;
        let plan = Plan {
            rules,
            seed: about.seed,
            first_batch: stats.next_batch,
            ops: total.saturating_sub(planned),
        };
        // Where the run is to be kept, it rests now and then, at the end of a batch.
        let slice = Instant::now();
        let kept = args.resume.is_some() || worker.is_some();
        let rests = || kept && slice.elapsed() >= KEPT_EVERY;
        let late = || args.time.is_some_and(|time| begin.elapsed() >= time);
        let (more, end) = run(&plan, &|progress| {
            let ops = stats.ops + progress.ops;
            bar.set_position(ops);
            if let Some(worker) = worker {
                worker.campaign.ops().store(ops, Ordering::Relaxed);
            }
            let mut reach = stats.reach.clone();
            reach.merge(&progress.reach);
            bar.set_message(reach.text());
            match stop.load(Ordering::Relaxed) || rests() || late() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        stats.add(&more);
        stats.next_batch = more.next_batch;
        stats.elapsed = earlier + begin.elapsed();
        keep(&stats)?;
        match end {
            End::Stopped if stop.load(Ordering::Relaxed) => break end,
            End::Stopped if late() => break End::Agreed,
            End::Stopped => {}
            _ => break end,
        }
    };
    bar.finish_and_clear();
    let whose = match &end {
        End::Found(finding) => finding.oracle,
        _ => 0,
    };
    conclude(args, about, &stats, &end, &worlds[whose])
}

/// How often a run is kept that can be gone on with.
const KEPT_EVERY: Duration = Duration::from_secs(10);

/// Says what is compared with what.
fn introduce(args: &Args, about: &About) {
    if args.json {
        return;
    }
    println!("oracle  {}", about.oracle);
    println!("model   kernel {} -> rules {}", about.kernel, about.era);
    println!("seed    {}, batches from {}", about.seed, about.first_batch);
    for skipped in &about.skipped {
        println!("skipped {skipped}");
    }
}

/// Becomes true with Ctrl-C. A second one ends the program at once: an oracle may hang.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if stopped.swap(true, Ordering::Relaxed) {
            std::process::exit(supervised::INTERRUPTED);
        }
    })
    .context("cannot catch Ctrl-C")?;
    Ok(stop)
}

/// Tells how it ended.
fn conclude(
    args: &Args,
    about: &About,
    stats: &Stats,
    end: &End,
    worlds: &[World],
) -> anyhow::Result<ExitCode> {
    let machine = Report::new(about, stats, end, worlds);
    // A finding is told even where it cannot be written.
    let written = match end {
        End::Found(finding) => {
            let origin = origin(about, finding);
            Some(page::write(&args.out, &finding.short, &origin, worlds))
        }
        _ => None,
    };
    tell_machines(args, &machine)?;
    if !args.json {
        print_stats(stats);
        known::print(&about.oracle, &stats.known);
        match end {
            End::Agreed => println!("result  no divergence"),
            End::Stopped => println!("result  stopped; no divergence up to there"),
            End::Found(finding) => {
                println!("result  DIVERGENCE\n");
                print!("{}", finding_text(finding, about, worlds));
                let written = written.expect("what was found was to be written");
                report::print(&args.out, &written);
            }
        }
    }
    Ok(if matches!(end, End::Found(_)) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// Writes the report, and prints it if that is all that is wanted.
fn tell_machines(args: &Args, machine: &Report) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(machine)?;
    if let Some(path) = &args.report {
        fs::write(path, text.clone() + "\n")
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    if args.json {
        println!("{text}");
    }
    Ok(())
}

fn progress_bar(args: &Args, total: u64, worker: Option<&Worker>) -> anyhow::Result<ProgressBar> {
    let target = match worker {
        _ if args.json => ProgressDrawTarget::hidden(),
        Some(worker) => {
            let terminal = || worker.terminal.try_clone();
            ProgressDrawTarget::term(Term::read_write_pair(terminal()?, terminal()?), 20)
        }
        None => ProgressDrawTarget::stderr(),
    };
    // How long is known only where it is not the time that ends the run.
    let style = ProgressStyle::with_template(match args.time {
        Some(_) => "{spinner} {human_pos} operations, {per_sec}, {msg}, for {elapsed}",
        None => "{bar:30} {human_pos} of {human_len} operations, {per_sec}, {msg}, {eta} left",
    });
    let bar = ProgressBar::with_draw_target(Some(total), target)
        .with_style(style.expect("the template is well-formed"))
        .with_message(Reach::default().text());
    bar.enable_steady_tick(Duration::from_secs(1));
    Ok(bar)
}

fn print_stats(stats: &Stats) {
    println!(
        "ops     {} compared in {:.1?}, {:.0}/s",
        stats.ops,
        stats.elapsed,
        stats.rate()
    );
    let mut kinds: Vec<&str> = stats.results.keys().map(|&(kind, _)| kind).collect();
    kinds.dedup();
    for kind in kinds {
        let results: Vec<String> = stats
            .results
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|((_, number), count)| format!("{} {count}", result_name(*number)))
            .collect();
        println!("        {kind}: {}", results.join(", "));
    }
    println!("reached {}", stats.reach.text());
    if !stats.hooks.is_empty() {
        let hooks: Vec<String> = stats
            .hooks
            .iter()
            .map(|(hook, count)| format!("{hook} {count}"))
            .collect();
        println!("hooks   {}", hooks.join(", "));
    }
    let worlds: Vec<String> = stats
        .worlds
        .iter()
        .map(|(world, batches)| format!("{world} {batches}"))
        .collect();
    for why in &stats.unfinished {
        println!("skipped part of the run: {why}");
    }
    println!(
        "batches {}; at most {} areas at a time",
        worlds.join(", "),
        stats.most_areas
    );
}
