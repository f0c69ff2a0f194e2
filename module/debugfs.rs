// SPDX-License-Identifier: GPL-2.0-only

//! `/sys/kernel/debug/vmalab/`: each count of the module in a file of its own, and in `list` a line for
//! each object.
//!
//! Not by way of [`kernel::debugfs`]: the `file_operations` of its files are in the module's memory
//! and have no `owner`. Who has such a file open while the module is removed, and closes it after
//! that, takes the kernel into memory that is gone. The files of the counts are the kernel's own, which
//! look at the module's memory only while the file is there. `list` has an owner: as long as it is open, the
//! module stays.

use crate::{objects, stats::Stats, THIS_MODULE};
use kernel::{bindings, ffi, prelude::*, seq_file::SeqFile};

/// The `file_operations` of a file that is written anew for each reader.
#[repr(transparent)]
struct ListFile(bindings::file_operations);

// SAFETY: It is never written, and the module that it points to is not looked at through it.
unsafe impl Sync for ListFile {}

static LIST: ListFile = ListFile(bindings::file_operations {
    owner: THIS_MODULE.as_ptr(),
    open: Some(open_list),
    read: Some(bindings::seq_read),
    llseek: Some(bindings::seq_lseek),
    release: Some(bindings::single_release),
    ..pin_init::zeroed()
});

/// # Safety
///
/// Called by the kernel as `file_operations.open`.
unsafe extern "C" fn open_list(
    _inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> ffi::c_int {
    // SAFETY: The file is being opened, and `single_release` is its `release`.
    unsafe { bindings::single_open(file, Some(show_list), core::ptr::null_mut()) }
}

/// # Safety
///
/// Called by the kernel as `seq_operations.show`.
unsafe extern "C" fn show_list(
    out: *mut bindings::seq_file,
    _data: *mut ffi::c_void,
) -> ffi::c_int {
    // SAFETY: The kernel passes a valid `seq_file`, which is ours alone for this call.
    objects::show_all(unsafe { SeqFile::from_raw(out) });
    0
}

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
        // SAFETY: As above; the table is a static, with an owner. It tells root what no one else may know:
        // the objects of others.
        unsafe {
            bindings::debugfs_create_file_full(
                c"list".as_char_ptr(),
                0o400,
                dir,
                core::ptr::null_mut(),
                core::ptr::null(),
                &LIST.0,
            )
        };
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
