// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab diff`

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::personality::{self, Persona};
use vmalab_differ::host::{Host, HostOptions, Tight};
use vmalab_differ::jobs;
use vmalab_differ::oracle::{Oracle, World};
use vmalab_differ::report::{About, Report, finding_text, result_name};
use vmalab_differ::runner::{End, Plan, Runner, Stats};
use vmalab_differ::vmac::{Build, VmaC};
use vmalab_model::{Mistake, Rules};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What answers for real
    #[arg(long, value_enum, default_value_t = Which::Host)]
    oracle: Which,
    /// How many operations
    #[arg(long, default_value_t = 10_000)]
    ops: u64,
    /// With --oracle vmac: how many threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    jobs: Option<u32>,
    /// With --oracle vmac: a library that differ/vmac/build made, instead of making one
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,
    /// From which all operations follow [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// The first batch: to repeat what was found in it
    #[arg(long, default_value_t = 0)]
    batch: u64,
    /// Have mappings of this node of vmalab.ko among the others
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
    /// The rules of the model [default: the era of the running kernel]
    #[arg(long, value_name = "NAME")]
    era: Option<String>,
    /// How to come near the limit on the number of areas
    #[arg(long, value_enum, default_value_t = Limit::Fill)]
    limit: Limit,
    /// Read the counters after every N-th operation, and after the last of each batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    counters_every: u32,
    /// Look at all areas after every N-th operation, and after the last of each batch; in between,
    /// at those in reach of the operation
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    layout_every: u32,
    /// Run near RLIMIT_DATA, too: when it is first exceeded, the kernel logs a warning
    #[arg(long)]
    data_limit: bool,
    /// Read /proc/self/maps as text even where the kernel has PROCMAP_QUERY
    #[arg(long)]
    text: bool,
    /// Write a report for machines to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report for machines instead of text
    #[arg(long)]
    json: bool,
    /// Break a rule of the model, to see that this is found
    #[arg(long, value_name = "NAME", hide = true)]
    mistake: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The running kernel
    Host,
    /// mm/vma.c of the kernel tree VMALAB_LINUX_SRC, compiled into a library and run in this process
    Vmac,
}

#[derive(Clone, Copy, ValueEnum)]
enum Limit {
    /// Not at all
    Never,
    /// By filling the address space
    Fill,
    /// By lowering vm.max_map_count while a batch runs: all processes of the machine see that
    Sysctl,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.oracle {
        Which::Host => run_host(args),
        Which::Vmac => run_vmac(args),
    }
}

fn run_host(args: &Args) -> anyhow::Result<ExitCode> {
    if args.jobs.is_some() || args.library.is_some() {
        bail!(
            "--jobs and --library go with --oracle vmac: the running kernel is asked by one process"
        );
    }
    without_randomisation()?;
    let kernel = crate::release()?;
    let rules = rules(args, &kernel)?;
    let mut host = Host::new(HostOptions {
        device: args.device.clone(),
        tight: match args.limit {
            Limit::Never => Tight::Never,
            Limit::Fill => Tight::Fill,
            Limit::Sysctl => Tight::Sysctl,
        },
        counters_every: args.counters_every,
        layout_every: args.layout_every,
        data_limit: args.data_limit,
        text: args.text,
    })?;
    let plan = plan(args, rules);
    let about = About {
        kernel,
        era: rules.name.into(),
        oracle: host.name(),
        seed: plan.seed,
        first_batch: args.batch,
        layout_every: args.layout_every,
        counters_every: args.counters_every,
        skipped: host.skipped().to_vec(),
        command: command(args, plan.seed),
    };
    introduce(args, &about);
    if !args.json {
        println!(
            "looks   at the areas in reach after each operation, at all in the windows after every {}; \
             at the counters after every {}; at everything after each batch",
            args.layout_every, args.counters_every
        );
    }
    let stop = stop_flag()?;
    let bar = progress_bar(args);
    let mut runner = Runner::new(&mut host, rules)?;
    let (stats, end) = runner.run(&plan, |stats| go_on(&bar, &stop, stats.ops))?;
    bar.finish_and_clear();
    conclude(args, &about, &stats, &end, runner.worlds())
}

fn run_vmac(args: &Args) -> anyhow::Result<ExitCode> {
    if args.device.is_some() {
        bail!("--device goes with --oracle host: vmac has devices of its own");
    }
    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut oracles = match &args.library {
        Some(library) => load(library, jobs)?,
        None => {
            let build = Build::from_environment()?;
            let built = std::env::temp_dir().join(format!("libvmac-{}.so", std::process::id()));
            build.run(&built)?;
            let oracles = load(&built, jobs);
            // Each oracle has a copy of its own.
            fs::remove_file(&built)
                .with_context(|| format!("cannot remove {}", built.display()))?;
            oracles?
        }
    };
    let kernel = oracles[0].kernel().to_owned();
    let rules = rules(args, &kernel)?;
    let plan = plan(args, rules);
    let about = About {
        kernel,
        era: rules.name.into(),
        oracle: oracles[0].name(),
        seed: plan.seed,
        first_batch: args.batch,
        layout_every: 1,
        counters_every: 1,
        skipped: Vec::new(),
        command: command(args, plan.seed),
    };
    introduce(args, &about);
    if !args.json {
        println!("looks   at everything after each operation, in {jobs} threads");
    }
    let stop = stop_flag()?;
    let bar = progress_bar(args);
    let (stats, end) = jobs::run(&mut oracles, &plan, |done| go_on(&bar, &stop, done))?;
    bar.finish_and_clear();
    let lost: u64 = oracles.iter().map(VmaC::lost_charge).sum();
    if lost > 0 && !args.json {
        println!(
            "known   {lost} operations lost commit charge for good: an mmap that failed after it had \
             unmapped, or a growing stack that does not count"
        );
    }
    conclude(args, &about, &stats, &end, oracles[0].worlds())
}

/// So many copies of the library.
fn load(library: &Path, jobs: usize) -> anyhow::Result<Vec<VmaC>> {
    let load = |_| VmaC::new(library).map_err(Into::into);
    (0..jobs).map(load).collect()
}

fn plan(args: &Args, rules: Rules) -> Plan {
    Plan {
        rules,
        seed: args
            .seed
            .unwrap_or_else(|| RandomState::new().hash_one(0) >> 32),
        first_batch: args.batch,
        ops: args.ops,
    }
}

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

/// Becomes true with Ctrl-C.
fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    ctrlc::set_handler(move || stopped.store(true, Ordering::Relaxed))
        .context("cannot catch Ctrl-C")?;
    Ok(stop)
}

fn go_on(bar: &ProgressBar, stop: &AtomicBool, done: u64) -> ControlFlow<()> {
    bar.set_position(done);
    if stop.load(Ordering::Relaxed) {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Tells how it ended.
fn conclude(
    args: &Args,
    about: &About,
    stats: &Stats,
    end: &End,
    worlds: &[World],
) -> anyhow::Result<ExitCode> {
    let report = Report::new(about, stats, end, worlds);
    let text = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &args.report {
        fs::write(path, text.clone() + "\n")
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    if args.json {
        println!("{text}");
    } else {
        print_stats(stats);
        match end {
            End::Agreed => println!("result  no divergence"),
            End::Stopped => println!("result  stopped; no divergence up to there"),
            End::Found(finding) => {
                println!("result  DIVERGENCE\n");
                print!("{}", finding_text(finding, about, worlds));
            }
        }
    }
    Ok(if matches!(end, End::Found(_)) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// The rules to compare with.
fn rules(args: &Args, kernel: &str) -> anyhow::Result<Rules> {
    let names = || {
        Rules::all()
            .iter()
            .map(|rules| rules.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let rules = match &args.era {
        Some(name) => Rules::by_name(name)
            .ok_or_else(|| anyhow!("there is no era {name}; there are: {}", names()))?,
        None => Rules::for_kernel(kernel).ok_or_else(|| {
            anyhow!(
                "this kernel, {kernel}, is older than all eras of the model ({}); choose one with \
                 --era to compare all the same",
                names()
            )
        })?,
    };
    let Some(name) = &args.mistake else {
        return Ok(*rules);
    };
    let known = Mistake::ALL
        .iter()
        .find(|mistake| format!("{mistake:?}") == *name);
    match known {
        Some(&mistake) => Ok(rules.with_mistake(mistake)),
        None => bail!("there is no mistake {name}; there are: {:?}", Mistake::ALL),
    }
}

/// Starts this program anew without address randomisation, so that the addresses of a finding are the
/// same next time. Where that is not allowed, only the choices repeat.
fn without_randomisation() -> anyhow::Result<()> {
    let persona = personality::get()?;
    if persona.contains(Persona::ADDR_NO_RANDOMIZE)
        || personality::set(persona | Persona::ADDR_NO_RANDOMIZE).is_err()
    {
        return Ok(());
    }
    let program =
        std::env::current_exe().context("cannot find this program (is /proc mounted?)")?;
    let error = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// What to type to have the same batches again.
fn command(args: &Args, seed: u64) -> String {
    let mut command = format!("vmalab diff --seed {seed}");
    if args.oracle == Which::Vmac {
        command += " --oracle vmac";
    }
    if let Some(library) = &args.library {
        command += &format!(" --library {}", library.display());
    }
    if let Some(device) = &args.device {
        command += &format!(" --device {}", device.display());
    }
    if let Some(era) = &args.era {
        command += &format!(" --era {era}");
    }
    if let Some(mistake) = &args.mistake {
        command += &format!(" --mistake {mistake}");
    }
    match args.limit {
        Limit::Never => command += " --limit never",
        Limit::Fill => {}
        Limit::Sysctl => command += " --limit sysctl",
    }
    if args.data_limit {
        command += " --data-limit";
    }
    command
}

fn progress_bar(args: &Args) -> ProgressBar {
    let target = if args.json {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style = ProgressStyle::with_template(
        "{bar:30} {human_pos} of {human_len} operations, {per_sec}, {eta} left",
    );
    ProgressBar::with_draw_target(Some(args.ops), target)
        .with_style(style.expect("the template is well-formed"))
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
    println!(
        "batches {}; at most {} areas at a time",
        worlds.join(", "),
        stats.most_areas
    );
}
