// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab stats`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use vmalab::{Device, Hook};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node
    #[arg(long, value_name = "PATH", default_value = "/dev/vmalab")]
    device: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let stats = Device::open_at(&args.device)?.module_stats()?;
    // To ask, this program has opened the node itself.
    let mut rows = vec![
        ("objects".to_owned(), stats.objects - 1),
        ("areas".to_owned(), stats.areas),
        ("pages".to_owned(), stats.pages),
    ];
    let calls = |hook: &Hook| (format!("calls of {}", hook.name()), stats.hooks.of(*hook));
    rows.extend(Hook::ALL.iter().map(calls));
    if args.json {
        let map: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(name, value)| (name, json!(value)))
            .collect();
        println!("{:#}", serde_json::Value::Object(map));
    } else {
        for (name, value) in rows {
            println!("{name:<22} {value}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
