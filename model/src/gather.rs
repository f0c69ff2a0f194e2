// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The first half of `munmap`: which steps it will take (`vms_gather_munmap_vmas`).
//!
//! This file stands alone: it needs `core` and nothing of the crate, allocates nothing, and only
//! reads. So it also runs on the areas of a live process, where there is nothing to undo.
//!
//! The name is that of 6.12 and later. Until 6.11 the same was done by `do_munmap`, `__do_munmap` (4.20 to 6.0),
//! `do_mas_align_munmap` (6.1, 6.2) and `do_vmi_align_munmap`, up to where pages are taken out; the differences
//! are the two flags of [`Gather`].

/// What gathering sees of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// It may not be changed (`mseal`).
    pub sealed: bool,
    /// Its pages are locked in memory (`VM_LOCKED`).
    pub locked: bool,
    /// A userfaultfd watches it.
    pub watched: bool,
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
    /// It is empty, does not begin with a page, or ends beyond the address space: EINVAL.
    Range,
    /// A hole would be punched, and there is no room for one area more: ENOMEM.
    Limit,
    /// An area is sealed: EPERM.
    Sealed,
}

/// One step of an unmapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It ends here with an error, because of the area that starts at `area`. The splits so far stay.
    Refuse {
        /// Start of the area.
        area: u64,
        /// Why.
        why: Refusal,
    },
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
    /// The pages of the area that was just detached are locked no more.
    Unlock {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// The userfaultfd that watches the area that was just detached is to be told that the range goes
    /// away (`userfaultfd_unmap_prep`). Kernels before 6.12 told of all areas at once, before or after the
    /// splits.
    Announce {
        /// First byte of the area.
        start: u64,
        /// One past its last byte.
        end: u64,
    },
}

/// The range that `munmap(addr, len)` is about: whole pages (`do_vmi_munmap`). The end of the
/// addresses is `task_size`, a multiple of `page_size`, which is a power of two.
pub fn range(addr: u64, len: u64, task_size: u64, page_size: u64) -> Result<(u64, u64), Refusal> {
    if addr % page_size != 0 || addr > task_size || len > task_size - addr || len == 0 {
        return Err(Refusal::Range);
    }
    Ok((addr, addr + len.next_multiple_of(page_size)))
}

/// Emits the steps, one a call, reading the view afresh each time. So a caller that carries the splits
/// out as they come and one that only looks get the same steps.
#[derive(Clone, Debug)]
pub struct Gather {
    cursor: u64,
    end: u64,
    max_map_count: u64,
    limit_at_every_split: bool,
    new_piece_goes: bool,
    state: State,
    /// What is still to be said of the area that was just detached.
    unlock: Option<(u64, u64)>,
    announce: Option<(u64, u64)>,
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
            new_piece_goes: false,
            state: State::Begin,
            unlock: None,
            announce: None,
        }
    }

    /// Checks the limit at every split, not only where a hole is punched (kernels before 2.6.33).
    pub fn limit_at_every_split(mut self, yes: bool) -> Self {
        self.limit_at_every_split = yes;
        self
    }

    /// Of each split the new piece is the one that goes, not the one that stays (kernels before 6.3).
    pub fn new_piece_goes(mut self, yes: bool) -> Self {
        self.new_piece_goes = yes;
        self
    }

    /// The next step; `None` when all is gathered.
    pub fn next(&mut self, view: &impl View) -> Option<Step> {
        if let Some((start, end)) = self.unlock.take() {
            return Some(Step::Unlock { start, end });
        }
        if let Some((start, end)) = self.announce.take() {
            return Some(Step::Announce { start, end });
        }
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
                    return self.refuse(area.start, Refusal::Limit);
                }
                if area.sealed {
                    return self.refuse(area.start, Refusal::Sealed);
                }
                return Some(Step::Split {
                    area: area.start,
                    at: self.cursor,
                    new_below: !self.new_piece_goes,
                });
            }
        }
        let start = area.start.max(self.cursor);
        if area.sealed {
            return self.refuse(start, Refusal::Sealed);
        }
        if area.end > self.end && self.state == State::Walk {
            if full && self.limit_at_every_split {
                return self.refuse(start, Refusal::Limit);
            }
            self.state = State::TailCut;
            return Some(Step::Split {
                area: start,
                at: self.end,
                new_below: self.new_piece_goes,
            });
        }
        self.cursor = area.end.min(self.end);
        if self.cursor == self.end {
            self.state = State::Done;
        }
        let end = self.cursor;
        self.unlock = area.locked.then_some((start, end));
        self.announce = area.watched.then_some((start, end));
        Some(Step::Detach { start, end })
    }

    fn refuse(&mut self, area: u64, why: Refusal) -> Option<Step> {
        self.state = State::Done;
        Some(Step::Refuse { area, why })
    }
}
