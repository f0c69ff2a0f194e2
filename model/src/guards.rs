// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Guard regions (`MADV_GUARD_INSTALL`): pages that are mapped, and whose touch is a SIGSEGV all the same.
//!
//! They are markers in the page tables, so they know of no area: they stay where areas are cut and merged,
//! move with `mremap`, and go with what unmaps. `MADV_DONTNEED` and its like leave them.
//!
//! `madvise_guard_install`, `madvise_guard_remove` (mm/madvise.c): since 6.13 of private anonymous memory, since
//! 6.15 of files, too; flagged (`VM_MAYBE_GUARD`) since 6.19.

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

/// What is guarded: ranges of whole pages, none beside another, from start to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guards(BTreeMap<u64, u64>);

impl Guards {
    pub(crate) fn contains(&self, page: u64) -> bool {
        self.within(page..page + 1).next().is_some()
    }

    /// Whether a page of the range is guarded.
    pub(crate) fn any(&self, range: Range<u64>) -> bool {
        self.within(range).next().is_some()
    }

    pub(crate) fn install(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        let Range { mut start, mut end } = range;
        if let Some((&below, _)) = self
            .0
            .range(..start)
            .next_back()
            .filter(|(_, at)| **at == start)
        {
            start = below;
        }
        if let Some(above) = self.0.remove(&end) {
            end = above;
        }
        self.0.insert(start, end);
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if self.0.is_empty() {
            return;
        }
        let overlapping: Vec<u64> = self.within(range.clone()).map(|(start, _)| start).collect();
        for start in overlapping {
            let Some(end) = self.0.remove(&start) else {
                continue;
            };
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if range.end < end {
                self.0.insert(range.end, end);
            }
        }
    }

    /// What is guarded of the range is guarded elsewhere from now on.
    pub(crate) fn rename(&mut self, range: Range<u64>, to: u64) {
        let clipped = |(start, end): (u64, u64)| start.max(range.start)..end.min(range.end);
        let moved: Vec<Range<u64>> = self.within(range.clone()).map(clipped).collect();
        self.remove(range.clone());
        for part in moved {
            self.install(part.start - range.start + to..part.end - range.start + to);
        }
    }

    /// The guarded ranges of which a part is within the range, from the last to the first.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = range.end.max(range.start);
        let below = self.0.range(..end).rev();
        below
            .map(|(&start, &end)| (start, end))
            .take_while(move |&(_, end)| end > range.start && !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    /// The same as a set of single pages, whatever comes.
    #[test]
    fn as_a_set_of_pages() {
        let (mut guards, mut pages) = (Guards::default(), BTreeSet::new());
        let mut state: u64 = 88_172_645_463_325_252;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let start = state % 40;
            let range = start..start + state / 64 % 9;
            match state / 1024 % 3 {
                0 => {
                    guards.install(range.clone());
                    pages.extend(range);
                }
                1 => {
                    guards.remove(range.clone());
                    pages.retain(|page| !range.contains(page));
                }
                _ => {
                    guards.rename(range.clone(), 50);
                    guards.rename(50..60, 60);
                    let moved = pages.iter().filter(|page| range.contains(page));
                    let moved: Vec<u64> = moved.map(|page| page - range.start + 60).collect();
                    pages.retain(|page| !range.contains(page));
                    pages.extend(moved);
                    assert_eq!(guards.any(60..70), pages.iter().any(|page| *page >= 60));
                    guards.remove(60..70);
                    pages.retain(|page| *page < 60);
                }
            }
            assert!((0..70).all(|page| guards.contains(page) == pages.contains(&page)));
            let mut last = None;
            for (&start, &end) in &guards.0 {
                assert!(start < end && last.is_none_or(|last| last < start));
                last = Some(end);
            }
        }
    }
}
