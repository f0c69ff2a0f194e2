// SPDX-License-Identifier: GPL-2.0-only

//! What `kernel::task` lacks: the number of a thread as a pid namespace sees it.

use kernel::{bindings, pid_namespace::PidNamespace, prelude::*};

/// The numbers of the running process and thread in `ns`: 0 if it cannot see them.
pub(crate) fn current_ids_in(ns: &PidNamespace) -> (u32, u32) {
    let task = current!();
    let pid = task.tgid_nr_ns(Some(ns));
    // SAFETY: The running task is valid, and so is the namespace.
    let tid = unsafe {
        bindings::__task_pid_nr_ns(task.as_ptr(), bindings::pid_type_PIDTYPE_PID, ns.as_ptr())
    };
    (pid as u32, tid as u32)
}
