// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The first half of `munmap`: which steps it will take (`vms_gather_munmap_vmas`).
//!
//! This file stands alone: it needs `core` and nothing of the crate, allocates nothing, and only
//! reads. So it also runs on the areas of a live process, where there is nothing to undo.

/// What gathering sees of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// It may not be changed (`mseal`).
    pub sealed: bool,
}

/// A read-only view of an address space.
pub trait View {
    /// The first area that ends above `addr` (`find_vma`).
    fn find(&self, addr: u64) -> Option<Extent>;
    /// How many areas there are (`mm->map_count`).
    fn map_count(&self) -> u64;
}

/// Why a range cannot be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A hole would be punched, and there is no room for one area more: ENOMEM.
    Limit,
    /// An area is sealed: EPERM.
    Sealed,
}

/// One step of an unmapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It ends here with an error. The splits so far stay.
    Refuse(Refusal),
    /// An area is cut in two. The driver may refuse.
    Split {
        /// Start of the area.
        area: u64,
        /// Where the cut is.
        at: u64,
        /// Whether the new piece is the lower one, else the upper one.
        new_below: bool,
    },
    /// This area, or what a split left of it, goes away when all is gathered.
    Detach {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

/// Emits the steps, one a call, reading the view afresh each time. So a caller that carries the splits
/// out as they come and one that only looks get the same steps.
#[derive(Clone, Debug)]
pub struct Gather {
    cursor: u64,
    end: u64,
    max_map_count: u64,
    limit_at_every_split: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Walk,
    TailCut,
    Done,
}

impl Gather {
    /// For the range `[start, end)`, page-aligned and not empty.
    pub fn new(start: u64, end: u64, max_map_count: u64) -> Self {
        Self {
            cursor: start,
            end,
            max_map_count,
            limit_at_every_split: false,
            state: State::Begin,
        }
    }

    /// Checks the limit at every split, not only where a hole is punched (kernels before 2.6.33).
    pub fn limit_at_every_split(mut self, yes: bool) -> Self {
        self.limit_at_every_split = yes;
        self
    }

    /// The next step; `None` when all is gathered.
    pub fn next(&mut self, view: &impl View) -> Option<Step> {
        if self.state == State::Done {
            return None;
        }
        let Some(area) = view.find(self.cursor).filter(|area| area.start < self.end) else {
            self.state = State::Done;
            return None;
        };
        let full = view.map_count() >= self.max_map_count;
        if self.state == State::Begin {
            self.state = State::Walk;
            if area.start < self.cursor {
                //     start            start    end
                // |-----|******|  or  |--|******|--|
                //
                // The second takes one area more in the end: only there the limit counts, so that at
                // the limit memory can still be given back.
                if full && (self.end < area.end || self.limit_at_every_split) {
                    return self.refuse(Refusal::Limit);
                }
                if area.sealed {
                    return self.refuse(Refusal::Sealed);
                }
                return Some(Step::Split {
                    area: area.start,
                    at: self.cursor,
                    new_below: true,
                });
            }
        }
        if area.sealed {
            return self.refuse(Refusal::Sealed);
        }
        if area.end > self.end && self.state == State::Walk {
            if full && self.limit_at_every_split {
                return self.refuse(Refusal::Limit);
            }
            self.state = State::TailCut;
            return Some(Step::Split {
                area: area.start.max(self.cursor),
                at: self.end,
                new_below: false,
            });
        }
        let start = area.start.max(self.cursor);
        self.cursor = area.end.min(self.end);
        if self.cursor == self.end {
            self.state = State::Done;
        }
        Some(Step::Detach {
            start,
            end: self.cursor,
        })
    }

    fn refuse(&mut self, refusal: Refusal) -> Option<Step> {
        self.state = State::Done;
        Some(Step::Refuse(refusal))
    }
}
