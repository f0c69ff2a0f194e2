// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Cases for others: sequences of calls, and what each era answers, as plain files that a runner of a few
//! hundred lines plays on any system that has the calls. `docs/CONFORMANCE.md` describes them.
//!
//! What depends on the machine is left out: addresses that the kernel chooses, limits, forks, protection
//! keys. And so is what cannot be undone: a runner plays all cases in one process.

use serde::Serialize;
use vmalab_model::{
    AddressSpace, Area, Errno, File, FileId, Limits, Object, Op, Outcome, PAGE_SIZE, Prot, Rules,
    VmFlags,
};

use crate::call::{self, Kind};
use crate::generate::{self, Generator};
use crate::oracle::{Heap, NamedFile, World};
use crate::show;

/// Changes when old runners cannot read the files any more.
pub const FORMAT: u32 = 1;
/// What the files look like, as a JSON schema.
pub const SCHEMA: &str = include_str!("conformance.schema.json");

/// Where the arena is for the model. A runner may have it elsewhere.
const ARENA: u64 = 0x100_0000_0000;
/// Its size in pages.
const PAGES: u64 = 32;

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    format: u32,
    name: String,
    page_size: u64,
    pages: u64,
    files: Vec<CaseFile>,
    calls: Vec<Call>,
    expected: Vec<Expected>,
}

/// A memory file that is there before the first call.
#[derive(Clone, Debug, Serialize)]
struct CaseFile {
    name: String,
    pages: u64,
    writable: bool,
}

/// A call with its arguments in the order of the system call.
#[derive(Clone, Debug, Serialize)]
struct Call {
    call: &'static str,
    args: Vec<String>,
    /// For people.
    text: String,
}

/// What some eras answer, all of them the same.
#[derive(Clone, Debug, Serialize)]
struct Expected {
    eras: Vec<Era>,
    outcomes: Vec<Answer>,
}

#[derive(Clone, Debug, Serialize)]
struct Era {
    name: &'static str,
    /// The first kernel of it: major, minor, patch.
    since: [u16; 3],
}

/// What one call answers and leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Answer {
    result: String,
    areas: Vec<Seen>,
}

/// One area; `start` and `end` in pages of the arena.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Seen {
    start: u64,
    end: u64,
    perms: String,
    object: String,
    offset: String,
}

impl Case {
    /// The case of that number, of so many calls.
    pub fn generate(seed: u64, number: u64, calls: usize) -> Self {
        let world = world();
        let mut generator = Generator::new(seed, number, &world);
        let mut model = fresh(&Rules::V7_2, &world);
        let mut outcome = Outcome::default();
        let mut ops = Vec::new();
        while ops.len() < calls {
            let op = generator.op();
            if words(&op, &world).is_some() {
                model.apply_into(&op, world.arena.clone(), &mut outcome);
                generator.learn(&outcome);
                ops.push(op);
            }
        }
        Self::of(
            format!("{}.{seed}.{number}", generate::VERSION),
            &ops,
            &world,
        )
    }

    fn of(name: String, ops: &[Op], world: &World) -> Self {
        let mut expected: Vec<Expected> = Vec::new();
        for rules in Rules::all() {
            let outcomes = answers(rules, ops, world);
            let (major, minor, patch) = rules.since;
            let era = Era {
                name: rules.name,
                since: [major, minor, patch],
            };
            match expected.iter_mut().find(|one| one.outcomes == outcomes) {
                Some(same) => same.eras.push(era),
                None => expected.push(Expected {
                    eras: vec![era],
                    outcomes,
                }),
            }
        }
        let call = |op: &Op| {
            let (call, args) = words(op, world)?;
            Some(Call {
                call,
                args,
                text: show::op(op, &world.files),
            })
        };
        Self {
            format: FORMAT,
            name,
            page_size: PAGE_SIZE,
            pages: PAGES,
            files: world
                .files
                .iter()
                .map(|file| CaseFile {
                    name: file.name.clone(),
                    pages: file.file.pages,
                    writable: file.file.write,
                })
                .collect(),
            calls: ops.iter().filter_map(call).collect(),
            expected,
        }
    }

    /// By which others know it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// An arena, three files, and nothing else.
fn world() -> World {
    let file = |name: &str, file| NamedFile {
        name: name.into(),
        file,
    };
    World {
        low: None,
        deprecated: true,
        policies: false,
        huge: false,
        fails: false,
        steers: false,
        name: "conformance".into(),
        every: 1,
        areas: Vec::new(),
        counters: Default::default(),
        files: vec![
            file("memfd", File::memfd(64)),
            file("short_memfd", File::memfd(10)),
            file(
                "read_only_memfd",
                File {
                    write: false,
                    ..File::memfd(64)
                },
            ),
        ],
        limits: Limits::default(),
        arena: ARENA..ARENA + PAGES * PAGE_SIZE,
        heap: None::<Heap>,
        locks_all: false,
        chosen: None,
    }
}

fn fresh(rules: &Rules, world: &World) -> AddressSpace {
    let mut model: AddressSpace = AddressSpace::new(*rules, world.limits);
    for file in &world.files {
        model.add_file(file.file);
    }
    model
}

fn answers(rules: &Rules, ops: &[Op], world: &World) -> Vec<Answer> {
    let mut model = fresh(rules, world);
    let mut outcome = Outcome::default();
    let answer = |op: &Op| {
        model.apply_into(op, world.arena.clone(), &mut outcome);
        // Shared anonymous objects are told apart by nobody.
        let areas = outcome.layout.iter().filter(|area| world.observes(area));
        Answer {
            result: match outcome.result {
                Ok(value) => address(value).unwrap_or_else(|| format!("{value:#x}")),
                Err(errno) => Errno::to_string(&errno),
            },
            areas: areas.map(|area| seen(area, world)).collect(),
        }
    };
    ops.iter().map(answer).collect()
}

fn seen(area: &Area, world: &World) -> Seen {
    let letter = |flag, letter| {
        if area.flags.contains(flag) {
            letter
        } else {
            '-'
        }
    };
    let (object, offset) = match area.object {
        Object::Anon => ("anonymous", 0),
        Object::Shmem(_) => ("shared", area.offset),
        Object::File(FileId(id)) => (&*world.files[usize::from(id)].name, area.offset),
        Object::Other => ("other", 0),
    };
    Seen {
        start: (area.start - ARENA) / PAGE_SIZE,
        end: (area.end - ARENA) / PAGE_SIZE,
        perms: String::from_iter([
            letter(VmFlags::READ, 'r'),
            letter(VmFlags::WRITE, 'w'),
            letter(VmFlags::EXEC, 'x'),
            if area.flags.contains(VmFlags::MAYSHARE) {
                's'
            } else {
                'p'
            },
        ]),
        object: object.into(),
        offset: format!("{offset:#x}"),
    }
}

/// Relative to the arena. `None` for what is not in it or right behind it.
fn address(value: u64) -> Option<String> {
    let offset = value.checked_sub(ARENA)?;
    (offset <= 2 * PAGES * PAGE_SIZE).then(|| format!("arena+{offset:#x}"))
}

/// A length. `None` for what reaches just so far beyond the arena: that depends on where it is.
fn length(value: u64) -> Option<String> {
    (value <= 2 * PAGES * PAGE_SIZE || value >= 1 << 47).then(|| format!("{value:#x}"))
}

/// What others can have.
const CALLS: [&str; 9] = [
    "mmap", "munmap", "mprotect", "mremap", "mlock", "mlock2", "munlock", "madvise", "touch",
];

/// The call that an operation is, if others can have it.
fn words(op: &Op, world: &World) -> Option<(&'static str, Vec<String>)> {
    // Which stack that would be depends on what else the process has.
    if let Op::Mprotect { addr, len, prot } = *op {
        let grows = prot.intersects(Prot::GROWSDOWN | Prot::GROWSUP);
        if grows && len > world.arena.end.saturating_sub(addr) {
            return None;
        }
    }
    let call = call::Call::from(op);
    let word = |(_, kind, value): (_, Kind, u64)| match kind {
        Kind::Addr => address(value),
        Kind::Len => length(value),
        Kind::File | Kind::Access => Some(kind.word(value, &world.files, None)),
        _ => Some(format!("{value:#x}")),
    };
    let name = call.signature.name;
    let args = call.args().map(word).collect::<Option<_>>()?;
    CALLS.contains(&name).then_some((name, args))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the runners rely on: eras in order, one answer for each call, areas inside the arena.
    #[test]
    fn cases_are_whole() {
        for number in 0..50 {
            let case = Case::generate(1, number, 24);
            assert_eq!(case.calls.len(), 24);
            let eras: usize = case.expected.iter().map(|one| one.eras.len()).sum();
            assert_eq!(eras, Rules::all().len());
            for expected in &case.expected {
                assert_eq!(expected.outcomes.len(), 24);
                let areas = expected.outcomes.iter().flat_map(|answer| &answer.areas);
                for area in areas {
                    // Where the guard page of a stack is left out, that may have been all of it.
                    assert!(area.start <= area.end && area.end <= PAGES, "{area:?}");
                    assert_ne!(area.object, "other");
                }
            }
        }
    }

    /// The eras differ in some of them, or they would say nothing of one.
    #[test]
    fn eras_differ() {
        let differs = |number| Case::generate(1, number, 24).expected.len() > 1;
        assert!((0..50).filter(|&number| differs(number)).count() > 10);
    }
}
