// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Runs one test in a child process, and looks at what it leaves behind.

use std::{
    fs::File,
    io::{Read, Write},
    panic::{self, AssertUnwindSafe},
    process::exit,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, alarm, fork, pipe},
};
use serde::{Deserialize, Serialize};
use vmalab::Device;

use crate::{
    lab::{Lab, Subject},
    log::{self, KernelLog},
    report::{Note, Row},
};

/// Why a test could not be run.
pub(crate) struct Skip(pub(crate) String);

impl Skip {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A test fails by a panic, and skips with a reason.
pub(crate) type Verdict = Result<(), Skip>;

/// A test and its name.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    name: &'static str,
    body: fn(&Lab) -> Verdict,
    needs_device: bool,
    logs: bool,
}

impl Test {
    /// A test that holds for a memfd, too.
    pub(crate) const fn both(name: &'static str, body: fn(&Lab) -> Verdict) -> Self {
        Self {
            name,
            body,
            needs_device: false,
            logs: false,
        }
    }

    /// A test of what only the module has.
    pub(crate) const fn device(name: &'static str, body: fn(&Lab) -> Verdict) -> Self {
        Self {
            needs_device: true,
            ..Self::both(name, body)
        }
    }

    /// The kernel logs something about what the test does to itself. A report of a bug is no such thing.
    pub(crate) const fn logs(self) -> Self {
        Self { logs: true, ..self }
    }
}

/// What came out, for the report.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) skips: Vec<Note>,
    pub(crate) failures: Vec<Note>,
}

pub(crate) type Results = Arc<Mutex<Tally>>;

/// What the child tells the parent.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Passed(Vec<Row>),
    Skipped(String),
    Failed(String),
}

/// The harness's view of a test.
pub(crate) fn trial(test: Test, lab: &Lab, results: &Results) -> Trial {
    let (lab, results) = (lab.clone(), results.clone());
    Trial::ignorable_test(test.name, move || {
        let outcome = if test.needs_device && lab.subject != Subject::Device {
            Outcome::Skipped("only the module has this".into())
        } else {
            checked(test, &lab)
        };
        let mut tally = results.lock().unwrap_or_else(PoisonError::into_inner);
        let name = test.name.to_owned();
        match outcome {
            Outcome::Passed(rows) => {
                tally.passed += 1;
                tally.rows.extend(rows);
                Ok(Completion::Completed)
            }
            Outcome::Skipped(reason) => {
                tally.skips.push(Note {
                    name,
                    reason: reason.clone(),
                });
                Ok(Completion::ignored_with(reason))
            }
            Outcome::Failed(reason) => {
                tally.failures.push(Note {
                    name,
                    reason: reason.clone(),
                });
                Err(Failed::from(reason))
            }
        }
    })
}

/// Runs the test; then nothing of it may be left.
fn checked(test: Test, lab: &Lab) -> Outcome {
    let kernel_log = KernelLog::from_now_on();
    let outcome = in_a_child(test, lab);
    if matches!(outcome, Outcome::Failed(_)) || lab.subject != Subject::Device {
        return outcome;
    }
    if let Err(reason) = nothing_left() {
        return Outcome::Failed(reason);
    }
    log::check_counts();
    let mut lines = kernel_log.map(|mut log| log.warnings()).unwrap_or_default();
    lines.retain(|line| !test.logs || log::is_report(line));
    if !lines.is_empty() {
        return Outcome::Failed(format!("the kernel logged: {}", lines.join("\n")));
    }
    outcome
}

/// Whether all objects, areas and pages are gone. A process that is waited for has let go of them,
/// but what a kernel worker puts last may take a moment.
fn nothing_left() -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let device = match Device::open() {
            Ok(device) => device,
            Err(error) => return Err(error.to_string()),
        };
        let stats = device.module_stats().map_err(|error| error.to_string())?;
        // One object is the asking descriptor's own.
        if (stats.objects, stats.areas, stats.pages) == (1, 0, 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let (objects, areas, pages) = (stats.objects - 1, stats.areas, stats.pages);
            return Err(format!(
                "left behind: {objects} objects, {areas} areas, {pages} pages"
            ));
        }
        std::thread::yield_now();
    }
}

fn in_a_child(test: Test, lab: &Lab) -> Outcome {
    let (reader, writer) = pipe().expect("a pipe");
    // SAFETY: the harness runs its tests on the only thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            drop(reader);
            // A hang ends here, by SIGALRM. What goes on for a given time does so a few times over.
            alarm::set(lab.many(120, 900) + 4 * lab.time.as_secs() as u32);
            let outcome = run_body(test, lab);
            let text = serde_json::to_vec(&outcome).expect("plain data");
            let _ = File::from(writer).write_all(&text);
            exit(0);
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = Vec::new();
            let _ = File::from(reader).read_to_end(&mut text);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => serde_json::from_slice(&text)
                    .unwrap_or_else(|error| Outcome::Failed(format!("no verdict: {error}"))),
                Ok(status) => Outcome::Failed(format!("the test ended with {status:?}")),
                Err(errno) => Outcome::Failed(format!("waitpid: {errno}")),
            }
        }
    }
}

fn run_body(test: Test, lab: &Lab) -> Outcome {
    let place = Arc::new(Mutex::new(String::new()));
    let hook_place = place.clone();
    panic::set_hook(Box::new(move |info| {
        // Of several threads that panic, the first says why.
        let mut first = hook_place.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_empty() {
            *first = info.to_string();
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(|| (test.body)(lab))) {
        Ok(Ok(())) => Outcome::Passed(lab.take_rows()),
        Ok(Err(Skip(reason))) => Outcome::Skipped(reason),
        Err(_) => Outcome::Failed(place.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

/// Runs `body` in a child process, and panics with what it panicked with.
#[track_caller]
pub(crate) fn child(body: impl FnOnce()) {
    match child_status(body) {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, 101) => panic!("the child failed: see above"),
        status => panic!("the child ended with {status:?}"),
    }
}

/// Runs `body` in a child process, and tells how that ended: 0 if it returned, 101 if it panicked.
#[track_caller]
pub(crate) fn child_status(body: impl FnOnce()) -> WaitStatus {
    waitpid(start_child(body), None).unwrap()
}

/// Starts a child process, which ends as [`child_status`] says.
#[track_caller]
pub(crate) fn start_child(body: impl FnOnce()) -> Pid {
    // SAFETY: tests fork before they start threads.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            panic::set_hook(Box::new(|info| eprintln!("child: {info}")));
            exit(panic::catch_unwind(AssertUnwindSafe(body)).map_or(101, |()| 0));
        }
        ForkResult::Parent { child } => child,
    }
}
