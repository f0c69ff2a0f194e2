// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Generator`]: random operations, weighted so that boundaries meet.
//!
//! Few pages, few kinds of area and few protections in one batch, addresses mostly at the edges of what
//! is there: so that cuts, merges and replacements happen all the time instead of never. A few per cent
//! of the operations carry bad arguments.
//!
//! Everything follows from a seed, the number of the batch, [`VERSION`] and the world. The random numbers
//! are ChaCha8 (`rand_chacha`, whose values are stable) with the seed as its key and the batch as its
//! stream; ranges are drawn by multiplication, here, so that no library update changes a sequence.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vmalab_model::{
    Area, Backing, FileId, MapFlags, Mmap, Object, Op, Outcome, PAGE_SIZE, Prot, VmFlags,
    file::Kind,
};

use crate::oracle::World;

/// Changes whenever the same seed gives other operations than before.
pub const VERSION: u32 = 1;

/// What is mapped, and how.
#[derive(Clone, Copy)]
struct Source {
    sharing: MapFlags,
    file: Option<FileId>,
}

/// Makes the operations of one batch.
pub struct Generator {
    rng: ChaCha8Rng,
    /// First byte and number of pages in play, at most those of the arena.
    base: u64,
    pages: u64,
    task_size: u64,
    /// Whether operations may leave the address to the kernel.
    chooses: bool,
    sources: Vec<Source>,
    protections: Vec<Prot>,
    /// Flags beside the necessary ones that this batch may use.
    extras: Vec<MapFlags>,
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
const EXTRAS: [MapFlags; 6] = [
    MapFlags::LOCKED,
    MapFlags::NORESERVE,
    MapFlags::POPULATE,
    MapFlags::STACK,
    MapFlags::DENYWRITE,
    MapFlags::EXECUTABLE,
];

impl Generator {
    /// For that batch of a run in that world.
    pub fn new(seed: u64, batch: u64, world: &World) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(batch);
        let all = (world.arena.end - world.arena.start) / PAGE_SIZE;
        let mut new = Self {
            rng,
            base: world.arena.start,
            pages: all,
            task_size: world.limits.task_size,
            chooses: world.chosen.is_some(),
            sources: Vec::new(),
            protections: Vec::new(),
            extras: Vec::new(),
            layout: Vec::new(),
        };
        new.pages = all.min(pick(&mut new.rng, &[6, 12, 24, all]));

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
        ];
        for (index, file) in world.files.iter().enumerate() {
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
            new.sources.push(pick(&mut new.rng, &sources));
        }
        for _ in 0..if uniform { 1 } else { 1 + new.below(3) } {
            // The product favours the first ones.
            let last = PROTECTIONS.len() as u64;
            let index = new.below(last) * new.below(last) / last;
            let index = if uniform { 0 } else { index };
            new.protections.push(PROTECTIONS[index as usize]);
        }
        if new.one_in(2) {
            new.extras.push(pick(&mut new.rng, &EXTRAS));
        }
        new
    }

    /// The next operation.
    pub fn op(&mut self) -> Op {
        match self.below(100) {
            0..8 => self.mmap_beside().unwrap_or_else(|| self.mmap()),
            8..45 => self.mmap(),
            45..78 => self.munmap(),
            _ => self.touch(),
        }
    }

    /// Tells what the last operation will have done, so that the next ones can aim.
    pub fn learn(&mut self, outcome: &Outcome) {
        self.layout.clear();
        self.layout.extend_from_slice(&outcome.layout);
    }

    fn mmap(&mut self) -> Op {
        let source = pick(&mut self.rng, &self.sources);
        let prot = pick(&mut self.rng, &self.protections);
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
                if source.file.is_none() && source.sharing == MapFlags::PRIVATE && self.one_in(12) {
                    mmap.flags |= MapFlags::GROWSDOWN;
                }
            }
            _ => mmap.flags |= MapFlags::FIXED,
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
                Object::File(_) => area.offset + (area.end - area.start),
                _ => 0,
            },
        }))
    }

    fn munmap(&mut self) -> Op {
        let (mut addr, mut len) = self.range();
        // One of those that the kernel placed, or a part of it.
        if self.one_in(6) {
            let outside: Vec<Area> = self
                .layout
                .iter()
                .filter(|area| !self.plays(area))
                .copied()
                .collect();
            if !outside.is_empty() {
                let area = pick(&mut self.rng, &outside);
                let pages = (area.end - area.start) / PAGE_SIZE;
                let skip = self.below(pages);
                addr = area.start + skip * PAGE_SIZE;
                len = (1 + self.below(pages - skip)) * PAGE_SIZE;
            }
        }
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

    fn touch(&mut self) -> Op {
        let mut page = self.page();
        if !self.layout.is_empty() && !self.one_in(5) {
            let area = pick(&mut self.rng, &self.layout);
            page = area.start + self.below((area.end - area.start) / PAGE_SIZE) * PAGE_SIZE;
            if self.one_in(10) {
                // A stack grows.
                page = area.start - PAGE_SIZE;
            }
        }
        Op::Touch {
            addr: page + self.below(PAGE_SIZE),
            write: !self.one_in(4),
        }
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

    /// A page in play, often at or beside an edge.
    fn page(&mut self) -> u64 {
        if !self.one_in(2) {
            let end = self.base + self.pages * PAGE_SIZE;
            let edges = 2 * self.layout.len() as u64;
            if edges > 0 {
                let pick = self.below(edges);
                let area = self.layout[(pick / 2) as usize];
                let edge = if pick % 2 == 0 { area.start } else { area.end };
                let page = edge - if self.one_in(3) { PAGE_SIZE } else { 0 };
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
        below(&mut self.rng, n)
    }
}

/// A number from 0 to `n - 1`; `n` is small, so that the bias of multiplication does not matter.
fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    (u64::from(rng.next_u32()) * n) >> 32
}

/// One of them.
fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[below(rng, from.len() as u64) as usize]
}
