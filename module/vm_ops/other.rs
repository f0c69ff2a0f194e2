// SPDX-License-Identifier: GPL-2.0-only

//! What the hooks `access` and `get_policy` take and give.

use core::{mem::MaybeUninit, slice};
use kernel::ffi;

/// Bytes that another process reads from an area, or writes to it.
pub(crate) enum Access<'a> {
    /// To be filled from the area.
    Read(&'a mut [MaybeUninit<u8>]),
    /// To be copied to the area.
    Write(&'a [u8]),
}

impl Access<'_> {
    /// # Safety
    ///
    /// For as long as this lives, `buf` is valid for `len` bytes, for reading if `write` is not 0, else
    /// for writing.
    pub(super) unsafe fn from_raw(
        buf: *mut ffi::c_void,
        len: ffi::c_int,
        write: ffi::c_int,
    ) -> Self {
        let (buf, len) = (buf.cast::<u8>(), usize::try_from(len).unwrap_or(0));
        if write != 0 {
            // SAFETY: The caller's promise.
            Self::Write(unsafe { slice::from_raw_parts(buf, len) })
        } else {
            // SAFETY: The caller's promise; the bytes need not be initialized.
            Self::Read(unsafe { slice::from_raw_parts_mut(buf.cast(), len) })
        }
    }
}

/// Whose memory policy holds.
pub(crate) enum Policy {
    /// That of the area, which `mbind` gave to it; the task's if there is none.
    Area,
    /// That of the task that allocates.
    Task,
}
