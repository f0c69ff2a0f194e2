// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What the module promises to user space, tried in the guest as root.
//!
//! The same expectations hold for `/dev/vmalab` and for a memfd, where nothing else is said: so
//! `--subject memfd` checks the tests themselves, on any Linux, without the module.
//!
//! Each test runs in a child process of its own. A crash or a hang fails that test alone, and when
//! the child is gone, the module must hold no object, area or page any more, and the kernel must
//! have logged nothing at warning level or above.

mod answers;
mod cgroup;
mod checks;
mod compat;
mod contents;
mod core;
mod driver;
mod failing;
mod folio;
mod fork;
mod gup;
mod holes;
mod hooks;
mod io;
mod ioctl;
mod lab;
mod leaks;
mod lifetime;
mod load;
mod log;
mod look;
mod mapping;
mod mem;
mod memory;
mod munmap;
mod named;
mod pressure;
mod report;
mod run;
mod seals;
mod size;
mod steer;
mod stress;
mod unwind;
mod watch;
mod written;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use lab::{Lab, Subject};
use run::Test;

/// Tests of /dev/vmalab, to be run in the guest.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// What is tested: the node, or a memfd, of which the same is expected.
    #[arg(long, value_enum, default_value_t = Subject::Device)]
    subject: Subject,
    /// The module, for the tests that load and unload it.
    #[arg(long, value_name = "vmalab.ko")]
    module: Option<PathBuf>,
    /// The driver of tests/driver.
    #[arg(long, value_name = "vmalab_driver.ko")]
    driver: Option<PathBuf>,
    /// In pieces of how many bytes objects allocate memory, where a test does not say so itself.
    #[arg(long, value_name = "BYTES", default_value_t = mem::PAGE as u64)]
    folio_size: u64,
    /// Where to write the report, in JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The kernel checks itself and is slow: what is done very often, do less often.
    #[arg(long)]
    debug_kernel: bool,
    /// How many random ioctls.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    calls: u32,
    /// How many seconds to let threads and processes loose on shared objects.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    #[command(flatten)]
    harness: libtest_mimic::Arguments,
}

fn main() -> ExitCode {
    let Args {
        subject,
        module,
        driver,
        folio_size,
        report,
        debug_kernel,
        calls,
        seconds,
        mut harness,
    } = Args::parse();
    // The tests fork, and the module's counts are of all of them.
    harness.test_threads = Some(1);

    if !harness.list && subject == Subject::Device {
        if let Err(error) = vmalab::Device::open() {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let tests: Vec<Test> = [
        contents::TESTS,
        munmap::TESTS,
        hooks::TESTS,
        fork::TESTS,
        lifetime::TESTS,
        size::TESTS,
        io::TESTS,
        holes::TESTS,
        seals::TESTS,
        written::TESTS,
        named::TESTS,
        pressure::TESTS,
        folio::TESTS,
        mapping::TESTS,
        memory::TESTS,
        gup::TESTS,
        ioctl::TESTS,
        compat::TESTS,
        look::TESTS,
        cgroup::TESTS,
        steer::TESTS,
        unwind::TESTS,
        answers::TESTS,
        driver::TESTS,
        watch::TESTS,
        stress::TESTS,
        failing::TESTS,
        load::TESTS,
        checks::TESTS,
        leaks::TESTS,
    ]
    .concat();

    let results = run::Results::default();
    let lab = Lab::new(
        subject,
        module,
        driver,
        debug_kernel,
        calls,
        Duration::from_secs(seconds),
        folio_size,
    );
    let trials = tests
        .into_iter()
        .map(|test| run::trial(test, &lab, &results))
        .collect();
    let conclusion = libtest_mimic::run(&harness, trials);

    let written = match report {
        Some(path) if !harness.list => report::write(&path, &results),
        _ => Ok(()),
    };
    match written {
        Ok(()) if !conclusion.has_failed() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
