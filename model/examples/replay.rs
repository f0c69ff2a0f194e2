// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Replays recordings on the model: `cargo run --release --example replay -- FILE.jsonl.xz…`

#[path = "../tests/replay/mod.rs"]
mod replay;

use std::path::Path;
use std::process::ExitCode;

use vmalab_model::Rules;

fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in std::env::args().skip(1) {
        let path = Path::new(&file);
        let kernel = kernel_of(path);
        let Some(rules) = Rules::for_kernel(&kernel) else {
            println!("{file}: skipped: no era for kernel {kernel:?}");
            continue;
        };
        let report = replay::replay(&replay::load(path), *rules, usize::MAX);
        println!(
            "{file}: {}: {} sequences, {} operations compared, {} skipped, {} sequences differ; ended by {:?}",
            rules.name,
            report.sequences,
            report.compared,
            report.skipped,
            report.differences.len(),
            report.unknown,
        );
        for difference in report
            .differences
            .iter()
            .take(std::env::var("MOST").map_or(3, |n| n.parse().unwrap()))
        {
            println!("{difference}");
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// The kernel of a recording, from its name (`fixed.7.2.jsonl.xz`).
fn kernel_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(".jsonl.xz");
    name.split_once('.').map_or("", |(_, kernel)| kernel).into()
}
