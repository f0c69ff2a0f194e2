// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! What is done: areas to begin with, and rounds of operations that leave as many.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vmalab_model::file::Hooks;
use vmalab_model::{Backing, File, FileId, Limits, MapFlags, Mmap, Op, PAGE_SIZE, Prot};

/// Steps in a round.
const STEPS: usize = 1024;
/// Bytes in an area.
const AREA: u64 = 16 * PAGE_SIZE;
/// From one area to the next: there is a gap between, but where it is said otherwise.
const STRIDE: u64 = 2 * AREA;
/// Where the areas begin.
const BASE: u64 = 1 << 40;
/// In an area, where pages are punched out, and how many bytes.
const HOLE: (u64, u64) = (6 * PAGE_SIZE, 4 * PAGE_SIZE);

/// A driver with all hooks.
const DRIVER: FileId = FileId(0);
/// One without `close`, so that its areas merge.
const MERGING_DRIVER: FileId = FileId(1);

/// The files of all worlds.
pub(crate) fn files() -> [File; 2] {
    let driver = File::device(u64::MAX >> 16);
    let merging = File {
        hooks: Hooks {
            close: false,
            ..driver.hooks
        },
        ..driver
    };
    [driver, merging]
}

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Which area holds an address.
    Find,
    /// A hole is punched in an area and filled again: two splits, a merge on both sides.
    Punch,
    /// The same in areas of a driver, which is asked and told.
    PunchDriver,
    /// A hole is punched, and then the whole area mapped over: the driver hears of all of it.
    RenewDriver,
    /// One area goes, another comes, elsewhere.
    Random,
    /// One area goes, another comes where the kernel chooses. All touch but for that gap.
    Chosen,
    /// Each area in turn: pages in its middle become read-only, and writable again.
    Protect,
    /// Mapping all areas one by one, and unmapping them all at once; for each area.
    Build,
}

/// A round.
pub(crate) enum Round {
    /// Of operations.
    Do(Vec<Op>),
    /// Of searches.
    Find(Vec<u64>),
}

impl Work {
    pub(crate) const ALL: [Self; 8] = [
        Self::Find,
        Self::Punch,
        Self::PunchDriver,
        Self::RenewDriver,
        Self::Random,
        Self::Chosen,
        Self::Protect,
        Self::Build,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Punch => "punch and refill",
            Self::PunchDriver => "punch and refill, driver",
            Self::RenewDriver => "punch and renew, driver",
            Self::Random => "unmap and map at random",
            Self::Chosen => "unmap, and map anywhere",
            Self::Protect => "mprotect there and back",
            Self::Build => "build and tear down",
        }
    }

    /// Whether it takes more than a map of ranges: drivers, or the choice of an address.
    pub(crate) const fn is_of_system(self) -> bool {
        matches!(self, Self::PunchDriver | Self::RenewDriver | Self::Chosen)
    }

    /// The name of the row with the memory that is held in the end, if it tells something new.
    pub(crate) const fn memory(self) -> Option<&'static str> {
        match self {
            Self::Find => Some("memory, mapped in order"),
            Self::Random => Some("memory, after unmapping and mapping at random"),
            _ => None,
        }
    }
}

/// Makes the rounds of one kind of work at one size.
pub(crate) struct Plan {
    work: Work,
    size: usize,
    random: ChaCha8Rng,
    /// Whose turn it is.
    next: usize,
    /// Of twice as many places as there are areas, those that are taken, and the others.
    taken: Vec<u64>,
    free: Vec<u64>,
}

impl Plan {
    pub(crate) fn new(work: Work, size: usize) -> Self {
        let places = |from: usize| (from..from + size).map(|nth| BASE + nth as u64 * STRIDE);
        Self {
            work,
            size,
            random: ChaCha8Rng::seed_from_u64(size as u64),
            next: 0,
            taken: places(0).collect(),
            free: places(size).collect(),
        }
    }

    /// How many steps a round has.
    pub(crate) fn steps(&self) -> usize {
        match self.work {
            Work::Build => self.size,
            _ => STEPS,
        }
    }

    fn any(&mut self) -> usize {
        (self.random.next_u64() % self.size as u64) as usize
    }

    fn backing(&self) -> Backing {
        match self.work {
            Work::PunchDriver => Backing::File(MERGING_DRIVER),
            Work::RenewDriver => Backing::File(DRIVER),
            _ => Backing::None,
        }
    }

    fn place(&self, nth: usize) -> u64 {
        match self.work {
            Work::Chosen => Limits::default().mmap_base - (nth as u64 + 1) * AREA,
            _ => BASE + nth as u64 * STRIDE,
        }
    }

    /// The areas that there are before the first round.
    pub(crate) fn load(&self) -> Round {
        let areas = match self.work {
            Work::Build => 0,
            _ => self.size,
        };
        Round::Do((0..areas).map(|nth| self.area(nth)).collect())
    }

    fn area(&self, nth: usize) -> Op {
        let rights = match self.work {
            // Neighbours must not merge.
            Work::Chosen if nth % 2 == 0 => Prot::READ,
            _ => Prot::READ | Prot::WRITE,
        };
        self.map(self.place(nth), AREA, rights)
    }

    fn map(&self, addr: u64, len: u64, prot: Prot) -> Op {
        let backing = self.backing();
        let (flags, offset) = match backing {
            Backing::None => (MapFlags::PRIVATE | MapFlags::ANONYMOUS, 0),
            Backing::File(_) => (MapFlags::SHARED, addr),
        };
        Op::Mmap(Mmap {
            addr,
            len,
            prot,
            flags: flags | MapFlags::FIXED,
            backing,
            offset,
        })
    }

    /// The next round.
    pub(crate) fn round(&mut self) -> Round {
        let write = Prot::READ | Prot::WRITE;
        let mut ops = Vec::with_capacity(2 * self.steps());
        match self.work {
            Work::Find => {
                let addr = |plan: &mut Self| {
                    let area = plan.any();
                    plan.place(area) + plan.random.next_u64() % AREA
                };
                return Round::Find((0..STEPS).map(|_| addr(self)).collect());
            }
            Work::Punch | Work::PunchDriver | Work::RenewDriver => {
                for _ in 0..STEPS {
                    let nth = self.any();
                    let (addr, len) = (self.place(nth) + HOLE.0, HOLE.1);
                    ops.push(Op::Munmap { addr, len });
                    ops.push(match self.work {
                        Work::RenewDriver => self.area(nth),
                        _ => self.map(addr, len, write),
                    });
                }
            }
            Work::Random => {
                for _ in 0..STEPS {
                    let (old, new) = (self.any(), self.any());
                    let addr = self.taken[old];
                    ops.push(Op::Munmap { addr, len: AREA });
                    ops.push(self.map(self.free[new], AREA, write));
                    std::mem::swap(&mut self.taken[old], &mut self.free[new]);
                }
            }
            Work::Chosen => {
                for _ in 0..STEPS {
                    let nth = self.any();
                    let Op::Mmap(old) = self.area(nth) else {
                        unreachable!("an area is mapped")
                    };
                    ops.push(Op::Munmap {
                        addr: old.addr,
                        len: old.len,
                    });
                    ops.push(Op::Mmap(Mmap {
                        addr: 0,
                        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
                        ..old
                    }));
                }
            }
            Work::Protect => {
                for _ in 0..STEPS {
                    let (addr, len) = (self.place(self.next) + HOLE.0, HOLE.1);
                    self.next = (self.next + 1) % self.size;
                    for prot in [Prot::READ, write] {
                        ops.push(Op::Mprotect { addr, len, prot });
                    }
                }
            }
            Work::Build => {
                ops.extend((0..self.size).map(|nth| self.area(nth)));
                ops.push(Op::Munmap {
                    addr: BASE,
                    len: self.size as u64 * STRIDE,
                });
            }
        }
        Round::Do(ops)
    }
}
