// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Who does the work.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;

use rangemap::RangeMap;
use vmalab_differ::vmac::{Program, VmaC};
use vmalab_model::{
    AddressSpace, BTree, Container, Counters, Limits, Mmap, Object, Op, Outcome, Prot, Rules,
    VmFlags, Vma,
};

use crate::memory::allocated;
use crate::work::{Round, files};

/// Has areas, and carries operations on them out.
pub(crate) trait Subject {
    fn name(&self) -> &'static str;
    /// Whether it knows drivers, and chooses addresses.
    fn is_system(&self) -> bool;
    /// Gets a round ready. This is not measured.
    fn prepare(&mut self, round: &Round);
    /// Carries it out. Gives the sum of where the areas start that were searched for; an error says what
    /// failed.
    fn run(&mut self) -> Result<u64, String>;
    /// The counters, if it has some.
    fn counters(&self) -> Option<Counters>;
    /// Forgets all areas, and gives the bytes that they took.
    fn discard(&mut self) -> usize;
}

/// Exchanges a value for an empty one. Gives the bytes that only it held.
fn drop_and_weigh<T>(value: &mut T, empty: T) -> usize {
    let old = std::mem::replace(value, empty);
    let before = allocated();
    drop(old);
    before - allocated()
}

/// The model.
pub(crate) struct Model<C: Container> {
    name: &'static str,
    space: AddressSpace<C>,
    round: Round,
}

impl<C: Container> Model<C> {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            space: Self::empty(),
            round: Round::Do(Vec::new()),
        }
    }

    fn empty() -> AddressSpace<C> {
        let mut space = AddressSpace::new(Rules::V7_2, Limits::default());
        for file in files() {
            space.add_file(file);
        }
        space
    }
}

impl<C: Container> Subject for Model<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_system(&self) -> bool {
        true
    }

    fn prepare(&mut self, round: &Round) {
        self.round = match round {
            Round::Do(ops) => Round::Do(ops.clone()),
            Round::Find(addrs) => Round::Find(addrs.clone()),
        };
    }

    fn run(&mut self) -> Result<u64, String> {
        let Self { space, round, .. } = self;
        match round {
            Round::Do(ops) => {
                let mut hooks = 0;
                for op in ops {
                    let result = space.execute(op);
                    result.map_err(|error| format!("{op:x?}: {error:?}"))?;
                    hooks += space.hooks().len();
                }
                black_box(hooks);
                Ok(0)
            }
            Round::Find(addrs) => {
                let start = |addr: &u64| space.find_vma(*addr).map_or(0, |vma| vma.start);
                Ok(addrs.iter().map(start).fold(0, u64::wrapping_add))
            }
        }
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.space.counters())
    }

    fn discard(&mut self) -> usize {
        // What it has to tell of the last operation is no part of the areas, nor are the files.
        let nothing = Op::Munmap { addr: 0, len: 0 };
        let mut told = Outcome::default();
        self.space.apply_into(&nothing, 0..0, &mut told);
        let mut empty = Self::empty();
        let files = drop_and_weigh(&mut empty, Self::empty());
        drop_and_weigh(&mut self.space, empty) - files
    }
}

/// The kernel's own code.
pub(crate) struct Kernel {
    kernel: VmaC,
    round: Prepared,
    counters: Counters,
}

enum Prepared {
    Do(Program),
    Find(Vec<u64>),
}

impl Kernel {
    pub(crate) fn new(mut kernel: VmaC) -> Self {
        kernel.reset(&Limits::default(), &files());
        Self {
            kernel,
            round: Prepared::Find(Vec::new()),
            counters: Counters::default(),
        }
    }
}

impl Subject for Kernel {
    fn name(&self) -> &'static str {
        "vma.c"
    }

    fn is_system(&self) -> bool {
        true
    }

    fn prepare(&mut self, round: &Round) {
        self.round = match round {
            Round::Do(ops) => {
                Prepared::Do(Program::new(ops).expect("the library knows these operations"))
            }
            Round::Find(addrs) => Prepared::Find(addrs.clone()),
        };
    }

    fn run(&mut self) -> Result<u64, String> {
        match &self.round {
            Prepared::Do(program) => {
                self.counters = self.kernel.perform(program)?;
                Ok(0)
            }
            Prepared::Find(addrs) => self.kernel.find(addrs),
        }
    }

    fn counters(&self) -> Option<Counters> {
        Some(self.counters)
    }

    fn discard(&mut self) -> usize {
        let bytes = self.kernel.memory();
        self.kernel.reset(&Limits::default(), &files());
        bytes as usize
    }
}

/// What a map of ranges is asked for.
enum Change {
    Insert(Range<u64>, Prot),
    Remove(Range<u64>),
}

impl Change {
    fn of(op: &Op) -> Self {
        match *op {
            Op::Mmap(Mmap {
                addr, len, prot, ..
            })
            | Op::Mprotect { addr, len, prot } => Self::Insert(addr..addr + len, prot),
            Op::Munmap { addr, len } => Self::Remove(addr..addr + len),
            _ => unreachable!("work of other operations is not for maps of ranges"),
        }
    }
}

enum Changes {
    Do(Vec<Change>),
    Find(Vec<u64>),
}

impl Changes {
    fn of(round: &Round) -> Self {
        match round {
            Round::Do(ops) => Self::Do(ops.iter().map(Change::of).collect()),
            Round::Find(addrs) => Self::Find(addrs.clone()),
        }
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::Do(Vec::new())
    }
}

/// A map of ranges, and what is next.
#[derive(Default)]
struct Mapping<M> {
    map: M,
    round: Changes,
}

impl<M> Mapping<M> {
    fn run(
        &mut self,
        insert: impl Fn(&mut M, Range<u64>, Prot),
        remove: impl Fn(&mut M, Range<u64>),
        start: impl Fn(&M, u64) -> u64,
    ) -> u64 {
        let Self { map, round } = self;
        match round {
            Changes::Do(changes) => {
                for change in changes {
                    match change {
                        Change::Insert(range, prot) => insert(map, range.clone(), *prot),
                        Change::Remove(range) => remove(map, range.clone()),
                    }
                }
                0
            }
            Changes::Find(addrs) => {
                let starts = addrs.iter().map(|addr| start(map, *addr));
                starts.fold(0, u64::wrapping_add)
            }
        }
    }
}

/// The model's container alone, without what a system call does.
#[derive(Default)]
pub(crate) struct Tree(Mapping<BTree>);

impl Tree {
    /// Cuts an area in two at `at`, if one goes across.
    fn cut(areas: &mut BTree, at: u64) {
        if let Some(&Vma { start, pgoff, .. }) = areas.find(at).filter(|vma| vma.start < at) {
            areas.split(start, at, pgoff);
        }
    }

    fn remove(areas: &mut BTree, range: Range<u64>) {
        Self::cut(areas, range.start);
        Self::cut(areas, range.end);
        areas.remove_range(range, |_| {});
    }

    fn insert(areas: &mut BTree, range: Range<u64>, prot: Prot) {
        Self::remove(areas, range.clone());
        let mut vma = Vma::new(range.clone(), 0, VmFlags(prot.0.into()), Object::Anon);
        let prev = areas.prev(range.start);
        if let Some(prev) = prev.filter(|prev| prev.end == range.start && prev.flags == vma.flags) {
            vma.start = prev.start;
        }
        let next = areas.find(range.end);
        if let Some(next) = next.filter(|next| next.start == range.end && next.flags == vma.flags) {
            vma.end = next.end;
        }
        if (vma.start..vma.end) == range {
            areas.insert(vma);
        } else {
            areas.join(vma);
        }
    }
}

impl Subject for Tree {
    fn name(&self) -> &'static str {
        "BTree"
    }

    fn is_system(&self) -> bool {
        false
    }

    fn prepare(&mut self, round: &Round) {
        self.0.round = Changes::of(round);
    }

    fn run(&mut self) -> Result<u64, String> {
        Ok(self.0.run(Self::insert, Self::remove, |areas, addr| {
            areas.find(addr).map_or(0, |vma| vma.start)
        }))
    }

    fn counters(&self) -> Option<Counters> {
        None
    }

    fn discard(&mut self) -> usize {
        drop_and_weigh(&mut self.0.map, BTree::default())
    }
}

/// The crate `rangemap`.
#[derive(Default)]
pub(crate) struct Ranges(Mapping<RangeMap<u64, Rights>>);

/// [`Prot`] as that crate wants it.
type Rights = u32;

impl Subject for Ranges {
    fn name(&self) -> &'static str {
        "rangemap"
    }

    fn is_system(&self) -> bool {
        false
    }

    fn prepare(&mut self, round: &Round) {
        self.0.round = Changes::of(round);
    }

    fn run(&mut self) -> Result<u64, String> {
        Ok(self.0.run(
            |map, range, prot| map.insert(range, prot.0),
            |map, range| map.remove(range),
            |map, addr| map.get_key_value(&addr).map_or(0, |(range, _)| range.start),
        ))
    }

    fn counters(&self) -> Option<Counters> {
        None
    }

    fn discard(&mut self) -> usize {
        drop_and_weigh(&mut self.0.map, RangeMap::default())
    }
}

/// Where an area ends, and its rights, by where it starts.
type PlainAreas = BTreeMap<u64, (u64, Prot)>;

/// A map of the standard library's, by hand.
#[derive(Default)]
pub(crate) struct PlainMap(Mapping<PlainAreas>);

/// Cuts an area in two at `at`, if one goes across.
fn cut(map: &mut PlainAreas, at: u64) {
    if let Some((_, area)) = map.range_mut(..at).next_back() {
        let (end, prot) = *area;
        if end > at {
            area.0 = at;
            map.insert(at, (end, prot));
        }
    }
}

fn remove(map: &mut PlainAreas, range: Range<u64>) {
    cut(map, range.start);
    cut(map, range.end);
    while let Some((&start, _)) = map.range(range.clone()).next() {
        map.remove(&start);
    }
}

fn insert(map: &mut PlainAreas, mut range: Range<u64>, prot: Prot) {
    remove(map, range.clone());
    if map.get(&range.end).is_some_and(|next| next.1 == prot) {
        range.end = map.remove(&range.end).map_or(range.end, |next| next.0);
    }
    match map.range_mut(..range.start).next_back() {
        Some((_, prev)) if *prev == (range.start, prot) => prev.0 = range.end,
        _ => {
            map.insert(range.start, (range.end, prot));
        }
    }
}

impl Subject for PlainMap {
    fn name(&self) -> &'static str {
        "BTreeMap"
    }

    fn is_system(&self) -> bool {
        false
    }

    fn prepare(&mut self, round: &Round) {
        self.0.round = Changes::of(round);
    }

    fn run(&mut self) -> Result<u64, String> {
        Ok(self.0.run(insert, remove, |map, addr| {
            let area = map.range(..=addr).next_back();
            area.filter(|(_, (end, _))| *end > addr)
                .map_or(0, |(start, _)| *start)
        }))
    }

    fn counters(&self) -> Option<Counters> {
        None
    }

    fn discard(&mut self) -> usize {
        drop_and_weigh(&mut self.0.map, BTreeMap::new())
    }
}
