// SPDX-License-Identifier: GPL-2.0-only

//! The tracepoint `vmalab:vmalab_hook` of `trace.h`.
//!
//! [`kernel::declare_trace!`] is for tracepoints that the kernel crate's own bindings know. This does
//! the same with ours: a branch that the kernel patches into the code when the tracepoint is switched
//! on, and a call.

use crate::uapi::vmalab_event;

mod raw {
    #![allow(
        clippy::undocumented_unsafe_blocks,
        missing_docs,
        non_upper_case_globals,
        unreachable_pub,
        reason = "bindgen writes it"
    )]
    // Zero-sized structures are zero-sized in C, too.
    #![allow(improper_ctypes)]

    use crate::uapi::vmalab_event;
    use kernel::bindings::*;

    include!(concat!(env!("VMALAB_GENERATED"), "/trace.rs"));
}

/// Whether somebody traces the calls of hooks: a branch that is patched, no access to memory.
#[cfg(CONFIG_TRACEPOINTS)]
#[inline(always)]
pub(crate) fn is_on() -> bool {
    // SAFETY: It is the key of our tracepoint, which C has made.
    unsafe {
        kernel::jump_label::static_branch_unlikely!(
            raw::__tracepoint_vmalab_hook,
            kernel::bindings::tracepoint,
            key
        )
    }
}

/// Whether somebody traces the calls of hooks: nobody can, with this kernel.
#[cfg(not(CONFIG_TRACEPOINTS))]
pub(crate) fn is_on() -> bool {
    false
}

/// Traces a call of a hook, if [`is_on`].
pub(crate) fn hook(object: u64, event: &vmalab_event) {
    #[cfg(CONFIG_TRACEPOINTS)]
    if is_on() {
        // SAFETY: It takes a pointer that is valid during the call, and may be called in any context
        // but an NMI.
        unsafe { raw::rust_do_trace_vmalab_hook(object, event) };
    }
    #[cfg(not(CONFIG_TRACEPOINTS))]
    let _ = (object, event);
}
