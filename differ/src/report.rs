// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a run has to say: for people as text, for machines as JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};
use vmalab_model::{Area, Errno, Object, Outcome};

use crate::compare::result;
use crate::generate;
use crate::known::{self, KNOWN};
use crate::oracle::{NamedFile, World};
use crate::page::Origin;
use crate::runner::{Case, Differs, End, Finding, Stats, What};
use crate::sequence;
use crate::show;

/// A report for machines, in the shape that all checks of this project write.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was checked.
    pub target: String,
    /// The kernel's release.
    pub kernel: String,
    /// What accelerates the guest; whoever started the guest knows.
    pub accel: Option<String>,
    /// Checks that passed, failed, and could not be made.
    pub passed: u64,
    /// See `passed`.
    pub failed: u64,
    /// See `passed`.
    pub skipped: u64,
    /// Figures.
    pub rows: Vec<Row>,
    /// What could not be checked, and why.
    pub skips: Vec<Reason>,
    /// What failed, and how.
    pub failures: Vec<Reason>,
    /// What differed as is known or was not looked at, and why.
    pub known: Vec<Reason>,
    /// The finding in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<Value>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// On what.
    pub subject: String,
    /// How much.
    pub value: Value,
    /// Of which unit.
    pub unit: String,
}

/// A name and a reason.
#[derive(Debug, Serialize)]
pub struct Reason {
    /// What.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What was run, beside the figures.
#[derive(Clone, Debug)]
pub struct About {
    /// The kernel's release.
    pub kernel: String,
    /// The era's name.
    pub era: String,
    /// The oracle's name.
    pub oracle: String,
    /// The seed.
    pub seed: u64,
    /// The first batch.
    pub first_batch: u64,
    /// After how many operations all areas of the windows are looked at.
    pub layout_every: u32,
    /// After how many operations the counters are.
    pub counters_every: u32,
    /// What could not be checked.
    pub skipped: Vec<String>,
    /// The command that repeats one batch, but for `--batch`.
    pub command: String,
}

impl Report {
    /// The report of a run.
    pub fn new(about: &About, stats: &Stats, end: &End, worlds: &[World]) -> Self {
        let subject = format!("{} against {}", about.oracle, about.era);
        let mut rows = Vec::new();
        let mut row = |name: &str, value: Value, unit: &str| {
            rows.push(Row {
                name: name.into(),
                subject: subject.clone(),
                value,
                unit: unit.into(),
            });
        };
        row("ops", json!(stats.ops), "operations");
        row("rate", json!(stats.rate().round()), "ops/s");
        row("seed", json!(about.seed), "");
        row("first batch", json!(about.first_batch), "");
        row("generator", json!(generate::VERSION), "version");
        row(
            "all areas looked at every",
            json!(about.layout_every),
            "operations",
        );
        row(
            "counters looked at every",
            json!(about.counters_every),
            "operations",
        );
        row("batches", json!(stats.batches), "batches");
        for (world, batches) in &stats.worlds {
            row(&format!("batches, {world}"), json!(batches), "batches");
        }
        for (&(kind, number), count) in &stats.results {
            row(
                &format!("{kind}: {}", result_name(number)),
                json!(count),
                "operations",
            );
        }
        for (hook, count) in &stats.hooks {
            row(&format!("hook {hook}"), json!(count), "calls");
        }
        row("most areas", json!(stats.most_areas), "areas");
        row(
            "distinct outcomes",
            json!(stats.reach.outcomes()),
            "outcomes",
        );
        if let Some((taken, all)) = stats.reach.edges() {
            row("edges of mm/vma.c", json!(taken), "edges");
            row("all edges of mm/vma.c", json!(all), "edges");
        }
        for (name, count) in &stats.known {
            row(&format!("known: {name}"), json!(count), "times");
        }

        let reason = |name: &str, reason: String| Reason {
            name: name.into(),
            reason,
        };
        let (failures, finding) = match end {
            End::Found(finding) => {
                let case = &finding.short;
                let text = match &case.what {
                    What::Differs(differs) => differs.difference.to_string(),
                    What::Broke(what) => what.clone(),
                };
                let files = &worlds[case.world].files;
                let last = case.ops.last();
                let last = last.map_or_else(String::new, |op| show::op(op, files));
                let found = in_full(finding, about, worlds);
                (
                    vec![reason(&subject, format!("{last}: {text}"))],
                    Some(found),
                )
            }
            End::Agreed | End::Stopped => (Vec::new(), None),
        };
        let unfinished = stats.unfinished.iter();
        let unfinished = unfinished.map(|why| reason("part of the run", why.clone()));
        let skips: Vec<_> = about
            .skipped
            .iter()
            .map(|text| match text.split_once(": ") {
                Some((what, why)) => reason(what, why.into()),
                None => reason("part of the run", text.clone()),
            })
            .chain(unfinished)
            .collect();
        let known = KNOWN
            .iter()
            .filter(|known| stats.known.contains_key(known.name))
            .chain(known::masked(&about.oracle))
            .map(|known| reason(known.name, known.reason.into()))
            .collect();
        Self {
            target: "diff".into(),
            kernel: about.kernel.clone(),
            accel: None,
            passed: failures.is_empty().into(),
            failed: failures.len() as u64,
            skipped: skips.len() as u64,
            rows,
            skips,
            failures,
            known,
            finding,
        }
    }
}

/// `ok`, or the errno's name.
pub fn result_name(number: i32) -> String {
    match Errno::from_number(number) {
        Some(errno) => errno.to_string(),
        None => "ok".into(),
    }
}

/// Where a finding of a run comes from.
pub fn origin(about: &About, finding: &Finding) -> Origin {
    Origin {
        name: format!("{}-{}", about.seed, finding.batch),
        oracle: about.oracle.clone(),
        era: about.era.clone(),
        found_in: format!(
            "batch {}, {} operations, of which {} are enough",
            finding.batch,
            finding.full.ops.len(),
            finding.short.ops.len()
        ),
        command: command(about, finding),
    }
}

/// The command that repeats a finding.
fn command(about: &About, finding: &Finding) -> String {
    format!(
        "{} --batch {} --ops {}",
        about.command,
        finding.batch,
        finding.full.ops.len()
    )
}

fn in_full(finding: &Finding, about: &About, worlds: &[World]) -> Value {
    let case = &finding.short;
    let world = &worlds[case.world];
    let mut value = json!({
        "batch": finding.batch,
        "repeat": command(about, finding),
        "sequence": sequence::to_json(world, Some(&about.era), &case.ops),
        "found": sequence::to_json(&worlds[finding.full.world], Some(&about.era), &finding.full.ops),
    });
    match &case.what {
        What::Broke(what) => value["broke"] = json!(what),
        What::Differs(differs) => {
            let Differs {
                difference,
                before,
                predicted,
                observed,
            } = &**differs;
            value["field"] = json!(difference.field);
            value["before"] = outcome_json(before, &world.files)["areas"].clone();
            value["predicted"] = outcome_json(predicted, &world.files);
            value["observed"] = outcome_json(&observed.outcome, &world.files);
        }
    }
    value
}

/// A result as `strace` prints it.
pub fn result_text(value: Result<u64, Errno>) -> String {
    result(value)
}

/// An outcome for machines.
pub fn outcome_json(outcome: &Outcome, files: &[NamedFile]) -> Value {
    let area = |area: &Area| {
        let object = match area.object {
            Object::Anon => "anon".into(),
            Object::Shmem(number) => format!("shmem {number}"),
            Object::File(id) => files[usize::from(id.0)].name.clone(),
            _ => "other".into(),
        };
        json!({
            "start": format!("{:#x}", area.start), "end": format!("{:#x}", area.end),
            "flags": format!("{:?}", area.flags), "off": format!("{:#x}", area.offset),
            "object": object, "anon_vma": area.anon_vma.map(|number| number.0),
            "name": area.name.map(show::name),
        })
    };
    let counters = &outcome.counters;
    json!({
        "ret": result(outcome.result),
        "signal": outcome.signal.map(|signal| signal.to_string()),
        "areas": outcome.layout.iter().map(area).collect::<Vec<_>>(),
        "counters": {
            "map_count": counters.map_count, "total_vm": counters.total_vm,
            "locked_vm": counters.locked_vm, "data_vm": counters.data_vm,
            "stack_vm": counters.stack_vm, "exec_vm": counters.exec_vm,
        },
        "discarded": outcome.discarded.iter().map(|range| format!("{range:#x?}")).collect::<Vec<_>>(),
        "hooks": outcome.hooks.iter().map(|call| format!("{call:?}")).collect::<Vec<_>>(),
    })
}

/// A finding for people: the simplest case, and how to see it again.
pub fn finding_text(finding: &Finding, about: &About, worlds: &[World]) -> String {
    let (full, short) = (&finding.full, &finding.short);
    let mut text = format!(
        "batch {}, world: {}; {} operations, of which {} are enough",
        finding.batch,
        worlds[full.world].name,
        full.ops.len(),
        short.ops.len()
    );
    if short.world != full.world {
        let _ = write!(text, " in the world: {}", worlds[short.world].name);
    }
    text.push('\n');
    text += &case_text(short, worlds);
    let _ = writeln!(text, "\nto repeat it:\n  {}", command(about, finding));
    text
}

/// The sequence, what its last operation should have done and did, as drawings and in full.
pub fn case_text(case: &Case, worlds: &[World]) -> String {
    let world = &worlds[case.world];
    let files = &world.files;
    let mut text = String::new();
    for op in &case.ops {
        let _ = writeln!(text, "  {}", show::op(op, files));
    }
    match &case.what {
        What::Broke(what) => {
            let _ = writeln!(text, "\nthe oracle broke: {what}");
        }
        What::Differs(differs) => {
            let Differs {
                difference,
                before,
                predicted,
                observed,
            } = &**differs;
            let _ = writeln!(text, "\n{difference}\n");
            let rows = [
                ("before", before.layout.as_slice()),
                ("predicted", predicted.layout.as_slice()),
                ("observed", observed.outcome.layout.as_slice()),
            ];
            for window in world.windows() {
                let drawing = show::drawing(&window, &rows);
                if !drawing.is_empty() {
                    let _ = writeln!(text, "{drawing}");
                }
            }
            for (name, areas) in rows {
                let _ = writeln!(text, "{name}:");
                for area in areas {
                    let _ = writeln!(text, "  {}", show::area(area, files));
                }
            }
            if difference.field.starts_with("hook call") {
                let calls = [
                    ("predicted", &predicted.hooks),
                    ("observed", &observed.outcome.hooks),
                ];
                for (name, calls) in calls {
                    let _ = writeln!(text, "hook calls, {name}:");
                    for call in calls {
                        let _ = writeln!(text, "  {}", show::hook_call(call, files));
                    }
                }
            }
        }
    }
    text
}
