// SPDX-License-Identifier: GPL-2.0-only

//! What `kernel::task` lacks: the number of a thread as a pid namespace sees it.

use crate::helpers;
use kernel::pid_namespace::PidNamespace;

/// The numbers of the running process and thread in `ns`: 0 if it cannot see them.
pub(crate) fn current_ids_in(ns: &PidNamespace) -> (u32, u32) {
    let (mut pid, mut tid) = (0, 0);
    // SAFETY: The namespace is valid, and the function fills both.
    unsafe { helpers::vmalab_current_ids(ns.as_ptr(), &mut pid, &mut tid) };
    (pid, tid)
}
