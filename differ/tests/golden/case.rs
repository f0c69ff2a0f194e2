// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! One golden case: how things stand, an operation, and what is drawn of it.

use std::fmt::Write as _;
use std::ops::Range;

use vmalab_differ::oracle::NamedFile;
use vmalab_differ::show;
use vmalab_model::file::{Hooks, MaySplit, WriteSeal};
use vmalab_model::{
    AddressSpace, Area, Backing, Break, Counters, Errno, File, FileId, Limits, MapFlags, Mmap, Op,
    Outcome, PAGE_SIZE, Prot, Rules, UffdEvent, VmFlags,
};

/// Page 0 of all drawings.
pub(crate) const BASE: u64 = 0x20_0000;
/// So many pages are drawn at most.
const WIDTH: u64 = 16;

/// The address of a page of the drawings.
pub(crate) const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// The files, by their letters from `f` on, of which the segment's cannot be mapped: shared in upper case.
pub(crate) fn files() -> Vec<NamedFile> {
    let device = File::device(64);
    [
        ("device", device),
        ("file", File::regular(64)),
        (
            "fixed",
            File {
                sets: VmFlags::DONTEXPAND,
                ..device
            },
        ),
        ("huge", File::hugetlb(4096)),
        (
            "pieces",
            File {
                may_split: MaySplit::Aligned(4 * PAGE_SIZE),
                ..device
            },
        ),
        (
            "refusing",
            File {
                mmap_error: Some(Errno::EBUSY),
                ..device
            },
        ),
        (
            "reading",
            File {
                write: false,
                ..File::regular(64)
            },
        ),
        (
            "staying",
            File {
                mremap_error: Some(Errno::EBUSY),
                mprotect_error: Some(Errno::EACCES),
                ..device
            },
        ),
        (
            "changing",
            File {
                sets: VmFlags::DONTDUMP,
                hooks: Hooks {
                    close: false,
                    ..Hooks::ALL
                },
                ..device
            },
        ),
        ("segment", File::segment(4)),
        ("sealed", File::sealed_memfd(64, WriteSeal::Write)),
        ("future", File::sealed_memfd(64, WriteSeal::FutureWrite)),
    ]
    .map(|(name, file)| NamedFile {
        name: name.into(),
        file,
    })
    .into()
}

/// The call that maps pages of that letter, each page of a file at its own number as the offset.
pub(crate) fn map(letter: char, pages: Range<u64>) -> Mmap {
    let (backing, kind) = match letter {
        'a' => (Backing::None, MapFlags::PRIVATE | MapFlags::ANONYMOUS),
        's' => (Backing::None, MapFlags::SHARED | MapFlags::ANONYMOUS),
        'f'..='n' | 'p' | 'q' => (file(letter), MapFlags::PRIVATE),
        'F'..='N' | 'P' | 'Q' => (file(letter.to_ascii_lowercase()), MapFlags::SHARED),
        _ => panic!("no such letter: {letter}"),
    };
    Mmap {
        addr: at(pages.start),
        len: (pages.end - pages.start) * PAGE_SIZE,
        prot: Prot::READ | Prot::WRITE,
        flags: kind | MapFlags::FIXED,
        backing,
        offset: match backing {
            Backing::File(_) => pages.start * PAGE_SIZE,
            Backing::None => 0,
        },
    }
}

/// The segment of System V shared memory.
pub(crate) const SEGMENT: FileId = FileId(9);

fn file(letter: char) -> Backing {
    Backing::File(FileId(letter as u16 - 'f' as u16))
}

/// What becomes of limits, given what is counted.
type Tighten = dyn Fn(&mut Limits, Counters);

/// How things stand before an operation.
pub(crate) struct Case {
    title: &'static str,
    eras: Vec<Rules>,
    limits: Limits,
    heap: Option<Break>,
    setup: Vec<Op>,
    /// What becomes of the limits before the operation itself.
    tighten: Box<Tighten>,
}

/// A case on Linux 7.2, from nothing.
pub(crate) fn case(title: &'static str) -> Case {
    Case {
        title,
        eras: vec![Rules::V7_2],
        limits: Limits::default(),
        heap: None,
        setup: Vec::new(),
        tighten: Box::new(|_, _| ()),
    }
}

impl Case {
    /// On all kernels from that one on: those that answer alike are drawn once.
    pub(crate) fn since(mut self, first: Rules) -> Self {
        let known = Rules::all().iter().copied();
        self.eras = known.filter(|era| era.since >= first.since).collect();
        self
    }

    /// On all kernels.
    pub(crate) fn in_all_eras(self) -> Self {
        self.since(Rules::V2_6_11)
    }

    /// Maps what is drawn, in the language of the drawings.
    pub(crate) fn draw(mut self, picture: &str) -> Self {
        // Before a hole at the start there is no bracket to stand for its column.
        let column = if picture.starts_with('.') { " " } else { "" };
        let letters: Vec<char> = column.chars().chain(picture.chars()).collect();
        let pages = letters.len() as u64 / 2;
        let (mut from, letter) = (0, |page: u64| letters[2 * page as usize + 1]);
        while from < pages {
            let mut to = from + 1;
            while to < pages && letter(to) == letter(from) && letters[2 * to as usize] == ' ' {
                to += 1;
            }
            if letter(from) != '.' {
                self.setup.push(Op::Mmap(map(letter(from), from..to)));
            }
            from = to;
        }
        self
    }

    /// After that operation, too.
    pub(crate) fn then(mut self, op: Op) -> Self {
        self.setup.push(op);
        self
    }

    /// Each of these pages has been written to.
    pub(crate) fn written(self, pages: &[u64]) -> Self {
        let write = |page: &u64| Op::Touch {
            addr: at(*page),
            write: true,
        };
        pages.iter().map(write).fold(self, Self::then)
    }

    /// Within those limits from the start.
    pub(crate) fn limits(mut self, limits: impl Fn(&mut Limits)) -> Self {
        limits(&mut self.limits);
        self
    }

    /// The heap begins at that page.
    pub(crate) fn heap(mut self, page: u64) -> Self {
        self.heap = Some(Break::empty(at(page)));
        self
    }

    /// Room for so many areas more than there are, and no more.
    pub(crate) fn room_for(self, more: u64) -> Self {
        self.tighten(move |limits, now| limits.max_map_count = now.map_count + more)
    }

    /// Then the limits become those.
    pub(crate) fn tighten(mut self, limits: impl Fn(&mut Limits, Counters) + 'static) -> Self {
        self.tighten = Box::new(limits);
        self
    }

    /// What the operation does then, drawn.
    pub(crate) fn when(self, op: Op) -> String {
        let mut text = format!("{}\n    {}\n", self.title, show::op(&op, &files()));
        let mut groups: Vec<(Vec<&str>, Step)> = Vec::new();
        for rules in &self.eras {
            let step = self.step(*rules, &op);
            match groups.last_mut() {
                Some((names, same)) if *same == step => names.push(rules.name),
                _ => groups.push((vec![rules.name], step)),
            }
        }
        for (names, step) in &groups {
            if self.eras.len() > 1 {
                let (first, last) = (names[0], names[names.len() - 1]);
                let to = if first == last { "" } else { " to " };
                let last = if first == last { "" } else { last };
                let _ = writeln!(text, "  {first}{to}{last}");
            }
            step.draw(&mut text);
        }
        text
    }

    fn step(&self, rules: Rules, op: &Op) -> Step {
        let mut space: AddressSpace = AddressSpace::new(rules, self.limits);
        for named in files() {
            space.add_file(named.file);
        }
        if let Some(heap) = self.heap {
            space.set_break(heap);
        }
        let mut before = Outcome::default();
        let apply = |space: &mut AddressSpace, op: &Op| {
            let parent = space.clone();
            let outcome = space.apply(op);
            space.check_invariants().unwrap();
            let merged = space.check_merged(&parent, op, outcome.result);
            merged.unwrap_or_else(|what| panic!("{}, by {}: {what}", self.title, rules.name));
            outcome
        };
        for op in &self.setup {
            before = apply(&mut space, op);
            before.result.unwrap_or_else(|error| {
                panic!("{}, by {}: {op:x?} gives {error}", self.title, rules.name)
            });
        }
        (self.tighten)(space.limits_mut(), before.counters);
        let after = apply(&mut space, op);
        Step { before, after }
    }
}

/// How things stand before an operation and after it.
struct Step {
    before: Outcome,
    after: Outcome,
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        // The steps before may have called other hooks.
        self.before.layout == other.before.layout
            && self.before.counters == other.before.counters
            && self.after == other.after
    }
}

impl Step {
    fn draw(&self, text: &mut String) {
        let Self { before, after } = self;
        let rows = [
            ("before", before.layout.as_slice()),
            ("after", after.layout.as_slice()),
        ];
        for line in show::drawing(&(BASE..at(WIDTH)), &rows).lines() {
            let _ = writeln!(text, "    {}", line.trim_end());
        }
        let _ = match after.result {
            Ok(value) => writeln!(text, "    = {value:#x}"),
            Err(errno) => match after.signal {
                Some(signal) => writeln!(text, "    = {errno}, or {signal}"),
                None => writeln!(text, "    = {errno}"),
            },
        };
        for call in &after.hooks {
            let _ = writeln!(text, "    {}", show::hook_call(call, &files()));
        }
        for event in &after.events {
            let _ = match *event {
                UffdEvent::Unmap { start, end } => {
                    writeln!(text, "    told: unmap {start:x}-{end:x}")
                }
                UffdEvent::Remove { start, end } => {
                    writeln!(text, "    told: remove {start:x}-{end:x}")
                }
                UffdEvent::Remap { from, to, len } => {
                    writeln!(text, "    told: remap {from:x} to {to:x}, {len:#x} bytes")
                }
            };
        }
        for area in after
            .layout
            .iter()
            .filter(|area| !before.layout.contains(area))
        {
            let flags = special(area);
            let _ = writeln!(text, "    {}{flags}", show::area(area, &files()));
        }
        let counts = |counters: &Counters| {
            [
                ("areas", counters.map_count),
                ("total", counters.total_vm),
                ("locked", counters.locked_vm),
                ("data", counters.data_vm),
                ("stack", counters.stack_vm),
                ("exec", counters.exec_vm),
            ]
        };
        let changed: Vec<_> = counts(&before.counters)
            .into_iter()
            .zip(counts(&after.counters))
            .filter(|((_, old), (_, new))| old != new)
            .map(|((name, old), (_, new))| format!("{name} {old} -> {new}"))
            .collect();
        if !changed.is_empty() {
            let _ = writeln!(text, "    {}", changed.join(", "));
        }
    }
}

/// The flags of an area that `/proc/PID/maps` does not show, but those that most have.
fn special(area: &Area) -> String {
    let usual = VmFlags::READ
        | VmFlags::WRITE
        | VmFlags::EXEC
        | VmFlags::SHARED
        | VmFlags::MAYREAD
        | VmFlags::MAYWRITE
        | VmFlags::MAYEXEC
        | VmFlags::MAYSHARE
        | VmFlags::ACCOUNT;
    let flags = area.flags.without(usual);
    if flags == VmFlags::empty() {
        String::new()
    } else {
        format!(" {flags:?}")
    }
}
