// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab replay`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use serde_json::json;
use vmalab_model::Rules;
use vmalab_vectors::{Recording, replay};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Recordings
    #[arg(required = true, value_name = "FILE.jsonl.xz")]
    files: Vec<PathBuf>,
    /// The rules of the model [default: the era of the kernel that was recorded]
    #[arg(long, value_name = "NAME")]
    era: Option<String>,
    /// Print one JSON object for each recording
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for path in &args.files {
        let name = path.display();
        let recording = Recording::load(path)?;
        let rules = rules(args, recording.kernel()).with_context(|| name.to_string())?;
        let report = replay(&recording, *rules, usize::MAX).with_context(|| name.to_string())?;
        let agreed = report.compared - report.differences.len();
        let all = report.compared + report.skipped;
        if agreed != all || all == 0 {
            code = ExitCode::FAILURE;
        }
        if args.json {
            println!(
                "{}",
                json!({
                    "file": name.to_string(),
                    "kernel": recording.kernel(),
                    "era": rules.name,
                    "sequences": report.sequences,
                    "operations": all,
                    "agreed": agreed,
                    "differ": report.differences.len(),
                    "skipped": report.skipped,
                    "unknown": report.unknown,
                    "first": report.differences.first(),
                })
            );
            continue;
        }
        println!(
            "{name}: kernel {} -> rules {}: {agreed} of {all} operations agree, in {} sequences",
            recording.kernel(),
            rules.name,
            report.sequences
        );
        if let Some(first) = report.differences.first() {
            println!(
                "{} sequences differ, and {} operations after that were skipped; the first, as \
                 (sequence, operation):\n{first}",
                report.differences.len(),
                report.skipped
            );
        }
        for (op, times) in &report.unknown {
            println!("{times} sequences ended by an operation that the model does not know: {op}");
        }
    }
    Ok(code)
}

/// The rules to replay by.
fn rules(args: &Args, kernel: &str) -> anyhow::Result<&'static Rules> {
    match &args.era {
        Some(name) => Rules::by_name(name)
            .ok_or_else(|| anyhow!("there is no era {name}; `vmalab eras` lists them")),
        None => Rules::for_kernel(kernel).ok_or_else(|| {
            anyhow!("kernel {kernel} is older than all eras; choose one with --era all the same")
        }),
    }
}
