// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Replays recordings of real kernels (`*.jsonl.xz`, beside this crate) on the model.
//!
//! One object a line: a header; then per sequence its start (`seq`, the areas of a fresh process) and
//! its operations with the value, the areas and the counters (in KiB) that the kernel answered. A
//! sequence is compared up to its first difference, or to the first operation that the model does not
//! know: what follows depends on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, anyhow};

use serde::Deserialize;
use vmalab_model::file::File;
use vmalab_model::rules::StackGuard;
use vmalab_model::{
    AddressSpace, Advice, Area, Backing, Errno, FileId, Limits, MapFlags, MlockFlags, Mmap,
    MremapFlags, Object, Op, Outcome, Prot, Rules, UffdEvent, VmFlags,
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
    /// The differences: at most one for a sequence.
    pub differences: Vec<String>,
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
            if report.differences.len() >= most {
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
        let before = current.space.clone();
        let Some(result) = current.step(op, &line) else {
            *report.unknown.entry(op.clone()).or_default() += 1;
            report.skipped += 1;
            run = None;
            continue;
        };
        report.compared += 1;
        if let Err(what) = current.compare(op, &line, result) {
            let mut text = format!("({}, {}) {what}\n  {op}", at.0, at.1);
            write!(
                text,
                " {} addr={:#x} len={:#x} prot={} flags={:#x} off={:#x} write={} new_len={:#x} new_addr={:#x} advice={}\nbefore, model:\n{}after, model ({result:x?}):\n{}after, kernel ({:#x}):\n",
                line.kind,
                line.addr.0,
                line.len.0,
                line.prot.0,
                line.flags.0,
                line.off.0,
                line.write.0,
                line.new_len.0,
                line.new_addr.0,
                line.advice.0,
                current.draw(&before),
                current.draw(&current.space),
                line.ret.0,
            )
            .unwrap();
            for (start, end, perms, offset, name) in &line.areas {
                writeln!(
                    text,
                    "    {:x}-{:x} {perms} {:x} {name}",
                    start.0, end.0, offset.0
                )
                .unwrap();
            }
            report.differences.push(text);
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

    /// Applies one operation; `None` for one that the model does not know.
    fn step(&mut self, op: &str, line: &Line) -> Option<Result<u64, Errno>> {
        let (addr, len) = (line.addr.u(), line.len.u());
        let op = match op {
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
        };
        self.space.apply_into(&op, 0..0, &mut self.outcome);
        // pread and pwrite give the number of bytes.
        let bytes = u64::from(matches!(op, Op::Touch { .. }));
        Some(self.outcome.result.map(|value| value + bytes))
    }

    fn compare(&self, op: &str, line: &Line, result: Result<u64, Errno>) -> Result<(), String> {
        let result = match result {
            Ok(value) => value as i64,
            Err(error) => -i64::from(error.number()),
        };
        if result != line.ret.0 {
            return Err(format!("{op} gives {:#x}, not {result:#x}", line.ret.0));
        }
        if let Some(events) = &line.events {
            let recorded: Vec<_> = events.iter().map(Event::uffd).collect();
            let predicted: Vec<_> = self.outcome.events.iter().copied().map(Some).collect();
            if recorded != predicted {
                return Err(format!("events {recorded:x?}, not {predicted:x?}"));
            }
        }
        let predicted: Vec<_> = self.areas().map(|vma| row(&vma)).collect();
        let recorded: Vec<_> = line
            .areas
            .iter()
            .filter(|area| area.0.u() < self.space.limits().task_size)
            .map(|(start, end, perms, offset, name)| {
                let object = match name.as_str() {
                    "" | "[heap]" | "[stack]" => "anon",
                    "/dev/zero (deleted)" => "shmem",
                    "/f" => "/f",
                    "/h/f" => "/h/f",
                    _ => "other",
                };
                let offset = if object == "anon" || object == "other" {
                    0
                } else {
                    offset.u()
                };
                (start.u(), end.u(), perms.clone(), offset, object)
            })
            .collect();
        if predicted != recorded {
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
                return Err(format!("{name} is {seen}, not {kib}"));
            }
        }
        let exec = (counters.exec_vm * 4) as i64;
        let seen = line.kb("VmExe") + line.kb("VmLib");
        if exec != seen {
            return Err(format!("VmExe and VmLib are {seen}, not {exec}"));
        }
        self.space.check_invariants()
    }

    fn areas(&self) -> impl Iterator<Item = Area> {
        self.space
            .areas()
            .map(|vma| self.space.shown(vma))
            .filter(|area| area.end > self.window.start && area.start < self.window.end)
    }

    fn draw(&self, space: &AddressSpace) -> String {
        let mut text = String::new();
        for vma in space.areas() {
            if vma.end > self.window.start && vma.start < self.window.end {
                let (start, end, perms, offset, object) = row(&vma.area());
                writeln!(
                    text,
                    "    {start:x}-{end:x} {perms} {offset:x} {object} {:?} pgoff {:x} {:?}{}",
                    vma.flags,
                    vma.pgoff,
                    vma.anon_vma,
                    if vma.forked { " forked" } else { "" }
                )
                .unwrap();
            }
        }
        text
    }
}

type Row = (u64, u64, String, u64, &'static str);

fn row(area: &Area) -> Row {
    let mut perms = String::new();
    for (flag, letter) in [
        (VmFlags::READ, 'r'),
        (VmFlags::WRITE, 'w'),
        (VmFlags::EXEC, 'x'),
    ] {
        perms.push(if area.flags.contains(flag) {
            letter
        } else {
            '-'
        });
    }
    perms.push(if area.flags.contains(VmFlags::MAYSHARE) {
        's'
    } else {
        'p'
    });
    let (offset, object) = match area.object {
        Object::Anon => (0, "anon"),
        Object::Shmem(_) => (area.offset, "shmem"),
        Object::File(F) => (area.offset, "/f"),
        Object::File(H) => (area.offset, "/h/f"),
        Object::File(_) | Object::Other => (0, "other"),
    };
    (area.start, area.end, perms, offset, object)
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
