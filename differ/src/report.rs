// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What a run has to say: for people as text, for machines as JSON.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};
use vmalab_model::{Area, Backing, Errno, MlockFlags, Mmap, Object, Op, Outcome};

use crate::compare::result;
use crate::generate;
use crate::oracle::{NamedFile, World};
use crate::runner::{Differs, End, Finding, Stats, What};
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

        let reason = |name: &str, reason: String| Reason {
            name: name.into(),
            reason,
        };
        let (failures, finding) = match end {
            End::Found(finding) => {
                let text = match &finding.what {
                    What::Differs(differs) => differs.difference.to_string(),
                    What::Broke(what) => what.clone(),
                };
                let files = &worlds[finding.world].files;
                let last = finding
                    .ops
                    .last()
                    .map(|op| show::op(op, files))
                    .unwrap_or_default();
                let found = in_full(finding, about, worlds);
                (
                    vec![reason(&subject, format!("{last}: {text}"))],
                    Some(found),
                )
            }
            End::Agreed | End::Stopped => (Vec::new(), None),
        };
        let skips: Vec<_> = about
            .skipped
            .iter()
            .map(|text| match text.split_once(": ") {
                Some((what, why)) => reason(what, why.into()),
                None => reason("part of the run", text.clone()),
            })
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

/// The command that repeats a finding.
fn command(about: &About, finding: &Finding) -> String {
    format!(
        "{} --batch {} --ops {}",
        about.command,
        finding.batch,
        finding.ops.len()
    )
}

fn in_full(finding: &Finding, about: &About, worlds: &[World]) -> Value {
    let world = &worlds[finding.world];
    let ops = |ops: &[Op]| {
        ops.iter()
            .map(|op| op_json(op, &world.files))
            .collect::<Vec<_>>()
    };
    let mut value = json!({
        "batch": finding.batch,
        "world": world.name,
        "repeat": command(about, finding),
        "ops": ops(&finding.ops),
        "short": finding.short.as_deref().map(ops),
    });
    match &finding.what {
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

/// An operation as the recordings write it, without its answer.
pub fn op_json(op: &Op, files: &[NamedFile]) -> Value {
    let hex = |number: u64| format!("{number:#x}");
    let ranged = |name: &str, addr, len| json!({"op": name, "addr": hex(addr), "len": hex(len)});
    let with = |mut object: Value, key: &str, value: Value| {
        object[key] = value;
        object
    };
    match *op {
        Op::Mmap(Mmap {
            addr,
            len,
            prot,
            flags,
            backing,
            offset,
        }) => {
            let file = match backing {
                Backing::None => Value::Null,
                Backing::File(id) => json!(files.get(usize::from(id.0)).map(|file| &file.name)),
            };
            json!({
                "op": "mmap", "addr": hex(addr), "len": hex(len), "prot": prot.0,
                "flags": hex(flags.0.into()), "file": file, "off": hex(offset),
            })
        }
        Op::Munmap { addr, len } => ranged("munmap", addr, len),
        Op::Mprotect { addr, len, prot } => {
            with(ranged("mprotect", addr, len), "prot", json!(prot.0))
        }
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } => json!({
            "op": "mremap", "addr": hex(addr), "len": hex(old_len), "new_len": hex(new_len),
            "flags": flags.0, "new_addr": hex(new_addr),
        }),
        Op::Mlock { addr, len, flags } if flags == MlockFlags::empty() => {
            ranged("mlock", addr, len)
        }
        Op::Mlock { addr, len, flags } => {
            with(ranged("mlock2", addr, len), "flags", json!(flags.0))
        }
        Op::Munlock { addr, len } => ranged("munlock", addr, len),
        Op::Madvise { addr, len, advice } => {
            with(ranged("madvise", addr, len), "advice", json!(advice.0))
        }
        Op::PkeyMprotect {
            addr,
            len,
            prot,
            pkey,
        } => {
            let object = with(ranged("pkey_mprotect", addr, len), "prot", json!(prot.0));
            with(object, "pkey", json!(pkey))
        }
        Op::Mlockall { flags } => json!({"op": "mlockall", "flags": flags.0}),
        Op::Munlockall => json!({"op": "munlockall"}),
        Op::Mseal { addr, len, flags } => with(ranged("mseal", addr, len), "flags", json!(flags)),
        Op::Brk { addr } => json!({"op": "brk", "addr": hex(addr)}),
        Op::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags,
        } => json!({
            "op": "remap_file_pages", "addr": hex(addr), "len": hex(len), "prot": prot.0,
            "pgoff": hex(pgoff), "flags": flags.0,
        }),
        Op::SetMdwe { bits } => json!({"op": "mdwe", "bits": bits.0}),
        Op::Fork => json!({"op": "fork"}),
        Op::UffdRegister { addr, len } => ranged("uffd-register", addr, len),
        Op::UffdUnregister { addr, len } => ranged("uffd-unregister", addr, len),
        Op::Touch { addr, write } => json!({"op": "touch", "addr": hex(addr), "write": write}),
    }
}

fn outcome_json(outcome: &Outcome, files: &[NamedFile]) -> Value {
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
            "object": object,
        })
    };
    let counters = &outcome.counters;
    json!({
        "ret": result(outcome.result),
        "areas": outcome.layout.iter().map(area).collect::<Vec<_>>(),
        "counters": {
            "map_count": counters.map_count, "total_vm": counters.total_vm,
            "locked_vm": counters.locked_vm, "data_vm": counters.data_vm,
            "stack_vm": counters.stack_vm, "exec_vm": counters.exec_vm,
        },
        "hooks": outcome.hooks.iter().map(|call| format!("{call:?}")).collect::<Vec<_>>(),
    })
}

/// A finding for people: the operation, the drawings, the first field, and how to see it again.
pub fn finding_text(finding: &Finding, about: &About, worlds: &[World]) -> String {
    let world = &worlds[finding.world];
    let files = &world.files;
    let mut text = String::new();
    let last = finding.ops.len().saturating_sub(1);
    let _ = writeln!(
        text,
        "batch {}, operation {last}, world: {}",
        finding.batch, world.name
    );
    if let Some(op) = finding.ops.last() {
        let _ = writeln!(text, "  {}", show::op(op, files));
    }
    match &finding.what {
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
            let calls = [
                ("predicted", &predicted.hooks),
                ("observed", &observed.outcome.hooks),
            ];
            if difference.field.starts_with("hook call") {
                for (name, calls) in calls {
                    let _ = writeln!(text, "hook calls, {name}:");
                    for call in calls {
                        let _ = writeln!(text, "  {}", show::hook_call(call, files));
                    }
                }
            }
        }
    }
    let shown = finding.short.as_ref().unwrap_or(&finding.ops);
    let name = match finding.short {
        Some(_) => "a shorter sequence with a finding",
        None => "the sequence",
    };
    let _ = writeln!(text, "\n{name} ({} operations):", shown.len());
    for op in shown {
        let _ = writeln!(text, "  {}", show::op(op, files));
    }
    let _ = writeln!(text, "\nto repeat it:\n  {}", command(about, finding));
    text
}
