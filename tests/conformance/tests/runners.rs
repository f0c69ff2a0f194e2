// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Both runners play cases on the running kernel, which agrees; and what a case expects wrongly they report.
//!
//! On a kernel older than all eras, or without a C compiler, this is ignored, and the reason is printed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use vmalab_differ::conformance::Case;
use vmalab_model::Rules;

fn main() {
    let arguments = Arguments::from_args();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let era = Rules::for_kernel(release.trim()).is_some();
    if !era {
        eprintln!("ignored: kernel {release} is older than all eras");
    }
    let compiler = Command::new("cc").arg("--version").output().is_ok();
    if !compiler {
        eprintln!("ignored: there is no C compiler cc");
    }
    let trials = vec![
        Trial::test("the_runner_in_rust", || {
            runner(env!("CARGO_BIN_EXE_conformance"), "rust")
        })
        .with_ignored_flag(!era),
        Trial::test("the_runner_in_c", || {
            let program = concat!(env!("CARGO_TARGET_TMPDIR"), "/runner");
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/runner.c");
            let cc = Command::new("cc")
                .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source])
                .output()?;
            if !cc.status.success() {
                return Err(String::from_utf8_lossy(&cc.stderr).into_owned().into());
            }
            runner(program, "c")
        })
        .with_ignored_flag(!era || !compiler),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Some cases agree; each of them spoiled does not.
fn runner(program: &str, name: &str) -> Result<(), Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory)?;
    let file = |name: String, case: &Value| -> Result<String, Failed> {
        let path = directory.join(name);
        fs::write(&path, case.to_string())?;
        Ok(path.display().to_string())
    };
    let cases: Vec<Value> = (0..10)
        .map(|number| serde_json::to_value(Case::generate(3, number, 24)))
        .collect::<Result<_, _>>()?;
    let mut right = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        right.push(file(format!("case-{number}.json"), case)?);
    }
    let played = Command::new(program).args(&right).output()?;
    ends(&played, 0, "0 of 10 cases differ")?;
    for (what, spoil) in [
        ("result", result as fn(&mut Value)),
        ("area", area),
        ("missing", missing),
    ] {
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let mut case = case.clone();
            let eras = case["expected"].as_array_mut().expect("there are eras");
            eras.iter_mut().for_each(|era| spoil(&mut era["outcomes"]));
            wrong.push(file(format!("{what}-{number}.json"), &case)?);
        }
        let played = Command::new(program).args(&wrong).output()?;
        ends(&played, 1, "10 of 10 cases differ").map_err(|failed| {
            let text = failed.message().unwrap_or_default();
            Failed::from(format!("{what}: {text}"))
        })?;
    }
    Ok(())
}

/// The last call answers otherwise.
fn result(outcomes: &mut Value) {
    let last = outcomes.as_array_mut().and_then(|all| all.last_mut());
    last.expect("there is a call")["result"] = json!("EXDEV");
}

/// The first area that there is has another protection.
fn area(outcomes: &mut Value) {
    let first = areas(outcomes);
    let perms = &mut first[0]["perms"];
    *perms = match perms.as_str() {
        Some("rwxp") => json!("---p"),
        _ => json!("rwxp"),
    };
}

/// The first area that there is should not be there.
fn missing(outcomes: &mut Value) {
    areas(outcomes).remove(0);
}

/// The areas after the first call that left some.
fn areas(outcomes: &mut Value) -> &mut Vec<Value> {
    let outcomes = outcomes.as_array_mut().expect("there are calls");
    let mut areas = outcomes
        .iter_mut()
        .filter_map(|outcome| outcome["areas"].as_array_mut());
    areas
        .find(|areas| !areas.is_empty())
        .expect("something is mapped")
}

fn ends(played: &Output, status: i32, says: &str) -> Result<(), Failed> {
    let said = String::from_utf8_lossy(&played.stdout);
    if played.status.code() == Some(status) && said.contains(says) {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&played.stderr);
    Err(format!("{}, not {says}:\n{said}{error}", played.status).into())
}
