// SPDX-License-Identifier: GPL-2.0-only

//! `/sys/kernel/debug/vmalab/`: each count of the module in a file of its own.
//!
//! Not by way of [`kernel::debugfs`]: the `file_operations` of its files are in the module's memory
//! and have no `owner`. Who has such a file open while the module is removed, and closes it after
//! that, takes the kernel into memory that is gone. The files here are the kernel's own, which look at
//! the module's memory only while the file is there.

use crate::stats::Stats;
use kernel::{bindings, prelude::*};

/// The directory; dropping it removes it with its files.
///
/// # Invariants
///
/// The pointer is from `debugfs_create_dir`.
pub(crate) struct Dir(*mut bindings::dentry);

// SAFETY: A directory may be removed by another thread than the one that made it.
unsafe impl Send for Dir {}
// SAFETY: There is nothing that can be done through a shared reference.
unsafe impl Sync for Dir {}

impl Dir {
    /// Makes the directory, with a file for each of `stats`.
    ///
    /// As all of debugfs, it does not fail: without debugfs there are no files.
    pub(crate) fn new(name: &'static CStr, stats: &'static Stats) -> Self {
        // SAFETY: The name is a string; no parent means the root.
        let dir =
            unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), core::ptr::null_mut()) };
        for (name, counter) in stats.each() {
            // SAFETY: An error in `dir` is passed through. The counter is a static of this module,
            // and the file is removed, which waits for its readers, before the module is. The file
            // cannot be written; a plain read of an aligned 64-bit value is a single one.
            unsafe {
                bindings::debugfs_create_u64(name.as_char_ptr(), 0o444, dir, counter.as_ptr())
            };
        }
        // INVARIANT: That is where it is from.
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; errors are accepted, and ignored.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}
