// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `make coverage`: what of the kernel's `mm/vma.c`, and of the model, the generators reach.
//!
//! ```text
//! coverage play LIBRARY OPS   plays on a library that counts what is reached of it
//! coverage report COUNTS OUT  holds the counts against what must be reached: 95 % of the lines
//!                             and 90 % of the branches on the paths that the file `paths` names
//! ```
//!
//! Every line on these paths that is not reached stands in the file `unreached`, with the reason. One that is
//! not reached and does not stand there is a failure, and so is one that stands there and is reached.

mod kernel;
mod list;
mod model;
mod part;

use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vmalab_differ::eras;
use vmalab_differ::known::KNOWN;
use vmalab_differ::oracle::Oracle;
use vmalab_differ::peer::Peer;
use vmalab_differ::runner::{End, Plan, Runner};
use vmalab_differ::small;
use vmalab_differ::vmac::{VmaC, fail_allocations};
use vmalab_model::{Mistake, Rules};

use crate::part::{KERNEL, Part};

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["play", library, ops] => {
            play(Path::new(library), ops.parse()?).map(|()| ExitCode::SUCCESS)
        }
        ["report", counts, out] => report(Path::new(counts), Path::new(out)),
        _ => bail!("usage: coverage play LIBRARY OPS | report COUNTS OUT"),
    }
}

/// All generators: random operations, also with failing allocations, and a small world. Then all eras and
/// mistakes of the model, for which fewer are enough.
fn play(library: &Path, ops: u64) -> anyhow::Result<()> {
    let mut oracle = VmaC::new(library)?;
    let rules = *Rules::for_kernel(oracle.kernel()).context("no era is as old as this kernel")?;
    compare("random operations", &mut oracle, rules, ops)?;
    println!("failing allocations");
    fail_allocations(&mut oracle, 1, ops / 200).map_err(anyhow::Error::msg)?;
    println!("a small world");
    let extra = small::Extra {
        locks: true,
        fails: false,
    };
    let letters = small::alphabet(&oracle.worlds()[0], 4, extra)?;
    let plan = small::Plan {
        rules,
        world: 0,
        length: 2,
        letters,
        known: KNOWN,
        symmetric_once: true,
        shard: (0, 1),
    };
    match small::explore(&mut [oracle], &plan, |_, _, _| ControlFlow::Continue(()))?.1 {
        small::End::Agreed => {}
        end => bail!("{end:#x?}"),
    }
    // The rest is the model's alone.
    for era in Rules::all() {
        let what = format!("the model's rules {}", era.name);
        compare(&what, &mut Peer::new(*era), *era, ops / 10)?;
    }
    for pair in Rules::all().windows(2) {
        println!("how {} and {} part", pair[0].name, pair[1].name);
        eras::differences(&pair[0], &pair[1], 1, ops / 4000);
    }
    for &mistake in Mistake::ALL {
        let what = format!("the model's mistake {mistake:?}");
        let rules = rules.with_mistake(mistake);
        compare(&what, &mut Peer::new(rules), rules, ops / 50)?;
    }
    Ok(())
}

fn compare(what: &str, oracle: &mut dyn Oracle, rules: Rules, ops: u64) -> anyhow::Result<()> {
    println!("{what}");
    let plan = Plan {
        rules,
        seed: 1,
        first_batch: 0,
        ops,
    };
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of {human_len}, {eta} left")?;
    let bar = ProgressBar::new(ops).with_style(style);
    let (_, end) = Runner::new(oracle, rules)?.run(&plan, |stats| {
        bar.set_position(stats.ops);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    match end {
        End::Found(finding) => bail!("a divergence: {:#x?}", finding.short),
        _ => Ok(()),
    }
}

/// Reads what `run` left in that directory, and writes `coverage.json` and `coverage.txt`.
fn report(counts: &Path, out: &Path) -> anyhow::Result<ExitCode> {
    let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR")));
    let paths = list::paths(&here.join("paths"))?;
    let unreached = list::unreached(&here.join("unreached"))?;
    let kernel = kernel::functions(&counts.join("gcov.json"))?;
    let model = model::functions(&counts.join("model.json"), &counts.join("model.lcov"))?;
    let parts = [
        Part::new(KERNEL, "branches", kernel, &paths),
        Part::new("the model", "regions", model, &paths),
    ];
    let mut problems: Vec<String> = Vec::new();
    for part in &parts {
        problems.extend(part.problems(&unreached));
    }
    let known = |place: &str| parts.iter().any(|part| part.has(place));
    problems.extend(unreached.keys().filter(|place| !known(place)).map(|place| {
        format!("{place}: it is explained why this is not reached, but it is, or is not there")
    }));
    problems.extend(
        paths
            .iter()
            .filter(|path| !parts.iter().any(|part| part.names(path)))
            .map(|path| format!("{path}: there is no such function or file")),
    );
    let text: String = parts.iter().map(|part| part.table(&unreached)).collect();
    print!("{text}");
    for problem in &problems {
        println!("FAILED  {problem}");
    }
    let report = json!({
        "target": "coverage",
        "passed": u8::from(problems.is_empty()), "failed": problems.len(), "skipped": 0,
        "failures": problems.iter().map(|what| json!({"name": "coverage", "reason": what})).collect::<Vec<_>>(),
        "parts": parts.iter().map(|part| part.json(&unreached)).collect::<Vec<_>>(),
    });
    fs::create_dir_all(out)?;
    fs::write(out.join("coverage.txt"), text)?;
    fs::write(out.join("coverage.json"), format!("{report:#}\n"))?;
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
