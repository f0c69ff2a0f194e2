// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Oracle`]: what answers for real. The runner knows nothing else of it.

use std::ops::Range;

use vmalab_model::{Area, Break, Counters, File, Limits, Op, Outcome, VmFlags};

bitflags::bitflags! {
    /// Which parts of an [`Outcome`] somebody saw. Parts that were not seen are not compared.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fields: u32 {
        /// The value or the error.
        const RESULT = 1 << 0;
        /// Where areas begin and end.
        const RANGES = 1 << 1;
        /// Their flags, as far as [`Sees::flags`] goes.
        const FLAGS = 1 << 2;
        /// Which object they map.
        const OBJECTS = 1 << 3;
        /// From which offset on, where they map an object.
        const OFFSETS = 1 << 4;
        /// The offset of private anonymous memory too.
        const ANON_OFFSETS = 1 << 5;
        /// The number of areas of the whole address space.
        const MAP_COUNT = 1 << 6;
        /// The other counters.
        const COUNTERS = 1 << 7;
        /// Each hook call, in order, with its arguments.
        const HOOKS = 1 << 8;
        /// Which areas share an `anon_vma`, and which have one.
        const ANON_VMAS = 1 << 9;
        /// What anonymous memory is called.
        const NAMES = 1 << 10;
        /// What was discarded.
        const DISCARDED = 1 << 11;
        /// Of a hook that is asked about a part of an area, the area too.
        const HOOK_AREAS = 1 << 12;
        /// The numbers of `anon_vma`s mean the same in all of a batch.
        const ANON_VMAS_LAST = 1 << 13;
        /// What pages hold.
        const CONTENTS = 1 << 14;
        /// The signal of a touch.
        const SIGNALS = 1 << 15;
        /// How much memory has been promised.
        const COMMITTED = 1 << 16;
        /// The most pages that there ever were.
        const PEAK = 1 << 17;
    }
}

/// What an oracle can see at best; [`Observation::fields`] says what it saw of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Sees {
    /// The fields.
    pub fields: Fields,
    /// The area flags among [`Fields::FLAGS`].
    pub flags: VmFlags,
}

/// What was seen of one operation.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What was seen, in the model's words. Fields that were not seen hold anything.
    pub outcome: Outcome,
    /// Which fields were seen.
    pub fields: Fields,
    /// Which of the areas' flags were seen, of those that [`Sees::flags`] has.
    pub flags: VmFlags,
    /// The areas that were looked at: those that touch this range, and a window of the world.
    pub looked: Range<u64>,
    /// Of each area of the whole address space, a number for its `anon_vma`, 0 for none; empty where that
    /// is not seen. The numbers mean nothing but whether areas share one, so that they are not compared.
    pub anon_vmas: Vec<u32>,
    /// The first eight bytes of pages: of those that were read.
    pub contents: Vec<(u64, u64)>,
}

impl Default for Observation {
    fn default() -> Self {
        Self {
            outcome: Outcome::default(),
            fields: Fields::empty(),
            flags: VmFlags(u64::MAX),
            looked: 0..u64::MAX,
            anon_vmas: Vec::new(),
            contents: Vec::new(),
        }
    }
}

/// A file that operations can name, by its place in [`World::files`].
#[derive(Clone, Debug)]
pub struct NamedFile {
    /// For people.
    pub name: String,
    /// For the model.
    pub file: File,
}

/// The heap of a world. What there is of it at the start stays.
#[derive(Clone, Debug)]
pub struct Heap {
    /// Where it begins and ends at the start.
    pub start: Break,
    /// Where it may grow, from its end at the start on, in whole pages. Empty at the start.
    pub window: Range<u64>,
}

/// Where every batch of an oracle starts from.
#[derive(Clone, Debug)]
pub struct World {
    /// For people: `"plain"`, or how it is special.
    pub name: String,
    /// One batch of so many is played here.
    pub every: u64,
    /// The areas that are there.
    pub areas: Vec<Area>,
    /// The counters, which the model derives itself; they are compared before the first operation.
    pub counters: Counters,
    /// The files.
    pub files: Vec<NamedFile>,
    /// What the machine and the administrator allow.
    pub limits: Limits,
    /// Where operations with an address of their own happen. Empty at the start.
    pub arena: Range<u64>,
    /// The heap, if operations may move its end.
    pub heap: Option<Heap>,
    /// Whether all that is mapped may be locked.
    pub locks_all: bool,
    /// Where the kernel puts what it chooses the address of. Empty at the start. `None`: it is not
    /// known, so such operations are not generated.
    pub chosen: Option<Range<u64>>,
    /// Where addresses below 2 GiB are chosen (`MAP_32BIT`). Empty at the start.
    pub low: Option<Range<u64>>,
    /// Whether what is deprecated is tried, of which a kernel warns in its log: `remap_file_pages`, and
    /// private memory that `mremap` would duplicate.
    pub deprecated: bool,
    /// Whether areas get memory policies: the model knows of machines with one memory node.
    pub policies: bool,
    /// Whether there is memory of huge pages (`MAP_HUGETLB`), of 2 MiB each, and a pool without any.
    pub huge: bool,
    /// Whether the kernel's own allocations can be made to fail.
    pub fails: bool,
    /// Whether drivers can be told to refuse.
    pub steers: bool,
}

impl World {
    /// The parts of the address space in which areas are observed, by address.
    pub fn windows(&self) -> Vec<Range<u64>> {
        let mut windows = vec![self.arena.clone()];
        windows.extend(self.chosen.clone());
        windows.extend(self.low.clone());
        windows.extend(self.heap.as_ref().map(|heap| heap.window.clone()));
        windows.sort_by_key(|window| window.start);
        windows
    }

    /// From the begin of the first window to the end of the last.
    pub fn hull(&self) -> Range<u64> {
        let heap = self.heap.as_ref().map(|heap| &heap.window);
        let others = self.chosen.iter().chain(&self.low).chain(heap);
        others.fold(self.arena.clone(), |hull, window| {
            hull.start.min(window.start)..hull.end.max(window.end)
        })
    }

    /// Whether an area touches one of the windows.
    pub fn observes(&self, area: &Area) -> bool {
        let touches = |window: &Range<u64>| area.start < window.end && area.end > window.start;
        touches(&self.arena)
            || self.chosen.as_ref().is_some_and(touches)
            || self.low.as_ref().is_some_and(touches)
            || self.heap.as_ref().is_some_and(|heap| touches(&heap.window))
    }
}

/// Why an oracle could not answer.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// This machine does not offer what it takes. Not a finding.
    #[error("{0}")]
    Environment(String),
    /// The process that did the operations died, hung, or answered what no model can.
    /// That is a finding.
    #[error("operation {index}: {what}")]
    Broke {
        /// Which operation of the batch it was doing.
        index: usize,
        /// What happened.
        what: String,
    },
}

impl OracleError {
    /// A system call that this machine refused.
    pub(crate) fn system(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Environment(format!("{what}: {error}"))
    }
}

/// Applies operations and says what it saw.
pub trait Oracle {
    /// Its name and what it stands on, as in `host (Linux 6.18.44)`.
    fn name(&self) -> String;

    /// What it can see.
    fn sees(&self) -> Sees;

    /// The worlds that a batch can start from; the first is the usual one.
    fn worlds(&self) -> &[World];

    /// Of each edge of its code whether it was taken since it was made, not 0 if so; empty where it does not
    /// know. What runs beside it (another copy of the same library) has the same edges.
    fn edges(&self) -> &[u8] {
        &[]
    }

    /// What it set right since it was last asked, and how often: names of [`KNOWN`](crate::known::KNOWN).
    fn excused(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Whether all that can be seen is looked at after each operation, however long that takes. Without
    /// that an oracle may look closely now and then only.
    fn look_closely(&mut self, _closely: bool) {}

    /// Applies `ops` in a fresh copy of that world: `seen[i]` becomes what was seen of `ops[i]`.
    /// `seen` is given so that its memory can be used again; it ends up as long as `ops`.
    ///
    /// # Errors
    /// See [`OracleError`]. What was seen before the error is in `seen`.
    fn run(
        &mut self,
        world: usize,
        ops: &[Op],
        seen: &mut Vec<Observation>,
    ) -> Result<(), OracleError>;
}
