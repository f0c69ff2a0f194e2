// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Page tables: the other half of `unmap_region`. Which tables a fault makes (`__handle_mm_fault`,
//! mm/memory.c), and which go when areas go (`free_pgtables`, `free_pgd_range`).
//!
//! ```text
//!              512 GiB           1 GiB             2 MiB            4 KiB
//! pgd ──────► pud table ──────► pmd table ──────► pte table ──────► page
//!
//!        prev.end                                          next.start
//!   |-prev-|. . . . . . |-------- unmapped --------| . . . . |-next-|
//!   [ pte table ][ pte table ][ pte table ][ pte table ][ pte table ]
//!     stays         goes         goes          goes        stays
//! ```
//!
//! A table goes with the areas that used it if no other area reaches into the addresses that it spans.
//! That is all that the kernel asks, at each level: the end of the area below is the *floor*, the start of
//! the one above the *ceiling*. It does not look whether a table is empty. So a page that was touched and
//! given back (`MADV_DONTNEED`) keeps its tables until its area goes; and a hole in an area that shares
//! its last table with what is left frees none.
//!
//! Until 2.6.11 (`clear_page_range`), all tables between floor and ceiling went, in the 512 GiB around the
//! range, whoever had used them. Nobody can have but the areas that go: it comes to the same.
//!
//! As 7.2 has it, and kernels before it since 4.9; the rounding of 2.6.11 is not modelled.

use alloc::{collections::BTreeSet, vec::Vec};
use core::ops::Range;

use crate::{AddressSpace, Container};

/// A level of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The lowest: its entries are pages.
    Pte,
    /// Its entries are pte tables, or pages of 2 MiB.
    Pmd,
    /// Its entries are pmd tables.
    Pud,
}

impl Level {
    /// From the lowest to the highest. The one table of the highest level of all, the pgd, lives as long as
    /// the address space.
    pub const ALL: [Self; 3] = [Self::Pte, Self::Pmd, Self::Pud];

    /// How many bytes of addresses a table of this level spans.
    pub const fn span(self) -> u64 {
        match self {
            Self::Pte => 2 << 20,
            Self::Pmd => 1 << 30,
            Self::Pud => 512 << 30,
        }
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// The first address that it spans.
    pub start: u64,
    /// Its level.
    pub level: Level,
}

impl Table {
    /// The table of that level in which an address is looked up.
    pub const fn of(level: Level, addr: u64) -> Self {
        Self {
            start: addr - addr % level.span(),
            level,
        }
    }

    /// The addresses that it spans.
    pub const fn range(self) -> Range<u64> {
        self.start..self.start + self.level.span()
    }
}

/// The page tables of a process, as far as areas and touched pages decide about them: without huge
/// pages.
///
/// ```
/// use vmalab_model::page_table::{Level, PageTables, Table};
/// use vmalab_model::{AddressSpace, Backing, Limits, MapFlags, Mmap, Op, Prot, Rules};
///
/// let mut space: AddressSpace = AddressSpace::new(Rules::V7_2, Limits::default());
/// let (addr, len) = (0x4000_0000, 4 << 20);
/// space.apply(&Op::Mmap(Mmap {
///     addr,
///     len,
///     prot: Prot::READ | Prot::WRITE,
///     flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED,
///     backing: Backing::None,
///     offset: 0,
/// }));
/// let mut tables = PageTables::default();
/// tables.fault(addr);
/// tables.fault(addr + (2 << 20));
/// assert_eq!(tables.bytes(), 4 * 4096); // a pud table, a pmd table, two pte tables
///
/// // All of the second pte table, and one page of the first: the first stays.
/// let gone = addr + (2 << 20) - 4096..addr + len;
/// let freed = tables.unmap_region(&space, gone);
/// assert_eq!(freed, [Table::of(Level::Pte, addr + (2 << 20))]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTables {
    tables: BTreeSet<Table>,
}

impl PageTables {
    /// A page is put in at `addr`: the tables on the way to it are made, if they are not there.
    pub fn fault(&mut self, addr: u64) {
        for level in Level::ALL {
            self.tables.insert(Table::of(level, addr));
        }
    }

    /// The tables, by address.
    pub fn iter(&self) -> impl Iterator<Item = Table> {
        self.tables.iter().copied()
    }

    /// What `VmPTE` in `/proc/PID/status` counts (since 4.15, of all three levels), in bytes.
    pub fn bytes(&self) -> u64 {
        self.tables.len() as u64 * crate::PAGE_SIZE
    }

    /// A range is about to be unmapped from `space`: takes out the tables that go with its areas, and says
    /// which. The range may cut areas, and need not be aligned to tables; where it has no area, no table
    /// goes.
    pub fn unmap_region<C: Container>(
        &mut self,
        space: &AddressSpace<C>,
        range: Range<u64>,
    ) -> Vec<Table> {
        // What is left of an area that the range cuts is a neighbour.
        let floor = match space.areas.find(range.start) {
            Some(first) if first.start < range.start => range.start,
            _ => space.areas.prev(range.start).map_or(0, |prev| prev.end),
        };
        let ceiling = match space.areas.prev(range.end) {
            Some(last) if last.end > range.end => range.end,
            _ => space
                .areas
                .find(range.end)
                .map_or(u64::MAX, |next| next.start),
        };
        let mut freed = BTreeSet::new();
        for vma in space.areas.iter_from(range.start) {
            if vma.start >= range.end {
                break;
            }
            let gone = vma.start.max(range.start)..vma.end.min(range.end);
            for level in Level::ALL {
                let first = Table::of(level, gone.start).start;
                freed.extend(
                    self.tables
                        .range(
                            Table {
                                start: first,
                                level: Level::Pte,
                            }..,
                        )
                        .take_while(|table| table.start < gone.end)
                        .filter(|table| table.level == level)
                        .filter(|table| floor <= table.start && table.range().end <= ceiling),
                );
            }
        }
        self.tables.retain(|table| !freed.contains(table));
        freed.into_iter().collect()
    }
}
