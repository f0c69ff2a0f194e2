// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The files of `docs/campaigns` do what they say there, with the model as the oracle.
//!
//! Where there is no `jq`, what needs it is ignored, and that is printed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vmalab");
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/campaigns");

fn main() {
    let arguments = Arguments::from_args();
    let missing = Command::new("jq").arg("--version").output().is_err();
    if missing {
        eprintln!("ignored: there is no jq");
    }
    let trials = vec![
        Trial::test("shards_of_one_machine_are_merged", shards).with_ignored_flag(missing),
        Trial::test("a_finding_of_a_shard_is_told", finding).with_ignored_flag(missing),
        Trial::test("a_job_of_a_batch_system_goes_on", slurm),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// An empty directory of a test.
fn scratch(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the directory of all tests is there");
    path
}

fn local(out: &str, ops: &str, more: &[&str]) -> Result<Output, Failed> {
    let mut command = Command::new(format!("{FILES}/local.sh"));
    command
        .args(["3", "--oracle", "model", "--seed", "1", "--ops", ops])
        .args(more);
    command.env("VMALAB", PROGRAM).env("OUT", out);
    Ok(command.output()?)
}

/// The reports of these files as one.
fn merged(files: &[String]) -> Result<Value, Failed> {
    let mut jq = Command::new("jq");
    jq.args(["-s", "-f", &format!("{FILES}/merge.jq")]);
    let output = jq.args(files).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn reports(out: &str) -> Vec<String> {
    let report = |shard| format!("{out}/report-{shard}.json");
    (0..3).map(report).collect()
}

fn figure(report: &Value, name: &str) -> Value {
    let rows = report["rows"].as_array().into_iter().flatten();
    let row = rows.into_iter().find(|row| row["name"] == name);
    row.map_or(Value::Null, |row| row["value"].clone())
}

fn shards() -> Result<(), Failed> {
    let out = scratch("local");
    let ended = local(&out, "3000", &[])?;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let all = merged(&reports(&out))?;
    assert_eq!(figure(&all, "ops"), 3000);
    assert_eq!((&all["shards"], &all["failed"]), (&3.into(), &0.into()));
    // Those of small worlds have other figures, and merge all the same.
    let small = format!("{out}/worlds.json");
    let worlds = Command::new(PROGRAM)
        .args([
            "worlds", "--oracle", "model", "--ops", "2", "--pages", "2", "--all",
        ])
        .args(["--report", &small])
        .output()?;
    assert!(worlds.status.success(), "{worlds:?}");
    let both = merged(&[small.clone(), small])?;
    assert_eq!(figure(&both, "compared, length 2"), 2 * 625);
    assert_eq!(both["passed"], 2);
    Ok(())
}

fn finding() -> Result<(), Failed> {
    let out = scratch("local-finding");
    let ended = local(&out, "30000", &["--mistake", "NoMergeForward"])?;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let all = merged(&reports(&out))?;
    assert_eq!(all["failed"], 3);
    assert_eq!(all["findings"].as_array().map(Vec::len), Some(3));
    // All three are on one page.
    let page = fs::read_to_string(format!("{out}/index.html"))?;
    assert_eq!(page.matches("<article ").count(), 3);
    Ok(())
}

/// It is told to end before its time is over, and goes on where it was when it is started again.
fn slurm() -> Result<(), Failed> {
    let text = fs::read_to_string(format!("{FILES}/slurm.sh"))?;
    // A job without steps has only its shell that could be told, and that must become the program.
    assert!(text.contains("\n#SBATCH --signal=B:TERM@") && text.contains("\nexec "));
    let out = scratch("slurm");
    // The model, which is always there, instead of the library.
    let instead = format!("{out}/vmalab");
    let words = "[ \"$2 $3\" = '--oracle vmac' ] || exit 9\nshift 5\n";
    fs::write(
        &instead,
        format!("#!/bin/sh\n{words}exec {PROGRAM} diff --oracle model \"$@\"\n"),
    )?;
    fs::set_permissions(&instead, fs::Permissions::from_mode(0o755))?;
    let start = || -> Result<Child, Failed> {
        let mut job = Command::new(format!("{FILES}/slurm.sh"));
        job.env("VMALAB", &instead).env("OUT", &out);
        job.env("SLURM_ARRAY_TASK_ID", "1")
            .env("SLURM_ARRAY_TASK_COUNT", "2");
        job.stdout(std::process::Stdio::null());
        Ok(job.spawn()?)
    };
    let mut ops = Vec::new();
    for _ in 0..2 {
        let mut job = start()?;
        let pid = Pid::from_raw(job.id() as i32);
        while !catches(pid, Signal::SIGTERM) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(pid, Signal::SIGTERM)?;
        assert_eq!(job.wait()?.code(), Some(0));
        let report: Value = serde_json::from_slice(&fs::read(format!("{out}/report-1.json"))?)?;
        ops.push(figure(&report, "ops").as_u64().ok_or("no figure")?);
        assert!(fs::exists(format!("{out}/state-1.json"))?);
    }
    assert!(ops[1] > ops[0], "{ops:?}");
    Ok(())
}

/// Whether a process catches a signal. Before it does, the signal ends it.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.unwrap_or("0").trim(), 16).unwrap_or(0);
    mask & (1 << (signal as u32 - 1)) != 0
}
