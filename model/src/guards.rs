// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! Guard regions (`MADV_GUARD_INSTALL`): pages that are mapped, and whose touch is a SIGSEGV all the same.
//!
//! They are markers in the page tables, so they know of no area: they stay where areas are cut and merged,
//! move with `mremap`, and go with what unmaps. `MADV_DONTNEED` and its like leave them.

use alloc::{collections::BTreeSet, vec::Vec};
use core::ops::Range;

use crate::PAGE_SIZE;

/// The pages that are guarded, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guards(BTreeSet<u64>);

impl Guards {
    pub(crate) fn contains(&self, page: u64) -> bool {
        self.0.contains(&page)
    }

    /// Whether a page of the range is guarded.
    pub(crate) fn any(&self, range: Range<u64>) -> bool {
        !self.0.is_empty() && self.0.range(range).next().is_some()
    }

    pub(crate) fn install(&mut self, range: Range<u64>) {
        self.0.extend(range.step_by(PAGE_SIZE as usize));
    }

    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if self.any(range.clone()) {
            self.0.retain(|page| !range.contains(page));
        }
    }

    /// What is guarded of the range is guarded elsewhere from now on.
    pub(crate) fn rename(&mut self, range: Range<u64>, to: u64) {
        let moved: Vec<u64> = self.0.range(range.clone()).copied().collect();
        self.remove(range.clone());
        self.0
            .extend(moved.iter().map(|page| page - range.start + to));
    }
}
