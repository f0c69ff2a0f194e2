// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! `vmalab replay`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use serde_json::json;
use vmalab_differ::oracle::NamedFile;
use vmalab_differ::page::{self, Origin, what};
use vmalab_differ::report::{case_text, outcome_json, result_text};
use vmalab_differ::runner::Runner;
use vmalab_differ::sequence::{self, Sequence};
use vmalab_differ::show;
use vmalab_model::{Area, File, Op, Rules};
use vmalab_vectors::{Difference, Recording, replay};

use crate::known;
use crate::oracles::{Choice, Chosen};
use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Sequences of operations, as text or JSON; or recordings, packed with xz
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Play in this world of the oracle instead of the one that the sequence names
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// Print one JSON object for each file
    #[arg(long)]
    json: bool,
    /// Where a finding is written: the sequence, a program of C, a page of HTML
    #[arg(long, value_name = "DIRECTORY", default_value = "build/report")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut agreed = true;
    for path in &args.files {
        agreed &= if is_recording(path)? {
            recording(args, path)?
        } else {
            sequence(args, path)?
        };
    }
    Ok(if agreed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether it begins as xz packs files.
fn is_recording(path: &Path) -> anyhow::Result<bool> {
    use std::io::Read as _;
    let cannot = || format!("cannot read {}", path.display());
    let mut magic = Vec::new();
    let file = fs::File::open(path).with_context(cannot)?;
    file.take(6).read_to_end(&mut magic).with_context(cannot)?;
    Ok(magic == b"\xfd7zXZ\0")
}

/// A sequence of a file, an oracle and where to play it.
pub(crate) struct Loaded {
    pub(crate) chosen: Chosen,
    pub(crate) world: usize,
    pub(crate) ops: Vec<Op>,
}

/// Reads a sequence and starts the oracle.
pub(crate) fn load(path: &Path, choice: &Choice, world: Option<&str>) -> anyhow::Result<Loaded> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let mut sequence = Sequence::parse(&text).map_err(|error| anyhow!("{name}: {error}"))?;
    if let Some(world) = world {
        sequence.world = Some(world.into());
    }
    let chosen = choice.one(sequence.era.as_deref())?;
    let worlds = chosen.oracle.worlds();
    let world = sequence.world_of(worlds);
    let world = world.map_err(|error| anyhow!("{name}: {error}; name one by --world"))?;
    let ops = sequence
        .ops(&worlds[world])
        .map_err(|error| anyhow!("{name}: {error}"))?;
    Ok(Loaded { chosen, world, ops })
}

/// Plays one sequence; gives whether all was as predicted.
fn sequence(args: &Args, path: &Path) -> anyhow::Result<bool> {
    let Loaded {
        mut chosen,
        world,
        ops,
    } = load(path, &args.choice, args.world.as_deref())?;
    let oracle = chosen.oracle.name();
    let mut runner = Runner::new(&mut *chosen.oracle, chosen.rules)?;
    let found = runner.replay(world, &ops)?;
    let excused = runner.excused();
    let description = runner.worlds()[world].clone();
    let written = found.as_ref().map(|case| {
        let origin = origin(args, path, &oracle, chosen.rules.name, ops.len());
        page::write(&args.out, case, &origin, runner.worlds())
    });
    if args.json {
        let seen = runner.steps().1.iter();
        let steps: Vec<_> = seen
            .map(|seen| outcome_json(&seen.outcome, &description.files))
            .collect();
        println!(
            "{:#}",
            json!({
                "file": path.display().to_string(),
                "oracle": oracle,
                "kernel": chosen.kernel,
                "sequence": sequence::to_json(&description, Some(chosen.rules.name), &ops),
                "observed": steps,
                "agreed": found.is_none(),
                "known": excused,
                "differs": found.as_ref().map(what),
            })
        );
        return Ok(found.is_none());
    }
    println!(
        "{}: {oracle}, world \"{}\", predicted by {}",
        path.display(),
        description.name,
        chosen.rules.name
    );
    let seen = runner.steps().1;
    for (op, seen) in ops.iter().zip(seen) {
        let result = result_text(seen.outcome.result);
        println!("  {} = {result}", show::op(op, &description.files));
    }
    if let Some(last) = seen.last() {
        for window in description.windows() {
            let rows = [("at the end", last.outcome.layout.as_slice())];
            print!("{}", show::drawing(&window, &rows));
        }
    }
    known::print(&oracle, &excused);
    match &found {
        None => println!("all {} operations did as predicted", ops.len()),
        Some(case) => {
            println!(
                "DIVERGENCE at operation {}\n",
                case.ops.len().saturating_sub(1)
            );
            print!("{}", case_text(case, runner.worlds()));
            let written = written.expect("what was found was to be written");
            report::print(&args.out, &written);
        }
    }
    Ok(found.is_none())
}

/// Where a finding comes from.
fn origin(args: &Args, path: &Path, oracle: &str, era: &str, length: usize) -> Origin {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut words = args.choice.words();
    if let Some(world) = &args.world {
        words += &format!(" --world '{world}'");
    }
    Origin {
        // As often as it is replayed.
        name: format!(
            "replay-{}",
            stem.trim_start_matches("finding-")
                .trim_start_matches("replay-")
        ),
        oracle: oracle.into(),
        era: era.into(),
        found_in: format!("{}, {length} operations", path.display()),
        command: format!("vmalab replay {}{words}", path.display()),
    }
}

/// Replays one recording on the model; gives whether all agreed.
fn recording(args: &Args, path: &Path) -> anyhow::Result<bool> {
    let name = path.display();
    let recording = Recording::load(path)?;
    let rules = rules(&args.choice, recording.kernel()).with_context(|| name.to_string())?;
    let report = replay(&recording, *rules, usize::MAX).with_context(|| name.to_string())?;
    let agreed = report.compared - report.differ;
    let all = report.compared + report.skipped;
    let holds = agreed == all && all > 0;
    let files = ["/f", "[vdso]", "/h/f"].map(|name| NamedFile {
        name: name.into(),
        file: File::regular(0),
    });
    if args.json {
        let first = report.first.as_ref().map(|first| {
            let areas = |areas: &[Area]| -> Vec<String> {
                areas.iter().map(|area| show::area(area, &files)).collect()
            };
            json!({
                "sequence": first.seq,
                "operation": first.index,
                "op": show::op(&first.op, &files),
                "differs": first.what,
                "before": areas(&first.before),
                "recorded": areas(&first.recorded),
                "predicted": areas(&first.predicted),
            })
        });
        println!(
            "{}",
            json!({
                "file": name.to_string(),
                "kernel": recording.kernel(),
                "era": rules.name,
                "sequences": report.sequences,
                "operations": all,
                "agreed": agreed,
                "differ": report.differ,
                "skipped": report.skipped,
                "unknown": report.unknown,
                "first": first,
            })
        );
        return Ok(holds);
    }
    println!(
        "{name}: kernel {} -> rules {}: {agreed} of {all} operations agree, in {} sequences",
        recording.kernel(),
        rules.name,
        report.sequences
    );
    if let Some(first) = &report.first {
        println!(
            "{} sequences differ, and {} operations after that were skipped; the first:\n",
            report.differ, report.skipped
        );
        print!("{}", difference_text(first, &files));
    }
    for (op, times) in &report.unknown {
        println!("{times} sequences ended by an operation that the model does not know: {op}");
    }
    Ok(holds)
}

/// A difference as a drawing of what changed, and the areas there in full.
fn difference_text(first: &Difference, files: &[NamedFile]) -> String {
    let Difference {
        seq,
        index,
        op,
        what,
        before,
        recorded,
        predicted,
    } = first;
    let rows = [
        ("before", before.as_slice()),
        ("recorded", recorded),
        ("predicted", predicted),
    ];
    let mut text = format!(
        "sequence {seq}, operation {index}: {}\n{what}\n\n",
        show::op(op, files)
    );
    // What all three have is of no interest, unless there is nothing else.
    let everywhere = |area: &Area| rows.iter().all(|(_, areas)| areas.contains(area));
    let all = || rows.iter().flat_map(|(_, areas)| areas.iter());
    let others: Vec<&Area> = all().filter(|area| !everywhere(area)).collect();
    let changed = if others.is_empty() {
        all().collect()
    } else {
        others
    };
    let start = changed.iter().map(|area| area.start).min();
    let end = changed.iter().map(|area| area.end).max();
    let window = start.unwrap_or(0)..end.unwrap_or(0);
    text += &show::drawing(&window, &rows);
    for (name, areas) in rows {
        text += &format!("\n{name}\n");
        let inside = |area: &&Area| area.start < window.end && area.end > window.start;
        for area in areas.iter().filter(inside) {
            text += &format!("  {}\n", show::area(area, files));
        }
    }
    text
}

/// The rules to replay a recording by.
fn rules(choice: &Choice, kernel: &str) -> anyhow::Result<&'static Rules> {
    match choice.era() {
        Some(name) => Rules::by_name(name)
            .ok_or_else(|| anyhow!("there is no era {name}; `vmalab eras` lists them")),
        None => Rules::for_kernel(kernel).ok_or_else(|| {
            anyhow!("kernel {kernel} is older than all eras; choose one with --era all the same")
        }),
    }
}
