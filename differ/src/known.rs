// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! [`KNOWN`]: where kernels are known to do otherwise than the model, on purpose, and why.
//!
//! A divergence that is in this list is counted and told as known, and the run goes on with the next
//! batch. Nothing else is ever ignored. What the kernel itself has wrong, and the library of
//! [`vmac`](crate::vmac) sets right and counts, stands in `differ/vmac/README.md`.

use vmalab_model::Op;

use crate::oracle::World;
use crate::runner::{Case, What};

/// One difference, and the reason for it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// In a few words.
    pub name: &'static str,
    /// Why the model does not do as the kernel does.
    pub reason: &'static str,
    /// What the oracle's name begins with, as `host` or `vmac`; empty for any.
    pub oracle: &'static str,
    /// What differs, as [`Difference::aspect`](crate::compare::Difference::aspect) calls it.
    pub aspect: &'static str,
    /// Whether it is this one, by the operation that shows it.
    pub shown_by: fn(&Op, &World) -> bool,
}

/// All that are known.
pub const KNOWN: &[Known] = &[];

/// The one among `list` that a case is.
pub fn find<'a>(list: &'a [Known], oracle: &str, case: &Case, world: &World) -> Option<&'a Known> {
    let What::Differs(differs) = &case.what else {
        // What a kernel never does is not known of any.
        return None;
    };
    let aspect = differs.difference.aspect();
    let last = case.ops.last()?;
    list.iter().find(|known| {
        oracle.starts_with(known.oracle) && known.aspect == aspect && (known.shown_by)(last, world)
    })
}
