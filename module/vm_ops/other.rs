// SPDX-License-Identifier: GPL-2.0-only

//! What the hooks `access` and `get_policy` take and give.

use core::slice;
use kernel::ffi;

/// Bytes that another process reads from an area, or writes to it.
pub(crate) enum Access<'a> {
    /// To be filled from the area. They are zeros at first, so that what a driver leaves out, or counts
    /// wrongly, is nothing of the kernel's.
    Read(&'a mut [u8]),
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
            // SAFETY: The caller's promise. The bytes are initialized, and only then referred to.
            Self::Read(unsafe {
                buf.write_bytes(0, len);
                slice::from_raw_parts_mut(buf, len)
            })
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
