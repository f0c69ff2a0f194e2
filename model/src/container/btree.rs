// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`BTree`]: areas in leaves of a few dozen, and the leaves in a sorted index.
//!
//! ```text
//! starts  [ 0x10000 ,          0x90000 ,          0x300000 ]
//!              |                  |                  |
//! leaves  [ ABCDEF.. ,         GHI..... ,         JKLMNOP. ]     in each: areas by address, largest gap
//! ```
//!
//! A B-tree of two levels. An operation bisects the index, then a leaf, and moves at most one leaf's
//! areas. Only when a leaf overflows or runs empty does the index change. At a maximum of areas
//! (`max_map_count`, 65,530 by default) the index has some two thousand entries, so that moving half of
//! them, once in a dozen operations, costs less than the pointers of another level on every one.
//!
//! Each leaf knows its largest inner gap, exactly, as the maple tree's nodes do: a search for a gap
//! passes over a leaf by a glance at it. Gaps between leaves are seen in passing.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Container, Gap, OutOfMemory};
use crate::Vma;

/// Areas in a leaf, at most.
const CAPACITY: usize = 32;
/// A leaf with fewer than these looks for a neighbour to join.
const FEW: usize = CAPACITY / 4;

#[derive(Clone, Debug)]
struct Leaf {
    /// By address; never empty, never more than [`CAPACITY`].
    areas: Vec<Vma>,
    /// The largest gap between two areas of this leaf, in bytes.
    max_gap: u64,
}

/// Areas by address, in the way of a maple tree: see the top of `container/btree.rs`.
#[derive(Clone, Debug, Default)]
pub struct BTree {
    /// Where each leaf starts: the key of the index, apart from the leaves so that a search touches
    /// little memory.
    starts: Vec<u64>,
    leaves: Vec<Leaf>,
    len: usize,
    /// The memory of the next leaf.
    spare: Option<Vec<Vma>>,
}

impl Leaf {
    fn start(&self) -> u64 {
        self.areas[0].start
    }

    fn end(&self) -> u64 {
        self.areas[self.areas.len() - 1].end
    }

    fn measure(&mut self) {
        let gaps = self
            .areas
            .windows(2)
            .map(|pair| pair[1].start - pair[0].end);
        self.max_gap = gaps.max().unwrap_or(0);
    }

    /// The size of the gap between the areas at `at - 1` and `at`; 0 at the edges of the leaf.
    fn gap_before(&self, at: usize) -> u64 {
        if at == 0 || at >= self.areas.len() {
            return 0;
        }
        self.areas[at].start - self.areas[at - 1].end
    }

    /// Puts an area in at `at`, for which there is room.
    fn insert(&mut self, at: usize, vma: Vma) {
        let was = self.gap_before(at);
        self.areas.insert(at, vma);
        let now = self.gap_before(at).max(self.gap_before(at + 1));
        self.gap_changed(was, now);
    }

    /// One of the gaps became another.
    fn gap_changed(&mut self, was: u64, now: u64) {
        if now >= self.max_gap {
            self.max_gap = now;
        } else if was == self.max_gap {
            self.measure();
        }
    }

    /// The first area that ends above `addr`.
    fn at(&self, addr: u64) -> usize {
        self.areas.partition_point(|vma| vma.end <= addr)
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

    /// Leaf and place of the first area that ends above `addr`; behind the last leaf if there is none.
    fn position(&self, addr: u64) -> (usize, usize) {
        let leaf = self.leaf(addr);
        match self.leaves.get(leaf) {
            Some(found) if found.at(addr) < found.areas.len() => (leaf, found.at(addr)),
            Some(_) => (leaf + 1, 0),
            None => (0, 0),
        }
    }

    /// Memory for a leaf: what was reserved, or what there is.
    fn take_spare(&mut self) -> Vec<Vma> {
        self.spare
            .take()
            .unwrap_or_else(|| Vec::with_capacity(CAPACITY))
    }

    fn insert_leaf(&mut self, at: usize, areas: Vec<Vma>) {
        let mut leaf = Leaf { areas, max_gap: 0 };
        leaf.measure();
        self.starts.insert(at, leaf.start());
        self.leaves.insert(at, leaf);
    }

    fn remove_leaves(&mut self, range: Range<usize>) {
        self.starts.drain(range.clone());
        self.leaves.drain(range);
    }

    /// Makes room in a full leaf for an area at `at`, and says where it goes now.
    ///
    /// At either end of all, a new leaf is begun, and the full one stays full: whoever maps one area
    /// after the other fills the leaves. Else the leaf is halved.
    fn make_room(&mut self, leaf: usize, at: usize) -> (usize, usize) {
        let last = leaf + 1 == self.leaves.len();
        let half = if at == CAPACITY && last {
            CAPACITY
        } else if at == 0 && leaf == 0 {
            0
        } else {
            CAPACITY / 2
        };
        let mut upper = self.take_spare();
        let full = &mut self.leaves[leaf];
        upper.extend_from_slice(&full.areas[half..]);
        full.areas.truncate(half);
        full.measure();
        // One of the two may be empty for a moment, and gets the area.
        let max_gap = 0;
        let mut upper = Leaf {
            areas: upper,
            max_gap,
        };
        upper.measure();
        let start = upper.areas.first().map_or(u64::MAX, |vma| vma.start);
        self.starts.insert(leaf + 1, start);
        self.leaves.insert(leaf + 1, upper);
        if at > half || half == CAPACITY {
            (leaf + 1, at - half)
        } else {
            (leaf, at)
        }
    }

    /// Lets a leaf of few areas join a neighbour, if they fit into one and leave some room.
    fn join(&mut self, leaf: usize) {
        let Some(few) = self.leaves.get(leaf) else {
            return;
        };
        if few.areas.len() >= FEW {
            return;
        }
        let fits = |lower: usize| {
            let (Some(a), Some(b)) = (self.leaves.get(lower), self.leaves.get(lower + 1)) else {
                return false;
            };
            a.areas.len() + b.areas.len() <= CAPACITY - FEW
        };
        let lower = if fits(leaf) {
            leaf
        } else if leaf > 0 && fits(leaf - 1) {
            leaf - 1
        } else {
            return;
        };
        self.starts.remove(lower + 1);
        let mut upper = self.leaves.remove(lower + 1);
        let joined = &mut self.leaves[lower];
        let between = upper.start() - joined.end();
        joined.max_gap = joined.max_gap.max(upper.max_gap).max(between);
        joined.areas.append(&mut upper.areas);
        self.spare.get_or_insert(upper.areas);
    }

    fn gap(&self, below: Option<(usize, usize)>, above: Option<(usize, usize)>) -> Gap<'_> {
        let area = |(leaf, at): (usize, usize)| &self.leaves[leaf].areas[at];
        Gap {
            below: below.map(area),
            above: above.map(area),
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
        self.leaves.try_reserve(1)?;
        Ok(())
    }

    fn find(&self, addr: u64) -> Option<&Vma> {
        let (leaf, at) = self.position(addr);
        Some(&self.leaves.get(leaf)?.areas[at])
    }

    fn prev(&self, addr: u64) -> Option<&Vma> {
        let next = self.starts.partition_point(|&start| start < addr);
        let leaf = &self.leaves[next.checked_sub(1)?];
        // Its first area starts below.
        Some(&leaf.areas[leaf.from(addr) - 1])
    }

    fn insert(&mut self, vma: Vma) {
        self.len += 1;
        if self.leaves.is_empty() {
            let mut areas = self.take_spare();
            areas.push(vma);
            self.insert_leaf(0, areas);
            return;
        }
        let mut leaf = self.leaf(vma.start);
        let mut at = self.leaves[leaf].at(vma.start);
        if self.leaves[leaf].areas.len() == CAPACITY {
            (leaf, at) = self.make_room(leaf, at);
        }
        self.leaves[leaf].insert(at, vma);
        if at == 0 {
            self.starts[leaf] = vma.start;
        }
    }

    fn replace(&mut self, start: u64, vma: Vma) {
        let index = self.leaf(start);
        let leaf = &mut self.leaves[index];
        let at = leaf.at(start);
        debug_assert_eq!(leaf.areas[at].start, start);
        let was = leaf.gap_before(at).max(leaf.gap_before(at + 1));
        leaf.areas[at] = vma;
        let now = leaf.gap_before(at).max(leaf.gap_before(at + 1));
        if was != now {
            leaf.gap_changed(was, now);
        }
        if at == 0 {
            self.starts[index] = vma.start;
        }
    }

    fn remove_range(&mut self, range: Range<u64>) {
        let mut index = self.leaf(range.start);
        let before = self.len;
        let mut gone = index..index;
        while let Some(leaf) = self.leaves.get_mut(index) {
            if leaf.start() >= range.end {
                break;
            }
            let (first, last) = (leaf.from(range.start), leaf.from(range.end));
            self.len -= last - first;
            if last - first == leaf.areas.len() {
                if gone.is_empty() {
                    gone.start = index;
                }
                gone.end = index + 1;
            } else if first < last {
                leaf.areas.drain(first..last);
                if first == 0 {
                    self.starts[index] = leaf.start();
                }
                // The gaps between what went are one gap now, larger than each; or, at an edge, are no
                // inner ones any more.
                if first == 0 || first == leaf.areas.len() {
                    leaf.measure();
                } else {
                    leaf.max_gap = leaf.max_gap.max(leaf.gap_before(first));
                }
            }
            index += 1;
        }
        if !gone.is_empty() {
            index -= gone.len();
            self.remove_leaves(gone);
        }
        if self.len < before {
            // The last that lost something, and the one before it.
            self.join(index.saturating_sub(1));
            self.join(index.saturating_sub(2));
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
        // The next gap to look at is the one before this area.
        let mut next = Some(self.position(addr));
        core::iter::from_fn(move || {
            while let Some((leaf, at)) = next {
                let Some(here) = self.leaves.get(leaf) else {
                    // The gap behind all.
                    next = None;
                    let last = leaf
                        .checked_sub(1)
                        .map(|last| (last, self.leaves[last].areas.len() - 1));
                    let gap = self.gap(last, None);
                    return (gap.len() >= len && gap.end() > addr).then_some(gap);
                };
                if at > 0 && here.max_gap < len || at == here.areas.len() {
                    next = Some((leaf + 1, 0));
                    continue;
                }
                next = Some((leaf, at + 1));
                let below = match at.checked_sub(1) {
                    Some(below) => Some((leaf, below)),
                    None => leaf
                        .checked_sub(1)
                        .map(|last| (last, self.leaves[last].areas.len() - 1)),
                };
                let gap = self.gap(below, Some((leaf, at)));
                if gap.len() >= len && gap.end() > addr {
                    return Some(gap);
                }
            }
            None
        })
    }

    fn gaps_below(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let leaf = self.starts.partition_point(|&start| start < addr);
        // The next gap to look at is the one behind this area, or the lowest of all.
        let mut next = Some(
            leaf.checked_sub(1)
                .map(|leaf| (leaf, self.leaves[leaf].from(addr) - 1)),
        );
        core::iter::from_fn(move || {
            while let Some(below) = next {
                let above = match below {
                    Some((leaf, at)) if at + 1 < self.leaves[leaf].areas.len() => {
                        Some((leaf, at + 1))
                    }
                    Some((leaf, _)) => (leaf + 1 < self.leaves.len()).then_some((leaf + 1, 0)),
                    None => (!self.leaves.is_empty()).then_some((0, 0)),
                };
                let gap = self.gap(below, above);
                next = below.map(|(leaf, at)| {
                    if at > 0 && self.leaves[leaf].max_gap >= len {
                        Some((leaf, at - 1))
                    } else {
                        // The gap before this leaf.
                        let leaf = leaf.checked_sub(1)?;
                        Some((leaf, self.leaves[leaf].areas.len() - 1))
                    }
                });
                if gap.len() >= len && gap.start() < addr {
                    return Some(gap);
                }
            }
            None
        })
    }
}
