// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`RbList`]: areas in a sorted list, in a red-black tree, and the last one found in a cache.
//!
//! ```text
//!                  D                  cache: E
//!                /   \
//!              B       F              tree: for searches
//!             / \     / \
//!            A   C   E   G
//!            A <> B <> C <> D <> E <> F <> G      list: for neighbours
//! ```
//!
//! As the kernel kept them until 6.0: `mm->mm_rb`, `mm->mmap` and `mm->mmap_cache` (since 3.15 a cache
//! of four for each thread). Each node of the tree also knows the largest gap below it, as since 3.8
//! (`rb_subtree_gap`).
//!
//! Nodes are in one vector and name each other by their places in it.

use alloc::vec::Vec;
use core::{cell::Cell, ops::Range};

use super::{Container, Gap, OutOfMemory};
use crate::Vma;

/// A place in the vector of nodes.
type Id = u32;
/// No node. The entry at this place stands for it, so that its colour and gap can be read.
const NIL: Id = 0;

#[derive(Clone, Copy, Debug)]
struct Node {
    vma: Vma,
    /// Towards lower and towards higher addresses.
    child: [Id; 2],
    parent: Id,
    /// The neighbours below and above.
    next: [Id; 2],
    red: bool,
    /// Bytes between the area below and this one.
    gap: u64,
    /// The largest `gap` of this node and all under it.
    subtree_gap: u64,
}

const BELOW: usize = 0;
const ABOVE: usize = 1;

/// Areas by address, as kernels before 6.1 kept them: see the top of `container/rb_list.rs`.
#[derive(Clone, Debug)]
pub struct RbList {
    nodes: Vec<Node>,
    /// Places in `nodes` that are free.
    free: Vec<Id>,
    root: Id,
    /// The lowest and the highest area.
    ends: [Id; 2],
    /// The area that was found last.
    cache: Cell<Id>,
}

impl Default for RbList {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: NIL,
            ends: [NIL; 2],
            cache: Cell::new(NIL),
        }
    }
}

impl RbList {
    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn vma(&self, id: Id) -> Option<&Vma> {
        (id != NIL).then(|| &self.node(id).vma)
    }

    /// `find_vma`
    fn find_id(&self, addr: u64) -> Id {
        let cached = self.cache.get();
        if cached != NIL && (self.node(cached).vma.start..self.node(cached).vma.end).contains(&addr)
        {
            return cached;
        }
        let mut found = NIL;
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            if node.vma.end > addr {
                found = at;
                if node.vma.start <= addr {
                    break;
                }
                at = node.child[BELOW];
            } else {
                at = node.child[ABOVE];
            }
        }
        self.cache.set(found);
        found
    }

    /// The last that starts below `addr`.
    fn prev_id(&self, addr: u64) -> Id {
        let cached = self.cache.get();
        if cached != NIL {
            let Node { vma, next, .. } = self.node(cached);
            if vma.start < addr && addr <= vma.end {
                return cached;
            }
            if vma.start == addr {
                return next[BELOW];
            }
        }
        let mut found = NIL;
        let mut at = self.root;
        while at != NIL {
            let node = self.node(at);
            let below = node.vma.start < addr;
            if below {
                found = at;
            }
            at = node.child[usize::from(below)];
        }
        found
    }

    fn side(&self, parent: Id, child: Id) -> usize {
        usize::from(self.node(parent).child[ABOVE] == child)
    }

    /// Puts `new` where `old` hangs.
    fn relink(&mut self, old: Id, new: Id) {
        let parent = self.node(old).parent;
        if parent == NIL {
            self.root = new;
        } else {
            let side = self.side(parent, old);
            self.node_mut(parent).child[side] = new;
        }
        if new != NIL {
            self.node_mut(new).parent = parent;
        }
    }

    /// Turns the tree at `id`: its child on the other side takes its place.
    fn rotate(&mut self, id: Id, side: usize) {
        let up = self.node(id).child[1 - side];
        let middle = self.node(up).child[side];
        self.relink(id, up);
        self.node_mut(up).child[side] = id;
        self.node_mut(id).parent = up;
        self.node_mut(id).child[1 - side] = middle;
        if middle != NIL {
            self.node_mut(middle).parent = id;
        }
        self.node_mut(up).subtree_gap = self.node(id).subtree_gap;
        self.node_mut(id).subtree_gap = self.largest_gap(id);
    }

    fn largest_gap(&self, id: Id) -> u64 {
        let node = self.node(id);
        let [below, above] = node.child.map(|child| self.node(child).subtree_gap);
        node.gap.max(below).max(above)
    }

    /// Brings the largest gaps from `id` upwards up to date, as far as something changes.
    fn propagate(&mut self, mut id: Id) {
        while id != NIL {
            let largest = self.largest_gap(id);
            if self.node(id).subtree_gap == largest {
                break;
            }
            self.node_mut(id).subtree_gap = largest;
            id = self.node(id).parent;
        }
    }

    /// Measures the gap below an area again.
    fn measure(&mut self, id: Id) {
        if id == NIL {
            return;
        }
        let Node { vma, next, .. } = self.node(id);
        let gap = vma.start - self.vma(next[BELOW]).map_or(0, |below| below.end);
        if self.node(id).gap != gap {
            self.node_mut(id).gap = gap;
            self.propagate(id);
        }
    }

    fn is_red(&self, id: Id) -> bool {
        id != NIL && self.node(id).red
    }

    /// A red node must not have a red parent.
    fn fix_insertion(&mut self, mut id: Id) {
        while self.is_red(self.node(id).parent) {
            let mut parent = self.node(id).parent;
            // The root is black, so a red node has a parent.
            let grandparent = self.node(parent).parent;
            let side = self.side(grandparent, parent);
            let uncle = self.node(grandparent).child[1 - side];
            if self.is_red(uncle) {
                self.node_mut(parent).red = false;
                self.node_mut(uncle).red = false;
                self.node_mut(grandparent).red = true;
                id = grandparent;
                continue;
            }
            if self.side(parent, id) != side {
                self.rotate(parent, side);
                core::mem::swap(&mut id, &mut parent);
            }
            self.node_mut(parent).red = false;
            self.node_mut(grandparent).red = true;
            self.rotate(grandparent, 1 - side);
        }
        let root = self.root;
        self.node_mut(root).red = false;
    }

    /// The way through `id`, which hangs at `parent` and may be none, lacks a black node.
    fn fix_removal(&mut self, mut id: Id, mut parent: Id) {
        while parent != NIL && !self.is_red(id) {
            let side = usize::from(self.node(parent).child[ABOVE] == id);
            let mut sibling = self.node(parent).child[1 - side];
            if self.is_red(sibling) {
                self.node_mut(sibling).red = false;
                self.node_mut(parent).red = true;
                self.rotate(parent, side);
                sibling = self.node(parent).child[1 - side];
            }
            let [near, far] = [side, 1 - side].map(|side| self.node(sibling).child[side]);
            if !self.is_red(near) && !self.is_red(far) {
                self.node_mut(sibling).red = true;
                id = parent;
                parent = self.node(id).parent;
                continue;
            }
            if !self.is_red(far) {
                self.node_mut(near).red = false;
                self.node_mut(sibling).red = true;
                self.rotate(sibling, 1 - side);
                sibling = self.node(parent).child[1 - side];
            }
            self.node_mut(sibling).red = self.node(parent).red;
            self.node_mut(parent).red = false;
            let far = self.node(sibling).child[1 - side];
            self.node_mut(far).red = false;
            self.rotate(parent, side);
            return;
        }
        if id != NIL {
            self.node_mut(id).red = false;
        }
    }

    /// Adds an area above the neighbour `below`, which may be none.
    fn insert_above(&mut self, below: Id, vma: Vma) {
        let above = match below {
            NIL => self.ends[BELOW],
            below => self.node(below).next[ABOVE],
        };
        let node = Node {
            vma,
            child: [NIL; 2],
            parent: NIL,
            next: [below, above],
            red: true,
            gap: vma.start - self.vma(below).map_or(0, |below| below.end),
            subtree_gap: 0,
        };
        if self.nodes.is_empty() {
            // Black, and without a gap.
            self.nodes.push(Node {
                red: false,
                gap: 0,
                next: [NIL; 2],
                ..node
            });
        }
        let id = match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                let id = Id::try_from(self.nodes.len()).expect("fewer than 2^32 areas");
                self.nodes.push(node);
                id
            }
        };
        for (side, neighbour) in [below, above].into_iter().enumerate() {
            match neighbour {
                NIL => self.ends[side] = id,
                neighbour => self.node_mut(neighbour).next[1 - side] = id,
            }
        }
        // One of two neighbours in order has no child towards the other.
        if self.root == NIL {
            self.root = id;
        } else if below != NIL && self.node(below).child[ABOVE] == NIL {
            self.node_mut(below).child[ABOVE] = id;
            self.node_mut(id).parent = below;
        } else {
            self.node_mut(above).child[BELOW] = id;
            self.node_mut(id).parent = above;
        }
        self.propagate(id);
        self.measure(above);
        self.fix_insertion(id);
        self.cache.set(id);
    }

    /// Takes a node out of the tree and the list.
    fn remove(&mut self, id: Id) {
        let Node { child, next, .. } = *self.node(id);
        let (hole, from, black);
        if child[BELOW] != NIL && child[ABOVE] != NIL {
            // The next one in order has no child below: it takes this one's place.
            let heir = next[ABOVE];
            black = !self.node(heir).red;
            hole = self.node(heir).child[ABOVE];
            if self.node(heir).parent == id {
                from = heir;
            } else {
                from = self.node(heir).parent;
                self.relink(heir, hole);
                self.node_mut(heir).child[ABOVE] = child[ABOVE];
                self.node_mut(child[ABOVE]).parent = heir;
            }
            self.relink(id, heir);
            self.node_mut(heir).child[BELOW] = child[BELOW];
            self.node_mut(child[BELOW]).parent = heir;
            self.node_mut(heir).red = self.node(id).red;
        } else {
            black = !self.node(id).red;
            hole = child[usize::from(child[BELOW] == NIL)];
            from = self.node(id).parent;
            self.relink(id, hole);
        }
        // All the way up: where a node went, a gap that is still the largest may stand above.
        let mut up = from;
        while up != NIL {
            self.node_mut(up).subtree_gap = self.largest_gap(up);
            up = self.node(up).parent;
        }
        if black {
            self.fix_removal(hole, from);
        }

        for side in [BELOW, ABOVE] {
            let other = 1 - side;
            match next[side] {
                NIL => self.ends[side] = next[other],
                neighbour => self.node_mut(neighbour).next[other] = next[other],
            }
        }
        self.measure(next[ABOVE]);
        if self.cache.get() == id {
            self.cache.set(NIL);
        }
        self.free.push(id);
    }

    /// The first node in the tree under `id`, in the order of addresses, that ends a gap of `len` bytes.
    fn lowest_with_gap(&self, mut id: Id, len: u64) -> Id {
        if self.node(id).subtree_gap < len {
            return NIL;
        }
        loop {
            let Node { child, gap, .. } = *self.node(id);
            if self.node(child[BELOW]).subtree_gap >= len {
                id = child[BELOW];
            } else if gap >= len {
                return id;
            } else {
                id = child[ABOVE];
            }
        }
    }

    fn highest_with_gap(&self, mut id: Id, len: u64) -> Id {
        if self.node(id).subtree_gap < len {
            return NIL;
        }
        loop {
            let Node { child, gap, .. } = *self.node(id);
            if self.node(child[ABOVE]).subtree_gap >= len {
                id = child[ABOVE];
            } else if gap >= len {
                return id;
            } else {
                id = child[BELOW];
            }
        }
    }

    /// The next node from `id` on, or itself, that ends a gap of `len` bytes.
    fn gap_from(&self, mut id: Id, len: u64) -> Id {
        while id != NIL {
            if self.node(id).gap >= len {
                return id;
            }
            let found = self.lowest_with_gap(self.node(id).child[ABOVE], len);
            if found != NIL {
                return found;
            }
            id = self.up(id, ABOVE);
        }
        NIL
    }

    fn gap_down_from(&self, mut id: Id, len: u64) -> Id {
        while id != NIL {
            if self.node(id).gap >= len {
                return id;
            }
            let found = self.highest_with_gap(self.node(id).child[BELOW], len);
            if found != NIL {
                return found;
            }
            id = self.up(id, BELOW);
        }
        NIL
    }

    /// The first node upwards in the tree that lies on that side of `id`.
    fn up(&self, mut id: Id, side: usize) -> Id {
        loop {
            let parent = self.node(id).parent;
            if parent == NIL || self.node(parent).child[side] != id {
                return parent;
            }
            id = parent;
        }
    }

    fn walk(&self, from: Id, side: usize) -> impl Iterator<Item = &Vma> {
        let mut at = from;
        core::iter::from_fn(move || {
            let vma = self.vma(at)?;
            at = self.node(at).next[side];
            Some(vma)
        })
    }

    /// The gap that ends where this node starts, or behind all.
    fn gap(&self, above: Id) -> Gap<'_> {
        let below = match above {
            NIL => self.ends[ABOVE],
            above => self.node(above).next[BELOW],
        };
        Gap {
            below: self.vma(below),
            above: self.vma(above),
        }
    }
}

/// The areas from one to another, from both ends.
struct Between<'a> {
    list: &'a RbList,
    /// What is left: the first and the last; none if the first is.
    ends: [Id; 2],
}

impl<'a> Between<'a> {
    fn step(&mut self, side: usize) -> Option<&'a Vma> {
        let at = self.ends[side];
        let vma = self.list.vma(at)?;
        self.ends[side] = self.list.node(at).next[1 - side];
        if at == self.ends[1 - side] {
            self.ends = [NIL; 2];
        }
        Some(vma)
    }
}

impl<'a> Iterator for Between<'a> {
    type Item = &'a Vma;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(BELOW)
    }
}

impl DoubleEndedIterator for Between<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(ABOVE)
    }
}

impl Container for RbList {
    fn len(&self) -> usize {
        self.nodes.len().saturating_sub(1) - self.free.len()
    }

    fn reserve(&mut self, _addr: u64) -> Result<(), OutOfMemory> {
        // The first node takes a place for "none" besides. A place that is freed is noted without fail.
        self.nodes.try_reserve(2)?;
        let places = self.nodes.capacity();
        self.free.try_reserve(places - self.free.len())?;
        Ok(())
    }

    fn find(&self, addr: u64) -> Option<&Vma> {
        self.vma(self.find_id(addr))
    }

    fn prev(&self, addr: u64) -> Option<&Vma> {
        self.vma(self.prev_id(addr))
    }

    fn insert(&mut self, vma: Vma) {
        self.insert_above(self.prev_id(vma.start), vma);
    }

    fn split(&mut self, start: u64, at: u64, pgoff: u64) {
        let id = self.find_id(start);
        let lower = &mut self.node_mut(id).vma;
        debug_assert_eq!(lower.start, start);
        let upper = Vma {
            start: at,
            pgoff,
            ..*lower
        };
        lower.end = at;
        self.insert_above(id, upper);
    }

    fn replace(&mut self, start: u64, vma: Vma) {
        let id = self.find_id(start);
        debug_assert_eq!(self.node(id).vma.start, start);
        self.node_mut(id).vma = vma;
        self.measure(id);
        self.measure(self.node(id).next[ABOVE]);
    }

    fn remove_range(&mut self, range: Range<u64>, mut gone: impl FnMut(&Vma)) {
        let mut id = match self.prev_id(range.start) {
            NIL => self.ends[BELOW],
            below => self.node(below).next[ABOVE],
        };
        while id != NIL && self.node(id).vma.start < range.end {
            let next = self.node(id).next[ABOVE];
            gone(&self.node(id).vma);
            self.remove(id);
            id = next;
        }
    }

    fn iter_from(&self, addr: u64) -> impl DoubleEndedIterator<Item = &Vma> {
        let first = self.find_id(addr);
        let last = if first == NIL { NIL } else { self.ends[ABOVE] };
        Between {
            list: self,
            ends: [first, last],
        }
    }

    fn iter_below(&self, addr: u64) -> impl Iterator<Item = &Vma> {
        self.walk(self.prev_id(addr), BELOW)
    }

    fn gaps_from(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        let mut next = Some(self.find_id(addr));
        core::iter::from_fn(move || {
            loop {
                let found = self.gap_from(next?, len);
                next = (found != NIL).then(|| self.node(found).next[ABOVE]);
                let gap = self.gap(found);
                if gap.len() >= len && gap.end() > addr {
                    return Some(gap);
                }
            }
        })
    }

    fn gaps_below(&self, addr: u64, len: u64) -> impl Iterator<Item = Gap<'_>> {
        // The gap that `addr` is in, or the one below the area that it is in, ends the search's first
        // step; behind all it has no node.
        let mut behind = Some(match self.prev_id(addr) {
            NIL => self.ends[BELOW],
            below => self.node(below).next[ABOVE],
        });
        core::iter::from_fn(move || {
            loop {
                let above = behind?;
                let found = match above {
                    NIL if self.gap(NIL).len() >= len => NIL,
                    NIL => self.gap_down_from(self.ends[ABOVE], len),
                    above => self.gap_down_from(above, len),
                };
                if found == NIL && above != NIL {
                    behind = None;
                    return None;
                }
                let gap = self.gap(found);
                behind = match found {
                    NIL => (self.ends[ABOVE] != NIL).then_some(self.ends[ABOVE]),
                    found => Some(self.node(found).next[BELOW]).filter(|&below| below != NIL),
                };
                if gap.len() >= len && gap.start() < addr {
                    return Some(gap);
                }
            }
        })
    }
}
