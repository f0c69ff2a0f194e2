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
//! areas. A leaf that is full is cut in two, and one of few areas joins a neighbour; only then does the index
//! change. At a maximum of areas (`max_map_count`, 65,530 by default) it has some three thousand entries, so
//! that moving half of them, now and then, costs less than the pointers of another level on every operation.
//! A leaf has memory for the areas in it and a few more, so that it matters little how full the leaves are.
//!
//! The index has the largest gap of each leaf, as the nodes of the maple tree (lib/maple_tree.c, since 6.1) have, and of each few dozen leaves:
//! a search for a gap passes over them without a look into them. It is measured by the first search after a
//! change, since most changes are followed by others before anybody searches.
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
const FEW: usize = CAPACITY / 4;
/// No more than these become one leaf.
const ROOMY: usize = CAPACITY - CAPACITY / 4;
/// For so many areas more a leaf gets memory at a time.
const STEP: usize = 5;
/// With memory for more than so many more it gives some back.
const SPARE: usize = 8;
/// Leaves in a group, of which the largest gap is known.
const GROUP: usize = 64;

#[derive(Clone, Debug, Default)]
struct Leaf {
    /// By address; never more than [`CAPACITY`], and empty only if there is no area at all.
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
    /// The largest of them in each [`GROUP`] of leaves, or [`UNKNOWN`]. There are none of a single group.
    groups: Vec<Cell<u64>>,
    leaves: Vec<Leaf>,
    len: usize,
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
    /// The first area that ends above `addr`. Counted in two steps, each of reads that do not wait for one
    /// another: in a bisection, each waits for the one before it, mostly for memory.
    fn at(&self, addr: u64) -> usize {
        const STRIDE: usize = 8;
        let below = |vma: &&Vma| vma.end <= addr;
        let far = self.areas.iter().skip(STRIDE - 1).step_by(STRIDE);
        let from = STRIDE * far.filter(below).count();
        let near = self.areas[from..].iter().take(STRIDE);
        from + near.filter(below).count()
    }

    /// The first area that starts at or above `addr`.
    fn from(&self, addr: u64) -> usize {
        self.areas.partition_point(|vma| vma.start < addr)
    }

    /// Takes areas out. Most often it is one, for which there is a shorter way.
    #[inline]
    fn take_out(&mut self, range: Range<usize>) {
        match range.len() {
            0 => {}
            1 => {
                self.areas.remove(range.start);
            }
            _ => {
                self.areas.drain(range);
            }
        }
    }

    /// Gives memory back that is not soon needed.
    #[inline]
    fn fit(&mut self) {
        if self.areas.capacity() > self.areas.len() + SPARE {
            self.areas.shrink_to(self.areas.len() + STEP);
        }
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
        let Place { leaf, at } = self.last.get();
        let areas = self.leaves.get(leaf).map_or(&[][..], |leaf| &leaf.areas);
        match areas.get(at) {
            // The one that was looked at last.
            Some(vma) if vma.start <= addr && addr < vma.end => Place { leaf, at },
            // In the one below, or in the gap between.
            Some(vma) if addr < vma.end && at > 0 && areas[at - 1].start <= addr => {
                let in_gap = areas[at - 1].end <= addr;
                let place = Place {
                    leaf,
                    at: if in_gap { at } else { at - 1 },
                };
                self.last.set(place);
                place
            }
            // In the next one, or in the gap below that.
            Some(vma)
                if vma.end <= addr && areas.get(at + 1).is_some_and(|next| addr < next.end) =>
            {
                let place = Place { leaf, at: at + 1 };
                self.last.set(place);
                place
            }
            _ => self.search(addr),
        }
    }

    /// [`place`](Self::place), where it is not near the one that was looked at last.
    fn search(&self, addr: u64) -> Place {
        let Place { mut leaf, .. } = self.last.get();
        if !self.is_leaf(leaf, addr) {
            leaf = self.leaf(addr);
        }
        let Some(here) = self.leaves.get(leaf) else {
            return Place::default();
        };
        let at = here.at(addr);
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

    /// Takes a leaf in, which is not empty.
    fn insert_leaf(&mut self, at: usize, leaf: Leaf) {
        self.starts.insert(at, leaf.areas[0].start);
        self.gaps.insert(at, Cell::new(UNKNOWN));
        self.leaves.insert(at, leaf);
        self.forget_gap(at + 1);
        self.forget_groups(at);
    }

    fn remove_leaves(&mut self, range: Range<usize>) {
        self.starts.drain(range.clone());
        self.gaps.drain(range.clone());
        self.leaves.drain(range.clone());
        self.forget_gap(range.start);
        self.forget_groups(range.start);
    }

    #[inline]
    fn forget_gap(&mut self, leaf: usize) {
        if let Some(gap) = self.gaps.get_mut(leaf) {
            gap.set(UNKNOWN);
        }
        if let Some(group) = self.groups.get_mut(leaf / GROUP) {
            group.set(UNKNOWN);
        }
    }

    /// Leaves came or went at a place: from there on, the groups are of others.
    fn forget_groups(&mut self, leaf: usize) {
        let groups = match self.leaves.len().div_ceil(GROUP) {
            0 | 1 => 0,
            groups => groups,
        };
        self.groups.resize(groups, Cell::new(UNKNOWN));
        for group in self.groups.iter_mut().skip(leaf / GROUP) {
            group.set(UNKNOWN);
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

    /// Whether a leaf of the group may have a gap so large.
    fn group_is_wide(&self, group: usize, len: u64) -> bool {
        let Some(known) = self.groups.get(group) else {
            return true;
        };
        if known.get() == UNKNOWN {
            let first = group * GROUP;
            let leaves = first..self.leaves.len().min(first + GROUP);
            let largest = leaves.map(|leaf| self.largest_gap(leaf)).max();
            known.set(largest.unwrap_or(0));
        }
        known.get() >= len
    }

    /// The first leaf from this one on that has a gap so large.
    fn wide_from(&self, mut leaf: usize, len: u64) -> Option<usize> {
        while leaf < self.leaves.len() {
            if leaf % GROUP == 0 && !self.group_is_wide(leaf / GROUP, len) {
                leaf += GROUP;
                continue;
            }
            if self.largest_gap(leaf) >= len {
                return Some(leaf);
            }
            leaf += 1;
        }
        None
    }

    /// The last leaf before this one that has a gap so large.
    fn wide_below(&self, mut leaf: usize, len: u64) -> Option<usize> {
        while leaf > 0 {
            if leaf % GROUP == 0 && !self.group_is_wide(leaf / GROUP - 1, len) {
                leaf -= GROUP;
                continue;
            }
            leaf -= 1;
            if self.largest_gap(leaf) >= len {
                return Some(leaf);
            }
        }
        None
    }

    /// Brings the index up to date after a change at a place.
    #[inline]
    fn changed(&mut self, leaf: usize, at: usize) {
        let areas = &self.leaves[leaf].areas;
        let last = at + 1 >= areas.len();
        if at == 0 {
            self.starts[leaf] = areas[0].start;
        }
        self.forget_gap(leaf);
        if last {
            self.forget_gap(leaf + 1);
        }
    }

    /// The place for an area that starts at `addr`, in a leaf with memory for it.
    #[inline]
    fn room(&mut self, addr: u64) -> Result<Place, OutOfMemory> {
        let place = self.place(addr);
        let here = self.leaves.get(place.leaf);
        if here.is_some_and(|leaf| leaf.areas.len() < leaf.areas.capacity().min(CAPACITY)) {
            Ok(place)
        } else {
            self.make_room(place, addr)
        }
    }

    /// [`room`](Self::room), where there is none.
    #[cold]
    fn make_room(&mut self, mut place: Place, addr: u64) -> Result<Place, OutOfMemory> {
        if self.leaves.is_empty() {
            self.leaves.try_reserve_exact(1)?;
            self.starts.try_reserve_exact(1)?;
            self.gaps.try_reserve_exact(1)?;
            self.leaves.push(Leaf::default());
            self.starts.push(0);
            self.gaps.push(Cell::new(UNKNOWN));
        } else if self.leaves[place.leaf].areas.len() == CAPACITY {
            self.cut_leaf(place)?;
            place = self.place(addr);
        }
        let areas = &mut self.leaves[place.leaf].areas;
        areas.try_reserve_exact(STEP.min(CAPACITY - areas.len()))?;
        Ok(place)
    }

    /// Cuts a full leaf in two. At either end of all it stays nearly full: whoever maps one area after the
    /// other fills the leaves.
    fn cut_leaf(&mut self, Place { leaf, at }: Place) -> Result<(), OutOfMemory> {
        let keep = if at == CAPACITY && leaf + 1 == self.leaves.len() {
            CAPACITY - 1
        } else if at == 0 && leaf == 0 {
            1
        } else {
            CAPACITY / 2
        };
        let mut upper = Leaf::default();
        let moved = CAPACITY - keep;
        upper.areas.try_reserve_exact(CAPACITY.min(moved + STEP))?;
        self.starts.try_reserve(1)?;
        self.gaps.try_reserve(1)?;
        self.groups.try_reserve(2)?;
        self.leaves.try_reserve(1)?;
        upper.areas.extend(self.leaves[leaf].areas.drain(keep..));
        self.leaves[leaf].fit();
        self.insert_leaf(leaf + 1, upper);
        self.forget_gap(leaf);
        Ok(())
    }

    /// After areas went from a leaf: gives memory back, or lets it join a neighbour, if they fit into one and
    /// leave some room.
    #[inline]
    fn thin_out(&mut self, leaf: usize) {
        let Some(here) = self.leaves.get_mut(leaf) else {
            return;
        };
        here.fit();
        if here.areas.len() < FEW && self.leaves.len() > 1 {
            self.join_leaf(leaf);
        }
    }

    fn join_leaf(&mut self, leaf: usize) {
        let len = |leaf: usize| {
            self.leaves
                .get(leaf)
                .map_or(CAPACITY, |leaf| leaf.areas.len())
        };
        let few = len(leaf);
        let lower = if few + len(leaf + 1) <= ROOMY {
            leaf
        } else if leaf > 0 && few + len(leaf - 1) <= ROOMY {
            leaf - 1
        } else {
            return;
        };
        let mut upper = core::mem::take(&mut self.leaves[lower + 1].areas);
        self.remove_leaves(lower + 1..lower + 2);
        self.forget_gap(lower);
        let areas = &mut self.leaves[lower].areas;
        areas.reserve_exact(upper.len() + STEP);
        areas.append(&mut upper);
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

    #[inline]
    fn reserve(&mut self, addr: u64) -> Result<(), OutOfMemory> {
        self.room(addr).map(|_| ())
    }

    #[inline]
    fn find(&self, addr: u64) -> Option<&Vma> {
        let Place { leaf, at } = self.place(addr);
        let here = self.area(leaf, at);
        here.or_else(|| self.area(leaf + 1, 0))
    }

    #[inline]
    fn prev(&self, addr: u64) -> Option<&Vma> {
        let Place { leaf, at } = self.place(addr);
        let here = self.area(leaf, at).filter(|vma| vma.start < addr);
        here.or_else(|| self.before(leaf, at))
    }

    fn insert(&mut self, vma: Vma) {
        let Ok(Place { leaf, at }) = self.room(vma.start) else {
            panic!("{OutOfMemory}")
        };
        self.len += 1;
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

    fn split(&mut self, start: u64, at: u64, pgoff: u64) {
        let Ok(Place { leaf, at: lower }) = self.room(start) else {
            panic!("{OutOfMemory}")
        };
        let areas = &mut self.leaves[leaf].areas;
        debug_assert_eq!(areas[lower].start, start);
        let mut upper = areas[lower];
        (upper.start, upper.pgoff) = (at, pgoff);
        areas[lower].end = at;
        // No gap changes.
        areas.insert(lower + 1, upper);
        self.len += 1;
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
        here.take_out(at + 1..end);
        self.len -= end - at - 1;
        self.changed(leaf, at);
        self.last.set(Place { leaf, at });
        self.thin_out(leaf);
    }

    fn remove_range(&mut self, range: Range<u64>, mut gone: impl FnMut(&Vma)) {
        let Place { mut leaf, at } = self.place(range.start);
        let begun = leaf;
        let mut first = at;
        if self
            .area(leaf, at)
            .is_some_and(|vma| vma.start < range.start)
        {
            first += 1;
        }
        let mut whole = leaf..leaf;
        while let Some(here) = self.leaves.get_mut(leaf) {
            let mut last = first;
            while let Some(vma) = here.areas.get(last).filter(|vma| vma.start < range.end) {
                gone(vma);
                last += 1;
            }
            let goes_on = last == here.areas.len();
            self.len -= last - first;
            if first == 0 && goes_on {
                if whole.is_empty() {
                    whole.start = leaf;
                }
                whole.end = leaf + 1;
            } else if first < last {
                here.take_out(first..last);
                self.changed(leaf, first);
            }
            if !goes_on {
                break;
            }
            first = 0;
            leaf += 1;
        }
        // The last that lost something, and the first.
        leaf -= whole.len();
        if !whole.is_empty() {
            self.remove_leaves(whole);
        }
        self.thin_out(leaf);
        if leaf > begun {
            self.thin_out(begun);
        }
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
