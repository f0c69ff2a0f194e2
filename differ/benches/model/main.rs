// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What an operation costs in the model, beside the kernel's own `mm/vma.c` and two maps of ranges.
//!
//! `make bench-model`, or `cargo bench -p vmalab-differ --bench model`, with `-- --help` for its arguments.
//! The kernel's source is where `VMALAB_LINUX_SRC` says; without it that column is empty, and it says why.
//!
//! # What is compared
//!
//! | subject | what runs |
//! | --- | --- |
//! | model | `AddressSpace::execute` with the rules of 7.2: from an `Op` to its value, the areas, the counters, the hook calls of drivers, and what was discarded |
//! | RbList | the same, with that container |
//! | vma.c | the system call's own function, `do_mmap`, `__vm_munmap` or `do_mprotect_pkey`, of Linux 7.2, by `gcc -O2` |
//! | BTree | the model's container alone: ranges with their rights, cut and joined, by hand |
//! | rangemap | `RangeMap` of that crate: ranges with their rights, cut and joined; no limits, no checks, no counters |
//! | BTreeMap | the same by hand, on that of the standard library |
//!
//! Real on the kernel's side: all checks of the calls, the choice of addresses, the maple tree with its
//! preallocation and RCU, the reverse maps of files, merging and splitting, the counters, the driver's hooks,
//! which write a line into an array as the model's do. Missing, so that it is faster than in a kernel: entry
//! and exit of the system call, locks, page tables, zapping, TLB flushes, memory cgroups, security modules;
//! the allocator is a free list. It is compiled as Debian's kernels are, without `CONFIG_DEBUG_VM`, and
//! without what `vmalab diff` adds to see (`BARE=1` of `differ/vmac/build`). No page was touched, so no
//! `anon_vma` has to be cloned.
//!
//! All subjects get the same operations, made beforehand, in turns: a round of one, a round of the next, so
//! that what else the machine does meets all of them. A figure is the best of the rounds, in processor time of
//! this thread: who shares the caches and the core only ever makes a round slower. After each row the counters of the models and of `vma.c` must be equal, and all searches
//! must have found the same.
//!
//! Memory is what the process's allocator gets back when the areas are dropped, with what it adds for itself,
//! and without the files;
//! of `vma.c` it is the size of its structures as compiled here: a real `vm_area_struct` is larger, and its
//! slab rounds up.

mod memory;
mod subjects;
mod table;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use subjects::{Kernel, Model, PlainMap, Ranges, Subject, Tree};
use table::Row;
use vmalab_differ::vmac::{Build, VmaC};
use vmalab_model::{BTree, RbList};
use work::{Plan, Work};

/// How many areas there are.
const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 60_000];
/// At least so many rounds count, however long they take.
const ROUNDS: usize = 7;

const HELP: &str = "\
--report FILE   writes the figures there, in JSON
--only TEXT     only work with this in its name
--seconds S     how long each line of the table is measured [1]";

struct Args {
    report: Option<PathBuf>,
    only: String,
    time: Duration,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut parsed = Self {
            report: None,
            only: String::new(),
            time: Duration::from_secs(1),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value"));
            match arg.as_str() {
                // cargo says that it is a benchmark.
                "--bench" => {}
                "--report" => parsed.report = Some(value()?.into()),
                "--only" => parsed.only = value()?,
                "--seconds" => {
                    let seconds = value()?.parse().ok();
                    let time = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                    parsed.time = time.ok_or("--seconds wants a number")?;
                }
                _ => return Err(HELP.into()),
            }
        }
        Ok(parsed)
    }
}

fn main() -> ExitCode {
    match Args::parse().and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Model::<BTree>::new("model")),
        Box::new(Model::<RbList>::new("RbList")),
    ];
    let mut version = None;
    match kernel() {
        Ok(kernel) => {
            version = Some(kernel.kernel().to_owned());
            subjects.push(Box::new(Kernel::new(kernel)));
        }
        Err(why) => eprintln!("vma.c is skipped: {why}"),
    }
    subjects.push(Box::new(Tree::default()));
    subjects.push(Box::new(Ranges::default()));
    subjects.push(Box::new(PlainMap::default()));

    let (mut rows, mut memory) = (Vec::new(), Vec::new());
    for work in Work::ALL {
        for size in SIZES {
            if work.name().contains(&args.only) {
                let (times, bytes) = measure(work, size, &mut subjects, args.time)?;
                rows.push(times);
                memory.extend(bytes);
            }
        }
    }
    memory.sort_by_key(|row: &Row| row.name);
    rows.extend(memory);
    print!("{}", table::text(&rows, version.as_deref()));
    match &args.report {
        Some(path) => table::write_report(path, &rows, version.as_deref())
            .map_err(|error| format!("{}: {error}", path.display())),
        None => Ok(()),
    }
}

/// Builds and loads the kernel's code.
fn kernel() -> Result<VmaC, String> {
    let library = std::env::temp_dir().join(format!("vmac-bare-{}.so", std::process::id()));
    let mut build = Build::from_environment().map_err(|error| error.to_string())?;
    build.bare = true;
    build.run(&library).map_err(|error| error.to_string())?;
    let loaded = VmaC::new(&library).map_err(|error| error.to_string());
    let _ = std::fs::remove_file(&library);
    loaded
}

/// Measures one kind of work at one size: what a step takes and, if it is asked for, what memory is held in
/// the end.
fn measure(
    work: Work,
    size: usize,
    subjects: &mut [Box<dyn Subject>],
    time: Duration,
) -> Result<(Row, Option<Row>), String> {
    let mut plan = Plan::new(work, size);
    let mut taking_part: Vec<_> = subjects
        .iter_mut()
        .filter(|subject| subject.is_system() || !work.is_of_system())
        .map(|subject| (subject, Vec::new()))
        .collect();
    let failed = |name, error| format!("{}, {size} areas, {name}: {error}", work.name());

    let load = plan.load();
    for (subject, _) in &mut taking_part {
        subject.prepare(&load);
        subject
            .run()
            .map_err(|error| failed(subject.name(), error))?;
    }
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds <= ROUNDS || begun.elapsed() < time {
        let round = plan.round();
        let mut found = None;
        for (subject, samples) in &mut taking_part {
            subject.prepare(&round);
            let start = processor_time();
            let sum = subject.run();
            let took = processor_time() - start;
            let sum = sum.map_err(|error| failed(subject.name(), error))?;
            if *found.get_or_insert(sum) != sum {
                return Err(failed(subject.name(), "it found other areas".into()));
            }
            // The first round warms up.
            if rounds > 0 {
                samples.push(took.as_secs_f64() * 1e9 / plan.steps() as f64);
            }
        }
        rounds += 1;
    }
    let counters = taking_part
        .iter()
        .filter_map(|(subject, _)| subject.counters());
    let counters: Vec<_> = counters.collect();
    if counters.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(failed("all", format!("the counters differ: {counters:?}")));
    }

    let mut times = Row::new(work.name(), "ns", size);
    let mut memory = work.memory().map(|name| Row::new(name, "bytes", size));
    for (subject, samples) in &mut taking_part {
        times.figures.push((subject.name(), best(samples)));
        let bytes = subject.discard();
        if let Some(row) = &mut memory {
            row.figures
                .push((subject.name(), bytes as f64 / size as f64));
        }
    }
    Ok((times, memory))
}

/// What this thread has had of the processor: whoever else wants it does not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is one that may be written to.
    let error = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(error, 0, "there is no clock for a thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn best(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}
