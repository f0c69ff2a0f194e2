// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab eras`

use std::process::ExitCode;

use serde_json::json;
use vmalab_model::Rules;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let release = crate::release()?;
    let running = Rules::for_kernel(&release).map(|rules| rules.name);
    let version = |rules: &Rules| {
        let (major, minor, patch) = rules.since;
        format!("{major}.{minor}.{patch}")
    };
    if args.json {
        let eras: Vec<_> = Rules::all()
            .iter()
            .map(|rules| json!({"name": rules.name, "since": version(rules)}))
            .collect();
        println!(
            "{:#}",
            json!({"kernel": release, "era": running, "eras": eras})
        );
    } else {
        for rules in Rules::all() {
            let here = if running == Some(rules.name) {
                format!("  <- this kernel, {release}")
            } else {
                String::new()
            };
            println!("{:<8} from Linux {} on{here}", rules.name, version(rules));
        }
        if running.is_none() {
            println!("this kernel, {release}, is older than all of them");
        }
    }
    Ok(ExitCode::SUCCESS)
}
