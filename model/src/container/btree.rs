// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`BTree`]: areas in leaves of a few dozen, and the leaves in a sorted index.
//!
//! ```text
//! starts  [ 0x10000 ,          0x90000 ,          0x300000 ]
//! gaps    [ 0x10000 ,           0x3000 ,          0x180000 ]     the largest before or in each leaf
//!              |                  |                  |
//! leaves  [ ABCDEF.. ,         GHI..... ,         JKLMNOP. ]     areas by address
//! ```
//!
//! A B-tree of two levels. An operation bisects the index, then a leaf, and moves at most one leaf's
//! areas. A leaf that overflows shares with a neighbour first, so that leaves are three quarters full. Only
//! where that cannot be, or where a leaf runs empty, does the index change. At a maximum of areas
//! (`max_map_count`, 65,530 by default) it has some two thousand entries, so that moving half of them, now
//! and then, costs less than the pointers of another level on every operation.
//!
//! The index has the largest gap of each leaf, as the maple tree's nodes have: a search for a gap passes
//! over the leaves without a look into them. It is measured by the first search after a change, since most
//! changes are followed by others before anybody searches.
//!
//! The kernel hands an iterator from function to function, so that one operation searches once. Here the
//! tree itself remembers the place where it was last: most of what an operation asks is about that one or
//! the next.

use alloc::vec::Vec;
use core::{cell::Cell, ops::Range};

use super::{Container, Gap, OutOfMemory};
use crate::Vma;

/// Areas in a leaf, at most.
const CAPACITY: usize = 32;
/// A leaf with fewer than these looks for a neighbour to join.
const FEW: usize = CAPACITY / 2;
/// With no more than these there is room to share.
const ROOMY: usize = CAPACITY - CAPACITY / 8;

#[derive(Clone, Debug)]
struct Leaf {
    /// By address; never empty, never more than [`CAPACITY`].
    areas: Vec<Vma>,
}

/// A largest gap that was not measured since something changed.
const UNKNOWN: u64 = u64::MAX;

/// Areas by address, in the way of a maple tree: see the top of `container/btree.rs`.
#[derive(Clone, Debug, Default)]
pub struct BTree {
    /// Where each leaf starts: the key of the index, apart from the leaves so that a search touches
    /// little memory.
    starts: Vec<u64>,
    /// The largest gap that ends where an area of the leaf starts, in bytes, or [`UNKNOWN`].
    gaps: Vec<Cell<u64>>,
    leaves: Vec<Leaf>,
    len: usize,
    /// The memory of the next leaf.
    spare: Option<Vec<Vma>>,
    /// Where a search ended last. It may be out of date: who uses it looks whether it is still right.
    last: Cell<Place>,
}

/// A leaf, and an area in it, or the end of the leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    leaf: usize,
    at: usize,
}

impl Leaf {
    fn start(&self) -> u64 {
        self.areas[0].start
    }

    fn is_full(&self) -> bool {
        self.areas.len() >= CAPACITY
    }

    fn is_roomy(&self) -> bool {
        self.areas.len() <= ROOMY
    }

    /// The first area that ends above `addr`.
    fn at(&self, addr: u64) -> usize {
        self.areas.partition_point(|vma| vma.end <= addr)
    }

    /// Whether [`at`](Self::at) would give that.
    fn is_at(&self, at: usize, addr: u64) -> bool {
        at <= self.areas.len()
            && (at == 0 || self.areas[at - 1].end <= addr)
            && self.areas.get(at).is_none_or(|vma| vma.end > addr)
    }

    /// The first area that starts at or above `addr`.
    fn from(&self, addr: u64) -> usize {
        self.areas.partition_point(|vma| vma.start < addr)
    }
}

impl BTree {
    /// The leaf in which an area that holds `addr` would be: the last that starts at or below it, or
    /// the first.
    fn leaf(&self, addr: u64) -> usize {
        let next = self.starts.partition_point(|&start| start <= addr);
        next.saturating_sub(1)
    }

    /// Whether [`leaf`](Self::leaf) would give that.
    fn is_leaf(&self, leaf: usize, addr: u64) -> bool {
        (leaf == 0 || self.starts.get(leaf).is_some_and(|&start| start <= addr))
            && self.starts.get(leaf + 1).is_none_or(|&next| addr < next)
    }

    /// The first area that ends above `addr` in the leaf where one that holds it would be, or the end of
    /// that leaf.
    #[inline]
    fn place(&self, addr: u64) -> Place {
        let last = self.last.get();
        match self.area(last.leaf, last.at) {
            Some(vma) if vma.start <= addr && addr < vma.end => last,
            _ => self.search(addr),
        }
    }

    /// [`place`](Self::place), where it is not the one that was looked at last.
    fn search(&self, addr: u64) -> Place {
        let Place { mut leaf, at } = self.last.get();
        let near = self.is_leaf(leaf, addr);
        if !near {
            leaf = self.leaf(addr);
        }
        let Some(here) = self.leaves.get(leaf) else {
            return Place::default();
        };
        let at = if near && here.is_at(at, addr) {
            at
        } else if near && here.is_at(at + 1, addr) {
            at + 1
        } else {
            here.at(addr)
        };
        let place = Place { leaf, at };
        self.last.set(place);
        place
    }

    /// Leaf and place of the first area that ends above `addr`; behind the last leaf if there is none.
    #[inline]
    fn position(&self, addr: u64) -> (usize, usize) {
        let Place { leaf, at } = self.place(addr);
        match self.leaves.get(leaf) {
            Some(here) if at == here.areas.len() => (leaf + 1, 0),
            _ => (leaf, at),
        }
    }

    #[inline]
    fn area(&self, leaf: usize, at: usize) -> Option<&Vma> {
        self.leaves.get(leaf)?.areas.get(at)
    }

    /// The area before that.
    #[inline]
    fn before(&self, leaf: usize, at: usize) -> Option<&Vma> {
        match at.checked_sub(1) {
            Some(at) => self.area(leaf, at),
            None => self.leaves.get(leaf.checked_sub(1)?)?.areas.last(),
        }
    }

    /// Memory for a leaf: what was reserved, or what there is.
    fn take_spare(&mut self) -> Vec<Vma> {
        self.spare
            .take()
            .unwrap_or_else(|| Vec::with_capacity(CAPACITY))
    }

    /// Takes a leaf in.
    fn insert_leaf(&mut self, at: usize, areas: Vec<Vma>) {
        self.starts.insert(at, areas[0].start);
        self.gaps.insert(at, Cell::new(UNKNOWN));
        self.leaves.insert(at, Leaf { areas });
        self.forget_gap(at + 1);
    }

    fn remove_leaves(&mut self, range: Range<usize>) {
        self.starts.drain(range.clone());
        self.gaps.drain(range.clone());
        self.leaves.drain(range.clone());
        self.forget_gap(range.start);
    }

    fn forget_gap(&mut self, leaf: usize) {
        if let Some(gap) = self.gaps.get_mut(leaf) {
            gap.set(UNKNOWN);
        }
    }

    /// The largest gap that ends where an area of the leaf starts.
    fn largest_gap(&self, leaf: usize) -> u64 {
        let known = self.gaps[leaf].get();
        if known != UNKNOWN {
            return known;
        }
        let below = self.before(leaf, 0).map_or(0, |vma| vma.end);
        let mut largest = self.starts[leaf] - below;
        for pair in self.leaves[leaf].areas.windows(2) {
            largest = largest.max(pair[1].start - pair[0].end);
        }
        self.gaps[leaf].set(largest);
        largest
    }

    /// The first leaf from this one on that has a gap so large.
    fn wide_from(&self, mut leaf: usize, len: u64) -> Option<usize> {
        loop {
            leaf += self.gaps[leaf..].iter().position(|gap| gap.get() >= len)?;
            if self.largest_gap(leaf) >= len {
                return Some(leaf);
            }
            leaf += 1;
        }
    }

    /// The last leaf before this one that has a gap so large.
    fn wide_below(&self, mut leaf: usize, len: u64) -> Option<usize> {
        loop {
            leaf = self.gaps[..leaf].iter().rposition(|gap| gap.get() >= len)?;
            if self.largest_gap(leaf) >= len {
                return Some(leaf);
            }
        }
    }

    /// Brings the index up to date after a change at a place.
    fn changed(&mut self, leaf: usize, at: usize) {
        let here = &self.leaves[leaf];
        self.gaps[leaf].set(UNKNOWN);
        if at == 0 {
            self.starts[leaf] = here.start();
        }
        if at + 1 >= here.areas.len() {
            self.forget_gap(leaf + 1);
        }
    }

    /// Begins a leaf with one area.
    fn begin_leaf(&mut self, leaf: usize, vma: Vma) {
        let mut areas = self.take_spare();
        areas.push(vma);
        self.insert_leaf(leaf, areas);
    }

    /// Makes room in a full leaf: lets it share with a neighbour, or with a new one.
    fn make_room(&mut self, leaf: usize) {
        let is_roomy = |leaf: usize| self.leaves.get(leaf).is_some_and(Leaf::is_roomy);
        if is_roomy(leaf + 1) {
            self.balance(leaf);
        } else if leaf > 0 && is_roomy(leaf - 1) {
            self.balance(leaf - 1);
        } else {
            let mut areas = self.take_spare();
            areas.extend(self.leaves[leaf].areas.drain(CAPACITY / 2..));
            self.insert_leaf(leaf + 1, areas);
            self.forget_gap(leaf);
        }
    }

    /// Gives two neighbours half of their areas each.
    fn balance(&mut self, lower: usize) {
        let [below, above] = &mut self.leaves[lower..lower + 2] else {
            unreachable!("two leaves are two")
        };
        let half = (below.areas.len() + above.areas.len()) / 2;
        if let Some(missing) = half.checked_sub(below.areas.len()) {
            below.areas.extend(above.areas.drain(..missing));
        } else {
            above.areas.splice(..0, below.areas.drain(half..));
        }
        self.starts[lower + 1] = above.start();
        self.forget_gap(lower);
        self.forget_gap(lower + 1);
    }

    /// Lets a leaf of few areas join a neighbour, if they fit into one and leave some room.
    fn thin_out(&mut self, leaf: usize) {
        let len = |leaf: usize| {
            self.leaves
                .get(leaf)
                .map_or(CAPACITY, |leaf| leaf.areas.len())
        };
        let few = len(leaf);
        if few >= FEW || self.leaves.len() == 1 {
            return;
        }
        let lower = if few + len(leaf + 1) <= ROOMY {
            leaf
        } else if leaf > 0 && few + len(leaf - 1) <= ROOMY {
            leaf - 1
        } else {
            return;
        };
        let mut upper = self.leaves.remove(lower + 1).areas;
        self.starts.remove(lower + 1);
        self.gaps.remove(lower + 1);
        self.forget_gap(lower);
        self.leaves[lower].areas.append(&mut upper);
        self.spare.get_or_insert(upper);
    }

    /// The gap below an area, or behind the last leaf.
    fn gap(&self, leaf: usize, at: usize) -> Gap<'_> {
        Gap {
            below: self.before(leaf, at),
            above: self.area(leaf, at),
        }
    }
}

impl Container for BTree {
    fn len(&self) -> usize {
        self.len
    }

    fn reserve(&mut self) -> Result<(), OutOfMemory> {
        if self.spare.is_none() {
            let mut spare = Vec::new();
            spare.try_reserve_exact(CAPACITY)?;
            self.spare = Some(spare);
        }
        self.starts.try_reserve(1)?;
        self.gaps.try_reserve(1)?;
        self.leaves.try_reserve(1)?;
        Ok(())
    }

    #[inline]
    fn find(&self, addr: u64) -> Option<&Vma> {
        let (leaf, at) = self.position(addr);
        self.area(leaf, at)
    }

    #[inline]
    fn prev(&self, addr: u64) -> Option<&Vma> {
        let Place { leaf, at } = self.place(addr);
        let here = self.area(leaf, at).filter(|vma| vma.start < addr);
        here.or_else(|| self.before(leaf, at))
    }

    fn insert(&mut self, vma: Vma) {
        self.len += 1;
        let Place { mut leaf, mut at } = self.place(vma.start);
        let full = self.leaves.get(leaf).is_none_or(Leaf::is_full);
        // At either end of all, a new leaf is begun, and the full one stays full: whoever maps one area
        // after the other fills the leaves.
        if full && at == 0 && leaf == 0 {
            self.begin_leaf(0, vma);
            return;
        }
        if full && at == CAPACITY && leaf + 1 == self.leaves.len() {
            self.begin_leaf(leaf + 1, vma);
            return;
        }
        if full {
            self.make_room(leaf);
            Place { leaf, at } = self.place(vma.start);
        }
        self.leaves[leaf].areas.insert(at, vma);
        self.changed(leaf, at);
        self.last.set(Place { leaf, at });
    }

    fn replace(&mut self, start: u64, vma: Vma) {
        let Place { leaf, at } = self.place(start);
        let here = &mut self.leaves[leaf];
        debug_assert_eq!(here.areas[at].start, start);
        here.areas[at] = vma;
        self.changed(leaf, at);
    }

    fn split(&mut self, lower: Vma, upper: Vma) {
        let Place { leaf, at } = self.place(lower.start);
        let here = &mut self.leaves[leaf];
        debug_assert_eq!(here.areas[at].start, lower.start);
        here.areas[at] = lower;
        if here.is_full() {
            self.insert(upper);
        } else {
            // No gap changes.
            here.areas.insert(at + 1, upper);
            self.len += 1;
        }
    }

    fn join(&mut self, vma: Vma) {
        let (leaf, at) = self.position(vma.start);
        let here = &mut self.leaves[leaf];
        let joined = here.areas[at..].iter();
        let end = at + joined.take_while(|area| area.start < vma.end).count();
        let last = end == here.areas.len();
        if last
            && self
                .starts
                .get(leaf + 1)
                .is_some_and(|&next| next < vma.end)
        {
            super::join(self, vma);
            return;
        }
        here.areas[at] = vma;
        here.areas.drain(at + 1..end);
        self.len -= end - at - 1;
        self.changed(leaf, at);
        self.last.set(Place { leaf, at });
        self.thin_out(leaf);
    }

    fn remove_range(&mut self, range: Range<u64>) {
        let Place { mut leaf, at } = self.place(range.start);
        let mut first = at;
        if self
            .area(leaf, at)
            .is_some_and(|vma| vma.start < range.start)
        {
            first += 1;
        }
        let mut whole = leaf..leaf;
        while let Some(here) = self.leaves.get_mut(leaf) {
            let rest = here.areas[first..].iter();
            let last = first + rest.take_while(|vma| vma.start < range.end).count();
            let goes_on = last == here.areas.len();
            self.len -= last - first;
            if first == 0 && goes_on {
                if whole.is_empty() {
                    whole.start = leaf;
                }
                whole.end = leaf + 1;
            } else if first < last {
                here.areas.drain(first..last);
                self.changed(leaf, first);
            }
            if !goes_on {
                break;
            }
            first = 0;
            leaf += 1;
        }
        // The last that lost something, and the one before it.
        leaf -= whole.len();
        if !whole.is_empty() {
            self.remove_leaves(whole);
        }
        self.thin_out(leaf);
        self.thin_out(leaf.saturating_sub(1));
    }

    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        let (leaf, at) = self.position(addr);
        let first = self
            .leaves
            .get(leaf)
            .map_or(&[][..], |leaf| &leaf.areas[at..]);
        let rest = self.leaves.get(leaf + 1..).unwrap_or_default();
        first
            .iter()
            .chain(rest.iter().flat_map(|leaf| leaf.areas.iter()))
    }

    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma> {
        let next = self.starts.partition_point(|&start| start < addr);
        let (rest, last) = self.leaves[..next].split_at(next.saturating_sub(1));
        let first = last
            .first()
            .map_or(&[][..], |leaf| &leaf.areas[..leaf.from(addr)]);
        let rest = rest.iter().rev().flat_map(|leaf| leaf.areas.iter().rev());
        first.iter().rev().chain(rest)
    }

    fn gaps_from(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let mut next = Some(self.position(addr));
        core::iter::from_fn(move || {
            loop {
                let (leaf, at) = next?;
                let gap = self.gap(leaf, at);
                next = match self.leaves.get(leaf) {
                    None => None,
                    Some(here) if at + 1 < here.areas.len() && self.largest_gap(leaf) >= len => {
                        Some((leaf, at + 1))
                    }
                    Some(_) => {
                        let wide = self.wide_from(leaf + 1, len);
                        Some((wide.unwrap_or(self.leaves.len()), 0))
                    }
                };
                if gap.len() >= len && gap.end() > addr {
                    return Some(gap);
                }
            }
        })
    }

    fn gaps_below(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let (mut leaf, mut at) = self.position(addr);
        if self.area(leaf, at).is_some_and(|vma| vma.start < addr) {
            at += 1;
            if at == self.leaves[leaf].areas.len() {
                (leaf, at) = (leaf + 1, 0);
            }
        }
        let mut next = Some((leaf, at));
        core::iter::from_fn(move || {
            loop {
                let (leaf, at) = next?;
                let gap = self.gap(leaf, at);
                next = if at > 0 && self.largest_gap(leaf) >= len {
                    Some((leaf, at - 1))
                } else {
                    let wide = self.wide_below(leaf, len);
                    wide.map(|leaf| (leaf, self.leaves[leaf].areas.len() - 1))
                };
                if gap.len() >= len && gap.start() < addr {
                    return Some(gap);
                }
            }
        })
    }
}
