// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Replays recordings of real kernels (`*.jsonl.xz`, beside this crate) on the model.
//!
//! One object a line: a header; then per sequence its start (`seq`, the areas of a fresh process) and
//! its operations with the value, the areas and the counters (in KiB) that the kernel answered. A
//! sequence is compared up to its first difference, or to the first operation that the model does not
//! know: what follows depends on it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, anyhow};

use serde::Deserialize;
use vmalab_model::file::File;
use vmalab_model::rules::StackGuard;
use vmalab_model::{
    AddressSpace, Advice, Area, Backing, FileId, Limits, MapFlags, MlockFlags, Mmap, MremapFlags,
    Object, Op, Outcome, Prot, Rules, UffdEvent, VmFlags,
};

/// The file that the recordings map.
const F: FileId = FileId(0);
/// What the kernel itself maps into a process.
const SPECIAL: FileId = FileId(1);
/// The file on hugetlbfs.
const H: FileId = FileId(2);

/// A number, or hexadecimal text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
struct Num(i64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Number(i64),
    Text(String),
}

impl TryFrom<Raw> for Num {
    type Error = std::num::ParseIntError;
    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        Ok(Self(match raw {
            Raw::Number(number) => number,
            Raw::Text(text) => u64::from_str_radix(text.trim_start_matches("0x"), 16)? as i64,
        }))
    }
}

impl Num {
    fn u(self) -> u64 {
        self.0 as u64
    }
}

#[derive(Deserialize)]
struct Header {
    kernel: String,
    mode: String,
    arena: Num,
    pages: u64,
    task_size: Num,
}

#[derive(Deserialize)]
struct Line {
    seq: Option<u64>,
    max_map_count: Option<u64>,
    op: Option<String>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    addr: Num,
    #[serde(default)]
    len: Num,
    #[serde(default)]
    prot: Num,
    #[serde(default)]
    flags: Num,
    #[serde(default)]
    off: Num,
    #[serde(default)]
    write: Num,
    #[serde(default)]
    new_len: Num,
    #[serde(default)]
    new_addr: Num,
    #[serde(default)]
    advice: Num,
    #[serde(default)]
    ret: Num,
    #[serde(default)]
    events: Option<Vec<Event>>,
    areas: Vec<(Num, Num, String, Num, String)>,
    kb: BTreeMap<String, i64>,
}

impl Line {
    /// A counter in KiB; -1 is none.
    fn kb(&self, name: &str) -> i64 {
        self.kb.get(name).copied().unwrap_or(-1)
    }
}

/// What a userfaultfd delivered.
#[derive(Debug, Deserialize)]
struct Event {
    event: u32,
    a: Num,
    b: Num,
    #[serde(default)]
    len: Num,
}

impl Event {
    fn uffd(&self) -> Option<UffdEvent> {
        let (a, b) = (self.a.u(), self.b.u());
        // UFFD_EVENT_* of linux/userfaultfd.h, as the recordings have them.
        Some(match self.event {
            22 => UffdEvent::Unmap { start: a, end: b },
            21 => UffdEvent::Remove { start: a, end: b },
            20 => UffdEvent::Remap {
                from: a,
                to: b,
                len: self.len.u(),
            },
            _ => return None,
        })
    }
}

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Report {
    /// Sequences in the recording.
    pub sequences: usize,
    /// Operations that were compared in full.
    pub compared: usize,
    /// Operations that were not, because the model does not know them or one before.
    pub skipped: usize,
    /// By name, how often an operation that the model does not know ended a sequence.
    pub unknown: BTreeMap<String, usize>,
    /// How many sequences differ, each up to its first difference.
    pub differ: usize,
    /// The first difference of all.
    pub first: Option<Difference>,
}

/// What the model predicted, and what a kernel answered.
#[derive(Debug)]
pub struct Difference {
    /// In which sequence.
    pub seq: u64,
    /// At which of its operations; the first is 0.
    pub index: usize,
    /// Which operation.
    pub op: Op,
    /// In what they differ.
    pub what: String,
    /// The areas before, as the model has them. Of these and the others is here what `/proc` tells.
    pub before: Vec<Area>,
    /// The areas that the kernel had afterwards.
    pub recorded: Vec<Area>,
    /// The areas that the model predicts.
    pub predicted: Vec<Area>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seq,
            index,
            op,
            what,
            ..
        } = self;
        write!(f, "sequence {seq}, operation {index}: {what}\n  {op:x?}")?;
        for (name, areas) in [
            ("before", &self.before),
            ("recorded", &self.recorded),
            ("predicted", &self.predicted),
        ] {
            write!(f, "\n{name}:")?;
            for area in areas {
                write!(f, "\n    {area:x?}")?;
            }
        }
        Ok(())
    }
}

/// A recording, unpacked.
pub struct Recording {
    text: Vec<u8>,
    header: Header,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is not packed with xz, or does not begin as a recording does.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {name}"))?;
        let mut text = Vec::new();
        lzma_rs::xz_decompress(&mut BufReader::new(file), &mut text)
            .map_err(|error| anyhow!("{name} is not a file of xz: {error:?}"))?;
        let first = text.split(|&byte| byte == b'\n').next().unwrap_or(&[]);
        let header = serde_json::from_slice(first)
            .with_context(|| format!("{name} does not begin with the header of a recording"))?;
        Ok(Self { text, header })
    }

    /// The version of the kernel that was recorded, as `6.12`.
    pub fn kernel(&self) -> &str {
        &self.header.kernel
    }
}

/// Replays a recording by the rules of an era, until so many sequences have differed.
///
/// # Errors
///
/// A line that cannot be understood.
pub fn replay(recording: &Recording, rules: Rules, most: usize) -> anyhow::Result<Report> {
    let header = &recording.header;
    let lines = recording
        .text
        .split(|&byte| byte == b'\n')
        .enumerate()
        .skip(1)
        .filter(|(_, line)| !line.is_empty());
    let mut report = Report::default();
    let mut run: Option<Run> = None;
    let (mut seq, mut index, mut huge_pages) = (0, 0, 0);
    for (number, line) in lines {
        let line: Line = serde_json::from_slice(line)
            .with_context(|| format!("line {} cannot be understood", number + 1))?;
        let Some(op) = &line.op else {
            if report.differ >= most {
                break;
            }
            seq = line.seq.with_context(|| {
                format!(
                    "line {} is neither an operation nor the begin of a sequence",
                    number + 1
                )
            })?;
            index = 0;
            report.sequences += 1;
            // The file on hugetlbfs lives on, and grows.
            huge_pages = run.map_or(huge_pages, |run: Run| run.space.file_size(H));
            let start = Run::start(header, rules, huge_pages, &line);
            run = Some(start.with_context(|| format!("line {}", number + 1))?);
            continue;
        };
        let at = (seq, index);
        index += 1;
        let Some(current) = &mut run else {
            report.skipped += 1;
            continue;
        };
        let Some(op) = operation(op, &line) else {
            *report.unknown.entry(op.clone()).or_default() += 1;
            report.skipped += 1;
            run = None;
            continue;
        };
        let before = current.space.clone();
        current.space.apply_into(&op, 0..0, &mut current.outcome);
        report.compared += 1;
        if let Err(what) = current.compare(&op, &line, &before) {
            report.differ += 1;
            report.first.get_or_insert_with(|| Difference {
                seq: at.0,
                index: at.1,
                op,
                what,
                before: current.areas(&before),
                recorded: recorded(&line, before.limits().task_size),
                predicted: current.areas(&current.space),
            });
            run = None;
        }
    }
    Ok(report)
}

struct Run {
    space: AddressSpace,
    /// Of the last operation.
    outcome: Outcome,
    window: std::ops::Range<u64>,
}

impl Run {
    fn start(header: &Header, rules: Rules, huge_pages: u64, line: &Line) -> anyhow::Result<Self> {
        // Where [vdso] ends, the kernel begins to give addresses.
        let vdso = line.areas.iter().find(|area| area.4 == "[vdso]");
        let task_size = header.task_size.u();
        let limits = Limits {
            max_map_count: line.max_map_count.context("there is no max_map_count")?,
            task_size,
            mmap_base: vdso.map_or(Limits::default().mmap_base, |area| area.1.u()),
            mmap_legacy_base: (task_size / 3).next_multiple_of(4096),
            ..Limits::default()
        };
        let mut space = AddressSpace::new(rules, limits);
        assert_eq!(space.add_file(File::regular(64)), F);
        assert_eq!(space.add_file(File::special()), SPECIAL);
        assert_eq!(space.add_file(File::hugetlb(huge_pages)), H);
        let may = VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
        for (start, end, perms, offset, name) in &line.areas {
            let (mut start, end) = (start.u(), end.u());
            if start >= task_size {
                continue;
            }
            let access = access(perms);
            let (object, flags) = match name.as_str() {
                "[vsyscall]" => continue,
                _ if name == "[stack]" || end == task_size => {
                    if rules.stack_guard == StackGuard::Page {
                        start -= 4096;
                    }
                    (
                        Object::Anon,
                        access | may | VmFlags::ACCOUNT | VmFlags::GROWSDOWN,
                    )
                }
                "" | "[heap]" => (Object::Anon, access | may | VmFlags::ACCOUNT),
                "[vdso]" => (Object::File(SPECIAL), access | may | VmFlags::DONTEXPAND),
                "[vvar]" | "[vvar_vclock]" => (
                    Object::File(SPECIAL),
                    access | VmFlags::MAYREAD | VmFlags::IO | VmFlags::PFNMAP,
                ),
                _ => (Object::Other, access | may),
            };
            let offset = if object == Object::Anon {
                start
            } else {
                offset.u()
            };
            space
                .restore(
                    Area {
                        start,
                        end,
                        flags,
                        offset,
                        object,
                        anon_vma: None,
                        name: None,
                    },
                    object == Object::Anon,
                )
                .context("these are not the areas of a process")?;
        }
        let arena = header.arena.u();
        let window = if matches!(&*header.mode, "free" | "huge") {
            0..u64::MAX
        } else {
            // The targets of mremap begin up to as far above the arena, and reach beyond.
            arena..arena + 4 * header.pages * 4096
        };
        Ok(Self {
            space,
            outcome: Outcome::default(),
            window,
        })
    }

    /// Whether it is as recorded, and as it must be in any case. The error says what is not.
    fn compare(&self, op: &Op, line: &Line, before: &AddressSpace) -> Result<(), String> {
        // pread and pwrite give the number of bytes.
        let bytes = u64::from(matches!(op, Op::Touch { .. }));
        let result = match self.outcome.result {
            Ok(value) => (value + bytes) as i64,
            Err(error) => -i64::from(error.number()),
        };
        if result != line.ret.0 {
            return Err(format!(
                "the kernel gives {}, the model {}",
                value(line.ret.0),
                value(result)
            ));
        }
        if let Some(events) = &line.events {
            let recorded: Vec<_> = events.iter().map(Event::uffd).collect();
            let predicted: Vec<_> = self.outcome.events.iter().copied().map(Some).collect();
            if recorded != predicted {
                return Err(format!("events {recorded:x?}, not {predicted:x?}"));
            }
        }
        if self.areas(&self.space) != recorded(line, self.space.limits().task_size) {
            return Err("other areas".into());
        }
        let counters = self.space.counters();
        for (name, pages) in [
            ("VmSize", counters.total_vm),
            ("VmLck", counters.locked_vm),
            ("VmData", counters.data_vm),
            ("VmStk", counters.stack_vm),
        ] {
            let kib = (pages * 4) as i64;
            let seen = line.kb(name);
            if kib != seen {
                return Err(format!("{name} is {seen} KiB, not {kib}"));
            }
        }
        let exec = (counters.exec_vm * 4) as i64;
        let seen = line.kb("VmExe") + line.kb("VmLib");
        if exec != seen {
            return Err(format!("VmExe and VmLib are {seen} KiB, not {exec}"));
        }
        self.space.check_invariants()?;
        self.space.check_merged(before, op, self.outcome.result)
    }

    /// The areas that the recording looks at.
    fn areas(&self, space: &AddressSpace) -> Vec<Area> {
        space
            .areas()
            .map(|vma| told(space.shown(vma)))
            .filter(|area| area.end > self.window.start && area.start < self.window.end)
            .collect()
    }
}

/// The operation of a line; `None` for one that the model does not know.
fn operation(name: &str, line: &Line) -> Option<Op> {
    let (addr, len) = (line.addr.u(), line.len.u());
    Some(match name {
        "mmap" => Op::Mmap(Mmap {
            addr,
            len,
            prot: Prot(line.prot.0 as u32),
            flags: MapFlags(line.flags.0 as u32),
            backing: if line.kind.starts_with("hugetlb") {
                Backing::File(H)
            } else if line.kind.starts_with("file") {
                Backing::File(F)
            } else {
                Backing::None
            },
            offset: line.off.u(),
        }),
        "munmap" => Op::Munmap { addr, len },
        "touch" => {
            let write = line.write.0 != 0;
            Op::Touch { addr, write }
        }
        "mprotect" => Op::Mprotect {
            addr,
            len,
            prot: Prot(line.prot.0 as u32),
        },
        "mlock" => Op::Mlock {
            addr,
            len,
            flags: MlockFlags::empty(),
        },
        "munlock" => Op::Munlock { addr, len },
        "mremap" => Op::Mremap {
            addr,
            old_len: len,
            new_len: line.new_len.u(),
            flags: MremapFlags(line.flags.0 as u32),
            new_addr: line.new_addr.u(),
        },
        "madvise" => Op::Madvise {
            addr,
            len,
            advice: Advice(line.advice.0 as u32),
        },
        "uffd-register" => Op::UffdRegister { addr, len },
        "uffd-unregister" => Op::UffdUnregister { addr, len },
        "fork" => Op::Fork,
        _ => return None,
    })
}

/// A value as a system call returns it: an address, or an error below zero.
fn value(ret: i64) -> String {
    if (-4095..0).contains(&ret) {
        format!("error {}", -ret)
    } else {
        format!("{ret:#x}")
    }
}

/// What `/proc/PID/maps` tells of an area.
fn told(area: Area) -> Area {
    let flags = VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC | VmFlags::MAYSHARE;
    let (object, offset) = match area.object {
        Object::Anon => (Object::Anon, 0),
        Object::Shmem(_) => (Object::Shmem(0), area.offset),
        Object::File(F | H) => (area.object, area.offset),
        Object::File(_) | Object::Other => (Object::Other, 0),
    };
    Area {
        flags: VmFlags(area.flags.0 & flags.0),
        offset,
        object,
        anon_vma: None,
        name: None,
        ..area
    }
}

/// The areas of a line.
fn recorded(line: &Line, task_size: u64) -> Vec<Area> {
    let below = line.areas.iter().filter(|area| area.0.u() < task_size);
    below
        .map(|(start, end, perms, offset, name)| {
            let mut flags = access(perms);
            if perms.ends_with('s') {
                flags |= VmFlags::MAYSHARE;
            }
            told(Area {
                start: start.u(),
                end: end.u(),
                flags,
                offset: offset.u(),
                object: match name.as_str() {
                    "" | "[heap]" | "[stack]" => Object::Anon,
                    "/dev/zero (deleted)" => Object::Shmem(0),
                    "/f" => Object::File(F),
                    "/h/f" => Object::File(H),
                    _ => Object::Other,
                },
                anon_vma: None,
                name: None,
            })
        })
        .collect()
}

fn access(perms: &str) -> VmFlags {
    let mut flags = VmFlags::empty();
    for (letter, flag) in [
        ('r', VmFlags::READ),
        ('w', VmFlags::WRITE),
        ('x', VmFlags::EXEC),
    ] {
        if perms.contains(letter) {
            flags |= flag;
        }
    }
    flags
}
