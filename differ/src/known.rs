// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`KNOWN`]: where kernels are known to do otherwise than the model, and why that is no finding.
//!
//! Each is counted, and each run tells the counts with its result. Nothing else is ever ignored.

use vmalab_model::Op;

use crate::oracle::World;
use crate::runner::{Case, What};

/// One difference, and the reason for it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// In a few words.
    pub name: &'static str,
    /// Why it is no finding.
    pub reason: &'static str,
    /// What the oracle's name begins with, as `host` or `vmac`; empty for any.
    pub oracle: &'static str,
    /// Who knows it when it comes.
    pub by: By,
}

/// Who knows a difference when it comes.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// The comparison: it ends the batch, and the run goes on with the next one.
    Comparison {
        /// What differs, as [`Difference::aspect`](crate::compare::Difference::aspect) calls it.
        aspect: &'static str,
        /// Whether it is this one, by the operation that shows it.
        shown_by: fn(&Op, &World) -> bool,
    },
    /// The oracle, which sets it right and goes on: [`Oracle::excused`](crate::oracle::Oracle::excused).
    Oracle,
    /// Nobody: the oracle does not show it.
    Mask,
}

/// See [`KNOWN`].
pub const CHARGE_OF_MMAP: &str = "commit charge lost by an mmap that failed";
/// See [`KNOWN`].
pub const CHARGE_OF_MREMAP: &str = "commit charge lost by an mremap";
/// See [`KNOWN`].
pub const CHARGE_OF_STACK: &str = "commit charge lost by a stack that grew";
/// See [`KNOWN`].
pub const LOCKED_IN_AN_INT: &str = "locked memory counted in an int";
/// See [`KNOWN`].
pub const TREE_WITHOUT_MEMORY: &str = "the maple tree's assertion after a merge without memory";

/// All that are known.
pub const KNOWN: &[Known] = &[
    Known {
        name: CHARGE_OF_MMAP,
        reason: "an mmap with MAP_FIXED that fails after the old areas went does not give back what they were \
                 charged: __mmap_setup leaves that to the new area, and the error path of __mmap_region gives back \
                 the difference alone (seen on a running 6.18, too; until 7.3.3)",
        oracle: "vmac",
        by: By::Oracle,
    },
    Known {
        name: CHARGE_OF_MREMAP,
        reason: "one whose source cannot be unmapped charges it once more (unmap_source_vma); until 7.3.3, one to \
                 another place that shrinks is charged for what it gives up (vrm_calc_charge, since 6.17), and one \
                 that is sent back by its driver keeps the charge of what it would have grown by",
        oracle: "vmac",
        by: By::Oracle,
    },
    Known {
        name: CHARGE_OF_STACK,
        reason: "acct_stack_growth charges a stack that does not count against the limit (MAP_NORESERVE, or not \
                 writable), and unmapping it gives nothing back (seen on a running 6.18, too)",
        oracle: "vmac",
        by: By::Oracle,
    },
    Known {
        name: LOCKED_IN_AN_INT,
        reason: "until 7.3.3, mlock_fixup counts pages in an int, so that locked_vm is wrong after 8 TiB and more; the \
                 model counts as it does, and only the recount of the areas is excused",
        oracle: "vmac",
        by: By::Oracle,
    },
    Known {
        name: TREE_WITHOUT_MEMORY,
        reason: "where there is no memory for a merge, __mmap_region goes on with an iterator that is still at the \
                 area before, and __mas_set_range objects; all that can be seen after it is in order",
        oracle: "vmac",
        by: By::Oracle,
    },
    Known {
        name: "flags that no program asked for",
        reason: "whether pages were written to since somebody asked (VM_SOFTDIRTY) follows from other things than the \
                 operations",
        oracle: "host",
        by: By::Mask,
    },
];

/// The one among `list` that a case is.
pub fn find<'a>(list: &'a [Known], oracle: &str, case: &Case, world: &World) -> Option<&'a Known> {
    let What::Differs(differs) = &case.what else {
        // What a kernel never does is not known of any.
        return None;
    };
    let found = differs.difference.aspect();
    let last = case.ops.last()?;
    list.iter().find(|known| match known.by {
        By::Comparison { aspect, shown_by } => {
            oracle.starts_with(known.oracle) && aspect == found && shown_by(last, world)
        }
        By::Oracle | By::Mask => false,
    })
}

/// Those of the list that an oracle never shows.
pub fn masked(oracle: &str) -> impl Iterator<Item = &'static Known> {
    let masked = |known: &&Known| matches!(known.by, By::Mask) && oracle.starts_with(known.oracle);
    KNOWN.iter().filter(masked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names are what counts are told by.
    #[test]
    fn names_are_distinct_and_have_reasons() {
        let names: BTreeSet<_> = KNOWN.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), KNOWN.len());
        assert!(KNOWN.iter().all(|known| known.reason.len() > 40));
        assert_eq!(masked("host (Linux 7.2)").count(), 1);
        assert_eq!(masked("vmac (mm/vma.c)").count(), 0);
    }
}
