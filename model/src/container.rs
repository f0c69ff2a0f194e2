// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`Container`]: where an address space keeps its areas, and the plain one, [`SortedVec`].
//!
//! The kernel kept them in a sorted list with a red-black tree until 6.0 and keeps them in a maple
//! tree since 6.1. What the model needs of either is this trait.

use alloc::vec::Vec;
use core::ops::Range;

use crate::Vma;

/// Areas by address. They never overlap and are never empty: the caller sees to that.
pub trait Container: Default {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first area that ends above `addr` (`find_vma`): the one that holds it, or the next.
    fn find(&self, addr: u64) -> Option<&Vma>;

    /// The last area that starts below `addr` (`vma_prev` of an iterator at `addr`).
    fn prev(&self, addr: u64) -> Option<&Vma>;

    /// Adds an area where there is none.
    fn insert(&mut self, vma: Vma);

    /// Exchanges the area that starts at `start`, which must exist, for `vma`. The new one may be
    /// larger or smaller, as long as it touches no other.
    fn replace(&mut self, start: u64, vma: Vma);

    /// Takes all areas out that start in the range.
    fn remove_range(&mut self, range: Range<u64>);

    /// The areas from [`find`](Self::find)`(addr)` on, upwards.
    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma>;

    /// The areas that start below `addr`, downwards.
    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma>;
}

/// A vector in order of addresses, searched by bisection. Simple, compact, quick for the few hundred
/// areas of a usual process; insertion in the middle of very many areas is slow.
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

    fn remove_range(&mut self, range: Range<u64>) {
        let first = self.0.partition_point(|vma| vma.start < range.start);
        let last = first + self.0[first..].partition_point(|vma| vma.start < range.end);
        self.0.drain(first..last);
    }

    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        self.0[self.at(addr)..].iter()
    }

    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma> {
        let next = self.0.partition_point(|vma| vma.start < addr);
        self.0[..next].iter().rev()
    }
}
