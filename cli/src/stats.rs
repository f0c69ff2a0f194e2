// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab stats`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use vmalab::Device;

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
    let calls = stats.hooks;
    // To ask, this program has opened the node itself.
    let rows = [
        ("objects", stats.objects - 1),
        ("areas", stats.areas),
        ("pages", stats.pages),
        ("calls of mmap", calls.mmap),
        ("calls of open", calls.open),
        ("calls of close", calls.close),
        ("calls of may_split", calls.may_split),
        ("calls of fault", calls.fault),
        ("calls of mapped", calls.mapped),
        ("calls of mremap", calls.mremap),
        ("calls of mprotect", calls.mprotect),
        ("calls of map_pages", calls.map_pages),
        ("calls of page_mkwrite", calls.page_mkwrite),
    ];
    if args.json {
        let map: serde_json::Map<_, _> = rows
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .into_iter()
            .collect();
        println!("{:#}", serde_json::Value::Object(map));
    } else {
        for (name, value) in rows {
            println!("{name:<22} {value}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
