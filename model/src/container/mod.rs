// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Container`]: where an address space keeps its areas. All give the same answers; they differ in
//! what they cost.
//!
//! | container | is like the kernel's | search | add or remove | bytes an area |
//! | --- | --- | --- | --- | --- |
//! | [`BTree`] | maple tree, since 6.1 | logarithmic | logarithmic | that of [`Vma`], and a fifth of that |
//! | [`RbList`] | sorted list, red-black tree and look-up cache, until 6.0 | logarithmic | logarithmic | twice that of [`Vma`] |
//! | [`SortedVec`] | none: so simple that it is the judge of the others | logarithmic | moves half of the areas | that of [`Vma`] |
//!
//! A search for a gap of some size is logarithmic in the second, as in the kernel since 3.8. In the first it
//! looks at one number for a thousand areas, and then for two dozen, and in the last at each area.

mod btree;
mod rb_list;

pub use btree::BTree;
pub use rb_list::RbList;

use alloc::vec::Vec;
use core::ops::Range;

use crate::{Errno, Vma};

/// Areas by address. They never overlap and are never empty: the caller sees to that.
///
/// ```
/// use vmalab_model::{AddressSpace, BTree, Limits, Mmap, Op, RbList, Rules};
///
/// // What is predicted does not depend on where areas are kept.
/// let mut tree: AddressSpace<BTree> = AddressSpace::new(Rules::V6_12, Limits::default());
/// let mut list: AddressSpace<RbList> = AddressSpace::new(Rules::V6_12, Limits::default());
/// let map = Op::Mmap(Mmap::anonymous(0x10000, 0x8000));
/// for op in [map, Op::Munmap { addr: 0x12000, len: 0x1000 }] {
///     assert_eq!(tree.apply(&op), list.apply(&op));
/// }
/// ```
pub trait Container: Default {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes sure that one [`insert`](Self::insert) at that address, or one [`split`](Self::split) of the area
    /// there, finds the memory that it needs (`vma_iter_prealloc`): the kernel does so while there is still a
    /// way back.
    ///
    /// # Errors
    ///
    /// There is no memory. Nothing has changed.
    fn reserve(&mut self, addr: u64) -> Result<(), OutOfMemory>;

    /// The first area that ends above `addr` (`find_vma`): the one that holds it, or the next.
    fn find(&self, addr: u64) -> Option<&Vma>;

    /// The last area that starts below `addr` (`vma_prev` of an iterator at `addr`).
    fn prev(&self, addr: u64) -> Option<&Vma>;

    /// Adds an area where there is none.
    fn insert(&mut self, vma: Vma);

    /// Exchanges the area that starts at `start`, which must exist, for `vma`. The new one may be
    /// larger or smaller, as long as it touches no other.
    fn replace(&mut self, start: u64, vma: Vma);

    /// Cuts the area that starts at `start`, which must exist, in two at `at`. `pgoff` is what the upper one
    /// has. There must be room, as for an [`insert`](Self::insert).
    fn split(&mut self, start: u64, at: u64, pgoff: u64) {
        let Some(&whole) = self.find(start) else {
            unreachable!("a split of an area that is not there")
        };
        self.replace(start, Vma { end: at, ..whole });
        self.insert(Vma {
            start: at,
            pgoff,
            ..whole
        });
    }

    /// Exchanges the areas in the range of `vma`, of which there is at least one, for it. None may reach
    /// out of it.
    fn join(&mut self, vma: Vma) {
        join(self, vma);
    }

    /// Takes all areas out that start in the range, and shows each of them, upwards.
    fn remove_range(&mut self, range: Range<u64>, gone: impl FnMut(&Vma));

    /// The areas from [`find`](Self::find)`(addr)` on, upwards.
    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma>;

    /// The areas that start below `addr`, downwards.
    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma>;

    /// The gaps of at least `len` bytes that end above `addr`, upwards (`mas_empty_area`). `len` is not
    /// 0.
    fn gaps_from(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let mut below = match self.find(addr) {
            Some(first) => self.prev(first.start),
            None => self.prev(u64::MAX),
        };
        let above = self.iter_from(addr).map(Some).chain([None]);
        above
            .map(move |above| Gap {
                below: core::mem::replace(&mut below, above),
                above,
            })
            .filter(move |gap| gap.end() > addr && gap.len() >= len)
    }

    /// The gaps of at least `len` bytes that start below `addr`, downwards (`mas_empty_area_rev`). `len`
    /// is not 0.
    fn gaps_below(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let mut above = self.iter_from(addr).find(|vma| vma.start >= addr);
        let below = self.iter_below(addr).map(Some).chain([None]);
        below
            .map(move |below| Gap {
                below,
                above: core::mem::replace(&mut above, below),
            })
            .filter(move |gap| gap.start() < addr && gap.len() >= len)
    }
}

/// [`Container::join`], step by step.
fn join<C: Container>(areas: &mut C, vma: Vma) {
    let Some(&first) = areas.find(vma.start) else {
        unreachable!("areas become one where there is none")
    };
    areas.remove_range(first.end..vma.end, |_| {});
    areas.replace(first.start, vma);
}

/// Addresses where nothing is mapped, between two areas or before the first or behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// The area that ends where it starts; none at the bottom.
    pub below: Option<&'a Vma>,
    /// The area that starts where it ends; none at the top.
    pub above: Option<&'a Vma>,
}

impl Gap<'_> {
    /// Its first byte.
    pub fn start(&self) -> u64 {
        self.below.map_or(0, |vma| vma.end)
    }

    /// One past its last byte; [`u64::MAX`] at the top.
    pub fn end(&self) -> u64 {
        self.above.map_or(u64::MAX, |vma| vma.start)
    }

    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        self.end() - self.start()
    }

    /// Whether two areas touch there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// There is no memory for one area more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there is no memory for one area more")
    }
}

impl core::error::Error for OutOfMemory {}

impl From<OutOfMemory> for Errno {
    fn from(_: OutOfMemory) -> Self {
        Self::ENOMEM
    }
}

impl From<alloc::collections::TryReserveError> for OutOfMemory {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        Self
    }
}

/// A vector in order of addresses, searched by bisection: simple and compact, and slow where very many
/// areas come and go.
#[derive(Clone, Debug, Default)]
pub struct SortedVec(Vec<Vma>);

impl SortedVec {
    fn at(&self, addr: u64) -> usize {
        self.0.partition_point(|vma| vma.end <= addr)
    }
}

impl Container for SortedVec {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn reserve(&mut self, _addr: u64) -> Result<(), OutOfMemory> {
        Ok(self.0.try_reserve(1)?)
    }

    fn find(&self, addr: u64) -> Option<&Vma> {
        self.0.get(self.at(addr))
    }

    fn prev(&self, addr: u64) -> Option<&Vma> {
        let next = self.0.partition_point(|vma| vma.start < addr);
        self.0[..next].last()
    }

    fn insert(&mut self, vma: Vma) {
        let index = self.at(vma.start);
        self.0.insert(index, vma);
    }

    fn replace(&mut self, start: u64, vma: Vma) {
        let index = self.at(start);
        debug_assert_eq!(self.0[index].start, start);
        self.0[index] = vma;
    }

    fn remove_range(&mut self, range: Range<u64>, mut gone: impl FnMut(&Vma)) {
        let first = self.0.partition_point(|vma| vma.start < range.start);
        let last = first + self.0[first..].partition_point(|vma| vma.start < range.end);
        self.0.drain(first..last).for_each(|vma| gone(&vma));
    }

    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        self.0[self.at(addr)..].iter()
    }

    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma> {
        let next = self.0.partition_point(|vma| vma.start < addr);
        self.0[..next].iter().rev()
    }
}
