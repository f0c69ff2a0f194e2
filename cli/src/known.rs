// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab known`, and what runs say of it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde_json::{Value, json};
use vmalab_differ::known::{By, KNOWN, masked};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let entries = KNOWN.iter().map(|known| {
        let by = match known.by {
            By::Comparison { .. } => "the comparison",
            By::Oracle => "the oracle",
            By::Mask => "nobody",
        };
        (known, by)
    });
    if args.json {
        let entries = entries.map(|(known, by)| {
            json!({"name": known.name, "reason": known.reason, "oracle": known.oracle, "counted by": by})
        });
        println!("{:#}", Value::Array(entries.collect()));
        return Ok(ExitCode::SUCCESS);
    }
    for (known, by) in entries {
        let oracle = if known.oracle.is_empty() {
            "all"
        } else {
            known.oracle
        };
        println!("{}\n  oracle {oracle}, counted by {by}", known.name);
        println!("  {}\n", known.reason);
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells how often each came, and what was not looked at.
pub(crate) fn print(oracle: &str, counts: &BTreeMap<&'static str, u64>) {
    for (name, count) in counts {
        println!("known   {count} times: {name}");
    }
    for known in masked(oracle) {
        println!("known   not looked at: {}", known.name);
    }
}
