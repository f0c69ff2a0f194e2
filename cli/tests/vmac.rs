// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab … --oracle vmac`, as somebody uses it who tries a change of his own to `mm/vma.c`: a tree by
//! VMALAB_LINUX_SRC, in which one line is another.
//!
//! Without a kernel source or a C compiler it is ignored, and the reason is printed.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vmalab_differ::vmac::{Build, SOURCE, runtimes};

fn main() {
    let arguments = Arguments::from_args();
    let missing = Build::from_environment().err();
    if let Some(reason) = &missing {
        eprintln!("ignored: {reason}");
    }
    let ignored = missing.is_some();
    let trials = vec![
        Trial::test("a_changed_tree_is_caught_and_replayed", changed_tree)
            .with_ignored_flag(ignored),
        Trial::test("a_hang_is_caught_and_replayed", hang).with_ignored_flag(ignored),
        Trial::test("a_broken_heap_is_caught_and_replayed", broken_heap).with_ignored_flag(ignored),
        Trial::test("what_kills_later_is_told", late).with_ignored_flag(ignored),
        Trial::test("what_a_sanitizer_ends_is_caught_and_replayed", sanitized)
            .with_ignored_flag(ignored),
        Trial::test("ctrl_c_ends_with_what_was_done", stopped).with_ignored_flag(ignored),
        Trial::test("the_second_ctrl_c_ends_a_hang", interrupted).with_ignored_flag(ignored),
        Trial::test("a_campaign_on_a_tree_goes_on", campaign).with_ignored_flag(ignored),
        Trial::test("a_tree_of_another_version_is_told", another_version)
            .with_ignored_flag(ignored),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A directory of a test, empty.
fn scratch(name: &str) -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&directory)?,
    }
    Ok(directory)
}

/// The tree `source` in `target`, by symbolic links, but for its `mm/vma.c`.
fn linked(source: &Path, target: &Path, vma_c: &str) -> io::Result<()> {
    let link = |from: &Path, to: &Path, but: &str| {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            if name != OsStr::new(but) {
                symlink(from.join(&name), to.join(&name))?;
            }
        }
        Ok::<_, io::Error>(())
    };
    link(source, target, "mm")?;
    let mm = target.join("mm");
    fs::create_dir(&mm)?;
    link(&source.join("mm"), &mm, "vma.c")?;
    fs::write(mm.join("vma.c"), vma_c)
}

/// The limit on areas is one too high where an munmap leaves a hole.
fn with_an_error(text: &str) -> Option<String> {
    let function = text.find("static int vms_gather_munmap_vmas(")?;
    let at = function + text[function..].find("map_count >=")?;
    let (before, after) = text.split_at(at);
    let after = after.strip_prefix("map_count >=")?;
    Some(format!("{before}map_count >{after}"))
}

fn vmalab(tree: &Path, arguments: &[&str]) -> io::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    command.args(arguments).env(SOURCE, tree).output()
}

/// It ends with that status, and says that.
fn ends(output: &Output, status: i32, says: &str) -> Result<(), Failed> {
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.code() != Some(status) || !said.contains(says) {
        return Err(format!("{output:?}").into());
    }
    Ok(())
}

/// The sequence that was written to that directory.
fn sequence_in(out: &Path) -> Result<String, Failed> {
    let files = fs::read_dir(out)?.collect::<Result<Vec<_>, _>>()?;
    let mut sequences = files.iter().map(|file| file.path());
    let sequence = sequences.find(|path| path.extension() == Some(OsStr::new("ops")));
    let sequence = sequence.ok_or("no sequence was written")?;
    Ok(sequence.to_string_lossy().into_owned())
}

fn changed_tree() -> Result<(), Failed> {
    let right = Build::from_environment()?.source.canonicalize()?;
    let tree = scratch("changed-tree")?;
    let text = fs::read_to_string(right.join("mm/vma.c"))?;
    linked(
        &right,
        &tree,
        &with_an_error(&text).ok_or("it is another vma.c")?,
    )?;
    let out = scratch("changed-tree-findings")?;
    let found = vmalab(
        &tree,
        &[
            "diff",
            "--oracle",
            "vmac",
            "--seed",
            "1",
            "--ops",
            "300000",
            "--jobs",
            "2",
            "--out",
            &out.to_string_lossy(),
        ],
    )?;
    ends(&found, 1, "DIVERGENCE")?;
    let sequence = sequence_in(&out)?;
    let out = out.to_string_lossy();
    let replay = ["replay", "--oracle", "vmac", "--out", &out, &sequence];
    ends(&vmalab(&tree, &replay)?, 1, "")?;
    ends(&vmalab(&right, &replay)?, 0, "")?;
    // Not by chance, but in each way of three letters over four pages, where two areas are the limit.
    let worlds = vmalab(
        &tree,
        &[
            "worlds", "--oracle", "vmac", "--narrow", "--ops", "3", "--pages", "4", "--out", &out,
        ],
    )?;
    ends(&worlds, 1, "DIVERGENCE")
}

/// One of an older version lacks a file, one of a newer version a function; each is told with the versions that are known.
fn another_version() -> Result<(), Failed> {
    let right = Build::from_environment()?.source.canonicalize()?;
    let text = fs::read_to_string(right.join("mm/vma.c"))?;
    let told = |tree: &Path, missing: &str| -> Result<(), Failed> {
        let makefile = tree.join("Makefile");
        fs::remove_file(&makefile)?;
        fs::write(&makefile, "VERSION = 7\nPATCHLEVEL = 99\nSUBLEVEL = 1\n")?;
        let output = vmalab(tree, &["diff", "--oracle", "vmac", "--ops", "1"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        let all = [missing, "Linux 7.2 or 7.3", "7.99.1"].map(|what| said.contains(what));
        match output.status.code() {
            Some(2) if all == [true; 3] => Ok(()),
            _ => Err(format!("{output:?}").into()),
        }
    };
    let older = scratch("older-tree")?;
    linked(&right, &older, &text)?;
    fs::remove_file(older.join("tools"))?;
    told(&older, "no tools/testing/vma/include/dup.h")?;
    let newer = scratch("newer-tree")?;
    linked(&right, &newer, &text)?;
    let mlock = fs::read_to_string(right.join("mm/mlock.c"))?;
    fs::remove_file(newer.join("mm/mlock.c"))?;
    let renamed = mlock.replace("mlock_fixup", "mlock_repair");
    fs::write(newer.join("mm/mlock.c"), renamed)?;
    told(&newer, "mm/mlock.c: no mlock_fixup")
}

/// A tree in which the first munmap never comes back, so that no batch ends either.
fn hanging_tree(name: &str) -> Result<PathBuf, Failed> {
    let right = Build::from_environment()?.source.canonicalize()?;
    let tree = scratch(name)?;
    let text = fs::read_to_string(right.join("mm/vma.c"))?;
    let function = text.find("static int vms_gather_munmap_vmas(");
    let function = function.ok_or("it is another vma.c")?;
    let body = function
        + text[function..]
            .find("\n\tint error")
            .ok_or("it has no such line")?;
    let (before, after) = text.split_at(body);
    linked(&right, &tree, &format!("{before}\n\tfor (;;) ;{after}"))?;
    Ok(tree)
}

/// It is told like any divergence, in both threads, and what is written shows it again.
fn hang() -> Result<(), Failed> {
    let tree = hanging_tree("hanging-tree")?;
    let out = scratch("hanging-tree-findings")?
        .to_string_lossy()
        .into_owned();
    let usual = ["diff", "--oracle", "vmac", "--seed", "1", "--out", &out];
    let found = vmalab(&tree, &[&usual[..], &["--jobs", "2"]].concat())?;
    ends(&found, 1, "DIVERGENCE")?;
    ends(&found, 1, "the oracle broke: it does not come back")?;
    let sequence = sequence_in(Path::new(&out))?;
    // An area, and what takes it away.
    let text = fs::read_to_string(&sequence)?;
    let calls = text
        .lines()
        .filter(|line| line.contains('(') && !line.starts_with('#'));
    if calls.count() > 2 {
        return Err(text.into());
    }
    let replay = ["replay", "--oracle", "vmac", "--out", &out, &sequence];
    ends(&vmalab(&tree, &replay)?, 1, "it does not come back")?;
    let right = Build::from_environment()?.source;
    ends(&vmalab(&right, &replay)?, 0, "")
}

/// When memory beyond an allocation is written to, by the number of the split: not at all without it.
const SPLIT: &str = "VMALAB_TEST_SPLIT";

/// A library of a `mm/vma.c` in which a split writes beyond an allocation, as [`SPLIT`] says; and an area is written
/// to after it was freed, which nothing but a sanitizer sees.
fn deadly_library(sanitize: bool) -> Result<String, Failed> {
    let mut build = Build::from_environment()?;
    build.sanitize = sanitize;
    let mut text = fs::read_to_string(build.source.join("mm/vma.c"))?;
    for (at, find, replace) in [
        (
            "\nvoid remove_vma(",
            "vm_area_free(vma);",
            "vm_area_free(vma); vma->vm_lock_seq++;".to_owned(),
        ),
        (
            "__split_vma(struct",
            "new->vm_ops->open(new);",
            format!(
                "{{ static long splits; char *at = getenv(\"{SPLIT}\"); new->vm_ops->open(new); \
                 if (at && ++splits == atol(at)) memset(aligned_alloc(64, 100000), -1, 100256); }}"
            ),
        ),
    ] {
        let function = text.find(at).ok_or("it is another vma.c")?;
        let place = text[function..].find(find).ok_or("it has no such line")?;
        let place = function + place;
        text.replace_range(place..place + find.len(), &replace);
    }
    let kind = if sanitize { "sanitized-" } else { "" };
    let file = |name: String| Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let vma_c = file(format!("vma-{kind}deadly.c"));
    // Written anew, it would be compiled anew.
    if fs::read_to_string(&vma_c).ok().as_ref() != Some(&text) {
        fs::write(&vma_c, text)?;
    }
    build.vma_c = Some(vma_c);
    let library = file(format!("libvmac-{kind}deadly.so"));
    build.once(&library)?;
    Ok(library.to_string_lossy().into_owned())
}

/// What is found on a library is told for machines and for people, and written, and is shown again by what is
/// written.
fn told_and_replayed(
    name: &str,
    library: &str,
    environment: &[(&str, &str)],
    says: &str,
) -> Result<(), Failed> {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
        command.args(arguments).envs(environment.iter().copied());
        command.args(["--oracle", "vmac", "--library", library]);
        command.output()
    };
    let out = scratch(name)?;
    let (report, state) = (out.join("report.json"), out.join("state.json"));
    let out = out.to_string_lossy();
    let found = run(&[
        "diff",
        "--seed",
        "1",
        "--jobs",
        "2",
        "--ops",
        "300000",
        "--json",
        "--out",
        &out,
        "--report",
        &report.to_string_lossy(),
        "--resume",
        &state.to_string_lossy(),
    ])?;
    ends(&found, 1, says)?;
    let told: Value = serde_json::from_slice(&found.stdout)?;
    let written: Value = serde_json::from_slice(&fs::read(report)?)?;
    let saved: Value = serde_json::from_slice(&fs::read(state)?)?;
    let broke = told["finding"]["broke"].as_str().unwrap_or_default();
    if told != written || told["failed"] != 1 || saved["seed"] != 1 || !broke.contains(says) {
        return Err(format!("{told:#} and {saved:#}").into());
    }
    let sequence = sequence_in(Path::new(&*out))?;
    let text = fs::read_to_string(&sequence)?;
    let calls = text
        .lines()
        .filter(|line| line.contains('(') && !line.starts_with('#'));
    if calls.count() > 12 || !Path::new(&sequence).with_extension("html").exists() {
        return Err(text.into());
    }
    ends(&run(&["replay", "--out", &out, &sequence])?, 1, broke)?;
    ends(&run(&["shrink", &sequence])?, 1, broke)
}

/// The C library notices it, and aborts.
fn broken_heap() -> Result<(), Failed> {
    let library = deadly_library(false)?;
    let first = [(SPLIT, "1")];
    let says = "the process died of SIGABRT: malloc(): corrupted top size";
    told_and_replayed("broken-heap", &library, &first, says)
}

/// Where no batch does it alone, it is said which were under way.
fn late() -> Result<(), Failed> {
    let library = deadly_library(false)?;
    let out = scratch("broken-heap-late")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    let usual = "diff --oracle vmac --seed 1 --jobs 2 --ops 1000000";
    command.args(usual.split(' ')).args(["--library", &library]);
    let found = command.arg("--out").arg(&out).env(SPLIT, "2000").output()?;
    ends(&found, 1, "of the seed 1 were under way")?;
    ends(&found, 1, "malloc(): corrupted top size")
}

/// Only the sanitizer notices it, and ends the program.
fn sanitized() -> Result<(), Failed> {
    let plain = deadly_library(false)?;
    let usual = "diff --oracle vmac --seed 1 --ops 20000 --library";
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    command.args(usual.split(' ')).arg(plain);
    ends(&command.output()?, 0, "no divergence")?;
    let library = deadly_library(true)?;
    let runtimes = runtimes()?;
    let environment = [
        ("LD_PRELOAD", runtimes.as_str()),
        ("ASAN_OPTIONS", "handle_segv=0:detect_leaks=0"),
    ];
    let says = "AddressSanitizer: heap-use-after-free";
    told_and_replayed("sanitized", &library, &environment, says)
}

/// The one that is told passes it on to the one that compares.
fn stopped() -> Result<(), Failed> {
    let library = deadly_library(false)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    command.args("diff --oracle vmac --time 100s --json --library".split(' '));
    let command = command.arg(&library).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let status = format!("/proc/{}/status", child.id());
    while !catches_interrupts(&fs::read_to_string(&status)?) {
        if let Some(ended) = child.try_wait()? {
            return Err(format!("{ended}").into());
        }
        std::thread::yield_now();
    }
    let begin = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    let output = child.wait_with_output()?;
    ends(&output, 0, "")?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    if told["failed"] != 0 || begin.elapsed() > Duration::from_secs(50) {
        return Err(format!("{told:#} after {:.1?}", begin.elapsed()).into());
    }
    Ok(())
}

/// Nobody has to wait until it is told.
fn interrupted() -> Result<(), Failed> {
    const LONG: Duration = Duration::from_secs(100);
    let tree = hanging_tree("hanging-tree-interrupted")?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmalab"));
    command.args(["diff", "--oracle", "vmac", "--seed", "1", "--jobs", "1"]);
    let mut child = command.env(SOURCE, &tree).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let begin = Instant::now();
    let mut caught = false;
    while begin.elapsed() < LONG {
        if let Some(ended) = child.try_wait()? {
            return match ended.code() {
                Some(130) => Ok(()),
                _ => Err(format!("{ended}").into()),
            };
        }
        // Before that it would just be ended.
        caught = caught || catches_interrupts(&fs::read_to_string(&status)?);
        if caught {
            kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
        }
        std::thread::yield_now();
    }
    child.kill()?;
    Err("it did not end".into())
}

/// Whether the process that shows this has a handler for SIGINT.
fn catches_interrupts(status: &str) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (Signal::SIGINT as i32 - 1)) != 0)
}

/// Stopped at once, its report and its state are there; then it goes on to the end.
fn campaign() -> Result<(), Failed> {
    let right = Build::from_environment()?.source;
    let out = scratch("campaign")?;
    let (state, report) = (out.join("state.json"), out.join("report.json"));
    let run = |more: &[&str]| {
        let (state, report) = (state.to_string_lossy(), report.to_string_lossy());
        let usual = [
            "diff", "--oracle", "vmac", "--seed", "3", "--jobs", "1", "--resume", &state,
            "--report", &report,
        ];
        vmalab(&right, &[&usual, more].concat())
    };
    let done = || -> Result<u64, Failed> {
        let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
        let saved: Value = serde_json::from_slice(&fs::read(&state)?)?;
        let ops = saved["ops"].as_u64().ok_or("the state has no ops")?;
        let rows = report["rows"].to_string();
        if ops == 0 || !rows.contains(&ops.to_string()) {
            return Err(format!("{saved} and {report}").into());
        }
        Ok(ops)
    };
    ends(&run(&["--time", "0s"])?, 0, "")?;
    let first = done()?;
    ends(&run(&["--ops", "5000"])?, 0, "no divergence")?;
    if first >= 5_000 || done()? != 5_000 {
        return Err(format!("{first}, then {}", done()?).into());
    }
    Ok(())
}
