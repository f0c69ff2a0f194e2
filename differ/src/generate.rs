// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Generator`]: random operations, weighted so that boundaries meet.
//!
//! Few pages, few kinds of area and few protections in one batch, addresses mostly at the edges of what
//! is there: so that cuts, merges and replacements happen all the time instead of never. A few per cent
//! of the operations carry bad arguments.
//!
//! Everything follows from a seed, the number of the batch, [`VERSION`] and the world. The random numbers
//! are ChaCha8 (`rand_chacha`, whose values are stable) with the seed as its key and the batch as its
//! stream; ranges are drawn by multiplication, so that no library update changes a sequence. Or it follows
//! from bytes, by which a fuzzer makes the same choices.

use std::num::NonZeroU8;
use std::ops::Range;

use vmalab_model::mempolicy::{mode, pages};
use vmalab_model::{
    Advice, Allocation, Area, Asked, Backing, Errno, FileId, MapFlags, MdweFlags, MlockFlags,
    MlockallFlags, Mmap, MremapFlags, Name, NewName, Object, Op, Outcome, PAGE_SIZE, PMD_SIZE,
    Prot, ShmFlags, VmFlags, file::Kind,
};

use crate::choices::Choices;
use crate::oracle::{Heap, World};

/// Changes whenever the same seed gives other operations than before.
pub const VERSION: u32 = 9;

/// What is mapped, and how.
#[derive(Clone, Copy)]
struct Source {
    sharing: MapFlags,
    file: Option<FileId>,
}

/// Makes the operations of one batch.
pub struct Generator {
    choices: Choices,
    /// First byte and number of pages in play, at most those of the arena.
    base: u64,
    pages: u64,
    task_size: u64,
    /// Whether operations may leave the address to the kernel.
    chooses: bool,
    sources: Vec<Source>,
    /// Files that nobody may map.
    refused: Vec<FileId>,
    /// Segments, and how many pages they have.
    segments: Vec<(FileId, u64)>,
    protections: Vec<Prot>,
    /// Flags beside the necessary ones that this batch may use.
    extras: Vec<MapFlags>,
    /// Whether private anonymous memory is now and then a stack.
    stacks: bool,
    /// Whether areas may be sealed, memory be denied to those who would execute it, and all be locked.
    seals: bool,
    /// Whether areas get protection keys.
    keys: bool,
    denies: bool,
    locks_all: bool,
    deprecated: bool,
    /// Whether addresses below 2 GiB may be asked for.
    low: bool,
    policies: bool,
    huge: bool,
    fails: bool,
    /// Drivers in play that can be told to refuse.
    drivers: Vec<FileId>,
    heap: Option<Heap>,
    /// The advice that this batch prefers.
    advice: Advice,
    /// What was last seen in the windows.
    layout: Vec<Area>,
}

/// The protections worth trying, the common ones first.
const PROTECTIONS: [Prot; 6] = [
    Prot(Prot::READ.0 | Prot::WRITE.0),
    Prot::READ,
    Prot(0),
    Prot(Prot::READ.0 | Prot::EXEC.0),
    Prot(Prot::READ.0 | Prot::WRITE.0 | Prot::EXEC.0),
    Prot::WRITE,
];

/// Flags that may go with any mapping.
const EXTRAS: [MapFlags; 9] = [
    MapFlags::LOCKED,
    MapFlags::NORESERVE,
    MapFlags::POPULATE,
    MapFlags::NONBLOCK,
    MapFlags::STACK,
    MapFlags::DENYWRITE,
    MapFlags::EXECUTABLE,
    MapFlags::SYNC,
    MapFlags::ABOVE4G,
];

/// What `MAP_SHARED` ignores or knows, and `MAP_SHARED_VALIDATE` refuses if the file does not know it: the last two.
const VALIDATED: [MapFlags; 6] = [
    MapFlags::empty(),
    MapFlags::NORESERVE,
    MapFlags::UNINITIALIZED,
    MapFlags::HUGE_2MB,
    MapFlags::SYNC,
    MapFlags(1 << 25),
];

impl Generator {
    /// For that batch of a run in that world.
    pub fn new(seed: u64, batch: u64, world: &World) -> Self {
        Self::choosing(Choices::seeded(seed, batch), world)
    }

    /// In that world, by choices that follow from bytes: arbitrary ones, of which a fuzzer finds out which lead
    /// somewhere.
    pub fn from_bytes(bytes: &[u8], world: &World) -> Self {
        Self::choosing(Choices::of(bytes), world)
    }

    /// Whether the bytes that it was made from are all used.
    pub fn is_exhausted(&self) -> bool {
        self.choices.is_exhausted()
    }

    fn choosing(choices: Choices, world: &World) -> Self {
        let all = (world.arena.end - world.arena.start) / PAGE_SIZE;
        let mut new = Self {
            choices,
            base: world.arena.start,
            pages: all,
            task_size: world.limits.task_size,
            chooses: world.chosen.is_some(),
            sources: Vec::new(),
            refused: Vec::new(),
            segments: Vec::new(),
            protections: Vec::new(),
            extras: Vec::new(),
            stacks: false,
            seals: false,
            keys: false,
            denies: false,
            locks_all: world.locks_all,
            deprecated: world.deprecated,
            low: world.low.is_some(),
            policies: world.policies,
            huge: world.huge,
            fails: world.fails,
            drivers: Vec::new(),
            heap: world.heap.clone(),
            advice: Advice::NORMAL,
            layout: Vec::new(),
        };
        new.pages = all.min(new.choices.pick(&[6, 12, 24, all]));

        let mut sources = vec![
            Source {
                sharing: MapFlags::PRIVATE,
                file: None,
            },
            Source {
                sharing: MapFlags::PRIVATE,
                file: None,
            },
            Source {
                sharing: MapFlags::SHARED,
                file: None,
            },
            Source {
                sharing: MapFlags::DROPPABLE,
                file: None,
            },
        ];
        for (index, file) in world.files.iter().enumerate() {
            if file.file.kind == Kind::Segment {
                new.segments.push((FileId(index as u16), file.file.pages));
                continue;
            }
            if file.file.kind == Kind::Unmappable || !file.file.read {
                new.refused.push(FileId(index as u16));
                continue;
            }
            let file_id = Some(FileId(index as u16));
            // A device is what a run with a device is about.
            let weight = if file.file.kind == Kind::Device { 3 } else { 1 };
            for _ in 0..weight {
                for sharing in [MapFlags::SHARED, MapFlags::PRIVATE] {
                    sources.push(Source {
                        sharing,
                        file: file_id,
                    });
                }
            }
        }
        // The fewer kinds there are, the more merges.
        let uniform = new.one_in(4);
        for _ in 0..if uniform { 1 } else { 2 + new.below(4) } {
            new.sources.push(new.choices.pick(&sources));
        }
        for _ in 0..if uniform { 1 } else { 1 + new.below(3) } {
            // The product favours the first ones.
            let last = PROTECTIONS.len() as u64;
            let index = new.below(last) * new.below(last) / last;
            let index = if uniform { 0 } else { index };
            new.protections.push(PROTECTIONS[index as usize]);
        }
        if world.steers {
            let drivers = new.sources.iter().filter_map(|source| source.file);
            new.drivers = drivers
                .filter(|id| world.files[usize::from(id.0)].file.kind == Kind::Device)
                .collect();
        }
        new.seals = new.one_in(4);
        new.keys = world.limits.pkeys && new.one_in(2);
        new.denies = new.one_in(4);
        new.advice = new.choices.pick(Advice::ALL);
        if new.one_in(2) {
            new.extras.push(new.choices.pick(&EXTRAS));
        }
        new.stacks = new.one_in(4);
        if new.stacks {
            new.sources.push(Source {
                sharing: MapFlags::PRIVATE,
                file: None,
            });
        }
        new
    }

    /// The next operation.
    pub fn op(&mut self) -> Op {
        if self.fails && self.one_in(4) {
            return Op::FailAllocation {
                // What the kernel's mm/vma.c allocates by itself.
                what: self
                    .choices
                    .pick(&[Allocation::Area, Allocation::Tree, Allocation::AnonVma]),
                // In most operations there are one or two.
                nth: self.choices.pick(&[1, 1, 1, 2, 2, 3, 4]),
            };
        }
        if self.keys && self.one_in(12) {
            return self.pkey();
        }
        if !self.drivers.is_empty() && self.one_in(8) {
            return self.steer();
        }
        match self.below(100) {
            0..6 => self.mmap_beside().unwrap_or_else(|| self.mmap()),
            6..32 => self.mmap(),
            32..50 => self.munmap(),
            50..66 => self.touch(),
            66..77 => self.mprotect(),
            77..86 => self.mremap(),
            86..91 => self.mlock(),
            91 => self.rarely(),
            92 if self.deprecated => self.remap_file_pages(),
            93 if self.seals => self.mseal(),
            95 => self.set_name(),
            96 if self.policies => self.mbind(),
            97 if !self.segments.is_empty() => self.shm(),
            94 => match self.heap.clone() {
                Some(heap) => self.brk(&heap),
                None => self.madvise(),
            },
            _ => self.madvise(),
        }
    }

    /// Tells what the last operation will have done, so that the next ones can aim.
    pub fn learn(&mut self, outcome: &Outcome) {
        self.layout.clear();
        // Where the guard page of a stack is left out, that may have been all of it.
        let layout = outcome.layout.iter().filter(|area| area.start < area.end);
        self.layout.extend(layout);
    }

    fn mmap(&mut self) -> Op {
        let source = self.choices.pick(&self.sources);
        let prot = self.choices.pick(&self.protections);
        let (addr, mut len) = self.range();
        let mut mmap = Mmap {
            addr,
            len,
            prot,
            flags: source.sharing,
            backing: match source.file {
                Some(file) => Backing::File(file),
                None => Backing::None,
            },
            offset: 0,
        };
        if source.file.is_none() {
            mmap.flags |= MapFlags::ANONYMOUS;
        } else {
            // The offset follows the address, so that neighbours can merge; mostly.
            mmap.offset = addr.wrapping_sub(self.base) % (self.pages * PAGE_SIZE);
            if self.one_in(8) {
                mmap.offset = self.below(self.pages) * PAGE_SIZE;
            }
        }
        for index in 0..self.extras.len() {
            if self.one_in(3) {
                mmap.flags |= self.extras[index];
            }
        }
        match self.below(100) {
            0..66 => mmap.flags |= MapFlags::FIXED,
            66..78 => mmap.flags |= MapFlags::FIXED_NOREPLACE,
            78..86 if self.chooses => {
                // A hint; a bad one is rounded or ignored.
                if self.one_in(4) {
                    mmap.addr += self.below(PAGE_SIZE);
                }
            }
            86.. if self.chooses => {
                mmap.addr = 0;
                if self.low && self.one_in(8) {
                    mmap.flags |= MapFlags::BIT32;
                }
            }
            _ => mmap.flags |= MapFlags::FIXED,
        }
        let anonymous = mmap.backing == Backing::None;
        if self.stacks && anonymous && source.sharing == MapFlags::PRIVATE && self.one_in(2) {
            mmap.flags |= MapFlags::GROWSDOWN;
        }
        if self.huge && self.chooses && anonymous && self.one_in(16) {
            // Larger than the window, so that the kernel chooses where.
            mmap.addr = 0;
            mmap.flags = mmap
                .flags
                .without(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE | MapFlags::GROWSDOWN);
            mmap.flags |= MapFlags::HUGETLB;
            if !self.one_in(8) {
                mmap.flags |= MapFlags::NORESERVE;
            }
            len = self
                .choices
                .pick(&[PAGE_SIZE, PMD_SIZE, PMD_SIZE, 2 * PMD_SIZE]);
            mmap.len = len;
        } else if self.one_in(24) {
            self.make_unusual(&mut mmap);
        }
        if self.one_in(20) {
            match self.below(9) {
                0 => len = 0,
                1 => len -= self.below(PAGE_SIZE - 1) + 1,
                2 => len = self.overlong(addr),
                3 => mmap.addr += self.below(PAGE_SIZE - 1) + 1,
                4 => mmap.offset += self.below(PAGE_SIZE - 1) + 1,
                5 => mmap.offset = u64::MAX - PAGE_SIZE * (1 + self.below(4)) + 1,
                6 => mmap.backing = Backing::None,
                7 => mmap.flags = mmap.flags.without(MapFlags::SHARED | MapFlags::PRIVATE),
                _ => mmap.flags |= MapFlags::SHARED | MapFlags::PRIVATE,
            }
            mmap.len = len;
        }
        Op::Mmap(mmap)
    }

    /// What is refused for the kind of file, or with that kind of sharing; or what not all files know.
    fn make_unusual(&mut self, mmap: &mut Mmap) {
        let untyped = mmap.flags.without(MapFlags::TYPE);
        let other = self.choices.pick(&VALIDATED);
        match self.below(8) {
            0..3 if !self.refused.is_empty() => {
                mmap.backing = Backing::File(self.choices.pick(&self.refused));
                mmap.flags = mmap.flags.without(MapFlags::ANONYMOUS);
            }
            3 => mmap.flags = untyped | MapFlags::SHARED | MapFlags::GROWSDOWN,
            4 => mmap.flags = untyped | MapFlags::SHARED | other,
            5 if mmap.backing != Backing::None => mmap.flags |= MapFlags::HUGETLB,
            _ => mmap.flags = untyped | MapFlags::SHARED_VALIDATE | other,
        }
    }

    /// More of the same right above an area, mostly just as much as fits below the next one: what
    /// merges, or just does not.
    fn mmap_beside(&mut self) -> Option<Op> {
        let index = self.below(self.layout.len().max(1) as u64) as usize;
        let area = *self.layout.get(index).filter(|area| self.plays(area))?;
        let end = self.base + self.pages * PAGE_SIZE;
        let next = self
            .layout
            .get(index + 1)
            .map_or(end, |next| next.start.min(end));
        let room = next.checked_sub(area.end)? / PAGE_SIZE;
        let pages = match room {
            0 => return None,
            1..=8 if !self.one_in(4) => room,
            _ => 1 + self.below(room.min(4)),
        };
        let has = |flag, then| {
            if area.flags.contains(flag) {
                then
            } else {
                MapFlags::empty()
            }
        };
        let shared = area.flags.contains(VmFlags::MAYSHARE);
        let (backing, anonymous) = match area.object {
            Object::File(file) => (Backing::File(file), MapFlags::empty()),
            _ => (Backing::None, MapFlags::ANONYMOUS),
        };
        Some(Op::Mmap(Mmap {
            addr: area.end,
            len: pages * PAGE_SIZE,
            // VM_READ, WRITE and EXEC have the values of their PROT_ flags.
            prot: Prot((area.flags.0 & 7) as u32),
            flags: MapFlags::FIXED
                | anonymous
                | if shared {
                    MapFlags::SHARED
                } else {
                    MapFlags::PRIVATE
                }
                | has(VmFlags::LOCKED, MapFlags::LOCKED)
                | has(VmFlags::NORESERVE, MapFlags::NORESERVE)
                | has(VmFlags::NOHUGEPAGE, MapFlags::STACK),
            backing,
            offset: match area.object {
                // It may be past the last one.
                Object::File(_) => area.offset.wrapping_add(area.end - area.start),
                _ => 0,
            },
        }))
    }

    fn munmap(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        if self.one_in(20) {
            match self.below(4) {
                0 => len = 0,
                1 => len -= self.below(PAGE_SIZE - 1) + 1,
                2 => len = self.overlong(addr),
                _ => addr += self.below(PAGE_SIZE - 1) + 1,
            }
        }
        Op::Munmap { addr, len }
    }

    /// What changes all that follows, so that there should not be too much of it.
    fn rarely(&mut self) -> Op {
        match self.below(8) {
            // A forked child's areas merge less.
            0..4 => Op::Fork,
            4 if self.locks_all => Op::Mlockall {
                flags: MlockallFlags(self.below(9) as u32),
            },
            5 if self.denies => Op::SetMdwe {
                bits: self.choices.pick(&[
                    MdweFlags::REFUSE_EXEC_GAIN,
                    MdweFlags::REFUSE_EXEC_GAIN,
                    MdweFlags(3),
                    MdweFlags::NO_INHERIT,
                    MdweFlags(0),
                    MdweFlags(4),
                ]),
            },
            6 => Op::PkeyMprotect {
                addr: self.page(),
                len: PAGE_SIZE * (1 + self.below(4)),
                prot: self.choices.pick(&PROTECTIONS),
                pkey: self.choices.pick(&[0, 0, -1, 1, 16]),
            },
            _ => Op::Munlockall,
        }
    }

    /// A key comes, goes, or is used. Key 0 does not go: without it a program has no memory that it can use.
    fn pkey(&mut self) -> Op {
        match self.below(8) {
            0 => Op::PkeyFree {
                pkey: self.choices.pick(&[1, 1, 2, 2, 3, -1, 16]),
            },
            1 | 2 => Op::PkeyAlloc {
                flags: self.one_in(16).into(),
                rights: self.choices.pick(&[0, 0, 0, 0, 1, 2, 3, 4]),
            },
            _ => self.pkey_mprotect(),
        }
    }

    fn pkey_mprotect(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        if self.one_in(24) {
            self.spoil(&mut addr, &mut len);
        }
        Op::PkeyMprotect {
            addr,
            len,
            prot: if self.one_in(4) {
                Prot::EXEC
            } else {
                self.choices.pick(&PROTECTIONS)
            },
            pkey: self.choices.pick(&[1, 1, 1, 2, 2, 3, 0, -1, 15, 16]),
        }
    }

    /// A driver is told to refuse, mostly what is asked soon. Cuts are asked for most often, and twice by one
    /// operation.
    fn steer(&mut self) -> Op {
        let hooks = [
            Asked::MaySplit,
            Asked::MaySplit,
            Asked::MaySplit,
            Asked::MaySplit,
            Asked::Mmap,
            Asked::Mmap,
            Asked::Mapped,
            Asked::Mremap,
            Asked::Mremap,
            Asked::Mprotect,
        ];
        let errors = [
            Errno::EINVAL,
            Errno::ENOMEM,
            Errno::EBUSY,
            Errno::EAGAIN,
            Errno::EPERM,
            Errno::EIO,
        ];
        Op::Steer {
            file: Backing::File(self.choices.pick(&self.drivers)),
            hook: self.choices.pick(&hooks),
            nth: self.choices.pick(&[1, 1, 1, 2, 2, 3, 4, 0]),
            error: self.choices.pick(&errors),
        }
    }

    fn mseal(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        let mut flags = 0;
        if self.one_in(10) {
            flags = self.below(2);
            self.spoil(&mut addr, &mut len);
        }
        Op::Mseal { addr, len, flags }
    }

    fn set_name(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        let names = [1, 1, 2].map(|number| NonZeroU8::new(number).map(Name));
        let mut name = match self.choices.pick(&names) {
            Some(name) if !self.one_in(3) => NewName::Some(name),
            _ => NewName::None,
        };
        if self.one_in(20) {
            if self.one_in(2) {
                name = NewName::Invalid;
            } else {
                self.spoil(&mut addr, &mut len);
            }
        }
        Op::SetName { addr, len, name }
    }

    fn mbind(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        let (mut mode, mut nodes) = match self.below(6) {
            0 | 1 => (mode::DEFAULT, 0),
            2 => (mode::LOCAL, 0),
            3 => (mode::INTERLEAVE, 1),
            _ => (mode::BIND, 1),
        };
        let mut flags = 0;
        if self.one_in(6) {
            match self.below(6) {
                0 => mode = self.below(9) as u32,
                1 => nodes = self.below(4),
                2 => mode |= mode::STATIC_NODES,
                3 => mode |= self.choices.pick(&[mode::RELATIVE_NODES, 3 << 14]),
                4 => flags = 1 << 10,
                _ => self.spoil(&mut addr, &mut len),
            }
        } else if self.one_in(6) {
            // Pages that are not on nodes that were named are an error then. All are on the first one.
            let strict = if nodes & 1 != 0 || mode == mode::DEFAULT {
                pages::STRICT
            } else {
                0
            };
            flags = self.choices.pick(&[
                strict,
                pages::MOVE,
                pages::MOVE_ALL,
                strict | pages::MOVE,
                strict | pages::MOVE_ALL,
            ]);
        }
        Op::Mbind {
            addr,
            len,
            mode,
            nodes,
            flags,
        }
    }

    /// A segment comes or goes.
    fn shm(&mut self) -> Op {
        let segments = &self.segments;
        let of = |area: &&Area| {
            segments
                .iter()
                .any(|&(id, _)| area.object == Object::File(id))
        };
        let attached: Vec<Area> = self.layout.iter().filter(of).copied().collect();
        if self.one_in(3) {
            let mut addr = self.page();
            if !attached.is_empty() && !self.one_in(8) {
                let area = self.choices.pick(&attached);
                addr = area.start.wrapping_sub(area.offset);
            }
            if self.one_in(20) {
                addr += 1;
            }
            return Op::Shmdt { addr };
        }
        let (segment, pages) = self.choices.pick(&self.segments);
        let mut flags = ShmFlags::empty();
        for flag in [ShmFlags::RDONLY, ShmFlags::EXEC, ShmFlags::REMAP] {
            if self.one_in(4) {
                flags |= flag;
            }
        }
        // Not out of what is observed.
        let last = self.base + self.pages.saturating_sub(pages) * PAGE_SIZE;
        let mut addr = self.page().min(last);
        if self.chooses && self.one_in(4) {
            addr = 0;
        } else if self.one_in(6) {
            addr += self.below(PAGE_SIZE);
            if self.one_in(2) {
                flags |= ShmFlags::RND;
            }
        }
        Op::Shmat {
            segment,
            addr,
            flags,
        }
    }

    fn remap_file_pages(&mut self) -> Op {
        let (mut addr, mut len) = self.range();
        let shared = self.layout.iter().filter(|area| {
            area.flags.contains(VmFlags::MAYSHARE) && self.in_play(area.start) && self.plays(area)
        });
        let shared: Vec<Area> = shared.copied().collect();
        if !shared.is_empty() && !self.one_in(6) {
            let area = self.choices.pick(&shared);
            let pages = (area.end - area.start) / PAGE_SIZE;
            let skip = self.below(pages);
            addr = area.start + skip * PAGE_SIZE;
            len = PAGE_SIZE * (1 + self.below(pages - skip));
        }
        let mut prot = Prot::empty();
        let mut pgoff = self.below(self.pages);
        if self.one_in(16) {
            match self.below(5) {
                0 => prot = Prot::READ,
                1 => pgoff = u64::MAX,
                2 => len = self.below(PAGE_SIZE),
                3 => len = u64::MAX - self.below(2 * PAGE_SIZE),
                _ => addr += self.below(PAGE_SIZE),
            }
        }
        Op::RemapFilePages {
            addr,
            len,
            prot,
            pgoff,
            flags: self
                .choices
                .pick(&[MapFlags::empty(), MapFlags::NONBLOCK, MapFlags::PRIVATE]),
        }
    }

    /// The end of the heap, up and down, but never into what was there at the start.
    fn brk(&mut self, heap: &Heap) -> Op {
        let Range { start, end } = heap.window;
        let pages = ((end - start) / PAGE_SIZE).min(24);
        let addr = match self.below(12) {
            0 => heap.start.start.saturating_sub(1 + self.below(PAGE_SIZE)),
            1 => self
                .choices
                .pick(&[0, u64::MAX, u64::MAX - PAGE_SIZE, 1 << 47]),
            2 => heap.start.end,
            _ => start + self.below(pages) * PAGE_SIZE + self.choices.pick(&[0, 0, 1, 100]),
        };
        Op::Brk { addr }
    }

    /// A range in play, or now and then a part of an area that the kernel placed.
    fn range_of_any(&mut self) -> (u64, u64) {
        if self.one_in(6) {
            let outside = self.layout.iter().filter(|area| !self.plays(area)).copied();
            let outside: Vec<Area> = outside.collect();
            if !outside.is_empty() {
                let area = self.choices.pick(&outside);
                let pages = (area.end - area.start) / PAGE_SIZE;
                let skip = self.below(pages);
                let count = 1 + self.below(pages - skip);
                return (area.start + skip * PAGE_SIZE, count * PAGE_SIZE);
            }
        }
        self.range()
    }

    /// Spoils a range that ends at the next hole at the latest.
    fn spoil(&mut self, addr: &mut u64, len: &mut u64) {
        match self.below(4) {
            0 => *len = 0,
            1 => *len -= self.below(PAGE_SIZE - 1) + 1,
            2 if self.in_play(*addr) => *len = self.overlong(*addr),
            _ => *addr += self.below(PAGE_SIZE - 1) + 1,
        }
    }

    fn mprotect(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        let mut prot = self.choices.pick(&self.protections);
        if self.keys && self.one_in(4) {
            prot = Prot::EXEC;
        }
        if self.one_in(3) {
            prot = self.choices.pick(&PROTECTIONS);
        }
        if self.one_in(16) {
            prot |= self
                .choices
                .pick(&[Prot::GROWSDOWN, Prot::GROWSUP, Prot(8), Prot(1 << 4)]);
        }
        if self.one_in(24) {
            self.spoil(&mut addr, &mut len);
        }
        Op::Mprotect { addr, len, prot }
    }

    fn mlock(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        if self.one_in(24) {
            self.spoil(&mut addr, &mut len);
        }
        match self.below(5) {
            0 | 1 => Op::Munlock { addr, len },
            2 => Op::Mlock {
                addr,
                len,
                flags: self.choices.pick(&[
                    MlockFlags::ONFAULT,
                    MlockFlags::ONFAULT,
                    MlockFlags(2),
                ]),
            },
            _ => Op::Mlock {
                addr,
                len,
                flags: MlockFlags::empty(),
            },
        }
    }

    fn madvise(&mut self) -> Op {
        let (mut addr, mut len) = self.range_of_any();
        let mut advice = if self.one_in(2) {
            self.advice
        } else {
            self.choices.pick(Advice::ALL)
        };
        if self.one_in(24) {
            // An overlong range would reach all that there is.
            match self.below(5) {
                0 => len = 0,
                1 => len -= self.below(PAGE_SIZE - 1) + 1,
                2 => len = u64::MAX - self.below(2 * PAGE_SIZE),
                3 => advice = Advice(self.choices.pick(&[5, 26, 99, u32::MAX])),
                _ => addr += self.below(PAGE_SIZE - 1) + 1,
            }
        }
        Op::Madvise { addr, len, advice }
    }

    /// Mostly of what is one area, from its begin or to its end.
    fn mremap(&mut self) -> Op {
        let (mut addr, mut old_len) = self.range();
        if !self.layout.is_empty() && !self.one_in(4) {
            let area = self.choices.pick(&self.layout);
            let pages = (area.end - area.start) / PAGE_SIZE;
            let (mut skip, mut count) = (0, pages);
            match self.below(4) {
                0 => skip = self.below(pages),
                1 => count = 1 + self.below(pages),
                2 => {
                    skip = self.below(pages);
                    count = 1 + self.below(pages - skip);
                }
                _ => {}
            }
            addr = area.start + skip * PAGE_SIZE;
            old_len = count.min(pages - skip) * PAGE_SIZE;
        }
        let mut new_len = match self.below(6) {
            0 => old_len + self.below(5) * PAGE_SIZE,
            1 => PAGE_SIZE * (1 + self.below(old_len / PAGE_SIZE)),
            _ => old_len,
        };
        let (mut new_addr, _) = self.range();
        let mut flags = match self.below(10) {
            // Where it stands, if that can be.
            0 | 1 => {
                if self.one_in(2) {
                    new_len += (1 + self.below(4)) * PAGE_SIZE;
                }
                MremapFlags::empty()
            }
            2 if self.chooses => MremapFlags::MAYMOVE,
            3 if self.chooses => MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
            4 => MremapFlags::MAYMOVE | MremapFlags::FIXED | MremapFlags::DONTUNMAP,
            _ => MremapFlags::MAYMOVE | MremapFlags::FIXED,
        };
        if flags.contains(MremapFlags::DONTUNMAP) && !self.one_in(8) {
            new_len = old_len;
        }
        // Nothing grows out of what is observed, nor without end.
        let end = self.base + self.pages * PAGE_SIZE;
        let place = if flags.intersects(MremapFlags::FIXED | MremapFlags::DONTUNMAP) {
            new_addr = new_addr.min(end - new_len.min(end - self.base));
            end - new_addr
        } else if self.in_play(addr) {
            end - addr
        } else {
            24 * PAGE_SIZE
        };
        new_len = new_len.min(place);
        if self.one_in(16) && self.in_play(addr) {
            match self.below(9) {
                0 if self.deprecated => old_len = 0,
                0 | 1 => new_len = 0,
                2 => old_len -= self.below(PAGE_SIZE - 1) + 1,
                3 => old_len = self.overlong(addr),
                4 => new_len = self.overlong(addr),
                5 => addr += self.below(PAGE_SIZE - 1) + 1,
                6 => new_addr += self.below(PAGE_SIZE - 1) + 1,
                7 => new_addr = self.task_size - self.below(2) * PAGE_SIZE,
                _ => flags |= MremapFlags(1 << (3 + self.below(3))),
            }
            // What is rounded up to nothing is an old length of 0, too.
            if !self.deprecated && old_len.checked_next_multiple_of(PAGE_SIZE).is_none() {
                old_len -= PAGE_SIZE;
            }
        }
        Op::Mremap {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        }
    }

    fn touch(&mut self) -> Op {
        let mut page = self.page();
        if !self.layout.is_empty() && !self.one_in(5) {
            let area = self.choices.pick(&self.layout);
            page = area.start + self.below((area.end - area.start) / PAGE_SIZE) * PAGE_SIZE;
            if self.one_in(10) && area.start != self.base {
                // A stack grows, but not out of what is observed.
                page = area.start - PAGE_SIZE;
            }
        }
        if self.stacks && self.one_in(3) {
            page = self.below_a_stack().unwrap_or(page);
        }
        Op::Touch {
            addr: page + self.below(PAGE_SIZE),
            write: !self.one_in(4),
        }
    }

    /// A page into which a stack would have to grow, but not out of what is in play.
    fn below_a_stack(&mut self) -> Option<u64> {
        let base = self.base;
        let grows = |area: &&Area| area.flags.contains(VmFlags::GROWSDOWN) && area.start > base;
        let stacks = self.layout.iter().filter(|area| self.plays(area));
        let starts: Vec<u64> = stacks.filter(grows).map(|area| area.start).collect();
        // The lowest one has room: others have not, unless the gap is not kept, and have to be refused.
        let lowest = *starts.first()?;
        let start = if self.one_in(2) {
            lowest
        } else {
            self.choices.pick(&starts)
        };
        let pages = (1 + self.below(3)).min((start - base) / PAGE_SIZE);
        Some(start - pages * PAGE_SIZE)
    }

    /// A length that ends past the address space: nothing may happen. One that ends exactly there
    /// would take the program with it.
    fn overlong(&mut self, addr: u64) -> u64 {
        match self.below(4) {
            0 => self.task_size - addr + PAGE_SIZE,
            1 => self.task_size + self.below(3) * PAGE_SIZE,
            2 => u64::MAX - self.below(2 * PAGE_SIZE),
            _ => 1 << 63,
        }
    }

    /// Whether an area is among the pages in play.
    fn plays(&self, area: &Area) -> bool {
        area.start < self.base + self.pages * PAGE_SIZE && area.end > self.base
    }

    /// Whether an address is among the pages in play, behind which there is a hole.
    fn in_play(&self, addr: u64) -> bool {
        (self.base..self.base + self.pages * PAGE_SIZE).contains(&addr)
    }

    /// A page in play, often at or beside an edge.
    fn page(&mut self) -> u64 {
        if !self.one_in(2) {
            let end = self.base + self.pages * PAGE_SIZE;
            let edges = 2 * self.layout.len() as u64;
            if edges > 0 {
                let pick = self.below(edges);
                let area = self.layout[(pick / 2) as usize];
                let edge = if pick % 2 == 0 { area.start } else { area.end };
                let page = edge.wrapping_sub(if self.one_in(3) { PAGE_SIZE } else { 0 });
                if (self.base..end).contains(&page) {
                    return page;
                }
            }
        }
        self.base + self.below(self.pages) * PAGE_SIZE
    }

    /// A range of whole pages in play, often from edge to edge.
    fn range(&mut self) -> (u64, u64) {
        let end = self.base + self.pages * PAGE_SIZE;
        let (a, b) = (self.page(), self.page());
        if a != b && self.one_in(3) {
            return (a.min(b), a.abs_diff(b));
        }
        let most = ((end - a) / PAGE_SIZE).min(if self.one_in(10) { 16 } else { 4 });
        (a, (1 + self.below(most)) * PAGE_SIZE)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.choices.below(n)
    }
}
